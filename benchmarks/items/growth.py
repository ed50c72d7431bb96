"""Item 8: how the cost of an anonymous denial grows with routes, policies, hooks and open sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.answers import denied
from benchmarks.cases import Case
from benchmarks.contenders import BY_HAND, OURS
from benchmarks.plan import Report
from benchmarks.tables import Table
from benchmarks.visitors import NOBODY

if TYPE_CHECKING:
    from benchmarks.contenders import Contender
    from benchmarks.plan import Plan

_ROUTES = (10, 100, 1000)
_LEAVES = (1, 10, 50)
_HOOKS = (0, 1, 5, 20)
_SOCKETS = (0, 100, 1000)


def run(plan: Plan) -> Report:
    """What more of everything costs."""
    ours = {**_by_routes(OURS), **_by_leaves(), **_by_hooks()}
    by_sockets = _by_sockets()
    results = plan.take_turns(
        [
            plan.worker(OURS, ours),
            plan.worker(BY_HAND, _by_routes(BY_HAND)),
            *(plan.worker(OURS, {name: case}, name=name) for name, case in by_sockets.items()),
        ]
    )
    table = Table(
        "8. An anonymous denial by size of the site: microseconds",
        (OURS.name, BY_HAND.name),
        notes=["Its own route is the last one. The last leaf of the policy denies, so all are asked."],
    )
    for name in ours:
        table.add(name, *(results.cell(each.name, name, "us") for each in (OURS, BY_HAND)))
    for name in by_sockets:
        table.add(name, results.cell(name, name, "us"), "-")
    return Report([table])


def _by_routes(contender: Contender) -> dict[str, Case]:
    return {f"{count:,} routes": _denial(contender.denied(401), "site", routes=count) for count in _ROUTES}


def _by_leaves() -> dict[str, Case]:
    return {
        _counted(count, "leaf", "leaves"): _denial(denied(403), "site_with_leaves", leaves=count) for count in _LEAVES
    }


def _by_hooks() -> dict[str, Case]:
    needs = ("channels_wsdeny:Hooks",)
    return {
        _counted(count, "hook", "hooks"): _denial(denied(401), "site_with_hooks", needs=needs, hooks=count)
        for count in _HOOKS
    }


def _by_sockets() -> dict[str, Case]:
    return {
        f"{count:,} open sockets": Case("growth:AmongSockets", {"sockets": count, "answer": denied(401)})
        for count in _SOCKETS
    }


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _denial(answer: str, site: str, *, needs: tuple[str, ...] = (), **options: int) -> Case:
    arguments = {"visitor": NOBODY, "answer": answer}
    return Case("handshakes:Handshakes", arguments, site=site, options=options, needs=needs)
