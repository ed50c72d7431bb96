"""Which endpoints a site has, and which policies stand before a socket."""

from functools import partial

import pytest
from channels.auth import AuthMiddlewareStack
from channels.consumer import AsyncConsumer
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.middleware import BaseMiddleware
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.urls import include, path, re_path
from django.utils.functional import SimpleLazyObject

from channels_wsdeny import DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.inspection.routes_table import report_rows
from channels_wsdeny.policies import AllowAny, DenyAll, IsStaff, IsSuperuser
from channels_wsdeny.routing.resolver import resolve
from tests.support.clients import websocket_scope
from tests.support.site import hello as view
from tests.support.wrappers import Function, Switch

HERE = __name__


class Plain(AsyncWebsocketConsumer): ...


@require(IsStaff())
class Staff(AsyncWebsocketConsumer): ...


class InheritsStaff(Staff): ...


class OverHttp(AsyncHttpConsumer): ...


class Tokens(BaseMiddleware):
    """A wrapper that is not known."""


class Fallback(URLRouter):
    """A router that calls an application which is none of its routes."""

    async def __call__(self, scope, receive, send):
        await Plain.as_asgi()(scope, receive, send)


class KeepsAnother(Fallback):
    def __init__(self, routes, other):
        super().__init__(routes)
        self.other = other


class StackOfTheSite(DenyMiddlewareStack):
    """A stack that lets some handshakes pass by itself."""

    async def __call__(self, scope, receive, send):
        await Plain.as_asgi()(scope, receive, send)


async def opaque(scope, receive, send): ...


plain, staff, public_consumer = Plain.as_asgi(), Staff.as_asgi(), public(type("Public", (Plain,), {})).as_asgi()
admin = IsStaff() | IsSuperuser()


def sockets(**routes):
    return ProtocolTypeRouter({"websocket": URLRouter([path(f"{name}/", app) for name, app in routes.items()])})


def over_http(**routes):
    return ProtocolTypeRouter({"http": URLRouter([path(f"{name}/", app) for name, app in routes.items()])})


def stack(app, default_policy=None):
    return DenyMiddlewareStack(app, default_policy=default_policy)


def only(app):
    """An application that serves sockets alone, all by `app`."""
    return ProtocolTypeRouter({"websocket": app})


def row(policy, source="decorator", is_open=False, path="/a/"):
    return path, policy, source, is_open


STAFF, PERHAPS_STAFF = row("IsStaff()"), row("IsStaff()", is_open=None)
PUBLIC, OPEN = row("AllowAny()"), row(None, "none", True, "/")
EITHER = "IsStaff() | IsSuperuser()"
#: Per application: its rows.
ROWS = {
    "decorated": (stack(sockets(a=staff)), [STAFF]),
    "decorated, no stack": (sockets(a=staff), [STAFF]),
    "subclass": (sockets(a=InheritsStaff.as_asgi()), [STAFF]),
    "site's default": (stack(sockets(a=plain)), [row("IsAuthenticated()", "default")]),
    "stack's default": (stack(sockets(a=plain), IsSuperuser()), [row("IsSuperuser()", "stack")]),
    "nearest stack": (stack(stack(sockets(a=plain), IsStaff()), DenyAll()), [row("IsStaff()", "stack")]),
    "policy around a stack": (
        require(IsSuperuser())(stack(sockets(a=plain), IsStaff())),
        [row("IsSuperuser() & IsStaff()", "decorator, stack")],
    ),
    "policy around a stack without a default policy": (
        require(IsSuperuser())(stack(sockets(a=plain, b=staff))),
        [
            row("IsSuperuser() & IsAuthenticated()", "decorator, default"),
            row("IsSuperuser() & IsStaff()", path="/b/"),
        ],
    ),
    "policy around a router": (
        stack(require(admin)(sockets(a=plain, b=staff)), DenyAll()),
        [row(EITHER), row(f"({EITHER}) & IsStaff()", path="/b/")],
    ),
    "open": (sockets(a=plain), [row(None, "none", True)]),
    "public": (sockets(a=public_consumer), [PUBLIC]),
    "known wrappers": (AllowedHostsOriginValidator(AuthMiddlewareStack(sockets(a=staff))), [STAFF]),
    "unknown wrapper": (Tokens(sockets(a=staff)), [PERHAPS_STAFF]),
    "unknown wrapper in a stack": (stack(Tokens(sockets(a=staff))), [STAFF]),
    "unknown wrapper in a stack that is open": (stack(Tokens(sockets(a=staff)), AllowAny()), [PERHAPS_STAFF]),
    "unknown wrapper around a stack": (Tokens(stack(sockets(a=plain))), [row("IsAuthenticated()", "default", None)]),
    "unknown wrapper around a stack and guards": (Tokens(stack(sockets(a=staff))), [PERHAPS_STAFF]),
    "unknown wrapper behind a policy": (require(admin)(Tokens(sockets(a=staff))), [row(f"({EITHER}) & IsStaff()")]),
    "unknown wrapper around what is public": (Tokens(sockets(a=public_consumer)), [PUBLIC]),
    "two applications": (Switch(sockets(a=staff), plain), [PERHAPS_STAFF, OPEN]),
    "a function beside the application": (Switch(sockets(a=staff), Function(plain)), [PERHAPS_STAFF, OPEN]),
    "a view beside the application": (Switch(sockets(a=staff), view), [PERHAPS_STAFF]),
    "a list beside the application": (Switch(sockets(a=staff), [plain]), [PERHAPS_STAFF]),
    "router with a fallback": (only(Fallback([path("a/", staff)])), [PERHAPS_STAFF, row(None, "none", None, "/")]),
    "router that keeps another application": (
        only(KeepsAnother([path("a/", staff, name="other")], plain)),
        [PERHAPS_STAFF, OPEN, row(None, "none", None, "/")],
    ),
    "stack with a call of its own": (StackOfTheSite(sockets(a=plain)), [row("IsAuthenticated()", "default", None)]),
    "stack with a call of its own, in a stack": (
        stack(StackOfTheSite(sockets(a=plain), default_policy=IsStaff())),
        [row("IsStaff()", "stack")],
    ),
    "opaque, in a stack": (only(stack(Function(plain))), [row("IsAuthenticated()", "default", path="/")]),
    "functions around a stack": (
        only(Function(partial(Function(Tokens(stack(plain)))))),
        [row("IsAuthenticated()", "default", None, "/")],
    ),
    "opaque": (only(opaque), [row(None, "none", None, "/")]),
    "class without as_asgi()": (sockets(a=Plain), [row(None, "none", None)]),
    "lets everybody in": (require(~DenyAll())(sockets(a=plain)), [row("~DenyAll()", is_open=None)]),
    "or lets in": (require(IsStaff() | AllowAny())(sockets(a=plain)), [row("IsStaff() | AllowAny()", is_open=None)]),
    "any protocol": (stack(URLRouter([path("a/", staff)])), [STAFF]),
    "over HTTP": (stack(over_http(a=OverHttp.as_asgi())), [row(None, "none", True)]),
    "over HTTP, decorated": (stack(over_http(a=require(IsStaff())(OverHttp.as_asgi()))), [STAFF]),
    "nothing": (None, []),
}


@pytest.mark.parametrize(("application", "expected"), ROWS.values(), ids=ROWS)
def test_each_endpoint_is_listed_with_what_protects_it(application, expected, rows_of):
    assert [(row.path, row.policy, row.source, row.is_open) for row in rows_of(application)] == expected


@pytest.mark.parametrize(
    "name",
    ["decorated", "stack's default", "nearest stack", "policy around a stack", "policy around a router"],
)
def test_the_policies_are_those_that_a_handshake_meets(name, rows_of):
    application, _ = ROWS[name]
    match = resolve(application, websocket_scope("/a/"))
    policies = [*match.guards.policies, *([match.default_policy] if match.default_policy is not None else [])]
    assert [each.expression for each in rows_of(application)[0].protections] == [repr(policy) for policy in policies]


@pytest.mark.parametrize("source", ["stack", "default"])
def test_a_default_policy_that_allows_everybody_leaves_open_what_is_not_public(source, rows_of, settings):
    settings.CHANNELS_WSDENY = {"DEFAULT_POLICY": IsStaff() if source == "stack" else AllowAny()}
    default_policy = AllowAny() if source == "stack" else None
    routes = sockets(a=plain, b=public_consumer, c=staff)
    rows = rows_of(stack(routes, default_policy))
    assert [row.source for row in rows] == [source, "decorator", "decorator"]
    assert [row.access for row in rows] == ["open", "public", "guarded"]
    assert not any(row.is_on_default for row in rows)
    (row,) = rows_of(require(IsStaff())(sockets(a=public_consumer)))
    assert row.access == "guarded"


def test_nested_routers_have_one_path_and_the_innermost_name(rows_of):
    inner = URLRouter([path("b/<int:pk>/", plain, name="b"), re_path(r"^c/(?P<x>\w+)/$", plain)])
    router = URLRouter([path("a/", inner, name="a"), path("d/", plain, name="d")])
    assert [(row.path, row.name) for row in rows_of(ProtocolTypeRouter({"websocket": router}))] == [
        ("/a/b/<int:pk>/", "b"),
        (r"/a/c/(?P<x>\w+)/$", "a"),
        ("/d/", "d"),
    ]


@pytest.mark.parametrize(
    ("application", "endpoint", "note"),
    [
        (sockets(a=plain), "Plain", None),
        (DenyMiddlewareStack(Tokens(sockets(a=staff))), "Staff", "behind tests.inspection.test_endpoints.Tokens"),
        (sockets(a=Plain), "Plain", "as_asgi() is missing"),
        (sockets(a=opaque), "opaque", "unknown what it leads to"),
        (sockets(a=Function(plain)), "Plain", f"behind {Function.__module__}.Function.<locals>.function"),
    ],
)
def test_an_endpoint_has_its_dotted_name_and_notes(application, endpoint, note, rows_of):
    (row,) = rows_of(application)
    assert (row.protocol, row.endpoint) == ("websocket", f"{HERE}.{endpoint}")
    assert (row.notes == ()) if note is None else (note in row.notes[0])


def test_an_application_that_refers_to_the_one_around_it_is_listed(rows_of):
    wrapper = Tokens(sockets(a=plain))
    wrapper.site = application = ProtocolTypeRouter({"websocket": wrapper})
    rows = rows_of(application)
    assert [(row.path, row.is_open) for row in rows] == [("/a/", True), ("/", None)]


def test_of_what_a_wrapper_keeps_nothing_is_evaluated(rows_of):
    wrapper = Tokens(sockets(a=plain))
    wrapper.user = SimpleLazyObject(pytest.fail)
    (row,) = rows_of(ProtocolTypeRouter({"websocket": wrapper}))
    assert row.is_open


def test_a_consumer_is_listed_for_its_protocol_or_both_if_it_is_of_neither(rows_of):
    for cls, protocols in ((AsyncConsumer, ["websocket", "http"]), (OverHttp, ["http"])):
        assert [row.protocol for row in rows_of(stack(URLRouter([path("a/", cls.as_asgi())])))] == protocols


@pytest.mark.parametrize("bring", [stack, with_hooks(Hooks())])
def test_a_stack_or_hooks_bring_the_default_policy_over_http_if_the_site_wants_that(bring, rows_of, settings):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}
    (row,) = rows_of(over_http(a=bring(OverHttp.as_asgi())))
    assert (row.policy, row.source) == ("IsAuthenticated()", "default")


def test_the_hooks_of_a_socket_are_those_of_the_site_the_stack_and_the_endpoint(rows_of, settings):
    registries = [Hooks(), Hooks(), Hooks()]
    for registry, name in zip(registries, "abc", strict=True):
        registry.on_request(hook := lambda request: None)
        hook.__qualname__ = name
    registries[2].on_response(protocols="http")(lambda request, response: None)
    settings.CHANNELS_WSDENY = {"HOOKS": [registries[0]]}
    consumer = with_hooks(registries[2])(plain)
    (row,) = rows_of(DenyMiddlewareStack(sockets(a=consumer), hooks=registries[1]))
    assert [hook.name[-1] for hook in row.hooks] == ["a", "b", "c"]
    (row,) = rows_of(sockets(a=plain))
    assert row.hooks == ()  # No layer of this package runs them.


def test_views_of_includes_have_one_path_and_their_namespaces(rows_of):
    inner = ([path("b/", view, name="b"), re_path(r"^c/$", view)], "app")
    rows = rows_of(None, path("a/", include(inner, namespace="space")), re_path(r"^ä/(?P<x>\d+)$", view))
    assert [(row.path, row.name) for row in rows] == [("/a/b/", "space:b"), ("/a/c/$", None), (r"/ä/(?P<x>\d+)$", None)]


@pytest.mark.parametrize("name", ["ROOT_URLCONF", "ASGI_APPLICATION"])
def test_what_importing_the_site_raises_comes_out(name, site, settings):
    setattr(settings, name, "nowhere.name")
    with pytest.raises(ModuleNotFoundError):
        report_rows()
