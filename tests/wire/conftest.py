from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from django.contrib.sessions.backends.db import SessionStore

from .servers import ROOT, SERVERS, start

if TYPE_CHECKING:
    from .servers import Server


def pytest_collection_modifyitems(items):
    """The servers are stopped, and their logs judged, when everything else is done."""
    items.sort(key=lambda item: item.nodeid.startswith("tests/wire/test_logs.py"))


@pytest.fixture(scope="session")
def site_environment(tmp_path_factory):
    """The servers' environment: their settings and their database."""
    return {
        "DJANGO_SETTINGS_MODULE": "tests.wire.settings",
        "WIRE_DATABASE": str(tmp_path_factory.mktemp("database") / "wire.sqlite3"),
    }


@pytest.fixture(scope="session")
def session_keys(site_environment):
    """A session key of each user, by name; the database is made by the way."""
    command = [sys.executable, "-m", "tests.wire.prepare"]
    environment = {**os.environ, **site_environment}
    made = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(made.stdout)


class Fleet:
    """The servers that run, each started when it is first asked for."""

    def __init__(self, directory_of, environment):
        self.running: dict[str, Server] = {}
        self._directory_of, self._environment = directory_of, environment

    def get(self, name, **settings):
        """The server of this name, under these settings of the package."""
        key = name + json.dumps(settings)
        if key not in self.running:
            self.running[key] = start(name, self._directory_of(name), self._environment, settings)
        return self.running[key]


@pytest.fixture(scope="session")
def fleet(tmp_path_factory, site_environment, session_keys):
    fleet = Fleet(tmp_path_factory.mktemp, site_environment)
    yield fleet
    for server in fleet.running.values():
        server.stop()


@pytest.fixture(params=SERVERS)
def server(request, fleet):
    """Each server in turn, started when it is first needed."""
    return fleet.get(request.param)


@pytest.fixture
def cookie_of(session_keys):
    """A function from a user's name (or None) to the headers of a logged-in client."""

    def headers(name):
        return {} if name is None else {"Cookie": f"sessionid={session_keys[name]}"}

    return headers


@pytest.fixture
def token():
    """A word that no other test uses."""
    return uuid4().hex


@pytest.fixture
def stored_session(site_environment):
    """A function from a session's key to what the servers' database holds for it."""

    def load(key):
        with closing(sqlite3.connect(site_environment["WIRE_DATABASE"])) as database:
            query = "SELECT session_data FROM django_session WHERE session_key = ?"
            (data,) = database.execute(query, [key]).fetchone()
        return SessionStore().decode(data)

    return load
