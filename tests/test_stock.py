"""The stock: what is sent again is what would have been made."""

from __future__ import annotations

import logging

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.utils.safestring import mark_safe
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks, signals
from channels_wsdeny.decorators import require
from channels_wsdeny.handlers import stock
from channels_wsdeny.inspection.rehearsal import rehearse
from channels_wsdeny.policies import DenyAll, IsAuthenticated, IsStaff
from tests.clients import cookie_header, knock, websocket_scope
from tests.parts import AsyncCheck, Check, accept

pytestmark = pytest.mark.django_db


def raising(error):
    def check(request):
        raise error

    return Check(check)


async def no(request):
    return False


def visits(request):
    request.session["visits"] = 1
    return False


DENIALS = {
    "policy": lambda: IsStaff(),
    "log in": lambda: IsAuthenticated(),
    "deny": lambda: Check(lambda request: Deny(429, "Slowly.")),
    "deny, unregistered": lambda: Check(lambda request: Deny(499, code="gone_away")),
    "deny, 503": lambda: Check(lambda request: Deny(503)),
    "deny, 304": lambda: Check(lambda request: Deny(304)),
    "deny, lazy detail": lambda: Check(lambda request: Deny(403, gettext_lazy("You need to log in first."))),
    "deny, large detail": lambda: Check(lambda request: Deny(403, "a" * 100_000)),
    "deny, headers": lambda: Check(lambda request: Deny(403, headers={"X-Why": "because"})),
    "deny, response": lambda: Check(lambda request: Deny(response=HttpResponse("no", status=402))),
    "response": lambda: Check(lambda request: HttpResponse("no", status=402)),
    "session": lambda: Check(visits),
    "asynchronous": lambda: AsyncCheck(no),
    "permission denied": lambda: raising(PermissionDenied()),
    "not found": lambda: raising(Http404()),
    "error": lambda: raising(ZeroDivisionError()),
}
HEADERS = {
    "none": [],
    "json": [(b"accept", b"application/json")],
    "html": [(b"accept", b"text/html,*/*;q=0.8")],
    "two accepts": [(b"accept", b"text/plain"), (b"accept", b"text/html")],
    "long accept": [(b"accept", b"text/html, " * 100)],
    "german": [(b"accept-language", b"de")],
    "german cookie": cookie_header(django_language="de"),
}


def note(**kwargs):
    """A receiver, which changes nothing about an answer, but that it is made each time."""


@pytest.fixture
def unstocked():
    """A function from an application to what it does without the stock."""

    def ask(application, **scope):
        signals.handshake_denied.connect(note)
        try:
            return async_to_sync(knock)(application, "/", **scope)
        finally:
            signals.handshake_denied.disconnect(note)

    return ask


@pytest.fixture(params=[False, True], ids=["one language", "negotiated"])
def languages(request, settings):
    settings.LANGUAGES = [("en", "English"), ("de", "Deutsch")]
    if request.param:
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]


def told(answer):
    cookies = [name for name, _ in answer.headers if name == "set-cookie"]
    headers = sorted(pair for pair in answer.headers if pair[0] != "set-cookie")
    return answer.status, headers, cookies, answer.body


def records(caplog):
    with_times = [vars(record) for record in caplog.records if record.name == "channels_wsdeny"]
    caplog.clear()
    names = ("levelno", "path", "status", "code", "policy", "user", "client")
    return [{name: each.get(name) for name in names} for each in with_times]


@pytest.mark.parametrize("user", [None, "alice"])
@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("denial", DENIALS.values(), ids=DENIALS)
@pytest.mark.usefixtures("languages")
def test_what_comes_from_the_stock_is_what_would_have_been_made(
    denial, headers, user, headers_of, unstocked, caplog
):
    caplog.set_level(logging.INFO)
    headers = [*headers, *headers_of(user)]
    application = DenyMiddlewareStack(require(denial())(accept))
    expected = told(unstocked(application, headers=headers)), records(caplog)
    for _ in range(2):
        assert (told(async_to_sync(knock)(application, "/", headers=headers)), records(caplog)) == expected


async def test_the_denial_of_a_user_is_made_once(headers_of):
    application = DenyMiddlewareStack(require(IsStaff())(accept))
    headers = headers_of("alice")
    first, second = [(await knock(application, "/", headers=headers)).messages[1]["body"] for _ in range(2)]
    assert first is second


async def test_a_server_that_changes_what_it_sends_changes_no_other_denial():
    application = DenyMiddlewareStack(require(IsAuthenticated())(accept))
    first = await knock(application, "/")
    first.messages[0]["headers"].clear()
    first.messages[1]["body"] = b""
    assert (await knock(application, "/")).problem["status"] == 401


@pytest.mark.parametrize("user", [None, "alice"])
async def test_hooks_see_every_denial(user, headers_of):
    hooks = Hooks()
    hooks.on_response(lambda request, response: response.headers.setdefault("X-Hook", "1") and None)
    application = DenyMiddlewareStack(require(IsStaff())(accept), hooks=hooks)
    for _ in range(2):
        assert (await knock(application, "/", headers=headers_of(user))).header("x-hook") == "1"


async def test_a_session_that_was_changed_is_saved_with_every_denial(headers_of, settings):
    application = DenyMiddlewareStack(require(Check(visits))(accept))
    for _ in range(2):
        answer = await knock(application, "/", headers=headers_of("alice"))
        assert answer.header("set-cookie").startswith(settings.SESSION_COOKIE_NAME)


async def test_debug_is_told_every_time(headers_of, settings):
    application = DenyMiddlewareStack(require(IsStaff())(accept))
    headers = headers_of("alice")
    before = await knock(application, "/", headers=headers)
    settings.DEBUG = True
    assert "IsStaff" in (await knock(application, "/", headers=headers)).body.decode()
    settings.DEBUG = False
    assert (await knock(application, "/", headers=headers)).body == before.body


async def test_the_stock_is_bounded(headers_of, monkeypatch):
    monkeypatch.setattr(stock, "_MOST", 3)
    stock._forget()
    statuses = iter([400, 403, 404, 409, 410, 429])
    application = DenyMiddlewareStack(require(Check(lambda request: Deny(next(statuses))))(accept))
    headers = headers_of("alice")
    for _ in range(6):
        await knock(application, "/", headers=headers)
    assert len(stock._kept) == 3


async def test_a_log_handler_that_raises_keeps_no_denial_from_going_out(headers_of, capsys):
    class Broken(logging.Handler):
        def emit(self, record):
            raise ZeroDivisionError

    logger, broken = logging.getLogger("channels_wsdeny"), Broken()
    logger.addHandler(broken)
    try:
        application = DenyMiddlewareStack(require(IsStaff())(accept))
        for _ in range(2):
            assert (await knock(application, "/", headers=headers_of("alice"))).status == 403
    finally:
        logger.removeHandler(broken)
    assert "ZeroDivisionError" in capsys.readouterr().err


# Texts and policies that are not what they seem.


def knocked(application, **scope):
    return async_to_sync(knock)(application, "/", **scope)


class Saying(DenyAll):
    def __init__(self, detail):
        self.detail = detail


@pytest.mark.parametrize("user", [None, "alice"])
def test_a_lazy_detail_that_raises_is_answered(user, headers_of):
    application = DenyMiddlewareStack(require(Saying(format_lazy("{who}, go.")))(accept))
    assert knocked(application, headers=headers_of(user)).status == 500


class Broken(DenyAll):
    def denial(self):
        raise ZeroDivisionError


class Weird(DenyAll):
    status = 200


@pytest.mark.parametrize("policy", [Broken(), Weird()])
def test_a_denial_that_cannot_be_made_is_answered_to_nobody(policy):
    assert knocked(DenyMiddlewareStack(require(policy)(accept))).status == 500


def test_a_text_is_escaped_although_an_equal_one_is_safe():
    safe, plain = (
        DenyMiddlewareStack(require(Saying(detail))(accept))
        for detail in (mark_safe("<b>No</b>"), "<b>No</b>")
    )
    headers = [(b"accept", b"text/html")]
    knocked(safe, headers=headers)
    assert b"&lt;b&gt;No" in knocked(plain, headers=headers).body


def test_a_text_stays_as_it_is_although_an_equal_one_is_translated(settings):
    settings.LANGUAGES = [("en", "English"), ("de", "Deutsch")]
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]
    translated, plain = (
        DenyMiddlewareStack(require(Saying(detail))(accept)) for detail in (gettext_lazy("No"), "No")
    )
    headers = [(b"accept-language", b"de")]
    assert b"Nein" in knocked(translated, headers=headers).body
    assert b"Nein" not in knocked(plain, headers=headers).body


async def test_long_texts_are_not_kept(headers_of):
    stock._forget()
    said = iter("abc")
    application = DenyMiddlewareStack(require(Check(lambda request: Deny(403, next(said) * 100_000)))(accept))
    for _ in range(3):
        await knock(application, "/", headers=headers_of("alice"))
    assert not stock._kept


def test_a_rehearsal_tells_of_the_policy_that_denies_nobody():
    trace, _ = rehearse(DenyMiddlewareStack(require(IsAuthenticated())(accept)), websocket_scope("/"))
    assert "IsAuthenticated()" in str(trace.as_dict())
