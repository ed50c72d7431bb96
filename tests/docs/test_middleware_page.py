"""Every snippet of docs/middleware.md does what the page says; the packages that it names run in a process."""

import json
import os
import textwrap

import pytest
from django.utils import timezone

from channels_wsdeny import DenyMiddlewareStack
from tests.docs.pages import run
from tests.support.clients import cookie_header, knock
from tests.support.policies import Check
from tests.support.processes import run_python
from tests.support.sockets import consumer, guarded

pytestmark = pytest.mark.django_db
page = run("middleware.md")
HERE = page.__name__


async def test_the_stack_of_the_page_chooses_a_language():
    answer = await knock(page.application, "/", headers=[(b"accept-language", b"de")])
    assert (answer.status, answer.header("content-language")) == (101, "de")


async def test_the_time_zone_of_the_page_holds_for_policies_and_the_consumer(settings):
    seen = []

    def look(*args):
        seen.append(timezone.get_current_timezone_name())
        return True

    settings.CHANNELS_WSDENY = {"MIDDLEWARE": [f"{HERE}.TimezoneMiddleware"]}
    stack = guarded(Check(look), consumer(lambda self: look() and self.accept()).as_asgi())
    assert (await knock(stack, "/", headers=cookie_header(timezone="Asia/Tokyo"))).status == 101
    assert (await knock(stack, "/")).status == 101
    assert seen == ["Asia/Tokyo"] * 2 + ["UTC"] * 2


async def test_the_maintenance_of_the_page_denies(settings):
    settings.CHANNELS_WSDENY = {"MIDDLEWARE": [f"{HERE}.MaintenanceMiddleware"]}
    stack = DenyMiddlewareStack(page.ClockConsumer.as_asgi())
    answer = await knock(stack, "/", headers=[(b"x-maintenance", b"yes")])
    assert (answer.status, answer.header("retry-after"), answer.body) == (503, "60", b"Back soon.")
    assert (await knock(stack, "/")).status == 101


PROCESS = """
import asyncio, json
import django; django.setup()
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from django_otp import DEVICE_ID_SESSION_KEY
from django_otp.plugins.otp_static.models import StaticDevice
from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import require
from tests.support.clients import cookie_header, knock
from tests.support.policies import Check

call_command("migrate", verbosity=0)
alice = get_user_model().objects.create(username="alice")
device = StaticDevice.objects.create(user=alice, name="paper", confirmed=True)

def visit(**values):
    client = Client()
    client.force_login(alice)
    session = client.session
    session.update(values)
    session.save()
    found = []

    async def consumer(scope, receive, send):
        found.append([scope["user"].username, scope["user"].is_verified(), scope["user"].is_hijacked])
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    app = require(Check(lambda request: request.user.is_verified()))(consumer)
    headers = cookie_header(**{name: morsel.value for name, morsel in client.cookies.items()})
    headers.append((b"host", b"localhost"))
    answer = asyncio.run(knock(DenyMiddlewareStack(app), "/", headers=headers))
    return [answer.status, answer.header("content-language"), answer.header("x-content-type-options"), *found]

print(json.dumps([
    visit(),
    visit(**{DEVICE_ID_SESSION_KEY: device.persistent_id}),
    visit(**{DEVICE_ID_SESSION_KEY: "otp_static.staticdevice/99"}),
    visit(**{DEVICE_ID_SESSION_KEY: device.persistent_id, "hijack_history": ["1"]}),
]))
import os, sys
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.servers
def test_the_packages_of_the_page_work_unchanged(tmp_path):
    """A user with a verified second factor, and one whom a member of the staff has taken over."""
    for package in ("django_otp", "hijack"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    database = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "db.sqlite3")}}
    (tmp_path / "packages_settings.py").write_text(
        textwrap.dedent(f"""
            from testproject.settings import *
            INSTALLED_APPS = [*INSTALLED_APPS, "django_otp", "django_otp.plugins.otp_static", "hijack"]
            DATABASES = {database!r}
            CHANNELS_WSDENY = {page.CHANNELS_WSDENY!r}
            LOGGING = {{"version": 1, "loggers": {{"channels_wsdeny": {{"level": "ERROR"}}}}}}
        """)
    )
    path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(tmp_path)])
    printed, failures = run_python(PROCESS, settings="packages_settings", PYTHONPATH=path)
    assert failures == ""
    marks = ["en", "nosniff"]
    others = [101, *marks, ["alice", True, False]], [101, *marks, ["alice", True, True]]
    assert json.loads(printed) == [[403, *marks], others[0], [403, *marks], others[1]]
