"""The table from exceptions, raised before the answer, to denials."""

from __future__ import annotations

import math
import traceback
from typing import Any

from channels.exceptions import DenyConnection
from django.conf import settings
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404
from django.http.multipartparser import MultiPartParserError

from ..db import is_unreachable
from ..exceptions import Deny

#: The challenge of SimpleJWT's own authentication class.
_BEARER = 'Bearer realm="api"'


def denial_of(error: Exception) -> Deny:
    """The denial that `error` becomes. Its ``__cause__`` is the error, except for a `Deny` itself."""
    if isinstance(error, Deny):
        # One instance may be raised again and again, and each time its traceback would grow.
        error.__traceback__ = error.__context__ = None
        return error
    denial = translate(error)
    if denial.status < 500 and not settings.DEBUG:
        forget_frames(error)  # It will not be printed.
    return denial


def forget_frames(error: BaseException | None) -> None:
    """Drop the tracebacks of `error` and of what led to it: they keep the frames of the request alive."""
    known: list[BaseException] = []
    while error is not None and not any(error is other for other in known):
        known.append(error)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def translate(error: Exception) -> Deny:
    """As `denial_of`, but a `Deny` is an error like any other: for a failure while a denial of the site was made."""
    denial = _translate(error)
    denial.__cause__ = error
    return denial


def normalize(error: Exception) -> Exception:
    """`error` as exception hooks see it: an `Http404` for the `ValueError` of Channels' router."""
    return Http404("No route matches the path.") if is_unrouted(error) else error


def is_unrouted(error: Exception) -> bool:
    """Whether Channels' routers raised `error` because no route matched; it has no type of its own."""
    return isinstance(error, ValueError) and _modules_of(error)[-1:] == ["channels.routing"]


def _translate(error: Exception) -> Deny:
    names = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__}
    try:
        foreign = _foreign(error, names)
    except Exception:  # a subclass of the site's may lack what these exceptions have
        foreign = None
    if foreign is not None:
        return foreign
    if isinstance(error, (PermissionDenied, DenyConnection)):
        return Deny(403)
    if isinstance(error, Http404) or is_unrouted(error):
        return Deny(404)
    if _is_unparseable_origin(error):
        return Deny(403, code="origin_not_allowed")
    if isinstance(error, (BadRequest, SuspiciousOperation, MultiPartParserError)):
        return Deny(400)
    if is_unreachable(error):
        return Deny(503)
    return Deny(500)


def _foreign(error: Any, names: set[str]) -> Deny | None:
    """The denial of an exception of REST framework, SimpleJWT, Ninja or django-ratelimit, recognised by name."""
    is_of_simplejwt = any(name.startswith("rest_framework_simplejwt.exceptions.") for name in names)
    if "rest_framework_simplejwt.exceptions.TokenError" in names:
        return Deny(401, str(error), code="token_not_valid", headers={"WWW-Authenticate": _BEARER})
    if "rest_framework.exceptions.APIException" in names:
        challenge = getattr(error, "auth_header", None) or (_BEARER if is_of_simplejwt else None)
        headers = {"WWW-Authenticate": challenge} if challenge and error.status_code == 401 else {}
        if getattr(error, "wait", None):
            headers["Retry-After"] = str(math.ceil(error.wait))
        if isinstance(error.detail, str):
            return Deny(error.status_code, str(error.detail), code=error.get_codes(), headers=headers)
        if is_of_simplejwt:
            return Deny(error.status_code, str(error.detail["detail"]), code=str(error.detail["code"]), headers=headers)
        return Deny(error.status_code, headers=headers, errors=error.detail)  # a ValidationError
    if "ninja.errors.HttpError" in names:
        return Deny(error.status_code, str(error))
    if "django_ratelimit.exceptions.Ratelimited" in names:
        return Deny(429)
    return None


def _is_unparseable_origin(error: Exception) -> bool:
    """Whether Channels' `OriginValidator` could not parse an ``Origin`` such as ``http://[bad``."""
    modules = [name for name in _modules_of(error) if name not in {"urllib.parse", "ipaddress"}]
    return isinstance(error, ValueError) and modules[-1:] == ["channels.security.websocket"]


def _modules_of(error: Exception) -> list[str]:
    """The modules that `error` came through; the one that raised it is the last."""
    return [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
