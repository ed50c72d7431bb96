"""An accepted socket, as it is seen from outside its application: closed, asked again, a member of groups."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from ..conf import conf
from ..exceptions import Deny, HandshakeDenied
from ..log import log_failure
from ..policies.base import raisable
from .recheck import SESSION_ENDED, Grant, ask_again, counts_once, grants_of, lasting_expressions

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Awaitable

    from ..http.context import RequestContext
    from ..http.request import HandshakeRequest
    from ..policies import Policy
    from ..policies.base import Denial
    from .connection import Connection
    from .recheck import Part


class Registry(Protocol):
    """What keeps the sockets of this process, to close them from outside: that of `channels_wsdeny.live`."""

    #: Whether the process is to end, and every handshake is denied with a 503.
    is_draining: bool

    def begin(self, socket: OpenSocket) -> Awaitable[None] | None:
        """A handshake begins; what is returned is awaited. Raises `Deny` if there are to be no more."""

    def accepted(self, socket: OpenSocket) -> None:
        """The handshake was accepted."""

    def ended(self, socket: OpenSocket) -> None:
        """The handshake was denied, or the socket has ended."""

    def stream_changed(self, socket: OpenSocket, request: HandshakeRequest) -> None:
        """A stream of an accepted socket has opened or ended."""

    def leave(self, groups: list[Part]) -> None:
        """A stream has ended: it leaves these groups."""

    async def join(
        self, socket: OpenSocket, context: RequestContext, group: str, policy: Policy, channel: str | None
    ) -> None:
        """Join a group of the channel layer as long as `policy` allows it. Raises `Deny` if it does not."""


#: Set by the app once Django is ready: this module does not import what is above it.
registry: Registry | None = None


def is_draining() -> bool:
    """Whether the process is to end, and every handshake is denied with a 503."""
    return registry is not None and registry.is_draining


class OpenSocket:
    """A socket from its handshake on: what let it in, and its streams and groups. Its registry keeps it by this."""

    __slots__ = ("_connection", "app_context", "context", "grants", "moves", "parts")

    #: The context of the outermost layer.
    context: RequestContext

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        #: What let it in, once it is accepted; and the contextvars that this was asked in.
        self.grants: tuple[Grant, ...] = ()
        self.app_context: contextvars.Context | None = None
        #: The streams and groups that have policies of their own, by what stands for each.
        self.parts: dict[Any, Part] | None = None
        #: The old and the new key of its session, each time that was renewed.
        self.moves: tuple[tuple[str, str], ...] = ()

    # What the handler calls

    async def register(self) -> None:
        """Tell the registry that the handshake begins, before its policies are asked. Raises `Deny` while draining."""
        is_dry_run = self.context.trace is not None and self.context.trace.is_dry_run
        if registry is not None and not is_dry_run and (waiting := registry.begin(self)) is not None:
            await waiting

    def accepted(self) -> None:
        """The handshake was accepted."""
        self.grants = grants_of(self.context)
        if self.context.trace is not None and self.context.trace.is_dry_run:
            self.context.trace.lasting = lasting_expressions(self.grants)
        self.context.forget_decisions()
        if registry is not None:
            registry.accepted(self)

    def stream_changed(self, request: HandshakeRequest) -> None:
        """A stream of the socket, that of `request`, has opened or ended."""
        if registry is not None:
            registry.stream_changed(self, request)

    def release(self) -> None:
        """The handshake was denied, or the socket has ended."""
        if registry is not None:
            registry.ended(self)
        self.grants, self.parts, self.app_context = (), None, None

    def grant_for(self, request: HandshakeRequest, policies: tuple[Policy, ...]) -> Grant:
        """What is asked about `request`, that of the socket or of a stream, whose session may have a new key by now."""
        grant = Grant(request, policies)
        for old, new in self.moves:
            if grant.session_key == old:
                grant.session_key = new
        return grant

    # From outside

    @property
    def _is_accepted(self) -> bool:
        accepted: bool = self.context.handler.is_accepted
        return accepted

    async def close(self, code: int, reason: str) -> bool:
        """Close the accepted socket with a code and reason for the client, see `Connection.close`.

        False if the socket is not open.
        """
        return self._is_accepted and await self._connection.close(code, reason)

    async def close_for(self, context: RequestContext, code: int, reason: str) -> None:
        """Close the socket for its application; before the accept that is a denial, as its own close is."""
        if context.handler.outermost.is_unanswered:
            await context.handler.send({"type": "websocket.close", "code": code, "reason": reason})
        else:
            await self.close(code, reason)

    async def recheck(self, context: RequestContext) -> None:
        """Ask what let the socket in again, for its application. Raises `Deny` if something denies now.

        A database or other service that cannot be reached denies nothing: that is logged.
        """
        if not (self._is_accepted and self.grants):  # else the accept is being sent, or all is over
            raise HandshakeDenied("recheck() is for an accepted socket.")
        request: Any = context.request
        own = [part for part in (self.parts or {}).values() if part.request is request]
        grants = (*self.grants, *(self.grant_for(part.request, part.policies) for part in own))
        try:
            denial = None if self.app_context is None else await ask_again(grants, self.app_context)
        except Exception as error:  # the service may be back in a moment
            log_failure(context, error, 503)
            return
        if denial is not None:
            raise raisable(denial)
        context.obj = next((grant.obj for grant in grants if grant.request is request), context.obj)

    async def ask_again(self, users: dict[Any, Any] | None = None) -> Denial | None:
        """Ask the policies that let the socket in again, see `recheck.ask_again`; None once it has ended."""
        if self.app_context is None:  # pragma: no cover - It ends by chance just before.
            return None
        return await ask_again(self.grants, self.app_context, users)

    def add_part(self, name: Any, part: Part) -> None:
        """Note that the socket enters a stream or joins a group by policies of its own."""
        self.parts = {**(self.parts or {}), name: part}

    def drop_part(self, name: Any) -> Part | None:
        """Forget a stream or group; returns it if it was known."""
        return None if self.parts is None else self.parts.pop(name, None)

    def end_stream(self, name: Any, request: HandshakeRequest) -> None:
        """Forget a stream that has ended, that of `request`, with the groups that it has joined."""
        self.drop_part(name)
        groups = {each: part for each, part in (self.parts or {}).items() if part.request is request}
        for each in groups:
            self.drop_part(each)
        if registry is not None:
            registry.leave([*groups.values()])
        self.stream_changed(request)

    async def ask_parts(self, users: dict[Any, Any] | None = None, *, is_confirmed: bool = True) -> bool:
        """Ask the policies of its streams and groups again, too; those that are denied are lost.

        Unless it `is_confirmed`, a session that is not there keeps its stream: it may be getting a new key just now.
        Returns whether that has to be confirmed. Once all were asked, it raises the first error of one.
        """
        is_unsure, errors = False, list[Exception]()
        for name, part in list((self.parts or {}).items()):
            context = self.app_context
            if context is None:  # pragma: no cover - It ends by chance while its policies are asked.
                return False
            try:
                denial = await ask_again((self.grant_for(part.request, part.policies),), context, users)
                if not is_confirmed and isinstance(denial, Deny) and denial.code == SESSION_ENDED:
                    is_unsure = True
                elif denial is not None and self.drop_part(name) is not None:
                    await self._lose_part(name, part, denial)
            except Exception as error:  # one that cannot be asked, or lost, keeps no other
                errors.append(error)
        if errors and not is_unsure:  # else they are met again as that is confirmed
            raise errors[0]
        return is_unsure

    async def _lose_part(self, name: Any, part: Part, denial: Denial) -> None:
        try:
            async with asyncio.timeout(conf.POLICY_TIMEOUT):  # Other sockets wait to be asked.
                await part.lose(denial)
        except BaseException:  # The channel layer has not taken it out of the group: that is tried again.
            if self.app_context is not None and name not in (self.parts or {}):
                self.add_part(name, part)
            raise

    async def join(self, context: RequestContext, group: str, policy: Policy, channel: str | None) -> None:
        """Join a group of the channel layer, see `RequestContext.join`."""
        if registry is None or self.app_context is None:
            raise TypeError("join() is for a socket that is open, or being accepted.")
        if counts_once(policy):  # It would be left out, and let everybody join.
            raise TypeError(
                f"join() takes a policy that can be asked again; {policy!r} counts once, as throttles and limits do."
            )
        await registry.join(self, context, group, policy, channel)
