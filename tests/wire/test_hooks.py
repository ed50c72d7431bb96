"""Hooks over the wire: what they add to a 101 and to a denial, what they answer, and clients that leave."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
from django.http import HttpResponse, JsonResponse

from channels_wsdeny import Deny, Hooks

from .raw import GUARD, TEXT

# The hooks of the servers. A request says by its query what they are to do.

hooks = Hooks()
#: What holds the requests that wait in a hook, by their token.
HELD: dict[str, asyncio.Event] = {}


def what(request):
    return request.GET.get("do", "")


@hooks.on_request(blocking=False)
def begin(request):
    request.ctx.seen = request.headers.get("X-Word", "none")


@hooks.on_request
def answer_early(request):
    if what(request) == "early":
        return Deny(429, "Later.", headers={"Retry-After": "9"})
    return None


async def hold(request, where):

    if what(request) != f"hold-in-{where}":
        return
    event = HELD[request.GET["token"]] = asyncio.Event()
    logging.getLogger("tests.wire").info("%s holds %s", where, request.GET["token"])
    await event.wait()


@hooks.on_request
async def hold_early(request):
    if what(request) == "release":
        HELD.pop(request.GET["token"]).set()
    await hold(request, "request")


@hooks.on_response
async def hold_late(request, response):
    await hold(request, "response")


@hooks.on_response
def tell(request, response):
    response["X-Word"] = request.ctx.seen
    response["X-Status"] = str(response.status_code)
    response.set_cookie("one", "1")
    response.set_cookie("two", "2", path="/two", httponly=True)


@hooks.on_response(priority=1)
def replace(request, response):
    if what(request) == "replace":
        return JsonResponse({"full": True}, status=403, headers={"X-Replaced": "1"})
    return None


@hooks.around
async def surround(request, call_next):
    if what(request) == "around":
        return HttpResponse(b"around", status=403, content_type="text/x")
    if what(request) == "impatient":
        try:
            async with asyncio.timeout(0.1):
                return await call_next(request)
        except TimeoutError:
            return HttpResponse(b"too slow", status=403, content_type="text/x")
    response = await call_next(request)
    response["X-Around"] = "1"
    return response


SERVERS = ["daphne", "uvicorn-websockets", "uvicorn-sansio", "uvicorn-wsproto"]
COOKIES = ["one=1; Path=/", "two=2; HttpOnly; Path=/two"]


@pytest.fixture(params=SERVERS)
def server(request, fleet):
    return fleet.get(request.param, HOOKS=["tests.wire.test_hooks.hooks"])


@pytest.fixture
def ask(server):
    """A function from a path (and headers) to the answer of a request that is not accepted."""

    def ask(path, headers=None):
        with server.connect() as connection:
            connection.request(path, headers)
            return connection.answer()

    return ask


def cookies_of(answer):
    return [value for name, value in answer.headers if name == "set-cookie"]


def test_headers_and_cookies_of_hooks_are_on_the_101_and_the_socket_speaks(server):
    with server.connect() as connection:
        connection.request("/ws/allow-any/", {"X-Word": "hello"})
        answer = connection.answer()
        assert answer.status == connection.accepted
        assert [answer.header(name) for name in ("x-word", "x-status", "x-around")] == ["hello", "101", "1"]
        assert cookies_of(answer) == COOKIES
        connection.say(TEXT, b"a")
        assert connection.hear() == (TEXT, b"a")
        connection.close()


def test_headers_of_hooks_and_of_the_consumer_are_on_the_101(server):
    with server.connect() as connection:
        connection.request("/accepts-with-headers/")
        answer = connection.answer()
        assert (answer.header("x-wire"), answer.header("x-word")) == ("yes", "none")
        assert cookies_of(answer) == ["one=1", "two=2; Path=/", *COOKIES]
        connection.close()


@pytest.mark.parametrize(
    ("path", "status"),
    [("/ws/deny-all/", 403), ("/ws/anonymous/", 401), ("/nowhere/", 404), ("/closes-4404/", 404)],
)
def test_headers_and_cookies_of_hooks_are_on_a_denial(path, status, ask):
    answer = ask(path, {"X-Word": "hello"})
    assert (answer.status, answer.problem["status"]) == (status, status)
    assert [answer.header(name) for name in ("x-word", "x-status", "x-around")] == ["hello", str(status), "1"]
    assert cookies_of(answer) == COOKIES


def test_an_early_answer_comes_before_any_policy(ask):
    answer = ask("/ws/anonymous/?do=early")
    assert (answer.status, answer.header("retry-after"), answer.problem["detail"]) == (429, "9", "Later.")
    assert answer.header("x-status") == "429"


def test_an_accept_that_a_hook_replaces_is_a_denial(ask):
    answer = ask("/ws/allow-any/?do=replace")
    assert (answer.status, answer.body, answer.header("x-replaced")) == (403, b'{"full": true}', "1")
    assert answer.header("content-length") == str(len(answer.body))
    assert cookies_of(answer) == []  # the hooks after it have no say


def test_a_denial_that_a_hook_replaces_is_another(ask):
    assert ask("/ws/deny-all/?do=replace").body == b'{"full": true}'


def test_an_around_hook_answers_in_the_place_of_all(ask):
    answer = ask("/ws/allow-any/?do=around")
    assert (answer.status, answer.body, answer.header("content-type")) == (403, b"around", "text/x")


def test_an_around_hook_that_does_not_wait_for_the_policy_denies(ask, token):
    answer = ask(f"/hold/{token}/allow/?do=impatient")
    assert (answer.status, answer.body) == (403, b"too slow")


def test_a_plain_get_on_a_socket_needs_an_upgrade_and_has_the_headers_of_hooks(ask):
    plain = {"Connection": None, "Upgrade": None, "Sec-WebSocket-Version": None, "Sec-WebSocket-Key": None}
    answer = ask("/ws/allow-any/", plain)
    assert (answer.status, answer.header("upgrade"), answer.header("x-status")) == (426, "websocket", "426")
    assert cookies_of(answer) == COOKIES


def test_a_plain_get_on_a_socket_that_is_closed_is_denied_as_its_handshake(ask):
    plain = {"Connection": None, "Upgrade": None, "Sec-WebSocket-Version": None, "Sec-WebSocket-Key": None}
    answer, handshake = ask("/ws/anonymous/", plain), ask("/ws/anonymous/")
    assert (answer.status, answer.body, cookies_of(answer)) == (401, handshake.body, cookies_of(handshake))


@pytest.fixture(params=["close", "reset"])
def leave(request):
    """A function that ends a connection from the client's side."""
    if request.param == "close":
        return lambda connection: connection.socket.close()
    return lambda connection: connection.reset()


@pytest.mark.parametrize("where", ["request", "response"])
@pytest.mark.parametrize("path", ["/ws/allow-any/", "/ws/deny-all/"])
def test_a_client_may_leave_while_a_hook_runs(path, where, leave, server, ask, token):
    with server.connect() as connection:
        connection.request(f"{path}?do=hold-in-{where}&token={token}")
        server.wait_for(f"{where} holds {token}")
        leave(connection)
    ask(f"/ws/deny-all/?do=release&token={token}")
    deadline = time.monotonic() + GUARD
    while [address for address in server.report()["running"] if token in address]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
