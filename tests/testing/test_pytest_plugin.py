"""The pytest plugin, in a site's own test runs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path):
    """Runs pytest on a test file, as a site does that has nothing but its settings."""

    def run(
        tests, *options, ini="", plugins=("pytest_django.plugin", "pytest_asyncio.plugin"), **environment
    ):
        (tmp_path / "pytest.ini").write_text(
            f"[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n{ini}\n"
        )
        (tmp_path / "test_site.py").write_text(textwrap.dedent(tests))
        loaded = [f"-p{plugin}" for plugin in (*plugins, "channels_wsdeny.pytest_plugin")]
        command = [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider", *loaded]
        result = subprocess.run(
            [*command, *options, "test_site.py"],
            cwd=tmp_path,
            env={
                **{name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"},
                "PYTHONPATH": str(ROOT),
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                "TESTPROJECT_DATABASE_NAME": "testproject_plugin",
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return result.stdout + result.stderr

    return run


SITE = {"DJANGO_SETTINGS_MODULE": "tests.testing.settings"}


def test_it_is_declared():
    (entry_point,) = entry_points(group="pytest11", name="channels_wsdeny")
    assert entry_point.value == "channels_wsdeny.pytest_plugin"


def test_a_denial_is_asserted_in_three_lines(run):
    tests = """
        from channels_wsdeny.testing import assert_denied

        async def test_strangers_have_to_log_in(ws_client):
            response = await ws_client.handshake("/ws/members/")
            assert_denied(response, 401, code="not_authenticated")
    """
    assert "1 passed" in run(tests, **SITE)


MEMBERS = """
    import pytest
    from asgiref.sync import sync_to_async
    from django.contrib.auth import get_user_model
    from django.contrib.auth.models import Group
    from django.db import connections

    @pytest.fixture
    def alice({database}):
        return get_user_model().objects.create_user("alice")

    @pytest.mark.parametrize("path", ["/ws/members/", "/ws/sync/"])
    async def test_a_socket_a_view_and_the_test_see_the_same(ws_client, alice, path):
        assert await Group.objects.acount() == 0
        await Group.objects.acreate(name="family")
        await ws_client.aforce_login(alice, "django.contrib.auth.backends.ModelBackend")
        async with ws_client.connect(path) as socket:
            await socket.send_json("friends")
            assert await socket.receive_json() == ["alice", 2]
        assert await Group.objects.acount() == 2
        assert (await ws_client.get("/whoami/")).content == b"alice"

    @pytest.mark.django_db
    async def test_nothing_is_left(ws_client):
        assert await Group.objects.acount() == 0
        assert await get_user_model().objects.acount() == 0

    def test_no_connection_is_left():
        from asgiref.sync import SyncToAsync
        here = lambda: [each.connection for each in connections.all(initialized_only=True)]
        left = SyncToAsync.single_thread_executor.submit(here).result()
        assert [each for each in left if each is not None] == []
"""


@pytest.mark.parametrize("database", ["db", "transactional_db"])
def test_the_client_sees_the_tests_database(run, tmp_path, database):
    output = run(
        MEMBERS.format(database=database), TESTS_TESTING_DATABASE=str(tmp_path / "test.sqlite3"), **SITE
    )
    assert "4 passed" in output, output


@pytest.mark.parametrize("database", ["db", "transactional_db"])
def test_the_client_sees_a_database_in_memory(run, database):
    tests = MEMBERS.format(database=database)
    output = run(tests, "--deselect=test_site.py::test_no_connection_is_left", **SITE)
    assert "3 passed" in output, output


def test_the_client_comes_after_the_database_in_any_order(run):
    tests = """
        from django.contrib.auth.models import Group

        async def test_it(ws_client, db):
            await Group.objects.acreate(name="friends")
            async with ws_client.connect("/ws/count/") as socket:
                assert await socket.receive_json() == 1
    """
    assert "1 passed" in run(tests, **SITE)


def test_two_clients_are_two_visitors(run):
    tests = """
        from channels_wsdeny.testing import WebsocketClient, assert_denied
        from django.contrib.auth import get_user_model

        async def test_it(ws_client, db):
            alice = await get_user_model().objects.acreate_user("alice")
            await ws_client.aforce_login(alice, "django.contrib.auth.backends.ModelBackend")
            assert_denied(await WebsocketClient().handshake("/ws/members/"), 401)
    """
    assert "1 passed" in run(tests, **SITE)


LIVE = """
    from django.contrib.auth.models import Group
    from websockets.sync.client import connect

    def test_the_database_is_the_tests(ws_live_server):
        Group.objects.create(name="friends")
        with connect(f"{ws_live_server.ws_url}/ws/count/") as socket:
            assert socket.recv(timeout=30) == "1"
        print(type(ws_live_server).__name__)

    async def test_it_serves_asynchronous_tests(ws_live_server):
        import websockets
        await Group.objects.acreate(name="friends")
        async with websockets.connect(f"{ws_live_server.ws_url}/ws/count/") as socket:
            assert await socket.recv() == "1"

    def test_all_is_gone(db):
        assert not Group.objects.exists()
"""


def test_the_live_server_is_uvicorn_and_sees_a_database_in_memory(run):
    output = run(LIVE, "-s", **SITE)
    assert "3 passed" in output, output
    assert "UvicornServer" in output


@pytest.mark.parametrize("server", ["daphne", "uvicorn"])
def test_the_live_server_may_be_chosen(run, tmp_path, server):
    output = run(
        LIVE,
        "-s",
        ini=f"ws_live_server = {server}",
        TESTS_TESTING_DATABASE=str(tmp_path / "test.sqlite3"),
        **SITE,
    )
    assert "3 passed" in output, output
    assert f"{server.capitalize()}Server" in output


def test_a_server_that_nobody_knows_is_refused(run):
    output = run("def test_it(ws_live_server): pass", ini="ws_live_server = apache", **SITE)
    assert "is one of ('uvicorn', 'daphne'), found 'apache'" in output


def test_synchronous_code_that_hangs_is_named(run):
    tests = """
        import threading
        import channels_wsdeny.pytest_plugin
        from asgiref.sync import SyncToAsync

        def test_it(request, monkeypatch):
            monkeypatch.setattr(channels_wsdeny.pytest_plugin, "_PATIENCE", 0.1)
            end = threading.Event()
            SyncToAsync.single_thread_executor.submit(end.wait, 30)
            try:
                channels_wsdeny.pytest_plugin._query(lambda: None)
            finally:
                end.set()
    """
    assert "The thread of sync_to_async has been busy for 0.1 s" in run(tests, **SITE)


# Where there is no Django, or not all of it.


def test_it_does_nothing_where_no_django_is_set_up(run):
    output = run("def test_it(): pass", plugins=())
    assert "1 passed" in output, output


def test_it_imports_little(run):
    tests = """
        import sys

        def test_it():
            assert not {"daphne", "uvicorn", "django.test", "channels_wsdeny.testing"} & {*sys.modules}
    """
    output = run(tests, plugins=())
    assert "1 passed" in output, output


def test_the_live_server_needs_pytest_django(run):
    output = run("def test_it(ws_live_server): pass", plugins=())
    assert "fixture 'transactional_db' not found" in output


def test_the_client_needs_no_pytest_django(run):
    tests = """
        import asyncio, django
        django.setup()

        def test_it(ws_client):
            assert asyncio.run(ws_client.handshake("/ws/members/")).status_code == 401
    """
    output = run(tests, ini="filterwarnings =\n    default", plugins=(), **SITE)
    assert "1 passed" in output, output


def test_the_fixtures_are_described(run):
    output = run("", "--fixtures", **SITE)
    assert "ws_client" in output
    assert "A `WebsocketClient` on ``ASGI_APPLICATION``." in output
