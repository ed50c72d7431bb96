"""The plan: the hooks of some registries, in the order they run in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, get_args

from .registry import Kind, on_change

if TYPE_CHECKING:
    from ..types import Protocol
    from .registry import Hook, Hooks


@dataclass(frozen=True, slots=True)
class Plan:
    """The hooks of some registries for one protocol, in the order they run in."""

    request: tuple[Hook, ...] = ()
    route: tuple[Hook, ...] = ()
    response: tuple[Hook, ...] = ()
    exception: tuple[Hook, ...] = ()
    around: tuple[Hook, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.request or self.route or self.response or self.exception or self.around)

    def without(self, met: set[Hook]) -> Plan:
        """The plan, but for the hooks in `met`."""
        return Plan(*(tuple(hook for hook in hooks if hook not in met) for hooks in self.kinds()))

    def kinds(self) -> tuple[tuple[Hook, ...], ...]:
        """The hooks of each kind."""
        return self.request, self.route, self.response, self.exception, self.around


NO_HOOKS = Plan()


def plan_of(registries: tuple[Hooks, ...], protocol: Protocol) -> Plan:
    """What `registries`, from the outside in, have for `protocol`; compiled until one of them changes."""
    return _compile(registries, protocol) if registries else NO_HOOKS


@lru_cache(maxsize=256)
def _compile(registries: tuple[Hooks, ...], protocol: Protocol) -> Plan:
    declared = dict.fromkeys(
        hook for registry in registries for hook in registry if protocol in hook.protocols
    )
    ordered = sorted(declared, key=lambda hook: -hook.priority)  # stable: equal ones as declared
    kinds = {kind: tuple(hook for hook in ordered if hook.kind == kind) for kind in get_args(Kind)}
    return Plan(**{**kinds, "response": kinds["response"][::-1]}) or NO_HOOKS


on_change(_compile.cache_clear)
