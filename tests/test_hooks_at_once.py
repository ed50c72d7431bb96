"""Two answers at once: an around hook that ends while others are asked, and applications of several tasks."""

from __future__ import annotations

import asyncio
import time

import pytest
from channels.auth import AuthMiddlewareStack
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.http import HttpResponse

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.policies import AllowAny
from tests.clients import fetch, http_scope, websocket_scope
from tests.mirror import OUTSIDE, Middleware
from tests.parts import AsyncCheck, Check
from tests.test_hooks_around import DOORS, PASSES, ask
from tests.test_stack import no_task_left

# Channels' consumers close old database connections before each message.
pytestmark = pytest.mark.django_db

#: More turns of the loop than a request takes here.
ALL_TURNS = 60


@pytest.fixture(params=DOORS)
def door(request):
    return request.param


async def turns(number):
    for _ in range(number):
        await asyncio.sleep(0)


async def let_in_after(number):
    await turns(number)
    return True


def slowly(number=10):
    """A policy that takes some turns of the loop to let everybody in."""
    return require(AsyncCheck(lambda request: let_in_after(number)))


def giving_up(ran, number):
    """Hooks that deny unless they have an answer after some turns of the loop."""
    hooks = Hooks()

    @hooks.around
    async def give_up(request, call_next):
        asking = asyncio.ensure_future(call_next(request))
        try:
            await turns(number)
            if asking.done():
                return await asking
        finally:
            asking.cancel()
        ran.append("gave up")
        return HttpResponse(b"gave up", status=403)

    return hooks


def giving_up_at(event):
    """Hooks that deny once `event` is set, unless they have an answer."""
    hooks = Hooks()

    @hooks.around
    async def give_up(request, call_next):
        asking = asyncio.ensure_future(call_next(request))
        waiting = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait({asking, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return await asking
        finally:
            asking.cancel()
            waiting.cancel()
        return HttpResponse(b"gave up", status=403)

    return hooks


# Who gives up has the last word, whenever that is.


async def inner_around(request, call_next):
    response = await call_next(request)
    await asyncio.sleep(0)
    return response


async def inner_response(request, response):
    await asyncio.sleep(0)


def inner_sync_response(request, response): ...


@pytest.mark.parametrize("inner", [inner_around, inner_response, inner_sync_response])
async def test_whenever_a_hook_gives_up_nothing_passes_or_begins(inner, door, ran):
    inside = Hooks()
    (inside.around if inner is inner_around else inside.on_response)(inner)
    began = []

    @slowly()
    async def endpoint(scope, receive, send):
        began.append("gave up" in ran)
        await DOORS[door][2].inner(scope, receive, send)

    async with no_task_left():
        for number in range(ALL_TURNS):
            ran.clear()
            answer = await ask(door, giving_up(ran, number), with_hooks(inside)(endpoint))
            assert answer.status == (403 if ran else PASSES[door]), number
    assert set(began) == {False}


@pytest.mark.parametrize("number", [0, 1, 2, 3, 10])
async def test_a_hook_that_gives_up_while_an_inner_one_has_the_answer_is_not_overruled(number, door, ran):
    has_answer, inside = asyncio.Event(), Hooks()

    @inside.around
    async def pass_on(request, call_next):
        response = await call_next(request)
        has_answer.set()
        await turns(number)
        return response

    hooks = giving_up_at(has_answer)
    hooks.on_response(lambda request, response: ran.append(response.status_code))
    async with no_task_left():
        answer = await ask(door, hooks, with_hooks(inside)(DOORS[door][2]))
    assert answer.status == 403
    assert len(ran) == 1


@pytest.mark.parametrize("first", [True, False], ids=["before call_next", "after call_next"])
async def test_a_hook_that_gives_up_does_not_wait_for_an_inner_one(first, door, ran):
    waits, inside = asyncio.Event(), Hooks()

    @inside.around
    async def wait(request, call_next):
        response = None if first else await call_next(request)
        waits.set()
        try:
            await asyncio.Event().wait()
        finally:
            ran.append("ended")
        return response

    async with no_task_left():
        answer = await ask(door, giving_up_at(waits), with_hooks(inside)(DOORS[door][2]))
    assert (answer.status, answer.body) == (403, b"gave up")
    assert ran == ["ended"]


async def test_a_hook_that_gives_up_while_a_denial_goes_out_is_heard(door):
    goes_out, inside = asyncio.Event(), Hooks()

    @inside.on_response
    async def hold(request, response):
        assert response.status_code == 402
        goes_out.set()
        await turns(10)

    guarded = require(Check(lambda request: Deny(402)))(DOORS[door][2].inner)
    answer = await ask(door, giving_up_at(goes_out), with_hooks(inside)(guarded))
    assert (answer.status, answer.body) == (403, b"gave up")


async def test_a_hook_that_gives_up_while_an_early_answer_goes_out_is_heard():
    goes_out, inside = asyncio.Event(), Hooks()
    inside.on_request(lambda request: HttpResponse(b"early"))

    @inside.on_response
    async def hold(request, response):
        goes_out.set()
        await turns(10)

    answer = await ask("HTTP", giving_up_at(goes_out), with_hooks(inside)(DOORS["HTTP"][2]))
    assert (answer.status, answer.body) == (403, b"gave up")


async def test_of_two_hooks_that_give_up_the_outer_one_is_heard(door):
    gives_up, inside = asyncio.Event(), Hooks()

    @inside.around
    async def give_up_too(request, call_next):
        asking = asyncio.ensure_future(call_next(request))
        await turns(3)
        asking.cancel()
        gives_up.set()
        return HttpResponse(b"inner", status=402)

    @inside.on_response
    async def hold(request, response):
        await turns(10)

    endpoint = slowly(1000)(DOORS[door][2].inner)
    answer = await ask(door, giving_up_at(gives_up), with_hooks(inside)(endpoint))
    assert (answer.status, answer.body) == (403, b"gave up")


async def test_response_hooks_that_begin_after_the_denial_see_the_denial(door, ran):
    inside = Hooks()
    for index in range(3):

        @inside.on_response
        async def note(request, response, index=index):
            ran.append((index, response.status_code))
            await turns(3)

    for number in range(5, ALL_TURNS):  # Before, the inner hooks are not there yet.
        ran.clear()
        await ask(door, giving_up(ran, number), with_hooks(inside)(DOORS[door][2]))
        after = ran[ran.index("gave up") + 1 :] if "gave up" in ran else []
        assert {status for _, status in after} <= {403}, number
        assert len({name for name in ran if name != "gave up"}) == 3, number


async def test_hooks_further_in_do_not_begin_after_the_denial(door, ran):
    inside = Hooks()

    @inside.around
    async def begin(request, call_next):
        ran.append("began")
        return await call_next(request)

    async with no_task_left():
        for number in range(ALL_TURNS):
            ran.clear()
            hooks = giving_up(ran, number)

            @hooks.on_request
            async def hold(request):
                await turns(8)

            await ask(door, hooks, with_hooks(inside)(DOORS[door][2]))
            assert ran in (["began"], ["gave up"], ["began", "gave up"]), number


async def test_a_consumer_behind_a_middleware_that_takes_its_time_does_not_begin(door, ran):
    began = []

    class Socket(AsyncWebsocketConsumer):
        async def __call__(self, scope, receive, send):
            began.append("gave up" in ran)
            await super().__call__(scope, receive, send)

    class Page(AsyncHttpConsumer):
        async def __call__(self, scope, receive, send):
            began.append("gave up" in ran)
            await super().__call__(scope, receive, send)

        async def handle(self, body):
            await self.send_response(200, b"page")

    app = AuthMiddlewareStack(public(Socket if door == "socket" else Page).as_asgi())
    for number in range(ALL_TURNS):
        ran.clear()
        await ask(door, giving_up(ran, number), app)
    assert True not in began


@pytest.mark.parametrize("how", ["left", "started"])
async def test_an_endpoint_within_does_not_begin_though_its_hooks_can_answer_no_more(how, ran):
    @slowly()
    async def endpoint(scope, receive, send):
        ran.append("began")

    guarded = with_hooks(giving_up(ran, 4))(endpoint)

    @public
    async def page(scope, receive, send):
        await receive()
        if how == "left":
            assert (await receive())["type"] == "http.disconnect"
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await guarded(scope, receive, send)

    events = iter([{"type": "http.request"}, {"type": "http.disconnect"}])

    async def receive():
        return next(events)

    async def send(message): ...

    await DenyMiddlewareStack(page)(http_scope("/"), receive, send)
    assert ran == ["gave up"]


async def test_what_a_hook_left_behind_does_not_wait_for_ever(door, ran):
    hooks = Hooks()

    @hooks.around
    async def leave_behind(request, call_next):
        asking = asyncio.ensure_future(call_next(request))
        await asyncio.wait({asking}, timeout=0.01)
        return HttpResponse(status=403)

    async with no_task_left():
        assert (await ask(door, hooks, DOORS[door][1](ran, seconds=0.1))).status == 403


async def test_a_hook_that_ends_by_a_cancellation_is_a_500_that_outer_hooks_see(door):
    hooks, inside = Hooks(), Hooks()

    @hooks.on_response
    def mark(request, response):
        response["X-Outer"] = "1"

    @inside.around
    async def cancel(request, call_next):
        asking = asyncio.ensure_future(call_next(request))
        await turns(5)
        asking.cancel()
        return await asking

    endpoint = slowly(1000)(DOORS[door][2].inner)
    async with no_task_left():
        answer = await ask(door, hooks, with_hooks(inside)(endpoint))
    assert (answer.status, answer.header("x-outer")) == (500, "1")


# Views.


@pytest.mark.parametrize("hook", ["policy", "hook"])
def test_a_view_does_not_begin_once_its_hooks_have_given_up(hook, site, hooks, ran):
    @hooks.around
    async def give_up(request, call_next):
        asking = asyncio.ensure_future(call_next(request))
        await asyncio.wait({asking}, timeout=0.05)
        asking.cancel()
        return HttpResponse(status=403)

    def hold(request):
        time.sleep(0.2)
        return True if hook == "policy" else None

    if hook == "hook":
        hooks.on_request(hold)

    @require(Check(hold) if hook == "policy" else AllowAny())
    def view(request):
        ran.append("view")
        return HttpResponse()

    assert site.serve(view, hooks=hooks).ask().status == 403
    time.sleep(0.2)
    assert ran == []


def test_a_policy_of_a_view_that_takes_too_long_is_a_503_behind_hooks(hooks, site):
    hooks.on_response(lambda request, response: None)

    @slowly(1_000_000)
    async def view(request):
        return HttpResponse()

    assert site.serve(view, hooks=hooks, POLICY_TIMEOUT=0.05).ask().status == 503


# Applications of several tasks.


@pytest.mark.parametrize("with_hooks", [True, False])
async def test_two_that_listen_at_once_get_an_event_each(with_hooks, hooks):
    if with_hooks:
        hooks.on_response(lambda request, response: None)
    heard = []

    @public
    async def app(scope, receive, send):
        heard.extend(await asyncio.gather(receive(), receive()))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    bodies = iter([b"1", b"2"])

    async def receive():
        await asyncio.sleep(0)
        return {"type": "http.request", "body": next(bodies), "more_body": True}

    async def send(message): ...

    await DenyMiddlewareStack(app, hooks=hooks)(http_scope("/", method="POST"), receive, send)
    assert {event["body"] for event in heard} == {b"1", b"2"}


@pytest.mark.parametrize("answer", [None, Deny(403)])
async def test_a_body_does_not_overtake_its_start(answer, hooks):
    @hooks.on_response
    async def hold(request, response):
        await turns(10)
        return answer

    @public
    async def app(scope, receive, send):
        start = {"type": "http.response.start", "status": 200, "headers": []}
        starting = asyncio.ensure_future(send(start))
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"page"})
        await starting

    got = await fetch(DenyMiddlewareStack(app, hooks=hooks), "/")
    assert (got.status, b"page" in got.body) == ((200, True) if answer is None else (403, False))


async def test_a_task_that_an_application_leaves_behind_says_nothing_to_anybody(door, hooks):
    hooks.on_response(lambda request, response: Deny(403))
    sent, speaks = [], asyncio.Event()

    @public
    async def app(scope, receive, send):
        async def speak():
            await speaks.wait()
            await DOORS[door][2].inner(scope, receive, send)

        await asyncio.shield(asyncio.ensure_future(speak()))

    events = iter([{"type": "websocket.connect"} if door == "socket" else {"type": "http.request"}])

    async def receive():
        return next(events)

    async def send(message):
        sent.append(message)

    scope = websocket_scope("/") if door == "socket" else http_scope("/")
    before = asyncio.all_tasks()
    asking = asyncio.ensure_future(DenyMiddlewareStack(app, hooks=hooks)(scope, receive, send))
    await turns(20)
    asking.cancel()
    await asyncio.wait({asking})
    speaks.set()
    left = asyncio.all_tasks() - before
    await asyncio.gather(*left, return_exceptions=True)
    assert left
    assert sent == []


async def test_a_body_waits_until_a_slow_server_has_the_start(hooks):
    @hooks.on_response
    def shout(request, response):
        content = response.streaming_content

        async def shouted():
            async for chunk in content:
                yield chunk.upper()

        response.streaming_content = shouted()

    @public
    async def app(scope, receive, send):
        start = {"type": "http.response.start", "status": 200, "headers": []}
        starting = asyncio.ensure_future(send(start))
        await turns(10)
        await send({"type": "http.response.body", "body": b"page"})
        await starting

    async def slow_server(scope, receive, send):
        async def slow_send(message):
            await turns(50 if message["type"] == "http.response.start" else 0)
            await send(message)

        await DenyMiddlewareStack(app, hooks=hooks)(scope, receive, slow_send)

    assert (await fetch(slow_server, "/")).body == b"PAGE"


# Views that are called at once, or again. They fail closed: hooks are for one call of a request at a time.


def denying(kind, ran):
    hooks = Hooks()
    if kind == "around":

        @hooks.around
        async def deny(request, call_next):
            ran.append("asked")
            return HttpResponse(status=503)

    elif kind == "around late":

        @hooks.around
        async def deny_late(request, call_next):
            ran.append("asked")
            await call_next(request)
            return HttpResponse(status=503)

    else:

        @getattr(hooks, f"on_{kind}")
        def refuse(request, *response):
            ran.append("asked")
            return Deny(503)

    return hooks


def quick(request):
    return HttpResponse(b"secret")


async def quick_async(request):
    return HttpResponse(b"secret")


@pytest.mark.parametrize("second", [quick, quick_async])
@pytest.mark.parametrize("kind", ["request", "response", "around", "around late"])
def test_who_calls_a_view_again_is_denied_again(kind, second, site, ran):
    guarded = with_hooks(denying(kind, ran))(second)

    async def again_async(request):
        assert (await guarded(request)).status_code == 503
        return await guarded(request)

    def again(request):
        assert guarded(request).status_code == 503
        return guarded(request)

    answer = site.serve(again if second is quick else again_async).ask()
    assert (answer.status, b"secret" in answer.body) == (503, False)
    assert ran == ["asked"] * 2


@pytest.mark.parametrize("view", [quick, quick_async])
@pytest.mark.parametrize("kind", ["request", "route", "response", "around", "around late"])
def test_middleware_that_asks_again_is_denied_again(kind, view, site, ran):
    answer = site.serve(view, hooks=denying(kind, ran), outside=[*OUTSIDE, f"{__name__}.Repeat"]).ask()
    # Hooks of a stack that nobody sees through are not at hand again.
    assert answer.status == (500 if site.is_opaque and kind in {"route", "response", "around late"} else 503)
    assert b"secret" not in answer.body


class Repeat(Middleware):
    """Asks again, as middleware for deadlocks of a database does."""

    def __call__(self, request):
        return self._ask_again(request) if self._is_async else self._ask(request)

    def _ask(self, request):
        self.get_response(request)
        return self.get_response(request)

    async def _ask_again(self, request):
        await self.get_response(request)
        return await self.get_response(request)


@pytest.mark.parametrize("kind", ["request", "route"])
def test_views_that_are_called_at_once_pass_none_of_their_hooks(kind, site, ran):
    @with_hooks(Hooks())
    async def other(request):
        await turns(20)
        return HttpResponse(b"other")

    inside = Hooks()
    inside.on_request(lambda request: None)  # in a thread, while the other one ends
    guarded = with_hooks(denying(kind, ran), inside)(quick_async)

    async def both(request):
        answers = await asyncio.gather(other(request), guarded(request), return_exceptions=True)
        return HttpResponse(b"".join(getattr(answer, "content", b"") for answer in answers))

    assert b"secret" not in site.serve(both).ask().body
