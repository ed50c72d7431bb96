"""The surrounding of a request: its ``around`` hooks, and how they enclose what answers by itself.

A view returns its response, so the hooks are simply called around it. A consumer answers by a message in
the middle of its run and lives on: there the hooks run in a task of their own, which ends with the answer.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

from django.http.response import HttpResponseBase

from ..concurrency import adopt_context
from ..exceptions import HookError
from ..http import responses as problems
from ..http.context import trace_of
from ..http.trace import told

if TYPE_CHECKING:
    from django.http import HttpRequest

    from .registry import Hook

_CANCELLED = "An around hook was cancelled by what it awaited."

#: What answers the request inside the hooks.
Inside: TypeAlias = Callable[[], Awaitable[HttpResponseBase]]


async def surround(hooks: tuple[Hook, ...], request: HttpRequest, inside: Inside) -> HttpResponseBase:
    """The response that `hooks`, the outermost first, make of what `inside` returns.

    Raises what they raise, and `HookError` for a hook that returns no response.
    """
    if not hooks:
        return await inside()
    outermost, inner = hooks[0], hooks[1:]
    called = False
    answer: HttpResponseBase | None = None

    async def call_next(given: HttpRequest) -> HttpResponseBase:
        nonlocal called, answer
        if given is not request:
            raise HookError(f"{outermost!r} called call_next({given!r}). It takes the request of the hook.")
        if called:
            raise HookError(f"{outermost!r} called call_next() twice: the endpoint answers once.")
        called = True
        answer = await surround(inner, request, inside)
        return answer

    trace = trace_of(request)
    with nullcontext() if trace is None else trace.note("hook", outermost.label) as noted:
        response = await outermost.function(request, call_next)
        if not isinstance(response, HttpResponseBase):
            raise HookError(f"{outermost!r} returned {response!r}. An around hook returns a response.")
        if noted is not None:
            noted.answer = told(response)
    # A response of the hook's own may be one for all: what is put on it for one visitor must stay his.
    return response if response is answer else problems.copy_response(response)


class Surrounding:
    """The ``around`` hooks of one request whose endpoint answers by itself, and lives on.

    `on_early_end` is called if the hooks end before the endpoint has answered, with their response or
    exception. It returns whether that is what the request is answered with from now on.
    """

    def __init__(
        self,
        hooks: tuple[Hook, ...],
        request: HttpRequest,
        on_early_end: Callable[[HttpResponseBase | Exception], bool],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._inside: asyncio.Future[None] = loop.create_future()
        self._answer: asyncio.Future[HttpResponseBase] = loop.create_future()
        self._on_early_end = on_early_end
        #: Whether the hooks have no say any more: they were cancelled, or have ended early.
        self._is_over = False
        self._has_entered = False
        #: What the hooks ended with while another answer was on its way out.
        self._unheard: HttpResponseBase | Exception | None = None
        self._outside, self._context = contextvars.copy_context(), contextvars.copy_context()
        self._task = loop.create_task(self._run(hooks, request), context=self._context)
        self._task.add_done_callback(self._settle)

    async def enter(self) -> HttpResponseBase | None:
        """Run the hooks up to the innermost `call_next`; what they put into contextvars, the caller sees.

        Returns a response if a hook answers without that; raises what they raise.
        """
        await self._until(self._inside)
        if self._is_over or self._task.cancelled():
            raise RuntimeError(_CANCELLED)
        if self._task.done():
            return self._task.result()
        adopt_context(self._context)
        self._has_entered = True
        return None

    async def leave(self, response: HttpResponseBase) -> HttpResponseBase:
        """Give the hooks the endpoint's `response`; returns what they make of it, raises what they raise.

        What they made of another response says nothing about this one, which is returned as it is; so it is
        if they have not let the request in, for it was denied without them.
        """
        if isinstance(self._unheard, Exception):
            raise self._unheard
        if self._unheard is not None:
            return self._unheard
        if self._is_over or self._answer.done():
            return response
        if not self._has_entered:
            self.cancel()
            return response
        self._on_early_end = _ignore
        self._answer.set_result(response)
        await self._until(self._task)
        if not self._task.cancelled():
            return self._task.result()
        if self._is_over:
            return response
        raise RuntimeError(_CANCELLED)

    def cancel(self) -> None:
        """End the hooks: there is no answer that they could see."""
        self._on_early_end = _ignore
        self._is_over = True
        self._task.cancel()

    async def _until(self, future: asyncio.Future[Any]) -> None:
        try:
            await asyncio.wait({future, self._task}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.cancel()
            raise

    async def _await_the_answer(self) -> HttpResponseBase:
        if self._is_over or self._task.done():
            raise asyncio.CancelledError  # Whoever swallowed his, or was left behind, would wait for ever.
        self._inside.set_result(None)
        # A hook may give up waiting, and go on; the answer still comes.
        return await asyncio.shield(self._answer)

    async def _run(self, hooks: tuple[Hook, ...], request: HttpRequest) -> HttpResponseBase:
        try:
            response = await surround(hooks, request, self._await_the_answer)
        except asyncio.CancelledError:
            self._end_with(RuntimeError(_CANCELLED))
            raise
        except Exception as error:
            self._end_with(error)
            raise
        self._end_with(response)
        return response

    def _end_with(self, end: HttpResponseBase | Exception) -> None:
        """Tell of an early end before anything else can happen: the endpoint may be about to answer."""
        if self._has_entered and self._on_early_end is not _ignore:
            self._is_over = True
            if not self._outside.run(self._on_early_end, end):
                self._unheard = end

    def _settle(self, task: asyncio.Task[HttpResponseBase]) -> None:
        """Let go of those whom the hooks left waiting."""
        self._answer.cancel()
        if not task.cancelled():
            task.exception()  # Looked at in any case, or asyncio complains that nobody did.


def _ignore(result: HttpResponseBase | Exception) -> bool:
    return True
