"""The server's side of a handshake: its events, and the one answer that it gets."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .. import signals
from ..conf import conf
from ..headers import cut_reason
from ..http.messages import (
    EncodedDenial,
    Listener,
    accept_message,
    copy_messages,
    denial_for,
    receive_disconnect,
    receive_nothing,
    send_nothing,
    send_while_connected,
)
from ..http.servers import has_refused, is_granian, is_multiplexed
from ..log import escape, logger

if TYPE_CHECKING:
    from django.http.response import HttpResponseBase

    from ..http.context import RequestContext
    from ..types import Message, RawHeaders, Receive, Scope, Send

#: Seconds that a client has to take a close, or to answer that of ``DENY_WITH = "close"``.
_CLOSING = 1.0
#: Seconds that the application of a socket that was closed from outside has to end by itself.
CLOSED_GRACE = 5.0
#: Bytes of a body above which a server may have to wait for the client to read.
_LARGE_BODY = 16 * 1024


class Connection:
    """The ``receive`` and ``send`` that a handler was called with."""

    __slots__ = (
        "_cancelling",
        "_is_woken",
        "_reader",
        "_signalling",
        "_unsent",
        "app_limit",
        "close_code",
        "deny_with",
        "has_left",
        "listener",
        "receive",
        "scope",
        "send",
        "subprotocol",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        #: How it is denied, if a stack says so: ``"response"`` or ``"close"``; None: as the site.
        self.deny_with: str | None = None
        self.listener = Listener(receive)
        #: Whether the client left before it had an answer.
        self.has_left = False
        #: The subprotocol that the client has sent before a token: it is selected where the application selects none.
        self.subprotocol: str | None = None
        #: Ends the application once it was denied, or its socket closed from outside.
        self.app_limit: asyncio.Timeout | None = None
        #: The code of a close from outside.
        self.close_code: int | None = None
        #: The task that waits for the next event of an accepted socket, the last of several; how often it was being
        #: cancelled when it began to; and whether a close from outside has woken it.
        self._reader: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._is_woken = False
        self._signalling: asyncio.Task[None] | None = None
        #: What is left to send of a denial.
        self._unsent: list[Message] = []

    # Events

    def watch(self) -> None:
        """Note if the client leaves, until `unwatch`."""

        def look(task: asyncio.Future[Message]) -> None:
            try:
                event = task.result()
            except (Exception, asyncio.CancelledError):  # a future of granian 2.7 has no `cancelled`
                return
            self.has_left = self.has_left or event["type"] == "websocket.disconnect"

        task = self.listener.pending  # of an application that listens already
        if task is None:
            task = self.listener.pending = asyncio.ensure_future(self.receive())
        task.add_done_callback(look)

    def unwatch(self) -> None:
        """Stop listening; an event that has come is kept. After an accept some servers wait for another call."""
        pending = self.listener.pending
        if pending is not None and not pending.done():
            self.listener.pending = None
            pending.cancel()

    async def next_event(self) -> Message:
        """The next event of an accepted socket; a disconnect once that is closed from outside."""
        if self.close_code is not None:
            return await self.receive()
        self._reader = reader = asyncio.current_task()
        if reader is not None:
            self._cancelling = reader.cancelling()
        try:
            event = await (self.receive() if self.listener.pending is None else self.listener.last())
            if self.close_code is None:  # else a task that was not woken, for another one reads, too
                return event
        except asyncio.CancelledError:
            if not self._was_woken(reader):
                raise
        finally:
            if self._reader is reader:
                self._reader = None
        return await self.receive()

    async def pass_on(self, message: Message) -> None:
        """Send a message of the application, unless the socket or stream was closed from outside meanwhile.

        A close over HTTP/2 is waited for a second at most, see `is_multiplexed`.
        """
        if message.get("type") == "websocket.close" and is_multiplexed(self.scope):
            with suppress(TimeoutError):  # of a client that does not take it, and has left perhaps
                async with asyncio.timeout(_CLOSING):
                    await self.send(message)
        else:
            await self.send(message)

    # A close from outside

    async def close(self, code: int, reason: str) -> bool:
        """Close the accepted socket: the client gets the close, and the application a disconnect with `code`.

        The reason is cut at 123 bytes. What the application sends from now on is dropped; if it has not ended 5 s
        later, it is cancelled. False if the socket is closed already.
        """
        if self.close_code is not None or self.receive is receive_nothing:
            return False
        self.close_code = code
        self.end_app_in(CLOSED_GRACE)
        send, self.send, self.receive = self.send, _drop, self._receive_disconnect
        message = {"type": "websocket.close", "code": code, "reason": cut_reason(reason)}
        closing = asyncio.get_running_loop().create_task(_send(send, message))
        # Most servers send it without waiting; granian drops it if its application ends before. One that waits for a
        # client that does not read must not keep the application from its end.
        try:
            await (asyncio.wait({closing}, timeout=_CLOSING) if is_granian(send) else asyncio.sleep(0))
        finally:
            self._wake()
        try:
            async with asyncio.timeout(_CLOSING):
                await closing
        except Exception as error:  # The client has left, or the application has closed: servers differ.
            logger.debug("The close of %s was not sent: %r", escape(self.scope["path"]), error)
        return True

    def end_app_in(self, seconds: float) -> None:
        """Cancel the application so many seconds from now."""
        if self.app_limit is not None and not self.app_limit.expired():
            self.app_limit.reschedule(asyncio.get_running_loop().time() + seconds)

    @property
    def has_ended_app(self) -> bool:
        """Whether the application was cancelled by `end_app_in`."""
        return self.app_limit is not None and self.app_limit.expired()

    def _wake(self) -> None:
        """Have the task that waits for an event stop, without one of its own for each message."""
        self.listener.end()
        if self._reader is not None:
            self._is_woken = True
            self._reader.cancel()

    def _was_woken(self, reader: asyncio.Task[Any] | None) -> bool:
        """Whether the cancellation of `reader`, the current task, is that of `_wake` alone."""
        if reader is None or self._reader is not reader or not self._is_woken:
            return False
        self._is_woken = False
        return reader.uncancel() <= self._cancelling

    async def _receive_disconnect(self) -> Message:
        self.receive = _receive_cancelled
        return {"type": "websocket.disconnect", "code": self.close_code}

    # Answers

    async def accept(self, message: Message, headers: RawHeaders) -> None:
        """Send the application's accept, with these headers beside its own.

        Where the server has refused the handshake meanwhile, the application gets its disconnect.
        """
        if self.subprotocol is not None and message.get("subprotocol") is None:
            message = {**message, "subprotocol": self.subprotocol}
        await self.send(accept_message(message, headers, self.send))
        if has_refused(self.send):
            self.close_code = 1006
            self.end_app_in(CLOSED_GRACE)
            self.send, self.receive = _drop, self._receive_disconnect

    async def deny(self, denial: EncodedDenial | tuple[Message, Message], context: RequestContext) -> None:
        """Send a denial, and the signal, which no kept one has; a server's error for a client that left is ignored."""
        how = self.deny_with or conf.DENY_WITH
        try:
            if not isinstance(denial, EncodedDenial):
                self._unsent += copy_messages(denial)
                await self._send_rest()
                return
            self._unsent += denial_for(denial, self.scope, self.send, how, self.subprotocol)
            await self._send_rest(len(denial.response.content))
            self.send_signal(signals.handshake_denied, context, denial.response)
            if how == "close":
                self.listener.end()
                # Some servers drop the socket when the application returns, before the client has read the close.
                async with asyncio.timeout(_CLOSING):
                    await receive_disconnect(self.receive)
        except OSError:
            pass  # The client has left: ASGI has servers raise this. Or it did not answer the close in time.
        except RuntimeError:
            if not is_granian(self.send):
                raise
            # granian raises this for the same.

    async def finish(self) -> None:
        """Send what is left of a denial whose application was cancelled while it was sent."""
        if self._unsent:
            try:
                await send_while_connected(self._send_unsent(), self.receive)
            except OSError:  # pragma: no cover - as in `deny`, by chance just now
                pass

    async def _send_rest(self, size: int = 0) -> None:
        """Send what is left of a denial whose body has `size` bytes, unless the client leaves without reading it."""
        if size > _LARGE_BODY or is_multiplexed(self.scope):
            self.listener.end()
            await send_while_connected(self._send_unsent(), self.receive)
            self._unsent.clear()  # else the client has left
        else:
            await self._send_unsent()

    async def _send_unsent(self) -> None:
        try:
            while self._unsent:
                await self.send(self._unsent.pop(0))
        except Exception:
            self._unsent.clear()
            raise

    def send_signal(self, signal: signals.HandshakeSignal, context: RequestContext, response: HttpResponseBase) -> None:
        """Send one of the signals of the package, whose receivers run beside the handshake."""
        if signal.receivers:
            self._signalling = signals.send_signal(signal, context.state.consumer_class, context, response)

    async def wait_for_receivers(self) -> None:
        """Wait a moment for the receivers of the signal."""
        if self._signalling is not None:
            await signals.wait_for_receivers(self._signalling)

    def release(self) -> None:
        """Let go of the server: granian keeps a connection for as long as anything holds its callables."""
        self.listener.close()
        self.receive, self.send = receive_nothing, send_nothing


async def _send(send: Send, message: Message) -> None:
    await send(message)


async def _drop(message: Message) -> None:
    """The ``send`` of a socket that was closed from outside."""


async def _receive_cancelled() -> Message:
    """The ``receive`` after a disconnect: a plain exception would leave other tasks of a consumer pending."""
    raise asyncio.CancelledError
