"""The sighting: what the look-ahead saw of a scope, a route or why there is none to tell."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from django.urls import ResolverMatch

from .guards import NO_GUARDS, Guards

if TYPE_CHECKING:
    from ..hooks.registry import Hooks
    from ..policies.builtin import Policy
    from ..types import ASGIApp

#: Channels' own dict of a scope that no router has seen yet.
NO_URL: dict[str, Any] = {"args": (), "kwargs": {}}


class Unseen(enum.Enum):
    """Why there is no route to tell."""

    #: No route matches: whatever runs, there is nothing at this address.
    UNROUTED = "unrouted"
    #: A wrapper that the look-ahead does not know decides.
    OPAQUE = "opaque"


@dataclass(slots=True)
class Route:
    """The endpoint of a scope, found without running anything.

    `app` is the endpoint within the wrappers on its way; `guards` are all that stand before it; `hooks` are
    those of the stacks on its way; `url` is what the routers would add to the scope.
    """

    app: ASGIApp
    guards: Guards = NO_GUARDS
    hooks: tuple[Hooks, ...] = ()
    url: dict[str, Any] = field(default_factory=dict)
    endpoint: Any = None
    #: The routes on its way, from the outside in.
    routes: tuple[Any, ...] = ()
    #: Whether it is Django's own handler, which routes to views by itself.
    is_django: bool = False
    #: What the nearest stack says of such views without a policy.
    default_policy: Policy | None = None

    def resolver_match(self, url_route: dict[str, Any] | None = None) -> ResolverMatch:
        """As Django's own resolver tells it. `url_route` is that of the scope, where routers came before."""
        url_route = self.url.get("url_route") or url_route or NO_URL
        return ResolverMatch(
            self.endpoint, url_route["args"], url_route["kwargs"], url_name=self.name, route=self.pattern
        )

    @property
    def name(self) -> str | None:
        """The name of the innermost route that has one."""
        return next((route.name for route in reversed(self.routes) if route.name), None)

    @property
    def pattern(self) -> str:
        """The path as it was written in the routes."""
        return "".join(str(route.pattern) for route in self.routes)


Found: TypeAlias = Route | Literal[Unseen.UNROUTED, Unseen.OPAQUE]
