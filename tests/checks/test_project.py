import re
import sys

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.apps import apps
from django.contrib.sessions.middleware import SessionMiddleware
from django.core import checks
from django.core.asgi import get_asgi_application
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.http import HttpResponse
from django.urls import path

from channels_wsdeny import DenyMiddlewareStack, Hooks
from channels_wsdeny.checks import CHECKS, DEPLOY_CHECKS, check_deployed_site
from channels_wsdeny.conf import AUTHENTICATION_MIDDLEWARE, KEYS, MIRROR, SESSION_MIDDLEWARE
from channels_wsdeny.decorators import public, require
from channels_wsdeny.policies import HasPermission, IsAuthenticated, IsStaff, MaxConnections, Throttle
from tests.docs.pages import DOCS
from tests.support.mirror import made

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


def test_what_is_no_authentication_class_is_named_under_its_setting_once(messages):
    (message,) = messages(CHANNELS_WSDENY={"AUTHENTICATION": ["os.path"]})
    assert message.msg.startswith("CHANNELS_WSDENY['AUTHENTICATION']: 'os.path' cannot be used: ")
    assert message.msg.count("CHANNELS_WSDENY") == 1


URL = "redis://127.0.0.1:6379/0"
LIVELESS = {"CHANNELS_WSDENY": {"LIVE": False}}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        # A site of several processes has a channel layer between them.
        ({}, ["W020"]),
        ({"CHANNEL_LAYERS": {}}, ["W020"]),
        ({"CHANNEL_LAYERS": {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer"}}}, []),
        (LIVELESS, []),
        ({"CHANNELS_WSDENY": {"RECHECK_INTERVAL": 60}}, []),
        # A site for HTTPS says how its own pages are recognised.
        ({**LIVELESS, "SESSION_COOKIE_SECURE": True}, ["W030"]),
        ({**LIVELESS, "SECURE_SSL_REDIRECT": True}, ["W030"]),
        ({**LIVELESS, "SECURE_SSL_REDIRECT": True, "SECURE_PROXY_SSL_HEADER": ("HTTP_X_PROTO", "https")}, []),
        ({**LIVELESS, "SECURE_SSL_REDIRECT": True, "CSRF_TRUSTED_ORIGINS": ["https://example.com"]}, []),
        ({"SECURE_SSL_REDIRECT": True, "CHANNELS_WSDENY": {"LIVE": False, "ORIGINS": ["https://example.com"]}}, []),
    ],
)
def test_a_deployed_site_is_one_of_several_processes_and_of_https(given, found, settings):
    for name, value in given.items():
        setattr(settings, name, value)
    assert [message.id for message in check_deployed_site()] == [f"channels_wsdeny.{number}" for number in found]


def hosts_of(*hosts):
    return {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [*hosts]}}}


@pytest.mark.parametrize(
    ("redis", "layers", "found"),
    [
        ("8.0.1", hosts_of(("127.0.0.1", 6379)), ["W015"]),
        ("10.0.0", hosts_of({"address": URL, "socket_timeout": None}, URL), ["W015"]),
        ("8.0.1", hosts_of({"address": URL, "socket_timeout": None}, f"{URL}?socket_timeout=60"), []),
        ("7.4.0", hosts_of(("127.0.0.1", 6379)), []),
        ("8.0.1", {"default": {"BACKEND": "nowhere.Layer"}}, []),
    ],
)
def test_a_receiver_that_waits_at_redis_must_not_be_ended(redis, layers, found, ids, monkeypatch):
    monkeypatch.setattr("channels_wsdeny.checks.project.version", {"redis": redis}.get)
    assert ids(ASGI_APPLICATION=None, CHANNEL_LAYERS=layers) == found


def look(request): ...


async def surround(request, call_next): ...


def stack_around_django(hooks):
    routes = {"http": get_asgi_application(), "websocket": consumer}
    return DenyMiddlewareStack(ProtocolTypeRouter(routes), hooks=hooks)


HOOKS = [("request", look), ("route", look), ("around", surround)]


@pytest.mark.parametrize(("kind", "function"), HOOKS)
def test_hooks_of_every_kind_reach_views_by_the_mirror_only(kind, function, messages):
    for_http, for_sockets = made(kind, function), made(kind, function, protocols=("websocket",))
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


def broken_middleware(get_response):
    return None


class Mine(SessionMiddleware): ...


NO_POLICY_OR_HOOKS = [
    *("", "..", "IsAuthenticated", "nowhere.Policy", "channels_wsdeny.policies.Nothing"),
    *("channels_wsdeny.policies.Policy", "channels_wsdeny.policies.as_policy", "channels_wsdeny.policies"),
    *("builtins.dict", f"{__name__}.NeedsArguments"),
]
NO_MIDDLEWARE = [
    *("", "nowhere.Middleware", "builtins.x", f"{__name__}.broken_middleware"),
    *(SESSION_MIDDLEWARE, AUTHENTICATION_MIDDLEWARE, MIRROR, f"{__name__}.Mine"),
]
OF_OURS = "channels_wsdeny.authentication"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({}, []),
        *((value, ["E001"]) for value in (None, [], "", 3, [("POOL_SIZE", 3)])),
        *(({key: 3, "b": 2}, ["E002", "E002"]) for key in (None, 3, (), b"POOL_SIZE", "pool_size", "")),
        *(({"DEFAULT_POLICY": path, "HOOKS": [path]}, ["E004", "E004"]) for path in NO_POLICY_OR_HOOKS),
        *(({"MIDDLEWARE": [path]}, ["E004"]) for path in NO_MIDDLEWARE),
        ({"MIDDLEWARE": ["django.middleware.security.SecurityMiddleware"]}, []),
        ({"AUTHENTICATION": [f"{OF_OURS}.TicketAuthentication"]}, []),
        ({"AUTHENTICATION": [f"{OF_OURS}.BearerAuthentication"]}, ["E004"]),
        ({"AUTHENTICATION": [f"{OF_OURS}.missing", "os.path"]}, ["E004", "E004"]),
        ({"ORIGINS": ["https://example.com", "https://*.example.com:8443", "null", "capacitor://localhost"]}, []),
        ({"ORIGINS": ["example.com", "https://example.com/", "https://*example.com"]}, ["E020"] * 3),
        ({"ORIGINS": ["*"]}, ["E003"]),
    ],
)
def test_each_key_and_each_path_that_cannot_be_used_is_reported_once(value, found, ids):
    assert ids(ASGI_APPLICATION=None, CHANNELS_WSDENY=value) == found


def test_the_hint_names_the_key_that_was_meant_and_all_keys(messages):
    *close, far = messages(CHANNELS_WSDENY={"POLICY_TIMEOUTS": 3, "policy_timeout": 3, "xyz": 3})
    for message in close:
        assert message.hint.startswith("Did you mean 'POLICY_TIMEOUT'? The keys are: ")
    assert far.hint == f"The keys are: {', '.join(KEYS)}."


def test_a_wrong_value_is_shown_with_what_is_expected_and_the_default(messages):
    (message,) = messages(CHANNELS_WSDENY={"POOL_SIZE": "lots"})
    assert (message.id, message.hint) == ("channels_wsdeny.E003", "The default is 16.")
    assert message.msg == "CHANNELS_WSDENY['POOL_SIZE'] must be a whole number of threads above 0, found 'lots'."
    (message,) = messages(CHANNELS_WSDENY={"ORIGINS": "https://example.com"})
    assert message.hint == "Write ['https://example.com']. The default is 'same'."


def test_a_default_that_is_a_list_is_shown_as_one(messages):
    (message,) = messages(CHANNELS_WSDENY={"AUTHENTICATION": None})
    assert message.hint == "The default is ['channels_wsdeny.authentication.SessionAuthentication']."


def test_a_comma_that_makes_a_tuple_of_the_dict_is_told(messages):
    (message,) = messages(CHANNELS_WSDENY=({"POOL_SIZE": 3},))
    assert message.hint.startswith('Remove the comma after the closing brace. Write CHANNELS_WSDENY = {"')


def test_a_module_that_is_missing_is_told_from_one_of_the_path(messages, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "channels_wsdeny.contrib.otel", raising=False)
    (tmp_path / "needing_more.py").write_text("import nowhere.at_all")
    monkeypatch.syspath_prepend(tmp_path)
    paths = ["channels_wsdeny.contrib.otel.hooks", "needing_more.hooks", "nowhere.hooks"]
    hints = [message.hint for message in messages(ASGI_APPLICATION=None, CHANNELS_WSDENY={"HOOKS": paths})]
    assert "needs the module 'opentelemetry', which is missing. Install channels-wsdeny[otel]." in hints[0]
    assert "needs the module 'nowhere', which is missing. Install its package" in hints[1]
    assert hints[2].startswith("Give the dotted path of Hooks")


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


# The caches that policies count on, wherever on the site those are.


def backend(path):
    return {"default": {"BACKEND": f"django.core.cache.backends.{path}"}}


@pytest.mark.parametrize(
    ("caches", "found"),
    [
        (backend("redis.RedisCache"), []),
        (backend("locmem.LocMemCache"), ["W013"]),
        (backend("db.DatabaseCache"), ["W012"]),
        (backend("filebased.FileBasedCache"), ["W012"]),
        (backend("dummy.DummyCache"), ["E013"]),
        (backend("nowhere.Cache"), ["E013"]),
        ({**backend("redis.RedisCache"), "other": {}}, []),
    ],
)
def test_a_cache_that_cannot_count_is_an_error_and_one_that_loses_counts_a_warning(caches, found, ids, tmp_path):
    caches = {**caches, "default": {**caches["default"], "LOCATION": str(tmp_path)}}
    app = DenyMiddlewareStack(require(IsStaff() | ~(IsAuthenticated() & Throttle("1/s")))(consumer))
    assert ids(app, CACHES=caches) == found
    assert ids(DenyMiddlewareStack(public(consumer)), CACHES=caches) == []


def test_the_cache_that_a_policy_names_is_the_one_that_is_looked_at(messages):
    app = DenyMiddlewareStack(require(MaxConnections(1, cache="other"))(consumer))
    (message,) = messages(app)
    assert (message.id, "MaxConnections(1, key='user', cache='other')" in message.msg) == ("channels_wsdeny.E013", True)


WRONG_POLICY = Throttle("1/s") & HasPermission("chat.veiw_room")


@require(WRONG_POLICY)
def wrong_view(request):
    return HttpResponse()


@pytest.mark.parametrize("place", ["the stack", "the site", "a view"])
def test_policies_are_found_everywhere(place, ids):
    app = DenyMiddlewareStack(consumer, default_policy=WRONG_POLICY if place == "the stack" else None)
    values = {"CHANNELS_WSDENY": {"DEFAULT_POLICY": WRONG_POLICY}} if place == "the site" else {}
    if place == "a view":
        values["ROOT_URLCONF"] = (path("", wrong_view),)
    assert ids(app, **values) == ["W010", "W013"]


@pytest.mark.parametrize(
    ("policy", "proxy", "found"),
    [
        (Throttle("1/s", key="ip"), {"USE_X_FORWARDED_HOST": True}, ["W014"]),
        (MaxConnections(1), {"SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https")}, ["W014"]),
        (Throttle("1/s", key=lambda request: "all"), {"USE_X_FORWARDED_HOST": True}, []),
        (Throttle("1/s", key="ip"), {}, []),
        (IsStaff(), {"USE_X_FORWARDED_HOST": True}, []),
    ],
)
def test_behind_a_proxy_the_address_that_is_counted_for_may_be_the_proxy_s(policy, proxy, found, ids):
    assert ids(DenyMiddlewareStack(require(policy)(consumer)), CACHES=backend("redis.RedisCache"), **proxy) == found


# The checks as a whole: their ids, levels, registration and documentation.


#: A site with an error and a warning.
WRONG = {"CHANNELS_WSDENY": {"POOL_SIZE": 0}, "ASGI_APPLICATION": "nowhere.application"}


def test_the_test_project_is_right_but_for_more_than_one_process():
    assert [
        message.id
        for message in checks.run_checks(include_deployment_checks=True)
        if message.id.startswith("channels_wsdeny.") and not message.is_silenced()
    ] == ["channels_wsdeny.W020"]


def test_ids_that_begin_with_e_are_errors_and_others_warnings(messages):
    found = [(message.id.removeprefix("channels_wsdeny."), message.level) for message in messages(**WRONG)]
    assert found == [("E003", checks.ERROR), ("W003", checks.WARNING)]


def test_the_documentation_has_a_remedy_for_each_id():
    text = (DOCS / "checks.md").read_text()
    sections = re.findall(r"^### `channels_wsdeny\.([EW]\d{3})`\n\n((?:.+\n)+)", text, re.MULTILINE)
    assert [number for number, _ in sections] == [*CHECKS, *DEPLOY_CHECKS] == sorted([*CHECKS, *DEPLOY_CHECKS])
    assert [number for number, remedy in sections if len(remedy.split()) < 10] == []


def test_manage_check_runs_them_under_the_tag_security(settings):
    settings.CHANNELS_WSDENY = WRONG["CHANNELS_WSDENY"]
    with pytest.raises(SystemCheckError, match=r"channels_wsdeny\.E003"):
        call_command("check", tags=["security"])
    assert apps.get_app_config("channels_wsdeny").verbose_name
