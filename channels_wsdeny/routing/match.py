"""The match of an ASGI scope: its endpoint, or why there is none."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from django.urls import ResolverMatch

from .guards import NO_GUARDS, Guards

if TYPE_CHECKING:
    from ..authentication.base import Authenticators
    from ..hooks import Hooks
    from ..http.origins import Origins
    from ..policies import Policy
    from ..types import ASGIApp


class Unmatched(enum.Enum):
    """Why a scope has no match."""

    #: No route matches.
    NOT_FOUND = "not found"
    #: An application that is not known decides where the scope goes.
    UNRESOLVABLE = "unresolvable"


NOT_FOUND: Literal[Unmatched.NOT_FOUND] = Unmatched.NOT_FOUND
UNRESOLVABLE: Literal[Unmatched.UNRESOLVABLE] = Unmatched.UNRESOLVABLE


@dataclass(slots=True)
class EndpointMatch:
    """The endpoint of a scope, found without running anything.

    `app` is the endpoint within the wrappers around it; `guards` are all that are asked before it; `hooks` are
    those of the stacks around it; `url` is what the routers add to the scope.
    """

    app: ASGIApp
    guards: Guards = NO_GUARDS
    hooks: tuple[Hooks, ...] = ()
    url: dict[str, Any] = field(default_factory=dict)
    endpoint: Any = None
    #: The class of the endpoint, if it is a consumer.
    consumer_class: type | None = None
    #: The routes that lead to it, the outermost first.
    routes: tuple[Any, ...] = ()
    #: Whether it is Django's own handler, which routes to views by itself.
    is_django: bool = False
    #: Whether what is behind `endpoint` is not known yet, or at all.
    is_late: bool = False
    #: Whether one of the layers around it makes it owe the default policy, if it has no policy.
    owes_default: bool = False
    #: The default policy of the nearest stack around the endpoint that has one; None if guards inside that are asked.
    default_policy: Policy | None = None
    #: The same whatever guards there are: it is asked about a user or route that they were not asked about.
    stack_default: Policy | None = None
    #: Those of the nearest stack around the endpoint that has them.
    authentication: Authenticators | None = None
    origins: Origins | None = None
    #: The Django middleware of the nearest stack that names some; None: the site's.
    middleware: tuple[str, ...] | None = None

    def resolver_match(self, url_route: dict[str, Any] | None = None) -> ResolverMatch:
        """The match as Django's resolver makes it. `url_route` is that of the scope, if a router came before."""
        url_route = self.url.get("url_route") or url_route or {"args": (), "kwargs": {}}
        return ResolverMatch(
            self.endpoint,
            url_route["args"],
            url_route["kwargs"],
            url_name=next((route.name for route in reversed(self.routes) if route.name), None),
            route="".join(str(route.pattern) for route in self.routes),
        )


Match: TypeAlias = EndpointMatch | Literal[Unmatched.NOT_FOUND, Unmatched.UNRESOLVABLE]
