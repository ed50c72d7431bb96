"""OpenTelemetry: what the spans and metrics of handshakes say, by the SDK itself."""

import asyncio

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.urls import path

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.decorators import require
from channels_wsdeny.policies import AllowAny, DenyAll
from channels_wsdeny.signals import handshake_accepted, handshake_denied
from tests.support.clients import Handshake, fetch, knock, opened, websocket_scope
from tests.support.mirror import made
from tests.support.policies import AsyncCheck, Check, accept, raising
from tests.support.sockets import consumer
from tests.support.wrappers import Function

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed (extra: test)")

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

pytestmark = pytest.mark.django_db

EXPORTER = InMemorySpanExporter()
READER = InMemoryMetricReader(dict.fromkeys([Counter, Histogram], AggregationTemporality.DELTA))
ROUTE = "rooms/<slug:room>/"
NAME = f"websocket handshake {ROUTE}"


@pytest.fixture(scope="module", autouse=True)
def sdk():
    """The SDK, and no more receivers once this module is done."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([READER]))
    from channels_wsdeny.contrib import otel

    yield
    for signal in (handshake_accepted, handshake_denied):
        signal.disconnect(otel.count_handshake)


@pytest.fixture(autouse=True)
def switched_on(settings):
    settings.CHANNELS_WSDENY = {"HOOKS": ["channels_wsdeny.contrib.otel.hooks"]}
    EXPORTER.clear()
    READER.get_metrics_data()


def spans():
    return list(EXPORTER.get_finished_spans())


def span():
    (span,) = spans()
    return span


def points():
    """The data points since the last call, by the name of their metric."""
    data = READER.get_metrics_data()
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}


def site(policy=None, app=accept, **options):
    app = app if policy is None else require(policy)(app)
    return DenyMiddlewareStack(URLRouter([path(ROUTE, app)]), default_policy=AllowAny(), **options)


async def test_the_span_says_what_was_asked_for_and_answered_but_nothing_secret():
    secrets = [(b"cookie", b"sessionid=s3cret"), (b"authorization", b"Bearer s3cret")]
    await knock(site(DenyAll()), "/rooms/kitchen/?token=s3cret", scheme="wss", headers=secrets)
    assert span().name == NAME
    assert dict(span().attributes) == {
        "http.request.method": "GET",
        "url.path": "/rooms/kitchen/",
        "url.scheme": "wss",
        "http.route": ROUTE,
        "http.response.status_code": 403,
        "channels_wsdeny.policy": "DenyAll()",
    }


async def test_the_name_lacks_a_route_where_there_is_none_and_a_path_is_escaped():
    await knock(site(), "/nowhere/\udc80/")
    assert (span().name, "http.route" in span().attributes) == ("websocket handshake", False)
    assert span().attributes["url.path"] == "/nowhere/\\udc80/"


async def test_a_route_that_is_known_late_names_the_span():
    await knock(DenyMiddlewareStack(Function(site(AllowAny())), default_policy=AllowAny()), "/rooms/kitchen/")
    assert span().name == NAME


def around_hook_that_raises(error):
    async def fail(request, call_next):
        raise error

    return site(hooks=made("around", fail))


@pytest.mark.parametrize(
    ("application", "status"),
    [
        (site(AllowAny()), 101),
        (site(DenyAll()), 403),
        (site(Check(raising(ZeroDivisionError))), 500),
        (around_hook_that_raises(PermissionDenied()), 403),
        (around_hook_that_raises(Deny(418)), 418),
        (around_hook_that_raises(ZeroDivisionError()), 500),
        (site(hooks=made("response", lambda request, response: HttpResponse(status=409))), 409),
    ],
)
async def test_the_span_has_the_status_that_goes_out_and_only_failures_are_errors(application, status):
    await knock(application, "/rooms/kitchen/")
    is_error = span().status.status_code is trace.StatusCode.ERROR
    assert (span().attributes["http.response.status_code"], is_error) == (status, status >= 500)
    assert span().attributes.get("error.type") == (str(status) if is_error else None)


async def test_the_span_of_a_client_that_leaves_ends_without_a_status():
    asked = asyncio.Event()

    async def waits(request):
        asked.set()
        await asyncio.sleep(60)

    handshake = Handshake(site(AsyncCheck(waits)), websocket_scope("/rooms/kitchen/"))
    await handshake.communicator.send_input({"type": "websocket.connect"})
    await asked.wait()
    handshake.communicator.future.cancel()
    await asyncio.wait({handshake.communicator.future})
    await asyncio.sleep(0)
    assert "http.response.status_code" not in span().attributes


async def test_the_span_ends_with_the_answer_and_what_a_consumer_does_later_is_of_its_trace():
    class Room(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            with trace.get_tracer("tests").start_as_current_span("later"):
                await self.send("done")

    async with opened(site(app=Room.as_asgi()), "/rooms/kitchen/") as handshake:
        assert span().end_time is not None
        await handshake.send("go on")
        await handshake.next()
    first, later = spans()
    assert later.context.trace_id == first.context.trace_id


async def test_an_http_request_has_no_span():
    await fetch(site(DenyAll()), "/rooms/kitchen/")
    assert spans() == []


async def test_the_span_is_current_in_hooks_policies_and_the_consumer():
    seen = []

    def note(*arguments):
        seen.append(trace.get_current_span().get_span_context().span_id)

    room = consumer(lambda self: note() or self.accept()).as_asgi()
    hooks = made("request", note)
    hooks.on_response(note)
    await knock(site(Check(lambda request: note() or True), room, hooks=hooks), "/rooms/kitchen/")
    assert seen == [span().context.span_id] * 4


TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("traceparent", "is_known"),
    [(f"00-{TRACE}-{PARENT}-01".encode(), True), (b"", False), (b"00-xyz", False), (b"\xff\xfe", False)],
)
async def test_a_handshake_continues_the_trace_of_its_client_if_it_makes_sense(traceparent, is_known):
    await knock(site(), "/rooms/kitchen/", headers=[(b"traceparent", traceparent)])
    assert (f"{span().context.trace_id:032x}" == TRACE, span().kind) == (is_known, trace.SpanKind.SERVER)
    assert (f"{span().parent.span_id:016x}" if span().parent else None) == (PARENT if is_known else None)


async def test_within_the_span_of_an_instrumentation_there_is_no_second_one_of_a_server():
    async def instrumented(scope, receive, send):
        with trace.get_tracer("tests").start_as_current_span("outer", kind=trace.SpanKind.SERVER):
            await site()(scope, receive, send)

    await knock(instrumented, "/rooms/kitchen/")
    inner, outer = spans()
    assert (inner.parent.span_id, inner.kind) == (outer.context.span_id, trace.SpanKind.INTERNAL)


async def test_handshakes_side_by_side_have_traces_of_their_own():
    await asyncio.gather(*(knock(site(Check(lambda request: True)), "/rooms/a/") for _ in range(5)))
    assert len({span.context.trace_id for span in spans()}) == 5


async def test_handshakes_are_counted_by_status_and_route_also_if_they_are_too_malformed_for_hooks():
    for policy in (AllowAny(), DenyAll(), DenyAll()):
        await knock(site(policy), "/rooms/kitchen/")
    await knock(site(), "/nowhere/")
    await knock(site(), "/nowhere/", query_string=b"\xff")
    found = points()
    (lasted, *_), counted = found["channels_wsdeny.handshake.duration"], found["channels_wsdeny.handshakes"]
    assert (0 < lasted.sum < 10, lasted.explicit_bounds[:2]) == (True, (0.005, 0.01))  # seconds
    assert {tuple(sorted(point.attributes.items(), key=str)): point.value for point in counted} == {
        (("http.response.status_code", 101), ("http.route", ROUTE)): 1,
        (("http.response.status_code", 403), ("http.route", ROUTE)): 2,
        (("http.response.status_code", 404),): 1,
        (("http.response.status_code", 400),): 1,
    }
    assert len(spans()) == 4
