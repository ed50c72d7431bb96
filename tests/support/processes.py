"""Child processes of tests: Python code, and servers, read by their logs and ended by their ids."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .clients import GUARD

ROOT = Path(__file__).parents[2]
#: Settings of servers: one line a record and its traceback.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}
#: The environment of the tests without their settings.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}

_WITHOUT = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {without!r}:
            raise ModuleNotFoundError(f"{{name}} is not installed", name=name)

sys.meta_path.insert(0, Refusing())
"""


def run_python(code, *, without=(), settings=None, **environ):
    """Run `code` as if the packages `without` were not installed; returns what it printed, and its errors.

    `settings` is the module of Django's settings.
    """
    environ |= {"DJANGO_SETTINGS_MODULE": settings} if settings else {}
    ran = run(["-W", "error", "-c", _WITHOUT.format(without=without) + code], **environ)
    return ran.stdout.strip(), ran.stderr


def run(arguments, cwd=ROOT, **environ):
    """Run Python with these arguments, and `environ` added to the environment of the tests; returns how that ended."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def answers_of(module, *arguments, warnings="default", **environ):
    """What a module of the tests prints as JSON, run as a program."""
    ran = run(["-W", warnings, "-m", module, *arguments], **environ)
    assert ran.stdout, ran.stderr
    return json.loads(ran.stdout)


def run_pytest(
    directory, tests, *options, ini="", plugins=("pytest_django.plugin", "pytest_asyncio.plugin"), **environ
):
    """Run tests as those of a site, with these plugins and the package's alone; returns what pytest printed."""
    (directory / "pytest.ini").write_text(f"[pytest]\nasyncio_default_fixture_loop_scope = function\n{ini}\n")
    (directory / "test_site.py").write_text(tests)
    loaded = [f"-p{plugin}" for plugin in (*plugins, "channels_wsdeny.pytest_plugin")]
    command = ["-m", "pytest", "-p", "no:cacheprovider", *loaded, *options, "test_site.py"]
    ran = run(command, directory, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", **environ)
    return ran.stdout + ran.stderr


@dataclass
class Process:
    """A running server, its port and its log."""

    port: int
    log_file: Path
    popen: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="backslashreplace")

    def log_from_here(self) -> Callable[[], str]:
        """A function that returns what the log has got since now."""
        size = len(self.log)
        return lambda: self.log[size:]

    def wait_for(self, text: str, log: Callable[[], str] | None = None) -> str:
        """The first line of the log (or this part of it) that has `text` in it, once there is one."""
        log = log or (lambda: self.log)
        deadline = time.monotonic() + GUARD
        while True:
            for line in log().splitlines(keepends=True):
                if text in line and line.endswith("\n"):
                    return line
            assert time.monotonic() < deadline, f"{text!r} is not in the log:\n{log()}"
            time.sleep(0.02)

    def stop(self) -> int:
        """End the server, and the processes it has started; returns its exit status."""
        if self.popen.returncode is None:
            self.popen.terminate()
            try:
                self.popen.wait(GUARD)
            except subprocess.TimeoutExpired:
                self.popen.kill()
            try:
                os.killpg(self.popen.pid, signal.SIGKILL)  # Workers, where there are any left.
            except ProcessLookupError:
                pass
        return self.popen.wait(GUARD)


P = TypeVar("P", bound=Process)


def start(
    command: list[str],
    log_file: Path,
    environment: Mapping[str, str],
    make: Callable[[int, Path, subprocess.Popen[bytes]], P],
    cwd: Path = ROOT,
    port: int | None = None,
) -> P:
    """Run Python with these arguments, ``{port}`` in them replaced, and wait until its server listens.

    `environment` adds to that of the tests, but for their DJANGO_SETTINGS_MODULE. `port` is a free one by default.
    """
    given = port
    for _ in range(5):
        port = _free_port() if given is None else given
        with log_file.open("wb") as log:
            popen = subprocess.Popen(
                [sys.executable, *(argument.format(port=port) for argument in command)],
                cwd=cwd,
                env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        server = make(port, log_file, popen)
        try:
            if _is_up(server):
                return server
        except BaseException:
            server.stop()
            raise
        server.stop()
    raise AssertionError(f"{command} did not start:\n{server.log}")


@contextmanager
def serving(command: list[str], directory: Path, environment: Mapping[str, str], cwd: Path = ROOT) -> Iterator[Process]:
    """A server for as long as the context lasts."""
    server = start(command, directory / "server.log", environment, Process, cwd)
    try:
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _is_up(server: Process) -> bool:
    """Whether the server came up; it did not if another process has taken its port meanwhile."""
    deadline = time.monotonic() + GUARD
    # Every server says where it listens: connections of another process are not taken for its own.
    listening = re.compile(rf"(?i)(?:listening|running) .*127\.0\.0\.1:{server.port}\b")
    while time.monotonic() < deadline and server.popen.poll() is None:
        if listening.search(server.log):
            try:
                socket.create_connection(("127.0.0.1", server.port), GUARD).close()
            except ConnectionRefusedError:
                pass  # granian says so a little too early.
            else:
                return True
        time.sleep(0.02)
    return False
