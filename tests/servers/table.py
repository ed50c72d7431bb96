"""The table of servers, each a process of its own, and what each cannot do by itself."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.support.clients import Answer
from tests.support.connections import Connection, Headers, Http2Connection
from tests.support.processes import Process, start
from tests.support.threads import wait_until

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
    # It would wait for ever for handshakes that wait.
    "granian": "granian --interface asgi --workers 1 --workers-kill-timeout 2 --loop asyncio --port {port}",
}
SERVERS = list(COMMANDS)
HTTP1 = [name for name in SERVERS if name != "hypercorn-h2"]

#: What a server cannot do by itself, and what its tests expect instead: feature, server, reason.
DIFFERENCES = {
    "denial": {"stock-daphne": "knows no denial messages; a close makes it answer a bare 403"},
    "accept-headers": {
        "stock-daphne": "drops headers and cookies of an accept",
        "granian": "drops headers and cookies of an accept, so they are left out, with a warning",
    },
    "second-set-cookie": {
        "stock-daphne": "its 403 is bare",
        "granian": "panics on a repeated header name, so only the first cookie is sent, with a warning",
    },
    "close-reason": {"stock-daphne": "sends the code of a close without its reason"},
}


@dataclass
class Server(Process):
    name: str = ""

    def can(self, feature: str) -> bool:
        return self.name not in DIFFERENCES[feature]

    def connect(self) -> Connection:
        return (Http2Connection if self.name == "hypercorn-h2" else Connection)(self.port)

    def ask(self, path: str, headers: Headers | None = None) -> Answer:
        """The answer to a handshake, which its client leaves then."""
        with self.connect() as connection:
            connection.request(path, headers)
            return connection.answer()

    def report(self) -> dict[str, list[str]]:
        """What the application still runs for, as the site's ``/report/`` writes it into the log."""
        token = uuid4().hex
        self.ask(f"/report/{token}/")
        marker = f"left {token}: "
        report: dict[str, list[str]] = json.loads(self.wait_for(marker).partition(marker)[2])
        return report

    def wait_until_gone(self, token: str) -> None:
        """Wait until the application runs for no connection that has `token` in its address."""
        wait_until(lambda: not any(token in address for address in self.report()["running"]), self.report)


class Fleet:
    """The servers that run, each started when it is first asked for."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.running: dict[str, Server] = {}
        self._directory, self._environment = directory, environment

    def get(self, name: str, **settings: Any) -> Server:
        """The server of this name, under these settings of the package."""
        key = name + json.dumps(settings)
        if key not in self.running:
            environment = {**self._environment, "SERVERS_CHANNELS_WSDENY": json.dumps(settings)}
            self.running[key] = start(
                ["-m", *COMMANDS[name].split(), "tests.servers.site:application"],
                self._directory / f"{len(self.running)}-{name}.log",
                environment,
                lambda *started: Server(*started, name=name),
            )
        return self.running[key]
