"""The traps that a trial of the design fell into, each held open by a test."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import URLRouter
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.urls import path, resolve
from django.urls.exceptions import Resolver404

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.decorators import login_required, permission_required, public, require
from channels_wsdeny.policies import AllowAny, DenyAll, HasPermission, IsAuthenticated, IsStaff, Policy
from tests.clients import Handshake, knock, websocket_scope

# Channels' consumers close old database connections before each message.
pytestmark = pytest.mark.django_db

alice = get_user_model()(pk=1, username="alice")


class Wrapper:
    """A wrapper that the look-ahead does not know."""

    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        await self.inner(scope, receive, send)


class Raises(Policy):
    def __init__(self, make):
        self.make = make

    def check(self, request):
        raise self.make()


class AsyncRaises(Raises):
    check = Policy.check

    async def acheck(self, request):
        raise self.make()


# A router takes a Resolver404 for "try the next route".


def unresolved(request=None):
    raise Resolver404({"path": "secret"})


async def unresolved_async(request):
    raise Resolver404({"path": "secret"})


def raising(base):
    @login_required
    class Consumer(base):
        def connect(self):
            unresolved()

    return Consumer.as_asgi()


def guarded(policy):
    return require(policy)(type("Consumer", (AsyncWebsocketConsumer,), {})).as_asgi()


@login_required
async def raising_app(scope, receive, send):
    unresolved()


FIRST = {
    "policy": lambda: guarded(Raises(unresolved)),
    "async policy": lambda: guarded(AsyncRaises(unresolved)),
    "negated policy": lambda: guarded(~AsyncRaises(unresolved)),
    "resolver": lambda: guarded(HasPermission("a.b", obj=unresolved)),
    "async resolver": lambda: guarded(HasPermission("a.b", obj=unresolved_async)),
    "connect()": lambda: raising(AsyncWebsocketConsumer),
    "synchronous connect()": lambda: raising(WebsocketConsumer),
    "app": lambda: raising_app,
    "policy of a router": lambda: require(Raises(unresolved))(URLRouter([path("", accept_all([]))])),
}
ROUTERS = {
    "stack": lambda routes: DenyMiddlewareStack(URLRouter(routes)),
    "nested routers": lambda routes: DenyMiddlewareStack(URLRouter([path("", URLRouter(routes))])),
    "unknown wrapper": lambda routes: DenyMiddlewareStack(Wrapper(URLRouter(routes))),
    "nested stack": lambda routes: DenyMiddlewareStack(Wrapper(DenyMiddlewareStack(URLRouter(routes)))),
    "no stack": URLRouter,
}


def accept_all(ran):
    """An app that lets everybody in, and notes it."""

    @public
    async def app(scope, receive, send):
        ran.append(scope["path"])
        await send({"type": "websocket.accept"})
        await receive()

    return app


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("router", ROUTERS)
async def test_a_denial_by_resolver404_does_not_reach_the_next_route(first, router):
    ran = []
    routes = [path("room/", FIRST[first]()), path("<slug>/", accept_all(ran))]
    answer = await knock(ROUTERS[router](routes), "/room/", user=alice)
    assert (answer.status, ran) == (404, [])
    assert b"secret" not in answer.body


async def test_an_undecorated_consumer_that_falls_through_behind_an_unknown_wrapper_opens_nothing():
    ran = []

    class First(AsyncWebsocketConsumer):
        async def connect(self):
            unresolved()

    class Second(AsyncWebsocketConsumer):
        async def connect(self):
            ran.append("connect")
            await self.accept()

    router = URLRouter([path("room/", First.as_asgi()), path("<slug>/", Second.as_asgi())])
    handshake = Handshake(DenyMiddlewareStack(Wrapper(router)), websocket_scope("/room/", user=alice))
    await handshake.communicator.send_input({"type": "websocket.connect"})
    await handshake.leave()
    assert ran == []
    assert handshake.communicator.output_queue.empty()


async def test_after_a_close_a_resolver404_opens_no_further_route():
    ran = []

    class First(AsyncWebsocketConsumer):
        async def connect(self):
            await self.close()
            unresolved()

    router = URLRouter([path("room/", First.as_asgi()), path("<slug>/", accept_all(ran))])
    handshake = Handshake(DenyMiddlewareStack(Wrapper(router)), websocket_scope("/room/", user=alice))
    assert (await handshake.connect()).status == 403
    assert handshake.communicator.output_queue.empty()


async def test_a_resolver404_after_the_accept_does_not_run_the_next_route():
    ran = []

    @public
    class Preview(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            resolve(text_data)

    class Private(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            ran.append(text_data)

    router = URLRouter([path("preview/", Preview.as_asgi()), path("<slug>/", Private.as_asgi())])
    handshake = Handshake(DenyMiddlewareStack(Wrapper(router)), websocket_scope("/preview/"))
    assert (await handshake.connect()).status == 101
    await handshake.send("/no/such/page/")
    await handshake.send("I am in")
    with pytest.raises(Resolver404):
        await handshake.end()
    assert ran == []


# Unwinding a consumer.


@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
async def test_a_consumer_that_is_denied_late_waits_for_the_channel_layer_no_more(base):
    app = DenyMiddlewareStack(Wrapper(type("Consumer", (base,), {}).as_asgi()))
    before = asyncio.all_tasks()
    assert (await knock(app, "/")).status == 401
    assert [task for task in asyncio.all_tasks() - before if not task.done()] == []
    assert get_channel_layer().channels == {}


# Shared objects.

SHARED = Deny(409, "Already here.")


def depth(error):
    """How many frames the traceback of `error` has."""
    count, traceback = 0, error.__traceback__
    while traceback is not None:
        count, traceback = count + 1, traceback.tb_next
    return count


async def deny(app, times):
    """Have `app` deny this many handshakes, as cheaply as can be."""
    scope, sent = websocket_scope("/"), []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message.get("status"))

    for _ in range(times):
        await app(scope, receive, send)
        assert sent == [409, None]
        sent.clear()
        await asyncio.sleep(0)  # the loop forgets the timeouts that did not come to pass


class Connects(AsyncWebsocketConsumer):
    async def connect(self):
        raise SHARED


class Returns(Policy):
    async def acheck(self, request):
        return SHARED


@pytest.mark.parametrize(
    "app",
    [
        guarded(AsyncRaises(lambda: SHARED)),
        guarded(Raises(lambda: SHARED)),
        guarded(Returns()),
        public(Connects).as_asgi(),
        DenyMiddlewareStack(Wrapper(Connects.as_asgi())),
    ],
    ids=["async policy", "policy", "returned", "consumer", "stack"],
)
async def test_a_shared_deny_does_not_grow(app, caplog):
    caplog.set_level(logging.CRITICAL, "channels_wsdeny")
    await deny(app, 1)
    first = depth(SHARED)
    await deny(app, 50)
    assert depth(SHARED) == first
    assert SHARED.__context__ is SHARED.__cause__ is None


async def test_ten_thousand_denials_by_a_shared_deny_take_no_memory(caplog):
    caplog.set_level(logging.CRITICAL, "channels_wsdeny")  # pytest keeps all records that are logged
    app = DenyMiddlewareStack(guarded(AsyncRaises(lambda: SHARED)))
    await deny(app, 200)
    gc.collect()
    tracemalloc.start()
    try:
        await deny(app, 100)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        await deny(app, 10_000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 100_000  # ten bytes a denial


async def test_an_error_that_the_site_shares_does_not_grow(caplog):
    caplog.set_level(logging.CRITICAL, "channels_wsdeny")
    shared = PermissionDenied()
    app = guarded(AsyncRaises(lambda: shared))
    for _ in range(50):
        assert (await knock(app, "/")).status == 403
    assert depth(shared) < 20


async def test_what_a_server_does_to_a_message_does_not_reach_the_next_visitor():
    async def receive():
        return {"type": "websocket.connect"}

    sent = []

    async def send(message):
        sent.append({**message, "headers": list(message.get("headers", ()))})
        message.get("headers", []).append((b"x-server", b"1"))
        message["more"] = True

    for _ in range(2):
        await guarded(DenyAll())(websocket_scope("/"), receive, send)
    assert sent[:2] == sent[2:]


class Remembers(Policy):
    """Notes the visitor in the session, and sends everybody the same response."""

    response = HttpResponse("Come back later.", status=403)

    async def acheck(self, request):
        request.session["visitor"] = request.GET["name"]
        await asyncio.sleep(0)
        return self.response


async def test_a_shared_response_carries_no_cookie_from_one_visitor_to_another(settings):
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    app = guarded(Remembers())
    names = [f"visitor-{number}" for number in range(20)]
    answers = await asyncio.gather(*(knock(app, f"/?name={name}") for name in names))
    for name, answer in zip(names, answers, strict=True):
        (cookie,) = [value for key, value in answer.headers if key == "set-cookie"]
        key = cookie.removeprefix(f"{settings.SESSION_COOKIE_NAME}=").split(";")[0]
        assert SessionStore(key).load() == {"visitor": name}
    assert not Remembers.response.cookies
    assert not Remembers.response.has_header("Cache-Control")


# Streams within a socket that is accepted already.


class ByObject(BaseBackend):
    """Grants the rooms that the user carries along."""

    def has_perm(self, user_obj, perm, obj=None):
        return perm == "view" and obj in user_obj.granted


@pytest.fixture
def visitor(settings):
    """A user who may see the rooms 1 and 2."""
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.ByObject"]
    user = get_user_model()(pk=7, username="visitor")
    user.granted = {1, 2}
    return user


def demultiplexer(app):
    """A consumer that opens a stream on `app` for each path it is sent, and sends back what happens there."""

    @public
    class Demultiplexer(AsyncWebsocketConsumer):
        async def connect(self):
            self.streams = []
            await self.accept()

        async def receive(self, text_data=None, bytes_data=None):
            events = [{"type": "websocket.connect"}]

            async def receive():
                return events.pop() if events else await asyncio.get_running_loop().create_future()

            async def send(message):
                await self.send(" ".join(str(value) for value in (text_data, *message.values()) if value))

            own = {
                key: value for key, value in self.scope.items() if key not in {"url_route", "path_remaining"}
            }
            self.streams.append(asyncio.ensure_future(app({**own, "path": text_data}, receive, send)))

        async def disconnect(self, code):
            for stream in self.streams:
                stream.cancel()
            await asyncio.gather(*self.streams, return_exceptions=True)

    return DenyMiddlewareStack(Demultiplexer.as_asgi())


async def streams(app, *paths, user=alice):
    """What happens on streams to these paths, one after another on one socket."""
    handshake = Handshake(demultiplexer(app), websocket_scope("/", user=user))
    assert (await handshake.connect()).status == 101
    happened = []
    for where in paths:
        await handshake.send(where)
        happened.append((await handshake.next())["text"])
    await handshake.leave()
    assert handshake.communicator.output_queue.empty()
    return happened


@pytest.mark.parametrize(
    ("policy", "close"),
    [
        (AllowAny(), None),
        (IsAuthenticated(), None),
        (IsStaff(), "4403 permission_denied"),
        (Raises(lambda: Deny(418, code="teapot")), "4418 teapot"),
        (Raises(unresolved), "4404 not_found"),
        (Raises(ZeroDivisionError), "4500 server_error"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
async def test_a_stream_that_is_denied_closes_with_its_status(policy, close, base):
    ran = []

    @require(policy)
    class Stream(base):
        def connect(self):
            ran.append(self)
            return self.accept()

    expected = "/a websocket.accept" if close is None else f"/a websocket.close {close}"
    assert await streams(Stream.as_asgi(), "/a") == [expected]
    assert bool(ran) is (close is None)


@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper])
async def test_a_nested_stack_asks_its_default_policy_for_a_stream(wrap):
    ran = []

    class Stream(AsyncWebsocketConsumer):
        async def connect(self):
            ran.append("connect")
            await self.accept()

    stack = DenyMiddlewareStack(wrap(Stream.as_asgi()), default_policy=IsStaff())
    assert await streams(stack, "/a") == ["/a websocket.close 4403 permission_denied"]
    assert ran == []


async def test_a_nested_stack_stops_an_impatient_app_on_a_stream_at_its_accept():
    async def impatient(scope, receive, send):
        await send({"type": "websocket.accept"})

    stack = DenyMiddlewareStack(impatient, default_policy=IsStaff())
    assert await streams(stack, "/a") == ["/a websocket.close 4403 permission_denied"]


@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper])
async def test_a_nested_stack_without_a_policy_asks_that_of_the_site_for_a_stream(wrap):
    ran = []

    class Stream(AsyncWebsocketConsumer):
        async def connect(self):
            ran.append("connect")
            await self.accept()

    stack = DenyMiddlewareStack(wrap(Stream.as_asgi()))
    assert await streams(stack, "/a", user=AnonymousUser()) == ["/a websocket.close 4401 not_authenticated"]
    assert ran == []


async def test_a_nested_stack_stops_data_that_an_impatient_app_sends_on_a_stream():
    async def impatient(scope, receive, send):
        await send({"type": "websocket.send", "text": "secret"})

    stack = DenyMiddlewareStack(impatient, default_policy=IsStaff())
    assert await streams(stack, "/a") == ["/a websocket.close 4403 permission_denied"]


@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper])
async def test_a_stream_that_is_denied_returns_to_the_demultiplexer(wrap):
    returned = []

    async def notes(scope, receive, send):
        await DenyMiddlewareStack(wrap(accept_by_event), default_policy=IsStaff())(scope, receive, send)
        returned.append(scope["path"])

    async def accept_by_event(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})

    assert await streams(notes, "/a") == ["/a websocket.close 4403 permission_denied"]
    assert returned == ["/a"]


async def test_a_stream_without_a_route_closes_with_404():
    stack = DenyMiddlewareStack(URLRouter([path("room/", accept_all([]))]))
    assert await streams(stack, "/a") == ["/a websocket.close 4404 not_found"]


def rooms(opened):
    @permission_required("view", obj=lambda request: request.resolver_match.kwargs["pk"])
    class Room(AsyncWebsocketConsumer):
        async def connect(self):
            opened.append(self)
            await self.accept()

    return URLRouter([path("rooms/<int:pk>/", Room.as_asgi())])


@pytest.mark.parametrize("wrap", [lambda app: app, DenyMiddlewareStack, Wrapper])
async def test_each_stream_is_asked_about_its_own_room(wrap, visitor):
    opened = []
    happened = await streams(wrap(rooms(opened)), "/rooms/1/", "/rooms/3/", "/rooms/2/", user=visitor)
    assert happened == [
        "/rooms/1/ websocket.accept",
        "/rooms/3/ websocket.close 4403 permission_denied",
        "/rooms/2/ websocket.accept",
    ]
    assert [room.scope["url_route"]["kwargs"]["pk"] for room in opened] == [1, 2]


@pytest.mark.parametrize("wrap", [lambda app: app, DenyMiddlewareStack, Wrapper])
async def test_each_stream_keeps_its_own_object(wrap, visitor):
    opened = []
    await streams(wrap(rooms(opened)), "/rooms/1/", "/rooms/2/", user=visitor)
    assert [room.scope["wsdeny"].obj for room in opened] == [1, 2]
    assert [room.scope["wsdeny"].request.resolver_match.kwargs["pk"] for room in opened] == [1, 2]


class Switch(Policy):
    """Allows while it is on."""

    def __init__(self):
        self.on = True

    async def acheck(self, request):
        return self.on


@pytest.mark.parametrize("wrap", [lambda app: app, DenyMiddlewareStack, Wrapper])
async def test_a_stream_that_is_opened_again_is_asked_again(wrap):
    switch, opened = Switch(), []

    @require(switch)
    class Stream(AsyncWebsocketConsumer):
        async def connect(self):
            opened.append(self)
            switch.on = False
            await self.accept()

    happened = await streams(wrap(Stream.as_asgi()), "/", "/")
    assert happened == ["/ websocket.accept", "/ websocket.close 4403 permission_denied"]
    assert len(opened) == 1


async def test_each_policy_is_asked_once_a_stream():
    asked = []

    class Counts(Policy):
        async def acheck(self, request):
            asked.append(request.path)
            return True

    stream = require(Counts())(type("Stream", (AsyncWebsocketConsumer,), {})).as_asgi()
    for app in (stream, DenyMiddlewareStack(stream)):
        asked.clear()
        await streams(app, "/a", "/b")
        assert asked == ["/a", "/b"]


async def test_an_http404_handler_around_an_accepted_consumer_sees_its_error():
    seen = []

    class Handler(Wrapper):
        async def __call__(self, scope, receive, send):
            try:
                await super().__call__(scope, receive, send)
            except Http404 as error:
                seen.append(error)

    @public
    class Consumer(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            unresolved()

    handshake = Handshake(DenyMiddlewareStack(Handler(Consumer.as_asgi())), websocket_scope("/"))
    assert (await handshake.connect()).status == 101
    await handshake.send("hello")
    await handshake.end()
    assert len(seen) == 1


# The log.


def test_nothing_is_printed_unasked():
    program = """
import asyncio, django
from django.conf import settings
settings.configure(INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"], LOGGING_CONFIG=None)
django.setup()
from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.policies import DenyAll

async def app(scope, receive, send):
    await receive()

async def receive():
    return {"type": "websocket.connect"}

sent = []

async def send(message):
    sent.append(message["type"])

scope = {"type": "websocket", "path": "/", "headers": [], "extensions": {"websocket.http.response": {}}}
asyncio.run(DenyMiddlewareStack(app, default_policy=DenyAll())(scope, receive, send))
print(*sent)
"""
    environment = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        env=environment,
    )
    assert done.stdout.split() == ["websocket.http.response.start", "websocket.http.response.body"]
    assert done.stderr == ""
