"""Hooks of a stack around Django's handler where there is no mirror, or where a wrapper hides the handler."""

from __future__ import annotations

import asyncio
import gc

import pytest
from asgiref.sync import async_to_sync
from channels.routing import ProtocolTypeRouter
from django.contrib.auth import SESSION_KEY, login
from django.contrib.sessions.backends.db import SessionStore
from django.core.asgi import get_asgi_application
from django.core.signals import request_finished
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

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

urlpatterns = [
    path("page/", page),
    path("hooked/", with_hooks(LOOKING)(page)),
    path("cart/", cart),
    path("login/", log_in),
    path("stream/", stream),
]

#: Whether there is the middleware, and what is around Django's handler.
PLACES = {
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
def hooks():
    return Hooks()


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
