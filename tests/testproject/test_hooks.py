"""The hooks of the test project: every answer carries its request's id, and how long it took."""

import re

import pytest
from django.test import AsyncClient

from testproject.asgi import application
from tests.clients import fetch, knock

pytestmark = pytest.mark.django_db

HOST = (b"host", b"testserver")
GIVEN = (b"x-request-id", b"from-the-proxy")
DOORS = {
    "an accepted socket": (knock, "/ws/status/", 101),
    "a denied socket": (knock, "/ws/rooms/lobby/", 401),
    "a socket that is not there": (knock, "/ws/nowhere/", 404),
    "a view": (fetch, "/login/", 200),
    "a denied view": (fetch, "/rooms/lobby/access/", 401),
    "a page that is not there": (fetch, "/nowhere/", 404),
    "a socket's address in a browser": (fetch, "/ws/status/", 426),
}


@pytest.fixture(params=DOORS)
def answer(request, transactional_db):
    ask, path, status = DOORS[request.param]

    async def answer(*headers):
        answer = await ask(application, path, headers=[HOST, *headers])
        assert answer.status == status
        return {name.lower(): value for name, value in answer.headers}  # Django's own have capitals.

    return answer


async def test_every_answer_has_an_id(answer):
    assert re.fullmatch(r"[0-9a-f]{32}", (await answer())["x-request-id"])


async def test_every_answer_has_the_id_that_a_proxy_gave(answer):
    assert (await answer(GIVEN))["x-request-id"] == "from-the-proxy"


async def test_an_id_that_could_forge_log_records_is_replaced(answer):
    told = (await answer((b"x-request-id", b"a; DROP")))["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", told)


async def test_every_answer_tells_how_long_it_took(answer):
    assert re.fullmatch(r"app;dur=\d+\.\d", (await answer())["server-timing"])


async def test_two_answers_have_two_ids(answer):
    assert (await answer())["x-request-id"] != (await answer())["x-request-id"]


async def test_a_view_without_the_stack_has_none():
    """The hooks are the stack's; a site that wants them under WSGI as well names them in HOOKS."""
    assert "X-Request-ID" not in (await AsyncClient().get("/login/")).headers
