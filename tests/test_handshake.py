"""`HandshakeRequest`: what Django and its ecosystem do with a request, done with a handshake."""

from __future__ import annotations

import copy
import sys

import pytest
from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.contrib import auth, messages
from django.contrib.auth.decorators import login_required
from django.contrib.messages.storage import default_storage
from django.contrib.sites.requests import RequestSite
from django.contrib.sites.shortcuts import get_current_site
from django.core.exceptions import BadRequest, DisallowedHost, TooManyFieldsSent
from django.core.handlers.asgi import ASGIRequest
from django.db import connection
from django.http import Http404, HttpResponse, UnreadablePostError
from django.middleware.csrf import get_token
from django.shortcuts import get_object_or_404
from django.template import engines
from django.test import Client
from django.urls import ResolverMatch, path
from django.utils.cache import get_cache_key
from django.utils.translation import get_language_from_request
from django.views.debug import ExceptionReporter

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import public, require
from channels_wsdeny.http.request import AppRequest, HandshakeRequest
from channels_wsdeny.policies import IsAuthenticated
from tests.clients import cookie_header, http_scope, knock, websocket_scope
from tests.parts import AsyncCheck, Check

MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"


class Accept(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept()


def handshake(path="/ws/room/", headers=(), **scope):
    return HandshakeRequest(websocket_scope(path, headers=list(headers), **scope))


def site(policy, consumer=Accept):
    return DenyMiddlewareStack(require(policy)(type("Guarded", (consumer,), {})).as_asgi())


def whoami(request):
    return HttpResponse(request.user.get_username())


urlpatterns = [path("whoami/", whoami)]


# What it is.


def test_it_is_one_of_djangos_own_requests():
    assert isinstance(handshake(), ASGIRequest)


@pytest.mark.parametrize("scope", [{}, {"method": "CONNECT"}], ids=["HTTP/1.1", "HTTP/2"])
def test_it_is_a_get(scope):
    assert handshake(**scope).method == "GET"


def test_its_body_is_empty():
    assert handshake().body == b""


def test_reading_it_gives_nothing():
    assert handshake().read() == b""


def test_it_has_no_form_data():
    request = handshake(headers=[(b"content-type", b"application/x-www-form-urlencoded")])
    assert (dict(request.POST), dict(request.FILES)) == ({}, {})


@pytest.mark.parametrize("length", [b"1000", b"-1", b"many", b"9" * 30])
def test_a_content_length_without_a_body_changes_nothing(length):
    assert handshake(headers=[(b"content-length", length)]).body == b""


def test_its_repr_names_the_path():
    assert repr(handshake("/ws/room/?token=1")) == "<HandshakeRequest: GET '/ws/room/?token=1'>"


# Where it goes to.


@pytest.mark.parametrize(
    ("scheme", "secure"), [("ws", False), ("wss", True), ("http", False), ("https", True), (None, False)]
)
def test_it_is_secure_over_wss(scheme, secure):
    assert handshake(scheme=scheme).is_secure() is secure


def test_it_is_not_secure_when_the_server_names_no_scheme():
    assert handshake().scheme == "http"


@pytest.mark.parametrize(("scheme", "expected"), [("ws", "http"), ("wss", "https")])
def test_its_absolute_uri_is_one_of_http(scheme, expected):
    request = handshake("/ws/room/?a=1", [(b"host", b"localhost:8000")], scheme=scheme)
    assert request.build_absolute_uri() == f"{expected}://localhost:8000/ws/room/?a=1"


def test_it_builds_absolute_uris_of_other_pages():
    request = handshake(headers=[(b"host", b"localhost")])
    assert request.build_absolute_uri("/login/") == "http://localhost/login/"


@pytest.mark.parametrize(("value", "secure"), [(b"https", True), (b"http", False)])
def test_it_believes_the_proxy_that_the_site_believes(value, secure, settings):
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert handshake(headers=[(b"x-forwarded-proto", value)], scheme="ws").is_secure() is secure


def test_it_does_not_believe_a_proxy_that_the_site_does_not_name():
    assert not handshake(headers=[(b"x-forwarded-proto", b"https")], scheme="ws").is_secure()


def test_its_host_is_the_header_of_the_client():
    assert handshake(headers=[(b"host", b"localhost:8000")]).get_host() == "localhost:8000"


def test_its_host_is_the_servers_without_a_header():
    assert handshake(server=["127.0.0.1", 8000]).get_host() == "127.0.0.1:8000"


def test_its_host_is_the_proxys_where_the_site_says_so(settings):
    settings.USE_X_FORWARDED_HOST = True
    request = handshake(headers=[(b"host", b"inside"), (b"x-forwarded-host", b"localhost")])
    assert request.get_host() == "localhost"


@pytest.mark.parametrize("host", [b"evil.example", b"", b"a b", b"\xff"])
def test_a_host_that_is_not_allowed_raises(host):
    with pytest.raises(DisallowedHost):
        handshake(headers=[(b"host", host)]).get_host()


def test_a_host_that_is_not_allowed_is_a_bad_request(db):
    answer = async_to_sync(knock)(site(Check(lambda r: r.get_host())), "/", headers=[(b"host", b"evil")])
    assert answer.status == 400


def test_its_full_path_has_the_query_string():
    assert handshake("/ws/room/?a=1&b=2").get_full_path() == "/ws/room/?a=1&b=2"


def test_its_full_path_is_quoted_anew():
    assert handshake("/ws/é room/").get_full_path() == "/ws/%C3%A9%20room/"


def test_its_path_has_the_root_path_and_its_path_info_has_not():
    request = handshake("/app/ws/room/", root_path="/app")
    assert (request.path, request.path_info, request.script_name) == ("/app/ws/room/", "/ws/room/", "/app")


def test_its_script_name_can_be_forced(settings):
    settings.FORCE_SCRIPT_NAME = "/forced"
    assert handshake("/forced/ws/").path_info == "/ws/"


def test_a_scope_without_client_and_server_will_do():
    request = handshake(client=None, server=None)
    assert "REMOTE_ADDR" not in request.META
    assert request.META["SERVER_NAME"] == "unknown"


# What it carries.


def test_its_headers_are_found_whatever_their_case():
    assert handshake(headers=[(b"x-token", b"abc")]).headers["X-TOKEN"] == "abc"


def test_its_meta_has_the_address_of_the_client():
    meta = handshake(client=["192.0.2.7", 4711], server=["192.0.2.1", 8000]).META
    assert (meta["REMOTE_ADDR"], meta["REMOTE_PORT"]) == ("192.0.2.7", 4711)


def test_its_meta_has_the_headers_as_wsgi_would():
    meta = handshake("/?a=1", [(b"user-agent", b"browser"), (b"content-type", b"text/plain")]).META
    assert (meta["HTTP_USER_AGENT"], meta["CONTENT_TYPE"], meta["QUERY_STRING"]) == (
        "browser",
        "text/plain",
        "a=1",
    )


def test_a_repeated_header_is_one_list():
    headers = [(b"sec-websocket-protocol", b"a"), (b"sec-websocket-protocol", b"b")]
    assert handshake(headers=headers).headers["Sec-WebSocket-Protocol"] == "a,b"


def test_a_header_with_an_underscore_cannot_pose_as_one_with_a_hyphen():
    assert "X-User" not in handshake(headers=[(b"x_user", b"root")]).headers


def test_its_query_parameters_are_parsed():
    assert dict(handshake("/?a=1&a=2&b=%C3%A9").GET) == {"a": ["1", "2"], "b": ["é"]}


def test_too_many_query_parameters_are_suspicious(settings):
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 2
    with pytest.raises(TooManyFieldsSent):
        handshake("/?a=1&b=2&c=3").GET  # noqa: B018


def test_too_many_query_parameters_are_a_bad_request(db, settings):
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 2
    answer = async_to_sync(knock)(site(Check(lambda r: bool(r.GET))), "/?a=1&b=2&c=3")
    assert answer.status == 400


def test_its_cookies_are_parsed():
    assert handshake(headers=cookie_header(a="1", b="2")).COOKIES == {"a": "1", "b": "2"}


def test_a_handshake_without_cookies_has_none():
    assert handshake().COOKIES == {}


SPLIT = [(b"cookie", b"a=1"), (b"user-agent", b"x"), (b"cookie", b"b=2; c=3")]


def test_cookies_that_http_2_split_are_whole():
    assert handshake(headers=SPLIT).COOKIES == {"a": "1", "b": "2", "c": "3"}


def test_cookies_that_http_2_split_are_one_header():
    assert handshake(headers=SPLIT).META["HTTP_COOKIE"] == "a=1; b=2; c=3"


def test_a_session_cookie_that_http_2_split_off_is_found(sessions, settings):
    mine = cookie_header(**{settings.SESSION_COOKIE_NAME: sessions["alice"].session_key})
    headers = [(b"cookie", b"a=1"), *mine, (b"cookie", b"b=2")]
    assert async_to_sync(knock)(site(IsAuthenticated()), "/", headers=headers).status == 101


@pytest.mark.parametrize("cookie", [b"\xff\xfe=\x80", b"=;=;;", b";" * 1000, b"a" * 65536, b'a="\\777"'])
def test_cookies_that_cannot_be_parsed_are_no_error(cookie):
    answer = async_to_sync(knock)(site(IsAuthenticated()), "/", headers=[(b"cookie", cookie)])
    assert answer.status == 401


def test_a_signed_cookie_can_be_read():
    response = HttpResponse()
    response.set_signed_cookie("theme", "dark")
    value = response.cookies["theme"].value
    assert handshake(headers=cookie_header(theme=value)).get_signed_cookie("theme") == "dark"


def test_it_tells_what_the_client_accepts():
    request = handshake(headers=[(b"accept", b"text/html;q=0.5, application/json")])
    assert request.get_preferred_type(["text/html", "application/json"]) == "application/json"
    assert request.accepts("text/html")
    assert not request.accepts("image/png")


# Django's own __init__ runs late.


def test_what_is_set_before_survives_djangos_own_init():
    request = handshake()
    request.urlconf = "tests.site"
    assert request.META
    assert request.urlconf == "tests.site"


def test_the_route_survives_djangos_own_init():
    request = handshake()
    request.resolver_match = match = ResolverMatch(whoami, (), {"pk": 1})
    assert request.META
    assert request.resolver_match is match


def test_the_route_is_none_before_it_is_known():
    assert handshake().resolver_match is None


def test_the_route_is_known_to_policies_and_to_the_consumer(db):
    found = []

    async def look(request):
        found.append(request.resolver_match)
        return bool(request.META)

    class Look(Accept):
        async def connect(self):
            found.append(self.scope["wsdeny"].request.resolver_match)
            await super().connect()

    inner = require(AsyncCheck(look))(Look).as_asgi()
    application = DenyMiddlewareStack(URLRouter([path("ws/<slug:slug>/", inner, name="room")]))
    assert async_to_sync(knock)(application, "/ws/lobby/").status == 101
    first, second = found
    assert first is second
    assert (first.kwargs, first.url_name, first.route) == ({"slug": "lobby"}, "room", "ws/<slug:slug>/")


def test_an_attribute_that_is_not_there_is_not_there():
    assert not hasattr(handshake(), "nothing")


def test_getattr_takes_its_default():
    assert getattr(handshake(), "nothing", 7) == 7


def test_a_missing_attribute_raises_as_on_any_object():
    with pytest.raises(AttributeError, match="'HandshakeRequest' object has no attribute 'nothing'"):
        handshake().nothing  # noqa: B018


def test_a_missing_attribute_raises_the_second_time_as_well():
    request = handshake()
    assert not hasattr(request, "nothing")
    assert not hasattr(request, "nothing")


def test_it_has_no_messages_unless_the_site_gives_it_some():
    assert not hasattr(handshake(), "_messages")


@pytest.mark.parametrize("used", [False, True], ids=["unused", "used"])
def test_a_copy_is_like_it(used):
    request = handshake("/ws/room/?a=1", cookie_header(a="1"))
    request.resolver_match = match = ResolverMatch(whoami, (), {"pk": 1})
    if used:
        assert request.META
    clone = copy.copy(request)
    assert (clone.path, clone.COOKIES, clone.GET["a"], clone.method) == ("/ws/room/", {"a": "1"}, "1", "GET")
    if not used:
        assert clone.resolver_match is match


def test_a_copy_is_a_request_of_its_own():
    request = handshake()
    clone = copy.copy(request)
    clone.user = "another"
    assert request.user.is_anonymous


# Malformed ones.


def test_an_undecodable_query_string_is_a_bad_request_wherever_it_is_met():
    with pytest.raises(BadRequest, match="malformed"):
        handshake(query_string=b"\xff").META  # noqa: B018


def test_an_undecodable_query_string_stays_a_bad_request():
    request = handshake(query_string=b"\xff")
    for _ in range(2):
        with pytest.raises(BadRequest):
            request.GET  # noqa: B018


def test_an_undecodable_query_string_is_answered_by_400():
    answer = async_to_sync(knock)(site(IsAuthenticated()), "/", query_string=b"a=\xff")
    assert (answer.status, answer.problem["code"]) == (400, "bad_request")


def test_an_undecodable_query_string_does_not_reach_a_public_consumer():
    reached = []

    class Reached(Accept):
        async def connect(self):
            reached.append(self.scope["path"])

    application = DenyMiddlewareStack(public(Reached).as_asgi())
    assert async_to_sync(knock)(application, "/", query_string=b"\xff").status == 400
    assert reached == []


def test_an_undecodable_percent_escape_is_no_error():
    assert handshake("/?a=%FF").GET["a"] == "\ufffd"


@pytest.mark.parametrize(
    "header",
    [
        (b"content-type", b"text/plain; charset=\xff\x00"),
        (b"content-type", b"text/plain; charset*=utf-8''%FF"),
        (b"content-type", b"x" * 70_000),
        (b"content-type", b";;;=;"),
        (b"accept", b"\xff;q=x,,/"),
        (b"accept-language", b"\xff;q=x" * 1000),
        (b"x-weird", bytes(range(32, 256))),
        (b"", b""),
    ],
    ids=lambda header: f"{header[0].decode()}: {header[1][:12]!r}",
)
def test_a_weird_header_is_a_bad_request_or_none_of_our_business(header, db):
    def look(request):
        return bool(request.META) and request.accepts("text/html") is not None

    answer = async_to_sync(knock)(site(Check(look)), "/", headers=[header])
    assert answer.status in {101, 400}


# Django's ecosystem.


@pytest.mark.urls(__name__)
def test_a_visitor_can_be_logged_in(users, settings):
    def log_in(request):
        auth.login(request, users["alice"], backend=MODEL_BACKEND)
        return True

    answer = async_to_sync(knock)(site(Check(log_in)), "/")
    assert answer.status == 101
    assert ask_django_with(answer.header("set-cookie"), settings) == "alice"


@pytest.mark.urls(__name__)
def test_a_visitor_who_is_denied_can_be_logged_in(users, settings):
    def log_in(request):
        auth.login(request, users["alice"], backend=MODEL_BACKEND)
        return False

    answer = async_to_sync(knock)(site(Check(log_in)), "/")
    assert answer.status == 403
    assert ask_django_with(answer.header("set-cookie"), settings) == "alice"


def test_a_visitor_who_logs_in_is_known_to_the_policies_that_follow(users):
    def log_in(request):
        auth.login(request, users["alice"], backend=MODEL_BACKEND)
        return True

    assert async_to_sync(knock)(site(Check(log_in) & IsAuthenticated()), "/").status == 101


@pytest.mark.urls(__name__)
def test_another_user_can_be_logged_in(users, headers_of, sessions, settings):
    def log_in(request):
        auth.login(request, users["bob"], backend=MODEL_BACKEND)
        return True

    answer = async_to_sync(knock)(site(Check(log_in)), "/", headers=headers_of("alice"))
    assert ask_django_with(answer.header("set-cookie"), settings) == "bob"
    assert sessions["alice"].session_key not in answer.header("set-cookie")


def test_a_user_can_be_logged_out(headers_of, sessions, settings):
    def log_out(request):
        auth.logout(request)
        return True

    answer = async_to_sync(knock)(site(Check(log_out)), "/", headers=headers_of("alice"))
    assert answer.status == 101
    assert answer.header("set-cookie").startswith(f'{settings.SESSION_COOKIE_NAME}=""; ')
    assert not sessions["alice"].exists(sessions["alice"].session_key)


def test_a_user_who_logs_out_is_anonymous_to_the_policies_that_follow(headers_of):
    def log_out(request):
        auth.logout(request)
        return True

    answer = async_to_sync(knock)(site(Check(log_out) & IsAuthenticated()), "/", headers=headers_of("alice"))
    assert answer.status == 401


def test_messages_can_be_left_for_the_next_page(db, settings):
    settings.MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

    def leave(request):
        request._messages = default_storage(request)
        messages.info(request, "Welcome back.")
        request._messages.update(HttpResponse())
        return True

    answer = async_to_sync(knock)(site(Check(leave)), "/")
    client = client_with(answer.header("set-cookie"), settings)
    assert "Welcome back." in client.session["_messages"]


def test_the_current_site_is_the_host_where_the_sites_app_is_absent():
    found = get_current_site(handshake(headers=[(b"host", b"localhost")]))
    assert isinstance(found, RequestSite)
    assert found.domain == "localhost"


@pytest.fixture
def site_model(transactional_db, settings):
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.sites"]
    from django.contrib.sites.models import Site

    with connection.schema_editor() as editor:
        editor.create_model(Site)
    yield Site
    Site.objects.clear_cache()
    with connection.schema_editor() as editor:
        editor.delete_model(Site)


def test_the_current_site_is_found_by_the_sites_app(site_model):
    expected = site_model.objects.create(domain="localhost", name="Here")
    assert get_current_site(handshake(headers=[(b"host", b"localhost")])) == expected


def test_it_has_a_csrf_token():
    assert get_token(handshake())


def test_it_tells_the_language_of_the_visitor():
    assert get_language_from_request(handshake(headers=[(b"accept-language", b"de-AT,de;q=0.9")])) == "de"


def test_templates_find_it_in_their_context(users, headers_of):
    template = engines["django"].from_string("{{ user.username }} at {{ request.path }}")
    found = []

    def render(request):
        found.append(template.render({}, request))
        return True

    async_to_sync(knock)(site(Check(render)), "/ws/", headers=headers_of("alice"))
    assert found == ["alice at /ws/"]


def test_a_view_can_be_called_with_it(users, headers_of):
    found = []

    def call(request):
        found.append(login_required(whoami)(request).content)
        return True

    async_to_sync(knock)(site(Check(call)), "/", headers=headers_of("alice"))
    assert found == [b"alice"]


def test_a_view_that_is_called_with_it_sends_anonymous_visitors_to_log_in():
    request = handshake("/ws/room/", [(b"host", b"localhost")])
    assert login_required(whoami)(request).url == "/login/?next=/ws/room/"


def test_a_shortcut_that_finds_nothing_is_a_404(users):
    def find(request):
        return get_object_or_404(type(users["alice"]), username="nobody")

    with pytest.raises(Http404):
        find(handshake())
    assert async_to_sync(knock)(site(Check(find)), "/").status == 404


def test_it_has_a_cache_key():
    assert get_cache_key(handshake(headers=[(b"host", b"localhost")])) is None


def test_the_report_that_is_mailed_to_admins_can_be_made_of_it():
    request = handshake("/ws/room/", [(b"host", b"localhost")])
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        report = ExceptionReporter(request, *sys.exc_info()).get_traceback_text()
    assert "Request Method: GET\nRequest URL: http://localhost/ws/room/" in report


def test_its_namespace_lives_until_the_consumer(db):
    async def note(request):
        request.ctx.tenant = "acme"
        return True

    found = []

    class Look(Accept):
        async def connect(self):
            found.append(self.scope["wsdeny"].request.ctx.tenant)
            await super().connect()

    async_to_sync(knock)(site(AsyncCheck(note), Look), "/")
    assert found == ["acme"]


def test_its_namespace_is_its_own():
    first, second = handshake(), handshake()
    first.ctx.tenant = "acme"
    assert not hasattr(second.ctx, "tenant")


# The user in a coroutine.


async def test_a_coroutine_awaits_the_user_of_a_visitor_without_a_cookie():
    assert (await handshake().auser()).is_anonymous


def test_a_coroutine_awaits_the_user_of_a_session(headers_of):
    async def look(request):
        return (await request.auser()).username == "alice"

    assert async_to_sync(knock)(site(AsyncCheck(look)), "/", headers=headers_of("alice")).status == 101


def test_the_user_is_the_same_object_however_it_is_asked_for(headers_of):
    async def look(request):
        return await request.auser() is await request.auser() is request.user

    assert async_to_sync(knock)(site(AsyncCheck(look)), "/", headers=headers_of("alice")).status == 101


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
    assert async_to_sync(knock)(site(IsAuthenticated()), "/", headers=headers).status == 500
    assert "'Stumbling' object has no attribute 'nothing'" in caplog.text


# The request of an ASGI app over HTTP.


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_request_of_an_asgi_app_has_its_method(method):
    assert AppRequest(http_scope("/", method)).method == method


def test_the_body_of_an_asgi_apps_request_is_the_apps():
    with pytest.raises(UnreadablePostError, match="read by the ASGI application"):
        AppRequest(http_scope("/", "POST")).body  # noqa: B018


def client_with(set_cookie, settings):
    """A client that got this Set-Cookie."""
    name, _, value = set_cookie.partition(";")[0].partition("=")
    assert name == settings.SESSION_COOKIE_NAME
    client = Client()
    client.cookies[name] = value
    return client


def ask_django_with(set_cookie, settings):
    """Who a Django view takes the bearer of this cookie for."""
    return client_with(set_cookie, settings).get("/whoami/").content.decode()
