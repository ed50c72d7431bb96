"""Names for ASGI's shapes and for requests, so that signatures read as those of ASGI and of Django do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import django.http

__all__ = ["HttpRequest", "context_of"]

if TYPE_CHECKING:
    from types import SimpleNamespace

    from .http.context import RequestContext

if not TYPE_CHECKING:
    HttpRequest = django.http.HttpRequest
else:  # pragma: no cover - for type checkers alone

    class HttpRequest(django.http.HttpRequest):
        """Django's ``HttpRequest`` with what this package adds: for annotations of hooks, policies and views.

        When the code runs, the name is Django's class itself.
        """

        #: What hooks keep for the rest of the request.
        ctx: SimpleNamespace
        #: What an authentication class has returned beside the user, such as a token; set where the user is loaded.
        auth: Any
        #: The context of the request; its `obj` is what the ``obj`` resolver of the policy returned.
        wsdeny: RequestContext


#: The protocols whose requests are guarded, by the type of their scopes.
Protocol: TypeAlias = Literal["websocket", "http"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
#: `Any` where asgiref, Starlette and the stubs of Channels write types of their own, none of which is the other's.
ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[Any]]
RawHeaders: TypeAlias = list[tuple[bytes, bytes]]


def context_of(scope_or_request: Any) -> RequestContext:
    """``scope["wsdeny"]`` of a scope or ``request.wsdeny`` of a request, for type checkers, which know neither.

    Raises `KeyError` or `AttributeError` where nothing of this package has run before.
    """
    is_scope = isinstance(scope_or_request, Mapping)
    context: RequestContext = scope_or_request["wsdeny"] if is_scope else scope_or_request.wsdeny
    return context
