"""Answers: the response that a handshake got, and how failures show it."""

from __future__ import annotations

import pytest
from django.http import HttpResponse, StreamingHttpResponse

from channels_wsdeny.testing import Closed, Denied, HandshakeResponse
from channels_wsdeny.testing.responses import described

PROBLEM = [(b"content-type", b"application/problem+json")]


def test_a_response_without_headers_has_none():
    assert dict(HandshakeResponse("/ws/", 403).items()) == {}


def test_headers_of_one_name_are_joined():
    response = HandshakeResponse("/ws/", 403, [(b"vary", b"accept"), (b"vary", b"cookie")])
    assert response["Vary"] == "accept, cookie"


def test_raw_headers_are_as_they_were_sent():
    headers = [(b"vary", b"accept"), (b"vary", b"cookie"), (b"set-cookie", b"a=1")]
    assert HandshakeResponse("/ws/", 403, headers).raw_headers == headers


def test_cookies_have_their_attributes():
    line = b"a=1; Path=/ws/; HttpOnly; Max-Age=5; SameSite=Lax; expires=Thu, 01 Jan 1970 00:00:00 GMT"
    morsel = HandshakeResponse("/ws/", 101, [(b"set-cookie", line)]).cookies["a"]
    assert (morsel["path"], morsel["httponly"], morsel["max-age"], morsel["samesite"], morsel["expires"]) == (
        "/ws/",
        True,
        "5",
        "Lax",
        "Thu, 01 Jan 1970 00:00:00 GMT",
    )


def test_attributes_that_nobody_knows_are_passed_over():
    line = b"a=1; Priority=High; Unknown; Path=/x"
    cookies = HandshakeResponse("/ws/", 101, [(b"set-cookie", line)]).cookies
    assert ([*cookies], cookies["a"]["path"]) == (["a"], "/x")


def test_a_cookie_that_has_no_name_is_passed_over():
    assert HandshakeResponse("/ws/", 101, [(b"set-cookie", b"a b=1; Path=/")]).cookies == {}


def test_a_quoted_value_is_read():
    response = HandshakeResponse("/ws/", 101, [(b"set-cookie", rb'a="x\054 y"')])
    assert response.cookies["a"].value == "x, y"


def test_json_is_parsed():
    assert HandshakeResponse("/ws/", 403, PROBLEM, b'{"a": 1}').json() == {"a": 1}


def test_what_is_no_json_is_not_parsed():
    response = HandshakeResponse("/ws/", 403, [(b"content-type", b"text/plain")], b"1")
    with pytest.raises(ValueError, match=r"Content-Type of /ws/: 403 Forbidden is 'text/plain', not JSON"):
        response.json()


@pytest.mark.parametrize(
    ("headers", "content", "code"),
    [
        (PROBLEM, b'{"code": "throttled"}', "throttled"),
        (PROBLEM, b'{"code": 1}', ""),
        (PROBLEM, b"[]", ""),
        (PROBLEM, b"{", ""),
        ([(b"content-type", b"text/plain")], b'{"code": "throttled"}', ""),
        ([], b"", ""),
    ],
)
def test_the_code_is_the_bodys(headers, content, code):
    assert HandshakeResponse("/ws/", 403, headers, content).code == code


def test_the_code_may_be_the_reason_of_a_close():
    assert HandshakeResponse("/ws/", 403, close={"code": 4403, "reason": "no"}).code == "no"


@pytest.mark.parametrize(
    ("status", "close", "denial_status"),
    [
        (101, None, None),
        (403, None, 403),
        (403, {"code": 4401}, 403),
        (101, {"code": 4401}, 401),
        (101, {"code": 1000}, None),
        (101, {"code": 4299}, None),
        (101, {"code": 4600}, None),
    ],
)
def test_the_status_of_a_denial(status, close, denial_status):
    assert HandshakeResponse("/ws/", status, close=close).denial_status == denial_status


def test_a_response_prints_as_what_it_says():
    response = HandshakeResponse("/ws/", 403, PROBLEM, b'{"code": "no"}')
    assert repr(response) == "<HandshakeResponse /ws/: 403 Forbidden, code 'no'>"


def test_a_denial_that_nobody_expected_shows_all_of_it():
    headers = [*PROBLEM, (b"set-cookie", b"a=1; Path=/")]
    assert str(Denied(HandshakeResponse("/ws/", 401, headers, b'{"code": "no"}'))) == (
        "The handshake was denied.\n"
        "    /ws/: 401 Unauthorized, code 'no'\n"
        "    content-type: application/problem+json\n"
        "    Set-Cookie: a=1; Path=/\n"
        "\n"
        '    {"code": "no"}'
    )


def test_a_denial_and_a_close_fail_a_test_that_did_not_expect_them():
    assert issubclass(Denied, AssertionError)
    assert issubclass(Closed, AssertionError)


def test_a_long_body_is_cut():
    text = described(HandshakeResponse("/ws/", 403, content=b"x" * 5000))
    assert text.endswith("x… (5000 bytes)")
    assert len(text) < 1100


def test_a_body_that_is_no_text_is_escaped():
    assert described(HandshakeResponse("/ws/", 403, content=b"\xff")).endswith("\n    \\xff")


def test_responses_of_views_are_described_too():
    assert described(HttpResponse("no", status=404)) == (
        "    404 Not Found\n    Content-Type: text/html; charset=utf-8\n\n    no"
    )


def test_a_streaming_response_is_left_unread():
    assert described(StreamingHttpResponse(["a"])).endswith("(streaming)")
