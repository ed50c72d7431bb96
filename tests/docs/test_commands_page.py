"""What docs/commands.md shows is what the commands print for the test project."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from django.core.management import call_command

from channels_wsdeny.management.commands.wsdeny import Command
from tests.docs.pages import DOCS, blocks

TEXT = (DOCS / "commands.md").read_text()
ROUTES, EXPLAIN = blocks("commands.md", "console")
pytestmark = pytest.mark.django_db


def output(shown):
    """What the command that a snippet begins with prints, as lines of words."""
    out = StringIO()
    call_command(*shown.split("\n")[0].removeprefix("$ python manage.py ").split(), stdout=out)
    return [line.split() for line in out.getvalue().splitlines()]


def test_the_shown_routes_are_printed_in_this_order():
    remaining = iter(output(ROUTES))
    for line in ROUTES.splitlines()[1:]:
        assert line.split() in remaining, line


def test_the_explanation_is_as_shown_but_for_times():
    printed = [line[2:] if line[1:2] == ["ms"] else line for line in output(EXPLAIN)]
    for line in EXPLAIN.splitlines()[1:]:
        words = re.sub(r"^ +[\d.]+ ms", "", line).split()
        assert words in printed, line


def test_the_tables_name_every_option():
    (subparsers,) = [
        action for action in Command().create_parser("manage.py", "wsdeny")._actions if action.dest == "subcommand"
    ]
    common = set(Command().create_parser("", "")._option_string_actions)
    for name, section in re.findall(r"^## `manage.py wsdeny (\w+)`\n(.*?)(?=\n## )", TEXT, re.DOTALL | re.MULTILINE):
        own = set(subparsers.choices[name]._option_string_actions) - common
        assert set(re.findall(r"^\| `(--[\w-]+)", section, re.MULTILINE)) == own
