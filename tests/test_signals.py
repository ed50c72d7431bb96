"""Signals: what receivers are told about handshakes, and how little they can do to them."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import threading
import time
from contextlib import contextmanager, suppress

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import URLRouter
from django.contrib.auth import get_user_model
from django.http import HttpResponse
from django.urls import path

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import login_required, public, require
from channels_wsdeny.http.request import HandshakeRequest
from channels_wsdeny.policies import AllowAny, IsAuthenticated
from channels_wsdeny.signals import handshake_accepted, handshake_denied
from tests.cases import CASES
from tests.clients import Handshake, fetch, knock, websocket_scope
from tests.parts import AsyncCheck, Check, accept
from tests.site import application

pytestmark = pytest.mark.django_db


@contextmanager
def connected(*receivers, **options):
    """Receivers of both signals, for a while."""
    both = [handshake_accepted, handshake_denied]
    for function in receivers:
        for signal in both:
            signal.connect(function, **options)
    try:
        yield
    finally:
        for function in receivers:
            for signal in both:
                signal.disconnect(function, sender=options.get("sender"))


@pytest.fixture
def heard():
    """What a receiver of both signals was sent, in the order that it came in."""
    heard = []

    async def hear(**kwargs):
        heard.append(kwargs)

    with connected(hear):
        yield heard


def told(heard):
    return [(kwargs["signal"], kwargs["response"].status_code) for kwargs in heard]


@pytest.fixture
def failures(caplog):
    """A function: the records of receivers that failed."""
    return lambda: [record for record in caplog.records if record.name == "django.dispatch"]


async def until(condition):
    """Wait until `condition()` holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def open_to_all(app):
    return DenyMiddlewareStack(app, default_policy=AllowAny())


def locked(app):
    """An app behind a policy that is asked in a thread, and denies."""
    return DenyMiddlewareStack(require(Check(lambda request: False))(app))


class Consumer(AsyncWebsocketConsumer):
    pass


class Wrapper:
    """A wrapper that the look-ahead does not know."""

    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        await self.inner(scope, receive, send)


# What is told.


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_each_handshake_is_told_of_once(case, heard, headers_of):
    await knock(application, f"/ws/{case.name}/", headers=headers_of(case.user))
    expected = (handshake_denied, case.status) if case.status else (handshake_accepted, 101)
    assert told(heard) == [expected]


@pytest.mark.parametrize(
    ("url", "query_string", "status"), [("/nowhere/", b"", 404), ("/ws/deny-all/", b"\xff", 400)]
)
async def test_a_handshake_that_reaches_no_policy_is_told_of(url, query_string, status, heard):
    await knock(application, url, query_string=query_string)
    assert told(heard) == [(handshake_denied, status)]
    assert heard[0]["policy"] is None


async def raises(scope, receive, send):
    raise ZeroDivisionError


async def ends(scope, receive, send):
    await receive()


async def waits(scope, receive, send):
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def closes(scope, receive, send):
    await send({"type": "websocket.close", "code": 4404})


async def answers(scope, receive, send):
    await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"short and stout"})


@pytest.mark.parametrize(("app", "status"), [(raises, 500), (ends, 500), (closes, 404), (answers, 418)])
async def test_a_denial_by_the_app_is_told_of_once(app, status, heard):
    await knock(open_to_all(app), "/")
    assert told(heard) == [(handshake_denied, status)]


async def test_a_denial_by_a_hook_is_told_of_once(heard):
    hooks = Hooks()
    hooks.on_response(lambda request, response: HttpResponse(status=409))
    await knock(DenyMiddlewareStack(accept, default_policy=AllowAny(), hooks=hooks), "/")
    assert told(heard) == [(handshake_denied, 409)]


async def test_nested_stacks_tell_once(heard):
    await knock(open_to_all(Wrapper(open_to_all(public(Consumer).as_asgi()))), "/")
    assert told(heard) == [(handshake_accepted, 101)]


async def test_a_consumer_without_a_stack_tells(heard):
    await knock(login_required(type("Alone", (Consumer,), {})).as_asgi(), "/")
    assert told(heard) == [(handshake_denied, 401)]


async def test_a_denial_by_close_is_told_of_as_the_denial_that_it_is(heard):
    await knock(DenyMiddlewareStack(accept, deny_with="close", default_policy=IsAuthenticated()), "/")
    assert told(heard) == [(handshake_denied, 401)]


async def test_a_denial_that_the_server_cannot_send_is_told_of_as_the_denial_that_it_is(heard):
    await knock(DenyMiddlewareStack(accept, default_policy=IsAuthenticated()), "/", extensions={})
    assert told(heard) == [(handshake_denied, 401)]


async def test_a_stream_of_an_accepted_socket_is_not_told_of(heard):
    stream = locked(Consumer.as_asgi())

    async def demultiplexer(scope, receive, send):
        await accept(scope, receive, send)
        await stream({**scope, "path": "/stream/"}, receive, send)

    handshake = Handshake(open_to_all(demultiplexer), websocket_scope("/"))
    await handshake.connect()
    await handshake.communicator.send_input({"type": "websocket.connect"})
    await handshake.communicator.send_input({"type": "websocket.connect"})
    assert (await handshake.next())["code"] == 4403
    await handshake.end()
    assert told(heard) == [(handshake_accepted, 101)]


async def test_an_http_request_is_not_told_of(heard):
    await fetch(application, "/http/deny-all/")
    assert heard == []


async def test_the_request_is_the_one_that_the_policy_saw(heard):
    seen = []
    await knock(DenyMiddlewareStack(require(Check(lambda request: seen.append(request)))(accept)), "/a/?b=1")
    assert heard[0]["request"] is seen[0]


async def test_the_response_is_the_one_that_goes_out(heard):
    answer = await knock(locked(accept), "/")
    assert heard[0]["response"].content == answer.body


async def test_the_policy_is_the_expression_that_was_asked_last(heard):
    await knock(application, "/ws/or-anonymous/")
    assert heard[0]["policy"] == "DenyAll() | IsAuthenticated()"


async def test_the_policy_of_an_app_that_nobody_could_see_into_is_the_default_one(heard):
    await knock(open_to_all(Wrapper(accept)), "/")
    assert heard[0]["policy"] == "AllowAny()"


async def test_the_duration_is_that_of_the_handshake(heard):
    async def takes_its_time(request):
        await asyncio.sleep(0.05)
        return True

    began = time.monotonic()
    await knock(DenyMiddlewareStack(require(AsyncCheck(takes_its_time))(accept)), "/")
    assert 0.05 <= heard[0]["duration"] <= time.monotonic() - began


# Senders.


def routed(app):
    return URLRouter([path("room/", app)])


@pytest.mark.parametrize("wrap", [lambda app: app, routed, Wrapper], ids=["bare", "routed", "unseen"])
@pytest.mark.parametrize("policy", [AllowAny(), IsAuthenticated()], ids=repr)
@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
async def test_the_sender_is_the_class_of_the_consumer(base, policy, wrap, heard):
    class Room(base):
        pass

    await knock(DenyMiddlewareStack(wrap(require(policy)(Room).as_asgi())), "/room/")
    assert [kwargs["sender"] for kwargs in heard] == [Room]


async def test_the_sender_of_a_subclass_with_a_call_of_its_own_is_the_subclass(heard):
    class Room(public(type("Base", (Consumer,), {}))):
        async def __call__(self, scope, receive, send):
            await super().__call__(scope, receive, send)

    await knock(DenyMiddlewareStack(Wrapper(Room.as_asgi())), "/")
    assert [kwargs["sender"] for kwargs in heard] == [Room]


@pytest.mark.parametrize("app", [accept, routed(accept)])
async def test_without_a_consumer_there_is_no_sender(app, heard):
    await knock(open_to_all(app), "/")
    assert [kwargs["sender"] for kwargs in heard] == [None]


async def test_a_receiver_of_one_sender_hears_of_no_other():
    rooms = []

    class Room(Consumer):
        pass

    async def hear(request, **kwargs):
        rooms.append(request.path)

    site = DenyMiddlewareStack(URLRouter([path("room/", Room.as_asgi()), path("other/", Consumer.as_asgi())]))
    with connected(hear, sender=Room):
        for url in ("/room/", "/other/", "/nowhere/"):
            await knock(site, url)
    assert rooms == ["/room/"]


# Receivers.


async def test_an_asynchronous_receiver_runs_on_the_loop():
    loops = []

    async def hear(**kwargs):
        loops.append(asyncio.get_running_loop())

    with connected(hear):
        await knock(locked(accept), "/")
    assert loops == [asyncio.get_running_loop()]


async def test_a_synchronous_receiver_runs_in_a_thread_that_no_socket_waits_for():
    threads = []

    def hear(**kwargs):
        threads.append(threading.current_thread())

    with connected(hear):
        await knock(locked(accept), "/")
    shared = await sync_to_async(threading.current_thread)()
    assert not set(threads) & {shared, threading.main_thread()}
    assert len(threads) == 1


def test_a_synchronous_receiver_may_query_the_database():
    def hear(request, response, **kwargs):
        get_user_model().objects.create_user(f"denied-{response.status_code}")

    with connected(hear):
        async_to_sync(knock)(locked(accept), "/")
    assert get_user_model().objects.filter(username="denied-403").exists()


class Sync(WebsocketConsumer):
    """Answers from the thread that its methods run in."""

    def connect(self):
        self.accept()


class SyncThatDenies(WebsocketConsumer):
    def connect(self):
        self.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("consumer", [Sync, SyncThatDenies])
async def test_an_asynchronous_receiver_of_a_synchronous_consumer_may_query_the_database(consumer, failures):
    counts = []

    async def hear(**kwargs):
        await asyncio.sleep(0.01)  # By now the consumer's thread waits for nothing.
        counts.append(await get_user_model().objects.acount())

    with connected(hear):
        await knock(open_to_all(consumer.as_asgi()), "/")
    assert (counts, failures()) == ([0], [])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("consumer", [Sync, SyncThatDenies])
async def test_a_receiver_of_a_synchronous_consumer_may_query_at_once(consumer, failures):
    counts = []

    async def hear(**kwargs):
        counts.append(await get_user_model().objects.acount())

    with connected(hear):
        await knock(open_to_all(consumer.as_asgi()), "/")
    assert (counts, failures()) == ([0], [])


async def test_a_receiver_may_look_at_the_user(heard, headers_of):
    await knock(locked(accept), "/", headers=headers_of("alice"))
    assert (await heard[0]["request"].auser()).get_username() == "alice"


async def test_synchronous_receivers_run_in_the_order_they_were_connected_in():
    ran = []
    first, second = (functools.partial(lambda name, **kwargs: ran.append(name), name) for name in "ab")
    with connected(first, second):
        await knock(locked(accept), "/")
    assert ran == ["a", "b"]


async def test_a_receiver_sees_what_a_hook_put_into_a_contextvar():
    variable = contextvars.ContextVar("variable", default=None)
    hooks, seen = Hooks(), []

    @hooks.on_request
    async def tag(request):
        variable.set("tagged")

    def hear(**kwargs):
        seen.append(variable.get())

    with connected(hear):
        await knock(DenyMiddlewareStack(accept, default_policy=AllowAny(), hooks=hooks), "/")
    assert seen == ["tagged"]


async def test_a_receiver_sees_what_a_synchronous_consumer_put_into_a_contextvar():
    variable = contextvars.ContextVar("variable", default=None)
    seen = []

    class Sets(WebsocketConsumer):
        def connect(self):
            variable.set("tagged")
            self.accept()

    async def hear(**kwargs):
        seen.append(variable.get())

    with connected(hear):
        await knock(open_to_all(Sets.as_asgi()), "/")
    assert seen == ["tagged"]


class Listener:
    """A receiver that is a method, and so gone with its object."""

    def __init__(self, heard):
        self._heard = heard
        handshake_denied.connect(self.hear)

    def hear(self, **kwargs):
        self._heard.append(kwargs)


async def test_a_receiver_that_is_a_method_hears():
    heard = []
    listener = Listener(heard)
    await knock(locked(accept), "/")
    assert len(heard) == 1
    del listener


async def test_a_receiver_that_goes_during_a_handshake_hears_nothing(failures):
    heard = []
    listeners = [Listener(heard)]

    def policy(request):
        listeners.clear()
        return False

    await knock(DenyMiddlewareStack(require(Check(policy))(accept)), "/")
    assert heard == []
    assert failures() == []


async def test_a_receiver_that_comes_during_a_handshake_hears_of_it():
    came = []

    async def hear(**kwargs):
        came.append(kwargs)

    async def policy(request):
        handshake_denied.connect(hear)
        return False

    try:
        await knock(DenyMiddlewareStack(require(AsyncCheck(policy))(accept)), "/")
    finally:
        handshake_denied.disconnect(hear)
    assert len(came) == 1


async def test_where_nobody_listens_no_task_is_begun():
    class Other(Consumer):
        pass

    handshake = Handshake(open_to_all(accept), websocket_scope("/"))
    with connected(lambda **kwargs: None, sender=Other):
        before = asyncio.all_tasks()
        await handshake.connect()
        begun = asyncio.all_tasks() - before
    assert begun == {handshake.communicator.future}
    await handshake.leave()


# What receivers cannot do.


def raise_error(**kwargs):
    raise ZeroDivisionError


def raise_exit(**kwargs):
    raise SystemExit


def raise_denial(**kwargs):
    raise Deny(418)


async def raise_error_async(**kwargs):
    raise ZeroDivisionError


async def raise_exit_async(**kwargs):
    raise SystemExit


async def cancel_itself(**kwargs):
    raise asyncio.CancelledError


async def await_something_cancelled(**kwargs):
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


FAILING = [
    raise_error,
    raise_exit,
    raise_denial,
    raise_error_async,
    raise_exit_async,
    cancel_itself,
    await_something_cancelled,
]


@pytest.mark.parametrize("failing", FAILING)
@pytest.mark.parametrize(("site", "status"), [(locked(accept), 403), (open_to_all(accept), 101)])
async def test_a_receiver_that_raises_changes_no_answer(failing, site, status):
    with connected(failing):
        assert (await knock(site, "/")).status == status


@pytest.mark.parametrize("failing", FAILING)
async def test_a_receiver_that_raises_is_logged(failing, failures):
    with connected(failing):
        await knock(locked(accept), "/private/")
    (record,) = failures()
    assert record.getMessage() == f"{__name__}.{failing.__name__} failed at handshake_denied of /private/."
    assert record.exc_info


@pytest.mark.parametrize("failing", FAILING)
async def test_a_receiver_that_raises_keeps_no_other_from_hearing(failing, heard):
    ran = []

    def hear(**kwargs):
        ran.append(kwargs)

    with connected(failing, hear):
        await knock(locked(accept), "/")
    assert len(ran) == len(heard) == 1


async def test_a_receiver_that_cannot_be_called_like_that_is_logged(failures):
    def hear(request):
        pass

    with connected(hear):
        await knock(locked(accept), "/")
    assert [record.exc_info[0] for record in failures()] == [TypeError]


async def test_a_receiver_without_a_name_is_logged_as_it_prints(failures):
    nameless = functools.partial(raise_error)
    with connected(nameless):
        await knock(locked(accept), "/")
    assert repr(nameless) in failures()[0].getMessage()


async def test_a_path_cannot_forge_the_record_of_a_receiver(failures):
    with connected(raise_error):
        await knock(locked(accept), "/a\r\nERROR forged")
    assert failures()[0].getMessage().isprintable()


@pytest.mark.parametrize("answer", [False, Deny(418), HttpResponse(status=418)])
async def test_what_a_receiver_returns_changes_nothing(answer):
    with connected(lambda **kwargs: answer):
        assert (await knock(open_to_all(accept), "/")).status == 101


async def test_a_receiver_that_cancels_its_task_ends_nothing_but_itself(heard):
    async def hear(**kwargs):
        asyncio.current_task().cancel()
        await asyncio.sleep(10)

    with connected(hear):
        assert (await knock(locked(accept), "/")).status == 403
    assert len(heard) == 1


# Receivers that hang.


class Hanging:
    """A receiver that hangs until the test lets it go."""

    def __init__(self):
        self.called = 0
        self.ended = []
        self._free = threading.Event()

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

    def free(self):
        self._free.set()


@pytest.fixture
def hanging():
    hanging = Hanging()
    yield hanging
    hanging.free()


@pytest.fixture(params=["blocking", "asynchronous"])
def hangs(request, hanging):
    """A receiver that hangs, in each way."""
    receiver = getattr(hanging, request.param)
    with connected(receiver):
        yield hanging


@pytest.mark.parametrize(
    ("site", "kind"), [(locked(accept), "http.response.start"), (open_to_all(accept), "accept")]
)
async def test_a_receiver_that_hangs_keeps_no_answer_back(site, kind, hangs):
    handshake = Handshake(site, websocket_scope("/"))
    await handshake.communicator.send_input({"type": "websocket.connect"})
    assert (await handshake.next())["type"] == f"websocket.{kind}"
    assert hangs.ended == []
    hangs.free()
    await handshake.communicator.send_input({"type": "websocket.disconnect", "code": 1000})
    await handshake.end()


async def test_a_receiver_that_hangs_holds_no_consumer_up(hangs):
    class Greets(Consumer):
        async def connect(self):
            await self.accept()
            await self.send("welcome")

    handshake = Handshake(open_to_all(Greets.as_asgi()), websocket_scope("/"))
    await handshake.connect()
    assert (await handshake.next())["text"] == "welcome"
    await until(lambda: hangs.called)
    hangs.free()
    await handshake.leave()


async def test_an_application_has_ended_soon_though_a_receiver_hangs(hangs):
    assert (await knock(locked(accept), "/")).status == 403
    assert hangs.ended == []


async def test_receivers_that_hang_take_no_thread_from_handshakes(hanging, settings):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1}
    with connected(hanging.blocking):
        site = locked(accept)
        answers = await asyncio.gather(*(knock(site, "/") for _ in range(10)))
    assert [answer.status for answer in answers] == [403] * 10


async def test_a_receiver_has_as_long_as_a_policy(hangs, failures, settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.2}
    await knock(locked(accept), "/private/")
    (record,) = failures()
    assert "had not ended 0.2 s after handshake_denied of /private/" in record.getMessage()


async def test_an_asynchronous_receiver_that_takes_too_long_is_cancelled(hanging, settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.2}
    with connected(hanging.asynchronous):
        await knock(locked(accept), "/")
    assert hanging.ended == ["cancelled"]


async def test_an_application_ends_when_its_receivers_have_run():
    ran = []

    def hear(**kwargs):
        time.sleep(0.1)
        ran.append("blocking")

    async def hear_too(**kwargs):
        await asyncio.sleep(0.15)
        ran.append("asynchronous")

    with connected(hear, hear_too):
        await knock(locked(accept), "/")
    assert ran == ["blocking", "asynchronous"]


# Servers that cancel, clients that leave.


async def test_a_server_that_cancels_waits_for_no_receiver(hangs):
    handshake = Handshake(open_to_all(accept), websocket_scope("/"))
    await handshake.connect()
    await until(lambda: hangs.called)
    task = handshake.communicator.future
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert hangs.ended == []


async def test_a_receiver_outlives_the_handshake_that_a_server_cancels(hangs):
    handshake = Handshake(open_to_all(accept), websocket_scope("/"))
    await handshake.connect()
    await until(lambda: hangs.called)
    handshake.communicator.future.cancel()
    await asyncio.sleep(0)
    hangs.free()
    await until(lambda: hangs.ended == ["free"])


async def test_a_server_may_cancel_while_the_application_waits_for_receivers(hangs):
    handshake = Handshake(locked(accept), websocket_scope("/"))
    await handshake.communicator.send_input({"type": "websocket.connect"})
    await until(lambda: hangs.called)
    task = handshake.communicator.future
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_client_that_left_before_anything_is_not_told_of(heard):
    await Handshake(open_to_all(accept), websocket_scope("/")).leave()
    assert heard == []


async def test_a_client_that_leaves_before_its_answer_is_not_told_of(heard):
    handshake = Handshake(open_to_all(waits), websocket_scope("/"))
    await handshake.communicator.send_input({"type": "websocket.connect"})
    await handshake.leave()
    assert heard == []


@pytest.mark.parametrize("app", [accept, closes])
async def test_a_client_that_the_server_knows_to_have_left_is_not_told_of(app, heard):
    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        raise ConnectionResetError

    with suppress(ConnectionResetError):
        await open_to_all(app)(websocket_scope("/"), receive, send)
    assert heard == []


async def test_a_client_that_leaves_in_the_middle_of_a_large_denial_is_not_told_of(heard):
    sending = asyncio.Event()

    async def receive():
        if not sending.is_set():
            sending.set()
            return {"type": "websocket.connect"}
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(message):
        if message["type"] == "websocket.http.response.body":
            await asyncio.get_running_loop().create_future()

    large = Check(lambda request: HttpResponse(b"x" * 100_000, status=403))
    await DenyMiddlewareStack(require(large)(accept))(websocket_scope("/"), receive, send)
    assert heard == []


async def test_a_handshake_that_the_server_cancels_is_not_told_of(heard):
    asked = asyncio.Event()

    async def policy(request):
        asked.set()
        await asyncio.sleep(60)

    handshake = Handshake(DenyMiddlewareStack(require(AsyncCheck(policy))(accept)), websocket_scope("/"))
    await handshake.communicator.send_input({"type": "websocket.connect"})
    await asked.wait()
    task = handshake.communicator.future
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard == []


# What is left.


async def test_a_thousand_handshakes_leave_nothing():
    counts = {101: 0, 403: 0}

    def count(response, **kwargs):
        counts[response.status_code] += 1

    async def count_too(response, **kwargs):
        counts[response.status_code] += 1

    sites = [locked(accept), open_to_all(accept)]
    before = asyncio.all_tasks()
    gc.collect()
    others = [thing for thing in gc.get_objects() if type(thing) is HandshakeRequest]
    with connected(count, count_too):
        for _ in range(20):
            await asyncio.gather(*(knock(site, "/") for site in sites * 25))
    assert counts == {101: 1000, 403: 1000}
    assert asyncio.all_tasks() == before
    gc.collect()
    known = set(map(id, others))
    left = [thing for thing in gc.get_objects() if type(thing) is HandshakeRequest]
    assert [thing for thing in left if id(thing) not in known] == []


def test_a_loop_that_ends_leaves_no_receiver_behind(hanging, recwarn, caplog):
    caplog.set_level(logging.ERROR, "asyncio")
    with connected(hanging.asynchronous):
        asyncio.run(knock(locked(accept), "/"))
    gc.collect()
    assert hanging.ended == ["cancelled"]
    assert [record for record in caplog.records if record.name == "asyncio"] == []
