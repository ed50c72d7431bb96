"""Streams and groups that a socket enters by policies of their own are lost by themselves."""

import asyncio
from functools import partial
from itertools import product

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser, Permission
from django.contrib.sessions.models import Session
from django.db import OperationalError
from django.utils.deprecation import MiddlewareMixin
from django.utils.functional import SimpleLazyObject

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.authentication import BearerAuthentication, SessionAuthentication
from channels_wsdeny.decorators import login_required, public, require
from channels_wsdeny.http.context import get_context
from channels_wsdeny.live import arevoke
from channels_wsdeny.live.registry import registry
from channels_wsdeny.policies import (
    HasPermission,
    InGroup,
    IsAuthenticated,
    IsStaff,
    MaxConnections,
    Throttle,
    UserPassesTest,
)
from tests.support.clients import GUARD, cookie_header
from tests.support.opened import Opened, update, user
from tests.support.policies import Switch
from tests.support.sockets import CONNECT, Server, consumer, disconnect
from tests.support.threads import until

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("hasty")]
NEXT = {"type": "websocket.receive", "text": "x"}


def demultiplexer(child, sent):
    """An admitted consumer that enters `child` for each stream it opens."""

    @login_required
    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        streams = []
        while (await receive())["type"] == "websocket.receive":
            server = Server()
            server.sent = sent
            streams.append((server, asyncio.ensure_future(child(scope, server.receive, server.send))))
        for server, task in streams:
            server.events.put_nowait(disconnect(1000))
            await task

    return DenyMiddlewareStack(application)


class Streams(Opened):
    """A socket of alice that opens streams on `child`; `sent` is what those send."""

    def __init__(self, child, headers, wrap=lambda app: app):
        self.sent = []
        super().__init__(wrap(demultiplexer(child, self.sent)), headers=headers)

    async def open(self):
        """Open one more stream, and wait for its answer."""
        count = len(self.sent)
        self.server.events.put_nowait(NEXT)
        await until(lambda: len(self.sent) > count)

    @property
    def kinds(self):
        return [message["type"].removeprefix("websocket.") for message in self.sent]


def leaving(codes, error=None):
    """A consumer class that notes the codes of its ends, and raises an error then."""

    def disconnect(self, code):
        codes.append(code)
        if error is not None:
            raise error

    return consumer(disconnect=disconnect)


def members():
    """A consumer for users who are logged in."""
    return login_required(consumer()).as_asgi()


@pytest.fixture
def lose(change):
    """A function after which a policy denies, and was asked again about alice."""

    async def lose(policy, answer=False):
        policy.answer = answer
        await change(update(first_name="Alice"))

    return lose


@pytest.mark.parametrize("error", [None, Deny(402)])
async def test_a_stream_that_loses_its_policy_is_closed_by_itself_once(error, users, headers_of, lose):
    policy, codes = Switch(), []
    alice = await Streams(require(policy)(leaving(codes, error)).as_asgi(), headers_of("alice")).accepted()
    for _ in range(2):
        await alice.open()
    assert alice.kinds == ["accept"] * 2
    await lose(policy, Deny(409, "Too late."))
    await until(lambda: len(alice.sent) == 4 and len(codes) == 2)
    await alice.stays()
    assert alice.sent[2:] == [{"type": "websocket.close", "code": 4409, "reason": "Too late."}] * 2
    assert codes == [4409, 4409]


class Slow(Switch):
    """Gives its first answer, that of when it was asked, once it may go on."""

    def __init__(self):
        super().__init__()
        self.go_on = asyncio.Event()

    async def acheck(self, request):
        answer = await super().acheck(request)
        if self.asked == 1:
            await self.go_on.wait()
        return answer


@public
async def accepts(scope, receive, send):
    await send({"type": "websocket.accept"})


@pytest.mark.parametrize("is_asked_meanwhile", [False, True])
async def test_a_socket_whose_public_part_has_accepted_is_closed_by_the_policy_of_the_rest(
    is_asked_meanwhile, users, headers_of, lose
):
    policy = Slow() if is_asked_meanwhile else Switch()

    async def application(scope, receive, send):
        if is_asked_meanwhile:
            reading = asyncio.create_task(receive())
            await until(lambda: policy.asked)
        await accepts(scope, receive, send)
        if is_asked_meanwhile:
            policy.go_on.set()
            await reading
        while (await receive())["type"] != "websocket.disconnect":
            pass

    stack = DenyMiddlewareStack(application, default_policy=policy)
    alice = await Opened(stack, headers=headers_of("alice")).accepted()
    await until(lambda: policy.asked)
    await lose(policy, Deny(409, "Too late."))
    assert await alice.close() == (4409, "Too late.")


async def test_a_socket_with_open_streams_is_closed_and_they_with_it(users, headers_of):
    codes = []
    alice = await Streams(require(Switch())(leaving(codes)).as_asgi(), headers_of("alice")).accepted()
    for _ in range(2):
        await alice.open()
    await arevoke(user=users["alice"], reason="spam")
    assert await alice.close() == (4403, "spam")
    assert len(codes) == 2
    assert registry.sockets() == []


async def test_a_stream_whose_policy_is_lost_while_it_is_asked_does_not_open(users, headers_of, lose):
    policy = Slow()
    alice = await Streams(require(policy)(consumer()).as_asgi(), headers_of("alice")).accepted()
    alice.server.events.put_nowait(NEXT)
    await until(lambda: policy.asked)
    await lose(policy)
    await until(lambda: alice.sent)
    policy.go_on.set()
    await asyncio.sleep(0.05)
    assert alice.kinds == ["close"]
    await alice.stays()


LOSSES = {
    "no staff": (IsStaff(), update(is_staff=False)),
    "no permission": (HasPermission("auth.change_user"), lambda: user().user_permissions.clear()),
}


@pytest.fixture
def gifted(users):
    """alice is staff, and has a permission."""
    users["alice"].user_permissions.add(Permission.objects.get(codename="change_user"))
    update(is_staff=True)()
    return users


@pytest.mark.parametrize(
    ("name", "by"), [*product(LOSSES, ["session", "token"]), ("what a middleware sets", "session")]
)
async def test_a_stream_that_opens_later_is_asked_about_the_user_of_then_as_a_middleware_sets_it_again(
    name, by, gifted, headers_of, change, settings
):
    authenticated = {}
    if name in LOSSES:
        policy, lose = LOSSES[name]
        bearer = BearerAuthentication(lambda token: get_user_model().objects.get(username=token))
        authenticated = {"wrap": partial(DenyMiddlewareStack, authentication=[bearer, SessionAuthentication()])}
    else:
        settings.CHANNELS_WSDENY = {"MIDDLEWARE": ["tests.live.test_rechecks.SplitVerifier"]}
        policy, lose = UserPassesTest(lambda user: user.is_verified), update(first_name="Mallory")
    given = headers_of("alice") if by == "session" else [(b"authorization", b"Bearer alice")]
    alice = await Streams(require(policy)(consumer()).as_asgi(), given, **authenticated).accepted()
    await alice.open()
    (socket,) = registry.sockets()
    await socket.opened.ask_parts()
    assert alice.kinds == ["accept"]
    await change(lose)
    await until(lambda: len(alice.sent) == 2)
    await alice.open()
    assert alice.kinds == ["accept", "close", "close"]
    await alice.stays()


async def test_a_stream_whose_session_has_ended_does_not_open(users, headers_of, change):
    alice = await Streams(members(), headers_of("alice")).accepted()
    await change(lambda: Session.objects.all().delete())  # No signal tells of that.
    await alice.open()
    assert alice.sent == [{"type": "websocket.close", "code": 4401, "reason": "session_ended"}]
    await alice.stays()


async def test_a_stream_with_another_session_ends_with_that(users, sessions, headers_of, change):
    child = members()

    async def as_bob(scope, receive, send):
        own = {name: value for name, value in scope.items() if name != "user"}
        await child({**own, "session": sessions["bob"]}, receive, send)

    bob = type(sessions["bob"])(sessions["bob"].session_key)  # as another request has it

    def renew():
        bob.cycle_key()
        bob.save()

    alice = await Streams(as_bob, headers_of("alice")).accepted()
    await alice.open()
    await change(renew)
    (socket,) = registry.sockets()
    await socket.opened.ask_parts()
    assert len(alice.sent) == 1
    await change(bob.flush)
    assert await socket.opened.ask_parts(is_confirmed=False)  # It might be getting a new key.
    assert len(alice.sent) == 1
    await until(lambda: len(alice.sent) == 2)
    assert alice.sent[1] == {"type": "websocket.close", "code": 4401, "reason": "session_ended"}
    await alice.stays()


class Joining(AsyncWebsocketConsumer):
    joins = ()

    async def connect(self):
        for given in self.joins:
            await self.scope["wsdeny"].join("room", *given)
        await self.accept()

    async def heard(self, event):
        await self.send(text_data="heard")


def joining(policy, decorate=login_required):
    """A consumer that joins a group by `policy` before it accepts."""
    return decorate(consumer(base=Joining, joins=[(policy,)])).as_asgi()


async def test_a_socket_leaves_its_groups_when_it_ends(users, headers_of, change):
    alice = await Opened(joining(Switch()), headers=headers_of("alice")).accepted()
    await get_channel_layer().group_send("room", {"type": "heard"})
    await until(lambda: alice.server.kinds[-1] == "websocket.send")
    context = registry.sockets()[0].opened.context
    await alice.leave()
    await until(lambda: not get_channel_layer().groups.get("room"))
    with pytest.raises(TypeError, match="open, or being accepted"):
        await context.join("room", Switch())


async def test_a_stream_that_ends_leaves_its_groups_and_no_others(users, headers_of):
    child = login_required(consumer(base=Joining, joins=[(Switch(),)])).as_asgi()

    @login_required
    async def application(scope, receive, send):
        await receive()
        await scope["wsdeny"].join("room", Switch(), "own")
        await send({"type": "websocket.accept"})
        while (await receive())["type"] == "websocket.receive":
            await Server(CONNECT, disconnect(1000)).run_scope(child, scope)
            await send({"type": "websocket.send", "text": "It has ended."})

    alice = await Opened(DenyMiddlewareStack(application), headers=headers_of("alice")).accepted()
    for _ in range(2):
        alice.server.events.put_nowait(NEXT)
    await until(lambda: alice.server.kinds.count("websocket.send") == 2)
    await until(lambda: set(get_channel_layer().groups["room"]) == {"own"})
    (socket,) = registry.sockets()
    assert set(socket.opened.parts) == {("room", "own")}
    await alice.stays()
    await until(lambda: not get_channel_layer().groups.get("room"))


async def nobody(token):
    return None


class Wrapped(MiddlewareMixin):
    """Sets a user of its own for each request, as those for second factors do."""

    def process_request(self, request):
        user = request.user
        request.user = SimpleLazyObject(lambda: user)


@pytest.mark.parametrize(
    "classes", [[SessionAuthentication()], [SessionAuthentication(), BearerAuthentication(nobody)]]
)
@pytest.mark.parametrize("middleware", [[], [f"{__name__}.Wrapped"]])
async def test_a_socket_that_was_anonymous_joins_no_group_as_the_user_who_logs_in_to_its_session_later(
    classes, middleware, sessions, users, change
):
    answers = []

    @public
    class Consumer(Joining):
        async def receive(self, text_data=None, bytes_data=None):
            try:
                answers.append(await self.scope["wsdeny"].join("room", IsAuthenticated()))
            except Deny as denial:
                answers.append(denial.status)

    session = type(sessions["alice"])()
    await change(session.save)

    def log_in():
        session.update(sessions["alice"].items())
        session.cycle_key()
        session.save()

    application = DenyMiddlewareStack(Consumer.as_asgi(), authentication=classes, middleware=middleware)
    socket = await Opened(application, headers=cookie_header(sessionid=session.session_key)).accepted()
    await change(log_in)
    socket.server.events.put_nowait(NEXT)
    await until(lambda: answers)
    assert answers == [401]
    await socket.stays()


async def test_a_user_whom_a_hook_has_made_anonymous_joins_no_group(users, headers_of, hooks):
    @hooks.on_request
    def demote(request):
        request.user = AnonymousUser()

    classes = [SessionAuthentication(), BearerAuthentication(nobody)]
    application = DenyMiddlewareStack(joining(IsAuthenticated(), public), hooks=hooks, authentication=classes)
    alice = Opened(application, headers=headers_of("alice"))
    await alice.end()
    assert alice.server.answer.status == 401


@pytest.fixture
def renew(sessions, change):
    """A function that gives alice's session a new key, as a new password does."""

    def cycle():
        sessions["alice"].cycle_key()
        sessions["alice"].save()

    return lambda: change(cycle)


async def test_groups_stay_where_the_session_has_a_new_key(users, headers_of, renew, change):
    policy = Switch()
    alice = await Opened(joining(policy), headers=headers_of("alice")).accepted()
    await renew()
    await change(update(first_name="Alice"))
    (socket,) = registry.sockets()
    await socket.opened.ask_parts()
    assert policy.asked > 1
    assert get_channel_layer().groups["room"]
    await alice.stays()


async def test_groups_are_joined_and_streams_opened_where_the_session_has_a_new_key(users, headers_of, renew):
    heard, stream, child = [], Server(CONNECT, disconnect(1000)), members()

    @login_required
    class Late(AsyncWebsocketConsumer):
        async def receive(self, **received):
            heard.append(await self.scope["wsdeny"].join("room", Switch()))
            await stream.run_scope(child, self.scope)

    alice = await Opened(Late.as_asgi(), headers=headers_of("alice")).accepted()
    await renew()
    alice.server.events.put_nowait(NEXT)
    await until(lambda: stream.sent)
    assert (heard, stream.kinds[0]) == ([None], "websocket.accept")
    await alice.stays()


@pytest.mark.parametrize(
    ("policy", "status"),
    [
        (Switch(False), 403),
        # A policy that counts once cannot be asked again.
        (MaxConnections(1), 500),
        (InGroup("editors") | Throttle("1/min"), 500),
        (InGroup("editors") & Throttle("1/min"), 500),
        (~Throttle("1/min"), 500),
    ],
)
async def test_a_consumer_that_joins_in_connect_by_a_policy_that_denies_is_denied(policy, status, users, headers_of):
    alice = Opened(joining(policy), headers=headers_of("alice"))
    await alice.end()
    assert alice.server.answer.status == status
    assert not get_channel_layer().groups.get("room")


@pytest.mark.parametrize("channel", [None, "own"])
async def test_an_undecorated_consumer_names_its_channel(channel, users, headers_of):
    class Consumer(AsyncWebsocketConsumer):
        async def connect(self):
            await self.scope["wsdeny"].join("room", Switch(), self.channel_name if channel else None)
            await self.accept()

    alice = Opened(DenyMiddlewareStack(Consumer.as_asgi()), headers=headers_of("alice"))
    if channel is None:
        await alice.end()
        assert alice.server.answer.status == 500
    else:
        await alice.accepted()
        assert get_channel_layer().groups["room"]
        await alice.leave()


async def test_what_is_for_sockets_cannot_be_asked_of_a_view(rf):
    with pytest.raises(TypeError, match="sockets"):
        await get_context(rf.get("/")).recheck()


async def test_a_drained_process_closes_its_sockets_in_time_and_denies_new_ones(users, headers_of, monkeypatch):
    application = public(consumer()).as_asgi()
    sockets = [await Opened(application).accepted() for _ in range(5)]
    monkeypatch.setattr(registry, "is_draining", False)
    registry.handle({"kind": "drain", "host": "another machine", "seconds": 0})
    assert not registry.is_draining
    registry.handle({"kind": "drain", "host": registry.host, "seconds": 0.1})
    assert [await each.close() for each in sockets] == [(1012, "")] * 5
    guarded = DenyMiddlewareStack(AsyncWebsocketConsumer.as_asgi())  # whose denial of anonymous clients is kept
    for late in (Opened(application), Opened(guarded)):
        await late.end()
        assert (late.server.answer.status, late.server.answer.header("retry-after")) == (503, "5")


@pytest.mark.parametrize("is_hanging", [True, False])
async def test_a_group_that_the_layer_does_not_let_go_of_is_left_once_it_does(
    is_hanging, users, headers_of, change, lose, monkeypatch, settings
):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 1 if is_hanging else GUARD}
    policy, layer, tries = Switch(), get_channel_layer(), []
    alice = await Opened(joining(policy), headers=headers_of("alice")).accepted()
    discard = layer.group_discard

    async def fail_once(group, channel):
        tries.append(group)
        if len(tries) == 1:
            await (asyncio.sleep(3600) if is_hanging else asyncio.sleep(0))
            raise ConnectionError
        await discard(group, channel)

    monkeypatch.setattr(layer, "group_discard", fail_once)
    await lose(policy)
    await until(lambda: tries)
    await change(update(first_name="Bob"))
    await until(lambda: not layer.groups.get("room"))
    await alice.stays()


@pytest.mark.parametrize("first_answer", [True, False, OperationalError()], ids=["stays", "the layer", "the policy"])
async def test_a_group_that_stays_or_cannot_be_left_or_asked_about_keeps_no_other(
    first_answer, users, headers_of, lose, monkeypatch
):
    first, second, layer = Switch(), Switch(), get_channel_layer()
    child = login_required(consumer(base=Joining, joins=[(first, "first"), (second, "second")])).as_asgi()
    alice = await Opened(child, headers=headers_of("alice")).accepted()
    discard = layer.group_discard

    async def fail(group, channel):
        if channel == "first":
            raise ConnectionError
        await discard(group, channel)

    monkeypatch.setattr(layer, "group_discard", fail)
    first.answer = first_answer
    await lose(second)
    await until(lambda: set(layer.groups["room"]) == {"first"})
    monkeypatch.setattr(layer, "group_discard", discard)
    await alice.stays()
    await until(lambda: not layer.groups.get("room"))


async def test_the_session_of_a_stream_is_confirmed_also_where_a_group_cannot_be_asked_about(
    users, sessions, headers_of, lose, change
):
    child, broken = members(), Switch()

    @login_required
    class Consumer(Joining):
        joins = ((broken, "channel"),)

        async def receive(self, text_data=None, bytes_data=None):
            stream = Server()
            stream.sent = sent
            own = {name: value for name, value in self.scope.items() if name != "user"}
            self.task = asyncio.ensure_future(child({**own, "session": sessions["bob"]}, stream.receive, stream.send))

    sent = []
    alice = await Opened(Consumer.as_asgi(), headers=headers_of("alice")).accepted()
    alice.server.events.put_nowait(NEXT)
    await until(lambda: sent)
    broken.answer = OperationalError()
    await change(type(sessions["bob"])(sessions["bob"].session_key).flush)
    await until(lambda: len(sent) == 2)
    assert sent[1] == {"type": "websocket.close", "code": 4401, "reason": "session_ended"}
    await alice.stays()
    await until(lambda: not get_channel_layer().groups.get("room"))


async def test_a_policy_whose_service_is_away_keeps_neither_a_group_nor_a_socket_that_another_policy_denies(
    users, headers_of, lose
):
    broken, other = Switch(), Switch()

    @require(broken)
    class Joining(AsyncWebsocketConsumer):
        async def connect(self):
            await self.accept()
            await self.scope["wsdeny"].join("room", other)

    member = await Opened(Joining.as_asgi(), headers=headers_of("alice")).accepted()
    both = await Opened(require(broken & other)(consumer()).as_asgi(), headers=headers_of("alice")).accepted()
    broken.answer = ConnectionRefusedError()
    await lose(other)
    assert await both.close() == (4403, "permission_denied")
    await until(lambda: not get_channel_layer().groups.get("room"))
    await member.stays()


async def test_what_is_no_name_of_a_group_is_not_joined(users, headers_of):
    @login_required
    class Consumer(AsyncWebsocketConsumer):
        async def connect(self):
            with pytest.raises(TypeError, match="valid"):
                await self.scope["wsdeny"].join("no name", IsAuthenticated())
            await self.accept()

    alice = await Opened(Consumer.as_asgi(), headers=headers_of("alice")).accepted()
    (socket,) = registry.sockets()
    assert socket.opened.parts == {}
    await alice.stays()


async def test_a_group_is_still_left_after_another_try_to_join_that_failed(users, headers_of, lose):
    policy, layer = Switch(), get_channel_layer()

    @login_required
    class Consumer(AsyncWebsocketConsumer):
        async def connect(self):
            await self.scope["wsdeny"].join("room", policy)
            with pytest.raises(OperationalError):
                await self.scope["wsdeny"].join("room", Switch(OperationalError()))
            await self.accept()

    alice = await Opened(Consumer.as_asgi(), headers=headers_of("alice")).accepted()
    await lose(policy)
    await until(lambda: not layer.groups.get("room"))
    await alice.stays()


async def test_a_stream_ends_with_the_user_whom_it_was_opened_for_by_a_token_of_its_own(users, headers_of, change):
    bearer = BearerAuthentication(lambda token: get_user_model().objects.filter(username=token, is_active=True).first())
    headers = [*headers_of("alice"), (b"authorization", b"Bearer bob")]
    alice = await Streams(DenyMiddlewareStack(members(), authentication=[bearer]), headers).accepted()
    await alice.open()

    def deactivate():
        bob = get_user_model().objects.get(username="bob")
        bob.is_active = False
        bob.save()

    await change(deactivate)
    await until(lambda: len(alice.sent) == 2)
    assert alice.sent[1]["code"] == 4401
    assert [socket["user"] for socket in registry.describe()] == [str(users["alice"].pk)]
    await alice.stays()
