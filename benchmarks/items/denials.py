"""Item 1: what a denied handshake costs."""

from __future__ import annotations

from operator import truediv
from typing import TYPE_CHECKING, Any

from benchmarks.cases import Case
from benchmarks.contenders import BY_HAND, FLOOR, OURS, PEERS, STARLETTE
from benchmarks.figures import compare
from benchmarks.plan import Report
from benchmarks.tables import Table
from benchmarks.targets import Target
from benchmarks.visitors import GUEST, NOBODY

if TYPE_CHECKING:
    from benchmarks.contenders import Contender
    from benchmarks.plan import Plan
    from benchmarks.turns import Results

_WITHOUT_DATABASE = (OURS, BY_HAND, *PEERS)
_WITH_DATABASE = (OURS, BY_HAND, FLOOR)
#: ``CONN_MAX_AGE`` and what it does to connections.
CONNECTIONS = {0: "CONN_MAX_AGE=0", None: "persistent"}


def run(plan: Plan) -> Report:
    """Denials of anonymous visitors, of users without the permission, and by a hook."""
    without = plan.take_turns([plan.worker(each, _cases(each)) for each in _WITHOUT_DATABASE])
    logged_in = plan.take_turns(
        [
            plan.worker(each, _guest(each), name=label(each, age), settings={"CONN_MAX_AGE": age})
            for each in _WITH_DATABASE
            for age in CONNECTIONS
        ]
    )
    return Report(
        [_table_without_database(without), _table_with_database(logged_in)],
        [*_targets_without_database(without), *_targets_with_database(logged_in)],
    )


def label(contender: Contender, age: int | None) -> str:
    """The name of a contender with such connections."""
    return f"{contender.name}, {CONNECTIONS[age]}"


def _cases(contender: Contender) -> dict[str, Case]:
    by_hook: dict[str, Any] = {"visitor": NOBODY, "answer": contender.denied(403)}
    return {
        "anonymous": Case("handshakes:Handshakes", {"visitor": NOBODY, "answer": contender.denied(401)}),
        "hook": Case(
            "handshakes:Handshakes",
            by_hook,
            site="hooked",
            needs=("channels_wsdeny:Hooks",) if contender is OURS else (),
        ),
    }


def _guest(contender: Contender) -> dict[str, Case]:
    return {"guest": Case("handshakes:Handshakes", {"visitor": GUEST, "answer": contender.denied(403)})}


def _table_without_database(results: Results) -> Table:
    table = Table(
        "1a. A denied handshake: microseconds until the application returned",
        ("anonymous", "early response of a hook", "the client gets"),
        notes=[
            "Ours includes its log record: the logger is enabled, its handler formats and writes nothing.",
            "The others log nothing. Channels and Litestar close, which servers turn into a bare 403.",
        ],
    )
    for each in _WITHOUT_DATABASE:
        cells = (results.cell(each.name, case, "us") for case in ("anonymous", "hook"))
        table.add(each.name, *cells, "a bare 403" if each.closes else "the response")
    return table


def _table_with_database(results: Results) -> Table:
    table = Table(
        "1b. A denied handshake of a session user without the permission (SQLite): microseconds",
        tuple(CONNECTIONS.values()),
        notes=["Django's own floor: one hop to a thread that loads session and user and asks has_perm."],
    )
    for each in _WITH_DATABASE:
        table.add(each.name, *(results.cell(label(each, age), "guest", "us") for age in CONNECTIONS))
    return table


def _targets_without_database(results: Results) -> list[Target]:
    hand, ours, starlette = (results.values(each.name, "anonymous", "us") for each in (BY_HAND, OURS, STARLETTE))
    return [
        Target("anonymous denial, by hand / ours", ">=", 30, compare(hand, ours, truediv)),
        Target("anonymous denial, ours / Starlette", "<=", 1, compare(ours, starlette, truediv)),
    ]


def _targets_with_database(results: Results) -> list[Target]:
    targets = []
    for age, least in ((0, 1.3), (None, 1.5)):
        ours, hand, floor = (results.values(label(each, age), "guest", "us") for each in _WITH_DATABASE)
        how = CONNECTIONS[age]
        targets += [
            Target(f"denied session user, by hand / ours, {how}", ">=", least, compare(hand, ours, truediv)),
            Target(
                f"denied session user, ours / Django's floor, {how}",
                "<=",
                1.15,
                compare(ours, floor, truediv),
            ),
        ]
    return targets
