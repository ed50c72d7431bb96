"""Signals that are sent for each handshake, once its answer is on its way.

Receivers run beside the handshake, in a task of their own: they delay no answer, and what they raise or return
changes none. One signal is sent for each handshake, accepted or denied; none if the client had left. After the accept,
a signal is sent only if the socket is closed from outside.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import time
from typing import TYPE_CHECKING, Any

from django.dispatch import Signal

from .concurrency import run_for_receivers
from .conf import conf
from .log import dotted_name, escape, request_path

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http.response import HttpResponseBase

    from .http.context import RequestContext

__all__ = ["HandshakeSignal", "handshake_accepted", "handshake_denied", "socket_revoked"]

logger = logging.getLogger("django.dispatch")

#: Seconds that an application waits at its end for receivers that still run.
_LAST_SECONDS = 1.0

#: What keeps the tasks alive: the event loop itself only has weak references to them.
_sending: set[asyncio.Task[None]] = set()


class HandshakeSignal(Signal):
    """A signal with a name.

    Its sender is the class of the consumer that the handshake was for, or None where that is not known: no route
    matches, or the endpoint is no consumer. It is sent with these arguments:

    - `request`: the handshake as the policies saw it. Its lazy attributes, such as `user`, may query the database.
    - `response`: the `HttpResponse` of the accept (status 101) or of the denial. It cannot be changed any more.
    - `policy`: the policy asked last, as it was written (a string); None if none was asked.
    - `duration`: seconds from the beginning of the handshake to its answer.

    Asynchronous receivers run on the server's event loop, the others in threads, where they may block. Each has
    ``POLICY_TIMEOUT`` seconds; then an asynchronous one is cancelled, and another one is no longer waited for. They
    do not see the contextvars of the handshake.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def __repr__(self) -> str:
        return self._name


#: The handshake was accepted, and the server has the message.
handshake_accepted = HandshakeSignal("handshake_accepted")
#: The handshake was denied, and the server has the messages.
handshake_denied = HandshakeSignal("handshake_denied")
#: An accepted socket was closed, because what let it in is gone. In place of `response` it is sent with `code`, that of
#: the close, and `reason`; `duration` ends with the close.
socket_revoked = HandshakeSignal("socket_revoked")


def send_signal(
    signal: Signal, sender: type | None, context: RequestContext, response: HttpResponseBase | None = None, **more: Any
) -> asyncio.Task[None] | None:
    """Send `signal`; returns the task in which the receivers run, None without receivers."""
    if context.trace is not None and context.trace.is_dry_run:
        return None
    blocking, asynchronous = signal._live_receivers(sender)  # Signal.asend() would stop at a receiver that hangs.
    if not (blocking or asynchronous):
        return None
    named = {
        "signal": signal,
        "sender": sender,
        "request": context.request,
        "policy": context.expression,
        "duration": time.monotonic() - context.state.started,
        **({"response": response} if response is not None else more),
    }
    calls: list[Any] = [functools.partial(run_for_receivers, functools.partial(each, **named)) for each in blocking]
    calls += [functools.partial(each, **named) for each in asynchronous]
    about = f"{signal} of {escape(request_path(context.request))}"
    # A context of its own: in that of a synchronous consumer, asgiref would run synchronous code in the thread that
    # waits for the consumer, and refuse to later.
    called = _call_all([*blocking, *asynchronous], calls, about)
    task = asyncio.get_running_loop().create_task(called, context=contextvars.Context())
    _sending.add(task)
    task.add_done_callback(_sending.discard)
    return task


async def wait_for_receivers(task: asyncio.Task[None]) -> None:
    """Wait a moment for the receivers of a signal, so that they have run when an application ends."""
    if not task.done():
        await asyncio.wait({task}, timeout=_LAST_SECONDS)


async def _call_all(receivers: list[Any], calls: list[Any], about: str) -> None:
    outcomes = await asyncio.gather(*map(_call, calls), return_exceptions=True)
    for receiver, outcome in zip(receivers, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            logger.error("%s failed at %s.", dotted_name(receiver), about, exc_info=outcome)


async def _call(call: Callable[[], Awaitable[Any]]) -> None:
    try:
        async with asyncio.timeout(conf.POLICY_TIMEOUT):
            await call()
    except TimeoutError as error:
        limit = f"{conf.POLICY_TIMEOUT} s (POLICY_TIMEOUT)"
        raise TimeoutError(f"A receiver has {limit}. What takes long belongs in a task queue.") from error
    except SystemExit as error:  # It would end the event loop.
        raise RuntimeError("A receiver raised SystemExit.") from error
