"""Hooks of a stack around Django's handler where there is no mirror, or where a wrapper hides the handler."""

from __future__ import annotations

import asyncio
import gc

import pytest
from asgiref.sync import async_to_sync
from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib.auth import SESSION_KEY, login, logout
from django.contrib.sessions.backends.db import SessionStore
from django.core.asgi import get_asgi_application
from django.core.signals import request_finished
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path, re_path

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import require, with_hooks
from channels_wsdeny.policies import AllowAny
from tests.clients import cookie_header, fetch
from tests.test_stack import Wrapper

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.urls(__name__),
    # Django's handler has a thread for each request, and never closes a connection to an in-memory database.
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def _collected():
    """Such connections go while their warning is still ignored."""
    yield
    gc.collect()


def page(request):
    return HttpResponse("page")


async def stream(request):
    async def chunks():
        yield b"a"
        yield b"b"

    return StreamingHttpResponse(chunks())


def cart(request):
    request.session["cart"] = 1
    return HttpResponse("in the cart")


def log_in(request):
    from django.contrib.auth import get_user_model

    user = get_user_model().objects.get(username="alice")
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse("hello")


RAN: list[str] = []
LOOKING = Hooks()
LOOKING.on_request(lambda request: RAN.append("request"))
LOOKING.on_response(lambda request, response: RAN.append("response"))


def log_out(request):
    logout(request)
    return HttpResponse("goodbye")


def looking(request):
    return HttpResponse(str(request.user))


urlpatterns = [
    path("page/", page),
    path("logout/", log_out),
    path("looking/", looking),
    path("secret/", lambda request: HttpResponse(str(request.session.get("secret")))),
    path("hooked/", with_hooks(LOOKING)(page)),
    path("cart/", cart),
    path("login/", log_in),
    path("stream/", stream),
]


def hidden(app):
    """`app` in a function, which nobody can see into."""

    async def wrapper(scope, receive, send):
        await app(scope, receive, send)

    return wrapper


#: Whether there is the middleware, and what is around Django's handler.
PLACES = {
    "function, no mirror": (False, hidden),
    "function, mirror": (True, hidden),
    "policy and function, no mirror": (False, lambda app: require(AllowAny())(hidden(app))),
    "policy and function, mirror": (True, lambda app: require(AllowAny())(hidden(app))),
    "router and wrapper, no mirror": (False, lambda app: URLRouter([re_path("", Wrapper(app))])),
    "router and wrapper, mirror": (True, lambda app: URLRouter([re_path("", Wrapper(app))])),
    "no mirror": (False, lambda app: app),
    "wrapper, no mirror": (False, Wrapper),
    "wrapper, mirror": (True, Wrapper),
    "mirror": (True, lambda app: app),
    "policy, no mirror": (False, require(AllowAny())),
    "policy, mirror": (True, require(AllowAny())),
}


@pytest.fixture(params=PLACES)
def get(request, settings):
    """A function from a path and hooks to what Django's handler answers in this place."""
    mirrored, wrap = PLACES[request.param]
    if not mirrored:
        settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != MIRROR]

    def get(url, hooks, *cookies):
        app = DenyMiddlewareStack(ProtocolTypeRouter({"http": wrap(get_asgi_application())}), hooks=hooks)
        answer = async_to_sync(fetch)(app, url, headers=[(b"host", b"testserver"), *cookies])
        answer.headers = [(name.lower(), value) for name, value in answer.headers]
        return answer

    return get


@pytest.fixture
def finished():
    """One item for each request that Django has finished: then it closes old database connections."""
    ends = []

    def note(**kwargs):
        ends.append(kwargs)

    request_finished.connect(note)
    yield ends
    request_finished.disconnect(note)


# Sessions.


@pytest.fixture
def session():
    session = SessionStore()
    session["old"] = True
    session.save()
    return session


@pytest.fixture
def cookie(session, settings):
    return cookie_header(**{settings.SESSION_COOKIE_NAME: session.session_key})[0]


def noting_visits(hooks):
    @hooks.on_request
    def note(request):
        request.session["visits"] = request.session.get("visits", 0) + 1


def sessions_of(answer, settings):
    cookies = [value for name, value in answer.headers if name == "set-cookie"]
    prefix = f"{settings.SESSION_COOKIE_NAME}="
    return [value.removeprefix(prefix).partition(";")[0] for value in cookies if value.startswith(prefix)]


def test_what_a_hook_and_a_view_put_into_a_session_is_both_in_it(get, hooks, session, cookie, settings):
    noting_visits(hooks)
    answer = get("/cart/", hooks, cookie)
    assert answer.status == 200
    assert sessions_of(answer, settings) == [session.session_key]
    assert dict(SessionStore(session.session_key).items()) == {"old": True, "visits": 1, "cart": 1}


def test_a_view_logs_in_although_a_hook_has_changed_the_session(get, hooks, cookie, users, settings):
    noting_visits(hooks)
    answer = get("/login/", hooks, cookie)
    assert (answer.status, answer.body) == (200, b"hello")
    (key,) = sessions_of(answer, settings)
    assert SessionStore(key)[SESSION_KEY] == str(users["alice"].pk)


def test_what_a_hook_puts_into_a_session_is_there_at_the_next_request(get, hooks, session, cookie):
    noting_visits(hooks)
    for _ in range(3):
        assert get("/page/", hooks, cookie).status == 200
    assert SessionStore(session.session_key)["visits"] == 3


def noting_answers(hooks):
    """As `noting_visits`, on the way out, though the session is loaded on the way in."""
    hooks.on_request(lambda request: request.session.get("old") and None)

    @hooks.on_response
    def note(request, response):
        request.session["answers"] = request.session.get("answers", 0) + 1


def noting_answers_around(hooks):
    @hooks.around
    async def note(request, call_next):
        await request.session.aget("old")
        response = await call_next(request)
        await request.session.aset("answers", await request.session.aget("answers", 0) + 1)
        return response


NOTING = pytest.mark.parametrize("noting", [noting_answers, noting_answers_around])


@NOTING
def test_what_a_response_hook_puts_into_a_session_leaves_what_the_view_did(
    noting, get, hooks, session, cookie
):
    noting(hooks)
    for _ in range(2):
        assert get("/cart/", hooks, cookie).status == 200
    assert dict(SessionStore(session.session_key).items()) == {"old": True, "cart": 1, "answers": 2}


@NOTING
def test_a_response_hook_goes_on_with_the_session_that_a_view_has_begun(
    noting, get, hooks, cookie, users, settings
):
    noting(hooks)
    answer = get("/login/", hooks, cookie)
    (key,) = set(sessions_of(answer, settings))
    found = SessionStore(key)
    assert (found[SESSION_KEY], found["answers"]) == (str(users["alice"].pk), 1)


@NOTING
def test_a_response_hook_does_not_bring_a_session_back_that_a_view_has_ended(
    noting, get, hooks, session, cookie, users, settings
):
    noting(hooks)
    get("/login/", hooks, cookie)
    answer = get("/logout/", hooks, cookie)
    assert not SessionStore().exists(session.session_key)
    assert session.session_key not in sessions_of(answer, settings)


@NOTING
def test_a_response_hook_may_begin_a_session(noting, get, hooks, settings):
    noting(hooks)
    (key,) = sessions_of(get("/page/", hooks), settings)
    assert SessionStore(key)["answers"] == 1


def test_a_request_hook_may_begin_a_session(get, hooks, settings):
    noting_visits(hooks)
    (key,) = sessions_of(get("/page/", hooks), settings)
    assert SessionStore(key)["visits"] == 1


@pytest.mark.parametrize("engine", ["db", "file", "signed_cookies", "cached_db"])
def test_what_a_hook_puts_into_the_session_of_any_engine_is_there_again(engine, get, hooks, settings):
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    noting_visits(hooks)
    counts = []
    hooks.on_response(lambda request, response: counts.append(request.session.get("visits")))
    cookies = ()
    for _ in range(3):
        answer = get("/page/", hooks, *cookies)
        keys = sessions_of(answer, settings)
        if keys:
            cookies = cookie_header(**{settings.SESSION_COOKIE_NAME: keys[-1]})
    assert counts == [1, 2, 3]


def test_a_hook_may_log_in(get, hooks, users, settings):
    hooks.on_request(
        lambda request: login(request, users["alice"], "django.contrib.auth.backends.ModelBackend")
    )
    (key,) = sessions_of(get("/page/", hooks), settings)
    assert SessionStore(key)[SESSION_KEY] == str(users["alice"].pk)


def test_a_hook_may_log_in_a_visitor_who_has_a_session(get, hooks, users, cookie, settings):
    """Django does not find the old session, and deletes its cookie."""
    hooks.on_request(
        lambda request: login(request, users["alice"], "django.contrib.auth.backends.ModelBackend")
    )
    keys = sessions_of(get("/looking/", hooks, cookie), settings)
    assert SessionStore(keys[-1]).get(SESSION_KEY) == str(users["alice"].pk)


def test_a_hook_may_begin_a_session_for_one_whose_session_has_expired(get, hooks, settings):
    noting_visits(hooks)
    stale = cookie_header(**{settings.SESSION_COOKIE_NAME: "a" * 32})[0]
    keys = sessions_of(get("/looking/", hooks, stale), settings)
    assert SessionStore(keys[-1]).get("visits") == 1


def test_the_cookie_is_sent_for_what_a_hook_has_changed(get, hooks, session, cookie, settings):
    hooks.on_request(lambda request: request.session.set_expiry(60))
    answer = get("/page/", hooks, cookie)
    assert sessions_of(answer, settings) == [session.session_key]
    assert any("Max-Age=60" in value for name, value in answer.headers if name == "set-cookie")


def test_an_asynchronous_hook_that_has_loaded_the_session_may_look_into_it_again(get, hooks, cookie):
    seen = []

    @hooks.on_request
    async def load(request):
        await request.session.aget("old")

    @hooks.on_response
    async def look(request, response):
        seen.append(request.session.get("old"))

    assert [get(url, hooks, cookie).status for url in ("/page/", "/cart/")] == [200, 200]
    assert seen == [True, True]


def test_a_hook_may_log_out(get, hooks, session, cookie, settings):
    hooks.on_request(logout)
    assert sessions_of(get("/page/", hooks, cookie), settings) == ['""']
    assert not SessionStore().exists(session.session_key)


def test_the_session_that_a_view_begins_is_the_visitors_whatever_a_hook_began(get, hooks, settings):
    noting_visits(hooks)
    keys = sessions_of(get("/cart/", hooks), settings)
    assert SessionStore(keys[-1])["cart"] == 1


# Once.


def test_hooks_that_stack_and_view_are_given_run_once(get):
    RAN.clear()
    assert get("/hooked/", LOOKING).body == b"page"
    assert RAN == ["request", "response"]


# An end in order, whatever becomes of the response.


def impatient(hooks):
    @hooks.around
    async def around(request, call_next):
        try:
            async with asyncio.timeout(0.05):
                return await call_next(request)
        except TimeoutError:
            return HttpResponse(b"no", status=403)

    @hooks.on_response
    async def slow(request, response):
        await asyncio.sleep(0.1)


def failing(hooks):
    @hooks.on_response
    def fail(request, response):
        raise Deny(403, "no")


INSTEAD = {
    "replaced": lambda hooks: hooks.on_response(lambda request, response: HttpResponse(b"no", status=403)),
    "denied": lambda hooks: hooks.on_response(lambda request, response: Deny(403, "no")),
    "failing": failing,
    "impatient": impatient,
}


@pytest.mark.parametrize("url", ["/page/", "/stream/"])
@pytest.mark.parametrize("name", INSTEAD)
def test_a_request_whose_response_hooks_replace_is_finished_by_django(name, url, get, hooks, finished):
    INSTEAD[name](hooks)
    answer = get(url, hooks)
    assert (answer.status, b"no" in answer.body) == (403, True)
    assert len(finished) == 1
    gc.collect()  # temporary files that nobody closed speak up


# What a wrapper says of a visitor is not Django's business.


def test_a_view_goes_by_the_cookie_whatever_session_a_wrapper_gives(hooks):
    stranger = SessionStore()
    stranger["secret"] = True
    stranger.save()
    hooks.on_request(lambda request: request.session.get("secret") and None)
    stack = DenyMiddlewareStack(ProtocolTypeRouter({"http": Wrapper(get_asgi_application())}), hooks=hooks)

    async def with_session(scope, receive, send):
        await stack({**scope, "session": stranger}, receive, send)

    answer = async_to_sync(fetch)(with_session, "/secret/", headers=[(b"host", b"testserver")])
    assert answer.body == b"None"
