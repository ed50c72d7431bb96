"""The client: handshakes as a browser makes them, cookies and sessions kept."""

from __future__ import annotations

import asyncio

import pytest
from channels.db import aclose_old_connections
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.test import Client

from channels_wsdeny.testing import Closed, Denied, WebsocketClient, assert_accepted, assert_denied

from .apps import Script, accept, body, close, cookie, echo, start, text


@pytest.fixture
def site(settings):
    settings.ROOT_URLCONF = "tests.testing.site"
    settings.ASGI_APPLICATION = "tests.testing.site.application"


@pytest.fixture
def client(site):
    return WebsocketClient()


@pytest.fixture
def alice(db):
    return get_user_model().objects.create_user("alice", password="secret")


@pytest.fixture
def bob(db):
    return get_user_model().objects.create_user("bob")


# What goes out.


async def scope_of(path="/ws/", client_options=None, **options):
    application = Script(start(403), body())
    await WebsocketClient(application, **(client_options or {})).handshake(path, **options)
    return application.scopes[0]


async def headers_of(path="/ws/", **options):
    return dict((await scope_of(path, **options))["headers"])


async def test_a_handshake_has_the_headers_of_a_browsers():
    assert await headers_of() == {
        b"host": b"testserver",
        b"origin": b"http://testserver",
        b"connection": b"Upgrade",
        b"upgrade": b"websocket",
        b"sec-websocket-version": b"13",
        b"sec-websocket-key": b"dGhlIHNhbXBsZSBub25jZQ==",
    }


async def test_the_scope_is_a_servers():
    scope = await scope_of("/ws/?q=1")
    assert (scope["scheme"], scope["server"], scope["client"]) == (
        "ws",
        ("testserver", 80),
        ("127.0.0.1", 0),
    )
    assert (scope["path"], scope["query_string"]) == ("/ws/", b"q=1")


async def test_a_secure_handshake_is_wss():
    scope = await scope_of(secure=True)
    assert (scope["scheme"], scope["server"]) == ("wss", ("testserver", 443))
    assert dict(scope["headers"])[b"origin"] == b"https://testserver"


async def test_subprotocols_are_in_the_scope_and_the_header():
    scope = await scope_of(subprotocols=["a", "b"])
    assert scope["subprotocols"] == ["a", "b"]
    assert dict(scope["headers"])[b"sec-websocket-protocol"] == b"a, b"


async def test_headers_replace_those_of_a_browser():
    headers = await headers_of(headers={"Origin": "http://evil.example", "X-Key": "bar"})
    assert (headers[b"origin"], headers[b"x-key"]) == (b"http://evil.example", b"bar")


async def test_none_takes_a_header_away():
    assert b"origin" not in await headers_of(headers={"Origin": None})


async def test_the_origin_is_that_of_the_host():
    assert (await headers_of(headers={"host": "example.org"}))[b"origin"] == b"http://example.org"


async def test_headers_of_the_client_go_with_every_handshake():
    client_options = {"headers": {"Accept-Language": "de", "X-Key": "foo"}}
    headers = await headers_of(client_options=client_options, headers={"x-key": "bar"})
    assert (headers[b"accept-language"], headers[b"x-key"]) == (b"de", b"bar")


async def test_headers_of_the_client_go_with_every_request(site):
    client = WebsocketClient(headers={"Accept-Language": "de"})
    assert (await client.get("/language/")).content == b"de"


@pytest.mark.parametrize("path", ["/ws/?a=1", "/ws/"])
async def test_query_params_are_added_to_the_path(path):
    scope = await scope_of(path, query_params={"b": [2, 3], "c": "é"})
    assert scope["query_string"].removeprefix(b"a=1&") == b"b=2&b=3&c=%C3%A9"
    assert scope["path"] == "/ws/"


async def test_anything_else_goes_into_the_scope():
    scope = await scope_of(client=("10.0.0.7", 5000), root_path="/app")
    assert (scope["client"], scope["root_path"]) == (("10.0.0.7", 5000), "/app")


async def test_a_client_may_be_of_a_server_without_the_extension():
    assert (await scope_of(client_options={"extensions": {}}))["extensions"] == {}


# What comes back.


async def test_a_handshake_that_is_denied_returns_the_denial():
    response = await WebsocketClient(Script(start(404), body(b"gone"))).handshake("/ws/")
    assert (response.status_code, response.content) == (404, b"gone")


async def test_a_handshake_that_is_accepted_is_left_at_once():
    application = Script(accept((b"x-a", b"1"), subprotocol="chat"))
    response = await WebsocketClient(application).handshake("/ws/")
    assert (response.status_code, response["X-A"], response.subprotocol) == (101, "1", "chat")
    assert application.received == [{"type": "websocket.disconnect", "code": 1000}]


async def test_a_handshake_notes_the_close_that_followed_the_accept():
    application = Script(accept(), close(code=4401, reason="not_authenticated"))
    response = await WebsocketClient(application).handshake("/ws/")
    assert (response.status_code, response.denial_status, response.code) == (101, 401, "not_authenticated")


async def test_connecting_to_what_denies_raises_the_denial():
    with pytest.raises(Denied) as denied:
        async with WebsocketClient(Script(start(429), body(b"slowly"))).connect("/ws/"):
            pytest.fail("it was denied")
    assert (denied.value.response.status_code, denied.value.response.content) == (429, b"slowly")


async def test_a_socket_speaks():
    async with WebsocketClient(echo).connect("/ws/") as socket:
        await socket.send_text("hello")
        assert await socket.receive_text() == "hello"
        await socket.send_bytes(b"\0")
        assert await socket.receive_bytes() == b"\0"
        await socket.send_json({"a": 1})
        assert await socket.receive_json() == {"a": 1}
        assert await socket.receive_nothing(0.01)


async def test_a_frame_of_the_other_kind_is_refused():
    async with WebsocketClient(echo).connect("/ws/") as socket:
        await socket.send_text("hello")
        with pytest.raises(AssertionError, match="Expected a binary frame, found 'hello'"):
            await socket.receive_bytes()
        await socket.send_bytes(b"hello")
        with pytest.raises(AssertionError, match="Expected a text frame, found b'hello'"):
            await socket.receive_text()


async def test_a_socket_knows_its_accept_and_scope():
    application = Script(accept((b"x-a", b"1"), subprotocol="chat"))
    async with WebsocketClient(application).connect("/ws/") as socket:
        assert (socket.response["x-a"], socket.subprotocol, socket.scope["path"]) == ("1", "chat", "/ws/")
        assert repr(socket) == "<ClientSocket of /ws/, open>"


async def test_the_end_of_the_block_closes_the_socket():
    application = Script(accept())
    async with WebsocketClient(application).connect("/ws/") as socket:
        pass
    assert application.received == [{"type": "websocket.disconnect", "code": 1000}]
    assert (socket.close_code, repr(socket)) == (1000, "<ClientSocket of /ws/, closed with 1000>")


async def test_a_socket_may_be_closed_with_a_code():
    application = Script(accept())
    async with WebsocketClient(application).connect("/ws/") as socket:
        await socket.close(4000)
        await socket.close()
    assert application.received == [{"type": "websocket.disconnect", "code": 4000}]


async def test_a_close_of_the_application_is_raised():
    application = Script(accept(), close(code=4403, reason="revoked"))
    async with WebsocketClient(application).connect("/ws/") as socket:
        for _ in range(2):
            with pytest.raises(Closed, match=r"^The socket of /ws/ is closed: 4403, 'revoked'\.$") as closed:
                await socket.receive()
        with pytest.raises(Closed):
            await socket.send_text("hello")
    assert (closed.value.code, closed.value.reason) == (4403, "revoked")
    assert application.received == [{"type": "websocket.disconnect", "code": 4403}]


async def test_an_application_that_ends_without_a_close_has_dropped_the_socket():
    async def end(scope, receive, send):
        await send(accept())

    async with WebsocketClient(end).connect("/ws/") as socket:
        with pytest.raises(Closed, match="1006, the application ended without a close"):
            await socket.receive()


async def test_iterating_ends_with_the_socket():
    application = Script(accept(), text("a"), text("b"), close(code=4001))
    async with WebsocketClient(application).connect("/ws/") as socket:
        assert [frame async for frame in socket] == ["a", "b"]
    assert socket.close_code == 4001


async def test_a_close_that_nobody_has_received_is_known_in_the_end():
    application = Script(accept(), text("a"), close(code=4001, reason="why"))
    async with WebsocketClient(application).connect("/ws/") as socket:
        pass
    assert (socket.close_code, socket.close_reason) == (4001, "why")


# Tests that fail, applications that hang.


async def test_what_the_application_raises_comes_out_of_the_block():
    async def fail(scope, receive, send):
        await send(accept())
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        async with WebsocketClient(fail).connect("/ws/"):
            pass


async def test_what_the_application_raises_does_not_hide_what_the_test_raised():
    async def fail(scope, receive, send):
        await send(accept())
        await receive()
        await receive()
        raise LookupError("broken")

    with pytest.raises(ZeroDivisionError):
        async with WebsocketClient(fail).connect("/ws/"):
            1 / 0  # noqa: B018


async def test_a_test_that_fails_leaves_no_task_behind():
    before = asyncio.all_tasks()
    with pytest.raises(ZeroDivisionError):
        async with WebsocketClient(echo).connect("/ws/"):
            1 / 0  # noqa: B018
    assert asyncio.all_tasks() == before


async def test_a_failing_tests_application_is_told_that_the_client_has_left():
    application = Script(accept())
    with pytest.raises(ZeroDivisionError):
        async with WebsocketClient(application).connect("/ws/"):
            1 / 0  # noqa: B018
    assert application.received == [{"type": "websocket.disconnect", "code": 1006}]


@pytest.mark.parametrize("messages", [(), (start(403),), (start(403), body(b"a", more=True))])
async def test_a_handshake_without_an_answer_times_out_and_leaves_no_task_behind(messages):
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError, match=r"/ws/: the application sent nothing for 0.01 s"):
        await WebsocketClient(Script(*messages), timeout=0.01).handshake("/ws/")
    assert asyncio.all_tasks() == before


async def test_a_handshake_that_is_cancelled_leaves_no_task_behind():
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await WebsocketClient(Script()).handshake("/ws/")
    assert asyncio.all_tasks() == before


async def test_a_message_that_does_not_come_times_out():
    async with WebsocketClient(echo, timeout=60).connect("/ws/") as socket:
        with pytest.raises(TimeoutError, match=r"/ws/: the application sent nothing for 0.01 s"):
            await socket.receive(timeout=0.01)


# Cookies.


async def cookies_after(*lines, path="/ws/", answer="denial"):
    """The `Cookie` of the handshake after one that set these."""
    headers = [cookie(line) for line in lines]
    messages = [start(403, *headers), body()] if answer == "denial" else [accept(*headers)]
    application = Script(*messages)
    client = WebsocketClient(application)
    await client.handshake("/elsewhere/")
    await client.handshake(path)
    return application.headers.get(b"cookie")


@pytest.mark.parametrize("answer", ["denial", "accept"])
async def test_cookies_of_an_answer_are_kept(answer):
    assert await cookies_after("b=2; Path=/; HttpOnly", "a=1", answer=answer) == b"a=1; b=2"


@pytest.mark.parametrize(
    "attribute",
    [
        "Max-Age=0",
        "Max-Age=-1",
        "Expires=Thu, 01 Jan 1970 00:00:00 GMT",
        "expires=Thu, 01-Jan-1970 00:00:00 GMT",
    ],
)
async def test_cookies_that_have_expired_are_not_sent(attribute):
    assert await cookies_after(f"a=1; {attribute}", "b=2") == b"b=2"


@pytest.mark.parametrize(
    "attribute",
    [
        "Max-Age=60",
        "Expires=Fri, 31 Dec 9999 23:59:59 GMT",
        "Max-Age=soon",
        "Expires=never",
        "Partitioned",
        "",
    ],
)
async def test_other_cookies_are_sent(attribute):
    assert await cookies_after(f"a=1; {attribute}") == b"a=1"


async def test_a_max_age_counts_before_an_expiry():
    assert await cookies_after("a=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT") == b"a=1"


@pytest.mark.parametrize("prefix", ["/", "/ws", "/ws/", "/ws/chat"])
async def test_cookies_of_the_path_are_sent(prefix):
    assert await cookies_after(f"a=1; Path={prefix}", path="/ws/chat") == b"a=1"


@pytest.mark.parametrize("prefix", ["/admin/", "/w", "/ws/chat/room"])
async def test_cookies_of_other_paths_are_not_sent(prefix):
    assert await cookies_after(f"a=1; Path={prefix}", path="/ws/chat") is None


async def test_cookies_are_sent_as_they_came():
    assert await cookies_after('a="x, y"') == b'a="x, y"'


async def test_a_cookie_that_is_set_again_is_replaced():
    assert await cookies_after("a=1", "a=2") == b"a=2"


async def test_cookies_of_two_clients_are_their_own():
    application = Script(start(403, cookie("a=1")), body())
    await WebsocketClient(application).handshake("/ws/")
    await WebsocketClient(application).handshake("/ws/")
    assert b"cookie" not in application.headers


# Accounts and sessions, on a real site.


@pytest.mark.parametrize("path", ["/ws/members/", "/ws/sync/"])
async def test_a_user_is_let_in(client, alice, path):
    await client.aforce_login(alice)
    async with client.connect(path) as socket:
        await socket.send_json("friends")
        assert await socket.receive_json() == ["alice", 1]


async def test_a_password_lets_in(client, alice):
    assert await client.alogin(username="alice", password="secret")
    assert_accepted(await client.handshake("/ws/members/"))


async def test_a_wrong_password_does_not(client, alice):
    assert not await client.alogin(username="alice", password="wrong")
    assert_denied(await client.handshake("/ws/members/"), 401)


async def test_a_user_who_has_logged_out_is_nobody(client, alice):
    await client.aforce_login(alice)
    await client.alogout()
    assert_denied(await client.handshake("/ws/members/"), 401)


async def test_a_user_without_the_permission_is_forbidden(client, alice):
    await client.aforce_login(alice)
    assert_denied(await client.handshake("/ws/founders/"), 403, code="permission_denied")


async def test_a_second_login_is_another_session(client, alice, bob):
    await client.aforce_login(alice)
    first = client.cookies["sessionid"].value
    await client.aforce_login(bob)
    assert client.cookies["sessionid"].value != first
    async with client.connect("/ws/members/") as socket:
        await socket.send_json("friends")
        assert (await socket.receive_json())[0] == "bob"


async def test_a_login_by_a_view_counts_for_sockets(client, alice):
    await client.get("/login/alice/")
    assert_accepted(await client.handshake("/ws/members/"))


async def test_a_logout_by_a_view_counts_for_sockets(client, alice):
    await client.aforce_login(alice)
    await client.get("/logout/")
    assert_denied(await client.handshake("/ws/members/"), 401)


async def test_a_login_counts_for_views(client, alice):
    await client.aforce_login(alice)
    assert (await client.get("/whoami/")).content == b"alice"


async def test_a_session_that_a_socket_changed_is_kept(client, db):
    for visits in (1, 2, 3):
        async with client.connect("/ws/visits/") as socket:
            assert await socket.receive_json() == visits


async def test_a_session_of_a_socket_is_that_of_the_client(client, db, settings):
    await client.handshake("/ws/visits/")
    assert settings.SESSION_COOKIE_NAME in client.cookies
    session = await client.asession()
    assert session.session_key == client.cookies[settings.SESSION_COOKIE_NAME].value


async def test_clients_do_not_share_sessions(client, alice, site):
    await client.aforce_login(alice)
    assert_denied(await WebsocketClient().handshake("/ws/members/"), 401)


def test_a_synchronous_login_counts_for_sockets(client, alice, async_run):
    client.force_login(alice)
    assert_accepted(async_run(client.handshake("/ws/members/")))


def test_the_cookies_of_djangos_own_client_may_be_used(client, alice, async_run):
    djangos = Client()
    djangos.force_login(alice)
    client.cookies = djangos.cookies
    assert_accepted(async_run(client.handshake("/ws/members/")))


@pytest.fixture
def async_run():
    """Runs a coroutine as a synchronous test may."""
    from asgiref.sync import async_to_sync

    async def run(coroutine):
        return await coroutine

    return async_to_sync(run)


@pytest.fixture
async def tidy():
    """Asynchronous queries of the tests run on a thread that nobody else tidies up."""
    yield
    await aclose_old_connections()


@pytest.mark.django_db(transaction=True)
async def test_what_is_committed_is_seen(client, alice, tidy):
    await client.aforce_login(alice)
    async with client.connect("/ws/members/") as socket:
        await socket.send_json("friends")
        assert await socket.receive_json() == ["alice", 1]
    assert await Group.objects.acount() == 1
    assert (await client.get("/whoami/")).content == b"alice"
