"""Layers within layers: stacks, wrappers that change the scope, and consumers that enter other endpoints."""

import asyncio

import pytest
from channels.auth import AuthMiddleware
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import URLRouter
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import AnonymousUser
from django.urls import path
from django.urls.exceptions import Resolver404

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.authentication import BearerAuthentication, SessionAuthentication
from channels_wsdeny.decorators import login_required, permission_required, public, require, with_hooks
from channels_wsdeny.policies import AllowAny, HasPermission, IsAuthenticated, IsStaff, MaxConnections, Throttle
from tests.support.authentication import ByHeader
from tests.support.caches import cache_settings
from tests.support.clients import Handshake, knock, opened, websocket_scope
from tests.support.policies import AsyncCheck, Check, alice, boss, raising
from tests.support.policies import accept as accept_all
from tests.support.scripted import Script, accept, close, text
from tests.support.sockets import Server, consumer, no_task_left, open_to_all
from tests.support.wrappers import Function, Middleware, Peeks, Wrapper

pytestmark = pytest.mark.django_db


def staff_only(wrap=lambda app: app):
    return DenyMiddlewareStack(wrap(accept_all), default_policy=IsStaff())


WRAPS = [lambda app: app, Wrapper, Middleware, Peeks]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("between", WRAPS)
async def test_the_nearest_default_policy_counts(between, wrap):
    async def status(site, user=None):
        async with no_task_left():
            return (await knock(site, "/", **({} if user is None else {"user": user}))).status

    inner_counts = open_to_all(between(staff_only(wrap)))
    assert [await status(inner_counts, user) for user in (alice, boss)] == [403, 101]
    outer_counts = DenyMiddlewareStack(between(DenyMiddlewareStack(wrap(accept_all))), default_policy=IsStaff())
    assert [await status(outer_counts, user) for user in (alice, boss)] == [403, 101]
    if between is not Peeks:  # It takes the connect event, for which the outer one is asked.
        assert await status(DenyMiddlewareStack(between(open_to_all(wrap(accept_all))))) == 101
    for policy in (AllowAny(), IsAuthenticated()):  # A policy outside does not switch it off.
        assert await status(require(policy)(between(staff_only(wrap))), alice) == 403


# Users and routes that wrappers bring.


class ByToken(AuthMiddleware):
    """As sites subclass Channels' own: it sets the user inside the lazy one."""

    async def resolve_scope(self, scope):
        scope["user"]._wrapped = boss if (b"token", b"boss") in scope["headers"] else AnonymousUser()


class InPlace(Middleware):
    async def __call__(self, scope, receive, send):
        scope["url_route"]["kwargs"]["room"] = "cellar"
        return await super().__call__(scope, receive, send)


@pytest.mark.parametrize("authorization", [[], [(b"authorization", b"Token boss")]])
@pytest.mark.parametrize(
    "authentication",
    [None, [BearerAuthentication(lambda token: None)], [ByHeader({}, "x-user"), SessionAuthentication()]],
    ids=["session", "bearer", "others"],
)
async def test_subclasses_of_channels_own_auth_middleware_set_the_user_as_ever(authentication, authorization):
    """Where no authentication class has found one."""
    for app in (require(IsStaff())(consumer()).as_asgi(), accept_all):
        site = DenyMiddlewareStack(ByToken(app), default_policy=IsStaff(), authentication=authentication)
        assert (await knock(site, "/", headers=authorization)).status == 401
        assert (await knock(site, "/", headers=[(b"token", b"boss"), *authorization])).status == 101


@pytest.mark.parametrize("is_hooked", [False, True])
async def test_what_is_denied_after_the_application_around_it_has_accepted_is_closed(is_hooked, hooks):
    asked, accepted, ended, told = asyncio.Event(), asyncio.Event(), asyncio.Event(), []

    async def waits(request):
        asked.set()
        await accepted.wait()
        return False

    if is_hooked:
        hooks.on_response(lambda request, response: None)
    inner = with_hooks(hooks)(require(AsyncCheck(waits))(consumer())).as_asgi()

    async def around(scope, receive, send):
        part = asyncio.ensure_future(inner(scope, receive, lambda message: note(message)))
        await receive()
        await asked.wait()
        await send({"type": "websocket.accept"})
        accepted.set()
        await part
        ended.set()
        await receive()

    async def note(message):
        told.append(message)

    async with no_task_left(), opened(open_to_all(around)):
        await ended.wait()
    assert told == [{"type": "websocket.close", "code": 4403, "reason": "permission_denied"}]


async def test_the_default_policy_is_asked_where_a_base_middleware_calls_what_it_wraps():
    rooms = AsyncCheck(lambda request: request.resolver_match.kwargs["room"] != "cellar" and request.user is boss)
    routes = [path("<room>/", Middleware(Script(accept()), user=boss)), path("x/<room>/", InPlace(accept_all))]
    for more in ([], [path("<path:rest>", public(accept_all))]):
        site = DenyMiddlewareStack(URLRouter([*routes, *more]), default_policy=rooms)
        statuses = [(await knock(site, where, user=alice)).status for where in ("/attic/", "/cellar/", "/x/attic/")]
        assert statuses == [101, 403, 403]


class Counting(Middleware):
    """Lets one in, and no more."""

    __slots__ = ("limit",)

    def __init__(self, inner):
        super().__init__(inner)
        self.count, self.limit = 0, 1

    async def __call__(self, scope, receive, send):
        self.count += 1
        if self.count > self.limit:
            await send({"type": "websocket.close"})
        else:
            await super().__call__(scope, receive, send)


async def test_what_a_base_middleware_keeps_is_kept_from_one_handshake_to_the_next():
    counting = Counting(public(accept_all))
    site = DenyMiddlewareStack(counting)
    assert [(await knock(site, "/")).status for _ in range(3)] == [101, 403, 403]
    counting.count = 0
    assert (await knock(site, "/")).status == 101


class Registering(type):
    def __init__(cls, *arguments, prefix):
        super().__init__(*arguments)
        cls.prefix = prefix

    def __new__(mcs, *arguments, prefix):
        return super().__new__(mcs, *arguments)


class Named(Middleware):
    def __init_subclass__(cls, *, name):
        cls.name = name


class WithName(Named, name="a"): ...


class WithPrefix(Middleware, metaclass=Registering, prefix="a"): ...


@pytest.mark.parametrize("wrapper", [WithName, WithPrefix])
async def test_a_base_middleware_may_be_of_a_class_that_says_what_subclasses_must_give(wrapper):
    assert (await knock(DenyMiddlewareStack(wrapper(public(accept_all))), "/")).status == 101


# A router takes a Resolver404 for "try the next route".


def unresolved(*args):
    raise Resolver404({"path": "secret"})


async def unresolved_async(*args):
    unresolved()


def refused(policy):
    return require(policy)(consumer()).as_asgi()


FIRST = {
    "policy": lambda: refused(Check(unresolved)),
    "async policy": lambda: refused(AsyncCheck(unresolved)),
    "negated policy": lambda: refused(~AsyncCheck(unresolved)),
    "resolver": lambda: refused(HasPermission("a.b", obj=unresolved)),
    "async resolver": lambda: refused(HasPermission("a.b", obj=unresolved_async)),
    "connect": lambda: login_required(consumer(unresolved)).as_asgi(),
    "synchronous connect": lambda: login_required(consumer(unresolved, WebsocketConsumer)).as_asgi(),
    "application": lambda: login_required(Function(unresolved_async)),
    "policy of a router": lambda: require(Check(unresolved))(URLRouter([path("", accept_all)])),
}
ROUTERS = {
    "stack": lambda routes: DenyMiddlewareStack(URLRouter(routes)),
    "nested routers": lambda routes: DenyMiddlewareStack(URLRouter([path("", URLRouter(routes))])),
    "unknown wrapper": lambda routes: DenyMiddlewareStack(Wrapper(URLRouter(routes))),
    "middleware": lambda routes: DenyMiddlewareStack(Middleware(URLRouter(routes))),
    "nested stack": lambda routes: DenyMiddlewareStack(Wrapper(DenyMiddlewareStack(URLRouter(routes)))),
    "no stack": URLRouter,
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
@pytest.mark.parametrize("router", ROUTERS.values(), ids=ROUTERS)
async def test_a_denial_by_resolver404_does_not_reach_the_next_route(first, router):
    next_route = Script(accept())
    answer = await knock(router([path("room/", first()), path("<slug>/", public(next_route))]), "/room/", user=alice)
    assert (answer.status, next_route.scopes, b"secret" in answer.body) == (404, [], False)


async def test_after_an_answer_a_resolver404_opens_no_further_route():
    async def closes(self):
        await self.close()
        unresolved()

    async def accepts(self):
        await self.accept()
        unresolved()

    for first, expected in ((consumer(closes), [403, 0]), (public(consumer(accepts)), [101, 1])):
        router = URLRouter([path("room/", first.as_asgi()), path("<slug>/", public(Script(accept())))])
        handshake = Handshake(DenyMiddlewareStack(Wrapper(router)), websocket_scope("/room/", user=alice))
        answer = await handshake.connect()
        await handshake.end()
        assert [answer.status, handshake.communicator.output_queue.qsize()] == expected


# Streams: what an admitted consumer enters by itself.


class ByObject(BaseBackend):
    """Grants the rooms that the user carries along."""

    def has_perm(self, user_obj, perm, obj=None):
        return perm == "view" and obj in user_obj.granted


@pytest.fixture
def guest(settings):
    """A user who may see the rooms 1 and 2."""
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.ByObject"]
    user = get_user_model()(pk=7, username="guest")
    user.granted = {1, 2}
    return user


async def streams(app, *entered, user=alice, before_accept=False):
    """What happens on streams that a public consumer opens on `app`: for each, the path and its scope."""
    happened = []

    async def open_all(self):
        if not before_accept:
            await self.accept()
        for values in entered:

            async def send(message):
                happened.append(" ".join(str(value) for value in list(message.values())[:3]))

            own = {key: value for key, value in self.scope.items() if key not in {"url_route", "path_remaining"}}
            task = asyncio.ensure_future(app({**own, **values}, Server().receive, send))
            while not (task.done() or len(happened) > entered.index(values)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
        if before_accept:
            await self.accept()

    async with no_task_left():
        site = DenyMiddlewareStack(public(consumer(open_all)).as_asgi())
        assert (await knock(site, "/", user=user)).status == 101
    return happened


POLICIES = {
    "allows": (AllowAny(), "websocket.accept None"),
    "user": (IsAuthenticated(), "websocket.accept None"),
    "staff": (IsStaff(), "websocket.close 4403 permission_denied"),
    "deny": (Check(raising(lambda: Deny(418, code="teapot"))), "websocket.close 4418 teapot"),
    "detail": (Check(raising(lambda: Deny(418, "Short and stout."))), "websocket.close 4418 Short and stout."),
    "unresolved": (AsyncCheck(unresolved), "websocket.close 4404 not_found"),
    "error": (Check(raising(ZeroDivisionError)), "websocket.close 4500 server_error"),
}


@pytest.mark.parametrize("before_accept", [False, True])
@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
@pytest.mark.parametrize(("policy", "expected"), POLICIES.values(), ids=POLICIES)
async def test_a_denied_stream_is_closed_and_not_the_socket(policy, expected, base, before_accept):
    ran = []
    stream = require(policy)(consumer(lambda self: ran.append(self) or self.accept(), base)).as_asgi()
    assert await streams(stream, {"path": "/a"}, before_accept=before_accept) == [expected]
    assert bool(ran) is ("accept" in expected)


async def test_a_stream_that_is_denied_after_the_accept_but_asked_before_is_closed_alone():
    asked, may, server, tasks = asyncio.Event(), asyncio.Event(), Server(), []

    async def wait(request):
        asked.set()
        await may.wait()
        return False

    async def connect(self):
        stream = require(AsyncCheck(wait))(consumer(lambda self: self.accept())).as_asgi()
        own = {key: value for key, value in self.scope.items() if key not in {"url_route", "path_remaining"}}
        tasks.append(asyncio.ensure_future(server.run_scope(stream, own)))
        await asked.wait()
        await self.accept()

    async with opened(DenyMiddlewareStack(public(consumer(connect)).as_asgi()), user=alice) as handshake:
        may.set()
        await tasks[0]
        assert (server.kinds, server.sent[0]["code"]) == (["websocket.close"], 4403)
        assert handshake.communicator.output_queue.empty()


PLACES = {
    "consumer": lambda child, hooks: with_hooks(hooks)(child).as_asgi(),
    "stack": lambda child, hooks: DenyMiddlewareStack(child.as_asgi(), hooks=hooks),
    "stack around middleware": lambda child, hooks: DenyMiddlewareStack(Middleware(child.as_asgi()), hooks=hooks),
}


@pytest.mark.parametrize("before_accept", [False, True])
@pytest.mark.parametrize("kind", ["request", "route"])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
async def test_a_hook_that_denies_closes_the_stream(place, kind, before_accept, hooks):
    hooks.register(lambda request: Deny(418, code="teapot"), kind)
    app = place(public(consumer(lambda self: self.accept())), hooks)
    assert await streams(app, {"path": "/a"}, before_accept=before_accept) == ["websocket.close 4418 teapot"]


@pytest.mark.parametrize(
    "wrap", [lambda app: app, lambda app: public(Middleware(app)), lambda app: public(Function(app))]
)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
async def test_route_hooks_that_have_run_for_the_handshake_run_for_the_routes_of_streams(place, wrap, hooks, settings):
    @hooks.on_route
    def lock(request):
        return Deny(404) if request.resolver_match.kwargs.get("room") == "secret" else None

    settings.CHANNELS_WSDENY = {"HOOKS": [hooks]}  # for the handshake
    room = public(consumer(lambda self: self.accept()))
    inside = wrap(URLRouter([path("<room>/", place(room, hooks))]))
    around = DenyMiddlewareStack(wrap(URLRouter([path("<room>/", room.as_asgi())])), hooks=hooks)
    for app in (inside, around):
        happened = await streams(app, {"path": "/lobby/"}, {"path": "/secret/"})
        assert happened == ["websocket.accept None", "websocket.close 4404 not_found"]


@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper, Middleware])
async def test_a_stack_entered_for_a_stream_asks_its_default_policy_or_that_of_the_site(wrap):
    for app in (Script(accept()), Function(lambda scope, receive, send: send(accept()))):
        asked = ((IsStaff(), alice, "4403 permission_denied"), (None, AnonymousUser(), "4401 not_authenticated"))
        for default, user, closed in asked:
            site = DenyMiddlewareStack(wrap(app), default_policy=default)
            assert await streams(site, {"path": "/a"}, user=user) == [f"websocket.close {closed}"]
    early = Function(lambda scope, receive, send: send(text("secret")))
    site = DenyMiddlewareStack(wrap(early), default_policy=IsStaff())
    assert await streams(site, {"path": "/a"}) == ["websocket.close 4403 permission_denied"]
    nowhere = open_to_all(Middleware(URLRouter([path("room/", accept_all)])))
    assert await streams(nowhere, {"path": "/a"}) == ["websocket.close 4404 not_found"]


@pytest.mark.parametrize("wrap", [lambda app: app, DenyMiddlewareStack, Wrapper])
async def test_each_stream_is_asked_about_its_own_user_and_object_each_time(wrap, guest):
    opened = []

    def connect(self):
        opened.append((self.scope["wsdeny"].obj, self.scope["wsdeny"].request.resolver_match.kwargs["pk"]))
        return self.accept()

    room = permission_required("view", obj=lambda request: request.resolver_match.kwargs["pk"])(consumer(connect))
    rooms = wrap(URLRouter([path("rooms/<int:pk>/", room.as_asgi())]))
    rows = [{"path": f"/rooms/{pk}/"} for pk in (1, 3, 2)] + [{"path": "/rooms/1/", "user": AnonymousUser()}]
    happened = [" ".join(message.split()[:2]) for message in await streams(rooms, *rows, user=guest)]
    opening = "websocket.accept None"
    assert happened == [opening, "websocket.close 4403", opening, "websocket.close 4401"]
    assert opened == [(1, 1), (2, 2)]


@pytest.mark.parametrize(("policy", "second"), [(MaxConnections(1), "accept"), (Throttle("1/day"), "close")])
async def test_each_stream_counts_and_holds_its_slot_to_its_end(policy, second, settings):
    settings.CACHES = cache_settings("locmem")
    stream = require(policy & policy)(consumer()).as_asgi()
    happened = await streams(stream, {"path": "/a"}, {"path": "/b"})
    assert [message.split()[0] for message in happened] == ["websocket.accept", f"websocket.{second}"]


async def test_an_error_of_an_open_stream_is_that_of_who_opened_it():
    async def fails(self):
        await self.accept()
        raise ZeroDivisionError

    stream = public(consumer(fails)).as_asgi()

    async def enter(self):
        await self.accept()
        await stream({**self.scope, "path": "/a"}, Server().receive, lambda message: asyncio.sleep(0))

    with pytest.raises(ZeroDivisionError):
        await Server().run(open_to_all(consumer(enter).as_asgi()))


@pytest.mark.parametrize("wrap", [lambda app: app, DenyMiddlewareStack, Wrapper])
async def test_a_stream_that_is_opened_again_is_asked_again_and_each_time_once(wrap):
    asked = []

    async def decide(request):
        asked.append(request.path)
        return len(asked) == 1

    stream = wrap(require(AsyncCheck(decide))(consumer()).as_asgi())
    happened = await streams(stream, {"path": "/a"}, {"path": "/b"})
    assert [message.split()[0] for message in happened] == ["websocket.accept", "websocket.close"]
    assert asked == ["/a", "/b"]


# Layers that only a wrapper leads to, and that answer by the layer around them.


def layer(app):
    """`app` in a layer of its own, which what is around cannot look into."""
    return Wrapper(require(AsyncCheck(lambda request: True))(app))


def inside(app, hooks=None):
    return DenyMiddlewareStack(layer(app), hooks=hooks, default_policy=AllowAny())


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

    async def deny_as_well(send):
        is_second.set()
        await send(close(code=4409))

    async def app(scope, receive, send):
        async with asyncio.TaskGroup() as group:  # An error in one cancels the other.
            group.create_task(send(close(code=4409)))
            group.create_task(deny_as_well(send))

    assert (await knock(inside(app, hooks), "/")).status == 409


async def test_the_log_names_the_policy_of_the_layer_whose_application_is_silent(settings, caplog):
    settings.CHANNELS_WSDENY = {"ACCEPT_TIMEOUT": 0.05}

    assert (await knock(inside(Script()), "/")).status == 500
    assert [record.policy for record in caplog.records if record.name == "channels_wsdeny"] == ["AsyncCheck()"]
