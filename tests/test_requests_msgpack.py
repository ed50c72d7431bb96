"""Bodies in msgpack, which views read as JSON."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import msgpack
import pytest
from django.core.exceptions import BadRequest, RequestDataTooBig
from django.http import HttpResponse, JsonResponse
from django.test import Client, RequestFactory
from django.urls import path

import channels_wsdeny
from channels_wsdeny.routes import GzipRoute, MsgpackRequest, MsgpackRoute
from channels_wsdeny.routes.requests import adopt

MSGPACK = "application/msgpack"
DATA = {"name": "älice", "n": [1, -2.5, None, True], "in": {"a": []}}
ARRAY = b"\xdd"  # then its length, of 32 bits


def request_of(body, content_type=MSGPACK):
    return adopt(RequestFactory().post("/", body, content_type), MsgpackRequest)


def json_of(request):
    return JsonResponse(request.json(), safe=False)


@pytest.fixture
def post(settings):
    def post(view, body, content_type=MSGPACK, **headers):
        settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", view)]})
        return Client().post("/", body, content_type, headers=headers)

    return post


@pytest.mark.parametrize(
    "content_type", [MSGPACK, "application/x-msgpack", "application/vnd.msgpack; version=1"]
)
def test_json_reads_msgpack(post, content_type):
    assert post(MsgpackRoute(json_of), msgpack.packb(DATA), content_type).json() == DATA


def test_an_asynchronous_view_reads_msgpack(post):
    async def view(request):
        return json_of(request)

    assert post(MsgpackRoute(view), msgpack.packb(DATA)).json() == DATA


def test_the_body_is_json(post):
    response = post(MsgpackRoute(lambda request: HttpResponse(request.body)), msgpack.packb(DATA))
    assert json.loads(response.content) == DATA


def test_the_raw_body_is_msgpack():
    packed = msgpack.packb(DATA)
    assert request_of(packed).raw_body == packed


def test_other_content_types_are_left_alone(post):
    assert post(MsgpackRoute(json_of), b'{"a": 1}', "application/json").json() == {"a": 1}


def test_a_form_is_left_alone(post):
    view = MsgpackRoute(lambda request: JsonResponse(request.POST))
    assert post(view, b"a=1", "application/x-www-form-urlencoded").json() == {"a": "1"}


def test_msgpack_may_come_compressed(post):
    view = GzipRoute(MsgpackRoute(json_of))
    packed = gzip.compress(msgpack.packb(DATA))
    assert post(view, packed, **{"Content-Encoding": "gzip"}).json() == DATA


HOSTILE = {
    "empty": b"",
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
    "infinity": msgpack.packb(float("inf")),
    "JSON": b'{"a": 1}',
}


@pytest.mark.parametrize("packed", HOSTILE.values(), ids=HOSTILE)
def test_what_has_no_form_in_json_is_a_400(post, packed):
    assert post(MsgpackRoute(json_of), packed).status_code == 400


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_the_body_has_no_number_that_json_has_not(number):
    with pytest.raises(BadRequest):
        request_of(msgpack.packb(float(number))).body  # noqa: B018


def test_lists_that_only_say_that_they_are_long_take_no_memory():
    request = request_of(HOSTILE["long lists in one another"])
    assert request.raw_body
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest):
            request.body  # noqa: B018
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("depth", [100, 500, 900, 990, 1000, 1020, 1030])
def test_no_depth_is_an_error_of_the_server(depth):
    try:
        found = request_of(b"\x91" * depth + b"\xc0").json()
    except BadRequest:
        assert depth > 100
    else:
        for _ in range(depth):
            (found,) = found
        assert found is None


def test_it_may_be_caught_as_djangos_bad_request():
    with pytest.raises(BadRequest, match="not msgpack"):
        request_of(b"\xc1").json()


def test_many_empty_lists_are_too_large(settings, post):
    """In memory they take 56 times the space; this many are more than JSON of that size could hold."""
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 300_000
    packed = ARRAY + struct.pack(">I", 200_000) + b"\x90" * 200_000
    assert post(MsgpackRoute(json_of), packed).status_code == 413
    with pytest.raises(RequestDataTooBig):
        request_of(packed).json()


def test_a_body_full_of_numbers_is_not_too_large(settings, post):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100_000
    numbers = [1] * 99_000
    assert post(MsgpackRoute(json_of), msgpack.packb(numbers)).json() == numbers


def test_without_a_bound_any_number_of_lists_will_do(settings, post):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = None
    assert post(MsgpackRoute(json_of), msgpack.packb([[]] * 1000)).json() == [[]] * 1000


def test_the_body_is_unpacked_once():
    request = request_of(msgpack.packb(DATA))
    assert request.body is request.body


WITHOUT_MSGPACK = """
import sys
sys.modules["msgpack"] = None
from django.conf import settings
settings.configure(ROOT_URLCONF=__name__)
import django; django.setup()
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory
from channels_wsdeny.routes.requests import adopt
from channels_wsdeny.routes import GzipRoute, MsgpackRequest, MsgpackRoute

def view(request): ...

GzipRoute(view)
request = adopt(RequestFactory().post("/", b"{}", "application/json"), MsgpackRequest)
assert request.json() == {}
for use in (
    lambda: MsgpackRoute(view),
    lambda: adopt(RequestFactory().post("/", b"x", "application/msgpack"), MsgpackRequest).json(),
):
    try:
        use()
    except ImproperlyConfigured as error:
        print(error)
"""


def test_without_msgpack_an_error_says_what_to_install():
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_MSGPACK],
        cwd=Path(channels_wsdeny.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    told = "MsgpackRequest needs the package msgpack: pip install 'channels-wsdeny[msgpack]'.\n"
    assert (ran.stdout, ran.stderr) == (told * 2, "")
