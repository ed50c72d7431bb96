"""Hooks at work: around hooks that give up, interruptions, time limits, contexts, and what hooks may answer."""

import asyncio
import contextlib
import contextvars
import re
import sys
import threading
import time

import pytest
from asgiref.local import Local
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import URLRouter
from django.http import Http404, HttpResponse
from django.urls import path
from django.utils import timezone, translation
from django.utils.timezone import get_current_timezone
from django.utils.translation import get_language

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.exceptions import HookError
from channels_wsdeny.policies import AllowAny, DenyAll
from tests.support.clients import Handshake, fetch, knock, websocket_scope
from tests.support.mirror import calling, plain
from tests.support.policies import AsyncCheck, Check, accept, raising
from tests.support.site import OUTSIDE, Site, go_on
from tests.support.sockets import consumer, no_task_left
from tests.support.transports import DJANGO, Middleware, Repeat
from tests.support.wrappers import Wrapper

pytestmark = pytest.mark.django_db
REPEAT = f"{Repeat.__module__}.Repeat"

KINDS = ["request", "route", "response", "around", "around late"]


#: How an endpoint is asked, one that answers at once, and the status of that.
TRANSPORTS = {"socket": (knock, accept, 101), "HTTP": (fetch, plain, 200)}


@pytest.fixture(params=TRANSPORTS)
def transport(request):
    return TRANSPORTS[request.param]


def hooks_of(kind, function, **options):
    """A registry of one hook, which an around hook calls before or after `call_next`."""

    async def around(request, call_next):
        if kind == "around late":
            await call_next(request)
        return await function(request)

    hooks = Hooks()
    hooks.register(around if "around" in kind else function, kind.split()[0], **options)
    return hooks


def denying(kind, ran=None, seconds=0.0):
    """Hooks of one kind, which take their time and deny."""

    async def deny(*args):
        if ran is not None:
            ran.append("asked")
        await asyncio.sleep(seconds)
        return Deny(403)

    return hooks_of(kind, deny)


async def hang(*args):
    await asyncio.sleep(3600)


# What around hooks get and do.


async def test_call_next_returns_a_denial_whole_and_does_not_raise(transport, hooks, ran):
    ask, app, _ = transport

    @hooks.around
    async def look(request, call_next):
        response = await call_next(request)
        ran.append((response.status_code, str(response.status_code).encode() in response.content))
        return response

    for policy, status in [(DenyAll(), 403), (Check(raising(ValueError)), 500), (Check(lambda r: Deny(402)), 402)]:
        assert (await ask(DenyMiddlewareStack(require(policy)(app), hooks=hooks), "/")).status == status
        assert ran.pop() == (status, True)


async def test_the_consumer_lives_on_after_its_hooks_which_share_one_ctx_with_it(hooks, ran):
    @hooks.around
    async def note(request, call_next):
        ran.append("in")
        response = await call_next(request)
        ran.append("out")
        return response

    for kind in ("request", "route", "response", "exception"):
        hooks.register(lambda request, *args, kind=kind: ran.append((kind, vars(request.ctx).setdefault("n", 7))), kind)

    class Consumer(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            ran.append(self.scope["wsdeny"].request.ctx.n)
            raise ZeroDivisionError

    for _ in range(2):
        async with no_task_left():
            handshake = Handshake(DenyMiddlewareStack(public(Consumer).as_asgi(), hooks=hooks), websocket_scope("/"))
            assert (await handshake.connect()).status == 101
            await handshake.send("a")
            with pytest.raises(ZeroDivisionError):
                await handshake.end()
        assert ran == ["in", ("request", 7), ("route", 7), ("response", 7), "out", 7]
        ran.clear()


@pytest.mark.parametrize("how", ["twice", "another request", "at once", "in a task", "left behind"])
async def test_call_next_is_awaited_by_the_hook_itself_and_once_with_its_own_request(how, transport, hooks):
    (ask, app, passes), errors, tasks = transport, [], []
    told = how if how in {"twice", "another request"} else "in another task"

    @hooks.around
    async def hook(request, call_next):
        async def later():
            await asyncio.sleep(0.01)
            await call_next(request)

        wrong = {
            "twice": lambda: call_next(request),
            "another request": lambda: call_next(object()),
            "at once": lambda: asyncio.gather(call_next(request), call_next(request)),
            "in a task": lambda: asyncio.ensure_future(call_next(request)),
            "left behind": lambda: asyncio.sleep(0, tasks.append(asyncio.ensure_future(later()))),
        }
        response = await call_next(request) if how == "twice" else None
        try:
            await wrong[how]()
        except HookError as error:
            errors.append(str(error))
        return Deny(403) if how == "left behind" else response or await call_next(request)

    async with no_task_left():
        answer = await ask(DenyMiddlewareStack(public(app), hooks=hooks), "/")
        if how == "left behind":
            with pytest.raises(HookError) as caught:
                await tasks[0]
            errors.append(str(caught.value))
    assert answer.status == (403 if how == "left behind" else passes)
    assert told in errors[0]


# Around hooks that give up, and hooks that hang.


#: What a hook does then, and the status.
ENDS = {
    "answers": (lambda: HttpResponse(b"instead", status=504), 504),
    "denies": (lambda: Deny(402), 402),
    "raises a denial": (raising(lambda: Deny(402)), 402),
    "fails": (raising(ZeroDivisionError), 500),
    "gives up": (raising(TimeoutError), 503),
}


@pytest.mark.parametrize(
    ("what", "end"),
    [("application", end) for end in ENDS] + [(what, "denies") for what in ("policy", "request", "route", "response")],
)
async def test_a_hook_that_gives_up_ends_what_is_inside_it_and_response_hooks_see_its_denial_once(
    what, end, transport, hooks, ran, caplog
):
    (ask, app, _), (do, status) = transport, ENDS[end]
    outer, inner, statuses, limits = Hooks(), Hooks(), [], []

    @hooks.around
    async def impatient(request, call_next):
        try:
            async with asyncio.timeout(None) as limit:
                limits.append(limit)
                return await call_next(request)
        except TimeoutError:
            await asyncio.sleep(0.01)
            return do()

    async def wait(*args):
        limits[0].reschedule(0)  # Now that it is waited for, that is too long.
        try:
            await hang()
        finally:
            ran.append("ended")

    async def slow(scope, receive, send):
        await wait()

    hooks.on_response(lambda request, response: statuses.append(response.status_code))
    outer.on_response(lambda request, response: response.__setitem__("X-Outer", "1"))
    if what in {"request", "route", "response"}:
        inner.register(wait, what)
    app = require(AsyncCheck(wait))(app) if what == "policy" else public(slow if what == "application" else app)
    async with no_task_left():
        stack = DenyMiddlewareStack(Wrapper(with_hooks(hooks)(with_hooks(inner)(app))), hooks=outer)
        answer = await ask(stack, "/")
    assert (answer.status, answer.header("x-outer"), ran, statuses) == (status, "1", ["ended"], [status])
    failure = ["django.request"] * (status in {500, 503})
    assert [record.name for record in caplog.records] == [*failure, "channels_wsdeny"]


@pytest.mark.parametrize("kind", [*KINDS, "exception", "in a thread"])
async def test_a_hook_that_hangs_is_a_503_and_leaves_no_task(kind, hurry, transport):
    ask, app, _ = transport
    release = threading.Event()
    if kind == "in a thread":
        hooks = hooks_of("response", lambda *args: release.wait(20) and None)
    else:
        hooks = hooks_of(kind, hang)
    app = require(Check(raising(ValueError)))(app) if kind == "exception" else public(app)
    async with no_task_left():
        answer = await ask(DenyMiddlewareStack(app, hooks=hooks), "/")
    release.set()
    assert (answer.status, answer.problem["code"]) == (503, "unavailable")


async def test_the_time_limit_counts_again_once_a_hook_has_given_up_on_the_application(hurry, transport, hooks):
    @hooks.around
    async def impatient(request, call_next):
        try:
            async with asyncio.timeout(0.01):
                return await call_next(request)
        except TimeoutError:
            return Deny(402)

    async def slow(scope, receive, send):
        await hang()

    hooks.on_response(hang)
    async with no_task_left():
        assert (await transport[0](DenyMiddlewareStack(public(slow), hooks=hooks), "/")).status == 503


async def swallow_the_answer(request, call_next):
    with contextlib.suppress(asyncio.CancelledError):
        await call_next(request)
        await hang()
    return HttpResponse(status=101)


async def raise_another(request, call_next):
    try:
        await hang()
    finally:
        raise ValueError


@pytest.mark.parametrize("stubborn", [swallow_the_answer, raise_another])
async def test_a_hook_that_does_not_want_to_end_lets_nothing_in_and_leaves_nothing(stubborn, hurry, transport, hooks):
    ask, app, _ = transport
    hooks.around(stubborn)
    async with no_task_left():
        assert (await ask(DenyMiddlewareStack(public(app), hooks=hooks), "/")).status == 503


# An application that interrupts hooks, or does not wait for them, does not pass without them.


async def try_again(make):
    try:
        async with asyncio.timeout(0.01):
            return await make()
    except TimeoutError:
        return await make()


async def at_once(*calls):
    """The secret if it comes by one of two calls; one function is called twice."""
    answers = await asyncio.gather(*(call() for call in (calls * 2)[:2]), return_exceptions=True)
    has_passed = any(getattr(answer, "status_code", None) == 200 for answer in answers)
    return HttpResponse(b"secret", status=200 if has_passed else 500)


CALLERS = pytest.mark.parametrize("call", [try_again, at_once])


@CALLERS
@pytest.mark.parametrize("kind", [*KINDS, "response after a slow application"])
async def test_an_application_that_runs_the_same_hooks_again_is_denied(kind, call, transport):
    ask, app, _ = transport

    async def slow(scope, receive, send):
        await asyncio.sleep(0.03)
        await app(scope, receive, send)

    is_slow = kind.endswith("application")
    hooks = denying(kind.split(" after")[0], seconds=0 if is_slow else 0.03)
    inner = with_hooks(hooks)(public(slow if is_slow else app))

    async def outer(scope, receive, send):
        await call(lambda: inner(scope, receive, send))

    async with no_task_left():
        answer = await ask(DenyMiddlewareStack(public(outer)), "/")
    # Hooks that were interrupted make a 500; those at the same time deny as they do, or wait for one another.
    assert answer.status == 500 or (call is at_once and answer.status == 403)


@CALLERS
@pytest.mark.parametrize("kind", KINDS)
def test_a_view_that_calls_the_same_view_again_does_not_pass_its_hooks(kind, call, settings):
    @with_hooks(denying(kind, seconds=0.03))
    async def view(request):
        return HttpResponse(b"secret")

    async def caller(request):
        return await call(lambda: view(request))

    assert Site(settings, DJANGO["asgi"]()).serve(caller).ask().status == 500


#: The hooks of the mirror that have begun.
BEGUN: list[str] = []


async def beside(make):
    """Ask again while a hook runs for the first time."""
    BEGUN.clear()
    first = asyncio.ensure_future(make())
    while not BEGUN:
        await asyncio.sleep(0)
    return await at_once(lambda: first, make)


class Asks(Middleware):
    call = None  # how it asks again

    async def _acall(self, request):
        return await Asks.call(lambda: self.get_response(request))


@pytest.mark.parametrize("call", [try_again, beside])
@pytest.mark.parametrize("kind", KINDS)
def test_middleware_that_asks_the_mirror_again_does_not_pass(kind, call, settings, monkeypatch):
    async def view(request):
        return HttpResponse(b"secret")

    monkeypatch.setattr(Asks, "call", call)
    site, outside = Site(settings, DJANGO["asgi"]()), [*OUTSIDE, f"{__name__}.Asks"]
    assert site.serve(view, hooks=denying(kind, BEGUN, seconds=0.03), outside=outside).ask().status == 500


@pytest.mark.parametrize(
    "hooks", [denying("response", seconds=0.03), hooks_of("response", lambda *args: time.sleep(0.03))]
)
async def test_an_accept_that_was_cancelled_and_is_sent_again_is_denied(hooks):
    @public
    async def app(scope, receive, send):
        await receive()
        await try_again(lambda: send({"type": "websocket.accept"}))

    async with no_task_left():
        assert (await knock(DenyMiddlewareStack(app, hooks=hooks), "/")).status == 500


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["wsgi", "asgi", "stack", "opaque"])
def test_a_caller_that_was_denied_is_denied_again(kind, name, settings, ran):
    @with_hooks(denying(kind, ran))
    def view(request):
        return HttpResponse(b"secret")

    def twice(request):
        assert view(request).status_code == 403
        return view(request)

    site = Site(settings, DJANGO[name]())
    assert (site.serve(twice).ask().status, ran) == (403, ["asked"] * 2)
    site.serve(lambda request: HttpResponse(), hooks=denying(kind), outside=[*OUTSIDE, REPEAT])
    assert site.ask().status == 403


def test_hooks_that_have_let_a_request_through_run_once_for_it(settings, ran, hooks):
    hooks.on_request(lambda request: ran.append("request"))
    view = with_hooks(hooks)(lambda request: HttpResponse())
    site = Site(settings, DJANGO["wsgi"]())
    for number, of_site in enumerate((hooks, None), 1):
        site.serve(lambda request: view(request) and view(request), hooks=of_site)
        assert (site.ask().status, ran) == (200, ["request"] * number)


def test_what_runs_around_a_denial_runs_again_with_it(settings, ran, hooks):
    hooks.on_request(lambda request: ran.append("request"))
    hooks.on_response(lambda request, response: ran.append(response.status_code))
    answers = iter([Deny(403), True])
    view = require(Check(lambda request: next(answers)))(lambda request: HttpResponse())
    site = Site(settings, DJANGO["wsgi"]()).serve(view, hooks=hooks, outside=[*OUTSIDE, REPEAT])
    assert (site.ask().status, ran) == (200, ["request", 403, "request", 200])


# Contexts.

WORD: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="none")


def speak(*args):
    WORD.set("hello")


async def speak_async(*args):
    await asyncio.sleep(0)
    speak()


async def speak_around(request, call_next):
    token = WORD.set("hello")
    try:
        return await call_next(request)
    finally:
        WORD.reset(token)


def say(self):
    return self.accept(headers=[(b"x-word", WORD.get().encode())])


class SaysOverHttp(AsyncHttpConsumer):
    async def handle(self, body):
        await self.send_response(200, b"", headers=[(b"x-word", WORD.get().encode())])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("kind", "function", "blocking"),
    [
        *(("request", speak, blocking) for blocking in (True, False)),
        *(("request", speak_async, True), ("route", speak, True), ("around", speak_around, True)),
    ],
)
async def test_policies_and_endpoints_see_what_a_hook_put_into_a_contextvar(kind, function, blocking, hooks):
    hooks.register(function, kind, blocking=blocking)
    policies = Check(lambda request: WORD.get() == "hello") & AsyncCheck(lambda request: WORD.get() == "hello")
    for ask, base, wrap in [
        (knock, consumer(say), lambda app: app),
        (knock, consumer(say, WebsocketConsumer), lambda app: app),
        (knock, consumer(say), Wrapper),
        (knock, consumer(say), DenyMiddlewareStack),
        (fetch, type("Decorated", (SaysOverHttp,), {}), lambda app: app),
    ]:
        app = wrap(require(policies)(base).as_asgi())
        assert (await ask(DenyMiddlewareStack(app, hooks=hooks), "/")).header("x-word") == "hello", base
    assert WORD.get() == "none"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 is the first with eager tasks.")
async def test_around_hooks_work_where_tasks_are_eager(hooks, transport):
    asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory", None))
    ask, app, answered = transport
    hooks.around(go_on)
    for policy, status in ((AllowAny(), answered), (DenyAll(), 403)):
        assert (await ask(DenyMiddlewareStack(require(policy)(app), hooks=hooks), "/")).status == status


TENANT = Local()


def activate(request):
    translation.activate("de")
    timezone.activate("Asia/Tokyo")
    TENANT.name = "t"


async def activate_async(request):
    activate(request)


@pytest.mark.parametrize("kind", ["request", "route"])
@pytest.mark.parametrize("hook", [activate, activate_async])
async def test_what_a_hook_activates_a_policy_in_the_pool_sees(hook, kind, hooks, ran):
    def look(request):
        ran.append((threading.current_thread().name, get_language(), str(get_current_timezone()), TENANT.name))
        return True

    hooks.register(hook, kind)
    app = URLRouter([path("", require(Check(look))(accept))])
    assert (await knock(DenyMiddlewareStack(app, hooks=hooks), "/")).status == 101
    assert ran == [("wsdeny-pool", "de", "Asia/Tokyo", "t")]


async def test_hooks_after_the_accept_see_what_the_consumer_put_into_a_contextvar(hooks, ran):
    async def listen(request, call_next):
        response = await call_next(request)
        ran.append(WORD.get())
        return response

    hooks.on_response(lambda request, response: ran.append(WORD.get()))
    speaks = public(consumer(lambda self: speak() or self.accept()).as_asgi())
    for _ in range(2):
        await knock(DenyMiddlewareStack(speaks, hooks=hooks), "/")
        hooks.around(listen)
    assert ran == ["hello"] * 3


async def test_sockets_at_the_same_time_see_their_own_contexts(hooks):
    turns = asyncio.Barrier(10)

    @hooks.on_route
    async def wait(request):
        WORD.set(request.path)
        await turns.wait()

    hooks.around(go_on)
    stack = DenyMiddlewareStack(public(consumer(say).as_asgi()), hooks=hooks)
    answers = await asyncio.gather(*(knock(stack, f"/{number}/") for number in range(10)))
    assert [answer.header("x-word") for answer in answers] == [f"/{number}/" for number in range(10)]


# What hooks answer.


@pytest.mark.parametrize("make", [StopIteration, StopAsyncIteration, asyncio.CancelledError, SystemExit])
async def test_a_hook_that_raises_anything_lets_nothing_in(make):
    def synchronous(*args):
        raise make

    async def asynchronous(*args):
        raise make

    for kind in [*KINDS, "exception"]:
        for flavour in ("sync", "quick", "async"):
            if ("around" in kind and flavour != "async") or (make is SystemExit and flavour != "sync"):
                continue  # Around hooks are asynchronous; a SystemExit on the event loop is the server's.
            hooks = hooks_of(kind, asynchronous if flavour == "async" else synchronous, blocking=flavour != "quick")
            app = require(Check(raising(ValueError)))(accept) if kind == "exception" else public(accept)
            async with no_task_left():
                answer = await knock(DenyMiddlewareStack(app, hooks=hooks), "/")
            assert answer.status == 500, (kind, flavour)


def no_answer(request):
    return DenyAll()


async def test_what_is_no_answer_is_logged_with_the_name_of_its_hook(hooks, caplog):
    hooks.on_request(no_answer)
    assert (await knock(DenyMiddlewareStack(public(accept), hooks=hooks), "/")).status == 500
    assert f"<on_request {__name__}.no_answer> returned a DenyAll. A hook returns None, a response" in caplog.text


@pytest.mark.parametrize(
    ("status", "sent"), [(403, 403), (499, 400), (302, 302), *((status, 500) for status in (101, 100, 200, 299))]
)
async def test_no_status_that_a_hook_answers_or_sets_opens_a_socket(status, sent, caplog):
    async def replace(*args):
        return HttpResponse(status=status)

    cases = [hooks_of(kind, replace) for kind in KINDS]
    if status != 101:
        cases.append(hooks_of("response", lambda request, response: setattr(response, "status_code", status)))
    for hooks in cases:
        answer = await knock(DenyMiddlewareStack(public(accept), hooks=hooks), "/")
        assert (answer.status, answer.header("cache-control")) == (sent, "no-store"), hooks
    for name in ("on_request", "on_route", "on_response", "around") if sent == 500 else ():
        assert re.search(rf"<{name} .*> answered a handshake with {status}\.", caplog.text), name


async def test_headers_and_cookies_of_hooks_go_out_beside_those_of_the_accept(hooks, ran):
    @hooks.on_response
    def add(request, response):
        ran.append((response.status_code, dict(response.items())))
        response["X-Hook"] = "a"
        response["Connection"] = response["Sec-WebSocket-Protocol"] = response["Content-Length"] = "the server's"
        response.set_cookie("one", "1")
        response.set_cookie("two", "2", httponly=True)

    async def app(scope, receive, send):
        await receive()
        headers = [(b"x-app", b"b"), (b"set-cookie", b"zero=0")]
        await send({"type": "websocket.accept", "subprotocol": "chat", "headers": headers})
        await receive()

    answer = await knock(DenyMiddlewareStack(public(app), hooks=hooks), "/")
    assert (ran, answer.messages[0]["subprotocol"]) == ([(101, {})], "chat")
    cookies = [("set-cookie", f"{cookie}; Path=/") for cookie in ("one=1", "two=2; HttpOnly")]
    assert answer.headers == [("x-app", "b"), ("set-cookie", "zero=0"), ("x-hook", "a"), *cookies]


SHARED = HttpResponse(b"shared", status=403)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_response_that_answers_many_keeps_nothing_and_the_session_of_each_is_saved(kind, transport, hooks):
    ask, app, _ = transport

    async def share(request, *args):
        await request.session.aset("seen", True)
        return SHARED

    hooks.on_response(lambda request, response: response.set_cookie("visitor", "1"))
    answer = await ask(DenyMiddlewareStack(with_hooks(hooks_of(kind, share))(public(app)), hooks=hooks), "/")
    assert (answer.status, answer.body, len(answer.all("set-cookie"))) == (403, b"shared", 2)
    assert (dict(SHARED.items()), len(SHARED.cookies)) == ({"Content-Type": "text/html; charset=utf-8"}, 0)


async def test_bad_headers_and_unusable_registries_let_nothing_in_and_malformed_requests_meet_no_hook(
    transport, hooks, settings, ran
):
    ask, app, _ = transport
    hooks.on_response(lambda request, response: ran.append("hook") or response.__setitem__("X Bad", "a\0b"))
    stack = DenyMiddlewareStack(public(app), hooks=hooks)
    assert ((await ask(stack, "/", query_string=b"\xff")).status, ran) == (400, [])
    assert (await ask(stack, "/")).status == 500
    settings.CHANNELS_WSDENY = {"HOOKS": [f"{__name__}.nowhere"]}
    for guarded in (public(app), DenyMiddlewareStack(public(app))):
        assert (await ask(guarded, "/")).status == 500


# Routes.


def room_of(consumer):
    return [(b"x-room", consumer.scope["url_route"]["kwargs"]["room"].encode())]


class HttpRoom(AsyncHttpConsumer):
    async def handle(self, body):
        await self.send_response(200, b"", headers=room_of(self))


@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper, lambda app: Wrapper(DenyMiddlewareStack(app))])
@pytest.mark.parametrize("prefix", ["", "a/"])
async def test_a_route_hook_changes_what_the_route_captured_for_policies_and_endpoint(prefix, wrap, hooks):
    matches = []
    hooks.on_request(lambda request: matches.append(request.resolver_match))

    @hooks.on_route
    def underscores(request):
        matches.append(request.resolver_match)
        request.resolver_match.kwargs["room"] = request.resolver_match.kwargs["room"].replace("-", "_")

    policy = Check(lambda request: request.resolver_match.kwargs == {"room": "foo_bar"})
    room = consumer(lambda self: self.accept(headers=room_of(self)))
    for ask, base, passes in [(knock, room, 101), (fetch, HttpRoom, 200)]:
        endpoint = require(policy)(type("Decorated", (base,), {}))
        router = URLRouter([path("<slug:room>/", wrap(endpoint.as_asgi()), name="room")])
        stack = DenyMiddlewareStack(URLRouter([path(prefix, router)]) if prefix else router, hooks=hooks)
        answer = await ask(stack, f"/{prefix}foo-bar/")
        assert (answer.status, answer.header("x-room")) == (passes, "foo_bar")
        if wrap(router) is router:
            match = matches[-1]
            assert (match.route, match.url_name) == (f"{prefix}<slug:room>/", "room")
            assert match.func.consumer_class is endpoint


@pytest.mark.parametrize("kind", ["request", "route", "around", "policy"])
@pytest.mark.parametrize("is_replaced", [False, True])
async def test_what_is_decided_about_arguments_that_were_changed_is_about_those_that_the_endpoint_gets(
    is_replaced, kind
):
    def change(request):
        match = request.resolver_match
        match.kwargs = {**match.kwargs} if is_replaced else match.kwargs
        match.kwargs["room"] = "lobby"

    in_lobby = Check(lambda request: request.resolver_match.kwargs == {"room": "lobby"})
    room = consumer(lambda self: self.accept(headers=room_of(self)))
    for ask, base, passes in [(knock, room, 101), (fetch, HttpRoom, 200)]:
        endpoint = calling(change, kind)(require(in_lobby)(type("Decorated", (base,), {})))
        answer = await ask(DenyMiddlewareStack(URLRouter([path("<slug:room>/", endpoint.as_asgi())])), "/secret/")
        assert (answer.status, answer.header("x-room")) == (passes, "lobby")


async def test_where_nothing_is_routed_route_hooks_do_not_run(transport, hooks, ran):
    ask, app, _ = transport
    for kind in ("request", "route", "response"):
        hooks.register(lambda *args, kind=kind: ran.append(kind), kind)
    hooks.on_exception(Http404)(lambda request, error: ran.append("exception"))
    router = URLRouter([path("there/", public(app))])
    for stack in (DenyMiddlewareStack(router, hooks=hooks), DenyMiddlewareStack(Wrapper(with_hooks(hooks)(router)))):
        assert ((await ask(stack, "/nowhere/")).status, ran) == (404, ["request", "exception", "response"])
        ran.clear()


@pytest.mark.parametrize("denial", [None, Deny(403)])
async def test_the_body_of_a_response_waits_for_its_start(denial, hooks):
    @hooks.on_response
    async def hold(request, response):
        await asyncio.sleep(0.01)
        return denial

    @public
    async def app(scope, receive, send):
        start, body = {"type": "http.response.start", "status": 200}, {"type": "http.response.body", "body": b"page"}
        await asyncio.gather(send(start), send(body), return_exceptions=True)

    answer = await fetch(DenyMiddlewareStack(app, hooks=hooks), "/")
    assert (answer.status, b"page" in answer.body) == ((200, True) if denial is None else (403, False))
