"""The view door: hooks and policies on Django views, synchronous and asynchronous, under WSGI and ASGI.

The view's own exceptions stay Django's business, unless a hook takes them; but for `Deny`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary, ref

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.db import connections
from django.http import HttpRequest

from . import bodies, content, corridor, problems, statuses
from .admission import admission
from .decisions import ALLOWED, Cause, Raised, Step, Steps, Verdict
from .drivers import drive, drive_sync
from .exceptions import Deny
from .failures import denial_for
from .log import log_failure
from .onion import Onion
from .pages import page_for
from .passage import Passage, passage_of
from .refusal import logged, refusal, resolve
from .surrounding import surround

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http.response import HttpResponseBase

    from .guards import Guards
    from .hooks import Hook, Hooks
    from .policies import Policy


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
            call = _Call(request, view, guards.policies, args, kwargs)
            around = call.enter(guards.hooks)
            try:
                response = await go_around(around, request, lambda: drive(call.steps(), through_django))
            except Exception as error:  # noqa: BLE001 - raised again, unless it answers
                return await drive(call.fail(error), through_django)
            return (
                response if response is call.response else await drive(call.replace(response), through_django)
            )

    else:

        @functools.wraps(named)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            call = _Call(request, view, guards.policies, args, kwargs)
            around = call.enter(guards.hooks)
            try:
                response = go_around_sync(around, request, lambda: drive_sync(call.steps()))
            except Exception as error:  # noqa: BLE001 - raised again, unless it answers
                return drive_sync(call.fail(error))
            return response if response is call.response else drive_sync(call.replace(response))

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


class _Call:
    """One call of a guarded view."""

    def __init__(
        self,
        request: HttpRequest,
        view: Callable[..., Any],
        policies: tuple[Policy, ...],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        if not isinstance(request, HttpRequest):
            raise TypeError(
                f"{view!r} is guarded as a view, which takes a request first; found {request!r}. An ASGI app "
                "must take (scope, receive, send) by these names, and a method needs "
                "django.utils.decorators.method_decorator."
            )
        self._request, self._view, self._policies = request, view, policies
        self._args, self._kwargs = args, kwargs
        self._is_async = iscoroutinefunction(view)
        self._passage = passage_of(request)
        self._onion = onion_of(self._passage)
        self._depth = self._onion.depth
        #: What the hooks around the view get.
        self.response: HttpResponseBase | None = None
        if policies:
            self._passage.owed = None  # They are asked here.

    def enter(self, registries: tuple[Hooks, ...]) -> tuple[Hook, ...]:
        """Enter the hooks of the view; returns those that go around it."""
        layer = self._onion.enter(registries)
        if layer is None:
            return ()
        if layer.exception:
            bodies.record(self._request)
        around, layer.around = layer.around, ()
        return around

    def steps(self) -> Steps[HttpResponseBase]:
        """The view's response, or what it is refused with; raises what the view does, if no hook takes it."""
        response: HttpResponseBase
        decision: Verdict = yield from self._admit()
        if decision is ALLOWED:
            try:
                if self._is_async:
                    response = yield lambda: self._view(self._request, *self._args, **self._kwargs)
                else:
                    response = self._view(self._request, *self._args, **self._kwargs)
            except Exception as error:
                if not (isinstance(error, Deny) or self._onion.takes(error)):
                    raise
                decision = yield from rescue(self._passage, error)
                if isinstance(decision, Raised):
                    raise
                if not self._is_async:
                    _roll_back(self._request)
        if decision is not ALLOWED:
            response = yield from refuse(self._request, self._view, decision)
        if self._onion.depth > self._depth and not getattr(response, "is_rendered", True):
            # As Django's decorator_from_middleware does: response hooks see what the template became.
            response.add_post_render_callback(  # type: ignore[attr-defined]
                lambda rendered: drive_sync(self._onion.leave(self._passage, rendered, self._depth))
            )
        else:
            response = yield from self._onion.leave(self._passage, response, self._depth)
        self.response = response
        return response

    def fail(self, error: Exception) -> Steps[HttpResponseBase]:
        """The response to a `Deny` of an ``around`` hook; raises what else hook or view have raised."""
        if self.response is not None:
            yield from content.discard(self.response)
        if not isinstance(error, Deny):
            raise error
        response = yield from refuse(self._request, self._view, denial_for(error))
        self._onion.cut(self._depth)
        return response

    def replace(self, response: HttpResponseBase) -> Steps[HttpResponseBase]:
        """What an ``around`` hook answers in the place of the view: a denial, if its status is one."""
        if self.response is not None:
            yield from content.discard(self.response, response)
        self._onion.cut(self._depth)
        if statuses.is_denial(response.status_code):
            problems.seal(response)
        return response

    def _admit(self) -> Steps[Verdict]:
        policies = self._passage.remaining(self._policies)
        match = self._request.resolver_match
        before = dict(match.kwargs) if match is not None else {}
        decision: Verdict
        if self._is_async:
            decision = yield lambda: corridor.admit(self._passage, policies, through_django)
        else:
            decision = yield from admission(self._passage, policies)
        after = match.kwargs if match is not None else {}
        if after != before:  # A route hook changed them.
            kept = {name: value for name, value in self._kwargs.items() if name not in before}
            self._kwargs = {**kept, **after}
        return decision


def onion_of(passage: Passage) -> Onion:
    """The hooks that the request of a view has met."""
    if passage.onion is None:
        passage.onion = Onion("http")
    return passage.onion


def rescue(passage: Passage, error: Exception) -> Steps[Cause]:
    """What a hook makes of an exception of a view; a `Deny` answers for itself; else `Raised`."""
    if passage.onion is not None and passage.onion.takes(error):
        yield Step.BLOCKING
        bodies.give_back(passage.request)
        try:
            denial = yield from passage.onion.rescue(passage, error)
        except Exception as another:  # noqa: BLE001 - a hook may well raise what should be answered
            denial = denial_for(another)
        if denial is not None:
            return denial
    return denial_for(error) if isinstance(error, Deny) else Raised(error)


def refuse(request: HttpRequest, view: Callable[..., Any] | None, denial: Cause) -> Steps[HttpResponseBase]:
    """The response that a request is refused with; in a browser, the site's own pages."""
    passage = passage_of(request)
    resolved = yield from resolve(passage, denial)
    if (
        isinstance(resolved, Deny)
        and resolved.response is None
        and problems.preferred_type(request) == problems.HTML
    ):
        try:
            page = yield from page_for(request, view, resolved)
        except Exception as error:  # noqa: BLE001 - a page that fails is no reason to say nothing
            log_failure(passage, error)
            page = None
        if page is not None:
            resolved = Deny(code=resolved.code, headers=resolved.headers, response=page)
    made = yield from refusal(passage, resolved)
    response: HttpResponseBase = logged(passage, *made).response
    return response


async def go_around(
    hooks: tuple[Hook, ...], request: HttpRequest, inside: Callable[[], Any]
) -> HttpResponseBase:
    """What `inside` returns, with ``around`` hooks around it."""
    response: HttpResponseBase = await (surround(hooks, request, inside) if hooks else inside())
    return response


def go_around_sync(
    hooks: tuple[Hook, ...], request: HttpRequest, inside: Callable[[], HttpResponseBase]
) -> HttpResponseBase:
    """As `go_around`, in a synchronous caller."""
    if not hooks:
        return inside()
    return async_to_sync(surround)(hooks, request, sync_to_async(inside, thread_sensitive=True))


def through_django(function: Callable[[], Any]) -> Any:
    """Through Django's own thread of the request, which has its database connections."""
    return sync_to_async(function, thread_sensitive=True)()


def _roll_back(request: HttpRequest) -> None:
    """What any other exception of the view does under ATOMIC_REQUESTS, whose transaction is around us."""
    match = request.resolver_match
    exempt = getattr(match.func, "_non_atomic_requests", ()) if match is not None else ()
    for connection in connections.all(initialized_only=True):
        is_atomic = connection.settings_dict["ATOMIC_REQUESTS"] and connection.alias not in exempt
        if is_atomic and connection.in_atomic_block:
            connection.set_rollback(True)
