"""The policies of the package: whom they allow, whom they ask, and which object reaches the endpoint."""

import asyncio
import functools
import threading
from http import HTTPStatus
from types import NoneType

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import URLRouter
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import Group, Permission
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.urls import path
from django.utils.functional import SimpleLazyObject
from rest_framework.permissions import IsAuthenticated as OfRest
from rest_framework.views import APIView

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.contrib.rest_framework import RestFramework
from channels_wsdeny.decorators import permission_required, require
from channels_wsdeny.policies import AllowAny, AllowedOrigin, DenyAll, IsAuthenticated, IsStaff, IsSuperuser
from channels_wsdeny.policies.base import And, Not, Or
from channels_wsdeny.policies.permissions import HasPermission, InGroup, UserPassesTest, UserPolicy
from channels_wsdeny.policies.throttling import MaxConnections, Throttle
from tests.support.caches import cache_settings
from tests.support.clients import knock
from tests.support.policies import USERS, AsyncCheck, ByName, Check, alice, anonymous, boss, request_of, root, status
from tests.support.sockets import consumer

pytestmark = pytest.mark.django_db

status_of = async_to_sync(status)


class Forbids(BaseBackend):
    def has_perm(self, user_obj, perm, obj=None):
        raise PermissionDenied


class Asynchronous(BaseBackend):
    async def has_perm(self, user_obj, perm, obj=None):
        return False


@pytest.fixture
def backends(settings):
    def use(*classes):
        settings.AUTHENTICATION_BACKENDS = [f"{cls.__module__}.{cls.__name__}" for cls in classes]

    use(ByName)
    return use


class NamedAlice(UserPolicy):
    status = 418

    def allows(self, user):
        return user.username == "alice"


@pytest.mark.parametrize(
    ("policy", "allowed", "for_anonymous"),
    [
        (AllowAny(), set(USERS), 101),
        (DenyAll(), set(), 403),
        (IsAuthenticated(), set(USERS) - {"anonymous"}, 401),
        (IsStaff(), {"boss"}, 401),
        (IsSuperuser(), {"root"}, 401),
        (UserPassesTest(lambda user: user.is_active), {"alice", "boss", "root"}, 401),
        (HasPermission("auth.add_user"), {"root"}, 401),
        (NamedAlice(), {"alice"}, 401),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else repr(value),
)
async def test_a_policy_allows_these_users_and_asks_anonymous_ones_to_log_in(policy, allowed, for_anonymous):
    expected = {name: 101 if name in allowed else policy.status for name in USERS} | {"anonymous": for_anonymous}
    assert {name: await status(policy, USERS[name]) for name in expected} == expected


def test_an_active_user_in_one_of_several_groups_is_allowed(users):
    users["alice"].groups.add(Group.objects.create(name="ops"))
    for names in (["ops"], ["ops", "dev"], ["dev", "ops"]):
        policy = InGroup(*names)
        asked = [anonymous, users["alice"], users["bob"]]
        assert [status_of(policy, user) for user in asked] == [401, 101, 403]
    users["alice"].is_active = False
    assert status_of(InGroup("ops"), users["alice"]) == 403


class Liar:
    """Equal to True, and true; not True."""

    __hash__ = None

    def __eq__(self, other):
        return True

    def __bool__(self):
        return True


WRONG = [1, "yes", [1], object(), 0, None, "", Liar()]


async def is_alice(user):
    await asyncio.sleep(0)
    return user.username == "alice"


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: repr(value).partition(" object at")[0])
async def test_exactly_true_allows(wrong):
    async def asynchronous(user):
        return wrong

    asked = [
        UserPassesTest(lambda user: wrong),
        UserPassesTest(asynchronous),
        type("Mine", (UserPolicy,), {"allows": lambda self, user: wrong})(),
    ]
    for policy in asked:
        for combined in (policy, ~policy, policy | AllowAny()):
            assert await status(combined, alice) == 500, combined

    class Custom:
        is_authenticated, pk = True, 9

        def has_perm(self, permission, obj=None):
            return wrong

    for policy in (HasPermission("a.b"), ~HasPermission("a.b"), HasPermission("a.b", anonymous=True)):
        assert await status(policy, Custom()) == 500, policy

    request = request_of(alice, headers={"accept": "application/json"})
    view = require(asked[0])(lambda request: HttpResponse())
    assert (await sync_to_async(view)(request)).status_code == 500


async def test_a_backend_whose_has_perm_is_a_coroutine_function_is_an_error_and_allows_no_user(backends, caplog):
    backends(ByName, Asynchronous)
    for _ in range(2):
        for policy in (HasPermission("site.alice"), ~HasPermission("a.b"), HasPermission("a.b") | AllowAny()):
            assert await status(policy, alice) == 500, policy
    assert "Asynchronous.has_perm() is a coroutine function" in caplog.text


async def test_a_response_below_300_is_an_error_and_any_other_denies():
    for number in map(int, HTTPStatus):
        policy = Check(lambda request, number=number: HttpResponse(status=number))
        found = [await status(asked, alice) for asked in (policy, ~policy)]
        assert found == ([number, 101] if number >= 300 else [500, 500]), number


async def test_a_test_may_be_a_coroutine_function_or_return_a_coroutine():
    for test in (is_alice, lambda user: is_alice(user), functools.partial(is_alice)):
        assert [await status(UserPassesTest(test), user) for user in (anonymous, alice, boss)] == [401, 101, 403]


#: Policies that allow root, and what their subclasses may override: any such method is asked.
BUILTIN = {
    AllowAny: (),
    Throttle: ("9/day", "ip"),
    MaxConnections: (9,),
    IsAuthenticated: (),
    IsStaff: (),
    IsSuperuser: (),
    InGroup: ("ops",),
    HasPermission: ("auth.add_user",),
    UserPassesTest: (lambda user: True,),
    UserPolicy: (),
    And: (AllowAny(), AllowAny()),
    Or: (AllowAny(), DenyAll()),
    Not: (DenyAll(),),
}


@pytest.mark.parametrize(
    ("base", "name"),
    [(base, name) for base in BUILTIN for name in ("check", "acheck", "allows") if hasattr(base, name)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_method_that_a_subclass_overrides_is_asked_on_sockets_and_views(name, base):
    def deny(self, argument):
        return False

    async def deny_async(self, request):
        return False

    policy = type("Mine", (base,), {name: deny_async if name == "acheck" else deny})(*BUILTIN[base])
    user = type(root)(pk=3, username="root", is_superuser=True, is_staff=True)
    request = request_of(user)
    view = require(policy)(lambda request: HttpResponse())
    # Policies of the site may ask it themselves, and by either of its checks.
    own = Check(policy.check), AsyncCheck(policy.acheck)
    for asked in (policy, AllowAny() & policy, policy & AllowAny(), ~~policy, *own):
        assert status_of(asked, user) in {policy.status, 403}
        assert view(request).status_code == policy.status


async def test_an_override_may_ask_the_method_that_it_overrides():
    class Office(IsStaff):
        async def acheck(self, request):
            return await super().acheck(request) is True and request.path == "/"

    class Public(IsStaff):
        def check(self, request):
            return request.path == "/" or super().check(request)

    class ByOther(IsStaff):
        def check(self, request):
            return async_to_sync(super().acheck)(request)

    class PermissionByOther(HasPermission):
        def check(self, request):
            return async_to_sync(super().acheck)(request)

    class OfficeByOther(Office):
        def check(self, request):
            return super().check(request)

    assert [await status(Office(), user) for user in (anonymous, boss)] == [403, 101]
    assert await status(Public(), anonymous) == 101
    everything = type(root)(pk=3, is_staff=True, is_superuser=True)
    for policy in (ByOther(), OfficeByOther(), PermissionByOther("auth.add_user")):
        assert (await status(policy), await status(policy, everything)) in {(401, 101), (403, 101)}


AND_MORE = {
    "IsAuthenticated": (IsAuthenticated, ()),
    "IsStaff": (IsStaff, ()),
    "InGroup": (InGroup, ("ops",)),
    "HasPermission": (HasPermission, ("auth.add_user",)),
    "UserPassesTest": (UserPassesTest, (lambda user: False,)),
    "and": (And, (IsAuthenticated(), Check(lambda request: False))),
    "or": (Or, (IsStaff(), Check(lambda request: HttpResponse(status=403)))),
    "REST framework": (RestFramework, (type("View", (APIView,), {"permission_classes": [OfRest]}),)),
}


@pytest.mark.parametrize(("base", "arguments"), AND_MORE.values(), ids=AND_MORE)
@pytest.mark.parametrize("name", ["check", "acheck"])
async def test_a_check_that_takes_a_denial_for_true_allows_nobody(base, arguments, name, caplog):
    def check(self, request):
        return super(policy_class, self).check(request) and True

    async def acheck(self, request):
        return await super(policy_class, self).acheck(request) and True

    policy_class = type("AndMore", (base,), {name: check if name == "check" else acheck})
    inner = base(*arguments)
    asks = Check(lambda request: bool(inner.check(request)))
    for policy in (policy_class(*arguments), asks, ~asks, asks | asks):
        assert await status(policy) == 500
        assert "Compare the answer of a check by `is True`" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("kind", [Check, AsyncCheck])
async def test_the_denial_of_a_check_may_be_raised_and_lead_to_other_exceptions(kind):
    def raises(request):
        raise IsStaff().check(request)

    def raises_another(request):
        raise Http404 from IsStaff().check(request)

    for function, expected in ((raises, 401), (raises_another, 404)):
        assert await status(kind(function)) == expected
        view = require(kind(function))(lambda request: HttpResponse())
        assert (await sync_to_async(view)(request_of(anonymous))).status_code == expected


async def test_a_throttle_that_denies_is_not_taken_for_true(settings):
    settings.CACHES = cache_settings("locmem")
    throttle = Throttle("1/day", key="ip")
    asks = Check(lambda request: bool(throttle.check(request)))
    assert [await status(asks) for _ in range(2)] == [101, 500]


class AsksOn:
    """A mixin, which is no policy."""

    def check(self, request):
        return super().check(request)


async def test_a_mixin_before_a_policy_may_ask_that_by_super():
    is_boss = type("IsBoss", (UserPolicy,), {"allows": lambda self, user: user is boss})
    policy = type("Asked", (AsksOn, is_boss), {})()
    assert [await status(policy, user) for user in (alice, boss)] == [403, 101]


def test_permissions_are_asked_of_every_backend(users, settings, backends):
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", f"{ByName.__module__}.ByName"]
    users["alice"].user_permissions.add(Permission.objects.get(codename="add_user"))
    for permission, for_alice, for_bob in [
        ("auth.add_user", 101, 403),
        ("site.alice", 101, 403),
        (["auth.add_user", "site.alice"], 101, 403),
        (["site.alice", "site.bob"], 403, 403),
        ((name for name in ("auth.add_user",)), 101, 403),
    ]:
        policy = HasPermission(permission)
        assert [status_of(policy, users[name]) for name in ("alice", "bob")] == [for_alice, for_bob], policy
    backends(Forbids, ByName)
    assert status_of(HasPermission("site.alice"), users["alice"]) == 403


async def test_backends_are_asked_about_anonymous_users_only_by_anonymous_true(backends):
    called = []
    policy = HasPermission("site.anonymous", obj=lambda request: called.append(request))
    assert ((await status(policy)), called) == (401, [])
    assert await status(HasPermission("site.anonymous", anonymous=True)) == 101
    other = HasPermission("site.other", anonymous=True)
    assert [await status(other), await status(other, alice)] == [401, 403]


class Resolver:
    """A resolver that cannot be hashed; it notes the threads that it runs in."""

    __hash__ = None

    def __init__(self):
        self.threads = []

    def __call__(self, request):
        self.threads.append(threading.current_thread())
        return "lobby"

    async def on_loop(self, request):
        return self(request)


def found_by(app_class, decorate, seen):
    room = consumer(lambda self: seen.append(self.scope["wsdeny"].obj) or self.accept(), app_class)
    return decorate(room).as_asgi()


@pytest.mark.parametrize(
    ("make", "is_on_loop"),
    [
        (lambda resolver: resolver, False),
        (lambda resolver: functools.partial(resolver), False),
        (lambda resolver: resolver.on_loop, True),
        (lambda resolver: functools.partial(resolver.on_loop), True),
        (lambda resolver: lambda request: resolver.on_loop(request), None),
    ],
)
@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
async def test_the_object_of_any_resolver_is_asked_about_and_reaches_the_consumer(base, make, is_on_loop, backends):
    seen, resolver = [], Resolver()
    app = found_by(base, permission_required("site.lobby", obj=make(resolver)), seen)
    assert [(await knock(app, "/", user=user)).status for user in (anonymous, alice)] == [401, 101]
    assert (seen, len(resolver.threads)) == (["lobby"], 1)
    if is_on_loop is not None:
        assert (resolver.threads == [threading.current_thread()]) is is_on_loop
    assert await status(HasPermission("site.attic", obj=make(resolver)), alice) == 403


@pytest.mark.parametrize("policy", [functools.partial(HasPermission, "a.b"), RestFramework])
@pytest.mark.parametrize("returned", [None, SimpleLazyObject(lambda: None), Deny(404), HttpResponse(status=404)])
async def test_a_resolver_that_returns_none_or_a_denial_denies_even_a_superuser(policy, returned, caplog):
    def forgetful(request):
        return returned

    assert await status(policy(obj=forgetful), root) == 500
    assert f"obj=forgetful returned {'None' if isinstance(returned, NoneType) else 'a '}" in caplog.text


async def test_a_false_object_is_an_object(backends):
    assert await status(HasPermission("site.0", obj=lambda request: 0), alice) == 101


@pytest.mark.parametrize("make", [lambda resolver: resolver, lambda resolver: resolver.on_loop])
async def test_policies_that_name_one_resolver_call_it_once_and_the_endpoint_gets_the_innermost_object(make, backends):
    seen, resolver = [], Resolver()
    resolved = make(resolver)

    def lobby(app):
        return permission_required("site.lobby", obj=resolved)(app)

    room = found_by(AsyncWebsocketConsumer, lambda cls: lobby(lobby(cls)), seen)
    house = permission_required("site.house", obj=lambda request: "house")
    app = DenyMiddlewareStack(house(lobby(URLRouter([path("", room)]))))
    assert (await knock(app, "/", user=alice)).status == 101
    assert (seen, len(resolver.threads)) == (["lobby"], 1)


@pytest.mark.parametrize("make", [lambda resolver: resolver, lambda resolver: resolver.on_loop])
async def test_the_object_of_an_operand_that_denies_does_not_reach_the_endpoint(make, backends):
    """An endpoint may tell by it what the user is allowed, for which the operand has asked more than the permission."""
    seen, lobby = [], HasPermission("site.lobby", obj=make(Resolver()))
    house = HasPermission("site.house", obj=lambda request: "house")
    for policy in (
        lobby & IsStaff() | IsAuthenticated(),
        ~(lobby & IsStaff()),
        house & (lobby & IsStaff() | AllowAny()),
    ):
        assert (await knock(found_by(AsyncWebsocketConsumer, require(policy), seen), "/", user=alice)).status == 101
    assert seen == [None, None, "house"]


def allow(self, argument):
    return True


IGNORED = {
    "obj": (HasPermission, "obj", "give obj as an argument"),
    "test": (UserPassesTest, "test", "give test as an argument"),
    "names": (InGroup, "names", "give names as an argument"),
    "origins": (AllowedOrigin, "origins", "give origins as an argument"),
    "rate": (Throttle, "rate", "give rate as an argument"),
    "number": (MaxConnections, "number", "give number as an argument"),
    "permissions": (RestFramework, "permissions", "give permissions as an argument"),
    "throttle_classes": (RestFramework, "throttle_classes", "would be ignored"),
    "allows": (type("Closed", (IsStaff,), {}), "allows", "asked in its place"),
    "allows of a base class": (type("Closed", (IsStaff,), {"check": allow}), "allows", "in its place"),
    "allows before a check that may ask it": (type("Asks", (AsksOn, IsStaff), {}), "allows", "in its place"),
}


@pytest.mark.parametrize(("base", "name", "message"), IGNORED.values(), ids=IGNORED)
def test_an_override_that_would_be_ignored_is_an_error_when_the_class_is_made(base, name, message):
    needs_check = name == "allows" and base.check is UserPolicy.check
    methods = {name: lambda self, user: False} | ({"check": allow} if needs_check else {})
    with pytest.raises(TypeError, match=message):
        type("Ignored", (base,), methods)


@pytest.mark.parametrize("is_first", [True, False])
def test_what_a_mixin_gives_in_the_place_of_an_argument_would_be_ignored_too(is_first):
    """The permission would be asked for all objects at once."""
    mixin = type("OfRoom", (), {"obj": lambda self, request: request.room})
    with pytest.raises(TypeError, match="give obj as an argument"):
        type("Ignored", (mixin, HasPermission) if is_first else (HasPermission, mixin), {})
    own = type("Own", (HasPermission,), {"obj": None, "__init__": lambda self: None})
    assert type("Sub", (own,), {})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (InGroup, "names of one or more groups"),
        (lambda: InGroup(""), "names of one or more groups"),
        (lambda: InGroup(["ops", "dev"]), r"names of one or more groups, found .* Write InGroup\('ops', 'dev'\)\."),
        (lambda: HasPermission(""), "app.codename"),
        (lambda: HasPermission([]), "app.codename"),
        (lambda: HasPermission(None), "app.codename"),
        (lambda: HasPermission(["a.b", None]), "app.codename"),
        (lambda: HasPermission("a.b", obj="lobby"), "function that returns the object for a request, found 'lobby'"),
        (lambda: UserPassesTest("staff"), "function on the user, found 'staff'"),
        (lambda: UserPassesTest(dict), "function on the user, found <class 'dict'>"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()
