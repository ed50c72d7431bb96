"""What of a request is logged, and what never is."""

import gzip
import json
import logging

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET

from channels_wsdeny import Deny
from channels_wsdeny.decorators import require
from channels_wsdeny.policies import DenyAll
from channels_wsdeny.routes import GzipRequest, GzipRoute, LoggedRoute, MsgpackRoute
from tests.support.receivers import BrokenHandler
from tests.support.site import hello as view
from tests.support.site import hello_async as view_async
from tests.support.views import FORM, JSON, MULTIPART, WAYS, ask, multipart

SECRET = "hunter2"


@pytest.fixture
def record_of(caplog):
    """A function that posts to a view of a logged route, and returns its record."""

    def post(body=b"", content_type=JSON, *, view=view, route=LoggedRoute, **options):
        caplog.clear()
        with caplog.at_level(logging.INFO, "channels_wsdeny"):
            ask(route(view), body, content_type, **options)
        (record,) = [record for record in caplog.records if hasattr(record, "body")]
        return record

    return post


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("view", [view, view_async])
def test_a_record_says_what_was_asked_and_answered(record_of, view, way):
    record = record_of(b'{"a": 1}', view=view, way=way, url="/?token=abc")
    assert record.getMessage() == 'POST /: 200; {"a": 1}'
    assert (record.name, record.levelname) == ("channels_wsdeny", "INFO")
    extras = (record.method, record.path, record.status, record.size, record.body)
    assert extras == ("POST", "/", 200, 8, '{"a": 1}')


@pytest.mark.parametrize(
    ("error", "answered", "status", "body"),
    [(ValueError("secret"), "ValueError", None, '{"a": 1}'), (Deny(409), "409", 409, "<denied>")],
)
def test_an_exception_is_logged_by_its_name_and_a_denial_by_its_status(record_of, error, answered, status, body):
    def failing(request):
        request.read(3)
        raise error

    async def failing_async(request):
        failing(request)

    for each in (failing, failing_async):
        record = record_of(b'{"a": 1}', view=each)
        assert (record.getMessage(), record.status) == (f"POST /: {answered}; {body}", status)


def test_nothing_is_logged_below_the_level_of_the_logger(caplog):
    with caplog.at_level(logging.WARNING, "channels_wsdeny"):
        assert ask(LoggedRoute(view)).content == b"hello world"
    assert not caplog.records


def test_a_log_handler_that_raises_changes_no_response(handler_of, capsys):
    handler_of("channels_wsdeny", BrokenHandler())
    assert ask(LoggedRoute(view)).content == b"hello world"
    assert "ZeroDivisionError" in capsys.readouterr().err


# Secrets.


SECRETS = """
password PASSWORD Password1 new_password2 oldPassword pass_word user[password] passwd pwd pass userPass
passphrase secret client_secret token accessToken refresh_token csrfmiddlewaretoken X-CSRFToken xsrf cookie
Set-Cookie
sessionid Authorization authorisation proxy-authorization auth X-Auth oauth api_key apiKey X-API-Key APIKEY
private-key signature jwt bearer otp pin cvv totp mfa OTPCode PINNumber
"""
PLAIN = "author authors passenger monkey keyboard pinned compass n user spin"


def test_secrets_are_left_out_by_their_names_and_nothing_else(record_of):
    for name in SECRETS.split():
        body = json.dumps({"user": "alice", name: SECRET, "in": [{name: {"value": SECRET}}], "n": 1})
        logged = record_of(body.encode()).getMessage()
        assert SECRET not in logged, name
        assert '"user": "alice"' in logged
        assert '"n": 1' in logged
        logged = record_of(f"user=alice&{name}={SECRET}&{name}={SECRET}&n=1".encode(), FORM).body
        assert SECRET not in logged, name
        assert (logged[:11], logged[-4:]) == ("user=alice&", "&n=1")
    for name in PLAIN.split():
        assert record_of(json.dumps({name: "shown"}).encode()).body == json.dumps({name: "shown"})
        assert record_of(f"{name}=shown".encode(), FORM).body == f"{name}=shown"


@pytest.mark.parametrize("read", [lambda request: None, lambda request: request.POST])
def test_secrets_in_multipart_forms_are_left_out(record_of, read):
    file = SimpleUploadedFile("secret plans.txt", SECRET.encode())
    body = multipart(user="alice", password=SECRET, file=file)
    record = record_of(body, MULTIPART, view=lambda request: HttpResponse(str(read(request))))
    assert record.body == "user=alice&password=[redacted]&file=<file, 7 bytes>"
    assert SECRET not in record.getMessage()


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
    "json in a field": b"payload=%7B%22password%22%3A%22hunter2%22%7D",
    "escaped name of a field": b"p%61ssword=hunter2",
    "plus in the name": b"pass+word=hunter2",
    "url in a field": b"next=/x%3Ftoken%3Dhunter2",
    "json sent as a form": b'{"password": "hunter2&a=hunter2"}',
    "broken json sent as a form": b'{"password": "hunter2&hunter2=a',
}


@pytest.mark.parametrize("body", HIDDEN_IN.values(), ids=HIDDEN_IN)
def test_secrets_are_left_out_wherever_they_hide(record_of, body):
    for content_type in (JSON, FORM, "text/plain", "application/octet-stream", ""):
        if body.startswith((b"p", b"next")) and content_type != FORM and b":" not in body:
            continue  # Escaped as in a form.
        message = record_of(body, content_type).getMessage()
        assert SECRET not in message, content_type
        assert "271828" not in message, content_type


@pytest.mark.parametrize("view", [view, view_async])
def test_what_django_is_told_to_be_sensitive_is_left_out(record_of, view):
    named, everything = sensitive_post_parameters("iban")(view), sensitive_post_parameters()(view)
    fields = {"iban": SECRET, "user": "alice"}
    for view, shown in ((named, "iban=[redacted]&user=alice"), (everything, "[redacted]")):
        assert record_of(b"iban=hunter2&user=alice", FORM, view=view).body == shown
        assert record_of(multipart(**fields), MULTIPART, view=view).body == shown
        for body in (json.dumps(fields).encode(), b"iban: hunter2"):
            assert record_of(body, view=view).body == "[redacted]"
    assert record_of(b"user=alice", FORM, view=named).body == "user=alice"


@pytest.mark.parametrize("guard", [require(DenyAll()), require_GET])
def test_nothing_is_shown_of_a_request_that_is_denied_before_its_sensitive_fields_are_named(record_of, guard):
    for body, content_type in ((b"iban=hunter2", FORM), (b'{"iban": "hunter2"}', JSON)):
        record = record_of(body, content_type, view=guard(sensitive_post_parameters("iban")(view)))
        assert (record.body, record.size) == ("<denied>", len(body))


# Long, binary and forged bodies.


def test_a_long_body_is_clipped_and_nothing_of_a_secret_is_shown(record_of):
    record = record_of(b"x" * 5000, "text/plain")
    assert (record.body, record.size) == ("x" * 1000 + "…", 5000)

    class Clipped(LoggedRoute):
        pass

    for Clipped.clip in range(5, 45):
        for body, content_type in ((b'{"a": 1, "password": "hunter2"}', JSON), (b"a=1&password=hunter2", FORM)):
            logged = record_of(body, content_type, route=Clipped).body
            assert "hun" not in logged
            assert len(logged) <= Clipped.clip + 1


BODIES = {
    "text with a secret": (b"user: alice, password: hunter2", "text/plain", "[redacted]"),
    "too long": (b"x" * 65_537, "text/plain", "<too long>"),
    "forged line": (b"a\r\nERROR forged", "text/plain", "a\\r\\nERROR forged"),
    "forged line in a field": (b"a=%0aERROR", FORM, "a=\\nERROR"),
    "empty": (b"", JSON, ""),
    "lone surrogate": (b'{"a": "\\ud800"}', JSON, '{"a": "\\ud800"}'),
    "json too deep": (b"[" * 30_000 + b"]" * 30_000, JSON, "<not readable>"),
    "image": (b"\x89PNG\r\n", FORM, "<binary>"),
    "control characters": (b"a\x1b[31m", "text/plain", "<binary>"),
    "compressed": (gzip.compress(b"x"), JSON, "<binary>"),
    "no text": (b"\xff" * 9, FORM, "<binary>"),
}


@pytest.mark.parametrize(("body", "content_type", "shown"), BODIES.values(), ids=BODIES)
def test_a_record_shows_a_body_as_one_line(record_of, body, content_type, shown):
    record = record_of(body, content_type)
    assert record.body.startswith(shown)
    assert record.body.isprintable()
    assert record.size == len(body)
    record.getMessage().encode()


def test_a_body_that_stays_a_stream_is_not_logged_but_its_fields_are_if_the_view_parsed_them(record_of, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    upload = multipart(a="1", f=SimpleUploadedFile("f", b"x" * 999))
    parse = lambda request: HttpResponse(request.FILES["f"].size)  # noqa: E731
    for body, content_type, asked, shown in (
        (b"x" * 101, "text/plain", view, "<not kept>"),
        (upload, MULTIPART, view, "<not kept>"),
        (upload, MULTIPART, parse, "a=1&f=<file, 999 bytes>"),
    ):
        record = record_of(body, content_type, view=asked)
        assert (record.body, record.size, record.status) == (shown, None, 200)


# Bodies of other routes.


@pytest.mark.parametrize("order", [1, -1])
def test_the_body_is_logged_as_the_view_read_it(record_of, order):
    for inner, packed, headers in (
        (GzipRoute, gzip.compress(b'{"a": 1, "token": "hunter2"}'), {"Content_Encoding": "gzip"}),
        (MsgpackRoute, b"\x82\xa1a\x01\xa5token\xa1x", {"content_type": "application/msgpack"}),
    ):
        outer, inside = (inner, LoggedRoute)[::order]
        record = record_of(packed, route=lambda view, outer=outer, inside=inside: outer(inside(view)), **headers)
        assert (record.body, record.size) == ('{"a": 1, "token": "[redacted]"}', len(packed))


def test_a_body_that_cannot_be_decoded_is_logged_by_its_status(record_of):
    logged_gzip = type("LoggedGzip", (LoggedRoute,), {"request_class": GzipRequest})
    for body, status in ((gzip.compress(b"\0" * 10**7), 413), (b"\xff", 400)):
        for route in (logged_gzip, lambda view: LoggedRoute(GzipRoute(view))):
            record = record_of(body, route=route, Content_Encoding="gzip")
            assert (record.body, record.status, record.size) == ("<denied>", status, len(body))
