"""The communicator: Channels' API, and denials."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from channels_wsdeny.testing import WebsocketCommunicator

from .apps import Script, accept, body, close, echo, start, text

JSON = (b"content-type", b"application/problem+json")


def communicator(*messages, **options):
    return WebsocketCommunicator(Script(*messages), "/ws/", **options)


async def test_an_accept_is_true_and_the_subprotocol():
    socket = communicator(accept(subprotocol="chat"))
    assert await socket.connect() == (True, "chat")
    await socket.disconnect()


async def test_a_denial_is_false_and_the_status():
    assert await communicator(start(401), body()).connect() == (False, 401)


async def test_a_close_is_false_and_its_code():
    assert await communicator(close(code=4401)).connect() == (False, 4401)


async def test_a_close_without_a_code_is_a_1000():
    assert await communicator(close()).connect() == (False, 1000)


async def test_a_denial_is_there_as_a_response():
    socket = communicator(start(403, JSON, (b"x-a", b"1")), body(b'{"code": "no"}'))
    await socket.connect()
    denial = socket.denial
    assert denial is socket.response
    assert (denial.status_code, denial.headers["X-A"], denial.json()) == (403, "1", {"code": "no"})


async def test_a_denial_in_many_chunks_is_one_body():
    chunks = [body(bytes([number]) * 1000, more=True) for number in range(200)]
    socket = communicator(start(403), *chunks, body())
    await socket.connect()
    assert socket.denial.content == b"".join(bytes([number]) * 1000 for number in range(200))


async def test_a_body_message_may_leave_everything_out():
    socket = communicator(start(404), {"type": "websocket.http.response.body"})
    assert await socket.connect() == (False, 404)
    assert socket.denial.content == b""


async def test_the_accept_is_there_as_a_response():
    socket = communicator(accept((b"x-a", b"1"), (b"set-cookie", b"a=b; Path=/")))
    await socket.connect()
    assert socket.denial is None
    assert (socket.response.status_code, socket.response.headers["x-a"]) == (101, "1")
    assert socket.response.cookies["a"].value == "b"
    assert socket.response_headers == [(b"x-a", b"1"), (b"set-cookie", b"a=b; Path=/")]
    await socket.disconnect()


async def test_there_is_no_response_before_the_handshake():
    socket = communicator(accept())
    assert (socket.response, socket.denial) == (None, None)


async def test_a_close_before_the_accept_is_the_403_that_servers_make_of_it():
    socket = communicator(close(code=4401, reason="not_authenticated"), extensions={})
    await socket.connect()
    denial = socket.denial
    assert (denial.status_code, denial.content) == (403, b"")
    assert (denial.close_code, denial.close_reason, denial.code) == (
        4401,
        "not_authenticated",
        "not_authenticated",
    )


async def test_a_denied_application_is_told_that_the_client_has_left():
    application = Script(start(403), body())
    await WebsocketCommunicator(application, "/ws/").connect()
    assert application.received == [{"type": "websocket.disconnect", "code": 1006}]


async def test_the_scope_is_a_servers():
    application = Script(accept())
    socket = WebsocketCommunicator(application, "/caf%C3%A9/?q=%C3%A9", [(b"a", b"b")], ["x", "y"])
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
    }


def test_a_path_beyond_ascii_is_quoted():
    scope = WebsocketCommunicator(echo, "/café/?q=é").scope
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (
        "/café/",
        b"/caf%C3%A9/",
        b"q=%C3%A9",
    )


async def test_the_scope_may_be_changed_before_the_handshake():
    application = Script(accept())
    socket = WebsocketCommunicator(application, "/ws/")
    socket.scope["user"] = "alice"
    await socket.connect()
    await socket.disconnect()
    assert application.scopes[0]["user"] == "alice"


def test_the_version_of_the_protocol_is_in_the_scope():
    assert WebsocketCommunicator(echo, "/", spec_version="2.4").scope["spec_version"] == "2.4"


def test_a_server_without_the_extension_offers_none():
    assert WebsocketCommunicator(echo, "/", extensions={}).scope["extensions"] == {}


def test_the_application_is_the_sites_by_default(settings):
    settings.ASGI_APPLICATION = "tests.testing.apps.echo"
    assert WebsocketCommunicator(None, "/").application is echo


@pytest.mark.parametrize("path", [None, b"/ws/"])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(TypeError, match=r"needs a path such as '/ws/chat/', found"):
        WebsocketCommunicator(echo, path)


def test_an_application_that_is_none_is_refused():
    with pytest.raises(TypeError, match="needs an ASGI application, found '/ws/'"):
        WebsocketCommunicator("/ws/", "/ws/")


async def test_text_bytes_and_json_go_both_ways():
    socket = WebsocketCommunicator(echo, "/ws/")
    await socket.connect()
    await socket.send_to(text_data="")
    assert await socket.receive_from() == ""
    await socket.send_to(bytes_data=b"\0")
    assert await socket.receive_from() == b"\0"
    await socket.send_json_to({"a": [1]})
    assert await socket.receive_json_from() == {"a": [1]}
    assert await socket.receive_nothing(0.01)
    await socket.disconnect()


@pytest.mark.parametrize("data", [{}, {"text_data": "a", "bytes_data": b"a"}, {"text_data": b"a"}])
async def test_what_is_no_frame_is_not_sent(data):
    socket = WebsocketCommunicator(echo, "/ws/")
    await socket.connect()
    with pytest.raises(TypeError, match="either text"):
        await socket.send_to(**data)
    await socket.disconnect()


async def test_json_comes_in_a_text_frame():
    socket = WebsocketCommunicator(echo, "/ws/")
    await socket.connect()
    await socket.send_to(bytes_data=b"{}")
    with pytest.raises(AssertionError, match=r"Expected JSON in a text frame, found b'\{\}'"):
        await socket.receive_json_from()
    await socket.disconnect()


async def test_a_close_is_no_frame():
    socket = communicator(accept(), close(code=4001))
    await socket.connect()
    with pytest.raises(AssertionError, match=r"Expected a frame .* found .*4001"):
        await socket.receive_from()
    await socket.disconnect()


async def test_a_frame_of_both_kinds_is_refused():
    socket = communicator(accept(), {"type": "websocket.send", "text": "a", "bytes": b"a"})
    await socket.connect()
    with pytest.raises(AssertionError, match="either text or bytes"):
        await socket.receive_from()
    await socket.disconnect()


async def test_what_is_no_answer_to_a_handshake_is_refused():
    with pytest.raises(AssertionError, match=r"/ws/: expected an answer to the handshake, found .*send"):
        await communicator(text("hello")).connect()


async def test_a_denial_without_its_body_is_refused():
    with pytest.raises(AssertionError, match=r"expected more of a denial's body, found .*accept"):
        await communicator(start(403), body(b"a", more=True), accept()).connect()


# Applications that raise, end or hang.


async def test_what_the_application_raises_comes_out_at_once():
    async def fail(scope, receive, send):
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        await WebsocketCommunicator(fail, "/ws/").connect(timeout=60)


async def test_what_the_application_raises_after_a_denial_comes_out():
    async def deny_and_fail(scope, receive, send):
        await send(start(403))
        await send(body())
        raise LookupError("broken")

    socket = WebsocketCommunicator(deny_and_fail, "/ws/")
    with pytest.raises(LookupError, match="broken"):
        await socket.connect()
    assert socket.denial.status_code == 403


async def test_what_the_application_raises_as_the_client_leaves_comes_out():
    async def fail_at_the_end(scope, receive, send):
        await send(accept())
        await receive()
        await receive()
        raise LookupError("broken")

    socket = WebsocketCommunicator(fail_at_the_end, "/ws/")
    await socket.connect()
    with pytest.raises(LookupError, match="broken"):
        await socket.disconnect()


async def test_messages_come_before_the_exception_that_followed_them():
    async def accept_and_fail(scope, receive, send):
        await send(accept())
        await send(text("hello"))
        raise LookupError("broken")

    socket = WebsocketCommunicator(accept_and_fail, "/ws/")
    await socket.connect()
    assert await socket.receive_from() == "hello"
    with pytest.raises(LookupError, match="broken"):
        await socket.receive_from()


async def test_sending_raises_what_the_application_raised():
    async def fail(scope, receive, send):
        raise LookupError("broken")

    socket = WebsocketCommunicator(fail, "/ws/")
    await asyncio.wait({socket.future})
    with pytest.raises(LookupError, match="broken"):
        await socket.send_to(text_data="hello")


async def test_an_application_that_ended_is_not_waited_for():
    async def end(scope, receive, send):
        pass

    with pytest.raises(TimeoutError, match="/ws/: the application has ended"):
        await WebsocketCommunicator(end, "/ws/").connect(timeout=60)


async def test_an_application_that_hangs_times_out_with_its_place():
    async def hang(scope, receive, send):
        await asyncio.sleep(60)

    socket = WebsocketCommunicator(hang, "/ws/")
    with pytest.raises(TimeoutError, match=r"/ws/: .* nothing for 0.5 s\. It was in .*hang, .*py:\d+\.$"):
        await socket.connect(timeout=0.5)
    assert socket.future.cancelled()


async def test_an_application_that_stays_after_a_denial_times_out():
    async def stay(scope, receive, send):
        await send(start(403))
        await send(body())
        await asyncio.sleep(60)

    socket = WebsocketCommunicator(stay, "/ws/")
    with pytest.raises(TimeoutError, match=r"had not ended after 0\.5 s"):
        await socket.connect(timeout=0.5)
    assert socket.denial.status_code == 403


async def test_an_application_that_fails_as_it_is_cancelled_is_the_cause():
    async def fail(scope, receive, send):
        try:
            await asyncio.sleep(60)
        finally:
            raise LookupError("broken")

    with pytest.raises(TimeoutError) as error:
        await WebsocketCommunicator(fail, "/ws/").connect(timeout=0.5)
    assert isinstance(error.value.__cause__, LookupError)


async def test_an_application_that_takes_no_notice_of_its_cancellation_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("channels_wsdeny.testing.apprunner.UNWINDING", 0.01)
    stop = asyncio.Event()

    async def stubborn(scope, receive, send):
        while not stop.is_set():
            try:
                await stop.wait()
            except asyncio.CancelledError:
                pass

    socket = WebsocketCommunicator(stubborn, "/ws/")
    with pytest.raises(TimeoutError, match=r"It took no notice of its cancellation\.$"):
        await socket.connect(timeout=0.5)
    stop.set()
    await socket.wait()


async def test_nothing_received_does_not_hide_what_the_application_raised():
    async def accept_and_fail(scope, receive, send):
        await send(accept())
        raise LookupError("broken")

    socket = WebsocketCommunicator(accept_and_fail, "/ws/")
    await socket.connect()
    with pytest.raises(LookupError, match="broken"):
        await socket.receive_nothing()


async def test_the_tests_contextvars_stay_in_the_test():
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")
    seen = []

    async def look(scope, receive, send):
        seen.append(variable.get())
        await send(close())

    await WebsocketCommunicator(look, "/ws/").connect()
    assert seen == ["unset"]


async def test_a_communicator_that_is_forgotten_leaves_no_task():
    socket = communicator(accept())
    await socket.connect()
    task = socket.future
    del socket
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
