"""What takes no server: values that no script can spell."""

from __future__ import annotations

from http import HTTPStatus

from channels_wsdeny.daphne.handshake import Handshake
from channels_wsdeny.daphne.response import Response


def test_a_status_may_be_a_member_of_httpstatus() -> None:
    handshake = Handshake([])
    handshake.answer({"type": "websocket.http.response.start", "status": HTTPStatus.NOT_FOUND})
    response = handshake.answer({"type": "websocket.http.response.body", "body": b"?"})
    assert isinstance(response, Response)
    assert type(response.status) is int
    assert response.encode("").startswith(b"HTTP/1.1 404 Not Found\r\n")


def test_a_part_of_the_body_is_kept_as_it_was_when_it_was_sent() -> None:
    handshake, part = Handshake([]), bytearray(b"one")
    handshake.answer({"type": "websocket.http.response.start", "status": 404})
    handshake.answer({"type": "websocket.http.response.body", "body": part, "more_body": True})
    part[:] = b"two"
    response = handshake.answer({"type": "websocket.http.response.body", "body": memoryview(b"!")})
    assert isinstance(response, Response)
    assert response.body == b"one!"


def test_a_phrase_cannot_break_its_line() -> None:
    assert Response(400, phrase="a\r\nb\xe9").encode("").startswith(b"HTTP/1.1 400 a??b?\r\n")
