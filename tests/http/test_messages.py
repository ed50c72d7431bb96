"""Messages: a denial as every server sends it rightly, and what an application may send."""

from __future__ import annotations

import asyncio
import io
import threading
from collections import deque

import pytest
from django.core.signals import request_finished
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse

from channels_wsdeny import Deny
from channels_wsdeny.policies import DenyAll, IsAuthenticated
from tests.support.cases import page, with_cookies
from tests.support.clients import GUARD, knock
from tests.support.policies import AsyncCheck, Check
from tests.support.scripted import Script, accept, body, start
from tests.support.sockets import CONNECT, DENIAL, Server, disconnect, errors, guarded, open_to_all

pytestmark = pytest.mark.django_db


def denying(make):
    """A site that denies with what `make` makes."""
    return guarded(Check(lambda request: make()), Script())


async def chunks(*parts):
    for part in parts:
        await asyncio.sleep(0)
        yield part


def with_deleted_cookie():
    response = HttpResponse(status=403)
    response.delete_cookie("old")
    return response


def stream(content, **kwargs):
    return StreamingHttpResponse(content, status=403, **kwargs)


def pdf():
    return FileResponse(io.BytesIO(b"x" * 70_000), status=403, filename="why.pdf", as_attachment=True)


RESPONSES = {
    "problem": (lambda: Deny(403, "Grüße"), None),
    "empty": (lambda: HttpResponse(status=403), b""),
    "text": (lambda: HttpResponse("Grüße", status=403), "Grüße".encode()),
    "json": (lambda: JsonResponse({"a": 1}, status=403), b'{"a": 1}'),
    "latin1": (lambda: HttpResponse("Grüße", status=403, charset="latin-1"), "Grüße".encode("latin-1")),
    "template": (lambda: page(None), b"Hello you"),
    "stream": (lambda: stream(iter([b"a", "ü", memoryview(b"c")])), "aüc".encode()),
    "async stream": (lambda: stream(chunks(b"a", "ü", b"c")), "aüc".encode()),
    "empty stream": (lambda: stream(iter(())), b""),
    "file": (pdf, b"x" * 70_000),
    "wrong length": (lambda: HttpResponse(b"abc", status=403, headers={"Content-Length": "99"}), b"abc"),
    "of the connection": (
        lambda: HttpResponse(b"", status=403, headers={"Transfer-Encoding": "gzip", "Keep-Alive": "5"}),
        b"",
    ),
    "cookies": (with_cookies, b"no"),
}


@pytest.mark.parametrize(("make", "content"), RESPONSES.values(), ids=RESPONSES)
async def test_a_denial_is_sent_as_every_server_can_send_it(make, content):
    turns, seen = [0], []

    async def count_turns():
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    class Counting(Server):
        async def send(self, message):
            seen.append(turns[0])
            await super().send(message)

    server, counting = Counting(), asyncio.ensure_future(count_turns())
    answer = await server.run(denying(make))
    counting.cancel()
    start_, body_ = server.sent
    assert (server.kinds, len(set(seen))) == (DENIAL, 1), "nothing may run between the two messages"
    assert (type(body_["body"]), body_["more_body"]) == (bytes, False)
    assert content is None or answer.body == content
    assert answer.header("content-length") == str(len(answer.body))
    assert {type(part) for pair in start_["headers"] for part in pair} == {bytes}
    names = [name for name, _ in answer.headers if name != "set-cookie"]
    assert sorted(names) == sorted({name.lower() for name in names})
    assert not {"transfer-encoding", "keep-alive"} & set(names)


async def test_headers_and_cookies_of_a_response_go_out():
    answer = await knock(denying(pdf), "/")
    assert answer.header("content-type") == "application/pdf"
    assert answer.header("content-disposition") == 'attachment; filename="why.pdf"'
    for make in (with_cookies, lambda: _cookies_of(stream([b"a"], headers={"X-A": "世界"}))):
        assert (await knock(denying(make), "/")).all("set-cookie") == ["one=1; Path=/", "two=2; Path=/"]
    assert (await knock(denying(lambda: stream([b"a"], headers={"X-A": "世界"})), "/")).header(
        "x-a"
    ) == "=?utf-8?b?5LiW55WM?="
    assert "Max-Age=0" in (await knock(denying(with_deleted_cookie), "/")).header("set-cookie")
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    answer = await knock(denying(lambda: Deny(426, headers=upgrade)), "/")
    assert (answer.status, answer.header("upgrade"), answer.header("connection")) == (426, "websocket", "Upgrade")


def _cookies_of(response):
    response.cookies = with_cookies().cookies
    return response


def with_bad_cookie():
    response = HttpResponse(status=403)
    response.set_cookie("snow", "☃")
    return response


BAD = [{"X A": "1"}, {"X:A": "1"}, {"": "1"}, {"X-A": "a\0b"}, {"X-Ä": "1"}]
BAD += [{"X-A": "a\r\nSet-Cookie: b=c"}, {"X-A": "a\nb"}, {"X-A": "a\rb"}]


@pytest.mark.parametrize("make", [*((lambda h=headers: Deny(403, headers=h)) for headers in BAD), with_bad_cookie])
async def test_a_header_that_cannot_be_sent_becomes_a_500(make):
    answer = await knock(denying(make), "/")
    names = {name for name, _ in answer.headers}
    assert (answer.status, {"x a", "x:a", "", "x-a", "x-ä", "set-cookie"} & names) == (500, set())


class Leaving(Server):
    """A server that notices after so many messages that the client has left."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    async def send(self, message):
        if len(self.sent) == self.after:
            raise ConnectionResetError
        await super().send(message)


@pytest.mark.parametrize("after", [0, 1])
async def test_a_client_that_has_left_is_no_error(after, caplog):
    for site in (guarded(DenyAll(), Script()), denying(lambda: HttpResponse(status=403))):
        await Leaving(after).run(site)
    assert errors(caplog) == []


async def test_what_a_server_does_to_a_message_does_not_reach_the_next_client():
    sites = [denying(lambda: Deny(403)), guarded(DenyAll(), Script()), guarded(IsAuthenticated(), Script())]
    for site in sites:
        first, second = Server(), Server()
        await first.run(site)
        expected = [{**message, "headers": [*message.get("headers", ())]} for message in first.sent]
        for message in first.sent:
            message.get("headers", []).append((b"x-server", b"1"))
            message["more"] = True
        await second.run(site)
        assert [{**message, "headers": [*message.get("headers", ())]} for message in second.sent] == expected


# Streams are read up to a limit, in a place that suits them, and closed.


class Closing(StreamingHttpResponse):
    """Notes the threads in which it was closed, and whether an event loop ran there."""

    def __init__(self, content):
        super().__init__(content, status=403)
        self.closings = deque()

    def close(self):
        self.closings.append((threading.current_thread().name, asyncio._get_running_loop() is not None))
        super().close()


def endless():
    while True:
        yield b"x" * 1000


async def endless_async():
    while True:
        await asyncio.sleep(0)
        yield b"x" * 1000


def failing():
    yield b"secret"
    raise ZeroDivisionError


async def failing_async():
    yield b"secret"
    raise ZeroDivisionError


async def hanging():
    yield b"a"
    await asyncio.Event().wait()


async def test_bodies_and_streams_up_to_the_limit_go_out(settings):
    settings.CHANNELS_WSDENY = {"MAX_DENIAL_BODY": 1000}
    for make in (lambda: HttpResponse(b"x" * 1000, status=403), lambda: stream([b"x" * 500] * 2)):
        answer = await knock(denying(make), "/")
        assert (answer.status, len(answer.body)) == (403, 1000)


TOO_LARGE = {
    "body": lambda: HttpResponse(b"x" * 1001, status=403),
    "stream": lambda: stream([b"x" * 500, b"x" * 501]),
    "async stream": lambda: stream(chunks(b"x" * 1000, b"x")),
    "file": lambda: FileResponse(io.BytesIO(b"x" * 1001), status=403),
    "detail": lambda: Deny(403, "x" * 1001),
    "endless": lambda: stream(endless()),
    "endless async": lambda: stream(endless_async()),
}


@pytest.mark.parametrize("make", TOO_LARGE.values(), ids=TOO_LARGE)
async def test_a_larger_body_becomes_a_500_and_the_log_says_why(make, settings, caplog):
    settings.CHANNELS_WSDENY = {"MAX_DENIAL_BODY": 1000}
    answer = await knock(denying(make), "/")
    assert (answer.status, b"xxx" in answer.body) == (500, False)
    (error,) = errors(caplog)
    assert "CHANNELS_WSDENY['MAX_DENIAL_BODY']" in str(error)


STREAMS = {
    "sync": (lambda: [b"a"], 403),
    "async": (lambda: chunks(b"a"), 403),
    "endless": (endless, 500),
    "endless async": (endless_async, 500),
    "failing": (failing, 500),
    "failing async": (failing_async, 500),
    "hanging": (hanging, 503),
}


@pytest.mark.parametrize(("make", "status"), STREAMS.values(), ids=STREAMS)
async def test_a_stream_is_closed_once_in_a_thread_that_may_block(make, status, settings, caplog):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.05, "MAX_DENIAL_BODY": 5000}
    response, finished = Closing(make()), []

    def note(**kwargs):
        finished.append(threading.current_thread().name)

    request_finished.connect(note)
    try:
        answer = await knock(denying(lambda: response), "/")
        async with asyncio.timeout(GUARD):
            while not finished:
                await asyncio.sleep(0.01)
    finally:
        request_finished.disconnect(note)
    assert (answer.status, b"secret" in answer.body) == (status, False)
    assert (list(response.closings), finished) == ([("wsdeny-pool", False)], ["wsdeny-pool"])
    if make in (failing, failing_async):
        assert isinstance(errors(caplog)[0], ZeroDivisionError)


async def test_files_are_closed_also_where_they_cannot_deny():
    for status, expected in {403: 403, 200: 500}.items():
        file = io.BytesIO(b"x" * 100_000)
        answer = await knock(denying(lambda file=file, status=status: FileResponse(file, status=status)), "/")
        assert (answer.status, file.closed) == (expected, True)


async def test_a_stream_is_read_where_it_belongs():
    threads, loops = [], []

    def blocking():
        threads.append(threading.current_thread())
        yield b"a"

    async def asynchronous():
        loops.append(asyncio.get_running_loop())
        yield b"a"

    await knock(denying(lambda: stream(blocking())), "/")
    await knock(denying(lambda: stream(asynchronous())), "/")
    assert threads[0] is not threading.main_thread()
    assert loops == [asyncio.get_running_loop()]


async def test_a_large_denial_is_sent_whole_though_the_server_has_no_more_to_receive():
    class Small(Server):
        async def receive(self):
            return self.events.get_nowait()  # an error from the second time on

        async def send(self, message):
            await asyncio.sleep(0)
            await super().send(message)

    async def app(scope, receive, send):
        raise Deny(response=HttpResponse(b"x" * 100_000, status=403))

    assert len((await Small().run(open_to_all(app))).body) == 100_000


# What an application may accept with.


async def test_an_accept_goes_out_as_the_application_gave_it():
    headers = [(b"X-A", b"1"), (b"x-b", b"\xff"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    answer = await knock(open_to_all(Script(accept(*headers, subprotocol="chat.v1"))), "/")
    assert answer.messages == [{"type": "websocket.accept", "subprotocol": "chat.v1", "headers": headers}]
    for given in (None, [], (), "missing"):
        message = {"type": "websocket.accept"} | ({} if given == "missing" else {"headers": given})
        assert (await knock(open_to_all(Script(message)), "/")).headers == []


BAD_HEADERS = [
    (b"x-a", b"1\r\nset-cookie: b=c"),
    (b"x-a", b"1\n2"),
    (b"x-a", b"1\r2"),
    (b"x-a", b"1\0"),
    (b"x-a\r\n", b"1"),
    (b"x a", b"1"),
    (b"x:a", b"1"),
    (b"", b"1"),
    (b"x-\xff", b"1"),
    ("x-a", b"1"),
    (b"x-a", "1"),
    (b"x-a", 1),
    (b"x-a", None),
    (b"x-a",),
    (b"x-a", b"1", b"2"),
    b"x-a: 1",
    None,
]


@pytest.mark.parametrize("header", BAD_HEADERS)
async def test_an_accept_with_a_header_that_cannot_be_sent_is_a_500(header, caplog):
    answer = await knock(open_to_all(Script(accept((b"x-good", b"1"), header))), "/")
    assert (answer.status, answer.header("x-good"), answer.header("set-cookie")) == (500, None, None)
    (error,) = errors(caplog)
    assert "websocket.accept" in str(error)
    if isinstance(header, tuple) and len(header) == 2:
        assert repr(header[0]) in str(error)
        assert "b=c" not in str(error)  # The value may be a session's cookie.


# A denial that an application sends itself.


async def test_a_denial_of_the_application_is_made_portable():
    expires = b"a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    headers = [(b"X-A", b"1"), (b"x-a", b"2"), (b"Content-Length", b"7"), (b"content-type", b"text/plain")]
    headers += [(b"set-cookie", expires), (b"Set-Cookie", b"b=2"), (b"vary", b"origin"), (b"Vary", b"accept")]
    script = Script(start(418, *headers), body(b"st", more=True), body(more=True), body(b"out"))
    answer = await knock(open_to_all(script), "/")
    assert (answer.status, answer.body, len(answer.messages)) == (418, b"stout", 2)
    assert [answer.header(name) for name in ("x-a", "content-length", "content-type")] == ["1, 2", "5", "text/plain"]
    assert answer.all("set-cookie") == [expires.decode(), "b=2"]
    assert {"origin", "accept"} <= {name.strip().lower() for name in answer.header("vary").split(",")}
    assert answer.header("cache-control") == "no-store"
    without_headers = Script({"type": "websocket.http.response.start", "status": 403}, body())
    assert (await knock(open_to_all(without_headers), "/")).status == 403


UNSENDABLE = {
    "200": [start(200), body()],
    "101": [start(101), body()],
    "600": [start(600), body()],
    "True": [start(True), body()],
    "text status": [start("403"), body()],
    "no status": [{"type": "websocket.http.response.start"}, body()],
    "text headers": [start(403, ("x", "y")), body()],
    "text body": [start(403), body("text")],
    "two starts": [start(403), start(403)],
    "no body": [start(403)],
    "body alone": [body()],
    "large": [start(403), body(b"123456", more=True), body(b"123456")],
    "accept after start": [start(403), accept()],
}


@pytest.mark.parametrize("messages", UNSENDABLE.values(), ids=UNSENDABLE)
async def test_a_denial_of_the_application_that_is_none_is_a_500(messages, settings):
    settings.CHANNELS_WSDENY = {"MAX_DENIAL_BODY": 10, "ACCEPT_TIMEOUT": 0.05}
    settings.CHANNELS_WSDENY["MAX_DENIAL_BODY"] = 10 if messages is UNSENDABLE["large"] else 1000
    assert (await knock(open_to_all(Script(*messages)), "/")).status == 500


# Without the denial extension of the server, and with DENY_WITH.


@pytest.mark.parametrize("extensions", [None, {}, {"tls": {}}])
async def test_without_the_extension_a_denial_is_a_close(extensions):
    for site in (guarded(DenyAll()), denying(lambda: Deny(403))):
        assert (await knock(site, "/", extensions=extensions)).close == (4403, "permission_denied")


CUTS = {
    "a" * 123: 123,
    "a" * 124: 123,
    "a" * 122 + "é": 122,
    "a" * 121 + "é": 122,
    "a" * 120 + "😀": 120,
    "世" * 60: 41,
}


@pytest.mark.parametrize(("code", "characters"), CUTS.items())
async def test_the_reason_of_a_close_is_cut_at_123_bytes_between_characters(code, characters):
    answer = await knock(denying(lambda: Deny(403, code=code)), "/", extensions={})
    assert answer.close == (4403, code[:characters])


@pytest.mark.parametrize("subprotocols", [["chat", "superchat"], []])
async def test_deny_with_close_accepts_and_closes(subprotocols, settings):
    settings.CHANNELS_WSDENY = {"DENY_WITH": "close"}
    server = Server(CONNECT, {"type": "websocket.receive", "text": "still here"}, disconnect(4403))
    await server.run(guarded(AsyncCheck(lambda request: with_cookies()), Script()), subprotocols=subprotocols)
    cookies = [(b"set-cookie", b"one=1; Path=/"), (b"set-cookie", b"two=2; Path=/")]
    subprotocol = next(iter(subprotocols), None)
    assert server.sent == [
        {"type": "websocket.accept", "subprotocol": subprotocol, "headers": cookies},
        {"type": "websocket.close", "code": 4403, "reason": "permission_denied"},
    ]
