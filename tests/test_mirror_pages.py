"""What goes out for an error of a view: pages to browsers, problems to programs, and secrets to nobody."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.core.signals import got_request_exception
from django.db import OperationalError
from django.http import Http404, HttpResponse
from django.template import engines
from django.template.response import SimpleTemplateResponse
from django.urls import path

from channels_wsdeny import Deny, Hooks
from channels_wsdeny.decorators import login_required, require
from channels_wsdeny.policies import DenyAll, IsStaff
from tests.mirror import BROWSER, DOORS, OUTSIDE, Middleware, Site, hello, tell

pytestmark = pytest.mark.django_db

PROGRAMS = [None, "*/*", "application/json", "application/problem+json", "text/html;q=0.5, application/json"]
BROWSERS = [BROWSER, "text/html", "text/html, application/json;q=0.9"]


@pytest.fixture(params=DOORS)
def site(request, settings):
    settings.LOGIN_URL = "/login/"
    return Site(settings, DOORS[request.param]())


@pytest.fixture
def debug(settings):
    settings.DEBUG = True


ERRORS = {
    400: [lambda: BadRequest("secret"), lambda: SuspiciousOperation("secret")],
    403: [lambda: PermissionDenied("secret")],
    404: [lambda: Http404("secret")],
    500: [lambda: ZeroDivisionError("secret")],
}
CASES = [(status, make) for status, makers in ERRORS.items() for make in makers]
each_error = pytest.mark.parametrize(("status", "make"), CASES, ids=lambda value: str(value)[:3])


def raising(make):
    def view(request):
        raise make()

    return view


def raising_async(make):
    async def view(request):
        raise make()

    return view


def accepting(value):
    return {} if value is None else {"Accept": value}


# Programs.


@each_error
@pytest.mark.parametrize("kind", [raising, raising_async])
def test_a_program_gets_a_problem(site, status, make, kind):
    answer = site.serve(kind(make)).ask()
    assert (answer.status, answer.problem["status"]) == (status, status)


@pytest.mark.parametrize("accept", PROGRAMS)
def test_whoever_does_not_prefer_html_is_a_program(site, accept):
    answer = site.serve(raising(Http404)).ask(**accepting(accept))
    assert answer.code == "not_found"


def test_plain_text_is_for_those_who_prefer_it(site):
    answer = site.serve(raising(Http404)).ask(Accept="text/plain")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.body.startswith(b"404 Not Found")


def test_a_problem_is_not_stored_and_varies(site):
    answer = site.serve(raising(Http404)).ask()
    assert "no-store" in answer.headers["cache-control"]
    assert "Accept" in answer.headers["vary"]


@each_error
def test_the_problem_of_an_unrouted_path_and_of_views_tells_no_secret(site, status, make):
    assert b"secret" not in site.serve(raising(make)).ask().body


def test_an_unrouted_path_tells_no_routes(site):
    answer = site.serve(path("hidden-route/", hello)).ask("/nowhere/")
    assert answer.code == "not_found"
    assert b"hidden-route" not in answer.body


def test_a_disallowed_host_is_a_problem(site, settings):
    settings.ALLOWED_HOSTS = ["elsewhere.example"]
    site.serve(lambda request: HttpResponse(request.get_host()), outside=[], inside=[])
    assert site.ask().code == "bad_request"


def test_a_database_that_is_gone_is_unavailable_to_a_program_as_on_a_socket(site):
    answer = site.serve(raising(lambda: OperationalError("secret"))).ask()
    assert answer.status in {500, 503}
    assert answer.problem["status"] == answer.status
    assert b"secret" not in answer.body


def test_a_view_may_return_its_own_errors(site):
    view = path("<int:status>/", lambda request, status: HttpResponse("mine", status=status))
    site.serve(view)
    assert [site.ask(f"/{status}/").body for status in (400, 401, 403, 404, 418, 500, 503)] == [b"mine"] * 7


def test_a_view_may_return_its_own_template_for_an_error(site):
    def view(request):
        return SimpleTemplateResponse(engines["django"].from_string("mine"), status=404)

    assert site.serve(view).ask().body == b"mine"


class AnswersErrors(Middleware):
    def go(self, request, response):
        if response.status_code == 500:
            return HttpResponse("mine", status=500)
        return response


class TakesErrors(Middleware):
    def process_exception(self, request, error):
        return HttpResponse("mine", status=500)


@pytest.mark.parametrize("place", ["inside", "outside"])
@pytest.mark.parametrize("middleware", ["AnswersErrors", "TakesErrors"])
def test_what_other_middleware_answers_for_an_error_stays(site, middleware, place):
    stack = [f"{__name__}.{middleware}"]
    options = {"inside": stack} if place == "inside" else {"outside": [*stack, *OUTSIDE]}
    site.serve(raising(ZeroDivisionError), **options)
    assert site.ask().body == b"mine"


def test_what_a_view_answers_that_has_reported_its_exception_stays(site):
    def view(request):
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            got_request_exception.send(sender=None, request=request)
            return HttpResponse("mine", status=500)

    assert site.serve(view).ask().body == b"mine"


class AnswersAlone(Middleware):
    def come(self, request):
        return HttpResponse("{}", status=404, content_type="application/json")


def test_what_middleware_answers_for_a_path_of_its_own_stays(site):
    assert site.serve(path("x/", hello), inside=[f"{__name__}.AnswersAlone"]).ask("/nowhere/").body == b"{}"


class Adds(Middleware):
    def go(self, request, response):
        response["X-Inside"] = "1"
        response["Vary"] = "Origin"
        response.set_cookie("inside", "1")
        return response


@pytest.mark.parametrize("url", ["/nowhere/", "/failing/", "/denied/"])
def test_what_middleware_further_in_adds_to_an_error_goes_out(site, url):
    urls = [path("failing/", raising(ZeroDivisionError)), path("denied/", require(DenyAll())(hello))]
    site.serve(*urls, inside=[f"{__name__}.Adds"])
    answer = site.ask(url)
    assert (answer.headers["x-inside"], list(answer.cookies)) == ("1", ["inside"])
    assert "Origin" in answer.headers["vary"]


def test_what_middleware_further_in_adds_goes_out_with_what_a_hook_answers(site):
    hooks = Hooks()
    hooks.on_exception(Http404)(lambda request, error: HttpResponse("taken"))
    answer = site.serve(path("x/", hello), hooks=hooks, inside=[f"{__name__}.Adds"]).ask("/nowhere/")
    assert (answer.headers["x-inside"], list(answer.cookies)) == ("1", ["inside"])


class Secures(Middleware):
    def go(self, request, response):
        response["Content-Security-Policy"] = "default-src 'self'"
        return response


@pytest.mark.parametrize("of", ["problem", "hook"])
def test_the_content_security_policy_of_middleware_further_in_goes_out(site, of):
    hooks = Hooks()
    if of == "hook":
        hooks.on_exception(Http404)(lambda request, error: HttpResponse("<h1>Lost</h1>", status=404))
    site.serve(path("x/", hello), hooks=hooks, inside=[f"{__name__}.Secures"])
    assert site.ask("/nowhere/").headers["content-security-policy"] == "default-src 'self'"


class Measures(Middleware):
    def go(self, request, response):
        response["Content-Length"] = str(len(response.content))
        response["Content-Language"] = "en"
        return response


def test_content_headers_of_the_page_that_is_replaced_do_not_go_out(site):
    answer = site.serve(raising(Http404), inside=[f"{__name__}.Measures"]).ask()
    assert answer.headers.get("content-length") in {None, str(len(answer.body))}


# Browsers.


def page_not_found(request, exception):
    return HttpResponse("page 404", status=404)


def permission_denied(request, exception):
    return HttpResponse("page 403", status=403)


def bad_request(request, exception):
    return HttpResponse("page 400", status=400)


def server_error(request):
    return HttpResponse("page 500", status=500)


HANDLERS = {
    "handler400": bad_request,
    "handler403": permission_denied,
    "handler404": page_not_found,
    "handler500": server_error,
}


@each_error
@pytest.mark.parametrize("accept", BROWSERS)
def test_a_browser_gets_the_sites_own_page(site, status, make, accept):
    answer = site.serve(raising(make), handlers=HANDLERS).ask(Accept=accept)
    assert (answer.status, answer.body) == (status, f"page {status}".encode())


@each_error
def test_a_browser_gets_djangos_page_where_the_site_has_none(site, status, make):
    answer = site.serve(raising(make)).browse()
    assert (answer.status, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert b"<!doctype html>" in answer.body.lower()


def test_a_browser_gets_the_sites_own_page_for_an_unrouted_path(site):
    answer = site.serve(path("x/", hello), handlers=HANDLERS).browse("/nowhere/")
    assert (answer.status, answer.body) == (404, b"page 404")


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_browser_gets_the_sites_own_page_for_a_deny(site, status):
    answer = site.serve(raising(lambda: Deny(status)), handlers=HANDLERS).browse()
    assert (answer.status, answer.body) == (status, f"page {status}".encode())


def test_a_browser_gets_the_sites_own_page_for_a_policy(site):
    answer = site.serve(require(DenyAll())(hello), handlers=HANDLERS).browse()
    assert (answer.status, answer.body) == (403, b"page 403")


TEMPLATES = {f"{status}.html": f"template {status} {{{{ exception }}}}" for status in (400, 403, 404, 500)}


@pytest.fixture
def templates(settings):
    """The site has templates for its error pages."""
    settings.TEMPLATES = [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {"loaders": [("django.template.loaders.locmem.Loader", TEMPLATES)]},
        }
    ]


@each_error
@pytest.mark.usefixtures("templates")
def test_a_browser_gets_the_sites_own_template(site, status, make):
    answer = site.serve(raising(make)).browse()
    assert (answer.status, answer.body.split()[:2]) == (status, [b"template", str(status).encode()])


@pytest.mark.usefixtures("templates")
def test_a_browser_gets_the_sites_own_template_for_a_deny(site):
    answer = site.serve(raising(lambda: Deny(403, "Not you."))).browse()
    assert (answer.status, answer.body) == (403, b"template 403 Not you.")


def test_a_browser_gets_a_plain_page_for_a_deny_that_the_site_has_none_for(site):
    answer = site.serve(raising(lambda: Deny(409, "<Already> here."))).browse()
    assert answer.headers["content-type"].startswith("text/html")
    assert b"&lt;Already&gt; here." in answer.body


def test_a_page_that_fails_lets_the_denial_out_without_it(site):
    def fail(request, exception):
        raise ZeroDivisionError("secret")

    answer = site.serve(raising(lambda: Deny(403)), handlers={"handler403": fail}).browse()
    assert answer.status in {403, 500}
    assert b"secret" not in answer.body


def test_a_page_with_another_status_does_not_change_that_of_the_denial(site):
    def ok(request, exception):
        return HttpResponse("welcome", status=200)

    answer = site.serve(require(DenyAll())(hello), handlers={"handler403": ok}).browse()
    assert (answer.status, b"welcome" in answer.body) == (403, False)


def test_response_hooks_see_the_page(site):
    hooks = Hooks()
    hooks.on_response(tell("X-Saw", lambda request, response: response.content.decode()))
    site.serve(raising(Http404), hooks=hooks, handlers=HANDLERS)
    assert site.browse().headers["x-saw"] == "page 404"


# The log-in page.


def test_a_browser_is_sent_to_the_log_in_page(site):
    answer = site.serve(path("there/", login_required(hello))).browse("/there/?a=1")
    assert (answer.status, answer.headers["location"]) == (302, "/login/?next=/there/%3Fa%3D1")


def test_a_browser_is_sent_there_by_a_deny_of_a_view(site):
    answer = site.serve(raising(lambda: Deny(401))).browse()
    assert (answer.status, answer.headers["location"]) == (302, "/login/?next=/")


def test_a_browser_is_sent_there_by_a_request_hook(site):
    hooks = Hooks()
    hooks.on_request(lambda request: Deny(401))
    answer = site.serve(hello, hooks=hooks).browse()
    if site.is_opaque:
        pytest.skip("there the stack answers, before there is a view")
    assert (answer.status, answer.headers["location"]) == (302, "/login/?next=/")


def test_a_browser_whose_user_nobody_knows_yet_is_sent_there(site):
    hooks = Hooks()
    hooks.on_request(lambda request: Deny(401))
    site.serve(hello, hooks=hooks, outside=[], inside=OUTSIDE)
    assert site.browse().status in {302, 401}


def test_a_user_is_not_sent_in_a_circle(site):
    site.serve(raising(lambda: Deny(401))).log_in(User.objects.create_user("alice"))
    assert site.browse().status == 401


def test_the_way_to_the_log_in_page_is_not_stored(site):
    answer = site.serve(login_required(hello)).browse()
    assert "no-store" in answer.headers["cache-control"]


def test_a_program_is_told_how_to_log_in(site):
    answer = site.serve(login_required(hello)).ask()
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Session")


def test_a_view_may_name_a_log_in_page_of_its_own(site):
    def view(request):
        raise AssertionError

    view.login_url = "/other/"
    assert site.serve(login_required(view)).browse().headers["location"] == "/other/?next=/"


# DEBUG.


@each_error
@pytest.mark.usefixtures("debug")
def test_a_browser_gets_djangos_technical_page_with_debug(site, status, make):
    if status == 403:
        pytest.skip("Django has none for it")
    answer = site.serve(raising(make)).browse()
    assert answer.status == status
    assert b"secret" in answer.body
    assert b"DEBUG = True" in answer.body


@pytest.mark.usefixtures("debug")
def test_a_browser_gets_djangos_technical_page_for_an_unrouted_path_with_debug(site):
    answer = site.serve(path("known-route/", hello)).browse("/nowhere/")
    assert (answer.status, b"known-route" in answer.body) == (404, True)


@each_error
@pytest.mark.usefixtures("debug")
def test_a_program_is_told_more_with_debug(site, status, make):
    answer = site.serve(raising(make)).ask()
    assert answer.status == status
    assert "secret" in answer.problem["debug"]


@pytest.mark.usefixtures("debug")
def test_a_policy_is_told_with_debug(site):
    assert "IsStaff()" in site.serve(require(IsStaff())(hello)).ask().problem["debug"]


def test_a_policy_is_not_told_otherwise(site):
    assert b"IsStaff" not in site.serve(require(IsStaff())(hello)).ask().body
