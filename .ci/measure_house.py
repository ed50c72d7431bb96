"""Measure the structure of the package, and print each figure beside its target.

Run in an environment that has the extra "test": ``python .ci/measure_house.py``. It measures the files of the
tree that it stands in. With ``--strict`` it fails where a target is not met.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import logging
import re
import sys
import tempfile
import threading
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "channels_wsdeny"

#: Rooms and modules that came after the targets were set: their lines are not counted.
LATER = (
    "authentication",
    "live",
    "contrib/rest_framework",
    "contrib/admin",
    "policies/throttling",
    "policies/origin",
    "policies/connections",
    "handlers/django_middleware",
    "handlers/open_socket",
    "handlers/recheck",
    "http/cors",
    "http/origins",
    "checks/caches",
)
ROOMS = ("http", "policies", "hooks", "routing", "handlers", "inspection", "checks", "testing")
OLD_MODULE_NAMES = re.compile(
    "admission|appdenial|appstream|corridor|departure|doors|drivers|emitter|exchange|failures|footing"
    "|gatekeeper|loans|locks|lookahead|onion|passage|plan|problems|question|reflex|refusal|rehearsal|sighting"
    "|stock|surrounding|understudy|visitor|walk|ways|wire|wiring"
)
#: Names with an underscore that Django or Python documents.
DOCUMENTED_NAMES = {"_base_manager", "_current_frames", "_default_manager", "_meta", "_unregister_task"}
#: Words that say nothing of requests and responses, in the first paragraph of a docstring.
PRIVATE_WORDS = re.compile(
    r"\b(nobody|somebody|whoever|further in|further out|has a say|have a say|as above)\b", re.IGNORECASE
)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Module:
    """A file of the package: its lines, its syntax tree, its imports of other modules."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path.relative_to(PACKAGE))
        self.text = path.read_text()
        self.lines = len(self.text.splitlines())
        self.tree = ast.parse(self.text)

    def imports(self) -> set[Path]:
        """The files that are imported with the module, at run time."""
        skipped = set()
        for node in ast.walk(self.tree):
            if isinstance(node, FUNCTIONS) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
                skipped.update(id(inner) for inner in ast.walk(node))
        found = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in skipped:
                found.update(file_of(name) for name in self._names(node))
        return {path for path in found if path is not None} - {self.path}

    def _names(self, node: ast.Import | ast.ImportFrom) -> list[tuple[str, ...]]:
        """The dotted names that a statement imports, as tuples."""
        if isinstance(node, ast.Import):
            return [tuple(alias.name.split(".")) for alias in node.names]
        package = self.path.relative_to(ROOT).parent.parts
        start = package[: len(package) - node.level + 1] if node.level else ()
        module = (*start, *(node.module.split(".") if node.module else ()))
        return [(*module, alias.name) for alias in node.names]


def file_of(name: tuple[str, ...]) -> Path | None:
    """The file of a dotted name, or of the module that it is a name in; None outside the package."""
    if not name or name[0] != PACKAGE.name:
        return None
    path = ROOT.joinpath(*name)
    found = [candidate for candidate in (path.with_suffix(".py"), path / "__init__.py") if candidate.is_file()]
    return found[0] if found else file_of(name[:-1])


def longest_chain(imports: dict[Any, set[Any]]) -> int:
    """The number of nodes on the longest way through a graph; a circle is cut where it closes."""
    lengths: dict[Any, int] = {}

    def length(node: Any, way: tuple[Any, ...] = ()) -> int:
        if node in way:
            return 0
        if node not in lengths:
            lengths[node] = 1 + max((length(other, (*way, node)) for other in imports[node]), default=0)
        return lengths[node]

    return max(map(length, imports))


def private_words(modules: list[Module]) -> int:
    """The number of docstrings whose first paragraph has a word that says nothing."""
    documented = (ast.Module, ast.ClassDef, *FUNCTIONS)
    nodes = (node for module in modules for node in ast.walk(module.tree) if isinstance(node, documented))
    return sum(bool(PRIVATE_WORDS.search((ast.get_docstring(node) or "").split("\n\n")[0])) for node in nodes)


def foreign_private_names(modules: list[Module]) -> dict[str, set[str]]:
    """Names with one leading underscore that are used but not defined here, and the modules that use them."""
    defined: set[str] = set()
    used: dict[str, set[str]] = {}
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                defined.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.id)
            elif isinstance(node, ast.arg):
                defined.add(node.arg)
            elif isinstance(node, ast.Attribute):
                is_own = isinstance(node.ctx, ast.Store) and getattr(node.value, "id", "") in {"self", "cls"}
                if is_own:
                    defined.add(node.attr)
                else:
                    used.setdefault(node.attr, set()).add(module.name)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                for alias in node.names:
                    used.setdefault(alias.name, set()).add(module.name)
    foreign = used.keys() - defined - DOCUMENTED_NAMES
    return {name: used[name] for name in sorted(foreign) if re.match(r"_(?!wsdeny)[a-z]", name)}


# A handshake and a view of a site with sessions and permissions, in this process.


def make_site(directory: str) -> tuple[Any, bytes]:
    """An application with a guarded socket and a guarded view, and the cookie of a user who may have both."""
    import django
    from django.conf import settings

    urls: Any = ModuleType("urls")
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{directory}/db.sqlite3"}
    contrib = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
    settings.configure(
        SECRET_KEY="measure" * 8,
        ALLOWED_HOSTS=["localhost", "testserver"],
        ROOT_URLCONF=urls,
        DATABASES={"default": database},
        INSTALLED_APPS=["channels_wsdeny", *contrib],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "channels_wsdeny.middleware.MirrorMiddleware",
        ],
    )
    django.setup()

    from channels.generic.websocket import AsyncWebsocketConsumer
    from channels.routing import ProtocolTypeRouter, URLRouter
    from django.contrib.auth.models import Permission, User
    from django.core.asgi import get_asgi_application
    from django.core.management import call_command
    from django.http import HttpResponse
    from django.test import Client
    from django.urls import path

    from channels_wsdeny import DenyMiddlewareStack
    from channels_wsdeny.decorators import permission_required

    call_command("migrate", verbosity=0)
    alice = User.objects.create_user("alice")
    alice.user_permissions.add(Permission.objects.get(codename="view_user"))
    client = Client()
    client.force_login(alice)

    @permission_required("auth.view_user")
    class Guarded(AsyncWebsocketConsumer):
        pass

    @permission_required("auth.view_user")
    def view(request: Any) -> HttpResponse:
        return HttpResponse("fine")

    urls.urlpatterns = [path("guarded/", view)]
    router = URLRouter([path("guarded/", Guarded.as_asgi())])
    application = DenyMiddlewareStack(ProtocolTypeRouter({"http": get_asgi_application(), "websocket": router}))
    return application, client.cookies.output(header="", attrs=[]).strip().encode()


async def handshake(application: Any, cookie: bytes) -> None:
    await request(application, cookie, "websocket", {"type": "websocket.connect"}, ["websocket.accept"])


async def get(application: Any, cookie: bytes) -> None:
    answer = ["http.response.start", "http.response.body"]
    await request(application, cookie, "http", {"type": "http.request"}, answer)


async def request(application: Any, cookie: bytes, kind: str, event: dict[str, Any], answer: list[str]) -> None:
    """Send one event to the guarded endpoint; once the expected messages are there, disconnect."""
    scope = {
        "type": kind,
        "method": "GET",
        "path": "/guarded/",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"cookie", cookie)],
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }
    events, sent, answered = [event], [], asyncio.Event()

    async def receive() -> dict[str, Any]:
        if events:
            return events.pop()
        await answered.wait()
        return {"type": f"{kind}.disconnect", "code": 1000}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message["type"])
        if message.get("status", 200) != 200 or sent == answer:
            answered.set()

    await application(scope, receive, send)
    if sent != answer:
        raise SystemExit(f"The guarded endpoint answered {sent}, not {answer}.")


def modules_passed(make_request: Any, *arguments: Any) -> list[str]:
    """The file of each function of the package that is called, in order, once everything is warm."""
    passed: list[str] = []

    def profile(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(f"{PACKAGE}/"):
            passed.append(frame.f_code.co_filename)

    async def make_requests() -> None:
        for _ in range(2):
            await make_request(*arguments)
        # Threads that run already are seen from Python 3.12 on.
        getattr(threading, "setprofile_all_threads", threading.setprofile)(profile)
        sys.setprofile(profile)
        try:
            await make_request(*arguments)
        finally:
            sys.setprofile(None)
            getattr(threading, "setprofile_all_threads", threading.setprofile)(None)

    asyncio.run(make_requests())
    return passed


def measure() -> list[tuple[str, float, float]]:
    """What is measured, what was found, and the most that it may be."""
    modules = [Module(path) for path in sorted(PACKAGE.rglob("*.py"))]
    counted = [module for module in modules if not module.name.startswith(LATER)]
    text = "".join(module.text for module in modules)
    test_lines = sum(len(path.read_text().splitlines()) for path in (ROOT / "tests").rglob("*.py"))
    architecture = (ROOT / "docs" / "architecture.md").read_text()
    unlisted = {
        name: sorted(users)
        for name, users in foreign_private_names(modules).items()
        if not re.search(rf"`[^`]*\b{name}\b", architecture)
    }
    for name, users in unlisted.items():
        print(f"{name} is private elsewhere, and docs/architecture.md does not list it: {', '.join(users)}")
    old_names = [module.path.stem for module in modules if OLD_MODULE_NAMES.fullmatch(module.path.stem)]
    with tempfile.TemporaryDirectory() as directory:
        site = make_site(directory)
        logging.disable(logging.CRITICAL)
        accepted, mirrored = modules_passed(handshake, *site), modules_passed(get, *site)
    return [
        ("lines", sum(module.lines for module in counted), 10_000),
        ("files", len(counted), 65),
        ("longest chain of imports", longest_chain({m.path: m.imports() for m in modules}), 12),
        ("modules that an accepted handshake with a permission passes", len(set(accepted)), 18),
        ("changes of module on its way", sum(one != other for one, other in pairwise(accepted)), 80),
        ("modules that an allowed view behind the mirror passes", len(set(mirrored)), 10),
        ("type: ignore", text.count("# type: ignore"), 25),
        ("noqa", text.count("# noqa"), 40),
        ("private names of others that docs/architecture.md does not list", len(unlisted), 0),
        ("lines of tests for each line of the package", test_lines / len(text.splitlines()), 1.8),
        ("docstrings with private words", private_words(modules), 0),
        ("old module names", len(old_names), 0),
        ("rooms missing", sum(not (PACKAGE / room).is_dir() for room in ROOMS), 0),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--strict", action="store_true", help="fail where a target is not met")
    is_strict = parser.parse_args().strict
    sys.path.insert(0, str(ROOT))
    found = measure()
    width = max(len(name) for name, _, _ in found)
    for name, value, target in found:
        state = "ok" if value <= target else "SHORT"
        print(f"{name:{width}}  {value:>8,.5g}  target {target:>8,.5g}  {state}")
    return int(is_strict and any(value > target for _, value, target in found))


if __name__ == "__main__":
    sys.exit(main())
