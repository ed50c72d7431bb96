"""Denials that are encoded once and sent again: they depend on the route and a few headers alone.

Most denied handshakes are those of anonymous clients without a session, at a route that asks for a user or at no
route at all. Nothing has to be loaded or built for them.
"""

from __future__ import annotations

import functools
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.core.signals import setting_changed
from django.urls.exceptions import Resolver404

from .. import signals
from ..authentication.base import authenticate_by, authentication_of_site
from ..conf import conf
from ..exceptions import Deny
from ..headers import by_name
from ..hooks.registry import ordered_hooks
from ..http.context import RequestContext, expression_of
from ..http.messages import (
    EXTENSION,
    EncodedDenial,
    copy_messages,
    denial_messages,
    encode_headers,
    is_connect,
    send_messages,
    send_while_connected,
)
from ..http.request import HandshakeRequest, is_allowed_host
from ..http.responses import active_language, is_language_negotiated, negotiate_language, negotiate_type
from ..http.servers import is_closing, is_granian, is_multiplexed
from ..http.trace import is_recorded
from ..log import log_scope
from ..policies.base import first_anonymous_denial
from ..routing.resolver import is_nested
from .base import all_policies, code_of, make_denial

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..authentication.base import Authenticators
    from ..policies import Policy
    from ..routing.resolver import EndpointMatch
    from ..types import Message, Receive, Scope, Send

#: Denials that are kept, and bytes of a body at most.
_MOST, _LARGEST = 256, 4096
#: Characters of a text that a kept denial may depend on.
_LONGEST = 256


class _Site(NamedTuple):
    """The settings that denials depend on."""

    #: ``DENY_WITH``; None where `DEBUG` shows more about a denial than can be kept.
    how: str | None
    has_hooks: bool
    has_middleware: bool
    #: What changes the bytes of a denial.
    varying: tuple[Any, ...]
    session_cookie: bytes
    allowed_hosts: tuple[str, ...]
    #: The headers that say the host.
    host_headers: tuple[bytes, ...]
    #: None if they cannot be used.
    authentication: Authenticators | None
    language_cookie: bytes
    is_translated: bool
    #: Whether the language depends on the request.
    is_negotiated: bool


_encoded: dict[Hashable, tuple[Message, Message]] = {}


async def deny_anonymous(match: EndpointMatch, scope: Scope, receive: Receive, send: Send) -> bool:
    """Deny the handshake of `scope` and log that, if its denial follows from route and headers alone.

    Returns whether it was answered.
    """
    site = _site()
    registries = match.hooks + match.guards.hooks
    if site.has_hooks or (registries and ordered_hooks(registries, "websocket")):
        return False
    headers = by_name(scope.get("headers", ()))
    if (
        headers is None
        or not _is_without_credentials(headers, site)
        or "user" in scope
        or scope.get("session") is not None
        or is_nested(scope)
        or is_recorded()
        or not scope.get("query_string", b"").isascii()
    ):
        return False
    policy, denial = _denial(match, site)
    if denial is None:
        return False
    authentication = match.options.authentication or site.authentication
    if authentication is None or not authentication.are_known or authentication.may_find_credentials(scope):
        return False
    found = encoded_denial(denial, scope, headers, send, match.options.deny_with, authentication)
    if found is None:
        return False
    started = time.monotonic()
    if not is_connect(await receive()):
        return True
    log_scope(scope, found[0]["status"], denial.code, expression_of(policy), started)
    try:
        start, body = copy_messages(found)
        if is_multiplexed(scope):
            await send_while_connected(send_messages((start, body), send), receive)
        else:
            await send(start)
            await send(body)
    except OSError:
        pass  # The client has left: ASGI has servers raise this.
    return True


def _is_without_credentials(headers: dict[bytes, bytes], site: _Site) -> bool:
    """Whether the client is anonymous, as far as these headers tell, and the host is allowed."""
    if b"authorization" in headers or site.session_cookie in headers.get(b"cookie", b""):
        return False
    for name in site.host_headers:
        if name in headers and not is_allowed_host(headers[name], site.allowed_hosts):
            return False
    return True


def _denial(match: EndpointMatch, site: _Site) -> tuple[Policy | None, Deny | None]:
    given = match.options.middleware
    if site.has_middleware if given is None else given:
        return None, None
    if isinstance(match.error, Resolver404):
        return None, _NOT_FOUND
    if match.is_late:
        return None, None
    try:
        policy, denial = first_anonymous_denial(all_policies(match))
    except Exception:  # what a policy of the site's raises is answered where it is asked
        return None, None
    return policy, denial if isinstance(denial, Deny) else None


_NOT_FOUND = Deny(404)


def encoded_denial(
    deny: Deny,
    scope: Scope,
    headers: dict[bytes, bytes] | None,
    send: Send,
    deny_with: str | None,
    authentication: Authenticators | None,
) -> tuple[Message, Message] | None:
    """The messages that deny the handshake of `scope`; None if they depend on more than can be kept.

    No hook, trace or session of the request may change the answer. `headers` are those of the scope, None if one is
    repeated. `deny_with` is that of the stack, and `authentication` says the challenge of a 401.
    """
    site = _site()
    if (
        site.how is None
        or headers is None
        or (deny_with or site.how) != "response"
        or deny.response is not None
        or deny.headers
        or deny.status == 503  # Each client gets another ``Retry-After``.
        or deny.members
        or deny.__cause__ is not None
        or type(deny.detail) is not str  # Lazy or safe ones may be equal, and yet be another text elsewhere.
        or len(deny.detail) > _LONGEST
        or EXTENSION not in (scope.get("extensions") or ())
        or signals.handshake_denied.receivers
        or is_granian(send)
        or (deny.status == 401 and authentication is not None and authentication.has_own_challenge(scope))
        or (site.is_negotiated and site.language_cookie in headers.get(b"cookie", b""))
    ):
        return None
    media_type = negotiate_type(headers.get(b"accept", b""))
    language = active_language() if site.is_translated else None
    if site.is_negotiated:
        language = negotiate_language(headers.get(b"accept-language", b""), {}) or language
    closes = is_closing(scope, send)
    asked = authentication if deny.status == 401 else None
    key = (deny.status, deny.code, deny.detail, media_type, language, site.varying, closes, asked)
    found = _encoded.get(key)
    if found is None:
        varying = [(name, headers[name]) for name in (b"accept", b"accept-language") if name in headers]
        request = HandshakeRequest({"type": "websocket", "path": "/", "headers": varying})
        if asked is not None:
            authenticate_by(request, asked)
        found = _encode(deny, request, scope, send)
        if found is not None:
            if len(_encoded) >= _MOST:
                _encoded.pop(next(iter(_encoded)))
            _encoded[key] = found
    return found


@functools.cache
def _site() -> _Site:
    authentication = None
    with suppress(Exception):  # What importing a module of the site raises is answered where the classes are asked.
        authentication = authentication_of_site()
    return _Site(
        how=None if settings.DEBUG else conf.DENY_WITH,
        has_hooks=bool(conf.HOOKS),
        has_middleware=bool(conf.MIDDLEWARE),
        varying=(conf.CHALLENGE, conf.MAX_DENIAL_BODY),
        session_cookie=settings.SESSION_COOKIE_NAME.encode(),
        allowed_hosts=tuple(settings.ALLOWED_HOSTS),
        host_headers=(b"host", b"x-forwarded-host") if settings.USE_X_FORWARDED_HOST else (b"host",),
        authentication=authentication,
        language_cookie=settings.LANGUAGE_COOKIE_NAME.encode(),
        is_translated=settings.USE_I18N,
        is_negotiated=is_language_negotiated(),
    )


def _encode(deny: Deny, request: HandshakeRequest, scope: Scope, send: Send) -> tuple[Message, Message] | None:
    response: Any = make_denial(RequestContext(request), deny, strict=True)
    if code_of(response) != deny.code or len(response.content) > _LARGEST:
        return None  # pragma: no cover - No denial that may be kept has become another one, or is so large.
    denial = EncodedDenial(response, encode_headers(response), deny.code)
    return denial_messages(denial, scope, send)


def _forget(**kwargs: object) -> None:
    _encoded.clear()
    _site.cache_clear()


setting_changed.connect(_forget)
