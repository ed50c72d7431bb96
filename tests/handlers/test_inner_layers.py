"""Layers between a stack and its endpoint that have policies and no hooks, and what an accepted socket sends."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from channels_wsdeny import DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import public, require
from channels_wsdeny.exceptions import HandshakeDenied
from channels_wsdeny.handlers import base
from channels_wsdeny.policies import AllowAny
from tests.support.clients import knock
from tests.support.policies import AsyncCheck
from tests.support.scripted import Script, accept, close, text
from tests.support.sockets import Server, disconnect, open_to_all
from tests.support.wrappers import Wrapper


def inside(app, hooks=None, policy=None):
    """`app` in a layer of its own, which the stack cannot look into."""
    policy = AsyncCheck(lambda request: True) if policy is None else policy
    return DenyMiddlewareStack(Wrapper(require(policy)(app)), hooks=hooks, default_policy=AllowAny())


async def silent(scope, receive, send):
    await asyncio.Event().wait()


@pytest.fixture
def policies(caplog):
    """What the log names as the policies of its denials."""
    return lambda: [record.policy for record in caplog.records if record.name == "channels_wsdeny"]


async def test_the_log_names_the_policy_of_the_layer_whose_application_is_silent(settings, policies):
    settings.CHANNELS_WSDENY = {"ACCEPT_TIMEOUT": 0.05}
    assert (await knock(inside(silent), "/")).status == 500
    assert policies() == ["AsyncCheck()"]


async def test_the_log_names_the_policy_that_goes_on_after_its_cancellation(settings, policies, monkeypatch):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.05}
    monkeypatch.setattr(base, "_GRACE", 0.01)
    end, server = asyncio.Event(), Server()

    async def swallow(request):
        while not end.is_set():
            with suppress(asyncio.CancelledError):
                await end.wait()
        return True

    running = server.begin(inside(Script(accept()), policy=AsyncCheck(swallow)))
    while len(server.sent) < 2:
        await asyncio.sleep(0.01)
    end.set()
    await running
    assert policies() == ["AsyncCheck()"]


async def test_a_wrapper_may_answer_for_a_layer_that_has_ended_without_an_answer():
    class After(Wrapper):
        async def __call__(self, scope, receive, send):
            await self.inner(scope, receive, send)
            await send(close(code=4409))

    async def end(scope, receive, send):
        await receive()

    assert (await knock(open_to_all(After(require(AsyncCheck(lambda request: True))(end))), "/")).status == 409


async def test_a_denial_that_is_cancelled_while_hooks_see_it_may_be_tried_again():
    hooks, seen, results = Hooks(), [], []

    async def wait_once(request, response):
        seen.append(response)
        if len(seen) == 1:
            await asyncio.Event().wait()

    async def app(scope, receive, send):
        with suppress(TimeoutError):
            await asyncio.wait_for(send(close()), 0.05)
        results.append(await send(close(code=4409)))
        await asyncio.Event().wait()

    hooks.on_response(wait_once)
    assert (await knock(inside(app, hooks), "/")).status == 500
    assert results == [None]


async def test_two_denials_at_once_are_one_answer():
    hooks, is_second, results = Hooks(), asyncio.Event(), []

    async def wait(request, response):
        await is_second.wait()

    async def app(scope, receive, send):
        first, second = (asyncio.ensure_future(send(close(code=4409))) for _ in range(2))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.02, is_second.set)
        results.extend(await asyncio.gather(first, second, return_exceptions=True))

    hooks.on_response(wait)
    assert (await knock(inside(app, hooks), "/")).status == 409
    assert results == [None, None]


async def test_a_message_that_is_held_back_is_not_sent_after_a_close_from_outside():
    async def app(scope, receive, send):
        await send(accept())
        held = asyncio.ensure_future(send(text("open")))  # It is a coroutine, whatever the server's is.
        await held
        held = send(text("secret"))
        await scope["wsdeny"].close()
        await held
        await receive()

    server = Server()
    await server.run(DenyMiddlewareStack(public(app)))
    assert server.kinds == ["websocket.accept", "websocket.send", "websocket.close"]


async def test_nothing_is_asked_again_before_the_accept_is_sent():
    contexts, errors = [], []

    class Slow(Server):
        async def send(self, message):
            if message["type"] == "websocket.accept":
                try:
                    await contexts[0].recheck()
                except HandshakeDenied as error:
                    errors.append(error)
            await super().send(message)

    async def app(scope, receive, send):
        contexts.append(scope["wsdeny"])
        await send(accept())
        await contexts[0].recheck()
        await receive()

    server = Slow()
    running = server.begin(inside(app))
    server.events.put_nowait(disconnect())
    await running
    assert (server.kinds, len(errors)) == (["websocket.accept"], 1)
