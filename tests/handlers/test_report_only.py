"""Policies that are only reported: what they log, and that they decide nothing."""

import asyncio
import logging
import random
import threading
from operator import attrgetter

import pytest
from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.middleware import BaseMiddleware
from channels.routing import URLRouter
from django.http import Http404, HttpResponse
from django.urls import path, re_path

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.authentication import BearerAuthentication
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.handlers import base
from channels_wsdeny.policies import DenyAll, HasPermission, IsAuthenticated, IsStaff
from tests.support.case_site import Hello
from tests.support.clients import GUARD, Handshake, fetch, knock, websocket_scope
from tests.support.policies import AsyncCheck, ByName, Check, accept, alice, anonymous, boss, raising
from tests.support.site import hello, hello_async
from tests.support.sockets import decorated as consumer
from tests.support.threads import outlast
from tests.support.wrappers import With, Wrapper

pytestmark = pytest.mark.django_db


def report(policy):
    return require(policy, enforce=False)


@pytest.fixture
def reports(caplog):
    """A function to what was reported so far: status, code and policy of each."""
    told = attrgetter("status", "code", "policy")
    return lambda: [told(record) for record in caplog.records if getattr(record, "report_only", False)]


def stack(app, **options):
    return DenyMiddlewareStack(URLRouter([path("", app)]), **options)


# What is logged.

DENIALS = {
    "a user": (IsStaff(), (403, "permission_denied")),
    "a Deny": (Check(lambda request: Deny(402, code="pay")), (402, "pay")),
    "a response": (Check(lambda request: HttpResponse(status=404)), (404, "not_found")),
    "Http404": (AsyncCheck(raising(Http404)), (404, "not_found")),
    "a bug": (Check(raising(ZeroDivisionError)), (500, "server_error")),
    "no answer": (AsyncCheck(lambda request: None), (500, "server_error")),
    "cancelled": (AsyncCheck(raising(asyncio.CancelledError)), (500, "server_error")),
    "on the loop": (AsyncCheck(lambda request: False), (403, "permission_denied")),
    "a cut line": (Check(lambda request: Deny(403, code="a\nb")), (403, "a\nb")),
}


@pytest.mark.parametrize(("policy", "expected"), DENIALS.values(), ids=DENIALS)
async def test_what_would_be_denied_is_logged_and_let_pass(policy, expected, caplog):
    assert (await knock(stack(consumer(report(policy)).as_asgi()), "/?token=secret", user=alice)).status == 101
    (record,) = caplog.records
    assert (record.name, record.levelno, record.report_only) == ("channels_wsdeny", logging.WARNING, True)
    assert (record.status, record.code, record.policy) == (*expected, repr(policy))
    assert (record.path, record.user, record.client) == ("/", alice.pk, "127.0.0.1:50000")
    assert not any(text in record.message for text in ("\n", "secret"))
    assert bool(record.exc_info) is (expected[0] == 500)


async def test_what_is_allowed_or_denied_by_another_policy_is_not_reported(reports, caplog):
    app = stack(consumer(report(IsStaff()), require(IsAuthenticated())).as_asgi())
    for user, status in ((anonymous, 401), (boss, 101)):
        assert (await knock(app, "/", user=user)).status == status
    assert (await knock(app, "/")).status == 401  # the denial of a stranger, which is kept
    assert reports() == []
    await knock(app, "/", user=alice)
    assert reports() == [(403, "permission_denied", "IsStaff()")]
    caplog.set_level(logging.ERROR, "channels_wsdeny")
    await knock(app, "/", user=alice)
    assert len(reports()) == 1


@pytest.mark.parametrize("make", [Check, AsyncCheck])
def test_it_is_asked_about_the_user_of_the_credentials(make, site, reports):
    policy = make(lambda request: (request.user.pk, request.auth) == (boss.pk, "boss"))
    bearer = BearerAuthentication({"boss": (boss, "boss")}.get)
    for view in (hello, hello_async):
        site.serve(report(policy)(view), AUTHENTICATION=[bearer])
        before = len(reports())
        for headers, reported in (({"Authorization": "Bearer boss"}, 0), ({}, 1)):
            assert site.ask(**headers).status == 200
            assert len(reports()) == before + reported


@pytest.mark.parametrize("make", [Check, AsyncCheck])
async def test_a_policy_that_hangs_holds_nobody_up_for_longer_than_the_time_limit(make, settings, reports):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 1}  # enough for the other policy on a busy machine
    let_go = threading.Event()
    policy = make(lambda request: let_go.wait(10) if make is Check else asyncio.sleep(10))
    try:
        answer = await knock(stack(consumer(report(policy), report(IsStaff())).as_asgi()), "/", user=alice)
    finally:
        let_go.set()
    assert answer.status == 101
    assert reports() == [(503, "unavailable", repr(policy)), (403, "permission_denied", "IsStaff()")]


@pytest.mark.parametrize("fetching", [False, True])
async def test_a_policy_that_swallows_its_cancellation_decides_nothing_either(fetching, settings, reports, monkeypatch):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.05}
    monkeypatch.setattr(base, "_GRACE", 0.05)
    let_go = asyncio.Event()
    policy = AsyncCheck(lambda request: outlast(let_go))
    app = consumer(report(policy), public, base=Hello if fetching else AsyncWebsocketConsumer).as_asgi()
    try:
        async with asyncio.timeout(GUARD):
            answer = await (fetch if fetching else knock)(stack(app), "/", user=alice)
            assert answer.status == (200 if fetching else 101)
    finally:
        let_go.set()
    assert reports() == [(503, "unavailable", repr(policy))]


async def test_what_a_policy_answers_past_its_time_is_not_logged_as_well(settings, reports):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.05}
    let_go, has_ended = threading.Event(), threading.Event()

    class Late(Check):
        def check(self, request):
            let_go.wait(GUARD)
            threading.Timer(0.1, has_ended.set).start()
            return False

    policy = Late(None)
    answer = await knock(stack(consumer(report(policy)).as_asgi()), "/", user=alice)
    let_go.set()
    assert await asyncio.to_thread(has_ended.wait, GUARD)
    assert (answer.status, reports()) == (101, [(503, "unavailable", repr(policy))])


# It is no policy otherwise.


HOOKS = Hooks()
LAYERS = [
    *(DenyMiddlewareStack, lambda app: DenyMiddlewareStack(app, default_policy=IsStaff()), with_hooks(HOOKS), public),
    *(require(IsAuthenticated()), BaseMiddleware, Wrapper, lambda app: URLRouter([re_path("", app)])),
    lambda app: With(app, user=boss),  # an application of which nothing is known
]
denying = report(DenyAll())
#: What is innermost, and what it is with the decorator on it.
INNERMOST = {
    "websocket": [
        (accept, denying(accept)),
        (consumer().as_asgi(), consumer(denying).as_asgi()),
        (consumer().as_asgi(), consumer(base=consumer(denying, denying)).as_asgi()),
        (consumer(public).as_asgi(), consumer(public, denying).as_asgi()),
        (consumer(with_hooks(HOOKS)).as_asgi(), consumer(denying, with_hooks(HOOKS)).as_asgi()),
    ],
    "http": [
        (Hello.as_asgi(), consumer(denying, base=Hello).as_asgi()),
        (consumer(public, base=Hello).as_asgi(), consumer(denying, public, base=Hello).as_asgi()),
    ],
}


@pytest.mark.parametrize("protocol", INNERMOST)
async def test_an_endpoint_within_any_layers_is_as_open_as_without_it(protocol, settings):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}
    ask = knock if protocol == "websocket" else fetch
    for seed in range(100):
        choose = random.Random(seed)
        plain, reported = choose.choice(INNERMOST[protocol])
        for wrap in choose.choices(LAYERS, k=choose.randrange(1, 7)):
            plain, reported = wrap(plain), wrap(denying(reported) if choose.random() < 0.5 else reported)
        for asked in ({}, {"user": alice}):
            expected = (await ask(plain, "/", **asked)).status
            assert (await ask(denying(reported), "/", **asked)).status == expected, seed


async def test_each_policy_is_asked_once_whatever_it_is_stacked_with(reports):
    policy = IsStaff()
    child = consumer(base=consumer(report(policy), report(policy)))
    app = report(policy)(stack(report(policy)(child.as_asgi())))
    assert (await knock(app, "/", user=alice)).status == 101
    assert len(reports()) == 1


@pytest.mark.parametrize("enforce", [None, 0, "no"])
def test_whether_it_is_enforced_is_a_bool(enforce):
    with pytest.raises(TypeError, match="enforce"):
        require(IsStaff(), enforce=enforce)


def set_user(request):
    request.user, request.auth = boss, "forged"
    request.wsdeny.obj = "another"
    return True


async def test_a_user_or_object_that_it_sets_does_not_reach_the_endpoint(settings):
    settings.AUTHENTICATION_BACKENDS = [f"{ByName.__module__}.ByName"]
    seen = []

    class Tells(AsyncWebsocketConsumer):
        async def connect(self):
            context = self.scope["wsdeny"]
            seen.extend([self.scope["user"], context.request.auth, context.obj, repr(context.policy)])
            await self.accept()

    needed = HasPermission("site.room", obj=lambda request: "room")
    app = stack(report(Check(set_user))(require(needed)(Tells)).as_asgi())
    assert (await knock(app, "/", user=alice)).status == 101
    assert seen == [alice, None, "room", repr(needed)]


def test_the_session_and_the_user_are_loaded_once(headers_of, django_assert_num_queries):
    for decorators in ([], [report(IsStaff()), report(Check(lambda request: "key" in request.session))]):
        with django_assert_num_queries(2):
            async_to_sync(knock)(stack(consumer(*decorators).as_asgi()), "/", headers=headers_of("alice"))


# Views, and applications over HTTP.


@pytest.mark.parametrize("view", [hello, hello_async])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_view_is_as_open_as_without_it(site, users, view, mirrored, reports):
    site.serve(report(IsStaff())(view), MIRROR_DEFAULT_POLICY=mirrored)
    assert site.ask().status == (401 if mirrored else 200)
    assert reports() == ([] if mirrored else [(401, "not_authenticated", "IsStaff()")])
    assert site.log_in(users["alice"]).ask().status == 200
    assert reports()[-1] == (403, "permission_denied", "IsStaff()")


def echo(request):
    return HttpResponse(f"{request.POST['text']} {request.user.username}")


def test_a_view_can_still_read_the_body_that_the_policy_has_read(site, users, reports):
    def reads(request):
        request.user = users["staff"]
        return request.POST["text"] == "no"

    site.serve(report(Check(reads))(echo)).log_in(users["alice"])
    page = site.post(b"text=yes", Content_Type="application/x-www-form-urlencoded")
    assert page.body == b"yes alice"
    assert len(reports()) == 1


async def test_other_protocols_pass():
    ran = []

    async def app(scope, receive, send):
        ran.append(scope["type"])

    await report(DenyAll())(app)({"type": "mqtt"}, None, None)
    assert ran == ["mqtt"]


async def test_a_client_that_leaves_meanwhile_is_not_answered(settings):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 1}
    asked = asyncio.Event()

    async def hang(request):
        asked.set()
        await asyncio.sleep(30)

    handshake = Handshake(stack(consumer(report(AsyncCheck(hang))).as_asgi()), websocket_scope("/", user=alice))
    await handshake.communicator.send_input({"type": "websocket.connect"})
    await asked.wait()
    await handshake.leave()
    assert handshake.communicator.output_queue.empty()
