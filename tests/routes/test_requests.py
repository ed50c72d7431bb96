"""The request of a route's view, and its body: as received, changed by a class, unpacked, as JSON."""

import gzip
import json
import os
import struct
import sys
import tracemalloc
import zlib
from contextlib import closing, contextmanager

import msgpack
import pytest
from django.core.exceptions import BadRequest, RequestDataTooBig
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpRequest, HttpResponse, RawPostDataException
from django.test import RequestFactory
from django.utils.functional import cached_property
from django.views.decorators.csrf import csrf_exempt

from channels_wsdeny import Deny
from channels_wsdeny.decorators import require, with_hooks
from channels_wsdeny.routes import GzipRequest, GzipRoute, MsgpackRoute, Route, RouteRequest
from channels_wsdeny.routes.requests import adopt, gunzip
from tests.support.mirror import made
from tests.support.policies import Check
from tests.support.views import FORM, JSON, MIRROR, MULTIPART, WAYS, ask, echo, echo_async, form_of, json_of, multipart

LIMIT = 100_000
MIB = 1024 * 1024
MSGPACK = "application/msgpack"
DATA = {"name": "älice", "n": [1, -2.5, None, True], "in": {"a": []}}
GZIP = {"Content_Encoding": "gzip"}
CHUNKED = {"Transfer_Encoding": "chunked"}
each_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(autouse=True)
def _limit(settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = LIMIT


def route_with(body, base=RouteRequest, property_=property):
    """A route whose request class has this property `body`, of what the class before it has."""

    class Changed(base):
        pass

    Changed.body = property_(lambda self: body(super(Changed, self).body))
    if property_ is cached_property:
        Changed.body.__set_name__(Changed, "body")
    return type("ChangedRoute", (Route,), {"request_class": Changed})


UpperRoute, UpperGzipRoute = route_with(bytes.upper), route_with(bytes.upper, GzipRequest)


def received(body=b"", content_type=JSON, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return RequestFactory().generic("POST", "/", body, content_type, headers=headers)


def size_of(request):
    if request.content_type == "multipart/form-data":
        return HttpResponse(request.FILES["file"].size)
    return HttpResponse(len(request.read() if request.raw_body is None else request.body))


# Each way that Django runs a view.


def gzipped(body, content_type=JSON, **headers):
    body = gzip.compress(body, mtime=0)
    return {"body": body, "content_type": content_type, "Content_Encoding": "gzip"} | headers


def form(**fields):
    return {"fields": fields, "files": {}}


UPLOAD = multipart(name="alice", file=SimpleUploadedFile("a.txt", b"from alice"))
BIG_UPLOAD = multipart(file=SimpleUploadedFile("a.txt", b"x" * LIMIT * 2))
BOMB, NOISE = b"\0" * 10 * MIB, os.urandom(LIMIT * 2)
PARSED = {"fields": {"name": "alice"}, "files": {"file": "from alice"}}
READS = {
    "body": lambda request: request.body,
    "read": lambda request: request.read(),
    "lines": lambda request: request.readline() + request.readline(),
    "body, then read": lambda request: request.body and request.read(),
    "read, then body": lambda request: request.read(2) and request.body,
}
#: View, request; the status, or the content of a 200, perhaps in JSON.
CASES = {
    "plain": (Route(echo), {"body": b"hello"}, b"hello"),
    "chunked": (Route(echo), {"body": b"hello", **CHUNKED}, b"hello"),
    "json": (Route(json_of), {"body": '{"a": ["ä", 1.5, null]}'.encode()}, {"a": ["ä", 1.5, None]}),
    "no json": (Route(json_of), {"body": b"{"}, 400),
    "large": (Route(size_of), {"body": NOISE}, b"%d" % len(NOISE)),
    "large, chunked": (Route(size_of), {"body": NOISE, **CHUNKED}, b"%d" % len(NOISE)),
    "large upload": (GzipRoute(size_of), {"body": BIG_UPLOAD, "content_type": MULTIPART}, b"%d" % (LIMIT * 2)),
    "form": (GzipRoute(form_of), {"body": b"name=alice", "content_type": FORM}, form(name="alice")),
    "gzip": (GzipRoute(echo), gzipped(b"hello"), b"hello"),
    "gzip async": (GzipRoute(echo_async), gzipped(b"hello"), b"hello"),
    "gzip form": (GzipRoute(form_of), gzipped(b"name=alice", FORM), form(name="alice")),
    "gzip upload": (GzipRoute(form_of), gzipped(UPLOAD, MULTIPART), PARSED),
    "gzip upload, chunked": (GzipRoute(form_of), gzipped(UPLOAD, MULTIPART, **CHUNKED), PARSED),
    "as large as the limit": (GzipRoute(size_of), gzipped(b"x" * LIMIT), b"%d" % LIMIT),
    "beyond it": (GzipRoute(echo), gzipped(b"x" * (LIMIT + 1)), 413),
    "bomb": (GzipRoute(echo_async), gzipped(BOMB), 413),
    "bomb that the view would not read": (GzipRoute(lambda request: HttpResponse()), gzipped(BOMB), 413),
    "bomb in a form": (GzipRoute(form_of), gzipped(BOMB, MULTIPART), 413),
    "too large while compressed": (GzipRoute(echo), gzipped(NOISE), 413),
    "too large while compressed, chunked": (GzipRoute(echo), gzipped(NOISE, **CHUNKED), 413),
    "broken gzip": (GzipRoute(echo_async), {"body": b"hello", "Content_Encoding": "gzip"}, 400),
    "msgpack": (MsgpackRoute(json_of), {"body": msgpack.packb(DATA), "content_type": MSGPACK}, DATA),
    "gzip of msgpack": (GzipRoute(MsgpackRoute(json_of)), gzipped(msgpack.packb(DATA), MSGPACK), DATA),
    "the same class inside": (GzipRoute(GzipRoute(echo)), gzipped(b"hello"), b"hello"),
    "a derived class inside": (GzipRoute(UpperGzipRoute(echo)), gzipped(b"hello"), b"HELLO"),
    "a derived class": (UpperGzipRoute(echo), gzipped(b"hello"), b"HELLO"),
    "a derived class, and no gzip": (UpperGzipRoute(echo), {"body": b"hello"}, b"HELLO"),
    "large for a derived class": (UpperGzipRoute(echo), {"body": NOISE}, 413),
    "another class inside": (GzipRoute(UpperRoute(echo)), gzipped(b"hello"), b"HELLO"),
    "form of a class": (UpperRoute(form_of), {"body": b"name=a", "content_type": FORM}, form(NAME="A")),
    "large for a class": (UpperRoute(echo), {"body": NOISE}, 413),
    **{
        name: (UpperRoute(lambda request, read=read: HttpResponse(read(request))), {"body": b"a\nb"}, b"A\nB")
        for name, read in READS.items()
    },
}


@each_way
@pytest.mark.parametrize("middleware", [(), (MIRROR,)], ids=["alone", "mirror"])
@pytest.mark.parametrize(("view", "request_", "expected"), CASES.values(), ids=CASES)
def test_a_view_gets_the_body_of_its_route(way, middleware, view, request_, expected):
    response = ask(view, way=way, middleware=middleware, **request_)
    if isinstance(expected, int):
        assert response.status_code == expected
        problem = json.loads(response.content)
        assert problem["code"] == {400: "bad_request", 413: "content_too_large"}[expected]
        assert str(LIMIT) not in problem["detail"]
    else:
        assert response.status_code == 200
        content = json.loads(response.content) if isinstance(expected, dict) else response.content
        assert content == expected


# The request.


@pytest.mark.parametrize("request_class", [RouteRequest, GzipRequest, type("Own", (RouteRequest,), {})])
def test_the_request_becomes_an_instance_of_the_request_class(request_class):
    request = received(b"{}")
    request.user, kind = "alice", type(request)
    assert adopt(request, request_class) is adopt(request, request_class) is request
    assert all(isinstance(request, cls) for cls in (request_class, RouteRequest, kind))
    assert (request.user, request.body, request.raw_body, request.json()) == ("alice", b"{}", b"{}", {})
    assert type(adopt(received(), request_class)) is type(request)
    assert adopt(HttpRequest(), request_class).raw_body is None  # A bare one has no stream.
    with pytest.raises(TypeError, match="A request_class is a subclass of RouteRequest"):
        type("Wrong", (Route,), {"request_class": HttpRequest})(echo)


def test_a_request_that_cannot_be_decoded_is_decoded_again_by_a_second_try():
    request = received(b"hello", **GZIP)
    kind = type(request)
    for _ in range(2):
        with pytest.raises(Deny):
            adopt(request, GzipRequest)
        assert (type(request), request.body, request.raw_body) == (kind, b"hello", b"hello")


def test_cached_properties_of_nested_routes_follow_one_another():
    view = lambda request: HttpResponse(request.body + request.raw_body)  # noqa: E731
    for number in (b"3", b"2", b"1"):
        view = route_with(lambda body, number=number: body + number, property_=cached_property)(view)
    assert ask(view, b"0").content == b"01230"


def test_an_upload_without_a_limit_is_not_kept_twice(settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE, settings.FILE_UPLOAD_MAX_MEMORY_SIZE = None, LIMIT
    request = received(multipart(file=SimpleUploadedFile("a.txt", b"x" * LIMIT * 20)), MULTIPART)
    with less_memory_than(LIMIT * 10), closing(request):
        assert adopt(request, GzipRequest).FILES["file"].size == LIMIT * 20
    assert ask(GzipRoute(size_of), **gzipped(BOMB)).content == b"%d" % len(BOMB)


def test_a_form_that_was_parsed_from_another_body_is_parsed_again(settings):
    settings.FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]
    request = received(UPLOAD, MULTIPART)
    assert request.body
    file = request.FILES["file"]
    renamed = route_with(lambda body: body.replace(b"alice", b"bob, whose name is longer"))
    adopt(request, renamed.request_class)
    assert file.closed
    assert request.POST["name"] == request.FILES["file"].read().decode()[5:] == "bob, whose name is longer"
    request.close()


@pytest.mark.parametrize("body", [b"", b"{'a': 1}", b"\xff\xfe", b"[NaN]", b"[Infinity]", b"[" * 90_000, b"9" * 9000])
def test_json_that_is_malformed_is_djangos_bad_request(body):
    with pytest.raises(BadRequest, match="The body is not JSON"):
        adopt(received(body), RouteRequest).json()


# What others see of the body.


def both_bodies(request, error=None):
    return HttpResponse(request.body + b"|" + request.raw_body)


class Catching(GzipRoute):
    def get_route_handler(self):
        handler = super().get_route_handler()

        def handle(request):
            try:
                return handler(request)
            except ValueError:
                return both_bodies(request)

        return handle


@each_way
@pytest.mark.parametrize("read", [lambda r: r.body, lambda r: r.read(3), lambda r: r.POST], ids=["all", "some", "form"])
def test_handlers_and_hooks_for_exceptions_see_the_body_that_a_view_has_read(way, read):
    def failing(request):
        assert read(request)
        raise ValueError

    guard = with_hooks(made("exception", both_bodies, types=(ValueError,)))
    for view in (Catching(failing), guard(GzipRoute(failing)), GzipRoute(guard(failing))):
        assert ask(view, UPLOAD, MULTIPART, way=way).content == UPLOAD + b"|" + UPLOAD
        packed = gzipped(UPLOAD, MULTIPART)
        assert ask(view, way=way, **packed).content == UPLOAD + b"|" + packed["body"]


def test_a_hook_takes_a_bomb_as_djangos_exception():
    hooks = made("exception", lambda request, error: HttpResponse(request.raw_body[:2]), types=(RequestDataTooBig,))
    assert ask(with_hooks(hooks)(GzipRoute(echo)), **gzipped(BOMB)).content == b"\x1f\x8b"


def test_a_policy_sees_the_body_that_its_place_has():
    def passes(word):
        return require(Check(lambda request: request.body.startswith(word)))

    view = passes(b"\x1f\x8b")(GzipRoute(passes(b"hello")(echo)))
    assert ask(view, **gzipped(b"hello")).content == b"hello"
    assert ask(view, **gzipped(b"other")).status_code == 403


@each_way
def test_forms_pass_the_csrf_middleware_which_reads_them_before_the_route(way):
    csrf = {"way": way, "middleware": ["django.middleware.csrf.CsrfViewMiddleware"], "csrf": True}
    token = csrf | {"X_CSRFToken": "a" * 32, "Cookie": f"csrftoken={'a' * 32}"}
    view = GzipRoute(form_of)
    assert ask(view, **csrf).status_code == 403
    assert json.loads(ask(view, UPLOAD, MULTIPART, **token).content) == PARSED
    assert json.loads(ask(view, **gzipped(b"name=alice", FORM), **token).content) == form(name="alice")
    packed = gzipped(UPLOAD, MULTIPART)
    for exempt in (csrf_exempt(view), GzipRoute(csrf_exempt(form_of))):
        assert json.loads(ask(exempt, **packed, **csrf).content) == PARSED
    # A server's stream can be read again.
    assert ask(view, **packed, **token).status_code == (200 if way == "server" else 500)


def test_a_changed_form_that_cannot_be_read_again_is_an_error_that_says_what_to_do():
    request = received(UPLOAD, MULTIPART)
    assert request.POST
    with pytest.raises(RawPostDataException, match=r"Changed changes the body, .* let it be csrf_exempt"):
        adopt(request, UpperRoute.request_class)


# gzip.


def test_a_body_is_unpacked_if_gzip_is_its_only_coding():
    for coding in ("gzip", "GZIP", "x-gzip", " gzip ", "identity, gzip"):
        assert ask(GzipRoute(echo), gzip.compress(b"hello"), Content_Encoding=coding).content == b"hello"
    for coding in ("", "identity", "br", "deflate", "gzip, gzip", "notgzip"):
        assert ask(GzipRoute(echo), b"as it is", Content_Encoding=coding).content == b"as it is"


HELLO = gzip.compress(b"hello")
BROKEN = {
    "truncated": gzip.compress(b"hello" * 100)[:-9],
    "half a header": HELLO[:3],
    "wrong checksum": HELLO[:-8] + b"\0" * 8,
    "endless name": b"\x1f\x8b\x08\x08\0\0\0\0\0\x03" + b"a" * 50_000,
    "garbage after a member": HELLO + b"garbage",
    "broken deflate": HELLO[:10] + b"\xff" * 20,
    "zlib": zlib.compress(b"hello"),
}


@pytest.mark.parametrize("packed", BROKEN.values(), ids=BROKEN)
def test_broken_gzip_is_djangos_bad_request(packed):
    with pytest.raises(BadRequest):
        gunzip(packed)


def test_members_are_one_body_however_many_they_are(settings):
    assert gunzip(b"") == b""
    assert gunzip(HELLO + gzip.compress(b"") + HELLO + b"\0\0") == b"hellohello"
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = None
    # Long, if each copied what comes after it.
    assert gunzip(zlib.compressobj(wbits=31).flush() * 40_000) == b""
    assert gunzip((HELLO + b"\0" * 2 * MIB) * 2) == b"hellohello"


@contextmanager
def less_memory_than(size):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def test_nothing_is_unpacked_beyond_the_limit_which_is_exact(settings):
    bomb = gzip.compress(BOMB)
    for packed in (bomb, bomb[:-9], gzip.compress(b"\0" * MIB) * 10):
        with less_memory_than(MIB), pytest.raises(RequestDataTooBig):
            gunzip(packed)
    for limit in (0, 1, 4096, 65_535):
        settings.DATA_UPLOAD_MAX_MEMORY_SIZE = limit
        assert gunzip(gzip.compress(b"\0" * limit)) == b"\0" * limit
        with pytest.raises(RequestDataTooBig):
            gunzip(gzip.compress(b"\0" * (limit + 1)))


# msgpack.


def test_msgpack_is_known_by_its_content_type_and_other_bodies_are_left_alone():
    for content_type in ("application/x-msgpack", "application/vnd.msgpack; version=1"):
        assert json.loads(ask(MsgpackRoute(json_of), msgpack.packb(DATA), content_type).content) == DATA
    assert json.loads(ask(MsgpackRoute(json_of), b'{"a": 1}').content) == {"a": 1}
    assert json.loads(ask(MsgpackRoute(form_of), b"a=1", FORM).content) == form(a="1")


ARRAY = b"\xdd"  # then its length, of 32 bits
HOSTILE = {
    "never used byte": b"\xc1",
    "truncated": msgpack.packb(DATA)[:-1],
    "two objects": msgpack.packb(1) * 2,
    "deep": b"\x91" * 50_000 + b"\xc0",
    "long list": ARRAY + b"\xff" * 4,
    "long lists in one another": (ARRAY + struct.pack(">I", 1_900_000)) * 500 + b"\xc0" * 1_900_000,
    "long map": b"\xdf" + b"\xff" * 4,
    "long string": b"\xdb" + b"\xff" * 4,
    "no UTF-8": b"\xa1\xff",
    "binary": msgpack.packb(b"\0"),
    "key that is binary": b"\x81\xc4\x01a\x01",
    "key that is a number": msgpack.packb({1: 2}),
    "key that is a list": b"\x81\x90\x01",
    "extension": msgpack.packb(msgpack.ExtType(5, b"x")),
    "timestamp": msgpack.packb(msgpack.Timestamp(0)),
    "not a number": msgpack.packb(float("nan")),
    "infinity": msgpack.packb(float("-inf")),
    "JSON": b'{"a": 1}',
}


@pytest.mark.parametrize("packed", HOSTILE.values(), ids=HOSTILE)
def test_what_has_no_form_in_json_is_a_400_and_takes_no_memory(packed, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * MIB
    request = received(packed, MSGPACK)
    assert request.body == packed
    with less_memory_than(5 * MIB):
        assert MsgpackRoute(echo)(request).status_code == 400


def test_no_depth_is_an_error_of_the_server():
    for depth in (100, 500, 900, 990, 1000, 1020, 1030):
        response = ask(MsgpackRoute(echo), b"\x91" * depth + b"\xc0", MSGPACK)
        if response.status_code != 400 or depth == 100:
            assert response.content == b"[" * depth + b"null" + b"]" * depth


def test_more_containers_than_json_could_have_are_too_large(settings):
    """In memory, an empty list takes 56 times the space."""
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 30_000
    packed = ARRAY + struct.pack(">I", 20_000) + b"\x90" * 20_000
    assert ask(MsgpackRoute(size_of), packed, MSGPACK).status_code == 413
    assert ask(MsgpackRoute(size_of), msgpack.packb([1] * 29_000), MSGPACK).status_code == 200
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = None
    assert ask(MsgpackRoute(size_of), packed, MSGPACK).status_code == 200


def test_without_msgpack_its_route_is_an_error_at_import(monkeypatch):
    view = MsgpackRoute(json_of)
    monkeypatch.setitem(sys.modules, "msgpack", None)
    for use in (lambda: MsgpackRoute(json_of), lambda: view(received(b"x", MSGPACK))):
        with pytest.raises(ImportError, match="msgpack"):
            use()
    assert json.loads(ask(view, b'{"a": 1}').content) == {"a": 1}
