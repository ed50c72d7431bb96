"""Loans: who has the connection of a test's transaction, and that all is as it was in the end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.db import close_old_connections, connections

from channels_wsdeny.concurrency import hop
from channels_wsdeny.testing import WebsocketClient
from channels_wsdeny.testing.database import Loan

from .apps import accept

ROOT = Path(__file__).parents[2]


def here():
    """This thread, and its connection if there is one."""
    wrappers = connections.all(initialized_only=True)
    return threading.current_thread(), wrappers[0].connection if wrappers else None


@pytest.fixture
def own(db):
    """What the test's transaction is on: the database's connection, and Django's around it."""
    Group.objects.create(name="friends")
    wrapper = connections["default"]
    yield wrapper.connection, wrapper
    assert (wrapper._thread_sharing_count, wrapper.in_atomic_block) == (0, True)
    assert "close_if_unusable_or_obsolete" not in vars(wrapper)


async def test_the_thread_of_asynchronous_queries_borrows_the_connection(own):
    async with Loan() as loan:
        assert loan
        thread, borrowed = await sync_to_async(here)()
        assert thread is not threading.current_thread()
        assert borrowed is own[0]
        assert await Group.objects.acount() == 1


async def test_it_gets_back_what_it_had(own):
    before = await sync_to_async(here)()
    async with Loan():
        pass
    assert await sync_to_async(here)() == before


async def test_a_handshake_queries_there_as_well(own):
    async with Loan():
        assert await hop(here) == await sync_to_async(here)()


async def test_handshakes_query_in_the_pool_again_afterwards(own):
    async with Loan():
        pass
    thread, _ = await hop(here)
    assert thread.name == "wsdeny-pool"


async def test_a_borrowed_connection_is_not_closed_as_obsolete(own):
    async with Loan():
        await sync_to_async(close_old_connections)()
        assert await Group.objects.acount() == 1


async def test_a_borrowed_connection_is_the_owners_again(own):
    async with Loan():
        await Group.objects.acreate(name="more friends")
    asyncio._set_running_loop(None)
    assert Group.objects.count() == 2


async def test_the_last_of_several_loans_gives_back(own):
    first, second = Loan(), Loan()
    await first.__aenter__()
    await second.__aenter__()
    await first.__aexit__()
    assert (await sync_to_async(here)())[1] is own[0]
    await second.__aexit__()
    assert (await sync_to_async(here)())[1] is not own[0]


async def test_an_application_that_is_cancelled_gives_back(own):
    async def hang(scope, receive, send):
        await send(accept())
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        async with WebsocketClient(hang, timeout=0.5).connect("/ws/"):
            assert (await sync_to_async(here)())[1] is own[0]
    assert (await sync_to_async(here)())[1] is not own[0]


async def test_a_loan_that_is_cancelled_as_it_is_taken_is_given_back(own):
    busy = threading.Event()
    queries = asyncio.ensure_future(sync_to_async(busy.wait)(5))
    taking = asyncio.ensure_future(Loan().__aenter__())
    await asyncio.sleep(0.01)
    taking.cancel()
    busy.set()
    await asyncio.wait({queries, taking})
    assert taking.cancelled()
    assert (await sync_to_async(here)())[1] is not own[0]


async def test_without_a_transaction_nothing_is_lent():
    async with Loan() as loan:
        assert not loan
        thread, _ = await hop(here)
        assert thread.name == "wsdeny-pool"


@pytest.mark.django_db(transaction=True)
async def test_tests_that_commit_lend_nothing():
    async with Loan() as loan:
        assert not loan


def test_it_works_on_a_database_in_a_file(tmp_path):
    """Where another connection sees nothing of the test's transaction."""
    (tmp_path / "test_it.py").write_text(TEST_IT)
    command = [sys.executable, "-m", "pytest", "-q", "-c", "pyproject.toml", "--ds", "tests.testing.settings"]
    result = subprocess.run(
        [*command, "--rootdir", str(ROOT), "-p", "no:cacheprovider", str(tmp_path / "test_it.py")],
        cwd=ROOT,
        env={**_environment(), "TESTS_TESTING_DATABASE": str(tmp_path / "test.sqlite3")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "3 passed" in result.stdout, result.stdout


TEST_IT = """
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from channels_wsdeny.testing import WebsocketClient

@pytest.fixture
def alice(db):
    return get_user_model().objects.create_user("alice")

@pytest.mark.parametrize("path", ["/ws/members/", "/ws/sync/"])
async def test_a_socket_writes(path, alice):
    client = WebsocketClient()
    await client.aforce_login(alice, "django.contrib.auth.backends.ModelBackend")
    async with client.connect(path) as socket:
        await socket.send_json("friends")
        assert await socket.receive_json() == ["alice", 1]

@pytest.mark.django_db
async def test_all_is_rolled_back():
    assert await Group.objects.acount() == 0
"""


def _environment():
    import os

    return {**os.environ, "TESTPROJECT_DATABASE_NAME": "testproject_loans"}
