"""The scope of a handshake: the extension and the scheme."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .client import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .servers import Server


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from .servers import daphne

    directory = tmp_path_factory.mktemp("proxied")
    with daphne(directory, "tests.daphne.apps:scripted", "--proxy-headers") as server:
        yield server


def test_the_extension_is_offered(server: Server) -> None:
    assert ask(server, [("show", "extensions")]).body == b"{'websocket.http.response': {}}"


def test_the_scheme_is_ws(server: Server) -> None:
    assert ask(server, [("show", "scheme")]).body == b"'ws'"


def test_the_scheme_of_a_stranger_is_not_believed(server: Server) -> None:
    headers = ["X-Forwarded-For: 10.0.0.1", "X-Forwarded-Proto: https"]
    assert ask(server, [("show", "scheme")], *headers).body == b"'ws'"


@pytest.mark.parametrize(
    ("forwarded", "scheme"),
    [
        ("https", "wss"),
        ("wss", "wss"),
        ("HTTPS", "wss"),
        ("https, http", "wss"),
        ("http", "ws"),
        ("ws", "ws"),
    ],
)
def test_the_scheme_is_what_a_trusted_proxy_says(proxied: Server, forwarded: str, scheme: str) -> None:
    headers = ["X-Forwarded-For: 10.0.0.1", f"X-Forwarded-Proto: {forwarded}"]
    assert ask(proxied, [("show", "scheme")], *headers).body == repr(scheme).encode()


def test_the_scheme_is_the_transports_when_the_proxy_says_nothing(proxied: Server) -> None:
    assert ask(proxied, [("show", "scheme")]).body == b"'ws'"


def test_the_rest_of_the_scope_is_daphnes(proxied: Server) -> None:
    assert ask(proxied, [("show", "client")], "X-Forwarded-For: 10.0.0.1").body == b"['10.0.0.1', 0]"
