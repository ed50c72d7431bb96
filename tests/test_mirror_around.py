"""`around` hooks on views, contextvars, and the threads and loops that hooks of views run on."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.http import (
    HttpResponse,
)
from django.test import AsyncClient, Client
from django.urls import path

from channels_wsdeny import Deny, Hooks
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import public, with_hooks
from tests.mirror import DOORS, VIEWS, Site, hello, hello_async

pytestmark = pytest.mark.django_db


@pytest.fixture(params=VIEWS.values(), ids=VIEWS)
def view(request):
    return request.param


@pytest.fixture(params=[hello, hello_async], ids=["sync-view", "async-view"])
def either(request):
    return request.param


# around.


def test_an_around_hook_sees_the_response_of_a_view(site, hooks, view):
    @hooks.around
    async def shout(request, call_next):
        response = await call_next(request)
        response.content = response.content.upper()
        return response

    assert site.serve(view, hooks=hooks).ask().body == b"HELLO WORLD"


def test_an_around_hook_may_answer_in_the_views_place(site, hooks):
    @hooks.around
    async def answer(request, call_next):
        return HttpResponse("early")

    def view(request):
        raise AssertionError

    assert site.serve(view, hooks=hooks).ask().body == b"early"


def test_an_around_hook_may_run_the_view_in_a_task_of_its_own(site, hooks, view):
    @hooks.around
    async def detach(request, call_next):
        return await asyncio.create_task(call_next(request))

    assert site.serve(view, hooks=hooks).ask().body == b"hello world"


def test_an_around_hook_may_give_a_view_so_much_time(site, hooks):
    @hooks.around
    async def limit(request, call_next):
        try:
            return await asyncio.wait_for(call_next(request), 0.05)
        except TimeoutError:
            return HttpResponse("late", status=503)

    async def view(request):
        await asyncio.sleep(1)
        return HttpResponse("slow")

    if site.is_opaque:
        pytest.skip("there the stack answers, while the application goes on")
    assert site.serve(view, hooks=hooks).ask().body == b"late"


def test_an_around_hook_that_calls_the_view_twice_lets_nothing_out(site, hooks):
    ran = []

    @hooks.around
    async def repeat(request, call_next):
        await call_next(request)
        return await call_next(request)

    def view(request):
        ran.append(1)
        return HttpResponse("secret")

    answer = site.serve(view, hooks=hooks).ask()
    assert (answer.status, ran) == (500, [1])
    assert b"secret" not in answer.body


def test_an_around_hook_that_returns_nothing_lets_nothing_out(site, hooks):
    @hooks.around
    async def forget(request, call_next):
        await call_next(request)

    assert site.serve(hello, hooks=hooks).ask().status == 500


# What they raise.


async def limit(request, call_next):
    raise Deny(429)


async def limit_afterwards(request, call_next):
    await call_next(request)
    raise Deny(429)


async def fail(request, call_next):
    raise ZeroDivisionError("secret")


async def fail_afterwards(request, call_next):
    await call_next(request)
    raise ZeroDivisionError("secret")


@pytest.mark.parametrize("around", [limit, limit_afterwards])
def test_a_deny_of_an_around_hook_answers(site, hooks, around):
    hooks.around(around)
    assert site.serve(hello, hooks=hooks).ask().code == "throttled"


@pytest.mark.parametrize("mirror", [[], [MIRROR]], ids=["alone", "mirror"])
@pytest.mark.parametrize("around", [limit, limit_afterwards])
def test_a_deny_of_a_views_own_around_hook_answers(site, hooks, either, around, mirror):
    hooks.around(around)
    assert site.serve(with_hooks(hooks)(either), mirror=mirror).ask().code == "throttled"


@pytest.mark.parametrize("around", [fail, fail_afterwards])
def test_an_error_of_an_around_hook_is_a_problem(site, hooks, around):
    hooks.around(around)
    answer = site.serve(hello, hooks=hooks).ask()
    assert answer.code == "server_error"
    assert b"secret" not in answer.body


@pytest.mark.parametrize("around", [fail, fail_afterwards])
def test_an_error_of_an_around_hook_is_logged_with_its_traceback(site, hooks, around, caplog):
    if site.is_opaque:
        pytest.skip("there the stack answers, and Django logs its own part")
    hooks.around(around)
    site.serve(hello, hooks=hooks).ask()
    (record,) = [record for record in caplog.records if record.name == "django.request"]
    assert (record.levelname, record.exc_info[0]) == ("ERROR", ZeroDivisionError)


def test_an_around_hook_sees_the_answer_to_an_exception_of_the_view(site, hooks):
    @hooks.around
    async def look(request, call_next):
        response = await call_next(request)
        response["X-Saw"] = str(response.status_code)
        return response

    def view(request):
        raise ZeroDivisionError

    assert site.serve(view, hooks=hooks).ask().headers["x-saw"] == "500"


# Contextvars.


VARIABLE = contextvars.ContextVar("VARIABLE", default="nothing")


@pytest.mark.parametrize("kind", ["on_request", "on_route", "around"])
@pytest.mark.parametrize("of", ["site", "view"])
def test_what_an_async_hook_puts_into_a_contextvar_the_view_sees(site, hooks, either, kind, of):
    async def set_and_go_on(request, call_next=None):
        await asyncio.sleep(0)
        VARIABLE.set("set")
        return await call_next(request) if call_next else None

    def view(request):
        return HttpResponse(VARIABLE.get())

    async def view_async(request):
        return HttpResponse(VARIABLE.get())

    getattr(hooks, kind)(set_and_go_on)
    endpoint = view if either is hello else view_async
    if of == "site":
        site.serve(endpoint, hooks=hooks)
    else:
        site.serve(with_hooks(hooks)(endpoint))
    assert site.ask().body == b"set"


# Threads.


def test_synchronous_hooks_run_in_the_thread_of_the_view(site, hooks, settings):
    if site.is_opaque:
        pytest.skip("there the stack runs request hooks, in its pool")
    seen = []

    def note(*arguments):
        seen.append(threading.get_ident())

    @hooks.around
    async def around(request, call_next):
        return await call_next(request)

    def view(request):
        note()
        return HttpResponse()

    for kind in ("on_request", "on_route", "on_response"):
        getattr(hooks, kind)(note)
    site.serve(with_hooks(Hooks())(view), hooks=hooks).ask()
    assert len(seen) == 4
    assert len(set(seen)) == 1


def test_hooks_around_a_view_see_its_transaction(site, hooks):
    @hooks.on_request
    def write(request):
        User.objects.create_user("written")

    @hooks.around
    async def around(request, call_next):
        return await call_next(request)

    site.serve(
        lambda request: HttpResponse(str(User.objects.filter(username="written").count())), hooks=hooks
    )
    assert site.ask().body == b"1"


def test_an_asynchronous_hook_runs_on_a_loop_and_a_synchronous_one_off_it(site, hooks):
    seen = []

    def is_on_loop():
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True

    @hooks.on_request
    def off(request):
        seen.append(is_on_loop())

    @hooks.on_request
    async def on(request):
        seen.append(is_on_loop())

    site.serve(hello, hooks=hooks).ask()
    assert seen == [False, True]


def test_many_threads_at_once_run_async_hooks_under_wsgi(settings, hooks):
    """Each has a loop of its own for them, and none waits for another."""
    barrier = threading.Barrier(8, timeout=20)

    @hooks.around
    async def around(request, call_next):
        await asyncio.sleep(0.001)
        return await call_next(request)

    @hooks.on_response
    async def mark(request, response):
        await asyncio.sleep(0.001)
        response["X-Ctx"] = request.ctx.given

    def view(request):
        request.ctx.given = request.GET["given"]
        barrier.wait()
        return HttpResponse(request.GET["given"])

    Site(settings, DOORS["wsgi"]()).serve(view, hooks=hooks, outside=[], inside=[])
    answers = {}

    def ask(given):
        answers[given] = Client().get(f"/?given={given}").headers["X-Ctx"]

    threads = [threading.Thread(target=ask, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == {str(number): str(number) for number in range(8)}


@pytest.mark.parametrize("within", [[], ["tests.mirror.SyncOnly"]], ids=["async-mirror", "sync-mirror"])
async def test_many_requests_at_once_run_around_hooks_under_asgi(settings, hooks, within):
    @hooks.around
    async def around(request, call_next):
        await asyncio.sleep(0.001)
        return await call_next(request)

    @hooks.on_response
    def mark(request, response):
        response["X-Ctx"] = request.ctx.given

    async def view(request):
        request.ctx.given = request.GET["given"]
        await asyncio.sleep(0.001)
        return HttpResponse()

    Site(settings, DOORS["asgi"]()).serve(view, hooks=hooks, outside=[], inside=within)
    client = AsyncClient()
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*(client.get(f"/?given={number}") for number in range(20)))
    assert [answer.headers["X-Ctx"] for answer in answers] == [str(number) for number in range(20)]


def test_a_view_may_cross_between_threads_and_loops_within_hooks_that_do(site, hooks):
    """Nobody waits for a thread or loop that waits for him."""
    own = Hooks()

    async def count():
        return await User.objects.acount()

    for registry in (hooks, own):

        @registry.around
        async def around(request, call_next):
            await sync_to_async(User.objects.count)()
            response = await call_next(request)
            await sync_to_async(User.objects.count)()
            return response

        @registry.on_request
        def cross(request):
            async_to_sync(count)()

        @registry.on_response
        async def cross_back(request, response):
            await User.objects.acount()

    async def deep():
        return await sync_to_async(lambda: async_to_sync(count)())()

    def view(request):
        return HttpResponse(str(async_to_sync(deep)()))

    async def view_async(request):
        return HttpResponse(str(await deep()))

    site.serve(
        path("sync/", with_hooks(own)(public(view))),
        path("async/", with_hooks(own)(public(view_async))),
        hooks=hooks,
    )
    assert [site.ask("/sync/").body, site.ask("/async/").body] == [b"0", b"0"]
