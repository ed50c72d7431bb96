"""HTTP requests to ASGI applications that are not Django's: an `AsyncHttpConsumer`, a mounted framework.

The endpoint is resolved without running anything, hooks run, policies are asked, the application is called.
Response hooks see the status and headers of its response, and may change them; its body streams through.
Django's own handler is left to `MirrorMiddleware`.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from channels.middleware import BaseMiddleware
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http.response import HttpResponse, HttpResponseBase
from django.urls import resolve as resolve_url
from django.urls.exceptions import Resolver404
from django.utils.translation import gettext_lazy as _

from .. import status as statuses
from ..authentication.base import authenticate_by, authentication_of_site
from ..authentication.bearer import tokens_of_question
from ..conf import conf
from ..db import drop_caches
from ..exceptions import Deny, HandshakeDenied
from ..headers import check_headers
from ..hooks.registry import site_hooks
from ..hooks.runner import HookRunner, enclosing_runner, make_runner
from ..http.context import RequestContext, RequestState, StackConfig
from ..http.cors import answer_preflight, cors_headers, is_preflight, with_cors
from ..http.exception_handler import translate
from ..http.messages import (
    EncodedDenial,
    Listener,
    encode_headers,
    send_response,
    send_while_connected,
    take_headers,
)
from ..http.request import AppRequest, authentication_of, copy_scope, full_path, with_plain_path
from ..http.responses import add_denial_headers, discard
from ..http.servers import is_multiplexed
from ..log import dotted_name, log_denial, log_failure
from ..policies.permissions import default_policy
from ..policies.runner import ClientLeft, policy_checks
from ..routing.resolver import EndpointMatch, consumer_class_of, leads_to_django, resolve, resolve_within
from .base import (
    LEAST_SECONDS,
    AppHandler,
    Limit,
    all_policies,
    authorize,
    checks_before,
    code_of,
    context_within,
    due_default,
    end_request,
    late_error,
    make_denial,
    report,
    respond,
    scope_for_application,
    set_route,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ..policies import Policy
    from ..policies.base import Denial
    from ..policies.runner import Check
    from ..routing.guards import ASGIMiddleware, Guards
    from ..types import ASGIApp, Message, Receive, Scope, Send

#: Seconds that an application has to end once its request was denied.
_GRACE = 1.0
#: What an application sends of its response after the start.
_AFTER_START = {
    "http.response.body",
    "http.response.pathsend",
    "http.response.trailers",
    "http.response.zerocopysend",
}
#: The state of the request that the code which runs now belongs to.
_running: ContextVar[RequestState | None] = ContextVar("wsdeny_http_request", default=None)
#: A path that no route names: one that matches it matches every path.
_NOWHERE = "/\0"


# The middleware of this package and decorated endpoints call these. They compose as ASGI applications do.


async def enter_middleware(middleware: ASGIMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
    """Run `middleware`, a stack or a guarded application, for an HTTP scope.

    Raises `Resolver404` if nothing in it matches, for a router around it that may know another route.
    """
    match = resolve_within(middleware, scope)
    outer = _context_of(scope)
    if outer is None:
        socket = _match_of_socket(middleware, match, scope)
        if socket is not None:
            if _is_allowed_preflight(scope, socket):
                await answer_preflight(scope, socket.options.origins, send)
                return
            send = with_cors(scope, socket.options.origins, send)
            _answer_plainly(socket, scope)
            await _enter(socket, None, scope, receive, send, is_socket=True)
            return
    if match.is_unresolvable:
        match.endpoint, match.keeps_route = match.app, True
    if match.error is not None:
        match.guards = match.guards._replace(policies=())  # They are about an endpoint.
    elif match.is_late:
        match.is_django = leads_to_django(match.endpoint)
    if match.is_django:
        config = _config_for_mirror(match, outer, scope)
        scope = {**scope, **match.url, "wsdeny": config}
        is_late = match.is_late and conf.MIRROR_DEFAULT_POLICY and full_path(scope) not in config.allowed
        if not (match.guards.policies or match.guards.reported or is_late):
            await match.app(scope, receive, send)
            return
    await _enter(match, outer, scope, receive, send)


async def enter_endpoint(app: ASGIApp, scope: Scope, receive: Receive, send: Send, guards: Guards) -> None:
    """Run `app`, a decorated consumer, once `guards` allow it.

    Hooks that outer layers have run, and policies that they have asked, are not run and asked again.
    """
    endpoint = getattr(app, "__self__", app)
    match = EndpointMatch(app, guards, endpoint=endpoint, consumer=endpoint, keeps_route=True)
    await _enter(match, _context_of(scope), scope, receive, send)


async def _enter(
    match: EndpointMatch,
    outer: RequestContext | None,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    is_socket: bool = False,
) -> None:
    scope = {**scope, **match.url}
    # Django, and what is not known, may tell such a path from that of a route.
    if "url_route" in scope and not (match.is_late or match.is_django):
        scope = with_plain_path({**scope, "path": match.plain_path or scope["path"]})
    context = RequestContext(AppRequest(scope)) if outer is None else context_within(outer, scope, match.options)
    token = _running.set(context.state)
    try:
        await HttpHandler(context, outer, scope, receive, send).run(match, is_socket=is_socket)
    finally:
        _running.reset(token)
        if outer is None:
            await end_request(context)


def _context_of(scope: Scope) -> RequestContext | None:
    """The context of the layer around; None for a scope that has none, or the one of another request."""
    config = scope.get("wsdeny")
    context = config.outer if isinstance(config, StackConfig) else config
    is_own = isinstance(context, RequestContext) and context.state is _running.get()
    return context if is_own else None


def _config_for_mirror(match: EndpointMatch, outer: RequestContext | None, scope: Scope) -> StackConfig:
    """What the stacks around Django's handler leave to `MirrorMiddleware`."""
    given = scope.get("wsdeny")
    hooks, default, allowed = match.hooks + match.guards.hooks, match.stack_default, []
    authentication = match.options.authentication
    if isinstance(given, StackConfig):
        hooks, allowed = given.hooks + hooks, given.allowed
        default = given.default_policy if default is None else default
        authentication = authentication or given.authentication
    if outer is not None:
        default = outer.pending_default if default is None else default
        authentication = authentication or authentication_of(outer.request)
    return StackConfig(hooks, default, allowed, outer, authentication)


# A plain request for a socket


def _match_of_socket(middleware: ASGIMiddleware, match: EndpointMatch, scope: Scope) -> EndpointMatch | None:
    """The WebSocket route that a plain request has reached; None if HTTP has something at its path."""
    if match.endpoint is not None and not match.is_django:
        consumer_class = consumer_class_of(match.endpoint)
        if consumer_class is None or hasattr(consumer_class, "http_request"):
            return None
        return _resolve_socket(middleware, scope)  # a consumer for sockets alone, without a protocol router
    may_be_page = match.is_unresolvable and not leads_to_django(match.app)
    is_broken = match.error is not None and not isinstance(match.error, Resolver404)
    if may_be_page or is_broken or scope.get("method") not in {"GET", "HEAD", "OPTIONS"}:
        return None
    socket = _resolve_socket(middleware, scope)
    if socket is not None and scope["method"] == "OPTIONS" and not _is_allowed_preflight(scope, socket):
        return None
    if socket is None or "url_route" not in socket.url or _is_routed_by_django(scope):
        return None
    nowhere = {**scope, "path": scope.get("root_path", "") + _NOWHERE}
    return None if _resolve_socket(middleware, nowhere) is not None else socket


def _is_allowed_preflight(scope: Scope, socket: EndpointMatch) -> bool:
    return is_preflight(scope) and bool(cors_headers(scope, socket.options.origins))


def _resolve_socket(middleware: ASGIMiddleware, scope: Scope) -> EndpointMatch | None:
    try:
        match = resolve(middleware, {**scope, "type": "websocket"})
    except Exception:  # a converter of the site's may raise anything; then it is no route
        return None
    return match if isinstance(match, EndpointMatch) else None


def _is_routed_by_django(scope: Scope) -> bool:
    path_info: str = scope["path"].removeprefix(scope.get("root_path", ""))
    if not getattr(settings, "ROOT_URLCONF", None):
        return False
    try:
        resolve_url(path_info)
    except Resolver404:
        return False
    except Exception:  # pragma: no cover - A URLconf that is broken: Django raises that itself, and leaks a file.
        return True
    return True


def _answer_plainly(match: EndpointMatch, scope: Scope) -> None:
    """Have the guards of a socket answer a plain request, or else have it told that it needs an upgrade.

    See RFC 9110 section 15.5.22.
    """
    # HTTP/2 knows no upgrade, and forbids the header (RFC 9113 section 8.2.2).
    headers = {} if is_multiplexed(scope) else {"Upgrade": "websocket", "Connection": "upgrade"}
    match.guards, match.is_late = match.guards._replace(policies=all_policies(match)), False
    match.error = Deny(426, _("This address is a WebSocket."), headers=headers)


class AppResponse(HttpResponseBase):
    """The beginning of an application's response, for response hooks: its status, headers and cookies."""

    streaming = is_async = True

    def __init__(self, start: Message) -> None:
        super().__init__(status=start["status"])
        self.start = start
        take_headers(self, check_headers(start))
        self._taken = [*self.items()]

    @property
    def start_message(self) -> Message:
        """The message with what hooks and the session have made of it; the application's own if that is nothing.

        Raises `ValueError` for headers of theirs that cannot be sent.
        """
        if self.status_code == self.start["status"] and not self.cookies and [*self.items()] == self._taken:
            return self.start
        return {**self.start, "status": self.status_code, "headers": encode_headers(self)}

    @property
    def content(self) -> bytes:
        """Raises `AttributeError`: the body is still to come, and streams through."""
        raise AttributeError("The body of an ASGI application's response streams through; hooks see no content.")

    streaming_content = content


class HttpHandler(AppHandler):
    """Runs an application, and hooks around its response. `receive` and `send` are what the application gets.

    The application runs in a task of its own, because hooks return while its body is sent.
    """

    def __init__(
        self,
        context: RequestContext,
        outer: RequestContext | None,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        super().__init__()
        self.context = context
        self.scope, self._outer, self._receive, self._send = scope, outer, receive, send
        self._runner: HookRunner | None = None
        self._listener = Listener(receive)
        #: The beginning of the application's response.
        self._answer: asyncio.Future[AppResponse] = asyncio.get_running_loop().create_future()
        #: Set once that has been sent, or a denial in its place.
        self._decided = asyncio.Event()
        self._is_started = self._is_denied = self._is_over = self._has_left = False
        #: Whether the application was waiting for an event as it was denied: the disconnect ends it.
        self._is_listening = False
        self._task: asyncio.Task[None] | None = None
        #: What answers for a policy or hook that does not end.
        self._beside: asyncio.Task[None] | None = None

    async def run(self, match: EndpointMatch, *, is_socket: bool) -> None:
        """Run hooks, ask policies, run the application, and send its response or a denial.

        With `is_socket`, a plain request has reached a socket, to ask what its handshake would be answered.
        """
        request: Any = self.context.request
        try:
            request.begin()
            if self._outer is None:
                self.context.state.began_in = copy_context()
                authentication = match.options.authentication or authentication_of_site()
                if is_socket:
                    request.check_host()
                    request.subprotocol_tokens = tokens_of_question(self.scope, authentication)
                authenticate_by(request, authentication)
            request.describes(self.scope, adopting=True)  # the route of a router around the endpoint
            hooks = () if match.is_django else ((*site_hooks(), *match.hooks), match.guards.hooks)
            set_route(self.context, match)
            self._runner = make_runner(self, hooks, "http", enclosing_runner(self.context))
        except Exception as error:  # malformed, or hooks that might have denied cannot be used
            await self._deny(make_denial(self.context, error))
            return
        try:
            response = await self._in_time(self._respond(match))
            if self._has_left or self._beside is not None:
                discard(response)
            elif isinstance(response, AppResponse):
                await self._start(response)
            else:
                await self._deny(response)
        except ClientLeft:
            pass
        finally:
            if self._beside is not None:
                await asyncio.wait({self._beside})
            await self._end_app()
            self._listener.end()  # It may have begun to listen before its response.

    async def _in_time(self, responding: Coroutine[Any, Any, HttpResponseBase]) -> HttpResponseBase:
        """The response, if hooks take no longer than ``POLICY_TIMEOUT``; the application may."""
        try:
            async with Limit(conf.POLICY_TIMEOUT + LEAST_SECONDS, self._give_up) as self._limit:
                response = await responding
        except Exception as error:  # some answer must be sent, and it must let nothing through
            return HttpResponse() if self._beside is not None else make_denial(self.context, error)
        if self._limit.expired() and self._beside is None:  # A hook has swallowed its cancellation.
            late = TimeoutError(f"A hook ran past POLICY_TIMEOUT ({conf.POLICY_TIMEOUT} s).")
            return make_denial(self.context, late)
        return response

    def _give_up(self) -> None:
        """Answer for a policy or hook that has swallowed its cancellation."""
        self._beside = asyncio.get_running_loop().create_task(self._abandon())

    async def _abandon(self) -> None:
        if not self._has_left:
            await self._deny(make_denial(self.context, late_error(self.context.expression or "A hook")))
        await self._end_app()
        if self._outer is None:
            await end_request(self.context)

    async def _respond(self, match: EndpointMatch) -> HttpResponseBase:
        get_response = partial(self._get_response, match)
        if self._runner is not None:
            return await self._runner.run(get_response)
        try:
            return await get_response((), ())
        except Exception as error:  # fail closed
            return await HookRunner(self, outer=enclosing_runner(self.context)).answer(error)

    async def _get_response(
        self, match: EndpointMatch, request_hooks: tuple[Check, ...], route_hooks: tuple[Check, ...]
    ) -> HttpResponseBase:
        """The beginning of the application's response, or a denial. Raises what the application does."""
        context = self.context
        policies, late = self._policies(match)
        denial = await authorize(context, checks_before(context, match, request_hooks, route_hooks, policies))
        if denial is None and not (policies or late):
            # Guards outside were asked about a user whom hooks may have changed.
            policies, late = self._policies(match)
            denial = await authorize(context, policy_checks(policies))
        if denial is not None:
            return await self._deny_by_check(denial)
        if match.error is not None:
            raise match.error
        await report(context, match.guards.reported, partial(authorize, context))
        if not match.is_django:  # Django closes those of its own requests.
            drop_caches(context.state.began_in)
        scope = copy_scope(self.scope) if match.is_django else scope_for_application(context, self.scope)
        context.mark_passed(policies, are_guards=match.are_guards)
        passed = len(context.state.passed)
        response = await self._call_app(match, scope)
        if match.is_django:
            is_asked = full_path(self.scope) in self.scope["wsdeny"].allowed
        else:  # A wrapper may ask for fragments, and answer by itself. An endpoint has the path of its route.
            paths = {full_path(scope) for scope in (self.scope, with_plain_path(self.scope))}
            is_asked = any(subject.asked_for[0] in paths for _, subject, _ in context.state.passed[passed:])
        if late and not is_asked and statuses.is_content(response.status_code):
            context.request.follow_route()  # type: ignore[attr-defined] # made from a scope
            denial = await authorize(context, policy_checks(late))
            if denial is not None:
                return await self._deny_by_check(denial)
        return response

    def _policies(self, match: EndpointMatch) -> tuple[tuple[Policy, ...], tuple[Policy, ...]]:
        """The policies to ask first, and those to ask if a wrapper answers and nothing inside was asked."""
        policies = match.guards.policies
        if match.error is not None or not (conf.MIRROR_DEFAULT_POLICY and match.owes_default):
            return policies, ()
        if match.is_django:
            default = self.scope["wsdeny"].default_policy
            late = (default_policy() if default is None else default,)
            return policies, late if match.is_late else ()  # Where nothing is around Django, the mirror asks.
        due = due_default(self.context, match)
        if due is None:
            return policies, ()
        if match.is_late and isinstance(match.endpoint, BaseMiddleware):  # What is inside is resolved anew.
            return policies, (due,)
        return (*policies, due), ()

    async def _deny_by_check(self, denial: Denial) -> HttpResponseBase:
        if self._runner is not None:
            self._runner.forget()
        return await respond(self.context, denial, strict=False)

    # The application

    async def _call_app(self, match: EndpointMatch, scope: Scope) -> AppResponse:
        """The beginning of the application's response; it may take as long as it likes."""
        if self._beside is not None:
            raise ClientLeft
        self._reschedule(None)
        self._task = asyncio.create_task(_run(match.app, scope, self.receive, self.send))
        waiting: set[asyncio.Future[Any]] = {self._task, self._answer}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # A hook has given up, or the server.
            await self._end_app()
            raise
        finally:
            self._reschedule(self._seconds_left)
        if self._answer.done():
            return self._answer.result()
        name = dotted_name(match.endpoint or match.app)
        try:
            self._task.result()
        except asyncio.CancelledError as error:
            raise RuntimeError(f"Something that {name} awaited was cancelled before it answered.") from error
        if self._has_left:
            raise ClientLeft
        raise ImproperlyConfigured(f"{name} ended without a response to the request.")

    async def receive(self) -> Message:
        """The application's ``receive``."""
        event: Message | None = None
        if not self._is_denied:
            event = await (self._listener.last() if self._is_started else self._listener.next())
        if event is None:
            return {"type": "http.disconnect"}
        if event["type"] == "http.disconnect":
            self._has_left = True
        return event

    async def send(self, message: Message) -> None:
        """The application's ``send``: the start of its response waits for the response hooks.

        Raises `HandshakeDenied`, an `OSError`, once the request is denied or answered.
        """
        kind = message["type"]
        if kind == "http.response.start":
            if self._answer.done() or self._is_denied:
                await self._until_decided()
                raise HandshakeDenied("The request has been answered already; its response cannot start again.")
            self._answer.set_result(AppResponse(message))
            await self._until_decided()
            return
        if kind in _AFTER_START:
            if not self._answer.done():
                raise RuntimeError(f"Expected 'http.response.start' first, found {kind!r}.")
            await self._until_decided()
            if self._is_over:
                raise HandshakeDenied(f"The request has been answered already; {kind!r} cannot be sent.")
            has_trailers = self._answer.result().start.get("trailers")
            self._is_over = kind == "http.response.body" and not message.get("more_body") and not has_trailers
        elif self._is_denied:
            raise HandshakeDenied(f"The request was denied; {kind!r} cannot be sent.")
        await self._send(message)

    async def _until_decided(self) -> None:
        """Wait until the start of the application's response has been sent. Raises if it was denied."""
        await self._decided.wait()
        if self._is_listening:  # Django's handler cancels what sends its response, and closes the response.
            await asyncio.get_running_loop().create_future()
        if not self._is_started:
            raise HandshakeDenied("The request was denied; its response cannot be sent.")

    async def _start(self, response: AppResponse) -> None:
        """Send the start of the application's response, as the hooks left it, and wait for its end."""
        try:
            await self._save_session(response, self._outer)
            start = response.start_message
        except Exception as error:  # of the session, or headers of hooks that cannot be sent
            await self._deny(make_denial(self.context, error))
            return
        await self._send(start)
        self._is_started = True
        self._decided.set()
        task: Any = self._task
        await asyncio.wait({task})
        if not self._is_over or not (task.cancelled() or isinstance(task.exception(), HandshakeDenied)):
            task.result()  # From the start on, its errors are the server's.

    async def _deny(self, response: Any) -> None:
        """Send a response in place of the application's."""
        self._stop_listening()
        try:
            if statuses.is_denial(response.status_code):
                add_denial_headers(response)
            await self._save_session(response, self._outer)
            headers = encode_headers(response)
        except Exception as error:  # of the session; nothing may be let through
            response = make_denial(self.context, translate(error))
            headers = encode_headers(response)
        denial = EncodedDenial(response, headers, code_of(response))
        if statuses.is_denial(response.status_code):
            log_denial(self.context, response.status_code, denial.code)
        try:
            sending = send_response(denial, self.scope, self._send)
            may_wait = response.streaming or is_multiplexed(self.scope)
            await (send_while_connected(sending, self._receive) if may_wait else sending)
        except OSError:
            pass  # The client has left, and the server says so as ASGI asks.

    def _stop_listening(self) -> None:
        """The application is not heard any more; what waits for an event gets a disconnect."""
        if not self._is_denied:
            self._is_denied, self._is_listening = True, self._listener.pending is not None
            self._listener.end()

    async def _end_app(self) -> None:
        """Have the application end, if it is still running: by its disconnect, or by a cancellation."""
        task = self._task
        if task is None:
            return
        if not self._is_started:
            self._stop_listening()
            self._decided.set()
            if not task.done() and (self._is_listening or self._answer.done()):
                await asyncio.wait({task}, timeout=_GRACE)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_GRACE)
        if task.done() and not task.cancelled():
            error = task.exception()
            is_news = not self._is_started and self._answer.done()  # else it is answered, or raised to the server
            if is_news and error is not None and not isinstance(error, HandshakeDenied):
                log_failure(self.context, error)


async def _run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)
