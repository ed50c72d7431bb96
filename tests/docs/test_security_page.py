"""The guarantees and limits of docs/security.md; the rest of the suite goes further into each."""

from __future__ import annotations

import pytest
from channels.security.websocket import AllowedHostsOriginValidator

from channels_wsdeny import DenyMiddlewareStack
from testproject.chat.consumers import ChatConsumer
from tests.clients import Handshake, knock, websocket_scope
from tests.docs.pages import run

page = run("security.md")
pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("name", "stranger", "alice"),
    [
        ("undecorated", 401, 101),
        ("forgotten", 500, 500),
        ("failing", 500, 500),
        ("without_stack", 401, 403),
    ],
)
async def test_the_applications_answer_as_their_comments_say(name, stranger, alice, headers_of):
    assert (await knock(getattr(page, name), "/")).status == stranger
    assert (await knock(getattr(page, name), "/", headers=headers_of("alice"))).status == alice


async def test_nothing_leaks(caplog):
    answer = await knock(page.failing, "/?token=swordfish")
    assert b"swordfish" not in answer.body
    assert b"Broken" not in answer.body
    (record,) = [record for record in caplog.records if record.name == "channels_wsdeny"]
    assert "token" not in record.getMessage()
    assert answer.header("cache-control") == "no-store"


@pytest.mark.django_db(transaction=True)
async def test_a_session_that_does_not_verify_counts_as_none(headers_of, sessions, users):
    users["alice"].set_password("another")
    await users["alice"].asave()
    answer = await knock(page.undecorated, "/", headers=headers_of("alice"))
    assert (answer.status, answer.header("set-cookie")) == (401, None)
    assert await type(sessions["alice"])(sessions["alice"].session_key).aget("_auth_user_id") is not None


FOREIGN = (b"origin", b"https://elsewhere.example")


async def test_the_package_does_not_compare_origins(headers_of):
    assert (await knock(page.undecorated, "/", headers=[*headers_of("alice"), FOREIGN])).status == 101


@pytest.mark.parametrize(
    ("origin", "status"), [(b"http://testserver", 101), (FOREIGN[1], 403), (b"http://[bad", 403)]
)
async def test_the_validator_of_channels_does_so_within_the_stack(origin, status, headers_of):
    application = DenyMiddlewareStack(AllowedHostsOriginValidator(page.Undecorated.as_asgi()))
    assert (
        await knock(application, "/", headers=[*headers_of("alice"), (b"origin", origin)])
    ).status == status


@pytest.mark.django_db(transaction=True)
async def test_an_open_socket_outlives_a_log_out(headers_of, sessions):
    handshake = Handshake(page.undecorated, websocket_scope("/", headers=headers_of("alice")))
    assert (await handshake.connect()).status == 101
    await sessions["alice"].aflush()
    assert await handshake.communicator.receive_nothing()
    await handshake.leave()


async def test_a_user_in_the_scope_is_believed(users):
    assert (await knock(page.without_stack, "/", user=users["staff"])).status == 101


def test_the_method_that_asks_again_exists():
    assert callable(ChatConsumer.save)
