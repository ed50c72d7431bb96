"""What a handshake costs: hops to a thread and queries, for each kind of policy, hook and visitor."""

import asyncio
from types import SimpleNamespace

import pytest
from channels.routing import URLRouter
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils.deprecation import MiddlewareMixin
from rest_framework.authentication import TokenAuthentication
from rest_framework.permissions import IsAuthenticated as Authenticated

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.authentication import BearerAuthentication, SessionAuthentication
from channels_wsdeny.authentication.ticket import TicketAuthentication, issue_ticket
from channels_wsdeny.contrib.rest_framework import RestFramework
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated, IsStaff, IsSuperuser, Throttle
from channels_wsdeny.policies.permissions import HasPermission, InGroup, UserPassesTest
from tests.support.clients import knock
from tests.support.policies import AsyncCheck, Check, accept, change_session
from tests.support.site import go_on
from tests.support.wrappers import Wrapper

pytestmark = pytest.mark.django_db


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts what comes back from threads: what leaves the loop returns by `call_soon_threadsafe`."""

    returned = 0

    def call_soon_threadsafe(self, *args, **kwargs):
        self.returned += 1
        return super().call_soon_threadsafe(*args, **kwargs)


def count(application, url="/", **scope):
    """The status of a handshake, and the hops and queries that it took."""

    async def ask():
        loop = asyncio.get_running_loop()
        before = loop.returned
        answer = await knock(application, url, **scope)
        return answer.status, loop.returned - before

    with asyncio.Runner(loop_factory=CountingLoop) as runner, CaptureQueriesContext(connection) as queries:
        status, hops = runner.run(ask())
    return status, hops, len(queries)


def site(*policies, app=accept, **options):
    for policy in reversed(policies):
        app = require(policy)(app)
    return DenyMiddlewareStack(app, **options)


class Both(Check):
    """Can be asked on the loop and in a thread."""

    def check(self, request):
        return True

    async def acheck(self, request):
        return True


def let_all_in(request):
    return True


SYNC, ASYNC, BOTH = Check(let_all_in), AsyncCheck(lambda request: asyncio.sleep(0, True)), Both(None)
VIEW = "auth.view_group"


def room(request):
    return Group.objects.get(name="ops")


async def room_async(request):
    return "a room"


async def is_staff(user):
    return user.is_staff


@pytest.fixture
def alice(users):
    """A user who has every permission that is asked for here, and nothing else."""
    alice = users["alice"]
    alice.is_staff = True
    alice.save()
    alice.groups.add(Group.objects.create(name="ops"))
    names = ["view_group", "view_user"]
    alice.user_permissions.add(*Permission.objects.filter(content_type__app_label="auth", codename__in=names))
    return alice


SESSION = 2  # the session and its user
PERMISSIONS = 2  # those of the user and those of the user's groups
X, Y = HasPermission("auth.x", obj=room), HasPermission("auth.y", obj=room)

#: Policies, from the outside in; then status, hops and queries of an anonymous visitor and of alice. None: not asked.
COSTS = {
    "IsAuthenticated": ([IsAuthenticated()], (401, 0, 0), (101, 1, SESSION)),
    "IsStaff": ([IsStaff()], (401, 0, 0), (101, 1, SESSION)),
    "IsSuperuser": ([IsSuperuser()], (401, 0, 0), (403, 1, SESSION)),
    "HasPermission": ([HasPermission(VIEW)], (401, 0, 0), (101, 1, SESSION + PERMISSIONS)),
    "lacking": ([HasPermission("auth.x")], (401, 0, 0), (403, 1, SESSION + PERMISSIONS)),
    "of anonymous users": ([HasPermission(VIEW, anonymous=True)], (401, 1, 0), (101, 1, SESSION + PERMISSIONS)),
    "RestFramework": ([RestFramework(permissions=[Authenticated])], (401, 1, 0), (101, 1, SESSION)),
    "two at once": ([HasPermission([VIEW, "auth.view_user"])], (401, 0, 0), (101, 1, SESSION + PERMISSIONS)),
    "two policies": ([HasPermission(VIEW), HasPermission("auth.view_user")], None, (101, 1, SESSION + PERMISSIONS)),
    "InGroup": ([InGroup("ops")], (401, 0, 0), (101, 1, SESSION + 1)),
    "AllowAny": ([AllowAny()], (101, 0, 0), (101, 1, SESSION)),
    "DenyAll": ([DenyAll()], (403, 0, 0), (403, 0, 0)),
    "not": ([~DenyAll()], (101, 0, 0), (101, 1, SESSION)),
    "or": ([DenyAll() | IsAuthenticated() | InGroup("ops")], (401, 0, 0), (101, 1, SESSION)),
    "or of async": ([AsyncCheck(lambda request: Deny(401)) | DenyAll()], (401, 0, 0), (403, 1, SESSION)),
    "no policy": ([], (401, 0, 0), (101, 1, SESSION)),
    "Throttle": ([IsAuthenticated(), Throttle("99/s", key="ip")], (401, 0, 0), (101, 1, SESSION)),
    "Throttle first": ([Throttle("99/s", key="ip"), IsAuthenticated()], (401, 1, 0), (101, 1, SESSION)),
    "async": ([ASYNC], (101, 0, 0), (101, 1, SESSION)),
    "both": ([BOTH], (101, 0, 0), (101, 1, SESSION)),
    "sync": ([SYNC], (101, 1, 0), (101, 1, SESSION)),
    "sync, in a row": ([SYNC & SYNC, SYNC, ~~SYNC], (101, 1, 0), (101, 1, SESSION)),
    "sync, async": ([SYNC, ASYNC], (101, 1, 0), (101, 2, SESSION)),
    "sync, async, sync": ([SYNC, ASYNC, Check(let_all_in)], (101, 2, 0), (101, 2, SESSION)),
    "sync, both, sync": ([SYNC & BOTH & SYNC], (101, 1, 0), (101, 1, SESSION)),
    "user, async, permission": ([IsStaff(), ASYNC, HasPermission(VIEW)], (401, 0, 0), (101, 2, SESSION + PERMISSIONS)),
    "user, async, user": ([IsAuthenticated(), ASYNC, IsStaff()], (401, 0, 0), (101, 1, SESSION)),
    "short": ([IsAuthenticated() & SYNC], (401, 0, 0), (101, 1, SESSION)),
    "test": ([UserPassesTest(lambda user: user.has_perm(VIEW))], (401, 1, 0), (101, 1, SESSION + PERMISSIONS)),
    "async test": ([UserPassesTest(is_staff)], (401, 0, 0), (101, 1, SESSION)),
    "object": ([X], (401, 0, 0), (403, 1, SESSION + 1)),
    "object of a coroutine": ([HasPermission("auth.x", obj=room_async)], (401, 0, 0), (403, 2, SESSION)),
    "object named twice": ([X | AllowAny(), X | Y], (401, 0, 0), (403, 1, SESSION + 1)),
}


@pytest.mark.parametrize(("policies", "for_anonymous", "for_alice"), COSTS.values(), ids=COSTS)
def test_a_handshake_costs(policies, for_anonymous, for_alice, alice, headers_of):
    if for_anonymous is not None:
        assert count(site(*policies)) == for_anonymous
    assert count(site(*policies), headers=headers_of("alice")) == for_alice


def user_of(name):
    return get_user_model().objects.filter(username=name).first()


async def async_user_of(name):
    return await get_user_model().objects.filter(username=name).afirst()


@pytest.mark.parametrize("has_tokens", [False, True])
def test_a_throttle_that_denies_by_the_address_loads_no_session(has_tokens, alice, headers_of, clock):
    cache.clear()
    classes = [SessionAuthentication(), *([BearerAuthentication(user_of)] if has_tokens else [])]
    app = site(Throttle("1/min", key="ip"), IsAuthenticated(), authentication=classes)
    assert count(app, headers=headers_of("alice")) == (101, 1, SESSION)
    assert count(app, headers=headers_of("alice")) == (429, 1, 0)


def bearer(**words):
    ((scheme, token),) = words.items()
    return {"headers": [(b"authorization", f"{scheme} {token}".encode())]}


@pytest.fixture
def tokens(monkeypatch):
    """A model of tokens for REST framework: the token is the name of its user."""

    class Tokens:
        DoesNotExist = get_user_model().DoesNotExist

        def select_related(self, name):
            return self

        def get(self, key):
            return SimpleNamespace(user=get_user_model().objects.get(username=key))

    Tokens.objects = Tokens()
    monkeypatch.setattr(TokenAuthentication, "model", Tokens)


@pytest.mark.parametrize("policy", [IsAuthenticated(), HasPermission(VIEW)], ids=repr)
@pytest.mark.parametrize("kind", ["bearer", "rest_framework", "ticket", "ticket of a session"])
def test_a_token_and_a_ticket_cost_one_hop_and_the_queries_for_their_user(kind, policy, alice, sessions, tokens):
    url, scope, own = "/", {}, 1
    if kind == "bearer":
        authentication, scope = BearerAuthentication(user_of), bearer(Bearer="alice")
    elif kind == "rest_framework":
        authentication, scope = TokenAuthentication(), bearer(Token="alice")
    else:
        session = {"session": sessions["alice"]} if kind == "ticket of a session" else {}
        url = f"/?ticket={issue_ticket(SimpleNamespace(user=alice, **session), '/')}"
        authentication, own = TicketAuthentication(), SESSION if session else 1
    app = site(policy, authentication=[authentication])
    permissions = PERMISSIONS if isinstance(policy, HasPermission) else 0
    assert count(app, url, **scope) == (101, 1, own + permissions)
    assert count(app, "/") == (401, 0, 0)


def test_an_asynchronous_class_costs_its_way_to_the_loop_and_back_beside_the_hop(alice):
    app = site(IsAuthenticated(), authentication=[BearerAuthentication(async_user_of)])
    # To the loop, back with what its query has found, and back from the pool.
    assert count(app, **bearer(Bearer="alice")) == (101, 3, 1)


#: Hooks as declared, and the hops that an accept takes.
HOOKS = {
    "request route request route": 1,
    "quick-request quick-route quick-response": 0,
    "request quick-request request": 1,
    "async-request async-route async-response": 0,
    "request async-request request": 2,
    "async-request request request": 1,
    "response response quick-response response": 1,
    "response async-response response": 2,
    "request request route response response": 2,
    "around around": 0,
    "around request": 1,
    "around response response": 1,
    "exception": 0,
}


def registry(declared):
    async def asynchronous(*args):
        await asyncio.sleep(0)

    hooks = Hooks()
    for each in declared.split():
        flavour, _, kind = each.rpartition("-")
        function = go_on if kind == "around" else asynchronous if flavour == "async" else lambda *args: None
        hooks.register(function, kind, blocking=flavour != "quick")
    return hooks


@pytest.mark.parametrize(("declared", "hops"), HOOKS.items())
def test_hooks_cost_hops(declared, hops):
    assert count(site(AllowAny(), hooks=registry(declared))) == (101, hops, 0)
    if hops == 0 and declared != "exception":  # They add none to any answer.
        assert count(site(DenyAll(), hooks=registry(declared))) == (403, 0, 0)
        assert count(DenyMiddlewareStack(URLRouter([]), hooks=registry(declared))) == (404, 0, 0)


def test_hooks_of_all_layers_share_a_hop_with_policies_and_with_the_session_that_they_change(alice, headers_of):
    inner = with_hooks(registry("request route"))(require(HasPermission(VIEW))(accept))
    stack = site(app=site(app=inner, hooks=registry("request")), hooks=registry("request route"))
    assert count(stack, headers=headers_of("alice")) == (101, 1, SESSION + PERMISSIONS)
    hooks = registry("response")
    hooks.on_response(lambda request, response: request.session.update({"a": 1}))
    assert count(site(AllowAny(), hooks=hooks))[:2] == (101, 1)


class Steps(MiddlewareMixin):
    """Does nothing, in a thread."""

    def process_request(self, request): ...

    def process_view(self, request, view, args, kwargs): ...


class AllSteps(Steps):
    def process_response(self, request, response):
        return response


#: Django middleware around an anonymous handshake, and the hops of its denial, and of an accept behind a policy.
MIDDLEWARE = {
    "Security Locale": (0, 1),
    "Steps": (1, 1),
    "Steps Security Steps": (1, 1),
    "AllSteps": (2, 2),
    "Both": (0, 1),
}


class Both:
    sync_capable = async_capable = True

    def __new__(cls, get_response):
        return get_response


@pytest.mark.parametrize(("names", "hops"), MIDDLEWARE.items())
def test_django_middleware_share_the_hop_of_the_policies(names, hops, settings):
    djangos = {name: f"django.middleware.{name.lower()}.{name}Middleware" for name in ("Security", "Locale")}
    settings.CHANNELS_WSDENY = {"MIDDLEWARE": [djangos.get(name, f"{__name__}.{name}") for name in names.split()]}
    count(site(DenyAll()))  # They are made in a thread.
    assert (count(site(DenyAll())), count(site(SYNC))) == ((403, hops[0], 0), (101, hops[1], 0))


@pytest.mark.parametrize("cookie", [b"theme=dark", b"notthesessionid=1", b"sessionid"])
def test_other_cookies_cost_nothing(cookie):
    assert count(site(IsAuthenticated()), headers=[(b"cookie", cookie)]) == (401, 0, 0)


def test_a_session_costs_what_its_engine_does(alice, settings):
    name = settings.SESSION_COOKIE_NAME
    assert count(site(IsAuthenticated()), headers=[(b"cookie", f"{name}={'a' * 32}".encode())]) == (401, 1, 1)
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    client = Client()
    client.force_login(alice)
    headers = [(b"cookie", f"{name}={client.cookies[name].value}".encode())]
    assert count(site(IsAuthenticated()), headers=headers) == (101, 1, 1)


def test_what_is_around_an_endpoint_costs_nothing(alice, headers_of):
    headers = headers_of("alice")
    endpoint = require(IsStaff())(accept)
    for app in (Wrapper(endpoint), site(app=endpoint), URLRouter([path("<slug:slug>/", endpoint)])):
        assert count(site(IsStaff(), app=app), "/lobby/", headers=headers) == (101, 1, SESSION)
    assert count(site(IsStaff()), headers=headers, user=alice) == (101, 0, 0)
    assert count(site(SYNC), headers=headers, query_string=b"\xff") == (400, 0, 0)


def test_reading_the_session_and_the_user_costs_nothing_more_and_changing_it_one_hop(alice, headers_of):
    async def read(scope, receive, send):
        assert scope["user"].username == scope["wsdeny"].request.user.username == "alice"
        assert scope["session"].get("color") is None
        await accept(scope, receive, send)

    assert count(DenyMiddlewareStack(public(read)), headers=headers_of("alice")) == (101, 1, SESSION)
    assert count(DenyMiddlewareStack(public(change_session)))[:2] == (101, 1)
