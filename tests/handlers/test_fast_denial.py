"""Kept denials: what is sent again is what would have been made."""

import logging

import pytest
from asgiref.sync import async_to_sync
from channels.routing import URLRouter
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.urls import path
from django.utils.safestring import mark_safe
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.handlers import fast_denial
from channels_wsdeny.policies import AllowAny, DenyAll, HasPermission, InGroup, IsAuthenticated, IsStaff
from tests.support.clients import cookie_header, knock
from tests.support.mirror import made
from tests.support.policies import AsyncCheck, Check, accept, raising
from tests.support.receivers import connected
from tests.support.sockets import guarded
from tests.support.wrappers import Middleware, Wrapper

pytestmark = pytest.mark.django_db

ask = async_to_sync(knock)


@pytest.fixture(autouse=True)
def _nothing_is_kept():
    fast_denial._encoded.clear()
    yield
    fast_denial._encoded.clear()


def visits(request):
    request.session["visits"] = 1
    return False


class Saying(DenyAll):
    def __init__(self, detail):
        self.detail = detail


POLICIES = {
    "staff": IsStaff(),
    "group": AllowAny() & InGroup("ops"),
    "permission": HasPermission("auth.add_user", anonymous=True),
    "either": DenyAll() | IsAuthenticated(),
    "deny": Check(lambda request: Deny(429, "Slowly.")),
    "unregistered": Check(lambda request: Deny(499, code="gone_away")),
    "503": Check(lambda request: Deny(503)),
    "304": Check(lambda request: Deny(304)),
    "large": Saying("a" * 100_000),
    "lazy": Saying(gettext_lazy("You need to log in first.")),
    "lazy that raises": Saying(format_lazy("{who}, go.")),
    "safe": Saying(mark_safe("<b>No</b>")),
    "as the safe one": Saying("<b>No</b>"),
    "as a translated one": Saying("You need to log in first."),
    "denial that raises": type("Raises", (DenyAll,), {"denial": lambda self: 1 / 0})(),
    "status that cannot deny": type("Weird", (DenyAll,), {"status": 200})(),
    "headers": Check(lambda request: Deny(403, headers={"X-Why": "because"})),
    "members": Check(lambda request: Deny(403, room=7)),
    "response": Check(lambda request: Deny(response=HttpResponse("no", status=402))),
    "session": Check(visits),
    "asynchronous": AsyncCheck(lambda request: False),
    "permission denied": Check(raising(PermissionDenied)),
    "not found": Check(raising(Http404)),
    "error": Check(raising(ZeroDivisionError)),
}


def hooked(answer, kind="request"):
    return DenyMiddlewareStack(accept, hooks=made(kind, answer))


SITES = {
    **{name: (lambda policy=policy: guarded(policy, accept)) for name, policy in POLICIES.items()},
    "default": lambda: DenyMiddlewareStack(accept),
    "no route": lambda: DenyMiddlewareStack(URLRouter([path("a/", accept)])),
    "unknown wrapper": lambda: DenyMiddlewareStack(Wrapper(accept)),
    "middleware": lambda: DenyMiddlewareStack(Middleware(accept)),
    "request hook": lambda: hooked(lambda request: None),
    "request hook that denies": lambda: hooked(lambda request: Deny(410, "Gone.")),
    "request hook that writes the session": lambda: hooked(lambda request: visits(request) or None),
    "response hook": lambda: hooked(lambda request, response: response.headers.update({"X-Seen": "yes"}), "response"),
}
HEADERS = {
    "none": [],
    "html": [(b"accept", b"text/html,*/*;q=0.8")],
    "two accepts": [(b"accept", b"text/plain"), (b"accept", b"text/html")],
    "long accept": [(b"accept", b"text/html, " * 100)],
    "german": [(b"accept-language", b"de")],
    "german html": [(b"accept", b"text/html"), (b"accept-language", b"de")],
    "german cookie": cookie_header(django_language="de"),
}


def note(**kwargs):
    """A receiver, which changes nothing about an answer, but that it is made each time."""


def seen(site, caplog, **scope):
    """What a client and the log get."""
    caplog.clear()
    answer = ask(site, "/", **scope)
    names = ("levelno", "path", "status", "code", "policy", "user", "client")
    records = [[getattr(record, name, None) for name in names] for record in caplog.records]
    cookies = [name.partition("=")[0] for name in answer.all("set-cookie")]
    headers = sorted(each for each in answer.headers if each[0] != "set-cookie")
    return answer.status, headers, cookies, answer.body, records


@pytest.fixture(params=[False, True])
def is_negotiated(request, settings):
    """Whether the language is negotiated, of two."""
    settings.LANGUAGES = [("en", "English"), ("de", "Deutsch")]
    if request.param:
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]
    return request.param


@pytest.mark.parametrize("make", SITES.values(), ids=SITES)
def test_a_kept_denial_is_the_one_that_would_have_been_made(make, is_negotiated, headers_of, caplog):
    caplog.set_level(logging.INFO)
    names = ["german", "german html", "german cookie"]
    if not is_negotiated:
        names = ["none", "html", "two accepts", "long accept"]
    for user, name in [*((None, name) for name in names), ("alice", names[1])]:
        scope = {"headers": [*HEADERS[name], *headers_of(user)]}
        with connected(note):
            expected = seen(make(), caplog, **scope)
        assert [seen(make(), caplog, **scope) for _ in range(2)] == [expected] * 2, (user, name)


@pytest.mark.parametrize("is_negotiated", [True], indirect=True)
def test_equal_texts_of_another_kind_are_other_denials(is_negotiated):
    html, german = [(b"accept", b"text/html")], [(b"accept-language", b"de")]
    for first, second, headers in (("safe", "as the safe one", html), ("lazy", "as a translated one", german)):
        assert ask(SITES[first](), "/", headers=headers).body != ask(SITES[second](), "/", headers=headers).body


@pytest.mark.parametrize("user", [None, "alice"])
def test_a_denial_is_kept_by_what_it_depends_on_and_for_a_bounded_number(user, headers_of, monkeypatch):
    site, first = guarded(IsStaff(), accept), None
    for more in ([], [], [(b"x-request-id", b"7"), (b"accept", b"image/avif,application/json,*/*")]):
        answer = ask(site, "/", headers=[*headers_of(user), *more])
        first = answer.messages[1]["body"] if first is None else first
        assert answer.messages[1]["body"] is first  # The type that is negotiated is the same.
    monkeypatch.setattr(fast_denial, "_MOST", 3)
    statuses = iter([400, 403, 404, 409, 410, 429])
    site = guarded(Check(lambda request: Deny(next(statuses))), accept)
    for _ in range(6):
        ask(site, "/")
    assert len(fast_denial._encoded) <= 3
    fast_denial._encoded.clear()
    details = iter("abc")
    for _ in range(3):
        ask(guarded(Check(lambda request: Deny(403, next(details) * 100_000)), accept), "/")
    assert not fast_denial._encoded


def test_headers_that_differ_each_time_share_the_denials_of_the_types_and_languages(is_negotiated):
    """What has a repeated header is not kept."""
    site = guarded(IsStaff(), accept)
    for index in range(50):
        for headers in (
            [(b"accept", b"text/html;q=0.%d, text/plain" % index), (b"accept-language", b"de, en;q=0.%d" % index)],
            [(b"accept", b"text/html, text/plain;q=0.%d" % index), (b"accept-language", b"en")],
            [(b"accept", b"text/html"), (b"accept", b"text/plain;q=0.%d" % index), (b"accept-language", b"fr")],
            [(b"accept", b"a/b%d, " % index * 300), (b"accept-language", b"x%d," % index * 300)],
            [(b"cookie", b"a=%d" % index), (b"accept", b"*/*"), (b"accept-language", b"de")],
        ):
            assert ask(site, "/", headers=headers).status == 401
    assert len(fast_denial._encoded) == (4 if is_negotiated else 3)


def test_a_denial_depends_on_settings_hooks_and_the_server(settings, headers_of):
    site = guarded(IsStaff(), accept)
    for headers in ([], headers_of("alice")):
        before = ask(site, "/", headers=headers)
        settings.DEBUG = True
        assert "IsStaff" in ask(site, "/", headers=headers).problem["debug"]
        settings.DEBUG = False
        assert ask(site, "/", headers=headers) == before
        settings.CHANNELS_WSDENY = {"CHALLENGE": "Bearer"}
        assert (ask(site, "/", headers=headers).header("www-authenticate") == "Bearer") is (before.status == 401)
        settings.CHANNELS_WSDENY = {}
        assert ask(site, "/", headers=headers, extensions={}).close[0] == 4000 + before.status
        hooks = made("response", lambda request, response: response.__setitem__("X-Hook", "1"))
        for _ in range(2):
            stack = DenyMiddlewareStack(site.inner, hooks=hooks)
            assert ask(stack, "/", headers=headers).header("x-hook") == "1"
