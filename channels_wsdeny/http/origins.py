"""Origins of handshakes (RFC 6454): which pages may begin one with the credentials that the browser adds.

A browser sends cookies, and ``Authorization`` of Basic and like schemes once it has asked the user, with a handshake
of any page, and no preflight of CORS comes before (RFC 6455 section 10.2). The page cannot forge ``Origin``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, PermissionDenied

from ..conf import conf, is_origins
from ..exceptions import Deny
from .request import ScopeRequest

if TYPE_CHECKING:
    from django.http import HttpRequest

#: ``"same"``: the own host and ``CSRF_TRUSTED_ORIGINS``; a list in place of the latter; ``"*"``: any.
Origins: TypeAlias = Literal["same", "*"] | Sequence[str]

#: Schemes that browsers send again by themselves once the user has given the credentials.
_AMBIENT_SCHEMES = frozenset({b"basic", b"digest", b"negotiate", b"ntlm", b"kerberos"})
#: Characters of a host: no name is longer (RFC 1035 section 2.3.4), and IDNA takes a second for 64 KiB of a client's.
_LONGEST_HOST = 253
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
#: A serialized origin (RFC 6454 section 6.2).
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]\\*]+)(?::([0-9]{1,5}))?", re.IGNORECASE)


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int | None


def check_origin(request: ScopeRequest, origins: Origins | None, *, reads_cookies: bool) -> None:
    """Check the ``Origin`` of a handshake that carries credentials which a browser may have added.

    That is a session cookie, any cookie if an authentication class in use `reads_cookies`, or an ``Authorization``
    such as Basic. A request without ``Origin`` is not one of a browser's page. `origins` are those of the stack; None
    for the site's ``ORIGINS``.

    Raises `Deny`, a 403, and `ImproperlyConfigured` for ``ORIGINS`` that cannot be used.
    """
    if _is_ambient(request, reads_cookies=reads_cookies) and not has_allowed_origin(request, origins):
        raise origin_denial(
            f"The origin {_named(request)} is not that of the host, nor is it trusted.",
            "Name it in CHANNELS_WSDENY['ORIGINS'] or CSRF_TRUSTED_ORIGINS. Behind a proxy that ends TLS, set "
            "SECURE_PROXY_SSL_HEADER as well.",
        )


def has_allowed_origin(request: ScopeRequest, origins: Origins | None = None) -> bool:
    """Whether the request has no ``Origin``, or one of `origins` (None: the site's ``ORIGINS``).

    Raises `ImproperlyConfigured` for `origins` that cannot be used.
    """
    given = _given(request)
    allowed = usable_origins(conf.ORIGINS if origins is None else origins)
    if not given or allowed == "*":
        return True
    if len(given) > 1:
        return False
    origin = _parse(given[0])
    if origin is not None and origin == _own_origin(request):
        return True
    patterns = settings.CSRF_TRUSTED_ORIGINS if allowed == "same" else allowed
    return _is_one_of(given[0], tuple(patterns))


def matches(request: HttpRequest, patterns: tuple[str, ...]) -> bool:
    """Whether the request has one ``Origin``, and it is one of `patterns`, such as ``"https://*.example.com"``."""
    given = _given(request)
    return len(given) == 1 and _is_one_of(given[0], patterns)


def is_pattern(text: str) -> bool:
    """Whether `text` can match the origin of a page."""
    return text == "null" or _parse(_without_wildcard(text)) is not None


def usable_origins(origins: Any) -> Origins:
    """`origins` if they can be used. Raises `ImproperlyConfigured` with what is right."""
    if not is_origins(origins):
        raise ImproperlyConfigured(
            "ORIGINS, or the argument `origins`, is 'same', '*', or a list such as ['https://example.com', "
            f"'https://*.example.org'], found {origins!r}."
        )
    usable: Origins = origins
    return usable


def origin_denial(text: str, remedy: str) -> Deny:
    """The denial of a handshake for its origin: logged as `text` and `remedy`, which the client sees with DEBUG."""
    logging.getLogger("django.security.DisallowedOrigin").warning("%s %s", text, remedy)
    denial = Deny(403, code="origin_not_allowed")
    denial.__cause__ = PermissionDenied(f"{text} {remedy}")
    return denial


def _is_ambient(request: ScopeRequest, *, reads_cookies: bool) -> bool:
    if not request.header_values(b"origin"):
        return False
    if request.has_session_cookie or (reads_cookies and request.header_values(b"cookie")):
        return True
    schemes = {value.strip().split(b" ")[0].lower() for value in request.header_values(b"authorization")}
    return not schemes.isdisjoint(_AMBIENT_SCHEMES)


def _named(request: ScopeRequest) -> str:
    named = {name: value.decode("latin1") for name, value in request.scope.get("headers", ())}
    return f"{named.get(b'origin')!r} of a handshake with the host {named.get(b'host')!r}"


def _own_origin(request: ScopeRequest) -> _Origin | None:
    """The origin of the address itself, by Django's rules for proxies."""
    scheme = "https" if request.is_secure() else "http"
    if settings.USE_X_FORWARDED_HOST:
        return _parse(f"{scheme}://{request.get_host()}")
    host = request.header(b"host")  # It was checked already; `get_host` would build META.
    return _parse(f"{scheme}://{request.get_host() if host is None else host.decode('latin1')}")


def _given(request: HttpRequest) -> list[str]:
    if isinstance(request, ScopeRequest):  # without building META
        return [value.decode("latin1") for value in request.header_values(b"origin")]
    origin = request.META.get("HTTP_ORIGIN")
    return [] if origin is None else [origin]


@lru_cache(maxsize=256)
def _is_one_of(origin: str, patterns: tuple[str, ...]) -> bool:
    parsed = _parse(origin)
    # Such as "null" can only be named as it is.
    return origin in patterns or (parsed is not None and any(_matches(parsed, pattern) for pattern in patterns))


def _matches(origin: _Origin, pattern: str) -> bool:
    """As for ``CSRF_TRUSTED_ORIGINS``: ``https://*.example.com`` is that host and all its subdomains."""
    wanted = _parse(_without_wildcard(pattern))
    if wanted is None or (wanted.scheme, wanted.port) != (origin.scheme, origin.port):
        return False
    return origin.host == wanted.host or ("://*." in pattern and origin.host.endswith(f".{wanted.host}"))


def _without_wildcard(pattern: str) -> str:
    return pattern.replace("://*.", "://", 1)


@lru_cache(maxsize=256)
def _parse(text: str) -> _Origin | None:
    """A serialized origin: lower case, IDNA, with the port that its scheme has by default; None if it is none."""
    found = _ORIGIN.fullmatch(text)
    if found is None or len(found[2]) > _LONGEST_HOST:
        return None
    scheme, host, port = found[1].lower(), found[2].lower(), found[3]
    if not host.isascii():
        try:
            ascii_host = host.encode("idna").decode()
            if ascii_host.encode().decode("idna") != host:
                return None  # Python has IDNA 2003, browsers UTS 46: for "ß" and the like those are two hosts.
        except UnicodeError:
            return None
        host = ascii_host
    return _Origin(scheme, host, _DEFAULT_PORTS.get(scheme) if port is None else int(port))
