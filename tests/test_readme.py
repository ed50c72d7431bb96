"""The README is executed: its site on our Daphne, its snippets against the package."""

import ast
import json
import re
import sys
import time
from types import ModuleType, SimpleNamespace

import pytest
from channels.routing import ProtocolTypeRouter, URLRouter
from django.test import Client
from django.urls import path
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.authentication import BearerAuthentication, SubprotocolToken
from channels_wsdeny.concurrency import run_in_threadpool
from channels_wsdeny.conf import KEYS
from channels_wsdeny.live.expiry import credentials_expiry
from channels_wsdeny.routing.guards import guards_of
from testproject.chat.models import Room
from tests.docs.pages import blocks
from tests.docs.sites import DAPHNE, Site, ask, assert_shown, handshake_of
from tests.support.clients import cookie_header, knock
from tests.support.opened import Opened
from tests.support.policies import request_of
from tests.support.processes import ROOT
from tests.support.uvicorn_in_loop import uvicorn_with

README = (ROOT / "README.md").read_text()
ASGI, CONSUMERS, SETTINGS, *SNIPPETS = blocks("../README.md")
COMMAND, ANSWER = blocks("../README.md", "console")[0].split("\n", 1)
#: The two lines of comment of asgi.py that show chat/routing.py: its imports, and what follows them.
ROUTING = re.findall(r"^# chat/routing\.py, after (.+):\n#     (.+)$", ASGI, re.MULTILINE)[0]
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
    "chat/routing.py": "\n".join([*re.findall("`(.+?)`", ROUTING[0]), ROUTING[1]]),
}


def module_of(snippet):
    """The name of the module of the site that a snippet is, by its first line; None for one that is no whole module."""
    path = re.match(r"# (\w+/\w+)\.py\n", snippet)
    return path and path.group(1).replace("/", ".")


def test_the_first_forty_lines_show_the_site_and_the_answer_to_a_denied_client_and_say_which_pages_may_open_sockets():
    first = "".join(README.splitlines(keepends=True)[:40])
    assert all(shown in first for shown in (ASGI, CONSUMERS, COMMAND, ANSWER))
    (sentence,) = re.findall(r"A handshake with a session cookie is denied[^.]+\.", first.replace("\n", " "))
    assert "page of another site" in sentence
    assert "your own host and `CSRF_TRUSTED_ORIGINS`" in sentence


@pytest.mark.servers
def test_the_site_answers_a_denied_client_as_the_readme_shows(tmp_path):
    site = Site(tmp_path, "settings")
    site.write(FILES)
    with site.serving(f"{DAPHNE} asgi:application") as server:
        assert_shown(ANSWER, ask(server, *handshake_of(COMMAND)))


@pytest.fixture
def namespace(users, monkeypatch):
    """What the remaining snippets define, run one after another as one module, in a site with an app `chat`."""
    monkeypatch.setitem(sys.modules, "chat.models", SimpleNamespace(Room=Room))
    names = {"__name__": "readme", "DenyMiddlewareStack": DenyMiddlewareStack}
    for snippet in SNIPPETS:
        name = module_of(snippet)
        if name:
            module = ModuleType(name)
            monkeypatch.setitem(sys.modules, name, module)
            exec(compile(snippet, "README.md", "exec"), module.__dict__)
            continue
        if "router" in snippet:
            (route,) = re.findall(r"# in chat/routing\.py: (path\(.+\))$", README, re.MULTILINE)
            routes = [eval(route, {"path": path, **names})]
            names["router"] = ProtocolTypeRouter({"websocket": URLRouter(routes)})
        exec(compile(snippet, "README.md", "exec"), names)
    return names


@pytest.fixture
def application(namespace, users, settings):
    """The application of the README, with alice as the one member of the room "lobby"."""
    (backends,) = re.findall(r"`AUTHENTICATION_BACKENDS = (\[.+\])`", README)
    settings.AUTHENTICATION_BACKENDS = ast.literal_eval(backends)
    Room.objects.create(slug="lobby").members.add(users["alice"])
    return namespace["application"]


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


async def test_the_permission_of_one_room_is_the_members(application, headers_of):
    found = []
    for user, room in (("alice", "lobby"), ("bob", "lobby"), ("alice", "attic"), (None, "lobby")):
        found.append((await knock(application, f"/ws/rooms/{room}/", headers=headers_of(user))).status)
    assert found == [101, 403, 404, 401]


@pytest.mark.usefixtures("application")
def test_the_page_of_the_room_is_guarded_by_the_same_line(namespace, users):
    def status(user):
        request = request_of(users[user], "/rooms/lobby/")
        request.resolver_match = path("rooms/<slug:slug>/", namespace["room"]).resolve("rooms/lobby/")
        return namespace["room"](request, slug="lobby").status_code

    assert [status("alice"), status("bob")] == [200, 403]


async def test_a_program_is_let_in_by_its_token(application, namespace, users):
    tokens = sys.modules["chat.tokens"]
    async with uvicorn_with(application) as port:
        url = f"ws://127.0.0.1:{port}/ws/rooms/lobby/"
        message = await namespace["first_message"](tokens.token_for(users["alice"]), url)
        assert json.loads(message) == {"room": "lobby"}
        for token, status in [("made-up", 401), (tokens.token_for(users["bob"]), 403)]:
            with pytest.raises(InvalidStatus) as denied:
                await namespace["first_message"](token, url)
            assert denied.value.response.status_code == status


async def test_a_page_of_a_browser_may_send_the_same_token_as_a_subprotocol(application, users):
    tokens = sys.modules["chat.tokens"]
    token = tokens.token_for(users["alice"])
    of_pages = SubprotocolToken("bearer", BearerAuthentication(tokens.user_of))
    async with uvicorn_with(DenyMiddlewareStack(application.inner, authentication=[of_pages])) as port:
        url = f"ws://127.0.0.1:{port}/ws/rooms/lobby/"
        async with connect(url, subprotocols=["bearer", token], proxy=None) as client:  # It refuses what browsers do.
            assert (client.subprotocol, json.loads(await client.recv())) == ("bearer", {"room": "lobby"})


async def test_a_token_ends_with_its_hour_and_so_does_its_socket(application, users, monkeypatch):
    tokens = sys.modules["chat.tokens"]
    token = tokens.token_for(users["alice"])
    user, claims = await run_in_threadpool(lambda: tokens.user_of(token))
    now = time.time()
    assert (user, credentials_expiry(claims)) == (users["alice"], pytest.approx(now + 3600, abs=60))
    monkeypatch.setattr(time, "time", lambda: now + 3601)
    headers = [(b"authorization", b"Bearer " + token.encode())]
    answer = await knock(application, "/ws/rooms/lobby/", headers=headers)
    assert (answer.status, answer.problem["code"]) == (401, "invalid_credentials")


@pytest.mark.usefixtures("hasty")
async def test_a_log_out_and_a_removal_from_the_room_close_the_sockets(
    application, namespace, users, change, monkeypatch
):
    # The test project closes these sockets as well, by a signal of its own.
    monkeypatch.setattr("testproject.chat.receivers.revoke", lambda **options: None)
    client = Client()
    await change(lambda: client.force_login(users["alice"], "django.contrib.auth.backends.ModelBackend"))
    headers = cookie_header(sessionid=client.cookies["sessionid"].value)
    token = sys.modules["chat.tokens"].token_for(users["alice"])
    of_token = [(b"authorization", b"Bearer " + token.encode())]
    logged_out = await Opened(application, "/ws/rooms/lobby/", headers=headers).accepted()
    removed = await Opened(application, "/ws/rooms/lobby/", headers=of_token).accepted()
    await change(client.logout)
    assert await logged_out.close() == (4401, "session_ended")
    await change(lambda: namespace["remove_member"](Room.objects.get(slug="lobby"), users["alice"]))
    assert await removed.close() == (4403, "You were removed.")
    assert (await knock(application, "/ws/rooms/lobby/", headers=of_token)).status == 403


async def test_the_hooks_of_the_readme_tag_what_goes_out(namespace):
    stack = DenyMiddlewareStack(namespace["IntranetConsumer"].as_asgi(), hooks=sys.modules["chat.hooks"].hooks)
    answer = await knock(stack, "/", headers=[(b"x-request-id", b"mine")])
    assert answer.header("x-request-id") == "mine"


async def test_the_test_of_the_readme_passes(namespace, ws_client):
    await namespace["test_anonymous_users_have_to_log_in"](ws_client)


def test_the_settings_that_the_readme_names_are_some_of_all():
    section = README.partition("\n## Settings\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([A-Z_]+)`", section)) - {"CHANNELS_WSDENY"}
    assert named < set(KEYS)
    assert (len(KEYS) - len(named), "and nine more" in section) == (9, True)
