"""Every snippet of docs/policies.md does what the page says."""

from __future__ import annotations

import re

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.auth.models import AnonymousUser
from django.core.cache import cache
from django.core.exceptions import BadRequest, DisallowedHost, PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpResponse
from django.test import RequestFactory
from django.urls import path

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.decorators import login_required, public, require
from channels_wsdeny.policies import (
    AllowAny,
    DenyAll,
    HasPermission,
    InGroup,
    IsAuthenticated,
    IsStaff,
    Policy,
)
from channels_wsdeny.policies import builtin as policies
from channels_wsdeny.routing.guards import guards_of
from testproject.chat.models import Room
from tests.clients import knock
from tests.docs.pages import DOCS, run

page = run("policies.md")
TEXT = (DOCS / "policies.md").read_text()
pytestmark = pytest.mark.django_db


def doors(policy):
    @require(policy)
    class Consumer(AsyncWebsocketConsumer):
        pass

    return Consumer.as_asgi()


@pytest.fixture
def trainee(users):
    users["staff"].groups.create(name="trainees")
    return users["staff"]


async def test_the_first_policy_prints_as_it_is_written():
    (policy,) = guards_of(page.MonitorConsumer).policies
    assert f"@require({policy})".replace("'", '"') in TEXT


async def test_it_lets_staff_in(headers_of):
    assert (await knock(page.MonitorConsumer.as_asgi(), "/", headers=headers_of("staff"))).status == 101


@pytest.mark.usefixtures("trainee")
async def test_it_keeps_trainees_out(headers_of):
    assert (await knock(page.MonitorConsumer.as_asgi(), "/", headers=headers_of("staff"))).status == 403


def test_the_table_names_every_policy():
    named = set(re.findall(r"^\| `([A-Z]\w+)\(", TEXT, re.MULTILINE))
    assert named == set(policies.__all__) - {"Policy", "UserPolicy"}


ROWS = re.findall(r"^\| `(\w+\(.*?\))` \| .* \| ?([\d, ]*)\|$", TEXT, re.MULTILINE)


@pytest.mark.parametrize(("written", "statuses"), ROWS)
async def test_each_policy_denies_as_the_table_says(written, statuses, headers_of):
    policy = eval(written.replace(", …", ""), {**vars(policies), "test": lambda user: False})
    found = [(await knock(doors(policy), "/", headers=headers_of(name))).status for name in (None, "alice")]
    expected = [int(status) for status in statuses.split(",") if status.strip()]
    assert sorted({status for status in found if status != 101}) == expected


def test_each_decorator_is_what_the_table_says():
    rows = re.findall(r"^\| `@(.+)` \| `@require\((.+)\)` \|$", TEXT, re.MULTILINE)
    assert len(rows) == 4
    from channels_wsdeny import decorators

    def test(user):
        return True

    for written, policy in rows:
        decorate = eval(written, {**vars(decorators), "test": test})
        (found,) = guards_of(decorate(type("Consumer", (AsyncWebsocketConsumer,), {}))).policies
        assert repr(found) == repr(eval(policy, {**vars(policies), "test": test}))


@pytest.mark.parametrize(
    ("url", "user", "status"),
    [
        ("/staff/inbox/", "staff", 101),
        ("/staff/inbox/", "alice", 403),
        ("/staff/anything/", "staff", 101),
        ("/staff/anything/", "alice", 403),
        ("/staff/nothing/", "staff", 404),
        ("/inbox/", None, 401),
        ("/inbox/", "alice", 101),
        ("/status/", None, 101),
        ("/undecorated/", None, 401),
        ("/undecorated/", "alice", 101),
        ("/open/", None, 101),
    ],
)
async def test_the_routes_are_as_their_comments_say(url, user, status, headers_of):
    assert (await knock(page.application, url, headers=headers_of(user))).status == status


def view_request(url="/", user=None, **headers):
    request = RequestFactory().get(url, headers=headers)
    request.user = user or AnonymousUser()
    return request


def test_a_view_passes_its_test(users):
    users["bob"].email = "bob@example.org"
    assert page.team(view_request(user=users["bob"])).status_code == 200
    assert page.team(view_request(user=users["alice"])).status_code == 403


def test_a_browser_is_sent_to_log_in():
    assert page.team(view_request(accept="text/html")).status_code == 302
    assert page.team(view_request()).status_code == 401


async def test_a_subclass_that_overrides_call_is_bound():
    class Subclass(page.InboxConsumer):
        async def __call__(self, scope, receive, send):
            raise AssertionError("It ran.")

    assert (await knock(Subclass.as_asgi(), "/")).status == 401


async def test_the_nearest_stack_counts(headers_of):
    stack = DenyMiddlewareStack(page.UndecoratedConsumer.as_asgi(), default_policy=IsStaff())
    outer = DenyMiddlewareStack(stack, default_policy=AllowAny())
    assert (await knock(outer, "/", headers=headers_of("alice"))).status == 403


class Raises(Policy):
    def check(self, request):
        raise RuntimeError


@pytest.mark.parametrize(
    ("policy", "stranger", "alice"),
    [
        (IsStaff() & DenyAll(), 401, 403),
        (DenyAll() & IsStaff(), 403, 403),
        (DenyAll() | IsAuthenticated(), 401, 101),
        (IsStaff() | InGroup("nobody"), 401, 403),
        (~AllowAny(), 403, 403),
        (~IsAuthenticated(), 101, 403),
        (~Raises(), 500, 500),
        (Raises() | AllowAny(), 500, 500),
    ],
)
async def test_combinations_answer_as_the_list_says(policy, stranger, alice, headers_of):
    assert (await knock(doors(policy), "/")).status == stranger
    assert (await knock(doors(policy), "/", headers=headers_of("alice"))).status == alice


def test_words_instead_of_operators_raise():
    with pytest.raises(TypeError):
        IsStaff() and DenyAll()
    with pytest.raises(TypeError):
        not IsStaff()


@pytest.fixture
def member(users):
    room = Room.objects.create(slug="lobby", name="Lobby")
    room.members.add(users["alice"])
    return users["alice"]


def rooms():
    from channels.routing import URLRouter

    return DenyMiddlewareStack(URLRouter([path("rooms/<slug:slug>/", page.RoomConsumer.as_asgi())]))


@pytest.mark.usefixtures("member")
async def test_a_permission_is_asked_on_the_object_of_the_url(headers_of):
    answer = await knock(rooms(), "/rooms/lobby/", headers=headers_of("alice"))
    assert (answer.status, answer.header("x-room")) == (101, "lobby")
    assert (await knock(rooms(), "/rooms/lobby/", headers=headers_of("bob"))).status == 403
    assert (await knock(rooms(), "/rooms/attic/", headers=headers_of("alice"))).status == 404
    assert (await knock(rooms(), "/rooms/lobby/")).status == 401


@pytest.mark.urls("tests.docs.test_policies_page")
def test_the_view_has_the_object_as_well(member, client):
    client.force_login(member)
    assert client.get("/rooms/lobby/").content == b"lobby"


urlpatterns = [path("rooms/<slug:slug>/", page.room)]


def test_strangers_cost_no_query_unless_asked_for(django_assert_num_queries):
    from asgiref.sync import async_to_sync

    with django_assert_num_queries(0):
        assert async_to_sync(knock)(doors(HasPermission("chat.view_room")), "/").status == 401


async def test_anonymous_asks_the_backends():
    assert (await knock(doors(HasPermission("chat.view_room", anonymous=True)), "/")).status == 401


def test_djangos_own_backend_grants_nothing_on_objects(users, settings):
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]
    users["alice"].user_permissions.add(permission())
    assert users["alice"].has_perm("chat.view_room")
    assert not users["alice"].has_perm("chat.view_room", object())


def permission():
    from django.contrib.auth.models import Permission

    return Permission.objects.get(codename="view_room")


async def test_the_office_is_let_in():
    assert (await knock(page.IntranetConsumer.as_asgi(), "/", client=["10.0.0.1", 1])).status == 101


async def test_others_are_told_why_not():
    problem = (await knock(page.IntranetConsumer.as_asgi(), "/", client=["192.0.2.1", 1])).problem
    assert (problem["code"], problem["detail"]) == ("not_from_here", "This is open from the office only.")


async def test_too_many_are_told_when_to_come_again():
    await cache.aset("sockets", 1000)
    try:
        answer = await knock(page.IntranetConsumer.as_asgi(), "/", client=["10.0.0.1", 1])
    finally:
        await cache.adelete("sockets")
    assert (answer.status, answer.header("retry-after")) == (503, "30")


@pytest.mark.parametrize("answered", [None, 1, "yes", "a coroutine"])
async def test_only_true_itself_passes(answered):
    async def nothing():
        pass

    class Odd(Policy):
        def check(self, request):
            return nothing() if answered == "a coroutine" else answered

    assert (await knock(doors(Odd()), "/")).status == 500


async def test_a_response_of_a_policy_goes_out():
    class Moved(Policy):
        def check(self, request):
            return HttpResponse(status=302, headers={"Location": "/elsewhere/"})

    answer = await knock(doors(Moved()), "/")
    assert (answer.status, answer.header("location")) == (302, "/elsewhere/")


async def test_a_call_of_an_outdated_app_is_denied(headers_of):
    answer = await knock(page.CallConsumer.as_asgi(), "/?version=1", headers=headers_of("alice"))
    assert (answer.status, answer.problem["code"], answer.header("upgrade")) == (426, "outdated", "websocket")
    assert (
        await knock(page.CallConsumer.as_asgi(), "/?version=2", headers=headers_of("alice"))
    ).status == 101


async def test_a_response_is_sent_instead_of_a_body():
    @public
    class Teapot(AsyncWebsocketConsumer):
        async def connect(self):
            raise Deny(response=HttpResponse("short and stout", status=418))

    assert (await knock(Teapot.as_asgi(), "/")).body == b"short and stout"


def closing(*args, **kwargs):
    async def connect(self):
        await self.close(*args, **kwargs)

    return connect


def raising(error):
    async def connect(self):
        raise error

    return connect


@pytest.mark.parametrize(
    ("connect", "status", "code"),
    [
        (closing(), 403, "permission_denied"),
        (closing(code=4429), 429, "throttled"),
        (closing(code=4001), 403, "permission_denied"),
        (closing(code=4600), 403, "permission_denied"),
        (raising(PermissionDenied()), 403, "permission_denied"),
        (raising(Http404()), 404, "not_found"),
        (raising(BadRequest()), 400, "bad_request"),
        (raising(SuspiciousOperation()), 400, "bad_request"),
        (raising(DisallowedHost()), 400, "bad_request"),
        (raising(Deny(409, "Full.", code="full")), 409, "full"),
        (raising(Deny(499)), 400, "bad_request"),
        (raising(RuntimeError()), 500, "server_error"),
    ],
)
async def test_what_a_consumer_does_has_the_status_of_the_table(connect, status, code):
    consumer = public(type("Consumer", (AsyncWebsocketConsumer,), {"connect": connect}))
    answer = await knock(DenyMiddlewareStack(consumer.as_asgi()), "/")
    assert (answer.status, answer.problem["code"]) == (status, code)
    assert answer.header("cache-control") == "no-store"


async def test_a_policy_that_is_too_slow_is_a_503(settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.01}
    import asyncio

    class Slow(Policy):
        async def acheck(self, request):
            await asyncio.sleep(60)

    answer = await knock(doors(Slow()), "/")
    assert (answer.status, answer.problem["code"], answer.header("retry-after")) == (503, "unavailable", "5")


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (b"application/json, text/html;q=0.5", "application/problem+json"),
        (b"text/plain", "text/plain; charset=utf-8"),
        (b"text/html", "text/html; charset=utf-8"),
    ],
)
async def test_the_body_is_what_the_client_prefers(accept, content_type):
    answer = await knock(
        login_required(page.UndecoratedConsumer.as_asgi()), "/", headers=[(b"accept", accept)]
    )
    assert (answer.status, answer.header("content-type")) == (401, content_type)
