"""The ASGI middleware of this package: a stack around an application, or guards around an endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from .guards import NO_GUARDS, Guards

if TYPE_CHECKING:
    from ..authentication.base import Authenticators
    from ..hooks import Hooks
    from ..http.origins import Origins
    from ..policies import Policy
    from ..types import ASGIApp

M = TypeVar("M", bound="ASGIMiddleware")


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
    #: The authentication classes and origins of a stack; None for those of a stack around, or of the site.
    authentication: Authenticators | None = None
    origins: Origins | None = None
    hooks: tuple[Hooks, ...] = ()
    #: The dotted paths of Django middleware for handshakes; None: those of a stack around, or the site's.
    middleware: tuple[str, ...] | None = None

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
