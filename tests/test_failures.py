from __future__ import annotations

import gc
import tracemalloc

import pytest
from channels.exceptions import DenyConnection
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.core.exceptions import (
    BadRequest,
    DisallowedHost,
    ObjectDoesNotExist,
    PermissionDenied,
    RequestAborted,
    SuspiciousOperation,
    TooManyFieldsSent,
    ValidationError,
)
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, OperationalError
from django.http import Http404
from django.urls import path
from django.urls.exceptions import Resolver404
from django.utils.functional import Promise

from channels_wsdeny import Deny
from channels_wsdeny.http.exception_handler import denial_for, is_unrouted, translate


async def error_of(application, **scope):
    """What an ASGI application of Channels raises for a scope, with its traceback."""
    try:
        await application({"type": "websocket", "path": "/nowhere/", "headers": [], **scope}, None, None)
    except Exception as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PermissionDenied("secret"), 403),
        (DenyConnection(), 403),
        (Http404("secret"), 404),
        (Resolver404({"path": "secret"}), 404),
        (BadRequest("secret"), 400),
        (SuspiciousOperation("secret"), 400),
        (DisallowedHost("secret"), 400),
        (TooManyFieldsSent("secret"), 400),
        (OperationalError("secret"), 503),
        (InterfaceError("secret"), 503),
        (ConnectionRefusedError("secret"), 503),
        (ConnectionResetError("secret"), 503),
        (TimeoutError("secret"), 503),
        (DatabaseError("secret"), 500),
        (DataError("secret"), 500),
        (IntegrityError("secret"), 500),
        (ObjectDoesNotExist("secret"), 500),
        (ValidationError("secret"), 500),
        (RequestAborted("secret"), 500),
        (ValueError("secret"), 500),
        (FileNotFoundError("secret"), 500),
        (KeyError("secret"), 500),
        (RuntimeError("secret"), 500),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_an_exception_becomes_its_denial(error, status):
    assert denial_for(error).status == status


@pytest.mark.parametrize(
    "error", [PermissionDenied("secret"), Http404("secret"), BadRequest("secret"), KeyError("secret")]
)
def test_a_denial_tells_nothing_of_the_exception(error):
    denial = denial_for(error)
    assert (denial.detail, denial.headers, denial.response) == ("", {}, None)


def test_a_denial_keeps_the_exception_for_the_log():
    error = KeyError("secret")
    assert denial_for(error).__cause__ is error


def test_what_is_unavailable_says_when_to_come_back(settings):
    settings.CHANNELS_WSDENY = {"RETRY_AFTER": 30}
    assert denial_for(OperationalError()).headers == {"Retry-After": "30"}


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("redis.exceptions", "ConnectionError"),
        ("redis.exceptions", "TimeoutError"),
        ("redis.exceptions", "BusyLoadingError"),
        ("pymemcache.exceptions", "MemcacheUnexpectedCloseError"),
        ("pymemcache.exceptions", "MemcacheServerError"),
    ],
)
def test_the_clients_of_caches_are_known_by_name(module, name):
    error = type(name, (Exception,), {"__module__": module})
    child = type("Child", (error,), {})
    assert (denial_for(error()).status, denial_for(child()).status) == (503, 503)


def test_another_exception_of_such_a_name_is_none_of_them():
    error = type("ConnectionError", (Exception,), {"__module__": "site.exceptions"})
    assert denial_for(error()).status == 500


def test_a_deny_is_its_own_denial():
    deny = Deny(402)
    assert denial_for(deny) is deny


def test_a_deny_that_failed_is_an_error_like_any_other():
    deny = Deny(402)
    translated = translate(deny)
    assert (translated.status, translated.__cause__) == (500, deny)


def test_a_deny_forgets_where_it_was_raised():
    deny = Deny(402)
    try:
        try:
            raise KeyError
        except KeyError:
            raise deny  # noqa: B904 - the context is what this is about
    except Deny as caught:
        denial_for(caught)
    assert (deny.__traceback__, deny.__context__) == (None, None)


def test_a_deny_keeps_the_cause_that_its_author_gave():
    cause = KeyError()
    with pytest.raises(Deny) as caught:
        raise Deny(500) from cause
    assert denial_for(caught.value).__cause__ is cause


def test_a_shared_deny_raised_ten_thousand_times_takes_no_memory():
    shared = Deny(402)

    def deny_often(times):
        for _ in range(times):
            try:
                raise shared
            except Deny as deny:
                denial_for(deny)

    deny_often(100)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        deny_often(10_000)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000


async def test_a_path_that_no_route_matches_is_not_found():
    error = await error_of(URLRouter([path("somewhere/", ProtocolTypeRouter({}))]))
    assert is_unrouted(error)
    assert denial_for(error).status == 404


async def test_a_protocol_that_nobody_speaks_is_not_found():
    error = await error_of(ProtocolTypeRouter({}))
    assert denial_for(error).status == 404


async def test_a_valueerror_from_behind_a_router_is_a_server_error():
    async def broken(scope, receive, send):
        raise ValueError("No route found for path 'nowhere'")

    error = await error_of(URLRouter([path("nowhere/", broken)]))
    assert denial_for(error).status == 500


def test_a_valueerror_that_nobody_raised_is_a_server_error():
    assert denial_for(ValueError("No route found for path 'nowhere'")).status == 500


@pytest.mark.parametrize("origin", [b"http://[bad", b"http://a:99999", b"http://a:b"])
async def test_an_origin_that_channels_cannot_parse_is_not_allowed(origin):
    validator = OriginValidator(ProtocolTypeRouter({}), ["http://example.com"])
    error = await error_of(validator, headers=[(b"origin", origin)])
    denial = denial_for(error)
    assert (denial.status, denial.code) == (403, "origin_not_allowed")


async def test_a_valueerror_from_behind_the_origin_validator_is_a_server_error():
    async def broken(scope, receive, send):
        int("x")

    error = await error_of(OriginValidator(broken, ["*"]), headers=[(b"origin", b"http://example.com")])
    assert denial_for(error).status == 500


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
def test_default_texts_are_not_translated_before_somebody_asks(status):
    from channels_wsdeny.status import code_for, detail_for

    assert isinstance(detail_for(code_for(status), status), Promise)
