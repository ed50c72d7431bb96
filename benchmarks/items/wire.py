"""Item 3: denials over the wire, on real servers."""

from __future__ import annotations

from operator import truediv
from typing import TYPE_CHECKING

from benchmarks.contenders import BARE, BY_HAND, OURS
from benchmarks.figures import compare
from benchmarks.plan import Report
from benchmarks.servers import CONNECTIONS, SERVERS, ServedSite
from benchmarks.tables import Table
from benchmarks.targets import Target

if TYPE_CHECKING:
    from benchmarks.contenders import Contender
    from benchmarks.plan import Plan

_CONTENDERS = (OURS, BY_HAND, BARE)
#: The server that the target is about.
_MAIN_SERVER = "uvicorn"
#: What wrk tells, and what the table calls it.
_QUANTITIES = {"per second": "denials/s", "p99 ms": "p99, ms", "errors": "connections cut short"}
_NOTES = (
    "Every answer was a denial. wrk sends the next handshake as soon as it has one, on a new connection where the",
    "server ends the old one: granian does so only if told, as ours tells it. hypercorn ends connections without",
    "saying so first: those are the ones cut short, after a whole answer.",
)


def run(plan: Plan) -> Report:
    """Denials of anonymous visitors, as fast as they come."""
    sites = _sites(plan)
    rounds, seconds = (1, 1) if plan.quick else (5, 4)
    results = plan.take_turns([*sites.values()], rounds=rounds, seconds=seconds, warm_up=not plan.quick)
    table = Table(
        f"3. Anonymous denials over the wire: {CONNECTIONS} connections of wrk, one process a server",
        [*_QUANTITIES.values()],
        notes=_NOTES,
    )
    for site in sites.values():
        table.add(site.name, *(results.cell(site.name, site.CASE, quantity) for quantity in _QUANTITIES))
    ours, hand = (
        results.values(sites[_MAIN_SERVER, each].name, ServedSite.CASE, "per second") for each in (OURS, BY_HAND)
    )
    target = f"denials/s on {_MAIN_SERVER}, ours / by hand"
    return Report([table], [Target(target, ">=", 1.8, compare(ours, hand, truediv))])


def _sites(plan: Plan) -> dict[tuple[str, Contender], ServedSite]:
    """Every contender on every server; in a quick run only ours is on all of them."""
    return {
        (server, each): ServedSite(server, each, plan.database, 403 if each.closes else 401)
        for server in SERVERS
        for each in _CONTENDERS
        if each is OURS or server == _MAIN_SERVER or not plan.quick
    }
