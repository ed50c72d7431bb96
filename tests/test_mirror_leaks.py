"""What one visitor must not leave to the next: cookies, headers, memory, tasks and threads."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref

import pytest
from asgiref.sync import async_to_sync
from django.core.handlers.base import BaseHandler
from django.http import Http404, HttpResponse
from django.test import AsyncClient, AsyncRequestFactory, RequestFactory
from django.urls import path

from channels_wsdeny import Deny, Hooks
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.policies import DenyAll
from tests.cases import Answers
from tests.mirror import DOORS, OUTSIDE, Middleware, Site, hello, page
from tests.parts import AsyncCheck

pytestmark = pytest.mark.django_db


# Responses that are made once, and sent to many.


class Names(Middleware):
    """Puts who has asked on each response, as sessions do."""

    def go(self, request, response):
        visitor = request.headers["X-Visitor"]
        response.headers[f"X-{visitor}"] = "1"
        response.set_cookie(visitor, "1")
        response["Vary"] = f"{response.get('Vary', '')}, {visitor}"
        return response


def raise_it(error):
    raise error


def by_early_response(site, shared, **options):
    hooks = Hooks()
    hooks.on_request(lambda request: shared)
    site.serve(hello, hooks=hooks, **options)


def by_route_hook(site, shared, **options):
    hooks = Hooks()
    hooks.on_route(lambda request: shared)
    site.serve(hello, hooks=hooks, **options)


def by_response_hook(site, shared, **options):
    hooks = Hooks()
    hooks.on_response(lambda request, response: shared)
    site.serve(hello, hooks=hooks, **options)


def by_exception_hook(site, shared, **options):
    hooks = Hooks()
    hooks.on_exception(Http404)(lambda request, error: shared)
    site.serve(path("x/", hello), hooks=hooks, **options)


def by_around_hook(site, shared, **options):
    hooks = Hooks()

    @hooks.around
    async def answer(request, call_next):
        return shared

    site.serve(hello, hooks=hooks, **options)


def by_around_hook_that_has_asked(site, shared, **options):
    hooks = Hooks()

    @hooks.around
    async def answer(request, call_next):
        await call_next(request)
        return shared

    site.serve(hello, hooks=hooks, **options)


def by_hooks_of_the_view(site, shared, **options):
    hooks = Hooks()
    hooks.on_request(lambda request: shared)
    site.serve(with_hooks(hooks)(hello), **options)


def by_around_hook_of_the_view(site, shared, **options):
    hooks = Hooks()

    @hooks.around
    async def answer(request, call_next):
        return shared

    site.serve(with_hooks(hooks)(hello), **options)


def by_deny(site, shared, **options):
    site.serve(lambda request: raise_it(Deny(response=shared)), **options)


def by_policy(site, shared, **options):
    site.serve(require(Answers(lambda: shared))(hello), **options)


def by_default_policy(site, shared, **options):
    site.serve(hello, MIRROR_DEFAULT_POLICY=True, DEFAULT_POLICY=Answers(lambda: shared), **options)


WAYS = [
    by_early_response,
    by_route_hook,
    by_response_hook,
    by_exception_hook,
    by_around_hook,
    by_around_hook_that_has_asked,
    by_hooks_of_the_view,
    by_around_hook_of_the_view,
    by_deny,
    by_policy,
    by_default_policy,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_is_put_on_a_shared_response_for_one_visitor_does_not_reach_the_next(site, way):
    if site.is_opaque and way in {by_early_response, by_around_hook}:
        pytest.skip("there the stack answers, and no middleware of Django's is asked")
    shared = HttpResponse("shared", status=403)
    way(site, shared, outside=[f"{__name__}.Names", *OUTSIDE])
    assert "alice" in site.ask(X_Visitor="alice").cookies
    answer = site.ask(X_Visitor="bob")
    assert (answer.status, list(answer.cookies)) == (403, ["bob"])
    assert "x-alice" not in answer.headers
    assert "alice" not in answer.headers["vary"]
    assert (dict(shared.items()), len(shared.cookies)) == ({"Content-Type": "text/html; charset=utf-8"}, 0)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_shared_response_can_be_sent_again_and_again(site, way):
    shared = HttpResponse("shared", status=403)
    way(site, shared)
    assert [site.ask().body for _ in range(3)] == [b"shared"] * 3


def test_a_shared_template_response_is_rendered_for_each_visitor(site, hooks):
    shared = page("{{ now }}", now=iter("abc").__next__)
    hooks.on_route(lambda request: shared)
    site.serve(hello, hooks=hooks)
    assert [site.ask().body for _ in range(3)] == [b"a", b"b", b"c"]


def test_a_shared_deny_has_headers_of_its_own_only(site):
    shared = Deny(409, headers={"X-A": "1"})
    site.serve(lambda request: raise_it(shared), outside=[f"{__name__}.Names", *OUTSIDE])
    site.ask(X_Visitor="alice")
    assert list(site.ask(X_Visitor="bob").cookies) == ["bob"]
    assert shared.headers == {"X-A": "1"}


# Memory.


@pytest.fixture
def quiet():
    """Records are made, but nobody keeps them, as pytest does."""

    def drop(record):
        return False

    loggers = [logging.getLogger(name) for name in ("django.request", "channels_wsdeny")]
    for logger in loggers:
        logger.addFilter(drop)
    yield
    for logger in loggers:
        logger.removeFilter(drop)


class Lost(Exception):
    pass


def take_one(request, error):
    return HttpResponse("taken", status=418)


def busy_site(settings, within=()):
    """A site with a view for everything that can happen."""
    hooks, own = Hooks(), Hooks()
    hooks.on_exception(Lost)(take_one)
    own.on_exception(KeyError)(take_one)

    @hooks.on_request
    async def begin(request):
        request.ctx.weight = bytearray(1000)

    @hooks.around
    async def around(request, call_next):
        return await call_next(request)

    async def hello_async(request):
        return HttpResponse("hello")

    async def fail_async(request):
        raise ZeroDivisionError

    views = {
        "hello": hello,
        "hello-async": hello_async,
        "fails": lambda request: raise_it(ZeroDivisionError()),
        "fails-async": fail_async,
        "taken": lambda request: raise_it(Lost()),
        "own": with_hooks(own)(lambda request: raise_it(KeyError())),
        "denies": public(lambda request: raise_it(Deny(409))),
        "not-found": lambda request: raise_it(Http404()),
        "guarded": require(DenyAll())(hello),
        "template": lambda request: page("hello"),
    }
    urls = [path(f"{name}/", view) for name, view in views.items()]
    site = Site(settings, DOORS["wsgi"]())
    site.serve(*urls, hooks=hooks, outside=[], inside=list(within))
    return [f"/{name}/" for name in [*views, "nowhere"]]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("kind", ["wsgi", "asgi", "sync-inside"])
def test_two_thousand_requests_leave_nothing_behind(settings, kind):
    urls = busy_site(settings, ["tests.mirror.SyncOnly"] if kind == "sync-inside" else [])
    handler = BaseHandler()  # Django's test clients leave something behind by themselves.
    handler.load_middleware(is_async=kind != "wsgi")
    make = (RequestFactory() if kind == "wsgi" else AsyncRequestFactory()).get

    def round_of(times):
        for _ in range(times):
            for url in urls:
                handler.get_response(make(url))

    async def round_of_async(times):
        for _ in range(times):
            for url in urls:
                await handler.get_response_async(make(url))

    ask = round_of if kind == "wsgi" else async_to_sync(round_of_async)
    ask(20)
    gc.collect()
    before, threads = len(gc.get_objects()), threading.active_count()
    ask(2000 // len(urls))
    gc.collect()
    assert len(gc.get_objects()) - before < 300
    assert threading.active_count() <= threads + 2


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("url", ["/taken/", "/fails/", "/denies/", "/nowhere/", "/own/", "/hello/"])
def test_nothing_of_a_request_is_kept_alive(site, hooks, url):
    alive = []

    class Token:
        pass

    @hooks.on_request
    def begin(request):
        request.ctx.token = Token()
        alive.append(weakref.ref(request.ctx.token))

    own = Hooks()
    hooks.on_exception(Lost)(take_one)
    own.on_exception(KeyError)(take_one)
    site.serve(
        path("taken/", lambda request: raise_it(Lost())),
        path("fails/", lambda request: raise_it(ZeroDivisionError())),
        path("denies/", lambda request: raise_it(Deny(409))),
        path("own/", with_hooks(own)(lambda request: raise_it(KeyError()))),
        path("hello/", hello),
        hooks=hooks,
    )
    for _ in range(3):
        site.ask(url)
    gc.collect()
    assert [token() for token in alive] == [None] * 3


# Tasks.


@pytest.mark.parametrize("within", [[], ["tests.mirror.SyncOnly"]], ids=["async-mirror", "sync-mirror"])
async def test_no_task_is_left_of_hooks_and_views(settings, hooks, within):
    @hooks.around
    async def around(request, call_next):
        return await asyncio.wait_for(call_next(request), 5)

    @hooks.on_response
    async def mark(request, response):
        await asyncio.sleep(0)

    Site(settings, DOORS["asgi"]()).serve(
        path("x/", hello), path("fails/", lambda request: raise_it(Lost())), hooks=hooks, inside=within
    )
    client = AsyncClient(raise_request_exception=False)
    for url in ("/x/", "/fails/", "/nowhere/"):
        await client.get(url)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("within", [[], ["tests.mirror.SyncOnly"]], ids=["async-mirror", "sync-mirror"])
async def test_a_request_that_is_cancelled_in_an_around_hook_leaves_no_task(settings, hooks, within):
    entered, ended = asyncio.Event(), []

    @hooks.around
    async def around(request, call_next):
        try:
            return await call_next(request)
        finally:
            ended.append(True)

    async def view(request):
        entered.set()
        await asyncio.sleep(60)

    Site(settings, DOORS["asgi"]()).serve(view, hooks=hooks, inside=within)
    task = asyncio.create_task(AsyncClient().get("/"))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10):
            await task
    for _ in range(50):
        if asyncio.all_tasks() == {asyncio.current_task()}:
            break
        await asyncio.sleep(0.02)
    assert (ended, asyncio.all_tasks()) == ([True], {asyncio.current_task()})


async def test_a_request_that_is_cancelled_while_it_is_decided_opens_nothing_later(settings):
    asked, may = asyncio.Event(), asyncio.Event()

    async def wait(request):
        asked.set()
        await may.wait()
        return True

    def view(request):
        raise AssertionError

    Site(settings, DOORS["asgi"]()).serve(require(AsyncCheck(wait))(view))
    task = asyncio.create_task(AsyncClient().get("/"))
    await asked.wait()
    task.cancel()
    may.set()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10):
            await task
