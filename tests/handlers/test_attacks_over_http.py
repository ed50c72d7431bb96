"""Views, middleware and wrappers by which a request was let in by what was decided about another one."""

import asyncio
import copy

import pytest
from channels.middleware import BaseMiddleware
from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, QueryDict
from django.urls import path, re_path
from django.utils.functional import SimpleLazyObject

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.decorators import login_required, permission_required, public, require, with_hooks
from channels_wsdeny.handlers import http
from channels_wsdeny.policies import AllowAny, HasPermission, IsStaff
from tests.support.clients import fetch
from tests.support.mirror import HOST, START, Server, body, made
from tests.support.policies import AsyncCheck, Check, raising
from tests.support.site import OUTSIDE, Site, hello
from tests.support.transports import DJANGO, Middleware, Repeat, Wrapper

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["wsgi", "asgi", "stack"])
def site(request, settings):
    return Site(settings, DJANGO[request.param]())


# A view that calls others with its own request.


@require(Check(lambda request: request.method == "GET" or request.user.is_staff))
def who(request):
    return HttpResponse(f"{request.user.username or 'nobody'} {request.method}")


def changing(name, value):
    def view(request):
        copied = copy.copy(request)
        setattr(copied, name, value)
        return who(copied)

    return login_required(view)


@pytest.mark.parametrize("kind", [None, "request"])
def test_a_copy_of_a_request_is_what_is_asked_about_and_what_the_view_gets(kind, site, users):
    hooks = {} if kind is None else {"hooks": made(kind, lambda request: None)}
    views = {"anonymous/": changing("user", AnonymousUser()), "delete/": changing("method", "DELETE")}
    site.serve(*(path(url, view) for url, view in views.items()), **hooks)
    site.log_in(users["alice"])
    assert (site.ask("/anonymous/").body, site.ask("/delete/").status) == (b"nobody GET", 403)


may_room = HasPermission("site.room", obj=lambda request: "room")
may_doc = HasPermission("site.other", obj=lambda request: "doc")  # The backend allows it to nobody.
can_room = require(may_room)


def obj_of(request):
    return HttpResponse(request.wsdeny.obj)


room, doc = can_room(obj_of), require(may_doc)(obj_of)


@can_room
def room_after_doc(request):
    assert doc(request).status_code == 403
    return HttpResponse(request.wsdeny.obj)


raising_hall = permission_required("site.hall", obj=lambda request: "hall")(raising(ZeroDivisionError))


@can_room
def room_after_hall(request):
    with pytest.raises(ZeroDivisionError):
        raising_hall(request)
    return HttpResponse(request.wsdeny.obj)


def rooms(request):
    answers = [view(request) for view in (room, doc, room)]
    return HttpResponse(b" ".join(answer.content for answer in answers if answer.status_code == 200))


OBJECTS = {
    "a denied view between": (rooms, b"room room"),
    "a denied view inside": (room_after_doc, b"room"),
    "a view inside that raises": (room_after_hall, b"room"),
    "a negated permission": (require(may_room & ~may_doc)(obj_of), b"room"),
}


@pytest.mark.parametrize(("view", "expected"), OBJECTS.values(), ids=OBJECTS)
def test_the_object_of_a_view_is_that_of_its_own_policy(view, expected, site, users, settings):
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", "tests.support.policies.ByName"]
    site.serve(path("", view)).log_in(users["alice"])
    assert site.ask().body == expected


in_first = require(Check(lambda request: request.GET["room"] == "1" and getattr(request, "room", "1") == "1"))
may_first = require(HasPermission("site.1", obj=lambda request: request.GET["room"]))


def both_rooms(view, change):
    """A view that calls another one about two rooms."""

    def call(request):
        answers = []
        for number in "12":
            change(request, number)
            answers.append(view(request))
        return HttpResponse(" ".join(str(answer.status_code) for answer in answers))

    return call


def by_query(request, number):
    request.GET = QueryDict(f"room={number}")


def by_attribute(request, number):
    request.room = number


CHANGES = {
    "a policy": both_rooms(in_first(hello), by_query),
    "an object": both_rooms(may_first(hello), by_query),
    "a policy of the view around": in_first(both_rooms(in_first(hello), by_query)),
    "an object of the view around": may_first(both_rooms(may_first(hello), by_query)),
    "an attribute": both_rooms(in_first(hello), by_attribute),
}


@pytest.mark.parametrize("view", CHANGES.values(), ids=CHANGES)
def test_a_guarded_view_is_asked_about_what_its_request_is_each_time_that_it_is_called(view, site, users, settings):
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", "tests.support.policies.ByName"]
    site.serve(path("", view)).log_in(users["alice"])
    assert site.ask("/?room=1").body == b"200 403"


@pytest.mark.parametrize("way", ["wsgi", "asgi"])
def test_a_policy_that_asks_auser_is_asked_again_about_another_lazy_user(way, settings, users):
    async def is_staff(request):
        return (await request.auser()).is_staff

    staff_only = require(AsyncCheck(is_staff))
    page = staff_only(hello)

    @staff_only
    async def as_alice(request):
        alice = await get_user_model().objects.aget(username="alice")

        async def auser():
            return alice

        request.user, request.auser = SimpleLazyObject(lambda: alice), auser
        return await asyncio.to_thread(page, request)

    site = Site(settings, DJANGO[way]()).serve(path("", as_alice)).log_in(users["staff"])
    assert site.ask().status == 403


# Middleware that asks Django more than once, or answers by itself.


class RetryOn503(Repeat):
    """Asks for the response again if it is a 503."""

    def is_wanted(self, response):
        return response.status_code == 503


@pytest.mark.parametrize("place", ["inside", "outside"])
@pytest.mark.parametrize("of", ["site", "view"])
def test_a_second_try_of_middleware_does_not_undo_what_a_route_hook_has_changed(place, of, site):
    seen, hooks = [], made("route", lambda request: request.resolver_match.kwargs.update(name="lobby"))

    def view(request, name):
        seen.append(name)
        return HttpResponse(name, status=503 if len(seen) == 1 else 200)

    retry = f"{__name__}.RetryOn503"
    where = {"inside": [retry]} if place == "inside" else {"outside": [*OUTSIDE, retry]}
    if of == "view":
        site.serve(path("<name>/", with_hooks(hooks)(view)), **where)
    else:
        policy = Check(lambda request: request.resolver_match.kwargs["name"] == "lobby")
        site.serve(path("<name>/", view), hooks=hooks, MIRROR_DEFAULT_POLICY=True, DEFAULT_POLICY=policy, **where)
    assert (site.ask("/vault/").status, seen) == (200, ["lobby", "lobby"])


class FallsBack(Middleware):
    """Serves a page where there is no route, as flatpages do."""

    def go(self, request, response):
        return HttpResponse("secret") if response.status_code == 404 else response


def test_what_inner_middleware_serves_where_there_is_no_route_is_locked(site):
    site.serve(path("x/", hello), inside=[f"{__name__}.FallsBack"], MIRROR_DEFAULT_POLICY=True)
    assert (site.ask("/x/").status, site.ask("/secret/").status) == (401, 401)


# Wrappers around Django and other applications.


def answering(content):
    async def app(scope, receive, send):
        await send(START)
        await send(body(content))

    return app


async def answer_of(app, scope, receive):
    sent = []

    async def keep(message):
        sent.append(message)

    await app(scope, receive, keep)
    return sent


class ComposedOfDjango(Wrapper):
    """Answers with a fragment and a secret."""

    async def __call__(self, scope, receive, send):
        await answer_of(self.app, {**scope, "path": "/fragment/"}, receive)
        await answering(b"secret")(scope, receive, send)


class ComposedOfApps(BaseMiddleware):
    async def __call__(self, scope, receive, send):
        await ComposedOfDjango(self.inner)(scope, receive, send)


class InPlaceOfErrors(Wrapper):
    """Answers what Django has no page for, or cannot make."""

    async def __call__(self, scope, receive, send):
        sent = await answer_of(self.app, scope, receive)
        for message in [START, body(b"secret")] if sent[0]["status"] in {404, 503} else sent:
            await send(message)


class Fork(Wrapper):
    """Serves an API by itself, and Django elsewhere."""

    async def __call__(self, scope, receive, send):
        await (self.app if scope["path"] != "/x/" else answering(b"secret"))(scope, receive, send)


IN_PLACE = {
    "a public fragment": (ComposedOfDjango, public(hello), {}, 401),
    "a denied fragment": (ComposedOfDjango, hello, {}, 401),
    "what Django does not know": (InPlaceOfErrors, hello, {}, 401),
    "what is beside Django": (Fork, public(hello), {}, 401),
    "a denial": (InPlaceOfErrors, hello, {"DEFAULT_POLICY": Check(raising(ConnectionError))}, 503),
}


@pytest.mark.parametrize(("wrapper", "view", "options", "status"), IN_PLACE.values(), ids=IN_PLACE)
async def test_what_a_wrapper_answers_in_the_place_of_django_is_locked(
    wrapper, view, options, status, settings, monkeypatch
):
    monkeypatch.setattr(http, "_GRACE", 0.05)
    url = "x/" if status == 503 else "fragment/"
    Site(settings, DJANGO["asgi"]()).serve(path(url, view), MIRROR_DEFAULT_POLICY=True, **options)
    application = DenyMiddlewareStack(ProtocolTypeRouter({"http": wrapper(get_asgi_application())}))
    answer = await fetch(application, "/x/", headers=HOST)
    assert (answer.status, b"secret" in answer.body) == (status, False)


async def test_what_middleware_answers_with_a_public_fragment_is_locked(settings):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}
    inner = URLRouter([path("fragment/", public(answering(b"fragment")))])
    answer = await fetch(DenyMiddlewareStack(ComposedOfApps(inner)), "/x/", headers=HOST)
    assert (answer.status, b"secret" in answer.body) == (401, False)


@pytest.mark.parametrize("default", [None, IsStaff()])
async def test_a_public_application_that_passes_on_another_path_opens_nothing_there(default, settings):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}

    @public
    async def redirect(scope, receive, send):
        scope = {name: value for name, value in scope.items() if name not in {"path_remaining", "url_route"}}
        await application({**scope, "path": "/reports/"}, receive, send)

    routes = URLRouter([path("reports/", answering(b"secret")), path("", redirect)])
    application = DenyMiddlewareStack(ProtocolTypeRouter({"http": routes}), default_policy=default)
    answer = await fetch(application, "/", headers=HOST)
    assert (answer.status, b"secret" in answer.body) == (401, False)


@pytest.mark.parametrize("place", ["stack", "endpoint"])
async def test_route_hooks_run_for_each_path_that_an_application_asks_an_inner_stack_for(place):
    def hook(request):
        return Deny(409) if request.path == "/secret/" else None

    async def drop(message):
        pass

    hooks, app = made("route", hook), answering(b"content")
    app = public(app if place == "stack" else with_hooks(hooks)(app))
    inner = DenyMiddlewareStack(URLRouter([re_path("", app)]), hooks=hooks if place == "stack" else None)

    @public
    async def looks(scope, receive, send):
        await inner({**scope, "path": "/open/"}, receive, drop)
        await inner(scope, receive, send)

    assert (await fetch(DenyMiddlewareStack(looks), "/secret/", headers=HOST)).status == 409


async def listens(scope, receive, send):
    listening = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    await answering(b"done")(scope, receive, send)
    listening.cancel()


@pytest.mark.parametrize("make", [lambda: public(listens), lambda: require(AllowAny())(get_asgi_application())])
async def test_an_application_that_has_begun_to_listen_leaves_no_task(make, settings):
    Site(settings, DJANGO["asgi"]()).serve(path("", hello), outside=[], inside=[])
    assert await Server(DenyMiddlewareStack(make()), headers=HOST).end() is None
