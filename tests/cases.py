"""The case table: a situation, and the status, code and headers that every door answers it with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import BadRequest, DisallowedHost, PermissionDenied, SuspiciousOperation
from django.db import OperationalError
from django.http import FileResponse, Http404, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.template import engines
from django.template.response import SimpleTemplateResponse
from django.urls.exceptions import Resolver404

from channels_wsdeny import Deny
from channels_wsdeny.policies import (
    AllowAny,
    DenyAll,
    HasPermission,
    InGroup,
    IsAuthenticated,
    IsStaff,
    IsSuperuser,
    Policy,
    UserPassesTest,
)


@dataclass(frozen=True)
class Case:
    """A policy, who asks, and what goes out (status 0: the request passes)."""

    name: str
    policy: Policy
    status: int
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    body: bytes | None = None


class Raises(Policy):
    """Raises what `make` makes, anew each time."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def check(self, request: Any) -> Any:
        raise self.make()


class AsyncRaises(Raises):
    check = Policy.check

    async def acheck(self, request: Any) -> Any:
        await asyncio.sleep(0)
        raise self.make()


class Answers(Policy):
    """Answers what `make` makes, anew each time."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def check(self, request: Any) -> Any:
        return self.make()


class AsyncAnswers(Answers):
    check = Policy.check

    async def acheck(self, request: Any) -> Any:
        await asyncio.sleep(0)
        return self.make()


class Teapot(Policy):
    status = 418
    code = "teapot"
    detail = "Short and stout."

    def check(self, request: Any) -> bool:
        return False


def with_cookies() -> HttpResponse:
    response = HttpResponse(b"no", status=403, content_type="text/plain")
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    return response


def find_user(request: Any) -> Any:
    return get_user_model().objects.get(username="alice")


async def find_user_async(request: Any) -> Any:
    await asyncio.sleep(0)
    return object()


def find_nothing(request: Any) -> Any:
    raise Http404("secret: no such room")


def find_none(request: Any) -> Any:
    return None


def file_response() -> FileResponse:
    import io

    return FileResponse(io.BytesIO(b"x" * 100_000), status=403, content_type="application/pdf")


async def _chunks() -> Any:
    for chunk in (b"a", b"b", b"c"):
        await asyncio.sleep(0)
        yield chunk


CHALLENGE = {"www-authenticate": "Session"}
RETRY = {"retry-after": "5"}
SHARED = Deny(409, "Already here.", code="already_here")

CASES = [
    Case("anonymous", IsAuthenticated(), 401, "not_authenticated", CHALLENGE),
    Case("anonymous-needs-permission", HasPermission("auth.add_user"), 401, "not_authenticated", CHALLENGE),
    Case("anonymous-needs-group", InGroup("ops"), 401, "not_authenticated", CHALLENGE),
    Case("anonymous-fails-test", UserPassesTest(lambda u: False), 401, "not_authenticated", CHALLENGE),
    Case("anonymous-passes-test", UserPassesTest(lambda u: True), 0),
    Case("authenticated", IsAuthenticated(), 0, user="alice"),
    Case("staff", IsStaff(), 0, user="staff"),
    Case("not-staff", IsStaff(), 403, "permission_denied", user="alice"),
    Case("not-superuser", IsSuperuser(), 403, "permission_denied", user="staff"),
    Case("not-in-group", InGroup("ops"), 403, "permission_denied", user="alice"),
    Case("lacks-permission", HasPermission("auth.add_user"), 403, "permission_denied", user="alice"),
    Case("fails-test", UserPassesTest(lambda u: u.username == "bob"), 403, "permission_denied", user="alice"),
    Case("fails-object", HasPermission("auth.x", obj=find_user), 403, "permission_denied", user="alice"),
    Case(
        "fails-async-object",
        HasPermission("auth.x", obj=find_user_async),
        403,
        "permission_denied",
        user="alice",
    ),
    Case("object-not-found", HasPermission("auth.x", obj=find_nothing), 404, "not_found", user="alice"),
    Case("object-is-none", HasPermission("auth.x", obj=find_none), 500, "server_error", user="alice"),
    Case("deny-all", DenyAll(), 403, "permission_denied"),
    Case("allow-any", AllowAny(), 0),
    Case("teapot", Teapot(), 418, "teapot"),
    Case("raises-permission-denied", Raises(lambda: PermissionDenied("secret")), 403, "permission_denied"),
    Case("raises-http404", Raises(lambda: Http404("secret")), 404, "not_found"),
    Case("raises-resolver404", Raises(lambda: Resolver404({"path": "secret"})), 404, "not_found"),
    Case("raises-bad-request", Raises(lambda: BadRequest("secret")), 400, "bad_request"),
    Case("raises-suspicious", Raises(lambda: SuspiciousOperation("secret")), 400, "bad_request"),
    Case("raises-disallowed-host", AsyncRaises(lambda: DisallowedHost("secret")), 400, "bad_request"),
    Case("raises-anything", Raises(lambda: ZeroDivisionError("secret")), 500, "server_error"),
    Case("raises-anything-async", AsyncRaises(lambda: ZeroDivisionError("secret")), 500, "server_error"),
    Case("database-gone", Raises(lambda: OperationalError("secret")), 503, "unavailable", RETRY),
    Case("cache-gone", AsyncRaises(lambda: ConnectionRefusedError("secret")), 503, "unavailable", RETRY),
    Case("raises-deny", Raises(lambda: Deny(402, "Pay first.", code="pay")), 402, "pay"),
    Case(
        "deny-with-headers",
        Answers(lambda: Deny(429, headers={"Retry-After": "30", "X-Limit": "10"})),
        429,
        "throttled",
        {"retry-after": "30", "x-limit": "10"},
    ),
    Case("shared-deny", Answers(lambda: SHARED), 409, "already_here"),
    Case("deny-401", AsyncAnswers(lambda: Deny(401)), 401, "not_authenticated", CHALLENGE),
    Case(
        "deny-401-own-challenge",
        Answers(lambda: Deny(401, headers={"WWW-Authenticate": "Bearer"})),
        401,
        "not_authenticated",
        {"www-authenticate": "Bearer"},
    ),
    Case("unknown-status", Answers(lambda: Deny(499)), 400, "bad_request"),
    Case("unknown-5xx-status", Answers(lambda: Deny(599)), 500, "server_error"),
    Case("status-200", Answers(lambda: Deny(200)), 500, "server_error"),
    Case("status-101", Raises(lambda: Deny(101)), 500, "server_error"),
    Case("response-200", Answers(lambda: HttpResponse("welcome")), 500, "server_error"),
    Case("bad-header", Answers(lambda: Deny(403, headers={"X-A": "a\r\nX-B: b"})), 500, "server_error"),
    Case("answers-none", Answers(lambda: None), 500, "server_error"),
    Case("answers-string", Answers(lambda: "yes"), 500, "server_error"),
    Case("answers-one", AsyncAnswers(lambda: 1), 500, "server_error"),
    Case("answers-coroutine", Answers(lambda: asyncio.sleep(0)), 500, "server_error"),
    Case("no-check", Policy(), 500, "server_error"),
    Case("async-allows", AsyncAnswers(lambda: True), 0),
    Case("async-denies", AsyncAnswers(lambda: False), 403, "permission_denied"),
    Case(
        "redirect",
        Answers(lambda: HttpResponseRedirect("/elsewhere")),
        302,
        "found",
        {"location": "/elsewhere"},
        body=b"",
    ),
    Case(
        "own-response",
        Answers(lambda: HttpResponse(b"gone", status=410, content_type="text/x")),
        410,
        "gone",
        {"content-type": "text/x"},
        body=b"gone",
    ),
    Case(
        "deny-with-response",
        Raises(lambda: Deny(response=HttpResponse(b"gone", status=410), code="left", headers={"X-A": "1"})),
        410,
        "left",
        {"x-a": "1"},
        body=b"gone",
    ),
    Case(
        "template",
        Answers(
            lambda: SimpleTemplateResponse(
                engines["django"].from_string("Hello {{ who }}"), {"who": "you"}, status=403
            )
        ),
        403,
        "permission_denied",
        body=b"Hello you",
    ),
    Case(
        "streaming",
        Answers(lambda: StreamingHttpResponse(iter([b"a", b"b", b"c"]), status=403)),
        403,
        "permission_denied",
        body=b"abc",
    ),
    Case(
        "file",
        Answers(file_response),
        403,
        "permission_denied",
        {"content-type": "application/pdf"},
        body=b"x" * 100_000,
    ),
    Case("two-cookies", Answers(with_cookies), 403, "permission_denied", body=b"no"),
    Case("and-first", DenyAll() & IsAuthenticated(), 403, "permission_denied"),
    Case("and-second", AllowAny() & IsAuthenticated(), 401, "not_authenticated", CHALLENGE),
    Case("or-allows", DenyAll() | AllowAny(), 0),
    Case("or-anonymous", DenyAll() | IsAuthenticated(), 401, "not_authenticated", CHALLENGE),
    Case("or-known", Answers(lambda: Deny(401)) | Teapot(), 418, "teapot", user="alice"),
    Case("not-allows", ~DenyAll(), 0),
    Case("not-denies", ~AllowAny(), 403, "permission_denied"),
    Case("not-raises", ~Raises(lambda: ZeroDivisionError("secret")), 500, "server_error"),
    Case("not-answers-none", ~Answers(lambda: None), 500, "server_error"),
]
BY_NAME = {case.name: case for case in CASES}
