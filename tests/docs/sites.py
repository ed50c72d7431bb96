"""Sites that pages show: their files in a folder, processes that run them, and the answers that are shown."""

import http.client
import os
import shlex

from tests.support.processes import ROOT, run, serving

DAPHNE = "-m channels_wsdeny.daphne -b 127.0.0.1 -p 8000"


class Site:
    """A site in a folder; `environment` is that of its processes."""

    def __init__(self, directory, settings, **environment):
        self.directory = directory
        path = os.pathsep.join([str(directory), str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.environment = {"DJANGO_SETTINGS_MODULE": settings, "PYTHONPATH": path, **environment}

    def write(self, files):
        for name, text in files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def run(self, *arguments):
        """Run Python with these arguments; returns how that ended."""
        return run(arguments, self.directory, **self.environment)

    def serving(self, command):
        """A server by this command of Python, on another port than 8000, for as long as a context lasts."""
        words = shlex.split(command.replace("8000", "{port}"))
        return serving(words, self.directory, self.environment, self.directory)


def ask(server, path, headers, body=None):
    """The response, read to its end unless it is an accepted handshake."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("POST" if body else "GET", path, body, headers)
        response = connection.getresponse()
        response.content = b"" if response.status == 101 else response.read()
        return response
    finally:
        connection.close()


def handshake_of(command):
    """The path and headers of a line for curl."""
    arguments = shlex.split(command.removeprefix("$ "))
    assert arguments[:2] == ["curl", "-i"]
    headers = dict(header.replace(":8000", "").split(": ", 1) for header in arguments[3:-1:2])
    return arguments[-1].removeprefix("http://127.0.0.1:8000"), {"Host": "127.0.0.1", **headers}


def assert_shown(shown, response):
    """A response is the one that a page shows."""
    head, body = shown.split("\n\n")
    status_line, *lines = head.splitlines()
    assert f"HTTP/1.1 {response.status} {response.reason}" == status_line
    for line in lines:
        name, value = line.split(": ", 1)
        assert response.headers.get_all(name) == [value]
    assert response.content.decode() == body.strip()
