"""Item 11: how long a change about all of many open sockets holds the event loop at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.cases import Case
from benchmarks.contenders import OURS
from benchmarks.figures import figure_of
from benchmarks.plan import Report
from benchmarks.tables import Table
from benchmarks.targets import Target
from benchmarks.visitors import MEMBER

if TYPE_CHECKING:
    from benchmarks.plan import Plan

_SOCKETS, _QUICK_SOCKETS = 10_000, 500
_CHANGES = (
    "sockets()",
    "all are asked again",
    "those of a group are asked again",
    "revoke() of a path of none",
    "revoke() of a host of none",
    "revoke() of the path of all",
    "drain",
)


def run(plan: Plan) -> Report:
    """What is done about many sockets at once."""
    count = _QUICK_SOCKETS if plan.quick else _SOCKETS
    case = Case("steps:LongestStep", {"visitor": MEMBER, "count": count})
    worker = plan.worker(OURS, {"steps": case}, fresh=True)
    results = plan.take_turns([worker], rounds=1 if plan.quick else 3, warm_up=False)
    table = Table(
        f"11. The longest step of the event loop, of {count:,} open sockets: milliseconds of CPU time",
        (OURS.name,),
        notes=["Without the collection of garbage."],
    )
    for name in _CHANGES:
        table.add(name, results.cell(OURS.name, "steps", name))
    longest = [
        max(values) for values in zip(*(results.values(OURS.name, "steps", name) for name in _CHANGES), strict=True)
    ]
    return Report([table], [Target("the longest step of the event loop, ms", "<=", 50, figure_of(longest))])
