"""Applications that do not answer: the client gets an answer all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .client import Reply, ask, body, connect, read, request, start, unique

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from .servers import Server

ACCEPT = {"type": "websocket.accept"}


@pytest.fixture(scope="module")
def unpolled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that notices an application's end at once or never."""
    from .servers import daphne

    with daphne(
        tmp_path_factory.mktemp("unpolled"), "tests.daphne.apps:scripted", module="tests.daphne.unpolled"
    ) as server:
        yield server


def is_bare_500(reply: Reply) -> bool:
    framing = reply.all("content-length"), reply.all("connection"), reply.body
    return reply.status_line == "HTTP/1.1 500 Internal Server Error" and framing == (["0"], ["close"], b"")


@pytest.mark.parametrize(
    "steps",
    [
        ["crash"],
        ["hear", "crash"],
        [],
        ["hear"],
        [start(401), "crash"],
        [start(401)],
        [start(401), body(b"secret", more=True)],
        [{"type": "websocket.send", "text": "too early"}],
        [{"type": "websocket.unknown"}],
    ],
    ids=repr,
)
def test_the_end_without_an_answer_is_a_500_that_waits_for_no_poll(
    unpolled: Server, steps: list[object]
) -> None:
    assert is_bare_500(ask(unpolled, steps))


@pytest.mark.parametrize(
    "steps",
    [
        [("dare", {**ACCEPT, "subprotocol": "other"}), "hang"],
        [("dare", start(101)), "hang"],
        [start(401), ("dare", body("text")), "hang"],
    ],
    ids=repr,
)
def test_a_bad_answer_is_a_500_even_if_the_application_goes_on(server: Server, steps: list[object]) -> None:
    assert is_bare_500(ask(server, steps))


def test_an_application_that_is_cancelled_is_a_503_that_waits_for_no_poll(unpolled: Server) -> None:
    assert ask(unpolled, ["give_up"]).status == 503


def test_an_exception_is_logged_once_with_its_traceback(server: Server) -> None:
    path = unique()
    assert ask(server, ["crash"], path=path).status == 500
    server.wait_for(f"RuntimeError: {path} crashed")
    # The next poll has passed when the next exception is logged.
    other = unique()
    ask(server, ["crash"], path=other)
    server.wait_for(f"RuntimeError: {other} crashed")
    assert server.log.read_text().count(f"Exception inside application: {path} crashed") == 1


def test_a_return_without_an_answer_is_logged(server: Server) -> None:
    path = unique()
    assert ask(server, [], path=path).status == 500
    assert path in server.wait_for("returned without answering the handshake of <WebSocketProtocol client=")


@pytest.mark.parametrize(
    "steps", [["hang"], [start(401), "hang"], [start(401), body(more=True), "hang"]], ids=repr
)
def test_an_application_that_takes_too_long_is_a_503(hasty: Server, steps: list[object]) -> None:
    reply = ask(hasty, steps)
    assert reply.status_line == "HTTP/1.1 503 Service Unavailable"
    assert (reply.all("content-length"), reply.all("connection")) == (["0"], ["close"])


def test_an_application_that_takes_too_long_is_told_and_logged(hasty: Server) -> None:
    path = unique()
    ask(hasty, ["hear", "hear"], path=path)
    hasty.wait_for(f"{path} heard {{'type': 'websocket.disconnect', 'code': 1006}}")
    assert "did not answer the handshake" in hasty.wait_for(f"path=b'{path}'")


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from .servers import daphne

    options = ["--websocket_connect_timeout", "1"]
    with daphne(tmp_path_factory.mktemp("hasty"), "tests.daphne.hasty:application", *options) as server:
        yield server


def test_the_timeouts_are_lifted_above_the_policies(
    serve: Callable[..., AbstractContextManager[Server]],
) -> None:
    """Unconfigured, a policy may take 4 seconds; stock Daphne would reset within 2."""
    with serve("tests.daphne.apps:scripted", "--websocket_connect_timeout", "1") as server:
        assert ask(server, [("sleep", 3), start(401), body()]).status == 401


def test_a_timeout_of_minus_one_is_none(serve: Callable[..., AbstractContextManager[Server]]) -> None:
    """Stock Daphne would deny at its next look, within 2 seconds."""
    with serve("tests.daphne.hasty:application", "--websocket_connect_timeout", "-1") as server:
        assert ask(server, [("sleep", 3), start(401), body()]).status == 401


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"type": "websocket.unknown"}, "ValueError: A WebSocket application sent 'websocket.unknown'"),
        (
            {"type": "http.response.start", "status": 200},
            "ValueError: A WebSocket application sent 'http.",
        ),
        ({"text": "hi"}, "ValueError: An application sent a message without 'type', with ['text']"),
        ({}, "ValueError: An application sent a message without 'type'"),
    ],
    ids=repr,
)
def test_a_message_that_the_server_does_not_know_is_an_error(
    server: Server, message: dict[str, object], error: str
) -> None:
    path = unique()
    assert ask(server, [("dare", message), start(401), body()], path=path).status == 401
    assert f"got {error}" in server.wait_for(f"{path} got")


def test_an_unknown_message_is_an_error_after_the_accept_too(server: Server) -> None:
    path = unique()
    with connect(server) as connection:
        connection.sendall(request(path, [ACCEPT, {"type": "websocket.unknown"}]))
        server.wait_for(f"{path} got ValueError: A WebSocket application sent 'websocket.unknown'")


@pytest.mark.parametrize("header", ["Origin: http://[bad", "Origin: ftp", "Sec-WebSocket-Key: second"])
def test_a_request_that_the_server_refuses_gets_a_well_formed_answer(server: Server, header: str) -> None:
    reply = ask(server, ["crash"], header)
    assert reply.status == 400
    assert (reply.all("content-length"), reply.all("connection")) == (["0"], ["close"])


def test_an_error_of_the_servers_own_stays_out_of_the_answer(server: Server) -> None:
    """Daphne fails to decode what is offered."""
    with connect(server) as connection:
        connection.sendall(
            request(unique()).replace(b"Upgrade: web", b"Sec-WebSocket-Protocol: \xff\r\nUpgrade: web")
        )
        assert is_bare_500(read(connection))


def test_a_handshake_that_is_no_get_is_a_405(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(request(unique(), ["crash"], method="HEAD"))
        reply = read(connection)
    assert (reply.status, reply.all("allow")) == (405, ["GET"])


def test_a_version_that_the_server_does_not_speak_is_told_which_it_does(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(request(unique(), ["crash"]).replace(b"Version: 13", b"Version: 99"))
        reply = read(connection)
    assert reply.status == 400
    assert "13" in reply.all("sec-websocket-version")[0]
