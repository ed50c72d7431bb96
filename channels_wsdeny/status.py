"""The statuses of denials: what may go on the wire, and the code and text that go with each."""

from __future__ import annotations

from http import HTTPStatus

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

#: What a denial's ``detail`` may be: a lazy translation is rendered in the visitor's language.
Text = str | Promise

# Codes are part of the wire contract, so they do not follow the phrases of `http.HTTPStatus`, which
# change with Python's version (413, 414, 416 and 422 did in 3.13).
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

_DETAILS: dict[str, Text] = {
    "bad_request": _("The request could not be understood."),
    "not_authenticated": _("You need to log in first."),
    "permission_denied": _("You do not have permission to open this."),
    "not_found": _("There is nothing at this address."),
    "throttled": _("There were too many requests. Try again later."),
    "server_error": _("Something went wrong on our side."),
    "unavailable": _("The service is not available right now. Try again later."),
}


def is_denial(status: object) -> bool:
    """Whether `status` can deny: 300-599. A 1xx or 2xx cannot (on HTTP/2 a 200 *is* an accept)."""
    return isinstance(status, int) and not isinstance(status, bool) and 300 <= status <= 599


def is_content(status: int) -> bool:
    """Whether a response of this status gives somebody what he asked for, or says that he has it (304)."""
    return status < 300 or status == 304


def wire_status(status: int) -> int:
    """The number that all servers can send for `status`: itself, or its class's x00 if unregistered."""
    try:
        return HTTPStatus(status).value
    except ValueError:
        return status // 100 * 100


def phrase(status: int) -> str:
    """The reason phrase of a registered status (RFC 9110 section 15), a problem's ``title``."""
    return HTTPStatus(status).phrase


def code_for(status: int) -> str:
    """The machine-readable code of a registered status, such as ``permission_denied`` for 403."""
    return _CODES.get(status) or HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")


def detail_for(code: str, status: int) -> Text:
    """The translatable default text of a denial with this code, else with this status; perhaps empty."""
    return _DETAILS.get(code) or _DETAILS.get(code_for(status), "")
