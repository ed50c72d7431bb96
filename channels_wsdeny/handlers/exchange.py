"""The exchange: the messages of one HTTP request that an ASGI app answers, and of the denial in its place.

It is *pending* until the response has *started*, it was *denied*, or the client has *left*.
"""

from __future__ import annotations

import asyncio
import enum
from contextvars import ContextVar
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

from .. import status as statuses
from ..concurrency import hop
from ..conf import conf
from ..decisions import ALLOWED, Raised
from ..exceptions import HandshakeDenied
from ..http import messages as emitter
from ..http.bodies import Record
from . import corridor
from .appstream import AppStream
from .departure import Listener, send_while_connected

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..decisions import Cause
    from ..http.context import Passage
    from ..http.messages import Refusal
    from ..policies.base import Policy
    from ..types import ASGIApp, Message, Receive, Send


#: The exchange whose denial is on its way out, through the wrappers of an application that has ended. What
#: is left of that application may go on speaking, in tasks of its own.
_denying: ContextVar[Exchange | None] = ContextVar("wsdeny_denying", default=None)

#: Messages that an application may send to nobody. Django's handler ends within a few: it has to hear of
#: the end first. Others wait for an exception, and would go on for ever.
_PATIENCE = 100


class State(enum.Enum):
    """Where an exchange is."""

    PENDING = "pending"
    STARTED = "started"
    DENIED = "denied"
    LEFT = "left"


class Exchange:
    """One HTTP request's messages; `receive` and `send` are what the application gets."""

    def __init__(self, passage: Passage, receive: Receive, send: Send) -> None:
        self.passage = passage
        self.state = State.PENDING
        #: Whether nothing of the site's is lost if the application ends where it sends what nobody hears.
        #: Django's handler has things to close after its last message, and it may be in any but a consumer.
        self.may_unwind = False
        #: What is asked as the application starts to answer, unless somebody within has been asked.
        self.owed: tuple[Policy, ...] = ()
        #: The innermost application that has ended.
        self.ended: ASGIApp | None = None
        self._receive, self._send = receive, send
        self._listener = Listener(receive)
        #: One message at a time until the start of the response is out, so that none overtakes it.
        self._lock = asyncio.Lock()
        #: Whether anything has gone out.
        self._has_sent = False
        #: How many messages nobody has heard.
        self._unheard = 0
        #: The response of the application, once a hook has rewritten its body.
        self._stream: AppStream | None = None
        self._denial: asyncio.Future[None] | None = None
        self._body = Record()
        self._body_is_over = False

    def is_in(self, state: State) -> bool:
        """Whether the exchange is in `state` now, perhaps other than before the last await."""
        return self.state is state

    async def run(self, inside: Awaitable[None]) -> None:
        """Take the exchange through its outermost door, to its end. Raises what could not be answered."""
        try:
            await inside
            if self.is_in(State.PENDING):
                silence = f"{self.ended!r} ended without a response to the request."
                await self.deny(Raised(ImproperlyConfigured(silence)))
        except asyncio.CancelledError:
            if self._denial is not None:
                self._denial.cancel()
            raise
        finally:
            if self.is_in(State.PENDING):
                self.state = State.LEFT  # for what is left of the application: it cannot answer any more
            try:
                if self._stream is not None:
                    self._stream.abandon()
                    await hop(self._stream.close)
                failure = await self._end_of_denial()
            finally:
                if self.passage.onion is not None:  # Its hooks have their say in the denial first.
                    self.passage.onion.drop()
            if self._stream is not None:
                failure = failure or self._stream.failure
            self._listener.close()
        if failure is not None:
            raise failure

    async def _end_of_denial(self) -> BaseException | None:
        if self._denial is None:
            return None
        try:
            await asyncio.wait({self._denial})
        except asyncio.CancelledError:
            self._denial.cancel()
            await asyncio.wait({self._denial})
            raise
        return None if self._denial.cancelled() else self._denial.exception()

    async def receive(self) -> Message:
        """The application's ``receive``."""
        event = await self._next_event()
        if event["type"] == "http.disconnect":
            if self.is_in(State.PENDING):
                self.state = State.LEFT
        else:
            self._body_is_over = not event.get("more_body")
            if self.passage.onion is not None and self.passage.onion.rescues:
                self._body.add(event.get("body", b""))
            elif event.get("body"):
                self._body.lose()
        return event

    async def _next_event(self) -> Message:
        """The server's next event; once denied, the end: the client is served."""
        if self.state is State.DENIED or (self._stream is not None and self._stream.failure is not None):
            return {"type": "http.disconnect"}
        if self._stream is None and not (self.state is State.PENDING and (self.passage.onion or self.owed)):
            return await self._listener.last()
        return await self._listener.next() or {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """The application's ``send``: hooks and the session have their say as the response starts."""
        if _denying.get() is self:
            self._has_sent = True
            await self._send(message)
            return
        if self.is_in(State.PENDING) or self._lock.locked():
            async with self._lock:
                if self.is_in(State.PENDING):
                    await self._answer(message)
                    return
        if not self.is_in(State.STARTED):
            await self._drop(message)
        elif self._stream is not None and message["type"] == "http.response.body":
            await self._stream.feed(message)
        else:
            await self._send(message)

    async def _answer(self, message: Message) -> None:
        """Take a message that the application sent before its response has started."""
        if message["type"] == "http.response.start":
            await self._start(message)
        else:
            await self._send(message)

    async def _drop(self, message: Message) -> None:
        self._unheard += 1
        if not self.may_unwind and self._unheard < _PATIENCE:
            await asyncio.sleep(0)  # so that it hears of the end
        elif self.is_in(State.LEFT):
            raise HandshakeDenied(f"The client has left; {message['type']!r} cannot be sent.")
        else:
            raise HandshakeDenied(f"The request was denied already; {message['type']!r} cannot be sent.")

    async def _start(self, message: Message) -> None:
        headers = emitter.check_headers(message)
        if self.owed and not self.passage.is_asked and statuses.is_content(message["status"]):
            verdict = await corridor.admit(self.passage, self.passage.remaining(self.owed), hop)
            if verdict is not ALLOWED:
                await self.deny(verdict, self._send)
                return
        if not self.is_in(State.PENDING):
            await self._drop(message)
            return
        response = AppStream(message["status"], headers)
        answer = await corridor.answer(self.passage, response, hop)
        if not self.is_in(State.PENDING):  # An around hook has ended, or the client has left.
            await self._drop(message)
            return
        if answer is not response:
            await self.deny(answer, self._send)
            return
        try:
            headers = emitter.raw_headers(response)
        except ValueError as error:  # a hook's, or they would not have come this far
            await self.deny(Raised(error), self._send)
            return
        self.state = State.STARTED
        if response.is_rewritten:
            headers = [pair for pair in headers if pair[0] != b"content-length"]
            self._stream = response
        await self._send({**message, "status": response.status_code, "headers": headers})
        if self._stream is not None:
            self._stream.open(self._send, self._listener.end)

    async def deny(self, denial: Cause, send: Send | None = None) -> None:
        """Answer with a denial, by the `send` of whoever wanted to run, unless there is an answer already.

        In a task of its own: wrappers may give up what they are doing, the denial must not be.
        """
        if self.is_in(State.PENDING):
            await asyncio.shield(self.begin_denial(denial, self._send if send is None else send))

    def begin_denial(self, denial: Cause, send: Send | None = None) -> asyncio.Future[None]:
        """Have the request denied; `run` waits for it."""
        self.state = State.DENIED
        if self.passage.onion is not None:
            self.passage.onion.walk.overtake()
        self._listener.end()
        self._denial = asyncio.ensure_future(self._answer_with(denial, self._send if send is None else send))
        return self._denial

    async def _answer_with(self, denial: Cause, send: Send) -> None:
        refusal = await corridor.refuse(self.passage, denial, hop)
        _denying.set(self)  # This is a task of its own.
        try:
            await self._emit(refusal, send)
            if not self._has_sent and send != self._send and not refusal.response.streaming:
                await self._emit(refusal, self._send)  # A wrapper has kept what it should have sent on.
        except OSError:
            pass  # The client has left, and the server says so as ASGI asks.

    async def _emit(self, refusal: Refusal, send: Send) -> None:
        emission = emitter.emit_response(refusal, send)
        if refusal.response.streaming:
            await send_while_connected(emission, self._receive)
        else:
            await emission

    async def keep_body(self, error: Exception) -> None:
        """Let the hooks that `error` is for see the body, also what the application has not read of it."""
        onion = self.passage.onion
        if onion is None or not onion.takes(error):
            return
        try:
            async with asyncio.timeout(conf.POLICY_TIMEOUT):
                while not (self._body_is_over or self._body.is_too_big or self._body.is_lost):
                    if not self.is_in(State.PENDING):
                        break
                    await self.receive()
        except TimeoutError:
            return
        self._body.give_back(self.passage.request)
