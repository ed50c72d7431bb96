"""Servers: each contender behind each real server, and ``wrk`` knocking at it."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING

from .cases import missing
from .processes import Process, environment
from .sites import GUARDED
from .turns import Failed

if TYPE_CHECKING:
    from pathlib import Path

    from .contenders import Contender
    from .turns import Samples

#: The command of each server, without ``python -m`` and the application. None writes an access log.
SERVERS = {
    "our Daphne": "channels_wsdeny.daphne -v 0 -b 127.0.0.1 -p {port}",
    "uvicorn": "uvicorn --port {port} --log-level critical --no-access-log",
    "hypercorn": "hypercorn --workers 0 --bind 127.0.0.1:{port} --log-level CRITICAL",
    "granian": "granian --interface asgi --workers 1 --loop asyncio --port {port} --no-log",
}
#: Connections that are kept busy.
CONNECTIONS = 16
_HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
#: Seconds that a server may take to answer for the first time.
_PATIENCE = 60


class ServedSite:
    """A contender's site on a server, in a process of its own; a turn is a run of ``wrk``."""

    #: The one case that there is.
    CASE = "denials"

    def __init__(self, server: str, contender: Contender, database: Path, status: int) -> None:
        self.name = f"{contender.name}, {server}"
        self._contender = contender
        self._command = SERVERS[server]
        self._environment = environment(database)
        self._status = status
        self._process: Process | None = None

    @property
    def _lacking(self) -> str | None:
        module = self._command.split()[0]
        return "wrk" if shutil.which("wrk") is None else missing([module, *self._contender.needs])

    def start(self) -> None:
        """Start the server."""
        if self._lacking:
            return
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
        command = self._command.format(port=self._port).split()
        self._process = Process([*command, f"{self._contender.module}:application"], self._environment)

    def get_ready(self) -> dict[str, str]:
        """Wait until the server denies a handshake as it should."""
        if self._lacking:
            return {self.CASE: self._lacking}
        found = self._first_answer()
        if not found.startswith(f"HTTP/1.1 {self._status} ".encode()):
            raise Failed(f"wrong answer: expected a {self._status}, found {found[:100]!r}")
        return {}

    def turn(self, seconds: float) -> Samples:
        """Knock for so many seconds, at least one."""
        if self._process is None:
            return {}
        options = ["-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--latency"]
        headers = [part for name, value in _HANDSHAKE.items() for part in ("-H", f"{name}: {value}")]
        url = f"http://127.0.0.1:{self._port}{GUARDED}"
        run = subprocess.run(["wrk", *options, *headers, url], capture_output=True, text=True, check=False)
        if run.returncode:
            raise Failed(f"wrk: {run.stderr.strip()}")
        return {self.CASE: _figures(run.stdout)}

    def stop(self) -> None:
        """End the server."""
        if self._process is not None:
            self._process.stop(patience=5)
            self._process = None

    def _first_answer(self) -> bytes:
        deadline = time.monotonic() + _PATIENCE
        headers = {"Host": f"127.0.0.1:{self._port}", **_HANDSHAKE}
        lines = [f"GET {GUARDED} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        while self._process is not None and self._process.is_running and time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=10) as connection:
                    connection.sendall("\r\n".join([*lines, "", ""]).encode())
                    return connection.recv(4096)
            except OSError:
                time.sleep(0.05)  # It does not listen yet.
        raise Failed(f"did not start: {self._process.complaints if self._process else 'no process'}")


def _figures(output: str) -> dict[str, float]:
    """What ``wrk`` prints, as figures; raises `Failed` unless every answer was a denial."""
    requests = int(_found(r"(\d+) requests in", output))
    denials = int(_found(r"Non-2xx or 3xx responses: (\d+)", output, "0"))
    if not requests or denials != requests:
        raise Failed(f"wrong answers: of {requests}, only {denials} were denials")
    latency, unit = re.findall(r"99%\s+([\d.]+)(us|ms|s|m)", output)[0]
    errors = re.findall(r"(?:connect|read|write|timeout) (\d+)", output)
    return {
        "per second": float(_found(r"Requests/sec:\s+([\d.]+)", output)),
        "p99 ms": float(latency) * _UNITS[unit],
        "errors": sum(map(int, errors)),
    }


def _found(pattern: str, output: str, default: str | None = None) -> str:
    match = re.search(pattern, output)
    if match is not None:
        return match[1]
    if default is None:
        raise Failed(f"wrk says something else than expected: {output}")
    return default
