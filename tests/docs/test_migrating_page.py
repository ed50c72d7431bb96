"""Every snippet of docs/migrating.md does what the page says, also the code that is migrated from."""

from __future__ import annotations

import re

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.policies import AllowAny
from testproject.chat.models import Room
from tests.clients import knock
from tests.docs.pages import DOCS, blocks, run_snippets, titled

before = run_snippets("migrating.md", [titled("migrating.md")["before"]])
page = run_snippets("migrating.md", blocks("migrating.md")[1:])
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def room(users):
    room = Room.objects.create(slug="lobby", name="Lobby")
    room.members.add(users["alice"])
    return room


CASES = [(None, "lobby", 401), ("bob", "lobby", 403), ("alice", "attic", 404), ("alice", "lobby", 101)]


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize(("user", "slug", "status"), CASES)
async def test_clients_saw_a_close_before_and_see_a_status_now(user, slug, status, headers_of):
    url, headers = f"/ws/rooms/{slug}/", headers_of(user)
    old = await knock(before.application, url, headers=headers)
    assert old.status in {0, 101}
    assert (old.status == 101) == (status == 101)
    assert (await knock(page.application, url, headers=headers)).status == status


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize(("user", "slug", "status"), CASES)
async def test_hand_written_closes_go_on_to_work_within_the_stack(user, slug, status, headers_of):
    stack = DenyMiddlewareStack(before.application, default_policy=AllowAny())
    assert (await knock(stack, f"/ws/rooms/{slug}/", headers=headers_of(user))).status == status


async def test_what_is_for_everybody_stays_open():
    assert (await knock(before.application, "/ws/status/")).status == 101
    assert (await knock(page.application, "/ws/status/")).status == 101


async def test_the_stack_alone_locks_what_was_open():
    assert (await knock(DenyMiddlewareStack(before.application), "/ws/status/")).status == 401


async def test_a_path_without_a_route_was_a_traceback():
    with pytest.raises(ValueError, match="No route found"):
        await knock(before.application, "/nowhere/")
    assert (await knock(page.application, "/nowhere/")).status == 404


@pytest.mark.parametrize(
    ("code", "status"), [(4401, 401), (4599, 599 // 100 * 100), (4399, 403), (1000, 403)]
)
async def test_codes_before_the_accept_are_statuses(code, status):
    class Closing(AsyncWebsocketConsumer):
        async def connect(self):
            await self.close(code=code)

    stack = DenyMiddlewareStack(Closing.as_asgi(), default_policy=AllowAny())
    assert (await knock(stack, "/")).status == status


async def test_an_exception_in_connect_is_a_500_at_once():
    class Failing(AsyncWebsocketConsumer):
        async def connect(self):
            raise RuntimeError

    assert (await knock(DenyMiddlewareStack(Failing.as_asgi(), default_policy=AllowAny()), "/")).status == 500


async def test_a_session_that_connect_changes_is_saved(headers_of, sessions):
    class Remembering(AsyncWebsocketConsumer):
        async def connect(self):
            self.scope["session"]["seen"] = True
            await self.accept()

    stack = DenyMiddlewareStack(Remembering.as_asgi())
    answer = await knock(stack, "/", headers=headers_of("alice"))
    assert answer.header("set-cookie").startswith("sessionid=")
    assert await type(sessions["alice"])(sessions["alice"].session_key).aget("seen") is True


async def test_the_scope_has_what_it_had(headers_of):
    class Looking(AsyncWebsocketConsumer):
        async def connect(self):
            assert {"user", "session", "cookies"} <= set(self.scope)
            assert self.scope["user"].username == "alice"
            await self.accept()

    assert (
        await knock(DenyMiddlewareStack(Looking.as_asgi()), "/", headers=headers_of("alice"))
    ).status == 101


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize(
    ("name", "user", "status"),
    [
        ("tokens", b"nobody", 101),
        ("staff", b"nobody", 401),
        ("staff", b"alice", 403),
        ("staff", b"staff", 101),
    ],
)
async def test_a_user_from_around_the_stack_is_asked_about(name, user, status):
    answer = await knock(getattr(page, name), "/", headers=[(b"x-token", user)])
    assert answer.status == status


def test_the_commands_of_the_page_exist():
    from django.core.management import get_commands

    named = re.findall(r"manage\.py (\w+)", (DOCS / "migrating.md").read_text())
    assert set(named) <= set(get_commands())
