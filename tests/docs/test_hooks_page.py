"""Every snippet of docs/hooks.md does what the page says."""

from __future__ import annotations

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client
from django.urls import path

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import public
from tests.clients import fetch, knock
from tests.docs.pages import run

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.docs.test_hooks_page")]


@public
class Room(AsyncWebsocketConsumer):
    """Tells its room, or fails as it is told to."""

    async def connect(self):
        kwargs = self.scope["url_route"]["kwargs"]
        if error := FAILURES.get(kwargs.get("room")):
            raise error
        await self.accept(headers=[(b"x-room", kwargs["room"].encode())])


def room(request, room):
    if error := FAILURES.get(room):
        request.read(2)
        raise error
    response = HttpResponse("a room")
    response["X-Room"] = room
    return response


FAILURES = {}
urlpatterns = [path("rooms/<slug:room>/", room)]


@pytest.fixture(scope="module")
def page():
    return run("hooks.md")


@pytest.fixture
def socket(page):
    """A function from the name of a registry of the page to what a socket with it answers."""

    async def answer(name, url="/rooms/foo-bar/", **scope):
        router = URLRouter([path("rooms/<slug:room>/", Room.as_asgi())])
        return await knock(DenyMiddlewareStack(router, hooks=getattr(page, name)), url, **scope)

    return answer


@pytest.fixture
def view(page, settings):
    """As `socket`, for a view behind the middleware."""

    def answer(name, url="/rooms/foo-bar/", **data):
        settings.MIDDLEWARE = [MIRROR]
        settings.CHANNELS_WSDENY = {"HOOKS": [getattr(page, name)]}
        client = Client()
        return client.post(url, **data) if data else client.get(url)

    return answer


@pytest.fixture
def failing(page):
    FAILURES.update(full=page.RoomIsFull("attic"), missing=KeyError("attic"))
    yield
    FAILURES.clear()


async def test_the_first_hooks_tell_the_language(socket):
    answer = await socket("hooks", headers=[(b"accept-language", b"de-AT")])
    assert (answer.status, answer.header("content-language")) == (101, "de")


async def test_a_denial_passes_them_as_well(socket):
    answer = await socket("hooks", "/nowhere/")
    assert (answer.status, answer.header("content-language")) == (404, "en")


def test_a_view_passes_them_as_well(view):
    assert view("hooks")["Content-Language"] == "en"


def test_the_site_gives_hooks_by_dotted_paths(page):
    assert page.CHANNELS_WSDENY == {"HOOKS": ["chat.hooks.hooks"]}


async def test_a_consumer_has_hooks_of_its_own_and_the_stacks(page):
    answer = await knock(page.application, "/ws/rooms/lobby/")
    assert (answer.status, answer.header("content-language")) == (101, "en")


async def test_the_consumer_finds_the_namespace_of_the_hooks(page):
    seen = []

    class Spy(page.RoomConsumer):
        async def accept(self, *args, **kwargs):
            seen.append(self.visits)
            await super().accept(*args, **kwargs)

    await knock(Spy.as_asgi(), "/")
    assert seen == [1]


async def test_hooks_run_by_priority(socket):
    assert (await socket("ordered")).header("x-order") == "first, second"


@pytest.fixture
def maintenance():
    cache.set("maintenance", True)
    yield
    cache.delete("maintenance")


@pytest.mark.usefixtures("maintenance")
async def test_a_site_in_maintenance_denies_sockets(socket):
    answer = await socket("gate")
    assert (answer.status, answer.header("retry-after")) == (503, "600")
    assert answer.problem["detail"] == "We are back at six."


@pytest.mark.usefixtures("maintenance")
def test_a_site_in_maintenance_denies_views(view):
    assert view("gate").status_code == 503


async def test_a_site_that_is_not_in_maintenance_lets_in(socket):
    assert (await socket("gate")).status == 101


def test_the_health_of_a_site_is_told_over_http(view):
    assert view("gate", "/health").json() == {"ok": True}


async def test_the_health_of_a_site_is_no_socket(socket):
    assert (await socket("gate", "/health")).status == 404


async def test_a_socket_gets_the_changed_kwargs(socket):
    assert (await socket("routed")).header("x-room") == "foo_bar"


def test_a_view_gets_the_changed_kwargs(view):
    assert view("routed")["X-Room"] == "foo_bar"


async def test_a_full_server_denies_what_a_consumer_accepted(socket, page):
    page.open_sockets.update(range(1000))
    try:
        answer = await socket("capacity")
    finally:
        page.open_sockets.clear()
    assert (answer.status, answer.header("retry-after")) == (503, "5")


async def test_a_server_that_is_not_full_accepts(socket):
    assert (await socket("capacity")).status == 101


@pytest.mark.usefixtures("failing")
async def test_an_exception_of_a_consumer_is_explained(socket):
    answer = await socket("explained", "/rooms/full/")
    assert (answer.status, answer.body) == (409, b'{"full": "attic"}')


@pytest.mark.usefixtures("failing")
def test_an_exception_of_a_view_is_explained(view):
    answer = view("explained", "/rooms/full/")
    assert (answer.status_code, answer.json()) == (409, {"full": "attic"})


@pytest.mark.usefixtures("failing")
def test_a_subclass_is_explained_with_the_body_that_the_view_had_begun_to_read(view):
    answer = view("explained", "/rooms/missing/", data=b"twelve bytes", content_type="text/plain")
    assert (answer.status_code, answer.json()["detail"]) == (404, "No such thing, said a body of 12 bytes.")


async def test_the_time_is_told_of_a_socket(socket):
    assert (await socket("timed")).header("server-timing").startswith("app;dur=")


def test_the_time_is_told_of_a_view(view):
    assert view("timed")["Server-Timing"].startswith("app;dur=")


async def test_a_quick_hook_runs_without_a_thread(socket):
    assert (await socket("quick")).header("x-banner") == "hello"


async def test_http_consumers_pass_the_hooks_of_their_stack(page):
    assert (await fetch(page.application, "/nowhere/")).header("content-language") == "en"
