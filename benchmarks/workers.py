"""Workers: each contender in a process of its own, which does nothing until it is its turn."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from .processes import Process, environment
from .turns import Failed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .cases import Case
    from .contenders import Contender
    from .turns import Samples

#: Seconds that a worker may take for anything.
_PATIENCE = 300


class Worker:
    """The process of one contender for some cases; `benchmarks.work` is what runs in it.

    `settings` are Django's, where they differ from `benchmarks.settings`. With `fresh`, every turn has a
    process of its own.
    """

    def __init__(
        self,
        contender: Contender,
        cases: Mapping[str, Case],
        database: Path,
        *,
        name: str | None = None,
        settings: Mapping[str, Any] | None = None,
        fresh: bool = False,
    ) -> None:
        self.name = name or contender.name
        self._fresh = fresh
        self._environment = environment(database, settings)
        self._cases = json.dumps(
            {each: case.as_json(contender.module, contender.needs) for each, case in cases.items()}
        )
        self._process: Process | None = None
        self._has_worked = False

    def start(self) -> None:
        """Start the process."""
        self._process = Process(["benchmarks.work", self._cases], self._environment, talks=True)
        self._has_worked = False

    def get_ready(self) -> dict[str, str]:
        """Wait until all cases are verified; returns what is missing for those that are absent."""
        absent: dict[str, str] = self._reply()["absent"]
        return absent

    def turn(self, seconds: float) -> Samples:
        """Take a turn of so many seconds a case."""
        if self._fresh and self._has_worked:
            self.stop()
            self.start()
            self.get_ready()
        self._has_worked = True
        if self._process is not None:
            self._process.say(json.dumps({"seconds": seconds}))
        samples: Samples = self._reply()["samples"]
        return samples

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _reply(self) -> dict[str, Any]:
        if self._process is None:
            raise Failed("it was not started")
        guard = threading.Timer(_PATIENCE, self._process.kill)
        guard.start()
        line = self._process.hear()
        guard.cancel()
        if not line:
            raise Failed(f"crashed: {self._process.complaints}")
        reply: dict[str, Any] = json.loads(line)
        if "wrong" in reply:
            raise Failed(f"wrong answer: {reply['wrong']}")
        return reply
