"""Errors that Django answers with pages: what hooks make of them, and problem bodies for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404
from django.http.multipartparser import MultiPartParserError
from django.urls import Resolver404, get_resolver
from django.utils.cache import patch_vary_headers

from ..decisions import Raised, Steps
from ..http import responses as problems
from ..http.context import Passage
from ..http.exception_handler import denial_for
from .call import refuse, rescue

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase


def answer_in_place(passage: Passage, response: HttpResponseBase) -> Steps[HttpResponseBase]:
    """`response`; or what a hook makes of it, if it is Django's page for an exception; or a problem body."""
    request = passage.request
    error, passage.error = passage.error, None
    if error is None and request.resolver_match is None and response.status_code == 404:
        error = _unrouted(request)
    if error is None or not _is_page_for(error, response):
        return response
    denial = yield from rescue(passage, error)
    answer: HttpResponseBase
    if not isinstance(denial, Raised):
        answer = yield from refuse(request, None, denial)
    elif problems.preferred_type(request) == problems.HTML:
        return response
    else:
        answer = problems.denial_response(passage, denial_for(error))
        problems.seal(answer)
        answer._has_been_logged = getattr(response, "_has_been_logged", False)  # type: ignore[attr-defined]
    _carry_over(response, answer)
    return answer


def note(sender: object, request: HttpRequest | None = None, **kwargs: Any) -> None:
    """Note what Django is making a 500 of: a receiver of `got_request_exception`."""
    passage, error = getattr(request, "wsdeny", None), sys.exc_info()[1]
    if isinstance(passage, Passage) and isinstance(error, Exception):
        passage.error = error


def _is_page_for(error: Exception, response: HttpResponseBase) -> bool:
    """Whether `response` is the page that Django makes of `error`, and not some middleware's own answer.

    Django logs such pages as it makes them, but for 404s; those are told by their kind alone.
    """
    if isinstance(error, Http404):
        kind = response.get("Content-Type", "")
        return response.status_code == 404 and not response.streaming and kind.startswith("text/html")
    status = 500
    if isinstance(error, PermissionDenied):
        status = 403
    elif isinstance(error, (BadRequest, SuspiciousOperation, MultiPartParserError)):
        status = 400
    return response.status_code == status and getattr(response, "_has_been_logged", False)


def _unrouted(request: HttpRequest) -> Resolver404 | None:
    """The exception that Django's resolver raises for the path of `request`; None if it is routed."""
    try:
        get_resolver(getattr(request, "urlconf", None)).resolve(request.path_info)
    except Resolver404 as error:
        return error
    return None


#: What says something about the body that is replaced.
_OF_THE_BODY = {
    *("content-disposition", "content-encoding", "content-language", "content-length", "content-location"),
    *("content-range", "content-type", "etag", "last-modified"),
}


def _carry_over(page: HttpResponseBase, answer: HttpResponseBase) -> None:
    """Keep what middleware further in has put on the page that `answer` replaces."""
    for name, value in page.items():
        if name.lower() == "vary":
            patch_vary_headers(answer, [field.strip() for field in value.split(",")])
        elif name.lower() not in _OF_THE_BODY and not answer.has_header(name):
            answer[name] = value
    for name, morsel in page.cookies.items():
        answer.cookies.setdefault(name, morsel)
