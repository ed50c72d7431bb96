"""What users import needs neither configured settings nor Daphne."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import channels_wsdeny

ROOT = Path(channels_wsdeny.__file__).parent

REFUSING = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"daphne", "twisted", "autobahn"}:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)

sys.meta_path.insert(0, Refusing())
"""


def run_python(source, **environ):
    environ = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"} | environ
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", REFUSING + source],
        env=environ,
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_refusing_finder_refuses():
    assert "daphne is not installed" in run_python("import daphne").stderr


@pytest.mark.parametrize(
    "module",
    [
        "channels_wsdeny",
        "channels_wsdeny.policies",
        "channels_wsdeny.decorators",
        "channels_wsdeny.routes",
        "channels_wsdeny.testing",
    ],
)
def test_what_users_import_needs_neither_settings_nor_daphne(module):
    ran = run_python(f"import {module}\nfrom django.conf import settings\nprint(settings.configured)")
    assert (ran.stdout, ran.stderr) == ("False\n", "")


def test_a_site_without_daphne_starts():
    ran = run_python(
        "from django.conf import settings\n"
        "settings.configure(INSTALLED_APPS=['channels_wsdeny'])\n"
        "import django; django.setup()\n"
        "from django.core import checks\n"
        "print(checks.run_checks())\n"
    )
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


def test_the_package_exports_what_it_says():
    for name in channels_wsdeny.__all__:
        assert hasattr(channels_wsdeny, name)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("channels_wsdeny", "DenyMiddlewareStack Deny Hooks"),
        (
            "channels_wsdeny.policies",
            "Policy AllowAny DenyAll IsAuthenticated IsStaff IsSuperuser InGroup HasPermission "
            "UserPassesTest",
        ),
        (
            "channels_wsdeny.decorators",
            "login_required permission_required user_passes_test require public with_hooks",
        ),
    ],
)
def test_the_names_of_the_contract_can_be_imported(module, names):
    imported = __import__(module, fromlist=["x"])
    assert [name for name in names.split() if not hasattr(imported, name)] == []
