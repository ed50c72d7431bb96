"""The stack fails closed: whatever it is around, nothing runs and nothing opens without a policy's yes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random

import pytest
from channels.auth import AuthMiddlewareStack
from channels.consumer import AsyncConsumer, SyncConsumer
from channels.exceptions import StopConsumer
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from channels.middleware import BaseMiddleware
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from channels.sessions import CookieMiddleware, SessionMiddlewareStack
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path, re_path
from django.urls.exceptions import Resolver404

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.decorators import login_required, public, require
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated, IsStaff, Policy
from tests.clients import Handshake, fetch, knock, websocket_scope

# Channels' consumers close old database connections before each message.
pytestmark = pytest.mark.django_db

alice = get_user_model()(pk=1, username="alice")
boss = get_user_model()(pk=2, username="boss", is_staff=True)

HTTP_URLS = [path("page/", lambda request: HttpResponse("page"))]
urlpatterns = HTTP_URLS


@contextlib.asynccontextmanager
async def no_task_left():
    """Whatever tasks are begun within are over at its end."""
    before = asyncio.all_tasks()
    yield
    for _ in range(5):  # a task that was cancelled needs a turn of the loop to end
        await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() - before if not task.done()} == set()


# What can stand behind a stack. Each is made with the list that it notes in what of it ran.


def generic(base):
    def make(ran):
        class Consumer(base):
            def connect(self):
                ran.append("connect")
                return super().connect()

        return Consumer

    return make


def raw_async(ran):
    class Consumer(AsyncConsumer):
        async def websocket_connect(self, message):
            ran.append("connect")
            await self.send({"type": "websocket.accept"})

        async def websocket_disconnect(self, message):
            raise StopConsumer

    return Consumer


def raw_sync(ran):
    class Consumer(SyncConsumer):
        def websocket_connect(self, message):
            ran.append("connect")
            self.send({"type": "websocket.accept"})

        def websocket_disconnect(self, message):
            raise StopConsumer

    return Consumer


def function_app(ran):
    async def app(scope, receive, send):
        await receive()
        ran.append("connect")
        await send({"type": "websocket.accept"})
        await receive()

    return app


def object_app(ran):
    class App:
        async def __call__(self, scope, receive, send):
            await function_app(ran)(scope, receive, send)

    return App()


ENDPOINTS = {
    "AsyncWebsocketConsumer": lambda ran: generic(AsyncWebsocketConsumer)(ran).as_asgi(),
    "AsyncJsonWebsocketConsumer": lambda ran: generic(AsyncJsonWebsocketConsumer)(ran).as_asgi(),
    "WebsocketConsumer": lambda ran: generic(WebsocketConsumer)(ran).as_asgi(),
    "JsonWebsocketConsumer": lambda ran: generic(JsonWebsocketConsumer)(ran).as_asgi(),
    "AsyncConsumer": lambda ran: raw_async(ran).as_asgi(),
    "SyncConsumer": lambda ran: raw_sync(ran).as_asgi(),
    "consumer instance": lambda ran: generic(AsyncWebsocketConsumer)(ran)(),
    "function": function_app,
    "object": object_app,
}


# Where it can stand.


class Wrapper:
    """A wrapper that the look-ahead does not know."""

    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        await self.inner(scope, receive, send)


class Middleware(BaseMiddleware):
    async def __call__(self, scope, receive, send):
        return await super().__call__({**scope, "middleware": True}, receive, send)


class Peeks(Wrapper):
    """Takes the connect event itself and hands it on."""

    async def __call__(self, scope, receive, send):
        events = [await receive()]

        async def replay():
            return events.pop() if events else await receive()

        await self.inner(scope, replay, send)


class InTask(Wrapper):
    """Runs its app in another task."""

    async def __call__(self, scope, receive, send):
        async with asyncio.TaskGroup() as group:
            group.create_task(self.inner(scope, receive, send))


class OwnRouter(URLRouter):
    async def __call__(self, scope, receive, send):
        await super().__call__(scope, receive, send)


def with_wraps(inner):
    @functools.wraps(inner)
    async def wrapper(scope, receive, send):
        await inner(scope, receive, send)

    return wrapper


def without_signature(inner):
    async def wrapper(*args):
        return await inner(*args)

    return wrapper


def routed(inner):
    return URLRouter([path("", inner)])


PLACES = {
    "bare": lambda app: app,
    "URLRouter": routed,
    "ProtocolTypeRouter": lambda app: ProtocolTypeRouter({"websocket": routed(app)}),
    "AuthMiddlewareStack": AuthMiddlewareStack,
    "CookieMiddleware": CookieMiddleware,
    "OriginValidator": lambda app: OriginValidator(app, ["*"]),
    "class": Wrapper,
    "class between routers": lambda app: routed(Wrapper(routed(app))),
    "BaseMiddleware": Middleware,
    "function": without_signature,
    "function with wraps": with_wraps,
    "partial": lambda app: functools.partial(Wrapper.__call__, Wrapper(app)),
    "subclass of URLRouter": lambda app: OwnRouter([path("", app)]),
    "takes the connect event": Peeks,
    "runs it in a task": InTask,
    "nested stack": DenyMiddlewareStack,
    "nested stack behind a wrapper": lambda app: Wrapper(DenyMiddlewareStack(Wrapper(app))),
}


@pytest.fixture(params=ENDPOINTS)
def endpoint(request):
    return ENDPOINTS[request.param]


@pytest.fixture(params=PLACES)
def place(request):
    return PLACES[request.param]


# Undecorated endpoints.


async def test_without_a_policy_the_door_is_locked(endpoint, place):
    ran = []
    async with no_task_left():
        answer = await knock(DenyMiddlewareStack(place(endpoint(ran))), "/")
    assert answer.status == 401
    assert ran == []


async def test_the_default_policy_of_the_stack_opens_it(endpoint, place):
    ran = []
    async with no_task_left():
        answer = await knock(
            DenyMiddlewareStack(place(endpoint(ran)), default_policy=IsStaff()), "/", user=boss
        )
    assert answer.status == 101
    assert ran == ["connect"]


@pytest.mark.parametrize("wrap", [routed, Wrapper])
async def test_the_default_policy_of_the_site_stands_where_the_stack_has_none(wrap, settings):
    settings.CHANNELS_WSDENY = {"DEFAULT_POLICY": "channels_wsdeny.policies.DenyAll"}
    ran = []
    answer = await knock(DenyMiddlewareStack(wrap(function_app(ran))), "/", user=boss)
    assert answer.status == 403
    assert ran == []


@pytest.mark.parametrize("wrap", [routed, Wrapper])
async def test_the_default_policy_of_the_stack_comes_before_that_of_the_site(wrap, settings):
    settings.CHANNELS_WSDENY = {"DEFAULT_POLICY": DenyAll()}
    app = DenyMiddlewareStack(wrap(function_app([])), default_policy=IsAuthenticated())
    assert (await knock(app, "/", user=alice)).status == 101


@pytest.mark.parametrize("wrap", [routed, Wrapper])
@pytest.mark.parametrize("policy", ["no.such.Policy", "channels_wsdeny.policies.conf", None, 42])
async def test_a_default_policy_of_the_site_that_is_none_is_a_500(wrap, policy, settings):
    settings.CHANNELS_WSDENY = {"DEFAULT_POLICY": policy}
    ran = []
    answer = await knock(DenyMiddlewareStack(wrap(function_app(ran))), "/", user=boss)
    assert answer.status == 500
    assert ran == []


@pytest.mark.parametrize("wrap", [lambda app: app, routed, Wrapper, InTask])
async def test_an_app_that_accepts_without_asking_for_an_event_is_stopped_at_the_accept(wrap):
    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "secret"})

    async with no_task_left():
        answer = await knock(DenyMiddlewareStack(wrap(app)), "/")
    assert answer.status == 401


async def test_an_app_that_shrugs_off_its_denial_is_denied_all_the_same():
    async def app(scope, receive, send):
        for message in ({"type": "websocket.accept"}, {"type": "websocket.send", "text": "secret"}) * 2:
            try:
                await send(message)
            except OSError:
                pass

    handshake = Handshake(DenyMiddlewareStack(app), websocket_scope("/"))
    assert (await handshake.connect()).status == 401
    assert handshake.communicator.output_queue.empty()


async def test_an_accept_from_a_task_of_the_app_is_stopped():
    tasks = []

    async def app(scope, receive, send):
        tasks.append(asyncio.ensure_future(send({"type": "websocket.accept"})))
        await asyncio.wait(tasks)

    assert (await knock(DenyMiddlewareStack(app), "/")).status == 401


async def test_an_unrouted_path_is_a_404_and_no_error(caplog):
    app = DenyMiddlewareStack(ProtocolTypeRouter({"websocket": URLRouter([path("a/", function_app([]))])}))
    answer = await knock(app, "/b/")
    assert answer.status == 404
    assert answer.problem["code"] == "not_found"
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("wrap", [Wrapper, lambda app: OwnRouter([re_path("", app)])])
async def test_an_unrouted_path_behind_an_unknown_wrapper_is_a_404_and_no_error(wrap, caplog):
    answer = await knock(DenyMiddlewareStack(wrap(URLRouter([path("a/", function_app([]))]))), "/b/")
    assert answer.status == 404
    assert [record for record in caplog.records if record.exc_info] == []


async def test_a_site_without_websockets_is_a_404():
    assert (await knock(DenyMiddlewareStack(ProtocolTypeRouter({})), "/")).status == 404


# Public endpoints.


async def test_a_public_endpoint_is_open(endpoint):
    ran = []
    app = endpoint(ran)
    assert (await knock(DenyMiddlewareStack(public(app)), "/")).status == 101
    assert ran == ["connect"]


@pytest.mark.parametrize("place", [place for place in PLACES.values() if place is not Peeks])
async def test_a_public_consumer_is_open_wherever_it_stands(place):
    ran = []
    consumer = public(generic(AsyncWebsocketConsumer)(ran))
    async with no_task_left():
        assert (await knock(DenyMiddlewareStack(place(consumer.as_asgi())), "/")).status == 101
    assert ran == ["connect"]


@pytest.mark.parametrize("place", [routed, Wrapper])
async def test_a_public_wrapper_opens_what_is_in_it(place):
    assert (await knock(DenyMiddlewareStack(public(place(function_app([])))), "/")).status == 101


async def test_a_public_router_leaves_the_policies_within_it_in_force():
    ran = []
    consumer = login_required(generic(AsyncWebsocketConsumer)(ran))
    app = DenyMiddlewareStack(public(URLRouter([path("", Wrapper(consumer.as_asgi()))])))
    assert (await knock(app, "/")).status == 401
    assert ran == []


# Policies on a subtree.


def subtree(policy, wrap=lambda app: app):
    """A site where ``/staff/`` is behind `policy`; the list is what ran."""
    ran = []
    inner = URLRouter([path("room/<int:pk>/", wrap(function_app(ran)))])
    routes = [path("staff/", require(policy)(inner)), path("<path:rest>", public(function_app(ran)))]
    return DenyMiddlewareStack(URLRouter(routes)), ran


@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper])
async def test_a_decorated_router_still_routes(wrap):
    app, ran = subtree(IsStaff(), wrap)
    assert (await knock(app, "/staff/room/1/", user=boss)).status == 101
    assert ran == ["connect"]


@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper])
async def test_a_decorated_router_holds_for_all_that_is_in_it(wrap):
    app, ran = subtree(IsStaff(), wrap)
    assert (await knock(app, "/staff/room/1/", user=alice)).status == 403
    assert ran == []


async def test_a_decorated_router_without_a_match_leaves_the_next_route_its_turn():
    app, ran = subtree(IsStaff())
    assert (await knock(app, "/staff/lobby/")).status == 101
    assert ran == ["connect"]


@pytest.mark.parametrize("outer", [lambda app: app, lambda app: DenyMiddlewareStack(Wrapper(app))])
async def test_a_decorated_router_without_a_match_falls_through_without_a_look_ahead(outer):
    inner = login_required(URLRouter([path("a/", function_app([]))]))
    app = outer(URLRouter([path("", inner), path("b/", public(function_app([])))]))
    assert (await knock(app, "/b/")).status == 101


async def test_policies_of_routers_and_consumers_must_all_pass():
    consumer = require(IsStaff())(generic(AsyncWebsocketConsumer)([]))
    app = DenyMiddlewareStack(login_required(URLRouter([path("", consumer.as_asgi())])))
    statuses = [(await knock(app, "/", user=user)).status for user in (alice, boss)]
    assert [(await knock(app, "/")).status, *statuses] == [401, 403, 101]


# Nested stacks.


@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper, Middleware, Peeks])
@pytest.mark.parametrize("between", [lambda app: app, Wrapper, Peeks])
async def test_the_nearest_default_policy_counts(between, wrap):
    ran = []
    inner = DenyMiddlewareStack(wrap(function_app(ran)), default_policy=IsStaff())
    app = DenyMiddlewareStack(between(inner), default_policy=AllowAny())
    async with no_task_left():
        assert (await knock(app, "/", user=alice)).status == 403
    assert ran == []
    assert (await knock(app, "/", user=boss)).status == 101


@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper])
@pytest.mark.parametrize("between", [lambda app: app, Wrapper])
async def test_a_nested_stack_may_open_what_the_outer_one_locks(between, wrap):
    inner = DenyMiddlewareStack(wrap(function_app([])), default_policy=AllowAny())
    assert (await knock(DenyMiddlewareStack(between(inner)), "/")).status == 101


@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper])
@pytest.mark.parametrize("between", [lambda app: app, Wrapper])
async def test_a_nested_stack_without_a_default_policy_has_that_of_the_outer_one(between, wrap):
    ran = []
    inner = DenyMiddlewareStack(wrap(function_app(ran)))
    app = DenyMiddlewareStack(between(inner), default_policy=IsStaff())
    assert (await knock(app, "/", user=alice)).status == 403
    assert ran == []


@pytest.mark.parametrize("outer", [lambda app: app, DenyMiddlewareStack])
@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper])
@pytest.mark.parametrize("between", [lambda app: app, Wrapper])
@pytest.mark.parametrize("policy", [AllowAny(), IsAuthenticated()])
async def test_a_policy_outside_a_stack_does_not_switch_its_default_policy_off(policy, between, wrap, outer):
    ran = []
    inner = DenyMiddlewareStack(wrap(function_app(ran)), default_policy=IsStaff())
    answer = await knock(outer(require(policy)(between(inner))), "/", user=alice)
    assert answer.status == 403
    assert ran == []


async def test_a_stack_may_stand_in_a_path():
    inner = DenyMiddlewareStack(URLRouter([path("<slug>/", function_app([]))]), default_policy=AllowAny())
    app = DenyMiddlewareStack(URLRouter([path("rooms/", inner)]))
    assert (await knock(app, "/rooms/lobby/")).status == 101


async def test_a_subclass_of_the_stack_runs_what_it_overrides():
    class Closed(DenyMiddlewareStack):
        async def __call__(self, scope, receive, send):
            await send({"type": "websocket.close"})

    ran = []
    app = DenyMiddlewareStack(
        URLRouter([path("", Closed(public(function_app(ran))))]), default_policy=AllowAny()
    )
    assert (await knock(app, "/")).status == 403
    assert ran == []


# Users that wrappers further in bring.


class Token(Wrapper):
    """Puts its own user into the scope."""

    def __init__(self, inner, user):
        super().__init__(inner)
        self.user = user

    async def __call__(self, scope, receive, send):
        await self.inner({**scope, "user": self.user}, receive, send)


async def test_a_decorated_consumer_is_asked_about_the_user_that_a_wrapper_brought():
    ran = []
    consumer = require(IsStaff())(generic(AsyncWebsocketConsumer)(ran))
    app = DenyMiddlewareStack(Token(consumer.as_asgi(), alice))
    assert (await knock(app, "/", user=boss)).status == 403
    assert ran == []
    assert (await knock(DenyMiddlewareStack(Token(consumer.as_asgi(), boss)), "/", user=alice)).status == 101


async def test_a_policy_that_passed_for_one_user_is_asked_again_for_another():
    staff, ran = IsStaff(), []
    consumer = require(staff)(generic(AsyncWebsocketConsumer)(ran))
    app = DenyMiddlewareStack(require(staff)(Token(consumer.as_asgi(), alice)))
    assert (await knock(app, "/", user=boss)).status == 403
    assert ran == []


async def test_a_default_policy_that_passed_for_one_user_is_asked_again_for_another():
    ran = []
    inner = DenyMiddlewareStack(generic(AsyncWebsocketConsumer)(ran).as_asgi())
    app = DenyMiddlewareStack(Peeks(Token(inner, alice)), default_policy=IsStaff())
    assert (await knock(app, "/", user=boss)).status == 403
    assert ran == []


async def test_a_stack_within_a_wrapper_sees_the_user_that_it_brought():
    app = DenyMiddlewareStack(Token(DenyMiddlewareStack(function_app([]), default_policy=IsStaff()), boss))
    assert (await knock(app, "/")).status == 101


async def test_a_user_of_none_in_the_scope_is_no_user(settings):
    cookie = f"{settings.SESSION_COOKIE_NAME}=".encode()
    app = DenyMiddlewareStack(function_app([]))
    assert (await knock(app, "/", user=None)).status == 401
    assert (await knock(app, "/", user=None, headers=[(b"cookie", cookie)])).status == 401


# Channels' own wrappers.


def whoami(ran):
    class Consumer(AsyncWebsocketConsumer):
        async def connect(self):
            ran.append((self.scope["user"].username, self.scope["session"].session_key))
            await self.accept()

    return Consumer.as_asgi()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "build",
    [
        DenyMiddlewareStack,
        lambda app: DenyMiddlewareStack(AuthMiddlewareStack(app)),
        lambda app: DenyMiddlewareStack(AuthMiddlewareStack(URLRouter([path("", app)]))),
        lambda app: AuthMiddlewareStack(DenyMiddlewareStack(app)),
        lambda app: DenyMiddlewareStack(Wrapper(AuthMiddlewareStack(app))),
        lambda app: DenyMiddlewareStack(AuthMiddlewareStack(Wrapper(app))),
        lambda app: AuthMiddlewareStack(DenyMiddlewareStack(Wrapper(app))),
        lambda app: SessionMiddlewareStack(DenyMiddlewareStack(app)),
        lambda app: DenyMiddlewareStack(SessionMiddlewareStack(app)),
    ],
)
async def test_the_stack_works_inside_and_around_channels_own(build, headers_of, sessions):
    ran = []
    app = build(whoami(ran))
    assert (await knock(app, "/")).status == 401
    assert (await knock(app, "/", headers=headers_of("alice"))).status == 101
    assert ran == [("alice", sessions["alice"].session_key)]


async def test_the_stack_leaves_an_origin_validator_its_say():
    app = DenyMiddlewareStack(
        OriginValidator(function_app([]), ["https://example.com"]), default_policy=AllowAny()
    )
    assert (await knock(app, "/", headers=[(b"origin", b"https://evil.example")])).status == 403
    assert (await knock(app, "/", headers=[(b"origin", b"https://example.com")])).status == 101


# Everything but websockets.


@pytest.mark.parametrize("kind", ["lifespan", "channel", "webtransport"])
async def test_other_scopes_pass_through_untouched(kind):
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    given = ({"type": kind}, object(), object())
    await DenyMiddlewareStack(app)(*given)
    assert [a is b for a, b in zip(seen[0], given, strict=True)] == [True, True, True]


@pytest.mark.urls(__name__)
async def test_http_passes_through_to_django():
    app = DenyMiddlewareStack(ProtocolTypeRouter({"http": get_asgi_application()}))
    assert (await fetch(app, "/page/")).body == b"page"


@pytest.mark.urls(__name__)
async def test_django_as_a_whole_may_be_decorated():
    app = require(IsStaff())(get_asgi_application())
    assert (await fetch(app, "/page/")).status == 401
    assert (await fetch(app, "/page/", user=alice)).status == 403
    assert (await fetch(app, "/page/", user=boss)).body == b"page"


# Arguments.


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"default_policy": IsStaff}, TypeError, "IsAuthenticated\\(\\)"),
        ({"default_policy": "IsStaff"}, TypeError, "default_policy"),
        ({"deny_with": "silence"}, ValueError, "silence"),
    ],
)
def test_arguments_that_cannot_be_are_told(kwargs, error, message):
    with pytest.raises(error, match=message):
        DenyMiddlewareStack(function_app([]), **kwargs)


def test_what_is_no_app_is_told():
    with pytest.raises(TypeError, match=r"ASGI application, found \['a'\]"):
        DenyMiddlewareStack(["a"])


def test_a_stack_prints_as_what_it_is_around():
    app = function_app([])
    assert repr(DenyMiddlewareStack(app)) == f"<DenyMiddlewareStack around {app!r}>"


# Applications by chance: whatever they do, a denial is one whole answer, and nobody else gets in.


class Says(Policy):
    """Answers `answer` after some turns of the loop, and may change the session on the way."""

    def __init__(self, answer, turns, *, remember):
        self.answer, self.turns, self.remember = answer, turns, remember

    async def acheck(self, request):
        if self.remember:
            request.session["seen"] = True
        for _ in range(self.turns):
            await asyncio.sleep(0)
        return self.answer


class SaysInThread(Says):
    acheck = Policy.acheck

    def check(self, request):
        if self.remember:
            request.session["seen"] = True
        return self.answer


MESSAGES = [
    {"type": "websocket.accept"},
    {"type": "websocket.close"},
    {"type": "websocket.close", "code": 4404, "reason": "No such room."},
    {"type": "websocket.send", "text": "secret"},
    {"type": "websocket.http.response.start", "status": 403, "headers": []},
    {"type": "websocket.http.response.body", "body": b"no"},
    {"type": "websocket.hello"},
]
ERRORS = [lambda: Resolver404({}), lambda: Deny(402), ValueError, asyncio.CancelledError]


class Chance:
    """A site by chance: an app that does whatever, in wrappers, behind a policy; and a server for it."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.allowed = self.chance(0.5)
        self.patience = self.random.randrange(6)
        self.client_left = False
        self.began = False
        self.sent = []

    def chance(self, probability):
        return self.random.random() < probability

    def site(self):
        kind = SaysInThread if self.chance(0.3) else Says
        policy = kind(self.allowed, self.random.randrange(3), remember=self.chance(0.3))
        app = self.wrapped(self.app)
        if self.chance(0.3):
            return DenyMiddlewareStack(self.wrapped(require(policy)(app)))
        if self.chance(0.3):
            return DenyMiddlewareStack(self.wrapped(DenyMiddlewareStack(app, default_policy=policy)))
        return DenyMiddlewareStack(app, default_policy=policy)

    def wrapped(self, app):
        for _ in range(self.random.randrange(3)):
            app = self.random.choice([Wrapper, Middleware, Peeks, InTask, routed, with_wraps])(app)
        return app

    async def app(self, scope, receive, send):
        tasks = []
        try:
            for _ in range(self.random.randrange(7)):
                step = self.step(scope, receive, send)
                if self.chance(0.2):
                    tasks.append(asyncio.ensure_future(step))
                elif self.chance(0.2):
                    with contextlib.suppress(Exception):
                        await step
                elif self.chance(0.1):
                    with contextlib.suppress(BaseException):
                        await step
                else:
                    await step
        finally:
            for task in tasks:
                if self.chance(0.5):
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def step(self, scope, receive, send):
        what = self.random.randrange(10)
        if what < 3:
            await receive()
        elif what == 3:
            scope["session"]["changed"] = True
        elif what == 4:
            raise self.random.choice(ERRORS)()
        elif what == 5:
            await asyncio.sleep(0)
        else:
            await send(dict(self.random.choice(MESSAGES)))

    async def receive(self):
        if not self.began:
            self.began = True
            return {"type": "websocket.connect"}
        for _ in range(self.patience):
            await asyncio.sleep(0)
        self.client_left = True
        return {"type": "websocket.disconnect", "code": 1001}

    async def send(self, message):
        self.sent.append(message["type"])
        if self.chance(0.3):
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(300))
async def test_whatever_an_app_does_nobody_gets_in_and_everybody_gets_an_answer(seed):
    chance = Chance(seed)
    scope = websocket_scope("/", session=SessionStore())
    async with no_task_left():
        handshake = asyncio.wait_for(chance.site()(scope, chance.receive, chance.send), 10)
        (error,) = await asyncio.gather(handshake, return_exceptions=True)
    if chance.sent[:1] == ["websocket.accept"]:
        assert chance.allowed
        return
    assert error is None
    if chance.sent or not chance.client_left:
        assert chance.sent == ["websocket.http.response.start", "websocket.http.response.body"]


@pytest.mark.parametrize("seed", range(300))
async def test_whatever_an_app_does_it_ends_when_the_server_cancels_it(seed):
    chance = Chance(seed)
    scope = websocket_scope("/", session=SessionStore())
    async with no_task_left():
        task = asyncio.ensure_future(chance.site()(scope, chance.receive, chance.send))
        for _ in range(seed % 20):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=10)
    assert done == {task}
    assert chance.allowed or "websocket.accept" not in chance.sent
    task.cancelled() or task.exception()
