"""The view door: policies on Django views, synchronous and asynchronous, under WSGI and ASGI.

The view's own exceptions stay Django's business, except for `Deny`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest
from django.shortcuts import resolve_url

from . import corridor, problems
from .decisions import ALLOWED, Denial
from .exceptions import Deny
from .failures import denial_for
from .passage import Passage, passage_of

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
            decision = await corridor.admit(passage, policies, _hop)
            if decision is ALLOWED:
                try:
                    return cast("HttpResponseBase", await view(request, *args, **kwargs))
                except Deny as deny:
                    decision = denial_for(deny)
            decision = _redirect_to_login(request, decision)
            refusal = await corridor.refuse(passage, decision, _hop)
            return cast("HttpResponseBase", refusal.response)

        return guarded

    @functools.wraps(view)
    def guarded_sync(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        passage = _begin(request, view)
        decision = corridor.admit_sync(passage, policies)
        if decision is ALLOWED:
            try:
                return cast("HttpResponseBase", view(request, *args, **kwargs))
            except Deny as deny:
                decision = denial_for(deny)
        decision = _redirect_to_login(request, decision)
        return cast("HttpResponseBase", corridor.refuse_sync(passage, decision).response)

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


def _redirect_to_login(request: HttpRequest, denial: Denial) -> Denial:
    """For a browser that has to log in: the way to ``LOGIN_URL`` and back, as Django's own decorators."""
    asks_to_log_in = isinstance(denial, Deny) and denial.status == 401 and denial.response is None
    if not asks_to_log_in or problems.preferred_type(request) != problems.HTML:
        return denial
    return redirect_to_login(request.get_full_path(), resolve_url(settings.LOGIN_URL))
