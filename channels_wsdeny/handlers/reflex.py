"""The reflex: a denial that follows from a handshake's route and two of its headers alone.

Most handshakes that are denied are those of nobody: a visitor without a session, at a route that asks for
a user, or at no route at all. Nothing has to be loaded or built for them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..exceptions import Deny
from ..hooks.plan import plan_of
from ..http import trace
from ..http.context import expression_of
from ..log import log_scope
from ..policies.builtin import answer_to_nobody, default_policy
from ..routing.match import Route, Unseen
from ..routing.resolver import is_nested
from .stock import kept
from .wire import is_connect

if TYPE_CHECKING:
    from ..hooks.registry import Hooks
    from ..policies.base import Policy
    from ..routing.match import Found
    from ..routing.middleware import Layer
    from ..types import Receive, Scope, Send


async def reflex(
    layer: Layer, found: Found | Exception, scope: Scope, channel: tuple[Receive, Send], how: str | None
) -> bool:
    """Deny the handshake of `scope`, and log that, if nothing else has a say in it; returns whether it has.

    `channel` is the server's; `how` is the stack's own ``deny_with``.
    """
    if (
        "user" in scope
        or scope.get("session") is not None
        or is_nested(scope)
        or not scope.get("query_string", b"").isascii()
    ):
        return False
    try:
        answer = _answer(layer, found)
    except Exception:  # noqa: BLE001 - what a policy of the site's raises is answered where it is asked
        return False
    if answer is None or trace.is_recorded():
        return False
    policy, deny = answer
    receive, send = channel
    denial = kept(deny, scope, send, how, nobody=True)
    if denial is None:
        return False
    began = time.monotonic()
    if not is_connect(await receive()):
        return True
    log_scope(scope, denial.start["status"], deny.code, expression_of(policy), began)
    try:
        for message in denial.messages():
            await send(message)
    except OSError:
        pass  # The client has left, and the server says so as ASGI asks.
    return True


def _answer(layer: Layer, found: Found | Exception) -> tuple[Policy | None, Deny] | None:
    if isinstance(found, Route):
        guards = found.guards
        if _has_hooks((*found.hooks, *guards.hooks)):
            return None
        return answer_to_nobody(guards.policies or (default_policy(),))
    return (
        (None, _NOT_FOUND)
        if found is Unseen.UNROUTED and not _has_hooks((*layer.hooks, *layer.guards.hooks))
        else None
    )


def _has_hooks(registries: tuple[Hooks, ...]) -> bool:
    return bool(plan_of(registries, "websocket"))


_NOT_FOUND = Deny(404)
