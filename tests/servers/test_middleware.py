"""Django middleware over the wire: what they add to each answer, and many handshakes at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

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


def test_a_middleware_answers_in_place_of_the_consumer(ask):
    answer = ask("/ws/allow-any/?maintenance")
    assert (answer.status, answer.body, answer.header("retry-after")) == (429, b"Back soon.", "60")
    assert marks_of(answer) == (["429", None, None], [])


def test_many_handshakes_at_once_are_all_answered_by_few_threads(server, cookie_of):
    def knock(number):
        with server.connect() as connection:
            connection.request("/ws/allow-any/", cookie_of("alice"))
            answer = connection.answer()
            return answer.status == connection.accepted

    with ThreadPoolExecutor(25) as pool:
        assert all(pool.map(knock, range(50)))
