"""What becomes of a site when real services fail: a PostgreSQL and a Redis of the tests' own, and the server itself."""

import json
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

import channels_wsdeny
from tests.support.clients import GUARD
from tests.support.connections import PLAIN, TEXT, EndedError
from tests.support.live import Redis
from tests.support.postgresql import PostgreSQL, what_is_missing
from tests.support.processes import run_python

from .table import SERVERS, Fleet
from .test_logs import RECORD

ENGINES = ["db", "cached_db", "cache", "file", "signed_cookies"]
#: What alice and an anonymous client ask for; the view is behind `MirrorMiddleware`.
USER, VIEW, ANONYMOUS, THROTTLED = "/ws/authenticated/", "/sync/authenticated/", "/ws/anonymous/", "/throttled/"
MEETING = "/meet/"
#: The statuses by path and, in their order, by session engine: usually, and while a service is not there. Users are in
#: PostgreSQL. Throttles, and the engines with a cache, are on Redis; Django hides from a view that its cache is gone.
USUAL = {USER: [101] * 5, VIEW: [200] * 5, ANONYMOUS: [401] * 5, THROTTLED: [101] * 5}
OUTAGES = {
    "postgresql": {USER: [503] * 5, VIEW: [503] * 5, ANONYMOUS: [401] * 5, THROTTLED: [101] * 5},
    "redis": {
        USER: [101, 503, 503, 101, 101],
        VIEW: [200, 503, 401, 200, 200],
        ANONYMOUS: [401] * 5,
        THROTTLED: [503] * 5,
    },
}
POOL_SIZE = 4
#: Open sockets are asked again all the time.
LIMITS = {"POOL_SIZE": POOL_SIZE, "RECHECK_INTERVAL": 0.5, "HEARTBEAT": 0.5}
#: Makes the tables, and alice, and prints the key of her session in each engine.
PREPARE = f"""
import django, json
django.setup()
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
call_command("migrate", verbosity=0)
alice, keys = User.objects.create(username="alice"), {{}}
for engine in {ENGINES}:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends." + engine
    client = Client()
    client.force_login(alice)
    keys[engine] = client.session.session_key
print(json.dumps(keys))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """PostgreSQL, Redis, a server for each session engine, and the headers of alice there."""
    missing = what_is_missing() or ("redis-server is not installed" if shutil.which("redis-server") is None else None)
    if missing:
        pytest.skip(missing)
    for name in ("psycopg", "redis"):
        pytest.importorskip(name)
    directory = tmp_path_factory.mktemp("outages")
    with ExitStack() as stack:
        services = {"postgresql": PostgreSQL(), "redis": Redis(directory, is_lasting=True)}
        stack.callback(services["postgresql"].remove)
        for service in services.values():
            service.start()
            stack.callback(service.stop)
        settings = settings_of(directory, **services)

        def environment(engine):
            own = {**settings, "SESSION_ENGINE": f"django.contrib.sessions.backends.{engine}"}
            return {"SERVERS_DATABASE": "", "SERVERS_SETTINGS": json.dumps(own)}

        def start(engine):
            (directory / engine).mkdir()
            given = {"DJANGO_SETTINGS_MODULE": "tests.servers.settings", **environment(engine)}
            server = Fleet(directory / engine, given).get("uvicorn-wsproto", **LIMITS)
            stack.callback(server.stop)
            return server

        printed, errors = run_python(PREPARE, settings="tests.servers.settings", **environment("db"))
        assert printed, errors
        with ThreadPoolExecutor(3) as pool:
            servers = dict(zip(ENGINES, pool.map(start, ENGINES), strict=True))
        alice = {engine: {"Cookie": f"sessionid={key}"} for engine, key in json.loads(printed).items()}
        yield SimpleNamespace(**services, servers=servers, alice=alice)


def settings_of(directory, postgresql, redis):
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "postgres", "HOST": "127.0.0.1"}
    database |= {"PORT": postgresql.port, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}
    cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": redis.url}
    cache["OPTIONS"] = {"socket_timeout": None}  # It waits as long as it may.
    return {"DATABASES": {"default": database}, "CACHES": {"default": cache}, "SESSION_FILE_PATH": str(directory)}


@contextmanager
def asking(world, paths, times=1):
    """Ask every server for these paths at once, so many times; gives a function that waits for the statuses."""
    with ExitStack() as stack:
        asked = []
        for path in paths:
            for engine in [engine for engine in ENGINES for _ in range(times)]:
                asked.append((path, stack.enter_context(world.servers[engine].connect())))
                headers = world.alice[engine] if path in {USER, VIEW, MEETING} else {}
                asked[-1][1].request(path, {**headers, **(PLAIN if path == VIEW else {})})

        def statuses():
            found = {}
            for path, connection in asked:
                answer = connection.answer()
                assert (answer.status == 503) == (answer.header("retry-after") is not None)
                found.setdefault(path, []).append(answer.status)
            return found

        yield statuses


def ask(world, paths, times=1):
    with asking(world, paths, times) as statuses:
        return statuses()


@contextmanager
def opened_by_alice(world):
    """An open socket of alice on every server."""
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for server in world.servers.values()]
        for connection, headers in zip(connections, world.alice.values(), strict=True):
            connection.request("/logged-in/", headers)
            assert connection.answer().status == 101
        yield connections


def is_open(connection):
    connection.say(TEXT, b"still here")
    return connection.hear() == (TEXT, b"still here")


def set_active(world, *, is_active):
    """Change alice by SQL, of which no signal tells."""
    import psycopg

    where = {"host": "127.0.0.1", "port": world.postgresql.port, "user": "postgres", "dbname": "postgres"}
    with psycopg.connect(**where) as connection:
        connection.execute("UPDATE auth_user SET is_active = %s", [is_active])


@pytest.mark.parametrize("how", ["stopped", "paused"])
@pytest.mark.parametrize("name", OUTAGES)
def test_an_outage_denies_who_needs_the_service_closes_no_socket_and_is_over_when_it_is_back(world, name, how):
    """Nothing ends the pause but the test: what is answered meanwhile is answered by ``POLICY_TIMEOUT``.

    Nothing ends a synchronous view that waits, but the end of the pause.
    """
    service, expected = getattr(world, name), OUTAGES[name]
    assert ask(world, USUAL) == USUAL
    with opened_by_alice(world) as connections, ExitStack() as stack:
        service.stop() if how == "stopped" else service.pause()
        try:
            viewed = stack.enter_context(asking(world, [VIEW]))
            handshakes = {path: expected[path] for path in (USER, ANONYMOUS, THROTTLED)}
            assert ask(world, handshakes) == handshakes
            crowd = 2 * POOL_SIZE  # So many that hung threads are replaced.
            assert ask(world, [USER], crowd) == {USER: [status for status in expected[USER] for _ in range(crowd)]}
            assert all(map(is_open, connections))
            if how == "stopped":
                assert viewed() == {VIEW: expected[VIEW]}
        finally:
            service.start() if how == "stopped" else service.go_on()
        assert ask(world, handshakes) == {path: USUAL[path] for path in handshakes}
        if how == "paused":
            assert viewed() == {VIEW: USUAL[VIEW]}
        assert ask(world, [MEETING], POOL_SIZE) == {MEETING: [403] * POOL_SIZE * len(ENGINES)}
        assert all(map(is_open, connections))
        set_active(world, is_active=False)
        try:
            assert {connection.hear_close()[0] for connection in connections} == {4401}
        finally:
            set_active(world, is_active=True)


#: Handshakes that wait: for a policy, for one in a thread, for a consumer.
PENDING = ["/hold/here/allow/", "/hang/here/", "/never-answers/"]
#: hypercorn waits for ever for its connections where Python's `asyncio.Server.wait_closed()` does.
ENDING = [name for name in SERVERS if sys.version_info < (3, 12) or not name.startswith("hypercorn")]
OURS = f"{Path(channels_wsdeny.__file__).parent}/"


def end(server):
    """End a server whose handshakes wait: their statuses, its own, and the tracebacks that are about the package."""
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in PENDING]
        for connection, path in zip(connections, PENDING, strict=True):
            connection.request(path)
        with server.connect() as leaving:
            leaving.request("/hold/left/allow/")
            for line in ("holding here", "hanging here", "holding left"):
                server.wait_for(line)
            leaving.leave(reset=False)
        server.popen.terminate()
        statuses = [status_of(connection) for connection in connections]
    tracebacks = [record for record in RECORD.split(server.log) if "Traceback" in record and OURS in record]
    return statuses, server.popen.wait(GUARD), tracebacks


def status_of(connection):
    """The status of its answer; None if the server has closed the connection instead."""
    try:
        return connection.answer().status
    except (EndedError, ConnectionError):
        return None


def test_a_server_that_is_to_end_leaves_no_client_waiting_and_ends(tmp_path, site_environment):
    fleet = Fleet(tmp_path, site_environment)
    try:
        with ThreadPoolExecutor(4) as pool:
            started = list(pool.map(lambda name: fleet.get(name, POLICY_TIMEOUT=600, ACCEPT_TIMEOUT=600), ENDING))
        with ThreadPoolExecutor() as pool:
            ended = dict(zip(ENDING, pool.map(end, started), strict=True))
    finally:
        for server in fleet.running.values():
            server.stop()
    for name, (statuses, status, tracebacks) in ended.items():
        assert set(statuses) <= ({503} if name == "daphne" else {500, 503, None}), name
        assert status in {0, -signal.SIGTERM}, name
        # hypercorn itself raises this over a stream of HTTP/2 that it has closed.
        assert [each for each in tracebacks if "cancelling> is shutting down" not in each] == [], name
