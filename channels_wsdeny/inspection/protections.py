"""Locks: what stands before an endpoint, in words, and where it comes from.

Besides this package's policies there are Django's own guards of views, as far as they show: decorators leave
attributes on the view, classes have their bases.
"""

from __future__ import annotations

import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from ..conf import conf, is_mirrored
from ..handlers.view import guards_of_view
from ..http.context import expression_of
from ..installed import LOGIN_REQUIRED, place_of
from ..policies.builtin import AllowAny, default_policy
from ..routing.guards import NO_GUARDS, Guards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from ..policies.builtin import Policy
    from .endpoints import Way

#: This package's decorators, a stack's ``default_policy``, the site's ``DEFAULT_POLICY``; and what others do.
Source: TypeAlias = Literal["decorator", "stack", "default", "django", "admin", "rest_framework"]


#: Decorators on a view that are looked under; past them it is something that goes round in a circle.
_MOST_DECORATORS = 50
_ADMIN = "django.contrib.admin.sites"


class Lock(NamedTuple):
    """One thing that stands before an endpoint."""

    expression: str
    source: Source
    #: Whether it lets everybody in, which is a decision as well.
    is_public: bool = False


def locks_on_way(way: Way) -> tuple[Lock, ...]:
    """What stands on `way`, before the view if it leads to Django."""
    locks = _of_policies(way.guards.policies, "decorator")
    if way.protocol == "websocket":
        has_default = bool(way.layers)
    else:
        has_default = conf.MIRROR_DEFAULT_POLICY and way.has_stack and not way.is_django
    return locks + _default(way, bool(locks)) if has_default else locks


def locks_on_view(view: Callable[..., Any], way: Way | None) -> tuple[Lock, ...]:
    """What stands before `view` itself; `way` leads to Django's handler, if there is one."""
    locks = _of_policies(guards_on(view).policies, "decorator")
    if conf.MIRROR_DEFAULT_POLICY and is_mirrored() and not _is_exempt(view):
        locks += _default(way, bool(locks))
    locks = (*locks, *_of_django(view), *_of_rest_framework(view))
    return locks or _of_nobody(view)


def guards_on(view: Callable[..., Any]) -> Guards:
    """All guards that `view` carries, each once, also under other decorators, from the outside in."""
    found = NO_GUARDS
    for _ in range(_MOST_DECORATORS):
        found = found.around(guards_of_view(view) or NO_GUARDS)
        view = getattr(view, "__wrapped__", None)  # type: ignore[assignment]
    # By identity, as decorators on one another know of the inner ones already.
    policies = {id(policy): policy for policy in found.policies}
    return Guards(tuple(policies.values()), tuple({id(hooks): hooks for hooks in found.hooks}.values()))


def _of_policies(policies: tuple[Policy, ...], source: Source) -> tuple[Lock, ...]:
    return tuple(
        Lock(str(expression_of(policy)), source, isinstance(policy, AllowAny)) for policy in policies
    )


def _default(way: Way | None, is_locked: bool) -> tuple[Lock, ...]:
    policy = way.default_policy if way is not None else None
    if policy is not None:
        return _of_policies((policy,), "stack")
    return () if is_locked else _of_policies((default_policy(),), "default")


def _is_exempt(view: Callable[..., Any]) -> bool:
    """Whether `view` carries Django's `login_not_required`."""
    return getattr(view, "login_required", True) is False


def _of_django(view: Callable[..., Any]) -> Iterator[Lock]:
    # Classes by the names of their modules: importing these needs django.contrib.auth installed.
    for base in _class_of(view).__mro__:
        if base.__module__ == "django.contrib.auth.mixins" and base.__name__ != "AccessMixin":
            yield Lock(base.__name__, "django")
    if _is_of_admin(view):
        yield Lock("AdminSite.has_permission", "admin")
    elif hasattr(view, "login_url") and hasattr(view, "redirect_field_name"):
        # What login_required, permission_required and staff_member_required are made of.
        yield Lock("user_passes_test", "django")
    if place_of(LOGIN_REQUIRED) is not None and not _is_exempt(view):
        yield Lock("LoginRequiredMiddleware", "django")


def _is_of_admin(view: Callable[..., Any]) -> bool:
    """Whether `view` is an admin site's own, or, under other decorators, what `admin_view` made."""
    admin = sys.modules.get(_ADMIN)  # Whoever has such a view has imported it.
    if admin is None:
        return False
    site = getattr(view, "admin_site", None) or getattr(
        getattr(view, "model_admin", None), "admin_site", None
    )
    return isinstance(site, admin.AdminSite) or _is_made_by_admin(view, admin)


def _is_made_by_admin(view: Callable[..., Any], admin: ModuleType) -> bool:
    seen: dict[int, Any] = {}
    waiting: list[Any] = [view]
    while waiting and len(seen) < _MOST_DECORATORS:
        function = waiting.pop()
        if id(function) in seen:
            continue
        seen[id(function)] = function
        if isinstance(function, FunctionType):
            # A name can be copied; the code cannot, nor the module that its globals are of.
            is_inner = function.__code__.co_qualname == "AdminSite.admin_view.<locals>.inner"
            if is_inner and function.__globals__ is vars(admin):
                return True
            waiting += _closed_over(function)
        if hasattr(function, "__wrapped__"):
            waiting.append(function.__wrapped__)
    return False


def _closed_over(function: FunctionType) -> Iterator[FunctionType]:
    """The functions that one of Django's decorators keeps, the view among them.

    `admin_view` has the outermost one say that it wraps the view itself, and passes over what is between.
    """
    if str(function.__globals__.get("__name__")).startswith("django."):
        for cell in function.__closure__ or ():
            try:
                kept = cell.cell_contents
            except ValueError:  # It is empty.
                continue
            if isinstance(kept, FunctionType):
                yield kept


def _of_nobody(view: Callable[..., Any]) -> tuple[Lock, ...]:
    """What says that nothing needs to stand before `view`, if anything does."""
    # REST framework says so of all its views, for it asks its own permissions.
    if not _is_exempt(view) or _api_view(view) is not None:
        return ()
    return (Lock("login_not_required", "django", is_public=True),)


def _of_rest_framework(view: Callable[..., Any]) -> Iterator[Lock]:
    api_view = _api_view(view)
    if api_view is None:
        return
    chosen: Any = _class_of(view)
    for permission in chosen.permission_classes:
        name = getattr(permission, "__name__", None) or repr(permission)
        if name != "AllowAny" or chosen.permission_classes is not api_view.permission_classes:
            yield Lock(name, "rest_framework", name == "AllowAny")


def _api_view(view: Callable[..., Any]) -> Any:
    """Django REST framework's own base of `view`; None if it is none of its views."""
    return next((base for base in _class_of(view).__mro__ if base.__module__ == "rest_framework.views"), None)


def _class_of(view: Callable[..., Any]) -> type[Any]:
    cls = getattr(view, "cls", None) or getattr(view, "view_class", None)
    return cls if isinstance(cls, type) else object
