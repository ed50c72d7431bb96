"""Sessions and users of handshakes, by every engine: Django's own answer, and nothing written."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import async_to_sync
from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.sessions import SessionMiddlewareStack
from django.contrib import auth
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends import file as file_engine
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.core.exceptions import ValidationError
from django.http import HttpResponse, JsonResponse
from django.http.cookie import SimpleCookie
from django.test import Client
from django.urls import path
from django.utils.functional import SimpleLazyObject
from django.utils.module_loading import import_string

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.decorators import public, require
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated, IsStaff
from tests.clients import Handshake, cookie_header, knock, websocket_scope
from tests.parts import AsyncCheck, Check

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"
OTHER_BACKEND = "django.contrib.auth.backends.AllowAllUsersModelBackend"
OLD_KEY = "the key that sessions were signed with before " * 2


class Accept(AsyncWebsocketConsumer):
    pass


def site(policy, consumer=Accept):
    return DenyMiddlewareStack(require(policy)(type("Guarded", (consumer,), {})).as_asgi())


@login_required
def members(request):
    return HttpResponse(request.user.get_username())


def anybody(request):
    return HttpResponse(request.user.get_username() or "nobody")


def values(request):
    return JsonResponse({key: value for key, value in request.session.items() if not key.startswith("_")})


def change(request):
    request.session["color"] = "red"
    return HttpResponse()


urlpatterns = [
    path("login/", anybody, name="login"),
    path("members/", members),
    path("anybody/", anybody),
    path("values/", values),
    path("change/", change),
]


# Engines.

ENGINES = ["db", "cache", "cached_db", "file", "signed_cookies"]
KEPT_ON_THE_SERVER = ENGINES[:-1]


@pytest.fixture(params=ENGINES)
def engine(request, settings, tmp_path):
    """The name of the session engine that the site uses; the stores are empty."""
    forget_where_files_are()
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"
    settings.SESSION_FILE_PATH = str(tmp_path)
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": str(tmp_path)}
    }
    yield request.param
    forget_where_files_are()


def forget_where_files_are():
    """The file engine remembers SESSION_FILE_PATH for as long as the process lives."""
    classes = [file_engine.SessionStore]
    for cls in classes:
        classes += cls.__subclasses__()
        if "_storage_path" in vars(cls):
            del cls._storage_path


a_single_engine = pytest.mark.parametrize("engine", ["db"], indirect=True)
kept_on_the_server = pytest.mark.parametrize("engine", KEPT_ON_THE_SERVER, indirect=True)


@pytest.fixture
def stored(engine, settings, tmp_path):
    """A function to everything that the site's stores hold now."""

    def stored():
        cache = caches["default"]
        return {
            "db": list(Session.objects.order_by("pk").values()),
            "cache": {key: value for key, value in cache._cache.items() if not cache._has_expired(key)},
            "file": {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in tmp_path.iterdir()},
        }

    return stored


@pytest.fixture
def store(engine, settings):
    """A function from a session key to what Django's own engine keeps under it."""

    def store(key=None):
        return import_string(f"{settings.SESSION_ENGINE}.SessionStore")(key)

    return store


# What a visitor may come with: functions from the test's tools to the value of the session cookie.


class Tools:
    """What situations are made of."""

    def __init__(self, engine, settings, users, store):
        self.engine, self.settings, self.users, self.store = engine, settings, users, store

    def log_in(self, name="alice", **values):
        """The session cookie of a user who logged in through Django."""
        client = Client()
        client.force_login(self.users[name], backend=MODEL_BACKEND)
        cookie = client.cookies[self.settings.SESSION_COOKIE_NAME].value
        return self.change(cookie, **values) if values else cookie

    def change(self, cookie, **values):
        session = self.store(cookie)
        session.update(values)
        session.save()
        return session.session_key


@pytest.fixture
def tools(engine, settings, users, store):
    return Tools(engine, settings, users, store)


def nothing(tools):
    return None


def empty(tools):
    return ""


def valid(tools):
    return tools.log_in()


def valid_of_a_visitor(tools):
    session = tools.store()
    session["color"] = "blue"
    session.save()
    return session.session_key


def unknown(tools):
    return "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6"


def too_short(tools):
    return "abc"


def outside_of_the_store(tools):
    return "../../etc/passwd"


def tampered_with(tools):
    cookie = tools.log_in()
    return cookie[:-1] + ("a" if cookie[-1] != "a" else "b")


def forged(tools):
    return "eyJfYXV0aF91c2VyX2lkIjoiMSJ9:1tAbCd:" + "x" * 43


def very_long(tools):
    return "a" * 8000


def expired(tools):
    cookie = tools.log_in()
    if tools.engine == "signed_cookies":  # which knows no expiry but the setting
        tools.settings.SESSION_COOKIE_AGE = -1
        return cookie
    session = tools.store(cookie)
    session.set_expiry(-10)
    session.save()
    return cookie


def logged_out(tools):
    cookie = tools.log_in()
    client = Client()
    client.cookies[tools.settings.SESSION_COOKIE_NAME] = cookie
    client.logout()
    return unknown(tools) if tools.engine == "signed_cookies" else cookie


def password_changed(tools):
    cookie = tools.log_in()
    tools.users["alice"].set_password("another")
    tools.users["alice"].save()
    return cookie


def hash_missing(tools):
    return tools.log_in(_auth_user_hash="")


def signed_with_a_fallback(tools):
    new = tools.settings.SECRET_KEY
    tools.settings.SECRET_KEY = OLD_KEY
    cookie = tools.log_in()
    tools.settings.SECRET_KEY = new
    tools.settings.SECRET_KEY_FALLBACKS = [OLD_KEY]
    return cookie


def signed_with_a_key_that_is_gone(tools):
    cookie = signed_with_a_fallback(tools)
    tools.settings.SECRET_KEY_FALLBACKS = []
    return cookie


def user_inactive(tools):
    cookie = tools.log_in()
    tools.users["alice"].is_active = False
    tools.users["alice"].save()
    return cookie


def user_inactive_but_of_a_backend_that_does_not_mind(tools):
    tools.settings.AUTHENTICATION_BACKENDS = [MODEL_BACKEND, OTHER_BACKEND]
    cookie = tools.log_in(_auth_user_backend=OTHER_BACKEND)
    tools.users["alice"].is_active = False
    tools.users["alice"].save()
    return cookie


def user_deleted(tools):
    cookie = tools.log_in()
    tools.users["alice"].delete()
    return cookie


def backend_removed(tools):
    cookie = tools.log_in()
    tools.settings.AUTHENTICATION_BACKENDS = [OTHER_BACKEND]
    return cookie


def backend_missing(tools):
    return tools.log_in(_auth_user_backend="")


def of_nobody(tools):
    return tools.log_in(_auth_user_id="0")


SITUATIONS = [
    nothing,
    empty,
    valid,
    valid_of_a_visitor,
    unknown,
    too_short,
    outside_of_the_store,
    tampered_with,
    forged,
    very_long,
    expired,
    logged_out,
    password_changed,
    hash_missing,
    signed_with_a_fallback,
    signed_with_a_key_that_is_gone,
    user_inactive,
    user_inactive_but_of_a_backend_that_does_not_mind,
    user_deleted,
    backend_removed,
    backend_missing,
    of_nobody,
]
#: Those that an engine may want to clean up.
STALE = [valid, unknown, forged, expired, password_changed, signed_with_a_fallback]
WHO_ARE_LET_IN = {
    valid,
    signed_with_a_fallback,
    user_inactive_but_of_a_backend_that_does_not_mind,
}


@pytest.fixture(params=SITUATIONS, ids=lambda situation: situation.__name__)
def situation(request):
    return request.param


@pytest.fixture
def cookie(situation, tools):
    return situation(tools)


stale = pytest.mark.parametrize("situation", STALE, ids=lambda situation: situation.__name__)


def raw(cookie, settings):
    return [] if cookie is None else cookie_header(**{settings.SESSION_COOKIE_NAME: cookie})


def ask(application, cookie, settings, **scope):
    return async_to_sync(knock)(application, "/", headers=raw(cookie, settings), **scope)


def client_with(cookie, settings):
    client = Client()
    if cookie is not None:
        client.cookies[settings.SESSION_COOKIE_NAME] = cookie
    return client


def test_a_handshake_is_let_in_where_a_view_is(cookie, situation, settings):
    answer = ask(site(IsAuthenticated()), cookie, settings)
    response = client_with(cookie, settings).get("/members/")
    assert {101: 200, 401: 302}[answer.status] == response.status_code
    assert (answer.status == 101) is (situation in WHO_ARE_LET_IN)


def test_a_handshake_knows_whom_a_view_knows(cookie, settings):
    found = []

    def look(request):
        found.append(request.user.get_username() or "nobody")
        return True

    ask(site(Check(look)), cookie, settings)
    assert found == [client_with(cookie, settings).get("/anybody/").content.decode()]


@stale
def test_a_handshake_of_a_coroutine_knows_whom_a_view_knows(cookie, settings):
    found = []

    async def look(request):
        found.append((await request.auser()).get_username() or "nobody")
        return True

    ask(site(AsyncCheck(look)), cookie, settings)
    assert found == [client_with(cookie, settings).get("/anybody/").content.decode()]


def test_a_handshake_writes_nothing(cookie, stored, settings):
    before = stored()
    answer = ask(site(IsAuthenticated()), cookie, settings)
    assert stored() == before
    assert answer.header("set-cookie") is None


@stale
def test_a_public_handshake_writes_nothing(cookie, stored, settings):
    before = stored()
    answer = ask(DenyMiddlewareStack(public(type("Public", (Accept,), {})).as_asgi()), cookie, settings)
    assert answer.status == 101
    assert stored() == before
    assert answer.header("set-cookie") is None


def test_a_policy_that_reads_the_session_writes_nothing(cookie, stored, settings):
    before = stored()
    answer = ask(site(Check(lambda request: request.session.get("size") is None)), cookie, settings)
    assert answer.status == 101
    assert stored() == before
    assert answer.header("set-cookie") is None


@stale
def test_a_policy_that_awaits_the_session_writes_nothing(cookie, stored, settings):
    async def look(request):
        return await request.session.aget("size") is None

    before = stored()
    answer = ask(site(AsyncCheck(look)), cookie, settings)
    assert answer.status == 101
    assert stored() == before
    assert answer.header("set-cookie") is None


@stale
def test_a_handshake_behind_channels_own_session_writes_nothing(cookie, stored, settings):
    before = stored()
    answer = ask(SessionMiddlewareStack(site(IsAuthenticated() | AllowAny())), cookie, settings)
    assert answer.status == 101
    assert stored() == before
    assert answer.header("set-cookie") is None


def test_a_user_whose_session_was_seen_by_a_handshake_is_still_logged_in(tools, settings):
    cookie = signed_with_a_fallback(tools)
    ask(site(IsAuthenticated()), cookie, settings)
    assert client_with(cookie, settings).get("/members/").status_code == 200


def test_a_session_of_a_user_whose_key_is_no_key_is_an_error_as_in_a_view(tools, settings):
    cookie = tools.log_in(_auth_user_id="no number")
    answer = ask(site(IsAuthenticated()), cookie, settings)
    assert answer.status == 500
    with pytest.raises(ValidationError):
        client_with(cookie, settings).get("/members/")


# Sessions that the site changes.


class ChangeInConnect(AsyncWebsocketConsumer):
    async def connect(self):
        self.scope["session"]["color"] = "red"
        await self.accept()


class SyncChangeInConnect(WebsocketConsumer):
    def connect(self):
        self.scope["session"]["color"] = "red"
        self.accept()


class ChangeAndClose(AsyncWebsocketConsumer):
    code = 4404

    async def connect(self):
        self.scope["session"]["color"] = "red"
        await self.close(self.code)


class ChangeAndRaise(AsyncWebsocketConsumer):
    async def connect(self):
        self.scope["session"]["color"] = "red"
        raise Deny(402)


def changing(answer):
    """A policy that changes the session and answers this."""

    def check(request):
        change(request)
        return answer() if callable(answer) else answer

    return Check(check)


def changing_async(answer):
    async def check(request):
        await request.session.aset("color", "red")
        return answer

    return AsyncCheck(check)


CHANGES = {
    "policy that allows": (lambda: site(changing(True)), 101),
    "policy that denies": (lambda: site(changing(False)), 403),
    "policy that gives a response": (lambda: site(changing(lambda: HttpResponse("no", status=410))), 410),
    "async policy that allows": (lambda: site(changing_async(True)), 101),
    "async policy that denies": (lambda: site(changing_async(False)), 403),
    "policy before one that denies": (lambda: site(changing(True) & DenyAll()), 403),
    "consumer that accepts": (lambda: site(AllowAny(), ChangeInConnect), 101),
    "sync consumer that accepts": (lambda: site(AllowAny(), SyncChangeInConnect), 101),
    "consumer that closes": (lambda: site(AllowAny(), ChangeAndClose), 404),
    "consumer that denies": (lambda: site(AllowAny(), ChangeAndRaise), 402),
}
changes = pytest.mark.parametrize(("make", "status"), CHANGES.values(), ids=CHANGES)


def cookie_of(answer, settings):
    """The session cookie that an answer set."""
    value = answer.header("set-cookie")
    assert value is not None, "no cookie was set"
    return SimpleCookie(value)[settings.SESSION_COOKIE_NAME]


@changes
def test_a_changed_session_of_a_new_visitor_is_saved_and_its_cookie_set(make, status, engine, settings):
    answer = ask(make(), None, settings)
    assert answer.status == status
    client = client_with(cookie_of(answer, settings).value, settings)
    assert client.get("/values/").json() == {"color": "red"}


@changes
def test_a_changed_session_of_a_user_is_saved_and_its_cookie_set(make, status, tools, settings):
    answer = ask(make(), tools.log_in(size="large"), settings)
    assert answer.status == status
    client = client_with(cookie_of(answer, settings).value, settings)
    assert client.get("/values/").json() == {"color": "red", "size": "large"}
    assert client.get("/members/").status_code == 200


@kept_on_the_server
@changes
def test_a_changed_session_keeps_its_key(make, status, tools, settings):
    cookie = tools.log_in()
    assert cookie_of(ask(make(), cookie, settings), settings).value == cookie


@kept_on_the_server
def test_a_key_that_the_visitor_chose_is_not_used(engine, tools, settings):
    chosen = unknown(tools)
    assert cookie_of(ask(site(changing(True)), chosen, settings), settings).value != chosen


def test_a_changed_session_is_saved_where_the_server_can_only_close(engine, store, settings, tools):
    cookie = tools.log_in()
    answer = ask(site(changing(False)), cookie, settings, extensions={})
    assert answer.status == 0
    if engine in KEPT_ON_THE_SERVER:
        assert store(cookie)["color"] == "red"


def test_a_changed_session_is_set_where_the_site_denies_by_close(engine, settings):
    settings.CHANNELS_WSDENY = {"DENY_WITH": "close"}

    async def connect():
        handshake = Handshake(site(changing(False)), websocket_scope("/"))
        answer = await handshake.connect()
        assert (await handshake.next())["type"] == "websocket.close"
        return answer

    client = client_with(cookie_of(async_to_sync(connect)(), settings).value, settings)
    assert client.get("/values/").json() == {"color": "red"}


def failing():
    raise ZeroDivisionError


class ChangeAndFail(ChangeInConnect):
    async def accept(self, *args, **kwargs):
        failing()


class ChangeAndCloseWith5xx(ChangeAndClose):
    code = 4503


FAILURES = {
    "policy that raises": (lambda: site(changing(failing)), 500),
    "policy that answers nothing": (lambda: site(changing(None)), 500),
    "policy that denies with a 5xx": (lambda: site(changing(lambda: Deny(503))), 503),
    "async policy that answers nothing": (lambda: site(changing_async(None)), 500),
    "consumer that raises": (lambda: site(AllowAny(), ChangeAndFail), 500),
    "consumer that closes with a 5xx": (lambda: site(AllowAny(), ChangeAndCloseWith5xx), 503),
}


@pytest.mark.parametrize(("make", "status"), FAILURES.values(), ids=FAILURES)
def test_a_changed_session_is_not_saved_by_a_5xx(make, status, tools, stored, settings):
    cookie = tools.log_in()
    before = stored()
    answer = ask(make(), cookie, settings)
    assert answer.status == status
    assert answer.header("set-cookie") is None
    assert stored() == before


@pytest.mark.parametrize("status", [101, 403])
def test_the_cookie_is_the_one_that_a_view_would_set(status, db, settings):
    settings.SESSION_COOKIE_NAME = "sid"
    settings.SESSION_COOKIE_PATH = "/app/"
    settings.SESSION_COOKIE_DOMAIN = "example.org"
    settings.SESSION_COOKIE_SECURE = True
    settings.SESSION_COOKIE_HTTPONLY = False
    settings.SESSION_COOKIE_SAMESITE = "Strict"
    settings.SESSION_COOKIE_AGE = 3600
    mine = cookie_of(ask(site(changing(status == 101)), None, settings), settings)
    django = Client().get("/change/").cookies["sid"]
    attributes = set(django) - {"expires"}
    assert {name: str(mine[name]) for name in attributes} == {name: str(django[name]) for name in attributes}


def test_the_cookie_ends_with_the_browser_where_the_session_does(db, settings):
    settings.SESSION_EXPIRE_AT_BROWSER_CLOSE = True
    assert not cookie_of(ask(site(changing(True)), None, settings), settings)["max-age"]


def test_an_accept_keeps_the_consumers_own_cookies_beside_the_sessions(db, settings):
    class OwnCookie(ChangeInConnect):
        async def accept(self):
            await super().accept(headers=[(b"set-cookie", b"theme=dark")])

    answer = ask(site(AllowAny(), OwnCookie), None, settings)
    cookies = [value for name, value in answer.headers if name == "set-cookie"]
    assert [cookie.partition("=")[0] for cookie in cookies] == ["theme", settings.SESSION_COOKIE_NAME]


def test_a_session_that_the_site_flushes_is_gone_and_so_is_its_cookie(tools, store, settings, engine):
    cookie = tools.log_in()

    def flush(request):
        request.session.flush()
        return True

    answer = ask(site(Check(flush)), cookie, settings)
    assert answer.status == 101
    assert cookie_of(answer, settings)["max-age"] == "0"
    if engine in KEPT_ON_THE_SERVER:
        assert not store(cookie).exists(cookie)


def test_a_session_that_cannot_be_saved_is_no_reason_to_accept(db, settings):
    class Unserializable(AsyncWebsocketConsumer):
        async def connect(self):
            self.scope["session"]["color"] = object()
            await self.accept()

    answer = ask(site(AllowAny(), Unserializable), None, settings)
    assert answer.status == 500
    assert answer.header("set-cookie") is None


@kept_on_the_server
def test_a_session_that_was_deleted_meanwhile_is_a_bad_request(tools, store, settings):
    cookie = tools.log_in()

    class DeletedMeanwhile(WebsocketConsumer):
        def connect(self):
            self.scope["session"]["color"] = "red"
            store(cookie).delete(cookie)
            self.accept()

    answer = ask(site(IsAuthenticated(), DeletedMeanwhile), cookie, settings)
    assert (answer.status, answer.problem["code"]) == (400, "bad_request")
    assert answer.header("set-cookie") is None
    assert not store(cookie).exists(cookie)


@kept_on_the_server
def test_a_session_that_was_deleted_meanwhile_is_a_bad_request_though_denied(tools, store, settings):
    cookie = tools.log_in()

    def check(request):
        request.session["color"] = "red"
        store(cookie).delete(cookie)
        return False

    answer = ask(site(Check(check)), cookie, settings)
    assert answer.status == 400
    assert not store(cookie).exists(cookie)


@pytest.mark.parametrize("policy", [IsAuthenticated(), DenyAll()], ids=["accepted", "denied"])
def test_a_session_that_is_saved_every_time_is_sent_again(policy, tools, settings):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    looked_at = Check(lambda request: request.user.is_authenticated)
    answer = ask(site(looked_at & policy), tools.log_in(size="large"), settings)
    client = client_with(cookie_of(answer, settings).value, settings)
    assert client.get("/values/").json() == {"size": "large"}


@kept_on_the_server
def test_a_session_that_is_saved_every_time_lives_longer(tools, store, settings):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    settings.SESSION_COOKIE_AGE = 60
    cookie = tools.log_in()
    settings.SESSION_COOKIE_AGE = 3600
    answer = ask(site(IsAuthenticated()), cookie, settings)
    assert cookie_of(answer, settings)["max-age"] == "3600"


@pytest.mark.parametrize("make", [nothing, empty, unknown, too_short, expired, forged])
def test_a_session_that_is_saved_every_time_is_not_made_for_a_visitor_without_one(
    make, tools, stored, settings
):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    cookie = make(tools)
    before = stored()
    answer = ask(site(Check(lambda request: request.user.is_anonymous)), cookie, settings)
    assert answer.status == 101
    assert answer.header("set-cookie") is None
    assert stored() == before


def test_a_session_that_is_saved_every_time_is_not_saved_by_a_5xx(tools, stored, settings):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    cookie = tools.log_in()
    before = stored()
    answer = ask(site(Check(lambda request: request.user.nothing)), cookie, settings)
    assert answer.status == 500
    assert answer.header("set-cookie") is None
    assert stored() == before


def test_what_a_consumer_changes_after_the_accept_is_its_own_business(tools, stored, settings):
    class ChangeLater(AsyncWebsocketConsumer):
        async def connect(self):
            await self.accept()
            self.scope["session"]["color"] = "red"

    cookie = tools.log_in()
    before = stored()
    ask(site(IsAuthenticated(), ChangeLater), cookie, settings)
    assert stored() == before


# What consumers find in their scope.


def look(scope):
    """What a consumer sees of its visitor, without awaiting anything."""
    request = scope["wsdeny"].request
    return {
        "user": scope["user"].get_username(),
        "known": scope["user"].is_authenticated,
        "session": scope["session"].get(SESSION_KEY, "none") != "none",
        "cookies": sorted(scope["cookies"]),
        "request": request.user == scope["user"] and request.session is scope["session"],
    }


class LookInConnect(AsyncWebsocketConsumer):
    async def connect(self):
        found.append(look(self.scope))
        await self.accept()


class SyncLookInConnect(WebsocketConsumer):
    def connect(self):
        found.append(look(self.scope))
        self.accept()


found = []


@pytest.fixture
def seen():
    """What the consumers above saw."""
    found.clear()
    return found


consumers = pytest.mark.parametrize("consumer", [LookInConnect, SyncLookInConnect], ids=["async", "sync"])


@consumers
@pytest.mark.parametrize("policy", [IsAuthenticated(), AllowAny()], ids=["guarded", "public"])
def test_a_consumer_finds_the_user_and_the_session(policy, consumer, tools, seen, settings):
    assert ask(site(policy, consumer), tools.log_in(), settings).status == 101
    cookies = [settings.SESSION_COOKIE_NAME]
    assert seen == [{"user": "alice", "known": True, "session": True, "cookies": cookies, "request": True}]


@a_single_engine
@consumers
@pytest.mark.parametrize("make", [nothing, unknown, password_changed, user_deleted, backend_removed, expired])
def test_a_public_consumer_finds_an_anonymous_user(make, consumer, tools, seen, settings):
    assert ask(site(AllowAny(), consumer), make(tools), settings).status == 101
    assert (seen[0]["user"], seen[0]["known"], seen[0]["request"]) == ("", False, True)


@a_single_engine
@consumers
def test_a_consumer_finds_them_behind_a_wrapper_that_nobody_knows(consumer, tools, seen, settings):
    inner = require(IsAuthenticated())(type("Guarded", (consumer,), {})).as_asgi()
    application = DenyMiddlewareStack(WithUser(inner))
    assert ask(application, tools.log_in(), settings).status == 101
    assert seen[0]["user"] == "alice"


@a_single_engine
def test_a_wrapper_that_awaits_nothing_finds_a_lazy_user(tools, settings):
    names = []

    class Looks(WithUser):
        async def __call__(self, scope, receive, send):
            names.append(type(scope["user"]).__name__)
            await super().__call__(scope, receive, send)

    application = DenyMiddlewareStack(Looks(require(IsAuthenticated())(type("C", (Accept,), {})).as_asgi()))
    assert ask(application, tools.log_in(), settings).status == 101
    assert names == ["SimpleLazyObject"]


# Users and sessions that somebody else put into the scope.


class WithUser:
    """A wrapper that puts things into the scope, as sites write them."""

    def __init__(self, inner, **values):
        self.inner = inner
        self.values = values

    async def __call__(self, scope, receive, send):
        await self.inner({**scope, **self.values}, receive, send)


def test_a_user_in_the_scope_is_used(users, settings):
    assert ask(WithUser(site(IsAuthenticated()), user=users["alice"]), None, settings).status == 101


@a_single_engine
def test_a_user_in_the_scope_wins_over_the_session(tools, users, settings):
    application = WithUser(site(IsAuthenticated()), user=AnonymousUser())
    assert ask(application, tools.log_in(), settings).status == 401


def test_a_user_in_the_scope_reaches_the_consumer(users, seen, settings):
    ask(WithUser(site(IsAuthenticated(), LookInConnect), user=users["bob"]), None, settings)
    assert seen[0]["user"] == "bob"


def test_a_user_in_the_scope_costs_no_query(users, sessions, headers_of, settings, django_assert_num_queries):
    application = WithUser(site(IsAuthenticated()), user=users["bob"])
    with django_assert_num_queries(0):
        assert async_to_sync(knock)(application, "/", headers=headers_of("alice")).status == 101


def test_a_user_that_a_wrapper_inside_the_stack_puts_there_is_used(users, settings):
    inner = require(IsAuthenticated())(type("Guarded", (Accept,), {})).as_asgi()
    assert ask(DenyMiddlewareStack(WithUser(inner, user=users["alice"])), None, settings).status == 101


@a_single_engine
def test_a_user_that_a_wrapper_inside_the_stack_takes_away_is_gone(tools, settings):
    inner = require(IsAuthenticated())(type("Guarded", (Accept,), {})).as_asgi()
    application = DenyMiddlewareStack(WithUser(inner, user=AnonymousUser()))
    assert ask(application, tools.log_in(), settings).status == 401


@a_single_engine
def test_a_session_in_the_scope_is_used(users, store, settings, engine):
    client = Client()
    client.force_login(users["alice"])
    session = store(client.session.session_key)
    assert ask(WithUser(site(IsAuthenticated()), session=session), None, settings).status == 101


@a_single_engine
def test_a_session_that_a_wrapper_inside_the_stack_puts_there_is_used(users, store, settings, engine):
    client = Client()
    client.force_login(users["alice"])
    session = store(client.session.session_key)
    inner = require(IsAuthenticated())(type("Guarded", (Accept,), {})).as_asgi()
    assert ask(DenyMiddlewareStack(WithUser(inner, session=session)), None, settings).status == 101


@a_single_engine
@pytest.mark.parametrize("where", ["around", "inside"])
def test_a_user_of_none_in_the_scope_is_nobody_whatever_the_cookie_says(where, tools, settings):
    """Token middleware says "nobody" so, on sites where other sites must not ride on cookies."""
    inner = require(IsAuthenticated())(type("Guarded", (Accept,), {})).as_asgi()
    if where == "around":
        application = WithUser(DenyMiddlewareStack(inner), user=None)
    else:
        application = DenyMiddlewareStack(WithUser(inner, user=None))
    assert ask(application, tools.log_in(), settings).status == 401


@a_single_engine
def test_a_consumer_finds_an_anonymous_user_where_the_scope_had_none(tools, settings):
    users = []

    class Look(Accept):
        async def connect(self):
            users.append(self.scope["user"])
            await super().connect()

    assert ask(WithUser(site(AllowAny(), Look), user=None), tools.log_in(), settings).status == 101
    assert users[0].is_anonymous


class LazyUser:
    """Makes a lazy user of a name, and counts how often it is loaded."""

    def __init__(self, name):
        self.loaded = 0
        self.name = name
        self.user = SimpleLazyObject(self.load)

    def load(self):
        self.loaded += 1
        return get_user_model().objects.get(username=self.name)


@consumers
def test_a_lazy_user_in_the_scope_is_loaded_where_it_may_block(consumer, users, seen, settings):
    lazy = LazyUser("bob")
    application = WithUser(site(IsAuthenticated(), consumer), user=lazy.user)
    assert ask(application, None, settings).status == 101
    assert (seen[0]["user"], lazy.loaded) == ("bob", 1)


def test_a_lazy_user_that_nobody_needs_is_not_loaded(users, settings):
    lazy = LazyUser("bob")
    assert ask(WithUser(site(DenyAll()), user=lazy.user), None, settings).status == 403
    assert lazy.loaded == 0


def test_a_lazy_user_that_cannot_be_loaded_is_an_error(users, settings):
    lazy = LazyUser("nobody")
    assert ask(WithUser(site(IsAuthenticated()), user=lazy.user), None, settings).status == 500


# What was decided for one user says nothing about another.


def test_a_policy_that_two_layers_share_is_asked_about_the_user_of_each(tools, settings):
    policy = IsStaff()
    inner = require(policy)(type("Guarded", (Accept,), {})).as_asgi()
    application = DenyMiddlewareStack(require(policy)(asgi(WithUser(inner, user=tools.users["bob"]))))
    assert ask(application, tools.log_in("staff"), settings).status == 403


def asgi(application):
    """`application` as a function that the look-ahead cannot see into."""

    async def opaque(scope, receive, send):
        await application(scope, receive, send)

    return opaque


def test_a_stream_is_asked_about_its_own_user(users):
    """A demultiplexer enters one consumer again and again, each time for another user."""

    @require(IsAuthenticated())
    class Stream(Accept):
        pass

    stream = Stream.as_asgi()

    @public
    class Demultiplexer(Accept):
        async def receive(self, text_data=None, bytes_data=None):
            sent = []

            async def receive():
                return (
                    {"type": "websocket.connect"} if not sent else {"type": "websocket.disconnect", "code": 1}
                )

            async def send(message):
                sent.append(message["type"])

            await stream({**self.scope, "user": users.get(text_data, AnonymousUser())}, receive, send)
            await self.send(text_data=sent[0])

    async def talk():
        handshake = Handshake(DenyMiddlewareStack(Demultiplexer.as_asgi()), websocket_scope("/"))
        assert (await handshake.connect()).status == 101
        answers = []
        for name in ("nobody", "alice", "nobody", "bob"):
            await handshake.send(name)
            answers.append((await handshake.next())["text"])
        await handshake.leave()
        return answers

    closed, accepted = "websocket.close", "websocket.accept"
    assert async_to_sync(talk)() == [closed, accepted, closed, accepted]


@a_single_engine
@consumers
def test_it_works_inside_channels_own_stack(consumer, tools, seen, settings):
    application = AuthMiddlewareStack(site(IsAuthenticated(), consumer))
    assert ask(application, tools.log_in(), settings).status == 101
    assert seen[0]["user"] == "alice"
    assert ask(application, None, settings).status == 401


@a_single_engine
@consumers
def test_it_works_around_channels_own_stack(consumer, tools, seen, settings):
    inner = require(IsAuthenticated())(type("Guarded", (consumer,), {})).as_asgi()
    application = DenyMiddlewareStack(AuthMiddlewareStack(inner))
    assert ask(application, tools.log_in(), settings).status == 101
    assert seen[0]["user"] == "alice"
    assert ask(application, None, settings).status == 401


@a_single_engine
def test_inside_channels_own_stack_nothing_is_loaded_again(tools, settings, django_assert_num_queries):
    application = AuthMiddlewareStack(site(IsAuthenticated()))
    cookie = tools.log_in()
    with django_assert_num_queries(2):
        assert ask(application, cookie, settings).status == 101


@a_single_engine
@pytest.mark.parametrize("order", ["inside", "around"])
def test_a_session_changed_beside_channels_own_stack_is_saved(order, engine, settings):
    inner = require(AllowAny())(type("Guarded", (SyncChangeInConnect,), {})).as_asgi()
    if order == "inside":
        application = AuthMiddlewareStack(DenyMiddlewareStack(inner))
    else:
        application = DenyMiddlewareStack(AuthMiddlewareStack(inner))
    answer = ask(application, None, settings)
    client = client_with(cookie_of(answer, settings).value, settings)
    assert client.get("/values/").json() == {"color": "red"}


@a_single_engine
def test_nested_stacks_share_one_request(tools, settings):
    requests = []

    class Keep(Accept):
        async def connect(self):
            requests.append(self.scope["wsdeny"].request)
            await super().connect()

    def look(request):
        requests.append(request)
        return True

    inner = DenyMiddlewareStack(require(Check(look))(Keep).as_asgi())
    assert ask(DenyMiddlewareStack(WithUser(inner)), tools.log_in(), settings).status == 101
    assert requests[0] is requests[1]


def test_two_visitors_do_not_share_anything(tools, settings):
    """Two handshakes at once over one application, each with its own cookie."""
    names = {}

    def look(request):
        names[request.headers["X-Name"]] = request.user.get_username()
        request.session["mine"] = request.headers["X-Name"]
        return False

    application = site(Check(look))
    cookies = {name: tools.log_in(name) for name in ("alice", "bob", "staff")}

    async def all_at_once():
        return await asyncio.gather(
            *(
                knock(application, "/", headers=[*raw(cookie, settings), (b"x-name", name.encode())])
                for name, cookie in cookies.items()
            )
        )

    answers = async_to_sync(all_at_once)()
    assert names == {name: name for name in cookies}
    for name, answer in zip(cookies, answers, strict=True):
        client = client_with(cookie_of(answer, settings).value, settings)
        assert client.get("/anybody/").content.decode() == name
        assert client.get("/values/").json() == {"mine": name}


def test_a_log_in_gives_a_new_key_to_a_session_that_an_attacker_knows(tools, store, settings, engine):
    """Session fixation: the key that a visitor had before is worth nothing after."""
    fixed = valid_of_a_visitor(tools)

    def log_in(request):
        auth.login(request, tools.users["alice"], backend=MODEL_BACKEND)
        return True

    answer = ask(site(Check(log_in)), fixed, settings)
    assert cookie_of(answer, settings).value != fixed
    assert client_with(fixed, settings).get("/members/").status_code == 302


@a_single_engine
def test_a_coroutine_can_log_a_user_in_whose_session_is_not_loaded(tools, settings):
    async def log_in(request):
        await auth.alogin(request, tools.users["bob"], MODEL_BACKEND)
        return True

    answer = ask(site(AsyncCheck(log_in)), tools.log_in("alice"), settings)
    assert client_with(cookie_of(answer, settings).value, settings).get("/members/").content == b"bob"


@a_single_engine
def test_a_coroutine_can_log_a_user_out_whose_session_is_not_loaded(tools, settings):
    async def log_out(request):
        await auth.alogout(request)
        return True

    cookie = tools.log_in("alice")
    answer = ask(site(AsyncCheck(log_out)), cookie, settings)
    assert cookie_of(answer, settings)["max-age"] == "0"
    assert client_with(cookie, settings).get("/members/").status_code == 302
