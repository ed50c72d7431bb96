"""REST framework's classes as a policy: its answers, the user and object that reach the endpoint, its throttles."""

import json

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.middleware import BaseMiddleware
from channels.routing import URLRouter
from django.contrib.auth.decorators import login_required
from django.contrib.auth.mixins import LoginRequiredMixin
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.db import OperationalError, connection
from django.http import Http404, HttpResponse, JsonResponse
from django.test import RequestFactory
from django.urls import path
from django.utils.decorators import method_decorator
from django.utils.deprecation import MiddlewareMixin
from django.utils.translation import gettext_lazy
from rest_framework import authentication, exceptions, permissions, throttling, viewsets
from rest_framework.decorators import api_view, permission_classes
from rest_framework.response import Response
from rest_framework.views import APIView

from channels_wsdeny import Deny, DenyMiddlewareStack, log
from channels_wsdeny.contrib.rest_framework import RestFramework
from channels_wsdeny.decorators import public, require
from channels_wsdeny.handlers.recheck import durable
from channels_wsdeny.inspection.endpoints import AsgiEndpoint
from channels_wsdeny.inspection.explain import explain
from channels_wsdeny.inspection.protections import protections_of_endpoint
from channels_wsdeny.policies import AllowAny, DenyAll, HasPermission, IsAuthenticated, IsStaff, Throttle
from tests.support.clients import fetch, knock
from tests.support.policies import USERS, ByName, Check, User, alice, anonymous, ask, boss, raising
from tests.support.site import hello, hello_async
from tests.support.sockets import UserOverHttp, decorated

pytestmark = pytest.mark.django_db
SESSION = "channels_wsdeny.authentication.SessionAuthentication"


class Token(authentication.BaseAuthentication):
    """The user whose name is in ``Authorization``; any other name is an error."""

    def authenticate(self, request):
        name = request.headers.get("authorization")
        if name and name not in USERS:
            raise exceptions.AuthenticationFailed("No such token.", code="bad_token")
        return (USERS[name], f"token of {name}") if name else None

    def authenticate_header(self, request):
        return 'Token realm="site"'


Site = type("Site", (Token,), {"authenticate_header": lambda self, request: "Session"})


def token(name):
    return [(b"authorization", name.encode())]


class Page(APIView):
    """What REST framework itself answers."""

    def get(self, request):
        return Response()


class Echo(AsyncWebsocketConsumer):
    """Tells in headers who its user is, what came with that, and the object."""

    async def connect(self):
        context = self.scope["wsdeny"]
        told = [self.scope["user"].username, getattr(context.request, "auth", None), context.obj]
        assert context.request.user.username == (await context.request.auser()).username == told[0]
        await self.accept(headers=[(b"x-told", json.dumps(told, default=str).encode())])


def told(answer):
    assert answer.status == 101, answer
    return json.loads(answer.header("x-told"))


def guarded(*policies):
    """A class of consumers behind these policies, the first asked first."""
    consumer = type("Consumer", (Echo,), {})
    for policy in reversed(policies):
        consumer = require(policy)(consumer)
    return consumer


class Named(permissions.BasePermission):
    message, code = "Your name is not right.", "wrong_name"

    def has_permission(self, request, view):
        return True

    def has_object_permission(self, request, view, obj):
        return obj == request.user.username


CHOICES = {
    "nothing": {},
    "authenticated": {"permissions": [permissions.IsAuthenticated]},
    "staff": {"permissions": [permissions.IsAuthenticated & permissions.IsAdminUser]},
    "token": {"permissions": [permissions.IsAdminUser], "authentication": [Token]},
    "token of two": {
        "permissions": [permissions.IsAdminUser],
        "authentication": [authentication.SessionAuthentication, Token],
    },
}


@pytest.mark.parametrize("name", ["anonymous", "alice", "boss", "unknown"])
@pytest.mark.parametrize("chosen", CHOICES.values(), ids=CHOICES)
async def test_a_denial_has_the_status_body_and_challenge_of_an_api_view(chosen, name):
    uses_token = "authentication" in chosen and name != "anonymous"
    user = anonymous if uses_token else USERS.get(name, anonymous)
    headers = {"authorization": name} if uses_token else {}
    request = RequestFactory().get("/", headers=headers)
    request.user = request._force_auth_user = user
    own = {f"{kind.removesuffix('s')}_classes": classes for kind, classes in chosen.items()}
    if "authentication" in chosen or user is anonymous:
        del request._force_auth_user
        own.setdefault("authentication_classes", [Site])
    expected = Page.as_view(**own)(request).render()
    answer = await ask(RestFramework(**chosen), user, headers=[(k.encode(), v.encode()) for k, v in headers.items()])
    if expected.status_code == 200:
        assert answer.status == 101
        return
    assert (answer.status, answer.body) == (expected.status_code, expected.content)
    assert answer.header("www-authenticate") == expected.get("WWW-Authenticate")
    assert answer.header("cache-control") == "no-store"
    assert answer.header("allow") is None


RAISED = {
    "not found": (Http404(), 404, {"detail": "Not found."}),
    "denied": (PermissionDenied(), 403, {"detail": "You do not have permission to perform this action."}),
    "its own": (exceptions.ValidationError({"age": ["Young."]}), 400, {"age": ["Young."]}),
    "a Deny": (Deny(418, code="teapot"), 418, None),
    "the database": (OperationalError(), 503, None),
    "a bug": (ZeroDivisionError(), 500, None),
}


@pytest.mark.parametrize(("error", "status", "body"), RAISED.values(), ids=RAISED)
async def test_what_a_permission_raises_is_answered_by_the_exception_handler_or_by_the_package(error, status, body):
    fails = type("Fails", (permissions.BasePermission,), {"has_permission": raising(lambda: error)})
    answer = await ask(RestFramework(permissions=[fails]), alice)
    assert answer.status == status
    assert (json.loads(answer.body) if body else answer.problem["status"]) == (body or status)


def failing(error):
    """A class of permissions that raises, and a resolver of either kind."""

    async def on_loop(request):
        raise error

    raises = raising(lambda: error)
    return type("Fails", (permissions.BasePermission,), {"has_permission": raises}), raises, on_loop


class Handled(APIView):
    permission_classes = (failing(ValueError())[0],)

    def get_exception_handler(self):
        return lambda error, context: Response(status=400)


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_a_failure_or_an_object_that_is_not_there_lets_nobody_in_behind_an_operator_either(status):
    error = type("Down", (exceptions.APIException,), {"status_code": status})() if status >= 500 else Http404()
    fails, *resolvers = failing(error)
    policies = [RestFramework(obj=each) for each in resolvers]
    if status >= 500:
        policies.append(RestFramework(permissions=[fails]))
    for policy in [RestFramework(Handled)] if status == 400 else policies:
        for asked in (policy, ~policy, policy | AllowAny()):
            answer = await ask(asked, alice)
            assert answer.status == status, asked
            assert status < 500 or json.loads(answer.body) == {"detail": error.default_detail}, asked


def tea(error, context):
    return JsonResponse({"for": context["request"].user.username}, status=418)


def let_in(error, context):
    return HttpResponse("come in")


@pytest.mark.parametrize(("handler", "status"), [("tea", 418), ("let_in", 500)])
async def test_the_sites_exception_handler_answers_but_cannot_let_in(handler, status, settings):
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": f"{__name__}.{handler}"}
    answer = await ask(RestFramework(permissions=[permissions.IsAdminUser]), alice)
    assert answer.status == status
    if status == 418:
        assert answer.body == b'{"for": "alice"}'


@pytest.mark.parametrize("accept", [b"text/html", b"image/png", b"*/*", b"text/html;q=0.5, application/json;q=0.4"])
async def test_a_handshake_is_not_denied_for_its_accept_and_gets_no_browsable_page(accept):
    policy = RestFramework(permissions=[permissions.IsAuthenticated])
    assert (await ask(policy, alice, headers=[(b"accept", accept)])).status == 101
    answer = await ask(policy, headers=[(b"accept", accept)])
    assert (answer.status, answer.header("content-type")) == (401, "application/json")


async def test_a_denial_is_in_the_language_of_the_client(settings):
    settings.MIDDLEWARE = ["django.middleware.locale.LocaleMiddleware"]
    own = {"message": gettext_lazy("This field is required."), "has_permission": lambda *_: False}
    policy = RestFramework(permissions=[type("Translated", (permissions.BasePermission,), own)])
    answer = await ask(policy, alice, headers=[(b"accept-language", b"de")])
    assert json.loads(answer.body) == {"detail": "Dieses Feld ist zwingend erforderlich."}


async def test_the_log_has_the_code_of_rest_framework(caplog):
    await ask(RestFramework(authentication=[Token]), headers=token("unknown"))
    (record,) = [record for record in caplog.records if record.name == "channels_wsdeny"]
    assert (record.status, record.code, record.user) == (401, "bad_token", None)
    assert record.policy == "RestFramework(authentication=[Token])"


class Rooms(viewsets.ViewSet):
    def get_permissions(self):
        return [permissions.IsAdminUser() if self.action == "destroy" else permissions.AllowAny()]

    def retrieve(self, request): ...

    def destroy(self, request): ...


@api_view(["GET"])
@permission_classes([permissions.IsAuthenticated])
def function(request): ...


class Staff(Page):
    permission_classes = (permissions.IsAdminUser,)


VIEWS = {
    "a class": (Staff, [401, 403]),
    "as_view()": (Page.as_view(permission_classes=[permissions.IsAuthenticated]), [401, 101]),
    "a function": (function, [401, 101]),
    "an action": (Rooms.as_view({"get": "retrieve"}), [101, 101]),
    "another": (Rooms.as_view({"get": "destroy"}), [401, 403]),
    "a view set": (Rooms, [101, 101]),
}


@pytest.mark.parametrize(("view", "statuses"), VIEWS.values(), ids=VIEWS)
async def test_the_classes_of_an_api_view_decide(view, statuses):
    assert [(await ask(RestFramework(view), user)).status for user in (anonymous, alice)] == statuses


async def test_classes_that_are_given_replace_those_of_the_view():
    view = Page.as_view(permission_classes=[permissions.IsAdminUser], throttle_classes=[None])
    policy = RestFramework(view, permissions=[permissions.IsAuthenticated], throttles=[])
    assert repr(policy) == "RestFramework(Page, permissions=[IsAuthenticated], throttles=[])"
    assert (await ask(policy, alice)).status == 101


class Waits(permissions.BasePermission):
    async def has_permission(self, request, view):
        return False


async def initial(self, request): ...


WRONG = {
    "an instance": {"permissions": [permissions.IsAuthenticated()]},
    "one class": {"permissions": permissions.IsAuthenticated},
    "a path": {"authentication": "rest_framework.authentication.TokenAuthentication"},
    "no view": {"view": HttpResponse},
    "no resolver": {"obj": "room"},
    "a coroutine": {"permissions": [permissions.AllowAny | Waits]},
    "a throttle": {"throttles": [type("Slow", (throttling.BaseThrottle,), {"allow_request": Waits.has_permission})]},
    "a view": {"view": type("Slow", (APIView,), {"initial": initial})},
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_what_could_not_be_asked_is_an_error(arguments):
    with pytest.raises(TypeError):
        RestFramework(**arguments)


class Within:
    """Puts a decorator around the view that it makes."""

    @classmethod
    def as_view(cls, *args, **initkwargs):
        return login_required(super().as_view(*args, **initkwargs))


def named(name):
    def view(request):
        raise NotImplementedError

    view.__name__ = name
    return view


@pytest.mark.parametrize(
    ("guard", "asked"),
    [
        (lambda page: require(IsStaff())(page), r"IsStaff\(\)"),
        (lambda page: require(IsStaff())(page).as_view(), r"IsStaff\(\)"),
        (lambda page: require(IsStaff())(page.as_view()), r"IsStaff\(\)"),
        (lambda page: type("Page", (LoginRequiredMixin, page), {}), "LoginRequiredMixin"),
        (lambda page: type("Page", (LoginRequiredMixin, page), {}).as_view(), "LoginRequiredMixin"),
        (lambda page: method_decorator(login_required, name="dispatch")(page), "user_passes_test"),
        (lambda page: login_required(page.as_view()), "user_passes_test"),
        (lambda page: require(Throttle("9/min"))(page), r"Throttle\('9/min', key='user'\)"),
        (lambda page: type("Page", (Within, page), {}), "user_passes_test"),
        (lambda page: type("Page", (Within, viewsets.ViewSet), {"list": page.get}), "user_passes_test"),
        (lambda page: api_view(["POST"])(login_required(named("Page"))), "user_passes_test"),
    ],
)
def test_a_view_that_something_outside_of_initial_guards_is_an_error_that_names_it(guard, asked):
    with pytest.raises(TypeError, match=rf"RestFramework\(Page\) .* not {asked}\. .*RestFramework\(permissions="):
        RestFramework(guard(type("Page", (Page,), {})))


def test_a_view_that_is_public_outside_of_initial_may_be_given():
    assert repr(RestFramework(public(type("Page", (Page,), {})))) == "RestFramework(Page)"


async def test_a_permission_that_is_a_coroutine_denies_although_the_view_hides_it():
    hidden = type("Hidden", (Page,), {"get_permissions": lambda self: [(Waits & permissions.AllowAny)()]})
    assert (await ask(RestFramework(hidden), alice)).status == 500


class ReadOnly(permissions.BasePermission):
    def has_permission(self, request, view):
        return request.method in permissions.SAFE_METHODS


PERMISSIONS = {"perms_map": {"GET": ["%(app_label)s.view_%(model_name)s"]}}


@pytest.mark.parametrize(
    ("kind", "is_warned_of"),
    [
        (permissions.IsAuthenticatedOrReadOnly, True),
        (permissions.DjangoModelPermissionsOrAnonReadOnly, True),
        (permissions.DjangoModelPermissions, True),
        (permissions.DjangoObjectPermissions, True),
        (ReadOnly, True),
        (permissions.IsAuthenticated & ~ReadOnly, True),
        (type("Model", (permissions.DjangoModelPermissions,), PERMISSIONS), False),
        (type("Objects", (permissions.DjangoObjectPermissions,), PERMISSIONS), False),
        (permissions.IsAuthenticated | permissions.IsAdminUser, False),
    ],
)
def test_a_permission_that_lets_safe_methods_pass_is_warned_of_once(kind, is_warned_of, caplog, monkeypatch):
    monkeypatch.setattr(log, "_warned", set())
    for _ in range(2):
        RestFramework(permissions=[kind])
    assert ["a WebSocket handshake is a GET" in record.message for record in caplog.records] == [True] * is_warned_of


@pytest.mark.parametrize(
    ("policy", "is_open"),
    [
        (RestFramework(), None),
        (RestFramework(permissions=[permissions.AllowAny]) & AllowAny(), None),
        (RestFramework(permissions=[permissions.AllowAny | permissions.IsAdminUser]), None),
        (RestFramework(permissions=[permissions.AllowAny & permissions.IsAdminUser]), False),
        (RestFramework(permissions=[~permissions.AllowAny]), False),
        (RestFramework(permissions=[permissions.IsAuthenticatedOrReadOnly]), None),
        (RestFramework(permissions=[permissions.DjangoModelPermissionsOrAnonReadOnly]), None),
        (RestFramework(permissions=[permissions.DjangoModelPermissions]), False),
        (RestFramework(permissions=[permissions.IsAuthenticated, ReadOnly]), False),
        (RestFramework(permissions=[ReadOnly]), None),
        (RestFramework(Rooms), False),
        (RestFramework(Staff), False),
        (RestFramework() & IsStaff(), False),
    ],
    ids=repr,
)
def test_a_policy_that_asks_for_nothing_is_not_listed_as_a_protection(policy, is_open):
    row = AsgiEndpoint("websocket", (guarded(policy).as_asgi(),))
    effects = {each.effect for each in protections_of_endpoint(row)}
    assert effects == {"unknown" if is_open is None else "denies"}


@pytest.mark.parametrize("view", [hello, hello_async])
def test_it_guards_views(site, users, view):
    site.serve(require(RestFramework(permissions=[permissions.IsAuthenticated]))(view))
    assert (site.ask().status, site.browse().status) == (401, 401)
    assert site.log_in(users["alice"]).ask().body == b"hello world"


def name_of_user(request):
    return HttpResponse(request.user.username)


def test_the_session_of_a_view_tells_the_user_whichever_policy_has_set_another(site, users):
    of_session = RestFramework(
        authentication=[authentication.SessionAuthentication], permissions=[permissions.IsAuthenticated]
    )
    policies = {"/alone/": of_session, "/after-another/": RestFramework(**TOKEN) & of_session}
    site.serve(*(path(url[1:], require(policy)(name_of_user)) for url, policy in policies.items()))
    assert [site.ask(url, Authorization="alice").status for url in policies] == [403, 403]
    site.log_in(users["bob"])
    assert [site.ask(url, Authorization="alice").body for url in policies] == [b"bob", b"bob"]


async def test_it_guards_applications_over_http():
    policy = RestFramework(authentication=[Token], permissions=[permissions.IsAuthenticated])
    app = decorated(require(policy), base=UserOverHttp).as_asgi()
    assert (await fetch(app, "/")).status == 401
    assert (await fetch(app, "/", headers=token("alice"))).body == b"alice"


TOKEN = {"authentication": [Token]}


@pytest.mark.parametrize("wrap", [DenyMiddlewareStack, lambda app: app], ids=["stack", "bare"])
async def test_the_user_of_an_authentication_class_replaces_that_of_the_session(headers_of, wrap):
    app = wrap(guarded(RestFramework(**TOKEN)).as_asgi())
    session = headers_of("bob")
    assert told(await knock(app, "/", headers=[*session, *token("alice")])) == ["alice", "token of alice", None]
    assert told(await knock(app, "/", headers=session)) == ["", None, None]
    assert (await knock(app, "/", headers=[*session, *token("unknown")])).status == 401


@pytest.mark.django_db(transaction=True)
async def test_the_middleware_of_channels_inside_does_not_bring_the_user_of_the_session_back(headers_of):
    router = AuthMiddlewareStack(URLRouter([path("", Echo.as_asgi())]))
    headers = [*headers_of("bob"), *token("alice")]
    by_policy = DenyMiddlewareStack(require(RestFramework(**TOKEN))(router))
    for app in (by_policy, DenyMiddlewareStack(router, authentication=[Token()])):
        assert told(await knock(app, "/", headers=headers)) == ["alice", "token of alice", None]


async def test_without_an_authentication_class_the_user_stays_the_very_object(headers_of):
    seen = []
    note = Check(lambda request: seen.append(request.user._wrapped) or True)
    app = DenyMiddlewareStack(guarded(note, RestFramework(permissions=[permissions.IsAuthenticated]), note).as_asgi())
    assert told(await knock(app, "/", headers=headers_of("bob")))[0] == "bob"
    assert seen[0] is seen[-1]


def is_named(name):
    return Check(lambda request: request.user.username == name)


@pytest.mark.parametrize(
    ("policies", "status"),
    [
        ([RestFramework(**TOKEN), is_named("alice")], 101),
        ([RestFramework(**TOKEN) & is_named("alice")], 101),
        ([is_named("bob"), RestFramework(**TOKEN)], 403),
        ([is_named("bob") & RestFramework(**TOKEN)], 403),
        ([(is_named("alice") | is_named("bob")) & RestFramework(**TOKEN)], 101),
        ([~is_named("alice"), AllowAny(), ~~RestFramework(**TOKEN)], 403),
    ],
    ids=repr,
)
async def test_every_policy_allows_the_user_whom_the_consumer_gets(policies, status, headers_of):
    app = DenyMiddlewareStack(guarded(*policies).as_asgi())
    answer = await knock(app, "/", headers=[*headers_of("bob"), *token("alice")])
    assert answer.status == status
    if status == 101:
        assert told(answer)[0] == "alice"


async def test_a_denial_leaves_the_user_to_the_next_operand(headers_of):
    policy = RestFramework(permissions=[permissions.IsAdminUser], **TOKEN)
    app = DenyMiddlewareStack(guarded(policy | IsAuthenticated()).as_asgi())
    headers = headers_of("bob")
    for name in ("alice", "unknown"):
        assert told(await knock(app, "/", headers=[*headers, *token(name)])) == ["bob", None, None]


def test_on_a_view_request_user_auth_and_auser_are_those_of_the_token(site, users):
    def tell(request):
        return JsonResponse([request.user.username, async_to_sync(request.auser)().username, request.auth], safe=False)

    site.serve(require(RestFramework(**TOKEN))(tell)).log_in(users["bob"])
    assert json.loads(site.ask(Authorization="alice").body) == ["alice", "alice", "token of alice"]


@pytest.mark.parametrize("site_classes", [[], [f"{__name__}.Token"]])
async def test_the_classes_of_the_policy_take_the_place_of_those_of_the_site(site_classes, headers_of, settings):
    settings.CHANNELS_WSDENY = {"AUTHENTICATION": [*site_classes, SESSION]}
    policy = RestFramework(authentication=[authentication.SessionAuthentication])
    app = DenyMiddlewareStack(guarded(policy, IsAuthenticated()).as_asgi())
    assert told(await knock(app, "/", headers=[*headers_of("bob"), *token("unknown")]))[0] == "bob"
    assert (await knock(app, "/", headers=token("alice"))).status == 401


async def test_without_classes_of_its_own_those_of_the_site_tell_the_user_and_the_challenge(settings):
    settings.CHANNELS_WSDENY = {"AUTHENTICATION": [f"{__name__}.Token"]}
    app = DenyMiddlewareStack(guarded(RestFramework(permissions=[permissions.IsAuthenticated])).as_asgi())
    assert told(await knock(app, "/", headers=token("alice"))) == ["alice", "token of alice", None]
    for headers in ([], token("unknown")):
        answer = await knock(app, "/", headers=headers)
        assert (answer.status, answer.header("www-authenticate")) == (401, 'Token realm="site"')


async def test_the_classes_of_the_policy_take_the_place_of_what_methods_of_the_view_make():
    class Once(throttling.BaseThrottle):
        def allow_request(self, request, view):
            return False

    class Rooms(Page):
        def get_authenticators(self):
            return [Token()]

        def get_permissions(self):
            return [permissions.AllowAny()]

        def get_throttles(self):
            return []

    given = [{}, {"permissions": [permissions.IsAdminUser]}, {"throttles": [Once]}]
    policies = [RestFramework(Rooms, **arguments) for arguments in given]
    assert [(await knock(guarded(policy).as_asgi(), "/", user=alice)).status for policy in policies] == [101, 403, 429]
    for user in USERS.values():
        answer = await knock(guarded(policies[0]).as_asgi(), "/", headers=token("boss"), user=user)
        assert json.loads(answer.header("x-told"))[0] == user.username


async def test_permission_classes_are_told_which_class_has_found_the_user():
    class ByToken(permissions.BasePermission):
        def has_permission(self, request, view):
            return isinstance(request.successful_authenticator, Token) and request.auth is not None

    app = DenyMiddlewareStack(guarded(RestFramework(permissions=[ByToken])).as_asgi(), authentication=[Token()])
    assert (await knock(app, "/", headers=token("alice"))).status == 101
    assert (await knock(app, "/", user=alice)).status == 403


async def test_credentials_may_have_no_user():
    """Such as a token of OAuth 2 that a client has got for itself (RFC 6749 section 4.4)."""

    class OfClients(Token):
        def authenticate(self, request):
            return (None, "token") if request.headers.get("authorization") else None

    allowed = RestFramework(permissions=[permissions.AllowAny])
    for policy, status in ((allowed, 101), (IsAuthenticated(), 401)):
        app = DenyMiddlewareStack(guarded(policy).as_asgi(), authentication=[OfClients()])
        answer = await knock(app, "/", headers=token("client"))
        assert answer.status == status
        assert status != 101 or json.loads(answer.header("x-told")) == ["", "token", None]


async def test_a_user_who_is_not_exactly_authenticated_is_anonymous():
    class Custom:
        def is_authenticated(self):  # Django's is an attribute
            return False

    assert (await ask(RestFramework(permissions=[permissions.IsAuthenticated]), Custom())).status == 401


def of_url(request):
    name = request.resolver_match.kwargs["name"]
    if name == "nowhere":
        raise Http404
    return None if name == "nothing" else name


async def of_url_async(request):
    return of_url(request)


@pytest.mark.parametrize("resolve", [of_url, of_url_async, lambda request: of_url_async(request)])
async def test_the_permission_is_asked_about_the_object_which_reaches_the_consumer(resolve):
    policy = RestFramework(permissions=[Named], obj=resolve, **TOKEN)
    app = DenyMiddlewareStack(URLRouter([path("<name>/", guarded(policy).as_asgi())]))
    names = ("alice", "boss", "nowhere", "nothing")
    own, theirs, nowhere, nothing = [await knock(app, f"/{name}/", headers=token("alice")) for name in names]
    assert told(own) == ["alice", "token of alice", "alice"]
    assert (theirs.status, nowhere.status, nothing.status) == (403, 404, 500)
    assert json.loads(theirs.body) == {"detail": "Your name is not right."}
    assert json.loads(nowhere.body) == {"detail": "Not found."}


async def test_a_view_and_an_override_may_ask_a_policy_with_an_asynchronous_resolver(rf):
    class Asking(RestFramework):
        async def acheck(self, request):
            return await super().acheck(request)

    policy = RestFramework(permissions=[permissions.IsAdminUser], obj=of_root)
    view = require(policy)(hello)
    for user, status in ((alice, 403), (boss, 200)):
        request = rf.get("/")
        request.user = user
        assert (await sync_to_async(view)(request)).status_code == status
    for each in (policy & policy, Asking(permissions=[permissions.IsAdminUser])):
        assert [(await ask(each, user)).status for user in (alice, boss)] == [403, 101]


async def of_root(request):
    return "root"


async def test_the_object_is_resolved_once_for_all_policies_with_its_resolver(settings):
    settings.AUTHENTICATION_BACKENDS = [f"{ByName.__module__}.ByName"]
    calls = []

    def resolve(request):
        calls.append(request)
        return "alice"

    policy = HasPermission("site.alice", obj=resolve) & RestFramework(permissions=[Named], obj=resolve)
    assert (await ask(policy, alice)).status == 101
    assert len(calls) == 1


async def test_a_policy_without_an_object_that_is_asked_again_leaves_that_of_another(settings):
    settings.AUTHENTICATION_BACKENDS = [f"{ByName.__module__}.ByName"]
    api = RestFramework(permissions=[permissions.IsAuthenticated])
    again = HasPermission("site.house", obj=lambda request: "house") & api
    app = DenyMiddlewareStack(guarded(api & DenyAll() | again).as_asgi())
    assert told(await knock(app, "/", user=alice))[-1] == "house"


class Two(throttling.UserRateThrottle):
    rate, scope = "2/min", "two"


@pytest.fixture
def throttled():
    cache.clear()
    yield RestFramework(throttles=[Two])
    cache.clear()


async def statuses(policy, times, user=alice):
    return [(await ask(policy, user)).status for _ in range(times)]


async def test_a_throttle_counts_each_handshake_and_tells_when_to_come_back(throttled):
    assert await statuses(throttled, 2) == [101, 101]
    answer = await ask(throttled, alice)
    assert (answer.status, json.loads(answer.body)["detail"][:22]) == (429, "Request was throttled.")
    assert 0 < int(answer.header("retry-after")) <= 60
    assert await statuses(throttled, 1, boss) == [101]


async def test_a_handshake_counts_once_wherever_its_policy_is_asked(throttled):
    everywhere = throttled & IsAuthenticated() | throttled & DenyAll()
    assert await statuses(throttled & AllowAny() & throttled, 2) == [101, 101]
    cache.clear()
    app = DenyMiddlewareStack(require(throttled)(guarded(everywhere, throttled).as_asgi()))
    assert [(await knock(app, "/", user=alice)).status for _ in range(3)] == [101, 101, 429]


async def test_a_handshake_that_a_permission_denies_does_not_count(throttled):
    policy = RestFramework(permissions=[permissions.IsAdminUser], throttles=[Two])
    assert await statuses(policy, 3) == [403] * 3
    assert await statuses(throttled, 1) == [101]


@pytest.mark.parametrize(
    ("combine", "denied"),
    [(lambda policy: policy, 429), (lambda policy: DenyAll() | policy, 403), (lambda policy: ~~policy, 403)],
)
async def test_an_open_socket_is_asked_about_without_its_throttles(combine, denied, throttled):
    policy = combine(throttled)
    (again,) = durable((policy,))
    assert repr(again) == repr(policy)
    assert await statuses(again, 3) == [101] * 3
    assert await statuses(policy, 3) == [101, 101, denied]
    (denying,) = durable((combine(RestFramework(permissions=[permissions.IsAdminUser], throttles=[Two])),))
    assert await statuses(denying, 1) == [403]


def test_a_dry_run_does_not_count(throttled, use_application):
    use_application(DenyMiddlewareStack(guarded(throttled).as_asgi()))
    for _ in range(3):
        assert "HTTP 101 Switching Protocols" in [*explain("/", "websocket", None, []).lines()]


class InCookie(authentication.BaseAuthentication):
    """alice is who has the cookie."""

    def authenticate(self, request):
        return (alice, None) if "jwt" in request.COOKIES else None


FROM_COOKIE = RestFramework(authentication=[InCookie], permissions=[permissions.IsAuthenticated], throttles=[])
FROM_HEADER = RestFramework(authentication=[type("FromHeader", (InCookie,), {"ambient": False})], throttles=[])
OWN, EVIL = "http://testserver", "https://evil.example"
ORIGINS = [
    (FROM_COOKIE, OWN, {}, 101),
    (FROM_COOKIE, EVIL, {}, 403),
    (FROM_COOKIE | AllowAny(), EVIL, {}, 403),
    (~~FROM_COOKIE, EVIL, {}, 403),
    (FROM_COOKIE, EVIL, {"origins": [EVIL]}, 101),
    (*durable((FROM_COOKIE,)), EVIL, {}, 101),  # It is that of the handshake.
    (FROM_HEADER, EVIL, {}, 101),
    (RestFramework(throttles=[]), EVIL, {}, 101),
]


@pytest.mark.parametrize(("policy", "origin", "stack", "expected"), ORIGINS)
@pytest.mark.parametrize("wrap", [lambda app: app, BaseMiddleware], ids=["direct", "wrapped"])
async def test_the_origin_is_checked_where_a_class_of_the_policy_may_read_cookies(
    wrap, policy, origin, stack, expected
):
    headers = [(b"host", b"testserver"), (b"origin", origin.encode()), (b"cookie", b"jwt=alice")]
    app = wrap(guarded(policy).as_asgi())
    answer = await knock(DenyMiddlewareStack(app, default_policy=AllowAny(), **stack), "/", headers=headers)
    assert answer.status == expected
    assert expected == 101 or answer.problem["code"] == "origin_not_allowed"


class SecondFactor(MiddlewareMixin):
    """Knows nobody."""

    def process_request(self, request):
        request.user = anonymous


async def test_the_session_of_a_user_whom_a_middleware_has_replaced_is_not_asked_past_it(headers_of):
    policy = RestFramework(
        authentication=[authentication.SessionAuthentication], permissions=[permissions.IsAuthenticated], throttles=[]
    )
    app = guarded(policy).as_asgi()
    assert (await knock(DenyMiddlewareStack(app), "/", headers=headers_of("alice"))).status == 101
    stack = DenyMiddlewareStack(app, middleware=[f"{__name__}.SecondFactor"])
    assert (await knock(stack, "/", headers=headers_of("alice"))).status == 403


@pytest.mark.urls(__name__)
def test_a_denial_does_not_undo_what_another_policy_allows(transactional_db, client, users, monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    client.force_login(users["staff"])
    assert client.get("/").content == b"staff"


def count(request):
    return HttpResponse(User.objects.get(pk=request.user.pk).username)


urlpatterns = [path("", require(RestFramework(**TOKEN, permissions=[permissions.IsAuthenticated]) | IsStaff())(count))]
