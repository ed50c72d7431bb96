from __future__ import annotations

import functools
import time

import pytest
from channels.auth import AuthMiddlewareStack
from channels.consumer import AsyncConsumer
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.middleware import BaseMiddleware
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.admin.views.decorators import staff_member_required
from django.contrib.auth import decorators as djangos
from django.contrib.auth import get_user_model
from django.contrib.auth.mixins import LoginRequiredMixin, PermissionRequiredMixin
from django.contrib.auth.views import LoginView
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import include, path, re_path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.vary import vary_on_cookie

from channels_wsdeny import DenyMiddlewareStack, Hooks
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.inspection.protections import Lock
from channels_wsdeny.inspection.report import Door, doors
from channels_wsdeny.installed import LOGIN_REQUIRED
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated, IsStaff, IsSuperuser
from channels_wsdeny.routes import TimedRoute
from channels_wsdeny.routing.resolver import look_ahead
from tests.clients import websocket_scope


class Plain(AsyncWebsocketConsumer):
    pass


@require(IsStaff())
class Staff(AsyncWebsocketConsumer):
    pass


class InheritsStaff(Staff):
    pass


@public
class Public(AsyncWebsocketConsumer):
    pass


class OverHttp(AsyncHttpConsumer):
    pass


plain, staff = Plain.as_asgi(), Staff.as_asgi()
hooks, more_hooks = Hooks(), Hooks()


@hooks.on_request
def arrive(request):
    return None


@hooks.on_route(priority=1)
def look(request):
    return None


@hooks.on_response(protocols="http")
def leave(request, response):
    return None


@more_hooks.on_request
async def arrive_again(request):
    return None


@pytest.fixture(autouse=True)
def nothing_but_what_a_test_gives(settings):
    settings.ASGI_APPLICATION = settings.ROOT_URLCONF = None
    settings.MIDDLEWARE = []


@pytest.fixture
def of_asgi(settings, monkeypatch):
    """A function from an application to the doors of a site that has it."""

    def find(application):
        monkeypatch.setitem(globals(), "application", application)
        settings.ASGI_APPLICATION = f"{__name__}.application"
        return doors()

    return find


@pytest.fixture
def of_views(settings):
    """A function from routes to the doors of a site that has them."""

    def find(*urlpatterns):
        settings.ROOT_URLCONF = tuple(urlpatterns)
        return doors()

    return find


def sockets(**routes):
    return ProtocolTypeRouter(
        {"websocket": URLRouter([path(f"{name}/", app) for name, app in routes.items()])}
    )


def guarded_by(door):
    return door.policy, door.source


def test_a_decorated_consumer_is_guarded_by_its_decorator(of_asgi):
    (door,) = of_asgi(DenyMiddlewareStack(sockets(a=staff)))
    assert guarded_by(door) == ("IsStaff()", "decorator")


def test_a_decorated_consumer_is_guarded_without_a_stack(of_asgi):
    (door,) = of_asgi(sockets(a=staff))
    assert guarded_by(door) == ("IsStaff()", "decorator")


def test_a_subclass_is_guarded_by_the_decorator_of_its_base(of_asgi):
    (door,) = of_asgi(sockets(a=InheritsStaff.as_asgi()))
    assert guarded_by(door) == ("IsStaff()", "decorator")


def test_a_consumer_without_a_policy_is_guarded_by_the_sites_default(of_asgi):
    (door,) = of_asgi(DenyMiddlewareStack(sockets(a=plain)))
    assert guarded_by(door) == ("IsAuthenticated()", "default")


def test_a_consumer_without_a_policy_is_guarded_by_the_stacks_default(of_asgi):
    (door,) = of_asgi(DenyMiddlewareStack(sockets(a=plain), default_policy=IsSuperuser()))
    assert guarded_by(door) == ("IsSuperuser()", "stack")


def test_the_nearest_stack_counts(of_asgi):
    inner = DenyMiddlewareStack(sockets(a=plain), default_policy=IsStaff())
    (door,) = of_asgi(DenyMiddlewareStack(inner, default_policy=DenyAll()))
    assert guarded_by(door) == ("IsStaff()", "stack")


def test_a_policy_around_a_stack_counts_as_well(of_asgi):
    stack = DenyMiddlewareStack(sockets(a=plain), default_policy=IsStaff())
    (door,) = of_asgi(require(IsAuthenticated())(stack))
    assert guarded_by(door) == ("IsAuthenticated() & IsStaff()", "decorator, stack")


def test_a_policy_around_a_router_stands_for_a_default(of_asgi):
    router = require(IsStaff() | IsSuperuser())(sockets(a=plain, b=staff))
    a, b = of_asgi(DenyMiddlewareStack(router, default_policy=DenyAll()))
    assert guarded_by(a) == ("IsStaff() | IsSuperuser()", "decorator")
    assert guarded_by(b) == ("(IsStaff() | IsSuperuser()) & IsStaff()", "decorator")


def test_a_consumer_without_anything_is_open(of_asgi):
    (door,) = of_asgi(sockets(a=plain))
    assert (door.is_open, door.is_public, *guarded_by(door)) == (True, False, None, "none")


def test_a_public_consumer_is_not_open(of_asgi):
    (door,) = of_asgi(sockets(a=Public.as_asgi()))
    assert (door.is_open, door.is_public, *guarded_by(door)) == (False, True, "AllowAny()", "decorator")


def test_what_is_public_behind_a_policy_is_not(of_asgi):
    (door,) = of_asgi(require(IsStaff())(sockets(a=Public.as_asgi())))
    assert not door.is_public


@pytest.mark.parametrize(
    "application",
    [
        sockets(x=staff),
        DenyMiddlewareStack(sockets(x=staff)),
        DenyMiddlewareStack(sockets(x=plain), default_policy=IsSuperuser()),
        DenyMiddlewareStack(DenyMiddlewareStack(sockets(x=plain)), default_policy=IsSuperuser()),
        DenyMiddlewareStack(DenyMiddlewareStack(sockets(x=staff), default_policy=IsSuperuser())),
        require(DenyAll())(DenyMiddlewareStack(sockets(x=plain), default_policy=IsSuperuser())),
        DenyMiddlewareStack(require(DenyAll())(sockets(x=plain)), default_policy=IsSuperuser()),
        DenyMiddlewareStack(require(DenyAll())(sockets(x=staff)), default_policy=IsSuperuser()),
        DenyMiddlewareStack(sockets(x=require(DenyAll())(staff)), default_policy=IsSuperuser()),
        DenyMiddlewareStack(AllowedHostsOriginValidator(AuthMiddlewareStack(sockets(x=staff)))),
        require(DenyAll())(require(IsStaff())(sockets(x=Public.as_asgi()))),
    ],
)
def test_the_policies_are_those_that_the_look_ahead_finds(application, of_asgi):
    (door,) = of_asgi(application)
    policies = look_ahead(application, websocket_scope("/x/")).guards.policies
    assert [lock.expression for lock in door.locks] == [repr(policy) for policy in policies]


def test_nested_routers_are_read_through(of_asgi):
    inner = URLRouter([path("b/<int:pk>/", plain, name="b"), re_path(r"^c/(?P<x>\w+)/$", plain)])
    router = URLRouter([path("a/", inner, name="a"), path("d/", plain, name="d")])
    found = of_asgi(ProtocolTypeRouter({"websocket": router}))
    assert [(door.path, door.name) for door in found] == [
        ("/a/b/<int:pk>/", "b"),
        (r"/a/c/(?P<x>\w+)/$", "a"),
        ("/d/", "d"),
    ]


def test_known_wrappers_are_read_through(of_asgi):
    (door,) = of_asgi(AllowedHostsOriginValidator(AuthMiddlewareStack(sockets(a=staff))))
    assert (door.path, door.notes, *guarded_by(door)) == ("/a/", (), "IsStaff()", "decorator")


def test_the_endpoint_is_the_consumers_dotted_name(of_asgi):
    (door,) = of_asgi(sockets(a=plain))
    assert (door.protocol, door.endpoint) == ("websocket", f"{__name__}.Plain")


class Tokens(BaseMiddleware):
    pass


class Slotted:
    __slots__ = ("app",)

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


@pytest.mark.parametrize("wrapper", [Tokens, Slotted])
def test_a_wrapper_that_is_not_known_is_read_through_and_named(wrapper, of_asgi):
    (door,) = of_asgi(DenyMiddlewareStack(wrapper(sockets(a=staff))))
    assert (door.path, *guarded_by(door)) == ("/a/", "IsStaff()", "decorator")
    assert door.notes == (f"behind {__name__}.{wrapper.__name__}, which may change what counts",)


def closed(inner):
    async def application(scope, receive, send):
        await inner(scope, receive, send)

    return application


def test_what_cannot_be_seen_into_is_said_to_be_opaque(of_asgi):
    found = of_asgi(DenyMiddlewareStack(closed(sockets(a=staff))))
    assert {(door.path, door.policy, door.source) for door in found if door.protocol == "websocket"} == {
        ("/", "IsAuthenticated()", "default")
    }
    assert "opaque" in found[0].notes[0]


def test_what_cannot_be_seen_into_is_open_outside_a_stack(of_asgi):
    assert all(door.is_open for door in of_asgi(closed(DenyMiddlewareStack(plain))))


def test_a_routed_class_is_said_to_lack_as_asgi(of_asgi):
    (door,) = of_asgi(sockets(a=Plain))
    assert door.is_open
    assert (door.endpoint, door.notes) == (
        f"{__name__}.Plain",
        ("opaque: it is a class, as_asgi() is missing",),
    )


def test_an_application_that_contains_itself_has_an_end(of_asgi):
    wrapper = Tokens(None)
    wrapper.inner = URLRouter([path("a/", wrapper)])
    found = of_asgi(ProtocolTypeRouter({"websocket": wrapper}))
    assert [door.path for door in found] == ["/a/"]
    assert "circle" in found[0].notes[0]


def names(door):
    return [hook.name.rpartition(".")[2] for hook in door.hooks]


def test_hooks_are_those_of_the_site_the_stack_and_the_consumer(of_asgi, settings):
    settings.CHANNELS_WSDENY = {"HOOKS": [more_hooks]}
    consumer = with_hooks(hooks)(Plain.as_asgi())
    (door,) = of_asgi(DenyMiddlewareStack(sockets(a=consumer)))
    assert names(door) == ["arrive_again", "arrive", "look"]


def test_a_consumer_outside_every_stack_has_no_hooks_of_the_site(of_asgi, settings):
    settings.CHANNELS_WSDENY = {"HOOKS": [more_hooks]}
    (door,) = of_asgi(sockets(a=plain))
    assert names(door) == []


@pytest.mark.parametrize("consumer", [plain, staff, Plain, require(IsStaff())(plain)])
def test_a_socket_that_is_routed_for_every_protocol_is_a_door_for_sockets_alone(consumer, of_asgi):
    (door,) = of_asgi(DenyMiddlewareStack(URLRouter([path("a/", consumer)])))
    assert door.protocol == "websocket"


def test_an_http_consumer_that_is_routed_for_every_protocol_is_a_door_over_http_alone(of_asgi):
    (door,) = of_asgi(DenyMiddlewareStack(URLRouter([path("a/", OverHttp.as_asgi())])))
    assert door.protocol == "http"


def test_a_consumer_of_neither_protocol_is_a_door_for_both(of_asgi):
    found = of_asgi(DenyMiddlewareStack(AsyncConsumer.as_asgi()))
    assert [door.protocol for door in found] == ["websocket", "http"]


def over_http(**routes):
    return ProtocolTypeRouter({"http": URLRouter([path(f"{name}/", app) for name, app in routes.items()])})


def test_an_http_consumer_is_a_door(of_asgi):
    (door,) = of_asgi(DenyMiddlewareStack(over_http(a=require(IsStaff())(OverHttp).as_asgi())))
    assert (door.protocol, door.path, *guarded_by(door)) == ("http", "/a/", "IsStaff()", "decorator")


class OpenOverHttp(AsyncHttpConsumer):
    pass


@pytest.mark.parametrize(
    ("is_on", "guard"), [(False, (None, "none")), (True, ("IsAuthenticated()", "default"))]
)
def test_over_http_a_default_counts_if_the_site_wants_that(is_on, guard, of_asgi, settings):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": is_on}
    (door,) = of_asgi(DenyMiddlewareStack(over_http(a=OpenOverHttp.as_asgi())))
    assert guarded_by(door) == guard


def test_a_site_without_anything_has_no_doors():
    assert doors() == []


def view(request):
    return HttpResponse()


async def async_view(request):
    return HttpResponse()


class ClassView(View):
    pass


GUARDED = {
    "function": require(IsStaff())(view),
    "coroutine": require(IsStaff())(async_view),
    "class": require(IsStaff())(type("Page", (View,), {})).as_view(),
    "subclass": type("Sub", (require(IsStaff())(type("Page", (View,), {})),), {}).as_view(),
    "under-another-decorator": csrf_exempt(require(IsStaff())(view)),
    "under-hooks-and-another": with_hooks(hooks)(csrf_exempt(require(IsStaff())(view))),
    "route": TimedRoute(require(IsStaff())(view)),
}


@pytest.mark.parametrize("guarded", GUARDED.values(), ids=GUARDED)
def test_a_decorated_view_is_guarded_by_its_decorator(guarded, of_views):
    (door,) = of_views(path("a/", guarded, name="a"))
    assert (door.protocol, door.path, door.name) == ("http", "/a/", "a")
    assert guarded_by(door) == ("IsStaff()", "decorator")


def test_decorators_on_one_another_are_all_told(of_views):
    (door,) = of_views(path("a/", require(IsAuthenticated())(csrf_exempt(require(IsStaff())(view)))))
    assert door.policy == "IsAuthenticated() & IsStaff()"


class Refuses:
    """A view that can be no key of a dictionary."""

    __hash__ = None
    __slots__ = ()

    def __call__(self, request):
        return HttpResponse()


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (view, "view"),
        (async_view, "async_view"),
        (ClassView.as_view(), "ClassView"),
        (functools.partial(view), "view"),
        (Refuses(), "Refuses"),
        (closed(None), "closed.<locals>.application"),
    ],
    ids=["function", "coroutine", "class", "partial", "object", "closure"],
)
def test_a_view_without_anything_is_open(given, name, of_views):
    (door,) = of_views(path("a/", given))
    assert (door.is_open, door.endpoint) == (True, f"{__name__}.{name}")


OF_DJANGO = {
    "login_required": (djangos.login_required(view), "user_passes_test"),
    "coroutine": (djangos.login_required(async_view), "user_passes_test"),
    "permission_required": (djangos.permission_required("a.b")(view), "user_passes_test"),
    "staff_member_required": (staff_member_required(view), "user_passes_test"),
    "within": (csrf_exempt(djangos.login_required(view)), "user_passes_test"),
    "method": (
        method_decorator(djangos.login_required, name="dispatch")(type("Page", (View,), {})).as_view(),
        "user_passes_test",
    ),
    "mixin": (type("Page", (LoginRequiredMixin, View), {}).as_view(), "LoginRequiredMixin"),
    "another-mixin": (type("Page", (PermissionRequiredMixin, View), {}).as_view(), "PermissionRequiredMixin"),
}


@pytest.mark.parametrize(("guarded", "name"), OF_DJANGO.values(), ids=OF_DJANGO)
def test_djangos_own_guards_count(guarded, name, of_views):
    (door,) = of_views(path("a/", guarded))
    assert (*guarded_by(door), door.is_public) == (name, "django", False)


def test_djangos_guards_are_told_beside_a_decorator(of_views):
    (door,) = of_views(path("a/", require(IsStaff())(djangos.login_required(view))))
    assert guarded_by(door) == ("IsStaff() & user_passes_test", "decorator, django")


@pytest.mark.parametrize("given", [LoginView.as_view(), djangos.login_not_required(lambda request: None)])
def test_what_needs_no_login_on_purpose_is_public(given, of_views):
    (door,) = of_views(path("a/", given))
    assert (door.is_open, door.is_public, *guarded_by(door)) == (False, True, "login_not_required", "django")


def test_login_required_middleware_guards_every_view(of_views, settings):
    settings.MIDDLEWARE = [LOGIN_REQUIRED]
    a, login = of_views(path("a/", view), path("login/", LoginView.as_view()))
    assert (*guarded_by(a), a.is_public) == ("LoginRequiredMiddleware", "django", False)
    assert login.is_public


def test_views_of_the_admin_are_guarded_but_for_its_login(of_views):
    site = AdminSite()
    site.register(get_user_model())
    found = of_views(path("admin/", site.urls))
    assert len(found) > 10
    assert {(door.policy, door.source) for door in found if door.name != "admin:login"} == {
        ("AdminSite.has_permission", "admin")
    }
    assert [door.path for door in found if door.is_public] == ["/admin/login/"]


class MoreViews(ModelAdmin):
    """As Django's docs have it, and Django's own `UserAdmin`."""

    def change_password(self, request, pk):
        return HttpResponse()

    def get_urls(self):
        own = path("<int:pk>/password/", self.admin_site.admin_view(self.change_password))
        return [own, *super().get_urls()]


def test_a_page_that_a_model_admin_adds_is_guarded_by_the_admin(of_views):
    site = AdminSite()
    site.register(get_user_model(), MoreViews)
    (door,) = (door for door in of_views(path("admin/", site.urls)) if door.path.endswith("/password/"))
    assert guarded_by(door) == ("AdminSite.has_permission", "admin")


class StrictSite(AdminSite):
    """Has more to say than Django's, of which it makes use."""

    def admin_view(self, view, cacheable=False):
        return csrf_exempt(djangos.permission_required("a.b")(super().admin_view(view, cacheable)))


@csrf_exempt
def exempt_view(request):
    return HttpResponse()


BY_THE_ADMIN = {
    "function": AdminSite().admin_view(view),
    "cacheable": AdminSite().admin_view(view, cacheable=True),
    "exempt": AdminSite().admin_view(exempt_view),
    "exempt-and-cacheable": AdminSite().admin_view(exempt_view, cacheable=True),
    "class": AdminSite().admin_view(ClassView.as_view()),
    "under-another-decorator": vary_on_cookie(AdminSite().admin_view(view)),
    "site-of-ones-own": type("Site", (AdminSite,), {})().admin_view(view),
    "site-with-a-view-of-its-own": StrictSite().admin_view(view),
}


@pytest.mark.parametrize("guarded", BY_THE_ADMIN.values(), ids=BY_THE_ADMIN)
def test_what_the_admin_wraps_is_guarded_by_it(guarded, of_views):
    (door,) = of_views(path("a/", guarded))
    assert "AdminSite.has_permission" in [lock.expression for lock in door.locks if lock.source == "admin"]


def named_as_the_admins():
    """A view with every name that those of the admin have, which asks nobody."""

    def inner(request):
        return HttpResponse()

    inner.__module__ = AdminSite.__module__
    inner.__qualname__ = "AdminSite.admin_view.<locals>.inner"
    inner.__code__ = inner.__code__.replace(co_name="inner", co_qualname=inner.__qualname__)
    inner.admin_site = inner.model_admin = "admin"
    return inner


def test_a_view_that_is_named_as_the_admins_is_open(of_views):
    (door,) = of_views(path("a/", named_as_the_admins()))
    assert door.is_open


def test_a_view_that_holds_one_of_the_admins_is_open(of_views):
    inner = AdminSite().admin_view(view)

    def chooses(request):
        return view(request) if request.GET else inner(request)

    (door,) = of_views(path("a/", chooses))
    assert door.is_open


@pytest.fixture
def of_rest_framework(of_views):
    """A function from the attributes of a view of Django REST framework's to its door."""
    views = pytest.importorskip("rest_framework.views")

    def find(**attributes):
        (door,) = of_views(path("a/", type("Api", (views.APIView,), attributes).as_view()))
        return door

    return find


def test_permission_classes_of_rest_framework_count(of_rest_framework):
    from rest_framework.permissions import IsAuthenticated

    door = of_rest_framework(permission_classes=[IsAuthenticated])
    assert guarded_by(door) == ("IsAuthenticated", "rest_framework")


def test_rest_frameworks_default_is_open(of_rest_framework):
    assert of_rest_framework().is_open


def test_rest_frameworks_allow_any_is_public(of_rest_framework):
    from rest_framework.permissions import AllowAny

    assert of_rest_framework(permission_classes=[AllowAny]).is_public


@pytest.fixture
def mirror_default(settings):
    settings.MIDDLEWARE = [MIRROR]
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}


def test_a_default_counts_on_views_if_the_site_wants_that(of_views, mirror_default):
    a, b, c = of_views(path("a/", view), path("b/", public(view)), path("c/", LoginView.as_view()))
    assert guarded_by(a) == ("IsAuthenticated()", "default")
    assert guarded_by(b) == ("AllowAny()", "decorator")
    assert guarded_by(c) == ("login_not_required", "django")


def test_a_default_is_asked_beside_what_django_asks(of_views, mirror_default):
    (door,) = of_views(path("a/", djangos.login_required(view)))
    assert guarded_by(door) == ("IsAuthenticated() & user_passes_test", "default, django")


def test_a_default_without_the_middleware_does_not_count_on_views(of_views, settings):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}
    (door,) = of_views(path("a/", view))
    assert door.is_open


@pytest.fixture
def behind(settings, of_asgi):
    """A function from an application around Django's handler to the door of a view behind it."""

    def find(wrap):
        settings.ROOT_URLCONF = (path("a/", view),)
        (door,) = of_asgi(wrap(get_asgi_application()))
        return door

    return find


def test_a_default_of_a_stack_around_django_counts_on_views(behind, mirror_default):
    door = behind(
        lambda django: DenyMiddlewareStack(ProtocolTypeRouter({"http": django}), default_policy=IsStaff())
    )
    assert guarded_by(door) == ("IsStaff()", "stack")


def test_a_policy_around_django_counts_on_views(behind):
    door = behind(lambda django: ProtocolTypeRouter({"http": require(IsStaff())(django)}))
    assert guarded_by(door) == ("IsStaff()", "decorator")


def test_of_several_ways_to_django_the_least_guarded_counts(behind):
    door = behind(
        lambda django: ProtocolTypeRouter(
            {"http": URLRouter([path("a/", require(IsStaff())(django)), re_path("", django)])}
        )
    )
    assert door.is_open


def test_hooks_of_views_are_those_of_the_stack_and_their_own(behind, settings):
    settings.MIDDLEWARE = [MIRROR]
    door = behind(lambda django: DenyMiddlewareStack(ProtocolTypeRouter({"http": django}), hooks=hooks))
    assert names(door) == ["arrive", "look", "leave"]


def test_without_the_middleware_a_stack_does_not_run_route_hooks_on_views(behind):
    door = behind(lambda django: DenyMiddlewareStack(ProtocolTypeRouter({"http": django}), hooks=hooks))
    assert names(door) == ["arrive", "leave"]


def test_a_view_runs_its_own_hooks_without_anything(of_views):
    (door,) = of_views(path("a/", with_hooks(hooks)(view)))
    assert names(door) == ["arrive", "look", "leave"]


def test_includes_are_read_through(of_views):
    inner = ([path("b/", view, name="b"), re_path(r"^c/$", view)], "app")
    found = of_views(path("a/", include(inner, namespace="space")), re_path(r"^ä/(?P<x>\d+)$", view))
    assert [(door.path, door.name) for door in found] == [
        ("/a/b/", "space:b"),
        ("/a/c/$", None),
        (r"/ä/(?P<x>\d+)$", None),
    ]


urlpatterns = [path("a/", view), path("again/", include(__name__))]


def test_a_urlconf_that_includes_itself_has_an_end(settings):
    settings.ROOT_URLCONF = __name__
    found = doors()
    assert found[0].path == "/a/"
    assert any("circle" in note for door in found for note in door.notes)


def test_a_urlconf_of_thousands_of_views_is_read_in_a_moment(of_views):
    began = time.monotonic()
    found = of_views(*(path(f"{number}/<int:pk>/", require(AllowAny())(view)) for number in range(3000)))
    assert len(found) == 3000
    assert time.monotonic() - began < 10


def test_what_a_urlconf_raises_comes_out(settings):
    settings.ROOT_URLCONF = "nowhere.urls"
    with pytest.raises(ModuleNotFoundError):
        doors()


def door(**values):
    return Door(**{"protocol": "http", "path": "/a/", "name": None, "endpoint": "app.view", **values})


def test_a_door_in_json():
    guarded = door(locks=(Lock("IsStaff()", "decorator"),), hooks=tuple(more_hooks), notes=("a note",))
    assert guarded.as_dict() == {
        "protocol": "http",
        "path": "/a/",
        "name": None,
        "endpoint": "app.view",
        "policy": "IsStaff()",
        "source": "decorator",
        "open": False,
        "public": False,
        "hooks": [f"on_request {__name__}.arrive_again"],
        "notes": ["a note"],
    }


@pytest.mark.parametrize(
    ("sources", "is_on_default"),
    [
        (["default"], True),
        (["stack"], True),
        (["decorator"], False),
        (["default", "django"], False),
        ([], False),
    ],
)
def test_a_door_is_on_default_if_nothing_else_guards_it(sources, is_on_default):
    assert door(locks=tuple(Lock("x", source) for source in sources)).is_on_default is is_on_default
