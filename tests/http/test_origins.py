"""The origin of a handshake that carries what a browser adds to the requests of any page."""

import pytest
from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.middleware import BaseMiddleware

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.authentication import Authentication, BearerAuthentication
from channels_wsdeny.decorators import public, require
from channels_wsdeny.policies import AllowedOrigin
from tests.support.clients import fetch, knock

pytestmark = pytest.mark.django_db
EVIL = "https://evil.example"


@public
class Consumer(AsyncWebsocketConsumer):
    """Accepts."""


def reading(*bases, **attributes):
    """A class that may read any cookie, unless it says that it does not."""
    return type("Reads", bases or (Authentication,), {"authenticate": lambda self, request: None, **attributes})


TELLS_IT_READS_NONE = reading(ambient=False)


async def status(headers=(), origin=EVIL, host="testserver", app=None, scheme="ws", **stack):
    origins = [origin] if isinstance(origin, str) else origin
    headers = [*headers, (b"host", host.encode()), *((b"origin", each.encode("latin1")) for each in origins)]
    answer = await knock(app or DenyMiddlewareStack(Consumer.as_asgi(), **stack), "/", headers=headers, scheme=scheme)
    if answer.status == 403:
        assert answer.problem["code"] == "origin_not_allowed"
    return answer.status


SAME = [
    ("http://testserver", "testserver", "ws", 101),
    ("HTTP://TestServer:80", "testserver", "ws", 101),
    ("http://testserver", "testserver:80", "ws", 101),
    ("https://testserver", "testserver", "wss", 101),
    ("https://testserver:443", "testserver", "wss", 101),
    ("http://testserver:8000", "testserver:8000", "ws", 101),
    ("http://[::1]:8000", "[::1]:8000", "ws", 101),
    ([], "testserver", "ws", 101),
]
OTHERS = ["http://testserver:8000", "https://testserver", "http://testserver.evil.example", "http://user@testserver"]
OTHERS += ["http://evil.example/testserver", "http://testserver@evil.example", "http://testserver\x00", "testserver"]
OTHERS += ["null", "", "http://", "http://[bad", "file://", "capacitor://localhost", ["http://testserver", EVIL]]
SAME += [(origin, "testserver", "ws", 403) for origin in OTHERS]


@pytest.mark.parametrize(("origin", "host", "scheme", "expected"), SAME)
async def test_with_a_session_cookie_the_page_is_of_the_same_origin_or_there_is_none(
    origin, host, scheme, expected, headers_of, settings
):
    settings.ALLOWED_HOSTS = ["*"]
    assert await status(headers_of("alice"), origin, host, scheme=scheme) == expected


LISTED = [
    (["https://evil.example"], EVIL, 101),
    (["https://evil.example:443"], EVIL, 101),
    (["https://evil.example:8443"], EVIL, 403),
    (["http://evil.example"], EVIL, 403),
    (["https://*.example"], EVIL, 101),
    (["https://*.example"], f"https://{'ü.' * 122}example", 101),
    (["https://*.example"], f"https://{'ü.' * 124}example", 403),  # longer than any name
    (["https://*.evil.example"], EVIL, 101),
    (["https://*.evil.example"], "https://a.b.evil.example", 101),
    (["https://*.evil.example"], "https://notevil.example", 403),
    (["https://m\u00fcnchen.example"], "https://xn--mnchen-3ya.example", 101),
    (["https://xn--strae-oqa.example"], "https://xn--strae-oqa.example", 101),
    (["capacitor://localhost"], "capacitor://localhost", 101),
    (["null"], "null", 101),
    (["https://elsewhere.example"], "http://testserver", 101),
    ([], EVIL, 403),
    ([], "http://testserver", 101),
    ("*", EVIL, 101),
    ("*", "null", 101),
]


@pytest.mark.parametrize(("origins", "origin", "expected"), LISTED)
async def test_the_origins_of_the_stack_or_the_site_count_in_place_of_the_trusted_ones(
    origins, origin, expected, headers_of, settings
):
    settings.CSRF_TRUSTED_ORIGINS = []
    assert await status(headers_of("alice"), origin, origins=origins) == expected
    settings.CHANNELS_WSDENY = {"ORIGINS": origins}
    assert await status(headers_of("alice"), origin) == expected
    if origins != "*" and "null" not in origins:
        settings.CHANNELS_WSDENY = {}
        settings.CSRF_TRUSTED_ORIGINS = origins
        assert await status(headers_of("alice"), origin) == expected
        without = await status(headers_of("alice"), origin, origins=[])
        assert await status(headers_of("alice"), origin, origins=["https://other.example"]) in {403, without}


@pytest.mark.parametrize(
    ("pattern", "origin"),
    [
        ("https://*evil.example", "https://notevil.example"),
        ("https://stra\u00dfe.example", "https://strasse.example"),  # which a browser has for another host
    ],
)
async def test_a_pattern_that_is_no_origin_matches_nothing(pattern, origin, headers_of, settings):
    settings.CHANNELS_WSDENY = {"ORIGINS": [pattern]}  # A stack does not take it.
    assert await status(headers_of("alice"), origin) == 403


BASIC = [(b"authorization", b"bAsIc YTpi")]
CARRIED = [
    ([], [], 101),
    ([(b"cookie", b"theme=dark")], [], 101),
    ([(b"cookie", b"theme=dark")], [BearerAuthentication(lambda token: None)], 101),
    ([(b"cookie", b"theme=dark")], [TELLS_IT_READS_NONE()], 101),
    ([(b"cookie", b"theme=dark")], [reading()()], 403),
    ([(b"cookie", b"theme=dark")], [reading(TELLS_IT_READS_NONE)()], 403),  # It overrides what was told.
    ([(b"cookie", b"sessionid=unknown")], [], 403),
    ([(b"cookie", b"sessionid=unknown")], [TELLS_IT_READS_NONE()], 403),
    (BASIC, [], 403),
    (BASIC, [TELLS_IT_READS_NONE()], 403),
    ([(b"authorization", b"Negotiate x")], [], 403),
    ([(b"authorization", b"Token x")], [], 101),
]


@pytest.mark.parametrize(("headers", "classes", "expected"), CARRIED)
async def test_the_origin_is_checked_if_the_browser_may_have_added_a_credential(headers, classes, expected):
    assert await status(headers, authentication=classes or None) == expected


def test_neither_hooks_nor_session_nor_user_are_touched_before(headers_of, hooks, django_assert_num_queries):
    hooks.on_request(lambda request: pytest.fail("A hook ran."))
    headers = headers_of("alice")
    with django_assert_num_queries(0):
        assert async_to_sync(status)(headers, hooks=hooks) == 403


async def test_a_denial_that_is_kept_is_not_sent_to_a_page_with_other_credentials():
    app = DenyMiddlewareStack(AsyncWebsocketConsumer.as_asgi())
    assert await status([], app=app) == 401
    assert await status(BASIC, app=app) == 403


async def test_behind_a_proxy_the_address_is_what_django_takes_it_for(headers_of, settings):
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.USE_X_FORWARDED_HOST, settings.ALLOWED_HOSTS = True, ["site.example", "inner"]
    headers = [*headers_of("alice"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"site.example")]
    assert await status(headers, "https://site.example", "inner") == 101
    assert await status(headers, "http://inner", "inner") == 403


async def test_a_stack_within_a_wrapper_has_its_own_origins(headers_of):
    inner = DenyMiddlewareStack(Consumer.as_asgi(), origins=["https://one.example"])
    for app in (DenyMiddlewareStack(BaseMiddleware(inner), origins="*"), DenyMiddlewareStack(inner, origins="*")):
        assert await status(headers_of("alice"), app=app) == 403
        assert await status(headers_of("alice"), "https://one.example", app=app) == 101


async def test_a_decorated_consumer_without_a_stack_is_checked_by_the_setting(headers_of, settings):
    assert await status(headers_of("alice"), app=Consumer.as_asgi()) == 403
    settings.CHANNELS_WSDENY = {"ORIGINS": [EVIL]}
    assert await status(headers_of("alice"), app=Consumer.as_asgi()) == 101


@pytest.mark.parametrize("origins", ["https://evil.example", ["*"], None, [3]])
async def test_origins_that_cannot_be_used_deny(origins, headers_of, settings):
    settings.CHANNELS_WSDENY = {"ORIGINS": origins}
    assert await status(headers_of("alice")) == 500


async def test_the_log_and_with_debug_the_client_are_told_the_origin_the_host_and_the_remedy(
    headers_of, caplog, settings
):
    settings.DEBUG = True
    headers = [*headers_of("alice"), (b"host", b"testserver"), (b"origin", b"https://evil.example\r\nx: y")]
    answer = await knock(DenyMiddlewareStack(Consumer.as_asgi()), "/?token=secret", headers=headers)
    (record,) = [record for record in caplog.records if record.name == "django.security.DisallowedOrigin"]
    for text in (record.getMessage(), answer.problem["debug"]):
        assert "evil.example" in text
        assert "'testserver'" in text
        assert "CSRF_TRUSTED_ORIGINS" in text
    assert "\n" not in record.getMessage()
    assert "secret" not in caplog.text
    assert "sessionid" not in caplog.text


async def test_the_policy_asks_for_an_origin_whatever_the_credentials_are(rf):
    app = require(AllowedOrigin("https://*.evil.example"))(Consumer).as_asgi()
    for origin, expected in [(EVIL, 101), ("https://a.evil.example", 101), ("http://testserver", 403), ([], 403)]:
        assert await status([], origin, app=app) == expected, origin
    policy = AllowedOrigin(EVIL)
    assert policy.check(rf.get("/", HTTP_ORIGIN=EVIL)) is True
    assert policy.check(rf.get("/", HTTP_ORIGIN="https://other.example")) is False
    assert policy.check(rf.get("/")) is False
    for wrong in (
        [],
        ["evil.example"],
        [None],
        ["https://evil.example/"],
        ["https://*"],
        ["https://evil.example/path"],
    ):
        with pytest.raises(TypeError, match="takes origins such as"):
            AllowedOrigin(*wrong)


async def test_over_http_the_browser_keeps_the_answer_from_other_pages_so_nothing_is_checked(headers_of):
    headers = [*headers_of("alice"), (b"host", b"testserver"), (b"origin", EVIL.encode())]
    assert (await fetch(DenyMiddlewareStack(Consumer.as_asgi()), "/", headers=headers)).status == 426
