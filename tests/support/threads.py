"""Threads and waits in the hands of a test."""

import asyncio
import threading
import time
from contextlib import suppress

from .clients import GUARD


class Gate:
    """Holds those who call it until it is opened, and counts who came and who left."""

    def __init__(self):
        self._open = threading.Event()
        self.came = self.left = 0

    def __call__(self, *args):
        self.came += 1
        assert self._open.wait(GUARD), "The gate was not opened."
        self.left += 1
        return True

    def open(self):
        self._open.set()


async def outlast(event):
    """Wait for `event` and swallow every cancellation until then; returns True, as a policy that allows."""
    while not event.is_set():
        with suppress(asyncio.CancelledError):
            await event.wait()
    return True


async def until(condition):
    async with asyncio.timeout(GUARD):
        while not condition():
            await asyncio.sleep(0.002)


def wait_until(condition, otherwise=lambda: ""):
    """As `until`, without an event loop; `otherwise()` is what the error says if that does not come."""
    deadline = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.02)
