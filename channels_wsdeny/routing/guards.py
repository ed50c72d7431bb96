"""Guards: the policies and hooks that a decorator puts before an endpoint, and the ASGI middleware that asks them."""

from __future__ import annotations

import inspect
import types
from functools import reduce
from operator import eq
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary, WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..authentication.base import Authenticators
    from ..hooks.registry import Hooks
    from ..http.origins import Origins
    from ..policies import Policy
    from ..types import ASGIApp

M = TypeVar("M", bound="ASGIMiddleware")
_ATTRIBUTE = "wsdeny_guards"


class Guards(NamedTuple):
    """The hooks and policies before an endpoint, each the outermost first; the hooks run before the policies.

    Policies that are `reported` are asked once all others have allowed. They decide nothing.
    """

    policies: tuple[Policy, ...] = ()
    hooks: tuple[Hooks, ...] = ()
    reported: tuple[Policy, ...] = ()

    @property
    def decide(self) -> bool:
        """Whether there is anything that may deny."""
        return bool(self.policies or self.hooks)

    def around(self, inner: Guards) -> Guards:
        """These guards, and then those of `inner`."""
        return Guards(self.policies + inner.policies, self.hooks + inner.hooks, self.reported + inner.reported)

    def once(self) -> Guards:
        """The same, each once. By identity: a policy of the site's may compare as it likes."""
        each_once: Any = (tuple({id(guard): guard for guard in guards}.values()) for guards in self)
        return Guards(*each_once)

    def __str__(self) -> str:
        return ", ".join(repr(guard) for guards in self for guard in guards)


NO_GUARDS = Guards()


class StackOptions(NamedTuple):
    """The options of a `DenyMiddlewareStack`; None leaves one to the stack around it, or to the site."""

    authentication: Authenticators | None = None
    origins: Origins | None = None
    #: The dotted paths of Django middleware for handshakes.
    middleware: tuple[str, ...] | None = None
    #: How it denies: ``"response"`` or ``"close"``.
    deny_with: str | None = None

    def within(self, outer: StackOptions) -> StackOptions:
        """These options, completed by those of the stack around."""
        if self is NO_OPTIONS or outer is NO_OPTIONS:
            return outer if self is NO_OPTIONS else self
        nearest: Iterable[Any] = (theirs if own is None else own for own, theirs in zip(self, outer, strict=True))
        return StackOptions(*nearest)


NO_OPTIONS = StackOptions()


def is_asgi_app(endpoint: Any) -> bool:
    """Whether `endpoint` is an ASGI application: its first parameters are called scope, receive and send."""
    for follow_wrapped in (False, True):
        try:
            signature = inspect.signature(endpoint, follow_wrapped=follow_wrapped)
        except (TypeError, ValueError):
            return False
        if list(signature.parameters)[:3] == ["scope", "receive", "send"]:
            return True
    return False


def asgi_names(endpoint: Any) -> list[str]:
    """The parameters of what is an ASGI application by one of its three, and no view by the first; else none."""
    try:
        names = [*inspect.signature(endpoint).parameters]
    except (TypeError, ValueError):
        return []
    is_named = any(map(eq, names, ("scope", "receive", "send")))
    return names if len(names) == 3 and names[0] != "request" and is_named else []


#: Parts of applications of Starlette and FastAPI, such as a `Mount`: they can be called as an application can.
_PARTS = {"fastapi.routing.APIRouter", "starlette.routing.BaseRoute"}


def is_taken_apart(endpoint: Any) -> bool:
    """Whether an application that `endpoint` is put into calls what is in it by other ways than calling it."""
    return any(f"{base.__module__}.{base.__qualname__}" in _PARTS for base in type(endpoint).__mro__)


def add_guards(cls: type, guards: Guards) -> None:
    """Put `guards` before those of `cls` itself: the outermost decorator is asked first."""
    setattr(cls, _ATTRIBUTE, guards.around(vars(cls).get(_ATTRIBUTE, NO_GUARDS)))
    _found.clear()


def guards_of(cls: type) -> Guards:
    """The guards of `cls`, each once: its own, then those of its bases in the method resolution order."""
    known = _found.get(cls)
    if known is None:
        own = (vars(base).get(_ATTRIBUTE, NO_GUARDS) for base in cls.__mro__)
        known = _found[cls] = reduce(Guards.around, own, NO_GUARDS).once()
    return known


_found: WeakKeyDictionary[type, Guards] = WeakKeyDictionary()
#: The functions with which decorators make classes of consumers and views ask their guards. By identity: an
#: attribute would travel with functools.wraps() to functions that check nothing.
bound_functions: WeakSet[Callable[..., Any]] = WeakSet()


def is_bound(cls: Any) -> bool:
    """Whether a consumer class asks its guards once an instance of it is called."""
    return cls.__new__ in bound_functions


def uncalled(app: object) -> str:
    """The name of a consumer's ``as_asgi`` or a view's ``as_view``, where that is given in place of what it returns."""
    if isinstance(app, types.MethodType) and app.__name__ in {"as_asgi", "as_view"}:
        cls: object = app.__self__
        if isinstance(cls, type):  # else it may be an application by itself
            return f"{cls.__name__}.{app.__name__}"
    return ""


class ASGIMiddleware:
    """An application of this package around another one.

    `guards` are asked before anything inside; `default_policy` is for endpoints that carry no policy; `hooks` are
    those of a stack, around the hooks of the guards.
    """

    #: Whether it is a `DenyMiddlewareStack`, inside which endpoints without a policy have the default policy.
    is_stack = False
    #: Whether endpoints without a policy have the default policy because of this layer: it is a stack, or may deny.
    owes_default = False
    inner: ASGIApp
    guards: Guards = NO_GUARDS
    default_policy: Policy | None = None
    hooks: tuple[Hooks, ...] = ()
    options: StackOptions = NO_OPTIONS

    def guard(self, app: ASGIApp) -> ASGIApp:
        """`app`, resolved anew when middleware of the site calls it."""
        raise NotImplementedError

    @property
    def _path_routing(self) -> bool:
        """Whether `inner` is a router; `URLRouter` asks that of what it routes to."""
        return getattr(self.inner, "_path_routing", False)


#: The ``__call__`` of middleware that the resolver knows. A subclass that overrides it is none of that.
transparent_calls: set[Any] = set()


def transparent(middleware: type[M]) -> type[M]:
    """Declare that the resolver knows all that ``middleware.__call__`` does to a request."""
    transparent_calls.add(middleware.__call__)
    return middleware
