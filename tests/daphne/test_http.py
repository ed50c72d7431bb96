"""HTTP on our server is HTTP on Daphne."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest

from .servers import daphne

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .servers import Server


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("stock")
    with daphne(directory, "tests.daphne.apps:scripted", module="daphne") as server:
        yield server


def exchange(server: Server, method: str, content: bytes | None) -> tuple[int, list[tuple[str, str]], dict]:
    connection = HTTPConnection("127.0.0.1", server.port)
    connection.request(method, "/http", content)
    reply = connection.getresponse()
    headers = [(name, value) for name, value in reply.getheaders() if name.lower() != "date"]
    answer = json.load(reply)
    connection.close()
    return reply.status, headers, {**answer, "connections": [], "alive": []}


@pytest.mark.parametrize(("method", "content"), [("GET", None), ("POST", b"x" * 100_000)])
def test_a_request_is_answered_as_by_daphne(
    server: Server, stock: Server, method: str, content: bytes | None
) -> None:
    assert exchange(server, method, content) == exchange(stock, method, content)


def test_a_connection_is_kept_alive(server: Server) -> None:
    connection = HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", "/one")
    connection.getresponse().read()
    sock = connection.sock
    connection.request("GET", "/two")
    assert connection.getresponse().status == 200
    assert connection.sock is sock
    connection.close()
