from functools import cache

import pytest

from tests.support.chromium import CHROMIUM, running
from tests.support.processes import Process, answers_of, start

COMMANDS = {
    "uvicorn": ["-m", "uvicorn", "--port", "{port}", "tests.browser.site:application"],
    "daphne": ["-m", "channels_wsdeny.daphne", "-p", "{port}", "tests.browser.site:application"],
}


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("needs Chromium: `apt-get install chromium`")
    with running(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="session")
def serve(tmp_path_factory):
    """A function that starts a server by its name; origins that it trusts, and its port, may be given."""
    started = []
    directory = tmp_path_factory.mktemp("servers")
    environment = {"DJANGO_SETTINGS_MODULE": "tests.browser.settings", "BROWSER_ORIGINS": ""}
    environment["BROWSER_DATABASE"] = str(directory / "site.sqlite3")
    answers_of("tests.servers.prepare", **environment)

    def serve(name, origins="", port=None):
        log = directory / f"{len(started)}.log"
        own = environment | {"BROWSER_ORIGINS": origins}
        started.append(start(COMMANDS[name], log, own, Process, port=port))
        return started[-1]

    yield serve
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def servers(serve):
    """A function from a server's name to the server, which is started when it is first needed."""
    return cache(serve)


@pytest.fixture(params=COMMANDS)
def server(request, browser, servers):
    return servers(request.param)


@pytest.fixture
def page(browser, server):
    with browser.page(f"http://127.0.0.1:{server.port}/") as page:
        yield page
