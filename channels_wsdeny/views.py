"""The view door: policies on Django views, synchronous and asynchronous, under WSGI and ASGI.

The view's own exceptions stay Django's business, except for `Deny`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.http import HttpRequest
from django.urls import NoReverseMatch

from . import corridor, problems
from .decisions import ALLOWED, Denial, Steps
from .drivers import drive, drive_sync
from .exceptions import Deny
from .failures import denial_for
from .passage import Passage, passage_of
from .policy import user_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http.response import HttpResponseBase

    from .policies import Policy


def guard_view(view: Callable[..., Any], policies: tuple[Policy, ...]) -> Callable[..., Any]:
    """`view` behind `policies`; a coroutine function stays one."""
    if iscoroutinefunction(view):

        @functools.wraps(view)
        async def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            passage = _begin(request, view)
            decision = await corridor.admit(passage, passage.remaining(policies), _hop)
            if decision is ALLOWED:
                try:
                    return cast("HttpResponseBase", await view(request, *args, **kwargs))
                except Deny as deny:
                    decision = denial_for(deny)
            denial = await drive(_log_in_instead(request, view, decision), _hop)
            refusal = await corridor.refuse(passage, denial, _hop)
            return cast("HttpResponseBase", refusal.response)

        return guarded

    @functools.wraps(view)
    def guarded_sync(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        passage = _begin(request, view)
        decision = corridor.admit_sync(passage, passage.remaining(policies))
        if decision is ALLOWED:
            try:
                return cast("HttpResponseBase", view(request, *args, **kwargs))
            except Deny as deny:
                _roll_back()
                decision = denial_for(deny)
        denial = drive_sync(_log_in_instead(request, view, decision))
        return cast("HttpResponseBase", corridor.refuse_sync(passage, denial).response)

    return guarded_sync


def _begin(request: HttpRequest, view: Callable[..., Any]) -> Passage:
    if not isinstance(request, HttpRequest):
        raise TypeError(
            f"{view!r} is guarded as a view, which takes a request first; found {request!r}. An ASGI app "
            "must take (scope, receive, send) by these names, and a method needs "
            "django.utils.decorators.method_decorator."
        )
    return passage_of(request)


def _hop(function: Callable[[], Any]) -> Any:
    """Through Django's own thread of the request, which has its database connections."""
    return sync_to_async(function, thread_sensitive=True)()


def _roll_back() -> None:
    """What any other exception of the view does under ATOMIC_REQUESTS, whose transaction is around us."""
    for connection in connections.all(initialized_only=True):
        if connection.settings_dict["ATOMIC_REQUESTS"] and connection.in_atomic_block:
            connection.set_rollback(True)


def _log_in_instead(request: HttpRequest, view: Callable[..., Any], denial: Denial) -> Steps[Denial]:
    """For an anonymous browser that has to log in: the way to ``LOGIN_URL`` and back, by Django's rules."""
    asks_to_log_in = isinstance(denial, Deny) and denial.status == 401 and denial.response is None
    if not asks_to_log_in or problems.preferred_type(request) != problems.HTML:
        return denial
    user = yield from user_of(request)
    if user.is_authenticated:
        return denial
    # Imported here: it needs loaded apps, and decorators are imported before that.
    from django.contrib.auth.middleware import LoginRequiredMiddleware  # noqa: PLC0415

    try:
        return LoginRequiredMiddleware(view).handle_no_permission(request, view)
    except (ImproperlyConfigured, NoReverseMatch):
        return denial  # A site without a log-in page.
