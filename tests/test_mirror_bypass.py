"""Ways around ``MIRROR_DEFAULT_POLICY``, each of them shut."""

from __future__ import annotations

import asyncio
import functools
import io
from dataclasses import dataclass
from functools import partial

import pytest
from channels.routing import ProtocolTypeRouter
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.core.cache import cache
from django.http import FileResponse, HttpResponse, HttpResponseRedirect
from django.urls import path
from django.views.decorators.cache import cache_page
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from channels_wsdeny import DenyMiddlewareStack, Hooks
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import login_required, public, require, with_hooks
from channels_wsdeny.policies import AllowAny, IsAuthenticated, IsStaff, Policy
from tests.clients import fetch
from tests.mirror import DOORS, OUTSIDE, Middleware, Site, hello
from tests.parts import AsyncCheck, Check

pytestmark = pytest.mark.django_db
HOST = [(b"host", b"testserver")]


@pytest.fixture
def locked(site):
    """A function that serves URLs under the default policy, and returns the site."""
    return partial(site.serve, MIRROR_DEFAULT_POLICY=True)


# Views that are hard to know.


@dataclass
class Unhashable:
    name: str = "view"

    def __call__(self, request):
        return HttpResponse("hello")


class Slotted:
    __slots__ = ()

    def __call__(self, request):
        return HttpResponse("hello")


@pytest.mark.parametrize("view", [Unhashable(), Slotted()], ids=["unhashable", "slotted"])
def test_any_callable_may_be_a_view(locked, view):
    assert locked(view).ask().status == 401
    assert locked(view).log_in(User.objects.create_user("alice")).ask().status == 200


# Decorators that answer in the place of a guarded view.


@pytest.mark.parametrize("guard", [login_required, require(IsStaff() | IsAuthenticated()), public])
def test_what_names_itself_after_a_view_but_does_not_call_it_answers_to_its_policy(locked, guard):
    @guard
    def inner(request):
        raise AssertionError

    @functools.wraps(inner)
    def outer(request):
        return HttpResponse("outer")

    assert locked(outer).ask().status == (200 if guard is public else 401)


def test_what_names_itself_after_an_open_view_does_not_open_another(locked):
    """`__wrapped__` that leads to nothing guarded, and attributes that travel with functools.wraps()."""

    @functools.wraps(public(hello))
    def outer(request):
        return HttpResponse("outer")

    del outer.__wrapped__
    assert locked(outer).ask().status == 401


FROM_OFFICE = Check(lambda request: request.headers.get("X-Office") == "1")


@pytest.fixture
def cached(settings):
    """A cache of this test's own."""
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    cache.clear()


@pytest.mark.usefixtures("cached")
def test_a_page_in_the_cache_is_not_served_past_the_policy_within(locked):
    site = locked(path("page/", cache_page(60)(require(FROM_OFFICE)(hello))))
    assert [site.ask("/page/", X_Office="1").status, site.ask("/page/").status] == [200, 403]


def limited(view):
    @functools.wraps(view)
    def limit(request):
        return HttpResponse("slow down", status=429)

    return limit


@pytest.mark.parametrize(("decorator", "status"), [(limited, 429), (require_POST, 405)])
def test_a_refusal_of_a_decorator_outside_a_guard_stays(locked, decorator, status):
    assert locked(decorator(login_required(hello))).ask().status == status


def test_a_response_that_is_withheld_is_closed(locked):
    file = io.BytesIO(b"secret")

    @functools.wraps(login_required(hello))
    def view(request):
        return FileResponse(file)

    assert locked(view).ask().status == 401
    assert file.closed


def test_a_view_with_hooks_alone_within_another_decorator_is_locked(locked):
    assert locked(csrf_exempt(with_hooks(Hooks())(hello))).ask().status == 401


# Middleware that answers in the place of a view.


class Redirects(Middleware):
    def come(self, request):
        return HttpResponseRedirect("https://sso.example.com/")


def test_a_redirect_of_middleware_further_in_stays(locked):
    assert locked(hello, inside=[f"{__name__}.Redirects"]).ask().status == 302


@pytest.mark.usefixtures("cached")
def test_a_page_in_the_cache_of_the_site_is_not_served_past_the_policy(locked):
    site = locked(
        path("page/", hello),
        outside=["django.middleware.cache.UpdateCacheMiddleware", *OUTSIDE],
        inside=["django.middleware.cache.FetchFromCacheMiddleware"],
        DEFAULT_POLICY=FROM_OFFICE,
    )
    assert [site.ask("/page/", X_Office="1").status, site.ask("/page/").status] == [200, 403]


class ByName(Policy):
    """Wants to know the route."""

    def check(self, request):
        return request.resolver_match.kwargs["name"] == "x" and request.headers.get("X-Office") == "1"


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("policy", [FROM_OFFICE, ByName()])
def test_a_page_in_the_cache_of_the_site_is_not_served_past_the_policy_of_its_view(locked, policy):
    site = locked(
        path("<name>/", require(policy)(hello)),
        outside=["django.middleware.cache.UpdateCacheMiddleware", *OUTSIDE],
        inside=["django.middleware.cache.FetchFromCacheMiddleware"],
        DEFAULT_POLICY=AllowAny(),
    )
    assert [site.ask("/x/", X_Office="1").status, site.ask("/x/").status] == [200, 403]


class CallsTheView(Middleware):
    def process_view(self, request, view, args, kwargs):
        return view(request, *args, **kwargs)


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_middleware_that_calls_the_view_itself_opens_nothing(locked, place):
    middleware = f"{__name__}.CallsTheView"
    options = {"inside": [middleware]} if place == "inside" else {"outside": [*OUTSIDE, middleware]}
    assert locked(hello, **options).ask().status == 401


# Denials that Django would not see.


class Falsy(HttpResponse):
    def __len__(self):
        return len(self.content)


class DeniesEmptily(Policy):
    def check(self, request):
        return Falsy(status=403)


class HasProcessView(Middleware):
    def process_view(self, request, view, args, kwargs):
        return None


def test_a_denial_that_is_false_opens_nothing(locked):
    def view(request):
        raise AssertionError

    locked(view, inside=[f"{__name__}.HasProcessView"], DEFAULT_POLICY=DeniesEmptily())
    assert locked.func.__self__.ask().status in {403, 500}


# How often it is asked.


def test_a_mirror_that_is_listed_twice_asks_once(locked):
    asked = []
    policy = Check(lambda request: asked.append(1) or True)
    locked(hello, mirror=[MIRROR, MIRROR], DEFAULT_POLICY=policy).ask()
    assert asked == [1]


# Applications beside Django's.


class Fork:
    """Serves an API by itself, and Django elsewhere, as a hand-written asgi.py does."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["path"].startswith("/api/"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"secret"})
        else:
            await self.app(scope, receive, send)


async def test_what_a_wrapper_serves_beside_django_is_locked(settings):
    Site(settings, DOORS["asgi"]()).serve(path("open/", public(hello)), MIRROR_DEFAULT_POLICY=True)
    stack = DenyMiddlewareStack(ProtocolTypeRouter({"http": Fork(get_asgi_application())}))
    assert (await fetch(stack, "/open/", headers=HOST)).status == 200
    assert (await fetch(stack, "/api/", headers=HOST)).status == 401


# Clients who leave.


@pytest.mark.parametrize("within", [[], ["tests.mirror.SyncOnly"]], ids=["async-mirror", "sync-mirror"])
async def test_a_client_that_leaves_while_the_policy_is_asked_opens_nothing(settings, within):
    ran, asked, left = [], asyncio.Event(), asyncio.Event()

    async def wait(request):
        asked.set()
        await left.wait()
        return True

    async def view(request):
        ran.append(1)
        return HttpResponse()

    Site(settings, DOORS["asgi"]()).serve(
        view, outside=[], inside=within, MIRROR_DEFAULT_POLICY=True, DEFAULT_POLICY=AsyncCheck(wait)
    )
    application = get_asgi_application()
    received = asyncio.Queue()
    received.put_nowait({"type": "http.request", "body": b""})
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": "/", "method": "GET", "headers": HOST, "query_string": b""}
    task = asyncio.create_task(application(scope, received.get, send))
    await asked.wait()
    received.put_nowait({"type": "http.disconnect"})
    await asyncio.sleep(0.05)
    left.set()
    async with asyncio.timeout(10):
        await asyncio.gather(task, return_exceptions=True)
    assert (ran, sent) == ([], [])


# Wrappers that lose their patience while the policy is asked.


class Stale:
    """A cache that answers with the page it has kept when the site takes too long."""

    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        site = asyncio.ensure_future(self.inner(scope, receive, send))
        done, _ = await asyncio.wait({site}, timeout=0.2)
        if not done:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"secret"})
        await site


class Slow(Policy):
    async def acheck(self, request):
        await asyncio.sleep(0.5)
        return False


INNER = {"handler": lambda django: django, "stack": DenyMiddlewareStack, "hooks": with_hooks(Hooks())}


@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
async def test_what_a_wrapper_answers_while_the_policy_is_asked_is_guarded(inner, settings):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True, "DEFAULT_POLICY": Slow()}
    settings.ROOT_URLCONF = (path("", hello),)
    application = DenyMiddlewareStack(Stale(inner(get_asgi_application())))
    answer = await fetch(application, "/", headers=HOST)
    assert (answer.status, b"secret" in answer.body) == (403, False)
