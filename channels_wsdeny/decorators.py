"""Decorators that put policies and hooks on consumers, views and ASGI applications.

They can be stacked (all policies must allow, the outermost is asked first), subclasses inherit them, and they also work
without a `DenyMiddlewareStack`.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Never, TypeVar

from asgiref.sync import markcoroutinefunction
from channels.consumer import AsyncConsumer
from django.utils.decorators import classonlymethod
from django.views import View

from .handlers import http, websocket
from .handlers.view import guard_view
from .hooks.registry import as_registries
from .policies import AllowAny, HasPermission, IsAuthenticated, Policy, UserPassesTest
from .routing.guards import (
    NO_GUARDS,
    ASGIMiddleware,
    Guards,
    add_guards,
    asgi_names,
    bound_functions,
    guards_of,
    is_asgi_app,
    is_taken_apart,
    transparent,
    uncalled,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .hooks.registry import Hooks
    from .types import ASGIApp, HttpRequest, Receive, Scope, Send

__all__ = ["login_required", "permission_required", "public", "require", "user_passes_test", "with_hooks"]

E = TypeVar("E", bound=Callable[..., Any])


def require(policy: Policy, *others: Never, enforce: bool = True) -> Callable[[E], E]:
    """Require that `policy` allows a request before it reaches the decorated endpoint.

    Decorates consumer classes, function views, class-based views and ASGI applications (``as_asgi()``, routers,
    any callable that takes ``scope, receive, send``); a decorated router still routes. Raises `TypeError` for
    anything else.

    With ``enforce=False`` the policy is only asked, once all others have allowed, and the log says what it would
    have denied. It does not count as a policy: the default policy applies as without it.
    """
    found: Any = (policy, *others) if others else policy
    if not isinstance(found, Policy):
        raise TypeError(f"Write {_remedy(found)}: require() takes a policy, found {found!r}.")
    if not isinstance(enforce, bool):
        raise TypeError(f"require(enforce=...) is True or False, found {enforce!r}.")
    guards = Guards((policy,)) if enforce else Guards(reported=(policy,))
    return lambda endpoint: guard(endpoint, guards)


def _remedy(found: object) -> str:
    """What to write in place of `found`, which is no policy: never what opens more than that may have been meant to."""
    if isinstance(found, type) and issubclass(found, Policy):
        return f"@require({found.__name__}())"
    if isinstance(found, str):
        return f"@permission_required({found!r}) for a permission"
    if isinstance(found, (list, tuple)):
        return "one policy, combined by & or |"
    if hasattr(found, "has_permission"):
        named = found if isinstance(found, type) else type(found)
        return f"@require(RestFramework(permissions=[{named.__name__}])) for a class of REST framework"
    of_function = ", or for a function of yours a Policy with check(), or UserPassesTest(function)"
    return f"@require(IsAuthenticated()), for example{of_function if isinstance(found, types.FunctionType) else ''}"


#: What a decorator is called with that takes no arguments, and is written with parentheses.
_NOTHING: Any = object()


def public(endpoint: E = _NOTHING) -> E:
    """Allow every request: the default policy does not apply to the decorated endpoint."""
    _refuse_nothing("public", endpoint)
    return guard(endpoint, Guards((AllowAny(),)))


def login_required(endpoint: E = _NOTHING, **of_django: Never) -> E:
    """Require a user who is logged in: others get a 401, or on a view in a browser the log-in page.

    Raises `TypeError` for the arguments of Django's decorator of this name.
    """
    _refuse_arguments("login_required", of_django)
    _refuse_nothing("login_required", endpoint)
    return guard(endpoint, Guards((IsAuthenticated(),)))


def _refuse_nothing(decorator: str, endpoint: object) -> None:
    if endpoint is _NOTHING:
        raise TypeError(f"Write @{decorator} without parentheses: it takes no arguments but what it decorates.")


def _refuse_arguments(decorator: str, of_django: Iterable[str]) -> None:
    if of_django:
        raise TypeError(
            f"{decorator}() takes no {' or '.join(of_django)}: it denies with a 401 or 403, and sends browsers that "
            "ask for a view to the log-in page of LOGIN_URL."
        )


def permission_required(
    permission: str | Iterable[str],
    *others: Never,
    obj: Callable[[HttpRequest], Any] | None = None,
    anonymous: bool = False,
    **of_django: Never,
) -> Callable[[E], E]:
    """Require a permission (or several), on the object that `obj` resolves; see `HasPermission`."""
    _refuse_arguments("permission_required", of_django)
    return require(HasPermission(permission, *others, obj=obj, anonymous=anonymous))


def user_passes_test(test: Callable[[Any], Any], **of_django: Never) -> Callable[[E], E]:
    """Require that `test(user)` returns True, as Django's decorator of this name; `test` may be async."""
    _refuse_arguments("user_passes_test", of_django)
    if isinstance(test, type) or is_asgi_app(test) or asgi_names(test):
        raise TypeError(f"Write @user_passes_test(test), with a function on the user, found {test!r}.")
    return require(UserPassesTest(test))


def with_hooks(*hooks: Hooks) -> Callable[[E], E]:
    """Run the hooks of these registries around the decorated endpoint, inside those of the site and its stack.

    Decorates what `require` does. Raises `TypeError` for arguments that are no `Hooks`.
    """
    guards = Guards(hooks=as_registries(hooks, "with_hooks()"))
    return lambda endpoint: guard(endpoint, guards)


def guard(endpoint: E, guards: Guards) -> E:
    """`endpoint` behind `guards`."""
    guarded: Any
    if isinstance(endpoint, type):
        guarded = _guard_class(endpoint, guards)
    elif isinstance(endpoint, GuardedApp):
        guarded = GuardedApp(endpoint.inner, guards.around(endpoint.guards), owes_default=endpoint.owes_default)
    elif isinstance(endpoint, types.FunctionType) and endpoint.__code__.co_varnames[:1] == ("self",):
        raise TypeError(
            f"{guards} cannot guard the method {endpoint.__qualname__}. Decorate the class of the consumer or view; "
            "for one method of a view use django.utils.decorators.method_decorator."
        )
    elif isinstance(endpoint, types.FunctionType) and "_ninja_operation" in vars(endpoint):
        raise TypeError(
            f"{guards} would guard nothing: Ninja calls {endpoint.__qualname__} as it was before. Put this decorator "
            "below that of the operation, such as @api.get()."
        )
    elif isinstance(endpoint, AsyncConsumer):
        name = type(endpoint).__name__
        raise TypeError(
            f"{guards} cannot guard an instance of {name}, which all connections would share. Decorate the class, and "
            f"write {name}.as_asgi() in the route."
        )
    elif is_taken_apart(endpoint):
        name = type(endpoint).__name__
        raise TypeError(
            f"{guards} cannot guard the {name} of an application, which calls what is in it, past what is around it. "
            "Decorate the application before it is mounted, or the one around."
        )
    elif name := uncalled(endpoint):
        raise TypeError(f"{guards} cannot guard {name} itself. Decorate the class, or what {name}() returns.")
    elif is_asgi_app(endpoint):
        guarded = GuardedApp(endpoint, guards)
    elif names := asgi_names(endpoint):
        raise TypeError(
            f"{guards} cannot guard {endpoint!r}: it takes ({', '.join(names)}). An ASGI app must take "
            "(scope, receive, send) by these names, and a view a request first, by the name request."
        )
    elif callable(endpoint):
        guarded = guard_view(endpoint, guards)
    else:
        raise TypeError(
            f"{guards} can guard consumers, views and ASGI apps, found {endpoint!r}. "
            "In a URLconf, decorate the view rather than path() or include()."
        )
    found: E = guarded
    return found


@transparent
class GuardedApp(ASGIMiddleware):
    """An ASGI application behind guards. Its other attributes are the application's, so a router still routes."""

    def __init__(self, inner: ASGIApp, guards: Guards, *, owes_default: bool = False) -> None:
        self.inner = inner
        self.guards = guards
        self.owes_default = owes_default or guards.decide
        markcoroutinefunction(self)

    def __getattr__(self, name: str) -> Any:
        if name in {"inner", "__deepcopy__"}:  # not set yet, as in copy.copy(); a copy of the application has no guards
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __repr__(self) -> str:
        return f"<{self.guards} before {self.inner!r}>"

    def guard(self, app: ASGIApp) -> ASGIApp:
        """`app`, resolved anew when middleware of the site calls it."""
        return GuardedApp(app, NO_GUARDS, owes_default=self.owes_default)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await websocket.enter_middleware(self, scope, receive, send)
        elif scope["type"] == "http":
            await http.enter_middleware(self, scope, receive, send)
        else:
            await _enter_other(self.inner, scope, receive, send, self.guards)


async def _enter_other(app: ASGIApp, scope: Scope, receive: Receive, send: Send, guards: Guards) -> None:
    """Run an application for a scope that is not ``websocket``. Lifespan has no request, so no policy is asked."""
    if scope["type"] == "http":
        await http.enter_endpoint(app, scope, receive, send, guards)
    elif scope["type"] == "lifespan" or not guards.decide:
        await app(scope, receive, send)
    else:
        raise ValueError(
            f"{app!r} is guarded by {guards}, which can be asked about 'websocket' and 'http' scopes, found the type "
            f"{scope['type']!r}."
        )


def _guard_class(cls: Any, guards: Guards) -> Any:
    if issubclass(cls, AsyncConsumer):
        _bind_call(cls)
        _bind_instances(cls)
    elif issubclass(cls, View):
        _bind_views(cls)
    else:
        raise TypeError(f"{guards} can guard classes of consumers and views, found {cls!r}, which is neither.")
    add_guards(cls, guards)
    return cls


def _bind_instances(cls: Any) -> None:
    """Bind the class of each consumer when it is made as well, for a subclass or a mixin may override ``__call__``."""
    if cls.__new__ in bound_functions:
        return
    own = vars(cls).get("__new__")

    def __new__(subclass: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        _bind_call(subclass)
        make = super(cls, subclass).__new__ if own is None else own.__func__
        return make(subclass) if make is object.__new__ else make(subclass, *args, **kwargs)

    bound_functions.add(__new__)
    cls.__new__ = staticmethod(__new__)


def _bind_call(cls: Any) -> None:
    """Put the check before the body of ``cls.__call__``, whichever class defines it."""
    if cls.__call__ in bound_functions:
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

    bound_functions.add(__call__)
    cls.__call__ = __call__


def _bind_views(cls: Any) -> None:
    """Bind `cls` and its subclasses, for each may override ``as_view()``: those there are, and others once defined."""
    for subclass in cls.__subclasses__():
        _bind_views(subclass)
    _bind_as_view(cls)
    own = vars(cls).get("__init_subclass__")

    def __init_subclass__(subclass: Any, /, **kwargs: Any) -> None:  # noqa: N807
        make = super(cls, subclass).__init_subclass__ if own is None else own.__get__(None, subclass)
        make(**kwargs)
        # One of its own may not call this one by super().
        bind = _bind_views if "__init_subclass__" in vars(subclass) else _bind_as_view
        bind(subclass)

    cls.__init_subclass__ = classmethod(__init_subclass__)


def _bind_as_view(cls: Any) -> None:
    """Put the check around the view that ``cls.as_view()`` makes, whichever class defines it."""
    if cls.as_view.__func__ not in bound_functions:
        wrap_as_view(cls, lambda subclass, view: guard_view(view, guards_of(subclass)))
        bound_functions.add(cls.as_view.__func__)


def wrap_as_view(cls: Any, wrap: Callable[[Any, Callable[..., Any]], Any]) -> None:
    """Have ``cls.as_view()`` return what `wrap` makes of the class and the view, whichever class defines it."""
    own = vars(cls).get("as_view")

    def as_view(subclass: Any, /, *args: Any, **initkwargs: Any) -> Any:
        make = super(cls, subclass).as_view if own is None else own.__get__(None, subclass)
        return wrap(subclass, make(*args, **initkwargs))

    functools.update_wrapper(as_view, cls.as_view.__func__)
    cls.as_view = classonlymethod(as_view)
