"""What a handshake waits for, and what it leaves behind: the callables of a server are freed with it."""

import asyncio
import gc
import weakref

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from channels.generic.websocket import WebsocketConsumer
from django.core.cache import cache, caches

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.policies import AllowAny
from tests.support.caches import Connecting
from tests.support.clients import GUARD, cookie_header, end_of, http_scope, output_of, websocket_scope
from tests.support.opened import Opened
from tests.support.policies import AsyncCheck, Check, raising
from tests.support.scripted import accept, body, start
from tests.support.site import go_on
from tests.support.sockets import Server, consumer

pytestmark = pytest.mark.django_db


ALLOW = AllowAny()


def stack(app, *, policy=ALLOW, **hooks):
    registry = Hooks()
    for kind, hook in hooks.items():
        registry.register(hook, kind)
    return DenyMiddlewareStack(app, default_policy=policy, hooks=registry)


async def waits(scope, receive, send):
    while True:
        await receive()


async def raises(scope, receive, send):
    raise RuntimeError("by the application")


async def fails_accepted(scope, receive, send):
    await send(accept())
    raise RuntimeError("by the application")


def close(self):
    return self.close()


def deny(self):
    for message in (start(418), body()):
        self.base_send(message)


CLOSING = consumer(close).as_asgi()
ACCEPTING = consumer(lambda self: self.accept()).as_asgi()
SLOW = AsyncCheck(lambda request: asyncio.sleep(GUARD))


def chained(request):
    try:
        raise KeyError
    except KeyError as error:
        raise Deny(409) from error


async def give_up(request, call_next):
    async with asyncio.timeout(0.01):
        return await call_next(request)


async def freed(app, *, cancelled=False):
    """The server's answer, once it is freed without the garbage collector; None if it is not freed."""
    server = Server()
    kept = weakref.ref(server)
    task = asyncio.create_task(app(websocket_scope("/"), server.receive, server.send))
    if cancelled:
        await asyncio.sleep(0.01)
        task.cancel()
    await asyncio.wait({task}, timeout=GUARD)
    assert task.done()
    status = "nothing" if cancelled else server.answer.status
    if not task.cancelled() and task.exception() is not None:
        status = "raised"
    del task, server
    for _ in range(10):  # Futures tell those that wait for them later.
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return status if kept() is None else None


@pytest.fixture
def _no_collector(quiet):
    gc.collect()
    gc.disable()
    yield
    gc.enable()


CASES = {
    "the consumer closes": (403, CLOSING, {}),
    "the consumer closes, around": (403, CLOSING, {"around": go_on}),
    "the application raises": (500, raises, {}),
    "the application raises, around": (500, raises, {"around": go_on}),
    "the accepted application raises": ("raised", fails_accepted, {}),
    "an around hook gives up": (503, waits, {"around": give_up}),
    "a policy is cancelled": (500, CLOSING, {"policy": AsyncCheck(raising(asyncio.CancelledError))}),
    "a policy denies because of another exception": (409, CLOSING, {"policy": Check(chained)}),
    "a policy hangs": (503, CLOSING, {"policy": SLOW}),
    "a policy hangs, around": (503, CLOSING, {"policy": SLOW, "around": go_on}),
}


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("case", CASES)
async def test_what_the_server_gave_is_freed_without_the_garbage_collector(settings, case):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.1 if "hangs" in case else GUARD}
    status, app, options = CASES[case]
    assert await freed(stack(app, **options)) == status


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("around", [{}, {"around": go_on}])
async def test_a_handshake_that_the_server_cancels_is_freed_without_the_garbage_collector(around):
    assert await freed(stack(CLOSING, policy=SLOW, **around), cancelled=True) == "nothing"


@pytest.mark.parametrize(("connect", "status"), [(close, 403), (deny, 418)])
async def test_a_hook_may_use_the_thread_of_a_synchronous_consumer_that_denies(settings, connect, status):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 5}

    async def around(request, call_next):
        response = await call_next(request)
        # It runs in asgiref's one thread, in which the consumer waits.
        response["X-Thread"] = str(await sync_to_async(int)(7))
        return response

    server = Server()
    application = stack(consumer(connect, WebsocketConsumer).as_asgi(), around=around)
    await application(websocket_scope("/"), server.receive, server.send)
    assert server.answer.status == status
    assert (b"x-thread", b"7") in server.sent[0]["headers"]


@pytest.fixture(params=["cache", "cached_db"])
def uses_caches(settings, request):
    """Options of a stack whose hooks and policy use a cache, and the session in one."""
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{request.param}"
    settings.CACHES = {"default": {"BACKEND": "tests.support.caches.Connecting"}}

    def look(request, response=None):
        cache.get("a")
        request.session.get("a")

    async def look_on_loop(request):
        await cache.aget("a")
        return True

    Connecting.connected.clear()
    return {"policy": AsyncCheck(look_on_loop), "request": look, "response": look}


def connected_caches():
    gc.collect()
    return len(Connecting.connected)


COOKIE = cookie_header(sessionid="a" * 32)


@pytest.mark.parametrize("around", [{}, {"around": go_on}])
async def test_open_sockets_keep_no_cache_connected_of_their_own(uses_caches, around):
    application = stack(ACCEPTING, **uses_caches, **around)
    sockets = [await Opened(application, headers=COOKIE).accepted() for _ in range(8)]
    assert 0 < connected_caches() < 4  # Those of threads that are used again and again.
    for socket in sockets:
        await socket.leave()


async def test_open_sockets_share_the_cache_that_was_there_before_them(uses_caches):
    """A server may have made it as it imported the site."""
    cache.get("a")
    shared, used = caches["default"], []
    application = stack(consumer(lambda self: used.append(caches["default"]) or self.accept()).as_asgi(), **uses_caches)
    sockets = [await Opened(application, headers=COOKIE).accepted() for _ in range(2)]
    assert used == [shared] * 2
    for socket in sockets:
        await socket.leave()


async def test_responses_that_stream_keep_no_cache_connected_of_their_own(settings, uses_caches):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}
    is_over = asyncio.Event()

    async def streams(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await is_over.wait()
        await send({"type": "http.response.body"})

    application = stack(streams, **{name: uses_caches[name] for name in ("policy", "request")})
    responses = [ApplicationCommunicator(application, http_scope("/", headers=COOKIE)) for _ in range(8)]
    for response in responses:
        await response.send_input({"type": "http.request"})
        assert (await output_of(response))["status"] == 200
    assert 0 < connected_caches() < 4
    is_over.set()
    for response in responses:
        await end_of(response)
