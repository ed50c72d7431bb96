"""The mirror: what a stack gives to sockets, for Django's views.

``"channels_wsdeny.middleware.MirrorMiddleware"`` in ``MIDDLEWARE``, after `AuthenticationMiddleware`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import got_request_exception
from django.urls import Resolver404, get_resolver

from . import status as statuses
from .conf import conf
from .decisions import ALLOWED, Raised, Steps
from .drivers import drive, drive_sync
from .handlers import errors
from .handlers.admission import admission, arrival
from .handlers.call import Call, answer, answer_sync, refuse, rescue, through_django
from .handlers.view import guards_of_view, guards_within
from .hooks.registry import are_rescuing, site_hooks
from .http import bodies, content
from .http.context import Handover, Passage, handed_to, passage_of
from .policies.builtin import default_policy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from .hooks.registry import Hook, Hooks
    from .policies.builtin import Policy


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
            if type(self).process_view is MirrorMiddleware.process_view:  # else Django adapts the subclass's
                self.process_view = self._aprocess_view  # type: ignore[method-assign]
        got_request_exception.connect(errors.note, dispatch_uid="channels_wsdeny.mirror")

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """The response of the view, or of hooks and policies in its place."""
        call = MirrorCall(request, self.get_response, is_async=self._is_async)
        return answer(call) if self._is_async else answer_sync(call)

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
        return _told(drive_sync(refuse(request, match.func if match is not None else None, denial)))


class MirrorCall(Call):
    """One request on its way through the middleware."""

    def __init__(
        self, request: HttpRequest, get_response: Callable[[HttpRequest], Any], *, is_async: bool
    ) -> None:
        is_first = not hasattr(request, "wsdeny")
        super().__init__(request)
        if is_first:
            self.depth = 0
        self._get_response, self._is_async = get_response, is_async

    def registries(self) -> tuple[Hooks, ...]:
        """The hooks of the site and of the stacks around."""
        handed = handed_to(self.request)
        return (*site_hooks(), *(handed.hooks if isinstance(handed, Handover) else ()))

    def enter(self) -> tuple[Hook, ...]:
        """As any call; those that rescue may also be entered further in, or were further out."""
        around = super().enter()
        if are_rescuing():
            bodies.record(self.request)
        return around

    def steps(self) -> Steps[HttpResponseBase]:
        """The response of what is further in, or what it is refused with, as the response hooks leave it."""
        request, passage = self.request, self.passage
        verdict = yield from arrival(passage)
        response: HttpResponseBase
        if verdict is ALLOWED:
            self.go_on()
            if self._is_async:
                response = yield lambda: self._get_response(request)
            else:
                response = self._get_response(request)
            response = yield from errors.answer_in_place(passage, response)
            owed = passage.owed if passage.is_asked else _owed(passage, response)
            if owed is not None and statuses.is_content(response.status_code):
                verdict = yield from admission(passage, passage.remaining(owed))
            if verdict is not ALLOWED:
                yield from content.discard(response)
        if verdict is not ALLOWED:
            self.forget()
            response = yield from refuse(request, None, verdict)
        response = yield from content.render(request, response)  # Nobody else will.
        self.response = yield from self.leave(response)
        self._tell_stack(self.response)
        return self.response

    def end(self) -> None:
        """The ``around`` hooks have answered, and no view may begin any more."""
        super().end()
        self.onion.walk.overtake()

    def replace(self, response: HttpResponseBase) -> Steps[HttpResponseBase]:
        """What an ``around`` hook answers in the place of the response: a denial, if its status is one."""
        response = yield from content.render(self.request, response)
        response = yield from super().replace(response)
        self._tell_stack(response)
        return response

    def fail(self, error: Exception) -> Steps[HttpResponseBase]:
        """What is answered if ``around`` hooks raise, or hooks cannot be used; all else was answered."""
        self.forget()
        if settings.DEBUG_PROPAGATE_EXCEPTIONS:
            raise error
        if self.response is not None:
            yield from content.discard(self.response)
        denial = yield from rescue(self.passage, error)
        self.onion.cut(self.depth)
        response = yield from refuse(self.request, None, denial)
        response = yield from content.render(self.request, response)
        return response

    def _tell_stack(self, response: HttpResponseBase) -> None:
        """Tell a stack that nobody has to ask the default policy any more, once that has let somebody in."""
        handed = handed_to(self.request)
        if isinstance(handed, Passage) and statuses.is_content(response.status_code):
            handed.is_asked = True


def _before_the_view(
    request: HttpRequest, view: Callable[..., Any], kwargs: dict[str, Any]
) -> Steps[HttpResponseBase | None]:
    passage = passage_of(request)
    policies = passage.remaining(_default_policies(passage, view))
    if not policies and not (passage.onion and passage.onion.has_route_hooks):
        passage.is_asked = True
        return None
    decision = yield from admission(passage, policies)
    match = request.resolver_match
    if match is not None and match.kwargs is not kwargs:  # A route hook gave it others.
        kwargs.clear()
        kwargs.update(match.kwargs)
    if decision is ALLOWED:
        passage.is_asked = True
        return None
    response = yield from refuse(request, view, decision)
    return _told(response)


def _told(response: HttpResponseBase) -> HttpResponseBase:
    """`response`, which Django has to see: one that is false it would take for none, and go on."""
    if not bool(response):
        raise ImproperlyConfigured(f"{response!r} is false (its length is 0?), so Django would not see it.")
    return response


def _owed(passage: Passage, response: HttpResponseBase) -> tuple[Policy, ...] | None:
    """What nobody has asked, for middleware further in, such as a cache, has answered in a view's place."""
    request = passage.request
    if not conf.MIRROR_DEFAULT_POLICY or response.status_code >= 400:
        return None
    if request.resolver_match is None:
        try:
            request.resolver_match = get_resolver(getattr(request, "urlconf", None)).resolve(
                request.path_info
            )
        except Resolver404:
            return None
    view = request.resolver_match.func
    guards = guards_of_view(view)
    return (guards.policies if guards is not None else ()) or _default_policies(passage, view) or passage.owed


def _default_policies(passage: Passage, view: Callable[..., Any]) -> tuple[Policy, ...]:
    """The policy for a view without one, where the site wants that."""
    if not conf.MIRROR_DEFAULT_POLICY or not getattr(view, "login_required", True):
        return ()
    guards = guards_of_view(view)
    if guards is not None and guards.policies:
        return ()
    handed = handed_to(passage.request)
    given = handed.default_policy if isinstance(handed, Handover) else passage.default_policy
    policies = (default_policy() if given is None else given,)
    within = guards_within(view)
    if within is None:
        return policies
    # Other decorators are around a guarded view. Whether they call it, and not a cache, is seen afterwards.
    passage.owed = within.policies
    return ()
