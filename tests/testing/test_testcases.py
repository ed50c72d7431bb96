"""`account_cases` by pytest on the tests' own database, and by Django's runner on one in a file."""

import channels
import pytest

from tests.support.account_cases import InTestCase, InTransactionTestCase  # noqa: F401 - pytest runs them
from tests.support.processes import run

#: Daphne's txaio calls what is deprecated on Python 3.14.
OF_TXAIO = "ignore:'asyncio.iscoroutinefunction' is deprecated:DeprecationWarning"


def run_by_django(tmp_path, *classes):
    """Run these classes of `account_cases` by ``manage.py test``; return what it prints."""
    labels = [f"tests.support.account_cases.{name}" for name in classes]
    result = run(
        ["-W", "error", "-W", OF_TXAIO, "-m", "django", "test", "--noinput", *labels],
        DJANGO_SETTINGS_MODULE="tests.support.account_settings",
        TESTS_DATABASE_FILE=str(tmp_path / "test.sqlite3"),
        TESTPROJECT_DATABASE_NAME="testproject_testcases",
    )
    assert result.returncode == 0, result.stderr
    return result.stderr


@pytest.mark.servers
def test_clients_and_live_servers_work_on_a_database_in_a_file(tmp_path):
    output = run_by_django(tmp_path, "InTestCase", "InTransactionTestCase", "OnUvicorn")
    assert "Ran 13 tests" in output


@pytest.mark.servers
@pytest.mark.skipif(channels.__version__ < "4.3", reason="Channels before 4.3 has no live server for Django 5.2")
def test_channels_own_live_server_runs_the_process_of_the_package(tmp_path):
    """The checks of ``manage.py test`` do not import ``asgi.py`` before ``ALLOWED_HOSTS`` has the server's host."""
    assert "Ran 5 tests" in run_by_django(tmp_path, "OnDaphne")
