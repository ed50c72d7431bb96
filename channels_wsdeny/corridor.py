"""The corridor: the one way of every request, whichever door it comes through.

It knows requests, responses and policies, and no ASGI message. A door calls `admit` on the way in and
`refuse` with what that decided; views under WSGI call the ``_sync`` ones. Nothing raises out of the
corridor: whatever goes wrong in it denies.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from . import emitter, problems, sessions, statuses
from .conf import conf
from .decisions import ALLOWED, Decision, Denial, Step, Steps
from .drivers import Hop, drive, drive_sync
from .exceptions import Deny
from .failures import denial_for, translate
from .handshake import ScopeRequest, known_user
from .log import log_denial, log_failure

if TYPE_CHECKING:
    from django.http import HttpResponse

    from .passage import Passage
    from .policies import Policy

T = TypeVar("T")


class Refusal(NamedTuple):
    """How a denial goes out: its response (for ASGI a whole `HttpResponse`), and its code."""

    response: Any
    code: str


async def admit(passage: Passage, policies: tuple[Policy, ...], hop: Hop) -> Decision:
    """Ask `policies` in order, within ``POLICY_TIMEOUT`` seconds; blocking work goes through `hop`."""
    try:
        return await _within_timeout(_admission(passage, policies), hop)
    except TimeoutError:
        return denial_for(_too_late(passage))


def admit_sync(passage: Passage, policies: tuple[Policy, ...]) -> Decision:
    """As `admit`, for synchronous views, where nothing can end a policy that hangs."""
    return drive_sync(_admission(passage, policies))


async def refuse(passage: Passage, denial: Denial, hop: Hop) -> Refusal:
    """What to deny with: a response that may be sent as it is, its session saved, the denial logged."""
    try:
        return await _within_timeout(_refusal(passage, denial), hop)
    except TimeoutError:
        return _plain_refusal(passage, _too_late(passage))


def refuse_sync(passage: Passage, denial: Denial) -> Refusal:
    """As `refuse`, for synchronous views."""
    return drive_sync(_refusal(passage, denial))


async def save_session(passage: Passage, response: HttpResponse, hop: Hop) -> None:
    """Save the session if the site changed it, and set its cookie on `response`."""
    if sessions.needs_saving(passage.request):
        await hop(lambda: sessions.save_session(passage.request, response))


async def _within_timeout(steps: Steps[T], hop: Hop) -> T:
    async with asyncio.timeout(conf.POLICY_TIMEOUT):
        return await drive(steps, hop)


def _too_late(passage: Passage) -> TimeoutError:
    return TimeoutError(
        f"{passage.policy!r} ran past POLICY_TIMEOUT ({conf.POLICY_TIMEOUT} s), or waited that long "
        f"for one of the {conf.POOL_SIZE} threads of the pool (POOL_SIZE)."
    )


def _admission(passage: Passage, policies: tuple[Policy, ...]) -> Steps[Decision]:
    request = passage.request
    try:
        for policy in policies:
            passage.policy = policy
            decision = yield from policy.decide(request)
            if decision is not ALLOWED:
                return decision
        if isinstance(request, ScopeRequest) and known_user(request) is None:
            # The application finds its user in the scope, and may look at it on the loop.
            yield Step.BLOCKING
            request.user  # noqa: B018
    except Exception as error:  # noqa: BLE001 - fail closed: whatever goes wrong denies
        return denial_for(error)
    passage.note_passed(policies)
    return ALLOWED


def _refusal(passage: Passage, denial: Denial) -> Steps[Refusal]:
    try:
        response = problems.denial_response(passage, denial)
        problems.seal(response)
        if isinstance(passage.request, ScopeRequest):
            # A view's response is rendered, and its session saved, by Django itself.
            response = yield from emitter.read(response)
            if sessions.needs_saving(passage.request):
                yield Step.BLOCKING
                sessions.save_session(passage.request, response)
    except Exception as error:  # noqa: BLE001 - some answer must go out, and it must not open the door
        return _plain_refusal(passage, error)
    code = denial.code if isinstance(denial, Deny) else statuses.code_for(response.status_code)
    return _logged(passage, Refusal(response, code), denial)


def _plain_refusal(passage: Passage, error: Exception) -> Refusal:
    """The answer when making the site's own failed: nothing of the site is left in it."""
    deny = translate(error)
    response = problems.denial_response(passage, deny)
    problems.seal(response)
    return _logged(passage, Refusal(response, deny.code), deny)


def _logged(passage: Passage, refusal: Refusal, denial: Denial) -> Refusal:
    status = refusal.response.status_code
    if isinstance(denial, Deny) and denial.__cause__ is not None and status >= 500:
        log_failure(passage, denial.__cause__, status)
    log_denial(passage, status, refusal.code)
    return refusal
