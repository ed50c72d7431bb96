"""The chat of Channels' tutorial, taken through docs/quickstart.md step by step."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.daphne.client import connect, read
from tests.daphne.servers import serving
from tests.docs.pages import blocks, titled

ROOT = Path(__file__).parents[2]
FILES = titled("quickstart.md")
INSTALL, FIRST, CURL, USERS, TEST = blocks("quickstart.md", "console")

#: The tutorial's site after part 3, but for Redis, and for the scripts of its templates.
TUTORIAL = {
    "manage.py": """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
""",
    "mysite/__init__.py": "",
    "mysite/settings.py": """
from pathlib import Path
BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "the-tutorials-secret-key"
ALLOWED_HOSTS = ["127.0.0.1"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "mysite.urls"
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]},
}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
STATIC_URL = "static/"
ASGI_APPLICATION = "mysite.asgi.application"
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
""",
    "mysite/urls.py": """
from django.contrib import admin
from django.urls import include, path
urlpatterns = [path("chat/", include("chat.urls")), path("admin/", admin.site.urls)]
""",
    "chat/__init__.py": "",
    "chat/urls.py": """
from django.urls import path
from . import views
urlpatterns = [
    path("", views.index, name="index"),
    path("<str:room_name>/", views.room, name="room"),
]
""",
    "chat/routing.py": """
from django.urls import re_path
from . import consumers
websocket_urlpatterns = [
    re_path(r"ws/chat/(?P<room_name>\\w+)/$", consumers.ChatConsumer.as_asgi()),
]
""",
    "chat/templates/chat/index.html": "What chat room would you like to enter?",
    "chat/templates/chat/room.html": '{{ room_name|json_script:"room-name" }}',
}
#: What the page changes of it later, as the tutorial has it. A consumer that nobody decorated.
BEFORE = {
    "chat/consumers.py": FILES["chat/consumers.py"].replace('@require(IsStaff() | InGroup("chat"))\n', ""),
    "chat/views.py": FILES["chat/views.py"]
    .replace("@public\n", "")
    .replace('@require(IsStaff() | InGroup("chat"))\n', ""),
}


class Site:
    def __init__(self, directory):
        self.directory = directory

    def write(self, files):
        for name, text in files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def take(self, *names):
        """The steps of the page that write these files."""
        for name in names:
            given = TUTORIAL[name] if name == "mysite/settings.py" else ""
            self.write({name: given + FILES[name]})

    @property
    def environment(self):
        return {"DJANGO_SETTINGS_MODULE": "mysite.settings", "PYTHONPATH": f"{self.directory}:{ROOT}"}

    def run(self, command):
        python, *arguments = shlex.split(command)
        assert python == "python"
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.directory,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def serving(self):
        arguments = ["channels_wsdeny.daphne", "-e", "tcp:0:interface=127.0.0.1", "mysite.asgi:application"]
        return serving(self.directory, arguments, self.environment)


@pytest.fixture
def site(tmp_path):
    """The tutorial's site, and the first two steps of the page."""
    site = Site(tmp_path)
    site.write({**TUTORIAL, **BEFORE})
    site.take("mysite/settings.py", "mysite/urls.py", "mysite/asgi.py")
    return site


@pytest.fixture
def whole(site):
    """The site that one has at the end of the page."""
    site.take("chat/consumers.py", "chat/views.py", "chat/tests.py")
    return site


def get(server, path, *headers):
    with connect(server) as connection:
        connection.sendall(
            "\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]).encode()
        )
        return read(connection)


def status_of_handshake(server, path, *headers):
    """The first line of the answer: an accepted socket has no end to wait for."""
    with connect(server) as connection, connection.makefile("rb") as answer:
        connection.sendall(
            "\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]).encode()
        )
        return answer.readline().decode().strip()


def post(server, path, body, *headers):
    with connect(server) as connection:
        kind = "Content-Type: application/x-www-form-urlencoded"
        head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", kind, f"Content-Length: {len(body)}", *headers]
        connection.sendall("\r\n".join([*head, "", body]).encode())
        return read(connection)


def handshake_of_the_page():
    """The path and headers of the curl line, and what it shows."""
    command, answer = CURL.split("\n", 1)
    arguments = shlex.split(command.removeprefix("$ "))
    assert arguments[:2] == ["curl", "-i"]
    path = arguments[-1].removeprefix("http://127.0.0.1:8000")
    headers = [header.replace("127.0.0.1:8000", "127.0.0.1") for header in arguments[3:-1:2]]
    return path, headers, answer


def test_every_file_of_the_page_is_taken():
    of_the_site = {"mysite/settings.py", "mysite/urls.py", "mysite/asgi.py"}
    assert set(FILES) == of_the_site | {"chat/consumers.py", "chat/views.py", "chat/tests.py"}


def test_it_installs_with_an_extra_that_exists():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f'$ python -m pip install "{project["name"]}[daphne]"\n' == INSTALL
    assert "daphne" in project["optional-dependencies"]


def test_only_the_decorators_and_their_imports_are_new():
    assert BEFORE["chat/consumers.py"] != FILES["chat/consumers.py"]
    assert BEFORE["chat/views.py"] != FILES["chat/views.py"]


@pytest.mark.parametrize("step", ["site", "whole"])
def test_the_site_passes_the_checks_with_the_words_of_the_page(step, request):
    site = request.getfixturevalue(step)
    _, _, check, said, runserver = FIRST.splitlines()
    result = site.run(check.removeprefix("$ "))
    assert (result.stdout.strip(), result.stderr) == (said, "")
    assert runserver == "$ python manage.py runserver"


def test_a_stranger_gets_the_answer_of_the_page_before_the_consumer_is_touched(site):
    path, headers, answer = handshake_of_the_page()
    with site.serving() as server:
        reply = get(server, path, *headers)
        nowhere = get(server, "/ws/nothing/", *headers)
    head, body = answer.split("\n\n")
    status_line, *shown = head.splitlines()
    assert reply.status_line == status_line
    for header in shown:
        name, value = header.split(": ", 1)
        assert reply.all(name) == [value]
    assert reply.body.decode() == body.strip()
    assert nowhere.status_line == "HTTP/1.1 404 Not Found"


def test_a_browser_is_sent_to_log_in_and_the_index_is_open(whole):
    assert whole.run("python manage.py migrate").returncode == 0
    with whole.serving() as server:
        room = get(server, "/chat/lobby/", "Accept: text/html", "Connection: close")
        index = get(server, "/chat/", "Accept: text/html", "Connection: close")
    assert room.status_line == "HTTP/1.1 302 Found"
    assert room.all("location") == ["/login/?next=/chat/lobby/"]
    assert index.status_line == "HTTP/1.1 200 OK"


@pytest.fixture
def peopled(whole):
    """The whole site, with the users of the page, by their names with their passwords."""
    assert whole.run("python manage.py migrate").returncode == 0
    for command in USERS.splitlines():
        result = whole.run(command.removeprefix("$ "))
        assert result.returncode == 0, result.stderr
    return whole, dict(re.findall(r"create_user\('(\w+)', password='([\w-]+)'\)", USERS))


def log_in(server, url, name, password):
    """Fill in the form at `url`, as a browser would; returns the answer to that."""
    form = get(server, url, "Accept: text/html", "Connection: close")
    assert form.status_line == "HTTP/1.1 200 OK"
    (token,) = (line.partition(";")[0] for line in form.all("set-cookie") if line.startswith("csrftoken="))
    fields = {"username": name, "password": password, "csrfmiddlewaretoken": token.removeprefix("csrftoken=")}
    return post(server, url, urlencode(fields), f"Cookie: {token}", "Accept: text/html", "Connection: close")


def cookies_of(reply):
    return "Cookie: " + "; ".join(line.partition(";")[0] for line in reply.all("set-cookie"))


@pytest.mark.parametrize(
    ("name", "room", "socket"),
    [
        ("bob", "HTTP/1.1 200 OK", "HTTP/1.1 101 Switching Protocols"),
        ("eve", "HTTP/1.1 403 Forbidden", "HTTP/1.1 403 Forbidden"),
    ],
)
def test_a_user_who_is_no_staff_logs_in_where_a_browser_is_sent(name, room, socket, peopled):
    site, passwords = peopled
    path, headers, _ = handshake_of_the_page()
    with site.serving() as server:
        (form,) = get(server, "/chat/lobby/", "Accept: text/html", "Connection: close").all("location")
        logged_in = log_in(server, form, name, passwords[name])
        assert (logged_in.status_line, logged_in.all("location")) == ("HTTP/1.1 302 Found", ["/chat/lobby/"])
        own = cookies_of(logged_in)
        page = get(server, "/chat/lobby/", "Accept: text/html", "Connection: close", own)
        status = status_of_handshake(server, path, *headers, own)
    assert page.status_line == room
    assert status == socket


def test_the_tests_of_the_page_pass(whole):
    result = whole.run(TEST.removeprefix("$ "))
    assert result.returncode == 0, result.stderr
    assert "Ran 3 tests" in result.stderr


def test_they_fail_without_the_decorator(whole):
    whole.write(BEFORE)
    assert "Expected the handshake to be denied" in whole.run(TEST.removeprefix("$ ")).stderr


def test_each_door_of_the_chat_is_guarded_in_the_end(whole):
    result = whole.run("python manage.py wsdeny routes --fail-on-open")
    assert (result.returncode, result.stderr) == (0, "")
