"""`Deny`, and what the package raises."""

import copy
import pickle
from http import HTTPStatus

import pytest
from django.http import HttpResponse
from django.utils import translation
from django.utils.translation import gettext_lazy

from channels_wsdeny import Deny
from channels_wsdeny.exceptions import HandshakeDenied, HookError, PolicyError

DENIALS = {
    "default": (Deny(), (403, "permission_denied", "")),
    "status": (Deny(404), (404, "not_found", "")),
    "code": (Deny(404, code="no_such_room"), (404, "no_such_room", "")),
    "empty code": (Deny(404, code=""), (404, "not_found", "")),
    "HTTPStatus": (Deny(HTTPStatus.CONFLICT), (409, "conflict", "")),
    "unregistered": (Deny(499), (400, "bad_request", "")),
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
        repr(status): ({"status": status}, ValueError, "return True from the policy") for status in (100, 101, 200, 299)
    },
    **{repr(code): ({"code": code}, TypeError, "the code is a string") for code in (5, b"no_room", ["no_room"])},
    "detail": ({"detail": {"errors": []}}, TypeError, r"found a dict\. Give data as members"),
    "response": ({"response": HttpResponse()}, ValueError, "found 200"),
    "reserved": ({"retry": 5, "instance": "/"}, ValueError, r"\['instance', 'retry'\]"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG.values(), ids=WRONG)
def test_arguments_that_cannot_deny_raise_with_the_remedy(arguments, error, message):
    with pytest.raises(error, match=message):
        Deny(**arguments)


def test_a_deny_has_copies_of_headers_and_members():
    headers = {"Retry-After": "1"}
    deny = Deny(429, headers=headers, room=7)
    headers["Retry-After"] = "2"
    assert (deny.headers, deny.members) == ({"Retry-After": "1"}, {"room": 7})


def test_a_deny_prints_as_what_it_is():
    assert (str(Deny(404)), repr(Deny(404, "No such room."))) == ("404 not_found", "Deny(404, 'No such room.')")
    with translation.override("de"):
        assert str(Deny(404, gettext_lazy("Yes"))) == "404 not_found: Ja"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda deny: pickle.loads(pickle.dumps(deny))])
def test_a_deny_survives_copying_and_pickling(duplicate):
    deny = duplicate(Deny(429, "Slowly.", code="slow", headers={"Retry-After": "9"}, room=7))
    assert (deny.status, deny.detail, deny.code, deny.headers, deny.members) == (
        429,
        "Slowly.",
        "slow",
        {"Retry-After": "9"},
        {"room": 7},
    )
    deny = duplicate(Deny(response=HttpResponse(b"gone", status=410), code="left"))
    assert (deny.status, deny.code, deny.response.content) == (410, "left", b"gone")


def test_the_kinds_of_exceptions_are_those_that_callers_expect():
    assert issubclass(HandshakeDenied, OSError)  # as the ASGI specification asks of a closed connection
    assert issubclass(PolicyError, TypeError)
    assert issubclass(HookError, TypeError)
