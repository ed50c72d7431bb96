"""The table of cases: a policy, who asks, and the answer that every transport gives."""

import asyncio
import io
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
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated, IsStaff, IsSuperuser, Policy
from channels_wsdeny.policies.permissions import HasPermission, InGroup, UserPassesTest

from .clients import Answer
from .policies import AsyncCheck, Check, raising

#: The code of a problem, and the headers of a denial, where a case names none.
CODES = {
    400: "bad_request",
    401: "not_authenticated",
    403: "permission_denied",
    404: "not_found",
    500: "server_error",
    503: "unavailable",
}
HEADERS = {401: {"www-authenticate": "Session"}, 503: {"retry-after": "5"}}


@dataclass(frozen=True)
class Case:
    """A policy, who asks, and the answer: status 0 if the request passes, a problem if there is no `body`."""

    name: str
    policy: Policy
    status: int = 0
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    body: bytes | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "code", self.code or CODES.get(self.status))
        own = {name.lower(): value for name, value in self.headers.items()}
        object.__setattr__(self, "headers", {**HEADERS.get(self.status, {}), **own})

    @property
    def reason(self) -> str:
        """The reason of a close that stands for this denial."""
        retry = self.headers.get("retry-after")
        return f"{self.code};retry={retry}" if retry else str(self.code)

    def faults(self, answer: Answer) -> dict[str, Any]:
        """What an answer has that this denial should not have, by name; {} if it is right."""
        is_problem = answer.header("content-type") == "application/problem+json"
        problem = answer.problem if is_problem else {"code": None, "status": answer.status}
        seen = {name: answer.header(name) for name in self.headers}
        if self.status == 503 and (seen["retry-after"] or "") in set("345678"):  # spread around 5
            seen["retry-after"] = "5"
        seen |= {"status": answer.status, "status of the problem": problem["status"]}
        right = {**self.headers, "status": self.status, "status of the problem": self.status}
        if self.body is None:
            seen["code"], right["code"] = problem["code"], self.code
        else:
            seen["body"], right["body"] = answer.body, self.body
        faults = {name: value for name, value in seen.items() if value != right[name]}
        rules = {
            "cache-control": "no-store" in (answer.header("cache-control") or ""),
            "vary": answer.header("vary") in {"Accept, Cookie", "Accept, Accept-Language, Cookie"},
            "content-length": answer.header("content-length") in {None, str(len(answer.body))},
            "body with a secret": SECRET.encode() not in answer.body,
        }
        return faults | {name: answer for name, holds in rules.items() if not holds}


class Teapot(Policy):
    status = 418
    code = "teapot"
    detail = "Short and stout."

    def check(self, request: Any) -> bool:
        return False


def find_user(request: Any) -> Any:
    return get_user_model().objects.get(username="alice")


async def find_user_async(request: Any) -> Any:
    await asyncio.sleep(0)
    return object()


async def miss_async(request: Any) -> Any:
    raise Resolver404({"path": SECRET})


def find_none(request: Any) -> Any:
    return None


def with_cookies(request: Any = None) -> HttpResponse:
    response = HttpResponse(b"no", status=403, content_type="text/plain")
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    return response


def page(request: Any) -> SimpleTemplateResponse:
    return SimpleTemplateResponse(engines["django"].from_string("Hello {{ who }}"), {"who": "you"}, status=403)


def broken_page() -> Deny:
    return Deny(403, response=SimpleTemplateResponse(engines["django"].from_string("{{ x|add }}"), status=403))


def stream(request: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(iter([b"a", b"b", b"c"]), status=403)


def file(request: Any) -> FileResponse:
    return FileResponse(io.BytesIO(b"x" * 100_000), status=403, content_type="application/pdf")


def deny(*args: Any, **kwargs: Any) -> Check:
    return Check(lambda request: Deny(*args, **kwargs))


def answer(*args: Any, **kwargs: Any) -> Check:
    return Check(lambda request: HttpResponse(*args, **kwargs))


def left() -> Deny:
    return Deny(response=HttpResponse(b"gone", status=410), code="left", headers={"X-A": "1"})


def redirect(request: Any) -> HttpResponse:
    return HttpResponseRedirect("/elsewhere")


SHARED = Deny(409, "Already here.", code="already_here")
SECRET = "secret"
LIMIT, BEARER = {"Retry-After": "30", "X-Limit": "10"}, {"WWW-Authenticate": "Bearer"}
PLAIN = {"Content-Type": "text/x"}

CASES = [
    # Who may pass.
    Case("anonymous", IsAuthenticated(), 401),
    Case("anonymous-needs-permission", HasPermission("auth.add_user"), 401),
    Case("anonymous-needs-group", InGroup("ops"), 401),
    Case("anonymous-fails-test", UserPassesTest(lambda user: False), 401),
    Case("anonymous-passes-test", UserPassesTest(lambda user: True)),
    Case("authenticated", IsAuthenticated(), user="alice"),
    Case("staff", IsStaff(), user="staff"),
    Case("not-staff", IsStaff(), 403, user="alice"),
    Case("not-superuser", IsSuperuser(), 403, user="staff"),
    Case("not-in-group", InGroup("ops"), 403, user="alice"),
    Case("lacks-permission", HasPermission("auth.add_user"), 403, user="alice"),
    Case("fails-test", UserPassesTest(lambda user: user.username == "bob"), 403, user="alice"),
    Case("fails-object", HasPermission("auth.x", obj=find_user), 403, user="alice"),
    Case("fails-async-object", HasPermission("auth.x", obj=find_user_async), 403, user="alice"),
    Case("object-not-found", HasPermission("auth.x", obj=raising(lambda: Http404(SECRET))), 404, user="alice"),
    Case("async-object-not-found", HasPermission("auth.x", obj=miss_async), 404, user="alice"),
    Case("object-fails", HasPermission("auth.x", obj=raising(lambda: KeyError(SECRET))), 500, user="alice"),
    Case("object-is-none", HasPermission("auth.x", obj=find_none), 500, user="alice"),
    Case("deny-all", DenyAll(), 403),
    Case("allow-any", AllowAny()),
    Case("teapot", Teapot(), 418, "teapot"),
    # What policies raise.
    Case("raises-permission-denied", Check(raising(lambda: PermissionDenied(SECRET))), 403),
    Case("raises-http404", Check(raising(lambda: Http404(SECRET))), 404),
    Case("raises-resolver404", Check(raising(lambda: Resolver404({"path": SECRET}))), 404),
    Case("raises-bad-request", Check(raising(lambda: BadRequest(SECRET))), 400),
    Case("raises-suspicious", Check(raising(lambda: SuspiciousOperation(SECRET))), 400),
    Case("raises-disallowed-host", AsyncCheck(raising(lambda: DisallowedHost(SECRET))), 400),
    Case("raises-anything", Check(raising(lambda: ZeroDivisionError(SECRET))), 500),
    Case("raises-anything-async", AsyncCheck(raising(lambda: ZeroDivisionError(SECRET))), 500),
    Case("database-gone", Check(raising(lambda: OperationalError(SECRET))), 503),
    Case("cache-gone", AsyncCheck(raising(lambda: ConnectionRefusedError(SECRET))), 503),
    Case("raises-deny", Check(raising(lambda: Deny(402, "Pay first.", code="pay"))), 402, "pay"),
    Case("status-101", Check(raising(lambda: Deny(101))), 500),
    # What policies answer.
    Case("deny-with-headers", deny(429, headers=LIMIT), 429, "throttled", LIMIT),
    Case("shared-deny", Check(lambda request: SHARED), 409, "already_here"),
    Case("deny-401", AsyncCheck(lambda request: Deny(401)), 401),
    Case("deny-401-own-challenge", deny(401, headers=BEARER), 401, headers=BEARER),
    Case("unknown-status", deny(499), 400),
    Case("unknown-5xx-status", deny(599), 500),
    Case("status-200", deny(200), 500),
    Case("response-200", answer("welcome"), 500),
    Case("bad-header", deny(403, headers={"X-A": "a\r\nX-B: b"}), 500),
    Case("answers-none", Check(lambda request: None), 500),
    Case("answers-string", Check(lambda request: "yes"), 500),
    Case("answers-one", AsyncCheck(lambda request: 1), 500),
    Case("answers-coroutine", Check(lambda request: asyncio.sleep(0)), 500),
    Case("no-check", Policy(), 500),
    Case("async-allows", AsyncCheck(lambda request: True)),
    Case("async-denies", AsyncCheck(lambda request: False), 403),
    # Responses of a policy's own.
    Case("redirect", Check(redirect), 302, "found", {"location": "/elsewhere"}, body=b""),
    Case("own-response", answer(b"gone", status=410, headers=PLAIN), 410, "gone", PLAIN, body=b"gone"),
    Case("deny-with-response", Check(raising(left)), 410, "left", {"x-a": "1"}, body=b"gone"),
    Case("template-fails", Check(lambda request: broken_page()), 500),
    Case("template", Check(page), 403, body=b"Hello you"),
    Case("streaming", Check(stream), 403, body=b"abc"),
    Case("file", Check(file), 403, headers={"content-type": "application/pdf"}, body=b"x" * 100_000),
    Case("two-cookies", Check(with_cookies), 403, body=b"no"),
    # Combinations.
    Case("and-first", DenyAll() & IsAuthenticated(), 403),
    Case("and-second", AllowAny() & IsAuthenticated(), 401),
    Case("or-allows", DenyAll() | AllowAny()),
    Case("or-anonymous", DenyAll() | IsAuthenticated(), 401),
    Case("or-known", deny(401) | Teapot(), 418, "teapot", user="alice"),
    Case("not-allows", ~DenyAll()),
    Case("not-denies", ~AllowAny(), 403),
    Case("not-raises", ~Check(raising(lambda: ZeroDivisionError(SECRET))), 500),
    Case("not-answers-none", ~Check(lambda request: None), 500),
]
BY_NAME = {case.name: case for case in CASES}
DENIED = [case for case in CASES if case.status]
PASSED = [case for case in CASES if not case.status]
