"""Guarded views, without the mirror: decorators alone hold on every kind of view."""

import asyncio
import copy
import time
from functools import partial

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required as djangos_login_required
from django.core.exceptions import BadRequest, PermissionDenied
from django.db import connection, transaction
from django.http import FileResponse, Http404, HttpResponse, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory
from django.urls import path, re_path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from rest_framework.decorators import api_view
from rest_framework.views import APIView

from channels_wsdeny import Deny, Hooks
from channels_wsdeny.decorators import login_required, public, require, with_hooks
from channels_wsdeny.handlers import base
from channels_wsdeny.policies import AllowAny, DenyAll, IsStaff
from channels_wsdeny.routes import GzipRoute
from tests.support.mirror import calling, made
from tests.support.policies import AsyncCheck, Check, raising, request_of
from tests.support.site import BROWSER, OUTSIDE, VIEWS, Hello, Site, hello, hello_async, page, page_of, tell
from tests.support.threads import outlast, until
from tests.support.transports import DJANGO

pytestmark = pytest.mark.django_db
User = get_user_model()


Guarded = login_required(type("Guarded", (Hello,), {}))
Child = type("Child", (Guarded,), {})


GUARDED = {
    **{name: login_required(view) for name, view in VIEWS.items() if not name.startswith("guarded")},
    "partial-of-class": login_required(partial(Hello.as_view(), name="world")),
}


def ask(view, **options):
    """The response of a synchronous view that is called by itself."""
    return view(request_of(**options))


@pytest.fixture(params=["wsgi", "asgi", "stack"])
def site(request, settings):
    site = Site(settings, DJANGO[request.param]())
    site.serve = partial(site.serve, mirror=())
    return site


# Allowed and denied


def test_every_kind_of_view_is_guarded_and_keeps_its_arguments(site, users):
    site.serve(*(path(f"{name}/<name>/", view) for name, view in GUARDED.items()))
    urls = [f"/{name}/alice/" for name in GUARDED]
    assert {site.ask(url).code for url in urls} == {"not_authenticated"}
    site.log_in(users["alice"])
    assert {site.ask(url).body for url in urls} == {b"hello alice"}


def test_every_method_is_guarded(site):
    site.serve(require(DenyAll())(hello))
    methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"]
    assert {site.ask(method=method).status for method in methods} == {403}


NAMES = ("outer", "middle", "inner")


def test_policies_are_asked_from_the_outermost_decorator_to_the_first_denial(ran):
    outer, middle, inner = (Check(lambda request, n=n: ran.append(n) or n != "middle") for n in NAMES)
    view = require(outer)(require(middle)(require(inner)(raising(AssertionError))))
    assert (ask(view).status_code, ran) == (403, ["outer", "middle"])


# Policies and views of the other kind


async def test_a_synchronous_view_called_on_a_loop_denies_rather_than_hang():
    assert ask(require(AsyncCheck(lambda request: True))(hello)).status_code == 500


@pytest.mark.parametrize("mirror", [False, True])
async def test_a_policy_that_hangs_is_a_503_and_the_log_names_one_that_swallows_its_cancellation(
    mirror, settings, caplog, monkeypatch
):
    monkeypatch.setattr(base, "_GRACE", 0.01)
    let_go = asyncio.Event()

    policy = AsyncCheck(lambda request: outlast(let_go))
    view = hello_async if mirror else require(policy)(hello_async)
    site = Site(settings, DJANGO["asgi"]())
    site.serve(view, POLICY_TIMEOUT=0.05, DEFAULT_POLICY=policy, MIRROR_DEFAULT_POLICY=mirror)
    task = asyncio.create_task(AsyncClient().get("/"))
    await until(lambda: "the client waits until it ends. It must let CancelledError pass." in caplog.text)
    let_go.set()
    assert (await task).status_code == 503


async def test_a_request_that_is_cancelled_while_it_is_decided_calls_no_view_later(settings):
    asked, may = asyncio.Event(), asyncio.Event()

    async def wait(request):
        asked.set()
        await may.wait()
        return True

    Site(settings, DJANGO["asgi"]()).serve(require(AsyncCheck(wait))(raising(AssertionError)), mirror=())
    task = asyncio.create_task(AsyncClient().get("/"))
    await asked.wait()
    task.cancel()
    may.set()
    with pytest.raises(asyncio.CancelledError):
        await task


# What a denial is


def test_an_anonymous_browser_is_sent_to_the_log_in_page_and_a_program_gets_a_401(site, settings):
    settings.LOGIN_URL = "/login/"
    site.serve(path("there/", login_required(hello)))
    answer = site.browse("/there/?a=1")
    assert (answer.status, answer.headers["location"]) == (302, "/login/?next=/there/%3Fa%3D1")
    assert "no-store" in answer.headers["cache-control"]
    assert {"Accept", "Cookie"} <= {name.strip() for name in answer.headers["vary"].split(",")}
    for accept in ("*/*", "application/json", "application/json, text/html;q=0.9", "text/plain", ""):
        answer = site.ask("/there/", Accept=accept)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Session"), accept


@pytest.mark.parametrize("login_url", ["/login/", "login", "https://sso.example.com/?a=1", "//testserver/x"])
def test_the_redirect_is_that_of_djangos_own_decorator(login_url, settings):
    settings.LOGIN_URL = login_url
    for path_info in ("/", "/hello/", "//evil.example.com/", "/%2F/", "/a b/;c=d", "/ü/"):
        for query in ("", "a=1&b=2", "next=/elsewhere/", "%00"):
            options = {"PATH_INFO": path_info, "QUERY_STRING": query, "headers": {"accept": BROWSER}}
            ours = ask(login_required(hello), **options)["location"]
            assert ours == ask(djangos_login_required(hello), **options)["location"]


@pytest.mark.parametrize("login_url", [None, "", "no-such-view"])
def test_without_a_log_in_page_a_browser_gets_the_401(login_url, settings):
    settings.LOGIN_URL = login_url
    answer = ask(login_required(hello), headers={"accept": BROWSER})
    assert (answer.status_code, answer["www-authenticate"]) == (401, "Session")


def test_a_response_of_the_site_is_sent_as_it_is_and_may_deny_many_requests(site):
    shared = HttpResponse("mine", status=410, headers={"X-Mine": "1"})
    site.serve(require(Check(lambda request: shared))(hello))
    for _ in range(2):
        answer = site.ask(Accept=BROWSER)
        assert (answer.status, answer.body, answer.headers["x-mine"]) == (410, b"mine", "1")
    assert dict(shared.items()) == {"Content-Type": "text/html; charset=utf-8", "X-Mine": "1"}
    assert len(shared.cookies) == 0


# What a view raises


def test_a_deny_of_a_view_answers_and_other_exceptions_are_left_to_django(site):
    errors = {400: BadRequest, 403: PermissionDenied, 404: Http404, 500: ZeroDivisionError}
    failing = raising(lambda: Deny(409, "Already here.", code="taken"))

    async def failing_async(request):
        failing(request)

    site.serve(
        *(path(f"{status}/", public(raising(error))) for status, error in errors.items()),
        *(path("deny/", public(failing)), path("deny-async/", public(failing_async))),
        path("stop/", public(raising(StopIteration))),
        handlers={f"handler{status}": page_of(status) for status in errors},
    )
    assert [site.ask(f"/{status}/").body for status in errors] == [b"page %d" % status for status in errors]
    assert site.ask("/stop/").body == b"page 500"
    for url in ("/deny/", "/deny-async/"):
        answer = site.ask(url)
        assert (answer.status, answer.code, answer.problem["detail"]) == (409, "taken", "Already here.")


@pytest.mark.parametrize("hooks", [(), (Hooks(),)])
def test_the_test_clients_raise_what_a_view_raises(settings, hooks):
    Site(settings, DJANGO["wsgi"]()).serve(with_hooks(*hooks)(public(raising(ZeroDivisionError))), mirror=())
    with pytest.raises(ZeroDivisionError):
        Client().get("/")
    with pytest.raises(ZeroDivisionError):
        async_to_sync(AsyncClient().get)("/")
    settings.DEBUG_PROPAGATE_EXCEPTIONS = True
    with pytest.raises(ZeroDivisionError):
        ask(require(Check(raising(ZeroDivisionError)))(hello))


# Transactions


def writing(error=None):
    def view(request):
        User.objects.create_user("written")
        if error is not None:
            raise error()
        return HttpResponse()

    return view


TAKING = made("exception", lambda request, error: HttpResponse("taken", status=409), types=(ZeroDivisionError,))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("view", "status", "is_written"),
    [
        (public(writing()), 200, True),
        (public(writing(Deny)), 403, False),
        (public(public(writing(Deny))), 403, False),
        (GzipRoute(writing(Deny)), 403, False),
        (with_hooks(TAKING)(writing(ZeroDivisionError)), 409, False),
        (public(writing(ZeroDivisionError)), 500, False),
        (transaction.non_atomic_requests(public(writing(Deny))), 403, True),
    ],
)
def test_what_a_view_wrote_is_rolled_back_if_it_raises(view, status, is_written, settings, monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    site = Site(settings, DJANGO["wsgi"]()).serve(view, mirror=())
    assert site.ask().status == status
    assert User.objects.filter(username="written").exists() is is_written
    assert not connection.in_atomic_block


# Hooks of one view


@pytest.mark.parametrize("kind", ["request", "route", "around", "policy"])
def test_a_hook_or_policy_of_a_view_may_change_its_arguments(kind, site):
    decorate = calling(lambda request: request.resolver_match.kwargs.update(name="other"), kind)
    site.serve(*(path(f"{index}/<name>/", decorate(view)) for index, view in enumerate(VIEWS.values())))
    assert {site.ask(f"/{index}/you/").body for index in range(len(VIEWS))} == {b"hello other"}


def test_a_view_that_is_called_again_gets_the_arguments_that_its_policy_was_asked_about(site):
    """A decorator that tries again passes the arguments that it has."""

    def twice(view):
        def calling_again(request, **kwargs):
            view(request, **kwargs)
            return view(request, **kwargs)

        return calling_again

    change = made("route", lambda request: request.resolver_match.kwargs.update(name="lobby"))
    in_lobby = require(Check(lambda request: request.resolver_match.kwargs["name"] == "lobby"))
    site.serve(
        path("", twice(with_hooks(change)(in_lobby(hello)))),
        path("<name>/", twice(with_hooks(change)(in_lobby(hello)))),
    )
    assert [site.ask(url).body for url in ("/", "/vault/")] == [b"hello lobby"] * 2


def test_a_policy_of_a_view_may_change_its_positional_arguments(site):
    def change(request):
        request.resolver_match.args = ("other",)
        return True

    site.serve(re_path("^(.*)/$", require(Check(change))(lambda request, name: HttpResponse(name))))
    assert site.ask("/you/").body == b"other"


def test_exception_hooks_of_a_view_answer_what_its_template_raises(site, hooks):
    hooks.on_exception(lambda request, error: HttpResponse("any", status=418))
    hooks.on_response(tell("X-Saw", lambda request, response: response.status_code))
    view = with_hooks(hooks)(lambda request: TemplateResponse(request, "no-such-template.html"))
    answer = site.serve(view).ask()
    assert (answer.body, answer.headers["x-saw"]) == (b"any", "418")


def chunks(response):
    yield b"instead"


async def chunks_async(response):
    yield b"instead"


def deny(request, response):
    return Deny(403)


def test_response_hooks_of_a_view_hold_where_its_template_is_rendered_in_place(site):
    def rendering(view):
        def in_place(request):
            response = view(request)
            response.render()
            return response

        return in_place

    async def render_around(request, call_next):
        response = await call_next(request)
        await sync_to_async(response.render)()
        return response

    def stream(request, response):
        return StreamingHttpResponse((chunks_async if site.is_async else chunks)(response), status=403)

    for hook in (deny, stream):
        guarded = with_hooks(made("response", hook))(lambda request: page("secret"))
        for view in (rendering(guarded), with_hooks(made("around", render_around))(guarded)):
            found = site.serve(view).ask()
            assert (found.status, b"secret" in found.body) == (403, False)


def test_response_hooks_of_a_view_see_what_an_around_hook_puts_in_the_place_of_its_template(site, hooks):
    @hooks.around
    async def as_text(request, call_next):
        return HttpResponse((await call_next(request)).rendered_content)

    hooks.on_response(deny)
    assert site.serve(with_hooks(hooks)(lambda request: page("secret"))).ask().status == 403


def test_exception_hooks_of_a_view_inside_another_answer_what_its_template_raises(site, hooks, ran):
    hooks.on_exception(lambda request, error: HttpResponse("any", status=418))
    hooks.on_response(lambda request, response: ran.append("inner"))
    around = made("response", lambda request, response: ran.append("outer"))
    view = with_hooks(hooks)(lambda request: TemplateResponse(request, "no-such-template.html"))
    assert (site.serve(with_hooks(around)(csrf_exempt(view))).ask().status, ran) == (418, ["inner", "outer"])


def test_a_file_in_whose_place_a_hook_puts_something_is_closed(site, hooks, tmp_path):
    (tmp_path / "file").write_bytes(b"secret")
    opened = []

    @public
    def view(request):
        opened.append((tmp_path / "file").open("rb"))
        return FileResponse(opened[-1])

    async def fail(request, call_next):
        await call_next(request)
        raise Deny(response=HttpResponse("instead", status=403))

    def replace(request, response):
        response._resource_closers.append(lambda: 1 / 0)  # as a file that cannot be closed
        return HttpResponse("instead", status=403)

    def stream(request, response):
        return StreamingHttpResponse((chunks_async if site.is_async else chunks)(response), status=403)

    for hook, kind in {fail: "around", replace: "response", stream: "response", deny: "response"}.items():
        answer = site.serve(with_hooks(made(kind, hook))(view)).ask()
        assert (answer.status, b"secret" in answer.body) == (403, False)
    assert all(file.closed for file in opened)


async def limit(request, call_next):
    try:
        async with asyncio.timeout(0.05):
            return await call_next(request)
    except TimeoutError:
        return HttpResponse("late", status=503)


def test_nothing_begins_once_an_around_hook_has_given_up(site, hooks, ran):
    """A thread goes on, and around hooks outside of that one may take their time."""

    @hooks.around
    async def audit(request, call_next):
        response = await call_next(request)
        await asyncio.sleep(0.4)
        return response

    hooks.around(limit)
    hooks.on_request(lambda request: time.sleep(0.2))
    hooks.on_request(lambda request: ran.append("hook"))
    view = require(Check(lambda request: ran.append("policy") or True))(lambda request: ran.append("view"))
    assert (site.serve(with_hooks(hooks)(view)).ask().body, ran) == (b"late", [])


@pytest.mark.parametrize("way", ["wsgi", "asgi"])
def test_an_around_hook_that_gives_up_answers_and_no_view_begins_later(way, settings, ran):
    async def wait(request):
        await asyncio.sleep(0.2)

    view = with_hooks(made("request", wait))(lambda request: ran.append("view"))
    site = Site(settings, DJANGO[way]()).serve(with_hooks(made("around", limit))(csrf_exempt(view)), mirror=())
    assert (site.ask().body, ran) == (b"late", [])


# A view that calls guarded views


@pytest.mark.parametrize("way", ["wsgi", "asgi"])
def test_two_guarded_views_at_the_same_time_have_a_copy_of_the_request_each(way, settings, users):
    """A policy may set the user of its request for a moment, until the next one denies."""

    async def set_staff(request):
        request.user = users["staff"]
        return True

    async def deny_later(request):
        await asyncio.sleep(0.1)
        return False

    async def later(request):
        await asyncio.sleep(0.05)
        return await require(IsStaff())(hello_async)(request)

    by_key = require(AsyncCheck(set_staff) & AsyncCheck(deny_later))(hello_async)

    async def board(request):
        given = copy.copy if "copies" in request.GET else lambda request: request
        answers = await asyncio.gather(by_key(given(request)), later(given(request)))
        return HttpResponse(" ".join(str(answer.status_code) for answer in answers))

    site = Site(settings, DJANGO[way]()).serve(board)
    assert (site.ask().status, site.ask("/?copies").body) == (500, b"403 401")


# All else stays as it is


def test_a_guarded_view_stays_what_it_was():
    @public
    def view(request):
        """Hello."""

    assert (view.__module__, view.__name__, view.__doc__) == (__name__, "view", "Hello.")
    kinds = [iscoroutinefunction(public(each)) for each in (hello, hello_async, VIEWS["async-class"])]
    assert kinds == [False, True, True]
    assert (Guarded.as_view().view_class, Child.as_view().view_class) == (Guarded, Child)


def test_a_public_view_needs_no_log_in_for_django_either(site, settings):
    settings.LOGIN_URL = "/login/"
    outside = [*OUTSIDE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    site.serve(path("open/", public(hello)), path("other/", hello), outside=outside)
    assert [site.ask(url).status for url in ("/open/", "/other/")] == [200, 302]


@pytest.mark.parametrize("name", ["check", "acheck"])
def test_a_policy_that_is_derived_from_one_that_allows_all_spares_nobody_djangos_log_in(name, site, settings):
    def check(self, request):
        return "X-Office" in request.headers

    async def acheck(self, request):
        return check(self, request)

    policy = type("FromOffice", (AllowAny,), {name: {"check": check, "acheck": acheck}[name]})()
    settings.LOGIN_URL = "/login/"
    outside = [*OUTSIDE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    site.serve(
        path("", require(policy)(hello)), path("all/", require(type("All", (AllowAny,), {})())(hello)), outside=outside
    )
    assert [site.ask(url, X_Office="1").status for url in ("/", "/all/")] == [302, 200]


def test_a_call_with_the_request_of_rest_framework_says_what_to_do():
    class Api(APIView):
        @method_decorator(login_required)
        def get(self, request): ...

    for view in (api_view(["GET"])(login_required(hello)), Api.as_view()):
        with pytest.raises(TypeError, match="above @api_view, or on the class of the view"):
            view(RequestFactory().get("/"))
    assert ask(login_required(api_view(["GET"])(hello))).status_code == 401


def test_a_call_without_a_request_says_what_to_do():
    with pytest.raises(TypeError, match="method_decorator"):
        login_required(hello)(View(), AsyncRequestFactory().get("/"))
