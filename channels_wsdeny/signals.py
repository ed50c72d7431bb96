"""Signals: what a site is told about each handshake, once its answer is on its way.

Receivers run beside the handshake, in a task of their own: they delay no answer, and what they raise or
return changes none. Each handshake is told of once, as accepted or as denied; not at all if there was
nobody left to answer, and nothing is told of what an accepted socket does afterwards.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from typing import TYPE_CHECKING, Any

from asgiref.sync import AsyncToSync, SyncToAsync
from django.dispatch import Signal

from .concurrency import hop_aside
from .conf import conf
from .drivers import is_being_cancelled
from .log import escape, request_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http.response import HttpResponseBase

    from .http.context import Passage

    Receiver = Callable[..., Any]

logger = logging.getLogger("django.dispatch")

#: Seconds that an application waits at its end for receivers that still run.
_LINGER = 1.0

#: What keeps the tasks alive: the event loop itself only has weak references to them.
_telling: set[asyncio.Task[None]] = set()


class HandshakeSignal(Signal):
    """A signal with a name.

    Its sender is the class of the consumer that the handshake was for, or None where that is not known:
    nothing is routed to the path, or what is there is no consumer. It is sent with

    `request`: the handshake as the policies saw it. What is lazy about it may query the database.
    `response`: the `HttpResponse` of the accept (status 101) or of the denial. It is past changing.
    `policy`: the policy asked last, as it was written (a string); None if none was asked.
    `duration`: seconds from the beginning of the handshake to its answer.

    Asynchronous receivers run on the server's event loop, the others in turn in a thread that may block. They
    have ``POLICY_TIMEOUT`` seconds; then the asynchronous ones are cancelled, and the others left alone.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def __repr__(self) -> str:
        return self._name


#: The handshake was accepted, and the server has been told.
handshake_accepted = HandshakeSignal("handshake_accepted")
#: The handshake was denied, by whatever it was, and the server has been told.
handshake_denied = HandshakeSignal("handshake_denied")


def tell(
    signal: Signal, sender: type | None, passage: Passage, response: HttpResponseBase
) -> asyncio.Task[None] | None:
    """Tell the receivers of `signal`; returns the task that does, None if nobody listens."""
    if not signal.receivers or (passage.trace is not None and passage.trace.is_rehearsal):
        return None
    blocking, asynchronous = signal._live_receivers(sender)
    if not (blocking or asynchronous):
        return None
    named = {
        "signal": signal,
        "sender": sender,
        "request": passage.request,
        "response": response,
        "policy": passage.expression,
        "duration": time.monotonic() - passage.started,
    }
    context = contextvars.copy_context()
    context.run(_leave_thread)
    task = asyncio.get_running_loop().create_task(_tell(blocking, asynchronous, named), context=context)
    _telling.add(task)
    task.add_done_callback(_telling.discard)
    return task


async def linger(task: asyncio.Task[None]) -> None:
    """Wait a moment for the receivers that `tell` tells, so that they have run when an application ends."""
    if not task.done():
        await asyncio.wait({task}, timeout=_LINGER)


def _leave_thread() -> None:
    """Have ``sync_to_async`` forget the thread that waits for the current coroutine.

    That of a synchronous consumer waits in ``async_to_sync`` while its answer is sent, no longer; what a
    receiver asks of it later, it would refuse. Thereafter calls go where those of a bare task go.
    """
    AsyncToSync.executors.current = None
    # asgiref knows of a thread that is in use, and forbids to wait for it. Nobody in it waits for receivers.
    SyncToAsync.deadlock_context.set(False)


async def _tell(blocking: list[Receiver], asynchronous: list[Receiver], named: dict[str, Any]) -> None:
    left = [*blocking, *asynchronous]

    async def call(receiver: Receiver) -> None:
        try:
            await receiver(**named)
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                raise
            _log(receiver, named, error)  # What it awaited was cancelled by somebody else.
        except (Exception, SystemExit) as error:  # noqa: BLE001 - nobody else's business
            _log(receiver, named, error)
        left.remove(receiver)

    def call_in_turn() -> None:
        for receiver in blocking:
            try:
                receiver(**named)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
                _log(receiver, named, error)
            left.remove(receiver)

    async def call_in_thread() -> None:
        try:
            await hop_aside(call_in_turn)
        except Exception as error:  # noqa: BLE001 - there is no thread, or its connections cannot be managed
            _log(call_in_turn, named, error)

    calls = [call(receiver) for receiver in asynchronous]
    if blocking:
        calls.append(call_in_thread())
    try:
        async with asyncio.timeout(conf.POLICY_TIMEOUT):
            await asyncio.gather(*calls, return_exceptions=True)
            return
    except TimeoutError:
        pass
    for receiver in left:
        logger.error(
            "%s had not ended %s s after %s of %s (POLICY_TIMEOUT). What takes long belongs in a task queue.",
            *(_name(receiver), conf.POLICY_TIMEOUT, *_about(named)),
        )


def _log(receiver: Receiver, named: dict[str, Any], error: BaseException) -> None:
    logger.error("%s failed at %s of %s.", _name(receiver), *_about(named), exc_info=error)


def _about(named: dict[str, Any]) -> tuple[Signal, str]:
    return named["signal"], escape(request_path(named["request"]))


def _name(receiver: Receiver) -> str:
    name = getattr(receiver, "__qualname__", None)
    return f"{receiver.__module__}.{name}" if name else repr(receiver)
