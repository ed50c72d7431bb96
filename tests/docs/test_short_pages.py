"""The pages with little code: index, browsers, security, servers, settings, typing."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import shlex
import threading

import pytest
from channels.routing import URLRouter
from django.contrib.auth.models import AnonymousUser
from django.core.checks import run_checks
from django.test import RequestFactory
from django.urls import path

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.concurrency import run_in_threadpool
from channels_wsdeny.conf import KEYS, conf
from channels_wsdeny.decorators import require
from channels_wsdeny.policies import AllowAny, IsStaff, Policy
from channels_wsdeny.policies.permissions import default_policy
from channels_wsdeny.routing.guards import guards_of
from testproject.chat.consumers import ChatConsumer
from tests.docs.pages import DOCS, blocks, run, run_snippets
from tests.support.clients import Handshake, knock, websocket_scope
from tests.support.processes import ROOT
from tests.support.processes import run as run_process

index, browsers, security = run("index.md"), run("browsers.md"), run("security.md")
servers, typing_page = run("servers.md"), run("typing.md")
SERVERS, SETTINGS = (DOCS / "servers.md").read_text(), (DOCS / "settings.md").read_text()
pytestmark = pytest.mark.django_db


async def test_the_consumer_of_the_index_demands_its_permission():
    (policy,) = guards_of(index.ChatConsumer).policies
    assert str(policy) == "HasPermission('chat.view_room')"
    assert (await knock(index.ChatConsumer.as_asgi(), "/")).status == 401


# Browsers.


def test_a_page_sends_a_visitor_to_log_in_and_a_script_gets_the_reason(users):
    def ask(view, accept, user=None):
        request = RequestFactory().get("/chat/", headers={"Accept": accept})
        request.user = user or AnonymousUser()
        return view(request)

    assert ask(browsers.chat, "text/html,*/*;q=0.8").status_code == 302
    denied = ask(browsers.chat, "application/problem+json")
    assert denied.status_code == 401
    assert b'"detail": "You need to log in first."' in denied.content
    assert ask(browsers.chat, "text/html", users["alice"]).status_code == 200


async def test_a_script_sees_the_close_of_a_denial_and_none_of_an_accept(headers_of):
    offered = ["chat.v2", "chat.v1"]
    handshake = Handshake(browsers.application, websocket_scope("/", subprotocols=offered))
    assert (await handshake.connect()).messages[0]["subprotocol"] == "chat.v2"
    closed = await handshake.next()
    assert (closed["code"], closed["reason"]) == (4401, "not_authenticated")
    await handshake.leave()
    handshake = Handshake(browsers.application, websocket_scope("/", headers=headers_of("alice")))
    assert (await handshake.connect()).status == 101
    assert await handshake.communicator.receive_nothing()
    await handshake.leave()


# Security.


async def test_the_applications_answer_as_their_comments_say(headers_of, caplog):
    for name, stranger, alice in [
        ("undecorated", 401, 101),
        ("forgotten", 500, 500),
        ("without_stack", 401, 403),
        ("failing", 500, 500),
    ]:
        caplog.clear()
        answer = await knock(getattr(security, name), "/?token=swordfish")
        assert answer.status == stranger, name
        for secret in (b"swordfish", b"Broken"):
            assert secret not in answer.body
        assert not any("token" in each.getMessage() for each in caplog.records if each.name == "channels_wsdeny")
        assert (await knock(getattr(security, name), "/", headers=headers_of("alice"))).status == alice, name


async def test_what_a_hook_sets_in_its_thread_is_seen_by_the_next_step_and_not_beyond_an_asynchronous_one():
    class Waits(Policy):
        async def acheck(self, request):
            """Until another handshake has the thread of the steps before."""
            taken, free = asyncio.Event(), threading.Event()
            loop = asyncio.get_running_loop()

            def take():
                loop.call_soon_threadsafe(taken.set)
                free.wait()

            request.ctx.other = asyncio.ensure_future(run_in_threadpool(take)), free
            await taken.wait()
            return True

    class Looks(Policy):
        def check(self, request):
            request.ctx.seen.append(getattr(local, "token", None) is request.ctx.token)
            return True

    local, hooks, found = threading.local(), Hooks(), []

    @hooks.on_request
    def set_it(request):
        request.ctx.token, request.ctx.seen = object(), []
        local.token = request.ctx.token
        found.append(request.ctx)

    app = require(Looks() & AllowAny())(require(Waits())(require(Looks())(security.Undecorated.as_asgi())))
    await knock(DenyMiddlewareStack(app, hooks=hooks), "/")
    other, free = found[0].other
    free.set()
    await other
    assert found[0].seen == [True, False]


def test_the_method_that_asks_again_exists():
    assert callable(ChatConsumer.save)


# Servers.


def test_the_table_of_servers_is_the_readmes():
    table = re.search(r"^\| server \|.*?\n\n", SERVERS, re.MULTILINE | re.DOTALL).group()
    assert table in (ROOT / "README.md").read_text()


async def test_the_observer_prints_what_a_server_offers(capsys):
    await knock(servers.Observer(servers.application), "/")
    assert json.loads(capsys.readouterr().out) == ["websocket.http.response"]


DENIED = """
import asyncio, django
django.setup()
from channels_wsdeny.testing import WebsocketClient
assert asyncio.run(WebsocketClient().handshake("/ws/monitor/")).status_code == 401
"""


@pytest.mark.servers
def test_a_denial_is_shown_by_the_setting_of_the_page_and_not_by_djangos_default(tmp_path):
    shown = {"{}": "", repr(servers.LOGGING): "Denied /ws/monitor/: 401 not_authenticated\n"}
    for number, (setting, expected) in enumerate(shown.items()):
        lines = ["from testproject.settings import *", "DEBUG = True", f"LOGGING = {setting}", ""]
        (tmp_path / f"settings{number}.py").write_text("\n".join(lines))
        path = os.pathsep.join([str(tmp_path), str(ROOT)])
        ran = run_process(["-c", DENIED], DJANGO_SETTINGS_MODULE=f"settings{number}", PYTHONPATH=path)
        assert (ran.returncode, ran.stderr) == (0, expected)


@pytest.mark.servers
@pytest.mark.parametrize("line", blocks("servers.md", "sh")[0].splitlines())
def test_the_command_lines_have_options_that_exist(line):
    words = shlex.split(line.removeprefix("python -m "))
    command = ["-c", "from granian.cli import entrypoint; entrypoint()"] if words[0] == "granian" else ["-m", words[0]]
    helped = run_process([*command, "--help"]).stdout
    for option in (word for word in words[1:] if word.startswith("-")):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", helped), f"{option} is no option of {words[0]}"


# Settings.

HEADINGS = re.findall(r"^## `(\w+)`\n\n\*(.+)\* Default: `(.+)`$", SETTINGS, re.MULTILINE)


def test_every_key_has_its_heading_unit_and_default_in_the_order_of_the_code():
    defaults = {name: ast.literal_eval(default) for name, _, default in HEADINGS}
    written = {name: list(key.default) if isinstance(key.default, tuple) else key.default for name, key in KEYS.items()}
    assert list(defaults.items()) == list(written.items())
    assert len(re.findall(r"^## ", SETTINGS, re.MULTILINE)) == len(KEYS)
    for name, kind, _ in HEADINGS:
        for unit in ("seconds", "bytes", "threads"):
            assert unit not in KEYS[name].expected or unit in kind, name


@pytest.fixture
def errors_of_settings(settings):
    """A function from a value of `CHANNELS_WSDENY` to what the system checks of the values find."""

    def find(value):
        settings.CHANNELS_WSDENY = value
        return [found for found in run_checks() if re.fullmatch(r"channels_wsdeny\.E00[1-4]", found.id)]

    return find


def test_the_example_of_the_whole_dict_passes_the_checks(errors_of_settings):
    assert errors_of_settings(run_snippets("settings.md", blocks("settings.md")[:1]).CHANNELS_WSDENY) == []
    assert conf.POLICY_TIMEOUT == 2.5
    assert isinstance(default_policy(), IsStaff)


@pytest.mark.parametrize("name", KEYS)
def test_each_heading_has_an_example_of_its_key_alone_that_passes_the_checks(name, errors_of_settings):
    section = SETTINGS.partition(f"\n## `{name}`\n")[2].partition("\n## ")[0]
    (example,) = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    given = run_snippets("settings.md", [example]).CHANNELS_WSDENY
    assert list(given) == [name]
    assert given[name] != KEYS[name].default
    assert errors_of_settings(given) == []


def test_a_value_of_a_wrong_type_counts_as_if_it_were_not_there_but_for_the_first_six(settings):
    settings.CHANNELS_WSDENY = dict.fromkeys(KEYS, object())
    counted = {name for name, key in KEYS.items() if getattr(conf, name) == key.default}
    assert set(KEYS) - counted == set(list(KEYS)[:6])


# Types.


@pytest.fixture
def headers_of_a_superuser(users, headers_of):
    users["alice"].is_superuser = True
    users["alice"].save()
    return headers_of("alice")


async def test_the_typed_consumer_finds_its_object_and_what_hooks_have_kept(headers_of_a_superuser):
    class Observed(typing_page.RoomConsumer):
        async def accept(self, *arguments, **kwargs):
            raise Deny(418, f"{self.room} {self.request_id}")

    stack = DenyMiddlewareStack(URLRouter([path("<slug:slug>/", Observed.as_asgi())]), hooks=typing_page.hooks)
    answer = await knock(stack, "/lobby/", headers=[*headers_of_a_superuser, (b"x-request-id", b"mine")])
    assert (answer.status, answer.problem["detail"]) == (418, "lobby mine")
