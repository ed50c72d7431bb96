"""The stock: denials of handshakes whose bytes depend on two headers alone, made once and sent again.

What goes out was made by the very functions that make any other denial.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.core.signals import setting_changed

from .. import signals
from ..conf import conf
from ..http import languages
from ..http import messages as emitter
from ..http.context import Passage
from ..http.request import HandshakeRequest
from .refusal import refusal

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..exceptions import Deny
    from ..types import Message, Scope, Send

#: Denials that are kept, and the bytes of a body at most.
_MOST, _LARGEST = 256, 4096
#: Bytes of a header, and characters of a text, that a kept denial may depend on.
_LONGEST = 256


class Kept(NamedTuple):
    """A denial, as two messages that are never sent themselves: servers and wrappers may change theirs."""

    start: Message
    body: Message

    def messages(self) -> tuple[Message, Message]:
        """What to send, for one handshake."""
        return {**self.start, "headers": [*self.start["headers"]]}, {**self.body}


class _Site(NamedTuple):
    """The settings that denials depend on."""

    #: ``DENY_WITH``; None where `DEBUG` tells more about a denial than can be kept.
    how: str | None
    has_hooks: bool
    #: What changes the bytes of a denial.
    varying: tuple[Any, ...]
    session_cookie: bytes
    is_translated: bool
    #: Whether the visitor has a say in the language, by a header, or by a cookie.
    is_negotiated: bool


_kept: dict[Hashable, Kept] = {}
_sites: dict[object, _Site] = {}


def kept(deny: Deny, scope: Scope, send: Send, how: str | None, *, nobody: bool = False) -> Kept | None:
    """What the handshake of `scope` is denied with; None if there is more to that than can be kept.

    It is for whom no hook, trace or session has a say in the answer; with `nobody`, that is for whom the
    site has no hooks, and who has no session. `how` is the stack's ``deny_with``.
    """
    site = _site()
    if (
        site.how is None
        or (how or site.how) != "response"
        or (nobody and site.has_hooks)
        or deny.response is not None
        or deny.headers
        or deny.__cause__ is not None
        or type(deny.detail) is not str  # Lazy or safe ones may be equal, and yet another text elsewhere.
        or len(deny.detail) > _LONGEST
        or emitter.EXTENSION not in (scope.get("extensions") or ())
        or signals.handshake_denied.receivers
        or emitter.is_granian(send)
    ):
        return None
    headers = _headers(scope, site, nobody=nobody)
    if headers is None:
        return None
    language = languages.active() if site.is_translated else None
    key = (deny.status, deny.code, deny.detail, headers, language, site.varying)
    found = _kept.get(key)
    if found is None:
        found = _make(deny, headers)
        if found is not None:
            if len(_kept) >= _MOST:
                _kept.pop(next(iter(_kept)))
            _kept[key] = found
    return found


def _site() -> _Site:
    wrapped = settings._wrapped  # type: ignore[misc]
    site = _sites.get(wrapped)
    if site is None:
        _sites.clear()
        site = _sites[wrapped] = _Site(
            how=None if settings.DEBUG else conf.DENY_WITH,
            has_hooks=bool(conf.HOOKS),
            varying=(conf.CHALLENGE, conf.MAX_DENIAL_BODY),
            session_cookie=settings.SESSION_COOKIE_NAME.encode(),
            is_translated=settings.USE_I18N,
            is_negotiated=languages.are_negotiated(),
        )
    return site


_LOOKED_AT = frozenset({b"accept", b"accept-language", b"cookie"})


def _headers(scope: Scope, site: _Site, *, nobody: bool) -> tuple[bytes | None, bytes | None] | None:
    """``Accept`` and ``Accept-Language``, as far as a denial depends on them; None if it does on more."""
    accept = language = None
    for name, value in scope["headers"]:
        if name not in _LOOKED_AT:
            continue
        if name == b"accept":
            if accept is not None or len(value) > _LONGEST:
                return None
            accept = value
        elif name == b"cookie":
            if site.is_negotiated or (nobody and site.session_cookie in value):
                return None
        elif site.is_negotiated:
            if language is not None or len(value) > _LONGEST:
                return None
            language = value
    return accept, language


def _make(deny: Deny, headers: tuple[bytes | None, bytes | None]) -> Kept | None:
    """The messages of a denial, made for a handshake that has these headers alone."""
    named = zip((b"accept", b"accept-language"), headers, strict=True)
    given = [(name, value) for name, value in named if value is not None]
    request = HandshakeRequest({"type": "websocket", "path": "/", "headers": given})
    steps = refusal(Passage(request), deny)
    try:
        next(steps)
    except StopIteration as stop:
        made, made_of = stop.value
        if made_of is not deny or made.code != deny.code or len(made.response.content) > _LARGEST:
            return None
        return Kept(*emitter.messages(made, "websocket.http", _to_nobody))
    raise RuntimeError(f"The denial {deny} wanted to run somewhere else, which it has no reason to.")


async def _to_nobody(message: Message) -> None: ...


def _forget(**kwargs: object) -> None:
    _kept.clear()
    _sites.clear()


setting_changed.connect(_forget)
