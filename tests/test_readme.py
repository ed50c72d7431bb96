"""The README is executed: its site on our Daphne, its snippets against the package."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import sys
import tomllib
from types import SimpleNamespace

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from django.utils.module_loading import import_string

import channels_wsdeny
from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.conf import KEYS
from channels_wsdeny.decorators import login_required
from channels_wsdeny.policies import IsAuthenticated
from channels_wsdeny.routing.guards import guards_of
from testproject.chat.models import Room
from tests.support.clients import knock
from tests.support.processes import ROOT, serving

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
ASGI, CONSUMERS, SETTINGS, *SNIPPETS = [text for language, text in BLOCKS if language == "python"]
COMMAND, ANSWER = next(text for language, text in BLOCKS if language == "console").split("\n", 1)
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = {
    "asgi.py": ASGI,
    "settings.py": SETTINGS.replace(
        "...,", '*(f"django.contrib.{app}" for app in ("auth", "contenttypes", "sessions", "staticfiles")),'
    )
    + """
SECRET_KEY = "readme"
ROOT_URLCONF = []
ALLOWED_HOSTS = ["127.0.0.1"]
ASGI_APPLICATION = "asgi.application"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "readme.sqlite3"}}
""",
    "chat/__init__.py": "",
    "chat/consumers.py": CONSUMERS,
    "chat/routing.py": """
from django.urls import re_path
from .consumers import ChatConsumer
websocket_urlpatterns = [re_path(r"ws/chat/(?P<room_name>\\w+)/$", ChatConsumer.as_asgi())]
""",
}


def test_the_first_forty_lines_show_the_site_and_the_answer_to_a_denied_client():
    first = "".join(README.splitlines(keepends=True)[:40])
    assert all(shown in first for shown in (ASGI, CONSUMERS, COMMAND, ANSWER))


@pytest.mark.servers
def test_the_site_answers_a_denied_client_as_the_readme_shows(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = {"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": path}
    arguments = shlex.split(COMMAND.removeprefix("$ "))
    assert arguments[:2] == ["curl", "-i"]
    headers = dict(header.split(": ", 1) for header in arguments[3:-1:2])
    command = "-m channels_wsdeny.daphne -b 127.0.0.1 -p {port} asgi:application"
    with serving(command.split(), tmp_path, environment) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", arguments[-1].removeprefix("http://127.0.0.1:8000"), headers=headers)
        response = connection.getresponse()
        content = response.read().decode()
        connection.close()
    head, body = ANSWER.split("\n\n")
    status_line, *shown = head.splitlines()
    assert f"HTTP/1.1 {response.status} {response.reason}" == status_line
    for header in shown:
        name, value = header.split(": ", 1)
        assert response.headers.get_all(name) == [value]
    assert content == body.strip()


@pytest.fixture
def namespace(users, monkeypatch):
    """What the remaining snippets define, run one after another as one module, in a site with an app `chat`."""
    monkeypatch.setitem(sys.modules, "chat.models", SimpleNamespace(Room=Room))
    monkeypatch.setitem(sys.modules, "chat.tokens", SimpleNamespace(user_of={"secret": users["alice"]}.get))
    names = {"DenyMiddlewareStack": DenyMiddlewareStack, "router": login_required(AsyncWebsocketConsumer.as_asgi())}
    for snippet in SNIPPETS:
        exec(compile(snippet, "README.md", "exec"), names)
    return names


async def test_the_consumers_of_the_readme_answer_as_it_says(namespace, headers_of):
    async def ask(name, url="/", **scope):
        return await knock(namespace[name].as_asgi(), url, **scope)

    (policy,) = guards_of(namespace["MonitorConsumer"]).policies
    assert repr(policy) == "IsStaff() & ~InGroup('trainees') | IsSuperuser()"
    answer = await ask("IntranetConsumer", client=["192.0.2.1", 1])
    assert (answer.status, answer.problem["code"]) == (403, "not_from_here")
    assert (await ask("IntranetConsumer", client=["10.0.0.1", 1])).status == 101
    assert (await ask("StatusConsumer")).status == 101
    assert (await ask("RoomConsumer")).status == 401
    answer = await ask("CallConsumer", "/?version=1", headers=headers_of("alice"))
    assert (answer.status, answer.problem["code"], answer.header("upgrade")) == (426, "outdated", "websocket")
    assert (await ask("CallConsumer", "/?version=2", headers=headers_of("alice"))).status == 101


async def test_a_token_opens_the_sockets_of_the_readme(namespace):
    for token, status in [(b"secret", 101), (b"other", 401)]:
        headers = [(b"authorization", b"Bearer " + token)]
        assert (await knock(namespace["application"], "/", headers=headers)).status == status


async def test_the_hooks_of_the_readme_tag_what_goes_out(namespace):
    stack = DenyMiddlewareStack(namespace["IntranetConsumer"].as_asgi(), hooks=namespace["hooks"])
    answer = await knock(stack, "/", headers=[(b"x-request-id", b"mine")])
    assert answer.header("x-request-id") == "mine"


async def test_the_test_of_the_readme_passes(namespace, ws_client):
    await namespace["test_anonymous_users_have_to_log_in"](ws_client)


def test_the_readme_lists_every_setting_with_its_default():
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", README, re.MULTILINE))
    assert rows == {name: json.dumps(key.default) for name, key in KEYS.items()}
    assert import_string(KEYS["DEFAULT_POLICY"].default) is IsAuthenticated


def test_the_commands_of_the_readme_name_extras_and_markers_that_exist():
    extras = re.findall(r'--editable "\.\[(\w+)\]"', README)
    assert set(extras) <= set(PYPROJECT["project"]["optional-dependencies"])
    fast, whole = re.findall(r"\.venv/bin/python -m pytest\b(.*)", README)
    registered = [line.partition(":")[0] for line in PYPROJECT["tool"]["pytest"]["ini_options"]["markers"]]
    expression = " and ".join(f"not {marker}" for marker in registered)
    assert (fast, whole) == (f' -m "{expression}"', "")


def test_the_lowest_versions_that_are_tested_are_those_that_are_allowed():
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    named = [
        *project["dependencies"],
        *(each for extra in extras.keys() - {"bench", "dev", "docs"} for each in extras[extra]),
    ]
    floors = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?>=([\d.]+)$", "\n".join(named), re.MULTILINE))
    lowest = dict(re.findall(r"^([\w-]+)==(.+)$", (ROOT / ".ci" / "lowest.txt").read_text(), re.MULTILINE))
    assert lowest.pop("psycopg-binary") == lowest["psycopg"]
    assert lowest == floors


def test_the_changelog_begins_with_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == channels_wsdeny.__version__
