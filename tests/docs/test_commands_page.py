"""What docs/commands.md and docs/denied.md show is what the commands print, and what the package sends."""

import ast
import re
import shlex
from importlib import import_module
from io import StringIO
from itertools import pairwise

import pytest
from django.core.management import call_command

from channels_wsdeny import status
from channels_wsdeny.management.commands.wsdeny import Command
from testproject.asgi import application
from tests.docs.pages import DOCS, blocks
from tests.support.clients import fetch, knock
from tests.support.processes import ROOT

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


@pytest.mark.parametrize("shown", [EXPLAIN, *blocks("denied.md", "console")])
def test_the_explanations_of_both_pages_are_as_shown_but_for_times(shown, users):
    printed = [line[2:] if line[1:2] == ["ms"] else line for line in output(shown)]
    for line in shown.splitlines()[1:]:
        assert re.sub(r"^ +[\d.]+ ms", "", line).split() in printed, line


def test_the_tables_name_every_option():
    actions = Command().create_parser("manage.py", "wsdeny")._actions
    (subparsers,) = [action for action in actions if action.dest == "subcommand"]
    common = set(Command().create_parser("", "")._option_string_actions)
    for name, section in re.findall(r"^## `manage.py wsdeny (\w+)`\n(.*?)(?=\n## )", TEXT, re.DOTALL | re.MULTILINE):
        own = set(subparsers.choices[name]._option_string_actions) - common
        assert set(re.findall(r"^\| `(--[\w-]+)", section, re.MULTILINE)) == own


# docs/denied.md has an entry for each code that the package can send, and shows what is so.


PAGE = (DOCS / "denied.md").read_text()
#: The entries of the page: the status of each code.
ENTRIES = {
    code: {int(number) for number in re.findall(r"\d+", section)}
    for section, text in re.findall(r"^## (\d.*)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE)
    for code in re.findall(r"^### `(\w+)`$", text, re.MULTILINE)
}
ROWS = re.findall(r"^\| (\d+) \| `(\w+)`", PAGE, re.MULTILINE)


def codes_in(path):
    """The codes that a module names: of denials, and the reasons of closes."""
    module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))

    def texts(*nodes):
        for node in nodes:
            text = getattr(module, node.id, None) if isinstance(node, ast.Name) else getattr(node, "value", None)
            if isinstance(text, str) and re.fullmatch(r"[a-z_]+", text):
                yield text

    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg in {"code", "reason"}:
            yield from texts(node.value)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                names, values = (
                    [each] if not isinstance(each, ast.Tuple) else each.elts for each in (target, node.value)
                )
                if len(names) == len(values):
                    for name, value in zip(names, values, strict=True):
                        if getattr(name, "id", None) == "code":
                            yield from texts(value)
        elif isinstance(node, ast.BoolOp) and getattr(node.values[0], "id", None) in {"code", "reason"}:
            yield from texts(*node.values[1:])
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", None))
            if name == "close":
                yield from texts(*node.args)
            elif name == "Deny" and node.args and all(keyword.arg != "code" for keyword in node.keywords):
                given = getattr(node.args[0], "value", None)
                if isinstance(given, int):
                    yield status.code_for(given)


def test_the_page_has_an_entry_for_each_code_of_the_package_and_for_no_other():
    found = set(status._CODES.values())
    for path in (ROOT / "channels_wsdeny").rglob("*.py"):
        found |= set(codes_in(path))
    # One of each way in which modules name them.
    known = "upgrade_required token_not_valid too_many_connections session_ended session_expired revoked"
    assert {*known.split()} <= found
    assert {*ENTRIES, *(code for _, code in ROWS)} == found


def test_each_code_is_below_its_status():
    for number, code in status._CODES.items():
        assert number in ENTRIES.get(code, set()) or (str(number), code) in ROWS, code
    others = {"invalid_credentials": 401, "token_not_valid": 401, "origin_not_allowed": 403}
    others |= {"too_many_connections": 429, "upgrade_required": 426}
    assert {code for code in ENTRIES if code not in status._CODES.values()} == others.keys()
    for code, number in others.items():
        assert number in ENTRIES[code], code


async def test_a_plain_get_tells_the_denial_of_the_socket(headers_of):
    words = shlex.split(blocks("denied.md", "sh")[0])
    given = dict(each.split(": ") for flag, each in pairwise(words) if flag == "-H")
    assert given.pop("Cookie") == "sessionid=KEY"
    headers = [*headers_of("bob"), *((name.lower().encode(), value.encode()) for name, value in given.items())]
    answer = await fetch(application, re.sub(r"^http://[^/]+", "", words[-1]), headers=headers)
    assert (answer.status, answer.problem["code"]) == (403, "permission_denied")


async def test_the_line_of_the_log_is_that_of_the_page(headers_of, caplog):
    await knock(application, "/ws/monitor/", headers=headers_of("bob"))
    (record,) = [each for each in caplog.records if each.name == "channels_wsdeny"]
    (shown,) = blocks("denied.md", "text")
    assert shown.startswith(f"{record.getMessage()} (policy: {record.policy}, user: ")
