"""What of a request goes to the log, and what never does."""

from __future__ import annotations

import gzip
import json
import logging

import pytest
from asgiref.sync import async_to_sync
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.urls import path

from channels_wsdeny import Deny
from channels_wsdeny.routes import GzipRoute, LoggedRoute, MsgpackRoute

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
SECRET = "hunter2"


def view(request):
    return HttpResponse("hello")


async def view_async(request):
    return HttpResponse("hello")


class SyncOfAsync:
    """Django's `AsyncClient` with the methods of `Client`."""

    def __init__(self, **kwargs):
        self.post = async_to_sync(AsyncClient(**kwargs).post)


@pytest.fixture(params=[Client, SyncOfAsync], ids=["wsgi", "asgi"])
def client(request):
    return request.param(raise_request_exception=False)


@pytest.fixture
def record_of(settings, client, caplog):
    """A function that posts to a view of a logged route, and returns its record."""
    settings.MIDDLEWARE = []

    def post(body=b"", content_type=JSON, *, view=view, route=LoggedRoute, url="/x/?token=abc", **headers):
        caplog.clear()
        settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("x/", route(view))]})
        with caplog.at_level(logging.INFO, "channels_wsdeny"):
            client.post(url, body, content_type, headers=headers)
        (record,) = [record for record in caplog.records if hasattr(record, "body")]
        return record

    return post


@pytest.mark.parametrize("view", [view, view_async])
def test_a_record_tells_what_was_asked_and_answered(record_of, view):
    record = record_of(b'{"a": 1}', view=view)
    assert record.getMessage() == 'POST /x/: 200; {"a": 1}'
    assert (record.name, record.levelname) == ("channels_wsdeny", "INFO")
    extras = (record.method, record.path, record.status, record.size, record.body)
    assert extras == ("POST", "/x/", 200, 8, '{"a": 1}')


def test_the_query_string_is_not_logged(record_of):
    assert "abc" not in record_of().getMessage()


def failing(error):
    def view(request):
        request.read(3)
        raise error

    return view


def failing_async(error):
    async def view(request):
        failing(error)(request)

    return view


@pytest.mark.parametrize("failing", [failing, failing_async])
def test_an_exception_is_logged_by_its_name(record_of, failing):
    record = record_of(b'{"a": 1}', view=failing(ValueError("secret")))
    assert (record.getMessage(), record.status) == ('POST /x/: ValueError; {"a": 1}', None)


@pytest.mark.parametrize("failing", [failing, failing_async])
def test_a_denial_is_logged_by_its_status(record_of, failing):
    record = record_of(b'{"a": 1}', view=failing(Deny(409)))
    assert (record.getMessage(), record.status) == ('POST /x/: 409; {"a": 1}', 409)


def test_nothing_is_done_where_nobody_listens(settings, caplog):
    class Unread(LoggedRoute):
        def get_route_handler(self):
            handler = super().get_route_handler()

            def handle(request):
                response = handler(request)
                assert "_body" not in vars(request)
                return response

            return handle

    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", Unread(view))]})
    settings.MIDDLEWARE = []
    with caplog.at_level(logging.WARNING, "channels_wsdeny"):
        assert Client().post("/", b"{}", JSON).content == b"hello"


def test_the_log_takes_nothing_from_the_view(record_of):
    read = []
    record_of(b"hello", "text/plain", view=lambda request: read.append(request.read()) or HttpResponse())
    assert read == [b"hello"]


# Secrets.


SECRETS = [
    "password",
    "PASSWORD",
    "Password1",
    "new_password2",
    "oldPassword",
    "pass_word",
    "user[password]",
    "passwd",
    "pwd",
    "pass",
    "userPass",
    "passphrase",
    "secret",
    "client_secret",
    "token",
    "accessToken",
    "refresh_token",
    "csrfmiddlewaretoken",
    "X-CSRFToken",
    "xsrf",
    "cookie",
    "Set-Cookie",
    "sessionid",
    "Authorization",
    "authorisation",
    "proxy-authorization",
    "auth",
    "X-Auth",
    "oauth",
    "api_key",
    "apiKey",
    "X-API-Key",
    "APIKEY",
    "private key",
    "signature",
    "jwt",
    "bearer",
    "otp",
    "pin",
    "cvv",
]


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_in_json_are_left_out(record_of, name):
    body = json.dumps({"user": "alice", name: SECRET, "in": [{name: {"value": SECRET}}], "n": 1})
    record = record_of(body.encode())
    assert SECRET not in record.getMessage()
    assert '"user": "alice"' in record.body
    assert '"n": 1' in record.body


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_in_forms_are_left_out(record_of, name):
    record = record_of(f"user=alice&{name}={SECRET}&{name}={SECRET}&n=1".encode(), FORM)
    assert SECRET not in record.getMessage()
    assert record.body.startswith("user=alice&")
    assert record.body.endswith("&n=1")


@pytest.mark.parametrize("read", [lambda request: None, lambda request: request.POST])
def test_secrets_in_multipart_forms_are_left_out(settings, caplog, read):
    settings.MIDDLEWARE = []
    settings.ROOT_URLCONF = type(
        "urls", (), {"urlpatterns": [path("", LoggedRoute(lambda r: HttpResponse(str(read(r)))))]}
    )
    file = SimpleUploadedFile("secret plans.txt", SECRET.encode())
    with caplog.at_level(logging.INFO, "channels_wsdeny"):
        Client().post("/", {"user": "alice", "password": SECRET, "file": file})
    (record,) = [record for record in caplog.records if hasattr(record, "body")]
    assert record.body == "user=alice&password=[redacted]&file=<file, 7 bytes>"
    assert SECRET not in record.getMessage()


@pytest.mark.parametrize(
    "name", ["author", "authors", "passenger", "monkey", "keyboard", "pinned", "compass", "n", "user", "spin"]
)
def test_other_names_are_shown(record_of, name):
    assert record_of(json.dumps({name: "shown"}).encode()).body == json.dumps({name: "shown"})
    assert record_of(f"{name}=shown".encode(), FORM).body == f"{name}=shown"


HIDDEN_IN = {
    "number": b'{"pin": 271828}',
    "escaped name": b'{"p\\u0061ssword": "hunter2"}',
    "name as a value": b'{"name": "password", "value": "hunter2"}',
    "pair": b'{"headers": [["Authorization", "hunter2"]]}',
    "json within json": b'{"payload": "{\\"password\\": \\"hunter2\\"}"}',
    "query within json": b'{"url": "https://example.com/?access_token=hunter2"}',
    "password of a URL": b'{"url": "https://alice:hunter2@example.com/"}',
    "bearer": b'{"header": "Bearer hunter2"}',
    "basic": b'{"header": "Basic hunter2"}',
    "json web token": b'{"x": "eyJhbGciOiJIUzI1NiJ9.hunter2"}',
    "graphql": b'{"query": "mutation { login(user: \\"alice\\", password: \\"hunter2\\") }"}',
    "name with the value": b'{"password=hunter2": 1}',
    "cut off": b'{"user": "alice", "password": "hunter2',
    "not json": b"{'password': 'hunter2'}",
    "two documents": b'{"a": 1}\n{"password": "hunter2"}',
    "text": b"my password is hunter2",
    "yaml": b"pass: hunter2",
    "xml": b"<password>hunter2</password>",
    "value before the name": b'<user>alice</user><input value="hunter2" name="password">',
    "value before the name, cut off": b'[{"user": "alice"}, {"value": "hunter2", "name": "password"',
    "list": b'["password", "hunter2"]',
    "bare string": b'"password=hunter2"',
    "utf-16": '{"password": "hunter2"}'.encode("utf-16"),
}


@pytest.mark.parametrize("content_type", [JSON, FORM, "text/plain", "application/octet-stream", ""])
@pytest.mark.parametrize("body", HIDDEN_IN.values(), ids=HIDDEN_IN)
def test_secrets_are_left_out_wherever_they_hide(record_of, body, content_type):
    message = record_of(body, content_type).getMessage()
    assert SECRET not in message
    assert "271828" not in message


def test_what_comes_before_a_secret_is_shown(record_of):
    body = b"<user>alice</user><password>hunter2</password>"
    assert record_of(body, "application/xml").body == "<user>alice</user>[redacted]"
    assert record_of(b"user: alice, password: hunter2", "text/plain").body == "user: alice, [redacted]"


FORMS = {
    "json in a field": b"payload=%7B%22password%22%3A%22hunter2%22%7D",
    "escaped name": b"p%61ssword=hunter2",
    "plus in the name": b"pass+word=hunter2",
    "url in a field": b"next=/x%3Ftoken%3Dhunter2",
    "json sent as a form": b'{"password": "hunter2&a=hunter2"}',
    "broken json sent as a form": b'{"password": "hunter2&hunter2=a',
}


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS)
def test_secrets_are_left_out_of_forms_wherever_they_hide(record_of, body):
    assert SECRET not in record_of(body, FORM).getMessage()


# Long, binary and forged bodies.


def test_a_long_body_is_clipped(record_of):
    record = record_of(b"x" * 5000, "text/plain")
    assert (record.body, record.size) == ("x" * 1000 + "…", 5000)


def test_the_clip_may_be_another(record_of):
    class Short(LoggedRoute):
        clip = 3

    assert record_of(b"hello", "text/plain", route=Short).body == "hel…"


@pytest.mark.parametrize("clip", range(5, 45))
def test_a_clip_in_the_middle_of_a_secret_shows_nothing_of_it(record_of, clip):
    class Clipped(LoggedRoute):
        pass

    Clipped.clip = clip
    for body, content_type in ((b'{"a": 1, "password": "hunter2"}', JSON), (b"a=1&password=hunter2", FORM)):
        assert "hun" not in record_of(body, content_type, route=Clipped).body


@pytest.mark.parametrize("padding", [65_500, 65_536, 200_000])
def test_secrets_are_left_out_of_very_long_bodies(record_of, padding):
    class Whole(LoggedRoute):
        clip = 10**6

    fill = "x" * padding
    bodies = [
        (json.dumps({"a": "b", "password": SECRET, "fill": fill}), JSON),
        (json.dumps({"fill": fill, "password": SECRET}), JSON),
        (f"a=b&password={SECRET}&fill={fill}", FORM),
        (f"fill={fill}&password={SECRET}", FORM),
    ]
    for body, content_type in bodies:
        assert SECRET not in record_of(body.encode(), content_type, route=Whole).body


def test_very_long_json_is_not_parsed(record_of):
    """What is parsed is written anew, with a space after the colon."""
    assert record_of(b'{"a":1, "b": "' + b"x" * 70_000 + b'"}').body.startswith('{"a":1, "b": "x')


def test_a_very_long_body_of_characters_of_several_bytes_is_shown(record_of):
    assert record_of(b"x" + "ä".encode() * 65_536, "text/plain").body == "x" + "ä" * 999 + "…"


@pytest.mark.parametrize(
    "body", [b"\x89PNG\r\n", b"\x00\x01", b"a\x1b[31m", gzip.compress(b"x"), b"\xff" * 9]
)
@pytest.mark.parametrize("content_type", ["application/octet-stream", JSON, FORM, "text/plain"])
def test_a_binary_body_is_not_shown(record_of, body, content_type):
    record = record_of(body, content_type)
    assert (record.body, record.size) == ("<binary>", len(body))


def test_a_body_cannot_forge_a_record(record_of):
    assert record_of(b"a\r\nERROR forged", "text/plain").body == "a\\r\\nERROR forged"
    assert "\n" not in record_of(b"a=%0aERROR", FORM).getMessage()


def test_lone_surrogates_can_be_written(record_of):
    record_of(b'{"a": "\\ud800"}').getMessage().encode()


@pytest.mark.parametrize("body", [b"[" * 900 + b"]" * 900, b"[" * 30_000 + b"]" * 30_000, b"[" * 30_000])
def test_deep_json_is_no_error(record_of, body):
    assert record_of(body).size == len(body)


def test_an_empty_body_is_empty(record_of):
    record = record_of(b"")
    assert (record.body, record.size) == ("", 0)


def test_a_body_that_is_larger_than_may_be_kept_is_not_read(record_of, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    record = record_of(b"x" * 101, "text/plain")
    assert (record.body, record.size, record.status) == ("<not readable>", None, 200)


def test_a_large_upload_is_streamed_and_its_fields_logged(settings, caplog):
    settings.MIDDLEWARE = []
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    for view, shown in (
        (lambda request: HttpResponse(request.FILES["f"].size), "a=1&f=<file, 999 bytes>"),
        (lambda request: HttpResponse(), "<not kept>"),
    ):
        settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", LoggedRoute(view))]})
        caplog.clear()
        with caplog.at_level(logging.INFO, "channels_wsdeny"):
            response = Client().post("/", {"a": "1", "f": SimpleUploadedFile("f", b"x" * 999)})
        assert response.status_code == 200
        (record,) = [record for record in caplog.records if hasattr(record, "body")]
        assert (record.body, record.size) == (shown, None)


# Bodies of other routes.


def test_inside_a_gzip_route_the_unpacked_body_is_logged(record_of):
    headers = {"Content-Encoding": "gzip"}
    packed = gzip.compress(b'{"a": 1, "password": "hunter2"}')
    record = record_of(packed, route=lambda view: GzipRoute(LoggedRoute(view)), **headers)
    assert (record.body, record.size) == ('{"a": 1, "password": "[redacted]"}', len(packed))


def test_around_a_gzip_route_the_compressed_body_is_not_shown(record_of):
    record = record_of(gzip.compress(b"{}"), route=lambda view: LoggedRoute(GzipRoute(view)))
    assert record.body == "<binary>"


def test_a_bomb_is_not_readable(record_of):
    packed = gzip.compress(b"\0" * 10 * 1024 * 1024)
    headers = {"Content-Encoding": "gzip"}
    record = record_of(packed, route=lambda view: GzipRoute(LoggedRoute(view)), **headers)
    assert (record.body, record.status) == ("<not readable>", 200)


def test_msgpack_is_logged_as_json(record_of):
    record = record_of(
        b"\x82\xa1a\x01\xa5token\xa1x",
        "application/msgpack",
        route=lambda view: MsgpackRoute(LoggedRoute(view)),
    )
    assert record.body == '{"a": 1, "token": "[redacted]"}'


def test_a_handler_of_the_log_that_fails_changes_no_answer(settings, client):
    class Broken(logging.Handler):
        def emit(self, record):
            raise RuntimeError

    settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("", LoggedRoute(view))]})
    logger = logging.getLogger("channels_wsdeny")
    broken = Broken()
    logger.addHandler(broken)
    try:
        assert client.post("/", b"{}", JSON).content == b"hello"
    finally:
        logger.removeHandler(broken)
