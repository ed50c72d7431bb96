"""One table of hooks, policies and endpoints through every door: one answer, each hook once, one order."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from asgiref.sync import async_to_sync
from channels.auth import AuthMiddlewareStack
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.core.exceptions import BadRequest, PermissionDenied
from django.db import OperationalError
from django.http import Http404, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template import engines
from django.template.response import SimpleTemplateResponse
from django.test import AsyncClient, Client
from django.urls import path, re_path

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import require, with_hooks
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated
from channels_wsdeny.status import code_for
from tests.cases import Answers, Raises
from tests.clients import Answer, fetch, knock

if TYPE_CHECKING:
    from collections.abc import Callable

    from channels_wsdeny.policies import Policy

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

#: What ran for the request of this test, in order.
RAN: list[str] = []


# The table.


@dataclass(frozen=True)
class Case:
    """Hooks, a policy and an endpoint; what every door answers, and what runs in which order.

    `hooks` adds to a registry. `status` 0: the request passes, which is a 101 for a socket and a 200 for
    everybody else. The body is a problem with `code` (by default that of the status), unless there is a
    `body`. `endpoint` makes what the endpoint raises. `socket` is a socket's status where it must differ.
    """

    name: str
    hooks: Callable[[Hooks], None]
    status: int
    ran: str
    code: str | None = None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    policy: Policy = AllowAny()  # noqa: RUF009 - made anew for nobody
    endpoint: Callable[[], Exception] | None = None
    socket: int | None = None


class Full(LookupError):
    """What a hook of the site explains."""


def no():
    response = HttpResponse(b"no", status=403, content_type="text/x")
    response["X-No"] = "no"
    return response


def template():
    source = engines["django"].from_string("no {{ more }}")
    return SimpleTemplateResponse(source, {"more": "more"}, status=403, content_type="text/x")


def redirect():
    return HttpResponseRedirect("/x")


def notes(name, answer=lambda: None):
    """A function that notes that it ran, and answers."""

    def hook(*args):
        RAN.append(name)
        return answer()

    return hook


def notes_around(name=""):
    async def hook(request, call_next):
        RAN.append(f"{name}in")
        response = await call_next(request)
        RAN.append(f"{name}out")
        return response

    return hook


def look(hooks):
    """A hook of every kind, which does nothing."""
    hooks.on_request(notes("request"))
    hooks.on_route(notes("route"))
    hooks.on_response(notes("response"))
    hooks.on_exception(KeyError)(notes("exception"))
    hooks.around(notes_around())


def look_async(hooks):
    for kind in ("request", "route", "response"):

        async def hook(*args, kind=kind):
            await asyncio.sleep(0)
            RAN.append(kind)

        getattr(hooks, f"on_{kind}")(hook)


def says(kind, make, *, is_async=False):
    """A hook of this kind that answers what `make` makes (or raises it), and others that do nothing."""

    def add(hooks):
        hook = answer = notes(kind, make)
        if is_async:

            async def hook(*args):
                await asyncio.sleep(0)
                return answer()

        for other in {"request", "route", "response"} - {kind}:
            getattr(hooks, f"on_{other}")(notes(other))
        (hooks.on_exception(Full) if kind == "exception" else getattr(hooks, f"on_{kind}"))(hook)

    return add


def raises(make):
    def function():
        raise make()

    return function


def of_two(kind, make):
    """Two hooks of a kind, the second of which would deny, if the first did not answer."""

    def add(hooks):
        first, second = (10, 0) if kind != "response" else (0, 10)
        getattr(hooks, f"on_{kind}")(notes("second", lambda: Deny(418)), priority=second)
        getattr(hooks, f"on_{kind}")(notes("first", make), priority=first)

    return add


def around(make, *, late):
    """An around hook that answers in the place of the endpoint, or in the place of its answer."""

    def add(hooks):
        hooks.on_request(notes("request"))
        hooks.on_response(notes("response"))

        @hooks.around
        async def hook(request, call_next):
            RAN.append("in")
            if late:
                await call_next(request)
                RAN.append("out")
            return make()

    return add


def around_twice(hooks):
    @hooks.around
    async def hook(request, call_next):
        RAN.append("in")
        await call_next(request)
        return await call_next(request)


def around_another(hooks):
    @hooks.around
    async def hook(request, call_next):
        RAN.append("in")
        return await call_next(object())


def nested(hooks):
    hooks.around(notes_around("b "), priority=1)
    hooks.around(notes_around("a "), priority=2)
    hooks.around(notes_around("c "))
    hooks.on_request(notes("request"))
    hooks.on_response(notes("response"))


def decorate(hooks):
    @hooks.on_request
    def remember(request):
        request.ctx.word = "hello"

    @hooks.on_route(blocking=False)
    def remember_more(request):
        request.ctx.word += " there"

    @hooks.on_response
    async def tell(request, response):
        response["X-Word"] = request.ctx.word
        response.set_cookie("seen", "1")

    @hooks.around
    async def tell_last(request, call_next):
        response = await call_next(request)
        response["X-Word"] += ", world"
        return response


def header(name, value):
    """A response hook that sets a header, or deletes it."""

    def hook(request, response):
        if value is None:
            del response[name]
        else:
            response[name] = value

    return lambda hooks: hooks.on_response(hook)


def explain(*types, answer=lambda: Deny(409, code="full")):
    """A hook for each of these types, which answers and notes its type."""

    def add(hooks):
        hooks.on_response(notes("response"))
        for taken in types:
            hooks.on_exception(taken)(notes(taken.__name__, answer))

    return add


def decline(hooks):
    hooks.on_exception(LookupError)(notes("LookupError", lambda: Deny(409, code="full")))
    hooks.on_exception(Full)(notes("Full"))
    hooks.on_response(notes("response"))


NO = {"body": b"no", "headers": {"x-no": "no", "content-type": "text/x", "cache-control": "no-store"}}
MORE = {"body": b"no more", "headers": {"content-type": "text/x", "cache-control": "no-store"}}
FOUND = {"body": b"", "headers": {"location": "/x", "cache-control": "no-store"}}
WORD = {"x-word": "hello there, world", "set-cookie": "seen=1; Path=/"}
EARLY = "request response"
EARLY_ROUTE = "request route response"
USUAL = "request route endpoint response"
INSIDE = "in request endpoint response out"
EXPLAINED = "request route endpoint exception response"
DENY_402 = lambda: Deny(402)  # noqa: E731

CASES = [
    # Hooks that only look.
    Case("look", look, 0, "in request route endpoint response out"),
    Case("look, async", look_async, 0, USUAL),
    Case("look, 403", look, 403, "in request route response out", policy=DenyAll()),
    Case("look, 401", look, 401, "in request route response out", policy=IsAuthenticated()),
    Case("look, 302", look, 302, "in request route response out", policy=Answers(redirect), **FOUND),
    Case("look, 500", look, 500, "in request route response out", policy=Raises(ZeroDivisionError)),
    Case("look, endpoint 400", look, 400, f"in {USUAL} out", endpoint=BadRequest),
    Case("look, endpoint 402", look, 402, f"in {USUAL} out", endpoint=DENY_402),
    Case("look, endpoint 403", look, 403, f"in {USUAL} out", endpoint=PermissionDenied),
    Case("look, endpoint 404", look, 404, f"in {USUAL} out", endpoint=Http404),
    Case("look, endpoint 500", look, 500, f"in {USUAL} out", endpoint=ZeroDivisionError),
    # Headers and cookies.
    Case("decorate", decorate, 0, "endpoint", headers=WORD),
    Case("decorate, 403", decorate, 403, "", headers=WORD, policy=DenyAll()),
    Case("decorate, 401", decorate, 401, "", headers=WORD, policy=IsAuthenticated()),
    Case("decorate, endpoint 404", decorate, 404, "endpoint", headers=WORD, endpoint=Http404),
    Case("decorate, endpoint 500", decorate, 500, "endpoint", headers=WORD, endpoint=ZeroDivisionError),
    Case("no cache, 403", header("Cache-Control", "public, max-age=60"), 403, "", policy=DenyAll()),
    Case("no-store, 403", header("Cache-Control", None), 403, "", policy=DenyAll()),
    Case("vary, 403", header("Vary", "X-A"), 403, "", headers={"vary": "X-A"}, policy=DenyAll()),
    Case("challenge, 401", header("WWW-Authenticate", None), 401, "", policy=IsAuthenticated()),
    # Early answers.
    Case("early", says("request", no), 403, EARLY, **NO),
    Case("early, async", says("request", no, is_async=True), 403, EARLY, **NO),
    Case(
        "early Deny",
        says("request", lambda: Deny(429, headers={"X-A": "1"})),
        429,
        EARLY,
        headers={"x-a": "1"},
    ),
    Case("early redirect", says("request", redirect), 302, EARLY, **FOUND),
    Case("early template", says("request", template), 403, EARLY, **MORE),
    Case(
        "early JSON",
        says("request", lambda: JsonResponse({"a": 1}, status=503)),
        503,
        EARLY,
        body=b'{"a": 1}',
    ),
    Case("early 200", says("request", lambda: HttpResponse(b"ok")), 200, EARLY, body=b"ok", socket=500),
    Case("early of two", of_two("request", no), 403, "first", **NO),
    Case("early, then 500", says("request", no), 403, EARLY, policy=Raises(ZeroDivisionError), **NO),
    Case("early on the route", says("route", no), 403, EARLY_ROUTE, **NO),
    Case("early on the route, async", says("route", no, is_async=True), 403, EARLY_ROUTE, **NO),
    Case("early on the route, Deny", says("route", lambda: Deny(404)), 404, EARLY_ROUTE),
    Case("early on the route of two", of_two("route", no), 403, "first", **NO),
    Case(
        "early on the route, then 403", says("route", lambda: Deny(404)), 404, EARLY_ROUTE, policy=DenyAll()
    ),
    Case("early on the route, template", says("route", template), 403, EARLY_ROUTE, **MORE),
    # Hooks that raise, or answer what is no answer, on the way in.
    Case("raises", says("request", raises(ZeroDivisionError)), 500, EARLY),
    Case("raises, async", says("request", raises(ZeroDivisionError), is_async=True), 500, EARLY),
    Case("raises 403", says("request", raises(PermissionDenied)), 403, EARLY),
    Case("raises 404", says("request", raises(Http404)), 404, EARLY),
    Case("raises 401", says("request", raises(lambda: Deny(401))), 401, EARLY),
    Case("raises 503", says("request", raises(OperationalError)), 503, EARLY, headers={"retry-after": "5"}),
    Case("answers True", says("request", lambda: True), 500, EARLY),
    Case("answers a string", says("request", lambda: "yes", is_async=True), 500, EARLY),
    Case("answers a coroutine", says("request", lambda: asyncio.sleep(0)), 500, EARLY),
    Case("raises on the route", says("route", raises(ZeroDivisionError)), 500, EARLY_ROUTE),
    Case("raises 402 on the route", says("route", raises(DENY_402), is_async=True), 402, EARLY_ROUTE),
    Case("answers False on the route", says("route", lambda: False), 500, EARLY_ROUTE),
    # Responses that are replaced.
    Case("replaced", says("response", no), 403, USUAL, **NO),
    Case("replaced, async", says("response", no, is_async=True), 403, USUAL, **NO),
    Case("replaced by Deny", says("response", lambda: Deny(503, code="full")), 503, USUAL, code="full"),
    Case("replaced by a template", says("response", template), 403, USUAL, **MORE),
    Case("replaced 403", says("response", no), 403, EARLY_ROUTE, policy=DenyAll(), **NO),
    Case("replaced 403 by Deny", says("response", lambda: Deny(404)), 404, EARLY_ROUTE, policy=DenyAll()),
    Case(
        "replaced 403 by a template", says("response", template), 403, EARLY_ROUTE, policy=DenyAll(), **MORE
    ),
    Case("replaced 404", says("response", no), 403, USUAL, endpoint=Http404, **NO),
    Case("replaced of two", of_two("response", no), 403, "endpoint first", **NO),
    Case("response raises", says("response", raises(ZeroDivisionError)), 500, USUAL),
    Case("response raises 402", says("response", raises(DENY_402)), 402, USUAL),
    Case("response raises 404", says("response", raises(Http404), is_async=True), 404, USUAL),
    Case(
        "response raises, 403",
        says("response", raises(ZeroDivisionError)),
        500,
        EARLY_ROUTE,
        policy=DenyAll(),
    ),
    Case("response answers True", says("response", lambda: True), 500, USUAL),
    # Exceptions.
    Case("explain", explain(Full), 409, "endpoint Full response", code="full", endpoint=Full),
    Case(
        "explain by a response", explain(Full, answer=no), 403, "endpoint Full response", endpoint=Full, **NO
    ),
    Case(
        "explain by a template",
        explain(Full, answer=template),
        403,
        "endpoint Full response",
        endpoint=Full,
        **MORE,
    ),
    Case(
        "explain, most specific",
        explain(Exception, LookupError, Full, ZeroDivisionError),
        409,
        "endpoint Full response",
        code="full",
        endpoint=Full,
    ),
    Case(
        "explain, nearest base",
        explain(Exception, LookupError, KeyError),
        409,
        "endpoint LookupError response",
        code="full",
        endpoint=Full,
    ),
    Case(
        "explain everything",
        explain(Exception),
        409,
        "endpoint Exception response",
        code="full",
        endpoint=Full,
    ),
    Case("decline", decline, 409, "endpoint Full LookupError response", code="full", endpoint=Full),
    Case("explain another type", explain(KeyError), 500, "endpoint response", endpoint=Full),
    Case("all decline", says("exception", lambda: None), 500, EXPLAINED, endpoint=Full),
    Case("explaining raises 403", says("exception", raises(PermissionDenied)), 403, EXPLAINED, endpoint=Full),
    Case(
        "explaining raises 402",
        says("exception", raises(DENY_402), is_async=True),
        402,
        EXPLAINED,
        endpoint=Full,
    ),
    Case("explaining answers a string", says("exception", lambda: "sorry"), 500, EXPLAINED, endpoint=Full),
    Case("explain a 404", explain(Http404), 409, "endpoint Http404 response", code="full", endpoint=Http404),
    Case("explain a Deny", explain(Deny, answer=no), 403, "endpoint Deny response", endpoint=DENY_402, **NO),
    Case("explain a policy", explain(Full), 409, "Full response", code="full", policy=Raises(Full)),
    Case("a denial is no exception", explain(Exception), 403, "response", policy=DenyAll()),
    # Around.
    Case("nested", nested, 0, "a in b in c in request endpoint response c out b out a out"),
    Case("nested, 403", nested, 403, "a in b in c in request response c out b out a out", policy=DenyAll()),
    Case("around early, template", around(template, late=False), 403, "in", **MORE),
    Case("around late, template", around(template, late=True), 403, INSIDE, **MORE),
    Case("around late, 403", around(no, late=True), 403, "in request response out", policy=DenyAll(), **NO),
    Case("around raises early", around(raises(ZeroDivisionError), late=False), 500, "in"),
    Case("around raises 402 early", around(raises(DENY_402), late=False), 402, "in"),
    Case("around raises 403 early", around(raises(PermissionDenied), late=False), 403, "in"),
    Case("around raises late", around(raises(ZeroDivisionError), late=True), 500, INSIDE),
    Case("around raises 402 late", around(raises(DENY_402), late=True), 402, INSIDE),
    Case("around answers None", around(lambda: None, late=True), 500, INSIDE),
    Case("around another request", around_another, 500, "in"),
    Case("around early", around(no, late=False), 403, "in", **NO),
    Case("around late", around(no, late=True), 403, INSIDE, **NO),
    Case("around twice", around_twice, 500, "in endpoint"),
]
NUMBERS = {case.name: number for number, case in enumerate(CASES)}


# The doors. Each answers a case, with these hooks.


def run(case):
    """What the endpoint of a case does, behind every door."""
    RAN.append("endpoint")
    if case.endpoint is not None:
        raise case.endpoint()


def socket(case, *hooks):
    @require(case.policy)
    @with_hooks(*hooks)
    class Consumer(AsyncWebsocketConsumer):
        async def connect(self):
            run(case)
            await self.accept()

    return Consumer.as_asgi()


def consumer(case, *hooks):
    @require(case.policy)
    @with_hooks(*hooks)
    class Consumer(AsyncHttpConsumer):
        async def handle(self, body):
            run(case)
            await self.send_response(200, b"hello", headers=[(b"content-type", b"text/plain")])

    return Consumer.as_asgi()


def sync_view(case):
    @require(case.policy)
    def view(request):
        run(case)
        return HttpResponse("hello", content_type="text/plain")

    return view


def async_view(case):
    @require(case.policy)
    async def view(request):
        run(case)
        return HttpResponse("hello", content_type="text/plain")

    return view


urlpatterns = [path(f"sync/{number}/", sync_view(case)) for number, case in enumerate(CASES)]
urlpatterns += [path(f"async/{number}/", async_view(case)) for number, case in enumerate(CASES)]

HOST = [(b"host", b"testserver")]


def by_stack(kind):
    def ask(case, hooks, settings):
        app = DenyMiddlewareStack(
            ProtocolTypeRouter({"websocket": socket(case), "http": consumer(case)}), hooks=hooks
        )
        return async_to_sync(kind)(app, "/")

    return ask


def by_decorator(kind, endpoint):
    def ask(case, hooks, settings):
        return async_to_sync(kind)(endpoint(case, hooks), "/")

    return ask


def by_client(client_class, view):
    def ask(case, hooks, settings):
        settings.CHANNELS_WSDENY = {"HOOKS": [hooks]}
        client = client_class(raise_request_exception=False)
        get = client.get if client_class is Client else async_to_sync(client.get)
        response = get(f"/{view}/{NUMBERS[case.name]}/")
        headers = [(name.lower(), value) for name, value in response.items()]
        headers += [("set-cookie", morsel.OutputString()) for morsel in response.cookies.values()]
        return Answer(response.status_code, headers, whole(response))

    return ask


def whole(response):
    if getattr(response, "is_async", False):

        async def read():
            return b"".join([chunk async for chunk in response])

        return async_to_sync(read)()
    return response.getvalue()


def by_stack_and_mirror(view):
    def ask(case, hooks, settings):
        app = DenyMiddlewareStack(ProtocolTypeRouter({"http": get_asgi_application()}), hooks=hooks)
        answer = async_to_sync(fetch)(app, f"/{view}/{NUMBERS[case.name]}/", headers=HOST)
        answer.headers = [(name.lower(), value) for name, value in answer.headers]
        return answer

    return ask


DOORS = {
    "socket under the stack": by_stack(knock),
    "decorated socket": by_decorator(knock, socket),
    "HTTP consumer under the stack": by_stack(fetch),
    "decorated HTTP consumer": by_decorator(fetch, consumer),
    "sync view, WSGI": by_client(Client, "sync"),
    "async view, WSGI": by_client(Client, "async"),
    "sync view, ASGI": by_client(AsyncClient, "sync"),
    "async view, ASGI": by_client(AsyncClient, "async"),
    "sync view under stack and mirror": by_stack_and_mirror("sync"),
    "async view under stack and mirror": by_stack_and_mirror("async"),
}


def check(case, answer, door):
    is_socket = "socket" in door
    if case.status == 0:
        assert answer.status == (101 if is_socket else 200)
        assert answer.body == (b"" if is_socket else b"hello")
    elif is_socket and case.socket is not None:
        assert answer.status == case.socket
    else:
        assert answer.status == case.status
        if case.body is not None:
            assert answer.body == case.body
        else:
            assert answer.problem["code"] == (case.code or code_for(case.status))
            assert "no-store" in answer.header("cache-control")
            assert (answer.header("www-authenticate") == "Session") is (case.status == 401)
    for name, value in case.headers.items():
        assert value in answer.header(name)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("case", CASES, ids=list(NUMBERS))
def test_every_door_answers_alike_and_runs_each_hook_once_in_the_same_order(case, door, settings):
    RAN.clear()
    hooks = Hooks()
    case.hooks(hooks)
    check(case, DOORS[door](case, hooks, settings), door)
    assert " ".join(RAN) == case.ran


#: What Django's own middlewares add to every page.
DJANGOS_OWN = {"x-frame-options", "x-content-type-options", "referrer-policy", "cross-origin-opener-policy"}


def told(answer, *, passed):
    """All of an answer that must be the same; of one that passed only what hooks have to do with."""
    headers = [(name, value) for name, value in answer.headers if name not in DJANGOS_OWN]
    if passed:
        return [(name, value) for name, value in headers if name.startswith("x-") or name == "set-cookie"]
    return answer.status, sorted((name, set(value.split(", "))) for name, value in headers), answer.body


@pytest.mark.parametrize("case", [case for case in CASES if case.socket is None], ids=lambda case: case.name)
def test_no_door_adds_a_header_or_leaves_one_out(case, settings):
    answers = {}
    for door, ask in DOORS.items():
        hooks = Hooks()
        case.hooks(hooks)
        answers[door] = told(ask(case, hooks, settings), passed=case.status == 0)
        settings.CHANNELS_WSDENY = {}
    expected = answers["socket under the stack"]
    assert {door: answer for door, answer in answers.items() if answer != expected} == {}


# Stackings: hooks given here and there, in stacks, wrappers and middlewares around one another.


class Opaque:
    """A wrapper that the look-ahead does not know."""

    def __init__(self, inner):
        self._hidden = inner

    async def __call__(self, scope, receive, send):
        await self._hidden(scope, receive, send)


#: How an endpoint is wrapped, with stacks of two kinds: `a` and `b` are those that may be given hooks.
STACKINGS = {
    "stack": lambda a, b, app: a(app),
    "stack in stack": lambda a, b, app: b(a(app)),
    "stack in stack in stack": lambda a, b, app: a(b(a(app))),
    "wrapper in stack": lambda a, b, app: a(Opaque(app)),
    "stack in wrapper": lambda a, b, app: Opaque(a(app)),
    "stack in wrapper in stack": lambda a, b, app: b(Opaque(a(app))),
    "all in wrappers": lambda a, b, app: Opaque(b(Opaque(a(Opaque(app))))),
    "stacks in a wrapper": lambda a, b, app: Opaque(b(a(Opaque(app)))),
    "stack in Channels' own": lambda a, b, app: AuthMiddlewareStack(a(app)),
    "Channels' own in stack": lambda a, b, app: a(AuthMiddlewareStack(app)),
    "stack in policy in stack": lambda a, b, app: b(require(AllowAny())(a(app))),
    "stack in policy": lambda a, b, app: require(AllowAny())(a(app)),
    "wrapper in policy in stack": lambda a, b, app: a(require(AllowAny())(Opaque(app))),
}
ROUTED = {"stack in router in stack": lambda a, b, app: b(URLRouter([re_path("", a(app))]))}
#: Who is given the hooks.
GIVEN = ["site", "a", "a b", "endpoint", "a endpoint", "site endpoint", "site a b endpoint"]


LOOKING = Hooks()
look(LOOKING)


class Giving:
    """Who is given the hooks that look."""

    def __init__(self, given, settings):
        self.given = given.split()
        settings.CHANNELS_WSDENY = {"HOOKS": self.to("site")}

    def to(self, name):
        return [LOOKING] if name in self.given else []

    def around(self, stacking, app):
        def stack(name):
            return lambda inner: DenyMiddlewareStack(inner, hooks=self.to(name))

        return {**STACKINGS, **ROUTED}[stacking](stack("a"), stack("b"), app)


@pytest.fixture(params=GIVEN)
def giving(request, settings):
    RAN.clear()
    return Giving(request.param, settings)


DENIED = pytest.mark.parametrize(
    "case", [CASES[NUMBERS[name]] for name in ("look", "look, 403")], ids=["", "denied"]
)


@DENIED
@pytest.mark.parametrize("stacking", [*STACKINGS, *ROUTED])
async def test_in_every_stacking_each_hook_runs_once_on_a_socket(stacking, case, giving):
    application = giving.around(stacking, socket(case, *giving.to("endpoint")))
    assert (await knock(application, "/")).status == (case.status or 101)
    assert " ".join(RAN) == case.ran


@DENIED
@pytest.mark.parametrize("stacking", [*STACKINGS, *ROUTED])
async def test_in_every_stacking_each_hook_runs_once_on_an_http_consumer(stacking, case, giving):
    application = giving.around(stacking, consumer(case, *giving.to("endpoint")))
    assert (await fetch(application, "/")).status == (case.status or 200)
    assert " ".join(RAN) == case.ran


#: Without the middleware, the hooks of views alone know the route.
MIRRORED = pytest.mark.parametrize("mirrored", [True, False], ids=["mirror", "no mirror"])


urlpatterns += [
    path(f"hooked/{name}/{number}/", with_hooks(LOOKING)(make(case)))
    for name, make in {"sync": sync_view, "async": async_view}.items()
    for number, case in enumerate(CASES)
]


@DENIED
@MIRRORED
@pytest.mark.parametrize("view", ["sync", "async"])
@pytest.mark.parametrize("stacking", STACKINGS)
def test_in_every_stacking_each_hook_runs_once_on_a_view(stacking, view, mirrored, case, giving, settings):
    if not mirrored:
        settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != MIRROR]
    application = giving.around(stacking, get_asgi_application())
    url = f"/{'hooked/' if giving.to('endpoint') else ''}{view}/{NUMBERS[case.name]}/"
    assert async_to_sync(fetch)(application, url, headers=HOST).status == (case.status or 200)
    if mirrored:
        assert " ".join(RAN) == case.ran
    else:
        assert [name for name in RAN if name != "route"] == case.ran.replace("route ", "").split()
        assert RAN.count("route") <= 1
