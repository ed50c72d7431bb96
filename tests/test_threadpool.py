"""The pool: how many threads there are, which of them is used, and who is served first."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from channels_wsdeny import concurrency
from channels_wsdeny.concurrency import ThreadPool
from tests.support.clients import GUARD
from tests.support.processes import run_python
from tests.support.threads import Gate, until


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
