"""Policies: what they answer, how they combine and print, and what of them reaches the endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import URLRouter
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import BaseBackend, ModelBackend
from django.contrib.auth.models import AnonymousUser, Group, Permission
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.urls.exceptions import Resolver404

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.decorators import permission_required, require
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
    UserPolicy,
)
from tests.clients import knock

# Channels' consumers close old database connections before each message.
pytestmark = pytest.mark.django_db

nobody = AnonymousUser()
alice = get_user_model()(pk=1, username="alice")
boss = get_user_model()(pk=2, username="boss", is_staff=True)
root = get_user_model()(pk=3, username="root", is_superuser=True)
ex_boss = get_user_model()(pk=4, username="ex-boss", is_staff=True, is_active=False)
ex_root = get_user_model()(pk=5, username="ex-root", is_superuser=True, is_active=False)


class Notes(Policy):
    """Answers `answer` or raises `error`, and notes that it was asked."""

    def __init__(self, answer=True, *, error=None):
        self.answer, self.error, self.asked = answer, error, 0

    async def acheck(self, request):
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.answer


async def ask(policy, user=nobody, **scope):
    """The answer that a handshake gets from an endpoint behind `policy`."""
    consumer = require(policy)(type("Consumer", (AsyncWebsocketConsumer,), {}))
    return await knock(DenyMiddlewareStack(consumer.as_asgi()), "/", user=user, **scope)


async def status(policy, user=nobody):
    return (await ask(policy, user)).status


status_sync = async_to_sync(status)


# Who passes.


@pytest.mark.parametrize(
    ("policy", "who"),
    [
        (AllowAny(), {"nobody", "alice", "boss", "root", "ex-boss", "ex-root"}),
        (DenyAll(), set()),
        (IsAuthenticated(), {"alice", "boss", "root", "ex-boss", "ex-root"}),
        (IsStaff(), {"boss"}),
        (IsSuperuser(), {"root"}),
        (UserPassesTest(lambda user: user.is_active), {"alice", "boss", "root"}),
        (HasPermission("auth.add_user"), {"root"}),
    ],
    ids=repr,
)
async def test_a_policy_lets_in(policy, who):
    users = {"nobody": nobody} | {user.username: user for user in (alice, boss, root, ex_boss, ex_root)}
    assert {name for name, user in users.items() if await status(policy, user) == 101} == who


@pytest.mark.parametrize(
    "policy", [IsAuthenticated(), IsStaff(), IsSuperuser(), InGroup("a"), HasPermission("a.b")]
)
async def test_a_visitor_who_might_pass_after_logging_in_gets_a_401(policy):
    assert await status(policy, nobody) == 401


async def test_a_visitor_who_would_not_pass_anyway_gets_a_403():
    assert await status(DenyAll(), nobody) == 403


@pytest.mark.parametrize("names", [("ops",), ("ops", "dev"), ("dev", "ops")])
def test_one_group_of_several_is_enough(names, users):
    users["alice"].groups.add(Group.objects.create(name="ops"))
    assert status_sync(InGroup(*names), users["alice"]) == 101
    assert status_sync(InGroup(*names), users["bob"]) == 403


def test_an_inactive_user_is_in_no_group(users):
    users["alice"].groups.add(Group.objects.create(name="ops"))
    users["alice"].is_active = False
    assert status_sync(InGroup("ops"), users["alice"]) == 403


async def test_a_policy_about_the_user_says_by_itself_whom_it_allows():
    class NamedAlice(UserPolicy):
        status = 418

        def allows(self, user):
            return user.username == "alice"

    assert [await status(NamedAlice(), user) for user in (nobody, alice, boss)] == [401, 101, 418]


@pytest.mark.parametrize(
    ("answer", "passes"),
    [(True, True), (1, True), ("yes", True), (False, False), (0, False), (None, False), ("", False)],
)
async def test_a_test_on_the_user_passes_by_any_true_value(answer, passes):
    assert (await status(UserPassesTest(lambda user: answer), alice) == 101) is passes


async def test_a_test_on_the_user_may_be_a_coroutine_function():
    async def is_alice(user):
        await asyncio.sleep(0)
        return user.username == "alice"

    assert [await status(UserPassesTest(is_alice), user) for user in (nobody, alice, boss)] == [401, 101, 403]


async def test_a_test_on_the_user_may_return_a_coroutine():
    async def is_alice(user):
        return user.username == "alice"

    assert [await status(UserPassesTest(lambda user: is_alice(user)), user) for user in (alice, boss)] == [
        101,
        403,
    ]


# Permissions.


class ByName(BaseBackend):
    """Grants users and objects the permission that has their name. It is only synchronous."""

    ahas_perm = None

    def has_perm(self, user_obj, perm, obj=None):
        return perm == (f"site.{user_obj.get_username() or 'anybody'}" if obj is None else f"site.{obj}")


class Forbids(BaseBackend):
    def has_perm(self, user_obj, perm, obj=None):
        raise PermissionDenied


@pytest.fixture
def by_name(settings):
    settings.AUTHENTICATION_BACKENDS = [f"{ModelBackend.__module__}.ModelBackend", f"{__name__}.ByName"]


def test_a_permission_of_djangos_own_is_enough(users):
    users["alice"].user_permissions.add(Permission.objects.get(codename="add_user"))
    assert status_sync(HasPermission("auth.add_user"), users["alice"]) == 101
    assert status_sync(HasPermission("auth.add_user"), users["bob"]) == 403


async def test_a_backend_without_asynchronous_methods_counts(by_name):
    assert await status(HasPermission("site.alice"), alice) == 101
    assert await status(HasPermission("site.alice"), boss) == 403


async def test_a_backend_that_forbids_ends_the_asking(settings):
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.Forbids", f"{__name__}.ByName"]
    assert await status(HasPermission("site.alice"), alice) == 403


def test_all_of_several_permissions_are_needed(by_name, users):
    users["alice"].user_permissions.add(Permission.objects.get(codename="add_user"))
    both = HasPermission(["auth.add_user", "site.alice"])
    assert status_sync(both, users["alice"]) == 101
    assert status_sync(both, alice) == 403
    assert status_sync(HasPermission(["site.alice", "site.boss"]), boss) == 403


async def test_an_inactive_superuser_has_no_permission():
    assert await status(HasPermission("auth.add_user"), ex_root) == 403


async def test_an_anonymous_visitor_is_not_asked_about():
    asked = []

    def room(request):
        asked.append(request)
        return "room"

    assert await status(HasPermission("site.anybody", obj=room), nobody) == 401
    assert asked == []


async def test_with_anonymous_the_backends_are_asked_about_visitors(by_name):
    assert await status(HasPermission("site.anybody"), nobody) == 401
    assert await status(HasPermission("site.anybody", anonymous=True), nobody) == 101
    assert await status(HasPermission("site.other", anonymous=True), nobody) == 401
    assert await status(HasPermission("site.other", anonymous=True), alice) == 403


async def test_a_permission_on_an_object_is_asked_of_the_object(by_name):
    assert await status(HasPermission("site.lobby", obj=lambda request: "lobby"), alice) == 101
    assert await status(HasPermission("site.lobby", obj=lambda request: "attic"), alice) == 403


# Objects.


class Sync:
    """A resolver that is an object, and cannot be hashed."""

    __hash__ = None

    def __call__(self, request):
        return "lobby"


class AsyncMethod:
    async def resolve(self, request):
        return "lobby"


async def lobby(request):
    await asyncio.sleep(0)
    return "lobby"


def lobby_sync(request):
    return "lobby"


@pytest.mark.parametrize(
    "resolver",
    [
        lobby_sync,
        lobby,
        lambda request: lobby(request),
        Sync(),
        AsyncMethod().resolve,
        functools.partial(lobby),
        functools.partial(lobby_sync),
    ],
    ids=["sync", "async", "lambda", "object", "method", "partial", "partial sync"],
)
async def test_a_resolver_may_be_any_callable(resolver, by_name):
    seen = []

    @permission_required("site.lobby", obj=resolver)
    class Room(AsyncWebsocketConsumer):
        async def connect(self):
            seen.append(self.scope["wsdeny"].obj)
            await self.accept()

    assert (await knock(Room.as_asgi(), "/", user=alice)).status == 101
    assert seen == ["lobby"]


async def test_an_async_resolver_runs_on_the_loop(by_name):
    threads = []

    async def resolver(request):
        threads.append(threading.current_thread())
        return "lobby"

    await status(HasPermission("site.lobby", obj=resolver), alice)
    assert threads == [threading.current_thread()]


async def test_a_synchronous_resolver_runs_off_the_loop(by_name):
    threads = []

    def resolver(request):
        threads.append(threading.current_thread())
        return "lobby"

    await status(HasPermission("site.lobby", obj=resolver), alice)
    assert len(threads) == 1
    assert threads != [threading.current_thread()]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Http404("secret"), 404),
        (lambda: Resolver404({"path": "secret"}), 404),
        (lambda: PermissionDenied("secret"), 403),
        (lambda: Deny(410), 410),
        (lambda: KeyError("secret"), 500),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_what_a_resolver_raises_is_the_denial_of_the_table(make, expected, is_async):
    def resolver(request):
        raise make()

    async def async_resolver(request):
        raise make()

    policy = HasPermission("site.lobby", obj=async_resolver if is_async else resolver)
    answer = await ask(policy, alice)
    assert answer.status == expected
    assert b"secret" not in answer.body


async def test_a_resolver_that_returns_none_denies_even_a_superuser(caplog):
    def forgetful(request):
        pass

    assert await status(HasPermission("site.lobby", obj=forgetful), root) == 500
    assert "obj=forgetful returned None" in caplog.text


async def test_a_false_object_is_an_object(by_name):
    assert await status(HasPermission("site.0", obj=lambda request: 0), alice) == 101


def find_alice(request):
    return get_user_model().objects.get(username="alice")


async def afind_alice(request):
    return await get_user_model().objects.aget(username="alice")


@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
def test_the_object_reaches_the_consumer_without_a_second_query(base, by_name, users):
    from django.db import connection

    seen = []

    class Room(base):
        def connect(self):
            seen.append(self.scope["wsdeny"].obj)
            return self.accept()

    app = permission_required("site.alice", obj=find_alice)(Room).as_asgi()
    with CaptureQueriesContext(connection) as queries:
        assert async_to_sync(knock)(app, "/", user=boss).status == 101
    assert seen == [users["alice"]]
    assert len(queries) == 1


def asked(user):
    request = RequestFactory().get("/")
    request.user = user
    return request


def test_the_object_reaches_the_view_without_a_second_query(by_name, users, django_assert_num_queries):
    @permission_required("site.alice", obj=find_alice)
    def view(request):
        return HttpResponse(request.wsdeny.obj.username)

    with django_assert_num_queries(1):
        assert view(asked(boss)).content == b"alice"


@pytest.mark.django_db(transaction=True)
def test_the_object_of_an_async_resolver_reaches_an_async_view(by_name, users):
    @permission_required("site.alice", obj=afind_alice)
    async def view(request):
        return HttpResponse(request.wsdeny.obj.username)

    assert async_to_sync(view)(asked(boss)).content == b"alice"


async def test_policies_that_name_one_resolver_ask_it_once(by_name):
    calls = []

    def resolver(request):
        calls.append(request)
        return "lobby"

    @permission_required("site.lobby", obj=resolver)
    @permission_required("site.lobby", obj=resolver)
    class Room(AsyncWebsocketConsumer):
        pass

    router = require(HasPermission("site.lobby", obj=resolver))(URLRouter([path("", Room.as_asgi())]))
    assert (await knock(DenyMiddlewareStack(router), "/", user=alice)).status == 101
    assert len(calls) == 1


async def test_the_object_of_the_innermost_policy_is_the_endpoints(by_name):
    seen = []

    @permission_required("site.lobby", obj=lambda request: "lobby")
    class Room(AsyncWebsocketConsumer):
        async def connect(self):
            seen.append(self.scope["wsdeny"].obj)
            await self.accept()

    house = permission_required("site.house", obj=lambda request: "house")
    assert (await knock(house(URLRouter([path("", Room.as_asgi())])), "/", user=alice)).status == 101
    assert seen == ["lobby"]


async def test_without_a_resolver_there_is_no_object():
    seen = []

    @require(IsAuthenticated())
    class Room(AsyncWebsocketConsumer):
        async def connect(self):
            seen.append(self.scope["wsdeny"].obj)
            await self.accept()

    assert (await knock(Room.as_asgi(), "/", user=alice)).status == 101
    assert seen == [None]


# Combining.

YES, NO, LOG_IN = Notes(True), Notes(False), Notes(Deny(401))
TEAPOT, RESPONSE = Notes(Deny(418)), Notes(HttpResponse("gone", status=410))


@pytest.mark.parametrize(
    ("policy", "for_nobody", "for_alice"),
    [
        (YES & YES, 101, 101),
        (YES & NO, 403, 403),
        (NO & TEAPOT, 403, 403),
        (TEAPOT & NO, 418, 418),
        (YES & LOG_IN & TEAPOT, 401, 401),
        (NO | YES, 101, 101),
        (NO | TEAPOT, 403, 403),
        (TEAPOT | NO, 418, 418),
        (TEAPOT | LOG_IN, 401, 418),
        (LOG_IN | TEAPOT, 401, 418),
        (LOG_IN | RESPONSE, 401, 410),
        (LOG_IN | LOG_IN, 401, 401),
        (~NO, 101, 101),
        (~YES, 403, 403),
        (~TEAPOT, 101, 101),
        (~LOG_IN, 101, 101),
        (~RESPONSE, 101, 101),
        (~~TEAPOT, 403, 403),
        (~(YES & NO), 101, 101),
        (~(YES | NO), 403, 403),
        (~YES | TEAPOT, 403, 403),
        (IsStaff() | DenyAll(), 401, 403),
        (IsStaff() & DenyAll(), 401, 403),
        (~IsAuthenticated(), 101, 403),
    ],
)
async def test_combined_policies_answer(policy, for_nobody, for_alice):
    assert [await status(policy, nobody), await status(policy, alice)] == [for_nobody, for_alice]


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        (lambda a, b: a & b, {True: 1, False: 0}),
        (lambda a, b: a | b, {True: 0, False: 1}),
        (lambda a, b: ~a & b, {True: 0, False: 1}),
        (lambda a, b: ~a | b, {True: 1, False: 0}),
        (lambda a, b: ~(a & b), {True: 1, False: 0}),
        (lambda a, b: (a | DenyAll()) & b, {True: 1, False: 0}),
    ],
)
@pytest.mark.parametrize("first", [True, False])
async def test_combined_policies_ask_no_further_than_needed(combine, expected, first):
    second = Notes(True)
    await status(combine(Notes(first), second))
    assert second.asked == expected[first]


@pytest.mark.parametrize(
    "combine",
    [
        lambda policy: ~policy,
        lambda policy: ~~policy,
        lambda policy: policy | AllowAny(),
        lambda policy: DenyAll() | policy,
        lambda policy: AllowAny() & policy,
        lambda policy: ~(policy & AllowAny()),
        lambda policy: ~(DenyAll() | policy),
        lambda policy: ~~(policy | AllowAny()) | AllowAny(),
    ],
)
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ZeroDivisionError(), 500),
        (lambda: PermissionDenied(), 403),
        (lambda: Http404(), 404),
        (lambda: Deny(418), 418),
        (lambda: TimeoutError(), 503),
    ],
)
async def test_no_operator_flips_an_exception(combine, make, expected):
    assert await status(combine(Notes(error=make())), alice) == expected


@pytest.mark.parametrize("answer", [None, "yes", 1, 0, [], object()])
@pytest.mark.parametrize(
    "combine", [lambda p: p, lambda p: ~p, lambda p: p | AllowAny(), lambda p: p & AllowAny()]
)
async def test_what_is_no_answer_denies_in_every_combination(answer, combine):
    assert await status(combine(Notes(answer)), root) == 500


async def test_a_policy_that_times_out_denies_in_every_combination(settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.05}

    class Hangs(Policy):
        async def acheck(self, request):
            await asyncio.get_running_loop().create_future()

    for policy in (Hangs(), ~Hangs(), Hangs() | AllowAny(), ~(AllowAny() & Hangs())):
        assert await status(policy) == 503


@pytest.mark.parametrize("other", [True, None, "IsStaff()", IsStaff, lambda user: True])
@pytest.mark.parametrize("operator", ["__and__", "__or__", "__rand__", "__ror__"])
def test_a_policy_combines_with_policies_only(other, operator):
    swapped, name = operator.startswith("__r"), operator.strip("_").removeprefix("r")
    pair = (other, IsStaff()) if swapped else (IsStaff(), other)
    with pytest.raises(TypeError, match="unsupported operand"):
        pair[0] & pair[1] if name == "and" else pair[0] | pair[1]


@pytest.mark.parametrize("use", [lambda p: p and IsStaff(), lambda p: p or IsStaff(), lambda p: not p, bool])
def test_pythons_own_operators_are_told_apart(use):
    with pytest.raises(TypeError, match=r"&, \| and ~"):
        use(IsAuthenticated())


def test_combining_changes_no_policy():
    left, right = IsStaff() | IsSuperuser(), InGroup("ops")
    before = repr(left)
    left | right
    assert repr(left) == before


# Printing.


def is_alice(user):
    return True


class Open(Policy):
    def check(self, request):
        return True


EXPRESSIONS = """
AllowAny()
DenyAll()
IsAuthenticated()
IsStaff()
IsSuperuser()
InGroup('ops')
InGroup('ops', 'dev')
InGroup("o'ps")
HasPermission('chat.view')
HasPermission(['chat.view', 'chat.post'])
HasPermission('chat.view', obj=lobby)
HasPermission('chat.view', anonymous=True)
HasPermission(['chat.view', 'chat.post'], obj=lobby, anonymous=True)
UserPassesTest(is_alice)
Open()
IsStaff() & IsSuperuser()
IsStaff() | IsSuperuser()
~IsStaff()
~~IsStaff()
IsStaff() & IsSuperuser() & DenyAll()
IsStaff() | IsSuperuser() | DenyAll()
IsStaff() & IsSuperuser() | DenyAll()
IsStaff() | IsSuperuser() & DenyAll()
(IsStaff() | IsSuperuser()) & DenyAll()
IsStaff() & (IsSuperuser() | DenyAll())
(IsStaff() | IsSuperuser()) & (DenyAll() | AllowAny())
~(IsStaff() | IsSuperuser())
~(IsStaff() & IsSuperuser())
~IsStaff() & ~IsSuperuser()
~IsStaff() | IsSuperuser() & ~(DenyAll() | AllowAny())
~(~IsStaff() & ~(IsSuperuser() | DenyAll()))
IsStaff() & ~(IsSuperuser() & DenyAll()) & HasPermission('chat.view', obj=lobby)
""".strip().splitlines()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_policy_prints_as_it_was_written(expression):
    assert repr(eval(expression)) == expression


@pytest.mark.parametrize(
    ("redundant", "printed"),
    [
        ("(IsStaff() & IsSuperuser()) & DenyAll()", "IsStaff() & IsSuperuser() & DenyAll()"),
        ("IsStaff() & (IsSuperuser() & DenyAll())", "IsStaff() & IsSuperuser() & DenyAll()"),
        ("IsStaff() | (IsSuperuser() | DenyAll())", "IsStaff() | IsSuperuser() | DenyAll()"),
        ("(IsStaff() & IsSuperuser()) | DenyAll()", "IsStaff() & IsSuperuser() | DenyAll()"),
    ],
)
def test_parentheses_that_change_nothing_are_left_out(redundant, printed):
    assert repr(eval(redundant)) == printed


async def test_the_log_of_a_denial_names_the_policy_as_written(caplog):
    await status(AllowAny() & ~AllowAny())
    (record,) = [record for record in caplog.records if record.name == "channels_wsdeny"]
    assert record.policy == "AllowAny() & ~AllowAny()"


# Checks.


class Both(Policy):
    """Gives both checks, and notes which ran in which thread."""

    def __init__(self):
        self.ran = []

    def note(self, name):
        self.ran.append((name, threading.current_thread() is threading.main_thread()))
        return True

    def check(self, request):
        return self.note("check")

    async def acheck(self, request):
        return self.note("acheck")


async def test_of_both_checks_the_async_one_runs_on_the_loop():
    policy = Both()
    assert await status(policy) == 101
    assert policy.ran == [("acheck", True)]


async def test_of_both_checks_the_synchronous_one_runs_where_a_thread_was_needed_already():
    policy = Both()
    assert await status(Open() & policy) == 101
    assert policy.ran == [("check", False)]


def test_of_both_checks_a_synchronous_view_asks_the_synchronous_one():
    policy = Both()
    assert require(policy)(lambda request: HttpResponse())(asked(nobody)).status_code == 200
    assert policy.ran == [("check", True)]


def test_of_both_checks_an_async_view_asks_the_async_one():
    policy = Both()

    @require(policy)
    async def view(request):
        return HttpResponse()

    assert iscoroutinefunction(view)
    assert asyncio.run(view(asked(nobody))).status_code == 200
    assert policy.ran == [("acheck", True)]


def test_a_synchronous_view_can_ask_an_async_check():
    policy = Notes(True)
    assert require(policy)(lambda request: HttpResponse())(asked(nobody)).status_code == 200
    assert policy.asked == 1


async def test_a_synchronous_check_runs_off_the_loop():
    threads = []

    class Sync(Policy):
        def check(self, request):
            threads.append(threading.current_thread())
            return True

    assert await status(Sync()) == 101
    assert threads[0] is not threading.current_thread()


async def test_a_policy_without_a_check_denies_and_says_what_to_write(caplog):
    class Empty(Policy):
        pass

    assert await status(Empty(), root) == 500
    assert "Empty has neither check() nor acheck()" in caplog.text


async def test_a_check_that_is_a_coroutine_function_denies_and_says_how_to_name_it(caplog):
    class Misnamed(Policy):
        async def check(self, request):
            return True

    assert await status(Misnamed(), root) == 500
    assert "named acheck()" in caplog.text


async def test_a_policy_made_of_policies_may_ask_them():
    class Either(Policy):
        inner = IsStaff() | IsSuperuser()

        async def acheck(self, request):
            return await self.inner.acheck(request)

    class EitherSync(Policy):
        inner = IsStaff() | IsSuperuser()

        def check(self, request):
            return self.inner.check(request)

    for policy in (Either(), EitherSync()):
        assert [await status(policy, user) for user in (nobody, alice, boss)] == [401, 403, 101]


async def test_a_subclass_chooses_status_code_and_detail_of_its_denial():
    class Full(Policy):
        status = 409
        code = "room_full"
        detail = "The room is full."

        def check(self, request):
            return False

    problem = (await ask(Full())).problem
    assert (problem["status"], problem["code"], problem["detail"]) == (409, "room_full", "The room is full.")


async def test_a_policy_that_needs_the_pool_again_in_its_thread_is_served_there(settings):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1}
    inner = Open()

    class Outer(Policy):
        def check(self, request):
            return async_to_sync(inner.acheck)(request)

    assert await status(Outer()) == 101
    assert await status(Open()) == 101


async def test_policies_of_different_handshakes_do_not_wait_for_one_another():
    barrier = threading.Barrier(2)

    class Meets(Policy):
        def check(self, request):
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait(5)
            return not barrier.broken

    assert await asyncio.gather(status(Meets()), status(Meets())) == [101, 101]


# Arguments.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (InGroup, "names of one or more groups"),
        (lambda: InGroup(""), "names of one or more groups"),
        (lambda: InGroup(["ops"]), "names of one or more groups"),
        (lambda: HasPermission(""), "app.codename"),
        (lambda: HasPermission([]), "app.codename"),
        (lambda: HasPermission(None), "app.codename"),
        (lambda: HasPermission(["a.b", None]), "app.codename"),
        (lambda: HasPermission("a.b", obj="lobby"), "callable on the request, found 'lobby'"),
        (lambda: UserPassesTest("staff"), "callable on the user, found 'staff'"),
    ],
)
def test_arguments_that_cannot_be_are_told(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_permissions_may_come_from_any_iterable():
    assert HasPermission(name for name in ("a.b", "c.d")).permissions == ("a.b", "c.d")
