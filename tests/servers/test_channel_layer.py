"""A channel layer on Redis, a server of the test's own, that stops to answer."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess

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


@pytest.fixture
def redis(tmp_path):
    """A process of Redis, and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    yield process, port
    process.send_signal(signal.SIGCONT)
    process.terminate()
    process.wait(GUARD)


@public
class Joins(AsyncWebsocketConsumer):
    groups = ("lobby",)


async def test_a_channel_layer_that_does_not_answer_keeps_no_client_waiting(redis, settings, caplog):
    process, port = redis
    layer = {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [("127.0.0.1", port)]}}
    settings.CHANNEL_LAYERS = {"default": layer}
    site = DenyMiddlewareStack(Joins.as_asgi())
    async with asyncio.timeout(GUARD):
        while _refuses(port):
            await asyncio.sleep(0.05)
        assert (await knock(site, "/")).status == 101
        settings.CHANNELS_WSDENY = {"ACCEPT_TIMEOUT": 0.2}
        process.send_signal(signal.SIGSTOP)
        assert (await knock(site, "/")).status == 500
        process.send_signal(signal.SIGCONT)
        settings.CHANNELS_WSDENY = {}
        assert (await knock(site, "/")).status == 101
        await get_channel_layer().close_pools()
    assert "Joins" in caplog.text
    assert "ACCEPT_TIMEOUT" in caplog.text


def _refuses(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0
