"""The messages of an HTTP request: one answer, whatever applications and wrappers say."""

from __future__ import annotations

import asyncio

import pytest
from channels.generic.http import AsyncHttpConsumer
from django.http import StreamingHttpResponse

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import public, with_hooks
from tests.clients import fetch, http_scope
from tests.test_appstream import START, Server, body

pytestmark = pytest.mark.django_db


async def test_nobody_else_speaks_while_a_denial_is_sent(hooks):
    @hooks.on_exception(ZeroDivisionError)
    def explain(request, error):
        async def chunks():
            yield b"no"
            await asyncio.sleep(0.1)
            yield b"!"

        return StreamingHttpResponse(chunks(), status=403)

    left = []

    @public
    async def app(scope, receive, send):
        async def answer():
            await asyncio.sleep(0.05)
            await send(START)
            await send(body(b"secret", more=False))

        async def fail():
            raise ZeroDivisionError

        left.append(asyncio.ensure_future(answer()))
        await fail()

    server = Server(DenyMiddlewareStack(app, hooks=hooks))
    await asyncio.wait_for(server.task, 5)
    await asyncio.gather(*left)
    assert [m["type"] for m in server.sent].count("http.response.start") == 1
    assert b"".join(m.get("body", b"") for m in server.sent) == b"no!"


async def test_nobody_else_speaks_while_the_server_is_slow_to_take_a_denial():
    left = []

    @public
    async def app(scope, receive, send):
        async def answer():
            await asyncio.sleep(0.02)
            await send(START)
            await send(body(b"secret", more=False))

        left.append(asyncio.ensure_future(answer()))
        raise Deny(403)

    sent = []

    async def slow_send(message):
        sent.append(message)
        await asyncio.sleep(0.05)

    async def receive():
        await asyncio.sleep(3600)

    await asyncio.wait_for(DenyMiddlewareStack(app)(http_scope("/"), receive, slow_send), 5)
    await asyncio.gather(*left)
    assert [m["type"] for m in sent] == ["http.response.start", "http.response.body"]
    assert b"secret" not in b"".join(m.get("body", b"") for m in sent)


async def test_an_endless_stream_ends_once_denied(hooks):
    """As Starlette does for a server of ASGI 2.4, which says by an `OSError` that nobody listens."""

    @hooks.on_response
    def deny(request, response):
        return Deny(403)

    stopped = []

    @public
    async def app(scope, receive, send):
        try:
            await send(START)
            while True:
                await asyncio.sleep(0.001)
                await send(body(b"tick"))
        except OSError:
            stopped.append("OSError")
        finally:
            stopped.append("end")

    server = Server(DenyMiddlewareStack(app, hooks=hooks), asgi={"version": "3.0", "spec_version": "2.4"})
    await server.until(2)
    _, pending = await asyncio.wait({server.task}, timeout=1)
    for task in pending:
        task.cancel()
    assert not pending


@pytest.mark.parametrize("hooked", [False, True])  # without hooks nothing is lost
@pytest.mark.parametrize("ticks", range(6))
async def test_no_part_of_a_body_is_lost_by_who_gives_up_listening(hooks, ticks, hooked):
    if hooked:
        hooks.on_response(lambda request, response: None)
    got = []
    waiting = asyncio.Event()

    @public
    async def app(scope, receive, send):
        first = asyncio.ensure_future(receive())
        await asyncio.sleep(0.01)
        waiting.set()
        events.put_nowait({"type": "http.request", "body": b"a", "more_body": False})
        for _ in range(ticks):
            await asyncio.sleep(0)
        if first.done():
            got.append(first.result())
        else:
            first.cancel()
            try:
                got.append(await first)
            except asyncio.CancelledError:
                got.append(await asyncio.wait_for(receive(), 0.5))
        await send(START)
        await send(body(b"", more=False))

    events = asyncio.Queue()
    sent = []

    async def send(message):
        sent.append(message)

    await DenyMiddlewareStack(app, hooks=hooks)(http_scope("/"), events.get, send)
    assert sent[0]["status"] == 200
    assert [event["body"] for event in got] == [b"a"]


async def test_a_stream_of_a_hook_that_fails_ends_the_response(hooks):
    @hooks.on_response
    def rewrite(request, response):
        async def rewritten():
            yield b"head"
            raise ZeroDivisionError

        response.streaming_content = rewritten()

    @public
    async def app(scope, receive, send):
        await receive()
        await send(START)
        await receive()

    server = Server(DenyMiddlewareStack(app, hooks=hooks))
    await server.until(2)
    await asyncio.wait({server.task}, timeout=5)
    assert isinstance(server.task.exception(), ZeroDivisionError)


# Wrappers that keep what they are sent.


@public
async def answering(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})


@public
class Consumer(AsyncHttpConsumer):
    async def handle(self, body):
        await self.send_response(200, b"fine")


class Buffering:
    """As one that computes an ETag or a Content-Length."""

    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        messages = []

        async def collect(message):
            messages.append(message)

        await self.inner(scope, receive, collect)
        for message in messages:
            await send(message)


APPS = {
    "public": answering,
    "consumer": Consumer.as_asgi(),
    "stack": DenyMiddlewareStack(answering),
    "hooks": with_hooks(Hooks())(answering),
}


@pytest.mark.parametrize("inner", APPS.values(), ids=APPS)
async def test_what_a_wrapper_has_collected_is_answered(inner):
    answer = await fetch(DenyMiddlewareStack(Buffering(inner)), "/")
    assert (answer.status, answer.body) == (200, b"fine")


async def test_what_a_wrapper_has_collected_of_no_guard_is_answered():
    async def plain(scope, receive, send):
        await answering(scope, receive, send)

    answer = await fetch(DenyMiddlewareStack(Buffering(plain)), "/")
    assert (answer.status, answer.body) == (200, b"fine")
