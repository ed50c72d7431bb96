"""Streams and groups that a socket enters by policies of their own are lost by themselves."""

import asyncio

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
from tests.support.clients import cookie_header
from tests.support.opened import Opened, update, user
from tests.support.policies import Switch
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
            events = asyncio.Queue()
            events.put_nowait({"type": "websocket.connect"})

            async def note(message):
                sent.append(message)

            streams.append((events, asyncio.ensure_future(child(scope, events.get, note))))
        for events, task in streams:
            events.put_nowait({"type": "websocket.disconnect", "code": 1000})
            await task

    return DenyMiddlewareStack(application)


async def test_a_stream_that_loses_its_policy_is_closed_by_itself(users, headers_of, change):
    policy, codes, sent = Switch(), [], []

    @require(policy)
    class Child(AsyncWebsocketConsumer):
        async def disconnect(self, code):
            codes.append(code)

    alice = await Opened(demultiplexer(Child.as_asgi(), sent), headers=headers_of("alice")).accepted()
    for _ in range(2):
        alice.server.events.put_nowait(NEXT)
    await until(lambda: [message["type"] for message in sent] == ["websocket.accept"] * 2)
    policy.answer = Deny(409, "Too late.")
    await change(update(first_name="Alice"))
    await until(lambda: len(sent) == 4 and len(codes) == 2)
    assert sent[2:] == [{"type": "websocket.close", "code": 4409, "reason": "Too late."}] * 2
    assert codes == [4409, 4409]
    await alice.stays()


@public
async def accepts(scope, receive, send):
    await send({"type": "websocket.accept"})


async def assert_closed_by(policy, application, headers, change):
    """The default `policy` that has let `application` go on closes its socket."""
    alice = await Opened(DenyMiddlewareStack(application, default_policy=policy), headers=headers).accepted()
    await until(lambda: policy.asked)
    policy.answer = Deny(409, "Too late.")
    await change(update(first_name="Alice"))
    assert await alice.close() == (4409, "Too late.")


async def test_a_socket_whose_public_part_has_accepted_is_closed_by_the_policy_of_the_rest(users, headers_of, change):
    async def application(scope, receive, send):
        await accepts(scope, receive, send)
        while (await receive())["type"] != "websocket.disconnect":
            pass

    await assert_closed_by(Switch(), application, headers_of("alice"), change)


async def test_that_policy_counts_if_the_public_part_accepts_while_it_is_asked(users, headers_of, change):
    asked, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Switch):
        async def acheck(self, request):
            asked.set()
            await go_on.wait()
            return await super().acheck(request)

    async def application(scope, receive, send):
        reading = asyncio.create_task(receive())
        await asked.wait()
        await accepts(scope, receive, send)
        go_on.set()
        await reading
        while (await receive())["type"] != "websocket.disconnect":
            pass

    await assert_closed_by(Slow(), application, headers_of("alice"), change)


async def test_a_socket_with_open_streams_is_closed_and_they_with_it(users, headers_of):
    codes, sent = [], []

    @require(Switch())
    class Child(AsyncWebsocketConsumer):
        async def disconnect(self, code):
            codes.append(code)

    alice = await Opened(demultiplexer(Child.as_asgi(), sent), headers=headers_of("alice")).accepted()
    for _ in range(2):
        alice.server.events.put_nowait(NEXT)
    await until(lambda: len(sent) == 2)
    await arevoke(user=users["alice"], reason="spam")
    assert await alice.close() == (4403, "spam")
    assert len(codes) == 2
    assert registry.sockets() == []


async def test_a_stream_whose_policy_is_lost_while_it_is_asked_does_not_open(users, headers_of, change):
    sent, asked, go_on = [], [], asyncio.Event()

    class Slow(Switch):
        async def acheck(self, request):
            answer = self.answer
            asked.append(answer)
            if len(asked) == 1:
                await go_on.wait()
            return answer

    policy = Slow()
    child = require(policy)(type("Child", (AsyncWebsocketConsumer,), {})).as_asgi()
    alice = await Opened(demultiplexer(child, sent), headers=headers_of("alice")).accepted()
    alice.server.events.put_nowait(NEXT)
    await until(lambda: asked)
    policy.answer = False
    await change(update(first_name="Alice"))
    await until(lambda: sent)
    go_on.set()
    await asyncio.sleep(0.05)
    assert [message["type"] for message in sent] == ["websocket.close"]
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


@pytest.mark.parametrize("by", ["session", "token"])
@pytest.mark.parametrize("name", LOSSES)
async def test_a_stream_that_opens_later_is_asked_about_the_user_of_then(name, by, gifted, headers_of, change):
    policy, lose = LOSSES[name]
    sent, child = [], require(policy)(type("Child", (AsyncWebsocketConsumer,), {})).as_asgi()
    bearer = BearerAuthentication(lambda token: get_user_model().objects.get(username=token))
    application = DenyMiddlewareStack(demultiplexer(child, sent), authentication=[bearer, SessionAuthentication()])
    given = headers_of("alice") if by == "session" else [(b"authorization", b"Bearer alice")]
    alice = await Opened(application, headers=given).accepted()
    for kinds in (["accept"], ["accept", "close"], ["accept", "close", "close"]):
        if len(kinds) == 2:
            await change(lose)
        else:
            alice.server.events.put_nowait(NEXT)
        await until(lambda kinds=kinds: len(sent) == len(kinds))
        assert [message["type"].removeprefix("websocket.") for message in sent] == kinds
    await alice.stays()


async def test_a_user_whom_a_middleware_has_set_is_that_of_a_later_stream_and_is_set_again(
    gifted, headers_of, change, settings
):
    settings.CHANNELS_WSDENY = {"MIDDLEWARE": ["tests.live.test_rechecks.SplitVerifier"]}
    policy, sent = UserPassesTest(lambda user: user.is_verified), []
    child = require(policy)(type("Child", (AsyncWebsocketConsumer,), {})).as_asgi()
    alice = await Opened(demultiplexer(child, sent), headers=headers_of("alice")).accepted()
    alice.server.events.put_nowait(NEXT)
    await until(lambda: sent)
    (socket,) = registry.sockets()
    await socket.opened.ask_parts()
    assert [message["type"] for message in sent] == ["websocket.accept"]
    await change(update(first_name="Mallory"))
    await until(lambda: len(sent) == 2)
    alice.server.events.put_nowait(NEXT)
    await until(lambda: len(sent) == 3)
    assert [message["type"] for message in sent] == ["websocket.accept", *["websocket.close"] * 2]
    await alice.stays()


async def test_a_stream_whose_session_has_ended_does_not_open(users, headers_of, change):
    sent = []
    child = login_required(type("Child", (AsyncWebsocketConsumer,), {})).as_asgi()
    alice = await Opened(demultiplexer(child, sent), headers=headers_of("alice")).accepted()
    await change(lambda: Session.objects.all().delete())  # No signal tells of that.
    alice.server.events.put_nowait(NEXT)
    await until(lambda: sent)
    assert sent == [{"type": "websocket.close", "code": 4401, "reason": "session_ended"}]
    await alice.stays()


async def test_a_stream_with_another_session_ends_with_that(users, sessions, headers_of, change):
    sent = []
    child = login_required(type("Child", (AsyncWebsocketConsumer,), {})).as_asgi()

    async def as_bob(scope, receive, send):
        own = {name: value for name, value in scope.items() if name != "user"}
        await child({**own, "session": sessions["bob"]}, receive, send)

    bob = type(sessions["bob"])(sessions["bob"].session_key)  # as another request has it

    def renew():
        bob.cycle_key()
        bob.save()

    alice = await Opened(demultiplexer(as_bob, sent), headers=headers_of("alice")).accepted()
    alice.server.events.put_nowait(NEXT)
    await until(lambda: sent)
    await change(renew)
    (socket,) = registry.sockets()
    await socket.opened.ask_parts()
    assert len(sent) == 1
    await change(bob.flush)
    assert await socket.opened.ask_parts(is_confirmed=False)  # It might be getting a new key.
    assert len(sent) == 1
    await until(lambda: len(sent) == 2)
    assert sent[1] == {"type": "websocket.close", "code": 4401, "reason": "session_ended"}
    await alice.stays()


class Joining(AsyncWebsocketConsumer):
    policy = None

    async def connect(self):
        await self.scope["wsdeny"].join("room", self.policy)
        await self.accept()

    async def heard(self, event):
        await self.send(text_data="heard")


async def test_a_socket_leaves_its_groups_when_it_ends(users, headers_of, change):
    consumer = login_required(type("Consumer", (Joining,), {"policy": Switch()}))
    alice = await Opened(consumer.as_asgi(), headers=headers_of("alice")).accepted()
    await get_channel_layer().group_send("room", {"type": "heard"})
    await until(lambda: alice.server.kinds[-1] == "websocket.send")
    context = registry.sockets()[0].opened.context
    await alice.leave()
    await until(lambda: not get_channel_layer().groups.get("room"))
    with pytest.raises(TypeError, match="open, or being accepted"):
        await context.join("room", Switch())


async def test_joining_by_a_policy_that_denies_denies_the_handshake_of_one_who_does_so_in_connect(users, headers_of):
    consumer = login_required(type("Consumer", (Joining,), {"policy": Switch(False)}))
    alice = Opened(consumer.as_asgi(), headers=headers_of("alice"))
    await alice.end()
    assert alice.server.answer.status == 403
    assert not get_channel_layer().groups.get("room")


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
        async def connect(self):
            await self.accept()

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

    consumer = public(type("Consumer", (Joining,), {"policy": IsAuthenticated()}))
    classes = [SessionAuthentication(), BearerAuthentication(nobody)]
    application = DenyMiddlewareStack(consumer.as_asgi(), hooks=hooks, authentication=classes)
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
    consumer = login_required(type("Consumer", (Joining,), {"policy": policy}))
    alice = await Opened(consumer.as_asgi(), headers=headers_of("alice")).accepted()
    await renew()
    await change(update(first_name="Alice"))
    (socket,) = registry.sockets()
    await socket.opened.ask_parts()
    assert policy.asked > 1
    assert get_channel_layer().groups["room"]
    await alice.stays()


async def test_groups_are_joined_and_streams_opened_where_the_session_has_a_new_key(users, headers_of, renew):
    heard, sent = [], []
    child = login_required(type("Child", (AsyncWebsocketConsumer,), {})).as_asgi()

    async def note(message):
        sent.append(message)

    @login_required
    class Late(AsyncWebsocketConsumer):
        async def receive(self, **received):
            heard.append(await self.scope["wsdeny"].join("room", Switch()))
            events = [{"type": "websocket.disconnect", "code": 1000}, {"type": "websocket.connect"}]

            async def take():
                return events.pop()

            await child(self.scope, take, note)

    alice = await Opened(Late.as_asgi(), headers=headers_of("alice")).accepted()
    await renew()
    alice.server.events.put_nowait(NEXT)
    await until(lambda: sent)
    assert (heard, sent[0]["type"]) == ([None], "websocket.accept")
    await alice.stays()


ONCE = {
    "a limit": MaxConnections(1),
    "one of two": InGroup("editors") | Throttle("1/min"),
    "both": InGroup("editors") & Throttle("1/min"),
    "none": ~Throttle("1/min"),
}


@pytest.mark.parametrize("name", ONCE)
async def test_joining_by_a_policy_that_counts_once_is_refused(name, users, headers_of):
    consumer = login_required(type("Consumer", (Joining,), {"policy": ONCE[name]}))
    alice = Opened(consumer.as_asgi(), headers=headers_of("alice"))
    await alice.end()
    assert alice.server.answer.status == 500
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
    application = public(type("Consumer", (AsyncWebsocketConsumer,), {})).as_asgi()
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


async def test_a_stream_that_was_closed_is_not_closed_again_by_what_it_raises_then(users, headers_of, change):
    policy, sent, ended = Switch(), [], []

    @require(policy)
    class Child(AsyncWebsocketConsumer):
        async def disconnect(self, code):
            ended.append(code)
            raise Deny(402)

    alice = await Opened(demultiplexer(Child.as_asgi(), sent), headers=headers_of("alice")).accepted()
    alice.server.events.put_nowait(NEXT)
    await until(lambda: sent)
    policy.answer = False
    await change(update(first_name="Alice"))
    await until(lambda: ended)
    await alice.stays()
    assert [message.get("code") for message in sent] == [None, 4403]


@pytest.mark.parametrize("is_hanging", [True, False])
async def test_a_group_that_the_layer_does_not_let_go_of_is_left_once_it_does(
    is_hanging, users, headers_of, change, monkeypatch, settings
):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.2}
    policy, layer, tries = Switch(), get_channel_layer(), []
    consumer = login_required(type("Consumer", (Joining,), {"policy": policy}))
    alice = await Opened(consumer.as_asgi(), headers=headers_of("alice")).accepted()
    discard = layer.group_discard

    async def fail_once(group, channel):
        tries.append(group)
        if len(tries) == 1:
            await (asyncio.sleep(3600) if is_hanging else asyncio.sleep(0))
            raise ConnectionError
        await discard(group, channel)

    monkeypatch.setattr(layer, "group_discard", fail_once)
    policy.answer = False
    await change(update(first_name="Alice"))
    await until(lambda: tries)
    await change(update(first_name="Bob"))
    await until(lambda: not layer.groups.get("room"))
    await alice.stays()


async def test_each_channel_of_a_socket_leaves_a_group_by_its_own_policy(users, headers_of, change):
    lost, kept, layer = Switch(), Switch(), get_channel_layer()

    @login_required
    class Consumer(AsyncWebsocketConsumer):
        async def connect(self):
            await self.scope["wsdeny"].join("room", lost, "lost")
            await self.scope["wsdeny"].join("room", kept, "kept")
            await self.accept()

    alice = await Opened(Consumer.as_asgi(), headers=headers_of("alice")).accepted()
    lost.answer = False
    await change(update(first_name="Alice"))
    await until(lambda: set(layer.groups["room"]) == {"kept"})
    await alice.stays()
    await until(lambda: not layer.groups.get("room"))


async def test_a_group_is_still_left_after_another_try_to_join_that_failed(users, headers_of, change):
    policy, layer = Switch(), get_channel_layer()

    @login_required
    class Consumer(AsyncWebsocketConsumer):
        async def connect(self):
            await self.scope["wsdeny"].join("room", policy)
            with pytest.raises(OperationalError):
                await self.scope["wsdeny"].join("room", Switch(OperationalError()))
            await self.accept()

    alice = await Opened(Consumer.as_asgi(), headers=headers_of("alice")).accepted()
    policy.answer = False
    await change(update(first_name="Alice"))
    await until(lambda: not layer.groups.get("room"))
    await alice.stays()


async def test_a_stream_ends_with_the_user_whom_it_was_opened_for_by_a_token_of_its_own(users, headers_of, change):
    sent = []
    bearer = BearerAuthentication(lambda token: get_user_model().objects.filter(username=token, is_active=True).first())
    consumer = login_required(type("Child", (AsyncWebsocketConsumer,), {})).as_asgi()
    application = demultiplexer(DenyMiddlewareStack(consumer, authentication=[bearer]), sent)
    headers = [*headers_of("alice"), (b"authorization", b"Bearer bob")]
    alice = await Opened(application, headers=headers).accepted()
    alice.server.events.put_nowait(NEXT)
    await until(lambda: sent)

    def deactivate():
        bob = get_user_model().objects.get(username="bob")
        bob.is_active = False
        bob.save()

    await change(deactivate)
    await until(lambda: len(sent) == 2)
    assert sent[1]["code"] == 4401
    assert [socket["user"] for socket in registry.describe()] == [str(users["alice"].pk)]
    await alice.stays()
