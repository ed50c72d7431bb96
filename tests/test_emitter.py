from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import threading
from collections import deque
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from django.core.signals import request_finished
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import SimpleTemplateResponse

from channels_wsdeny import Deny, DenyMiddlewareStack, log
from channels_wsdeny.decorators import require
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated
from tests.cases import Answers, with_cookies
from tests.clients import answer_of, knock, websocket_scope

pytestmark = pytest.mark.django_db


def guarded(policy, **attributes):
    """A stack around a consumer of its own behind `policy`."""
    consumer = type("Consumer", (AsyncWebsocketConsumer,), attributes)
    return DenyMiddlewareStack(require(policy)(consumer).as_asgi())


def denying(make):
    return guarded(Answers(make))


@pytest.fixture
def new_process():
    """What is said once a process is said again."""
    before = set(log._warned)
    log._warned.clear()
    yield
    log._warned.update(before)


async def knock_through(application, send, **scope):
    """Ask with a `send` of one's own, as a server's; an accepted socket is left at once."""
    events = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]

    async def receive():
        return events.pop(0)

    await application(websocket_scope("/", **scope), receive, send)


# The portable denial.


def template_response():
    return SimpleTemplateResponse(
        engines["django"].from_string("Hello {{ who }}"), {"who": "you"}, status=403
    )


async def chunks(*parts):
    for part in parts:
        await asyncio.sleep(0)
        yield part


RESPONSES = {
    "problem": lambda: Deny(403, "Grüße"),
    "empty": lambda: HttpResponse(status=403),
    "text": lambda: HttpResponse("Grüße", status=403),
    "json": lambda: JsonResponse({"a": 1}, status=403),
    "latin1": lambda: HttpResponse("Grüße", status=403, charset="latin-1"),
    "template": template_response,
    "sync-stream": lambda: StreamingHttpResponse(iter([b"a", "ü", memoryview(b"c")]), status=403),
    "async-stream": lambda: StreamingHttpResponse(chunks(b"a", "ü", b"c"), status=403),
    "empty-stream": lambda: StreamingHttpResponse(iter(()), status=403),
    "file": lambda: FileResponse(io.BytesIO(b"x" * 70_000), status=403),
    "wrong-length": lambda: HttpResponse(b"abc", status=403, headers={"Content-Length": "99"}),
    "cookies": with_cookies,
}


@pytest.fixture(params=RESPONSES)
def make(request):
    return RESPONSES[request.param]


async def test_a_denial_is_two_messages(make):
    answer = await knock(denying(make), "/")
    assert [message["type"] for message in answer.messages] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]


async def test_the_body_comes_in_one_message(make):
    answer = await knock(denying(make), "/")
    assert type(answer.messages[1]["body"]) is bytes
    assert answer.messages[1]["more_body"] is False


async def test_the_length_of_the_body_is_said_exactly(make):
    answer = await knock(denying(make), "/")
    assert answer.header("content-length") == str(len(answer.body))


async def test_names_of_headers_are_lower_case_bytes(make):
    answer = await knock(denying(make), "/")
    pairs = answer.messages[0]["headers"]
    assert all(type(name) is bytes and type(value) is bytes for name, value in pairs)
    assert [name for name, _ in pairs if name != name.lower()] == []


async def test_no_name_is_repeated_but_set_cookie(make):
    answer = await knock(denying(make), "/")
    names = [name for name, _ in answer.headers if name != "set-cookie"]
    assert sorted(names) == sorted(set(names))


async def test_nothing_runs_between_the_two_messages(make):
    ticks, seen = 0, []

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async def send(message):
        seen.append(ticks)

    ticking = asyncio.create_task(tick())
    await knock_through(denying(make), send)
    ticking.cancel()
    assert len(seen) == 2
    assert seen[0] == seen[1]


async def test_the_stack_returns_after_the_denial(make):
    sent = []

    async def send(message):
        sent.append(message)

    await asyncio.wait_for(knock_through(denying(make), send), 5)
    assert len(sent) == 2


async def test_messages_are_not_shared_between_visitors():
    application = denying(RESPONSES["problem"])
    first = await knock(application, "/")
    first.messages[0]["headers"].clear()
    assert (await knock(application, "/")).header("content-length")


async def test_a_stream_goes_out_whole():
    assert (await knock(denying(RESPONSES["sync-stream"]), "/")).body == "aüc".encode()


async def test_an_asynchronous_stream_goes_out_whole():
    assert (await knock(denying(RESPONSES["async-stream"]), "/")).body == "aüc".encode()


async def test_a_template_is_rendered():
    assert (await knock(denying(template_response), "/")).body == b"Hello you"


async def test_a_file_keeps_its_headers():
    answer = await knock(
        denying(
            lambda: FileResponse(io.BytesIO(b"%PDF"), status=403, filename="why.pdf", as_attachment=True)
        ),
        "/",
    )
    assert answer.header("content-type") == "application/pdf"
    assert answer.header("content-disposition") == 'attachment; filename="why.pdf"'


async def test_a_stream_keeps_its_headers_and_cookies():
    def make():
        response = StreamingHttpResponse(iter([b"a"]), status=403, headers={"X-A": "1"})
        response.set_cookie("one", "1")
        response.set_cookie("two", "2")
        return response

    answer = await knock(denying(make), "/")
    assert answer.header("x-a") == "1"
    assert [name for name, _ in answer.headers].count("set-cookie") == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("Transfer-Encoding", "chunked"), ("Keep-Alive", "timeout=5"), ("TRANSFER-ENCODING", "gzip")],
)
async def test_what_belongs_to_the_connection_is_dropped(name, value):
    answer = await knock(denying(lambda: HttpResponse(status=403, headers={name: value})), "/")
    assert (answer.status, answer.header(name.lower())) == (403, None)


async def test_a_426_may_say_what_to_upgrade_to():
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    answer = await knock(denying(lambda: Deny(426, headers=headers)), "/")
    assert (answer.status, answer.header("upgrade"), answer.header("connection")) == (
        426,
        "websocket",
        "Upgrade",
    )


async def test_a_304_has_neither_body_nor_length():
    answer = await knock(denying(lambda: HttpResponse(b"x", status=304)), "/")
    assert (answer.body, answer.header("content-length")) == (b"", None)


async def test_two_cookies_are_two_headers():
    answer = await knock(denying(with_cookies), "/")
    cookies = [value for name, value in answer.headers if name == "set-cookie"]
    assert cookies == ["one=1; Path=/", "two=2; Path=/"]


async def test_a_deleted_cookie_goes_out():
    def make():
        response = HttpResponse(status=403)
        response.delete_cookie("old")
        return response

    (cookie,) = [v for n, v in (await knock(denying(make), "/")).headers if n == "set-cookie"]
    assert "Max-Age=0" in cookie


async def test_a_value_beyond_latin1_is_encoded_as_django_does():
    answer = await knock(denying(lambda: HttpResponse(status=403, headers={"X-A": "世界"})), "/")
    assert answer.header("x-a") == "=?utf-8?b?5LiW55WM?="


@pytest.mark.parametrize("headers", [{"X A": "1"}, {"X:A": "1"}, {"": "1"}, {"X-A": "a\0b"}, {"X-Ä": "1"}])
async def test_a_header_that_cannot_be_sent_becomes_a_500(headers):
    answer = await knock(denying(lambda: Deny(403, headers=headers)), "/")
    assert answer.status == 500
    assert not {name.lower() for name in headers} & {name for name, _ in answer.headers}


async def test_a_cookie_that_cannot_be_sent_becomes_a_500():
    def make():
        response = HttpResponse(status=403)
        response.set_cookie("snow", "☃")
        return response

    answer = await knock(denying(make), "/")
    assert (answer.status, answer.header("set-cookie")) == (500, None)


async def test_a_client_that_has_left_disturbs_nobody():
    async def send(message):
        raise ConnectionResetError

    await knock_through(guarded(DenyAll()), send)


async def test_a_client_that_leaves_after_the_start_disturbs_nobody():
    sent = []

    async def send(message):
        sent.append(message)
        if len(sent) == 2:
            raise BrokenPipeError

    await knock_through(guarded(DenyAll()), send)
    assert len(sent) == 2


# Streams: how much is read, and that they are closed.


class Closing(StreamingHttpResponse):
    """Notes on which thread it was closed, and whether an event loop ran there."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, status=403, **kwargs)
        self.closings = deque()

    def close(self):
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            loop = False
        else:
            loop = True
        self.closings.append((threading.current_thread().name, loop))
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


async def test_a_body_of_the_most_bytes_goes_out(settings):
    settings.CHANNELS_WSDENY = {"MAX_DENIAL_BODY": 1000}
    answer = await knock(denying(lambda: HttpResponse(b"x" * 1000, status=403)), "/")
    assert (answer.status, len(answer.body)) == (403, 1000)


async def test_a_stream_of_the_most_bytes_goes_out(settings):
    settings.CHANNELS_WSDENY = {"MAX_DENIAL_BODY": 1000}
    answer = await knock(denying(lambda: StreamingHttpResponse([b"x" * 500] * 2, status=403)), "/")
    assert (answer.status, len(answer.body)) == (403, 1000)


TOO_LARGE = {
    "body": lambda: HttpResponse(b"x" * 1001, status=403),
    "stream": lambda: StreamingHttpResponse([b"x" * 500, b"x" * 501], status=403),
    "async-stream": lambda: StreamingHttpResponse(chunks(b"x" * 1000, b"x"), status=403),
    "file": lambda: FileResponse(io.BytesIO(b"x" * 1001), status=403),
    "detail": lambda: Deny(403, "x" * 1001),
    "endless": lambda: StreamingHttpResponse(endless(), status=403),
    "endless-async": lambda: StreamingHttpResponse(endless_async(), status=403),
}


@pytest.mark.parametrize("name", TOO_LARGE)
async def test_a_body_past_the_most_bytes_becomes_a_500(name, settings):
    settings.CHANNELS_WSDENY = {"MAX_DENIAL_BODY": 1000}
    answer = await knock(denying(TOO_LARGE[name]), "/")
    assert answer.status == 500
    assert b"xxx" not in answer.body


@pytest.mark.parametrize("name", TOO_LARGE)
async def test_the_log_says_why_a_body_became_a_500(name, settings, caplog):
    settings.CHANNELS_WSDENY = {"MAX_DENIAL_BODY": 1000}
    await knock(denying(TOO_LARGE[name]), "/")
    (record,) = [record for record in caplog.records if record.name == "django.request"]
    assert "CHANNELS_WSDENY['MAX_DENIAL_BODY']" in str(record.exc_info[1])


@pytest.mark.parametrize("make_stream", [failing, failing_async])
async def test_a_stream_that_raises_becomes_a_500(make_stream):
    answer = await knock(denying(lambda: StreamingHttpResponse(make_stream(), status=403)), "/")
    assert answer.status == 500
    assert b"secret" not in answer.body


@pytest.mark.parametrize("make_stream", [failing, failing_async])
async def test_the_log_has_the_traceback_of_a_stream_that_raises(make_stream, caplog):
    await knock(denying(lambda: StreamingHttpResponse(make_stream(), status=403)), "/")
    (record,) = [record for record in caplog.records if record.name == "django.request"]
    assert record.exc_info[0] is ZeroDivisionError


STREAMS = {
    "sync": lambda: [b"a"],
    "async": lambda: chunks(b"a"),
    "endless": endless,
    "endless-async": endless_async,
    "failing": failing,
    "failing-async": failing_async,
}


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_is_closed_once_in_a_thread_that_may_block(name):
    response = Closing(STREAMS[name]())
    closings = response.closings
    await knock(denying(lambda: response), "/")
    ((thread, loop),) = closings
    assert (thread.startswith("wsdeny-pool"), loop) == (True, False)


async def test_closing_says_that_the_request_has_finished_in_that_thread():
    threads = []

    def note(**kwargs):
        threads.append(threading.current_thread())

    request_finished.connect(note)
    try:
        await knock(denying(lambda: StreamingHttpResponse([b"a"], status=403)), "/")
    finally:
        request_finished.disconnect(note)
    (thread,) = threads
    assert thread is not threading.main_thread()


async def test_a_file_is_closed():
    file = io.BytesIO(b"x" * 100_000)
    await knock(denying(lambda: FileResponse(file, status=403)), "/")
    assert file.closed


async def test_a_file_that_cannot_deny_is_closed():
    file = io.BytesIO(b"x")
    assert (await knock(denying(lambda: FileResponse(file)), "/")).status == 500
    assert file.closed


async def test_a_synchronous_stream_is_read_where_it_may_block():
    threads = []

    def stream():
        threads.append(threading.current_thread())
        yield b"a"

    await knock(denying(lambda: StreamingHttpResponse(stream(), status=403)), "/")
    assert threads[0] is not threading.main_thread()


async def test_an_asynchronous_stream_is_read_on_the_loop():
    loops = []

    async def stream():
        loops.append(asyncio.get_running_loop())
        yield b"a"

    await knock(denying(lambda: StreamingHttpResponse(stream(), status=403)), "/")
    assert loops == [asyncio.get_running_loop()]


@pytest.mark.parametrize("status", [403, 503])
async def test_a_stream_that_hangs_becomes_a_503_and_is_closed(status, settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.1}

    async def stream():
        yield b"a"
        await asyncio.sleep(60)

    response = Closing(stream())
    closings = response.closings
    assert (await knock(denying(lambda: response), "/")).status == 503
    for _ in range(100):
        if closings:
            break
        await asyncio.sleep(0.02)
    assert len(closings) == 1


async def test_an_asynchronous_stream_given_up_ends(settings):
    settings.CHANNELS_WSDENY = {"MAX_DENIAL_BODY": 10}
    ended = asyncio.Event()

    async def stream():
        try:
            while True:
                yield b"x" * 8
        finally:
            ended.set()

    async with aclosing(stream()) as parts:
        assert (await knock(denying(lambda: StreamingHttpResponse(parts, status=403)), "/")).status == 500
    await asyncio.wait_for(ended.wait(), 5)


# Messages of applications: what they may accept with.


def accepting(headers):
    async def connect(self):
        await self.base_send({"type": "websocket.accept", "headers": headers})

    return guarded(AllowAny(), connect=connect)


async def test_the_headers_of_an_accept_go_out_in_lower_case():
    answer = await knock(accepting([(b"X-A", b"1"), (b"x-b", b"\xff")]), "/")
    assert answer.headers == [("x-a", "1"), ("x-b", "\xff")]


async def test_an_accept_may_repeat_a_header():
    headers = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    assert len((await knock(accepting(headers), "/")).headers) == 2


@pytest.mark.parametrize("headers", [None, [], ()])
async def test_an_accept_needs_no_headers(headers):
    assert (await knock(accepting(headers), "/")).status == 101


@pytest.mark.parametrize(
    "header",
    [
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
    ],
)
async def test_an_accept_with_a_bad_header_becomes_a_500(header):
    answer = await knock(accepting([(b"x-good", b"1"), header]), "/")
    assert (answer.status, answer.header("x-good"), answer.header("set-cookie")) == (500, None, None)


@pytest.mark.parametrize("header", [(b"x-a", b"1\r\n2"), ("x-a", b"1"), (b"x a", b"1")])
async def test_the_log_names_the_bad_header(header, caplog):
    await knock(accepting([header]), "/")
    (record,) = [record for record in caplog.records if record.name == "django.request"]
    assert repr(header[0]) in str(record.exc_info[1])
    assert "websocket.accept" in str(record.exc_info[1])


# Denials that an application sends as messages.


def denying_itself(headers):
    async def connect(self):
        await self.base_send({"type": "websocket.http.response.start", "status": 403, "headers": headers})
        await self.base_send({"type": "websocket.http.response.body", "body": b"a", "more_body": True})
        await self.base_send({"type": "websocket.http.response.body", "body": b"b"})

    return guarded(AllowAny(), connect=connect)


async def test_a_denial_of_the_applications_own_is_made_portable():
    answer = await knock(denying_itself([(b"X-A", b"1"), (b"Content-Length", b"7")]), "/")
    assert (answer.status, answer.body, len(answer.messages)) == (403, b"ab", 2)
    assert (answer.header("x-a"), answer.header("content-length")) == ("1", "2")


async def test_lines_that_it_repeats_are_folded():
    headers = [(b"vary", b"origin"), (b"Vary", b"accept"), (b"x-a", b"1"), (b"x-a", b"2")]
    answer = await knock(denying_itself(headers), "/")
    assert answer.header("x-a") == "1, 2"
    assert {"origin", "accept"} <= {name.strip().lower() for name in answer.header("vary").split(",")}


async def test_its_cookies_stay_lines_of_their_own():
    headers = [(b"set-cookie", b"a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT"), (b"Set-Cookie", b"b=2")]
    answer = await knock(denying_itself(headers), "/")
    assert [value for name, value in answer.headers if name == "set-cookie"] == [
        "a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        "b=2",
    ]


async def test_it_is_not_stored_either():
    assert (await knock(denying_itself([]), "/")).header("cache-control") == "no-store"


# Granian.


class Sender:
    """Stands where granian's protocol does: `send` is a method of an object from granian's module."""

    def __init__(self):
        self.sent = []

    async def send(self, message):
        self.sent.append(message)

    @property
    def answer(self):
        return answer_of(self.sent)


Sender.__module__ = "granian.asgi"


@pytest.fixture
def granian():
    return Sender()


@pytest.mark.parametrize("name", RESPONSES)
async def test_granian_is_never_sent_a_name_twice(name, granian):
    await knock_through(denying(RESPONSES[name]), granian.send)
    names = [name for name, _ in granian.answer.headers]
    assert sorted(names) == sorted(set(names))


async def test_granian_is_sent_the_first_cookie(granian):
    await knock_through(denying(with_cookies), granian.send)
    assert granian.answer.header("set-cookie") == "one=1; Path=/"


async def test_granian_is_told_to_close_the_connection(granian):
    await knock_through(guarded(DenyAll()), granian.send)
    assert granian.answer.header("connection") == "close"


async def test_granian_is_told_so_once_when_the_site_speaks_of_the_connection(granian):
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    await knock_through(denying(lambda: Deny(426, headers=headers)), granian.send)
    assert [name for name, _ in granian.answer.headers].count("connection") == 1


async def test_granian_is_sent_lines_that_an_application_repeated_as_one(granian):
    application = denying_itself([(b"x-a", b"1"), (b"x-a", b"2"), (b"set-cookie", b"a=1")])
    await knock_through(application, granian.send)
    assert granian.answer.header("x-a") == "1, 2"


async def test_granian_is_sent_an_accept_without_headers(granian):
    await knock_through(accepting([(b"x-a", b"1")]), granian.send)
    assert granian.answer.headers == []
    assert granian.answer.status == 101


async def test_granian_is_sent_the_subprotocol(granian):
    async def connect(self):
        await self.accept("chat")

    await knock_through(guarded(AllowAny(), connect=connect), granian.send)
    assert granian.sent[0]["subprotocol"] == "chat"


BEHIND_A_MIDDLEWARE = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "testproject.settings"
import django
django.setup()
import asyncio
import granian.asgi
from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import require
from tests.cases import Answers, with_cookies
from tests.clients import knock

@require(Answers(with_cookies))
async def endpoint(scope, receive, send): ...

async def middleware(scope, receive, send):
    async def wrapped(message):
        await send(message)
    await DenyMiddlewareStack(endpoint)(scope, receive, wrapped)

print(asyncio.run(knock(middleware, "/")).header("set-cookie"))
"""


def test_granian_is_known_behind_a_middleware_that_wraps_its_send():
    if find_spec("granian") is None:
        pytest.skip("granian is not installed")
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", BEHIND_A_MIDDLEWARE]
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout == "one=1; Path=/\n", ran.stderr


def warnings_in(caplog, word):
    return [record.getMessage() for record in caplog.records if word in record.getMessage()]


@pytest.mark.usefixtures("new_process")
async def test_a_left_out_cookie_is_warned_of_once(granian, caplog):
    for _ in range(3):
        await knock_through(denying(with_cookies), granian.send)
    (message,) = warnings_in(caplog, "granian")
    assert "Set-Cookie" in message


@pytest.mark.usefixtures("new_process")
async def test_left_out_headers_of_an_accept_are_warned_of_once(granian, caplog):
    for _ in range(3):
        await knock_through(accepting([(b"x-a", b"1")]), granian.send)
    assert len(warnings_in(caplog, "granian")) == 1


@pytest.mark.usefixtures("new_process")
async def test_one_cookie_is_nothing_to_warn_of(granian, caplog):
    def make():
        response = HttpResponse(status=403)
        response.set_cookie("one", "1")
        return response

    await knock_through(denying(make), granian.send)
    assert warnings_in(caplog, "granian") == []


async def test_another_servers_method_is_sent_everything():
    sender = type("Sender", (Sender,), {"__module__": "uvicorn.protocols"})()
    await knock_through(denying(with_cookies), sender.send)
    assert len([name for name, _ in sender.answer.headers if name == "set-cookie"]) == 2


# Without the server's extension, and DENY_WITH.


@pytest.mark.parametrize("extensions", [None, {}, {"tls": {}}])
async def test_without_the_extension_a_denial_is_a_close(extensions):
    answer = await knock(guarded(DenyAll()), "/", extensions=extensions)
    assert answer.close == (4403, "permission_denied")


@pytest.mark.usefixtures("new_process")
async def test_a_missing_extension_is_warned_of_once_with_the_remedy(caplog):
    for _ in range(3):
        await knock(guarded(DenyAll()), "/", extensions={})
    (message,) = warnings_in(caplog, "cannot send a denial response")
    assert "python -m channels_wsdeny.daphne" in message
    assert "DENY_WITH" in message


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("a" * 123, "a" * 123),
        ("a" * 124, "a" * 123),
        ("a" * 122 + "é", "a" * 122),
        ("a" * 121 + "é", "a" * 121 + "é"),
        ("a" * 120 + "😀", "a" * 120),
        ("a" * 119 + "😀", "a" * 119 + "😀"),
        ("世" * 60, "世" * 41),
    ],
)
async def test_the_reason_of_a_close_is_cut_to_123_bytes_between_characters(code, reason):
    answer = await knock(denying(lambda: Deny(403, code=code)), "/", extensions={})
    assert answer.close == (4403, reason)
    assert len(answer.close[1].encode()) <= 123


async def test_deny_with_close_sets_the_cookies_with_the_accept(settings):
    settings.CHANNELS_WSDENY = {"DENY_WITH": "close"}
    sent = []

    async def send(message):
        sent.append(message)

    await knock_through(denying(with_cookies), send, subprotocols=["chat"])
    accept, close = sent
    assert accept["headers"] == [(b"set-cookie", b"one=1; Path=/"), (b"set-cookie", b"two=2; Path=/")]
    assert accept["subprotocol"] == "chat"
    assert close == {"type": "websocket.close", "code": 4403, "reason": "permission_denied"}


async def test_deny_with_close_needs_no_subprotocol(settings):
    settings.CHANNELS_WSDENY = {"DENY_WITH": "close"}
    sent = []

    async def send(message):
        sent.append(message)

    await knock_through(guarded(IsAuthenticated()), send)
    assert sent[0] == {"type": "websocket.accept", "subprotocol": None, "headers": []}


async def test_a_problem_is_json_in_ascii():
    answer = await knock(denying(RESPONSES["problem"]), "/")
    assert answer.body.isascii()
    assert json.loads(answer.body)["detail"] == "Grüße"
