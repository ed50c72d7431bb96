"""Tokens in ``Authorization``, and in the subprotocols that a page may offer; at the stack of any layer."""

from functools import partial

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory
from django.utils.module_loading import import_string

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.authentication import Authentication, BearerAuthentication, SubprotocolToken, TicketAuthentication
from channels_wsdeny.decorators import login_required, public
from tests.support.authentication import ByHeader
from tests.support.clients import Handshake, knock, opened, websocket_scope
from tests.support.sockets import CONNECT, Server, disconnect
from tests.support.wrappers import Middleware, With

pytestmark = pytest.mark.django_db


class Consumer(AsyncWebsocketConsumer):
    """Accepts, with the subprotocol that the client names in ``x-select``, and tells what it sees."""

    async def connect(self):
        headers = dict(self.scope["headers"])
        seen = repr((self.scope["subprotocols"], headers.get(b"sec-websocket-protocol"))).encode()
        user = self.scope["user"].username.encode()
        await self.accept(headers.get(b"x-select", b"").decode() or None, [(b"x-seen", seen), (b"x-user", user)])


@pytest.fixture
def verify(users):
    users["bob"].is_active = False
    found = {"good": users["alice"], "with-auth": (users["alice"], {"exp": 1}), "inactive": users["bob"], "no": False}
    return found.get


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_bearer_token_is_verified_and_any_other_is_a_401_that_says_so(is_async, verify):
    async def averify(token):
        return verify(token)

    app = DenyMiddlewareStack(
        Consumer.as_asgi(), authentication=[BearerAuthentication(averify if is_async else verify)]
    )
    invalid = 'Bearer error="invalid_token"'
    wrong = ["unknown", "inactive", "no", "", "good good", "good,Bearer good"]
    values = {
        (101, None): ["Bearer good", "bEARER  good ", "Bearer with-auth"],
        (401, invalid): ["Bearer", *(f"Bearer {each}" for each in wrong)],
        (401, "Bearer"): ["Token good", "good", ""],
    }
    for value, expected in ((value, expected) for expected, each in values.items() for value in each):
        answer = await knock(app, "/", headers=[(b"authorization", value.encode())])
        assert (answer.status, answer.header("www-authenticate")) == expected, value
    two = [(b"authorization", b"Bearer unknown"), (b"authorization", b"Bearer good")]
    assert (await knock(app, "/", headers=two)).status == 401
    assert (await knock(app, "/?token=good")).status == 401


class Keyed(Authentication):
    """Takes the scheme from what it has noted in the request, as classes of other packages do."""

    def __init__(self, users):
        self.users = users

    def authenticate(self, request):
        assert request.COOKIES == {}
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        request.noted = token
        return self.users.get(token) if scheme == "Key" else None

    def authenticate_header(self, request):
        return f"Key, noted={getattr(request, 'noted', '')}"


OFFERED = [
    (["bearer", "good"], None, "alice", [], "bearer"),
    (["chat", "bearer", "good", "news"], None, "alice", ["chat", "news"], "bearer"),
    (["bearer", "good", "chat"], "chat", "alice", ["chat"], "chat"),
    (["bearer", "good", "chat", "bearer", "wrong"], None, "alice", ["chat"], "bearer"),  # No token stays.
    (["bearer", "wrong", "chat"], None, None, None, None),
    (["bearer", "\u0bb2", "\u0bb2"], None, None, None, None),
    (["bearer"], None, "", ["bearer"], None),
    (["chat", "good"], None, "", ["chat", "good"], None),
    ([], None, "", [], None),
]


@pytest.mark.parametrize(("offered", "select", "user", "seen", "selected"), OFFERED)
async def test_a_token_in_the_subprotocols_is_the_credential_and_the_consumer_sees_none_of_it(
    offered, select, user, seen, selected, verify
):
    app = DenyMiddlewareStack(
        With(public(type("Open", (Consumer,), {})).as_asgi(), more=1),
        authentication=[SubprotocolToken("bearer", BearerAuthentication(verify))],
    )
    headers = [(b"sec-websocket-protocol", ", ".join(offered).encode())] if offered else []
    headers += [(b"x-select", select.encode())] if select else []
    answer = await knock(app, "/", headers=headers, subprotocols=offered)
    if user is None:
        assert (answer.status, answer.header("www-authenticate")) == (401, 'Bearer error="invalid_token"')
        return
    raw = headers[0][1] if offered and offered == seen else ", ".join(seen).encode() or None
    assert (answer.header("x-user"), answer.header("x-seen")) == (user, repr((seen, raw)))
    assert answer.messages[0].get("subprotocol") == selected


async def test_the_inner_class_gets_the_scheme_of_its_challenge_and_no_cookies_and_one_request(users, headers_of):
    app = DenyMiddlewareStack(Consumer.as_asgi(), authentication=[SubprotocolToken("key", Keyed(users))])
    cookie = headers_of("bob")
    answer = await knock(app, "/", headers=cookie, subprotocols=["key", "alice"])
    assert answer.header("x-user") == "alice"
    answer = await knock(app, "/", headers=cookie, subprotocols=["key", "nobody"])
    assert (answer.status, answer.header("www-authenticate")) == (401, "Key, noted=nobody")
    assert (await knock(app, "/", headers=cookie)).status == 401


async def test_a_close_in_place_of_a_response_selects_the_subprotocol_before_the_token(verify):
    app = DenyMiddlewareStack(
        Consumer.as_asgi(), authentication=[SubprotocolToken("bearer", BearerAuthentication(verify))], deny_with="close"
    )
    handshake = Handshake(app, websocket_scope("/", subprotocols=["bearer", "wrong"]))
    assert (await handshake.connect()).messages[0]["subprotocol"] == "bearer"
    assert (await handshake.next())["code"] == 4401
    await handshake.leave()


BASIC = "rest_framework.authentication.BasicAuthentication"


@pytest.mark.parametrize("given", [BASIC, import_string(BASIC), import_string(BASIC)()])
def test_the_inner_class_is_given_as_in_a_list_of_classes(given):
    assert SubprotocolToken("key", given).authenticate_header(RequestFactory().get("/")) == 'Basic realm="api"'
    with pytest.raises(ImproperlyConfigured, match=r"SubprotocolToken\(\): 5 is no authentication class"):
        SubprotocolToken("key", 5)


@pytest.mark.parametrize(
    ("base", "name"),
    [
        (BearerAuthentication, "verify"),
        (BearerAuthentication, "scheme"),
        (SubprotocolToken, "name"),
        (TicketAuthentication, "cache"),
    ],
)
def test_an_argument_as_an_attribute_of_a_subclass_is_refused(base, name):
    with pytest.raises(TypeError, match=rf"Own.{name} would be ignored: give {name} as an argument of Own\(\)"):
        type("Own", (base,), {name: "Token"})


@pytest.mark.parametrize("make", [BearerAuthentication, *(partial(SubprotocolToken, name) for name in ("", "a b", 1))])
def test_wrong_arguments_are_refused(make):
    with pytest.raises(TypeError, match="found"):
        make("x")


Guarded = login_required(type("Guarded", (Consumer,), {}))
Open = public(type("Open", (Consumer,), {}))


class Cookie(Authentication):
    """The user of a cookie of its own."""

    def __init__(self, users):
        self.users = users

    def authenticate(self, request):
        return self.users.get(request.COOKIES.get("jwt"))


def with_stream(stream):
    """A consumer that accepts, enters `stream`, and sends the type of its first message."""

    @public
    class Demultiplexer(AsyncWebsocketConsumer):
        async def connect(self):
            server = Server(CONNECT, disconnect(1000))
            await self.accept()
            await server.run_scope(stream, {**self.scope})
            user = dict(server.sent[0].get("headers", ())).get(b"x-user", b"")
            await self.send(text_data=f"{server.kinds[0]} {user.decode()}".strip())

    return Demultiplexer.as_asgi()


async def answer_of_stream(app, headers, subprotocols=()):
    host = (b"host", b"testserver")
    async with opened(app, headers=[host, *headers], subprotocols=[*subprotocols]) as handshake:
        return (await handshake.next())["text"]


@pytest.mark.parametrize(
    ("origin", "answer"),
    [(b"http://testserver", "websocket.accept alice"), (b"https://evil.example", "websocket.close")],
)
async def test_the_origin_is_checked_for_the_cookies_that_a_stream_reads(origin, answer, users):
    stream = DenyMiddlewareStack(Guarded.as_asgi(), authentication=[Cookie(users)])
    app = DenyMiddlewareStack(with_stream(stream), authentication=[ByHeader(users, "x-outer")])
    assert await answer_of_stream(app, [(b"cookie", b"jwt=alice"), (b"origin", origin)]) == answer


@pytest.mark.parametrize(
    ("header", "answer"), [(b"x-inner", "websocket.accept alice"), (b"x-outer", "websocket.close")]
)
async def test_the_classes_of_a_stream_s_own_stack_tell_its_user(header, answer, users):
    stream = DenyMiddlewareStack(Guarded.as_asgi(), authentication=[ByHeader(users, "x-inner")])
    app = DenyMiddlewareStack(with_stream(stream), authentication=[ByHeader(users, "x-outer")])
    assert await answer_of_stream(app, [(header, b"alice")]) == answer


def with_token(users):
    return [SubprotocolToken("bearer", BearerAuthentication(users.get))]


async def test_a_stream_takes_the_token_of_its_own_class(users):
    stream = DenyMiddlewareStack(Guarded.as_asgi(), authentication=with_token(users))
    app = DenyMiddlewareStack(with_stream(stream))
    assert await answer_of_stream(app, [], ["bearer", "alice"]) == "websocket.accept alice"
    assert await answer_of_stream(app, [], ["bearer", "wrong"]) == "websocket.close"


async def test_a_stack_behind_a_wrapper_takes_its_token_and_wrong_ones_deny(users):
    app = DenyMiddlewareStack(Middleware(DenyMiddlewareStack(Open.as_asgi(), authentication=with_token(users))))
    answer = await knock(app, "/", subprotocols=["chat", "bearer", "alice"])
    assert (answer.header("x-user"), answer.header("x-seen")) == ("alice", repr((["chat"], b"chat")))
    assert answer.messages[0]["subprotocol"] == "bearer"
    assert (await knock(app, "/", subprotocols=["bearer", "wrong"])).status == 401
