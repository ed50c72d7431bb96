"""Sessions and users of handshakes, by every engine: Django's own answer, and nothing is written."""

import pytest
from asgiref.sync import async_to_sync
from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.sessions import SessionMiddlewareStack
from django.contrib import auth
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
from channels_wsdeny.decorators import require, with_hooks
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated
from tests.support.clients import cookie_header, fetch, knock, opened
from tests.support.mirror import made, plain
from tests.support.policies import AsyncCheck, Check, raising
from tests.support.policies import accept as accept_all
from tests.support.sockets import consumer, guarded
from tests.support.threads import until
from tests.support.wrappers import With

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"
OTHER_BACKEND = "django.contrib.auth.backends.AllowAllUsersModelBackend"
OLD_KEY = "the key that sessions were signed with before " * 2
CHOSEN = "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6"


def values(request):
    return JsonResponse({key: value for key, value in request.session.items() if not key.startswith("_")})


def change(request):
    request.session["color"] = "red"
    return HttpResponse()


urlpatterns = [
    path("login/", values, name="login"),
    path("members/", login_required(lambda request: HttpResponse(request.user.get_username()))),
    path("anybody/", lambda request: HttpResponse(request.user.get_username() or "anonymous")),
    path("values/", values),
    path("change/", change),
]
KEPT_ON_THE_SERVER = ["db", *(pytest.param(name, marks=pytest.mark.matrix) for name in ("cache", "cached_db", "file"))]


@pytest.fixture(params=[*KEPT_ON_THE_SERVER, "signed_cookies"])
def engine(request, settings, tmp_path):
    """The name of the session engine that the site uses; the stores are empty."""
    forget_where_files_are()
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"
    settings.SESSION_FILE_PATH = str(tmp_path)
    backend = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path)}}
    yield request.param
    forget_where_files_are()


def forget_where_files_are():
    """The file engine remembers SESSION_FILE_PATH for as long as the process lives."""
    for cls in (file_engine.SessionStore, *file_engine.SessionStore.__subclasses__()):
        if "_storage_path" in vars(cls):
            del cls._storage_path


one_engine = pytest.mark.parametrize("engine", ["db"], indirect=True)
kept_on_the_server = pytest.mark.parametrize("engine", KEPT_ON_THE_SERVER, indirect=True)


class Tools:
    """What clients and sites do with sessions, by the engine of the test."""

    def __init__(self, engine, settings, users, tmp_path):
        self.engine, self.settings, self.users, self._path = engine, settings, users, tmp_path

    def store(self, key=None):
        """What Django's own engine keeps for a key."""
        return import_string(f"{self.settings.SESSION_ENGINE}.SessionStore")(key)

    def stored(self):
        """All that the stores hold now."""
        cache = caches["default"]
        files = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in self._path.iterdir()}
        cached = {key: value for key, value in cache._cache.items() if not cache._has_expired(key)}
        return list(Session.objects.order_by("pk").values()), cached, files

    def log_in(self, name="alice", **more):
        """The session cookie of a user who has logged in through Django."""
        client = Client()
        client.force_login(self.users[name], backend=MODEL_BACKEND)
        cookie = client.cookies[self.settings.SESSION_COOKIE_NAME].value
        return self.change(cookie, **more) if more else cookie

    def change(self, cookie, expiry=None, **more):
        session = self.store(cookie)
        session.update(more)
        session.set_expiry(expiry)
        session.save()
        return session.session_key

    def client(self, cookie):
        client = Client()
        if cookie is not None:
            client.cookies[self.settings.SESSION_COOKIE_NAME] = cookie
        return client

    def ask(self, application, cookie=None, **scope):
        headers = [] if cookie is None else cookie_header(**{self.settings.SESSION_COOKIE_NAME: cookie})
        return async_to_sync(knock)(application, "/", headers=headers, **scope)

    def cookie_of(self, answer):
        """The session cookie that an answer set."""
        value = answer.header("set-cookie")
        assert value is not None, "no cookie was set"
        return SimpleCookie(value)[self.settings.SESSION_COOKIE_NAME]

    def client_of(self, answer):
        return self.client(self.cookie_of(answer).value)


@pytest.fixture
def tools(engine, settings, users, tmp_path):
    return Tools(engine, settings, users, tmp_path)


# What a client may come with: the value of its session cookie, and whether Django knows its user.


def expired(tools):
    cookie = tools.log_in()
    if tools.engine == "signed_cookies":  # which knows no expiry but the setting
        tools.settings.SESSION_COOKIE_AGE = -1
        return cookie
    return tools.change(cookie, expiry=-10)


def logged_out(tools):
    cookie = tools.log_in()
    tools.client(cookie).logout()
    return "unknown" if tools.engine == "signed_cookies" else cookie


def changed(**values):
    def make(tools):
        cookie = tools.log_in()
        type(tools.users["alice"]).objects.filter(username="alice").update(**values)
        return cookie

    return make


def signed_with_a_fallback(tools, fallbacks=(OLD_KEY,)):
    new, tools.settings.SECRET_KEY = tools.settings.SECRET_KEY, OLD_KEY
    cookie = tools.log_in()
    tools.settings.SECRET_KEY, tools.settings.SECRET_KEY_FALLBACKS = new, [*fallbacks]
    return cookie


def inactive_of_a_lenient_backend(tools):
    tools.settings.AUTHENTICATION_BACKENDS = [MODEL_BACKEND, OTHER_BACKEND]
    cookie = tools.log_in(_auth_user_backend=OTHER_BACKEND)
    type(tools.users["alice"]).objects.update(is_active=False)
    return cookie


def backend_removed(tools):
    cookie = tools.log_in()
    tools.settings.AUTHENTICATION_BACKENDS = [OTHER_BACKEND]
    return cookie


SITUATIONS = {
    "nothing": (lambda tools: None, False),
    "empty": (lambda tools: "", False),
    "valid": (lambda tools: tools.log_in(), True),
    "anonymous": (lambda tools: tools.change(None, color="blue"), False),
    "unknown": (lambda tools: CHOSEN, False),
    "too short": (lambda tools: "abc", False),
    "outside of the store": (lambda tools: "../../etc/passwd", False),
    "tampered with": (lambda tools: tools.log_in()[:-1] + "_", False),
    "forged": (lambda tools: "eyJfYXV0aF91c2VyX2lkIjoiMSJ9:1tAbCd:" + "x" * 43, False),
    "very long": (lambda tools: "a" * 8000, False),
    "expired": (expired, False),
    "logged out": (logged_out, False),
    "password changed": (changed(password="another"), False),
    "hash missing": (lambda tools: tools.log_in(_auth_user_hash=""), False),
    "signed with a fallback": (signed_with_a_fallback, True),
    "signed with a key that is gone": (lambda tools: signed_with_a_fallback(tools, ()), False),
    "inactive": (changed(is_active=False), False),
    "inactive, lenient backend": (inactive_of_a_lenient_backend, True),
    "deleted": (lambda tools: [tools.log_in(), tools.users["alice"].delete()][0], False),
    "backend removed": (backend_removed, False),
    "backend missing": (lambda tools: tools.log_in(_auth_user_backend=""), False),
    "no such user": (lambda tools: tools.log_in(_auth_user_id="0"), False),
}


async def await_session(request):
    return await request.session.aget("size") is None and (await request.auser()) is request.user


@pytest.mark.parametrize(("make", "is_known"), SITUATIONS.values(), ids=SITUATIONS)
def test_a_handshake_knows_whom_a_view_knows_and_writes_nothing(make, is_known, tools):
    cookie, found = make(tools), []

    async def look(scope, receive, send):
        found.append(scope["user"].get_username() or "anonymous")
        await accept_all(scope, receive, send)

    sites = {
        "guarded": guarded(IsAuthenticated(), look),
        "public": guarded(AllowAny(), look),
        "reads the session": guarded(Check(lambda request: request.session.get("size") is None), look),
        "awaits the session": guarded(AsyncCheck(await_session), look),
        "in Channels' session": SessionMiddlewareStack(guarded(IsAuthenticated() | AllowAny(), look)),
    }
    before = tools.stored()
    answers = {name: tools.ask(site, cookie) for name, site in sites.items()}
    assert tools.stored() == before
    assert [answer for answer in answers.values() if answer.header("set-cookie")] == []
    expected = dict.fromkeys(sites, 101) | ({} if is_known else {"guarded": 401})
    assert {name: answer.status for name, answer in answers.items()} == expected
    # Last, for a view may clean the session up: the user is still logged in there.
    client = tools.client(cookie)
    assert set(found) == {client.get("/anybody/").content.decode()} == {"alice" if is_known else "anonymous"}
    assert client.get("/members/").status_code == (200 if is_known else 302)


@one_engine
def test_a_session_whose_user_has_no_possible_key_is_an_error_as_in_a_view(tools):
    cookie = tools.log_in(_auth_user_id="no number")
    assert tools.ask(guarded(IsAuthenticated()), cookie).status == 500
    with pytest.raises(ValidationError):
        tools.client(cookie).get("/members/")


# Sessions that the site changes.


def changing(answer):
    """Behind a policy that changes the session and gives this answer."""
    return guarded(Check(lambda request: change(request) and (answer() if callable(answer) else answer)))


def changing_async(answer):
    async def check(request):
        await request.session.aset("color", "red")
        return answer

    return guarded(AsyncCheck(check))


def connecting(then, base=AsyncWebsocketConsumer):
    """A public consumer that changes the session in `connect`."""
    made = consumer(lambda self: self.scope["session"].update({"color": "red"}) or then(self), base)
    return guarded(AllowAny(), made.as_asgi())


def accepts(self):
    return self.accept()


CHANGES = {
    "policy allows": (lambda: changing(True), 101),
    "policy denies": (lambda: changing(False), 403),
    "policy responds": (lambda: changing(lambda: HttpResponse("no", status=410)), 410),
    "async policy allows": (lambda: changing_async(True), 101),
    "async policy denies": (lambda: changing_async(False), 403),
    "consumer accepts": (lambda: connecting(accepts), 101),
    "sync consumer accepts": (lambda: connecting(accepts, WebsocketConsumer), 101),
    "consumer closes": (lambda: connecting(lambda self: self.close(4404)), 404),
    "consumer denies": (lambda: connecting(raising(lambda: Deny(402))), 402),
}


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("make", "status"), CHANGES.values(), ids=CHANGES)
def test_a_changed_session_is_saved_and_its_cookie_set(make, status, known, tools):
    cookie = tools.log_in(size="large") if known else CHOSEN
    answer = tools.ask(make(), cookie)
    assert answer.status == status
    client = tools.client_of(answer)
    assert client.get("/values/").json() == {"color": "red"} | ({"size": "large"} if known else {})
    assert client.get("/members/").status_code == (200 if known else 302)
    if tools.engine != "signed_cookies":
        assert (tools.cookie_of(answer).value == cookie) is known  # A key that the client chose is not used.


FAILURES = {
    "policy raises": (lambda: changing(raising(ZeroDivisionError)), 500),
    "policy denies with a 5xx": (lambda: changing(lambda: Deny(503)), 503),
    "async policy answers nothing": (lambda: changing_async(None), 500),
    "consumer raises": (lambda: connecting(raising(ZeroDivisionError)), 500),
    "consumer closes with a 5xx": (lambda: connecting(lambda self: self.close(4503)), 503),
}


@one_engine
@pytest.mark.parametrize("every_time", [False, True])
@pytest.mark.parametrize(("make", "status"), FAILURES.values(), ids=FAILURES)
def test_a_session_is_not_saved_by_a_5xx(make, status, every_time, tools):
    tools.settings.SESSION_SAVE_EVERY_REQUEST = every_time
    cookie = tools.log_in()
    before = tools.stored()
    answer = tools.ask(make(), cookie)
    assert (answer.status, answer.header("set-cookie"), tools.stored()) == (status, None, before)


def test_a_log_in_gives_a_new_key_to_a_session_that_an_attacker_knows(tools):
    fixed = tools.change(None, color="blue")
    log_in = Check(lambda request: auth.login(request, tools.users["alice"], MODEL_BACKEND) is None)
    assert tools.cookie_of(tools.ask(guarded(log_in), fixed)).value != fixed
    assert tools.client(fixed).get("/members/").status_code == 302


@one_engine
def test_a_coroutine_may_log_in_and_out_whose_session_is_not_loaded(tools):
    async def log_in(request):
        return await auth.alogin(request, tools.users["bob"], MODEL_BACKEND) is None

    async def log_out(request):
        return await auth.alogout(request) is None

    answer = tools.ask(guarded(AsyncCheck(log_in)), tools.log_in("alice"))
    assert tools.client_of(answer).get("/members/").content == b"bob"
    cookie = tools.log_in("alice")
    assert tools.cookie_of(tools.ask(guarded(AsyncCheck(log_out)), cookie))["max-age"] == "0"
    assert tools.client(cookie).get("/members/").status_code == 302


@one_engine
@pytest.mark.parametrize("deny_with", ["response", "close"])
def test_a_changed_session_is_saved_though_the_server_only_closes(deny_with, tools):
    tools.settings.CHANNELS_WSDENY = {"DENY_WITH": deny_with}
    cookie = tools.log_in()
    answer = tools.ask(changing(False), cookie, extensions={})
    assert answer.status == (101 if deny_with == "close" else 0)
    assert tools.store(cookie)["color"] == "red"
    assert deny_with == "response" or tools.cookie_of(answer).value == cookie


@one_engine
@pytest.mark.parametrize("allows", [True, False])
def test_the_cookie_is_the_one_that_a_view_would_set(allows, tools, settings):
    settings.SESSION_COOKIE_NAME, settings.SESSION_COOKIE_PATH = "sid", "/app/"
    settings.SESSION_COOKIE_DOMAIN, settings.SESSION_COOKIE_SAMESITE = "example.org", "Strict"
    settings.SESSION_COOKIE_SECURE, settings.SESSION_COOKIE_HTTPONLY = True, False
    for settings.SESSION_COOKIE_AGE, settings.SESSION_EXPIRE_AT_BROWSER_CLOSE in ((3600, False), (60, True)):
        mine = tools.cookie_of(tools.ask(changing(allows)))
        django = Client().get("/change/").cookies["sid"]
        names = set(django) - {"expires"}
        assert {name: str(mine[name]) for name in names} == {name: str(django[name]) for name in names}


@one_engine
def test_an_accept_has_the_consumers_own_cookies_and_that_of_the_session_which_can_be_saved(tools, settings):
    answer = tools.ask(connecting(lambda self: self.accept(headers=[(b"set-cookie", b"theme=dark")])))
    assert [each.partition("=")[0] for each in answer.all("set-cookie")] == ["theme", settings.SESSION_COOKIE_NAME]
    answer = tools.ask(connecting(lambda self: self.scope["session"].update({"color": object()}) or self.accept()))
    assert (answer.status, answer.header("set-cookie")) == (500, None)


@kept_on_the_server
def test_a_session_that_was_deleted_meanwhile_is_a_400_and_stays_deleted(tools):
    def delete(session):
        session["color"] = "red"
        tools.store(session.session_key).delete(session.session_key)

    accepts = consumer(lambda self: delete(self.scope["session"]) or self.accept(), WebsocketConsumer).as_asgi()
    for site in (guarded(AllowAny(), accepts), guarded(Check(lambda request: delete(request.session) is not None))):
        cookie = tools.log_in()
        answer = tools.ask(site, cookie)
        assert (answer.status, answer.problem["code"], answer.header("set-cookie")) == (400, "bad_request", None)
        assert not tools.store(cookie).exists(cookie)


def test_a_session_that_the_site_flushes_or_saves_every_time_is_treated_as_in_a_view(tools, settings):
    cookie = tools.log_in()
    answer = tools.ask(guarded(Check(lambda request: request.session.flush() is None)), cookie)
    assert (answer.status, tools.cookie_of(answer)["max-age"]) == (101, "0")
    assert tools.engine == "signed_cookies" or not tools.store(cookie).exists(cookie)
    settings.SESSION_SAVE_EVERY_REQUEST, settings.SESSION_COOKIE_AGE = True, 60
    cookie = tools.log_in(size="large")
    settings.SESSION_COOKIE_AGE = 3600
    for policy in (IsAuthenticated(), IsAuthenticated() & DenyAll()):
        answer = tools.ask(guarded(policy), cookie)
        assert tools.cookie_of(answer)["max-age"] == "3600"
        assert tools.client_of(answer).get("/values/").json() == {"size": "large"}
    for name in ("nothing", "empty", "unknown", "too short", "forged", "expired"):
        cookie = SITUATIONS[name][0](tools)
        before = tools.stored()
        answer = tools.ask(guarded(Check(lambda request: request.user.is_anonymous)), cookie)
        assert (answer.status, answer.header("set-cookie"), tools.stored()) == (101, None, before)


@one_engine
def test_a_session_that_cannot_say_whether_it_has_to_be_saved_is_an_error(tools, settings, monkeypatch):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    cookie = tools.log_in()
    engine = import_string(f"{settings.SESSION_ENGINE}.SessionStore")
    monkeypatch.setattr(engine, "is_empty", raising(lambda: OSError("secret")))
    hooks = made("response", lambda request, response: None)
    for site in (guarded(IsAuthenticated()), with_hooks(hooks)(guarded(IsAuthenticated()))):
        answer = tools.ask(site, cookie)
        assert (answer.status, answer.problem["code"]) == (500, "server_error")
        assert b"secret" not in answer.body


@one_engine
def test_what_a_consumer_changes_after_the_accept_is_left_to_it(tools):
    async def connect(self):
        await self.accept()
        self.scope["session"]["color"] = "red"

    cookie = tools.log_in()
    before = tools.stored()
    tools.ask(guarded(IsAuthenticated(), consumer(connect).as_asgi()), cookie)
    assert tools.stored() == before


# What consumers find in their scope, and what wrappers put there.


def looking(found, base=AsyncWebsocketConsumer):
    def connect(self):
        scope = self.scope
        request = scope["wsdeny"].request
        is_same = request.user == scope["user"] and request.session is scope["session"]
        found.append((scope["user"].get_username(), scope["user"].is_authenticated, sorted(scope["cookies"]), is_same))
        return self.accept()

    return consumer(connect, base).as_asgi()


PLACES = {
    "in a stack": lambda app: DenyMiddlewareStack(app),
    "within AuthMiddlewareStack": lambda app: AuthMiddlewareStack(DenyMiddlewareStack(app)),
    "around AuthMiddlewareStack": lambda app: DenyMiddlewareStack(AuthMiddlewareStack(app)),
    "around a wrapper": lambda app: DenyMiddlewareStack(With(DenyMiddlewareStack(app))),
}


@one_engine
@pytest.mark.parametrize("base", [AsyncWebsocketConsumer, WebsocketConsumer])
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_consumer_finds_user_session_and_cookies(place, base, tools, settings):
    found, names = [], [settings.SESSION_COOKIE_NAME]
    public, private = (place(require(policy)(looking(found, base))) for policy in (AllowAny(), IsAuthenticated()))
    cookie = tools.log_in()
    assert [tools.ask(site, cookie).status for site in (public, private)] == [101, 101]
    assert found == [("alice", True, names, True)] * 2
    assert [tools.ask(site, "unknown").status for site in (public, private)] == [101, 401]
    assert found[2:] == [("", False, names, True)]
    answer = tools.ask(place(connecting(accepts, base)))
    assert tools.client_of(answer).get("/values/").json() == {"color": "red"}


@one_engine
def test_within_channels_own_stack_nothing_is_loaded_again(tools, django_assert_num_queries):
    cookie = tools.log_in()
    with django_assert_num_queries(2):
        assert tools.ask(AuthMiddlewareStack(guarded(IsAuthenticated(), accept_all)), cookie).status == 101


@one_engine
@pytest.mark.parametrize("cookie", ['"\\000aaaaaaaaaa"', '"\\012aaaaaaaaaa"', "\xff" * 10])
def test_a_cookie_that_can_be_no_session_key_is_none_for_any_engine(tools, cookie, django_assert_num_queries):
    with django_assert_num_queries(0):  # PostgreSQL refuses a NUL.
        assert tools.ask(guarded(IsAuthenticated(), accept_all), cookie).status == 401


@one_engine
@pytest.mark.parametrize("is_around", [True, False])
def test_a_user_or_session_that_a_wrapper_puts_into_the_scope_is_used(is_around, tools, django_assert_num_queries):
    def place(app, **values):
        return With(DenyMiddlewareStack(app), **values) if is_around else DenyMiddlewareStack(With(app, **values))

    cookie, found, bob = tools.log_in("alice"), [], tools.users["bob"]
    private = require(IsAuthenticated())(looking(found))
    assert tools.ask(place(private, user=bob)).status == 101
    with django_assert_num_queries(0 if is_around else 2):  # A wrapper inside finds the user of the cookie.
        assert tools.ask(place(require(IsAuthenticated())(accept_all), user=bob), cookie).status == 101
    for user in (AnonymousUser(), None):  # None is what token middleware puts there.
        assert tools.ask(place(private, user=user), cookie).status == 401
    assert tools.ask(place(private, session=tools.store(cookie))).status == 101
    assert tools.ask(place(require(AllowAny())(looking(found)), user=None), cookie).status == 101
    assert [name for name, *_ in found] == ["bob", "alice", ""]


@one_engine
@pytest.mark.parametrize("is_around", [True, False])
def test_the_session_of_another_framework_is_none_of_djangos(is_around, tools, settings):
    found, other = [], {auth.SESSION_KEY: str(tools.users["bob"].pk)}  # as Starlette's `SessionMiddleware` puts there

    def place(app):
        return (
            With(DenyMiddlewareStack(app), session=other)
            if is_around
            else DenyMiddlewareStack(With(app, session=other))
        )

    private = place(require(IsAuthenticated())(looking(found)))
    assert [tools.ask(private, cookie).status for cookie in (tools.log_in("alice"), "unknown", None)] == [101, 401, 401]
    assert found == [("alice", True, [settings.SESSION_COOKIE_NAME], True)]
    assert tools.client_of(tools.ask(place(connecting(accepts)))).get("/values/").json() == {"color": "red"}


@one_engine
def test_a_lazy_user_in_the_scope_is_loaded_where_it_may_block_if_it_is_needed(tools):
    loaded, found = [], []

    def load(name):
        loaded.append(name)
        return type(tools.users["bob"]).objects.get(username=name)

    def ask(name, policy):
        return tools.ask(guarded(policy, looking(found)), user=SimpleLazyObject(lambda: load(name))).status

    assert (ask("bob", DenyAll()), loaded) == (403, [])
    assert (ask("bob", IsAuthenticated()), loaded, found[0][0]) == (101, ["bob"], "bob")
    assert ask("missing", IsAuthenticated()) == 500


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("where", ["a response over HTTP", "a denial over HTTP", "a close"])
async def test_a_session_whose_storage_hangs_keeps_no_client_waiting(where, settings, monkeypatch, gate):
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    monkeypatch.setattr(f"{settings.SESSION_ENGINE}.SessionStore.save", gate)

    def change(request, answer=True):
        request.session["color"] = "red"
        return answer

    async def http(scope, receive, send):
        change(scope["wsdeny"].request)
        await plain(scope, receive, send)

    async def receive(self, **data):
        raise change(self.scope["wsdeny"].request, Deny(409))

    if where == "a close":
        async with opened(require(AllowAny())(consumer(receive=receive)).as_asgi()) as socket:
            await socket.send("go")
            assert (await socket.next())["code"] == 4503
    else:
        denies = AsyncCheck(lambda request: change(request, Deny(409)))
        policy = denies if where.startswith("a denial") else AllowAny()
        assert (await fetch(require(policy)(http), "/")).status == 503
    await until(lambda: gate.came)
