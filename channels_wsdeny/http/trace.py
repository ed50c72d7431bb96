"""The trace: what one request went through, for ``manage.py wsdeny explain`` and, with `DEBUG`, for the log.

It tells the route, each hook and policy with its answer and the time it took, and the queries it made: their
SQL without parameters and literals. It holds no cookies, session keys or texts of exceptions. Where nothing
is traced, the passage has None for it.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from django.conf import settings
from django.db import connections
from django.http.response import HttpResponseBase

from ..decisions import ALLOWED, Steps
from ..exceptions import Deny
from ..names import name_of, place_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.urls import ResolverMatch

T = TypeVar("T")

#: Queries that are kept, and characters of each.
_MOST_QUERIES = 100
_LONGEST_SQL = 500
_LITERAL = re.compile(r"'(?:[^']|'')*'")


class Query(NamedTuple):
    """A query: its SQL without parameters and literals, and the seconds that it took."""

    sql: str
    seconds: float


@dataclass(slots=True, eq=False)
class Noted:
    """Something that was asked, within `depth` others that were."""

    kind: Literal["hook", "policy", "endpoint", "other"]
    name: str
    depth: int = 0
    #: None while there is none: it may have run past its time.
    answer: str | None = None
    seconds: float | None = None
    queries: list[Query] = field(default_factory=list)


class Trace:
    """What one request went through so far, in order.

    `is_rehearsal` says that the request is not a real one: nobody else is told of it.
    """

    __slots__ = ("_open", "endpoint", "is_rehearsal", "noted", "query_count", "route")

    def __init__(self, *, is_rehearsal: bool = False) -> None:
        self.is_rehearsal = is_rehearsal
        #: Where the request was routed to, as it is written in the routes; None while that is not known.
        self.route: str | None = None
        self.endpoint: str | None = None
        self.noted: list[Noted] = []
        self.query_count = 0
        self._open: list[Noted] = []

    def note_route(self, match: ResolverMatch | None) -> None:
        """Note where the request was routed to, the first time that it is known."""
        if match is not None and self.route is None:
            self.route, self.endpoint = match.route, name_of(match.func)

    @contextmanager
    def note(self, kind: Literal["hook", "policy", "endpoint", "other"], name: str) -> Iterator[Noted]:
        """Note what is asked inside; whoever asks sets its `answer`."""
        noted = Noted(kind, name, len(self._open))
        self.noted.append(noted)
        began = time.perf_counter()
        try:
            yield noted
        except (Exception, SystemExit) as error:
            noted.answer = self._raised(error)
            raise
        finally:
            noted.seconds = time.perf_counter() - began

    def note_failure(self, error: BaseException) -> None:
        """Note an exception that became the answer, unless whatever raised it was noted."""
        answer = self._raised(error)
        if all(noted.answer != answer for noted in self.noted):
            self.noted.append(Noted("other", "failure", answer=answer))

    def _raised(self, error: BaseException) -> str:
        if isinstance(error, Deny):
            return f"raised {told(error)}"
        text = f": {text_of(error)}" if self.is_rehearsal else ""  # for whoever rehearses alone
        return f"raised {type(error).__name__}, {place_of(error)}{text}"

    def asking(self, kind: Literal["hook", "policy"], name: str, steps: Steps[T]) -> Steps[T]:
        """`steps`, noted with what they answer and the queries that they make."""
        with self.note(kind, name) as noted:
            self._open.append(noted)
            try:
                answer = yield from self.watching(steps)
            finally:
                self._open.remove(noted)
            noted.answer = told(answer)
        return answer

    def watching(self, steps: Steps[T]) -> Steps[T]:
        """`steps`, with a note of the queries that they make, in whichever thread they are resumed."""
        resume: Any = steps.send
        reply: Any = None
        while True:
            with self.watching_queries():
                try:
                    step = resume(reply)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
            try:
                resume, reply = steps.send, (yield step)
            except Exception as error:  # noqa: BLE001 - it goes to where the awaitable was asked for
                resume, reply = steps.throw, error

    @contextmanager
    def watching_queries(self) -> Iterator[None]:
        """Note the queries of this thread inside; there are none in the thread of a running loop."""
        watched = [] if _is_on_loop() else _connections()
        watched = [each for each in watched if self._query not in each.execute_wrappers]
        for connection in watched:
            connection.execute_wrappers.append(self._query)
        try:
            yield
        finally:
            for connection in watched:
                connection.execute_wrappers.remove(self._query)

    def _query(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """The execute wrapper."""
        began = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            self.query_count += 1
            if self.query_count <= _MOST_QUERIES:
                text = _LITERAL.sub("'…'", str(sql))
                query = Query(text[:_LONGEST_SQL], time.perf_counter() - began)
                self._asked_last().queries.append(query)

    def _asked_last(self) -> Noted:
        """What a query belongs to: what is being asked, or nothing that was."""
        if self._open:
            return self._open[-1]
        if not self.noted or self.noted[-1].kind != "other":
            self.noted.append(Noted("other", "elsewhere", answer="", seconds=0.0))
        return self.noted[-1]

    def as_dict(self) -> dict[str, Any]:
        """The trace in JSON's types, for the log; times in milliseconds, as ``ms``."""
        return {
            "route": self.route,
            "endpoint": self.endpoint,
            "query_count": self.query_count,
            "steps": [
                {
                    "kind": noted.kind,
                    "name": noted.name,
                    "depth": noted.depth,
                    "answer": noted.answer,
                    "ms": _milliseconds(noted.seconds),
                    "queries": [
                        {"sql": query.sql, "ms": _milliseconds(query.seconds)} for query in noted.queries
                    ],
                }
                for noted in list(self.noted)
            ],
        }


_recorded: ContextVar[Trace | None] = ContextVar("wsdeny_trace", default=None)


@contextmanager
def recording(trace: Trace) -> Iterator[None]:
    """Have the requests inside note what they go through in `trace`."""
    token = _recorded.set(trace)
    try:
        yield
    finally:
        _recorded.reset(token)


def begin() -> Trace | None:
    """The trace of a request that begins: the one being recorded, else one of its own if `DEBUG` is on."""
    trace = _recorded.get()
    return Trace() if trace is None and settings.DEBUG else trace


def is_recorded() -> bool:
    """Whether somebody wants the trace of what runs here, whatever `DEBUG` is."""
    return _recorded.get() is not None


def is_rehearsing() -> bool:
    """Whether what runs here is part of a rehearsal."""
    trace = _recorded.get()
    return trace is not None and trace.is_rehearsal


def told(answer: object) -> str:
    """What was answered, in words; nothing of a response but its status."""
    if answer is ALLOWED:
        return "allowed"
    if answer is None:
        return "went on"
    if isinstance(answer, Deny):
        return f"denied: {answer.status} {answer.code}"
    if isinstance(answer, HttpResponseBase):
        return f"answered: {answer.status_code}"
    return f"answered: {type(answer).__name__}"


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _connections() -> list[Any]:
    try:
        return list(connections.all())
    except Exception:  # noqa: BLE001 - settings that cannot be used; whoever needs the database says so
        return []


def _is_on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
