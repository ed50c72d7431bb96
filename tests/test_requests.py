"""What views of routes get as their request: the same one, with a body of its own where that is asked for."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import tracemalloc
import weakref

import pytest
from asgiref.sync import async_to_sync
from django.contrib import messages
from django.core.asgi import get_asgi_application
from django.core.exceptions import BadRequest, RequestDataTooBig
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.test import AsyncClient, Client, RequestFactory
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart
from django.urls import path
from django.utils.functional import cached_property

from channels_wsdeny import Deny
from channels_wsdeny.decorators import require, user_passes_test, with_hooks
from channels_wsdeny.hooks import Hooks
from channels_wsdeny.routes import GzipRequest, GzipRoute, Route, TimedRoute
from channels_wsdeny.routes.requests import RouteRequest, adopt
from tests.clients import Answer, answer_of, http_scope
from tests.parts import Check

pytestmark = pytest.mark.django_db  # Django closes old connections around each request

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
LIMIT = 100_000
MIB = 1024 * 1024
MIRROR = "channels_wsdeny.middleware.MirrorMiddleware"


class Wsgi:
    """Django's WSGI handler, by its test client."""

    def __init__(self, **kwargs):
        self.client = Client(raise_request_exception=False, **kwargs)

    def send(self, body, headers, method="POST"):
        self.client.cookies.load(headers.pop("Cookie", ""))
        response = self.client.generic(method, "/", body, headers.pop("Content-Type", JSON), headers=headers)
        return answer_to(response)


class Asgi:
    """Django's ASGI handler, by its test client, whose stream cannot be rewound."""

    def __init__(self, **kwargs):
        self.client = AsyncClient(raise_request_exception=False, **kwargs)

    def send(self, body, headers, method="POST"):
        self.client.cookies.load(headers.pop("Cookie", ""))

        async def send():
            content_type = headers.pop("Content-Type", JSON)
            return await self.client.generic(method, "/", body, content_type, headers=headers)

        return answer_to(async_to_sync(send)())


def answer_to(response):
    headers = [(name.lower(), value) for name, value in response.headers.items()]
    return Answer(response.status_code, headers, response.content)


class Server:
    """Django's ASGI application, as a server calls it: there, the stream is a file."""

    def send(self, body, headers, method="POST"):
        own = {"Content-Type": JSON, "Content-Length": str(len(body)), "Host": "testserver"}
        return async_to_sync(self._send)(body, own | headers, method)

    async def _send(self, body, headers, method):
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = http_scope("/", method, headers=raw)
        received = asyncio.Queue()
        received.put_nowait({"type": "http.request", "body": body})
        sent = []

        async def send(message):
            sent.append(message)

        await get_asgi_application()(scope, received.get, send)
        sent[0]["headers"] = [(name.lower(), value) for name, value in sent[0]["headers"]]
        return answer_of([sent[0], {"body": b"".join(message["body"] for message in sent[1:])}])


@pytest.fixture(params=[Wsgi, Asgi, Server], ids=["wsgi", "asgi", "server"])
def door(request):
    return request.param


@pytest.fixture(params=[[], [MIRROR]], ids=["alone", "mirror"])
def middleware(request):
    return request.param


def asker(settings, door, middleware):
    """A function that asks a view: the one URL of a site."""
    settings.MIDDLEWARE = middleware
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = LIMIT

    def ask(view, body=b"", **headers):
        settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", view)]})
        return door().send(body, {name.replace("_", "-"): value for name, value in headers.items()})

    return ask


@pytest.fixture
def ask(settings, door, middleware):
    return asker(settings, door, middleware)


def ask_gzip(ask, view, body, **headers):
    return ask(view, gzip.compress(body), Content_Encoding="gzip", **headers)


def echo(request):
    return HttpResponse(request.body)


async def echo_async(request):
    return HttpResponse(request.body)


def form_of(request):
    return JsonResponse(
        {
            "fields": request.POST,
            "files": {name: file.read().decode() for name, file in request.FILES.items()},
        }
    )


def multipart(**fields):
    return encode_multipart(BOUNDARY, fields)


def request_of(body=b"", content_type=JSON, **headers):
    return RequestFactory().generic("POST", "/", body, content_type, headers=headers)


def adopted(request_class=RouteRequest, *args, **kwargs):
    return adopt(request_of(*args, **kwargs), request_class)


class Upper(RouteRequest):
    @property
    def body(self):
        return super().body.upper()


# One request under two classes.


@pytest.mark.parametrize("request_class", [RouteRequest, GzipRequest, HttpRequest])
def test_the_view_gets_an_instance_of_the_request_class(ask, request_class):
    class Typed(Route):
        pass

    Typed.request_class = request_class

    @Typed
    def view(request):
        return HttpResponse(str(isinstance(request, request_class)))

    assert ask(view).body == b"True"


def test_it_still_is_djangos_request(door, ask):
    @GzipRoute
    def view(request):
        return HttpResponse(str(isinstance(request, WSGIRequest if door is Wsgi else ASGIRequest)))

    assert ask(view).body == b"True"


def test_any_subclass_of_djangos_request_will_do(ask):
    class Mine(HttpRequest):
        def shout(self):
            return self.body.upper()

    class MyRoute(Route):
        request_class = Mine

    @MyRoute
    def view(request):
        return HttpResponse(request.shout())

    assert ask(view, b"hello").body == b"HELLO"


def test_a_request_class_of_another_handler_is_an_error():
    class Mine(ASGIRequest):
        pass

    with pytest.raises(TypeError, match="Derive the class from RouteRequest"):
        adopted(Mine)


def test_a_request_that_has_the_class_is_left_alone():
    request = adopted(GzipRequest)
    assert adopt(request, GzipRequest) is request
    assert adopt(request, RouteRequest) is request


def test_the_mixed_class_is_made_once():
    assert type(adopted(GzipRequest)) is type(adopted(GzipRequest))


def test_it_is_called_as_its_class():
    assert repr(adopted(GzipRequest)) == "<GzipRequest: POST '/'>"


def test_what_is_set_on_one_is_on_the_other():
    received = request_of()
    request = adopt(received, GzipRequest)
    received.user, request.tenant = "alice", "acme"
    assert (request.user, received.tenant) == ("alice", "acme")


def test_what_is_deleted_on_one_is_gone_on_the_other():
    received = request_of()
    request = adopt(received, GzipRequest)
    received.user = "alice"
    del request.user
    assert not hasattr(received, "user")


def test_many_attributes_are_shared_whoever_outlives_whom():
    received = request_of()
    request = adopt(received, GzipRequest)
    for number in range(100):
        setattr(request if number % 2 else received, f"a{number}", number)
    assert [getattr(received, f"a{number}") for number in range(100)] == list(range(100))
    del received
    gc.collect()
    assert [getattr(request, f"a{number}") for number in range(100)] == list(range(100))


def test_two_requests_share_nothing():
    one, other = adopted(GzipRequest, b"one"), adopted(GzipRequest, b"other")
    one.user = "alice"
    assert (one.body, other.body, hasattr(other, "user")) == (b"one", b"other", False)


def test_a_request_is_freed_once_it_is_over():
    request = adopted(GzipRequest, gzip.compress(b"x"), **{"Content-Encoding": "gzip"})
    assert request.body == b"x"
    gone = weakref.ref(request)
    del request
    gc.collect()
    assert gone() is None


def marking(get_response):
    def middleware(request):
        request.mark = "outside"
        response = get_response(request)
        response["X-Seen"] = request.seen
        return response

    return middleware


def test_middleware_outside_and_the_view_see_what_the_other_set(settings, door):
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        MIRROR,
        "tests.test_requests.marking",
    ]

    @GzipRoute
    def view(request):
        request.seen = "by the view"
        request.session["visits"] = 1
        messages.info(request, "Hello.")
        request.ctx.key = "bar"
        return HttpResponse(f"{request.mark} {request.user} {request.wsdeny.request is request}")

    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", view)]})
    answer = door().send(b"", {})
    assert answer.body == b"outside AnonymousUser True"
    assert answer.header("x-seen") == "by the view"
    if door is Server:
        assert "sessionid=" in str(answer.headers)


# Bodies that a class replaces.


@pytest.fixture
def upper_route():
    class UpperRoute(Route):
        request_class = Upper

    return UpperRoute


def test_the_view_sees_the_body_of_its_class(ask, upper_route):
    assert ask(upper_route(echo), b"hello").body == b"HELLO"


def test_json_follows_the_body(ask, upper_route):
    assert ask(upper_route(lambda request: JsonResponse(request.json())), b'{"a": 1}').body == b'{"A": 1}'


def test_a_form_follows_the_body(ask, upper_route):
    answer = ask(upper_route(form_of), b"name=alice", Content_Type=FORM)
    assert json.loads(answer.body)["fields"] == {"NAME": "ALICE"}


def test_a_multipart_form_follows_the_body(ask, upper_route):
    class Greeted(RouteRequest):
        @property
        def body(self):
            return super().body.replace(b"alice", b"bob, who is longer")

    upper_route.request_class = Greeted
    body = multipart(name="alice", file=SimpleUploadedFile("a.txt", b"from alice"))
    answer = ask(upper_route(form_of), body, Content_Type=MULTIPART_CONTENT)
    assert json.loads(answer.body) == {
        "fields": {"name": "bob, who is longer"},
        "files": {"file": "from bob, who is longer"},
    }


@pytest.mark.parametrize(
    "read",
    [
        lambda request: request.read(),
        lambda request: request.read(2) + request.read(),
        lambda request: request.readline() + request.readline(),
        lambda request: b"".join(request),
        lambda request: b"".join(request.readlines()),
        lambda request: request.body and request.read(),
        lambda request: request.read(2) and request.body,
    ],
)
def test_reading_follows_the_body(ask, upper_route, read):
    view = upper_route(lambda request: HttpResponse(read(request)))
    assert ask(view, b"hello\nworld").body == b"HELLO\nWORLD"


def test_a_cached_property_may_replace_the_body(ask):
    class Cached(RouteRequest):
        @cached_property
        def body(self):
            return super().body + b"!"

    class CachedRoute(Route):
        request_class = Cached

    answer = ask(CachedRoute(lambda request: HttpResponse(request.body + request.body)), b"hello")
    assert answer.body == b"hello!hello!"


def test_classes_of_nested_routes_work_on_one_another(ask, upper_route):
    assert ask_gzip(ask, GzipRoute(upper_route(echo)), b"hello").body == b"HELLO"


def test_cached_properties_of_nested_routes_work_on_one_another(ask):
    def route_adding(suffix):
        class Adding(RouteRequest):
            @cached_property
            def body(self):
                return super().body + suffix

        class AddingRoute(Route):
            request_class = Adding

            def get_route_handler(self):
                handler = super().get_route_handler()

                def handle(request):
                    assert request.body
                    return handler(request)

                return handle

        return AddingRoute

    assert ask(route_adding(b"1")(route_adding(b"2")(echo)), b"0").body == b"012"


def test_the_raw_body_is_what_was_received(ask, upper_route):
    view = upper_route(lambda request: HttpResponse(request.body + request.raw_body))
    assert ask(view, b"hello").body == b"HELLOhello"


def test_outside_the_route_the_body_is_what_was_received():
    received = request_of(b"hello")
    assert adopt(received, Upper).body == b"HELLO"
    assert received.body == b"hello"


def test_a_form_that_was_parsed_outside_is_parsed_again():
    received = request_of(b"name=alice", FORM)
    assert received.POST == {"name": ["alice"]}
    assert adopt(received, Upper).POST == {"NAME": ["ALICE"]}


def test_a_form_whose_body_is_gone_stays_as_it_was_parsed():
    received = request_of(multipart(name="alice"), MULTIPART_CONTENT)
    assert received.POST == {"name": ["alice"]}
    assert adopt(received, Upper).POST == {"name": ["alice"]}


def reading(get_response):
    def middleware(request):
        assert request.POST == {"name": ["alice"]}
        return get_response(request)

    return middleware


def test_a_multipart_form_that_middleware_parsed_is_parsed_again_where_it_can_be_read(settings, upper_route):
    """As a server's stream can."""

    class Greeted(RouteRequest):
        @property
        def body(self):
            return super().body.replace(b"alice", b"bob")

    upper_route.request_class = Greeted
    ask = asker(settings, Server, ["tests.test_requests.reading"])
    answer = ask(upper_route(form_of), multipart(name="alice"), Content_Type=MULTIPART_CONTENT)
    assert json.loads(answer.body)["fields"] == {"name": "bob"}


def test_a_multipart_form_that_a_route_outside_parsed_is_parsed_again(ask, upper_route):
    class Greeted(RouteRequest):
        @property
        def body(self):
            return super().body.replace(b"alice", b"bob")

    class Reading(Route):
        def get_route_handler(self):
            return reading(super().get_route_handler())

    upper_route.request_class = Greeted
    answer = ask(Reading(upper_route(form_of)), multipart(name="alice"), Content_Type=MULTIPART_CONTENT)
    assert json.loads(answer.body)["fields"] == {"name": "bob"}


def test_files_of_a_form_that_is_parsed_again_are_closed(settings):
    settings.FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]
    received = request_of(multipart(f=SimpleUploadedFile("a.txt", b"x")), MULTIPART_CONTENT)
    assert received.body
    file = received.FILES["f"]
    request = adopt(received, Upper)
    assert file.closed
    request.FILES  # noqa: B018
    request.close()


def test_an_upload_is_streamed_if_nobody_replaces_its_body(ask):
    """It has more bytes than may be in memory."""
    body = multipart(file=SimpleUploadedFile("a.txt", b"x" * LIMIT * 2))
    view = TimedRoute(GzipRoute(lambda request: HttpResponse(str(request.FILES["file"].size))))
    assert ask(view, body, Content_Type=MULTIPART_CONTENT).body == str(LIMIT * 2).encode()


def test_an_upload_without_a_bound_in_memory_is_not_kept_twice(settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = None
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = LIMIT
    body = multipart(file=SimpleUploadedFile("a.txt", b"x" * LIMIT * 20))
    request = adopted(GzipRequest, body, MULTIPART_CONTENT)
    tracemalloc.start()
    try:
        assert request.FILES["file"].size == LIMIT * 20
        assert tracemalloc.get_traced_memory()[1] < LIMIT * 10
    finally:
        tracemalloc.stop()
        request.close()


@pytest.mark.parametrize("middleware", [[]], indirect=True)
def test_a_malformed_multipart_form_is_a_400(ask, upper_route):
    answer = ask(upper_route(form_of), b"--", Content_Type="multipart/form-data; boundary=")
    assert answer.status == 400


# JSON.


def test_json_is_the_body_parsed(ask):
    view = Route(lambda request: JsonResponse(request.json()))
    assert json.loads(ask(view, '{"a": ["ä", 1.5, null]}'.encode()).body) == {"a": ["ä", 1.5, None]}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{'a': 1}", b"\xff\xfe\xfd", b"[NaN]", b"[Infinity]", b"[" * 90_000, b"9" * 9000]
)
def test_json_that_is_malformed_is_a_400(ask, body):
    answer = ask(Route(lambda request: JsonResponse(request.json())), body)
    assert answer.status == 400
    assert answer.problem["detail"] == "The body is not JSON."


def test_malformed_json_may_be_caught_as_djangos_bad_request(ask):
    @Route
    def view(request):
        try:
            request.json()
        except BadRequest as error:
            return HttpResponse(type(error.__cause__).__name__)

    assert ask(view, b"{").body == b"JSONDecodeError"


def test_malformed_json_is_a_400_outside_of_routes_too(ask):
    def view(request):
        adopt(request, RouteRequest).json()

    assert ask(view, b"{").status == 400


# Handlers of exceptions.


class Telling(GzipRoute):
    """Answers with the request that failed, as it was parsed and as it came."""

    def get_route_handler(self):
        handler = super().get_route_handler()

        def tell(request, error):
            try:
                parsed = request.body
            except Deny as deny:
                parsed = str(deny).encode()
            raw = request.raw_body
            return HttpResponse(b"|".join([type(error).__name__.encode(), parsed, raw]), status=500)

        def handle(request, *args, **kwargs):
            try:
                return handler(request, *args, **kwargs)
            except (ValueError, Deny) as error:
                return tell(request, error)

        async def handle_async(request, *args, **kwargs):
            try:
                return await handler(request, *args, **kwargs)
            except (ValueError, Deny) as error:
                return tell(request, error)

        return handle_async if asyncio.iscoroutinefunction(self.view) else handle


def failing(read):
    def view(request):
        read(request)
        raise ValueError

    return view


READERS = {
    "nothing": lambda request: None,
    "body": lambda request: request.body,
    "a part": lambda request: request.read(3),
    "a line": lambda request: request.readline(),
    "all": lambda request: request.read(),
    "form": lambda request: request.POST,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_handler_of_exceptions_sees_the_body(ask, read):
    assert ask(Telling(failing(read)), b"hello\nworld").body == b"ValueError|hello\nworld|hello\nworld"


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_handler_of_exceptions_sees_the_parsed_and_the_raw_body(ask, read):
    packed = gzip.compress(b"hello\nworld", mtime=0)
    answer = ask(Telling(failing(read)), packed, Content_Encoding="gzip")
    assert answer.body == b"ValueError|hello\nworld|" + packed


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_handler_of_exceptions_sees_the_body_of_a_multipart_form(ask, read):
    body = multipart(name="alice")
    answer = ask(Telling(failing(read)), body, Content_Type=MULTIPART_CONTENT)
    assert answer.body == b"|".join([b"ValueError", body, body])


def test_a_handler_of_exceptions_of_an_asynchronous_view_sees_the_body(ask):
    async def view(request):
        request.read(3)
        raise ValueError

    assert ask(Telling(view), b"hello").body == b"ValueError|hello|hello"


def test_a_handler_of_exceptions_sees_the_raw_body_of_broken_gzip(ask):
    answer = ask(Telling(echo), b"broken", Content_Encoding="gzip")
    assert answer.body == b"MalformedBody|400 bad_request: The body is not gzip, or broken.|broken"


def test_a_handler_of_exceptions_sees_the_raw_body_of_malformed_json(ask):
    answer = ask(Telling(lambda request: JsonResponse(request.json())), b"{")
    assert answer.body == b"MalformedBody|{|{"


# Policies.


def test_a_policy_within_a_route_sees_the_request_of_the_route(ask):
    is_hello = Check(lambda request: request.body == b"hello")
    view = GzipRoute(require(is_hello)(lambda request: HttpResponse("passed")))
    assert ask_gzip(ask, view, b"hello").body == b"passed"
    assert ask_gzip(ask, view, b"other").status == 403


def test_a_policy_around_a_route_sees_the_request_that_came_in(ask):
    is_packed = Check(lambda request: request.body[:2] == b"\x1f\x8b")
    view = require(is_packed)(GzipRoute(echo))
    assert ask_gzip(ask, view, b"hello").body == b"hello"


def test_an_object_is_found_by_the_unpacked_body(settings, ask):
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        MIRROR,
    ]
    view = GzipRoute(user_passes_test(lambda user: user.is_anonymous)(echo))
    assert ask_gzip(ask, view, b"hello").body == b"hello"


# Hooks.


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_hook_for_exceptions_sees_the_parsed_and_the_raw_body(ask, read):
    hooks = Hooks()

    @hooks.on_exception(ValueError)
    def tell(request, error):
        return HttpResponse(request.body + b"|" + request.raw_body)

    packed = gzip.compress(b"hello\nworld", mtime=0)
    for view in (with_hooks(hooks)(GzipRoute(failing(read))), GzipRoute(with_hooks(hooks)(failing(read)))):
        assert ask(view, packed, Content_Encoding="gzip").body == b"hello\nworld|" + packed
        assert ask(view, b"hello\nworld").body == b"hello\nworld|hello\nworld"


def test_a_hook_takes_a_bomb_as_djangos_exception(ask):
    hooks = Hooks()
    hooks.on_exception(RequestDataTooBig)(lambda request, error: HttpResponse("too big", status=413))
    answer = ask_gzip(ask, with_hooks(hooks)(GzipRoute(echo)), b"\0" * LIMIT * 2)
    assert (answer.status, answer.body) == (413, b"too big")
