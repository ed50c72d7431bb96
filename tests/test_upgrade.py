"""A plain GET that reaches a WebSocket route: the denial of its policy, or else what it lacks."""

from __future__ import annotations

import pytest
from asgiref.sync import async_to_sync
from channels.auth import AuthMiddlewareStack
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib.auth import get_user_model
from django.core.asgi import get_asgi_application
from django.http import Http404, HttpResponse
from django.urls import include, path, re_path

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import login_required, public, require, with_hooks
from channels_wsdeny.policies import AllowAny, DenyAll, IsStaff
from tests.clients import fetch, knock
from tests.parts import AsyncCheck, Check, accept
from tests.test_stack import Wrapper

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

alice = get_user_model()(pk=1, username="alice")
boss = get_user_model()(pk=2, username="boss", is_staff=True)


def gone(request):
    raise Http404


urlpatterns = [
    path("page/", lambda request: HttpResponse("page")),
    path("both/", lambda request: HttpResponse("page of both")),
    path("gone/", gone),
    path("deep/", include([path("<slug:name>/", lambda request, name: HttpResponse(f"deep {name}"))])),
]


class Room(AsyncWebsocketConsumer): ...


websocket_urlpatterns = [
    path("open/", public(type("Open", (Room,), {})).as_asgi()),
    path("members/", login_required(type("Members", (Room,), {})).as_asgi()),
    path("staff/", require(IsStaff())(type("Staff", (Room,), {})).as_asgi()),
    path("locked/", Room.as_asgi()),
    path("closed/", require(DenyAll())(type("Closed", (Room,), {})).as_asgi()),
    path("both/", public(accept)),
    path("gone/", public(accept)),
    path("deep/", URLRouter([path("<slug:name>/", public(accept)), path("socket/only/", public(accept))])),
]


def site(*patterns, **kwargs):
    return DenyMiddlewareStack(
        ProtocolTypeRouter(
            {"http": get_asgi_application(), "websocket": URLRouter([*patterns, *websocket_urlpatterns])}
        ),
        **kwargs,
    )


HOST = [(b"host", b"testserver")]


def get(url, *, app=None, headers=(), **scope):
    """What the site answers to a plain request."""
    answer = async_to_sync(fetch)(app or site(), url, headers=[*HOST, *headers], **scope)
    answer.headers = [(name.lower(), value) for name, value in answer.headers]
    return answer


@pytest.fixture(params=["mirror", "no mirror"], autouse=True)
def mirrored(request, settings):
    """All of this is the same with the middleware and without."""
    if request.param == "no mirror":
        settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != MIRROR]
    return request.param == "mirror"


# What is answered.


def test_a_plain_get_on_an_open_socket_needs_an_upgrade():
    answer = get("/open/")
    assert (answer.status, answer.problem["code"]) == (426, "upgrade_required")
    assert (answer.header("upgrade"), answer.header("connection")) == ("websocket", "upgrade")
    assert answer.header("cache-control") == "no-store"


def test_the_problem_says_what_is_there():
    assert get("/open/").problem == {
        "type": "about:blank",
        "title": "Upgrade Required",
        "status": 426,
        "detail": "This address is a WebSocket.",
        "code": "upgrade_required",
    }


def test_a_head_is_answered_as_a_get():
    answer = get("/open/", method="HEAD")
    assert (answer.status, answer.header("upgrade")) == (426, "websocket")


@pytest.mark.parametrize("accepted", ["text/html", "text/plain"])
def test_a_person_gets_words(accepted):
    answer = get("/open/", headers=[(b"accept", accepted.encode())])
    assert (answer.status, answer.header("content-type")) == (426, f"{accepted}; charset=utf-8")
    assert b"This address is a WebSocket." in answer.body


@pytest.mark.parametrize(
    ("url", "user", "status"),
    [
        ("/members/", None, 401),
        ("/members/", alice, 426),
        ("/staff/", None, 401),
        ("/staff/", alice, 403),
        ("/staff/", boss, 426),
        ("/locked/", None, 401),
        ("/locked/", alice, 426),
        ("/closed/", boss, 403),
    ],
)
def test_the_policy_of_the_socket_is_asked_first(url, user, status):
    answer = get(url, user=user)
    assert answer.status == status
    assert (answer.header("upgrade") == "websocket") is (status == 426)


def test_the_answer_is_that_of_the_handshake():
    """But for a handshake that would be accepted."""
    for url in ("/members/", "/staff/", "/locked/", "/closed/"):
        handshake = async_to_sync(knock)(site(), url, user=None)
        answer = get(url, user=None)
        assert (answer.status, answer.body, answer.headers) == (
            handshake.status,
            handshake.body,
            handshake.headers,
        )


def test_the_user_is_that_of_the_session(headers_of):
    assert get("/members/").status == 401
    assert get("/members/", headers=headers_of("alice")).status == 426
    assert get("/staff/", headers=headers_of("alice")).status == 403
    assert get("/staff/", headers=headers_of("staff")).status == 426


def test_the_default_policy_of_the_stack_counts():
    assert get("/locked/", app=site(default_policy=AllowAny()), user=None).status == 426
    assert get("/locked/", app=site(default_policy=IsStaff()), user=alice).status == 403


def test_the_default_policy_of_the_site_counts(settings):
    settings.CHANNELS_WSDENY = {"DEFAULT_POLICY": "channels_wsdeny.policies.DenyAll"}
    assert get("/locked/", user=alice).status == 403


def test_a_policy_that_fails_is_a_500():
    app = site(path("broken/", require(Check(lambda request: 1 / 0))(accept)))
    answer = get("/broken/", app=app)
    assert (answer.status, answer.problem["code"]) == (500, "server_error")


def test_a_policy_sees_the_route():
    seen = []

    async def look(request):
        seen.append((request.resolver_match.kwargs, request.resolver_match.url_name))
        return True

    app = site(path("rooms/<slug:room>/", require(AsyncCheck(look))(accept), name="room"))
    assert get("/rooms/a/", app=app).status == 426
    assert seen == [({"room": "a"}, "room")]


def test_no_consumer_runs():
    ran = []

    @public
    class Consumer(AsyncWebsocketConsumer):
        async def __call__(self, scope, receive, send):
            ran.append("consumer")

    assert get("/here/", app=site(path("here/", Consumer.as_asgi()))).status == 426
    assert ran == []


def test_hooks_run_for_it_as_for_http():
    ran, hooks, own = [], Hooks(), Hooks()
    hooks.on_request(lambda request: ran.append("request"))
    hooks.on_request(lambda request: ran.append("websocket"), protocols="websocket")
    own.on_route(lambda request: ran.append("route"))
    hooks.on_response(lambda request, response: response.__setitem__("X-Hook", str(response.status_code)))
    app = site(path("here/", with_hooks(own)(public(accept))), hooks=hooks)
    answer = get("/here/", app=app)
    assert (answer.status, answer.header("x-hook"), ran) == (426, "426", ["request", "route"])


def test_a_hook_may_answer_in_its_place():
    hooks = Hooks()
    hooks.on_response(lambda request, response: Deny(404) if response.status_code == 426 else None)
    assert get("/open/", app=site(hooks=hooks)).status == 404


# HTTP/2 has no upgrade.


@pytest.mark.parametrize("version", ["2", "3"])
def test_from_http_2_on_it_forbids_the_headers(version):
    answer = get("/open/", http_version=version)
    assert (answer.status, answer.header("upgrade"), answer.header("connection")) == (426, None, None)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_http_1_has_the_headers(version):
    assert get("/open/", http_version=version).header("upgrade") == "websocket"


# Where HTTP has something itself.


def test_a_view_at_the_same_urlwins():
    assert (get("/both/").status, get("/both/").body) == (200, b"page of both")
    assert get("/deep/a/").body == b"deep a"


def test_a_view_at_the_same_urlthat_says_404_wins():
    assert get("/gone/").status == 404


def test_a_socket_beside_a_view_keeps_its_own_path():
    assert get("/deep/socket/only/").status == 426


def test_pages_are_left_alone():
    assert get("/page/").body == b"page"


def test_where_nothing_is_django_says_404():
    answer = get("/nowhere/")
    assert answer.status == 404
    assert answer.header("upgrade") is None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_djangos_business(method):
    answer = get("/open/", method=method)
    assert answer.status in {403, 404}  # CSRF comes first
    assert answer.header("upgrade") is None


CATCH_ALL = {
    "re_path": re_path(r"", public(accept)),
    "anchored": re_path(r"^.*$", public(accept)),
    "named": re_path(r"^(?P<rest>.*)$", public(accept)),
    "path converter": path("<path:rest>", public(accept)),
    "in a router": path("", URLRouter([re_path(r"^.*$", public(accept))])),
    "in a wrapper": path("", AuthMiddlewareStack(URLRouter([re_path(r"", public(accept))]))),
    "decorated": re_path(r"^.*$", require(DenyAll())(accept)),
}


@pytest.mark.parametrize("name", CATCH_ALL)
def test_a_route_for_all_paths_does_not_swallow_djangos_404(name):
    router = URLRouter([CATCH_ALL[name]])
    app = DenyMiddlewareStack(ProtocolTypeRouter({"http": get_asgi_application(), "websocket": router}))
    answer = get("/nowhere/", app=app)
    assert (answer.status, answer.header("upgrade")) == (404, None)
    assert get("/page/", app=app).body == b"page"


def test_a_route_for_all_paths_after_others_leaves_them_their_answer():
    app = site()
    router = app.inner.application_mapping["websocket"]
    router.routes.append(re_path(r"^.*$", public(accept)))
    assert (get("/nowhere/", app=app).status, get("/page/", app=app).body) == (404, b"page")


@pytest.mark.parametrize("websocket", [public(accept), AuthMiddlewareStack(public(accept)), Room.as_asgi()])
def test_a_socket_without_routes_is_there_for_all_paths(websocket):
    app = DenyMiddlewareStack(ProtocolTypeRouter({"http": get_asgi_application(), "websocket": websocket}))
    assert get("/nowhere/", app=app).status == 404
    assert get("/page/", app=app).body == b"page"


async def page(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"page of the app"})


class Page(AsyncHttpConsumer):
    async def handle(self, body):
        await self.send_response(200, b"page of the app")


HTTP_APPS = {
    "function": public(page),
    "plain function": page,
    "wrapper": Wrapper(page),
    "consumer": public(Page).as_asgi(),
    "router": URLRouter([path("open/", Page.as_asgi())]),
    "router before Django": URLRouter([path("open/", page), re_path("", get_asgi_application)]),
}


@pytest.mark.parametrize("name", HTTP_APPS)
def test_a_page_of_another_app_at_the_same_urlwins(name):
    app = site()
    app.inner.application_mapping["http"] = HTTP_APPS[name]
    assert get("/open/", app=app).body == b"page of the app"


def test_where_http_is_not_routed_at_all_a_socket_says_that_it_is_one():
    app = DenyMiddlewareStack(ProtocolTypeRouter({"websocket": URLRouter(websocket_urlpatterns)}))
    assert (get("/open/", app=app).status, get("/nowhere/", app=app).status) == (426, 404)


def test_a_router_that_has_pages_and_no_such_urlleaves_sockets_their_answer():
    app = site()
    app.inner.application_mapping["http"] = URLRouter([path("there/", page)])
    assert (get("/open/", app=app).status, get("/there/", app=app).body) == (426, b"page of the app")


def test_behind_a_wrapper_around_django_a_socket_says_that_it_is_one():
    app = site()
    app.inner.application_mapping["http"] = Wrapper(get_asgi_application())
    assert (get("/open/", app=app).status, get("/page/", app=app).body) == (426, b"page")


def test_in_nested_stacks_it_is_said_once():
    ran, hooks = [], Hooks()
    hooks.on_request(lambda request: ran.append("request"))
    app = DenyMiddlewareStack(site(hooks=hooks), hooks=hooks)
    assert (get("/open/", app=app).status, ran) == (426, ["request"])


def test_a_wrapper_between_stack_and_routes_hides_them():
    inner = ProtocolTypeRouter(
        {"http": get_asgi_application(), "websocket": Wrapper(URLRouter(websocket_urlpatterns))}
    )
    assert get("/open/", app=DenyMiddlewareStack(inner)).status == 404


# Paths.


def test_under_a_prefix_paths_are_those_behind_it():
    for url, status in (
        ("/app/open/", 426),
        ("/app/page/", 200),
        ("/app/both/", 200),
        ("/app/nowhere/", 404),
    ):
        assert get(url, root_path="/app").status == status


@pytest.mark.parametrize("url", ["/open", "/open//", "//open/", "/OPEN/", "/open/x"])
def test_what_is_nearly_the_urlis_not(url):
    answer = get(url)
    if url == "//open/":  # Channels strips slashes before it routes, Django does not
        assert answer.status == 426
    else:
        assert answer.status in {301, 404}


def test_a_query_does_not_matter():
    assert get("/open/?a=1").status == 426
    assert get("/both/?a=1").status == 200


def test_a_query_that_is_no_utf_8_is_a_400():
    assert get("/open/", query_string=b"\xff").status == 400


def test_a_converter_that_fails_is_no_route():
    class Broken:
        regex = "[a-z]+"

        def to_python(self, value):
            raise ZeroDivisionError

        def to_url(self, value):
            return value

    from django.urls import converters, register_converter

    register_converter(Broken, "upgrade_broken")
    try:
        assert get("/nowhere/", app=site(path("<upgrade_broken:name>/", public(accept)))).status == 404
    finally:
        del converters.REGISTERED_CONVERTERS["upgrade_broken"]
        converters.get_converters.cache_clear()


# Without a stack.


def test_a_decorated_consumer_alone_knows_no_routes():
    answer = get("/", app=require(DenyAll())(type("Alone", (Page,), {})).as_asgi())
    assert answer.status == 403


class Locked(AsyncWebsocketConsumer):
    """Is behind the stack's default policy."""


Public = public(type("Public", (AsyncWebsocketConsumer,), {}))


@pytest.mark.parametrize("wrap", [lambda app: app, lambda app: URLRouter([path("ws/", app)])])
@pytest.mark.parametrize(("consumer", "status"), [(Public, 426), (Locked, 401)])
async def test_a_consumer_of_sockets_alone_is_no_page(wrap, consumer, status):
    stack = DenyMiddlewareStack(wrap(consumer.as_asgi()))
    assert (await fetch(stack, "/ws/")).status == status
