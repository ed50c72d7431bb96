"""One handshake, in every state that it can be in."""

import asyncio
import threading
from contextlib import suppress
from itertools import product

import pytest
from asgiref.sync import sync_to_async
from channels.consumer import AsyncConsumer
from channels.exceptions import AcceptConnection, DenyConnection, StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.layers import get_channel_layer
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.urls.exceptions import Resolver404

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.handlers import base, connection, websocket
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated
from tests.support.clients import GUARD, knock, websocket_scope
from tests.support.mirror import Server as HttpServer
from tests.support.mirror import made, plain
from tests.support.policies import AsyncCheck, Check, raising
from tests.support.policies import accept as accept_all
from tests.support.scripted import Script, accept, close, text
from tests.support.site import go_on, noting
from tests.support.sockets import (
    CONNECT,
    DENIAL,
    Server,
    Unread,
    consumer,
    disconnect,
    errors,
    guarded,
    no_task_left,
    open_to_all,
)
from tests.support.threads import outlast, until
from tests.support.wrappers import Middleware, Wrapper

pytestmark = pytest.mark.django_db

BASES = [AsyncWebsocketConsumer, WebsocketConsumer]


def connecting(connect, base=AsyncWebsocketConsumer, **attributes):
    return open_to_all(consumer(connect, base, **attributes).as_asgi())


# The host.

HOSTS = {
    "allowed": ([(b"host", b"shop.example.com:8000")], 101),
    "none": ([], 101),
    "another": ([(b"host", b"evil.test")], 400),
    "two": ([(b"host", b"shop.example.com"), (b"host", b"evil.test")], 400),
    "no name": ([(b"host", b"shop.example.com/evil.test")], 400),
    "no text": ([(b"host", b"\xff\x00")], 400),
    "forwarded": ([(b"host", b"10.0.0.1"), (b"x-forwarded-host", b"shop.example.com")], 101),
    "local while DEBUG": ([(b"host", b"a.localhost:8000")], 101),
    "another one while DEBUG": ([(b"host", b"evil.test")], 400),
    "another one forwarded": ([(b"host", b"shop.example.com"), (b"x-forwarded-host", b"evil.test")], 400),
}


@pytest.mark.parametrize("guard", [open_to_all, lambda app: DenyMiddlewareStack(app)], ids=["public", "default policy"])
@pytest.mark.parametrize("name", HOSTS)
async def test_the_host_is_checked_as_for_a_view_before_anything_runs(name, guard, settings, caplog):
    headers, status = HOSTS[name]
    settings.DEBUG = name.endswith("DEBUG")
    settings.ALLOWED_HOSTS = [] if settings.DEBUG else [".example.com"]
    settings.USE_X_FORWARDED_HOST = "forwarded" in name
    script, hooks, ran = Script(accept()), Hooks(), []
    hooks.on_request(ran.append, blocking=False)
    answer = await knock(DenyMiddlewareStack(guard(script), hooks=hooks), "/", headers=headers)
    assert answer.status == (status if status == 400 or guard is open_to_all else 401)
    assert bool(ran) is (status != 400)
    if status == 400:
        assert answer.problem["code"] == "bad_request"
        assert [record.name for record in caplog.records if record.name.startswith("django.security")] == [
            "django.security.DisallowedHost"
        ]
        assert settings.DEBUG or b"evil" not in answer.body
    without_hooks = await knock(guard(script), "/", headers=headers)
    assert without_hooks.status == answer.status


# An application that does not accept.

CLOSES = {
    (4400, "Why."): (400, "bad_request"),
    (4401, "Why."): (401, "not_authenticated"),
    (4403, "Why."): (403, "permission_denied"),
    (4404, ""): (404, "not_found"),
    (4429, "Why."): (429, "throttled"),
    (4499, "Why."): (400, "bad_request"),
    (4503, "Why."): (503, "unavailable"),
    (4599, "Why."): (500, "server_error"),
    **{(code, "Why."): (403, "permission_denied") for code in (1000, 1008, 3000, 4000, 4399, 4600, 4999)},
    (None, ""): (403, "permission_denied"),
}


@pytest.mark.parametrize(("given", "expected"), CLOSES.items())
async def test_a_close_before_the_accept_is_a_denial_by_its_code(given, expected, settings):
    code, reason = given
    site = open_to_all(Script(close(code=code, reason=reason) if code else close()))
    answer = await knock(site, "/")
    assert (answer.status, answer.problem["code"]) == expected
    assert answer.problem["detail"] == reason or not reason
    settings.CHANNELS_WSDENY = {"DENY_WITH": "close"}
    server = Server(CONNECT, disconnect())
    await server.run(site)
    is_status = code is None or 4400 <= code <= 4599
    retry = ";retry=5" if expected[0] == 503 else ""
    expected_close = (4000 + expected[0], expected[1] + retry) if is_status else (code, reason)
    assert (server.sent[1]["code"], server.sent[1]["reason"]) == expected_close


async def test_a_hook_that_changes_the_status_of_a_close_changes_its_code(settings):
    settings.CHANNELS_WSDENY = {"DENY_WITH": "close"}
    hooks = made("response", lambda request, response: setattr(response, "status_code", 429))
    server = Server(CONNECT, disconnect())
    await server.run(with_hooks(hooks)(open_to_all(Script(close(code=3000, reason="Why.")))))
    assert (server.sent[1]["code"], server.sent[1]["reason"]) == (4429, "throttled")


RAISED = {
    "permission denied": (PermissionDenied, 403, "permission_denied"),
    "not found": (Http404, 404, "not_found"),
    "unresolved": (lambda: Resolver404({"path": "secret"}), 404, "not_found"),
    "deny": (lambda: Deny(402, "Pay first.", code="pay"), 402, "pay"),
    "unavailable": (OperationalError, 503, "unavailable"),
    "error": (lambda: ZeroDivisionError("secret"), 500, "server_error"),
    "deny connection": (DenyConnection, 403, "permission_denied"),
    "stop": (StopConsumer, 500, "server_error"),
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("make", "status", "code"), RAISED.values(), ids=RAISED)
async def test_an_exception_before_the_accept_is_a_denial(make, status, code, base, caplog):
    async with no_task_left():
        answer = await knock(connecting(raising(make), base), "/")
    assert (answer.status, answer.problem["code"], b"secret" in answer.body) == (status, code, False)
    logged = errors(caplog)
    assert len(logged) == (1 if status >= 500 else 0)
    assert [error for error in logged if error.__traceback__] == []  # It would keep the request alive.


class Ending(BaseException):
    """An exception of the site's own that `except Exception` lets pass."""


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("around", [False, True], ids=["", "around hook"])
async def test_what_is_no_exception_is_the_servers(around, base):
    hooks = made("around", go_on) if around else None
    async with no_task_left():
        with pytest.raises(Ending):
            await Server().run(DenyMiddlewareStack(connecting(raising(Ending), base), hooks=hooks))


async def test_channels_own_exceptions_of_raw_consumers_are_known():
    raw = consumer(None, AsyncConsumer, websocket_connect=raising(DenyConnection))
    assert (await knock(open_to_all(raw.as_asgi()), "/")).status == 403
    for kind in BASES:
        assert (await knock(connecting(raising(AcceptConnection), kind), "/")).status == 101


async def ends(scope, receive, send):
    """Ends without an answer."""


async def asks(scope, receive, send):
    await receive()


async def stubborn(scope, receive, send):
    for _ in range(4):
        with suppress(BaseException):
            await receive()


async def cancelled(scope, receive, send):
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task


@pytest.fixture
def impatient(settings):
    settings.CHANNELS_WSDENY = {"ACCEPT_TIMEOUT": 0.02}


SILENT = {
    "ends": (ends, f"{__name__}.ends", "accept or close"),
    "asks and ends": (asks, f"{__name__}.asks", "accept or close"),
    "waits": (Script(), "Script did not answer the handshake within 0.02 s (ACCEPT_TIMEOUT).", "ACCEPT_TIMEOUT"),
    "consumer waits": (consumer(lambda self: None).as_asgi(), ".Consumer did", "ACCEPT_TIMEOUT"),
    "swallows its cancellation": (stubborn, "stubborn", "ACCEPT_TIMEOUT"),
    "swallows it within middleware": (Middleware(Wrapper(stubborn)), "Middleware", "ACCEPT_TIMEOUT"),
    "awaits what was cancelled": (cancelled, "cancelled", "cancelled before it answered"),
    "text": (Script(text("early")), "websocket.send", "Send 'websocket.accept'"),
    "unknown": (Script({"type": "websocket.hello"}), "'websocket.hello'", "Send 'websocket.accept'"),
    "of HTTP": (Script({"type": "http.response.start"}), "'http.response.start'", "Send 'websocket.accept'"),
    "untyped": (Script({}), "None", "Send 'websocket.accept'"),
}


@pytest.mark.parametrize(("app", "name", "remedy"), SILENT.values(), ids=SILENT)
async def test_an_application_without_a_possible_answer_is_a_500_and_the_log_names_it(
    app, name, remedy, settings, caplog
):
    settings.CHANNELS_WSDENY = {"ACCEPT_TIMEOUT": 0.02 if remedy == "ACCEPT_TIMEOUT" else GUARD}
    async with no_task_left():
        answer = await Server().run(open_to_all(app))
    assert answer.status == 500
    (error,) = errors(caplog)
    assert (name in str(error), remedy in str(error)) == (True, True)


@pytest.mark.parametrize("around", [False, True], ids=["", "around hook"])
@pytest.mark.parametrize("where", ["", "in connect", "in connect, for ever", "in a thread"])
async def test_accept_timeout_bounds_the_whole_time_until_the_answer(where, around, settings, caplog):
    settings.CHANNELS_WSDENY = {"ACCEPT_TIMEOUT": 0.05}
    closing, left, hooks = asyncio.Event(), [], Hooks()

    async def connect(self):
        while not closing.is_set():
            with suppress(asyncio.CancelledError if where.endswith("for ever") else ()):
                await closing.wait()

    if around:
        hooks.around(go_on)
    in_thread = threading.Event()
    if where == "in a thread":
        app = consumer(lambda self: in_thread.wait(GUARD), WebsocketConsumer)
    else:
        app = consumer(connect if where else lambda self: None, disconnect=lambda self, code: left.append(code))
    server = Server()
    async with no_task_left():
        running = server.begin(DenyMiddlewareStack(public(app).as_asgi(), hooks=hooks))
        await until(lambda: len(server.sent) == 2)
        assert where in {"", "in connect"} or not running.done()
        closing.set()
        in_thread.set()
        assert (await running).status == 500
    (error,) = errors(caplog)
    assert "ACCEPT_TIMEOUT" in str(error)
    assert left == ([] if where == "in a thread" else [1006])


OVER_BOTH = ("policy", "request", "response", "before", "after")
STUBBORN = [*OVER_BOTH, "policy of a layer inside", "late policy", "route", "exception"]


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(("kind", "over_http"), [*product(STUBBORN, [False]), *product(OVER_BOTH, [True])])
async def test_what_swallows_its_cancellation_for_ever_does_not_keep_its_client_waiting(
    kind, over_http, caplog, monkeypatch
):
    monkeypatch.setattr(base, "_GRACE", 0.01)
    closing, hooks, ran = asyncio.Event(), Hooks(), []

    async def hang(*arguments):
        await outlast(closing)
        return True if "policy" in kind else None

    async def around(request, call_next):
        if kind == "before":
            await hang()
        response = await call_next(request)
        await hang()
        return response

    async def app(scope, receive, send):
        ran.append("app")
        if kind == "exception":
            raise ZeroDivisionError
        await (plain if over_http else accept_all)(scope, receive, send)

    policy = AsyncCheck(hang)
    sites = {
        "policy": lambda: guarded(policy, app),
        "policy of a layer inside": lambda: open_to_all(Wrapper(require(policy)(app))),
        "late policy": lambda: DenyMiddlewareStack(Wrapper(app), default_policy=policy),
    }
    if kind not in sites:
        hooks.register(around, "around") if kind in {"before", "after"} else hooks.register(hang, kind)
    site = sites.get(kind, lambda: DenyMiddlewareStack(public(app), hooks=hooks))()
    async with no_task_left():
        server = HttpServer(site) if over_http else Server()
        running = server.task if over_http else server.begin(site)
        await until(lambda: len(server.sent) == 2)
        assert not running.done()
        closing.set()
        await running
    denial = [each.removeprefix("websocket." * over_http) for each in DENIAL]
    assert ([message["type"] for message in server.sent], server.sent[0]["status"]) == (denial, 503)
    assert bool(ran) is (kind in {"late policy", "response", "exception", "after"})
    assert ["goes on" in str(error) for error in errors(caplog)].count(True) == 1
    (record,) = [record for record in caplog.records if record.name == "channels_wsdeny"]
    assert (record.status, "policy" not in kind or record.policy == "AsyncCheck()") == (503, True)


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("where", ["policy", "policy whose client leaves", "policy over HTTP", "consumer"])
async def test_what_waits_for_the_end_of_a_request_is_called_though_what_was_denied_goes_on(
    where, settings, monkeypatch
):
    monkeypatch.setattr(base, "_GRACE", 0.01)
    settings.CHANNELS_WSDENY |= {"ACCEPT_TIMEOUT": 0.05}
    closing, begun, released = asyncio.Event(), asyncio.Event(), []

    async def hang(request):
        request.wsdeny.on_end(lambda: released.append(True))
        begun.set()
        return await outlast(closing)

    async def app(scope, receive, send):
        await hang(scope["wsdeny"].request)

    site = open_to_all(app) if where == "consumer" else guarded(AsyncCheck(hang), app)
    async with no_task_left():
        server = HttpServer(site) if where.endswith("HTTP") else Server()
        running = server.task if where.endswith("HTTP") else server.begin(site)
        await begun.wait()
        if where.endswith("leaves"):
            server.events.put_nowait(disconnect())
        await until(lambda: released)
        assert not running.done()
        closing.set()
        await running


async def test_without_accept_timeout_an_application_may_wait_for_ever(settings):
    settings.CHANNELS_WSDENY, server = {"ACCEPT_TIMEOUT": None}, Server()
    task = server.begin(open_to_all(Script()))
    await asyncio.sleep(0.05)
    server.events.put_nowait(disconnect())
    assert await task is None


async def test_a_consumer_may_answer_by_a_message_of_the_channel_layer():
    async def connect(self):
        await get_channel_layer().send(self.channel_name, {"type": "come.in"})

    async def come_in(self, message):
        await (self.accept() if self.scope["path"] == "/" else self.close(4409, "The room is taken."))

    site = connecting(connect, come_in=come_in)
    async with no_task_left():
        assert (await knock(site, "/")).status == 101
        assert (await knock(site, "/taken/")).status == 409


# A denied application.


@pytest.mark.parametrize("base", BASES)
async def test_a_consumer_that_closed_gets_its_disconnect_and_leaves_its_groups(base):
    codes, joined, layer = [], [], get_channel_layer()

    def connect(self):
        joined.extend(layer.groups)
        return self.close()

    app = consumer(connect, base, groups=["lobby"], disconnect=lambda self, code: codes.append(code)).as_asgi()
    async with no_task_left():
        for site in (open_to_all(app), DenyMiddlewareStack(Wrapper(app))):
            assert (await knock(site, "/")).status in {403, 401}
    assert (codes, joined, layer.groups, layer.channels) == ([1006], ["lobby"], {}, {})


async def test_what_an_application_sends_after_its_denial_is_an_os_error():
    raised = []

    async def app(scope, receive, send):
        await send(close(code=4404))
        for message in (close(code=4429), accept(), text("hello")):
            try:
                await send(message)
            except OSError as error:
                raised.append(str(error))

    server = Server()
    assert (await server.run(open_to_all(app))).status == 404
    assert server.kinds == DENIAL
    assert len(raised) == 3
    assert "denied already" in raised[0]


async def test_a_denied_application_that_goes_on_is_ended(monkeypatch, caplog):
    monkeypatch.setattr(websocket, "_GRACE", 0.05)
    events = []

    async def app(scope, receive, send):
        try:
            for _ in range(2):
                events.append((await receive())["type"])
                await send(close())
        finally:
            events.append("unwound")

    async def sleeps(scope, receive, send):
        await send(close())
        await asyncio.sleep(60)

    async def never_took_the_connect_event(scope, receive, send):
        await send(close())
        events.append(await receive())

    async with no_task_left():
        for each in (app, sleeps, never_took_the_connect_event):
            server = Server()
            await server.run(open_to_all(each))
            assert server.kinds == DENIAL
    assert events == ["websocket.connect", "websocket.disconnect", "unwound"]
    assert errors(caplog) == []


@pytest.mark.parametrize("late", [False, True])
async def test_a_denial_from_another_task_is_sent_before_the_application_returns(late):
    tasks = []

    async def app(scope, receive, send):
        await receive()
        scope["session"]["seen"] = True  # To save it, the denial takes a thread and a moment.
        tasks.append(asyncio.ensure_future(send(close(code=4404))))
        await (receive() if late else asyncio.sleep(0))

    server = Server()
    async with no_task_left():
        assert (await server.run(open_to_all(app), session=SessionStore())).status == 404
        await asyncio.gather(*tasks)
    assert server.kinds == DENIAL


def changes_session(request):
    request.session["seen"] = True
    return False


class Pausing(Server):
    """A server that pauses after each message."""

    async def send(self, message):
        await super().send(message)
        await asyncio.sleep(0)


@pytest.mark.parametrize("server", [Server, Pausing])
@pytest.mark.parametrize("in_task", [False, True])
async def test_a_denial_that_its_application_cuts_short_is_sent_whole(in_task, server):
    async def hurries(scope, receive, send):
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await receive()
                await send(close())

    class Cancels(Wrapper):
        async def __call__(self, scope, receive, send):
            for turns in range(8):
                task = asyncio.ensure_future(self.inner(scope, receive, send))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait({task})

    app = Cancels(Script(close())) if in_task else hurries
    for policy in (AsyncCheck(changes_session), AsyncCheck(lambda request: False), AllowAny()):
        running = server()
        async with no_task_left():
            site = DenyMiddlewareStack(app, default_policy=policy)
            await running.run(site, session=SessionStore())
        assert running.kinds == DENIAL


async def test_a_shared_deny_does_not_grow():
    shared = Deny(409, "Already here.")

    def deny(*args):
        raise shared

    def depth():
        count, traceback = 0, shared.__traceback__
        while traceback is not None:
            count, traceback = count + 1, traceback.tb_next
        return count

    for site in (guarded(AsyncCheck(deny)), guarded(Check(deny)), connecting(deny), guarded(Check(lambda r: shared))):
        depths = [((await knock(site, "/")).status, depth()) for _ in range(10)]
        assert {*depths} == {(409, depths[0][1])}
        assert shared.__context__ is shared.__cause__ is None


# The client leaves, and the server cancels.


async def test_a_client_that_left_before_anything_runs_nothing(caplog):
    script = Script(accept())
    async with no_task_left():
        for site in (open_to_all(script), DenyMiddlewareStack(consumer().as_asgi())):
            assert await Server(disconnect()).run(site) is None
    assert (script.scopes, caplog.records) == ([], [])
    with pytest.raises(ValueError, match=r"Expected 'websocket\.connect' from the server, found 'websocket\.receive'"):
        await Server({"type": "websocket.receive"}).run(open_to_all(script))


@pytest.mark.parametrize("base", BASES)
async def test_a_client_that_leaves_before_the_answer_is_no_error(base, caplog):
    codes, reached, server = [], threading.Event(), Server()
    leaving = {"groups": ["lobby"], "disconnect": lambda self, code: codes.append(code)}
    async with no_task_left():
        task = server.begin(connecting(lambda self: reached.set(), base, **leaving))
        await asyncio.to_thread(reached.wait, 10)
        server.events.put_nowait(disconnect(1000))
        assert await task is None
    assert (codes, get_channel_layer().groups, caplog.records) == ([1000], {}, [])


class Moment:
    """A moment that a handshake reaches, and then stays in."""

    def __init__(self):
        self.reached, self.over = asyncio.Event(), threading.Event()

    async def stay(self, *args):
        self.reached.set()
        await asyncio.Event().wait()

    async def stream(self):
        yield b"a"
        await self.stay()

    async def app(self, scope, receive, send):
        await self.stay()

    async def accepted(self, scope, receive, send):
        await send(accept())
        await self.stay()


MOMENTS = {
    "the default policy is asked late": lambda moment: DenyMiddlewareStack(
        Wrapper(consumer().as_asgi()), default_policy=AsyncCheck(moment.stay)
    ),
    "the application begins": lambda moment: open_to_all(moment.app),
    "a consumer connects": lambda moment: connecting(moment.stay),
    "the socket is open": lambda moment: open_to_all(moment.accepted),
    "a stream is read": lambda moment: guarded(
        AsyncCheck(lambda request: StreamingHttpResponse(moment.stream(), status=403))
    ),
    "a denial is sent": lambda moment: guarded(AsyncCheck(lambda request: False)),
    "a denial of the application is sent": lambda moment: open_to_all(Script(close())),
    "a large denial is sent": lambda moment: guarded(
        AsyncCheck(lambda request: HttpResponse(b"x" * 100_000, status=403))
    ),
}


@pytest.mark.parametrize("make", MOMENTS.values(), ids=MOMENTS)
async def test_a_handshake_that_the_server_cancels_leaves_nothing(make, caplog):
    moment = Moment()
    is_sending = "is sent" in next(name for name, each in MOMENTS.items() if each is make)
    server = Unread(1) if is_sending else Server()
    async with no_task_left():
        task = server.begin(make(moment))
        await (server if is_sending else moment).reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [kind for kind in server.kinds if kind != "websocket.accept"] == DENIAL[:1] * is_sending
    assert errors(caplog) == []


UNREAD = {
    "kept, of an anonymous client": lambda: guarded(IsAuthenticated()),
    "kept": lambda: guarded(AsyncCheck(lambda request: False)),
    "of a site's response": lambda: guarded(AsyncCheck(lambda request: HttpResponse("no", status=403))),
    "of the application": lambda: open_to_all(Script(close())),
    "a close after an accept": lambda: DenyMiddlewareStack(
        consumer().as_asgi(), default_policy=DenyAll(), deny_with="close"
    ),
}


@pytest.mark.parametrize("make", UNREAD.values(), ids=UNREAD)
@pytest.mark.parametrize("number", [1, 2])
async def test_an_http2_client_that_leaves_without_reading_its_denial_does_not_keep_the_handshake(make, number):
    """The ``send`` of hypercorn waits for ever once a client has left that did not take all of a stream."""
    server = Unread(number)
    async with no_task_left():
        task = server.begin(make(), http_version="2")
        await server.reached.wait()
        server.events.put_nowait(disconnect())
        await task
    assert len(server.sent) == number


async def accept_beside(scope, receive, send):
    """A public part accepts, and what is around it goes on by itself."""
    await public(Script(accept()))(scope, receive, send)
    await send({"type": "websocket.send", "text": "more"})


async def close_beside(scope, receive, send):
    """As above, and closes."""
    await public(Script(accept()))(scope, receive, send)
    await send(close())


async def enter_another(scope, receive, send):
    await send(accept())
    await guarded(DenyAll())(scope, receive, send)


UNTAKEN = {
    "of the application": lambda: open_to_all(Script(accept(), close())),
    "of a consumer": lambda: connecting(None, receive=lambda self, **data: self.close()),
    "of a synchronous consumer": lambda: connecting(None, WebsocketConsumer, receive=lambda self, **data: self.close()),
    "of a layer within": lambda: open_to_all(Middleware(open_to_all(Script(accept(), close())))),
    "of a denial": lambda: connecting(None, receive=raising(PermissionDenied)),
    "of a part without a policy": lambda: DenyMiddlewareStack(accept_beside),
    "by a part without a policy": lambda: DenyMiddlewareStack(close_beside),
    "of a stream": lambda: open_to_all(enter_another),
}


@pytest.mark.parametrize("make", UNTAKEN.values(), ids=UNTAKEN)
async def test_an_http2_client_that_leaves_without_taking_the_close_of_its_socket_does_not_keep_it(make, monkeypatch):
    monkeypatch.setattr(connection, "_CLOSING", 0.01)
    server = Unread(2, CONNECT, {"type": "websocket.receive", "text": "hello"}, disconnect())
    async with no_task_left():
        with suppress(asyncio.CancelledError):  # That is how a part without a policy ends.
            await server.run(make(), http_version="2")
    assert server.kinds == ["websocket.accept", "websocket.close"]
    assert make is not UNTAKEN["of a part without a policy"] or server.sent[1]["code"] == 4401


@pytest.mark.parametrize("late", [False, True])
async def test_an_application_that_ends_by_itself_when_it_is_cancelled_is_not_waited_for(late, monkeypatch):
    monkeypatch.setattr(websocket, "_GRACE", 60)
    seen, moment = [], Moment()

    async def app(scope, receive, send):
        if not late:
            task.cancel()  # The around hook gives up just when the application answers.
        try:
            await send(accept())
        except BaseException as error:
            seen.append(type(error))

    async def around(request, call_next):
        response = await call_next(request)
        await moment.stay()
        return response

    hooks, server = Hooks(), Server()
    hooks.around(around)
    async with no_task_left():
        task = server.begin(DenyMiddlewareStack(app, default_policy=AllowAny(), hooks=hooks))
        if late:
            await moment.reached.wait()
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (seen, server.sent) == ([asyncio.CancelledError], [])


@pytest.mark.parametrize("guard", [lambda app: app, require(AllowAny())], ids=["one layer", "guards inside"])
async def test_a_client_is_answered_whose_accept_the_application_gave_up_while_it_waited_for_events(guard, impatient):
    moment, tries = Moment(), []

    async def app(scope, receive, send):
        await receive()
        accepting = asyncio.ensure_future(send(accept()))
        await moment.reached.wait()
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        accepting.cancel()
        tries.append(await asyncio.gather(accepting, return_exceptions=True))
        await waiting

    hooks = made("response", moment.stay)
    async with no_task_left():
        site = DenyMiddlewareStack(guard(app), default_policy=AllowAny(), hooks=hooks)
        assert (await knock(site, "/")).status == 500
    assert [type(error) for (error,) in tries] == [asyncio.CancelledError]


async def test_an_accept_that_an_outer_layer_did_not_send_is_none():
    moment, tries = Moment(), []

    async def app(scope, receive, send):
        await receive()
        accepting = asyncio.ensure_future(send(accept()))
        await moment.reached.wait()
        accepting.cancel()
        await asyncio.wait({accepting})
        try:
            await send(accept())
        except Exception as error:
            tries.append(type(error))
            raise
        tries.append((await receive())["type"])

    async def stay_once(request, response):
        if not moment.reached.is_set():
            await moment.stay()

    hooks, inner = Hooks(), Hooks()
    hooks.register(stay_once, "response")
    inner.register(lambda request: None, "request")
    site = DenyMiddlewareStack(Wrapper(with_hooks(inner)(require(AllowAny())(app))), hooks=hooks)
    async with no_task_left():
        assert (await knock(site, "/")).status == 500
    assert tries == ["websocket.disconnect"]


@pytest.mark.parametrize("connect", [lambda self: self.accept(), lambda self: self.close()])
async def test_middleware_around_the_stack_may_use_threads_after_a_synchronous_consumer(connect):
    """An around hook sees the context of the consumer, whose thread is gone then."""
    found = []

    async def outer(scope, receive, send):
        await stack(scope, receive, send)
        found.append(await sync_to_async(lambda: 7)())

    hooks, server = Hooks(), Server()
    hooks.around(go_on)
    stack = DenyMiddlewareStack(consumer(connect, WebsocketConsumer).as_asgi(), default_policy=AllowAny(), hooks=hooks)
    server.events.put_nowait(disconnect())
    await server.run(outer)
    assert found == [7]


# After the accept.


async def test_messages_pass_straight_through_after_the_accept():
    seen, codes = [], []

    async def websocket_receive(self, message):
        seen.append(message)
        await self.base_send({"type": "websocket.send", "bytes": message["bytes"]})
        await self.close(4404, "Gone.")

    message = {"type": "websocket.receive", "bytes": b"hello"}
    server = Server(CONNECT, message, disconnect(1000))
    site = connecting(None, websocket_receive=websocket_receive, disconnect=lambda self, code: codes.append(code))
    await server.run(site)
    closed = {"type": "websocket.close", "code": 4404, "reason": "Gone."}
    assert server.sent[1:] == [{"type": "websocket.send", "bytes": b"hello"}, closed]
    assert (seen[0] is message, codes) == (True, [1000])


async def test_an_application_may_accept_before_it_takes_the_connect_event():
    async def app(scope, receive, send):
        await send(accept())
        for _ in range(2):
            await send(text((await receive())["type"]))

    server = Server(CONNECT, {"type": "websocket.receive", "text": "hello"})
    await server.run(open_to_all(app))
    assert [message.get("text") for message in server.sent] == [None, "websocket.connect", "websocket.receive"]


async def test_nothing_is_received_or_sent_once_the_application_has_ended():
    kept = []

    async def app(scope, receive, send):
        await receive()
        await send(accept())
        kept.extend([receive, send])

    server = Server()
    await server.run(open_to_all(app))
    receive, send = kept
    for calling in (receive(), send(text("late"))):
        with pytest.raises(OSError, match="The connection is over"):
            await calling
    assert server.kinds == ["websocket.accept"]


async def test_a_second_accept_is_refused():
    server = Server()
    with pytest.raises(ValueError, match=r"'websocket\.accept' was sent twice"):
        await server.run(open_to_all(Script(accept(), accept())))
    assert server.kinds == ["websocket.accept"]


AFTERWARDS = {
    "permission denied": (PermissionDenied, (4403, "permission_denied")),
    "not found": (Http404, (4404, "not_found")),
    "unresolved": (lambda: Resolver404({"path": "secret"}), (4404, "not_found")),
    "deny": (lambda: Deny(402, "Pay first."), (4402, "Pay first.")),
    "long detail": (lambda: Deny(418, "世" * 60), (4418, "世" * 41)),
    "response": (lambda: Deny(response=HttpResponse(status=410), code="left"), (4410, "left")),
    "error": (ZeroDivisionError, None),
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper, Middleware, with_hooks(noting([], "it"))])
@pytest.mark.parametrize(("make", "closed"), AFTERWARDS.values(), ids=AFTERWARDS)
async def test_a_denial_after_the_accept_closes_and_an_error_is_the_servers(make, closed, wrap, base, caplog):
    error = make()

    app = consumer(None, base, receive=raising(lambda: error)).as_asgi()
    server = Server(CONNECT, {"type": "websocket.receive", "text": "hello"})
    async with no_task_left():
        raised = (await asyncio.gather(server.run(open_to_all(wrap(app))), return_exceptions=True))[0]
    assert server.kinds == ["websocket.accept"] + ["websocket.close"] * (closed is not None)
    if closed is None:
        assert raised is error
    else:
        assert (server.sent[1]["code"], server.sent[1]["reason"]) == closed
        assert [record.status for record in caplog.records] == [closed[0] - 4000]


# The scope that the application gets.


@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper, Middleware])
async def test_the_scope_is_copied_and_has_user_session_cookies_and_request_unless_it_had_them(wrap):
    user, session, script = get_user_model()(pk=1, username="alice"), SessionStore(), Script(accept())
    for more in ({}, {"user": user, "session": session}):
        given = websocket_scope("/", headers=[(b"cookie", b"theme=dark; size=2")], **more)
        before = dict(given)
        await Server(CONNECT, disconnect()).run_scope(open_to_all(wrap(script)), given)
        assert given == before
        scope = script.scopes[-1]
        request = scope["wsdeny"].request
        assert (scope["user"] is request.user, scope["session"] is request.session) == (True, True)
        assert scope["cookies"] == request.COOKIES == {"theme": "dark", "size": "2"}
    assert scope["headers"] == given["headers"]
    assert scope["headers"] is not given["headers"]  # A wrapper inside may change it in place.
    first = script.scopes[0]
    assert (first["user"].is_anonymous, first["session"].is_empty()) == (True, True)
    assert (scope["user"] is user, scope["session"] is session) == (True, True)
