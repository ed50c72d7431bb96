"""Bodies that come compressed with gzip: whole, broken, and as bombs."""

from __future__ import annotations

import gc
import gzip
import json
import os
import tracemalloc
import zlib

import pytest
from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse, JsonResponse, RawPostDataException
from django.test import Client
from django.test.client import MULTIPART_CONTENT
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from channels_wsdeny import Deny
from channels_wsdeny.routes import GzipRequest, GzipRoute
from channels_wsdeny.routes.requests import gunzip
from tests.test_requests import (
    FORM,
    LIMIT,
    MIRROR,
    Asgi,
    Server,
    Wsgi,
    adopted,
    ask_gzip,
    asker,
    echo,
    form_of,
    multipart,
)

pytestmark = pytest.mark.django_db  # Django closes old connections around each request

MIB = 1024 * 1024


@pytest.fixture(params=[Wsgi, Asgi, Server], ids=["wsgi", "asgi", "server"])
def door(request):
    return request.param


@pytest.fixture(params=[[], [MIRROR]], ids=["alone", "mirror"])
def middleware(request):
    return request.param


@pytest.fixture
def ask(settings, door, middleware):
    return asker(settings, door, middleware)


async def echo_async(request):
    return HttpResponse(request.body)


def test_one_route_takes_compressed_bodies_and_others(ask):
    view = GzipRoute(echo)
    assert ask_gzip(ask, view, b"hello").body == b"hello"
    assert ask(view, b"hello").body == b"hello"


def test_an_asynchronous_view_gets_the_unpacked_body(ask):
    assert ask_gzip(ask, GzipRoute(echo_async), b"hello").body == b"hello"


def test_json_is_read_from_the_unpacked_body(ask):
    view = GzipRoute(lambda request: JsonResponse(request.json()))
    assert ask_gzip(ask, view, b'{"a": 1}').body == b'{"a": 1}'


def test_a_compressed_form_is_parsed(ask):
    answer = ask_gzip(ask, GzipRoute(form_of), b"name=alice&x=1", Content_Type=FORM)
    assert json.loads(answer.body)["fields"] == {"name": "alice", "x": "1"}


def test_a_form_that_is_not_compressed_is_parsed(ask):
    answer = ask(GzipRoute(form_of), b"name=alice", Content_Type=FORM)
    assert json.loads(answer.body)["fields"] == {"name": "alice"}


@pytest.mark.parametrize("size", [10, 50_000])
def test_a_compressed_multipart_form_is_parsed(ask, settings, size):
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = 1000
    body = multipart(name="alice", file=SimpleUploadedFile("a.txt", b"x" * size))
    answer = ask_gzip(ask, GzipRoute(form_of), body, Content_Type=MULTIPART_CONTENT)
    assert json.loads(answer.body) == {"fields": {"name": "alice"}, "files": {"file": "x" * size}}


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", " gzip ", "identity, gzip"])
def test_names_of_the_coding(ask, coding):
    assert ask(GzipRoute(echo), gzip.compress(b"hello"), Content_Encoding=coding).body == b"hello"


@pytest.mark.parametrize("coding", ["", "identity", "br", "deflate", "gzip, gzip", "notgzip"])
def test_other_codings_are_left_alone(ask, coding):
    assert ask(GzipRoute(echo), b"as it is", Content_Encoding=coding).body == b"as it is"


def test_an_empty_body_is_no_broken_gzip(ask):
    assert ask(GzipRoute(echo), b"", Content_Encoding="gzip").body == b""


def test_a_body_that_comes_in_chunks_of_unknown_length_is_unpacked(settings):
    settings.MIDDLEWARE = []
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", GzipRoute(form_of))]})
    headers = {"Content-Type": MULTIPART_CONTENT, "Content-Encoding": "gzip", "Content-Length": ""}
    answer = Server().send(gzip.compress(multipart(name="alice")), headers)
    assert json.loads(answer.body)["fields"] == {"name": "alice"}


def test_several_members_are_one_body(ask):
    packed = gzip.compress(b"hello ") + gzip.compress(b"") + gzip.compress(b"world") + b"\0\0"
    assert ask(GzipRoute(echo), packed, Content_Encoding="gzip").body == b"hello world"


def test_a_body_as_large_as_the_bound_is_unpacked(ask):
    answer = ask_gzip(ask, GzipRoute(lambda request: HttpResponse(str(len(request.body)))), b"x" * LIMIT)
    assert answer.body == str(LIMIT).encode()


@pytest.mark.parametrize("view", [echo, echo_async])
@pytest.mark.parametrize("size", [LIMIT + 1, 10 * MIB])
def test_a_bomb_is_a_413(ask, view, size):
    answer = ask_gzip(ask, GzipRoute(view), b"\0" * size)
    assert answer.status == 413
    assert answer.problem["code"] == "content_too_large"


@pytest.mark.parametrize("content_type", [FORM, MULTIPART_CONTENT])
def test_a_bomb_in_a_form_is_a_413(ask, content_type):
    assert ask_gzip(ask, GzipRoute(form_of), b"x" * 10 * MIB, Content_Type=content_type).status == 413


def test_a_compressed_body_that_is_too_large_itself_is_a_413(ask):
    packed = gzip.compress(os.urandom(LIMIT * 2))
    assert ask(GzipRoute(echo), packed, Content_Encoding="gzip").status == 413


def test_without_a_bound_everything_is_unpacked(ask, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = None
    view = GzipRoute(lambda request: HttpResponse(str(len(request.body))))
    assert ask_gzip(ask, view, b"\0" * 3 * MIB).body == str(3 * MIB).encode()


BROKEN = {
    "no gzip": b"hello",
    "truncated": gzip.compress(b"hello" * 100)[:-9],
    "header alone": gzip.compress(b"hello")[:10],
    "half a header": gzip.compress(b"hello")[:3],
    "wrong checksum": gzip.compress(b"hello")[:-8] + b"\0" * 8,
    "wrong size": gzip.compress(b"hello")[:-4] + b"\0" * 4,
    "endless name": b"\x1f\x8b\x08\x08\0\0\0\0\0\x03" + b"a" * 50_000,
    "garbage after a member": gzip.compress(b"hello") + b"garbage",
    "half a second member": gzip.compress(b"hello") + gzip.compress(b"world")[:12],
    "padding alone": b"\0\0",
    "zlib": zlib.compress(b"hello"),
}


@pytest.mark.parametrize("packed", BROKEN.values(), ids=BROKEN)
def test_broken_gzip_is_a_400(ask, packed):
    answer = ask(GzipRoute(echo), packed, Content_Encoding="gzip")
    assert answer.status == 400
    assert answer.problem["code"] == "bad_request"


def test_a_stream_that_breaks_beyond_the_bound_is_a_413(ask):
    """As nobody unpacks it so far."""
    packed = gzip.compress(b"\0" * 10 * MIB)[:-9]
    assert ask(GzipRoute(echo), packed, Content_Encoding="gzip").status == 413


def test_a_content_length_that_lies_is_a_400(settings):
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", GzipRoute(echo))]})
    packed = gzip.compress(b"hello")
    response = Client().generic(
        "POST", "/", packed, headers={"Content-Encoding": "gzip"}, CONTENT_LENGTH=len(packed) - 4
    )
    assert response.status_code == 400


def test_the_answer_says_nothing_of_the_reason_to_unpack_no_further(ask):
    assert str(LIMIT) not in ask_gzip(ask, GzipRoute(echo), b"\0" * MIB).body.decode()


def test_a_bomb_may_be_caught_as_djangos_exception(ask):
    @GzipRoute
    def view(request):
        try:
            return HttpResponse(request.body)
        except RequestDataTooBig:
            return HttpResponse("too big")

    assert ask_gzip(ask, view, b"\0" * MIB).body == b"too big"


def test_a_bomb_that_nobody_reads_does_nothing(ask):
    assert ask_gzip(ask, GzipRoute(lambda request: HttpResponse("fine")), b"\0" * MIB).body == b"fine"


def peak_of(unpack):
    gc.collect()
    tracemalloc.start()
    try:
        with pytest.raises(Deny):
            unpack()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(b"\0" * 10 * MIB),
        gzip.compress(b"\0" * MIB) * 10,
        gzip.compress(b"\0" * (LIMIT - 1)) + gzip.compress(b"\0" * 10 * MIB),
    ],
    ids=["one member", "many members", "the second member"],
)
def test_nothing_is_unpacked_beyond_the_bound(packed):
    """What was unpacked, and the copy that it is collected in: with one byte too many, the end was seen."""
    assert peak_of(lambda: gunzip(packed, LIMIT)) < 3 * LIMIT


def test_a_bomb_within_a_bomb_is_unpacked_once(ask):
    inner = gzip.compress(b"\0" * 10 * MIB)
    assert ask_gzip(ask, GzipRoute(echo), inner).body == inner


def test_a_hundred_thousand_empty_members_take_no_time():
    """As long as each copies what comes after it, they take minutes."""
    packer = zlib.compressobj(wbits=31)
    empty = packer.flush()
    assert gunzip(empty * 120_000, None) == b""


def test_padding_takes_no_time():
    packed = gzip.compress(b"x") + b"\0" * 2 * MIB
    assert gunzip(packed * 2, None) == b"xx"


@pytest.mark.parametrize("limit", [0, 1, 4095, 4096, 4097, 65_535])
@pytest.mark.parametrize("data", [b"\0", os.urandom(1)])
def test_the_bound_is_exact(limit, data):
    assert gunzip(gzip.compress(data * limit), limit) == data * limit
    with pytest.raises(RequestDataTooBig):
        gunzip(gzip.compress(data * (limit + 1)), limit)


def test_the_body_is_unpacked_once():
    request = adopted(GzipRequest, gzip.compress(b"hello"), **{"Content-Encoding": "gzip"})
    assert request.body is request.body


# The middleware against forged requests, which reads forms before any route.


CSRF = "django.middleware.csrf.CsrfViewMiddleware"
TOKEN = "a" * 32


def post_with_token(door, settings, view, body, content_type, encoding="gzip"):
    settings.MIDDLEWARE = [CSRF]
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", view)]})
    headers = {"Content-Type": content_type, "X-CSRFToken": TOKEN, "Cookie": f"csrftoken={TOKEN}"}
    if encoding:
        headers["Content-Encoding"] = encoding
        body = gzip.compress(body)
    client = door() if door is Server else door(enforce_csrf_checks=True)
    return client.send(body, headers)


def test_a_compressed_form_with_its_token_in_a_header_is_parsed(door, settings):
    answer = post_with_token(door, settings, GzipRoute(form_of), b"name=alice", FORM)
    assert json.loads(answer.body)["fields"] == {"name": "alice"}


def test_a_compressed_multipart_form_that_middleware_has_read_is_parsed_where_it_can_be(settings):
    answer = post_with_token(Server, settings, GzipRoute(form_of), multipart(name="alice"), MULTIPART_CONTENT)
    assert json.loads(answer.body)["fields"] == {"name": "alice"}


def test_elsewhere_it_is_an_error_that_says_what_to_do(settings):
    @GzipRoute
    def view(request):
        with pytest.raises(RawPostDataException, match="let the view be csrf_exempt"):
            request.POST  # noqa: B018
        return HttpResponse("told")

    answer = post_with_token(Wsgi, settings, view, multipart(name="alice"), MULTIPART_CONTENT)
    assert answer.body == b"told"


def test_a_multipart_form_that_middleware_has_read_is_left_alone(door, settings):
    view = GzipRoute(form_of)
    answer = post_with_token(door, settings, view, multipart(name="alice"), MULTIPART_CONTENT, encoding=None)
    assert json.loads(answer.body)["fields"] == {"name": "alice"}


def test_an_exempt_view_takes_a_compressed_multipart_form(door, settings):
    for view in (csrf_exempt(GzipRoute(form_of)), GzipRoute(csrf_exempt(form_of))):
        answer = post_with_token(door, settings, view, multipart(name="alice"), MULTIPART_CONTENT)
        assert json.loads(answer.body)["fields"] == {"name": "alice"}


def test_a_view_of_a_route_is_protected_as_before(door, settings):
    settings.MIDDLEWARE = [CSRF]
    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", GzipRoute(echo))]})
    client = door() if door is Server else door(enforce_csrf_checks=True)
    assert client.send(b"", {}).status == 403
