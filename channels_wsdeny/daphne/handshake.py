"""A pending handshake: what the application has said to it so far, and what that amounts to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from .headers import accept_headers, checked_headers
from .response import Response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..types import Message, RawHeaders


class Acceptance(NamedTuple):
    """The yes: a subprotocol, as the client spelled it, and headers for the 101."""

    subprotocol: str | None
    headers: dict[str, list[str]]


class Handshake:
    """One handshake, whose client offered the subprotocols `offered`.

    It is denied by ASGI's extension ``websocket.http.response``: a start, then one or more parts of
    a body, which are kept until the last one came.
    """

    def __init__(self, offered: Iterable[str]) -> None:
        # Daphne's scope has them unquoted.
        self._offered: dict[object, str] = {unquote(name): name for name in offered}
        self._start: tuple[int, RawHeaders] | None = None
        self._parts: list[bytes] = []

    def answer(self, message: Message) -> Acceptance | Response | None:
        """Take a message; the answer to the client, or None while a denial is incomplete.

        Raises `ValueError` for a message out of turn, and `TypeError` or `ValueError` for a
        malformed one.
        """
        kind = message["type"]
        if kind == "websocket.http.response.body":
            return self._add(message)
        if self._start is not None:
            raise ValueError(
                f"{kind} came after websocket.http.response.start: finish that denial with "
                "websocket.http.response.body."
            )
        if kind == "websocket.accept":
            return Acceptance(self._subprotocol(message.get("subprotocol")), accept_headers(message))
        if kind == "websocket.close":
            return Response(403, phrase="Access denied")
        self._start = _status(message), checked_headers(message)
        return None

    def _add(self, message: Message) -> Response | None:
        if self._start is None:
            raise ValueError(
                "websocket.http.response.body came before websocket.http.response.start: send that first."
            )
        body = message.get("body", b"")
        if not isinstance(body, (bytes, bytearray, memoryview)):
            kind = type(body).__name__
            raise TypeError(f"websocket.http.response.body got a body of {kind}: give bytes.")
        self._parts.append(bytes(body))
        if message.get("more_body", False):
            return None
        status, headers = self._start
        return Response(status, headers, b"".join(self._parts))

    def _subprotocol(self, chosen: object) -> str | None:
        if chosen is None:
            return None
        if chosen not in self._offered:
            raise ValueError(
                f"websocket.accept got the subprotocol {chosen!r}, but the client offered "
                f"{list(self._offered)}: choose from the scope's 'subprotocols', or None."
            )
        return self._offered[chosen]


def _status(message: Message) -> int:
    status = message.get("status")
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(
            f"websocket.http.response.start got the status {status!r}: give one from 200 to 599."
        )
    # Autobahn wants the number itself, not a member of HTTPStatus.
    return int(status)
