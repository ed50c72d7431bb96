"""Every snippet and table of docs/policies.md says what is so."""

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
from tests.docs.pages import DOCS, run
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
