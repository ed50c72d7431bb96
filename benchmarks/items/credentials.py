"""Item 10: what a handshake with a token or a ticket costs, and what a throttle adds."""

from __future__ import annotations

from operator import truediv
from typing import TYPE_CHECKING

from benchmarks.cases import Case
from benchmarks.contenders import OURS
from benchmarks.figures import compare
from benchmarks.plan import Report
from benchmarks.tables import Table

if TYPE_CHECKING:
    from benchmarks.plan import Plan

#: The credential of each row, and the site that it is for.
_ROWS = {
    "session": ("session", "session"),
    "bearer token": ("token", "token"),
    "ticket": ("ticket", "ticket"),
    "session and throttle": ("session", "throttle"),
}


def run(plan: Plan) -> Report:
    """A member with each of them is let in."""
    cases = {
        name: Case("credentials:Credentials", {"credential": credential}, "site_for", {"credential": site})
        for name, (credential, site) in _ROWS.items()
    }
    settings = {"CONN_MAX_AGE": None}
    results = plan.take_turns([plan.worker(OURS, cases, settings=settings)])
    table = Table(
        "10. An accepted handshake by its credentials: user, permission",
        ("microseconds", "of the session's", "queries"),
        notes=[
            "The token's user is one query. The cache of tickets and throttles is in the process here: on Redis each",
            "command is a round trip. A ticket takes two, a throttle one or two.",
        ],
    )
    for name in cases:
        times = [results.values(OURS.name, each, "us") for each in (name, "session")]
        cells = (results.cell(OURS.name, name, unit) for unit in ("us", "queries"))
        time, queries = cells
        table.add(name, time, compare(*times, truediv) or "-", queries)
    return Report([table])
