"""Problem bodies: a denial as ``application/problem+json`` (RFC 9457), plain text or HTML.

Nothing about the policy or the exception is told, unless ``DEBUG``.
"""

from __future__ import annotations

import copy
import json
import traceback
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.http import HttpResponse
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.utils.html import format_html

from .. import status as statuses
from ..conf import conf
from ..exceptions import Deny
from . import languages
from .request import ScopeRequest

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from .context import Passage

JSON = "application/problem+json"
PLAIN = "text/plain"
HTML = "text/html"
#: Characters of an ``Accept`` header that are worth parsing, which takes Django a millisecond or so.
_LONGEST_ACCEPT = 1024


def preferred_type(request: HttpRequest) -> str:
    """Which of `JSON`, `PLAIN` and `HTML` the client prefers (RFC 9110 section 12.5.1); else `JSON`."""
    if isinstance(request, ScopeRequest) and request.header(b"accept") in {None, b"*/*"}:
        return JSON
    try:
        if len(request.headers.get("Accept", "")) > _LONGEST_ACCEPT:
            return JSON
        preferred = request.get_preferred_type([JSON, "application/json", PLAIN, HTML])
    except Exception:  # noqa: BLE001 - a malformed header must not change the denial
        return JSON
    return preferred if preferred in {PLAIN, HTML} else JSON


def denial_response(passage: Passage, denial: Deny | HttpResponseBase) -> HttpResponseBase:
    """The response that a denial goes out as, not yet rendered or read if the site gave one.

    The site's own responses are copied first: one object may deny many visitors, and the cookie of one
    must not reach the next.
    """
    if isinstance(denial, Deny):
        given = denial.response
        response = copy_response(given) if given is not None else _problem(passage, denial)
        for name, value in denial.headers.items():
            response[name] = value
    else:
        response = copy_response(denial)
    return response


def seal(response: HttpResponseBase) -> None:
    """Give `response` what every denial carries: a sendable status, a challenge, no caching, one Vary."""
    response.status_code = statuses.wire_status(response.status_code)
    if response.status_code == 401 and not response.has_header("WWW-Authenticate"):
        response["WWW-Authenticate"] = conf.CHALLENGE
    if response.status_code == 304 and isinstance(response, HttpResponse):
        response.content = b""  # RFC 9110 section 15.4.5
    response.is_denial = True  # type: ignore[attr-defined]
    patch_cache_control(response, no_store=True)
    patch_vary_headers(response, ("Accept", "Cookie"))


def _problem(passage: Passage, deny: Deny) -> HttpResponse:
    media_type = preferred_type(passage.request)
    with languages.language_of(passage.request):
        title = statuses.phrase(deny.status)
        detail = str(deny.detail or statuses.detail_for(deny.code, deny.status))
    debug = _debug(passage, deny) if settings.DEBUG else ""
    if media_type == HTML:
        body: str = format_html(
            "<!doctype html>\n<title>{0} {1}</title>\n<h1>{1}</h1>\n<p>{2}</p>\n<pre>{3}</pre>\n",
            deny.status,
            title,
            detail,
            debug,
        )
    elif media_type == PLAIN:
        body = "\n".join(line for line in (f"{deny.status} {title}", detail, debug) if line) + "\n"
    else:
        problem: dict[str, Any] = {
            "type": "about:blank",
            "title": title,
            "status": deny.status,
            "detail": detail,
            "code": deny.code,
        }
        if debug:
            problem["debug"] = debug
        body = json.dumps(problem)
    if media_type != JSON:
        media_type += "; charset=utf-8"
    response = HttpResponse(body, status=deny.status, content_type=media_type)
    patch_vary_headers(response, ("Accept", "Accept-Language") if languages.are_negotiated() else ("Accept",))
    return response


def copy_response(response: HttpResponseBase) -> HttpResponseBase:
    """A response with headers and cookies of its own, and the same content."""
    # Not copy.copy(): a response's pickling protocol drops what a template response renders from.
    clone = object.__new__(type(response))
    own = {name: list(value) if isinstance(value, list) else value for name, value in vars(response).items()}
    vars(clone).update(own)
    clone.headers = type(response.headers)(dict(response.items()))
    clone.cookies = copy.deepcopy(response.cookies) if response.cookies else SimpleCookie()
    return clone


def _debug(passage: Passage, deny: Deny) -> str:
    text = f"Policy: {passage.expression}\n" if passage.policy is not None else ""
    if deny.__cause__ is not None:
        text += "".join(traceback.format_exception(deny.__cause__))
    return text
