"""Django middleware around a handshake: ``CHANNELS_WSDENY["MIDDLEWARE"]``, in Django's own way.

They become hooks in layers of their own, outside all others. A class of `MiddlewareMixin` without a ``__call__`` of its
own is split into steps, which share the thread of the policies: ``process_request`` is a request hook,
``process_response`` a response hook. Others are around hooks; a synchronous one holds a thread until the response.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from asgiref.sync import iscoroutinefunction
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured, MiddlewareNotUsed
from django.core.signals import setting_changed
from django.http.response import HttpResponse, HttpResponseBase
from django.urls.exceptions import Resolver404
from django.utils.deprecation import MiddlewareMixin
from django.utils.module_loading import import_string

from .. import status as statuses
from ..concurrency import HeldThread, run_around, run_in_threadpool
from ..conf import AUTHENTICATION_MIDDLEWARE, MIRROR, SESSION_MIDDLEWARE, conf, index_in
from ..db import noting_changes
from ..exceptions import Deny, HookError
from ..hooks import Hooks
from ..http.context import get_context
from ..http.exception_handler import NoRoute, denial_of
from ..policies.runner import Check
from .base import make_denial, respond

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from django.http import HttpRequest

    from ..policies.base import Denial

#: What each of these does is done for a handshake already.
_REFUSED = (SESSION_MIDDLEWARE, AUTHENTICATION_MIDDLEWARE, MIRROR)
#: Middleware whose steps never block, and so need no thread.
_NEVER_BLOCKS = {
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.security.SecurityMiddleware",
}


# The list of a site or a stack


def as_middleware(paths: Iterable[str]) -> tuple[str, ...]:
    """The dotted paths that a stack was given.

    Raises `TypeError` for anything else, and `ImproperlyConfigured` for what `load_middleware` refuses.
    """
    found = paths if isinstance(paths, str) else tuple(paths)
    if isinstance(found, str) or not all(isinstance(path, str) for path in found):
        raise TypeError(f"DenyMiddlewareStack(middleware=...) takes a list of dotted paths, found {paths!r}.")
    for path in found if apps.ready else ():
        load_middleware(path)
    return found


def load_middleware(path: str) -> Any:
    """The class, or the function that makes a middleware, at a dotted path.

    Raises `ImproperlyConfigured` if it cannot be imported, or has no place on a handshake.
    """
    try:
        factory: Any = import_string(path)
    except Exception as error:  # importing a site's module can raise anything
        raise ImproperlyConfigured(f"The middleware {path!r} cannot be imported: {error}") from error
    refused = refused_base(path)
    if refused is not None:
        raise ImproperlyConfigured(
            f"{path!r} is {refused.rpartition('.')[2]}, which has no place on a handshake: its session, user and hooks "
            "are there already. Leave it out."
        )
    if not callable(factory) or not (getattr(factory, "sync_capable", True) or _can_be_async(factory)):
        raise ImproperlyConfigured(f"{path!r} is no Django middleware, or neither sync_capable nor async_capable.")
    return factory


def refused_base(path: str) -> str | None:
    """Which middleware that has no place on a handshake is at a dotted path, or a base of it; else None."""
    return next((refused for refused in _REFUSED if index_in((path,), refused) is not None), None)


def _can_be_async(factory: Any) -> bool:
    return getattr(factory, "async_capable", False)


def _is_split(factory: Any) -> bool:
    """Whether a class is ``process_request`` and ``process_response``, and nothing else around."""
    return (
        isinstance(factory, type)
        and issubclass(factory, MiddlewareMixin)
        and factory.__call__ is MiddlewareMixin.__call__
        and factory.__acall__ is MiddlewareMixin.__acall__
    )


async def middleware_hooks(paths: tuple[str, ...]) -> tuple[tuple[Hooks, ...], ...]:
    """The layers of hooks that the middleware at these dotted paths are, the outermost first.

    Each is made once in a process, in a thread, since its ``__init__`` may block. Raises `ImproperlyConfigured` for
    what cannot be made, and `TimeoutError` if that takes longer than ``POLICY_TIMEOUT``.
    """
    made = _made.get(paths)
    if made is None:
        async with asyncio.timeout(conf.POLICY_TIMEOUT):
            made = await run_in_threadpool(partial(make_hooks, paths))
    return made


_made: dict[tuple[str, ...], tuple[tuple[Hooks, ...], ...]] = {}
_making = threading.Lock()


def make_hooks(paths: tuple[str, ...]) -> tuple[tuple[Hooks, ...], ...]:
    """As `middleware_hooks`, for synchronous callers."""
    with _making:
        if paths not in _made:
            _made[paths] = _make_hooks([_Member(path) for path in paths])
        return _made[paths]


def _forget(**kwargs: object) -> None:
    _made.clear()  # Middleware read settings as they are made.


setting_changed.connect(_forget)


class _Member:
    """A middleware of the list: its dotted path, and itself once it is made."""

    middleware: Any = None

    def __init__(self, path: str) -> None:
        self.path, self._factory = path, load_middleware(path)

    @property
    def kind(self) -> str:
        """``"steps"``, or as which it is made: ``"async"`` if it can be, else ``"sync"``."""
        if _is_split(self._factory):
            return "steps"
        return "async" if _can_be_async(self._factory) else "sync"

    def make(self, get_response: Callable[..., Any]) -> bool:
        """Make it around `get_response`; False if it is not to be used, as it says itself."""
        try:
            self.middleware = self._factory(get_response)
        except MiddlewareNotUsed:
            return False
        except Exception as error:  # the __init__ of a site's middleware can raise anything
            raise ImproperlyConfigured(f"The middleware {self.path!r} cannot be made: {error!r}") from error
        if not callable(self.middleware):
            made = type(self.middleware).__name__
            raise ImproperlyConfigured(f"The middleware factory {self.path!r} returned a {made}.")
        self.user_setter = _UserSetter(self.method("process_request"))
        return True

    def method(self, name: str) -> Any:
        """The method of this name; None without one."""
        return getattr(self.middleware, name, None)


class _Layer(Hooks):
    """The hooks of one layer of middleware."""

    def add(self, kind: Any, function: Any, name: str, *, blocking: bool = True) -> None:
        """Register `function` under the name of a middleware, or of a method of it."""
        function.__module__, _, function.__qualname__ = name.rpartition(".")
        self.register(function, kind, protocols=("websocket",), blocking=blocking)

    def add_methods(self, members: list[_Member]) -> None:
        """Register the methods that Django calls apart from ``__call__``."""
        for member in members:
            if (process := member.method("process_view")) is not None:
                self.add("route", _view_hook(process), f"{member.path}.process_view")
        for member in reversed(members):
            if (process := member.method("process_exception")) is not None:
                self.add("exception", _exception_hook(process), f"{member.path}.process_exception")


def _make_hooks(listed: list[_Member]) -> tuple[tuple[Hooks, ...], ...]:
    layers: list[tuple[Hooks, ...]] = []
    hooks, members = _Layer(), list[_Member]()
    # The around hooks of a layer enclose its request hooks. So one layer is some of those, and the steps after them.
    for kind, group in itertools.groupby(listed, key=lambda member: member.kind):
        if kind != "steps":
            members += _Chain(group, hooks, is_async=kind == "async").members
        else:
            members += _Steps(group, hooks).members
            hooks.add_methods(members)
            layers.append((hooks,))
            hooks, members = _Layer(), []
    hooks.add_methods(members)
    return (*layers, (hooks,))


# One request


def _progress(request: HttpRequest) -> dict[_Steps | _Chain, Any]:
    """How far the middleware around one request have come.

    Of steps, how many have begun, which see the response; of a chain, what its innermost middleware calls, and the user
    before it.
    """
    state = get_context(request).state
    if state.middleware is None:
        state.middleware = {}
    progress: dict[_Steps | _Chain, Any] = state.middleware
    return progress


def _checked(path: str, method: str, response: Any) -> HttpResponseBase:
    if isinstance(response, HttpResponseBase):
        return response
    if asyncio.iscoroutine(response):
        response.close()
    raise HookError(f"{method} of the middleware {path} returned a {type(response).__name__}, which is no response.")


def _no_response(request: HttpRequest) -> HttpResponseBase:
    """The ``get_response`` of middleware that are split into steps."""
    raise HookError("A middleware of MiddlewareMixin called get_response() from one of its steps.")


class _UserSetter(Check):
    """A check before the policies of an open socket, whose user is loaded anew: what sets the user does so again."""

    def __init__(self, function: Callable[[HttpRequest], Any], *, is_async: bool = False) -> None:
        self._function, self._is_async = function, is_async

    def needs_loop(self) -> bool:
        return self._is_async

    def blocks(self, request: HttpRequest) -> bool:
        return not self._is_async

    def run(self, request: HttpRequest) -> Denial | None:
        with noting_changes():
            return self._denial(self._function(request))

    async def arun(self, request: HttpRequest) -> Denial | None:
        return self._denial(await self._function(request))

    @staticmethod
    def _denial(response: Any) -> Denial | None:
        if response is None or response.status_code == 101:
            return None
        denial: Denial = response if statuses.is_denial(response.status_code) else Deny(500)
        return denial

    def note(self, request: Any, before: Any) -> None:
        """Note for `request`, once, that its user is another than `before`, by what this calls."""
        if request.user is not before and self not in request.user_setters:
            request.user_setters += (self,)


class _Steps:
    """Adjacent middleware that are ``process_request`` and ``process_response``, in one hook each."""

    def __init__(self, members: Iterable[_Member], hooks: _Layer) -> None:
        self.members = [member for member in members if member.make(_no_response)]
        if self.members:
            # Also where none has such a method: the others need to know which have begun.
            self._entering = self._add(hooks, "request", self._enter)
        if any(member.method("process_response") for member in self.members):
            self._add(hooks, "response", self._leave)

    def _add(self, hooks: _Layer, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        method = f"process_{kind}"
        members = [member for member in self.members if member.method(method) is not None]
        blocking = any(_name(member.middleware) not in _NEVER_BLOCKS for member in members)

        def hook(request: HttpRequest, *response: Any) -> Any:
            if not blocking:
                return function(request, *response)
            with noting_changes() as carry:
                answer = function(request, *response)
                if not response:
                    carry()
                return answer

        hooks.add(kind, hook, f"{self.members[0].path}.{method}", blocking=blocking)
        return hook

    def _enter(self, request: HttpRequest) -> Denial | None:
        progress = _progress(request)
        progress[self] = 0
        answer: Denial | None = None
        for member in self.members:
            process, before = member.method("process_request"), request.user
            try:
                answer = (process(request) or None) if process is not None else None
                member.user_setter.note(request, before)
                if answer is not None:
                    _checked(member.path, "process_request()", answer)
                progress[self] += 1
            except Exception as error:  # as Django, which makes a response of it at each middleware
                answer = denial_of(error)
            if answer is not None:
                get_context(request).state.answered_by = self._entering
                return answer
        return None

    def _leave(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        for member in reversed(self.members[: _progress(request).get(self, 0)]):
            process = member.method("process_response")
            if process is not None:
                try:
                    response = _checked(member.path, "process_response()", process(request, response))
                except Exception as error:  # the middleware around it see the response
                    response = make_denial(get_context(request), error, strict=True)
        return response


class _Chain:
    """Adjacent middleware with a ``__call__`` of their own, all synchronous or all asynchronous, in one around hook."""

    def __init__(self, members: Iterable[_Member], hooks: _Layer, *, is_async: bool) -> None:
        self._is_async = is_async
        self._user_setter = _UserSetter(self._aagain if is_async else self._again, is_async=is_async)
        self._handler: Any = self._aget_response if is_async else self._get_response
        self.members: list[_Member] = []
        for member in reversed([*members]):
            if member.make(self._handler):
                self.members.insert(0, member)
                self._handler = (_aconverted if is_async else _converted)(member)
        if self.members:
            hooks.add("around", self._hook(), ", ".join(member.path for member in self.members))

    def _hook(self) -> Callable[..., Any]:
        async def hook(request: HttpRequest, call_next: Callable[..., Awaitable[HttpResponseBase]]) -> HttpResponseBase:
            response: HttpResponseBase
            if self._is_async:
                with self._around(request, call_next):
                    response = await self._handler(request)
            else:
                state, thread = get_context(request).state, HeldThread[HttpResponseBase]()
                state.held_threads += (thread,)
                try:
                    response = await run_around(thread, partial(self._call, request), call_next)
                finally:
                    state.held_threads = tuple(each for each in state.held_threads if each is not thread)
            return response

        return hook

    def _call(self, request: HttpRequest, get_response: Callable[..., HttpResponseBase]) -> HttpResponseBase:
        with noting_changes() as carry:

            def inside(request: HttpRequest) -> HttpResponseBase:
                carry()
                return get_response(request)

            with self._around(request, inside):
                response: HttpResponseBase = self._handler(request)
                return response

    @contextmanager
    def _around(self, request: HttpRequest, get_response: Callable[..., Any]) -> Iterator[None]:
        progress = _progress(request)
        around = progress.get(self)  # It is called again for a layer inside that has another user.
        progress[self] = get_response, request.user
        try:
            yield
        finally:
            del progress[self]
            if around is not None:
                progress[self] = around

    def _inside(self, request: HttpRequest) -> Callable[..., Any]:
        try:
            get_response, before = _progress(request)[self]
        except KeyError:
            path = self.members[-1].path if self.members else "?"
            raise HookError(
                f"The middleware {path} called get_response() with another request than its own, or after its answer."
            ) from None
        self._user_setter.note(request, before)
        return cast("Callable[..., Any]", get_response)

    def _get_response(self, request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = self._inside(request)(request)
        return response

    async def _aget_response(self, request: HttpRequest) -> HttpResponseBase:
        response: HttpResponseBase = await self._inside(request)(request)
        return response

    def _again(self, request: HttpRequest) -> HttpResponseBase:
        with self._around(request, lambda request: HttpResponse(status=101)):
            response: HttpResponseBase = self._handler(request)
            return response

    async def _aagain(self, request: HttpRequest) -> HttpResponseBase:
        async def accept(request: HttpRequest) -> HttpResponseBase:
            return HttpResponse(status=101)

        with self._around(request, accept):
            response: HttpResponseBase = await self._handler(request)
            return response


def _converted(member: _Member) -> Callable[[HttpRequest], HttpResponseBase]:
    """A middleware whose exceptions become responses, so that those around it see one."""

    def handler(request: HttpRequest) -> HttpResponseBase:
        try:
            return _checked(member.path, "__call__()", member.middleware(request))
        except Exception as error:  # as Django
            return make_denial(get_context(request), error, strict=True)

    return handler


def _aconverted(member: _Member) -> Callable[[HttpRequest], Awaitable[HttpResponseBase]]:
    """As `_converted`, of an asynchronous one."""

    async def handler(request: HttpRequest) -> HttpResponseBase:
        try:
            return _checked(member.path, "__call__()", await member.middleware(request))
        except Exception as error:  # as Django
            return await respond(get_context(request), error)

    return handler


def _view_hook(process: Callable[..., Any]) -> Callable[..., Any]:
    """A route hook that calls ``process_view``."""

    def arguments(request: HttpRequest) -> tuple[Any, ...]:
        match: Any = request.resolver_match
        return request, match.func, match.args, match.kwargs

    def hook(request: HttpRequest) -> Any:
        try:
            with noting_changes() as carry:
                answer = process(*arguments(request)) or None
                carry()
                return answer
        except Exception as error:  # as Django, which does not ask process_exception() about it
            return denial_of(error)

    async def async_hook(request: HttpRequest) -> Any:
        try:
            return await process(*arguments(request)) or None
        except Exception as error:  # as Django, which does not ask process_exception() about it
            return denial_of(error)

    return async_hook if iscoroutinefunction(process) else hook


def _exception_hook(process: Callable[..., Any]) -> Callable[..., Any]:
    """An exception hook that calls ``process_exception``.

    It does not for a `Deny`, which is an answer; and as in Django, not where there is no route, for then no view has
    raised the exception.
    """

    def is_asked(request: HttpRequest, exception: Exception) -> bool:
        if isinstance(exception, (Resolver404, NoRoute)):
            return request.resolver_match is not None
        return not isinstance(exception, Deny)

    def hook(request: HttpRequest, exception: Exception) -> Any:
        return (process(request, exception) or None) if is_asked(request, exception) else None

    async def async_hook(request: HttpRequest, exception: Exception) -> Any:
        return (await process(request, exception) or None) if is_asked(request, exception) else None

    return async_hook if iscoroutinefunction(process) else hook


def _name(middleware: Any) -> str:
    cls = type(middleware)
    return f"{cls.__module__}.{cls.__qualname__}"
