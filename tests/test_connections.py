"""Database connections of the pool's threads: cleaned up, and in tests the test's own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import time
import unittest
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from channels.generic.websocket import WebsocketConsumer
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.db import IntegrityError, connection, connections, transaction
from django.test import Client, TestCase, TransactionTestCase

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.concurrency import hop
from channels_wsdeny.decorators import require
from channels_wsdeny.policies import HasPermission, IsAuthenticated
from tests.clients import cookie_header, knock
from tests.parts import Check, accept

ROOT = Path(__file__).parent.parent

in_memory = pytest.mark.skipif(
    connection.vendor != "sqlite", reason="a handshake sees a test's transaction in in-memory SQLite only"
)


def site(policy, app=accept):
    return DenyMiddlewareStack(require(policy)(app))


def headers_of_a_log_in(user):
    client = Client()
    client.force_login(user)
    return cookie_header(**{name: morsel.value for name, morsel in client.cookies.items()})


def count_users(request=None):
    return get_user_model().objects.count()


# Under pytest-django, in a transaction that is never committed.


@in_memory
def test_a_handshake_sees_what_a_sync_test_has_not_committed(users, headers_of):
    assert connection.in_atomic_block
    answer = async_to_sync(knock)(site(IsAuthenticated()), "/", headers=headers_of("alice"))
    assert answer.status == 101


@in_memory
async def test_a_handshake_sees_what_an_async_test_has_not_committed(users, headers_of):
    answer = await knock(site(IsAuthenticated()), "/", headers=headers_of("alice"))
    assert answer.status == 101


@in_memory
def test_a_sync_test_sees_what_a_handshake_wrote(db):
    def write(request):
        get_user_model().objects.create_user("carol")
        return True

    assert async_to_sync(knock)(site(Check(write)), "/").status == 101
    assert get_user_model().objects.filter(username="carol").exists()


@in_memory
async def test_an_async_test_sees_what_a_handshake_wrote(db):
    def write(request):
        get_user_model().objects.create_user("carol")
        return True

    assert (await knock(site(Check(write)), "/")).status == 101
    assert await hop(count_users) == 1


@in_memory
@pytest.mark.parametrize("name", ["carol", "dave"])
def test_what_a_handshake_wrote_is_gone_in_the_next_test(name, db):
    assert count_users() == 0
    async_to_sync(hop)(lambda: get_user_model().objects.create_user(name))


@in_memory
@pytest.mark.django_db(transaction=True)
def test_a_handshake_sees_what_a_sync_test_has_committed():
    headers = headers_of_a_log_in(get_user_model().objects.create_user("carol"))
    assert not connection.in_atomic_block
    assert async_to_sync(knock)(site(IsAuthenticated()), "/", headers=headers).status == 101


@pytest.fixture
def headers_of_carol(transactional_db):
    return headers_of_a_log_in(get_user_model().objects.create_user("carol"))


@in_memory
async def test_a_handshake_sees_what_an_async_test_has_committed(headers_of_carol):
    assert (await knock(site(IsAuthenticated()), "/", headers=headers_of_carol)).status == 101


@in_memory
def test_a_handshake_and_its_consumer_see_the_same(users, headers_of):
    found = []

    class Count(WebsocketConsumer):
        def connect(self):
            found.append(count_users())
            self.accept()

    def count(request):
        found.append(count_users())
        return True

    answer = async_to_sync(knock)(site(Check(count), Count.as_asgi()), "/", headers=headers_of("alice"))
    assert (answer.status, found) == (101, [3, 3])


@in_memory
def test_a_transaction_that_a_policy_rolls_back_leaves_the_tests_own_alone(users):
    def fail(request):
        try:
            with transaction.atomic():
                get_user_model().objects.create_user("carol")
                get_user_model().objects.create_user("alice")
        except IntegrityError:
            return False

    assert async_to_sync(knock)(site(Check(fail)), "/").status == 403
    assert count_users() == 3


@in_memory
def test_the_tests_connection_stays_open(users, headers_of):
    before = connection.connection
    for _ in range(3):
        async_to_sync(knock)(site(HasPermission("auth.x")), "/", headers=headers_of("alice"))
    assert connection.connection is before
    assert connection.is_usable()


@in_memory
@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
def test_the_tests_connection_is_its_own_again(fails, db):
    def look(request):
        count_users()
        assert not fails
        return True

    assert connection.allow_thread_sharing is False
    async_to_sync(knock)(site(Check(look)), "/")
    assert connection.allow_thread_sharing is False


@in_memory
def test_a_thread_has_the_tests_connection_while_it_works(db):
    assert async_to_sync(hop)(lambda: connections["default"]) is connections["default"]


@in_memory
def test_sessions_that_are_saved_at_once_do_not_mix(users, headers_of):
    async def change(scope, receive, send):
        scope["session"]["color"] = "red"
        await accept(scope, receive, send)

    application = site(Check(lambda request: True), change)

    async def all_at_once():
        return await asyncio.gather(*(knock(application, "/") for _ in range(50)))

    answers = async_to_sync(all_at_once)()
    assert {answer.status for answer in answers} == {101}
    assert len({answer.header("set-cookie") for answer in answers}) == 50


@in_memory
def test_nobody_is_taken_for_another_when_many_come_at_once(users, headers_of):
    def is_who_it_says(request):
        return request.user.get_username() == request.headers["x-name"]

    application = site(Check(is_who_it_says))
    headers = [[*headers_of(name), (b"x-name", name.encode())] for name in users]

    async def all_at_once():
        visitors = (knock(application, "/", headers=header) for _ in range(50) for header in headers)
        return await asyncio.gather(*visitors)

    assert {answer.status for answer in async_to_sync(all_at_once)()} == {101}


async def test_a_test_without_a_database_asks_policies_that_need_none():
    assert (await knock(site(Check(lambda request: True)), "/")).status == 101


async def test_a_test_without_a_database_gets_none_through_a_handshake():
    assert (await knock(site(Check(count_users)), "/")).status == 500


# Under Django's own test cases.


@unittest.skipIf(connection.vendor != "sqlite", "a handshake sees a TestCase's data in in-memory SQLite only")
class InATestCase(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.carol = get_user_model().objects.create_user("carol")

    def setUp(self):
        self.headers = headers_of_a_log_in(self.carol)

    def test_a_handshake_sees_the_data(self):
        answer = async_to_sync(knock)(site(IsAuthenticated()), "/", headers=self.headers)
        assert answer.status == 101

    async def test_a_handshake_of_a_coroutine_sees_the_data(self):
        assert (await knock(site(IsAuthenticated()), "/", headers=self.headers)).status == 101

    def test_a_handshake_of_nobody_is_denied(self):
        assert async_to_sync(knock)(site(IsAuthenticated()), "/").status == 401


class InATransactionTestCase(TransactionTestCase):
    def setUp(self):
        self.headers = headers_of_a_log_in(get_user_model().objects.create_user("carol"))

    def test_a_handshake_sees_the_data(self):
        answer = async_to_sync(knock)(site(IsAuthenticated()), "/", headers=self.headers)
        assert answer.status == 101

    async def test_a_handshake_of_a_coroutine_sees_the_data(self):
        assert (await knock(site(IsAuthenticated()), "/", headers=self.headers)).status == 101


# Outside of tests: a process with a database of its own.

PROCESS = """
    import asyncio, json, sys, threading, time
    import django
    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.db import connection, connections
    from django.db.backends.signals import connection_created
    from django.test import Client
    from channels_wsdeny import DenyMiddlewareStack
    from channels_wsdeny.decorators import require
    from channels_wsdeny.policies import HasPermission, IsAuthenticated, Policy
    from channels_wsdeny.concurrency import get_pool, hop
    from tests.clients import cookie_header, knock

    async def accept(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    def site(policy):
        return DenyMiddlewareStack(require(policy)(accept))

    def migrate():
        call_command("migrate", verbosity=0)

    def log_in():
        user, _ = get_user_model().objects.get_or_create(username="carol")
        client = Client()
        client.force_login(user)
        connection.close()
        return cookie_header(**{name: morsel.value for name, morsel in client.cookies.items()})

    made = []

    def note(connection, **kwargs):
        made.append((threading.get_ident(), connection))

    connection_created.connect(note)

    def still_open():
        return len({id(connection) for _, connection in made if connection.connection is not None})

    async def several(count, policy, headers):
        application = site(policy)
        return [(await knock(application, "/", headers=headers)).status for _ in range(count)]

    async def at_once(count, policy, headers):
        application = site(policy)
        answers = await asyncio.gather(*(knock(application, "/", headers=headers) for _ in range(count)))
        return [answer.status for answer in answers]
"""


@pytest.fixture
def run(tmp_path):
    """A function that runs code in a process with a database of its own; returns what it prints as JSON."""

    def run(code, **database):
        database.setdefault("ENGINE", "django.db.backends.sqlite3")
        database.setdefault("NAME", str(tmp_path / "db.sqlite3"))
        (tmp_path / "process_settings.py").write_text(
            "from testproject.settings import *\n"
            f"DATABASES = {{'default': {database!r}}}\n"
            "CHANNELS_WSDENY = {'POOL_SIZE': 4}\n"
            "LOGGING = {'version': 1}\n"
        )
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(PROCESS) + textwrap.dedent(code)],
            cwd=ROOT,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "process_settings",
                "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    return run


POSTGRESQL = {
    "ENGINE": "django.db.backends.postgresql",
    "NAME": "postgres",
    "HOST": os.environ.get("TESTPROJECT_DATABASE_HOST") or "127.0.0.1",
    "PORT": os.environ.get("TESTPROJECT_DATABASE_PORT") or "5432",
    "USER": os.environ.get("TESTPROJECT_DATABASE_USER") or "postgres",
    "PASSWORD": os.environ.get("TESTPROJECT_DATABASE_PASSWORD") or "",
}


@pytest.fixture
def postgresql():
    """Settings of a fresh PostgreSQL database."""
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    name = f"wsdeny_{os.getpid()}_{time.monotonic_ns()}"
    where = {
        "host": POSTGRESQL["HOST"],
        "port": POSTGRESQL["PORT"],
        "user": POSTGRESQL["USER"],
        "password": POSTGRESQL["PASSWORD"],
        "dbname": POSTGRESQL["NAME"],
    }
    try:
        server = psycopg.connect(**where, autocommit=True, connect_timeout=3)
    except psycopg.OperationalError as error:
        pytest.skip(f"PostgreSQL cannot be reached: {error}")
    with server:
        server.execute(f"CREATE DATABASE {name}")
        yield {**POSTGRESQL, "NAME": name}
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request):
    """Settings of a database on disk."""
    return {} if request.param == "sqlite" else request.getfixturevalue("postgresql")


def test_connections_are_closed_after_each_handshake_by_default(run, database):
    found = run(
        """
        migrate()
        headers = log_in()
        made.clear()
        statuses = asyncio.run(several(10, IsAuthenticated(), headers))
        print(json.dumps([statuses, len(made), still_open()]))
        """,
        **database,
    )
    assert found == [[101] * 10, 10, 0]


def test_one_handshake_uses_one_connection(run, database):
    found = run(
        """
        migrate()
        headers = log_in()
        made.clear()
        policy = IsAuthenticated() & HasPermission("auth.x")
        print(json.dumps([asyncio.run(several(1, policy, headers)), len(made), still_open()]))
        """,
        **database,
    )
    assert found == [[403], 1, 0]


def test_connections_are_closed_though_policies_raise(run, database):
    found = run(
        """
        class Fails(Policy):
            def check(self, request):
                get_user_model().objects.count()
                raise ZeroDivisionError

        migrate()
        connection.close()
        made.clear()
        print(json.dumps([asyncio.run(several(3, Fails(), [])), len(made), still_open()]))
        """,
        **database,
    )
    assert found == [[500] * 3, 3, 0]


def test_connections_are_kept_as_long_as_the_site_says(run, database):
    found = run(
        """
        migrate()
        headers = log_in()
        made.clear()
        statuses = asyncio.run(several(10, IsAuthenticated(), headers))
        print(json.dumps([statuses, len(made), still_open(), len({thread for thread, _ in made})]))
        """,
        CONN_MAX_AGE=None,
        **database,
    )
    statuses, connections_made, open_now, threads = found
    assert statuses == [101] * 10
    assert connections_made == open_now == threads


def test_there_are_never_more_connections_than_threads(run, database):
    found = run(
        """
        migrate()
        headers = log_in()
        made.clear()
        statuses = asyncio.run(at_once(100, IsAuthenticated(), headers))
        print(json.dumps([sorted(set(statuses)), len(made), still_open()]))
        """,
        CONN_MAX_AGE=None,
        **database,
    )
    statuses, connections_made, open_now = found
    assert statuses == [101]
    assert connections_made == open_now <= 4


def test_connections_are_renewed_when_they_are_too_old(run, database):
    found = run(
        """
        migrate()
        headers = log_in()
        made.clear()
        statuses = asyncio.run(several(1, IsAuthenticated(), headers))
        time.sleep(0.6)
        statuses += asyncio.run(several(1, IsAuthenticated(), headers))
        print(json.dumps([statuses, len(made), still_open()]))
        """,
        CONN_MAX_AGE=0.5,
        **database,
    )
    assert found == [[101, 101], 2, 1]


def test_a_handshake_sees_what_was_committed_since(run, database):
    """Kept connections hold no transaction open."""
    found = run(
        """
        migrate()
        headers = log_in()
        first = asyncio.run(several(4, IsAuthenticated(), headers))
        get_user_model().objects.update(is_active=False)
        connection.close()
        print(json.dumps([first, asyncio.run(several(4, IsAuthenticated(), headers))]))
        """,
        CONN_MAX_AGE=None,
        **database,
    )
    assert found == [[101] * 4, [401] * 4]


def test_queries_that_are_logged_while_debugging_do_not_pile_up(run):
    found = run(
        """
        from django.conf import settings

        migrate()
        headers = log_in()
        settings.DEBUG = True
        settings.CHANNELS_WSDENY = {"POOL_SIZE": 1}
        statuses = asyncio.run(several(20, IsAuthenticated(), headers))
        logged = asyncio.run(hop(lambda: len(connections["default"].queries_log)))
        print(json.dumps([sorted(set(statuses)), logged < 5]))
        """
    )
    assert found == [[101], True]


TERMINATE = """
    migrate()
    headers = log_in()
    statuses = asyncio.run(several(1, IsAuthenticated(), headers))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    connection.close()
    statuses += asyncio.run(several(2, IsAuthenticated(), headers))
    print(json.dumps(statuses))
"""


def test_a_connection_that_was_lost_is_replaced(run, postgresql):
    assert run(TERMINATE, CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True, **postgresql) == [101, 101, 101]


def test_a_connection_that_was_lost_costs_one_handshake_where_nobody_checks(run, postgresql):
    assert run(TERMINATE, CONN_MAX_AGE=None, **postgresql) == [101, 503, 101]


BROKEN = """
    headers = cookie_header(sessionid="a" * 32)
    start = time.perf_counter()
    statuses = asyncio.run(at_once(20, IsAuthenticated(), headers))
    quick = time.perf_counter() - start < 3
    statuses += asyncio.run(at_once(1, IsAuthenticated(), []))
    print(json.dumps([statuses, quick]))
"""


def test_a_database_that_cannot_be_opened_is_unavailable_at_once(run, tmp_path):
    assert run(BROKEN, NAME=str(tmp_path / "nowhere" / "db.sqlite3")) == [[503] * 20 + [401], True]


def test_a_database_that_nobody_serves_is_unavailable_at_once(run):
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    assert run(BROKEN, **{**POSTGRESQL, "HOST": "127.0.0.1", "PORT": "1"}) == [[503] * 20 + [401], True]


def test_a_database_that_comes_back_is_used_again(run, tmp_path):
    found = run(
        """
        from pathlib import Path
        from django.conf import settings

        headers = cookie_header(sessionid="a" * 32)
        statuses = asyncio.run(several(2, IsAuthenticated(), headers))
        Path(settings.DATABASES["default"]["NAME"]).parent.mkdir()
        migrate()
        headers = log_in()
        statuses += asyncio.run(several(2, IsAuthenticated(), headers))
        print(json.dumps(statuses))
        """,
        NAME=str(tmp_path / "nowhere" / "db.sqlite3"),
    )
    assert found == [503, 503, 101, 101]


# A cache that is a server of its own.


REDIS = os.environ.get("TESTPROJECT_REDIS", "redis://127.0.0.1:6379")


@pytest.fixture
def redis_cache(settings):
    """A function that keeps the sessions in the Redis at this address."""
    pytest.importorskip("redis", reason="redis is not installed")

    def use(location):
        settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
        settings.CACHES = {
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": location,
                "KEY_PREFIX": f"wsdeny-{os.getpid()}",
            }
        }

    yield use
    caches["default"].close()


@in_memory
def test_a_session_in_redis_is_found(users, redis_cache):
    import redis

    redis_cache(REDIS)
    try:
        headers = headers_of_a_log_in(users["alice"])
    except redis.exceptions.ConnectionError as error:
        pytest.skip(f"Redis cannot be reached: {error}")
    try:
        answer = async_to_sync(knock)(site(IsAuthenticated()), "/", headers=headers)
        assert answer.status == 101
    finally:
        ((_, cookie),) = headers
        caches["default"].delete("django.contrib.sessions.cache" + cookie.decode().partition("=")[2])


@in_memory
def test_a_session_in_a_cache_that_nobody_serves_is_nobodys(db, redis_cache):
    """Django's engine takes any error of the cache for a session that is not there."""
    redis_cache("redis://127.0.0.1:1")
    headers = cookie_header(sessionid="a" * 32)
    answer = async_to_sync(knock)(site(IsAuthenticated()), "/", headers=headers)
    assert (answer.status, answer.header("set-cookie")) == (401, None)


@in_memory
def test_a_session_for_a_cache_that_nobody_serves_is_unavailable(db, redis_cache):
    redis_cache("redis://127.0.0.1:1")

    async def change(scope, receive, send):
        scope["session"]["color"] = "red"
        await accept(scope, receive, send)

    answer = async_to_sync(knock)(site(Check(lambda request: True), change), "/")
    assert (answer.status, answer.header("set-cookie")) == (503, None)
