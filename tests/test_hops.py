"""What a handshake costs: hops to a thread, and queries; counted per situation, and held."""

from __future__ import annotations

import asyncio

import pytest
from channels.routing import URLRouter
from django.contrib.auth.decorators import login_required, permission_required
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import require
from channels_wsdeny.policies import (
    AllowAny,
    DenyAll,
    HasPermission,
    InGroup,
    IsAuthenticated,
    IsStaff,
    IsSuperuser,
    Policy,
    UserPassesTest,
)
from tests.clients import knock
from tests.parts import accept

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts what comes back from threads: whatever leaves the loop returns by `call_soon_threadsafe`."""

    returned = 0

    def call_soon_threadsafe(self, *args, **kwargs):
        self.returned += 1
        return super().call_soon_threadsafe(*args, **kwargs)


def count(application, **scope):
    """The status of a handshake, and the hops and queries that it took."""

    async def ask():
        loop = asyncio.get_running_loop()
        before = loop.returned
        answer = await knock(application, scope.pop("path", "/"), **scope)
        return answer.status, loop.returned - before

    with asyncio.Runner(loop_factory=CountingLoop) as runner, CaptureQueriesContext(connection) as queries:
        status, hops = runner.run(ask())
    return status, hops, len(queries)


def site(*policies, app=accept):
    for policy in reversed(policies):
        app = require(policy)(app)
    return DenyMiddlewareStack(app)


class Sync(Policy):
    def check(self, request):
        return True


class OnLoop(Policy):
    async def acheck(self, request):
        await asyncio.sleep(0)
        return True


class Both(Sync, OnLoop):
    """Can be asked on the loop and in a thread."""


def room(request):
    return Group.objects.get(name="ops")


async def room_on_loop(request):
    await asyncio.sleep(0)
    return "a room"


def may_view(user):
    return user.has_perm("auth.view_group")


async def may_view_on_loop(user):
    return user.is_staff


@pytest.fixture
def alice(users):
    """A user who has every permission that is asked for here, and nothing else."""
    alice = users["alice"]
    alice.is_staff = True
    alice.save()
    alice.groups.add(Group.objects.create(name="ops"))
    alice.user_permissions.add(
        *Permission.objects.filter(content_type__app_label="auth", codename__in=["view_group", "view_user"])
    )
    return alice


SESSION = 1 + 1  # the session and its user
PERMISSIONS = 1 + 1  # those of the user and those of the user's groups
VIEW = "auth.view_group"

#: Policies, from the outside in; then status, hops and queries.
ANONYMOUS = {
    "IsAuthenticated": ([IsAuthenticated()], 401, 0, 0),
    "IsStaff": ([IsStaff()], 401, 0, 0),
    "HasPermission": ([HasPermission(VIEW)], 401, 0, 0),
    "HasPermission with an object": ([HasPermission(VIEW, obj=room)], 401, 0, 0),
    "InGroup": ([InGroup("ops")], 401, 0, 0),
    "AllowAny": ([AllowAny()], 101, 0, 0),
    "DenyAll": ([DenyAll()], 403, 0, 0),
    "not": ([~DenyAll()], 101, 0, 0),
    "or": ([DenyAll() | IsAuthenticated() | InGroup("ops")], 401, 0, 0),
    "no policy": ([], 401, 0, 0),
    "async": ([OnLoop()], 101, 0, 0),
    "both": ([Both()], 101, 0, 0),
    "async test": ([UserPassesTest(may_view_on_loop)], 401, 0, 0),
    "and, short-circuit": ([IsAuthenticated() & Sync()], 401, 0, 0),
    "sync": ([Sync()], 101, 1, 0),
    "sync test": ([UserPassesTest(may_view)], 401, 1, 0),
    "sync, in a row": ([Sync() & Sync(), Sync(), ~~Sync()], 101, 1, 0),
    "sync, async": ([Sync(), OnLoop()], 101, 1, 0),
    "async, sync": ([OnLoop() & Sync()], 101, 1, 0),
    "sync, async, sync": ([Sync(), OnLoop(), Sync()], 101, 2, 0),
    "sync, both, sync": ([Sync() & Both() & Sync()], 101, 1, 0),
    "asked of the backends": ([HasPermission(VIEW, anonymous=True)], 401, 1, 0),
}
USER = {
    "IsAuthenticated": ([IsAuthenticated()], 101, 1, SESSION),
    "IsStaff": ([IsStaff()], 101, 1, SESSION),
    "IsSuperuser": ([IsSuperuser()], 403, 1, SESSION),
    "AllowAny": ([AllowAny()], 101, 1, SESSION),
    "DenyAll": ([DenyAll()], 403, 0, 0),
    "no policy": ([], 101, 1, SESSION),
    "HasPermission": ([HasPermission(VIEW)], 101, 1, SESSION + PERMISSIONS),
    "HasPermission that is lacking": ([HasPermission("auth.x")], 403, 1, SESSION + PERMISSIONS),
    "two permissions": ([HasPermission([VIEW, "auth.view_user"])], 101, 1, SESSION + PERMISSIONS),
    "two policies": ([HasPermission(VIEW), HasPermission("auth.view_user")], 101, 1, SESSION + PERMISSIONS),
    "InGroup": ([InGroup("ops")], 101, 1, SESSION + 1),
    "many": (
        [IsAuthenticated() & IsStaff(), HasPermission(VIEW) & ~IsSuperuser(), InGroup("ops") | DenyAll()],
        101,
        1,
        SESSION + PERMISSIONS + 1,
    ),
    "sync test": ([UserPassesTest(may_view)], 101, 1, SESSION + PERMISSIONS),
    "async test": ([UserPassesTest(may_view_on_loop)], 101, 1, SESSION),
    "async": ([OnLoop()], 101, 1, SESSION),
    "async, sync": ([OnLoop(), IsAuthenticated()], 101, 1, SESSION),
    "sync, async": ([IsAuthenticated(), OnLoop()], 101, 1, SESSION),
    "sync, async, sync": ([IsAuthenticated(), OnLoop(), HasPermission(VIEW)], 101, 2, SESSION + PERMISSIONS),
    "sync, async, no I/O": ([IsAuthenticated(), OnLoop(), IsStaff()], 101, 1, SESSION),
    "or of two": ([IsSuperuser() | HasPermission(VIEW)], 101, 1, SESSION + PERMISSIONS),
    "object": ([HasPermission("auth.x", obj=room)], 403, 1, SESSION + 1),
    "object of a coroutine": ([HasPermission("auth.x", obj=room_on_loop)], 403, 2, SESSION),
    "object named twice": (
        [HasPermission("auth.x", obj=room) | HasPermission("auth.y", obj=room)],
        403,
        1,
        SESSION + 1,
    ),
}


@pytest.mark.parametrize(("policies", "status", "hops", "queries"), ANONYMOUS.values(), ids=ANONYMOUS)
def test_an_anonymous_visitor_costs(policies, status, hops, queries):
    assert count(site(*policies)) == (status, hops, queries)


@pytest.mark.parametrize(("policies", "status", "hops", "queries"), USER.values(), ids=USER)
def test_a_user_costs(policies, status, hops, queries, alice, headers_of):
    assert count(site(*policies), headers=headers_of("alice")) == (status, hops, queries)


@pytest.mark.parametrize("cookie", [b"theme=dark", b"notthesessionid=1", b"sessionid"])
def test_a_visitor_with_other_cookies_costs_nothing(cookie):
    assert count(site(IsAuthenticated()), headers=[(b"cookie", cookie)]) == (401, 0, 0)


def test_a_visitor_with_a_session_that_is_gone_costs_one_hop_and_one_query(settings):
    headers = [(b"cookie", settings.SESSION_COOKIE_NAME.encode() + b"=" + b"a" * 32)]
    assert count(site(IsAuthenticated()), headers=headers) == (401, 1, 1)


def test_a_visitor_without_permission_gets_the_session_from_no_store_that_needs_none(
    alice, headers_of, settings
):
    """Signed cookies: the user alone is a query."""
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    client = Client()
    client.force_login(alice)
    name = settings.SESSION_COOKIE_NAME
    headers = [(b"cookie", f"{name}={client.cookies[name].value}".encode())]
    assert count(site(IsAuthenticated()), headers=headers) == (101, 1, 1)


def test_an_address_without_a_route_costs_nothing(alice, headers_of):
    application = DenyMiddlewareStack(URLRouter([path("there/", accept)]))
    assert count(application, headers=headers_of("alice")) == (404, 0, 0)


def test_a_bad_request_costs_nothing(alice, headers_of):
    assert count(site(Sync()), headers=headers_of("alice"), query_string=b"\xff") == (400, 0, 0)


def test_a_route_costs_nothing(alice, headers_of):
    application = DenyMiddlewareStack(URLRouter([path("<slug:slug>/", require(IsStaff())(accept))]))
    assert count(application, path="/lobby/", headers=headers_of("alice")) == (101, 1, SESSION)


def test_a_nested_stack_costs_nothing(alice, headers_of):
    assert count(site(IsStaff(), app=site(IsStaff())), headers=headers_of("alice")) == (101, 1, SESSION)


def test_a_wrapper_that_nobody_knows_costs_nothing(alice, headers_of):
    class Wrapper:
        async def __call__(self, scope, receive, send):
            await require(IsStaff())(accept)(scope, receive, send)

    application = DenyMiddlewareStack(Wrapper())
    assert count(application, headers=headers_of("alice")) == (101, 1, SESSION)


def test_a_user_in_the_scope_costs_nothing(alice, headers_of):
    assert count(site(IsStaff()), headers=headers_of("alice"), user=alice) == (101, 0, 0)


def test_a_changed_session_costs_another_hop():
    async def change(scope, receive, send):
        scope["session"]["color"] = "red"
        await accept(scope, receive, send)

    status, hops, queries = count(site(AllowAny(), app=change))
    assert (status, hops) == (101, 1)
    assert queries > 0


def test_a_session_that_is_only_read_costs_nothing_more(alice, headers_of):
    async def read(scope, receive, send):
        scope["session"].get("color")
        await accept(scope, receive, send)

    assert count(site(AllowAny(), app=read), headers=headers_of("alice")) == (101, 1, SESSION)


def test_a_look_at_the_user_costs_nothing_more(alice, headers_of):
    async def look(scope, receive, send):
        assert scope["user"].username == scope["wsdeny"].request.user.username == "alice"
        await accept(scope, receive, send)

    assert count(site(AllowAny(), app=look), headers=headers_of("alice")) == (101, 1, SESSION)


# As many queries as Django's own request.


@login_required
def for_members(request):
    return HttpResponse()


@permission_required(VIEW)
def for_viewers(request):
    return HttpResponse()


urlpatterns = [path("members/", for_members), path("viewers/", for_viewers)]


@pytest.mark.parametrize(
    ("policy", "url"), [(IsAuthenticated(), "/members/"), (HasPermission(VIEW), "/viewers/")], ids=str
)
def test_a_handshake_takes_the_queries_that_a_view_takes(policy, url, alice, headers_of, sessions, settings):
    client = Client()
    client.cookies[settings.SESSION_COOKIE_NAME] = sessions["alice"].session_key
    with CaptureQueriesContext(connection) as queries:
        assert client.get(url).status_code == 200
    assert count(site(policy), headers=headers_of("alice")) == (101, 1, len(queries))


# Resolvers are called once, however many policies name them.


class Resolver:
    """Counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, request):
        self.calls += 1
        return "a room"


class AsyncResolver(Resolver):
    def __init__(self):
        super().__init__()
        self.resolve = super().__call__

    async def __call__(self, request):
        return self.resolve(request)


@pytest.fixture(params=[Resolver, AsyncResolver])
def resolver(request):
    return request.param()


def test_a_resolver_that_several_policies_name_is_called_once(resolver, alice, headers_of):
    first, second = HasPermission("auth.x", obj=resolver), HasPermission("auth.y", obj=resolver)
    status, _, _ = count(site(first | second | first), headers=headers_of("alice"))
    assert (status, resolver.calls) == (403, 1)


def test_a_resolver_that_several_layers_name_is_called_once(resolver, alice, headers_of):
    policies = [HasPermission("auth.x", obj=resolver) | AllowAny() for _ in range(3)]
    status, _, _ = count(site(*policies), headers=headers_of("alice"))
    assert (status, resolver.calls) == (101, 1)


def test_a_resolver_is_called_once_behind_a_wrapper_that_nobody_knows(resolver, alice, headers_of):
    policy = HasPermission("auth.x", obj=resolver) | AllowAny()

    async def wrapper(scope, receive, send):
        await require(policy)(accept)(scope, receive, send)

    status, _, _ = count(site(policy, app=wrapper), headers=headers_of("alice"))
    assert (status, resolver.calls) == (101, 1)


def test_a_resolver_is_called_once_for_each_handshake(resolver, alice, headers_of):
    application = site(HasPermission("auth.x", obj=resolver))
    for _ in range(3):
        count(application, headers=headers_of("alice"))
    assert resolver.calls == 3


def test_what_a_resolver_returned_reaches_the_application(resolver, alice, headers_of):
    found = []

    async def look(scope, receive, send):
        found.append(scope["wsdeny"].obj)
        await accept(scope, receive, send)

    count(site(HasPermission("auth.x", obj=resolver) | AllowAny(), app=look), headers=headers_of("alice"))
    assert found == ["a room"]
