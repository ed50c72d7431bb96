"""The hooks of the test project: every answer carries its request's id, and how long it took."""

import re

import pytest
from django.test import AsyncClient

from testproject.asgi import application
from tests.support.clients import fetch, knock

pytestmark = pytest.mark.django_db(transaction=True)

HOST = (b"host", b"testserver")
ANSWERS = {
    "an accepted socket": (knock, "/ws/status/", 101),
    "a denied socket": (knock, "/ws/rooms/lobby/", 401),
    "a socket that is not there": (knock, "/ws/nowhere/", 404),
    "a view": (fetch, "/login/", 200),
    "a denied view": (fetch, "/monitor/", 401),
    "a page that is not there": (fetch, "/nowhere/", 404),
    "a socket's address in a browser": (fetch, "/ws/status/", 426),
}


async def test_every_answer_has_an_id_of_its_own_or_the_one_that_a_proxy_gave():
    for name, (ask, path, status) in ANSWERS.items():

        async def id_for(*given, ask=ask, path=path, status=status, name=name):
            headers = [HOST, *((b"x-request-id", value) for value in given)]
            answer = await ask(application, path, headers=headers)
            assert answer.status == status, name
            assert re.fullmatch(r"app;dur=\d+\.\d", answer.header("server-timing")), name
            return answer.header("x-request-id")

        own = [await id_for(), await id_for(), await id_for(b"a; DROP")]  # The last could forge log records.
        assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in own), name
        assert len(set(own)) == 3, name
        assert await id_for(b"from-the-proxy") == "from-the-proxy", name


async def test_a_view_without_the_stack_has_none():
    """The hooks are the stack's; a site that wants them under WSGI as well names them in HOOKS."""
    assert "X-Request-ID" not in (await AsyncClient().get("/login/")).headers
