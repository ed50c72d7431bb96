"""Messages: a denial as every server sends it rightly, what an application may send, and what servers differ in."""

import asyncio
import io
import sys
import threading
from collections import deque
from contextlib import nullcontext
from functools import partial
from itertools import repeat
from types import ModuleType

import pytest
from django.core.signals import request_finished
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse

from channels_wsdeny import Deny, log
from channels_wsdeny.handlers import connection
from channels_wsdeny.policies import DenyAll, IsAuthenticated
from tests.support.cases import page, with_cookies
from tests.support.clients import GUARD, knock
from tests.support.policies import AsyncCheck, Check, raising_app
from tests.support.receivers import connected
from tests.support.scripted import Script, accept, body, start
from tests.support.sockets import CONNECT, DENIAL, Server, disconnect, errors, guarded, open_to_all
from tests.support.threads import until

pytestmark = pytest.mark.django_db


def denying(make):
    """A site that denies with what `make` makes."""
    return guarded(Check(lambda request: make()), Script())


async def each_of(parts):
    for part in parts:
        await asyncio.sleep(0)
        yield part


def stream(content, **kwargs):
    response = StreamingHttpResponse(content, status=403, **kwargs)
    response.cookies = with_cookies().cookies
    return response


def pdf():
    return FileResponse(io.BytesIO(b"x" * 70_000), status=403, filename="why.pdf", as_attachment=True)


def text(content="", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpResponse(content, status=403, headers=named)


RESPONSES = {
    "problem": (lambda: Deny(403, "Grüße"), None),
    "empty": (text, b""),
    "text": (lambda: text("Grüße"), "Grüße".encode()),
    "json": (lambda: JsonResponse({"a": 1}, status=403), b'{"a": 1}'),
    "latin1": (lambda: HttpResponse("ü", status=403, charset="latin-1"), b"\xfc"),
    "template": (lambda: page(None), b"Hello you"),
    "stream": (lambda: stream(iter([b"a", "ü", memoryview(b"c")])), "aüc".encode()),
    "async stream": (lambda: stream(each_of([b"a", "ü", b"c"])), "aüc".encode()),
    "empty stream": (lambda: stream(iter(())), b""),
    "file": (pdf, b"x" * 70_000),
    "wrong length": (lambda: text("abc", Content_Length="99"), b"abc"),
    "of the connection": (lambda: text("", Transfer_Encoding="gzip", Keep_Alive="5"), b""),
    "cookies": (with_cookies, b"no"),
}


class Watching(Server):
    """Notes for each message whether the loop has turned since the first one."""

    def __init__(self):
        super().__init__()
        self.has_turned, self.seen = asyncio.Event(), []

    async def send(self, message):
        asyncio.get_running_loop().call_soon(self.has_turned.set)
        self.seen.append(self.has_turned.is_set())
        await super().send(message)


@pytest.mark.parametrize(("make", "content"), RESPONSES.values(), ids=RESPONSES)
async def test_a_denial_is_sent_as_every_server_can_send_it(make, content):
    server = Watching()
    answer = await server.run(denying(make))
    first, second = server.sent
    assert (server.kinds, server.seen) == (DENIAL, [False] * 2), "nothing may run between the two messages"
    assert (type(second["body"]), second["more_body"]) == (bytes, False)
    assert content is None or answer.body == content
    assert answer.header("content-length") == str(len(answer.body))
    assert {type(part) for pair in first["headers"] for part in pair} == {bytes}
    names = [name for name, _ in answer.headers if name != "set-cookie"]
    assert sorted(names) == sorted({name.lower() for name in names})
    assert not {"transfer-encoding", "keep-alive"} & set(names)
    if content in {b"no", "aüc".encode()}:
        assert answer.all("set-cookie") == ["one=1; Path=/", "two=2; Path=/"]


def upgrade():
    return Deny(426, headers={"Upgrade": "websocket", "Connection": "Upgrade"})


async def test_the_sites_headers_go_out():
    for make, headers in (
        (pdf, {"content-disposition": 'attachment; filename="why.pdf"'}),
        (lambda: stream([b"a"], headers={"X-A": "世界"}), {"x-a": "=?utf-8?b?5LiW55WM?="}),
        (upgrade, {"upgrade": "websocket", "connection": "Upgrade"}),
    ):
        answer = await knock(denying(make), "/")
        assert {name: answer.header(name) for name in headers} == headers


def with_bad_cookie():
    response = text()
    response.set_cookie("snow", "☃")
    return response


NAMES = {"x a", "x:a", "", "x-a", "x-ä", "set-cookie"}
BAD = [("X A", "1"), ("X:A", "1"), ("", "1"), ("X-A", "a\0b"), ("X-Ä", "1")]
BAD += [("X-A", "a\r\nSet-Cookie: b=c"), ("X-A", "a\nb"), ("X-A", "a\rb")]


@pytest.mark.parametrize("make", [*(partial(Deny, 403, headers=dict([pair])) for pair in BAD), with_bad_cookie])
async def test_a_header_that_cannot_be_sent_becomes_a_500(make):
    answer = await knock(denying(make), "/")
    assert (answer.status, NAMES & {name for name, _ in answer.headers}) == (500, set())


class Leaving(Server):
    """A server that notices after so many messages that the client has left."""

    error = ConnectionResetError

    def __init__(self, after):
        super().__init__()
        self.after, self.tries = after, 0

    async def send(self, message):
        self.tries += 1
        if len(self.sent) == self.after:
            raise self.error
        await super().send(message)


@pytest.mark.parametrize("after", [0, 1])
async def test_a_client_that_has_left_is_no_error(after, caplog):
    for site in (guarded(DenyAll(), Script()), guarded(AsyncCheck(lambda request: False)), denying(text)):
        server = Leaving(after)
        await server.run(site)
        assert (len(server.sent), server.tries) == (after, after + 1)
    assert errors(caplog) == []


@pytest.mark.parametrize("module", ["granian.asgi", "uvicorn.protocols"])
async def test_a_runtime_error_is_the_word_of_granian_alone_for_a_client_that_has_left(module):
    server = type("Server", (Leaving,), {"__module__": module, "error": RuntimeError})(0)
    with nullcontext() if module == "granian.asgi" else pytest.raises(RuntimeError):
        await server.run(denying(text))


STRICT = guarded(IsAuthenticated(), Script())


@pytest.mark.parametrize("site", [denying(lambda: Deny(403)), guarded(DenyAll(), Script()), STRICT])
async def test_what_a_server_does_to_a_message_does_not_reach_the_next_client(site):
    def copied(messages):
        return [{**message, "headers": [*message.get("headers", ())]} for message in messages]

    first, second = Server(), Server()
    await first.run(site)
    expected = copied(first.sent)
    for message in first.sent:
        message.get("headers", []).append((b"x-server", b"1"))
        message["more"] = True
    await second.run(site)
    assert copied(second.sent) == expected


# Streams are read up to a limit, in a place that suits them, and closed.


class Closing(StreamingHttpResponse):
    """Notes the threads in which it was closed, and whether an event loop ran there."""

    def __init__(self, content):
        super().__init__(content, status=403)
        self.closings = deque()

    def close(self):
        self.closings.append((threading.current_thread().name, asyncio._get_running_loop() is not None))
        super().close()


def failing():
    yield b"secret"
    raise ZeroDivisionError


async def hanging():
    yield b"a"
    await asyncio.Event().wait()


def blocking():
    assert threading.current_thread().name == "wsdeny-pool"
    yield b"a"


STREAMS = {
    "sync": (blocking, 403),
    "async": (lambda: each_of([b"a"]), 403),
    "endless": (lambda: repeat(b"x" * 1000), 500),
    "endless async": (lambda: each_of(repeat(b"x" * 1000)), 500),
    "failing": (failing, 500),
    "failing async": (lambda: each_of(failing()), 500),
    "hanging": (hanging, 503),
}


@pytest.mark.parametrize(("make", "status"), STREAMS.values(), ids=STREAMS)
async def test_a_stream_is_closed_once_in_a_thread_that_may_block(make, status, settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 1 if make is hanging else GUARD, "MAX_DENIAL_BODY": 5000}
    response, finished = Closing(make()), []

    def note(**kwargs):
        finished.append(threading.current_thread().name)

    with connected(note, signals=[request_finished]):
        answer = await knock(denying(lambda: response), "/")
        await until(lambda: finished)
    assert (answer.status, b"secret" in answer.body) == (status, False)
    assert (list(response.closings), finished) == ([("wsdeny-pool", False)], ["wsdeny-pool"])


@pytest.mark.parametrize(("status", "expected"), [(403, 403), (200, 500)])
async def test_files_are_closed_also_where_they_cannot_deny(status, expected):
    file = io.BytesIO(b"x" * 100_000)
    answer = await knock(denying(lambda: FileResponse(file, status=status)), "/")
    assert (answer.status, file.closed) == (expected, True)


TOO_LARGE = {
    "body": lambda: text("x" * 1001),
    "stream": lambda: stream([b"x" * 500, b"x" * 501]),
    "async stream": lambda: stream(each_of([b"x" * 1000, b"x"])),
    "file": pdf,
    "detail": lambda: Deny(403, "x" * 1001),
}


@pytest.mark.parametrize("make", TOO_LARGE.values(), ids=TOO_LARGE)
async def test_a_body_past_the_limit_becomes_a_500_and_the_log_says_why(make, settings, caplog):
    settings.CHANNELS_WSDENY = {"MAX_DENIAL_BODY": 1000}
    for make_another in (lambda: text("x" * 1000), lambda: stream([b"x" * 500] * 2)):
        answer = await knock(denying(make_another), "/")
        assert (answer.status, len(answer.body)) == (403, 1000)
    answer = await knock(denying(make), "/")
    assert (answer.status, b"xxx" in answer.body) == (500, False)
    assert "CHANNELS_WSDENY['MAX_DENIAL_BODY']" in str(errors(caplog)[-1])


async def test_a_large_denial_is_sent_whole_though_the_server_has_no_more_to_receive():
    class Small(Server):
        async def receive(self):
            return self.events.get_nowait()  # an error from the second time on

        async def send(self, message):
            await asyncio.sleep(0.01)
            await super().send(message)

    app = raising_app(Deny(response=text("x" * 100_000)))
    assert len((await Small().run(open_to_all(app))).body) == 100_000


# What an application may send.


async def test_an_accept_goes_out_as_the_application_gave_it():
    headers = [(b"X-A", b"1"), (b"x-b", b"\xff"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), [b"X-L", b""]]
    answer = await knock(open_to_all(Script(accept(*headers, subprotocol="chat.v1"))), "/")
    assert answer.messages == [{"type": "websocket.accept", "subprotocol": "chat.v1", "headers": headers}]
    for given in ({"headers": None}, {"headers": []}, {"headers": ()}, {"headers": iter(())}, {}):
        assert (await knock(open_to_all(Script({"type": "websocket.accept", **given})), "/")).headers == []
    once = accept() | {"headers": iter([(b"x-a", b"1")])}  # ASGI allows any iterable of pairs.
    assert (await knock(open_to_all(Script(once)), "/")).headers == [("x-a", "1")]


BAD_PAIRS = [(b"x-a", value) for value in (b"1\r\nset-cookie: b=c", b"1\nb=c", b"1\rb=c", b"b=c\0", "b=c", 1, None)]
NAMES_NOT_SENT = (b"x-a\n", b"x-a\0", b"x-a: 1\r\nx-b", b"x a", b"x:a", b":path", b"", b"x-\xff")
BAD_PAIRS += [(name, b"b=c") for name in NAMES_NOT_SENT]
BAD_PAIRS += [("x-a", b"b=c"), (None, b"b=c"), (b"x-a",), (b"x-a", b"b=c", b"2"), b"x-a: b=c", None]


@pytest.mark.parametrize("pair", BAD_PAIRS)
async def test_an_accept_with_a_header_that_cannot_be_sent_is_a_500(pair, caplog):
    answer = await knock(open_to_all(Script(accept((b"x-good", b"1"), pair))), "/")
    assert (answer.status, answer.header("x-good"), answer.header("set-cookie")) == (500, None, None)
    (error,) = errors(caplog)
    assert "websocket.accept" in str(error)
    assert "b=c" not in str(error)  # The value may be a session's cookie.
    assert not isinstance(pair, tuple) or len(pair) != 2 or repr(pair[0]) in str(error)


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
    bare = Script({"type": "websocket.http.response.start", "status": 403}, body())
    assert (await knock(open_to_all(bare), "/")).status == 403


UNSENDABLE = {
    **{f"accept with {headers!r}": [accept(headers=headers)] for headers in (5, {b"x-a": b"1"})},
    **{f"status {status!r}": [start(status), body()] for status in (200, 101, 600, True, "403")},
    "no status": [{"type": "websocket.http.response.start"}, body()],
    "text headers": [start(403, ("x", "y")), body()],
    "text body": [start(403), body("text")],
    "two starts": [start(403), start(403)],
    "no body": [start(403)],
    "body alone": [body()],
    "large": [start(403), body(b"x" * 600, more=True), body(b"x" * 600)],
    "accept after start": [start(403), accept()],
}


@pytest.mark.parametrize("messages", UNSENDABLE.values(), ids=UNSENDABLE)
async def test_an_answer_of_the_application_that_cannot_be_sent_is_a_500(messages, settings):
    settings.CHANNELS_WSDENY = {"MAX_DENIAL_BODY": 1000, "ACCEPT_TIMEOUT": 0.05}
    assert (await knock(open_to_all(Script(*messages)), "/")).status == 500


# Without the denial extension of the server, and with DENY_WITH.


CUTS = [("a" * 123, 123), ("a" * 124, 123), ("a" * 122 + "é", 122), ("a" * 121 + "é", 122), ("a" * 120 + "😀", 120)]


@pytest.mark.parametrize(("code", "characters"), [*CUTS, ("世" * 60, 41)])
async def test_the_reason_of_a_close_is_cut_at_123_bytes_between_characters(code, characters):
    answer = await knock(denying(lambda: Deny(403, code=code)), "/", extensions={})
    assert answer.close == (4403, code[:characters])


@pytest.mark.parametrize(("subprotocols", "chosen"), [(["chat", "superchat"], "chat"), ([], None)])
async def test_deny_with_close_accepts_and_closes(subprotocols, chosen, settings):
    settings.CHANNELS_WSDENY = {"DENY_WITH": "close"}
    server = Server(CONNECT, {"type": "websocket.receive", "text": "still here"}, disconnect(4403))
    await server.run(guarded(AsyncCheck(lambda request: with_cookies()), Script()), subprotocols=subprotocols)
    first, second = server.sent
    assert first["headers"] == [(b"set-cookie", b"one=1; Path=/"), (b"set-cookie", b"two=2; Path=/")]
    assert first["subprotocol"] == chosen
    assert second == {"type": "websocket.close", "code": 4403, "reason": "permission_denied"}


async def test_a_client_that_does_not_answer_the_close_is_not_waited_for(settings, monkeypatch):
    settings.CHANNELS_WSDENY = {"DENY_WITH": "close"}
    monkeypatch.setattr(connection, "_CLOSING", 0.01)
    assert (await Server().run(guarded(DenyAll()))).status == 101


# What is special about single servers: granian, and servers without the denial extension.


@pytest.fixture(autouse=True)
def _first_warnings(monkeypatch):
    """What is warned of once in a process is warned of again."""
    monkeypatch.setattr(log, "_warned", set())


#: Servers whose `send` is a method of an object from these modules.
Granian = type("Granian", (Server,), {"__module__": "granian.asgi"})
Hypercorn = type("Hypercorn", (Server,), {"__module__": "hypercorn.protocol.ws_stream"})


REPEATED = Script(start(403, (b"x-a", b"1"), (b"x-a", b"2"), (b"set-cookie", b"a=1"), (b"Set-Cookie", b"b=2")), body())
DENIALS = {
    "cookies": (denying(with_cookies), {"set-cookie": "one=1; Path=/", "connection": "close"}),
    "problem": (guarded(DenyAll(), Script()), {"set-cookie": None, "connection": "close"}),
    "connection of the site": (denying(upgrade), {"upgrade": "websocket", "connection": "close"}),
    "lines of the application": (open_to_all(REPEATED), {"x-a": "1, 2", "set-cookie": "a=1"}),
}


@pytest.mark.parametrize(("site", "expected"), DENIALS.values(), ids=DENIALS)
async def test_granian_gets_each_name_once_and_is_told_to_close(site, expected):
    answer = await Granian().run(site)
    names = [name for name, _ in answer.headers]
    assert sorted(names) == sorted(set(names))
    assert {name: answer.header(name) for name in expected} == expected


@pytest.mark.parametrize("version", ["1.1", "2"])
@pytest.mark.parametrize("make", [lambda: guarded(DenyAll(), Script()), lambda: denying(upgrade)])
async def test_a_server_that_closes_after_a_denial_says_so_on_http1(make, version):
    found = [(await server().run(make(), http_version=version)).all("connection") for server in (Hypercorn, Server)]
    assert (found[0] == ["close"]) is (version == "1.1")
    assert "close" not in found[1]


async def test_granian_gets_an_accept_without_headers_but_with_its_subprotocol():
    granian = Granian(CONNECT, disconnect())
    answer = await granian.run(open_to_all(Script(accept((b"x-a", b"1"), subprotocol="chat"))))
    assert (answer.status, answer.headers, granian.sent[0]["subprotocol"]) == (101, [], "chat")


def with_cookie(request):
    response = text()
    response.set_cookie("one", "1")
    return response


@pytest.mark.parametrize(
    ("site", "words"),
    [
        (guarded(AsyncCheck(with_cookies)), ["Set-Cookie"]),
        (open_to_all(Script(accept((b"x-a", b"1")))), ["accepted"]),
        (guarded(AsyncCheck(with_cookie)), []),
    ],
)
async def test_what_granian_cannot_send_is_warned_of_once(site, words, caplog):
    for _ in range(3):
        await Granian(CONNECT, disconnect()).run(site)
    warnings = [record.getMessage() for record in caplog.records if "granian" in record.getMessage()]
    assert [word in warning for word, warning in zip(words, warnings, strict=True)] == [True] * len(words)


async def test_granian_is_known_behind_a_middleware_that_wraps_its_send(monkeypatch):
    monkeypatch.setitem(sys.modules, "granian.asgi", ModuleType("granian.asgi"))
    assert (await knock(denying(with_cookies), "/")).header("set-cookie") == "one=1; Path=/"


@pytest.mark.parametrize("has_refused", [True, False])
async def test_an_accept_that_hypercorn_drops_since_it_has_refused_the_handshake_is_followed_by_a_disconnect(
    has_refused,
):
    server, heard = Hypercorn(), []
    server.closed = has_refused
    if not has_refused:
        server.events.put_nowait(disconnect(1001))

    async def listens(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "dropped"})
        heard.append(await receive())

    await server.run(open_to_all(listens))
    assert heard == [disconnect(1006 if has_refused else 1001)]
    assert server.kinds == ["websocket.accept", *([] if has_refused else ["websocket.send"])]


async def test_a_missing_extension_is_warned_of_once_with_the_remedy(caplog):
    for _ in range(3):
        await knock(guarded(DenyAll(), Script()), "/", extensions={})
    (message,) = [record.getMessage() for record in caplog.records if "cannot send a denial" in record.getMessage()]
    assert "python -m channels_wsdeny.daphne" in message
    assert "DENY_WITH" in message
