"""Credentials and origins at a stack behind a wrapper, or entered as a stream of an accepted socket."""

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.middleware import BaseMiddleware

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.authentication import Authentication, BearerAuthentication, SubprotocolToken
from channels_wsdeny.decorators import login_required, public
from tests.support.clients import Handshake, knock, websocket_scope

pytestmark = pytest.mark.django_db


class Consumer(AsyncWebsocketConsumer):
    """Accepts, and tells who came and which subprotocols it sees."""

    async def connect(self):
        seen = " ".join(self.scope["subprotocols"]).encode()
        user = self.scope["user"].username.encode()
        await self.accept(headers=[(b"x-user", user), (b"x-seen", seen)])


class Guarded(Consumer):
    pass


class Open(Consumer):
    pass


login_required(Guarded)
public(Open)


class Cookie(Authentication):
    """The user of a cookie of its own."""

    def __init__(self, users):
        self.users = users

    def authenticate(self, request):
        return self.users.get(request.COOKIES.get("jwt"))


class Key(Authentication):
    """The user of a header, which no browser adds."""

    ambient = False

    def __init__(self, users, header):
        self.users, self.header = users, header

    def authenticate(self, request):
        return self.users.get(request.headers.get(self.header))


class Wrapper(BaseMiddleware):
    pass


def with_stream(stream):
    """A consumer that accepts, enters `stream`, and sends the type of its first message."""

    @public
    class Demultiplexer(AsyncWebsocketConsumer):
        async def connect(self):
            events = [{"type": "websocket.disconnect", "code": 1000}, {"type": "websocket.connect"}]
            sent = []

            async def receive():
                return events.pop()

            async def send(message):
                sent.append(message)

            await self.accept()
            await stream({**self.scope}, receive, send)
            user = dict(sent[0].get("headers", ())).get(b"x-user", b"")
            await self.send(text_data=f"{sent[0]['type']} {user.decode()}".strip())

    return Demultiplexer.as_asgi()


async def answer_of_stream(app, headers, subprotocols=()):
    host = (b"host", b"testserver")
    handshake = Handshake(app, websocket_scope("/", headers=[host, *headers], subprotocols=[*subprotocols]))
    assert (await handshake.connect()).status == 101
    answer = (await handshake.next())["text"]
    await handshake.leave()
    return answer


@pytest.mark.parametrize(
    ("origin", "answer"),
    [(b"http://testserver", "websocket.accept alice"), (b"https://evil.example", "websocket.close")],
)
async def test_the_origin_is_checked_for_the_cookies_that_a_stream_reads(origin, answer, users):
    stream = DenyMiddlewareStack(Guarded.as_asgi(), authentication=[Cookie(users)])
    app = DenyMiddlewareStack(with_stream(stream), authentication=[Key(users, "x-outer")])
    assert await answer_of_stream(app, [(b"cookie", b"jwt=alice"), (b"origin", origin)]) == answer


@pytest.mark.parametrize(
    ("header", "answer"), [(b"x-inner", "websocket.accept alice"), (b"x-outer", "websocket.close")]
)
async def test_the_classes_of_a_stream_s_own_stack_tell_its_user(header, answer, users):
    stream = DenyMiddlewareStack(Guarded.as_asgi(), authentication=[Key(users, "x-inner")])
    app = DenyMiddlewareStack(with_stream(stream), authentication=[Key(users, "x-outer")])
    assert await answer_of_stream(app, [(header, b"alice")]) == answer


def with_token(users):
    return [SubprotocolToken("bearer", BearerAuthentication(users.get))]


async def test_a_stream_takes_the_token_of_its_own_class(users):
    stream = DenyMiddlewareStack(Guarded.as_asgi(), authentication=with_token(users))
    app = DenyMiddlewareStack(with_stream(stream))
    assert await answer_of_stream(app, [], ["bearer", "alice"]) == "websocket.accept alice"
    assert await answer_of_stream(app, [], ["bearer", "wrong"]) == "websocket.close"


async def test_a_stack_behind_a_wrapper_takes_its_token_and_wrong_ones_deny(users):
    app = DenyMiddlewareStack(Wrapper(DenyMiddlewareStack(Open.as_asgi(), authentication=with_token(users))))
    answer = await knock(app, "/", subprotocols=["chat", "bearer", "alice"])
    assert (answer.header("x-user"), answer.header("x-seen")) == ("alice", "chat")
    assert answer.messages[0]["subprotocol"] == "bearer"
    assert (await knock(app, "/", subprotocols=["bearer", "wrong"])).status == 401


async def test_no_token_stays_where_a_client_repeats_the_subprotocol_before_it(users):
    app = DenyMiddlewareStack(Open.as_asgi(), authentication=with_token(users))
    answer = await knock(app, "/", subprotocols=["bearer", "alice", "chat", "bearer", "bob"])
    assert (answer.header("x-user"), answer.header("x-seen")) == ("alice", "chat")
