"""OpenTelemetry: a span of each handshake, and their number and duration by status.

Switched on by ``CHANNELS_WSDENY["HOOKS"] = ["channels_wsdeny.contrib.otel.hooks"]``. Without
``opentelemetry-api`` (the extra ``otel``) nothing happens, and without an SDK next to nothing.

The span is the current one while all other hooks, the policies and the consumer's `connect` run. It ends with
the answer; what the consumer does later belongs to the same trace. If an instrumentation further out has a
span of the connection already, ours is within it; else ours goes on with the trace of the client's headers.

Every handshake that is answered is counted, also those that are denied before any hook can run.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..exceptions import Deny
from ..hooks.registry import Hooks
from ..http.exception_handler import translate
from ..log import escape, request_path
from ..signals import handshake_accepted, handshake_denied
from ..version import __version__

try:
    from opentelemetry import context, metrics, propagate, trace
except ImportError:
    _is_installed = False
else:
    _is_installed = True
    _tracer = trace.get_tracer("channels_wsdeny", __version__)
    _meter = metrics.get_meter("channels_wsdeny", __version__)
    _handshakes = _meter.create_counter(
        "channels_wsdeny.handshakes", unit="{handshake}", description="Handshakes that were answered."
    )
    _duration = _meter.create_histogram(
        "channels_wsdeny.handshake.duration",
        unit="s",
        description="Time to the answer of a handshake.",
        # As the semantic conventions have them for http.server.request.duration.
        explicit_bucket_boundaries_advisory=[
            *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25),
            *(0.5, 0.75, 1, 2.5, 5, 7.5, 10),
        ],
    )

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from ..http.request import HandshakeRequest

#: The registry to name in the setting ``HOOKS``.
hooks = Hooks()


async def trace_handshake(
    request: HandshakeRequest, call_next: Callable[[HttpRequest], Awaitable[HttpResponseBase]]
) -> HttpResponseBase:
    """An ``around`` hook: the handshake's span."""
    # As instrumentations of servers do: whoever has begun a span here is part of this process.
    is_within = trace.get_current_span() is not trace.INVALID_SPAN
    parent = None if is_within else propagate.extract(_carrier(request))
    span = _tracer.start_span(
        _name(request),
        context=parent,
        kind=trace.SpanKind.INTERNAL if is_within else trace.SpanKind.SERVER,
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
        _conclude(span, request, (error if isinstance(error, Deny) else translate(error)).status)
        raise
    else:
        _conclude(span, request, response.status_code)
        return response
    finally:
        context.detach(token)
        span.end()


async def count_handshake(
    request: HandshakeRequest, response: HttpResponseBase, duration: float, **kwargs: Any
) -> None:
    """A receiver of both signals."""
    attributes: dict[str, Any] = {"http.response.status_code": response.status_code, **_route(request)}
    _handshakes.add(1, attributes)
    _duration.record(duration, attributes)


def _conclude(span: trace.Span, request: HandshakeRequest, status: int) -> None:
    if not span.is_recording():
        return
    span.update_name(_name(request))  # A stack further in may have told the route only now.
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
    """The pattern of the route as an attribute; without one, none."""
    match = request.resolver_match
    return {"http.route": match.route} if match is not None and match.route else {}


def _carrier(request: HandshakeRequest) -> dict[str, str]:
    """The headers, for propagators: not Django's own, which may find the request malformed."""
    return {name.decode("latin1"): value.decode("latin1") for name, value in request.scope.get("headers", ())}


if _is_installed:
    hooks.around(priority=math.inf, protocols=("websocket",))(trace_handshake)
    handshake_accepted.connect(count_handshake)
    handshake_denied.connect(count_handshake)
