from __future__ import annotations

import asyncio
import json

import pytest
from channels.exceptions import DenyConnection
from channels.generic.http import AsyncHttpConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib.sessions.backends.db import SessionStore
from django.core.asgi import get_asgi_application
from django.core.exceptions import BadRequest, PermissionDenied
from django.db import OperationalError
from django.http import Http404
from django.urls import path

from channels_wsdeny import Deny, DenyMiddlewareStack
from channels_wsdeny.decorators import login_required, permission_required, public, require
from channels_wsdeny.handlers.http import Visit
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated, IsStaff, Policy
from tests.cases import Answers, AsyncAnswers, Raises
from tests.clients import answer_of, fetch, http_scope

pytestmark = pytest.mark.django_db


def guarded(policy=None, base=AsyncHttpConsumer, **attributes):
    """An HTTP consumer of its own behind `policy`, as an ASGI application."""
    consumer = type("Consumer", (base,), attributes)
    return require(AllowAny() if policy is None else policy)(consumer).as_asgi()


async def run(app, *events, url="/", **scope):
    """The messages that `app` sends for these events; a `receive` past the last of them waits."""
    queue, sent = asyncio.Queue(), []
    for event in events:
        queue.put_nowait(event)

    async def send(message):
        sent.append(message)

    await asyncio.wait_for(app(http_scope(url, **scope), queue.get, send), 5)
    return sent


def request(body=b"", more_body=False):
    return {"type": "http.request", "body": body, "more_body": more_body}


DISCONNECT = {"type": "http.disconnect"}


async def echo(self, body):
    await self.send_response(200, b"got " + body, headers=[(b"content-type", b"text/plain")])


async def hello(self, body):
    await self.send_response(200, b"hello")


# The body.


async def test_the_body_reaches_the_consumer():
    sent = await run(guarded(handle=echo), request(b"abc"), method="POST")
    assert (sent[0]["status"], sent[1]["body"]) == (200, b"got abc")


async def test_a_body_in_parts_reaches_the_consumer():
    sent = await run(
        guarded(handle=echo), request(b"a", True), request(b"b", True), request(b"c"), method="POST"
    )
    assert sent[1]["body"] == b"got abc"


@pytest.mark.parametrize("policy", [Answers(lambda: True), AsyncAnswers(lambda: True), IsAuthenticated()])
async def test_the_body_reaches_the_consumer_after_any_policy(policy, headers_of):
    sent = await run(
        guarded(policy, handle=echo), request(b"abc"), method="POST", headers=headers_of("alice")
    )
    assert sent[1]["body"] == b"got abc"


async def test_a_denial_does_not_wait_for_the_body():
    sent = await run(guarded(DenyAll(), handle=echo), method="POST")
    assert sent[0]["status"] == 403


class Reads(Policy):
    """Reads the body in the way that `read` says, and denies if it got one."""

    def __init__(self, read):
        self.read = read

    def check(self, request):
        self.read(request)
        return True


FORM = [(b"content-type", b"application/x-www-form-urlencoded"), (b"content-length", b"3")]
READERS = {
    "body": lambda request: request.body,
    "read": lambda request: request.read(),
    "readline": lambda request: request.readline(),
    "readlines": lambda request: request.readlines(),
    "POST": lambda request: request.POST,
    "FILES": lambda request: request.FILES,
    "iteration": list,
}


@pytest.mark.parametrize("name", READERS)
async def test_a_policy_that_reads_the_body_denies_rather_than_see_an_empty_one(name):
    reached = []

    async def handle(self, body):
        reached.append(body)

    sent = await run(
        guarded(Reads(READERS[name]), handle=handle), request(b"a=b"), method="POST", headers=FORM
    )
    assert (sent[0]["status"], reached) == (500, [])


async def test_the_log_says_why_a_policy_cannot_read_the_body(caplog):
    app = guarded(Reads(READERS["body"]), handle=echo)
    await run(app, request(b"a=b"), method="POST", headers=FORM)
    (record,) = [record for record in caplog.records if record.name == "django.request"]
    assert "read by the ASGI application" in str(record.exc_info[1])


async def test_a_policy_may_read_what_is_in_the_head():
    def read(request):
        assert request.method == "PUT"
        assert request.GET["a"] == "1"
        assert request.headers["X-A"] == "2"
        assert request.COOKIES["b"] == "3"
        assert request.path == "/some/where/"
        assert request.get_host() == "testserver"

    headers = [(b"x-a", b"2"), (b"cookie", b"b=3"), (b"host", b"testserver")]
    answer = await fetch(
        guarded(Reads(read), handle=hello), "/some/where/?a=1", method="PUT", headers=headers
    )
    assert answer.status == 200


# What the application answers.


async def test_the_headers_of_the_application_go_out_in_lower_case():
    async def handle(self, body):
        await self.send_response(
            200, b"", headers=[(b"X-A", b"1"), (b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2")]
        )

    answer = await fetch(guarded(handle=handle), "/")
    assert answer.headers == [("x-a", "1"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]


async def test_a_response_in_parts_goes_out_in_parts():
    async def handle(self, body):
        await self.send_headers(status=200, headers=[])
        await self.send_body(b"a", more_body=True)
        await self.send_body(b"b")

    sent = await run(guarded(handle=handle), request())
    assert [(message.get("body"), message.get("more_body")) for message in sent] == [
        (None, None),
        (b"a", True),
        (b"b", False),
    ]


@pytest.mark.parametrize("status", [200, 204, 304, 404, 500])
async def test_the_applications_own_status_goes_out(status):
    async def handle(self, body):
        await self.send_response(status, b"mine")

    answer = await fetch(guarded(handle=handle), "/")
    assert (answer.status, answer.body, answer.header("cache-control")) == (status, b"mine", None)


@pytest.mark.parametrize(
    "header",
    [(b"x-a", b"1\r\nset-cookie: b=c"), (b"x a", b"1"), ("x-a", b"1"), (b"x-a", "1"), (b"x-a", b"\0")],
)
async def test_a_header_that_cannot_be_sent_becomes_a_500(header):
    async def handle(self, body):
        await self.send({"type": "http.response.start", "status": 200, "headers": [header]})
        await self.send({"type": "http.response.body", "body": b"secret"})

    answer = await fetch(guarded(handle=handle), "/")
    assert (answer.status, answer.header("set-cookie")) == (500, None)
    assert b"secret" not in answer.body


async def test_messages_of_other_types_pass():
    async def app(scope, receive, send):
        await send({"type": "http.response.push", "path": "/style.css", "headers": []})
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b""})
        await send({"type": "http.response.trailers", "headers": []})

    sent = await run(require(AllowAny())(app), request())
    assert [message["type"].removeprefix("http.response.") for message in sent] == [
        "push",
        "start",
        "body",
        "trailers",
    ]
    assert sent[1]["trailers"] is True


# Exceptions.


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PermissionDenied("secret"), 403),
        (DenyConnection(), 403),
        (Http404("secret"), 404),
        (BadRequest("secret"), 400),
        (OperationalError("secret"), 503),
        (KeyError("secret"), 500),
        (Deny(402, "Pay first."), 402),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
async def test_an_exception_before_the_response_is_a_denial(error, status):
    async def handle(self, body):
        raise error

    answer = await fetch(guarded(handle=handle), "/")
    assert (answer.status, answer.problem["status"]) == (status, status)
    assert b"secret" not in answer.body


async def test_an_exception_after_the_start_reaches_the_server():
    error = KeyError("late")

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    sent = []

    async def send(message):
        sent.append(message)

    with pytest.raises(KeyError) as caught:
        await require(AllowAny())(app)(http_scope("/"), None, send)
    assert caught.value is error
    assert [message["type"] for message in sent] == ["http.response.start"]


async def test_a_deny_after_the_start_reaches_the_server():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise Deny(404)

    async def send(message): ...

    with pytest.raises(Deny):
        await require(AllowAny())(app)(http_scope("/"), None, send)


async def test_an_application_that_ends_without_a_response_is_a_server_error(caplog):
    async def handle(self, body): ...

    answer = await fetch(guarded(handle=handle), "/")
    assert answer.status == 500
    (record,) = [record for record in caplog.records if record.name == "django.request"]
    assert "ended without a response" in str(record.exc_info[1])


async def test_an_application_that_is_cancelled_is_cancelled():
    async def app(scope, receive, send):
        await asyncio.sleep(60)

    async def send(message):
        raise AssertionError(message)

    task = asyncio.create_task(require(AllowAny())(app)(http_scope("/"), None, send))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


START = {"type": "http.response.start", "status": 200, "headers": []}


async def test_a_wrapper_cannot_answer_after_a_denial():
    async def wrapper(scope, receive, send):
        await guarded(DenyAll())(scope, receive, send)
        await send(START)

    sent = await run(require(AllowAny())(wrapper), request())
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 403


async def test_a_task_of_an_application_cannot_answer_after_a_denial():
    tasks = []

    async def app(scope, receive, send):
        async def late():
            await asyncio.sleep(0.05)
            await send(START)

        tasks.append(asyncio.create_task(late()))
        raise KeyError

    sent = await run(require(AllowAny())(app), request())
    (outcome,) = await asyncio.gather(*tasks, return_exceptions=True)
    assert (sent[0]["status"], len(sent), outcome) == (500, 2, None)


async def test_an_application_that_ends_by_a_cancellation_of_its_own_after_a_denial_ends_quietly():
    async def app(scope, receive, send):
        await guarded(DenyAll())(scope, receive, send)
        raise asyncio.CancelledError

    sent = await run(require(AllowAny())(app), request())
    assert [message.get("status") for message in sent] == [403, None]


# Clients that leave.


async def test_a_client_that_leaves_in_the_middle_of_the_body_leaves_no_record(caplog):
    assert await run(guarded(handle=echo), request(b"a", True), DISCONNECT, method="POST") == []
    assert caplog.records == []


async def test_a_client_that_leaves_a_long_poll_leaves_no_record(caplog):
    disconnected = []

    class Poll(AsyncHttpConsumer):
        async def http_request(self, message): ...

        async def disconnect(self):
            disconnected.append(self)

    app = require(AllowAny())(Poll).as_asgi()
    assert await run(app, request(), DISCONNECT) == []
    assert (len(disconnected), caplog.records) == (1, [])


async def test_a_long_poll_may_answer_late():
    class Poll(AsyncHttpConsumer):
        async def http_request(self, message):
            self.task = asyncio.create_task(self.answer())

        async def answer(self):
            await asyncio.sleep(0.05)
            await self.send_response(200, b"late")

    sent, events = [], asyncio.Queue()
    events.put_nowait(request())

    async def send(message):
        sent.append(message)
        if message["type"] == "http.response.body":
            events.put_nowait(DISCONNECT)

    app = require(AllowAny())(Poll).as_asgi()
    await asyncio.wait_for(app(http_scope("/"), events.get, send), 5)
    assert answer_of(sent).body == b"late"


async def test_a_denial_of_a_client_that_has_left_disturbs_nobody():
    async def send(message):
        raise ConnectionResetError

    await guarded(DenyAll())(http_scope("/"), None, send)


async def test_a_client_that_leaves_a_guarded_django_leaves_no_record(caplog):
    app = require(AllowAny())(get_asgi_application())
    await run(app, request(b"a", True), DISCONNECT, method="POST")
    assert caplog.records == []


# Denials.


async def test_a_denial_is_two_messages_with_its_length():
    sent = await run(guarded(DenyAll()), request())
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert dict(sent[0]["headers"])[b"content-length"] == b"%d" % len(sent[1]["body"])


async def test_an_anonymous_browser_gets_a_401_and_no_redirect():
    answer = await fetch(guarded(IsAuthenticated()), "/", headers=[(b"accept", b"text/html")])
    assert (answer.status, answer.header("location")) == (401, None)
    assert answer.header("www-authenticate") == "Session"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE", "BREW"])
async def test_every_method_is_guarded(method):
    sent = await run(guarded(DenyAll(), handle=hello), request(), method=method)
    assert sent[0]["status"] == 403


async def test_a_query_that_is_not_utf8_is_a_bad_request():
    sent = await run(guarded(handle=hello), request(), query_string=b"\xff")
    assert sent[0]["status"] == 400


async def test_a_consumer_that_is_denied_is_not_made():
    made = []

    class Consumer(AsyncHttpConsumer):
        async def handle(self, body):
            made.append(self)

    await fetch(require(DenyAll())(Consumer).as_asgi(), "/")
    assert made == []


async def test_a_database_that_is_gone_denies_with_a_503():
    answer = await fetch(guarded(Raises(lambda: OperationalError()), handle=hello), "/")
    assert (answer.status, answer.header("retry-after")) == (503, "5")


# What the application finds in its scope.


async def scope_of(policy=None, **scope):
    found = {}

    async def handle(self, body):
        found.update(self.scope)
        await self.send_response(204, b"")

    await fetch(guarded(policy, handle=handle), "/", **scope)
    return found


async def test_the_application_finds_its_user(headers_of, users):
    scope = await scope_of(IsAuthenticated(), headers=headers_of("alice"))
    assert scope["user"] == users["alice"]


async def test_the_application_finds_its_session_and_cookies(headers_of, settings):
    scope = await scope_of(IsAuthenticated(), headers=headers_of("alice"))
    assert scope["session"].session_key == scope["cookies"][settings.SESSION_COOKIE_NAME]


async def test_the_application_finds_the_request_that_policies_saw():
    requests = []
    scope = await scope_of(Reads(requests.append))
    assert scope["wsdeny"].request is requests[0]
    assert scope["wsdeny"].request.ctx


def test_the_application_finds_the_object_of_its_policies(headers_of, users):
    calls, found = [], []

    def resolve(request):
        calls.append(request)
        return Room

    async def handle(self, body):
        found.append(self.scope["wsdeny"].obj)
        await self.send_response(204, b"")

    users["alice"].is_superuser = True
    users["alice"].save()
    consumer = permission_required("auth.view_user", obj=resolve)(
        permission_required("auth.add_user", obj=resolve)(type("C", (AsyncHttpConsumer,), {"handle": handle}))
    )
    asyncio.run(fetch(consumer.as_asgi(), "/", headers=headers_of("alice")))
    assert (found, len(calls)) == ([Room], 1)


class Room:
    """What a policy is about."""


async def test_what_a_wrapper_put_into_the_scope_stays():
    user = object.__new__(type("User", (), {"is_authenticated": True, "pk": 7}))
    assert (await scope_of(IsAuthenticated(), user=user))["user"] is user


async def test_the_scope_of_the_server_is_not_changed():
    scope = http_scope("/")
    before = dict(scope)

    async def send(message): ...

    async def receive():
        return request()

    await guarded(handle=hello)(scope, receive, send)
    assert scope == before


# Sessions.


class Visits(Policy):
    """Counts visits in the session."""

    def check(self, request):
        request.session["visits"] = request.session.get("visits", 0) + 1
        return True


def session_of(answer, settings):
    cookie = answer.header("set-cookie")
    assert cookie is not None
    assert cookie.startswith(f"{settings.SESSION_COOKIE_NAME}=")
    return SessionStore(cookie.partition("=")[2].partition(";")[0])


def test_a_session_that_a_policy_changed_is_saved_and_set(settings):
    answer = asyncio.run(fetch(guarded(Visits(), handle=hello), "/"))
    assert (answer.status, session_of(answer, settings)["visits"]) == (200, 1)


def test_a_session_that_the_consumer_changed_is_saved_and_set(settings):
    async def handle(self, body):
        self.scope["session"]["seen"] = True
        await self.send_response(200, b"")

    answer = asyncio.run(fetch(guarded(handle=handle), "/"))
    assert session_of(answer, settings)["seen"] is True


def test_a_session_that_was_changed_is_saved_with_a_denial(settings):
    answer = asyncio.run(fetch(guarded(Visits() & DenyAll()), "/"))
    assert (answer.status, session_of(answer, settings)["visits"]) == (403, 1)


def test_a_session_cookie_stands_beside_the_applications_own(settings):
    async def handle(self, body):
        await self.send_response(200, b"", headers=[(b"Set-Cookie", b"a=1")])

    answer = asyncio.run(fetch(guarded(Visits(), handle=handle), "/"))
    cookies = [value.partition("=")[0] for name, value in answer.headers if name == "set-cookie"]
    assert cookies == ["a", settings.SESSION_COOKIE_NAME]


async def test_a_session_that_nobody_changed_is_not_sent(headers_of):
    answer = await fetch(guarded(IsAuthenticated(), handle=hello), "/", headers=headers_of("alice"))
    assert answer.header("set-cookie") is None


def test_a_session_is_not_saved_with_a_server_error():
    async def handle(self, body):
        self.scope["session"]["seen"] = True
        raise KeyError

    answer = asyncio.run(fetch(guarded(handle=handle), "/"))
    assert (answer.status, answer.header("set-cookie")) == (500, None)


# Several guards, and routers.


class Counting(Policy):
    """Counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def check(self, request):
        self.asked += 1
        return True


async def test_all_of_several_guards_must_pass(headers_of):
    consumer = login_required(require(IsStaff())(type("C", (AsyncHttpConsumer,), {"handle": hello})))
    app = consumer.as_asgi()
    assert (await fetch(app, "/")).status == 401
    assert (await fetch(app, "/", headers=headers_of("alice"))).status == 403
    assert (await fetch(app, "/", headers=headers_of("staff"))).status == 200


async def test_a_policy_is_asked_once_whoever_names_it():
    policy = Counting()
    answer = await fetch(require(policy)(require(policy)(guarded(policy, handle=hello))), "/")
    assert (answer.status, policy.asked) == (200, 1)


async def test_public_lets_everybody_in():
    assert (
        await fetch(public(type("C", (AsyncHttpConsumer,), {"handle": hello})).as_asgi(), "/")
    ).status == 200


async def test_a_guarded_router_still_routes():
    async def handle(self, body):
        await self.send_response(200, json.dumps(self.scope["url_route"]["kwargs"]).encode())

    app = require(AllowAny())(URLRouter([path("room/<int:pk>/", guarded(handle=handle))]))
    answer = await fetch(app, "/room/3/")
    assert json.loads(answer.body) == {"pk": 3}


async def test_a_path_without_a_route_behind_a_guard_is_not_found():
    app = require(AllowAny())(URLRouter([path("room/", guarded(handle=hello))]))
    assert (await fetch(app, "/nowhere/")).status == 404


async def test_a_404_of_a_policy_does_not_go_on_to_the_next_route():
    app = URLRouter(
        [path("", guarded(Raises(lambda: Http404()), handle=hello)), path("", guarded(handle=hello))]
    )
    assert (await fetch(app, "/")).status == 404


async def test_a_404_of_an_inner_guard_does_not_go_on_to_the_next_route():
    inner = URLRouter(
        [path("", guarded(Raises(lambda: Http404()), handle=hello)), path("", guarded(handle=hello))]
    )
    assert (await fetch(require(AllowAny())(inner), "/")).status == 404


async def test_a_policy_knows_the_route():
    def read(request):
        assert request.resolver_match.kwargs == {"pk": 3}

    app = URLRouter([path("room/<int:pk>/", guarded(Reads(read), handle=hello))])
    assert (await fetch(app, "/room/3/")).status == 200


async def test_an_inner_denial_goes_through_the_wrappers_around_it():
    seen = []

    async def wrapper(scope, receive, send):
        async def noting(message):
            seen.append(message["type"])
            await send(message)

        await guarded(DenyAll())(scope, receive, noting)

    assert (await fetch(require(AllowAny())(wrapper), "/")).status == 403
    assert seen == ["http.response.start", "http.response.body"]


async def test_a_guarded_django_answers():
    app = require(AllowAny())(get_asgi_application())
    answer = await fetch(app, "/login/", headers=[(b"host", b"testserver")])
    assert answer.status == 200
    assert b"<form" in answer.body


async def test_a_guarded_django_gets_its_body():
    headers = [(b"host", b"testserver"), (b"content-type", b"application/x-www-form-urlencoded")]
    token = b"a" * 32
    headers.append((b"cookie", b"csrftoken=" + token))
    sent = await run(
        require(AllowAny())(get_asgi_application()),
        request(b"username=alice&csrfmiddlewaretoken=", True),
        request(token),
        method="POST",
        headers=headers,
        url="/login/",
    )
    assert sent[0]["status"] == 200
    assert b'value="alice"' in sent[1]["body"]


async def test_plain_asgi_applications_can_be_guarded():
    @login_required
    async def app(scope, receive, send):
        raise AssertionError

    assert (await fetch(app, "/")).status == 401


async def test_objects_that_are_asgi_applications_can_be_guarded():
    class App:
        async def __call__(self, scope, receive, send):
            raise AssertionError

    assert (await fetch(login_required(App()), "/")).status == 401


async def test_a_consumer_of_both_protocols_is_guarded_over_http():
    app = DenyMiddlewareStack(
        ProtocolTypeRouter({"http": guarded(DenyAll()), "websocket": guarded(AllowAny())})
    )
    assert (await fetch(app, "/")).status == 403


# Other scopes.


async def test_lifespan_passes_through_a_guarded_application():
    sent = []

    async def app(scope, receive, send):
        assert await receive() == {"type": "lifespan.startup"}
        await send({"type": "lifespan.startup.complete"})

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        sent.append(message)

    scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
    await require(DenyAll())(app)(scope, receive, send)
    assert sent == [{"type": "lifespan.startup.complete"}]


@pytest.mark.parametrize("kind", ["channel", "webtransport", ""])
async def test_other_scopes_are_refused_by_a_guarded_application(kind):
    async def app(scope, receive, send):
        raise AssertionError

    with pytest.raises(ValueError, match=r"is guarded by .*DenyAll.* which can be asked about"):
        await require(DenyAll())(app)({"type": kind}, None, None)


@pytest.mark.parametrize("kind", ["lifespan", "channel", "webtransport"])
async def test_the_stack_itself_passes_what_is_no_request(kind):
    calls = []

    async def app(*args):
        calls.append(args)

    args = ({"type": kind}, object(), object())
    await DenyMiddlewareStack(app)(*args)
    assert calls == [args]


def test_a_visit_is_the_door_of_its_passage():
    visit = Visit(http_scope("/"), None, None)
    assert visit.passage.door is visit
    assert visit.request.wsdeny is visit.passage
