"""Attacks on hooks: 1,000 requests of every ending; hooks and endpoints by chance, cancelled at any time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random

import pytest
from django.core.asgi import get_asgi_application
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.urls import path

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import public, with_hooks
from channels_wsdeny.policies import AllowAny
from tests.clients import http_scope, websocket_scope
from tests.test_hooks_around import DOORS, on_loop, through
from tests.test_stack import Wrapper, no_task_left

pytestmark = pytest.mark.django_db


@pytest.fixture(params=DOORS)
def door(request):
    return request.param


def endings():
    """Registries, by how their around hooks end."""

    async def fall_through(request, call_next):
        return await call_next(request)

    async def early(request, call_next):
        return HttpResponse(status=403)

    async def late(request, call_next):
        await call_next(request)
        return HttpResponse(status=403)

    async def raise_early(request, call_next):
        raise PermissionDenied

    async def raise_late(request, call_next):
        await call_next(request)
        raise PermissionDenied

    async def give_up_waiting(request, call_next):
        async with asyncio.timeout(0):
            return await call_next(request)

    async def call_twice(request, call_next):
        await call_next(request)
        return await call_next(request)

    functions = [fall_through, early, late, raise_early, raise_late, give_up_waiting, call_twice]
    return {function.__name__: function for function in functions}


ENDINGS = endings()


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_thousand_requests_leave_no_task_and_no_memory(ending, hooks, door):
    logging.disable(logging.CRITICAL)
    hooks.around(through)
    hooks.around(ENDINGS[ending])
    hooks.on_request(on_loop)
    hooks.on_response(on_loop)
    application = DenyMiddlewareStack(DOORS[door][2], hooks=hooks)

    async def some(number):
        for _ in range(number):
            await DOORS[door][0](application, "/")
        gc.collect()
        return len(gc.get_objects())

    try:
        async with no_task_left():
            await some(100)
            before = await some(100)
            assert await some(1000) - before < 200
    finally:
        logging.disable(logging.NOTSET)


class Chance:
    """Hooks by chance around an endpoint by chance, and a server for them.

    Each hook notes that it ran, and whether it had something against the request.
    """

    def __init__(self, seed, protocol):
        self.random = random.Random(seed)
        self.protocol = protocol
        self.began: list[str] = []
        self.passed: list[str] = []
        self.names: list[str] = []
        self.sent: list[str] = []
        self.statuses: list[int] = []
        self.patience = self.random.randrange(8)
        self.client_left = self.connected = False

    def chance(self, probability):
        return self.random.random() < probability

    def site(self):
        app = self.endpoint
        for _ in range(self.random.randrange(3)):
            app = self.random.choice([self.stack, self.decorated, Wrapper, Retries])(app)
        return self.stack(public(app) if self.chance(0.5) else self.decorated(app))

    def stack(self, app):
        return DenyMiddlewareStack(app, hooks=self.hooks(), default_policy=AllowAny())

    def decorated(self, app):
        return with_hooks(self.hooks())(public(app))

    def hooks(self):
        hooks = Hooks()
        for _ in range(self.random.randrange(3)):
            kind = self.random.choice(["request", "response", "around", "around"])
            name = f"{kind}-{len(self.names)}"
            self.names.append(name)
            if kind == "around":
                hooks.around(self.around(name))
            else:
                getattr(hooks, f"on_{kind}")(self.hook(name), blocking=self.chance(0.1))
        return hooks

    def hook(self, name):
        async def hook(*args):
            self.begin(name)
            await self.pause()
            return self.judge(name)

        def sync_hook(*args):
            self.begin(name)
            return self.judge(name)

        return hook if self.chance(0.6) else sync_hook

    def around(self, name):
        async def around(request, call_next):
            self.begin(name)
            await self.pause()
            what = self.random.randrange(12)
            if what == 0:
                return self.refusal()
            if what == 1:
                raise self.random.choice([Deny(402), ValueError(), Http404()])
            if what == 2:  # at any turn of the loop, also one at which something else ends
                asking = asyncio.ensure_future(call_next(request))
                try:
                    for _ in range(self.random.randrange(40)):
                        await asyncio.sleep(0)
                    if not asking.done():
                        return self.refusal()
                    call_next = self.already(asking)
                finally:
                    asking.cancel()
            try:
                async with asyncio.timeout(0.002 if what == 3 else None):
                    response = await call_next(request)
            except TimeoutError:
                await self.pause()
                return self.refusal()
            await self.pause()
            answer = self.judge(name)
            return response if answer is None else answer

        return around

    @staticmethod
    def already(asking):
        async def call_next(request):
            return await asking

        return call_next

    def begin(self, name):
        assert name not in self.began
        self.began.append(name)

    def judge(self, name):
        what = self.random.randrange(20)
        if what == 0:
            return self.refusal()
        if what == 1:
            raise self.random.choice([Deny(402), ValueError(), PermissionDenied()])
        self.passed.append(name)
        return None

    def refusal(self):
        return HttpResponse(b"refused", status=403)

    async def pause(self):
        if self.chance(0.1):
            await asyncio.sleep(0.003)
        for _ in range(self.random.randrange(3)):
            await asyncio.sleep(0)

    async def endpoint(self, scope, receive, send):
        prefix = "websocket" if self.protocol == "websocket" else "http"
        for _ in range(self.random.randrange(2, 6)):
            what = self.random.randrange(8)
            if what == 0:
                await self.pause()
            elif what == 1:
                raise self.random.choice([ValueError(), Deny(409), asyncio.CancelledError()])
            elif what == 2:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.answer(prefix, send), 0.001)
            elif what == 3:
                with contextlib.suppress(OSError):
                    await self.answer(prefix, send)
            elif what < 6:
                await receive()
            else:
                await self.answer(prefix, send)

    async def answer(self, prefix, send):
        if prefix == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"page"})

    async def receive(self):
        if not self.connected:
            self.connected = True
            return {"type": "websocket.connect"} if self.protocol == "websocket" else {"type": "http.request"}
        for _ in range(self.patience):
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        self.client_left = True
        return {"type": f"{self.protocol}.disconnect", "code": 1001}

    async def send(self, message):
        self.sent.append(message["type"])
        if "status" in message:
            self.statuses.append(message["status"])
        if self.chance(0.3):
            await asyncio.sleep(0)

    @property
    def scope(self):
        return websocket_scope("/") if self.protocol == "websocket" else http_scope("/")

    @property
    def is_open(self):
        """Whether the endpoint's own answer went out to somebody."""
        return "websocket.accept" in self.sent or (200 in self.statuses and not self.client_left)

    def check(self):
        """Where the endpoint's answer goes out, every hook was asked, and none had anything against it."""
        if self.is_open:
            assert self.sent[0].endswith(("accept", "start"))
            assert set(self.statuses) <= {200}
            assert sorted(self.passed) == sorted(self.names)
        elif not self.client_left:
            assert len([kind for kind in self.sent if kind.endswith("start")]) <= 1


class Retries(Wrapper):
    """Runs its app again, if it takes long."""

    async def __call__(self, scope, receive, send):
        try:
            await asyncio.wait_for(self.inner(scope, receive, send), 0.005)
        except TimeoutError:
            await self.inner(scope, receive, send)


@pytest.mark.parametrize("seed", range(300))
@pytest.mark.parametrize("protocol", ["websocket", "http"])
async def test_whatever_hooks_and_endpoint_do_nobody_passes_but_by_all_hooks(protocol, seed):
    chance = Chance(seed, protocol)
    async with no_task_left():
        run = asyncio.wait_for(chance.site()(chance.scope, chance.receive, chance.send), 10)
        (error,) = await asyncio.gather(run, return_exceptions=True)
    chance.check()
    if not chance.is_open and not chance.client_left:
        assert error is None
        assert chance.sent or chance.client_left


@pytest.mark.parametrize("seed", range(300))
@pytest.mark.parametrize("protocol", ["websocket", "http"])
async def test_whatever_hooks_and_endpoint_do_they_end_when_the_server_cancels(protocol, seed):
    chance = Chance(seed, protocol)
    async with no_task_left():
        task = asyncio.ensure_future(chance.site()(chance.scope, chance.receive, chance.send))
        for _ in range(seed % 30):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=10)
    assert done == {task}
    task.cancelled() or task.exception()
    chance.check()


# Hooks by chance around Django's handler, with the mirror and without.


def sync_view(request):
    return request.scope["chance"].view()


async def async_view(request):
    await asyncio.sleep(0)
    return request.scope["chance"].view()


urlpatterns = [path("sync/", sync_view), path("async/", async_view)]


class ViewChance(Chance):
    """As above, with a view by chance in the middle."""

    views = 0

    def site(self):
        app = get_asgi_application()
        for _ in range(self.random.randrange(3)):
            app = self.random.choice([self.stack, self.decorated, Wrapper])(app)
        return self.stack(app)

    def view(self):
        self.views += 1
        what = self.random.randrange(6)
        if what < 3:
            raise [ValueError(), Deny(409), Http404()][what]
        return HttpResponse("page")

    async def receive(self):
        if not self.connected:
            self.connected = True
            return {"type": "http.request"}
        return await asyncio.Event().wait()


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("seed", range(100))
@pytest.mark.parametrize("view", ["sync", "async"])
@pytest.mark.parametrize("mirrored", [True, False], ids=["mirror", "no mirror"])
async def test_whatever_hooks_and_view_do_nobody_passes_but_by_all_hooks(mirrored, view, seed, settings):
    if not mirrored:
        settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != MIRROR]
    chance = ViewChance(seed, "http")
    scope = http_scope(f"/{view}/", headers=[(b"host", b"testserver")], chance=chance)
    async with no_task_left():
        await asyncio.wait_for(chance.site()(scope, chance.receive, chance.send), 10)
    chance.check()
    assert [kind for kind in chance.sent if kind.endswith("start")] == ["http.response.start"]
    assert chance.views <= 1
