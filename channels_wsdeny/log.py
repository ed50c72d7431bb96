"""The log: one record a denial, on the logger ``channels_wsdeny``; tracebacks go to ``django.request``.

Records never carry cookies, query strings or tokens.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from django.core.exceptions import BadRequest

from .handshake import ScopeRequest
from .visitor import known_user

if TYPE_CHECKING:
    from django.http import HttpRequest

    from .passage import Passage

logger = logging.getLogger("channels_wsdeny")
request_logger = logging.getLogger("django.request")
_warned: set[str] = set()


def log_denial(passage: Passage, status: int, code: str) -> None:
    """One record: a warning below 500, an error from there, mere information for a redirect.

    Its extras are for machines:

    ``path``, ``status``, ``code``, ``policy`` (the expression asked last, or None), ``user`` (primary key,
    or None), ``client`` (host:port, or None), ``duration`` (seconds).
    """
    level = logging.ERROR if status >= 500 else logging.WARNING if status >= 400 else logging.INFO
    if not logger.isEnabledFor(level):
        return
    request = passage.request
    extra = {
        "path": escape(request_path(request)),
        "status": status,
        "code": escape(code),
        "policy": passage.expression,
        "user": getattr(known_user(request), "pk", None),
        "client": _client(request),
        "duration": time.monotonic() - passage.started,
    }
    logger.log(level, "Denied %s: %s %s", extra["path"], status, extra["code"], extra=extra)


def log_failure(passage: Passage, error: BaseException, status: int = 500) -> None:
    """An exception that became a denial, or came after one, with its traceback."""
    request_logger.error(
        "%s: %s",
        "Service Unavailable" if status == 503 else "Internal Server Error",
        escape(request_path(passage.request)),
        exc_info=error,
        extra={"status_code": status, **_reportable(passage.request)},
    )


def _reportable(request: HttpRequest) -> dict[str, HttpRequest]:
    if not isinstance(request, ScopeRequest):
        return {"request": request}
    try:
        request.META  # noqa: B018 - what reports print has to be there
        return {"request": request.reportable()}
    except BadRequest:  # It cannot even be parsed; the record's own text has to do.
        return {}


def warn_once(key: str, message: str) -> None:
    """A warning on the package's logger, once a process for each `key`."""
    if key not in _warned:
        _warned.add(key)
        logger.warning(message)


def request_path(request: HttpRequest) -> str:
    """The path of `request`, without its query string, which may carry a token."""
    scope: Any = getattr(request, "scope", None)
    path: str = request.path if scope is None else scope.get("path", "")
    return path


def _client(request: HttpRequest) -> str | None:
    scope: Any = getattr(request, "scope", None)
    if scope is None:
        return request.META.get("REMOTE_ADDR")
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else None


def escape(text: str) -> str:
    """`text` without the line breaks and control characters that a client could forge records by."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
