from fractions import Fraction
from types import MappingProxyType

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer

from channels_wsdeny import DenyMiddlewareStack, Hooks
from channels_wsdeny.authentication import SessionAuthentication
from channels_wsdeny.checks.project import check_values
from channels_wsdeny.conf import KEYS, MIRROR, SESSION_MIDDLEWARE, conf, is_mirrored, middleware_index
from channels_wsdeny.decorators import require
from channels_wsdeny.middleware import MirrorMiddleware
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated
from tests.support.clients import knock
from tests.support.policies import Check

pytestmark = pytest.mark.django_db

#: For each key: its default, values that are valid, and values that are not.
VALUES = {
    "DEFAULT_POLICY": (
        "channels_wsdeny.policies.IsAuthenticated",
        [IsAuthenticated(), "a.B", IsAuthenticated() | DenyAll()],
        [None, 3, b"a.B", [], True, IsAuthenticated],
    ),
    "MIRROR_DEFAULT_POLICY": (False, [True, False], [None, 1, 0, "True", "", [True]]),
    "AUTHENTICATION": (
        ("channels_wsdeny.authentication.SessionAuthentication",),
        [[], ["a.B"], (SessionAuthentication(),), [SessionAuthentication]],
        [None, "a.B", SessionAuthentication(), [3], [None], {"a.B"}],
    ),
    "ORIGINS": (
        "same",
        ["same", "*", [], ["https://example.com"], ("https://*.example.com",), ["null"]],
        [None, "https://example.com", "", ["*"], [None], [b"https://example.com"], {"https://example.com"}],
    ),
    "HOOKS": (
        [],
        [[], ["chat.hooks.hooks"], ("chat.hooks.hooks",), [Hooks()]],
        [None, "chat.hooks.hooks", Hooks(), [3], [None], {"chat.hooks.hooks"}],
    ),
    "MIDDLEWARE": (
        [],
        [[], ["chat.middleware.Tenants"], ("chat.middleware.Tenants",)],
        [None, "chat.middleware.Tenants", [3], [None], {"chat.middleware.Tenants"}, [object]],
    ),
    "POLICY_TIMEOUT": (4.0, [4, 0.5, 3600], [0, -1, -0.5, float("nan"), float("inf"), True, "4", None, [4], 4j]),
    "ACCEPT_TIMEOUT": (10.0, [10, 0.5, None], [0, -1, float("nan"), float("inf"), True, "10", [10]]),
    "POOL_SIZE": (16, [1, 200], [0, -1, True, False, 1.0, "16", None, float("inf"), Fraction(2)]),
    "DENY_WITH": ("response", ["response", "close"], ["Close", "", None, True, 0, b"close", ["close"]]),
    "MAX_DENIAL_BODY": (1024 * 1024, [1, 10**9], [0, -1, True, 1024.0, "1MB", None]),
    "CHALLENGE": (
        "Session",
        ["Session", 'Bearer realm="chat"'],
        ["", "a\r\nb", "a\nb", "a\0b", "ä", "☃", None, b"Session", 3, "\t"],
    ),
    "HEARTBEAT": (10.0, [10, 0.5], [0, -1, float("nan"), float("inf"), True, "10", None]),
    "RETRY_AFTER": (5, [1, 3600], [0, -1, 0.5, True, "5", None, float("nan")]),
    "LIVE": (True, [True, False], [None, 1, 0, "True"]),
    "RECHECK_INTERVAL": (0, [0, 0.5, 300], [-1, float("nan"), float("inf"), True, "10", None]),
    "DRAIN_SECONDS": (0, [0, 0.5, 300], [-1, float("nan"), float("inf"), True, "10", None]),
}
#: Keys whose invalid values do not count as the default, which could allow what they were meant to deny.
KEPT = {"DEFAULT_POLICY", "MIRROR_DEFAULT_POLICY", "AUTHENTICATION", "ORIGINS", "HOOKS", "MIDDLEWARE"}
INVALID = [(name, value) for name, (_, _, invalid) in VALUES.items() for value in invalid]


def test_every_key_has_its_valid_default(settings):
    for given in ({}, None, []):
        settings.CHANNELS_WSDENY = given
        assert {name: getattr(conf, name) for name in KEYS} == {name: row[0] for name, row in VALUES.items()}
    del settings.CHANNELS_WSDENY
    assert conf.given() == {}
    assert [name for name, key in KEYS.items() if not key.is_valid(key.default)] == []


NO_DICTS = {
    "comma": ({"DEFAULT_POLICY": "channels_wsdeny.policies.DenyAll"},),
    "pairs": [("DEFAULT_POLICY", "channels_wsdeny.policies.DenyAll")],
    "mapping": MappingProxyType({"DEFAULT_POLICY": "channels_wsdeny.policies.DenyAll"}),
    "path": "chat.settings.WSDENY",
}


@pytest.mark.parametrize("given", NO_DICTS.values(), ids=NO_DICTS)
async def test_what_is_no_dict_lets_nobody_in_whom_it_was_meant_to_deny(given, settings, headers_of, caplog):
    settings.CHANNELS_WSDENY = given
    application = DenyMiddlewareStack(AsyncWebsocketConsumer.as_asgi())
    for user in (None, "alice"):
        assert (await knock(application, "/", headers=headers_of(user))).status == 500
    assert f"must be a dict, and is a {type(given).__name__}" in caplog.text


def test_a_valid_value_counts_and_passes_the_checks(settings):
    for name, (_, valid, _) in VALUES.items():
        for value in valid:
            settings.CHANNELS_WSDENY = {name: value}
            assert getattr(conf, name) is value
            assert list(check_values()) == [], (name, value)


def test_an_invalid_value_is_an_error_and_counts_as_the_default_unless_that_could_allow_more(settings):
    for name, value in INVALID:
        settings.CHANNELS_WSDENY = {name: value}
        assert getattr(conf, name) is (value if name in KEPT else KEYS[name].default), (name, value)
        assert len(list(check_values())) == 1, (name, value)


UNGUARDED = AsyncWebsocketConsumer.as_asgi()


def guarded(policy):
    return DenyMiddlewareStack(require(policy)(type("Guarded", (AsyncWebsocketConsumer,), {})).as_asgi())


async def test_an_invalid_setting_allows_nothing(settings):
    """Neither behind the default policy nor behind a synchronous one; an error is the server's 500."""
    for given in [*({name: value} for name, value in INVALID), None, [], "x", 3]:
        settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.5, **given} if isinstance(given, dict) else given
        for application in (DenyMiddlewareStack(UNGUARDED), guarded(Check(lambda request: False))):
            try:
                status = (await knock(application, "/")).status
            except Exception:  # whatever it is
                status = 500
            assert status != 101, given


an_instance = AllowAny()


@pytest.mark.parametrize(
    ("policy", "status"),
    [(DenyAll(), 403), ("channels_wsdeny.policies.AllowAny", 101), (f"{__name__}.an_instance", 101)],
)
async def test_the_default_policy_is_a_policy_or_the_path_of_a_class_or_instance(policy, status, settings):
    settings.CHANNELS_WSDENY = {"DEFAULT_POLICY": policy}
    assert (await knock(DenyMiddlewareStack(UNGUARDED), "/")).status == status


class Subclass(MirrorMiddleware): ...


def test_middleware_is_found_by_its_path_its_class_or_a_subclass(settings):
    for path in (MIRROR, f"{__name__}.MirrorMiddleware", f"{__name__}.Subclass"):
        settings.MIDDLEWARE = [SESSION_MIDDLEWARE, path]
        assert (middleware_index(MIRROR), is_mirrored()) == (1, True), path


def test_middleware_that_is_not_there_or_cannot_be_imported_has_no_index(settings):
    settings.MIDDLEWARE = [SESSION_MIDDLEWARE, "nowhere.Middleware", f"{__name__}.guarded"]
    assert (middleware_index(MIRROR), is_mirrored()) == (None, False)
