"""What an exception before the answer means to the visitor: the table from exceptions to denials."""

from __future__ import annotations

import traceback
from socket import gaierror

from channels.exceptions import DenyConnection
from django.conf import settings
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404
from django.http.multipartparser import MultiPartParserError

from ..conf import conf
from ..exceptions import Deny

# Clients of caches and brokers are optional, so their exceptions are known by name.
_UNREACHABLE = {
    "django_redis.exceptions.ConnectionInterrupted",
    "redis.exceptions.ConnectionError",
    "redis.exceptions.TimeoutError",
    "redis.exceptions.BusyLoadingError",
    "pymemcache.exceptions.MemcacheUnexpectedCloseError",
    "pymemcache.exceptions.MemcacheServerError",
}


def denial_for(error: Exception) -> Deny:
    """The denial that `error` becomes. Its ``__cause__`` is the error, except for a `Deny` itself."""
    if isinstance(error, Deny):
        # One instance may be raised again and again, and each time would grow its traceback.
        error.__traceback__ = error.__context__ = None
        return error
    denial = translate(error)
    if denial.status < 500 and not settings.DEBUG:
        error.__traceback__ = None  # as above; nobody will print it
    return denial


def translate(error: Exception) -> Deny:
    """As `denial_for`, but a `Deny` is an error like any other: for where the site's answer failed."""
    denial = _translate(error)
    denial.__cause__ = error
    return denial


def _translate(error: Exception) -> Deny:
    if isinstance(error, (PermissionDenied, DenyConnection)):
        return Deny(403)
    if isinstance(error, Http404) or is_unrouted(error):
        return Deny(404)
    if _is_origin_that_cannot_be_parsed(error):
        return Deny(403, code="origin_not_allowed")
    if isinstance(error, (BadRequest, SuspiciousOperation, MultiPartParserError)):
        return Deny(400)
    if _is_unreachable(error):
        return Deny(503, headers={"Retry-After": str(conf.RETRY_AFTER)})
    return Deny(500)


def is_unrouted(error: Exception) -> bool:
    """Whether Channels' routers raised `error` because no route matched; it has no type of its own."""
    return isinstance(error, ValueError) and _modules_of(error)[-1:] == ["channels.routing"]


def _is_origin_that_cannot_be_parsed(error: Exception) -> bool:
    """Whether Channels' `OriginValidator` stumbled over an Origin such as ``http://[bad``."""
    modules = [name for name in _modules_of(error) if name not in {"urllib.parse", "ipaddress"}]
    return isinstance(error, ValueError) and modules[-1:] == ["channels.security.websocket"]


def _modules_of(error: Exception) -> list[str]:
    """The modules that `error` came through, the one that raised it last."""
    return [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]


def _is_unreachable(error: Exception) -> bool:
    if isinstance(error, (OperationalError, InterfaceError, ConnectionError, TimeoutError, gaierror)):
        return True
    names = (f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__)
    return not _UNREACHABLE.isdisjoint(names)
