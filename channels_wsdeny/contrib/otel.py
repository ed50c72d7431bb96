"""OpenTelemetry: a span for each handshake, and the number and duration of handshakes by status.

Switched on by ``CHANNELS_WSDENY["HOOKS"] = ["channels_wsdeny.contrib.otel.hooks"]``. It needs
``opentelemetry-api`` (the extra ``otel``), and without an SDK does next to nothing.

The span is current while all other hooks, the policies and the consumer's `connect` run, and ends with the
answer; what the consumer does later belongs to the same trace. Its parent is the span of another
instrumentation, if one is current, or else the trace of the client's headers.

Every handshake that is answered is counted, those that are denied before any hook runs included.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from django.dispatch import receiver
from opentelemetry import context, metrics, propagate, trace

from .. import __version__
from ..exceptions import Deny
from ..hooks.registry import Hooks
from ..http.exception_handler import translate
from ..log import escape, request_path
from ..signals import handshake_accepted, handshake_denied

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from ..http.request import HandshakeRequest

_tracer = trace.get_tracer("channels_wsdeny", __version__)
_meter = metrics.get_meter("channels_wsdeny", __version__)
_handshakes = _meter.create_counter(
    "channels_wsdeny.handshakes", unit="{handshake}", description="Handshakes that were answered."
)
_duration = _meter.create_histogram(
    "channels_wsdeny.handshake.duration",
    unit="s",
    description="Time to the answer of a handshake.",
    # Those of http.server.request.duration in the semantic conventions.
    explicit_bucket_boundaries_advisory=[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10],
)
#: The registry to name in the setting ``HOOKS``.
hooks = Hooks()


@hooks.around(priority=math.inf, protocols=("websocket",))
async def trace_handshake(
    request: HandshakeRequest, call_next: Callable[[HttpRequest], Awaitable[HttpResponseBase]]
) -> HttpResponseBase:
    """An ``around`` hook: run the handshake within a span."""
    is_child = trace.get_current_span() is not trace.INVALID_SPAN
    parent = None if is_child else propagate.extract(_headers(request))
    span = _tracer.start_span(
        _name(request),
        context=parent,
        kind=trace.SpanKind.INTERNAL if is_child else trace.SpanKind.SERVER,
        attributes={
            "http.request.method": "GET",
            "url.path": escape(request_path(request)),
            "url.scheme": request.scope.get("scheme", "ws"),
            **_route(request),
        },
    )
    token = context.attach(trace.set_span_in_context(span, parent))
    try:
        response = await call_next(request)
    except Exception as error:
        _finish(span, request, (error if isinstance(error, Deny) else translate(error)).status)
        raise
    else:
        _finish(span, request, response.status_code)
        return response
    finally:
        context.detach(token)
        span.end()


@receiver([handshake_accepted, handshake_denied])
async def count_handshake(
    request: HandshakeRequest, response: HttpResponseBase, duration: float, **kwargs: Any
) -> None:
    """A receiver of both signals: count the handshake, and record its duration in seconds."""
    attributes: dict[str, Any] = {"http.response.status_code": response.status_code, **_route(request)}
    _handshakes.add(1, attributes)
    _duration.record(duration, attributes)


def _finish(span: trace.Span, request: HandshakeRequest, status: int) -> None:
    span.update_name(_name(request))  # An application inside may have resolved the route only now.
    span.set_attributes({"http.response.status_code": status, **_route(request)})
    policy = request.wsdeny.expression
    if policy is not None:
        span.set_attribute("channels_wsdeny.policy", policy)
    if status >= 500:
        span.set_attribute("error.type", str(status))
        span.set_status(trace.StatusCode.ERROR)


def _name(request: HandshakeRequest) -> str:
    return " ".join(["websocket handshake", *_route(request).values()])


def _route(request: HandshakeRequest) -> dict[str, str]:
    """The pattern of the route as an attribute, if there is a route."""
    match = request.resolver_match
    return {"http.route": match.route} if match is not None and match.route else {}


def _headers(request: HandshakeRequest) -> dict[str, str]:
    """The headers for propagators; `request.headers` may refuse a malformed request."""
    return {name.decode("latin1"): value.decode("latin1") for name, value in request.scope.get("headers", ())}
