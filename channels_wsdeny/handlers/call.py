"""The call of what Django calls, a guarded view or the mirror, and of the ``around`` hooks around it.

Synchronous and asynchronous ones go the same way: `answer` and `answer_sync` differ in who drives the steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync, sync_to_async

from .. import status as statuses
from ..decisions import Cause, Raised, Step, Steps
from ..drivers import drive, drive_sync
from ..exceptions import Deny, HookError
from ..hooks.onion import Onion
from ..hooks.surrounding import Inside, surround
from ..http import bodies, content
from ..http import responses as problems
from ..http.context import passage_of
from ..http.exception_handler import denial_for
from ..log import log_failure
from .pages import page_for
from .refusal import logged, refusal, resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from ..hooks.onion import Layer
    from ..hooks.registry import Hook, Hooks
    from ..http.context import Passage


class Call(ABC):
    """One request on its way through something of Django's, and the hooks that are entered there."""

    def __init__(self, request: HttpRequest) -> None:
        self.request = request
        self.passage = passage_of(request)
        if self.passage.onion is None:
            self.passage.onion = Onion("http")
        self.onion = self.passage.onion
        #: How many layers of hooks there were, and how many of them are left to whoever is further out.
        self._depth_before = self.depth = self.onion.depth
        #: What the ``around`` hooks get.
        self.response: HttpResponseBase | None = None
        #: Whether the ``around`` hooks have answered; they may not have waited for the steps.
        self._is_over = False
        self._token = self.onion.walk.token
        self._layer: Layer | None = None

    @abstractmethod
    def registries(self) -> tuple[Hooks, ...]:
        """The hooks that are entered here. Raises `ImproperlyConfigured` for some that cannot be used."""

    def enter(self) -> tuple[Hook, ...]:
        """Enter the hooks; returns those that go around `steps`. Raises what `registries` does."""
        layer = self._layer = self.onion.enter(self.registries())
        if layer is None:
            return ()
        if layer.exception:
            bodies.record(self.request)
        around, layer.around = layer.around, ()
        return around

    @abstractmethod
    def steps(self) -> Steps[HttpResponseBase]:
        """The response within the ``around`` hooks, kept as `response` too."""

    def end(self) -> None:
        """The ``around`` hooks have answered."""
        self._is_over = True

    def go_on(self) -> None:
        """Raise `HookError` if nothing may begin any more, for ``around`` hooks have answered already."""
        self.onion.walk.go_on(None if self._is_over else self._token)
        self._check_hooks()

    def _check_hooks(self) -> None:
        if self.passage.is_spent:
            raise HookError("Hooks of the stack have denied this request, which cannot begin again.")
        if self._layer is not None and self._layer not in self.onion:
            raise HookError(
                "Another call of the same request has left these hooks. One at a time may have any."
            )

    def forget(self) -> None:
        """The call is refused: whoever calls again meets its hooks again."""
        if self._layer is not None:
            self.onion.forget(self._layer)

    def replace(self, response: HttpResponseBase) -> Steps[HttpResponseBase]:
        """What an ``around`` hook answers in the place of `response`: a denial, if its status is one."""
        self.forget()
        self.onion.cut(self.depth)
        if self.response is not None:
            yield from content.discard(self.response, response)
        if statuses.is_denial(response.status_code):
            problems.seal(response)
        return response

    @abstractmethod
    def fail(self, error: Exception) -> Steps[HttpResponseBase]:
        """What is answered if hooks cannot be entered, or raise; raises what is left to Django."""

    def leave(self, response: HttpResponseBase) -> Steps[HttpResponseBase]:
        """Run the response hooks that were entered from here on."""
        self._check_hooks()
        is_denied = self.onion.has_unrun(self.depth)
        left = yield from self.onion.leave(self.passage, response, self.depth)
        if left is not response:
            self.forget()
        if self.depth < self._depth_before and (is_denied or left is not response):
            self.passage.is_spent = True
        return left


async def answer(call: Call) -> HttpResponseBase:
    """The response to `call`, in an asynchronous caller. Raises what is left to Django."""
    try:
        hooks = call.enter()
        if hooks:
            response = await _surround(call, hooks, lambda: drive(call.steps(), through_django))
        else:
            response = await drive(call.steps(), through_django)
    except Exception as error:  # noqa: BLE001 - raised again, unless it answers
        return await drive(call.fail(error), through_django)
    return response if response is call.response else await drive(call.replace(response), through_django)


def answer_sync(call: Call) -> HttpResponseBase:
    """As `answer`, in a synchronous caller."""
    try:
        hooks = call.enter()
        if hooks:
            inside = sync_to_async(lambda: drive_sync(call.steps()), thread_sensitive=True)
            response = async_to_sync(_surround)(call, hooks, inside)
        else:
            response = drive_sync(call.steps())
    except Exception as error:  # noqa: BLE001 - raised again, unless it answers
        return drive_sync(call.fail(error))
    return response if response is call.response else drive_sync(call.replace(response))


async def _surround(call: Call, hooks: tuple[Hook, ...], inside: Inside) -> HttpResponseBase:
    try:
        return await surround(hooks, call.request, inside)
    finally:
        call.end()


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


def through_django(function: Callable[[], Any]) -> Any:
    """Through Django's own thread of the request, which has its database connections."""
    return sync_to_async(function, thread_sensitive=True)()
