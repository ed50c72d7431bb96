"""The stack fails closed: whatever it is around, nothing runs and nothing is accepted without a policy that allows."""

import asyncio
import functools

import pytest
from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from channels.middleware import BaseMiddleware
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator, OriginValidator
from channels.sessions import CookieMiddleware
from django.http import HttpResponse
from django.urls import path

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import login_required, public, require, with_hooks
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated, IsStaff
from tests.support import wrappers
from tests.support.clients import knock, websocket_scope
from tests.support.mirror import made
from tests.support.policies import alice, boss
from tests.support.scripted import Script, accept, close, text
from tests.support.site import go_on
from tests.support.sockets import CONNECT, DENIAL, Server, consumer, disconnect, errors, no_task_left
from tests.support.wrappers import InTask, OwnRouter, Peeks, Wrapper

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

urlpatterns = [path("page/", lambda request: HttpResponse("page"))]


def generic(base, ran):
    return consumer(lambda self: ran.append("connect") or self.accept(), base)


def function(ran):
    async def app(scope, receive, send):
        await receive()
        ran.append("connect")
        await send(accept())
        await receive()

    return app


GENERIC = [AsyncWebsocketConsumer, AsyncJsonWebsocketConsumer, WebsocketConsumer, JsonWebsocketConsumer]
ENDPOINTS = {
    **{base.__name__: (lambda ran, base=base: generic(base, ran).as_asgi()) for base in GENERIC},
    "instance": lambda ran: generic(AsyncWebsocketConsumer, ran)(),
    "function": function,
    "object": lambda ran: Wrapper(function(ran)),
}


def routed(app):
    return URLRouter([path("", app)])


PLACES = {
    "bare": lambda app: app,
    "URLRouter": routed,
    "ProtocolTypeRouter": lambda app: ProtocolTypeRouter({"websocket": routed(app)}),
    "AuthMiddlewareStack": AuthMiddlewareStack,
    "CookieMiddleware": CookieMiddleware,
    "OriginValidator": lambda app: OriginValidator(app, ["*"]),
    "class": Wrapper,
    "class with app": wrappers.AppWrapper,
    "class with application": wrappers.ApplicationWrapper,
    "class with another name": wrappers.HiddenWrapper,
    "class between routers": lambda app: routed(Wrapper(routed(app))),
    "BaseMiddleware": wrappers.Middleware,
    "BaseMiddleware before a catch-all": lambda app: URLRouter(
        [path("", wrappers.Middleware(app)), path("", public(function([])))]
    ),
    "function": wrappers.without_signature,
    "function with wraps": wrappers.with_wraps,
    "partial": lambda app: functools.partial(Wrapper.__call__, Wrapper(app)),
    "subclass of URLRouter": lambda app: OwnRouter([path("", app)]),
    "takes the connect event": Peeks,
    "in a task": InTask,
    "nested stack": DenyMiddlewareStack,
    "nested stack behind a wrapper": lambda app: Wrapper(DenyMiddlewareStack(Wrapper(app))),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=ENDPOINTS)
async def test_an_undecorated_endpoint_is_under_the_default_policy_wherever_it_is(endpoint, place):
    ran = []
    async with no_task_left():
        assert (await knock(DenyMiddlewareStack(place(endpoint(ran))), "/")).status == 401
        assert ran == []
        staff_only = DenyMiddlewareStack(place(endpoint(ran)), default_policy=IsStaff())
        assert (await knock(staff_only, "/", user=alice)).status == 403
        assert ran == []
        assert (await knock(staff_only, "/", user=boss)).status == 101
    assert ran == ["connect"]


@pytest.mark.parametrize("place", [name for name in PLACES if name != "takes the connect event"])
async def test_a_decorated_consumer_is_guarded_by_its_own_policy_wherever_it_is(place):
    ran = []
    for policy, expected in ((AllowAny(), 101), (IsStaff(), 401)):
        app = require(policy)(generic(AsyncWebsocketConsumer, ran)).as_asgi()
        async with no_task_left():
            assert (await knock(DenyMiddlewareStack(PLACES[place](app)), "/")).status == expected
    assert ran == ["connect"]


@pytest.mark.parametrize("wrap", [routed, Wrapper, wrappers.Middleware])
async def test_the_default_policy_is_that_of_the_stack_else_that_of_the_site(wrap, settings):
    ran = []
    settings.CHANNELS_WSDENY = {"DEFAULT_POLICY": "channels_wsdeny.policies.DenyAll"}
    assert (await knock(DenyMiddlewareStack(wrap(function(ran))), "/", user=boss)).status == 403
    open_to_users = DenyMiddlewareStack(wrap(function([])), default_policy=IsAuthenticated())
    assert (await knock(open_to_users, "/", user=alice)).status == 101
    for default in ("no.such.Policy", "channels_wsdeny.policies.conf", None, 42):
        settings.CHANNELS_WSDENY = {"DEFAULT_POLICY": default}
        assert (await knock(DenyMiddlewareStack(wrap(function(ran))), "/", user=boss)).status == 500
    assert ran == []


@pytest.mark.parametrize("wrap", [lambda app: app, routed, Wrapper, wrappers.Middleware, InTask])
async def test_an_application_that_accepts_without_an_event_is_stopped_at_the_accept(wrap):
    tasks = []

    async def impatient(scope, receive, send):
        for message in (accept(), text("secret"), accept(), text("secret")):
            try:
                await send(message)
            except OSError:
                pass

    async def from_a_task(scope, receive, send):
        tasks.append(asyncio.ensure_future(send(accept())))
        await asyncio.wait(tasks)

    for app in (impatient, from_a_task):
        server = Server()
        async with no_task_left():
            assert (await server.run(DenyMiddlewareStack(wrap(app)))).status == 401
        assert server.kinds == DENIAL


@pytest.mark.parametrize(
    "site",
    [
        URLRouter([path("a/", function([]))]),
        ProtocolTypeRouter({}),
        ProtocolTypeRouter({"websocket": URLRouter([path("a/", function([]))])}),
        Wrapper(URLRouter([path("a/", function([]))])),
        wrappers.Middleware(URLRouter([path("a/", function([]))])),
        OwnRouter([path("a/", URLRouter([]))]),
    ],
)
async def test_a_path_without_a_route_is_a_404_and_no_error(site, caplog):
    answer = await knock(DenyMiddlewareStack(site, default_policy=AllowAny()), "/b/")
    assert (answer.status, answer.problem["code"], errors(caplog)) == (404, "not_found", [])


@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper, wrappers.Middleware])
async def test_a_decorated_router_routes_and_guards_all_that_is_in_it(wrap):
    ran = []
    inner = URLRouter([path("room/<int:pk>/", wrap(function(ran)))])
    routes = [path("staff/", require(IsStaff())(inner)), path("<path:rest>", public(function([])))]
    site = DenyMiddlewareStack(URLRouter(routes))
    assert (await knock(site, "/staff/room/1/", user=alice)).status == 403
    assert ran == []
    assert (await knock(site, "/staff/room/1/", user=boss)).status == 101
    assert ran == ["connect"]
    assert (await knock(site, "/staff/lobby/")).status == 101  # The next route has its turn.


async def test_policies_of_routers_wrappers_and_consumers_must_all_allow():
    ran = []
    consumer = require(IsStaff())(generic(AsyncWebsocketConsumer, ran)).as_asgi()
    for site in (login_required(routed(consumer)), public(URLRouter([path("", Wrapper(consumer))]))):
        app = DenyMiddlewareStack(site)
        statuses = [(await knock(app, "/")).status] + [(await knock(app, "/", user=u)).status for u in (alice, boss)]
        assert statuses == [401, 403, 101]
    assert ran == ["connect", "connect"]
    assert (await knock(DenyMiddlewareStack(public(Wrapper(function([])))), "/")).status == 101


#: Channels' validators that allow ``https://example.com``, and what they have it from.
VALIDATORS = {
    "OriginValidator": (lambda app: OriginValidator(app, ["https://example.com"]), "['https://example.com']"),
    "AllowedHostsOriginValidator": (AllowedHostsOriginValidator, "['example.com', 'testserver']"),
}


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(("validator", "allowed"), VALIDATORS.values(), ids=VALIDATORS)
@pytest.mark.parametrize("wrap", [lambda app: app, lambda app: URLRouter([path("", app)])])
async def test_a_denial_of_an_origin_validator_says_that_it_is_about_the_origin(
    wrap, validator, allowed, debug, settings, caplog
):
    settings.DEBUG, shown = debug, []
    settings.ALLOWED_HOSTS = ["example.com", "testserver"]
    site = DenyMiddlewareStack(validator(wrap(function([]))), default_policy=AllowAny())
    for origin, status in {b"https://evil.example": 403, b"https://example.com": 101, b"http://[bad": 403}.items():
        answer = await knock(site, "/", headers=[(b"host", b"testserver"), (b"origin", origin)])
        assert answer.status == status
        if status == 403:
            assert answer.problem["code"] == "origin_not_allowed"
            shown.append(str(answer.problem.get("debug")))
    told, unparseable = [
        each.getMessage() for each in caplog.records if each.name == "django.security.DisallowedOrigin"
    ]
    assert "http://[bad" in unparseable
    for expected in ("'https://evil.example'", "'testserver'", allowed, "ALLOWED_HOSTS"):
        assert expected in told
        assert (expected in shown[0]) is debug


async def test_a_close_of_the_consumer_behind_an_origin_validator_is_its_own():
    site = DenyMiddlewareStack(OriginValidator(Script(close(code=4404)), ["https://a.test"]), default_policy=AllowAny())
    assert (await knock(site, "/", headers=[(b"origin", b"https://a.test")])).status == 404


async def test_a_subclass_of_the_stack_runs_what_it_overrides():
    ran = []

    class Closed(DenyMiddlewareStack):
        async def __call__(self, scope, receive, send):
            await send({"type": "websocket.close"})

    site = DenyMiddlewareStack(URLRouter([path("", Closed(public(function(ran))))]), default_policy=AllowAny())
    assert ((await knock(site, "/")).status, ran) == (403, [])


async def test_what_is_replaced_after_the_first_handshake_counts_from_then_on():
    router = URLRouter([path("", public(function([])))])
    protocols = ProtocolTypeRouter({"websocket": router})
    site = DenyMiddlewareStack(protocols, default_policy=AllowAny())
    assert (await knock(site, "/")).status == 101
    router.routes[0] = path("", require(IsStaff())(function([])))
    assert (await knock(site, "/")).status == 401
    router.routes = [path("", function([]))]
    assert (await knock(site, "/")).status == 101
    site.default_policy = DenyAll()
    assert (await knock(site, "/")).status == 403
    protocols.application_mapping["websocket"] = require(IsStaff())(function([]))
    assert (await knock(site, "/")).status == 401


@pytest.mark.parametrize("name", ["authentication", "origins", "middleware", "deny_with"])
def test_an_option_of_a_stack_that_would_not_count_cannot_be_set(name):
    with pytest.raises(AttributeError, match=f"{name} cannot be replaced"):
        setattr(DenyMiddlewareStack(function([])), name, None)


@pytest.mark.parametrize("name", ["authentication", "default_policy", "deny_with", "hooks", "middleware", "origins"])
def test_an_option_of_a_stack_as_an_attribute_of_a_subclass_is_refused(name):
    with pytest.raises(TypeError, match=rf"Strict.{name} would be ignored: give {name} as an argument of Strict\(\)"):
        type("Strict", (DenyMiddlewareStack,), {name: DenyAll()})


async def test_a_stack_may_hand_attributes_of_its_own_on_as_arguments():
    class Strict(DenyMiddlewareStack):
        default_policy = DenyAll()

        def __init__(self, inner):
            super().__init__(inner, default_policy=self.default_policy)

    assert (await knock(Strict(function([])), "/")).status == 403


@pytest.mark.parametrize("given", [AsyncWebsocketConsumer, AsyncWebsocketConsumer.as_asgi])
def test_a_consumer_without_as_asgi_called_is_refused(given):
    with pytest.raises(TypeError, match=r"Write DenyMiddlewareStack\(AsyncWebsocketConsumer.as_asgi\(\)\), found <"):
        DenyMiddlewareStack(given)


@pytest.mark.parametrize("base", [Wrapper, BaseMiddleware])
@pytest.mark.parametrize("name", ["alice", None])
async def test_an_asynchronous_wrapper_may_look_at_the_user_of_the_session(name, base, headers_of):
    seen = []

    class Looks(base):
        async def __call__(self, scope, receive, send):
            seen.append((scope["user"].is_authenticated, scope["user"].get_username()))
            await self.inner(scope, receive, send)

    site = DenyMiddlewareStack(Looks(public(function([]))))
    assert (await knock(site, "/", headers=headers_of(name))).status == 101
    assert seen == [(name is not None, name or "")]


async def test_a_scope_without_headers_is_answered():
    for hooks in (None, made("around", go_on)):
        for app, status in ((public(function([])), 101), (function([]), 401)):
            scope = {name: value for name, value in websocket_scope("/").items() if name != "headers"}
            server = Server(CONNECT, disconnect())
            assert (await server.run_scope(DenyMiddlewareStack(app, hooks=hooks), scope)).status == status


@pytest.mark.parametrize("kind", ["lifespan", "channel", "webtransport"])
async def test_other_scopes_pass_through_untouched(kind):
    seen, given = [], ({"type": kind}, object(), object())

    async def app(scope, receive, send):
        seen.extend([scope, receive, send])

    await DenyMiddlewareStack(app)(*given)
    assert [a is b for a, b in zip(seen, given, strict=True)] == [True, True, True]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"default_policy": IsStaff}, TypeError, r"IsAuthenticated\(\)"),
        ({"default_policy": "IsStaff"}, TypeError, "default_policy"),
        ({"deny_with": "silence"}, ValueError, "silence"),
        ({"hooks": [print]}, TypeError, "takes Hooks"),
        ({"hooks": "chat.hooks.hooks"}, TypeError, "takes Hooks, found 'chat.hooks.hooks'. Import it, or name it in"),
        ({"inner": {"http": print}}, TypeError, r"Write ProtocolTypeRouter\(\{\.\.\.\}\)\."),
        ({"origins": ["https://a.example", "a.example"]}, ValueError, "'a.example' is no origin.* Write scheme, host"),
        ({"inner": ["a"]}, TypeError, r"ASGI application, found \['a'\]\. Write URLRouter\(\[\.\.\.\]\)\."),
    ],
)
def test_arguments_that_cannot_be_used_raise(arguments, error, message):
    with pytest.raises(error, match=message):
        DenyMiddlewareStack(**{"inner": function([]), **arguments})


async def test_a_stack_may_deny_in_another_way_than_the_site(settings):
    settings.CHANNELS_WSDENY = {"DENY_WITH": "close"}
    assert (await knock(DenyMiddlewareStack(function([]), deny_with="response"), "/")).status == 401
    app = function([])
    assert repr(DenyMiddlewareStack(app)) == f"<DenyMiddlewareStack around {app!r}>"


@pytest.mark.parametrize("policy", [None, DenyAll()])
@pytest.mark.parametrize(
    "around",
    [
        DenyMiddlewareStack,
        functools.partial(DenyMiddlewareStack, deny_with="response"),
        lambda app: DenyMiddlewareStack(Wrapper(app)),
        with_hooks(made("request", lambda request: None)),
    ],
)
async def test_of_nested_stacks_the_nearest_says_how_to_deny(around, policy):
    ran = []
    inner = DenyMiddlewareStack(function(ran), deny_with="close", default_policy=policy)
    assert (await knock(around(inner), "/")).status == 101  # and a close follows
    assert ran == []
