"""The view door: hooks and policies on Django views, synchronous and asynchronous, under WSGI and ASGI.

The view's own exceptions stay Django's business, unless a hook takes them; but for `Deny`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary, ref

from asgiref.sync import iscoroutinefunction
from django.db import connections
from django.http import HttpRequest

from ..decisions import ALLOWED, Raised, Steps, Verdict
from ..drivers import drive_sync
from ..exceptions import Deny
from ..http import content
from ..http.exception_handler import denial_for
from . import corridor
from .admission import admission
from .call import Call, answer, answer_sync, refuse, rescue, through_django

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http.response import HttpResponseBase

    from ..hooks.registry import Hooks
    from ..routing.guards import Guards


class _Guarded(NamedTuple):
    """What is behind a guarded view."""

    view: Callable[..., Any]
    guards: Guards
    itself: Callable[[], Any]


# By identity: an attribute would travel with functools.wraps() to functions that check nothing.
_guarded: WeakKeyDictionary[Callable[..., Any], _Guarded] = WeakKeyDictionary()


def guard_view(view: Callable[..., Any], guards: Guards) -> Callable[..., Any]:
    """`view` behind `guards`; a coroutine function stays one."""
    named = view
    if guards_of_view(view) is not None:
        # Decorators on one another become one, so that hooks come before policies.
        view, inner, _ = _guarded[view]
        guards = guards.around(inner)
    if iscoroutinefunction(view):

        @functools.wraps(named)
        async def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            return await answer(ViewCall(request, view, guards, args, kwargs))

    else:

        @functools.wraps(named)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            return answer_sync(ViewCall(request, view, guards, args, kwargs))

    _guarded[guarded] = _Guarded(view, guards, ref(guarded))
    return guarded


def guards_of_view(view: Any) -> Guards | None:
    """The guards of a view that is guarded itself, not by something that it may call; None if it is not."""
    try:
        found = _guarded.get(view)
    except TypeError:  # Not hashable, or not to be referenced weakly: none of ours.
        return None
    # Views may compare as they like, and this is about the very one.
    return found.guards if found is not None and found.itself() is view else None


def guards_within(view: Any) -> Guards | None:
    """The guards of the view that other decorators say they are around (``__wrapped__``); None without."""
    while (view := getattr(view, "__wrapped__", None)) is not None:
        found = guards_of_view(view)
        if found is not None and found.policies:
            return found
    return None


class ViewCall(Call):
    """One call of a guarded view."""

    def __init__(
        self,
        request: HttpRequest,
        view: Callable[..., Any],
        guards: Guards,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        if not isinstance(request, HttpRequest):
            raise TypeError(
                f"{view!r} is guarded as a view, which takes a request first; found {request!r}. An ASGI app "
                "must take (scope, receive, send) by these names, and a method needs "
                "django.utils.decorators.method_decorator."
            )
        super().__init__(request)
        self._view, self._guards = view, guards
        self._args, self._kwargs = args, kwargs
        self._is_async = iscoroutinefunction(view)
        if guards.policies:
            self.passage.owed = None  # They are asked here.

    def registries(self) -> tuple[Hooks, ...]:
        """The hooks of the view."""
        return self._guards.hooks

    def steps(self) -> Steps[HttpResponseBase]:
        """The view's response, or what it is refused with; raises what the view does, if no hook takes it."""
        response: HttpResponseBase
        decision: Verdict = yield from self._admit()
        if decision is ALLOWED:
            self.go_on()
            try:
                if self._is_async:
                    response = yield lambda: self._view(self.request, *self._args, **self._kwargs)
                else:
                    response = self._view(self.request, *self._args, **self._kwargs)
            except Exception as error:
                if not (isinstance(error, Deny) or self.onion.takes(error)):
                    raise
                decision = yield from rescue(self.passage, error)
                if isinstance(decision, Raised):
                    raise
                if not self._is_async:
                    _roll_back(self.request)
        if decision is not ALLOWED:
            self.forget()
            response = yield from refuse(self.request, self._view, decision)
        if self.onion.depth > self.depth and not getattr(response, "is_rendered", True):
            # As Django's decorator_from_middleware does: response hooks see what the template became.
            response.add_post_render_callback(  # type: ignore[attr-defined]
                lambda rendered: drive_sync(self.leave(rendered))
            )
        else:
            response = yield from self.leave(response)
        self.response = response
        return response

    def fail(self, error: Exception) -> Steps[HttpResponseBase]:
        """The response to a `Deny` of an ``around`` hook; raises what else hook or view have raised."""
        self.forget()
        if self.response is not None:
            yield from content.discard(self.response)
        if not isinstance(error, Deny):
            raise error
        response = yield from refuse(self.request, self._view, denial_for(error))
        self.onion.cut(self.depth)
        return response

    def _admit(self) -> Steps[Verdict]:
        policies = self.passage.remaining(self._guards.policies)
        match = self.request.resolver_match
        before = dict(match.kwargs) if match is not None else {}
        decision: Verdict
        if self._is_async:
            decision = yield lambda: corridor.admit(self.passage, policies, through_django)
        else:
            decision = yield from admission(self.passage, policies)
        after = match.kwargs if match is not None else {}
        if after != before:  # A route hook changed them.
            kept = {name: value for name, value in self._kwargs.items() if name not in before}
            self._kwargs = {**kept, **after}
        return decision


def _roll_back(request: HttpRequest) -> None:
    """What any other exception of the view does under ATOMIC_REQUESTS, whose transaction is around us."""
    match = request.resolver_match
    exempt = getattr(match.func, "_non_atomic_requests", ()) if match is not None else ()
    for connection in connections.all(initialized_only=True):
        is_atomic = connection.settings_dict["ATOMIC_REQUESTS"] and connection.alias not in exempt
        if is_atomic and connection.in_atomic_block:
            connection.set_rollback(True)
