"""`explain` predicts what a real request gets, runs no endpoint, and changes nothing."""

import asyncio
import functools
import json
import logging
import re
import sys
import time
from types import SimpleNamespace
from unittest import mock

import pytest
from asgiref.sync import async_to_sync
from channels.auth import AuthMiddlewareStack
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.middleware import BaseMiddleware
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.contrib.auth import HASH_SESSION_KEY
from django.contrib.auth.decorators import login_required
from django.contrib.sessions.models import Session
from django.core.asgi import get_asgi_application
from django.core.management import CommandError
from django.http import HttpResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.utils.deprecation import MiddlewareMixin
from django.views import View

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.authentication import (
    BearerAuthentication,
    SessionAuthentication,
    TicketAuthentication,
    issue_ticket,
)
from channels_wsdeny.conf import AUTHENTICATION_MIDDLEWARE, MIRROR, SESSION_MIDDLEWARE
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.inspection import explain as explain_module
from channels_wsdeny.inspection.explain import explain
from channels_wsdeny.log import dotted_name
from channels_wsdeny.policies import DenyAll, InGroup, IsAuthenticated, IsStaff, MaxConnections, Throttle
from tests.support import case_site
from tests.support.cases import CASES
from tests.support.clients import GUARD, knock
from tests.support.mirror import made
from tests.support.policies import Check, raising
from tests.support.receivers import connected
from tests.support.sockets import consumer, guarded
from tests.support.wrappers import HiddenWrapper, Switch

pytestmark = pytest.mark.django_db
RAN = []


@pytest.fixture(autouse=True)
def own_middleware(settings):
    settings.MIDDLEWARE = [SESSION_MIDDLEWARE, AUTHENTICATION_MIDDLEWARE, MIRROR]
    RAN.clear()


class Explanation:
    """What `explain` prints: the status, headers, body, and the steps before them."""

    def __init__(self, lines):
        self.text = "\n".join(lines)
        head, _, self.steps = self.text.partition("\n\n")
        self.question = head
        self.steps, _, answer = self.steps.partition("\n\nHTTP ")
        answer, _, self.body = answer.partition("\n\n")
        first, *headers = answer.splitlines()
        self.status = int(first.split()[0])
        self.headers = dict(line.split(": ", 1) for line in headers if ": " in line)


@pytest.fixture
def ask(site):
    """A function from an application (None: Django's handler) and options to the explanation."""

    def ask(application, url="/", *, protocol="websocket", user=None, headers=()):
        site(application)
        return Explanation(explain(url, protocol, user, headers).lines())

    return ask


class Runs(AsyncWebsocketConsumer):
    def __init__(self, *args, **kwargs):
        RAN.append("init")
        super().__init__(*args, **kwargs)

    async def __call__(self, scope, receive, send):
        RAN.append("call")
        await super().__call__(scope, receive, send)


class RunsOverHttp(AsyncHttpConsumer):
    async def handle(self, body):
        RAN.append("handle")


async def runs(scope, receive, send):
    RAN.append("app")


class Wrapper(BaseMiddleware):
    async def __call__(self, scope, receive, send):
        RAN.append("wrapper")
        return await self.inner(scope, receive, send)


class RunsRouter(URLRouter):
    async def __call__(self, scope, receive, send):
        RAN.append("router")


open_consumer = public(type("Open", (Runs,), {})).as_asgi()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("folder", ["ws", "http", "sync", "async"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
@pytest.mark.matrix
def test_it_predicts_what_every_case_gets(folder, case, users, ask, settings):
    settings.ROOT_URLCONF = case_site.__name__
    protocol = "websocket" if folder == "ws" else "http"
    found = ask(case_site.application, f"/{folder}/{case.name}/", protocol=protocol, user=case.user)
    assert found.status == (case.status or (101 if folder == "ws" else 200))
    assert {name: found.headers.get(name) for name in case.headers} == case.headers


NOT_RUN = {
    "public": open_consumer,
    "decorated application": public(Runs.as_asgi()),
    "synchronous": public(consumer(lambda self: RAN.append("connect"), WebsocketConsumer)).as_asgi(),
    "function": public(runs),
    "in a wrapper": Wrapper(open_consumer),
    "in known wrappers": AuthMiddlewareStack(open_consumer),
    "no stack": URLRouter([path("", Runs.as_asgi())]),
    "no stack, function": runs,
    "two applications": Switch(Switch(open_consumer, Runs.as_asgi()), Runs.as_asgi()),
    "router of the site": public(RunsRouter([path("", Runs.as_asgi())])),
    "route of a router of the site": URLRouter([path("", RunsRouter([path("", Runs.as_asgi())]))]),
}


@pytest.mark.parametrize("application", NOT_RUN.values(), ids=NOT_RUN)
@pytest.mark.parametrize("wrap", [lambda app: app, DenyMiddlewareStack], ids=["bare", "stack"])
def test_no_endpoint_of_a_socket_and_no_unknown_wrapper_runs(application, wrap, ask, users):
    found = ask(wrap(application), user="alice")
    assert (found.status, RAN) == (101, [])
    assert "not run" in found.steps
    http = DenyMiddlewareStack(ProtocolTypeRouter({"http": RunsOverHttp.as_asgi()}))
    assert (ask(http, protocol="http").status, RAN) == (200, [])


def test_an_endpoint_that_is_an_object_is_named_by_its_class(ask):
    app = HiddenWrapper(open_consumer)
    assert f"endpoint  {dotted_name(app)}\n" in ask(DenyMiddlewareStack(URLRouter([path("", app)]))).text


def test_an_application_that_leads_to_itself_is_explained(ask):
    router = URLRouter([path("a/", Runs.as_asgi())])
    router.routes.append(path("b/", router))
    assert (ask(DenyMiddlewareStack(router), "/a/").status, RAN) == (401, [])


class Marks(MiddlewareMixin):
    def process_request(self, request):
        RAN.append("split")

    def process_response(self, request, response):
        response["X-Marks"] = "1"
        return response


def holds(get_response):
    def middleware(request):
        RAN.append("call")
        return get_response(request)

    return middleware


def test_django_middleware_of_the_handshake_run_and_are_listed(ask, settings):
    paths = [f"{__name__}.{name}" for name in ("Marks", "holds")]
    settings.CHANNELS_WSDENY = {"MIDDLEWARE": paths}
    told = ask(DenyMiddlewareStack(public(Runs.as_asgi())))
    assert (told.status, told.headers["x-marks"], RAN) == (101, "1", ["split", "call"])
    assert [path for path in paths if path not in told.steps] == []


def test_hooks_run_and_see_the_class_of_the_consumer(ask):
    hooks = Hooks()
    hooks.on_route(lambda request: RAN.append(request.resolver_match.func.consumer_class))
    hooks.on_response(lambda request, response: RAN.append(response.status_code))
    ask(DenyMiddlewareStack(open_consumer, hooks=hooks))
    assert [open_consumer.consumer_class, 101] == RAN


# Views


async def open_view(request):
    RAN.append("view")


class ClassView(View):
    async def get(self, request):
        RAN.append("view")


def modify_session(request):
    request.session["changed"] = True


changing = Hooks()
changing.on_request(modify_session)


@changing.on_request
async def modify_session_async(request):
    await request.session.aset("changed", True)
    await request.session.asave()
    await request.session.acycle_key()


VIEWS = [
    path("staff/", require(IsStaff())(lambda request: RAN.append("view"))),
    path("open/", open_view),
    path("class/", ClassView.as_view()),
    path("changing/", with_hooks(changing)(open_view)),
]


@pytest.fixture
def fetch(ask, site):
    """As `ask`, over HTTP, of a site with `VIEWS`."""

    def fetch(url, application=None, **options):
        site(application or get_asgi_application(), *VIEWS)
        return ask(None, url, protocol="http", **options)

    return fetch


@pytest.mark.parametrize("url", ["/open/", "/class/"])
@pytest.mark.parametrize("application", [None, URLRouter([])], ids=["Django", "another server's"])
def test_no_view_runs(url, application, fetch, settings):
    settings.MIDDLEWARE = []
    found = fetch(url, application)
    assert (found.status, RAN) == (200, [])
    assert f"route     {url[1:]}" in found.steps


@pytest.mark.parametrize(
    ("view", "remark"),
    [
        (login_required(open_view), "user_passes_test not run"),
        (
            functools.wraps(require(IsStaff())(open_view))(lambda request: HttpResponse()),
            "IsStaff() asked below, though",
        ),
    ],
)
def test_what_of_a_view_the_answer_may_not_be_true_of_is_told(view, remark, ask, site):
    site(get_asgi_application(), path("a/", view))
    assert remark in " ".join(ask(None, "/a/", protocol="http").steps.split())


def test_the_default_policy_comes_before_guards_that_the_mirror_does_not_see(ask, site, settings):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}
    view = method_decorator(public, name="dispatch")(type("Open", (ClassView,), {}))
    site(get_asgi_application(), path("a/", view.as_view()), path("b/", public(ClassView.as_view())))
    assert [ask(None, url, protocol="http").status for url in ("/a/", "/b/")] == [401, 200]


def test_where_there_is_no_socket_views_are_pointed_to(ask):
    router = DenyMiddlewareStack(URLRouter([path("a/", open_consumer)]))
    assert ["--protocol http" in ask(router, url).text for url in ("/a/", "/b/")] == [False, True]


def test_a_plain_get_of_a_socket_is_answered_as_by_the_site(fetch):
    router = {"http": get_asgi_application(), "websocket": URLRouter([path("ws/", open_consumer)])}
    assert fetch("/ws/", DenyMiddlewareStack(ProtocolTypeRouter(router))).status == 426


# Sessions


def cookie_of(session_key):
    return [f"Cookie: sessionid={session_key}"]


def test_a_user_is_logged_in_without_a_stored_session_and_the_session_of_a_cookie_is_used(ask, sessions):
    stack = DenyMiddlewareStack(require(IsAuthenticated())(Runs.as_asgi()))
    found = ask(stack, user="alice")
    assert (found.status, found.question) == (101, "GET / over websocket, by alice")
    assert "1 query" in found.steps  # The user's; there is no session to load.
    found = ask(stack, headers=cookie_of(sessions["alice"].session_key))
    assert (found.status, found.question) == (101, "GET / over websocket")
    assert sessions["alice"].session_key not in found.text
    assert ask(stack, headers=cookie_of("nosuchsession")).status == 401


def stored():
    return list(Session.objects.order_by("pk").values_list("session_key", "session_data", "expire_date"))


@pytest.mark.parametrize("engine", ["db", "cached_db", "cache", "file", "signed_cookies"])
@pytest.mark.parametrize("user", [None, "alice"])
def test_a_session_that_is_changed_is_not_saved(engine, user, settings, tmp_path, users, ask, fetch):
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    settings.SESSION_FILE_PATH = str(tmp_path)
    before = stored()
    found = [ask(DenyMiddlewareStack(open_consumer, hooks=changing), user=user), fetch("/changing/", user=user)]
    assert ["sessionid=…" in each.headers["set-cookie"] for each in found] == [True, True]
    assert (stored(), list(tmp_path.iterdir())) == (before, [])


@pytest.mark.parametrize(("engine", "status"), [("db", 500), ("cached_db", 500), ("cache", 101)])
@pytest.mark.parametrize("use", [modify_session, lambda request: request.session.cycle_key()], ids=["read", "write"])
def test_a_session_that_a_coroutine_reads_without_await_fails_where_that_needs_the_database(
    engine, status, use, settings, users, headers_of, ask
):
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"

    async def forget_await(request):
        use(request)

    app = DenyMiddlewareStack(open_consumer, hooks=made("request", forget_await))
    assert ask(app, user="alice").status == status
    assert async_to_sync(knock)(app, "/", headers=headers_of("alice")).status == status


def test_a_session_that_a_real_request_would_end_is_kept(sessions, ask, fetch):
    session = sessions["alice"]
    session[HASH_SESSION_KEY] = "another"
    session.save()
    before = stored()
    around = AuthMiddlewareStack(DenyMiddlewareStack(open_consumer))
    assert ask(around, headers=cookie_of(session.session_key)).status == 101
    assert fetch("/staff/", headers=cookie_of(session.session_key)).status == 401
    assert stored() == before


# Log and signals


def test_neither_a_log_record_nor_a_signal_tells_of_it(caplog, users, ask, fetch):
    def hear(**kwargs):
        RAN.append("signal")

    hooks = made("request", lambda request: logging.getLogger("chat").warning("hello"))
    caplog.set_level(logging.INFO)
    with connected(hear):
        ask(DenyMiddlewareStack(require(Check(lambda request: 1 / 0))(Runs.as_asgi())))
        ask(DenyMiddlewareStack(open_consumer, hooks=hooks))
        assert ask(DenyMiddlewareStack(open_consumer), headers=["Origin: null", *cookie_of("a")]).status == 403
        for url, headers in [("/staff/", ()), ("/nowhere/", ()), ("/staff/", ["Host: elsewhere"])]:
            fetch(url, headers=headers)
        assert ([record.message for record in caplog.records], RAN) == (["hello"], [])
        caplog.clear()
        async_to_sync(knock)(DenyMiddlewareStack(require(DenyAll())(Runs.as_asgi())), "/")
        assert [record.name for record in caplog.records] == ["channels_wsdeny"]


# The explanation


def test_a_denial_has_its_steps_and_its_answer(ask, users, settings):
    stack = DenyMiddlewareStack(URLRouter([path("a/", require(IsStaff())(Runs.as_asgi()))]))
    found = ask(stack, "/a/", user="alice")
    assert found.steps.splitlines()[2:4] == ["route     a/", f"endpoint  {__name__}.Runs"]
    assert re.search(r"\n +[\d.]+ ms  policy  IsStaff\(\)  denied: 403 permission_denied\n", found.steps)
    assert 'SELECT … FROM "auth_user"' in found.steps
    assert json.loads(found.body)["code"] == "permission_denied"
    settings.CHANNELS_WSDENY = {"DENY_WITH": "close"}
    found = ask(stack, "/a/", user="alice")
    assert (found.status, "closed with 4403 'permission_denied'" in found.text) == (101, True)


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        (lambda request: 1 / 0, r"raised ZeroDivisionError, .*: division by zero"),
        (lambda request: sys.exit("enough"), r"raised SystemExit, .*: enough"),
        (lambda request: time.sleep(0.5), "no answer in time"),
    ],
)
def test_what_fails_is_told_with_its_text(function, answer, ask, settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.2 if answer == "no answer in time" else GUARD}
    found = ask(guarded(Check(function)))
    assert found.status in {500, 503}
    assert re.search(rf"Check\(\) +{answer}", found.steps)


@pytest.mark.parametrize("swallows", [1, 1000])
def test_a_hook_that_does_not_let_itself_be_cancelled_is_given_up(swallows, site, settings, monkeypatch):
    async def hang(request):
        for _ in range(swallows):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
        await asyncio.sleep(3600)

    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.05}
    monkeypatch.setattr(explain_module, "_PATIENCE", 0.2)
    monkeypatch.setattr(explain_module, "_PARTING", 0.1)
    site(DenyMiddlewareStack(Wrapper(open_consumer), hooks=made("request", hang)))
    text = "\n".join(explain("/", "websocket", None, ()).lines())
    assert f"Given up after 0.25 seconds. What had not ended: hook on_request {__name__}." in text
    assert RAN == []


def test_a_failure_of_nothing_that_was_asked_is_told_as_well(ask):
    route = path("a/", Runs.as_asgi())
    route.pattern.match = raising(lambda: RuntimeError("a broken pattern"))
    found = ask(DenyMiddlewareStack(URLRouter([route])))
    assert found.status == 500
    assert re.search(r"raised RuntimeError, .*: a broken pattern", found.steps)


def test_authentication_classes_are_steps_and_a_ticket_is_not_used_up(ask, users):
    ticket = issue_ticket(SimpleNamespace(user=users["alice"]), "/")
    classes = [SessionAuthentication(), TicketAuthentication()]
    app = DenyMiddlewareStack(AsyncWebsocketConsumer.as_asgi(), authentication=classes)
    for _ in range(2):
        explanation = ask(app, f"/?ticket={ticket}")
        assert explanation.status == 101
        assert re.search(r"authentication\s+SessionAuthentication\s+went on\n", explanation.steps)
        assert re.search(r"authentication\s+TicketAuthentication\s+allowed\n", explanation.steps)
        assert ticket not in explanation.text
    assert ask(app, "/?ticket=x").status == 401
    assert async_to_sync(knock)(app, f"/?ticket={ticket}").status == 101


def test_what_the_life_of_a_socket_depends_on_is_told(ask, users):
    plain = AsyncWebsocketConsumer.as_asgi()
    throttled = DenyMiddlewareStack(require(Throttle("1/s"))(require(IsStaff())(plain)))
    told = "\nIt is open as long as these last: "
    assert ask(throttled, user="staff").text.endswith(f"{told}the session, IsStaff().")
    token = DenyMiddlewareStack(plain, authentication=[BearerAuthentication(lambda token: users["alice"])])
    found = ask(token, headers=["Authorization: Bearer x"]).text
    assert found.endswith(f"{told}the credentials of BearerAuthentication, IsAuthenticated().")
    for app in (public(plain), plain):
        assert "as long as" not in ask(DenyMiddlewareStack(app)).text


def test_an_around_hook_a_throttle_or_a_dry_policy_hides_no_policy_that_a_socket_depends_on(ask, users):
    async def through(request, call_next):
        return await call_next(request)

    asked = require(Throttle("1/s") & IsAuthenticated() & MaxConnections(2) & (IsStaff() | Throttle("9/s")))
    policies = with_hooks(made("around", through))(asked(require(~InGroup("a"))(AsyncWebsocketConsumer.as_asgi())))
    app = DenyMiddlewareStack(require(InGroup("b"), enforce=False)(policies))
    told = ask(app, user="staff")
    assert told.text.endswith("\nIt is open as long as these last: the session, IsAuthenticated(), ~InGroup('a').")


def test_a_consumer_that_nothing_guards_is_told_to_be_open(ask, users):
    lines = ask(URLRouter([path("", AsyncWebsocketConsumer.as_asgi())]), user="alice").text.splitlines()
    assert "No policy was asked: it is open to everybody, unless what was not run asks one." in lines
    assert [line for line in lines if "as long as" in line or "unnamed" in line] == []
    assert "No policy" not in ask(DenyMiddlewareStack(public(AsyncWebsocketConsumer.as_asgi()))).text


def test_nothing_secret_is_told_of_the_request(ask):
    hooks = made("response", lambda request, response: response.set_cookie("token", "secret", httponly=True))
    stack = DenyMiddlewareStack(require(DenyAll())(Runs.as_asgi()), hooks=hooks)
    found = ask(stack, "/?token=secret", headers=["Authorization: secret", *cookie_of("secretkey")])
    assert "secret" not in found.text.replace(__name__, "").replace("test_nothing_secret_is_told", "")
    assert found.headers["set-cookie"] == "token=…; HttpOnly; Path=/"


def test_control_characters_and_bytes_that_are_no_text_are_escaped(ask):
    def reflect(request):
        return HttpResponse(request.path, status=403, headers={"X-Path": "\x1b[2J"})

    found = ask(guarded(Check(reflect)), "/%1b%0a/")
    assert "\x1b" not in found.text
    assert found.question.startswith(r"GET /\x1b\n/ over websocket")
    assert found.headers["x-path"] == r"\x1b[2J"
    for body, shown in (("ä".encode(), "ä"), (b"\xff", r"\xff")):
        assert ask(guarded(Check(lambda request, body=body: HttpResponse(body, status=403)))).body == shown


# What is asked


@pytest.mark.parametrize(
    ("given", "sent", "assumed"),
    [
        ([], {"Host": "localhost", "Origin": "http://localhost"}, ["host", "origin"]),
        (["origin: http://elsewhere"], {"Host": "localhost", "Origin": "http://elsewhere"}, ["host"]),
        (["Origin:", "Host: x.org"], {"Host": "x.org", "Origin": None}, []),
        (["X-Token: a:b", "x-token: b"], {"X-Token": "a:b,b"}, ["host", "origin"]),
        (["X-Umlaut:ä"], {"X-Umlaut": "ä".encode().decode("latin1")}, ["host", "origin"]),
        (["Cookie: a=b", "cookie: c=d"], {"Cookie": "a=b; c=d"}, ["host", "origin"]),
    ],
)
def test_headers_are_sent_as_they_are_given_and_those_that_are_assumed_are_shown(given, sent, assumed, site, settings):
    settings.ALLOWED_HOSTS = ["*"]
    site(guarded(Check(lambda request: Deny(418, repr({name: request.headers.get(name) for name in sent})))))
    explanation = explain("/", "websocket", None, given)
    assert json.loads(explanation.body)["detail"] == repr(sent)
    assert list(explanation.as_dict()["assumed_headers"]) == assumed
    shown = [line.split() for line in explanation.lines() if line.endswith(" (assumed)")]
    assert shown == [[name, sent.get(name.title(), mock.ANY), "(assumed)"] for name in assumed]


def test_the_host_and_the_scheme_are_those_of_the_site(ask, settings):
    settings.ALLOWED_HOSTS, settings.SECURE_SSL_REDIRECT = ["*.example.org", ".example.com"], True
    found = ask(guarded(Check(lambda request: Deny(418, request.build_absolute_uri("/?")))))
    assert json.loads(found.body)["detail"] == "https://example.com/?"


def test_as_json_it_is_the_same(ask, site, users):
    text = ask(DenyMiddlewareStack(Runs.as_asgi()), "/?token=secret")
    found = json.loads(json.dumps(explain("/?token=secret", "websocket", None, ()).as_dict()))
    assert (found["status"], found["path"], found["close"], found["given_up"]) == (401, "/", None, None)
    assert dict(found["headers"]) == text.headers
    assert found["body"] == text.body
    assert [step["answer"] for step in found["steps"]] == ["denied: 401 not_authenticated"]
    assert "secret" not in json.dumps(found)


@pytest.mark.parametrize(
    ("url", "options", "text"),
    [
        ("ws/monitor/", {}, "must begin with a slash"),
        ("", {}, "must begin with a slash"),
        ("http://127.0.0.1:8000/ws/a/?b=1", {}, "Try '/ws/a/?b=1'."),
        ("/", {"user": "nobody"}, "There is no user 'nobody'."),
        *[
            ("/", {"headers": [line]}, "A header is 'Name: value'")
            for line in ["x", ": x", "x y: z", "ä: z", "x: a\r\ny: b", "x: a\0"]
        ],
    ],
)
def test_a_request_that_cannot_be_sent_is_an_error(url, options, text, users, ask):
    with pytest.raises(CommandError, match=re.escape(text)):
        ask(DenyMiddlewareStack(open_consumer), url, **options)


@pytest.mark.parametrize("policy", [IsStaff(), Check(lambda request: 1 / 0)], ids=repr)
def test_a_policy_that_is_only_reported_is_asked_after_those_that_are_enforced_and_not_logged(
    policy, ask, users, caplog
):
    guarded = require(policy, enforce=False)(require(IsAuthenticated())(type("Mine", (Runs,), {})))
    found = ask(DenyMiddlewareStack(guarded.as_asgi()), user="alice")
    answer = "denied: 403" if policy.__class__ is IsStaff else "raised ZeroDivisionError"
    expected = rf"policy +IsAuthenticated\(\) +allowed\n.* report +\w+\(\) +{answer}"
    assert re.search(expected, re.sub(r"\n +[\d.]+ ms  SELECT.*", "", found.steps))
    assert (found.status, caplog.records, RAN) == (101, [], [])
    found = ask(DenyMiddlewareStack(guarded.as_asgi()))
    assert (found.status, "report" in found.steps) == (401, False)


VALIDATED = {
    "alone": lambda app: AllowedHostsOriginValidator(DenyMiddlewareStack(app)),
    "in a router": lambda app: ProtocolTypeRouter({"websocket": AllowedHostsOriginValidator(DenyMiddlewareStack(app))}),
    "around others": lambda app: AllowedHostsOriginValidator(AuthMiddlewareStack(DenyMiddlewareStack(app))),
    "without a stack": AllowedHostsOriginValidator,
}


@pytest.mark.parametrize("wrap", VALIDATED.values(), ids=VALIDATED)
def test_a_denial_by_an_origin_validator_around_the_stack_is_told_with_code_reason_and_remedy(wrap, ask, settings):
    settings.ALLOWED_HOSTS = ["example.com"]
    site = wrap(public(consumer()).as_asgi())
    found = ask(site, headers=["Origin: http://evil.example"])
    assert (found.status, found.body) == (403, "")
    for expected in ("403 origin_not_allowed", "'http://evil.example'", "['example.com']", "ALLOWED_HOSTS"):
        assert expected in found.steps
    assert "origin_not_allowed" not in ask(site, headers=["Origin: http://example.com"]).text
    inside = DenyMiddlewareStack(AllowedHostsOriginValidator(public(consumer()).as_asgi()))
    assert "bare 403" not in ask(inside, headers=["Origin: http://evil.example"]).text
