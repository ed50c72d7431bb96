"""Ending the sockets of a process before it ends: by SIGTERM, where the server lets Python handle that."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from ..conf import conf
from .registry import registry

if TYPE_CHECKING:
    from types import FrameType

#: Seconds that sockets have to end once all were closed.
_LAST_SECONDS = 1.0
_STEP = 0.05


class Sigterm:
    """Takes SIGTERM in place of the server's handler, and gives it on once the sockets are closed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._previous: Any = None
        self._is_draining = False

    def install(self) -> None:
        """Take over, in the process's main thread, once its server has its own handler. Does nothing a second time."""
        if self._loop is not None or not conf.DRAIN_SECONDS:
            return
        if threading.current_thread() is not threading.main_thread():
            return
        self._loop = asyncio.get_running_loop()
        previous = signal.getsignal(signal.SIGTERM)
        # Handlers of the event loop itself are called by other means: no handler of Python's can take their place.
        if previous is not None and not getattr(previous, "__module__", "").startswith("asyncio"):
            self._previous = previous
            signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._loop is None or self._loop.is_closed() or self._is_draining:  # A second one ends at once.
            self._give_on(number)
            return
        self._is_draining = True
        self._loop.call_soon_threadsafe(self._drain, number)

    def _drain(self, number: int) -> None:
        registry.drain(conf.DRAIN_SECONDS)
        loop = asyncio.get_running_loop()
        self._wait(loop.time() + conf.DRAIN_SECONDS + _LAST_SECONDS, number)

    def _wait(self, until: float, number: int) -> None:
        loop = asyncio.get_running_loop()
        if registry.is_busy and loop.time() < until:
            loop.call_later(_STEP, self._wait, until, number)
        else:
            self._give_on(number)

    def _give_on(self, number: int) -> None:
        if callable(self._previous):
            self._previous(number, None)
        elif self._previous == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
