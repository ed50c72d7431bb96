"""One handshake through the websocket door, in every state it can be in."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from contextlib import asynccontextmanager, suppress

import pytest
from channels.consumer import AsyncConsumer, SyncConsumer
from channels.exceptions import AcceptConnection, DenyConnection, StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.layers import get_channel_layer
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.exceptions import BadRequest, DisallowedHost, PermissionDenied, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.urls.exceptions import Resolver404

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.decorators import public, require
from channels_wsdeny.policies import AllowAny, Policy
from tests.clients import Handshake, answer_of, knock, websocket_scope

# Channels' consumers close old database connections before each message.
pytestmark = pytest.mark.django_db

BASES = [AsyncWebsocketConsumer, WebsocketConsumer]


def open_to_all(app):
    return DenyMiddlewareStack(app, default_policy=AllowAny())


def connecting(connect, base=AsyncWebsocketConsumer, **attributes):
    """The ASGI app of a consumer whose `connect` is this function (a plain one, for sync consumers too)."""

    class Consumer(base):
        if issubclass(base, SyncConsumer):

            def connect(self):
                connect(self)

        else:

            async def connect(self):
                result = connect(self)
                if result is not None:
                    await result

    for name, value in attributes.items():
        setattr(Consumer, name, value)
    return open_to_all(Consumer.as_asgi())


def raising(make):
    def connect(consumer):
        raise make()

    return connect


@asynccontextmanager
async def no_task_left():
    """Whatever tasks are begun within are over at its end, and none of them had an error nobody looked at."""
    before = asyncio.all_tasks()
    yield
    for _ in range(5):  # a task that was cancelled needs a turn of the loop to end
        await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() - before if not task.done()} == set()
    gc.collect()  # what nobody retrieved is told when it is collected, and fails the test


async def outcome(app, **scope):
    """Everything that `app` sends to a client that asks and then says nothing, until `app` ends."""
    handshake = Handshake(app, websocket_scope("/", **scope))
    await handshake.communicator.send_input({"type": "websocket.connect"})
    await handshake.end()
    return left_over(handshake)


def left_over(handshake):
    """What the application sent that nobody has taken yet."""
    queue = handshake.communicator.output_queue
    return [queue.get_nowait() for _ in range(queue.qsize())]


def kinds(messages):
    return [message["type"] for message in messages]


DENIAL = ["websocket.http.response.start", "websocket.http.response.body"]


# Closing before the accept.


@pytest.mark.parametrize("base", BASES)
async def test_a_close_before_the_accept_is_a_403(base):
    answer = await knock(connecting(lambda consumer: consumer.close(), base), "/")
    assert answer.status == 403
    assert answer.problem["code"] == "permission_denied"


@pytest.mark.parametrize(
    ("code", "status", "name"),
    [
        (4400, 400, "bad_request"),
        (4401, 401, "not_authenticated"),
        (4403, 403, "permission_denied"),
        (4404, 404, "not_found"),
        (4429, 429, "throttled"),
        (4500, 500, "server_error"),
        (4503, 503, "unavailable"),
    ],
)
async def test_a_close_with_4000_and_a_status_denies_with_that_status(code, status, name):
    answer = await knock(connecting(lambda consumer: consumer.close(code, "No such room.")), "/")
    assert answer.status == status
    assert answer.problem["code"] == name
    assert answer.problem["detail"] == "No such room."


@pytest.mark.parametrize(("code", "status"), [(4499, 400), (4599, 500)])
async def test_a_close_with_a_status_that_nobody_registered_denies_with_its_class(code, status):
    assert (await knock(connecting(lambda consumer: consumer.close(code)), "/")).status == status


@pytest.mark.parametrize("code", [1000, 1008, 3000, 4000, 4399, 4600, 4999])
async def test_a_close_with_any_other_code_is_a_403(code):
    assert (await knock(connecting(lambda consumer: consumer.close(code)), "/")).status == 403


async def test_a_close_without_a_reason_has_the_default_detail():
    answer = await knock(connecting(lambda consumer: consumer.close(4404)), "/")
    assert answer.problem["detail"] == "There is nothing at this address."


@pytest.mark.parametrize("base", BASES)
async def test_a_consumer_that_closed_gets_its_disconnect_from_the_stack(base):
    codes = []
    if base is WebsocketConsumer:

        def disconnect(self, code):
            codes.append(code)
    else:

        async def disconnect(self, code):
            codes.append(code)

    app = connecting(lambda consumer: consumer.close(), base, disconnect=disconnect)
    async with no_task_left():
        assert (await knock(app, "/")).status == 403
    assert codes == [1006]


@pytest.mark.parametrize("base", BASES)
async def test_a_consumer_that_closed_leaves_its_groups(base):
    joined = []

    def connect(consumer):
        joined.extend(get_channel_layer().groups)
        return consumer.close()

    assert (await knock(connecting(connect, base, groups=["lobby"]), "/")).status == 403
    assert joined == ["lobby"]
    assert get_channel_layer().groups == {}


async def test_a_raw_app_that_closes_without_asking_for_an_event_is_a_403():
    async def app(scope, receive, send):
        await send({"type": "websocket.close"})

    assert kinds(await outcome(open_to_all(app))) == DENIAL


async def test_closing_twice_denies_once():
    async def connect(consumer):
        await consumer.close(4404)
        await consumer.close(4429)

    messages = await outcome(connecting(connect))
    assert kinds(messages) == DENIAL
    assert messages[0]["status"] == 404


@pytest.mark.parametrize("base", BASES)
async def test_an_accept_after_a_close_leaves_nothing_open(base):
    if base is WebsocketConsumer:

        def connect(consumer):
            consumer.close()
            consumer.accept()
    else:

        async def connect(consumer):
            await consumer.close()
            await consumer.accept()

    async with no_task_left():
        messages = await outcome(connecting(connect, base))
    assert kinds(messages) == DENIAL
    assert messages[0]["status"] == 403


async def test_what_a_consumer_sends_after_its_denial_is_an_os_error():
    errors = []

    async def connect(consumer):
        await consumer.close()
        for send in (consumer.accept, lambda: consumer.send("hello"), lambda: consumer.send("hello")):
            try:
                await send()
            except OSError as error:
                errors.append(str(error))

    assert kinds(await outcome(connecting(connect))) == DENIAL
    assert len(errors) == 3
    assert "denied already" in errors[0]


async def test_a_consumer_that_closes_from_a_task_of_its_own_while_it_waits_is_denied():
    tasks = []

    def connect(consumer):
        tasks.append(asyncio.ensure_future(consumer.close(4404)))

    async with no_task_left():
        answer = await knock(connecting(connect), "/")
        await asyncio.gather(*tasks)
    assert answer.status == 404


async def test_a_denial_from_another_task_is_out_before_the_app_returns():
    tasks = []

    def connect(consumer):
        consumer.scope["session"]["seen"] = True  # to save it, the denial takes a thread and a moment
        tasks.append(asyncio.ensure_future(consumer.close(4404)))

    assert kinds(await outcome(connecting(connect), session=SessionStore())) == DENIAL
    await asyncio.gather(*tasks)


async def test_a_consumer_that_closes_on_a_message_of_the_channel_layer_is_denied():
    async def tell(consumer):
        await get_channel_layer().send(consumer.channel_name, {"type": "be.gone"})

    async def be_gone(self, message):
        await self.close(4409, "Somebody else is here.")

    async with no_task_left():
        answer = await knock(connecting(tell, be_gone=be_gone), "/")
    assert answer.status == 409
    assert answer.problem["detail"] == "Somebody else is here."


async def test_a_consumer_that_accepts_on_a_message_of_the_channel_layer_is_accepted():
    async def tell(consumer):
        await get_channel_layer().send(consumer.channel_name, {"type": "come.in"})

    async def come_in(self, message):
        await self.accept()

    async with no_task_left():
        assert (await knock(connecting(tell, come_in=come_in), "/")).status == 101


async def test_a_denial_that_the_app_cuts_short_still_goes_out():
    async def app(scope, receive, send):
        await receive()
        scope["session"]["seen"] = True
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await send({"type": "websocket.close"})

    async with no_task_left():
        assert kinds(await outcome(open_to_all(app), session=SessionStore())) == DENIAL


class ChangesSession(Policy):
    """Denies, and changes the session: to save it, the denial takes a thread and a moment."""

    async def acheck(self, request):
        request.session["seen"] = True
        return False


async def test_a_denial_by_the_default_policy_that_the_app_cuts_short_still_goes_out():
    async def app(scope, receive, send):
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await receive()

    stack = DenyMiddlewareStack(app, default_policy=ChangesSession())
    async with no_task_left():
        assert kinds(await outcome(stack, session=SessionStore())) == DENIAL


async def test_a_large_denial_is_sent_whole_though_the_server_has_no_more_to_receive():
    events, sent = [{"type": "websocket.connect"}], []

    async def receive():
        return events.pop()  # an IndexError from the second time on

    async def send(message):
        await asyncio.sleep(0)
        sent.append(message)

    async def app(scope, receive, send):
        raise Deny(response=HttpResponse(b"x" * 100_000, status=403))

    async with no_task_left():
        await open_to_all(app)(websocket_scope("/"), receive, send)
    assert kinds(sent) == DENIAL


# Raising before the accept.

ROWS = [
    (PermissionDenied, 403, "permission_denied"),
    (Http404, 404, "not_found"),
    (lambda: Resolver404({"path": "secret"}), 404, "not_found"),
    (BadRequest, 400, "bad_request"),
    (SuspiciousOperation, 400, "bad_request"),
    (DisallowedHost, 400, "bad_request"),
    (lambda: Deny(402, code="pay"), 402, "pay"),
    (lambda: Deny(429, headers={"Retry-After": "3"}), 429, "throttled"),
    (lambda: Deny(response=HttpResponse("gone", status=410)), 410, None),
    (OperationalError, 503, "unavailable"),
    (InterfaceError, 503, "unavailable"),
    (ConnectionRefusedError, 503, "unavailable"),
    (TimeoutError, 503, "unavailable"),
    (lambda: ZeroDivisionError("secret"), 500, "server_error"),
    (lambda: ValueError("secret"), 500, "server_error"),
    (lambda: KeyError("secret"), 500, "server_error"),
    (lambda: OSError("secret"), 500, "server_error"),
]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("make", "status", "code"), ROWS)
async def test_an_exception_before_the_accept_is_the_denial_of_the_table(make, status, code, base):
    async with no_task_left():
        answer = await knock(connecting(raising(make), base), "/")
    assert answer.status == status
    if code is not None:
        assert answer.problem["code"] == code
    assert b"secret" not in answer.body


@pytest.mark.parametrize("make", [make for make, status, _ in ROWS if status == 503])
async def test_an_unreachable_service_says_when_to_come_again(make):
    assert (await knock(connecting(raising(make)), "/")).header("retry-after") == "5"


@pytest.mark.parametrize("base", BASES)
async def test_deny_connection_is_a_403(base):
    assert (await knock(connecting(raising(DenyConnection), base), "/")).status == 403


async def test_deny_connection_out_of_a_raw_consumer_is_a_403():
    class Raw(AsyncConsumer):
        async def websocket_connect(self, message):
            raise DenyConnection

    assert (await knock(open_to_all(Raw.as_asgi()), "/")).status == 403


@pytest.mark.parametrize("base", BASES)
async def test_accept_connection_is_an_accept(base):
    assert (await knock(connecting(raising(AcceptConnection), base), "/")).status == 101


@pytest.mark.parametrize("base", BASES)
async def test_an_error_is_logged_with_its_traceback_and_a_denial_is_not(base, caplog):
    await knock(connecting(raising(PermissionDenied), base), "/")
    assert [record for record in caplog.records if record.exc_info] == []
    await knock(connecting(raising(ZeroDivisionError), base), "/")
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.name == "django.request"
    assert record.exc_info[0] is ZeroDivisionError
    assert record.exc_info[2].tb_next is not None


async def test_something_cancelled_that_a_consumer_awaited_is_a_500():
    async def connect(consumer):
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task

    async with no_task_left():
        assert (await knock(connecting(connect), "/")).status == 500


@pytest.mark.parametrize("base", BASES)
async def test_a_consumer_that_stops_without_an_answer_is_a_500(base):
    async with no_task_left():
        assert (await knock(connecting(raising(StopConsumer), base), "/")).status == 500


@pytest.mark.parametrize("asks", [False, True])
async def test_an_app_that_ends_without_an_answer_is_a_500_and_the_log_names_it(asks, caplog):
    async def silent(scope, receive, send):
        if asks:
            await receive()

    assert (await knock(open_to_all(silent), "/")).status == 500
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "silent" in str(record.exc_info[1])
    assert "accept or close" in str(record.exc_info[1])


# Messages out of place.


@pytest.mark.parametrize("base", BASES)
async def test_a_message_before_the_accept_is_a_500(base):
    async with no_task_left():
        assert (await knock(connecting(lambda consumer: consumer.send("too early"), base), "/")).status == 500


@pytest.mark.parametrize("message", [{"type": "websocket.hello"}, {"type": "http.response.start"}, {}])
async def test_a_message_that_nobody_knows_is_a_500_and_the_log_says_what_to_send(message, caplog):
    async def app(scope, receive, send):
        await receive()
        await send(message)

    assert (await knock(open_to_all(app), "/")).status == 500
    (record,) = [record for record in caplog.records if record.exc_info]
    assert repr(message.get("type")) in str(record.exc_info[1])
    assert "websocket.accept" in str(record.exc_info[1])


@pytest.mark.parametrize(
    "headers", [[("x-a", "1")], [(b"x a", b"1")], [(b"x-a", b"1\r\nx-b: 2")], [(b"x-a", "1")]]
)
async def test_an_accept_with_headers_that_cannot_be_sent_is_a_500(headers):
    app = connecting(lambda consumer: consumer.accept(headers=headers))
    assert (await knock(app, "/")).status == 500


async def test_an_accept_keeps_its_headers_and_subprotocol():
    app = connecting(lambda consumer: consumer.accept("chat.v1", headers=[(b"X-A", b"1")]))
    answer = await knock(app, "/", subprotocols=["chat.v1"])
    assert answer.messages == [
        {"type": "websocket.accept", "subprotocol": "chat.v1", "headers": [(b"x-a", b"1")]}
    ]


async def test_a_second_accept_is_the_servers_business():
    async def connect(consumer):
        await consumer.accept()
        await consumer.accept()

    handshake = Handshake(connecting(connect), websocket_scope("/"))
    assert (await handshake.connect()).status == 101
    assert (await handshake.next())["type"] == "websocket.accept"
    await handshake.leave()


async def test_an_app_may_accept_before_it_takes_the_connect_event():
    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        for _ in range(2):
            await send({"type": "websocket.send", "text": (await receive())["type"]})

    handshake = Handshake(open_to_all(app), websocket_scope("/"))
    assert (await handshake.connect()).status == 101
    assert (await handshake.next())["text"] == "websocket.connect"
    await handshake.send("hello")
    assert (await handshake.next())["text"] == "websocket.receive"
    await handshake.end()


# A denial that the application sends itself.


def denying(*messages):
    async def app(scope, receive, send):
        await receive()
        for message in messages:
            await send({**message, "type": f"websocket.http.response.{message['type']}"})

    return open_to_all(app)


async def test_an_app_may_send_a_denial_of_its_own():
    app = denying(
        {"type": "start", "status": 418, "headers": [(b"X-Pot", b"short"), (b"content-type", b"text/plain")]},
        {"type": "body", "body": b"stout"},
    )
    answer = await knock(app, "/")
    assert answer.status == 418
    assert answer.header("x-pot") == "short"
    assert answer.header("content-type") == "text/plain"
    assert answer.header("content-length") == "5"
    assert answer.body == b"stout"


async def test_the_body_of_an_apps_own_denial_may_come_in_parts():
    app = denying(
        {"type": "start", "status": 403, "headers": []},
        {"type": "body", "body": b"one ", "more_body": True},
        {"type": "body", "more_body": True},
        {"type": "body", "body": b"two"},
    )
    messages = await outcome(app)
    assert kinds(messages) == DENIAL
    assert answer_of(messages).body == b"one two"


async def test_an_apps_own_denial_keeps_all_its_cookies():
    cookies = [(b"Set-Cookie", b"a=1; Path=/"), (b"set-cookie", b"b=2; Path=/")]
    app = denying({"type": "start", "status": 403, "headers": cookies}, {"type": "body"})
    answer = await knock(app, "/")
    assert [value for name, value in answer.headers if name == "set-cookie"] == ["a=1; Path=/", "b=2; Path=/"]


async def test_an_apps_own_denial_needs_no_headers():
    assert (await knock(denying({"type": "start", "status": 403}, {"type": "body"}), "/")).status == 403


START = {"type": "start", "status": 403, "headers": []}


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "start", "status": 200}, {"type": "body"}],
        [{"type": "start", "status": 101}, {"type": "body"}],
        [{"type": "start", "status": 600}, {"type": "body"}],
        [{"type": "start", "status": True}, {"type": "body"}],
        [{"type": "start", "status": "403"}, {"type": "body"}],
        [{"type": "start"}, {"type": "body"}],
        [{"type": "start", "status": 403, "headers": [("x", "y")]}, {"type": "body"}],
        [START, {"type": "body", "body": "text"}],
        [START, START],
        [START],
        [{"type": "body"}],
    ],
)
async def test_an_apps_own_denial_that_is_none_is_a_500(messages):
    async with no_task_left():
        assert (await knock(denying(*messages), "/")).status == 500


async def test_an_apps_own_denial_over_the_limit_is_a_500(settings, caplog):
    settings.CHANNELS_WSDENY = {"MAX_DENIAL_BODY": 10}
    part = {"type": "body", "body": b"123456", "more_body": True}
    assert (await knock(denying(START, part, part), "/")).status == 500
    assert "MAX_DENIAL_BODY" in caplog.text


async def test_an_accept_after_the_start_of_a_denial_leaves_nothing_open():
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await send({"type": "websocket.accept"})

    messages = await outcome(open_to_all(app))
    assert kinds(messages) == DENIAL
    assert messages[0]["status"] == 500


# Applications that do not end.


async def test_an_app_that_asks_on_after_the_denial_is_unwound():
    events = []

    async def app(scope, receive, send):
        try:
            while True:
                events.append((await receive())["type"])
                await send({"type": "websocket.close"})
        finally:
            events.append("unwound")

    async with no_task_left():
        assert kinds(await outcome(open_to_all(app))) == DENIAL
    assert events == ["websocket.connect", "websocket.disconnect", "unwound"]


async def test_an_app_that_never_took_the_connect_event_gets_no_disconnect():
    events = []

    async def app(scope, receive, send):
        await send({"type": "websocket.close"})
        while True:
            events.append(await receive())

    async with no_task_left():
        assert kinds(await outcome(open_to_all(app))) == DENIAL
    assert events == []


# The client leaves.


class Slow(Policy):
    """Answers once the test says so, on the loop."""

    def __init__(self):
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    async def acheck(self, request):
        self.asked.set()
        await self.answers.wait()
        return True


def errors(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_client_that_left_before_anything_runs_nothing(caplog):
    ran = []
    app = connecting(lambda consumer: ran.append(consumer))
    handshake = Handshake(app, websocket_scope("/"))
    async with no_task_left():
        await handshake.leave()
    assert ran == []
    assert left_over(handshake) == []
    assert errors(caplog) == []


async def test_a_client_that_leaves_while_its_policy_is_asked_is_no_error(caplog):
    policy, codes = Slow(), []

    @require(policy)
    class Patient(AsyncWebsocketConsumer):
        async def connect(self):
            pass

        async def disconnect(self, code):
            codes.append(code)

    handshake = Handshake(DenyMiddlewareStack(Patient.as_asgi()), websocket_scope("/"))
    async with no_task_left():
        await handshake.communicator.send_input({"type": "websocket.connect"})
        await handshake.communicator.send_input({"type": "websocket.disconnect", "code": 1001})
        await policy.asked.wait()
        policy.answers.set()
        await handshake.end()
    assert codes == [1001]
    assert errors(caplog) == []
    assert left_over(handshake) == []


async def test_a_client_that_leaves_while_the_consumer_makes_up_its_mind_is_no_error(caplog):
    codes, reached = [], asyncio.Event()

    async def disconnect(self, code):
        codes.append(code)

    handshake = Handshake(
        connecting(lambda consumer: reached.set(), disconnect=disconnect, groups=["lobby"]),
        websocket_scope("/"),
    )
    async with no_task_left():
        await handshake.communicator.send_input({"type": "websocket.connect"})
        await reached.wait()
        await handshake.leave()
    assert codes == [1000]
    assert get_channel_layer().groups == {}
    assert errors(caplog) == []


async def test_a_server_that_says_that_the_client_has_left_ends_the_denial_quietly(caplog):
    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        raise ConnectionResetError

    async with no_task_left():
        await connecting(lambda consumer: consumer.close())(websocket_scope("/"), receive, send)
    assert errors(caplog) == []


# The server cancels.


class Hung(Policy):
    """Blocks in its thread until the test says so."""

    def __init__(self):
        self.asked, self.answers = threading.Event(), threading.Event()

    def check(self, request):
        self.asked.set()
        self.answers.wait(10)
        return True


async def cancel(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def start(app, *events):
    """A task that runs `app` for a client of these events, who then says nothing; and what `app` sends."""
    queue, sent = [{"type": event} for event in events], asyncio.Queue()

    async def receive():
        return queue.pop(0) if queue else await asyncio.get_running_loop().create_future()

    task = asyncio.ensure_future(app(websocket_scope("/"), receive, sent.put))
    await asyncio.sleep(0)
    return task, sent


async def test_a_handshake_that_is_cancelled_before_it_begins_leaves_nothing():
    async with no_task_left():
        task, _ = await start(connecting(lambda consumer: consumer.accept()))
        await cancel(task)


async def test_a_handshake_that_is_cancelled_while_a_policy_is_asked_on_the_loop_leaves_nothing():
    policy = Slow()
    app = require(policy)(connecting(lambda consumer: consumer.accept()))
    async with no_task_left():
        task, sent = await start(app, "websocket.connect")
        await policy.asked.wait()
        await cancel(task)
    assert sent.empty()


async def test_a_handshake_that_is_cancelled_while_a_policy_is_asked_in_a_thread_leaves_nothing():
    policy = Hung()
    app = require(policy)(connecting(lambda consumer: consumer.accept()))
    try:
        async with no_task_left():
            task, sent = await start(app, "websocket.connect")
            await asyncio.to_thread(policy.asked.wait, 10)
            await cancel(task)
        assert sent.empty()
    finally:
        policy.answers.set()


class Wrapper:
    """A wrapper that the look-ahead does not know."""

    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        await self.inner(scope, receive, send)


async def test_a_handshake_that_is_cancelled_while_it_is_decided_late_leaves_nothing():
    policy = Slow()

    class Late(AsyncWebsocketConsumer):
        pass

    app = DenyMiddlewareStack(Wrapper(Late.as_asgi()), default_policy=policy)
    async with no_task_left():
        task, sent = await start(app, "websocket.connect")
        await policy.asked.wait()
        await cancel(task)
    assert sent.empty()


async def test_a_handshake_that_is_cancelled_in_connect_leaves_nothing():
    reached = asyncio.Event()

    async def connect(consumer):
        reached.set()
        await asyncio.sleep(60)

    async with no_task_left():
        task, sent = await start(connecting(connect), "websocket.connect")
        await reached.wait()
        await cancel(task)
    assert sent.empty()


async def test_a_handshake_that_is_cancelled_while_the_consumer_waits_for_an_event_leaves_nothing():
    reached = asyncio.Event()
    async with no_task_left():
        task, sent = await start(connecting(lambda consumer: reached.set()), "websocket.connect")
        await reached.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        await cancel(task)
    assert sent.empty()


async def test_a_handshake_that_is_cancelled_after_the_accept_leaves_nothing():
    async with no_task_left():
        task, sent = await start(connecting(lambda consumer: consumer.accept()), "websocket.connect")
        assert (await sent.get())["type"] == "websocket.accept"
        await cancel(task)


async def test_a_handshake_that_is_cancelled_while_its_denial_is_read_leaves_nothing():
    reached = asyncio.Event()

    async def chunks():
        reached.set()
        yield b"a"
        await asyncio.sleep(60)

    @require(Answering(lambda: StreamingHttpResponse(chunks(), status=403)))
    class Guarded(AsyncWebsocketConsumer):
        pass

    async with no_task_left():
        task, sent = await start(Guarded.as_asgi(), "websocket.connect")
        await reached.wait()
        await cancel(task)
    assert sent.empty()


class Answering(Policy):
    """Answers what `make` makes."""

    def __init__(self, make):
        self.make = make

    async def acheck(self, request):
        return self.make()


async def test_a_handshake_that_is_cancelled_while_its_denial_is_sent_leaves_nothing():
    reached = asyncio.Event()

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        reached.set()
        await asyncio.sleep(60)

    async with no_task_left():
        app = require(Answering(lambda: False))(connecting(lambda consumer: consumer.accept()))
        task = asyncio.ensure_future(app(websocket_scope("/"), receive, send))
        await reached.wait()
        await cancel(task)


async def test_a_handshake_that_is_cancelled_while_the_denial_of_its_app_is_sent_leaves_nothing():
    reached = asyncio.Event()

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        reached.set()
        await asyncio.get_running_loop().create_future()

    async with no_task_left():
        app = connecting(lambda consumer: consumer.close())
        task = asyncio.ensure_future(app(websocket_scope("/"), receive, send))
        await reached.wait()
        await cancel(task)


# After the accept.


async def test_after_the_accept_messages_pass_straight_through():
    seen = []

    @public
    class Echo(AsyncWebsocketConsumer):
        async def websocket_receive(self, message):
            seen.append(message)
            await self.base_send({"type": "websocket.send", "bytes": message["bytes"]})

    handshake = Handshake(DenyMiddlewareStack(Echo.as_asgi()), websocket_scope("/"))
    assert (await handshake.connect()).status == 101
    message = {"type": "websocket.receive", "bytes": b"hello"}
    await handshake.communicator.send_input(message)
    assert await handshake.next() == {"type": "websocket.send", "bytes": b"hello"}
    assert seen[0] is message
    await handshake.leave()


async def test_after_the_accept_a_close_keeps_its_code_and_reason():
    async def connect(consumer):
        await consumer.accept()
        await consumer.close(4404, "Gone.")

    handshake = Handshake(connecting(connect), websocket_scope("/"))
    assert (await handshake.connect()).status == 101
    assert await handshake.next() == {"type": "websocket.close", "code": 4404, "reason": "Gone."}
    await handshake.leave()


@pytest.mark.parametrize(
    "make", [ZeroDivisionError, PermissionDenied, Http404, lambda: Resolver404({}), lambda: Deny(404)]
)
async def test_after_the_accept_an_exception_reaches_the_server_unchanged(make, caplog):
    error = make()

    async def connect(consumer):
        await consumer.accept()
        raise error

    handshake = Handshake(connecting(connect), websocket_scope("/"))
    async with no_task_left():
        assert (await handshake.connect()).status == 101
        with pytest.raises(type(error)) as caught:
            await handshake.end()
    assert caught.value is error
    assert left_over(handshake) == []
    assert errors(caplog) == []


async def test_after_the_accept_the_client_that_leaves_is_told_to_the_consumer():
    codes = []

    async def disconnect(self, code):
        codes.append(code)

    handshake = Handshake(
        connecting(lambda consumer: consumer.accept(), disconnect=disconnect), websocket_scope("/")
    )
    async with no_task_left():
        assert (await handshake.connect()).status == 101
        await handshake.leave()
    assert codes == [1000]


# The scope that the application gets.


async def scope_of(app_of, **scope):
    """The scope that an app finds within what `app_of` makes of it."""
    found = []

    class Accept(AsyncWebsocketConsumer):
        async def connect(self):
            found.append(self.scope)
            await self.accept()

    given = websocket_scope("/", **scope)
    before = dict(given)
    handshake = Handshake(app_of(Accept.as_asgi()), given)
    assert (await handshake.connect()).status == 101
    await handshake.leave()
    assert given == before
    return found[0]


@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper])
async def test_the_scope_is_copied_and_has_a_user_a_session_and_cookies(wrap):
    headers = [(b"cookie", b"theme=dark; size=2")]
    scope = await scope_of(lambda app: open_to_all(wrap(app)), headers=headers)
    assert scope["user"].is_anonymous
    assert scope["session"].is_empty()
    assert scope["cookies"] == {"theme": "dark", "size": "2"}
    assert scope["cookies"] == scope["wsdeny"].request.COOKIES
    assert scope["headers"] is headers


@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper])
async def test_a_user_and_a_session_in_the_scope_are_kept(wrap):
    user, session = get_user_model()(pk=1, username="alice"), SessionStore()
    scope = await scope_of(lambda app: DenyMiddlewareStack(wrap(app)), user=user, session=session)
    assert scope["user"] is scope["wsdeny"].request.user is user
    assert scope["session"] is scope["wsdeny"].request.session is session


@pytest.mark.parametrize("decorate", [lambda app: app, public])
async def test_what_a_wrapper_puts_into_the_scope_is_kept(decorate):
    class Speaks(Wrapper):
        async def __call__(self, scope, receive, send):
            await self.inner({**scope, "language": "de", "cookies": {"only": "this"}}, receive, send)

    scope = await scope_of(lambda app: open_to_all(Speaks(decorate(app))))
    assert scope["language"] == "de"
    assert scope["cookies"] == {"only": "this"}


async def test_the_request_in_the_scope_has_a_place_for_the_site():
    scope = await scope_of(open_to_all)
    scope["wsdeny"].request.ctx.key = "bar"
    assert scope["wsdeny"].request.ctx.key == "bar"
