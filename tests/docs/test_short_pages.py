"""The pages with little code: index, browsers, security, servers, settings, typing, admin, testing, authentication."""

import ast
import asyncio
import json
import os
import re
import shlex
import sys
import threading
from types import ModuleType, SimpleNamespace

import pytest
from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.conf import settings
from django.contrib.auth.models import Permission
from django.core.checks import run_checks
from django.test import Client
from django.urls import path, reverse
from rest_framework.authentication import BaseAuthentication

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.authentication import issue_ticket
from channels_wsdeny.concurrency import run_in_threadpool
from channels_wsdeny.conf import KEYS, conf
from channels_wsdeny.contrib.admin import denials
from channels_wsdeny.decorators import login_required, public, require
from channels_wsdeny.policies import AllowAny, IsStaff, Policy
from channels_wsdeny.policies.permissions import default_policy
from channels_wsdeny.routing.guards import guards_of
from channels_wsdeny.testing.responses import HandshakeResponse
from testproject.chat.consumers import ChatConsumer
from tests.docs.pages import DOCS, blocks, run, run_snippets, titled
from tests.support.clients import Handshake, knock, opened, websocket_scope
from tests.support.policies import anonymous, request_of
from tests.support.processes import ROOT, run_pytest
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
    def ask(accept, user=anonymous):
        return browsers.chat(request_of(user, headers={"Accept": accept}))

    assert ask("text/html,*/*;q=0.8").status_code == 302
    denied = ask("application/problem+json")
    assert denied.status_code == 401
    assert b'"detail": "You need to log in first."' in denied.content
    assert ask("text/html", users["alice"]).status_code == 200


async def test_a_script_sees_the_close_of_a_denial_and_none_of_an_accept(headers_of):
    offered = ["chat.v2", "chat.v1"]
    handshake = Handshake(browsers.application, websocket_scope("/", subprotocols=offered))
    assert (await handshake.connect()).messages[0]["subprotocol"] == "chat.v2"
    closed = await handshake.next()
    assert (closed["code"], closed["reason"]) == (4401, "not_authenticated")
    await handshake.leave()
    async with opened(browsers.application, headers=headers_of("alice")) as handshake:
        assert await handshake.communicator.receive_nothing()


# Security.


async def test_the_applications_answer_as_their_comments_say(headers_of, caplog):
    assert callable(ChatConsumer.save)  # What asks again, by the page.
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


# Admin: the settings of docs/admin.md have the pages; the permissions are those of the table.


ADMIN = (DOCS / "admin.md").read_text()


def test_the_settings_of_the_page_have_the_pages_and_its_site_has_them_too(settings, admin_client):
    page = run("admin.md")
    settings.INSTALLED_APPS = [*page.INSTALLED_APPS, "testproject.chat"]
    assert run_checks(tags=["admin", "models", "templates"]) == []
    content = admin_client.get(reverse("admin:index")).content.decode()
    names = [name.capitalize() for name in re.findall(r"^\| (\w[\w ]+) \| `", ADMIN, re.MULTILINE)]
    assert [name for name in names if f">{name}</a>" in content] == names
    registered = [model._meta.verbose_name_plural.capitalize() for model in page.site._registry]
    assert sorted(registered) == sorted(names)


def test_the_permissions_and_the_number_of_denials_are_those_of_the_code():
    found = Permission.objects.filter(content_type__app_label="channels_wsdeny_admin")
    named = re.findall(r"`channels_wsdeny_admin\.(\w+)`", ADMIN)
    assert sorted(named) == sorted(permission.codename for permission in found)
    assert f"The newest {denials._KEPT}, of" in ADMIN
    assert denials._TIMEOUT == 24 * 60 * 60


# Testing: the tests of docs/testing.md pass, under pytest with its plugins, as those of a site.


OF_TESTS = titled("testing.md")["settings.py"]
TESTING = "\n".join(block for block in blocks("testing.md") if block != OF_TESTS)


@pytest.mark.servers
def test_its_tests_pass_and_all_are_run(tmp_path):
    is_sqlite = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
    (tmp_path / "site_settings.py").write_text(
        "from pathlib import Path\nfrom testproject.settings import *\n"
        f"BASE_DIR = Path(__file__).parent\n{OF_TESTS if is_sqlite else ''}"
    )
    environment = {"DJANGO_SETTINGS_MODULE": "site_settings", "TESTPROJECT_DATABASE_NAME": "testproject_docs"}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{tmp_path}"
    printed = run_pytest(tmp_path, TESTING, ini="asyncio_mode = strict", **environment)
    assert f"{TESTING.count('def test_')} passed" in printed, printed


def test_a_denial_is_asserted_in_three_lines_and_responses_have_what_the_page_names():
    first = blocks("testing.md")[0]
    assert len(first[first.index("async def") :].splitlines()) == 3
    response = HandshakeResponse(101)
    names = "status_code headers cookies content json code subprotocol close_code close_reason"
    for name in re.findall(r"\w+", names):
        assert f"`{name}" in (DOCS / "testing.md").read_text()
        assert hasattr(response, name)


# Authentication; what its packages do: tests/authentication.


class Rows:
    """A model with a row for one token or device."""

    def __init__(self, **row):
        self._row, self.objects = row, self

    def select_related(self, name):
        return self

    def filter(self, **wanted):
        is_active = wanted.pop("owner__is_active", None)
        found = wanted.items() <= self._row.items() and (is_active is None or self._row["owner"].is_active)
        return SimpleNamespace(first=lambda: SimpleNamespace(**self._row) if found else None)


@pytest.fixture
def page(users):
    class Consumer(AsyncWebsocketConsumer):
        """Accepts."""

    names = {
        "ApiKey": Rows(digest="TOKEN", user=users["alice"]),
        "Device": Rows(serial="7", owner=users["bob"]),
        "digest": str.upper,
        "router": login_required(Consumer).as_asgi(),
    }
    found = []
    for number, block in enumerate(blocks("authentication.md")[:7]):
        exec(compile(block, f"authentication.md, snippet {number}", "exec"), names)
        found.append(names.get("CHANNELS_WSDENY"))
    return SimpleNamespace(**names, settings=found)


async def test_tokens_and_devices_of_a_model_of_the_site(page):
    for value, status in [(b"Bearer token", 101), (b"Bearer other", 401)]:
        assert (await knock(page.application, "/", headers=[(b"authorization", value)])).status == status
    app = DenyMiddlewareStack(public(page.router), authentication=[page.DeviceAuthentication()])
    for value, status in [(b"7", 101), (b"8", 401)]:
        answer = await knock(app, "/", headers=[(b"x-device", value), (b"cookie", b"a=b"), (b"origin", b"https://a.b")])
        assert (answer.status, answer.header("www-authenticate")) == (status, "Device" if status == 401 else None)
    page.Device.objects.filter(serial="7").first().owner.is_active = False
    assert (await knock(app, "/", headers=[(b"x-device", b"7")])).status == 401


async def test_tokens_of_pages_and_tickets(page, settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "chat.tokens", page)
    settings.CHANNELS_WSDENY = page.settings[4]
    for offered, status in [(["bearer", "token"], 101), (["bearer", "other"], 401), ([], 401)]:
        assert (await knock(DenyMiddlewareStack(page.router), "/", subprotocols=offered)).status == status
    settings.CHANNELS_WSDENY = page.settings[5]
    (pattern,) = page.urlpatterns
    assert pattern.resolve("ticket/")
    assert (await knock(DenyMiddlewareStack(page.router), "/?ticket=x")).problem["code"] == "invalid_credentials"


def test_a_page_with_a_token_gets_a_ticket_without_a_csrf_token(page, settings, users, monkeypatch):
    class Tokens(BaseAuthentication):
        def authenticate(self, request):
            return (users["alice"], None) if request.headers.get("X-Token") else None

        def authenticate_header(self, request):
            return "Token"

    monkeypatch.setattr(page.TicketView, "authentication_classes", [Tokens])
    settings.ROOT_URLCONF = ModuleType("urls")
    settings.ROOT_URLCONF.urlpatterns = [path("ticket/", page.TicketView.as_view())]
    settings.CHANNELS_WSDENY = page.settings[5]
    client = Client(enforce_csrf_checks=True)
    assert client.post("/ticket/", {"path": "/"}).status_code == 401
    assert client.post("/ticket/", headers={"X-Token": "1"}).json()["code"] == "bad_request"
    ticket = client.post("/ticket/", {"path": "/"}, headers={"X-Token": "1"}).json()["ticket"]
    assert async_to_sync(knock)(DenyMiddlewareStack(page.router), f"/?ticket={ticket}").status == 101


async def test_a_ticket_is_used_up_though_the_browser_sends_the_cookie_of_the_session_as_well(
    page, settings, users, sessions, headers_of
):
    settings.CHANNELS_WSDENY = page.settings[5]
    asking = SimpleNamespace(user=users["alice"], session=sessions["alice"])
    ticket = await run_in_threadpool(lambda: issue_ticket(asking, "/"))
    app, headers = DenyMiddlewareStack(page.router), headers_of("alice")
    found = [(await knock(app, f"/?ticket={ticket}", headers=headers)).status for _ in range(2)]
    assert found == [101, 401]
    assert (await knock(app, "/", headers=headers)).status == 101
