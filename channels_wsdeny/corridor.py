"""The corridor: the one way of every request, whichever door it comes through.

It knows requests, responses and policies, and no ASGI message. A door calls `admit` on the way in and
`refuse` with what that decided; views under WSGI call the ``_sync`` ones. Nothing raises out of the
corridor: whatever goes wrong in it denies.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from typing import TYPE_CHECKING, TypeVar

from . import emitter, problems, sessions, statuses
from .conf import conf
from .decisions import ALLOWED, Decision, Denial, Step, Steps
from .drivers import Hop, drive, drive_sync
from .emitter import Refusal
from .exceptions import Deny
from .failures import denial_for, translate
from .handshake import ScopeRequest
from .log import log_denial, log_failure
from .visitor import known_user

if TYPE_CHECKING:
    from django.http import HttpResponse

    from .passage import Passage
    from .policies import Policy

T = TypeVar("T")

#: Seconds that a refusal has at least, when the policies have used up the time.
_LEAST = 0.5


async def admit(passage: Passage, policies: tuple[Policy, ...], hop: Hop) -> Decision:
    """Ask `policies` in order, within ``POLICY_TIMEOUT`` seconds; blocking work goes through `hop`."""
    began = time.monotonic()
    try:
        return await _drive_within(_rest_of_timeout(passage, 0), _admission(passage, policies), hop)
    except TimeoutError:
        return denial_for(_too_late(passage))
    except Exception as error:  # noqa: BLE001 - fail closed: the way to the policies failed
        return denial_for(error)
    finally:
        passage.spent += time.monotonic() - began


def admit_sync(passage: Passage, policies: tuple[Policy, ...]) -> Decision:
    """As `admit`, for synchronous views, where nothing can end a policy that hangs."""
    return drive_sync(_admission(passage, policies))


async def refuse(passage: Passage, denial: Denial, hop: Hop) -> Refusal:
    """What to deny with: a response that may be sent as it is, its session saved, the denial logged."""
    try:
        made = await _drive_within(_rest_of_timeout(passage), _refusal(passage, denial), hop)
    except TimeoutError:
        made = _plain_refusal(passage, _too_late(passage))
    except Exception as error:  # noqa: BLE001 - some answer must go out
        made = _plain_refusal(passage, error)
    return _logged(passage, *made)


def refuse_sync(passage: Passage, denial: Denial) -> Refusal:
    """As `refuse`, for synchronous views."""
    return _logged(passage, *drive_sync(_refusal(passage, denial)))


async def save_session(passage: Passage, response: HttpResponse, hop: Hop) -> None:
    """Save the session if the site changed it, and set its cookie on `response`.

    Raises what saving does, and `TimeoutError` for a pool that has no place.
    """
    if sessions.needs_saving(passage.request):
        steps = _saving(passage, response)
        await _drive_within(_rest_of_timeout(passage), steps, hop)


async def _drive_within(seconds: float, steps: Steps[T], hop: Hop) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await drive(steps, hop)
    except asyncio.CancelledError as error:
        if is_being_cancelled():
            raise
        # Something that was awaited had been cancelled by somebody else: that is an error like any other.
        raise RuntimeError("What a policy or response awaited was cancelled.") from error


def is_being_cancelled() -> bool:
    """Whether it is this task that somebody wants to end, rather than something that it awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _rest_of_timeout(passage: Passage, least: float = _LEAST) -> float:
    """What is left of ``POLICY_TIMEOUT``, in seconds, so that the server's own timeout is not reached."""
    return max(least, conf.POLICY_TIMEOUT - passage.spent)


def _too_late(passage: Passage) -> TimeoutError:
    return TimeoutError(
        f"{passage.expression} ran past POLICY_TIMEOUT ({conf.POLICY_TIMEOUT} s), or waited that long "
        f"for one of the {conf.POOL_SIZE} threads of the pool (POOL_SIZE)."
    )


def _admission(passage: Passage, policies: tuple[Policy, ...]) -> Steps[Decision]:
    request = passage.request
    request.wsdeny = passage  # type: ignore[attr-defined]
    try:
        for policy in policies:
            passage.policy = policy
            decision = yield from policy.decide(request)
            if decision is not ALLOWED:
                return decision
        if isinstance(request, ScopeRequest) and known_user(request) is None:
            # The application finds its user in the scope, and may look at it on the loop.
            yield Step.BLOCKING
            request.load_user()
    except Exception as error:  # noqa: BLE001 - fail closed: whatever goes wrong denies
        return denial_for(error)
    passage.note_passed(policies)
    return ALLOWED


def _refusal(passage: Passage, denial: Denial) -> Steps[tuple[Refusal, Denial]]:
    request = passage.request
    try:
        response = problems.denial_response(passage, denial)
    except Exception as error:  # noqa: BLE001 - some answer must go out, and it must not open the door
        given = denial.response if isinstance(denial, Deny) else denial
        if given is not None and given.streaming:
            yield Step.BLOCKING
            given.close()
        return _plain_refusal(passage, error)
    try:
        problems.seal(response)
        if isinstance(request, ScopeRequest):
            # A view's response is rendered, and its session saved, by Django itself.
            response = yield from emitter.read(request, response)
            if sessions.needs_saving(request) and response.status_code < 500:
                yield from _saving(passage, response)
        headers = emitter.raw_headers(response)
    except Exception as error:  # noqa: BLE001 - some answer must go out, and it must not open the door
        return _plain_refusal(passage, error)
    code = denial.code if isinstance(denial, Deny) else statuses.code_for(response.status_code)
    return Refusal(response, headers, code), denial


def _saving(passage: Passage, response: HttpResponse) -> Steps[None]:
    yield Step.BLOCKING
    sessions.save_session(passage.request, response)


def _plain_refusal(passage: Passage, error: Exception) -> tuple[Refusal, Denial]:
    """The answer when making the site's own failed: nothing of the site is left in it."""
    deny = translate(error)
    response = problems.denial_response(passage, deny)
    problems.seal(response)
    return Refusal(response, emitter.raw_headers(response), deny.code), deny


def _logged(passage: Passage, refusal: Refusal, denial: Denial) -> Refusal:
    status = refusal.response.status_code
    try:
        if isinstance(denial, Deny) and denial.__cause__ is not None and status >= 500:
            log_failure(passage, denial.__cause__, status)
            # The record has the traceback. Left here, it would keep the frames of this handshake alive.
            denial.__cause__.__traceback__ = None
            refusal.response._has_been_logged = True
        log_denial(passage, status, refusal.code)
    except Exception:  # noqa: BLE001 - a log handler that raises must not keep the denial from going out
        if logging.raiseExceptions:
            traceback.print_exc()  # as logging itself does
    return refusal
