"""The explanation: what would happen to a request, in lines for people to read."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.core.handlers.asgi import ASGIHandler

from .log import escape
from .question import NoQuestion
from .rehearsal import rehearse
from .table import plain
from .ways import application_of_site, ways_of_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .question import Question
    from .trace import Trace
    from .types import Message

#: Characters of a body that are shown.
_LONGEST_BODY = 2000
#: Of a query, that is seldom of interest.
_COLUMNS = re.compile(r"^SELECT (?:(?! FROM ).){60,}(?= FROM )")
_COOKIE_VALUE = re.compile(r"=[^;]*")


def explain(question: Question) -> Iterator[str]:
    """What would happen to what `question` asks about, line by line.

    Raises `NoQuestion` for what cannot be asked, and whatever importing the site's application does.
    """
    application = _application(question)
    scope, login, visitor = question.scope(), question.login(), question.visitor()
    yield f"GET {escape(scope['path'])} over {question.protocol}, by {escape(visitor)}"
    try:
        trace, messages = rehearse(application, scope, login)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what would happen
        yield f"The application raises {escape(repr(error))}, and the server answers as it likes."
        return
    yield ""
    yield from _steps(trace)
    yield ""
    yield from _response(messages, was_reached=any(noted.kind == "endpoint" for noted in trace.noted))


def _application(question: Question) -> Any:
    application = application_of_site()
    if application is None and question.protocol == "websocket":
        raise NoQuestion("ASGI_APPLICATION is not set, so there are no sockets.")
    if question.protocol == "http" and not ways_of_site("http"):
        return ASGIHandler()  # Another server has the site's views.
    return application


def _steps(trace: Trace) -> Iterator[str]:
    yield f"route     {escape(trace.route or '-')}"
    yield f"endpoint  {escape(trace.endpoint or '-')}"
    if not trace.noted:
        return
    yield ""
    rows = [
        (
            f"{_milliseconds(noted.seconds):>12}",
            noted.kind,
            "  " * noted.depth + noted.name,
            "no answer in time" if noted.answer is None else noted.answer,
        )
        for noted in trace.noted
    ]
    for noted, line in zip(trace.noted, plain(rows), strict=True):
        yield line
        for query in noted.queries:
            yield f"{'':>14}{_milliseconds(query.seconds)}  {escape(_COLUMNS.sub('SELECT …', query.sql))}"
    yield f"{trace.query_count} {'query' if trace.query_count == 1 else 'queries'}"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.2f} ms"


def _response(messages: list[Message], *, was_reached: bool) -> Iterator[str]:
    """What the server would send for what the application sent."""
    if not messages:
        yield "No answer."
        return
    first, *rest = messages
    if first["type"] == "websocket.close":
        yield f"HTTP 403 Forbidden, without a body: the application closes with {_close(first)}."
        return
    status = 101 if first["type"] == "websocket.accept" else first["status"]
    condition = ", if the endpoint says so" if was_reached and not rest[1:] and status in {101, 200} else ""
    yield f"HTTP {status} {_phrase(status)}{condition}"
    if first.get("subprotocol"):
        yield f"sec-websocket-protocol: {escape(first['subprotocol'])}"
    for raw_name, raw_value in first.get("headers") or ():
        name, value = raw_name.decode("latin1").lower(), raw_value.decode("latin1")
        yield escape(f"{name}: {_COOKIE_VALUE.sub('=…', value, count=1) if name == 'set-cookie' else value}")
    for message in rest:
        if message["type"] == "websocket.close":
            yield f"Then it is closed with {_close(message)}."
    body = b"".join(message.get("body", b"") for message in rest)
    if body:
        yield ""
        yield from _body(body)


def _body(body: bytes) -> Iterator[str]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        yield f"({len(body)} bytes)"
        return
    yield from (escape(line) for line in text[:_LONGEST_BODY].splitlines())
    if len(text) > _LONGEST_BODY:
        yield f"… ({len(body)} bytes)"


def _close(message: Message) -> str:
    return f"{message.get('code', 1000)} {escape(message.get('reason') or '')!r}"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
