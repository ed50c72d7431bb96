"""Handshakes with each kind of credential: how long they take, and how many queries."""

from __future__ import annotations

import asyncio
from time import perf_counter
from types import SimpleNamespace
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connections

from benchmarks import database
from benchmarks.answers import ACCEPTED
from benchmarks.sites import GUARDED
from benchmarks.standin import Visit
from benchmarks.visitors import MEMBER, cookie_of
from channels_wsdeny.authentication import issue_ticket


class Credentials:
    """A member's handshakes, with `credential`: ``"session"``, ``"token"`` or ``"ticket"``."""

    def __init__(self, site: Any, *, credential: str) -> None:
        self._application = site()
        self._credential = credential
        self._cookie = cookie_of(MEMBER) if credential == "session" else None
        self._member = get_user_model().objects.get(username=MEMBER)
        connections.close_all()
        self._queries = 0
        database.wrap_queries(self._note)

    def _note(self, execute: Any, *query: Any) -> Any:
        self._queries += 1
        return execute(*query)

    async def verify(self) -> None:
        """Raise `Wrong` unless the member is let in."""
        await self._knock()

    async def turn(self, seconds: float) -> dict[str, float]:
        """Microseconds and queries of a handshake."""
        spent, count = 0.0, 0
        before, deadline = self._queries, perf_counter() + seconds
        while not count or perf_counter() < deadline:
            spent += await self._knock()
            count += 1
            await asyncio.sleep(0)
        return {"us": spent / count * 1e6, "queries": (self._queries - before) / count}

    async def _knock(self) -> float:
        visit = Visit(GUARDED, self._cookie)
        if self._credential == "token":
            visit.scope["headers"].append((b"authorization", f"Bearer {MEMBER}".encode()))
        elif self._credential == "ticket":  # Each is good for one handshake; asking for it does not count.
            ticket = issue_ticket(SimpleNamespace(user=self._member), GUARDED)
            visit.scope["query_string"] = f"ticket={ticket}".encode()
        began = perf_counter()
        await self._application(visit.scope, visit.receive, visit.send)
        spent = perf_counter() - began
        visit.check(ACCEPTED)
        return spent
