"""Random views and ASGI applications over HTTP, held against a model that shares no code with the package.

A view gets exactly the status that the model expects, however Django runs it, and `explain` foretells that.
An ASGI application is never reached against a guard or a hook, and every client has one whole answer.

`EXAMPLES=100000 python -m pytest -m random tests/handlers/test_properties_over_http.py` tries so many new ones.
"""

import asyncio
from dataclasses import dataclass, replace
from types import ModuleType

import pytest
from channels.generic.http import AsyncHttpConsumer
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.test import override_settings
from django.urls import path
from django.views import View
from hypothesis import given
from hypothesis import strategies as st

from channels_wsdeny import Deny
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.inspection.explain import explain
from tests.support import random_handshakes
from tests.support.clients import GUARD
from tests.support.examples import amounts
from tests.support.mirror import START, Server, body
from tests.support.random_handshakes import EVERYONE, USERS, Asks, Rule, hooks_of, users
from tests.support.transports import DJANGO, Middleware, Stack

pytestmark = pytest.mark.django_db

#: How a policy may deny, and the status of that.
NO = {"False": 403, "None": 500, "Deny": 402, "response": 409, "raises": 403, "breaks": 500}
#: What an endpoint may answer, and the status of that.
OUTCOMES = {"ok": 200, "own 403": 403, "denies": 402, "forbids": 403, "misses": 404, "breaks": 500}
ERRORS = {"denies": lambda: Deny(402), "forbids": PermissionDenied, "misses": Http404, "breaks": KeyError}


rules = st.builds(
    Rule,
    st.just(EVERYONE) | st.frozensets(st.sampled_from(sorted(USERS))),
    how=st.sampled_from(["ready", "thread", "loop"]),
    turns=st.just(1),
    no=st.sampled_from(sorted(NO)),
)
hooks = st.tuples(st.sampled_from(["request", "route", "response", "around before", "around after"]), rules)


# Views.


@dataclass(frozen=True)
class Page:
    """A view, what is around it, and who asks."""

    transport: str
    kind: str
    outcome: str
    is_public: bool
    guards: tuple[Rule, ...]
    site_hooks: tuple
    own_hooks: tuple
    has_default: bool
    user: str

    @property
    def expected(self):
        """The statuses that an answer may have."""
        denying = [kind for kind, rule in self.site_hooks if self.user not in rule.users]
        own = [kind for kind, rule in self.own_hooks if self.user not in rule.users]
        if denying:
            return {410}
        if self.has_default and not self.guards and not self.is_public and self.user == "":
            return {401, 410} if own else {401}  # The mirror may ask before the hooks of the view.
        if not own:
            return {self.inner[0]}
        # Exceptions are left to Django, and response hooks of a view do not see what that makes of them.
        is_unseen = self.inner[1] and set(own) <= {"response", "around after"}
        return {410, self.inner[0]} if is_unseen else {410}

    @property
    def inner(self):
        """The status inside the hooks, and whether that is the one of an exception."""
        for rule in self.guards:
            if self.user not in rule.users:
                return NO[rule.no], rule.no in {"None", "raises", "breaks"}
        return OUTCOMES[self.outcome], self.outcome in {"forbids", "misses", "breaks"}

    def view(self, ran):
        def view(request):
            ran.append("view")
            if self.outcome in ERRORS:
                raise ERRORS[self.outcome]()
            return HttpResponse("secret", status=OUTCOMES[self.outcome])

        async def coroutine(request):
            return view(request)

        async def get(self, request):
            return view(request)

        answer = view
        if self.kind == "coroutine":
            answer = coroutine
        elif self.kind != "function":
            method = get if self.kind == "async class" else lambda self, request: view(request)
            answer = type("Page", (View,), {"get": method}).as_view()
        for hook in reversed(self.own_hooks):
            answer = with_hooks(hooks_of(hook))(answer)
        for rule in reversed(self.guards):
            answer = require(Asks(rule))(answer)
        return public(answer) if self.is_public else answer


class Who(Middleware):
    """Authenticates by a header."""

    def come(self, request):
        request.user = USERS[request.headers.get("X-As", "")]


pages = st.builds(
    Page,
    st.sampled_from(sorted(DJANGO)),
    st.sampled_from(["function", "coroutine", "class", "async class"]),
    st.sampled_from(["ok", "ok", *OUTCOMES]),
    st.booleans(),
    st.lists(rules, max_size=2).map(tuple),
    st.lists(hooks, max_size=2).map(tuple),
    st.lists(hooks, max_size=1).map(tuple),
    st.booleans(),
    users,
)


def hold_page(page):
    """Ask a view, and `explain` about it, and hold the statuses against the model."""
    ran, transport, urlconf = [], DJANGO[page.transport](), ModuleType("urlconf")
    urlconf.urlpatterns = [path("", page.view(ran))]
    site_hooks = [hooks_of(hook) for hook in page.site_hooks]
    wsdeny = {"MIRROR_DEFAULT_POLICY": page.has_default, "HOOKS": site_hooks, "POLICY_TIMEOUT": GUARD}
    if isinstance(transport, Stack) and len(site_hooks) == 1:
        transport.options, wsdeny["HOOKS"] = {"hooks": site_hooks[0]}, []
    middleware = [f"{__name__}.Who", *transport.around, MIRROR, *transport.within]
    with override_settings(ROOT_URLCONF=urlconf, MIDDLEWARE=middleware, CHANNELS_WSDENY=wsdeny, ASGI_APPLICATION=None):
        answer = transport.ask("GET", "/", b"", {"X-As": page.user})
        assert answer.status in page.expected
        assert (b"secret" in answer.body) <= (page.outcome in {"ok", "own 403"} and page.expected == {answer.status})
        assert not (ran and any(page.user not in rule.users for rule in page.guards)), "the view ran"
        if not wsdeny["HOOKS"] and site_hooks:
            return  # `explain` would not know of the stack.
        ran.clear()
        (start, *_) = explain("/", "http", None, [f"X-As: {page.user}"] if page.user else []).messages
    assert not ran, "explain has run the view"
    assert start["status"] in replace(page, outcome="ok").expected


@amounts(80, 10000)
def test_a_view_gets_the_status_of_the_model_and_explain_foretells_it(amount):
    amount(given(pages)(lambda page: hold_page(page)))()


# ASGI applications.


KINDS = ["stack", "guards", "router", "protocols", "cookies", *random_handshakes.PASSIVE[:5], "sets", "middleware"]
METHODS = ["GET", "GET", "HEAD", "POST", "OPTIONS", "BREW"]


def layers(kinds):
    return st.booleans().flatmap(lambda open_to_all: random_handshakes.nodes(kinds, open_to_all))


nests = st.builds(
    random_handshakes.Site,
    st.builds(lambda first, others: (first, *others), layers(["stack", "guards"]), st.lists(layers(KINDS), max_size=4)),
    st.sampled_from(["function", "consumer"]),
    st.none() | rules,
    user=users,
)


def application_over_http(nest, outcome, ran):
    async def app(scope, receive, send):
        ran.append("application")
        if outcome in ERRORS:
            raise ERRORS[outcome]()
        await send({**START, "status": OUTCOMES[outcome]})
        await send(body(b"secret"))

    class Consumer(AsyncHttpConsumer):
        async def __call__(self, scope, receive, send):
            await app(scope, receive, send)

    guard = (lambda app: app) if nest.rule is None else require(Asks(nest.rule))
    endpoint = guard(Consumer).as_asgi() if nest.endpoint == "consumer" else guard(app)
    return random_handshakes.application(nest.nodes, endpoint)


def hold_nest(nest, outcome, has_default, method):
    model, ran = random_handshakes.Model(nest, has_default=has_default), []
    path = "/" + "".join(f"{node.room}/" for node in nest.nodes if node.kind == "router" and node.room)

    async def at_path(scope, receive, send):
        await application_over_http(nest, outcome, ran)({**scope, "path": path}, receive, send)

    async def run():
        server = Server(at_path, method=method, user=USERS[nest.user], session=SessionStore())
        return server, await server.end()

    with override_settings(CHANNELS_WSDENY={"MIRROR_DEFAULT_POLICY": has_default, "POLICY_TIMEOUT": 2 * GUARD}):
        server, raised = asyncio.run(run())
    kinds = [message["type"] for message in server.sent]
    assert (kinds, raised) == (["http.response.start", "http.response.body"], None)
    assert model.may_run or not ran, "the application was reached"
    assert (b"secret" in server.body) <= bool(ran), "content without the application"
    must_pass = model.is_open and not has_default
    assert not must_pass or server.sent[0]["status"] == OUTCOMES[outcome], "denied"


@amounts(80, 10000)
def test_no_application_over_http_is_reached_that_the_model_forbids(amount):
    outcomes, methods = st.sampled_from(["ok", "ok", *OUTCOMES]), st.sampled_from(METHODS)
    amount(given(nests, outcomes, st.booleans(), methods)(hold_nest))()
