"""The snippet of docs/index.md does what the page says."""

from __future__ import annotations

import pytest

from channels_wsdeny.routing.guards import guards_of
from tests.clients import knock
from tests.docs.pages import run

page = run("index.md")
pytestmark = pytest.mark.django_db


async def test_the_consumer_is_closed_to_strangers():
    assert (await knock(page.ChatConsumer.as_asgi(), "/")).status == 401


def test_it_demands_the_permission():
    assert [str(policy) for policy in guards_of(page.ChatConsumer).policies] == [
        "HasPermission('chat.view_room')"
    ]
