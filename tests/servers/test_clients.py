"""Real clients: what a program finds out about a denial, and that an accepted socket talks."""

import json

import aiohttp
import pytest
import websockets
from websockets.asyncio.client import connect

from .table import HTTP1

#: Neither library speaks websockets over HTTP/2.
pytestmark = pytest.mark.parametrize("server", HTTP1, indirect=True)
BYTES = b"\x00\xff" * 50_000


def url(server, path):
    return f"ws://127.0.0.1:{server.port}{path}"


async def test_websockets_gets_the_whole_denial_and_the_code_of_a_stack_that_denies_with_close(server):
    with pytest.raises(websockets.InvalidStatus) as denied:
        await connect(url(server, "/ws/deny-with-headers/"), proxy=None)
    response = denied.value.response
    if server.can("denial"):
        assert (response.status_code, response.headers["Retry-After"]) == (429, "30")
        assert json.loads(response.body)["code"] == "throttled"
    async with connect(url(server, "/deny-with-close/ws/deny-all/"), proxy=None) as socket:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd.code == 4403
    assert closed.value.rcvd.reason == ("permission_denied" if server.can("close-reason") else "")


async def test_websockets_talks_to_an_accepted_socket(server, cookie_of):
    headers = cookie_of("alice")
    async with connect(url(server, "/logged-in/"), additional_headers=headers, proxy=None) as socket:
        for message in ("hello", BYTES):
            await socket.send(message)
            assert await socket.recv() == message
    assert socket.close_code == 1000


async def test_aiohttp_gets_status_and_headers_of_a_denial_and_talks_to_an_accepted_socket(server, cookie_of):
    async with aiohttp.ClientSession(headers=cookie_of("alice")) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await client.ws_connect(url(server, "/ws/deny-with-headers/"))
        async with client.ws_connect(url(server, "/logged-in/")) as socket:
            await socket.send_bytes(BYTES)
            assert await socket.receive_bytes() == BYTES
    assert socket.close_code == 1000
    if server.can("denial"):
        assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "30")
