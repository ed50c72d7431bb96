"""Hooks that bring listeners: receivers of the signals, and OpenTelemetry, which tell the server's log."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from django.contrib.sessions.models import Session
from django.dispatch import receiver
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from channels_wsdeny import Hooks
from channels_wsdeny.contrib import otel
from channels_wsdeny.signals import handshake_accepted, handshake_denied

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.http import HttpRequest, HttpResponse
    from opentelemetry.sdk.trace import ReadableSpan

logger = logging.getLogger("tests.wire")
BOTH = [handshake_accepted, handshake_denied]
#: Less than receivers may take, and more than an application waits for them.
LONG = 3

hooks = Hooks().include(otel.hooks)


@receiver(BOTH)
def tell(signal: object, request: HttpRequest, response: HttpResponse, **kwargs: Any) -> None:
    Session.objects.count()
    logger.info("%s %s: %s", signal, request.path, response.status_code)


@receiver(BOTH)
async def hang(request: HttpRequest, **kwargs: Any) -> None:
    if "hang" in request.path:
        await asyncio.sleep(LONG)
        logger.info("hung at %s", request.path)


class LogExporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            told = span.attributes or {}
            logger.info("span of %s: %s", told.get("url.path"), told.get("http.response.status_code"))
        return SpanExportResult.SUCCESS


_provider = TracerProvider()
_provider.add_span_processor(SimpleSpanProcessor(LogExporter()))
trace.set_tracer_provider(_provider)
