"""Requests over HTTP to a Django view, through the whole handler of WSGI or ASGI."""

from __future__ import annotations

import asyncio
from io import BytesIO
from time import perf_counter
from typing import Any

from benchmarks.answers import Wrong
from benchmarks.standin import headers_of


class _Requests:
    """What both doors have in common: the path, and the headers that the answer must have."""

    def __init__(self, site: Any, *, path: str, headers: dict[str, str]) -> None:
        self._application = site()
        self._path = path
        self._headers = {name.lower(): value for name, value in headers.items()}

    def _check(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        found = {name.lower(): value for name, value in headers}
        if (status, body) != (200, b"hello") or not self._headers.items() <= found.items():
            raise Wrong(f"{self._path}: expected 200 with {self._headers}, found {status}, {found}, {body!r}")


class WSGIRequests(_Requests):
    """Requests through WSGI."""

    def verify(self) -> None:
        """Raise `Wrong` unless the view answers, and the headers have been added."""
        self._ask()

    def turn(self, seconds: float) -> dict[str, float]:
        """Microseconds a request."""
        spent, count = 0.0, 0
        deadline = perf_counter() + seconds
        while not count or perf_counter() < deadline:
            spent += self._ask()
            count += 1
        return {"us": spent / count * 1e6}

    def _ask(self) -> float:
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": self._path,
            "SCRIPT_NAME": "",
            "QUERY_STRING": "",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "127.0.0.1:8000",
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(),
            "wsgi.errors": None,
        }
        started: list[Any] = []
        began = perf_counter()
        response = self._application(environ, lambda *start: started.extend(start))
        body = b"".join(response)
        response.close()
        spent = perf_counter() - began
        self._check(int(started[0][:3]), started[1], body)
        return spent


class ASGIRequests(_Requests):
    """Requests through ASGI."""

    async def verify(self) -> None:
        """Raise `Wrong` unless the view answers, and the headers have been added."""
        await self._ask()

    async def turn(self, seconds: float) -> dict[str, float]:
        """Microseconds a request."""
        spent, count = 0.0, 0
        deadline = perf_counter() + seconds
        while not count or perf_counter() < deadline:
            spent += await self._ask()
            count += 1
            await asyncio.sleep(0)
        return {"us": spent / count * 1e6}

    async def _ask(self) -> float:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "http",
            "method": "GET",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 50000),
            "root_path": "",
            "path": self._path,
            "raw_path": self._path.encode(),
            "query_string": b"",
            "headers": [pair for pair in headers_of(None) if pair[0] not in {b"upgrade", b"connection"}],
        }
        events = [{"type": "http.request", "body": b"", "more_body": False}]
        sent: list[Any] = []
        stays = asyncio.get_running_loop().create_future()

        async def receive() -> Any:
            return events.pop() if events else await stays

        async def send(message: Any) -> None:
            sent.append(message)

        began = perf_counter()
        await self._application(scope, receive, send)
        spent = perf_counter() - began
        headers = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
        self._check(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))
        return spent
