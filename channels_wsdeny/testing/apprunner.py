"""The application under test, as a task: messages go in, messages come out."""
# ruff: noqa: ASYNC109, ASYNC110 - timeouts are arguments in asgiref's API, and its queues cannot be peeked at

from __future__ import annotations

import asyncio
import contextvars
import sys
import time
from typing import TYPE_CHECKING, Any

from asgiref.testing import ApplicationCommunicator

from .database import run_lent

if TYPE_CHECKING:
    from types import FrameType

    from ..types import ASGIApp, Message, Scope

#: Seconds to wait for the application. More than ``POLICY_TIMEOUT``, whose 503 a test then sees.
TIMEOUT = 5.0
#: Seconds that an application has to end when the test has given it up.
UNWINDING = 1.0
_ASYNCIO = (sys.modules["asyncio"].__file__ or "").removesuffix("__init__.py")


class ApplicationEnded(TimeoutError):  # noqa: N818 - what happened, as Python's own ConnectionReset
    """The application has ended: what the test waits for will never come."""


class ApplicationRunner(ApplicationCommunicator):
    """asgiref's `ApplicationCommunicator`, which notices at once that the application has ended.

    Whatever waits raises what the application raised, and `TimeoutError`, after which the application is
    cancelled; it says where the application was.
    """

    #: For asgiref's `__del__`, if a subclass raises before there is more.
    _future: asyncio.Task[None] | None = None

    def __init__(self, application: ASGIApp, scope: Scope) -> None:
        super().__init__(application, scope)  # type: ignore[no-untyped-call]

    @property
    def future(self) -> asyncio.Task[None]:
        """The task that the application runs in, started when first asked for.

        Its context is empty, as a server's: what the test has put into contextvars stays there.
        """
        if self._future is None:
            running = run_lent(self.application, self.scope, self.input_queue.get, self.output_queue.put)
            self._future = asyncio.create_task(running, context=contextvars.Context())
        return self._future

    @property
    def name(self) -> str:
        """What messages call it: its path."""
        return str(self.scope.get("path") or self.scope["type"])

    async def send_input(self, message: Message) -> None:
        """Send a message to the application. Raises what it raised already."""
        self._raise_error()
        await self.input_queue.put(message)

    async def receive_output(self, timeout: float = TIMEOUT) -> Message:
        """The application's next message. Raises `ApplicationEnded` if it has ended without one."""
        if self.output_queue.empty() and not self.future.done():
            arriving = asyncio.ensure_future(self.output_queue.get())
            try:
                either = {arriving, self.future}
                await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if arriving.done():
                    message: Message = arriving.result()
                    return message
            finally:
                arriving.cancel()
        if not self.output_queue.empty():
            queued: Message = self.output_queue.get_nowait()
            return queued
        if not self.future.done():
            await self._give_up(f"sent nothing for {timeout:g} s")
        self._raise_error()
        raise ApplicationEnded(f"{self.name}: the application has ended, and sends no more.")

    async def receive_nothing(self, timeout: float = 0.1, interval: float = 0.01) -> bool:
        """Whether the application sends nothing for `timeout` seconds. Raises what it raised, if nothing."""
        end = time.monotonic() + timeout
        while self.output_queue.empty() and not self.future.done() and time.monotonic() < end:
            await asyncio.sleep(interval)
        if not self.output_queue.empty():
            return False
        self._raise_error()
        return True

    async def wait(self, timeout: float = TIMEOUT) -> None:
        """Wait for the application to end."""
        await asyncio.wait({self.future}, timeout=timeout)
        if not self.future.done():
            await self._give_up(f"had not ended after {timeout:g} s")
        self._raise_error()

    async def abandon(self) -> None:
        """End the application of a test that has failed: what it raises must not hide the failure."""
        if self._future is None:
            return
        self.future.cancel()
        await asyncio.wait({self.future}, timeout=UNWINDING)
        if self.future.done() and not self.future.cancelled():
            self.future.exception()  # So that asyncio does not report it as never retrieved.

    async def _give_up(self, what: str) -> None:
        problem = f"{self.name}: the application {what}. It was in {_place_of(self.future)}."
        self.future.cancel()
        await asyncio.wait({self.future}, timeout=UNWINDING)
        if not self.future.done():
            problem += " It took no notice of its cancellation."
        error = self.future.exception() if self.future.done() and not self.future.cancelled() else None
        raise TimeoutError(problem) from error

    def _raise_error(self) -> None:
        if self.future.done() and not self.future.cancelled():
            self.future.result()


def _place_of(task: asyncio.Task[None]) -> str:
    """Where `task` waits: the innermost place that is not asyncio's own."""
    place: FrameType | None = None
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        if frame is not None and not frame.f_code.co_filename.startswith(_ASYNCIO):
            place = frame
        coroutine = getattr(coroutine, "cr_await", None)
    if place is None:
        return "an unknown place"
    return f"{place.f_code.co_qualname}, {place.f_code.co_filename}:{place.f_lineno}"
