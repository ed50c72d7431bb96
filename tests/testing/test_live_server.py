"""The live server: how it starts and stops, what it says when it cannot, and whose origins it accepts.

`test_testcases` runs a site's tests on it.
"""

import contextlib
import socket

import pytest
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from channels_wsdeny.testing.live_server import live_server
from tests.support.scripted import Script, accept, body, echo, start

pytestmark = pytest.mark.servers


@pytest.fixture(autouse=True)
def _database_in_a_file(monkeypatch, tmp_path):
    """Live servers refuse a database in memory; the applications of these tests use none."""
    if connection.vendor == "sqlite":
        monkeypatch.setitem(connection.settings_dict, "NAME", str(tmp_path / "test.sqlite3"))


async def fail(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})


def test_a_server_accepts_denies_and_stops(settings):
    settings.ASGI_APPLICATION = "tests.support.scripted.echo"
    settings.ALLOWED_HOSTS = []
    with live_server() as server, live_server(Script(start(403, (b"x-a", b"1")), body(b"no"))) as denying:
        assert settings.ALLOWED_HOSTS[0] == "127.0.0.1"
        assert server.ws_url == server.url.replace("http", "ws") == f"ws://127.0.0.1:{server.port}"
        with connect(f"{server.ws_url}/ws/") as client:
            client.send("hello")
            assert client.recv(timeout=30) == "hello"
        with pytest.raises(InvalidStatus) as denied:
            connect(f"{denying.ws_url}/ws/")
        response = denied.value.response
        assert (response.status_code, response.headers["x-a"], response.body) == (403, "1", b"no")
    assert settings.ALLOWED_HOSTS == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=5)


def test_a_server_stops_while_sockets_are_open():
    application = Script(accept())
    with contextlib.ExitStack() as sockets, live_server(application) as server:
        sockets.enter_context(connect(f"{server.ws_url}/ws/"))
    assert [message["type"] for message in application.received] == ["websocket.disconnect"]


def test_an_application_that_fails_to_start_is_an_error():
    with pytest.raises(RuntimeError, match="did not start: its log says why"), live_server(fail):
        pass


def test_a_database_in_memory_is_an_error_that_names_the_setting(monkeypatch):
    if connection.vendor != "sqlite":
        pytest.skip("only SQLite has databases in memory")
    monkeypatch.setitem(connection.settings_dict, "NAME", ":memory:")
    with (
        pytest.raises(ImproperlyConfigured, match=r"DATABASES\['default'\]\['TEST'\] = \{'NAME': BASE_DIR"),
        live_server(echo),
    ):
        pass


def is_open_to(origin, server):
    try:
        with connect(f"{server.ws_url}/", origin=origin):
            return True
    except InvalidStatus as error:
        return error.response.status_code != 403


def test_its_own_origin_is_accepted_while_it_runs(settings):
    settings.ALLOWED_HOSTS = ["example.com"]
    application = AllowedHostsOriginValidator(echo)
    with live_server(application) as server:
        assert is_open_to(server.url, server)
        assert is_open_to("http://example.com", server)
        assert not is_open_to("http://evil.example", server)
        assert not is_open_to(None, server)
    with live_server(application, host="localhost") as server:
        assert not is_open_to(f"http://127.0.0.1:{server.port}", server)
