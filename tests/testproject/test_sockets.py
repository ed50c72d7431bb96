"""The sockets, through the application that servers run."""

import json
import re

import pytest
from asgiref.sync import sync_to_async
from channels.db import aclose_old_connections
from channels.testing import WebsocketCommunicator
from django.core.cache import cache
from django.test import AsyncClient

from testproject.asgi import application
from testproject.chat.handshakes import history
from testproject.chat.models import Message, Token
from tests.support.clients import fetch, knock

ROOM, MONITOR, STATUS = "/ws/rooms/lobby/", "/ws/monitor/", "/ws/status/"


@pytest.fixture(autouse=True)
async def _committed(transactional_db):
    """Consumers query on threads of their own, which see committed rows only.

    The tests' own asynchronous queries run on such a thread too; its connection is closed here.
    """
    yield
    await aclose_old_connections()


@pytest.fixture
def headers_of(client_of, alice, bob, staff, lobby):
    """A function from a user (or None) to the raw headers of a handshake."""
    cookies = {user: client_of(user).cookies.output(header="", sep=";") for user in (alice, bob, staff)}
    return lambda user: [(b"host", b"testserver"), (b"cookie", cookies.get(user, "").encode())]


@pytest.fixture
async def opened(headers_of):
    """A function from a path and a user to an accepted socket, after so many events."""
    sockets = []

    async def open_socket(path, user=None, *, events=0):
        sockets.append(communicator := WebsocketCommunicator(application, path, headers_of(user)))
        assert await communicator.connect() == (True, None)
        for _ in range(events):
            await communicator.receive_json_from()
        return communicator

    yield open_socket
    for communicator in sockets:
        await communicator.disconnect()


@pytest.fixture
async def conversation(opened, alice):
    """Alice's socket, after the history and her own arrival."""
    return await opened(ROOM, alice, events=2)


async def test_a_token_and_a_ticket_are_a_member_s_credentials(alice, bob, lobby, client_of):
    for user, secret in ((alice, "of-alice"), (bob, "of-bob")):
        await Token.objects.acreate(user=user, digest=Token.digest_of(secret))
    for secret, status in [("of-alice", 101), ("of-bob", 403), ("of-none", 401)]:
        headers = [(b"host", b"testserver"), (b"authorization", f"Bearer {secret}".encode())]
        assert (await knock(application, ROOM, headers=headers)).status == status
        assert (await knock(application, ROOM, subprotocols=["bearer", secret])).status == status
    answer = await sync_to_async(lambda: client_of(alice).post("/ticket/", {"path": ROOM}))()
    for status in (101, 401):
        assert (await knock(application, f"{ROOM}?ticket={answer.json()['ticket']}")).status == status


async def test_who_knocks_too_often_has_to_wait(clock):
    cache.clear()
    answers = [await knock(application, "/ws/knock/") for _ in range(4)]
    assert [answer.status for answer in answers] == [101, 101, 101, 429]
    assert int(answers[-1].header("retry-after")) <= 60


async def test_each_socket_denies_with_its_status_and_its_address_tells_a_script_the_same(headers_of, alice, bob):
    for path, user, status, code in [
        (ROOM, bob, 403, "permission_denied"),
        (ROOM, None, 401, "not_authenticated"),
        ("/ws/rooms/nowhere/", alice, 404, "not_found"),
        ("/ws/nowhere/", None, 404, "not_found"),
        (MONITOR, alice, 403, "permission_denied"),
    ]:
        for ask in (knock, fetch):
            answer = await ask(application, path, headers=headers_of(user))
            assert (answer.status, answer.problem["code"]) == (status, code), (path, user)


async def test_a_member_first_gets_the_last_fifty_messages(opened, alice, lobby):
    messages = [Message(room=lobby, author=alice, text=str(number)) for number in range(51)]
    await Message.objects.abulk_create(messages)
    history = await (await opened(ROOM, alice)).receive_json_from()
    assert [message["text"] for message in history["messages"]] == [str(n) for n in range(1, 51)]


async def test_a_message_is_saved_and_reaches_its_writer_and_the_others(conversation, opened, alice, staff, lobby):
    other = await opened(ROOM, staff, events=2)
    assert (await conversation.receive_json_from())["type"] == "joined"
    await conversation.send_json_to({"text": " Hello "})
    for socket in (conversation, other):
        event = await socket.receive_json_from()
        assert (event["type"], event["author"], event["text"]) == ("message", "alice", "Hello")
    assert await Message.objects.filter(room=lobby, author=alice, text="Hello").acount() == 1
    await other.disconnect()
    assert await conversation.receive_json_from() == {"type": "left", "room": "lobby", "author": "staff"}


NO_MESSAGES = [
    "no JSON",
    "[" * 100_000,
    '"Hello"',
    "{}",
    '{"text": 1}',
    '{"text": "  "}',
    '{"text": "\\u0000"}',
    '{"text": "\\ud800"}',
    json.dumps({"text": "x" * 1001}),
]


async def test_what_is_no_message_gets_an_error_and_the_socket_stays_open(conversation):
    for text in NO_MESSAGES:
        await conversation.send_to(text_data=text)
        assert (await conversation.receive_json_from())["type"] == "error", text[:20]
    await conversation.send_to(bytes_data=b"Hello")
    assert (await conversation.receive_json_from())["type"] == "error"
    await conversation.send_json_to({"text": "Still there"})
    assert (await conversation.receive_json_from())["text"] == "Still there"


async def test_only_members_may_write(conversation, opened, alice, staff, lobby):
    other = await opened(ROOM, staff, events=2)
    await other.send_json_to({"text": "Hello"})
    refused = {"type": "error", "detail": "Only members may write here."}
    assert await other.receive_json_from() == refused
    assert (await conversation.receive_json_from())["type"] == "joined"
    await lobby.members.through.objects.all().adelete()  # of which no signal tells
    await conversation.send_json_to({"text": "Hello"})
    assert await conversation.receive_json_from() == refused


async def test_the_monitor_shows_the_latest_handshakes_and_then_each_that_is_accepted_or_denied(
    opened, headers_of, alice, bob, staff
):
    history.clear()

    async def visit():
        assert (await knock(application, ROOM, headers=headers_of(bob))).status == 403
        assert (await knock(application, "/ws/nowhere/", headers=headers_of(None))).status == 404
        token = (b"authorization", b"Bearer wrong")
        assert (await knock(application, ROOM, headers=[*headers_of(None), token])).status == 401
        await opened(ROOM, alice, events=2)

    members = "HasPermission('chat.view_room', obj=room_from_url)"
    seen = [
        (403, "Forbidden", ROOM, "bob", members),
        (404, "Not Found", "/ws/nowhere/", "", ""),
        (401, "Unauthorized", ROOM, "", members),
        (101, "Switching Protocols", ROOM, "alice", members),
    ]

    def row(event):
        return tuple(event[name] for name in ("status", "text", "path", "user", "policy"))

    await visit()
    monitor = await opened(MONITOR, staff)
    assert [row(event) for event in (await monitor.receive_json_from())["handshakes"]] == seen
    assert row(await monitor.receive_json_from()) == (101, "Switching Protocols", MONITOR, "staff", "IsStaff()")
    await visit()
    assert [row(await monitor.receive_json_from()) for _ in seen] == seen


async def test_the_monitor_shows_that_access_has_ended(opened, alice, staff, lobby):
    history.clear()
    await opened(ROOM, alice, events=2)
    monitor = await opened(MONITOR, staff, events=2)
    await sync_to_async(lobby.members.remove)(alice)
    event = await monitor.receive_json_from(5)
    assert (event["status"], event["text"], event["user"]) == (4403, "Your access has ended.", "alice")


async def test_the_status_answers_a_stranger_and_closes(opened, lobby):
    communicator = await opened(STATUS)
    assert (await communicator.receive_json_from())["rooms"] == 1
    assert (await communicator.receive_output())["type"] == "websocket.close"


@pytest.mark.parametrize("remove", ["room.members.remove(user)", "user.rooms.remove(room)", "room.members.clear()"])
async def test_a_member_who_is_removed_loses_the_socket_and_others_keep_theirs(remove, opened, alice, staff, lobby):
    socket, other = await opened(ROOM, alice, events=2), await opened(ROOM, staff, events=2)
    await sync_to_async(eval)(remove, {"room": lobby, "user": alice})
    closed = await socket.receive_output(5)
    while closed["type"] != "websocket.close":
        closed = await socket.receive_output(5)
    assert (closed["code"], closed["reason"]) == (4403, "Your access has ended.")
    assert (await other.receive_json_from())["type"] == "left"


HOST = (b"host", b"testserver")
ANSWERS = {
    "an accepted socket": (knock, "/ws/status/", 101),
    "a denied socket": (knock, "/ws/rooms/lobby/", 401),
    "a socket that is not there": (knock, "/ws/nowhere/", 404),
    "a view": (fetch, "/login/", 200),
    "a denied view": (fetch, "/monitor/", 401),
    "a page that is not there": (fetch, "/nowhere/", 404),
    "a socket's address in a browser": (fetch, "/ws/status/", 426),
}


async def test_every_answer_has_an_id_of_its_own_or_the_one_that_a_proxy_gave():
    for name, (ask, path, status) in ANSWERS.items():

        async def id_for(*given, ask=ask, path=path, status=status, name=name):
            headers = [HOST, *((b"x-request-id", value) for value in given)]
            answer = await ask(application, path, headers=headers)
            assert answer.status == status, name
            assert re.fullmatch(r"app;dur=\d+\.\d", answer.header("server-timing")), name
            return answer.header("x-request-id")

        own = [await id_for(), await id_for(), await id_for(b"a; DROP")]  # The last could forge log records.
        assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in own), name
        assert len(set(own)) == 3, name
        assert await id_for(b"from-the-proxy") == "from-the-proxy", name


async def test_a_view_without_the_stack_has_none():
    """The hooks are the stack's; a site that wants them under WSGI as well names them in HOOKS."""
    assert "X-Request-ID" not in (await AsyncClient().get("/login/")).headers
