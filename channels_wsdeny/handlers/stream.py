"""Streams: endpoints that an accepted consumer runs inside its own socket, such as those of a demultiplexer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from django.db.models import Model

from ..authentication.base import found_user
from ..authentication.bearer import take_tokens
from ..hooks.registry import ordered_hooks
from ..http.context import RequestContext
from ..http.exception_handler import means_denial
from ..policies.runner import LoadUser, RouteHooksRun, policy_checks
from .base import (
    authorize,
    check_origin_again,
    closing_message,
    due_policies,
    report,
    request_within,
    scope_for_application,
    set_route,
    setters_due,
)
from .connection import Connection
from .recheck import IsSameUser, Part, fresh_request, unwrapped

if TYPE_CHECKING:
    from ..http.context import RequestState
    from ..http.request import HandshakeRequest
    from ..policies.base import Denial
    from ..policies.runner import Check
    from ..routing.resolver import EndpointMatch
    from ..types import Receive, Scope, Send
    from .open_socket import OpenSocket
    from .recheck import Grant


async def enter_stream(
    match: EndpointMatch, outer: RequestContext, state: RequestState, scope: Scope, receive: Receive, send: Send
) -> None:
    """Run an endpoint that an admitted consumer enters by itself: all is asked anew, a denial closes its stream."""
    around: Any = outer.request
    tokens: dict[str, str] = {}
    if match.options.authentication is not None:
        scope, tokens = take_tokens(scope, match.options.authentication)
    request = request_within(around, {**scope, **match.url}, match.options, tokens)
    context = RequestContext(request, state, outer)
    context.handler, context.guarded = outer.handler, None
    set_route(context, match)
    denial: Denial | Exception | None = None
    socket: OpenSocket = outer.handler.socket
    stream, request = Connection(scope, receive, send), cast("HandshakeRequest", context.request)
    try:
        if match.error is not None:
            raise match.error
        check_origin_again(context, match.options)
        policies, late = due_policies(context, match)
        is_of_handshake = vars(request).get("user") is vars(around).get("user") and outer.handler.outermost.is_accepted
        hooks = _stream_hooks(match, outer, context)
        # Noted before the policies are asked, so that what happens meanwhile is not missed.
        socket.add_part(stream, Part(request, (*policies, *late), partial(lose_stream, stream, context)))
        if is_of_handshake:
            denial = await _load_fresh_user(request, socket.grant_for(around, ()))
        if denial is None:
            checks = [*setters_due(request), *hooks, *policy_checks((*policies, *late)), LoadUser()]
            denial = await authorize(context, checks)
        if denial is None:
            await report(context, match.guards.reported, partial(authorize, context))
            context.consumer = match.consumer or True
            if match.consumer is not None:
                context.route_hooks = ()  # Nothing is routed in it.
            context.mark_passed(policies, are_guards=match.are_guards)
            app_scope = scope_for_application(context, {**scope, **match.url})
            socket.stream_changed(request)
            if stream.close_code is None:
                await match.app(app_scope, stream.next_event, stream.pass_on)
            return
    except Exception as error:
        if context.consumer is not None and not means_denial(error):
            raise
        denial = error
    finally:
        socket.end_stream(stream, request)
    await stream.pass_on(await closing_message(context, denial))  # It may be closed already.


async def _load_fresh_user(request: Any, grant: Grant) -> Denial | None:
    """Load the user and session of an open socket anew, for the `request` of a stream that it enters with them.

    They are those of the handshake, perhaps of hours ago, with all that was loaded of them since. Returns a denial if
    it is another user by now.
    """
    user = unwrapped(vars(request).get("user"))
    if not getattr(user, "is_authenticated", False) or (isinstance(user, Model) and user._state.adding):
        return None  # It was not read from a database, but made of what a token says.
    fresh: Any = fresh_request(grant)
    fresh.wsdeny = RequestContext(fresh)
    denial = await authorize(fresh.wsdeny, [*grant.request.user_setters, IsSameUser(grant, {})])
    if denial is None:
        own, old = vars(request), grant.request
        request.scope = {name: value for name, value in request.scope.items() if name != "user"}
        own.update(user=fresh.user, auth=fresh.auth or old.auth, _wsdeny_found_user=found_user(fresh))
        session = own.get("session")
        if session is vars(old).get("session") and not getattr(session, "modified", False):
            own["session"] = fresh.session
    return denial


async def lose_stream(stream: Connection, context: RequestContext, denial: Denial) -> None:
    """Close a stream, or a whole socket, which a policy that has allowed it denies now."""
    closing = await closing_message(context, denial)
    await stream.close(closing["code"], closing["reason"])


def _stream_hooks(match: EndpointMatch, outer: RequestContext, context: RequestContext) -> list[Check]:
    """The request hooks and route hooks of a stream; it has no response of its own for the others.

    Those that have run for the handshake are over, but for route hooks: the stream has another route. Nothing is asked
    late in a stream, so they run at once, and behind what is no consumer once more for each route that it leads to.
    """
    over = outer.state.hooks_begun | outer.state.hooks_run
    registries = filter(None, (match.hooks, match.guards.hooks))
    layers = [ordered_hooks(each, "websocket") for each in registries]
    hooks: list[Check] = [hook for layer in layers for hook in layer.without(over).request]
    waiting = dict.fromkeys((*context.route_hooks, *(hook for layer in layers for hook in layer.route)))
    context.route_hooks = tuple(waiting)
    if waiting:
        hooks += (*context.due_route_hooks(), RouteHooksRun())
    return hooks
