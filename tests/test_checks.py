from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from channels.auth import AuthMiddleware, AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.middleware import BaseMiddleware
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from channels.sessions import CookieMiddleware
from django.apps import apps
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessions
from django.core import checks as djangos
from django.core.asgi import get_asgi_application
from django.core.checks.registry import registry
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.http import HttpResponse
from django.urls import path

from channels_wsdeny import DenyMiddlewareStack, Hooks
from channels_wsdeny.checks import asgi as wiring
from channels_wsdeny.checks import project as footing
from channels_wsdeny.checks import settings as checks
from channels_wsdeny.conf import KEYS, MIRROR
from channels_wsdeny.decorators import require, with_hooks
from channels_wsdeny.installed import AUTHENTICATION, SESSIONS
from channels_wsdeny.policies import DenyAll, IsAuthenticated
from tests.docs.pages import DOCS
from tests.test_conf import VALUES

MODULES = (checks, footing, wiring)
NEEDED = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
APPS = ["channels_wsdeny", "daphne", *NEEDED]
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
stack_within_http = DenyMiddlewareStack(ProtocolTypeRouter({"http": consumer}))
one_outside = ProtocolTypeRouter(
    {"websocket": URLRouter([path("in/", DenyMiddlewareStack(consumer)), path("out/", consumer)])}
)
needs_arguments = type("NeedsArguments", (IsAuthenticated,), {"__init__": lambda self, name: None})


class SessionStore(DatabaseSessions):
    """An engine that was written before Django's had coroutines."""

    def load(self):
        return {**super().load(), "extra": True}


class Tokens(BaseMiddleware):
    """Stands for what puts a user into the scope."""


class Mixin:
    """Keeps its subclasses to itself."""

    def __init_subclass__(cls):
        pass

    def __new__(cls, *args, **kwargs):
        return object.__new__(cls)


@require(DenyAll())
class Guarded(AsyncWebsocketConsumer): ...


class Evading(Mixin, Guarded):
    async def __call__(self, scope, receive, send):
        await send({"type": "websocket.accept"})


class_itself = DenyMiddlewareStack(URLRouter([path("ws/", AsyncWebsocketConsumer)]))
evaded = DenyMiddlewareStack(Evading.as_asgi())
auth_inside = DenyMiddlewareStack(AuthMiddlewareStack(bare))
auth_around = AuthMiddlewareStack(DenyMiddlewareStack(bare))
auth_of_ones_own = type("OwnAuth", (AuthMiddleware,), {})(DenyMiddlewareStack(bare))
user_inside = DenyMiddlewareStack(
    ProtocolTypeRouter({"websocket": Tokens(URLRouter([path("a/", consumer), path("b/", consumer)]))})
)
user_inside_for_decorated = DenyMiddlewareStack(Tokens(Guarded.as_asgi()))
user_around = Tokens(DenyMiddlewareStack(bare))

wrong_hooks = Hooks()


@wrong_hooks.on_response
def takes_too_little(request):
    return None


route_hooks = Hooks()


@route_hooks.on_route
def look(request):
    return None


hooks_of_a_stack = DenyMiddlewareStack(
    ProtocolTypeRouter({"http": get_asgi_application(), "websocket": consumer}), hooks=route_hooks
)

#: For each id, the settings of a site that gets it.
SITUATIONS = {
    "channels_wsdeny.E001": {"CHANNELS_WSDENY": ["POOL_SIZE"]},
    "channels_wsdeny.E002": {"CHANNELS_WSDENY": {"POOLSIZE": 3}},
    "channels_wsdeny.E003": {"CHANNELS_WSDENY": {"POOL_SIZE": "3"}},
    "channels_wsdeny.E004": {"CHANNELS_WSDENY": {"DEFAULT_POLICY": "nowhere.Policy"}},
    "channels_wsdeny.E005": {"CHANNELS_WSDENY": {"MIRROR_DEFAULT_POLICY": True}, "MIDDLEWARE": []},
    "channels_wsdeny.E006": {"ASGI_APPLICATION": f"{__name__}.class_itself"},
    "channels_wsdeny.E007": {"ASGI_APPLICATION": f"{__name__}.evaded"},
    "channels_wsdeny.E008": {"CHANNELS_WSDENY": {"HOOKS": [f"{__name__}.wrong_hooks"]}},
    "channels_wsdeny.E009": {"SESSION_ENGINE": "nowhere.sessions"},
    "channels_wsdeny.E010": {"INSTALLED_APPS": ["channels_wsdeny", *NEEDED[:2]]},
    "channels_wsdeny.W001": {"INSTALLED_APPS": ["daphne", "channels_wsdeny", *NEEDED]},
    "channels_wsdeny.W002": {"ASGI_APPLICATION": f"{__name__}.bare"},
    "channels_wsdeny.W003": {"ASGI_APPLICATION": "nowhere.application"},
    "channels_wsdeny.W004": {
        "CHANNELS_WSDENY": {"HOOKS": ["testproject.chat.hooks.hooks"]},
        "MIDDLEWARE": [],
    },
    "channels_wsdeny.W005": {"ASGI_APPLICATION": f"{__name__}.stack_around_http_alone"},
    "channels_wsdeny.W006": {"MIDDLEWARE": [SESSIONS, MIRROR, AUTHENTICATION]},
    "channels_wsdeny.W007": {"ASGI_APPLICATION": f"{__name__}.auth_inside"},
    "channels_wsdeny.W008": {"ASGI_APPLICATION": f"{__name__}.user_inside"},
    "channels_wsdeny.W009": {"SESSION_ENGINE": __name__},
}


def ours(messages):
    return [message for message in messages if message.id and message.id.startswith("channels_wsdeny.")]


def ids_of_the_source():
    return [
        number
        for module in MODULES
        for number in re.findall(r'id="([^"]+)"', Path(module.__file__).read_text())
    ]


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
    assert sorted(ids_of_the_source()) == sorted(SITUATIONS)


def test_the_documentation_lists_the_ids_of_the_source():
    listed = re.findall(
        r"^### `(channels_wsdeny\.[EW]\d{3})`$", (DOCS / "checks.md").read_text(), re.MULTILINE
    )
    assert listed == sorted(ids_of_the_source())


@pytest.mark.parametrize("number", SITUATIONS)
def test_every_id_has_its_remedy_in_the_documentation(number):
    after = (DOCS / "checks.md").read_text().partition(f"### `{number}`\n")[2]
    assert len(after.partition("\n### ")[0].split()) > 10


def test_every_check_is_registered():
    assert set(checks.ALL) <= registry.registered_checks


def test_every_function_of_the_module_that_checks_is_in_all():
    functions = {
        value for module in MODULES for name, value in vars(module).items() if name.startswith("check_")
    }
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
    assert found(settings, INSTALLED_APPS=["daphne.apps.DaphneConfig", "channels_wsdeny", *NEEDED]) == [
        "channels_wsdeny.W001"
    ]


def test_the_app_before_daphne_is_right(settings):
    assert found(settings, INSTALLED_APPS=APPS) == []


def test_the_app_by_its_config_before_daphne_is_right(settings):
    names = ["channels_wsdeny.apps.ChannelsWsdenyConfig", "daphne.apps.DaphneConfig", *NEEDED]
    assert found(settings, INSTALLED_APPS=names) == []


def test_a_site_without_daphne_is_right(settings):
    assert found(settings, INSTALLED_APPS=["channels_wsdeny", *NEEDED]) == []


@pytest.mark.parametrize("name", ["bare", "bare_within_wrappers", "one_outside", "consumer"])
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
        "stack_within_http",
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


@pytest.fixture
def asgi_of(tmp_path, monkeypatch, settings):
    """A function: the site's asgi.py is one with this source."""

    def write(source):
        (tmp_path / "asgi_of_this_test.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "asgi_of_this_test", raising=False)
        settings.ASGI_APPLICATION = "asgi_of_this_test.application"

    return write


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        (
            "from testproject import consumerz",
            "ImportError: cannot import name 'consumerz'",
        ),
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        ("raise ImportError('no luck')", "ImportError: no luck"),
        ("1 / 0", "ZeroDivisionError('division by zero')"),
        ("", "Cannot find 'application' in ASGI_APPLICATION module asgi_of_this_test"),
    ],
)
def test_what_keeps_an_application_from_being_imported_is_named(source, cause, settings, asgi_of):
    asgi_of(source)
    message = message_of(settings)
    assert message.id == "channels_wsdeny.W003"
    assert cause in message.msg


@pytest.mark.parametrize("arguments", [["routes"], ["explain", "/ws/"]])
def test_the_command_names_what_keeps_an_application_from_being_imported(arguments, asgi_of):
    asgi_of("import nowhere")
    with pytest.raises(CommandError, match="ModuleNotFoundError: No module named 'nowhere'"):
        call_command("wsdeny", *arguments)


BUILDS_DJANGOS_HANDLER = """
from django.core.asgi import get_asgi_application
application = get_asgi_application()
"""


def test_a_session_engine_that_keeps_asgi_from_being_imported_is_reported(settings, asgi_of):
    asgi_of(BUILDS_DJANGOS_HANDLER)
    assert found(settings, SESSION_ENGINE="nowhere.sessions") == [
        "channels_wsdeny.W003",
        "channels_wsdeny.E009",
    ]


def test_an_application_that_cannot_be_imported_says_nothing_of_a_right_session_engine(settings, asgi_of):
    asgi_of("import nowhere")
    assert found(settings) == ["channels_wsdeny.W003"]


def test_the_checks_before_tests_do_not_import_the_application(settings, asgi_of, monkeypatch):
    asgi_of("import nowhere")
    monkeypatch.setattr(sys, "argv", ["manage.py", "test", "chat"])
    assert found(settings) == []


def test_the_checks_before_tests_look_at_an_application_that_was_imported(settings, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["manage.py", "test", "chat"])
    assert found(settings, ASGI_APPLICATION=f"{__name__}.bare") == ["channels_wsdeny.W002"]


def test_the_app_has_a_name_for_people():
    assert apps.get_app_config("channels_wsdeny").verbose_name


def message_of(settings, **values):
    """The one message of a site with these settings."""
    for name, value in values.items():
        setattr(settings, name, value)
    (message,) = run()
    return message


def test_what_is_outside_the_stack_is_named(settings):
    message = message_of(settings, ASGI_APPLICATION=f"{__name__}.one_outside")
    assert "/out/" in message.msg
    assert "/in/" not in message.msg


def test_a_routed_class_is_named_with_its_route(settings):
    message = message_of(settings, ASGI_APPLICATION=f"{__name__}.class_itself")
    assert "'/ws/'" in message.msg
    assert "AsyncWebsocketConsumer.as_asgi()" in message.hint


@pytest.fixture
def site(settings, monkeypatch):
    """A function that makes an application the site's."""

    def set_application(application):
        monkeypatch.setitem(globals(), "given", application)
        settings.ASGI_APPLICATION = f"{__name__}.given"

    return set_application


def test_a_routed_class_is_found_without_a_stack_as_well(settings, site):
    site(URLRouter([path("ws/", AsyncWebsocketConsumer)]))
    assert found(settings) == [
        "channels_wsdeny.W002",
        "channels_wsdeny.E006",
    ]


def test_a_subclass_that_only_overrides_call_is_bound(settings, site):
    subclass = type("Subclass", (Guarded,), {"__call__": AsyncWebsocketConsumer.__call__})
    site(DenyMiddlewareStack(subclass.as_asgi()))
    assert found(settings) == []


def test_channels_auth_is_needed_neither_inside_nor_around(settings):
    assert found(settings, ASGI_APPLICATION=f"{__name__}.auth_around") == ["channels_wsdeny.W007"]


@pytest.mark.parametrize("name", ["user_inside_for_decorated", "user_around", "auth_of_ones_own"])
def test_a_wrapper_whose_user_counts_is_right(name, settings):
    assert found(settings, ASGI_APPLICATION=f"{__name__}.{name}") == []


def test_a_wrapper_is_reported_once_for_all_routes_behind_it(settings):
    assert "'/a/'" in message_of(settings, ASGI_APPLICATION=f"{__name__}.user_inside").msg


def test_a_hook_of_a_wrong_number_of_arguments_is_named(settings):
    message = message_of(settings, CHANNELS_WSDENY={"HOOKS": [f"{__name__}.wrong_hooks"]})
    assert message.msg == (
        f"The hook {__name__}.takes_too_little takes (request), but on_response hooks are called with "
        "(request, response)."
    )


def hooks_with(kind, function):
    hooks = Hooks()
    getattr(hooks, kind)(function)
    return hooks


async def takes_three(request, response, more): ...


async def takes_any(*args): ...


async def has_a_default(request, response=None, more=None): ...


async def wants_a_keyword(request, response, *, more): ...


KINDS = ["on_request", "on_route", "on_response", "on_exception", "around"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", [takes_three, wants_a_keyword])
def test_hooks_of_every_kind_are_looked_at(kind, function, settings):
    settings.CHANNELS_WSDENY = {"HOOKS": [hooks_with(kind, function)]}
    assert [message.id for message in run()] == ["channels_wsdeny.E008"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", [takes_any, has_a_default])
def test_a_hook_that_takes_what_it_is_given_is_right(kind, function, settings):
    settings.CHANNELS_WSDENY = {"HOOKS": [hooks_with(kind, function)]}
    assert run() == []


def test_a_bound_method_is_right(settings):
    class Counter:
        def count(self, request):
            return None

    assert found(settings, CHANNELS_WSDENY={"HOOKS": [hooks_with("on_request", Counter().count)]}) == []


def test_a_function_without_a_signature_is_left_alone(settings):
    assert found(settings, CHANNELS_WSDENY={"HOOKS": [hooks_with("on_request", max)]}) == []


@pytest.mark.parametrize(
    "application",
    [
        lambda hooks: DenyMiddlewareStack(consumer, hooks=hooks),
        lambda hooks: DenyMiddlewareStack(with_hooks(hooks)(URLRouter([path("", consumer)]))),
        lambda hooks: DenyMiddlewareStack(with_hooks(hooks)(type("C", (Guarded,), {})).as_asgi()),
    ],
    ids=["stack", "router", "consumer"],
)
def test_hooks_are_found_where_they_are_given(application, settings, site):
    site(application(wrong_hooks))
    assert found(settings) == ["channels_wsdeny.E008"]


@with_hooks(wrong_hooks)
def view(request):
    return HttpResponse()


urlpatterns = [path("", view)]


def test_hooks_of_views_are_found(settings):
    assert found(settings, ROOT_URLCONF=__name__) == ["channels_wsdeny.E008"]


def test_a_hook_is_reported_once_however_often_it_is_given(settings, site):
    site(DenyMiddlewareStack(consumer, hooks=wrong_hooks))
    assert found(settings, CHANNELS_WSDENY={"HOOKS": [wrong_hooks]}) == ["channels_wsdeny.E008"]


def test_hooks_of_a_stack_that_views_miss_are_named(settings):
    message = message_of(settings, ASGI_APPLICATION=f"{__name__}.hooks_of_a_stack", MIDDLEWARE=[])
    assert message.id == "channels_wsdeny.W004"
    assert f"on_route {__name__}.look" in message.msg


def test_hooks_of_a_stack_reach_views_by_the_middleware(settings):
    assert found(settings, ASGI_APPLICATION=f"{__name__}.hooks_of_a_stack") == []


for_sockets, for_views, empty_hooks = Hooks(), Hooks(), Hooks()
for_sockets.on_request(protocols=("websocket",))(look)
for_views.on_request(protocols=("http",))(look)


@pytest.mark.parametrize(
    "hooks",
    [f"{__name__}.for_sockets", f"{__name__}.empty_hooks", "channels_wsdeny.contrib.otel.hooks"],
)
def test_hooks_that_are_not_for_views_need_no_middleware(hooks, settings):
    assert found(settings, CHANNELS_WSDENY={"HOOKS": [hooks]}, MIDDLEWARE=[]) == []


def test_hooks_for_views_need_the_middleware_also_beside_others(settings):
    hooks = [f"{__name__}.for_sockets", f"{__name__}.for_views"]
    assert found(settings, CHANNELS_WSDENY={"HOOKS": hooks}, MIDDLEWARE=[]) == ["channels_wsdeny.W004"]


def test_hooks_of_the_site_that_views_miss_are_named(settings):
    hooks = {"HOOKS": [f"{__name__}.for_sockets", f"{__name__}.route_hooks"]}
    message = message_of(settings, CHANNELS_WSDENY=hooks, MIDDLEWARE=[])
    assert message.msg.startswith(f"CHANNELS_WSDENY['HOOKS'] has on_route {__name__}.look, but no Mirror")


def test_hooks_of_a_stack_are_looked_at_where_those_of_the_site_are_for_sockets(settings):
    hooks = {"HOOKS": [f"{__name__}.for_sockets"]}
    application = f"{__name__}.hooks_of_a_stack"
    ids = found(settings, CHANNELS_WSDENY=hooks, ASGI_APPLICATION=application, MIDDLEWARE=[])
    assert ids == ["channels_wsdeny.W004"]


@pytest.mark.parametrize("engine", ["db", "cache", "cached_db", "file", "signed_cookies"])
def test_djangos_session_engines_are_right(engine, settings):
    assert found(settings, SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}") == []


class WithBoth(DatabaseSessions):
    def save(self, must_create=False):
        super().save(must_create)

    asave = SessionBase.asave


def test_an_engine_that_has_both_is_right(settings, monkeypatch):
    monkeypatch.setitem(globals(), "SessionStore", WithBoth)
    assert found(settings, SESSION_ENGINE=__name__) == []


class FromScratch(SessionBase):
    def load(self):
        return {}


def test_an_engine_made_of_the_base_alone_is_right(settings, monkeypatch):
    monkeypatch.setitem(globals(), "SessionStore", FromScratch)
    assert found(settings, SESSION_ENGINE=__name__) == []


@pytest.mark.parametrize("store", [None, dict, 3])
def test_an_engine_whose_store_is_none_is_reported(store, settings, monkeypatch):
    monkeypatch.setitem(globals(), "SessionStore", store)
    assert found(settings, SESSION_ENGINE=__name__) == ["channels_wsdeny.E009"]


def test_a_site_without_sockets_may_do_without_sessions(settings):
    assert found(settings, ASGI_APPLICATION=None, INSTALLED_APPS=["channels_wsdeny"]) == []


def test_sessions_of_another_engine_need_no_app(settings):
    engine = "django.contrib.sessions.backends.signed_cookies"
    assert found(settings, SESSION_ENGINE=engine, INSTALLED_APPS=["channels_wsdeny", *NEEDED[:2]]) == []


@pytest.mark.parametrize(
    "middleware",
    [[SESSIONS, AUTHENTICATION, MIRROR], [MIRROR], [AUTHENTICATION, SESSIONS], [SESSIONS, MIRROR]],
)
def test_other_orders_of_middleware_are_right(middleware, settings):
    assert found(settings, MIDDLEWARE=middleware) == []


def test_the_mirror_before_both_is_told_of_both(settings):
    message = message_of(settings, MIDDLEWARE=[MIRROR, SESSIONS, AUTHENTICATION])
    assert "before SessionMiddleware and AuthenticationMiddleware" in message.msg
