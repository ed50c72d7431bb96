"""The servers under test, each a process of its own, and what each cannot do by itself."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from .h2wire import Http2Connection
from .raw import GUARD, Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parents[2]
APPLICATION = "tests.wire.site:application"

# It would wait for ever for a connection whose handshake made wsproto raise.
_UVICORN = "uvicorn --timeout-graceful-shutdown 2 --port {port}"
_HYPERCORN = "hypercorn --workers 0 --bind 127.0.0.1:{port}"
#: The command of each server, without ``python -m`` and the application.
COMMANDS = {
    "daphne": "channels_wsdeny.daphne -b 127.0.0.1 -p {port}",
    "stock-daphne": "daphne -b 127.0.0.1 -p {port}",
    "uvicorn-websockets": f"{_UVICORN} --ws websockets",
    "uvicorn-sansio": f"{_UVICORN} --ws websockets-sansio",
    "uvicorn-wsproto": f"{_UVICORN} --ws wsproto",
    "hypercorn": _HYPERCORN,
    "hypercorn-h2": _HYPERCORN,
    "granian": "granian --interface asgi --workers 1 --loop asyncio --port {port}",
}
SERVERS = list(COMMANDS)

#: What a server cannot do by itself, and what its tests expect instead: feature, server, reason.
DIFFERENCES = {
    "denial": {
        "stock-daphne": "knows no denial messages; a close makes it answer a bare 403",
    },
    "accept-headers": {
        "stock-daphne": "drops headers and cookies of an accept",
        "granian": "drops headers and cookies of an accept, so they are left out, with a warning",
    },
    "second-set-cookie": {
        "stock-daphne": "its 403 is bare",
        "granian": "panics on a repeated header name, so only the first cookie is sent, with a warning",
    },
    "close-reason": {
        "stock-daphne": "sends the code of a close without its reason",
    },
    "orderly-end-of-own-close": {
        "daphne": "Autobahn aborts the connection once the client has answered the server's close",
        "stock-daphne": "Autobahn, as above",
        "hypercorn": "ends the connection with the application, which need not wait for the client's answer",
        "granian": "the same, and without reading what the client has sent",
    },
    "close-after-exception": {
        "uvicorn-websockets": "ends the connection without a close frame",
        "uvicorn-sansio": "ends the connection without a close frame",
        "uvicorn-wsproto": "ends the connection without a close frame",
        "granian": "sends a close without a code",
    },
    "end-after-close": {
        "hypercorn-h2": "answers the client's close frame, but leaves its side of the stream open",
    },
}


@dataclass
class Server:
    """A running server."""

    name: str
    port: int
    log_file: Path
    process: subprocess.Popen[bytes]

    def connect(self) -> Connection:
        return (Http2Connection if self.name == "hypercorn-h2" else Connection)(self)

    def can(self, feature: str) -> bool:
        return self.name not in DIFFERENCES[feature]

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="backslashreplace")

    def log_from_here(self) -> Callable[[], str]:
        """A function that returns what the log has got since now."""
        size = len(self.log)
        return lambda: self.log[size:]

    def wait_for(self, text: str, log: Callable[[], str] | None = None) -> None:
        """Wait until the log (or this part of it) has `text` in it."""
        log = log or (lambda: self.log)
        deadline = time.monotonic() + GUARD
        while text not in log():
            assert time.monotonic() < deadline, f"{text!r} is not in the log:\n{log()}"
            time.sleep(0.02)

    def report(self) -> dict[str, list[str]]:
        """What the application still runs for, as the site's ``/report/`` tells the log."""
        token = uuid4().hex
        with self.connect() as connection:
            connection.request(f"/report/{token}/")
            connection.answer()
        marker = f"left {token}: "
        self.wait_for(marker)
        line = next(line for line in self.log.splitlines() if marker in line)
        report: dict[str, list[str]] = json.loads(line.partition(marker)[2])
        return report

    def stop(self) -> int:
        """End the server, and whatever it has started; returns its exit status."""
        if self.process.returncode is not None:
            return self.process.returncode
        self.process.terminate()
        try:
            self.process.wait(GUARD)
        except subprocess.TimeoutExpired:
            self.process.kill()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # Workers, where there are any left.
        except ProcessLookupError:
            pass
        return self.process.wait(GUARD)


def able(feature: str) -> list[str]:
    return [name for name in SERVERS if name not in DIFFERENCES[feature]]


def unable(feature: str) -> list[str]:
    return list(DIFFERENCES[feature])


def start(
    name: str, directory: Path, environment: Mapping[str, str], settings: dict[str, object] | None = None
) -> Server:
    """Start a server on a free port, and wait until it answers. `settings` are ``CHANNELS_WSDENY``."""
    log_file = directory / f"{name}.log"
    for _ in range(5):
        port = _free_port()
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *COMMANDS[name].format(port=port).split(), APPLICATION],
                cwd=ROOT,
                env={
                    **os.environ,
                    **environment,
                    "PYTHONUNBUFFERED": "1",
                    "WIRE_CHANNELS_WSDENY": json.dumps(settings or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        server = Server(name, port, log_file, process)
        try:
            if _is_up(server):
                return server
        except BaseException:
            server.stop()
            raise
        server.stop()
    raise AssertionError(f"{name} did not start:\n{server.log}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _is_up(server: Server) -> bool:
    """Whether the server came up; it did not if somebody else has taken its port meanwhile."""
    deadline = time.monotonic() + GUARD
    # Every server says where it listens: nobody else's connections are taken for its own.
    listening = re.compile(rf"(?i)(?:listening|running) .*127\.0\.0\.1:{server.port}\b")
    while time.monotonic() < deadline and server.process.poll() is None:
        if listening.search(server.log):
            try:
                with server.connect() as connection:
                    connection.request("/up/")
                    connection.answer()
            except ConnectionRefusedError:
                pass  # granian says so a little too early.
            else:
                return True
        time.sleep(0.02)
    return False
