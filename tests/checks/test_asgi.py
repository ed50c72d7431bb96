import inspect
import sys
from functools import partial, wraps

import pytest
from channels.auth import AuthMiddleware, AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.middleware import BaseMiddleware
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from channels.sessions import CookieMiddleware
from django.contrib.auth import decorators as for_views
from django.contrib.auth.mixins import AccessMixin, LoginRequiredMixin, PermissionRequiredMixin
from django.core.asgi import get_asgi_application
from django.db.transaction import atomic
from django.urls import path, re_path
from django.utils.decorators import method_decorator
from django.utils.functional import SimpleLazyObject
from django.views import View

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.checks.asgi import place_of
from channels_wsdeny.decorators import login_required, permission_required, public, require
from channels_wsdeny.policies import AllowAny, DenyAll, HasPermission
from tests.support.wrappers import Function, Wrapper, with_wraps

consumer = AsyncWebsocketConsumer.as_asgi()
bare = ProtocolTypeRouter({"websocket": URLRouter([path("", consumer)])})
HTTP = {"http": get_asgi_application()}
stack = DenyMiddlewareStack
WITH_HTTP = ProtocolTypeRouter({**HTTP, "websocket": consumer})


class OwnAuth(AuthMiddleware): ...


async def function(scope, receive, send):
    """An application that cannot be resolved: it may be anything."""


class Token(BaseMiddleware): ...


ALL, OUT = "ASGI_APPLICATION are not", "ASGI_APPLICATION at /out/ are not"
BESIDE = URLRouter([path("in/", DenyMiddlewareStack(consumer)), path("out/", consumer)])


@pytest.mark.parametrize(
    ("application", "words"),
    [
        (bare, ALL),
        (ProtocolTypeRouter({"websocket": OriginValidator(CookieMiddleware(bare), ["*"])}), ALL),
        (ProtocolTypeRouter({"http": DenyMiddlewareStack(consumer), "websocket": consumer}), ALL),
        (consumer, ALL),
        (ProtocolTypeRouter({"websocket": BESIDE}), OUT),
    ],
    ids=["router", "wrappers", "a stack around http alone", "consumer", "a stack around others"],
)
def test_consumers_without_a_stack_are_reported(application, words, messages):
    (message,) = messages(application)
    assert (message.id, words in message.msg) == ("channels_wsdeny.W002", True)


@pytest.mark.parametrize(
    ("application", "found"),
    [
        # A wrapper inside the stack that is no middleware of Channels is reported, and around it none.
        (DenyMiddlewareStack(Function(bare)), ["W008"]),
        (DenyMiddlewareStack(ProtocolTypeRouter({"websocket": URLRouter([path("", Function(consumer))])})), ["W008"]),
        (DenyMiddlewareStack(Token(bare)), []),
        (DenyMiddlewareStack(function), []),
        (Function(DenyMiddlewareStack(bare)), []),
        (with_wraps(DenyMiddlewareStack(bare)), []),
        (ProtocolTypeRouter({"websocket": Function(Token(DenyMiddlewareStack(bare)))}), []),
        (Function(bare), ["W002"]),
        # A stack anywhere around the consumers is right, and functions may contain one.
        (DenyMiddlewareStack(bare), []),
        (CookieMiddleware(DenyMiddlewareStack(bare)), []),
        (DenyMiddlewareStack(consumer), []),
        (DenyMiddlewareStack(require(DenyAll())(bare)), []),
        (ProtocolTypeRouter({"http": consumer}), []),
        (ProtocolTypeRouter({"websocket": function}), []),
        # Channels' own authentication is needed neither inside nor around a stack.
        (DenyMiddlewareStack(AuthMiddlewareStack(bare)), ["W007"]),
        (AuthMiddlewareStack(DenyMiddlewareStack(bare)), ["W007"]),
        (OwnAuth(DenyMiddlewareStack(bare)), []),
        # An origin validator around a stack is superfluous, and around HTTP an error.
        (ProtocolTypeRouter({"websocket": OriginValidator(DenyMiddlewareStack(bare), ["*"])}), ["W009"]),
        (DenyMiddlewareStack(ProtocolTypeRouter({"websocket": OriginValidator(bare, ["*"])})), []),
        (OriginValidator(DenyMiddlewareStack(WITH_HTTP), ["*"]), ["E012", "W009"]),
        (DenyMiddlewareStack(ProtocolTypeRouter({**HTTP, "websocket": OriginValidator(consumer, ["*"])})), []),
    ],
)
def test_wrappers_around_and_inside_of_a_stack(application, found, ids):
    assert ids(application) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        *((value, []) for value in (None, "", "django.core.asgi.get_asgi_application")),  # A site without sockets.
        *((value, ["W003"]) for value in ("application", "nowhere.application", f"{__name__}.nothing", 3)),
    ],
)
def test_an_application_that_cannot_be_imported_is_reported(value, found, ids):
    assert ids(ASGI_APPLICATION=value) == found


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
        ("from testproject import consumerz", "cannot import name 'consumerz'"),
        ("import nowhere", "No module named 'nowhere'"),
        ("1 / 0", "ZeroDivisionError('division by zero')"),
        ("", 'Module "asgi_of_this_test" does not define a "application"'),
    ],
)
def test_what_keeps_an_application_from_being_imported_is_named(source, cause, messages, asgi_of):
    asgi_of(source)
    (message,) = messages()
    assert (message.id, cause in message.msg) == ("channels_wsdeny.W003", True)


def test_a_decorator_of_django_on_a_consumer_is_told_from_a_name_that_the_module_does_not_have(messages, asgi_of):
    asgi_of("from django.contrib.auth.decorators import login_required\napplication = login_required(dict).as_asgi()")
    (message,) = messages()
    assert "cannot be imported: AttributeError(\"'function' object has no attribute 'as_asgi'\")" in message.msg
    assert message.obj.endswith("asgi_of_this_test.py:2")
    assert "channels_wsdeny.decorators" in message.hint


def test_the_checks_before_tests_look_only_at_an_application_that_was_imported(ids, asgi_of, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["manage.py", "test", "chat"])
    asgi_of("import nowhere")
    assert ids() == []
    assert ids(bare) == ["W002"]


@permission_required("chat.veiw_room")
def misspelt_view(request): ...


@permission_required("chat.veiw_room")
class MisspeltView(View): ...


class WithoutSignature:
    @property
    def __signature__(self):
        raise ValueError("no signature found")

    async def __call__(self, scope, receive, send): ...


def test_a_routed_class_or_instance_is_named_with_its_route_inside_and_outside_of_a_stack(messages):
    for routed, words in (
        (AsyncWebsocketConsumer.as_asgi, "as_asgi, without calling it, of channels.generic.websocket.AsyncWebsocket"),
        (AsyncWebsocketConsumer(), "names an instance of"),
        (AsyncWebsocketConsumer, "'/ws/'"),
    ):
        router = URLRouter([path("ws/", routed)])
        (message,) = messages(DenyMiddlewareStack(router))
        assert (message.id, words in message.msg) == ("channels_wsdeny.E006", True)
        assert "AsyncWebsocketConsumer.as_asgi()" in message.hint
    assert [message.id for message in messages(router)] == ["channels_wsdeny.E006", "channels_wsdeny.W002"]
    beside_http = ProtocolTypeRouter({"websocket": AsyncWebsocketConsumer, **HTTP})
    assert [message.id for message in messages(DenyMiddlewareStack(beside_http))] == ["channels_wsdeny.E006"]


def test_a_method_that_is_an_application_by_itself_may_have_the_name_of_what_makes_one(ids):
    class Framework:
        async def as_asgi(self, scope, receive, send): ...

    # The last does not say what it takes.
    routes = [path("ws/", app) for app in (Framework().as_asgi, public(Framework().as_asgi), WithoutSignature())]
    assert ids(DenyMiddlewareStack(URLRouter(routes))) == []


@pytest.mark.parametrize("routed", [misspelt_view, lambda request, pk: None, View.as_view()])
def test_a_view_among_the_routes_of_an_asgi_application_is_an_error_that_names_it(routed, messages):
    (message,) = messages(DenyMiddlewareStack(URLRouter([path("ws/", routed)])))
    assert message.id == "channels_wsdeny.E006"
    assert "The route '/ws/' names " in message.msg
    assert "which cannot be called with (scope, receive, send)" in message.msg


@pytest.mark.parametrize(
    ("routed", "name"),
    [
        (AsyncWebsocketConsumer, "AsyncWebsocketConsumer"),
        (AsyncWebsocketConsumer.as_asgi, "AsyncWebsocketConsumer"),
        (consumer, "AsyncWebsocketConsumer"),
        (public(DenyMiddlewareStack(consumer)), "AsyncWebsocketConsumer"),
        (bare, "ProtocolTypeRouter"),
    ],
)
def test_a_consumer_among_the_views_is_an_error_that_names_it(routed, name, messages):
    (message,) = messages(**of_view(routed))
    assert message.id == "channels_wsdeny.E014"
    assert f"{name} at '/', which is no view" in message.msg


@pytest.mark.parametrize("routes", [[path("/ws/", consumer)], [re_path(r"^\/ws/$", consumer)]])
def test_a_route_with_a_slash_at_its_beginning_is_reported_once(routes, messages):
    (message,) = messages(DenyMiddlewareStack(URLRouter([path("a/", URLRouter(routes))])))
    assert (message.id, message.hint) == ("channels_wsdeny.W016", "Remove the slash.")
    assert messages(DenyMiddlewareStack(URLRouter([re_path("^/?ws/$", consumer)]))) == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [("websockets", "Did you mean 'websocket'? The"), ("WebSocket", "Did you mean 'websocket'? The"), ("ws", "The")],
)
def test_a_key_that_is_no_type_of_a_scope_is_reported(name, hint, messages):
    (message,) = messages(DenyMiddlewareStack(ProtocolTypeRouter({name: bare})))
    assert (message.id, f"the key {name!r}" in message.msg) == ("channels_wsdeny.W017", True)
    assert message.hint.startswith(f"{hint} types are 'http', 'websocket', ")


def test_an_application_that_refers_to_itself_has_no_types(ids):
    circle = Wrapper(None)
    circle.inner = circle
    assert ids(DenyMiddlewareStack(circle)) == ["W008"]


class Mixin:
    """Does not call `super().__new__()`."""

    def __new__(cls, *args, **kwargs):
        return object.__new__(cls)


@require(DenyAll())
class Guarded(AsyncWebsocketConsumer): ...


class Evading(Mixin, Guarded):
    async def __call__(self, scope, receive, send):
        await send({"type": "websocket.accept"})


class Overriding(Guarded):
    __call__ = AsyncWebsocketConsumer.__call__


def test_a_consumer_that_does_not_ask_the_policies_of_its_base_is_reported(ids):
    assert ids(DenyMiddlewareStack(Evading.as_asgi())) == ["E007"]
    assert ids(DenyMiddlewareStack(Overriding.as_asgi())) == []


@pytest.mark.parametrize(
    ("mixins", "name"),
    [
        ([LoginRequiredMixin], "LoginRequiredMixin"),
        ([LoginRequiredMixin, PermissionRequiredMixin], "LoginRequiredMixin and PermissionRequiredMixin"),
        ([AccessMixin], "AccessMixin"),
    ],
)
def test_a_mixin_for_views_on_a_consumer_is_an_error_that_names_it(mixins, name, messages):
    cls = type("Mixed", (*mixins, AsyncWebsocketConsumer), {})
    (message,) = messages(DenyMiddlewareStack(cls.as_asgi()))
    assert message.id == "channels_wsdeny.E011"
    assert f"Mixed has the mixin {name} of django.contrib.auth.mixins, which is for views" in message.msg


def test_lazy_attributes_of_a_consumer_are_not_loaded(ids):
    """The table that one needs may not be there before ``migrate``, which runs the checks."""
    own = {"rooms": SimpleLazyObject(partial(pytest.fail, "It was loaded."))}
    consumer = public(type("Consumer", (AsyncWebsocketConsumer,), own))
    assert ids(DenyMiddlewareStack(consumer.as_asgi())) == []


@pytest.mark.parametrize(
    "decorate",
    [
        for_views.login_required,
        for_views.permission_required("auth.add_user"),
        lambda method: wraps(for_views.login_required(method))(lambda self: None),
        method_decorator(for_views.login_required),
        method_decorator([login_required]),
    ],
)
def test_a_decorator_for_views_on_a_method_of_a_consumer_is_an_error_that_names_it(decorate, messages):
    async def connect(self): ...

    async def circle(self): ...

    circle.__wrapped__ = circle
    others = {"circle": circle, "in_transaction": method_decorator(atomic)(lambda self: None)}
    cls = type("Decorated", (AsyncWebsocketConsumer,), {"connect": decorate(connect), **others})
    (message,) = messages(DenyMiddlewareStack(type("Child", (cls,), {}).as_asgi()))
    assert message.id == "channels_wsdeny.E011"
    assert "Child has a decorator of Django on connect(), which is for views" in message.msg


@pytest.mark.parametrize("routed", [AsyncWebsocketConsumer, AsyncWebsocketConsumer.as_asgi()], ids=["class", "as_asgi"])
def test_a_decorator_for_views_in_a_route_is_an_error_that_names_it(routed, messages):
    (message,) = messages(DenyMiddlewareStack(URLRouter([path("ws/", for_views.login_required(routed))])))
    assert message.id == "channels_wsdeny.E011"
    assert "The route '/ws/' names " in message.msg
    assert "behind a decorator of Django, which is for views" in message.msg


PERMISSIONS = {
    "auth.add_user": None,
    "rules.that_a_backend_knows": None,
    "auth.add_usr": "Did you mean 'auth.add_user'?",
    "chat.veiw_room": "Did you mean 'chat.view_room'?",
    "add_user": 'Write "app_label.codename".',
}


@pytest.mark.parametrize("wrap", [lambda policy: policy, lambda policy: AllowAny() & ~(policy | DenyAll())])
@pytest.mark.parametrize(("name", "hint"), PERMISSIONS.items())
def test_a_permission_that_seems_misspelt_is_reported(name, hint, wrap, messages):
    guarded = require(wrap(HasPermission(name)))(type("Guarded", (AsyncWebsocketConsumer,), {}))
    found = messages(DenyMiddlewareStack(guarded.as_asgi()))
    expected = [] if hint is None else [("channels_wsdeny.W010", hint)]
    assert [(message.id, message.hint) for message in found] == expected


@pytest.mark.parametrize(
    ("backends", "obj", "found"),
    [
        (["django.contrib.auth.backends.ModelBackend"], len, ["W010"]),
        (["django.contrib.auth.backends.ModelBackend"], None, []),
        (["django.contrib.auth.backends.ModelBackend", "testproject.chat.backends.RoomBackend"], len, []),
    ],
)
def test_a_permission_on_an_object_needs_a_backend_that_knows_objects(backends, obj, found, ids):
    guarded = permission_required("chat.view_room", obj=obj)(type("Guarded", (AsyncWebsocketConsumer,), {}))
    assert ids(DenyMiddlewareStack(guarded.as_asgi()), AUTHENTICATION_BACKENDS=backends) == found


@permission_required("auth.add_usr")
class Misspelt(AsyncWebsocketConsumer): ...


class Mixed(LoginRequiredMixin, AsyncWebsocketConsumer): ...


async def enclosing(app, scope, receive, send):
    await app(scope, receive, send)


def of_view(view):
    return {"ASGI_APPLICATION": None, "ROOT_URLCONF": (path("", view),)}


@pytest.mark.parametrize(
    ("site", "code"),
    [
        *(({"application": stack(cls.as_asgi())}, cls) for cls in (Misspelt, Mixed, Evading)),
        ({"application": bare}, AsyncWebsocketConsumer),
        ({"application": stack(Wrapper(bare))}, Wrapper),
        ({"application": stack(partial(enclosing, bare))}, enclosing),
        (of_view(misspelt_view), inspect.unwrap(misspelt_view)),
        (of_view(MisspeltView.as_view()), MisspeltView),
    ],
)
def test_a_message_about_code_begins_with_its_file_and_line(site, code, messages):
    (message,) = messages(**site)
    lines, line = inspect.getsourcelines(code)
    assert code.__name__ in "".join(lines[:2])
    assert str(message).startswith(f"{inspect.getsourcefile(code)}:{line}: (channels_wsdeny.")


def test_code_without_a_file_is_named():
    assert place_of(type("Shell", (), {"__module__": "shell"})) == "shell.Shell"
