"""Echoes: round trips on a socket that is open."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from benchmarks.sites import GUARDED
from benchmarks.standin import Socket
from benchmarks.visitors import cookie_of


class Echoes:
    """One message after another; every echo is compared with what was sent."""

    def __init__(self, site: Any, *, visitor: str) -> None:
        self._application = site()
        self._cookie = cookie_of(visitor)

    async def verify(self) -> None:
        """Raise `Wrong` unless the socket opens and echoes."""
        await self.turn(0)

    async def turn(self, seconds: float) -> dict[str, float]:
        """Round trips a second, and microseconds for each."""
        socket = Socket(self._application, GUARDED, self._cookie)
        await socket.open()
        count, began = 0, perf_counter()
        spent = 0.0
        while not count or spent < seconds:
            await socket.echo("hello")
            count += 1
            spent = perf_counter() - began
        await socket.close()
        return {"per second": count / spent, "us": spent / count * 1e6}
