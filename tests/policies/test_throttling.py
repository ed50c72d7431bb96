"""Throttles and limits of connections: exact on real caches, whoever comes at the same time and however it ends."""

import asyncio
import contextlib
import copy
import json
import math
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from getpass import getuser
from importlib import import_module
from types import ModuleType, SimpleNamespace

import pytest
from channels.generic.http import AsyncHttpConsumer
from channels.routing import URLRouter
from django.conf.urls.i18n import i18n_patterns
from django.core.cache import cache
from django.core.cache.backends.locmem import LocMemCache
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.urls import path
from django.utils.functional import SimpleLazyObject
from rest_framework.throttling import UserRateThrottle

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.contrib.rest_framework import RestFramework
from channels_wsdeny.decorators import require
from channels_wsdeny.http.context import get_context
from channels_wsdeny.http.request import HandshakeRequest
from channels_wsdeny.inspection.explain import explain
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated, MaxConnections, Policy, Throttle, throttling
from tests.support.caches import REDIS, Counting, cache_settings
from tests.support.case_site import Hello
from tests.support.clients import GUARD, Handshake, fetch, knock, opened, websocket_scope
from tests.support.opened import Opened
from tests.support.policies import Check, accept, alice, anonymous, ask, boss, raising
from tests.support.processes import ENVIRONMENT, ROOT
from tests.support.sockets import Server, asks_again, consumer, disconnect, errors, guarded
from tests.support.threads import Gate, until, wait_until
from tests.support.transports import Tenancy
from tests.support.wrappers import With

pytestmark = pytest.mark.django_db
BOTH = [(Throttle, "1/day"), (MaxConnections, 1)]
MEMCACHED = [pytest.param("memcached", marks=pytest.mark.servers)] if shutil.which("memcached") else []
CACHES = ["locmem", "redis", *MEMCACHED]


@pytest.fixture(scope="module")
def memcached(tmp_path_factory):
    """The address of a memcached of the tests' own."""
    address = tmp_path_factory.mktemp("memcached") / "socket"
    process = subprocess.Popen(["memcached", "-s", str(address), "-u", getuser(), "-m", "16"])
    try:
        while not address.exists():
            time.sleep(0.01)
        yield f"unix:{address}"
    finally:
        process.terminate()
        process.wait(GUARD)


@pytest.fixture(params=CACHES)
def counts(request, settings):
    """A real cache."""
    location = request.getfixturevalue("memcached") if request.param == "memcached" else REDIS
    settings.CACHES = cache_settings(request.param, location)


@pytest.fixture(autouse=True)
def own_counts(settings):
    """No test sees the counts of another, and none leaves slots behind."""
    settings.CACHES = cache_settings("locmem")
    yield
    assert throttling._slots._held == {}


def routed(app=accept, **policies):
    """A stack with `app`, which accepts, behind a policy at each of two routes."""
    return DenyMiddlewareStack(
        URLRouter([path(f"{name}/<slug>/", require(policy)(app)) for name, policy in policies.items()])
    )


async def statuses(app, count, url="/", **scope):
    return [(await knock(app, url, **scope)).status for _ in range(count)]


def request_of(user=anonymous, **scope):
    return HandshakeRequest(websocket_scope("/", user=user, **scope))


async def test_of_handshakes_that_come_at_once_as_many_are_allowed_as_the_rate_says(counts):
    app = guarded(Throttle("20/day"), accept)
    answers = await asyncio.gather(*(knock(app, "/", user=alice) for _ in range(100)))
    assert sorted(answer.status for answer in answers) == [101] * 20 + [429] * 80


async def test_of_handshakes_that_come_at_once_as_many_open_as_there_are_slots(counts):
    app = guarded(MaxConnections(5), accept)
    for _ in range(2):  # What is released can be taken again.
        sockets = [Handshake(app, websocket_scope("/", user=alice)) for _ in range(60)]
        answers = await asyncio.gather(*(socket.connect() for socket in sockets))
        is_open = [answer.status == 101 for answer in answers]
        assert sum(is_open) == 5
        await asyncio.gather(*(socket.leave() for socket, opened in zip(sockets, is_open, strict=True) if opened))


WORK = """
import sys, threading
import django
from django.conf import settings
django.setup()
import json
settings.CACHES = json.loads(sys.argv[1])
from channels_wsdeny.policies import MaxConnections, Throttle, throttling
from tests.policies.test_throttling import request_of
from tests.support.policies import alice
"""


def processes(code, count=1):
    """Processes that run `code` with the cache of this test, once each of them has read a line."""
    from django.conf import settings

    arguments = [sys.executable, "-c", WORK + code, json.dumps(settings.CACHES)]
    environment = ENVIRONMENT | {"DJANGO_SETTINGS_MODULE": "testproject.settings"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return [subprocess.Popen(arguments, cwd=ROOT, env=environment, **pipes) for _ in range(count)]


@pytest.mark.servers
def test_two_processes_of_many_threads_allow_together_what_the_policies_say(settings):
    settings.CACHES = cache_settings("redis")
    code = """
throttle, limit = Throttle("500/day"), MaxConnections(50)
found = []
def come():
    for _ in range(40):
        found.append((throttle.check(request_of(alice)) is True, limit.check(request_of(alice)) is True))
threads = [threading.Thread(target=come) for _ in range(16)]
print("ready", flush=True)
input()
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*map(sum, zip(*found)), flush=True)
input()  # Its end would free its slots.
"""
    running = processes(code, 2)
    assert [each.stdout.readline() for each in running] == ["ready\n"] * 2
    for each in running:
        each.stdin.write("\n")
        each.stdin.flush()
    found = [map(int, each.stdout.readline().split()) for each in running]
    for each in running:
        each.communicate("\n")
    assert [sum(numbers) for numbers in zip(*found, strict=True)] == [500, 50]


def is_free(policy):
    """Whether alice would be let in."""
    return policy._look(cache, policy._hash(request_of(alice), get_context(request_of(alice)))) is True


@pytest.mark.servers
def test_the_slots_of_a_process_that_was_killed_free_themselves(settings):
    settings.CACHES = cache_settings("redis")
    code = """
settings.CHANNELS_WSDENY = {"HEARTBEAT": 0.3}
print([MaxConnections(2).check(request_of(alice)) is True for _ in range(3)], flush=True)
input()
"""
    (process,) = processes(code)
    assert process.stdout.readline() == "[True, True, False]\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: is_free(MaxConnections(2)))


@pytest.mark.servers
def test_a_process_that_ends_leaves_no_slots(settings):
    settings.CACHES = cache_settings("redis")
    (process,) = processes("print(MaxConnections(1).check(request_of(alice)))")
    assert process.communicate()[0] == "True\n"
    assert is_free(MaxConnections(1))


@pytest.mark.servers
def test_a_forked_process_neither_renews_nor_releases_the_slots_of_its_parent(settings):
    settings.CACHES = cache_settings("redis")
    code = """
import os
from channels_wsdeny.http.context import get_context
request = request_of(alice)
MaxConnections(1).check(request)
sys.stdout.flush()
if os.fork() == 0:
    print(throttling._slots._held)
    get_context(request).run_ending()
    sys.stdout.flush()
    os._exit(0)
os.wait()
print(MaxConnections(1).check(request_of(alice)) is True, len(throttling._slots._held))
"""
    (process,) = processes(code)
    assert process.communicate()[0] == "{}\nFalse 1\n"


async def test_a_denial_says_when_to_come_again():
    throttled = [await ask(Throttle("1/day"), alice) for _ in range(2)][1]
    seconds = int(throttled.header("retry-after"))
    assert 0 < seconds <= 86400
    assert throttled.status == throttled.problem["status"] == 429
    assert (throttled.problem["code"], throttled.problem["retry"]) == ("throttled", seconds)

    app = guarded(MaxConnections(1), accept)
    async with opened(app, user=alice):
        denied = await knock(app, "/", user=alice)
    assert (denied.status, denied.header("retry-after"), denied.problem["retry"]) == (429, "5", 5)
    assert denied.problem["code"] == "too_many_connections"


@pytest.mark.parametrize("rate", ["3/s", "3/min", "3/h", "3/day"])
async def test_who_comes_again_as_told_is_allowed_and_not_sooner_and_tries_do_not_count(rate, clock):
    app = guarded(Throttle(rate), accept)
    for _ in range(3):
        answers = [await knock(app, "/", user=alice) for _ in range(10)]
        assert [answer.status for answer in answers] == [101] * 3 + [429] * 7
        seconds = answers[-1].problem["retry"]
        clock.seconds += seconds - 1
        assert await statuses(app, 1, user=alice) == [429]
        clock.seconds += 1


async def test_windows_of_two_keys_end_at_different_moments(clock):
    app = guarded(Throttle("1/day", key="ip"), accept)
    ends = set()
    for number in range(8):
        await knock(app, "/", client=[f"192.0.2.{number}", 1])
        ends.add((await knock(app, "/", client=[f"192.0.2.{number}", 1])).problem["retry"])
    assert len(ends) > 4


async def test_a_clock_that_is_set_back_finds_its_earlier_count(clock):
    app = guarded(Throttle("2/min"), accept)
    clock.seconds += [await knock(app, "/", user=alice) for _ in range(3)][-1].problem["retry"]
    assert await statuses(app, 3, user=alice) == [101, 101, 429]
    clock.seconds -= 45
    assert await statuses(app, 1, user=alice) == [429]


V6, ONES = "2001:db8:0:1:", ("1", 1)
#: Two handshakes: the throttle's arguments, what differs, and whether they share one count.
SHARED = {
    "two users": ({}, {"user": alice}, {"user": boss}, False),
    "a user at two addresses": ({}, {"user": alice}, {"user": alice, "client": ["192.0.2.1", 1]}, True),
    "a user whose key is like an address": ({}, {"user": type(alice)(pk="127.0.0.1")}, {}, False),
    "anonymous users of one address": ({}, {}, {}, True),
    "anonymous users of two": ({}, {}, {"client": ["192.0.2.1", 1]}, False),
    "users of one address": ({"key": "ip"}, {"user": alice}, {"user": boss}, True),
    "ports": ({"key": "ip"}, {"client": ["192.0.2.1", 1]}, {"client": ["192.0.2.1", 2]}, True),
    "addresses of one network": ({"key": "ip"}, {"client": [V6 + ":1", 1]}, {"client": [V6 + "ffff::2", 1]}, True),
    "networks": ({"key": "ip"}, {"client": [V6 + ":1", 1]}, {"client": ["2001:db8:0:2::1", 1]}, False),
    "mapped": ({"key": "ip"}, {"client": ["::ffff:192.0.2.1", 1]}, {"client": ["192.0.2.1", 1]}, True),
    "two mapped": ({"key": "ip"}, {"client": ["::ffff:192.0.2.1", 1]}, {"client": ["::ffff:192.0.2.2", 1]}, False),
    "forwarded": ({"key": "ip"}, {"headers": [(b"x-forwarded-for", b"1.1.1.1")]}, {}, True),
    "what a function returns": ({"key": lambda request: request.user.username}, {"user": alice}, {"user": boss}, False),
    "an int and a text": ({"key": lambda request: ONES[request.user.is_staff]}, {"user": alice}, {"user": boss}, False),
    "the same": ({"key": lambda request: uuid.UUID(int=1)}, {"user": alice}, {"user": boss}, True),
}


@pytest.mark.parametrize(("policy", "one"), BOTH)
@pytest.mark.parametrize("name", SHARED)
async def test_two_share_a_count_where_the_key_is_the_same(name, policy, one):
    given, first, second, is_shared = SHARED[name]
    app = guarded(policy(one, **given), accept)
    async with opened(app, **{"user": anonymous, **first}):
        assert (await knock(app, "/", **{"user": anonymous, **second})).status == (429 if is_shared else 101)


#: The policies of two routes, and whether they share one count.
SCOPES = {
    "one policy": (one := Throttle("1/day"), one, False),
    "equal policies": (Throttle("1/day"), Throttle("1/day"), False),
    "one scope": (Throttle("1/day", scope="a"), Throttle("1/d", scope="a"), True),
    "two scopes": (Throttle("1/day", scope="a"), Throttle("1/day", scope="b"), False),
    "one scope at two rates": (Throttle("1/day", scope="a"), Throttle("1/h", scope="a"), False),
    "connections of one scope": (MaxConnections(1, scope="a"), MaxConnections(1, scope="a"), True),
    "connections of two routes": (MaxConnections(1), MaxConnections(1), False),
    "a throttle and connections": (Throttle("1/day", scope="a"), MaxConnections(1, scope="a"), False),
}


@pytest.mark.parametrize("name", SCOPES)
async def test_paths_of_one_route_share_a_count_and_routes_do_by_their_scope(name):
    first, second, is_shared = SCOPES[name]
    app = routed(one=first, two=second)
    async with opened(app, "/one/a/", user=alice):
        assert await statuses(app, 1, "/one/b/", user=alice) == [429]
        assert await statuses(app, 1, "/two/a/", user=alice) == [429 if is_shared else 101]


async def test_consumers_without_a_stack_or_with_one_at_each_route_have_counts_of_their_own():
    policy = Throttle("1/day")
    consumers = [require(policy)(type(name, (Hello,), {})) for name in ("One", "Two")]
    for wrap in (lambda app: app, DenyMiddlewareStack):
        app = URLRouter([path(f"{cls.__name__}/", wrap(cls.as_asgi())) for cls in consumers])
        await cache.aclear()
        for url in ("/One/", "/Two/"):
            assert [(await fetch(app, url, user=alice)).status for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    ("key", "scope", "problem"),
    [
        (lambda request: None, {}, "returned a NoneType"),
        (lambda request: object(), {}, "returned a object"),
        (lambda request: True, {}, "returned a bool"),
        ("ip", {"client": None, "server": ["/run/site.sock", None]}, "REMOTE_ADDR"),
        ("user", {"client": None, "server": None}, "REMOTE_ADDR"),
        ("ip", {"client": ["192.0.2.1:50000", 0]}, "REMOTE_ADDR"),
        ("user", {"user": SimpleNamespace(is_authenticated=True, pk=None)}, "no primary key"),
    ],
)
async def test_a_key_that_is_none_denies_and_says_so(key, scope, problem, caplog):
    for policy in (Throttle("9/day", key), MaxConnections(9, key)):
        assert (await knock(guarded(policy, accept), "/", **{"user": anonymous, **scope})).status == 500
    assert [problem in str(error) for error in errors(caplog)] == [True, True]


async def test_a_client_that_was_gone_before_the_server_knew_its_address_is_no_error_of_the_site(caplog):
    for policy in (Throttle("9/day", "ip"), MaxConnections(9)):
        assert (await knock(guarded(policy, accept), "/", user=anonymous, client=None)).status == 400
    assert errors(caplog) == []


def test_no_key_of_the_cache_has_what_a_client_has_sent(settings):
    settings.CACHES = {"default": {"BACKEND": "tests.support.caches.Counting", "LOCATION": uuid.uuid4().hex}}
    Counting.calls.clear()
    sent = "a b\r\n\0" + "c" * 300
    Throttle("1/day", key=lambda request: sent, scope="d e").check(request_of())
    assert Counting.calls
    for _, key in Counting.calls:
        assert key.isascii()
        assert key.isprintable()
        assert " " not in key
        assert not {"a b", "ccc", "d e"} & {key[at : at + 3] for at in range(len(key))}


async def test_one_handshake_counts_once_whatever_asks_again():
    policy, same = Throttle("2/day", key="ip"), Throttle("2/day", key="ip")
    inner = With(require(same & IsAuthenticated())(accept), user=boss)
    app = DenyMiddlewareStack(require(policy & AllowAny())(require(policy)(inner)))
    assert await statuses(app, 3, user=alice) == [101, 101, 429]
    limit = MaxConnections(1, key="ip")
    app = DenyMiddlewareStack(require(limit & AllowAny())(With(require(limit)(accept), user=boss)))
    assert await statuses(app, 2, user=alice) == [101, 101]


def by_kwarg(name):
    return lambda request: request.resolver_match.kwargs[name]


KEYS = [
    (lambda request: request.resolver_match.kwargs["room"], lambda request: request.resolver_match.kwargs["name"]),
    (by_kwarg("room"), by_kwarg("name")),
    ("ip", "user"),
]


def of_room(request):
    return request.resolver_match.kwargs["room"]


async def test_a_function_is_one_key_wherever_it_is_named_and_a_room_with_the_name_of_a_language_has_its_own_count():
    policies = [Throttle("1/day", key=of_room), Throttle("1/day", key=of_room)]
    routes = [
        path("en/<room>/", guarded(policies[0] & policies[1], accept)),
        path("<room>/", guarded(policies[0], accept)),
    ]
    app = DenyMiddlewareStack(URLRouter(routes))
    found = [(await knock(app, where, user=anonymous)).status for where in ("/en/a/", "/a/", "/en/a/")]
    assert found == [101, 101, 429]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("keys", KEYS, ids=["lambdas", "closures", "words"])
async def test_limits_with_different_keys_count_apart(keys, first):
    keys = keys[first:] + keys[:first]
    policy = Throttle("1/day", key=keys[0]) & Throttle("1/day", key=keys[1])
    app = DenyMiddlewareStack(URLRouter([path("<int:room>/<int:name>/", guarded(policy, accept))]))
    one, other = {"user": anonymous, "client": ("1.2.3.4", 1)}, {"user": anonymous, "client": ("1.2.3.5", 1)}
    found = [(await knock(app, where, **who)).status for where, who in (("/7/8/", one), ("/8/7/", other))]
    assert found == [101, 101]
    limits = MaxConnections(9, key=keys[0]) & MaxConnections(1, key=keys[0])
    app = DenyMiddlewareStack(URLRouter([path("<int:room>/<int:name>/", guarded(limits, accept))]))
    async with opened(app, path="/1/2/", **one):
        assert (await knock(app, "/1/2/", **one)).status == 429


def test_a_route_of_i18n_patterns_has_one_count_for_all_languages(client, settings):
    page = require(Throttle("1/day", key="ip"))(lambda request: HttpResponse())
    settings.ROOT_URLCONF = ModuleType("urls")
    settings.ROOT_URLCONF.urlpatterns = i18n_patterns(path("code/", page))
    settings.MIDDLEWARE = ["django.middleware.locale.LocaleMiddleware", *settings.MIDDLEWARE]
    assert [client.get(f"/{language}/code/").status_code for language in ("en", "de", "fr")] == [200, 429, 429]


async def test_the_end_of_a_socket_whose_slot_was_evicted_frees_no_other():
    app = guarded(MaxConnections(1, key="ip"), accept)
    async with contextlib.AsyncExitStack() as sockets:
        first = await sockets.enter_async_context(contextlib.AsyncExitStack())
        await first.enter_async_context(opened(app, user=anonymous))
        await cache.aclear()
        await sockets.enter_async_context(opened(app, user=anonymous))
        await first.aclose()
        assert (await knock(app, "/", user=anonymous)).status == 429


def test_copies_of_a_views_request_count_apart_but_for_one_that_is_only_reported(rf):
    throttle, ran = Throttle("3/day", "ip"), []

    @require(throttle)
    @require(throttle, enforce=False)
    def view(request):
        ran.append(request)
        return HttpResponse()

    request = rf.get("/")
    assert [view(request).status_code for _ in range(5)] == [200] * 5
    assert [view(copy.copy(request)).status_code for _ in range(5)] == [200, 200, 429, 429, 429]
    assert len(ran) == 7


async def test_a_user_who_comes_in_between_counts_too():
    policy = Throttle("1/day")
    app = DenyMiddlewareStack(require(policy)(With(require(policy)(accept), user=boss)))
    assert await statuses(app, 1, user=alice) == [101]
    assert await statuses(app, 1, user=type(alice)(pk=7)) == [429]


async def test_a_try_that_another_policy_denies_counts_and_one_that_a_throttle_denies_does_not_reach_the_next():
    app = guarded(Throttle("2/day", scope="a") & DenyAll(), accept)
    assert await statuses(app, 3, user=alice) == [403, 403, 429]
    app = guarded(Throttle("1/h", scope="b") & Throttle("2/day", scope="c"), accept)
    assert await statuses(app, 3, user=alice) == [101, 429, 429]
    assert await statuses(guarded(Throttle("2/day", scope="c"), accept), 2, user=alice) == [101, 429]


async def test_a_plain_get_of_a_sockets_address_counts_for_its_handshakes():
    app = routed(one=Throttle("2/day"), app=consumer().as_asgi())
    assert (await fetch(app, "/one/a/", user=alice)).status == 426
    assert await statuses(app, 2, "/one/a/", user=alice) == [101, 429]
    assert (await fetch(app, "/one/a/", user=alice)).status == 429


@pytest.mark.parametrize("policy", [Throttle("1/day", key="ip"), MaxConnections(1, key="ip")])
async def test_explain_tells_what_would_be_and_does_not_count(policy, use_application):
    use_application(application := routed(one=policy))

    async def explained():
        lines = await asyncio.to_thread(lambda: [*explain("/one/a/", "websocket", None, []).lines()])
        return [line for line in lines if line.startswith("HTTP")]

    assert [await explained() for _ in range(2)] == [["HTTP 101 Switching Protocols"]] * 2
    async with opened(application, "/one/a/"):
        assert await explained() == ["HTTP 429 Too Many Requests"]


class Within(Policy):
    """A policy of a site's own, which asks others by itself."""

    def __init__(self, *policies):
        self.policies = policies

    def check(self, request):
        answers = (policy.check(request) for policy in self.policies)
        return next((answer for answer in answers if answer is not True), True)


async def test_what_counts_within_another_policy_counts_an_open_socket_once(headers_of):
    throttle = type("Twice", (UserRateThrottle,), {"rate": "2/day"})
    policy = Within(Throttle("1/day"), MaxConnections(2), RestFramework(throttles=[throttle]))
    app = guarded(policy, consumer(receive=asks_again).as_asgi())
    async with opened(app, headers=headers_of("alice")) as socket:
        for _ in range(3):
            await socket.send("again")
            assert (await socket.next()).get("text") == "still here"
        assert len(throttling._slots._held) == 1


async def test_a_slot_that_joining_a_group_takes_is_released_with_the_socket(headers_of):
    async def join(self, **data):
        await self.scope["wsdeny"].join("members", Within(MaxConnections(1)))
        await self.send("joined")

    app = require(AllowAny())(consumer(receive=join)).as_asgi()
    for _ in range(2):
        async with opened(app, headers=headers_of("alice")) as socket:
            await socket.send("join")
            assert (await socket.next()).get("text") == "joined"
            assert len(throttling._slots._held) == 1


async def _leave(app):
    await (await Opened(app, user=alice).accepted()).leave()


async def _cancel(app):
    opened = await Opened(app, user=alice).accepted()
    opened.task.cancel()
    await asyncio.wait({opened.task})


async def _break(app):
    with pytest.raises(ZeroDivisionError):
        await Server().run(app, user=alice)


async def _answer(app):
    await knock(app, "/", user=alice)


async def _vanish(app):
    server = Server()
    task = server.begin(app, user=alice)
    await until(lambda: throttling._slots._held)
    server.events.put_nowait(disconnect())
    gate.open()
    await task


async def silent(scope, receive, send):
    await receive()


async def broken(scope, receive, send):
    await send({"type": "websocket.accept"})
    raise ZeroDivisionError


gate = Gate()
ENDS = {
    "the client leaves": (_leave, AllowAny(), accept),
    "the server cancels": (_cancel, AllowAny(), accept),
    "the consumer fails": (_break, AllowAny(), broken),
    "a later policy denies": (_answer, DenyAll(), accept),
    "a later policy fails": (_answer, Check(raising(ValueError)), accept),
    "the consumer denies": (_answer, AllowAny(), lambda scope, receive, send: send({"type": "websocket.close"})),
    "the consumer does not answer": (_answer, AllowAny(), silent),
    "the client leaves before the answer": (_vanish, Check(gate), accept),
}


@pytest.mark.parametrize("name", ENDS)
async def test_a_slot_is_free_again_when(name):
    end, policy, app = ENDS[name]
    await end(guarded(MaxConnections(1) & policy, app))
    await until(lambda: not throttling._slots._held)
    assert (await ask(MaxConnections(1), alice)).status == 101


async def test_a_slot_that_is_taken_after_the_time_for_policies_is_free_again(settings, monkeypatch):
    settings.CHANNELS_WSDENY = {"POLICY_TIMEOUT": 0.05}
    slow, take = Gate(), throttling._Slots.take
    monkeypatch.setattr(throttling._Slots, "take", lambda *arguments: slow() and take(*arguments))
    app = guarded(MaxConnections(1), accept)
    assert (await knock(app, "/", user=alice)).status == 503
    slow.open()
    await until(lambda: slow.left and not throttling._slots._held)
    settings.CHANNELS_WSDENY = {}
    assert (await knock(app, "/", user=alice)).status == 101


async def test_an_http_consumer_holds_its_slot_while_it_streams():
    going = asyncio.Event()

    class Stream(AsyncHttpConsumer):
        async def handle(self, body):
            await self.send_headers(headers=[])
            await self.send_body(b"a", more_body=True)
            await going.wait()
            await self.send_body(b"b")

    app = guarded(MaxConnections(1), Stream.as_asgi())
    stream = asyncio.ensure_future(fetch(app, "/", user=alice))
    await until(lambda: throttling._slots._held)
    assert (await fetch(app, "/", user=alice)).status == 429
    going.set()
    assert (await stream).body == b"ab"
    assert throttling._slots._held == {}


def test_a_limit_of_connections_on_a_view_is_an_error_and_a_throttle_counts(site, caplog):
    limited = require(MaxConnections(5, key="ip"))(lambda request: HttpResponse())
    throttled = require(Throttle("2/day", key="ip"))(lambda request, slug: HttpResponse())
    site.serve(path("limited/", limited), path("throttled/<slug>/", throttled))
    assert site.ask("/limited/").status == 500
    assert "is for WebSockets" in str(errors(caplog)[0])
    pages = [site.ask(f"/throttled/{slug}/") for slug in "abc"]
    assert [page.status for page in pages] == [200, 200, 429]
    assert pages[-1].problem["retry"] == int(pages[-1].headers["retry-after"])


async def test_a_heartbeat_prolongs_a_slot(settings):
    settings.CACHES = cache_settings("redis")
    redis = import_module("redis").Redis.from_url(REDIS)
    async with opened(guarded(MaxConnections(1), accept), user=alice):
        ((name, *_),) = throttling._slots._held.values()
        key = cache.make_key(name)
        redis.expire(key, 5)
        await asyncio.to_thread(throttling._slots.renew)
        assert 25 < redis.ttl(key) <= 30
    redis.close()
    assert cache.get(name) is None


def key_of_tenant(key, prefix, version):
    return f"{getattr(connection, 'tenant', 'nobody')}:{key}"


async def test_slots_are_kept_and_freed_for_the_tenant_whose_cache_they_are_in(settings):
    settings.CHANNELS_WSDENY = {"MIDDLEWARE": [f"{Tenancy.__module__}.Tenancy"]}
    settings.CACHES = {"default": {**settings.CACHES["default"], "KEY_FUNCTION": key_of_tenant}}
    application = DenyMiddlewareStack(guarded(MaxConnections(1), accept))

    def come(tenant):
        return Handshake(application, websocket_scope("/", user=alice, headers=[(b"x-tenant", tenant)]))

    sockets = [come(tenant) for tenant in (b"blue", b"red", b"blue")]
    assert [(await socket.connect()).status for socket in sockets] == [101, 101, 429]
    await asyncio.to_thread(throttling._slots.renew)
    assert {key.partition(":")[0] for key in cache._cache} == {"blue", "red"}
    await sockets[0].leave()
    again = come(b"blue")
    assert [(await socket.connect()).status for socket in (again, come(b"red"))] == [101, 429]
    for socket in (sockets[1], again):
        await socket.leave()


async def test_a_slot_that_is_released_while_it_is_renewed_is_free(monkeypatch):
    slots, gate, read = throttling._Slots(), Gate(), LocMemCache.get_many
    taken = slots.take(cache, "default", ["a"])
    monkeypatch.setattr(LocMemCache, "get_many", lambda *given: (read(*given), gate())[0])
    renewing = asyncio.create_task(asyncio.to_thread(slots.renew))
    await until(lambda: gate.came)
    releasing = asyncio.create_task(asyncio.to_thread(slots.release, taken))
    await asyncio.wait({releasing}, timeout=0.1)
    gate.open()
    await asyncio.gather(renewing, releasing)
    assert cache.get("a") is None


async def test_a_slot_that_another_has_by_now_is_left_to_it():
    slots = throttling._Slots()
    slots.take(cache, "default", ["a"])
    cache.set("a", "another")
    await asyncio.to_thread(slots.renew)
    assert (slots._held, cache.get("a")) == ({}, "another")


async def test_one_thread_renews_while_there_are_slots_also_one_that_was_forgotten_and_ends_with_them(settings):
    settings.CHANNELS_WSDENY = {"HEARTBEAT": 0.01}
    slots = throttling._Slots()
    a, b = (slots.take(cache, "default", [name]) for name in "ab")
    (thread,) = [each for each in threading.enumerate() if each is slots._thread]
    assert thread.daemon
    cache.delete("b")
    await until(lambda: cache.get("b") == b)
    slots.release(a)
    slots.release(b)
    await until(lambda: not thread.is_alive())
    c = slots.take(cache, "default", ["c"])
    assert slots._thread.is_alive()
    slots.release(c)
    await until(lambda: slots._thread is None)


async def test_a_cache_that_is_down_is_logged_once_and_asked_again(settings, caplog, monkeypatch):
    settings.CHANNELS_WSDENY = {"HEARTBEAT": 0.01}
    slots = throttling._Slots()
    beats = iter([ConnectionError(), ConnectionError(), None])

    def renew():
        error = next(beats, None)
        if error is not None:
            raise error
        slots._held.clear()

    monkeypatch.setattr(slots, "renew", renew)
    slots.take(cache, "default", ["a"])
    await until(lambda: slots._thread is None)
    assert [type(error) for error in errors(caplog)] == [ConnectionError]


@pytest.mark.parametrize(("policy", "one"), BOTH)
async def test_while_the_cache_is_down_all_are_denied_unless_they_are_to_be_allowed(policy, one, settings, caplog):
    settings.CACHES = cache_settings("redis", "redis://127.0.0.1:1")
    answer = await ask(policy(one), alice)
    assert (answer.status, answer.problem["code"], answer.problem["retry"]) == (503, "unavailable", 5)
    caplog.clear()
    assert await statuses(guarded(policy(one, on_outage="allow"), accept), 3, user=alice) == [101] * 3
    (error,) = errors(caplog)
    assert "uncounted" in str(error)


async def test_a_database_that_is_down_is_no_outage_of_the_cache():
    user = SimpleLazyObject(raising(OperationalError))
    for policy in (Throttle("1/day", on_outage="allow"), MaxConnections(1, on_outage="allow")):
        assert (await knock(guarded(policy, accept), "/", user=user)).status == 503


@pytest.mark.parametrize(
    ("backend", "statuses"),
    [
        ("tests.support.caches.Silent", [503, 429, 101]),
        ("django.core.cache.backends.dummy.DummyCache", [500, 500, 500]),
        ("tests.support.caches.Missing", [500, 500, 500]),
    ],
)
async def test_a_cache_that_cannot_count_denies(backend, statuses, settings):
    settings.CACHES = {"default": {"BACKEND": backend}}
    policies = Throttle("1/day"), MaxConnections(1), Throttle("1/day", on_outage="allow")
    assert [(await ask(policy, alice)).status for policy in policies] == statuses


async def test_each_takes_few_commands_of_the_cache(settings):
    settings.CACHES = {"default": {"BACKEND": "tests.support.caches.Counting", "LOCATION": uuid.uuid4().hex}}

    async def commands(app):
        Counting.calls.clear()
        await knock(app, "/", user=alice)
        return [name for name, _ in Counting.calls]

    app = guarded(Throttle("2/day"), accept)
    assert [await commands(app) for _ in range(3)] == [["incr", "add"], ["incr"], ["incr"]]
    app = guarded(MaxConnections(1), accept)
    assert [await commands(app) for _ in range(2)] == [["add", "delete"]] * 2
    async with opened(app, user=alice):
        assert await commands(app) == ["add", "get_many"]


RATES = {"20/min": (20, 60), "5/s": (5, 1), "100/day": (100, 86400), "1/h": (1, 3600), "7/Minute": (7, 60)}
RATES |= {"3 / hours": (3, 3600), "2/d": (2, 86400)}


@pytest.mark.parametrize(("rate", "expected"), RATES.items())
def test_a_rate_is_that_of_rest_framework(rate, expected):
    policy = Throttle(rate)
    assert (policy.number, policy.seconds) == expected


@pytest.mark.parametrize(
    "rate", ["", "20", "/min", "20/", "20/w", "0/min", "-1/min", "1.5/s", "a/min", "20/month", "20/ms", "20//s", "٣/s"]
)
def test_what_is_no_rate_is_an_error(rate):
    with pytest.raises(ValueError, match="A rate is a number above 0"):
        Throttle(rate)


WRONG = [
    ("rate", 20),
    *(("key", wrong) for wrong in ("session", [], accept)),
    ("scope", ""),
    ("scope", 3),
    ("cache", None),
]


def test_arguments_that_are_wrong_are_errors():
    for name, wrong in WRONG:
        with pytest.raises(TypeError, match=r"takes|A rate is a string"):
            Throttle(**{"rate": "1/s", name: wrong})
    for arguments in (("5",), (True,), (0,), (1001,), (1, None)):
        with pytest.raises(TypeError, match="takes"):
            MaxConnections(*arguments)
    with pytest.raises(ValueError, match="on_outage"):
        Throttle("1/s", on_outage="ignore")


def test_a_subclass_may_give_its_own_answer():
    class Slow(Throttle):
        status, code, detail = 503, "slow_down", "Slowly."

    policy = Slow("1/day", key="ip")
    assert policy.check(request_of()) is True
    denial = policy.check(request_of())
    assert isinstance(denial, Deny)
    assert (denial.status, denial.code, denial.detail) == (503, "slow_down", "Slowly.")
    assert 0 < int(denial.headers["Retry-After"]) <= math.ceil(86400)
