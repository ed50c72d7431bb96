"""Queries: how many a handshake makes, or Django's own request, for each session engine."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from django.test import Client, override_settings

from benchmarks import database
from benchmarks.answers import Wrong
from benchmarks.sites import GUARDED
from benchmarks.standin import Visit
from benchmarks.visitors import MEMBER, cookie_of

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Queries:
    """What both have in common: an engine, whose session a member has, and a counter of queries."""

    def __init__(self, *, engine: str) -> None:
        self._settings = override_settings(SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}")
        self._count = 0
        database.wrap_queries(self._note)

    def _note(self, execute: Any, *query: Any) -> Any:
        self._count += 1
        return execute(*query)

    @contextlib.contextmanager
    def _counting(self) -> Iterator[dict[str, float]]:
        found: dict[str, float] = {}
        before = self._count
        yield found
        found["queries"] = self._count - before


class HandshakeQueries(_Queries):
    """A member's handshake."""

    def __init__(self, site: Any, *, engine: str, answer: str) -> None:
        super().__init__(engine=engine)
        self._answer = answer
        with self._settings:
            self._application = site()
            self._cookie = cookie_of(MEMBER)

    async def verify(self) -> None:
        """Raise `Wrong` unless the member is let in."""
        await self.turn(0)

    async def turn(self, seconds: float) -> dict[str, float]:
        """The queries of one handshake."""
        visit = Visit(GUARDED, self._cookie)
        with self._settings, self._counting() as found:
            await self._application(visit.scope, visit.receive, visit.send)
        visit.check(self._answer)
        return found


class RequestQueries(_Queries):
    """A member's request to a view of Django's own that asks for the same permission."""

    def __init__(self, site: Any, *, engine: str) -> None:
        super().__init__(engine=engine)
        with self._settings:
            self._client = Client(headers={"cookie": cookie_of(MEMBER), "host": "127.0.0.1"})

    def verify(self) -> None:
        """Raise `Wrong` unless the view answers."""
        self.turn(0)

    def turn(self, seconds: float) -> dict[str, float]:
        """The queries of one request."""
        with self._settings, self._counting() as found:
            response = self._client.get(GUARDED)
        if response.status_code != 200:
            raise Wrong(f"{GUARDED}: expected 200, found {response.status_code}")
        return found
