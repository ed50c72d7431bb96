"""``python -m channels_wsdeny.daphne``, ``manage.py runserver``, and Daphne's test process."""

import runpy
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from daphne.cli import CommandLineInterface as DaphneCommandLineInterface
from daphne.testing import DaphneProcess as StockDaphneProcess
from django.contrib.auth import get_user_model

from channels_wsdeny.daphne import testing
from channels_wsdeny.daphne.__main__ import CommandLineInterface
from channels_wsdeny.daphne.testing import DaphneProcess
from channels_wsdeny.decorators import require
from channels_wsdeny.log import logger
from channels_wsdeny.management.commands.runserver import _name_policy_and_user
from channels_wsdeny.policies import IsStaff
from tests.support.clients import GUARD, knock
from tests.support.daphne.apps import not_async, scripted
from tests.support.daphne.client import ask, unique
from tests.support.daphne.servers import daphne, serving
from tests.support.processes import run_python
from tests.support.scripted import body, start

pytestmark = [
    pytest.mark.servers,
    # The test process forks; threads that other tests left behind do no harm here.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
SETTINGS = "tests.support.daphne.settings"
DENIAL = [start(401), body(b"no")]


def test_every_option_of_daphne_is_taken():
    stock, ours = DaphneCommandLineInterface().parser, CommandLineInterface().parser
    assert ours._option_string_actions.keys() == stock._option_string_actions.keys()


@pytest.mark.parametrize(("options", "names"), [(["-s", "mine"], ["mine"]), (["--no-server-name"], [])])
def test_the_server_name_is_taken(tmp_path, options, names):
    with daphne(tmp_path, *options) as server:
        assert ask(server, DENIAL).all("server") == names


def test_the_help_says_how_it_was_called():
    assert CommandLineInterface().parser.format_usage().startswith("usage: python -m channels_wsdeny.daphne")


@pytest.mark.parametrize("apps", ["daphne", "daphne.apps.DaphneConfig django.contrib.staticfiles"])
def test_runserver_denies_and_takes_daphnes_options(tmp_path, apps):
    arguments = ["django", "runserver", "--noreload", "--websocket_handshake_timeout", "1"]
    arguments += ["--settings", SETTINGS, "127.0.0.1:{port}"]
    path = unique()
    with serving(tmp_path, arguments, {"TESTS_DAPHNE_APPS": f"channels_wsdeny {apps}"}) as server:
        reply = ask(server, DENIAL, path=path)
        assert (reply.status, reply.body) == (401, b"no")
        assert f"HTTP GET {path} 401 [" in server.wait_for(f"GET {path}")


LOGGED = """
import os
from django.conf import settings
logging = {"version": 1, "handlers": {"console": {"class": "logging.StreamHandler"}}}
logging[os.environ["LOGGING_OF"]] = {"handlers": ["console"]}
settings.configure(DEBUG=bool(os.environ["IS_DEBUG"]), INSTALLED_APPS=["channels_wsdeny"], LOGGING=logging)
import django; django.setup()
from channels_wsdeny.management.commands import runserver
from channels_wsdeny.log import log_scope, warn_once
scope = {"path": "/ws/", "query_string": b"token=secret", "client": None}
log_scope(scope, 401, "not_authenticated", "IsAuthenticated()", 0.0)
log_scope(scope, 404, "not_found", None, 0.0)
warn_once("Something else.")
"""
LINES = [
    "Denied /ws/: 401 not_authenticated (policy: IsAuthenticated(), user: -)",
    "Denied /ws/: 404 not_found (policy: -, user: -)",
]


@pytest.mark.parametrize(
    ("debug", "logging", "lines"),
    [
        ("1", "none", LINES),
        ("", "none", []),
        ("1", "root", [*LINES, "Something else."]),
        ("", "root", [*(line.partition(" (")[0] for line in LINES), "Something else."]),
    ],
)
def test_runserver_prints_a_line_for_each_denial_while_debug_once_whatever_the_site_logs(debug, logging, lines):
    printed, errors = run_python(LOGGED, IS_DEBUG=debug, LOGGING_OF=logging)
    assert (printed, errors.splitlines()) == ("", lines)


@pytest.mark.django_db
async def test_the_line_of_runserver_names_the_user_and_no_query_string(caplog, monkeypatch):
    monkeypatch.setattr(logger, "filters", [_name_policy_and_user])
    user = get_user_model()(pk=7)
    await knock(require(IsStaff())(AsyncWebsocketConsumer.as_asgi()), "/ws/?token=secret", user=user)
    (record,) = caplog.records
    assert record.getMessage() == "Denied /ws/: 403 permission_denied (policy: IsStaff(), user: 7)"


@pytest.mark.parametrize(
    ("apps", "module"),
    [("channels_wsdeny", "django.core"), ("channels_wsdeny django.contrib.staticfiles", "django.contrib.staticfiles")],
)
@pytest.mark.parametrize("without", [[], ["daphne"]])
def test_runserver_is_djangos_where_daphne_is_no_app_and_says_that_it_serves_no_sockets(apps, module, without):
    code = """
import django; django.setup()
from django.core.management import call_command
from django.core.management.commands import runserver
from channels_wsdeny.management.commands.runserver import Command
runserver.run = lambda *args, **options: print(Command.__base__.__module__)
call_command("runserver", "--noreload")
"""
    printed, errors = run_python(code, without=without, settings=SETTINGS, TESTS_DAPHNE_APPS=apps)
    assert printed.splitlines()[-1] == f"{module}.management.commands.runserver"
    (line,) = errors.splitlines()
    assert line.startswith("channels_wsdeny: 'daphne' is not in INSTALLED_APPS, so this is Django's own runserver")
    assert "put 'daphne' after 'channels_wsdeny'" in line


def test_the_server_without_daphne_is_one_line_that_names_the_extra():
    code = """
import runpy
runpy.run_module("channels_wsdeny.daphne", run_name="__main__")
"""
    line = "channels_wsdeny: Daphne is not installed. Run `pip install 'channels-wsdeny[daphne]'`.\n"
    assert run_python(code, without=["daphne"]) == ("", line)


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_the_test_process_is_daphnes_where_processes_are_not_forked(platform, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    assert issubclass(runpy.run_path(testing.__file__)["DaphneProcess"], StockDaphneProcess)


def load():
    return scripted


def load_not_async():
    return not_async


def fail_to_load():
    raise LookupError("no such application")


@contextmanager
def started(load, host="127.0.0.1", **options):
    process = DaphneProcess(host, load, kwargs=options)
    process.start()
    try:
        yield process
    finally:
        process.terminate()
        process.join(GUARD)
        process.close()


@contextmanager
def started_server(load, **options):
    with started(load, **options) as process:
        assert process.ready.wait(GUARD)
        yield SimpleNamespace(port=process.port.value)


def test_the_process_serves_denials_and_takes_the_servers_options():
    with started_server(load, server_name="mine") as server:
        reply = ask(server, DENIAL)
    assert (reply.status, reply.body, reply.all("server")) == (401, b"no", ["mine"])


def test_an_application_that_cannot_be_started_is_a_500():
    with started_server(load_not_async) as server:
        assert ask(server, []).status == 500


def test_a_handshake_that_only_the_servers_own_look_at_the_time_ends_is_a_503(settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.1, "ACCEPT_TIMEOUT": 0.1}
    with started_server(load, websocket_handshake_timeout=0, websocket_connect_timeout=0) as server:
        assert ask(server, ["hang"]).status == 503


def test_what_the_application_raises_as_it_loads_reaches_the_parent_as_text():
    with started(fail_to_load) as process:
        error, trace = process.errors.get(timeout=GUARD)
        assert (str(error), "in fail_to_load" in trace) == ("LookupError('no such application')", True)
        process.join(GUARD)
        assert (process.exitcode, process.ready.is_set()) == (1, False)
