"""Hooks, policies and endpoints on every transport: one answer, each hook once, and one order, that of a model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from asgiref.sync import async_to_sync
from channels.auth import AuthMiddlewareStack
from channels.generic.http import AsyncHttpConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.template import engines
from django.template.response import SimpleTemplateResponse
from django.test import override_settings
from django.urls import path, re_path
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated
from channels_wsdeny.status import code_for
from tests.support.clients import GUARD, fetch, knock
from tests.support.policies import Check, raising
from tests.support.sockets import consumer as websocket_consumer
from tests.support.transports import Asgi, Wsgi
from tests.support.views import ask as ask_view
from tests.support.wrappers import Function, Wrapper

if TYPE_CHECKING:
    from collections.abc import Callable

    from channels_wsdeny.policies import Policy

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

#: What ran for the request of this test, in order.
RAN: list[str] = []


class Full(LookupError):
    """What a hook of the site answers."""


@dataclass(frozen=True)
class Case:
    """Hooks, a policy and an endpoint; what every transport answers, and what runs in which order.

    `hooks` adds to a registry. `status` 0: the request passes, which is a 101 for a socket and a 200 for the others.
    The body is a problem with `code` (by default that of the status), unless there is a `body`. `endpoint` is what
    the endpoint raises. `socket` is the status of a socket where it has to differ.
    """

    name: str
    hooks: Callable[[Hooks], None]
    status: int
    ran: str
    code: str | None = None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    policy: Policy = AllowAny()  # noqa: RUF009 - policies keep nothing of a request
    endpoint: Callable[[], Exception] | None = None
    socket: int | None = None

    @property
    def is_left_to_django(self) -> bool:
        """Whether no hook answers what a view raises, so that it is Django's own page."""
        return self.endpoint in {Http404, PermissionDenied, ZeroDivisionError} and self.code is None


# Hooks.


def no():
    return HttpResponse(b"no", status=403, content_type="text/x", headers={"X-No": "no"})


def template():
    source = engines["django"].from_string("no {{ more }}")
    return SimpleTemplateResponse(source, {"more": "more"}, status=403, content_type="text/x")


def deny_402():
    return Deny(402, headers={"X-A": "1"})


def notes(name, answer=lambda: None):
    """A function that notes that it ran, and answers."""

    def hook(*args):
        RAN.append(name)
        return answer()

    return hook


def around(name="", early=None, late=None):
    """An around hook that answers in place of the endpoint, or in place of its answer, or that of the endpoint."""

    async def hook(request, call_next):
        RAN.append(f"{name}in")
        if early is not None:
            return early()
        response = await call_next(request)
        RAN.append(f"{name}out")
        return response if late is None else late()

    return hook


def look(hooks):
    """A hook of each kind, which does nothing."""
    for kind in ("request", "route", "response"):
        hooks.register(notes(kind), kind)
    hooks.on_exception(KeyError)(notes("exception"))
    hooks.around(around())


def says(kind, make):
    """A hook of this kind that answers what `make` makes (or raises it), and others that do nothing."""

    def add(hooks):
        for other in {"request", "route", "response"} - {kind}:
            hooks.register(notes(other), other)
        hooks.register(notes(kind, make), kind, types=(Full,) if kind == "exception" else ())

    return add


def surround(**options):
    def add(hooks):
        hooks.on_request(notes("request"))
        hooks.on_response(notes("response"))
        hooks.around(around(**options))

    return add


def decorate(hooks):
    hooks.on_request(lambda request: setattr(request.ctx, "word", "hello"))

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


def explain(*types, answer=lambda: Deny(409, code="full"), declines=None):
    """A hook for each of these types, which answers and notes its type; one of them declines."""

    def add(hooks):
        hooks.on_response(notes("response"))
        for taken in types:
            hooks.on_exception(taken)(notes(taken.__name__, (lambda: None) if taken is declines else answer))

    return add


NO = {"body": b"no", "headers": {"x-no": "no", "content-type": "text/x", "cache-control": "no-store"}}
MORE = {"body": b"no more", "headers": {"content-type": "text/x", "cache-control": "no-store"}}
FOUND = {"body": b"", "headers": {"location": "/x", "cache-control": "no-store"}}
WORD = {"x-word": "hello there, world", "set-cookie": "seen=1; Path=/"}
LOOKED, ALL = "in request route response out", "in request route endpoint response out"
EARLY, USUAL, INSIDE = "request response", "request route endpoint response", "in request endpoint response out"
FULL = {"code": "full", "endpoint": Full}

CASES = [
    # Hooks that only look.
    Case("look", look, 0, ALL),
    Case("look, 403", look, 403, LOOKED, policy=DenyAll()),
    Case("look, 401", look, 401, LOOKED, policy=IsAuthenticated()),
    Case("look, 302", look, 302, LOOKED, policy=Check(lambda request: HttpResponseRedirect("/x")), **FOUND),
    Case("look, endpoint 402", look, 402, ALL, endpoint=deny_402, headers={"x-a": "1"}),
    Case("look, endpoint 404", look, 404, ALL, endpoint=Http404),
    Case("look, endpoint 500", look, 500, ALL, endpoint=ZeroDivisionError),
    # Headers and cookies; what every denial has is put back.
    Case("decorate", decorate, 0, "endpoint", headers=WORD),
    Case("decorate, 403", decorate, 403, "", headers=WORD, policy=DenyAll()),
    Case("no-store, 403", header("Cache-Control", None), 403, "", policy=DenyAll()),
    Case("vary, 403", header("Vary", "X-A"), 403, "", headers={"vary": "X-A"}, policy=DenyAll()),
    # Answers of hooks.
    Case("early", says("request", no), 403, EARLY, **NO),
    Case("early Deny", says("request", deny_402), 402, EARLY, headers={"x-a": "1"}),
    Case("early template", says("request", template), 403, EARLY, **MORE),
    Case("early 200", says("request", lambda: HttpResponse(b"ok")), 200, EARLY, body=b"ok", socket=500),
    Case("on the route", says("route", no), 403, "request route response", **NO),
    Case("replaced", says("response", no), 403, USUAL, **NO),
    Case("replaced by Deny", says("response", deny_402), 402, USUAL, headers={"x-a": "1"}),
    Case("replaced 404", says("response", no), 403, USUAL, code="", endpoint=Http404, **NO),
    Case("raises 401", says("request", raising(lambda: Deny(401))), 401, EARLY),
    Case("raises 503", says("request", raising(OperationalError)), 503, EARLY, headers={"retry-after": "5"}),
    Case("answers True", says("request", lambda: True), 500, EARLY),
    Case("answers a coroutine", says("response", lambda: asyncio.sleep(0)), 500, USUAL),
    # Exceptions.
    Case("answered", explain(Full), 409, "endpoint Full response", **FULL),
    Case("by a response", explain(Full, answer=no), 403, "endpoint Full response", endpoint=Full, **NO),
    Case("nearest base", explain(Exception, LookupError, KeyError), 409, "endpoint LookupError response", **FULL),
    Case("decline", explain(LookupError, Full, declines=Full), 409, "endpoint Full LookupError response", **FULL),
    Case("a 404", explain(Http404), 409, "endpoint Http404 response", code="full", endpoint=Http404),
    Case("a Deny", explain(Deny, answer=no), 403, "endpoint Deny response", endpoint=deny_402, **NO),
    Case("of a policy", explain(Full), 409, "Full response", code="full", policy=Check(raising(Full))),
    Case("a denial is no exception", explain(Exception), 403, "response", policy=DenyAll()),
    # Around.
    Case("around early", surround(early=no), 403, "in", **NO),
    Case("around late", surround(late=deny_402), 402, INSIDE, headers={"x-a": "1"}),
    Case("around late, template", surround(late=template), 403, INSIDE, **MORE),
    Case("around answers None", surround(late=lambda: None), 500, INSIDE),
]
NUMBERS = {case.name: number for number, case in enumerate(CASES)}


# The transports. Each answers a case, with these hooks.


def run(case):
    """What the endpoint of a case does, on every transport."""
    RAN.append("endpoint")
    if case.endpoint is not None:
        raise case.endpoint()


def socket(case, *hooks):
    made = websocket_consumer(lambda self: run(case) or self.accept())
    return require(case.policy)(with_hooks(*hooks)(made)).as_asgi()


def consumer(case, *hooks):
    class Consumer(AsyncHttpConsumer):
        async def handle(self, body):
            run(case)
            await self.send_response(200, b"hello", headers=[(b"content-type", b"text/plain")])

    return require(case.policy)(with_hooks(*hooks)(Consumer)).as_asgi()


def sync_view(case):
    return require(case.policy)(lambda request: run(case) or HttpResponse("hello", content_type="text/plain"))


def async_view(case):
    async def view(request):
        return run(case) or HttpResponse("hello", content_type="text/plain")

    return require(case.policy)(view)


LOOKING = Hooks()
look(LOOKING)
VIEWS = {"sync": sync_view, "async": async_view}
urlpatterns = [
    path(f"{prefix}{name}/{number}/", with_hooks(*hooks)(make(case)))
    for prefix, hooks in {"": (), "hooked/": (LOOKING,)}.items()
    for name, make in VIEWS.items()
    for number, case in enumerate(CASES)
]
HOST = [(b"host", b"testserver")]


def by_stack(kind):
    def stack(case, hooks):
        router = ProtocolTypeRouter({"websocket": socket(case), "http": consumer(case)})
        return DenyMiddlewareStack(router, hooks=hooks)

    return by_decorator(kind, stack)


def by_decorator(kind, endpoint):
    return lambda case, hooks, settings: async_to_sync(kind)(endpoint(case, hooks), "/")


def by_client(transport, view):
    def ask(case, hooks, settings):
        settings.CHANNELS_WSDENY = {"HOOKS": [hooks]}
        return transport().ask("GET", f"/{view}/{NUMBERS[case.name]}/", b"", {})

    return ask


def by_mirror(view):
    def ask(case, hooks, settings):
        app = DenyMiddlewareStack(ProtocolTypeRouter({"http": get_asgi_application()}), hooks=hooks)
        return async_to_sync(fetch)(app, f"/{view}/{NUMBERS[case.name]}/", headers=HOST)

    return ask


TRANSPORTS = {
    "socket, stack": by_stack(knock),
    "socket, decorated": by_decorator(knock, socket),
    "HTTP consumer, stack": by_stack(fetch),
    "HTTP consumer, decorated": by_decorator(fetch, consumer),
    **{f"{view} view, WSGI": by_client(Wsgi, view) for view in VIEWS},
    **{f"{view} view, ASGI": by_client(Asgi, view) for view in VIEWS},
    **{f"{view} view, stack": by_mirror(view) for view in VIEWS},
}
#: What Django's own middlewares add to every page.
DJANGOS_OWN = {"x-frame-options", "x-content-type-options", "referrer-policy", "cross-origin-opener-policy"}


def check(case, answer, transport):
    is_socket, is_page = "socket" in transport, case.is_left_to_django and "view" in transport
    if case.status == 0:
        assert (answer.status, answer.body) == ((101, b"") if is_socket else (200, b"hello"))
    elif is_socket and case.socket is not None:
        assert answer.status == case.socket
    else:
        assert answer.status == case.status
        if case.body is not None:
            assert answer.body == case.body
        elif not is_page:
            assert answer.problem["code"] == (case.code or code_for(case.status))
            assert "no-store" in answer.header("cache-control")
            assert (answer.header("www-authenticate") == "Session") is (case.status == 401)
    for name, value in case.headers.items():
        assert value in answer.header(name)


def compared(case, answer):
    """All of an answer that must be the same; of one that passed only what hooks have to do with."""
    headers = [(name, value) for name, value in answer.headers if name not in DJANGOS_OWN]
    if case.status == 0:
        return [(name, value) for name, value in headers if name.startswith("x-") or name == "set-cookie"]
    return answer.status, sorted((name, set(value.split(", "))) for name, value in headers), answer.body


@pytest.mark.parametrize("case", CASES, ids=list(NUMBERS))
def test_every_transport_answers_alike_and_runs_each_hook_once_in_one_order(case, settings):
    answers = {}
    for transport, ask in TRANSPORTS.items():
        RAN.clear()
        hooks = Hooks()
        case.hooks(hooks)
        answer = ask(case, hooks, settings)
        answer.headers = [(name.lower(), value) for name, value in answer.headers]
        settings.CHANNELS_WSDENY = {}
        assert " ".join(RAN) == case.ran, transport
        check(case, answer, transport)
        if case.socket is None and not case.is_left_to_django:
            answers[transport] = compared(case, answer)
    first = next(iter(answers.values()), None)
    assert {transport: answer for transport, answer in answers.items() if answer != first} == {}


# Stackings: `a` and `b` are stacks, which may be given hooks.


STACKINGS = {
    "stack": lambda a, b, app: a(app),
    "stack in stack in stack": lambda a, b, app: a(b(a(app))),
    "wrapper in stack": lambda a, b, app: a(Function(app)),
    "stack in wrapper in stack": lambda a, b, app: b(Function(a(app))),
    "all in wrappers": lambda a, b, app: Function(b(Function(a(Function(app))))),
    "stack in Channels' own": lambda a, b, app: AuthMiddlewareStack(a(app)),
    "Channels' own in stack": lambda a, b, app: a(AuthMiddlewareStack(app)),
    "stack in policy in stack": lambda a, b, app: b(require(AllowAny())(a(app))),
    "wrapper in policy in stack": lambda a, b, app: a(require(AllowAny())(Function(app))),
    "stack in router in stack": lambda a, b, app: b(URLRouter([re_path("", a(app))])),
}


@pytest.mark.parametrize("given", ["site", "a", "a b", "endpoint", "a endpoint", "site a b endpoint"])
def test_in_every_stacking_each_hook_runs_once(given, settings):
    def hooks_for(name):
        return [LOOKING] if name in given.split() else []

    def stack(name):
        return lambda inner: DenyMiddlewareStack(inner, hooks=hooks_for(name))

    settings.CHANNELS_WSDENY = {"HOOKS": hooks_for("site")}
    prefix = "/hooked" if "endpoint" in given else ""
    for stacking, stacked in STACKINGS.items():
        for name in ("look", "look, 403"):
            case, own = CASES[NUMBERS[name]], hooks_for("endpoint")
            asked = [("socket", knock, socket(case, *own), "/", 101), ("HTTP", fetch, consumer(case, *own), "/", 200)]
            if "router" not in stacking:
                views = {view: f"{prefix}/{view}/{NUMBERS[name]}/" for view in VIEWS}
                asked += [(view, fetch, get_asgi_application(), url, 200) for view, url in views.items()]
            for transport, kind, app, url, passes in asked:
                RAN.clear()
                answer = async_to_sync(kind)(stacked(stack("a"), stack("b"), app), url, headers=HOST)
                assert (answer.status, " ".join(RAN)) == (case.status or passes, case.ran), (stacking, transport, name)


# Every site of hooks runs them in the order of this model, which shares no code with the package.


@dataclass
class Layer:
    """The hooks of a layer, by kind: what each does and how it is written, in the order of the requests."""

    hooks: dict[str, list[tuple[str, str]]]
    #: Whether it is a request of its own inside the layers before, as behind a wrapper, or that of a view.
    is_apart: bool = False


DOES = {
    "request": ["pass", "pass", "deny", "raise"],
    "route": ["pass", "pass", "deny", "raise"],
    "response": ["pass", "pass", "deny", "raise"],
    "exception": ["pass", "deny", "raise"],
    "around": ["pass", "pass", "early", "late", "raise early", "raise late"],
}
FLAVOURS = st.sampled_from(["sync", "quick", "async"])
LAYERS = st.builds(
    Layer,
    st.fixed_dictionaries(
        {kind: st.lists(st.tuples(st.sampled_from(does), FLAVOURS), max_size=2) for kind, does in DOES.items()}
    ),
    st.booleans(),
)
SITES = st.lists(LAYERS, min_size=1, max_size=3), st.sampled_from(["pass", "raise", "deny"])


class Model:
    """What a request meets in these layers. Outcomes are "pass", a status, or the type of what was raised.

    Hooks raise Full; an endpoint raises Deny, or its own, which a view leaves to Django.
    """

    class Own(Exception): ...

    def __init__(self, layers, endpoint, *, is_view):
        self.layers, self.endpoint, self.is_view, self.ran = layers, endpoint, is_view, []
        self.left = [{kind: list(range(len(does))) for kind, does in layer.hooks.items()} for layer in layers]

    def does(self, kind, number, index):
        self.ran.append(f"{kind} {number} {index}")
        return {"deny": 403, "raise": Full}.get(self.layers[number].hooks[kind][index][0])

    def checks(self, checks):
        return next(filter(None, (self.does(*check) for check in checks)), None)

    def run(self, number=0, request=(), route=()):
        """The outcome of a layer and what is inside it. `request` and `route` are checks of layers around it."""
        if not self.layers[number].hooks["around"]:
            return self.inside(number, request, route)
        return self.checks(request) or self.around(number, route)

    def around(self, number, route):
        outcome, entered = None, []
        for index, (does, _) in enumerate(self.layers[number].hooks["around"]):
            self.ran.append(f"around {number} {index}")
            if "early" in does:
                outcome = Full if "raise" in does else 403
                break
            entered.insert(0, (index, does))
        has_entered = outcome is None
        if has_entered:
            outcome = self.inside(number, (), route)
        for index, does in entered:
            if isinstance(outcome, type):
                break
            self.ran.append(f"after {number} {index}")
            outcome = {"late": 403, "raise late": Full}.get(does, outcome)
        outcome = self.answered(number, outcome)
        return self.leave(number, outcome) if has_entered else outcome

    def inside(self, number, request, route):
        hooks = self.layers[number].hooks
        request = [*request, *(("request", number, index) for index in range(len(hooks["request"])))]
        route = [*route, *(("route", number, index) for index in range(len(hooks["route"])))]
        follows = number + 1 < len(self.layers) and not self.layers[number + 1].is_apart
        outcome = self.run(number + 1, request, route) if follows else self.application(number, request, route)
        return self.leave(number, outcome)

    def application(self, number, request, route):
        if outcome := self.checks((*request, *route)):
            return outcome
        if number + 1 < len(self.layers):
            return self.run(number + 1)
        self.ran.append("endpoint")
        return {"pass": "pass", "raise": self.Own, "deny": Deny}[self.endpoint]

    def leave(self, number, outcome):
        outcome = self.answered(number, outcome)
        if outcome is self.Own and number > 0:
            return outcome  # Response hooks of a view do not see what it leaves to Django.
        left = self.left[number]["response"]
        while left:
            does = self.does("response", number, left.pop())
            if does is Full:
                outcome = self.answered(number, Full)
            elif does:
                left.clear()
                outcome = does
        return 500 if outcome is self.Own else outcome

    def answered(self, number, outcome):
        """What the exception hooks of this layer and those around it, each asked once, make of an exception."""
        if not isinstance(outcome, type):
            return outcome
        for layer in range(number, -1, -1):
            left = self.left[layer]["exception"]
            while left:
                does = self.does("exception", layer, left.pop(0))
                if does:
                    return 500 if does is Full else does
        return 409 if outcome is Deny else outcome if outcome is self.Own and self.is_view else 500


def registries(layers, ran):
    """The hooks of each layer, which note in `ran` that they run."""

    def hook(kind, number, index, does, flavour):
        def synchronous(*args):
            ran.append(f"{kind} {number} {index}")
            if does == "raise":
                raise Full
            return Deny(403) if does == "deny" else None

        async def asynchronous(*args):
            await asyncio.sleep(0)
            return synchronous()

        async def around(request, call_next):
            ran.append(f"{kind} {number} {index}")
            response = None
            if "early" not in does:
                response = await call_next(request)
                ran.append(f"after {number} {index}")
            if "raise" in does:
                raise Full
            return response if does == "pass" else HttpResponse(status=403)

        return around if kind == "around" else asynchronous if flavour == "async" else synchronous

    for number, layer in enumerate(layers):
        hooks = Hooks()
        for kind, registered in layer.hooks.items():
            for index, (does, flavour) in enumerate(registered):
                hooks.register(hook(kind, number, index, does, flavour), kind, blocking=flavour == "sync")
        yield hooks


def ask_app(kind, layers, act, ran):
    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            act()
            await send({"type": "websocket.accept"})
        else:
            act()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})

    first, *others = registries(layers, ran)
    for hooks, layer in reversed([*zip(others, layers[1:], strict=True)]):
        app = with_hooks(hooks)(public(app))
        app = Wrapper(app) if layer.is_apart else app
    with override_settings(CHANNELS_WSDENY={"POLICY_TIMEOUT": GUARD}):
        return asyncio.run(kind(DenyMiddlewareStack(public(app), hooks=first), "/")).status


def ask_django(way, is_async, layers, act, ran):
    def view(request):
        act()
        return HttpResponse()

    async def async_view(request):
        return view(request)

    first, *others = registries(layers, ran)
    endpoint = async_view if is_async else view
    for hooks in others:
        endpoint = with_hooks(hooks)(endpoint)
    with override_settings(CHANNELS_WSDENY={"HOOKS": [first], "POLICY_TIMEOUT": GUARD}):
        return ask_view(endpoint, way=way, middleware=[MIRROR], method="GET").status_code


def hold_to_the_model(layers, endpoint):
    # Decorators on one another are one layer: those of an endpoint are inside the stack's, all others are apart.
    layers = [Layer(layer.hooks, number > 1 or layer.is_apart) for number, layer in enumerate(layers)]
    of_view = [Layer(layer.hooks, is_apart=True) for layer in layers[:2]]
    asked = [(101, layers, lambda *args: ask_app(knock, *args)), (200, layers, lambda *args: ask_app(fetch, *args))]
    asked += [
        (200, of_view, lambda *args, options=options: ask_django(*options, *args))
        for options in [("wsgi", False), ("wsgi", True), ("asgi", False), ("asgi", True)]
    ]
    for passes, given_layers, ask in asked:
        model, ran = Model(given_layers, endpoint, is_view=given_layers is of_view), []
        right = model.run()

        def act(ran=ran):
            ran.append("endpoint")
            if endpoint != "pass":
                raise Full if endpoint == "raise" else Deny(409)

        assert (ask(given_layers, act, ran), ran) == (passes if right == "pass" else right, model.ran)


@pytest.mark.parametrize("count", [30, pytest.param(2000, marks=pytest.mark.random)])
def test_any_site_of_hooks_runs_them_in_the_order_of_the_model(count):
    unhurried = settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    unhurried(given(*SITES)(hold_to_the_model))()
