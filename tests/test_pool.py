"""The pool: handshakes side by side in a bounded set of threads, and what a hung one costs the others."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.utils import timezone, translation

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.concurrency import Pool, get_pool, hop
from channels_wsdeny.decorators import require
from channels_wsdeny.policies import AllowAny, IsAuthenticated, IsStaff, Policy, UserPassesTest
from tests.clients import knock, websocket_scope
from tests.parts import Check, accept

ROOT = Path(__file__).parent.parent


def site(function, app=accept):
    return DenyMiddlewareStack(require(Check(function))(app))


class Gate:
    """Holds whoever calls it until it is opened, and counts who came and who left."""

    def __init__(self):
        self._open = threading.Event()
        self.came = self.left = 0

    def __call__(self, *args):
        self.came += 1
        if not self._open.wait(30):
            raise AssertionError("The gate was not opened.")
        self.left += 1
        return True

    def open(self):
        self._open.set()


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def make_pool():
    """A function to a pool of its own, which ends with the test."""
    pools = []

    def make_pool(size):
        pools.append(Pool(size))
        return pools[-1]

    yield make_pool
    for pool in pools:
        pool.close()


async def until(condition):
    """Wait until `condition()` holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def threads_of_pools():
    return [thread for thread in threading.enumerate() if thread.name == "wsdeny-pool"]


# What comes back.


async def test_a_function_runs_in_another_thread():
    assert await hop(threading.get_ident) != threading.get_ident()


async def test_what_it_returns_comes_back():
    assert await hop(lambda: 7) == 7


class Note(Exception):
    pass


async def test_what_it_raises_comes_back_with_its_type():
    def fail():
        raise Note("raised")

    with pytest.raises(Note, match="raised"):
        await hop(fail)


async def test_what_it_raises_comes_back_with_its_traceback():
    def a_telling_name():
        raise Note

    with pytest.raises(Note) as caught:
        await hop(a_telling_name)
    assert caught.traceback[-1].name == "a_telling_name"


async def test_a_system_exit_does_not_end_the_server():
    with pytest.raises(RuntimeError, match="SystemExit"):
        await hop(lambda: sys.exit(3))


async def test_the_thread_goes_on_after_an_exception(make_pool):
    pool = make_pool(1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda: 1 / 0)
    assert await pool.run(lambda: 7) == 7


variable = contextvars.ContextVar("variable", default="unset")


async def test_it_sees_the_callers_contextvars():
    variable.set("set")
    assert await hop(variable.get) == "set"


async def test_the_caller_sees_contextvars_that_were_set_there():
    variable.set("mine")
    await hop(lambda: variable.set("theirs"))
    assert variable.get() == "theirs"


async def test_it_sees_nobody_elses_contextvars(make_pool):
    pool = make_pool(1)

    async def visit(name):
        variable.set(name)
        return await pool.run(variable.get)

    names = [str(number) for number in range(20)]
    assert await asyncio.gather(*map(visit, names)) == names


def test_a_policy_sees_what_was_put_into_a_contextvar_before():
    inner = site(lambda request: variable.get() == "set")

    async def application(scope, receive, send):
        variable.set("set")
        await inner(scope, receive, send)

    assert asyncio.run(knock(application, "/")).status == 101


def test_a_policy_leaves_its_language_and_time_zone_to_nobody(settings):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1}
    found = []

    def change(request):
        found.append((translation.get_language(), timezone.get_current_timezone_name()))
        translation.activate("de")
        timezone.activate("Asia/Tokyo")
        return True

    for _ in range(2):
        assert asyncio.run(knock(site(change), "/")).status == 101
    assert found[0] == found[1]


# How many threads there are.


async def test_threads_are_started_as_they_are_needed(make_pool):
    pool = make_pool(50)
    before = set(threads_of_pools())
    for _ in range(50):
        await pool.run(time.monotonic)
        await asyncio.sleep(0.002)  # for the thread to come back
    assert len(set(threads_of_pools()) - before) < 10


async def test_there_are_never_more_threads_than_the_size(make_pool):
    running, most = set(), 0

    def work():
        nonlocal most
        running.add(threading.get_ident())
        most = max(most, len(running))
        time.sleep(0.001)
        running.discard(threading.get_ident())

    pool = make_pool(4)
    await asyncio.gather(*(pool.run(work) for _ in range(200)))
    assert 1 < most <= 4


async def test_all_places_are_used(make_pool):
    everybody = threading.Barrier(8)
    pool = make_pool(8)
    await asyncio.gather(*(pool.run(lambda: everybody.wait(20)) for _ in range(8)))


async def test_jobs_are_taken_in_the_order_they_came(make_pool, gate):
    pool, order = make_pool(1), []
    first = asyncio.ensure_future(pool.run(gate))
    await until(lambda: gate.came)
    rest = [
        asyncio.ensure_future(pool.run(lambda number=number: order.append(number))) for number in range(9)
    ]
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(first, *rest)
    assert order == list(range(9))


async def test_a_closed_pool_ends_its_threads(make_pool):
    before = set(threads_of_pools())
    pool = make_pool(3)
    everybody = threading.Barrier(3)
    await asyncio.gather(*(pool.run(lambda: everybody.wait(20)) for _ in range(3)))
    started = set(threads_of_pools()) - before
    assert len(started) == 3
    pool.close()
    await until(lambda: not any(thread.is_alive() for thread in started))


async def test_a_closed_pool_finishes_what_waits(make_pool, gate):
    pool = make_pool(1)
    first = asyncio.ensure_future(pool.run(gate))
    await until(lambda: gate.came)
    second = asyncio.ensure_future(pool.run(lambda: 7))
    await asyncio.sleep(0)
    pool.close()
    gate.open()
    assert await second == 7
    await first


async def test_a_closed_pool_still_runs_what_comes_late(make_pool):
    pool = make_pool(1)
    pool.close()
    assert await pool.run(lambda: 7) == 7


async def test_the_size_is_the_setting(settings):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 3}
    assert get_pool().size == 3


async def test_a_changed_setting_makes_another_pool(settings):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 2}
    first = get_pool()
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 3}
    assert get_pool() is not first
    assert await hop(lambda: 7) == 7


async def test_an_unchanged_setting_keeps_the_pool():
    assert get_pool() is get_pool()


async def test_a_changed_setting_ends_the_threads_that_were(settings):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 2}
    thread = await hop(threading.current_thread)
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 3}
    get_pool()
    await until(lambda: not thread.is_alive())


async def test_a_changed_setting_loses_no_job(settings, gate):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1}
    jobs = [asyncio.ensure_future(hop(gate)) for _ in range(3)]
    await until(lambda: gate.came)
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 2}
    assert await hop(lambda: 7) == 7
    gate.open()
    assert await asyncio.gather(*jobs) == [True] * 3


# Side by side.


async def test_handshakes_run_several_times_faster_at_once_than_one_by_one():
    def slow(request):
        time.sleep(0.02)
        return True

    application = site(slow)
    start = time.perf_counter()
    for _ in range(20):
        assert (await knock(application, "/")).status == 101
    one_by_one = (time.perf_counter() - start) * 500 / 20
    start = time.perf_counter()
    answers = await asyncio.gather(*(knock(application, "/") for _ in range(500)))
    at_once = time.perf_counter() - start
    assert {answer.status for answer in answers} == {101}
    assert at_once * 3 < one_by_one


async def test_a_policy_never_runs_in_the_thread_that_sockets_share():
    threads = set()

    def look(request):
        threads.add(threading.get_ident())
        return True

    application = site(look)
    await asyncio.gather(*(knock(application, "/") for _ in range(50)))
    assert await sync_to_async(threading.get_ident)() not in threads
    assert threading.get_ident() not in threads


async def test_a_policy_does_not_wait_for_the_thread_that_sockets_share(gate):
    busy = asyncio.ensure_future(sync_to_async(gate)())
    await until(lambda: gate.came)
    assert (await knock(site(lambda request: True), "/")).status == 101
    assert gate.left == 0
    gate.open()
    await busy


async def test_a_session_is_not_saved_in_the_thread_that_sockets_share(gate, settings):
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"

    async def change(scope, receive, send):
        scope["session"]["color"] = "red"
        await accept(scope, receive, send)

    busy = asyncio.ensure_future(sync_to_async(gate)())
    await until(lambda: gate.came)
    answer = await knock(DenyMiddlewareStack(require(AllowAny())(change)), "/")
    assert (answer.status, gate.left) == (101, 0)
    assert answer.header("set-cookie")
    gate.open()
    await busy


# A policy that hangs.


@pytest.fixture
def hasty(settings):
    """Settings for tests in which a policy hangs: two places, and little patience."""
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 2, "POLICY_TIMEOUT": 0.3}


async def test_a_policy_that_hangs_is_unavailable(hasty, gate):
    answer = await knock(site(gate), "/")
    assert (answer.status, answer.problem["code"]) == (503, "unavailable")
    assert answer.header("retry-after")


async def test_a_policy_that_hangs_costs_the_others_one_place(settings, gate):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 2, "POLICY_TIMEOUT": 30}
    hung = asyncio.ensure_future(hop(gate))
    await until(lambda: gate.came)
    others = await asyncio.gather(*(knock(site(lambda request: True), "/") for _ in range(50)))
    assert {answer.status for answer in others} == {101}
    assert gate.left == 0
    gate.open()
    await hung


async def test_a_policy_that_hung_gives_its_place_back_when_it_ends(settings, gate):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1, "POLICY_TIMEOUT": 0.2}
    assert (await knock(site(gate), "/")).status == 503
    gate.open()
    await until(lambda: gate.left)
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1, "POLICY_TIMEOUT": 10}
    assert (await knock(site(lambda request: True), "/")).status == 101


async def test_what_a_policy_says_too_late_counts_for_nothing(hasty, gate):
    reached = []

    async def reach(scope, receive, send):
        reached.append(scope)
        await accept(scope, receive, send)

    assert (await knock(site(gate, reach), "/")).status == 503
    gate.open()
    await until(lambda: gate.left)
    await asyncio.sleep(0.05)
    assert reached == []


async def test_a_full_pool_is_unavailable_in_time(hasty, gate):
    hung = [asyncio.ensure_future(knock(site(gate), "/")) for _ in range(2)]
    await until(lambda: gate.came == 2)
    start = time.perf_counter()
    answers = await asyncio.gather(*(knock(site(lambda request: True), "/") for _ in range(20)))
    assert {answer.status for answer in answers} == {503}
    assert time.perf_counter() - start < 5
    assert {answer.status for answer in await asyncio.gather(*hung)} == {503}


async def test_who_gave_up_waiting_for_a_place_is_not_asked_about_any_more(hasty, gate):
    asked = []
    hung = [asyncio.ensure_future(knock(site(gate), "/")) for _ in range(2)]
    await until(lambda: gate.came == 2)
    answers = await asyncio.gather(*(knock(site(asked.append), "/") for _ in range(20)))
    assert {answer.status for answer in answers} == {503}
    gate.open()
    await asyncio.gather(*hung)
    await hop(lambda: None)
    assert asked == []


async def test_a_full_pool_starts_no_threads(hasty, gate):
    hung = [asyncio.ensure_future(knock(site(gate), "/")) for _ in range(2)]
    await until(lambda: gate.came == 2)
    before = threading.active_count()
    await asyncio.gather(*(knock(site(lambda request: True), "/") for _ in range(20)))
    assert threading.active_count() <= before
    await asyncio.gather(*hung)


@pytest.fixture
def silence():
    """No log records, which carry requests."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def test_a_full_pool_keeps_nobody_who_gave_up(hasty, gate, silence):
    """Handshakes that gave up are garbage, even while the pool is full."""
    requests = []

    class Noting(Policy):
        async def acheck(self, request):
            requests.append(weakref.ref(request))
            return True

    hung = [asyncio.ensure_future(knock(site(gate), "/")) for _ in range(2)]
    await until(lambda: gate.came == 2)
    application = DenyMiddlewareStack(require(Noting() & Check(lambda request: True))(accept))
    await asyncio.gather(*(knock(application, "/") for _ in range(20)))
    gc.collect()
    assert len(requests) == 20
    assert [request for request in requests if request() is not None] == []
    await asyncio.gather(*hung)


async def test_a_changed_session_does_not_wait_for_a_full_pool_without_end(hasty, gate):
    async def change(scope, receive, send):
        scope["session"]["color"] = "red"
        await accept(scope, receive, send)

    hung = [asyncio.ensure_future(knock(site(gate), "/")) for _ in range(2)]
    await until(lambda: gate.came == 2)
    answer = await knock(DenyMiddlewareStack(require(AllowAny())(change)), "/")
    assert (answer.status, answer.header("set-cookie")) == (503, None)
    await asyncio.gather(*hung)


async def test_a_full_pool_is_waited_for_once(settings, gate):
    """A session that an earlier policy changed is not saved with a 5xx, so nothing waits again."""
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1, "POLICY_TIMEOUT": 1}

    class Change(Policy):
        async def acheck(self, request):
            request.session["color"] = "red"
            return True

    hung = asyncio.ensure_future(hop(gate))
    await until(lambda: gate.came)
    application = DenyMiddlewareStack(require(Change() & Check(lambda request: True))(accept))
    start = time.perf_counter()
    assert (await knock(application, "/")).status == 503
    assert time.perf_counter() - start < 1.9
    gate.open()
    await hung


async def test_a_policy_that_asks_another_one_needs_no_second_place(settings):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1}
    other = Check(lambda request: True) & AllowAny()
    answer = await knock(site(lambda request: async_to_sync(other.acheck)(request)), "/")
    assert answer.status == 101


async def test_built_in_policies_need_no_place_for_anonymous_visitors(hasty, gate):
    hung = [asyncio.ensure_future(knock(site(gate), "/")) for _ in range(2)]
    await until(lambda: gate.came == 2)
    assert (await knock(DenyMiddlewareStack(accept), "/")).status == 401
    assert gate.left == 0
    await asyncio.gather(*hung)


# Giving up.


async def test_who_leaves_while_waiting_frees_the_place_in_the_queue(make_pool, gate):
    pool, ran = make_pool(1), []
    first = asyncio.ensure_future(pool.run(gate))
    await until(lambda: gate.came)
    second = asyncio.ensure_future(pool.run(lambda: ran.append(True)))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait({second})
    assert second.cancelled()
    gate.open()
    await first
    await pool.run(lambda: None)
    assert ran == []


async def test_who_leaves_while_it_runs_leaves_the_thread_to_end_by_itself(make_pool, gate):
    pool = make_pool(1)
    job = asyncio.ensure_future(pool.run(gate))
    await until(lambda: gate.came)
    job.cancel()
    await asyncio.wait({job})
    assert job.cancelled()
    gate.open()
    assert await pool.run(lambda: 7) == 7
    assert gate.left == 1


@pytest.mark.parametrize("ending", ["returns", "raises"])
async def test_nothing_is_said_about_what_comes_too_late(ending, make_pool, gate):
    """No "exception was never retrieved", no "coroutine was never awaited": warnings are errors here."""
    said = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context))

    def work():
        gate()
        if ending == "raises":
            raise Note
        return 7

    pool = make_pool(1)
    job = asyncio.ensure_future(pool.run(work))
    await until(lambda: gate.came)
    job.cancel()
    await asyncio.wait({job})
    gate.open()
    await pool.run(lambda: None)
    del job
    await asyncio.sleep(0.01)
    gc.collect()
    assert said == []


async def test_nothing_is_said_about_a_handshake_that_is_abandoned(hasty, gate):
    said = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context))

    class Later(Policy):
        async def acheck(self, request):
            raise AssertionError("Nobody waits for this answer.")

    application = DenyMiddlewareStack(require(Check(gate) & Later())(accept))
    assert (await knock(application, "/")).status == 503
    gate.open()
    await until(lambda: gate.left)
    await hop(lambda: None)
    await asyncio.sleep(0.01)
    gc.collect()
    assert said == []


async def test_nothing_is_said_about_a_coroutine_that_comes_too_late(hasty, gate):
    """A synchronous function that returns an awaitable, when nobody is left to await it."""

    async def answer():
        return True

    def test(user):
        gate()
        return answer()

    application = DenyMiddlewareStack(require(UserPassesTest(test))(accept))
    assert (await knock(application, "/")).status == 503
    gate.open()
    await until(lambda: gate.left)
    await hop(lambda: None)
    await asyncio.sleep(0.01)
    gc.collect()


async def test_a_handshake_whose_client_leaves_frees_its_place_in_the_queue(settings, gate):
    """A server that cancels the application of a client that left."""
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1}
    asked = []
    hung = asyncio.ensure_future(hop(gate))
    await until(lambda: gate.came)
    application = site(asked.append)

    async def receive():
        return {"type": "websocket.connect"}

    leaving = [
        asyncio.ensure_future(application(websocket_scope("/"), receive, asked.append)) for _ in range(20)
    ]
    await asyncio.sleep(0.05)
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    gate.open()
    await hung
    await hop(lambda: None)
    assert asked == []


async def test_an_idle_thread_holds_nothing_of_the_last_request():
    requests = []

    def look(request):
        requests.append(weakref.ref(request))
        return True

    await knock(site(look), "/")
    await until(lambda: gc.collect() is not None and requests[0]() is None)


def test_handshakes_leave_nothing_behind(users, headers_of, silence, settings):
    """No task, no thread, and not one object each."""
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 2}
    applications = [
        site(lambda request: True),
        site(lambda request: False),
        site(lambda request: 1 / 0),
        DenyMiddlewareStack(require(IsAuthenticated())(accept)),
        DenyMiddlewareStack(require(IsStaff())(accept)),
    ]
    headers = [headers_of("alice"), []]

    async def come_and_go(times):
        for _ in range(times):
            for application in applications:
                for header in headers:
                    await knock(application, "/", headers=header)
        return len(asyncio.all_tasks())

    async_to_sync(come_and_go)(10)
    gc.collect()
    objects, threads = len(gc.get_objects()), len(threads_of_pools())
    assert async_to_sync(come_and_go)(100) <= 2
    gc.collect()
    assert len(gc.get_objects()) - objects < 500  # of a thousand handshakes
    assert len(threads_of_pools()) <= threads + 2


# Several loops, forks, and the end of the process.


def test_several_loops_share_the_pool(settings):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 2}
    failures = []

    def run(number):
        async def work():
            answers = await asyncio.gather(*(hop(lambda n=n: (number, n)) for n in range(50)))
            if answers != [(number, n) for n in range(50)]:
                failures.append(answers)

        asyncio.run(work())

    threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failures == []
    assert len(get_pool_threads_of(2)) <= 2


def get_pool_threads_of(size):
    """The threads that the pool of the process has now, idle ones of older pools left out."""
    assert get_pool().size == size

    async def idents():
        return await asyncio.gather(*(hop(threading.get_ident) for _ in range(50)))

    return set(asyncio.run(idents()))


def test_one_loop_after_another_uses_the_same_threads(settings):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1}
    assert len({asyncio.run(hop(threading.get_ident)) for _ in range(5)}) == 1


def test_a_loop_that_closes_before_its_job_ends_does_no_harm(settings, gate):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1}

    async def abandon():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hop(gate), 0.1)

    asyncio.run(abandon())
    gate.open()
    assert asyncio.run(hop(lambda: 7)) == 7


PROCESS = """
    import asyncio, os, signal, sys, threading, time

    os.environ["DJANGO_SETTINGS_MODULE"] = "testproject.settings"
    import django
    django.setup()
    from channels_wsdeny import DenyMiddlewareStack
    from channels_wsdeny.decorators import require
    from channels_wsdeny.policies import Policy
    from channels_wsdeny.concurrency import hop
    from django.conf import settings
    from tests.clients import knock

    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.2}
    began = threading.Event()

    class Hangs(Policy):
        def check(self, request):
            began.set()
            time.sleep(600)

    class Answers(Policy):
        def check(self, request):
            return True

    async def accept(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    def site(policy):
        return DenyMiddlewareStack(require(policy)(accept))

    def say(*words):
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""


def process(code):
    """A Python process of its own, which runs `code`."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(PROCESS) + textwrap.dedent(code)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ends(running, timeout=30):
    """The exit code, the output and the errors of a process that must end by itself."""
    try:
        out, err = running.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        running.kill()
        out, err = running.communicate()
        pytest.fail(f"The process does not end.\n{out}\n{err}")
    return running.returncode, out, err


def test_a_process_ends_though_a_policy_hangs():
    code, out, err = ends(process("say(asyncio.run(knock(site(Hangs()), '/')).status)"))
    assert (code, out) == (0, "503\n"), err
    assert "Fatal" not in err


def test_a_process_ends_on_sigterm_though_a_policy_hangs():
    with process(
        """
        async def serve():
            stop = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
            say((await knock(site(Hangs()), "/")).status)
            await stop.wait()
            say("stopped")

        asyncio.run(serve())
        """
    ) as running:
        assert running.stdout.readline() == "503\n"
        running.send_signal(signal.SIGTERM)
        code, out, err = ends(running)
    assert (code, out) == (0, "stopped\n"), err


def test_a_process_ends_on_sigint_while_a_policy_hangs():
    with process(
        """
        def tell():
            began.wait()
            say("hangs")

        signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's background job ignores it.
        threading.Thread(target=tell).start()
        settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 600}
        try:
            asyncio.run(knock(site(Hangs()), "/"))
        except KeyboardInterrupt:
            say("interrupted")
        """
    ) as running:
        assert running.stdout.readline() == "hangs\n"
        time.sleep(0.3)  # asyncio misses a signal that comes just before it begins to wait.
        running.send_signal(signal.SIGINT)
        code, out, err = ends(running)
    assert (code, out) == (0, "interrupted\n"), err


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as only Linux does")
def test_a_process_that_has_no_thread_to_give_is_unavailable_and_recovers():
    code, out, err = ends(
        process(
            """
            import resource

            async def main():
                limits = resource.getrlimit(resource.RLIMIT_AS)
                threading.stack_size(1 << 30)
                resource.setrlimit(resource.RLIMIT_AS, (900 << 20, limits[1]))
                for _ in range(40):
                    answer = await knock(site(Answers()), "/")
                    assert answer.status == 503, answer
                resource.setrlimit(resource.RLIMIT_AS, limits)
                threading.stack_size(0)
                say((await knock(site(Answers()), "/")).status)

            asyncio.run(main())
            """
        ),
        timeout=60,
    )
    assert (code, out) == (0, "101\n"), err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
def test_a_forked_child_has_a_pool_of_its_own():
    code, out, err = ends(
        process(
            """
            import warnings
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, about fork and threads
            asyncio.run(hop(lambda: None))
            pid = os.fork()
            if pid == 0:
                say(asyncio.run(knock(site(Answers()), "/")).status)
                os._exit(0)
            os.waitpid(pid, 0)
            say(asyncio.run(knock(site(Answers()), "/")).status)
            """
        )
    )
    assert (code, out) == (0, "101\n101\n"), err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
def test_a_child_that_is_forked_while_the_pool_is_full_has_a_pool_of_its_own():
    code, out, err = ends(
        process(
            """
            import warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.2, "POOL_SIZE": 1}
            asyncio.run(knock(site(Hangs()), "/"))
            pid = os.fork()
            if pid == 0:
                say(asyncio.run(knock(site(Answers()), "/")).status)
                os._exit(0)
            os.waitpid(pid, 0)
            say(asyncio.run(knock(site(Answers()), "/")).status)
            """
        )
    )
    assert (code, out) == (0, "101\n503\n"), err
