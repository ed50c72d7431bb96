"""Headers as ASGI has them, pairs of bytes, and what a close frame may carry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .types import Message, RawHeaders

#: A field name is a token (RFC 9110 section 5.6.2).
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: A field value has none of these, which would end its line (RFC 9110 section 5.5).
_LINE_BREAK = re.compile(rb"[\r\n\0]")
#: Statuses that end with their headers (RFC 9110 sections 6.4.1 and 8.6).
BODILESS = frozenset({204, 304})
#: Close codes that an endpoint may send, by RFC 6455 section 7.4 and IANA's list. 1004 has no meaning; 1005, 1006 and
#: 1015 are never sent.
CLOSE_CODES = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})
#: Bytes of a close reason: what a control frame has left beside the code (RFC 6455 section 5.5).
_LONGEST_REASON = 123


def by_name(headers: RawHeaders) -> dict[bytes, bytes] | None:
    """`headers` by their lower-case names; None if a name is repeated."""
    once = dict(headers)
    return once if len(once) == len(headers) else None


def values_of(headers: RawHeaders, name: bytes) -> list[bytes]:
    """The values of all `headers` of this lower-case name, in their order."""
    once = by_name(headers)  # Far quicker than a loop, and hardly a client repeats a header.
    if once is None:
        return [value for key, value in headers if key == name]
    return [once[name]] if name in once else []


def cut_reason(reason: str) -> str:
    """As much of a close reason as a frame has room for, cut at a character; half of a surrogate pair is a ``?``."""
    return reason.encode(errors="replace")[:_LONGEST_REASON].decode(errors="ignore")


def is_sendable(name: bytes, value: bytes) -> bool:
    """Whether a header can be sent without breaking out of its line."""
    return bool(_TOKEN.fullmatch(name)) and not _LINE_BREAK.search(value)


def check_headers(message: Message) -> RawHeaders:
    """The ``headers`` of an application's message as a list of pairs, as given; empty if they are missing.

    ASGI allows any iterable: one that can be read but once is replaced in the message by the list.

    Raises `TypeError` for what is not a list of pairs of bytes, and `ValueError` for a header that
    `is_sendable` refuses. The errors leave values out, for one may be a session's cookie.
    """
    kind, headers = message["type"], message.get("headers") or ()
    try:
        pairs = [(name, value) for name, value in headers]
    except (TypeError, ValueError) as error:
        raise TypeError(f"{kind} has headers of {type(headers).__name__}: give a list of pairs of bytes.") from error
    if not isinstance(headers, (list, tuple)):
        message["headers"] = pairs
    for name, value in pairs:
        if not isinstance(name, bytes) or not isinstance(value, bytes):
            raise TypeError(
                f"{kind} has the header {name!r} as {type(name).__name__} with a value of "
                f"{type(value).__name__}: give both as bytes."
            )
        if not is_sendable(name, value):
            raise ValueError(
                f"{kind} has the header {name!r}, which cannot be sent: a name is a token, and a value has "
                "no CR, LF or NUL."
            )
    return pairs
