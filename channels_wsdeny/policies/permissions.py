"""The policies of the package, which ask for users, groups and permissions; and the default policy of the site."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import NoneType
from typing import TYPE_CHECKING, Any, Never

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http.response import HttpResponseBase
from django.utils.module_loading import import_string

from ..concurrency import call_sync
from ..conf import conf
from ..exceptions import Deny, PolicyError
from ..http.context import get_context
from ..http.origins import is_pattern, matches
from ..http.request import known_user, loaded_user, run_in_thread
from .base import Answer, Policy, PolicyDenial, acheck_from, exact, giver_of, refuse_colour, refuse_second

if TYPE_CHECKING:
    from ..types import HttpRequest


class AllowAny(Policy):
    """Allows every request."""

    needs_user = False

    def check(self, request: HttpRequest) -> Answer:
        return True

    def blocks(self, request: HttpRequest) -> bool:
        return False

    def anonymous_denial(self) -> Deny | bool | None:
        return True


class DenyAll(Policy):
    """Denies every request, with a 403."""

    def check(self, request: HttpRequest) -> Answer:
        return False

    def blocks(self, request: HttpRequest) -> bool:
        return False

    def anonymous_denial(self) -> Deny | bool | None:
        denial = self.denial()
        return denial if isinstance(denial, Deny) else None


class AllowedOrigin(Policy):
    """The handshake comes from a page of one of these origins, such as ``"https://*.example.com"``.

    A request without ``Origin`` is denied: clients other than browsers send none. See ``ORIGINS`` for what holds for
    all endpoints.
    """

    code = "origin_not_allowed"
    needs_user = False
    _arguments = frozenset({"origins"})

    def __init__(self, *origins: str) -> None:
        if not origins or not all(isinstance(each, str) and "://" in each and is_pattern(each) for each in origins):
            raise TypeError(f"AllowedOrigin() takes origins such as 'https://example.com', found {origins!r}.")
        self.origins = origins

    def check(self, request: HttpRequest) -> Answer:
        return matches(request, self.origins)

    def blocks(self, request: HttpRequest) -> bool:
        return False

    def __repr__(self) -> str:
        return f"AllowedOrigin({', '.join(map(repr, self.origins))})"


class UserPolicy(Policy):
    """Base of the policies that look at the user alone: an anonymous user gets a 401, others a 403."""

    #: Whether `allows` does I/O.
    blocking = False

    @classmethod
    def _complete_subclass(cls) -> None:
        super()._complete_subclass()
        refuse_colour(cls, "allows", is_async=True)
        checker = giver_of(cls, "check", "acheck")
        allows = refuse_second(cls, "allows")
        # That check() may ask allows() itself, but nothing tells.
        if checker is not UserPolicy and cls.__mro__.index(allows) <= cls.__mro__.index(checker):
            raise TypeError(
                f"{cls.__qualname__}.allows() would be ignored: {checker.__qualname__}.check() or acheck() is asked in "
                "its place. Override that."
            )

    def check(self, request: HttpRequest) -> Answer:
        user = request.user
        if not exact(self, user.is_authenticated, "asked is_authenticated, which returned"):
            return PolicyDenial(401)
        return exact(self, self.allows(user), "has an allows() that returned")

    def allows(self, user: Any) -> bool:
        """Whether this user, who is logged in, is allowed: True or False."""
        raise NotImplementedError(f"{type(self).__name__} must define allows().")

    def blocks(self, request: HttpRequest) -> bool:
        user = known_user(request)
        return user is None or (self.blocking and user.is_authenticated)

    def anonymous_denial(self) -> Deny | bool | None:
        return _UNAUTHENTICATED


class IsAuthenticated(UserPolicy):
    """The user is logged in."""

    def allows(self, user: Any) -> bool:
        return True


class IsStaff(UserPolicy):
    """The user is an active member of staff (``is_staff``), as for Django's admin."""

    def allows(self, user: Any) -> bool:
        allowed: bool = user.is_active and user.is_staff
        return allowed


class IsSuperuser(UserPolicy):
    """The user is an active superuser."""

    def allows(self, user: Any) -> bool:
        allowed: bool = user.is_active and user.is_superuser
        return allowed


class InGroup(UserPolicy):
    """The user is active and in one of these groups (by name)."""

    blocking = True
    _arguments = frozenset({"names"})

    def __init__(self, *names: str) -> None:
        if not names or not all(isinstance(name, str) and name for name in names):
            given: Any = names[0] if len(names) == 1 else None
            remedy = f" Write InGroup({', '.join(map(repr, given))})." if isinstance(given, (list, tuple, set)) else ""
            raise TypeError(f"InGroup() takes the names of one or more groups, found {names!r}.{remedy}")
        self.names = names

    def allows(self, user: Any) -> bool:
        allowed: bool = user.is_active and user.groups.filter(name__in=self.names).exists()
        return allowed

    def __repr__(self) -> str:
        return f"InGroup({', '.join(map(repr, self.names))})"


class HasPermission(Policy):
    """The user has these permissions, asked of every backend in ``AUTHENTICATION_BACKENDS``.

    `permission` is ``"app.codename"`` or several. `obj` is a callable on the request, sync or async, that
    returns the object to ask about; it may raise `Http404`. An anonymous user gets a 401 without the backends
    being asked, unless `anonymous` says to ask them about anonymous users too.
    """

    _arguments = frozenset({"permissions", "obj", "anonymous"})

    def __init__(
        self,
        permission: str | Iterable[str],
        *others: Never,
        obj: Callable[[HttpRequest], Any] | None = None,
        anonymous: bool = False,
    ) -> None:
        several = isinstance(permission, Iterable) and not isinstance(permission, (str, type))
        permissions: tuple[Any, ...] = tuple(permission) if several else (permission,)
        if others or not permissions or not all(isinstance(name, str) and name for name in permissions):
            found: Any = (permission, *others) if others else permission
            raise TypeError(
                'Write HasPermission("app.codename") or @permission_required("app.codename"), or several of them in a '
                f"list, and obj=function for the object to ask about; found {found!r}."
            )
        check_resolver("HasPermission", obj)
        self.permissions: tuple[str, ...] = permissions
        self.obj = obj
        self.anonymous = anonymous

    def check(self, request: HttpRequest) -> Answer:
        if not (request.user.is_authenticated or self.anonymous):
            return PolicyDenial(401)
        if self.obj is None:
            return self._ask_backends(request, None)
        obj = get_context(request).recall(self.obj)
        if obj is None:
            obj = call_sync(self.obj, request)
        return self._ask_backends(request, obj)

    async def acheck(self, request: HttpRequest) -> Answer:
        if not iscoroutinefunction(self.obj):
            return await acheck_from(HasPermission, self, request)
        user = await loaded_user(request)
        if not (user.is_authenticated or self.anonymous):
            return PolicyDenial(401)
        obj = get_context(request).recall(self.obj)
        if obj is None:
            obj = await self.obj(request)
        return await run_in_thread(request, lambda: self._ask_backends(request, obj))

    def needs_loop(self) -> bool:
        return iscoroutinefunction(self.obj)

    def blocks(self, request: HttpRequest) -> bool:
        user = known_user(request)
        return user is None or user.is_authenticated or self.anonymous

    def anonymous_denial(self) -> Deny | bool | None:
        return None if self.anonymous else _UNAUTHENTICATED

    def _ask_backends(self, request: HttpRequest, obj: Any) -> Answer:
        if self.obj is not None:
            keep_object(request, self.obj, obj)
        _refuse_async_backends(tuple(settings.AUTHENTICATION_BACKENDS))
        # The synchronous method: Django's `ahas_perm` skips backends that do not have it, which those for object
        # permissions seldom do.
        user: Any = request.user
        for permission in self.permissions:
            if not exact(self, user.has_perm(permission, obj), f"asked has_perm({permission!r}), which returned"):
                return False if user.is_authenticated else PolicyDenial(401)
        if self.obj is not None:
            get_context(request).obj = obj
        return True

    def __repr__(self) -> str:
        first = self.permissions[0] if len(self.permissions) == 1 else list(self.permissions)
        obj = f", obj={_name(self.obj)}" if self.obj is not None else ""
        return f"HasPermission({first!r}{obj}{', anonymous=True' if self.anonymous else ''})"


@lru_cache(maxsize=32)
def _refuse_async_backends(paths: tuple[str, ...]) -> None:
    """Raise `PolicyError` for a backend whose ``has_perm`` is a coroutine function: Django takes that for a yes."""
    for path in paths:
        if iscoroutinefunction(getattr(import_string(path), "has_perm", None)):
            raise PolicyError(
                f"{path}.has_perm() is a coroutine function, which Django does not await: it would allow every user. "
                "Write it as a plain function, and ahas_perm() as a coroutine function if you need that, too."
            )


class UserPassesTest(Policy):
    """`test(user)` returns True; sync or async."""

    _arguments = frozenset({"test"})

    def __init__(self, test: Callable[[Any], Any]) -> None:
        if isinstance(test, type) or not callable(test):
            raise TypeError(f"UserPassesTest() takes a function on the user, found {test!r}.")
        self.test = test

    def check(self, request: HttpRequest) -> Answer:
        return self._answer(request.user, call_sync(self.test, request.user))

    async def acheck(self, request: HttpRequest) -> Answer:
        if not iscoroutinefunction(self.test):
            return await acheck_from(UserPassesTest, self, request)
        user = await loaded_user(request)
        return self._answer(user, await self.test(user))

    def needs_loop(self) -> bool:
        return iscoroutinefunction(self.test)

    def _answer(self, user: Any, answer: object) -> Answer:
        if exact(self, answer, "has a test that returned"):
            return True
        return False if user.is_authenticated else PolicyDenial(401)

    def __repr__(self) -> str:
        return f"UserPassesTest({_name(self.test)})"


_UNAUTHENTICATED = Deny(401)


def check_resolver(policy: str, obj: Any) -> None:
    """Raise `TypeError` for an `obj` that is no function: a model would be made with the request as its pk."""
    if obj is not None and (isinstance(obj, type) or not callable(obj)):
        raise TypeError(f"{policy}(obj=...) takes a function that returns the object for a request, found {obj!r}.")


def keep_object(request: HttpRequest, resolver: Any, obj: object) -> None:
    """Remember what an ``obj`` resolver returned for `request`.

    Raises `PolicyError` for what no permission can be asked about: to ask about None is to ask about everything, and a
    denial is to be raised.
    """
    # By its class, which a lazy object has of what it stands for.
    if isinstance(obj, (NoneType, Deny, HttpResponseBase)) or inspect.isawaitable(obj):
        found = "None" if isinstance(obj, NoneType) else f"a {type(obj).__name__}"
        raise PolicyError(f"obj={_name(resolver)} returned {found}. Return the object, or raise Http404.")
    context = get_context(request)
    if context.recall(resolver) is None:
        context.remember(resolver, obj)


def _name(function: Callable[..., Any]) -> str:
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
    if not found._given:
        raise ImproperlyConfigured(f"{value!r} is a policy without a check() or acheck(): it could answer nothing.")
    return found


def default_policy() -> Policy:
    """The site's ``DEFAULT_POLICY``; one that cannot be used denies every request with a 500."""
    value = conf.DEFAULT_POLICY
    try:
        return _policy_at(value) if isinstance(value, str) else as_policy(value)
    except Exception as error:  # importing a module of the site can raise anything
        return _UnusablePolicy(error)


class _UnusablePolicy(Policy):
    """Stands for a policy that cannot be used, and raises the reason."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def check(self, request: HttpRequest) -> Answer:
        raise ImproperlyConfigured("CHANNELS_WSDENY['DEFAULT_POLICY'] cannot be used.") from self.error

    def blocks(self, request: HttpRequest) -> bool:
        return False


_policy_at = lru_cache(maxsize=None)(as_policy)
