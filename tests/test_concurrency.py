"""The pool: handshakes side by side in a bounded set of threads, which is used, and what one that hangs costs."""

import asyncio
import contextvars
import gc
import sys
import threading
import weakref
from types import SimpleNamespace

import pytest
from asgiref.local import Local
from asgiref.sync import async_to_sync, sync_to_async
from django.utils import timezone, translation

from channels_wsdeny import concurrency
from channels_wsdeny.concurrency import ThreadPool, get_pool, run_coroutine, run_for_receivers, run_in_threadpool
from channels_wsdeny.policies import AllowAny
from tests.support.clients import GUARD, knock
from tests.support.policies import AsyncCheck, Check, accept, raising
from tests.support.processes import run_python
from tests.support.sockets import Server, guarded, no_task_left
from tests.support.threads import Gate, until


def allows(request):
    return True


class Note(Exception):
    pass


def raise_note():
    raise Note("raised")


@pytest.mark.parametrize("run", [run_in_threadpool, run_for_receivers])
async def test_results_and_exceptions_come_back_from_another_thread(run):
    assert await run(threading.get_ident) != threading.get_ident()
    for _ in range(3):
        with pytest.raises(Note, match="raised") as caught:
            await run(raise_note)
        assert caught.traceback[-1].name == "raise_note"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, StopIteration, GeneratorExit])
async def test_what_a_future_cannot_carry_or_would_end_the_server_is_a_runtime_error(error):
    with pytest.raises(RuntimeError, match=error.__name__):
        await run_in_threadpool(raising(error))


variable = contextvars.ContextVar("variable", default="unset")
local = Local()


async def test_contextvars_and_locals_go_there_and_back_and_reach_no_other_caller(settings):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1}

    def state():
        return variable.get(), local.tenant, translation.get_language(), timezone.get_current_timezone_name()

    def look():
        found = state()
        variable.set("theirs")
        local.tenant = "theirs"
        translation.activate("de")
        timezone.activate("Asia/Tokyo")
        return found

    async def visit(name):
        variable.set(name)
        local.tenant = name
        translation.activate("fr")
        timezone.activate("Europe/Paris")
        assert await run_in_threadpool(look) == (name, name, "fr", "Europe/Paris")
        assert state() == ("theirs", "theirs", "de", "Asia/Tokyo")

    await asyncio.gather(*(visit(str(number)) for number in range(20)))
    assert variable.get() == "unset"


def test_a_coroutine_that_has_to_wait_cannot_be_run_in_a_synchronous_caller():
    async def answers():
        return 7

    assert run_coroutine(answers()) == 7
    with pytest.raises(RuntimeError, match="had to wait in a synchronous caller"):
        run_coroutine(asyncio.sleep(0))


async def test_the_size_is_the_setting_and_a_change_loses_nothing(settings, gate):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 3}
    assert get_pool().size == 3
    assert get_pool() is get_pool()
    waiting = [asyncio.ensure_future(run_in_threadpool(gate)) for _ in range(5)]
    await until(lambda: gate.came == 3)
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 2}
    assert get_pool().size == 2
    assert await run_in_threadpool(lambda: 7) == 7
    gate.open()
    assert await asyncio.gather(*waiting) == [True] * 5


def change(request):
    request.session["color"] = "red"
    return True


async def test_handshakes_wait_neither_for_one_another_nor_for_the_thread_that_sockets_share(gate, settings):
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 8}
    threads, together = set(), threading.Barrier(8)
    shared = asyncio.ensure_future(sync_to_async(gate)())
    await until(lambda: gate.came)

    def look(request):
        threads.add(threading.get_ident())
        together.wait(GUARD)
        return True

    answers = await asyncio.gather(*(knock(guarded(Check(look), accept), "/") for _ in range(8)))
    assert {answer.status for answer in answers} == {101}
    answer = await knock(guarded(AsyncCheck(change), accept), "/")  # Saving the session takes a thread, too.
    assert (answer.status, bool(answer.header("set-cookie")), gate.left) == (101, True, 0)
    gate.open()
    await shared
    assert not threads & {threading.get_ident(), await sync_to_async(threading.get_ident)()}


async def test_a_policy_that_asks_another_one_in_its_thread_needs_no_second_thread(settings):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1}
    other = Check(allows) & AllowAny()
    policy = Check(lambda request: async_to_sync(other.acheck)(request))
    assert (await knock(guarded(policy, accept), "/")).status == 101


@pytest.fixture
async def full(settings, gate, monkeypatch):
    """The pool is full of a policy that hangs; handshakes that hang with it are ended with the test."""
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 2, "POLICY_TIMEOUT": 0.5}
    monkeypatch.setattr(get_pool(), "_replaced", 2)  # As many threads as may be: a slow machine would replace these.
    hung = [asyncio.ensure_future(knock(guarded(Check(gate), accept), "/")) for _ in range(2)]
    await until(lambda: gate.came == 2)
    yield hung
    gate.open()
    await asyncio.gather(*hung)


async def test_a_policy_that_hangs_costs_the_others_one_thread(settings, gate):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 2, "POLICY_TIMEOUT": GUARD}
    hung = asyncio.ensure_future(run_in_threadpool(gate))
    await until(lambda: gate.came)
    others = await asyncio.gather(*(knock(guarded(Check(allows), accept), "/") for _ in range(50)))
    assert ({answer.status for answer in others}, gate.left) == ({101}, 0)
    gate.open()
    await hung


async def test_those_who_wait_for_a_full_pool_are_unavailable_in_time_and_not_asked_about_any_more(full, gate):
    asked, requests, threads = [], [], threading.active_count()
    noting = AsyncCheck(lambda request: requests.append(weakref.ref(request)) is None)
    site = guarded(noting & Check(asked.append), accept)
    changing = guarded(AsyncCheck(change), accept)
    answers = await asyncio.gather(*(knock(site, "/") for _ in range(20)), knock(changing, "/"))
    assert {answer.status for answer in answers} == {503}
    assert answers[-1].header("set-cookie") is None
    assert threading.active_count() <= threads
    del answers
    await asyncio.sleep(0)
    gc.collect()
    gate.open()
    await until(lambda: gate.left == 2)
    await run_in_threadpool(lambda: None)
    assert asked == []


@pytest.mark.parametrize("then", [allows, lambda request: 1 / 0, lambda request: asyncio.sleep(0)])
async def test_a_policy_that_hangs_is_unavailable_and_nothing_is_reported_of_what_comes_too_late(then, settings, gate):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1, "POLICY_TIMEOUT": 0.5}
    async with no_task_left():
        policy = Check(lambda request: gate() and then(request))
        answer = await knock(guarded(policy, accept), "/")
        assert (answer.status, answer.problem["code"], bool(answer.header("retry-after"))) == (503, "unavailable", True)
        gate.open()
        await until(lambda: gate.left)
        await run_in_threadpool(lambda: None)  # It gives its thread back.
        await asyncio.sleep(0.01)
        gc.collect()


async def test_a_handshake_that_the_server_cancels_frees_its_place_in_the_queue(settings, gate):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1}
    asked, hung = [], asyncio.ensure_future(run_in_threadpool(gate))
    await until(lambda: gate.came)
    leaving = [Server().begin(guarded(Check(asked.append), accept)) for _ in range(20)]
    await until(lambda: len(get_pool()._waiting) == 20)
    for task in leaving:
        task.cancel()
    await asyncio.wait(leaving)
    assert not get_pool()._waiting
    gate.open()
    await hung
    await run_in_threadpool(lambda: None)
    assert asked == []


def test_several_loops_share_the_threads_and_one_that_closes_early_does_no_harm(settings, gate):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 2}
    results = {}

    async def work(number):
        results[number] = await asyncio.gather(*(run_in_threadpool(lambda n=n: (number, n)) for n in range(50)))

    async def abandon():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run_in_threadpool(gate), 0.05)

    asyncio.run(abandon())
    threads = [threading.Thread(target=asyncio.run, args=(work(number),)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(GUARD)
    assert results == {number: [(number, n) for n in range(50)] for number in range(5)}
    gate.open()
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1}
    assert len({asyncio.run(run_in_threadpool(threading.get_ident)) for _ in range(5)}) == 1


PROCESS = """
import asyncio, os, signal, threading, time, warnings
import django
django.setup()
from django.conf import settings
from tests.support.clients import knock
from tests.support.policies import Check, accept
from tests.support.sockets import guarded
settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 1, "POOL_SIZE": 1}
settings.LOGGING_CONFIG = None
began = threading.Event()
hangs = guarded(Check(lambda request: (began.set(), time.sleep(600))), accept)
answers = guarded(Check(lambda request: True), accept)

def status(site):
    return asyncio.run(knock(site, "/")).status

def in_a_child(site):
    warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, about forks and threads
    if os.fork() == 0:
        os.write(1, f"child {status(site)}\\n".encode())
        os._exit(0)
    os.wait()
"""
IN_A_CHILD = "; in_a_child(answers); print(status(answers))"
PROCESSES = {
    "it ends though a policy hangs": ("print(status(hangs))", "503"),
    "it ends on a signal while a policy hangs": (
        """
def interrupt():
    began.wait()
    time.sleep(0.3)  # asyncio misses a signal that comes just before it begins to wait.
    os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=interrupt).start()
settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 600}
try:
    status(hangs)
except KeyboardInterrupt:
    print("interrupted")
""",
        "interrupted",
    ),
    "a forked child has a pool of its own": ("status(answers)" + IN_A_CHILD, "child 101\n101"),
    "a child of a process whose pool is full, too": ("status(hangs)" + IN_A_CHILD, "child 101\n101"),
    "it is unavailable without a thread to give, and recovers": (
        """
import resource
limits = resource.getrlimit(resource.RLIMIT_AS)
threading.stack_size(1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (900 << 20, limits[1]))
print({status(answers) for _ in range(20)})
resource.setrlimit(resource.RLIMIT_AS, limits)
threading.stack_size(0)
print(status(answers))
""",
        "{503}\n101",
    ),
}


@pytest.mark.servers
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and limits the memory as only Linux does")
@pytest.mark.parametrize(("code", "output"), PROCESSES.values(), ids=PROCESSES)
def test_a_process(code, output):
    printed, errors = run_python(PROCESS + code, settings="testproject.settings")
    assert printed == output, errors
    assert "Fatal" not in errors


@pytest.fixture
def clock(monkeypatch):
    """The clock of the pool, which the test sets."""
    now = [1000.0]
    monkeypatch.setattr(concurrency, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def submit(pool, function, *args):
    return asyncio.wrap_future(pool.submit(function, *args))


async def test_there_are_as_many_threads_as_are_needed_and_never_more_than_the_size():
    pool, together = ThreadPool(4), threading.Barrier(4)
    one = {await submit(pool, threading.get_ident) for _ in range(20)}
    assert len(one) == 1  # With one database connection.
    idents = await asyncio.gather(
        *(submit(pool, lambda: (together.wait(GUARD), threading.get_ident())[1]) for _ in range(40))
    )
    assert one < set(idents)
    assert len(set(idents)) == 4


async def test_functions_are_run_in_the_order_in_which_they_came_but_for_those_given_up(gate):
    pool, order = ThreadPool(1), []
    first = submit(pool, gate)
    await until(lambda: gate.came)
    rest = [submit(pool, order.append, number) for number in range(9)]
    rest[4].cancel()
    await asyncio.sleep(0)  # The loop passes the cancellation on to the pool.
    gate.open()
    await asyncio.gather(first, *rest, return_exceptions=True)
    assert order == [0, 1, 2, 3, 5, 6, 7, 8]


async def test_once_the_oldest_has_waited_long_the_newest_is_served_first(gate, settings, clock):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 4}
    pool, order = ThreadPool(1), []
    first = submit(pool, gate)
    await until(lambda: gate.came)
    rest = [submit(pool, order.append, number) for number in range(4)]
    clock[0] += 1.1
    rest += [submit(pool, order.append, number) for number in range(4, 6)]
    gate.open()
    await asyncio.gather(first, *rest)
    assert order == [5, 4, 3, 2, 1, 0]


async def test_the_thread_that_was_used_last_is_used_next(gate):
    pool = ThreadPool(4)
    waiting = [submit(pool, gate) for _ in range(4)]
    await until(lambda: gate.came == 4)
    gate.open()
    await asyncio.gather(*waiting)
    assert len({await submit(pool, threading.get_ident) for _ in range(20)}) == 1


async def test_a_thread_that_hangs_is_replaced_up_to_a_bound_and_the_log_shows_where(settings, clock, caplog):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 4}
    pool, gates = ThreadPool(2), [Gate() for _ in range(6)]
    hung = [submit(pool, gate) for gate in gates[:2]]
    await until(lambda: all(gate.came for gate in gates[:2]))
    clock[0] += 4.1
    assert await submit(pool, lambda: 7) == 7
    assert [record.getMessage().count("assert self._open.wait(GUARD)") for record in caplog.records] == [1]
    hung += [submit(pool, gate) for gate in gates[2:4]]
    await until(lambda: all(gate.came for gate in gates[:4]))
    clock[0] += 4.1
    late = submit(pool, lambda: 8)
    assert len(caplog.records) == 2  # As many as the pool has threads, and no more.
    gates[0].open()  # Its thread ends, and is not used any more.
    await hung[0]
    await until(lambda: pool._replaced == 1)
    assert not late.done()
    assert await submit(pool, lambda: 9) == 9
    assert await late == 8
    for gate in gates:
        gate.open()
    await asyncio.gather(*hung)


IDLE = """
import threading
import django
django.setup()
from django.db import connections
from channels_wsdeny.concurrency import ThreadPool
from channels_wsdeny.db import seconds_until_close

closed = threading.Event()

def query():
    connection = connections["default"]
    connection.settings_dict["CONN_MAX_AGE"] = 0.05
    connection.cursor().execute("SELECT 1")
    close = connection.close
    connection.close = lambda: (close(), closed.set())

pool = ThreadPool(1)
pool.submit(query).result()
print(closed.is_set(), closed.wait(30), pool.submit(seconds_until_close).result())
"""


@pytest.mark.servers
def test_an_idle_thread_closes_its_connection_by_its_age():
    assert run_python(IDLE, settings="testproject.settings") == ("False True None", "")
