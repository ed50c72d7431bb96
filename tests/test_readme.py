"""The README is executed: its site on our Daphne, its snippets against the package."""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from django.http import HttpResponse
from django.utils.module_loading import import_string

import channels_wsdeny
from channels_wsdeny.conf import KEYS
from channels_wsdeny.policies import IsAuthenticated
from testproject.chat.models import Room
from tests.clients import knock
from tests.daphne.client import connect, read
from tests.daphne.servers import serving

ROOT = Path(channels_wsdeny.__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
ASGI, CONSUMERS, SETTINGS, *SNIPPETS = PYTHON
COMMAND, ANSWER = next(text for language, text in BLOCKS if language == "console").split("\n", 1)

ROUTING = """
from django.urls import path
from .consumers import ChatConsumer
websocket_urlpatterns = [path("ws/chat/", ChatConsumer.as_asgi())]
"""
MORE_SETTINGS = """
SECRET_KEY = "readme"
ROOT_URLCONF = []
ALLOWED_HOSTS = ["127.0.0.1"]
ASGI_APPLICATION = "asgi.application"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "readme.sqlite3"}}
"""


def test_the_first_forty_lines_show_the_site_and_the_answer_to_a_denied_client():
    first = "\n".join(README.splitlines()[:40])
    assert all(shown in first for shown in (ASGI, CONSUMERS, COMMAND, ANSWER))


@pytest.fixture
def site(tmp_path):
    """The README's site on our Daphne."""
    (tmp_path / "asgi.py").write_text(ASGI)
    (tmp_path / "settings.py").write_text(SETTINGS + MORE_SETTINGS)
    (tmp_path / "chat").mkdir()
    (tmp_path / "chat" / "__init__.py").touch()
    (tmp_path / "chat" / "consumers.py").write_text(CONSUMERS)
    (tmp_path / "chat" / "routing.py").write_text(ROUTING)
    environment = {
        "DJANGO_SETTINGS_MODULE": "settings",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
    }
    arguments = ["channels_wsdeny.daphne", "-e", "tcp:0:interface=127.0.0.1", "asgi:application"]
    with serving(tmp_path, arguments, environment) as server:
        yield server


def test_the_site_answers_a_denied_client_as_the_readme_shows(site):
    arguments = shlex.split(COMMAND.removeprefix("$ "))
    path = arguments[-1].removeprefix("http://127.0.0.1:8000")
    assert arguments[:2] == ["curl", "-i"]
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *arguments[3:-1:2], "", ""]
    with connect(site) as connection:
        connection.sendall("\r\n".join(lines).encode())
        reply = read(connection)
    head, body = ANSWER.split("\n\n")
    status_line, *headers = head.splitlines()
    assert reply.status_line == status_line
    for header in headers:
        name, value = header.split(": ", 1)
        assert reply.all(name) == [value]
    assert reply.body.decode() == body.strip()


@pytest.fixture
def namespace(db):
    """What the remaining snippets define, run one after another as one module."""
    from channels.generic.websocket import AsyncJsonWebsocketConsumer

    names = {
        "AsyncJsonWebsocketConsumer": AsyncJsonWebsocketConsumer,
        "HttpResponse": HttpResponse,
        "Room": Room,
    }
    for snippet in SNIPPETS:
        exec(compile(snippet, "README.md", "exec"), names)
    return names


def test_the_policies_of_the_readme_print_as_they_are_written(namespace):
    from channels_wsdeny.routing.guards import guards_of

    (policy,) = guards_of(namespace["MonitorConsumer"]).policies
    assert repr(policy) == "IsStaff() & ~InGroup('trainees') | IsSuperuser()"


async def test_the_readmes_own_policy_denies_with_its_code(namespace):
    answer = await knock(namespace["IntranetConsumer"].as_asgi(), "/", client=["192.0.2.1", 1])
    assert (answer.status, answer.problem["code"]) == (403, "not_from_here")


async def test_the_readmes_own_policy_allows(namespace):
    answer = await knock(namespace["IntranetConsumer"].as_asgi(), "/", client=["10.0.0.1", 1])
    assert answer.status == 101


async def test_the_readmes_public_consumer_lets_everybody_in(namespace):
    assert (await knock(namespace["StatusConsumer"].as_asgi(), "/")).status == 101


async def test_the_readmes_room_is_closed_to_visitors(namespace):
    assert (await knock(namespace["RoomConsumer"].as_asgi(), "/")).status == 401


async def test_the_readmes_deny_is_sent(namespace, headers_of):
    answer = await knock(namespace["CallConsumer"].as_asgi(), "/?version=1", headers=headers_of("alice"))
    assert (answer.status, answer.problem["code"], answer.header("upgrade")) == (426, "outdated", "websocket")


async def test_the_readmes_deny_is_not_sent_to_a_client_of_today(namespace, headers_of):
    answer = await knock(namespace["CallConsumer"].as_asgi(), "/?version=2", headers=headers_of("alice"))
    assert answer.status == 101


def test_the_readme_lists_every_setting_with_its_default():
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", README, re.MULTILINE))
    assert rows == {name: json.dumps(key.default) for name, key in KEYS.items()}


def test_the_default_policy_is_what_the_readme_says():
    assert import_string(KEYS["DEFAULT_POLICY"].default) is IsAuthenticated


def test_the_commands_of_the_readme_name_extras_that_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in re.findall(r'--editable "\.\[(\w+)\]"', README):
        assert extra in extras


def test_the_changelog_begins_with_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == channels_wsdeny.__version__


async def test_the_hooks_of_the_readme_tag_what_goes_out(namespace):
    from channels_wsdeny import DenyMiddlewareStack

    stack = DenyMiddlewareStack(namespace["IntranetConsumer"].as_asgi(), hooks=namespace["hooks"])
    answer = await knock(stack, "/", headers=[(b"x-request-id", b"mine")])
    assert answer.header("x-request-id") == "mine"


async def test_the_test_of_the_readme_passes(namespace, ws_client):
    await namespace["test_strangers_have_to_log_in"](ws_client)
