"""What an application's messages become: a denial's bytes, an accept as Autobahn takes it, a close frame."""

from email.utils import parsedate_to_datetime
from http import HTTPStatus

import pytest

from channels_wsdeny.daphne.protocol import Handshake, Response, accept_headers, close_payload
from tests.support.connections import answer_of_head
from tests.support.daphne.client import ACCEPT, CLOSE
from tests.support.scripted import body, start


def answer(*messages, offered=()):
    """The answer to the last of `messages`; those before are no answer yet."""
    handshake = Handshake(offered, "")
    *before, last = messages
    assert [handshake.answer(message) for message in before] == [None] * len(before)
    return handshake.answer(last)


def encoded(status, headers=(), body=b"", **values):
    return Response(status, list(headers), body, **values).encode("daphne")


def reply(*arguments):
    """What a client reads."""
    head, _, body = encoded(*arguments).partition(b"\r\n\r\n")
    answer = answer_of_head(head)
    answer.body = body
    return answer


def accepting(*headers, server_name=""):
    return accept_headers({"type": "websocket.accept", "headers": headers}, server_name)


def test_a_denial_is_complete_with_the_last_part_of_its_body():
    part = bytearray(b"one ")
    handshake = Handshake([], "")
    assert handshake.answer(start(401, (b"x-a", b"1"))) is None
    assert handshake.answer(body(part, more=True)) is None
    part[:] = b"two "  # What was sent stays as it was.
    response = handshake.answer(body(memoryview(b"two")))
    assert (response.status, response.headers, response.body) == (401, [(b"x-a", b"1")], b"one two")


def test_headers_and_body_may_be_missing_and_a_status_may_be_a_member_of_httpstatus():
    kind = "websocket.http.response"
    found = answer({"type": f"{kind}.start", "status": HTTPStatus.NOT_FOUND}, {"type": f"{kind}.body"})
    assert (found, type(found.status)) == (Response(404), int)


def test_a_close_is_a_403_with_any_code():
    for message in (CLOSE, {**CLOSE, "code": 4999, "reason": "r"}):
        assert answer(message) == Response(403, phrase="Access denied")


def test_a_subprotocol_is_agreed_as_the_client_spelled_it():
    for chosen, agreed in ((None, None), ("b", "b"), ("a/b", "a%2Fb")):
        assert answer({**ACCEPT, "subprotocol": chosen}, offered=["b", "a%2Fb"]) == (agreed, {})


STARTED, UNFINISHED = "websocket.http.response.start", "came after websocket.http.response.start"


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        *(([{**ACCEPT, "subprotocol": name}], "the subprotocol .* not offered") for name in ("c", "", b"a", 1)),
        *(([start(status)], f"{STARTED} has the status") for status in (101, 199, 600, -1, True, None, "403", 403.5)),
        *(([start(401), body(content)], "response.body has a body of") for content in ("text", None, 5)),
        ([body(b"early")], "response.body came before"),
        *(([start(401), message], f"{message['type']} {UNFINISHED}") for message in (start(402), ACCEPT, CLOSE)),
    ],
    ids=repr,
)
def test_a_message_out_of_turn_or_malformed_is_an_error(messages, error):
    with pytest.raises((TypeError, ValueError), match=error):
        answer(*messages, offered=["a"])


def test_the_error_of_a_subprotocol_that_was_not_offered_holds_no_token():
    with pytest.raises(ValueError, match="has the subprotocol 'chat'") as caught:
        answer({**ACCEPT, "subprotocol": "chat"}, offered=["bearer", "s3cret"])
    assert "s3cret" not in str(caught.value)


def test_a_close_of_an_open_socket_has_a_code_and_at_most_123_bytes_of_reason():
    for values, sent in (
        ({}, (1000, None)),
        ({"reason": "bye"}, (1000, b"bye")),
        *(({"code": code}, (code, None)) for code in (1001, 1003, 1008, 1011, 1013, 3000, 4999)),
        ({"code": 4000, "reason": "é" * 100}, (4000, ("é" * 61).encode())),
    ):
        assert close_payload({**CLOSE, **values}) == sent


def test_a_close_that_must_not_be_sent_is_an_error():
    for code in (0, 999, 1004, 1005, 1006, 1015, 2000, 2999, 5000, -1, True, "1000", 1000.0):
        with pytest.raises(ValueError, match=r"websocket.close has the code"):
            close_payload({**CLOSE, "code": code})
    with pytest.raises(TypeError, match=r"websocket.close has a reason of bytes"):
        close_payload({**CLOSE, "reason": b"bye"})


def test_every_status_has_a_phrase_that_cannot_break_its_line():
    lines = ["299 Success", "302 Found", "399 Redirection", "429 Too Many Requests", "499 Client Error"]
    for line in lines:
        assert encoded(int(line[:3])).startswith(f"HTTP/1.1 {line}\r\n".encode())
    assert encoded(400, phrase="a\r\nb\xe9").startswith(b"HTTP/1.1 400 a??b?\r\n")


def test_headers_keep_their_order_spelling_and_bytes():
    headers = [(b"X-Two", b"2"), (b"set-cookie", b"a=caf\xc3\xa9 \xe9"), (b"X-Two", b"3")]
    assert b"X-Two: 2\r\nset-cookie: a=caf\xc3\xa9 \xe9\r\nX-Two: 3\r\n" in encoded(403, headers)


def test_the_body_is_framed_by_its_own_length():
    for given in ([], [(b"Content-Length", b"99")], [(b"Transfer-Encoding", b"chunked")]):
        found = reply(403, given, b"12345")
        assert (found.all("content-length"), found.all("transfer-encoding"), found.body) == (["5"], [], b"12345")
        for status in (204, 304):
            found = reply(status, given, b"12345")
            assert (found.body, found.all("content-length")) == (b"", [])


def test_the_connection_closes_and_a_426_names_its_upgrade_header_as_well():
    found = reply(403, [(b"connection", b"keep-alive"), (b"keep-alive", b"max=5")])
    assert (found.all("connection"), found.all("keep-alive")) == (["close"], [])
    found = reply(426, [(b"upgrade", b"websocket"), (b"connection", b"upgrade")])
    assert (found.all("upgrade"), found.all("connection")) == (["websocket"], ["upgrade, close"])


def test_server_and_date_are_added_unless_the_application_gives_its_own():
    added, own = reply(403), reply(403, [(b"Server", b"mine"), (b"Date", b"today")])
    assert added.all("server") == ["daphne"]
    assert parsedate_to_datetime(added.all("date")[0]).tzinfo
    assert (own.all("server"), own.all("date")) == (["mine"], ["today"])


def test_an_accept_has_one_server_header_and_none_that_frame_a_body():
    assert accepting(server_name="daphne") == {"Server": ["daphne"]}
    assert accepting((b"SERVER", b"mine"), server_name="daphne") == {"SERVER": ["mine"]}
    assert accepting((b"Content-Length", b"0"), (b"transfer-encoding", b"chunked")) == {}


def test_values_of_an_accept_are_utf_8():
    assert accepting((b"X-Name", b"caf\xc3\xa9")) == {"X-Name": ["café"]}
    assert accepting((b"X-Name", b"caf\xe9")) == {"X-Name": ["caf\ufffd"]}


def test_an_accept_cannot_set_headers_of_the_handshake():
    for name in (b"Connection", b"upgrade", b"Sec-WebSocket-Accept", b"sec-websocket-extensions"):
        with pytest.raises(ValueError, match="leave it to the server"):
            accepting((name, b"x"))
    with pytest.raises(ValueError, match="give it as 'subprotocol'"):
        accepting((b"sec-websocket-protocol", b"x"))
