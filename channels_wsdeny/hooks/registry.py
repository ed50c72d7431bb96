"""The registry of a site's hooks, and the order in which they run."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, get_args, overload

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.http.response import HttpResponseBase
from django.utils.module_loading import import_string

from .. import status as statuses
from ..conf import conf
from ..exceptions import Deny, HookError
from ..http.context import noting
from ..http.request import HandshakeRequest, ScopeRequest
from ..types import Protocol

if TYPE_CHECKING:
    from django.http import HttpRequest

    from ..policies.base import Denial

F = TypeVar("F", bound=Callable[..., Any])

Kind = Literal["request", "route", "response", "exception", "around"]

#: The arguments that hooks are called with.
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "request": ("request",),
    "route": ("request",),
    "response": ("request", "response"),
    "exception": ("request", "exception"),
    "around": ("request", "call_next"),
}
_PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

#: Another object once a hook is added to whatever registry.
generation = object()


@dataclass(frozen=True, eq=False, slots=True)
class Hook:
    """One registration of a function. A function that was registered twice runs twice."""

    kind: Kind
    function: Callable[..., Any]
    priority: float
    protocols: tuple[Protocol, ...]
    #: Whether a synchronous function may block, and so needs a thread.
    blocking: bool
    #: The exceptions that a hook of the kind ``exception`` takes.
    types: tuple[type[Exception], ...]
    is_async: bool
    #: What calls the function where it may block: the function itself, if nothing is to be done around it.
    run: Callable[..., Any] = field(init=False)
    #: Whether it needs a thread or the event loop.
    may_wait: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "may_wait", self.is_async or self.blocking)
        run = self._run_coroutine if self.is_async else self.function
        object.__setattr__(self, "run", self._run_for_route if self.kind == "route" else run)

    def __repr__(self) -> str:
        return f"<{self.label}>"

    @property
    def name(self) -> str:
        """The dotted name of the function."""
        name = getattr(self.function, "__qualname__", None) or repr(self.function)
        return f"{getattr(self.function, '__module__', '?')}.{name}"

    @property
    def label(self) -> str:
        """The method that registered the hook, and its name: ``on_request chat.hooks.tag``."""
        return f"{_method(self.kind)} {self.name}"

    # What a hook is to `run_checks`

    def needs_loop(self) -> bool:
        return self.is_async

    def blocks(self, request: HttpRequest) -> bool:
        return self.blocking

    def run_noted(self, *arguments: Any) -> Denial | None:
        with noting(arguments[0], "hook", self) as note:
            denial = self.denial(self.run(*arguments), arguments)
            note(denial)
        return denial

    async def arun(self, *arguments: Any) -> Denial | None:
        """As `run_noted`, of a coroutine function, on the event loop."""
        with noting(arguments[0], "hook", self) as note:
            answer = await self.function(*arguments)
            if self.kind == "route":
                _keep_route(arguments[0])
            denial = self.denial(answer, arguments)
            note(denial)
        return denial

    def denial(self, answer: object, arguments: tuple[Any, ...]) -> Denial | None:
        """The denial that `answer` is; None to go on. Raises `HookError` for an answer that is neither."""
        if answer is None or (self.kind == "response" and answer is arguments[1]):  # changed in place
            return None
        return self.checked(answer, arguments[0])

    def _run_coroutine(self, *arguments: Any) -> Any:
        return async_to_sync(self.function)(*arguments)

    def _run_for_route(self, request: Any) -> Any:
        answer = self._run_coroutine(request) if self.is_async else self.function(request)
        _keep_route(request)
        return answer

    def checked(self, answer: object, request: Any) -> Denial:
        """`answer`, if a hook may give it to `request`. Raises `HookError` otherwise."""
        if isinstance(answer, Deny):
            return answer
        if isinstance(answer, HttpResponseBase):
            status = answer.status_code
            if isinstance(request, HandshakeRequest) and not statuses.is_denial(status):
                raise HookError(f"{self!r} answered a handshake with {status}. The status of a denial is 300-599.")
            return answer
        if inspect.iscoroutine(answer):
            answer.close()
        raise HookError(f"{self!r} returned a {type(answer).__name__}. A hook returns None, a response or a Deny.")

    def distance(self, error: Exception) -> int | None:
        """The position of the first type that this hook takes in the MRO of `error`; None if it takes none of them."""
        mro = type(error).__mro__
        return min((mro.index(taken) for taken in self.types if taken in mro), default=None)


def _keep_route(request: Any) -> None:
    """Take over what a route hook has changed: Channels has its own copy."""
    if isinstance(request, ScopeRequest):
        request.keep_route()


class HookDecorator:
    """Registers functions as hooks of one kind: as a decorator, bare or with arguments, or as a plain call."""

    def __init__(self, hooks: Hooks, kind: Kind) -> None:
        self._hooks, self._kind = hooks, kind

    @overload
    def __call__(self, function: F, /) -> F: ...
    @overload
    def __call__(
        self,
        function: None = None,
        /,
        *,
        priority: float = 0,
        protocols: Iterable[str] | None = None,
        blocking: bool = True,
    ) -> Callable[[F], F]: ...
    def __call__(self, function: Any = None, /, **options: Any) -> Any:
        """Register `function`, and return it."""
        if function is None:
            return lambda decorated: self._hooks.register(decorated, self._kind, **options)
        return self._hooks.register(function, self._kind, **options)


class Hooks:
    """A registry of hooks.

    `priority`: hooks of a higher one run earlier for the request and later for the response; of the same one, as
    declared. `protocols`: ``("websocket",)`` or ``("http",)`` narrows a hook; by default it runs for both.
    `blocking=False` says that a synchronous hook only touches the request and the response, and so may run on
    the event loop.

    Registries are given to a site (``CHANNELS_WSDENY["HOOKS"]``), to a `DenyMiddlewareStack`, or to one endpoint
    (`channels_wsdeny.decorators.with_hooks`). Hooks may be added at any time before they are needed. Registering
    raises `TypeError` or `ValueError` for what is no function, priority or protocol.
    """

    def __init__(self) -> None:
        self._entries: list[Hook | Hooks] = []

    def __iter__(self) -> Iterator[Hook]:
        """All hooks as declared, those of included registries in the place of their inclusion."""
        for entry in self._entries:
            if isinstance(entry, Hook):
                yield entry
            else:
                yield from entry

    def __repr__(self) -> str:
        return f"<Hooks: {len(list(self))}>"

    @property
    def on_request(self) -> HookDecorator:
        """Register ``function(request)``, which runs first; a response or `Deny` that it returns is the answer."""
        return HookDecorator(self, "request")

    @property
    def on_route(self) -> HookDecorator:
        """Register ``function(request)``, which runs once the endpoint is known, before its policies.

        ``request.resolver_match`` is the route; its ``kwargs`` may be changed. A response or `Deny` that the
        function returns is the answer.
        """
        return HookDecorator(self, "route")

    @property
    def on_response(self) -> HookDecorator:
        """Register ``function(request, response)``; response hooks run in the reverse order of request hooks.

        It may change the response, or return another one or a `Deny`; then no other response hook runs. An
        accepted handshake has a response of status 101; any other response denies it after all.
        """
        return HookDecorator(self, "response")

    @property
    def around(self) -> HookDecorator:
        """Register ``async def function(request, call_next)``, which encloses the other hooks and the endpoint.

        ``await call_next(request)`` returns the response: of a handshake the 101 or the denial, and the consumer
        runs on after the hook has returned. The function awaits it itself, once, with its own request, and
        returns a response or a `Deny`.
        """
        return HookDecorator(self, "around")

    def on_exception(self, *types: Any, **options: Any) -> Any:
        """Register ``function(request, exception)``, which may return a response or `Deny` for an exception.

        It is asked about exceptions of these types (without types: every `Exception`). Of several hooks that
        with the most specific type is asked first; one that returns None leaves the exception to the next, and
        at last to the table of statuses.
        """
        if len(types) == 1 and not isinstance(types[0], type) and callable(types[0]):
            return self.register(types[0], "exception", **options)
        for taken in types:
            if not (isinstance(taken, type) and issubclass(taken, Exception)):
                raise TypeError(f"Hooks.on_exception() takes subclasses of Exception, found {taken!r}.")
        return lambda decorated: self.register(decorated, "exception", types=types, **options)

    def middleware(self, kind: Any = "request") -> Any:
        """Register a hook as in Sanic: ``@hooks.middleware`` or ``@hooks.middleware("response")``."""
        return self.register(kind, "request") if callable(kind) else HookDecorator(self, kind)()

    def register(
        self,
        function: F,
        kind: Kind,
        *,
        priority: float = 0,
        protocols: Iterable[str] | None = None,
        blocking: bool = True,
        types: tuple[type[Exception], ...] = (),
    ) -> F:
        """Register `function` as a hook of `kind`, and return it; the same as the methods, as a call."""
        if kind not in _ARGUMENTS:
            raise ValueError(f"Hooks.register(kind=...) is one of {[*_ARGUMENTS]}, found {kind!r}.")
        method = _method(kind)
        arguments = _ARGUMENTS[kind]
        if not callable(function) or isinstance(function, type) or not _takes(function, arguments):
            called = f"a function that is called with ({', '.join(arguments)})"
            raise TypeError(f"Hooks.{method}() takes {called}, found {function!r}.")
        if not isinstance(priority, (int, float)) or isinstance(priority, bool) or math.isnan(priority):
            raise TypeError(f"Hooks.{method}(priority=...) is a number, found {priority!r}.")
        if protocols is None:
            protocols = _PROTOCOLS
        named: Any = (protocols,) if isinstance(protocols, str) else tuple(protocols)
        if not named or not set(named) <= set(_PROTOCOLS):
            raise ValueError(f"Hooks.{method}(protocols=...) names some of {_PROTOCOLS}, found {protocols!r}.")
        is_async = iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)
        if kind == "around" and not is_async:
            raise TypeError(f"Hooks.around() takes a coroutine function, found {function!r}.")
        if kind == "exception" and not types:
            types = (Exception,)
        self._add(Hook(kind, function, priority, named, blocking, types, is_async))
        return function

    def include(self, other: Hooks) -> Hooks:
        """Add all hooks of `other`, also those that it gets later; returns this registry.

        Raises `TypeError` for what is no `Hooks`, `ValueError` if `other` includes this one.
        """
        if not isinstance(other, Hooks):
            raise TypeError(f"Hooks.include() takes another Hooks, found {other!r}.")
        if self is other or self in other._included():
            raise ValueError("Hooks.include(): the other registry includes this one already.")
        self._add(other)
        return self

    def _included(self) -> Iterator[Hooks]:
        for entry in self._entries:
            if isinstance(entry, Hooks):
                yield entry
                yield from entry._included()

    def _add(self, entry: Hook | Hooks) -> None:
        global generation  # noqa: PLW0603 - one for all registries, which include one another
        self._entries.append(entry)
        generation = object()


class OrderedHooks(NamedTuple):
    """The hooks of some registries for one protocol, in the order in which they run."""

    request: tuple[Hook, ...] = ()
    route: tuple[Hook, ...] = ()
    response: tuple[Hook, ...] = ()
    exception: tuple[Hook, ...] = ()
    around: tuple[Hook, ...] = ()
    #: The hooks of all kinds.
    unordered: frozenset[Hook] = frozenset()
    #: Those that run once for a request: route hooks run for each route.
    once: frozenset[Hook] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.unordered)

    def all(self) -> tuple[Hook, ...]:
        """The hooks, kind by kind."""
        return self.request + self.route + self.response + self.exception + self.around

    def without(self, hooks: frozenset[Hook]) -> OrderedHooks:
        """The ordered hooks without those in `hooks`."""
        kinds = {kind: tuple(hook for hook in getattr(self, kind) if hook not in hooks) for kind in _ARGUMENTS}
        return OrderedHooks(**kinds, unordered=self.unordered - hooks, once=self.once - hooks)


NO_HOOKS = OrderedHooks()


def ordered_hooks(registries: tuple[Hooks, ...], protocol: Protocol) -> OrderedHooks:
    """The hooks of `registries`, the outermost first, for `protocol`; kept until a hook is added."""
    return _ordered(registries, protocol, generation)


@lru_cache(maxsize=256)
def _ordered(registries: tuple[Hooks, ...], protocol: Protocol, generation: object) -> OrderedHooks:
    """As `ordered_hooks`. What a thread has ordered while another one added a hook is of a former generation."""
    declared = dict.fromkeys(hook for registry in registries for hook in registry if protocol in hook.protocols)
    ordered = sorted(declared, key=lambda hook: -hook.priority)  # stable: equal ones as declared
    kinds = {kind: tuple(hook for hook in ordered if hook.kind == kind) for kind in _ARGUMENTS}
    unordered = frozenset(declared)
    kinds["response"] = kinds["response"][::-1]
    return OrderedHooks(**kinds, unordered=unordered, once=unordered.difference(kinds["route"]))


def as_registries(value: object, where: str) -> tuple[Hooks, ...]:
    """`value`, one `Hooks` or several, as a tuple; raises `TypeError` for anything else."""
    found: tuple[Any, ...]
    found = tuple(value) if isinstance(value, Iterable) and not isinstance(value, (Hooks, str)) else (value,)
    for registry in found:
        if not isinstance(registry, Hooks):
            remedy = " Import it, or name it in CHANNELS_WSDENY['HOOKS']." if isinstance(registry, str) else ""
            raise TypeError(f"{where} takes Hooks, found {registry!r}.{remedy}")
    return found


def site_hooks() -> tuple[Hooks, ...]:
    """The registries of ``CHANNELS_WSDENY["HOOKS"]``; raises `ImproperlyConfigured` if one cannot be used."""
    given = conf.HOOKS
    if not given:
        return ()
    try:
        return _registries_at(tuple(given))
    except Exception as error:
        raise ImproperlyConfigured("CHANNELS_WSDENY['HOOKS'] cannot be used.") from error


@lru_cache(maxsize=256)
def _registries_at(paths: tuple[str | Hooks, ...]) -> tuple[Hooks, ...]:
    return tuple(map(hooks_at, paths))


def hooks_at(path: str | Hooks) -> Hooks:
    """The registry at a dotted path. Raises what importing does, and `TypeError` for anything else there."""
    found = import_string(path) if isinstance(path, str) else path
    if not isinstance(found, Hooks):
        raise TypeError(f"{path!r} is {found!r}, which is no Hooks.")
    return found


def _method(kind: Kind) -> str:
    return "around" if kind == "around" else f"on_{kind}"


def _takes(function: Callable[..., Any], arguments: tuple[str, ...]) -> bool:
    try:
        signature = inspect.signature(function)
    except ValueError:  # pragma: no cover - Functions not written in Python may have none; which, differs by version.
        return True
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True
