"""OpenTelemetry: what the spans and metrics of handshakes say, by the SDK itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.urls import path

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import require
from channels_wsdeny.policies import AllowAny, DenyAll
from channels_wsdeny.signals import handshake_accepted, handshake_denied
from tests.cases import CASES
from tests.clients import Handshake, fetch, knock, websocket_scope
from tests.parts import AsyncCheck, Check, accept
from tests.site import application

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


@pytest.fixture(scope="module", autouse=True)
def sdk():
    """The SDK, for whoever has a tracer or meter already; and no more receivers once this module is done."""
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
    if data is None:
        return {}
    return {
        metric.name: list(metric.data.data_points)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def site(app=accept, policy=None, **options):
    app = app if policy is None else require(policy)(app)
    return DenyMiddlewareStack(
        URLRouter([path("rooms/<slug:room>/", app)]), default_policy=AllowAny(), **options
    )


# Spans.


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_each_handshake_has_a_span_with_its_status(case, headers_of):
    await knock(application, f"/ws/{case.name}/", headers=headers_of(case.user))
    assert span().attributes["http.response.status_code"] == (case.status or 101)


async def test_the_span_says_what_was_asked_for():
    await knock(site(policy=DenyAll()), "/rooms/kitchen/?token=secret", scheme="wss")
    assert dict(span().attributes) == {
        "http.request.method": "GET",
        "url.path": "/rooms/kitchen/",
        "url.scheme": "wss",
        "http.route": "rooms/<slug:room>/",
        "http.response.status_code": 403,
        "channels_wsdeny.policy": "DenyAll()",
    }


async def test_the_span_is_named_after_the_route():
    await knock(site(policy=DenyAll()), "/rooms/kitchen/")
    assert span().name == "websocket handshake rooms/<slug:room>/"


async def test_without_a_route_the_span_has_the_name_alone():
    await knock(site(), "/nowhere/")
    assert span().name == "websocket handshake"
    assert "http.route" not in span().attributes


async def test_a_route_that_is_known_late_is_told():
    async def wrapper(scope, receive, send):
        await site(policy=AllowAny())(scope, receive, send)

    await knock(DenyMiddlewareStack(wrapper, default_policy=AllowAny()), "/rooms/kitchen/")
    assert span().name == "websocket handshake rooms/<slug:room>/"


async def test_nothing_secret_is_in_a_span():
    headers = [(b"cookie", b"sessionid=s3cret"), (b"authorization", b"Bearer s3cret")]
    await knock(site(), "/rooms/kitchen/?token=s3cret", headers=headers)
    assert "s3cret" not in span().to_json()


async def test_a_path_that_no_exporter_could_encode_is_escaped():
    await knock(site(), "/rooms/\udc80/")
    assert span().attributes["url.path"] == "/rooms/\\udc80/"


def raises(request):
    raise ZeroDivisionError("secret")


async def test_a_failure_is_an_error():
    await knock(site(policy=Check(raises)), "/rooms/kitchen/")
    assert span().status.status_code is trace.StatusCode.ERROR
    assert span().attributes["error.type"] == "500"


@pytest.mark.parametrize("policy", [AllowAny(), DenyAll()], ids=repr)
async def test_what_is_decided_is_no_error(policy):
    await knock(site(policy=policy), "/rooms/kitchen/")
    assert span().status.status_code is trace.StatusCode.UNSET


@pytest.mark.parametrize(
    ("error", "status"), [(PermissionDenied(), 403), (Deny(418), 418), (ZeroDivisionError(), 500)]
)
async def test_what_another_around_hook_raises_is_told_by_its_status(error, status):
    hooks = Hooks()

    @hooks.around
    async def fail(request, call_next):
        raise error

    await knock(site(hooks=hooks), "/rooms/kitchen/")
    assert span().attributes["http.response.status_code"] == status


async def test_a_response_that_a_hook_has_replaced_is_told_as_it_goes_out():
    hooks = Hooks()
    hooks.on_response(lambda request, response: HttpResponse(status=409))
    await knock(site(hooks=hooks), "/rooms/kitchen/")
    assert span().attributes["http.response.status_code"] == 409


async def test_the_span_of_a_client_that_leaves_ends_without_a_status():
    asked = asyncio.Event()

    async def waits(request):
        asked.set()
        await asyncio.sleep(60)

    handshake = Handshake(site(policy=AsyncCheck(waits)), websocket_scope("/rooms/kitchen/"))
    await handshake.communicator.send_input({"type": "websocket.connect"})
    await asked.wait()
    handshake.communicator.future.cancel()
    await asyncio.wait({handshake.communicator.future})
    await asyncio.sleep(0)
    assert "http.response.status_code" not in span().attributes


async def test_the_span_ends_with_the_answer():
    handshake = Handshake(site(), websocket_scope("/rooms/kitchen/"))
    await handshake.connect()
    assert len(spans()) == 1
    await handshake.leave()


async def test_an_http_request_has_no_span():
    await fetch(application, "/http/deny-all/")
    assert spans() == []


# Where spans are.


def current():
    return trace.get_current_span().get_span_context().span_id


async def test_the_span_is_current_in_hooks_policies_and_the_consumer():
    seen = []
    hooks = Hooks()

    @hooks.on_request
    def request_hook(request):
        seen.append(current())

    @hooks.on_response
    async def response_hook(request, response):
        seen.append(current())

    class Room(AsyncWebsocketConsumer):
        async def connect(self):
            seen.append(current())
            await self.accept()

    policy = Check(lambda request: seen.append(current()) or True)
    await knock(DenyMiddlewareStack(require(policy)(Room).as_asgi(), hooks=hooks), "/")
    assert seen == [span().context.span_id] * 4


async def test_what_a_consumer_does_later_is_of_the_same_trace():
    class Room(AsyncWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            with trace.get_tracer("tests").start_as_current_span("later"):
                await self.send("done")

    handshake = Handshake(
        DenyMiddlewareStack(Room.as_asgi(), default_policy=AllowAny()), websocket_scope("/")
    )
    await handshake.connect()
    await handshake.send("go on")
    await handshake.next()
    await handshake.leave()
    first, later = spans()
    assert later.context.trace_id == first.context.trace_id


async def test_a_handshake_goes_on_with_the_trace_of_its_client():
    traceparent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await knock(site(), "/rooms/kitchen/", headers=[(b"traceparent", traceparent)])
    assert f"{span().context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{span().parent.span_id:016x}" == "b7ad6b7169203331"
    assert span().kind is trace.SpanKind.SERVER


@pytest.mark.parametrize("traceparent", [b"", b"00-xyz", b"\xff\xfe"])
async def test_a_client_whose_trace_makes_no_sense_begins_one(traceparent):
    await knock(site(), "/rooms/kitchen/", headers=[(b"traceparent", traceparent)])
    assert span().parent is None


async def test_within_the_span_of_an_instrumentation_there_is_no_second_one_of_a_server():
    async def instrumented(scope, receive, send):
        with trace.get_tracer("tests").start_as_current_span("outer", kind=trace.SpanKind.SERVER):
            await site()(scope, receive, send)

    await knock(instrumented, "/rooms/kitchen/")
    inner, outer = spans()
    assert inner.parent.span_id == outer.context.span_id
    assert inner.kind is trace.SpanKind.INTERNAL


async def test_handshakes_side_by_side_have_traces_of_their_own():
    await asyncio.gather(*(knock(site(policy=Check(lambda request: True)), "/rooms/a/") for _ in range(5)))
    assert len({span.context.trace_id for span in spans()}) == 5


# Metrics.


async def test_handshakes_are_counted_by_status_and_route():
    for policy in (AllowAny(), DenyAll(), DenyAll()):
        await knock(site(policy=policy), "/rooms/kitchen/")
    await knock(site(), "/nowhere/")
    counted = points()["channels_wsdeny.handshakes"]
    assert {tuple(sorted(point.attributes.items(), key=str)): point.value for point in counted} == {
        (("http.response.status_code", 101), ("http.route", "rooms/<slug:room>/")): 1,
        (("http.response.status_code", 403), ("http.route", "rooms/<slug:room>/")): 2,
        (("http.response.status_code", 404),): 1,
    }


async def test_a_handshake_that_is_too_malformed_for_hooks_is_counted():
    await knock(site(), "/rooms/kitchen/", query_string=b"\xff")
    assert spans() == []
    (point,) = points()["channels_wsdeny.handshakes"]
    assert point.attributes["http.response.status_code"] == 400


async def test_the_duration_is_in_seconds():
    async def takes_its_time(request):
        await asyncio.sleep(0.1)
        return True

    await knock(site(policy=AsyncCheck(takes_its_time)), "/rooms/kitchen/")
    (point,) = points()["channels_wsdeny.handshake.duration"]
    assert 0.1 <= point.sum < 10
    assert point.explicit_bounds[:2] == (0.005, 0.01)


# Without OpenTelemetry.

WITHOUT = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"{name} is not installed", name=name)

sys.meta_path.insert(0, Refusing())
"""
HANDSHAKE = """
import asyncio, os
os.environ["DJANGO_SETTINGS_MODULE"] = "testproject.settings"
import django; django.setup()
from django.conf import settings
settings.CHANNELS_WSDENY = {"HOOKS": ["channels_wsdeny.contrib.otel.hooks"]}
from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.policies import AllowAny
from channels_wsdeny.signals import handshake_accepted
from tests.clients import knock
from tests.parts import accept
answer = asyncio.run(knock(DenyMiddlewareStack(accept, default_policy=AllowAny()), "/"))
print(answer.status, handshake_accepted.has_listeners())
"""


@pytest.mark.parametrize(
    ("before", "listens"), [(WITHOUT, False), ("", True)], ids=["nothing", "the API alone"]
)
def test_without_an_sdk_the_hooks_hold_nobody_up(before, listens):
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", before + HANDSHAKE],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == (f"101 {listens}\n", "")


def test_a_synchronous_test_sees_the_span_as_well():
    async_to_sync(knock)(site(), "/rooms/kitchen/")
    assert span().attributes["http.response.status_code"] == 101
