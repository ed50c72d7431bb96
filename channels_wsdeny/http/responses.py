"""Responses of denials: problem bodies (RFC 9457), and copies of the site's own responses.

Nothing about the policy or the exception is shown to the client, unless ``DEBUG``.
"""

from __future__ import annotations

import copy
import json
import math
import random
import traceback
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context, ContextVar
from functools import cache, lru_cache
from http.cookies import SimpleCookie
from operator import itemgetter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpResponse
from django.utils import translation
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.utils.html import format_html

from .. import status as statuses
from ..conf import conf
from ..exceptions import Deny
from .request import ScopeRequest, run_in_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from .context import RequestContext

JSON = "application/problem+json"
PLAIN = "text/plain"
HTML = "text/html"
#: Characters and ranges of an ``Accept`` or ``Accept-Language`` header that are parsed: a client may send another one
#: with each handshake.
_LONGEST, _MOST_RANGES = 1024, 24
#: Media ranges that decide between the types of a denial, by how specific they are, and the types with those.
_SPECIFICITY = {"*/*": 0, "application/*": 1, "text/*": 1, JSON: 2, "application/json": 2, PLAIN: 2, HTML: 2}
_TYPES = tuple((each, each.partition("/")[0] + "/*") for each in (JSON, "application/json", PLAIN, HTML))
#: The ``Vary`` of a denial, and of one in a language that is negotiated.
_VARY = ("Accept, Cookie", "Accept, Accept-Language, Cookie")
_LOCALE_MIDDLEWARE = "django.middleware.locale.LocaleMiddleware"


def preferred_type(request: HttpRequest) -> str:
    """Which of `JSON`, `PLAIN` and `HTML` the client prefers (RFC 9110 section 12.5.1); else `JSON`."""
    if isinstance(request, ScopeRequest):
        return negotiate_type(b",".join(request.header_values(b"accept")))
    return negotiate_type(request.headers.get("Accept", "*/*").encode("latin1", "replace"))


def negotiate_type(accept: bytes) -> str:
    """As `preferred_type`, by ``Accept``.

    The choice is that of Django's `get_preferred_type`, at a tenth of its cost, for what differs with each client. A
    header that is longer than any client needs counts as none.
    """
    if accept in {b"", b"*/*"} or len(accept) > _LONGEST or accept.count(b",") >= _MOST_RANGES:
        return JSON
    return _negotiate_type(accept)


@lru_cache(maxsize=256)
def _negotiate_type(header: bytes) -> str:
    accept = header.decode("latin1").lower()
    if "text/" not in accept and "*" not in accept:
        return JSON
    #: The best quality of each range, and where it stands.
    found: dict[str, tuple[float, int, int]] = {}
    for position, each in enumerate(accept.split(",")):
        name, _, parameters = each.partition(";")
        name = name.strip()
        if name in _SPECIFICITY:
            quality = _quality(parameters) if parameters else 1.0
            if quality > 0 and (name not in found or -found[name][0] < quality):
                found[name] = (-quality, -_SPECIFICITY[name], position)
    matches = [
        (match, media_type)
        for media_type, any_subtype in _TYPES
        if (match := found.get(media_type) or found.get(any_subtype) or found.get("*/*")) is not None
    ]
    preferred = min(matches, key=itemgetter(0))[1] if matches else JSON
    return preferred if preferred in {PLAIN, HTML} else JSON


def _quality(parameters: str) -> float:
    """The quality of a media range (RFC 9110 section 12.4.2); 0 if it has other parameters, which no denial has."""
    quality = 1.0
    for each in parameters.split(";", 4):
        name, _, value = each.partition("=")
        if name.strip() == "q":
            try:
                given = float(value.strip(' "'))
            except ValueError:
                continue
            quality = given if 0 <= given <= 1 else 1.0
        elif name.strip():
            return 0
    return quality


def to_response(context: RequestContext, denial: Deny | HttpResponseBase) -> HttpResponseBase:
    """The response of a denial, not yet rendered if the site gave one.

    The site's own responses are copied: one object may deny many requests, and the cookie of one client must not
    reach the next.
    """
    if not isinstance(denial, Deny):
        return copy_response(denial)
    response = _problem(context, denial) if denial.response is None else copy_response(denial.response)
    for name, value in denial.headers.items():
        response[name] = value
    return response


def _problem(context: RequestContext, deny: Deny) -> HttpResponse:
    media_type = preferred_type(context.request)
    with language_of(context.request):
        title = statuses.phrase(deny.status)
        detail = str(deny.detail) or str(statuses.detail_for(deny.code, deny.status))
    debug = _debug(context, deny) if settings.DEBUG else ""
    retry = _retry_after(deny)
    if media_type == HTML:
        body: str = format_html(
            "<!doctype html>\n<title>{0} {1}</title>\n<h1>{1}</h1>\n<p>{2}</p>\n"
            + ("<pre>{3}</pre>\n" if debug else ""),
            *(deny.status, title, detail, debug),
        )
    elif media_type == PLAIN:
        body = "\n".join(line for line in (f"{deny.status} {title}", detail, debug) if line) + "\n"
    else:
        problem = {"type": "about:blank", "title": title, "status": deny.status, "detail": detail}
        problem |= {
            "code": deny.code,
            "retry": False if retry is None else retry,
            **deny.members,
            **({"debug": debug} if debug else {}),
        }
        if deny.members:  # As `JsonResponse` writes them, and what JavaScript cannot read is an error.
            with language_of(context.request):
                body = json.dumps(problem, cls=DjangoJSONEncoder, allow_nan=False)
        else:
            body = json.dumps(problem)
    if media_type != JSON:
        media_type += "; charset=utf-8"
    response = HttpResponse(body, status=deny.status, content_type=media_type)
    response["Cache-Control"] = "no-store"
    response["Vary"] = _VARY[is_language_negotiated()]
    if retry is not None:
        response["Retry-After"] = str(retry)
    return response


def _retry_after(deny: Deny) -> int | None:
    """Seconds after which trying again makes sense: ``Retry-After``, or that of a 503; None if it makes none.

    That of a 503 is spread by half of ``RETRY_AFTER``, for otherwise all clients would come back at once.
    """
    given = {name.lower(): value for name, value in deny.headers.items()}.get("retry-after")
    if given is not None:
        return int(given) if given.isdecimal() else None
    return math.ceil(_spread(conf.RETRY_AFTER)) if deny.status == 503 else None


def _spread(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311 - it is no secret


def _debug(context: RequestContext, deny: Deny) -> str:
    text = f"Policy: {context.expression}\n" if context.policy is not None else ""
    if deny.__cause__ is not None:
        # What is no error needs no traceback, which is mostly of this package.
        show = traceback.format_exception if deny.status >= 500 else traceback.format_exception_only
        text += "".join(show(deny.__cause__))
    return text


def add_denial_headers(response: HttpResponseBase) -> None:
    """Set what every denial has: a registered status, a challenge or ``Retry-After``, ``no-store`` and one ``Vary``.

    It is done again after response hooks, which may have changed them.
    """
    response.status_code = statuses.wire_status(response.status_code)
    if response.status_code == 401 and not response.has_header("WWW-Authenticate"):
        response["WWW-Authenticate"] = conf.CHALLENGE
    if response.status_code == 503 and not response.has_header("Retry-After"):
        response["Retry-After"] = str(math.ceil(_spread(conf.RETRY_AFTER)))
    if response.status_code == 304 and isinstance(response, HttpResponse):
        response.content = b""  # RFC 9110 section 15.4.5
    marked: Any = response
    marked.is_denial = True
    # Django's functions parse what is there, which takes a fifth of the time of a denial. Most have nothing there.
    cache_control, vary = response.get("Cache-Control"), response.get("Vary")
    if cache_control is None:
        response["Cache-Control"] = "no-store"
    elif cache_control != "no-store":
        patch_cache_control(response, no_store=True)
    if vary is None:
        response["Vary"] = _VARY[0]
    elif vary not in _VARY:
        patch_vary_headers(response, ("Accept", "Cookie"))


def copy_response(response: HttpResponseBase) -> HttpResponseBase:
    """A response with headers and cookies of its own, and the same content."""
    # Not copy.copy(): a response's pickling protocol drops what a template response renders from.
    clone = object.__new__(type(response))
    own = {name: list(value) if isinstance(value, list) else value for name, value in vars(response).items()}
    vars(clone).update(own)
    clone.headers = type(response.headers)(dict(response.items()))
    clone.cookies = copy.deepcopy(response.cookies) if response.cookies else SimpleCookie()
    return clone


# Content


def is_rendered(response: HttpResponseBase) -> bool:
    """Whether `response` is complete: not a template response that is not rendered yet."""
    return getattr(response, "is_rendered", True)


def render(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """`response` with its template rendered, if it has one, in the client's language; may block."""
    if is_rendered(response):
        return response
    with language_of(request):
        return response.render()  # type: ignore[attr-defined, no-any-return] # a template response


async def read_content(request: HttpRequest, response: HttpResponseBase) -> HttpResponse:
    """`response` as a whole: streams and files are read, up to ``MAX_DENIAL_BODY`` bytes, and closed.

    Raises `ValueError` for a larger body.
    """
    if not response.streaming:
        check_size(len(response.content))  # type: ignore[attr-defined] # not a stream
        return response  # type: ignore[return-value] # not a stream
    content = bytearray()
    try:
        if response.is_async:  # type: ignore[attr-defined] # a stream
            async for chunk in response:  # type: ignore[attr-defined] # a stream
                content += chunk
                check_size(len(content))
        else:
            await run_in_thread(request, lambda: _read_stream(response, content))
    finally:
        # Closing sends request_finished, whose receivers expect to block.
        await run_in_thread(request, response.close)
    whole = HttpResponse(bytes(content), status=response.status_code, headers=dict(response.items()))
    whole.cookies = response.cookies
    return whole


def _read_stream(response: Any, content: bytearray) -> None:
    for chunk in response:
        content += chunk
        check_size(len(content))


def check_size(size: int) -> None:
    """Raise `ValueError` for a denial's body of more than ``MAX_DENIAL_BODY`` bytes."""
    limit = conf.MAX_DENIAL_BODY
    if size > limit:
        raise ValueError(
            f"The body of a denial has more than {limit} bytes. Send less, or raise CHANNELS_WSDENY['MAX_DENIAL_BODY']."
        )


def discard(response: HttpResponseBase | None, successor: HttpResponseBase | None = None) -> None:
    """Close what `response` holds open, since `successor` is sent in its place, while the request goes on.

    A successor that is a stream, or a template still to be rendered, may be made from the stream of `response`:
    then that is closed with it.
    """
    closers: list[Any] = getattr(response, "_resource_closers", [])
    if response is None or response is successor or not response.streaming or not closers:
        return
    if successor is not None and (successor.streaming or not is_rendered(successor)):
        successor._resource_closers.extend(closers)  # type: ignore[attr-defined] # Django's own list
        return
    for close in closers:
        try:
            close()
        except Exception:  # noqa: S110 - as Django's own HttpResponseBase.close()
            pass


# The client's language, where the site negotiates it: `LocaleMiddleware` sees a handshake only if the site says so.


def is_language_negotiated() -> bool:
    """Whether the site's responses depend on ``Accept-Language``."""
    return settings.USE_I18N and _LOCALE_MIDDLEWARE in settings.MIDDLEWARE


def language_of(request: HttpRequest) -> AbstractContextManager[None]:
    """A context in which texts are in the client's language, by the rules of `LocaleMiddleware`."""
    if not isinstance(request, ScopeRequest) or not is_language_negotiated():
        return nullcontext()  # Of a view's request the language is active already.
    context: RequestContext | None = vars(request).get("wsdeny")
    if context is not None and context.state.middleware is not None and active_language() is not None:
        return nullcontext()  # A middleware of the handshake has chosen it.
    language = negotiate_language(b",".join(request.header_values(b"accept-language")), request.COOKIES)
    return nullcontext() if language is None else translation.override(language)


def negotiate_language(accept_language: bytes, cookies: Mapping[str, str]) -> str | None:
    """The client's language, by ``Accept-Language`` and cookies; None if Django cannot tell."""
    header = accept_language.decode("latin1")
    if len(header) > _LONGEST or header.count(",") >= _MOST_RANGES:
        header = ""
    # What Django reads of a request to choose its language. That of a handshake is not built for it.
    asking: Any = SimpleNamespace(COOKIES=cookies, META={"HTTP_ACCEPT_LANGUAGE": header})
    try:
        return translation.get_language_from_request(asking)
    except Exception:  # pragma: no cover - A malformed header must not change the denial; Django takes all we know.
        return None


def active_language() -> str | None:
    """The language that is active now; None for that of the settings."""
    variable = _language_variable()
    if variable is not None and variable.get(None) is None:
        return None
    return translation.get_language()


@cache
def _language_variable() -> ContextVar[Any] | None:
    """The contextvar in which `django.utils.translation` keeps the active language, if it is one.

    Looking at it takes a fiftieth of what asking Django takes.
    """
    context = Context()
    context.run(translation.deactivate_all)
    return next(iter(context)) if len(context) == 1 else None
