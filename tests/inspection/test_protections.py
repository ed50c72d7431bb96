"""What protects a view. That one is open, or may be, is never called protected."""

import functools

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.admin.views.decorators import staff_member_required
from django.contrib.auth import decorators as djangos
from django.contrib.auth import get_user_model
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.mixins import LoginRequiredMixin, PermissionRequiredMixin, UserPassesTestMixin
from django.contrib.auth.views import LoginView
from django.core.asgi import get_asgi_application
from django.db import transaction
from django.http import HttpResponse
from django.urls import path, re_path
from django.utils.decorators import decorator_from_middleware, method_decorator
from django.views import View
from django.views.decorators.cache import cache_page, never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import condition, conditional_page, etag, last_modified, require_GET
from django.views.decorators.vary import vary_on_cookie

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.conf import LOGIN_REQUIRED_MIDDLEWARE, MIRROR
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated, IsStaff, IsSuperuser, Throttle
from channels_wsdeny.policies.base import Or
from channels_wsdeny.routes import Route, TimedRoute
from tests.support.site import Hello as ClassView
from tests.support.site import hello as view
from tests.support.site import hello_async as async_view
from tests.support.site import noting

hooks = noting([], "it")


def passing(view):
    """A decorator of the site, which may or may not call the view."""

    @functools.wraps(view)
    def wrapper(request):
        return HttpResponse()

    return wrapper


def wrapping_itself(request):
    return HttpResponse()


wrapping_itself.__wrapped__ = wrapping_itself


def holding(view):
    """A view that calls another one for some requests."""
    return lambda request: view(request) if request.GET else HttpResponse()


class MyMiddleware:
    def __init__(self, get_response): ...


class MyRoute(Route):
    def get_route_handler(self):
        return lambda request: HttpResponse()


class CalledOtherwise(TimedRoute):
    def __call__(self, request):
        return HttpResponse()


class StrictSite(AdminSite):
    def admin_view(self, view, cacheable=False):
        return csrf_exempt(djangos.permission_required("a.b")(super().admin_view(view, cacheable)))


def page(*bases, **attributes):
    return type("Page", bases, attributes)


class OpenPermissionSite(AdminSite):
    def has_permission(self, request):
        return True


class Closed(DenyAll):
    """A policy that denies everybody in other words."""

    detail = "Closed."


class Everybody(AllowAny):
    """A policy that allows everybody under another name."""


def with_method(mixin, name):
    """A view with this mixin and a method of this name, perhaps one of it."""
    return page(mixin, ClassView, permission_required="a.b", **{name: lambda self: True}).as_view()


def on_dispatch(decorators, *bases):
    """A view whose ``dispatch()`` is decorated."""
    return method_decorator(decorators, name="dispatch")(page(*bases or (View,))).as_view()


class Overrides(LoginRequiredMixin, View):
    def dispatch(self, request, *args, **kwargs):
        return HttpResponse()


class Unhashable:
    __hash__ = None
    __slots__ = ()

    def __call__(self, request):
        return HttpResponse()


def named_as_the_admins():
    def inner(request):
        return HttpResponse()

    inner.__module__ = AdminSite.__module__
    inner.__qualname__ = "AdminSite.admin_view.<locals>.inner"
    inner.__code__ = inner.__code__.replace(co_name="inner", co_qualname=inner.__qualname__)
    inner.admin_site = inner.model_admin = "admin"
    return inner


staff = require(IsStaff())
login, login_page = djangos.login_required, page(LoginRequiredMixin, View)
ADMIN = "AdminSite.has_permission"
# Per view: its policy, and whether it is open.
GUARDED = {
    "function": (staff(view), "IsStaff()"),
    "coroutine": (staff(async_view), "IsStaff()"),
    "class": (staff(page(View)).as_view(), "IsStaff()"),
    "subclass": (page(staff(page(View))).as_view(), "IsStaff()"),
    "method": (on_dispatch(staff), "IsStaff()"),
    "transaction": (transaction.atomic(login(view)), "user_passes_test"),
    "nested": (require(IsAuthenticated())(csrf_exempt(staff(view))), "IsAuthenticated() & IsStaff()"),
    "under Django's decorators": (csrf_exempt(never_cache(vary_on_cookie(require_GET(staff(view))))), "IsStaff()"),
    "under hooks": (with_hooks(hooks)(csrf_exempt(staff(view))), "IsStaff()"),
    "route": (TimedRoute(staff(view)), "IsStaff()"),
    "login_required": (login(view), "user_passes_test"),
    "login_required, coroutine": (login(async_view), "user_passes_test"),
    "permission_required": (djangos.permission_required("a.b")(view), "user_passes_test"),
    "staff_member_required": (staff_member_required(view), "user_passes_test"),
    "login_required within": (csrf_exempt(login(view)), "user_passes_test"),
    "login_required on dispatch": (on_dispatch(login), "user_passes_test"),
    "several on dispatch": (on_dispatch([never_cache, login]), "user_passes_test"),
    "a policy and login_required": (staff(login(view)), "IsStaff() & user_passes_test"),
    "mixin": (login_page.as_view(), "LoginRequiredMixin"),
    "another mixin": (page(PermissionRequiredMixin, ClassView).as_view(), "PermissionRequiredMixin"),
    "mixin under a decorator": (on_dispatch(never_cache, LoginRequiredMixin, View), "LoginRequiredMixin"),
    "admin": (AdminSite().admin_view(view), ADMIN),
    "admin, exempt and cacheable": (AdminSite().admin_view(csrf_exempt(view), cacheable=True), ADMIN),
    "admin, class": (AdminSite().admin_view(ClassView.as_view()), ADMIN),
    "admin, decorated": (vary_on_cookie(AdminSite().admin_view(view)), ADMIN),
    "mixin with a test": (with_method(UserPassesTestMixin, "test_func"), "UserPassesTestMixin"),
    "mixin beside another's method": (with_method(LoginRequiredMixin, "has_permission"), "LoginRequiredMixin"),
    "condition within": (staff(etag(lambda request: "a")(view)), "IsStaff()"),
    "conditional_page": (conditional_page(staff(view)), "IsStaff()"),
    "negation": (require(~IsStaff())(view), "~IsStaff()"),
    "negated conjunction": (require(~(IsStaff() & IsSuperuser()))(view), "~(IsStaff() & IsSuperuser())"),
    "with an exception": (
        require(IsSuperuser() | (IsAuthenticated() & ~IsStaff()))(view),
        "IsSuperuser() | IsAuthenticated() & ~IsStaff()",
    ),
    "beside one that allows everybody": (require(IsStaff() & AllowAny())(view), "IsStaff() & AllowAny()"),
    "closed": (require(Closed())(view), "Closed()"),
    "partial": (functools.partial(staff(view)), "IsStaff()"),
    "without Django's login": (djangos.login_not_required(staff(view)), "IsStaff()"),
    "throttled": (require(Throttle("1/s") & IsStaff())(view), "Throttle('1/s', key='user') & IsStaff()"),
    "admin of the site's own": (StrictSite().admin_view(view), f"user_passes_test & {ADMIN}"),
}
PERHAPS = {
    "decorator of the site": passing(staff(view)),
    "decorator of the site over login_required": passing(login(view)),
    "decorator of the site over a mixin": passing(login_page.as_view()),
    "decorator of the site over the admin": passing(AdminSite().admin_view(view)),
    "decorator of the site over @public": passing(public(view)),
    "decorator of the site on dispatch": on_dispatch(passing, login_page),
    "cache": cache_page(60)(staff(view)),
    "cache over login_required": csrf_exempt(cache_page(60)(login(view))),
    "cache on dispatch": on_dispatch([cache_page(60), login]),
    "middleware of the site": decorator_from_middleware(MyMiddleware)(staff(view)),
    "route of the site": MyRoute(staff(view)),
    "route that the site calls otherwise": CalledOtherwise(staff(view)),
    "overridden dispatch": Overrides.as_view(),
    "overridden and decorated dispatch": on_dispatch(never_cache, Overrides),
    "negation": require(~DenyAll())(view),
    "negation of a subclass": require(~Closed())(view),
    "double negation": require(~~AllowAny())(view),
    "alternative that allows everybody": require(IsStaff() | AllowAny())(view),
    "alternative of a subclass": require(IsStaff() | Everybody())(view),
    "alternative of opposites": require(IsStaff() | ~IsStaff())(view),
    "alternative of opposites by implication": require(IsAuthenticated() | ~IsStaff())(view),
    "alternative of a throttle": require(IsStaff() | Throttle("1/s"))(view),
    "negated opposites": require(~(IsStaff() & ~IsStaff()))(view),
    "subclass that allows everybody": require(Everybody())(view),
    "subclass of an operator": require(type("Either", (Or,), {})(IsStaff(), IsSuperuser()))(view),
    "overridden has_permission of an admin": OpenPermissionSite().admin_view(view),
    "overridden has_permission": with_method(PermissionRequiredMixin, "has_permission"),
    "overridden get_permission_required": with_method(PermissionRequiredMixin, "get_permission_required"),
    "overridden handle_no_permission": with_method(LoginRequiredMixin, "handle_no_permission"),
    "overridden get_test_func": with_method(UserPassesTestMixin, "get_test_func"),
    "dispatch given to as_view()": login_page.as_view(dispatch=view),
    "has_permission given to as_view()": page(PermissionRequiredMixin, ClassView, permission_required="a.b").as_view(
        has_permission=lambda: True
    ),
    "etag": etag(lambda request: "a")(staff(view)),
    "last_modified over login_required": last_modified(lambda request: None)(login(view)),
    "condition on dispatch": on_dispatch([condition(lambda request: "a"), login]),
}
OPEN = {
    "function": view,
    "coroutine": async_view,
    "class": ClassView.as_view(),
    "partial": functools.partial(view),
    "object": Unhashable(),
    "mixin that comes too late": type("Late", (View, LoginRequiredMixin), {}).as_view(),
    "mixin that is passed by": page(
        method_decorator(never_cache, name="dispatch")(page(View)), page(LoginRequiredMixin, View)
    ).as_view(),
    "named as the admin's": named_as_the_admins(),
    "holds one of the admin's": holding(AdminSite().admin_view(view)),
    "decorator of the site": passing(view),
    "decorator of itself": wrapping_itself,
    "no permission": djangos.permission_required([])(view),
    "no permission of a set": djangos.permission_required(set())(view),
    "mixin with an empty set": page(PermissionRequiredMixin, ClassView, permission_required=frozenset()).as_view(),
    "mixin without a permission": page(PermissionRequiredMixin, ClassView, permission_required=()).as_view(),
    "mixin without a permission by as_view()": page(
        PermissionRequiredMixin, ClassView, permission_required="a.b"
    ).as_view(permission_required=[]),
}


@pytest.mark.parametrize(("given", "policy"), GUARDED.values(), ids=GUARDED)
def test_what_is_asked_before_a_view_is_listed(given, policy, rows_of):
    (row,) = rows_of(None, path("a/", given, name="a"))
    assert (row.protocol, row.path, row.name) == ("http", "/a/", "a")
    assert (row.policy, row.access, row.is_open, row.notes) == (policy, "guarded", False, ())


@pytest.mark.parametrize("given", PERHAPS.values(), ids=PERHAPS)
def test_where_it_cannot_be_told_it_is_said_so(given, rows_of):
    (row,) = rows_of(None, path("a/", given))
    assert (row.access, row.is_open) == ("perhaps open", None)
    assert row.notes
    assert all(note.startswith("cannot tell ") for note in row.notes)


@pytest.mark.parametrize("given", OPEN.values(), ids=OPEN)
def test_a_view_without_protection_is_open(given, rows_of):
    (row,) = rows_of(None, path("a/", given))
    assert (row.access, row.is_open, row.policy) == ("open", True, None)


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        (LoginView.as_view(), "login_not_required"),
        (djangos.login_not_required(lambda request: None), "login_not_required"),
        (public(view), "AllowAny()"),
        (require(Throttle("1/s"))(view), "Throttle('1/s', key='user')"),
        (require(AllowAny() & Throttle("1/s"))(view), "AllowAny() & Throttle('1/s', key='user')"),
        (public(passing(view)), "AllowAny()"),
    ],
)
def test_what_needs_no_login_on_purpose_is_public(given, policy, rows_of):
    (row,) = rows_of(None, path("a/", given))
    assert (row.access, row.is_open, row.policy) == ("public", False, policy)


def test_login_required_middleware_protects_every_view_but_those_that_need_none(rows_of, settings):
    settings.MIDDLEWARE = [LOGIN_REQUIRED_MIDDLEWARE]
    views = (view, LoginView.as_view(), public(view), passing(public(view)))
    guarded, *others = rows_of(None, *(path(f"{number}/", each) for number, each in enumerate(views)))
    assert (guarded.policy, guarded.source) == ("LoginRequiredMiddleware", "django")
    assert [row.access for row in others] == ["public", "public", "perhaps open"]


class OpenMiddleware(LoginRequiredMiddleware):
    def process_view(self, request, view_func, view_args, view_kwargs): ...


def test_of_a_login_required_middleware_of_the_site_it_cannot_be_told(rows_of, settings):
    rows_of()
    settings.MIDDLEWARE = [f"{__name__}.OpenMiddleware"]
    (row,) = rows_of(None, path("a/", view))
    assert (row.policy, row.is_open) == ("LoginRequiredMiddleware", None)


class MoreViews(ModelAdmin):
    def change_password(self, request, pk): ...

    def get_urls(self):
        own = path("<int:pk>/password/", self.admin_site.admin_view(self.change_password))
        return [own, *super().get_urls()]


@pytest.mark.parametrize("site_class", [AdminSite, StrictSite])
def test_views_of_an_admin_are_protected_but_for_its_login(site_class, rows_of):
    admin = site_class()
    admin.register(get_user_model(), MoreViews)
    rows = rows_of(None, path("admin/", admin.urls))
    assert len(rows) > 10
    assert {row.is_open for row in rows} == {False}
    assert [row.path for row in rows if row.access == "public"] == ["/admin/login/"]
    assert all(ADMIN in row.policy for row in rows if row.access != "public")


class OpenSite(AdminSite):
    def admin_view(self, view, cacheable=False):
        return view


def test_an_admin_site_that_asks_nothing_is_open(rows_of):
    rows = rows_of(None, path("admin/", OpenSite().urls))
    assert {row.is_open for row in rows if row.name != "admin:login"} == {True}


def rest_framework_view(**attributes):
    from rest_framework.views import APIView

    return type("Api", (APIView,), attributes).as_view()


def test_permission_classes_of_rest_framework_count(rows_of):
    permissions = pytest.importorskip("rest_framework.permissions")
    from rest_framework.decorators import action, api_view, permission_classes
    from rest_framework.viewsets import ViewSet

    class Actions(ViewSet):
        permission_classes = (permissions.IsAuthenticated,)

        @action(detail=False, permission_classes=[permissions.AllowAny])
        def anyone(self, request): ...

        def list(self, request): ...

    chosen = {"permission_classes": [permissions.IsAuthenticated]}
    login = ("IsAuthenticated", "rest_framework", False)
    expected = {
        rest_framework_view(**chosen): login,
        rest_framework_view(): (None, "none", True),
        rest_framework_view(permission_classes=[permissions.AllowAny]): ("AllowAny", "rest_framework", False),
        rest_framework_view(**chosen, initial=lambda *args: None): (*login[:2], None),
        rest_framework_view(**chosen, get_permissions=lambda self: []): (*login[:2], None),
        rest_framework_view(**chosen, permission_denied=lambda *args, **kwargs: None): (*login[:2], None),
        rest_framework_view(permission_classes=property(list)): ("permission_classes", "rest_framework", None),
        rest_framework_view(permission_classes=[permissions.IsAuthenticated & ~permissions.IsAdminUser]): (
            "IsAuthenticated & ~IsAdminUser",
            "rest_framework",
            False,
        ),
        rest_framework_view(permission_classes=[permissions.AllowAny | permissions.IsAdminUser]): (
            "AllowAny() | IsAdminUser",
            "rest_framework",
            None,
        ),
        api_view()(permission_classes([permissions.IsAuthenticated])(view)): login,
        Actions.as_view({"get": "list"}): login,
        Actions.as_view({"get": "anyone"}, **Actions.anyone.kwargs): ("AllowAny", "rest_framework", False),
        passing(rest_framework_view(**chosen)): (*login[:2], None),
    }
    rows = rows_of(None, *(path(f"{number}/", given) for number, given in enumerate(expected)))
    assert [(row.policy, row.source, row.is_open) for row in rows] == list(expected.values())


def bare(application):
    return application


@pytest.fixture
def mirror_default(rows_of, settings):
    settings.MIDDLEWARE = [MIRROR]
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}


@pytest.mark.parametrize(
    ("given", "policy", "source"),
    [
        (view, "IsAuthenticated()", "default"),
        (public(view), "AllowAny()", "decorator"),
        (LoginView.as_view(), "login_not_required", "django"),
        (login(view), "IsAuthenticated() & user_passes_test", "default, django"),
        (passing(staff(view)), "IsStaff()", "decorator"),  # MirrorMiddleware asks what the decorator left out.
        (on_dispatch(staff), "IsAuthenticated() & IsStaff()", "default, decorator"),  # It does not see that one.
        (on_dispatch(public), "IsAuthenticated() & AllowAny()", "default, decorator"),
    ],
)
def test_the_default_policy_counts_on_views_if_the_site_wants_that(given, policy, source, rows_of, mirror_default):
    (row,) = rows_of(None, path("a/", given))
    assert (row.policy, row.source, row.is_open) == (policy, source, False)


def test_a_guard_on_dispatch_is_not_asked_for_what_a_cache_around_it_has(rows_of, mirror_default, settings):
    settings.CHANNELS_WSDENY |= {"DEFAULT_POLICY": AllowAny()}
    views = [on_dispatch(staff), cache_page(60)(on_dispatch(staff)), cache_page(60)(staff(view))]
    rows = rows_of(None, *(path(f"{number}/", given) for number, given in enumerate(views)))
    assert [row.is_open for row in rows] == [False, None, False]


@pytest.mark.parametrize("around", [bare, require(Throttle("9/day"))])
def test_the_default_policy_of_a_stack_counts_on_views_without_one_of_their_own(around, rows_of, mirror_default):
    """Whatever guards there are inside the stack, around Django."""
    stack = DenyMiddlewareStack(around(get_asgi_application()), default_policy=AllowAny())
    strict = DenyMiddlewareStack(around(get_asgi_application()), default_policy=IsStaff())
    for application, given, sources in [(stack, view, ["stack"]), (strict, public(view), ["decorator"])]:
        (row,) = rows_of(ProtocolTypeRouter({"http": application}), path("a/", given))
        found = [each.source for each in row.protections if each.expression != "Throttle('9/day', key='user')"]
        assert (found, row.access == "guarded") == (sources, False)


@pytest.mark.parametrize("missing", ["middleware", "setting"])
def test_without_the_middleware_or_the_setting_the_default_policy_does_not_count_on_views(
    missing, rows_of, mirror_default, settings
):
    settings.MIDDLEWARE = [] if missing == "middleware" else [MIRROR]
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": missing != "setting"}
    (row,) = rows_of(None, path("a/", view))
    assert row.is_open


def mounted(*before):
    """Django behind each of these decorators, at a path of its own."""
    routes = [path(f"{number}/", wrap(get_asgi_application())) for number, wrap in enumerate(before)]
    return ProtocolTypeRouter({"http": URLRouter([*routes, re_path("", before[-1](get_asgi_application()))])})


@pytest.mark.parametrize(
    ("application", "policy", "is_open"),
    [
        (mounted(staff), "IsStaff()", False),
        (mounted(staff, bare), None, True),
        (mounted(bare, staff), None, True),
        (mounted(staff, public), "AllowAny()", False),
        (mounted(public, bare), None, True),
        (mounted(require(~DenyAll()), public), "~DenyAll()", None),
    ],
)
def test_of_several_ways_to_django_the_least_protected_counts(application, policy, is_open, rows_of):
    (row,) = rows_of(application, path("a/", view))
    assert (row.policy, row.is_open) == (policy, is_open)


def test_of_several_stacks_around_django_the_one_that_is_open_counts(rows_of, mirror_default):
    for policies in ([IsStaff()], [IsStaff(), AllowAny()], [AllowAny(), IsStaff()]):
        stacks = [functools.partial(DenyMiddlewareStack, default_policy=policy) for policy in policies]
        (row,) = rows_of(mounted(*stacks), path("a/", view))
        is_open = len(policies) > 1
        assert (row.policy, row.source, row.is_open) == ("AllowAny()" if is_open else "IsStaff()", "stack", is_open)


def test_a_view_that_is_guarded_itself_is_so_on_every_way_to_django(rows_of):
    (row,) = rows_of(mounted(staff, public), path("a/", login(view)))
    assert (row.policy, row.access) == ("AllowAny() & user_passes_test", "guarded")


def test_the_hooks_of_a_view_are_those_of_the_mirror_and_its_own(rows_of, settings):
    stack = DenyMiddlewareStack(mounted(bare), hooks=hooks)
    views = [path("a/", view), path("b/", with_hooks(hooks)(view))]
    assert [len(row.hooks) for row in rows_of(stack, *views)] == [0, 4]
    settings.MIDDLEWARE = [MIRROR]
    assert [len(row.hooks) for row in rows_of(stack, *views)] == [4, 4]


# Policies that are only reported.


def test_a_policy_that_is_only_reported_protects_nothing_and_is_named_below_the_row(rows_of):
    consumer = require(DenyAll(), enforce=False)(type("Consumer", (AsyncWebsocketConsumer,), {}))
    sockets = require(IsStaff(), enforce=False)(URLRouter([path("a/", consumer.as_asgi())]))
    urls = path("view/", require(IsStaff(), enforce=False)(require(DenyAll(), enforce=False)(view)))
    opened = public(require(IsStaff(), enforce=False)(consumer.as_asgi()))
    expected = [
        (DenyMiddlewareStack(sockets), ("IsAuthenticated()", "guarded", True)),
        (sockets, (None, "open", False)),
        (opened, ("AllowAny()", "public", False)),
    ]
    for application, found in expected:
        socket, page = rows_of(ProtocolTypeRouter({"websocket": application, "http": get_asgi_application()}), urls)
        assert (socket.policy, socket.access, socket.is_on_default) == found
        assert (page.policy, page.is_open) == (None, True)
        for row in (socket, page):
            assert row.notes == tuple(f"not enforced, only reported: {name}()" for name in ("IsStaff", "DenyAll"))
