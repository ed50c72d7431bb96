"""The site as a whole: its pages are found, its links resolve, and no snippet is left untested."""

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

from tests.docs.pages import DOCS, blocks
from tests.support.processes import ROOT

CONFIG = (ROOT / "mkdocs.yml").read_text()
REFERENCE = (DOCS / "reference.md").read_text()
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(?:[^\]]|\]\[)+\]\(([^)\s]+)\)")


@cache
def prose(page):
    return _FENCED.sub("", (DOCS / page).read_text())


@cache
def anchors(page):
    """The anchors of the headings of a page, as Python-Markdown makes them of their text."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    texts = [re.sub(r"\]\([^)]*\)", "", heading).lower() for heading in headings]
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip()) for text in texts}


def test_every_page_is_in_the_navigation_once_after_the_overview():
    section = re.search(r"^nav:\n((?: .*\n)+)", CONFIG, re.MULTILINE).group(1)
    navigation = re.findall(r": (\S+\.md)$", section, re.MULTILINE)
    assert navigation[0] == "index.md"
    assert sorted(navigation) == PAGES


def test_every_link_within_the_site_resolves():
    links = [(page, link) for page in PAGES for link in _LINK.findall(prose(page)) if "://" not in link]
    assert len(links) > 30
    for page, link in links:
        target, _, anchor = link.partition("#")
        target = target or page
        assert (DOCS / target).is_file(), f"{page} links to {link}"
        # The anchors of the reference are the dotted names of what it is about.
        if anchor and not anchor.startswith("channels_wsdeny."):
            assert anchor in anchors(target), f"{page} links to {link}; there are {sorted(anchors(target))}"


def test_every_command_that_starts_uvicorn_has_the_option_that_the_servers_page_recommends():
    texts = {page: (DOCS / page).read_text() for page in PAGES} | {"README.md": (ROOT / "README.md").read_text()}
    commands = [(page, line) for page in texts for line in re.findall(r"uvicorn,? [^`]*?:application", texts[page])]
    assert {page for page, _ in commands} == {"README.md", "deployment.md", "quickstart.md", "servers.md"}
    assert [command for command in commands if not re.search(r"--ws,? wsproto\b", command[1])] == []


def test_every_page_with_python_is_run_by_a_test():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    run = re.findall(r'(?:run|blocks|run_snippets|titled)\("([\w-]+\.md)"', tests)
    assert [page for page in PAGES if blocks(page) and page not in run] == []


def test_the_language_of_every_snippet_is_known():
    """One that is called "py", say, would escape the tests."""
    snippets = "\n".join(snippet for page in PAGES for snippet in _FENCED.findall((DOCS / page).read_text()))
    languages = re.findall(r"^```(\S+)", snippets, re.MULTILINE)
    assert set(languages) <= {"python", "console", "sh", "json", "js", "html", "text", "nginx", "ini", "yaml"}


def test_no_snippet_is_cut_off_in_a_window_of_1300_pixels():
    """Commands are wrapped there, see docs/extra.css; of other snippets 118 characters have room."""
    for page in PAGES:
        for snippet in _FENCED.findall((DOCS / page).read_text()):
            if not snippet.startswith(("```console", "```sh")):
                assert max(map(len, snippet.splitlines())) <= 118, (page, snippet)


def test_the_files_that_pages_name_exist_and_every_page_has_one_title():
    for page in PAGES:
        for name in re.findall(r"`((?:testproject|tests|channels_wsdeny)/[\w/.]+)`", prose(page)):
            assert (ROOT / name).exists(), f"{page} names {name}"
        assert len(re.findall(r"^# ", prose(page), re.MULTILINE)) == (page != "changelog.md"), page


def test_the_changelog_is_the_projects_own():
    assert (DOCS / "changelog.md").read_text() == '--8<-- "CHANGELOG.md"\n'
    assert (ROOT / "CHANGELOG.md").read_text().startswith("# Changelog\n")


def test_the_reference_documents_what_can_be_imported_and_all_that_is_public():
    found = re.findall(r"^::: ([\w.]+)\n(?:    .*\n)*?(?:      members: \[(.*)\]\n|\n|\Z)", REFERENCE, re.MULTILINE)
    documented = {f"{path}.{name}" for path, names in found for name in names.split(", ") if name[:1].isalpha()}
    documented |= {path for path, _ in found}
    assert len(documented) > 30
    for dotted in documented:
        resolve_name(dotted)
    modules = "authentication decorators exceptions live policies routes signals testing types views"
    for module in modules.split():
        public = import_module(f"channels_wsdeny.{module}").__all__
        assert [name for name in public if not re.search(rf"\b{name}\b", REFERENCE)] == [], module
    for extra in ("contrib.admin.close_sockets", "contrib.otel.hooks", "daphne.testing.DaphneProcess"):
        assert f"channels_wsdeny.{extra}" in REFERENCE
    for attribute in ('scope["wsdeny"]', "request.wsdeny", "request.ctx", "request.auth"):
        assert f"`{attribute}`" in REFERENCE
