"""Item 7: how many queries a handshake makes, for each session engine."""

from __future__ import annotations

from operator import sub
from typing import TYPE_CHECKING

from benchmarks.answers import ACCEPTED
from benchmarks.cases import Case
from benchmarks.contenders import BY_HAND, OURS, Contender
from benchmarks.figures import compare
from benchmarks.plan import Report
from benchmarks.tables import Table
from benchmarks.targets import Target

if TYPE_CHECKING:
    from benchmarks.plan import Plan

_ENGINES = ("db", "cached_db", "cache", "file", "signed_cookies")
_DJANGO = Contender("Django's own request", "benchmarks.sites.views")
_CONTENDERS = (OURS, BY_HAND, _DJANGO)
_MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


def run(plan: Plan) -> Report:
    """A session user with the permission, who has been there before."""
    results = plan.take_turns(
        [plan.worker(each, _cases(each), settings={"MIDDLEWARE": _MIDDLEWARE}) for each in _CONTENDERS],
        rounds=1,
        seconds=0,
    )
    table = Table("7. Queries of a handshake: session, user, permission", _ENGINES)
    for each in _CONTENDERS:
        table.add(each.name, *(results.cell(each.name, engine, "queries") for engine in _ENGINES))
    targets = []
    for engine in _ENGINES:
        ours, django = (results.values(each.name, engine, "queries") for each in (OURS, _DJANGO))
        name = f"queries, ours - Django's own request, engine {engine}"
        targets.append(Target(name, "<=", 0, compare(ours, django, sub)))
    return Report([table], targets)


def _cases(contender: Contender) -> dict[str, Case]:
    if contender is _DJANGO:
        return {engine: Case("queries:RequestQueries", {"engine": engine}, site="wsgi") for engine in _ENGINES}
    return {engine: Case("queries:HandshakeQueries", {"engine": engine, "answer": ACCEPTED}) for engine in _ENGINES}
