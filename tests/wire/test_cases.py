"""Every case of the table, on every server, as it is on the wire."""

from __future__ import annotations

import json

import pytest

from tests.cases import BY_NAME, CASES

from .raw import BINARY, TEXT
from .servers import able, unable

DENIED = [case for case in CASES if case.status]
PASSED = [case for case in CASES if not case.status]
denied = pytest.mark.parametrize("case", DENIED, ids=[case.name for case in DENIED])
passed = pytest.mark.parametrize("case", PASSED, ids=[case.name for case in PASSED])


@pytest.fixture
def ask(server, cookie_of):
    """A function from a case to the server's answer; the connection has ended in order after it."""

    def ask(case):
        with server.connect() as connection:
            connection.request(f"/ws/{case.name}/", cookie_of(case.user))
            answer = connection.answer()
            connection.end()
        return answer

    return ask


@denied
@pytest.mark.parametrize("server", able("denial"), indirect=True)
def test_a_denial_arrives_with_status_headers_and_body(ask, case):
    answer = ask(case)
    assert answer.status == case.status
    assert {name: answer.header(name) for name in case.headers} == case.headers
    assert answer.header("cache-control") == "no-store"
    if case.body is None:
        assert answer.problem["status"] == case.status
        assert answer.problem["code"] == case.code
    else:
        assert answer.body == case.body
    assert b"secret" not in answer.body


@denied
@pytest.mark.parametrize("server", able("denial"), indirect=True)
def test_a_denial_says_its_length_and_its_vary_in_one_line_each(ask, case):
    answer = ask(case)
    assert answer.header("content-length") == str(len(answer.body))
    assert answer.header("transfer-encoding") is None
    assert answer.header("vary") in {"Accept, Cookie", "Accept, Accept-Language, Cookie"}


@denied
@pytest.mark.parametrize("server", unable("denial"), indirect=True)
def test_a_server_without_denials_answers_a_bare_403(ask, case):
    answer = ask(case)
    assert (answer.status, answer.body) == (403, b"")


@pytest.mark.parametrize("server", able("second-set-cookie"), indirect=True)
def test_both_cookies_of_a_denial_arrive(ask):
    cookies = [value for name, value in ask(BY_NAME["two-cookies"]).headers if name == "set-cookie"]
    assert cookies == ["one=1; Path=/", "two=2; Path=/"]


@pytest.mark.parametrize("server", ["granian"], indirect=True)
def test_a_server_that_cannot_repeat_a_header_sends_the_first_cookie_and_survives(ask, server):
    assert ask(BY_NAME["two-cookies"]).header("set-cookie") == "one=1; Path=/"
    assert ask(BY_NAME["two-cookies"]).header("set-cookie") == "one=1; Path=/"
    assert server.log.count("granian cannot send a second Set-Cookie") == 1


@passed
def test_an_accepted_socket_echoes_and_closes(server, case, cookie_of):
    with server.connect() as connection:
        connection.request(f"/ws/{case.name}/", cookie_of(case.user))
        assert connection.answer().status == connection.accepted
        connection.say(TEXT, "\u00e9t\u00e9".encode())
        assert connection.hear() == (TEXT, "\u00e9t\u00e9".encode())
        connection.say(BINARY, bytes(range(256)))
        assert connection.hear() == (BINARY, bytes(range(256)))
        connection.close()


def test_a_problem_is_json_of_its_five_members(server, ask):
    answer = ask(BY_NAME["anonymous"])
    if server.can("denial"):
        assert json.loads(answer.body) == {
            "type": "about:blank",
            "title": "Unauthorized",
            "status": 401,
            "detail": "You need to log in first.",
            "code": "not_authenticated",
        }
