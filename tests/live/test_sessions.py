"""A socket ends with its session: of every engine, however that ends."""

import asyncio
import time
from datetime import timedelta
from importlib import import_module
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from channels.auth import AuthMiddlewareStack
from channels.auth import logout as channels_logout
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.sessions import SessionMiddlewareStack
from django.contrib.auth import alogout, login, logout, update_session_auth_hash
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.core.management import call_command
from django.db import OperationalError, transaction
from django.test import RequestFactory
from django.utils import timezone

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import login_required, public
from channels_wsdeny.live import arevoke, expiry, receivers, scheduler
from channels_wsdeny.live.receivers import watch_engine
from channels_wsdeny.live.registry import hash_key, mask, registry, unmask
from tests.support.clients import cookie_header
from tests.support.opened import Opened
from tests.support.sockets import consumer
from tests.support.threads import until

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("hasty")]
ENGINES = ["db", "cached_db", "cache", "file", "signed_cookies"]


members = login_required(type("Guarded", (AsyncWebsocketConsumer,), {})).as_asgi()
visitors = public(type("Public", (AsyncWebsocketConsumer,), {})).as_asgi()


@pytest.fixture(params=ENGINES)
def engine(request, settings, tmp_path):
    settings.SESSION_FILE_PATH = str(tmp_path)
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"
    return request.param


@pytest.fixture
def request_of(users, settings):
    """A function that makes a request of a user who has just logged in, with the session saved."""

    def make(name="alice"):
        request = RequestFactory().get("/")
        request.session = import_module(settings.SESSION_ENGINE).SessionStore()
        request.user = users[name]
        request.session["number"] = uuid4().hex  # Signed cookies of one user and second would be the same.
        login(request, users[name], "django.contrib.auth.backends.ModelBackend")
        request.session.save()
        return request

    return make


def headers(request):
    return cookie_header(sessionid=request.session.session_key)


def again(request):
    """The next request of the same client: its session is loaded anew."""
    next_one = RequestFactory().get("/")
    next_one.session = type(request.session)(request.session.session_key)
    next_one.user = request.user
    return next_one


def _cycle_and_delete(request):
    request.session.cycle_key()
    request.session.save()
    request.session.flush()


def _clear(request):
    request.session.clear()
    request.session["language"] = "de"
    request.session.save()


def _clear_and_log_in(request):
    request.session.clear()
    login(request, request.user, "django.contrib.auth.backends.ModelBackend")
    request.session.save()


ENDS = {
    "clear": _clear,
    "clear and log in": _clear_and_log_in,
    "logout": logout,
    "flush": lambda request: request.session.flush(),
    "delete": lambda request: request.session.delete(),
    "delete by key": lambda request: type(request.session)().delete(request.session.session_key),
    "cycle_key and flush": _cycle_and_delete,
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_session_that_ends_closes_its_sockets_and_no_others(engine, end, request_of, change):
    if engine == "signed_cookies" and end == "cycle_key and flush":
        pytest.skip("A session in signed cookies is its key: there is none that goes on.")
    request, other = await change(request_of), await change(request_of)
    endpoints = (members, visitors, SessionMiddlewareStack(visitors))
    opened = [await Opened(each, headers=headers(request)).accepted() for each in endpoints]
    elsewhere = await Opened(members, headers=headers(other)).accepted()
    await change(lambda: ENDS[end](again(request)))
    assert [await each.close() for each in opened] == [(4401, "session_ended")] * 3
    await elsewhere.stays()


@pytest.mark.parametrize("engine", ["db", "cached_db"], indirect=True)
async def test_a_session_that_the_database_finds_by_its_key_in_capitals_ends_too(
    engine, request_of, change, monkeypatch
):
    """As MySQL does by default."""
    look = Session.objects.filter

    def get(manager, session_key, **more):
        return look(session_key__iexact=session_key, **more).get()

    monkeypatch.setattr(type(Session.objects), "get", get)
    request = await change(request_of)
    capitals = cookie_header(sessionid=request.session.session_key.upper())
    opened = await Opened(members, headers=capitals).accepted()
    await change(lambda: logout(again(request)))
    assert await opened.close() == (4401, "session_ended")


@pytest.mark.parametrize("engine", ["db", "cached_db"], indirect=True)
async def test_a_session_whose_row_is_deleted_by_itself_ends_too(engine, request_of, change):
    request, other = await change(request_of), await change(request_of)
    opened, elsewhere = [await Opened(members, headers=headers(each)).accepted() for each in (request, other)]
    await change(lambda: Session.objects.get(pk=request.session.session_key).delete())
    assert await opened.close() == (4401, "session_ended")
    await elsewhere.stays()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (logout, "session"),
        (async_to_sync(alogout), "session"),
        (lambda request: async_to_sync(request.session.acycle_key)(), "moved"),
        (lambda request: Session.objects.get(pk=request.session.session_key).delete("default"), "session"),
    ],
)
def test_the_end_of_a_session_in_a_transaction_is_told_once_as_that_is_committed(end, kind, request_of, monkeypatch):
    told = []
    monkeypatch.setattr(receivers, "publish", lambda event: told.append(event["kind"]))
    request = request_of()
    with transaction.atomic():
        end(again(request))
        assert told == []
    assert told == [kind]


async def test_asynchronous_code_ends_sessions_too(engine, request_of, change):
    request = await change(request_of)
    opened = await Opened(members, headers=headers(request)).accepted()
    if "db" in engine:  # Asynchronous queries would run in a thread that does not see the test's transaction.
        await change(lambda: type(request.session)(request.session.session_key).delete())
    else:
        await alogout(again(request))
    assert await opened.close() == (4401, "session_ended")


async def _aclear(session):
    await session.aset("number", "another")
    session.clear()
    await session.asave()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("engine", ["db", "cached_db"], indirect=True)
@pytest.mark.parametrize("is_begun", [True, False], ids=["in its query", "before it is told"])
@pytest.mark.parametrize("end", [lambda session: session.aflush(), lambda session: session.acycle_key(), _aclear])
async def test_a_session_whose_end_is_cancelled_has_ended_all_the_same(
    engine, end, is_begun, request_of, change, monkeypatch
):
    """As Django cancels the view of a client that has left: its query goes on in a thread."""
    request = await change(request_of)
    opened = await Opened(members, headers=headers(request)).accepted()
    ending = asyncio.create_task(end(again(request).session))
    name, method = ("save" if end is _aclear else "delete"), getattr(Session, "save" if end is _aclear else "delete")
    loop = asyncio.get_running_loop()

    def cancelled(self, *args, **kwargs):
        if is_begun:
            loop.call_soon_threadsafe(ending.cancel)
            time.sleep(0.1)
        return method(self, *args, **kwargs)

    monkeypatch.setattr(Session, name, cancelled)
    if not is_begun:
        tell = receivers.sync_to_async
        monkeypatch.setattr(receivers, "sync_to_async", lambda tell_of: ending.cancel() and tell(tell_of))
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert await opened.close() == (4401, "session_ended")


@pytest.mark.django_db(transaction=True)
async def test_a_consumer_that_logs_its_user_out_by_channels_closes_the_sockets_of_the_session(
    engine, request_of, change
):
    logs_out = login_required(consumer(receive=lambda self, **received: channels_logout(self.scope))).as_asgi()
    request = await change(request_of)
    leaving = await Opened(AuthMiddlewareStack(logs_out), headers=headers(request)).accepted()
    other = await Opened(members, headers=headers(request)).accepted()
    public_one = await Opened(AuthMiddlewareStack(visitors), headers=headers(request)).accepted()
    leaving.server.events.put_nowait({"type": "websocket.receive", "text": "x"})
    assert [await each.close() for each in (leaving, other, public_one)] == [(4401, "session_ended")] * 3


async def test_a_new_password_closes_other_sessions_once_it_is_saved(engine, request_of, change):
    request, other = await change(request_of), await change(request_of)
    own, elsewhere = [await Opened(members, headers=headers(each)).accepted() for each in (request, other)]

    def new_password():
        changing = again(request)
        changing.user.set_password("new")
        changing.user.save()
        update_session_auth_hash(changing, changing.user)
        return changing

    changing = await change(new_password)
    await change(changing.session.save)
    assert await elsewhere.close() == (4401, "session_ended")
    await change(lambda: changing.user.save())
    await asyncio.sleep(0.2)
    assert own.server.kinds == ["websocket.accept"]
    await change(lambda: changing.session.flush())
    assert await own.close() == (4401, "session_ended")


async def test_a_session_that_gets_a_new_key_keeps_its_sockets(request_of, change):
    request = await change(request_of)
    opened = await Opened(members, headers=headers(request)).accepted()
    await change(lambda: request.session.cycle_key())
    await arevoke(session_key=request.session.session_key, reason="spam")
    assert await opened.close() == (4403, "spam")


def test_a_log_in_as_another_user_tells_of_the_end_of_the_former_session_alone(users, request_of, monkeypatch):
    told = []
    monkeypatch.setattr(receivers, "tell", lambda event, using: told.append((event["kind"], event["sessions"])))
    request = again(request_of())
    former = hash_key(request.session.session_key)
    login(request, users["bob"], "django.contrib.auth.backends.ModelBackend")
    request.session.save()
    assert told == [("session", [former])]


async def test_asynchronous_code_gives_sessions_new_keys_too(request_of, change, settings):
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    request = await change(request_of)
    opened = await Opened(members, headers=headers(request)).accepted()
    await request.session.acycle_key()
    await request.session.aset("number", "another")
    await request.session.asave()
    await arevoke(session_key=request.session.session_key, reason="spam")
    assert await opened.close() == (4403, "spam")


async def test_a_new_key_whose_session_has_ended_before_it_is_told_of_keeps_no_socket_open(request_of, change):
    """Two processes tell of the one and of the other."""
    request = await change(request_of)
    opened = await Opened(members, headers=headers(request)).accepted()
    old, new = request.session.session_key, "n" * 32
    await change(lambda: Session.objects.all().delete())
    registry.handle({"kind": "session", "sessions": [hash_key(new)]})
    registry.handle({"kind": "moved", "sessions": [hash_key(old)], "masked": mask(new, old)})
    assert await opened.close() == (4401, "session_ended")


@pytest.mark.parametrize("new", ["a" * 32, "ü:" * 1000])
def test_a_new_key_is_read_by_those_who_know_the_old_one(new):
    masked = mask(new, "old")
    assert unmask(masked, "old") == new
    assert new not in masked
    assert hash_key("old") != hash_key("another")
    with pytest.raises(ValueError, match="utf-8"):
        unmask(mask("ü" * 99, "old"), "another")


async def looked_up(request, change, shorten):
    """A socket whose session is shortened before its expiry is looked up."""
    opened = await Opened(members, headers=headers(request)).accepted()
    await change(shorten)
    registry._scheduler()._start_looking()
    return opened


def expire_in(**lasts):
    Session.objects.update(expire_date=timezone.now() + timedelta(**lasts))
    cache.clear()


@pytest.mark.parametrize("engine", ["cached_db", "cache", "file", "signed_cookies"], indirect=True)
async def test_a_session_that_expires_closes_its_sockets(engine, request_of, change, settings, monkeypatch):
    monkeypatch.setattr(scheduler, "_LOOKING", 60)
    request = await change(request_of)

    def shorten():
        settings.SESSION_COOKIE_AGE = 1
        expire_in(seconds=0.1)

    opened = await looked_up(request, change, shorten)
    assert await opened.close() == (4401, "session_expired")


@pytest.mark.parametrize("engine", ["db", "cached_db"], indirect=True)
async def test_a_session_that_is_swept_before_its_expiry_is_looked_up_closes_its_sockets(
    engine, request_of, change, settings, monkeypatch
):
    settings.CHANNELS_WSDENY = {"HEARTBEAT": 0.05}
    monkeypatch.setattr(scheduler, "_LOOKING", 60)

    def sweep():
        expire_in(seconds=-1)
        call_command("clearsessions")

    opened = await looked_up(await change(request_of), change, sweep)
    assert await opened.close() == (4401, "session_expired")


async def test_a_session_that_was_prolonged_expires_later(request_of, change, monkeypatch):
    monkeypatch.setattr(scheduler, "_LOOKING", 60)
    gone, found = expiry.gone, []

    async def prolong_first(sockets):
        await change(lambda: expire_in(hours=1))
        found.append(await gone(sockets))
        return found[-1]

    monkeypatch.setattr(expiry, "gone", prolong_first)
    opened = await looked_up(await change(request_of), change, lambda: expire_in(seconds=0.1))
    await until(lambda: found and registry._scheduler()._expiring)
    ((when, _, _),) = registry._scheduler()._expiring
    assert (list(found[0]), when > time.time() + 3000) == ([], True)
    await opened.stays()


@pytest.mark.parametrize("name", ["_session_expiries", "gone"])  # It is looked up, and later it is asked whether it is.
async def test_a_store_that_cannot_be_reached_as_a_session_expires_closes_its_socket_later(
    name, request_of, change, settings, monkeypatch
):
    settings.CHANNELS_WSDENY = {"HEARTBEAT": 0.05}
    monkeypatch.setattr(scheduler, "_LOOKING", 60)
    ask, outages = getattr(expiry, name), [OperationalError(), ConnectionError()]

    def fail_at_first(given):
        if outages:
            raise outages.pop()
        return ask(given)

    monkeypatch.setattr(expiry, name, fail_at_first)
    opened = await looked_up(await change(request_of), change, lambda: expire_in(seconds=0.1))
    assert await opened.close() == (4401, "session_expired")
    assert outages == []


@pytest.mark.parametrize("name", ["_session_expiries", "_are_gone"])
async def test_a_store_that_hangs_as_a_session_expires_closes_its_socket_later(
    name, request_of, change, settings, monkeypatch, gate
):
    monkeypatch.setattr(scheduler, "_LOOKING", 60)
    ask = getattr(expiry, name)
    monkeypatch.setattr(expiry, name, lambda keys: ask(keys) if gate.came else {key: gate() for key in keys})

    def shorten():
        settings.CHANNELS_WSDENY = {"HEARTBEAT": 0.05, "POLICY_TIMEOUT": 0.05}
        expire_in(seconds=0.1)

    opened = await looked_up(await change(request_of), change, shorten)
    assert await opened.close() == (4401, "session_expired")
    assert (gate.came, gate.left) == (1, 0)


class Token:
    def __init__(self, **values):
        vars(self).update(values)


@pytest.mark.parametrize(
    "make",
    [
        lambda when: {"exp": when},
        lambda when: Token(expiry=timezone.now() + timedelta(seconds=when - time.time())),
        lambda when: Token(expires=when),
    ],
)
async def test_credentials_that_expire_close_their_socket(make, request_of, change, hooks, monkeypatch):
    monkeypatch.setattr(scheduler, "_LOOKING", 0.01)

    @hooks.on_request
    def authenticate(request):
        request.auth = make(time.time() + 0.05)

    request = await change(request_of)
    opened = await Opened(DenyMiddlewareStack(members, hooks=hooks), headers=headers(request)).accepted()
    assert await opened.close() == (4401, "credentials_expired")


class Loaded(SessionBase):
    def load(self):
        return {"exp": 1.0}


@pytest.mark.parametrize("credentials", [None, {}, {"exp": None}, "token", Token(expiry=None), object(), Loaded("x")])
def test_credentials_without_an_expiry_never_expire(credentials):
    assert expiry.credentials_expiry(credentials) is None


async def test_an_engine_that_deletes_as_it_saves_closes_the_sockets_of_the_session(
    users, sessions, headers_of, change
):
    class Emptying(type(sessions["alice"])):
        def save(self, must_create=False):
            self.delete()

    watch_engine(Emptying)
    alice = await Opened(members, headers=headers_of("alice")).accepted()
    await change(Emptying(sessions["alice"].session_key).save)
    assert await alice.close() == (4401, "session_ended")
