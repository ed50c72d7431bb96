"""Signals: what receivers get of handshakes, and how little they can do to them."""

import asyncio
import contextvars
import functools
import gc
import logging
import threading
import time
from contextlib import suppress

import pytest
from asgiref.sync import sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import URLRouter
from django.contrib.auth import get_user_model
from django.http import HttpResponse
from django.urls import path

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks, signals
from channels_wsdeny.decorators import login_required, public, require
from channels_wsdeny.http.request import HandshakeRequest
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated
from channels_wsdeny.signals import handshake_accepted, handshake_denied
from tests.support import scripted
from tests.support.case_site import application
from tests.support.cases import CASES
from tests.support.clients import fetch, knock, opened
from tests.support.mirror import made
from tests.support.policies import AsyncCheck, Check, accept, raising, raising_app
from tests.support.receivers import connected
from tests.support.sockets import CONNECT, Server, Unread, consumer, disconnect, open_to_all
from tests.support.threads import Gate, until
from tests.support.wrappers import Wrapper

pytestmark = pytest.mark.django_db

#: A site that denies by a policy that is asked in a thread, and one that accepts.
LOCKED = DenyMiddlewareStack(require(Check(lambda request: False))(accept))
OPEN = open_to_all(accept)
SITES = pytest.mark.parametrize("site", [LOCKED, OPEN], ids=["denied", "accepted"])


@pytest.fixture
def heard():
    """What a receiver of both signals was sent, in order."""
    heard = []

    async def hear(**kwargs):
        heard.append(kwargs)

    with connected(hear):
        yield heard


@pytest.fixture
def failures(caplog):
    """A function: the records of receivers that failed."""
    return lambda: [record for record in caplog.records if record.name == "django.dispatch"]


def sent(heard):
    return [(kwargs["signal"], kwargs["response"].status_code) for kwargs in heard]


async def test_one_signal_is_sent_for_each_handshake(heard, headers_of):
    for case in CASES:
        heard.clear()
        await knock(application, f"/ws/{case.name}/", headers=headers_of(case.user))
        assert sent(heard) == [(handshake_denied, case.status) if case.status else (handshake_accepted, 101)], case.name


DENYING = made("response", lambda request, response: HttpResponse(status=409))
#: Sites, the options of the scope, and the status that is sent with the signal.
ANSWERS = {
    "the application raises": (open_to_all(raising_app(ZeroDivisionError())), {}, 500),
    "it closes": (open_to_all(scripted.Script(scripted.close(code=4404))), {}, 404),
    "it answers": (open_to_all(scripted.Script(scripted.start(418), scripted.body(b"teapot"))), {}, 418),
    "a hook denies": (DenyMiddlewareStack(public(accept), hooks=DENYING), {}, 409),
    "nested stacks": (open_to_all(Wrapper(open_to_all(public(consumer()).as_asgi()))), {}, 101),
    "no stack": (login_required(consumer()).as_asgi(), {}, 401),
    "a close": (DenyMiddlewareStack(accept, deny_with="close", default_policy=IsAuthenticated()), {}, 401),
    "a server that cannot": (DenyMiddlewareStack(accept, default_policy=IsAuthenticated()), {"extensions": {}}, 401),
    "no route": (DenyMiddlewareStack(URLRouter([])), {}, 404),
    "malformed": (LOCKED, {"query_string": b"\xff"}, 400),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_one_signal_is_sent_whoever_answers_with_the_status_that_is_meant(name, heard):
    site, scope, status = ANSWERS[name]
    await knock(site, "/", **scope)
    assert sent(heard) == [(handshake_denied if status != 101 else handshake_accepted, status)]


async def test_no_signal_is_sent_for_http_or_for_a_stream_of_an_open_socket(heard):
    await fetch(application, "/http/deny-all/")
    assert heard == []

    async def demultiplexer(scope, receive, send):
        await accept(scope, receive, send)
        await LOCKED({**scope, "path": "/stream/"}, receive, send)

    server = Server(CONNECT, {"type": "a"})
    await server.run(open_to_all(demultiplexer))
    assert (server.sent[-1]["code"], sent(heard)) == (4403, [(handshake_accepted, 101)])


async def test_a_signal_has_the_request_response_policy_and_duration_of_the_handshake(heard, ran, headers_of):
    async def takes_its_time(request):
        ran.append(request)
        await asyncio.sleep(0.02)
        return True

    began, policy = time.monotonic(), AsyncCheck(takes_its_time) & DenyAll()
    answer = await knock(DenyMiddlewareStack(require(policy)(accept)), "/a/?b=1", headers=headers_of("alice"))
    assert 0 < heard[0]["duration"] <= time.monotonic() - began
    assert (heard[0]["request"], heard[0]["response"].content) == (ran[0], answer.body)
    assert (await heard[0]["request"].auser()).get_username() == "alice"
    for site in (open_to_all(Wrapper(accept)), DenyMiddlewareStack(URLRouter([]))):
        await knock(site, "/")
    assert [kwargs["policy"] for kwargs in heard] == ["AsyncCheck() & DenyAll()", "AllowAny()", None]


async def call_super(self, scope, receive, send):
    await super(type(self), self).__call__(scope, receive, send)


@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
async def test_the_sender_is_the_class_of_the_consumer_that_the_handshake_was_for(base, heard):
    for policy in (AllowAny(), IsAuthenticated()):
        room = require(policy)(type("Room", (base,), {}))
        sub = type("Sub", (room,), {"__call__": call_super})
        for wrap in (lambda app: app, lambda app: URLRouter([path("room/", app)]), Wrapper):
            for cls in (room, sub):
                heard.clear()
                await knock(DenyMiddlewareStack(wrap(cls.as_asgi())), "/room/")
                assert [kwargs["sender"] for kwargs in heard] == [cls], (policy, wrap)
    heard.clear()
    for site in (OPEN, open_to_all(URLRouter([]))):
        await knock(site, "/")
    assert [kwargs["sender"] for kwargs in heard] == [None, None]


async def test_a_receiver_of_one_sender_gets_no_signal_of_another(ran):
    room, other = consumer(), consumer()

    async def hear(request, **kwargs):
        ran.append(request.path)

    site = DenyMiddlewareStack(URLRouter([path("room/", room.as_asgi()), path("other/", other.as_asgi())]))
    with connected(hear, sender=room):
        for url in ("/room/", "/other/", "/nowhere/"):
            await knock(site, url)
        before = asyncio.all_tasks()
        async with opened(OPEN) as handshake:
            assert asyncio.all_tasks() - before == {handshake.communicator.future}  # Nothing listens: no task is begun.
    assert ran == ["/room/"]


async def test_receivers_run_on_the_loop_or_in_a_thread_that_no_socket_waits_for_and_may_query(ran):
    async def hear(**kwargs):
        ran.append(threading.current_thread())

    def hear_sync(**kwargs):
        get_user_model().objects.count()
        ran.append(threading.current_thread())

    with connected(hear, hear_sync):
        await knock(LOCKED, "/")
    assert threading.main_thread() in ran
    assert len({*ran, await sync_to_async(threading.current_thread)()}) == 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("answer", [lambda self: self.accept(), lambda self: self.close()], ids=["accept", "close"])
@pytest.mark.parametrize("seconds", [0, 0.01])  # At first the thread of a synchronous consumer waits for the answer.
async def test_a_receiver_may_query_while_a_synchronous_consumer_waits(seconds, answer, failures, ran):
    async def hear(**kwargs):
        await asyncio.sleep(seconds)
        ran.append(await get_user_model().objects.acount())

    with connected(hear):
        await knock(open_to_all(consumer(answer, WebsocketConsumer).as_asgi()), "/")
    assert (ran, failures()) == ([0], [])


async def test_each_receiver_runs_in_a_context_of_its_own(ran):
    variable, hooks = contextvars.ContextVar("variable", default=None), Hooks()
    hooks.on_request(lambda request: variable.set("of a hook") and None, blocking=False)

    def hear(name, **kwargs):
        ran.append((name, variable.get()))

    first, second = functools.partial(hear, "a"), functools.partial(hear, "b")
    with connected(first, second):
        await knock(DenyMiddlewareStack(public(accept), hooks=hooks), "/")
    assert sorted(ran) == [("a", None), ("b", None)]


def raising_async(make):
    async def receiver(**kwargs):
        raise make()

    return receiver


async def cancel_itself(**kwargs):
    asyncio.current_task().cancel()
    await asyncio.sleep(10)


async def await_something_cancelled(**kwargs):
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


FAILING = {
    "error": raising(ZeroDivisionError),
    "exit": raising(SystemExit),
    "denial": raising(lambda: Deny(418)),
    "partial": functools.partial(raising(ZeroDivisionError)),
    "async error": raising_async(ZeroDivisionError),
    "async exit": raising_async(SystemExit),
    "async cancellation": raising_async(asyncio.CancelledError),
    "its own cancellation": cancel_itself,
    "something cancelled": await_something_cancelled,
    "wrong arguments": lambda request: None,
}


@pytest.mark.parametrize("name", FAILING)
async def test_a_receiver_that_raises_is_logged_and_changes_no_answer_and_no_other_receiver(name, heard, failures, ran):
    failing = FAILING[name]

    def returns(**kwargs):
        ran.append(kwargs)
        return Deny(418)

    with connected(failing, returns):
        assert [(await knock(site, "/a\r\nERROR forged")).status for site in (LOCKED, OPEN)] == [403, 101]
    assert len(ran) == len(heard) == len(failures()) == 2
    message = failures()[0].getMessage()
    named = getattr(failing, "func", failing)
    assert message.startswith(f"{named.__module__}.{named.__qualname__} failed at handshake_denied of ")
    assert (message.isprintable(), bool(failures()[0].exc_info)) == (True, True)


class Hanging:
    """Receivers that hang until the test frees them."""

    def __init__(self):
        self.called, self.ended, self._free = 0, [], threading.Event()
        self.free = self._free.set

    def blocking(self, **kwargs):
        self.called += 1
        self._free.wait(30)
        self.ended.append("free")

    async def asynchronous(self, **kwargs):
        self.called += 1
        try:
            await until(self._free.is_set)
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("free")


@pytest.fixture
def hanging():
    hanging = Hanging()
    yield hanging
    hanging.free()


@pytest.fixture(params=["blocking", "asynchronous"])
def hangs(request, hanging):
    with connected(getattr(hanging, request.param)):
        yield hanging


@SITES
async def test_a_receiver_that_hangs_keeps_no_answer_back_and_outlives_a_server_that_cancels(site, hangs):
    server = Server()
    task = server.begin(site)
    await until(lambda: server.sent and hangs.called)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert hangs.ended == []
    hangs.free()
    await until(lambda: hangs.ended == ["free"])


async def test_receivers_that_hang_take_no_thread_from_handshakes_and_hold_up_no_end(hanging, settings, monkeypatch):
    monkeypatch.setattr(signals, "_LAST_SECONDS", 0.05)
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1}
    with connected(hanging.blocking):
        answers = await asyncio.gather(*(knock(LOCKED, "/") for _ in range(6)))
    assert ([answer.status for answer in answers], hanging.ended) == ([403] * 6, [])


async def test_a_receiver_has_as_long_as_a_policy(hangs, failures, settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.05}
    await knock(LOCKED, "/private/")
    (record,) = failures()
    assert record.getMessage().endswith("failed at handshake_denied of /private/.")
    assert "A receiver has 0.05 s (POLICY_TIMEOUT)" in str(record.exc_info[1])
    assert hangs.ended in ([], ["cancelled"])


async def test_an_application_ends_when_its_receivers_have_run(ran):
    async def hear(**kwargs):
        await asyncio.sleep(0.03)
        ran.append("asynchronous")

    with connected(lambda **kwargs: time.sleep(0.02) or ran.append("blocking"), hear):
        await knock(LOCKED, "/")
    assert sorted(ran) == ["asynchronous", "blocking"]


async def refuse(message):
    raise ConnectionResetError


async def test_no_signal_is_sent_for_a_client_that_left_or_a_server_that_cancelled(heard):
    await Server(disconnect()).run(OPEN)
    await Server(CONNECT, disconnect()).run(open_to_all(scripted.Script()))
    task = Server().begin(DenyMiddlewareStack(require(AsyncCheck(lambda request: asyncio.sleep(60)))(accept)))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task})
    large = require(Check(lambda request: HttpResponse(b"x" * 100_000, status=403)))(accept)
    await Unread(2, CONNECT, disconnect()).run(DenyMiddlewareStack(large))
    for app in (OPEN, LOCKED):
        server = Server(CONNECT, disconnect())
        server.send = refuse
        with suppress(ConnectionResetError):
            await server.run(app)
    assert heard == []


async def test_many_handshakes_leave_nothing():
    counts = {101: 0, 403: 0}

    def count(response, **kwargs):
        counts[response.status_code] += 1

    async def count_too(**kwargs):
        count(**kwargs)

    before = asyncio.all_tasks()
    gc.collect()
    known = {id(thing) for thing in gc.get_objects() if type(thing) is HandshakeRequest}
    with connected(count, count_too):
        for _ in range(4):
            await asyncio.gather(*(knock(site, "/") for site in [LOCKED, OPEN] * 25))
    assert counts == {101: 200, 403: 200}
    await until(lambda: asyncio.all_tasks() == before)  # A second after an accept it is looked up when it expires.

    def leftovers():
        gc.collect()
        return [thing for thing in gc.get_objects() if type(thing) is HandshakeRequest and id(thing) not in known]

    await until(lambda: leftovers() == [])  # A thread lets go of its last request a moment later.


def test_a_loop_that_ends_leaves_no_receiver_behind(hanging, caplog, monkeypatch):
    monkeypatch.setattr(signals, "_LAST_SECONDS", 0.05)
    caplog.set_level(logging.ERROR, "asyncio")
    with connected(hanging.asynchronous):
        asyncio.run(knock(LOCKED, "/"))
    gc.collect()
    assert hanging.ended == ["cancelled"]
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_receivers_that_hang_do_not_keep_what_is_released_at_the_end_of_a_connection():
    gate, released = Gate(), []

    def take(request):
        request.wsdeny.on_end(lambda: released.append(request))
        return False

    site = DenyMiddlewareStack(require(Check(take))(accept))
    with connected(lambda **kwargs: gate()):
        for _ in range(2):  # The receivers of the first ones have all of their threads.
            await asyncio.gather(*(knock(site, "/") for _ in range(4)))
        found = len(released)
        gate.open()
        await until(lambda: gate.left == 8)
    assert found == 8
