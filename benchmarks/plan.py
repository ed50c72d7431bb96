"""The plan of a run: how long everything takes, in which order, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .turns import Results, take_turns
from .workers import Worker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from random import Random

    from .cases import Case
    from .contenders import Contender
    from .tables import Table
    from .targets import Target
    from .turns import Performer


@dataclass
class Plan:
    """How much of everything; and the failures on the way."""

    database: Path
    random: Random
    #: Whether all has to be over within a minute.
    quick: bool
    #: How many turns each contender takes.
    rounds: int
    #: How many seconds a turn takes, for each case.
    seconds: float
    failures: list[str] = field(default_factory=list)
    #: What was not measured, for want of something.
    absences: list[str] = field(default_factory=list)

    def worker(self, contender: Contender, cases: Mapping[str, Case], **options: Any) -> Worker:
        """The process of a contender; see `Worker`."""
        return Worker(contender, cases, self.database, **options)

    def take_turns(
        self,
        performers: Sequence[Performer],
        *,
        rounds: int | None = None,
        seconds: float | None = None,
        warm_up: bool = True,
    ) -> Results:
        """Let `performers` take their turns, as often and as long as planned unless told otherwise."""
        results = take_turns(
            performers,
            rounds=self.rounds if rounds is None else rounds,
            seconds=self.seconds if seconds is None else seconds,
            random=self.random,
            warm_up=warm_up,
        )
        self.failures += [f"{name}: {why}" for name, why in results.failures.items()]
        self.absences += [f"{name}, {case}: lacks {lacking}" for (name, case), lacking in results.absences.items()]
        return results


@dataclass(frozen=True)
class Report:
    """What one item found."""

    tables: Sequence[Table]
    targets: Sequence[Target] = ()
