"""A channel layer on Redis, a server of the test's own, that stops to answer."""

import asyncio
import shutil

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import public
from tests.support.clients import GUARD, knock

pytest.importorskip("channels_redis", reason="channels-redis is not installed")
pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed"),
]


@public
class Joins(AsyncWebsocketConsumer):
    groups = ("lobby",)


async def test_a_channel_layer_that_does_not_answer_keeps_no_client_waiting(redis, settings, caplog):
    hosts = [{"address": redis.url, "socket_timeout": None}]  # redis-py 8 would end a receiver that waits for 5 s.
    layer = {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": hosts}}
    settings.CHANNEL_LAYERS = {"default": layer}
    site = DenyMiddlewareStack(Joins.as_asgi())
    async with asyncio.timeout(GUARD):
        assert (await knock(site, "/")).status == 101
        settings.CHANNELS_WSDENY = {"ACCEPT_TIMEOUT": 0.2}
        redis.pause()
        assert (await knock(site, "/")).status == 500
        redis.go_on()
        settings.CHANNELS_WSDENY = {}
        assert (await knock(site, "/")).status == 101
        await get_channel_layer().close_pools()
    assert "Joins" in caplog.text
    assert "ACCEPT_TIMEOUT" in caplog.text
