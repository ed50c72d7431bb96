"""Routes around views: what they call, what they leave as it was, and how they compose."""

from __future__ import annotations

import asyncio
import copy
import functools
import gzip
import subprocess
import sys
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import AnonymousUser
from django.db import connection, transaction
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory
from django.urls import path, resolve, reverse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

import channels_wsdeny
from channels_wsdeny import Deny
from channels_wsdeny.decorators import login_required, permission_required, require
from channels_wsdeny.policies import AllowAny, DenyAll
from channels_wsdeny.routes import (
    GzipRequest,
    GzipRoute,
    LoggedRoute,
    MsgpackRoute,
    Route,
    RouteRequest,
    TimedRoute,
)
from tests.parts import Check

MIRROR = "channels_wsdeny.middleware.MirrorMiddleware"


class SyncOfAsync:
    """Django's `AsyncClient` with the methods of `Client`."""

    def __init__(self, **kwargs):
        client = AsyncClient(**kwargs)
        self.get, self.post = async_to_sync(client.get), async_to_sync(client.post)


@pytest.fixture(params=[Client, SyncOfAsync], ids=["wsgi", "asgi"])
def client(request):
    return request.param(raise_request_exception=False)


@pytest.fixture(params=[[], [MIRROR]], ids=["alone", "mirror"])
def middleware(request):
    return request.param


@pytest.fixture
def get(settings, client, middleware):
    """A function that gets a view: the one URL of a site."""
    settings.MIDDLEWARE = middleware

    def get(view, route="", url="/", **headers):
        settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path(route, view)]})
        return client.get(url, headers=headers)

    return get


def hello(request, name="world"):
    """Greets."""
    return HttpResponse(f"hello {name}")


async def hello_async(request, name="world"):
    return HttpResponse(f"hello {name}")


class Hello(View):
    greeting = "hello"

    def get(self, request, name="world"):
        return HttpResponse(f"{self.greeting} {name}")


class HelloAsync(View):
    async def get(self, request, name="world"):
        return HttpResponse(f"hello {name}")


def denied(request):
    raise Deny(418, "Short and stout.", headers={"X-Pot": "tea"})


async def denied_async(request):
    denied(request)


def tagging(tag):
    """A route that says it was here, on the way out."""

    class Tagging(Route):
        def get_route_handler(self):
            handler = super().get_route_handler()
            if iscoroutinefunction(handler):

                async def tag_async(request, *args, **kwargs):
                    return tagged(await handler(request, *args, **kwargs))

                return tag_async

            def tag_sync(request, *args, **kwargs):
                return tagged(handler(request, *args, **kwargs))

            return tag_sync

    def tagged(response):
        response["X-Tags"] = f"{response.headers.get('X-Tags', '')}{tag}"
        return response

    return Tagging


VIEWS = {
    "function": hello,
    "coroutine function": hello_async,
    "class": Hello.as_view(),
    "asynchronous class": HelloAsync.as_view(),
    "partial": functools.partial(hello),
}
ROUTES = [Route, GzipRoute, MsgpackRoute, TimedRoute, LoggedRoute]


# Views of every kind.


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("route", ROUTES)
def test_a_route_answers_as_its_view(get, route, view):
    assert get(route(view)).content == b"hello world"


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_the_arguments_of_the_url_reach_the_view(get, view):
    assert get(Route(view), "<name>/", "/alice/").content == b"hello alice"


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("route", ROUTES)
def test_a_route_of_a_coroutine_function_is_one(route, view):
    assert iscoroutinefunction(route(view)) == iscoroutinefunction(view)


def test_an_asynchronous_view_runs_on_the_loop_of_its_caller():
    @TimedRoute
    async def view(request):
        return HttpResponse(str(id(asyncio.get_running_loop())))

    async def ask():
        response = await view(AsyncRequestFactory().get("/"))
        assert response.content == str(id(asyncio.get_running_loop())).encode()

    asyncio.run(ask())


@pytest.mark.parametrize("view", [hello, hello_async])
def test_a_handler_may_be_asynchronous_around_any_view(get, view):
    class Awaiting(Route):
        def get_route_handler(self):
            handler = super().get_route_handler()
            call = handler if iscoroutinefunction(handler) else sync_to_async(handler)

            async def handle(request):
                response = await call(request)
                response["X-Handled"] = "yes"
                return response

            return handle

    response = get(Awaiting(view))
    assert (response.content, response["X-Handled"]) == (b"hello world", "yes")


@pytest.mark.parametrize("view", [hello, hello_async])
def test_a_handler_may_be_overridden(get, view):
    assert get(tagging("a")(view))["X-Tags"] == "a"


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_handler_may_answer_instead_of_the_view(get, view):
    class Closed(Route):
        def get_route_handler(self):
            return lambda request: HttpResponse("closed")

    assert get(Closed(view)).content == b"closed"


def test_a_handler_is_made_once():
    made = []

    class Counting(Route):
        def get_route_handler(self):
            made.append(1)
            return super().get_route_handler()

    view = Counting(hello)
    view(RequestFactory().get("/"))
    view(RequestFactory().get("/"))
    assert made == [1]


def test_a_route_may_have_options():
    class Tagged(Route):
        def __init__(self, view, *, tag):
            self.tag = tag
            super().__init__(view)

        def get_route_handler(self):
            handler = super().get_route_handler()

            def handle(request):
                response = handler(request)
                response["X-Tags"] = response.headers.get("X-Tags", "") + self.tag
                return response

            return handle

    view = Tagged(Tagged(hello, tag="inner "), tag="outer")
    assert view(RequestFactory().get("/"))["X-Tags"] == "inner outer"


@pytest.mark.parametrize("found", [None, "tests.views.hello", path("", hello), [path("", hello)]])
def test_what_is_no_view_is_an_error(found):
    with pytest.raises(TypeError, match=r"TimedRoute takes a view, found .* use TimedRoute.include\(\)"):
        TimedRoute(found)


def test_a_class_that_is_no_view_is_an_error():
    with pytest.raises(TypeError, match="classes of views, found <class 'dict'>"):
        TimedRoute(dict)


def test_a_method_is_an_error_that_says_what_to_do():
    with pytest.raises((TypeError, RuntimeError)) as caught:

        class Greeter(View):
            @TimedRoute
            def get(self, request): ...

    told = caught.value if isinstance(caught.value, TypeError) else caught.value.__cause__
    assert "found the method Greeter.get. Decorate the class, or use" in str(told)


def test_a_method_may_be_decorated_by_djangos_method_decorator(get):
    @method_decorator(TimedRoute, name="get")
    class Greeter(View):
        def get(self, request):
            return HttpResponse("hello")

    assert float(get(Greeter.as_view())["X-Response-Time"]) >= 0


def test_what_is_no_request_is_an_error():
    with pytest.raises(TypeError, match="takes a request first"):
        Route(hello)("no request")


# Class-based views.


def test_a_decorated_class_is_routed(get):
    @tagging("a")
    class Greeter(Hello):
        pass

    assert get(Greeter.as_view())["X-Tags"] == "a"


def test_a_decorated_class_stays_the_class():
    class Greeter(Hello):
        pass

    assert TimedRoute(Greeter) is Greeter


def test_the_class_that_a_decorated_one_derives_from_is_left_alone(get):
    @tagging("a")
    class Greeter(Hello):
        pass

    assert "X-Tags" not in get(Hello.as_view())


def test_subclasses_of_a_decorated_class_are_routed(get):
    @tagging("a")
    class Greeter(Hello):
        pass

    class Child(Greeter):
        @classmethod
        def as_view(cls, **initkwargs):
            return super().as_view(**initkwargs)

    assert get(Child.as_view())["X-Tags"] == "a"


def test_subclasses_may_be_decorated_too(get):
    @tagging("a")
    class Greeter(Hello):
        pass

    @tagging("b")
    class Child(Greeter):
        pass

    assert get(Child.as_view())["X-Tags"] == "ab"


def test_routes_on_a_class_compose(get):
    @tagging("b")
    @tagging("a")
    class Greeter(Hello):
        pass

    assert get(Greeter.as_view(greeting="good morning"))["X-Tags"] == "ab"


def test_a_class_with_an_as_view_of_its_own_is_routed(get):
    @tagging("a")
    class Greeter(View):
        @classmethod
        def as_view(cls, **initkwargs):
            return functools.partial(hello, **initkwargs)

    response = get(Greeter.as_view(name="alice"))
    assert (response.content, response["X-Tags"]) == (b"hello alice", "a")


def test_an_asynchronous_class_is_routed(get):
    @tagging("a")
    class Greeter(HelloAsync):
        pass

    assert get(Greeter.as_view())["X-Tags"] == "a"


def test_as_view_of_an_instance_is_an_error_as_before():
    @TimedRoute
    class Greeter(View):
        pass

    with pytest.raises(AttributeError):
        Greeter().as_view()


@pytest.mark.parametrize(
    "decorate",
    [lambda cls: require(DenyAll())(TimedRoute(cls)), lambda cls: TimedRoute(require(DenyAll())(cls))],
)
def test_a_decorated_class_is_guarded_inside_and_outside(get, decorate):
    class Greeter(Hello):
        pass

    class Child(decorate(Greeter)):
        pass

    assert get(Greeter.as_view()).status_code == 403
    assert get(Child.as_view()).status_code == 403


# What survives.


def test_a_route_is_called_as_its_view():
    route = TimedRoute(hello)
    assert (route.__name__, route.__doc__, route.__module__) == ("hello", "Greets.", __name__)
    assert route.__wrapped__ is hello is route.view
    assert repr(route).startswith("<TimedRoute of <function hello")


def test_the_class_of_a_view_survives():
    view = TimedRoute(Hello.as_view(greeting="hi"))
    assert (view.view_class, view.view_initkwargs) == (Hello, {"greeting": "hi"})


def test_a_route_may_be_copied():
    request = RequestFactory().get("/")
    for copied in (copy.copy(TimedRoute(hello)), copy.deepcopy(TimedRoute(hello))):
        assert (type(copied), copied.__name__, copied(request).content) == (
            TimedRoute,
            "hello",
            b"hello world",
        )


def test_attributes_of_a_route_do_not_travel_to_other_functions():
    @functools.wraps(Route(hello))
    def other(request): ...

    assert not {"view", "_answer", "handler"} & vars(other).keys()


@pytest.mark.parametrize(
    "decorate", [lambda view: csrf_exempt(TimedRoute(view)), lambda view: TimedRoute(csrf_exempt(view))]
)
@pytest.mark.parametrize("view", [hello, hello_async])
def test_an_exempt_view_stays_exempt_from_csrf(settings, decorate, view):
    settings.MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", decorate(view))]})
    assert Client(enforce_csrf_checks=True).post("/").content == b"hello world"


def test_other_views_stay_protected_from_csrf(settings):
    settings.MIDDLEWARE = ["django.middleware.csrf.CsrfViewMiddleware"]
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", TimedRoute(hello))]})
    assert Client(enforce_csrf_checks=True).post("/").status_code == 403


@pytest.mark.parametrize(
    "decorate",
    [lambda view: login_not_required(TimedRoute(view)), lambda view: TimedRoute(login_not_required(view))],
)
def test_a_view_that_needs_no_log_in_still_needs_none(decorate):
    def view(request): ...

    assert decorate(view).login_required is False


@pytest.mark.parametrize(
    "decorate",
    [
        lambda view: transaction.non_atomic_requests(TimedRoute(view)),
        lambda view: TimedRoute(transaction.non_atomic_requests(view)),
    ],
)
def test_a_view_that_is_not_atomic_stays_so(decorate):
    def view(request): ...

    assert decorate(view)._non_atomic_requests == {"default"}


@pytest.mark.parametrize(
    ("view", "status"),
    [
        (TimedRoute(hello), 403),
        (TimedRoute(GzipRoute(require(AllowAny())(hello))), 200),
        (TimedRoute(require(AllowAny())(hello_async)), 200),
        (require(AllowAny())(TimedRoute(hello)), 200),
        (TimedRoute(login_not_required(Hello.as_view())), 200),
    ],
)
def test_the_default_policy_is_for_routes_whose_view_has_none(settings, client, view, status):
    settings.MIDDLEWARE = [MIRROR]
    settings.CHANNELS_WSDENY = {"DEFAULT_POLICY": DenyAll(), "MIRROR_DEFAULT_POLICY": True}
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", view)]})
    assert client.get("/").status_code == status


def test_the_resolver_names_the_view(settings):
    settings.ROOT_URLCONF = type(
        "urls", (), {"urlpatterns": [path("f/", TimedRoute(hello)), path("c/", TimedRoute(Hello.as_view()))]}
    )
    assert resolve("/f/")._func_path == f"{__name__}.hello"
    assert resolve("/c/")._func_path == f"{__name__}.Hello"


def test_a_route_is_reversed_by_its_name_and_by_itself(settings):
    route = TimedRoute(hello)
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("f/", route, name="greet")]})
    assert reverse("greet") == reverse(route) == "/f/"


# Composition.


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_routes_run_from_the_inside_out(get, view):
    assert get(tagging("c")(tagging("b")(tagging("a")(view))))["X-Tags"] == "abc"


@pytest.mark.parametrize("view", [hello, hello_async])
def test_routes_go_with_djangos_decorators(get, view):
    response = get(never_cache(TimedRoute(never_cache(view))))
    assert "no-store" in response["Cache-Control"]
    assert "X-Response-Time" in response
    assert get(TimedRoute(require_POST(view))).status_code == 405


def test_a_class_may_derive_from_two_routes(get):
    class Both(TimedRoute, GzipRoute):
        pass

    @Both
    def view(request):
        return HttpResponse(type(request).__name__)

    response = get(view)
    assert (response.content, "X-Response-Time" in response) == (b"GzipRequest", True)


@pytest.mark.parametrize("view", [hello, hello_async])
@pytest.mark.parametrize(
    "decorate",
    [lambda guard, view: guard(TimedRoute(view)), lambda guard, view: TimedRoute(guard(view))],
    ids=["outside", "inside"],
)
def test_policies_bind_inside_and_outside(get, decorate, view):
    assert get(decorate(require(DenyAll()), view)).status_code == 403
    assert get(decorate(require(AllowAny()), view)).content == b"hello world"


@pytest.mark.parametrize("view", [hello, hello_async])
def test_a_policy_is_asked_once(get, view):
    asked = []
    policy = Check(lambda request: asked.append(request) or True)
    get(require(policy)(TimedRoute(require(policy)(view))))
    assert len(asked) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("view", [hello, hello_async])
def test_permissions_and_log_ins_are_demanded_inside_and_outside(view):
    user = get_user_model().objects.create_user("alice")
    for guard, statuses in ((login_required, (401, 200)), (permission_required("auth.add_user"), (401, 403))):
        for guarded in (guard(GzipRoute(view)), GzipRoute(guard(view))):
            for visitor, status in zip((AnonymousUser(), user), statuses, strict=True):
                request = RequestFactory().get("/")
                request.user = visitor
                called = async_to_sync(guarded) if iscoroutinefunction(guarded) else guarded
                assert called(request).status_code == status


def test_the_object_of_a_permission_reaches_the_view(get):
    class Found(Check):
        pass

    def view(request):
        return HttpResponse(str(request.wsdeny.request is request))

    assert get(TimedRoute(require(Found(lambda request: True))(view))).content == b"True"


# Denials.


@pytest.mark.parametrize("view", [denied, denied_async])
@pytest.mark.parametrize("route", ROUTES)
def test_a_denial_in_a_route_is_its_answer(get, route, view):
    response = get(route(view))
    assert (response.status_code, response["X-Pot"]) == (418, "tea")
    assert response.json()["detail"] == "Short and stout."


@pytest.mark.parametrize("view", [denied, denied_async])
def test_a_handler_may_catch_a_denial(get, view):
    class Catching(Route):
        def get_route_handler(self):
            handler = super().get_route_handler()

            def handle(request):
                try:
                    return handler(request)
                except Deny as deny:
                    return HttpResponse(f"caught {deny.status}")

            async def handle_async(request):
                try:
                    return await handler(request)
                except Deny as deny:
                    return HttpResponse(f"caught {deny.status}")

            return handle_async if iscoroutinefunction(handler) else handle

    assert get(Catching(view)).content == b"caught 418"


@pytest.mark.parametrize(("error", "status"), [(Http404, 404), (ValueError, 500)])
def test_other_exceptions_are_djangos(get, error, status):
    @TimedRoute
    def view(request):
        raise error

    assert get(view).status_code == status


@pytest.mark.django_db(transaction=True)
def test_a_denial_rolls_back_as_any_exception(settings):
    @GzipRoute
    def view(request):
        get_user_model().objects.create_user("alice")
        raise Deny(409)

    settings.MIDDLEWARE = []
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", view)]})
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert Client().get("/").status_code == 409
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert not get_user_model().objects.exists()


# Times.


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_the_header_tells_the_seconds_that_the_view_took(get, view):
    assert 0 <= float(get(TimedRoute(view))["X-Response-Time"]) < 5


def test_the_time_is_that_of_the_view(get):
    @TimedRoute
    async def view(request):
        await asyncio.sleep(0.05)
        return HttpResponse()

    assert 0.04 < float(get(view)["X-Response-Time"]) < 5


@pytest.mark.parametrize(
    "view", [denied, denied_async, require(DenyAll())(hello), GzipRoute(denied), GzipRoute(denied_async)]
)
def test_a_denial_is_timed(get, view):
    response = get(TimedRoute(view))
    assert response.status_code in {403, 418}
    assert float(response["X-Response-Time"]) >= 0


def test_a_bomb_in_a_timed_route_is_timed(settings):
    class TimedGzip(TimedRoute):
        request_class = GzipRequest

    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    settings.ROOT_URLCONF = type(
        "urls", (), {"urlpatterns": [path("", TimedGzip(lambda request: HttpResponse(request.body)))]}
    )
    headers = {"Content-Encoding": "gzip"}
    response = Client().post("/", gzip.compress(b"\0" * 9999), "application/json", headers=headers)
    assert (response.status_code, "X-Response-Time" in response) == (413, True)


def streamed(request):
    return StreamingHttpResponse(iter([b"hello"]))


def rendered(request):
    return TemplateResponse(request, engines["django"].from_string("hello {{ name }}"), {"name": "alice"})


@pytest.mark.parametrize("view", [streamed, rendered])
def test_responses_of_every_kind_are_timed(get, view):
    response = get(TimedRoute(view))
    assert (response.status_code, "X-Response-Time" in response) == (200, True)


def test_a_view_that_returns_no_response_is_told_so_by_django(settings):
    settings.MIDDLEWARE = []
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", TimedRoute(lambda request: None))]})
    with pytest.raises(ValueError, match="didn't return an HttpResponse object"):
        Client().get("/")


def test_a_template_is_rendered_outside(get):
    assert get(GzipRoute(rendered)).content == b"hello alice"


# The module.


def test_importing_routes_needs_no_settings():
    ran = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            "import channels_wsdeny.routes as r\n"
            "r.TimedRoute(r.GzipRoute(lambda request: None))\n"
            "from django.conf import settings\n"
            "print(settings.configured)",
        ],
        cwd=Path(channels_wsdeny.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("False\n", "")


def test_the_default_class_of_requests_parses_json():
    assert Route.request_class is RouteRequest
