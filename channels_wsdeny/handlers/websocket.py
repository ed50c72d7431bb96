"""A WebSocket handshake, from top to bottom.

The connect event is taken, the endpoint resolved without running anything, hooks run, policies are asked, the
application is called; its first answer passes the response hooks, and goes out as an accept or as a denial.

The application runs in the task of the server, as in any ASGI middleware. Only where a request has around hooks it
runs in a task of its own, for then hooks have to return while the consumer lives on.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import enum
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from asgiref.sync import markcoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.urls.exceptions import Resolver404

from .. import signals
from ..authentication.base import authenticate_by, authentication_of_site
from ..authentication.bearer import take_tokens
from ..concurrency import adopt_context, is_being_cancelled
from ..conf import conf
from ..db import drop_caches, forget_state
from ..exceptions import Deny, HandshakeDenied, HookError, PolicyError
from ..headers import by_name, check_headers
from ..hooks.registry import site_hooks
from ..hooks.runner import make_runner
from ..http.context import RequestContext, RequestState
from ..http.exception_handler import means_denial
from ..http.messages import (
    Closed,
    DenialFromApplication,
    EncodedDenial,
    accept_headers,
    is_connect,
)
from ..http.request import HandshakeRequest, authentication_of, with_plain_path
from ..http.responses import is_rendered
from ..http.servers import is_granian
from ..log import dotted_name, log_denial, log_failure, logger
from ..policies.runner import ClientLeft, RouteHooksRun, policy_checks
from ..routing.resolver import EndpointMatch, resolve_within
from .base import (
    LEAST_SECONDS,
    AppHandler,
    Limit,
    SaveSession,
    authorize,
    check_origin_again,
    check_origin_for,
    checks_before,
    closing_message,
    context_within,
    due_policies,
    end_request,
    finalize_error,
    finalize_response,
    late_error,
    make_denial,
    report,
    respond,
    scope_for_application,
    set_route,
)
from .connection import CLOSED_GRACE, Connection
from .django_middleware import middleware_hooks
from .fast_denial import deny_anonymous, encoded_denial
from .open_socket import OpenSocket, is_draining
from .recheck import Part, unwrapped
from .stream import enter_stream, lose_stream

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..authentication.base import Authenticators
    from ..hooks import Hooks
    from ..hooks.runner import HookRunner
    from ..policies import Policy
    from ..policies.base import Denial
    from ..policies.runner import Check
    from ..routing.guards import ASGIMiddleware, Guards
    from ..types import ASGIApp, Message, RawHeaders, Receive, Scope, Send

#: Seconds that a denied application has to end by itself, and then once it is cancelled.
_GRACE = 1.0
#: The handler of the innermost layer that has decided about the code that runs now, by policies or by route hooks that
#: wait in the layers around: what it has decided counts for it and those around it.
_decided: contextvars.ContextVar[WebSocketHandler | None] = contextvars.ContextVar("wsdeny_decided", default=None)
#: The outermost handler of the handshake that the code which runs now belongs to.
_handshake: contextvars.ContextVar[WebSocketHandler | None] = contextvars.ContextVar("wsdeny_handshake", default=None)


class State(enum.Enum):
    """Where a handshake is, as the handler of one layer knows it; for the client that of the outermost layer counts."""

    #: Nothing has answered yet. The first answer is taken by `_answer`, or by `_emit` from around hooks.
    CONNECTING = "connecting"
    #: It passes the response hooks, or is being sent. An accept that is cancelled there leads back to connecting.
    ANSWERING = "answering"
    #: What has an answer keeps it: `_emit` alone accepts, and alone sends denials.
    ACCEPTED = "accepted"
    DENIED = "denied"


class _Accept(NamedTuple):
    """The response of an accept, and the headers that go out with it."""

    response: HttpResponseBase
    headers: RawHeaders


class _Raised(NamedTuple):
    """What the application raised before it answered: exception hooks are asked about it."""

    error: Exception


#: What goes out: an accept, or a denial, perhaps the messages of a kept one; for the layer around it is not encoded.
_Decision: TypeAlias = "_Accept | EncodedDenial | tuple[Message, Message] | Denial | HttpResponseBase | _Raised"


# Ways in: the middleware of this package and decorated endpoints call these. They compose as ASGI applications do.


async def enter_middleware(middleware: ASGIMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
    """Run `middleware`, a stack or a guarded application, for a websocket scope.

    Raises `Resolver404` if nothing in it matches, for a router around it that may know another route.
    """
    outer, scope = _context_of(scope), with_plain_path(scope)
    match = resolve_within(middleware, scope)
    if match.plain_path is not None:
        scope = {**scope, "path": match.plain_path}
    may_be_kept = outer is None and not is_draining()
    if may_be_kept and await deny_anonymous(match, scope, receive, send):
        return
    entering = _enter(match, outer, scope, receive, send)
    del match  # An open socket keeps nothing of it.
    await entering


async def enter_endpoint(app: ASGIApp, scope: Scope, receive: Receive, send: Send, guards: Guards) -> None:
    """Run `app`, a decorated consumer, once `guards` allow it; what outer layers have asked is not asked again."""
    outer, scope = _context_of(scope), with_plain_path(scope)
    consumer = getattr(app, "__self__", app)
    if outer is not None and (outer.consumer is consumer or outer.consumer is type(consumer)):
        if (
            outer.request.describes(scope, adopting=False)  # type: ignore[attr-defined] # made from a scope
            and all(map(outer.has_passed, guards.policies))
            and set(guards.hooks) <= set(outer.handler.entered)
        ):
            outer.consumer = consumer
            await app(scope, receive, send)
            return
        outer = context_within(outer, scope)
        scope = {**scope, "wsdeny": outer}
    # In no variable, for an open socket keeps nothing of the match.
    await _enter(
        EndpointMatch(app, guards, endpoint=app, consumer=consumer, keeps_route=True), outer, scope, receive, send
    )


async def _enter(
    match: EndpointMatch,
    outer: RequestContext | None,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    if outer is None:
        running = WebSocketHandler(scope, receive, send).run_outermost(match)
        del match  # An open socket keeps nothing of it.
        # granian keeps a denied connection for as long as any frame holds its callables.
        await (asyncio.create_task(running) if is_granian(send) else running)
        return
    first: WebSocketHandler = outer.handler.outermost
    if outer.consumer is not None or first.is_accepted:
        stream = RequestState()
        try:
            await enter_stream(match, outer, stream, scope, receive, send)
        finally:
            await end_request(RequestContext(outer.request, stream))
    elif first.is_unanswered:
        await _enter_within(match, outer, scope, receive, send)


def _context_of(scope: Scope) -> RequestContext | None:
    """The context of the layer around; None for a scope that has none, or the one of another handshake."""
    context = scope.get("wsdeny")
    if not isinstance(context, RequestContext) or not isinstance(context.handler, WebSocketHandler):
        return None
    return context if context.handler.outermost is _handshake.get() else None


async def _enter_within(
    match: EndpointMatch, outer: RequestContext, scope: Scope, receive: Receive, send: Send
) -> None:
    """Run a layer between the outermost one and the consumer: it denies by the handler around it."""
    around: WebSocketHandler = outer.handler
    connection = around.outermost._connection
    connection.deny_with = match.options.deny_with or connection.deny_with
    tokens: dict[str, str] = {}
    if match.options.authentication is not None:
        scope, tokens = around.outermost.take_tokens(scope, match.options.authentication)
    context = context_within(outer, {**scope, **match.url}, match.options, tokens)
    set_route(context, match)
    handler = WebSocketHandler(scope, receive, send, around)
    handler.context = context
    try:
        check_origin_again(context, match.options)
        # Those of a stack that only a wrapper leads to, so that they did not run around that.
        middleware = await middleware_hooks(match.options.middleware) if match.options.middleware else ()
        runner = make_runner(
            handler, (*middleware, match.hooks, match.guards.hooks), "websocket", around.innermost_runner
        )
    except (Deny, HookError, ImproperlyConfigured, TimeoutError) as error:
        await around.deny_from_within(_Raised(error), context)
        return
    context.handler = handler
    try:
        await handler.run(match, runner)
    finally:
        handler.release()


class WebSocketHandler(AppHandler):
    """Runs an application, and hooks around its first answer. `receive` and `send` are what the application gets.

    `around` is the handler of the enclosing layer, by which this one answers; None for the outermost.
    """

    __slots__ = (
        "_accept",
        "_answered",
        "_app_denial",
        "_beside",
        "_connect_taken",
        "_connection",
        "_disconnect_taken",
        "_endpoint",
        "_first",
        "_late",
        "_opens",
        "_runner",
        "_silence",
        "accepting",
        "around",
        "entered",
        "outermost",
        "socket",
        "state",
    )

    is_strict = True

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        around: WebSocketHandler | None = None,
    ) -> None:
        super().__init__()
        self._connection = Connection(scope, receive, send)
        self.around = around
        self.outermost: WebSocketHandler = self if around is None else around.outermost
        #: The socket, for the registry of open sockets.
        self.socket: OpenSocket = OpenSocket(self._connection) if around is None else around.socket
        self.state = State.CONNECTING
        #: The registries of the endpoint whose hooks run here.
        self.entered: tuple[Hooks, ...] = ()
        self._endpoint: Any = None
        self._runner: HookRunner | None = None
        self._app_denial: DenialFromApplication | None = None
        #: The policies to ask when an unresolvable application first calls ``receive``, or accepts.
        self._late: tuple[Policy, ...] = ()
        #: Whether policies were asked here, so that the handlers around need not ask their default policy.
        self._opens = False
        #: Set once the answer that is on its way is sent or given up, if a caller waits for that.
        self._answered: asyncio.Event | None = None
        #: Answers for an application that does not, and what answers so, or for a policy or hook that does not end.
        self._silence: tuple[asyncio.TimerHandle, contextvars.Context] | None = None
        self._beside: tuple[asyncio.Task[None], ...] = ()
        #: The application's accept, and its response: an accept is recognised by the identity of that.
        self._accept: Message = {}
        self.accepting: HttpResponse | None = None
        #: With around hooks alone: the first answer of the application, and the context that it was sent in.
        self._first: asyncio.Future[tuple[Any, contextvars.Context]] | None = None
        self._connect_taken = self._disconnect_taken = False

    @property
    def is_unanswered(self) -> bool:
        """Whether the handshake is neither accepted nor denied."""
        return self.state is State.CONNECTING or self.state is State.ANSWERING

    @property
    def is_accepted(self) -> bool:
        """Whether the handshake was accepted."""
        return self.state is State.ACCEPTED

    async def authorize(self, checks: list[Check]) -> Denial | None:
        """Run checks, see `base.authorize`.

        Before the accept it is noted whether the client leaves; later the events are the application's.
        """
        first = self.outermost
        return await authorize(self.context, checks, first._connection if first.is_unanswered else None, self._give_up)

    async def report(self, policies: tuple[Policy, ...]) -> None:
        """Ask policies that are not enforced, see `base.report`. Raises `ClientLeft` if the client leaves meanwhile."""
        await report(self.context, policies, self.authorize)
        if self.outermost.is_unanswered and self.outermost._connection.has_left:
            raise ClientLeft  # pragma: no cover - It leaves just as the report ends.

    @property
    def innermost_runner(self) -> HookRunner | None:
        """The runner of the innermost hooks, of this handler or one around it."""
        if self._runner is not None:
            return self._runner.innermost
        return None if self.around is None else self.around.innermost_runner

    def take_tokens(self, scope: Scope, authentication: Authenticators) -> tuple[Scope, dict[str, str]]:
        """As `authentication.bearer.take_tokens`, for the outermost handler or a layer inside it."""
        scope, tokens = take_tokens(scope, authentication)
        self._connection.subprotocol = self._connection.subprotocol or next(iter(tokens), None)
        return scope, tokens

    # From top to bottom

    async def run_outermost(self, match: EndpointMatch) -> None:
        """Take the connect event, and take the handshake to its answer and the application to its end."""
        self._connection.deny_with = match.options.deny_with
        if not is_connect(await self._connection.receive()):
            return
        forget_state()
        request: Any = HandshakeRequest(self._connection.scope)
        self.context = context = RequestContext(request)
        context.state.began_in = contextvars.copy_context()
        context.handler = self
        request.wsdeny = self.socket.context = context
        token = _handshake.set(self)
        try:
            try:
                await self.socket.register()
                runner = await self._begin(request, match)
            except Exception as error:  # malformed, or what might have denied cannot be used
                await self._emit(await finalize_response(context, make_denial(context, error, strict=True)))
            else:
                running = self.run(match, runner)
                del match, runner  # An open socket keeps nothing of them.
                await running
            await self._end_beside()
            await self._connection.finish()
        finally:
            for task in self._beside:
                task.cancel()
            _handshake.reset(token)
            self.release()
            await end_request(context)
        await self._connection.wait_for_receivers()

    async def _begin(self, request: Any, match: EndpointMatch) -> HookRunner | None:
        """Check host and origin, before anything of the site runs; returns the runner of the hooks, if there are any.

        Raises what denies.
        """
        authentication = match.options.authentication or authentication_of_site()
        scope, tokens = self.take_tokens(self._connection.scope, authentication)
        if tokens:
            request.scope = self._connection.scope = scope
            request.subprotocol_tokens = tokens
        request.check_host()
        request.begin()
        authenticate_by(request, authentication)
        check_origin_for(self.context, match.options)
        given = conf.MIDDLEWARE if match.options.middleware is None else match.options.middleware
        middleware = await middleware_hooks(tuple(given)) if given else ()
        if "url_route" in request.scope:  # of a router around the stack
            request.describes(request.scope, adopting=True)
        set_route(self.context, match)
        layers = (*middleware, (*site_hooks(), *match.hooks), match.guards.hooks)
        return make_runner(self, layers, "websocket", last=SaveSession()) if any(layers) else None

    async def run(self, match: EndpointMatch, runner: HookRunner | None) -> None:
        """Admit the request and run the application, or deny."""
        self.entered, self._runner = match.guards.hooks, runner
        found: dict[str, Any] | Denial | _Raised
        try:
            if runner is not None and runner.has_around:
                surrounded = self._run_around(match, runner)
                del match, runner  # An open socket keeps nothing of them.
                await surrounded
                return
            found = await self.admit(match, *((), ()) if runner is None else runner.checks())
        except ClientLeft:
            return
        except Exception as error:
            if self.outermost._beside:  # It was given up.
                return
            if self.state is not State.CONNECTING:
                raise
            found = _Raised(error)
        if isinstance(found, dict):
            app, match, runner = match.app, None, None  # type: ignore[assignment] # keep nothing
            await self.run_app(app, found)
        else:
            await self._answer(found)

    async def admit(
        self, match: EndpointMatch, request_hooks: tuple[Check, ...], route_hooks: tuple[Check, ...]
    ) -> Any:
        """Run hooks and ask policies: the scope for the application, or what the request is denied with.

        Raises what hooks and policies raise.
        """
        context = self.context
        policies, self._late = due_policies(context, match)
        denial = await self.authorize(checks_before(context, match, request_hooks, route_hooks, policies))
        if denial is None and not (policies or self._late):
            # Guards outside were asked about a user whom hooks may have changed.
            policies, self._late = due_policies(context, match)
            denial = await self.authorize(policy_checks(policies))
        if denial is not None:
            return denial
        if match.error is not None:
            return _Raised(match.error)
        self.outermost.context.policy = context.policy  # The log names it, whichever layer answers.
        if match.guards.reported:
            await self.report(match.guards.reported)
        if self.outermost._beside:  # It was given up.
            raise ClientLeft
        if not self.outermost.is_unanswered:  # pragma: no cover - in random sites
            raise HandshakeDenied("The handshake was answered while policies were asked.")
        scope = scope_for_application(context, {**self._connection.scope, **match.url})
        context.mark_passed(policies, are_guards=match.are_guards)
        context.consumer = match.consumer
        self._endpoint = match.endpoint or match.app
        drop_caches(context.state.began_in)
        self.socket.app_context = contextvars.copy_context()
        self._opens = bool(policies) and not self._late
        return scope

    async def run_app(self, app: ASGIApp, scope: Scope) -> None:
        """Run the application to its end, which is its answer if it has given none."""
        token = self._note_decided()
        answer: Exception | None = None
        self._expect_answer()
        try:
            async with asyncio.timeout(None) as self._connection.app_limit:
                await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            # A task group of Python 3.11 may leave a count of cancellations behind, so that `timeout` takes its own for
            # one of the server's.
            is_ours = self._connection.has_ended_app
            if self._connection.close_code is not None and (is_ours or not is_being_cancelled()):
                return  # It was closed from outside, and there is nothing more to receive.
            if self.state is State.ACCEPTED or (is_being_cancelled() and not is_ours):
                raise
            name = dotted_name(self._endpoint)
            answer = RuntimeError(f"Something that {name} awaited was cancelled before it answered.")
        except Exception as error:  # before the accept it is a denial; after it the socket is closed
            if self.state is State.ACCEPTED:
                if isinstance(error, TimeoutError) and self._has_overstayed():
                    return
                if not means_denial(error):
                    raise
                await self._close_with(error)
                return
            answer = error
        except BaseException as error:  # of the site's own: it is the server's, also where around hooks wait
            if self._first is not None and not self._first.done():
                self._first.set_exception(error)
            raise
        finally:
            if self._has_overstayed():
                name = dotted_name(self._endpoint)
                logger.warning("%s did not end within %s s of its socket's close.", name, CLOSED_GRACE)
            self._connection.app_limit = None
            if token is not None:
                _decided.reset(token)
        await self._app_ended(answer)

    async def _app_ended(self, answer: Exception | None) -> None:
        """The application has ended by itself. The client gets `answer` if it has none yet."""
        if self.state is not State.CONNECTING or not self.outermost.is_unanswered:
            if not is_being_cancelled():  # Channels' consumers swallow a cancellation while they end.
                await self._until_answered()
            if answer is not None and not isinstance(answer, (HandshakeDenied, RuntimeError, TimeoutError)):
                log_failure(self.context, answer)  # pragma: no cover - in random sites alone
        elif self.outermost._connection.has_left:
            self.state = State.DENIED
            if self._first is not None and not self._first.done():
                self._first.set_exception(ClientLeft())
        else:
            await self._answer(_Raised(answer or self._no_answer("ended without an answer to the handshake")))

    def _has_overstayed(self) -> bool:
        """Whether the application was cancelled, as it did not end after a close from outside."""
        return self._connection.close_code is not None and self._connection.has_ended_app

    def _no_answer(self, what: str) -> Exception:
        return ImproperlyConfigured(f"{dotted_name(self._endpoint)} {what}. It must accept or close.")

    # What is answered beside the code that runs

    def _expect_answer(self) -> None:
        """From now on ``ACCEPT_TIMEOUT`` counts."""
        self._expect_nothing()
        seconds = conf.ACCEPT_TIMEOUT if self.around is None else None
        if seconds is not None:
            loop = asyncio.get_running_loop()
            # A timer that is cancelled is kept by the loop for a while, with its context.
            timer = loop.call_later(seconds, self._break_silence, context=contextvars.Context())
            self._silence = timer, contextvars.copy_context()

    def _expect_nothing(self) -> None:
        if self._silence is not None:
            self._silence[0].cancel()
            self._silence = None

    def _break_silence(self) -> None:
        """Answer for an application that does not; it is ended as any that was denied."""
        if self._connection.has_left:  # pragma: no cover - It leaves at this very moment.
            self._connection.end_app_in(0)
        elif self.state is State.CONNECTING and self._silence is not None:
            error = self._no_answer(f"did not answer the handshake within {conf.ACCEPT_TIMEOUT} s (ACCEPT_TIMEOUT)")
            answering = self._answer(_Raised(error))
            self._beside += (asyncio.get_running_loop().create_task(answering, context=self._silence[1]),)

    def _give_up(self, who: str = "") -> None:
        """Answer for a policy or hook that has swallowed its cancellation."""
        first = self.outermost
        if first.is_unanswered:
            first.context.policy = self.context.policy
            error = late_error(who or self.context.expression or "A hook")
            first._beside += (asyncio.get_running_loop().create_task(first._abandon(error)),)

    async def _abandon(self, error: Exception) -> None:
        for thread in self.context.state.held_threads:
            thread.end()  # What goes on may never end, and a thread of the pool must not wait for that.
        denial = finalize_error(self.context, error)
        if not self._connection.has_left:
            await self._emit(denial)
        self.release()
        await end_request(self.context)

    async def _close_with(self, error: Exception) -> None:
        """Close an accepted socket with a denial that its application raised."""
        if self.around is not None:
            if isinstance(error, Resolver404):  # A router around it would take that for "try the next route".
                raise Http404(str(error)) from error
            raise error
        await self._connection.pass_on(await closing_message(self.context, error))

    async def _end_beside(self) -> None:
        """Wait for what answers beside; raises its error, which is the server's."""
        if self._beside:
            await asyncio.wait(self._beside)
            for task in self._beside:
                if not task.cancelled():
                    task.result()

    # The first answer

    async def _answer(self, answer: HttpResponse | Denial | _Raised) -> None:
        """Take the first answer: response hooks see it, and it goes out."""
        if self.state is not State.CONNECTING:  # pragma: no cover - It was answered at this very moment.
            return
        self.state, first = State.ANSWERING, self.outermost
        first._expect_nothing()
        try:
            if self._first is None:
                try:
                    decision = await self._pass_hooks(answer)
                except BaseException:  # cancelled by the application, which may try again, or ended by a hook's own
                    self.context.state.is_interrupted = True
                    if self.state is State.ANSWERING:
                        self.state = State.CONNECTING
                    self._wake()
                    raise
                await self._emit(decision)
            elif self._first.done():  # The around hooks have given up, and end the application.
                raise asyncio.CancelledError
            else:
                self._first.set_result((answer, contextvars.copy_context()))
                await self._until_answered()
        finally:
            if first.state is State.CONNECTING:
                first._expect_answer()  # It was cancelled, or a layer around that has denied before dropped it.

    async def _pass_hooks(self, answer: HttpResponse | Denial | _Raised) -> _Decision:
        """What goes out for an answer, once response hooks have seen it, if there are any."""
        request: Any = self.context.request
        if self.context.state.is_interrupted:
            answer = _Raised(HookError("Response hooks of this request were interrupted."))
        if self.around is not None and self._runner is None and answer is not self.accepting:
            return answer  # Without hooks of its own, a layer leaves denials and errors to the one around.
        if isinstance(answer, Deny) and (messages := self._kept_denial(answer)) is not None:
            log_denial(self.context, answer.status, answer.code)
            return messages
        if answer is self.accepting and self._runner is None and not request.has_unsaved_session:
            return _Accept(answer, [])
        seconds = self._seconds_left if self._may_wait(answer) else None
        return await self._decide(self._finish(answer), seconds)

    def _may_wait(self, answer: HttpResponse | Denial | _Raised) -> bool:
        """Whether response hooks, a session or a body may have to be waited for; most responses need no timer."""
        request: Any = self.context.request
        has_hooks = self._runner is not None and self._runner.has_response_hooks
        is_whole = isinstance(answer, HttpResponse) and is_rendered(answer)
        return has_hooks or not is_whole or request.has_unsaved_session

    async def _finish(self, answer: HttpResponse | Denial | _Raised) -> HttpResponseBase:
        response = await self._as_response(answer)
        if self._runner is not None:
            return await self._runner.finish(response)
        return await respond(self.context, response) if isinstance(response, Exception) else response

    async def _as_response(self, answer: HttpResponse | Denial | _Raised) -> HttpResponseBase | Exception:
        if isinstance(answer, _Raised):
            return answer.error
        if isinstance(answer, HttpResponseBase) and answer is self.accepting:
            return answer
        return await respond(self.context, answer)

    async def _decide(self, making: Awaitable[HttpResponseBase], seconds: float | None) -> _Decision:
        """What goes out for the response that hooks make: an accept with its headers, or a denial.

        They have so many `seconds`; None where nothing has to be waited for.
        """
        limit = None if seconds is None else Limit(seconds, partial(self._give_up, "A hook"))
        try:
            async with limit or contextlib.nullcontext() as self._limit:
                response = await making
                if not self.outermost.is_unanswered:  # It was given up.
                    return response
                decision: _Decision = response
                if response is self.accepting and response.status_code == 101:
                    await self._save_session(response, None if self.around is None else self.around.context)
                    decision = _Accept(response, accept_headers(response))
                elif self.around is None:
                    decision = await finalize_response(self.context, response)
            if limit is not None and limit.expired():  # pragma: no cover - A hook swallows its end.
                raise TimeoutError(f"A hook ran past POLICY_TIMEOUT ({conf.POLICY_TIMEOUT} s).")
        except Exception as error:  # some answer must be sent, and it must let nothing through
            if not self.outermost.is_unanswered:
                return HttpResponse()  # pragma: no cover - It was given up at this very moment.
            if self.around is None:
                return finalize_error(self.context, error)
            return make_denial(self.context, error, strict=True)  # pragma: no cover - at the accept of an inner layer
        finally:
            # It knows the task. One that is cancelled here keeps this frame, and so would keep itself alive.
            self._limit = limit = None
        return decision

    async def _emit(self, decision: _Decision) -> None:
        """Send an accept or a denial, perhaps a kept one: the handshake is answered, once and for all."""
        if self._runner is not None:
            if isinstance(decision, _Accept) or self.around is not None:
                drop_caches(self.context.state.began_in)  # Those of response hooks would live as long as the socket.
            self._runner = None
        if not self.is_unanswered:  # It was given up.
            return
        self.state = State.ANSWERING
        try:
            if isinstance(decision, _Accept):
                await self._send_accept(*decision)
                return
            if not isinstance(decision, (Deny, HttpResponseBase, _Raised)):
                self.state = State.DENIED
                await self._connection.deny(decision, self.context)
            elif self.around is not None:
                try:
                    await self.around.deny_from_within(decision, self.context)
                finally:
                    self.state = State.DENIED  # Not before: another denial of the application waits for this one.
                if self.outermost.is_accepted:  # by the application around, meanwhile: this is a stream by now
                    reason = decision.error if isinstance(decision, _Raised) else decision
                    await self._connection.pass_on(await closing_message(self.context, reason))
            self._connection.listener.end()  # The application gets its disconnect.
            self._connection.end_app_in(_GRACE)
        finally:
            self._wake()
            self.accepting = self._first = None
            self._accept = {}
        if self.around is None:  # What was denied holds nothing, though its application or a policy may never end.
            await end_request(self.context)

    async def _send_accept(self, response: HttpResponseBase, headers: RawHeaders) -> None:
        self.state = State.ACCEPTED
        token = None if self.around is None else self._note_decided()
        try:
            await self._connection.accept(self._accept, headers)
        except BaseException:
            if self.outermost.is_unanswered:  # A layer around has not sent it.
                self.state = State.CONNECTING
            raise
        finally:
            if token is not None:
                _decided.reset(token)
            if self.around is None:  # Also where it was cancelled: the client may have got it.
                self.socket.accepted()
        if self.around is None:
            self._connection.send_signal(signals.handshake_accepted, self.context, response)

    def _kept_denial(self, deny: Deny) -> tuple[Message, Message] | None:
        """The messages of a denial that were kept; None if something else may change the answer."""
        context = self.context
        if (
            self.around is not None
            or (self._runner is not None and self._runner.has_response_hooks)
            or context.trace is not None
            or context.state.middleware is not None  # It may have chosen the language.
            or context.request.has_unsaved_session  # type: ignore[attr-defined] # a handshake
        ):
            return None
        connection = self._connection
        authentication = authentication_of(context.request)
        scope, headers = connection.scope, by_name(connection.scope.get("headers", ()))
        return encoded_denial(deny, scope, headers, connection.send, connection.deny_with, authentication)

    async def deny_from_within(self, denial: HttpResponse | Denial | _Raised, context: RequestContext) -> None:
        """Deny for an inner layer; returns once that is sent."""
        await self._until_answered()
        if self.state is State.CONNECTING:
            self.context.policy = context.policy
            await self._answer(denial)

    async def _until_answered(self) -> None:
        """Wait until the answer that is on its way is sent, or given up."""
        while self.state is State.ANSWERING:
            if self._answered is None:
                self._answered = asyncio.Event()  # A future would be cancelled with a caller that waits for it.
            await self._answered.wait()

    def _wake(self) -> None:
        if self._answered is not None:
            self._answered.set()
        self._answered = None

    def release(self) -> None:
        """Let go of the server; what is left of the application cannot answer any more."""
        self._expect_nothing()
        if self.state is not State.ACCEPTED:
            self.state = State.DENIED
        self._wake()
        self._connection.release()
        if self.around is None:
            self.socket.release()

    # With around hooks, which await the first answer of the application

    async def _run_around(self, match: EndpointMatch, runner: HookRunner) -> None:
        tasks: list[asyncio.Task[None]] = []
        try:
            adopted = contextlib.ExitStack()
            making = runner.run(partial(self._get_response, match, tasks, adopted))
            decision = await self._decide(making, conf.POLICY_TIMEOUT + LEAST_SECONDS)
            adopted.close()  # Middleware around must not see the thread of the consumer.
            del match, runner, making, adopted
            await self._emit(decision)
            del decision
            if self.state is State.ACCEPTED:
                await tasks[0]
            elif tasks:
                await asyncio.wait(tasks, timeout=2 * _GRACE)
        finally:
            await _end(tasks)

    async def _get_response(
        self,
        match: EndpointMatch,
        tasks: list[asyncio.Task[None]],
        adopted: contextlib.ExitStack,
        request_hooks: tuple[Check, ...],
        route_hooks: tuple[Check, ...],
    ) -> HttpResponseBase | Exception:
        """What the innermost around hook awaits: the first answer of the application, unless a check denies."""
        found = await self.admit(match, request_hooks, route_hooks)
        if not isinstance(found, dict):
            return await self._as_response(found)
        first = self._first = asyncio.get_running_loop().create_future()
        tasks.append(asyncio.create_task(self.run_app(match.app, found)))
        self._reschedule(None)
        try:
            answer, sender = await first
        except asyncio.CancelledError:  # A hook has given up.
            await _end(tasks)
            raise
        finally:
            self._reschedule(self._seconds_left)
        # Hooks see what the application has set. And asgiref sees the thread of a synchronous consumer, which waits for
        # this answer: without that, `sync_to_async` in a hook would wait for that thread for ever.
        decided = _decided.get()
        adopted.callback(adopt_context(sender))
        _decided.set(decided)
        return await self._as_response(answer)

    # What the application calls. Marked for `async_to_sync`, by which synchronous consumers send.

    @markcoroutinefunction
    def receive(self) -> Awaitable[Message]:
        """The application's ``receive``. An idle socket waits in the `Connection` alone, without frames of ours."""
        is_outermost = self.around is None and self._connect_taken
        if is_outermost and self.state is State.ACCEPTED and not self._is_late():
            return self._connection.next_event()
        return self._receive()

    async def _receive(self) -> Message:
        if self._is_late():
            await self._ask_late()
        token = None if self.around is None else self._note_decided()
        try:
            return await self._next_event()
        finally:
            if token is not None:
                _decided.reset(token)

    async def _next_event(self) -> Message:
        if self.state is State.ACCEPTED and (self._connect_taken or self.around is not None):
            return await self._connection.next_event()
        is_denying = self.state is State.ANSWERING and not self._accept
        if not (is_denying or self.state is State.DENIED):
            if not self._connect_taken:
                self._connect_taken = True
                if self.around is None:
                    return {"type": "websocket.connect"}
            event = await self._connection.listener.next()
            if event is not None:
                if self.is_unanswered and event["type"] == "websocket.disconnect":
                    self._connection.has_left = self._disconnect_taken = True
                return event
        await self._until_answered()
        if self._connect_taken and not self._disconnect_taken:
            self._disconnect_taken = True
            return {"type": "websocket.disconnect", "code": self.outermost._connection.close_code or 1006}
        raise asyncio.CancelledError  # A plain exception would leave other tasks of the consumer pending.

    @markcoroutinefunction
    def send(self, message: Message) -> Awaitable[None]:
        """The application's ``send``. What an accepted socket sends passes one frame of ours."""
        if self.state is State.ACCEPTED and message.get("type") != "websocket.accept" and not self._is_late():
            return self._connection.pass_on(message)
        return self._send(message)

    async def _send(self, message: Message) -> None:
        kind = message.get("type")
        is_data = self.state is State.ACCEPTED and kind != "websocket.close"
        if self._is_late() and (kind == "websocket.accept" or is_data):
            await self._ask_late()
        is_answering = self.state is State.ANSWERING
        if is_answering:
            await self._until_answered()
            if self.state is not State.DENIED or kind != "websocket.close":
                await self._send(message)  # What is data by now has to be asked about.
            return
        if self.state is State.ACCEPTED:
            if kind == "websocket.accept":
                raise ValueError("'websocket.accept' was sent twice.")
            await self._connection.pass_on(message)
            return
        if self.state is State.DENIED:
            raise HandshakeDenied(f"The handshake was denied already; {kind!r} cannot be sent.")
        answer = self._answer_of(message)
        if answer is not None:
            await self._answer(answer)

    def _answer_of(self, message: Message) -> HttpResponse | Deny | None:
        """The answer that a message of the application gives; None if more of it is to come.

        Raises `ValueError` for a message out of turn, or that no server could send.
        """
        kind = message.get("type")
        if kind == "websocket.accept":
            if self._app_denial is not None:
                raise ValueError("'websocket.accept' was sent after 'websocket.http.response.start'.")
            check_headers(message)
            self._accept = message
            self.accepting = HttpResponse(status=101)
            del self.accepting["Content-Type"]
            self._opens = self._opens or self._is_open()
            return self.accepting
        if kind == "websocket.close":
            return Closed(message)
        if kind == "websocket.http.response.start":
            if self._app_denial is not None:
                raise ValueError(f"{kind!r} was sent twice.")
            self._app_denial = DenialFromApplication(message)
            return None
        if kind == "websocket.http.response.body":
            if self._app_denial is None:
                raise ValueError(f"{kind!r} was sent before 'websocket.http.response.start'.")
            return self._app_denial.add(message)
        raise ValueError(
            f"Found the message {kind!r} before the handshake was answered. Send 'websocket.accept' or "
            "'websocket.close' first."
        )

    def _note_decided(self) -> contextvars.Token[WebSocketHandler | None] | None:
        """Note that the code which runs now is in this layer, if that has decided, unless one inside it is noted."""
        has_decided = self._opens or self.context.has_routed
        return _decided.set(self) if has_decided and not self._deciding_inside() else None

    def _is_late(self) -> bool:
        """Whether policies are still to be asked, or route hooks to run, about the code that runs now."""
        return bool(self._late and not self._is_open()) or (self.context.owes_route_hooks and not self._is_routed())

    def _is_open(self) -> bool:
        """Whether policies of a layer inside this one have allowed the code that runs now."""
        return any(handler._opens for handler in self._deciding_inside())

    def _is_routed(self) -> bool:
        """Whether route hooks have run in a layer inside this one, for the route of the code that runs now."""
        return any(handler.context.has_routed for handler in self._deciding_inside())

    def _deciding_inside(self) -> list[WebSocketHandler]:
        """The handlers of the layers inside this one that the code which runs now is in, from one that has decided."""
        inside: list[WebSocketHandler] = []
        handler = _decided.get()
        while handler is not None and handler is not self:
            inside.append(handler)
            handler = handler.around
        return [] if handler is None else inside

    async def _ask_late(self) -> None:
        """Ask the default policy for an application that is not known; a denial ends that with a cancellation.

        Route hooks that still wait run before, if there is a route. They go on to wait for those inside.
        """
        late, context, request = self._late, self.context, cast("HandshakeRequest", self.context.request)
        given = request.user
        request.follow_route()
        hooks: tuple[Check, ...] = ()
        if context.route_hooks and request.resolver_match is not None and not self._is_routed():
            hooks = (*context.due_route_hooks(), RouteHooksRun())
        # A part of the application may have accepted by policies of its own, or may do so meanwhile. Those of the rest
        # are asked again beside them, and noted before they are asked, so that what happens meanwhile is not missed.
        self.socket.add_part(self, Part(request, late, partial(lose_stream, self.outermost._connection, context)))
        if self.state is State.ACCEPTED:
            self.socket.stream_changed(request)
        denial: Denial | _Raised | None
        try:
            denial = await self.authorize([*hooks, *policy_checks(late)])
            user, now = unwrapped(given), unwrapped(request.user)
            if denial is None and now is not user and (now.is_authenticated or user.is_authenticated):
                raise PolicyError(
                    f"A route hook or policy has set another user once {dotted_name(self._endpoint)} ran, which has "
                    "that of before in its scope. Decorate the consumer, or set the user in a request hook."
                )
        except Exception as error:  # fail closed
            denial = _Raised(error)
        finally:
            if self.outermost.is_unanswered:
                self.socket.drop_part(self)  # If they allow it, they are among what lets the socket in.
        if denial is None:
            self._late, self._opens = (), self._opens or bool(late)
            context.owes_route_hooks = context.owes_route_hooks and not hooks
            context.mark_passed(late, are_guards=False)
            return
        await self._until_answered()  # What is known may have accepted meanwhile.
        if self.state is State.ACCEPTED:
            reason = denial.error if isinstance(denial, _Raised) else denial
            await self._connection.pass_on(await closing_message(context, reason))
        else:
            await self.deny_from_within(denial, context)
        raise asyncio.CancelledError


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel the task of the application, if there is one."""
    for task in tasks:
        task.cancel()
        await asyncio.wait(tasks, timeout=_GRACE)
        if task.done():
            # Retrieved, so that asyncio does not log it, and so that a cancelled task lets go of its traceback: from
            # Python 3.14 on, the frame of `asyncio.wait` in it holds the task.
            with contextlib.suppress(asyncio.CancelledError):
                task.exception()
