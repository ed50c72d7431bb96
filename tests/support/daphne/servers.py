"""Server processes for tests: started on a free port, read by their logs, ended by their id."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ROOT

#: Seconds after which something that should happen is taken not to. No test measures time.
GUARD = 30
SCRIPTED = "tests.support.daphne.apps:scripted"


@dataclass
class Server:
    port: int
    log: Path = Path()
    access_log: Path = Path()

    def wait_for(self, text, log=None):
        """The first line of the log that has `text` in it, once there is one."""
        return wait_for(log or self.log, re.escape(text)).string


def wait_for(log, pattern, process=None):
    deadline = time.monotonic() + GUARD
    while time.monotonic() < deadline:
        ended = process is not None and process.poll() is not None
        for line in log.read_text().splitlines():
            if match := re.search(pattern, line):
                return match
        if ended:
            break
        time.sleep(0.02)
    raise AssertionError(f"{pattern!r} is not in the log:\n{log.read_text()}")


@contextmanager
def serving(directory, arguments, environment=None):
    """Run ``python -m <arguments>`` until it listens; then hand it over, and end it."""
    log, access_log = directory / "server.log", directory / "access.log"
    access_log.touch()
    # The settings of the tests are not the server's.
    inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env={**inherited, "PYTHONUNBUFFERED": "1", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    try:
        port = wait_for(log, r"Listening on TCP address 127\.0\.0\.1:(\d+)", process).group(1)
        yield Server(int(port), log, access_log)
    finally:
        process.terminate()
        process.wait(GUARD)
    # Twisted's words for an error that nobody handled, in a Deferred or in a callback.
    assert "Unhandled" not in log.read_text(), log.read_text()


def daphne(
    directory,
    *options,
    application=SCRIPTED,
    module="channels_wsdeny.daphne",
    endpoint="tcp:0:interface=127.0.0.1",
):
    """Our Daphne with `application` and `options`, talkative enough to log Twisted's errors."""
    arguments = [module, "-v", "2", "--access-log", str(directory / "access.log"), "-e", endpoint]
    return serving(directory, [*arguments, *options, application])
