"""Response hooks over an ASGI app that streams: they see its response before its body, and buffer nothing."""

from __future__ import annotations

import asyncio
import gc

import pytest
from channels.generic.http import AsyncHttpConsumer
from django.http import FileResponse, HttpResponse, StreamingHttpResponse

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import public
from channels_wsdeny.exceptions import HandshakeDenied
from tests.clients import fetch, http_scope
from tests.test_stack import Wrapper, no_task_left

pytestmark = pytest.mark.django_db

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


def body(chunk=b"", more=True):
    return {"type": "http.response.body", "body": chunk, "more_body": more}


def streaming(*chunks, start=START):
    """An application that sends a chunk at a time."""

    @public
    async def app(scope, receive, send):
        await send(start)
        for chunk in chunks:
            await send(body(chunk))
        await send(body(more=False))

    return app


def rewriting(hooks, transform):
    """A response hook that has every chunk go through `transform`."""

    @hooks.on_response
    def rewrite(request, response):
        chunks = response.streaming_content

        async def rewritten():
            async for chunk in chunks:
                yield transform(chunk)

        response.streaming_content = rewritten()


class Server:
    """Runs an application, and keeps what it sends."""

    def __init__(self, application, *events, **scope):
        self.sent, self.closed, self.stuck = [], False, False
        self.events = asyncio.Queue()
        for event in events or ({"type": "http.request", "body": b""},):
            self.events.put_nowait(event)
        self.task = asyncio.ensure_future(application(http_scope("/", **scope), self.events.get, self.send))

    async def send(self, message):
        if self.closed:
            raise BrokenPipeError
        self.sent.append(message)
        if self.stuck:
            await asyncio.Event().wait()

    async def until(self, count):
        """Wait until so many messages were sent, and see that no more come."""
        async with asyncio.timeout(5):
            while len(self.sent) < count:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        assert len(self.sent) == count

    @property
    def body(self):
        return b"".join(message.get("body", b"") for message in self.sent)

    async def end(self):
        """Wait for the application; returns what it raised."""
        done, _ = await asyncio.wait({self.task}, timeout=5)
        assert done, "The application does not end."
        return None if self.task.cancelled() else self.task.exception()


def serve(app, hooks, *events, **scope):
    return Server(DenyMiddlewareStack(app, hooks=hooks), *events, **scope)


# Status, headers and cookies.


async def test_a_hook_sees_status_and_headers_of_the_application(hooks):
    seen = []
    hooks.on_response(lambda request, response: seen.append((response.status_code, dict(response.items()))))
    headers = [(b"Content-Type", b"text/x"), (b"X-A", b"1"), (b"x-a", b"2")]
    await fetch(
        DenyMiddlewareStack(streaming(start={**START, "status": 203, "headers": headers}), hooks=hooks), "/"
    )
    assert seen == [(203, {"content-type": "text/x", "x-a": "1, 2"})]


async def test_a_hook_sees_a_streaming_response(hooks):
    seen = []
    hooks.on_response(lambda request, response: seen.append((response.streaming, response.is_async)))
    assert (await fetch(DenyMiddlewareStack(streaming(b"a"), hooks=hooks), "/")).body == b"a"
    assert seen == [(True, True)]


async def test_status_headers_and_cookies_that_a_hook_changes_go_out(hooks):
    @hooks.on_response
    def change(request, response):
        response.status_code = 202
        response["X-Hook"] = "1"
        del response["Content-Type"]
        response.set_cookie("hook", "1")

    cookies = [(b"set-cookie", b"app=1"), (b"set-cookie", b"app=2")]
    app = streaming(b"a", start={**START, "headers": [*START["headers"], *cookies]})
    answer = await fetch(DenyMiddlewareStack(app, hooks=hooks), "/")
    assert (answer.status, answer.body) == (202, b"a")
    assert answer.headers == [
        ("x-hook", "1"),
        ("set-cookie", "app=1"),
        ("set-cookie", "app=2"),
        ("set-cookie", "hook=1; Path=/"),
    ]


async def test_what_else_the_start_says_stays(hooks):
    hooks.on_response(lambda request, response: None)
    server = serve(streaming(b"a", start={**START, "trailers": True}), hooks)
    assert await server.end() is None
    assert server.sent[0]["trailers"] is True


async def test_the_length_that_the_application_gave_stays_where_no_hook_rewrites(hooks):
    hooks.on_response(lambda request, response: None)
    app = streaming(b"abc", start={**START, "headers": [(b"content-length", b"3")]})
    answer = await fetch(DenyMiddlewareStack(app, hooks=hooks), "/")
    assert (answer.header("content-length"), answer.body) == ("3", b"abc")


async def test_the_messages_of_the_application_pass_as_they_are_where_no_hook_rewrites(hooks):
    hooks.on_response(lambda request, response: None)
    messages = [body(b"a"), {"type": "http.response.debug", "info": {}}, body(b"b"), body(more=False)]

    async def app(scope, receive, send):
        await send(START)
        for message in messages:
            await send(message)

    server = serve(public(app), hooks)
    assert await server.end() is None
    assert [a is b for a, b in zip(server.sent[1:], messages, strict=True)] == [True] * 4


# The body, rewritten.


async def test_a_hook_may_wrap_the_body(hooks):
    rewriting(hooks, bytes.upper)
    answer = await fetch(DenyMiddlewareStack(streaming(b"a", b"b", b"c"), hooks=hooks), "/")
    assert answer.body == b"ABC"


async def test_hooks_wrap_the_body_from_the_inside_out(hooks):
    rewriting(hooks, lambda chunk: b"(" + chunk + b")")
    rewriting(hooks, lambda chunk: b"[" + chunk + b"]")
    answer = await fetch(DenyMiddlewareStack(streaming(b"a", b"b"), hooks=hooks), "/")
    assert answer.body == b"([a])([b])"


async def test_an_around_hook_may_wrap_the_body(hooks):
    @hooks.around
    async def wrap(request, call_next):
        response = await call_next(request)
        chunks = response.streaming_content

        async def wrapped():
            yield b"<"
            async for chunk in chunks:
                yield chunk
            yield b">"

        response.streaming_content = wrapped()
        return response

    answer = await fetch(DenyMiddlewareStack(streaming(b"a", b"b"), hooks=hooks), "/")
    assert (answer.status, answer.body) == (200, b"<ab>")


async def test_a_body_that_was_rewritten_has_another_length(hooks):
    rewriting(hooks, lambda chunk: chunk * 2)
    app = streaming(b"abc", start={**START, "headers": [(b"content-length", b"3"), (b"x-a", b"1")]})
    answer = await fetch(DenyMiddlewareStack(app, hooks=hooks), "/")
    assert (answer.body, answer.headers) == (b"abcabc", [("x-a", "1")])


CONTENTS = {
    "list": lambda: [b"x", "y"],
    "generator": lambda: (chunk for chunk in (b"x", b"y")),
    "async generator": lambda: some(b"x", b"y"),
    "nothing": list,
}


async def some(*chunks):
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


@pytest.mark.parametrize("name", CONTENTS)
async def test_a_hook_may_send_another_body_whatever_the_application_sends(name, hooks):
    hooks.on_response(lambda request, response: setattr(response, "streaming_content", CONTENTS[name]()))
    async with no_task_left():
        answer = await fetch(DenyMiddlewareStack(streaming(*[b"app"] * 10), hooks=hooks), "/")
    assert (answer.status, answer.body) == (200, b"" if name == "nothing" else b"xy")


async def test_a_hook_may_read_a_part_of_the_body_alone(hooks):
    @hooks.on_response
    def first(request, response):
        chunks = response.streaming_content

        async def head():
            async for chunk in chunks:
                yield chunk
                return

        response.streaming_content = head()

    async with no_task_left():
        answer = await fetch(DenyMiddlewareStack(streaming(b"a", b"b", b"c"), hooks=hooks), "/")
    assert answer.body == b"a"


async def test_a_body_in_one_message_is_rewritten_as_well(hooks):
    rewriting(hooks, bytes.upper)

    @public
    class Hello(AsyncHttpConsumer):
        async def handle(self, body):
            await self.send_response(200, b"hello", headers=[(b"content-length", b"5")])

    answer = await fetch(DenyMiddlewareStack(Hello.as_asgi(), hooks=hooks), "/")
    assert (answer.body, answer.header("content-length")) == (b"HELLO", None)


@pytest.mark.parametrize(
    "inner", [lambda app, hooks: Wrapper(app), lambda app, hooks: DenyMiddlewareStack(app, hooks=hooks)]
)
async def test_a_body_is_rewritten_once_in_every_stacking(inner, hooks):
    rewriting(hooks, lambda chunk: chunk + b"!")
    app = DenyMiddlewareStack(Wrapper(inner(streaming(b"a"), hooks)), hooks=hooks)
    assert (await fetch(app, "/")).body == b"a!"


async def test_a_file_that_a_hook_sends_is_closed(hooks, tmp_path):
    (tmp_path / "file").write_bytes(b"file")
    opened = []

    @hooks.on_response
    def send_file(request, response):
        opened.append((tmp_path / "file").open("rb"))
        response.streaming_content = opened[0]

    answer = await fetch(DenyMiddlewareStack(streaming(b"app"), hooks=hooks), "/")
    assert answer.body == b"file"
    assert opened[0].closed


# Nothing is buffered.


@pytest.mark.parametrize("rewritten", [False, True])
async def test_a_chunk_reaches_the_client_before_the_application_sends_the_next(rewritten, hooks):
    hooks.on_response(lambda request, response: None)
    if rewritten:
        rewriting(hooks, lambda chunk: chunk)
    go_on = asyncio.Event()

    async def app(scope, receive, send):
        await send(START)
        await send(body(b"a"))
        await go_on.wait()
        await send(body(b"b", more=False))

    server = serve(public(app), hooks)
    await server.until(2)
    assert server.body == b"a"
    go_on.set()
    assert await server.end() is None
    assert server.body == b"ab"


async def test_the_start_reaches_the_client_before_there_is_a_body(hooks):
    rewriting(hooks, lambda chunk: chunk)
    go_on = asyncio.Event()

    async def app(scope, receive, send):
        await send(START)
        await go_on.wait()
        await send(body(more=False))

    server = serve(public(app), hooks)
    await server.until(1)
    assert [message["type"] for message in server.sent] == ["http.response.start"]
    go_on.set()
    assert await server.end() is None


@pytest.mark.parametrize("rewritten", [False, True])
async def test_an_application_waits_for_a_client_that_does_not_read(rewritten, hooks):
    sent = []
    if rewritten:
        rewriting(hooks, lambda chunk: chunk)

    async def app(scope, receive, send):
        await send(START)
        server.stuck = True
        for number in range(100):
            await send(body(b"a"))
            sent.append(number)

    server = serve(public(app), hooks)
    await asyncio.sleep(0.05)
    assert len(sent) <= 2
    server.task.cancel()
    await server.end()


async def test_an_endless_stream_holds_nothing(hooks):
    rewriting(hooks, lambda chunk: chunk)

    async def app(scope, receive, send):
        await send(START)
        for _ in range(10_000):
            await send(body(b"a" * 100))
        await send(body(more=False))

    async def send(message):
        nonlocal size, alive
        size += len(message.get("body", b""))
        alive = max(alive, len(asyncio.all_tasks()))

    async def receive():
        return {"type": "http.request", "body": b""}

    size = alive = 0
    await DenyMiddlewareStack(public(app), hooks=hooks)(http_scope("/"), receive, send)
    assert size == 1_000_000
    assert alive <= 5


# Reading the body in the hook.


async def read_async(response):
    return b"".join([chunk async for chunk in response])


async def read_anext(response):
    return await anext(aiter(response.streaming_content))


@pytest.mark.parametrize("read", [read_async, read_anext])
async def test_a_hook_that_reads_the_body_is_told_what_to_do(read, hooks, caplog):
    @hooks.on_response
    async def look(request, response):
        await read(response)

    async with no_task_left():
        answer = await fetch(DenyMiddlewareStack(streaming(b"secret"), hooks=hooks), "/")
    assert (answer.status, answer.problem["code"]) == (500, "server_error")
    assert "Wrap response.streaming_content instead of reading it in the hook." in caplog.text
    assert b"secret" not in answer.body


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume asynchronous iterators")
@pytest.mark.parametrize("read", [lambda response: response.getvalue(), list], ids=["getvalue", "list"])
async def test_a_sync_hook_that_reads_the_body_is_told_what_to_do(read, hooks, caplog):
    hooks.on_response(lambda request, response: read(response) and None)
    answer = await fetch(DenyMiddlewareStack(streaming(b"secret"), hooks=hooks), "/")
    assert answer.status == 500
    assert "Wrap response.streaming_content instead of reading it in the hook." in caplog.text


@pytest.mark.parametrize("name", ["content", "text"])
async def test_a_streaming_response_has_no_content(name, hooks, caplog):
    hooks.on_response(lambda request, response: getattr(response, name) and None)
    answer = await fetch(DenyMiddlewareStack(streaming(b"secret"), hooks=hooks), "/")
    assert answer.status == 500
    assert f"This AppStream instance has no `{name}` attribute." in caplog.text


# Another response in its place.


def stream():
    return StreamingHttpResponse(some(b"n", b"o"), status=403)


def sync_stream():
    return StreamingHttpResponse(iter([b"n", b"o"]), status=200)


REPLACEMENTS = {
    "whole": lambda: HttpResponse(b"no", status=403),
    "200": lambda: HttpResponse(b"no"),
    "stream": stream,
    "sync stream": sync_stream,
    "Deny": lambda: Deny(response=HttpResponse(b"no", status=403)),
}


@pytest.mark.parametrize("name", REPLACEMENTS)
async def test_another_response_takes_the_place_of_a_stream(name, hooks):
    hooks.on_response(lambda request, response: REPLACEMENTS[name]())
    async with no_task_left():
        answer = await fetch(DenyMiddlewareStack(streaming(b"secret", b"secret"), hooks=hooks), "/")
    assert (answer.status in {200, 403}, answer.body) == (True, b"no")
    assert answer.header("x-app") is None


@pytest.mark.parametrize("wrapped", [False, True])
async def test_what_was_wrapped_before_it_was_replaced_is_gone(wrapped, hooks):
    hooks.on_response(lambda request, response: HttpResponse(b"no", status=403))
    if wrapped:
        rewriting(hooks, bytes.upper)
    async with no_task_left():
        answer = await fetch(DenyMiddlewareStack(streaming(b"secret"), hooks=hooks), "/")
    assert answer.body == b"no"
    gc.collect()


async def test_a_consumer_whose_response_was_replaced_is_told_with_its_next_message(hooks):
    hooks.on_response(lambda request, response: HttpResponse(b"no", status=403))
    errors = []

    class Consumer(AsyncHttpConsumer):
        async def handle(self, content):
            await self.send_headers(status=200)
            try:
                await self.send_body(b"secret")
            except HandshakeDenied as error:
                errors.append(error)
                raise

    server = serve(public(Consumer).as_asgi(), hooks)
    assert await server.end() is None
    assert (len(errors), server.body) == (1, b"no")


async def test_an_application_whose_response_was_replaced_is_not_heard_any_more(hooks):
    """It is not told by an exception either: Django's handler would leave without `request_finished`."""
    hooks.on_response(lambda request, response: HttpResponse(b"no", status=403))
    events = []

    async def app(scope, receive, send):
        await send(START)
        await send(body(b"secret"))
        events.append(await receive())

    server = serve(public(app), hooks)
    assert await server.end() is None
    assert (events, server.body) == ([{"type": "http.disconnect"}], b"no")


async def test_an_application_that_waits_for_the_client_hears_that_its_response_was_replaced(hooks):
    hooks.on_response(lambda request, response: HttpResponse(b"no", status=403))

    async def app(scope, receive, send):
        await receive()
        listening = asyncio.create_task(receive())
        await asyncio.sleep(0)
        await send(START)
        assert await listening == {"type": "http.disconnect"}

    server = serve(public(app), hooks)
    assert await server.end() is None
    assert server.body == b"no"


async def test_a_file_response_in_the_place_of_a_stream_is_closed(hooks, tmp_path):
    (tmp_path / "file").write_bytes(b"file")
    opened = []

    @hooks.on_response
    def send_file(request, response):
        opened.append((tmp_path / "file").open("rb"))
        return FileResponse(opened[0], status=403)

    answer = await fetch(DenyMiddlewareStack(streaming(b"app"), hooks=hooks), "/")
    assert (answer.body, opened[0].closed) == (b"file", True)


async def test_a_file_whose_response_another_hook_replaces_is_closed(tmp_path):
    (tmp_path / "file").write_bytes(b"file")
    opened, inner, outer = [], Hooks(), Hooks()

    @inner.on_response
    def send_file(request, response):
        opened.append((tmp_path / "file").open("rb"))
        return FileResponse(opened[0], status=403)

    outer.on_response(lambda request, response: HttpResponse(b"no", status=403))
    app = DenyMiddlewareStack(Wrapper(DenyMiddlewareStack(streaming(b"app"), hooks=inner)), hooks=outer)
    answer = await fetch(app, "/")
    assert (answer.body, opened[0].closed) == (b"no", True)


# Ends before the end.


@pytest.mark.parametrize("rewritten", [False, True])
async def test_an_application_that_dies_in_the_middle_reaches_the_server_and_leaves_nothing(
    rewritten, hooks, caplog
):
    hooks.on_exception(lambda request, error: Deny(409))
    hooks.on_response(lambda request, response: None)
    if rewritten:
        rewriting(hooks, lambda chunk: chunk)

    async def app(scope, receive, send):
        await send(START)
        await send(body(b"a"))
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    async with no_task_left():
        server = serve(public(app), hooks)
        assert isinstance(await server.end(), ZeroDivisionError)
    assert (server.body, [message.get("status") for message in server.sent]) == (b"a", [200, None])


@pytest.mark.parametrize("rewritten", [False, True])
async def test_an_application_that_ends_without_the_end_of_its_body_leaves_nothing(rewritten, hooks):
    if rewritten:
        rewriting(hooks, lambda chunk: chunk)

    async def app(scope, receive, send):
        await send(START)
        await send(body(b"a"))
        await asyncio.sleep(0.01)

    async with no_task_left():
        server = serve(public(app), hooks)
        assert await server.end() is None
    assert server.sent[-1] == body(b"a")


@pytest.mark.parametrize("chunks", [0, 1, 5])
async def test_a_hook_whose_iterator_fails_reaches_the_application_and_the_server(chunks, hooks):
    @hooks.on_response
    def fail(request, response):
        content = response.streaming_content

        async def failing():
            number = 0
            async for chunk in content:
                if number == chunks:
                    raise ZeroDivisionError
                number += 1
                yield chunk

        response.streaming_content = failing()

    async with no_task_left():
        server = serve(streaming(*[b"a"] * 10), hooks)
        assert isinstance(await server.end(), ZeroDivisionError)
    assert server.body == b"a" * chunks


@pytest.mark.parametrize("rewritten", [False, True])
async def test_a_client_that_leaves_is_told_to_the_application(rewritten, hooks):
    errors = []
    if rewritten:
        rewriting(hooks, lambda chunk: chunk)

    async def app(scope, receive, send):
        await send(START)
        await send(body(b"a"))
        await asyncio.sleep(0.01)
        server.closed = True
        try:
            for _ in range(5):
                await send(body(b"b"))
        except OSError as error:  # as ASGI has it
            errors.append(error)

    async with no_task_left():
        server = serve(public(app), hooks)
        await server.end()
    assert (len(errors), server.body) == (1, b"a")


@pytest.mark.parametrize("rewritten", [False, True])
@pytest.mark.parametrize("stuck", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21, 34, 55])
async def test_a_server_that_cancels_leaves_nothing(turns, stuck, rewritten, hooks):
    @hooks.on_response
    async def note(request, response):
        if rewritten:
            content = response.streaming_content

            async def upper():
                async for chunk in content:
                    yield chunk.upper()

            response.streaming_content = upper()

    async def app(scope, receive, send):
        await send(START)
        server.stuck = stuck
        while True:
            await send(body(b"a"))
            await asyncio.sleep(0)

    async with no_task_left():
        server = serve(public(app), hooks)
        for _ in range(turns):
            await asyncio.sleep(0)
        server.task.cancel()
        await server.end()
    assert server.task.cancelled()


async def test_an_application_that_waits_for_the_client_to_leave_ends(hooks):
    rewriting(hooks, lambda chunk: chunk)

    async def app(scope, receive, send):
        await send(START)
        await send(body(b"a"))
        while (await receive())["type"] != "http.disconnect":
            pass

    async with no_task_left():
        server = serve(public(app), hooks)
        await asyncio.sleep(0.02)
        server.events.put_nowait({"type": "http.disconnect"})
        assert await server.end() is None
    assert server.body == b"a"


async def test_a_client_that_leaves_before_the_response_gets_none(hooks):
    @hooks.on_response
    async def slow(request, response):
        await asyncio.sleep(0.02)

    async def app(scope, receive, send):
        leaving = asyncio.ensure_future(receive())
        try:
            await send(START)
            await send(body(b"a", more=False))
        finally:
            await leaving

    async with no_task_left():
        server = serve(public(app), hooks, {"type": "http.disconnect"})
        assert await server.end() is None
    assert server.sent == []


# Endless answers of hooks.


async def endless():
    while True:
        await asyncio.sleep(0.001)
        yield b"a"


def answering_endlessly(hooks, *, late):
    answering(hooks, lambda: StreamingHttpResponse(endless(), status=403), late=late)


def answering(hooks, answer, *, late):
    """A hook that answers by itself, before the application or while that runs."""
    if not late:
        hooks.on_request(lambda request: answer())
        return

    @hooks.around
    async def impatient(request, call_next):
        try:
            async with asyncio.timeout(0.01):
                return await call_next(request)
        except TimeoutError:
            return answer()


@public
async def waiting(scope, receive, send):
    while (await receive())["type"] != "http.disconnect":
        pass


@pytest.mark.parametrize("late", [False, True])
async def test_an_endless_answer_of_a_hook_ends_when_the_client_leaves(late, hooks):
    answering_endlessly(hooks, late=late)
    async with no_task_left():
        server = serve(waiting, hooks)
        await asyncio.sleep(0.05)
        assert server.body.startswith(b"a")
        server.events.put_nowait({"type": "http.disconnect"})
        await server.end()
        await asyncio.sleep(0.01)  # the response is closed in a thread


@pytest.mark.parametrize("late", [False, True])
async def test_an_endless_answer_of_a_hook_ends_when_the_server_cancels(late, hooks):
    answering_endlessly(hooks, late=late)
    async with no_task_left():
        server = serve(waiting, hooks)
        await asyncio.sleep(0.05)
        server.task.cancel()
        await server.end()
        await asyncio.sleep(0.01)  # as above


@pytest.mark.parametrize("late", [False, True])
async def test_an_answer_of_a_hook_that_breaks_off_is_told_to_the_server(late, hooks):
    async def breaking():
        yield b"a"
        raise ZeroDivisionError

    answering(hooks, lambda: StreamingHttpResponse(breaking(), status=403), late=late)
    server = serve(waiting, hooks)
    assert isinstance(await server.end(), ZeroDivisionError)
    assert server.body == b"a"


# What else would pass the hooks by.


@pytest.mark.parametrize("extension", ["http.response.pathsend", "http.response.zerocopysend"])
async def test_where_there_are_hooks_no_file_is_left_to_the_server(extension, hooks):
    hooks.on_response(lambda request, response: None)
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["extensions"])
        await streaming(b"a")(scope, receive, send)

    server = serve(public(app), hooks, extensions={extension: {}, "http.response.trailers": {}})
    assert await server.end() is None
    assert seen == [{"http.response.trailers": {}}]
