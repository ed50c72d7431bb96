from __future__ import annotations

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.asgi import get_asgi_application

from channels_wsdeny import DenyMiddlewareStack, Hooks
from channels_wsdeny.checks import check_deployed_site
from channels_wsdeny.conf import AUTHENTICATION_MIDDLEWARE, KEYS, MIRROR, SESSION_MIDDLEWARE
from channels_wsdeny.policies import IsAuthenticated

NEEDED = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
consumer = AsyncWebsocketConsumer.as_asgi()


@pytest.mark.parametrize(
    ("apps", "found"),
    [
        (["daphne", "channels_wsdeny"], ["W001"]),
        (["daphne.apps.DaphneConfig", "channels_wsdeny"], ["W001"]),
        (["channels_wsdeny", "daphne"], []),
        (["channels_wsdeny.apps.ChannelsWsdenyConfig", "daphne.apps.DaphneConfig"], []),
        (["channels_wsdeny"], []),
    ],
)
def test_the_app_comes_before_daphne(apps, found, ids):
    assert ids(INSTALLED_APPS=[*apps, *NEEDED]) == found


@pytest.mark.parametrize(
    ("middleware", "found"),
    [
        ([SESSION_MIDDLEWARE, AUTHENTICATION_MIDDLEWARE, MIRROR], []),
        ([SESSION_MIDDLEWARE, MIRROR], []),
        ([MIRROR], []),
        ([AUTHENTICATION_MIDDLEWARE, SESSION_MIDDLEWARE], []),
        ([SESSION_MIDDLEWARE, MIRROR, AUTHENTICATION_MIDDLEWARE], ["W006"]),
        ([MIRROR, SESSION_MIDDLEWARE, AUTHENTICATION_MIDDLEWARE], ["W006", "W006"]),
    ],
)
def test_the_mirror_comes_after_sessions_and_users(middleware, found, ids):
    assert ids(ASGI_APPLICATION=None, MIDDLEWARE=middleware) == found


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("AUTHENTICATION", ["channels_wsdeny.authentication.TicketAuthentication"], []),
        ("AUTHENTICATION", ["channels_wsdeny.authentication.BearerAuthentication"], ["E004"]),
        ("AUTHENTICATION", ["channels_wsdeny.authentication.missing", "os.path"], ["E004", "E004"]),
        ("ORIGINS", ["https://example.com", "https://*.example.com:8443", "null", "capacitor://localhost"], []),
        ("ORIGINS", ["example.com", "https://example.com/", "https://*example.com"], ["E020"] * 3),
        ("ORIGINS", ["*"], ["E003"]),
    ],
)
def test_classes_and_origins_can_be_used(key, value, found, ids):
    assert ids(CHANNELS_WSDENY={key: value}) == found


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, []),
        ({"SESSION_COOKIE_SECURE": True}, ["channels_wsdeny.W030"]),
        ({"SECURE_SSL_REDIRECT": True}, ["channels_wsdeny.W030"]),
        ({"SECURE_SSL_REDIRECT": True, "SECURE_PROXY_SSL_HEADER": ("HTTP_X_PROTO", "https")}, []),
        ({"SECURE_SSL_REDIRECT": True, "CSRF_TRUSTED_ORIGINS": ["https://example.com"]}, []),
        ({"SECURE_SSL_REDIRECT": True, "CHANNELS_WSDENY": {"ORIGINS": ["https://example.com"]}}, []),
    ],
)
def test_a_site_for_https_says_how_its_own_pages_are_recognised(given, found, settings):
    for name, value in given.items():
        setattr(settings, name, value)
    assert [message.id for message in check_deployed_site() if message.id != "channels_wsdeny.W020"] == found


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, ["channels_wsdeny.W020"]),
        ({"CHANNEL_LAYERS": {}}, ["channels_wsdeny.W020"]),
        ({"CHANNEL_LAYERS": {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer"}}}, []),
        ({"CHANNELS_WSDENY": {"LIVE": False}}, []),
        ({"CHANNELS_WSDENY": {"RECHECK_INTERVAL": 60}}, []),
    ],
)
def test_a_site_of_several_processes_has_a_channel_layer_between_them(given, found, settings):
    for name, value in given.items():
        setattr(settings, name, value)
    assert [message.id for message in check_deployed_site()] == found


def registry(kind, function, **options):
    hooks = Hooks()
    getattr(hooks, kind)(**options)(function)
    return hooks


def look(request): ...


async def surround(request, call_next): ...


def stack_around_django(hooks):
    routes = {"http": get_asgi_application(), "websocket": consumer}
    return DenyMiddlewareStack(ProtocolTypeRouter(routes), hooks=hooks)


HOOKS = [("on_request", look), ("on_route", look), ("around", surround)]


@pytest.mark.parametrize(("kind", "function"), HOOKS)
def test_hooks_of_every_kind_reach_views_by_the_mirror_only(kind, function, messages):
    for_http, for_sockets = registry(kind, function), registry(kind, function, protocols=("websocket",))
    for application, given in ((None, for_http), (stack_around_django(for_http), for_sockets)):
        site = {"application": application, "CHANNELS_WSDENY": {"HOOKS": [for_sockets, given]}}
        (message,) = messages(**site, MIDDLEWARE=[])
        assert message.id == "channels_wsdeny.W004"
        assert f"{kind} {__name__}.{function.__name__}" in message.msg
        assert messages(**site, MIDDLEWARE=[MIRROR]) == []


@pytest.mark.parametrize("hooks", [Hooks(), "channels_wsdeny.contrib.otel.hooks"])
def test_hooks_that_are_not_for_views_need_no_mirror(hooks, ids):
    assert ids(ASGI_APPLICATION=None, CHANNELS_WSDENY={"HOOKS": [hooks]}, MIDDLEWARE=[]) == []


# CHANNELS_WSDENY.


class NeedsArguments(IsAuthenticated):
    def __init__(self, name):
        pass


@pytest.mark.parametrize("value", [None, [], "", 3, [("POOL_SIZE", 3)]])
def test_a_setting_that_is_no_dict_is_reported_once(value, ids):
    assert ids(CHANNELS_WSDENY=value) == ["E001"]


@pytest.mark.parametrize("key", [None, 3, (), b"POOL_SIZE", "pool_size", ""])
def test_a_key_that_does_not_exist_is_reported(key, ids):
    assert ids(CHANNELS_WSDENY={key: 3, "b": 2}) == ["E002", "E002"]


def test_the_hint_names_the_key_that_was_meant_and_all_keys(messages):
    close, far = messages(CHANNELS_WSDENY={"POLICY_TIMEOUTS": 3, "xyz": 3})
    assert close.hint.startswith("Did you mean 'POLICY_TIMEOUT'? The keys are: ")
    assert far.hint == f"The keys are: {', '.join(KEYS)}."


def test_a_wrong_value_is_shown_with_what_is_expected_and_the_default(messages):
    (message,) = messages(CHANNELS_WSDENY={"POOL_SIZE": "lots"})
    assert message.id == "channels_wsdeny.E003"
    assert message.msg == "CHANNELS_WSDENY['POOL_SIZE'] must be a whole number of threads above 0, found 'lots'."
    assert message.hint == "The default is 16."
    (message,) = messages(CHANNELS_WSDENY={"ORIGINS": "https://example.com"})
    assert message.hint == "Write ['https://example.com']. The default is 'same'."


@pytest.mark.parametrize(
    "path",
    [
        *("", "..", "IsAuthenticated", "nowhere.Policy", "channels_wsdeny.policies.Nothing"),
        *("channels_wsdeny.policies.as_policy", "channels_wsdeny.policies", "builtins.dict"),
        f"{__name__}.NeedsArguments",
    ],
)
def test_a_dotted_path_that_names_no_policy_or_hooks_is_reported(path, ids):
    assert ids(CHANNELS_WSDENY={"DEFAULT_POLICY": path}) == ["E004"]
    assert ids(CHANNELS_WSDENY={"HOOKS": [path]}) == ["E004"]


def test_what_importing_a_dotted_path_raises_is_reported(messages, tmp_path, monkeypatch):
    (tmp_path / "broken_policies.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    (message,) = messages(CHANNELS_WSDENY={"DEFAULT_POLICY": "broken_policies.Policy"})
    assert "division by zero" in message.msg


def test_a_default_policy_for_views_needs_the_mirror(ids):
    site = {"ASGI_APPLICATION": None, "CHANNELS_WSDENY": {"MIRROR_DEFAULT_POLICY": True}}
    assert (ids(**site), ids(**site, MIDDLEWARE=[])) == ([], ["E005"])


def test_a_setting_of_almost_the_right_name_is_reported(messages):
    (message,) = messages(CHANNELS_WS_DENY={"POOL_SIZE": 3})
    assert (message.id, message.msg) == ("channels_wsdeny.W011", "The setting CHANNELS_WS_DENY is read by nothing.")
    assert message.hint == "Did you mean CHANNELS_WSDENY?"


# Middleware around handshakes.


def broken_middleware(get_response):
    return None


class Mine(SessionMiddleware): ...


@pytest.mark.parametrize(
    ("path", "found"),
    [
        *((path, ["E004"]) for path in ("", "nowhere.Middleware", "builtins.x", f"{__name__}.broken_middleware")),
        *((path, ["E004"]) for path in (SESSION_MIDDLEWARE, AUTHENTICATION_MIDDLEWARE, MIRROR, f"{__name__}.Mine")),
        ("django.middleware.security.SecurityMiddleware", []),
    ],
)
def test_a_middleware_that_cannot_run_around_handshakes_is_named(path, found, messages):
    reported = messages(ASGI_APPLICATION=None, CHANNELS_WSDENY={"MIDDLEWARE": [path]})
    assert [message.id for message in reported] == [f"channels_wsdeny.{number}" for number in found]
    assert all(repr(path) in message.msg for message in reported)
