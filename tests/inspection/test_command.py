"""``manage.py wsdeny``, as its users see it."""

import faulthandler
import json
import os
import re
import subprocess
import sys
from io import StringIO

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib.admin import AdminSite
from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.http import HttpResponse
from django.urls import path, re_path
from django.views.decorators.cache import cache_page

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import public, require
from channels_wsdeny.inspection.explain import time_limit
from channels_wsdeny.management.commands.wsdeny import Command
from channels_wsdeny.policies import IsStaff
from tests.support.processes import ROOT
from tests.support.processes import run as run_process


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


def view(request):
    return HttpResponse()


class Plain(AsyncWebsocketConsumer): ...


# routes


def test_routes_lists_every_endpoint_of_the_test_project():
    lines = run("routes").splitlines()
    paths = [line.split()[1] for line in lines if line.startswith(("websocket", "http"))]
    assert paths[:5] == ["/ws/rooms/<slug:slug>/", "/ws/monitor/", "/ws/status/", "/ws/knock/", "/login/"]
    assert lines[-1] == "39 endpoints: 32 guarded, 7 public, 0 open, 0 perhaps open."
    assert [line for line in lines if len(line) > 80] == []  # They fit into a terminal.


def test_what_protects_an_endpoint_its_name_and_its_notes_are_below_it(site):
    site(None, path("cached/", cache_page(60)(require(IsStaff())(view)), name="cached"), path("open/", view))
    assert run("routes").splitlines()[:6] == [
        f"http       /cached/  {__name__}.view",
        "    IsStaff() (decorator)",
        "    name cached",
        "    cannot tell whether IsStaff() is asked, and denies anybody",
        f"http       /open/  {__name__}.view",
        "    no policy",
    ]


def admin_of(site_class=AdminSite):
    admin = site_class()
    admin.register(get_user_model())
    return admin


def test_the_views_of_an_admin_are_one_row_unless_all_are_wanted(site):
    site(ProtocolTypeRouter({}), path("a/", admin_of().urls), path("b/", admin_of().urls), path("c/", view))
    count = len(json.loads(run("routes", "--json")))
    rows = [line.split() for line in run("routes").splitlines() if line.startswith("http")]
    views = f"admin, {count // 2 - 1} views".split()
    assert [row[1] for row in rows] == ["/a/", "/a/login/", "/b/", "/b/login/", "/c/"]
    assert [row[2:] for row in rows if row[1] in {"/a/", "/b/"}] == [views, views]
    lines = run("routes", "--all").splitlines()
    assert sum(line.startswith("http") for line in lines) == count
    assert lines[-1] == run("routes").splitlines()[-1]  # It counts each view.


def test_a_view_of_an_admin_that_is_not_protected_as_the_others_is_a_row_of_its_own(site):
    class Mixed(AdminSite):
        def get_urls(self):
            return [path("open/", view), *super().get_urls()]

    site(ProtocolTypeRouter({}), path("a/", admin_of(Mixed).urls))
    text = failure("routes", "--fail-on-open")
    assert re.search(rf"Open:\n  http  /a/open/  {__name__}\.view\n", text)


@pytest.mark.servers
def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} manage.py wsdeny routes --json --protocol http | true; echo ${{PIPESTATUS[0]}}"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("0\n", "")


def test_json_is_for_programs():
    found = json.loads(run("routes", "--json", "--protocol", "websocket"))
    assert len(found) == 4
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
def mixed_site(site):
    staff = require(IsStaff())
    routes = [path("default/", Plain.as_asgi()), path("staff/", staff(Plain.as_asgi()))]
    site(
        DenyMiddlewareStack(ProtocolTypeRouter({"websocket": URLRouter(routes)})),
        path("open/", view),
        path("public/", public(view)),
        path("cached/", cache_page(60)(staff(view))),
    )


def test_fail_on_open_names_what_is_open_or_may_be_and_without_it_all_is_counted(mixed_site):
    text = failure("routes", "--fail-on-open")
    assert re.search(rf"Open:\n  http  /open/  {__name__}\.view\nPerhaps open.*:\n  http  /cached/", text)
    assert not re.search("/public/|/default/|/staff/", text)
    assert "@public" in text
    assert run("routes").splitlines()[-1] == "5 endpoints: 2 guarded, 1 public, 1 open, 1 perhaps open."


def test_fail_on_default_names_what_only_a_default_protects_as_well(mixed_site):
    text = failure("routes", "--fail-on-default")
    assert "/open/" in text
    assert f"/default/  {__name__}.Plain" in text
    assert "/staff/" not in text


def test_what_is_ignored_does_not_fail_and_what_may_be_open_does_so_by_itself(mixed_site):
    for left in ("/cached/", "/open/"):
        assert "open" in failure("routes", "--fail-on-open", "--ignore", left)
    assert "/open/" not in run("routes", "--fail-on-open", "--ignore", "/cached/", "--ignore", "/op")


def test_a_failure_comes_after_the_list(mixed_site, capsys):
    with pytest.raises(CommandError):
        call_command("wsdeny", "routes", "--json", "--fail-on-open")
    assert len(json.loads(capsys.readouterr().out)) == 5


def test_a_site_whose_sockets_were_not_looked_at_fails_but_not_one_that_has_none(site):
    site(None, path("public/", public(view)))
    assert "ASGI_APPLICATION is not set, so no socket was looked at" in failure("routes", "--fail-on-open")
    assert run("routes", "--fail-on-open", "--protocol", "http").splitlines()[-1].startswith("1 endpoints:")
    site(ProtocolTypeRouter({}))
    assert run("routes", "--fail-on-open").splitlines()[-1].startswith("1 endpoints:")


def test_a_list_without_sockets_says_why(site, capsys):
    for application, words in ((None, "is not set"), (ProtocolTypeRouter({"websockets": Plain}), "but 'websockets'")):
        site(application, path("public/", public(view)))
        assert "1 endpoints" in run("routes")
        assert words in capsys.readouterr().err
        assert words in failure("routes", "--fail-on-open")
        assert run("routes", "--protocol", "http", "--fail-on-open")
        assert capsys.readouterr().err == ""


def test_a_consumer_among_the_views_is_told_in_words(site):
    site(ProtocolTypeRouter({}), path("ws/", Plain.as_asgi()))
    assert run("routes").splitlines()[:3] == [
        f"http       /ws/  {__name__}.Plain",
        "    no policy",
        "    no view: Django cannot call it. Put it into a URLRouter of ASGI_APPLICATION",
    ]


@pytest.mark.parametrize("subcommand", [["routes"], ["explain", "/"]])
def test_an_application_that_is_none_is_an_error(subcommand, site):
    site(3)
    with pytest.raises(ImproperlyConfigured, match="ASGI_APPLICATION is 3, which is no ASGI application"):
        run(*subcommand)


def test_control_characters_of_routes_are_escaped(site):
    site(None, re_path("^a\x1b[2J\nb/$", view))
    out = run("routes")
    assert r"/a\x1b[2J\nb/$" in out
    assert "\x1b" not in out


# explain


@pytest.mark.django_db
def test_explain_takes_its_options(users):
    options = ["--user", "alice", "--header", "Accept: text/html", "--protocol", "http"]
    out = run("explain", "/monitor/?a=b", *options)
    assert out.startswith("GET /monitor/ over http, by alice\n\nhost      localhost (assumed)\nroute     monitor/\n")
    assert "HTTP 403 Forbidden" in out
    assert "content-type: text/html" in out


def test_what_cannot_be_explained_is_an_error(site):
    with pytest.raises(CommandError, match="invalid choice"):
        run("explain", "/", "--protocol", "ftp")
    site()
    assert "ASGI_APPLICATION is not set" in failure("explain", "/")


def test_the_process_is_ended_if_a_thread_hangs_but_not_that_of_another_program(monkeypatch):
    armed = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda *args, **kwargs: armed.append((args, kwargs)))
    run("explain", "/ws/status/")
    assert armed == []
    Command(stdout=StringIO()).run_from_argv(["manage.py", "wsdeny", "explain", "/ws/status/"])
    assert armed == [((time_limit() + 5,), {"exit": True})]


@pytest.mark.servers
def test_a_database_that_cannot_be_reached_is_told():
    nowhere = {"TESTPROJECT_DATABASE": "sqlite", "TESTPROJECT_DATABASE_NAME": "/nowhere/db.sqlite3"}
    command = ["manage.py", "wsdeny", "explain", "/ws/monitor/", "--header", "Cookie: sessionid=abcdefgh"]
    ran = run_process(command, **nowhere)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "raised OperationalError" in ran.stdout
    assert "HTTP 503 Service Unavailable" in ran.stdout


@pytest.mark.parametrize("subcommand", ["sockets", "revoke", "drain"])
def test_without_a_channel_layer_no_server_is_reached(subcommand):
    with pytest.raises(CommandError, match="No channel layer leads to"):
        call_command("wsdeny", subcommand)


def test_options_of_django_are_taken_on_both_sides_of_the_subcommand():
    parser = Command().create_parser("manage.py", "wsdeny")
    given = ["--settings=a.b", "-v2", "--no-color"]
    for options in ([*given, "routes"], ["routes", *given]):
        taken = parser.parse_args(options)
        assert (taken.settings, taken.verbosity, taken.no_color, taken.traceback) == ("a.b", 2, True, False)


def test_a_subcommand_is_needed():
    assert "subcommand" in failure()
