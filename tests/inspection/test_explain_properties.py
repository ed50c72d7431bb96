"""What `explain` says of random sites is what a handshake gets there, except where it names what it does not run.

`EXAMPLES=100000 python -m pytest -m random tests/inspection/test_explain_properties.py` tries so many new sites.
"""

import asyncio
from operator import and_, invert, or_

import pytest
from asgiref.sync import async_to_sync
from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.security.websocket import OriginValidator
from django.contrib.auth.models import Group
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.http import HttpResponse, HttpResponseRedirect
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from channels_wsdeny import Deny
from channels_wsdeny import policies as built_in
from channels_wsdeny.decorators import require
from channels_wsdeny.inspection.explain import explain
from tests.support.clients import GUARD, cookie_header, websocket_scope
from tests.support.examples import amounts
from tests.support.policies import AsyncCheck, Check, accept
from tests.support.random_handshakes import BOUNDARIES, KNOWN, around, nodes
from tests.support.sockets import Server

pytestmark = pytest.mark.django_db

USERS = {
    "alice": {},
    "boss": {"is_staff": True},
    "root": {"is_superuser": True},
    "gone": {"is_staff": True, "is_active": False},
}
ANSWERS = {
    "allows": lambda request: True,
    "denies": lambda request: Deny(418, "No.", code="teapot"),
    "responds": lambda request: HttpResponse("no", status=409),
    "redirects": lambda request: HttpResponseRedirect("/login/"),
    "breaks": lambda request: 1 // 0,
    "asks for staff": lambda request: request.user.is_staff or Deny(410),
    "asks for a room": lambda request: "room" in request.resolver_match.kwargs or Deny(404),
    "changes the session": lambda request: request.session.update(changed=True) or True,
}


def class_of(base, ran):
    """A class of consumers that note that they are made."""

    class Endpoint(base):
        def __init__(self, *args, **kwargs):
            ran.append("endpoint")
            super().__init__(*args, **kwargs)

    return Endpoint


def function(ran):
    async def endpoint(scope, receive, send):
        ran.append("endpoint")
        await accept(scope, receive, send)

    return endpoint


ENDPOINTS = {
    "consumer": lambda ran: class_of(AsyncWebsocketConsumer, ran).as_asgi(),
    "sync consumer": lambda ran: class_of(WebsocketConsumer, ran).as_asgi(),
    "guarded consumer": lambda ran: require(built_in.IsStaff())(class_of(AsyncWebsocketConsumer, ran)).as_asgi(),
    "application": function,
}
OUTERMOST = [*[lambda app: app] * 3, AuthMiddlewareStack, lambda app: OriginValidator(app, ["http://elsewhere"])]
KINDS = ["stack", "stack", "guards", "router", *KNOWN, "Wrapper", "Function", "own router", "sets", "middleware"]
checks = st.builds(
    lambda kind, name: kind(ANSWERS[name]), st.sampled_from([Check, AsyncCheck]), st.sampled_from(list(ANSWERS))
)
policies = st.recursive(
    checks
    | st.sampled_from([built_in.AllowAny(), built_in.DenyAll(), built_in.IsAuthenticated(), built_in.IsStaff()])
    | st.sampled_from([built_in.IsSuperuser(), built_in.InGroup("chefs"), built_in.HasPermission("auth.add_user")])
    | st.sampled_from(
        [built_in.AllowedOrigin("http://elsewhere"), built_in.MaxConnections(1), built_in.Throttle("1/h")]
    )
    | st.just(built_in.UserPassesTest(lambda user: user.username != "alice")),
    lambda inner: inner.map(invert) | st.builds(and_, inner, inner) | st.builds(or_, inner, inner),
    max_leaves=4,
)
sites = st.tuples(
    st.sampled_from(OUTERMOST),
    st.lists(nodes(KINDS, open_to_all=False), max_size=4),
    st.none() | policies,
    st.sampled_from(sorted(ENDPOINTS)),
)


def site_of(outermost, path, policy, endpoint, ran):
    """The application; endpoints, and what is not known, note in `ran` that they run."""
    app = ENDPOINTS[endpoint](ran)
    app = app if policy is None else require(policy)(app)
    for node in reversed(path):
        app = around(node, noting(app, ran) if node.kind in BOUNDARIES else app)
    return outermost(app)


def noting(app, ran):
    async def noted(scope, receive, send):
        ran.append("unknown")
        await app(scope, receive, send)

    return noted


@pytest.fixture
def cookies(django_user_model):
    """The headers with which a browser sends the session of each user, and of nobody."""
    found = {None: []}
    for name, attributes in USERS.items():
        user, client = django_user_model.objects.create_user(name, **attributes), Client()
        client.force_login(user)
        found[name] = cookie_header(sessionid=client.session.session_key)
    Group.objects.create(name="chefs").user_set.set(django_user_model.objects.filter(username__in=["alice", "gone"]))
    return found


class Leaving(Server):
    """A server whose client leaves once it is answered."""

    async def send(self, message):
        await super().send(message)
        self.events.put_nowait({"type": "websocket.disconnect", "code": 1000})


def answer_of(messages):
    """What a client can tell of an answer, without the values of headers: a session that begins has a new key."""
    return [
        {"subprotocol": None, **message, "headers": sorted(name for name, _ in message.get("headers") or ())}
        for message in messages
    ]


def is_accepted(answer):
    return isinstance(answer, list) and [message["type"] for message in answer] == ["websocket.accept"]


def outcome(function):
    """What `function` returns, or the class of what it raises: without a stack that is what a server gets."""
    try:
        return function()
    except Exception as error:
        return type(error)


def hold(site, url, user, origin, cookies):
    global application  # ASGI_APPLICATION
    ran = []
    application = site_of(*site, ran)

    def knock():
        cache.clear()
        ran.clear()
        server = Leaving()
        scope = websocket_scope(url, headers=[(b"host", b"testserver"), (b"origin", origin), *cookies[user]])
        async_to_sync(asyncio.wait_for)(application(scope, server.receive, server.send), GUARD)
        return answer_of(server.sent)

    first = outcome(knock)
    is_reached = "unknown" in ran
    cache.clear()
    ran.clear()
    stored = list(Session.objects.order_by("pk").values())
    found = outcome(lambda: explain(url, "websocket", user, ["Host: testserver", f"Origin: {origin.decode()}"]))
    assert (ran, list(Session.objects.order_by("pk").values())) == ([], stored)
    assert outcome(knock) == first
    if isinstance(found, type):
        assert found == first or is_reached
        return
    assert found.hanging is None
    not_run = [noted.name for noted in found.trace.noted if (noted.answer or "").startswith("not run")]
    if not all(name.lower().endswith("endpoint") for name in not_run):
        assert is_reached or not is_accepted(first), "what is named is elsewhere"
        return
    assert not is_reached, "what is not known is not named"
    assert answer_of(found.messages) == first
    assert not_run or not is_accepted(first), "no endpoint is named"


@pytest.mark.parametrize("deny_with", ["response", "close"])
@amounts(60, 2000)
def test_a_handshake_is_answered_as_explain_tells(amount, deny_with, cookies, settings, clock):
    settings.ASGI_APPLICATION = f"{__name__}.application"
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": GUARD, "ACCEPT_TIMEOUT": None, "DENY_WITH": deny_with}
    urls, users = st.sampled_from(["/a/", "/b/", "/a/b/", "/", "/x/y/"]), st.sampled_from([None, *USERS])
    origins = st.sampled_from([b"http://testserver", b"http://testserver", b"http://elsewhere"])
    amount(given(st.tuples(sites, urls, users, origins))(lambda case: hold(*case, cookies)))()
