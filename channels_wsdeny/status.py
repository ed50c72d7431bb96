"""The statuses of denials, and the machine-readable code and the text of each."""

from __future__ import annotations

from http import HTTPStatus

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

#: A denial's ``detail``; a lazy translation is rendered in the language of the request.
Text = str | Promise

# Clients rely on codes, so they do not follow the phrases of `http.HTTPStatus`, which change with Python's
# version (413, 414, 416 and 422 did in 3.13).
_CODES = {
    400: "bad_request",
    401: "not_authenticated",
    403: "permission_denied",
    404: "not_found",
    413: "content_too_large",
    414: "uri_too_long",
    416: "range_not_satisfiable",
    418: "im_a_teapot",
    422: "unprocessable_content",
    429: "throttled",
    500: "server_error",
    503: "unavailable",
}

_REGISTERED = frozenset(map(int, HTTPStatus))

_DETAILS: dict[str, Text] = {
    "bad_request": _("The request could not be understood."),
    "not_authenticated": _("You need to log in first."),
    "invalid_credentials": _("The credentials are wrong, or have expired."),
    "permission_denied": _("You do not have permission to open this."),
    "not_found": _("There is nothing at this address."),
    "throttled": _("There were too many requests. Try again later."),
    "too_many_connections": _("Too many connections are open. Close one, or try again later."),
    "server_error": _("Something went wrong on our side."),
    "unavailable": _("The service is not available right now. Try again later."),
}


def is_denial(status: object) -> bool:
    """Whether `status` can deny a request: 300-599. On HTTP/2 a 200 would accept a handshake (RFC 8441)."""
    return isinstance(status, int) and 300 <= status <= 599


def is_content(status: int) -> bool:
    """Whether a response of this status discloses the resource: 1xx, 2xx, or 304, which confirms a copy."""
    return status < 300 or status == 304


def wire_status(status: int) -> int:
    """`status` if it is registered, which all servers can send; else the x00 of its class."""
    return int(status) if status in _REGISTERED else status // 100 * 100


def phrase(status: int) -> str:
    """The registered reason phrase of `status`, 200-599, else the name of its class (RFC 9110 section 15)."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return {2: "Success", 3: "Redirection", 4: "Client Error", 5: "Server Error"}[status // 100]


def code_for(status: int) -> str:
    """The machine-readable code of a status as it is sent, such as ``permission_denied`` for 403."""
    status = wire_status(status)
    return _CODES.get(status) or HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")


def detail_for(code: str, status: int) -> Text:
    """The translatable default text for this code, else for this status; empty if there is none."""
    return _DETAILS[code] if code in _DETAILS else _DETAILS.get(code_for(status), "")  # A lazy text is not looked at.
