"""The departure of a client while something goes on, as the server's ``receive`` tells it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..exceptions import HandshakeDenied

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ..types import Message, Receive


async def send_while_connected(emission: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Await `emission`, which sends something, unless the client leaves; then it is cancelled, and has ended.

    Without this a body without an end would be sent for ever, and hypercorn waits for ever for a client to
    read on. Raises what `emission` does.
    """
    sending = asyncio.ensure_future(emission)
    leaving = asyncio.ensure_future(disconnect(receive))
    try:
        await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not sending.done() and leaving.exception() is not None:
            await asyncio.wait({sending})  # The server cannot tell any more whether the client is there.
    finally:
        leaving.cancel()
        if sending.cancel():
            await asyncio.wait({sending})  # It has something to close.
    if not sending.cancelled():
        sending.result()


async def disconnect(receive: Receive) -> None:
    """Wait for the server to say that the client has left; what else it says is dropped."""
    event = await receive()
    while not event["type"].endswith(".disconnect"):
        await asyncio.sleep(0)  # A server that has always something to say must not keep us from sending.
        event = await receive()


class Listener:
    """The server's events for an application that is told if its request comes to another end.

    Whoever gives up listening loses no event: the next one who listens gets it.
    """

    __slots__ = ("_end", "_receive", "pending")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        #: The event that somebody has begun to wait for.
        self.pending: asyncio.Future[Message] | None = None
        self._end: asyncio.Future[None] | None = None

    async def next(self) -> Message | None:
        """The server's next event; None if `end` is called before there is one."""
        end = self._end = self._end or asyncio.get_running_loop().create_future()
        while not end.done():
            event = self.pending = self.pending or asyncio.ensure_future(self._receive())
            waiting: set[asyncio.Future[Any]] = {event, end}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if event is self.pending:  # else it was for another one who listens
                self.pending = None
                return event.result()
        return None

    async def last(self) -> Message:
        """The event that is pending, once nothing else can end the wait."""
        event, self.pending = self.pending, None
        return await (self._receive() if event is None else event)

    def end(self) -> None:
        """Have whoever listens stop, and leave the server to others."""
        if self._end is not None and not self._end.done():
            self._end.set_result(None)
        if self.pending is not None:
            self.pending.cancel()
            self.pending = None

    def close(self) -> None:
        """Let go of the server."""
        self.end()
        self._receive = receive_from_nobody


async def receive_from_nobody() -> Message:
    """Stands for the server's, once that has been let go."""
    raise HandshakeDenied("The connection is over; nothing can be received.")
