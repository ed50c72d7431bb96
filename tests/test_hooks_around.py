"""Around hooks and what hooks leave behind: early ends, contexts, threads; and attacks on all of it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import json
import time

import pytest
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from django.http import HttpResponse

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.exceptions import HandshakeDenied, HookError
from channels_wsdeny.policies import AllowAny, DenyAll
from tests.clients import Handshake, fetch, knock, websocket_scope
from tests.parts import AsyncCheck, Check, accept
from tests.test_hops import count
from tests.test_stack import Wrapper, no_task_left

# Channels' consumers close old database connections before each message.
pytestmark = pytest.mark.django_db

FOREVER = 3600


async def page(scope, receive, send):
    """An application that answers over HTTP."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"page"})


#: How a door is asked, and an endpoint of its own that answers after so many seconds.
def slow_socket(ran, seconds):
    async def app(scope, receive, send):
        await receive()
        await asyncio.sleep(seconds)
        ran.append("answers")
        await send({"type": "websocket.accept"})
        ran.append((await receive())["type"])

    return public(app)


def slow_page(ran, seconds):
    async def app(scope, receive, send):
        await asyncio.sleep(seconds)
        ran.append("answers")
        await page(scope, receive, send)

    return public(app)


DOORS = {"socket": (knock, slow_socket, public(accept)), "HTTP": (fetch, slow_page, public(page))}
PASSES = {"socket": 101, "HTTP": 200}


@pytest.fixture(params=DOORS)
def door(request):
    return request.param


async def ask(door, hooks, endpoint=None):
    asked, _, prompt = DOORS[door]
    return await asked(DenyMiddlewareStack(endpoint or prompt, hooks=hooks), "/")


def slow(door, ran, seconds=0.15):
    return DOORS[door][1](ran, seconds)


# What a hook gets, and what becomes of what it returns.


async def test_call_next_returns_the_response_of_an_accept_and_of_a_page(door, hooks):
    seen = []

    @hooks.around
    async def look(request, call_next):
        response = await call_next(request)
        seen.append(response.status_code)
        response["X-Seen"] = "1"
        response.set_cookie("seen", "1")
        return response

    answer = await ask(door, hooks)
    assert (answer.status, seen) == (PASSES[door], [PASSES[door]])
    assert (answer.header("x-seen"), answer.header("set-cookie")) == ("1", "seen=1; Path=/")


@pytest.mark.parametrize(
    ("policy", "status"),
    [(DenyAll(), 403), (Check(lambda request: 1 / 0), 500), (Check(lambda r: Deny(402)), 402)],
)
async def test_call_next_returns_a_denial_whole_and_does_not_raise(policy, status, hooks, door):
    seen = []

    @hooks.around
    async def look(request, call_next):
        response = await call_next(request)
        seen.append(json.loads(response.content)["status"])
        return response

    assert (await ask(door, hooks, require(policy)(DOORS[door][2].inner))).status == status
    assert seen == [status]


async def test_the_consumer_lives_on_after_the_hook_has_returned(hooks, ran):
    @hooks.around
    async def note(request, call_next):
        ran.append("in")
        response = await call_next(request)
        ran.append("out")
        return response

    class Echo(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            await self.send(text_data)

    async with no_task_left():
        handshake = Handshake(DenyMiddlewareStack(public(Echo).as_asgi(), hooks=hooks), websocket_scope("/"))
        assert (await handshake.connect()).status == 101
        assert ran == ["in", "out"]
        assert not [task for task in asyncio.all_tasks() if "surround" in repr(task)]
        await handshake.send("a")
        assert (await handshake.next())["text"] == "a"
        await handshake.leave()


async def test_a_consumer_whose_accept_a_hook_denies_gets_its_disconnect(hooks, ran):
    @hooks.around
    async def deny(request, call_next):
        await call_next(request)
        return HttpResponse(b"no", status=403)

    async with no_task_left():
        answer = await ask("socket", hooks, slow("socket", ran, 0))
    assert (answer.status, answer.body, ran) == (403, b"no", ["answers", "websocket.disconnect"])


async def test_a_hook_may_catch_that_it_called_twice(hooks, door):
    errors = []

    @hooks.around
    async def twice(request, call_next):
        response = await call_next(request)
        with pytest.raises(HookError) as caught:
            await call_next(request)
        errors.append(str(caught.value))
        return response

    assert (await ask(door, hooks)).status == PASSES[door]
    assert errors[0].endswith("called call_next() twice: the endpoint answers once.")


async def test_a_hook_that_calls_twice_at_once_is_told(hooks, door):
    @hooks.around
    async def both(request, call_next):
        first, second = await asyncio.gather(call_next(request), call_next(request), return_exceptions=True)
        assert isinstance(second, HookError)
        return first

    async with no_task_left():
        assert (await ask(door, hooks)).status == PASSES[door]


async def test_the_answer_of_an_inner_hook_reaches_the_outer_one(hooks, door, ran):
    @hooks.around(priority=1)
    async def outer(request, call_next):
        response = await call_next(request)
        ran.append(response.status_code)
        response["X-Outer"] = "1"
        return response

    @hooks.around
    async def inner(request, call_next):
        return HttpResponse(b"no", status=403)

    hooks.on_request(lambda request: ran.append("request"))
    answer = await ask(door, hooks)
    assert (answer.status, answer.header("x-outer"), ran) == (403, "1", [403])


SHARED = HttpResponse(b"shared", status=403)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("policy", [AllowAny(), DenyAll()])
async def test_a_response_that_a_hook_shares_keeps_nothing_of_any_visitor(policy, late, hooks, door):
    @hooks.around
    async def share(request, call_next):
        request.session["seen"] = True
        if late:
            await call_next(request)
        return SHARED

    outer = Hooks()
    outer.on_response(lambda request, response: response.set_cookie("visitor", "1"))
    endpoint = with_hooks(hooks)(require(policy)(DOORS[door][2].inner))
    answer = await ask(door, outer, endpoint)
    assert (answer.status, answer.body) == (403, b"shared")
    assert len([name for name, _ in answer.headers if name == "set-cookie"]) == 2
    assert (dict(SHARED.items()), len(SHARED.cookies)) == ({"Content-Type": "text/html; charset=utf-8"}, 0)


# Hooks that end before the endpoint has answered.


def impatient(hooks, end):
    """An around hook that gives up waiting, and then does what `end` does."""

    @hooks.around
    async def hook(request, call_next):
        try:
            async with asyncio.timeout(0.01):
                return await call_next(request)
        except TimeoutError:
            return await end()


async def instead():
    return HttpResponse(b"instead", status=504)


async def instead_later():
    await asyncio.sleep(0.3)
    return HttpResponse(b"instead", status=504)


async def fail():
    raise ZeroDivisionError


async def give_up():
    raise TimeoutError


async def say_no():
    raise Deny(402)


ENDS = {instead: 504, instead_later: 504, fail: 500, give_up: 503, say_no: 402}


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
async def test_a_hook_that_ends_early_denies_and_the_endpoint_hears_of_it(end, hooks, door, ran):
    impatient(hooks, end)
    async with no_task_left():
        answer = await ask(door, hooks, slow(door, ran))
    assert answer.status == ENDS[end]
    assert ran == ["answers"] if door == "HTTP" else ["answers", "websocket.disconnect"]


@pytest.mark.parametrize("end", [instead, fail, give_up, say_no], ids=lambda end: end.__name__)
async def test_after_an_early_end_response_hooks_see_the_denial_once(end, hooks, door, ran):
    impatient(hooks, end)
    hooks.on_response(lambda request, response: ran.append(response.status_code))
    outer = Hooks()

    @outer.on_response
    async def note(request, response):
        await asyncio.sleep(0.1)  # meanwhile the endpoint answers
        response["X-Outer"] = "1"

    answer = await ask(door, outer, with_hooks(hooks)(slow(door, ran)))
    assert (answer.status, answer.header("x-outer")) == (ENDS[end], "1")
    assert [status for status in ran if isinstance(status, int)] == [ENDS[end]]


async def test_what_a_hook_raises_early_is_explained_by_exception_hooks(hooks, door, ran):
    impatient(hooks, fail)
    hooks.on_exception(ZeroDivisionError)(lambda request, error: Deny(409, code="explained"))
    answer = await ask(door, hooks, slow(door, ran))
    assert (answer.status, answer.problem["code"]) == (409, "explained")


@pytest.mark.parametrize("late", [False, True])
async def test_what_a_hook_raises_is_logged_once(late, hooks, door, ran, caplog):
    if late:

        @hooks.around
        async def hook(request, call_next):
            await call_next(request)
            raise ZeroDivisionError

    else:
        impatient(hooks, fail)
    assert (await ask(door, hooks, slow(door, ran))).status == 500
    assert [record.name for record in caplog.records] == ["django.request", "channels_wsdeny"]


async def test_an_endpoint_that_answers_after_an_early_end_is_not_heard(hooks):
    impatient(hooks, instead)
    events = []

    async def app(scope, receive, send):
        await asyncio.sleep(0.15)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"secret"})
        events.append(await receive())

    assert (await ask("HTTP", hooks, public(app))).body == b"instead"
    assert events == [{"type": "http.disconnect"}]


async def test_a_consumer_that_answers_after_an_early_end_is_told_so(hooks):
    impatient(hooks, instead)
    errors = []

    class Consumer(AsyncHttpConsumer):
        async def handle(self, content):
            await asyncio.sleep(0.15)
            try:
                await self.send_response(200, b"secret")
            except HandshakeDenied as error:
                errors.append(error)
                raise

    assert (await ask("HTTP", hooks, public(Consumer).as_asgi())).body == b"instead"
    assert len(errors) == 1


async def test_what_an_endpoint_raises_after_an_early_end_is_logged_and_goes_no_further(hooks, door, caplog):
    impatient(hooks, instead)

    @public
    async def app(scope, receive, send):
        await asyncio.sleep(0.15)
        raise ZeroDivisionError

    assert (await ask(door, hooks, app)).body == b"instead"
    assert "ZeroDivisionError" in caplog.text


async def test_an_endpoint_whose_await_was_cancelled_is_a_500(hooks, door):
    @public
    async def app(scope, receive, send):
        raise asyncio.CancelledError

    assert (await ask(door, hooks, app)).problem["code"] == "server_error"


async def test_a_hook_that_leaves_the_endpoint_to_a_task_of_its_own_ends_early(hooks, door, ran):
    tasks = []

    @hooks.around
    async def hasty(request, call_next):
        tasks.append(asyncio.ensure_future(call_next(request)))
        await asyncio.sleep(0.01)
        return HttpResponse(b"instead", status=403)

    answer = await ask(door, hooks, slow(door, ran))
    tasks[0].cancel()
    assert (answer.status, answer.body) == (403, b"instead")


# Time.


@pytest.mark.parametrize("kind", ["request", "route", "response", "exception", "around", "around late"])
async def test_a_hook_that_hangs_is_a_503_and_leaves_no_task(kind, hooks, door, settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.05}
    endpoint = DOORS[door][2]

    async def hang(*args):
        await asyncio.sleep(FOREVER)

    @hooks.around
    async def look(request, call_next):
        return await call_next(request)

    if kind == "exception":
        hooks.on_exception(hang)
        endpoint = require(Check(lambda request: 1 / 0))(endpoint.inner)
    elif kind == "around":
        hooks.around(hang)
    elif kind == "around late":

        @hooks.around
        async def hang_late(request, call_next):
            await call_next(request)
            await hang()

    else:
        getattr(hooks, f"on_{kind}")(hang)
    async with no_task_left():
        answer = await ask(door, hooks, endpoint)
        assert (answer.status, answer.problem["code"]) == (503, "unavailable")


@pytest.mark.parametrize("kind", ["request", "route", "response"])
async def test_a_hook_that_hangs_in_a_thread_is_a_503(kind, hooks, door, settings):
    import threading

    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.05}
    go_on = threading.Event()
    getattr(hooks, f"on_{kind}")(lambda *args: go_on.wait(FOREVER) and None)
    assert (await ask(door, hooks)).status == 503
    go_on.set()


class Stubborn:
    """Around hooks that do not end when they are cancelled, not at once."""

    async def swallow(self, request, call_next):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(FOREVER)
        return await call_next(request)

    async def swallow_and_return(self, request, call_next):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(FOREVER)
        return HttpResponse(b"late")

    async def swallow_the_answer(self, request, call_next):
        with contextlib.suppress(asyncio.CancelledError):
            await call_next(request)
            await asyncio.sleep(FOREVER)
        return HttpResponse(status=101)

    async def raise_another(self, request, call_next):
        try:
            await asyncio.sleep(FOREVER)
        finally:
            raise ValueError

    async def clean_up(self, request, call_next):
        try:
            await asyncio.sleep(FOREVER)
        finally:
            await asyncio.sleep(0)


@pytest.mark.parametrize("how", [name for name in vars(Stubborn) if not name.startswith("_")])
async def test_a_hook_that_does_not_want_to_end_opens_no_door_and_leaves_nothing(how, hooks, door, settings):
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["message"]))
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.05}
    hooks.around(getattr(Stubborn(), how))
    async with no_task_left():
        assert (await ask(door, hooks)).status == 503
    gc.collect()
    assert told == []


# Whoever interrupts hooks does not pass without them.


@pytest.fixture(params=["async", "sync"])
def denying_slowly(request, hooks):
    """A function that adds a slow hook of a kind, which denies."""

    async def slow_no(*args):
        await asyncio.sleep(0.05)
        return Deny(403)

    def slow_sync_no(*args):
        time.sleep(0.05)
        return Deny(403)

    return lambda kind: getattr(hooks, f"on_{kind}")(slow_no if request.param == "async" else slow_sync_no)


async def try_twice(make):
    try:
        await asyncio.wait_for(make(), 0.01)
    except TimeoutError:
        await asyncio.sleep(0.1)  # a hook that was interrupted in its thread ends meanwhile
        await make()


async def test_an_accept_that_was_cancelled_and_is_sent_again_does_not_pass(hooks, denying_slowly):
    denying_slowly("response")

    @public
    async def app(scope, receive, send):
        await receive()
        await try_twice(lambda: send({"type": "websocket.accept"}))

    assert (await knock(DenyMiddlewareStack(app, hooks=hooks), "/")).status == 500


async def test_a_response_that_was_cancelled_and_is_started_again_does_not_pass(hooks, denying_slowly):
    denying_slowly("response")

    @public
    async def app(scope, receive, send):
        await try_twice(lambda: send({"type": "http.response.start", "status": 200}))
        await send({"type": "http.response.body", "body": b"secret"})

    answer = await fetch(DenyMiddlewareStack(app, hooks=hooks), "/")
    assert (answer.status, answer.problem["code"]) == (500, "server_error")


@pytest.mark.parametrize("kind", ["request", "route"])
async def test_an_application_that_was_cancelled_and_is_run_again_does_not_pass(
    kind, hooks, door, denying_slowly
):
    denying_slowly(kind)
    inner = DenyMiddlewareStack(DOORS[door][2], hooks=hooks)

    async def app(scope, receive, send):
        await try_twice(lambda: inner(scope, receive, send))

    assert (await ask(door, Hooks(), app)).status == 500


async def test_a_server_that_cancels_just_as_a_hook_comes_back_from_its_thread_leaves_no_task(hooks):
    hooks.around(through)
    hooks.on_response(lambda request, response: time.sleep(0.05))
    async with no_task_left():
        handshake = Handshake(DenyMiddlewareStack(public(accept), hooks=hooks), websocket_scope("/"))
        await handshake.communicator.send_input({"type": "websocket.connect"})
        await asyncio.sleep(0.02)
        time.sleep(0.1)  # the hook ends, and the loop does not know yet
        handshake.communicator.future.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await handshake.communicator.future


# Contexts.

WORD: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="none")


def speak(word="hello"):
    WORD.set(word)


async def speak_async(request):
    await asyncio.sleep(0)
    speak()


async def speak_around(request, call_next):
    speak()
    return await call_next(request)


SPEAKERS = {
    "sync": lambda hooks: hooks.on_request(lambda request: speak()),
    "quick": lambda hooks: hooks.on_request(lambda request: speak(), blocking=False),
    "async": lambda hooks: hooks.on_request(speak_async),
    "sync route": lambda hooks: hooks.on_route(lambda request: speak()),
    "async route": lambda hooks: hooks.on_route(speak_async),
    "around": lambda hooks: hooks.around(speak_around),
}


class Says(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept(headers=[(b"x-word", WORD.get().encode())])


class SaysInThread(WebsocketConsumer):
    def connect(self):
        self.accept(headers=[(b"x-word", WORD.get().encode())])


class SaysOverHttp(AsyncHttpConsumer):
    async def handle(self, body):
        await self.send_response(200, b"", headers=[(b"x-word", WORD.get().encode())])


LISTENERS = {
    "consumer": (knock, lambda: public(Says).as_asgi()),
    "sync consumer": (knock, lambda: public(SaysInThread).as_asgi()),
    "consumer in a wrapper": (knock, lambda: Wrapper(public(Says).as_asgi())),
    "nested stack": (knock, lambda: DenyMiddlewareStack(public(Says).as_asgi())),
    "HTTP consumer": (fetch, lambda: public(SaysOverHttp).as_asgi()),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("speaker", SPEAKERS)
async def test_the_endpoint_sees_what_a_hook_put_into_a_contextvar(speaker, listener, hooks):
    SPEAKERS[speaker](hooks)
    asked, make = LISTENERS[listener]
    answer = await asked(DenyMiddlewareStack(make(), hooks=hooks), "/")
    assert answer.header("x-word") == "hello"
    assert WORD.get() == "none"


@pytest.mark.parametrize("speaker", SPEAKERS)
@pytest.mark.parametrize("check", [Check, AsyncCheck])
async def test_a_policy_sees_what_a_hook_put_into_a_contextvar(check, speaker, hooks, door):
    SPEAKERS[speaker](hooks)

    def listen(request):
        return WORD.get() == "hello"

    async def listen_async(request):
        return listen(request)

    policy = check(listen_async if check is AsyncCheck else listen)
    assert (await ask(door, hooks, require(policy)(DOORS[door][2].inner))).status == PASSES[door]


async def test_sockets_at_the_same_time_see_their_own_contexts(hooks):
    turns = asyncio.Barrier(20)

    @hooks.on_request
    def speak_of_path(request):
        speak(request.path)

    @hooks.around
    async def add(request, call_next):
        response = await call_next(request)
        response["X-After"] = WORD.get()
        return response

    @hooks.on_route
    async def wait(request):
        speak(WORD.get() + "!")
        await turns.wait()

    application = DenyMiddlewareStack(public(Says).as_asgi(), hooks=hooks)
    answers = await asyncio.gather(*(knock(application, f"/{number}/") for number in range(20)))
    assert [answer.header("x-word") for answer in answers] == [f"/{number}/!" for number in range(20)]
    # It runs in a context of its own, as it was before it called.
    assert {answer.header("x-after") for answer in answers} == {"none"}


async def test_a_contextvar_that_an_around_hook_resets_is_reset_in_its_own_context(hooks):
    @hooks.around
    async def bind(request, call_next):
        token = WORD.set("bound")
        try:
            return await call_next(request)
        finally:
            WORD.reset(token)

    answer = await knock(DenyMiddlewareStack(public(Says).as_asgi(), hooks=hooks), "/")
    assert (answer.status, answer.header("x-word")) == (101, "bound")


# Threads.


def quick(*args): ...


async def on_loop(*args):
    await asyncio.sleep(0)


async def through(request, call_next):
    return await call_next(request)


def registry(*kinds):
    """Hooks of kinds such as "request", "async request", "quick request", "around"."""
    hooks = Hooks()
    for kind in kinds:
        flavour, _, name = kind.rpartition(" ")
        if name == "around":
            hooks.around(through)
        elif flavour == "async":
            getattr(hooks, f"on_{name}")(on_loop)
        else:
            getattr(hooks, f"on_{name}")(quick, blocking=flavour != "quick")
    return hooks


#: Hooks as declared, and the hops that an accept costs.
HOPS = {
    "": 0,
    "request": 1,
    "request request request": 1,
    "request route": 1,
    "request route request route": 1,
    "quick-request": 0,
    "quick-request quick-route quick-response": 0,
    "request quick-request request": 1,
    "async-request": 0,
    "async-request async-route async-response": 0,
    "request async-request request": 2,
    "async-request request request": 1,
    "response": 1,
    "response response response": 1,
    "response quick-response response": 1,
    "response async-response response": 2,
    "request response": 2,
    "request request route response response": 2,
    "around": 0,
    "around around": 0,
    "around request": 1,
    "around response response": 1,
    "exception": 0,
}


@pytest.mark.parametrize(("declared", "hops"), HOPS.items(), ids=[name or "none" for name in HOPS])
def test_hooks_cost_hops(declared, hops):
    hooks = registry(*(kind.replace("-", " ") for kind in declared.split()))
    assert count(DenyMiddlewareStack(public(accept), hooks=hooks)) == (101, hops, 0)


def test_hooks_share_a_hop_with_policies():
    policy = Check(lambda request: True)
    application = DenyMiddlewareStack(require(policy)(accept), hooks=registry("request", "route"))
    assert count(application) == (101, 1, 0)


def test_hooks_of_several_layers_share_a_hop():
    endpoint = with_hooks(registry("request", "route"))(public(accept))
    application = DenyMiddlewareStack(
        DenyMiddlewareStack(endpoint, hooks=registry("request")), hooks=registry("request", "route")
    )
    assert count(application) == (101, 1, 0)


def test_hooks_share_a_hop_with_the_session_that_they_change():
    hooks = registry("response")
    hooks.on_response(lambda request, response: request.session.update({"a": 1}))
    status, hops, _ = count(DenyMiddlewareStack(public(accept), hooks=hooks))
    assert (status, hops) == (101, 1)
