"""What docs/commands.md shows is what the commands say of the test project."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from tests.docs.pages import DOCS, blocks

TEXT = (DOCS / "commands.md").read_text()
ROUTES, EXPLAIN = blocks("commands.md", "console")
pytestmark = pytest.mark.django_db


def output(shown):
    """The command that a snippet begins with, and what it prints, by lines of words."""
    command, _ = shown.split("\n", 1)
    out = StringIO()
    call_command(*command.removeprefix("$ python manage.py ").split(), stdout=out)
    return [line.split() for line in out.getvalue().splitlines()]


def test_each_shown_route_is_told_with_its_policy_and_where_that_comes_from():
    told = output(ROUTES)
    heading, *rows = [re.split(r"\s{2,}", line) for line in ROUTES.splitlines()[1:]]
    assert [name for name in told[0] if name in heading] == heading
    for row in rows:
        words = " ".join(row).split()
        assert any(iter_in_order(words, line) for line in told), row


def iter_in_order(words, line):
    remaining = iter(line)
    return all(word in remaining for word in words)


def test_the_explanation_is_told_but_for_times():
    told = [line for line in output(EXPLAIN) if line]
    for line in EXPLAIN.splitlines()[1:]:
        words = line.split()
        if words[1:2] == ["ms"]:
            assert any(found[1:] == words[1:] for found in told), line
        elif words:
            assert words in told, line


def test_the_tables_name_every_option():
    from channels_wsdeny.management.commands.wsdeny import Command

    parser = Command().create_parser("manage.py", "wsdeny")
    (subparsers,) = [action for action in parser._actions if action.dest == "subcommand"]
    for name, subparser in subparsers.choices.items():
        start = TEXT.index(f"## `manage.py wsdeny {name}`")
        section = (
            TEXT[start : TEXT.find("\n## ", start + 1)] if "\n## " in TEXT[start + 1 :] else TEXT[start:]
        )
        common = {
            option for action in Command().create_parser("", "")._actions for option in action.option_strings
        }
        own = {option for action in subparser._actions for option in action.option_strings} - common
        own = {option for option in own if option.startswith("--") and option != "--help"}
        assert set(re.findall(r"^\| `(--[\w-]+)", section, re.MULTILINE)) == own


def test_an_open_door_fails(settings):
    settings.ROOT_URLCONF = "tests.docs.test_commands_page"
    with pytest.raises(CommandError, match="/unguarded/"):
        call_command("wsdeny", "routes", "--fail-on-open", stdout=StringIO())


def test_an_open_door_that_is_ignored_does_not(settings):
    settings.ROOT_URLCONF = "tests.docs.test_commands_page"
    call_command("wsdeny", "routes", "--fail-on-open", "--ignore", "/unguarded/", stdout=StringIO())


def unguarded(request):
    raise AssertionError("Nobody asks for it.")


def _urls():
    from django.urls import path

    return [path("unguarded/", unguarded)]


urlpatterns = _urls()
