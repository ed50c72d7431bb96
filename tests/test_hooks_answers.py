"""What hooks may answer, and what they see: requests, routes and responses, on sockets and HTTP alike."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.testing import ApplicationCommunicator
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.http import Http404, HttpResponse, UnreadablePostError
from django.urls import path

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.policies import AllowAny, DenyAll, IsStaff
from tests.clients import Handshake, fetch, http_scope, knock, websocket_scope
from tests.parts import Check, accept
from tests.test_hooks import DOORS, FLAVOURS, KINDS, ask, noting, page, surrounding
from tests.test_stack import Wrapper

pytestmark = pytest.mark.django_db


@pytest.fixture(params=DOORS)
def door(request):
    return request.param


# Ended on the way in.


def answers(ran, name, make=lambda: HttpResponse("no", status=403)):
    def hook(*args):
        ran.append(name)
        return make()

    return hook


@pytest.mark.parametrize("kind", ["request", "route"])
async def test_an_early_answer_stops_hooks_of_its_kind_policies_and_endpoint_but_no_response_hook(
    kind, ran, hooks, door
):
    getattr(hooks, f"on_{kind}")(answers(ran, "early"), priority=1)
    getattr(hooks, f"on_{kind}")(answers(ran, "late"))
    hooks.on_response(noting(ran, "response"))
    policy = Check(lambda request: ran.append("policy") or True)

    async def endpoint(scope, receive, send):
        ran.append("endpoint")

    asked, _ = DOORS[door]
    answer = await asked(DenyMiddlewareStack(require(policy)(endpoint), hooks=hooks), "/")
    assert (answer.status, ran) == (403, ["early", "response"])


async def test_an_early_answer_of_the_endpoints_hooks_passes_the_hooks_of_the_stack(ran, hooks):
    inner = Hooks()
    hooks.on_request(noting(ran, "outer"))
    hooks.on_response(noting(ran, "OUTER"))
    inner.on_request(answers(ran, "inner"))
    inner.on_response(noting(ran, "INNER"))
    assert (await knock(DenyMiddlewareStack(with_hooks(inner)(accept), hooks=hooks), "/")).status == 403
    assert ran == ["outer", "inner", "INNER", "OUTER"]


@pytest.mark.parametrize("status", [100, 101, 200, 204, 299])
@pytest.mark.parametrize("kind", ["request", "route", "response"])
async def test_no_status_of_a_hook_opens_a_socket(kind, status, ran, hooks):
    getattr(hooks, f"on_{kind}")(lambda *args: HttpResponse(status=status))
    answer = await ask("accept", hooks)
    assert (answer.status, answer.problem["code"]) == (500, "server_error")


async def test_over_http_an_early_answer_may_have_any_status(hooks):
    hooks.on_request(lambda request: HttpResponse(b"made", status=201))
    answer = await ask("HTTP denial", hooks)
    assert (answer.status, answer.body, answer.header("content-length")) == (201, b"made", "4")


@pytest.mark.parametrize("kind", ["request", "route", "response"])
@pytest.mark.parametrize("answer", [True, 1, "no", b"no", (), object, DenyAll(), asyncio.sleep], ids=repr)
async def test_what_is_no_answer_denies_and_the_log_says_whose_it_was(kind, answer, hooks, caplog):
    def hook(*args):
        return answer(0) if answer is asyncio.sleep else answer

    getattr(hooks, f"on_{kind}")(hook)
    assert (await ask("accept", hooks)).status == 500
    assert f"<on_{kind} hook tests.test_hooks_answers." in caplog.text
    assert "A hook returns None, a response or a Deny." in caplog.text


ERRORS = {
    "error": ZeroDivisionError,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "CancelledError": asyncio.CancelledError,
    "TimeoutError": TimeoutError,
    "group": lambda: ExceptionGroup("group", [ValueError()]),
    "OSError": OSError,
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("kind", ["request", "route", "response", "exception"])
@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_hook_that_raises_anything_opens_no_door(flavour, kind, error, hooks):
    def hook(*args):
        raise ERRORS[error]()

    async def async_hook(*args):
        raise ERRORS[error]()

    options = {"blocking": flavour == "blocking"}
    register = (
        hooks.on_exception(Exception, **options)
        if kind == "exception"
        else getattr(hooks, f"on_{kind}")(**options)
    )
    register(async_hook if flavour == "async" else hook)
    endpoint = require(Check(lambda request: 1 / 0))(accept) if kind == "exception" else public(accept)
    answer = await knock(DenyMiddlewareStack(endpoint, hooks=hooks), "/")
    assert answer.status == (503 if error == "TimeoutError" else 500)


@pytest.mark.parametrize("kind", ["request", "route", "response"])
async def test_a_hook_that_ends_its_thread_ends_neither_the_server_nor_the_rule(kind, hooks):
    def hook(*args):
        raise SystemExit

    getattr(hooks, f"on_{kind}")(hook)
    assert (await ask("accept", hooks)).status == 500


async def test_hooks_that_cannot_be_used_open_no_door(settings, door):
    settings.CHANNELS_WSDENY = {"HOOKS": ["tests.test_hooks_answers.nowhere"]}
    asked, endpoint = DOORS[door]
    assert (await asked(DenyMiddlewareStack(endpoint), "/")).status == 500
    assert (await asked(endpoint, "/")).status == 500


async def test_a_request_that_is_malformed_meets_no_hook(hooks, ran, door):
    hooks.on_request(noting(ran, "request"))
    assert (await ask(door, hooks, query_string=b"\xff")).status == 400
    assert ran == []


# The request that hooks see.


@public
class Room(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept(headers=[(b"x-room", self.scope["url_route"]["kwargs"]["room"].encode())])


class HttpRoom(AsyncHttpConsumer):
    async def handle(self, body):
        await self.send_response(
            200, b"", headers=[(b"x-room", self.scope["url_route"]["kwargs"]["room"].encode())]
        )


async def room(scope, receive, send):
    headers = [(b"x-room", scope["url_route"]["kwargs"]["room"].encode())]
    await receive()
    await send({"type": "websocket.accept", "headers": headers})
    await receive()


ROOMS = {
    "consumer": (knock, lambda: Room.as_asgi()),
    "app": (knock, lambda: public(room)),
    "consumer in a wrapper": (knock, lambda: Wrapper(Room.as_asgi())),
    "app in a wrapper": (knock, lambda: Wrapper(public(room))),
    "nested stack": (knock, lambda: Wrapper(DenyMiddlewareStack(Room.as_asgi()))),
    "HTTP consumer": (fetch, lambda: public(type("Decorated", (HttpRoom,), {})).as_asgi()),
    "HTTP consumer in a wrapper": (
        fetch,
        lambda: Wrapper(public(type("Decorated", (HttpRoom,), {})).as_asgi()),
    ),
}


@pytest.mark.parametrize("place", ROOMS)
@pytest.mark.parametrize(
    "outer", [lambda app: app, lambda app: URLRouter([path("a/", app)])], ids=["", "deep"]
)
async def test_a_route_hook_may_change_what_the_route_captured(outer, place, hooks):
    @hooks.on_route
    def underscores(request):
        kwargs = request.resolver_match.kwargs
        kwargs["room"] = kwargs["room"].replace("-", "_")

    asked, make = ROOMS[place]
    router = outer(URLRouter([path("<slug:room>/", make(), name="room")]))
    url = "/foo-bar-baz/" if outer(router) is router else "/a/foo-bar-baz/"
    answer = await asked(DenyMiddlewareStack(router, hooks=hooks), url)
    assert (answer.status, answer.header("x-room")) == (101 if asked is knock else 200, "foo_bar_baz")


async def test_policies_see_what_a_route_hook_changed(hooks):
    hooks.on_route(lambda request: request.resolver_match.kwargs.update(room="changed"))
    policy = Check(lambda request: request.resolver_match.kwargs == {"room": "changed"})
    router = URLRouter([path("<slug:room>/", require(policy)(room))])
    assert (await knock(DenyMiddlewareStack(router, hooks=hooks), "/a/")).status == 101


@pytest.mark.parametrize("place", ["consumer in a wrapper", "app in a wrapper", "nested stack"])
async def test_in_a_wrapper_route_hooks_see_what_routers_further_out_captured(place, hooks):
    seen = []
    hooks.on_route(lambda request: seen.append(request.resolver_match.kwargs))
    _, make = ROOMS[place]
    router = URLRouter([path("<slug:room>/", make())])
    assert (await knock(DenyMiddlewareStack(router, hooks=hooks), "/a/")).status == 101
    assert seen == [{"room": "a"}]


async def test_what_a_route_hook_changed_is_gone_with_the_request(hooks):
    seen = []

    @hooks.on_route
    def add(request):
        seen.append(dict(request.resolver_match.kwargs))
        request.resolver_match.kwargs.clear()
        request.resolver_match.kwargs["room"] = "b"

    application = DenyMiddlewareStack(URLRouter([path("<room>/", public(room), {"extra": 1})]), hooks=hooks)
    for _ in range(2):
        assert (await knock(application, "/a/")).header("x-room") == "b"
    assert seen == [{"room": "a", "extra": 1}] * 2


async def test_a_route_hook_sees_the_route_its_name_and_the_consumer(hooks):
    matches = []
    hooks.on_route(lambda request: matches.append(request.resolver_match))
    router = URLRouter([path("rooms/", URLRouter([path("<slug:room>/", Room.as_asgi(), name="room")]))])
    assert (await knock(DenyMiddlewareStack(router, hooks=hooks), "/rooms/a/")).status == 101
    (match,) = matches
    assert (match.route, match.url_name, match.kwargs) == ("rooms/<slug:room>/", "room", {"room": "a"})
    assert match.func.consumer_class is Room


async def test_request_hooks_come_before_the_route_is_known(hooks):
    seen = []
    hooks.on_request(lambda request: seen.append(request.resolver_match))
    router = URLRouter([path("<slug:room>/", Room.as_asgi())])
    assert (await knock(DenyMiddlewareStack(router, hooks=hooks), "/a/")).status == 101
    assert len(seen) == 1


async def test_where_nothing_is_routed_route_hooks_do_not_run(hooks, ran):
    hooks.on_request(noting(ran, "request"))
    hooks.on_route(noting(ran, "route"))
    hooks.on_exception(Http404)(noting(ran, "exception"))
    hooks.on_response(noting(ran, "response"))
    stack = DenyMiddlewareStack(URLRouter([path("there/", public(accept))]), hooks=hooks)
    for asked in (knock, fetch):
        assert (await asked(stack, "/nowhere/")).status == 404
    assert ran == ["request", "exception", "response"] * 2


@pytest.mark.parametrize("outer", [lambda app: app, lambda app: DenyMiddlewareStack(Wrapper(app))])
async def test_hooks_of_a_router_run_where_nothing_is_routed_in_it(outer, hooks):
    hooks.on_response(lambda request, response: response.headers.__setitem__("X-Hook", "1"))
    router = outer(with_hooks(hooks)(URLRouter([path("there/", public(accept))])))
    answer = await knock(router, "/nowhere/")
    assert (answer.status, answer.header("x-hook")) == (404, "1")


async def test_ctx_is_one_from_the_first_hook_to_the_last_message_of_a_socket(hooks):
    @hooks.around
    async def begin(request, call_next):
        request.ctx.seen = ["around"]
        response = await call_next(request)
        response["X-Seen"] = " ".join(request.ctx.seen)
        return response

    hooks.on_request(lambda request: request.ctx.seen.append("request"))
    hooks.on_route(lambda request: request.ctx.seen.append("route"))
    hooks.on_response(lambda request, response: request.ctx.seen.append("response"))

    class Consumer(AsyncWebsocketConsumer):
        async def connect(self):
            self.ctx = self.scope["wsdeny"].request.ctx
            self.ctx.seen.append("consumer")
            await self.accept()

        async def receive(self, text_data=None, bytes_data=None):
            await self.send(" ".join(self.ctx.seen))

    policy = Check(lambda request: request.ctx.seen.append("policy") is None)
    application = DenyMiddlewareStack(require(policy)(Consumer).as_asgi(), hooks=hooks)
    handshake = Handshake(application, websocket_scope("/"))
    answer = await handshake.connect()
    seen = "around request route policy consumer response"
    assert answer.header("x-seen") == seen
    await handshake.send("?")
    assert (await handshake.next())["text"] == seen
    await handshake.leave()


async def test_two_sockets_share_no_ctx(hooks, door):
    seen = []

    @hooks.on_request
    def once(request):
        seen.append(vars(request.ctx).copy())
        request.ctx.mine = True

    await ask(door, hooks)
    await ask(door, hooks)
    assert seen == [{}, {}]


@pytest.mark.parametrize(
    "protocols", ["websocket", "http", ("websocket",), ["http"], {"http", "websocket"}, None]
)
@pytest.mark.parametrize("kind", KINDS)
async def test_protocols_narrow_a_hook(kind, protocols, hooks, ran, door):
    if kind == "around":
        hooks.around(surrounding(ran, "a"), protocols=protocols)
    elif kind == "exception":
        hooks.on_request(Check(lambda request: 1 / 0).check)
        hooks.on_exception(ZeroDivisionError, protocols=protocols)(noting(ran, "a"))
    else:
        getattr(hooks, f"on_{kind}")(noting(ran, "a"), protocols=protocols)
    await ask(door, hooks)
    runs = protocols is None or ("http" if "HTTP" in door else "websocket") in protocols
    assert ("a" in ran) is runs


# The response that hooks see.


async def test_a_response_hook_sees_an_accept_as_a_bare_101(hooks):
    seen = []
    hooks.on_response(lambda request, response: seen.append((response.status_code, dict(response.items()))))
    assert (await ask("accept", hooks)).headers == []
    assert seen == [(101, {})]


async def test_headers_and_cookies_of_hooks_go_out_beside_those_of_the_application(hooks):
    @hooks.on_response
    def add(request, response):
        response["X-Hook"] = "a"
        response.set_cookie("one", "1")
        response.set_cookie("two", "2", httponly=True)

    headers = [(b"x-app", b"b"), (b"set-cookie", b"zero=0")]

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "chat", "headers": headers})
        await receive()

    answer = await knock(DenyMiddlewareStack(public(app), hooks=hooks), "/")
    assert answer.messages[0]["subprotocol"] == "chat"
    assert answer.headers == [
        ("x-app", "b"),
        ("set-cookie", "zero=0"),
        ("x-hook", "a"),
        ("set-cookie", "one=1; Path=/"),
        ("set-cookie", "two=2; HttpOnly; Path=/"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Upgrade"),
        *("Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"),
    ],
)
async def test_a_101_says_nothing_that_is_the_servers_to_say(name, hooks):
    """Such as a hook may say on every page."""
    hooks.on_response(lambda request, response: response.headers.__setitem__(name, "5"))
    answer = await ask("accept", hooks)
    assert (answer.status, answer.headers) == (101, [])


@pytest.mark.parametrize(("status", "sent"), [(403, 403), (404, 404), (503, 503), (499, 400), (302, 302)])
async def test_a_status_that_a_hook_changes_denies_an_accept(status, sent, hooks):
    def change(request, response):
        response.status_code = status

    hooks.on_response(change)
    answer = await ask("accept", hooks)
    assert (answer.status, answer.body, answer.header("cache-control")) == (sent, b"", "no-store")


@pytest.mark.parametrize("status", [200, 100, 204])
async def test_a_status_that_a_hook_changes_to_what_is_no_denial_is_a_500(status, hooks):
    def change(request, response):
        response.status_code = status

    hooks.on_response(change)
    assert [(await ask(door, hooks)).status for door in ("accept", "denial")] == [500, 500]


@pytest.mark.parametrize(
    ("name", "value"),
    [("X Bad", "1"), ("X-Bad:", "1"), ("X-Bad", "a\0b"), ("X-Bad\n", "1"), ("X-Bad", "a\r\nb")],
)
async def test_a_header_that_cannot_be_sent_opens_no_door(name, value, hooks, door):
    hooks.on_response(lambda request, response: response.__setitem__(name, value))
    assert (await ask(door, hooks)).status == 500


async def test_a_hook_may_change_the_body_of_a_denial(hooks):
    @hooks.on_response
    def shorten(request, response):
        response.content = b"no"

    for door in ("denial", "HTTP denial"):
        answer = await ask(door, hooks)
        assert (answer.status, answer.body, answer.header("content-length")) == (403, b"no", "2")


SHARED = HttpResponse(b"shared", status=403)


@pytest.mark.parametrize("kind", ["request", "route", "response"])
async def test_a_response_that_answers_many_keeps_nothing_of_any(kind, hooks, door):
    getattr(hooks, f"on_{kind}")(lambda *args: SHARED)
    hooks.on_request(lambda request: request.session.update({"a": 1}), priority=1)
    outer = Hooks()
    outer.on_response(lambda request, response: response.set_cookie("visitor", "1"), priority=5)
    asked, endpoint = DOORS[door]
    application = DenyMiddlewareStack(with_hooks(hooks)(endpoint), hooks=outer)
    answer = await asked(application, "/")
    assert (answer.status, answer.body) == (403, b"shared")
    assert len([name for name, _ in answer.headers if name == "set-cookie"]) == 2
    assert (dict(SHARED.items()), len(SHARED.cookies)) == ({"Content-Type": "text/html; charset=utf-8"}, 0)


@pytest.mark.parametrize("kind", ["request", "route", "response"])
async def test_a_session_that_a_hook_changes_is_saved(kind, hooks, door, settings):
    getattr(hooks, f"on_{kind}")(lambda request, *args: request.session.update({"seen": kind}))
    answer = await ask(door, hooks)
    cookie = answer.header("set-cookie")
    assert cookie.startswith(f"{settings.SESSION_COOKIE_NAME}=")


async def test_hooks_run_for_the_handshake_and_not_for_messages(hooks, ran):
    for kind in ("request", "route", "response"):
        getattr(hooks, f"on_{kind}")(noting(ran, kind))
    hooks.around(surrounding(ran, "around"))
    hooks.on_exception(noting(ran, "exception"))

    class Consumer(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            raise ZeroDivisionError

    handshake = Handshake(DenyMiddlewareStack(public(Consumer).as_asgi(), hooks=hooks), websocket_scope("/"))
    assert (await handshake.connect()).status == 101
    before = list(ran)
    await handshake.send("a")
    with pytest.raises(ZeroDivisionError):
        await handshake.end()
    assert ran == before == ["around", "request", "route", "response", "AROUND"]


@pytest.mark.parametrize("kind", ["request", "route", "response"])
async def test_where_denials_are_closes_a_hook_closes_and_its_cookies_go_out(kind, hooks, ran, settings):
    settings.CHANNELS_WSDENY = {"DENY_WITH": "close"}
    getattr(hooks, f"on_{kind}")(lambda *args: ran.append(kind) or Deny(429))
    outer = Hooks()
    outer.on_response(lambda request, response: response.set_cookie("seen", "1"))
    endpoint = with_hooks(hooks)(public(accept))
    handshake = Handshake(DenyMiddlewareStack(endpoint, hooks=outer), websocket_scope("/"))
    answer = await handshake.connect()
    assert (answer.status, answer.header("set-cookie"), ran) == (101, "seen=1; Path=/", [kind])
    assert await handshake.next() == {"type": "websocket.close", "code": 4429, "reason": "throttled"}
    await handshake.leave()


@pytest.mark.parametrize("policy", [AllowAny(), IsStaff()], ids=repr)
async def test_a_default_policy_of_the_stack_is_not_asked_over_http(policy, hooks, ran):
    hooks.on_request(noting(ran, "request"))
    answer = await fetch(DenyMiddlewareStack(page, default_policy=policy, hooks=hooks), "/")
    assert (answer.status, answer.body, ran) == (200, b"page", ["request"])


@pytest.mark.parametrize(("policy", "status"), [(AllowAny(), 200), (IsStaff(), 401)], ids=repr)
async def test_a_default_policy_of_the_stack_is_asked_over_http_when_asked_for(
    policy, status, hooks, settings
):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}
    answer = await fetch(DenyMiddlewareStack(page, default_policy=policy, hooks=hooks), "/")
    assert answer.status == status


async def test_an_exception_hook_sees_no_half_of_a_body_that_a_wrapper_had_begun_to_read(hooks):
    seen = []

    @hooks.on_exception(ZeroDivisionError)
    def look(request, error):
        with pytest.raises(UnreadablePostError) as caught:
            request.body  # noqa: B018
        seen.append(caught.value)

    @with_hooks(hooks)
    async def fail(scope, receive, send):
        raise ZeroDivisionError

    async def begin(scope, receive, send):
        await receive()
        await fail(scope, receive, send)

    chunks = [
        {"type": "http.request", "body": b"abc", "more_body": True},
        {"type": "http.request", "body": b"def"},
    ]
    communicator = ApplicationCommunicator(DenyMiddlewareStack(begin), http_scope("/", method="POST"))
    for chunk in chunks:
        await communicator.send_input(chunk)
    assert (await communicator.receive_output())["status"] == 500
    assert len(seen) == 1
