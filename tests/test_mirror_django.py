"""Behind the mirror Django works as ever: its test assertions, its middleware, its transactions."""

from __future__ import annotations

import gzip

import pytest
from django.contrib import messages
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection, transaction
from django.http import Http404, HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import render
from django.template.response import SimpleTemplateResponse, TemplateResponse
from django.test import Client, RequestFactory
from django.urls import path, reverse
from django.utils.translation import gettext
from django.views.decorators.cache import cache_page
from pytest_django.asserts import (
    assertContains,
    assertInHTML,
    assertMessages,
    assertNotContains,
    assertRedirects,
    assertTemplateNotUsed,
    assertTemplateUsed,
)

from channels_wsdeny import Deny, Hooks
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import login_required, public, require, with_hooks
from channels_wsdeny.policies import AllowAny, DenyAll
from tests.mirror import DOORS, OUTSIDE, Middleware, Site, hello, tell
from tests.parts import Check

pytestmark = pytest.mark.django_db

TEMPLATE = "registration/password_reset_subject.txt"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"
MESSAGES = "django.contrib.messages.middleware.MessageMiddleware"


@pytest.fixture(params=DOORS)
def site(request, settings):
    settings.LOGIN_URL = "/login/"
    return Site(settings, DOORS[request.param]())


@pytest.fixture
def served(settings):
    """A function that serves URLs under WSGI, and returns Django's test client for them."""
    settings.LOGIN_URL = "/login/"

    def served(*urls, hooks=None, **options):
        marking = hooks or Hooks()
        marking.on_response(tell("X-Hook", lambda request, response: "1"))
        Site(settings, DOORS["wsgi"]()).serve(*urls, hooks=marking, **options)
        return Client(raise_request_exception=False)

    return served


# Assertions.


def page(request):
    return render(request, TEMPLATE, {"answer": 42})


def deferred_page(request):
    return TemplateResponse(request, TEMPLATE, {"answer": 42})


@pytest.mark.parametrize("view", [page, deferred_page, public(page), with_hooks(Hooks())(deferred_page)])
def test_templates_and_their_context_can_be_asserted(served, view):
    answer = served(view).get("/")
    assertTemplateUsed(answer, TEMPLATE)
    assertTemplateNotUsed(answer, "404.html")
    assert answer.context["answer"] == 42


def test_the_template_that_a_hook_rendered_can_be_asserted(served):
    hooks = Hooks()
    hooks.on_request(page)
    answer = served(hello, hooks=hooks).get("/")
    assertTemplateUsed(answer, TEMPLATE)
    assert answer.context["answer"] == 42


def test_contents_can_be_asserted(served):
    client = served(hello)
    assertContains(client.get("/"), "hello world")
    assertNotContains(client.get("/"), "goodbye")
    assertInHTML("hello world", client.get("/").content.decode())


def test_json_can_be_asserted(served):
    assert served(lambda request: JsonResponse({"a": 1})).get("/").json() == {"a": 1}


def test_redirects_can_be_asserted(served):
    client = served(path("old/", lambda request: HttpResponseRedirect("/new/")), path("new/", hello))
    assertRedirects(client.get("/old/"), "/new/")
    assertRedirects(client.get("/old/", follow=True), "/new/")


def test_the_way_to_the_log_in_page_can_be_asserted(served):
    client = served(path("there/", login_required(hello)), path("login/", public(hello)))
    answer = client.get("/there/", headers={"Accept": "text/html"}, follow=True)
    assertRedirects(answer, "/login/?next=/there/")


def test_the_resolver_match_can_be_asserted(served):
    answer = served(path("<name>/", hello, name="greet")).get("/you/")
    assert (answer.resolver_match.url_name, answer.resolver_match.kwargs) == ("greet", {"name": "you"})
    assert answer.resolver_match.func is hello


def test_the_request_of_the_answer_can_be_looked_at(served):
    answer = served(hello).get("/?a=1")
    assert answer.wsgi_request.GET["a"] == "1"
    assert answer.wsgi_request.ctx is not None


def test_a_session_of_the_test_client_can_be_looked_at(served):
    client = served(lambda request: HttpResponse(request.session.setdefault("seen", "yes")))
    client.get("/")
    assert client.session["seen"] == "yes"


def test_a_forced_log_in_counts(served):
    client = served(login_required(hello))
    client.force_login(User.objects.create_user("alice"))
    assert client.get("/").status_code == 200


def test_reversing_works_as_ever(served):
    client = served(path("greet/<name>/", hello, name="greet"))
    assertContains(client.get(reverse("greet", kwargs={"name": "you"})), "hello you")


def test_a_view_can_be_called_without_any_middleware():
    request = RequestFactory().get("/")
    assert with_hooks(Hooks())(hello)(request).content == b"hello world"
    assert vars(request.ctx) == {}


# Sessions, messages and CSRF.


def test_a_view_changes_its_session(site):
    def count(request):
        request.session["times"] = request.session.get("times", 0) + 1
        return HttpResponse(str(request.session["times"]))

    site.serve(count)
    first = site.ask()
    again = site.ask(Cookie=f"sessionid={first.cookies['sessionid'].value}")
    assert (first.body, again.body) == (b"1", b"2")


def test_a_hook_changes_the_session_of_a_denial(site):
    hooks = Hooks()

    @hooks.on_route
    def remember(request):
        request.session["denied"] = True

    answer = site.serve(require(DenyAll())(hello), hooks=hooks).ask()
    assert (answer.status, "sessionid" in answer.cookies) == (403, True)


def test_messages_can_be_asserted(served):
    def view(request):
        messages.success(request, "saved")
        return HttpResponse()

    client = served(view, inside=[MESSAGES])
    assertMessages(client.get("/"), [messages.Message(messages.SUCCESS, "saved")])


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_a_message_before_a_deny_is_shown_on_the_next_page(served, place):
    def deny(request):
        messages.warning(request, "careful")
        raise Deny(409)

    def show(request):
        return HttpResponse(" ".join(str(message) for message in messages.get_messages(request)))

    options = {"inside": [MESSAGES]} if place == "inside" else {"outside": [*OUTSIDE, MESSAGES]}
    client = served(path("deny/", deny), path("show/", show), **options)
    assert client.get("/deny/").status_code == 409
    assertContains(client.get("/show/"), "careful")


def test_a_message_before_an_error_is_shown_on_the_next_page(served):
    def fail(request):
        messages.warning(request, "careful")
        raise Http404

    def show(request):
        return HttpResponse(" ".join(str(message) for message in messages.get_messages(request)))

    client = served(path("fail/", fail), path("show/", show), inside=[MESSAGES])
    assert client.get("/fail/").status_code == 404
    assertContains(client.get("/show/"), "careful")


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_a_csrf_failure_is_djangos(served, place):
    options = {"inside": [CSRF]} if place == "inside" else {"outside": [*OUTSIDE, CSRF]}
    served(hello, **options)
    answer = Client(enforce_csrf_checks=True).post("/")
    assert answer.status_code == 403
    assertContains(answer, "CSRF verification failed", status_code=403)
    assert answer["X-Hook"] == "1"


def test_a_csrf_token_is_accepted(served):
    served(lambda request: HttpResponse(get_token(request)), outside=[*OUTSIDE, CSRF])
    client = Client(enforce_csrf_checks=True)
    token = client.get("/").content.decode()
    assert client.post("/", {"csrfmiddlewaretoken": token}).status_code == 200


# Other middleware.


def test_a_slash_is_appended(served):
    assertRedirects(served(path("x/", hello)).get("/x"), "/x/", status_code=301)


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_a_slash_is_appended_wherever_the_middleware_stands(site, place):
    common = ["django.middleware.common.CommonMiddleware"]
    site.serve(path("x/", hello), **{"inside": [], "outside": [], place: common})
    answer = site.ask("/x?a=1")
    assert (answer.status, answer.headers["location"]) == (301, "/x/?a=1")


def test_lengths_are_told(site):
    hooks = Hooks()
    hooks.on_response(lambda request, response: setattr(response, "content", b"longer than before"))
    answer = site.serve(hello, hooks=hooks).ask()
    assert answer.headers["content-length"] == str(len(answer.body))


@pytest.mark.parametrize("url", ["/hello/", "/nowhere/", "/denied/"])
def test_the_length_of_what_goes_out_is_told_by_middleware_further_out(site, url):
    long = Check(lambda request: Deny(403, "No. " * 50))
    site.serve(path("hello/", hello), path("denied/", require(long)(hello)))
    answer = site.ask(url)
    assert answer.headers["content-length"] == str(len(answer.body))


def long(request):
    return HttpResponse("long " * 200)


def test_contents_are_compressed_after_hooks_have_seen_them(site):
    hooks = Hooks()

    @hooks.on_response
    def shout(request, response):
        response.content = response.content.upper()

    site.serve(long, hooks=hooks, outside=["django.middleware.gzip.GZipMiddleware", *OUTSIDE])
    answer = site.ask(Accept_Encoding="gzip")
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(answer.body) == b"LONG " * 200


def test_a_problem_is_compressed(site):
    deny = Check(lambda request: Deny(403, "No. " * 200))
    site.serve(require(deny)(hello), outside=["django.middleware.gzip.GZipMiddleware", *OUTSIDE])
    answer = site.ask(Accept_Encoding="gzip")
    assert answer.status == 403
    assert b"permission_denied" in gzip.decompress(answer.body)


def test_a_conditional_request_is_not_modified(site):
    site.serve(hello, outside=["django.middleware.http.ConditionalGetMiddleware", *OUTSIDE])
    etag = site.ask().headers["etag"]
    answer = site.ask(If_None_Match=etag)
    assert (answer.status, answer.body) == (304, b"")


def test_a_conditional_request_is_asked_for_permission_nevertheless(site):
    site.serve(
        require(Check(lambda request: request.headers.get("X-Office") == "1"))(hello),
        outside=["django.middleware.http.ConditionalGetMiddleware", *OUTSIDE],
    )
    etag = site.ask(X_Office="1").headers["etag"]
    assert site.ask(If_None_Match=etag).status == 403


@pytest.fixture
def cached(settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    cache.clear()


SITE_CACHE = {
    "outside": ["django.middleware.cache.UpdateCacheMiddleware", *OUTSIDE],
    "inside": ["django.middleware.cache.FetchFromCacheMiddleware"],
}


@pytest.mark.usefixtures("cached")
def test_the_cache_of_the_site_answers_and_hooks_still_run(site):
    times, hooks = [], Hooks()
    hooks.on_response(tell("X-Times", lambda request, response: times.append(1) or len(times)))

    def view(request):
        return HttpResponse(str(len(times)))

    site.serve(view, hooks=hooks, **SITE_CACHE)
    first, second = site.ask(), site.ask()
    assert (first.body, second.body, second.headers["x-times"]) == (b"0", b"0", "2")


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_no_denial_is_cached_by_the_site(site, status):
    answers = iter([Deny(status), True])
    site.serve(require(Check(lambda request: next(answers)))(hello), **SITE_CACHE)
    assert [site.ask().status, site.ask().status] == [status, 200]


@pytest.mark.usefixtures("cached")
def test_a_cached_view_answers_with_the_headers_of_its_own_hooks(site):
    hooks = Hooks()
    hooks.on_response(tell("X-Own", lambda request, response: "1"))
    site.serve(cache_page(60)(with_hooks(hooks)(lambda request: TemplateResponse(request, TEMPLATE))))
    assert [site.ask().headers["x-own"], site.ask().headers["x-own"]] == ["1", "1"]


def test_a_denial_speaks_the_language_of_the_visitor(site):
    site.serve(require(DenyAll())(hello), outside=[*OUTSIDE, "django.middleware.locale.LocaleMiddleware"])
    german = site.ask(Accept_Language="de")
    assert german.headers["content-language"] == "de"
    assert "Accept-Language" in german.headers["vary"]


def test_a_view_speaks_the_language_of_the_visitor_within_around_hooks(site):
    hooks = Hooks()

    @hooks.around
    async def around(request, call_next):
        return await call_next(request)

    site.serve(
        lambda request: HttpResponse(gettext("Monday")),
        hooks=hooks,
        outside=[*OUTSIDE, "django.middleware.locale.LocaleMiddleware"],
    )
    assert site.ask(Accept_Language="de").body == b"Montag"


class Routes(Middleware):
    """Sends some requests to another URLconf."""

    def come(self, request):
        request.urlconf = "tests.test_mirror_django"


def elsewhere(request):
    return HttpResponse("elsewhere")


urlpatterns = [path("elsewhere/", elsewhere)]


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_a_request_may_have_a_urlconf_of_its_own(site, place):
    routes = [f"{__name__}.Routes"]
    site.serve(path("x/", hello), **({"inside": routes} if place == "inside" else {"outside": routes}))
    assert site.ask("/elsewhere/").body == b"elsewhere"
    assert site.ask("/x/").code == "not_found"


def test_streams_pass_middleware_further_out(site):
    async def chunks():
        yield b"a" * 500
        yield b"b" * 500

    async def view(request):
        return StreamingHttpResponse(chunks())

    if not site.is_async:
        pytest.skip("Django warns of an asynchronous iterator that is consumed synchronously")
    site.serve(view, outside=["django.middleware.gzip.GZipMiddleware", *OUTSIDE])
    assert gzip.decompress(site.ask(Accept_Encoding="gzip").body) == b"a" * 500 + b"b" * 500


# Transactions.


@pytest.fixture
def atomic_requests(transactional_db):
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    yield
    connection.settings_dict["ATOMIC_REQUESTS"] = False


def write():
    User.objects.create_user("written")


def is_written():
    return User.objects.filter(username="written").exists()


class Writes(Middleware):
    """Writes, and raises, before the view."""

    error: Exception

    def process_view(self, request, view, args, kwargs):
        write()
        raise self.error


def in_the_view(error):
    def view(request):
        write()
        raise error

    return view


def below_the_view(error):
    def save():
        with transaction.atomic():
            write()
        raise error

    return lambda request: save()


def in_a_template(error):
    class Fails(SimpleTemplateResponse):
        @property
        def rendered_content(self):
            write()
            raise error

    return lambda request: Fails("none")


def behind_a_guard(error):
    return require(AllowAny())(in_the_view(error))


def behind_two_guards(error):
    return public(with_hooks(Hooks())(public(in_the_view(error))))


def not_atomic(error):
    return transaction.non_atomic_requests(behind_a_guard(error))


PLACES = [in_the_view, below_the_view, in_a_template, behind_a_guard, behind_two_guards]


@pytest.mark.usefixtures("atomic_requests")
@pytest.mark.parametrize("place", [*PLACES, not_atomic], ids=lambda place: place.__name__)
def test_a_deny_does_to_a_transaction_what_any_exception_does(site, place):
    assert site.serve(place(ZeroDivisionError())).ask().status == 500
    expected = is_written()
    User.objects.all().delete()
    assert site.serve(place(Deny(409))).ask().status == 409
    assert is_written() is expected


@pytest.mark.usefixtures("atomic_requests")
@pytest.mark.parametrize(
    "place", [place for place in PLACES if place is not in_a_template], ids=lambda place: place.__name__
)
def test_a_deny_rolls_an_atomic_request_back(site, place):
    assert site.serve(place(Deny(409))).ask().status == 409
    assert not is_written()


@pytest.mark.usefixtures("atomic_requests")
@pytest.mark.parametrize("of", ["site", "view"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_exception_that_a_hook_takes_rolls_an_atomic_request_back(site, of, kind):
    hooks = Hooks()

    @hooks.on_exception(ZeroDivisionError)
    def answer(request, error):
        return HttpResponse("taken")

    async def answer_async(request, error):
        return HttpResponse("taken")

    if kind == "async":
        hooks = Hooks()
        hooks.on_exception(ZeroDivisionError)(answer_async)
    view = in_the_view(ZeroDivisionError())
    if of == "site":
        site.serve(view, hooks=hooks)
    else:
        site.serve(with_hooks(hooks)(view))
    assert site.ask().body == b"taken"
    assert not is_written()


@pytest.mark.usefixtures("transactional_db")
@pytest.mark.parametrize("place", [in_the_view, behind_a_guard], ids=lambda place: place.__name__)
def test_without_atomic_requests_a_deny_rolls_nothing_back(site, place):
    assert site.serve(place(Deny(409))).ask().status == 409
    assert is_written()


@pytest.mark.usefixtures("atomic_requests")
def test_what_passes_is_committed(site):
    def view(request):
        write()
        return HttpResponse()

    assert site.serve(public(view)).ask().status == 200
    assert is_written()


@pytest.mark.usefixtures("atomic_requests")
def test_a_denial_of_a_policy_commits_what_the_policy_wrote(site):
    def check(request):
        write()
        return False

    assert site.serve(require(Check(check))(hello)).ask().status == 403
    assert is_written()


@pytest.mark.usefixtures("atomic_requests")
def test_a_response_hook_that_denies_after_a_view_undoes_nothing(site):
    hooks = Hooks()
    hooks.on_response(lambda request, response: Deny(409))

    def view(request):
        write()
        return HttpResponse()

    assert site.serve(view, hooks=hooks).ask().status == 409
    assert is_written()


@pytest.mark.usefixtures("atomic_requests")
def test_the_connection_is_sound_after_a_deny(site):
    site.serve(path("deny/", behind_a_guard(Deny(409))), path("count/", count_users))
    assert [site.ask("/deny/").status, site.ask("/count/").body] == [409, b"0"]
    assert not connection.in_atomic_block


def count_users(request):
    return HttpResponse(str(User.objects.count()))


@pytest.mark.usefixtures("transactional_db")
def test_connections_are_where_the_view_is(site):
    """Hooks of a view find its open transaction."""
    hooks = Hooks()
    seen = []

    @hooks.on_response
    def look(request, response):
        seen.append(connection.in_atomic_block)

    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        site.serve(with_hooks(hooks)(hello), mirror=[MIRROR]).ask()
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert seen == [True]
