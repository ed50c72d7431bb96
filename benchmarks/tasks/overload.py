"""More handshakes than the threads of the pool can serve, and clients that leave before they are served."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

from benchmarks.answers import ACCEPTED, Wrong, answer_of, denied
from benchmarks.sites import GUARDED
from benchmarks.standin import Visit

#: Seconds that the policy of the site blocks a thread.
_SERVICE = 0.05


class Overload:
    """Clients come at a steady rate: `load` times as many as `threads` can serve."""

    def __init__(self, site: Any, *, load: float, threads: int) -> None:
        self._application = site()
        self._capacity = threads / _SERVICE
        self._rate = self._capacity * load

    async def verify(self) -> None:
        """Raise `Wrong` unless a client is let in."""
        await _visit(self._application, {ACCEPTED})

    async def turn(self, seconds: float) -> dict[str, float]:
        """The handshakes that are let in, as a share of what the threads can serve in that time."""
        began, visits = perf_counter(), []
        for number in range(int(self._rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / self._rate - perf_counter()))
            visits.append(asyncio.ensure_future(_visit(self._application, {ACCEPTED, denied(503)})))
        answers = await asyncio.gather(*visits)
        return {"share": answers.count(ACCEPTED) / (self._capacity * (perf_counter() - began))}


class Abandoned:
    """So many `clients` come at once and leave; then one comes who stays."""

    def __init__(self, site: Any, *, clients: int) -> None:
        self._application = site()
        self._clients = clients

    async def verify(self) -> None:
        """Raise `Wrong` unless a client is let in."""
        await _visit(self._application, {ACCEPTED})

    async def turn(self, seconds: float) -> dict[str, float]:
        """The time until the one who stays is let in, in service times of the policy."""
        visits = [Visit(GUARDED, None) for _ in range(self._clients)]
        running = [asyncio.ensure_future(self._application(each.scope, each.receive, each.send)) for each in visits]
        await asyncio.sleep(_SERVICE / 2)
        for visit in visits:
            visit.push({"type": "websocket.disconnect", "code": 1006})
        began = perf_counter()
        await _visit(self._application, {ACCEPTED})
        spent = perf_counter() - began
        await asyncio.gather(*running)
        return {"service times": spent / _SERVICE}


async def _visit(application: Any, expected: set[str]) -> str:
    visit = Visit(GUARDED, None)
    await application(visit.scope, visit.receive, visit.send)
    answer = answer_of(visit.sent)
    if answer not in expected:
        raise Wrong(f"{GUARDED}: expected one of {sorted(expected)}, found {answer!r}")
    return answer
