"""Authentication classes: which is asked, what counts, and what denies."""

import asyncio
import copy
from types import ModuleType, SimpleNamespace

import pytest
from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.asgi import get_asgi_application
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpResponse
from django.urls import path
from django.utils.functional import SimpleLazyObject
from django.views.decorators.cache import cache_page
from django.views.decorators.csrf import csrf_exempt
from ninja.security import HttpBearer, SessionAuth, django_auth
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.authentication import (
    Authentication,
    BearerAuthentication,
    SessionAuthentication,
    TicketAuthentication,
)
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.contrib.rest_framework import RestFramework
from channels_wsdeny.decorators import login_required, permission_required, public, require
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated, Policy, UserPassesTest
from tests.support.clients import fetch, knock
from tests.support.site import SITE_CACHE, Site, hello, hello_async
from tests.support.sockets import UserOverHttp, accept_as_user, consumer, decorated
from tests.support.wrappers import Middleware

pytestmark = pytest.mark.django_db


class Consumer(AsyncWebsocketConsumer):
    """Accepts, and says who came."""

    async def connect(self):
        user, request = self.scope["user"], self.scope["wsdeny"].request
        assert request.user is user
        await self.accept(headers=[(b"x-user", user.username.encode()), (b"x-auth", str(request.auth).encode())])


SyncConsumer = consumer(accept_as_user, WebsocketConsumer)
#: Accepts whoever has no wrong credentials.
Open = public(type("Open", (Consumer,), {}))


class Named(Authentication):
    """The user of the name in a header; "wrong" is refused in the way that the test says."""

    refusal: Exception = Deny(401)

    def __init__(self, users, header="x-name"):
        self.users, self.header, self.asked = users, header, 0

    def find(self, request):
        self.asked += 1
        name = request.headers.get(self.header)
        if name == "wrong":
            raise self.refusal
        return (self.users[name], f"{type(self).__name__} {name}") if name else None

    def authenticate(self, request):
        return self.find(request)

    def authenticate_header(self, request):
        return "Named"


class AsyncNamed(Named):
    async def aauthenticate(self, request):
        await asyncio.sleep(0)
        return self.find(request)


class Asking(AsyncNamed):
    """Asks the coroutine function by the method of the base, as a class that changes what it finds does."""

    def authenticate(self, request):
        return Authentication.authenticate(self, request)


class Coroutine(Named):
    async def authenticate(self, request):
        return self.find(request)


class DRFNamed(BaseAuthentication):
    def authenticate(self, request):
        name = request.headers.get("x-name")
        return (get_user_model().objects.get(username=name), None) if name else None


class Foreign:
    """A class of the site's own that has the protocol, and no base."""

    def __init__(self, users):
        self.users = users

    def authenticate(self, request):
        name = request.headers.get("x-name")
        return self.users[name] if name else None


def headers(**given):
    return [
        (name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "testserver", **given}.items()
    ]


async def ask(app, **given):
    answer = await knock(app, "/", headers=headers(**given))
    return answer if answer.status != 101 else answer.header("x-user")


@pytest.mark.parametrize("cls", [Named, AsyncNamed, Asking, Coroutine, Foreign])
@pytest.mark.parametrize("endpoint", [Consumer, SyncConsumer, login_required(type("Guarded", (Consumer,), {})), Open])
async def test_a_user_by_any_class_reaches_any_consumer(cls, endpoint, users):
    app = DenyMiddlewareStack(endpoint.as_asgi(), authentication=[cls(users)])
    assert await ask(app, x_name="alice") == "alice"
    found = await ask(app)
    assert found == "" if endpoint is Open else found.status == 401


@pytest.mark.parametrize("cls", [Named, AsyncNamed, Coroutine])
async def test_a_class_is_asked_once_whatever_the_guards_are(cls, users):
    authentication = cls(users)
    guarded = type("Guarded", (Consumer,), {})
    require(IsAuthenticated() & UserPassesTest(lambda user: user.username == "alice"))(guarded)
    app = DenyMiddlewareStack(
        require(~DenyAll() | IsAuthenticated())(guarded.as_asgi()), authentication=[authentication]
    )
    assert await ask(app, x_name="alice") == "alice"
    assert authentication.asked == 1


async def test_the_first_class_that_knows_the_user_wins(users, headers_of):
    def app(*classes):
        return DenyMiddlewareStack(Consumer.as_asgi(), authentication=classes)

    cookie = headers_of("alice")[0][1].decode()
    named = Named(users)
    assert await ask(app(named, SessionAuthentication()), x_name="bob", cookie=cookie) == "bob"
    assert await ask(app(SessionAuthentication(), named), x_name="bob", cookie=cookie) == "alice"
    assert await ask(app(SessionAuthentication(), named), x_name="bob") == "bob"
    assert (await ask(app(named), cookie=cookie)).status == 401
    assert (await ask(app(), cookie=cookie)).status == 401
    answer = await knock(app(named, SessionAuthentication()), "/", headers=headers(x_name="bob", cookie=cookie))
    assert answer.header("x-auth") == "Named bob"


REFUSALS = [
    (Deny(401), 401, "invalid_credentials", "Named"),
    (Deny(401, code="expired", headers={"WWW-Authenticate": "Mine"}), 401, "expired", "Mine"),
    (PermissionDenied("secret"), 401, "invalid_credentials", "Named"),
    (Deny(403), 403, "permission_denied", None),
    (ConnectionError("secret"), 503, "unavailable", None),
    (KeyError("secret"), 500, "server_error", None),
]


@pytest.mark.parametrize(("refusal", "status", "code", "challenge"), REFUSALS)
async def test_wrong_credentials_deny_at_any_endpoint_before_its_policy(
    refusal, status, code, challenge, users, monkeypatch, caplog
):
    monkeypatch.setattr(Named, "refusal", refusal)
    for policy in (AllowAny(), IsAuthenticated(), DenyAll(), ~IsAuthenticated(), IsAuthenticated() | AllowAny()):
        guarded = require(policy)(type("Guarded", (Consumer,), {}))
        app = DenyMiddlewareStack(guarded.as_asgi(), authentication=[Named(users)])
        answer = await ask(app, x_name="wrong")
        found = answer.status, answer.problem["code"], answer.header("www-authenticate")
        assert found == (status, code, challenge), policy
        assert b"secret" not in answer.body


async def test_a_class_of_ninja_challenges_by_its_scheme():
    key = type("Key", (HttpBearer,), {"authenticate": lambda self, request, token: None})
    app = DenyMiddlewareStack(Consumer.as_asgi(), authentication=[key()])
    assert (await ask(app)).header("www-authenticate") == "Bearer"


async def test_a_policy_that_needs_no_user_is_asked_before_the_request_is_authenticated(users):
    class Early(Policy):
        needs_user = False

        def check(self, request):
            return False

    named = Named(users)
    for policy in (Early(), Early() & IsAuthenticated(), Early() | Early()):
        guarded = require(policy)(type("Guarded", (Consumer,), {}))
        answer = await ask(DenyMiddlewareStack(guarded.as_asgi(), authentication=[named]), x_name="wrong")
        assert answer.status == 403
    assert named.asked == 0


@pytest.mark.parametrize("found", [True, False, "alice", 1, {}, (), ("alice",), object(), SimpleNamespace()])
async def test_what_is_no_user_is_an_error(found):
    class Wrong(Authentication):
        def authenticate(self, request):
            return found

    assert (await ask(DenyMiddlewareStack(Open.as_asgi(), authentication=[Wrong()]))).status == 500


async def test_a_user_in_the_scope_stays_unless_it_is_anonymous(users):
    named = Named(users)
    for user, expected in [(users["bob"], "bob"), (AnonymousUser(), "alice"), (None, "alice")]:
        around = Middleware(DenyMiddlewareStack(Consumer.as_asgi(), authentication=[named]), user=user)
        inside = DenyMiddlewareStack(Middleware(Consumer.as_asgi(), user=user), authentication=[named])
        assert [await ask(app, x_name="alice") for app in (around, inside)] == [expected] * 2
    app = AuthMiddlewareStack(DenyMiddlewareStack(Consumer.as_asgi(), authentication=[named]))
    assert await ask(app, x_name="alice") == "alice"
    assert (await ask(app)).status == 401
    known = DenyMiddlewareStack(Open.as_asgi(), authentication=[BearerAuthentication(lambda token: None)])
    assert await ask(Middleware(known, user=AnonymousUser())) == ""


async def test_a_user_that_a_wrapper_has_not_loaded_yet_stays_where_there_are_no_credentials(users):
    classes = [BearerAuthentication(lambda token: None)]
    for user, expected in [(users["bob"], "bob"), (AnonymousUser(), None)]:
        lazy = SimpleLazyObject(lambda user=user: user)
        answer = await ask(Middleware(DenyMiddlewareStack(Consumer.as_asgi(), authentication=classes), user=lazy))
        assert answer == expected if expected else answer.status == 401


async def test_the_session_of_an_anonymous_user_in_the_scope_is_not_asked_again(headers_of):
    app = DenyMiddlewareStack(Consumer.as_asgi(), authentication=[SessionAuthentication(), Foreign({})])
    known = Middleware(app, user=AnonymousUser())
    assert (await ask(known, cookie=headers_of("alice")[0][1].decode())).status == 401


async def test_the_classes_of_the_nearest_stack_count_also_behind_a_wrapper(users):
    inner = DenyMiddlewareStack(Consumer.as_asgi(), authentication=[Named(users, "x-inner")])
    for app in (inner, Middleware(inner)):
        stack = DenyMiddlewareStack(app, authentication=[Named(users)])
        assert await ask(stack, x_inner="alice") == "alice"
        assert (await ask(stack, x_name="alice")).status == 401


@pytest.mark.parametrize("cls", [Named, AsyncNamed])
async def test_applications_over_http_are_authenticated_as_sockets_are(cls, users):
    page = decorated(login_required, base=UserOverHttp)
    app = DenyMiddlewareStack(page.as_asgi(), authentication=[cls(users)])
    for name, status, body in [("alice", 200, b"alice"), ("wrong", 401, None), (None, 401, None)]:
        answer = await fetch(app, "/", headers=headers(**({"x_name": name} if name else {})))
        assert (answer.status, body or answer.body) == (status, answer.body)


@pytest.mark.parametrize("is_of_stack", [False, True])
def test_all_views_under_the_mirror_are_authenticated_with_the_classes_of_the_stack_or_site(is_of_stack, users, site):
    if is_of_stack and not site.has_stack:
        return
    classes = [Named(users), SessionAuthentication()]
    site.serve(
        lambda request: HttpResponse(request.user.username), **({} if is_of_stack else {"AUTHENTICATION": classes})
    )
    if is_of_stack:
        Site.stack = {"authentication": classes}
    assert site.ask(x_name="alice").body == b"alice"
    assert site.ask().body == b""
    refused = site.ask(x_name="wrong")
    assert (refused.status, refused.code, refused.headers["www-authenticate"]) == (401, "invalid_credentials", "Named")
    site.log_in(users["bob"])
    assert site.ask().body == b"bob"
    assert site.ask(x_name="alice").body == b"alice"

    async def view(request):
        return HttpResponse((await request.auser()).username)

    site.serve(view, AUTHENTICATION=classes)
    assert site.ask(x_name="alice").body == b"alice"


class BySessionUser(Authentication):
    """The user of the session, as Ninja's `SessionAuth` tells it."""

    def authenticate(self, request):
        return request.user if request.user.is_authenticated else None


class AsyncBySessionUser(Authentication):
    async def aauthenticate(self, request):
        user = await request.auser()
        return user if user.is_authenticated else None


class ReadsBody(BaseAuthentication):
    """Notes the body, as a class for signed requests does."""

    def authenticate(self, request):
        request._request.signed = request._request.body


def test_a_body_that_a_class_of_rest_framework_reads_is_there_for_the_view(site):
    site.serve(
        csrf_exempt(public(lambda request: HttpResponse(request.body + request.signed))), AUTHENTICATION=[ReadsBody()]
    )
    assert site.post(b"body").body == b"bodybody"


BY_SESSION_USER = [BySessionUser(), AsyncBySessionUser(), SessionAuth(csrf=False), django_auth]


@pytest.mark.parametrize("authentication", BY_SESSION_USER)
async def test_a_class_that_looks_at_the_user_of_a_handshake_finds_that_of_the_session(authentication, headers_of):
    app = DenyMiddlewareStack(Open.as_asgi(), authentication=[authentication])
    for name, found in [("alice", "alice"), (None, "")]:
        answer = await knock(app, "/", headers=headers_of(name))
        assert (answer.status, answer.header("x-user")) == (101, found)


@pytest.mark.parametrize("view", [hello, hello_async])
@pytest.mark.parametrize("authentication", BY_SESSION_USER)
def test_a_class_that_looks_at_the_user_of_a_view_finds_that_of_the_session(authentication, view, users, site):
    site.serve(login_required(view), AUTHENTICATION=[authentication])
    assert site.ask().status == 401
    assert site.log_in(users["alice"]).ask().status == 200


def greet(request):
    return HttpResponse(f"hello {request.user.username}")


async def greet_async(request):
    user = await request.auser()
    return HttpResponse(f"hello {user.username}")


@pytest.mark.parametrize(
    ("view", "mirror"),
    [
        (greet, [MIRROR]),
        (greet_async, [MIRROR]),
        (login_required(greet), []),
        (login_required(greet_async), []),
        (cache_page(60)(login_required(greet)), []),
        (require(RestFramework(authentication=[DRFNamed]))(greet), []),
    ],
    ids=["mirror", "mirror, async", "guarded", "guarded, async", "guarded behind a cache", "drf"],
)
def test_what_a_credential_opens_is_not_cached_for_others(view, mirror, users, site):
    cache.clear()
    site.serve(view, mirror=mirror, AUTHENTICATION=[Named(users)], **SITE_CACHE)
    answer = site.ask(x_name="alice")
    assert (answer.body, answer.headers["cache-control"]) == (b"hello alice", "private")
    assert b"alice" not in site.ask().body


@pytest.mark.parametrize("control", ["public", "no-store"])
def test_a_view_says_itself_what_caches_do_with_what_a_credential_opens(control, users, site):
    view = login_required(lambda request: HttpResponse(headers={"Cache-Control": control}))
    site.serve(view, AUTHENTICATION=[Named(users)])
    assert site.ask(x_name="alice").headers["cache-control"] == control


def test_what_anonymous_clients_get_is_not_private_and_what_a_session_opens_is_left_to_django(users, site):
    site.serve(require(RestFramework(authentication=[DRFNamed]))(greet), AUTHENTICATION=[Named(users)])
    assert "cache-control" not in site.ask().headers
    site.serve(greet, AUTHENTICATION=[SessionAuthentication(), Named(users)])
    assert "cache-control" not in site.ask().headers
    assert "cache-control" not in site.log_in(users["alice"]).ask().headers


def looking(get_response):
    """A middleware that looks at the user, as one that notes who was seen does."""

    def middleware(request):
        assert request.user.is_anonymous
        return get_response(request)

    return middleware


LOOKING = ["tests.authentication.test_base.looking"]
LOGIN_REQUIRED = ["django.contrib.auth.middleware.LoginRequiredMiddleware"]


@pytest.mark.parametrize("inside", [[], LOOKING, LOGIN_REQUIRED], ids=["view", "middleware", "process_view"])
@pytest.mark.parametrize(
    "refusal", [Deny(401), PermissionDenied(), AuthenticationFailed()], ids=["ours", "django", "drf"]
)
def test_wrong_credentials_are_a_401_wherever_behind_the_mirror_the_user_is_looked_at(refusal, inside, users, site):
    named = Named(users)
    named.refusal = refusal
    site.serve(lambda request: HttpResponse(request.user.username), inside=inside, AUTHENTICATION=[named])
    refused = site.ask(x_name="wrong")
    assert (refused.status, refused.headers["www-authenticate"], named.asked) == (401, "Named", 1)


def copying(get_response):
    return lambda request: get_response(copy.copy(request))


@pytest.mark.parametrize("view", [greet, login_required(greet)], ids=["plain", "guarded"])
def test_a_copy_of_the_request_has_the_user_of_the_request_and_what_came_with_it(view, users, site):
    named = Named(users)

    def show(request):
        response = view(request)
        response["X-Auth"] = str(request.auth)
        return response

    site.serve(show, inside=["tests.authentication.test_base.copying"], AUTHENTICATION=[named])
    answer = site.ask(x_name="alice")
    assert (answer.body, answer.headers["x-auth"], named.asked) == (b"hello alice", "Named alice", 1)
    assert answer.headers["cache-control"] == "private"


async def test_the_classes_of_a_stack_count_for_views_behind_what_it_cannot_resolve(users, headers_of, settings):
    settings.ROOT_URLCONF = ModuleType("urls")
    settings.ROOT_URLCONF.urlpatterns = [path("", login_required(greet_async))]

    def timed(app):
        return lambda scope, receive, send: app(scope, receive, send)

    http = timed(get_asgi_application())
    app = DenyMiddlewareStack(ProtocolTypeRouter({"http": http}), authentication=[Named(users)])
    assert (await fetch(app, "/", headers=[(b"x-name", b"alice")])).body == b"hello alice"
    assert (await fetch(app, "/", headers=headers_of("alice"))).status == 401


@pytest.mark.parametrize("name", ["ticket", "%74icket"])
async def test_wrong_credentials_are_seen_however_their_parameter_is_written(name):
    app = DenyMiddlewareStack(Open.as_asgi(), authentication=[TicketAuthentication()])
    assert (await knock(app, "/", query_string=f"{name}=wrong".encode())).status == 401
    assert (await knock(app, "/", query_string=b"other=1")).status == 101


async def test_a_token_of_simplejwt_is_looked_for_in_the_header_that_its_setting_names(settings):
    settings.SIMPLE_JWT = {"AUTH_HEADER_NAME": "HTTP_X_ACCESS_TOKEN"}
    names = ["rest_framework_simplejwt.authentication.JWTAuthentication"]
    app = DenyMiddlewareStack(Open.as_asgi(), authentication=names)
    assert (await knock(app, "/", headers=[(b"x-access-token", b"Bearer wrong")])).status == 401
    assert (await knock(app, "/", headers=[(b"authorization", b"Bearer wrong")])).status == 101


def test_a_view_that_goes_on_with_wrong_credentials_has_answered(users, site):
    def view(request):
        with pytest.raises(Deny):
            request.user.is_authenticated  # noqa: B018 - it is lazy
        return HttpResponse("done")

    assert site.serve(view, AUTHENTICATION=[Named(users)]).ask(x_name="wrong").body == b"done"


def view_of(decorate):
    @decorate
    def view(request):
        return HttpResponse(f"{request.user.username} {request.auth}")

    return view


@pytest.mark.parametrize("cls", [Named, AsyncNamed, Coroutine])
def test_a_guarded_view_is_authenticated_by_the_setting(cls, users, settings, rf):
    named = cls(users)
    settings.CHANNELS_WSDENY = {"AUTHENTICATION": [named]}
    for decorate in (login_required, public, require(UserPassesTest(lambda user: True)), lambda v: public(public(v))):
        response = view_of(decorate)(rf.get("/", headers={"x-name": "alice"}))
        assert response.content.decode() == f"alice {cls.__name__} alice"
        denied = view_of(decorate)(rf.get("/", headers={"x-name": "wrong"}))
        assert (denied.status_code, denied["WWW-Authenticate"]) == (401, "Named")
    assert view_of(login_required)(rf.get("/")).status_code == 401
    assert view_of(permission_required("chat.view_room"))(rf.get("/", headers={"x-name": "bob"})).status_code == 403
    assert named.asked == 10


@pytest.mark.parametrize("given", [{}, {"AUTHENTICATION": [SessionAuthentication()]}], ids=["default", "session"])
def test_on_a_view_as_on_a_socket_auth_is_none_without_credentials_beside_the_session(given, site, settings, rf):
    def view(request):
        return HttpResponse(f"{request.auth}")

    assert site.serve(view, **given).ask().body == b"None"
    settings.CHANNELS_WSDENY = given
    assert public(view)(rf.get("/")).content == b"None"


MISTAKES = ["missing.Class", "channels_wsdeny.authentication.missing", "os.path", 3]


@pytest.mark.parametrize("wrong", MISTAKES)
async def test_classes_that_cannot_be_used_let_no_request_pass(wrong, settings, rf):
    with pytest.raises((ImportError, ImproperlyConfigured)):
        DenyMiddlewareStack(Open.as_asgi(), authentication=[wrong])
    settings.CHANNELS_WSDENY = {"AUTHENTICATION": [wrong]}
    for app in (Open.as_asgi(), DenyMiddlewareStack(Consumer.as_asgi())):
        assert (await ask(app)).status == 500
    with pytest.raises((ImportError, ImproperlyConfigured)):
        view_of(public)(rf.get("/"))
