"""Decorators that put policies on consumers, views and ASGI apps.

They stack (all must pass, from the outside in), bind subclasses too, and hold without
`DenyMiddlewareStack`: a forgotten stack opens no door.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from asgiref.sync import markcoroutinefunction
from channels.consumer import AsyncConsumer
from django.urls.exceptions import Resolver404
from django.views import View

from .handlers import http, websocket
from .handlers.view import guard_view
from .hooks.registry import as_registries
from .policies.builtin import AllowAny, HasPermission, IsAuthenticated, Policy, UserPassesTest
from .routing.guards import Guards, add_guards, guards_of
from .routing.match import Unseen
from .routing.middleware import Layer, seen_through
from .routing.resolver import is_nested, look_ahead

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.http import HttpRequest

    from .hooks.registry import Hooks
    from .types import ASGIApp, Receive, Scope, Send

E = TypeVar("E", bound=Callable[..., Any])


def require(policy: Policy) -> Callable[[E], E]:
    """Demand that `policy` allows a request before it reaches what is decorated.

    Goes on consumer classes, function views, class-based views and ASGI apps (``as_asgi()``, routers,
    anything that takes ``scope, receive, send``); a decorated router still routes. Raises `TypeError`
    for anything else.
    """
    if not isinstance(policy, Policy):
        example = f"{policy.__name__}()" if isinstance(policy, type) else "IsAuthenticated()"
        raise TypeError(f"require() takes a policy such as {example}, found {policy!r}.")

    def decorate(endpoint: E) -> E:
        return guard(endpoint, Guards((policy,)))

    return decorate


def public(endpoint: E) -> E:
    """Let everybody in: the default policy does not apply to what is decorated."""
    return guard(endpoint, Guards((AllowAny(),)))


def login_required(endpoint: E) -> E:
    """Demand a user who is logged in: others get a 401, or on a view in a browser the log-in page."""
    return guard(endpoint, Guards((IsAuthenticated(),)))


def permission_required(
    permission: str | Iterable[str],
    *,
    obj: Callable[[HttpRequest], Any] | None = None,
    anonymous: bool = False,
) -> Callable[[E], E]:
    """Demand a permission (or several), on the object that `obj` resolves; see `HasPermission`."""
    return require(HasPermission(permission, obj=obj, anonymous=anonymous))


def user_passes_test(test: Callable[[Any], Any]) -> Callable[[E], E]:
    """Demand that `test(user)` is true, as Django's decorator of this name; `test` may be async."""
    return require(UserPassesTest(test))


def with_hooks(*hooks: Hooks) -> Callable[[E], E]:
    """Run the hooks of these registries around what is decorated, inside those of the site and its stack.

    Goes on what `require` goes on. Raises `TypeError` for arguments that are no `Hooks`.
    """
    registries = as_registries(hooks, "with_hooks()")

    def decorate(endpoint: E) -> E:
        return guard(endpoint, Guards(hooks=registries))

    return decorate


def guard(endpoint: E, guards: Guards) -> E:
    """`endpoint` behind `guards`, by the door that fits what it is."""
    guarded: Any
    if isinstance(endpoint, type):
        guarded = _guard_class(endpoint, guards)
    elif isinstance(endpoint, GuardedApp):
        guarded = GuardedApp(endpoint.inner, guards.around(endpoint.guards))
    elif isinstance(endpoint, AsyncConsumer) or _takes_scope(endpoint):
        guarded = GuardedApp(endpoint, guards)
    elif callable(endpoint):
        guarded = guard_view(endpoint, guards)
    else:
        raise TypeError(
            f"{guards} can guard consumers, views and ASGI apps, found {endpoint!r}. "
            "In a URLconf, decorate the view rather than path() or include()."
        )
    return guarded  # type: ignore[no-any-return]


@seen_through
class GuardedApp(Layer):
    """An ASGI app behind guards. Its other attributes are the app's own, so a router still routes."""

    def __init__(self, inner: ASGIApp, guards: Guards) -> None:
        self.inner = inner
        self.guards = guards
        markcoroutinefunction(self)

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # not set yet, as in copy.copy()
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __repr__(self) -> str:
        return f"<{self.guards} before {self.inner!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await websocket.enter_layer(self, scope, receive, send)
        elif is_nested(scope) and look_ahead(self, scope) is Unseen.UNROUTED:
            raise Resolver404({"path": scope["path_remaining"]})  # for the router around it to go on
        else:
            await _enter_other(self.inner, scope, receive, send, self.guards)


async def _enter_other(app: ASGIApp, scope: Scope, receive: Receive, send: Send, guards: Guards) -> None:
    """Everything but a websocket: HTTP has its door, lifespan has nobody to ask about."""
    if scope["type"] == "http":
        await http.enter_endpoint(app, scope, receive, send, guards)
    elif scope["type"] == "lifespan":
        await app(scope, receive, send)
    else:
        raise ValueError(
            f"{app!r} is guarded by {guards}, which can be asked about 'websocket' and 'http', found a scope "
            f"of type {scope['type']!r}."
        )


def _takes_scope(endpoint: Any) -> bool:
    """Whether `endpoint` is an ASGI app: its first arguments are called scope, receive and send."""
    for follow_wrapped in (False, True):
        try:
            signature = inspect.signature(endpoint, follow_wrapped=follow_wrapped)
        except (TypeError, ValueError):
            return False
        if list(signature.parameters)[:3] == ["scope", "receive", "send"]:
            return True
    return False


def _guard_class(cls: type, guards: Guards) -> type:
    bind: Callable[[Any], None]
    if issubclass(cls, AsyncConsumer):
        bind = _bind_call
        _bind_new(cls)
    elif issubclass(cls, View):
        bind = _bind_as_view
    else:
        raise TypeError(
            f"{guards} can guard classes of consumers and views, found {cls!r}, which is neither."
        )
    add_guards(cls, guards)
    # Subclasses that were made before the decorator came are bound as well.
    for subclass in (cls, *_subclasses(cls)):
        bind(subclass)
    _bind_future_subclasses(cls, bind)
    return cls


def _subclasses(cls: type) -> Iterator[type[Any]]:
    subclass: type[Any]
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


# By identity: an attribute would travel with functools.wraps() to functions that check nothing.
_bound: WeakSet[Callable[..., Any]] = WeakSet()


def _bind_call(cls: Any) -> None:
    """Put the check before the body of ``cls.__call__``, whoever defines it."""
    if cls.__call__ in _bound:
        return
    own = vars(cls).get("__call__")

    @functools.wraps(cls.__call__)
    async def __call__(self: Any, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: N807
        body = super(cls, self).__call__ if own is None else types.MethodType(own, self)
        guards = guards_of(type(self))
        if scope["type"] == "websocket":
            await websocket.enter_endpoint(body, scope, receive, send, guards)
        else:
            await _enter_other(body, scope, receive, send, guards)

    _bound.add(__call__)
    cls.__call__ = __call__


def is_bound(cls: Any) -> bool:
    """Whether a consumer class asks what guards it, by itself or as it is made."""
    return cls.__call__ in _bound or cls.__new__ in _bound


def _bind_as_view(cls: Any) -> None:
    """Put the check around the view that ``cls.as_view()`` makes, whoever defines it."""
    if cls.as_view.__func__ in _bound:
        return
    own = vars(cls).get("as_view")

    def as_view(subclass: Any, /, *args: Any, **initkwargs: Any) -> Callable[..., Any]:
        make = super(cls, subclass).as_view if own is None else functools.partial(own.__func__, subclass)
        return guard_view(make(*args, **initkwargs), guards_of(subclass))

    functools.update_wrapper(as_view, cls.as_view.__func__)
    _bound.add(as_view)
    cls.as_view = classmethod(as_view)


def _bind_future_subclasses(cls: Any, bind: Callable[[Any], None]) -> None:
    """Bind each subclass as it is made: it may override what is checked, or inherit it from a mixin."""
    if getattr(cls.__init_subclass__, "__func__", None) in _bound:
        return
    own = vars(cls).get("__init_subclass__")

    def __init_subclass__(subclass: Any, /, **kwargs: Any) -> None:  # noqa: N807
        if own is not None:
            own.__func__(subclass, **kwargs)
        else:
            super(cls, subclass).__init_subclass__(**kwargs)
        bind(subclass)

    _bound.add(__init_subclass__)
    cls.__init_subclass__ = classmethod(__init_subclass__)


def _bind_new(cls: Any) -> None:
    """Bind a subclass at the latest when it is made use of: mixins can keep ``__init_subclass__`` from us."""
    if cls.__new__ in _bound:
        return
    own = vars(cls).get("__new__")

    def __new__(subclass: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        _bind_call(subclass)
        make = super(cls, subclass).__new__ if own is None else own.__func__
        return make(subclass) if make is object.__new__ else make(subclass, *args, **kwargs)

    _bound.add(__new__)
    cls.__new__ = staticmethod(__new__)
