"""Guards: the policies and hooks that stand before an endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from ..hooks.registry import Hooks
    from ..policies.builtin import Policy

_ATTRIBUTE = "wsdeny_guards"


class Guards(NamedTuple):
    """What stands before an endpoint, from the outside in: its hooks, and then its policies."""

    policies: tuple[Policy, ...] = ()
    hooks: tuple[Hooks, ...] = ()

    def around(self, inner: Guards) -> Guards:
        """These, and those of `inner` further in."""
        return Guards((*self.policies, *inner.policies), (*self.hooks, *inner.hooks))

    def __str__(self) -> str:
        return ", ".join(repr(guard) for guard in (*self.policies, *self.hooks))


NO_GUARDS = Guards()


def add_guards(cls: type, guards: Guards) -> None:
    """Put `guards` before those that `cls` itself carries: decorators run from the outside in."""
    setattr(cls, _ATTRIBUTE, guards.around(vars(cls).get(_ATTRIBUTE, NO_GUARDS)))
    _found.clear()


def guards_of(cls: type) -> Guards:
    """All that `cls` is bound by, each once: its own, then its bases' in their order."""
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
    # By identity: a policy of the site's may compare as it likes.
    policies = {id(policy): policy for policy in found.policies}
    return Guards(tuple(policies.values()), tuple({id(hooks): hooks for hooks in found.hooks}.values()))
