"""Hooks: functions of the site that run around every request, the same for sockets and views."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeVar, get_args, overload

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ..conf import conf
from ..types import Protocol

F = TypeVar("F", bound=Callable[..., Any])

Kind = Literal["request", "route", "response", "exception", "around"]

_PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


@dataclass(frozen=True, eq=False, slots=True)
class Hook:
    """One registration of a function: what was added twice runs twice, and each once per request."""

    kind: Kind
    function: Callable[..., Any]
    priority: float
    protocols: tuple[Protocol, ...]
    #: Whether a synchronous function may block, and so needs a thread.
    blocking: bool
    #: The exceptions that a hook of the kind ``exception`` takes.
    types: tuple[type[Exception], ...] = ()
    is_async: bool = field(init=False)
    #: Whether it may run here and now, wherever that is.
    is_quick: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_async", _is_async(self.function))
        object.__setattr__(self, "is_quick", not self.is_async and not self.blocking)

    def __repr__(self) -> str:
        return f"<on_{self.kind} hook {self.name}>"

    @property
    def name(self) -> str:
        """The dotted name of the function."""
        name = getattr(self.function, "__qualname__", None) or repr(self.function)
        return f"{getattr(self.function, '__module__', '?')}.{name}"

    @property
    def label(self) -> str:
        """What it was added by, and its name: ``on_request chat.hooks.tag``."""
        return f"{'around' if self.kind == 'around' else f'on_{self.kind}'} {self.name}"

    def distance(self, error: Exception) -> int | None:
        """How far the nearest type that this hook takes is from that of `error`; None without one."""
        mro = type(error).__mro__
        return min((mro.index(taken) for taken in self.types if taken in mro), default=None)


#: What to call when hooks are added to any registry.
_on_change: list[Callable[[], None]] = []


def on_change(function: F) -> F:
    """Have `function` called when hooks are added to any registry."""
    _on_change.append(function)
    return function


class Hooks:
    """A registry of hooks. Each method works as a decorator, bare or with arguments, and as a plain call.

    `priority`: higher ones come first on the way in and last on the way out; equal ones as declared.
    `protocols`: ``("websocket",)`` or ``("http",)`` narrows a hook; by default it runs for both.
    `blocking=False` says of a synchronous hook that it only touches the request and the response, and so
    may run on the event loop.

    Registries are given to a site (``CHANNELS_WSDENY["HOOKS"]``), to a `DenyMiddlewareStack`, or to one
    endpoint (`channels_wsdeny.decorators.with_hooks`). Hooks may be added at any time before they are needed.

    The methods raise `TypeError` or `ValueError` for what is no function, priority or protocol.
    """

    def __init__(self) -> None:
        self._entries: list[Hook | Hooks] = []

    def __iter__(self) -> Iterator[Hook]:
        """All hooks as declared, those of included registries in the place of their inclusion."""
        return iter(_flat(self, ()))

    def __repr__(self) -> str:
        return f"<Hooks: {len(list(self))}>"

    def include(self, other: Hooks) -> Hooks:
        """Add all hooks of `other`, also those that it gets later; returns this registry.

        Raises `TypeError` for what is no `Hooks`, `ValueError` if `other` includes this one.
        """
        if not isinstance(other, Hooks):
            raise TypeError(f"Hooks.include() takes another Hooks, found {other!r}.")
        if self is other or self in _registries(other):
            raise ValueError("Hooks.include(): the other registry includes this one already.")
        self._add(other)
        return self

    @overload
    def on_request(self, function: F, /) -> F: ...
    @overload
    def on_request(
        self,
        function: None = None,
        /,
        *,
        priority: float = 0,
        protocols: Iterable[str] | None = None,
        blocking: bool = True,
    ) -> Callable[[F], F]: ...
    def on_request(
        self,
        function: Any = None,
        /,
        *,
        priority: float = 0,
        protocols: Iterable[str] | None = None,
        blocking: bool = True,
    ) -> Any:
        """``function(request)`` runs on the way in; a response or `Deny` it returns ends it there."""
        options = {"priority": priority, "protocols": protocols, "blocking": blocking}
        return self._register("request", function, **options)

    @overload
    def on_route(self, function: F, /) -> F: ...
    @overload
    def on_route(
        self,
        function: None = None,
        /,
        *,
        priority: float = 0,
        protocols: Iterable[str] | None = None,
        blocking: bool = True,
    ) -> Callable[[F], F]: ...
    def on_route(
        self,
        function: Any = None,
        /,
        *,
        priority: float = 0,
        protocols: Iterable[str] | None = None,
        blocking: bool = True,
    ) -> Any:
        """``function(request)`` runs once the endpoint is known, before its policy.

        ``request.resolver_match`` tells the route; its ``kwargs`` may be changed. A response (or `Deny`)
        that the function returns ends the request there.
        """
        options = {"priority": priority, "protocols": protocols, "blocking": blocking}
        return self._register("route", function, **options)

    @overload
    def on_response(self, function: F, /) -> F: ...
    @overload
    def on_response(
        self,
        function: None = None,
        /,
        *,
        priority: float = 0,
        protocols: Iterable[str] | None = None,
        blocking: bool = True,
    ) -> Callable[[F], F]: ...
    def on_response(
        self,
        function: Any = None,
        /,
        *,
        priority: float = 0,
        protocols: Iterable[str] | None = None,
        blocking: bool = True,
    ) -> Any:
        """``function(request, response)`` runs on the way out, in the reverse order of request hooks.

        It may change the response, or return another one; then no further response hook runs. For a
        handshake that is accepted, the response has the status 101; any other denies it after all.
        """
        options = {"priority": priority, "protocols": protocols, "blocking": blocking}
        return self._register("response", function, **options)

    def on_exception(
        self,
        *types: Any,
        priority: float = 0,
        protocols: Iterable[str] | None = None,
        blocking: bool = True,
    ) -> Any:
        """``function(request, exception)`` may return a response for an exception of these types.

        Of several hooks the one with the most specific type is asked first; one that returns None leaves
        the exception to the next, and at last to the table of statuses. Without types it takes every
        `Exception`.
        """
        options = {"priority": priority, "protocols": protocols, "blocking": blocking}
        if len(types) == 1 and not isinstance(types[0], type) and callable(types[0]):
            return self._register("exception", types[0], types=(Exception,), **options)
        for taken in types:
            if not (isinstance(taken, type) and issubclass(taken, Exception)):
                raise TypeError(f"Hooks.on_exception() takes subclasses of Exception, found {taken!r}.")
        return self._register("exception", None, types=types or (Exception,), **options)

    @overload
    def around(self, function: F, /) -> F: ...
    @overload
    def around(
        self, function: None = None, /, *, priority: float = 0, protocols: Iterable[str] | None = None
    ) -> Callable[[F], F]: ...
    def around(
        self, function: Any = None, /, *, priority: float = 0, protocols: Iterable[str] | None = None
    ) -> Any:
        """``await function(request, call_next)`` encloses the other hooks and the endpoint.

        ``await call_next(request)`` returns the response; for a socket the 101 or the denial, and the
        consumer lives on after the hook has returned. The function must be a coroutine function.
        """
        options = {"priority": priority, "protocols": protocols}
        return self._register("around", function, **options)

    def _register(self, kind: Kind, function: Any, **options: Any) -> Any:
        if function is None:
            return lambda decorated: self._register(kind, decorated, **options)
        self._add(_hook(kind, function, **options))
        return function

    def _add(self, entry: Hook | Hooks) -> None:
        self._entries.append(entry)
        for changed in _on_change:
            changed()


def are_rescuing() -> bool:
    """Whether any registry has hooks for exceptions, who may want to see the body of a request again."""
    return _rescuing


_rescuing = False


def as_registries(value: object, where: str) -> tuple[Hooks, ...]:
    """`value`, one `Hooks` or several, as a tuple; raises `TypeError` for anything else."""
    found = (
        (value,) if isinstance(value, Hooks) else tuple(value) if isinstance(value, Iterable) else (value,)
    )
    for registry in found:
        if not isinstance(registry, Hooks):
            raise TypeError(f"{where} takes Hooks, found {registry!r}.")
    return found


def site_hooks() -> tuple[Hooks, ...]:
    """The registries of ``CHANNELS_WSDENY["HOOKS"]``; raises `ImproperlyConfigured` if one cannot be used."""
    given = conf.HOOKS
    if not given:
        return ()
    try:
        return tuple(hooks_at(path) for path in given)
    except Exception as error:
        raise ImproperlyConfigured("CHANNELS_WSDENY['HOOKS'] cannot be used.") from error


@lru_cache(maxsize=256)
def hooks_at(path: str | Hooks) -> Hooks:
    """The registry at a dotted path. Raises what importing does, and `TypeError` for anything else there."""
    found = import_string(path) if isinstance(path, str) else path
    if not isinstance(found, Hooks):
        raise TypeError(f"{path!r} is {found!r}, which is no Hooks.")
    return found


def _flat(registry: Hooks, around: tuple[Hooks, ...]) -> Iterator[Hook]:
    for entry in registry._entries:
        if isinstance(entry, Hook):
            yield entry
        else:
            yield from _flat(entry, (*around, registry))


def _registries(registry: Hooks) -> Iterator[Hooks]:
    for entry in registry._entries:
        if isinstance(entry, Hooks):
            yield entry
            yield from _registries(entry)


def _hook(
    kind: Kind,
    function: Any,
    *,
    priority: float = 0,
    protocols: Iterable[str] | None = None,
    blocking: bool = True,
    types: tuple[type[Exception], ...] = (),
) -> Hook:
    name = "around" if kind == "around" else f"on_{kind}"
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"Hooks.{name}() takes a function, found {function!r}.")
    if not isinstance(priority, (int, float)) or isinstance(priority, bool) or math.isnan(priority):
        raise TypeError(f"Hooks.{name}(priority=...) is a number, found {priority!r}.")
    named = (
        _PROTOCOLS if protocols is None else (protocols,) if isinstance(protocols, str) else tuple(protocols)
    )
    if not named or not set(named) <= set(_PROTOCOLS):
        raise ValueError(f"Hooks.{name}(protocols=...) names some of {_PROTOCOLS}, found {protocols!r}.")
    if kind == "around" and not _is_async(function):
        raise TypeError(f"Hooks.around() takes a coroutine function, found {function!r}.")
    if kind == "exception":
        global _rescuing  # noqa: PLW0603 - once there is one, it stays
        _rescuing = True
    return Hook(kind, function, priority, named, blocking, types)  # type: ignore[arg-type]


def _is_async(function: Callable[..., Any]) -> bool:
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
