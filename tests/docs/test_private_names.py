"""The private and undocumented names that docs/architecture.md lists are what the package takes them for.

The tests of those names ask the installed Django, asgiref, Channels and Daphne alone, so that a release which changes
one fails here first, by its name. What else the page names exists, see the end.
"""

import asyncio
import inspect
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from http import HTTPStatus
from importlib import import_module
from io import BytesIO
from types import FunctionType, SimpleNamespace

import pytest
from asgiref.sync import SyncToAsync, iscoroutinefunction, markcoroutinefunction
from asgiref.testing import ApplicationCommunicator
from channels.auth import AuthMiddleware
from channels.consumer import AsyncConsumer
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.middleware import BaseMiddleware
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from channels.sessions import CookieMiddleware, SessionMiddleware
from django.contrib import auth
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions import middleware as sessions_middleware
from django.contrib.sessions.backends import cache as cache_sessions
from django.contrib.sessions.backends import cached_db
from django.contrib.sessions.backends import db as db_sessions
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIHandler, ASGIRequest, get_script_prefix
from django.core.handlers.exception import get_exception_response
from django.db import connection, connections, transaction
from django.db.backends.dummy.base import DatabaseWrapper as DummyWrapper
from django.dispatch import Signal
from django.http import Http404, HttpHeaders, HttpRequest, HttpResponse, RawPostDataException, StreamingHttpResponse
from django.http.request import split_domain_port, validate_host
from django.test import RequestFactory, override_settings
from django.urls import URLResolver, get_callable, get_resolver, include, path
from django.urls.resolvers import RoutePattern
from django.utils import translation
from django.utils.deprecation import MiddlewareMixin
from django.utils.functional import LazyObject, SimpleLazyObject, empty
from django.utils.log import log_response

from tests.docs.pages import DOCS
from tests.support.processes import ROOT

SCOPE = {"type": "http", "method": "GET", "path": "/a/b/", "query_string": b"", "headers": [(b"x", b"1")]}


async def app(scope, receive, send):
    """An ASGI application."""


def view(request):
    return HttpResponse()


# Django: objects


def test_a_lazy_object_keeps_what_it_stands_for():
    lazy = SimpleLazyObject(lambda: "loaded")
    assert isinstance(lazy, LazyObject)
    assert lazy._wrapped is empty
    assert str(lazy) == "loaded"
    assert lazy._wrapped == "loaded"
    lazy._wrapped = "another"  # as subclasses of Channels' AuthMiddleware do
    assert str(lazy) == "another"


def test_a_signal_lists_its_receivers_the_synchronous_ones_first():
    def blocking(**kwargs): ...

    async def asynchronous(**kwargs): ...

    signal = Signal()
    assert not signal.receivers
    for receiver in (asynchronous, blocking):
        signal.connect(receiver)
    assert signal.receivers
    assert signal._live_receivers(None) == ([blocking], [asynchronous])


def test_a_response_that_was_logged_is_not_logged_again(caplog):
    response = HttpResponse(status=500)
    response._has_been_logged = True
    log_response("Failed", response=response, request=RequestFactory().get("/"))
    assert caplog.records == []
    log_response("Failed", response=HttpResponse(status=500), request=RequestFactory().get("/"))
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_response_lists_what_it_closes():
    closed = []

    class Stream(list):
        def close(self):
            closed.append(self)

    response = StreamingHttpResponse(Stream([b"a"]))
    (close,) = response._resource_closers
    close()
    assert closed == [[b"a"]]


# Django: requests


def test_a_cache_is_made_by_the_handler_of_all_from_its_settings():
    one, another = caches.create_connection("default"), caches.create_connection("default")
    assert isinstance(one, BaseCache)
    assert one is not another
    before = caches.settings
    with override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}):
        assert caches.settings is not before
        assert isinstance(caches.create_connection("default"), DummyCache)


def test_an_asgi_request_is_made_of_a_scope_and_a_stream():
    request = ASGIRequest({**SCOPE, "root_path": "/a"}, BytesIO(b"body"))
    assert (request.path, request.path_info, request.headers["X"]) == ("/a/b/", "/b/", "1")
    assert request.resolver_match is None
    assert (request.body, request._get_scheme()) == (b"body", "http")
    assert get_script_prefix({"root_path": "/a"}) == "/a"


def test_a_request_keeps_its_body_and_its_form_in_four_attributes():
    request = RequestFactory().post("/", b"a=1", content_type="application/x-www-form-urlencoded")
    assert vars(request)["_read_started"] is False
    assert "_body" not in vars(request)
    assert request.body == b"a=1"
    assert vars(request)["_body"] == b"a=1"
    assert "_post" not in vars(request)
    assert request.POST["a"] == "1"
    assert {"_post", "_files"} <= vars(request).keys()
    # Another body, as of a decoding route.
    for parsed in ("_post", "_files"):
        del vars(request)[parsed]
    vars(request).update(_body=b"a=2", _stream=BytesIO(b"a=2"))
    assert request.POST["a"] == "2"
    # A stream that was read may be rewound.
    request = HttpRequest()
    request._stream, request._read_started = BytesIO(b"abc"), True
    with pytest.raises(RawPostDataException):
        _ = request.body
    request._read_started = False
    assert request.body == b"abc"


def test_headers_get_the_names_that_the_client_takes():
    assert HttpHeaders.to_asgi_names({"X-Name": "1"}) == {"X_NAME": "1"}


# Django: sessions and users


def test_a_session_loads_by_its_key_and_cleans_up_by_two_methods(db):
    session = db_sessions.SessionStore("a" * 32)
    assert session._session_key == "a" * 32
    session._session_key = None
    assert session.session_key is None
    assert (session.modified, session.accessed) == (False, False)
    assert {"create", "delete", "load", "aload"} <= set(dir(session))
    assert db_sessions.SessionStore().key_salt.endswith(db_sessions.SessionStore.__qualname__)


@pytest.mark.parametrize("engine", [db_sessions, cached_db])
async def test_the_database_engines_look_for_a_session_by_one_method(engine, monkeypatch):
    async def nothing(self):
        return None

    monkeypatch.setattr(engine.SessionStore, "_get_session_from_db", lambda self: None)
    monkeypatch.setattr(engine.SessionStore, "_aget_session_from_db", nothing)
    assert (engine.SessionStore("a" * 32).load(), await engine.SessionStore("a" * 32).aload()) == ({}, {})


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["db", "cached_db", "cache", "file", "signed_cookies"])
def test_an_engine_ends_sessions_by_delete_and_renews_them_by_cycle_key(name, settings, tmp_path):
    settings.SESSION_FILE_PATH, called = str(tmp_path), []

    class Store(import_module(f"django.contrib.sessions.backends.{name}").SessionStore):
        def delete(self, session_key=None):
            called.append("delete")
            super().delete(session_key)

        def cycle_key(self):
            called.append("cycle_key")
            super().cycle_key()

    store = Store()
    store["_auth_user_id"] = "1"
    store.save()
    assert store._session_cache["_auth_user_id"] == "1"
    update_session_auth_hash(SimpleNamespace(session=store, user=None), User(pk=1))
    assert called[0] == "cycle_key"
    store.flush()
    assert called[-1] == "delete"
    assert iscoroutinefunction(Store.adelete)
    assert iscoroutinefunction(Store.acycle_key)


def test_the_cache_engine_swallows_what_its_cache_raises():
    class Broken:
        def get(self, *args, **kwargs):
            raise ConnectionError

    session = cache_sessions.SessionStore("a" * 32)
    session._cache = Broken()
    assert (session.load(), session.session_key) == ({}, None)


@pytest.mark.parametrize("name", ["cache", "cached_db"])
def test_an_engine_with_a_cache_keeps_it_in_one_attribute(name):
    session = import_module(f"django.contrib.sessions.backends.{name}").SessionStore("a" * 32)
    assert vars(session)["_cache"] is caches["default"]


def test_a_host_is_split_and_validated_by_two_functions(settings):
    settings.ALLOWED_HOSTS = [".example.com"]
    for host, is_allowed in {"a.example.com:8000": True, "evil.test": False, "a.example.com/": False}.items():
        domain, _ = split_domain_port(host)
        assert bool(domain and validate_host(domain, settings.ALLOWED_HOSTS)) is is_allowed
        request = RequestFactory().get("/", headers={"host": host})
        if is_allowed:
            assert request.get_host() == host
        else:
            with pytest.raises(DisallowedHost):
                request.get_host()


def test_djangos_get_user_needs_of_a_session_what_the_read_only_one_has():
    class Session(dict):
        def cycle_key(self): ...

        def flush(self): ...

    request = HttpRequest()
    request.session = Session()
    assert isinstance(auth.get_user(request), AnonymousUser)
    assert auth.SESSION_KEY == "_auth_user_id"


def test_the_session_middleware_saves_a_session_and_sets_its_cookie(db):
    request, response = RequestFactory().get("/"), HttpResponse()
    request.session = db_sessions.SessionStore()
    request.session["a"] = 1
    sessions_middleware.SessionMiddleware(lambda request: response).process_response(request, response)
    assert response.cookies["sessionid"].value == request.session.session_key


def test_a_view_that_needs_no_login_says_so_by_one_attribute():
    assert login_not_required(view).login_required is False
    middleware = LoginRequiredMiddleware(view)
    response = middleware.handle_no_permission(RequestFactory().get("/a/"), view)
    assert response.status_code == HTTPStatus.FOUND
    assert response.url.endswith("next=/a/")


# Django: databases


def test_a_connection_may_be_used_by_another_thread_and_lists_its_wrappers(db):
    connection.inc_thread_sharing()
    connection.dec_thread_sharing()
    assert isinstance(connection.execute_wrappers, list)
    for name in ("close_if_unusable_or_obsolete", "is_in_memory_db", "set_rollback"):  # The second is SQLite's alone.
        assert callable(getattr(connection, name))
    assert connections.all(initialized_only=True) == [connections["default"]]
    assert connection.in_atomic_block
    assert connection.close_at is None or connection.close_at > 0
    assert connection.settings_dict["ATOMIC_REQUESTS"] is False
    assert connections["default"].alias == "default"


def test_a_connection_has_no_attributes_but_those_of_django(db):
    connection.ensure_connection()
    wrapper = connections["default"]
    known = {*vars(DummyWrapper({})), *dir(type(wrapper)), "init_commands", "isolation_level", "transaction_mode"}
    assert vars(wrapper).keys() - known - {"_test_serialized_contents"} == set()  # of Django's tests


def test_a_middleware_mixin_calls_two_steps_around_the_response():
    ran = []

    class Steps(MiddlewareMixin):
        def process_request(self, request):
            ran.append("request")

        def process_response(self, request, response):
            ran.append("response")
            return response

    assert Steps(lambda request: ran.append("view") or "answer")(None) == "answer"
    assert ran == ["request", "view", "response"]
    assert inspect.iscoroutinefunction(MiddlewareMixin.__acall__)


def test_a_view_names_the_databases_that_it_wants_no_transaction_of():
    assert transaction.non_atomic_requests(using="other")(lambda request: None)._non_atomic_requests == {"other"}


# Django: URLs


def test_a_resolver_finds_error_views_and_its_patterns():
    resolver = get_resolver()
    assert isinstance(resolver, URLResolver)
    assert callable(resolver.resolve_error_handler(404))
    assert get_callable("django.views.defaults.page_not_found") is not None
    response = get_exception_response(RequestFactory().get("/"), resolver, 404, Http404("no"))
    assert response.status_code == HTTPStatus.NOT_FOUND
    included = path("a/<int:pk>/", include(([path("b/", view, name="b")], "app"), namespace="space"), {"x": 1})
    assert (included.namespace, included.app_name, included.default_kwargs) == ("space", "app", {"x": 1})
    assert included.pattern.converters.keys() == {"pk"}
    assert isinstance(included.pattern, RoutePattern)
    assert included.pattern.match("a/1/b/") == ("b/", (), {"pk": 1})
    (inner,) = included.url_patterns
    assert {"urlconf_module", "url_patterns"} <= vars(included).keys()  # cached
    assert (inner.name, inner.callback, inner.default_args, str(inner.pattern)) == ("b", view, {}, "b/")


# Django: translations


def test_the_active_language_is_one_contextvar():
    added = Context()
    added.run(translation.activate, "de")
    assert len(added) == 1


# asgiref


def test_synchronous_code_of_a_process_runs_in_one_executor():
    assert isinstance(SyncToAsync.single_thread_executor, ThreadPoolExecutor)


def test_a_function_is_marked_as_a_coroutine_function_by_its_attributes():
    marked = markcoroutinefunction(lambda: None)
    assert iscoroutinefunction(marked)
    assert vars(marked)
    vars(marked).clear()
    assert not iscoroutinefunction(marked)


async def test_a_communicator_has_two_queues_and_a_future():
    communicator = ApplicationCommunicator(app, SCOPE)
    assert isinstance(communicator.input_queue, asyncio.Queue)
    assert isinstance(communicator.output_queue, asyncio.Queue)
    await communicator.wait()
    assert communicator.future.done()


# Channels


def test_as_asgi_returns_a_function_whose_code_is_that_of_all_consumers():
    returned = AsyncWebsocketConsumer.as_asgi()
    assert isinstance(returned, FunctionType)
    assert returned.__code__ is AsyncConsumer.as_asgi().__code__
    assert returned.consumer_class is AsyncWebsocketConsumer
    assert AsyncWebsocketConsumer in [cell.cell_contents for cell in returned.__closure__]


def test_consumers_say_by_their_methods_what_they_serve():
    assert all(hasattr(base, "websocket_connect") for base in (AsyncWebsocketConsumer, WebsocketConsumer))
    assert hasattr(AsyncHttpConsumer, "http_request")


async def test_routers_keep_their_routes_and_what_is_left_of_a_path():
    seen = {}

    async def endpoint(scope, receive, send):
        seen.update(scope)

    router = URLRouter([path("a/", URLRouter([path("<slug:b>/", endpoint)]))])
    assert router._path_routing is True
    assert [str(route.pattern) for route in router.routes] == ["a/"]
    outer = ProtocolTypeRouter({"websocket": router})
    assert outer.application_mapping == {"websocket": router}
    await outer({"type": "websocket", "path": "/a/b/"}, None, None)
    assert (seen["path_remaining"], seen["url_route"]) == ("", {"args": (), "kwargs": {"b": "b"}})


async def test_what_no_router_knows_is_a_value_error_of_channels_own():
    with pytest.raises(ValueError, match="No route") as raised:
        await URLRouter([])({"type": "websocket", "path": "/"}, None, None)
    assert raised.traceback[-1].frame.f_globals["__name__"] == "channels.routing"
    validator = OriginValidator(app, ["*"])
    with pytest.raises(ValueError, match="Invalid IPv6 URL") as raised:
        await validator({"type": "websocket", "headers": [(b"origin", b"http://[bad")]}, None, None)
    assert "channels.security.websocket" in [entry.frame.f_globals["__name__"] for entry in raised.traceback]


def test_wrappers_keep_what_they_wrap():
    assert OriginValidator(app, []).application is app
    for method in (OriginValidator.valid_origin, OriginValidator.validate_origin):
        assert list(inspect.signature(method).parameters) == ["self", "parsed_origin"]
    for wrapper in (BaseMiddleware, CookieMiddleware, SessionMiddleware, AuthMiddleware):
        assert wrapper(app).inner is app


# Daphne, Twisted and Autobahn


def test_daphnes_classes_have_what_the_subclasses_override_and_read():
    pytest.importorskip("daphne")
    from autobahn.websocket import protocol as autobahn
    from autobahn.websocket.types import ConnectionDeny
    from daphne.cli import CommandLineInterface
    from daphne.server import Server
    from daphne.testing import DaphneProcess
    from daphne.ws_protocol import WebSocketProtocol

    for cls, names in [
        (Server, "create_application handle_reply protocol_disconnected kill_all_applications log_action run"),
        (WebSocketProtocol, "handle_reply handle_exception applicationCreateFailed serverAccept check_timeouts"),
        (WebSocketProtocol, "duration onConnect onClose"),
        (autobahn.WebSocketServerProtocol, "processHandshake sendHttpErrorResponse onOpenHandshakeTimeout"),
        (autobahn.WebSocketServerProtocol, "sendCloseFrame sendData STATE_CONNECTING STATE_OPEN"),
        (autobahn.WebSocketServerProtocol, "CLOSE_STATUS_CODE_ABNORMAL_CLOSE"),
        (CommandLineInterface, "server_class description entrypoint"),
        (DaphneProcess, "run"),
    ]:
        assert [name for name in names.split() if not hasattr(cls, name)] == [], cls
    assert {"websocket_connect_timeout", "websocket_handshake_timeout"} <= inspect.signature(Server).parameters.keys()
    assert ConnectionDeny(401, "why").code == HTTPStatus.UNAUTHORIZED
    for cls, names in [
        (Server, "ws_factory connections abort_start"),
        (WebSocketProtocol, "handshake_deferred application_queue muted client_addr client_scheme"),
        (DaphneProcess, "server errors"),
    ]:
        assert [name for name in names.split() if f"self.{name}" not in inspect.getsource(cls)] == [], cls
    for cls, text in [
        (Server, "self.ws_factory = "),
        (Server, '"application_instance"'),
        (DaphneProcess, "self.server = "),
    ]:
        assert text in inspect.getsource(cls)


# Python, and servers


async def test_a_thread_may_forget_its_running_loop_for_a_moment():
    loop = asyncio.get_running_loop()
    asyncio._set_running_loop(None)
    try:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
    finally:
        asyncio._set_running_loop(loop)


def test_the_handlers_are_called_by_the_classes_that_the_resolver_compares():
    assert all("__call__" in vars(cls) for cls in (ASGIHandler, URLRouter, ProtocolTypeRouter))


def test_ninja_marks_the_function_of_an_operation():
    ninja = pytest.importorskip("ninja")

    def operation(request): ...

    assert "_ninja_operation" in vars(ninja.NinjaAPI().get("/")(operation))


def test_uvicorn_says_when_it_has_started():
    uvicorn = pytest.importorskip("uvicorn")
    server = uvicorn.Server(uvicorn.Config(app))
    assert (server.started, server.should_exit) == (False, False)


# All of docs/architecture.md: what it names exists, modules, what is in them, and tests.


PAGE = (DOCS / "architecture.md").read_text()
PACKAGE = ROOT / "channels_wsdeny"
WALKS, NAMES = PAGE.split("## Private and undocumented names")


def test_every_module_and_folder_of_the_page_exists():
    named = set(re.findall(r"`((?:\w+/)*\w+\.py|(?:\w+/)+)`", PAGE))
    assert len(named) > 30
    assert [name for name in named if not ((ROOT / name).exists() or (PACKAGE / name).exists())] == []


def test_what_the_page_finds_in_a_module_is_there():
    found = re.findall(r"`((?:\w+/)*\w+)\.py`: ((?:`\w+`(?:, )?)+)", WALKS)
    assert len(found) > 10
    for module, names in found:
        name = module.removeprefix("channels_wsdeny/")
        loaded = import_module(f"channels_wsdeny.{name.replace('/', '.')}")
        assert [name for name in re.findall(r"\w+", names) if not hasattr(loaded, name)] == [], module


def test_the_methods_and_classes_of_the_walks_are_there():
    code = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    handler = re.findall(r"`WebSocketHandler\.(\w+)`", WALKS)
    assert len(handler) == 2
    for name in handler:
        assert f"    async def {name}(" in (PACKAGE / "handlers/websocket.py").read_text(), name
    for name in ("HandshakeRequest", "ViewHandler", "MirrorMiddleware", "DenyMiddlewareStack"):
        assert name in WALKS
        assert f"class {name}" in code, name


def test_every_private_name_is_used_where_the_table_says_and_has_a_test():
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    rows = [line.split(" | ") for line in NAMES.splitlines() if " | `" in line]
    assert len(rows) > 25
    for names, files, _, noticing in rows:
        where = [PACKAGE / name for name in re.findall(r"`([\w/.]+)`", files)]
        code = "\n".join(
            each.read_text() for path in where for each in (path.rglob("*.py") if path.is_dir() else [path])
        )
        private = re.findall(r"\b_\w+", names)
        assert [name for name in private if name not in code] == [], names
        wanted = re.findall(r"`(test_\w+)`", noticing)
        assert wanted, names
        assert [test for test in wanted if f"def {test}(" not in tests] == [], names


def test_the_picture_names_the_rooms_of_the_package():
    picture = (DOCS / "architecture.svg").read_text()
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert [room for room in rooms if f">{room}/" not in picture] == []
