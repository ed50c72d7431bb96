"""`WebsocketCommunicator`: Channels' API, and denials."""

import asyncio
import traceback

import pytest

from channels_wsdeny.testing import WebsocketCommunicator
from tests.support.scripted import Script, accept, body, close, echo, start, text

JSON = (b"content-type", b"application/problem+json")


def communicator(*messages, **options):
    return WebsocketCommunicator(Script(*messages), "/ws/", **options)


@pytest.mark.parametrize(
    ("messages", "result", "status"),
    [
        ([accept()], (True, None), 101),
        ([accept(subprotocol="chat")], (True, "chat"), 101),
        ([start(401), body()], (False, 401), 401),
        ([start(404), {"type": "websocket.http.response.body"}], (False, 404), 404),
        ([close(code=4401, reason="not_authenticated")], (False, 4401), 403),
        ([close()], (False, 1000), 403),
    ],
)
async def test_connect_returns_what_the_application_decided(messages, result, status):
    socket = communicator(*messages)
    assert (socket.response, socket.denial) == (None, None)
    assert await socket.connect() == result
    assert socket.response.status_code == status
    assert socket.denial is (None if result[0] else socket.response)
    if messages[0].get("reason"):
        assert (socket.denial.close_code, socket.denial.code) == (4401, "not_authenticated")
    await socket.disconnect()


async def test_a_denial_has_headers_and_the_whole_body():
    chunks = [body(bytes([number]) * 1000, more=True) for number in range(200)]
    socket = communicator(start(403, JSON, (b"x-a", b"1")), *chunks, body())
    await socket.connect()
    assert (socket.denial["X-A"], socket.denial["Content-Type"]) == ("1", "application/problem+json")
    assert socket.denial.content == b"".join(bytes([number]) * 1000 for number in range(200))


async def test_an_accept_has_headers_and_cookies():
    headers = [(b"x-a", b"1"), (b"set-cookie", b"a=b; Path=/")]
    socket = communicator(accept(*headers))
    await socket.connect()
    assert (socket.response["x-a"], socket.response.cookies["a"].value) == ("1", "b")
    assert socket.response_headers == headers
    await socket.disconnect()


async def test_a_denied_application_receives_a_disconnect():
    application = Script(start(403), body())
    await WebsocketCommunicator(application, "/ws/").connect()
    assert application.received == [{"type": "websocket.disconnect", "code": 1006}]


async def test_the_scope_is_that_of_a_server_and_may_be_changed():
    application = Script(accept())
    socket = WebsocketCommunicator(application, "/café/?q=é", [(b"a", b"b")], ["x", "y"], "2.4")
    socket.scope["user"] = "alice"
    await socket.connect()
    await socket.disconnect()
    (scope,) = application.scopes
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/café/",
        "raw_path": b"/caf%C3%A9/",
        "query_string": b"q=%C3%A9",
        "headers": [(b"a", b"b")],
        "subprotocols": ["x", "y"],
        "client": ("127.0.0.1", 0),
        "server": ("testserver", 80),
        "extensions": {"websocket.http.response": {}},
        "spec_version": "2.4",
        "user": "alice",
    }
    assert WebsocketCommunicator(echo, "/", extensions={}).scope["extensions"] == {}


async def test_text_bytes_and_json_are_sent_and_received():
    socket = WebsocketCommunicator(echo, "/ws/")
    await socket.connect()
    await socket.send_to(text_data="")
    assert await socket.receive_from() == ""
    await socket.send_to(bytes_data=b"\0")
    assert await socket.receive_from() == b"\0"
    await socket.send_json_to({"a": [1]})
    assert await socket.receive_json_from() == {"a": [1]}
    assert await socket.receive_nothing(0.01)
    for data in ({}, {"text_data": "a", "bytes_data": b"a"}):
        with pytest.raises(TypeError, match="either text"):
            await socket.send_to(**data)
    await socket.disconnect()


async def test_a_close_is_no_frame():
    socket = communicator(accept(), close(code=4001))
    await socket.connect()
    with pytest.raises(AssertionError, match=r"Expected a frame .* found .*4001"):
        await socket.receive_from()
    await socket.disconnect()


async def test_a_frame_is_no_response_to_a_handshake():
    with pytest.raises(AssertionError, match=r"/ws/: expected a response to the handshake, found .*send"):
        await communicator(text("hello")).connect()


def failing(*messages):
    """An application that sends these messages, and raises."""

    async def application(scope, receive, send):
        for message in messages:
            await send(message)
        raise LookupError("broken")

    return application


@pytest.mark.parametrize("messages", [(), (start(403), body())])
async def test_connect_raises_at_once_what_the_application_raises(messages):
    with pytest.raises(LookupError, match="broken"):
        await WebsocketCommunicator(failing(*messages), "/ws/").connect(timeout=60)


@pytest.mark.parametrize("method", ["receive_from", "receive_nothing", "send_json_to", "disconnect", "wait"])
async def test_every_method_raises_what_the_application_has_raised(method):
    socket = WebsocketCommunicator(failing(accept(), text("hello")), "/ws/")
    await socket.connect()
    assert await socket.receive_from() == "hello"
    arguments = ["hello"] if method.startswith("send") else []
    with pytest.raises(LookupError, match="broken"):
        await getattr(socket, method)(*arguments)


async def test_an_application_that_has_ended_is_not_waited_for():
    async def end(scope, receive, send):
        pass

    with pytest.raises(TimeoutError, match="/ws/: the application has ended"):
        await WebsocketCommunicator(end, "/ws/").connect(timeout=60)


@pytest.mark.parametrize(
    ("messages", "error"),
    [((), r"/ws/: the application sent nothing for 0\.3 s"), ((start(403), body()), r"had not ended after")],
)
async def test_an_application_that_hangs_is_cancelled_and_shows_where_it_was(messages, error):
    async def hang(scope, receive, send):
        for message in messages:
            await send(message)
        await asyncio.sleep(60)

    socket = WebsocketCommunicator(hang, "/ws/")
    with pytest.raises(TimeoutError, match=error) as timeout:
        await socket.connect(timeout=0.3)
    assert socket.future.cancelled()
    assert "in hang" in "".join(traceback.format_exception(timeout.value.__cause__))
