"""``MIRROR_DEFAULT_POLICY``: views, and everything else on HTTP, that nobody thought about are locked."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
from channels.generic.http import AsyncHttpConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.core.asgi import get_asgi_application
from django.db import transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import cache_page, never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.gzip import gzip_page
from django.views.decorators.http import condition, require_safe
from django.views.decorators.vary import vary_on_cookie
from django.views.generic import RedirectView, TemplateView
from django.views.static import serve as serve_file

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import login_required, public, require, with_hooks
from channels_wsdeny.policies import AllowAny, DenyAll, IsStaff
from tests.cases import Answers, AsyncAnswers, Raises
from tests.clients import fetch
from tests.mirror import DOORS, OUTSIDE, VIEWS, Middleware, Site, hello, hello_async, tell
from tests.parts import AsyncCheck, Check

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).parents[1]
HOST = [(b"host", b"testserver")]


@pytest.fixture
def locked(site):
    """A function that serves URLs under the default policy, and returns the site."""
    return partial(site.serve, MIRROR_DEFAULT_POLICY=True)


@pytest.fixture
def alice(db):
    return User.objects.create_user("alice")


UNDECORATED = {name: view for name, view in VIEWS.items() if not name.startswith("guarded")}


class Secret(View):
    def get(self, request):
        return HttpResponse("secret")


# Who is asked.


@pytest.mark.parametrize("view", UNDECORATED.values(), ids=UNDECORATED)
def test_a_view_without_a_policy_is_locked(locked, view):
    assert locked(view).ask().code == "not_authenticated"


@pytest.mark.parametrize("view", UNDECORATED.values(), ids=UNDECORATED)
def test_it_opens_to_a_user(locked, view, alice):
    assert locked(view).log_in(alice).ask().body == b"hello world"


def test_it_is_open_where_the_site_does_not_ask_for_the_default_policy(site):
    assert site.serve(hello).ask().status == 200
    assert site.serve(hello, MIRROR_DEFAULT_POLICY=False, DEFAULT_POLICY=DenyAll()).ask().status == 200


def test_a_view_that_is_locked_does_not_run(locked):
    def view(request):
        raise AssertionError

    assert locked(view).ask().status == 401


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "get", "X"]
)
def test_every_method_is_locked(locked, method):
    assert locked(hello).ask(method=method).status == 401


def test_a_browser_is_sent_to_the_log_in_page(locked, settings):
    settings.LOGIN_URL = "/login/"
    answer = locked(path("there/", hello)).browse("/there/?a=1")
    assert (answer.status, answer.headers["location"]) == (302, "/login/?next=/there/%3Fa%3D1")


@pytest.mark.parametrize(
    "view", [public(hello), public(hello_async), public(type("Open", (Secret,), {})).as_view()]
)
def test_a_public_view_is_open(locked, view):
    assert locked(view).ask().status == 200


@login_not_required
def not_required(request):
    return HttpResponse()


@method_decorator(login_not_required, name="dispatch")
class NotRequired(Secret):
    pass


@pytest.mark.parametrize("view", [not_required, NotRequired.as_view()])
def test_a_view_that_django_knows_to_need_no_log_in_is_open(locked, view):
    assert locked(view).ask().status == 200


def test_a_view_with_a_policy_of_its_own_answers_to_that_alone(locked, alice):
    views = [path("own/", login_required(hello)), path("default/", hello)]
    site = locked(*views, DEFAULT_POLICY=IsStaff()).log_in(alice)
    assert [site.ask(url).status for url in ("/own/", "/default/")] == [200, 403]


def test_a_view_with_hooks_of_its_own_but_no_policy_is_locked(locked):
    assert locked(with_hooks(Hooks())(hello)).ask().status == 401


@pytest.mark.parametrize("base", [RedirectView, TemplateView, Secret])
def test_a_class_based_view_is_locked(locked, base):
    assert locked(type("Mine", (base,), {"url": "/x/", "template_name": "x"}).as_view()).ask().status == 401


def test_a_view_within_an_include_is_locked(locked):
    assert locked(path("in/", include([path("side/", hello)]))).ask("/in/side/").status == 401


def test_a_file_that_a_view_serves_is_locked(locked):
    view = path("<path:path>", serve_file, {"document_root": str(ROOT)})
    assert locked(view).ask("/LICENSE").status == 401


def test_one_visitor_after_another_is_asked(locked, alice):
    site = locked(hello)
    assert site.ask().status == 401
    assert site.log_in(alice).ask().status == 200
    assert site.log_out().ask().status == 401


def test_it_is_asked_anew_for_each_request(locked):
    answers = iter([True, False, True])
    site = locked(hello, DEFAULT_POLICY=Check(lambda request: next(answers)))
    assert [site.ask().status for _ in range(3)] == [200, 403, 200]


def test_it_is_asked_once(locked):
    asked = []
    locked(hello, DEFAULT_POLICY=Check(lambda request: asked.append(1) or True)).ask()
    assert asked == [1]


# Under other decorators.


def etag(request):
    return "constant"


DECORATORS = {
    "csrf_exempt": csrf_exempt,
    "never_cache": never_cache,
    "cache_page": cache_page(60),
    "vary": vary_on_cookie,
    "gzip": gzip_page,
    "atomic": transaction.atomic,
    "require_safe": require_safe,
    "condition": condition(etag_func=etag),
    "lru_cache": functools.lru_cache,
}


@pytest.fixture(params=DECORATORS.values(), ids=DECORATORS)
def decorator(request, settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    return request.param


def test_other_decorators_open_nothing(locked, decorator):
    assert locked(decorator(Secret.as_view())).ask().status == 401


def test_other_decorators_lock_nothing(locked, decorator):
    assert locked(decorator(public(Secret.as_view()))).ask().body == b"secret"
    assert locked(public(decorator(Secret.as_view()))).ask().body == b"secret"


def test_a_policy_within_other_decorators_is_asked(locked, decorator, alice):
    site = locked(decorator(require(IsStaff())(Secret.as_view())), DEFAULT_POLICY=AllowAny()).log_in(alice)
    assert site.ask().status == 403


def test_a_decorator_may_say_who_the_user_is(locked, alice):
    """Token authentication, for one view."""

    def by_token(view):
        @functools.wraps(view)
        def with_user(request):
            request.user = User.objects.get(username=request.headers["X-Token"])
            return view(request)

        return with_user

    assert locked(by_token(login_required(hello))).ask(X_Token="alice").status == 200


# Paths that lead to no view.


def test_an_unrouted_path_is_a_404_to_everybody(locked):
    assert locked(path("x/", hello)).ask("/nowhere/").code == "not_found"


def test_a_slash_is_appended_for_everybody(locked):
    answer = locked(path("x/", hello)).browse("/x")
    assert (answer.status, answer.headers["location"]) == (301, "/x/")


class Healthy(Middleware):
    def come(self, request):
        return HttpResponse("healthy") if request.path == "/health" else None


def test_middleware_further_in_may_answer_for_paths_without_a_view(locked):
    assert locked(path("x/", hello), inside=[f"{__name__}.Healthy"]).ask("/health").body == b"healthy"


# Which policy.


def test_the_site_names_the_policy(locked, alice):
    site = locked(hello, DEFAULT_POLICY="channels_wsdeny.policies.IsStaff").log_in(alice)
    assert site.ask().code == "permission_denied"


@pytest.mark.parametrize("kind", [Check, AsyncCheck])
def test_a_policy_of_any_kind_decides(locked, kind):
    def check(request):
        return request.GET.get("key") == "1"

    async def acheck(request):
        await asyncio.sleep(0)
        return check(request)

    site = locked(hello, DEFAULT_POLICY=kind(acheck if kind is AsyncCheck else check))
    assert [site.ask(url).status for url in ("/?key=1", "/")] == [200, 403]


def test_the_stacks_policy_counts_before_the_sites(locked, site):
    if not site.has_stack:
        pytest.skip("there is no stack")
    locked(hello, DEFAULT_POLICY=AllowAny())
    Site.stack = {"default_policy": DenyAll()}
    assert site.ask().code == "permission_denied"


def test_the_stacks_policy_may_open(locked, site):
    if not site.has_stack:
        pytest.skip("there is no stack")
    locked(hello, DEFAULT_POLICY=DenyAll())
    Site.stack = {"default_policy": AllowAny()}
    assert site.ask().status == 200


@pytest.mark.parametrize("switch", [False, True])
def test_the_stacks_policy_locks_no_public_view(site, switch):
    if not site.has_stack:
        pytest.skip("there is no stack")
    site.serve(public(hello), MIRROR_DEFAULT_POLICY=switch)
    Site.stack = {"default_policy": DenyAll()}
    assert site.ask().status == 200


def test_the_stacks_policy_does_not_count_where_the_site_does_not_ask_for_one(site):
    site.serve(hello)
    Site.stack = {"default_policy": DenyAll()}
    assert site.ask().status == 200


@pytest.mark.parametrize("policy", ["no.such.policy", "tests.mirror.hello", "", "nodots"])
def test_a_policy_that_cannot_be_used_opens_nothing(locked, policy):
    assert locked(hello, DEFAULT_POLICY=policy).ask().status == 500


@pytest.mark.parametrize("switch", [1, "yes", ["on"]])
def test_a_switch_that_is_not_quite_on_locks(locked, switch):
    assert locked(hello).serve(hello, MIRROR_DEFAULT_POLICY=switch).ask().status == 401


@pytest.mark.parametrize(
    "policy",
    [
        Raises(lambda: ZeroDivisionError("secret")),
        Answers(lambda: None),
        AsyncAnswers(lambda: "yes"),
        Answers(lambda: HttpResponse("welcome")),
    ],
)
def test_a_policy_that_fails_opens_nothing(locked, policy):
    answer = locked(hello, DEFAULT_POLICY=policy).ask()
    assert answer.code == "server_error"
    assert b"secret" not in answer.body


def test_a_policy_may_answer_by_itself(locked):
    policy = Answers(lambda: HttpResponse("mine", status=402))
    assert locked(hello, DEFAULT_POLICY=policy).ask().body == b"mine"


def test_a_policy_knows_the_route_that_hooks_have_left(site):
    hooks = Hooks()
    hooks.on_route(lambda request: request.resolver_match.kwargs.update(name="changed"))
    policy = Check(lambda request: request.resolver_match.kwargs["name"] == "changed")
    site.serve(path("<name>/", hello), hooks=hooks, MIRROR_DEFAULT_POLICY=True, DEFAULT_POLICY=policy)
    assert site.ask("/you/").body == b"hello changed"


def test_response_hooks_see_the_denial(site):
    hooks = Hooks()
    hooks.on_response(tell("X-Saw", lambda request, response: response.status_code))
    site.serve(hello, hooks=hooks, MIRROR_DEFAULT_POLICY=True)
    assert site.ask().headers["x-saw"] == "401"


def test_a_request_hook_that_answers_comes_before_the_policy(site):
    hooks = Hooks()
    hooks.on_request(lambda request: HttpResponse("closed", status=503))
    site.serve(hello, hooks=hooks, MIRROR_DEFAULT_POLICY=True)
    assert site.ask().body == b"closed"


def test_a_denial_is_logged_with_its_policy(locked, caplog):
    locked(hello).ask()
    (record,) = [record for record in caplog.records if record.name == "channels_wsdeny"]
    assert (record.policy, record.status) == ("IsAuthenticated()", 401)


# Among other middleware.


@pytest.mark.parametrize("place", ["first", "last"])
def test_the_policy_is_asked_wherever_the_mirror_stands(locked, alice, place):
    outside, inside = ([], OUTSIDE) if place == "first" else (OUTSIDE, [])
    site = locked(hello, outside=outside, inside=inside)
    assert site.ask().status == 401
    assert site.log_in(alice).ask().status == 200


def test_it_agrees_with_djangos_own_middleware(locked, alice):
    site = locked(hello, inside=["django.contrib.auth.middleware.LoginRequiredMiddleware"])
    assert site.ask().status == 401
    assert site.log_in(alice).ask().status == 200


class Exempts(Middleware):
    def process_view(self, request, view, args, kwargs):
        return None


def test_middleware_with_views_of_its_own_further_in_opens_nothing(locked):
    assert locked(hello, inside=[f"{__name__}.Exempts"]).ask().status == 401


class Fails(Middleware):
    def process_exception(self, request, error):
        return HttpResponse("secret")


def test_what_takes_exceptions_opens_nothing(locked):
    policy = Raises(lambda: Deny(403))
    assert locked(hello, inside=[f"{__name__}.Fails"], DEFAULT_POLICY=policy).ask().status == 403


class Repeats(Middleware):
    def go(self, request, response):
        return self.get_response(request)


def test_a_repeated_request_is_asked_again(settings):
    site = Site(settings, DOORS["wsgi"]())
    site.serve(hello, outside=[*OUTSIDE, f"{__name__}.Repeats"], MIRROR_DEFAULT_POLICY=True)
    assert site.ask().status == 401


def test_a_csrf_failure_stays_one(locked):
    site = locked(hello, outside=[*OUTSIDE, "django.middleware.csrf.CsrfViewMiddleware"])
    answer = Client(enforce_csrf_checks=True).post("/")
    assert answer.status_code == 403
    assert site.ask().status == 401


# The log-in page, and the admin site.


def test_djangos_log_in_page_is_open(locked):
    view = LoginView.as_view(template_name="registration/password_reset_subject.txt")
    assert locked(view).browse().status == 200


ADMIN = ["django.contrib.admin", "django.contrib.messages"]


@pytest.fixture
def admin(site, settings):
    """The admin site, under the default policy."""
    names = [*settings.INSTALLED_APPS, *(name for name in ADMIN if name not in settings.INSTALLED_APPS)]
    # By the fixture that `site` sets by as well: two ways to override would undo one another's.
    settings.INSTALLED_APPS = names
    from django.contrib import admin

    site.serve(path("admin/", admin.site.urls), MIRROR_DEFAULT_POLICY=True)
    return site


def test_the_log_in_page_of_the_admin_site_is_open(admin):
    answer = admin.browse("/admin/login/")
    assert (answer.status, b"<form" in answer.body) == (200, True)


def test_the_admin_site_sends_browsers_to_its_own_log_in_page(admin):
    answer = admin.browse("/admin/")
    assert (answer.status, answer.headers["location"]) == (302, "/admin/login/?next=/admin/")


def test_the_admin_site_is_locked_to_programs(admin):
    assert admin.ask("/admin/").code == "not_authenticated"


def test_the_admin_site_still_wants_staff(admin, alice):
    answer = admin.log_in(alice).browse("/admin/password_change/")
    assert (answer.status, answer.headers["location"].split("?")[0]) == (302, "/admin/login/")


# Everything else on HTTP.


class Hello(AsyncHttpConsumer):
    async def handle(self, body):
        await self.send_response(200, b"hello")


async def mounted(scope, receive, send):
    """An application that is neither Django's nor Channels'."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


APPS = {"consumer": Hello.as_asgi(), "mounted": mounted}


@pytest.fixture(params=APPS.values(), ids=APPS)
def app(request):
    return request.param


def stack_around(app, **options):
    http = URLRouter([path("app/", app), path("", get_asgi_application())])
    return DenyMiddlewareStack(ProtocolTypeRouter({"http": http}), **options)


async def test_another_application_is_locked(app, settings):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}
    assert (await fetch(stack_around(app), "/app/")).problem["code"] == "not_authenticated"


async def test_another_application_is_open_where_the_site_does_not_ask_for_the_policy(app):
    assert (await fetch(stack_around(app), "/app/")).body == b"hello"


async def test_another_application_is_open_to_the_stacks_policy_where_the_site_does_not_ask_for_one(app):
    assert (await fetch(stack_around(app, default_policy=DenyAll()), "/app/")).status == 200


async def test_another_application_answers_to_the_stacks_policy(app, settings):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}
    assert (await fetch(stack_around(app, default_policy=AllowAny()), "/app/")).status == 200
    assert (await fetch(stack_around(app, default_policy=DenyAll()), "/app/")).status == 403


async def test_another_application_that_is_public_is_open(app, settings):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}
    assert (await fetch(stack_around(public(app)), "/app/")).body == b"hello"


async def test_another_application_alone_under_a_stack_is_locked(app, settings):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}
    assert (await fetch(DenyMiddlewareStack(app), "/")).status == 401


async def test_another_application_behind_a_wrapper_is_locked(app, settings):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}

    async def wrapper(scope, receive, send):
        await app(scope, receive, send)

    assert (await fetch(DenyMiddlewareStack(wrapper), "/")).status == 401


async def test_a_policy_that_cannot_be_used_opens_no_other_application(app, settings):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True, "DEFAULT_POLICY": "no.such.policy"}
    assert (await fetch(stack_around(app), "/app/")).status == 500


# A site without sessions and users.


def test_a_site_without_users_can_have_the_mirror_and_denies():
    script = """
        import django
        from django.conf import settings
        from django.http import HttpResponse
        from django.urls import path

        def hello(request):
            return HttpResponse(request.ctx.hello)

        def fail(request):
            raise Deny(401)

        urlpatterns = [path("", hello), path("fail/", fail)]
        settings.configure(
            ALLOWED_HOSTS=["*"], SECRET_KEY="x" * 50, ROOT_URLCONF=__name__,
            INSTALLED_APPS=["channels_wsdeny"],
            MIDDLEWARE=["channels_wsdeny.middleware.MirrorMiddleware"], CHANNELS_WSDENY={"HOOKS": []},
        )
        django.setup()
        from django.test import Client
        from channels_wsdeny import Deny, Hooks
        hooks = Hooks()
        hooks.on_request(lambda request: setattr(request.ctx, "hello", "hello"))
        settings.CHANNELS_WSDENY["HOOKS"] = [hooks]
        client = Client(raise_request_exception=False)
        print(client.get("/").content)
        print([client.get("/fail/", headers={"Accept": kind}).status_code for kind in ("*/*", "text/html")])
        settings.CHANNELS_WSDENY["MIRROR_DEFAULT_POLICY"] = True
        print([client.get("/", headers={"Accept": kind}).status_code for kind in ("*/*", "text/html")])
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    hello_line, deny_line, locked_line = done.stdout.splitlines() or [done.stderr] * 3
    assert (hello_line, deny_line) == ("b'hello'", "[401, 401]"), done.stderr
    assert locked_line in {"[401, 401]", "[500, 500]"}, done.stderr
