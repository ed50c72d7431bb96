"""Clients that leave in the middle: nothing of theirs is left, and the server goes on."""

import pytest


def ask(server, path):
    with server.connect() as connection:
        connection.request(path)
        return connection.answer()


@pytest.fixture(params=[False, True], ids=["close", "reset"])
def reset(request):
    return request.param


@pytest.mark.parametrize("then", ["allow", "deny"])
def test_a_client_may_leave_while_its_policy_runs(server, reset, token, then):
    with server.connect() as connection:
        connection.request(f"/hold/{token}/{then}/")
        server.wait_for(f"holding {token}")
        connection.leave(reset=reset)
    ask(server, f"/release/{token}/")
    server.wait_for(f"released {token}")
    server.wait_until_gone(token)


def test_a_client_may_leave_with_its_denial_half_read(server, reset, token):
    with server.connect() as connection:
        connection.request(f"/body/1048576/?{token}")
        assert connection.socket.recv(100)
        connection.leave(reset=reset)
    server.wait_until_gone(token)


def test_a_client_may_leave_with_its_handshake_half_sent(server, reset):
    with server.connect() as connection:
        connection.socket.sendall(b"GET /ws/allow-any/ HTTP/1.1\r\nHost: loc")
        connection.leave(reset=reset)
    assert ask(server, "/ws/anonymous/").status == (401 if server.can("denial") else 403)


def test_a_client_may_leave_an_open_socket(server, reset, token, opened):
    connection, _ = opened(f"/ws/allow-any/?{token}")
    connection.leave(reset=reset)
    server.wait_until_gone(token)


def test_nothing_runs_for_a_denied_client(server, token):
    for path in ("/ws/anonymous/", "/closes/", "/raises/", "/accepts-without-asking/", "/nowhere/"):
        ask(server, f"{path}?{token}")
    server.wait_until_gone(token)
