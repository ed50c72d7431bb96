"""Item 6: memory of idle sockets, and what denials leave behind."""

from __future__ import annotations

from operator import sub
from typing import TYPE_CHECKING

from benchmarks.answers import denied
from benchmarks.cases import Case
from benchmarks.contenders import BARE, BY_HAND, LIVE_OFF, OURS, WITHOUT_LIVE
from benchmarks.figures import compare
from benchmarks.plan import Report
from benchmarks.tables import Table
from benchmarks.targets import Target
from benchmarks.visitors import GUEST, MEMBER, NOBODY, SOMEBODY

if TYPE_CHECKING:
    from benchmarks.contenders import Contender
    from benchmarks.plan import Plan
    from benchmarks.turns import Results

_CONTENDERS = {OURS: MEMBER, BY_HAND: MEMBER, BARE: SOMEBODY}
#: How memory is measured: whether allocations are traced.
_MEASURES = {"traced": True, "resident": False}
#: The status that ours denies a visitor with, and how many denials are looked at.
_STATUSES = {NOBODY: 401, GUEST: 403}
_DENIALS = {NOBODY: 100_000, GUEST: 5_000}
_QUICK_DENIALS = {NOBODY: 2_000, GUEST: 100}
_SOCKETS, _QUICK_SOCKETS = 2_000, 200


def run(plan: Plan) -> Report:
    """Idle sockets of each contender; denials of ours."""
    count = _QUICK_SOCKETS if plan.quick else _SOCKETS
    denials = _QUICK_DENIALS if plan.quick else _DENIALS
    # So few sockets as a quick run has are lost among the pages of a process.
    measures = ("traced",) if plan.quick else tuple(_MEASURES)
    idle = plan.take_turns(
        [
            plan.worker(each, _idle(visitor, count, traced=_MEASURES[how]), name=_label(each, how), fresh=True)
            for each, visitor in _CONTENDERS.items()
            for how in measures
        ]
        + [
            plan.worker(
                OURS,
                _idle(MEMBER, count, traced=_MEASURES[how]),
                name=f"{WITHOUT_LIVE}, {how}",
                fresh=True,
                settings=LIVE_OFF,
            )
            for how in measures
        ],
        rounds=1 if plan.quick else 3,
        warm_up=False,
    )
    grown = plan.take_turns(
        [plan.worker(OURS, _denials(denials, traced=traced), name=how) for how, traced in _MEASURES.items()],
        rounds=1,
        warm_up=False,
    )
    return Report([_idle_table(idle, count, measures), _growth_table(grown, denials)], _targets(idle, measures))


def _label(contender: Contender, how: str) -> str:
    return f"{contender.name}, {how}"


def _idle(visitor: str, count: int, *, traced: bool) -> dict[str, Case]:
    return {"idle": Case("memory:IdleSockets", {"visitor": visitor, "count": count, "traced": traced})}


def _denials(counts: dict[str, int], *, traced: bool) -> dict[str, Case]:
    return {
        visitor: Case(
            "memory:Denials",
            {"visitor": visitor, "answer": denied(_STATUSES[visitor]), "count": count, "traced": traced},
        )
        for visitor, count in counts.items()
    }


def _idle_table(results: Results, count: int, measures: tuple[str, ...]) -> Table:
    table = Table(
        f"6a. Memory of an idle socket: KiB each, of {count:,}",
        measures,
        notes=[
            "The pool is warm. Traced: allocations, as tracemalloc counts them. Resident: pages.",
            "What the stand-in for the server holds is part of all of them.",
        ],
    )
    for name in (OURS.name, WITHOUT_LIVE, BY_HAND.name, BARE.name):
        table.add(name, *(results.cell(f"{name}, {how}", "idle", "KiB") for how in measures))
    return table


def _growth_table(results: Results, counts: dict[str, int]) -> Table:
    table = Table("6b. Growth over denials, ours: KiB in all", [*_MEASURES])
    for visitor, count in counts.items():
        name = f"{count:,} denials ({_STATUSES[visitor]})"
        table.add(name, *(results.cell(how, visitor, "KiB") for how in _MEASURES))
    return table


def _targets(results: Results, measures: tuple[str, ...]) -> list[Target]:
    targets = []
    for how in measures:
        names = (OURS.name, WITHOUT_LIVE, BY_HAND.name)
        ours, without, hand = (results.values(f"{name}, {how}", "idle", "KiB") for name in names)
        name = f"memory of an idle socket, LIVE off - plain Channels, KiB, {how}"
        targets.append(Target(name, "<=", 2, compare(without, hand, sub)))
        name = f"memory of an idle socket, ours - LIVE off, KiB, {how}"
        targets.append(Target(name, "<=", 1.5, compare(ours, without, sub)))
    return targets
