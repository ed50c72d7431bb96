"""What let a socket in is asked again when it may have changed, and afresh."""

import asyncio
import itertools
from contextlib import suppress
from contextvars import ContextVar
from copy import copy
from types import SimpleNamespace
from typing import ClassVar

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings as django_settings
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.fields import GenericForeignKey
from django.db import OperationalError, connection, transaction
from django.db.models import CASCADE, AutoField, CharField, ForeignKey, Manager, ManyToManyField, Model
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.db.utils import ConnectionDoesNotExist
from django.http import Http404, HttpResponse
from django.test.utils import isolate_apps
from django.utils.deprecation import MiddlewareMixin
from django.utils.functional import SimpleLazyObject, lazystr
from rest_framework.permissions import BasePermission
from rest_framework.response import Response

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks, concurrency
from channels_wsdeny.authentication import BearerAuthentication, SessionAuthentication
from channels_wsdeny.concurrency import run_in_threadpool
from channels_wsdeny.contrib.rest_framework import RestFramework
from channels_wsdeny.decorators import permission_required, require
from channels_wsdeny.exceptions import HandshakeDenied
from channels_wsdeny.handlers import recheck
from channels_wsdeny.http import session
from channels_wsdeny.live import arevoke, expiry, receivers, scheduler
from channels_wsdeny.live import registry as live_registry
from channels_wsdeny.live.registry import registry
from channels_wsdeny.policies import AllowAny, HasPermission, InGroup, IsAuthenticated, IsStaff, Policy, UserPassesTest
from channels_wsdeny.policies.base import And
from tests.support.clients import GUARD, cookie_header, knock
from tests.support.opened import Opened, update, user
from tests.support.policies import AsyncCheck, Check, Switch, User, raising
from tests.support.scripted import accept
from tests.support.sockets import Server, Unread, disconnect
from tests.support.threads import outlast, until
from tests.support.transports import AsyncOnly, SyncOnly, Tenancy
from tests.support.wrappers import With

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("hasty")]
_numbers = itertools.count()


def consumer(policy):
    return require(policy)(type("Consumer", (AsyncWebsocketConsumer,), {})).as_asgi()


@pytest.fixture
def world(users):
    """alice has everything that the policies below want, in two ways for some; bob has the same."""
    editors = Group.objects.create(name="editors")
    editors.permissions.add(permission())
    for name in ("alice", "bob"):
        user = users[name]
        user.is_staff = True
        user.save()
        user.groups.add(editors)
        user.user_permissions.add(permission("delete_user"))
    return users


def group():
    return Group.objects.get(name="editors")


EDITOR, DELETER = HasPermission("auth.change_user"), HasPermission("auth.delete_user")


def rename(row, **values):
    for name, value in values.items():
        setattr(row, name, value)
    row.save()


def permission(codename="change_user"):
    return Permission.objects.get(codename=codename)


CHANGES = {
    "no staff": (IsStaff(), update(is_staff=False), 4403, "alice"),
    "inactive": (IsStaff(), update(is_active=False), 4401, "alice"),
    "deleted": (IsStaff(), lambda: user().delete(), 4401, "alice"),
    "deleted by a queryset": (IsStaff(), lambda: User.objects.filter(username="alice").delete(), 4401, "alice"),
    "groups.clear": (EDITOR, lambda: user().groups.clear(), 4403, "alice"),
    "groups.remove": (InGroup("editors"), lambda: user().groups.remove(group()), 4403, "alice"),
    "groups.set": (EDITOR, lambda: user().groups.set([]), 4403, "alice"),
    "group_set.remove": (EDITOR, lambda: permission().group_set.remove(group()), 4403, "both"),
    "user_set.remove": (EDITOR, lambda: group().user_set.remove(user()), 4403, "alice"),
    "user_set.clear": (EDITOR, lambda: group().user_set.clear(), 4403, "both"),
    "the group is deleted": (EDITOR, lambda: group().delete(), 4403, "both"),
    "the group is renamed": (InGroup("editors"), lambda: rename(group(), name="former editors"), 4403, "both"),
    "permissions.clear": (EDITOR, lambda: group().permissions.clear(), 4403, "both"),
    "permissions.remove": (EDITOR, lambda: group().permissions.remove(*group().permissions.all()), 4403, "both"),
    "group_set.clear": (EDITOR, lambda: permission().group_set.clear(), 4403, "both"),
    "the permission is deleted": (EDITOR, lambda: permission().delete(), 4403, "both"),
    "the permission is renamed": (EDITOR, lambda: rename(permission(), codename="alter_user"), 4403, "both"),
    "user_permissions.clear": (DELETER, lambda: user().user_permissions.clear(), 4403, "alice"),
    "permission.user_set.clear": (DELETER, lambda: permission("delete_user").user_set.clear(), 4403, "both"),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_what_a_user_loses_closes_the_sockets_that_needed_it(name, world, headers_of, change):
    policy, function, code, who = CHANGES[name]
    application = consumer(policy)
    alice = await Opened(application, headers=headers_of("alice")).accepted()
    bob = await Opened(application, headers=headers_of("bob")).accepted()
    free = await Opened(consumer(AllowAny()), headers=headers_of("bob")).accepted()
    of_wrapper = await Opened(DenyMiddlewareStack(application), user=await run_in_threadpool(user)).accepted()
    await change(function)
    assert [(await each.close())[0] for each in (alice, of_wrapper)] == [code, code]
    if who == "both":
        assert (await bob.close())[0] == code
    else:
        await bob.stays()
    await free.stays()


def model(*bases, is_proxy=False, table="", **fields):
    """A model of the app auth, with a name of its own."""
    name, options = f"Model{next(_numbers)}", {"proxy": is_proxy, "app_label": "auth", "db_table": table}
    meta = type("Meta", (), options)
    return type(name, bases, {"__module__": __name__, "Meta": meta, **fields})


@pytest.mark.parametrize(("name", "policy"), [("group", InGroup("editors")), ("permission", EDITOR)])
@isolate_apps("django.contrib.auth")
async def test_a_change_by_a_proxy_of_a_model_counts(name, policy, world, headers_of, change):
    base, values = (Group, {"name": "former editors"}) if name == "group" else (Permission, {"codename": "alter_user"})
    proxy = model(base, is_proxy=True)
    receivers.watch_model(proxy)
    alice = await Opened(consumer(policy), headers=headers_of("alice")).accepted()
    found = {"name": "editors"} if name == "group" else {"codename": "change_user"}
    await change(lambda: rename(proxy.objects.get(**found), **values))
    assert (await alice.close())[0] == 4403


@isolate_apps("django.contrib.auth")
def test_a_change_of_the_models_that_the_one_of_users_is_derived_from_counts(monkeypatch):
    person, address = model(Model), model(Model, number=AutoField(primary_key=True))
    friend, told = model(person), []
    member = model(friend, address)
    monkeypatch.setattr(receivers.auth, "get_user_model", lambda: member)
    monkeypatch.setattr(receivers, "tell", lambda event, using: told.append(event))
    for each in (person, friend, address):
        receivers.watch_model(each)
        post_save.send(each, instance=each(pk=5), created=False, using="default")
    assert told == [{"kind": "users", "users": ["5"]}] * 2 + [{"kind": "all"}]


@isolate_apps("django.contrib.auth")
def test_a_user_who_is_changed_by_a_derived_model_with_keys_of_its_own_is_told(monkeypatch):
    employee_model, told = model(User, number=AutoField(primary_key=True)), []
    monkeypatch.setattr(receivers, "tell", lambda event, using: told.append(event["users"]))
    receivers.watch_model(employee_model)
    employee = employee_model(number=7, id=5)
    post_save.send(employee_model, instance=employee, created=False, using="default")
    post_delete.send(employee_model, instance=employee, using="default")
    groups = User.groups.through
    m2m_changed.send(groups, instance=employee, action="post_add", reverse=False, pk_set={1}, using="default")
    assert told == [["5"]] * 3


@isolate_apps("django.contrib.auth")
def test_a_row_of_a_derived_model_that_is_made_for_a_user_or_group_who_is_there_is_told(monkeypatch):
    told = []
    monkeypatch.setattr(receivers, "tell", lambda event, using: told.append(event["kind"]))
    for base in (User, Group):
        for derived in (model(base), model(base, is_proxy=True)):
            receivers.watch_model(derived)
            post_save.send(derived, instance=derived(pk=5), created=True, using="default")
    assert told == ["users", "group"]


@isolate_apps("django.contrib.auth")
async def test_a_row_of_a_derived_model_with_keys_of_its_own_goes_by_the_key_of_its_user_or_group(monkeypatch):
    employee_model, told = model(User, number=AutoField(primary_key=True)), []
    team_model = model(Group, number=AutoField(primary_key=True))
    monkeypatch.setattr(receivers, "tell", lambda event, using: told.append(event["group"]))
    receivers.watch_model(team_model)
    team, given = team_model(number=7, id=5), {"using": "default"}
    post_save.send(team_model, instance=team, created=False, **given)
    removed = {"action": "post_remove", "reverse": False, "pk_set": {1}, **given}
    m2m_changed.send(Group.permissions.through, instance=team, **removed)
    assert told == ["5", "5"]
    assert recheck.user_id(employee_model(number=7, id=5)) == "5"
    opened = [await Opened(consumer(AllowAny()), user=User(pk=key)).accepted() for key in (5, 7)]
    await arevoke(user=employee_model(number=7, id=5))
    assert (await opened[0].close())[0] == 4403
    await opened[1].stays()


@isolate_apps("django.contrib.auth")
def test_groups_of_a_model_of_the_sites_own_and_the_rows_between_them_and_users_are_watched(monkeypatch):
    team, person, told = model(Model, permissions=ManyToManyField(Permission, related_name="+")), model(Model), []
    keys = {name: ForeignKey(person, CASCADE, null=True, related_name="+") for name in ("user", "inviter")}
    row = model(Model, team=ForeignKey(team, CASCADE), about=GenericForeignKey("kind", "number"), **keys)
    ManyToManyField(team, through=row, through_fields=("user", "team")).contribute_to_class(person, "groups")
    monkeypatch.setattr(receivers.auth, "get_user_model", lambda: person)
    monkeypatch.setattr(receivers, "tell", lambda event, using: told.append(event))
    receivers.watch_relations(person)
    receivers.watch_model(team)
    receivers.watch_model(Group)  # which is not that of groups here
    member, given = row(user_id=5, team_id=6), {"using": "default"}
    post_save.send(row, instance=member, created=True, **given)
    post_save.send(row, instance=member, created=False, **given)
    post_delete.send(row, instance=member, **given)
    post_save.send(team, instance=team(pk=6), created=False, **given)
    changed = {"action": "post_remove", "reverse": False, "pk_set": {1}, **given}
    m2m_changed.send(team.permissions.through, instance=team(pk=6), **changed)
    of_user, of_team = {"kind": "users", "users": ["5"]}, {"kind": "group", "group": "6"}
    assert told == [of_user, {"kind": "all"}, of_user, of_team, of_team]


@isolate_apps("django.contrib.auth")
def test_rows_of_the_sites_own_between_groups_and_permissions_are_watched(monkeypatch):
    team, told = model(Model), []
    row = model(Model, team=ForeignKey(team, CASCADE), permission=ForeignKey(Permission, CASCADE, related_name="+"))
    ManyToManyField(Permission, through=row, related_name="+").contribute_to_class(team, "permissions")
    monkeypatch.setattr(receivers, "_group_model", lambda user_model: team)
    monkeypatch.setattr(receivers, "tell", lambda event, using: told.append(event))
    receivers.watch_relations(User)
    post_delete.send(row, instance=row(team_id=6, permission_id=1), using="default")
    assert told == [{"kind": "all"}]


@isolate_apps("django.contrib.auth")
def test_rows_that_name_their_user_by_another_field_than_the_primary_key_are_watched(users, monkeypatch):
    person, team, told = model(Model, table="auth_user", username=CharField(unique=True)), model(Model), []
    user_key = ForeignKey(person, CASCADE, to_field="username", related_name="+")
    row = model(Model, user=user_key, team=ForeignKey(team, CASCADE))
    ManyToManyField(person, through=row, related_name="groups").contribute_to_class(team, "members")
    monkeypatch.setattr(receivers.auth, "get_user_model", lambda: person)
    monkeypatch.setattr(receivers, "tell", lambda event, using: told.append(event["users"]))
    receivers.watch_relations(person)
    changed = {"action": "post_remove", "reverse": False, "pk_set": {"alice"}, "using": "default"}
    m2m_changed.send(row, instance=team(pk=6), **changed)
    post_delete.send(row, instance=row(user_id="alice", team_id=6), using="default")
    assert told == [[str(users["alice"].pk)]] * 2


@isolate_apps("django.contrib.auth")
def test_groups_that_have_declared_who_their_users_are_are_watched(monkeypatch):
    person, told = model(Model), []
    team = model(Model, members=ManyToManyField(person, related_name="groups"))
    monkeypatch.setattr(receivers, "tell", lambda event, using: told.append(event["users"]))
    receivers.watch_relations(person)
    changed = {"action": "post_remove", "pk_set": {5}, "using": "default"}
    m2m_changed.send(team.members.through, instance=team(pk=6), reverse=False, **changed)
    m2m_changed.send(team.members.through, instance=person(pk=7), reverse=True, **changed)
    assert told == [["5"], ["7"]]


@pytest.mark.django_db(transaction=True)
def test_a_change_without_autocommit_is_told_at_once(users, monkeypatch):
    told = []
    monkeypatch.setattr(receivers, "publish", told.append)
    transaction.set_autocommit(False)
    try:
        users["alice"].save()
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)
    assert told == [{"kind": "users", "users": [str(users["alice"].pk)]}]


def test_receivers_are_connected_once_however_often_apps_are_loaded(users, monkeypatch):
    told = []
    monkeypatch.setattr(receivers, "tell", lambda event, using: told.append(event["kind"]))
    receivers.connect()
    users["alice"].groups.clear()
    assert told == ["users"]


@isolate_apps("django.contrib.auth")
async def test_a_user_of_a_wrapper_is_gone_where_the_default_manager_of_its_model_leaves_it_out(world, change):
    class Present(Manager):
        def get_queryset(self):
            return super().get_queryset().exclude(first_name="gone")

    proxy = model(User, is_proxy=True, objects=Present())
    alice = await change(lambda: proxy.objects.get(username="alice"))
    socket = await Opened(consumer(IsStaff()), user=alice).accepted()
    await change(update(first_name="gone"))
    assert (await socket.close())[0] == 4401


def test_a_user_of_a_wrapper_is_read_anew_from_its_own_database(users):
    alice = users["alice"]
    alice._state.db = "elsewhere"
    with pytest.raises(ConnectionDoesNotExist):
        recheck._reload(alice)


async def test_a_primary_key_counts_however_a_token_has_it_written(users):
    written = SimpleNamespace(is_authenticated=True, pk=f"0{users['alice'].pk}")
    socket = await Opened(consumer(AllowAny()), user=written).accepted()
    await arevoke(user=users["alice"])
    assert (await socket.close())[0] == 4403


async def test_only_the_sockets_of_the_user_who_has_changed_are_asked_again(world, headers_of, change):
    policies = {name: Switch() for name in ("alice", "bob")}
    opened = [await Opened(consumer(each), headers=headers_of(name)).accepted() for name, each in policies.items()]
    await change(update(first_name="Alice"))
    await until(lambda: policies["alice"].asked == 2)
    assert policies["bob"].asked == 1
    for each in opened:
        await each.stays()


async def test_a_change_that_follows_another_is_asked_about_by_itself(world, headers_of, monkeypatch):
    """What is asked about the first one may come too early for a replica to have the second."""
    monkeypatch.setattr(scheduler, "_BEHIND", 0.2)
    policy = Switch()
    alice = await Opened(consumer(policy), headers=headers_of("alice")).accepted()
    for _ in range(2):
        registry.handle({"kind": "all"})
        await asyncio.sleep(0.02)
    await until(lambda: policy.asked == 3)
    await alice.stays()


async def test_without_a_channel_layer_a_change_closes_the_sockets_of_its_process(world, headers_of, change, settings):
    settings.CHANNEL_LAYERS = {}
    alice = await Opened(consumer(IsStaff()), headers=headers_of("alice")).accepted()
    await change(update(is_staff=False))
    assert await alice.close() == (4403, "permission_denied")


def rolled_back():
    with transaction.atomic():
        user().groups.clear()
        transaction.set_rollback(True)


#: Changes after which nothing is closed, whether they have sockets asked again, and settings.
HARMLESS = {
    "a name": (update(first_name="Alice"), True, {}),
    "a permission that is granted twice": (lambda: user().user_permissions.clear(), True, {}),
    "what is rolled back": (rolled_back, False, {}),
    "where LIVE is off": (lambda: user().groups.clear(), False, {"LIVE": False}),
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_a_change_that_takes_nothing_away_closes_nothing(name, world, headers_of, change, settings, monkeypatch):
    function, is_asked, settings.CHANNELS_WSDENY = HARMLESS[name]
    policy, events, handle = Switch(), [], registry.handle
    monkeypatch.setattr(registry, "handle", lambda event: (events.append(event), handle(event)))
    alice = await Opened(consumer(policy & EDITOR), headers=headers_of("alice")).accepted()
    await change(function)
    assert bool(events) is is_asked
    if is_asked:
        await until(lambda: policy.asked == 2)
    await alice.stays()


async def test_another_event_does_not_put_off_the_end_of_a_session_that_is_confirmed(
    world, headers_of, change, monkeypatch
):
    monkeypatch.setattr(scheduler, "_CONFIRM", 3600.0)
    alice = await Opened(consumer(IsAuthenticated()), headers=headers_of("alice")).accepted()
    (socket,) = registry.sockets()
    await change(update(is_active=False))
    socket.scheduler.ask([socket], is_confirmed=True)
    registry.handle({"kind": "all"})
    assert await alice.close() == (4401, "session_ended")


class Once(Switch):
    once = True


class Unprintable:
    __str__ = raising(LookupError)


class Odd(Deny):
    """One of the site's own, with a status that is none."""

    def __init__(self):
        self.status = "odd"


@pytest.mark.parametrize("kind", [Check, AsyncCheck])
@pytest.mark.parametrize(
    ("answer", "close"),
    [
        (False, (4403, "permission_denied")),
        (Deny(409, "Too late."), (4409, "Too late.")),
        (Deny(409, "é" * 100), (4409, "é" * 61)),
        (Deny(402, code="no_money"), (4402, "no_money")),
        (Deny(503, "Closed for the night."), (4503, "Closed for the night.")),
        (Deny(409, lazystr(Unprintable())), (4409, "conflict")),
        (Deny(409, "Half a pair: \ud83d"), (4409, "Half a pair: ?")),  # JSON may have it, and UTF-8 cannot.
        (HttpResponse(status=409), (4409, "conflict")),
        (HttpResponse(status=499), (4400, "bad_request")),
        (Odd(), (4500, "server_error")),
        (Http404(), (4404, "not_found")),
        (ValueError("a bug"), (4500, "server_error")),
        (None, (4500, "server_error")),
    ],
)
async def test_a_denial_closes_with_its_status(answer, close, kind, world, headers_of, change):
    policy = Switch()
    alice = await Opened(consumer(kind(policy.check)), headers=headers_of("alice")).accepted()
    policy.answer = answer
    await change(update(first_name="Alice"))
    assert await alice.close() == close


def denying(cause):
    denial = Deny(503)
    denial.__cause__ = cause
    return denial


OUTAGES = [
    *(OperationalError(), ConnectionError(), TimeoutError(), denying(OperationalError())),
    ExceptionGroup("of a task group", [OperationalError(), ExceptionGroup("inside", [TimeoutError()])]),
]


def unavailable(error, context):
    return Response(status=503)


def of_rest_framework(policy):
    """A policy of REST framework that asks `policy`. All that is raised there is a 503, by the site's handler."""
    answers = {"has_permission": lambda self, request, view: policy.check(request)}
    return RestFramework(permissions=[type("Asks", (BasePermission,), answers)])


@pytest.mark.parametrize(
    ("error", "wrap", "code"),
    [
        *((error, lambda policy: policy, 4403) for error in OUTAGES),
        (OperationalError(), of_rest_framework, 4503),
    ],
)
async def test_a_service_that_cannot_be_reached_closes_nothing_and_is_asked_again(
    error, wrap, code, world, headers_of, change, settings
):
    settings.CHANNELS_WSDENY = {"HEARTBEAT": 0.05}
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": f"{__name__}.unavailable"}
    policy = Switch()
    alice = await Opened(consumer(wrap(policy)), headers=headers_of("alice")).accepted()
    policy.answer = error
    await change(update(first_name="Alice"))
    await until(lambda: policy.asked > 3)
    assert alice.server.kinds == ["websocket.accept"]
    policy.answer = False
    assert (await alice.close())[0] == code


async def test_no_policy_is_asked_about_a_user_who_cannot_be_loaded(world, headers_of, change, settings, monkeypatch):
    settings.CHANNELS_WSDENY = {"HEARTBEAT": 0.05}
    policy, tries = Switch(), []
    alice = await Opened(consumer(policy), headers=headers_of("alice")).accepted()

    def load_user(session):
        tries.append(session)
        raise OperationalError

    with monkeypatch.context() as patched:
        patched.setattr("channels_wsdeny.http.session.load_user", load_user)
        policy.answer, before = False, policy.asked
        await change(update(first_name="Alice"))
        await until(lambda: len(tries) > 1)
        assert (policy.asked, alice.server.kinds) == (before, ["websocket.accept"])
    assert (await alice.close())[0] == 4403


async def test_policies_that_count_once_are_not_asked_again(world, headers_of, change):
    once, often = [Once() for _ in range(4)], [Switch() for _ in range(2)]
    policy = once[0] & often[0] & (once[1] | often[1]) & ~(once[2] & ~once[3])
    alice = await Opened(consumer(policy & ~Switch(False)), headers=headers_of("alice")).accepted()
    before = [each.asked for each in once]
    await change(update(first_name="Alice"))
    await until(lambda: often[0].asked > 1)
    await alice.stays()
    assert [each.asked for each in once] == before
    assert often[1].asked == 0


async def test_the_check_of_a_subclass_of_a_combination_is_asked_again(world, headers_of):
    answers = [True]

    class Both(And):
        def check(self, request):
            return answers[-1] and super().check(request)

    alice = await Opened(consumer(Both(IsStaff(), AllowAny())), headers=headers_of("alice")).accepted()
    (socket,) = registry.sockets()
    assert await socket.opened.ask_again() is None
    answers.append(False)
    assert (await socket.opened.ask_again()).status == 403
    await alice.stays()


@pytest.fixture
def slow_policy(settings):
    """A policy that takes as long as its event `going` is not set, and notes in `asked` what it is asked about."""
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": GUARD * 2}

    async def wait(request):
        policy.asked.append(request)
        await policy.going.wait()
        return True

    policy = AsyncCheck(wait)
    policy.asked, policy.going = [], asyncio.Event()
    policy.going.set()
    return policy


async def test_sockets_of_a_small_change_do_not_wait_for_those_of_a_large_one(
    world, headers_of, change, slow_policy, monkeypatch
):
    going, asked = slow_policy.going, slow_policy.asked
    monkeypatch.setattr(scheduler, "_FEW", 1)
    others = [SimpleNamespace(is_authenticated=True, pk=f"other {number}") for number in range(4)]
    slow = [await Opened(consumer(slow_policy), user=each).accepted() for each in others]
    alice = await Opened(consumer(IsStaff()), headers=headers_of("alice")).accepted()
    going.clear()
    registry.handle({"kind": "users", "users": [each.pk for each in others]})
    await until(lambda: len(asked) == 2 * len(slow))  # As many as are asked at the same time.
    await change(update(is_staff=False))
    assert (await alice.close())[0] == 4403
    going.set()
    for each in slow:
        await each.stays()


async def test_sockets_do_not_wait_for_those_of_another_user_whose_policies_are_slow(
    world, headers_of, change, slow_policy
):
    """As where a client has opened many of them, or joined many groups."""
    going, asked = slow_policy.going, slow_policy.asked
    slow = [await Opened(consumer(slow_policy), headers=headers_of("bob")).accepted() for _ in range(2)]
    alice = await Opened(consumer(IsStaff()), headers=headers_of("alice")).accepted()
    going.clear()
    for _ in range(2):  # One after the other: those of one session share their user.
        registry.handle({"kind": "users", "users": [str(world["bob"].pk)]})
        await until(lambda: len(asked) == len(slow) + 1)
    await change(update(is_staff=False))
    assert (await alice.close())[0] == 4403
    assert len(asked) == len(slow) + 1
    going.set()
    await until(lambda: len(asked) == 3 * len(slow))
    for each in slow:
        await each.stays()


@pytest.mark.parametrize("ends", ["its policy", "its session"])
async def test_handshakes_and_receivers_that_hold_all_threads_keep_no_socket_open(
    ends, world, headers_of, settings, gate
):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 1, "POLICY_TIMEOUT": GUARD * 2}
    policy = Switch()
    alice = await Opened(consumer(policy), headers=headers_of("alice")).accepted()
    (socket,) = registry.sockets()
    held = Opened(consumer(Check(gate)))
    receivers = [concurrency.submit_in_background(gate) for _ in range(4)]
    await until(lambda: concurrency.get_pool()._busy and all(each.running() for each in receivers))
    if ends == "its policy":
        policy.answer = False
        registry.handle({"kind": "users", "users": [str(world["alice"].pk)]})
        assert await alice.close() == (4403, "permission_denied")
    else:
        socket.opened.grants[0].session_key = "of no session"
        await socket.scheduler._close_expired([socket])
        assert await alice.close() == (4401, "session_expired")
    gate.open()
    await held.leave()


async def test_objects_are_resolved_anew(world, headers_of, change):
    Rooms = []

    def resolve(request):
        Rooms.append(object())
        return Rooms[-1]

    alice = await Opened(
        consumer(HasPermission("chat.x", obj=resolve) | UserPassesTest(lambda user: True)), headers=headers_of("alice")
    ).accepted()
    await change(update(first_name="Alice"))
    await until(lambda: len(Rooms) == 2)
    await alice.stays()


async def test_the_guards_of_all_layers_are_asked_again(world, headers_of, change):
    outer, inner = Switch(), Switch()
    application = require(outer)(DenyMiddlewareStack(consumer(inner)))
    for lost, kept in ((outer, inner), (inner, outer)):
        lost.answer = kept.answer = True
        alice = await Opened(application, headers=headers_of("alice")).accepted()
        lost.answer = False
        await change(update(first_name="Alice"))
        assert await alice.close() == (4403, "permission_denied")


async def test_policies_are_asked_in_the_contextvars_of_the_handshake(world, headers_of, change):
    tenant, seen, hooks = ContextVar("tenant", default=None), [], Hooks()

    @hooks.on_request
    def choose(request):
        tenant.set("blue")

    def test(user):
        seen.append(tenant.get())
        return True

    application = DenyMiddlewareStack(consumer(UserPassesTest(test)), hooks=hooks)
    alice = await Opened(application, headers=headers_of("alice")).accepted()
    await change(update(first_name="Alice"))
    await until(lambda: len(seen) == 2)
    await alice.stays()
    assert seen == ["blue", "blue"]


#: As `Tenancy`, in a thread of its own until the accept.
TenancyAround = type("TenancyAround", (SyncOnly,), {"come": Tenancy.process_request})


@pytest.mark.parametrize("middleware", [Tenancy, TenancyAround])
async def test_the_tenant_of_a_connection_follows_the_handshake_and_its_socket(
    middleware, world, headers_of, change, settings
):
    seen = []

    def look(request):
        seen.append(getattr(connection, "tenant", None))
        return True

    async def leave_the_thread(request):
        return True

    settings.CHANNELS_WSDENY = {"MIDDLEWARE": [f"{__name__}.{middleware.__name__}"]}
    application = DenyMiddlewareStack(consumer(Check(look) & AsyncCheck(leave_the_thread) & Check(look)))
    alice = await Opened(application, headers=headers_of("alice")).accepted()
    assert await run_in_threadpool(lambda: hasattr(connection, "tenant")) is False
    await change(update(first_name="Alice"))
    await until(lambda: len(seen) == 4)
    await alice.stays()
    assert seen == ["blue"] * 4


async def test_a_handshake_that_a_consumer_begins_has_no_tenant_of_its(world, headers_of, settings):
    seen = []
    inner = DenyMiddlewareStack(consumer(Check(lambda request: seen.append(hasattr(connection, "tenant")))))

    @require(AllowAny())
    class Opening(AsyncWebsocketConsumer):
        async def connect(self):
            await Server().run(inner, headers=[(b"x-stranger", b"")])
            await self.accept()

    settings.CHANNELS_WSDENY = {"MIDDLEWARE": [f"{__name__}.Tenancy"]}
    assert (await knock(DenyMiddlewareStack(Opening.as_asgi()), "/", headers=headers_of("alice"))).status == 101
    assert seen == [False]


async def test_sessions_and_groups_are_looked_up_for_the_tenant_of_a_socket(world, headers_of, settings):
    settings.CHANNELS_WSDENY = {"MIDDLEWARE": [f"{__name__}.Tenancy"]}
    alice = await Opened(DenyMiddlewareStack(consumer(AllowAny())), headers=headers_of("alice")).accepted()
    sockets, seen = registry.sockets(), []

    def note(execute, *arguments):
        seen.append(connection.tenant)
        return execute(*arguments)

    def look():
        key = group().pk
        with connection.execute_wrapper(note):
            for look_up in (expiry._session_expiries, expiry._are_gone):
                expiry._by_key(sockets, look_up)
            return scheduler._in_group(key, sockets)

    assert await run_in_threadpool(look) == sockets
    assert seen == ["blue"] * 3
    await alice.stays()


def verify(request):
    """As django-otp: the user, with something that is not in the database."""
    user = request.user
    request.user = SimpleLazyObject(lambda: _verified(user))


def _verified(user):
    user = copy(user)
    user.is_verified = user.first_name != "Mallory"
    return user


class SplitVerifier(MiddlewareMixin):
    def process_request(self, request):
        verify(request)


Verifier = type("Verifier", (SyncOnly,), {"come": staticmethod(verify)})
AsyncVerifier = type("AsyncVerifier", (AsyncOnly,), {"come": staticmethod(verify)})


@pytest.mark.parametrize("middleware", [SplitVerifier, Verifier, AsyncVerifier])
async def test_what_a_middleware_makes_of_the_user_counts_again(middleware, world, headers_of, change, settings):
    settings.CHANNELS_WSDENY = {"MIDDLEWARE": [f"{__name__}.{middleware.__name__}"]}
    guarded = consumer(UserPassesTest(lambda user: user.is_verified))
    alice = await Opened(DenyMiddlewareStack(With(guarded, more=1)), headers=headers_of("alice")).accepted()
    plain = consumer(UserPassesTest(lambda user: not hasattr(user, "is_verified")))
    other = await Opened(DenyMiddlewareStack(plain, middleware=[]), headers=headers_of("alice")).accepted()
    await change(update(first_name="Alice"))
    await change(update(first_name="Mallory"))
    assert await alice.close() == (4403, "permission_denied")
    await other.stays()


class Ending(MiddlewareMixin):
    """Sets the user, until it is over."""

    answer = None

    def process_request(self, request):
        verify(request)
        return self.answer


async def test_a_middleware_that_sets_the_user_may_deny_an_open_socket(
    world, headers_of, change, settings, monkeypatch
):
    settings.CHANNELS_WSDENY = {"MIDDLEWARE": [f"{__name__}.Ending"]}
    for status, closed in ((403, (4403, "permission_denied")), (200, (4500, "server_error"))):
        monkeypatch.setattr(Ending, "answer", None)
        alice = await Opened(DenyMiddlewareStack(consumer(IsStaff())), headers=headers_of("alice")).accepted()
        monkeypatch.setattr(Ending, "answer", HttpResponse(status=status))
        await change(update(first_name=str(status)))
        assert await alice.close() == closed


class ByPath(MiddlewareMixin):
    """The user, with a role that depends on the path."""

    roles: ClassVar[dict[str, str]] = {}

    def process_request(self, request):
        user = copy(request.user)
        user.role = self.roles[request.path]
        request.user = user


@pytest.mark.parametrize("paths", [("/a/", "/b/"), ("/b/", "/a/")])
async def test_a_user_whom_a_middleware_has_set_is_not_shared_with_other_sockets(
    paths, world, headers_of, settings, monkeypatch
):
    settings.CHANNELS_WSDENY = {"MIDDLEWARE": [f"{__name__}.ByPath"]}
    monkeypatch.setattr(ByPath, "roles", {"/a/": "owner", "/b/": "owner"})
    guarded = DenyMiddlewareStack(consumer(UserPassesTest(lambda user: user.role == "owner")))
    opened = [await Opened(guarded, path, headers=headers_of("alice")).accepted() for path in paths]
    by_path, users = {socket.path: socket.opened for socket in registry.sockets()}, {}
    ByPath.roles["/a/"] = "guest"
    denials = {path: await by_path[path].ask_again(users) for path in paths}
    assert denials["/a/"].status == 403
    assert denials["/b/"] is None
    for each in opened:
        await each.stays()


class Impersonation(MiddlewareMixin):
    def process_request(self, request):
        if request.user.is_staff:
            request.user = User.objects.get(username="staff")


@pytest.mark.parametrize("is_given", [False, True])
async def test_the_session_of_a_user_whom_a_middleware_has_set_is_verified(
    is_given, world, sessions, headers_of, change, settings, monkeypatch
):
    settings.CHANNELS_WSDENY = {"MIDDLEWARE": [f"{__name__}.ByPath"]}
    monkeypatch.setattr(ByPath, "roles", {"/room/": "owner"})
    given = {}
    if is_given:  # as by Channels' own middleware outside
        given = {"user": await run_in_threadpool(user), "session": sessions["alice"]}
        await run_in_threadpool(lambda: sessions["alice"].get(SESSION_KEY))
    application = DenyMiddlewareStack(consumer(IsStaff()))
    opened = await Opened(application, headers=headers_of("alice"), **given).accepted()
    (socket,) = registry.sockets()
    assert await socket.opened.ask_again() is None
    await change(update(password="another"))
    assert await opened.close() == (4401, "session_ended")


async def test_a_session_may_have_the_key_of_its_user_written_otherwise(session_with_written_key, change):
    cookie = {django_settings.SESSION_COOKIE_NAME: session_with_written_key.session_key}
    opened = await Opened(consumer(IsAuthenticated()), headers=cookie_header(**cookie)).accepted()
    await change(update(password="another"))
    assert await opened.close() == (4401, "session_ended")


async def test_who_acts_as_another_does_so_as_long_as_a_middleware_lets_him(world, headers_of, change, settings):
    settings.CHANNELS_WSDENY = {"MIDDLEWARE": [f"{__name__}.Impersonation"]}
    opened = await Opened(DenyMiddlewareStack(consumer(IsStaff())), headers=headers_of("alice")).accepted()
    (socket,) = registry.sockets()
    assert socket.describe("here")["user"] == str(world["staff"].pk)
    await change(update(first_name="Alice"))
    assert await socket.opened.ask_again() is None
    await change(update(is_staff=False))
    assert (await opened.close())[0] == 4401


async def test_a_session_of_a_wrapper_without_a_cookie_is_read_anew(world, sessions, change):
    opened = await Opened(DenyMiddlewareStack(consumer(IsStaff())), session=sessions["alice"]).accepted()
    (socket,) = registry.sockets()
    assert await socket.opened.ask_again() is None
    await change(update(is_staff=False))
    assert (await opened.close())[0] == 4403


@pytest.mark.parametrize("name", ["staff", "alice"])
async def test_a_user_whom_a_hook_has_set_beside_authentication_classes_is_read_anew(
    name, world, headers_of, hooks, change
):
    @hooks.on_request
    def choose(request):
        request.user = User.objects.get(username=name)

    classes = [SessionAuthentication(), BearerAuthentication(lambda token: None)]
    application = DenyMiddlewareStack(consumer(IsStaff()), hooks=hooks, authentication=classes)
    opened = await Opened(application, headers=headers_of("alice")).accepted()
    (socket,) = registry.sockets()
    assert await socket.opened.ask_again() is None
    await change(lambda: User.objects.get(username=name).delete())
    assert (await opened.close())[0] == 4401


async def test_a_consumer_asks_again_by_itself_and_a_denial_that_it_does_not_catch_closes(world, headers_of, change):
    results = []
    policy = Switch()

    @require(policy)
    class Asking(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            try:
                results.append(await self.scope["wsdeny"].recheck())
            except Deny as deny:
                results.append(deny.status)
                if text_data == "and raise":
                    raise

    alice = await Opened(Asking.as_asgi(), headers=headers_of("alice")).accepted()
    for text, answer in (("", True), ("", OperationalError()), ("", False), ("and raise", False)):
        policy.answer, count = answer, len(results)
        alice.server.events.put_nowait({"type": "websocket.receive", "text": text})
        await until(lambda count=count: len(results) > count)
    assert (await alice.close())[0] == 4403
    assert results == [None, None, 403, 403]


@pytest.mark.parametrize("is_revoked", [True, False])
async def test_what_happens_between_the_policies_and_the_accept_is_not_lost(is_revoked, world, headers_of, change):
    asked, accept = asyncio.Event(), asyncio.Event()

    @permission_required("auth.change_user")
    class Slow(AsyncWebsocketConsumer):
        async def connect(self):
            asked.set()
            await accept.wait()
            await self.accept()

    alice = Opened(Slow.as_asgi(), headers=headers_of("alice"))
    await asked.wait()
    if is_revoked:
        await arevoke(user=world["alice"], reason="spam")
    else:
        await change(lambda: user().groups.clear())
    accept.set()
    assert await alice.close() == ((4403, "spam") if is_revoked else (4403, "permission_denied"))


async def test_a_socket_whose_consumer_gives_up_its_accept_once_the_server_has_it_is_closed_all_the_same(
    world, headers_of
):
    """As on granian, whose client has the accept before `send` returns."""
    given_up = asyncio.Event()

    @require(IsAuthenticated())
    class Impatient(AsyncWebsocketConsumer):
        async def connect(self):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await self.accept()
            given_up.set()

    server = Unread(1)
    socket = server.begin(Impatient.as_asgi(), headers=headers_of("alice"))
    await given_up.wait()
    await arevoke(user=world["alice"], reason="spam")
    async with asyncio.timeout(GUARD):
        await socket
    assert [message.get("reason") for message in server.sent] == [None, "spam"]


async def test_nothing_is_kept_of_handshakes_and_events_that_are_over(world, headers_of, change):
    application = consumer(IsStaff())
    for _ in range(3):
        alice = await Opened(application, headers=headers_of("alice")).accepted()
        await change(update(first_name="Alice"))
        await alice.leave()
    assert not registry._connecting
    assert not registry._events
    assert not registry._by_user
    assert not registry._by_session
    assert not registry.by_socket


async def test_a_group_whose_users_cannot_be_found_has_all_sockets_asked_again(world, headers_of, change, monkeypatch):
    monkeypatch.setattr(scheduler, "_in_group", raising(OperationalError))
    alice = await Opened(consumer(EDITOR), headers=headers_of("alice")).accepted()
    await change(lambda: group().permissions.clear())
    assert await alice.close() == (4403, "permission_denied")


@pytest.mark.parametrize("is_draining", [False, True])
async def test_a_handshake_that_cannot_know_what_it_missed_or_that_a_drained_process_accepts_is_closed(
    is_draining, world, headers_of, monkeypatch
):
    monkeypatch.setattr(live_registry, "_MOST_EVENTS", 8)

    class Consumer(AsyncWebsocketConsumer):
        async def connect(self):
            for _ in range(1 if is_draining else 9):
                registry.handle({"kind": "users", "users": []})
            monkeypatch.setattr(registry, "is_draining", is_draining)
            await self.accept()

    opened = Opened(require(AllowAny())(Consumer).as_asgi())
    assert await opened.close() == ((1012, "") if is_draining else (4503, "unavailable"))


def test_a_user_of_another_model_has_no_key():
    other = Group(pk=1)
    other.is_authenticated = True
    assert recheck.user_id(other) is None


async def test_the_sockets_of_one_session_and_address_share_one_fresh_user(world, headers_of, change, monkeypatch):
    users, load_user = [], session.load_user
    policy = Switch()
    monkeypatch.setattr(session, "load_user", lambda of: users.append(of) or load_user(of))
    opened = [await Opened(consumer(policy), headers=headers_of("alice")).accepted() for _ in range(5)]
    assert len(users) == policy.asked == 5
    await change(update(first_name="Alice"))
    await until(lambda: policy.asked == 10)
    assert len(users) == 6
    for each in opened:
        await each.stays()


@pytest.mark.parametrize("query_string", [b"", b"red"])
async def test_a_user_does_not_keep_in_one_tenant_what_it_may_do_in_another(
    query_string, world, headers_of, change, hooks
):
    """The tenants of a site may have paths of one host, and backends keep permissions in the user."""
    tenant, members = ContextVar("tenant"), {"/blue/", "/red/"}

    @hooks.on_request
    def choose(request):
        tenant.set("/red/" if request.GET else request.path)

    def is_member(user):
        return vars(user).setdefault("_is_member", tenant.get() in members)

    async def opened(path, query_string=b""):
        return await Opened(site, path, headers=headers_of("alice"), query_string=query_string).accepted()

    site = DenyMiddlewareStack(consumer(UserPassesTest(is_member)), hooks=hooks)
    blue = [await opened("/blue/") for _ in range(8)]
    red = await (opened("/blue/", query_string) if query_string else opened("/red/"))
    members.remove("/red/")
    await change(update(first_name="Alice"))
    assert await red.close() == (4403, "permission_denied")
    for each in blue:
        await each.stays()


async def test_nothing_is_asked_again_before_the_accept_is_sent():
    contexts, errors = [], []

    class Slow(Server):
        async def send(self, message):
            if message["type"] == "websocket.accept":
                try:
                    await contexts[0].recheck()
                except HandshakeDenied as error:
                    errors.append(error)
            await super().send(message)

    async def app(scope, receive, send):
        contexts.append(scope["wsdeny"])
        await send(accept())
        await contexts[0].recheck()
        await receive()

    server = Slow()
    running = server.begin(DenyMiddlewareStack(require(AsyncCheck(lambda request: True))(app)))
    server.events.put_nowait(disconnect())
    await running
    assert (server.kinds, len(errors)) == (["websocket.accept"], 1)


async def test_the_interval_asks_again_what_no_signal_tells_of(world, headers_of, change, settings):
    settings.CHANNELS_WSDENY = {"RECHECK_INTERVAL": 0.1}
    alice = await Opened(consumer(IsStaff()), headers=headers_of("alice")).accepted()
    await change(lambda: User.objects.update(is_staff=False))
    assert await alice.close() == (4403, "permission_denied")


async def test_a_policy_that_swallows_its_cancellation_keeps_no_other_socket_open(
    world, headers_of, change, settings, monkeypatch
):
    monkeypatch.setattr(recheck, "_GRACE", 0.05)
    asked, let_go = [], asyncio.Event()

    class Swallowing(Policy):
        async def acheck(self, request):
            asked.append(request)
            return len(asked) == 1 or await outlast(let_go)

    hung = await Opened(consumer(Swallowing()), headers=headers_of("alice")).accepted()
    staff = await Opened(consumer(IsStaff()), headers=headers_of("alice")).accepted()
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 1}  # enough for the other policy on a busy machine
    await change(update(first_name="Alice"))
    await until(lambda: len(asked) == 2)
    await change(update(is_staff=False))
    try:
        async with asyncio.timeout(GUARD):
            assert await staff.close() == (4403, "permission_denied")
    finally:
        let_go.set()
    await hung.stays()


async def test_a_policy_that_cancels_its_task_closes_its_socket_and_keeps_no_other_open(world, headers_of, change):
    asked = []

    class Cancelling(Policy):
        async def acheck(self, request):
            asked.append(request)
            if len(asked) > 1:
                asyncio.current_task().cancel()
                await asyncio.sleep(0)
            return True

    headers = headers_of("alice")
    sockets = [await Opened(consumer(policy), headers=headers).accepted() for policy in (Cancelling(), IsStaff())]
    async with asyncio.timeout(GUARD):
        await change(update(is_staff=False))
        assert [await each.close() for each in sockets] == [(4500, "server_error"), (4403, "permission_denied")]


async def test_an_event_that_cannot_be_understood_keeps_no_handshake_from_its_accept(world, headers_of):
    class Consumer(AsyncWebsocketConsumer):
        async def connect(self):
            with pytest.raises(KeyError):
                registry.handle({"kind": "users"})  # as a process with another version may send
            await self.accept()

    opened = await Opened(require(AllowAny())(Consumer).as_asgi()).accepted()
    await opened.stays()
