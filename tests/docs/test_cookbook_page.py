"""Each recipe of docs/cookbook.md, run by itself, does what its page says. That for browsers: tests/browser."""

import builtins
import dis
import json
import os
import re
import sys
from pathlib import Path
from types import CodeType, SimpleNamespace

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib.auth.models import Permission
from django.core.asgi import get_asgi_application
from django.core.cache import cache
from django.test import RequestFactory
from django.urls import path

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import login_required
from testproject.chat.models import Room
from tests.docs.pages import DOCS, guardian_site, run_snippets, titled
from tests.support.clients import fetch, knock
from tests.support.opened import Opened
from tests.support.policies import request_of
from tests.support.processes import ROOT, run_pytest, run_python
from tests.support.sockets import consumer
from tests.support.uvicorn_in_loop import uvicorn_with

PAGE = titled("cookbook.md")
pytestmark = pytest.mark.django_db


def recipe(*titles):
    """A module in which a recipe, and nothing else, was run."""
    return run_snippets("cookbook.md", [PAGE[title] for title in titles])


def served(cls, route="<slug:slug>/", **options):
    return DenyMiddlewareStack(URLRouter([path(route, cls.as_asgi())]), **options)


async def test_a_program_is_let_in_by_a_token_and_told_why_not(users, settings, monkeypatch):
    class Greeter(AsyncWebsocketConsumer):
        async def connect(self):
            await self.accept()
            await self.send(f"hello {self.scope['user'].get_username()}")

    page = recipe("tokens.py", "token settings", "client.py")
    monkeypatch.setitem(sys.modules, "mysite.tokens", page)
    settings.CHANNELS_WSDENY = page.CHANNELS_WSDENY
    tokens = {page.signer.sign(users["alice"].pk): "hello alice", "made-up": "401 invalid_credentials: The cred"}
    async with uvicorn_with(DenyMiddlewareStack(login_required(Greeter).as_asgi())) as port:
        for token, expected in tokens.items():
            assert (await page.first_message(f"ws://127.0.0.1:{port}/", token)).startswith(expected)
    bearer = [(b"authorization", b"Bearer made-up")]
    denied = await knock(DenyMiddlewareStack(login_required(Greeter).as_asgi()), "/", headers=bearer)
    assert denied.header("www-authenticate").startswith("Bearer")


async def test_the_backend_gives_permission_for_one_room(users, headers_of, settings, change):
    page = recipe("backends.py", "rooms.py")
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", f"{page.__name__}.RoomBackend"]
    await change(lambda: Room.objects.create(slug="lobby", name="Lobby").members.add(users["alice"]))
    app, found = served(page.RoomConsumer), []
    for user, url in (("alice", "/lobby/"), ("bob", "/lobby/"), ("alice", "/attic/"), (None, "/lobby/")):
        found.append((await knock(app, url, headers=headers_of(user))).status)
    assert found == [101, 403, 404, 401]


async def test_the_eleventh_try_of_a_minute_and_the_sixth_socket_are_denied(headers_of, clock):
    cache.clear()
    app = served(recipe("rate limit").TickerConsumer, "")
    opened = [await Opened(app, "/", headers=headers_of("alice")).accepted() for _ in range(5)]
    sixth = await knock(app, "/", headers=headers_of("alice"))
    assert (sixth.status, sixth.problem["code"]) == (429, "too_many_connections")
    codes = [(await knock(app, "/")).problem["code"] for _ in range(5)]
    assert codes == ["not_authenticated"] * 4 + ["throttled"]
    for each in opened:
        await each.leave()


async def test_pages_of_the_named_origins_may_open_sockets(headers_of, settings):
    settings.CHANNELS_WSDENY = recipe("origins").CHANNELS_WSDENY
    widget = served(recipe("one origin").WidgetConsumer, "")
    member = DenyMiddlewareStack(login_required(consumer()).as_asgi())

    async def ask(app, origin, user=None):
        headers = [*headers_of(user), (b"host", b"testserver")]
        answer = await knock(app, "/", headers=headers + ([(b"origin", origin)] if origin else []))
        return answer.status if answer.status == 101 else (answer.status, answer.problem["code"])

    denied = (403, "origin_not_allowed")
    for origin, of_member, of_widget in [
        (b"https://app.example.com", 101, 101),
        (b"https://a.example.org", 101, denied),
        (b"http://testserver", 101, denied),
        (b"https://evil.example", denied, denied),
        (None, 101, denied),
    ]:
        assert (await ask(member, origin, "alice"), await ask(widget, origin)) == (of_member, of_widget), origin


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("close", [(4403, "You were kicked out."), (4401, "session_ended")])
async def test_a_user_who_is_kicked_out_loses_the_open_sockets(users, headers_of, change, close):
    page = recipe("kick.py")
    if close[0] == 4401:
        page.revoke = lambda **options: None
    app = served(login_required(consumer()), "")
    socket = await Opened(app, "/", headers=headers_of("alice")).accepted()

    def post():
        request = RequestFactory().post("/kick/")
        request.user = users["staff"]
        denied = page.kick(request, pk=users["alice"].pk)
        users["staff"].user_permissions.add(Permission.objects.get(codename="change_user"))
        request.user = type(request.user).objects.get(pk=request.user.pk)
        return denied.status_code, page.kick(request, pk=users["alice"].pk).status_code

    assert await change(post) == (403, 204)
    assert await socket.close() == close
    assert (await knock(app, "/", headers=headers_of("alice"))).status == 401


async def test_permissions_of_rest_framework_deny_with_its_body(users, headers_of, change):
    app = served(recipe("REST framework").MailConsumer, "")
    denied = await knock(app, "/", headers=headers_of("alice"))
    assert (denied.status, json.loads(denied.body)) == (403, {"detail": "Enter your e-mail address first."})
    users["alice"].email = "alice@example.com"
    await change(users["alice"].save)
    assert (await knock(app, "/", headers=headers_of("alice"))).status == 101
    assert (await knock(app, "/")).status == 401


@pytest.mark.servers
def test_permissions_of_guardian_open_a_room_and_close_it_for_a_user_and_for_a_group(tmp_path):
    assert guardian_site("cookbook.md", tmp_path) == [
        403,
        *[[4403, "permission_denied"]] * 2,
        [4401, "not_authenticated"],
    ]


async def test_an_application_of_another_framework_is_guarded_and_finds_the_user(headers_of, monkeypatch):
    async def api(scope, receive, send):
        found.append((scope["path"], scope["user"].username))
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})
        else:
            await receive()
            await send({"type": "websocket.accept"})
            await receive()

    found = []
    monkeypatch.setitem(sys.modules, "api.main", SimpleNamespace(api=api))
    monkeypatch.setitem(sys.modules, "chat.routing", SimpleNamespace(websocket_urlpatterns=[]))
    application = recipe("beside Django").application
    for user, page, accept in [(None, 401, 401), ("alice", 204, 101)]:
        assert (await fetch(application, "/api/items", headers=headers_of(user))).status == page
        assert (await knock(application, "/ws/api/items", headers=headers_of(user))).status == accept
    assert found == [("/api/items", "alice"), ("/ws/api/items", "alice")]
    assert (await fetch(application, "/login/")).status == 200


async def test_every_403_of_a_socket_has_the_body_of_the_site(headers_of):
    hooks = recipe("hooks.py").hooks
    closing, widget = login_required(consumer(lambda self: self.close())), recipe("one origin").WidgetConsumer
    for each, user, status in [(closing, "alice", 403), (widget, None, 403), (closing, None, 401)]:
        answer = await knock(served(each, "", hooks=hooks), "/", headers=headers_of(user))
        assert answer.status == status
        is_own = json.loads(answer.body) == {"error": "forbidden", "help": "https://example.com/help"}
        assert is_own == (status == 403)
    foreign = [*headers_of("alice"), (b"host", b"testserver"), (b"origin", b"https://evil.example")]
    answer = await knock(served(closing, "", hooks=hooks), "/", headers=foreign)
    assert (answer.status, answer.problem["code"]) == (403, "origin_not_allowed")


async def test_a_person_is_redirected_to_log_in_and_a_handshake_is_not():
    page, html = recipe("pages.py"), [(b"accept", b"text/html,*/*;q=0.8")]
    sockets = URLRouter([path("ws/", page.ChatConsumer.as_asgi())])
    site = ProtocolTypeRouter({"websocket": sockets, "http": get_asgi_application()})
    app = DenyMiddlewareStack(site, hooks=page.hooks)
    redirect = await fetch(app, "/ws/", headers=html)
    assert (redirect.status, redirect.header("location")) == (302, "/login/?next=/ws/")
    assert (await fetch(app, "/ws/")).problem["code"] == "not_authenticated"
    denied = await knock(app, "/ws/", headers=html)
    assert (denied.status, denied.header("content-type")) == (401, "text/html; charset=utf-8")
    assert page.chat(request_of(headers={"Accept": "text/html"})).status_code == 302


async def test_a_subprotocol_is_chosen_and_a_client_without_any_has_to_update(headers_of):
    app = served(recipe("subprotocols").VersionedConsumer, "")
    answer = await knock(app, "/", headers=headers_of("alice"), subprotocols=["chat.v2", "chat.v3"])
    assert answer.messages[0]["subprotocol"] == "chat.v3"
    denied = await knock(app, "/", headers=headers_of("alice"), subprotocols=["chat.v1"])
    assert (denied.problem["code"], denied.problem["spoken"]) == ("outdated", ["chat.v3", "chat.v2"])


@pytest.mark.servers
def test_the_tests_of_the_recipe_pass_as_a_sites_own(tmp_path):
    environment = {"DJANGO_SETTINGS_MODULE": "testproject.settings"}
    environment["TESTPROJECT_DATABASE_NAME"] = "testproject_cookbook"
    printed = run_pytest(tmp_path, PAGE["test_rooms.py"], **environment)
    assert "4 passed" in printed, printed


ASK = """
import asyncio, django
django.setup()
from channels_wsdeny.testing import WebsocketClient
for path in ("/ws/monitor/", "/ws/nothing/?token=swordfish"):
    asyncio.run(WebsocketClient().handshake(path, client=("10.0.0.7", 5000)))
"""


@pytest.mark.servers
def test_a_denial_is_a_line_of_json_but_for_those_that_are_left_out(tmp_path):
    (tmp_path / "site_settings.py").write_text(f"from testproject.settings import *\n{PAGE['settings.py']}")
    _, errors = run_python(ASK, settings="site_settings", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    (line,) = errors.splitlines()
    found = json.loads(line)
    assert found.pop("duration") >= 0
    assert found == {
        "level": "WARNING",
        "message": "Denied /ws/nothing/: 404 not_found",
        "path": "/ws/nothing/",
        "status": 404,
        "code": "not_found",
        "policy": None,
        "user": None,
        "client": "10.0.0.7:5000",
    }


@pytest.mark.parametrize("title", [title for title in PAGE if title.endswith(".py") and title != "settings.py"])
def test_each_file_of_the_page_names_nothing_that_it_does_not_import(title):
    known = {*dir(builtins), *vars(recipe(title))}
    for code in codes_of(compile(PAGE[title], title, "exec")):
        names = {each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL"}
        assert names <= known, code.co_name


def codes_of(code):
    """The code of a module or function, and of all functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_of(constant)


def test_every_snippet_of_the_page_has_a_title_and_a_test():
    here, elsewhere = Path(__file__).read_text(), {"chat.js", "settings of guardian", "guardian"}
    titles = [title for title in PAGE if title not in elsewhere]
    assert [title for title in titles if not re.search(f"[\"']{re.escape(title)}[\"']", here)] == []
    assert len(PAGE) == len(re.findall(r"^```\w", (DOCS / "cookbook.md").read_text(), re.MULTILINE))
