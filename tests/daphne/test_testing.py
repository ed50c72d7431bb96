"""Daphne's test process with our server in it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import channels
import pytest

from channels_wsdeny.daphne.testing import DaphneProcess

from .apps import not_async, scripted
from .client import ask, body, start
from .servers import GUARD, ROOT, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The process forks; threads that other tests left behind do no harm here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


class Unpicklable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def load() -> Any:
    return scripted


def load_not_async() -> Any:
    return not_async


def fail_to_load() -> Any:
    raise LookupError("no such application")


def fail_unpicklably() -> Any:
    raise Unpicklable(1, 2)


@contextmanager
def started(load: Callable[[], Any], host: str = "127.0.0.1", **options: Any) -> Iterator[DaphneProcess]:
    process = DaphneProcess(host, load, kwargs=options)
    process.start()
    try:
        yield process
    finally:
        process.terminate()
        process.join(GUARD)
        process.close()


@contextmanager
def serving(load: Callable[[], Any], **options: Any) -> Iterator[Server]:
    with started(load, **options) as process:
        assert process.ready.wait(GUARD)
        yield Server(process.port.value, Path(), Path())


def test_the_process_serves_denials() -> None:
    with serving(load) as server:
        reply = ask(server, [start(401), body(b"no")])
    assert (reply.status, reply.body) == (401, b"no")


def test_the_process_takes_the_servers_options() -> None:
    with serving(load, server_name="mine") as server:
        assert ask(server, [start(401), body()]).all("server") == ["mine"]


def test_what_the_application_raises_as_it_loads_reaches_the_parent() -> None:
    with started(fail_to_load) as process:
        error, trace = process.errors.get(timeout=GUARD)
        assert isinstance(error, LookupError)
        assert "in fail_to_load" in trace
        process.join(GUARD)
        assert process.exitcode == 1
        assert not process.ready.is_set()


def test_an_error_that_cannot_be_pickled_reaches_the_parent_as_text() -> None:
    with started(fail_unpicklably) as process:
        error, _ = process.errors.get(timeout=GUARD)
    assert (type(error), str(error)) == (RuntimeError, "Unpicklable('1 and 2')")


def test_a_port_that_cannot_be_had_reaches_the_parent() -> None:
    # TEST-NET-1 (RFC 5737) is nobody's address.
    with started(load, host="192.0.2.1") as process:
        error, _ = process.errors.get(timeout=GUARD)
    assert "could not listen on tcp:port=0:interface=192.0.2.1" in str(error)


def test_an_application_that_cannot_be_started_is_a_500() -> None:
    with serving(load_not_async) as server:
        assert ask(server, []).status == 500


def test_the_servers_own_look_at_the_time_is_a_503_too(settings: Any) -> None:
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.1}
    with serving(load, websocket_handshake_timeout=0, websocket_connect_timeout=0) as server:
        assert ask(server, ["hang"]).status == 503


@pytest.mark.skipif(
    channels.__version__.startswith("4.2."), reason="Channels 4.2's own test case fails on Django 5.2"
)
def test_channels_live_test_case_runs_on_it(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "django",
        "test",
        "tests.daphne.live",
        "--settings",
        "tests.daphne.settings",
    ]
    environment = {**os.environ, "TESTS_DAPHNE_DATABASE": str(tmp_path / "test.sqlite3")}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, timeout=GUARD, check=False
    )
    assert result.returncode == 0, result.stderr.decode()
    assert b"Ran 1 test" in result.stderr
