"""A headless Chromium, driven by its DevTools protocol (chromedevtools.github.io/devtools-protocol)."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from .clients import GUARD

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
#: Chromium's own sandbox refuses to run as root. Background requests would only take time.
_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


class Chromium:
    """A running browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The result of a command; what happens until then goes into `events`."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        self._connection.send(json.dumps(message if session is None else {**message, "sessionId": session}))
        while True:
            answer = json.loads(self._connection.recv(GUARD))
            if answer.get("id") == self._number:
                assert "result" in answer, (method, answer)
                return answer["result"]
            self.events.append(answer)

    @contextmanager
    def page(self, url: str) -> Iterator["Page"]:
        """A page at `url`, loaded, with cookies and storage of its own. Uncaught exceptions in it fail the test."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        try:
            page = Page(self, session)
            self.send("Runtime.enable", session)
            page.go(url)
            yield page
            assert page.exceptions == []
        finally:
            self.send("Target.disposeBrowserContext", browserContextId=context)
            self.events.clear()


class Page:
    """A page in a browser."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser, self._session = browser, session

    def go(self, url: str) -> None:
        """Navigate, and wait until the page and its modules are loaded."""
        self._browser.send("Page.navigate", self._session, url=url)
        self.run("new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', done))")

    def resize(self, width: int, height: int) -> None:
        """Give the page a window of this size."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._browser.send("Emulation.setDeviceMetricsOverride", self._session, **metrics)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of an expression, of its promise, or of the function called with `arguments`; as JSON."""
        if arguments:
            script = f"({script})(...{json.dumps(arguments)})"
        params = {"expression": script, "awaitPromise": True, "returnByValue": True}
        found = self._browser.send("Runtime.evaluate", self._session, **params)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    @property
    def exceptions(self) -> list[Any]:
        """Exceptions and rejections that nothing has caught."""
        return [
            event["params"]["exceptionDetails"]
            for event in self._browser.events
            if event.get("sessionId") == self._session and event["method"] == "Runtime.exceptionThrown"
        ]


@contextmanager
def running(directory: Path) -> Iterator[Chromium]:
    """A Chromium with its profile in `directory`."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *_OPTIONS, "--remote-debugging-port=0", f"--user-data-dir={directory}", "about:blank"]
    with (directory / "chromium.log").open("wb") as log:
        popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        with connect(_address(directory / "DevToolsActivePort"), proxy=None, max_size=None) as connection:
            yield Chromium(connection)
    finally:
        popen.terminate()
        popen.wait(GUARD)


def _address(file: Path) -> str:
    """Where the browser listens: it writes its port, and a path, into its profile."""
    deadline = time.monotonic() + GUARD
    while True:
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        assert time.monotonic() < deadline, "Chromium does not start."
        time.sleep(0.02)
