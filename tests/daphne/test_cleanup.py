"""What is left of a connection once it is over: a disconnect for the application, and nothing else."""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from .client import ask, body, connect, read, request, start, unique
from .servers import GUARD

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from .servers import Server

DISCONNECT = "heard {'type': 'websocket.disconnect', 'code': 1006}"


def wait_until_gone(server: Server, path: str) -> None:
    """Until neither the server's list nor the process's memory holds the connection of `path`."""
    deadline = time.monotonic() + GUARD
    while time.monotonic() < deadline:
        with urlopen(f"http://127.0.0.1:{server.port}/") as reply:
            state = json.load(reply)
        if path not in state["connections"] + state["alive"]:
            return
        time.sleep(0.1)
    raise AssertionError(state)


@pytest.mark.parametrize(
    "steps", [[start(401), body(b"no")], [{"type": "websocket.close"}], [start(101)], ["crash"]], ids=repr
)
def test_nothing_is_left_of_a_denied_connection(server: Server, steps: list[object]) -> None:
    path = unique()
    ask(server, steps, path=path)
    wait_until_gone(server, path)


@pytest.mark.parametrize("steps", [[start(401), body(b"no")], [{"type": "websocket.close"}]], ids=repr)
def test_a_denied_application_hears_of_the_disconnect_once(server: Server, steps: list[object]) -> None:
    path = unique()
    ask(server, ["hear", *steps, "hear", "hear"], path=path)
    server.wait_for(f"{path} {DISCONNECT}")
    wait_for_close(server, path)
    assert server.log.read_text().count(f"{path} heard") == 2


def wait_for_close(server: Server, path: str) -> None:
    server.wait_for(f"WSDISCONNECT {path}", server.access_log)


def test_an_application_hears_of_the_disconnect_before_a_slow_client_is_done(server: Server) -> None:
    path = unique()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(request(path, ["hear", start(401), ("body", 8 * 1024 * 1024), "hear"]))
        server.wait_for(f"{path} {DISCONNECT}")
    wait_until_gone(server, path)


def test_messages_after_the_denial_are_dropped(server: Server) -> None:
    path = unique()
    reply = ask(server, [start(401), body(b"no"), {"type": "websocket.accept"}, "hear"], path=path)
    assert (reply.status, reply.body) == (401, b"no")
    server.wait_for(f"{path} returned")


@pytest.mark.parametrize(
    ("steps", "after"),
    [
        ([], []),
        ([], ["crash"]),
        ([], [{"type": "websocket.accept"}]),
        ([], [start(403), body()]),
        ([start(401)], []),
        ([start(401)], ["crash"]),
        ([start(401)], [body(b"rest")]),
        ([start(401), body(b"no", more=True)], [body(b"rest")]),
    ],
    ids=repr,
)
def test_nothing_is_left_when_the_client_leaves(
    server: Server, steps: list[object], after: list[object]
) -> None:
    path = unique()
    with connect(server) as connection:
        connection.sendall(request(path, ["hear", *steps, "hear", *after]))
        server.wait_for(f"{path} heard {{'type': 'websocket.connect'}}")
    server.wait_for(f"{path} {DISCONNECT}")
    wait_until_gone(server, path)


def test_nothing_is_left_when_the_client_resets(server: Server) -> None:
    path = unique()
    with connect(server) as connection:
        connection.sendall(request(path, ["hear", "hear"]))
        server.wait_for(f"{path} heard {{'type': 'websocket.connect'}}")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.wait_for(f"{path} {DISCONNECT}")
    wait_until_gone(server, path)


def test_nothing_is_left_when_the_client_leaves_within_a_large_body(server: Server) -> None:
    path = unique()
    with connect(server) as connection:
        connection.sendall(request(path, [start(401), ("body", 32 * 1024 * 1024)]))
        connection.recv(1000)
    wait_until_gone(server, path)


def test_nothing_is_left_of_a_request_that_the_server_refused(server: Server) -> None:
    path = unique()
    ask(server, ["crash"], "Origin: http://[bad", path=path)
    with urlopen(f"http://127.0.0.1:{server.port}/") as reply:
        assert path not in json.load(reply)["connections"]


def test_a_handshake_that_is_pending_at_shutdown_is_a_503(
    serve: Callable[..., AbstractContextManager[Server]],
) -> None:
    path = unique()
    with serve("tests.daphne.apps:scripted") as server:
        connection = connect(server)
        connection.sendall(request(path, ["hear", "hang"]))
        server.wait_for(f"{path} heard")
    with connection:
        assert read(connection).status == 503
    assert "Traceback" not in server.log.read_text()
