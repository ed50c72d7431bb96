"""`WebsocketClient`: handshakes as a browser makes them, with the cookies and session of its requests."""

import asyncio

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.test import Client

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import public
from channels_wsdeny.testing import Closed, Denied, WebsocketClient, assert_accepted, assert_denied
from tests.support.scripted import Script, accept, body, close, echo, start, text
from tests.support.sockets import consumer


@pytest.fixture
def client(settings):
    settings.ROOT_URLCONF = "tests.support.account_site"
    settings.ASGI_APPLICATION = "tests.support.account_asgi.application"
    return WebsocketClient()


@pytest.fixture
def alice(db):
    return get_user_model().objects.create_user("alice", password="secret")


async def scope_of(path="/ws/", client_options=None, **options):
    application = Script(start(403), body())
    await WebsocketClient(application, **(client_options or {})).handshake(path, **options)
    return application.scopes[0]


async def headers_of(**options):
    return dict((await scope_of(**options))["headers"])


async def test_a_handshake_is_that_of_a_browser():
    scope = await scope_of("/ws/?q=1")
    assert dict(scope["headers"]) == {
        b"host": b"testserver",
        b"origin": b"http://testserver",
        b"connection": b"Upgrade",
        b"upgrade": b"websocket",
        b"sec-websocket-version": b"13",
        b"sec-websocket-key": b"dGhlIHNhbXBsZSBub25jZQ==",
    }
    assert (scope["scheme"], scope["server"]) == ("ws", ("testserver", 80))
    assert (scope["path"], scope["query_string"]) == ("/ws/", b"q=1")


SECURE = {"scheme": "wss", "server": ("testserver", 443)}
PLACE = {"client": ("10.0.0.7", 5000), "root_path": "/app"}
#: The options of a handshake, and what is in its scope and in its headers then.
SCOPES = {
    "secure": ({"secure": True}, SECURE, {b"origin": b"https://testserver"}),
    "subprotocols": ({"subprotocols": ["a", "b"]}, {"subprotocols": ["a", "b"]}, {b"sec-websocket-protocol": b"a, b"}),
    "others": ({"client_options": {"extensions": {}}, **PLACE}, {**PLACE, "extensions": {}}, {}),
}


@pytest.mark.parametrize(("options", "in_scope", "in_headers"), SCOPES.values(), ids=SCOPES)
async def test_the_options_of_a_handshake_are_in_its_scope_and_headers(options, in_scope, in_headers):
    scope = await scope_of(**options)
    assert {**scope, **in_scope} == scope
    assert {**dict(scope["headers"]), **in_headers} == dict(scope["headers"])


async def test_headers_replace_or_remove_those_of_a_browser_and_of_the_client():
    options = {"headers": {"Accept-Language": "de", "X-Key": "foo"}}
    headers = await headers_of(client_options=options, headers={"host": "example.org", "x-key": "bar"})
    assert headers[b"origin"] == b"http://example.org"
    assert (headers[b"accept-language"], headers[b"x-key"]) == (b"de", b"bar")
    assert b"origin" not in await headers_of(headers={"Origin": None})


@pytest.mark.parametrize("path", ["/ws/?a=1", "/ws/"])
async def test_query_params_are_added_to_the_path(path):
    scope = await scope_of(path, query_params={"b": [2, 3], "c": "é"})
    assert scope["query_string"].removeprefix(b"a=1&") == b"b=2&b=3&c=%C3%A9"
    assert scope["path"] == "/ws/"


async def test_headers_of_the_client_are_sent_with_requests(client):
    client = WebsocketClient(headers={"Accept-Language": "de"})
    assert (await client.get("/whoami/")).content == b" de"


async def test_a_handshake_that_is_accepted_returns_the_accept_and_closes_the_socket():
    application = Script(accept((b"x-a", b"1"), subprotocol="chat"))
    response = await WebsocketClient(application).handshake("/ws/")
    assert (response.status_code, response["X-A"], response.subprotocol) == (101, "1", "chat")
    assert application.received == [{"type": "websocket.disconnect", "code": 1000}]


async def test_connect_raises_a_denial_and_handshake_returns_it():
    with pytest.raises(Denied) as denied:
        async with WebsocketClient(Script(start(429), body(b"slowly"))).connect("/ws/"):
            pytest.fail("it was denied")
    response = await WebsocketClient(Script(start(429), body(b"slowly"))).handshake("/ws/")
    for each in (denied.value.response, response):
        assert (each.status_code, each.content) == (429, b"slowly")


async def test_a_socket_sends_and_receives_text_bytes_and_json():
    async with WebsocketClient(echo).connect("/ws/") as socket:
        await socket.send_text("hello")
        assert await socket.receive_text() == "hello"
        await socket.send_bytes(b"\0")
        assert await socket.receive_bytes() == b"\0"
        await socket.send_json({"a": 1})
        assert await socket.receive_json() == {"a": 1}
        assert await socket.receive_nothing(0.01)
        await socket.send_text("hello")
        with pytest.raises(AssertionError, match="Expected a frame of type bytes, found 'hello'"):
            await socket.receive_bytes()


@pytest.mark.parametrize("code", [None, 4000])
async def test_the_end_of_the_block_closes_the_socket_unless_the_test_has(code):
    application = Script(accept())
    async with WebsocketClient(application).connect("/ws/") as socket:
        assert (socket.close_code, socket.close_reason) == (None, "")
        if code is not None:
            await socket.close(code)
    assert application.received == [{"type": "websocket.disconnect", "code": code or 1000}]
    assert socket.close_code == (code or 1000)


async def test_a_close_by_the_application_is_raised():
    application = Script(accept(), text("a"), close(code=4403, reason="revoked"))
    async with WebsocketClient(application).connect("/ws/") as socket:
        assert [frame async for frame in socket] == ["a"]
        with pytest.raises(Closed) as closed:
            await socket.receive()
        with pytest.raises(Closed):
            await socket.send_text("hello")
    assert (closed.value.code, closed.value.reason, socket.close_code) == (4403, "revoked", 4403)
    assert application.received == [{"type": "websocket.disconnect", "code": 4403}]


async def test_an_application_that_ends_without_a_close_is_closed_with_1006():
    async def end(scope, receive, send):
        await send(accept())

    async with WebsocketClient(end).connect("/ws/") as socket:
        with pytest.raises(Closed, match="1006, the application ended without a close"):
            await socket.receive()


async def test_a_close_that_was_not_received_is_known_after_the_block():
    application = Script(accept(), text("a"), close(code=4001, reason="why"))
    async with WebsocketClient(application).connect("/ws/") as socket:
        pass
    assert (socket.close_code, socket.close_reason) == (4001, "why")


async def fail_at_the_end(scope, receive, send):
    await send(accept())
    await receive()
    try:
        await receive()
    finally:
        raise LookupError("broken")


async def test_what_the_application_raises_is_raised_by_the_block_and_does_not_hide_what_the_test_raises():
    before = asyncio.all_tasks()
    with pytest.raises(LookupError, match="broken"):
        async with WebsocketClient(fail_at_the_end).connect("/ws/"):
            pass
    with pytest.raises(ZeroDivisionError):
        async with WebsocketClient(fail_at_the_end).connect("/ws/"):
            1 / 0  # noqa: B018
    assert asyncio.all_tasks() == before


@pytest.mark.django_db  # Channels looks after the connections of a consumer that has ended.
async def test_what_a_consumer_raises_before_its_accept_is_a_500_and_what_it_raises_later_is_raised():
    async def fail(self, text_data=None, bytes_data=None):
        raise LookupError("broken")

    before, after = (consumer(**{name: fail}) for name in ("connect", "receive"))
    denied = await WebsocketClient(DenyMiddlewareStack(public(before).as_asgi())).handshake("/ws/")
    assert_denied(denied, 500, code="server_error")
    with pytest.raises(LookupError, match="broken"):
        await _say_hello(WebsocketClient(DenyMiddlewareStack(public(after).as_asgi())))


async def _say_hello(client):
    async with client.connect("/ws/") as socket:
        await socket.send_text("hello")
        await socket.receive_text()


@pytest.mark.parametrize("messages", [(), (start(403),), (start(403), body(b"a", more=True))])
async def test_a_handshake_without_a_response_times_out_and_leaves_no_task(messages):
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError, match=r"/ws/: the application sent nothing for 0.01 s"):
        await WebsocketClient(Script(*messages), timeout=0.01).handshake("/ws/")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await WebsocketClient(Script(*messages)).handshake("/ws/")
    assert asyncio.all_tasks() == before


async def test_a_message_that_does_not_come_times_out():
    async with WebsocketClient(echo, timeout=60).connect("/ws/") as socket:
        with pytest.raises(TimeoutError, match=r"/ws/: the application sent nothing for 0.01 s"):
            await socket.receive(timeout=0.01)


@pytest.mark.parametrize("answer", [start(403), accept()])
async def test_cookies_of_a_response_are_sent_with_the_next_handshake(answer):
    cookies = [(b"set-cookie", b'b="x, y"; Path=/; HttpOnly'), (b"set-cookie", b"a=1")]
    application = Script({**answer, "headers": cookies}, body())
    client = WebsocketClient(application)
    for _ in range(2):
        await client.handshake("/ws/")
    await WebsocketClient(application).handshake("/ws/")
    sent = [dict(scope["headers"]).get(b"cookie") for scope in application.scopes]
    assert sent == [None, b'a=1; b="x, y"', None]


async def test_users_log_in_and_out_for_sockets_and_views_alike(client, alice):
    assert not await client.alogin(username="alice", password="wrong")
    assert_denied(await client.handshake("/ws/members/"), 401)
    assert await client.alogin(username="alice", password="secret")
    assert_accepted(await client.handshake("/ws/members/"))
    assert_denied(await client.handshake("/ws/founders/"), 403, code="permission_denied")
    assert_denied(await WebsocketClient().handshake("/ws/members/"), 401)
    await client.alogout()
    assert_denied(await client.handshake("/ws/members/"), 401)
    await client.get("/login/alice/")
    assert_accepted(await client.handshake("/ws/members/"))
    await client.get("/logout/")
    assert_denied(await client.handshake("/ws/members/"), 401)
    await client.aforce_login(alice)
    assert (await client.get("/whoami/")).content == b"alice "


async def test_a_session_that_a_socket_changes_is_that_of_the_client(client, db, settings):
    for visits in (1, 2, 3):
        async with client.connect("/ws/visits/") as socket:
            assert await socket.receive_json() == visits
    session = await client.asession()
    assert session.session_key == client.cookies[settings.SESSION_COOKIE_NAME].value


def test_a_synchronous_test_may_use_the_cookies_of_djangos_own_client(client, alice):
    djangos = Client()
    djangos.force_login(alice)
    client.cookies = djangos.cookies
    assert_accepted(async_to_sync(client.handshake)("/ws/members/"))
