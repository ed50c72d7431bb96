"""Every snippet of docs/permissions.md does what the page says, with the packages themselves."""

import json

import pytest
from asgiref.sync import async_to_sync
from channels.routing import URLRouter
from django.core.cache import cache
from django.urls import path

from channels_wsdeny import DenyMiddlewareStack
from testproject.chat.models import Room
from tests.docs.pages import guardian_site, run_snippets, titled
from tests.support.clients import knock

PAGE = titled("permissions.md")
#: Those of guardian run in a process of their own.
HERE = ("rooms.py", "predicates of rules", "consumer with rules", "consumer with REST framework")
page = run_snippets("permissions.md", [PAGE[title] for title in HERE])


@pytest.mark.servers
def test_guardian_tells_who_may_see_a_room(tmp_path):
    allowed, denied, missing, anonymous = [101, "lobby"], [403, None], [404, None], [401, None]
    assert guardian_site("permissions.md", tmp_path) == {
        "/private/lobby/": {"alice": allowed, "bob": denied, "carol": allowed, "stranger": anonymous},
        "/private/attic/": {"alice": missing, "bob": missing, "carol": missing, "stranger": anonymous},
        "/public/lobby/": {"alice": allowed, "bob": denied, "carol": allowed, "stranger": anonymous},
        "/public/hall/": {"alice": denied, "bob": denied, "carol": denied, "stranger": [101, "hall"]},
    }


@pytest.fixture
def answers(users, headers_of):
    """A function from a consumer to the answers to alice, who is a member of the room, to bob, staff and a stranger."""
    Room.objects.create(slug="lobby", name="Lobby").members.add(users["alice"])
    cache.clear()

    def ask(consumer, url="/lobby/"):
        app = DenyMiddlewareStack(URLRouter([path("<slug:slug>/", consumer.as_asgi())]))
        clients = ("alice", "bob", "staff", None)
        return [async_to_sync(knock)(app, url, headers=headers_of(client)) for client in clients]

    return ask


def test_rules_tells_who_may_see_a_room(answers, settings):
    chosen = {}
    exec(PAGE["settings of rules"], chosen)
    settings.AUTHENTICATION_BACKENDS = chosen["AUTHENTICATION_BACKENDS"]
    found = answers(page.MemberConsumer)
    assert [answer.status for answer in found] == [101, 403, 101, 401]
    assert found[0].header("x-room") == "lobby"
    assert [answer.status for answer in answers(page.MemberConsumer, "/attic/")] == [404, 404, 404, 401]


def test_rest_framework_tells_who_may_see_a_room_and_ten_times_a_minute(answers):
    found = answers(page.ApiConsumer)
    assert [answer.status for answer in found] == [101, 403, 403, 401]
    assert found[0].header("x-room") == "lobby"
    assert json.loads(found[1].body) == {"detail": "You are not a member of this room."}
    assert [each.status for _ in range(9) for each in answers(page.ApiConsumer)[:1]] == [101] * 9
    assert answers(page.ApiConsumer)[0].status == 429


def test_the_page_shows_all_of_its_snippets():
    assert {*HERE, "settings of guardian", "consumers with guardian", "settings of rules"} == PAGE.keys()
