"""Turns: contenders are measured one after another, in a new random order each round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from .figures import Figure, figure_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

#: What one turn measured: for each case, some quantities by their names.
Samples: TypeAlias = "dict[str, dict[str, float]]"


class Failed(Exception):  # noqa: N818 - a state of the contender
    """A contender crashed, or answered wrongly."""


class Performer(Protocol):
    """Who takes turns: a process that is started, made ready and told when to work."""

    name: str

    def start(self) -> None:
        """Start, without waiting."""

    def get_ready(self) -> dict[str, str]:
        """Wait until all is verified. Returns what is missing for the cases that are absent."""

    def turn(self, seconds: float) -> Samples:
        """Work for so many seconds a case."""

    def stop(self) -> None:
        """End."""


class Results:
    """What the turns of some performers measured."""

    def __init__(self) -> None:
        #: Why a performer failed, by its name.
        self.failures: dict[str, str] = {}
        #: What a performer lacks for a case, by the names of both.
        self.absences: dict[tuple[str, str], str] = {}
        self._rounds: dict[str, list[Samples]] = {}

    def cell(self, name: str, case: str, quantity: str) -> Figure | str:
        """A figure, or why there is none."""
        if name in self.failures:
            return "FAILED"
        if (name, case) in self.absences:
            return "not available"
        return figure_of(self.values(name, case, quantity)) or "-"

    def values(self, name: str, case: str, quantity: str) -> list[float]:
        """What was measured, round by round; empty if nothing was."""
        if name in self.failures:
            return []
        rounds = (samples.get(case, {}) for samples in self._rounds.get(name, []))
        return [sample[quantity] for sample in rounds if quantity in sample]

    def absent(self, name: str, missing: dict[str, str]) -> None:
        """Note what a performer lacks for some cases."""
        self.absences.update({(name, case): lacking for case, lacking in missing.items()})

    def add(self, name: str, samples: Samples) -> None:
        """Note what a performer measured in its turn."""
        self._rounds.setdefault(name, []).append(samples)


def take_turns(
    performers: Sequence[Performer],
    *,
    rounds: int,
    seconds: float,
    random: random.Random,
    warm_up: bool = True,
) -> Results:
    """Let `performers` take a turn each in every round; the first turn to warm up does not count."""
    results = Results()
    try:
        for performer in performers:
            performer.start()
        for performer in performers:
            _attempt(results, performer, lambda it: results.absent(it.name, it.get_ready()))
        if warm_up:
            for performer in performers:
                _attempt(results, performer, lambda it: it.turn(seconds))
        for _ in range(rounds):
            for performer in random.sample([*performers], len(performers)):
                _attempt(results, performer, lambda it: results.add(it.name, it.turn(seconds)))
    finally:
        for performer in performers:
            performer.stop()
    return results


def _attempt(results: Results, performer: Performer, action: Callable[[Performer], object]) -> None:
    """Do something with a performer that has not failed yet."""
    if performer.name in results.failures:
        return
    try:
        action(performer)
    except Failed as failure:
        results.failures[performer.name] = str(failure)
        performer.stop()
