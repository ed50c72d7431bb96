"""The module as it is shipped: its size, its copies, its types, and its tests under node."""

import gzip
import json
import re
import shutil
import subprocess

import pytest
from django.contrib.staticfiles import finders
from django.template import Context, Template
from django.templatetags.static import static

import channels_wsdeny
from tests.docs.pages import blocks
from tests.support.processes import ROOT

PACKAGE = ROOT / "js"
MODULE = ROOT / "channels_wsdeny/static/channels_wsdeny/wsdeny.js"


def test_the_module_is_no_larger_than_3_kib_as_a_web_server_sends_it():
    assert len(gzip.compress(MODULE.read_bytes())) <= 3 * 1024


def test_the_package_for_npm_has_the_module_that_the_site_serves_and_the_version():
    assert (PACKAGE / "wsdeny.js").read_bytes() == MODULE.read_bytes()
    assert (PACKAGE / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    package = json.loads((PACKAGE / "package.json").read_text())
    assert (package["version"], "dependencies" in package) == (channels_wsdeny.__version__, False)
    assert f"channels-wsdeny {channels_wsdeny.__version__}," in MODULE.read_text()
    for name in (*package["files"], *package["exports"]["."].values()):
        assert (PACKAGE / name).is_file()


def test_django_serves_the_module_and_the_import_map_of_the_page_on_browsers_names_it():
    assert finders.find("channels_wsdeny/wsdeny.js") == str(MODULE)
    (snippet,) = blocks("browsers.md", "html")
    found = json.loads(
        re.search(r"<script type=\"importmap\">(.*)</script>", Template(snippet).render(Context())).group(1)
    )
    assert found == {"imports": {"channels-wsdeny": static("channels_wsdeny/wsdeny.js")}}


@pytest.mark.servers
@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_modules_own_tests_pass_under_node():
    command = ["node", "--test", "test/wsdeny.test.js"]
    ran = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout
    assert int(re.search(r"^\S+ pass (\d+)$", ran.stdout, re.MULTILINE).group(1)) > 15


@pytest.mark.servers
@pytest.mark.skipif(
    shutil.which("tsc") is None, reason="needs the TypeScript compiler: `npm install --global typescript`"
)
def test_the_types_are_those_of_the_module():
    command = ["tsc", "--project", "test"]
    ran = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout
