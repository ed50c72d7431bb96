"""Routes around views and includes: what they call, what they leave as it was, and how they compose."""

import asyncio
import copy
import functools
import json
import sys
from types import ModuleType

import pytest
from asgiref.sync import iscoroutinefunction
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.contrib.auth.decorators import login_not_required
from django.core.checks import run_checks
from django.db import transaction
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.test import Client
from django.urls import NoReverseMatch, URLPattern, include, path, re_path, resolve, reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from channels_wsdeny import Deny
from channels_wsdeny.decorators import login_required, public, require
from channels_wsdeny.policies import AllowAny, DenyAll
from channels_wsdeny.routes import GzipRequest, GzipRoute, LoggedRoute, MsgpackRoute, Route, TimedRoute
from tests.support.policies import Check
from tests.support.site import VIEWS as SITE_VIEWS
from tests.support.site import Hello, HelloAsync, hello, hello_async
from tests.support.views import MIRROR, WAYS, ask

ROUTES = [Route, GzipRoute, MsgpackRoute, TimedRoute, LoggedRoute]


def off_the_loop(request, name="world"):
    """Answers as `hello`, in a thread without an event loop."""
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    return hello(request, name)


def denied(request):
    raise Deny(418, "Short and stout.", headers={"X-Pot": "tea"})


async def denied_async(request):
    denied(request)


VIEWS = {**SITE_VIEWS, "off the loop": off_the_loop}
each_view = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
each_way = pytest.mark.parametrize("way", WAYS)


def get(view, **options):
    return ask(view, method="GET", **options)


def tagging(tag, base=Route, *, is_async=False):
    """A route that says that it was here, in a function of either kind, whatever the view is."""

    def tagged(response):
        response["X-Tags"] = response.headers.get("X-Tags", "") + tag
        return response

    class Handler:
        def __init__(self, handle):
            self.handle = handle

        async def __call__(self, request, *args, **kwargs):
            return await self.handle(request, *args, **kwargs)

    class Tagging(base):
        def get_route_handler(self):
            handler = super().get_route_handler()

            async def handle_async(request, *args, **kwargs):
                return tagged(await handler(request, *args, **kwargs))

            if is_async == "object":
                return Handler(handle_async)
            return handle_async if is_async else lambda *args, **kwargs: tagged(handler(*args, **kwargs))

    return Tagging


# Views of every kind, and handlers of either kind around them.


@each_view
@pytest.mark.parametrize("route", ROUTES)
def test_a_route_answers_as_its_view(route, view):
    assert get(route(view)).content == b"hello world"
    assert get(route(view), way="asgi", url="/alice/").content == b"hello alice"
    assert iscoroutinefunction(route(view)) == iscoroutinefunction(view)


@each_way
@each_view
@pytest.mark.parametrize("is_async", [False, True, "object"])
def test_a_handler_of_either_kind_goes_around_any_view(way, view, is_async):
    for base in (Route, TimedRoute, LoggedRoute):
        inner = tagging("b", base, is_async=not is_async)(tagging("a", base, is_async=is_async)(view))
        route = tagging("c", base, is_async=is_async)(inner)
        response = get(route, way=way, url="/alice/")
        assert (response.content, response["X-Tags"]) == (b"hello alice", "abc")
        assert iscoroutinefunction(route) == bool(is_async)


@each_view
def test_a_handler_may_have_options_and_answer_instead_of_the_view(view):
    class Closed(Route):
        def __init__(self, view, *, text):
            self.text = text
            super().__init__(view)

        def get_route_handler(self):
            return lambda request: HttpResponse(self.text)

    assert get(Closed(Closed(view, text="inner"), text="outer")).content == b"outer"


# What is no view.


@pytest.mark.parametrize("found", [None, "tests.views.hello", path("", hello), [path("", hello)], View.as_view])
def test_what_is_no_view_is_an_error(found):
    with pytest.raises(TypeError, match=r"TimedRoute takes a view of Django, found .* use TimedRoute.include\(\)"):
        TimedRoute(found)


async def asgi_app(scope, receive, send): ...


async def with_other_names(s, r, send): ...


CONSUMER = AsyncWebsocketConsumer.as_asgi()


@pytest.mark.parametrize(
    "app",
    [
        asgi_app,
        with_other_names,
        functools.partial(with_other_names),
        CONSUMER,
        login_required(CONSUMER),
        AsyncWebsocketConsumer.as_asgi,
        AsyncWebsocketConsumer(),
        URLRouter([]),
        AsyncWebsocketConsumer,
    ],
)
def test_an_asgi_application_is_an_error_at_import(app):
    for route in ROUTES:
        with pytest.raises(TypeError, match=r"around an ASGI application, use|classes of views, found"):
            route(app)


def test_a_method_is_an_error_that_says_what_to_do():
    with pytest.raises((TypeError, RuntimeError)) as caught:  # Python 3.11 raises one from the other

        class Greeter(View):
            @TimedRoute
            def get(self, request): ...

    error = caught.value if isinstance(caught.value, TypeError) else caught.value.__cause__
    assert "found the method Greeter.get. Decorate the class, or use" in str(error)
    greeter = method_decorator(TimedRoute, name="get")(type("Greeter", (Hello,), {}))
    assert "X-Response-Time" in get(greeter.as_view())


# Class-based views.


def test_a_decorated_class_and_its_subclasses_are_routed():
    class Greeter(Hello):
        pass

    assert tagging("a")(Greeter) is Greeter

    class Child(Greeter):
        @classmethod
        def as_view(cls, **initkwargs):
            return super().as_view(**initkwargs)

    @tagging("c")
    @tagging("b")
    class Grandchild(Child):
        pass

    @tagging("a")
    class OwnAsView(View):
        @classmethod
        def as_view(cls, **initkwargs):
            return functools.partial(hello, **initkwargs)

    views = [Greeter, Child, Grandchild, tagging("a")(type("Async", (HelloAsync,), {}))]
    assert [get(view.as_view())["X-Tags"] for view in views] == ["a", "a", "abc", "a"]
    assert get(Grandchild.as_view(greeting="hi")).content == b"hi world"
    assert get(OwnAsView.as_view(name="alice"))["X-Tags"] == "a"
    assert "X-Tags" not in get(Hello.as_view())
    with pytest.raises(AttributeError):
        Greeter().as_view()


# What a route leaves as it was.


def test_a_route_looks_like_its_view(settings):
    route, routed_class = TimedRoute(hello), TimedRoute(Hello.as_view(greeting="hi"))
    assert (route.__name__, route.__doc__, route.__module__) == ("hello", "Greets.", hello.__module__)
    assert route.__wrapped__ is hello is route.view
    assert repr(route).startswith("<TimedRoute of <function hello")
    assert (routed_class.view_class, routed_class.view_initkwargs) == (Hello, {"greeting": "hi"})
    urlpatterns = [path("f/", route, name="greet"), path("c/", routed_class)]
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": urlpatterns})
    assert [resolve(url)._func_path for url in ("/f/", "/c/")] == [
        f"{hello.__module__}.{name}" for name in ("hello", "Hello")
    ]
    assert reverse("greet") == reverse(route) == "/f/"


def test_a_route_may_be_copied_and_its_attributes_do_not_travel():
    for copied in (copy.copy(TimedRoute(hello)), copy.deepcopy(TimedRoute(hello))):
        assert (type(copied), copied.__name__, get(copied).content) == (TimedRoute, "hello", b"hello world")
    assert not vars(functools.wraps(Route(hello))(lambda: None)).keys() & {"view", "_guarded", "_is_async"}


@pytest.mark.parametrize("view", [hello, hello_async])
def test_djangos_decorators_count_inside_and_outside(view):
    csrf = {"middleware": ["django.middleware.csrf.CsrfViewMiddleware"], "csrf": True}
    assert ask(TimedRoute(view), **csrf).status_code == 403
    for mark, name, value in (
        (csrf_exempt, "csrf_exempt", True),
        (login_not_required, "login_required", False),
        (transaction.non_atomic_requests, "_non_atomic_requests", {"default"}),
    ):
        for route in (mark(TimedRoute(functools.partial(view))), TimedRoute(mark(functools.partial(view)))):
            assert getattr(route, name) == value
            assert name != "csrf_exempt" or ask(route, **csrf).content == b"hello world"
    response = get(never_cache(TimedRoute(never_cache(view))))
    assert "no-store" in response["Cache-Control"]
    assert "X-Response-Time" in response
    assert get(TimedRoute(require_POST(view))).status_code == 405


# Policies.


@pytest.mark.parametrize("view", [hello, hello_async, Hello])
def test_policies_bind_inside_and_outside_and_are_asked_once(view, ran):
    def made(view):
        return view.as_view() if isinstance(view, type) else view

    def fresh():
        return type("Fresh", (view,), {}) if isinstance(view, type) else view

    policy = Check(lambda request: ran.append("asked") or True)
    assert get(made(require(policy)(TimedRoute(require(policy)(fresh()))))).content == b"hello world"
    assert ran == ["asked"]
    for route in ROUTES:
        for guarded in (require(DenyAll())(route(fresh())), route(require(DenyAll())(fresh()))):
            assert get(made(guarded)).status_code == 403
            if isinstance(guarded, type):
                assert get(type("Child", (guarded,), {}).as_view()).status_code == 403


@each_way
def test_the_default_policy_is_for_routes_whose_view_has_none(settings, way):
    settings.CHANNELS_WSDENY = {"DEFAULT_POLICY": DenyAll(), "MIRROR_DEFAULT_POLICY": True}
    for view, status in (
        (TimedRoute(hello), 403),
        (TimedRoute(GzipRoute(require(AllowAny())(hello))), 200),
        (public(TimedRoute(hello_async)), 200),
        (TimedRoute(login_not_required(Hello.as_view())), 200),
    ):
        assert get(view, way=way, middleware=[MIRROR]).status_code == status


# Denials and other exceptions.


@each_way
@pytest.mark.parametrize("view", [denied, denied_async])
def test_a_denial_in_a_route_is_its_response(way, view):
    for route in (*ROUTES, tagging("a"), tagging("a", is_async=True)):
        for middleware in ([], [MIRROR]):
            response = get(route(view), way=way, middleware=middleware)
            assert (response.status_code, response["X-Pot"]) == (418, "tea")
            assert b'"Short and stout."' in response.content


def test_other_exceptions_are_left_to_django(caplog):
    def failing(request):
        raise Http404 if request.method == "GET" else ValueError

    assert get(LoggedRoute(TimedRoute(failing))).status_code == 404
    assert ask(LoggedRoute(TimedRoute(failing))).status_code == 500
    assert get(TimedRoute(lambda request: None)).status_code == 500
    assert "didn't return an HttpResponse object" in caplog.text


# Times.


def streamed(request):
    return StreamingHttpResponse(iter([b"hello world"]))


def rendered(request):
    return TemplateResponse(request, engines["django"].from_string("hello {{ name }}"), {"name": "world"})


def test_every_response_is_timed():
    timed_gzip = type("TimedGzip", (TimedRoute,), {"request_class": GzipRequest})
    inside = (denied, denied_async, GzipRoute(denied_async), require(DenyAll())(hello))
    for view in (*map(TimedRoute, (*VIEWS.values(), streamed, rendered, *inside)), timed_gzip(hello)):
        headers = {"Content_Encoding": "gzip"} if type(view) is timed_gzip else {}
        response = ask(view, b"no gzip", "text/plain", method="GET", **headers)
        assert 0 <= float(response["X-Response-Time"]) < 60
        assert response.getvalue() == b"hello world" or response.status_code in {400, 403, 418}


# A route around every view of an include, which itself stays as it was.


def view(request, *args, **kwargs):
    match = request.resolver_match
    return HttpResponse(json.dumps([type(request).__name__, args, kwargs, match.view_name, match.route]))


@pytest.fixture
def urls(settings):
    """A function that makes the root URLconf of these patterns."""
    settings.MIDDLEWARE = []

    def make(*patterns):
        settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": list(patterns)})

    return make


@pytest.fixture
def module(monkeypatch):
    module = ModuleType("routed_urls")
    module.app_name = "shop"
    module.urlpatterns = [path("a/", view, name="a")]
    monkeypatch.setitem(sys.modules, "routed_urls", module)
    return module


def is_timed(url):
    response = Client().get(url)
    assert response.status_code == 200
    return "X-Response-Time" in response


def test_every_view_is_wrapped_and_those_beside_it_are_not(urls, module):
    inner = [path("c/", view), path("deeper/", include("routed_urls"))]
    patterns = [path("a/", view), re_path("^b/$", Hello.as_view()), path("d/", include(inner))]
    urls(path("api/", TimedRoute.include(patterns)), path("a/", view), path("plain/", include(patterns)))
    for _ in range(2):
        assert all(map(is_timed, ("/api/a/", "/api/b/", "/api/d/c/", "/api/d/deeper/a/")))
        assert not any(map(is_timed, ("/a/", "/plain/a/", "/plain/b/", "/plain/d/c/", "/plain/d/deeper/a/")))
    assert resolve("/api/b/")._func_path == f"{Hello.__module__}.Hello"


@pytest.mark.parametrize(
    ("included", "name"),
    [
        (lambda module: ("routed_urls",), "shop:a"),
        (lambda module: (module, "branch"), "branch:a"),
        (lambda module: ((module.urlpatterns, "shop"), "branch"), "branch:a"),
        (lambda module: (include((module.urlpatterns, "shop")),), "shop:a"),
    ],
    ids=["name", "module", "patterns", "result of include"],
)
def test_whatever_django_includes_is_included_once_a_path_is_resolved(urls, module, included, name):
    urls(path("api/", TimedRoute.include(*included(module))))
    module.urlpatterns.append(path("late/", view))  # as modules that import one another do
    assert is_timed("/api/a/")
    assert is_timed("/api/late/")
    assert reverse(name) == reverse("shop:a", current_app=name[:-2]) == "/api/a/"


def test_arguments_and_names_are_as_without_the_route(urls):
    inner = include(([re_path(r"^(\d+)/$", view, name="b"), path("x/", view, {"d": 1}, name="c")], "in"))
    patterns = ([path("<int:n>/", inner, {"e": 2}), path("<str:s>/a/", view, name="a")], "out")

    def answers(included):
        urls(path("api/", included))
        told = [json.loads(Client().get(f"/api{url}").content)[1:] for url in ("/5/x/", "/z/a/", "/5/7/")]
        return told, reverse("out:in:c", args=[3]), reverse("out:a", args=["z"])

    assert answers(TimedRoute.include(patterns)) == answers(include(patterns))
    urls(path("api/", TimedRoute.include(patterns)))
    with pytest.raises(NoReverseMatch):
        reverse("out:in:c", args=["no number"])


def test_what_is_included_stays_as_it_was(urls):
    endpoint, deep = path("a/", view, name="a"), path("c/", view, name="c")
    nested = path("<int:n>/", include(([deep], "in")))
    patterns = [endpoint, nested]
    before = [dict(vars(pattern)) for pattern in (endpoint, deep, nested)]
    urls(path("<slug:s>/", TimedRoute.include([path("<str:t>/", include(patterns))])))
    assert is_timed("/x/y/1/c/")
    assert reverse("in:c", args=["x", "y", 1]) == "/x/y/1/c/"
    assert [dict(vars(pattern)) for pattern in (endpoint, deep, nested)] == before
    assert patterns == [endpoint, nested]
    assert endpoint.callback is deep.callback is view
    assert list(nested.pattern.converters) == ["n"]


def test_patterns_keep_their_kind_their_translations_and_their_guards(urls):
    marked = path("a/", view)
    marked.__class__, marked.label = type("Marked", (URLPattern,), {}), "kept"
    urlconf, *_ = TimedRoute.include([marked])
    (routed,) = urlconf.urlpatterns
    assert (type(routed), routed.label, type(routed.callback)) == (type(marked), "kept", TimedRoute)
    translated = path(gettext_lazy("a/"), include([path("b/", view)]))
    guarded = path("c/", require(DenyAll())(view))
    urls(path("api/", TimedRoute.include([translated, path("in/", GzipRoute.include([marked])), guarded])))
    assert is_timed("/api/a/b/")
    assert is_timed("/api/in/a/")
    assert json.loads(Client().get("/api/in/a/").content)[0] == "GzipRequest"
    assert Client().get("/api/c/").status_code == 403


@pytest.mark.parametrize(("url", "found"), [("a/", []), ("/a/", ["urls.W002"])])
def test_djangos_checks_find_what_they_found(urls, url, found):
    urls(path("api/", Route.include([path("b/", include([path(url, view, name="a")]))])))
    assert [problem.id for problem in run_checks(tags=["urls"])] == found
