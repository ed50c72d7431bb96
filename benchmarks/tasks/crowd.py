"""A crowd: many handshakes at once on a slow database, and what another socket notices of them."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

from benchmarks import database
from benchmarks.answers import ACCEPTED
from benchmarks.sites import GUARDED
from benchmarks.standin import Socket, Visit
from benchmarks.visitors import MEMBER, cookie_of


class Crowd:
    """So many members knock at once, while every query is slow; an `open_socket` echoes meanwhile."""

    def __init__(self, site: Any, *, size: int, open_socket: bool = False) -> None:
        self._application = site()
        self._cookie = cookie_of(MEMBER)
        self._size = size
        self._open_socket = open_socket
        database.make_slow()

    async def verify(self) -> None:
        """Raise `Wrong` unless a member is let in."""
        await self._knock()

    async def turn(self, seconds: float) -> dict[str, float]:
        """Handshakes a second, and with an open socket its echoes a second, meanwhile and alone."""
        if not self._open_socket:
            return {"handshakes per second": await self._handshakes_for(seconds)}
        socket = Socket(self._application, GUARDED, self._cookie)
        await socket.open()
        alone = await self._echo_during(socket, asyncio.sleep(seconds))
        meanwhile = await self._echo_during(socket, self._handshakes_for(seconds))
        await socket.close()
        return {"alone": alone, "meanwhile": meanwhile, "share": meanwhile / alone}

    async def _handshakes_for(self, seconds: float) -> float:
        """Handshakes a second: one crowd after another for so long, each of them whole."""
        count, began = 0, perf_counter()
        spent = 0.0
        while not count or spent < seconds:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._size):
                    group.create_task(self._knock())
            count += self._size
            spent = perf_counter() - began
        return count / spent

    async def _knock(self) -> None:
        visit = Visit(GUARDED, self._cookie)
        await self._application(visit.scope, visit.receive, visit.send)
        visit.check(ACCEPTED)

    @staticmethod
    async def _echo_during(socket: Socket, other: Any) -> float:
        """Echoes a second while `other` runs."""
        count, began = 0, perf_counter()
        running = asyncio.ensure_future(other)
        while not running.done():
            await socket.echo("hello")
            count += 1
        spent = perf_counter() - began
        await running
        return count / spent
