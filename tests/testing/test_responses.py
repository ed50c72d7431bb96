"""Responses to handshakes, and assertions on them: what passes, and what failures say."""

import pytest
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse

from channels_wsdeny.testing import Closed, Denied, HandshakeResponse, assert_accepted, assert_denied
from channels_wsdeny.testing.client import WebsocketClient
from channels_wsdeny.testing.communicator import WebsocketCommunicator
from tests.support.scripted import Script, accept, body, start

PROBLEM = [(b"content-type", b"application/problem+json")]
ACCEPT = HandshakeResponse(101, subprotocol="chat")
DENIAL = HandshakeResponse(401, [*PROBLEM, (b"set-cookie", b"a=1; Path=/")], b'{"code": "not_authenticated"}')
SHOWN = """
    401 Unauthorized
    content-type: application/problem+json
    Set-Cookie: a=1; Path=/

    {"code": "not_authenticated"}"""


def closed(status, **message):
    response = HandshakeResponse(status)
    response.note_close(message)
    return response


def test_the_headers_are_those_that_were_sent():
    headers = [(b"vary", b"accept"), (b"vary", b"cookie"), (b"set-cookie", b"a=1; Path=/ws/; HttpOnly")]
    response = HandshakeResponse(403, headers)
    assert dict(response.items()) == {"vary": "accept, cookie"}
    assert (response.cookies["a"].value, response.cookies["a"]["path"]) == ("1", "/ws/")


@pytest.mark.parametrize(
    ("content", "code"), [(b'{"code": "throttled"}', "throttled"), (b"{}", ""), (b"[]", ""), (b"{", ""), (b"", "")]
)
def test_the_code_is_in_a_json_body(content, code):
    response = HandshakeResponse(403, PROBLEM, content)
    assert response.code == code
    assert not code or response.json()["code"] == code


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (DENIAL, {}),
        (DENIAL, {"status": 401, "code": "not_authenticated"}),
        (closed(403, code=4401, reason="expired"), {"status": 403, "code": "expired"}),
        (closed(101, code=4401, reason="expired"), {"status": 401, "code": "expired"}),
        (closed(101, code=4429, reason="throttled;retry=30"), {"status": 429, "code": "throttled"}),
        (JsonResponse({"code": "throttled"}, status=429), {"status": 429, "code": "throttled"}),
        (StreamingHttpResponse(["a"], status=403), {"status": 403}),
    ],
)
def test_a_denial_passes_and_is_returned(response, expected):
    assert assert_denied(response, **expected) is response
    with pytest.raises(AssertionError, match=r"^Expected an accept\. Found:\n"):
        assert_accepted(response)
    for other in ({"status": 418}, {"code": "teapot"}):
        with pytest.raises(AssertionError, match=r"^Expected a denial (418|teapot)\. Found:\n"):
            assert_denied(response, **other)


@pytest.mark.parametrize(
    "response", [ACCEPT, closed(101), closed(101, code=4299), closed(101, code=4600), HttpResponse()]
)
def test_an_accept_passes_and_is_returned(response):
    assert assert_accepted(response) is response
    with pytest.raises(AssertionError, match=r"^Expected a denial\. Found:\n"):
        assert_denied(response)


def test_the_subprotocol_of_an_accept_may_be_asserted():
    assert_accepted(ACCEPT, subprotocol="chat")
    with pytest.raises(AssertionError, match="an accept with the subprotocol 'v2'"):
        assert_accepted(ACCEPT, subprotocol="v2")


def test_failures_show_the_response():
    assert str(Denied(DENIAL)) == f"The handshake was denied.{SHOWN}"
    with pytest.raises(AssertionError) as failure:
        assert_denied(DENIAL, 403, code="permission_denied")
    assert str(failure.value) == f"Expected a denial 403 permission_denied. Found:{SHOWN}"
    revoked = Closed(closed(101, code=4403, reason="revoked"))
    assert str(revoked) == "The socket is closed: 4403, 'revoked'."
    assert isinstance(revoked, AssertionError)
    with pytest.raises(AssertionError, match="closed with 4403 'revoked'"):
        assert_accepted(revoked)


async def test_everything_that_holds_a_response_may_be_given():
    application = Script(start(403), body())
    with pytest.raises(Denied) as caught:
        async with WebsocketClient(application).connect("/ws/"):
            pass
    communicator = WebsocketCommunicator(application, "/ws/")
    await communicator.connect()
    for denied in (caught.value, communicator):
        assert assert_denied(denied, 403) is denied.response
    async with WebsocketClient(Script(accept())).connect("/ws/") as socket:
        assert assert_accepted(socket) is socket.response
