"""The trace of a request, by itself and in the log record of a denial where DEBUG is on."""

import asyncio
import json
import logging

import pytest
from asgiref.sync import async_to_sync
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from django.contrib.auth import get_user_model
from django.db import connection
from django.http import Http404, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import require, with_hooks
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated, IsStaff, IsSuperuser
from tests.support.clients import GUARD, fetch, knock
from tests.support.policies import AsyncCheck, Check, accept, raising
from tests.support.site import go_on, hello, hello_async

pytestmark = pytest.mark.django_db
hooks = Hooks()


@hooks.on_request
def on_request(request): ...


@hooks.on_route
async def on_route(request): ...


hooks.around(go_on)
ENDPOINTS = {
    "websocket": type("Socket", (AsyncWebsocketConsumer,), {}).as_asgi(),
    "http": type("OverHttp", (AsyncHttpConsumer,), {}).as_asgi(),
    "sync": hello,
    "async": hello_async,
}


@pytest.fixture
def trace_of(caplog, headers_of, settings):
    """A function from a policy to the trace in the log record of its denial, by default of an anonymous handshake."""
    caplog.set_level(logging.INFO, "channels_wsdeny")
    settings.DEBUG = True

    def deny(policy, *, kind="websocket", user=None, registry=hooks):
        endpoint = with_hooks(registry)(require(policy)(ENDPOINTS[kind]))
        if kind in {"websocket", "http"}:
            ask = knock if kind == "websocket" else fetch
            stack = DenyMiddlewareStack(URLRouter([path("a/", endpoint)]))
            async_to_sync(ask)(stack, "/a/", headers=headers_of(user))
        else:
            settings.ROOT_URLCONF = (path("a/", endpoint),)
            client = (Client if kind == "sync" else AsyncClient)(raise_request_exception=False)
            if user is not None:
                client.force_login(get_user_model().objects.get(username=user))
            get = client.get if kind == "sync" else async_to_sync(client.get)
            get("/a/")
        (record,) = [record for record in caplog.records if record.name == "channels_wsdeny"]
        return record.trace

    return deny


def steps_of(trace, kind="policy"):
    """The name and answer of each step of a kind."""
    return [(step["name"], step["answer"]) for step in trace["steps"] if step["kind"] == kind]


@pytest.mark.parametrize("kind", ENDPOINTS)
def test_the_record_of_a_denial_has_the_trace_on_every_transport(kind, trace_of):
    trace = trace_of(IsAuthenticated() & (IsStaff() | ~AllowAny()) & IsSuperuser(), kind=kind, user="alice")
    assert trace["route"] == "a/"
    (around, _), *others = steps_of(trace, "hook")  # On a view, the denial is logged inside it.
    assert around == f"around {go_on.__module__}.go_on"
    names = ("on_request", "on_route")
    assert others[:2] == [(f"{name} {__name__}.{name}", "went on") for name in names]
    policies = [step for step in trace["steps"] if step["kind"] == "policy"]
    outermost = policies[0]["depth"]
    assert [(step["depth"] - outermost, step["name"], step["answer"]) for step in policies] == [
        (0, "IsAuthenticated() & (IsStaff() | ~AllowAny()) & IsSuperuser()", "denied: 403 permission_denied"),
        (1, "IsAuthenticated()", "allowed"),
        (1, "IsStaff() | ~AllowAny()", "denied: 403 permission_denied"),
        (2, "IsStaff()", "denied: 403 permission_denied"),
        (2, "~AllowAny()", "denied: 403 permission_denied"),
        (3, "AllowAny()", "allowed"),
    ]
    queries = {step["name"]: [query["sql"] for query in step["queries"]] for step in trace["steps"]}
    assert "auth_user" in queries["IsAuthenticated()"][-1]
    assert trace["query_count"] == sum(map(len, queries.values()))
    assert json.loads(json.dumps(trace)) == trace


@pytest.mark.parametrize("debug", [False, True])
def test_without_debug_there_is_no_trace_and_an_unrouted_handshake_has_no_route(debug, caplog, settings):
    settings.DEBUG = debug
    async_to_sync(knock)(DenyMiddlewareStack(URLRouter([])), "/nowhere/")
    (record,) = [record for record in caplog.records if record.name == "channels_wsdeny"]
    trace = getattr(record, "trace", None)
    assert trace is None or (trace["route"], trace["endpoint"]) == (None, None)
    assert (trace is not None) is debug


@pytest.mark.parametrize(
    ("policy", "answer"),
    [
        (Check(lambda request: Deny(418, "private", code="teapot")), "denied: 418 teapot"),
        (Check(lambda request: HttpResponse("private", status=409)), "answered: 409"),
        (Check(raising(lambda: Deny(418, "private", code="teapot"))), "raised denied: 418 teapot"),
        (Check(raising(lambda: Http404("private"))), "raised Http404, "),
        (AsyncCheck(lambda request: asyncio.sleep(60)), None),
    ],
)
def test_the_answer_of_a_policy_is_told_without_its_text(policy, answer, trace_of, settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.3 if answer is None else GUARD}
    trace = trace_of(policy)
    ((_, found),) = steps_of(trace)
    assert found == answer if answer is None else found.startswith(answer)
    assert "private" not in json.dumps(trace)


def test_a_hook_that_fails_and_one_that_answers_are_told(trace_of):
    registry = Hooks()
    registry.on_request(lambda request: 1 / 0)
    registry.on_exception(lambda request, error: HttpResponse(status=402))
    failed, rescued = steps_of(trace_of(DenyAll(), registry=registry), "hook")
    assert failed[1].startswith(f"raised ZeroDivisionError, {__file__}")
    assert rescued[1] == "answered: 402"


def query(request):
    get_user_model().objects.filter(username="a secret").exists()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 'another ''secret', %s", ["a third secret"])
        cursor.execute(f"SELECT {'1 + ' * 300} 1")
    for _ in range(150):
        get_user_model().objects.exists()
    with connection.cursor() as cursor:
        cursor.execute("SELECT nothing FROM nowhere")


def test_queries_are_told_up_to_a_number_and_a_length_and_without_values(trace_of, sessions):
    trace = trace_of(Check(query), user="alice")
    queries = next(step["queries"] for step in trace["steps"] if step["name"] == "Check()")
    assert (len(queries), trace["query_count"]) == (100, 154)
    assert (queries[1]["sql"], len(queries[2]["sql"])) == ("SELECT '…', %s", 500)
    assert "secret" not in json.dumps(trace)
    assert sessions["alice"].session_key not in json.dumps(trace)
    assert [wrapper for wrapper in connection.execute_wrappers if "Trace" in repr(wrapper)] == []


async def test_handshakes_beside_one_another_have_traces_of_their_own(caplog, settings):
    settings.DEBUG = True

    async def deny_later(request):
        await asyncio.sleep(0.02)
        return False

    policies = [type(f"P{number}", (AsyncCheck,), {})(deny_later) for number in range(10)]
    stacks = [DenyMiddlewareStack(require(policy)(accept)) for policy in policies]
    await asyncio.gather(*(knock(stack, f"/P{number}()") for number, stack in enumerate(stacks)))
    found = {record.path: [step["name"] for step in record.trace["steps"]] for record in caplog.records}
    assert found == {f"/P{number}()": [f"P{number}()"] for number in range(10)}


def test_the_record_of_a_denied_stream_has_the_trace_of_its_hooks(caplog, settings):
    settings.DEBUG = True
    registry = Hooks()
    registry.register(on_request, "request")
    child = DenyMiddlewareStack(require(DenyAll())(accept), hooks=registry)

    class Demultiplexer(AsyncWebsocketConsumer):
        async def connect(self):
            await self.accept()
            await child(self.scope, self.channel_receive, self.send)

    async_to_sync(knock)(DenyMiddlewareStack(Demultiplexer.as_asgi(), default_policy=AllowAny()), "/")
    (record,) = [record for record in caplog.records if record.name == "channels_wsdeny"]
    assert steps_of(record.trace, "hook") == [(f"on_request {__name__}.on_request", "went on")]
