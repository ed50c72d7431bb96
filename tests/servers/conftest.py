from pathlib import Path

import pytest

from tests.support.processes import answers_of

from .table import SERVERS, Fleet

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """All tests here start servers; those of the logs come last, when everything else is done."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker("servers")
    items.sort(key=lambda item: item.path == HERE / "test_logs.py")


@pytest.fixture(scope="session")
def site_environment(tmp_path_factory):
    """The servers' environment: their settings and their database."""
    return {
        "DJANGO_SETTINGS_MODULE": "tests.servers.settings",
        "SERVERS_DATABASE": str(tmp_path_factory.mktemp("database") / "servers.sqlite3"),
    }


@pytest.fixture(scope="session")
def session_keys(site_environment):
    """A session key of each user, by name; the database is made by the way."""
    return answers_of("tests.servers.prepare", **site_environment)


@pytest.fixture(scope="session")
def fleet(tmp_path_factory, site_environment, session_keys):
    fleet = Fleet(tmp_path_factory.mktemp("servers"), site_environment)
    yield fleet
    for server in fleet.running.values():
        server.stop()


@pytest.fixture(params=SERVERS)
def server(request, fleet):
    """Each server in turn, started when it is first needed."""
    return fleet.get(request.param)


@pytest.fixture
def ask(server):
    """A function from a path (and headers) to the answer of a denied handshake, and the end after it."""

    def ask(path, headers=None):
        with server.connect() as connection:
            connection.request(path, headers)
            answer = connection.answer()
            assert answer.status != connection.accepted
            connection.end()
        return answer

    return ask


@pytest.fixture
def opened(server):
    """A function from a path (and headers) to an accepted socket, and its answer."""
    connections = []

    def open_socket(path, headers=None):
        connections.append(connection := server.connect())
        connection.request(path, headers)
        answer = connection.answer()
        assert answer.status == connection.accepted, answer
        return connection, answer

    yield open_socket
    for connection in connections:
        connection.socket.close()


@pytest.fixture
def cookie_of(session_keys):
    """A function from a user's name (or None) to the headers of a logged-in client."""

    def headers(name):
        return {} if name is None else {"Cookie": f"sessionid={session_keys[name]}"}

    return headers
