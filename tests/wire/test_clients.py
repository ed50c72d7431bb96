"""Real clients: what a program finds out about a denial, and that an accepted socket talks."""

from __future__ import annotations

import json

import aiohttp
import pytest
import websockets
from websockets.asyncio.client import connect

from .servers import SERVERS

#: Neither library speaks websockets over HTTP/2.
HTTP1 = pytest.mark.parametrize("server", [name for name in SERVERS if name != "hypercorn-h2"], indirect=True)


def url(server, path):
    return f"ws://127.0.0.1:{server.port}{path}"


@HTTP1
async def test_websockets_raises_invalid_status_with_the_whole_response(server):
    with pytest.raises(websockets.InvalidStatus) as caught:
        await connect(url(server, "/ws/deny-with-headers/"), proxy=None)
    response = caught.value.response
    if server.can("denial"):
        assert response.status_code == 429
        assert response.headers["Retry-After"] == "30"
        assert response.headers["Content-Type"] == "application/problem+json"
        assert json.loads(response.body)["code"] == "throttled"
    else:
        assert response.status_code == 403


@HTTP1
async def test_websockets_talks_to_an_accepted_socket(server, cookie_of):
    headers = cookie_of("alice")
    async with connect(url(server, "/logged-in/"), additional_headers=headers, proxy=None) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
        await socket.send(b"\x00\xff" * 50_000)
        assert await socket.recv() == b"\x00\xff" * 50_000
    assert socket.close_code == 1000


@HTTP1
async def test_websockets_learns_the_code_of_a_stack_that_denies_with_close(server):
    async with connect(url(server, "/deny-with-close/ws/deny-all/"), proxy=None) as socket:
        with pytest.raises(websockets.ConnectionClosed) as caught:
            await socket.recv()
    assert caught.value.rcvd.code == 4403
    assert caught.value.rcvd.reason == ("permission_denied" if server.can("close-reason") else "")


@HTTP1
async def test_aiohttp_raises_a_handshake_error_with_status_and_headers(server):
    async with aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.ws_connect(url(server, "/ws/deny-with-headers/"))
    if server.can("denial"):
        assert caught.value.status == 429
        assert caught.value.headers["Retry-After"] == "30"
    else:
        assert caught.value.status == 403


@HTTP1
async def test_aiohttp_talks_to_an_accepted_socket(server, cookie_of):
    async with (
        aiohttp.ClientSession(headers=cookie_of("alice")) as client,
        client.ws_connect(url(server, "/logged-in/")) as socket,
    ):
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"
        await socket.send_bytes(b"\x00\xff" * 50_000)
        assert await socket.receive_bytes() == b"\x00\xff" * 50_000
    assert socket.close_code == 1000
