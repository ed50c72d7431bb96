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
from django.utils.functional import Promise

from ..db import is_unreachable
from ..exceptions import Deny

#: The challenge of SimpleJWT's own authentication class.
_BEARER = 'Bearer realm="api"'
#: What SimpleJWT raises for a bad token where no authentication class of it has been asked.
_TOKEN_ERRORS = {f"rest_framework_simplejwt.exceptions.{name}" for name in ("TokenError", "TokenBackendError")}


class NoRoute(Http404):
    """What exception hooks see in place of the `ValueError` of Channels' router."""


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
        error = error.__context__ if error.__cause__ is None else error.__cause__


def translate(error: Exception) -> Deny:
    """As `denial_of`, but a `Deny` is an error like any other: for a failure while a denial of the site was made."""
    denial = _translate(error)
    denial.__cause__ = error
    return denial


def normalize(error: Exception) -> Exception:
    """`error` as exception hooks see it: an `Http404` for the `ValueError` of Channels' router."""
    return NoRoute("No route matches the path.") if is_unrouted(error) else error


def means_denial(error: Exception) -> bool:
    """Whether `error` denies on purpose, also after the accept: it is no failure of the application."""
    if isinstance(error, (Deny, PermissionDenied, Http404)):
        return True
    foreign = _try_foreign(error)
    return foreign is not None and foreign.status < 500


def is_unrouted(error: Exception) -> bool:
    """Whether Channels' routers raised `error` because no route matched; it has no type of its own."""
    return isinstance(error, ValueError) and _raised_by(error) == "channels.routing"


def _translate(error: Exception) -> Deny:
    foreign = _try_foreign(error)
    if foreign is not None:
        return foreign
    if isinstance(error, (PermissionDenied, DenyConnection)):
        return Deny(403)
    if isinstance(error, Http404) or is_unrouted(error):
        return Deny(404)
    if isinstance(error, ValueError) and _raised_by(error) == "channels.security.websocket":
        return Deny(403, code="origin_not_allowed")  # `OriginValidator` could not parse it, such as ``http://[bad``.
    if isinstance(error, (BadRequest, SuspiciousOperation, MultiPartParserError)):
        return Deny(400)
    if is_unreachable(error):
        return Deny(503)
    return Deny(500)


def _try_foreign(error: Exception) -> Deny | None:
    names = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__}
    try:
        return _foreign(error, names)
    except Exception:  # a subclass of the site's may lack what these exceptions have
        return None


def _foreign(error: Any, names: set[str]) -> Deny | None:
    """The denial of an exception of REST framework, SimpleJWT, Ninja or django-ratelimit, recognised by name."""
    if not names.isdisjoint(_TOKEN_ERRORS):
        return Deny(401, str(error), code="token_not_valid", headers={"WWW-Authenticate": _BEARER})
    if "rest_framework.exceptions.APIException" in names:
        return _of_rest_framework(error, names)
    if "ninja.errors.HttpError" in names:
        return _with_detail(error.status_code, error.message, None, _retry_after(error))
    if "ninja.errors.AuthenticationError" in names:  # of Ninja before 1.4
        return Deny(401)
    if "ninja.errors.ValidationError" in names:
        return Deny(422, errors=_plain(error.errors))
    if "django_ratelimit.exceptions.Ratelimited" in names:
        return Deny(429)
    return None


def _of_rest_framework(error: Any, names: set[str]) -> Deny:
    is_of_simplejwt = any(name.startswith("rest_framework_simplejwt.exceptions.") for name in names)
    challenge = getattr(error, "auth_header", None) or (_BEARER if is_of_simplejwt else None)
    headers = _retry_after(error)
    if challenge and error.status_code == 401:
        headers["WWW-Authenticate"] = str(challenge)
    detail, code = getattr(error, "detail", ""), _code_of(error)
    if isinstance(detail, dict) and isinstance(detail.get("detail"), (str, Promise)):
        more = {key: each for key, each in detail.items() if key not in {"detail", "code"} and not is_of_simplejwt}
        return _with_detail(error.status_code, detail["detail"], detail.get("code"), headers, more)
    return _with_detail(error.status_code, detail, code, headers)


def _with_detail(status: int, detail: Any, code: Any, headers: dict[str, str], errors: Any = None) -> Deny:
    """A denial whose `detail` is a text, perhaps a lazy one, or data, which become its member ``errors``."""
    if isinstance(detail, (dict, list, tuple)):
        detail, errors = "", detail
    elif not isinstance(detail, Promise):
        detail = "" if detail is None else str(detail)
    members = {"errors": _plain(errors)} if errors else {}
    return Deny(status, detail, code=str(code) if isinstance(code, str) else None, headers=headers, **members)


def _code_of(error: Any) -> Any:
    try:
        return error.get_codes()
    except Exception:  # the detail of a subclass may be a plain text, or anything else
        return None


def _retry_after(error: Any) -> dict[str, str]:
    wait: Any = getattr(error, "wait", None)
    is_known = isinstance(wait, (int, float)) and math.isfinite(wait) and wait > 0
    return {"Retry-After": str(math.ceil(wait))} if is_known else {}


def _plain(errors: Any) -> Any:
    """`errors` in JSON's types: what they do not have, such as lazy translations, as text."""
    if isinstance(errors, dict):
        return {str(key): _plain(each) for key, each in errors.items()}
    if isinstance(errors, (list, tuple, set, frozenset)):
        return [_plain(each) for each in errors]
    is_number = isinstance(errors, (int, float)) and math.isfinite(errors)
    return errors if errors is None or is_number else str(errors)


def _raised_by(error: Exception) -> str:
    """The module that raised `error`, itself or by Python's parser of URLs; an empty string if that is unknown."""
    names = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((name for name in reversed(names) if name not in {"urllib.parse", "ipaddress"}), "")
