"""Every snippet and table of docs/live.md says what is so."""

import asyncio
import json

import pytest
from channels.generic.http import AsyncHttpConsumer
from channels.layers import get_channel_layer
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, User

from channels_wsdeny.conf import conf
from channels_wsdeny.decorators import login_required
from channels_wsdeny.live.channel_layer import get_layer
from tests.docs.pages import run
from tests.support.clients import fetch
from tests.support.opened import Opened
from tests.support.threads import until

page = run("live.md")
REGISTERED = type(admin.site.get_model_admin(User))
admin.site.unregister(User)
admin.site.register(User, UserAdmin)  # as before, for the tests of other pages
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("hasty")]
USE = [{"type": "websocket.receive", "text": json.dumps({"type": kind})} for kind in ("pay", "moderate", "spam")]


async def chat(headers):
    return await Opened(page.ChatConsumer.as_asgi(), "/ws/rooms/lobby/", headers=headers).accepted()


def texts(opened):
    return [json.loads(message["text"]) for message in opened.server.sent if message["type"] == "websocket.send"]


def test_the_settings_of_the_page_are_valid_and_its_action_is_one_of_the_admin(settings):
    settings.CHANNELS_WSDENY = page.CHANNELS_WSDENY
    assert conf.RECHECK_INTERVAL == 300
    settings.CHANNEL_LAYERS = page.CHANNEL_LAYERS
    assert get_layer() is get_channel_layer()
    assert page.close_sockets.short_description
    assert REGISTERED is page.ClosingUserAdmin
    assert REGISTERED.actions == [page.close_sockets]


async def test_the_functions_of_the_page_close_and_count_sockets(users, headers_of, change):
    opened = [await chat(headers_of(name)) for name in ("alice", "bob")]
    assert await change(lambda: page.count_of(users["alice"])) == 1
    await change(lambda: page.ban(users["alice"]))
    assert (await opened[0].end(), opened[0].server.sent[-1]["reason"]) == (None, "banned")
    await change(lambda: page.close_room("lobby"))
    assert (await opened[1].end(), opened[1].server.sent[-1]["reason"]) == (None, "the room is closed")


async def test_the_consumer_of_the_page_asks_again_joins_and_closes(users, headers_of, change):
    await change(lambda: users["alice"].groups.add(Group.objects.create(name="moderators")))
    alice = await chat(headers_of("alice"))
    for event in USE:
        alice.server.events.put_nowait(event)
    await alice.end()
    assert texts(alice) == [{"user": "alice"}, {"paid": True}, {"joined": "moderators"}]
    assert alice.server.sent[-1] == {"type": "websocket.close", "code": 4409, "reason": "That was too much."}


async def test_a_response_that_streams_goes_on_after_a_log_out(sessions, headers_of, change):
    async def handle(self, body):
        await self.send_headers()
        await self.send_body(b"before ", more_body=True)
        has_begun.set()
        await has_ended.wait()
        with pytest.raises(TypeError, match="are for sockets"):
            await self.scope["wsdeny"].recheck()
        await self.send_body(b"after")

    has_begun, has_ended = asyncio.Event(), asyncio.Event()
    stream = login_required(type("Stream", (AsyncHttpConsumer,), {"handle": handle})).as_asgi()
    fetching = asyncio.create_task(fetch(stream, "/", headers=headers_of("alice")))
    await has_begun.wait()
    await change(sessions["alice"].flush)
    has_ended.set()
    assert ((await fetching).status, (await fetching).body) == (200, b"before after")


async def test_a_member_who_leaves_the_group_leaves_the_group_of_the_layer_and_stays(users, headers_of, change):
    await change(lambda: users["alice"].groups.add(Group.objects.create(name="moderators")))
    alice = await chat(headers_of("alice"))
    alice.server.events.put_nowait(USE[1])
    await until(lambda: len(texts(alice)) == 2)
    assert get_channel_layer().groups["moderators"]
    await change(lambda: users["alice"].groups.clear())
    await until(lambda: not get_channel_layer().groups.get("moderators"))
    await alice.leave()


async def test_one_who_is_no_member_does_not_join_and_is_told_so(users, headers_of):
    alice = await chat(headers_of("alice"))
    alice.server.events.put_nowait(USE[1])
    await until(lambda: len(texts(alice)) == 2)
    assert texts(alice)[1] == {"denied": "permission_denied"}
    assert not get_channel_layer().groups.get("moderators")
    await alice.leave()


async def test_one_who_is_no_member_is_closed_where_the_consumer_does_not_catch_that(users, headers_of):
    async def receive_json(self, content):
        await self.scope["wsdeny"].join("moderators", page.InGroup("moderators"))

    careless = type("Careless", (page.ChatConsumer,), {"receive_json": receive_json}).as_asgi()
    alice = await Opened(careless, "/ws/rooms/lobby/", headers=headers_of("alice")).accepted()
    alice.server.events.put_nowait(USE[1])
    await alice.end()
    assert alice.server.sent[-1]["code"] == 4403
    assert not get_channel_layer().groups.get("moderators")
