"""Hooks on views, through `MirrorMiddleware`, in every way that Django can run it."""

from __future__ import annotations

import asyncio
import io

import pytest
from django.http import (
    FileResponse,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.template import engines
from django.template.response import TemplateResponse
from django.urls import include, path

from channels_wsdeny import Deny, Hooks
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import require, with_hooks
from channels_wsdeny.policies import DenyAll
from tests.mirror import (
    INSIDE,
    VIEWS,
    Middleware,
    hello,
    hello_async,
    noting,
    page,
    tell,
)
from tests.parts import Check

pytestmark = pytest.mark.django_db
#: Django warns of what it serves well enough.
SYNC_ITERATORS = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")


@pytest.fixture(params=VIEWS.values(), ids=VIEWS)
def view(request):
    return request.param


@pytest.fixture(params=[hello, hello_async], ids=["sync-view", "async-view"])
def either(request):
    return request.param


def run_as(kind, function):
    """`function` as a hook: synchronous, on the loop, or a coroutine function."""
    if kind != "async":
        return function

    async def hook(*arguments):
        await asyncio.sleep(0)
        return function(*arguments)

    return hook


@pytest.fixture(params=["sync", "light", "async"])
def add(request, hooks):
    """A function that adds a hook of some kind to `hooks`, blocking, light or async."""

    def add(kind, function):
        options = {"blocking": False} if request.param == "light" else {}
        getattr(hooks, kind)(**options)(run_as(request.param, function))

    return add


# Hooks of each kind, on views of each kind.


def test_a_request_hook_runs_before_a_view(site, hooks, add):
    add("on_request", lambda request: setattr(request.ctx, "marked", True))
    add("on_response", tell("X-Marked", lambda request, response: request.ctx.marked))
    assert site.serve(hello, hooks=hooks).ask().headers["x-marked"] == "True"


def test_a_request_hook_may_answer_in_the_views_place(site, hooks, add, either):
    add("on_request", lambda request: HttpResponse("early", status=202))
    answer = site.serve(either, hooks=hooks).ask()
    assert (answer.status, answer.body) == (202, b"early")


def test_a_request_hook_may_return_a_deny(site, hooks, add, either):
    add("on_request", lambda request: Deny(429))
    assert site.serve(either, hooks=hooks).ask().code == "throttled"


def test_a_request_hook_may_raise_a_deny(site, hooks, add):
    def deny(request):
        raise Deny(402, code="pay")

    add("on_request", deny)
    assert site.serve(hello, hooks=hooks).ask().code == "pay"


def test_a_request_hook_that_fails_opens_no_view(site, hooks, add):
    def fail(request):
        raise ZeroDivisionError("secret")

    def view(request):
        raise AssertionError

    add("on_request", fail)
    answer = site.serve(view, hooks=hooks).ask()
    assert answer.code == "server_error"
    assert b"secret" not in answer.body


def test_a_request_hook_that_returns_something_else_opens_no_view(site, hooks, add):
    def view(request):
        raise AssertionError

    add("on_request", lambda request: "yes")
    assert site.serve(view, hooks=hooks).ask().code == "server_error"


def test_a_response_hook_changes_the_response_of_a_view(site, hooks, view):
    hooks.on_response(tell("X-Hook", lambda request, response: "1"))
    answer = site.serve(view, hooks=hooks).ask()
    assert (answer.body, answer.headers["x-hook"]) == (b"hello world", "1")


def test_a_response_hook_may_replace_the_response_of_a_view(site, hooks, add, either):
    add("on_response", lambda request, response: JsonResponse({"was": response.content.decode()}))
    assert site.serve(either, hooks=hooks).ask().body == b'{"was": "hello world"}'


def test_a_response_hook_may_deny_after_all(site, hooks, add):
    add("on_response", lambda request, response: Deny(410))
    assert site.serve(hello, hooks=hooks).ask().code == "gone"


def test_a_response_hook_that_fails_lets_no_response_out(site, hooks, add):
    def fail(request, response):
        raise ZeroDivisionError("secret")

    add("on_response", fail)
    answer = site.serve(hello, hooks=hooks).ask()
    assert answer.code == "server_error"
    assert b"hello" not in answer.body


def test_a_response_hook_sees_a_denial(site, hooks, add, either):
    add("on_response", tell("X-Saw", lambda request, response: response.status_code))
    assert site.serve(require(DenyAll())(either), hooks=hooks).ask().headers["x-saw"] == "403"


def test_a_response_hook_sees_an_early_response(site, hooks, add):
    hooks.on_request(lambda request: HttpResponse("early"))
    add("on_response", tell("X-Saw", lambda request, response: response.status_code))
    assert site.serve(hello, hooks=hooks).ask().headers["x-saw"] == "200"


def test_a_response_hook_sees_the_404_of_an_unrouted_path(site, hooks, add):
    add("on_response", tell("X-Saw", lambda request, response: response.status_code))
    assert site.serve(path("x/", hello), hooks=hooks).ask("/nowhere/").headers["x-saw"] == "404"


def test_a_response_hook_sees_the_500_of_a_view(site, hooks, add):
    def view(request):
        raise ZeroDivisionError

    add("on_response", tell("X-Saw", lambda request, response: response.status_code))
    assert site.serve(view, hooks=hooks).ask().headers["x-saw"] == "500"


def test_a_response_hook_sees_a_redirect(site, hooks, add):
    add("on_response", tell("X-Saw", lambda request, response: response.status_code))
    answer = site.serve(lambda request: HttpResponseRedirect("/there/"), hooks=hooks).ask()
    assert (answer.headers["x-saw"], answer.headers["location"]) == ("302", "/there/")


def test_a_cookie_of_a_response_hook_goes_out(site, hooks, add):
    add("on_response", lambda request, response: response.set_cookie("seen", "1"))
    assert site.serve(hello, hooks=hooks).ask().cookies["seen"].value == "1"


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"])
def test_hooks_run_for_every_method(site, hooks, method):
    hooks.on_response(tell("X-Hook", lambda request, response: request.method))
    assert site.serve(hello, hooks=hooks).ask(method=method).headers["x-hook"] == method


def test_hooks_for_sockets_do_not_run_on_views(site, hooks):
    hooks.on_request(protocols=("websocket",))(lambda request: HttpResponse("never"))
    hooks.on_request(protocols=("http",))(lambda request: setattr(request.ctx, "seen", True))
    site.serve(lambda request: HttpResponse(str(request.ctx.seen)), hooks=hooks)
    assert site.ask().body == b"True"


# What hooks see of special responses.


def test_a_response_hook_sees_a_template_response_rendered(site, hooks, add):
    def notes(request, response):
        response["X-Saw"] = response.rendered_content if response.is_rendered else "nothing"

    add("on_response", notes)
    site.serve(lambda request: page("Hello {{ who }}", who="you"), hooks=hooks)
    assert site.ask().headers["x-saw"] == "Hello you"


def test_a_response_hook_may_change_what_was_rendered(site, hooks, add):
    add("on_response", lambda request, response: setattr(response, "content", response.content.upper()))
    assert site.serve(lambda request: page("hello"), hooks=hooks).ask().body == b"HELLO"


@pytest.mark.parametrize("kind", ["on_request", "on_route", "on_response", "on_exception", "around"])
@pytest.mark.parametrize("of", ["site", "view"])
def test_a_template_response_of_a_hook_is_rendered(site, hooks, kind, of):
    def answer(*arguments):
        return page("of a hook")

    async def around(request, call_next):
        return page("of a hook")

    def view(request):
        if kind == "on_exception":
            raise KeyError
        return HttpResponse()

    getattr(hooks, kind)(around if kind == "around" else answer)
    if of == "site":
        site.serve(view, hooks=hooks)
    else:
        site.serve(with_hooks(hooks)(view))
    assert site.ask().body == b"of a hook"


def test_a_template_response_for_an_unrouted_path_is_rendered(site, hooks):
    hooks.on_exception(lambda request, error: page("of a hook"))
    assert site.serve(path("x/", hello), hooks=hooks).ask("/nowhere/").body == b"of a hook"


@pytest.mark.parametrize("is_async", [False, True], ids=["sync-view", "async-view"])
def test_a_views_own_response_hook_sees_a_template_response_rendered(site, add, hooks, is_async):
    def notes(request, response):
        response["X-Saw"] = response.content.decode()

    def view(request):
        return page("Hello {{ who }}", who="you")

    async def view_async(request):
        return page("Hello {{ who }}", who="you")

    add("on_response", notes)
    site.serve(with_hooks(hooks)(view_async if is_async else view))
    assert site.ask().headers["x-saw"] == "Hello you"


def test_a_views_own_response_hook_may_replace_what_was_rendered(site, hooks, add):
    add("on_response", lambda request, response: HttpResponse(response.content.upper()))
    assert site.serve(with_hooks(hooks)(lambda request: page("hello"))).ask().body == b"HELLO"


class AddsContext(Middleware):
    def process_template_response(self, request, response):
        response.context_data["who"] = "you"
        return response


def test_middleware_for_template_responses_runs_before_a_views_own_response_hooks(site, hooks):
    hooks.on_response(tell("X-Saw", lambda request, response: response.content.decode()))

    view = with_hooks(hooks)(lambda request: TemplateResponse(request, TEMPLATE, {"who": "nobody"}))
    site.serve(view, inside=[*INSIDE, f"{__name__}.AddsContext"])
    assert site.ask().headers["x-saw"] == "Hello you"


TEMPLATE = engines["django"].from_string("Hello {{ who }}")


@SYNC_ITERATORS
def test_a_streaming_response_stays_a_stream(site, hooks):
    seen = []

    def chunks():
        seen.append("read")
        yield b"a"
        yield b"b"

    @hooks.on_response
    def note(request, response):
        seen.append("hook")
        response["X-Streaming"] = str(response.streaming)

    answer = site.serve(lambda request: StreamingHttpResponse(chunks()), hooks=hooks).ask()
    assert (answer.body, answer.headers["x-streaming"], seen) == (b"ab", "True", ["hook", "read"])


def test_a_response_hook_may_wrap_an_asynchronous_stream(site, hooks):
    async def chunks():
        yield b"a"
        await asyncio.sleep(0)
        yield b"b"

    async def view(request):
        return StreamingHttpResponse(chunks())

    @hooks.on_response
    async def shout(request, response):
        inner = response.streaming_content

        async def upper():
            async for chunk in inner:
                yield chunk.upper()

        response.streaming_content = upper()

    site.serve(view, hooks=hooks)
    if not site.is_async:
        pytest.skip("Django warns of an asynchronous iterator that is consumed synchronously")
    assert site.ask().body == b"AB"


@SYNC_ITERATORS
def test_a_file_response_goes_out(site, hooks):
    hooks.on_response(tell("X-Hook", lambda request, response: "1"))
    site.serve(lambda request: FileResponse(io.BytesIO(b"x" * 100_000), filename="a.bin"), hooks=hooks)
    answer = site.ask()
    assert (len(answer.body), answer.headers["x-hook"]) == (100_000, "1")


def test_a_file_of_a_response_that_a_hook_replaced_can_be_closed_by_it(site, hooks):
    file = io.BytesIO(b"file")

    @hooks.on_response
    def replace(request, response):
        if response.streaming:
            response.close()
        return HttpResponse("instead")

    assert site.serve(lambda request: FileResponse(file), hooks=hooks).ask().body == b"instead"
    assert file.closed


# on_route.


def test_a_route_hook_knows_the_route(site, hooks, add):
    def note(request):
        match = request.resolver_match
        request.ctx.route = f"{match.route} {match.url_name} {match.kwargs} {match.func.__name__}"

    add("on_route", note)
    site.serve(
        path("<name>/", lambda request, name: HttpResponse(request.ctx.route), name="greet"), hooks=hooks
    )
    assert site.ask("/you/").body == b"<name>/ greet {'name': 'you'} <lambda>"


def test_a_route_hook_may_change_an_argument_in_place(site, hooks, view):
    @hooks.on_route
    def underscore(request):
        kwargs = request.resolver_match.kwargs
        kwargs["name"] = kwargs["name"].replace("-", "_")

    assert site.serve(path("<name>/", view), hooks=hooks).ask("/foo-bar-baz/").body == b"hello foo_bar_baz"


def test_a_route_hook_may_replace_all_arguments(site, hooks, view):
    hooks.on_route(lambda request: setattr(request.resolver_match, "kwargs", {"name": "other"}))
    assert site.serve(path("<slug>/", view), hooks=hooks).ask("/you/").body == b"hello other"


def test_a_route_hook_may_remove_an_argument(site, hooks, view):
    hooks.on_route(lambda request: request.resolver_match.kwargs.clear())
    assert site.serve(path("<name>/", view), hooks=hooks).ask("/you/").body == b"hello world"


def test_a_views_own_route_hook_may_change_an_argument(site, hooks, add, either):
    add("on_route", lambda request: request.resolver_match.kwargs.update(name="other"))
    site.serve(path("<name>/", with_hooks(hooks)(either)))
    assert site.ask("/you/").body == b"hello other"


def test_a_route_hook_changes_nothing_for_the_next_request(site, hooks):
    hooks.on_route(lambda request: request.resolver_match.kwargs.update(name=request.GET.get("as", "nobody")))
    site.serve(path("", hello, {"name": "default"}), hooks=hooks)
    assert [site.ask("/?as=a").body, site.ask("/").body] == [b"hello a", b"hello nobody"]


def test_default_arguments_of_a_route_are_not_changed_for_good(site):
    changing = Hooks()
    changing.on_route(lambda request: request.resolver_match.kwargs.update(name="other"))
    urls = [path("", hello, {"name": "default"})]
    site.serve(*urls, hooks=changing).ask()
    assert site.serve(*urls, hooks=Hooks()).ask().body == b"hello default"


def test_a_route_hook_comes_before_the_policy_of_a_view(site, hooks):
    hooks.on_route(lambda request: request.resolver_match.kwargs.update(name="allowed"))
    policy = Check(lambda request: request.resolver_match.kwargs["name"] == "allowed")
    site.serve(path("<name>/", require(policy)(hello)), hooks=hooks)
    assert site.ask("/you/").body == b"hello allowed"


def test_a_route_hook_may_answer_in_the_views_place(site, hooks, add):
    add("on_route", lambda request: HttpResponse("early"))
    assert site.serve(hello, hooks=hooks).ask().body == b"early"


def test_a_route_hook_does_not_run_for_an_unrouted_path(site, hooks):
    hooks.on_route(lambda request: HttpResponse("never"))
    assert site.serve(path("x/", hello), hooks=hooks).ask("/nowhere/").status == 404


def test_a_route_hook_runs_within_an_include(site, hooks):
    hooks.on_route(lambda request: request.resolver_match.kwargs.update(name=request.resolver_match.route))
    site.serve(path("in/", include([path("<name>/", hello)])), hooks=hooks)
    assert site.ask("/in/x/").body == b"hello in/<name>/"


class Looks(Middleware):
    def process_view(self, request, view, args, kwargs):
        request.ctx.looked = dict(kwargs)


def test_later_middleware_sees_what_a_route_hook_changed(site, hooks):
    hooks.on_route(lambda request: setattr(request.resolver_match, "kwargs", {"name": "other"}))
    hooks.on_response(tell("X-Saw", lambda request, response: request.ctx.looked))
    site.serve(path("<name>/", hello), hooks=hooks, inside=[f"{__name__}.Looks"])
    assert site.ask("/you/").headers["x-saw"] == "{'name': 'other'}"


# request.ctx.


def test_ctx_goes_from_hooks_to_the_view_and_on_to_hooks(site, hooks, either):
    @hooks.on_request
    def begin(request):
        request.ctx.steps = ["request"]

    @hooks.on_route
    async def go_on(request):
        request.ctx.steps.append("route")

    @hooks.on_response
    def end(request, response):
        response["X-Steps"] = " ".join(request.ctx.steps)

    def view(request):
        request.ctx.steps.append("view")
        return either(request)

    async def view_async(request):
        request.ctx.steps.append("view")
        return await either(request)

    site.serve(view_async if either is hello_async else view, hooks=hooks)
    assert site.ask().headers["x-steps"] == "request route view"


def test_ctx_is_there_without_hooks(site):
    site.serve(lambda request: HttpResponse(str(vars(request.ctx))))
    assert site.ask().body == b"{}"


def test_each_request_has_a_ctx_of_its_own(site, hooks):
    hooks.on_request(lambda request: setattr(request.ctx, "seen", getattr(request.ctx, "seen", 0) + 1))
    site.serve(lambda request: HttpResponse(str(request.ctx.seen)), hooks=hooks)
    assert [site.ask().body, site.ask().body] == [b"1", b"1"]


def test_ctx_is_there_for_the_page_of_an_error(site, hooks):
    hooks.on_request(lambda request: setattr(request.ctx, "id", "42"))

    def not_found(request, exception):
        return HttpResponse(f"404 of {request.ctx.id}", status=404)

    site.serve(path("x/", hello), hooks=hooks, handlers={"handler404": not_found})
    assert site.browse("/nowhere/").body == b"404 of 42"


# Order, and how often.


def test_hooks_of_the_site_and_of_a_view_enclose_one_another(site, either):
    notes = []
    site.serve(with_hooks(noting(notes, "view"))(either), HOOKS=[noting(notes, "site")])
    site.ask()
    assert notes == [
        "site in",
        "site request",
        "site route",
        "view in",
        "view request",
        "view route",
        "view response",
        "view out",
        "site response",
        "site out",
    ]


def test_hooks_of_the_site_are_around_those_of_the_stack(site):
    if not site.has_stack:
        pytest.skip("there is no stack")
    notes = []
    site.serve(hello, hooks=noting(notes, "stack"), HOOKS=[noting(notes, "site")]).ask()
    names = ["request", "route"]
    around_first = ["site in", "stack in", *(f"{who} {name}" for name in names for who in ("site", "stack"))]
    assert notes == [*around_first, "stack response", "site response", "stack out", "site out"]


def test_priorities_order_hooks_of_a_view(site, hooks):
    notes = []
    for name, priority in [("low", -1), ("first", 0), ("high", 5), ("second", 0)]:
        hooks.on_request(priority=priority)(lambda request, name=name: notes.append(name))
        hooks.on_response(priority=priority)(lambda request, response, name=name: notes.append(name.upper()))
    site.serve(hello, hooks=hooks).ask()
    assert notes == ["high", "first", "second", "low", "LOW", "SECOND", "FIRST", "HIGH"]


def test_a_hook_that_is_given_everywhere_runs_once(site, either):
    notes = []
    everywhere = noting(notes, "it")
    site.serve(with_hooks(everywhere)(with_hooks(everywhere)(either)), hooks=everywhere, HOOKS=[everywhere])
    site.ask()
    assert sorted(notes) == ["it in", "it out", "it request", "it response", "it route"]


def test_hooks_run_once_under_a_mirror_that_is_listed_twice(site):
    notes = []
    site.serve(hello, hooks=noting(notes, "it"), mirror=[MIRROR, MIRROR]).ask()
    assert notes == ["it in", "it request", "it route", "it response", "it out"]


def test_an_early_response_ends_hooks_of_its_kind(site, hooks):
    notes = []
    hooks.on_request(lambda request: HttpResponse("early"))
    hooks.on_request(lambda request: notes.append("never"))
    hooks.on_route(lambda request: notes.append("never"))
    site.serve(hello, hooks=hooks).ask()
    assert notes == []


def test_views_hooks_do_not_run_on_other_views(site, hooks):
    hooks.on_response(tell("X-Hook", lambda request, response: "1"))
    site.serve(path("with/", with_hooks(hooks)(hello)), path("without/", hello))
    assert "x-hook" not in site.ask("/without/").headers


def test_a_views_own_hooks_come_before_its_policies(site, hooks):
    hooks.on_request(lambda request: setattr(request.ctx, "open", True))
    policy = Check(lambda request: request.ctx.open)
    assert site.serve(with_hooks(hooks)(require(policy)(hello))).ask().status == 200
    assert site.serve(require(policy)(with_hooks(hooks)(hello))).ask().status == 200


def test_a_views_own_response_hooks_see_its_denial(site, hooks):
    hooks.on_response(tell("X-Saw", lambda request, response: response.status_code))
    assert site.serve(with_hooks(hooks)(require(DenyAll())(hello))).ask().headers["x-saw"] == "403"
