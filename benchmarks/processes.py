"""Processes: where contenders run, each by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parent.parent


def environment(database: Path, settings: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The environment of a process whose Django has this database, and these settings of its own."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
        "BENCHMARKS_DATABASE": str(database),
        "BENCHMARKS_SETTINGS": json.dumps(settings or {}),
    }


class Process:
    """A running ``python -m`` with these arguments; with `talks`, over its standard input and output."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], *, talks: bool = False) -> None:
        self._complaints = tempfile.TemporaryFile("w+", errors="backslashreplace")  # noqa: SIM115 - see stop()
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else self._complaints,
            stderr=self._complaints,
            text=True,
        )

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def complaints(self) -> str:
        """The end of what it has printed, but for what it said over its standard output."""
        self._complaints.seek(0)
        return self._complaints.read().strip()[-2000:] or "it says nothing"

    def say(self, line: str) -> None:
        """Send a line, unless it has ended: then there will be no answer either, and that says why."""
        try:
            self._process.stdin.write(f"{line}\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError:
            pass

    def hear(self) -> str:
        """The next line that it sends; empty if it has ended."""
        return self._process.stdout.readline()  # type: ignore[union-attr]

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def stop(self, patience: float = 0) -> None:
        """End it, and forget what it has printed; with `patience` it has so many seconds to end by itself."""
        if patience:
            self._process.terminate()
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                pass
        self._process.kill()
        self._process.communicate()
        self._complaints.close()
