"""The headers of an application's answer, checked before any of them reaches the wire."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..types import Message, RawHeaders

#: RFC 9110 section 5.6.2: a token.
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: RFC 9110 section 5.5: what would end the line, and the header with it.
_BREAKS = re.compile(rb"[\r\n\0]")

#: Headers of a 101 that only the server can know (RFC 6455 section 4.2.2).
_HANDSHAKE = frozenset(
    {
        b"connection",
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"upgrade",
    }
)
#: Headers that frame a body, which a 101 has not (RFC 9110 section 8.6, RFC 9112 section 6.1).
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


def checked_headers(message: Message) -> RawHeaders:
    """The ``headers`` of an ASGI message, as given and in order; a missing key is an empty list.

    Raises `TypeError` for a name or value that is not bytes, and `ValueError` for what is not a
    pair, a name that is not a token, or a value with CR, LF or NUL.
    """
    kind, headers = message["type"], message.get("headers") or ()
    try:
        pairs = [(name, value) for name, value in headers]
    except (TypeError, ValueError) as error:
        given = type(headers).__name__
        raise ValueError(f"{kind} got headers as {given}: give a list of pairs.") from error
    for name, value in pairs:
        # The messages leave values out: one may be a session's cookie.
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise TypeError(
                f"{kind} got the header {name!r} as {type(name).__name__}, with a value of "
                f"{type(value).__name__}: give both as bytes."
            )
        if not _NAME.fullmatch(name):
            raise ValueError(f"{kind} got the header name {name!r}: give a token.")
        if _BREAKS.search(value):
            raise ValueError(f"{kind} got CR, LF or NUL in the header {name!r}: strip or encode the value.")
    return pairs


def accept_headers(message: Message) -> dict[str, list[str]]:
    """The ``headers`` of a ``websocket.accept`` as Autobahn takes them: name to list of values.

    Autobahn encodes the response as UTF-8, so that is how values are decoded; bytes that are not
    UTF-8 are read as Latin-1. Headers that frame a body are left out.

    Raises what `checked_headers` raises, and `ValueError` for a header of the handshake itself.
    """
    headers: dict[str, list[str]] = {}
    for name, value in checked_headers(message):
        if name.lower() == b"sec-websocket-protocol":
            raise ValueError(f"websocket.accept got the header {name!r}: give it as 'subprotocol'.")
        if name.lower() in _HANDSHAKE:
            raise ValueError(f"websocket.accept got the header {name!r}: leave it out, it is the server's.")
        if name.lower() not in _FRAMING:
            headers.setdefault(name.decode("ascii"), []).append(_decoded(value))
    return headers


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
