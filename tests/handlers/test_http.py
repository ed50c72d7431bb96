"""HTTP requests to ASGI applications that are not Django's, and to the paths of sockets."""

import asyncio
import json
from contextlib import suppress

import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import DenyConnection
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.middleware import BaseMiddleware
from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib.sessions.backends.db import SessionStore
from django.core.asgi import get_asgi_application
from django.core.signals import request_finished
from django.http import FileResponse, Http404, HttpResponse, StreamingHttpResponse
from django.urls import path, re_path

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.authentication import BearerAuthentication, SubprotocolToken
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import login_required, public, require
from channels_wsdeny.exceptions import HandshakeDenied
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated, IsStaff
from tests.support.clients import fetch
from tests.support.mirror import DISCONNECT, HOST, REQUEST, START, Server, body, made, plain
from tests.support.policies import AsyncCheck, Check, accept, raising, raising_app
from tests.support.site import Site, hello, noting, tell
from tests.support.transports import DJANGO, Wrapper
from tests.support.wrappers import Function

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


async def tell_the_body(self, body):
    await self.send_response(200, b"got " + body)


ALLOW = AllowAny()


def consumer(handle=tell_the_body, policy=ALLOW):
    return require(policy)(type("Consumer", (AsyncHttpConsumer,), {"handle": handle})).as_asgi()


def deny(*arguments):
    return Deny(403)


# Allowed and denied


async def test_an_allowed_request_reaches_the_application_with_its_body(headers_of):
    for policy in (AllowAny(), AsyncCheck(lambda request: True), IsAuthenticated()):
        parts = [{**REQUEST, "body": b"a", "more_body": True}, {**REQUEST, "body": b"b"}]
        server = Server(consumer(policy=policy), *parts, method="POST", headers=headers_of("alice"))
        assert (await server.end(), server.body) == (None, b"got ab")


async def test_a_deny_whose_status_no_longer_denies_is_a_500(caplog):
    def let_in(request):
        deny = Deny(403, response=HttpResponse(status=403))
        deny.response.status_code = 200
        return deny

    def let_in_by_status(request):
        deny = Deny(403)
        deny.status = 200
        return deny

    for policy in (let_in, let_in_by_status):
        assert (await fetch(require(Check(policy))(plain), "/")).status == 500
    assert "The status of a denial is 300-599." in caplog.text


async def test_each_policy_is_asked_once_for_one_request(ran):
    policy = Check(lambda request: ran.append("asked") or True)
    app = require(policy)(require(policy)(consumer(policy=policy)))
    assert ((await fetch(app, "/")).status, ran) == (200, ["asked"])


async def test_a_policy_sees_the_request_and_its_route():
    def look(request):
        found = request.method, request.GET["a"], request.headers["X-A"], request.resolver_match.kwargs
        return found == ("PUT", "1", "2", {"pk": 3})

    routes = URLRouter([path("room/<int:pk>/", consumer(policy=Check(look)))])
    for app in (routes, DenyMiddlewareStack(routes)):
        assert (await fetch(app, "/room/3/?a=1", "PUT", headers=[(b"x-a", b"2")])).status == 200


async def test_a_policy_that_reads_the_body_denies_rather_than_see_an_empty_one(caplog):
    form = [(b"content-type", b"application/x-www-form-urlencoded"), (b"content-length", b"3")]
    readers = [lambda r: r.body, lambda r: r.read(), lambda r: r.POST, lambda r: r.FILES, list]
    for read in readers:
        app = require(Check(lambda request, read=read: read(request) or True))(plain)
        assert (await fetch(app, "/", "POST", b"a=b", headers=form)).status == 500
    errors = [str(record.exc_info[1]) for record in caplog.records if record.name == "django.request"]
    assert ["read by the ASGI application" in error for error in errors] == [True] * len(readers)


async def test_routes_are_those_of_the_router():
    async def handle(self, body):
        await self.send_response(200, json.dumps(self.scope["url_route"]["kwargs"]).encode())

    missing = consumer(policy=Check(raising(Http404)))
    app = require(AllowAny())(URLRouter([path("<int:pk>/", consumer(handle)), path("", missing), path("", plain)]))
    for router in (app, URLRouter([path("in/", app), path("in/other/", public(plain))])):
        prefix = "" if router is app else "/in"
        assert json.loads((await fetch(router, f"{prefix}/3/")).body) == {"pk": 3}
        assert (await fetch(router, f"{prefix}/")).status == 404  # not the next route
    assert (await fetch(router, "/in/other/")).body == b"secret"
    assert (await fetch(app, "/nowhere/")).status == 404


# The application's response


async def test_the_response_streams_through_with_all_its_messages():
    go_on = asyncio.Event()

    @public
    async def app(scope, receive, send):
        await send({"type": "http.response.push", "path": "/style.css", "headers": []})
        cookies = [(b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")]
        await send({**START, "status": 203, "headers": [(b"X-A", b"1"), *cookies], "trailers": True})
        await send(body(b"a", more=True))
        await go_on.wait()
        await send(body(b"b"))
        await send({"type": "http.response.trailers", "headers": []})

    server = Server(DenyMiddlewareStack(app, hooks=noting([], "it")))
    await server.until(3)
    assert (server.sent[1]["status"], server.sent[1]["trailers"], server.body) == (203, True, b"a")
    go_on.set()
    rest = [body(b"b"), {"type": "http.response.trailers", "headers": []}]
    assert (await server.end(), server.sent[3:]) == (None, rest)


async def test_the_headers_of_an_application_go_out_as_given_where_nothing_is_added(hooks):
    headers = [[b"X-Twice", b"1"], (b"Set-Cookie", b"a=1"), (b"X-Twice", b"2"), (b"Set-Cookie", b"b=2")]
    lower = [(b"x-twice", b"1, 2"), (b"x-a", b"b"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]

    @public
    async def app(scope, receive, send):
        await send({**START, "headers": headers})
        await send(body(b"a"))

    nested = DenyMiddlewareStack(DenyMiddlewareStack(app, hooks=noting([], "it")))
    adding = DenyMiddlewareStack(app, hooks=made("response", tell("X-A", lambda *_: "b")))
    for wrapped, expected in (app, headers), (DenyMiddlewareStack(app), headers), (nested, headers), (adding, lower):
        server = Server(wrapped)
        await server.end()
        assert server.sent[0]["headers"] == expected


async def test_headers_that_can_be_read_but_once_go_out_as_any_others():
    """ASGI allows any iterable of pairs."""

    @public
    async def app(scope, receive, send):
        await send({**START, "headers": iter([(b"x-a", b"1")])})
        await send(body(b"a"))

    server = Server(app)
    await server.end()
    assert server.sent[0]["headers"] == [(b"x-a", b"1")]


async def test_a_header_that_cannot_be_sent_is_a_500():
    @public
    async def app(scope, receive, send):
        await send({**START, "headers": scope["extra"]})
        await send(body(b"secret"))

    headers = [(b"x-a", b"1\r\nset-cookie: b=c"), (b"x a", b"1"), ("x-a", b"1"), (b"x-a", "1"), (b"x-a", b"\0")]
    for header in headers:
        answer = await fetch(app, "/", extra=[header])
        assert (answer.status, answer.header("set-cookie"), b"secret" in answer.body) == (500, None, False)


async def test_an_exception_before_the_response_is_a_denial_and_after_it_the_servers():
    async def late(scope, receive, send):
        await send(START)
        raise scope["error"]

    for error, status in ((DenyConnection(), 403), (KeyError("secret"), 500), (Deny(402), 402)):
        answer = await fetch(public(raising_app(error)), "/")
        assert (answer.status, answer.problem["status"], b"secret" in answer.body) == (status, status, False)
        server = Server(public(late), error=error)
        assert (await server.end(), server.sent) == (error, [START])


async def test_an_application_without_a_response_and_one_whose_task_was_cancelled_are_a_500(caplog):
    @public
    async def silent(scope, receive, send): ...

    @public
    async def cancelled(scope, receive, send):
        raise asyncio.CancelledError

    @public
    async def hasty(scope, receive, send):
        await send(body(b"secret"))

    for app in (silent, cancelled, hasty):
        assert (await fetch(app, "/")).status == 500
    texts = [str(record.exc_info[1]) for record in caplog.records if record.name == "django.request"]
    told = [".silent ended without a response", ".cancelled awaited was", "Expected 'http.response.start' first"]
    assert [part in text for part, text in zip(told, texts, strict=True)] == [True] * 3


async def test_nothing_is_sent_after_a_denial():
    outcomes = []

    @public
    async def app(scope, receive, send):
        async def late():
            await asyncio.sleep(0.02)
            await send(START)

        outcomes.append(asyncio.create_task(late()))
        raise Deny(403)

    @public
    async def wrapper(scope, receive, send):
        await require(DenyAll())(plain)(scope, receive, send)
        await send(START)

    @public
    async def goes_on(scope, receive, send):
        await plain(scope, receive, send)
        with pytest.raises(HandshakeDenied):
            await send(body(b"more"))

    @public
    async def pushes(scope, receive, send):
        with suppress(OSError):
            await plain(scope, receive, send)
        await send({"type": "http.response.push", "path": "/secret/", "headers": []})

    denied = DenyMiddlewareStack(pushes, hooks=made("response", deny))
    for each, status in ((app, 403), (wrapper, 403), (goes_on, 200), (denied, 403)):
        server = Server(each)
        await asyncio.wait({server.task})
        (outcome,) = await asyncio.gather(*outcomes, return_exceptions=True)
        assert isinstance(outcome, HandshakeDenied)
        assert (await server.end(), len(server.sent), server.sent[0]["status"]) == (None, 2, status)


# Clients that leave, and servers that cancel


async def test_a_client_that_leaves_is_sent_nothing_and_leaves_no_record(caplog, hooks):
    @hooks.on_response
    async def slow(request, response):
        await asyncio.sleep(0.02)

    async def leaving(scope, receive, send):
        left = asyncio.ensure_future(receive())
        try:
            await send(START)
        finally:
            await left

    part = {**REQUEST, "body": b"a", "more_body": True}
    for app, events in (
        (consumer(), [part, DISCONNECT]),
        (require(AllowAny())(get_asgi_application()), [part, DISCONNECT]),
        (DenyMiddlewareStack(public(leaving), hooks=hooks), [DISCONNECT]),
    ):
        server = Server(app, *events, method="POST")
        await server.end()
        assert (server.sent, caplog.records) == ([], [])


async def test_an_event_that_an_application_gave_up_waiting_for_is_got_after_its_response_has_begun(ran):
    @public
    async def app(scope, receive, send):
        await receive()
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await receive()
        await send(START)
        ran.append(await receive())

    server = Server(app)
    await server.until(1)
    server.events.put_nowait(DISCONNECT)
    assert (await server.end(), ran) == (None, [DISCONNECT])


@pytest.mark.parametrize("turns", [0, 1, 3, 8, 21, 55])
async def test_a_server_that_cancels_leaves_nothing(turns, ran):
    async def app(scope, receive, send):
        try:
            await send(START)
            while True:
                await send(body(b"a", more=True))
                await asyncio.sleep(0)
        finally:
            ran.append("ended")

    server = Server(DenyMiddlewareStack(public(app), hooks=noting([], "it")))
    for _ in range(turns):
        await asyncio.sleep(0)
    server.task.cancel()
    await server.end()
    assert server.task.cancelled()


# Hooks


async def test_response_hooks_change_status_headers_and_cookies_and_see_no_body(hooks):
    @hooks.on_response
    def change(request, response):
        assert (response.status_code, dict(response.items())) == (200, {"content-type": "text/plain"})
        assert response.streaming
        with pytest.raises(AttributeError, match="streams through"):
            response.content  # noqa: B018 - raises
        response.status_code = 202
        response["X-Hook"] = "1"
        response.set_cookie("hook", "1")

    answer = await fetch(DenyMiddlewareStack(public(plain), hooks=hooks), "/")
    assert (answer.status, answer.body, answer.header("x-hook")) == (202, b"secret", "1")
    assert answer.all("set-cookie") == ["hook=1; Path=/"]


async def around_denies(request, call_next):
    await call_next(request)
    return Deny(403)


async def around_fails(request, call_next):
    raise await around_denies(request, call_next)


@pytest.mark.parametrize(
    "hooks",
    [
        *(made(kind, deny) for kind in ("request", "route", "response")),
        made("response", lambda request, response: HttpResponse("no", status=403)),
        *(made("around", hook) for hook in (around_denies, around_fails)),
    ],
)
async def test_a_hook_may_deny_and_the_application_ends(hooks, ran):
    async def listening(scope, receive, send):
        await receive()
        left = asyncio.create_task(receive())
        sending = asyncio.create_task(plain(scope, receive, send))
        assert await left == DISCONNECT
        sending.cancel()
        ran.append("told")

    async def sending(scope, receive, send):
        try:
            await plain(scope, receive, send)
        except OSError:
            ran.append("told")
            raise

    async def failing(scope, receive, send):
        with suppress(OSError):
            await plain(scope, receive, send)
        raise KeyError

    for app in (plain, listening, sending, failing, consumer()):
        server = Server(DenyMiddlewareStack(public(app), hooks=hooks))
        assert await server.end() is None
        assert (server.sent[0]["status"], b"secret" in server.body) == (403, False)
    assert ran in ([], ["told", "told"])


@pytest.mark.usefixtures("mirrored")
async def test_a_denied_response_of_django_is_closed_by_it(ran, settings):
    settings.MIDDLEWARE = []
    request_finished.connect(receiver := lambda **_: ran.append("finished"))  # noqa: F841 - kept alive
    app = DenyMiddlewareStack(Wrapper(get_asgi_application()), default_policy=DenyAll())
    assert ((await fetch(app, "/page/", headers=HOST)).status, ran) == (403, ["finished"])


@pytest.mark.usefixtures("mirrored")
@pytest.mark.parametrize(("policy", "status"), [(AllowAny(), 200), (None, 401)])
async def test_the_default_policy_of_a_stack_reaches_views_through_a_function(policy, status, settings):
    settings.MIDDLEWARE = [MIRROR]
    app = DenyMiddlewareStack(Function(get_asgi_application()), default_policy=policy)
    assert (await fetch(app, "/page/", headers=HOST)).status == status


async def test_an_application_may_take_longer_than_hooks_and_policies(settings, hurry):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 1}  # enough for hooks on a busy machine

    async def slow(scope, receive, send):
        await asyncio.sleep(1.1)
        await plain(scope, receive, send)

    assert (await fetch(DenyMiddlewareStack(public(slow), hooks=noting([], "it")), "/")).status == 200


async def test_a_stream_of_a_hook_ends_when_the_client_leaves_and_is_closed(tmp_path, ran):
    async def endless():
        try:
            while True:
                await asyncio.sleep(0.001)
                yield b"a"
        finally:
            ran.append("closed")

    stream = made("response", lambda request, response: StreamingHttpResponse(endless(), status=403))
    server = Server(DenyMiddlewareStack(public(plain), hooks=stream))
    await server.until(3)
    server.events.put_nowait(DISCONNECT)
    assert (await server.end(), ran) == (None, ["closed"])
    (tmp_path / "file").write_bytes(b"file")
    opened = (tmp_path / "file").open("rb")
    sent_file = made("response", lambda request, response: FileResponse(opened, status=403))
    answer = await fetch(DenyMiddlewareStack(public(plain), hooks=sent_file), "/")
    assert (answer.body, opened.closed) == (b"file", True)


async def test_an_http2_client_that_leaves_without_reading_its_denial_does_not_keep_the_request():
    class Waiting(Server):
        async def send(self, message):
            self.sent.append(message)
            if len(self.sent) == 2:
                await asyncio.Event().wait()

    server = Waiting(DenyMiddlewareStack(login_required(plain)), http_version="2")
    await server.until(2)
    server.events.put_nowait(DISCONNECT)
    assert (await server.end(), server.sent[0]["status"]) == (None, 401)


# Sessions


def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return True


def session_of(answer, settings):
    (cookie,) = [value for value in answer.all("set-cookie") if value.startswith(settings.SESSION_COOKIE_NAME)]
    return SessionStore(cookie.partition("=")[2].partition(";")[0])


def test_a_session_that_was_changed_is_saved_once_and_not_with_a_server_error(settings):
    async def changes(self, body):
        self.scope["session"]["seen"] = True
        await self.send_response(200, b"", headers=[(b"Set-Cookie", b"a=1")])

    async def fails(self, body):
        self.scope["session"]["seen"] = True
        raise KeyError

    get = async_to_sync(fetch)
    nested = require(Check(visits))(consumer(policy=Check(visits)))
    assert session_of(get(nested, "/"), settings)["visits"] == 2
    assert session_of(get(consumer(policy=Check(visits) & DenyAll()), "/"), settings)["visits"] == 1
    answer = get(consumer(changes), "/")
    assert session_of(answer, settings)["seen"] is True
    assert [value.partition("=")[0] for value in answer.all("set-cookie")] == ["a", settings.SESSION_COOKIE_NAME]
    for unchanged in (consumer(), consumer(fails)):
        assert get(unchanged, "/").all("set-cookie") == []
    for allows in (True, False):
        spoils = Check(lambda request, allows=allows: (request.session.update({"a": object()}) is None) is allows)
        unsaved = get(consumer(policy=spoils), "/")
        assert (unsaved.status, unsaved.all("set-cookie")) == (500, [])


# MIRROR_DEFAULT_POLICY


@pytest.fixture
def mirrored(settings):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}


@pytest.mark.parametrize("app", [plain, type("Tells", (AsyncHttpConsumer,), {"handle": tell_the_body}).as_asgi()])
async def test_the_default_policy_is_for_all_that_a_stack_serves(app, settings):
    def stack(app, **options):
        http = URLRouter([path("app/", app), path("", get_asgi_application())])
        return DenyMiddlewareStack(ProtocolTypeRouter({"http": http}), **options)

    assert (await fetch(stack(app, default_policy=DenyAll()), "/app/")).status == 200
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}
    for stacked, status in (
        (stack(app), 401),
        (stack(app, default_policy=DenyAll()), 403),
        (stack(app, default_policy=AllowAny()), 200),
        (stack(public(app)), 200),
        (stack(public(app), default_policy=DenyAll()), 200),
        (DenyMiddlewareStack(Wrapper(app)), 401),
        (require(AllowAny())(DenyMiddlewareStack(app, default_policy=DenyAll())), 403),
    ):
        answers = [await fetch(stacked, url) for url in ("/app/", "/")]
        assert status in {answer.status for answer in answers}
    settings.CHANNELS_WSDENY = {**settings.CHANNELS_WSDENY, "DEFAULT_POLICY": "no.such.policy"}
    assert (await fetch(stack(app), "/app/")).status == 500


class TokenMiddleware(BaseMiddleware):
    async def __call__(self, scope, receive, send):
        if scope["path"] == "/stale/":
            await plain(scope, receive, send)
            return
        user = type("User", (), {"is_authenticated": dict(scope["headers"]).get(b"x-token") == b"1", "pk": 7})()
        await super().__call__({**scope, "user": user}, receive, send)


@pytest.mark.usefixtures("mirrored")
async def test_middleware_of_the_site_says_who_the_user_is_and_is_guarded_where_it_answers_by_itself():
    app = DenyMiddlewareStack(TokenMiddleware(URLRouter([path("", plain), path("open/", public(plain))])))
    token = [(b"x-token", b"1")]
    answers = [await fetch(app, "/", headers=token), await fetch(app, "/"), await fetch(app, "/open/")]
    answers += [await fetch(app, "/stale/"), await fetch(app, "/nowhere/")]
    assert [answer.status for answer in answers] == [200, 401, 200, 401, 404]


# Django behind guards


async def test_a_guarded_django_answers_and_gets_its_body(settings):
    Site(settings, DJANGO["asgi"]()).serve(
        path("echo/", lambda request: HttpResponse(request.body)), path("", hello), outside=[], inside=[]
    )
    app = require(AllowAny())(get_asgi_application())
    assert (await fetch(app, "/", headers=HOST)).body == b"hello world"
    assert (await fetch(app, "/echo/", "POST", b"abc", headers=HOST)).body == b"abc"
    assert (await fetch(require(DenyAll())(get_asgi_application()), "/", headers=HOST)).status == 403


# A plain request for a socket


def gone(request):
    raise Http404


urlpatterns = [path("page/", lambda request: HttpResponse("page")), path("gone/", gone)]
urlpatterns += [path("both/", lambda request: HttpResponse("page of both"))]


class Room(AsyncWebsocketConsumer): ...


SOCKETS = [
    path("open/", public(type("Open", (Room,), {})).as_asgi()),
    path("staff/", require(IsStaff())(type("Staff", (Room,), {})).as_asgi()),
    path("locked/", Room.as_asgi()),
    path("both/", public(accept)),
    path("gone/", public(accept)),
    path("broken/", require(Check(raising(ZeroDivisionError)))(accept)),
]


def socket_site(http=None, *patterns, **options):
    protocols = {"http": http or get_asgi_application(), "websocket": URLRouter([*patterns, *SOCKETS])}
    return DenyMiddlewareStack(ProtocolTypeRouter(protocols), **options)


async def get(url, app=None, headers=(), **scope):
    return await fetch(app or socket_site(), url, headers=[*HOST, *headers], **scope)


async def test_a_plain_get_on_a_socket_needs_an_upgrade_once_its_policy_allows_it(headers_of):
    statuses = {
        ("/open/", None): 426,
        ("/staff/", None): 401,
        ("/staff/", "alice"): 403,
        ("/staff/", "staff"): 426,
        ("/locked/", None): 401,
        ("/locked/", "alice"): 426,
        ("/broken/", None): 500,
    }
    found = {(url, user): (await get(url, headers=headers_of(user))).status for url, user in statuses}
    assert found == statuses
    for policy, status in ((AllowAny(), 426), (DenyAll(), 403)):
        assert (await get("/locked/", socket_site(default_policy=policy))).status == status
    for version, upgrade in (("1.1", "websocket"), ("2", None)):
        answer = await get("/open/", http_version=version)
        assert (answer.problem["code"], answer.header("upgrade")) == ("upgrade_required", upgrade)


async def test_where_http_has_something_itself_that_is_served():
    assert [(await get(url)).body for url in ("/page/", "/both/")] == [b"page", b"page of both"]
    assert (await get("/open/", method="POST")).header("upgrade") is None
    for http in (public(plain), plain, Wrapper(plain), URLRouter([path("open/", plain)])):
        assert (await get("/open/", socket_site(http))).body == b"secret"
    for site, found in (
        (socket_site(), {"/page/": 200, "/both/": 200, "/gone/": 404, "/nowhere/": 404}),
        (socket_site(None, re_path(r"^.*$", public(accept))), {"/nowhere/": 404, "/page/": 200}),
        (socket_site(URLRouter([path("there/", plain)])), {"/open/": 426, "/there/": 200}),
        (socket_site(Wrapper(get_asgi_application())), {"/open/": 426, "/page/": 200}),
    ):
        assert {url: (await get(url, site)).status for url in found} == found


async def test_hooks_run_for_it_as_for_http(ran):
    hooks = noting(ran, "it")
    hooks.on_response(tell("X-Saw", lambda request, response: response.status_code))
    app = DenyMiddlewareStack(socket_site(hooks=hooks), hooks=hooks)
    answer = await get("/open/", app)
    assert (answer.status, answer.header("x-saw"), len(ran)) == (426, "426", 5)
    assert (await get("/open/", socket_site(hooks=made("response", lambda *_: Deny(404))))).status == 404


async def test_paths_are_those_behind_the_prefix_and_a_malformed_query_or_a_wrong_host_is_a_400():
    for url, status in (("/app/open/", 426), ("/app/page/", 200), ("/app/nowhere/", 404)):
        assert (await get(url, root_path="/app")).status == status
    assert (await get("/open/", query_string=b"\xff")).status == 400
    assert (await fetch(socket_site(), "/open/", headers=[(b"host", b"elsewhere.example")])).status == 400


async def test_a_route_that_cannot_be_resolved_is_none_and_a_site_without_urls_has_no_page(settings):
    broken = path("<int:pk>/", accept)
    broken.pattern.match = raising(ZeroDivisionError)
    assert (await get("/1/", socket_site(None, broken))).status == 404
    settings.ROOT_URLCONF = None
    assert (await get("/open/")).status == 426


async def test_a_consumer_for_sockets_alone_is_no_page():
    for wrap in (lambda app: app, lambda app: URLRouter([path("ws/", app)])):
        open_room = public(type("OpenRoom", (Room,), {})).as_asgi()
        statuses = [(await fetch(DenyMiddlewareStack(wrap(app)), "/ws/")).status for app in (open_room, Room.as_asgi())]
        assert statuses == [426, 401]


# Pages of other origins, which ask why a handshake was denied


TRUSTED, PREFLIGHT = (b"origin", b"https://app.example"), (b"access-control-request-method", b"GET")


def cors(answer):
    """The allowed origin, whether with credentials, and Vary."""
    names = ("access-control-allow-origin", "access-control-allow-credentials", "vary")
    return tuple(answer.header(name) for name in names)


@pytest.mark.parametrize("url", ["/open/", "/staff/"])
async def test_a_page_of_an_allowed_origin_may_read_the_answer_with_its_cookies(settings, url):
    settings.CSRF_TRUSTED_ORIGINS = ["https://app.example", "https://*.wild.example"]
    for origin in (b"https://app.example", b"https://a.wild.example", b"http://testserver"):
        answer = await get(url, headers=[(b"origin", origin)])
        assert cors(answer) == (origin.decode(), "true", "Accept, Cookie, Origin")
        assert answer.header("access-control-expose-headers") == "Retry-After"
    others = (b"https://evil.example", b"http://app.example", b"https://app.example:81", b"null", b"http://[", b"\xff")
    others += ("https://ü".encode() * 70, b"https://\xfc" + b"a" * 70)
    for headers in ([], [TRUSTED, TRUSTED], *([(b"origin", origin)] for origin in others)):
        assert cors(await get(url, headers=headers)) == (None, None, "Accept, Cookie, Origin")


async def test_the_stacks_origins_count_and_any_origin_reads_no_answer_to_cookies(settings):
    settings.CHANNELS_WSDENY = {"ORIGINS": ["https://other.example"]}
    for origins, found in {None: None, ("https://app.example",): "https://app.example", "*": "*"}.items():
        answer = await get("/open/", socket_site(origins=origins), headers=[TRUSTED])
        assert cors(answer)[:2] == (found, "true" if found == TRUSTED[1].decode() else None)
        preflight = await get("/open/", socket_site(origins=origins), [TRUSTED, PREFLIGHT], method="OPTIONS")
        assert (preflight.status, cors(preflight)[:2]) == (204 if found else 404, cors(answer)[:2])
    null = await get("/open/", socket_site(origins=["null"]), headers=[(b"origin", b"null")])
    assert cors(null)[:2] == ("*", None)
    settings.CHANNELS_WSDENY = {"ORIGINS": "anything"}
    assert cors(await get("/open/", headers=[TRUSTED]))[0] is None


async def test_a_hooks_own_cors_headers_are_left_alone(settings):
    settings.CSRF_TRUSTED_ORIGINS = ["https://app.example"]
    own = made("response", tell("Access-Control-Allow-Origin", lambda *_: "https://own.example"))
    answer = await get("/open/", socket_site(hooks=own), headers=[TRUSTED])
    assert cors(answer) == ("https://own.example", None, "Accept, Cookie")


async def test_a_preflight_of_an_allowed_origin_is_answered_and_other_options_requests_as_ever(settings):
    settings.CSRF_TRUSTED_ORIGINS = ["https://app.example"]
    answer = await get("/staff/", method="OPTIONS", headers=[TRUSTED, PREFLIGHT])
    assert (answer.status, answer.body, *cors(answer)) == (204, b"", "https://app.example", "true", "Origin")
    assert answer.header("access-control-allow-methods") == "GET"
    assert answer.header("access-control-allow-headers") == "Authorization"
    evil = (b"origin", b"https://evil.example")
    for url, headers in (("/open/", [evil, PREFLIGHT]), ("/open/", [TRUSTED]), ("/nowhere/", [TRUSTED, PREFLIGHT])):
        answer = await get(url, method="OPTIONS", headers=headers)
        assert (answer.status, *cors(answer)[:2]) == (404, None, None)
    alone = DenyMiddlewareStack(Room.as_asgi())
    for headers, status in (([TRUSTED, PREFLIGHT], 204), ([evil, PREFLIGHT], 401)):
        assert (await get("/", alone, headers, method="OPTIONS")).status == status


async def test_a_host_that_is_not_allowed_makes_no_origin_allowed():
    headers = [(b"host", b"evil.example"), (b"origin", b"http://evil.example"), PREFLIGHT]
    assert cors(await fetch(socket_site(), "/open/", headers=headers))[0] is None
    assert (await fetch(socket_site(), "/open/", "OPTIONS", headers=headers)).status == 400


async def test_the_token_of_a_subprotocol_is_asked_about_as_authorization(users):
    token = SubprotocolToken("bearer", BearerAuthentication({"good": users["staff"]}.get, scheme="Token"))
    app = socket_site(authentication=[token])
    for authorization, status in ((b"Bearer good", 426), (b"bearer bad", 401), (b"Token good", 401), (b"Bearer", 401)):
        answer = await get("/staff/", app, [(b"authorization", authorization)])
        assert answer.status == status, authorization
    assert (await get("/page/", app, [(b"authorization", b"Bearer bad")])).status == 200  # a view has no subprotocols
