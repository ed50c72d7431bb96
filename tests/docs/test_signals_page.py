"""Every snippet of docs/signals.md does what the page says."""

from __future__ import annotations

import logging
import re

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.core.cache import cache
from django.urls import path
from django.utils.module_loading import import_string

from channels_wsdeny import DenyMiddlewareStack, Hooks
from channels_wsdeny.contrib import otel
from channels_wsdeny.decorators import login_required, public
from channels_wsdeny.signals import handshake_accepted, handshake_denied
from tests.clients import knock
from tests.docs.pages import DOCS, run

TEXT = (DOCS / "signals.md").read_text()
pytestmark = pytest.mark.django_db


@pytest.fixture
def page():
    module = run("signals.md")
    yield module
    handshake_accepted.disconnect(module.count)
    handshake_denied.disconnect(module.warn)
    cache.delete("last")


@public
class Open(AsyncWebsocketConsumer):
    pass


@login_required
class Locked(AsyncWebsocketConsumer):
    pass


application = DenyMiddlewareStack(
    URLRouter([path("open/", Open.as_asgi()), path("locked/", Locked.as_asgi())])
)


@pytest.mark.usefixtures("page")
async def test_an_accept_is_told_of():
    await knock(application, "/open/")
    assert await cache.aget("last") == "/open/"


@pytest.mark.usefixtures("page")
async def test_a_denial_is_told_of(caplog):
    with caplog.at_level(logging.INFO, "chat.doors"):
        await knock(application, "/locked/")
    assert "/locked/: 401 by IsAuthenticated()" in caplog.messages


async def test_receivers_get_the_arguments_of_the_table_and_change_nothing(caplog):
    told = {}

    async def receiver(signal, **kwargs):
        told.update(kwargs)
        raise RuntimeError

    handshake_denied.connect(receiver)
    try:
        assert (await knock(application, "/locked/")).status == 401
    finally:
        handshake_denied.disconnect(receiver)
    section = TEXT[TEXT.index("| argument") : TEXT.index("Receivers run")]
    assert set(told) == set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE))
    assert told["sender"] is Locked
    assert "django.dispatch" in {record.name for record in caplog.records}


async def test_there_is_no_sender_where_nothing_is_routed():
    senders = []

    async def receiver(sender, **kwargs):
        senders.append(sender)

    handshake_denied.connect(receiver)
    try:
        await knock(application, "/nowhere/")
    finally:
        handshake_denied.disconnect(receiver)
    assert senders == [None]


def test_the_hooks_of_opentelemetry_are_where_the_page_says(page):
    (name,) = page.CHANNELS_WSDENY["HOOKS"]
    assert isinstance(import_string(name), Hooks)
    assert import_string(name) is otel.hooks


def test_the_names_of_opentelemetry_are_those_of_the_code():
    from pathlib import Path

    code = Path(otel.__file__).read_text()
    section = TEXT[TEXT.index("| | name") : TEXT.index("The span is the current")]
    names = re.findall(r"`([^`]+)`", section)
    assert len(names) == 12
    assert [name for name in names if f'"{name}' not in code] in ([], ["websocket handshake"])
