"""Layers inside a stack that only a wrapper leads to, and that answer by the layer around them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from channels_wsdeny import DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import require
from channels_wsdeny.handlers import base
from channels_wsdeny.policies import AllowAny
from tests.support.clients import knock
from tests.support.policies import AsyncCheck
from tests.support.scripted import Script, accept, close
from tests.support.sockets import Server
from tests.support.wrappers import Wrapper


def layer(app, policy=None):
    """`app` in a layer of its own, which what is around cannot look into."""
    return Wrapper(require(AsyncCheck(lambda request: True) if policy is None else policy)(app))


def inside(app, hooks=None, policy=None):
    return DenyMiddlewareStack(layer(app, policy), hooks=hooks, default_policy=AllowAny())


@pytest.fixture
def policies(caplog):
    """What the log names as the policies of its denials."""
    return lambda: [record.policy for record in caplog.records if record.name == "channels_wsdeny"]


async def test_accept_timeout_counts_again_where_a_layer_that_was_denied_drops_an_answer(settings):
    settings.CHANNELS_WSDENY = {"ACCEPT_TIMEOUT": 0.05}
    hooks, is_seen = Hooks(), asyncio.Event()

    @hooks.on_response
    async def wait_once(request, response):
        if not is_seen.is_set():
            is_seen.set()
            await asyncio.Event().wait()

    class Twice(Wrapper):
        async def __call__(self, scope, receive, send):
            await self.inner(scope, receive, send)
            await self.inner(scope, receive, send)
            await asyncio.Event().wait()

    async def app(scope, receive, send):
        is_first = not is_seen.is_set()
        denying = asyncio.ensure_future(send(close()))
        await is_seen.wait()
        if is_first:
            denying.cancel()
        await asyncio.wait({denying})

    assert (await knock(inside(Twice(layer(app)), hooks), "/")).status == 500


async def test_two_denials_at_once_are_one_answer():
    hooks, is_second = Hooks(), asyncio.Event()

    @hooks.on_response
    async def wait(request, response):
        await is_second.wait()
        for _ in range(10):  # An error of the second would have come by then.
            await asyncio.sleep(0)

    async def deny(send):
        await send(close(code=4409))

    async def deny_as_well(send):
        is_second.set()
        await send(close(code=4409))

    async def app(scope, receive, send):
        async with asyncio.TaskGroup() as group:  # An error in one cancels the other.
            group.create_task(deny(send))
            group.create_task(deny_as_well(send))

    assert (await knock(inside(app, hooks), "/")).status == 409


async def test_the_log_names_the_policy_of_the_layer_whose_application_is_silent(settings, policies):
    settings.CHANNELS_WSDENY = {"ACCEPT_TIMEOUT": 0.05}

    async def silent(scope, receive, send):
        await asyncio.Event().wait()

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
