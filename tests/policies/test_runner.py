"""Decisions: for whom one counts, how long policies may take, and what becomes of those that are given up."""

import asyncio
import contextlib
import threading

import pytest
from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.urls import path
from django.utils.functional import SimpleLazyObject

from channels_wsdeny import DenyMiddlewareStack, Hooks
from channels_wsdeny.concurrency import get_pool
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.policies import AllowAny, HasPermission
from tests.support.clients import knock
from tests.support.mirror import made
from tests.support.policies import AsyncCheck, Check, accept, alice, anonymous, ask, boss, raising, status
from tests.support.sockets import Server, disconnect, no_task_left
from tests.support.threads import until
from tests.support.wrappers import Middleware, With, Wrapper

pytestmark = pytest.mark.django_db


class Notes(AsyncCheck):
    """Allows members of staff in the room "a", and notes whom it was asked about."""

    def __init__(self):
        super().__init__(self._note)
        self.asked = []

    def _note(self, request):
        room = request.resolver_match.kwargs.get("room") if request.resolver_match else None
        self.asked.append((request.user.get_username(), room))
        return request.user.is_staff and room in {None, "a"}


def changing(change):
    """A class of wrappers that change the scope in place."""

    class Changing(Wrapper):
        async def __call__(self, scope, receive, send):
            change(scope)
            await super().__call__(scope, receive, send)

    return Changing


#: As subclasses of Channels' AuthMiddleware do.
Relogged = changing(lambda scope: setattr(scope["user"], "_wrapped", alice))
Moved = changing(lambda scope: scope["url_route"]["kwargs"].update(room="b"))
Replaced = changing(lambda scope: scope["url_route"].update(kwargs={"room": "b"}))
Emptied = changing(lambda scope: scope["session"].flush())
OTHER_HOOKS = made("request", lambda request: None, blocking=False)
#: A wrapper between two layers with the same policy; the status, and how often the policy is asked.
SUBJECTS = {
    "the same": (Wrapper, 101, 1),
    "another user": (lambda app: With(app, user=alice), 403, 2),
    "an equal user": (lambda app: With(app, user=type(boss)(pk=2, username="boss", is_staff=True)), 101, 2),
    "another user in place": (Relogged, 403, 2),
    "an anonymous user": (lambda app: With(app, user=anonymous), 403, 2),
    "another session": (lambda app: With(app, session=SessionStore()), 403, 2),
    "the session, emptied": (Emptied, 101, 2),
    "another route in place": (Moved, 403, 2),
    "another route's arguments in place": (Replaced, 403, 2),
    "another route": (lambda app: With(app, url_route={"args": (), "kwargs": {"room": "b"}}), 403, 2),
}


@pytest.mark.parametrize("name", SUBJECTS)
async def test_a_policy_that_allowed_one_subject_is_asked_again_about_another(name):
    wrap, expected, asked = SUBJECTS[name]
    policy = Notes()
    inner = require(policy)(type("Consumer", (AsyncWebsocketConsumer,), {})).as_asgi()
    app = DenyMiddlewareStack(URLRouter([path("<room>/", require(policy)(wrap(inner)))]))
    user = SimpleLazyObject(lambda: boss) if "place" in name else boss
    bool(user)
    answer = await knock(app, "/a/", user=user, session=SessionStore("a" * 32))
    assert (answer.status, len(policy.asked)) == (expected, asked)


async def test_the_default_policy_is_asked_about_the_arguments_that_a_wrapper_has_replaced():
    policy = Check(lambda request: request.resolver_match.kwargs["room"] == "a")
    hooks = made("request", lambda request: request.resolver_match and None)
    app = URLRouter([path("<room>/", Replaced(accept))])
    assert (await knock(DenyMiddlewareStack(app, default_policy=policy, hooks=hooks), "/a/", user=alice)).status == 403


async def test_a_route_hook_between_two_policies_has_the_object_resolved_anew(settings):
    settings.AUTHENTICATION_BACKENDS = ["tests.support.policies.ByName"]
    hooks, resolved = Hooks(), []
    hooks.on_route(lambda request: request.resolver_match.kwargs.update(room="attic"))

    def room(request):
        resolved.append(request.resolver_match.kwargs["room"])
        return resolved[-1]

    policy = HasPermission("site.lobby", obj=room)
    app = require(policy)(Wrapper(with_hooks(hooks)(require(policy)(accept))))
    answer = await knock(DenyMiddlewareStack(URLRouter([path("<room>/", app)])), "/lobby/", user=alice)
    assert (answer.status, resolved) == (403, ["lobby", "attic"])


ROUTE = {"args": (), "kwargs": {}}


@pytest.mark.parametrize(
    ("wrap", "around"),
    [
        (lambda app: app, lambda app: app),
        (lambda app: URLRouter([path("", app, {"extra": "default"})]), lambda app: app),
        (lambda app: With(app, url_route=ROUTE), lambda app: app),
        (lambda app: app, lambda app: With(app, url_route=ROUTE)),
    ],
)
async def test_what_a_route_hook_writes_reaches_no_other_request(wrap, around):
    hooks, seen = Hooks(), []

    @hooks.on_route
    def note(request):
        seen.append(dict(request.resolver_match.kwargs))
        request.resolver_match.kwargs["room"] = "a"

    site = around(DenyMiddlewareStack(wrap(public(accept)), hooks=hooks))
    assert [(await knock(site, "/")).status for _ in range(3)] == [101] * 3
    assert (seen, ROUTE["kwargs"]) == ([seen[0]] * 3, {})


def sleeping(seconds, ran):
    async def sleep(request):
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            ran.append("cancelled")
            raise
        return True

    return AsyncCheck(sleep)


async def swallow(request):
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    return True


async def test_a_policy_that_takes_too_long_is_cancelled_and_a_503(hurry, ran):
    hangs = sleeping(60, ran)
    for policy in (hangs, ~hangs, hangs | AllowAny(), ~(AllowAny() & hangs)):
        async with no_task_left():
            answer = await ask(policy)
        assert (answer.status, answer.problem["code"], ran.pop(), ran) == (503, "unavailable", "cancelled", [])


@pytest.mark.parametrize("policy", [AsyncCheck(swallow), Check(lambda request: async_to_sync(asyncio.sleep)(60))])
async def test_a_policy_that_makes_something_else_of_its_cancellation_is_a_503(policy, hurry):
    assert await status(policy) == 503


async def test_what_follows_a_policy_that_took_too_long_in_its_thread_is_not_asked(hurry, ran):
    release, ended = threading.Event(), threading.Event()

    def hang(request):
        release.wait(20)
        return True

    last = Check(lambda request: ran.append("asked"))
    assert await status(Check(lambda request: hang(request) and not ended.set()) & AllowAny()) == 503
    app = require(Check(hang))(require(last)(accept))
    assert (await knock(DenyMiddlewareStack(app), "/")).status == 503
    release.set()
    assert await asyncio.to_thread(ended.wait, 20)
    assert (await knock(DenyMiddlewareStack(public(accept)), "/")).status == 101
    assert ran == []


async def test_the_time_of_all_layers_is_one_and_that_of_the_application_is_its_own(settings, ran):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.3}
    app = accept
    for _ in range(4):
        app = Wrapper(require(sleeping(0.1, ran))(app))
    assert (await knock(DenyMiddlewareStack(app), "/")).status == 503

    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 1}  # enough for policies on a busy machine

    async def slow(scope, receive, send):
        await asyncio.sleep(1.1)
        await require(sleeping(0, ran))(accept)(scope, receive, send)

    assert (await knock(DenyMiddlewareStack(slow), "/")).status == 101


async def await_cancelled(request=None):
    """As a fetch that several handshakes share, when the first of them leaves."""
    shared = asyncio.ensure_future(asyncio.sleep(60))
    asyncio.get_running_loop().call_soon(shared.cancel)
    await shared


@pytest.mark.parametrize("error", [asyncio.CancelledError, StopIteration, StopAsyncIteration, SystemExit])
async def test_an_exception_that_is_no_policys_to_raise_is_a_500(error):
    assert await status(Check(raising(error))) == 500
    if error is not SystemExit:
        assert await status(AsyncCheck(raising(error))) == 500


async def test_awaiting_what_something_else_cancelled_is_an_error():
    assert await status(AsyncCheck(await_cancelled)) == 500
    assert (await knock(DenyMiddlewareStack(public(lambda scope, receive, send: await_cancelled())), "/")).status == 500


@pytest.mark.parametrize("how", ["cancelled", "left"])
async def test_a_server_that_cancels_or_a_client_that_leaves_ends_the_policy_and_gets_no_answer(how, ran):
    began, server = asyncio.Event(), Server()

    async def hang(request):
        began.set()
        try:
            await asyncio.sleep(60 if how == "cancelled" else 0.05)
        finally:
            ran.append("ended")
        return True

    async with no_task_left():
        task = server.begin(DenyMiddlewareStack(require(AsyncCheck(hang))(accept)))
        await began.wait()
        server.events.put_nowait(disconnect())
        if how == "cancelled":
            task.cancel()
        await asyncio.wait({task})
    assert (ran, server.sent) == (["ended"], [])


LAYERS = {
    "a guard": lambda policy: require(policy)(accept),
    "a guard inside": lambda policy: Wrapper(require(policy)(accept)),
    "a guard inside hooks": lambda policy: Wrapper(with_hooks(OTHER_HOOKS)(require(policy)(accept))),
    "the default policy": lambda policy: DenyMiddlewareStack(Wrapper(accept), default_policy=policy),
    "the default policy in middleware": lambda policy: DenyMiddlewareStack(Middleware(accept), default_policy=policy),
}


@pytest.mark.parametrize("wrap", LAYERS.values(), ids=LAYERS)
async def test_a_policy_that_waits_for_a_thread_is_not_asked_once_its_client_has_left(wrap, settings, ran):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1}
    asked, release, server = threading.Event(), threading.Event(), Server()
    first = asyncio.ensure_future(status(Check(lambda request: asked.set() or release.wait(20))))
    await until(asked.is_set)
    waiting = server.begin(DenyMiddlewareStack(wrap(Check(lambda request: ran.append("asked")))))
    await until(lambda: get_pool()._waiting)
    server.events.put_nowait(disconnect())
    await until(server.events.empty)
    release.set()
    await asyncio.gather(first, waiting)
    assert (ran, server.sent) == ([], [])
