"""Items: what is compared, one module each. Its `run(plan)` returns a `Report`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import accepts, credentials, crowds, denials, growth, memory, mirror, overload, queries, steps, wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.plan import Plan, Report

#: The items by their numbers.
ITEMS: dict[int, Callable[[Plan], Report]] = {
    1: denials.run,
    2: accepts.run,
    3: wire.run,
    4: crowds.run,
    5: mirror.run,
    6: memory.run,
    7: queries.run,
    8: growth.run,
    9: overload.run,
    10: credentials.run,
    11: steps.run,
}
