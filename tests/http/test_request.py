"""`HandshakeRequest` is one of Django's own requests: its ecosystem works on it."""

from io import BytesIO

import pytest
from asgiref.sync import async_to_sync
from django.contrib import auth
from django.contrib.auth.decorators import login_required
from django.contrib.sites.shortcuts import get_current_site
from django.core.exceptions import BadRequest, TooManyFieldsSent
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import get_object_or_404
from django.template import engines
from django.urls import ResolverMatch, path, reverse

from channels_wsdeny.http.context import get_context
from channels_wsdeny.http.request import AppRequest, HandshakeRequest, NoUser
from channels_wsdeny.policies import IsAuthenticated
from channels_wsdeny.types import context_of
from tests.support.clients import cookie_header, http_scope, knock, websocket_scope
from tests.support.policies import AsyncCheck, Check
from tests.support.policies import accept as accept_all
from tests.support.sockets import errors, guarded

pytestmark = pytest.mark.urls(__name__)

ask = async_to_sync(knock)


def handshake(path="/ws/room/", headers=(), **scope):
    return HandshakeRequest(websocket_scope(path, headers=list(headers), **scope))


#: Later releases of Django 5.2 leave such a header out.
UNDERSCORE = [(b"x_user", b"root")]
OF_DJANGO = ASGIRequest({"type": "http", "method": "GET", "path": "/", "headers": UNDERSCORE}, BytesIO())


def whoami(request):
    return HttpResponse(request.user.get_username())


urlpatterns = [path("whoami/", whoami, name="whoami"), path("login/", whoami, name="login")]
HOST = [(b"host", b"localhost")]
SPLIT = [(b"cookie", b"a=1"), (b"user-agent", b"x"), (b"cookie", b"b=2; c=3")]
FORM = [(b"content-type", b"application/x-www-form-urlencoded")]
PROXIED = [(b"host", b"inside"), (b"x-forwarded-host", b"localhost"), (b"x-forwarded-proto", b"https")]

FACTS = {
    "Django's class": (handshake(), lambda r: isinstance(r, ASGIRequest), True),
    "GET": (handshake(), lambda r: r.method, "GET"),
    "GET over HTTP/2": (handshake(method="CONNECT"), lambda r: r.method, "GET"),
    "no body": (handshake(), lambda r: (r.body, r.read()), (b"", b"")),
    "no body of a length": (handshake(headers=[(b"content-length", b"9")]), lambda r: r.body, b""),
    "no body of no length": (handshake(headers=[(b"content-length", b"many")]), lambda r: r.body, b""),
    "no form": (handshake(headers=FORM), lambda r: (dict(r.POST), dict(r.FILES)), ({}, {})),
    "ws": (handshake(scheme="ws"), lambda r: (r.scheme, r.is_secure()), ("http", False)),
    "wss": (handshake(scheme="wss"), lambda r: (r.scheme, r.is_secure()), ("https", True)),
    "https": (handshake(scheme="https"), lambda r: r.is_secure(), True),
    "no scheme": (handshake(), lambda r: r.scheme, "http"),
    "URI": (handshake("/?a=1", HOST, scheme="wss"), lambda r: r.build_absolute_uri(), "https://localhost/?a=1"),
    "an unnamed proxy": (handshake(headers=PROXIED, scheme="ws"), lambda r: r.is_secure(), False),
    "host of the server": (handshake(server=["127.0.0.1", 8000]), lambda r: r.get_host(), "127.0.0.1:8000"),
    "root path": (handshake("/app/ws/", root_path="/app"), lambda r: (r.path, r.path_info), ("/app/ws/", "/ws/")),
    "no addresses": (handshake(client=None, server=None), lambda r: "REMOTE_ADDR" in r.META, False),
    "address": (handshake(client=["192.0.2.7", 47]), lambda r: r.META["REMOTE_ADDR"], "192.0.2.7"),
    "underscore": (handshake(headers=UNDERSCORE), lambda r: "X-User" in r.headers, "X-User" in OF_DJANGO.headers),
    "query": (handshake("/?a=1&a=2&b=%C3%A9"), lambda r: dict(r.GET), {"a": ["1", "2"], "b": ["é"]}),
    "cookies": (handshake(headers=cookie_header(a="1", b="2")), lambda r: r.COOKIES, {"a": "1", "b": "2"}),
    "no cookies": (handshake(), lambda r: r.COOKIES, {}),
    "cookies split by HTTP/2": (handshake(headers=SPLIT), lambda r: r.COOKIES, {"a": "1", "b": "2", "c": "3"}),
    "cookies split, as META": (handshake(headers=SPLIT), lambda r: r.META["HTTP_COOKIE"], "a=1; b=2; c=3"),
    "no route": (handshake(), lambda r: r.resolver_match, None),
    "missing attribute": (handshake(), lambda r: (hasattr(r, "_messages"), getattr(r, "no", 7)), (False, 7)),
    "CSRF token": (handshake(), lambda r: len(get_token(r)), 64),
    "log-in page": (handshake(headers=HOST), lambda r: login_required(whoami)(r).url, "/login/?next=/ws/room/"),
    "current site": (handshake(headers=HOST), lambda r: get_current_site(r).domain, "localhost"),
    "over HTTP": (AppRequest(http_scope("/", "POST")), lambda r: r.method, "POST"),
    "printed": (handshake("/a/", query_string=b"ticket=secret"), repr, "<HandshakeRequest: GET '/a/'>"),
    # Formatters of log records print whatever is on them.
    "printed wrong": (AppRequest(http_scope("/a/", "PUT", query_string=b"\xff")), repr, "<AppRequest: PUT '/a/'>"),
}


@pytest.mark.parametrize(("request_", "look", "expected"), FACTS.values(), ids=FACTS)
def test_it_is_a_django_request(request_, look, expected):
    assert look(request_) == expected


def test_settings_about_proxies_and_prefixes_hold(settings):
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.USE_X_FORWARDED_HOST = True
    request = handshake(headers=PROXIED, scheme="ws")
    assert (request.is_secure(), request.get_host()) == (True, "localhost")
    settings.FORCE_SCRIPT_NAME = "/forced"
    assert handshake("/forced/ws/").path_info == "/ws/"


# Django's own __init__ runs when something first asks for what it sets.


def test_what_is_set_before_djangos_own_init_stays():
    request = handshake()
    request.urlconf, request.resolver_match = "tests.site", (match := ResolverMatch(whoami, (), {"pk": 1}))
    assert request.META
    assert (request.urlconf, request.resolver_match) == ("tests.site", match)


def test_a_missing_attribute_raises_as_on_any_object_and_each_time():
    class Mine(HandshakeRequest):
        @property
        def broken(self):
            return None.nothing

    for name, error in {"nothing": "'Mine' object has no attribute 'nothing'", "broken": "'NoneType' object"}.items():
        request = Mine(websocket_scope("/"))
        for _ in range(2):
            with pytest.raises(AttributeError, match=error):
                getattr(request, name)


# Malformed handshakes.


def test_an_undecodable_query_string_stays_a_bad_request():
    request = handshake(query_string=b"\xff")
    for name in ("META", "GET", "META"):
        with pytest.raises(BadRequest, match="malformed"):
            getattr(request, name)


def test_too_many_parameters_and_wrong_hosts_are_400s(settings):
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 2
    with pytest.raises(TooManyFieldsSent):
        handshake("/?a=1&b=2&c=3").GET  # noqa: B018
    assert ask(guarded(Check(lambda r: bool(r.GET)), accept_all), "/?a=1&b=2&c=3").status == 400
    assert ask(guarded(Check(lambda r: r.get_host()), accept_all), "/", headers=[(b"host", b"evil")]).status == 400


COOKIES = [b"\xff\xfe=\x80", b"=;=;;", b";" * 1000, b"a" * 65536, b'a="\\777"']
WEIRD = [
    *((b"cookie", value) for value in COOKIES),
    (b"content-type", b"text/plain; charset=\xff\x00"),
    (b"content-type", b"text/plain; charset*=utf-8''%FF"),
    (b"content-type", b"x" * 70_000),
    (b"content-type", b";;;=;"),
    (b"accept", b"\xff;q=x,,/"),
    (b"accept-language", b"\xff;q=x" * 1000),
    (b"x-weird", bytes(range(32, 256))),
    (b"", b""),
]


@pytest.mark.parametrize("header", WEIRD, ids=lambda header: f"{header[0].decode()}: {header[1][:12]!r}")
def test_a_header_that_cannot_be_parsed_is_a_400_or_passes_and_names_no_user(header):
    def look(request):
        return bool(request.META) and request.accepts("text/html") is not None and request.COOKIES is not None

    assert ask(guarded(Check(look), accept_all), "/", headers=[header]).status in {101, 400}
    assert ask(guarded(IsAuthenticated(), accept_all), "/", headers=[header]).status == 401


# What a view can do with a request, a policy can.


def test_a_policy_may_render_templates_call_views_and_find_objects(users, headers_of):
    found = []

    def look(request):
        template = engines["django"].from_string("{{ user.username }} at {{ request.path }}")
        found.extend([template.render({}, request), login_required(whoami)(request).content])
        return get_object_or_404(type(users["alice"]), username="missing")

    assert ask(guarded(Check(look), accept_all), "/ws/", headers=headers_of("alice")).status == 404
    assert found == ["alice at /ws/", b"alice"]


def test_urls_are_reversed_below_the_root_path():
    found = []

    async def look(request):
        found.append(reverse("whoami"))
        return True

    for root_path in ("/app", ""):
        for policy in (AsyncCheck(look), Check(async_to_sync(look))):
            ask(guarded(policy, accept_all), f"{root_path}/", root_path=root_path)
    assert found == ["/app/whoami/"] * 2 + ["/whoami/"] * 2


# The user.


def test_the_user_is_one_object_however_it_is_asked_for(headers_of):
    async def look(request):
        same = await request.auser() is await request.auser() is request.user
        return same and request.user.username == "alice"

    assert ask(guarded(AsyncCheck(look), accept_all), "/", headers=headers_of("alice")).status == 101


async def test_the_user_of_a_client_without_a_session_needs_no_thread():
    assert (await handshake().auser()).is_anonymous


class Stumbling:
    """An authentication backend with a bug."""

    def get_user(self, pk):
        return self.nothing


def test_an_attribute_error_inside_the_user_says_what_is_missing(sessions, settings, caplog):
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.Stumbling"]
    session = sessions["alice"]
    session[auth.BACKEND_SESSION_KEY] = f"{__name__}.Stumbling"
    session.save()
    headers = cookie_header(**{settings.SESSION_COOKIE_NAME: session.session_key})
    assert ask(guarded(IsAuthenticated(), accept_all), "/", headers=headers).status == 500
    assert "'Stumbling' object has no attribute 'nothing'" in caplog.text


def test_the_user_of_a_site_without_users_is_allowed_nothing():
    assert (NoUser().get_username(), NoUser().has_perm("a.b"), NoUser().is_authenticated) == ("", False, False)


def test_a_request_has_one_context_and_a_namespace_of_its_own(rf):
    first, second = rf.get("/"), rf.get("/")
    assert get_context(first) is get_context(first) is first.wsdeny is context_of(first)
    assert first.ctx is not get_context(second).request.ctx


def test_what_waits_for_the_end_is_called_once_or_at_once_after_it_and_its_errors_are_logged(caplog):
    context, ran = get_context(HandshakeRequest(websocket_scope("/"))), []
    context.on_end(lambda: ran.append("first"))
    context.on_end(lambda: 1 / 0)
    context.on_end(lambda: ran.append("second"))
    context.state.has_ended = True
    context.run_ending()
    context.run_ending()
    assert sorted(ran) == ["first", "second"]
    assert [type(error) for error in errors(caplog)] == [ZeroDivisionError]
    context.on_end(lambda: ran.append("late"))
    assert ran[2:] == ["late"]


def test_the_end_of_a_views_request_is_not_known(rf):
    with pytest.raises(TypeError, match="on_end"):
        get_context(rf.get("/")).on_end(print)
