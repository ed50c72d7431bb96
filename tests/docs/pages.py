"""The pages of the documentation, whose snippets the tests run."""

from __future__ import annotations

import re
import sys
import types
from typing import TYPE_CHECKING, Any

from tests.support.processes import ROOT, answers_of

if TYPE_CHECKING:
    from pathlib import Path

DOCS = ROOT / "docs"
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]*)"')


def blocks(page: str, language: str = "python") -> list[str]:
    """The snippets of a page in this language, in their order."""
    return [text for found, _, text in _found(page) if found == language]


def titled(page: str) -> dict[str, str]:
    """The snippets of a page that have a title, such as the name of a file, by it."""
    return {title.group(1): text for _, rest, text in _found(page) if (title := _TITLE.search(rest))}


def run(page: str) -> types.ModuleType:
    """A module in which all Python of a page was run, from its top to its end."""
    return run_snippets(page, blocks(page))


def run_snippets(page: str, snippets: list[str]) -> types.ModuleType:
    """A module in which these snippets of a page were run, one after another; their `chat` is the test project's."""
    from testproject.chat import models

    name = f"tests.docs.of_{page.removesuffix('.md').replace('-', '_').replace('/', '_')}"
    module = types.ModuleType(name)
    sys.modules[name] = module
    sys.modules["chat.models"] = models
    try:
        for number, block in enumerate(snippets, 1):
            exec(compile(block, f"{page}, snippet {number}", "exec"), module.__dict__)
    finally:
        del sys.modules["chat.models"]
    return module


def guardian_site(page: str, directory: Path) -> Any:
    """What a site with the snippets about django-guardian of a page answers, in a process of its own."""
    return answers_of("tests.support.guardian_site", str(directory / "database"), page, warnings="error")


def _found(page: str) -> list[tuple[str, str, str]]:
    return _BLOCK.findall((DOCS / page).read_text())
