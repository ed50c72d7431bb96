"""`Deny`, what the package raises, and the statuses of denials."""

import copy
import pickle
from http import HTTPStatus

import pytest
from django.http import HttpResponse
from django.utils import translation
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from channels_wsdeny import Deny
from channels_wsdeny import status as statuses
from channels_wsdeny.exceptions import HandshakeDenied, HookError, PolicyError

DENIALS = {
    "default": (Deny(), (403, "permission_denied", "")),
    "status": (Deny(404), (404, "not_found", "")),
    "code": (Deny(404, code="no_such_room"), (404, "no_such_room", "")),
    "empty code": (Deny(404, code=""), (404, "not_found", "")),
    "HTTPStatus": (Deny(HTTPStatus.CONFLICT), (409, "conflict", "")),
    "unregistered": (Deny(499), (400, "bad_request", "")),
    "unregistered, of a redirect": (Deny(306), (300, "multiple_choices", "")),
    "response": (Deny(404, response=HttpResponse(status=410)), (410, "gone", "")),
    "detail": (Deny(404, "No such room."), (404, "not_found", "No such room.")),
}


@pytest.mark.parametrize(("deny", "expected"), DENIALS.values(), ids=DENIALS)
def test_a_deny_has_a_status_a_code_and_a_detail(deny, expected):
    assert (deny.status, deny.code, deny.detail) == expected
    assert type(deny.status) is int


WRONG = {
    **{
        repr(status): ({"status": status}, ValueError, "300-599, found")
        for status in (600, 0, -403, True, None, "403", 403.0)
    },
    **{
        repr(status): ({"status": status}, ValueError, "return True from the policy, or accept in the consumer")
        for status in (100, 101, 200, 299)
    },
    **{repr(code): ({"code": code}, TypeError, "the code is a string") for code in (5, b"no_room", ["no_room"])},
    "detail": ({"detail": {"errors": []}}, TypeError, r"found a dict\. Give data as members"),
    "headers": ({"headers": [("a", "b")]}, TypeError, r"Deny\(headers=...\) takes a dict, found a list"),
    "response": ({"response": HttpResponse()}, ValueError, "found 200"),
    "reserved": ({"retry": 5, "instance": "/"}, ValueError, r"\['instance', 'retry'\]"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG.values(), ids=WRONG)
def test_arguments_that_cannot_deny_raise_with_the_remedy(arguments, error, message):
    with pytest.raises(error, match=message):
        Deny(**arguments)


def test_a_deny_has_copies_of_headers_and_members():
    headers: dict = {"Retry-After": "1", "X-Number": 2}  # as Django's responses take one
    deny = Deny(429, headers=headers, room=7)
    headers["Retry-After"] = "2"
    assert (deny.headers, deny.members) == ({"Retry-After": "1", "X-Number": "2"}, {"room": 7})


def test_a_deny_prints_as_what_it_is():
    assert (str(Deny(404)), repr(Deny(404, "No such room."))) == ("404 not_found", "Deny(404, 'No such room.')")
    with translation.override("de"):
        assert str(Deny(404, gettext_lazy("Yes"))) == "404 not_found: Ja"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda deny: pickle.loads(pickle.dumps(deny))])
def test_a_deny_survives_copying_and_pickling(duplicate):
    deny = duplicate(Deny(429, "Slowly.", code="slow", headers={"Retry-After": "9"}, room=7))
    assert (deny.status, deny.detail, deny.code) == (429, "Slowly.", "slow")
    assert (deny.headers, deny.members) == ({"Retry-After": "9"}, {"room": 7})
    deny = duplicate(Deny(response=HttpResponse(b"gone", status=410), code="left"))
    assert (deny.status, deny.code, deny.response.content) == (410, "left", b"gone")


def test_a_subclass_that_does_not_call_init_is_a_plain_403():
    class Quiet(Deny):
        def __init__(self):
            pass

    deny = Quiet()
    assert (deny.status, deny.code, deny.detail, deny.response) == (403, "permission_denied", "", None)
    assert (dict(deny.headers), dict(deny.members), str(deny)) == ({}, {}, "403 permission_denied")
    with pytest.raises(TypeError):
        deny.headers["X-Shared"] = "by all"


def test_the_kinds_of_exceptions_are_those_that_callers_expect():
    assert issubclass(HandshakeDenied, OSError)  # as the ASGI specification asks of a closed connection
    assert issubclass(PolicyError, TypeError)
    assert issubclass(HookError, TypeError)


REGISTERED = [status.value for status in HTTPStatus if status.value >= 300]
CODES = {
    302: "found",
    400: "bad_request",
    401: "not_authenticated",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    410: "gone",
    413: "content_too_large",
    414: "uri_too_long",
    416: "range_not_satisfiable",
    418: "im_a_teapot",
    422: "unprocessable_content",
    429: "throttled",
    500: "server_error",
    503: "unavailable",
}


def test_a_status_that_discloses_the_resource_is_content():
    assert [status for status in (101, 200, 204, 299, 301, 304, 401, 500) if statuses.is_content(status)] == [
        *(101, 200, 204, 299, 304)
    ]


def test_codes_do_not_follow_phrases_which_change_with_pythons_version():
    assert {status: statuses.code_for(status) for status in CODES} == CODES


def test_codes_are_plain_words_that_differ_by_status():
    codes = {statuses.code_for(status) for status in REGISTERED}
    assert len(codes) == len(REGISTERED)
    assert [code for code in codes if not (code.isidentifier() and code.islower())] == []


def test_the_usual_denials_have_a_translatable_text_and_others_none():
    for status in (400, 401, 403, 404, 429, 500, 503):
        assert isinstance(statuses.detail_for(statuses.code_for(status), status), Promise)
        assert isinstance(statuses.detail_for("too_young", status), Promise)
    assert statuses.detail_for("im_a_teapot", 418) == ""
