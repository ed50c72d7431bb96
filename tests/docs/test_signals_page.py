"""Every snippet of docs/signals.md does what the page says."""

import logging
import re
from pathlib import Path

import pytest
from channels.routing import URLRouter
from django.core.cache import cache
from django.urls import path
from django.utils.module_loading import import_string

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.contrib import otel
from channels_wsdeny.decorators import login_required, public
from channels_wsdeny.live import arevoke
from channels_wsdeny.signals import handshake_accepted, handshake_denied, socket_revoked
from tests.docs.pages import DOCS, run
from tests.support.clients import knock
from tests.support.opened import Opened
from tests.support.receivers import connected
from tests.support.sockets import consumer
from tests.support.threads import until

TEXT = (DOCS / "signals.md").read_text()
pytestmark = pytest.mark.django_db


Locked = login_required(consumer())
router = URLRouter([path("open/", public(consumer()).as_asgi()), path("locked/", Locked.as_asgi())])
application = DenyMiddlewareStack(router)


@pytest.fixture
def page():
    module = run("signals.md")
    yield module
    handshake_accepted.disconnect(module.count)
    handshake_denied.disconnect(module.warn)
    socket_revoked.disconnect(module.note)
    cache.delete("last")


@pytest.mark.usefixtures("page")
async def test_the_receivers_of_the_page_hear_of_an_accept_and_of_a_denial(caplog):
    await knock(application, "/open/")
    assert await cache.aget("last") == "/open/"
    with caplog.at_level(logging.INFO, "chat.handshakes"):
        await knock(application, "/locked/")
    assert "/locked/: 401 by IsAuthenticated()" in caplog.messages


@pytest.mark.usefixtures("page")
async def test_the_receiver_of_the_page_hears_of_a_socket_that_is_closed(caplog):
    opened = await Opened(application, "/open/").accepted()
    with caplog.at_level(logging.INFO, "chat.handshakes"):
        await arevoke(path="/open/", reason="spam")
        await opened.end()
        await until(lambda: "/open/: 4403 spam" in caplog.messages)


async def test_receivers_get_the_arguments_of_the_table_and_change_nothing(caplog):
    heard = []

    async def receiver(signal, **kwargs):
        heard.append(kwargs)
        raise RuntimeError

    with connected(receiver):
        assert (await knock(application, "/locked/")).status == 401
        assert (await knock(application, "/nowhere/")).status == 404
    section = TEXT[TEXT.index("| argument") : TEXT.index("Receivers run")]
    assert set(heard[0]) == set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE))
    assert [kwargs["sender"] for kwargs in heard] == [Locked, None]
    assert "django.dispatch" in {record.name for record in caplog.records}


def test_the_names_of_opentelemetry_are_those_of_the_code(page):
    (name,) = page.CHANNELS_WSDENY["HOOKS"]
    assert import_string(name) is otel.hooks
    code = Path(otel.__file__).read_text()
    section = TEXT[TEXT.index("| | name") : TEXT.index("The span is the current")]
    names = re.findall(r"`([^`]+)`", section)
    assert len(names) == 12
    assert [name for name in names if f'"{name}' not in code] in ([], ["websocket handshake"])
