"""Every case of the table on every server, as it is on the wire."""

import pytest

from tests.support.cases import DENIED, PASSED
from tests.support.connections import BINARY, TEXT

EVERY_BYTE = bytes(range(256))


@pytest.fixture
def echo(opened, cookie_of):
    """A function from a case to what its accepted socket says to a text and to bytes."""

    def echo(case):
        connection, _ = opened(f"/ws/{case.name}/", cookie_of(case.user))
        connection.say(TEXT, "\u00e9t\u00e9".encode())
        heard = [connection.hear()]
        connection.say(BINARY, EVERY_BYTE)
        heard.append(connection.hear())
        connection.close()
        return heard

    return echo


ECHOED = [(TEXT, "\u00e9t\u00e9".encode()), (BINARY, EVERY_BYTE)]


@pytest.mark.matrix
def test_every_case_is_denied_alike(server, ask, cookie_of):
    wrong = {}
    for case in DENIED:
        answer = ask(f"/ws/{case.name}/", cookie_of(case.user))
        if server.can("denial"):
            faults = case.faults(answer)
            if answer.header("content-length") is None or answer.header("transfer-encoding") is not None:
                faults["length"] = answer.headers
        else:
            faults = {} if (answer.status, answer.body) == (403, b"") else answer
        if faults:
            wrong[case.name] = faults
    assert wrong == {}


@pytest.mark.matrix
def test_every_case_that_passes_echoes_and_closes(echo):
    assert {case.name: heard for case in PASSED if (heard := echo(case)) != ECHOED} == {}


def test_both_cookies_of_a_denial_arrive_or_the_first_with_one_warning(server, ask):
    cookies = [ask("/ws/two-cookies/").all("set-cookie") for _ in range(2)]
    if server.can("second-set-cookie"):
        assert cookies == [["one=1; Path=/", "two=2; Path=/"]] * 2
    elif server.name == "granian":
        assert cookies == [["one=1; Path=/"]] * 2
        assert server.log.count("granian cannot send a second Set-Cookie") == 1
