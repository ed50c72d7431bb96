"""Handshakes one after another: how long until the application returned."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

from benchmarks.sites import GUARDED
from benchmarks.standin import Visit
from benchmarks.visitors import cookie_of


class Handshakes:
    """One visitor knocks again and again; every answer is checked, outside the time that counts."""

    def __init__(self, site: Any, *, visitor: str, answer: str) -> None:
        self._application = site()
        self._cookie = cookie_of(visitor)
        self._answer = answer

    async def verify(self) -> None:
        """Raise `Wrong` unless the answer is the right one."""
        await self._knock()

    async def turn(self, seconds: float) -> dict[str, float]:
        """Microseconds a handshake."""
        spent, count = 0.0, 0
        deadline = perf_counter() + seconds
        while not count or perf_counter() < deadline:
            spent += await self._knock()
            count += 1
            await asyncio.sleep(0)  # What is left over for the loop is not what the next one pays for.
        return {"us": spent / count * 1e6}

    async def _knock(self) -> float:
        visit = Visit(GUARDED, self._cookie)
        began = perf_counter()
        await self._application(visit.scope, visit.receive, visit.send)
        spent = perf_counter() - began
        visit.check(self._answer)
        return spent
