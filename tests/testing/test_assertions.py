"""Assertions on denials: what passes, and what failures say."""

from __future__ import annotations

import unittest

import pytest
from django.http import HttpResponse, JsonResponse

from channels_wsdeny.testing import (
    Closed,
    Denied,
    HandshakeResponse,
    WebsocketClient,
    WebsocketCommunicator,
    assert_accepted,
    assert_denied,
)

from .apps import Script, accept, body, close, start

ACCEPT = HandshakeResponse("/ws/", 101, subprotocol="chat")
DENIAL = HandshakeResponse(
    "/ws/", 401, [(b"content-type", b"application/json")], b'{"code": "not_authenticated"}'
)
DENYING = Script(start(403), body())


def test_a_denial_passes_and_is_returned():
    assert assert_denied(DENIAL) is DENIAL
    assert assert_denied(DENIAL, 401) is DENIAL
    assert assert_denied(DENIAL, 401, code="not_authenticated") is DENIAL
    assert assert_denied(DENIAL, code="not_authenticated") is DENIAL


def test_an_accept_passes_and_is_returned():
    assert assert_accepted(ACCEPT) is ACCEPT
    assert assert_accepted(ACCEPT, subprotocol="chat") is ACCEPT


def failure_of(function, *args, **options):
    with pytest.raises(AssertionError) as failure:
        function(*args, **options)
    return str(failure.value).splitlines()


def test_another_status_fails():
    lines = failure_of(assert_denied, DENIAL, 403, code="permission_denied")
    assert lines == [
        "Expected the handshake to be denied with 403, code 'permission_denied'. Found 401.",
        "    /ws/: 401 Unauthorized, code 'not_authenticated'",
        "    content-type: application/json",
        "",
        '    {"code": "not_authenticated"}',
    ]


def test_another_code_fails():
    lines = failure_of(assert_denied, DENIAL, 401, code="expired")
    assert lines[0] == (
        "Expected the handshake to be denied with 401, code 'expired'. Found the code 'not_authenticated'."
    )


def test_no_code_fails():
    lines = failure_of(assert_denied, HandshakeResponse("/ws/", 403), code="expired")
    assert lines[0] == "Expected the handshake to be denied, code 'expired'. Found no code."


def test_an_accept_is_no_denial():
    lines = failure_of(assert_denied, ACCEPT, 403)
    assert lines == [
        "Expected the handshake to be denied with 403. It was accepted.",
        "    /ws/: 101 Switching Protocols",
    ]


def test_a_denial_is_no_accept():
    lines = failure_of(assert_accepted, DENIAL)
    assert lines[:2] == [
        "Expected the handshake to be accepted. It was denied with 401.",
        "    /ws/: 401 Unauthorized, code 'not_authenticated'",
    ]


def test_another_subprotocol_fails():
    lines = failure_of(assert_accepted, ACCEPT, subprotocol="v2")
    assert lines[0] == "Expected the subprotocol 'v2', found 'chat'."


def test_a_close_before_the_accept_is_a_403():
    response = HandshakeResponse("/ws/", 403, close={"code": 4401, "reason": "not_authenticated"})
    assert_denied(response, 403, code="not_authenticated")
    assert failure_of(assert_denied, response, 401)[1] == (
        "    /ws/: 403 Forbidden, closed with 4401 'not_authenticated'"
    )


def test_a_close_after_the_accept_is_its_status():
    assert_denied(
        HandshakeResponse("/ws/", 101, close={"code": 4401, "reason": "expired"}), 401, code="expired"
    )
    assert_denied(Closed(4401, "expired"), 401, code="expired")


def test_an_ordinary_close_is_an_accept():
    lines = failure_of(assert_denied, Closed(1000, path="/ws/"))
    assert lines == [
        "Expected the handshake to be denied. It was accepted.",
        "    The socket of /ws/ is closed: 1000, ''.",
    ]


async def test_what_pytest_caught_may_be_given():
    with pytest.raises(Denied) as caught:
        async with WebsocketClient(DENYING).connect("/ws/"):
            pass
    assert assert_denied(caught, 403) is caught.value.response


def test_what_unittest_caught_may_be_given():
    with unittest.TestCase().assertRaises(Denied) as caught:  # noqa: PT027
        raise Denied(DENIAL)
    assert assert_denied(caught, 401) is DENIAL


def test_the_exception_may_be_given():
    assert assert_denied(Denied(DENIAL), 401) is DENIAL


async def test_a_communicator_may_be_given():
    communicator = WebsocketCommunicator(DENYING, "/ws/")
    await communicator.connect()
    assert assert_denied(communicator, 403) is communicator.denial


async def test_a_socket_may_be_given():
    async with WebsocketClient(Script(accept())).connect("/ws/") as socket:
        assert assert_accepted(socket) is socket.response


async def test_an_answer_by_close_after_the_accept_is_a_denial():
    application = Script(accept(), close(code=4429, reason="throttled"))
    assert_denied(await WebsocketClient(application).handshake("/ws/"), 429, code="throttled")


def test_a_response_of_a_view_may_be_given():
    assert_denied(JsonResponse({"code": "throttled"}, status=429), 429, code="throttled")
    assert_accepted(HttpResponse())


@pytest.mark.parametrize("answer", [(False, 403), None, WebsocketCommunicator(DENYING, "/ws/")])
def test_anything_else_is_refused(answer):
    with pytest.raises(TypeError, match=r"^assert_denied\(\) takes what client.handshake\(\) returned"):
        assert_denied(answer, 403)
