"""The trace of a request, for ``manage.py wsdeny explain`` and, with `DEBUG`, for the log record of a denial.

It has the route, each hook and policy with its answer and time, and the queries that it made, as SQL without
parameters and literals. It holds neither cookies nor session keys, and the texts of errors only in a dry run.
"""

from __future__ import annotations

import re
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from django.db import connections
from django.http.response import HttpResponseBase

from ..exceptions import Deny
from ..log import dotted_name, source_location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.urls import ResolverMatch

Kind: TypeAlias = Literal["authentication", "hook", "policy", "report", "endpoint", "other"]

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
    """An authentication class, hook, policy or endpoint, inside `depth` others that were noted and had not ended."""

    kind: Kind
    name: str
    depth: int = 0
    #: The answer in words, see `describe`; None while there is none, or if it ran past its time.
    answer: str | None = None
    #: The seconds that it took, the calls inside it included.
    seconds: float | None = None
    queries: list[Query] = field(default_factory=list)


class Trace:
    """The hooks, policies and queries of one request so far, in order.

    With `is_dry_run` nothing is logged or signalled; `explain` sees to it that no endpoint runs and nothing is saved.
    """

    __slots__ = ("_open", "endpoint", "is_dry_run", "lasting", "noted", "query_count", "route")

    def __init__(self, *, is_dry_run: bool = False) -> None:
        self.is_dry_run = is_dry_run
        #: The route as it is written, and the dotted name of its endpoint; None while that is not known.
        self.route: str | None = None
        self.endpoint: str | None = None
        self.noted: list[Noted] = []
        #: In a dry run, the policies that an accepted socket would be asked again about, as they are written.
        self.lasting: tuple[str, ...] = ()
        self.query_count = 0
        #: Those of `noted` that have not ended.
        self._open: list[Noted] = []

    def note_route(self, match: ResolverMatch | None) -> None:
        """Note the route and the endpoint, the first time that they are known."""
        if match is not None and match.route is not None and self.route is None:
            self.route, self.endpoint = match.route, dotted_name(match.func)

    @contextmanager
    def note(self, kind: Kind, name: str) -> Iterator[Callable[[object], None]]:
        """Note the time, queries and errors of what is called inside; its answer is given to what is returned."""
        noted = Noted(kind, name, len(self._open))
        self.noted.append(noted)
        self._open.append(noted)

        def note_answer(answer: object) -> None:
            noted.answer = describe(answer)

        began = time.perf_counter()
        try:
            yield note_answer
        except (Exception, SystemExit) as error:
            noted.answer = self._describe_error(error)
            raise
        finally:
            noted.seconds = time.perf_counter() - began
            self._open.remove(noted)

    def note_failure(self, error: BaseException) -> None:
        """Note an exception that became the answer, unless it came out of something that was noted."""
        answer = self._describe_error(error)
        if all(noted.answer != answer for noted in self.noted):
            self.noted.append(Noted("other", "failure", answer=answer))

    def _describe_error(self, error: BaseException) -> str:
        if isinstance(error, Deny):
            return f"raised {describe(error)}"
        text = f": {str(error)[:200]}" if self.is_dry_run else ""  # It may quote what the client sent.
        return f"raised {type(error).__name__}, {source_location(error)}{text}"

    @contextmanager
    def watching_queries(self) -> Iterator[None]:
        """Note the queries of this thread; nested use notes each once."""
        watched: list[Any] = []
        with suppress(Exception):  # Unusable DATABASES must not fail requests that make no query.
            watched = [each for each in connections.all() if self._query not in each.execute_wrappers]
        for connection in watched:
            connection.execute_wrappers.append(self._query)
        try:
            yield
        finally:
            for connection in watched:
                connection.execute_wrappers.remove(self._query)

    def _query(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Run a query and note it, as an execute wrapper of Django's database connections."""
        began = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            self.query_count += 1
            if self.query_count <= _MOST_QUERIES:
                text = _LITERAL.sub("'…'", str(sql))
                query = Query(text[:_LONGEST_SQL], time.perf_counter() - began)
                self._current().queries.append(query)

    def _current(self) -> Noted:
        """What a query is counted for: the innermost call that has not ended, or an entry for all others."""
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
                    "queries": [{"sql": query.sql, "ms": _milliseconds(query.seconds)} for query in noted.queries],
                }
                for noted in list(self.noted)
            ],
        }


#: The trace that requests which begin here are noted in.
recorded: ContextVar[Trace | None] = ContextVar("wsdeny_trace", default=None)


def is_recorded() -> bool:
    """Whether requests that begin here are noted whatever `DEBUG` is."""
    return recorded.get() is not None


def is_dry_run() -> bool:
    """Whether requests that begin here are dry runs, see `Trace`."""
    trace = recorded.get()
    return trace is not None and trace.is_dry_run


def describe(answer: object) -> str:
    """The answer of a hook or policy in words: True allows, None goes on; of a response only its status."""
    if isinstance(answer, str):
        return answer
    if answer is True:
        return "allowed"
    if answer is None:
        return "went on"
    if isinstance(answer, Deny):
        return f"denied: {answer.status} {answer.code}"
    if isinstance(answer, HttpResponseBase):
        return f"answered: {answer.status_code}"
    return f"answered: {type(answer).__name__}"  # pragma: no cover - what is no answer has raised


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
