"""The responses of denials: problem bodies in the client's type and language, and what every denial has."""

import json
from contextvars import Context
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from django.http import Http404, HttpResponse, HttpResponseNotModified
from django.test import RequestFactory
from django.utils import translation
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from channels_wsdeny import Deny
from channels_wsdeny.decorators import require
from channels_wsdeny.http import responses
from channels_wsdeny.policies import DenyAll, IsAuthenticated, Policy
from tests.support.clients import knock
from tests.support.policies import Check, accept, raising
from tests.support.sockets import guarded

pytestmark = pytest.mark.django_db

JSON = "application/problem+json"
PLAIN = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
ENGLISH = "You do not have permission to open this."


def ask(denial=None, **headers):
    """The answer of a policy that gives what `denial` makes; by default, of one that denies."""
    policy = denial if isinstance(denial, Policy) else DenyAll() if denial is None else Check(lambda r: denial())
    raw = [(name.replace("_", "-").encode(), value.encode("latin1")) for name, value in headers.items()]
    return async_to_sync(knock)(guarded(policy, accept), "/", headers=raw)


def names_in(value):
    return sorted(name.strip().lower() for name in value.split(","))


# Bodies.


def test_a_problem_has_the_members_of_rfc_9457_and_a_code():
    standard = {"type": "about:blank", "title": "Forbidden", "status": 403, "detail": ENGLISH}
    assert ask().problem == {**standard, "code": "permission_denied", "retry": False}


DATE = "Sat, 28 Nov 2026 12:00:00 GMT"
RETRIES = {
    "a denial": (lambda: Deny(403), False, None),
    "an unavailable service": (lambda: Deny(503), 5, "5"),
    "as the site says": (lambda: Deny(503, headers={"retry-after": "60"}), 60, "60"),
    "throttled": (lambda: Deny(429, headers={"Retry-After": "30"}), 30, "30"),
    "a date": (lambda: Deny(503, headers={"Retry-After": DATE}), False, DATE),
}


@pytest.mark.parametrize(("make", "retry", "header"), RETRIES.values(), ids=RETRIES)
def test_a_problem_says_when_to_try_again(make, retry, header):
    answer = ask(make)
    assert (answer.problem["retry"], answer.header("retry-after")) == (retry, header)


def test_not_all_clients_are_told_to_come_back_at_once(monkeypatch):
    monkeypatch.undo()
    found = {int(ask(lambda: Deny(503)).header("retry-after")) for _ in range(200)}
    assert (min(found), max(found)) == (3, 8)


def test_a_problem_has_the_sites_detail_code_and_members_in_ascii():
    answer = ask(lambda: Deny(404, "Grüße, 世界 \x1b\r\n\0 </script>", code="no_room", room=7, why={"a": [1]}))
    assert answer.body.isascii()
    problem = json.loads(answer.body)
    assert (problem["detail"], problem["code"]) == ("Grüße, 世界 \x1b\r\n\0 </script>", "no_room")
    assert (problem["room"], problem["why"]) == (7, {"a": [1]})


@pytest.mark.usefixtures("languages")
def test_members_are_written_as_a_json_response_of_django_writes_them_in_the_language_of_the_client():
    at, key = datetime(2026, 11, 28, tzinfo=UTC), uuid4()
    answer = ask(
        lambda: Deny(422, errors=[gettext_lazy("Yes")], at=at, key=key, price=Decimal("1.50")), accept_language="de"
    )
    members = {name: answer.problem[name] for name in ("errors", "at", "key", "price")}
    assert members == {"errors": ["Ja"], "at": "2026-11-28T00:00:00Z", "key": str(key), "price": "1.50"}


@pytest.mark.parametrize("member", [float("nan"), float("inf"), object(), {1, 2}])
def test_a_member_that_is_not_in_json_is_an_error(member):
    assert ask(lambda: Deny(422, member=member)).status == 500


@pytest.mark.parametrize("status", [403, 413, 414, 416, 418, 422, 426, 451, 511])
def test_the_title_is_that_of_the_status(status):
    assert ask(lambda: Deny(status)).problem["title"] == HTTPStatus(status).phrase


ACCEPTS = {
    **dict.fromkeys(("*/*", "application/json", "application/problem+json", "application/*", "image/png"), JSON),
    **dict.fromkeys(("text/plain", "text/plain;q=0.5", "text/*", "TEXT/PLAIN"), PLAIN),
    **dict.fromkeys(("text/html", "text/html;q=0.1", "text/html, text/plain;q=0.9"), HTML),
    "text/html;q=0.8, text/plain;q=0.9": PLAIN,
    "text/html, application/json;q=0.9": HTML,
    "text/html;q=0.9, application/json": JSON,
    "text/html;q=0, text/plain": PLAIN,
    "*/*, text/html;q=0.5": JSON,
    "application/json, text/plain, */*": JSON,
    "image/png, text/plain;q=0.1": PLAIN,
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8": HTML,
    "a/b," * 5000: JSON,
    "text/html, " * 4000: JSON,
}


@pytest.mark.parametrize(("accept", "media_type"), ACCEPTS.items(), ids=lambda value: value[:40])
def test_accept_chooses_the_type(accept, media_type):
    answer = ask(accept=accept)
    assert (answer.status, answer.header("content-type")) == (403, media_type)


ODD = ["", " ", ",", ",,,", ";", "/", "text", "text/", "/html", "text/html;", "text/html;q", "text/html;q="]
ODD += [f"text/html;q={value}" for value in ("high", "-1", "2", "nan", "inf", "1e309", "0x1")]
ODD += ["text/html;;;=;q==", 'text/html;a="', 'text/html;a="b,c"', "text/html;charset*=nowhere''%41", "text/html\x7f"]
ODD += ["text/html;charset*0*=a;charset*1=b", "text/html;q*=utf-8''1", "\xff\xfe", "é/è", "a/b;" + "c=d;" * 5000]
ODD += ["x" * 20000, "*", "*/html", "text/html*", "../../etc/passwd", "<script>alert(1)</script>", "%s%s%n", "{{ 7 }}"]


TYPES = ["*/*", "application/*", "text/*", "Text/HTML", "text/plain", "application/json", responses.JSON, "a/b", ""]
QUALITIES = ["", ";q=0", ";q=0.5", " ; Q = 0.5 ", ";q=1", ";q=2", ";q=x", ";level=1", ";q=0.9;level=1", ';q="0.7"']
RANGES = st.tuples(st.sampled_from(TYPES), st.sampled_from(QUALITIES)).map("".join)


@pytest.mark.skipif(
    RequestFactory().get("/", headers={"Accept": "text/*;q=0"}).get_preferred_type(["text/plain"]) is not None,
    reason="Django 5.2.0 prefers types that the client does not accept (RFC 9110 section 12.5.1)",
)
@given(st.lists(RANGES, max_size=6).map(", ".join))
def test_the_type_is_the_one_that_django_would_choose(accept):
    request = RequestFactory().get("/", headers={"Accept": accept})
    expected = request.get_preferred_type([responses.JSON, "application/json", responses.PLAIN, responses.HTML])
    assert responses.preferred_type(request) == (expected if (expected or "").startswith("text/") else responses.JSON)


def test_an_odd_accept_header_changes_no_denial():
    answers = {accept: ask(accept=accept) for accept in ODD}
    assert {accept: answer.status for accept, answer in answers.items() if answer.status != 403} == {}
    assert {answer.header("content-type") for answer in answers.values()} <= {JSON, PLAIN, HTML}
    assert [answer for answer in answers.values() if b"script" in answer.body] == []


def test_two_accept_headers_are_one_list():
    headers = [(b"accept", b"image/png"), (b"accept", b"text/plain")]
    answer = async_to_sync(knock)(guarded(DenyAll(), accept), "/", headers=headers)
    assert answer.header("content-type") == PLAIN


def test_plain_text_is_status_and_detail():
    assert ask(lambda: Deny(403, "Grüße"), accept="text/plain").body.decode() == "403 Forbidden\nGrüße\n"


@pytest.mark.parametrize("detail", ["<script>alert(1)</script>", '"><svg>', mark_safe("Ask <b>alice</b>.")])
def test_html_escapes_what_the_site_has_not_marked_safe(detail):
    body = ask(lambda: Deny(403, detail, code="<script>"), accept="text/html").body.decode()
    assert "<title>403 Forbidden</title>" in body
    assert (detail in body) is hasattr(detail, "__html__")
    assert "<script>" not in body


# Nothing about policies and exceptions, unless DEBUG.


class Secret(Policy):
    def check(self, request):
        raise ZeroDivisionError("secret <b>reason</b>")

    def __repr__(self):
        return "SecretPolicy(<i>)"


SECRETS = [
    Secret(),
    Check(raising(lambda: Http404("secret"))),
    Check(raising(lambda: PermissionError("secret"))),
    Check(raising(lambda: ConnectionError("secret"))),
    Check(lambda request: "secret"),
    Check(lambda request: HttpResponse("secret")),
]


def test_with_debug_an_error_has_its_traceback_and_any_other_denial_its_reason(settings):
    settings.DEBUG = True
    policy = Check(raising(lambda: Http404("No such room.")))
    assert ask(policy).problem["debug"] == f"Policy: {policy!r}\ndjango.http.response.Http404: No such room.\n"
    assert "Traceback" in ask(Secret()).problem["debug"]


@pytest.mark.parametrize("accept", ["*/*", "text/plain", "text/html"])
def test_nothing_of_the_policy_or_the_exception_is_shown_but_with_debug(accept, settings):
    for policy in SECRETS:
        answer = ask(policy, accept=accept)
        shown = json.dumps([answer.headers, answer.body.decode()]).replace("Internal Server Error", "")
        assert [
            word for word in ("ecret", "Policy", "Error", "File", "line ", "Traceback", "<pre>") if word in shown
        ] == []
    settings.DEBUG = True
    shown = ask(Secret(), accept=accept).body.decode()
    expected = ["SecretPolicy(<i>)", "ZeroDivisionError: secret <b>reason</b>"]
    if accept == "text/html":
        assert "<b>" not in shown
        expected = [text.replace("<", "&lt;").replace(">", "&gt;") for text in expected]
    assert [text for text in expected if text not in shown] == []
    assert ask().problem["debug"] == "Policy: DenyAll()\n"


# Languages.


GERMAN = "Sie sind nicht berechtigt, dies zu öffnen."
LOCALE_MIDDLEWARE = "django.middleware.locale.LocaleMiddleware"


@pytest.fixture
def languages(settings):
    """The site negotiates languages."""
    settings.MIDDLEWARE = [LOCALE_MIDDLEWARE, *settings.MIDDLEWARE]


@pytest.mark.usefixtures("languages")
def test_a_denial_is_in_the_language_of_the_client(settings):
    problem = ask(accept_language="de").problem  # The package has a German catalogue.
    assert (problem["detail"], problem["code"]) == (GERMAN, "permission_denied")
    assert ask().problem["detail"] == ENGLISH
    assert GERMAN in ask(accept="text/html", accept_language="de").body.decode()
    cookie = f"{settings.LANGUAGE_COOKIE_NAME}=de"
    assert ask(cookie=cookie, accept_language="fr").problem["detail"] == GERMAN
    assert names_in(ask().header("vary")) == ["accept", "accept-language", "cookie"]
    shared = Deny(404, gettext_lazy("Yes"))
    assert ask(lambda: shared, accept_language="de").problem["detail"] == "Ja"
    assert ask(lambda: shared, accept_language="en").problem["detail"] == "Yes"
    assert translation.get_language() == "en"


@pytest.mark.usefixtures("languages")
def test_an_odd_language_changes_no_denial(settings):
    for value in ("", "*", "xx", "fr;q=nan", "fr;q=9", ";;;", "\xff", "x" * 20000, "fr," * 5000, "../../etc"):
        assert ask(accept_language=value).status == 403, value
    for value in ("", "xx", "../../etc/passwd", '"', "\xff"):
        assert ask(cookie=f"{settings.LANGUAGE_COOKIE_NAME}={value}").status == 403, value
    assert ask(content_type="text/plain; name*=nowhere''%41", accept_language="de").status == 403


@pytest.mark.parametrize("use_i18n", [True, False])
def test_no_language_is_negotiated_where_the_site_negotiates_none(use_i18n, settings):
    settings.USE_I18N = use_i18n
    if not use_i18n:
        settings.MIDDLEWARE = [LOCALE_MIDDLEWARE]
    answer = ask(accept_language="de")
    assert (answer.problem["detail"], names_in(answer.header("vary"))) == (ENGLISH, ["accept", "cookie"])


def test_the_language_of_the_site_is_the_default(settings):
    settings.LANGUAGE_CODE = "de"
    assert ask().problem["detail"] == GERMAN


def test_the_active_language_is_found_in_the_contextvar_of_django():
    responses._language_variable.cache_clear()
    assert Context().run(responses._language_variable) is not None
    assert Context().run(responses.active_language) is None
    with translation.override("de"):
        assert responses.active_language() == "de"


# What every denial has.


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("Cache-Control", None, ["no-store"]),
        ("Cache-Control", "private, max-age=60", ["max-age=60", "no-store", "private"]),
        ("Cache-Control", "no-store", ["no-store"]),
        ("Vary", None, ["accept", "cookie"]),
        ("Vary", "Origin, cookie", ["accept", "cookie", "origin"]),
        ("Vary", "*", ["*"]),
    ],
)
def test_no_denial_is_stored_and_each_has_one_vary(name, given, expected):
    answer = ask(lambda: HttpResponse(status=403, headers={} if given is None else {name: given}))
    assert names_in(answer.header(name.lower())) == expected


def test_a_401_has_one_challenge_and_nothing_else_has(settings):
    own = {"www-authenticate": "Bearer"}
    for wanted in ("*/*", "text/html"):
        assert ask(IsAuthenticated(), accept=wanted).header("www-authenticate") == "Session"
    assert ask(lambda: Deny(401, headers=own)).header("www-authenticate") == "Bearer"
    assert ask(lambda: HttpResponse(status=401)).header("www-authenticate") == "Session"
    assert ask().header("www-authenticate") is None
    settings.CHANNELS_WSDENY = {"CHALLENGE": 'Bearer realm="chat"'}
    assert ask(IsAuthenticated()).header("www-authenticate") == 'Bearer realm="chat"'


def test_a_503_of_the_site_says_when_to_try_again_and_nothing_else_does():
    own = {"Retry-After": "60"}
    assert ask(lambda: HttpResponse(status=503)).header("retry-after") == "5"
    assert ask(lambda: HttpResponse(status=503, headers=own)).header("retry-after") == "60"
    assert ask(lambda: HttpResponse(status=500)).header("retry-after") is None


def test_the_headers_of_a_deny_go_out_before_those_of_its_response():
    response = HttpResponse(status=403, headers={"X-A": "1", "X-B": "1"})
    answer = ask(lambda: Deny(response=response, headers={"X-A": "2"}))
    assert (answer.header("x-a"), answer.header("x-b")) == ("2", "1")


def test_a_denial_may_redirect_or_confirm_a_copy():
    answer = ask(lambda: Deny(307, headers={"Location": "/elsewhere"}))
    assert (answer.status, answer.header("location")) == (307, "/elsewhere")
    for make in (HttpResponseNotModified, lambda: HttpResponse(b"x", status=304)):
        answer = ask(make)
        assert (answer.status, answer.body, answer.header("content-length")) == (304, b"", None)


@pytest.mark.parametrize("status", [100, 101, 103, 200, 204, 299, 600])
def test_a_response_that_cannot_deny_becomes_a_500_without_its_content(status):
    response = HttpResponse(b"welcome", headers={"X-Secret": "1"})
    response.status_code = status
    answer = ask(lambda: response)
    assert (answer.status, answer.header("x-secret"), b"welcome" in answer.body) == (500, None, False)


# One response object may deny many requests.


def test_a_shared_response_is_not_changed_and_carries_nothing_to_the_next_client(settings):
    shared = HttpResponse(b"no", status=401)
    before = dict(shared.items())

    def change(request):
        request.session["seen"] = True
        return shared

    first = ask(Check(change))
    assert settings.SESSION_COOKIE_NAME in first.header("set-cookie")
    assert ask(lambda: shared).header("set-cookie") is None
    assert ask(lambda: shared) == ask(lambda: shared)
    assert (dict(shared.items()), dict(shared.cookies)) == (before, {})
    view = require(Check(lambda request: shared))(lambda request: HttpResponse())
    closed, denial = [], view(RequestFactory().get("/"))
    denial["X-Client"] = "alice"
    denial._resource_closers.append(lambda: closed.append("first"))
    after = view(RequestFactory().get("/"))
    after.close()
    assert (after.has_header("X-Client"), closed) == (False, [])
