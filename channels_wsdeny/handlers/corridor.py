"""The corridor: the one way of every request, whichever door it comes through.

It knows requests, responses, hooks and policies, and no ASGI message. A door calls `admit` on the way in
and, on the way out, `refuse` with what that decided or `answer` with what the endpoint said; views under
WSGI call the ``_sync`` ones. Nothing raises out of the corridor: whatever goes wrong in it denies.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

from django.http import HttpResponse

from ..conf import conf
from ..decisions import ALLOWED, Cause, Raised, Steps, Verdict
from ..drivers import Done, Hop, advance, drive, drive_sync, is_being_cancelled
from ..http import session as sessions
from ..log import log_failure
from .admission import admission, arrival
from .refusal import leaving, logged, plain_refusal, refusal

if TYPE_CHECKING:
    from django.http.response import HttpResponseBase

    from ..http.context import Passage
    from ..http.messages import Refusal
    from ..policies.builtin import Policy

T = TypeVar("T")

#: Seconds that a refusal has at least, when the policies have used up the time.
_LEAST = 0.5


async def arrive(passage: Passage, hop: Hop) -> Verdict:
    """Run the request hooks of a request whose endpoint is not known, or not yet; see `admit`."""
    return await _in_time(passage, arrival(passage), hop) if not _has_no_hooks(passage) else ALLOWED


async def admit(passage: Passage, policies: tuple[Policy, ...], hop: Hop) -> Verdict:
    """Run request and route hooks and ask `policies` in order, within ``POLICY_TIMEOUT`` seconds.

    Blocking work goes through `hop`.
    """
    return await _in_time(passage, admission(passage, policies), hop)


def admit_sync(passage: Passage, policies: tuple[Policy, ...]) -> Verdict:
    """As `admit`, for synchronous views, where nothing can end a policy that hangs."""
    return drive_sync(admission(passage, policies))


async def refuse(passage: Passage, denial: Cause, hop: Hop) -> Refusal:
    """What to deny with: a response that may be sent as it is, its session saved, the denial logged."""
    try:
        made = await _drive_within(_rest_of_timeout(passage), refusal(passage, denial), hop)
    except TimeoutError:
        made = plain_refusal(passage, _too_late(passage))
    except Exception as error:  # noqa: BLE001 - some answer must go out
        made = plain_refusal(passage, error)
    return logged(passage, *made)


def refuse_sync(passage: Passage, denial: Cause) -> Refusal:
    """As `refuse`, for synchronous views."""
    return logged(passage, *drive_sync(refusal(passage, denial)))


async def answer(passage: Passage, response: HttpResponseBase, hop: Hop) -> Cause:
    """What goes out for the endpoint's own `response`: itself, its session saved, or what to refuse with."""
    if _has_no_hooks(passage) and not (sessions.needs_saving(passage.request) or passage.cookies):
        return response
    began = time.monotonic()
    steps = leaving(passage, response)
    # An error lets nobody in, and may be the answer to those who were interrupted.
    opens = response.status_code < 400
    try:
        return await _undisturbed(passage, _rest_of_timeout(passage), steps, hop, opens=opens)
    except TimeoutError:
        return Raised(_too_late(passage))
    except Exception as error:  # noqa: BLE001 - a response that cannot be made is no reason to let in
        return Raised(error)
    finally:
        passage.spent += time.monotonic() - began


async def save_session_early(passage: Passage, hop: Hop) -> None:
    """Save what hooks have put into the session, before an application loads it for itself.

    A session that is new has to wait for the answer: the application has no cookie to know it by.
    """
    request: Any = passage.request
    if not (sessions.is_modified(request) and sessions.is_the_clients(request)):
        return
    try:
        response = HttpResponse()
        await hop(lambda: sessions.save_session(request, response))
        request.session.modified = not sessions.is_the_clients(request)
        passage.cookies = response.cookies
    except Exception as error:  # noqa: BLE001 - the request itself is none the worse for it
        log_failure(passage, error)


async def _in_time(passage: Passage, steps: Steps[Verdict], hop: Hop) -> Verdict:
    began = time.monotonic()
    try:
        return await _undisturbed(passage, _rest_of_timeout(passage, 0), steps, hop)
    except TimeoutError:
        return Raised(_too_late(passage))
    except Exception as error:  # noqa: BLE001 - fail closed: the way to the policies failed
        return Raised(error)
    finally:
        passage.spent += time.monotonic() - began


def has_say_in_answer(passage: Passage) -> bool:
    """Whether a hook, a trace or the session has a say in what goes out, whatever the denial is."""
    return not _has_no_hooks(passage) or passage.trace is not None or sessions.needs_saving(passage.request)


def _has_no_hooks(passage: Passage) -> bool:
    return passage.onion is None or passage.onion.is_over


async def _undisturbed(
    passage: Passage, seconds: float, steps: Steps[T], hop: Hop, *, opens: bool = True
) -> T:
    """Drive `steps`, unless others drive some; for what `opens` a door, unless hooks were interrupted."""
    if _has_no_hooks(passage) or passage.onion is None:
        return await _drive_within(seconds, steps, hop)
    walk = passage.onion.walk
    token = walk.begin(opens=opens)
    try:
        result = await _drive_within(seconds, steps, hop)
    except BaseException:
        walk.interrupt(token)
        raise
    walk.end()
    return result


async def _drive_within(seconds: float, steps: Steps[T], hop: Hop) -> T:
    try:
        step = advance(steps)
        if isinstance(step, Done):  # Nothing had to be waited for.
            result: T = step.value
            return result
        async with asyncio.timeout(seconds):
            return await drive(steps, hop, step)
    except asyncio.CancelledError as error:
        if is_being_cancelled():
            raise
        # Something that was awaited had been cancelled by somebody else: that is an error like any other.
        raise RuntimeError("What a policy or response awaited was cancelled.") from error


def _rest_of_timeout(passage: Passage, least: float = _LEAST) -> float:
    """What is left of ``POLICY_TIMEOUT``, in seconds, so that the server's own timeout is not reached."""
    return max(least, conf.POLICY_TIMEOUT - passage.spent)


def _too_late(passage: Passage) -> TimeoutError:
    return TimeoutError(
        f"{passage.expression or 'A hook'} ran past POLICY_TIMEOUT ({conf.POLICY_TIMEOUT} s), or waited that "
        f"long for one of the {conf.POOL_SIZE} threads of the pool (POOL_SIZE)."
    )
