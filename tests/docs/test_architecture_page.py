"""What docs/architecture.md names exists: modules, what is in them, and tests."""

from __future__ import annotations

import re
from importlib import import_module

from tests.docs.pages import DOCS
from tests.support.processes import ROOT

PAGE = (DOCS / "architecture.md").read_text()
PACKAGE = ROOT / "channels_wsdeny"
WALKS, NAMES = PAGE.split("## Private and undocumented names")


def test_every_module_and_folder_of_the_page_exists():
    named = set(re.findall(r"`((?:\w+/)*\w+\.py|(?:\w+/)+)`", PAGE))
    assert len(named) > 30
    assert [name for name in named if not ((ROOT / name).exists() or (PACKAGE / name).exists())] == []


def test_what_the_page_finds_in_a_module_is_there():
    found = re.findall(r"`((?:\w+/)*\w+)\.py`: ((?:`\w+`(?:, )?)+)", WALKS)
    assert len(found) > 10
    for module, names in found:
        name = module.removeprefix("channels_wsdeny/")
        loaded = import_module(f"channels_wsdeny.{name.replace('/', '.')}")
        assert [name for name in re.findall(r"\w+", names) if not hasattr(loaded, name)] == [], module


def test_the_methods_and_classes_of_the_walks_are_there():
    code = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    handler = re.findall(r"`WebSocketHandler\.(\w+)`", WALKS)
    assert len(handler) == 2
    for name in handler:
        assert f"    async def {name}(" in (PACKAGE / "handlers/websocket.py").read_text(), name
    for name in ("HandshakeRequest", "ViewHandler", "MirrorMiddleware", "DenyMiddlewareStack"):
        assert name in WALKS
        assert f"class {name}" in code, name


def test_every_private_name_is_used_where_the_table_says_and_has_a_test():
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    rows = [line.split(" | ") for line in NAMES.splitlines() if " | `" in line]
    assert len(rows) > 25
    for names, files, _, noticing in rows:
        where = [PACKAGE / name for name in re.findall(r"`([\w/.]+)`", files)]
        code = "\n".join(
            each.read_text() for path in where for each in (path.rglob("*.py") if path.is_dir() else [path])
        )
        private = re.findall(r"\b_\w+", names)
        assert [name for name in private if name not in code] == [], names
        wanted = re.findall(r"`(test_\w+)`", noticing)
        assert wanted, names
        assert [test for test in wanted if f"def {test}(" not in tests] == [], names


def test_the_picture_names_the_rooms_of_the_package():
    picture = (DOCS / "architecture.svg").read_text()
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert [room for room in rooms if f">{room}/" not in picture] == []
