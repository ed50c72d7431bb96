"""Every snippet of docs/authentication.md does what the page says; those of the packages: tests/authentication."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.authentication import issue_ticket
from channels_wsdeny.concurrency import run_in_threadpool
from channels_wsdeny.decorators import login_required, public
from tests.docs.pages import blocks
from tests.support.clients import knock

pytestmark = pytest.mark.django_db


class Rows:
    """A model with a row for one token or device."""

    def __init__(self, **row):
        self._row, self.objects = row, self

    def select_related(self, name):
        return self

    def filter(self, **wanted):
        found = wanted.items() <= self._row.items()
        return SimpleNamespace(first=lambda: SimpleNamespace(**self._row) if found else None)


@pytest.fixture
def page(users):
    class Consumer(AsyncWebsocketConsumer):
        """Accepts."""

    names = {
        "ApiKey": Rows(digest="TOKEN", user=users["alice"]),
        "Device": Rows(serial="7", owner=users["bob"]),
        "digest": str.upper,
        "router": login_required(Consumer).as_asgi(),
    }
    found = []
    for number, block in enumerate(blocks("authentication.md")[:5]):
        exec(compile(block, f"authentication.md, snippet {number}", "exec"), names)
        found.append(names.get("CHANNELS_WSDENY"))
    return SimpleNamespace(**names, settings=found)


async def test_tokens_and_devices_of_a_model_of_the_site(page):
    for value, status in [(b"Bearer token", 101), (b"Bearer other", 401)]:
        assert (await knock(page.application, "/", headers=[(b"authorization", value)])).status == status
    app = DenyMiddlewareStack(public(page.router), authentication=[page.DeviceAuthentication()])
    for value, status in [(b"7", 101), (b"8", 401)]:
        answer = await knock(app, "/", headers=[(b"x-device", value), (b"cookie", b"a=b"), (b"origin", b"https://a.b")])
        assert (answer.status, answer.header("www-authenticate")) == (status, "Device" if status == 401 else None)


async def test_tokens_of_pages_and_tickets(page, settings):
    settings.CHANNELS_WSDENY = page.settings[3]
    for offered, status in [(["bearer", "token"], 101), (["bearer", "other"], 401), ([], 401)]:
        assert (await knock(DenyMiddlewareStack(page.router), "/", subprotocols=offered)).status == status
    settings.CHANNELS_WSDENY = page.settings[4]
    (pattern,) = page.urlpatterns
    assert pattern.resolve("ticket/")
    assert (await knock(DenyMiddlewareStack(page.router), "/?ticket=x")).problem["code"] == "invalid_credentials"


async def test_a_ticket_is_used_up_though_the_browser_sends_the_cookie_of_the_session_as_well(
    page, settings, users, sessions, headers_of
):
    settings.CHANNELS_WSDENY = page.settings[4]
    asking = SimpleNamespace(user=users["alice"], session=sessions["alice"])
    ticket = await run_in_threadpool(lambda: issue_ticket(asking, "/"))
    app, headers = DenyMiddlewareStack(page.router), headers_of("alice")
    found = [(await knock(app, f"/?ticket={ticket}", headers=headers)).status for _ in range(2)]
    assert found == [101, 401]
    assert (await knock(app, "/", headers=headers)).status == 101
