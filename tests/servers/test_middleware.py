"""Django middleware over the wire: what they add to each answer, and many handshakes at once."""

import pytest

from .client import TEXT
from .middleware import ALL
from .table import DIFFERENCES, SERVERS

MARKING = [name for name in SERVERS if name not in DIFFERENCES["accept-headers"]]


@pytest.fixture(params=MARKING)
def server(request, fleet):
    return fleet.get(request.param, MIDDLEWARE=ALL, POOL_SIZE=2)


def marks_of(answer):
    return [answer.header(name) for name in ("x-split", "x-sync", "x-async")], answer.all("set-cookie")


def test_headers_and_cookies_of_middleware_are_on_the_101_and_on_every_denial(ask, opened, cookie_of):
    connection, answer = opened("/ws/allow-any/", cookie_of("alice"))
    assert marks_of(answer) == (["101", "True", "ws/allow-any/"], ["seen=1; Path=/"])
    connection.say(TEXT, b"a")
    assert connection.hear() == (TEXT, b"a")
    connection.close()
    for path, status, route in (("/ws/anonymous/", 401, "ws/anonymous/"), ("/nowhere/", 404, "none")):
        answer = ask(path)
        assert (answer.status, answer.problem["status"]) == (status, status)
        assert marks_of(answer) == ([str(status), "True", route], ["seen=1; Path=/"])
