"""The wire of one handshake: what the server and the application tell each other, kept in order.

A handshake is *connecting* until it is *accepted* or *denied*, and then stays so. A denial is final:
what the application sends after it goes nowhere, and its next event is the end. After the accept,
messages pass straight through.
"""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING

from django.http import HttpResponse

from .. import signals
from ..concurrency import hop
from ..conf import conf
from ..exceptions import Deny, HandshakeDenied
from ..http import messages as emitter
from ..http.appdenial import AppDenial, denial_of_close
from ..log import log_denial
from . import corridor, stock
from .departure import Listener, disconnect, receive_from_nobody, send_while_connected

if TYPE_CHECKING:
    from django.http.response import HttpResponseBase

    from ..decisions import Cause
    from ..http.context import Passage
    from ..http.messages import Refusal
    from ..signals import HandshakeSignal
    from ..types import Message, Receive, Scope, Send

#: Seconds that a client has to answer the close of ``DENY_WITH = "close"``, before its socket is dropped.
_CLOSING = 1.0


#: Bytes of a body above which a server may have to wait for the client to read.
_MUCH = 16 * 1024


class State(enum.Enum):
    """Where a handshake is."""

    CONNECTING = "connecting"
    ACCEPTED = "accepted"
    DENIED = "denied"


def is_connect(event: Message) -> bool:
    """Whether the server's first event is ``websocket.connect``; False if the client has left already.

    Raises `ValueError` for anything else.
    """
    if event["type"] == "websocket.disconnect":
        return False
    if event["type"] != "websocket.connect":
        raise ValueError(f"Expected 'websocket.connect' from the server, found {event['type']!r}.")
    return True


class Wire:
    """One handshake's messages; `receive` and `send` are what the application gets."""

    __slots__ = (
        "_app_denial",
        "_connect_taken",
        "_denial",
        "_deny_with",
        "_disconnect_taken",
        "_listener",
        "_lock",
        "_receive",
        "_scope",
        "_send",
        "_telling",
        "client_left",
        "consumer_class",
        "passage",
        "state",
    )

    def __init__(
        self, passage: Passage, scope: Scope, receive: Receive, send: Send, deny_with: str | None
    ) -> None:
        self.passage = passage
        self.state = State.CONNECTING
        #: Whether the client left before it had an answer: there is nobody to give one to.
        self.client_left = False
        #: The class of the consumer that the handshake is for; None while it is not known.
        self.consumer_class: type | None = None
        self._scope, self._receive, self._send = scope, receive, send
        self._listener = Listener(receive)
        self._deny_with = deny_with
        #: One message at a time until the handshake is answered, so that none overtakes the answer.
        self._lock = asyncio.Lock()
        self._app_denial: AppDenial | None = None
        self._denial: asyncio.Future[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._connect_taken = self._disconnect_taken = False

    def is_in(self, state: State) -> bool:
        """Whether the handshake is in `state` now, perhaps other than before the last await."""
        return self.state is state

    async def take_connect(self) -> bool:
        """Take the server's ``websocket.connect``; returns False if the client has left already."""
        return is_connect(await self._receive())

    async def release(self, *, cancelled: bool) -> None:
        """Finish a denial that is under way (unless the server `cancelled` us), then let go of the server.

        granian keeps a connection for as long as anything holds its callables, and a cycle would hold
        them until the garbage collector comes by. Receivers of signals get a moment to end.
        """
        if self.state is State.CONNECTING:
            self.state = State.DENIED  # for what is left of the application: it cannot answer any more
        try:
            if self._denial is not None:
                if cancelled:
                    self._denial.cancel()
                await self._denial
        finally:
            self._listener.close()
            self._receive, self._send = receive_from_nobody, _send_to_nobody
        if self._telling is not None and not cancelled:
            await signals.linger(self._telling)

    async def receive(self) -> Message:
        """The application's ``receive``."""
        if not self._connect_taken and self.state is not State.DENIED:
            self._connect_taken = True
            return {"type": "websocket.connect"}
        if self.state is State.ACCEPTED:
            return await (self._receive() if self._listener.pending is None else self._listener.last())
        event = await self._listener.next() if self.state is State.CONNECTING else None
        if event is not None:
            self.client_left = self.is_in(State.CONNECTING) and event["type"] == "websocket.disconnect"
            return event
        if self._connect_taken and not self._disconnect_taken:
            self._disconnect_taken = True
            return {"type": "websocket.disconnect", "code": 1006}
        # A plain exception would leave the consumer's other tasks pending; a cancellation cleans up.
        raise asyncio.CancelledError

    async def send(self, message: Message) -> None:
        """The application's ``send``."""
        if self.state is State.ACCEPTED:
            await self._send(message)
            return
        async with self._lock:
            if self.is_in(State.ACCEPTED):
                await self._send(message)
            else:
                await self._answer(message)

    async def deny(self, denial: Cause) -> None:
        """Deny the handshake, once and for all; it may be accepted or denied already."""
        if self.state is State.CONNECTING:
            self._close_the_door()
            await self._answer_with(denial)

    def _close_the_door(self) -> None:
        self.state = State.DENIED
        if self.passage.onion is not None:
            self.passage.onion.walk.overtake()
        self._listener.end()

    async def _answer_with(self, denial: Cause) -> None:
        if await self._deny_from_stock(denial):
            return
        refusal = await corridor.refuse(self.passage, denial, hop)
        how = self._deny_with or conf.DENY_WITH
        emission = self._emit(refusal, how)
        try:
            if len(refusal.response.content) > _MUCH:
                await send_while_connected(emission, self._receive)
            else:
                await emission
            if how == "close":
                await self._await_the_end()
        except OSError:
            pass  # The client has left, and the server says so as ASGI asks.
        except RuntimeError:
            if not emitter.is_granian(self._send):
                raise
            # granian's way to say the same.

    async def _deny_from_stock(self, denial: Cause) -> bool:
        """Deny with what is in stock, if nobody has a say in the answer; returns whether there was such."""
        passage = self.passage
        if not isinstance(denial, Deny) or corridor.has_say_in_answer(passage):
            return False
        kept = stock.kept(denial, self._scope, self._send, self._deny_with)
        if kept is None:
            return False
        log_denial(passage, denial.status, denial.code)
        try:
            for message in kept.messages():
                await self._send(message)
        except OSError:
            pass  # as in `deny`
        return True

    async def _emit(self, refusal: Refusal, how: str) -> None:
        await emitter.emit_denial(refusal, self._scope, self._send, how)
        self._tell(signals.handshake_denied, refusal.response)

    def _tell(self, signal: HandshakeSignal, response: HttpResponseBase) -> None:
        """Tell the receivers of `signal`, for the answer is on its way."""
        self._telling = signals.tell(signal, self.consumer_class, self.passage, response)

    async def deny_for_the_app(self, denial: Cause) -> None:
        """Deny while the application runs: it may cancel what it is doing, the denial must not be."""
        self.begin_denial(denial)
        if self._denial is not None:
            await asyncio.shield(self._denial)

    def begin_denial(self, denial: Cause) -> bool:
        """Have the handshake denied, in a task of its own; returns False if it has an answer already.

        `release` waits for the task. No accept passes from now on, not even one that is ready to go out
        before the task begins.
        """
        if self.state is not State.CONNECTING:
            return False
        self._close_the_door()
        self._denial = asyncio.ensure_future(self._answer_with(denial))
        return True

    async def _await_the_end(self) -> None:
        """Give the client a moment to answer the close; some servers drop the socket when we return."""
        try:
            async with asyncio.timeout(_CLOSING):
                await disconnect(self._receive)
        except TimeoutError:
            pass

    async def _answer(self, message: Message) -> None:
        """Take a message that the application sent before the handshake was answered."""
        kind = message.get("type")
        if self.state is State.DENIED:
            if kind == "websocket.close":
                return
            raise HandshakeDenied(f"The handshake was denied already; {kind!r} cannot be sent.")
        if kind == "websocket.accept":
            await self._accept(message)
        elif kind == "websocket.close":
            await self.deny_for_the_app(denial_of_close(message))
        elif kind == "websocket.http.response.start":
            if self._app_denial is not None:
                raise ValueError(f"{kind!r} was sent twice.")
            self._app_denial = AppDenial(message)
        elif kind == "websocket.http.response.body":
            if self._app_denial is None:
                raise ValueError(f"{kind!r} was sent before 'websocket.http.response.start'.")
            response = self._app_denial.add(message)
            if response is not None:
                await self.deny_for_the_app(response)
        else:
            raise ValueError(
                f"Found the message {kind!r} before the handshake was answered. Send 'websocket.accept' "
                "or 'websocket.close' first."
            )

    async def _accept(self, message: Message) -> None:
        if self._app_denial is not None:
            raise ValueError("'websocket.accept' was sent after 'websocket.http.response.start'.")
        headers = emitter.check_headers(message)
        response = HttpResponse(status=101)
        del response["Content-Type"]
        answer = await corridor.answer(self.passage, response, hop)
        if not self.is_in(State.CONNECTING):
            return  # Denied meanwhile, for the application or an around hook has ended.
        if answer is not response or response.status_code != 101:
            await self.deny_for_the_app(answer)
            return
        headers += emitter.accept_headers(response)
        self.state = State.ACCEPTED
        self.passage.is_fresh = False
        await self._send(emitter.accept_message(message, headers, self._send))
        self._tell(signals.handshake_accepted, response)


async def _send_to_nobody(message: Message) -> None:
    raise HandshakeDenied(f"The connection is over; {message.get('type')!r} cannot be sent.")
