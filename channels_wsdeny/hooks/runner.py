"""The hooks of one layer around a request: around hooks are nested coroutines, and enclose the other hooks.

Request and route hooks are checks: `policies.runner.run_checks` runs them, in one list with the policies.

The same runner serves sockets, views and WSGI. A synchronous caller runs the same coroutines: without around hooks
nothing in them has to wait there.
"""

from __future__ import annotations

import asyncio
import functools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from asgiref.sync import async_to_sync

from ..concurrency import is_being_cancelled, run_coroutine, run_in_django_thread
from ..exceptions import Deny, HookError
from ..http.context import noting
from ..http.exception_handler import normalize
from ..http.request import run_in_thread
from ..http.responses import add_denial_headers, discard
from ..policies.runner import Check, Checks, ClientLeft, run_checks, run_ready_checks
from .registry import NO_HOOKS, OrderedHooks, ordered_hooks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator

    from django.http.response import HttpResponseBase

    from ..http.context import RequestContext
    from ..policies.base import Denial
    from ..types import HttpRequest
    from ..types import Protocol as RequestProtocol
    from .registry import Hook, Hooks

    #: What answers inside the hooks, given the request hooks and route hooks that have to run before. It returns a
    #: response, or an exception in place of raising it.
    GetResponse = Callable[[tuple[Check, ...], tuple[Check, ...]], Coroutine[Any, Any, HttpResponseBase | Exception]]


class Responder(Protocol):
    """The methods of a handler that its runner calls."""

    context: RequestContext
    #: Whether it is on an event loop. Else nothing in its coroutines waits, and hooks may block.
    is_async: bool

    @property
    def is_new_route(self) -> bool:
        """Whether the request may be for another route than that for which its route hooks have run: they run again."""

    @property
    def runs_waiting_hooks(self) -> bool:
        """Whether it runs the route hooks of layers around that wait for the route, or something has done so."""

    def respond(self, denial: Denial) -> HttpResponseBase:
        """The response that a denial is sent as; may block if `respond_blocks` returns True."""

    def respond_blocks(self, denial: Denial | Exception) -> bool:
        """Whether `respond` or `fail` may block."""

    def fail(self, error: Exception) -> HttpResponseBase:
        """The response to an error that no hook answers. Raises what is left to Django."""


def make_runner(
    responder: Responder,
    layers: Iterable[tuple[Hooks, ...]],
    protocol: RequestProtocol,
    outer: HookRunner | None = None,
    last: Check | None = None,
) -> HookRunner | None:
    """The runner of the outermost of `layers` that has hooks which have not run for this request; None without.

    `outer` is the runner of an enclosing handler, whose exception hooks are asked as well. Each of `layers` is
    the registries of one layer. `last` runs after the response hooks of the outermost layer, if it has some.

    Raises `HookError` for hooks that are not over elsewhere: they were interrupted, or a caller does not wait for them.
    """
    first: HookRunner | None = None
    for registries in filter(None, layers):
        runner = layer_runner(responder, registries, protocol, outer)
        if runner is None:
            continue
        if first is None:
            first = runner
            if last is not None and runner._response and not runner._hooks.around:  # else it would not be the last
                runner._response.append(last)
        else:
            runner.outer.inner = runner  # type: ignore[union-attr] # it is the layer around
        outer = runner
    return first


def layer_runner(
    responder: Responder, registries: tuple[Hooks, ...], protocol: RequestProtocol, outer: HookRunner | None
) -> HookRunner | None:
    """As `make_runner`, for one layer."""
    hooks, state = ordered_hooks(registries, protocol), responder.context.state
    if state.hooks_begun or state.hooks_run or outer is not None:
        layers_around = () if outer is None else outer.layers_around
        around: frozenset[Hook] = frozenset().union(*(runner._hooks.unordered for runner in layers_around))
        over = state.hooks_run | around
        if responder.is_new_route:
            over = over.difference(hooks.route)
        waiting = responder.context.route_hooks
        if waiting:
            over = over.union(waiting) if responder.runs_waiting_hooks else over.difference(waiting)
        hooks = hooks.without(over)
        if not state.hooks_begun.difference(around).isdisjoint(hooks.unordered):
            raise HookError("Hooks of this request are not over: they were interrupted, or run at the same time.")
    if not hooks.unordered:
        return None
    state.hooks_begun = state.hooks_begun | hooks.unordered if state.hooks_begun else hooks.unordered
    return HookRunner(responder, hooks, outer)


#: The runner of the innermost layer that the code which runs now is in.
_current: ContextVar[HookRunner | None] = ContextVar("wsdeny_runner", default=None)


def is_within_route_hooks() -> bool:
    """Whether a layer around the code that runs now has route hooks, of whatever request."""
    runner = _current.get()
    return runner is not None and any(each._hooks.route for each in runner.layers_around)


def enclosing_runner(context: RequestContext) -> HookRunner | None:
    """The runner of the nearest layer around the code that runs now, if it belongs to the same request."""
    runner = _current.get()
    return runner if runner is not None and runner.context.state is context.state else None


class HookRunner:
    """The hooks of one layer around a request, and the runner of the layer inside it, if it has hooks too.

    Without `hooks` it answers errors: by the exception hooks of the layers around, or else as the responder does.
    """

    #: The runner of the layer inside; None without hooks there.
    inner: HookRunner | None = None
    #: Whether what is inside the around hooks has begun, and whether those have answered.
    _has_entered = False
    _is_over = False
    #: The template that response hooks wait for, and those: until they have run, no hook of the layer has.
    _held: tuple[HttpResponseBase, Checks] | None = None

    def __init__(self, responder: Responder, hooks: OrderedHooks = NO_HOOKS, outer: HookRunner | None = None) -> None:
        self._responder, self._hooks, self.outer = responder, hooks, outer
        #: Whether the caller is synchronous, and nothing in here has to wait.
        self._is_sync = not responder.is_async
        #: Response hooks and exception hooks that have not run yet.
        self._response, self._exception = Checks(hooks.response), hooks.exception

    @property
    def context(self) -> RequestContext:
        """The request at the layer of the responder."""
        return self._responder.context

    @property
    def has_around(self) -> bool:
        """Whether this layer, or one inside it, has around hooks."""
        if self.inner is None:  # as for most requests
            return bool(self._hooks.around)
        return any(runner._hooks.around for runner in self.layers)

    @property
    def is_enclosed(self) -> bool:
        """Whether around hooks of this layer, or of one around it, may give up what is inside."""
        if self.outer is None:  # as for most requests
            return bool(self._hooks.around)
        return any(runner._hooks.around for runner in self.layers_around)

    @property
    def has_response_hooks(self) -> bool:
        """Whether response hooks of this layer, or of one inside it, see the response."""
        return any(runner._hooks.response for runner in self.layers)

    @property
    def layers(self) -> Iterator[HookRunner]:
        """The runners from here to the innermost layer: itself and those of the layers inside."""
        runner: HookRunner | None = self
        while runner is not None:
            yield runner
            runner = runner.inner

    @property
    def layers_around(self) -> Iterator[HookRunner]:
        """The runners of this layer and of those around it, the innermost first."""
        runner: HookRunner | None = self
        while runner is not None:
            yield runner
            runner = runner.outer

    @property
    def innermost(self) -> HookRunner:
        """The runner of the innermost layer."""
        runner = self
        while runner.inner is not None:
            runner = runner.inner
        return runner

    def checks(self) -> tuple[tuple[Check, ...], tuple[Check, ...]]:
        """The request hooks and the route hooks of this layer and those inside, the outermost first."""
        request_hooks: tuple[Check, ...] = ()
        route_hooks: tuple[Check, ...] = ()
        for runner in self.layers:
            request_hooks += runner._hooks.request
            route_hooks += runner._hooks.route
        return request_hooks, route_hooks

    def forget(self) -> None:
        """Have hooks run again for an application that tries again: this layer, or one inside it, has denied."""
        state = self._responder.context.state
        for runner in self.innermost.layers_around:
            state.hooks_begun -= runner._hooks.unordered
            state.hooks_run -= runner._hooks.unordered

    def go_on(self) -> None:
        """Raise `HookError` if around hooks that enclose the endpoint have answered: nothing begins after that."""
        if any(runner._is_over for runner in self.innermost.layers_around):
            raise HookError("The around hooks have answered already; the endpoint does not begin any more.")

    def run(
        self, get_response: GetResponse, request_hooks: tuple[Check, ...] = (), route_hooks: tuple[Check, ...] = ()
    ) -> Coroutine[Any, Any, HttpResponseBase]:
        """A coroutine for the response to the request, with what the hooks have made of it.

        `request_hooks` and `route_hooks` are those of outer layers, still to run. It raises what the responder
        leaves to Django. In a synchronous caller `get_response` runs in its thread.
        """
        if not self._hooks.around:
            return self._run_inside(get_response, request_hooks, route_hooks)
        if self._is_sync:
            return self._run_on_loop(get_response)
        return self._run_around(get_response, request_hooks, route_hooks)

    async def _run_on_loop(self, get_response: GetResponse) -> HttpResponseBase:
        """As `run`, in an event loop of its own, as around hooks need."""

        async def call_in_thread(*hooks: tuple[Check, ...]) -> HttpResponseBase | Exception:
            return await run_in_django_thread(lambda: run_coroutine(get_response(*hooks)))

        self._is_sync = False
        response: HttpResponseBase = async_to_sync(self._run_around)(call_in_thread, (), ())
        return response

    def _note_over(self) -> None:
        """Note that the hooks are not running any more, and have run. Not those of a denial: it has forgotten them."""
        state, hooks = self._responder.context.state, self._hooks
        if state.hooks_begun is hooks.unordered:  # as for most requests, in the only layer with hooks
            state.hooks_begun, run = NO_HOOKS.unordered, hooks.once
        else:
            run = state.hooks_begun & hooks.once
            state.hooks_begun -= hooks.unordered
        if self._held is None:
            state.hooks_run |= run

    async def finish(self, answer: HttpResponseBase | Exception) -> HttpResponseBase:
        """What the exception hooks, then the response hooks of this layer and those inside make of an answer."""
        if self.inner is not None:
            answer = await self.inner.finish(answer)
        return await self._leave(answer)

    async def _leave(self, answer: HttpResponseBase | Exception) -> HttpResponseBase:
        """As `finish`, for this layer alone."""
        context = self._responder.context
        response = await self.answer(answer) if isinstance(answer, Exception) else answer
        answered_by = context.state.answered_by
        if answered_by is not None and self._is_inside(answered_by):
            self._response.clear()
        if self._response.is_stopped:  # They were interrupted; what is left of them runs for another answer.
            self._response = Checks(self._response)
        while self._response:
            try:
                replacement = run_ready_checks(self._response, context, response, may_block=self._is_sync)
                if replacement is None and self._response:
                    replacement = await self._run_checks(self._response, response)
                if replacement is not None:
                    self._response.clear()
                    response = await self._replace(response, replacement)
            except Exception as error:  # no answer of a broken hook is sent; the others go on
                replaced, response = response, await self.answer(error)
                await self._discard(replaced, response)
        if getattr(response, "is_denial", False):
            self.forget()
            add_denial_headers(response)
        return response

    def _is_inside(self, function: Callable[..., Any]) -> bool:
        """Whether `function` is a request hook of a layer around this one."""
        around = [runner for runner in self.layers_around if runner is not self]
        return any(hook.function is function for runner in around for hook in runner._hooks.request)

    @property
    def holds_response_hooks(self) -> bool:
        """Whether response hooks are kept back until a template is rendered."""
        return self._held is not None

    def hold_response_hooks(
        self, response: HttpResponseBase
    ) -> Callable[[HttpResponseBase | Exception], HttpResponseBase]:
        """Keep the response hooks of this layer back until `response` is rendered.

        Returns what runs them, as `finish`, in a synchronous caller.
        """
        hooks, self._response = self._response, Checks()
        self._held = (response, hooks)

        def finish(answer: HttpResponseBase | Exception) -> HttpResponseBase:
            is_sync, self._is_sync = self._is_sync, True
            self._response, self._held = hooks, None
            self._responder.context.state.hooks_run |= self._hooks.once
            try:
                return run_coroutine(self._leave(answer))
            finally:
                self._is_sync = is_sync  # An around hook may have rendered it, and goes on.

        return finish

    async def rescue(self, error: Exception) -> Denial | Exception:
        """What the exception hooks make of `error`: theirs, or the error that is to be answered.

        The innermost layer is asked first, of one layer the hook with the most specific type, each hook once.
        """
        error = normalize(error)
        for runner in self.layers_around:
            for hook in sorted(runner._exception, key=lambda hook: hook.distance(error) or 0):
                if hook.distance(error) is None:
                    continue
                runner._exception = tuple(each for each in runner._exception if each is not hook)
                try:
                    answer = await self._run_checks(Checks([hook]), error)
                except Exception as another:  # that is what has to be answered now
                    return another
                if answer is not None:
                    return answer
        return error

    def rescue_sync(self, error: Exception) -> Denial | Exception:
        """As `rescue`, for a synchronous caller, even within a request that is not."""
        return run_coroutine(self._sync_runner().rescue(error))

    async def answer(self, error: Exception) -> HttpResponseBase:
        """The response to an error: what exception hooks make of it, else what the responder does.

        Raises what the responder leaves to Django.
        """
        self.forget()
        answer = await self.rescue(error)
        if isinstance(answer, Exception) and not isinstance(answer, Deny):
            return await self._in_thread(answer, lambda: self._responder.fail(answer))
        return await self._respond(answer)

    def answer_sync(self, error: Exception) -> HttpResponseBase:
        """As `answer`, for a synchronous caller."""
        return run_coroutine(self._sync_runner().answer(error))

    def _sync_runner(self) -> HookRunner:
        """A runner within this one, for a synchronous caller. Others may use this one meanwhile, on the event loop."""
        runner = HookRunner(self._responder, outer=self)
        runner._is_sync = True
        return runner

    async def _run_around(
        self, get_response: GetResponse, request_hooks: tuple[Check, ...], route_hooks: tuple[Check, ...]
    ) -> HttpResponseBase:
        """Run the request hooks of outer layers, then the around hooks, and all else in those."""
        denial = await run_checks(Checks(request_hooks), self._responder.context)
        if denial is not None:
            response = await self._respond(denial)
        else:
            response = await self._enclose(functools.partial(self._run_inside, get_response, (), route_hooks))
        self._note_over()
        return response

    async def _enclose(self, inside: Callable[[], Awaitable[HttpResponseBase]]) -> HttpResponseBase:
        """Run the around hooks, and `inside` in them."""
        response: HttpResponseBase
        try:
            response = await self._call(0, inside)
        except asyncio.CancelledError as error:
            if is_being_cancelled() or isinstance(error, ClientLeft):
                raise
            response = await self.answer(RuntimeError("Something that an around hook awaited was cancelled."))
        except Exception as error:  # fail closed
            response = await self.answer(error)
        if self._held is not None and response is not self._held[0]:  # Another answer is in its place.
            (_, self._response), self._held = self._held, None
        # Where an around hook gave up waiting, response hooks that have not run see its answer.
        return await self._leave(response) if self._has_entered else response

    # A method and partials: a closure that calls itself is a cycle, which would keep the server's callables alive.
    async def _call(self, index: int, inside: Callable[[], Awaitable[HttpResponseBase]]) -> HttpResponseBase:
        if index == len(self._hooks.around):
            return await inside()
        hook, request = self._hooks.around[index], self._responder.context.request
        call_next = CallNext(functools.partial(self._call, index + 1, inside), hook, request)
        try:
            with noting(request, "hook", hook) as note:
                answer = await hook.function(request, call_next)
                note(answer)
        except Exception:
            await self._discard(call_next.response, None)
            raise
        finally:
            call_next.end()
            self._is_over = True  # The hooks around it may take their time; what it encloses begins no more.
        response = call_next.response
        if response is not None and answer is response:
            return response  # perhaps changed in place
        if answer is None:
            raise HookError(f"{hook!r} returned None. An around hook returns a response or a Deny.")
        return await self._replace(response, hook.checked(answer, request))

    async def _run_inside(
        self, get_response: GetResponse, request_hooks: tuple[Check, ...], route_hooks: tuple[Check, ...]
    ) -> HttpResponseBase:
        self._has_entered = True
        request_hooks, route_hooks = request_hooks + self._hooks.request, route_hooks + self._hooks.route
        answer: HttpResponseBase | Exception
        around = _current.get()
        _current.set(self)
        try:
            if self.inner is None:
                answer = await get_response(request_hooks, route_hooks)
            else:
                answer = await self.inner.run(get_response, request_hooks, route_hooks)
        except Exception as error:  # fail closed: it becomes a denial, or is left to Django
            answer = error
        finally:
            _current.set(around)
        response = await self._leave(answer)
        if not self._hooks.around:
            self._note_over()
        return response

    async def _respond(self, denial: Denial) -> HttpResponseBase:
        self.forget()
        return await self._in_thread(denial, lambda: self._responder.respond(denial))

    async def _replace(self, response: HttpResponseBase | None, answer: Denial) -> HttpResponseBase:
        """The response that a hook has put in the place of `response`."""
        replacement = await self._respond(answer)
        await self._discard(response, replacement)
        return replacement

    async def _discard(self, response: HttpResponseBase | None, successor: HttpResponseBase | None) -> None:
        if response is not None and response.streaming:
            if self._is_sync:
                discard(response, successor)
            else:
                await run_in_thread(self._responder.context.request, lambda: discard(response, successor))

    async def _in_thread(
        self, answer: Denial | Exception, function: Callable[[], HttpResponseBase]
    ) -> HttpResponseBase:
        if self._is_sync or not self._responder.respond_blocks(answer):
            return function()
        return await run_in_thread(self._responder.context.request, function)

    async def _run_checks(self, checks: Checks, argument: HttpResponseBase | Exception) -> Denial | None:
        context = self._responder.context
        if self._is_sync:
            return run_ready_checks(checks, context, argument, may_block=True)
        return await run_checks(checks, context, argument)


class GoOn(Check):
    """Comes before each check of a synchronous caller within around hooks, which go on while it runs."""

    __slots__ = ("_runner",)

    def __init__(self, runner: HookRunner) -> None:
        self._runner = runner

    def blocks(self, request: HttpRequest) -> bool:
        return False  # pragma: no cover - A synchronous caller does not ask.

    def run(self, request: HttpRequest) -> None:
        self._runner.go_on()


class CallNext:
    """The ``call_next`` of an around hook, which awaits it itself, once, with its own request."""

    __slots__ = ("_given", "_hook", "_inside", "_task", "response")

    def __init__(self, inside: Callable[[], Awaitable[HttpResponseBase]], hook: Hook, request: Any) -> None:
        self._inside: Callable[[], Awaitable[HttpResponseBase]] | None = inside
        self._hook, self._given = hook, request
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self.response: HttpResponseBase | None = None

    async def __call__(self, request: Any) -> HttpResponseBase:
        """The response from inside the hook. Raises `HookError` for any other use."""
        if request is not self._given:
            raise HookError(f"{self._hook!r} called call_next() with another request than its own.")
        if asyncio.current_task() is not self._task:
            raise HookError(
                f"{self._hook!r} called call_next() in another task. Await it in the hook itself; for a time limit "
                "use asyncio.timeout(), since asyncio.wait_for() runs it in another task on Python 3.11."
            )
        if self._inside is None:
            raise HookError(f"{self._hook!r} called call_next() twice: the endpoint answers once.")
        inside, self._inside = self._inside, None
        self.response = await inside()
        return self.response

    def end(self) -> None:
        """End the use of it, once the hook has returned: a task that the hook has left behind gets a `HookError`."""
        self._inside = self._task = None
