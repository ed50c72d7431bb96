"""Live servers of sites that look at Origin: their own is allowed, whatever imported the site before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from channels.routing import ProtocolTypeRouter
from channels.security.websocket import AllowedHostsOriginValidator, OriginValidator
from django.test import override_settings
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.policies import AllowAny
from channels_wsdeny.testing.daphneserver import DaphneServer
from channels_wsdeny.testing.uvicornserver import UvicornServer

from .apps import echo

#: Channels' consumers close old connections, also those that deny.
pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def application(settings, monkeypatch):
    """A site that was imported before its live server is begun."""
    settings.ALLOWED_HOSTS = ["example.com"]
    application = DenyMiddlewareStack(
        ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(echo)}), default_policy=AllowAny()
    )
    monkeypatch.setitem(globals(), "imported", application)
    settings.ASGI_APPLICATION = f"{__name__}.imported"
    return application


@pytest.fixture
def validator(application):
    return application.inner.application_mapping["websocket"]


@pytest.fixture(params=[UvicornServer, DaphneServer])
def server(request, monkeypatch):
    """Both classes of servers; the applications need no database, so it does no harm that none is shared."""
    monkeypatch.setattr("channels_wsdeny.testing.daphneserver.in_memory", lambda: ())
    return request.param


def is_open_to(origin, server):
    try:
        with connect(f"{server.ws_url}/", origin=origin):
            return True
    except InvalidStatus as error:
        if error.response.status_code != 403:
            raise
        return False


def test_the_servers_own_origin_is_allowed_by_the_site(application, server):
    with server() as running:
        assert is_open_to(running.url, running)


def test_the_servers_own_origin_is_allowed_by_an_application_that_is_given(application, settings, server):
    settings.ASGI_APPLICATION = None
    with server(application) as running:
        assert is_open_to(running.url, running)


def test_other_origins_are_denied_as_ever(application):
    with UvicornServer() as running:
        assert not is_open_to("http://evil.example", running)


@pytest.mark.parametrize("is_given", [False, True])
def test_a_servers_origin_is_allowed_no_longer_than_it_runs(is_given, application, validator, settings):
    if is_given:
        settings.ASGI_APPLICATION = None
    with UvicornServer(application if is_given else None):
        pass
    assert validator.allowed_origins == ["example.com"]


def test_origins_of_the_sites_own_are_left_alone(settings, monkeypatch):
    monkeypatch.setitem(globals(), "imported", OriginValidator(echo, ["example.com"]))
    settings.ASGI_APPLICATION = f"{__name__}.imported"
    with UvicornServer() as running:
        assert not is_open_to(running.url, running)


def test_a_site_that_is_imported_while_hosts_are_overridden_follows_them_back(application, validator):
    with override_settings(ALLOWED_HOSTS=["a.example"]):
        validator.allowed_origins = AllowedHostsOriginValidator(echo).allowed_origins
    assert validator.allowed_origins == ["example.com"]


def test_overrides_within_overrides_are_followed(application, validator):
    with override_settings(ALLOWED_HOSTS=["a.example"]), override_settings(ALLOWED_HOSTS=["b.example"]):
        assert validator.allowed_origins == ["b.example"]
    assert validator.allowed_origins == ["example.com"]


def test_what_is_no_application_is_no_error(settings):
    settings.ASGI_APPLICATION = f"{__name__}.ROOT"
    with override_settings(ALLOWED_HOSTS=["a.example"]):
        pass


SPAWNED = """
import multiprocessing
multiprocessing.set_start_method("spawn")
import django
django.setup()
from websockets.sync.client import connect
from channels_wsdeny.testing.daphneserver import DaphneServer
with DaphneServer() as server, connect(f"{server.ws_url}/ws/of-ones-own/", origin=server.url):
    print("open")
"""


def test_a_process_that_begins_anew_imports_the_site_with_the_host_allowed():
    ran = subprocess.run(
        [sys.executable, "-c", SPAWNED],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.testing.origin_settings"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout == "open\n", ran.stderr


def run_by_djangos_runner(tmp_path, *cases):
    """The outcome of these classes of `origin_cases`."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "django", "test", "--noinput"),
            *(f"tests.testing.origin_cases.{case}" for case in cases),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.testing.origin_settings",
            "TESTS_TESTING_DATABASE": str(tmp_path / "test.sqlite3"),
            "TESTPROJECT_DATABASE_NAME": "testproject_origins",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("case", ["OnChannels", "OnDaphne", "OnUvicorn", "OfOnesOwn"])
def test_the_checks_before_the_tests_close_no_socket(case, tmp_path):
    ran = run_by_djangos_runner(tmp_path, case)
    assert ran.returncode == 0, ran.stderr


def test_tests_that_import_the_site_before_close_no_socket(tmp_path):
    ran = run_by_djangos_runner(tmp_path, "Early", "OnChannels", "OnDaphne", "OnUvicorn")
    assert ran.returncode == 0, ran.stderr
    assert "Ran 5 tests" in ran.stderr
