from __future__ import annotations

import pytest

from channels_wsdeny.headers import check_headers


def checked(headers):
    return check_headers({"type": "websocket.accept", "headers": headers})


def test_headers_are_a_list_of_pairs_in_the_spelling_of_the_application():
    assert checked([[b"X-A", b"1"], (b"x-a", b"\xff\t2")]) == [(b"X-A", b"1"), (b"x-a", b"\xff\t2")]
    assert checked(iter([(b"x-a", b"")])) == [(b"x-a", b"")]


def test_headers_may_be_missing():
    assert check_headers({"type": "websocket.accept"}) == checked(None) == checked([]) == []


@pytest.mark.parametrize(
    "header",
    [
        (b"x-a", b"hidden\r\nset-cookie: evil=1"),
        (b"x-a", b"hidden\nset-cookie: evil=1"),
        (b"x-a", b"hidden\rset-cookie: evil=1"),
        (b"x-a", b"hidden\0"),
        (b"x-a: 1\r\nset-cookie", b"evil=1"),
        (b"x-a\n", b"1"),
        (b"x-a\0", b"1"),
        (b"x a", b"1"),
        (b"x-a:", b"1"),
        (b":path", b"1"),
        (b"x-\xe9", b"1"),
        (b"", b"1"),
    ],
)
def test_a_header_that_would_break_its_line_is_an_error_without_its_value(header):
    with pytest.raises(ValueError, match=r"websocket\.accept has the header .* cannot be sent") as caught:
        checked([header])
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [
        *([("x-a", b"1")], [(b"x-a", "hidden")], [(b"x-a", 1)], [(None, b"1")]),
        *([b"x-a"], [(b"x-a",)], [(b"a", b"hidden", b"c")], 5, {b"x-a": b"1"}),
    ],
)
def test_headers_that_are_no_pairs_of_bytes_are_an_error_without_their_values(headers):
    with pytest.raises(TypeError, match=r"websocket\.accept has .* bytes") as caught:
        checked(headers)
    assert "hidden" not in str(caught.value)
