"""Every case of the table on every server, as it is on the wire."""

import pytest

from tests.support.cases import DENIED


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


def test_both_cookies_of_a_denial_arrive_or_the_first_with_one_warning(server, ask):
    cookies = [ask("/ws/two-cookies/").all("set-cookie") for _ in range(2)]
    if server.can("second-set-cookie"):
        assert cookies == [["one=1; Path=/", "two=2; Path=/"]] * 2
    elif server.name == "granian":
        assert cookies == [["one=1; Path=/"]] * 2
        assert server.log.count("granian cannot send a second Set-Cookie") == 1
