"""The shape of the house: which module may import which (the design's picture), read from the source."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import channels_wsdeny

ROOT = Path(channels_wsdeny.__file__).parent

#: From the ground up: a module imports from lower floors, and from its own where `NEIGHBOURS` says so.
FLOORS = [
    {"version", "types", "statuses", "exceptions", "decisions", "conf", "installed", "names"},
    {
        "connections",
        "pool",
        "drivers",
        "sessions",
        "visitor",
        "handshake",
        "passage",
        "log",
        "signals",
        "trace",
        "table",
        "languages",
        "failures",
        "problems",
        "emitter",
        "departure",
        "content",
        "bodies",
        "requests",
        "redaction",
        "appdenial",
        "appstream",
    },
    {"guards", "policy", "policies", "pages", "hooks", "plan", "surrounding", "walk", "onion"},
    {"corridor", "admission", "refusal"},
    {
        "lookahead",
        "layer",
        "sighting",
        "upgrade",
        "gatekeeper",
        "websocket",
        "wire",
        "reflex",
        "stock",
        "http",
        "exchange",
        "call",
        "views",
        "errors",
        "middleware",
    },
    {"stack", "routes", "decorators"},
    {"ways", "urlconf", "locks", "doors", "understudy", "rehearsal", "question", "explanation"},
    {"origins", "wiring", "footing", "checks", "apps", "management.commands.wsdeny", ""},
    {
        "answers",
        "apprunner",
        "assertions",
        "client",
        "clientsocket",
        "communicator",
        "daphneserver",
        "liveserver",
        "livetestcase",
        "loans",
        "contrib",
        "contrib.otel",
        "pytest_plugin",
        "testing",
        "uvicornserver",
    },
]
#: Daphne that can deny stands beside the house: it knows the settings and types, and the house not it.
ANNEX = {"daphne", "management"}
#: Doors, by the modules that each is made of; the look-ahead is what they may share.
DOORS = [
    {"gatekeeper", "websocket", "wire", "reflex", "stock"},
    {"http", "exchange"},
    {"call", "views", "errors", "middleware"},
]


class Import(NamedTuple):
    """One import of a module of this package by another."""

    importer: str
    imported: str
    for_types: bool


@cache
def modules():
    """The source of every module, by its name within the package ("" is the package itself)."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
        for path in ROOT.rglob("*.py")
    }


@cache
def imports():
    return [found for name, path in modules().items() for found in imports_of(name, path)]


def imports_of(name, path):
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = [part for part in package[: len(package) - node.level + 1] if part]
            base = ".".join([*above, *(node.module or "").split(".")]).rstrip(".")
            targets = [base] if node.module else [f"{base}.{alias.name}".lstrip(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            targets = [absolute(node.module)]
        elif isinstance(node, ast.Import):
            targets = [absolute(alias.name) for alias in node.names]
        else:
            continue
        yield from (Import(name, target, id(node) in for_types) for target in targets if target is not None)


def absolute(module):
    """The name within this package of a module that is named in full; None for others' modules."""
    if module.split(".")[0] != "channels_wsdeny":
        return None
    return module.partition(".")[2]


def floor_of(module):
    """The annex, which stands on the values alone, is below all."""
    return next((number for number, floor in enumerate(FLOORS) if module in floor), -1)


def in_annex(module):
    return module.split(".")[0] in ANNEX and module != "management.commands.wsdeny"


def of_the_house():
    return [found for found in imports() if not in_annex(found.importer)]


def test_every_module_has_its_floor():
    named = set().union(*FLOORS)
    assert {name for name in modules() if not in_annex(name)} == named


def test_no_module_has_two_floors():
    assert sum(map(len, FLOORS)) == len(set().union(*FLOORS))


def test_the_test_sees_the_imports():
    assert Import("exchange", "corridor", for_types=False) in imports()
    assert Import("apps", "checks", for_types=False) in imports()
    assert Import("stack", "types", for_types=True) in imports()
    assert Import("daphne.server", "conf", for_types=False) in imports()
    assert Import("", "version", for_types=False) in imports()


def test_every_import_names_a_module():
    assert {found.imported for found in imports()} <= set(modules())


def test_no_module_imports_from_a_higher_floor():
    upwards = [
        found
        for found in of_the_house()
        if not found.for_types and floor_of(found.imported) > floor_of(found.importer)
    ]
    assert upwards == []


def test_the_house_does_not_know_its_annex():
    knowing = {found.importer for found in of_the_house() if in_annex(found.imported)}
    assert knowing == {"daphneserver"}  # which starts it, for tests of sites


def test_the_annex_knows_the_values_alone():
    known = {found.imported for found in imports() if in_annex(found.importer)}
    assert {name for name in known if not in_annex(name)} <= FLOORS[0]


def test_doors_do_not_import_one_another():
    door_of = {module: number for number, door in enumerate(DOORS) for module in door}
    between = [
        found
        for found in imports()
        if found.importer in door_of
        and door_of.get(found.imported, door_of[found.importer]) != door_of[found.importer]
    ]
    assert between == []


def test_the_corridor_knows_no_door():
    assert not {found.imported for found in imports() if found.importer == "corridor"} & FLOORS[4]


@pytest.mark.parametrize(
    "module",
    [
        "guards",
        "policy",
        "policies",
        "hooks",
        "plan",
        "onion",
        "surrounding",
        "corridor",
        "admission",
        "refusal",
    ],
)
def test_policies_and_the_corridor_know_no_asgi_messages(module):
    tree = ast.parse(modules()[module].read_text())
    words = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert [word for word in words if str(word).startswith(("websocket.", "http."))] == []


def test_modules_of_one_floor_import_one_another_in_no_circle():
    beside = {
        module: {
            found.imported
            for found in of_the_house()
            if found.importer == module
            and not found.for_types
            and floor_of(found.imported) == floor_of(module)
        }
        for module in set().union(*FLOORS)
    }
    while beside:
        free = {module for module, needs in beside.items() if not needs & beside.keys()}
        assert free, f"These import one another in a circle: {sorted(beside)}"
        for module in free:
            del beside[module]


def test_the_emitter_alone_makes_denial_messages():
    """Others compare with the names of messages, but make none of a response's."""
    makers = {
        name
        for name, path in modules().items()
        if not in_annex(name)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "type" and ".response." in ast.unparse(value)
    }
    assert makers == {"emitter"}


REFUSING = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"daphne", "twisted", "autobahn"}:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)

sys.meta_path.insert(0, Refusing())
"""


def run_python(source, **environ):
    environ = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"} | environ
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", REFUSING + source],
        env=environ,
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_refusing_finder_refuses():
    assert "daphne is not installed" in run_python("import daphne").stderr


@pytest.mark.parametrize(
    "module",
    [
        "channels_wsdeny",
        "channels_wsdeny.policies",
        "channels_wsdeny.decorators",
        "channels_wsdeny.routes",
        "channels_wsdeny.testing",
    ],
)
def test_what_users_import_needs_neither_settings_nor_daphne(module):
    ran = run_python(f"import {module}\nfrom django.conf import settings\nprint(settings.configured)")
    assert (ran.stdout, ran.stderr) == ("False\n", "")


def test_a_site_without_daphne_starts():
    ran = run_python(
        "from django.conf import settings\n"
        "settings.configure(INSTALLED_APPS=['channels_wsdeny'])\n"
        "import django; django.setup()\n"
        "from django.core import checks\n"
        "print(checks.run_checks())\n"
    )
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


def test_the_package_exports_what_it_says():
    for name in channels_wsdeny.__all__:
        assert hasattr(channels_wsdeny, name)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("channels_wsdeny", "DenyMiddlewareStack Deny Hooks"),
        (
            "channels_wsdeny.policies",
            "Policy AllowAny DenyAll IsAuthenticated IsStaff IsSuperuser InGroup HasPermission "
            "UserPassesTest",
        ),
        (
            "channels_wsdeny.decorators",
            "login_required permission_required user_passes_test require public with_hooks",
        ),
    ],
)
def test_the_names_of_the_contract_can_be_imported(module, names):
    imported = __import__(module, fromlist=["x"])
    assert [name for name in names.split() if not hasattr(imported, name)] == []
