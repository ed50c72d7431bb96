"""The site as a whole: its pages are found, its links resolve, and no snippet is left untested."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

import pytest

from tests.docs.pages import DOCS, blocks

ROOT = DOCS.parent
CONFIG = ROOT / ".ci" / "mkdocs.yml"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(?:[^\]]|\]\[)+\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def nav():
    """The pages that the site's navigation names, in its order."""
    section = re.search(r"^nav:\n((?: .*\n)+)", CONFIG.read_text(), re.MULTILINE)
    return re.findall(r": (\S+\.md)$", section.group(1), re.MULTILINE)


@cache
def prose(page):
    return _FENCED.sub("", (DOCS / page).read_text())


@cache
def anchors(page):
    """The anchors of the headings of a page, as Python-Markdown makes them of their text."""
    texts = [re.sub(r"\]\([^)]*\)", "", heading).lower() for heading in _HEADING.findall(prose(page))]
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip()) for text in texts}


def links(page):
    return [link for link in _LINK.findall(prose(page)) if "://" not in link]


def test_every_page_is_in_the_navigation_once():
    assert sorted(nav()) == PAGES


def test_the_navigation_begins_with_the_overview():
    assert nav()[0] == "index.md"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_within_the_site_resolves(page):
    for link in links(page):
        target, _, anchor = link.partition("#")
        target = target or page
        assert target in PAGES, f"{page} links to {link}"
        # The anchors of the reference are the dotted names of what it is about.
        if anchor and not anchor.startswith("channels_wsdeny."):
            assert anchor in anchors(target), f"{page} links to {link}; there are {sorted(anchors(target))}"


def test_there_are_links_to_look_at():
    assert sum(len(links(page)) for page in PAGES) > 30


@pytest.mark.parametrize("page", PAGES)
def test_every_page_with_python_has_its_tests(page):
    module = Path(__file__).with_name(f"test_{page.removesuffix('.md').replace('-', '_')}_page.py")
    assert module.exists() or not blocks(page), f"{page} has Python; test it in {module.name}"


@pytest.mark.parametrize("page", PAGES)
def test_the_language_of_every_snippet_is_known(page):
    """One that is called "py", say, would escape the tests."""
    languages = re.findall(r"^```(\S+)", "\n".join(_FENCED.findall((DOCS / page).read_text())), re.MULTILINE)
    assert set(languages) <= {"python", "console", "sh", "json", "js", "text"}


@pytest.mark.parametrize("page", PAGES)
def test_the_files_that_pages_name_exist(page):
    for name in re.findall(r"`((?:testproject|tests|channels_wsdeny)/[\w/.]+)`", prose(page)):
        assert (ROOT / name).exists(), f"{page} names {name}"


@pytest.mark.parametrize("page", [page for page in PAGES if page != "changelog.md"])
def test_every_page_has_one_title(page):
    assert len(re.findall(r"^# ", prose(page), re.MULTILINE)) == 1


def test_the_changelog_is_the_projects_own():
    assert (DOCS / "changelog.md").read_text() == '--8<-- "CHANGELOG.md"\n'
    assert (ROOT / "CHANGELOG.md").read_text().startswith("# Changelog\n")


def test_the_reference_documents_what_can_be_imported():
    text = (DOCS / "reference.md").read_text()
    found = re.findall(
        r"^::: ([\w.]+)\n(?:    .*\n)*?(?:      members: \[(.*)\]\n|\n|\Z)", text, re.MULTILINE
    )
    documented = {
        f"{path}.{name}" for path, names in found for name in names.split(", ") if name[:1].isalpha()
    }
    documented |= {path for path, _ in found}
    assert len(documented) > 30
    for dotted in documented:
        resolve_name(dotted)


@pytest.mark.parametrize("module", ["decorators", "policies", "routes", "testing"])
def test_the_reference_documents_all_that_is_public(module):
    public = getattr(import_module(f"channels_wsdeny.{module}"), "__all__", ())
    text = (DOCS / "reference.md").read_text()
    assert [name for name in public if not re.search(rf"\b{name}\b", text)] == []
