"""The table from exceptions to denials."""

import json
import math
from functools import partial
from types import SimpleNamespace
from unittest.mock import ANY

import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import DenyConnection
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.core import exceptions
from django.core.cache import cache
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, OperationalError
from django.http import Http404
from django.http.multipartparser import MultiPartParserError
from django.test import RequestFactory
from django.urls import path
from django.urls.exceptions import Resolver404
from django.utils.deprecation import MiddlewareMixin
from django.utils.translation import gettext_lazy
from django_ratelimit import core as ratelimit_core
from django_ratelimit.core import is_ratelimited
from django_ratelimit.exceptions import Ratelimited
from ninja import errors as ninja
from rest_framework import exceptions as drf
from rest_framework_simplejwt import exceptions as jwt

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.decorators import public, require
from channels_wsdeny.handlers.base import make_denial
from channels_wsdeny.http.context import RequestContext
from channels_wsdeny.http.exception_handler import denial_of, is_unrouted, translate
from tests.support.clients import Answer, Handshake, fetch, knock, websocket_scope
from tests.support.mirror import made
from tests.support.policies import Check, raising, raising_app
from tests.support.processes import run_python
from tests.support.sockets import consumer, guarded, open_to_all


def foreign(name, bases=(Exception,), **attributes):
    """An exception of another package, by its dotted name."""
    module, _, name = name.rpartition(".")
    return type(name, bases, {"__module__": module, **attributes})


STATUSES = {
    400: [exceptions.BadRequest, exceptions.SuspiciousOperation, exceptions.DisallowedHost, MultiPartParserError],
    403: [exceptions.PermissionDenied, DenyConnection],
    404: [Http404, Resolver404],
    429: [Ratelimited],
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


def test_a_group_of_exceptions_is_an_outage_if_each_of_them_is():
    outage = ExceptionGroup("inside", [TimeoutError()])
    for others, status in (([], 503), ([OperationalError()], 503), ([exceptions.PermissionDenied()], 500)):
        assert denial_of(ExceptionGroup("of a task group", [outage, *others])).status == status


class Odd(drf.APIException):
    """An exception of a site's own that does not call ``__init__()``; `ErrorDetail` is not made."""

    status_code = 418

    def __init__(self, *detail, **attributes):
        vars(self).update(attributes)
        if detail:
            (self.detail,) = detail


BEARER, BASIC = {"WWW-Authenticate": 'Bearer realm="api"'}, {"WWW-Authenticate": "Basic"}
NinjaThrottled = foreign("ninja.errors.Throttled", (ninja.HttpError,), wait=5)
INVALID = "unprocessable_content", "", {}
REQUIRED = gettext_lazy("This field is required.")
#: The status, code, detail, headers and errors of exceptions of other packages.
FOREIGN = [
    (drf.APIException(), 500, "error", "A server error occurred."),
    (drf.NotAuthenticated(), 401, "not_authenticated", "Authentication credentials were not provided."),
    (drf.AuthenticationFailed("Expired.", "expired"), 401, "expired", "Expired."),
    (drf.PermissionDenied(), 403, "permission_denied", "You do not have permission to perform this action."),
    (drf.NotFound(REQUIRED), 404, "not_found", "This field is required."),
    (drf.Throttled(detail="Slowly."), 429, "throttled", "Slowly."),
    (drf.Throttled(2.1, "Slowly."), 429, "throttled", "Slowly. Expected available in 3 seconds.", {"Retry-After": "3"}),
    (drf.ValidationError("Young."), 400, "bad_request", "", {}, ["Young."]),
    (drf.ValidationError({"a": [{"b": REQUIRED}]}), 400, "bad_request", "", {}, {"a": [{"b": str(REQUIRED)}]}),
    (Odd("Tea."), 418, "im_a_teapot", "Tea."),
    (Odd(REQUIRED), 418, "im_a_teapot", "This field is required."),
    (Odd(), 418, "im_a_teapot", ""),
    (Odd(None), 418, "im_a_teapot", ""),
    (Odd(42), 418, "im_a_teapot", "42"),
    (Odd({1: (REQUIRED, None, 2.5, {True})}), 418, "im_a_teapot", "", {}, {"1": [str(REQUIRED), None, 2.5, [True]]}),
    (Odd({"detail": REQUIRED, "code": "x", "more": 1}), 418, "x", "This field is required.", {}, {"more": 1}),
    (Odd("Tea.", get_codes=lambda: 5, wait="soon"), 418, "im_a_teapot", "Tea."),
    (Odd("Tea.", wait=math.inf), 418, "im_a_teapot", "Tea."),
    (Odd("Tea.", status_code=401, auth_header="Basic"), 401, "not_authenticated", "Tea.", BASIC),
    (Odd("Tea.", status_code=200), 500, "server_error", ""),
    (jwt.InvalidToken(), 401, "token_not_valid", "Token is invalid or expired", BEARER),
    (jwt.InvalidToken({"messages": [{"token_type": "access"}]}), 401, "token_not_valid", ANY, BEARER),
    (jwt.AuthenticationFailed("No user", code="user_not_found"), 401, "user_not_found", "No user", BEARER),
    (jwt.ExpiredTokenError("Token is expired"), 401, "token_not_valid", "Token is expired", BEARER),
    (jwt.TokenBackendError("Token is invalid"), 401, "token_not_valid", "Token is invalid", BEARER),
    (ninja.HttpError(409, "Taken."), 409, "conflict", "Taken."),
    (ninja.HttpError(409, REQUIRED), 409, "conflict", "This field is required."),
    (ninja.HttpError(409, {"a": [math.nan]}), 409, "conflict", "", {}, {"a": ["nan"]}),
    (ninja.AuthenticationError(), 401, "not_authenticated", ANY),
    (foreign("ninja.errors.AuthenticationError")(), 401, "not_authenticated", ""),  # before Ninja 1.4
    (NinjaThrottled(429, "Slow."), 429, "throttled", "Slow.", {"Retry-After": "5"}),
    (ninja.ValidationError([{"a": ("b", {"c": ValueError("no")})}]), 422, *INVALID, [{"a": ["b", {"c": "no"}]}]),
    (ninja.ConfigError("wrong"), 500, "server_error", ""),
    (foreign("ninja.errors.HttpError")("no status"), 500, "server_error", ""),
    (Ratelimited(), 429, "throttled", ""),
]


@pytest.mark.parametrize(("error", "status", "code", "detail", "more"), [(*e[:4], e[4:]) for e in FOREIGN], ids=repr)
def test_exceptions_of_other_frameworks_keep_what_they_say(error, status, code, detail, more):
    headers, errors = (*more, *({}, None)[len(more) :])
    for _ in range(2):
        denial = denial_of(error)
        assert (denial.status, denial.code, denial.detail, denial.headers) == (status, code, detail, headers)
        assert denial.members == ({} if errors is None else {"errors": errors})
        assert type(denial.detail) in {str, type(REQUIRED)}
        response = make_denial(RequestContext(RequestFactory().get("/")), error)
        assert json.loads(response.content).get("errors") == errors


WHERE = [drf.Throttled(5), Odd({"a": REQUIRED}), jwt.InvalidToken(), ninja.HttpError(409, "Taken."), Ratelimited()]


@pytest.mark.django_db
@pytest.mark.parametrize("error", WHERE, ids=repr)
@pytest.mark.parametrize("child", [False, True])
async def test_they_close_an_open_socket(error, child):
    stack = open_to_all(consumer(receive=raising(lambda: error)).as_asgi())
    handshake = Handshake(stack if not child else public(stack), websocket_scope("/"))
    assert (await handshake.connect()).status == 101
    await handshake.send("now")
    assert (await handshake.next())["code"] == 4000 + denial_of(error).status
    await handshake.end()


class Raising(MiddlewareMixin):
    """A Django middleware that raises `error`."""

    error = None

    def process_request(self, request):
        raise self.error


unreached = raising_app(AssertionError("This is not called."))


def of_view(error):
    response = require(Check(raising(lambda: error)))(lambda request: None)(RequestFactory().get("/"))
    return Answer(response.status_code, list(response.items()), response.content)


def of_policy(error, ask=knock):
    return async_to_sync(ask)(guarded(Check(raising(lambda: error)), unreached), "/")


def of_application(error, ask=knock):
    app = consumer(raising(lambda: error)).as_asgi() if ask is knock else raising_app(error)
    return async_to_sync(ask)(open_to_all(app), "/")


def of_hook(error, ask=knock):
    hooks = made("request", raising(lambda: error))
    return async_to_sync(ask)(DenyMiddlewareStack(public(unreached), hooks=hooks), "/")


def of_middleware(error):
    Raising.error = error
    stack = DenyMiddlewareStack(public(unreached), middleware=[f"{__name__}.Raising"])
    return async_to_sync(knock)(stack, "/")


PLACES = [of_view, of_policy, of_application, of_hook, of_middleware]
PLACES += [partial(place, ask=fetch) for place in (of_policy, of_application, of_hook)]


@pytest.mark.django_db
@pytest.mark.parametrize("error", WHERE, ids=repr)
@pytest.mark.parametrize("place", PLACES)
def test_they_are_answered_wherever_they_are_raised_before_the_answer(place, error):
    expected, answer = denial_of(error), place(error)
    assert (answer.status, answer.problem["code"]) == (expected.status, expected.code)
    for name in ("Retry-After", "WWW-Authenticate"):
        assert answer.header(name.lower()) == expected.headers.get(name)


WITHOUT = """
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["channels_wsdeny", "django.contrib.auth", "django.contrib.contenttypes"],
    LOGGING_CONFIG=None,
)
import django; django.setup()
from tests.support.clients import knock
from tests.support.policies import Check, accept, raising
from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import require
import asyncio
from django.core.exceptions import PermissionDenied
from django.http import Http404

async def main():
    for error in (PermissionDenied, Http404, TimeoutError, ZeroDivisionError):
        app = require(Check(raising(error)))(accept)
        print((await knock(DenyMiddlewareStack(app), "/")).status, end=" ")

asyncio.run(main())
print(any(name.startswith(("rest_framework", "ninja", "django_ratelimit")) for name in sys.modules))
"""


@pytest.mark.servers
def test_none_of_the_packages_has_to_be_installed():
    packages = ["rest_framework", "rest_framework_simplejwt", "ninja", "django_ratelimit"]
    for package in packages:
        assert f"{package} is not installed" in run_python(f"import {package}", without=packages)[1]
    printed, errors = run_python(WITHOUT, without=packages)
    assert printed == "403 404 503 500 False", errors


def limited(request):
    if is_ratelimited(request, group="sockets", key="ip", rate="2/m", increment=True):
        raise Ratelimited
    return True


@pytest.mark.django_db
async def test_what_django_ratelimit_raises_in_a_policy_is_answered(monkeypatch):
    monkeypatch.setattr(ratelimit_core, "time", SimpleNamespace(time=lambda: 1e9))
    cache.clear()
    app = DenyMiddlewareStack(require(Check(limited))(consumer()).as_asgi())
    assert [(await knock(app, "/")).status for _ in range(3)] == [101, 101, 429]


def test_a_deny_is_its_own_denial_unless_it_has_failed():
    deny = Deny(402)
    translated = translate(deny)
    assert (denial_of(deny), translated.status, translated.__cause__) == (deny, 500, deny)


# Channels raises ValueError where nothing matches, or an Origin cannot be parsed.


broken = raising_app(ValueError("No route found for path 'nowhere'"))
VALID = [(b"origin", b"http://example.com")]
RAISED = {
    "no route": (URLRouter([path("somewhere/", broken)]), [], 404, "not_found"),
    "no protocol": (ProtocolTypeRouter({}), [], 404, "not_found"),
    "behind a router": (URLRouter([path("nowhere/", broken)]), [], 500, "server_error"),
    "behind a validator": (OriginValidator(broken, ["*"]), VALID, 500, "server_error"),
    **{
        f"origin {origin}": (OriginValidator(broken, ["http://a"]), [(b"origin", origin)], 403, "origin_not_allowed")
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
