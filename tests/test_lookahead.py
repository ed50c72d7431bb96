"""The look-ahead tells what Channels' routers really do, without running anything."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from channels.auth import AuthMiddleware, AuthMiddlewareStack
from channels.consumer import AsyncConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator, OriginValidator
from channels.sessions import CookieMiddleware
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.urls import path, re_path, register_converter
from django.urls.converters import IntConverter
from django.urls.exceptions import Resolver404

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import login_required, public, require
from channels_wsdeny.policies import AllowAny, IsAuthenticated, IsStaff, Policy
from channels_wsdeny.routing.match import Route, Unseen
from channels_wsdeny.routing.resolver import look_ahead
from tests.clients import knock, websocket_scope

# Channels' consumers close old database connections before each message.
pytestmark = pytest.mark.django_db


class EvenConverter(IntConverter):
    def to_python(self, value):
        number = super().to_python(value)
        if number % 2:
            raise ValueError(f"{number} is odd.")
        return number


class FailingConverter(IntConverter):
    def to_python(self, value):
        raise KeyError("secret")


class UnresolvingConverter(IntConverter):
    def to_python(self, value):
        raise Resolver404({"path": value})


register_converter(EvenConverter, "lookahead_even")
register_converter(FailingConverter, "lookahead_failing")
register_converter(UnresolvingConverter, "lookahead_unresolving")


class Leaf(AsyncConsumer):
    """Notes the scope that it was run with."""

    def __init__(self, name, ran):
        self.name, self.ran = name, ran

    async def __call__(self, scope, receive, send):
        self.ran.append((self.name, scope["path_remaining"], scope["url_route"]))
        await send({"type": "websocket.accept"})


ENDPOINTS = [
    "",
    "a/",
    "b",
    "a/b/",
    "<int:n>/",
    "<slug:s>/",
    "<str:x>",
    "<path:rest>",
    "x/<int:n>/<str:x>/",
    "<lookahead_even:n>/",
]
REGEXES = [
    r"^a/$",
    r"^(?P<s>[\w-]+)/$",
    r"^(\d+)/(\w)",
    r"a",
    r"b/?$",
    r"^(?:page-(?P<n>\d+)/)?(?P<s>\w*)$",
]
PREFIXES = ["", "a/", "b", "<int:n>/", "<slug:s>/", "<lookahead_even:n>/"]
REGEX_PREFIXES = ["", r"^a/", r"^(?P<s>[\w-]+)/", r"^(\d+)/", r"/"]
DEFAULTS = [{}, {}, {"n": 0}, {"s": "default", "mode": "x"}]
WORDS = ["a", "b", "x", "1", "22", "x-y", "page-3", ""]


class Table:
    """A table of routes by chance; the same seed makes the same one."""

    def __init__(self, seed, layers=()):
        self.random = random.Random(seed)
        self.layers = layers
        self.ran = []
        self.leaves = {}
        self.app = self.router(3)

    def router(self, depth):
        routes = [self.route(depth) for _ in range(self.random.randint(1, 4))]
        return self.wrapped(URLRouter(routes))

    def route(self, depth):
        chance = self.random.random
        nested = depth > 1 and chance() < 0.5
        regex = chance() < 0.4
        patterns = {
            (False, False): ENDPOINTS,
            (False, True): REGEXES,
            (True, False): PREFIXES,
            (True, True): REGEX_PREFIXES,
        }[nested, regex]
        pattern, defaults = self.random.choice(patterns), self.random.choice(DEFAULTS)
        app = self.router(depth - 1) if nested else self.leaf()
        return (re_path if regex else path)(pattern, app, defaults)

    def leaf(self):
        name = len(self.leaves)
        self.leaves[name] = Leaf.as_asgi(name=name, ran=self.ran)
        return self.wrapped(self.leaves[name])

    def wrapped(self, app):
        number = self.random.randrange(6)  # drawn with and without layers, so that the table is the same
        return self.layers[number](app) if number < len(self.layers) else app

    def scopes(self, count):
        for _ in range(count):
            words = [self.random.choice(WORDS) for _ in range(self.random.randint(0, 4))]
            scope = websocket_scope("/" + "/".join(words) + self.random.choice(["", "/"]))
            yield scope | {"root_path": self.random.choice(["", "", "/a", "/a/"])}

    async def really(self, scope):
        """What runs, and with which route; None if nothing does."""
        self.ran.clear()

        async def send(message):
            pass

        with suppress(ValueError):  # "No route found", which Channels has no class of its own for
            await self.app(dict(scope), None, send)
        return self.ran[0] if self.ran else None

    def told(self, scope):
        """The same, by the look-ahead."""
        found = look_ahead(self.app, scope)
        if found is Unseen.UNROUTED:
            return None
        (name,) = [name for name, leaf in self.leaves.items() if leaf is found.app]
        return name, found.url["path_remaining"], found.url["url_route"]


def protocols(app):
    return ProtocolTypeRouter({"websocket": app})


@pytest.mark.parametrize("seed", range(150))
async def test_the_look_ahead_tells_what_channels_routers_do(seed):
    table = Table(seed, layers=[protocols])
    for scope in table.scopes(30):
        assert table.told(scope) == await table.really(scope), scope


@pytest.mark.parametrize("seed", range(50))
async def test_layers_of_the_package_change_nothing_about_routing(seed):
    plain, layered = Table(seed), Table(seed, layers=[public, DenyMiddlewareStack, public])
    for scope in plain.scopes(30):
        assert layered.told(scope) == await plain.really(scope), scope


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("layers", [(), (public, DenyMiddlewareStack, public)])
async def test_a_handshake_gets_where_channels_routers_would_take_it(seed, layers):
    plain, guarded = Table(seed), Table(seed, layers)
    app = DenyMiddlewareStack(guarded.app, default_policy=AllowAny())
    for scope in plain.scopes(5):
        expected = await plain.really(scope)
        guarded.ran.clear()
        answer = await knock(app, scope["path"], root_path=scope["root_path"])
        assert answer.status == (404 if expected is None else 101)
        assert guarded.ran == ([] if expected is None else [expected])


async def test_the_tables_by_chance_hold_what_they_are_to_test():
    seen = set()
    for seed in range(150):
        table = Table(seed)
        for scope in table.scopes(30):
            ran = await table.really(scope)
            if ran is None:
                seen.add("unrouted")
                continue
            name, remaining, url_route = ran
            seen.add("deep" if name > 0 else "first")
            seen.update(url_route["kwargs"])
            seen.update({"args"} if url_route["args"] else {})
            seen.update({"remaining"} if remaining else {})
    assert seen >= {"unrouted", "first", "deep", "args", "remaining", "n", "s", "x", "rest", "mode"}


# Which apps it sees through.


class Accept(AsyncWebsocketConsumer):
    pass


class SyncAccept(WebsocketConsumer):
    pass


app = Accept.as_asgi()
SCOPE = websocket_scope("/")


@pytest.mark.parametrize("endpoint", [app, SyncAccept.as_asgi(), Accept(), Accept.as_asgi(groups=["a"])])
def test_a_consumer_is_seen(endpoint):
    assert look_ahead(endpoint, SCOPE) == Route(endpoint, endpoint=endpoint)


def routed(app):
    return URLRouter([path("", app)])


class OwnCall(URLRouter):
    async def __call__(self, scope, receive, send):
        await super().__call__(scope, receive, send)


class OwnProtocols(ProtocolTypeRouter):
    async def __call__(self, scope, receive, send):
        await super().__call__(scope, receive, send)


class OwnAuth(AuthMiddleware):
    pass


class OwnOrigins(OriginValidator):
    pass


class OwnStack(DenyMiddlewareStack):
    async def __call__(self, scope, receive, send):
        await super().__call__(scope, receive, send)


class OwnAsAsgi(Accept):
    @classmethod
    def as_asgi(cls, **kwargs):
        async def own(scope, receive, send):
            await cls(**kwargs)(scope, receive, send)

        own.consumer_class = cls
        return own


async def raw(scope, receive, send):
    pass


@pytest.mark.parametrize(
    "opaque",
    [
        raw,
        OwnCall([path("", app)]),
        OwnProtocols({"websocket": app}),
        OwnAuth(app),
        OwnOrigins(app, ["*"]),
        OwnStack(app),
        OwnAsAsgi.as_asgi(),
        ChannelNameRouter({"a": app}),
    ],
    ids=lambda opaque: getattr(opaque, "__name__", type(opaque).__name__),
)
@pytest.mark.parametrize(
    "around", [lambda app: app, lambda app: URLRouter([path("", app)]), DenyMiddlewareStack]
)
def test_what_it_does_not_know_is_opaque(opaque, around):
    assert look_ahead(around(opaque), SCOPE) is Unseen.OPAQUE


class SameCall(URLRouter):
    """Builds its routes in its own way, and routes as ever."""


def test_a_subclass_of_a_router_that_calls_as_ever_is_seen_through():
    assert look_ahead(SameCall([path("", app)]), SCOPE).app is app


def test_a_router_of_protocols_without_websockets_is_unrouted():
    assert look_ahead(ProtocolTypeRouter({"http": app}), SCOPE) is Unseen.UNROUTED


def test_an_empty_router_is_unrouted():
    assert look_ahead(URLRouter([]), SCOPE) is Unseen.UNROUTED


def test_a_path_outside_of_the_root_path_is_unrouted():
    router = URLRouter([path("", app)])
    assert look_ahead(router, SCOPE | {"root_path": "/mounted"}) is Unseen.UNROUTED


def test_an_inner_router_without_a_match_leaves_the_next_route_its_turn():
    inner = URLRouter([path("x/", SyncAccept.as_asgi())])
    router = URLRouter([path("a/", inner), path("a/b/", app)])
    assert look_ahead(router, websocket_scope("/a/b/")).app is app


def test_an_opaque_route_ends_the_search():
    router = URLRouter([path("<slug>/", raw), path("a/", app)])
    assert look_ahead(router, websocket_scope("/a/")) is Unseen.OPAQUE


def test_the_scope_is_not_changed():
    scope = websocket_scope("/1/2/", url_route={"args": (), "kwargs": {"a": 1}})
    before = {**scope, "url_route": {"args": (), "kwargs": {"a": 1}}}
    look_ahead(URLRouter([path("<int:n>/", URLRouter([path("<int:m>/", app, {"x": 1})]))]), scope)
    assert scope == before


@pytest.mark.parametrize("router", [URLRouter, OwnCall])
async def test_a_converter_that_raises_is_a_500(router, caplog):
    answer = await knock(DenyMiddlewareStack(router([path("<lookahead_failing:n>/", app)])), "/1/")
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert "KeyError: 'secret'" in caplog.text


async def test_a_converter_that_does_not_resolve_leaves_the_next_route_its_turn():
    table = Table(0)
    table.app = URLRouter([path("<lookahead_unresolving:n>/", app), path("<int:n>/", table.leaf())])
    scope = websocket_scope("/1/")
    assert table.told(scope) == await table.really(scope) is not None


# Policies on the way.


def policies_of(app, where="/"):
    return look_ahead(app, websocket_scope(where)).guards.policies


def test_policies_come_from_the_outside_in():
    outer, middle, inner, own = (require(policy) for policy in (AllowAny(), IsStaff(), AllowAny(), IsStaff()))
    consumer = own(type("Own", (AsyncWebsocketConsumer,), {}))
    site = outer(URLRouter([path("", middle(CookieMiddleware(inner(consumer.as_asgi()))))]))
    assert [repr(policy) for policy in policies_of(site)] == [
        "AllowAny()",
        "IsStaff()",
        "AllowAny()",
        "IsStaff()",
    ]


def test_an_undecorated_consumer_has_no_policies():
    assert policies_of(URLRouter([path("", app)])) == ()


def test_a_policy_before_something_opaque_is_seen():
    policy = IsStaff()
    assert policies_of(URLRouter([path("", require(policy)(raw))])) == (policy,)


def test_the_default_policy_of_a_nested_stack_is_that_of_the_undecorated_within():
    policy = IsStaff()
    router = URLRouter([path("", DenyMiddlewareStack(app, default_policy=policy))])
    assert policies_of(router) == (policy,)


# Known wrappers are rebuilt around the endpoint alone.


def test_a_wrapper_is_copied_and_not_changed():
    router = URLRouter([path("", app)])
    wrapper = OriginValidator(router, ["https://example.com"])
    found = look_ahead(wrapper, SCOPE)
    assert type(found.app) is OriginValidator
    assert found.app.application is app
    assert found.app.allowed_origins == ["https://example.com"]
    assert wrapper.application is router


@pytest.mark.parametrize(
    ("origin", "status"),
    [(b"https://example.com", 101), (b"https://evil.example", 403), (b"http://[bad", 403)],
)
async def test_an_origin_validator_on_the_way_still_denies(origin, status):
    site = OriginValidator(routed(public(app)), ["https://example.com"])
    assert (await knock(DenyMiddlewareStack(site), "/", headers=[(b"origin", origin)])).status == status


async def test_an_allowed_hosts_origin_validator_on_the_way_still_denies(settings):
    settings.ALLOWED_HOSTS = ["example.com"]
    site = DenyMiddlewareStack(
        AllowedHostsOriginValidator(URLRouter([path("", app)])), default_policy=AllowAny()
    )
    assert (await knock(site, "/", headers=[(b"origin", b"https://example.com")])).status == 101
    assert (await knock(site, "/", headers=[(b"origin", b"https://example.org")])).status == 403
    assert (await knock(site, "/")).status == 403


@pytest.mark.django_db(transaction=True)
async def test_auth_middleware_on_the_way_still_finds_the_user(headers_of):
    names = []

    class Who(AsyncWebsocketConsumer):
        async def connect(self):
            names.append(self.scope["user"].username)
            await self.accept()

    site = ProtocolTypeRouter({"websocket": AuthMiddlewareStack(URLRouter([path("<slug>/", Who.as_asgi())]))})
    assert (await knock(DenyMiddlewareStack(site), "/a/", headers=headers_of("alice"))).status == 101
    assert names == ["alice"]


# The route, as Django tells it.


class Notes(Policy):
    """Notes the route of each request, and allows."""

    def __init__(self):
        self.matches = []

    async def acheck(self, request):
        self.matches.append(request.resolver_match)
        return True


async def match_of(router_of, where):
    notes = Notes()
    endpoint = require(notes)(type("Noted", (AsyncWebsocketConsumer,), {})).as_asgi()
    assert (await knock(DenyMiddlewareStack(router_of(endpoint)), where)).status == 101
    (match,) = notes.matches
    return match, endpoint


async def test_a_policy_sees_the_route_as_in_a_view():
    match, endpoint = await match_of(
        lambda app: URLRouter([path("rooms/<int:pk>/", app, {"mode": "x"}, name="room")]), "/rooms/7/"
    )
    assert match.kwargs == {"pk": 7, "mode": "x"}
    assert match.args == ()
    assert match.url_name == match.view_name == "room"
    assert match.route == "rooms/<int:pk>/"
    assert match.func is endpoint


async def test_unnamed_groups_are_arguments():
    match, _ = await match_of(lambda app: URLRouter([re_path(r"^rooms/(\d+)/(\w+)/$", app)]), "/rooms/7/a/")
    assert match.args == ("7", "a")
    assert match.kwargs == {}


async def test_the_route_of_nested_routers_is_all_of_it():
    match, _ = await match_of(
        lambda app: URLRouter(
            [path("org/<slug:org>/", public(URLRouter([path("rooms/<int:pk>/", app, name="room")])))]
        ),
        "/org/acme/rooms/7/",
    )
    assert match.kwargs == {"org": "acme", "pk": 7}
    assert match.route == "org/<slug:org>/rooms/<int:pk>/"
    assert match.url_name == "room"


async def test_behind_an_unknown_wrapper_a_decorated_consumer_still_has_the_kwargs():
    match, _ = await match_of(lambda app: OwnCall([path("rooms/<int:pk>/", app)]), "/rooms/7/")
    assert match.kwargs == {"pk": 7}


async def test_an_unknown_wrapper_on_a_decorated_route_keeps_no_kwargs_from_the_consumer():
    match, _ = await match_of(
        lambda app: URLRouter([path("<int:org>/", public(OwnCall([path("<int:pk>/", app)])))]), "/1/2/"
    )
    assert match.kwargs == {"org": 1, "pk": 2}


async def test_kwargs_of_the_same_name_are_those_that_the_consumer_gets():
    match, _ = await match_of(
        lambda app: URLRouter([path("<int:pk>/", public(OwnCall([path("<int:pk>/", app)])))]), "/1/2/"
    )
    assert match.kwargs == {"pk": 2}


async def test_a_consumer_of_a_test_finds_the_route_that_the_test_wrote():
    notes = Notes()
    endpoint = require(notes)(type("Noted", (AsyncWebsocketConsumer,), {})).as_asgi()
    assert (await knock(endpoint, "/", url_route={"kwargs": {"slug": "lobby"}})).status == 101
    assert notes.matches[0].kwargs == {"slug": "lobby"}


async def test_a_stack_within_a_router_adds_its_route_to_the_outer_one():
    notes = Notes()
    endpoint = require(notes)(type("Noted", (AsyncWebsocketConsumer,), {})).as_asgi()
    router = URLRouter([path("<slug:org>/", DenyMiddlewareStack(URLRouter([path("<int:pk>/", endpoint)])))])
    assert (await knock(router, "/acme/7/")).status == 101
    assert notes.matches[0].kwargs == {"org": "acme", "pk": 7}


@pytest.mark.parametrize("user", [AnonymousUser(), get_user_model()(pk=1, username="alice")])
async def test_the_look_ahead_runs_nothing_for_a_visitor_who_is_denied(user):
    class Wrapper:
        def __init__(self, inner):
            self.inner = inner

        async def __call__(self, scope, receive, send):
            raise AssertionError("This should not have run.")

    site = URLRouter([path("", require(IsStaff())(Wrapper(app)))])
    answer = await knock(DenyMiddlewareStack(login_required(site)), "/", user=user)
    assert answer.status == (403 if user.is_authenticated else 401)


def test_the_look_ahead_knows_nothing_of_default_policies_of_the_site(settings):
    settings.CHANNELS_WSDENY = {"DEFAULT_POLICY": IsAuthenticated()}
    assert policies_of(DenyMiddlewareStack(app)) == ()
