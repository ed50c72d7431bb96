"""Memory: what an idle socket holds, and what denials leave behind."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path
from resource import getpagesize
from typing import Any

from benchmarks.sites import GUARDED
from benchmarks.standin import Socket, Visit
from benchmarks.visitors import cookie_of

#: Handshakes at once, before anything is measured: every thread that there will be is there then.
_WARMING = 64


class IdleSockets:
    """So many sockets that are open and say nothing."""

    def __init__(self, site: Any, *, visitor: str, count: int, traced: bool) -> None:
        self._application = site()
        self._cookie = cookie_of(visitor)
        self._count = count
        self._traced = traced

    async def verify(self) -> None:
        """Raise `Wrong` unless sockets open and echo; warms up."""
        sockets = await self._open(_WARMING)
        for socket in sockets:
            await socket.echo("hello")
        await _close(sockets)

    async def turn(self, seconds: float) -> dict[str, float]:
        """KiB a socket, however long that takes to measure."""
        with _Growth(traced=self._traced) as growth:
            sockets: list[Socket] = []
            while len(sockets) < self._count:
                sockets += await self._open(min(_WARMING, self._count - len(sockets)))
            kib = growth.kib() / self._count
        await _close(sockets)
        return {"KiB": kib}

    async def _open(self, count: int) -> list[Socket]:
        sockets = [Socket(self._application, GUARDED, self._cookie) for _ in range(count)]
        await asyncio.gather(*(socket.open() for socket in sockets))
        return sockets


class Denials:
    """So many denials one after another."""

    def __init__(self, site: Any, *, visitor: str, answer: str, count: int, traced: bool) -> None:
        self._application = site()
        self._cookie = cookie_of(visitor)
        self._answer = answer
        self._count = count
        self._traced = traced

    async def verify(self) -> None:
        """Raise `Wrong` unless denials are denials; warms up."""
        for _ in range(_WARMING):
            await self._knock()

    async def turn(self, seconds: float) -> dict[str, float]:
        """KiB that all of them together left behind, however long that takes to measure."""
        with _Growth(traced=self._traced) as growth:
            for _ in range(self._count):
                await self._knock()
            return {"KiB": growth.kib()}

    async def _knock(self) -> None:
        visit = Visit(GUARDED, self._cookie)
        await self._application(visit.scope, visit.receive, visit.send)
        visit.check(self._answer)
        await asyncio.sleep(0)


class _Growth:
    """How much this process has grown: its allocations if `traced`, else its resident pages."""

    def __init__(self, *, traced: bool) -> None:
        self._traced = traced

    def __enter__(self) -> _Growth:
        if self._traced:
            tracemalloc.start()
        self._before = self._size()
        return self

    def __exit__(self, *error: object) -> None:
        if self._traced:
            tracemalloc.stop()

    def kib(self) -> float:
        """KiB since the beginning."""
        return (self._size() - self._before) / 1024

    def _size(self) -> int:
        gc.collect()
        if self._traced:
            return tracemalloc.get_traced_memory()[0]
        return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()


async def _close(sockets: list[Socket]) -> None:
    await asyncio.gather(*(socket.close() for socket in sockets))
