from __future__ import annotations

import asyncio
import json
import struct

import pytest
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.http import Http404, HttpResponse, HttpResponseNotModified, HttpResponseRedirect
from django.test import Client, RequestFactory
from django.urls import path
from django.utils import translation
from django.utils.cache import patch_vary_headers
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.decorators import require
from channels_wsdeny.policies import DenyAll, IsAuthenticated, Policy
from tests.cases import Answers, Raises
from tests.clients import Answer, fetch, knock

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.test_problems")]

JSON = "application/problem+json"
PLAIN = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"

# One policy, changed by each test, behind a socket, an HTTP consumer and a view.


class Current(Policy):
    policy: Policy = DenyAll()

    def decide(self, request):
        return (yield from type(self).policy.decide(request))

    def __repr__(self):
        return repr(self.policy)


current = Current()
application = DenyMiddlewareStack(require(current)(type("Socket", (AsyncWebsocketConsumer,), {})).as_asgi())
http_application = require(current)(type("Http", (AsyncHttpConsumer,), {})).as_asgi()
urlpatterns = [path("", require(current)(lambda request: HttpResponse("allowed")))]


@pytest.fixture
def deny():
    """A function that chooses the policy: what `make` makes is what it answers."""

    def choose(make):
        Current.policy = make if isinstance(make, Policy) else Answers(make)

    yield choose
    Current.policy = DenyAll()


@pytest.fixture(params=["websocket", "http", "view"])
def door(request):
    return request.param


@pytest.fixture
def ask(door):
    """A function that asks, with these headers, through each door in turn."""

    def ask(**headers):
        if door == "view":
            headers = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
            response = Client(raise_request_exception=False).get("/", **headers)
            pairs = [(name.lower(), value) for name, value in response.items()]
            pairs += [("set-cookie", morsel.OutputString()) for morsel in response.cookies.values()]
            return Answer(response.status_code, pairs, response.content)
        raw = [(name.replace("_", "-").encode(), value.encode("latin1")) for name, value in headers.items()]
        function, app = (knock, application) if door == "websocket" else (fetch, http_application)
        return asyncio.run(function(app, "/", headers=raw))

    return ask


def everything_in(answer):
    return json.dumps([answer.headers, answer.body.decode()])


def test_a_problem_has_the_members_of_rfc_9457_and_its_code(ask):
    assert ask().problem == {
        "type": "about:blank",
        "title": "Forbidden",
        "status": 403,
        "detail": "You do not have permission to open this.",
        "code": "permission_denied",
    }


def test_a_problem_tells_the_sites_detail(ask, deny):
    deny(lambda: Deny(404, "No such room.", code="no_room"))
    assert (ask().problem["detail"], ask().problem["code"]) == ("No such room.", "no_room")


def test_a_detail_may_have_any_characters(ask, deny):
    deny(lambda: Deny(403, "Grüße, 世界 \x1b\r\n\0 </script>"))
    assert ask().problem["detail"] == "Grüße, 世界 \x1b\r\n\0 </script>"


def test_a_text_for_people_may_have_any_characters(ask, deny):
    deny(lambda: Deny(403, "Grüße, 世界"))
    assert ask(accept="text/plain").body.decode() == "403 Forbidden\nGrüße, 世界\n"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", JSON),
        ("application/json", JSON),
        ("application/problem+json", JSON),
        ("application/*", JSON),
        ("text/plain", PLAIN),
        ("text/plain;q=0.5", PLAIN),
        ("text/*", PLAIN),
        ("TEXT/PLAIN", PLAIN),
        ("text/html", HTML),
        ("text/html;q=0.1", HTML),
        ("text/html, text/plain;q=0.9", HTML),
        ("text/html;q=0.8, text/plain;q=0.9", PLAIN),
        ("text/html, application/json;q=0.9", HTML),
        ("text/html;q=0.9, application/json", JSON),
        ("text/html;q=0, text/plain", PLAIN),
        ("*/*, text/html;q=0.5", JSON),
        ("application/json, text/plain, */*", JSON),
        ("image/png", JSON),
        ("image/png, text/plain;q=0.1", PLAIN),
    ],
)
def test_accept_chooses_the_body(accept, media_type, ask):
    answer = ask(accept=accept)
    assert (answer.status, answer.header("content-type")) == (403, media_type)


def test_a_browser_gets_html(ask):
    assert ask(accept=BROWSER).header("content-type") == HTML


def test_a_client_that_says_nothing_gets_json(ask):
    assert ask().header("content-type") == JSON


@pytest.mark.parametrize(
    "accept",
    [
        "",
        " ",
        ",",
        ",,,",
        ";",
        "/",
        "text",
        "text/",
        "/html",
        "text/html;",
        "text/html;q",
        "text/html;q=",
        "text/html;q=high",
        "text/html;q=-1",
        "text/html;q=2",
        "text/html;q=nan",
        "text/html;q=inf",
        "text/html;q=1e309",
        "text/html;q=0x1",
        "text/html;;;=;q==",
        'text/html;a="',
        'text/html;a="b,c"',
        "text/html;charset*=nowhere''%41",
        "text/html;charset*0*=a;charset*1=b",
        "text/html;q*=utf-8''1",
        "text/html\x7f",
        "\xff\xfe",
        "é/è",
        "text/html, " * 40,
        "a/b," * 5000,
        "a/b;" + "c=d;" * 5000,
        "x" * 20000,
        "*",
        "*/html",
        "text/html*",
        "../../etc/passwd",
        "<script>alert(1)</script>",
        "{{ 7*7 }}",
        "%s%s%n",
    ],
)
def test_an_odd_accept_changes_no_denial(accept, ask):
    answer = ask(accept=accept)
    assert answer.status == 403
    assert answer.header("content-type") in {JSON, PLAIN, HTML}
    assert "script" not in answer.body.decode()


def test_two_accept_headers_are_one_list(door):
    headers = [(b"accept", b"image/png"), (b"accept", b"text/plain")]
    function, app = (knock, application) if door == "websocket" else (fetch, http_application)
    assert asyncio.run(function(app, "/", headers=headers)).header("content-type") == PLAIN


# HTML.


def test_html_says_what_a_person_needs(ask):
    body = ask(accept="text/html").body.decode()
    assert "<title>403 Forbidden</title>" in body
    assert "You do not have permission to open this." in body


@pytest.mark.parametrize(
    "detail", ["<script>alert(1)</script>", "</p><img src=x onerror=alert(1)>", '"><svg>']
)
def test_html_escapes_the_detail(detail, ask, deny):
    deny(lambda: Deny(403, detail))
    body = ask(accept="text/html").body.decode()
    assert detail not in body
    assert detail.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;") in body


def test_html_does_not_escape_what_the_site_marked_safe(ask, deny):
    deny(lambda: Deny(403, mark_safe("Ask <b>alice</b>.")))
    assert "Ask <b>alice</b>." in ask(accept="text/html").body.decode()


def test_html_knows_no_code_of_the_sites(ask, deny):
    deny(lambda: Deny(403, code="<script>"))
    assert "<script>" not in ask(accept="text/html").body.decode()


# DEBUG.


class SecretPolicy(Policy):
    def check(self, request):
        raise ZeroDivisionError("secret <b>reason</b>")

    def __repr__(self):
        return "SecretPolicy(<i>)"


@pytest.mark.parametrize("accept", ["*/*", "text/plain", "text/html"])
@pytest.mark.parametrize(
    "policy",
    [
        SecretPolicy(),
        Raises(lambda: Http404("secret")),
        Raises(lambda: PermissionError("secret")),
        Raises(lambda: ConnectionError("secret")),
        Answers(lambda: "secret"),
        Answers(lambda: HttpResponse("secret", status=200)),
    ],
    ids=["raises", "404", "os", "unavailable", "answers", "response"],
)
def test_nothing_of_the_policy_or_the_exception_is_told(policy, accept, ask, deny):
    deny(policy)
    told = everything_in(ask(accept=accept))
    assert [word for word in ("secret", "Secret", "Policy", "Error", "File", "line ") if word in told] in (
        [],
        ["Error"],  # "Internal Server Error"
    )
    assert "ZeroDivision" not in told
    assert "Traceback" not in told


@pytest.mark.parametrize("accept", ["*/*", "text/plain"])
def test_with_debug_the_policy_and_the_exception_are_told(accept, ask, deny, settings):
    settings.DEBUG = True
    deny(SecretPolicy())
    body = ask(accept=accept).body.decode()
    assert "SecretPolicy(<i>)" in body
    assert "ZeroDivisionError: secret <b>reason</b>" in body


def test_with_debug_html_escapes_them(ask, deny, settings):
    settings.DEBUG = True
    deny(SecretPolicy())
    body = ask(accept="text/html").body.decode()
    assert "SecretPolicy(&lt;i&gt;)" in body
    assert "secret &lt;b&gt;reason&lt;/b&gt;" in body
    assert "<b>" not in body


def test_with_debug_a_denial_without_an_exception_tells_its_policy(ask, settings):
    settings.DEBUG = True
    assert ask().problem["debug"] == "Policy: DenyAll()\n"


# Languages.


def write_catalogue(folder, language, messages):
    """A compiled catalogue as `msgfmt` writes it: two tables of lengths and offsets, then the texts."""
    messages = {"": "Content-Type: text/plain; charset=UTF-8\n", **messages}
    pairs = sorted((key.encode(), value.encode()) for key, value in messages.items())
    texts, tables = b"", [[], []]
    start = 28 + 16 * len(pairs)
    for index in (0, 1):
        for pair in pairs:
            tables[index] += [len(pair[index]), start + len(texts)]
            texts += pair[index] + b"\0"
    header = struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
    target = folder / language / "LC_MESSAGES" / "django.mo"
    target.parent.mkdir(parents=True)
    target.write_bytes(header + b"".join(struct.pack(f"<{len(t)}I", *t) for t in tables) + texts)


LOCALE_MIDDLEWARE = "django.middleware.locale.LocaleMiddleware"


@pytest.fixture
def languages(settings, tmp_path):
    """The site negotiates languages, and has a French catalogue of its own."""
    write_catalogue(
        tmp_path,
        "fr",
        {"You do not have permission to open this.": "Accès interdit.", "No such room.": "Pas de salle."},
    )
    settings.LOCALE_PATHS = [str(tmp_path)]
    settings.MIDDLEWARE = [LOCALE_MIDDLEWARE, *settings.MIDDLEWARE]
    yield
    translation.deactivate()  # which a view's request leaves to the next one


@pytest.mark.usefixtures("languages")
class TestLanguages:
    def test_accept_language_chooses_the_language(self, ask):
        assert ask(accept_language="fr").problem["detail"] == "Accès interdit."

    def test_the_cookie_of_the_visitors_choice_wins(self, ask, settings):
        cookie = f"{settings.LANGUAGE_COOKIE_NAME}=fr"
        assert ask(cookie=cookie, accept_language="de").problem["detail"] == "Accès interdit."

    def test_the_package_brings_german(self, ask):
        detail = ask(accept_language="de").problem["detail"]
        assert detail == "Sie sind nicht berechtigt, dies zu öffnen."

    def test_a_text_of_the_sites_own_is_translated_late(self, ask, deny):
        shared = Deny(404, gettext_lazy("No such room."))
        deny(lambda: shared)
        assert ask(accept_language="fr").problem["detail"] == "Pas de salle."
        assert ask(accept_language="en").problem["detail"] == "No such room."

    def test_html_is_translated(self, ask):
        assert "Accès interdit." in ask(accept="text/html", accept_language="fr").body.decode()

    def test_the_code_is_not_translated(self, ask):
        assert ask(accept_language="fr").problem["code"] == "permission_denied"

    @pytest.mark.parametrize(
        "value", ["", "*", "xx", "fr;q=nan", "fr;q=9", ";;;", "\xff", "x" * 20000, "fr," * 5000, "../../etc"]
    )
    def test_an_odd_accept_language_changes_no_denial(self, value, ask):
        assert ask(accept_language=value).status == 403

    @pytest.mark.parametrize("value", ["", "xx", "../../etc/passwd", '"', "\xff"])
    def test_an_odd_cookie_changes_no_denial(self, value, ask, settings):
        assert ask(cookie=f"{settings.LANGUAGE_COOKIE_NAME}={value}").status == 403

    async def test_a_request_that_django_cannot_parse_changes_no_denial(self):
        headers = [(b"content-type", b"text/plain; name*=nowhere''%41"), (b"accept-language", b"fr")]
        assert (await fetch(http_application, "/", headers=headers)).status == 403

    def test_vary_names_what_the_language_follows_from(self, ask):
        assert {"accept", "accept-language", "cookie"} <= vary(ask())

    def test_the_language_of_one_visitor_is_not_that_of_the_next(self, ask):
        ask(accept_language="fr")
        assert ask().problem["detail"] == "You do not have permission to open this."

    async def test_the_language_of_a_visitor_does_not_stay(self):
        for function, app in ((knock, application), (fetch, http_application)):
            await function(app, "/", headers=[(b"accept-language", b"fr")])
            assert translation.get_language() == "en"


def test_without_localemiddleware_no_language_is_negotiated(ask):
    answer = ask(accept_language="de")
    assert answer.problem["detail"] == "You do not have permission to open this."
    assert "accept-language" not in vary(answer)


async def test_without_i18n_no_language_is_negotiated(settings):
    settings.USE_I18N = False
    settings.MIDDLEWARE = [LOCALE_MIDDLEWARE]
    answer = await knock(application, "/", headers=[(b"accept-language", b"de")])
    assert answer.problem["detail"] == "You do not have permission to open this."


def test_the_language_of_the_site_is_the_default(ask, settings):
    settings.LANGUAGE_CODE = "de"
    assert ask().problem["detail"] == "Sie sind nicht berechtigt, dies zu öffnen."


# What every denial carries.


def vary(answer):
    return {name.strip().lower() for name in answer.header("vary").split(",")}


def cache_control(answer):
    return {part.strip() for part in answer.header("cache-control").split(",")}


def test_a_denial_is_not_stored(ask):
    assert cache_control(ask()) == {"no-store"}


def test_what_the_site_says_of_caching_stays(ask, deny):
    deny(lambda: HttpResponse(status=403, headers={"Cache-Control": "private, max-age=60"}))
    assert cache_control(ask()) == {"private", "max-age=60", "no-store"}


def test_no_store_is_said_once(ask, deny):
    deny(lambda: HttpResponse(status=403, headers={"Cache-Control": "no-store"}))
    assert ask().header("cache-control") == "no-store"


def test_a_denial_varies_by_accept_and_cookie(ask):
    assert {"accept", "cookie"} <= vary(ask())


def test_what_the_site_varies_by_stays_in_one_header(ask, deny):
    def response():
        denied = HttpResponse(status=403)
        patch_vary_headers(denied, ["Origin", "cookie"])
        return denied

    deny(response)
    names = [name.strip().lower() for name in ask().header("vary").split(",")]
    assert sorted(set(names)) == sorted(names)
    assert {"origin", "cookie", "accept"} <= set(names)


def test_a_star_of_the_sites_stays_alone(ask, deny):
    deny(lambda: HttpResponse(status=403, headers={"Vary": "*"}))
    assert ask().header("vary") == "*"


def test_a_401_has_one_challenge(ask, deny):
    deny(IsAuthenticated())
    answer = ask()
    assert (answer.status, answer.header("www-authenticate")) == (401, "Session")


def test_a_401_in_html_has_one_challenge_too(deny):
    deny(IsAuthenticated())
    answer = asyncio.run(knock(application, "/", headers=[(b"accept", b"text/html")]))
    assert (answer.status, answer.header("www-authenticate")) == (401, "Session")


def test_a_401_keeps_the_challenge_of_its_deny(ask, deny):
    deny(lambda: Deny(401, headers={"www-authenticate": "Bearer"}))
    assert ask().header("www-authenticate") == "Bearer"


def test_a_response_of_the_sites_gets_a_challenge_too(ask, deny):
    deny(lambda: HttpResponse(status=401))
    assert ask().header("www-authenticate") == "Session"


def test_the_challenge_is_a_setting(ask, deny, settings):
    settings.CHANNELS_WSDENY = {"CHALLENGE": 'Bearer realm="chat"'}
    deny(IsAuthenticated())
    assert ask().header("www-authenticate") == 'Bearer realm="chat"'


def test_no_other_denial_has_a_challenge(ask):
    assert ask().header("www-authenticate") is None


def test_what_is_unavailable_says_when_to_come_back(ask, deny):
    deny(Raises(lambda: ConnectionError()))
    answer = ask()
    assert (answer.status, answer.header("retry-after")) == (503, "5")


def test_the_headers_of_a_deny_go_out(ask, deny):
    deny(lambda: Deny(429, headers={"Retry-After": "30", "X-Limit": "10"}))
    answer = ask()
    assert (answer.header("retry-after"), answer.header("x-limit")) == ("30", "10")


def test_the_headers_of_a_deny_come_before_those_of_its_response(ask, deny):
    deny(lambda: Deny(response=HttpResponse(status=403, headers={"X-A": "1"}), headers={"X-A": "2"}))
    assert ask().header("x-a") == "2"


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b=c", "a\nb", "a\rb"])
def test_a_header_that_breaks_out_of_its_line_becomes_a_500(value, ask, deny):
    deny(lambda: Deny(403, headers={"X-A": value}))
    answer = ask()
    assert (answer.status, answer.header("x-a"), answer.header("set-cookie")) == (500, None, None)


def test_a_redirect_has_no_body(ask, deny):
    deny(lambda: HttpResponseRedirect("/elsewhere"))
    answer = ask()
    assert (answer.status, answer.header("location"), answer.body) == (302, "/elsewhere", b"")


def test_a_deny_may_redirect(ask, deny):
    deny(lambda: Deny(307, headers={"Location": "/elsewhere"}))
    answer = ask()
    assert (answer.status, answer.header("location")) == (307, "/elsewhere")


def test_a_304_has_no_body(ask, deny):
    deny(lambda: HttpResponseNotModified())
    assert (ask().status, ask().body) == (304, b"")


@pytest.mark.parametrize(("status", "sent"), [(419, 400), (499, 400), (512, 500), (599, 500), (399, 300)])
def test_a_status_that_no_server_knows_becomes_its_classs_x00(status, sent, ask, deny):
    deny(lambda: HttpResponse(b"mine", status=status))
    assert (ask().status, ask().body) == (sent, b"mine")


@pytest.mark.parametrize("status", [100, 101, 103, 200, 204, 299])
def test_a_response_that_cannot_deny_becomes_a_500_without_its_content(status, ask, deny):
    deny(lambda: HttpResponse(b"welcome", status=status, headers={"X-Secret": "1"}))
    answer = ask()
    assert (answer.status, answer.header("x-secret")) == (500, None)
    assert b"welcome" not in answer.body


@pytest.mark.parametrize("status", [403, 413, 414, 416, 418, 422, 426, 451, 511])
def test_the_title_is_that_of_the_status(status, ask, deny):
    from http import HTTPStatus

    deny(lambda: Deny(status))
    assert ask().problem["title"] == HTTPStatus(status).phrase


# Responses that deny many visitors.


def test_a_shared_response_is_not_changed(ask, deny):
    shared = HttpResponse(b"no", status=401)
    headers = dict(shared.items())
    deny(lambda: shared)
    ask()
    assert (dict(shared.items()), dict(shared.cookies)) == (headers, {})


def test_a_shared_response_says_the_same_to_everybody(ask, deny):
    shared = HttpResponse(b"no", status=403)
    deny(lambda: shared)
    assert ask() == ask()


class SetsSession(Policy):
    """Writes to the session, which sends a cookie, and denies with a shared response."""

    shared = HttpResponse(b"no", status=403)

    def check(self, request):
        request.session["seen"] = True
        return self.shared


def test_the_session_cookie_of_one_visitor_does_not_reach_the_next(ask, deny, settings):
    deny(SetsSession())
    assert settings.SESSION_COOKIE_NAME in ask().header("set-cookie")
    deny(lambda: SetsSession.shared)
    assert ask().header("set-cookie") is None


def test_the_header_that_middleware_adds_does_not_stay_on_a_shared_response():
    shared = HttpResponse(b"no", status=403)
    view = require(Answers(lambda: shared))(lambda request: HttpResponse())
    view(RequestFactory().get("/"))["X-Visitor"] = "alice"
    assert not view(RequestFactory().get("/")).has_header("X-Visitor")


def test_what_closes_with_one_visitors_response_does_not_close_with_the_nexts():
    shared = HttpResponse(b"no", status=403)
    view = require(Answers(lambda: shared))(lambda request: HttpResponse())
    closed = []
    view(RequestFactory().get("/"))._resource_closers.append(lambda: closed.append("first"))
    view(RequestFactory().get("/")).close()
    assert closed == []
