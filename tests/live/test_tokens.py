"""Sockets whose user came from another authentication class than the session."""

import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.test.utils import isolate_apps
from django.urls import re_path
from django.utils import timezone
from django.utils.deprecation import MiddlewareMixin
from rest_framework.authentication import BaseAuthentication
from rest_framework.authentication import SessionAuthentication as OfSession
from rest_framework.permissions import IsAuthenticated

from channels_wsdeny import Deny, DenyMiddlewareStack, policies
from channels_wsdeny.authentication import (
    Authentication,
    BearerAuthentication,
    SessionAuthentication,
    SubprotocolToken,
    TicketAuthentication,
    issue_ticket,
)
from channels_wsdeny.contrib.rest_framework import RestFramework
from channels_wsdeny.decorators import login_required, require
from channels_wsdeny.live import expiry, receivers, scheduler
from channels_wsdeny.live.registry import hash_key, registry
from testproject.chat.models import Token
from tests.support.authentication import ByHeader
from tests.support.opened import Opened, update
from tests.support.sockets import consumer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("hasty")]
members = login_required(consumer()).as_asgi()


@pytest.fixture
def tokens(users):
    """Tokens that are valid, and the credentials that each stands for."""
    return {"one": {}, "two": {}, "short": {"exp": time.time() + 0.05}}


@pytest.fixture
def application(tokens):
    """A consumer behind bearer tokens, in the header or as a subprotocol, and tickets."""

    def verify(request, token):
        if token not in tokens:
            raise Deny(401)
        return get_user_model().objects.get(username="alice"), tokens[token]

    bearer = BearerAuthentication(lambda token: verify(None, token))
    classes = [TicketAuthentication(), bearer, SubprotocolToken("bearer", bearer)]
    return DenyMiddlewareStack(members, authentication=classes)


def in_header(token):
    return {"headers": [(b"authorization", b"Bearer " + token.encode())]}


def as_subprotocol(token):
    return {"subprotocols": ["bearer", token]}


@pytest.mark.parametrize("given", [in_header, as_subprotocol])
async def test_a_token_that_is_gone_closes_its_sockets_and_no_others(given, application, tokens, change):
    one, two = [await Opened(application, **given(token)).accepted() for token in ("one", "two")]
    del tokens["one"]
    await change(update(first_name="Alice"))
    assert (await one.close())[0] == 4401
    await two.stays()


def in_tenant(app):
    """A wrapper that is not known to the package, and adds to the scope."""

    async def wrapped(scope, receive, send):
        await app({**scope, "tenant": "blue"}, receive, send)

    return wrapped


@pytest.mark.parametrize("is_ticket", [False, True])
async def test_a_token_closes_its_sockets_through_a_wrapper_in_a_stack_within_another(
    is_ticket, users, sessions, tokens, rf, change
):
    bearer = BearerAuthentication(lambda token: (users["alice"], None) if token in tokens else None)
    inner = DenyMiddlewareStack(in_tenant(members), authentication=[TicketAuthentication(), bearer])
    site = DenyMiddlewareStack(URLRouter([re_path("", inner)]))
    request = rf.get("/")
    request.user, request.session = users["alice"], sessions["alice"]
    if is_ticket:
        ticket = await change(lambda: issue_ticket(request, "/room/"))
        opened = await Opened(site, f"/room/?ticket={ticket}").accepted()
        await change(request.session.flush)
    else:
        opened = await Opened(site, **in_header("one")).accepted()
        del tokens["one"]
        await change(update(first_name="Alice"))
    assert (await opened.close())[0] == 4401


@isolate_apps("testproject.chat")
async def test_a_token_that_is_deleted_by_a_proxy_of_its_model_closes_its_sockets(users, change, monkeypatch):
    meta = type("Meta", (), {"proxy": True, "app_label": "chat"})
    proxy = type("Proxy", (Token,), {"__module__": __name__, "Meta": meta})
    monkeypatch.setattr(receivers, "apps", SimpleNamespace(get_models=lambda: [Token, proxy]))
    receivers.watch_credentials(Token)
    token = await change(lambda: Token.objects.create(user=users["alice"], digest="0"))
    bearer = BearerAuthentication(lambda _token: (users["alice"], token))
    socket = await Opened(DenyMiddlewareStack(members, authentication=[bearer]), **in_header("x")).accepted()
    await change(lambda: proxy.objects.get(pk=token.pk).delete())
    assert await socket.close() == (4401, "invalid_credentials")


@pytest.mark.parametrize("key", [r'"aaaaaaaa\000"', "aaaa\xa0aaaa"])
async def test_what_cannot_be_the_key_of_a_session_is_not_looked_up_with_those_of_others(key, application, settings):
    cookie = f"{settings.SESSION_COOKIE_NAME}={key}".encode("latin1")
    headers = [(b"authorization", b"Bearer one"), (b"cookie", cookie)]
    alice = await Opened(application, headers=headers).accepted()
    (socket,) = registry.sockets()
    assert socket.sessions == ()
    await alice.stays()


@pytest.mark.parametrize("reason", ["session_ended", "session_expired"])
async def test_a_session_that_is_the_token_ends_its_sockets_with_it(reason, users, sessions, change, monkeypatch):
    """As that of django-allauth's XSessionTokenAuthentication is."""
    monkeypatch.setattr(scheduler, "_LOOKING", 0.0)
    found = users["alice"], sessions["alice"]
    row = Session.objects.filter(pk=sessions["alice"].session_key)
    if reason == "session_expired":
        await change(lambda: row.update(expire_date=timezone.now() + timedelta(seconds=0.5)))
    application = DenyMiddlewareStack(members, authentication=[BearerAuthentication(lambda token: found)])
    socket = await Opened(application, **in_header("x")).accepted()
    if reason == "session_ended":
        await change(lambda: row.get().delete())
    assert await socket.close() == (4401, reason)


class OfRequest(Authentication):
    """The user of the session, which is also what is found with it."""

    def authenticate(self, request):
        return request.user, request.session


async def test_a_session_that_is_both_that_of_the_cookie_and_the_credentials_may_get_a_new_key(
    sessions, headers_of, change, monkeypatch
):
    application = DenyMiddlewareStack(members, authentication=[OfRequest()])
    socket = await Opened(application, headers=headers_of("alice")).accepted()
    await change(sessions["alice"].cycle_key)
    (opened,) = registry.sockets()
    assert opened.sessions == (hash_key(sessions["alice"].session_key),)
    assert await expiry.gone([opened]) == []
    await socket.stays()


class Device:
    """Who has a token, and is no user of the site."""

    is_authenticated, pk = True, None


@pytest.mark.parametrize("of_session", [True, False])
async def test_who_is_no_user_of_the_site_is_not_replaced_by_another_once_the_token_is_gone(of_session, headers_of):
    devices = {"one": Device(), "two": Device()}
    application = DenyMiddlewareStack(members, authentication=[ByHeader(devices, "X-Device"), SessionAuthentication()])
    of_user = headers_of("alice") if of_session else []
    one, two = [
        await Opened(application, headers=[*of_user, (b"x-device", name)]).accepted() for name in (b"one", b"two")
    ]
    del devices["one"]
    (first, second), users = registry.sockets(), {}
    assert (await first.opened.ask_again(users)).status == 401
    assert await second.opened.ask_again(users) is None
    await one.stays()
    await two.stays()


async def test_wrappers_may_set_those_who_are_no_users_of_the_site_and_have_no_primary_key(users):
    device = SimpleNamespace(is_authenticated=True)
    opened = [await Opened(DenyMiddlewareStack(members), user=device).accepted() for _ in range(2)]
    shared = {}
    assert [await socket.opened.ask_again(shared) for socket in registry.sockets()] == [None] * 2
    for each in opened:
        await each.stays()


@pytest.mark.parametrize("given", [in_header, as_subprotocol])
async def test_a_token_that_is_gone_is_not_replaced_by_a_session_of_its_user(
    given, application, tokens, headers_of, hooks
):
    @hooks.on_request
    def look(request):
        request.session.get("theme")

    arguments = given("one")
    arguments["headers"] = [*arguments.get("headers", ()), *headers_of("alice")]
    by_session = await Opened(DenyMiddlewareStack(members), headers=headers_of("alice")).accepted()
    by_token = await Opened(DenyMiddlewareStack(application, hooks=hooks), **arguments).accepted()
    (first, second), users = registry.sockets(), {}
    del tokens["one"]
    assert await first.opened.ask_again(users) is None
    assert (await second.opened.ask_again(users)).status == 401
    await by_session.stays()
    await by_token.stays()


@pytest.fixture
def finding(tokens):
    """A policy that finds the user of a token."""

    class Found(BaseAuthentication):
        def authenticate(self, request):
            return (get_user_model().objects.get(username="alice"), None) if "one" in tokens else None

    return RestFramework(authentication=[Found], permissions=[], throttles=[])


@pytest.fixture
def found_by_policy(finding):
    """A consumer with that policy."""
    return require(finding)(consumer()).as_asgi()


@pytest.mark.parametrize("has_session", [False, True])
async def test_a_token_that_a_policy_finds_no_more_closes_its_socket(
    has_session, found_by_policy, users, tokens, headers_of, change
):
    headers = headers_of("alice") if has_session else []
    opened = await Opened(DenyMiddlewareStack(found_by_policy), headers=headers).accepted()
    del tokens["one"]
    await change(update(first_name="Alice"))
    assert (await opened.close())[0] == 4401


class Joining(AsyncWebsocketConsumer):
    """Joins a group that is for users who are logged in."""

    async def connect(self):
        await self.accept()
        await self.scope["wsdeny"].join("members", policies.IsAuthenticated())


async def test_whom_a_policy_has_found_does_not_count_for_the_policies_before_it_as_they_are_asked_again(
    finding, users, tokens, change
):
    endpoint = require(policies.IsAuthenticated() | finding)(type("Consumer", (Joining,), {})).as_asgi()
    opened = await Opened(DenyMiddlewareStack(endpoint)).accepted()
    (socket,) = registry.sockets()
    assert await socket.opened.ask_again() is None
    await socket.opened.ask_parts()
    assert len(socket.opened.parts) == 1
    del tokens["one"]
    await change(update(first_name="Alice"))
    assert (await opened.close())[0] == 4401


class ActsAsBob(MiddlewareMixin):
    def process_request(self, request):
        request.user = get_user_model().objects.get(username="bob")


async def test_whom_a_middleware_has_put_in_the_place_of_the_sessions_user_a_policy_finds_again(users, headers_of):
    policy = RestFramework(authentication=[OfSession], permissions=[IsAuthenticated], throttles=[])
    stack = DenyMiddlewareStack(require(policy)(consumer()).as_asgi(), middleware=[f"{__name__}.ActsAsBob"])
    opened = await Opened(stack, headers=headers_of("alice")).accepted()
    assert [await socket.opened.ask_again() for socket in registry.sockets()] == [None]
    await opened.stays()


async def test_whom_a_policy_has_put_in_the_place_of_a_middlewares_user_it_finds_again(found_by_policy, tokens):
    stack = DenyMiddlewareStack(found_by_policy, middleware=[f"{__name__}.ActsAsBob"])
    opened = await Opened(stack).accepted()
    assert [await socket.opened.ask_again() for socket in registry.sockets()] == [None]
    del tokens["one"]
    assert [(await socket.opened.ask_again()).code for socket in registry.sockets()] == ["session_ended"]
    await opened.stays()


@pytest.mark.parametrize("given", [in_header, as_subprotocol])
async def test_a_token_that_expires_closes_its_socket(given, application, monkeypatch):
    monkeypatch.setattr(scheduler, "_LOOKING", 0.01)
    opened = await Opened(application, **given("short")).accepted()
    assert await opened.close() == (4401, "credentials_expired")


async def test_a_ticket_is_not_used_twice_and_ends_with_its_session(application, users, sessions, rf, change):
    request = rf.get("/")
    request.user, request.session = users["alice"], sessions["alice"]
    ticket = await change(lambda: issue_ticket(request, "/room/"))
    opened = await Opened(application, f"/room/?ticket={ticket}").accepted()
    await change(update(first_name="Alice"))
    (socket,) = registry.sockets()
    assert await socket.opened.ask_again() is None
    await change(lambda: request.session.cycle_key())
    await change(lambda: request.session.save())
    assert await socket.opened.ask_again() is None
    await change(lambda: request.session.flush())
    assert await opened.close() == (4401, "session_ended")
