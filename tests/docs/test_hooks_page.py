"""Every snippet of docs/hooks.md does what the page says."""

import asyncio

import pytest
from asgiref.sync import async_to_sync
from channels.middleware import BaseMiddleware
from channels.routing import URLRouter
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client
from django.urls import path

from channels_wsdeny import DenyMiddlewareStack, Hooks
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import public, require, with_hooks
from tests.docs.pages import run
from tests.support.clients import fetch, knock
from tests.support.policies import Check
from tests.support.sockets import consumer

page = run("hooks.md")
pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.docs.test_hooks_page")]
FAILURES = {"full": page.RoomIsFull("attic"), "missing": KeyError("attic")}


def connect(self):
    """Accept with the room in a header, or fail."""
    name = self.scope["url_route"]["kwargs"]["room"]
    if error := FAILURES.get(name):
        raise error
    return self.accept(headers=[(b"x-room", name.encode())])


def room(request, room):
    if error := FAILURES.get(room):
        request.read(2)
        raise error
    return HttpResponse("a room", headers={"X-Room": room})


urlpatterns = [path("rooms/<slug:room>/", room)]
router = URLRouter([path("rooms/<slug:room>/", public(consumer(connect)).as_asgi())])


async def socket(name, url="/rooms/foo-bar/", **scope):
    """What a socket answers that has these hooks of the page."""
    return await knock(DenyMiddlewareStack(router, hooks=getattr(page, name)), url, **scope)


@pytest.fixture
def view(settings):
    """As `socket`, for a view behind the middleware."""

    def answer(name, url="/rooms/foo-bar/", **data):
        settings.MIDDLEWARE = [MIRROR]
        settings.CHANNELS_WSDENY = {"HOOKS": [getattr(page, name)]}
        return Client().post(url, **data) if data else Client().get(url)

    return answer


async def test_the_first_hooks_name_the_language_on_every_answer(view):
    answer = await socket("hooks", headers=[(b"accept-language", b"de-AT")])
    assert (answer.status, answer.header("content-language")) == (101, "de")
    answer = await socket("hooks", "/nowhere/")
    assert (answer.status, answer.header("content-language")) == (404, "en")
    assert page.CHANNELS_WSDENY == {"HOOKS": ["chat.hooks.hooks"]}


async def test_a_consumer_has_hooks_of_its_own_and_the_stacks_and_finds_their_namespace():
    answer = await knock(page.application, "/ws/rooms/lobby/")
    assert (answer.status, answer.header("content-language")) == (101, "en")
    assert (await fetch(page.application, "/nowhere/")).header("content-language") == "en"
    seen = []

    class Spy(page.RoomConsumer):
        async def accept(self, *args, **kwargs):
            seen.append(self.visits)
            await super().accept(*args, **kwargs)

    await knock(Spy.as_asgi(), "/")
    assert seen == [1]


def test_request_and_route_hooks_of_two_layers_run_in_the_order_of_the_page(settings):
    ran, layers = [], {"site": Hooks(), "own": Hooks()}
    for name, hooks in layers.items():
        for kind in ("request", "route"):
            hooks.register(lambda request, word=f"{name} {kind}": ran.append(word), kind)
    own, settings.CHANNELS_WSDENY = with_hooks(layers["own"]), {"HOOKS": [layers["site"]]}
    settings.MIDDLEWARE, settings.ROOT_URLCONF = [MIRROR], (path("", own(lambda request: HttpResponse())),)
    app = own(public(consumer(lambda self: self.accept())))
    assert async_to_sync(knock)(DenyMiddlewareStack(URLRouter([path("", app.as_asgi())])), "/").status == 101
    assert ran == ["site request", "own request", "site route", "own route"]
    ran.clear()
    assert Client().get("/").status_code == 200
    assert ran == ["site request", "site route", "own request", "own route"]


@pytest.mark.parametrize(
    ("place", "asked"),
    [
        (lambda guard, app: BaseMiddleware(guard(app)), "foo_bar"),
        (lambda guard, app: guard(app), "foo_bar"),
        (lambda guard, app: guard(BaseMiddleware(app)), "foo-bar"),
    ],
    ids=["inside a wrapper", "without one", "around a wrapper"],
)
async def test_a_guard_inside_a_wrapper_is_asked_about_what_route_hooks_have_changed(place, asked):
    seen = []
    guard = require(Check(lambda request: seen.append(request.resolver_match.kwargs["room"]) is None))
    app = place(guard, consumer(connect).as_asgi())
    stack = DenyMiddlewareStack(URLRouter([path("rooms/<slug:room>/", app)]), hooks=page.routed)
    answer = await knock(stack, "/rooms/foo-bar/")
    assert (answer.status, answer.header("x-room"), seen) == (101, "foo_bar", [asked])


async def test_a_site_in_maintenance_denies_sockets():
    await cache.aset("maintenance", True)
    try:
        answer = await socket("early")
    finally:
        await cache.adelete("maintenance")
    assert (answer.status, answer.header("retry-after")) == (503, "600")
    assert answer.problem["detail"] == "We are back at six."
    assert (await socket("early")).status == 101


def test_the_health_of_a_site_is_answered_over_http_alone(view):
    assert view("early", "/health").json() == {"ok": True}
    assert async_to_sync(socket)("early", "/health").status == 404


async def test_a_full_server_denies_what_a_consumer_accepted():
    assert (await socket("capacity")).status == 101
    page.open_sockets.update(range(1000))
    try:
        answer = await socket("capacity")
    finally:
        page.open_sockets.clear()
    assert (answer.status, answer.header("retry-after")) == (503, "5")


async def test_a_socket_gets_what_hooks_do_for_it():
    assert (await socket("ordered")).header("x-order") == "first, second"  # by priority
    assert (await socket("routed")).header("x-room") == "foo_bar"
    answer = await socket("explained", "/rooms/full/")
    assert (answer.status, answer.body) == (409, b'{"full": "attic"}')
    assert (await socket("timed")).header("server-timing").startswith("app;dur=")
    assert (await socket("quick")).header("x-banner") == "hello"


async def test_a_hook_gives_up_and_the_consumer_is_cancelled(monkeypatch):
    ended = []

    async def connect(self):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    monkeypatch.setattr(page, "SECONDS", 0.3)
    answer = await knock(DenyMiddlewareStack(public(consumer(connect).as_asgi()), hooks=page.patient), "/")
    assert (answer.status, answer.problem["detail"]) == (503, "This takes too long. Please try again.")
    assert ended == [True]


def test_a_registration_by_a_call_is_the_same():
    hooks = Hooks()
    hooks.register(page.name_language, "response")
    hooks.middleware("request")(page.remember_language)
    assert [hook.label for hook in hooks] == [hook.label for hook in reversed(list(page.hooks))]


def test_a_view_gets_what_hooks_do_for_it(view):
    assert view("routed")["X-Room"] == "foo_bar"
    answer = view("explained", "/rooms/full/")
    assert (answer.status_code, answer.json()) == (409, {"full": "attic"})
    answer = view("explained", "/rooms/missing/", data=b"twelve bytes", content_type="text/plain")
    assert (answer.status_code, answer.json()["detail"]) == (404, "There is no attic.")
    assert view("timed")["Server-Timing"].startswith("app;dur=")
