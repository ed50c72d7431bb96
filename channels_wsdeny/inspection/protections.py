"""What protects an endpoint, in words, and where that comes from.

Besides the policies of this package these are Django's own decorators and mixins, the permission that the
admin asks for, and the permission classes of REST framework. Where it is unknown whether one is asked, as
behind a decorator of the site, its effect is unknown.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import partial, reduce
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from django.conf import settings
from django.utils.module_loading import import_string

from ..conf import LOGIN_REQUIRED_MIDDLEWARE, conf, is_mirrored, middleware_index
from ..handlers.view import guards_of_view
from ..http.context import expression_of
from ..policies.base import And, Not, Or, Policy
from ..policies.permissions import AllowAny, DenyAll, default_policy
from ..policies.throttling import MaxConnections, Throttle
from ..routing.guards import ASGIMiddleware, Guards, is_bound
from ..routing.resolver import is_known, leads_to_django

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .endpoints import AsgiEndpoint

#: A decorator of this package, the ``default_policy`` of a stack, the site's ``DEFAULT_POLICY``; or others.
Source: TypeAlias = Literal["decorator", "stack", "default", "django", "admin", "rest_framework"]
#: It denies some requests; it allows every request, because a decorator says so or only by default; or that is unknown.
Effect: TypeAlias = Literal["denies", "public", "allows", "unknown"]

#: Policies that keep no user out, though perhaps for a while.
_OPEN = (AllowAny, Throttle, MaxConnections)
#: Policies whose answer is known, or follows from that of others.
_KNOWN = (*_OPEN, DenyAll, Not, And, Or)
#: Decorators on a view that are looked under; more of them wrap one another in a circle.
_MAX_DECORATORS = 50
#: Where functions are written that are known to call what they wrap, and what they call that.
_PACKAGES = ("django.", "rest_framework.", "contextlib")
_NAMES_OF_WRAPPED = ("view_func", "viewfunc", "func", "view")
#: Where the functions that ``as_view()`` returns are written.
_MODULES_OF_AS_VIEW = ("django.views.generic.base", "rest_framework.viewsets")
#: The methods of REST framework's views that lead to their permissions.
_API_METHODS = ("dispatch", "initial", "check_permissions", "get_permissions", "permission_denied")
#: The operators of its permission classes, by the names of their classes.
_API_OPERATORS = {"AND": And, "OR": Or, "NOT": Not}
#: The methods of Django's mixins that decide. `UserPassesTestMixin.test_func` is the site's by design, as a policy is.
_MIXIN_METHODS = ("has_permission", "get_permission_required", "get_test_func", "handle_no_permission")
#: The methods of `LoginRequiredMiddleware` that decide.
_MIDDLEWARE_METHODS = ("process_view", "handle_no_permission")
#: The functions around an admin's views, which call `AdminSite.admin_view` at each request; and its result.
_ADMIN_WRAPPERS = [f"{name}.get_urls.<locals>.wrap.<locals>.wrapper" for name in ("AdminSite", "ModelAdmin")]
_ADMIN_VIEW = "AdminSite.admin_view.<locals>.inner"


class Protection(NamedTuple):
    """One thing that is asked before an endpoint."""

    expression: str
    source: Source
    effect: Effect = "denies"


def protections_of_endpoint(endpoint: AsgiEndpoint) -> tuple[Protection, ...]:
    """What is asked on the way to `endpoint`; of Django's handler, what is asked before any view."""
    found = _found_on_way(endpoint)
    for number, app in enumerate(endpoint.apps[:-1], start=1):
        if not is_known(app):
            # It may answer by itself or call something else, so what is inside is certain to be asked only
            # where a default policy outside stands in for it.
            # A stack that is called in a way of its own may not even ask what it was given.
            here = None if isinstance(app, ASGIMiddleware) else app
            outside = _found_on_way(replace(endpoint, apps=(*endpoint.apps[: number - 1], here)))
            if all(each.effect != "denies" for each in outside):
                found = tuple(each._replace(effect="unknown") if each.effect == "denies" else each for each in found)
            break
    return found


def _found_on_way(endpoint: AsgiEndpoint) -> tuple[Protection, ...]:
    """As `protections_of_endpoint`, if every application on the way calls the next one."""
    cls, match = endpoint.consumer_class, endpoint.match
    # A stack asks the policies of a class; without one they are asked by the class, if it was bound to them.
    is_certain = bool(endpoint.layers) or cls is None or is_bound(cls)
    found = [_of_policy(policy, "decorator", is_certain) for policy in match.guards.policies]
    has_default = match.owes_default
    if endpoint.protocol == "http":
        has_default = has_default and conf.MIRROR_DEFAULT_POLICY and not leads_to_django(endpoint.app)
    if has_default and (match.default_policy is not None or match.owes_site_default or not found):
        found.append(_of_default(match.default_policy))
    return tuple(found)


def protections_of_view(view: Callable[..., Any], django: AsgiEndpoint) -> tuple[Protection, ...]:
    """What is asked before `view` itself, on the way to it by this handler of Django."""
    needs_no_login = getattr(view, "login_required", True) is False  # Django's `login_not_required`
    has_default = conf.MIRROR_DEFAULT_POLICY and is_mirrored() and not needs_no_login
    # Policies on a view whose decorators did not call it are then asked afterwards, those on `dispatch()` not.
    seen = _seen_by_mirror(view) if has_default else []
    called = list(_called(view))
    found = [
        asked
        for layer, is_certain in called
        for asked in _asked_by(layer, is_certain, any(layer is each for each in seen))
    ]
    # Nested decorators know one another's policies, and the admin asks twice; the outermost is most certain.
    unique = {asked[:2]: asked for asked in reversed(found)}
    found = [*reversed(unique.values())]
    if has_default and not is_guarded_for_mirror(view):
        # It asks that of the nearest stack, whatever guards there are around Django.
        found = [_of_default(django.match.stack_default), *found]
    # The middleware leaves out a view whose attribute is merely false, too, as is that of `public`.
    index = middleware_index(LOGIN_REQUIRED_MIDDLEWARE)
    if index is not None and getattr(view, "login_required", True):
        is_djangos = _are_written_in("django.", import_string(settings.MIDDLEWARE[index]), {}, _MIDDLEWARE_METHODS)
        found.append(Protection("LoginRequiredMiddleware", "django", "denies" if is_djangos else "unknown"))
    # REST framework puts `login_not_required` on all its views, for they ask permissions of their own.
    if not found and needs_no_login and all(_api_view(layer) is None for layer, _ in called):
        found = [Protection("login_not_required", "django", "public")]
    return tuple(found)


def is_guarded_for_mirror(view: Callable[..., Any]) -> bool:
    """Whether `MirrorMiddleware` sees policies of `view` itself, and so does not ask the default policy."""
    return any((guards_of_view(each) or Guards()).policies for each in _seen_by_mirror(view))


def _seen_by_mirror(view: Any) -> list[Any]:
    """`view`, and what decorators name as what they wrap."""
    seen = [view]
    while len(seen) < _MAX_DECORATORS and (view := getattr(view, "__wrapped__", None)) is not None:
        seen.append(view)
    return seen


def guards_on(view: Callable[..., Any]) -> Guards:
    """The guards on `view` and on what its decorators wrap, each once, from the outermost."""
    found = [guards_of_view(layer) or Guards() for layer, _ in _called(view)]
    return reduce(Guards.around, found, Guards()).once()


def asked_around(view: Any) -> list[str]:
    """What `view`, which ``as_view()`` or ``@api_view`` made, asks beside REST framework's ``initial()``.

    That may stand above or below ``@api_view``. What is around a method of a class is not seen, but for ``dispatch()``.
    """
    methods = [vars(view.cls).get(name) for name in view.cls.http_method_names]  # ``@api_view`` makes them all the same
    layers = [*_called(view), *_called(next(filter(None, methods), None))]
    found = [asked for layer, is_certain in layers for asked in _asked_by(layer, is_certain, False)]
    asked = dict.fromkeys(each.expression for each in found if each.source != "rest_framework")
    return [expression for expression in asked if expression != repr(AllowAny())]


def remarks_on(view: Callable[..., Any]) -> dict[str, str]:
    """What is asked before `view` and a dry run cannot ask, or asks though the real view may not; each with why."""
    found = {}
    for layer, is_certain in _called(view):
        for asked in _asked_by(layer, is_certain, is_asked_afterwards=False):
            if asked.source != "decorator" and asked.effect != "public":
                found[asked.expression] = "not run: it may deny, or redirect to a log-in page"
            elif not is_certain:
                found[asked.expression] = "asked below, though a decorator around it may answer without it"
    return found


def _of_policy(policy: Policy, source: Source, is_certain: bool = True) -> Protection:
    effect: Effect = "unknown"
    if not is_certain:
        pass
    elif all(type(each) in _OPEN for each in (policy.policies if type(policy) is And else [policy])):
        # Only a decorator says that this endpoint is meant for everybody.
        effect = "public" if source == "decorator" else "allows"
    elif isinstance(policy, DenyAll) or any(_allows(policy, others) is False for others in (False, True)):
        effect = "denies"
    return Protection(str(expression_of(policy)), source, effect)


def _allows(policy: Policy, others: bool) -> bool | None:
    """Whether `policy` allows if all in it but `DenyAll` and those of `_OPEN` answer `others`; None if unknown.

    A policy denies some requests if it denies where all in it say no, as to an anonymous user, or where all say yes,
    as to a superuser: ``IsStaff() | ~IsStaff()`` denies neither.
    """
    kind = type(policy)
    if isinstance(policy, _KNOWN) and kind not in _KNOWN:
        return None  # A subclass may answer otherwise than its base, or for every request the same.
    if kind in {*_OPEN, DenyAll}:
        return kind is not DenyAll
    if isinstance(policy, Not):
        answer = _allows(policy.policies[0], others)
        return None if answer is None else not answer
    if isinstance(policy, (And, Or)):
        decisive = kind is Or
        answers = {_allows(each, others) for each in policy.policies}
        return decisive if decisive in answers else None if None in answers else not decisive
    return True if policy.allows_all else others


def _of_default(given: Policy | None) -> Protection:
    """The default policy that a stack has been `given`, or else that of the site."""
    return _of_policy(default_policy(), "default") if given is None else _of_policy(given, "stack")


def _called(view: Any, is_certain: bool = True) -> Iterator[tuple[Any, bool]]:
    """`view`, what its decorators wrap, and mixins of its class; each with whether it is certainly called.

    `functools.wraps` tells what is wrapped, not that it is called. Guards and routes of this package call it,
    and decorators in `_PACKAGES`, but for those that put a cache or a middleware of the site before it.
    """
    for _ in range(_MAX_DECORATORS):
        yield view, is_certain
        if isinstance(view, partial):
            view = view.func
            continue
        cells = _cells(view)
        wrapped = next((cells[name] for name in _NAMES_OF_WRAPPED if callable(cells.get(name))), None)
        if isinstance(cells.get("cls"), type) and module_of(view) in _MODULES_OF_AS_VIEW:
            yield from _called_by_dispatch(cells["cls"], cells["initkwargs"], is_certain)
            return
        if wrapped is not None:
            if view.__code__.co_qualname in _ADMIN_WRAPPERS:
                wrapped = getattr(cells["self"], "admin_site", cells["self"]).admin_view(wrapped)
            first = _cells(cells.get("_pre_process_request"))
            if "middleware" in first:  # It is made by `decorator_from_middleware`.
                is_certain &= bool(re.match(r"django\.(?!middleware\.cache)", type(first["middleware"]).__module__))
            elif "etag_func" in first:  # It is made by `condition`, which may answer 304 or 412 without the view.
                is_certain = False
            view = wrapped
        elif hasattr(view, "__wrapped__"):
            is_certain &= guards_of_view(view) is not None or _is_route_of_package(view)
            view = view.__wrapped__
        else:
            return


def _is_route_of_package(view: Any) -> bool:
    """Whether `view` is a route, and no method of the site is between it and the view that it calls."""
    methods = [getattr(type(view), name, None) for name in ("__call__", "get_route_handler")]
    return all(module_of(method) == "channels_wsdeny.routes" for method in methods)


def _called_by_dispatch(cls: type, initkwargs: Mapping[str, Any], is_certain: bool) -> Iterator[tuple[Any, bool]]:
    """The decorators of ``dispatch()``, and Django's mixins whose ``dispatch()`` is reached by `super()`."""
    is_certain &= "dispatch" not in initkwargs  # Django calls that in its place.
    bases = [base for base in cls.__mro__ if "dispatch" in vars(base)]
    for base, following in zip(bases, [*bases[1:], object], strict=True):
        method = vars(base)["dispatch"]
        while module_of(method) == "django.utils.decorators":  # It is made by `method_decorator`.
            cells = _cells(method)
            decorated = reduce(lambda view, wrap: wrap(view), cells["decorators"], lambda request: None)
            called = list(_called(decorated, is_certain))
            yield from called
            is_certain, method = called[-1][1], cells["method"]
            if method is vars(following).get("dispatch"):
                break
        else:
            if base.__module__ == "django.contrib.auth.mixins":
                # Methods of the site in their place may allow, or answer, what Django's deny.
                names = [name for name in _MIXIN_METHODS if hasattr(base, name)]
                is_certain &= _are_written_in(base.__module__, cls, initkwargs, names)
                permissions = initkwargs.get("permission_required", getattr(cls, "permission_required", None))
                if not hasattr(base, "permission_required") or not _is_nothing(permissions):
                    yield base, is_certain
            elif module_of(method).startswith(("django.views.", "rest_framework.")):
                return  # It calls no other.
            else:
                is_certain = False


def _asked_by(layer: Any, is_certain: bool, is_asked_afterwards: bool) -> Iterator[Protection]:
    """What `layer`, one of those that `_called` tells, asks before it calls the next one."""
    for policy in (guards_of_view(layer) or Guards()).policies:
        yield _of_policy(policy, "decorator", is_certain or is_asked_afterwards)
    effect: Effect = "denies" if is_certain else "unknown"
    module, cells = module_of(layer), _cells(layer)
    if isinstance(layer, type):
        yield Protection(layer.__name__, "django", effect)
    elif module == "django.contrib.auth.decorators" and "test_func" in cells:
        if not _is_nothing(_cells(cells["test_func"]).get("perms")):
            yield Protection("user_passes_test", "django", effect)
    elif module == "django.contrib.admin.sites" and layer.__code__.co_qualname == _ADMIN_VIEW:
        is_certain &= _are_written_in("django.contrib.admin.sites", cells["self"], {}, ["has_permission"])
        yield Protection("AdminSite.has_permission", "admin", "denies" if is_certain else "unknown")
    elif _api_view(layer) is not None:
        cls: Any = cells["cls"]
        is_certain &= _are_written_in("rest_framework.", cls, cells["initkwargs"], _API_METHODS)
        chosen = cells["initkwargs"].get("permission_classes", cls.permission_classes)
        if not isinstance(chosen, Iterable):  # It is a property, which a request is needed for.
            yield Protection("permission_classes", "rest_framework", "unknown")
            return
        for permission in chosen:
            policy = _policy_of_permission(permission)
            if type(policy) is not AllowAny:
                effect = _of_policy(policy, "rest_framework", is_certain).effect
                yield Protection(repr(policy), "rest_framework", effect)
            elif chosen is not _api_view(layer).permission_classes:
                yield Protection("AllowAny", "rest_framework", "public")


class _Permission(Policy):
    """Stands for a permission class of REST framework, which is taken to deny some requests."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


def _policy_of_permission(permission: Any) -> Policy:
    """A permission class of REST framework as a policy; operators join them as they join policies."""
    kind: Any = _API_OPERATORS.get(getattr(getattr(permission, "operator_class", None), "__name__", ""))
    if kind is not None:
        operands = [getattr(permission, name) for name in ("op1_class", "op2_class") if hasattr(permission, name)]
        policy: Policy = kind(*map(_policy_of_permission, operands))
        return policy
    name = getattr(permission, "__name__", None) or repr(permission)
    return AllowAny() if name == "AllowAny" else _Permission(name)


def _api_view(layer: Any) -> Any:
    """REST framework's `APIView`, if ``as_view()`` of a subclass made `layer`; else None."""
    cls = _cells(layer).get("cls") if module_of(layer) in _MODULES_OF_AS_VIEW else None
    return next((base for base in getattr(cls, "__mro__", ()) if base.__module__ == "rest_framework.views"), None)


def _is_nothing(permissions: Any) -> bool:
    """Whether Django's `permission_required` allows everybody, since it was given none of them."""
    return isinstance(permissions, Collection) and not isinstance(permissions, str) and not permissions


def _are_written_in(module: str, given: Any, initkwargs: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Whether these methods of a class or object are of `module`, and not of the site.

    `initkwargs` are the arguments of ``as_view()``, which replace attributes.
    """
    methods = [initkwargs.get(name, getattr(given, name)) for name in names]
    return all(module_of(method).startswith(module) for method in methods)


def _cells(function: Any) -> Mapping[str, Any]:
    """The variables that a function of `_PACKAGES` uses of the one that encloses it, by name."""
    is_theirs = isinstance(function, FunctionType) and module_of(function).startswith(_PACKAGES)
    return inspect.getclosurevars(function).nonlocals if is_theirs else {}


def module_of(function: Any) -> str:
    """The module of a function's code; ``__module__`` is copied by `functools.wraps`."""
    return str(getattr(function, "__globals__", {}).get("__name__", ""))
