"""The access log: one line with the real status for every handshake that got no socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .client import ask, body, connect, read_head, request, start, unique

if TYPE_CHECKING:
    from .servers import Server


@pytest.mark.parametrize(
    ("steps", "status", "size"),
    [
        ([start(401), body(b"12345")], "401", "5"),
        ([start(429), body()], "429", "-"),
        ([start(304), body(b"12345")], "304", "-"),
        ([{"type": "websocket.close"}], "403", "-"),
        (["crash"], "500", "-"),
        ([start(101)], "500", "-"),
    ],
    ids=repr,
)
def test_a_denial_is_logged_with_its_status_and_size(
    server: Server, steps: list[object], status: str, size: str
) -> None:
    path = unique()
    ask(server, steps, path=path)
    line = server.wait_for(f"GET {path}", server.access_log)
    assert line.startswith("127.0.0.1:")
    assert line.endswith(f'"GET {path}" {status} {size}')


def test_a_denial_is_logged_without_its_query(server: Server) -> None:
    path = unique()
    ask(server, [start(401), body(b"hidden")], path=path)
    server.wait_for(f"GET {path}", server.access_log)
    assert "hidden" not in server.access_log.read_text()


def test_a_denial_is_logged_once(server: Server) -> None:
    path = unique()
    ask(server, [start(401), body()], path=path)
    server.wait_for(f"WSDISCONNECT {path}", server.access_log)
    lines = [line for line in server.access_log.read_text().splitlines() if path in line]
    assert [line.split('"')[1].split()[0] for line in lines] == ["WSCONNECTING", "GET", "WSDISCONNECT"]


def test_an_accept_is_logged_as_daphne_does(server: Server) -> None:
    path = unique()
    with connect(server) as connection:
        connection.sendall(request(path, [{"type": "websocket.accept"}, "hang"]))
        read_head(connection)
    server.wait_for(f"WSDISCONNECT {path}", server.access_log)
    lines = [line for line in server.access_log.read_text().splitlines() if path in line]
    assert [line.split('"')[1].split()[0] for line in lines] == ["WSCONNECTING", "WSCONNECT", "WSDISCONNECT"]
