"""The gatekeeper: stands before an application that the look-ahead cannot see into.

It asks the gate's own policy once the application wants something, unless an endpoint within has decided
before. Once the gate is open, messages pass straight through.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asgiref.sync import markcoroutinefunction

from ..concurrency import hop
from ..decisions import ALLOWED
from . import corridor
from .wire import State, Wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..decisions import Cause
    from ..http.context import Gate, Passage
    from ..types import Message, Receive, Send


class Gatekeeper:
    """The `receive` and `send` that an application behind `gate` gets.

    `deny` denies the handshake, or the stream of an application that was reached after the accept.
    """

    def __init__(
        self,
        gate: Gate,
        passage: Passage,
        wire: Wire,
        channel: tuple[Receive, Send],
        deny: Callable[[Cause], Awaitable[None]],
    ) -> None:
        self._gate, self._passage, self._wire, self._deny = gate, passage, wire, deny
        self._receive, self._send = channel

    @markcoroutinefunction
    def receive(self) -> Any:
        """The application's ``receive``."""
        return self._receive() if self._gate.is_open else self._receive_at_the_gate()

    @markcoroutinefunction
    def send(self, message: Message) -> Any:
        """The application's ``send``."""
        if self._gate.is_open or not self._holds(message.get("type")):
            return self._send(message)
        return self._send_at_the_gate(message)

    def _holds(self, kind: Any) -> bool:
        """Whether such a message waits for a decision; until the accept, the wire holds all but that."""
        if self._wire.is_in(State.ACCEPTED):
            return bool(kind != "websocket.close")
        return bool(kind == "websocket.accept")

    async def _receive_at_the_gate(self) -> Message:
        if not await self._lets_through():
            raise asyncio.CancelledError  # unwinds the application, see `Wire.receive`
        return await self._receive()

    async def _send_at_the_gate(self, message: Message) -> None:
        if await self._lets_through():
            await self._send(message)

    async def _lets_through(self) -> bool:
        if self._gate.is_open or self._wire.is_in(State.DENIED):
            return True  # After a denial, the wire says so itself.
        decision = await corridor.admit(self._passage, (self._gate.policy,), hop)
        self._wire.passage.policy = self._passage.policy  # for the log
        if decision is ALLOWED:
            return True
        self._gate.has_denied = True
        await self._deny(decision)
        return False
