"""Responses to handshakes, the exceptions that carry one, and assertions on them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from django.http import HttpResponse

if TYPE_CHECKING:
    from ..types import Message, RawHeaders

#: When to try again, in the reason of a close that stands for a denial.
_RETRY = re.compile(r";retry=\d+\Z")
#: Characters of a body that failure messages show.
_SHOWN = 1000


class HandshakeResponse(HttpResponse):
    """The response to a WebSocket handshake: status 101 if it was accepted, else its denial.

    It adds to Django's response: `subprotocol`, which the application chose; `close_code` and `close_reason` of a
    ``websocket.close``, before the accept (a server responds with an empty 403) or after it.
    """

    def __init__(
        self, status: int, headers: RawHeaders | None = None, content: bytes = b"", subprotocol: str | None = None
    ) -> None:
        super().__init__(content, status=status)
        self.subprotocol = subprotocol
        self.close_code: int | None = None
        self.close_reason = ""
        del self["Content-Type"]
        for raw_name, raw_value in headers or ():
            name, value = raw_name.decode("latin1"), raw_value.decode("latin1")
            if name.lower() == "set-cookie":
                self.cookies.load(value)
            else:
                self[name] = f"{self[name]}, {value}" if self.has_header(name) else value

    def note_close(self, message: Message) -> None:
        """Set `close_code` and `close_reason` from a ``websocket.close`` message."""
        self.close_code = message.get("code", 1000)
        self.close_reason = message.get("reason") or ""

    @property
    def code(self) -> str:
        """The denial's code: ``code`` in a JSON body, or the reason of a close without ``;retry=N``; else empty."""
        return _code_of(self)

    def json(self) -> Any:
        """Parse the body as JSON. Raises `ValueError` if it is none."""
        return json.loads(self.content)


class Denied(AssertionError):  # noqa: N818 - named as Deny
    """The handshake was denied with `response`, a `HandshakeResponse`.

    It is an `AssertionError`, so that a test that did not expect it fails instead of ending in an error.
    """

    def __init__(self, response: HandshakeResponse) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return f"The handshake was denied.\n{_describe(self.response)}"


class Closed(AssertionError):  # noqa: N818 - a state, as Denied
    """The socket is closed, by the application or by the test, and can neither send nor receive.

    `code` and `reason` are those of the close; the code is 1006 if the application ended without one.
    `response` is the `HandshakeResponse` of the accept.
    """

    def __init__(self, response: HandshakeResponse) -> None:
        super().__init__(response)
        self.response = response
        self.code, self.reason = response.close_code, response.close_reason

    def __str__(self) -> str:
        how = "the application ended without a close" if self.code == 1006 else repr(self.reason)
        return f"The socket is closed: {self.code}, {how}."


def assert_denied(response: Any, status: int | None = None, *, code: str | None = None) -> Any:
    """Assert that a handshake was denied, with this `status` and `code` if they are given.

    `response` is what ``client.handshake()`` or ``client.get()`` returned; or a `Denied`, a `Closed`, or a
    socket or communicator after its handshake, for their `response`. A close with 4000 + status after the accept
    (``DENY_WITH = "close"``) counts as that status, and a close before the accept as 403, which servers make of it.

    Returns the response.
    """
    __tracebackhide__ = True
    response = getattr(response, "response", response)
    found = _denial_status(response)
    if found is None or status not in {None, found} or code not in {None, _code_of(response)}:
        expected = " ".join(str(part) for part in ("a denial", status, code) if part is not None)
        raise AssertionError(f"Expected {expected}. Found:\n{_describe(response)}")
    return response


def assert_accepted(response: Any, *, subprotocol: str | None = None) -> Any:
    """Assert that a handshake was accepted, with this `subprotocol` if it is given; see `assert_denied`."""
    __tracebackhide__ = True
    response = getattr(response, "response", response)
    if _denial_status(response) is not None or subprotocol not in {None, getattr(response, "subprotocol", None)}:
        expected = "an accept" if subprotocol is None else f"an accept with the subprotocol {subprotocol!r}"
        raise AssertionError(f"Expected {expected}. Found:\n{_describe(response)}")
    return response


def _denial_status(response: Any) -> int | None:
    """The status of a denial, also of one sent as close code 4000 + status; None for an accept."""
    close_code = getattr(response, "close_code", None) or 0
    if response.status_code == 101 and 4300 <= close_code < 4600:
        return close_code - 4000
    status: int = response.status_code
    return None if status < 300 else status


def _code_of(response: Any) -> str:
    try:
        return str(json.loads(response.content)["code"])
    except (AttributeError, KeyError, TypeError, ValueError):  # It streams, or is not the JSON of a problem.
        return _RETRY.sub("", getattr(response, "close_reason", ""))


def _describe(response: Any) -> str:
    """Return the status, the close, the headers and the beginning of the body, for failure messages."""
    lines = [f"{response.status_code} {response.reason_phrase}"]
    if getattr(response, "close_code", None) is not None:
        lines.append(f"closed with {response.close_code} {response.close_reason!r}")
    if getattr(response, "subprotocol", None) is not None:
        lines.append(f"subprotocol {response.subprotocol!r}")
    lines += [f"{name}: {value}" for name, value in response.items()]
    lines += [f"Set-Cookie: {morsel.OutputString()}" for morsel in response.cookies.values()]
    body = getattr(response, "content", b"")[:_SHOWN].decode(errors="backslashreplace")
    return "\n".join(f"    {line}".rstrip() for line in [*lines, "", body]).rstrip()
