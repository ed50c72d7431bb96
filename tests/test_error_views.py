"""The error views of a URLconf, and the site's own pages, which the mirror leaves alone."""

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.db import OperationalError
from django.http import Http404, HttpResponse
from django.urls import path, register_converter
from django.urls.converters import IntConverter

from channels_wsdeny import Deny, Hooks, views
from channels_wsdeny.decorators import login_required, require
from channels_wsdeny.policies import DenyAll
from tests.support.policies import raising
from tests.support.site import BROWSER, OUTSIDE, hello, page, page_of, tell, templates
from tests.support.transports import middleware_with

pytestmark = pytest.mark.django_db

OURS = {
    "handler400": "channels_wsdeny.views.bad_request",
    "handler403": "channels_wsdeny.views.permission_denied",
    "handler404": "channels_wsdeny.views.page_not_found",
    "handler500": "channels_wsdeny.views.server_error",
}


MINE = {f"handler{status}": page_of(status) for status in (400, 403, 404, 500)}
ERRORS = {
    "bad": (400, lambda: BadRequest("secret")),
    "suspicious": (400, lambda: SuspiciousOperation("secret")),
    "forbidden": (403, lambda: PermissionDenied("secret")),
    "gone": (404, lambda: Http404("secret")),
    "broken": (500, lambda: ZeroDivisionError("secret")),
    "database": (503, lambda: OperationalError("secret")),
}
URLS = [path(f"{name}/", raising(make)) for name, (_, make) in ERRORS.items()]


class Missing(IntConverter):
    """Finds no object of that number."""

    def to_python(self, value):
        raise Http404(value)


register_converter(Missing, "missing")
PROGRAMS = [None, "*/*", "application/json", "text/html;q=0.5, application/json"]


@pytest.fixture
def one(settings, one):
    settings.LOGIN_URL = "/login/"
    return one


@pytest.fixture
def own_pages(settings):
    settings.TEMPLATES = templates(**{str(status): f"template {status}" for status in (403, 404)})


def kind_of(answer):
    return answer.headers["content-type"].partition(";")[0]


@pytest.mark.parametrize("accept", [*PROGRAMS, BROWSER])
@pytest.mark.parametrize("handlers", [None, MINE])
def test_without_them_the_sites_own_pages_stay_as_they_are(one, accept, handlers):
    one.serve(*URLS, handlers=handlers)
    headers = {} if accept is None else {"Accept": accept}
    for url in [f"/{name}/" for name in ERRORS] + ["/nowhere/"]:
        answer = one.ask(url, **headers)
        assert kind_of(answer) == "text/html"
        assert answer.body.startswith(b"page " if handlers else b"\n<!doctype html>")


@pytest.mark.parametrize("handlers", [None, OURS])
def test_with_debug_a_browser_gets_djangos_technical_pages(one, settings, handlers):
    settings.DEBUG = True
    site = one.serve(*URLS, path("missing/<missing:number>/", hello), handlers=handlers)
    assert b"known" in site.serve(path("known/", hello), *URLS, handlers=handlers).browse("/nowhere/").body
    for url in ("/gone/", "/broken/", "/missing/1/"):
        assert b"DEBUG = True" in site.browse(url).body


def test_a_program_gets_the_problem_of_each_error(site):
    site.serve(*URLS, handlers=OURS)
    for accept in PROGRAMS:
        headers = {} if accept is None else {"Accept": accept}
        for name, (status, _) in {**ERRORS, "nowhere": (404, None)}.items():
            answer = site.ask(f"/{name}/", **headers)
            assert (answer.status, answer.problem["status"]) == (status, status)
            assert "no-store" in answer.headers["cache-control"]
            assert "Accept" in answer.headers["vary"]
            assert b"secret" not in answer.body
    assert site.ask("/database/").headers["retry-after"] == "5"
    assert site.ask("/gone/", Accept="text/plain").body.startswith(b"404 Not Found")


def test_a_browser_gets_the_pages_of_the_site(one, own_pages):
    one.serve(*URLS, handlers=OURS)
    for url, status in {"forbidden": 403, "gone": 404, "nowhere": 404}.items():
        assert one.browse(f"/{url}/").body == b"template %d" % status
    answer = one.browse("/broken/")
    assert (answer.status, kind_of(answer)) == (500, "text/html")


fail = raising(LookupError)
Raises, RaisesOnTheWayOut, RaisesBeforeTheView = (
    middleware_with(**{name: fail}) for name in ("come", "go", "process_view")
)


def test_exception_hooks_are_asked_once_about_inner_middleware_and_unrouted_paths(site, hooks, ran):
    hooks.on_exception(LookupError)(lambda request, error: HttpResponse("taken", status=418))
    hooks.on_exception(Http404)(lambda request, error: ran.append(type(error).__name__))
    for middleware in ("Raises", "RaisesOnTheWayOut", "RaisesBeforeTheView"):
        site.serve(hello, hooks=hooks, inside=[f"{__name__}.{middleware}"], handlers=OURS)
        assert (site.ask().status, site.browse().body) == (418, b"taken")
    site.serve(path("view/", raising(Http404)), hooks=hooks, handlers=OURS)
    assert [site.ask(url).status for url in ("/view/", "/nowhere/")] == [404, 404]
    assert ran == ["Http404", "Resolver404"]


Denies = middleware_with(come=raising(lambda: Deny(410)))


def test_a_deny_of_inner_middleware_answers_and_one_of_a_hook_too(one, hooks):
    @hooks.on_exception(LookupError)
    def explain(request, error):
        raise Deny(409)

    one.serve(hello, hooks=hooks, inside=[f"{__name__}.Raises"], handlers=OURS)
    assert one.ask().code == "conflict"
    one.serve(hello, hooks=hooks, inside=[f"{__name__}.Denies"], handlers=OURS)
    assert one.ask().code == "gone"


def test_response_hooks_and_outer_middleware_see_the_problem(one, hooks):
    hooks.on_response(tell("X-Saw", lambda request, response: response["Content-Type"]))
    answer = one.serve(*URLS, hooks=hooks, handlers=OURS).ask("/gone/")
    assert answer.headers["x-saw"] == "application/problem+json"
    assert answer.headers["content-length"] == str(len(answer.body))


def test_what_django_logs_is_logged_once(one, caplog):
    one.serve(*URLS, handlers=OURS)
    for url in ("/broken/", "/gone/", "/forbidden/"):
        one.ask(url)
    assert [record.getMessage() for record in caplog.records] == [
        "Internal Server Error: /broken/",
        "Not Found: /gone/",
        "Forbidden (Permission denied): /forbidden/",
    ]


@pytest.mark.parametrize("handlers", [MINE, OURS])
def test_a_browser_gets_the_sites_own_page_for_a_denial(one, own_pages, handlers):
    urls = [path(f"{status}/", raising(lambda status=status: Deny(status))) for status in (403, 404)]
    one.serve(*urls, path("policy/", require(DenyAll())(hello)), handlers=handlers)
    kind = b"page " if handlers is MINE else b"template "
    bodies = [one.browse(url).body for url in ("/403/", "/404/", "/policy/")]
    assert bodies == [kind + b"403", kind + b"404", kind + b"403"]
    assert one.ask("/policy/").code == "permission_denied"


def test_a_browser_gets_a_plain_page_where_the_site_has_none(one, settings):
    settings.TEMPLATES = []
    for view, title, text in (
        (require(DenyAll())(hello), b"403 Forbidden", b""),
        (raising(lambda: Deny(409, "<Already> here.")), b"409 Conflict", b"&lt;Already&gt; here."),
    ):
        answer = one.serve(view).browse()
        assert (answer.status, kind_of(answer)) == (int(title[:3]), "text/html")
        assert answer.body.startswith(b"<!doctype html>\n<title>%s</title>" % title)
        assert text in answer.body


failing = raising(lambda: ZeroDivisionError("secret"))
PAGES = {
    "raises": failing,
    "has another status": lambda request, exception: HttpResponse("welcome"),
    "cannot be rendered": lambda request, exception: page("{{ broken }}", broken=failing),
    "is rendered with another status": lambda request, exception: page("welcome"),
}


@pytest.mark.parametrize("handler", PAGES.values(), ids=PAGES)
def test_a_page_that_fails_or_has_another_status_does_not_change_the_denial(one, handler):
    answer = one.serve(require(DenyAll())(hello), handlers={"handler403": handler}).browse()
    assert (answer.status, b"secret" in answer.body, b"welcome" in answer.body) == (403, False, False)


def test_a_browser_is_sent_to_the_log_in_page_by_a_deny_of_a_view_or_hook(one):
    hooks = Hooks()
    hooks.on_request(lambda request: Deny(401))
    for view, options in ((raising(lambda: Deny(401)), {}), (hello, {"hooks": hooks})):
        answer = one.serve(view, **options).browse()
        assert (answer.status, answer.headers["location"]) == (302, "/login/?next=/")
    one.serve(raising(lambda: Deny(401))).log_in(User.objects.create_user("alice"))
    assert one.browse().status == 401


def test_a_view_may_name_a_log_in_page_of_its_own(one):
    view = raising(AssertionError)
    view.login_url = "/other/"
    assert one.serve(login_required(view)).browse().headers["location"] == "/other/?next=/"


def mine(status):
    return HttpResponse("mine", status=status)


AnswersErrors = middleware_with(
    go=lambda self, request, response: mine(500) if response.status_code == 500 else response
)
TakesErrors = middleware_with(process_exception=lambda self, request, error: mine(500))


def test_an_error_of_another_class_than_its_page_does_not_change_the_status(rf):
    response = views.bad_request(rf.get("/"), ZeroDivisionError("secret"))
    assert (response.status_code, b"secret" in response.content) == (400, False)


def test_what_views_and_middleware_answer_by_themselves_stays(one):
    returned = path("<int:status>/", lambda request, status: mine(status))
    rendered = path("page/", lambda request: page("mine"))
    one.serve(returned, rendered, handlers=OURS)
    assert {one.ask(f"/{url}/").body for url in (400, 401, 403, 404, 418, 500, 503, "page")} == {b"mine"}
    for middleware in ("AnswersErrors", "TakesErrors"):
        names = [f"{__name__}.{middleware}"]
        for options in ({"inside": names}, {"outside": [*names, *OUTSIDE]}):
            assert one.serve(raising(ZeroDivisionError), handlers=OURS, **options).ask().body == b"mine"
