from __future__ import annotations

import re
from pathlib import Path

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from channels.sessions import CookieMiddleware
from django.apps import apps
from django.core import checks as djangos
from django.core.checks.registry import registry
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.urls import path

from channels_wsdeny import DenyMiddlewareStack, checks
from channels_wsdeny.conf import KEYS
from channels_wsdeny.decorators import require
from channels_wsdeny.policies import DenyAll, IsAuthenticated
from tests.test_conf import VALUES

APPS = ["channels_wsdeny", "daphne", "django.contrib.auth", "django.contrib.contenttypes"]
consumer = AsyncWebsocketConsumer.as_asgi()

bare = ProtocolTypeRouter({"websocket": URLRouter([path("", consumer)])})
bare_within_wrappers = ProtocolTypeRouter(
    {"websocket": OriginValidator(CookieMiddleware(URLRouter([path("", consumer)])), ["*"])}
)
stack = DenyMiddlewareStack(bare)
stack_inside = ProtocolTypeRouter({"websocket": OriginValidator(DenyMiddlewareStack(consumer), ["*"])})
stack_in_a_wrapper = CookieMiddleware(DenyMiddlewareStack(bare))
stack_without_a_router = DenyMiddlewareStack(consumer)
guarded_router = DenyMiddlewareStack(require(DenyAll())(bare))
http_alone = ProtocolTypeRouter({"http": consumer})
stack_around_http_alone = ProtocolTypeRouter({"http": DenyMiddlewareStack(consumer), "websocket": consumer})
needs_arguments = type("NeedsArguments", (IsAuthenticated,), {"__init__": lambda self, name: None})

#: For each id, the settings of a site that gets it.
SITUATIONS = {
    "channels_wsdeny.E001": {"CHANNELS_WSDENY": ["POOL_SIZE"]},
    "channels_wsdeny.E002": {"CHANNELS_WSDENY": {"POOLSIZE": 3}},
    "channels_wsdeny.E003": {"CHANNELS_WSDENY": {"POOL_SIZE": "3"}},
    "channels_wsdeny.E004": {"CHANNELS_WSDENY": {"DEFAULT_POLICY": "nowhere.Policy"}},
    "channels_wsdeny.E005": {"CHANNELS_WSDENY": {"MIRROR_DEFAULT_POLICY": True}, "MIDDLEWARE": []},
    "channels_wsdeny.W001": {"INSTALLED_APPS": ["daphne", "channels_wsdeny"]},
    "channels_wsdeny.W002": {"ASGI_APPLICATION": f"{__name__}.bare"},
    "channels_wsdeny.W003": {"ASGI_APPLICATION": "nowhere.application"},
    "channels_wsdeny.W004": {
        "CHANNELS_WSDENY": {"HOOKS": ["testproject.chat.hooks.hooks"]},
        "MIDDLEWARE": [],
    },
}


def ours(messages):
    return [message for message in messages if message.id and message.id.startswith("channels_wsdeny.")]


def run():
    return [message for check in checks.ALL for message in check(app_configs=None)]


def found(settings, **values):
    """The ids of what the checks say about these settings."""
    for name, value in values.items():
        setattr(settings, name, value)
    return [message.id for message in run()]


def test_a_site_that_sets_nothing_is_right(settings):
    assert found(settings, CHANNELS_WSDENY={}) == []


def test_the_test_project_is_right():
    assert ours(djangos.run_checks(include_deployment_checks=True)) == []


@pytest.mark.parametrize("number", SITUATIONS)
def test_every_id_has_its_situation(number, settings):
    assert found(settings, **SITUATIONS[number]) == [number]


@pytest.mark.parametrize("number", SITUATIONS)
def test_every_message_has_a_hint(number, settings):
    found(settings, **SITUATIONS[number])
    assert [message.hint for message in run() if not message.hint] == []


@pytest.mark.parametrize("number", SITUATIONS)
def test_the_level_of_a_message_is_that_of_its_id(number, settings):
    found(settings, **SITUATIONS[number])
    (message,) = run()
    assert message.level == (djangos.ERROR if ".E" in number else djangos.WARNING)


def test_every_id_of_the_source_has_its_situation_and_appears_once():
    source = Path(checks.__file__).read_text()
    assert sorted(re.findall(r'id="([^"]+)"', source)) == sorted(SITUATIONS)


def test_every_check_is_registered():
    assert set(checks.ALL) <= registry.registered_checks


def test_every_function_of_the_module_that_checks_is_in_all():
    functions = {value for name, value in vars(checks).items() if name.startswith("check_")}
    assert functions == set(checks.ALL)


def test_checks_run_with_the_security_tag(settings):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 0}
    messages = djangos.run_checks(tags=[djangos.Tags.security])
    assert [message.id for message in ours(messages)] == ["channels_wsdeny.E003"]


def test_manage_check_ends_with_an_error(settings):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": 0}
    with pytest.raises(SystemCheckError, match=r"channels_wsdeny\.E003"):
        call_command("check")


@pytest.mark.parametrize("value", [None, [], "", 3, [("POOL_SIZE", 3)]])
def test_a_setting_that_is_no_dict_is_reported_once(value, settings):
    assert found(settings, CHANNELS_WSDENY=value) == ["channels_wsdeny.E001"]


def test_a_wrong_key_is_told_which_was_meant(settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUTS": 3}
    (message,) = checks.check_keys()
    assert "Did you mean 'POLICY_TIMEOUT'?" in message.hint


def test_a_wrong_key_that_resembles_none_is_told_all(settings):
    settings.CHANNELS_WSDENY = {"xyz": 3}
    (message,) = checks.check_keys()
    assert all(name in message.hint for name in KEYS)
    assert "Did you mean" not in message.hint


@pytest.mark.parametrize("key", [None, 3, (), b"POOL_SIZE", "pool_size", ""])
def test_a_key_of_any_kind_is_reported(key, settings):
    assert found(settings, CHANNELS_WSDENY={key: 3}) == ["channels_wsdeny.E002"]


def test_every_wrong_key_is_reported(settings):
    assert found(settings, CHANNELS_WSDENY={"a": 1, "b": 2}) == ["channels_wsdeny.E002"] * 2


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, (_, bad) in VALUES.items() for value in bad]
)
def test_a_value_of_a_wrong_type_is_reported(name, value, settings):
    assert found(settings, CHANNELS_WSDENY={name: value}) == ["channels_wsdeny.E003"]


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, (good, _) in VALUES.items() for value in good if "." not in str(value)],
)
def test_a_right_value_is_not_reported(name, value, settings):
    assert found(settings, CHANNELS_WSDENY={name: value}) == []


def test_a_wrong_value_is_shown_with_what_is_expected_and_the_default(settings):
    settings.CHANNELS_WSDENY = {"POOL_SIZE": "lots"}
    (message,) = checks.check_values()
    assert message.msg == (
        "CHANNELS_WSDENY['POOL_SIZE'] must be a whole number of threads above 0, found 'lots'."
    )
    assert message.hint == "The default is 16."


@pytest.mark.parametrize(
    "value",
    [
        "",
        "IsAuthenticated",
        "nowhere.Policy",
        "channels_wsdeny.policies.Nothing",
        "channels_wsdeny.policies.as_policy",
        "channels_wsdeny.policies",
        "channels_wsdeny.exceptions.Deny",
        "builtins.dict",
        f"{__name__}.needs_arguments",
        "..",
    ],
)
def test_a_dotted_path_that_names_no_policy_is_reported(value, settings):
    assert found(settings, CHANNELS_WSDENY={"DEFAULT_POLICY": value}) == ["channels_wsdeny.E004"]


def test_a_module_that_raises_on_import_is_reported(settings, tmp_path, monkeypatch):
    (tmp_path / "broken_policies.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    settings.CHANNELS_WSDENY = {"DEFAULT_POLICY": "broken_policies.Policy"}
    (message,) = checks.check_dotted_paths()
    assert "division by zero" in message.msg


def test_daphne_before_the_app_is_reported(settings):
    assert found(settings, INSTALLED_APPS=["daphne", *APPS[:1], *APPS[2:]]) == ["channels_wsdeny.W001"]


def test_daphne_by_its_config_is_reported(settings):
    assert found(settings, INSTALLED_APPS=["daphne.apps.DaphneConfig", "channels_wsdeny"]) == [
        "channels_wsdeny.W001"
    ]


def test_the_app_before_daphne_is_right(settings):
    assert found(settings, INSTALLED_APPS=APPS) == []


def test_the_app_by_its_config_before_daphne_is_right(settings):
    names = ["channels_wsdeny.apps.ChannelsWsdenyConfig", "daphne.apps.DaphneConfig"]
    assert found(settings, INSTALLED_APPS=names) == []


def test_a_site_without_daphne_is_right(settings):
    assert found(settings, INSTALLED_APPS=["channels_wsdeny"]) == []


@pytest.mark.parametrize("name", ["bare", "bare_within_wrappers", "stack_around_http_alone"])
def test_a_websocket_side_without_the_stack_is_reported(name, settings):
    assert found(settings, ASGI_APPLICATION=f"{__name__}.{name}") == ["channels_wsdeny.W002"]


@pytest.mark.parametrize(
    "name",
    [
        "stack",
        "stack_inside",
        "stack_in_a_wrapper",
        "stack_without_a_router",
        "guarded_router",
        "http_alone",
    ],
)
def test_a_stack_anywhere_around_the_consumers_is_right(name, settings):
    assert found(settings, ASGI_APPLICATION=f"{__name__}.{name}") == []


def test_djangos_own_application_has_no_websocket_side(settings):
    assert found(settings, ASGI_APPLICATION="django.core.asgi.get_asgi_application") == []


@pytest.mark.parametrize("value", [None, ""])
def test_a_site_without_an_asgi_application_is_right(value, settings):
    assert found(settings, ASGI_APPLICATION=value) == []


@pytest.mark.parametrize("value", ["application", "nowhere.application", f"{__name__}.nothing", 3])
def test_an_application_that_cannot_be_imported_is_reported(value, settings):
    assert found(settings, ASGI_APPLICATION=value) == ["channels_wsdeny.W003"]


def test_the_app_has_a_name_for_people():
    assert apps.get_app_config("channels_wsdeny").verbose_name
