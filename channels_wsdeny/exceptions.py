"""What is raised to deny, and what the package raises when an application goes on after a denial."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import status as statuses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.http.response import HttpResponseBase


class Deny(Exception):  # noqa: N818 - named for how it reads: raise Deny(404)
    """Deny the request with this answer. Raise it anywhere before the accept, or return it from a policy.

    `status` is 300-599 (401 gets the site's challenge); `detail` is shown to the visitor; `code` is
    for machines and follows from the status by default; `headers` are added to the response.
    `response` is sent instead of a problem body: any Django response (template, redirect, file);
    `status`, `detail` and `code` then only serve the log.

    Raises `ValueError` for a status that cannot deny, `TypeError` for a code that is no string.
    """

    def __init__(
        self,
        status: int = 403,
        detail: statuses.Text = "",
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        response: HttpResponseBase | None = None,
    ) -> None:
        if response is not None:
            status = response.status_code
        if not statuses.is_denial(status):
            raise ValueError(
                f"Deny: the status of a denial is 300-599, found {status!r}. "
                "To let the request pass, return True from the policy instead."
            )
        if code is not None and not isinstance(code, str):
            raise TypeError(f"Deny: the code is a string such as 'too_young', found {code!r}.")
        super().__init__(status, detail)
        self.status = statuses.wire_status(status)
        self.code = code or statuses.code_for(self.status)
        self.detail = detail
        self.headers = dict(headers or {})
        self.response = response

    def __str__(self) -> str:
        return f"{self.status} {self.code}" + (f": {self.detail}" if self.detail else "")


class HandshakeDenied(OSError):  # noqa: N818 - a state of the connection, as ConnectionReset
    """The application sent a message on a WebSocket whose handshake was denied already.

    An `OSError`, as the ASGI specification asks of ``send()`` on a closed connection.
    """


class PolicyError(TypeError):
    """A policy answered something that is no answer; the request is denied with a 500."""


class HookError(TypeError):
    """A hook returned something that is no response; the request is denied with a 500."""
