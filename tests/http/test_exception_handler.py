"""The table from exceptions to denials."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from channels.exceptions import DenyConnection
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.core import exceptions
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, OperationalError
from django.http import Http404
from django.http.multipartparser import MultiPartParserError
from django.urls import path
from django.urls.exceptions import Resolver404

from channels_wsdeny import Deny
from channels_wsdeny.http.exception_handler import denial_of, is_unrouted, translate


def foreign(name, bases=(Exception,), **attributes):
    """An exception of another package, by its dotted name."""
    module, _, name = name.rpartition(".")
    return type(name, bases, {"__module__": module, **attributes})


def rest_framework(status, detail, code, **attributes):
    api_exception = foreign("rest_framework.exceptions.APIException")
    values = {"status_code": status, "detail": detail, "get_codes": lambda self: code, **attributes}
    return foreign("site.exceptions.Child", (api_exception,), **values)()


STATUSES = {
    400: [exceptions.BadRequest, exceptions.SuspiciousOperation, exceptions.DisallowedHost, MultiPartParserError],
    403: [exceptions.PermissionDenied, DenyConnection],
    404: [Http404, Resolver404],
    429: [foreign("django_ratelimit.exceptions.Ratelimited", (exceptions.PermissionDenied,))],
    500: [
        *(DatabaseError, DataError, IntegrityError, ValueError, FileNotFoundError, KeyError, RuntimeError),
        *(exceptions.ObjectDoesNotExist, exceptions.ValidationError, exceptions.RequestAborted),
        foreign("site.exceptions.ConnectionError"),
    ],
    503: [
        *(OperationalError, InterfaceError, ConnectionRefusedError, ConnectionResetError, TimeoutError),
        *(foreign(f"redis.exceptions.{name}") for name in ("ConnectionError", "TimeoutError", "BusyLoadingError")),
        *(foreign(f"pymemcache.exceptions.Memcache{name}") for name in ("UnexpectedCloseError", "ServerError")),
        foreign("django_redis.exceptions.ConnectionInterrupted"),
    ],
}


@pytest.mark.parametrize(("status", "kinds"), STATUSES.items())
def test_an_exception_becomes_its_denial_and_so_does_a_subclass(status, kinds, settings):
    for kind in kinds:
        for error in (kind("secret"), type("Child", (kind,), {})("secret")):
            denial = denial_of(error)
            expected = (status, "", {}, None, error)
            assert (denial.status, denial.detail, denial.headers, denial.response, denial.__cause__) == expected


FOREIGN = {
    "detail": (
        rest_framework(401, "Token expired.", "expired", auth_header="Bearer"),
        (401, "Token expired.", "expired"),
    ),
    "throttled": (rest_framework(429, "Slowly.", "throttled", wait=2.1), (429, "Slowly.", "throttled")),
    "errors": (rest_framework(400, {"age": ["Too young."]}, {"age": ["min"]}), (400, "", "bad_request")),
    "ninja": (foreign("ninja.errors.HttpError", status_code=409)("Taken."), (409, "Taken.", "conflict")),
    "broken": (foreign("ninja.errors.HttpError")("no status"), (500, "", "server_error")),
}


@pytest.mark.parametrize(("error", "expected"), FOREIGN.values(), ids=FOREIGN)
def test_exceptions_of_other_frameworks_keep_what_they_say(error, expected):
    denial = denial_of(error)
    assert (denial.status, denial.detail, denial.code) == expected
    assert denial.headers == {
        **({"WWW-Authenticate": "Bearer"} if hasattr(error, "auth_header") else {}),
        **({"Retry-After": "3"} if hasattr(error, "wait") else {}),
    }
    assert denial.members == (
        {"errors": {"age": ["Too young."]}} if isinstance(getattr(error, "detail", ""), dict) else {}
    )


SIMPLEJWT = {
    "an invalid token": (
        rest_framework(401, {"detail": "Token is expired", "code": "token_not_valid", "messages": []}, {}),
        "rest_framework_simplejwt.exceptions.InvalidToken",
    ),
    "a raw one": (Exception("Token is expired"), "rest_framework_simplejwt.exceptions.TokenError"),
}


@pytest.mark.parametrize(("error", "name"), SIMPLEJWT.values(), ids=SIMPLEJWT)
def test_an_exception_of_simplejwt_is_a_401_with_its_own_text_code_and_challenge(error, name):
    module, _, qualname = name.rpartition(".")
    cls = type(qualname, (type(error),), {"__module__": module, "__qualname__": qualname})
    raised = cls.__new__(cls, *error.args)
    vars(raised).update(vars(error))
    denial = denial_of(raised)
    assert (denial.status, denial.detail, denial.code) == (401, "Token is expired", "token_not_valid")
    assert denial.headers == {"WWW-Authenticate": 'Bearer realm="api"'}


def test_a_deny_is_its_own_denial_unless_it_has_failed():
    deny = Deny(402)
    assert denial_of(deny) is deny
    translated = translate(deny)
    assert (translated.status, translated.__cause__) == (500, deny)


def test_a_deny_keeps_the_cause_that_its_author_gave_and_forgets_where_it_was_raised():
    cause, deny = KeyError(), Deny(500)
    try:
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            raise deny from cause
    except Deny as caught:
        denial_of(caught)
    assert (deny.__traceback__, deny.__context__, deny.__cause__) == (None, None, cause)


def test_a_shared_deny_that_is_raised_ten_thousand_times_takes_no_memory():
    shared = Deny(402)

    def deny_often(times):
        for _ in range(times):
            try:
                raise shared
            except Deny as deny:
                denial_of(deny)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = deny_often(100)
        assert deny_often(10_000) - before < 20_000
    finally:
        tracemalloc.stop()


# Channels raises ValueError where nothing matches, or an Origin cannot be parsed.


async def broken(scope, receive, send):
    raise ValueError("No route found for path 'nowhere'")


VALID = [(b"origin", b"http://example.com")]
RAISED = {
    "no route": (URLRouter([path("somewhere/", broken)]), [], 404, "not_found"),
    "no protocol": (ProtocolTypeRouter({}), [], 404, "not_found"),
    "behind a router": (URLRouter([path("nowhere/", broken)]), [], 500, "server_error"),
    "behind a validator": (OriginValidator(broken, ["*"]), VALID, 500, "server_error"),
    **{
        f"origin {origin}": (
            OriginValidator(broken, ["http://example.com"]),
            [(b"origin", origin)],
            403,
            "origin_not_allowed",
        )
        for origin in (b"http://[bad", b"http://a:99999", b"http://a:b")
    },
}


@pytest.mark.parametrize(("application", "headers", "status", "code"), RAISED.values(), ids=RAISED)
async def test_a_value_error_of_channels_is_told_from_others(application, headers, status, code):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - Channels has no class of its own for it
        await application({"type": "websocket", "path": "/nowhere/", "headers": headers}, None, None)
    assert is_unrouted(caught.value) is (status == 404)
    denial = denial_of(caught.value)
    assert (denial.status, denial.code) == (status, code)
    assert denial_of(ValueError(str(caught.value))).status == 500
