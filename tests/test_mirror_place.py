"""Where the mirror stands: among other middleware, under stacks, once or twice."""

from __future__ import annotations

import pytest
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.http import (
    HttpResponse,
)
from django.urls import path, re_path

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.middleware import MirrorMiddleware
from tests.clients import fetch
from tests.mirror import (
    DOORS,
    OUTSIDE,
    Middleware,
    Site,
    hello,
    noting,
    tell,
)

pytestmark = pytest.mark.django_db


class Stricter(MirrorMiddleware):
    def __call__(self, request):
        request.is_strict = True
        return super().__call__(request)


def test_a_subclass_of_the_mirror_runs_the_hooks(site, hooks):
    hooks.on_response(tell("X-Hook", lambda request, response: request.is_strict))
    site.serve(hello, hooks=hooks, mirror=[f"{__name__}.Stricter"])
    assert site.ask().headers["x-hook"] == "True"


class Checks(MirrorMiddleware):
    def process_view(self, request, view, args, kwargs):
        if request.GET.get("key") != "1":
            return HttpResponse("own check", status=403)
        return super().process_view(request, view, args, kwargs)


def test_a_subclass_of_the_mirror_may_have_checks_of_its_own(site, hooks):
    hooks.on_route(lambda request: HttpResponse("routed"))
    site.serve(hello, hooks=hooks, mirror=[f"{__name__}.Checks"])
    assert [site.ask(url).body for url in ("/", "/?key=1")] == [b"own check", b"routed"]


@pytest.mark.parametrize("place", ["first", "last", "alone"])
def test_the_mirror_may_stand_anywhere(site, hooks, place):
    outside, inside = {"first": ([], OUTSIDE), "last": (OUTSIDE, []), "alone": ([], [])}[place]
    notes = []
    site.serve(hello, hooks=noting(notes, "it"), outside=outside, inside=inside).ask()
    assert notes == ["it in", "it request", "it route", "it response", "it out"]


class Copies(Middleware):
    def go(self, request, response):
        response["X-Copy"] = response.headers["X-Hook"]
        return response


def test_middleware_further_out_sees_what_hooks_made_of_a_response(site, hooks):
    hooks.on_response(tell("X-Hook", lambda request, response: "1"))
    site.serve(hello, hooks=hooks, outside=[f"{__name__}.Copies"])
    assert site.ask().headers["x-copy"] == "1"


class AnswersAlone(Middleware):
    def come(self, request):
        return HttpResponse("alone")


def test_hooks_see_the_answer_of_middleware_further_in(site, hooks):
    hooks.on_response(tell("X-Hook", lambda request, response: response.content.decode()))
    site.serve(hello, hooks=hooks, inside=[f"{__name__}.AnswersAlone"])
    assert site.ask().headers["x-hook"] == "alone"


def test_hooks_do_not_run_when_middleware_further_out_answers(site, hooks):
    notes = []
    site.serve(hello, hooks=noting(notes, "it"), outside=[f"{__name__}.AnswersAlone"])
    if site.is_opaque:
        pytest.skip("there the stack runs them, around all of Django")
    assert site.ask().body == b"alone"
    assert notes == []


def test_without_the_mirror_the_stack_runs_request_and_response_hooks(settings, hooks):
    site = Site(settings, DOORS["stack"]())
    hooks.on_response(tell("X-Hook", lambda request, response: "1"))
    site.serve(path("x/", hello), hooks=hooks, mirror=[])
    assert [site.ask(url).headers["x-hook"] for url in ("/x/", "/nowhere/")] == ["1", "1"]


@pytest.mark.parametrize("given", ["nowhere.hooks", "tests.test_middleware.VIEWS", 42])
def test_hooks_that_cannot_be_used_open_no_view(site, given):
    def view(request):
        raise AssertionError

    assert site.serve(view, HOOKS=[given]).ask().code == "server_error"


def test_hooks_that_are_added_later_run(site, hooks):
    site.serve(hello, hooks=hooks).ask()
    hooks.on_response(tell("X-Hook", lambda request, response: "1"))
    assert site.ask().headers["x-hook"] == "1"


class Retries(Middleware):
    """Asks once more, as middleware for deadlocks of the database does."""

    def go(self, request, response):
        if response.status_code == 503 and not self._is_async:
            return self.get_response(request)
        return response


def test_a_request_that_middleware_repeats_runs_the_view_again_and_hooks_once(settings, hooks):
    notes = []

    def view(request):
        notes.append("view")
        return HttpResponse("done" if len(notes) > 4 else "busy", status=200 if len(notes) > 4 else 503)

    site = Site(settings, DOORS["wsgi"]())
    site.serve(view, hooks=noting(notes, "it"), outside=[f"{__name__}.Retries"])
    assert site.ask().body == b"done"
    assert sorted(set(notes)) == ["it in", "it out", "it request", "it response", "it route", "view"]
    assert [notes.count(note) for note in ("it request", "view")] == [1, 2]


def make_mirror(get_response):
    return MirrorMiddleware(get_response)


def test_a_mirror_that_a_function_makes_runs_hooks_once(site):
    notes = []
    site.serve(hello, hooks=noting(notes, "it"), mirror=[f"{__name__}.make_mirror"]).ask()
    assert sorted(notes) == ["it in", "it out", "it request", "it response", "it route"]


# Stacks around stacks.


def stacks(settings, http, *registries):
    """`http` in stacks, each with a registry of hooks, the last one outermost."""
    Site(settings, DOORS["asgi"]()).serve(hello)
    application = http
    for hooks in registries:
        application = DenyMiddlewareStack(application, hooks=hooks)
    return application


async def test_hooks_of_nested_stacks_enclose_a_view(settings):
    notes = []
    application = stacks(settings, get_asgi_application(), noting(notes, "inner"), noting(notes, "outer"))
    assert (await fetch(application, "/", headers=[(b"host", b"testserver")])).body == b"hello world"
    assert [note for note in notes if "re" in note] == [
        "outer request",
        "inner request",
        "inner response",
        "outer response",
    ]


async def test_hooks_of_nested_stacks_run_once_on_a_view(settings):
    notes = []
    hooks = noting(notes, "it")
    application = stacks(settings, get_asgi_application(), hooks, hooks)
    await fetch(application, "/", headers=[(b"host", b"testserver")])
    assert sorted(notes) == ["it in", "it out", "it request", "it response", "it route"]


async def test_hooks_of_a_stack_reach_views_behind_channels_own_wrappers_and_routers(settings):
    notes = []
    http = URLRouter([re_path("", AuthMiddlewareStack(get_asgi_application()))])
    application = stacks(settings, ProtocolTypeRouter({"http": http}), noting(notes, "it"))
    assert (await fetch(application, "/", headers=[(b"host", b"testserver")])).body == b"hello world"
    assert notes == ["it in", "it request", "it route", "it response", "it out"]
