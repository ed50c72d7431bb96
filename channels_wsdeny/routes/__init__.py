"""Routes: Django views behind a request class of their own, and a handler that subclasses may wrap.

    @GzipRoute
    def receive(request): ...                                # request.body is what was compressed

    path("receive/", TimedRoute(receive))                    # routes compose
    path("api/", LoggedRoute.include("api.urls"))            # every view of an include

A `Deny` in a route becomes its response there, with the site's `MirrorMiddleware` or without.
"""

from __future__ import annotations

import copy
import functools
import logging
import time
import traceback
from typing import TYPE_CHECKING, Any, ClassVar

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http.response import HttpResponseBase
from django.urls import URLResolver
from django.urls import include as djangos_include
from django.urls.resolvers import RoutePattern
from django.utils.decorators import classonlymethod
from django.utils.functional import cached_property
from django.views import View

from ..exceptions import Deny
from ..handlers.view import guard_view
from ..http.context import Passage
from ..log import escape, logger, request_path
from ..routing.guards import NO_GUARDS
from .redaction import describe
from .requests import (
    BodyTooLarge,
    GzipRequest,
    MalformedBody,
    MsgpackRequest,
    RouteRequest,
    adopt,
    load_msgpack,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

__all__ = [
    "BodyTooLarge",
    "GzipRequest",
    "GzipRoute",
    "LoggedRoute",
    "MalformedBody",
    "MsgpackRequest",
    "MsgpackRoute",
    "Route",
    "RouteRequest",
    "TimedRoute",
]


class Route:
    """A view, itself to be used as one: ``Route(view)``, or as a decorator.

    Wraps function views and what ``as_view()`` returns, synchronous and asynchronous. Of a class-based view
    it decorates ``as_view()`` and returns the class, so that subclasses are routed too.

    Raises `TypeError` for what is no view.
    """

    # Not in the instance's dict, which functools.wraps() copies to other functions.
    __slots__ = ("__dict__", "__weakref__", "_answer", "view")

    #: What the view gets as its request: a subclass of Django's `HttpRequest`, `RouteRequest` best.
    request_class: ClassVar[type[HttpRequest]] = RouteRequest

    def __new__(cls, view: Any = None, /, *args: Any, **kwargs: Any) -> Any:
        """A route; for a class of views that class."""
        if isinstance(view, type):
            return _route_class(view, lambda made: cls(made, *args, **kwargs))
        return super().__new__(cls)

    def __init__(self, view: Callable[..., Any]) -> None:
        if not callable(view):
            raise TypeError(
                f"{type(self).__name__} takes a view, found {view!r}. In a URLconf, wrap the view rather "
                f"than path(), and use {type(self).__name__}.include() for include()."
            )
        own = dict(vars(self))
        functools.update_wrapper(self, view)
        vars(self).update(own)
        self.view = view
        handler = self.get_route_handler()

        @functools.wraps(view)
        def handle(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            return handler(_receive(request, self.request_class), *args, **kwargs)

        for function in (handle, self):
            _mark_as(handler, function)
        self._answer = guard_view(handle, NO_GUARDS)

    def __call__(self, request: HttpRequest, /, *args: Any, **kwargs: Any) -> Any:
        return self._answer(request, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.view!r}>"

    def __set_name__(self, owner: type, name: str) -> None:
        if issubclass(owner, View):
            raise TypeError(
                f"{type(self).__name__} takes views, found the method {owner.__name__}.{name}. Decorate the "
                "class, or use django.utils.decorators.method_decorator."
            )

    def get_route_handler(self) -> Callable[..., Any]:
        """What is called for each request, with an instance of `request_class` and the URL's arguments.

        Subclasses override it, and wrap what ``super().get_route_handler()`` returns: the view, which is a
        coroutine function or not. They see its exceptions, `Deny` among them.
        """
        return self.view

    @classmethod
    def include(cls, arg: Any, namespace: str | None = None) -> tuple[_RoutedURLconf, str | None, str | None]:
        """As `django.urls.include`, with each view in it wrapped; what is included stays as it is.

        Takes what Django's function takes, and what it returns (such as ``admin.site.urls``).
        """
        is_included = isinstance(arg, tuple) and len(arg) == 3 and namespace is None
        urlconf, app_name, namespace = arg if is_included else djangos_include(arg, namespace)
        return _RoutedURLconf(cls, URLResolver(RoutePattern(""), urlconf)), app_name, namespace


class GzipRoute(Route):
    """Takes bodies that are compressed with gzip; see `GzipRequest`."""

    request_class = GzipRequest


class MsgpackRoute(Route):
    """Takes msgpack for JSON; see `MsgpackRequest`."""

    request_class = MsgpackRequest

    def get_route_handler(self) -> Callable[..., Any]:
        """As any route's. Raises `ImproperlyConfigured`, when the site starts, without msgpack."""
        load_msgpack()
        return super().get_route_handler()


class TimedRoute(Route):
    """Adds ``X-Response-Time`` to the response: the seconds that the view took, such as ``0.012345``."""

    def get_route_handler(self) -> Callable[..., Any]:
        """The view, timed, its denials too."""
        handler = guard_view(super().get_route_handler(), NO_GUARDS)
        if iscoroutinefunction(handler):

            async def timed(*args: Any, **kwargs: Any) -> Any:
                began = time.perf_counter()
                return _timed(await handler(*args, **kwargs), began)

            return timed

        def timed_sync(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            return _timed(handler(*args, **kwargs), began)

        return timed_sync


class LoggedRoute(Route):
    """Logs each request with its body, once the view has answered: an INFO on the logger ``channels_wsdeny``.

    The body is that of the view's request, with passwords, tokens and their like left out, and not more
    than `clip` characters of it; a binary one is not shown. The extras are for machines: ``method``,
    ``path`` (without the query string), ``status`` (None for an exception), ``size`` (bytes as received, or
    None if they were not kept) and ``body``.
    """

    #: Characters of a body that go to the log.
    clip: ClassVar[int] = 1000

    def get_route_handler(self) -> Callable[..., Any]:
        """The view, and a record of what it was asked."""
        handler = super().get_route_handler()
        if iscoroutinefunction(handler):

            async def logged(request: RouteRequest, *args: Any, **kwargs: Any) -> Any:
                try:
                    response = await handler(request, *args, **kwargs)
                except Exception as error:
                    self.log(request, error)
                    raise
                self.log(request, response)
                return response

            return logged

        def logged_sync(request: RouteRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                response = handler(request, *args, **kwargs)
            except Exception as error:
                self.log(request, error)
                raise
            self.log(request, response)
            return response

        return logged_sync

    def log(self, request: RouteRequest, outcome: Any) -> None:
        """Write the record of `request`, whose view returned or raised `outcome`."""
        if not logger.isEnabledFor(logging.INFO):
            return
        status = outcome.status if isinstance(outcome, Deny) else getattr(outcome, "status_code", None)
        size, body = describe(request, self.clip)
        extra = {
            "method": escape(request.method or ""),
            "path": escape(request_path(request)),
            "status": status,
            "size": size,
            "body": body,
        }
        answered = status or type(outcome).__name__
        try:
            logger.info("%s %s: %s; %s", extra["method"], extra["path"], answered, body, extra=extra)
        except Exception:  # noqa: BLE001 - a log handler that raises must not change the answer
            if logging.raiseExceptions:
                traceback.print_exc()  # as logging itself does


class _RoutedURLconf:
    """A URLconf whose views are wrapped when Django first looks at it, which is when it would import it."""

    def __init__(self, route: Callable[[Any], Any], included: URLResolver) -> None:
        self._route, self._included = route, included

    @cached_property
    def urlpatterns(self) -> list[Any]:
        return [self._routed(pattern) for pattern in self._included.url_patterns]

    def _routed(self, pattern: Any) -> Any:
        routed = copy.copy(pattern)
        if not isinstance(pattern, URLResolver):
            routed.callback = self._route(pattern.callback)
            return routed
        # Django writes the converters of outer patterns into those of inner ones.
        prefix = copy.copy(pattern.pattern)
        prefix.converters = dict(prefix.converters)
        for cached in ("urlconf_module", "url_patterns"):
            vars(routed).pop(cached, None)
        URLResolver.__init__(
            routed,
            prefix,
            _RoutedURLconf(self._route, copy.copy(pattern)),  # type: ignore[arg-type]
            pattern.default_kwargs,
            app_name=pattern.app_name,
            namespace=pattern.namespace,
        )
        return routed


def _route_class(cls: Any, route: Callable[[Any], Any]) -> Any:
    if not issubclass(cls, View):
        raise TypeError(f"A route takes views and classes of views, found {cls!r}, which is neither.")
    own = vars(cls).get("as_view")

    def as_view(subclass: Any, /, **initkwargs: Any) -> Any:
        make = super(cls, subclass).as_view if own is None else own.__get__(None, subclass)
        return route(make(**initkwargs))

    functools.update_wrapper(as_view, cls.as_view.__func__)
    cls.as_view = classonlymethod(as_view)
    return cls


def _mark_as(handler: Callable[..., Any], function: Any) -> None:
    """Mark `function` as a coroutine function if `handler` is one, whatever it has from the view."""
    for mark in vars(markcoroutinefunction(lambda: None)):
        vars(function).pop(mark, None)
    if iscoroutinefunction(handler):
        markcoroutinefunction(function)


def _receive(request: HttpRequest, request_class: type[HttpRequest]) -> HttpRequest:
    """What the handler gets for `request`; policies and hooks further in see it too."""
    adopted = adopt(request, request_class)
    passage = vars(adopted).get("wsdeny")
    if isinstance(passage, Passage) and vars(passage.request) is vars(adopted):
        passage.request = adopted
    return adopted


def _timed(response: Any, began: float) -> Any:
    if isinstance(response, HttpResponseBase):
        response["X-Response-Time"] = f"{time.perf_counter() - began:.6f}"
    return response
