"""Steps: how long a change about all of many open sockets holds the event loop at once."""

from __future__ import annotations

import asyncio
import gc
import time
from asyncio.events import Handle
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.answers import Wrong
from benchmarks.sites import GUARDED
from benchmarks.standin import Socket
from benchmarks.visitors import cookie_of
from channels_wsdeny.live import arevoke, asockets
from channels_wsdeny.live.registry import registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

#: Handshakes at once.
_AT_ONCE = 64


class LongestStep:
    """Many open sockets, and all that is done about all of them at once."""

    def __init__(self, site: Any, *, visitor: str, count: int) -> None:
        self._application = site()
        self._cookie = cookie_of(visitor)
        self._count = count

    async def verify(self) -> None:
        """Raise `Wrong` unless a socket opens."""
        socket = Socket(self._application, GUARDED, self._cookie)
        await socket.open()
        await socket.close()

    async def turn(self, seconds: float) -> dict[str, float]:
        """For each change: milliseconds of CPU time that its longest step takes, however long it is measured."""
        found: dict[str, float] = {}
        sockets = await self._open()
        await asyncio.sleep(2)  # When the sessions of new sockets expire is looked up.
        changes: dict[str, Callable[[], Awaitable[object]]] = {
            "sockets()": asockets,
            "all are asked again": lambda: _ask({"kind": "all"}),
            "those of a group are asked again": lambda: _ask({"kind": "group", "group": "1"}),
            "revoke() of a path of none": lambda: arevoke(path="/none/"),
            "revoke() of a host of none": lambda: arevoke(host="none.test"),
            "revoke() of the path of all": lambda: self._end(lambda: arevoke(path=GUARDED)),
        }
        for name, change in changes.items():
            async with _longest(found, name):
                await change()
        await asyncio.gather(*(socket.close() for socket in sockets))
        sockets = await self._open()
        async with _longest(found, "drain"):
            await self._end(_drain)
        registry.is_draining = False
        await asyncio.gather(*(socket.close() for socket in sockets))
        gc.enable()
        return found

    async def _open(self) -> list[Socket]:
        sockets = [Socket(self._application, GUARDED, self._cookie) for _ in range(self._count)]
        for start in range(0, self._count, _AT_ONCE):
            await asyncio.gather(*(socket.open() for socket in sockets[start : start + _AT_ONCE]))
        if len(registry.sockets()) != self._count:
            raise Wrong(f"expected {self._count} open sockets, found {len(registry.sockets())}")
        gc.disable()  # Collecting garbage is not part of the steps.
        return sockets

    async def _end(self, change: Callable[[], Awaitable[object]]) -> None:
        await change()
        while registry.by_socket:  # noqa: ASYNC110 - it is not told of
            await asyncio.sleep(0.05)


async def _ask(event: dict[str, Any]) -> None:
    """Until all were asked."""
    registry.handle(event)
    (scheduler,) = registry._schedulers.values()
    await asyncio.sleep(0.5)
    while any(scheduler._due) or scheduler._running:  # noqa: ASYNC110 - it is not told of
        await asyncio.sleep(0.05)


async def _drain() -> None:
    registry.drain(1.0)


@asynccontextmanager
async def _longest(found: dict[str, float], name: str) -> AsyncIterator[None]:
    """Note the CPU time of the longest step within."""
    run, found[name] = Handle._run, 0.0

    def measured(handle: Handle) -> None:
        began = time.thread_time()
        try:
            run(handle)
        finally:
            found[name] = max(found[name], (time.thread_time() - began) * 1000)

    Handle._run = measured  # type: ignore[method-assign]
    try:
        await asyncio.sleep(0)  # A step that begins now.
        yield
    finally:
        Handle._run = run  # type: ignore[method-assign]
        await asyncio.sleep(0)  # What comes next is another step.
