"""Every snippet of docs/browsers.md does what the page says."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser
from django.test import RequestFactory

from tests.clients import knock
from tests.docs.pages import run

page = run("browsers.md")
pytestmark = pytest.mark.django_db


def asked(view, accept, user=None):
    request = RequestFactory().get("/chat/access/", headers={"Accept": accept})
    request.user = user or AnonymousUser()
    return view(request)


def test_a_visitor_is_sent_to_log_in_by_the_page():
    assert asked(page.chat, "text/html").status_code == 302


def test_a_script_is_told_the_reason():
    response = asked(page.access, "application/problem+json")
    assert response.status_code == 401
    assert b'"detail": "You need to log in first."' in response.content


def test_a_script_that_forgets_its_accept_header_may_be_sent_elsewhere():
    assert asked(page.access, "text/html,*/*;q=0.8").status_code == 302


def test_a_user_is_told_that_nothing_is_wrong(users):
    assert asked(page.access, "application/problem+json", users["alice"]).content == b'{"access": true}'


async def test_a_script_sees_the_close_of_a_denial():
    answer = await knock(page.application, "/")
    assert answer.status == 101
    assert answer.messages[0]["type"] == "websocket.accept"
    from tests.clients import Handshake, websocket_scope

    handshake = Handshake(page.application, websocket_scope("/"))
    await handshake.connect()
    closed = await handshake.next()
    assert (closed["code"], closed["reason"]) == (4401, "not_authenticated")
    await handshake.end()


async def test_the_first_subprotocol_is_chosen():
    answer = await knock(page.application, "/", subprotocols=["chat.v2", "chat.v1"])
    assert answer.messages[0]["subprotocol"] == "chat.v2"


async def test_who_may_pass_is_not_closed(headers_of):
    from tests.clients import Handshake, websocket_scope

    handshake = Handshake(page.application, websocket_scope("/", headers=headers_of("alice")))
    assert (await handshake.connect()).status == 101
    assert await handshake.communicator.receive_nothing()
    await handshake.leave()
