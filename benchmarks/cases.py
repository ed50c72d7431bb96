"""Cases: what a contender is measured at."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pkgutil import resolve_name
from typing import Any


@dataclass(frozen=True)
class Case:
    """A task of `benchmarks.tasks` for a site: everything in it crosses to the contender's process as JSON.

    `task` is ``module:Class`` in `benchmarks.tasks`, made with the site and `arguments`; `site` is the
    factory in the contender's module, called with `options`.
    """

    task: str
    arguments: dict[str, Any] = field(default_factory=dict)
    site: str = "site"
    options: dict[str, Any] = field(default_factory=dict)
    #: What must be importable, as a contender's own ``needs``.
    needs: tuple[str, ...] = ()

    def as_json(self, module: str, needs: tuple[str, ...]) -> dict[str, Any]:
        """This case for the contender whose sites are in `module`."""
        return {**asdict(self), "site": f"{module}:{self.site}", "needs": [*needs, *self.needs]}


def missing(needs: list[str]) -> str | None:
    """The first of `needs` that is not there, None if all are."""
    for name in needs:
        try:
            resolve_name(name)
        except (ModuleNotFoundError, AttributeError):
            return name
    return None


def task_of(case: dict[str, Any]) -> Any:
    """The task of a case that has crossed to its process."""
    task = resolve_name(f"benchmarks.tasks.{case['task']}")
    site = resolve_name(case["site"])
    return task(lambda: site(**case["options"]), **case["arguments"])
