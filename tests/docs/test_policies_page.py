"""Every snippet and table of docs/policies.md says what is so, and every snippet of docs/permissions.md."""

import json
import re

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.routing import URLRouter
from django.core.cache import cache
from django.urls import path

from channels_wsdeny import DenyMiddlewareStack, decorators, policies
from channels_wsdeny.decorators import require
from channels_wsdeny.routing.guards import guards_of
from testproject.chat.models import Room
from tests.docs.pages import DOCS, guardian_site, run, run_snippets, titled
from tests.support.clients import Handshake, knock, websocket_scope
from tests.support.policies import anonymous, request_of
from tests.support.sockets import consumer, guarded

page = run("policies.md")
TEXT = (DOCS / "policies.md").read_text()
POLICIES = {name: getattr(policies, name) for name in policies.__all__}
pytestmark = pytest.mark.django_db
ask = async_to_sync(knock)


def test(user):
    """What the page calls `test`."""
    return False


test.__test__ = False


def test_the_first_policy_prints_as_it_is_written_and_decides(users, headers_of):
    (policy,) = guards_of(page.MonitorConsumer).policies
    assert f"@require({policy})".replace("'", '"') in TEXT
    app, headers = page.MonitorConsumer.as_asgi(), headers_of("staff")
    assert ask(app, "/", headers=headers).status == 101
    users["staff"].groups.create(name="trainees")
    assert ask(app, "/", headers=headers).status == 403


async def test_the_table_names_every_policy_with_the_statuses_that_it_denies_with(headers_of):
    rows = re.findall(r"^\| `(\w+)(\(.*?\))` \| .* \| ?([\d, ]*)\|$", TEXT, re.MULTILINE)
    assert {name for name, *_ in rows} == POLICIES.keys() - {"Policy", "UserPolicy"}
    for name, arguments, statuses in rows:
        app = guarded(eval(name + arguments.replace(", …", ""), {**POLICIES, "test": test}))
        found = {(await knock(app, "/", headers=headers_of(user))).status for user in (None, "alice")}
        too_many = {429}  # of which more are needed
        assert found - {101} == {int(status) for status in re.findall(r"\d+", statuses)} - too_many, name


def test_each_decorator_is_what_the_table_says():
    rows = re.findall(r"^\| `@(.+)` \| `@require\((.+)\)` \|$", TEXT, re.MULTILINE)
    assert len(rows) == 4
    for written, policy in rows:
        decorate = eval(written, {**vars(decorators), "test": test})
        (found,) = guards_of(decorate(consumer())).policies
        assert repr(found) == repr(eval(policy, {**POLICIES, "test": test}))


#: What the comments of the page say of its routes: the statuses for a stranger, alice, and staff.
ROUTES = {
    "/staff/inbox/": [401, 403, 101],
    "/staff/anything/": [401, 403, 101],
    "/inbox/": [401, 101, 101],
    "/status/": [101, 101, 101],
    "/undecorated/": [401, 101, 101],
    "/open/": [101, 101, 101],
}


async def test_the_routes_are_as_their_comments_say(headers_of):
    headers = [headers_of(name) for name in (None, "alice", "staff")]
    found = {url: [(await knock(page.application, url, headers=each)).status for each in headers] for url in ROUTES}
    assert found == ROUTES


def test_a_view_passes_its_test_and_a_browser_is_sent_to_log_in(users):
    def status(user, **headers):
        return page.team(request_of(user, headers=headers)).status_code

    users["bob"].email = "bob@example.org"
    assert [status(users["bob"]), status(users["alice"]), status(anonymous)] == [200, 403, 401]
    assert status(anonymous, accept="text/html") == 302


async def test_the_throttles_of_the_page_deny_what_is_too_much(clock, headers_of, rf):
    await cache.aclear()
    app = page.TickerConsumer.as_asgi()
    assert [(await knock(app, "/", headers=headers_of("alice"))).status for _ in range(5)].count(429) == 3
    assert [(await knock(app, "/", client=["192.0.2.1", 1])).status for _ in range(31)] == [401] * 30 + [429]

    send_code = sync_to_async(lambda phone: page.send_code(rf.get("/", {"phone": phone})).status_code)
    assert [await send_code("1") for _ in range(11)] == [200] * 10 + [429]
    assert await send_code("2") == 200


async def test_a_desk_has_two_sockets(headers_of):
    app, headers = page.DeskConsumer.as_asgi(), headers_of("alice")
    sockets = [Handshake(app, websocket_scope("/", headers=headers)) for _ in range(3)]
    assert [(await socket.connect()).status for socket in sockets] == [101, 101, 429]
    await sockets[0].leave()
    assert (await knock(app, "/", headers=headers)).status == 101
    await sockets[1].leave()


urlpatterns = [path("rooms/<slug:slug>/", page.room)]


@pytest.mark.urls("tests.docs.test_policies_page")
def test_a_permission_is_asked_on_the_object_of_the_url_which_consumer_and_view_get(users, headers_of, client):
    Room.objects.create(slug="lobby", name="Lobby").members.add(users["alice"])
    stack = DenyMiddlewareStack(URLRouter([path("rooms/<slug:slug>/", page.RoomConsumer.as_asgi())]))
    answer = ask(stack, "/rooms/lobby/", headers=headers_of("alice"))
    assert (answer.status, answer.header("x-room")) == (101, "lobby")
    assert ask(stack, "/rooms/lobby/", headers=headers_of("bob")).status == 403
    assert ask(stack, "/rooms/attic/", headers=headers_of("alice")).status == 404
    assert ask(stack, "/rooms/lobby/").status == 401
    client.force_login(users["alice"])
    assert client.get("/rooms/lobby/").content == b"lobby"


async def test_the_policies_of_ones_own_answer_as_they_are_written():
    app = page.IntranetConsumer.as_asgi()
    assert (await knock(app, "/", client=["10.0.0.1", 1])).status == 101
    assert (await knock(app, "/", client=None)).status == 403  # as on a Unix socket
    problem = (await knock(app, "/", client=["192.0.2.1", 1])).problem
    assert (problem["code"], problem["detail"]) == ("not_from_here", "This is open from the office only.")
    await cache.aset("sockets", 1000)
    try:
        answer = await knock(app, "/", client=["10.0.0.1", 1])
    finally:
        await cache.adelete("sockets")
    assert (answer.status, answer.header("retry-after")) == (503, "30")


def test_queries_by_the_user_are_not_made_for_an_anonymous_one(users, headers_of, caplog):
    Room.objects.create(slug="lobby", name="Lobby").members.add(users["alice"])
    bare = require(page.IsMember())(consumer())
    consumers = {"members": page.MembersConsumer, "lobby": page.LobbyConsumer, "bare": bare}
    routes = [path(f"{name}/<slug:slug>/", each.as_asgi()) for name, each in consumers.items()]
    stack = DenyMiddlewareStack(URLRouter(routes))
    for name, of_stranger in [("members", 401), ("lobby", 401), ("bare", 500)]:
        for user, status in [(None, of_stranger), ("alice", 101), ("bob", 403)]:
            answer = ask(stack, f"/{name}/lobby/", headers=headers_of(user))
            assert answer.status == status, (name, user)
    (error,) = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert "Field 'id' expected a number" in str(error)
    assert "Field 'id' expected a number" in " ".join(TEXT.split())


async def test_a_policy_that_is_tried_out_is_logged(headers_of, caplog):
    app = DenyMiddlewareStack(page.DraftConsumer.as_asgi())
    assert [(await knock(app, "/", headers=headers_of(name))).status for name in ("alice", None)] == [101, 401]
    (record,) = [record for record in caplog.records if getattr(record, "report_only", False)]
    assert (record.levelname, record.status, record.policy) == ("WARNING", 403, "InGroup('writers')")


async def test_a_call_of_an_outdated_app_is_denied(headers_of):
    app, headers = page.CallConsumer.as_asgi(), headers_of("alice")
    answer = await knock(app, "/?version=1", headers=headers)
    assert (answer.status, answer.problem["code"], answer.header("upgrade")) == (426, "outdated", "websocket")
    assert (await knock(app, "/?version=2", headers=headers)).status == 101


# docs/permissions.md, with the packages themselves.


PERMISSIONS = titled("permissions.md")
#: Those of guardian run in a process of their own.
HERE = ("rooms.py", "predicates of rules", "consumer with rules", "consumer with REST framework")
permissions = run_snippets("permissions.md", [PERMISSIONS[title] for title in HERE])


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

    def ask_all(consumer, url="/lobby/"):
        app = DenyMiddlewareStack(URLRouter([path("<slug:slug>/", consumer.as_asgi())]))
        clients = ("alice", "bob", "staff", None)
        return [ask(app, url, headers=headers_of(client)) for client in clients]

    return ask_all


def test_rules_tells_who_may_see_a_room(answers, settings):
    chosen = {}
    exec(PERMISSIONS["settings of rules"], chosen)
    settings.AUTHENTICATION_BACKENDS = chosen["AUTHENTICATION_BACKENDS"]
    found = answers(permissions.MemberConsumer)
    assert [answer.status for answer in found] == [101, 403, 101, 401]
    assert found[0].header("x-room") == "lobby"
    assert [answer.status for answer in answers(permissions.MemberConsumer, "/attic/")] == [404, 404, 404, 401]


def test_rest_framework_tells_who_may_see_a_room_and_ten_times_a_minute(answers):
    found = answers(permissions.ApiConsumer)
    assert [answer.status for answer in found] == [101, 403, 403, 401]
    assert found[0].header("x-room") == "lobby"
    assert json.loads(found[1].body) == {"detail": "You are not a member of this room."}
    assert [each.status for _ in range(9) for each in answers(permissions.ApiConsumer)[:1]] == [101] * 9
    assert answers(permissions.ApiConsumer)[0].status == 429


def test_the_page_of_permissions_shows_all_of_its_snippets():
    assert {*HERE, "settings of guardian", "consumers with guardian", "settings of rules"} == PERMISSIONS.keys()
