"""Database connections of the pool's threads: closed as Django does, and in tests the test's own."""

import asyncio
import json
import os
import textwrap
import time

import pytest
from asgiref.sync import async_to_sync
from channels.generic.websocket import WebsocketConsumer
from django.contrib.auth import get_user_model
from django.core.cache.backends.locmem import LocMemCache
from django.db import IntegrityError, connection, connections, transaction

from channels_wsdeny import DenyMiddlewareStack, db
from channels_wsdeny.concurrency import run_in_threadpool as hop
from channels_wsdeny.db import get_cache
from channels_wsdeny.decorators import require
from channels_wsdeny.policies import IsAuthenticated
from tests.support.clients import cookie_header, knock
from tests.support.policies import AsyncCheck, Check, accept, change_session
from tests.support.processes import answers_of, run_python
from tests.support.sockets import consumer

HAS_SQLITE = connection.vendor == "sqlite"

in_memory = pytest.mark.skipif(not HAS_SQLITE, reason="handshakes share an in-memory SQLite database only")


def site(policy, app=accept):
    return DenyMiddlewareStack(require(policy)(app))


def handshake(policy, app=accept, **scope):
    """The status of a handshake in a synchronous test."""
    return async_to_sync(knock)(site(policy, app), "/", **scope).status


def create(name):
    return get_user_model().objects.create_user(name)


def count_users(request=None):
    return get_user_model().objects.count()


# Under pytest-django, in a transaction that is never committed.


@in_memory
def test_a_handshake_and_its_consumer_see_what_a_sync_test_has_not_committed(users, headers_of):
    found = []
    counting = consumer(lambda self: found.append(count_users()) or self.accept(), WebsocketConsumer)
    assert connection.in_atomic_block
    policy = IsAuthenticated() & Check(lambda request: found.append(count_users()) or True)
    assert handshake(policy, counting.as_asgi(), headers=headers_of("alice")) == 101
    assert found == [3, 3]


@in_memory
@pytest.mark.parametrize("name", ["carol", "dave"])
async def test_a_test_sees_what_a_handshake_wrote_and_the_next_test_does_not(name, db):
    assert await hop(count_users) == 0
    assert (await knock(site(Check(lambda request: bool(create(name)))), "/")).status == 101
    assert await hop(count_users) == 1


@in_memory
def test_a_transaction_that_a_policy_rolls_back_leaves_the_tests_own_alone(users):
    def fail(request):
        try:
            with transaction.atomic():
                create("carol")
                create("alice")
        except IntegrityError:
            return False

    assert handshake(Check(fail)) == 403
    assert count_users() == 3


@in_memory
@pytest.mark.parametrize("status", [101, 403, 500])
def test_the_tests_connection_is_shared_for_the_handshake_alone_and_stays_open(status, db):
    def look(request):
        assert connections["default"] is shared
        assert count_users() == 0
        assert status != 500
        return status == 101

    count_users()
    shared, before = connections["default"], connection.connection
    assert handshake(Check(look)) == status
    assert (connection.connection, connection.allow_thread_sharing) == (before, False)
    assert connection.is_usable()


@in_memory
def test_handshakes_at_the_same_time_do_not_mix_users_and_sessions(users, headers_of):
    def is_right(request):
        return request.user.get_username() == request.headers["x-name"]

    async def all_at_once():
        named = [[*headers_of(name), (b"x-name", name.encode())] for name in users]
        known, new = site(Check(is_right)), site(Check(lambda request: True), change_session)
        many = [knock(known, "/", headers=headers) for _ in range(50) for headers in named]
        return await asyncio.gather(*many), await asyncio.gather(*(knock(new, "/") for _ in range(50)))

    known, new = async_to_sync(all_at_once)()
    assert {answer.status for answer in (*known, *new)} == {101}
    assert len({answer.header("set-cookie") for answer in new}) == 50


async def test_a_test_without_a_database_gets_none_through_a_handshake():
    assert (await knock(site(Check(lambda request: True)), "/")).status == 101
    assert (await knock(site(Check(count_users)), "/")).status == 500


# Outside of tests: a process with a database of its own.

PROCESS = """
    import asyncio, json, threading, time
    from pathlib import Path
    import django; django.setup()
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.db import IntegrityError, connection, connections, transaction
    from django.db.backends.signals import connection_created
    from django.test import Client, override_settings
    from channels_wsdeny import DenyMiddlewareStack
    from channels_wsdeny.decorators import require
    from channels_wsdeny.policies import HasPermission, IsAuthenticated
    from channels_wsdeny.concurrency import run_in_threadpool as hop
    from tests.support.clients import cookie_header, knock
    from tests.support.policies import Check, accept

    made, stranger = [], cookie_header(sessionid="a" * 32)

    def log_in():
        call_command("migrate", verbosity=0)
        client = Client()
        client.force_login(get_user_model().objects.get_or_create(username="carol")[0])
        connection.close()
        connection_created.connect(note)
        return cookie_header(**{name: morsel.value for name, morsel in client.cookies.items()})

    def note(connection, **kwargs):
        if threading.current_thread() is not threading.main_thread():
            made.append(connection)

    def connections_made():
        return len(made), len({id(each) for each in made if each.connection is not None})

    def several(count, policy, headers, at_once=False):
        async def run():
            application = DenyMiddlewareStack(require(policy)(accept))
            answers = [knock(application, "/", headers=headers) for _ in range(count)]
            if at_once:
                answers = await asyncio.gather(*answers)
            return [(answer if at_once else await answer).status for answer in answers]

        return asyncio.run(run())
"""


@pytest.fixture
def run(tmp_path):
    """A function that runs code in a process with a database of its own; returns what it prints as JSON."""

    def run(code, **database):
        default = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "db.sqlite3"), **database}
        (tmp_path / "process_settings.py").write_text(
            "from testproject.settings import *\n"
            f"DATABASES = {{'default': {default!r}}}\n"
            "CHANNELS_WSDENY = {'POOL_SIZE': 4}\n"
            "LOGGING = {'version': 1}\n"
        )
        path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(tmp_path)])
        # Python 3.13 would warn, as it ends, of the connections in the threads of the pool, which are daemons.
        ending = "\nimport sys\nsys.stdout.flush()\nos._exit(0)\n"
        code = textwrap.dedent(PROCESS) + "import os\n" + textwrap.dedent(code) + ending
        printed, errors = run_python(code, settings="process_settings", PYTHONPATH=path)
        assert errors == ""
        return json.loads(printed)

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
    where = {key.lower(): POSTGRESQL[key] for key in ("HOST", "PORT", "USER", "PASSWORD")}
    try:
        server = psycopg.connect(**where, dbname=POSTGRESQL["NAME"], autocommit=True, connect_timeout=3)
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


@pytest.mark.servers
def test_by_default_a_handshake_opens_one_connection_and_closes_it_also_if_a_policy_raises(run, database):
    found = run(
        """
        def fails(request):
            get_user_model().objects.count()
            raise ZeroDivisionError

        headers, found = log_in(), []
        for policy in (IsAuthenticated(), IsAuthenticated() & HasPermission("auth.x"), Check(fails)):
            made.clear()
            found.append([several(3, policy, headers), *connections_made()])
        print(json.dumps(found))
        """,
        **database,
    )
    assert found == [[[101] * 3, 3, 0], [[403] * 3, 3, 0], [[500] * 3, 3, 0]]


@pytest.mark.servers
def test_connections_are_kept_as_long_as_the_site_says_and_never_more_than_threads(run, database):
    """They hold no transaction open meanwhile, and no log of their queries."""
    found = run(
        """
        headers = log_in()
        settings.DEBUG = True
        statuses = several(10, IsAuthenticated(), headers)
        statuses += several(100, IsAuthenticated(), headers, at_once=True)
        logged = asyncio.run(hop(lambda: len(connections["default"].queries_log)))
        get_user_model().objects.update(is_active=False)
        connection.close()
        denied = several(10, IsAuthenticated(), headers, at_once=True)
        print(json.dumps([sorted({*statuses}), sorted({*denied}), logged < 5, *connections_made()]))
        """,
        CONN_MAX_AGE=None,
        **database,
    )
    statuses, denied, are_few_logged, made, still_open = found
    assert (statuses, denied, are_few_logged) == ([101], [401], True)
    assert 1 <= made == still_open <= 4


@pytest.mark.servers
@pytest.mark.parametrize(("checks", "statuses"), [(True, [101] * 3), (False, [101, 503, 101])])
def test_a_connection_that_was_lost_costs_a_handshake_at_most(checks, statuses, run, postgresql):
    found = run(
        """
        headers = log_in()
        statuses = several(1, IsAuthenticated(), headers)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        connection.close()
        print(json.dumps(statuses + several(2, IsAuthenticated(), headers)))
        """,
        CONN_MAX_AGE=None,
        CONN_HEALTH_CHECKS=checks,
        **postgresql,
    )
    assert found == statuses


@pytest.mark.servers
def test_django_tenants_keeps_the_sessions_tickets_and_counts_of_tenants_apart(postgresql):
    pytest.importorskip("django_tenants", reason="django-tenants is not installed (see tox.ini)")
    assert answers_of("tests.support.tenants.site", json.dumps(postgresql)) == {
        "the same number": True,
        "sessions": ["user-of-one", 401, 401, "user-of-two"],
        "tickets": [401, "user-of-one", 401],
        "throttle": [101, 429, 101, 429],
    }


@pytest.mark.servers
@pytest.mark.parametrize(
    "state", ["attribute", "sql", "commented", "second", "composed", "tight", "block", "function", "nothing"]
)
def test_the_tenant_that_a_middleware_sets_on_a_connection_holds_for_its_own_handshake_alone(state, run, postgresql):
    """Policies see it. The next handshake in the thread has another connection; one without a tenant keeps it."""
    found = run(
        f"""
        import sys, types
        from django.utils.deprecation import MiddlewareMixin
        from psycopg.sql import SQL, Identifier
        STATEMENTS = {{
            "sql": "SET search_path TO tenant",
            "commented": "/* a */ -- b\\nSET search_path TO tenant",
            "second": "SELECT 1; SET search_path TO tenant",
            "tight": 'SET"search_path"TO tenant',
            "block": "DO $$ BEGIN SET search_path TO tenant; END $$",
            "composed": SQL("SET search_path TO {{}}").format(Identifier("tenant")),
        }}
        state, seen, choosing = {state!r}, [], [True]

        def choose(request):
            with connection.cursor() as cursor:
                if state in STATEMENTS and choosing:
                    cursor.execute(STATEMENTS[state])
                elif state == "function" and choosing:
                    cursor.execute("SELECT set_config('app.tenant', 'tenant', false)")
                elif state == "attribute" and choosing:
                    connection.schema_name = "tenant"
                cursor.execute("SELECT 1")

        class Split(MiddlewareMixin):
            def process_request(self, request):
                choose(request)

        def around(get_response):
            def middleware(request):
                choose(request)
                return get_response(request)
            return middleware

        def look(request):
            with connection.cursor() as cursor:
                variables = "current_setting('search_path'), current_setting('app.tenant', true)"
                cursor.execute(f"SELECT {{variables}}, pg_backend_pid()")
                *variables, pid = cursor.fetchone()
            seen.append(["tenant" in [*variables, getattr(connection, "schema_name", "")], pid])
            return True

        sys.modules["site_middleware"] = types.SimpleNamespace(Split=Split, around=around)
        for name in ("Split", "around"):
            override_settings(CHANNELS_WSDENY=dict(POOL_SIZE=1, MIDDLEWARE=["site_middleware." + name])).enable()
            for choosing in ([True], [], []):
                several(1, Check(look), [])
        print(json.dumps(seen))
        """,
        CONN_MAX_AGE=None,
        **postgresql,
    )
    has_tenant, pids = zip(*found, strict=True)
    assert has_tenant == (state != "nothing", False, False) * 2
    assert [pids[1] == pids[0], pids[2] == pids[1], pids[4] == pids[3], pids[5] == pids[4]] == [
        *[state == "nothing", True] * 2
    ]


@pytest.mark.servers
def test_a_database_that_cannot_be_reached_is_unavailable_and_used_again_once_it_is_back(run, tmp_path):
    found = run(
        """
        statuses = several(20, IsAuthenticated(), stranger, at_once=True)
        statuses += several(1, IsAuthenticated(), [])
        Path(settings.DATABASES["default"]["NAME"]).parent.mkdir()
        print(json.dumps(statuses + several(2, IsAuthenticated(), log_in())))
        """,
        NAME=str(tmp_path / "nowhere" / "db.sqlite3"),
    )
    assert found == [*[503] * 20, 401, 101, 101]


class Flaky(LocMemCache):
    """A cache that cannot be reached when it is first asked."""

    has_failed = False

    def get(self, *args, **kwargs):
        if not Flaky.has_failed:
            Flaky.has_failed = True
            raise ConnectionError
        return super().get(*args, **kwargs)


@pytest.mark.parametrize(
    "backend", [pytest.param("django.core.cache.backends.redis.RedisCache", marks=in_memory), f"{__name__}.Flaky"]
)
def test_a_session_of_a_cache_that_cannot_be_reached_is_unavailable_and_not_replaced(
    backend, db, settings, monkeypatch
):
    """Django's engine takes any error of the cache for a session that is not there; this one may come back."""
    if "redis" in backend:
        pytest.importorskip("redis", reason="redis is not installed")
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": "redis://127.0.0.1:1"}}

    for policy, app in (
        (IsAuthenticated(), accept),
        (~IsAuthenticated(), accept),
        (AsyncCheck(lambda request: request.session.aget("color")), accept),
        (Check(lambda request: True), change_session),
        (Check(lambda request: request.session.update({"color": "red"}) is None), accept),
    ):
        monkeypatch.setattr(Flaky, "has_failed", False)
        answer = async_to_sync(knock)(site(policy, app), "/", headers=cookie_header(sessionid="a" * 32))
        assert (answer.status, answer.header("set-cookie")) == (503, None)


def test_a_cache_that_nothing_has_asked_for_in_a_while_is_made_anew(monkeypatch):
    """A server or firewall may have closed its connection meanwhile, of which the next handshake would fail."""
    first, closed = get_cache("default"), []
    monkeypatch.setattr(first, "close", lambda: closed.append(first))
    assert get_cache("default") is first
    monkeypatch.setattr(db, "_MOST_IDLE", 0.0)
    assert get_cache("default") is not first
    assert closed == [first]


async def test_handshakes_share_the_caches_of_the_threads_that_they_run_in(settings):
    """Django has one for each context, and so a connection to Redis for each open socket."""
    made = set()

    async def handshake():
        made.add(await hop(lambda: get_cache("default")))

    for _ in range(20):
        await asyncio.create_task(handshake())
    assert len(made) == 1
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    await handshake()
    assert len(made) == 2
