"""The tests in docs/testing.md pass, under pytest with its plugins, as a site's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from channels_wsdeny.testing.responses import HandshakeResponse
from tests.docs.pages import DOCS, blocks, titled

ROOT = Path(__file__).parents[2]
SETTINGS = titled("testing.md")["settings.py"]
TESTS = "\n".join(block for block in blocks("testing.md") if block != SETTINGS)


@pytest.mark.servers
def test_its_tests_pass_and_all_are_run(tmp_path):
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n"
    )
    is_sqlite = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
    (tmp_path / "site_settings.py").write_text(
        "from pathlib import Path\nfrom testproject.settings import *\n"
        f"BASE_DIR = Path(__file__).parent\n{SETTINGS if is_sqlite else ''}"
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
            "DJANGO_SETTINGS_MODULE": "site_settings",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
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


def test_responses_have_what_the_page_names():
    response = HandshakeResponse(101)
    names = "status_code headers cookies content json code subprotocol close_code close_reason"
    for name in re.findall(r"\w+", names):
        assert f"`{name}" in (DOCS / "testing.md").read_text()
        assert hasattr(response, name)
