"""The pytest plugin, in runs of pytest as a site's own."""

import textwrap
from importlib.metadata import entry_points

import pytest

from tests.support.processes import run_pytest

SITE = {"DJANGO_SETTINGS_MODULE": "tests.support.account_settings"}


@pytest.fixture(name="run")
def _run(tmp_path):
    """Runs tests in an environment that has the site's settings alone; each warning is an error."""
    environment = {"PYTHONWARNINGS": "error", "TESTPROJECT_DATABASE_NAME": "testproject_plugin"}

    def run(tests, *options, ini="", **more):
        ini = f"asyncio_mode = auto\n{ini}"
        return run_pytest(tmp_path, textwrap.dedent(tests), *options, ini=ini, **environment, **more)

    return run


def test_it_is_declared():
    (entry_point,) = entry_points(group="pytest11", name="channels_wsdeny")
    assert entry_point.value == "channels_wsdeny.pytest_plugin"


LIVE = """
    from django.contrib.auth.models import Group
    from websockets import connect

    async def test_the_database_is_that_of_the_test(ws_live_server):
        await Group.objects.acreate(name="friends")
        async with connect(f"{ws_live_server.ws_url}/ws/count/") as socket:
            assert await socket.recv() == "1"

    def test_all_is_gone(db):
        assert not Group.objects.exists()
"""


@pytest.mark.servers
def test_the_live_server_has_the_database_of_the_test(run, tmp_path):
    output = run(LIVE, TESTS_DATABASE_FILE=str(tmp_path / "test.sqlite3"), **SITE)
    assert "2 passed" in output, output


@pytest.mark.servers
def test_it_imports_neither_django_nor_a_server_before_a_fixture_is_used(run):
    tests = """
        import sys

        def test_it():
            assert not {"daphne", "uvicorn", "channels", "django.db", "django.test"} & {*sys.modules}
            import channels_wsdeny.testing
            assert not {"daphne", "uvicorn"} & {*sys.modules}
    """
    output = run(tests, plugins=())
    assert "1 passed" in output, output


@pytest.mark.servers
def test_only_the_live_server_needs_pytest_django(run):
    tests = """
        import asyncio, django
        from django.test.utils import setup_test_environment
        django.setup()
        setup_test_environment()  # as pytest-django does: the host of the client is allowed

        def test_the_client(ws_client):
            assert asyncio.run(ws_client.handshake("/ws/members/")).status_code == 401

        def test_the_live_server(ws_live_server): pass
    """
    output = run(tests, ini="filterwarnings =\n    default", plugins=(), **SITE)
    assert "1 passed" in output, output
    assert "fixture 'transactional_db' not found" in output
