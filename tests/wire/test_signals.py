"""Receivers of the signals on every server: they hear of each handshake, and hold no client up."""

from __future__ import annotations

import pytest

from .servers import SERVERS

pytest.importorskip("opentelemetry.sdk", reason="the SDK of OpenTelemetry is not installed (extra: test)")


@pytest.fixture(params=SERVERS)
def server(request, fleet):
    """Each server in turn, with listeners."""
    return fleet.get(request.param, HOOKS=["tests.wire.listening.hooks"])


def test_receivers_hear_of_an_accept(server, token):
    with server.connect() as connection:
        connection.request(f"/session/{token}/accept/")
        assert connection.answer().status == connection.accepted
        server.wait_for(f"handshake_accepted /session/{token}/accept/: 101")
        connection.close()


def test_receivers_hear_of_a_denial(server, token):
    with server.connect() as connection:
        connection.request(f"/session/{token}/close/")
        connection.answer()
    server.wait_for(f"handshake_denied /session/{token}/close/: 403")


def test_a_receiver_that_hangs_holds_no_client_up(server, token):
    log = server.log_from_here()
    with server.connect() as connection:
        connection.request(f"/session/hang{token}/close/")
        connection.answer()
        connection.end()
    assert f"hung at /session/hang{token}/close/" not in log()
    server.wait_for(f"hung at /session/hang{token}/close/", log)


def test_a_handshake_has_a_span(server, token):
    with server.connect() as connection:
        connection.request(f"/session/{token}/close/")
        connection.answer()
    server.wait_for(f"span of /session/{token}/close/: 403")
