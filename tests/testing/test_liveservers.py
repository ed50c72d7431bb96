"""Live servers: how they start, what they say when they cannot, and that nothing of them stays."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from multiprocessing import active_children

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, connections
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from channels_wsdeny.testing.daphneserver import DaphneServer
from channels_wsdeny.testing.uvicornserver import UvicornServer

from .apps import Script, accept, body, echo, start


async def deny(scope, receive, send):
    await send(start(403, (b"x-a", b"1")))
    await send(body(b"no"))


def refuses(server):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=5)
    return True


def test_a_server_has_a_port_of_its_own():
    with UvicornServer(echo) as one, UvicornServer(echo) as other:
        assert one.port != other.port
        assert (one.url, one.ws_url, str(one)) == (
            f"http://127.0.0.1:{one.port}",
            f"ws://127.0.0.1:{one.port}",
            one.url,
        )


def test_a_server_speaks():
    with UvicornServer(echo) as server, connect(f"{server.ws_url}/ws/") as client:
        client.send("hello")
        assert client.recv(timeout=30) == "hello"


def test_a_server_denies():
    with UvicornServer(deny) as server, pytest.raises(InvalidStatus) as denied:
        connect(f"{server.ws_url}/ws/").__enter__()
    response = denied.value.response
    assert (response.status_code, response.headers["x-a"], response.body) == (403, "1", b"no")


def test_nothing_of_a_server_stays():
    threads = set(threading.enumerate())
    hosts = django_settings.ALLOWED_HOSTS
    with UvicornServer(echo) as server:
        pass
    assert refuses(server)
    assert {thread for thread in set(threading.enumerate()) - threads if "live" in thread.name} == set()
    assert hosts == django_settings.ALLOWED_HOSTS


def test_a_server_stops_while_sockets_are_open():
    application = Script(accept())
    with contextlib.ExitStack() as sockets, UvicornServer(application) as server:
        sockets.enter_context(connect(f"{server.ws_url}/ws/"))
    assert [message["type"] for message in application.received] == ["websocket.disconnect"]


def test_the_host_is_allowed_meanwhile(settings):
    settings.ALLOWED_HOSTS = []
    with UvicornServer(echo):
        assert settings.ALLOWED_HOSTS == ["127.0.0.1"]
    assert settings.ALLOWED_HOSTS == []


def test_an_application_that_cannot_start_is_an_error():
    async def fail(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no"})

    with pytest.raises(RuntimeError, match="uvicorn ended as it started"), UvicornServer(fail):
        pass


def test_what_fails_in_the_block_stops_the_server():
    with pytest.raises(ZeroDivisionError), UvicornServer(echo) as server:
        1 / 0  # noqa: B018
    assert refuses(server)


def test_uvicorn_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ImproperlyConfigured, match=r"Found no uvicorn\."), UvicornServer(echo):
        pass


def test_daphne_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "channels_wsdeny.daphne.testing", None)
    with pytest.raises(ImproperlyConfigured, match="needs it installed"), DaphneServer(echo):
        pass


def test_daphne_cannot_see_a_database_in_memory(db):
    if connection.vendor != "sqlite":
        pytest.skip("the tests' database is in no memory")
    with pytest.raises(ImproperlyConfigured, match="Give it a file"), DaphneServer(echo):
        pass


@pytest.fixture
def nothing_in_memory(monkeypatch):
    """The applications of these tests need no database, so it does no harm that no process shares it."""
    monkeypatch.setattr("channels_wsdeny.testing.daphneserver.in_memory", lambda: ())


def test_daphne_speaks_and_denies(nothing_in_memory):
    with DaphneServer(echo) as server, connect(f"{server.ws_url}/ws/") as client:
        client.send("hello")
        assert client.recv(timeout=30) == "hello"
    assert refuses(server)
    with DaphneServer(deny) as server, pytest.raises(InvalidStatus) as denied:
        connect(f"{server.ws_url}/ws/").__enter__()
    assert (denied.value.response.status_code, denied.value.response.body) == (403, b"no")
    assert active_children() == []


def test_daphne_that_cannot_start_says_why(nothing_in_memory, settings):
    settings.ASGI_APPLICATION = "tests.testing.nowhere.application"
    with (
        pytest.raises(RuntimeError, match=r"(?s)^Daphne did not start:.*Cannot import ASGI_APPLICATION"),
        DaphneServer(),
    ):
        pass
    assert active_children() == []


def test_daphne_runs_with_the_settings_of_the_test(nothing_in_memory, settings):
    settings.ASGI_APPLICATION = "tests.testing.apps.echo"
    with DaphneServer() as server, connect(f"{server.ws_url}/ws/") as client:
        client.send("hello")
        assert client.recv(timeout=30) == "hello"


@pytest.mark.django_db(transaction=True)
def test_the_databases_connection_is_shared_and_given_back():
    connections["default"].ensure_connection()
    with UvicornServer(echo):
        assert connection.allow_thread_sharing is (connection.vendor == "sqlite")
    assert connection.allow_thread_sharing is False
