"""The layer: what this package puts around an application, and may declare to be seen through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from .guards import NO_GUARDS, Guards

if TYPE_CHECKING:
    from ..hooks.registry import Hooks
    from ..policies.builtin import Policy
    from ..types import ASGIApp

L = TypeVar("L", bound="Layer")


class Layer:
    """An app of this package around another: the look-ahead sees through it.

    `guards` stand before anything further in; `default_policy` is for endpoints without policies; `hooks`
    are those of a stack, around the guards' own.
    """

    inner: ASGIApp
    guards: Guards = NO_GUARDS
    default_policy: Policy | None = None
    hooks: tuple[Hooks, ...] = ()

    @property
    def _path_routing(self) -> bool:
        """Whether `inner` is a router, which `URLRouter` wants to know of what it routes to."""
        return getattr(self.inner, "_path_routing", False)


_LAYER_CALLS: set[Any] = set()


def seen_through(layer: type[L]) -> type[L]:
    """Declare that `layer`, as it is called here, does nothing that the look-ahead would not know."""
    _LAYER_CALLS.add(layer.__call__)
    return layer


def is_seen_through(app: Any) -> bool:
    """Whether `app` is a layer that was declared so, and no subclass that is called in another way."""
    return isinstance(app, Layer) and type(app).__call__ in _LAYER_CALLS
