"""A denial that the application sends itself, as messages of the server's extension."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import HttpResponse

from . import emitter, statuses

if TYPE_CHECKING:
    from .types import Message, RawHeaders


class AppResponse(HttpResponse):
    """A denial that an application sent as messages; header lines it repeated are kept apart."""

    def __init__(self, status: int, headers: RawHeaders, content: bytes) -> None:
        super().__init__(content, status=status)
        del self["Content-Type"]
        self.repeated: RawHeaders = []
        for name, value in headers:
            if name.lower() == b"set-cookie" or self.has_header(name.decode("ascii")):
                self.repeated.append((name.lower(), value))
            else:
                self[name.decode("ascii")] = value.decode("latin1")


class AppDenial:
    """A denial that the application sends itself, by the server's extension."""

    def __init__(self, start: Message) -> None:
        status = start.get("status")
        if not isinstance(status, int) or not statuses.is_denial(status):
            raise ValueError(f"The status of a denial is 300-599, found {status!r}.")
        self.status = status
        self.headers = emitter.check_headers(start)
        self.body = b""

    def add(self, message: Message) -> HttpResponse | None:
        """Take a body message; returns the response once it is whole."""
        self.body += message.get("body", b"")
        emitter.assert_size(len(self.body))
        if message.get("more_body"):
            return None
        return AppResponse(self.status, self.headers, self.body)
