"""The refusal: what goes out instead of the endpoint's answer, and the way out for that answer itself.

Written as steps (see `channels_wsdeny.decisions`); nothing raises out of a refusal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import Http404

from .. import status as statuses
from ..decisions import Cause, Raised, Step, Steps
from ..exceptions import Deny
from ..http import content
from ..http import messages as emitter
from ..http import responses as problems
from ..http import session as sessions
from ..http.exception_handler import denial_for, is_unrouted, translate
from ..http.messages import Refusal
from ..http.request import HandshakeRequest, ScopeRequest
from ..log import log_denial, log_failure, warn_once
from .admission import check_status

if TYPE_CHECKING:
    from django.http.response import HttpResponseBase

    from ..http.context import Passage

_LOST = (
    "What was put into a session in front of an application that has a session of its own is lost: the "
    "application has begun or ended one meanwhile. In front of Django's handler, install MirrorMiddleware: "
    "then hooks and views have one session."
)


def refusal(passage: Passage, denial: Cause) -> Steps[tuple[Refusal, Deny | HttpResponseBase]]:
    """What to refuse with, whole and sealed, and the denial that it stands for, for the log.

    The response of a view is rendered, passes the response hooks and has its session saved further out.
    """
    request = passage.request
    denial = yield from resolve(passage, denial)
    try:
        response = problems.denial_response(passage, denial)
    except Exception as error:  # noqa: BLE001 - some answer must go out, and it must not open the door
        given = denial.response if isinstance(denial, Deny) else denial
        if given is not None:
            yield from content.close(given)
        denial = translate(error)
        response = problems.denial_response(passage, denial)
    try:
        if isinstance(request, ScopeRequest):
            response = yield from content.render(request, response)
            if passage.onion:
                response = yield from passage.onion.leave(passage, response)
        if isinstance(request, HandshakeRequest):
            yield from check_status(passage, response)
            problems.seal(response)
            response = yield from content.read(response)
        elif statuses.is_denial(response.status_code):
            problems.seal(response)
        if isinstance(request, ScopeRequest):
            yield from _save_session(passage, response)
        headers = emitter.raw_headers(response)
    except Exception as error:  # noqa: BLE001 - some answer must go out, and it must not open the door
        return plain_refusal(passage, error)
    if isinstance(denial, Deny) and denial.status == response.status_code:
        return Refusal(response, headers, denial.code), denial
    return Refusal(response, headers, statuses.code_for(response.status_code)), denial


def resolve(passage: Passage, denial: Cause) -> Steps[Deny | HttpResponseBase]:
    """What was raised, as the hooks say or else the table of statuses; other denials as they are."""
    if not isinstance(denial, Raised):
        return denial
    error = denial.error
    try:
        if passage.onion:
            if is_unrouted(error):
                error = Http404("Nothing is routed to this path.")
            taken = yield from passage.onion.rescue(passage, error)
            if taken is not None:
                return taken
    except Exception as another:  # noqa: BLE001 - a hook may well raise what should be answered
        error = another
    return denial_for(error)


def leaving(passage: Passage, response: HttpResponseBase) -> Steps[Cause]:
    """What goes out for the endpoint's own `response`: itself, its session saved, or what to refuse with."""
    given, request = response, passage.request
    was_loaded = sessions.is_loaded(request)
    if not sessions.follow(request, response):
        warn_once("session-of-hooks", _LOST)
    if passage.cookies and not sessions.sets_cookie(response):
        response.cookies.update(passage.cookies)
    if passage.onion:
        if was_loaded and not sessions.is_loaded(request):
            yield Step.BLOCKING  # Asynchronous hooks that have looked into it may do so again.
            sessions.load(request)
        response = yield from passage.onion.leave(passage, response)
    if response is given:
        yield from _save_session(passage, response)
    return response


def _save_session(passage: Passage, response: HttpResponseBase) -> Steps[None]:
    if sessions.needs_saving(passage.request) and response.status_code < 500:
        yield Step.BLOCKING
        sessions.save_session(passage.request, response)  # type: ignore[arg-type]


def plain_refusal(passage: Passage, error: Exception) -> tuple[Refusal, Deny]:
    """The answer when making the site's own failed: nothing of the site is left in it."""
    deny = translate(error)
    response = problems.denial_response(passage, deny)
    problems.seal(response)
    return Refusal(response, emitter.raw_headers(response), deny.code), deny


def logged(passage: Passage, refusal: Refusal, denial: Deny | HttpResponseBase) -> Refusal:
    """`refusal`, with its record in the log."""
    status = refusal.response.status_code
    if isinstance(denial, Deny) and denial.__cause__ is not None and status >= 500:
        log_failure(passage, denial.__cause__, status)
        # The record has the traceback. Left here, it would keep the frames of this handshake alive.
        denial.__cause__.__traceback__ = None
        refusal.response._has_been_logged = True
    if statuses.is_denial(status):
        log_denial(passage, status, refusal.code)
    return refusal
