"""The explanation: what would happen to a request, in lines for people to read."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from channels.security.websocket import OriginValidator
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.urls import resolve

from ..log import escape
from ..names import name_of
from .endpoints import application_of_site, ways, ways_of_site
from .question import NoQuestion
from .rehearsal import rehearse
from .table import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..http.trace import Trace
    from ..types import Message, Scope
    from .question import Question

#: Characters of a body that are shown.
_LONGEST_BODY = 2000
#: Of a query, that is seldom of interest.
_COLUMNS = re.compile(r"^SELECT (?:(?! FROM ).){60,}(?= FROM )")
_COOKIE_VALUE = re.compile(r"=[^;]*")
#: What hooks, policies and queries by the way have as their answer where a request goes on.
_LETS_ON = frozenset({"allowed", "went on", ""})
_TRY_HTTP = "There is a view at this path. Ask about it with: --protocol http"


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
        if _is_path_of_a_view(scope):
            yield _TRY_HTTP
        return
    yield ""
    yield from _steps(trace)
    yield ""
    if messages and messages[0].get("status") == 404 and _is_path_of_a_view(scope):
        yield _TRY_HTTP
        yield ""
    if _is_denied_within(trace, scope, messages):
        yield f"The policies allowed it. {_denier_within(application, trace, scope)}"
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


def _is_path_of_a_view(scope: Scope) -> bool:
    """Whether a handshake was asked about, and a view is what has the path."""
    if scope["type"] != "websocket" or not getattr(settings, "ROOT_URLCONF", None):
        return False
    try:
        resolve(scope["path"])
    except Exception:  # noqa: BLE001 - no URLconf, or one that cannot be read, has nothing to suggest
        return False
    return True


def _is_denied_within(trace: Trace, scope: Scope, messages: list[Message]) -> bool:
    """Whether a handshake that the policies allowed was denied by the application, before its endpoint."""
    if scope["type"] != "websocket" or not messages or messages[0]["type"] == "websocket.close":
        return False
    # What is within another answers for a part of it, and response hooks come when all is decided.
    asked = [each for each in trace.noted if not each.depth and not each.name.startswith("on_response ")]
    return any(each.kind == "policy" for each in asked) and all(
        each.answer in _LETS_ON and each.kind != "endpoint" for each in asked
    )


def _denier_within(application: Any, trace: Trace, scope: Scope) -> str:
    """What is known of who denied within `application`, as a sentence."""
    headers = [value.decode("latin1") for name, value in scope["headers"] if name == b"origin"]
    for way in ways(application, "websocket"):
        if name_of(way.consumer_class or way.endpoint) != trace.endpoint:
            continue
        for app in way.apps:
            if isinstance(app, OriginValidator) and not _allows(app, headers):
                origin = f"the Origin {headers[-1]!r}" if headers else "a handshake without an Origin"
                return f"{type(app).__name__}, within the application, does not allow {escape(origin)}."
    return "The application denied it by itself, before its endpoint."


def _allows(validator: Any, origins: list[str]) -> bool:
    try:
        return bool(validator.valid_origin(urlparse(origins[-1]) if origins else None))
    except Exception:  # noqa: BLE001 - a validator of the site's may raise, and was not the one who closed
        return True


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
