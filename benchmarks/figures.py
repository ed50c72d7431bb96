"""Figures: a median with what it lies between."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Figure:
    """The median of what was measured, with the least and the most."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return number(self.median)
        return f"{number(self.median)} ({number(self.low)}-{number(self.high)})"


def figure_of(values: Sequence[float]) -> Figure | None:
    """The figure of some values, None without any."""
    return Figure(median(values), min(values), max(values)) if values else None


def compare(one: Sequence[float], other: Sequence[float], by: Callable[[float, float], float]) -> Figure | None:
    """Two contenders compared round by round: what slows the whole machine down slows both."""
    return figure_of([by(a, b) for a, b in zip(one, other, strict=False)])


def number(value: float) -> str:
    """`value` with about three digits that mean something."""
    magnitude = abs(value)
    if magnitude >= 100:
        return f"{value:,.0f}"
    if magnitude >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if magnitude >= 0.01 or not value else f"{value:.2g}"
