"""Custom route classes: Django views behind a request class of their own, and a handler that subclasses may wrap.

How the endpoint of a scope is found is in `routing`; hooks of one endpoint are given by `decorators.with_hooks`.

    @GzipRoute
    def receive(request): ...                                # request.body is what was compressed

    path("receive/", TimedRoute(receive))                    # routes compose
    path("api/", LoggedRoute.include("api.urls"))            # every view of an include

A `Deny` raised in a route becomes its response there, with `MirrorMiddleware` or without it.
"""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http.response import HttpResponseBase
from django.urls import URLResolver
from django.urls import include as djangos_include
from django.urls.resolvers import RoutePattern
from django.utils.functional import cached_property
from django.views import View

from ..decorators import wrap_as_view
from ..handlers.view import guard_view
from ..log import escape, logger, protected, request_path
from ..routing.guards import NO_GUARDS, asgi_names, is_asgi_app, uncalled
from .redaction import describe
from .requests import BodyTooLarge, GzipRequest, MalformedBody, MsgpackRequest, RouteRequest, adopt

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
    """A view around a view, with a request of its own class: ``Route(view)``, or as a decorator.

    Takes function views and what ``as_view()`` returns, synchronous and asynchronous. Of a class-based view
    it decorates ``as_view()`` and returns the class, so that subclasses are routed too.

    Raises `TypeError` for anything else, ASGI applications among them.
    """

    # Not in the instance's dict, which functools.wraps() copies to other functions.
    __slots__ = ("__dict__", "__weakref__", "_guarded", "_is_async", "view")

    #: The class of the view's request, a subclass of `RouteRequest`.
    request_class: ClassVar[type[RouteRequest]] = RouteRequest

    def __new__(cls, view: Any = None, /, *args: Any, **kwargs: Any) -> Any:
        """A route; of a class-based view that class."""
        if isinstance(view, type):
            if not issubclass(view, View):
                raise TypeError(f"A route takes views and classes of views, found {view!r}, which is neither.")
            wrap_as_view(view, lambda _, made: cls(made, *args, **kwargs))
            return view
        return super().__new__(cls)

    def __init__(self, view: Callable[..., Any]) -> None:
        if not issubclass(self.request_class, RouteRequest):
            raise TypeError(f"A request_class is a subclass of RouteRequest, found {self.request_class!r}.")
        if not callable(view) or is_asgi_app(view) or asgi_names(view) or uncalled(view):
            name = type(self).__name__
            raise TypeError(
                f"{name} takes a view of Django, found {view!r}. In a URLconf, wrap the view, not path(), "
                f"and use {name}.include() for include(). For hooks around an ASGI application, use "
                "channels_wsdeny.decorators.with_hooks()."
            )
        own = dict(vars(self))
        functools.update_wrapper(self, view)
        vars(self).update(own)
        self.view = view
        handler = self.get_route_handler()
        # An object may have a coroutine function as its ``__call__``.
        self._is_async = iscoroutinefunction(handler) or iscoroutinefunction(getattr(type(handler), "__call__", None))  # noqa: B004

        @functools.wraps(view)
        def handle(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            return handler(adopt(request, self.request_class), *args, **kwargs)

        for function in (handle, self):
            _mark(function, is_async=self._is_async)
        self._guarded = guard_view(handle, NO_GUARDS)

    def __call__(self, request: HttpRequest, /, *args: Any, **kwargs: Any) -> Any:
        return self._guarded(request, *args, **kwargs)

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

        A subclass overrides it and wraps what ``super().get_route_handler()`` returns, which raises what the
        view does, `Deny` too. Whatever the view is, a plain function calls that, and a coroutine function
        awaits it.
        """
        view: Any = self.view
        is_async = iscoroutinefunction(view)

        @functools.wraps(view)
        def call_view(*args: Any, **kwargs: Any) -> Any:
            if is_async == self._is_async:
                return view(*args, **kwargs)
            return (async_to_sync if is_async else sync_to_async)(view)(*args, **kwargs)

        _mark(call_view, is_async=is_async)
        return call_view

    @classmethod
    def include(cls, arg: Any, namespace: str | None = None) -> tuple[_RoutedURLconf, str | None, str | None]:
        """As `django.urls.include`, with each view in it wrapped; what is included stays as it is.

        Takes what Django's function takes, and what it returns (such as ``admin.site.urls``).
        """
        is_included = isinstance(arg, tuple) and len(arg) == 3 and namespace is None
        urlconf, app_name, namespace = arg if is_included else djangos_include(arg, namespace)
        return _RoutedURLconf(cls, URLResolver(RoutePattern(""), urlconf)), app_name, namespace


class GzipRoute(Route):
    """A route that accepts bodies compressed with gzip; see `GzipRequest`."""

    request_class = GzipRequest


class MsgpackRoute(Route):
    """A route that accepts msgpack for JSON; see `MsgpackRequest`."""

    request_class = MsgpackRequest

    def get_route_handler(self) -> Callable[..., Any]:
        """As any route's. Raises `ImportError` if msgpack is not installed."""
        import_module("msgpack")
        return super().get_route_handler()


class TimedRoute(Route):
    """A route that adds ``X-Response-Time`` to each response: the seconds it took, such as ``0.012345``."""

    def __call__(self, request: HttpRequest, /, *args: Any, **kwargs: Any) -> Any:
        """Call the view, and add the header to its response or denial."""
        began = time.perf_counter()

        def add_header(outcome: Any) -> None:
            if isinstance(outcome, HttpResponseBase):
                outcome["X-Response-Time"] = f"{time.perf_counter() - began:.6f}"

        return _observe(functools.partial(super().__call__, request, *args, **kwargs), add_header)


class LoggedRoute(Route):
    """A route that logs each request with its body, once it is answered: INFO, logger ``channels_wsdeny``.

    At most `clip` characters of the body are logged, as the view read it: without passwords, tokens, and what
    Django's `sensitive_post_parameters` names; a binary one is not shown. The record has ``method``, ``path``
    (without the query string), ``status`` (None for an exception), ``size`` (bytes received, None if the body
    stayed a stream) and ``body``.
    """

    #: Characters of a body that are logged.
    clip: ClassVar[int] = 1000

    def __call__(self, request: HttpRequest, /, *args: Any, **kwargs: Any) -> Any:
        """Call the view, and log its response, denial or exception."""
        view = functools.partial(super().__call__, request, *args, **kwargs)
        return _observe(view, functools.partial(self.log, request))

    def log(self, request: HttpRequest, outcome: Any) -> None:
        """Log `request`, which was answered by the response `outcome`, or raised that exception."""
        if not logger.isEnabledFor(logging.INFO):
            return
        with protected():
            method, path = escape(request.method or ""), escape(request_path(request))
            status = getattr(outcome, "status_code", None)
            # The view has not run, nor a decorator that names its sensitive fields.
            is_denied = getattr(outcome, "is_denial", False) or status in {401, 403, 405}
            size, body = describe(request, self.clip, is_denied=is_denied)
            extra = {"method": method, "path": path, "status": status, "size": size, "body": body}
            answered = status or type(outcome).__name__
            logger.info("%s %s: %s; %s", method, path, answered, body, extra=extra)


class _RoutedURLconf:
    """A URLconf whose views are wrapped when Django first resolves a path, as it imports a URLconf then."""

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
        urlconf: Any = _RoutedURLconf(self._route, copy.copy(pattern))
        given = (pattern.default_kwargs, pattern.app_name, pattern.namespace)
        URLResolver.__init__(routed, prefix, urlconf, *given)
        return routed


def _mark(function: Any, *, is_async: bool) -> None:
    """Make `iscoroutinefunction` answer so for `function`, which has the view's attributes."""
    for mark in vars(markcoroutinefunction(lambda: None)):
        vars(function).pop(mark, None)
    if is_async:
        markcoroutinefunction(function)


def _observe(view: Callable[[], Any], note: Callable[[Any], None]) -> Any:
    """Return what `view` does, a response or the coroutine of one; `note` is called with it or its exception."""
    try:
        answer = view()
    except Exception as error:
        note(error)
        raise
    if not inspect.isawaitable(answer):
        note(answer)
        return answer

    async def wait() -> Any:
        try:
            response = await answer
        except Exception as error:
            note(error)
            raise
        note(response)
        return response

    return wait()
