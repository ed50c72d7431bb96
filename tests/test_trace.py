"""The trace: what a request went through, in the record of its denial where DEBUG is on."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from asgiref.sync import async_to_sync
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib.auth import get_user_model
from django.core.asgi import get_asgi_application
from django.db import connection
from django.http import Http404, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path, re_path

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.conf import MIRROR
from channels_wsdeny.decorators import require, with_hooks
from channels_wsdeny.http.context import Passage
from channels_wsdeny.http.request import HandshakeRequest
from channels_wsdeny.http.trace import Trace, told
from channels_wsdeny.names import name_of
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated, IsStaff, IsSuperuser, Policy
from channels_wsdeny.policies.base import ask
from tests.clients import fetch, knock, websocket_scope
from tests.parts import AsyncCheck, Check, accept

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.test_trace")]

CURRENT = {}


class Given(Policy):
    """What a test wants every door to ask."""

    def decide(self, request):
        return ask(CURRENT["policy"], request)


hooks = Hooks()


@hooks.on_request
def arrive(request):
    return None


@hooks.on_route
async def look(request):
    return None


@hooks.on_response
def leave(request, response):
    response["X-Left"] = "1"


@hooks.around
async def enclose(request, call_next):
    return await call_next(request)


@with_hooks(hooks)
@require(Given())
class Socket(AsyncWebsocketConsumer): ...


@with_hooks(hooks)
@require(Given())
class OverHttp(AsyncHttpConsumer): ...


@with_hooks(hooks)
@require(Given())
def sync_view(request):
    return HttpResponse()


@with_hooks(hooks)
@require(Given())
async def async_view(request):
    return HttpResponse()


urlpatterns = [path("sync/", sync_view), path("async/", async_view)]
application = DenyMiddlewareStack(
    ProtocolTypeRouter(
        {
            "http": URLRouter([path("http/", OverHttp.as_asgi()), re_path("", get_asgi_application())]),
            "websocket": URLRouter([path("websocket/", Socket.as_asgi(), name="socket")]),
        }
    )
)


@pytest.fixture(autouse=True)
def debug(settings):
    settings.DEBUG = True
    CURRENT["policy"] = DenyAll()


@pytest.fixture(params=["websocket", "http", "sync", "async"])
def door(request):
    return request.param


@pytest.fixture
def ask_at(caplog, sessions, headers_of, settings):
    """A function that asks at a door as a user, and returns the record of the denial."""
    caplog.set_level(logging.INFO, "channels_wsdeny")

    def ask_at(door, user=None):
        if door in {"websocket", "http"}:
            function = knock if door == "websocket" else fetch
            async_to_sync(function)(application, f"/{door}/", headers=headers_of(user))
        else:
            client = (Client if door == "sync" else AsyncClient)(raise_request_exception=False)
            if user:
                client.cookies[settings.SESSION_COOKIE_NAME] = sessions[user].session_key
            get = client.get if door == "sync" else async_to_sync(client.get)
            get(f"/{door}/")
        (record,) = [record for record in caplog.records if record.name == "channels_wsdeny"]
        return record

    return ask_at


@pytest.fixture
def trace_at(ask_at):
    """As `ask_at`, but it returns the trace."""
    return lambda door="websocket", user=None: ask_at(door, user).trace


def policies_of(trace):
    """The policies of a trace but for `Given`, each with its depth beneath that and its answer."""
    return [
        (step["depth"] - 1, step["name"], step["answer"])
        for step in trace["steps"]
        if step["kind"] == "policy" and step["name"] != "Given()"
    ]


def test_the_record_of_a_denial_has_the_trace(door, trace_at):
    assert policies_of(trace_at(door)) == [(0, "DenyAll()", "denied: 403 permission_denied")]


def test_without_debug_there_is_none(door, ask_at, settings):
    settings.DEBUG = False
    assert not hasattr(ask_at(door), "trace")


def test_without_debug_a_policy_is_asked_by_itself(settings):
    settings.DEBUG = False
    request = HandshakeRequest(websocket_scope("/"))
    request.wsdeny = Passage(request)
    assert ask(DenyAll(), request).gi_code is DenyAll.decide.__code__


def test_the_route_and_the_endpoint_are_told(trace_at):
    trace = trace_at()
    assert (trace["route"], trace["endpoint"]) == ("websocket/", f"{__name__}.Socket")


def test_the_view_is_told(trace_at, settings):
    settings.MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
    trace = trace_at("sync")
    assert (trace["route"], trace["endpoint"]) == ("sync/", f"{__name__}.sync_view")


def test_every_part_of_an_expression_is_told_as_far_as_it_was_asked(door, trace_at):
    CURRENT["policy"] = AllowAny() & (IsStaff() | ~AllowAny()) & IsSuperuser()
    assert policies_of(trace_at(door)) == [
        (0, "AllowAny() & (IsStaff() | ~AllowAny()) & IsSuperuser()", "denied: 401 not_authenticated"),
        (1, "AllowAny()", "allowed"),
        (1, "IsStaff() | ~AllowAny()", "denied: 401 not_authenticated"),
        (2, "IsStaff()", "denied: 401 not_authenticated"),
        (2, "~AllowAny()", "denied: 403 permission_denied"),
        (3, "AllowAny()", "allowed"),
    ]


def raise_(error):
    raise error


ANSWERS = {
    "denies": (lambda request: False, "denied: 403 permission_denied"),
    "deny": (lambda request: Deny(418, "private", code="teapot"), "denied: 418 teapot"),
    "response": (lambda request: HttpResponse("private", status=409), "answered: 409"),
    "raised-deny": (lambda request: raise_(Deny(418, "private", code="teapot")), "raised denied: 418 teapot"),
}


@pytest.mark.parametrize(("function", "answer"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_told_in_words(function, answer, door, trace_at):
    CURRENT["policy"] = Check(function)
    trace = trace_at(door)
    assert policies_of(trace) == [(0, "Check()", answer)]
    assert "private" not in json.dumps(trace)


def test_an_exception_is_told_by_its_type_and_place(door, trace_at):
    CURRENT["policy"] = Check(lambda request: raise_(Http404("private")))
    trace = trace_at(door)
    ((_, _, answer),) = policies_of(trace)
    assert answer.startswith("raised Http404, ")
    assert answer.partition(":")[0].endswith("test_trace.py")
    assert "private" not in json.dumps(trace)


async def deny_later(request):
    await asyncio.sleep(0.02)
    return False


def test_an_asynchronous_policy_is_told_with_its_time(door, trace_at):
    CURRENT["policy"] = AsyncCheck(deny_later)
    step = next(step for step in trace_at(door)["steps"] if step["name"] == "AsyncCheck()")
    assert step["answer"] == "denied: 403 permission_denied"
    assert 20 <= step["ms"] < 5000


async def hang(request):
    await asyncio.sleep(60)


def test_a_policy_that_ran_past_its_time_has_no_answer(trace_at, settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.05}
    CURRENT["policy"] = AsyncCheck(hang)
    assert policies_of(trace_at()) == [(0, "AsyncCheck()", None)]


def test_a_policy_that_cannot_be_printed_is_told_all_the_same(trace_at):
    CURRENT["policy"] = type("Unprintable", (DenyAll,), {"__repr__": lambda self: raise_(ValueError())})()
    assert [name for _, name, _ in policies_of(trace_at())] == ["<Unprintable, whose repr fails>"]


def test_hooks_are_told_in_the_order_that_they_run_in(door, trace_at):
    steps = trace_at(door)["steps"]
    ran = ["policy" if step["kind"] == "policy" else step["name"].partition(" ")[0] for step in steps]
    # A view is refused before its response hooks see the refusal.
    left = ["on_response"] if door in {"websocket", "http"} else []
    assert ran == ["around", "on_request", "on_route", "policy", "policy", *left]


def test_what_a_hook_answers_is_told(trace_at):
    answers = {step["name"]: step["answer"] for step in trace_at()["steps"] if step["kind"] == "hook"}
    assert answers == {
        f"around {__name__}.enclose": "answered: 403",
        f"on_request {__name__}.arrive": "went on",
        f"on_route {__name__}.look": "went on",
        f"on_response {__name__}.leave": "went on",
    }


def test_a_hook_that_fails_is_told(caplog):
    failing = Hooks()
    failing.on_request(lambda request: 1 / 0)
    async_to_sync(knock)(DenyMiddlewareStack(accept, hooks=failing), "/")
    (record,) = [record for record in caplog.records if record.name == "channels_wsdeny"]
    assert record.trace["steps"][0]["answer"].startswith("raised ZeroDivisionError, ")


def test_an_exception_hook_is_told(caplog):
    rescuing = Hooks()
    rescuing.on_exception(lambda request, error: HttpResponse(status=402))
    async_to_sync(knock)(
        DenyMiddlewareStack(require(Check(lambda request: 1 / 0))(accept), hooks=rescuing), "/"
    )
    (record,) = [record for record in caplog.records if record.name == "channels_wsdeny"]
    (step,) = [step for step in record.trace["steps"] if step["kind"] == "hook"]
    assert step["answer"] == "answered: 402"


def queries_of(trace):
    return {step["name"]: [query["sql"] for query in step["queries"]] for step in trace["steps"]}


def test_queries_are_told_where_they_were_made(door, trace_at):
    CURRENT["policy"] = IsAuthenticated() & IsSuperuser()
    trace = trace_at(door, "alice")
    queries = queries_of(trace)
    assert "auth_user" in queries["IsAuthenticated()"][-1]
    assert queries["IsSuperuser()"] == []
    assert trace["query_count"] == sum(map(len, queries.values()))


def find_user(request):
    get_user_model().objects.filter(username="a secret").exists()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 'another ''secret', %s", ["a third secret"])
    return False


def test_no_values_of_queries_are_told(door, trace_at):
    CURRENT["policy"] = Check(find_user)
    trace = trace_at(door)
    assert "secret" not in json.dumps(trace)
    assert queries_of(trace)["Check()"][1] == "SELECT '…', %s"


def query_often(request):
    for _ in range(150):
        get_user_model().objects.exists()
    return False


def test_of_many_queries_the_first_are_told_and_all_are_counted(trace_at):
    CURRENT["policy"] = Check(query_often)
    trace = trace_at()
    assert (len(queries_of(trace)["Check()"]), trace["query_count"]) == (100, 150)


def query_at_length(request):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {'1 + ' * 1000} 1")
    return False


def test_of_a_long_query_the_beginning_is_told(trace_at):
    CURRENT["policy"] = Check(query_at_length)
    (sql,) = queries_of(trace_at())["Check()"]
    assert len(sql) == 500


def fail_to_query(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT nothing FROM nowhere")


def test_a_query_that_fails_is_told(trace_at):
    CURRENT["policy"] = Check(fail_to_query)
    assert queries_of(trace_at())["Check()"] == ["SELECT nothing FROM nowhere"]


def test_nothing_is_left_to_watch_queries(door, trace_at):
    before = list(connection.execute_wrappers)
    trace_at(door, "alice")
    left = [wrapper for wrapper in connection.execute_wrappers if wrapper not in before]
    assert [wrapper for wrapper in left if isinstance(getattr(wrapper, "__self__", None), Trace)] == []


def test_nothing_secret_is_told(door, trace_at, sessions):
    CURRENT["policy"] = IsStaff()
    assert sessions["alice"].session_key not in json.dumps(trace_at(door, "alice"))


def test_the_trace_is_json(door, trace_at):
    trace = trace_at(door, "alice")
    assert json.loads(json.dumps(trace)) == trace


async def test_handshakes_beside_one_another_have_traces_of_their_own(caplog):
    policies = {f"p{number}": AsyncCheck(deny_later) for number in range(10)}
    for name, policy in policies.items():
        type(policy).__repr__ = lambda self: next(k for k, v in policies.items() if v is self)
        assert repr(policy) == name
    stacks = [DenyMiddlewareStack(require(policy)(accept)) for policy in policies.values()]
    try:
        await asyncio.gather(*(knock(stack, f"/{number}/") for number, stack in enumerate(stacks)))
    finally:
        del AsyncCheck.__repr__
    told_of = {record.path: [step["name"] for step in record.trace["steps"]] for record in caplog.records}
    assert told_of == {f"/{number}/": [f"p{number}"] for number in range(10)}


def test_hooks_of_a_stack_and_policies_of_a_view_behind_it_are_one_trace(caplog, settings):
    settings.MIDDLEWARE = [MIRROR]
    stack = DenyMiddlewareStack(
        require(AllowAny())(ProtocolTypeRouter({"http": get_asgi_application()})), hooks=hooks
    )
    async_to_sync(fetch)(stack, "/async/", headers=[(b"host", b"testserver")])
    (record,) = [record for record in caplog.records if record.name == "channels_wsdeny"]
    names = [step["name"] for step in record.trace["steps"]]
    assert names.index(f"on_request {__name__}.arrive") < names.index("DenyAll()")


def test_an_unrouted_handshake_has_no_route(caplog):
    async_to_sync(knock)(application, "/nowhere/")
    (record,) = [record for record in caplog.records if record.name == "channels_wsdeny"]
    assert (record.status, record.trace["route"], record.trace["endpoint"]) == (404, None, None)


class View:
    view_class = DenyAll


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (accept, "tests.parts.accept"),
        (DenyAll, "channels_wsdeny.policies.builtin.DenyAll"),
        (View(), "channels_wsdeny.policies.builtin.DenyAll"),
        (DenyAll(), "channels_wsdeny.policies.builtin.DenyAll"),
    ],
)
def test_a_name_is_that_of_what_somebody_wrote(value, name):
    assert name_of(value) == name


def test_what_is_no_answer_is_told_by_its_type():
    assert told(object()) == "answered: object"
