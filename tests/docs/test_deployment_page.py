"""What docs/deployment.md shows works: its proxies in front of its servers, its settings, and its units."""

import re
import shutil
import socket
import ssl
import subprocess
import sys
from contextlib import contextmanager, suppress
from uuid import uuid4

import pytest

from channels_wsdeny.management.commands.wsdeny import Command
from tests.docs.pages import DOCS, blocks, titled
from tests.docs.sites import Site
from tests.support.certificates import make_certificate
from tests.support.clients import GUARD
from tests.support.connections import PLAIN, TEXT, Connection, EndedError, Http2Connection
from tests.support.processes import answers_of
from tests.support.threads import wait_until

TEXT_OF_PAGE = (DOCS / "deployment.md").read_text()
PAGE = titled("deployment.md")
pytestmark = pytest.mark.servers

#: What the page leaves to the site: its sockets, and where its database and its certificate are.
SITE = {
    "mysite/settings.py": f"""
import os
from tests.servers.settings import *
{PAGE["mysite/settings.py"]}
CHANNEL_LAYERS["default"]["CONFIG"]["prefix"] = os.environ["PREFIX"]
DEBUG = False
ROOT_URLCONF, ASGI_APPLICATION = "mysite.urls", "mysite.asgi.application"
""",
    "mysite/urls.py": PAGE["mysite/urls.py"],
    "mysite/asgi.py": """
from django.core.asgi import get_asgi_application

http = get_asgi_application()

from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.decorators import login_required, require
from channels_wsdeny.policies import IsStaff, Policy


class Whoami(Policy):
    async def acheck(self, request):
        return Deny(418, f"{request.META['REMOTE_ADDR']} {request.scheme}")


class Busy(Policy):
    async def acheck(self, request):
        return Deny(request.resolver_match.kwargs["status"], headers={"Retry-After": "7"})


class Echo(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept(headers=[(b"x-own", b"yes"), (b"set-cookie", b"seen=1")])

    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data)


def guarded(policy):
    return require(policy)(type("Echo", (Echo,), {})).as_asgi()


sockets = [
    path("ws/whoami/", guarded(Whoami())),
    path("ws/busy/<int:status>/", guarded(Busy())),
    path("ws/staff/", guarded(IsStaff())),
    path("ws/member/", login_required(type("Member", (Echo,), {})).as_asgi()),
]
application = DenyMiddlewareStack(ProtocolTypeRouter({"http": http, "websocket": URLRouter(sockets)}))
""",
    "mysite/on_hypercorn.py": """
from hypercorn.middleware import ProxyFixMiddleware
from mysite.asgi import application
application = ProxyFixMiddleware(application)
""",
    "mysite/on_granian.py": """
from granian.utils.proxies import wrap_asgi_with_proxy_headers
from mysite.asgi import application
application = wrap_asgi_with_proxy_headers(application)
""",
}
UVICORN, DAPHNE = blocks("deployment.md", "sh")[0].splitlines()
COMMANDS = {
    "uvicorn": f"-m {UVICORN}",
    "uvicorn --ws websockets-sansio": f"-m {UVICORN} --ws websockets-sansio",
    "daphne": DAPHNE.removeprefix("python "),
    "hypercorn": "-m hypercorn --bind 127.0.0.1:8000 mysite.on_hypercorn:application",
    "granian": "-m granian --interface asgi --port 8000 mysite.on_granian:application",
}


@pytest.fixture(scope="module")
def mysite(tmp_path_factory):
    """The site of the page."""
    directory = tmp_path_factory.mktemp("srv")
    database = str(directory / "mysite.sqlite3")
    mysite = Site(directory, "mysite.settings", SERVERS_DATABASE=database, PREFIX=uuid4().hex)
    mysite.write(SITE)
    return mysite


@pytest.fixture(scope="module")
def cookies(mysite):
    """A function from a user's name to the headers of a logged-in client, on a page of the site."""
    keys = answers_of("tests.servers.prepare", **mysite.environment)
    return lambda name: {"Cookie": f"sessionid={keys[name]}", "Origin": "https://example.com"}


@pytest.fixture(scope="module", params=COMMANDS)
def server(request, mysite, cookies):
    with mysite.serving(COMMANDS[request.param]) as server:
        yield server


# Proxies.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The files of a certificate for example.com, and of its key."""
    return make_certificate(tmp_path_factory.mktemp("ssl"), "example.com")


def nginx(directory, port, server, certificate, block=PAGE["nginx"]):
    """The command of an nginx with the block of the page."""
    for there, here in [
        ("127.0.0.1:8000", f"127.0.0.1:{server.port}"),
        ("listen 443", f"listen 127.0.0.1:{port}"),
        ("/etc/ssl/example.com.crt", str(certificate[0])),
        ("/etc/ssl/example.com.key", str(certificate[1])),
    ]:
        assert there in block, there
        block = block.replace(there, here)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {directory}/{kind};\n" for kind in kinds)
    whole = f"daemon off;\npid {directory}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}{block}}}\n"
    (directory / "nginx.conf").write_text(whole)
    return ["nginx", "-e", "stderr", "-c", str(directory / "nginx.conf")]


def haproxy(directory, port, server, certificate):
    """The command of an haproxy with the block of the page."""
    (directory / "both.pem").write_text("".join(file.read_text() for file in certificate))
    block = PAGE["haproxy"]
    for there, here in [
        ("127.0.0.1:8000", f"127.0.0.1:{server.port}"),
        ("bind :443", f"bind 127.0.0.1:{port}"),
        ("/etc/haproxy/example.com.pem", str(directory / "both.pem")),
    ]:
        assert there in block, there
        block = block.replace(there, here)
    (directory / "haproxy.cfg").write_text(block)
    return ["haproxy", "-db", "-f", str(directory / "haproxy.cfg")]


@contextmanager
def proxying(make, directory, server, certificate, **options):
    """The port of a running proxy; skips where it is not installed."""
    if shutil.which(make.__name__) is None:
        pytest.skip(f"needs {make.__name__}: `apt-get install {make.__name__}`")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command, log = make(directory, port, server, certificate, **options), directory / "proxy.log"
    with log.open("wb") as output:
        popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def listens():
        assert popen.poll() is None, log.read_text()
        with socket.socket() as client:
            client.settimeout(GUARD)
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens, log.read_text)
        yield port
    finally:
        popen.terminate()
        popen.wait(GUARD)


class OverTls:
    """A connection over TLS, of a client with an address of its own, to example.com."""

    protocol = "http/1.1"

    def __init__(self, port, certificate):
        context = ssl.create_default_context(cafile=certificate[0])
        context.set_alpn_protocols([self.protocol])
        super().__init__(port, context, "example.com")
        assert self.socket.selected_alpn_protocol() in {self.protocol, None}

    def _connect(self, port):
        return socket.create_connection(("127.0.0.1", port), GUARD, source_address=("127.0.0.2", 0))


class Client(OverTls, Connection):
    """Over HTTP/1.1."""


class Http2Client(OverTls, Http2Connection):
    """Over HTTP/2."""

    protocol = "h2"


DENIED = [
    # path, user, headers, and what comes back: status, code
    ("/ws/member/", None, {}, (401, "not_authenticated")),
    ("/ws/staff/", "alice", {}, (403, "permission_denied")),
    ("/ws/member/", "alice", {"Origin": "https://evil.example"}, (403, "origin_not_allowed")),
    ("/ws/nothing/", None, {}, (404, "not_found")),
    ("/ws/busy/429/", None, {}, (429, "throttled")),
    ("/ws/busy/503/", None, {}, (503, "unavailable")),
    ("/ws/member/", None, PLAIN, (401, "not_authenticated")),
    ("/ws/member/", "alice", PLAIN, (426, "upgrade_required")),
]


def ask(connection, cookies, path, user, headers, expected):
    connection.request(path, {**(cookies(user) if user else {}), **headers})
    answer = connection.answer()
    assert (answer.status, answer.problem["code"]) == expected, (path, answer)
    assert answer.header("cache-control") == "no-store"
    assert answer.header("www-authenticate") == ("Session" if answer.status == 401 else None)
    assert answer.header("retry-after") == ("7" if answer.status in {429, 503} else None)


def echo(connection, headers, server):
    connection.request("/ws/member/", headers)
    answer = connection.answer()
    assert answer.status == connection.accepted, answer
    if "granian" not in server.popen.args:  # which cannot send them
        assert (answer.header("x-own"), answer.header("set-cookie")) == ("yes", "seen=1")
    connection.say(TEXT, b"hello")
    assert connection.hear() == (TEXT, b"hello")
    connection.close()


@pytest.mark.parametrize("make", [nginx, haproxy], ids=lambda make: make.__name__)
def test_denials_with_their_bodies_and_an_accept_pass_on_one_connection(make, tmp_path, server, certificate, cookies):
    with proxying(make, tmp_path, server, certificate) as port, Client(port, certificate) as connection:
        for case in DENIED * 2:
            ask(connection, cookies, *case)
        connection.request("/ws/whoami/", {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "http"})
        assert connection.answer().problem["detail"] == "127.0.0.2 https"
        connection.request("/healthz", PLAIN)
        assert connection.answer().body == b"ok"
        echo(connection, cookies("alice"), server)


def test_haproxy_takes_handshakes_over_http2(tmp_path, server, certificate, cookies):
    with proxying(haproxy, tmp_path, server, certificate) as port:
        for case in DENIED[:6]:
            with Http2Client(port, certificate) as connection:
                ask(connection, cookies, *case)
        with Http2Client(port, certificate) as connection:
            echo(connection, cookies("alice"), server)


def test_nginx_replaces_the_body_of_a_denial_where_it_is_told_to(tmp_path, mysite, certificate, cookies):
    told = "proxy_intercept_errors on;\nerror_page 403 @own;"
    block = PAGE["nginx"].replace("location / {", "location @own { return 403 own; }\nlocation / {\n" + told)
    with (
        mysite.serving(COMMANDS["uvicorn"]) as server,
        proxying(nginx, tmp_path, server, certificate, block=block) as port,
        Client(port, certificate) as connection,
    ):
        connection.request("/ws/staff/", cookies("alice"))
        answer = connection.answer()
        assert (answer.status, answer.body) == (403, b"own")
        ask(connection, cookies, *DENIED[0])


# Settings, several processes, and draining.


def test_the_settings_leave_nothing_for_the_checks(mysite):
    ran = mysite.run("-m", "django", "check", "--deploy")
    assert (ran.returncode, "channels_wsdeny" in ran.stderr) == (0, False), ran.stderr
    assert "check identified" in ran.stderr


@pytest.mark.parametrize("how", ["the unit", "uvicorn --workers"])
def test_several_processes_drain_when_their_parent_gets_the_signal(mysite, cookies, how):
    command = COMMANDS["uvicorn"] + " --workers 2"
    if how == "the unit":
        pytest.importorskip("uvicorn_worker", reason="needs gunicorn and uvicorn-worker: `pip install uvicorn-worker`")
        (line,) = re.findall(r"^ExecStart=(\S+)/gunicorn ((?:.*\\\n)*.*)", PAGE["mysite.service"], re.MULTILINE)
        command = "-m gunicorn " + line[1].replace("\\\n", " ")
    secure = {"Host": "example.com", "X-Forwarded-Proto": "https"}
    with mysite.serving(command) as server:
        opened = [Connection(server.port) for _ in range(6)]
        for connection in opened:
            connection.request("/ws/member/", {**secure, **cookies("alice")})
            assert connection.answer().status == 101
        server.popen.terminate()
        # Servers that did not drain would end at once, and refuse the connection; those without sockets do.
        status = 101
        while status != 503:
            with Connection(server.port) as late, suppress(EndedError, ConnectionResetError):
                late.request("/ws/member/", {**secure, **cookies("alice")})
                status = late.answer().status
        for connection in opened:
            connection.socket.close()
        assert server.popen.wait(GUARD) == 0


def test_the_manifest_is_yaml_and_its_probes_ask_the_view_of_the_page():
    yaml = pytest.importorskip("yaml", reason="needs PyYAML: `pip install PyYAML`")
    (container,) = yaml.safe_load(PAGE["deployment.yaml"])["spec"]["template"]["spec"]["containers"]
    assert all(isinstance(word, str) for word in container["command"])
    (path,) = re.findall(r'path\("(.+)", healthz\)', PAGE["mysite/urls.py"])
    (port,) = (each["containerPort"] for each in container["ports"])
    expected = {"path": f"/{path}", "port": port, "httpHeaders": [{"name": "Host", "value": "example.com"}]}
    assert [container[probe]["httpGet"] for probe in ("readinessProbe", "livenessProbe")] == [expected] * 2


def test_the_manifest_and_the_command_lines_have_options_that_exist():
    (parser,) = Command().create_parser("manage.py", "wsdeny")._subparsers._group_actions
    drains = re.findall(r"manage\.py wsdeny drain (--\w+) \d+", TEXT_OF_PAGE)
    assert len(drains) == 2
    assert set(drains) <= set(parser.choices["drain"]._option_string_actions)
    (command,) = re.findall(r"^ +command: \[uvicorn, ([^]]*)\]$", PAGE["deployment.yaml"], re.MULTILINE)
    helped = subprocess.run([sys.executable, "-m", "uvicorn", "--help"], capture_output=True, text=True, timeout=GUARD)
    for option in re.findall(r"--[\w-]+", command):
        assert option in helped.stdout
    seconds = int(re.search(r"terminationGracePeriodSeconds: (\d+)", PAGE["deployment.yaml"]).group(1))
    stop, graceful = (
        int(re.search(rf"{name}[= ](\d+)", PAGE["mysite.service"]).group(1))
        for name in ("TimeoutStopSec", "--graceful-timeout")
    )
    drain = int(re.search(r'"DRAIN_SECONDS": (\d+)', PAGE["mysite/settings.py"]).group(1))
    assert drain + 5 < seconds
    assert drain < graceful < stop
