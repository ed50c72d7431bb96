"""The mirror: what a stack gives to sockets, for Django's views.

``"channels_wsdeny.middleware.MirrorMiddleware"`` in ``MIDDLEWARE``, after `AuthenticationMiddleware`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.core.signals import got_request_exception
from django.http import Http404
from django.http.multipartparser import MultiPartParserError
from django.urls import Resolver404, get_resolver

from . import bodies, problems
from .admission import admission, arrival
from .conf import conf
from .decisions import ALLOWED, Raised, Steps, Verdict
from .drivers import drive, drive_sync
from .failures import denial_for
from .hooks import site_hooks
from .passage import Handover, Passage, passage_of
from .policies import default_policy
from .views import go_around, go_around_sync, is_guarded, onion_of, refuse, rescue, through_django

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from .hooks import Hook
    from .policies import Policy


class MirrorMiddleware:
    """Gives views the hooks, ``request.ctx``, and denials by `Deny`; and the default policy, when asked.

    Synchronous and asynchronous. Under a `DenyMiddlewareStack` its hooks run here, where the real response
    is. An exception that no hook takes stays Django's business, but clients that do not prefer HTML get
    its status as ``application/problem+json`` (or plain text).
    """

    sync_capable = True
    async_capable = True
    #: For the stack to know subclasses by.
    is_wsdeny_mirror = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
            self.process_view = self._aprocess_view  # type: ignore[method-assign]
        got_request_exception.connect(_note_error, dispatch_uid="channels_wsdeny.mirror")

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """The response of the view, or of hooks and policies in its place."""
        visit = _Visit(request)
        around = visit.enter()
        if self._is_async:
            return go_around(around, request, lambda: drive(self._steps(visit), through_django))
        return go_around_sync(around, request, lambda: drive_sync(self._steps(visit)))

    def _steps(self, visit: _Visit) -> Steps[HttpResponseBase]:
        request, passage = visit.request, visit.passage
        decision: Verdict = Raised(visit.error) if visit.error else (yield from arrival(passage))
        response: HttpResponseBase
        if decision is not ALLOWED:
            response = yield from refuse(request, None, decision)
        else:
            if self._is_async:
                response = yield lambda: self.get_response(request)
            else:
                response = self.get_response(request)
            response = yield from _translated(passage, response)
        response = yield from visit.leave(response)
        return response

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Route hooks and the default policy, before the view; called by Django."""
        return drive_sync(_before_the_view(request, view, kwargs))

    async def _aprocess_view(
        self, request: HttpRequest, view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HttpResponseBase | None:
        return await drive(_before_the_view(request, view, kwargs), through_django)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """What hooks make of an exception of the view, or a `Deny` of itself; called by Django."""
        passage = passage_of(request)
        denial = drive_sync(rescue(passage, exception))
        if isinstance(denial, Raised):
            passage.error = exception
            return None
        match = request.resolver_match
        return drive_sync(refuse(request, match.func if match is not None else None, denial))


class _Visit:
    """One request on its way through the middleware."""

    def __init__(self, request: HttpRequest) -> None:
        self.request = request
        handed = _handed(request)
        is_first = not hasattr(request, "wsdeny")
        self.passage = passage_of(request)
        if is_first and isinstance(handed, Passage):
            # A stack has run its request hooks already: what is left of them runs here.
            self.passage.onion = handed.onion
            request.ctx = handed.request.ctx  # type: ignore[attr-defined]
        self._onion = onion_of(self.passage)
        self._depth = 0 if is_first else self._onion.depth
        #: Why the hooks cannot be used, if so.
        self.error: Exception | None = None

    def enter(self) -> tuple[Hook, ...]:
        """Enter the hooks of the site and of the stacks around; returns those that go around the request."""
        handed = _handed(self.request)
        try:
            layer = self._onion.enter(
                (*site_hooks(), *(handed.hooks if isinstance(handed, Handover) else ()))
            )
        except Exception as error:  # noqa: BLE001 - fail closed: hooks that cannot be used may have denied
            self.error = error
            return ()
        if self._onion.rescues:
            bodies.record(self.request)
        if layer is None:
            return ()
        around, layer.around = layer.around, ()
        return around

    def leave(self, response: HttpResponseBase) -> Steps[HttpResponseBase]:
        """Run the response hooks of all layers from here on."""
        layers = self._onion.detach(self._depth)
        if layers:
            response = yield from self._onion.leave(self.passage, response, layers)
        return response


def _handed(request: HttpRequest) -> object:
    scope: Any = getattr(request, "scope", None)
    return scope.get("wsdeny") if scope is not None else None


def _before_the_view(
    request: HttpRequest, view: Callable[..., Any], kwargs: dict[str, Any]
) -> Steps[HttpResponseBase | None]:
    passage = passage_of(request)
    policies = _default_policies(request, view)
    if not (policies or passage.onion):
        return None
    decision = yield from admission(passage, policies)
    match = request.resolver_match
    if match is not None and match.kwargs is not kwargs:  # A route hook gave it others.
        kwargs.clear()
        kwargs.update(match.kwargs)
    if decision is ALLOWED:
        return None
    response = yield from refuse(request, view, decision)
    return response


def _default_policies(request: HttpRequest, view: Callable[..., Any]) -> tuple[Policy, ...]:
    """The policy for a view without one, where the site wants that."""
    is_exempt = (
        not conf.MIRROR_DEFAULT_POLICY or not getattr(view, "login_required", True) or is_guarded(view)
    )
    if is_exempt:
        return ()
    given: Policy | None = getattr(_handed(request), "default_policy", None)
    return (default_policy() if given is None else given,)


def _translated(passage: Passage, response: HttpResponseBase) -> Steps[HttpResponseBase]:
    """`response`, unless Django made it of an exception that a hook takes, or for a client without HTML."""
    request = passage.request
    error, passage.error = passage.error, None
    if error is None and response.status_code == 404 and request.resolver_match is None:
        error = _unrouted(request)
    if error is None or response.status_code != _django_status(error):
        return response
    view = request.resolver_match.func if request.resolver_match is not None else None
    denial = yield from rescue(passage, error)
    if not isinstance(denial, Raised):
        response = yield from refuse(request, view, denial)
        return response
    deny = denial_for(error)
    if problems.preferred_type(request) == problems.HTML and (
        settings.DEBUG or deny.status == response.status_code
    ):
        return response
    answer = problems.denial_response(passage, deny)
    problems.seal(answer)
    answer._has_been_logged = True  # type: ignore[attr-defined]
    return answer


def _django_status(error: Exception) -> int:
    """The status that Django answers an exception with (its ``response_for_exception``)."""
    if isinstance(error, Http404):
        return 404
    if isinstance(error, PermissionDenied):
        return 403
    if isinstance(error, (BadRequest, SuspiciousOperation, MultiPartParserError)):
        return 400
    return 500


def _unrouted(request: HttpRequest) -> Resolver404 | None:
    """The exception that Django's resolver raised for this path, if it was that."""
    try:
        get_resolver(getattr(request, "urlconf", None)).resolve(request.path_info)
    except Resolver404 as error:
        return error
    return None


def _note_error(sender: object, request: HttpRequest | None = None, **kwargs: Any) -> None:
    """Note what Django is making a 500 of, also from middleware further in."""
    passage, error = getattr(request, "wsdeny", None), sys.exc_info()[1]
    if isinstance(passage, Passage) and isinstance(error, Exception):
        passage.error = error
