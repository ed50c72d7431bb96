"""What `explain` says of random sites is what a handshake gets there, except where it names what it does not run.

`EXAMPLES=100000 python -m pytest -m random tests/inspection/test_explain_properties.py` tries so many new sites.
"""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from channels_wsdeny.inspection.explain import explain
from tests.support import random_sites
from tests.support.clients import GUARD, cookie_header, websocket_scope
from tests.support.examples import amounts
from tests.support.sockets import Server

pytestmark = pytest.mark.django_db

USERS = {
    "alice": {},
    "staff": {"is_staff": True},
    "root": {"is_superuser": True},
    "gone": {"is_staff": True, "is_active": False},
}


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
    application = site.application(ran)

    def knock():
        cache.clear()
        ran.clear()
        server = Leaving()
        scope = websocket_scope(url, headers=[(b"host", b"testserver"), (b"origin", origin), *cookies[user]])
        async_to_sync(asyncio.wait_for)(application(scope, server.receive, server.send), GUARD)
        return answer_of(server.sent)

    first = outcome(knock)
    is_reached = "Unknown" in ran
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
    if any(name.endswith("Unknown") for name in not_run):
        assert is_reached or not is_accepted(first), "what is named is elsewhere"
        return
    assert not is_reached, "what is not known is not named"
    assert answer_of(found.messages) == first
    assert not_run or not is_accepted(first), "no endpoint is named"


@amounts(100, 2000)
def test_a_handshake_is_answered_as_explain_tells(amount, cookies, settings, clock):
    settings.ASGI_APPLICATION = f"{__name__}.application"
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": GUARD, "ACCEPT_TIMEOUT": None}
    urls, users = st.sampled_from(["/a/", "/b/", "/a/b/", "/", "/x/y/"]), st.sampled_from([None, *USERS])
    origins = st.sampled_from([b"http://testserver", b"http://testserver", b"http://elsewhere"])
    cases = st.tuples(random_sites.sites, urls, users, origins)
    amount(given(cases)(lambda case: hold(*case, cookies)))()
