"""Exceptions on views behind the mirror: what hooks make of them, and what stays Django's."""

from __future__ import annotations

import gc
import logging
import sys
import weakref

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.core.signals import got_request_exception
from django.db import IntegrityError, OperationalError
from django.http import Http404, HttpResponse
from django.template.response import SimpleTemplateResponse
from django.test import AsyncClient, Client
from django.urls import Resolver404, path
from django.views import View

from channels_wsdeny import Deny, Hooks
from channels_wsdeny.decorators import public, with_hooks
from tests.mirror import DOORS, Middleware, Site, hello, page, tell

pytestmark = pytest.mark.django_db


class Lost(LookupError):
    pass


class LostAgain(Lost):
    pass


def name_it(request, error):
    """A hook that answers with the name of the exception."""
    return HttpResponse(type(error).__name__, status=418)


async def name_it_async(request, error):
    return name_it(request, error)


def raising(make):
    def view(request):
        raise make()

    return view


def raising_async(make):
    async def view(request):
        raise make()

    return view


def raising_class(make):
    class Raising(View):
        def get(self, request):
            raise make()

    return Raising.as_view()


def raising_guarded(make):
    return public(raising(make))


def raising_guarded_async(make):
    return public(raising_async(make))


def raising_template(make):
    class Raising(SimpleTemplateResponse):
        @property
        def rendered_content(self):
            raise make()

    return lambda request: Raising("none")


KINDS = [raising, raising_async, raising_class, raising_guarded, raising_guarded_async, raising_template]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def failing(request):
    """Makes a view that raises what a function makes."""
    return request.param


# What hooks take.


@pytest.mark.parametrize("hook", [name_it, name_it_async])
def test_a_hook_takes_the_exception_of_a_view(site, hooks, failing, hook):
    hooks.on_exception(Lost)(hook)
    answer = site.serve(failing(Lost), hooks=hooks).ask()
    assert (answer.status, answer.body) == (418, b"Lost")


@pytest.mark.parametrize(
    "error",
    [Http404, PermissionDenied, BadRequest, SuspiciousOperation, OperationalError, Deny],
)
def test_a_hook_takes_what_has_a_status_of_its_own(site, hooks, error):
    hooks.on_exception(error)(name_it)
    assert site.serve(raising(error), hooks=hooks).ask().body == error.__name__.encode()


def test_a_hook_gets_the_very_exception_and_its_traceback(site, hooks):
    error, seen = Lost("here"), []

    @hooks.on_exception
    def keep(request, taken):
        seen.append((taken is error, taken.__traceback__ is not None))
        return HttpResponse()

    site.serve(raising(lambda: error), hooks=hooks).ask()
    assert seen == [(True, True)]


def test_a_hook_takes_subclasses_too(site, hooks):
    hooks.on_exception(LookupError)(name_it)
    assert site.serve(raising(LostAgain), hooks=hooks).ask().body == b"LostAgain"


def test_a_hook_leaves_other_exceptions(site, hooks):
    hooks.on_exception(Lost)(name_it)
    assert site.serve(raising(KeyError), hooks=hooks).ask().code == "server_error"


def test_the_most_specific_type_is_asked_first(site, hooks):
    asked = []
    for taken in (Exception, LostAgain, LookupError, Lost):
        hooks.on_exception(taken)(lambda request, error, taken=taken: asked.append(taken.__name__))
    site.serve(raising(LostAgain), hooks=hooks).ask()
    assert asked == ["LostAgain", "Lost", "LookupError", "Exception"]


def test_one_that_answers_is_the_last_to_be_asked(site, hooks):
    asked = []
    hooks.on_exception(Lost)(name_it)
    hooks.on_exception(LookupError)(lambda request, error: asked.append("never"))
    assert site.serve(raising(Lost), hooks=hooks).ask().status == 418
    assert asked == []


def test_a_views_own_hook_is_asked_before_the_sites(site, hooks):
    asked, own = [], Hooks()
    hooks.on_exception(Lost)(lambda request, error: asked.append("site"))
    own.on_exception(lambda request, error: asked.append("view"))
    site.serve(with_hooks(own)(raising(Lost)), hooks=hooks).ask()
    assert asked == ["view", "site"]


@pytest.mark.parametrize("kind", [raising, raising_async], ids=lambda kind: kind.__name__)
def test_a_views_own_hook_takes_its_exception(site, hooks, kind):
    hooks.on_exception(Lost)(name_it)
    assert site.serve(with_hooks(hooks)(kind(Lost))).ask().body == b"Lost"


def test_each_hook_is_asked_once(site, hooks, failing):
    asked = []
    hooks.on_exception(lambda request, error: asked.append(type(error)))
    site.serve(failing(Lost), hooks=hooks, mirror=["channels_wsdeny.middleware.MirrorMiddleware"] * 2).ask()
    assert asked == [Lost]


def test_a_hook_may_answer_with_a_deny(site, hooks, failing):
    hooks.on_exception(Lost)(lambda request, error: Deny(410))
    assert site.serve(failing(Lost), hooks=hooks).ask().code == "gone"


def test_a_hook_that_fails_itself_lets_nothing_out(site, hooks, failing):
    hooks.on_exception(Lost)(lambda request, error: 1 / 0)
    answer = site.serve(failing(Lost), hooks=hooks).ask()
    assert answer.status == 500
    assert b"division" not in answer.body


def test_a_hook_that_answers_nonsense_lets_nothing_out(site, hooks):
    hooks.on_exception(Lost)(lambda request, error: "fine")
    assert site.serve(raising(Lost), hooks=hooks).ask().status == 500


def test_response_hooks_see_what_a_hook_answered(site, hooks, failing):
    hooks.on_exception(Lost)(name_it)
    hooks.on_response(tell("X-Saw", lambda request, response: response.status_code))
    assert site.serve(failing(Lost), hooks=hooks).ask().headers["x-saw"] == "418"


def test_a_hook_finds_the_context_and_the_route(site, hooks):
    hooks.on_request(lambda request: setattr(request.ctx, "id", "42"))
    hooks.on_exception(
        lambda request, error: HttpResponse(f"{request.ctx.id} {request.resolver_match.kwargs['slug']}")
    )

    def view(request, slug):
        raise Lost

    site.serve(path("<slug>/", view), hooks=hooks)
    assert site.ask("/here/").body == b"42 here"


def test_a_template_response_for_the_exception_of_a_view_is_rendered(site, hooks):
    hooks.on_exception(Lost)(lambda request, error: page("Lost {{ what }}", what="it"))
    assert site.serve(raising(Lost), hooks=hooks).ask().body == b"Lost it"


def test_a_shared_response_is_not_changed_for_the_next_visitor(site, hooks):
    shared = HttpResponse("busy", status=503)
    hooks.on_exception(Lost)(lambda request, error: shared)
    hooks.on_response(lambda request, response: response.set_cookie("visitor", "alice"))
    site.serve(raising(Lost), hooks=hooks).ask()
    assert not shared.cookies


def test_a_hook_may_ask_the_database(site, hooks):
    @hooks.on_exception(Lost)
    def count(request, error):
        return HttpResponse(str(User.objects.count()))

    assert site.serve(raising(Lost), hooks=hooks).ask().body == b"0"


def test_an_asynchronous_hook_may_ask_the_database(site, hooks):
    @hooks.on_exception(Lost)
    async def count(request, error):
        return HttpResponse(str(await User.objects.acount()))

    assert site.serve(raising(Lost), hooks=hooks).ask().body == b"0"


def test_a_hook_for_sockets_does_not_take_exceptions_of_views(site, hooks):
    hooks.on_exception(protocols=("websocket",))(name_it)
    assert site.serve(raising(Lost), hooks=hooks).ask().status == 500


def test_a_deny_that_a_hook_raises_answers(site, hooks, failing, caplog):
    @hooks.on_exception(Lost)
    def explain(request, error):
        raise Deny(409)

    assert site.serve(failing(Lost), hooks=hooks).ask().code == "conflict"
    assert records(caplog) == []


def test_a_deny_that_a_hook_raises_for_an_unrouted_path_answers(site, hooks):
    @hooks.on_exception(Http404)
    def explain(request, error):
        raise Deny(409)

    assert site.serve(path("x/", hello), hooks=hooks).ask("/nowhere/").code == "conflict"


def test_a_deny_that_a_views_own_hook_raises_answers_without_the_mirror(site, hooks):
    @hooks.on_exception(Lost)
    def explain(request, error):
        raise Deny(409)

    assert site.serve(with_hooks(hooks)(raising(Lost)), mirror=[]).ask().code == "conflict"


def test_a_views_own_hook_takes_the_exception_of_its_template(site, hooks):
    hooks.on_exception(Lost)(name_it)
    assert site.serve(with_hooks(hooks)(raising_template(Lost))).ask().body == b"Lost"


def test_a_views_own_response_hook_sees_the_deny_of_its_template(site, hooks):
    hooks.on_response(tell("X-Saw", lambda request, response: response.status_code))
    answer = site.serve(with_hooks(hooks)(raising_template(lambda: Deny(409)))).ask()
    assert (answer.status, answer.headers["x-saw"]) == (409, "409")


# Unrouted paths, middleware, and what a view did wrong.


def test_a_hook_takes_the_404_of_an_unrouted_path(site, hooks):
    hooks.on_exception(Http404)(name_it)
    assert site.serve(path("x/", hello), hooks=hooks).ask("/nowhere/").body == b"Resolver404"


def test_a_hook_may_take_unrouted_paths_alone(site, hooks):
    hooks.on_exception(Resolver404)(name_it)
    site.serve(path("x/", raising(Http404)), hooks=hooks)
    assert [site.ask(url).status for url in ("/x/", "/nowhere/")] == [404, 418]


def test_a_404_that_a_view_returns_is_no_exception(site, hooks):
    hooks.on_exception(name_it)
    answer = site.serve(lambda request: HttpResponse("mine", status=404), hooks=hooks).ask()
    assert (answer.status, answer.body) == (404, b"mine")


class Raises(Middleware):
    def come(self, request):
        raise Lost


class RaisesOnTheWayOut(Middleware):
    def go(self, request, response):
        raise Lost


class RaisesBeforeTheView(Middleware):
    def process_view(self, request, view, args, kwargs):
        raise Lost


@pytest.mark.parametrize("middleware", ["Raises", "RaisesOnTheWayOut", "RaisesBeforeTheView"])
def test_a_hook_takes_the_exception_of_middleware_further_in(site, hooks, middleware):
    hooks.on_exception(Lost)(name_it)
    site.serve(hello, hooks=hooks, inside=[f"{__name__}.{middleware}"])
    assert site.ask().body == b"Lost"


@pytest.mark.parametrize("middleware", ["Raises", "RaisesOnTheWayOut", "RaisesBeforeTheView"])
def test_what_middleware_further_in_raises_is_a_problem_to_a_program(site, middleware):
    assert site.serve(hello, inside=[f"{__name__}.{middleware}"]).ask().code == "server_error"


def test_a_hook_takes_the_error_of_a_view_that_returns_nothing(site, hooks):
    hooks.on_exception(ValueError)(name_it)
    assert site.serve(lambda request: None, hooks=hooks).ask().body == b"ValueError"


class TakesErrors(Middleware):
    def process_exception(self, request, error):
        return HttpResponse("taken", status=409)


def test_middleware_further_in_may_take_an_exception_first(site, hooks):
    hooks.on_exception(name_it)
    site.serve(raising(Lost), hooks=hooks, inside=[f"{__name__}.TakesErrors"])
    assert site.ask().body == b"taken"


def test_middleware_further_out_may_take_what_no_hook_takes(site, hooks):
    hooks.on_exception(KeyError)(name_it)
    site.serve(raising(Lost), hooks=hooks, outside=[f"{__name__}.TakesErrors"])
    assert site.ask().body == b"taken"


# What stays Django's.


@pytest.fixture
def reported():
    """The exceptions that Django reports to the likes of Sentry, as they are reported."""
    seen = []

    def receive(sender, **kwargs):
        seen.append(sys.exc_info()[0])

    got_request_exception.connect(receive)
    yield seen
    got_request_exception.disconnect(receive)


def test_what_no_hook_takes_is_reported(site, hooks, failing, reported):
    hooks.on_exception(KeyError)(name_it)
    assert site.serve(failing(Lost), hooks=hooks).ask().status == 500
    assert reported == [Lost]


def test_what_a_hook_takes_is_not_reported(site, hooks, failing, reported):
    hooks.on_exception(Lost)(name_it)
    site.serve(failing(Lost), hooks=hooks).ask()
    assert reported == []


def test_a_deny_is_not_reported(site, failing, reported):
    site.serve(failing(lambda: Deny(409))).ask()
    assert reported == []


def records(caplog, name="django.request"):
    return [record for record in caplog.records if record.name == name and record.levelno >= logging.ERROR]


def test_what_no_hook_takes_is_logged_once_with_its_traceback(site, failing, caplog):
    site.serve(failing(Lost)).ask()
    (record,) = records(caplog)
    assert record.getMessage() == "Internal Server Error: /"
    assert record.exc_info[0] is Lost
    assert record.status_code == 500


@pytest.mark.parametrize("kind", ["on_request", "on_route", "on_response", "around"])
def test_the_failure_of_a_hook_is_logged_once(site, hooks, kind, caplog):
    def fail(*arguments):
        raise Lost

    async def around(request, call_next):
        await call_next(request)
        raise Lost

    getattr(hooks, kind)(around if kind == "around" else fail)
    assert site.serve(hello, hooks=hooks).ask().status == 500
    (record,) = records(caplog)
    assert record.exc_info[0] is Lost


def test_what_a_hook_takes_is_not_logged_as_an_error(site, hooks, failing, caplog):
    hooks.on_exception(Lost)(name_it)
    site.serve(failing(Lost), hooks=hooks).ask()
    assert records(caplog) == []


def test_a_deny_is_not_logged_as_an_error(site, failing, caplog):
    site.serve(failing(lambda: Deny(409))).ask()
    assert records(caplog) == []


def test_a_deny_is_logged_with_its_code(site, failing, caplog):
    site.serve(failing(lambda: Deny(409, code="taken"))).ask()
    (record,) = [record for record in caplog.records if record.name == "channels_wsdeny"]
    assert (record.status, record.code, record.path) == (409, "taken", "/")


def test_a_suspicious_operation_is_logged_for_security(site, caplog):
    site.serve(raising(lambda: SuspiciousOperation("very"))).ask()
    assert len(records(caplog, "django.security.SuspiciousOperation")) == 1


@pytest.mark.parametrize("url", ["/nowhere/", "/view/"])
def test_a_404_is_logged_by_django(site, caplog, url):
    site.serve(path("view/", raising(Http404))).ask(url)
    messages = [record.getMessage() for record in caplog.records if record.name == "django.request"]
    assert messages == [f"Not Found: {url}"]


def test_permission_denied_is_logged_by_django(site, caplog):
    site.serve(raising(PermissionDenied)).ask()
    messages = [record.getMessage() for record in caplog.records if record.name == "django.request"]
    assert messages == ["Forbidden (Permission denied): /"]


def test_the_test_client_raises_what_a_view_raises(settings, failing):
    Site(settings, DOORS["wsgi"]()).serve(failing(Lost))
    with pytest.raises(Lost):
        Client().get("/")


def test_the_asynchronous_test_client_raises_what_a_view_raises(settings, failing):
    Site(settings, DOORS["asgi"]()).serve(failing(Lost))
    with pytest.raises(Lost):
        async_to_sync(AsyncClient().get)("/")


def test_the_test_client_knows_what_a_view_raised(settings, failing):
    Site(settings, DOORS["wsgi"]()).serve(failing(Lost))
    assert Client(raise_request_exception=False).get("/").exc_info[0] is Lost


@pytest.mark.parametrize("error", [Http404, PermissionDenied, BadRequest, SuspiciousOperation])
def test_the_test_client_does_not_raise_what_has_a_status(settings, failing, error):
    Site(settings, DOORS["wsgi"]()).serve(failing(error))
    assert Client().get("/").status_code in {400, 403, 404}


def test_the_test_client_does_not_raise_a_deny(settings, failing):
    Site(settings, DOORS["wsgi"]()).serve(failing(lambda: Deny(409)))
    assert Client().get("/").status_code == 409


def test_exceptions_may_still_be_propagated(settings):
    settings.DEBUG_PROPAGATE_EXCEPTIONS = True
    Site(settings, DOORS["wsgi"]()).serve(raising(Lost))
    with pytest.raises(Lost):
        Client(raise_request_exception=False).get("/")


def test_an_exception_of_one_request_is_not_that_of_the_next(site):
    site.serve(path("bad/", raising(Lost)), path("good/", hello))
    assert [site.ask(url).status for url in ("/bad/", "/good/", "/bad/", "/good/")] == [500, 200, 500, 200]


# Deny.


def test_a_deny_of_a_view_answers(site, failing):
    answer = site.serve(failing(lambda: Deny(409, "Already here.", code="taken", headers={"X-A": "1"}))).ask()
    assert (answer.status, answer.headers["x-a"]) == (409, "1")
    assert (answer.code, answer.problem["detail"]) == ("taken", "Already here.")


def test_a_deny_of_code_below_a_view_answers(site):
    def load():
        raise Deny(402, code="pay")

    def view(request):
        return HttpResponse([load() for _ in range(1)])

    assert site.serve(view).ask().code == "pay"


@pytest.mark.parametrize("middleware", ["Denies", "DeniesOnTheWayOut", "DeniesBeforeTheView"])
def test_a_deny_of_middleware_further_in_answers(site, middleware):
    assert site.serve(hello, inside=[f"{__name__}.{middleware}"]).ask().code == "conflict"


class Denies(Middleware):
    def come(self, request):
        raise Deny(409)


class DeniesOnTheWayOut(Middleware):
    def go(self, request, response):
        raise Deny(409)


class DeniesBeforeTheView(Middleware):
    def process_view(self, request, view, args, kwargs):
        raise Deny(409)


def test_a_deny_with_a_response_of_its_own_answers_with_it(site, failing):
    answer = site.serve(failing(lambda: Deny(response=HttpResponse("mine", status=410)))).ask()
    assert (answer.status, answer.body) == (410, b"mine")


def test_a_deny_that_is_raised_again_and_again_keeps_nobody_alive(site, failing):
    shared, alive = Deny(409), []

    def make():
        token = type("Token", (), {})()
        alive.append(weakref.ref(token))
        assert token
        raise shared

    site.serve(failing(make))
    for _ in range(3):
        assert site.ask().status == 409
    gc.collect()
    assert shared.__traceback__ is None
    assert [token() for token in alive] == [None] * 3


def test_a_deny_that_a_view_catches_is_its_own_affair(site):
    def view(request):
        try:
            raise Deny(409)
        except Deny as deny:
            return HttpResponse(deny.code)

    assert site.serve(view).ask().body == b"conflict"


def test_an_integrity_error_of_the_database_can_be_taken(site, hooks):
    hooks.on_exception(IntegrityError)(lambda request, error: Deny(409))

    def view(request):
        User.objects.create_user("same")
        User.objects.create_user("same")

    assert site.serve(view, hooks=hooks).ask().code == "conflict"
