"""``manage.py runserver``."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from .client import ask, body, start, unique
from .servers import GUARD, ROOT, Server, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS = ["--settings", "tests.daphne.settings"]


@contextmanager
def runserver(directory: Path, apps: str, *options: str) -> Iterator[Server]:
    arguments = ["django", "runserver", "--noreload", *options, *SETTINGS, "127.0.0.1:0"]
    with serving(directory, arguments, {"TESTS_DAPHNE_APPS": apps}) as server:
        yield server


def command_module(apps: str, before: str = "") -> str:
    """Where the command comes from, with `apps` installed."""
    code = f"""{before}
import django
django.setup()
from channels_wsdeny.management.commands.runserver import Command
print(Command.__module__)
"""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.daphne.settings",
        "TESTS_DAPHNE_APPS": apps,
    }
    command = [sys.executable, "-c", code]
    output = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, check=True, timeout=GUARD
    ).stdout
    return output.decode().strip()


@pytest.mark.parametrize(
    "apps",
    [
        "channels_wsdeny daphne",
        "channels_wsdeny daphne django.contrib.staticfiles",
        "channels_wsdeny daphne.apps.DaphneConfig",
    ],
)
def test_runserver_denies(tmp_path: Path, apps: str) -> None:
    with runserver(tmp_path, apps) as server:
        reply = ask(server, [start(401), body(b"no")])
    assert (reply.status, reply.body) == (401, b"no")


def test_runserver_logs_the_real_status(tmp_path: Path) -> None:
    path = unique()
    with runserver(tmp_path, "channels_wsdeny daphne") as server:
        ask(server, [start(401), body(b"no")], path=path)
        assert f"HTTP GET {path} 401 [" in server.wait_for(f"GET {path}")


def test_runserver_takes_daphnes_options(tmp_path: Path) -> None:
    options = ["--websocket_handshake_timeout", "1"]
    with runserver(tmp_path, "channels_wsdeny daphne", *options) as server:
        assert ask(server, [start(401), body()]).status == 401


def test_runserver_is_staticfiles_where_daphne_is_no_app() -> None:
    apps = "channels_wsdeny django.contrib.staticfiles"
    assert command_module(apps) == "django.contrib.staticfiles.management.commands.runserver"


def test_runserver_is_djangos_where_nothing_else_has_one() -> None:
    assert command_module("channels_wsdeny") == "django.core.management.commands.runserver"


@pytest.mark.parametrize(
    ("apps", "module"),
    [
        ("channels_wsdeny", "django.core.management.commands.runserver"),
        (
            "channels_wsdeny django.contrib.staticfiles",
            "django.contrib.staticfiles.management.commands.runserver",
        ),
    ],
)
def test_runserver_needs_no_daphne(apps: str, module: str) -> None:
    assert command_module(apps, before="import sys; sys.modules['daphne'] = None") == module
