"""docs/architecture.md names modules that exist."""

from __future__ import annotations

import re
from pathlib import Path

import channels_wsdeny

TEXT = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
MODULES = {path.stem for path in Path(channels_wsdeny.__file__).parent.rglob("*.py")}


def test_every_module_that_is_named_exists():
    named = set(re.findall(r"\*\*`(\w+)`\*\*", TEXT))
    assert named
    assert named <= MODULES
