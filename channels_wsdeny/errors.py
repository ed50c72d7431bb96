"""Errors that Django answers with pages: what hooks make of them, and problem bodies for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.handlers.exception import response_for_exception
from django.urls import Resolver404, get_resolver
from django.utils.cache import patch_vary_headers

from . import problems
from .decisions import Raised, Steps
from .failures import denial_for
from .passage import Passage
from .views import refuse, rescue

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase


def answer_to(passage: Passage, error: Exception) -> HttpResponseBase | None:
    """A problem body for an exception of a view; None where Django's own page is the answer.

    Django logs and signals the exception as ever. To be called where it is being handled.
    """
    if _wants_a_page(passage.request) or settings.DEBUG_PROPAGATE_EXCEPTIONS:
        return None
    return _problem(passage, error, response_for_exception(passage.request, error))


def answer_in_place(passage: Passage, response: HttpResponseBase) -> Steps[HttpResponseBase]:
    """`response`, unless it is Django's page for what middleware has raised, or for a path without a view."""
    request = passage.request
    error, passage.error = passage.error, None
    if error is not None and not (
        response.status_code == 500 and getattr(response, "_has_been_logged", False)
    ):
        error = None  # Somebody has answered it already.
    if error is None and response.status_code == 404 and request.resolver_match is None:
        error = _unrouted(request, response)
    if error is None:
        return response
    denial = yield from rescue(passage, error)
    answer: HttpResponseBase
    if not isinstance(denial, Raised):
        answer = yield from refuse(request, None, denial)
    elif _wants_a_page(request):
        return response
    else:
        answer = _problem(passage, error, response)
    _carry_over(response, answer)
    return answer


def note(sender: object, request: HttpRequest | None = None, **kwargs: Any) -> None:
    """Note what Django is making a 500 of: a receiver of `got_request_exception`."""
    passage, error = getattr(request, "wsdeny", None), sys.exc_info()[1]
    if isinstance(passage, Passage) and isinstance(error, Exception):
        passage.error = error


def _wants_a_page(request: HttpRequest) -> bool:
    return problems.preferred_type(request) == problems.HTML


def _problem(passage: Passage, error: Exception, page: HttpResponseBase) -> HttpResponseBase:
    answer = problems.denial_response(passage, denial_for(error))
    problems.seal(answer)
    answer._has_been_logged = getattr(page, "_has_been_logged", False)  # type: ignore[attr-defined]
    return answer


def _unrouted(request: HttpRequest, response: HttpResponseBase) -> Resolver404 | None:
    """The exception that Django's resolver raised for this path, if `response` looks like the page for it."""
    if response.streaming or not response.get("Content-Type", "").startswith("text/html"):
        return None  # Middleware has answered by itself.
    try:
        get_resolver(getattr(request, "urlconf", None)).resolve(request.path_info)
    except Resolver404 as error:
        return error
    return None


def _carry_over(page: HttpResponseBase, answer: HttpResponseBase) -> None:
    """Keep what middleware further in has put on the page that `answer` replaces."""
    for name, value in page.items():
        if name.lower() == "vary":
            patch_vary_headers(answer, [field.strip() for field in value.split(",")])
        elif not name.lower().startswith("content-") and not answer.has_header(name):
            answer[name] = value
    for name, morsel in page.cookies.items():
        answer.cookies.setdefault(name, morsel)
