"""The reflex: a denial that follows from a handshake's route and two of its headers alone.

Most handshakes that are denied are those of nobody: a visitor without a session, at a route that asks for
a user, or at no route at all. Nothing has to be loaded or built for them. What goes out was made once by the
very functions that make any other denial, and is sent again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.core.signals import setting_changed

from . import emitter, languages, signals
from .conf import conf
from .exceptions import Deny
from .handshake import HandshakeRequest
from .log import log_scope, report_broken_handler
from .lookahead import Route, Unseen, is_nested
from .passage import Passage, expression_of
from .plan import plan_of
from .policies import answer_to_nobody, default_policy
from .refusal import refusal
from .wire import is_connect

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .hooks import Hooks
    from .lookahead import Found, Layer
    from .policy import Policy
    from .types import Message, Receive, Scope, Send

#: Denials that are kept; each is about half a KiB.
_MOST = 256
#: Bytes of a header that a kept denial may depend on.
_LONGEST = 256

_kept: dict[Hashable, tuple[Message, Message]] = {}


class Reflex(NamedTuple):
    """The answer to one handshake, ready to be sent."""

    start: Message
    body: Message
    deny: Deny
    policy: Policy | None

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Deny the handshake, and log that."""
        began = time.monotonic()
        if not is_connect(await receive()):
            return
        try:
            log_scope(scope, self.start["status"], self.deny.code, expression_of(self.policy), began)
        except Exception:  # noqa: BLE001 - a log handler that raises must not keep the denial from going out
            report_broken_handler()
        try:
            await send({**self.start, "headers": [*self.start["headers"]]})
            await send({**self.body})
        except OSError:
            pass  # The client has left, and the server says so as ASGI asks.


def reflex(
    layer: Layer, found: Found | Exception, scope: Scope, send: Send, how: str | None
) -> Reflex | None:
    """The answer to the handshake of `scope`, if it is one that nothing else has a say in; else None.

    `how` is the stack's own ``deny_with``.
    """
    site = _site()
    given = site.given
    if (
        site.debug
        or given.get("HOOKS")
        or (how or given.get("DENY_WITH", "response")) != "response"
        or "user" in scope
        or scope.get("session") is not None
        or emitter.EXTENSION not in (scope.get("extensions") or ())
        or is_nested(scope)
        or not scope.get("query_string", b"").isascii()
        or signals.handshake_denied.receivers
        or emitter.is_granian(send)
    ):
        return None
    denied = _denial(layer, found)
    headers = _headers(scope, site)
    if denied is None or headers is None:
        return None
    policy, deny = denied
    if deny.response is not None or deny.headers:
        return None
    language = languages.active() if site.is_translated else None
    varying = (given.get("CHALLENGE"), given.get("MAX_DENIAL_BODY"))
    key = (deny.status, deny.code, deny.detail, headers, language, varying)
    try:
        messages = _kept.get(key)
    except TypeError:  # A setting or a text of the site's that cannot be compared.
        return None
    if messages is None:
        messages = _make(deny, headers)
        if len(_kept) >= _MOST:
            _kept.pop(next(iter(_kept)))
        _kept[key] = messages
    return Reflex(*messages, deny, policy)


def _denial(layer: Layer, found: Found | Exception) -> tuple[Policy | None, Deny] | None:
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


def _headers(scope: Scope, site: _Site) -> tuple[bytes | None, bytes | None] | None:
    """``Accept`` and ``Accept-Language``, as far as a denial depends on them.

    None if there may be a session, or more to the denial than can be kept.
    """
    accept = language = None
    for name, value in scope["headers"]:
        if name == b"accept":
            if accept is not None or len(value) > _LONGEST:
                return None
            accept = value
        elif name == b"cookie":
            if site.is_negotiated or site.session_cookie in value:
                return None
        elif name == b"accept-language" and site.is_negotiated:
            if language is not None or len(value) > _LONGEST:
                return None
            language = value
    return accept, language


class _Site(NamedTuple):
    """The settings that a reflex depends on."""

    given: dict[str, Any]
    debug: bool
    session_cookie: bytes
    is_translated: bool
    #: Whether the visitor has a say in the language, by a header, or by a cookie.
    is_negotiated: bool


_sites: dict[object, _Site] = {}


def _site() -> _Site:
    wrapped = settings._wrapped  # type: ignore[misc]
    site = _sites.get(wrapped)
    if site is None:
        _sites.clear()
        cookie = settings.SESSION_COOKIE_NAME.encode()
        negotiated = languages.are_negotiated()
        site = _sites[wrapped] = _Site(conf.given(), settings.DEBUG, cookie, settings.USE_I18N, negotiated)
    return site


def _make(deny: Deny, headers: tuple[bytes | None, bytes | None]) -> tuple[Message, Message]:
    """The messages of a denial, made for a handshake that has these headers alone."""
    named = zip((b"accept", b"accept-language"), headers, strict=True)
    given = [(name, value) for name, value in named if value is not None]
    request = HandshakeRequest({"type": "websocket", "path": "/", "headers": given})
    steps = refusal(Passage(request), deny)
    try:
        next(steps)
    except StopIteration as stop:
        made, _ = stop.value
        return emitter.messages(made, "websocket.http", _to_nobody)
    raise RuntimeError(f"The denial {deny} wanted to run somewhere else, which it has no reason to.")


async def _to_nobody(message: Message) -> None: ...


def _forget(**kwargs: object) -> None:
    _kept.clear()
    _sites.clear()


setting_changed.connect(_forget)
