"""A policy: what answers, for one request, whether it may pass; and the operators that combine policies.

Policies know Django's request and user, and nothing of ASGI, so the same policy guards a socket and a view.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeAlias

from django.http.response import HttpResponseBase

from .. import concurrency as pool
from .. import status as statuses
from ..decisions import ALLOWED, Decision, Denial, Step, Steps
from ..drivers import drive, drive_sync
from ..exceptions import Deny, PolicyError
from ..http.context import expression_of, trace_of
from ..http.visitor import known_user

if TYPE_CHECKING:
    from django.http import HttpRequest

#: What a check may return: allow, deny as the policy says, or deny with this very answer.
Answer: TypeAlias = bool | Denial


class Policy:
    """Answers for one request; give `check`, `acheck` or both.

    They return True (allow), False (deny with the class's `status`, `code` and `detail`), a `Deny`, or an
    `HttpResponse` (deny with it). Anything else is an error and denies. Combine policies by ``&``,
    ``|`` and ``~``; they are asked from left to right, and only as far as needed.
    """

    status = 403
    code: str | None = None
    detail: statuses.Text = ""

    def check(self, request: HttpRequest) -> Answer:
        """The synchronous check; it may block."""
        return _as_answer(drive_sync(self.decide(request)))

    async def acheck(self, request: HttpRequest) -> Answer:
        """The asynchronous check, for policies that are made of coroutines."""
        return _as_answer(await drive(self.decide(request), pool.hop))

    def decide(self, request: HttpRequest) -> Steps[Decision]:
        """Ask the checks that the subclass gave, where they want to run; see `decisions`."""
        has_check = type(self).check is not Policy.check
        has_acheck = type(self).acheck is not Policy.acheck
        if not (has_check or has_acheck):
            raise PolicyError(
                f"{type(self).__name__} has neither check() nor acheck(). Give one that returns True, "
                "False, a Deny or an HttpResponse."
            )
        answer: Any
        if has_check and (not has_acheck or (yield Step.EITHER)):
            yield Step.BLOCKING
            answer = self.check(request)
        else:
            answer = yield lambda: self.acheck(request)
        return self._decision(answer)

    def denial(self) -> Deny:
        """What this policy denies with when its check says False."""
        return Deny(self.status, self.detail, code=self.code)

    def _decision(self, answer: object) -> Decision:
        if answer is True:
            return ALLOWED
        if answer is False:
            return self.denial()
        if isinstance(answer, (Deny, HttpResponseBase)):
            return answer
        if inspect.iscoroutine(answer):
            answer.close()
        raise PolicyError(
            f"{self!r} answered {answer!r}. A policy returns True, False, a Deny or an HttpResponse"
            + (
                "; a check that is a coroutine function is named acheck()."
                if inspect.iscoroutine(answer)
                else "."
            )
        )

    def __and__(self, other: Policy) -> Policy:
        return And(self, other) if isinstance(other, Policy) else NotImplemented

    def __or__(self, other: Policy) -> Policy:
        return Or(self, other) if isinstance(other, Policy) else NotImplemented

    def __invert__(self) -> Policy:
        return Not(self)

    def __bool__(self) -> bool:
        # "a and b" would quietly be b alone.
        raise TypeError("A policy is neither true nor false: combine policies by &, | and ~.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def ask(policy: Policy, request: HttpRequest) -> Steps[Decision]:
    """What `policy` decides, noted in the trace of `request` if there is one: the one way to ask a policy."""
    trace = trace_of(request)
    steps = policy.decide(request)
    return steps if trace is None else trace.asking("policy", str(expression_of(policy)), steps)


def _as_answer(decision: Decision) -> Answer:
    return True if decision is ALLOWED else decision


class _Combination(Policy):
    """Policies joined by an operator; nested ones of the same kind are flattened."""

    operator: str

    def __init__(self, *policies: Policy) -> None:
        self.policies: tuple[Policy, ...] = ()
        for policy in policies:
            if isinstance(policy, _Combination) and policy.operator == self.operator:
                self.policies += policy.policies
            else:
                self.policies += (policy,)

    def __repr__(self) -> str:
        # "&" binds more tightly than "|", so only an "or" within an "and" needs its parentheses.
        return f" {self.operator} ".join(
            f"({policy!r})" if isinstance(policy, Or) else repr(policy) for policy in self.policies
        )


class And(_Combination):
    """Every policy must allow; denies with the first denial."""

    operator = "&"

    def decide(self, request: HttpRequest) -> Steps[Decision]:
        for policy in self.policies:
            decision = yield from ask(policy, request)
            if decision is not ALLOWED:
                return decision
        return ALLOWED


class Or(_Combination):
    """One policy must allow.

    When all deny: to an anonymous visitor a 401 if there is one, to a known user the first that is no
    401; else the first.
    """

    operator = "|"

    def decide(self, request: HttpRequest) -> Steps[Decision]:
        denials: list[Denial] = []
        for policy in self.policies:
            decision = yield from ask(policy, request)
            if decision is ALLOWED:
                return ALLOWED
            denials.append(decision)
        asking_to_log_in = [denial for denial in denials if _status(denial) == 401]
        others = [denial for denial in denials if _status(denial) != 401]
        if asking_to_log_in and others:
            user = yield from user_of(request)
            return others[0] if user.is_authenticated else asking_to_log_in[0]
        return denials[0]


class Not(Policy):
    """Allows what the policy denies, and denies what it allows with a 403. Exceptions stay denials."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def decide(self, request: HttpRequest) -> Steps[Decision]:
        decision = yield from ask(self.policy, request)
        return self.denial() if decision is ALLOWED else ALLOWED

    def __repr__(self) -> str:
        inner = repr(self.policy)
        return f"~({inner})" if isinstance(self.policy, _Combination) else f"~{inner}"


def _status(denial: Denial) -> int:
    return denial.status if isinstance(denial, Deny) else denial.status_code


def user_of(request: HttpRequest) -> Steps[Any]:
    """The user of `request`; blocks only where it cannot be told without I/O."""
    user = known_user(request)
    if user is None:
        yield Step.BLOCKING
        user = request.user
        user.is_authenticated  # noqa: B018 - a lazy user is loaded here, where it may block
    return user
