"""Growth: what an anonymous denial costs while so many other sockets are open."""

from __future__ import annotations

from typing import Any

from benchmarks.sites import GUARDED
from benchmarks.standin import Socket
from benchmarks.visitors import MEMBER, NOBODY, cookie_of

from .handshakes import Handshakes


class AmongSockets(Handshakes):
    """Denials beside idle sockets of a member, which stay open as long as the process lives."""

    def __init__(self, site: Any, *, sockets: int, answer: str) -> None:
        super().__init__(site, visitor=NOBODY, answer=answer)
        member = cookie_of(MEMBER)
        self._sockets = [Socket(self._application, GUARDED, member) for _ in range(sockets)]

    async def verify(self) -> None:
        """Raise `Wrong` unless the sockets open, and the answer is the right one."""
        for socket in self._sockets:
            await socket.open()
        await super().verify()
