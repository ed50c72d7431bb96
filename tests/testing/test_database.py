"""`SharedTransaction`: who uses the connection of the test's transaction, and that it is given back."""

import asyncio
import threading
from typing import ClassVar

import pytest
from asgiref.sync import sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.auth.models import Group
from django.db import close_old_connections, connections

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import user_passes_test
from channels_wsdeny.testing import WebsocketClient, assert_accepted
from channels_wsdeny.testing.database import SharedTransaction
from tests.support.scripted import accept


def here():
    """Return this thread and its database connection."""
    wrappers = connections.all(initialized_only=True)
    return threading.current_thread(), wrappers[0].connection if wrappers else None


@pytest.fixture
def own(db):
    """The database connection of the test's transaction; afterwards it is the main thread's alone."""
    Group.objects.create(name="friends")
    wrapper = connections["default"]
    yield wrapper.connection
    assert (wrapper.allow_thread_sharing, wrapper.in_atomic_block) == (False, True)
    assert "close_if_unusable_or_obsolete" not in vars(wrapper)
    assert Group.objects.filter(name="friends").exists()


async def test_asynchronous_code_queries_in_the_transaction(own):
    before = await sync_to_async(here)()
    async with SharedTransaction():
        thread, connection = await sync_to_async(here)()
        assert thread is not threading.current_thread()
        assert connection is own
        await sync_to_async(close_old_connections)()
        assert await Group.objects.acount() == 1
        await Group.objects.acreate(name="more friends")
    assert await sync_to_async(here)() == before


async def thread_of_a_policy():
    """Handshake with a site whose policy records where it queries."""
    found = []

    guard = user_passes_test(lambda user: not found.append(here()))
    app = DenyMiddlewareStack(guard(AsyncWebsocketConsumer.as_asgi()))
    assert_accepted(await WebsocketClient(app).handshake("/ws/"))
    return found[0]


async def test_policies_query_in_the_transaction(own):
    assert (await thread_of_a_policy())[1] is own


class CountingMiddleware:
    """A synchronous middleware, which holds a thread; it queries before and after the consumer does."""

    counted: ClassVar[list[int]] = []

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        self.counted.append(Group.objects.count())
        response = self.get_response(request)
        self.counted.append(Group.objects.count())
        return response


async def test_a_synchronous_middleware_queries_in_the_transaction_and_the_consumer_before_it_accepts(own):
    class Consumer(AsyncWebsocketConsumer):
        async def connect(self):
            await Group.objects.acreate(name="more friends")
            await self.accept()

    app = user_passes_test(lambda user: Group.objects.exists())(Consumer).as_asgi()
    stack = DenyMiddlewareStack(app, middleware=[f"{__name__}.CountingMiddleware"])
    CountingMiddleware.counted.clear()
    assert_accepted(await WebsocketClient(stack).handshake("/ws/"))
    assert CountingMiddleware.counted == [1, 2]


@pytest.mark.django_db(transaction=True)
async def test_without_a_transaction_nothing_is_shared():
    async with SharedTransaction() as transaction:
        assert transaction.connections == []
        thread, _ = await sync_to_async(here)()
        pool_thread, _ = await thread_of_a_policy()
    assert pool_thread not in {thread, threading.current_thread()}


async def test_the_connection_is_given_back_by_the_last_of_several(own):
    first, second = SharedTransaction(), SharedTransaction()
    await first.__aenter__()
    await second.__aenter__()
    await first.__aexit__()
    assert (await sync_to_async(here)())[1] is own
    await second.__aexit__()
    assert (await sync_to_async(here)())[1] is not own


async def test_the_connection_is_given_back_by_an_application_that_is_cancelled(own):
    async def hang(scope, receive, send):
        await send(accept())
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        async with WebsocketClient(hang, timeout=0.1).connect("/ws/"):
            assert (await sync_to_async(here)())[1] is own
    assert (await sync_to_async(here)())[1] is not own
