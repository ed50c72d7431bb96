"""The files around the package name the same versions, commands and contributors; its texts are translated."""

import configparser
import gettext
import re
import tomllib
from fnmatch import fnmatch
from io import BytesIO
from pathlib import Path

import pytest
from django.contrib import admin

import channels_wsdeny
from tests.support.processes import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CLASSIFIERS = PROJECT["project"]["classifiers"]
PYTHONS = re.findall(r"Python :: (3\.\d+)", "\n".join(CLASSIFIERS))
DJANGOS = re.findall(r"Django :: (\d\.\d)", "\n".join(CLASSIFIERS))
TOX = configparser.ConfigParser()
TOX.read(ROOT / "tox.ini")
ENVIRONMENTS = TOX["tox"]["env_list"].split(", ")
WORKFLOW = (ROOT / ".github/workflows/tests.yml").read_text()
#: It may fail: it is not declared.
FUTURE_DJANGO = "djangomain"
TEXTS = [
    *(path for path in ROOT.glob("*") if path.suffix in {".md", ".toml", ".yml", ".ini", ".in"}),
    ROOT / "LICENSE",
    *(ROOT / ".github").rglob("*.yml"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "js").glob("*.md"),
    ROOT / "js" / "package.json",
]


def text(name):
    return (ROOT / name).read_text()


def factor(django):
    return f"django{django.replace('.', '')}"


def test_the_workflow_runs_on_every_declared_version_and_on_what_may_fail():
    pythons, djangos = (re.search(rf"{name}: \[(.*)\]", WORKFLOW).group(1) for name in ("python", "django"))
    assert re.findall(r"[\d.]+", pythons) == PYTHONS
    assert djangos.split(", ") == [*map(factor, DJANGOS), FUTURE_DJANGO]
    assert f"continue-on-error: ${{{{ matrix.django == '{FUTURE_DJANGO}' }}}}" in WORKFLOW


def test_tox_knows_every_environment_of_the_workflow_and_runs_on_every_declared_version():
    dependencies = dict(line.split(": ", 1) for line in TOX["testenv"]["deps"].strip().splitlines())
    assert list(dependencies) == [*map(factor, DJANGOS), FUTURE_DJANGO, "lowest"]
    for django in DJANGOS:
        assert dependencies[factor(django)].startswith(f"Django>={django},<"), dependencies
    lowest, *others = ENVIRONMENTS
    assert lowest == f"py{PYTHONS[0].replace('.', '')}-lowest"
    assert f'{{python: "{PYTHONS[0]}", django: lowest}}' in WORKFLOW
    pythons, djangos = zip(*(environment.split("-") for environment in others), strict=True)
    assert list(pythons) == [f"py{python.replace('.', '')}" for python in PYTHONS]
    assert list(dict.fromkeys(djangos)) == [*map(factor, DJANGOS)]


def test_the_lowest_django_and_servers_are_those_of_the_texts():
    lowest = dict(re.findall(r"^([\w-]+)==([\w.]+)$", text(".ci/lowest.txt"), re.MULTILINE))
    assert lowest["django"] == DJANGOS[0]
    servers = dict(re.findall(r"^\| (\w+)[^|]*\| (\d+\.[\d.]+) \|", text("README.md"), re.MULTILINE))
    assert servers == {name: lowest[name.lower()] for name in ("Daphne", "uvicorn", "hypercorn", "granian")}


def test_tools_and_documents_name_the_lowest_python():
    lowest = PYTHONS[0]
    assert PROJECT["project"]["requires-python"] == f">={lowest}"
    assert PROJECT["tool"]["mypy"]["python_version"] == lowest
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"
    for name in ("README.md", "CONTRIBUTING.md", "docs/index.md"):
        assert f"Python {lowest} or later" in text(name), name


def test_the_page_of_versions_and_the_security_policy_name_the_supported_ones():
    page = text("docs/versions.md")
    assert f"| Python | {', '.join(PYTHONS)} |" in page
    assert f"| Django | {', '.join(DJANGOS)} |" in page
    assert f"| {channels_wsdeny.__version__.rpartition('.')[0]} | yes" in text("SECURITY.md")


def test_contributors_run_the_commands_of_the_readme():
    for command in re.findall(r"^.*\.venv/bin/python -m pytest.*$", text("README.md"), re.MULTILINE):
        assert command in text("CONTRIBUTING.md").splitlines()
    assert "run: .ci/checks\n" in WORKFLOW
    assert "\n.ci/checks\n" in text(".ci/run")


@pytest.mark.parametrize(
    "part", ["nginx-light haproxy", "typescript@7", "manage\\.py demo$' README.md) --setup-only", "benchmarks --quick"]
)
def test_the_workflow_has_and_calls_what_the_script_for_everything_does(part):
    assert part in text(".ci/run")
    assert part in WORKFLOW


def test_what_is_published_was_checked_as_in_the_checks():
    release = text(".github/workflows/release.yml")
    for command in ("twine check --strict", "check-wheel-contents"):
        assert command in text(".ci/checks")
        assert command in release
    assert "id-token: write" in release
    assert "password" not in release


def test_the_links_of_the_readme_lead_to_files_and_from_the_package_index_to_the_repository():
    link = re.compile(r"\]\((?!https://)([^)#]+)")
    readme = text("README.md")
    assert "docs/demo.png" in link.findall(readme)
    for path in link.findall(readme):
        assert (ROOT / path).is_file(), path
    release = text(".github/workflows/release.yml")
    for pattern, replacement in re.findall(r'sed -E -i "s#(.+)#(.+)#g" README.md', release):
        readme = re.sub(pattern, replacement.replace("$URL", "https://forge.example"), readme)
    assert "](https://forge.example/raw/$TAG/docs/demo.png)" in readme
    assert "](https://forge.example/blob/$TAG/docs/live.md)" in readme
    assert link.findall(readme) == []


def test_the_contributors_are_named_alike_and_no_file_has_an_address_of_mail():
    contributors = "The channels-wsdeny contributors"
    assert PROJECT["project"]["authors"] == [{"name": contributors}]
    assert f"Copyright (c) {contributors}." in text("LICENSE")
    for path in TEXTS:
        assert re.findall(r"[\w.+-]+@(?!example\.|v?\d)[\w-]+\.\w+", path.read_text()) == [], path


def test_a_link_to_the_projects_page_on_the_package_index_is_said_to_hold_from_the_first_release_on():
    link = f"https://pypi.org/project/{PROJECT['project']['name']}/"
    naming = [(path.name, part) for path in TEXTS for part in path.read_text().split("\n\n") if link in part]
    assert naming
    for name, part in naming:
        assert re.search(rf"From the first release on,\s[^.]*{re.escape(link)}", part), name


def test_every_host_in_the_texts_is_one_for_examples_or_is_known():
    """RFC 2606 and RFC 6761 reserve the former, so that no address that a text has made up is anyone's."""
    for_examples = re.compile(r"(.+\.)?example(\.com|\.org)?|127\.0\.0\.1|localhost|mysite")
    known = {"channels.readthedocs.io", "docs.djangoproject.com", "www.djangoproject.com", "pypi.org", "semver.org"}
    for path in TEXTS:
        hosts = re.findall(r"\b(?:https?|wss?)://(?!github\.com/django/)([\w.*-]+)", path.read_text())
        assert [host for host in hosts if host not in known and not for_examples.fullmatch(host)] == [], path


def test_every_text_is_translated_here_or_by_django():
    marked = re.compile(r"""\b_\(\s*"([^"]+)"|\{% translate "([^"]+)" %\}""")
    package = Path(channels_wsdeny.__file__).parent
    sources = [*package.rglob("*.py"), *package.rglob("*.html")]
    texts = {found[1] or found[2] for path in sources for found in marked.finditer(path.read_text())}
    known = set()
    for app in (package, Path(admin.__file__).parent):
        catalog = BytesIO((app / "locale/de/LC_MESSAGES/django.mo").read_bytes())
        known |= gettext.GNUTranslations(catalog)._catalog.keys()
    assert len(texts) > 30
    assert texts - known == set()


def test_every_file_of_the_package_is_shipped():
    package = ROOT / "channels_wsdeny"
    shipped = PROJECT["tool"]["setuptools"]["package-data"]["channels_wsdeny"]
    files = [file.relative_to(package).as_posix() for file in package.rglob("*") if file.is_file()]
    others = [name for name in files if not name.endswith((".py", ".pyc"))]
    assert [name for name in others if not any(fnmatch(name, pattern) for pattern in shipped)] == []
    assert "contrib/admin/templates/channels_wsdeny/admin/report.html" in others


def test_the_commands_of_the_readme_name_extras_and_markers_that_exist():
    extras = re.findall(r'--editable "\.\[(\w+)\]"', text("README.md"))
    assert set(extras) <= set(PROJECT["project"]["optional-dependencies"])
    fast, whole = re.findall(r"\.venv/bin/python -m pytest\b(.*)", text("README.md"))
    registered = [line.partition(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]]
    expression = " and ".join(f"not {marker}" for marker in registered)
    assert (fast, whole) == (f' -n 2 -m "{expression}"', " -n 2")


def test_the_lowest_versions_that_are_tested_are_those_that_are_allowed():
    extras = PROJECT["project"]["optional-dependencies"]
    named = [
        *PROJECT["project"]["dependencies"],
        *(each for extra in extras.keys() - {"bench", "dev", "docs"} for each in extras[extra]),
    ]
    floors = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?>=([\d.]+)$", "\n".join(named), re.MULTILINE))
    lowest = dict(re.findall(r"^([\w-]+)==(.+)$", text(".ci/lowest.txt"), re.MULTILINE))
    assert lowest.pop("psycopg-binary") == lowest["psycopg"]
    assert lowest == floors


def test_the_changelog_begins_with_this_version():
    assert re.findall(r"^## (\S+)", text("CHANGELOG.md"), re.MULTILINE)[0] == channels_wsdeny.__version__
