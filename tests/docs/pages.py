"""The pages of the documentation, whose snippets the tests run."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import channels_wsdeny

DOCS = Path(channels_wsdeny.__file__).parents[1] / "docs"
_BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str = "python") -> list[str]:
    """The snippets of a page in this language, in their order."""
    return [text for found, text in _BLOCK.findall((DOCS / page).read_text()) if found == language]


def run(page: str) -> types.ModuleType:
    """A module in which all Python of a page was run, from its top to its end."""
    name = f"tests.docs.of_{page.removesuffix('.md').replace('-', '_').replace('/', '_')}"
    module = types.ModuleType(name)
    sys.modules[name] = module
    for number, block in enumerate(blocks(page), 1):
        exec(compile(block, f"{page}, snippet {number}", "exec"), module.__dict__)
    return module
