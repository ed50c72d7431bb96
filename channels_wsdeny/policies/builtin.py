"""The policies that come with the package, and the site's default one."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ..conf import conf
from ..decisions import ALLOWED, Decision, Step, Steps
from ..exceptions import Deny, PolicyError
from ..http.context import passage_of
from .base import Policy, user_of

if TYPE_CHECKING:
    from django.http import HttpRequest

__all__ = [
    "AllowAny",
    "DenyAll",
    "HasPermission",
    "InGroup",
    "IsAuthenticated",
    "IsStaff",
    "IsSuperuser",
    "Policy",
    "UserPassesTest",
    "UserPolicy",
]


class AllowAny(Policy):
    """Everybody may pass."""

    def decide(self, request: HttpRequest) -> Steps[Decision]:
        yield from ()
        return ALLOWED


class DenyAll(Policy):
    """Nobody may pass."""

    def decide(self, request: HttpRequest) -> Steps[Decision]:
        yield from ()
        return self.denial()


class UserPolicy(Policy):
    """Base of the policies that look at the user alone: anonymous visitors get a 401, others a 403."""

    #: Whether `allows` does I/O.
    blocking = False

    def decide(self, request: HttpRequest) -> Steps[Decision]:
        user = yield from user_of(request)
        if not user.is_authenticated:
            return Deny(401)
        if self.blocking:
            yield Step.BLOCKING
        return ALLOWED if self.allows(user) else self.denial()

    def allows(self, user: Any) -> bool:
        """Whether this user, who is logged in, may pass."""
        raise NotImplementedError(f"{type(self).__name__} must define allows().")


class IsAuthenticated(UserPolicy):
    """The user is logged in."""

    def allows(self, user: Any) -> bool:
        return True


class IsStaff(UserPolicy):
    """The user is an active member of staff (``is_staff``), as for Django's admin."""

    def allows(self, user: Any) -> bool:
        return bool(user.is_active and user.is_staff)


class IsSuperuser(UserPolicy):
    """The user is an active superuser."""

    def allows(self, user: Any) -> bool:
        return bool(user.is_active and user.is_superuser)


class InGroup(UserPolicy):
    """The user is active and in one of these groups (by name)."""

    blocking = True

    def __init__(self, *names: str) -> None:
        if not names or not all(isinstance(name, str) and name for name in names):
            raise TypeError(f"InGroup() takes the names of one or more groups, found {names!r}.")
        self.names = names

    def allows(self, user: Any) -> bool:
        return bool(user.is_active and user.groups.filter(name__in=self.names).exists())

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
        several = isinstance(permission, Iterable) and not isinstance(permission, (str, type))
        permissions = tuple(permission) if several else (permission,)
        if not permissions or not all(isinstance(name, str) and name for name in permissions):
            raise TypeError(f'A permission is "app.codename", or several of them; found {permission!r}.')
        if obj is not None and not callable(obj):
            raise TypeError(f"HasPermission(obj=...) takes a callable on the request, found {obj!r}.")
        self.permissions = permissions
        self.obj = obj
        self.anonymous = anonymous

    def decide(self, request: HttpRequest) -> Steps[Decision]:
        user = yield from user_of(request)
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
        user = yield from user_of(request)
        if (yield from _call(self.test, user)):
            return ALLOWED
        return self.denial() if user.is_authenticated else Deny(401)

    def __repr__(self) -> str:
        return f"UserPassesTest({_name(self.test)})"


_LOG_IN = Deny(401)
#: What policies answer to nobody, whatever else the request says, by the function that they decide with: a
#: subclass that decides otherwise is not among them. None if it depends.
_TO_NOBODY: dict[Any, Callable[[Any], Decision | None]] = {
    AllowAny.decide: lambda policy: ALLOWED,
    DenyAll.decide: lambda policy: policy.denial(),
    UserPolicy.decide: lambda policy: _LOG_IN,
    HasPermission.decide: lambda policy: None if policy.anonymous else _LOG_IN,
}


def answer_to_nobody(policies: tuple[Policy, ...]) -> tuple[Policy, Deny] | None:
    """The policy that denies a visitor who has no session, and its denial; None if that depends."""
    for policy in policies:
        answer = _TO_NOBODY.get(type(policy).decide, _depends)(policy)
        if answer is not ALLOWED:
            return (policy, answer) if isinstance(answer, Deny) else None
    return None


def _depends(policy: Policy) -> None:
    return None


def _resolve(resolver: Callable[[HttpRequest], Any], request: HttpRequest) -> Steps[Any]:
    """The object that a policy is about, resolved once a request."""
    passage = passage_of(request)
    obj = passage.recall(resolver)
    if obj is None:
        obj = yield from _call(resolver, request)
        if obj is None:
            # has_perm(permission, None) would ask for the permission on everything.
            raise PolicyError(f"obj={_name(resolver)} returned None. Return the object, or raise Http404.")
        passage.remember(resolver, obj)
    passage.obj = obj
    return obj


def _call(function: Callable[[Any], Any], argument: Any) -> Steps[Any]:
    """`function(argument)`, on the loop if it is a coroutine function, else where it may block."""
    if iscoroutinefunction(function):
        return (yield lambda: function(argument))
    yield Step.BLOCKING
    result = function(argument)
    if not isinstance(result, Awaitable):
        return result
    try:
        return (yield lambda: result)
    finally:
        if inspect.iscoroutine(result):
            result.close()  # Nobody awaits it if the decision was given up meanwhile.


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
    """The site's ``DEFAULT_POLICY``; one that cannot be used denies everybody with a 500."""
    value = conf.DEFAULT_POLICY
    try:
        return _policy_at(value) if isinstance(value, str) else as_policy(value)
    except Exception as error:  # noqa: BLE001 - importing a site's module can raise anything
        return _Unusable(error)


class _Unusable(Policy):
    """Stands for a policy that could not be made, and raises why."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def decide(self, request: HttpRequest) -> Steps[Decision]:
        yield from ()
        raise ImproperlyConfigured("CHANNELS_WSDENY['DEFAULT_POLICY'] cannot be used.") from self.error


_policy_at = lru_cache(maxsize=None)(as_policy)
