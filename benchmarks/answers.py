"""Answers: what a contender sent for a handshake, in words. A benchmark of wrong answers is worthless."""

from __future__ import annotations

from typing import Any

ACCEPTED = "accepted"
#: Closed before the accept: the server answers with a bare 403.
CLOSED = "closed"


class Wrong(Exception):  # noqa: N818 - named for what the answer is
    """A contender answered something else than what is measured."""


def denied(status: int) -> str:
    """Denied with an HTTP response of this status, which has a body."""
    return f"denied {status}"


def answer_of(messages: list[dict[str, Any]]) -> str:
    """The answer that all these messages of an application are."""
    kinds = [message["type"] for message in messages]
    if kinds[:1] == ["websocket.accept"]:
        return ACCEPTED
    if kinds == ["websocket.close"]:
        return CLOSED
    is_response = kinds[:1] == ["websocket.http.response.start"] and len(kinds) > 1
    if is_response and set(kinds[1:]) == {"websocket.http.response.body"}:
        has_body = any(message.get("body") for message in messages[1:])
        is_whole = not messages[-1].get("more_body")
        if has_body and is_whole:
            return denied(messages[0]["status"])
    return f"no answer: {kinds}"
