"""The three sockets, through the application that servers run."""

import json

import pytest
from channels.db import aclose_old_connections
from channels.testing import WebsocketCommunicator

from testproject.asgi import application
from testproject.chat.models import Message

ROOM, MONITOR, STATUS = "/ws/rooms/lobby/", "/ws/monitor/", "/ws/status/"


@pytest.fixture(autouse=True)
async def _committed(transactional_db):
    """Consumers query on threads of their own, which see committed rows only.

    The tests' own asynchronous queries run on such a thread too, which nobody else tidies up.
    """
    yield
    await aclose_old_connections()


@pytest.fixture
def cookies(client_of, alice, bob, staff, lobby):
    return {user: client_of(user).cookies.output(header="", sep=";") for user in (alice, bob, staff)}


@pytest.fixture
def socket(cookies):
    def socket(path, user=None):
        headers = [(b"host", b"testserver"), (b"cookie", cookies.get(user, "").encode())]
        communicator = WebsocketCommunicator(application, path, headers)
        communicator.scope["extensions"] = {"websocket.http.response": {}}
        return communicator

    return socket


@pytest.fixture
async def conversation(socket, alice):
    """Alice's socket, after the history and her own arrival."""
    communicator = socket(ROOM, alice)
    await communicator.connect()
    await communicator.receive_json_from()
    await communicator.receive_json_from()
    yield communicator
    await communicator.disconnect()


async def denial(communicator):
    await communicator.send_input({"type": "websocket.connect"})
    start = await communicator.receive_output()
    body = await communicator.receive_output()
    await communicator.wait()
    return start["status"], json.loads(body["body"])["code"]


async def test_a_member_is_let_in(socket, alice):
    communicator = socket(ROOM, alice)
    assert await communicator.connect() == (True, None)
    await communicator.disconnect()


async def test_a_non_member_is_forbidden(socket, bob):
    assert await denial(socket(ROOM, bob)) == (403, "permission_denied")


async def test_an_anonymous_visitor_is_not_authenticated(socket):
    assert await denial(socket(ROOM)) == (401, "not_authenticated")


async def test_an_unknown_room_is_not_found(socket, alice):
    assert await denial(socket("/ws/rooms/nowhere/", alice)) == (404, "not_found")


async def test_an_unrouted_path_is_not_found(socket):
    assert await denial(socket("/ws/nowhere/")) == (404, "not_found")


async def test_a_member_first_gets_the_last_fifty_messages(socket, alice, lobby):
    await Message.objects.abulk_create(
        Message(room=lobby, author=alice, text=str(number)) for number in range(51)
    )
    communicator = socket(ROOM, alice)
    await communicator.connect()
    history = await communicator.receive_json_from()
    assert [message["text"] for message in history["messages"]] == [str(n) for n in range(1, 51)]
    await communicator.disconnect()


async def test_a_message_comes_back_to_its_writer(conversation):
    await conversation.send_json_to({"text": " Hello "})
    event = await conversation.receive_json_from()
    assert (event["type"], event["author"], event["text"]) == ("message", "alice", "Hello")


async def test_a_message_is_saved(conversation, alice, lobby):
    await conversation.send_json_to({"text": "Hello"})
    await conversation.receive_json_from()
    assert await Message.objects.filter(room=lobby, author=alice, text="Hello").acount() == 1


async def test_a_message_reaches_the_others_in_the_room(conversation, socket, staff):
    other = socket(ROOM, staff)
    await other.connect()
    await other.receive_json_from()
    await other.receive_json_from()
    await conversation.send_json_to({"text": "Hello"})
    assert (await other.receive_json_from())["text"] == "Hello"
    await other.disconnect()


async def test_leaving_is_told_to_the_others(conversation, socket, staff):
    other = socket(ROOM, staff)
    await other.connect()
    assert (await conversation.receive_json_from())["type"] == "joined"
    await other.disconnect()
    assert await conversation.receive_json_from() == {
        "type": "left",
        "room": "lobby",
        "author": "staff",
    }


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[" * 100_000,
        '"Hello"',
        "{}",
        '{"text": 1}',
        '{"text": "  "}',
        '{"text": "\\u0000"}',
        '{"text": "\\ud800"}',
        json.dumps({"text": "x" * 1001}),
    ],
    ids=lambda text: text[:20],
)
async def test_what_is_no_message_gets_an_error_and_the_socket_stays_open(conversation, text):
    await conversation.send_to(text_data=text)
    assert (await conversation.receive_json_from())["type"] == "error"
    await conversation.send_json_to({"text": "Still there"})
    assert (await conversation.receive_json_from())["text"] == "Still there"


async def test_bytes_get_an_error(conversation):
    await conversation.send_to(bytes_data=b"Hello")
    assert (await conversation.receive_json_from())["type"] == "error"


async def test_staff_who_are_no_members_may_not_write(socket, staff):
    communicator = socket(ROOM, staff)
    await communicator.connect()
    await communicator.receive_json_from()
    await communicator.receive_json_from()
    await communicator.send_json_to({"text": "Hello"})
    assert await communicator.receive_json_from() == {
        "type": "error",
        "detail": "Only members may write here.",
    }
    await communicator.disconnect()


async def test_who_is_a_member_no_longer_may_not_write(conversation, alice, lobby):
    await lobby.members.aremove(alice)
    await conversation.send_json_to({"text": "Hello"})
    assert (await conversation.receive_json_from())["type"] == "error"


async def test_the_monitor_is_closed_to_members(socket, alice):
    assert await denial(socket(MONITOR, alice)) == (403, "permission_denied")


async def test_the_monitor_gets_a_copy_of_every_event(conversation, socket, staff):
    monitor = socket(MONITOR, staff)
    await monitor.connect()
    await conversation.send_json_to({"text": "Hello"})
    event = await monitor.receive_json_from()
    assert (event["room"], event["author"], event["text"]) == ("lobby", "alice", "Hello")
    await monitor.disconnect()


async def test_the_status_answers_everybody(socket):
    communicator = socket(STATUS)
    assert await communicator.connect() == (True, None)
    assert (await communicator.receive_json_from())["rooms"] == 1


async def test_the_status_closes_after_its_answer(socket):
    communicator = socket(STATUS)
    await communicator.connect()
    await communicator.receive_json_from()
    assert (await communicator.receive_output())["type"] == "websocket.close"
