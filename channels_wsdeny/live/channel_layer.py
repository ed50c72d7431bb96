"""Events between the processes of a site, by its own channel layer.

Each process that has sockets subscribes once: one channel in one group. It sends heartbeats, which say how many
messages it has sent. If a message is missing, or the own heartbeat does not come back, the policies of all sockets are
asked again.

Without a layer, and with the one in memory, all sockets are those of this process.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import functools
import os
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from channels.layers import InMemoryChannelLayer, get_channel_layer

from ..concurrency import is_being_cancelled
from ..conf import conf
from ..log import logger, warn_once
from .registry import registry
from .scheduler import running_loop, spawn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from .registry import Event

GROUP = "wsdeny.live"
#: Seconds that sending a message may take, and that the first handshake of a process waits for its subscription.
_SENDING = 2.0
_SUBSCRIBING = 1.0
#: How often the event loop comes round at least in what is a time limit for the layer.
_ROUNDS = 20
#: Messages that a process without sockets sends at once in so many seconds: one that is forked for a job, or ends by
#: ``os._exit()``, runs no timer, and nothing as it ends.
_MOST_AT_ONCE, _SPAN = 20, 1.0
#: Seconds in which it sends one message from then on: a command may change a thousand users.
_GATHERING = 0.2
#: Seconds for a message that another has overtaken.
_OVERTAKEN = 1.0
#: Seconds after which a lost connection is tried again.
_RETRY = 0.5
#: Heartbeats that a process may miss before its channel is taken out of the group.
_MISSED = 3
#: Events that wait for a layer which is away, before those that have policies asked again become one; and how many of
#: the others are kept.
_MOST_WAITING, _MOST_CLOSING = 1000, 10_000
_ASKING = frozenset({"all", "group", "users"})
#: Sockets in one message.
_AT_ONCE = 500
#: Silent processes whose messages are still counted.
_MOST_SILENT = 1000


def get_layer() -> Any:
    """The site's channel layer, if it reaches other processes; else None."""
    try:
        layer = get_channel_layer()
    except Exception as error:  # A layer that cannot be made must not keep a user from logging out.
        warn_once(f"The channel layer cannot be used ({type(error).__name__}).")
        return None
    return None if isinstance(layer, InMemoryChannelLayer) else layer


class _Here(ThreadPoolExecutor):
    """Runs what it is given in the caller's thread, such as the look-up of a host's address."""

    def submit(  # pragma: no cover - as a process ends
        self, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # the caller gets it
            future.set_exception(error)
        return future


class Sender:
    """Sends the events of this process, in order, several in one message."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, in a forked child."""
        self._lock = threading.Lock()
        self._waiting: list[Event] = []
        #: How many messages were sent, or tried to.
        self.count = 0
        #: When the last messages were sent by a process without an event loop, in seconds of `time.monotonic`.
        self._sent: deque[float] = deque(maxlen=_MOST_AT_ONCE)
        self._timer: threading.Timer | None = None
        #: The subscription of this process: its loop is the one that sends.
        self.subscription: Subscription | None = None

    def send(self, event: Event) -> None:
        """Send an event soon. From any thread; an error is logged, and the event is sent later."""
        with self._lock:
            is_first = not self._waiting
            self._waiting.append(event)
        subscription = current_subscription()
        if subscription is not None:
            with suppress(RuntimeError):  # Its loop has been closed in between.
                subscription.loop.call_soon_threadsafe(spawn, self._flush_logged)
                return
        if running_loop() is None:
            self._send_blocking(is_first=is_first)
        else:
            spawn(self._flush_logged)
            if is_first:  # The loop may end before, as that of an asynchronous view under WSGI does.
                self._flush_later(_GATHERING)

    def _send_blocking(self, *, is_first: bool) -> None:
        """Send what waits, in a process without an event loop; of very many events, several in one message."""
        now = time.monotonic()
        if len(self._sent) == _MOST_AT_ONCE and now - self._sent[0] < _SPAN:
            if is_first:  # Else a timer runs.
                self._flush_later(_GATHERING)
            return
        self._sent.append(now)
        self._flush_blocking()
        self._flush_later(conf.HEARTBEAT)

    def _flush_blocking(self) -> None:
        try:
            async_to_sync(self.flush)()
        except Exception as error:  # protects the view that logs a user out
            _log_unsent(error)

    async def _flush_logged(self) -> None:
        try:
            await self.flush()
        except Exception as error:  # The next heartbeat tries again.
            _log_unsent(error)
            if current_subscription() is None:  # There are none.
                self._flush_later(conf.HEARTBEAT)
        except asyncio.CancelledError:  # The loop ends.
            self._flush_later(_GATHERING)
            raise

    def _flush_later(self, seconds: float) -> None:
        """Send what waits then; if nothing does, tell how much was sent: this process sends no heartbeats."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(seconds, self._flush_in_time)
            self._timer.daemon = True
            self._timer.start()

    def _flush_in_time(self) -> None:
        if current_subscription() is not None:  # pragma: no cover - A loop has begun by chance before this timer.
            return
        if self._waiting:
            self._flush_blocking()
            self._flush_later(conf.HEARTBEAT)
        else:
            with suppress(Exception):  # pragma: no cover - It is told with the next message, if that is not before.
                async_to_sync(self.send_now)({})

    def flush_at_exit(self) -> None:
        """Send what waits as the process ends, when no executor takes work any more."""
        if not self._waiting:
            return
        loop = asyncio.new_event_loop()
        loop.set_default_executor(_Here())
        try:
            loop.run_until_complete(self.flush())
        except Exception as error:  # There is no later.
            _log_unsent(error)
        finally:
            loop.close()

    async def flush(self) -> None:
        """Send what waits. Raises what the layer raises; then it waits on."""
        with self._lock:
            events, self._waiting = self._waiting, []
        if not events:
            return
        try:
            await self.send_now({"events": events})
        except BaseException:
            with self._lock:
                self._waiting = [*events, *self._waiting]
                if len(self._waiting) > _MOST_WAITING:
                    # All that has policies asked again is one event. What closes sockets by none has to be told.
                    closing = [event for event in self._waiting if event["kind"] not in _ASKING]
                    self._waiting = [{"kind": "all"}, *closing[-_MOST_CLOSING:]]
            raise

    async def send_now(self, message: dict[str, Any]) -> None:
        """Send a message to all processes. Raises what the layer raises, and `TimeoutError`."""
        layer = get_layer()
        if layer is None:
            return
        with self._lock:
            number, self.count = self.count, self.count + 1
        message = {"type": "wsdeny.live", "process": registry.process, "number": number, **message}
        await _within(_SENDING, layer.group_send(GROUP, message))


async def _within(seconds: float, waiting: Coroutine[Any, Any, object]) -> None:
    """Await `waiting`, for so many seconds in which the event loop comes round. Raises what it does, or `TimeoutError`.

    A loop that is busy comes round seldom, and is no sign that the layer is away. To subscribe again would lose the
    messages that wait in the channel.
    """
    task = asyncio.ensure_future(waiting)
    try:
        for _ in range(_ROUNDS):
            await asyncio.wait({task}, timeout=seconds / _ROUNDS)
            if task.done():
                task.result()
                return
        raise TimeoutError
    finally:
        if task.cancel():
            await asyncio.wait({task}, timeout=seconds)


def _log_strange() -> None:
    logger.exception("A message in the group %s could not be understood.", GROUP)


def _log_unsent(error: Exception) -> None:
    logger.warning("Other processes cannot be told what has changed: %s. It is tried again.", type(error).__name__)


class Subscription:
    """The subscription of this process, in one of its event loops."""

    def __init__(self, layer: Any) -> None:
        self.layer, self.loop = layer, asyncio.get_running_loop()
        self.channel: str | None = None
        #: Set once it was made, or has failed.
        self.tried = asyncio.Event()
        #: For each process: how many of its messages have come; and when the last has, and its channel.
        self._received: dict[str, int] = {}
        self._heard: dict[str, tuple[float, str | None]] = {}
        #: The number for those that have been silent, as one without sockets is between log-outs; the longest first.
        self._silent: dict[str, int] = {}
        self.replies: dict[str, asyncio.Queue[Any]] = {}
        self._is_back = asyncio.Event()
        context = contextvars.Context()
        self.task = self.loop.create_task(self._run(), context=context)
        self._beating = self.loop.create_task(self._beat(), context=context)

    @property
    def is_alive(self) -> bool:
        """Whether its loop still runs it."""
        return not self.loop.is_closed() and not self.task.done()

    async def _run(self) -> None:
        while not is_being_cancelled():  # redis-py may turn its cancellation into a TimeoutError, on Python 3.11.
            try:
                self.channel = await self.layer.new_channel()
                await self.layer.group_add(GROUP, self.channel)
                self._received.clear()
                self._silent.clear()
                self.tried.set()
                registry.handle({"kind": "all"})  # What has happened before was not heard.
                await sender.send_now({"channel": self.channel})  # It may die before its first heartbeat.
                while True:
                    message = await self.layer.receive(self.channel)
                    try:
                        self._take(message)
                    except Exception:  # a message of another version, or that is not of this package
                        _log_strange()
            except Exception as error:  # The layer may be back in a moment.
                if self.loop.is_closed():  # pragma: no cover - in a process of its own: without a cancellation
                    return
                logger.warning("The channel layer failed (%s): subscribing again.", type(error).__name__)
                self.tried.set()
                await asyncio.sleep(_RETRY)

    def _take(self, message: dict[str, Any]) -> None:
        process = message["process"]
        if "reply" in message:
            queue = self.replies.get(message["reply"])
            if queue is not None:
                queue.put_nowait(message)
            return
        self._heard[process] = (time.monotonic(), message.get("channel"))
        if process == registry.process:
            if "channel" in message:
                self._is_back.set()
            return
        self._count(process, message["number"])
        for event in message.get("events", ()):
            try:
                registry.handle(event)
            except Exception:  # one of another version; those after it may close sockets
                _log_strange()
        if "asks" in message:
            spawn(functools.partial(_describe_to, self.layer, **message["asks"]))

    def _count(self, process: str, number: int) -> None:
        """Note that message `number` of `process` has come; those before it may still, for a moment."""
        received = self._received.get(process, self._silent.pop(process, None))
        if received is None:
            self._received[process] = number + 1
            return
        self._received[process] = received + 1
        if number > received:
            self.loop.call_later(_OVERTAKEN, self._look_for_gap, process, number + 1)

    def _look_for_gap(self, process: str, expected: int) -> None:
        if process in self._received and self._received[process] < expected:
            logger.warning("Messages of another process were lost: all sockets are asked again.")
            self._received[process] = expected
            registry.handle({"kind": "all"})

    async def _beat(self) -> None:
        while not is_being_cancelled():
            await asyncio.sleep(conf.HEARTBEAT)
            if self.channel is None:  # pragma: no cover - The layer is away, by chance at this moment.
                continue
            self._is_back.clear()
            try:
                await _within(_SENDING, self.layer.group_add(GROUP, self.channel))  # Groups expire.
                await sender.flush()
                await sender.send_now({"channel": self.channel})
                await _within(_SENDING, self._is_back.wait())
            except Exception as error:
                logger.warning("The own heartbeat did not come back (%s): subscribing again.", type(error).__name__)
                self.task.cancel()
                await asyncio.wait({self.task}, timeout=_SENDING)
                self.task = self.loop.create_task(self._run(), context=contextvars.Context())
            await self._forget_dead()

    async def _forget_dead(self) -> None:
        """Take the channels of processes that have died out of the group, in which they would stay for a day."""
        now = time.monotonic()
        for process, (heard, channel) in list(self._heard.items()):
            if process != registry.process and now - heard > (_MISSED + 1) * conf.HEARTBEAT:
                del self._heard[process]
                if process in self._received:
                    self._silent[process] = self._received.pop(process)
                if channel is not None:
                    with suppress(Exception):
                        await _within(_SENDING, self.layer.group_discard(GROUP, channel))
        while len(self._silent) > _MOST_SILENT:
            del self._silent[next(iter(self._silent))]


sender = Sender()


async def _describe_to(layer: Any, channel: str, name: str) -> None:
    """Tell another process the sockets of this one."""
    described = registry.describe()
    for start in range(0, len(described), _AT_ONCE):
        part = described[start : start + _AT_ONCE]
        message = {"type": "wsdeny.live", "process": registry.process, "reply": name, "sockets": part}
        await layer.send(channel, message)


def current_subscription() -> Subscription | None:
    """The subscription of this process, if it has one."""
    subscription = sender.subscription
    return subscription if subscription is not None and subscription.is_alive else None


def subscribe() -> Awaitable[None] | None:
    """Subscribe, if this process has not yet. The first handshakes await what this returns, for a second at most."""
    subscription = current_subscription()
    if subscription is None:
        layer = get_layer()
        if layer is None:
            return None
        subscription = sender.subscription = Subscription(layer)
    if subscription.tried.is_set() or subscription.loop is not asyncio.get_running_loop():
        return None
    return _wait(subscription)


def is_subscribed_elsewhere() -> bool:
    """Whether another event loop has the subscription of this process: once that ends, this one needs its own."""
    subscription = current_subscription()
    return subscription is not None and subscription.loop is not asyncio.get_running_loop()


async def _wait(subscription: Subscription) -> None:
    try:
        async with asyncio.timeout(_SUBSCRIBING):
            await subscription.tried.wait()
    except TimeoutError:  # Later handshakes do not wait; all sockets are asked again once it is made.
        subscription.tried.set()


def publish(event: Event) -> None:
    """Apply an event here at once, and have it applied in all other processes. From any thread; never raises."""
    registry.handle(event)
    if get_layer() is not None:
        sender.send(event)


os.register_at_fork(after_in_child=sender.reset)
atexit.register(sender.flush_at_exit)
