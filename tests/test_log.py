"""The log: one record for each denial, tracebacks under ``django.request``, and no secrets in either."""

import logging
from types import SimpleNamespace

import django
import pytest
from asgiref.sync import async_to_sync
from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core import signing
from django.http import HttpResponse, HttpResponseRedirect
from django.test import RequestFactory
from django.urls import path
from django.utils.log import AdminEmailHandler

from channels_wsdeny import Deny, DenyMiddlewareStack, log
from channels_wsdeny.authentication import BearerAuthentication, SubprotocolToken, TicketAuthentication
from channels_wsdeny.decorators import public, require
from channels_wsdeny.live.registry import registry
from channels_wsdeny.log import escape
from channels_wsdeny.policies import DenyAll, HasPermission, IsAuthenticated, IsStaff, Policy
from tests.support.cases import BY_NAME, DENIED
from tests.support.clients import fetch, knock
from tests.support.opened import Opened
from tests.support.policies import Check, accept, raising, raising_app
from tests.support.processes import run_python
from tests.support.receivers import BrokenHandler
from tests.support.sockets import consumer, guarded
from tests.support.transports import TRANSPORTS

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.support.case_site")]

#: One transport of each handler; the others share their code.
FEW = ("websocket", "http-consumer", "view-wsgi", "async-view-asgi")
EXTRAS = {"path", "status", "code", "policy", "user", "client", "duration"}
LEVELS = {3: logging.INFO, 4: logging.WARNING, 5: logging.ERROR}


@pytest.fixture
def records(caplog):
    """A function: the records of a logger."""
    caplog.set_level(logging.INFO, "channels_wsdeny")
    return lambda name="channels_wsdeny": [record for record in caplog.records if record.name == name]


@pytest.fixture(params=[name if name in FEW else pytest.param(name, marks=pytest.mark.matrix) for name in TRANSPORTS])
def ask(request, sessions, settings):
    """A function that asks for a case as a user."""
    prefix, _, make = TRANSPORTS[request.param]

    def ask(name, user=None, query="", **headers):
        cookies = [headers.pop("Cookie", "")]
        if user is not None:
            cookies.append(f"{settings.SESSION_COOKIE_NAME}={sessions[user].session_key}")
        headers["Cookie"] = "; ".join(filter(None, cookies))
        make().ask("GET", f"{prefix}/{name}/{query}", b"", headers)
        return f"{prefix}/{name}/"

    return ask


@pytest.mark.parametrize("case", DENIED, ids=lambda case: case.name)
async def test_a_denial_of_a_socket_is_one_record(case, records, headers_of):
    await knock(guarded(case.policy, accept), "/", headers=headers_of(case.user))
    found = [(record.levelno, record.status, record.code, record.policy) for record in records()]
    assert found == [(LEVELS[case.status // 100], case.status, case.code, repr(case.policy))]


def test_a_denial_is_one_record_with_documented_extras_on_every_transport(ask, records, users):
    paths = [ask("anonymous"), ask("not-staff", "alice"), ask("authenticated", "alice")]
    first, second = records()
    known = vars(logging.LogRecord("", 0, "", 0, "", (), None)) | {"message": "", "asctime": ""}
    assert set(vars(first)) - set(known) == EXTRAS
    assert (first.path, first.status, first.code) == (paths[0], 401, "not_authenticated")
    assert (first.policy, first.user, second.user) == ("IsAuthenticated()", None, users["alice"].pk)
    assert first.client.startswith("127.0.0.1")
    assert 0 <= first.duration < 60
    assert first.getMessage() == f"Denied {paths[0]}: 401 not_authenticated"


SECRETS = ("s3cret-cookie", "s3cret-query", "s3cret-token")
TELLING = ["anonymous", "deny-all", "raises-anything", "raises-bad-request", "answers-none", "bad-header"]
TELLING += ["response-200", "database-gone", "object-not-found", "redirect"]


def everything_in(records):
    formatter = logging.Formatter()
    own = [{key: value for key, value in vars(record).items() if key != "request"} for record in records]
    return "\n".join(map(formatter.format, records)) + repr(own)


def test_no_record_has_cookies_queries_or_tokens(ask, caplog):
    caplog.set_level(logging.DEBUG)
    for name in TELLING:
        secrets = {"Cookie": "sessionid=s3cret-cookie", "Authorization": "Bearer s3cret-token"}
        ask(name, query="?token=s3cret-query", **secrets)
    async_to_sync(knock)(guarded(DenyAll(), accept), "/", query_string=b"token=s3cret-query\xff")
    assert len(caplog.records) > len(TELLING)
    assert [secret for secret in SECRETS if secret in everything_in(caplog.records)] == []


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("is_failing", [False, True])
async def test_no_record_has_a_ticket_or_token_that_was_refused(is_failing, debug, settings, caplog):
    def verify(token):
        if is_failing:
            raise ZeroDivisionError

    caplog.set_level(logging.DEBUG)
    settings.DEBUG = debug
    classes = [TicketAuthentication(), SubprotocolToken("bearer", BearerAuthentication(verify))]
    app = DenyMiddlewareStack(accept, authentication=classes)
    for ticket in ("s3cret-ticket", signing.TimestampSigner(salt="channels_wsdeny.ticket").sign("s3cret-ticket")):
        assert (await knock(app, f"/?ticket={ticket}")).status == 401
    offered = ["bearer", "s3cret-token"]
    headers = [(b"sec-websocket-protocol", ", ".join(offered).encode())]
    assert (await knock(app, "/", subprotocols=offered, headers=headers)).status == (500 if is_failing else 401)
    assert len([record for record in caplog.records if record.name == "channels_wsdeny"]) == 3
    assert "s3cret" not in everything_in(caplog.records)


FORGED = ["/a\r\nERROR forged", "/a\n", "/a\r", "/\x1b[31mred", "/\0", "/\x85", "/\u2028x", "/\u202eabc", "/\udc80"]


@pytest.mark.parametrize("forged", FORGED)
async def test_a_client_or_a_code_cannot_forge_a_record(forged, records):
    error = Check(raising(ZeroDivisionError))
    await knock(guarded(IsAuthenticated(), accept), forged, client=[forged, 1])
    await knock(guarded(error, accept), forged, client=[forged, 1])
    await knock(guarded(Check(lambda request: Deny(403, code=forged)), accept), "/")
    assert len(records()) == 3
    for record in records() + records("django.request"):
        assert record.getMessage().isprintable()
        for name in EXTRAS & set(vars(record)) - {"status", "duration", "user"}:
            assert str(getattr(record, name)).isprintable()


@pytest.mark.parametrize("forged", FORGED)
async def test_a_client_that_leaves_before_its_close_cannot_forge_a_record(forged, caplog):
    caplog.set_level(logging.DEBUG, logger="channels_wsdeny")
    socket = await Opened(public(consumer()).as_asgi(), path=forged).accepted()

    async def fail(message):
        raise ConnectionResetError

    (open_socket,) = registry.sockets()
    open_socket.opened._connection.send = fail
    await open_socket.opened.close(4403, "spam")
    await socket.end()
    (text,) = (record.getMessage() for record in caplog.records if "was not sent" in record.getMessage())
    assert text.isprintable()


async def test_what_can_be_printed_stays_legible(records):
    for url in ("/räume/世界/", "/%s%n%(path)s"):
        await knock(guarded(IsAuthenticated(), accept), url)
        assert records()[-1].getMessage() == f"Denied {url}: 401 not_authenticated"
    assert escape("/räume/世界?a b\\") == "/räume/世界?a b\\"
    assert escape("\r\n\x1b\u2028") == "\\r\\n\\x1b\\u2028"


def test_an_exception_has_its_traceback_once_and_the_clients_faults_have_none(ask, records):
    def tracebacks():
        return [record for record in records("django.request") if record.exc_info]

    raised = ("raises-permission-denied", "raises-http404", "raises-bad-request")
    for name in ("anonymous", "deny-all", *raised, "redirect"):
        ask(name)
    assert tracebacks() == []
    path = ask("raises-anything")
    (record,) = tracebacks()
    assert (record.exc_info[0], record.status_code, record.request.path) == (ZeroDivisionError, 500, path)
    ask("database-gone")
    record, path = tracebacks()[-1], path.replace("raises-anything", "database-gone")
    assert (record.status_code, record.getMessage()) == (503, f"Service Unavailable: {path}")


async def test_an_outage_has_one_traceback_a_minute_and_the_rest_is_counted(monkeypatch, caplog):
    now, numbers = [1000.0], iter(range(10**6))
    monkeypatch.setattr(log, "time", SimpleNamespace(monotonic=lambda: now[0]))
    down = guarded(Check(raising(lambda: ConnectionError("The cache is down."))), accept)
    other = guarded(Check(raising(lambda: ConnectionError(f"Another one: {next(numbers)}"))), accept)

    def tracebacks():
        return [record.getMessage() for record in caplog.records if record.exc_info]

    for _ in range(20):
        assert (await knock(down, "/a/")).status == 503
    assert tracebacks() == ["Service Unavailable: /a/"]
    assert len([record for record in caplog.records if record.name == "channels_wsdeny"]) == 20
    now[0] += 61
    await knock(down, "/b/")
    assert tracebacks()[1:] == ["Service Unavailable: /b/ (the same 19 times more since it was last logged)"]
    for _ in range(150):
        await knock(other, "/c/")
    assert len(log._outages) == 100


async def test_numbers_that_change_from_one_message_to_the_next_do_not_make_another_outage(caplog):
    ports = iter(range(40000, 40005))
    down = guarded(
        Check(raising(lambda: ConnectionError(f"Lost {next(ports)} of <pool at 0x7f{next(ports):x}>"))), accept
    )
    for _ in range(2):
        assert (await knock(down, "/a/")).status == 503
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_a_denial_of_the_sites_own_has_a_traceback_only_if_it_has_a_cause(records):
    def because(request):
        raise Deny(503) from KeyError("why")

    await knock(guarded(Check(lambda request: Deny(500, "Sorry.")), accept), "/")
    assert (len(records()), records("django.request")) == (1, [])
    await knock(guarded(Check(because), accept), "/")
    assert [record.exc_info[0] for record in records("django.request")] == [KeyError]


async def test_a_path_without_a_route_is_a_warning_about_no_policy(records):
    nowhere = ProtocolTypeRouter({"websocket": URLRouter([path("here/", require(DenyAll())(accept))])})
    assert (await knock(DenyMiddlewareStack(nowhere), "/nowhere/")).status == 404
    assert [(record.levelname, record.status, record.policy) for record in records()] == [("WARNING", 404, None)]
    assert records("django.request") == []


class Unspeakable(Policy):
    def check(self, request):
        return False

    __repr__ = raising(ZeroDivisionError)


async def test_the_record_has_the_policy_asked_last_the_client_and_the_user_of_the_scope(records, users):
    outer, inner = IsAuthenticated() | DenyAll(), HasPermission("auth.add_user")
    sites = {
        "IsAuthenticated() | DenyAll()": guarded(outer, require(inner)(accept)),
        "DenyAll()": DenyMiddlewareStack(accept, default_policy=DenyAll()),
        "<Unspeakable, whose repr fails>": guarded(Unspeakable(), accept),
    }
    for expression, site in sites.items():
        await knock(site, "/", client=None)
        assert (records()[-1].policy, records()[-1].client) == (expression, None)
    await knock(guarded(IsStaff(), accept), "/", user=users["alice"], client=["::1", 4711])
    assert (records()[-1].user, records()[-1].client) == (users["alice"].pk, "::1:4711")


async def test_nothing_is_made_for_a_level_that_is_off_and_redirects_are_information(caplog):
    asked = []
    unspeakable = type("Silent", (Unspeakable,), {"__repr__": lambda self: asked.append(self) or ""})()
    caplog.set_level(logging.ERROR, "channels_wsdeny")
    await knock(guarded(unspeakable, accept), "/")
    caplog.set_level(logging.WARNING, "channels_wsdeny")
    await knock(guarded(Check(lambda request: HttpResponseRedirect("/login/")), accept), "/")
    assert (asked, caplog.records) == ([], [])


def test_a_view_that_answers_403_itself_is_no_denial_of_this_package(records):
    require(Check(lambda request: True))(lambda request: HttpResponse(status=403))(RequestFactory().get("/"))
    assert records() == []


@pytest.mark.parametrize("logger", ["channels_wsdeny", "django.request"])
async def test_a_log_handler_that_raises_keeps_no_denial_from_the_client(logger, handler_of, headers_of, capsys):
    handler_of(logger, BrokenHandler())
    for case in (BY_NAME["anonymous"], BY_NAME["not-staff"], BY_NAME["raises-anything"]):
        for _ in range(2):
            answer = await knock(guarded(case.policy, accept), "/", headers=headers_of(case.user))
            assert answer.status == case.status
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.fixture
def mail(settings, mailoutbox, handler_of):
    address = "admin@example.com"
    settings.ADMINS = [address] if django.VERSION >= (6,) else [("Admin", address)]
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    handler_of("django.request", AdminEmailHandler())
    return mailoutbox


TYPES = [b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b"multipart/form-data", b";", b""]
TYPES += [b"application/json", b"text/plain; charset=nowhere", b"text/plain; name*=nowhere''%41"]


async def test_a_500_is_mailed_to_the_admins_once(mail):
    host = (b"host", b"testserver")
    await knock(guarded(Check(raising(lambda: ZeroDivisionError("why"))), accept), "/", headers=[host])
    assert ["ZeroDivisionError" in message.body for message in mail] == [True]
    broken = require(Check(lambda request: True))(raising_app(ZeroDivisionError("why")))
    for content_type in TYPES:
        mail.clear()
        answer = await fetch(broken, "/", method="POST", headers=[host, (b"content-type", content_type)])
        assert answer.status == 500
        assert ["ZeroDivisionError" in message.body for message in mail] == [True], content_type


@pytest.mark.parametrize("over_http", [False, True])
async def test_a_mail_with_the_variables_of_frames_has_no_cookies_and_no_tokens(over_http, mail, handler_of, settings):
    handler_of("django.request", AdminEmailHandler(include_html=True))

    async def app(scope, receive, send):
        room = "the hall"
        arguments = [scope, receive, send]
        raise ZeroDivisionError(room, len(arguments))

    secret = b"secret" * 3  # which the lines of this file in the mail do not have
    names = [b"cookie", b"authorization", b"x-api-key"]
    headers = [(b"host", b"testserver"), *((name, b"sessionid=" + secret) for name in names)]
    site = DenyMiddlewareStack(AuthMiddlewareStack(URLRouter([path("", public(app))])))
    ask = fetch if over_http else knock
    answer = await ask(site, "/", headers=headers, query_string=b"" if over_http else secret)
    texts = [mail[-1].body, *(part for part, _ in mail[-1].alternatives)]
    assert (answer.status, len(texts), "the hall" in texts[1]) == (500, 2, True)
    assert [text.count(secret.decode()) for text in texts] == [0, 0]
    settings.DEBUG = True  # Django hides nothing then.
    await ask(site, "/", headers=headers)
    assert mail[-1].alternatives[0][0].count(secret.decode()) > 0


UNCONFIGURED = """
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["channels_wsdeny", "django.contrib.auth", "django.contrib.contenttypes"], SECRET_KEY="x"
)
import django
django.setup()
import asyncio
from channels_wsdeny import DenyMiddlewareStack
from tests.support.clients import EXTENSION, knock
from tests.support.policies import Check, accept, raising
from tests.support.sockets import guarded

async def main():
    plain, broken = DenyMiddlewareStack(accept), guarded(Check(raising(ZeroDivisionError)))
    for app, extensions in ((plain, EXTENSION), (broken, EXTENSION), (plain, {})):
        answer = await knock(app, "/", extensions=extensions)
        print(answer.status or answer.close[0], end=" ")

asyncio.run(main())
"""


@pytest.mark.servers
def test_a_process_that_configures_no_logging_prints_nothing():
    assert run_python(UNCONFIGURED) == ("401 500 4401", "")
