"""An open socket is closed from outside: its client, its application, and what is left of both."""

import asyncio
import gc
import logging
from types import SimpleNamespace

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import URLRouter
from django.contrib.auth.models import Group, User
from django.urls import path
from django.utils.functional import SimpleLazyObject

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import login_required, public, with_hooks
from channels_wsdeny.handlers import connection, websocket
from channels_wsdeny.live import arevoke, revoke
from channels_wsdeny.live.registry import registry
from channels_wsdeny.routing.resolver import EndpointMatch
from tests.support.mirror import made
from tests.support.opened import Opened
from tests.support.policies import raising
from tests.support.site import go_on
from tests.support.sockets import consumer, errors
from tests.support.threads import until

pytestmark = pytest.mark.django_db
CLOSE = {"type": "websocket.close", "code": 4403, "reason": "spam"}
around = made("around", go_on)


async def accept(receive, send):
    await receive()
    await send({"type": "websocket.accept"})


@pytest.fixture
def codes():
    """What the applications of a test got to know of their end."""
    return []


def noting(codes, base=AsyncWebsocketConsumer, **methods):
    """A public consumer that notes the codes of its ends."""
    return public(consumer(base=base, disconnect=lambda self, code: codes.append(code), **methods)).as_asgi()


def consumers(codes):
    async def raw(scope, receive, send):
        await accept(receive, send)
        while (event := await receive())["type"] != "websocket.disconnect":
            pass
        codes.append(event["code"])

    async def impatient(scope, receive, send):
        """Gives each event a time of its own, and takes those events in a task."""
        await accept(receive, send)
        while True:
            async with asyncio.timeout(60):
                event = await asyncio.create_task(receive())
            if event["type"] == "websocket.disconnect":
                codes.append(event["code"])
                return

    return {
        "async": noting(codes),
        "sync": noting(codes, WebsocketConsumer),
        "raw": public(raw),
        "impatient": public(impatient),
        "stack": DenyMiddlewareStack(noting(codes)),
        "stacks": DenyMiddlewareStack(DenyMiddlewareStack(noting(codes))),
        "around": DenyMiddlewareStack(noting(codes), hooks=around),
        "around within": DenyMiddlewareStack(with_hooks(around)(noting(codes))),
        "sync around": DenyMiddlewareStack(noting(codes, WebsocketConsumer), hooks=around),
    }


@pytest.mark.parametrize("is_left", [False, True])
@pytest.mark.parametrize("kind", consumers([]))
async def test_a_socket_that_is_closed_ends_with_its_code_on_both_sides_or_is_left_and_nothing_stays(
    kind, is_left, codes
):
    opened = await Opened(consumers(codes)[kind]).accepted()
    assert len(registry.sockets()) == 1
    if is_left:
        await opened.leave()
    await arevoke(path="/room/", reason="spam")
    await opened.end()
    assert opened.server.sent[1:] == ([] if is_left else [CLOSE])
    assert codes == [1001 if is_left else 4403]
    assert registry.sockets() == []


async def test_a_client_that_names_no_host_keeps_no_socket_of_another_open(settings):
    settings.ALLOWED_HOSTS = ["example.com"]
    application = DenyMiddlewareStack(public(AsyncWebsocketConsumer.as_asgi()))
    without = await Opened(application, server=("10.0.0.1", 80)).accepted()
    named = await Opened(application, headers=[(b"host", b"example.com")]).accepted()
    await arevoke(host="example.com")
    assert (await named.close())[0] == 4403
    await without.stays()


async def test_slashes_that_channels_leaves_out_hide_no_socket_from_its_path():
    consumer = public(type("Consumer", (AsyncWebsocketConsumer,), {})).as_asgi()
    application = DenyMiddlewareStack(URLRouter([path("ws/", URLRouter([path("room/", consumer)]))]))
    spellings = ("/ws/room/", "//ws/room/", "/ws///room/", "ws/room/")
    opened = [await Opened(application, spelt).accepted() for spelt in spellings]
    await arevoke(path="/ws/room/")
    assert [(await each.close())[0] for each in opened] == [4403] * 4


async def test_a_path_may_be_written_as_in_an_address():
    """As `reverse()` and `get_absolute_url()` write it."""
    application = DenyMiddlewareStack(public(AsyncWebsocketConsumer.as_asgi()))
    for named in ("/büro 1/", "/b%C3%BCro%201/"):
        opened = await Opened(application, "/büro 1/").accepted()
        await arevoke(path=named)
        assert (await opened.close())[0] == 4403
    discount = await Opened(application, "/100%25/").accepted()
    await arevoke(path="/100%25/")
    assert (await discount.close())[0] == 4403


@pytest.mark.parametrize("root_path", ["/app", "/app/"])
async def test_a_socket_below_a_prefix_is_found_by_its_path_with_and_without_that(root_path):
    application = DenyMiddlewareStack(public(AsyncWebsocketConsumer.as_asgi()))
    for named in ("/room/", "/app/room/"):
        opened = await Opened(application, "/app/room/", root_path=root_path).accepted()
        await arevoke(path=named)
        assert (await opened.close())[0] == 4403


async def test_who_comes_back_before_the_transaction_of_a_revocation_is_committed_is_closed_then(change):
    """Its policies still see what the transaction is about to take away."""
    application, back = DenyMiddlewareStack(public(AsyncWebsocketConsumer.as_asgi())), []
    loop = asyncio.get_running_loop()

    async def come():
        back.append(await Opened(application).accepted())

    def remove():
        revoke(path="/room/", reason="removed")
        asyncio.run_coroutine_threadsafe(come(), loop).result()

    await come()
    await change(remove)
    assert [await each.close() for each in back] == [(4403, "removed")] * 2


async def test_only_the_sockets_that_match_are_closed(codes):
    application = consumers(codes)["raw"]
    host = [(b"host", b"Testserver:8000")]
    one, other = [await Opened(application, path, headers=host).accepted() for path in ("/room/", "/other/")]
    await arevoke(path="/room/", host="other.test")
    await arevoke(path="/room/", host="TESTSERVER")
    await one.end()
    await other.leave()
    assert codes == [4403, 1001]


async def test_a_busy_application_gets_its_disconnect_next_and_what_it_sends_is_dropped(codes):
    busy = asyncio.Event()

    @public
    async def application(scope, receive, send):
        await accept(receive, send)
        await busy.wait()
        await send({"type": "websocket.send", "text": "a secret"})
        await send({"type": "websocket.close"})
        codes.append((await receive())["code"])
        await receive()  # There is nothing more to come.
        codes.append("never")

    opened = await Opened(application).accepted()
    await arevoke(path="/room/", reason="spam")
    await until(lambda: len(opened.server.sent) == 2)
    busy.set()
    await opened.end()
    assert opened.server.sent[1:] == [CLOSE]
    assert codes == [4403]


async def test_what_was_held_back_before_the_close_is_dropped_too():
    @public
    async def application(scope, receive, send):
        await accept(receive, send)
        held_back = send({"type": "websocket.send", "text": "a secret"})
        await receive()
        await held_back

    opened = await Opened(application).accepted()
    await arevoke(path="/room/", reason="spam")
    await opened.end()
    assert opened.server.sent[1:] == [CLOSE]


async def hang(*args):
    await asyncio.sleep(3600)


async def swallow(*args):
    """Swallow the first cancellation."""
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        pass


@pytest.mark.parametrize("hanging", [hang, swallow])
@pytest.mark.parametrize("is_around", [True, False])
async def test_an_application_that_hangs_is_cancelled_and_the_log_names_it(hanging, is_around, monkeypatch, caplog):
    for module in (connection, websocket):
        monkeypatch.setattr(module, "CLOSED_GRACE", 0.05)

    hangs = public(type("Hanging", (AsyncWebsocketConsumer,), {"disconnect": hanging}))
    application = DenyMiddlewareStack(hangs.as_asgi(), hooks=around if is_around else None)
    opened = await Opened(application).accepted()
    with caplog.at_level(logging.WARNING, "channels_wsdeny"):
        await arevoke(path="/room/")
        await opened.end()
    assert "Hanging" in caplog.text
    assert "did not end within" in caplog.text
    assert registry.sockets() == []


@pytest.mark.parametrize("send", [hang, raising(ConnectionResetError)])
async def test_a_client_that_does_not_read_cannot_keep_its_socket_and_one_that_has_left_is_no_error(
    send, codes, caplog
):
    opened = await Opened(consumers(codes)["async"]).accepted()
    (socket,) = registry.sockets()
    socket.opened._connection.send = send
    await arevoke(path="/room/")
    await opened.end()
    assert (codes, errors(caplog)) == ([4403], [])


async def test_a_server_that_cancels_a_socket_while_it_is_closed_has_it_cancelled(codes):
    opened = await Opened(consumers(codes)["raw"]).accepted()
    (socket,) = registry.sockets()
    closing = asyncio.ensure_future(socket.opened.close(4403, ""))
    await asyncio.sleep(0)
    opened.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opened.end()
    await closing
    assert codes == []


async def test_an_open_socket_has_no_task_of_ours(codes):
    before = asyncio.all_tasks()
    opened = await Opened(consumers(codes)["raw"]).accepted()
    assert asyncio.all_tasks() - before == {opened.task}
    await opened.leave()


@pytest.mark.parametrize(("detail", "reason"), [("Twice is too often.", "Twice is too often."), ("é" * 100, "é" * 61)])
async def test_a_consumer_closes_its_own_socket_with_a_status_and_detail(detail, reason, codes):
    async def receive(self, **received):
        await self.scope["wsdeny"].close(409, detail)
        await self.scope["wsdeny"].close(410, "It is closed already.")

    opened = await Opened(noting(codes, receive=receive)).accepted()
    opened.server.events.put_nowait({"type": "websocket.receive", "text": "x"})
    await opened.end()
    assert opened.server.sent[1:] == [{"type": "websocket.close", "code": 4409, "reason": reason}]
    assert codes == [4409]


@pytest.mark.parametrize("status", [200, 600])
async def test_a_consumer_that_closes_with_a_status_of_none_gets_an_error(status, codes):
    async def receive(self, **received):
        with pytest.raises(ValueError, match="400-599"):
            await self.scope["wsdeny"].close(status)
        codes.append(status)

    opened = await Opened(noting([], receive=receive)).accepted()
    opened.server.events.put_nowait({"type": "websocket.receive", "text": "x"})
    await until(lambda: codes)
    await opened.stays()


async def test_a_user_may_be_the_lazy_object_of_a_request(users, headers_of):
    opened = await Opened(login_required(consumer()).as_asgi(), headers=headers_of("alice")).accepted()
    await arevoke(user=SimpleLazyObject(lambda: users["alice"]))
    assert await opened.close() == (4403, "revoked")


REFUSED = [{}, {"path": "/", "status": 200}, {"path": "/", "status": 600}, {"path": "room/"}]
NO_USER = [SimpleNamespace(pk=None), User.objects.filter(pk=1), ["1"], Group(pk=1)]


@pytest.mark.parametrize("arguments", [*REFUSED, *({"user": each} for each in NO_USER)])
async def test_a_revocation_of_all_or_of_no_path_or_with_a_status_of_none_is_refused(arguments):
    with pytest.raises((TypeError, ValueError), match="revoke"):
        await arevoke(**arguments)
    with pytest.raises(RuntimeError, match=r"await arevoke\(\)"):
        revoke(path="/")


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_of_two_tasks_that_read_at_once_neither_gets_a_message_after_the_close(is_cancelled, codes):
    """One is told of the close; the cancellation of the other stays its own."""
    readers = []

    @public
    async def application(scope, receive, send):
        await accept(receive, send)
        readers.extend(asyncio.ensure_future(receive()) for _ in range(2))
        await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)

    opened = await Opened(application).accepted()
    (socket,) = registry.sockets()
    closing = asyncio.ensure_future(socket.opened.close(4403, ""))
    await asyncio.sleep(0)
    if is_cancelled:
        readers[0].cancel()
    else:
        opened.server.events.put_nowait({"type": "websocket.receive", "text": "a command"})
    await closing
    await opened.end()
    await asyncio.wait(readers)
    results = [reader.result() for reader in readers if not reader.cancelled()]
    assert results == [{"type": "websocket.disconnect", "code": 4403}]
    assert readers[0].cancelled() or not is_cancelled


async def test_a_task_that_reads_after_another_has_is_still_told_of_the_close(codes):
    @public
    async def application(scope, receive, send):
        await accept(receive, send)
        first, second = [asyncio.ensure_future(receive()) for _ in range(2)]
        await first
        codes.append((await second)["code"])

    opened = await Opened(application).accepted()
    opened.server.events.put_nowait({"type": "websocket.receive", "text": "x"})
    await asyncio.sleep(0.01)
    await arevoke(path="/room/")
    await opened.end()
    assert codes == [4403]


@pytest.mark.parametrize("kind", ["stack", "around", "async"])
async def test_an_open_socket_keeps_nothing_of_what_its_endpoint_was_found_by(kind, codes):
    opened = await Opened(consumers(codes)[kind]).accepted()
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, EndpointMatch)]
    await opened.leave()


@pytest.mark.parametrize("kind", ["stack", "around within"])
async def test_a_consumer_that_closes_before_it_accepts_denies(kind, codes):
    class Closing(AsyncWebsocketConsumer):
        async def connect(self):
            await self.scope["wsdeny"].close(409, "That was too much.")
            await self.accept()

    endpoint = public(Closing) if kind == "stack" else with_hooks(around)(public(Closing))
    opened = Opened(DenyMiddlewareStack(endpoint.as_asgi()))
    await opened.end()
    assert opened.server.answer.status == 409
    assert b"That was too much." in opened.server.answer.body
