"""Item 9: more handshakes than the pool can serve, and clients that leave before they are served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.cases import Case
from benchmarks.contenders import OURS
from benchmarks.figures import figure_of
from benchmarks.plan import Report
from benchmarks.tables import Table
from benchmarks.targets import Target

if TYPE_CHECKING:
    from benchmarks.plan import Plan

_LOADS = (0.8, 1.2, 1.5, 3.0)
_THREADS = 4
_CLIENTS = 300
#: Seconds of a turn: handshakes are given up after POLICY_TIMEOUT, 4 seconds.
_SECONDS, _QUICK_SECONDS = 20.0, 6.0


def run(plan: Plan) -> Report:
    """Several loads, and a crowd that leaves."""
    loads = _LOADS[1::2] if plan.quick else _LOADS
    cases = {f"{load} x": Case("overload:Overload", {"load": load, "threads": _THREADS}, "slow") for load in loads}
    cases["abandoned"] = Case("overload:Abandoned", {"clients": _CLIENTS}, "slow")
    worker = plan.worker(OURS, cases, settings={"CHANNELS_WSDENY": {"POOL_SIZE": _THREADS}})
    rounds = 1 if plan.quick else 3
    results = plan.take_turns(
        [worker], rounds=rounds, seconds=_QUICK_SECONDS if plan.quick else _SECONDS, warm_up=False
    )
    table = Table(
        f"9a. Handshakes let in under overload, as a share of what {_THREADS} threads can serve",
        ("let in / capacity",),
        notes=["The policy blocks its thread for 50 ms. Clients come at a steady rate, so many times the capacity."],
    )
    for load in loads:
        table.add(f"{load} x", results.cell(OURS.name, f"{load} x", "share"))
    left = Table(
        f"9b. {_CLIENTS} clients ask and leave: the wait of the next one, who stays",
        ("service times of the policy",),
    )
    left.add(OURS.name, results.cell(OURS.name, "abandoned", "service times"))
    targets = [
        Target(
            f"let in at {load} x what the pool can serve, share of that",
            ">=",
            0.8,
            figure_of(results.values(OURS.name, f"{load} x", "share")),
        )
        for load in loads
        if load > 1
    ]
    targets.append(
        Target(
            "wait after those who left, service times of the policy",
            "<=",
            2,
            figure_of(results.values(OURS.name, "abandoned", "service times")),
        )
    )
    return Report([table, left], targets)
