"""A denial by the application itself: messages of the server's extension, or a close before the accept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.http import HttpResponse

from .. import status as statuses
from ..exceptions import Deny
from . import content
from . import messages as emitter

if TYPE_CHECKING:
    from django.http.response import HttpResponseBase

    from ..types import Message, RawHeaders


def take_headers(response: HttpResponseBase, headers: RawHeaders) -> None:
    """Give `response` an application's headers alone: repeated ones are folded, but for cookies."""
    del response["Content-Type"]
    response.cookie_lines = []  # type: ignore[attr-defined]
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin1")
        if name == "set-cookie":
            response.cookie_lines.append((raw_name, raw_value))  # type: ignore[attr-defined]
        elif response.has_header(name):
            response[name] = f"{response[name]}, {value}"  # RFC 9110 section 5.3
        else:
            response[name] = value


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
        content.assert_size(len(self.body))
        if message.get("more_body"):
            return None
        response = HttpResponse(self.body, status=self.status)
        take_headers(response, self.headers)
        return response


def denial_of_close(message: Message) -> Deny:
    """A close before the accept is a denial: 403, or N where the code is 4000 + N (400-599)."""
    code: Any = message.get("code")
    reason = message.get("reason") or ""
    if isinstance(code, int) and 4400 <= code <= 4599:
        return Deny(code - 4000, reason)
    return Deny(403)
