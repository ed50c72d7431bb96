"""Guards: the policies that a class carries, its own and those it inherits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .policies import Policy

_ATTRIBUTE = "wsdeny_policies"


def add_policy(cls: type, policy: Policy) -> None:
    """Make `policy` the first of those that `cls` itself carries: decorators run from the outside in."""
    setattr(cls, _ATTRIBUTE, (policy, *vars(cls).get(_ATTRIBUTE, ())))


def policies_of(cls: type) -> tuple[Policy, ...]:
    """All policies that `cls` is bound by, each once: its own, then its bases' in their order."""
    found: dict[int, Policy] = {}
    for base in cls.__mro__:
        for policy in vars(base).get(_ATTRIBUTE, ()):
            found.setdefault(id(policy), policy)
    return tuple(found.values())
