"""Assertions on the answer to a handshake, which say what was found instead."""

from __future__ import annotations

from typing import Any, NoReturn

from django.http.response import HttpResponseBase

from .clientsocket import ClientSocket
from .communicator import WebsocketCommunicator
from .responses import Closed, Denied, HandshakeResponse, code_of, described

_ACCEPTED = range(100, 300)
#: What holds an exception in tests: pytest's `ExceptionInfo`, unittest's `assertRaises`.
_HOLDERS = ("value", "exception")


def assert_denied(answer: Any, status: int | None = None, *, code: str | None = None) -> Any:
    """Assert that `answer` is a denial, of this `status` and `code` if they are given; returns its response.

    `answer` is what ``client.handshake()`` or ``client.get()`` returned, a `Denied` or `Closed` (or what
    pytest and unittest catch it in), or a `WebsocketCommunicator` after `connect()`. A close with 4000 +
    status after the accept (``DENY_WITH = "close"``) counts as that status; one before it as 403, for
    servers make a bare 403 of it.

    Raises `TypeError` for anything else.
    """
    __tracebackhide__ = True
    response = _response_of(answer, "assert_denied")
    found_status, found_code = _found(response)
    wanted = "denied" if status is None else f"denied with {status}"
    if code is not None:
        wanted += f", code {code!r}"
    if found_status is None:
        _fail(f"Expected the handshake to be {wanted}. It was accepted.", response)
    if status is not None and found_status != status:
        _fail(f"Expected the handshake to be {wanted}. Found {found_status}.", response)
    if code is not None and found_code != code:
        found = f"the code {found_code!r}" if found_code else "no code"
        _fail(f"Expected the handshake to be {wanted}. Found {found}.", response)
    return response


def assert_accepted(answer: Any, *, subprotocol: str | None = None) -> Any:
    """Assert that `answer` is an accept, with this `subprotocol` if it is given; returns its response.

    `answer` is as for `assert_denied`, or an open socket.
    """
    __tracebackhide__ = True
    response = _response_of(answer, "assert_accepted")
    status, _ = _found(response)
    if status is not None:
        _fail(f"Expected the handshake to be accepted. It was denied with {status}.", response)
    chosen = getattr(response, "subprotocol", None)
    if subprotocol is not None and chosen != subprotocol:
        _fail(f"Expected the subprotocol {subprotocol!r}, found {chosen!r}.", response)
    return response


def _response_of(answer: Any, who: str) -> HttpResponseBase | Closed:
    for holder in _HOLDERS:
        held = getattr(answer, holder, None)
        if isinstance(held, Denied | Closed):
            answer = held
    if isinstance(answer, Denied | ClientSocket):
        return answer.response
    if isinstance(answer, WebsocketCommunicator) and answer.response is not None:
        return answer.response
    if isinstance(answer, HttpResponseBase | Closed):
        return answer
    raise TypeError(
        f"{who}() takes what client.handshake() returned, a Denied, or a WebsocketCommunicator after "
        f"connect(); found {answer!r}."
    )


def _found(response: Any) -> tuple[int | None, str]:
    """The status and code of a denial; the status is None for an accept."""
    if isinstance(response, Closed):
        response = HandshakeResponse(
            response.path, 101, close={"code": response.code, "reason": response.reason}
        )
    if isinstance(response, HandshakeResponse):
        return response.denial_status, response.code
    status: int = response.status_code
    return (None if status in _ACCEPTED else status), code_of(response)


def _fail(problem: str, response: Any) -> NoReturn:
    __tracebackhide__ = True
    found = f"    {response}" if isinstance(response, Closed) else described(response)
    raise AssertionError(f"{problem}\n{found}")
