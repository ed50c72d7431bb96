from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import django
import pytest
from asgiref.sync import async_to_sync
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.http import HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.test import AsyncClient, Client, RequestFactory
from django.urls import path, re_path
from django.utils.log import AdminEmailHandler

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.decorators import require
from channels_wsdeny.log import escape
from channels_wsdeny.policies import DenyAll, HasPermission, IsAuthenticated, IsStaff, Policy
from tests.cases import CASES, Answers, Raises
from tests.clients import fetch, knock
from tests.site import application

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.site")]

EXTRAS = ("path", "status", "code", "policy", "user", "client", "duration")
DENIED = [case for case in CASES if case.status]


@pytest.fixture
def records(caplog):
    """A function: what a logger has been told."""
    caplog.set_level(logging.INFO, "channels_wsdeny")
    return lambda name="channels_wsdeny": [record for record in caplog.records if record.name == name]


@pytest.fixture(params=["websocket", "http", "sync", "async"])
def door(request):
    return request.param


@pytest.fixture
def ask(door, headers_of, sessions, settings):
    """A function that asks for a path of `tests.site` as a user, through each door in turn."""

    def ask(name, user=None, query="", extra=()):
        if door in {"websocket", "http"}:
            function, folder = (knock, "ws") if door == "websocket" else (fetch, "http")
            url = f"/{folder}/{name}/{query}"
            async_to_sync(function)(application, url, headers=[*headers_of(user), *extra])
            return
        client = (Client if door == "sync" else AsyncClient)(raise_request_exception=False)
        if user:
            client.cookies[settings.SESSION_COOKIE_NAME] = sessions[user].session_key
        headers = {key.decode(): value.decode() for key, value in extra}
        get = client.get if door == "sync" else async_to_sync(client.get)
        get(f"/{door}/{name}/{query}", headers=headers)

    return ask


LEVELS = {3: logging.INFO, 4: logging.WARNING, 5: logging.ERROR}


@pytest.mark.parametrize("case", DENIED, ids=lambda case: case.name)
def test_a_denial_is_one_record(case, ask, records):
    ask(case.name, case.user)
    assert [(record.levelno, record.status, record.code, record.policy) for record in records()] == [
        (LEVELS[case.status // 100], case.status, case.code, repr(case.policy))
    ]


def test_the_record_says_where(ask, records, door):
    ask("anonymous")
    folder = {"websocket": "ws"}.get(door, door)
    assert [record.path for record in records()] == [f"/{folder}/anonymous/"]


def test_the_record_says_who_asked_from_where(ask, records):
    ask("anonymous")
    (record,) = records()
    assert record.client.startswith("127.0.0.1")


def test_the_record_says_how_long_it_took(ask, records):
    ask("anonymous")
    (record,) = records()
    assert 0 <= record.duration < 60


def test_the_message_says_what_was_denied_and_how(ask, records):
    ask("anonymous")
    (record,) = records()
    assert record.getMessage() == f"Denied {record.path}: 401 not_authenticated"


def test_the_record_says_who_was_denied(ask, records, users):
    ask("not-staff", "alice")
    assert [record.user for record in records()] == [users["alice"].pk]


def test_an_anonymous_visitor_is_nobody(ask, records):
    ask("anonymous")
    assert [record.user for record in records()] == [None]


def test_who_passes_leaves_no_record(ask, records):
    ask("authenticated", "alice")
    assert records() == []


def test_the_extras_are_those_that_are_documented(ask, records):
    ask("anonymous")
    (record,) = records()
    known = vars(logging.LogRecord("", 0, "", 0, "", (), None)) | {"message": "", "asctime": ""}
    assert set(vars(record)) - set(known) == set(EXTRAS)


# Secrets.

SECRETS = ("s3cret-cookie", "s3cret-query", "s3cret-token")


def everything_in(records):
    formatter = logging.Formatter()
    return "\n".join(
        formatter.format(record) + repr({k: v for k, v in vars(record).items() if k != "request"})
        for record in records
    )


@pytest.mark.parametrize(
    "name",
    [
        "anonymous",
        "deny-all",
        "raises-anything",
        "raises-bad-request",
        "answers-none",
        "bad-header",
        "response-200",
        "database-gone",
        "object-not-found",
        "redirect",
    ],
)
def test_no_record_carries_cookies_queries_or_tokens(name, ask, caplog):
    caplog.set_level(logging.DEBUG)
    extra = [(b"cookie", b"sessionid=s3cret-cookie"), (b"authorization", b"Bearer s3cret-token")]
    ask(name, query="?token=s3cret-query", extra=extra)
    assert caplog.records
    told = everything_in(caplog.records)
    assert [secret for secret in SECRETS if secret in told] == []


def test_a_query_string_that_is_not_utf8_is_not_logged(caplog):
    caplog.set_level(logging.DEBUG)
    asyncio.run(knock(application, "/ws/anonymous/", query_string=b"token=s3cret-query\xff"))
    assert [record.status for record in caplog.records if record.name == "channels_wsdeny"] == [400]
    assert "s3cret" not in everything_in(caplog.records)


# Forged records.


def stack(policy, base=AsyncWebsocketConsumer, **attributes):
    return DenyMiddlewareStack(require(policy)(type("Consumer", (base,), attributes)).as_asgi())


FORGED = [
    "/a\r\nERROR forged",
    "/a\n",
    "/a\r",
    "/\x1b[31mred",
    "/\0",
    "/\x85",
    "/\u2028x",
    "/\u202eabc",
    "/\udc80",
]


@pytest.mark.parametrize("url", FORGED)
async def test_a_path_cannot_forge_a_record(url, records):
    await knock(stack(IsAuthenticated()), url)
    (record,) = records()
    assert record.getMessage().isprintable()
    assert record.path.isprintable()


@pytest.mark.parametrize("url", FORGED)
async def test_a_path_cannot_forge_the_record_of_a_traceback(url, records):
    await knock(stack(Raises(lambda: ZeroDivisionError())), url)
    (record,) = records("django.request")
    assert record.getMessage().isprintable()


@pytest.mark.parametrize("code", ["a\r\nb", "a\x1b[31m", "a\0"])
async def test_a_code_cannot_forge_a_record(code, records):
    await knock(stack(Answers(lambda: Deny(403, code=code))), "/")
    (record,) = records()
    assert record.getMessage().isprintable()
    assert record.code.isprintable()


async def test_a_path_in_any_script_is_legible(records):
    await knock(stack(IsAuthenticated()), "/räume/世界/")
    (record,) = records()
    assert record.getMessage() == "Denied /räume/世界/: 401 not_authenticated"


async def test_a_path_with_percent_signs_is_no_format(records):
    await knock(stack(IsAuthenticated()), "/%s%n%(path)s")
    (record,) = records()
    assert record.getMessage() == "Denied /%s%n%(path)s: 401 not_authenticated"


def test_escaping_leaves_what_can_be_printed():
    assert escape("/räume/世界?a b\\") == "/räume/世界?a b\\"


def test_escaping_shows_what_cannot():
    assert escape("\r\n\x1b\u2028") == "\\r\\n\\x1b\\u2028"


# Tracebacks.


@pytest.mark.parametrize("name", ["raises-anything", "raises-anything-async", "not-raises"])
def test_an_exception_has_its_traceback_under_django_request(name, ask, records):
    ask(name)
    with_traceback = [record for record in records("django.request") if record.exc_info]
    assert [record.exc_info[0] for record in with_traceback] == [ZeroDivisionError]


@pytest.mark.parametrize("name", ["database-gone", "cache-gone"])
def test_what_is_unreachable_has_its_traceback_too(name, ask, records):
    ask(name)
    (record,) = [record for record in records("django.request") if record.exc_info]
    assert record.getMessage().startswith("Service Unavailable: /")
    assert record.status_code == 503


@pytest.mark.parametrize(
    "name",
    ["anonymous", "deny-all", "raises-permission-denied", "raises-http404", "raises-bad-request", "redirect"],
)
def test_what_is_the_visitors_fault_has_no_traceback(name, ask, records):
    ask(name)
    assert [record for record in records("django.request") if record.exc_info] == []


def test_the_record_of_a_traceback_has_the_request(ask, records, door):
    ask("raises-anything")
    (record,) = [record for record in records("django.request") if record.exc_info]
    assert record.status_code == 500
    assert record.request.path.endswith("/raises-anything/")


async def test_a_denial_that_is_late_in_its_thread_is_logged_once(records, settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.1}
    ended = threading.Event()

    def slow():
        time.sleep(0.8)
        yield b"a"
        ended.set()

    answer = await knock(stack(Answers(lambda: StreamingHttpResponse(slow(), status=403))), "/")
    await asyncio.to_thread(ended.wait, 5)
    await asyncio.sleep(0.1)
    assert (answer.status, [record.status for record in records()]) == (503, [503])


async def test_a_path_without_a_route_is_no_error(records):
    nowhere = DenyMiddlewareStack(
        ProtocolTypeRouter({"websocket": URLRouter([path("here/", stack(DenyAll()))])})
    )
    answer = await knock(nowhere, "/nowhere/")
    assert answer.status == 404
    assert [(record.levelname, record.status) for record in records()] == [("WARNING", 404)]
    assert records("django.request") == []


async def test_a_path_without_a_route_was_asked_of_no_policy(records):
    nowhere = DenyMiddlewareStack(URLRouter([re_path("^here/$", stack(DenyAll()))]))
    await knock(nowhere, "/nowhere/")
    assert [record.policy for record in records()] == [None]


async def test_a_deny_of_the_sites_own_with_a_500_has_no_traceback(records):
    await knock(stack(Answers(lambda: Deny(500, "Sorry."))), "/")
    assert len(records()) == 1
    assert records("django.request") == []


async def test_a_deny_that_was_raised_from_an_error_has_its_traceback(records):
    class Policies(Policy):
        def check(self, request):
            raise Deny(503) from KeyError("why")

    await knock(stack(Policies()), "/")
    (record,) = records("django.request")
    assert record.exc_info[0] is KeyError


async def test_the_policy_of_the_record_is_the_expression_that_was_asked_last(records):
    consumer = require(IsAuthenticated() | DenyAll())(
        require(HasPermission("auth.add_user"))(type("Consumer", (AsyncWebsocketConsumer,), {}))
    )
    await knock(DenyMiddlewareStack(consumer.as_asgi()), "/")
    assert [record.policy for record in records()] == ["IsAuthenticated() | DenyAll()"]


async def test_the_policy_of_an_app_that_nobody_can_see_into_is_the_default_one(records):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})

    await knock(DenyMiddlewareStack(app, default_policy=DenyAll()), "/")
    assert [record.policy for record in records()] == ["DenyAll()"]


async def test_a_policy_that_cannot_be_printed_is_logged_nevertheless(records):
    class Unspeakable(Policy):
        def check(self, request):
            return False

        def __repr__(self):
            raise ZeroDivisionError

    assert (await knock(stack(Unspeakable()), "/")).status == 403
    (record,) = records()
    assert "Unspeakable" in record.policy


async def test_a_client_without_an_address_is_none(records):
    await knock(stack(IsAuthenticated()), "/", client=None)
    assert [record.client for record in records()] == [None]


async def test_the_client_is_its_address_and_port(records):
    await knock(stack(IsAuthenticated()), "/", client=["::1", 4711])
    assert [record.client for record in records()] == ["::1:4711"]


async def test_the_user_of_a_scope_is_named(records, users):
    await knock(stack(IsStaff()), "/", user=users["alice"])
    assert [record.user for record in records()] == [users["alice"].pk]


# Handlers.


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


class Broken(logging.Handler):
    def emit(self, record):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("logger", "policy", "status"),
    [
        ("channels_wsdeny", IsAuthenticated(), 401),
        ("channels_wsdeny", Raises(lambda: KeyError()), 500),
        ("django.request", Raises(lambda: KeyError()), 500),
    ],
)
async def test_a_handler_that_raises_costs_nobody_the_answer(logger, policy, status, handler_of, capsys):
    handler_of(logger, Broken())
    assert (await knock(stack(policy), "/")).status == status


@pytest.fixture
def mail(settings, mailoutbox, handler_of):
    address = "admin@example.com"
    settings.ADMINS = [address] if django.VERSION >= (6,) else [("Admin", address)]
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    handler_of("django.request", AdminEmailHandler())
    return mailoutbox


async def test_a_500_of_a_socket_is_mailed_to_the_admins(mail):
    headers = [(b"host", b"testserver"), (b"cookie", b"sessionid=abc")]
    answer = await knock(stack(Raises(lambda: ZeroDivisionError("why"))), "/", headers=headers)
    assert answer.status == 500
    assert ["ZeroDivisionError" in message.body for message in mail] == [True]


class BrokenConsumer(AsyncHttpConsumer):
    async def handle(self, body):
        raise ZeroDivisionError("why")


@pytest.mark.parametrize(
    "content_type",
    [
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=x",
        b"multipart/form-data",
        b"application/json",
        b"text/plain; charset=nowhere",
        b"text/plain; name*=nowhere''%41",
        b";",
        b"",
    ],
)
async def test_a_500_of_an_http_consumer_is_mailed_to_the_admins(content_type, mail):
    consumer = require(Answers(lambda: True))(type("Consumer", (BrokenConsumer,), {})).as_asgi()
    headers = [(b"host", b"testserver"), (b"content-type", content_type)]
    answer = await fetch(consumer, "/", method="POST", headers=headers)
    assert answer.status == 500
    assert ["ZeroDivisionError" in message.body for message in mail] == [True]


def test_a_500_of_a_views_policy_is_mailed_once(mail):
    Client(raise_request_exception=False).get("/sync/raises-anything/")
    assert len(mail) == 1


async def test_nothing_is_made_for_a_level_that_nobody_hears(caplog):
    class Unspeakable(Policy):
        printed = 0

        def check(self, request):
            return False

        def __repr__(self):
            type(self).printed += 1
            return "Unspeakable()"

    caplog.set_level(logging.ERROR, "channels_wsdeny")
    await knock(stack(Unspeakable()), "/")
    assert Unspeakable.printed == 0


async def test_redirects_are_mere_information(caplog):
    caplog.set_level(logging.WARNING, "channels_wsdeny")
    await knock(stack(Answers(lambda: HttpResponseRedirect("/login/"))), "/")
    assert caplog.records == []


# In a process that configures no logging.

UNCONFIGURED = """
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["channels_wsdeny", "django.contrib.auth", "django.contrib.contenttypes"],
    SECRET_KEY="x",
)
import django
django.setup()
import asyncio
from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import require
from channels_wsdeny.policies import Policy

class Broken(Policy):
    def check(self, request):
        1 / 0

@require(Broken())
async def broken(scope, receive, send): ...

async def accepting(scope, receive, send):
    await send({"type": "websocket.accept"})

async def receive():
    return {"type": "websocket.connect"}

async def ask(app, extensions):
    sent = []
    async def send(message):
        sent.append(message)
    scope = {"type": "websocket", "path": "/", "query_string": b"", "headers": [], "extensions": extensions}
    await DenyMiddlewareStack(app)(scope, receive, send)
    return sent[0].get("status", sent[0].get("code"))

async def main():
    extension = {"websocket.http.response": {}}
    return [await ask(accepting, extension), await ask(broken, extension), await ask(accepting, {})]

statuses = asyncio.run(main())
assert statuses == [401, 500, 4401], statuses
"""


def test_nothing_is_printed_that_nobody_asked_for():
    environ = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", UNCONFIGURED],
        env=environ,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_a_view_that_answers_403_itself_is_no_denial_of_ours(records):
    view = require(Answers(lambda: True))(lambda request: HttpResponse(status=403))
    view(RequestFactory().get("/"))
    assert records() == []
