"""Policies answer, for one request, whether it may pass.

They know Django's request and user, and nothing of ASGI, so the same policy guards a socket and a view.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.http.response import HttpResponseBase
from django.utils.module_loading import import_string

from . import pool, statuses
from .conf import conf
from .decisions import ALLOWED, Decision, Denial, Step, Steps
from .drivers import drive, drive_sync
from .exceptions import Deny, PolicyError
from .handshake import known_user
from .passage import passage_of

if TYPE_CHECKING:
    from django.http import HttpRequest

#: What a check may return: allow, deny as the policy says, or deny with this very answer.
Answer: TypeAlias = bool | Denial
P = TypeVar("P", bound="Policy")


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
            + ("; a check that is a coroutine function is named acheck()." if inspect.iscoroutine(answer) else ".")
        )

    def __and__(self, other: Policy) -> Policy:
        return And(self, other) if isinstance(other, Policy) else NotImplemented

    def __or__(self, other: Policy) -> Policy:
        return Or(self, other) if isinstance(other, Policy) else NotImplemented

    def __invert__(self) -> Policy:
        return Not(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _as_answer(decision: Decision) -> Answer:
    return True if decision is ALLOWED else decision


class _Combination(Policy):
    """Policies joined by an operator; nested ones of the same kind are flattened."""

    operator: str

    def __init__(self, *policies: Policy) -> None:
        self.policies = tuple(
            inner
            for policy in policies
            for inner in (policy.policies if type(policy) is type(self) else (policy,))  # type: ignore[attr-defined]
        )

    def __repr__(self) -> str:
        return f" {self.operator} ".join(
            f"({policy!r})" if isinstance(policy, _Combination) else repr(policy)
            for policy in self.policies
        )


class And(_Combination):
    """Every policy must allow; denies with the first denial."""

    operator = "&"

    def decide(self, request: HttpRequest) -> Steps[Decision]:
        for policy in self.policies:
            decision = yield from policy.decide(request)
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
            decision = yield from policy.decide(request)
            if decision is ALLOWED:
                return ALLOWED
            denials.append(decision)
        asking_to_log_in = [denial for denial in denials if _status(denial) == 401]
        others = [denial for denial in denials if _status(denial) != 401]
        if asking_to_log_in and others:
            user = yield from _user(request)
            return others[0] if user.is_authenticated else asking_to_log_in[0]
        return denials[0]


class Not(Policy):
    """Allows what the policy denies, and denies what it allows with a 403. Exceptions stay denials."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def decide(self, request: HttpRequest) -> Steps[Decision]:
        decision = yield from self.policy.decide(request)
        return self.denial() if decision is ALLOWED else ALLOWED

    def __repr__(self) -> str:
        inner = repr(self.policy)
        return f"~({inner})" if isinstance(self.policy, _Combination) else f"~{inner}"


def _status(denial: Denial) -> int:
    return denial.status if isinstance(denial, Deny) else denial.status_code


def _user(request: HttpRequest) -> Steps[Any]:
    """The user of `request`; blocks only where it cannot be told without I/O."""
    user = known_user(request)
    if user is None:
        yield Step.BLOCKING
        user = request.user
    return user


class AllowAny(Policy):
    """Everybody may pass."""

    def decide(self, request: HttpRequest) -> Steps[Decision]:
        return ALLOWED
        yield  # makes this a generator that asks for nothing


class DenyAll(Policy):
    """Nobody may pass."""

    def decide(self, request: HttpRequest) -> Steps[Decision]:
        return self.denial()
        yield  # makes this a generator that asks for nothing


class UserPolicy(Policy):
    """Base of the policies that ask about the user: anonymous visitors get a 401, others a 403."""

    def decide(self, request: HttpRequest) -> Steps[Decision]:
        user = yield from _user(request)
        if user.is_authenticated:
            return ALLOWED if (yield from self.decide_user(request, user)) else self.denial()
        return Deny(401)

    def decide_user(self, request: HttpRequest, user: Any) -> Steps[bool]:
        """Whether this authenticated user may pass."""
        raise NotImplementedError(f"{type(self).__name__} must define decide_user().")


class IsAuthenticated(UserPolicy):
    """The user is logged in."""

    def decide_user(self, request: HttpRequest, user: Any) -> Steps[bool]:
        return True
        yield  # makes this a generator that asks for nothing


class IsStaff(UserPolicy):
    """The user is an active member of staff (``is_staff``), as for Django's admin."""

    def decide_user(self, request: HttpRequest, user: Any) -> Steps[bool]:
        return bool(user.is_active and user.is_staff)
        yield  # makes this a generator that asks for nothing


class IsSuperuser(UserPolicy):
    """The user is an active superuser."""

    def decide_user(self, request: HttpRequest, user: Any) -> Steps[bool]:
        return bool(user.is_active and user.is_superuser)
        yield  # makes this a generator that asks for nothing


class InGroup(UserPolicy):
    """The user is active and in one of these groups (by name)."""

    def __init__(self, *names: str) -> None:
        if not names or not all(isinstance(name, str) and name for name in names):
            raise TypeError(f"InGroup() takes the names of one or more groups, found {names!r}.")
        self.names = names

    def decide_user(self, request: HttpRequest, user: Any) -> Steps[bool]:
        if not user.is_active:
            return False
        yield Step.BLOCKING
        return bool(user.groups.filter(name__in=self.names).exists())

    def __repr__(self) -> str:
        return f"InGroup({', '.join(map(repr, self.names))})"


class HasPermission(Policy):
    """The user has these permissions, asked of every backend in ``AUTHENTICATION_BACKENDS``.

    `permission` is ``"app.codename"`` or several. `obj` is a callable on the request, sync or async, that
    returns the object to ask about; it may raise `Http404`. Anonymous visitors get a 401 without
    anybody being asked, unless `anonymous` says to ask the backends about them too.
    """

    def __init__(
        self,
        permission: str | Iterable[str],
        *,
        obj: Callable[[HttpRequest], Any] | None = None,
        anonymous: bool = False,
    ) -> None:
        permissions = (permission,) if isinstance(permission, str) else tuple(permission)
        if not permissions or not all(isinstance(name, str) and name for name in permissions):
            raise TypeError(
                f'HasPermission() takes "app.codename" or several of them, found {permission!r}.'
            )
        if obj is not None and not callable(obj):
            raise TypeError(f"HasPermission(obj=...) takes a callable on the request, found {obj!r}.")
        self.permissions = permissions
        self.obj = obj
        self.anonymous = anonymous

    def decide(self, request: HttpRequest) -> Steps[Decision]:
        user = yield from _user(request)
        if not user.is_authenticated and not self.anonymous:
            return Deny(401)
        obj = None if self.obj is None else (yield from _resolve(self.obj, request))
        # Synchronous on purpose: `ahas_perms` skips backends that lack it, object-permission ones among them.
        yield Step.BLOCKING
        if user.has_perms(self.permissions, obj):
            return ALLOWED
        return self.denial() if user.is_authenticated else Deny(401)

    def __repr__(self) -> str:
        first = self.permissions[0] if len(self.permissions) == 1 else list(self.permissions)
        obj = f", obj={_name(self.obj)}" if self.obj is not None else ""
        return f"HasPermission({first!r}{obj}{', anonymous=True' if self.anonymous else ''})"


class UserPassesTest(Policy):
    """`test(user)` says yes, by Django's convention any true value; sync or async."""

    def __init__(self, test: Callable[[Any], Any]) -> None:
        if not callable(test):
            raise TypeError(f"UserPassesTest() takes a callable on the user, found {test!r}.")
        self.test = test

    def decide(self, request: HttpRequest) -> Steps[Decision]:
        user = yield from _user(request)
        if (yield from _call(self.test, user)):
            return ALLOWED
        return self.denial() if user.is_authenticated else Deny(401)

    def __repr__(self) -> str:
        return f"UserPassesTest({_name(self.test)})"


def _resolve(resolver: Callable[[HttpRequest], Any], request: HttpRequest) -> Steps[Any]:
    """The object that a policy is about, resolved once a request."""
    passage = passage_of(request)
    try:
        obj = passage.recall(resolver)
    except KeyError:
        obj = yield from _call(resolver, request)
        if obj is None:
            # has_perm(permission, None) would ask for the permission on everything.
            raise PolicyError(
                f"obj={_name(resolver)} returned None. Return the object, or raise Http404."
            ) from None
        passage.remember(resolver, obj)
    passage.obj = obj
    return obj


def _call(function: Callable[[Any], Any], argument: Any) -> Steps[Any]:
    """`function(argument)`, on the loop if it is a coroutine function, else where it may block."""
    if iscoroutinefunction(function):
        return (yield lambda: function(argument))
    yield Step.BLOCKING
    result = function(argument)
    if isinstance(result, Awaitable):
        return (yield lambda: result)
    return result


def _name(function: Callable[..., Any] | None) -> str:
    return getattr(function, "__name__", None) or repr(function)


def as_policy(value: object) -> Policy:
    """`value` as a policy: itself, or what its dotted path names (a class is made without arguments).

    Raises `ImproperlyConfigured` for anything else.
    """
    found = import_string(value) if isinstance(value, str) else value
    if isinstance(found, type) and issubclass(found, Policy) and isinstance(value, str):
        found = found()
    if not isinstance(found, Policy):
        raise ImproperlyConfigured(
            f"{value!r} is not a policy. Give an instance of channels_wsdeny.policies.Policy, such as "
            "IsAuthenticated()."
        )
    return found


def default_policy() -> Policy:
    """The site's ``DEFAULT_POLICY``."""
    value = conf.DEFAULT_POLICY
    return _policy_at(value) if isinstance(value, str) else as_policy(value)


_policy_at = lru_cache(maxsize=None)(as_policy)
