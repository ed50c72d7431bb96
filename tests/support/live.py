"""A site in two server processes, and clients of it."""

import signal
import socket
import subprocess
from contextlib import ExitStack, contextmanager
from urllib.parse import urlencode
from urllib.request import Request, urlopen
from uuid import uuid4

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from .caches import REDIS
from .clients import GUARD
from .processes import Process, run, start
from .threads import wait_until

_SITE = "tests.live.asgi:application"
UVICORN = f"-m uvicorn {_SITE} --port {{port}} --host 127.0.0.1".split()
DAPHNE = f"-m channels_wsdeny.daphne {_SITE} -p {{port}} -b 127.0.0.1".split()
HYPERCORN = f"-m hypercorn {_SITE} --bind 127.0.0.1:{{port}}".split()
GRANIAN = f"-m granian --interface asgi {_SITE} --port {{port}} --host 127.0.0.1".split()


class Client:
    """A browser: it keeps its session cookie."""

    def __init__(self, site, name=None):
        self.site, self.cookie = site, ""
        if name:
            self.do("login", name=name)

    def do(self, what, server=0, **query):
        """Ask a view of the site for a change."""
        port = self.site.servers[server].port
        url = f"http://127.0.0.1:{port}/do/{what}/?" + "&".join(f"{key}={value}" for key, value in query.items())
        with urlopen(Request(url, headers={"Cookie": self.cookie}), timeout=GUARD) as answer:
            for line in answer.headers.get_all("Set-Cookie") or ():
                if line.startswith("sessionid="):
                    self.cookie = line.partition(";")[0]

    def admin(self, page, server=0, **form):
        """A page of the admin, as text without where its lines may break; what `form` is posted to it."""
        url = f"http://127.0.0.1:{self.site.servers[server].port}/admin/{page}/"
        token = "token" * 6 + "to"
        data = urlencode({**form, "csrfmiddlewaretoken": token}, doseq=True).encode() if form else None
        headers = {"Cookie": f"{self.cookie}; csrftoken={token}"}
        with urlopen(Request(url, data, headers), timeout=GUARD) as answer:
            return answer.read().decode().replace("<wbr>", "")

    def open(self, name, server=0):
        """An open socket."""
        port = self.site.servers[server].port
        headers = {"Cookie": self.cookie} if self.cookie else {}
        url = f"ws://127.0.0.1:{port}/ws/{name}/"
        opening = connect(url, additional_headers=headers, open_timeout=GUARD, close_timeout=0.1, proxy=None)
        return self.site.opened.enter_context(opening)


def close_of(socket, timeout=GUARD):
    """The code and reason of the close that a socket gets."""
    closed = None
    while closed is None:
        try:
            socket.recv(timeout=timeout)
        except ConnectionClosed as error:
            closed = error
    assert closed.rcvd is not None, "The socket ended without a close."
    return closed.rcvd.code, closed.rcvd.reason


def is_open(socket):
    """Whether the consumer still answers."""
    socket.send("still here")
    return socket.recv(timeout=GUARD) == "still here"


class Site:
    """Two servers, and what they share."""

    def __init__(self, environment):
        self.environment = environment
        self.servers, self.opened = [], ExitStack()

    @classmethod
    @contextmanager
    def running(cls, directory, *, layer="core.RedisChannelLayer", redis=REDIS, servers=(UVICORN, DAPHNE), **environ):
        site = cls(
            {
                "DJANGO_SETTINGS_MODULE": "tests.live.settings",
                "LIVE_DATABASE": str(directory / "live.sqlite3"),
                "LIVE_FILES": str(directory),
                "LIVE_REDIS": redis,
                "LIVE_LAYER": layer,
                "LIVE_PREFIX": uuid4().hex,
                **{f"LIVE_{name.upper()}": str(value) for name, value in environ.items()},
            }
        )
        site.manage("migrate", "-v0")
        try:
            for number, command in enumerate(servers):
                site.servers.append(start(command, directory / f"{number}.log", site.environment, Process))
            site.reset()
            yield site
        finally:
            site.opened.close()
            for server in site.servers:
                server.stop()

    def manage(self, *arguments, check=True):
        """Run a management command; returns what it printed."""
        ran = run(["-m", "django", *arguments], **self.environment)
        assert not check or ran.returncode == 0, ran.stderr
        return ran.stdout

    def reset(self):
        """Make the users anew."""
        Client(self).do("reset")


class Redis:
    """A Redis of a test's own, which it may stop, pause and start again; what it has may outlive that."""

    def __init__(self, directory, *, is_lasting=False):
        self._directory, self._popen = directory, None
        self._options = ["--appendonly", "yes", "--appendfsync", "always"] if is_lasting else ["--appendonly", "no"]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *self._options]
        self._popen = subprocess.Popen(command, cwd=self._directory, stdout=subprocess.DEVNULL)
        wait_until(self._answers, lambda: "Redis did not start.")

    def _answers(self):
        """Whether it has loaded what it keeps: before, it accepts connections and refuses commands."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), GUARD) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except ConnectionRefusedError:
            return False

    def stop(self):
        self._popen.kill()
        self._popen.wait(GUARD)

    def pause(self):
        self._popen.send_signal(signal.SIGSTOP)

    def go_on(self):
        self._popen.send_signal(signal.SIGCONT)
