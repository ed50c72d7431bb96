from __future__ import annotations

from fractions import Fraction

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from django.test import override_settings

from channels_wsdeny import DenyMiddlewareStack, Hooks
from channels_wsdeny.conf import KEYS, Settings, conf
from channels_wsdeny.decorators import require
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated, Policy
from tests.cases import Answers
from tests.clients import knock

pytestmark = pytest.mark.django_db

DEFAULTS = {
    "DEFAULT_POLICY": "channels_wsdeny.policies.IsAuthenticated",
    "POLICY_TIMEOUT": 4.0,
    "POOL_SIZE": 16,
    "DENY_WITH": "response",
    "MAX_DENIAL_BODY": 1024 * 1024,
    "CHALLENGE": "Session",
    "RETRY_AFTER": 5,
    "MIRROR_DEFAULT_POLICY": False,
    "HOOKS": [],
}

#: Keys whose values are kept as they are: their default might open what they were to shut.
KEPT = {"DEFAULT_POLICY", "MIRROR_DEFAULT_POLICY", "HOOKS"}

#: For each key: values that may be written, and values that may not.
VALUES = {
    "DEFAULT_POLICY": (
        [IsAuthenticated(), "a.B", IsAuthenticated() | DenyAll()],
        [None, 3, b"a.B", [], True, IsAuthenticated],
    ),
    "POLICY_TIMEOUT": (
        [4, 0.5, 3600],
        [0, -1, -0.5, float("nan"), float("inf"), True, "4", None, [4], 4j],
    ),
    "POOL_SIZE": ([1, 200], [0, -1, True, False, 1.0, "16", None, float("inf"), Fraction(2)]),
    "DENY_WITH": (["response", "close"], ["Close", "", None, True, 0, b"close", ["close"]]),
    "MAX_DENIAL_BODY": ([1, 10**9], [0, -1, True, 1024.0, "1MB", None]),
    "CHALLENGE": (
        ["Session", 'Bearer realm="chat"'],
        ["", "a\r\nb", "a\nb", "a\0b", "ä", "☃", None, b"Session", 3, "\t"],
    ),
    "MIRROR_DEFAULT_POLICY": ([True, False], [None, 1, 0, "True", "", [True]]),
    "HOOKS": (
        [[], ["chat.hooks.hooks"], ("chat.hooks.hooks",), [Hooks()]],
        [None, "chat.hooks.hooks", Hooks(), [3], [None], {"chat.hooks.hooks"}],
    ),
    "RETRY_AFTER": ([1, 3600], [0, -1, 0.5, True, "5", None, float("nan")]),
}


def cases(which):
    return [(name, value) for name, values in VALUES.items() for value in values[which]]


@pytest.mark.parametrize(("name", "default"), DEFAULTS.items())
def test_every_key_has_its_default_without_the_setting(name, default, settings):
    del_setting(settings)
    assert getattr(conf, name) == default


@pytest.mark.parametrize(("name", "default"), DEFAULTS.items())
def test_every_key_has_its_default_in_an_empty_setting(name, default, settings):
    settings.CHANNELS_WSDENY = {}
    assert getattr(conf, name) == default


def del_setting(settings):
    if hasattr(settings, "CHANNELS_WSDENY"):
        del settings.CHANNELS_WSDENY


def test_every_key_is_tested():
    assert set(DEFAULTS) == set(VALUES) == set(KEYS)


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_default_is_valid(name):
    assert KEYS[name].valid(KEYS[name].default)


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_key_says_what_it_expects(name):
    assert KEYS[name].expected
    assert KEYS[name].name == name


@pytest.mark.parametrize(("name", "value"), cases(0))
def test_a_key_is_what_the_site_wrote(name, value, settings):
    settings.CHANNELS_WSDENY = {name: value}
    assert getattr(conf, name) is value


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, value in cases(1) if name not in KEPT])
def test_an_invalid_value_counts_as_the_default(name, value, settings):
    settings.CHANNELS_WSDENY = {name: value}
    assert getattr(conf, name) == DEFAULTS[name]


@pytest.mark.parametrize("value", VALUES["DEFAULT_POLICY"][1])
def test_an_invalid_policy_counts_as_no_other(value, settings):
    """It may have been meant to be stricter than the default."""
    settings.CHANNELS_WSDENY = {"DEFAULT_POLICY": value}
    assert conf.DEFAULT_POLICY is value


@pytest.mark.parametrize(("name", "value"), cases(0))
def test_a_value_that_may_be_written_is_valid(name, value):
    assert KEYS[name].valid(value)


@pytest.mark.parametrize(("name", "value"), cases(1))
def test_a_value_that_may_not_be_written_is_invalid(name, value):
    assert not KEYS[name].valid(value)


def test_override_settings_works():
    with override_settings(CHANNELS_WSDENY={"POOL_SIZE": 3}):
        assert conf.POOL_SIZE == 3
    assert conf.POOL_SIZE == 16


def test_a_dict_that_is_changed_in_place_is_read_again(settings):
    settings.CHANNELS_WSDENY = {}
    settings.CHANNELS_WSDENY["POOL_SIZE"] = 3
    assert conf.POOL_SIZE == 3


def test_the_keys_are_attributes_of_the_class_for_documentation():
    assert Settings.POOL_SIZE is KEYS["POOL_SIZE"]


def test_the_challenge_needs_no_dialog_by_default():
    assert not conf.CHALLENGE.lower().startswith(("basic", "digest", "negotiate"))


# What an invalid setting, which the system checks report, does nevertheless: it never opens a door.


class Consumer(AsyncWebsocketConsumer):
    """Accepts whoever reaches it."""


def guarded(policy):
    return DenyMiddlewareStack(require(policy)(type("Guarded", (Consumer,), {})).as_asgi())


@pytest.mark.parametrize(("name", "value"), cases(1))
async def test_an_invalid_setting_lets_nobody_in(name, value, settings):
    """Behind the stack's default policy; by a denial, or by an exception that the server takes for one."""
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.5, name: value}
    assert await status_or_error(DenyMiddlewareStack(Consumer.as_asgi())) != 101


@pytest.mark.parametrize(("name", "value"), cases(1))
async def test_an_invalid_setting_lets_nobody_past_a_synchronous_policy(name, value, settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.5, name: value}
    assert await status_or_error(guarded(Answers(lambda: False))) != 101


@pytest.mark.parametrize("value", [None, [], "x", 3])
async def test_a_setting_that_is_no_dict_lets_nobody_in(value, settings):
    settings.CHANNELS_WSDENY = value
    assert await status_or_error(DenyMiddlewareStack(Consumer.as_asgi())) != 101


async def status_or_error(application):
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/",
        "query_string": b"",
        "headers": [],
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }
    try:
        await application(scope, receive, send)
    except Exception as error:  # noqa: BLE001 - a server answers it by a 500
        assert sent == []
        return type(error)
    return {"websocket.accept": 101}.get(sent[0]["type"], sent[0].get("status"))


async def test_a_challenge_of_the_sites_own_goes_out(settings):
    settings.CHANNELS_WSDENY = {"CHALLENGE": 'Bearer realm="chat"'}
    answer = await knock(guarded(IsAuthenticated()), "/")
    assert answer.header("www-authenticate") == 'Bearer realm="chat"'


async def test_a_challenge_with_a_line_break_is_never_sent(settings):
    settings.CHANNELS_WSDENY = {"CHALLENGE": "Session\r\nSet-Cookie: a=b"}
    answer = await knock(guarded(IsAuthenticated()), "/")
    assert (answer.header("www-authenticate"), answer.header("set-cookie")) == ("Session", None)


async def test_deny_with_something_unknown_denies_with_a_response(settings):
    settings.CHANNELS_WSDENY = {"DENY_WITH": "Close"}
    assert (await knock(guarded(DenyAll()), "/")).status == 403


async def test_the_default_policy_may_be_an_instance(settings):
    settings.CHANNELS_WSDENY = {"DEFAULT_POLICY": DenyAll()}
    assert (await knock(DenyMiddlewareStack(Consumer.as_asgi()), "/")).status == 403


async def test_the_default_policy_may_be_a_dotted_path(settings):
    settings.CHANNELS_WSDENY = {"DEFAULT_POLICY": "channels_wsdeny.policies.AllowAny"}
    assert (await knock(DenyMiddlewareStack(Consumer.as_asgi()), "/")).status == 101


an_instance = AllowAny()


async def test_the_default_policy_may_be_the_dotted_path_of_an_instance(settings):
    settings.CHANNELS_WSDENY = {"DEFAULT_POLICY": f"{__name__}.an_instance"}
    assert (await knock(DenyMiddlewareStack(Consumer.as_asgi()), "/")).status == 101


class Hanging(Policy):
    async def acheck(self, request):
        import asyncio

        await asyncio.sleep(60)
        return True


async def test_the_timeout_of_policies_is_the_sites(settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.1, "RETRY_AFTER": 7}
    answer = await knock(guarded(Hanging()), "/")
    assert (answer.status, answer.header("retry-after")) == (503, "7")
