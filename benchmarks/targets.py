"""Targets: the ratios that are to be reached, beside those that were."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .figures import Figure, number
from .tables import Table

if TYPE_CHECKING:
    from collections.abc import Iterable

_RELATIONS = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Target:
    """A ratio (or difference) that is to be at least, or at most, a limit."""

    name: str
    relation: str
    limit: float
    found: Figure | None

    @property
    def verdict(self) -> str:
        """Whether the median reaches the limit."""
        if self.found is None:
            return "not measured"
        return "met" if _RELATIONS[self.relation](self.found.median, self.limit) else "NOT MET"


def table_of(targets: Iterable[Target]) -> Table:
    """All targets beside what was found."""
    table = Table("Targets: ratios within this run, round by round", ("target", "found", "verdict"))
    for target in targets:
        limit = f"{target.relation} {number(target.limit)}"
        table.add(target.name, limit, target.found or "-", target.verdict)
    return table
