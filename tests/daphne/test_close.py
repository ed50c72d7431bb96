"""``websocket.close`` after the accept: code and reason."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as websocket

from .client import unique

if TYPE_CHECKING:
    from .servers import Server

ACCEPT = {"type": "websocket.accept"}


def closed(server: Server, path: str, *steps: object) -> tuple[int, str]:
    """The code and reason that end an accepted socket."""
    url = f"ws://127.0.0.1:{server.port}{path}?{quote(repr([ACCEPT, *steps]))}"
    with websocket(url) as client, pytest.raises(ConnectionClosed) as caught:
        client.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def close(**values: object) -> dict[str, object]:
    return {"type": "websocket.close", **values}


def test_code_and_reason_reach_the_client(server: Server) -> None:
    assert closed(server, unique(), close(code=4401, reason="not_authenticated")) == (
        4401,
        "not_authenticated",
    )


def test_a_close_without_a_code_is_1000(server: Server) -> None:
    assert closed(server, unique(), close()) == (1000, "")


def test_a_reason_without_a_code_goes_with_1000(server: Server) -> None:
    assert closed(server, unique(), close(reason="bye")) == (1000, "bye")


@pytest.mark.parametrize("code", [1001, 1003, 1008, 1011, 1013, 3000, 4999])
def test_every_code_that_a_server_may_send_is_sent(server: Server, code: int) -> None:
    assert closed(server, unique(), close(code=code)) == (code, "")


def test_a_long_reason_is_cut_at_a_character(server: Server) -> None:
    assert closed(server, unique(), close(code=4000, reason="é" * 100)) == (4000, "é" * 61)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2000, 2999, 5000, -1, True, "1000", 1000.0])
def test_a_code_that_must_not_be_sent_is_an_error(server: Server, code: object) -> None:
    path = unique()
    assert closed(server, path, ("dare", close(code=code)), close(code=4000)) == (4000, "")
    assert f"got ValueError: websocket.close got the code {code!r}" in server.wait_for(f"{path} got")


def test_a_reason_that_is_no_string_is_an_error(server: Server) -> None:
    path = unique()
    assert closed(server, path, ("dare", close(reason=b"bye")), close(code=4000)) == (4000, "")
    assert "got TypeError: websocket.close got the reason b'bye'" in server.wait_for(f"{path} got")


def test_an_exception_after_the_accept_closes_with_1011(server: Server) -> None:
    assert closed(server, unique(), "crash") == (1011, "")
