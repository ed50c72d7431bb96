"""docs/architecture.md says where modules are, as `tests.test_imports` has them."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import DOCS
from tests.test_imports import DOORS, FLOORS, modules

TEXT = (DOCS / "architecture.md").read_text()
TABLE = TEXT[TEXT.index("| floor") : TEXT.index("Beside the house")]
ROWS = [
    (name, re.findall(r"`(\w+)`", cells))
    for name, cells in re.findall(r"^\| ([a-z ]+) \| (`.*?`) \|", TABLE, re.MULTILINE)
]


def test_there_is_a_row_a_floor():
    assert len(ROWS) == len(FLOORS)


@pytest.mark.parametrize(("row", "floor"), list(zip(ROWS, reversed(FLOORS), strict=False)))
def test_each_module_is_on_its_floor(row, floor):
    assert set(row[1]) <= floor


def test_the_picture_has_the_modules_of_the_doors():
    picture = TEXT[TEXT.index("```text") : TEXT.index("The *corridor*")]
    assert all(re.search(rf"\b{module}\b", picture) for door in DOORS for module in door)


def test_every_module_that_is_named_exists():
    named = set(re.findall(r"\*\*`(\w+)`\*\*", TEXT))
    assert named
    assert named <= set(modules())
