"""Drivers: where each stretch of a decision runs, and what reaches it there."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading

import pytest
from asgiref.sync import async_to_sync
from django.http import StreamingHttpResponse

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.concurrency import hop
from channels_wsdeny.decisions import ALLOWED, Step
from channels_wsdeny.decorators import require
from channels_wsdeny.drivers import drive, drive_sync
from channels_wsdeny.http.request import HandshakeRequest
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated, Policy
from tests.clients import knock, websocket_scope
from tests.parts import AsyncCheck, Check, accept


class Hops:
    """A hop to the pool that counts."""

    def __init__(self):
        self.count = 0

    async def __call__(self, function):
        self.count += 1
        return await hop(function)


@pytest.fixture
def hops():
    return Hops()


@pytest.fixture(params=["loop", "sync"])
def run(request):
    """Each driver as a function from steps to their result, for callers without a loop."""
    if request.param == "sync":
        return drive_sync
    return lambda steps: async_to_sync(drive)(steps, hop)


def here():
    return threading.get_ident()


async def answer(value):
    await asyncio.sleep(0)
    return value


async def fail(error):
    await asyncio.sleep(0)
    raise error


class Note(Exception):
    pass


# What comes out is the same, whoever drives.


def test_steps_that_need_nothing_give_their_result(run):
    def steps():
        yield from ()
        return 7

    assert run(steps()) == 7


def test_blocking_steps_give_their_result(run):
    def steps():
        yield Step.BLOCKING
        return 7

    assert run(steps()) == 7


def test_steps_get_what_they_await(run):
    def steps():
        first = yield lambda: answer(3)
        yield Step.BLOCKING
        second = yield lambda: answer(4)
        return first + second

    assert run(steps()) == 7


def test_steps_may_await_none(run):
    def steps():
        return (yield lambda: answer(None))

    assert run(steps()) is None


@pytest.mark.parametrize("blocking", [False, True], ids=["on the loop", "in a thread"])
def test_what_steps_raise_keeps_its_type(run, blocking):
    def steps():
        if blocking:
            yield Step.BLOCKING
        yield from ()
        raise Note("raised")

    with pytest.raises(Note, match="raised"):
        run(steps())


def test_what_an_awaitable_raises_is_raised_where_it_was_asked_for(run):
    def steps():
        try:
            yield lambda: fail(Note("raised"))
        except Note as note:
            return str(note)

    assert run(steps()) == "raised"


def test_what_an_awaitable_raises_after_a_hop_is_raised_where_it_was_asked_for(run):
    def steps():
        yield Step.BLOCKING
        try:
            yield lambda: fail(Note("raised"))
        except Note as note:
            return str(note)

    assert run(steps()) == "raised"


def test_what_an_awaitable_raises_comes_out_if_nobody_wants_it(run):
    def steps():
        yield lambda: fail(Note("raised"))

    with pytest.raises(Note, match="raised"):
        run(steps())


def test_what_the_function_raises_that_makes_an_awaitable_reaches_the_steps(run):
    def steps():
        try:
            yield lambda: 1 / 0
        except ZeroDivisionError:
            return "caught"

    assert run(steps()) == "caught"


def test_steps_go_on_after_what_they_caught(run):
    def steps():
        try:
            yield lambda: fail(Note())
        except Note:
            yield Step.BLOCKING
        return (yield lambda: answer(7))

    assert run(steps()) == 7


def test_a_stop_iteration_inside_steps_is_no_result(run):
    def steps():
        yield Step.BLOCKING
        next(iter(()))
        return ALLOWED

    with pytest.raises(RuntimeError, match="StopIteration"):
        run(steps())


def test_a_stop_iteration_out_of_an_awaitable_is_no_result(run):
    def steps():
        yield lambda: fail(StopIteration(ALLOWED))

    with pytest.raises(RuntimeError, match="StopIteration"):
        run(steps())


def test_steps_are_finished_when_they_raise(run):
    finished = []

    def steps():
        try:
            yield Step.BLOCKING
            raise Note
        finally:
            finished.append(True)

    with pytest.raises(Note):
        run(steps())
    assert finished == [True]


# Where it runs.


async def test_steps_that_need_nothing_stay_on_the_loop(hops):
    def steps():
        yield from ()
        return here()

    assert await drive(steps(), hops) == here()
    assert hops.count == 0


async def test_blocking_steps_leave_the_loop(hops):
    def steps():
        yield Step.BLOCKING
        return here()

    assert await drive(steps(), hops) != here()
    assert hops.count == 1


async def test_all_blocking_steps_in_a_row_share_one_hop(hops):
    def steps():
        threads = []
        for _ in range(5):
            yield Step.BLOCKING
            threads.append(here())
        return threads

    threads = await drive(steps(), hops)
    assert len(set(threads)) == 1
    assert hops.count == 1


async def test_steps_that_can_do_both_stay_where_they_are(hops):
    def steps():
        before = yield Step.EITHER
        first = here()
        yield Step.BLOCKING
        after = yield Step.EITHER
        return before, first, after

    assert await drive(steps(), hops) == (False, here(), True)
    assert hops.count == 1


async def test_awaitables_are_made_and_awaited_on_the_loop(hops):
    async def look():
        return here(), asyncio.get_running_loop()

    made = []

    def make():
        made.append(here())
        return look()

    def steps():
        yield Step.BLOCKING
        return (yield make)

    assert await drive(steps(), hops) == (here(), asyncio.get_running_loop())
    assert made == [here()]


async def test_blocking_steps_around_an_awaitable_take_two_hops(hops):
    def steps():
        yield Step.BLOCKING
        yield lambda: answer(None)
        on_loop = here()
        yield Step.BLOCKING
        return on_loop

    assert await drive(steps(), hops) == here()
    assert hops.count == 2


async def test_an_awaitable_at_the_end_takes_no_second_hop(hops):
    def steps():
        yield Step.BLOCKING
        return (yield lambda: answer(7))

    assert await drive(steps(), hops) == 7
    assert hops.count == 1


def test_a_synchronous_caller_stays_in_its_thread():
    def steps():
        either = yield Step.EITHER
        yield Step.BLOCKING
        return either, here()

    assert drive_sync(steps()) == (True, here())


async def test_a_synchronous_caller_may_sit_in_a_thread_of_a_loop(hops):
    def steps():
        yield Step.BLOCKING
        return (yield lambda: answer(7))

    assert await hop(lambda: drive_sync(steps())) == 7


variable = contextvars.ContextVar("variable", default="unset")


async def test_blocking_steps_see_the_callers_contextvars(hops):
    def steps():
        yield Step.BLOCKING
        return variable.get()

    variable.set("set")
    assert await drive(steps(), hops) == "set"


# Giving up.


async def test_steps_that_nobody_waits_for_are_finished():
    begun, finished = asyncio.Event(), asyncio.Event()

    async def wait():
        begun.set()
        await asyncio.sleep(60)

    def steps():
        try:
            yield wait
        finally:
            finished.set()

    task = asyncio.ensure_future(drive(steps(), hop))
    await begun.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    del task
    gc.collect()
    assert finished.is_set()


async def test_steps_that_hang_in_a_thread_are_not_resumed_on_the_loop():
    release, threads = threading.Event(), []

    def steps():
        yield Step.BLOCKING
        release.wait(10)
        threads.append(here())
        yield lambda: threads.append("awaited")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await drive(steps(), hop)
    release.set()
    for _ in range(500):
        if threads:
            break
        await asyncio.sleep(0.01)
    assert len(threads) == 1
    assert threads != [here()]


# Giving up, seen by a client.


def site(policy):
    return DenyMiddlewareStack(require(policy)(accept))


async def test_an_async_policy_that_hangs_is_unavailable(settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.1}
    assert (await knock(site(AsyncCheck(lambda request: asyncio.sleep(60))), "/")).status == 503


async def test_an_async_policy_that_hangs_is_cancelled(settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.1}
    cancelled = []

    async def hang(request):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    await knock(site(AsyncCheck(hang)), "/")
    assert cancelled == [True]


async def test_the_time_of_several_layers_is_one(settings):
    """Wrappers that the look-ahead cannot see through, each before a policy that takes a while."""
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 1}

    async def be_slow(request):
        await asyncio.sleep(0.4)
        return True

    application = accept
    for _ in range(5):
        application = opaque(require(AsyncCheck(be_slow))(application))
    assert (await knock(DenyMiddlewareStack(application), "/")).status == 503


def opaque(application):
    async def wrapper(scope, receive, send):
        await application(scope, receive, send)

    return wrapper


async def test_the_time_of_the_application_is_not_the_policies(settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.5}

    async def be_slow(scope, receive, send):
        await asyncio.sleep(0.7)
        await require(AsyncCheck(lambda request: asyncio.sleep(0, True)))(accept)(scope, receive, send)

    assert (await knock(DenyMiddlewareStack(be_slow), "/")).status == 101


async def test_awaiting_what_somebody_else_cancelled_is_an_error():
    """Such as a fetch that several handshakes share, when the first of them leaves."""
    shared = asyncio.ensure_future(asyncio.sleep(60))

    async def wait(request):
        asyncio.get_running_loop().call_soon(shared.cancel)
        await shared

    answer = await knock(site(AsyncCheck(wait)), "/")
    assert (answer.status, answer.problem["code"]) == (500, "server_error")


async def test_an_application_that_awaits_what_somebody_else_cancelled_is_an_error():
    shared = asyncio.ensure_future(asyncio.sleep(60))

    async def wait(scope, receive, send):
        await receive()
        asyncio.get_running_loop().call_soon(shared.cancel)
        await shared

    assert (await knock(DenyMiddlewareStack(require(AllowAny())(wait)), "/")).status == 500


async def test_a_cancellation_that_a_synchronous_policy_raises_is_an_error():
    def cancel(request):
        raise asyncio.CancelledError

    assert (await knock(site(Check(cancel)), "/")).status == 500


async def test_a_denial_whose_stream_hangs_is_unavailable_and_closed(settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.1}
    closed = []

    class Stream(StreamingHttpResponse):
        def close(self):
            closed.append(True)
            super().close()

    async def chunks():
        yield b"a"
        await asyncio.sleep(60)

    async def deny(request):
        return Stream(chunks(), status=403)

    assert (await knock(site(AsyncCheck(deny)), "/")).status == 503
    gc.collect()
    assert closed == [True]


async def test_a_client_that_leaves_cancels_the_policy_that_it_waits_for():
    begun, cancelled = asyncio.Event(), []

    async def hang(request):
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def receive():
        return {"type": "websocket.connect"}

    sent = []

    async def send(message):
        sent.append(message)

    task = asyncio.ensure_future(site(AsyncCheck(hang))(websocket_scope("/"), receive, send))
    await begun.wait()
    task.cancel()
    await asyncio.wait({task})
    assert (task.cancelled(), cancelled, sent) == (True, [True], [])


# A combination's own check() and acheck() are driven as well.


class Both(Policy):
    """Tells by its answer which of its checks was asked."""

    def check(self, request):
        return True

    async def acheck(self, request):
        return False


class OnLoop(Policy):
    async def acheck(self, request):
        await asyncio.sleep(0)
        return True


def request():
    return HandshakeRequest(websocket_scope("/"))


def test_the_check_of_a_combination_can_be_called():
    assert (AllowAny() & OnLoop()).check(request()) is True


async def test_the_acheck_of_a_combination_can_be_awaited():
    assert await (AllowAny() & OnLoop()).acheck(request()) is True


def test_the_check_of_a_combination_says_why_it_denies():
    assert (OnLoop() & IsAuthenticated()).check(request()).status == 401


async def test_the_acheck_of_a_combination_says_why_it_denies():
    assert (await (OnLoop() & DenyAll()).acheck(request())).status == 403


async def test_a_policy_with_both_checks_is_awaited_on_the_loop():
    assert (await (AllowAny() & Both()).acheck(request())).status == 403


def test_a_policy_with_both_checks_is_called_in_a_thread():
    assert (AllowAny() & Both()).check(request()) is True
