"""What users import: from one module, which needs neither settings nor a server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from channels_wsdeny import testing

ROOT = Path(__file__).parents[2]

REFUSING = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"daphne", "twisted", "autobahn", "uvicorn", "pytest"}:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)

sys.meta_path.insert(0, Refusing())
"""


@pytest.mark.parametrize("name", testing.__all__)
def test_every_name_is_there(name):
    assert hasattr(testing, name)


def test_the_names_are_sorted():
    assert sorted(testing.__all__) == testing.__all__


def test_it_needs_neither_settings_nor_a_server():
    source = "import channels_wsdeny.testing; from django.conf import settings; print(settings.configured)"
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", REFUSING + source],
        cwd=ROOT,
        env={},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("False\n", "")
