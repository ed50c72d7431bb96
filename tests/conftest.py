import gc
import logging
import sys
import time
from types import SimpleNamespace
from uuid import uuid4

import hypothesis
import pytest
from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user_model
from django.test import Client
from django.utils import translation

from channels_wsdeny import Hooks, log, signals
from channels_wsdeny.concurrency import run_in_threadpool
from channels_wsdeny.contrib.admin import denials
from channels_wsdeny.http import responses
from channels_wsdeny.live import scheduler as live_scheduler
from channels_wsdeny.policies import throttling
from tests.support.clients import cookie_header
from tests.support.live import Redis
from tests.support.site import Site
from tests.support.threads import Gate
from tests.support.transports import DJANGO

# A slow machine fails no test: hypothesis has a deadline of a fifth of a second by default.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")
# Passwords of tests are no secrets; Django's own hasher takes a quarter of a second for each.
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

_is_marked = [True]


def _watch(event, args):
    """An audit hook: only a test that is marked servers starts a process, so that the others stay fast."""
    if event in {"subprocess.Popen", "os.fork", "os.posix_spawn"} and not _is_marked[-1]:
        raise RuntimeError("This test starts a process: mark it, @pytest.mark.servers.")


sys.addaudithook(_watch)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    _is_marked.append(item.get_closest_marker("servers") is not None)
    yield
    _is_marked.pop()


@pytest.fixture(autouse=True, scope="module")
def _what_stays():
    """What pytest keeps of the tests so far is left out when a test collects garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _nothing_of_other_tests(monkeypatch):
    """Outages are logged again, and the language is that of the site: `LocaleMiddleware` leaves one in the thread.

    The ``Retry-After`` of a 503 is the setting itself, so that answers can be compared.
    """
    monkeypatch.setattr(log, "_outages", {})
    monkeypatch.setattr(responses, "_spread", float)
    yield
    translation.deactivate()


@pytest.fixture(autouse=True)
def _own_receivers(request):
    """Importing `contrib.otel` or the test project connects receivers; only the tests that are about them keep them.

    So do those of the pages of `contrib.admin` with the filter that notes denials.
    """
    handshakes = sys.modules.get("testproject.chat.handshakes")
    if handshakes is not None:
        for signal in (signals.handshake_accepted, signals.handshake_denied, signals.socket_revoked):
            signal.disconnect(handshakes.tell_monitor)
            if request.module.__name__.startswith("tests.testproject."):
                signal.connect(handshakes.tell_monitor)
    otel = sys.modules.get("channels_wsdeny.contrib.otel")
    if otel is not None:
        for signal in (signals.handshake_accepted, signals.handshake_denied):
            signal.disconnect(otel.count_handshake)
            if hasattr(request.module, "otel") or request.module.__name__.endswith("test_otel"):
                signal.connect(otel.count_handshake)
    if not request.module.__name__.endswith("test_admin_pages"):
        log.logger.removeFilter(denials.note)


@pytest.fixture
def use_application(settings, monkeypatch):
    """A function that makes an ASGI application that of the site."""

    def use(application):
        monkeypatch.setitem(sys.modules, "asgi_of_this_test", SimpleNamespace(application=application))
        settings.ASGI_APPLICATION = "asgi_of_this_test.application"

    return use


@pytest.fixture
def hooks():
    return Hooks()


@pytest.fixture
def token():
    """A word that no other test uses."""
    return uuid4().hex


@pytest.fixture
def ran():
    """The names of what ran, in order."""
    return []


@pytest.fixture(params=DJANGO)
def site(request, settings):
    """A site of the test's own, through every way that Django can run it."""
    return Site(settings, DJANGO[request.param]())


@pytest.fixture
def one(settings):
    """A site on one transport: behind a stack, under ASGI."""
    return Site(settings, DJANGO["stack"]())


@pytest.fixture
def quiet():
    """Records keep requests alive, and pytest keeps records."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def handler_of():
    """A function that puts a handler on a logger until the test ends."""
    added = []

    def add(name, handler):
        logging.getLogger(name).addHandler(handler)
        added.append((name, handler))

    yield add
    for name, handler in added:
        logging.getLogger(name).removeHandler(handler)


@pytest.fixture
def users(db):
    """alice, bob and staff (who is staff), by name."""
    model = get_user_model()
    return {name: model.objects.create_user(name, is_staff=name == "staff") for name in ("alice", "bob", "staff")}


@pytest.fixture
def sessions(users):
    """The session store of a fresh log-in of each user, by name."""

    def log_in(user):
        client = Client()
        client.force_login(user)
        assert client.session[SESSION_KEY] == str(user.pk)
        return client.session

    return {name: log_in(user) for name, user in users.items()}


@pytest.fixture
def session_with_written_key(users, monkeypatch):
    """The session of alice, where the field of the primary key writes it in a way of its own."""
    key = get_user_model()._meta.pk
    monkeypatch.setattr(key, "value_to_string", lambda user: f"no. {user.pk}")
    monkeypatch.setattr(key, "to_python", lambda value: int(str(value).removeprefix("no. ")))
    client = Client()
    client.force_login(users["alice"])
    return client.session


@pytest.fixture
def headers_of(sessions, settings):
    """A function from a user's name (or None) to the raw headers of a logged-in client."""

    def headers(name):
        if name is None:
            return []
        return cookie_header(**{settings.SESSION_COOKIE_NAME: sessions[name].session_key})

    return headers


@pytest.fixture
def gate():
    """What holds threads until it is opened, at the latest at the end of the test."""
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def redis(tmp_path):
    """A Redis of the test's own."""
    redis = Redis(tmp_path)
    redis.start()
    yield redis
    redis.go_on()
    redis.stop()


@pytest.fixture
def hasty(monkeypatch):
    """What is waited for before sockets are asked again takes no time."""
    monkeypatch.setattr(live_scheduler, "_GATHER", 0.0)
    monkeypatch.setattr(live_scheduler, "_BEHIND", 0.0)
    monkeypatch.setattr(live_scheduler, "_CONFIRM", 0.05)


@pytest.fixture
def hurry(settings, monkeypatch):
    """Policies and hooks have little time, and response hooks no second of their own after that."""
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.05}
    for module in ("base", "http", "websocket"):
        monkeypatch.setattr(f"channels_wsdeny.handlers.{module}.LEAST_SECONDS", 0.02)


@pytest.fixture
def clock(monkeypatch):
    """The time that throttles see; the cache sees the real one."""
    now = SimpleNamespace(time=lambda: now.seconds, sleep=time.sleep, seconds=1e9)
    monkeypatch.setattr(throttling, "time", now)
    return now


@pytest.fixture
def change(django_capture_on_commit_callbacks):
    """A function that changes something in a thread with a database, and commits."""

    async def change(function):
        def run():
            with django_capture_on_commit_callbacks(execute=True):
                return function()

        return await run_in_threadpool(run)

    return change
