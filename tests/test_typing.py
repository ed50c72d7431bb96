"""The public types, as mypy and pyright see them with the stubs of Django and Channels: on a strictly typed site, and
on snippets of the README and of the documentation.

What must be an error is written down there with the comment that allows it, and a comment that is not needed is an
error as well.
"""

import json
import re
import subprocess
import sys

import pytest

from tests.docs.pages import blocks, titled
from tests.support.processes import ENVIRONMENT, ROOT

# They are in the extra "dev", not in "test".
pytest.importorskip("mypy")
pytest.importorskip("pyright")
pytestmark = pytest.mark.servers

ASGI, CONSUMERS, SETTINGS, *SNIPPETS = blocks("../README.md")
QUICKSTART, TYPES = titled("quickstart.md"), titled("typing.md")
ROUTING = """
from typing import Any

from django.urls import path

from .consumers import ChatConsumer

route = path("ws/chat/", ChatConsumer.as_asgi())  # type: ignore[arg-type]  # pyright: ignore
websocket_urlpatterns: list[Any] = [route]
"""
#: What the other snippets of the README, one after another, have from a site: `router`, and an app `chat`.
PRELUDE = """
from channels.routing import ProtocolTypeRouter
from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.types import context_of

router = ProtocolTypeRouter({})
"""
#: Those that are whole modules, by the name in their first line.
MODULES = {name[1]: text for text in SNIPPETS if (name := re.match(r"# (\w+/\w+\.py)\n", text))}
# The stubs of Channels do not know this key: docs/typing.md says so, and what to write.
CHECKED = "\n".join([PRELUDE, *(text for text in SNIPPETS if text not in MODULES.values())]).replace(
    'self.scope["wsdeny"]', "context_of(self.scope)"
)
SITES = {
    "typed": {"typedsite.py": (ROOT / "tests/support/typed/site.py").read_text()},
    "documented": {"asgi.py": "", **TYPES},
    "README": {
        "asgi.py": ASGI,
        "settings.py": SETTINGS,
        "chat/consumers.py": CONSUMERS,
        "chat/routing.py": ROUTING,
        "chat/models.py": "from testproject.chat.models import Room as Room\n",
        **MODULES,
        "snippets.py": CHECKED,
    },
    "quickstart": {
        "asgi.py": QUICKSTART["mysite/asgi.py"],
        "urls.py": QUICKSTART["mysite/urls.py"],
        "chat/urls.py": "urlpatterns: list[object] = []\n",
        "chat/views.py": QUICKSTART["chat/views.py"],
        "chat/tests.py": QUICKSTART["chat/tests.py"],
        "chat/consumers.py": CONSUMERS,
        "chat/routing.py": ROUTING,
    },
}
MYPY = """
[mypy]
plugins = mypy_django_plugin.main
strict = {strict}
check_untyped_defs = true
warn_unused_ignores = true
[mypy.plugins.django-stubs]
django_settings_module = testproject.settings
"""


def check(tool, directory, *arguments):
    """The output of a type checker, which has found nothing."""
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)}
    command = [sys.executable, "-m", tool, *arguments]
    found = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture(params=SITES)
def site(request, tmp_path):
    for name, text in SITES[request.param].items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        if "/" in name:
            (tmp_path / name).with_name("__init__.py").touch()
    return tmp_path, request.param in {"typed", "documented"}


def test_mypy_finds_nothing(site):
    directory, is_strict = site
    (directory / "mypy.ini").write_text(MYPY.format(strict=is_strict))
    files = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*.py"))
    cache = str(ROOT / ".mypy_cache" / "typing")
    assert "Success" in check("mypy", directory, "--config-file", "mypy.ini", "--cache-dir", cache, *files)


def test_pyright_finds_nothing(site):
    directory, is_strict = site
    settings = {
        "typeCheckingMode": "strict" if is_strict else "standard",
        "extraPaths": [str(ROOT)],
        "enableTypeIgnoreComments": False,
        "reportUnnecessaryTypeIgnoreComment": True,
    }
    (directory / "pyrightconfig.json").write_text(json.dumps(settings))
    assert "0 errors, 0 warnings" in check("pyright", directory, "--pythonpath", sys.executable)
