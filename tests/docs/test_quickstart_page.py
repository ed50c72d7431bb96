"""The chat of Channels' tutorial, taken through docs/quickstart.md step by step."""

import re
import shlex
import tomllib
from urllib.parse import urlencode

import pytest
from django.core.management import call_command

from tests.docs.pages import DOCS, blocks, titled
from tests.docs.sites import DAPHNE, Site, ask, assert_shown, handshake_of
from tests.support.processes import ROOT

FILES = titled("quickstart.md")
INSTALL, FIRST, CURL, USERS, TEST = blocks("quickstart.md", "console")
COMMAND, ANSWER = CURL.split("\n", 1)
PATH, HEADERS = handshake_of(COMMAND)
(BUTTON,) = blocks("quickstart.md", "html")
BROWSER = {"Accept": "text/html"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

#: The tutorial's site after part 3, but for Redis, and for the scripts of its templates.
TUTORIAL = {
    "mysite/settings.py": """
from mysite.started import *
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
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


class Tutorial(Site):
    def take(self, *names):
        """The steps of the page that write these files."""
        for name in names:
            given = TUTORIAL[name] if name == "mysite/settings.py" else ""
            self.write({name: given + FILES[name]})

    def run(self, command):
        python, *arguments = shlex.split(command.removeprefix("$ "))
        assert python == "python"
        return super().run(*arguments)

    def serving(self):
        return super().serving(f"{DAPHNE} mysite.asgi:application")


@pytest.fixture
def site(tmp_path):
    """The tutorial's site, and the first two steps of the page."""
    call_command("startproject", "mysite", tmp_path)
    (tmp_path / "mysite/settings.py").rename(tmp_path / "mysite/started.py")
    site = Tutorial(tmp_path, "mysite.settings")
    site.write({**TUTORIAL, **BEFORE})
    site.take("mysite/settings.py", "mysite/urls.py", "mysite/asgi.py")
    return site


@pytest.fixture
def whole(site):
    """The site that one has at the end of the page."""
    site.take("chat/consumers.py", "chat/views.py", "chat/tests.py")
    return site


def test_every_file_of_the_page_is_taken_and_its_extra_exists():
    of_the_site = {"mysite/settings.py", "mysite/urls.py", "mysite/asgi.py"}
    assert set(FILES) == of_the_site | {"chat/consumers.py", "chat/views.py", "chat/tests.py"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "daphne" in project["optional-dependencies"]
    assert all(BEFORE[name] != FILES[name] for name in BEFORE)  # The decorators are new.


def test_the_install_line_that_works_today_comes_before_that_from_the_first_release_on():
    name = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"]
    today, released = (f'python -m pip install "{path}[daphne]"' for path in ("PATH/OF/YOUR/CLONE", name))
    assert f"$ {today}\n" == INSTALL
    for text in ((ROOT / "README.md").read_text(), (DOCS / "quickstart.md").read_text()):
        assert re.findall(r'python -m pip install "[^"\n]+"', text) == [today, released]
        assert re.search(rf"From the first release on,\s[^.]*`{re.escape(released)}`", text)


def test_the_layer_of_the_page_is_that_of_the_page_on_open_sockets():
    assert blocks("quickstart.md")[1] == blocks("live.md")[0]


@pytest.mark.servers
@pytest.mark.parametrize("step", ["site", "whole"])
def test_the_site_passes_the_checks_with_the_words_of_the_page(step, request):
    _, _, check, expected, runserver = FIRST.splitlines()
    result = request.getfixturevalue(step).run(check)
    assert (result.stdout.strip(), result.stderr) == (expected, "")
    assert runserver == "$ python manage.py runserver"


@pytest.mark.servers
def test_a_stranger_gets_the_answer_of_the_page_before_the_consumer_is_touched(site):
    with site.serving() as server:
        assert_shown(ANSWER, ask(server, PATH, HEADERS))
        assert ask(server, "/ws/nothing/", HEADERS).status == 404


def log_in(server, url, name, password):
    """Fill in the form at `url`, as a browser would; returns the answer to that."""
    form = ask(server, url, BROWSER)
    (cookie,) = (line.partition(";")[0] for line in form.headers.get_all("Set-Cookie") if "csrftoken" in line)
    token = cookie.partition("=")[2]
    fields = {"username": name, "password": password, "csrfmiddlewaretoken": token}
    return ask(server, url, {**BROWSER, **FORM, "Cookie": cookie}, urlencode(fields))


def cookies_of(response):
    return "; ".join(line.partition(";")[0] for line in response.headers.get_all("Set-Cookie"))


@pytest.mark.servers
def test_a_browser_is_sent_to_log_in_and_then_the_decorators_decide(whole):
    assert whole.run("python manage.py migrate").returncode == 0
    for command in USERS.splitlines():
        result = whole.run(command)
        assert result.returncode == 0, result.stderr
    passwords = dict(re.findall(r"create_user\('(\w+)', password='([\w-]+)'\)", USERS))
    with whole.serving() as server:
        assert ask(server, "/chat/", BROWSER).status == 200
        stranger = ask(server, "/chat/lobby/", BROWSER)
        assert (stranger.status, stranger.headers["Location"]) == (302, "/login/?next=/chat/lobby/")
        for name, room, socket in [("bob", 200, 101), ("eve", 403, 403)]:
            answer = log_in(server, stranger.headers["Location"], name, passwords[name])
            assert (answer.status, answer.headers["Location"]) == (302, "/chat/lobby/")
            own = {"Cookie": cookies_of(answer)}
            assert ask(server, "/chat/lobby/", {**BROWSER, **own}).status == room
            assert ask(server, PATH, {**HEADERS, **own}).status == socket


@pytest.mark.servers
def test_the_button_of_the_page_logs_out(whole):
    whole.write({"chat/templates/chat/room.html": TUTORIAL["chat/templates/chat/room.html"] + BUTTON})
    assert whole.run("python manage.py migrate").returncode == 0
    assert whole.run(USERS.splitlines()[0]).returncode == 0
    with whole.serving() as server:
        answer = log_in(server, "/login/", "bob", "bobs-word")
        assert (answer.status, answer.headers["Location"]) == (302, "/chat/")
        cookies = cookies_of(answer)
        page = ask(server, "/chat/lobby/", {**BROWSER, "Cookie": cookies})
        (url,) = re.findall(rb'action="([^"]+)"', page.content)
        (token,) = re.findall(rb'name="csrfmiddlewaretoken" value="(\w+)"', page.content)
        fields = urlencode({"csrfmiddlewaretoken": token.decode()})
        answer = ask(server, url.decode(), {**BROWSER, **FORM, "Cookie": cookies}, fields)
        assert (answer.status, answer.headers["Location"]) == (302, "/login/")
        assert ask(server, PATH, {**HEADERS, "Cookie": cookies}).status == 401


@pytest.mark.servers
def test_the_tests_of_the_page_pass_and_fail_without_the_decorator(whole):
    result = whole.run(TEST)
    assert result.returncode == 0, result.stderr
    assert "Ran 3 tests" in result.stderr
    whole.write(BEFORE)
    assert "FAILED (failures=1)" in whole.run(TEST).stderr


@pytest.mark.servers
def test_each_endpoint_of_the_chat_is_guarded_in_the_end(whole):
    result = whole.run("python manage.py wsdeny routes --fail-on-open")
    assert (result.returncode, result.stderr) == (0, "")
