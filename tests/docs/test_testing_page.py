"""The tests that docs/testing.md shows pass, under pytest with its plugins, as a site's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from channels_wsdeny.testing.responses import HandshakeResponse
from tests.docs.pages import DOCS, blocks

ROOT = Path(__file__).parents[2]
TESTS = "\n".join(blocks("testing.md"))


def test_its_tests_pass_and_all_are_run(tmp_path):
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n"
    )
    (tmp_path / "test_site.py").write_text(TESTS)
    plugins = ["pytest_django.plugin", "pytest_asyncio.plugin", "channels_wsdeny.pytest_plugin"]
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"),
            *(f"-p{plugin}" for plugin in plugins),
            "test_site.py",
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "testproject.settings",
            "PYTHONPATH": str(ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "TESTPROJECT_DATABASE_NAME": "testproject_docs",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    written = TESTS.count("def test_")
    assert f"{written} passed" in result.stdout, result.stdout + result.stderr


def test_a_denial_is_asserted_in_three_lines():
    first = blocks("testing.md")[0]
    assert len(first[first.index("async def") :].splitlines()) == 3


def test_what_the_page_says_of_a_response_is_there():
    response = HandshakeResponse("/", 101)
    names = "status_code headers cookies content json code subprotocol close_code close_reason"
    for name in re.findall(r"\w+", names):
        assert f"`{name}" in (DOCS / "testing.md").read_text()
        assert hasattr(response, name)
