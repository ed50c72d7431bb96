"""The decorators hold, with the stack and without it, on everything they go on and on all subclasses."""

from __future__ import annotations

import functools
import inspect

import django
import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from channels.consumer import AsyncConsumer, SyncConsumer
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import TemplateView

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.decorators import login_required, permission_required, public, require, user_passes_test
from channels_wsdeny.policies import AllowAny, IsAuthenticated, IsStaff, Policy, UserPassesTest
from tests.clients import fetch, knock

# Channels' consumers close old database connections before each message.
pytestmark = pytest.mark.django_db

alice = get_user_model()(pk=1, username="alice")
boss = get_user_model()(pk=2, username="boss", is_staff=True)
nobody = AnonymousUser()


class Wrapper:
    """A wrapper that the look-ahead does not know."""

    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        await self.inner(scope, receive, send)


class Counts(Policy):
    """Allows, and counts."""

    def __init__(self):
        self.asked = 0

    async def acheck(self, request):
        self.asked += 1
        return True


# Without the stack, behind it, and behind it where it cannot see.
SITES = {
    "alone": lambda app: app,
    "routed": lambda app: URLRouter([path("", app)]),
    "stack": DenyMiddlewareStack,
    "stack and wrapper": lambda app: DenyMiddlewareStack(Wrapper(app)),
}


@pytest.fixture(params=SITES)
def site(request):
    return SITES[request.param]


async def statuses(app):
    """What a visitor, a user and a member of staff get."""
    return [(await knock(app, "/", user=user)).status for user in (nobody, alice, boss)]


# Consumers and apps.


@pytest.mark.parametrize(
    "base",
    [AsyncWebsocketConsumer, AsyncJsonWebsocketConsumer, WebsocketConsumer, JsonWebsocketConsumer],
)
async def test_a_decorated_consumer_is_guarded_with_the_stack_and_without(base, site):
    consumer = require(IsStaff())(type("Consumer", (base,), {}))
    assert await statuses(site(consumer.as_asgi())) == [401, 403, 101]


@pytest.mark.parametrize("base", [AsyncConsumer, SyncConsumer])
async def test_a_denied_raw_consumer_runs_nothing(base, site):
    @login_required
    class Raw(base):
        def websocket_connect(self, message):
            raise AssertionError("This should not have run.")

    assert (await knock(site(Raw.as_asgi()), "/")).status == 401


async def test_a_consumer_instance_may_be_decorated(site):
    assert await statuses(site(require(IsStaff())(AsyncWebsocketConsumer()))) == [401, 403, 101]


async def test_what_as_asgi_returned_may_be_decorated(site):
    app = require(IsStaff())(AsyncWebsocketConsumer.as_asgi())
    assert await statuses(site(app)) == [401, 403, 101]


async def test_decorating_one_app_of_a_consumer_leaves_its_other_apps_alone():
    require(IsStaff())(AsyncWebsocketConsumer.as_asgi())
    assert await statuses(AsyncWebsocketConsumer.as_asgi()) == [101, 101, 101]


async def accept(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await receive()


class App:
    async def __call__(self, scope, receive, send):
        await accept(scope, receive, send)


class AppWithMore:
    async def __call__(self, scope, receive, send, more=None):
        await accept(scope, receive, send)


@functools.wraps(accept)
async def wrapping(*args):
    await accept(*args)


@pytest.mark.parametrize(
    "app",
    [
        accept,
        App(),
        AppWithMore(),
        App().__call__,
        wrapping,
        functools.partial(App.__call__, App()),
        URLRouter([path("", accept)]),
        ProtocolTypeRouter({"websocket": accept}),
        DenyMiddlewareStack(accept, default_policy=AllowAny()),
        login_required(accept),
    ],
    ids=[
        "function",
        "object",
        "more",
        "method",
        "wraps",
        "partial",
        "router",
        "protocols",
        "stack",
        "guarded",
    ],
)
async def test_an_asgi_app_may_be_decorated(app, site):
    assert await statuses(site(require(IsStaff())(app))) == [401, 403, 101]


async def test_decorators_stack_and_all_must_pass(site):
    @user_passes_test(lambda user: user.username != "boss")
    @login_required
    @require(IsStaff())
    class Consumer(AsyncWebsocketConsumer):
        pass

    assert await statuses(site(Consumer.as_asgi())) == [401, 403, 403]


async def test_the_outermost_decorator_answers_first():
    @require(UserPassesTest(lambda user: True))
    @require(IsStaff())
    @user_passes_test(lambda user: False)
    class Consumer(AsyncWebsocketConsumer):
        pass

    stricter = require(Denies(418))(Consumer)
    assert await statuses(stricter.as_asgi()) == [418, 418, 418]


class Denies(Policy):
    def __init__(self, status):
        self.status = status

    async def acheck(self, request):
        return Deny(self.status)


async def test_public_above_another_policy_does_not_lift_it(site):
    @public
    @login_required
    class Consumer(AsyncWebsocketConsumer):
        pass

    assert await statuses(site(Consumer.as_asgi())) == [401, 101, 101]


async def test_each_policy_is_asked_once_a_handshake(site):
    counts = Counts()

    @require(counts)
    class Consumer(AsyncWebsocketConsumer):
        pass

    assert (await knock(site(Consumer.as_asgi()), "/")).status == 101
    assert counts.asked == 1


# Consumers that speak HTTP.


class Hello(AsyncHttpConsumer):
    async def handle(self, body):
        await self.send_response(200, b"hello " + body)


async def http_statuses(app):
    return [(await fetch(app, "/", user=user)).status for user in (nobody, alice, boss)]


@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper, lambda app: URLRouter([path("", app)])])
async def test_a_decorated_http_consumer_is_guarded(wrap):
    consumer = require(IsStaff())(type("Consumer", (Hello,), {}))
    assert await http_statuses(wrap(consumer.as_asgi())) == [401, 403, 200]


async def test_a_decorated_router_is_guarded_over_http_too():
    app = require(IsStaff())(URLRouter([path("", Hello.as_asgi())]))
    assert await http_statuses(app) == [401, 403, 200]


async def test_an_http_consumer_on_a_decorated_route_has_its_own_kwargs():
    slugs = []

    @permission_required("view", obj=lambda request: slugs.append(request.resolver_match.kwargs) or True)
    class Page(Hello):
        pass

    router = URLRouter([path("<org>/", login_required(URLRouter([path("<slug>/", Page.as_asgi())])))])
    await fetch(router, "/acme/lobby/", user=alice)
    assert slugs == [{"org": "acme", "slug": "lobby"}]


async def test_over_http_a_decorated_router_without_a_match_leaves_the_next_route_its_turn():
    inner = login_required(URLRouter([path("a/", Hello.as_asgi())]))
    app = URLRouter([path("", inner), path("b/", Hello.as_asgi())])
    assert (await fetch(app, "/b/")).status == 200
    assert (await fetch(app, "/a/")).status == 401


@pytest.mark.urls(__name__)
async def test_django_may_be_decorated_as_one_app():
    assert await http_statuses(require(IsStaff())(get_asgi_application())) == [401, 403, 404]


urlpatterns = []


async def test_lifespan_passes_a_decorated_app():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope)

    scope = {"type": "lifespan"}
    await login_required(app)(scope, None, None)
    assert seen == [scope]


async def test_a_scope_that_policies_cannot_be_asked_about_is_an_error():
    with pytest.raises(ValueError, match=r"IsAuthenticated.*'channel'"):
        await login_required(accept)({"type": "channel"}, None, None)


# Subclasses of consumers.


async def own_call(self, scope, receive, send):
    """Accepts whoever comes, without a thought for the base."""
    await receive()
    await send({"type": "websocket.accept"})
    await receive()


@pytest.fixture
def base():
    """A guarded consumer class, anew for each test."""

    @require(IsStaff())
    class Base(AsyncWebsocketConsumer):
        pass

    return Base


GUARDED = [401, 403, 101]


async def test_a_plain_subclass_is_guarded(base, site):
    class Sub(base):
        pass

    assert await statuses(site(Sub.as_asgi())) == GUARDED


async def test_a_subclass_that_overrides_call_is_guarded(base, site):
    class Sub(base):
        __call__ = own_call

    assert await statuses(site(Sub.as_asgi())) == GUARDED


async def test_a_subclass_that_overrides_call_and_calls_super_is_guarded(base, site):
    class Sub(base):
        async def __call__(self, scope, receive, send):
            self.noted = True
            await super().__call__(scope, receive, send)

    assert await statuses(site(Sub.as_asgi())) == GUARDED


async def test_a_subclass_that_wraps_the_call_it_overrides_is_guarded(base, site):
    class Sub(base):
        @functools.wraps(base.__call__)
        async def __call__(self, scope, receive, send):
            await own_call(self, scope, receive, send)

    assert await statuses(site(Sub.as_asgi())) == GUARDED


async def test_a_subclass_that_calls_what_the_guarded_call_wraps_is_guarded(base, site):
    class Sub(base):
        async def __call__(self, scope, receive, send):
            await inspect.unwrap(base.__call__)(self, scope, receive, send)

    assert await statuses(site(Sub.as_asgi())) == GUARDED


async def test_a_subclass_that_overrides_dispatch_is_guarded(base, site):
    class Sub(base):
        async def dispatch(self, message):
            if message["type"] == "websocket.connect":
                await self.accept()
            else:
                await super().dispatch(message)

    assert await statuses(site(Sub.as_asgi())) == GUARDED


async def test_a_subclass_that_overrides_connect_is_guarded(base, site):
    class Sub(base):
        async def websocket_connect(self, message):
            await self.accept()

    assert await statuses(site(Sub.as_asgi())) == GUARDED


async def test_a_subclass_that_overrides_as_asgi_is_guarded(base, site):
    class Sub(base):
        @classmethod
        def as_asgi(cls, **kwargs):
            async def app(scope, receive, send):
                await cls(**kwargs)(scope, receive, send)

            return app

    assert await statuses(site(Sub.as_asgi())) == GUARDED


async def test_a_mixin_placed_first_that_defines_call_is_guarded(base, site):
    class Mixin:
        __call__ = own_call

    class Sub(Mixin, base):
        pass

    assert await statuses(site(Sub.as_asgi())) == GUARDED


async def test_a_mixin_whose_init_subclass_calls_no_super_is_guarded(base, site):
    class Rude:
        def __init_subclass__(cls, **kwargs):
            pass

    class Sub(Rude, base):
        __call__ = own_call

    assert await statuses(site(Sub.as_asgi())) == GUARDED


async def test_an_instance_whose_mixin_calls_no_super_is_guarded(base, site):
    class Rude:
        def __init_subclass__(cls, **kwargs):
            pass

    class Sub(Rude, base):
        __call__ = own_call

    async def app(scope, receive, send):
        await Sub()(scope, receive, send)

    assert await statuses(site(app)) == GUARDED


async def test_an_instance_is_made_with_the_arguments_of_its_class(base, site):
    class Named(base):
        def __new__(cls, name):
            made = super().__new__(cls)
            made.name = name
            return made

        def __init__(self, name):
            super().__init__()

    assert Named("lobby").name == "lobby"
    assert await statuses(site(Named.as_asgi(name="lobby"))) == GUARDED


async def test_a_diamond_is_guarded_by_both_sides(site):
    class Root(AsyncWebsocketConsumer):
        pass

    @login_required
    class Left(Root):
        pass

    @require(IsStaff())
    class Right(Root):
        pass

    class Both(Left, Right):
        __call__ = own_call

    assert await statuses(site(Both.as_asgi())) == GUARDED


async def test_one_undecorated_side_of_a_diamond_opens_nothing(base, site):
    class Open(AsyncWebsocketConsumer):
        __call__ = own_call

    class Both(Open, base):
        pass

    assert await statuses(site(Both.as_asgi())) == GUARDED


async def test_decorating_a_class_leaves_the_call_of_its_other_bases_in_place():
    ran = []

    class Audited(AsyncWebsocketConsumer):
        async def __call__(self, scope, receive, send):
            ran.append("audited")
            await super().__call__(scope, receive, send)

    @public
    class Plain(AsyncWebsocketConsumer):
        pass

    class Chat(Plain, Audited):
        pass

    assert (await knock(Chat.as_asgi(), "/")).status == 101
    assert ran == ["audited"]


async def test_a_subclass_with_an_init_subclass_of_its_own_is_guarded(base, site):
    made = []

    class Middle(base):
        def __init_subclass__(cls, *, name, **kwargs):
            super().__init_subclass__(**kwargs)
            made.append(name)

    class Sub(Middle, name="sub"):
        __call__ = own_call

    assert made == ["sub"]
    assert await statuses(site(Sub.as_asgi())) == GUARDED


async def test_a_subclass_with_an_init_subclass_that_calls_no_super_is_guarded(base, site):
    class Middle(base):
        def __init_subclass__(cls, **kwargs):
            pass

    class Sub(Middle):
        __call__ = own_call

    assert await statuses(site(Sub.as_asgi())) == GUARDED


async def test_a_decorated_class_keeps_its_own_init_subclass(site):
    made = []

    @require(IsStaff())
    class Base(AsyncWebsocketConsumer):
        def __init_subclass__(cls, *, name, **kwargs):
            super().__init_subclass__(**kwargs)
            made.append((cls.__name__, name))

    class Sub(Base, name="sub"):
        __call__ = own_call

    assert made == [("Sub", "sub")]
    assert await statuses(site(Sub.as_asgi())) == GUARDED


async def test_a_decorated_subclass_with_a_rude_init_subclass_is_guarded(base, site):
    @login_required
    class Middle(base):
        def __init_subclass__(cls, **kwargs):
            pass

    class Sub(Middle):
        __call__ = own_call

    assert await statuses(site(Sub.as_asgi())) == GUARDED


async def test_a_subclass_made_before_the_decorator_came_is_guarded(site):
    class Base(AsyncWebsocketConsumer):
        pass

    class Sub(Base):
        __call__ = own_call

    require(IsStaff())(Base)
    assert await statuses(site(Sub.as_asgi())) == GUARDED


async def test_a_decorated_subclass_of_a_decorated_class_has_the_policies_of_both(site):
    @login_required
    class Base(AsyncWebsocketConsumer):
        pass

    @user_passes_test(lambda user: user.is_anonymous or user.is_staff)
    class Sub(Base):
        pass

    assert await statuses(site(Sub.as_asgi())) == GUARDED
    assert await statuses(site(Base.as_asgi())) == [401, 101, 101]


async def test_public_on_a_subclass_does_not_open_a_guarded_base(base, site):
    @public
    class Sub(base):
        pass

    assert await statuses(site(Sub.as_asgi())) == GUARDED


async def test_a_class_decorator_further_out_may_wrap_the_call(base, site):
    def noting(cls):
        inner = cls.__call__

        @functools.wraps(inner)
        async def __call__(self, scope, receive, send):
            await inner(self, scope, receive, send)

        cls.__call__ = __call__
        return cls

    assert await statuses(site(noting(base).as_asgi())) == GUARDED


def test_a_decorated_consumer_keeps_its_name_and_doc():
    @login_required
    class Chat(AsyncWebsocketConsumer):
        """Talk."""

    assert (Chat.__name__, Chat.__doc__) == ("Chat", "Talk.")
    assert (Chat.as_asgi().__name__, Chat.as_asgi().__doc__) == ("Chat", "Talk.")
    assert iscoroutinefunction(Chat.__call__)


def test_a_decorated_app_is_a_coroutine_function_with_the_attributes_of_its_own():
    router = URLRouter([path("", accept)])
    guarded = login_required(router)
    assert iscoroutinefunction(guarded)
    assert guarded.routes is router.routes
    assert guarded._path_routing is True
    assert "IsAuthenticated()" in repr(guarded)
    with pytest.raises(AttributeError):
        guarded.nothing  # noqa: B018


# Views.


def request_of(user, **headers):
    request = RequestFactory().get("/page/", headers=headers)
    request.user = user
    return request


def view_statuses(view):
    ask = async_to_sync(view) if iscoroutinefunction(view) else view
    return [ask(request_of(user)).status_code for user in (nobody, alice, boss)]


def sync_view(request):
    """Says hello."""
    return HttpResponse("hello")


async def async_view(request):
    """Says hello."""
    return HttpResponse("hello")


class SyncView(View):
    """Says hello."""

    def get(self, request):
        return HttpResponse("hello")


class AsyncView(View):
    """Says hello."""

    async def get(self, request):
        return HttpResponse("hello")


VIEWED = [401, 403, 200]


@pytest.mark.parametrize("view", [sync_view, async_view, SyncView.as_view(), AsyncView.as_view()])
def test_a_decorated_view_function_is_guarded(view):
    assert view_statuses(require(IsStaff())(view)) == VIEWED


@pytest.mark.parametrize("base", [SyncView, AsyncView])
def test_a_decorated_view_class_is_guarded(base):
    assert view_statuses(require(IsStaff())(type("Page", (base,), {})).as_view()) == VIEWED


def test_a_view_class_decorated_by_method_decorator_is_guarded():
    @method_decorator(require(IsStaff()), name="dispatch")
    class Page(SyncView):
        pass

    assert view_statuses(Page.as_view()) == VIEWED


def test_a_method_decorated_by_method_decorator_is_guarded():
    class Page(View):
        @method_decorator(require(IsStaff()))
        def get(self, request):
            return HttpResponse("hello")

    assert view_statuses(Page.as_view()) == VIEWED


@pytest.mark.skipif(django.VERSION < (6, 0), reason="method_decorator knows no coroutines before Django 6.0.")
def test_an_async_method_decorated_by_method_decorator_is_guarded():
    class Page(View):
        @method_decorator(require(IsStaff()))
        async def get(self, request):
            return HttpResponse("hello")

    assert view_statuses(Page.as_view()) == VIEWED


def test_decorators_stack_on_views():
    assert view_statuses(login_required(user_passes_test(lambda user: user.is_staff)(sync_view))) == VIEWED


def test_a_views_keyword_arguments_arrive():
    @public
    def room(request, pk, *, mode):
        return HttpResponse(f"{pk} {mode}")

    assert room(request_of(nobody), 7, mode="x").content == b"7 x"


@pytest.mark.parametrize("view", [sync_view, async_view])
@pytest.mark.parametrize("decorators", [(login_required, csrf_exempt), (csrf_exempt, login_required)])
def test_a_decorated_view_keeps_its_attributes(view, decorators):
    outer, inner = decorators
    guarded = outer(inner(view))
    assert guarded.csrf_exempt is True
    assert (guarded.__name__, guarded.__doc__) == (view.__name__, "Says hello.")
    assert iscoroutinefunction(guarded) is iscoroutinefunction(view)


@pytest.mark.parametrize("base", [SyncView, AsyncView])
def test_the_view_of_a_decorated_class_keeps_its_attributes(base):
    page = csrf_exempt_class(require(IsStaff())(type("Page", (base,), {"__doc__": "Says hello."})))
    view = page.as_view()
    assert view.view_class is page
    assert view.csrf_exempt is True
    assert view.__doc__ == "Says hello."
    assert iscoroutinefunction(view) is (base is AsyncView)


csrf_exempt_class = method_decorator(csrf_exempt, name="dispatch")


def test_as_view_takes_its_init_arguments():
    view = public(type("Page", (TemplateView,), {})).as_view(template_name="a.html")
    assert view.view_initkwargs == {"template_name": "a.html"}


def test_as_view_takes_positional_arguments():
    class ViewSet(View):
        """As those of Django REST framework."""

        @classmethod
        def as_view(cls, actions=None, **initkwargs):
            return lambda request: HttpResponse(str(actions))

    view = require(IsStaff())(ViewSet).as_view({"get": "list"})
    assert view_statuses(view) == VIEWED


@pytest.fixture
def view_base():
    return require(IsStaff())(type("Page", (SyncView,), {}))


def test_a_subclass_of_a_decorated_view_is_guarded(view_base):
    class Sub(view_base):
        def dispatch(self, request, *args, **kwargs):
            return HttpResponse("mine")

    assert view_statuses(Sub.as_view()) == VIEWED


def test_a_subclass_of_a_decorated_view_that_overrides_as_view_is_guarded(view_base):
    class Sub(view_base):
        @classmethod
        def as_view(cls, **initkwargs):
            return csrf_exempt(super().as_view(**initkwargs))

    assert view_statuses(Sub.as_view()) == VIEWED


def test_a_subclass_of_a_decorated_view_that_overrides_as_view_without_super_is_guarded(view_base):
    class Sub(view_base):
        @classmethod
        def as_view(cls, **initkwargs):
            return lambda request: cls().get(request)

    assert view_statuses(Sub.as_view()) == VIEWED


def test_a_mixin_placed_first_that_overrides_as_view_is_guarded(view_base):
    class Mixin:
        @classmethod
        def as_view(cls, **initkwargs):
            return View.as_view.__func__(cls, **initkwargs)

    class Sub(Mixin, view_base):
        pass

    assert view_statuses(Sub.as_view()) == VIEWED


def test_a_decorated_subclass_of_a_decorated_view_has_the_policies_of_both():
    base = login_required(type("Base", (SyncView,), {}))
    sub = user_passes_test(lambda user: user.is_anonymous or user.is_staff)(type("Sub", (base,), {}))
    assert view_statuses(sub.as_view()) == VIEWED
    assert view_statuses(base.as_view()) == [401, 200, 200]


def test_public_on_a_subclass_does_not_open_a_guarded_view(view_base):
    assert view_statuses(public(type("Sub", (view_base,), {})).as_view()) == VIEWED


def test_a_diamond_of_decorated_views_asks_each_policy_once():
    left, right = Counts(), Counts()
    bases = tuple(require(policy)(type("Side", (SyncView,), {})) for policy in (left, right))
    view = type("Both", bases, {}).as_view()
    assert view(request_of(nobody)).status_code == 200
    assert (left.asked, right.asked) == (1, 1)


def test_a_view_is_asked_again_when_the_request_has_another_user():
    request = request_of(boss)
    view = require(IsStaff())(sync_view)
    assert view(request).status_code == 200
    request.user = alice
    assert view(request).status_code == 403


@pytest.mark.parametrize("view", [sync_view, async_view])
def test_a_browser_that_has_to_log_in_is_sent_there(view, settings):
    settings.LOGIN_URL = "/log-in/"
    guarded = login_required(view)
    ask = async_to_sync(guarded) if iscoroutinefunction(guarded) else guarded
    response = ask(request_of(nobody, accept="text/html"))
    assert (response.status_code, response["Location"]) == (302, "/log-in/?next=/page/")


def test_a_browser_that_lacks_a_permission_is_not_sent_to_log_in():
    response = require(IsStaff())(sync_view)(request_of(alice, accept="text/html"))
    assert response.status_code == 403


# What cannot be decorated.


@pytest.mark.parametrize(
    "endpoint", [path("a/", sync_view), include([path("a/", sync_view)]), "app.views.page", None, 42]
)
def test_what_is_no_endpoint_is_told(endpoint):
    with pytest.raises(TypeError, match=r"IsAuthenticated\(\) can guard.*decorate the view rather than path"):
        login_required(endpoint)


@pytest.mark.parametrize("cls", [dict, Policy, URLRouter])
def test_a_class_that_is_neither_consumer_nor_view_is_told(cls):
    with pytest.raises(TypeError, match="classes of consumers and views"):
        login_required(cls)


@pytest.mark.parametrize(
    ("policy", "hint"),
    [(IsStaff, r"IsStaff\(\)"), ("IsStaff", r"IsAuthenticated\(\)"), (None, r"IsAuthenticated\(\)")],
)
def test_what_is_no_policy_is_told(policy, hint):
    with pytest.raises(TypeError, match=hint):
        require(policy)


def test_a_method_decorated_without_method_decorator_is_told():
    class Page(View):
        @login_required
        def get(self, request):
            return HttpResponse("hello")

    with pytest.raises(TypeError, match="method_decorator"):
        Page.as_view()(request_of(alice))


async def test_an_asgi_app_with_other_names_is_told_and_stays_shut():
    @login_required
    async def app(s, r, send):
        raise AssertionError("This should not have run.")

    with pytest.raises(TypeError, match="by these names"):
        await app({"type": "websocket", "path": "/"}, None, None)


def test_a_decorator_without_its_policy_is_told():
    with pytest.raises(TypeError, match="A permission is"):

        @permission_required
        class Consumer(AsyncWebsocketConsumer):
            pass


def test_policies_are_not_joined_by_pythons_and():
    with pytest.raises(TypeError, match="&"):
        require(IsAuthenticated() and IsStaff())
