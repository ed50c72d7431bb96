"""Item 4: many handshakes at once on a slow database, and another socket meanwhile."""

from __future__ import annotations

from operator import truediv
from typing import TYPE_CHECKING

from benchmarks.cases import Case
from benchmarks.contenders import BY_HAND, OURS
from benchmarks.figures import compare, figure_of
from benchmarks.plan import Report
from benchmarks.tables import Table
from benchmarks.targets import Target

if TYPE_CHECKING:
    from benchmarks.plan import Plan
    from benchmarks.turns import Results

_CONTENDERS = (OURS, BY_HAND)
#: The size that the targets are about.
_MANY = 50
_POOL_SIZES = (1, 2, 4, 8, 16, 32, 64)
#: Those that wait longest are let in, too: an answer of 503 would be a failure here.
_PATIENT = {"CHANNELS_WSDENY": {"POLICY_TIMEOUT": 60.0}}
_LIFTED = "POLICY_TIMEOUT is lifted, or those that wait longest would get a 503."


def run(plan: Plan) -> Report:
    """Crowds of several sizes, an open socket beside one, and pools of several sizes."""
    sizes = (1, _MANY) if plan.quick else (1, _MANY, 500)
    rounds, seconds = (1, 0.4) if plan.quick else (3, 1)
    # Each turn is long, and the first one is as good as any: what it needs was made when it was verified.
    options = {"rounds": rounds, "seconds": seconds, "warm_up": False}
    cases = {str(size): _crowd(size) for size in sizes} | {"open": _crowd(_MANY, open_socket=True)}
    ours = plan.worker(OURS, cases, settings=_PATIENT)
    results = plan.take_turns([ours, plan.worker(BY_HAND, cases)], **options)
    pool_cases = {"crowd": _crowd(_MANY), "open": _crowd(_MANY, open_socket=True)}
    pools = _POOL_SIZES[3::3] if plan.quick else _POOL_SIZES
    curve = plan.take_turns(
        [plan.worker(OURS, pool_cases, name=str(size), settings=_pool_of(size)) for size in pools],
        **options,
    )
    return Report([_table(results, sizes), _sockets(results), _curve(curve, pools)], _targets(results))


def _crowd(size: int, *, open_socket: bool = False) -> Case:
    return Case("crowd:Crowd", {"size": size, "open_socket": open_socket})


def _pool_of(size: int) -> dict[str, object]:
    return {"CHANNELS_WSDENY": {**_PATIENT["CHANNELS_WSDENY"], "POOL_SIZE": size}}


def _table(results: Results, sizes: tuple[int, ...]) -> Table:
    table = Table(
        "4a. Handshakes a second (accepted session users) while every query takes 10 ms",
        [f"{size} at once" for size in sizes],
        notes=[f"Each handshake makes four queries. {_LIFTED}"],
    )
    for each in _CONTENDERS:
        cells = (results.cell(each.name, str(size), "handshakes per second") for size in sizes)
        table.add(each.name, *cells)
    return table


def _sockets(results: Results) -> Table:
    table = Table(
        f"4b. Echoes a second of another open socket, alone and during {_MANY} handshakes at once",
        ("alone", "meanwhile", "meanwhile / alone"),
    )
    for each in _CONTENDERS:
        quantities = ("alone", "meanwhile", "share")
        table.add(each.name, *(results.cell(each.name, "open", quantity) for quantity in quantities))
    return table


def _curve(results: Results, pools: tuple[int, ...]) -> Table:
    table = Table(
        f"4c. Ours by POOL_SIZE, with {_MANY} at once",
        ("handshakes/s", "echoes meanwhile / alone"),
        notes=[_LIFTED],
    )
    for size in pools:
        crowd = results.cell(str(size), "crowd", "handshakes per second")
        table.add(f"POOL_SIZE={size}", crowd, results.cell(str(size), "open", "share"))
    return table


def _targets(results: Results) -> list[Target]:
    ours, hand = (results.values(each.name, str(_MANY), "handshakes per second") for each in _CONTENDERS)
    share = results.values(OURS.name, "open", "share")
    return [
        Target(f"{_MANY} at once on the slow database, ours / by hand", ">=", 8, compare(ours, hand, truediv)),
        Target("echo of an open socket during those, ours / alone", ">=", 0.4, figure_of(share)),
    ]
