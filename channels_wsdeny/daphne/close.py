"""The code and reason that close an open socket (RFC 6455 section 7.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..types import Message

#: Codes below 3000 that an endpoint may send, by RFC 6455 section 7.4.1 and IANA's list. 1004
#: has no meaning; 1005, 1006 and 1015 stand for closes that carried no code.
_REGISTERED = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
#: Bytes left for a reason in a control frame, beside the code (RFC 6455 section 5.5).
_REASON = 123


def close_payload(message: Message) -> tuple[int, bytes | None]:
    """The code and the UTF-8 reason of a ``websocket.close``; without a code it is 1000.

    A long reason is cut at a character. Raises `TypeError` for a reason that is not a string, and
    `ValueError` for a code that an endpoint must not send.
    """
    code, reason = message.get("code"), message.get("reason")
    if code is None:
        code = 1000
    if type(code) is not int or not (code in _REGISTERED or 3000 <= code <= 4999):
        raise ValueError(f"websocket.close got the code {code!r}: give 1000-1003, 1007-1014 or 3000-4999.")
    if not reason:
        return code, None
    if not isinstance(reason, str):
        raise TypeError(f"websocket.close got the reason {reason!r}: give a string.")
    return code, reason.encode()[:_REASON].decode(errors="ignore").encode()
