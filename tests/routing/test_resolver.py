"""The resolver says where Channels' routers would route a scope, without running anything."""

import random
from contextlib import suppress

import pytest
from channels.auth import AuthMiddleware
from channels.consumer import AsyncConsumer
from channels.generic.websocket import WebsocketConsumer
from channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from channels.sessions import CookieMiddleware
from django.contrib.auth import get_user_model
from django.urls import path, re_path, register_converter
from django.urls.converters import IntConverter
from django.urls.exceptions import Resolver404

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import login_required, public, require
from channels_wsdeny.policies import IsStaff
from channels_wsdeny.routing.guards import guards_of
from channels_wsdeny.routing.resolver import NOT_FOUND, UNRESOLVABLE, resolve
from tests.support.clients import knock, websocket_scope
from tests.support.policies import AsyncCheck, raising_app
from tests.support.policies import accept as accept_all
from tests.support.sockets import consumer, open_to_all
from tests.support.wrappers import Middleware, OwnRouter

pytestmark = pytest.mark.django_db


class Converter(IntConverter):
    """Raises what `error` makes of a number, if anything."""

    def to_python(self, value):
        number = int(value)
        if error := self.error(number):
            raise error
        return number


ERRORS = {
    "even": lambda number: number % 2 and ValueError(f"{number} is odd."),
    "failing": lambda number: KeyError("secret"),
    "unresolving": lambda number: Resolver404({"path": number}),
}
for name, error in ERRORS.items():
    register_converter(type(name, (Converter,), {"error": staticmethod(error)}), f"resolver_{name}")

# Random tables of routes, which Channels' own routers run.


class Leaf(AsyncConsumer):
    """Notes the scope that it was run with."""

    def __init__(self, name, ran):
        self.name, self.ran = name, ran

    async def __call__(self, scope, receive, send):
        self.ran.append((self.name, scope["path_remaining"], scope["url_route"]))
        await send({"type": "websocket.accept"})


#: By whether the route is nested in, and whether it is a regular expression.
PATTERNS = {
    (False, False): [
        *("", "a/", "b", "a/b/", "<int:n>/", "<slug:s>/", "<str:x>", "<path:rest>", "x/<int:n>/<str:x>/"),
        *("<resolver_even:n>/", "<resolver_unresolving:n>/"),
    ],
    (False, True): [r"^a/$", r"^(?P<s>[\w-]+)/$", r"^(\d+)/(\w)", r"a", r"b/?$", r"^(?:page-(?P<n>\d+)/)?(?P<s>\w*)$"],
    (True, False): ["", "a/", "b", "<int:n>/", "<slug:s>/", "<resolver_even:n>/"],
    (True, True): ["", r"^a/", r"^(?P<s>[\w-]+)/", r"^(\d+)/", r"/"],
}
DEFAULTS = [{}, {}, {"n": 0}, {"s": "default", "mode": "x"}]
WORDS = ["a", "b", "x", "1", "22", "x-y", "page-3", ""]


class Table:
    """A random table of routes; the same seed makes the same one, with and without `layers` in it."""

    def __init__(self, seed, layers=()):
        self.random, self.layers = random.Random(seed), layers
        self.ran, self.leaves = [], {}
        self.app = self.router(3)

    def router(self, depth):
        return self.wrapped(URLRouter([self.route(depth) for _ in range(self.random.randint(1, 4))]))

    def route(self, depth):
        nested, regex = depth > 1 and self.random.random() < 0.5, self.random.random() < 0.4
        pattern, defaults = self.random.choice(PATTERNS[nested, regex]), self.random.choice(DEFAULTS)
        return (re_path if regex else path)(pattern, self.router(depth - 1) if nested else self.leaf(), defaults)

    def leaf(self):
        name = len(self.leaves)
        self.leaves[name] = Leaf.as_asgi(name=name, ran=self.ran)
        return self.wrapped(self.leaves[name])

    def wrapped(self, app):
        number = self.random.randrange(6)
        return self.layers[number](app) if number < len(self.layers) else app

    def scopes(self, count):
        for _ in range(count):
            words = [self.random.choice(WORDS) for _ in range(self.random.randint(0, 4))]
            scope = websocket_scope("/" + "/".join(words) + self.random.choice(["", "/"]))
            yield scope | {"root_path": self.random.choice(["", "", "/a", "/a/"])}

    async def routed(self, scope):
        """What Channels' routers run, and with which route; None if they run nothing."""
        self.ran.clear()

        async def send(message): ...

        with suppress(ValueError):  # "No route found", which Channels has no class of its own for
            await self.app(dict(scope), None, send)
        return self.ran[0] if self.ran else None

    def resolved(self, scope):
        """The same, by the resolver."""
        match = resolve(self.app, scope)
        if match is NOT_FOUND:
            return None
        (name,) = [name for name, leaf in self.leaves.items() if leaf is match.app]
        return name, match.url["path_remaining"], match.url["url_route"]


OF_CHANNELS = (lambda app: ProtocolTypeRouter({"websocket": app}),)
OF_THIS_PACKAGE = (public, DenyMiddlewareStack, public)


@pytest.mark.parametrize("seeds", [range(40), pytest.param(range(40, 3000), marks=pytest.mark.random)])
async def test_the_resolver_says_what_channels_routers_do(seeds):
    seen = set()
    for seed in seeds:
        plain = Table(seed)
        for layers in ((), OF_CHANNELS, OF_THIS_PACKAGE):
            table = Table(seed, layers)
            app = open_to_all(table.app)
            for index, scope in enumerate(plain.scopes(10)):
                expected = await (table if layers is OF_CHANNELS else plain).routed(scope)
                assert table.resolved(scope) == expected, (seed, scope)
                found = expected and {"deep" if expected[0] else "first", *expected[2]["kwargs"]}
                seen |= found or {"not found"}
                if index < 2:  # And it is where a handshake gets.
                    table.ran.clear()
                    answer = await knock(app, scope["path"], root_path=scope["root_path"])
                    assert (answer.status, table.ran[:1]) == ((404, []) if expected is None else (101, [expected]))
    assert seen >= {"not found", "first", "deep", "n", "s", "x", "rest", "mode"}


# What it knows.

app = consumer().as_asgi()
SCOPE = websocket_scope("/")


def routed(app):
    return URLRouter([path("", app)])


class SameCall(URLRouter):
    """Makes its routes in its own way, and routes as ever."""


class OwnOrigins(OriginValidator):
    """Says in its own way which origins are valid, and is called as ever."""

    def __init__(self, application):
        self.application = application

    def valid_origin(self, parsed_origin):
        return parsed_origin is not None and parsed_origin.hostname == "example.com"


@pytest.mark.parametrize(
    "endpoint", [app, consumer(None, WebsocketConsumer).as_asgi(), consumer()(), consumer().as_asgi(groups=["a"])]
)
@pytest.mark.parametrize(
    "around",
    [
        *(lambda app: app, routed, DenyMiddlewareStack, CookieMiddleware),
        *(lambda app: public(routed(app)), lambda app: SameCall([path("", app)]), OwnOrigins),
    ],
)
def test_a_consumer_is_found_behind_what_is_known(endpoint, around):
    match = resolve(around(endpoint), SCOPE)
    assert match.endpoint is endpoint
    assert not match.is_late


def calling(base):
    """A subclass that is called in its own way."""
    return type("Own", (base,), {"__call__": lambda self, *args: base.__call__(self, *args)})


class OwnAsAsgi(WebsocketConsumer):
    @classmethod
    def as_asgi(cls, **kwargs):
        async def own(scope, receive, send):
            await cls(**kwargs)(scope, receive, send)

        own.consumer_class = cls
        return own


UNKNOWN = {
    "function": accept_all,
    "router": OwnRouter([path("", app)]),
    "protocols": calling(ProtocolTypeRouter)({"websocket": app}),
    "AuthMiddleware": type("OwnAuth", (AuthMiddleware,), {})(app),
    "OriginValidator": calling(OriginValidator)(app, ["*"]),
    "stack": calling(DenyMiddlewareStack)(app),
    "as_asgi": OwnAsAsgi.as_asgi(),
    "ChannelNameRouter": ChannelNameRouter({"a": app}),
}


@pytest.mark.parametrize("unknown", UNKNOWN.values(), ids=UNKNOWN)
@pytest.mark.parametrize("around", [lambda app: app, DenyMiddlewareStack, CookieMiddleware])
def test_what_is_not_known_is_unresolvable(unknown, around):
    assert resolve(around(unknown), SCOPE) is UNRESOLVABLE
    match = resolve(routed(around(unknown)), SCOPE)
    assert (match.is_late, match.url["url_route"]) == (True, {"args": (), "kwargs": {}})


@pytest.mark.parametrize("origin", ["https://evil.example", None])
async def test_what_a_validator_of_the_site_denies_is_an_origin_that_is_not_allowed(origin, caplog):
    site = DenyMiddlewareStack(public(consumer()).as_asgi())
    guarded = DenyMiddlewareStack(OwnOrigins(public(consumer()).as_asgi()))
    headers = [] if origin is None else [(b"origin", origin.encode())]
    assert (await knock(site, "/", headers=headers)).status == 101
    answer = await knock(guarded, "/", headers=headers)
    assert (answer.status, answer.problem["code"]) == (403, "origin_not_allowed")
    assert f"The origin {origin!r} is not one of" in caplog.text


def test_an_application_that_is_not_known_may_leave_the_scope_to_a_later_route():
    assert resolve(URLRouter([path("<slug>/", accept_all), path("a/", app)]), websocket_scope("/a/")) is UNRESOLVABLE
    inner = URLRouter([path("x/", accept_all)])
    assert resolve(URLRouter([path("a/", inner), path("a/b/", app)]), websocket_scope("/a/b/")).app is app


def test_neither_the_scope_nor_a_wrapper_is_changed():
    router = URLRouter([path("<int:n>/", URLRouter([path("<int:m>/", app, {"x": 1})]))])
    wrapper = OriginValidator(router, ["https://example.com"])
    scope = websocket_scope("/1/2/", url_route={"args": (), "kwargs": {"a": 1}})
    match = resolve(wrapper, scope)
    assert match.url["url_route"]["kwargs"] == {"a": 1, "n": 1, "m": 2, "x": 1}
    assert scope["url_route"] == {"args": (), "kwargs": {"a": 1}}
    assert match.app.application is app
    assert wrapper.application is router


@pytest.mark.parametrize("router", [URLRouter, OwnRouter])
async def test_a_converter_that_raises_is_a_500(router, caplog):
    answer = await knock(DenyMiddlewareStack(router([path("<resolver_failing:n>/", app)])), "/1/")
    assert (answer.status, b"secret" in answer.body) == (500, False)
    assert "KeyError: 'secret'" in caplog.text


async def test_nothing_of_a_site_runs_for_a_client_who_is_denied():
    exploding = raising_app(AssertionError("This should not have run."))
    site = DenyMiddlewareStack(login_required(routed(require(IsStaff())(exploding))))
    assert (await knock(site, "/")).status == 401
    assert (await knock(site, "/", user=get_user_model()(pk=1, username="alice"))).status == 403


# The route, as on any Django request.

ROUTES = {
    "named, with defaults": (
        lambda app: URLRouter([path("rooms/<int:pk>/", app, {"mode": "x"}, name="room")]),
        "/rooms/7/",
        ({"pk": 7, "mode": "x"}, (), "room", "rooms/<int:pk>/"),
    ),
    "unnamed": (
        lambda app: URLRouter([re_path(r"^rooms/(\d+)/(\w+)/$", app)]),
        "/rooms/7/a/",
        ({}, ("7", "a"), None, r"^rooms/(\d+)/(\w+)/$"),
    ),
    "nested routers": (
        lambda app: URLRouter([path("org/<slug:org>/", public(URLRouter([path("<int:pk>/", app, name="room")])))]),
        "/org/acme/7/",
        ({"org": "acme", "pk": 7}, (), "room", "org/<slug:org>/<int:pk>/"),
    ),
    "a stack in a router": (
        lambda app: URLRouter([path("<slug:org>/", DenyMiddlewareStack(URLRouter([path("<int:pk>/", app)])))]),
        "/acme/7/",
        ({"org": "acme", "pk": 7}, (), None, "<slug:org>/<int:pk>/"),
    ),
    "unknown router": (lambda app: OwnRouter([path("rooms/<int:pk>/", app)]), "/rooms/7/", ({"pk": 7}, (), None, None)),
    "an unknown router in a decorated one": (
        lambda app: URLRouter([path("<int:pk>/", public(OwnRouter([path("<int:pk>/", app)])))]),
        "/1/2/",
        ({"pk": 2}, (), None, None),
    ),
    "middleware": (lambda app: URLRouter([path("<int:pk>/", Middleware(app))]), "/1/", ({"pk": 1}, (), None, None)),
}


@pytest.mark.parametrize(("router_of", "url", "expected"), ROUTES.values(), ids=ROUTES)
async def test_policies_see_the_route_as_in_a_view(router_of, url, expected):
    matches = []
    policy = AsyncCheck(lambda request: matches.append(request.resolver_match) is None)
    endpoint = require(policy)(consumer()).as_asgi()
    assert (await knock(DenyMiddlewareStack(router_of(endpoint)), url)).status == 101
    (match,) = matches
    kwargs, args, name, route = expected
    assert (match.kwargs, match.args, match.url_name, match.view_name or None) == (kwargs, args, name, match.view_name)
    if route is not None:
        assert (match.route, match.func) == (route, endpoint)


async def test_a_route_that_a_test_writes_into_the_scope_is_found():
    policy = AsyncCheck(lambda request: request.resolver_match.kwargs == {"slug": "lobby"})
    route = {"kwargs": {"slug": "lobby"}}
    assert (await knock(require(policy)(consumer()).as_asgi(), "/", url_route=route)).status == 101


# Guards: which policies and hooks a class carries.


def test_equal_policies_are_told_apart_and_a_later_decorator_binds_subclasses():
    class Equal(IsStaff):
        __hash__ = IsStaff.__hash__

        def __eq__(self, other):
            return True

    base = consumer()
    child = type("Child", (base,), {})
    assert guards_of(child).policies == ()
    first, second = Equal(), Equal()
    require(first)(require(second)(base))
    assert [*map(id, guards_of(child).policies)] == [id(first), id(second)]
    assert str(guards_of(child)) == "Equal(), Equal()"
