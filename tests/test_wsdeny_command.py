"""``manage.py wsdeny``, as its users see it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import django
import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.core.management import CommandError, call_command
from django.http import HttpResponse
from django.urls import path, re_path

import testproject
from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import public, require
from channels_wsdeny.inspection import table
from channels_wsdeny.management.commands.wsdeny import Command
from channels_wsdeny.policies import AllowAny, DenyAll, IsStaff
from tests.parts import Check, accept

PROJECT = Path(testproject.__file__).parent
ROOT = PROJECT.parent


def run(*arguments):
    """What the command prints."""
    out = StringIO()
    call_command("wsdeny", *arguments, stdout=out)
    return out.getvalue()


def failure(*arguments):
    """What the command fails with."""
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    assert caught.value.returncode == 1
    return str(caught.value)


@pytest.fixture
def site(settings, monkeypatch):
    """A function that makes an application the site's."""

    def set_application(application):
        monkeypatch.setitem(globals(), "application", application)
        settings.ASGI_APPLICATION = f"{__name__}.application"

    return set_application


def view(request):
    return HttpResponse()


class Plain(AsyncWebsocketConsumer): ...


def sockets(**routes):
    return ProtocolTypeRouter(
        {"websocket": URLRouter([path(f"{name}/", app) for name, app in routes.items()])}
    )


# routes


def test_routes_lists_every_door_of_the_test_project():
    lines = run("routes").splitlines()
    assert lines[0].split() == ["PROTOCOL", "PATH", "NAME", "ENDPOINT", "POLICY", "FROM", "HOOKS"]
    assert [line.split()[:2] for line in lines[1:-2]] == [
        ["websocket", "/ws/rooms/<slug:slug>/"],
        ["websocket", "/ws/monitor/"],
        ["websocket", "/ws/status/"],
        ["http", "/login/"],
        ["http", "/logout/"],
        ["http", "/"],
        ["http", "/rooms/<slug:slug>/"],
        ["http", "/rooms/<slug:slug>/access/"],
        ["http", "/monitor/"],
        ["http", "/static/<path:path>"],
    ]
    assert lines[-1] == "10 doors: 6 guarded, 4 public, 0 open."


def test_a_row_tells_who_guards_and_what_runs():
    (row,) = [line for line in run("routes").splitlines() if "MonitorConsumer" in line]
    assert row.split() == [
        "websocket",
        "/ws/monitor/",
        "testproject.chat.consumers.MonitorConsumer",
        "IsStaff()",
        "decorator",
        "begin,",
        "tell",
    ]


def test_columns_are_aligned():
    lines = run("routes").splitlines()
    start = lines[0].index("ENDPOINT")
    assert {line[start - 2 : start] for line in lines[:-2]} == {"  "}
    assert {line[start] for line in lines[1:-2]} <= {"t", "d"}


def test_json_is_for_programs():
    found = json.loads(run("routes", "--json"))
    assert len(found) == 10
    assert found[1] == {
        "protocol": "websocket",
        "path": "/ws/monitor/",
        "name": None,
        "endpoint": "testproject.chat.consumers.MonitorConsumer",
        "policy": "IsStaff()",
        "source": "decorator",
        "open": False,
        "public": False,
        "hooks": ["on_request testproject.chat.hooks.begin", "on_response testproject.chat.hooks.tell"],
        "notes": [],
    }


@pytest.fixture
def open_and_public(settings, site):
    settings.ROOT_URLCONF = (path("open/", view), path("public/", public(view)))
    site(DenyMiddlewareStack(sockets(default=Plain.as_asgi(), staff=require(IsStaff())(Plain.as_asgi()))))


def test_only_open_lists_what_nobody_guards(open_and_public):
    assert [door["path"] for door in json.loads(run("routes", "--only-open", "--json"))] == ["/open/"]


def test_only_open_still_counts_all(open_and_public):
    assert run("routes", "--only-open").splitlines()[-1] == "4 doors: 2 guarded, 1 public, 1 open."


def test_fail_on_open_names_what_nobody_guards(open_and_public):
    text = failure("routes", "--fail-on-open")
    assert f"/open/  {__name__}.view" in text
    assert "/public/" not in text
    assert "/default/" not in text
    assert "@public" in text


def test_fail_on_default_names_what_only_a_default_guards(open_and_public):
    text = failure("routes", "--fail-on-default")
    assert "/open/" in text
    assert f"/default/  {__name__}.Plain" in text
    assert "/staff/" not in text


def test_without_either_nothing_fails(open_and_public):
    assert "/open/" in run("routes")


def test_what_is_ignored_does_not_fail(open_and_public):
    assert "/open/" not in run("routes", "--fail-on-open", "--ignore", "/nowhere/", "--ignore", "/op")


def test_a_failure_comes_after_the_list(open_and_public, capsys):
    with pytest.raises(CommandError):
        call_command("wsdeny", "routes", "--json", "--fail-on-open")
    assert len(json.loads(capsys.readouterr().out)) == 4


def test_a_site_without_doors_has_an_empty_list(settings):
    settings.ASGI_APPLICATION = settings.ROOT_URLCONF = None
    assert run("routes", "--fail-on-open").splitlines()[-1] == "0 doors: 0 guarded, 0 public, 0 open."


@pytest.mark.parametrize(
    "broken", [{"ROOT_URLCONF": "nowhere.urls"}, {"ASGI_APPLICATION": "nowhere.application"}]
)
def test_what_cannot_be_read_is_an_error(broken, settings):
    for name, value in broken.items():
        setattr(settings, name, value)
    assert "cannot be read" in failure("routes")
    assert "nowhere" in failure("routes")


def test_control_characters_of_routes_are_shown_as_what_they_are(settings):
    settings.ROOT_URLCONF = (re_path("^a\x1b[2J\nb/$", view),)
    out = run("routes", "--only-open")
    assert r"/a\x1b[2J\nb/$" in out
    assert "\x1b" not in out


def decorators_of(module):
    """The decorators in the source of a module of the test project, and what each is on."""
    source = (PROJECT / "chat" / module).read_text()
    return re.findall(
        r"^(@(?:login_required|permission_required|require|public)\b.*)\n(?:class|def) (\w+)",
        source,
        re.MULTILINE,
    )


@pytest.fixture
def project(tmp_path):
    """A copy of the test project, and a function that runs the command in it."""
    shutil.copytree(PROJECT, tmp_path / "testproject", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "manage.py", tmp_path)

    def routes(*arguments):
        return subprocess.run(
            [sys.executable, "manage.py", "wsdeny", "routes", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "testproject.settings"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return routes


def delete(decorator, name, source):
    """Delete a decorator from what it is on."""
    text = source.read_text()
    changed = re.sub(rf"^{re.escape(decorator)}\n(?=(?:class|def) {name}\b)", "", text, flags=re.MULTILINE)
    assert changed != text
    source.write_text(changed)


def test_the_test_project_passes(project):
    ran = project("--fail-on-default")
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(("decorator", "name"), decorators_of("views.py"))
def test_the_test_project_fails_without_a_decorator_of_a_view(decorator, name, project, tmp_path):
    delete(decorator, name, tmp_path / "testproject" / "chat" / "views.py")
    ran = project("--fail-on-open")
    assert ran.returncode == 1
    assert f"testproject.chat.views.{name}" in ran.stderr


@pytest.mark.parametrize(("decorator", "name"), decorators_of("consumers.py"))
def test_the_test_project_has_a_default_without_a_decorator_of_a_consumer(decorator, name, project, tmp_path):
    delete(decorator, name, tmp_path / "testproject" / "chat" / "consumers.py")
    ran = project("--fail-on-default")
    assert ran.returncode == 1
    assert f"testproject.chat.consumers.{name}" in ran.stderr


def test_the_decorators_of_the_test_project_were_found():
    assert (len(decorators_of("views.py")), len(decorators_of("consumers.py"))) == (5, 3)


# The table


class Terminal(StringIO):
    def isatty(self):
        return True


def test_the_table_leaves_empty_columns_out():
    out = StringIO()
    table.write(("A", "B", "C"), [("1", "", "2"), ("3", "", "4")], out)
    assert out.getvalue() == "A  C\n1  2\n3  4\n"


def test_the_table_has_no_colours_in_a_pipe():
    out = StringIO()
    table.write(("A",), [("[red]1[/red]",)], out)
    assert out.getvalue() == "A\n[red]1[/red]\n"


def test_a_terminal_without_rich_gets_the_plain_table(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    out = Terminal()
    table.write(("A",), [("1",)], out)
    assert out.getvalue() == "A\n1\n"


def test_a_terminal_with_rich_gets_its_table(monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    table.write(("PATH", "POLICY"), [("/a/" * 20, "[red]IsStaff()")], out)
    text = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert "\x1b[1m" in out.getvalue()
    assert "[red]IsStaff()" in text
    assert text.count("/a/") + text.count("/a\n") >= 10
    assert "…" not in text


# explain


pytestmark = pytest.mark.django_db


def sections(*arguments):
    """What is explained: the question, the way, the steps, and the response."""
    return run("explain", *arguments).removesuffix("\n").split("\n\n")


def test_explain_tells_a_denied_handshake(users):
    question, way, steps, response, body = sections("/ws/monitor/", "--user", "alice")
    assert question == "GET /ws/monitor/ over websocket, by alice"
    assert way.split() == ["route", "ws/monitor/", "endpoint", "testproject.chat.consumers.MonitorConsumer"]
    kinds = [re.sub(r"^\s*[\d.]+ ms +", "", line).split("  ")[0] for line in steps.splitlines()]
    assert kinds == ["hook", "policy", steps.splitlines()[2].strip().partition("  ")[2], "hook", "1 query"]
    assert re.search(r"IsStaff\(\) +denied: 403 permission_denied", steps)
    assert 'SELECT … FROM "auth_user"' in steps
    assert response.splitlines()[0] == "HTTP 403 Forbidden"
    assert "content-type: application/problem+json" in response
    assert json.loads(body)["code"] == "permission_denied"


def test_explain_tells_an_accepted_handshake(users):
    *_, steps, response = sections("/ws/monitor/", "--user", "staff")
    assert re.search(r"endpoint +testproject\.chat\.consumers\.MonitorConsumer +not run", steps)
    assert response.splitlines()[0] == "HTTP 101 Switching Protocols, if the endpoint says so"


def test_explain_tells_a_handshake_that_is_not_routed():
    _, way, _, response, _ = sections("/ws/nowhere/")
    assert way.split() == ["route", "-", "endpoint", "-"]
    assert response.startswith("HTTP 404 Not Found")


def test_explain_tells_a_view(users):
    _, way, _, response, _ = sections("/monitor/", "--protocol", "http", "--user", "alice")
    assert "testproject.chat.views.monitor" in way
    assert response.startswith("HTTP 403 Forbidden")


def test_explain_tells_what_a_browser_gets(users):
    *_, response = sections("/monitor/", "--protocol", "http", "--header", "Accept: text/html")
    assert response.startswith("HTTP 302 Found")
    assert "location: /login/?next=/monitor/" in response


def test_explain_knows_a_session(sessions):
    key = sessions["staff"].session_key
    out = run("explain", "/ws/monitor/", "--session", key)
    assert "by staff, by the session" in out
    assert "HTTP 101" in out
    assert key not in out


def test_explain_says_of_a_session_that_it_is_nobodys():
    assert "by nobody: the session does not exist" in run("explain", "/ws/monitor/", "--session", "abcdefgh")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["ws/monitor/"], "must begin with a slash"),
        ([""], "must begin with a slash"),
        (["/", "--user", "nobody"], "There is no user 'nobody'."),
        (["/", "--user", "alice", "--session", "abcdefgh"], "not both"),
        (["/", "--session", "a b"], "characters that no cookie has"),
        (["/", "--session", "a;b=c"], "characters that no cookie has"),
        (["/", "--session", "a\r\nx: y"], "characters that no cookie has"),
        (["/", "--session", "ä"], "characters that no cookie has"),
        (["/", "--header", "x"], "A header is 'Name: value'"),
        (["/", "--header", ": x"], "A header is 'Name: value'"),
        (["/", "--header", "x y: z"], "A header is 'Name: value'"),
        (["/", "--header", "ä: z"], "A header is 'Name: value'"),
        (["/", "--header", "x: a\r\ny: b"], "A header is 'Name: value'"),
        (["/", "--header", "x: a\0"], "A header is 'Name: value'"),
    ],
)
def test_a_question_that_cannot_be_asked_is_an_error(arguments, text, users):
    assert text in failure("explain", *arguments)


def test_a_protocol_of_another_name_is_an_error():
    with pytest.raises(CommandError, match="invalid choice"):
        run("explain", "/", "--protocol", "ftp")


def echo(*names):
    """A policy that denies with what it was sent."""
    return Check(lambda request: Deny(418, str({name: request.headers.get(name) for name in names})))


def sent(name, *arguments):
    """The value of a header that is sent."""
    body = run("explain", "/", *arguments).rstrip().splitlines()[-1]
    return eval(json.loads(body)["detail"])[name]


@pytest.mark.parametrize(
    ("name", "value", "arguments"),
    [
        ("Host", "localhost", []),
        ("Origin", "http://localhost", []),
        ("Origin", None, ["--header", "Origin:"]),
        ("Origin", "http://elsewhere", ["--header", "origin: http://elsewhere"]),
        ("X-Token", "a:b", ["--header", "X-Token:a:b"]),
        ("X-Token", "a,b", ["--header", "X-Token: a", "--header", "x-token: b"]),
        ("Cookie", "a=b; sessionid=abcdefgh", ["--header", "Cookie: a=b", "--session", "abcdefgh"]),
        ("X-Umlaut", "ä".encode().decode("latin1"), ["--header", "X-Umlaut: ä"]),
    ],
)
def test_headers_are_sent_as_they_are_given(name, value, arguments, site):
    site(DenyMiddlewareStack(require(echo(name))(accept)))
    assert sent(name, *arguments) == value


def test_the_host_is_one_that_the_site_allows(settings, site):
    settings.ALLOWED_HOSTS = ["*.example.org", ".example.com"]
    site(DenyMiddlewareStack(require(echo("Host"))(accept)))
    assert sent("Host") == "example.com"


def test_a_site_behind_https_is_asked_by_https(settings, site):
    settings.SECURE_SSL_REDIRECT = True
    site(DenyMiddlewareStack(require(Check(lambda request: request.is_secure()))(accept)))
    assert "HTTP 101" in run("explain", "/")


def test_what_is_asked_with_is_not_told():
    out = run(
        "explain", "/ws/monitor/?token=secret", "--header", "Authorization: secret", "--session", "secretkey"
    )
    assert "secret" not in out


def test_what_could_change_a_terminal_is_shown_as_what_it_is(site):
    def reflect(request):
        response = HttpResponse(request.path + "\x1b[2J\r\nmore", status=403)
        response["X-Path"] = "\x1b[2J"
        return response

    site(DenyMiddlewareStack(require(Check(reflect))(accept)))
    out = run("explain", "/%1b%0a/")
    assert "\x1b" not in out
    assert r"GET /\x1b\n/ over websocket" in out
    assert r"x-path: \x1b[2J" in out


def test_cookies_are_told_without_their_values(site):
    hooks = Hooks()

    @hooks.on_response
    def remember(request, response):
        response.set_cookie("token", "secret", httponly=True)

    site(DenyMiddlewareStack(require(DenyAll())(accept), hooks=hooks))
    out = run("explain", "/")
    assert "set-cookie: token=…; HttpOnly; Path=/" in out
    assert "secret" not in out


@pytest.mark.parametrize(
    ("body", "shown"),
    [(b"\xff\x00", "(2 bytes)"), (b"x" * 3000, f"{'x' * 2000}\n… (3000 bytes)"), ("ä".encode(), "ä")],
)
def test_a_body_is_shown_as_far_as_it_can_be_read(body, shown, site):
    site(DenyMiddlewareStack(require(Check(lambda request: HttpResponse(body, status=403)))(accept)))
    assert run("explain", "/").endswith(f"\n\n{shown}\n")


def test_a_denial_by_close_is_told(site, settings):
    settings.CHANNELS_WSDENY = {"DENY_WITH": "close"}
    site(DenyMiddlewareStack(require(DenyAll())(accept)))
    out = run("explain", "/")
    assert "HTTP 101 Switching Protocols\n" in out
    assert "Then it is closed with 4403 'permission_denied'." in out


def test_an_application_that_raises_is_told(site):
    site(sockets(a=Plain.as_asgi()))
    assert "The application raises ValueError(" in run("explain", "/nowhere/")


def test_an_application_that_closes_without_a_stack_is_told(site):
    class Closes:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            await send({"type": "websocket.close", "code": 4001, "reason": "no"})

    site(Closes(accept))
    assert "HTTP 403 Forbidden, without a body: the application closes with 4001 'no'." in run("explain", "/")


WITHIN = {
    "policy": require(AllowAny())(Plain.as_asgi()),
    "expression": require(IsStaff() | ~IsStaff())(Plain.as_asgi()),
    "default": Plain.as_asgi(),
    "public": public(type("Open", (Plain,), {})).as_asgi(),
}


@pytest.mark.parametrize("consumer", WITHIN.values(), ids=WITHIN)
def test_a_foreign_origin_is_named_where_a_validator_within_the_stack_closes(consumer, site, users):
    hosts = OriginValidator(URLRouter([path("a/", consumer)]), ["http://localhost"])
    site(DenyMiddlewareStack(ProtocolTypeRouter({"websocket": hosts})))
    out = run("explain", "/a/", "--user", "alice", "--header", "Origin: http://evil.example")
    told = "OriginValidator, within the application, does not allow the Origin 'http://evil.example'."
    assert f"\n\nThe policies allowed it. {told}\n\nHTTP 403 Forbidden\n" in out


def test_an_origin_that_is_missing_is_named(site):
    site(DenyMiddlewareStack(OriginValidator(public(Plain.as_asgi()), ["http://localhost"])))
    out = run("explain", "/", "--header", "Origin:")
    assert "OriginValidator, within the application, does not allow a handshake without an Origin." in out


class Shuts:
    """A wrapper that closes each handshake before its endpoint."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await send({"type": "websocket.close"})


def test_a_wrapper_within_the_stack_that_closes_is_told(site):
    site(DenyMiddlewareStack(require(AllowAny())(Shuts(Plain.as_asgi()))))
    out = run("explain", "/")
    assert "The policies allowed it. The application denied it by itself, before its endpoint." in out


@pytest.mark.parametrize(
    "application",
    [
        DenyMiddlewareStack(require(DenyAll())(accept)),
        DenyMiddlewareStack(require(DenyAll())(Shuts(public(Plain.as_asgi())))),
        DenyMiddlewareStack(OriginValidator(require(DenyAll())(accept), ["http://localhost"])),
        DenyMiddlewareStack(require(Check(lambda request: 3))(accept)),
        DenyMiddlewareStack(public(Plain.as_asgi())),
        Shuts(DenyMiddlewareStack(public(Plain.as_asgi()))),
    ],
)
def test_who_is_not_denied_within_is_not_told_so(application, site):
    site(application)
    assert "The policies allowed it" not in run("explain", "/")


def test_a_hook_that_denied_is_not_taken_for_the_application(site):
    hooks = Hooks()

    @hooks.on_route
    def shut(request):
        raise Deny(403)

    site(DenyMiddlewareStack(public(Plain.as_asgi()), hooks=hooks))
    assert "The policies allowed it" not in run("explain", "/")


def test_a_policy_that_denied_nobody_is_told(site):
    site(DenyMiddlewareStack(sockets(a=Plain.as_asgi())))
    assert re.search(r"policy +IsAuthenticated\(\) +denied: 401", run("explain", "/a/"))


@pytest.mark.parametrize(
    "application", [DenyMiddlewareStack(sockets(a=Plain.as_asgi())), sockets(a=Plain.as_asgi())]
)
def test_a_handshake_at_a_views_path_is_told_of_the_other_protocol(application, site, settings):
    settings.ROOT_URLCONF = (path("page/", view),)
    site(application)
    assert "--protocol http" in run("explain", "/page/")


def test_a_handshake_that_is_denied_for_another_reason_is_not_told_of_the_other_protocol(site, settings):
    settings.ROOT_URLCONF = (path("", view),)
    site(DenyMiddlewareStack(accept))
    assert "--protocol http" not in run("explain", "/")


@pytest.mark.parametrize("where", ["/nowhere/", "/a/"])
def test_a_handshake_elsewhere_is_not_told_of_the_other_protocol(where, site, settings):
    settings.ROOT_URLCONF = (path("a/", view),)
    site(DenyMiddlewareStack(sockets(a=Plain.as_asgi())))
    assert "--protocol http" not in run("explain", where)


def test_a_policy_that_hangs_has_no_answer(site, settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.1}
    site(DenyMiddlewareStack(require(Check(lambda request: __import__("time").sleep(0.5)))(accept)))
    out = run("explain", "/")
    assert re.search(r"Check\(\) +no answer in time", out)
    assert "HTTP 503 Service Unavailable" in out


def test_a_site_without_sockets_has_none_to_explain(settings):
    settings.ASGI_APPLICATION = None
    assert "ASGI_APPLICATION is not set" in failure("explain", "/ws/monitor/")


def test_a_site_without_an_asgi_application_has_views_to_explain(settings):
    settings.ASGI_APPLICATION = None
    assert "testproject.chat.views.monitor" in run("explain", "/monitor/", "--protocol", "http")


def test_views_that_another_server_has_can_be_explained(site):
    site(DenyMiddlewareStack(sockets(a=Plain.as_asgi())))
    assert "testproject.chat.views.monitor" in run("explain", "/monitor/", "--protocol", "http")


def test_an_application_that_is_none_is_an_error(site):
    site(3)
    assert "ASGI_APPLICATION is 3" in failure("explain", "/")
    assert "ASGI_APPLICATION is 3" in failure("routes")


def test_an_application_that_cannot_be_imported_is_an_error(settings):
    settings.ASGI_APPLICATION = "nowhere.application"
    assert "cannot be explained" in failure("explain", "/ws/monitor/")


def manage(*arguments, **environ):
    return subprocess.run(
        [sys.executable, "manage.py", "wsdeny", *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_database_that_cannot_be_reached_is_what_the_handshake_is_told():
    nowhere = {"TESTPROJECT_DATABASE": "sqlite", "TESTPROJECT_DATABASE_NAME": "/nowhere/db.sqlite3"}
    ran = manage("explain", "/ws/monitor/", "--session", "abcdefgh", **nowhere)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "raised OperationalError" in ran.stdout
    assert "HTTP 503 Service Unavailable" in ran.stdout


def test_a_user_in_a_database_that_cannot_be_reached_is_an_error():
    nowhere = {"TESTPROJECT_DATABASE": "sqlite", "TESTPROJECT_DATABASE_NAME": "/nowhere/db.sqlite3"}
    ran = manage("explain", "/ws/monitor/", "--user", "alice", **nowhere)
    assert ran.returncode == 1
    assert ran.stderr.startswith("CommandError: The request cannot be explained: OperationalError")


def test_an_output_that_knows_no_umlauts_gets_them_escaped():
    ran = manage("explain", "/%C3%A4/", PYTHONIOENCODING="ascii")
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (0, r"GET /\xe4/ over websocket, by nobody")


def test_every_subcommand_has_its_help():
    ran = manage("--help")
    assert all(name in ran.stdout for name in ("routes", "explain"))
    assert "do not" in manage("explain", "--help").stdout


def test_a_subcommand_is_needed():
    assert "subcommand" in failure()


ELSEWHERE = {"DJANGO_SETTINGS_MODULE": "nowhere.settings"}


@pytest.mark.parametrize("subcommand", [["routes"], ["explain", "/ws/status/"]])
@pytest.mark.parametrize(
    "options",
    [
        ["--settings=testproject.settings"],
        ["--settings", "testproject.settings", "--pythonpath", "."],
        ["--settings=testproject.settings", "--traceback", "--no-color", "-v", "2"],
        ["--settings=testproject.settings", "--force-color", "--verbosity=0"],
    ],
)
def test_options_of_every_command_are_taken_on_both_sides_of_the_subcommand(subcommand, options):
    before, after = manage(*options, *subcommand, **ELSEWHERE), manage(*subcommand, *options, **ELSEWHERE)
    assert (before.returncode, before.stderr) == (after.returncode, after.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["--traceback", "explain", "/"], ["explain", "/", "--traceback"]])
def test_a_traceback_is_shown_whichever_side_it_is_asked_for_on(arguments):
    ran = manage(*arguments, "--user", "nobody", TESTPROJECT_DATABASE_NAME="/nowhere/db.sqlite3")
    assert ran.stderr.startswith("Traceback")


def test_what_is_given_before_the_subcommand_is_kept():
    parser = Command().create_parser("manage.py", "wsdeny")
    assert parser.parse_args(["-v", "3", "routes"]).verbosity == 3


def test_what_is_given_after_the_subcommand_counts():
    parser = Command().create_parser("manage.py", "wsdeny")
    assert parser.parse_args(["-v", "3", "routes", "-v", "2"]).verbosity == 2


def test_what_is_not_given_has_djangos_default():
    parser = Command().create_parser("manage.py", "wsdeny")
    assert parser.parse_args(["routes"]).verbosity == 1


def test_the_version_is_told_after_a_subcommand():
    ran = manage("routes", "--version")
    assert (ran.returncode, ran.stdout.strip()) == (0, django.get_version())
