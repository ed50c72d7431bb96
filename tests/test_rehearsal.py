"""A rehearsal predicts what a real request gets, and changes nothing."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys

import pytest
from asgiref.sync import async_to_sync
from channels.auth import AuthMiddlewareStack
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.middleware import BaseMiddleware
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.sessions.models import Session
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path, re_path, register_converter
from django.views import View

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.inspection.question import Question
from channels_wsdeny.inspection.rehearsal import rehearse
from channels_wsdeny.installed import AUTHENTICATION, SESSIONS
from channels_wsdeny.policies import DenyAll, IsAuthenticated, IsStaff
from channels_wsdeny.signals import handshake_accepted, handshake_denied
from tests.cases import CASES
from tests.clients import answer_of, http_scope, websocket_scope
from tests.parts import Check
from tests.site import application as site

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.test_rehearsal")]


def ask(application, url="/", **question):
    """The answer of a rehearsal, and its trace."""
    question = Question(url, **question)
    trace, messages = rehearse(application, question.scope(), question.login())
    if messages[0]["type"] == "http.response.start":
        headers = [(name.lower(), value) for name, value in messages[0]["headers"]]
        body = b"".join(message.get("body", b"") for message in messages[1:])
        messages = [{**messages[0], "headers": headers}, {"body": body}]
    return answer_of(messages), trace


def answer(application, url="/", **question):
    return ask(application, url, **question)[0]


@pytest.fixture(autouse=True)
def middleware(settings):
    settings.MIDDLEWARE = [SESSIONS, AUTHENTICATION, MIRROR]


@pytest.mark.urls("tests.site")
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("folder", ["ws", "http", "sync", "async"])
def test_it_predicts_what_every_case_gets(folder, case, users):
    protocol = "websocket" if folder == "ws" else "http"
    found = answer(site, f"/{folder}/{case.name}/", protocol=protocol, user=case.user)
    assert found.status == (case.status or (101 if folder == "ws" else 200))
    assert {name: found.header(name) for name in case.headers} == case.headers


RAN = []


@pytest.fixture(autouse=True)
def nothing_has_run():
    RAN.clear()


class Runs(AsyncWebsocketConsumer):
    """Notes all that runs of it."""

    def __init__(self, *args, **kwargs):
        RAN.append("init")
        super().__init__(*args, **kwargs)

    async def __call__(self, scope, receive, send):
        RAN.append("call")
        await super().__call__(scope, receive, send)

    async def connect(self):
        RAN.append("connect")
        await self.accept()


class RunsSync(WebsocketConsumer):
    def connect(self):
        RAN.append("connect")
        self.accept()


class RunsOverHttp(AsyncHttpConsumer):
    async def handle(self, body):
        RAN.append("handle")
        await self.send_response(200, b"")


async def runs(scope, receive, send):
    RAN.append("app")
    await receive()
    await send({"type": "websocket.accept"})


class Wrapper(BaseMiddleware):
    """A wrapper that nobody knows."""

    async def __call__(self, scope, receive, send):
        return await self.inner({**scope, "wrapped": True}, receive, send)


def subclass(base):
    return type(f"Sub{base.__name__}", (base,), {})


CONSUMERS = {
    "public": public(subclass(Runs)).as_asgi(),
    "decorated-app": public(Runs.as_asgi()),
    "instance": public(Runs()),
    "synchronous": public(subclass(RunsSync)).as_asgi(),
    "function": public(runs),
    "wrapped": Wrapper(public(subclass(Runs)).as_asgi()),
    "wrapped-in-known-ones": AuthMiddlewareStack(public(subclass(Runs)).as_asgi()),
}


@pytest.mark.parametrize("consumer", CONSUMERS.values(), ids=CONSUMERS)
def test_no_consumer_runs(consumer):
    RAN.clear()
    assert answer(DenyMiddlewareStack(consumer)).status == 101
    assert RAN == []


@pytest.mark.parametrize("wrap", [lambda app: app, Wrapper, lambda app: Wrapper(Wrapper(app))])
def test_no_consumer_without_a_decorator_runs(wrap, users):
    stack = DenyMiddlewareStack(wrap(Runs.as_asgi()))
    assert [answer(stack).status, answer(stack, user="alice").status] == [401, 101]
    assert RAN == []


def test_no_consumer_runs_outside_a_stack():
    assert answer(URLRouter([path("", Runs.as_asgi())])).status == 101
    assert RAN == []


def test_no_http_consumer_runs():
    application = DenyMiddlewareStack(ProtocolTypeRouter({"http": RunsOverHttp.as_asgi()}))
    assert answer(application, protocol="http").status == 200
    assert RAN == []


def test_what_cannot_be_seen_into_is_not_run_and_said_to_be(users):
    found, trace = ask(DenyMiddlewareStack(runs), user="alice")
    assert (found.status, RAN) == (101, [])
    (step,) = [step for step in trace.noted if step.kind == "endpoint"]
    assert (step.name, step.answer) == (f"{__name__}.runs", "not run: what is behind it cannot be seen")


@require(IsStaff())
def staff_view(request):
    RAN.append("view")
    return HttpResponse()


async def open_view(request):
    RAN.append("view")
    return HttpResponse()


class ClassView(View):
    def get(self, request):
        RAN.append("view")
        return HttpResponse()


def modify_session(request):
    request.session["changed"] = True


changing = Hooks()
changing.on_request(modify_session)
urlpatterns = [
    path("staff/", staff_view),
    path("open/", open_view),
    path("class/", ClassView.as_view()),
    path("changing/", with_hooks(changing)(open_view)),
]


@pytest.mark.parametrize("url", ["/open/", "/class/"])
def test_no_view_runs(url):
    assert answer(get_asgi_application(), url, protocol="http").status == 200
    assert RAN == []


def test_the_policies_of_views_are_asked(users):
    statuses = [
        answer(get_asgi_application(), "/staff/", protocol="http", user=name).status
        for name in (None, "alice", "staff")
    ]
    assert (statuses, RAN) == ([401, 403, 200], [])


def test_the_default_policy_is_asked_of_views(settings, users):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}
    assert answer(get_asgi_application(), "/open/", protocol="http").status == 401


def test_the_application_itself_stays_as_it_was():
    consumer = public(subclass(Runs)).as_asgi()
    router = URLRouter([path("", consumer)])
    stack = DenyMiddlewareStack(ProtocolTypeRouter({"websocket": router}))
    answer(stack)
    assert (stack.inner.application_mapping["websocket"], router.routes[0].callback) == (router, consumer)
    assert stack.hooks == ()


def test_an_application_that_contains_itself_can_be_rehearsed():
    wrapper = Wrapper(None)
    wrapper.inner = URLRouter([re_path("^a/", wrapper), path("b/", public(Runs.as_asgi()))])
    assert answer(DenyMiddlewareStack(wrapper), "/a/a/b/").status == 101


class CannotBeCopied(Wrapper):
    def __copy__(self):
        raise TypeError("There is one of me.")


def test_a_wrapper_that_cannot_be_copied_is_not_run(users):
    found, trace = ask(DenyMiddlewareStack(CannotBeCopied(Runs.as_asgi())), user="alice")
    assert (found.status, RAN) == (101, [])
    assert trace.noted[-1].name == f"{__name__}.CannotBeCopied"


def test_wrappers_run_as_they_would():
    stack = DenyMiddlewareStack(OriginValidator(public(Runs.as_asgi()), ["elsewhere"]))
    assert answer(stack).status == 403
    assert answer(stack, headers=("Origin: http://elsewhere",)).status == 101


def test_a_wrapper_around_the_stack_tells_the_user(users):
    class Tokens(BaseMiddleware):
        async def __call__(self, scope, receive, send):
            user = await get_user_model().objects.aget(username="staff")
            return await self.inner({**scope, "user": user}, receive, send)

    assert answer(Tokens(DenyMiddlewareStack(require(IsStaff())(Runs.as_asgi())))).status == 101


def test_a_routed_class_gets_the_error_that_it_would_get(users):
    stack = DenyMiddlewareStack(URLRouter([path("", Runs)]))
    assert answer(stack, user="alice").status == 500
    assert RAN == []


def test_an_unrouted_path_without_a_stack_raises_as_it_would():
    with pytest.raises(ValueError, match="No route found"):
        answer(URLRouter([path("a/", Runs.as_asgi())]))


def test_hooks_run():
    hooks = Hooks()
    hooks.on_request(lambda request: RAN.append("request"))
    hooks.on_response(lambda request, response: RAN.append(response.status_code))
    answer(DenyMiddlewareStack(public(Runs.as_asgi()), hooks=hooks))
    assert RAN == ["request", 101]


def test_a_hook_sees_the_class_of_the_consumer():
    hooks = Hooks()
    hooks.on_route(lambda request: RAN.append(request.resolver_match.func.consumer_class))
    answer(DenyMiddlewareStack(CONSUMERS["public"], hooks=hooks))
    assert [CONSUMERS["public"].consumer_class] == RAN


def test_the_site_has_its_deny_with_close(settings):
    settings.CHANNELS_WSDENY = {"DENY_WITH": "close"}
    found = answer(DenyMiddlewareStack(require(DenyAll())(Runs.as_asgi())))
    assert [message["type"] for message in found.messages] == ["websocket.accept", "websocket.close"]


def test_a_policy_that_hangs_is_ended(settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.1}
    hanging = Check(lambda request: __import__("time").sleep(0.5))
    found, trace = ask(DenyMiddlewareStack(require(hanging)(Runs.as_asgi())))
    assert (found.status, trace.noted[0].answer) == (503, None)


def test_a_large_denial_is_told_whole():
    large = Check(lambda request: Deny(403, response=HttpResponse(b"x" * 100_000, status=403)))
    assert len(answer(DenyMiddlewareStack(require(large)(Runs.as_asgi()))).body) == 100_000


def test_it_is_the_request_of_a_user(users):
    found, trace = ask(DenyMiddlewareStack(require(IsAuthenticated())(Runs.as_asgi())), user="alice")
    assert found.status == 101
    assert trace.query_count == 1  # the user; the session is nowhere


def test_it_is_the_request_of_a_session(sessions):
    stack = DenyMiddlewareStack(require(IsAuthenticated())(Runs.as_asgi()))
    assert answer(stack, session=sessions["alice"].session_key).status == 101
    assert answer(stack, session="nosuchsession").status == 401


def test_an_inactive_user_is_nobody(users):
    get_user_model().objects.filter(username="alice").update(is_active=False)
    assert answer(DenyMiddlewareStack(Runs.as_asgi()), user="alice").status == 401


def stored():
    return list(Session.objects.order_by("pk").values_list("session_key", "session_data", "expire_date"))


@pytest.mark.parametrize("engine", ["db", "cached_db", "cache", "file", "signed_cookies"])
def test_a_session_that_is_changed_is_not_saved(engine, settings, tmp_path, users):
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    settings.SESSION_FILE_PATH = str(tmp_path)
    before = stored()
    found = answer(DenyMiddlewareStack(public(Runs.as_asgi()), hooks=changing), user="alice")
    assert found.header("set-cookie").startswith("sessionid=")
    assert (stored(), list(tmp_path.iterdir())) == (before, [])


def test_a_session_that_a_view_would_save_is_not_saved(sessions):
    before = stored()
    key = sessions["alice"].session_key
    answer(get_asgi_application(), "/changing/", protocol="http", session=key)
    answer(get_asgi_application(), "/changing/", protocol="http")
    assert stored() == before


def test_a_session_that_djangos_loader_would_end_is_kept(sessions):
    session = sessions["alice"]
    session[HASH_SESSION_KEY] = "another"
    session.save()
    key = session.session_key
    before = stored()
    around = AuthMiddlewareStack(DenyMiddlewareStack(public(Runs.as_asgi())))
    assert answer(around, session=key).status == 101
    assert answer(get_asgi_application(), "/staff/", protocol="http", session=key).status == 401
    assert stored() == before


def test_a_session_that_a_fallback_key_signed_is_kept(sessions, settings):
    before = stored()
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another"
    key = sessions["staff"].session_key
    assert answer(get_asgi_application(), "/staff/", protocol="http", session=key).status == 200
    assert stored() == before


def test_a_session_that_coroutines_change_is_not_saved(sessions):
    hooks = Hooks()

    @hooks.on_request
    async def change(request):
        await request.session.aset("changed", True)
        await request.session.asave()
        await request.session.acycle_key()
        await request.session.aflush()

    before = stored()
    found = answer(
        DenyMiddlewareStack(public(Runs.as_asgi()), hooks=hooks), session=sessions["bob"].session_key
    )
    assert (found.status, stored()) == (101, before)


def test_others_save_their_sessions_meanwhile(sessions):
    hooks = Hooks()

    @hooks.on_request
    def be_somebody_else(request):
        contextvars.Context().run(sessions["bob"].save)
        store = type(request.session)(sessions["alice"].session_key)
        contextvars.Context().run(store.delete)

    answer(DenyMiddlewareStack(public(Runs.as_asgi()), hooks=hooks))
    assert not Session.objects.filter(pk=sessions["alice"].session_key).exists()


def test_afterwards_sessions_are_saved_again(settings, users):
    from django.contrib.sessions.backends import db

    before = db.SessionStore
    answer(DenyMiddlewareStack(public(Runs.as_asgi())))
    assert db.SessionStore is before


def test_the_session_of_a_rehearsal_is_nobodys_outside_it(users):
    from channels_wsdeny.http.session import open_session
    from channels_wsdeny.inspection.rehearsal import LOGIN_KEY

    assert open_session(LOGIN_KEY).get(SESSION_KEY) is None


def test_a_session_engine_that_cannot_be_imported_is_told(settings):
    settings.SESSION_ENGINE = "nowhere"
    assert answer(DenyMiddlewareStack(require(IsStaff())(Runs.as_asgi())), session="abcdefgh").status == 500


def test_nothing_is_logged(caplog, users):
    caplog.set_level(logging.DEBUG)
    answer(DenyMiddlewareStack(require(Check(lambda request: 1 / 0))(Runs.as_asgi())))
    answer(get_asgi_application(), "/staff/", protocol="http")
    answer(get_asgi_application(), "/nowhere/", protocol="http")
    answer(get_asgi_application(), "/staff/", protocol="http", headers=("Host: elsewhere",))
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []


def test_the_log_of_a_hook_is_its_own_business(caplog):
    hooks = Hooks()
    hooks.on_request(lambda request: logging.getLogger("chat").warning("hello"))
    answer(DenyMiddlewareStack(public(Runs.as_asgi()), hooks=hooks))
    assert [record.message for record in caplog.records] == ["hello"]


def test_afterwards_denials_are_logged_again(caplog):
    stack = DenyMiddlewareStack(require(DenyAll())(Runs.as_asgi()))
    answer(stack)

    async def knock():
        async def receive():
            return {"type": "websocket.connect"}

        async def send(message):
            await asyncio.sleep(0)

        await stack(websocket_scope("/"), receive, send)

    async_to_sync(knock)()
    assert [record.name for record in caplog.records] == ["channels_wsdeny"]


@pytest.mark.parametrize("policy", [DenyAll(), Check(lambda request: True)])
def test_no_signal_is_sent(policy):
    def hear(**kwargs):
        RAN.append("signal")

    for signal in (handshake_accepted, handshake_denied):
        signal.connect(hear)
    try:
        answer(DenyMiddlewareStack(require(policy)(Runs.as_asgi())))
    finally:
        for signal in (handshake_accepted, handshake_denied):
            signal.disconnect(hear)
    assert RAN == []


def test_queries_of_middleware_and_hooks_are_told(users):
    _, trace = ask(get_asgi_application(), "/staff/", protocol="http", user="alice")
    assert [query.sql for step in trace.noted for query in step.queries if "auth_user" in query.sql]


def test_queries_of_coroutines_are_told(users):
    hooks = Hooks()

    @hooks.on_request
    async def look(request):
        await get_user_model().objects.acount()

    _, trace = ask(DenyMiddlewareStack(public(Runs.as_asgi()), hooks=hooks))
    assert trace.query_count == 1


def test_an_exception_is_told_with_its_text():
    _, trace = ask(DenyMiddlewareStack(require(Check(lambda request: 1 / 0))(Runs.as_asgi())))
    assert trace.noted[0].answer.endswith(": division by zero")


class Broken:
    regex = "[a-z]+"

    def to_python(self, value):
        raise RuntimeError("a broken converter")

    def to_url(self, value):
        return value


register_converter(Broken, "broken")


def test_a_failure_of_nothing_that_was_asked_is_told_as_well():
    found, trace = ask(DenyMiddlewareStack(URLRouter([path("<broken:x>/", Runs.as_asgi())])), "/abc/")
    assert found.status == 500
    (failure,) = trace.noted
    assert failure.answer.startswith("raised RuntimeError, ")
    assert failure.answer.endswith(": a broken converter")


def test_an_exit_is_told_as_a_failure():
    stack = DenyMiddlewareStack(require(Check(lambda request: sys.exit("enough")))(Runs.as_asgi()))
    found, trace = ask(stack)
    assert found.status == 500
    assert trace.noted[0].answer.endswith(": enough")


def test_the_route_is_told_of_a_view_that_nobody_guards(settings):
    settings.MIDDLEWARE = []
    _, trace = ask(get_asgi_application(), "/open/", protocol="http")
    assert (trace.route, trace.endpoint) == ("open/", f"{__name__}.open_view")


def test_a_plain_get_of_a_socket_gets_what_it_would_get():
    stack = DenyMiddlewareStack(
        ProtocolTypeRouter(
            {
                "http": get_asgi_application(),
                "websocket": URLRouter([path("ws/", public(Runs.as_asgi()))]),
            }
        )
    )
    assert answer(stack, "/ws/", protocol="http").status == 426


def test_django_behind_a_router_of_channels_is_rehearsed(users):
    stack = DenyMiddlewareStack(
        ProtocolTypeRouter({"http": URLRouter([re_path("", get_asgi_application())])})
    )
    assert answer(stack, "/staff/", protocol="http", user="staff").status == 200
    assert RAN == []


def test_the_scopes_are_as_a_servers():
    for question, scope in [
        (Question("/a/?b=c"), websocket_scope("/a/?b=c")),
        (Question("/a/?b=c", "http"), http_scope("/a/?b=c")),
    ]:
        found = question.scope()
        assert scope.keys() <= found.keys()
        assert {key: found[key] for key in ("type", "path", "query_string", "client")} == {
            key: scope[key] for key in ("type", "path", "query_string", "client")
        }
