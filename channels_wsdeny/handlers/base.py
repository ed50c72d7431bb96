"""What the handlers of WebSockets, views and HTTP applications share."""

from __future__ import annotations

import asyncio
import time
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

from django.utils.functional import LazyObject, SimpleLazyObject, empty

from .. import status as statuses
from ..authentication.base import authenticate_by
from ..concurrency import run_in_threadpool, submit_in_background
from ..conf import conf
from ..exceptions import Deny
from ..http import session as sessions
from ..http.context import RequestContext
from ..http.exception_handler import denial_of, forget_frames, translate
from ..http.messages import Closed, EncodedDenial, close_message, encode_headers
from ..http.origins import check_origin
from ..http.request import SessionUser, authentication_of, copy_scope
from ..http.responses import add_denial_headers, is_rendered, read_content, render, to_response
from ..log import log_denial, log_failure, log_report
from ..policies.permissions import default_policy
from ..policies.runner import (
    Check,
    Checks,
    LoadUser,
    ReportCheck,
    RouteHooksRun,
    policy_checks,
    run_checks,
    run_ready_checks,
)
from ..routing.guards import NO_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from django.http.response import HttpResponseBase

    from ..authentication.base import Authenticators
    from ..policies import Policy
    from ..policies.base import Denial
    from ..policies.runner import Watcher
    from ..routing.guards import StackOptions
    from ..routing.resolver import EndpointMatch
    from ..types import Message, Scope

    #: The site's own page for a denial; None without one.
    PageFor = Callable[[Deny], HttpResponseBase | None]

#: Seconds that response hooks have at least, when hooks and policies have used up ``POLICY_TIMEOUT``.
LEAST_SECONDS = 0.5
#: Seconds that a policy or hook has to end once it is cancelled, and that the end of a connection waits.
_GRACE = 1.0


class Limit:
    """A time limit as `asyncio.timeout`, and for what swallows its cancellation.

    If the block has not ended a second after its cancellation, `give_up` is called, which answers the client; the
    block itself goes on.
    """

    __slots__ = ("_give_up", "_seconds", "_timeout", "_timer")

    def __init__(self, seconds: float, give_up: Callable[[], None] | None) -> None:
        self._timeout = asyncio.timeout(None)
        self._seconds, self._give_up = seconds, give_up
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Limit:
        await self._timeout.__aenter__()
        self._begin(self._seconds)
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._end()
        await self._timeout.__aexit__(*error)

    def expired(self) -> bool:
        """Whether the block was cancelled."""
        return self._timeout.expired()

    def reschedule(self, seconds: float | None) -> None:
        """Give the block so many seconds from now; None for no limit."""
        if not self.expired():
            self._end()
            self._timeout.reschedule(None)
            if seconds is not None:
                self._begin(seconds)

    def _begin(self, seconds: float) -> None:
        # A timer that is cancelled is kept by the loop for a while, with its context.
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire, context=Context())

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._timeout.reschedule(loop.time())  # which cancels the block
        self._timer = None
        if self._give_up is not None:
            self._timer = loop.call_later(_GRACE, self._give_up, context=Context())


def late_error(who: str, client: str = "the client was answered without it") -> TimeoutError:
    """The error for a policy or hook that does not end, though it was cancelled: a 503."""
    return TimeoutError(
        f"{who} ran past POLICY_TIMEOUT ({conf.POLICY_TIMEOUT} s), was cancelled, and goes "
        f"on: {client}. It must let CancelledError pass."
    )


def context_within(
    outer: RequestContext, scope: Scope, options: StackOptions = NO_OPTIONS, tokens: Mapping[str, str] | None = None
) -> RequestContext:
    """The context of an inner layer, whose scope may name another user or route.

    For `options` and `tokens` see `request_within`.
    """
    request: Any = outer.request
    authentication = authentication_of(request)
    is_another = _is_another(options.authentication, authentication)
    if tokens or is_another or not request.describes(scope, adopting=True):
        request = request_within(request, scope, options, tokens)
    elif authentication is not None:
        authenticate_by(request, authentication)
    context = RequestContext(request, outer=outer)
    context.handler, context.obj, context.policy = outer.handler, outer.obj, outer.policy
    return context


def request_within(request: Any, scope: Scope, options: StackOptions, tokens: Mapping[str, str] | None = None) -> Any:
    """The request of `scope`, for an inner layer or a stream of the one of `request`.

    The `options` of a stack there may have other authentication classes: then the user is theirs. `tokens` are
    the subprotocols that were taken out of `scope` for them.
    """
    authentication, setters = authentication_of(request), ()
    if _is_another(options.authentication, authentication):
        authentication = options.authentication
        if scope.get("user") is request.user:
            scope = {name: value for name, value in scope.items() if name != "user"}
            setters = request.user_setters
    sibling = request.sibling(scope)
    if setters:
        sibling.user_setters = sibling.setters_due = setters
    if tokens:
        sibling.subprotocol_tokens = {**sibling.subprotocol_tokens, **tokens}
    if authentication is not None:
        authenticate_by(sibling, authentication)
    return sibling


def _is_another(inner: Authenticators | None, outer: Authenticators | None) -> bool:
    if inner is None or inner is outer:
        return False
    return outer is None or not (inner.is_session_only and outer.is_session_only)


def check_origin_for(context: RequestContext, options: StackOptions) -> None:
    """Check the origin of a handshake, by what the nearest stack has said. Raises what denies it."""
    request: Any = context.request
    authentication = authentication_of(request)
    reads_cookies = authentication is not None and authentication.reads_cookies
    if options.origins is not None:
        context.origins = options.origins
    check_origin(request, context.origins, reads_cookies=reads_cookies)


def check_origin_again(context: RequestContext, options: StackOptions) -> None:
    """Check the origin for a stack with classes or origins of its own, which the handshake was not checked for."""
    if options.authentication is not None or options.origins is not None:
        check_origin_for(context, options)


def scope_for_application(context: RequestContext, scope: Scope) -> dict[str, Any]:
    """The scope of the application, as under Channels' `AuthMiddlewareStack`."""
    request: Any = context.request
    user, authentication = request.user, authentication_of(request)
    is_set = "_wsdeny_user_is_set" in vars(request)  # by a policy; else perhaps found by an authentication class
    is_found = is_set or (authentication is not None and not authentication.is_session_only)
    known = user._wrapped if isinstance(user, LazyObject) else user
    is_kept = is_found or type(user) is not SessionUser or (request.user_setters and request.may_have_session_user)
    is_free = not ("user" in scope or is_set or request.may_have_session_user)
    # Channels' AuthMiddleware, and subclasses, set the ``_wrapped`` of the user: to that of the session, or of a token.
    if is_free and known is not empty and not known.is_authenticated:
        if known is user:
            lazy = SimpleLazyObject(lambda: None)
            lazy._wrapped, request.user = user, lazy
    elif is_kept and known is not user and known is not empty and user is not scope.get("user"):
        request.user = known  # It stays, by whichever credentials, hook or policy.
    offered = request.scope_for_application()
    given = {"session": offered["session"], "user": offered["user"], "wsdeny": context}
    if request.url_route is not None:
        request.keep_route()
        given["url_route"] = request.url_route
    return {**offered, **copy_scope(scope), **given}


def due_default(context: RequestContext, match: EndpointMatch) -> Policy | None:
    """The default policy that is asked before the endpoint: the one of the nearest stack, else that of the site.

    None if guards have been asked, or will be, about the same user and session. Those around the outermost stack do not
    count.
    """
    if match.owes_site_default and context.pending_default is None:
        match.default_policy = default_policy()
    if match.default_policy is not None:
        context.pending_default, context.guarded = match.default_policy, None
        return match.default_policy
    if match.stack_default is not None:
        context.pending_default = match.stack_default
    elif match.is_in_stack and context.pending_default is None:
        context.pending_default = default_policy()
    if match.guards.policies or context.is_guarded:
        return None
    return default_policy() if context.pending_default is None else context.pending_default


def all_policies(match: EndpointMatch) -> tuple[Policy, ...]:
    """The policies of an endpoint, and its default policy, as far as they follow from its route."""
    policies, default = match.guards.policies, match.default_policy
    if default is None and match.owes_default and (match.owes_site_default or not policies):
        default = default_policy()
    return policies if default is None else (*policies, default)


def due_policies(context: RequestContext, match: EndpointMatch) -> tuple[tuple[Policy, ...], tuple[Policy, ...]]:
    """The policies to ask before the endpoint, and those to ask when it first calls ``receive`` or accepts."""
    if match.error is not None:
        return (), ()
    policies = match.guards.policies
    default = due_default(context, match) if match.owes_default else None
    if default is None:
        return policies, ()
    return (policies, (default,)) if match.is_late else ((*policies, default), ())


def set_route(context: RequestContext, match: EndpointMatch) -> None:
    """Set the route and the consumer of the request, as far as they are known."""
    request: Any = context.request
    request.wsdeny = context
    if match.consumer is not None:
        is_class = isinstance(match.consumer, type)
        context.state.consumer_class = match.consumer if is_class else type(match.consumer)
    is_known = match.endpoint is not None and not match.is_django
    if is_known and not (match.keeps_route and request.resolver_match is not None):
        url_route = match.url.get("url_route") or request.url_route
        request.route_to(partial(match.resolver_match, url_route), url_route)
    if context.trace is not None:
        context.trace.note_route(request.resolver_match)


def checks_before(
    context: RequestContext,
    match: EndpointMatch,
    request_hooks: tuple[Check, ...],
    route_hooks: tuple[Check, ...],
    policies: tuple[Policy, ...],
) -> list[Check]:
    """What runs before the endpoint. Route hooks wait in the context until it is known, and for each one inside it."""
    checks = [*setters_due(context.request), *request_hooks]
    if context.route_hooks or route_hooks:
        checks += _route_hooks_before(context, match, route_hooks)
    checks += policy_checks(policies)
    if match.error is None and not match.is_django:
        checks.append(LoadUser())
    return checks


def _route_hooks_before(
    context: RequestContext, match: EndpointMatch, route_hooks: tuple[Check, ...]
) -> tuple[Check, ...]:
    """The route hooks that run before the endpoint: those that wait, and `route_hooks`."""
    request: Any = context.request
    is_routed, was_waiting = request.resolver_match is not None, bool(context.route_hooks)
    waiting = context.route_hooks = (*context.route_hooks, *route_hooks)
    if match.is_late or not is_routed:
        # They have not begun: they are left to what is inside, where each application has another route.
        context.owes_route_hooks = is_routed
        context.state.hooks_begun = context.state.hooks_begun.difference(waiting)
        return ()
    due: tuple[Check, ...] = context.due_route_hooks()
    if match.consumer is None and request.scope["type"] == "websocket":
        return (*due, RouteHooksRun())  # It may route further.
    context.route_hooks, context.has_routed = (), was_waiting
    return due


def setters_due(request: Any) -> tuple[Check, ...]:
    """What sets another user, such as middleware for a second factor, and is still to be called for this user; once."""
    due: tuple[Check, ...] = request.setters_due
    if due:
        request.setters_due = ()
    return due


async def authorize(
    context: RequestContext,
    checks: Iterable[Check],
    watcher: Watcher | None = None,
    give_up: Callable[[], None] | None = None,
    *,
    may_block: bool = False,
) -> Denial | None:
    """Run `checks` within what is left of ``POLICY_TIMEOUT``; returns the first denial.

    While they wait, `watcher` looks out for the client, see `run_checks`. For `give_up` see `Limit`. In a synchronous
    caller they `may_block`, and nothing can end a policy that hangs.

    Raises what a check raises, `TimeoutError` past the time (a 503), and `ClientLeft`, see `run_checks`.
    """
    state, remaining = context.state, Checks(checks)
    if may_block and state.trace is not None:
        with state.trace.watching_queries():
            return run_ready_checks(remaining, context, may_block=True)
    denial = run_ready_checks(remaining, context, may_block=may_block)
    if denial is not None or not remaining:
        return denial  # Most requests have nothing to wait for, and need no timer.
    began = time.monotonic()
    seconds = conf.POLICY_TIMEOUT - state.seconds
    if watcher is not None:
        watcher.watch()
    try:
        async with Limit(max(0.0, seconds), give_up) as limit:
            denial = await run_checks(remaining, context, watcher=watcher)
        if limit.expired():  # The check has swallowed its cancellation.
            raise TimeoutError
    except Exception as error:  # A check may turn its cancellation into an error of its own.
        if not limit.expired():
            raise
        raise TimeoutError(
            f"{context.expression or 'A hook'} ran past POLICY_TIMEOUT ({conf.POLICY_TIMEOUT} s), or waited that long "
            f"for one of the {conf.POOL_SIZE} threads of the pool (POOL_SIZE)."
        ) from error
    finally:
        if watcher is not None:
            watcher.unwatch()
        state.seconds += time.monotonic() - began
        del limit  # It knows the task. One that is cancelled here keeps this frame, and so would keep itself alive.
    return denial


async def report(
    context: RequestContext,
    policies: tuple[Policy, ...],
    authorize: Callable[[list[Check]], Awaitable[Denial | None]],
) -> None:
    """Ask policies that are not enforced, each once, and log which would have denied. Raises nothing of theirs.

    Each has what is left of ``POLICY_TIMEOUT``. They are asked by `authorize`.
    """
    for policy in filter(context.begin_report, policies):
        before, seconds = context.policy, context.state.seconds
        context.policy = policy
        try:
            _log_report(context, await authorize([ReportCheck(policy)]))
        except Exception as error:  # of the policy, or its time limit: it denies nothing
            _log_report(context, denial_of(error))
        finally:
            context.policy, context.state.seconds = before, seconds


def _log_report(context: RequestContext, denial: Denial | None) -> None:
    if isinstance(denial, Deny):
        log_report(context, denial.status, denial.code, denial.__cause__)
    elif denial is not None:
        status = statuses.wire_status(denial.status_code)
        log_report(context, status, statuses.code_for(status), None)


def denial_blocks(denial: Denial | Exception) -> bool:
    """Whether `make_denial` may block for this denial: it does to render a template."""
    response = denial.response if isinstance(denial, Deny) else denial
    return response is not None and not isinstance(response, Exception) and not is_rendered(response)


def make_denial(
    context: RequestContext,
    denial: Denial | Exception,
    page_for: PageFor | None = None,
    *,
    strict: bool = False,
) -> HttpResponseBase:
    """The rendered response that a denial or an exception is sent as. Never raises.

    A status that cannot deny is an error, with `strict`, as for sockets, that of a response, too. `page_for` gives the
    site's own page for clients that want one.
    """
    error: BaseException | None = None
    if isinstance(denial, Exception):
        denial = denial_of(denial)
        error = denial.__cause__
    given = denial.response if isinstance(denial, Deny) else denial
    try:
        page = None if page_for is None or not isinstance(denial, Deny) else page_for(denial)
        if page is not None and isinstance(denial, Deny):
            denial = Deny(code=denial.code, headers=denial.headers, response=page)
        response = render(context.request, to_response(context, denial))
        if strict or isinstance(denial, Deny):
            _check_status(response)
        _add_challenge(context, response)
        encode_headers(response)  # Raises for what cannot be sent.
    except Exception as another:  # some answer must be sent, and it must let nothing through
        if given is not None:
            given.close()
        denial, error = translate(another), another
        response = to_response(context, denial)
    if not statuses.is_denial(response.status_code):
        return response
    marked: Any = response
    if error is not None and response.status_code >= 500:
        log_failure(context, error, response.status_code)
        marked._has_been_logged = True  # Django's own attribute.
    forget_frames(error)
    if isinstance(denial, Deny):
        marked.wsdeny_code = denial.code, response.status_code
    if isinstance(denial, Closed) and denial.close_code is not None:
        marked.wsdeny_close = denial.close_code, str(denial.detail), response.status_code
    add_denial_headers(response)
    return response


def _check_status(response: HttpResponseBase) -> None:
    if not statuses.is_denial(response.status_code):
        raise ValueError(f"Found a response of status {response.status_code}. The status of a denial is 300-599.")


def _add_challenge(context: RequestContext, response: HttpResponseBase) -> None:
    """Give a 401 the challenges of the authentication classes in use, if they have any."""
    if response.status_code == 401 and not response.has_header("WWW-Authenticate"):
        authentication = authentication_of(context.request)
        challenge = None if authentication is None else authentication.challenge(context.request)
        if challenge is not None:
            response["WWW-Authenticate"] = challenge


def code_of(response: HttpResponseBase) -> str:
    """The code of a denial's response, for the log and for closes; by its status if a hook has changed that."""
    code, status = getattr(response, "wsdeny_code", ("", 0))
    return code if status == response.status_code else statuses.code_for(response.status_code)


async def finalize_response(context: RequestContext, response: HttpResponseBase) -> EncodedDenial:
    """A denial that may be sent as it is: a whole response, its session saved, logged. Never raises."""
    try:
        _check_status(response)
        add_denial_headers(response)
        await save_session(context, response)
        code = code_of(response)
        response = await read_content(context.request, response)
        headers = encode_headers(response)
    except Exception as error:  # some answer must be sent, and it must let nothing through
        return finalize_error(context, error)
    log_denial(context, response.status_code, code)
    return EncodedDenial(response, headers, code)


def finalize_error(context: RequestContext, error: Exception) -> EncodedDenial:
    """As `finalize_response`, where making the site's own denial failed: nothing of the site is left in it."""
    response = make_denial(context, translate(error))
    denial = EncodedDenial(response, encode_headers(response), code_of(response))
    log_denial(context, response.status_code, denial.code)
    return denial


async def respond(context: RequestContext, denial: Denial | Exception, *, strict: bool = True) -> HttpResponseBase:
    """As `make_denial`, in a thread where that may block."""
    if denial_blocks(denial):
        return await run_in_threadpool(lambda: make_denial(context, denial, strict=strict))
    return make_denial(context, denial, strict=strict)


async def closing_message(context: RequestContext, denial: Denial | Exception) -> Message:
    """The close that stands for a denial of an open socket or stream; its reason is the detail, if there is one."""
    response = await respond(context, denial)
    return close_message(await finalize_response(context, response), detail_of(denial))


def detail_of(denial: Denial | Exception) -> str:
    """The detail of a denial, if it has one. Never raises: a lazy text may."""
    try:
        return str(denial.detail) if isinstance(denial, Deny) else ""
    except Exception:  # the denial must close its socket all the same
        return ""


async def save_session(context: RequestContext, response: HttpResponseBase) -> None:
    """Save the session of a request made from a scope, and set its cookie on `response`; as Django, not on a 5xx.

    Raises `SessionInterrupted` (a 400) if the session was deleted meanwhile, `TimeoutError` (a 503) if its storage
    takes longer than ``POLICY_TIMEOUT``.
    """
    check = SaveSession()
    is_due = response.status_code < 500 and not hasattr(response, "wsdeny_session")
    if is_due and check.blocks(context.request):
        async with asyncio.timeout(conf.POLICY_TIMEOUT):
            await run_in_threadpool(lambda: check.run(context.request, response))


class SaveSession(Check):
    """Save the session of a request made from a scope. As the last of the response hooks, it shares their thread."""

    def blocks(self, request: Any) -> bool:
        has_unsaved_session: bool = request.has_unsaved_session
        return has_unsaved_session

    def run(self, request: Any, response: Any) -> None:
        if response.status_code < 500 and request.has_unsaved_session:
            sessions.save_session(request, response)
            response.wsdeny_session = True  # It is not saved again for this response.


async def end_request(context: RequestContext) -> None:
    """The connection or request has ended: call what waits for that, in the background.

    It is waited for a moment, so that it has run when the application ends.
    """
    state = context.state
    state.has_ended = True  # Before the look at what waits: another thread looks in the other order.
    if not state.ending:
        return
    try:
        running = submit_in_background(context.run_ending)
    except ConnectionError:  # pragma: no cover - No thread can be started; the test of that has a process of its own.
        context.run_ending()
    else:
        await asyncio.wait({asyncio.wrap_future(running)}, timeout=_GRACE)


class AppHandler:
    """The handler of an ASGI application, for its runner of hooks: the responses of denials and errors."""

    __slots__ = ("_limit", "context")

    #: Whether a status that cannot deny is an error, as for sockets.
    is_strict = False
    is_async = True
    is_new_route = False
    runs_waiting_hooks = True

    context: RequestContext

    def __init__(self) -> None:
        #: The time limit of the hooks.
        self._limit: Limit | None = None

    def respond(self, denial: Denial) -> HttpResponseBase:
        """The response that a denial is sent as."""
        return make_denial(self.context, denial, strict=self.is_strict)

    def respond_blocks(self, denial: Denial | Exception) -> bool:
        """Whether that may block."""
        return denial_blocks(denial)

    def fail(self, error: Exception) -> HttpResponseBase:
        """The response to an error that no hook answers."""
        return make_denial(self.context, error, strict=self.is_strict)

    def _reschedule(self, seconds: float | None) -> None:
        """Give the hooks so many seconds from now; None for no limit."""
        if self._limit is not None:
            self._limit.reschedule(seconds)

    @property
    def _seconds_left(self) -> float:
        """What is left of ``POLICY_TIMEOUT`` for the response hooks, once the application has answered."""
        return max(LEAST_SECONDS, conf.POLICY_TIMEOUT - self.context.state.seconds)

    async def _save_session(self, response: HttpResponseBase, outer: RequestContext | None) -> None:
        """Save the session; one that is that of the layer around (`outer`) is saved there."""
        own = vars(self.context.request).get("session")
        if outer is None or own is not vars(outer.request).get("session"):
            await save_session(self.context, response)
