"""The log: one record a denial, on the logger ``channels_wsdeny``; tracebacks go to ``django.request``.

Records never carry cookies, query strings or tokens.
"""

from __future__ import annotations

import logging
import time
import traceback
from typing import TYPE_CHECKING, Any

from django.core.exceptions import BadRequest

from .http.request import ScopeRequest
from .http.visitor import known_user

if TYPE_CHECKING:
    from django.http import HttpRequest

    from .http.context import Passage
    from .types import Scope

logger = logging.getLogger("channels_wsdeny")
request_logger = logging.getLogger("django.request")
_warned: set[str] = set()


def log_denial(passage: Passage, status: int, code: str) -> None:
    """One record: a warning below 500, an error from there, mere information for a redirect. Never raises.

    Its extras are for machines:

    ``path``, ``status``, ``code``, ``policy`` (the expression asked last, or None), ``user`` (primary key,
    or None), ``client`` (host:port, or None), ``duration`` (seconds). With `DEBUG` there is ``trace`` too:
    what the request went through, see `channels_wsdeny.trace`.
    """
    level = _level(status)
    if not logger.isEnabledFor(level):
        return
    request = passage.request
    try:
        extra = {
            "path": escape(request_path(request)),
            "status": status,
            "code": escape(code),
            "policy": passage.expression,
            "user": getattr(known_user(request), "pk", None),
            "client": _client(request),
            "duration": time.monotonic() - passage.started,
        }
        if passage.trace is not None:
            extra["trace"] = passage.trace.as_dict()
        _emit(level, extra)
    except Exception:  # noqa: BLE001 - a log handler that raises must not keep the denial from going out
        _report_broken_handler()


def log_scope(scope: Scope, status: int, code: str, policy: str | None, began: float) -> None:
    """As `log_denial`, for nobody's handshake, for which no request was made. `began`: `time.monotonic()`."""
    level = _level(status)
    if not logger.isEnabledFor(level):
        return
    try:
        client = scope.get("client")
        extra = {
            "path": escape(scope["path"]),
            "status": status,
            "code": code,
            "policy": policy,
            "user": None,
            "client": f"{client[0]}:{client[1]}" if client else None,
            "duration": time.monotonic() - began,
        }
        _emit(level, extra)
    except Exception:  # noqa: BLE001 - as above
        _report_broken_handler()


def _emit(level: int, extra: dict[str, Any]) -> None:
    """As `Logger.log`, which would look through the stack for the caller that is known here."""
    args = (extra["path"], extra["status"], extra["code"])
    make = logging.getLogRecordFactory()
    record = make(logger.name, level, "log.py", 0, "Denied %s: %s %s", args, None, "log_denial")
    vars(record).update(extra)
    logger.handle(record)


def _report_broken_handler() -> None:
    """Say that a log handler has raised, as logging itself does: that must keep no denial from going out."""
    if logging.raiseExceptions:
        traceback.print_exc()


def _level(status: int) -> int:
    return logging.ERROR if status >= 500 else logging.WARNING if status >= 400 else logging.INFO


def log_failure(passage: Passage, error: BaseException, status: int = 500) -> None:
    """An exception that became a denial, or came after one, with its traceback. Never raises."""
    try:
        request_logger.error(
            "%s: %s",
            "Service Unavailable" if status == 503 else "Internal Server Error",
            escape(request_path(passage.request)),
            exc_info=error,
            extra={"status_code": status, **_reportable(passage.request)},
        )
    except Exception:  # noqa: BLE001 - as above
        _report_broken_handler()


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
