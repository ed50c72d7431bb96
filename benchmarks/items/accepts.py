"""Item 2: what an accepted handshake costs, and a message after it."""

from __future__ import annotations

from operator import truediv
from typing import TYPE_CHECKING

from benchmarks.answers import ACCEPTED
from benchmarks.cases import Case
from benchmarks.contenders import BY_HAND, LIVE_OFF, OURS, PEERS, WITHOUT_LIVE
from benchmarks.figures import compare
from benchmarks.plan import Report
from benchmarks.tables import Table
from benchmarks.targets import Target
from benchmarks.visitors import MEMBER, SOMEBODY

from .denials import CONNECTIONS, label

if TYPE_CHECKING:
    from benchmarks.plan import Plan
    from benchmarks.turns import Results

_WITH_DATABASE = (OURS, BY_HAND)
_LIVE_OFF = f"{WITHOUT_LIVE}, {CONNECTIONS[0]}"


def run(plan: Plan) -> Report:
    """Accepts, and echoes after them."""
    with_database = plan.take_turns(
        [
            plan.worker(each, _cases(MEMBER), name=label(each, age), settings={"CONN_MAX_AGE": age})
            for each in _WITH_DATABASE
            for age in CONNECTIONS
        ]
        + [plan.worker(OURS, _cases(MEMBER), name=_LIVE_OFF, settings={"CONN_MAX_AGE": 0, **LIVE_OFF})]
    )
    without = plan.take_turns([plan.worker(each, _cases(SOMEBODY)) for each in PEERS])
    return Report([_table(with_database, without)], _targets(with_database))


def _cases(visitor: str) -> dict[str, Case]:
    return {
        "accept": Case("handshakes:Handshakes", {"visitor": visitor, "answer": ACCEPTED}),
        "echo": Case("echoes:Echoes", {"visitor": visitor}),
    }


def _table(with_database: Results, without: Results) -> Table:
    table = Table(
        "2. An accepted handshake, and echoes after it",
        ("accept, us until the application returned", "echo round trips/s", "us/round trip"),
        notes=[
            "Ours and by hand: a session user with the permission (SQLite). The others look for a cookie.",
            "The client leaves as soon as it is let in.",
        ],
    )
    rows = [(with_database, label(each, age)) for age in CONNECTIONS for each in _WITH_DATABASE]
    rows.append((with_database, _LIVE_OFF))
    for results, name in (*rows, *((without, each.name) for each in PEERS)):
        table.add(
            name,
            results.cell(name, "accept", "us"),
            results.cell(name, "echo", "per second"),
            results.cell(name, "echo", "us"),
        )
    return table


def _targets(results: Results) -> list[Target]:
    targets = []
    for age, most in ((0, 0.95), (None, 0.8)):
        ours, hand = (results.values(label(each, age), "accept", "us") for each in (OURS, BY_HAND))
        name = f"accepted handshake, ours / by hand, {CONNECTIONS[age]}"
        targets.append(Target(name, "<=", most, compare(ours, hand, truediv)))
    ours, hand = (results.values(label(each, 0), "echo", "us") for each in (OURS, BY_HAND))
    targets.append(Target("echo round trip, ours / plain Channels consumer", "<=", 1.03, compare(ours, hand, truediv)))
    for name, case, most in (("accepted handshake", "accept", 1.1), ("echo round trip", "echo", 1.03)):
        ours, off = (results.values(each, case, "us") for each in (label(OURS, 0), _LIVE_OFF))
        targets.append(Target(f"{name}, ours / LIVE off", "<=", most, compare(ours, off, truediv)))
    return targets
