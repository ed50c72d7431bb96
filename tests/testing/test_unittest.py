"""The kit under unittest: with pytest on the tests' own database, and by Django's runner on one in a file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .cases import InTestCase, InTransactionTestCase, OnUvicorn  # noqa: F401 - pytest runs them

ROOT = Path(__file__).parents[2]


def test_all_pass_by_djangos_runner_on_a_database_in_a_file(tmp_path):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "django", "test", "tests.testing.cases", "--noinput"],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.testing.settings",
            "TESTS_TESTING_DATABASE": str(tmp_path / "test.sqlite3"),
            "TESTPROJECT_DATABASE_NAME": "testproject_unittest",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Ran 28 tests" in result.stderr
    assert "\nOK\n" in result.stderr
