"""The admission: request and route hooks, then the policies, on the way to the endpoint.

Written as steps (see `channels_wsdeny.decisions`); nothing raises out of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http.response import HttpResponseBase

from .. import status as statuses
from ..decisions import ALLOWED, Raised, Step, Steps, Verdict
from ..http import content
from ..http.request import AppRequest, HandshakeRequest
from ..http.visitor import known_user
from ..policies.base import ask

if TYPE_CHECKING:
    from ..exceptions import Deny
    from ..http.context import Passage
    from ..policies.builtin import Policy


def arrival(passage: Passage) -> Steps[Verdict]:
    """Run the request hooks."""
    try:
        if passage.onion:
            early = yield from passage.onion.arrive(passage)
            if early is not None:
                return early
    except Exception as error:  # noqa: BLE001 - fail closed: whatever goes wrong denies
        return Raised(error)
    return ALLOWED


def admission(passage: Passage, policies: tuple[Policy, ...]) -> Steps[Verdict]:
    """What `admit` does, where it runs decided by a driver."""
    steps = _admission(passage, policies)
    return steps if passage.trace is None else passage.trace.watching(steps)


def _admission(passage: Passage, policies: tuple[Policy, ...]) -> Steps[Verdict]:
    request = passage.request
    request.wsdeny = passage  # type: ignore[attr-defined]
    try:
        if passage.trace is not None:
            passage.trace.note_route(getattr(request, "resolver_match", None))
        if passage.onion:
            early = yield from passage.onion.arrive(passage)
            if early is None and getattr(request, "resolver_match", None) is not None:
                early = yield from passage.onion.route(passage)
            if early is not None:
                return early
        for policy in policies:
            passage.policy = policy
            decision = yield from ask(policy, request)
            if decision is not ALLOWED:
                yield from check_status(passage, decision)
                return decision
        is_offered = isinstance(request, HandshakeRequest) or (policies and isinstance(request, AppRequest))
        if is_offered and known_user(request) is None:
            # The application finds its user in the scope, and may look at it on the loop.
            yield Step.BLOCKING
            request.load_user()  # type: ignore[attr-defined]
    except Exception as error:  # noqa: BLE001 - fail closed: whatever goes wrong denies
        return Raised(error)
    passage.note_passed(policies)
    return ALLOWED


def check_status(passage: Passage, denial: Deny | HttpResponseBase) -> Steps[None]:
    """Raise `ValueError` for a response whose status cannot deny, and close it."""
    if isinstance(denial, HttpResponseBase) and not statuses.is_denial(denial.status_code):
        yield from content.close(denial)
        raise ValueError(
            f"{passage.expression} denied with a response of status {denial.status_code}. "
            "The status of a denial is 300-599."
        )
