"""The log: one record for each denial, on the logger ``channels_wsdeny``; tracebacks go to ``django.request``.

Records never hold cookies, query strings or tokens.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.http import HttpRequest

    from .http.context import RequestContext
    from .types import Scope

logger = logging.getLogger("channels_wsdeny")
request_logger = logging.getLogger("django.request")
_warned: set[str] = set()
#: Kinds of errors that are counted at the same time.
_MOST_OUTAGES = 100


def log_denial(context: RequestContext, status: int, code: str) -> None:
    """Log a denial: as a warning below 500, an error from there, as information for a redirect. Never raises.

    The record has these extras for programs: ``path``, ``status``, ``code``, ``policy`` (the expression of the
    policy that was asked last, or None), ``user`` (its primary key, or None), ``client`` (host:port, or None)
    and ``duration`` (seconds). With `DEBUG` there is ``trace`` too, see `channels_wsdeny.http.trace`.
    """
    level = _level(status)
    if not logger.isEnabledFor(level):
        return
    with protected():
        extra = {"policy": context.expression, "user": context.user_pk, "client": _client(context.request)}
        if context.trace is not None:
            extra["trace"] = context.trace.as_dict()
        _log(level, request_path(context.request), status, code, context.state.started, extra)


def log_report(context: RequestContext, status: int, code: str, error: BaseException | None) -> None:
    """Log, as a warning, that the policy which was asked last would have denied, if it were enforced. Never raises.

    The record has the extras of `log_denial`, and ``report_only``, which is True; that of a failure has its traceback.
    """
    if not logger.isEnabledFor(logging.WARNING):
        return
    with protected():
        path = escape(request_path(context.request))
        logger.warning(
            "Would deny %s: %s %s, by %s, which is not enforced",
            *(path, status, escape(code), context.expression),
            exc_info=error if status >= 500 else None,
            extra={
                "path": path,
                "status": status,
                "code": code,
                "policy": context.expression,
                "user": context.user_pk,
                "client": _client(context.request),
                "duration": time.monotonic() - context.state.started,
                "report_only": True,
            },
        )


def log_scope(scope: Scope, status: int, code: str, policy: str | None, started: float) -> None:
    """As `log_denial`, for a handshake for which no request was made; `started` is of `time.monotonic()`."""
    level = _level(status)
    if logger.isEnabledFor(level):
        with protected():
            extra = {"policy": policy, "user": None, "client": _client_of(scope)}
            _log(level, scope["path"], status, code, started, extra)


def _log(level: int, path: str, status: int, code: str, started: float, extra: dict[str, Any]) -> None:
    path, code, duration = escape(path), escape(code), time.monotonic() - started
    # As `Logger.log`, without its search of the stack for the caller, which is known here.
    make, args = logging.getLogRecordFactory(), (path, status, code)
    record = make(logger.name, level, "log.py", 0, "Denied %s: %s %s", args, None, "log_denial")
    vars(record).update(extra, path=path, status=status, code=code, duration=duration)
    logger.handle(record)


def _level(status: int) -> int:
    return logging.ERROR if status >= 500 else logging.WARNING if status >= 400 else logging.INFO


class protected:  # noqa: N801 - a context manager as `contextlib.suppress`, at a third of a generator's cost
    """Log something although a log handler may raise, which must not keep a response from the client."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, frames: object) -> bool:
        if not isinstance(error, Exception):
            return False
        if logging.raiseExceptions:
            traceback.print_exception(error)  # as logging itself does
        return True


def log_failure(context: RequestContext, error: BaseException, status: int = 500) -> None:
    """Log an exception that became a denial, or came after one, with its traceback. Never raises.

    While a service cannot be reached, the same error is logged once a minute, and counted in between.
    """
    with protected():
        counted = _count_outage(error) if status == 503 else 0
        if counted is None:
            return
        request_logger.error(
            "%s: %s%s",
            "Service Unavailable" if status == 503 else "Internal Server Error",
            escape(request_path(context.request)),
            f" (the same {counted} times more since it was last logged)" if counted else "",
            exc_info=error,
            extra={"status_code": status, **_reportable(context.request)},
        )


#: Seconds for which the same error of a service that cannot be reached is counted, and not logged.
_OUTAGE = 60.0
#: What is another in each message of the same outage: the port of a client, the id of a process, an address.
_VARYING = re.compile(r"0x[0-9a-f]+|\d{4,}")
#: When such an error was logged, in seconds of `time.monotonic`, and how often it came since.
_outages: dict[tuple[type, str], tuple[float, int]] = {}
_outages_lock = threading.Lock()


def _count_outage(error: BaseException) -> int | None:
    """How often `error` came since it was last logged, if it is to be logged now; None if it is only counted."""
    key, now = (type(error), _VARYING.sub("#", str(error)[:200])), time.monotonic()
    with _outages_lock:
        logged, count = _outages.pop(key, (None, 0))
        is_news = logged is None or now - logged > _OUTAGE
        if len(_outages) >= _MOST_OUTAGES:
            _outages.pop(next(iter(_outages)))
        _outages[key] = (now, 0) if logged is None or is_news else (logged, count + 1)
    return count if is_news else None


def _reportable(request: Any) -> dict[str, HttpRequest]:
    """The request for error reports, whose ``META`` they print; nothing if it cannot be parsed."""
    try:
        request.META  # noqa: B018 - a request made from a scope parses its headers here
        return {"request": request.reportable() if hasattr(request, "reportable") else request}
    except Exception:  # the record's own text has to do
        return {}


def warn_once(message: str) -> None:
    """Log a warning, once in each process."""
    if message not in _warned:
        _warned.add(message)
        logger.warning(message)


def request_path(request: HttpRequest) -> str:
    """The path of `request`, without its query string, which may carry a token."""
    scope: Any = getattr(request, "scope", None)
    path: str = request.path if scope is None else scope.get("path", "")
    return path


def _client(request: HttpRequest) -> str | None:
    scope: Any = getattr(request, "scope", None)
    return request.META.get("REMOTE_ADDR") if scope is None else _client_of(scope)


def _client_of(scope: Scope) -> str | None:
    client = scope.get("client")
    return escape(f"{client[0]}:{client[1]}") if client else None


def escape(text: str) -> str:
    """`text` with line breaks and control characters escaped, so that a client cannot forge log records."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


# How log records, reports and traces name code and exceptions.

#: Parts of the paths of files that do not belong to the site.
_LIBRARIES = ("site-packages", "dist-packages", str(Path(__file__).parent))


def dotted_name(code: Any) -> str:
    """The dotted name of a function, class or class-based view; of any other object, that of its class."""
    code = getattr(code, "view_class", getattr(code, "func", code))
    if not hasattr(code, "__qualname__"):
        code = type(code)
    return f"{getattr(code, '__module__', '?')}.{code.__qualname__}"


def source_location(error: BaseException) -> str:
    """The file and line that raised `error`: the innermost one of the site's own code, else the innermost."""
    frames = traceback.extract_tb(error.__traceback__)[::-1]
    return own_location(error) or next((f"{frame.filename}:{frame.lineno}" for frame in frames), "?")


def own_location(error: BaseException) -> str | None:
    """The innermost file and line of the site's own code that raised `error`; None if it has no part in it."""
    frames = traceback.extract_tb(error.__traceback__)[::-1]
    own = (frame for frame in frames if not any(part in frame.filename for part in _LIBRARIES))
    return next((f"{frame.filename}:{frame.lineno}" for frame in own), None)
