from __future__ import annotations

import asyncio
import json
from functools import partial
from http import HTTPStatus

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.decorators import login_required as djangos_login_required
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import BadRequest, PermissionDenied
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, transaction
from django.http import Http404, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory
from django.urls import include, path, reverse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from django.views.generic import ListView, TemplateView
from pytest_django.asserts import assertContains, assertRedirects, assertTemplateUsed

from channels_wsdeny import Deny
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import (
    login_required,
    permission_required,
    public,
    require,
    user_passes_test,
)
from channels_wsdeny.policies import AllowAny, DenyAll, InGroup, IsAuthenticated, IsStaff, IsSuperuser, Policy
from tests.cases import Answers, AsyncAnswers, Raises

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.test_views")]


@pytest.fixture(autouse=True)
def without_mirror(settings):
    """The decorators hold by themselves; what the middleware adds is tested in `test_middleware`."""
    settings.MIDDLEWARE = [path for path in settings.MIDDLEWARE if path != MIRROR]


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
LOGIN_URL = "/login/"


# The site.


@login_required
def hello(request, name="world"):
    """Greets."""
    return HttpResponse(f"hello {name}")


@login_required
async def hello_async(request, name="world"):
    return HttpResponse(f"hello {name}")


@login_required
class Hello(View):
    def get(self, request, name="world"):
        return HttpResponse(f"hello {name}")

    def post(self, request, name="world"):
        return HttpResponse(f"posted {request.POST['a']}")


@login_required
class HelloAsync(View):
    async def get(self, request, name="world"):
        return HttpResponse(f"hello {name}")


class HelloChild(Hello):
    pass


class HelloMethod(View):
    @method_decorator(login_required)
    def get(self, request, name="world"):
        return HttpResponse(f"hello {name}")


@method_decorator(login_required, name="dispatch")
class HelloDispatch(View):
    def get(self, request, name="world"):
        return HttpResponse(f"hello {name}")


class Undecorated(View):
    def get(self, request, name="world"):
        return HttpResponse(f"hello {name}")


@require(IsStaff())
class Page(TemplateView):
    template_name = "registration/password_reset_subject.txt"

    def get_context_data(self, **kwargs):
        return super().get_context_data(answer=42, **kwargs)


@public
class Users(ListView):
    model = get_user_model()
    template_name = "registration/password_reset_subject.txt"


def failing(error):
    @public
    def view(request):
        raise error

    return view


def failing_async(error):
    @public
    async def view(request):
        await asyncio.sleep(0)
        raise error

    return view


ERRORS = {
    "404": Http404("view's"),
    "403": PermissionDenied("view's"),
    "400": BadRequest("view's"),
    "500": ZeroDivisionError("view's"),
    "deny": Deny(409, "Already here.", code="already_here"),
}


def page_not_found(request, exception):
    return HttpResponse(f"handler404 {exception}", status=404)


def permission_denied(request, exception):
    return HttpResponse(f"handler403 {exception}", status=403)


def bad_request(request, exception):
    return HttpResponse(f"handler400 {exception}", status=400)


def server_error(request):
    return HttpResponse("handler500", status=500)


handler400, handler403, handler404, handler500 = bad_request, permission_denied, page_not_found, server_error


@public
def echo(request):
    return JsonResponse(
        {"post": request.POST.dict(), "files": [file.read().decode() for file in request.FILES.values()]}
    )


@public
def raw(request):
    return HttpResponse(request.read())


@csrf_exempt
@public
def exempt(request):
    return HttpResponse("exempt")


@public
@csrf_exempt
def exempt_inside(request):
    return HttpResponse("exempt")


@require_POST
@login_required
def post_outside(request):
    return HttpResponse("posted")


@never_cache
@login_required
def never_cached(request):
    return HttpResponse("fresh")


@login_required
def stream(request):
    return StreamingHttpResponse(iter([b"a", b"b"]))


@public
async def stream_async(request):
    async def chunks():
        yield b"a"
        yield b"b"

    return StreamingHttpResponse(chunks())


@public
def writes_and_denies(request):
    get_user_model().objects.create_user("written")
    raise Deny(409)


@public
def writes(request):
    get_user_model().objects.create_user("written")
    return HttpResponse("written")


@require(DenyAll())
def denied(request):
    raise AssertionError


@require(Answers(lambda: HttpResponse("mine", status=410, headers={"X-Mine": "1"})))
def denied_with_response(request):
    raise AssertionError


@require(Answers(lambda: StreamingHttpResponse(iter([b"a", b"b"]), status=403)))
def denied_with_stream(request):
    raise AssertionError


class Renders(Policy):
    def check(self, request):
        return render(request, "registration/password_reset_subject.txt", {"answer": 42}, status=403)


@require(Renders())
def denied_with_page(request):
    raise AssertionError


def user_of_url(request):
    return get_user_model().objects.get(username=request.resolver_match.kwargs["name"])


async def user_of_url_async(request):
    return await get_user_model().objects.aget(username=request.resolver_match.kwargs["name"])


@permission_required("auth.view_user", obj=user_of_url)
def profile(request, name):
    return HttpResponse(f"profile of {request.wsdeny.obj.username}")


@permission_required("auth.view_user", obj=user_of_url_async)
async def profile_async(request, name):
    return HttpResponse(f"profile of {request.wsdeny.obj.username}")


urlpatterns = [
    path("login/", public(lambda request: HttpResponse("log in")), name="login"),
    path("hello/", hello, name="hello"),
    path("hello/<name>/", hello),
    path("async/", hello_async),
    path("async/<name>/", hello_async),
    path("class/", Hello.as_view()),
    path("class/<name>/", Hello.as_view()),
    path("class-async/", HelloAsync.as_view()),
    path("child/", HelloChild.as_view()),
    path("method/", HelloMethod.as_view()),
    path("dispatch/", HelloDispatch.as_view()),
    path("as_view/", login_required(Undecorated.as_view())),
    path("partial/", login_required(partial(Undecorated.as_view(), name="partial"))),
    path("page/", Page.as_view()),
    path("users/", Users.as_view()),
    path("echo/", echo),
    path("raw/", raw),
    path("exempt/", exempt),
    path("exempt-inside/", exempt_inside),
    path("post-outside/", post_outside),
    path("never-cached/", never_cached),
    path("stream/", stream),
    path("stream-async/", stream_async),
    path("writes-and-denies/", writes_and_denies),
    path("writes/", writes),
    path("denied/", denied),
    path("denied-with-response/", denied_with_response),
    path("denied-with-stream/", denied_with_stream),
    path("denied-with-page/", denied_with_page),
    path("profile/<name>/", profile),
    path("profile-async/<name>/", profile_async),
    path("nested/", include([path("hello/", hello)])),
    *(path(f"raises/{name}/", failing(error)) for name, error in ERRORS.items()),
    *(path(f"raises-async/{name}/", failing_async(error)) for name, error in ERRORS.items()),
]

ENDPOINTS = ["hello", "async", "class", "class-async", "child", "method", "dispatch", "as_view", "partial"]


# Clients.


class SyncOfAsync:
    """Django's `AsyncClient` with the methods of `Client`."""

    def __init__(self, **kwargs):
        self.client = AsyncClient(**kwargs)
        self.force_login = self.client.force_login
        self.get = async_to_sync(self.client.get)
        self.post = async_to_sync(self.client.post)


@pytest.fixture(params=[Client, SyncOfAsync], ids=["wsgi", "asgi"])
def new_client(request):
    return request.param


@pytest.fixture
def anonymous(new_client):
    return new_client(raise_request_exception=False)


@pytest.fixture
def alice(new_client, users):
    client = new_client(raise_request_exception=False)
    client.force_login(users["alice"])
    return client


@pytest.fixture
def staff(new_client, users):
    client = new_client(raise_request_exception=False)
    client.force_login(users["staff"])
    return client


def request_of(user=None, url="/", **kwargs):
    request = RequestFactory().get(url, **kwargs)
    request.user = AnonymousUser() if user is None else user
    return request


# Who may pass.


@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_user_passes(name, alice):
    answer = alice.get(f"/{name}/")
    assert (answer.status_code, answer.content.split()[0]) == (200, b"hello")


@pytest.mark.parametrize("name", ENDPOINTS)
def test_an_anonymous_client_gets_a_401(name, anonymous):
    answer = anonymous.get(f"/{name}/")
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


@pytest.mark.parametrize("name", ENDPOINTS)
def test_an_anonymous_browser_is_sent_to_the_log_in_page(name, anonymous):
    answer = anonymous.get(f"/{name}/", headers={"accept": BROWSER})
    assertRedirects(answer, f"/login/?next=/{name}/", fetch_redirect_response=False)


@pytest.mark.parametrize("name", ["hello", "async", "class"])
def test_the_arguments_of_the_url_reach_the_view(name, alice):
    assert alice.get(f"/{name}/alice/").content == b"hello alice"


@pytest.mark.parametrize("method", ["get", "post", "put", "delete", "head", "options", "patch", "trace"])
def test_every_method_is_guarded(method):
    assert getattr(Client(), method)("/class/").status_code == 401


def test_a_view_within_an_include_is_guarded(anonymous):
    assert anonymous.get("/nested/hello/").status_code == 401


def test_a_user_without_the_right_gets_a_403(alice):
    assert alice.get("/page/").status_code == 403


def test_a_browser_whose_user_lacks_the_right_is_not_sent_to_the_log_in_page(alice):
    answer = alice.get("/page/", headers={"accept": BROWSER})
    assert (answer.status_code, answer.headers["content-type"]) == (403, "text/html; charset=utf-8")


class Fresh(Policy):
    status = 401

    def check(self, request):
        return False


@pytest.mark.parametrize("policy", [Fresh(), Answers(lambda: Deny(401)), Fresh() & IsStaff()])
def test_a_browser_whose_user_is_denied_by_a_401_is_not_sent_in_a_circle(policy, users):
    view = require(policy)(lambda request: HttpResponse())
    answer = view(request_of(users["alice"], headers={"accept": BROWSER}))
    assert (answer.status_code, answer["www-authenticate"]) == (401, "Session")


def test_a_user_who_is_inactive_is_anonymous(users, client):
    client.force_login(users["alice"])
    users["alice"].is_active = False
    users["alice"].save()
    assert client.get("/hello/").status_code == 401


def test_a_request_without_a_user_is_denied():
    """AuthenticationMiddleware is not there, so nobody can say who it is."""
    assert hello(RequestFactory().get("/")).status_code == 500


def test_a_request_without_a_user_is_denied_asynchronously():
    assert async_to_sync(hello_async)(AsyncRequestFactory().get("/")).status_code == 500


@pytest.mark.parametrize(
    ("policy", "alice_may", "staff_may"),
    [
        (IsAuthenticated(), True, True),
        (IsStaff(), False, True),
        (IsSuperuser(), False, False),
        (InGroup("ops"), False, False),
        (IsStaff() | AllowAny(), True, True),
        (~IsStaff(), True, False),
    ],
    ids=repr,
)
def test_policies_decide(policy, alice_may, staff_may, users):
    view = require(policy)(lambda request: HttpResponse())
    answers = [view(request_of(users[name])).status_code for name in ("alice", "staff")]
    assert answers == [200 if alice_may else 403, 200 if staff_may else 403]


def test_a_test_of_the_user_decides(users):
    view = user_passes_test(lambda user: user.username == "alice")(lambda request: HttpResponse())
    assert [view(request_of(users[name])).status_code for name in ("alice", "bob")] == [200, 403]


# The way to the log-in page.


def location_of(url, settings, login_url=LOGIN_URL, **kwargs):
    settings.LOGIN_URL = login_url
    answer = hello(request_of(url=url, headers={"accept": BROWSER}, **kwargs))
    assert answer.status_code == HTTPStatus.FOUND
    return answer["location"]


def test_the_way_back_has_its_query_quoted(settings):
    assert location_of("/hello/?a=1&b=2#c", settings) == "/login/?next=/hello/%3Fa%3D1%26b%3D2"


def test_the_way_back_has_its_characters_quoted(settings):
    assert location_of("/räume/?q=%C3%BC%26&x=%0d%0a", settings) == (
        "/login/?next=/r%25C3%25A4ume/%3Fq%3D%25C3%25BC%2526%26x%3D%250d%250a"
    )


def test_the_log_in_page_may_be_named_by_its_view(settings):
    assert location_of("/hello/", settings, login_url="login") == "/login/?next=/hello/"


def test_the_log_in_page_may_have_a_query_of_its_own(settings):
    assert location_of("/hello/", settings, login_url="/login/?lang=de") == "/login/?lang=de&next=/hello/"


@pytest.mark.parametrize(
    ("login_url", "way_back"),
    [
        ("https://sso.example.com/login", "http%3A//testserver/hello/%3Fa%3D1"),
        ("//sso.example.com/login", "http%3A//testserver/hello/%3Fa%3D1"),
        ("https://testserver/login", "http%3A//testserver/hello/%3Fa%3D1"),
        ("http://testserver/login", "/hello/%3Fa%3D1"),
        ("//testserver/login", "/hello/%3Fa%3D1"),
    ],
)
def test_a_log_in_page_elsewhere_is_told_the_whole_way_back(login_url, way_back, settings):
    assert location_of("/hello/?a=1", settings, login_url=login_url) == f"{login_url}?next={way_back}"


@pytest.mark.parametrize("login_url", ["/login/", "login", "https://sso.example.com/?a=1"])
@pytest.mark.parametrize("path_info", ["/", "/hello/", "//evil.example.com/", "/%2F/", "/a b/;c=d", "/ü/"])
@pytest.mark.parametrize("query", ["", "a=1&b=2", "next=/elsewhere/", "%00"])
def test_the_way_is_that_of_djangos_own_decorator(login_url, path_info, query, settings):
    ours = location_of("/", settings, login_url=login_url, PATH_INFO=path_info, QUERY_STRING=query)
    request = request_of(PATH_INFO=path_info, QUERY_STRING=query)
    assert ours == djangos_login_required(lambda request: HttpResponse())(request)["location"]


def test_a_browser_that_posts_is_sent_to_the_log_in_page_too(anonymous):
    answer = anonymous.post("/hello/", {"a": "1"}, headers={"accept": BROWSER})
    assertRedirects(answer, "/login/?next=/hello/", fetch_redirect_response=False)


def test_the_redirect_can_be_followed(client):
    answer = client.get("/hello/", headers={"accept": BROWSER}, follow=True)
    assert answer.redirect_chain == [("/login/?next=/hello/", 302)]
    assertContains(answer, "log in")


def test_the_redirect_is_not_stored(anonymous):
    answer = anonymous.get("/hello/", headers={"accept": BROWSER})
    assert "no-store" in answer.headers["cache-control"]
    assert {"Accept", "Cookie"} <= {name.strip() for name in answer.headers["vary"].split(",")}


@pytest.mark.parametrize(
    "accept",
    [None, "*/*", "application/json", "application/json, text/html;q=0.9", "text/plain", "image/png", ""],
)
def test_only_who_prefers_html_is_redirected(accept, anonymous):
    headers = {} if accept is None else {"accept": accept}
    answer = anonymous.get("/hello/", headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Session")


@pytest.mark.parametrize("login_url", [None, "", "no-such-view"])
def test_without_a_log_in_page_a_browser_gets_the_401(login_url, settings):
    settings.LOGIN_URL = login_url
    answer = hello(request_of(headers={"accept": BROWSER}))
    assert (answer.status_code, answer["www-authenticate"]) == (401, "Session")


def test_a_response_of_the_sites_own_with_a_401_is_not_replaced():
    view = require(Answers(lambda: HttpResponse(b"mine", status=401)))(lambda request: HttpResponse())
    answer = view(request_of(headers={"accept": BROWSER}))
    assert (answer.status_code, answer.content) == (401, b"mine")


def test_a_deny_of_the_views_with_a_401_goes_the_same_way():
    @public
    def view(request):
        raise Deny(401)

    answer = view(request_of(headers={"accept": BROWSER}))
    assert (answer.status_code, answer["location"]) == (302, "/login/?next=/")


# Deny in the body of a view, and what stays Django's.


@pytest.mark.parametrize("url", ["/raises/deny/", "/raises-async/deny/"])
def test_a_view_may_raise_deny(url, anonymous):
    answer = anonymous.get(url)
    assert answer.status_code == 409
    assert (answer.json()["code"], answer.json()["detail"]) == ("already_here", "Already here.")


@pytest.mark.parametrize("prefix", ["raises", "raises-async"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("404", b"handler404 view&#x27;s"),
        ("403", b"handler403 view's"),
        ("400", b"handler400 view's"),
        ("500", b"handler500"),
    ],
)
def test_other_exceptions_of_a_view_stay_djangos(prefix, name, content, anonymous):
    answer = anonymous.get(f"/{prefix}/{name}/")
    assert (answer.status_code, answer.content) == (int(name), content.replace(b"&#x27;", b"'"))


@pytest.mark.parametrize("url", ["/raises/500/", "/raises-async/500/"])
def test_the_test_client_raises_what_a_view_raises(url, new_client):
    with pytest.raises(ZeroDivisionError, match="view's"):
        new_client().get(url)


def test_an_unrouted_path_is_djangos_404(anonymous):
    assert anonymous.get("/nowhere/").content.startswith(b"handler404")


def test_a_404_of_a_policy_is_a_problem():
    view = require(Raises(lambda: Http404("secret")))(lambda request: HttpResponse())
    assert json.loads(view(request_of()).content)["code"] == "not_found"


def test_a_deny_that_a_view_catches_stays_in_the_view():
    @public
    def view(request):
        try:
            raise Deny(409)
        except Deny:
            return HttpResponse("caught")

    assert view(request_of()).content == b"caught"


def test_a_deny_of_a_stacked_view_is_answered_once(caplog):
    @public
    @public
    def view(request):
        raise Deny(409)

    view(request_of())
    assert [record.name for record in caplog.records] == ["channels_wsdeny"]


# Transactions.


@pytest.fixture
def atomic_requests(transactional_db):
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    yield
    connection.settings_dict["ATOMIC_REQUESTS"] = False


def is_written():
    return get_user_model().objects.filter(username="written").exists()


@pytest.mark.usefixtures("atomic_requests")
def test_a_deny_rolls_an_atomic_request_back(client):
    assert client.get("/writes-and-denies/").status_code == 409
    assert not is_written()


@pytest.mark.usefixtures("atomic_requests")
def test_an_atomic_request_that_passes_is_committed(client):
    assert client.get("/writes/").status_code == 200
    assert is_written()


@pytest.mark.usefixtures("transactional_db")
def test_without_atomic_requests_a_deny_rolls_nothing_back(client):
    assert client.get("/writes-and-denies/").status_code == 409
    assert is_written()


@pytest.mark.usefixtures("transactional_db")
def test_atomic_inside_the_guard_rolls_back():
    view = public(transaction.atomic(writes_and_denies.__wrapped__))
    assert view(request_of()).status_code == 409
    assert not is_written()


@pytest.mark.usefixtures("atomic_requests")
def test_a_denial_of_a_policy_in_an_atomic_request_goes_out(client):
    assert client.get("/denied/").status_code == 403


# The object.


@pytest.mark.parametrize("url", ["/profile/bob/", "/profile-async/bob/"])
def test_an_object_that_nobody_may_see_is_a_403(url, alice):
    assert alice.get(url).status_code == 403


def test_the_object_reaches_the_view_without_a_second_query(users, django_assert_num_queries):
    calls = []

    def resolve(request):
        calls.append(request)
        return get_user_model().objects.get(username="bob")

    users["alice"].is_superuser = True

    @permission_required("auth.view_user", obj=resolve)
    @permission_required("auth.change_user", obj=resolve)
    def view(request):
        return HttpResponse(request.wsdeny.obj.username)

    with django_assert_num_queries(1):
        assert view(request_of(users["alice"])).content == b"bob"
    assert len(calls) == 1


@pytest.mark.parametrize("url", ["/profile/bob/", "/profile-async/bob/"])
def test_the_object_follows_from_the_url(url, users, staff):
    users["staff"].is_superuser = True
    users["staff"].save()
    assert staff.get(url).content == b"profile of bob"


def test_a_request_without_an_object_has_none():
    request = request_of()
    public(lambda request: HttpResponse())(request)
    assert request.wsdeny.obj is None


def test_the_passage_knows_its_request():
    request = request_of()
    public(lambda request: HttpResponse())(request)
    assert request.wsdeny.request is request


# Several decorators.


class Notes(Policy):
    def __init__(self, name, notes, answer=True):
        self.name, self.notes, self.answer = name, notes, answer

    def check(self, request):
        self.notes.append(self.name)
        return self.answer


def test_decorators_are_asked_from_the_outside_in():
    notes = []

    @require(Notes("outer", notes))
    @require(Notes("inner", notes))
    def view(request):
        notes.append("view")
        return HttpResponse()

    view(request_of())
    assert notes == ["outer", "inner", "view"]


def test_the_first_denial_is_the_last_question():
    notes = []

    @require(Notes("outer", notes, answer=False))
    @require(Notes("inner", notes))
    def view(request):
        raise AssertionError

    view(request_of())
    assert notes == ["outer"]


def test_an_inner_denial_is_logged_once(caplog):
    @require(AllowAny())
    @require(DenyAll())
    def view(request):
        raise AssertionError

    assert view(request_of()).status_code == 403
    assert len(caplog.records) == 1


def test_a_subclass_is_bound_by_its_base_and_itself(users):
    @require(IsStaff())
    class Child(Hello):
        pass

    view = Child.as_view()
    assert [view(request_of(user)).status_code for user in (None, users["alice"], users["staff"])] == [
        401,
        403,
        200,
    ]


def test_djangos_decorators_work_outside(client, users):
    assert client.get("/post-outside/").status_code == 405
    assert client.get("/never-cached/").status_code == 401
    client.force_login(users["alice"])
    assert client.post("/post-outside/").content == b"posted"
    assert "no-cache" in client.get("/never-cached/").headers["cache-control"]


# Policies and views of the other kind.


class ThreadNotes(Policy):
    """Notes whether an event loop runs where it is asked."""

    def __init__(self):
        self.on_loop = []

    def note(self):
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.on_loop.append(False)
        else:
            self.on_loop.append(True)
        return True


class SyncNotes(ThreadNotes):
    def check(self, request):
        return self.note()


class AsyncNotes(ThreadNotes):
    async def acheck(self, request):
        await asyncio.sleep(0)
        return self.note()


def test_an_asynchronous_policy_on_a_synchronous_view_runs_on_a_loop():
    policy = AsyncNotes()
    assert require(policy)(lambda request: HttpResponse())(request_of()).status_code == 200
    assert policy.on_loop == [True]


async def test_a_synchronous_policy_on_an_asynchronous_view_runs_off_the_loop():
    policy = SyncNotes()

    @require(policy)
    async def view(request):
        return HttpResponse()

    assert (await view(request_of())).status_code == 200
    assert policy.on_loop == [False]


async def test_an_asynchronous_policy_on_an_asynchronous_view_runs_on_the_loop():
    policy = AsyncNotes()

    @require(policy)
    async def view(request):
        return HttpResponse()

    assert (await view(request_of())).status_code == 200
    assert policy.on_loop == [True]


@pytest.mark.parametrize("answers", [Answers, AsyncAnswers])
@pytest.mark.parametrize("answer", [None, "yes", 1, 0, [], object()])
def test_an_answer_that_is_none_denies(answers, answer):
    view = require(answers(lambda: answer))(lambda request: HttpResponse())
    assert view(request_of()).status_code == 500


async def test_a_policy_that_hangs_costs_an_asynchronous_view_a_503(settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.1}

    class Hanging(Policy):
        async def acheck(self, request):
            await asyncio.sleep(60)
            return True

    @require(Hanging())
    async def view(request):
        raise AssertionError

    assert (await view(request_of())).status_code == 503


# Everything else about a view stays as it is.


def test_a_form_reaches_the_view(anonymous):
    assert anonymous.post("/echo/", {"a": "1"}).json()["post"] == {"a": "1"}


def test_a_file_reaches_the_view(anonymous):
    file = SimpleUploadedFile("a.txt", b"content")
    assert anonymous.post("/echo/", {"file": file}).json()["files"] == ["content"]


def test_a_raw_body_reaches_the_view(anonymous):
    answer = anonymous.post("/raw/", b"\0\xff", content_type="application/octet-stream")
    assert answer.content == b"\0\xff"


def test_a_policy_may_read_the_form_that_the_view_reads():
    class ReadsForm(Policy):
        def check(self, request):
            return request.POST["a"] == "1"

    view = require(ReadsForm())(lambda request: HttpResponse(request.POST["a"] + request.body.decode()))
    assert view(
        RequestFactory().post("/", "a=1", content_type="application/x-www-form-urlencoded")
    ).content == (b"1a=1")


def test_csrf_is_checked_before_a_guarded_view():
    assert Client(enforce_csrf_checks=True).post("/echo/").status_code == 403


@pytest.mark.parametrize("url", ["/exempt/", "/exempt-inside/"])
def test_a_view_that_is_exempt_of_csrf_stays_so(url):
    assert Client(enforce_csrf_checks=True).post(url).content == b"exempt"


def test_a_streaming_response_stays_a_stream(alice):
    answer = alice.get("/stream/")
    assert answer.streaming


def test_a_synchronous_stream_goes_out(users, client):
    client.force_login(users["alice"])
    assert client.get("/stream/").getvalue() == b"ab"


async def test_an_asynchronous_stream_goes_out():
    answer = await AsyncClient().get("/stream-async/")
    assert [chunk async for chunk in answer] == [b"a", b"b"]


def test_templates_can_be_asserted_behind_a_guard(staff):
    assertTemplateUsed(staff.get("/page/"), "registration/password_reset_subject.txt")


def test_the_context_can_be_asserted_behind_a_guard(staff):
    assert staff.get("/page/").context["answer"] == 42


def test_generic_views_work(client, users):
    assert list(client.get("/users/").context["object_list"]) == list(users.values())


def test_a_page_that_a_policy_rendered_can_be_asserted(client):
    answer = client.get("/denied-with-page/")
    assert answer.status_code == 403
    assertTemplateUsed(answer, "registration/password_reset_subject.txt")


@pytest.mark.parametrize("view", [hello, hello_async])
def test_a_guarded_function_keeps_its_name_and_module(view):
    assert (view.__module__, view.__name__) == (__name__, view.__wrapped__.__name__)


def test_a_guarded_function_keeps_its_documentation():
    assert hello.__doc__ == "Greets."


@pytest.mark.parametrize(
    ("view", "expected"),
    [(hello, False), (hello_async, True), (Hello.as_view(), False), (HelloAsync.as_view(), True)],
)
def test_a_guarded_view_is_of_the_kind_it_was(view, expected):
    assert iscoroutinefunction(view) is expected


def test_a_guarded_class_keeps_its_class_on_the_view():
    assert Hello.as_view().view_class is Hello
    assert HelloChild.as_view().view_class is HelloChild


def test_a_guarded_view_can_be_reversed():
    assert reverse("hello") == "/hello/"


def test_a_denial_passes_djangos_middleware(anonymous):
    assert anonymous.get("/denied/").headers["x-frame-options"] == "DENY"


def test_a_response_of_a_policy_goes_out_as_it_is(anonymous):
    answer = anonymous.get("/denied-with-response/")
    assert (answer.status_code, answer.content, answer.headers["x-mine"]) == (410, b"mine", "1")


@pytest.mark.parametrize("headers", [{"X A": "1"}, {"X:A": "1"}, {"": "1"}, {"X-A": "a\0b"}])
def test_a_header_that_cannot_be_sent_becomes_a_500(headers):
    view = require(Answers(lambda: Deny(403, headers=headers)))(lambda request: HttpResponse())
    assert view(request_of()).status_code == 500


def test_a_cookie_that_cannot_be_sent_becomes_a_500():
    def make():
        response = HttpResponse(status=403)
        response.set_cookie("snow", "☃")
        return response

    answer = require(Answers(make))(lambda request: HttpResponse())(request_of())
    assert (answer.status_code, len(answer.cookies)) == (500, 0)


def test_a_304_has_no_body():
    view = require(Answers(lambda: Deny(304)))(lambda request: HttpResponse())
    assert (view(request_of()).status_code, view(request_of()).content) == (304, b"")


def test_a_stream_of_a_policy_goes_out(client):
    answer = client.get("/denied-with-stream/")
    assert (answer.status_code, answer.getvalue()) == (403, b"ab")


def test_a_session_that_a_policy_changed_is_saved_with_a_denial(client):
    class Visits(Policy):
        def check(self, request):
            request.session["seen"] = True
            return False

    request = RequestFactory().get("/")
    request.session = client.session
    request.user = AnonymousUser()
    assert require(Visits())(lambda request: HttpResponse())(request).status_code == 403
    assert request.session.modified


def test_a_call_without_a_request_is_told_the_remedy():
    class Methods(View):
        @login_required
        def get(self, request):
            raise AssertionError

    with pytest.raises(TypeError, match="method_decorator"):
        Methods().get(RequestFactory().get("/"))


def test_a_view_within_a_running_loop_is_told_apart():
    """A synchronous view that asks an asynchronous policy, called on a loop, denies rather than hang."""

    async def call():
        return require(AsyncNotes())(lambda request: HttpResponse())(request_of())

    assert asyncio.run(call()).status_code == 500


async def test_a_synchronous_view_under_asgi_may_ask_an_asynchronous_policy():
    policy = AsyncNotes()
    view = require(policy)(lambda request: HttpResponse())
    answer = await sync_to_async(view, thread_sensitive=True)(request_of())
    assert (answer.status_code, policy.on_loop) == (200, [True])
