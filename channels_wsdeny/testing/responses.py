"""Answers: what a test's client got for its handshake, as a Django response, and as an exception."""

from __future__ import annotations

import json
import re
from http.cookies import CookieError, Morsel, SimpleCookie
from typing import TYPE_CHECKING, Any

from django.http import HttpResponse

if TYPE_CHECKING:
    from collections.abc import Sequence
    from http.cookies import BaseCookie

    from ..types import Message, RawHeaders

_JSON = re.compile(r"application/(.+\+)?json\b", re.IGNORECASE)
#: Close codes that stand for a status: 4000 + status, 300-599.
_CODES_OF_DENIALS = range(4300, 4600)
#: Characters of a body that failure messages show.
_SHOWN = 1000


class HandshakeResponse(HttpResponse):
    """The answer to a handshake: 101 if it was accepted, else its denial.

    Besides what every Django response has: `subprotocol` is the one that an accept chose. `close_code` and
    `close_reason` are set if the application closed: before the accept (a server makes a bare 403 of that)
    or straight after it (``DENY_WITH = "close"``). `raw_headers` is what the application sent.
    """

    def __init__(
        self,
        path: str,
        status: int,
        headers: RawHeaders = [],  # noqa: B006 - never changed
        content: bytes = b"",
        *,
        subprotocol: str | None = None,
        close: Message | None = None,
    ) -> None:
        super().__init__(content, status=status)
        self.path = path
        self.subprotocol = subprotocol
        self.raw_headers = list(headers)
        self.close_code: int | None = None
        self.close_reason = ""
        if close is not None:
            self.note_close(close)
        del self["Content-Type"]
        self.cookies = cookies_of(headers)
        for raw_name, raw_value in headers:
            name, value = raw_name.decode("latin1"), raw_value.decode("latin1")
            if name.lower() != "set-cookie":
                self[name] = f"{self[name]}, {value}" if self.has_header(name) else value

    def __repr__(self) -> str:
        return f"<HandshakeResponse {self.summary()}>"

    def note_close(self, message: Message) -> None:
        """Note the ``websocket.close`` that the application sent."""
        self.close_code = message.get("code", 1000)
        self.close_reason = message.get("reason") or ""

    @property
    def denial_status(self) -> int | None:
        """The status that the handshake was denied with; None if it was accepted."""
        if self.status_code != 101:
            return self.status_code
        if self.close_code is not None and self.close_code in _CODES_OF_DENIALS:
            return self.close_code - 4000
        return None

    @property
    def code(self) -> str:
        """The denial's code for machines: from a problem body, or the reason of a close; else empty."""
        return code_of(self) or self.close_reason

    def json(self, **kwargs: Any) -> Any:
        """The body, parsed as JSON. Raises `ValueError` if it says to be something else."""
        content_type = self.get("Content-Type", "")
        if not _JSON.match(content_type):
            raise ValueError(f"The Content-Type of {self.summary()} is {content_type!r}, not JSON.")
        return json.loads(self.content, **kwargs)

    def summary(self) -> str:
        """One line for failure messages."""
        text = f"{self.path}: {self.status_code} {self.reason_phrase}"
        if code_of(self):
            text += f", code {code_of(self)!r}"
        if self.close_code is not None:
            text += f", closed with {self.close_code} {self.close_reason!r}"
        return text


class Denied(AssertionError):  # noqa: N818 - as Deny
    """The handshake was denied; `response` is the `HandshakeResponse`.

    An `AssertionError`: a test that did not expect it has failed.
    """

    def __init__(self, response: HandshakeResponse) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return f"The handshake was denied.\n{described(self.response)}"


class Closed(AssertionError):  # noqa: N818 - what happened
    """The socket is closed, by the application or by the test: nothing more can be received or sent.

    `code` and `reason` are the close's; 1006 if the application ended without one.
    """

    def __init__(self, code: int, reason: str = "", *, path: str = "") -> None:
        super().__init__(code, reason)
        self.code, self.reason, self.path = code, reason, path

    def __str__(self) -> str:
        how = "the application ended without a close" if self.code == 1006 else repr(self.reason)
        return f"The socket of {self.path} is closed: {self.code}, {how}."


def code_of(response: HttpResponse) -> str:
    """The ``code`` in the JSON body of `response`; empty if there is none."""
    if not _JSON.match(response.get("Content-Type", "")):
        return ""
    try:
        problem = json.loads(response.content)
    except ValueError:
        return ""
    code = problem.get("code") if isinstance(problem, dict) else None
    return code if isinstance(code, str) else ""


def described(response: HttpResponse) -> str:
    """`response` with its headers and the beginning of its body, for failure messages."""
    if isinstance(response, HandshakeResponse):
        first = response.summary()
    else:
        first = f"{response.status_code} {response.reason_phrase}"
    lines = [first, *(f"{name}: {value}" for name, value in response.items())]
    lines += [f"Set-Cookie: {morsel.OutputString()}" for morsel in response.cookies.values()]
    body = b"(streaming)" if response.streaming else response.content
    if body:
        text = body.decode(errors="backslashreplace")
        lines += ["", text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(body)} bytes)"]
    return "\n".join(f"    {line}".rstrip() for line in lines)


def cookies_of(headers: Sequence[tuple[bytes, bytes]]) -> SimpleCookie:
    """The cookies that these headers set, as browsers read them: attributes nobody knows are passed over.

    `SimpleCookie.load` drops a whole line for one that it does not know (``Partitioned``).
    """
    cookies = SimpleCookie()
    for name, value in headers:
        if name.lower() == b"set-cookie":
            _add_cookie(cookies, value.decode("latin1"))
    return cookies


def _add_cookie(cookies: BaseCookie[str], line: str) -> None:
    pair, *attributes = line.split(";")
    name, _, coded = pair.partition("=")
    name, coded = name.strip(), coded.strip()
    morsel: Morsel[str] = Morsel()
    try:
        morsel.set(name, cookies.value_decode(coded)[0], coded)
    except CookieError:
        return  # A name that Django's own jar cannot hold.
    for attribute in attributes:
        key, equals, value = attribute.strip().partition("=")
        if morsel.isReservedKey(key):
            morsel[key] = value.strip('"') if equals else True
    cookies[name] = morsel
