"""Threads in the hands of a test."""

import asyncio
import threading

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


async def until(condition):
    async with asyncio.timeout(GUARD):
        while not condition():
            await asyncio.sleep(0.002)
