"""The decorators hold, with the stack and without it, on everything that they go on and on all subclasses."""

import copy
import functools
import inspect

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from channels.generic.websocket import AsyncWebsocketConsumer, JsonWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.http import HttpResponse
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI
from rest_framework.permissions import IsAdminUser

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.decorators import login_required, permission_required, public, require, user_passes_test
from channels_wsdeny.policies import AllowAny, IsAuthenticated, IsStaff, Policy
from tests.support.case_site import Hello
from tests.support.clients import fetch, knock
from tests.support.policies import AsyncCheck, accept, alice, anonymous, boss, request_of
from tests.support.wrappers import Wrapper

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

urlpatterns = []
#: What an anonymous visitor, a user and a member of staff get behind IsStaff().
GUARDED, VIEWED = [401, 403, 101], [401, 403, 200]
SITES = {
    "alone": lambda app: app,
    "routed": lambda app: URLRouter([path("", app)]),
    "stack": DenyMiddlewareStack,
    "stack and wrapper": lambda app: DenyMiddlewareStack(Wrapper(app)),
}
staff_only = require(IsStaff())
or_anonymous = user_passes_test(lambda user: user.is_anonymous or user.is_staff)


async def statuses(app, ask=knock):
    return [(await ask(app, "/", user=user)).status for user in (anonymous, alice, boss)]


async def assert_guarded(app, expected=GUARDED):
    for name, site in SITES.items():
        assert await statuses(site(app)) == expected, name


class App:
    async def __call__(self, scope, receive, send, more=None):
        await accept(scope, receive, send)


@functools.wraps(accept)
async def wrapping(*args):
    await accept(*args)


APPS = {
    "consumer": staff_only(type("Consumer", (AsyncWebsocketConsumer,), {})).as_asgi(),
    "sync consumer": staff_only(type("Consumer", (WebsocketConsumer,), {})).as_asgi(),
    "JSON consumer": staff_only(type("Consumer", (JsonWebsocketConsumer,), {})).as_asgi(),
    "as_asgi": staff_only(AsyncWebsocketConsumer.as_asgi()),
    "function": staff_only(accept),
    "object": staff_only(App()),
    "method": staff_only(App().__call__),
    "wraps": staff_only(wrapping),
    "partial": staff_only(functools.partial(App.__call__, App())),
    "router": staff_only(URLRouter([path("", accept)])),
    "protocols": staff_only(ProtocolTypeRouter({"websocket": accept})),
    "stack": staff_only(DenyMiddlewareStack(accept, default_policy=AllowAny())),
    "guarded": login_required(staff_only(accept)),
    "two policies": or_anonymous(login_required(type("Consumer", (AsyncWebsocketConsumer,), {}))).as_asgi(),
    "public outside": public(staff_only(type("Consumer", (AsyncWebsocketConsumer,), {}))).as_asgi(),
}


@pytest.mark.parametrize("name", APPS)
async def test_a_decorated_application_is_guarded_with_the_stack_and_without(name):
    await assert_guarded(APPS[name])


async def test_each_policy_is_asked_once_the_outermost_first(ran):
    def deny(status):
        return require(AsyncCheck(lambda request: ran.append(status) or Deny(status)))

    let_in = require(AsyncCheck(lambda request: ran.append("asked") is None))
    app = let_in(type("Consumer", (AsyncWebsocketConsumer,), {})).as_asgi()
    for site in SITES.values():
        assert (await knock(site(app), "/")).status == 101
    assert ran == ["asked"] * len(SITES)
    stricter = deny(418)(let_in(deny(402)(type("Consumer", (AsyncWebsocketConsumer,), {}))))
    assert ((await knock(stricter.as_asgi(), "/")).status, ran[len(SITES) :]) == (418, [418])


async def test_a_decorated_router_leaves_the_next_route_its_turn_and_the_route_its_arguments(ran):
    permission = permission_required("x.y", obj=lambda request: ran.append(dict(request.resolver_match.kwargs)) or 7)
    nested = login_required(URLRouter([path("<slug>/", permission(type("Page", (Hello,), {})).as_asgi())]))
    inner = login_required(URLRouter([path("a/", Hello.as_asgi())]))
    app = URLRouter([path("", inner), path("b/", Hello.as_asgi()), path("<org>/", nested)])
    assert [(await fetch(app, url)).status for url in ("/a/", "/b/")] == [401, 200]
    assert ((await fetch(app, "/acme/lobby/", user=alice)).status, ran) == (403, [{"org": "acme", "slug": "lobby"}])


async def test_lifespan_passes_and_a_scope_without_a_request_is_an_error(ran):
    @login_required
    async def app(scope, receive, send):
        ran.append(scope["type"])

    await app({"type": "lifespan"}, None, None)
    with pytest.raises(ValueError, match=r"IsAuthenticated.*'channel'"):
        await app({"type": "channel"}, None, None)
    assert ran == ["lifespan"]


def test_a_decorated_application_keeps_its_name_and_attributes():
    @login_required
    class Chat(AsyncWebsocketConsumer):
        """Talk."""

    assert {(each.__name__, each.__doc__) for each in (Chat, Chat.as_asgi())} == {("Chat", "Talk.")}
    router = URLRouter([path("", accept)])
    guarded = login_required(router)
    assert iscoroutinefunction(guarded)
    assert (guarded.routes is router.routes, guarded._path_routing) == (True, True)
    assert "IsAuthenticated()" in repr(guarded)
    with pytest.raises(AttributeError):
        guarded.nothing  # noqa: B018 - reading it is what raises


class Copied:
    async def __call__(self, scope, receive, send):
        await accept(scope, receive, send)

    def __deepcopy__(self, memo):
        return Copied()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
async def test_a_copy_of_a_decorated_application_is_guarded(copied):
    assert (await knock(copied(login_required(Copied())), "/")).status == 401


async def own_call(self, scope, receive, send):
    """Accepts everyone, without a thought for the base."""
    await accept(scope, receive, send)


class Rude:
    """Keeps the base classes from hearing of a subclass."""

    def __init_subclass__(cls, **kwargs):
        pass


async def own_call_again(self, scope, receive, send):
    await own_call(self, scope, receive, send)


def made(name="Sub", *bases, **attributes):
    return type(name, bases, attributes)


async def super_call(self, scope, receive, send):
    await super(type(self), self).__call__(scope, receive, send)


async def unwrapped_call(self, scope, receive, send):
    await inspect.unwrap(type(self).__mro__[1].__call__)(self, scope, receive, send)


async def accept_connect(self, message):
    await self.accept()


def own_as_asgi(cls, **kwargs):
    async def app(scope, receive, send):
        await cls(**kwargs)(scope, receive, send)

    return app


def diamond(base):
    root = made("Root", AsyncWebsocketConsumer)
    left, right = login_required(made("Left", root)), staff_only(made("Right", root))
    return made("Both", left, right, __call__=own_call)


def made_before(base):
    early = made("Base", AsyncWebsocketConsumer)
    sub = made("Sub", early, __call__=own_call)
    staff_only(early)
    return sub


def wrapped_outside(base):
    inner = base.__call__

    @functools.wraps(inner)
    async def __call__(self, scope, receive, send):
        await inner(self, scope, receive, send)

    base.__call__ = __call__
    return base


SUBCLASSES = {
    "plain": lambda base: made("Sub", base),
    "own call": lambda base: made("Sub", base, __call__=own_call),
    "call that calls super": lambda base: made("Sub", base, __call__=super_call),
    "call that wraps": lambda base: made("Sub", base, __call__=functools.wraps(base.__call__)(own_call_again)),
    "call that unwraps": lambda base: made("Sub", base, __call__=unwrapped_call),
    "connect": lambda base: made("Sub", base, websocket_connect=accept_connect),
    "as_asgi": lambda base: made("Sub", base, as_asgi=classmethod(own_as_asgi)),
    "mixin first": lambda base: made("Sub", made("Mixin", __call__=own_call), base),
    "rude mixin": lambda base: made("Sub", Rude, base, __call__=own_call),
    "rude base": lambda base: made("Sub", made("Middle", base, **vars(Rude)), __call__=own_call),
    "decorated rude base": lambda base: made("Sub", login_required(made("Middle", Rude, base)), __call__=own_call),
    "diamond": diamond,
    "open side of a diamond": lambda base: made("Both", made("Open", AsyncWebsocketConsumer, __call__=own_call), base),
    "made before the decorator": made_before,
    "policies of both": lambda base: or_anonymous(made("Sub", login_required(made("Base", AsyncWebsocketConsumer)))),
    "public": lambda base: public(made("Sub", base)),
    "wrapped outside": wrapped_outside,
}


@pytest.mark.parametrize("name", SUBCLASSES)
async def test_a_subclass_of_a_decorated_consumer_is_guarded(name):
    base = staff_only(made("Base", AsyncWebsocketConsumer))
    cls = SUBCLASSES[name](base)
    await assert_guarded(cls.as_asgi())

    async def app(scope, receive, send):
        await cls()(scope, receive, send)

    await assert_guarded(app)


async def test_a_decorated_subclass_leaves_its_base_and_other_bases_as_they_were(ran):
    base = login_required(made("Base", AsyncWebsocketConsumer))
    staff_only(made("Sub", base))
    assert await statuses(base.as_asgi()) == [401, 101, 101]

    async def audited(self, scope, receive, send):
        ran.append("audited")
        await AsyncWebsocketConsumer.__call__(self, scope, receive, send)

    chat = made(
        "Chat", public(made("Plain", AsyncWebsocketConsumer)), made("Audited", AsyncWebsocketConsumer, __call__=audited)
    )
    assert ((await knock(chat.as_asgi(), "/")).status, ran) == (101, ["audited"])


async def test_classes_keep_their_own_new_and_init_subclass(ran):
    @staff_only
    class Base(AsyncWebsocketConsumer):
        def __init_subclass__(cls, *, name, **kwargs):
            super().__init_subclass__(**kwargs)
            ran.append(name)

        def __new__(cls, name):
            instance = super().__new__(cls)
            instance.name = name
            return instance

        def __init__(self, name):
            super().__init__()

    class Sub(Base, name="sub"):
        __call__ = own_call

    assert (ran, Sub("lobby").name) == (["sub"], "lobby")
    await assert_guarded(Sub.as_asgi(name="lobby"))


class Page(View):
    """Says hello."""

    def get(self, request):
        return HttpResponse("hello")


def view_set(cls, actions=None, **initkwargs):
    """As that of Django REST framework."""
    return lambda request: HttpResponse(str(actions))


def made_page_before():
    base = made("Base", Page)
    sub = made("Sub", base, as_view=classmethod(view_set))
    staff_only(base)
    return sub.as_view()


def guarded_page():
    return staff_only(made("Base", Page))


def alone(cls):
    """A subclass whose own `__init_subclass__` does not call that of its bases."""
    return made("Alone", cls, __init_subclass__=classmethod(lambda subclass: None))


VIEWS = {
    "class": lambda: guarded_page().as_view(),
    "view set": lambda: staff_only(made("Set", View, as_view=classmethod(view_set))).as_view({"get": "list"}),
    "dispatch": lambda: method_decorator(staff_only, name="dispatch")(made("Own", Page)).as_view(),
    "method": lambda: made("Own", View, get=method_decorator(staff_only)(Page.get)).as_view(),
    "own dispatch": lambda: made("Sub", guarded_page(), dispatch=lambda self, r: HttpResponse()).as_view(),
    "own as_view": lambda: made("Sub", guarded_page(), as_view=classmethod(view_set)).as_view(),
    "mixin first": lambda: made("Sub", made("Mixin", as_view=classmethod(view_set)), guarded_page()).as_view(),
    "made before the decorator": made_page_before,
    "own __init_subclass__": lambda: made("Sub", alone(guarded_page()), as_view=classmethod(view_set)).as_view(),
    "policies of both": lambda: or_anonymous(made("Sub", login_required(made("Base", Page)))).as_view(),
    "public": lambda: public(made("Sub", guarded_page())).as_view(),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_decorated_view_class_and_its_subclasses_are_guarded(name):
    view = VIEWS[name]()
    assert [view(request_of(user)).status_code for user in (anonymous, alice, boss)] == VIEWED


@pytest.mark.parametrize("wrap", [lambda guard: guard, lambda guard: [guard, or_anonymous]])
async def test_the_dispatch_of_an_asynchronous_view_class_is_guarded(wrap):
    async def get(self, request):
        return self.hello(request)

    hello = method_decorator(public)(Page.get)  # one that `get()` does not await
    view = method_decorator(wrap(staff_only), name="dispatch")(made("Own", View, get=get, hello=hello)).as_view()
    assert [(await view(request_of(user))).status_code for user in (anonymous, alice, boss)] == VIEWED


def test_a_view_whose_signature_cannot_be_read_is_guarded():
    class Unreadable:
        __signature__ = "(request)"

        def __call__(self, request):
            return HttpResponse()

    view = staff_only(Unreadable())
    assert [view(request_of(user)).status_code for user in (anonymous, alice, boss)] == VIEWED


def test_a_diamond_of_decorated_views_asks_each_policy_once(ran):
    sides = [require(AsyncCheck(lambda request, n=n: ran.append(n) is None))(made("Side", Page)) for n in "ab"]
    assert (made("Both", *sides).as_view()(request_of(anonymous)).status_code, ran) == (200, ["a", "b"])


def test_the_view_of_a_decorated_class_keeps_its_attributes():
    page = method_decorator(csrf_exempt, name="dispatch")(staff_only(made("Own", Page, __doc__="Says hello.")))
    view = page.as_view(http_method_names=["get"])
    assert (view.view_class, view.csrf_exempt, view.__doc__) == (page, True, "Says hello.")
    assert view.view_initkwargs == {"http_method_names": ["get"]}


async def called(self, scope, receive, send):
    raise AssertionError("The application around takes it apart.")


def operation(request):
    """An operation of Ninja's."""


#: As those of Starlette and FastAPI.
BaseRoute = type("BaseRoute", (), {"__module__": "starlette.routing", "__call__": called})
Mount = type("Mount", (BaseRoute,), {})
APIRouter = type("APIRouter", (), {"__module__": "fastapi.routing", "__call__": called})


@pytest.mark.parametrize(
    ("decorate", "message"),
    [
        *(
            (lambda endpoint=endpoint: login_required(endpoint), r"IsAuthenticated\(\) can guard.*decorate the view")
            for endpoint in (
                path("a/", Page.as_view()),
                include([path("a/", Page.as_view())]),
                "app.views.page",
                None,
                42,
            )
        ),
        *((lambda cls=cls: login_required(cls), "classes of consumers and views") for cls in (dict, Policy, URLRouter)),
        (lambda: require(IsStaff), r"IsStaff\(\)"),
        (lambda: require("chat.view_room"), r"Write @permission_required\('chat.view_room'\)"),
        (lambda: require([IsStaff(), AllowAny()]), "combined by & or |"),
        (lambda: require(IsStaff(), AllowAny()), r"combined by & or \|.*found \(IsStaff\(\), AllowAny\(\)\)"),
        (lambda: permission_required("auth.add_user", "auth.change_user"), "several of them in a list"),
        (lambda: permission_required("auth.add_user", Hello), "obj=function for the object"),
        (lambda: permission_required("auth.add_user", obj=Hello), "a function that returns the object"),
        (lambda: login_required(login_url="/"), r"login_required\(\) takes no login_url: .* log-in page of LOGIN_URL"),
        (lambda: permission_required("a.b", raise_exception=True), "takes no raise_exception: it denies with a 401"),
        (lambda: user_passes_test(bool, login_url="/"), "takes no login_url"),
        (lambda: require(lambda request: True), r"a function of yours a Policy with check\(\), or UserPassesTest\(fun"),
        (lambda: require(3), r"Write @require\(IsAuthenticated\(\)\), for example: "),
        *(
            (lambda found=found: require(found), r"RestFramework\(permissions=\[IsAdminUser\]\)")
            for found in (IsAdminUser, IsAdminUser())
        ),
        (lambda: require(AsyncWebsocketConsumer), r"Write @require\(IsAuthenticated\(\)\)"),
        (lambda: permission_required(AsyncWebsocketConsumer), r'Write .* @permission_required\("app.codename"\)'),
        (lambda: user_passes_test(AsyncWebsocketConsumer), r"Write @user_passes_test\(test\)"),
        (lambda: user_passes_test(accept), r"Write @user_passes_test\(test\)"),
        (lambda: user_passes_test(odd), r"Write @user_passes_test\(test\)"),
        (lambda: login_required(), "Write @login_required without parentheses"),
        (lambda: public(), "Write @public without parentheses"),
        (lambda: login_required(AsyncWebsocketConsumer.connect), "Decorate the class of the consumer or view"),
        (lambda: require(IsStaff())(WebsocketConsumer.receive), "Decorate the class of the consumer or view"),
        (lambda: login_required(AsyncWebsocketConsumer()), r"instance of .*write AsyncWebsocketConsumer.as_asgi\(\)"),
        (lambda: login_required(AsyncWebsocketConsumer.as_asgi), r"what AsyncWebsocketConsumer.as_asgi\(\) returns"),
        (lambda: login_required(View.as_view), r"what View.as_view\(\) returns"),
        (lambda: require(IsAuthenticated() and IsStaff()), "&"),
        (lambda: made("Page", View, get=login_required(Page.get)), "method_decorator"),
        (lambda: login_required(Mount()), "cannot guard the Mount of an application.*Decorate the application before"),
        (lambda: login_required(NinjaAPI().get("/")(operation)), "guard nothing: .* below that of the operation"),
        (lambda: login_required(APIRouter()), "cannot guard the APIRouter of an application"),
        (lambda: login_required(odd), r"takes \(s, r, send\).*by these names"),
        (lambda: async_to_sync(login_required(view_or_app))({"type": "websocket"}, None, None), "by these names"),
    ],
)
def test_what_cannot_be_decorated_is_refused(decorate, message):
    with pytest.raises(TypeError, match=message):
        decorate()


async def odd(s, r, send):
    raise AssertionError("This should not have run.")


async def view_or_app(a, b, c):
    raise AssertionError("This should not have run.")


def test_a_view_may_call_the_arguments_of_its_url_as_an_application_does():
    def view(request, receive, send): ...

    assert login_required(view).__wrapped__ is view
