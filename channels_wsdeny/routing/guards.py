"""Guards: the policies and hooks that a decorator puts before an endpoint."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary, WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..hooks.registry import Hooks
    from ..policies import Policy

T = TypeVar("T")
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
        return Guards(_once(self.policies), _once(self.hooks), _once(self.reported))

    def __str__(self) -> str:
        return ", ".join(repr(guard) for guards in self for guard in guards)


def _once(guards: tuple[T, ...]) -> tuple[T, ...]:
    return tuple({id(guard): guard for guard in guards}.values())


NO_GUARDS = Guards()


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


def add_guards(cls: type, guards: Guards) -> None:
    """Put `guards` before those of `cls` itself: the outermost decorator is asked first."""
    setattr(cls, _ATTRIBUTE, guards.around(vars(cls).get(_ATTRIBUTE, NO_GUARDS)))
    _found.clear()


def guards_of(cls: type) -> Guards:
    """The guards of `cls`, each once: its own, then those of its bases in the method resolution order."""
    known = _found.get(cls)
    if known is None:
        known = _found[cls] = _collect(cls)
    return known


_found: WeakKeyDictionary[type, Guards] = WeakKeyDictionary()


def _collect(cls: type) -> Guards:
    found = NO_GUARDS
    for base in cls.__mro__:
        if _ATTRIBUTE in vars(base):
            found = found.around(vars(base)[_ATTRIBUTE])
    return found.once()


#: The functions with which decorators make classes of consumers and views ask their guards. By identity: an
#: attribute would travel with functools.wraps() to functions that check nothing.
bound_functions: WeakSet[Callable[..., Any]] = WeakSet()


def is_bound(cls: Any) -> bool:
    """Whether a consumer class asks its guards once an instance of it is called."""
    return cls.__new__ in bound_functions
