from __future__ import annotations

import copy
import pickle
from http import HTTPStatus

import pytest
from django.http import HttpResponse
from django.utils import translation
from django.utils.translation import gettext_lazy

from channels_wsdeny import Deny
from channels_wsdeny.exceptions import HandshakeDenied, PolicyError


def test_a_deny_is_a_403_by_default():
    assert (Deny().status, Deny().code, Deny().detail) == (403, "permission_denied", "")


def test_a_deny_has_the_code_of_its_status():
    assert Deny(404).code == "not_found"


def test_a_deny_may_have_a_code_of_its_own():
    assert Deny(404, code="no_such_room").code == "no_such_room"


@pytest.mark.parametrize("code", [5, b"no_room", ["no_room"], True])
def test_a_code_that_is_no_string_is_refused(code):
    with pytest.raises(TypeError, match="the code is a string"):
        Deny(404, code=code)


def test_an_empty_code_is_that_of_the_status():
    assert Deny(404, code="").code == "not_found"


def test_a_deny_takes_a_member_of_httpstatus():
    deny = Deny(HTTPStatus.CONFLICT)
    assert (type(deny.status), deny.status) == (int, 409)


@pytest.mark.parametrize("status", [600, 1000, 0, -403, True, None, "403", 403.0])
def test_a_status_that_is_none_is_refused(status):
    with pytest.raises(ValueError, match="300-599, found"):
        Deny(status)


@pytest.mark.parametrize("status", [100, 101, 200, 204, 299])
def test_a_status_that_cannot_deny_is_refused_with_the_remedy(status):
    with pytest.raises(ValueError, match="return True from the policy"):
        Deny(status)


def test_a_status_that_nobody_registered_becomes_its_classs_x00():
    assert (Deny(499).status, Deny(499).code) == (400, "bad_request")


def test_the_status_of_a_response_counts():
    assert Deny(404, response=HttpResponse(status=410)).status == 410


def test_a_response_that_cannot_deny_is_refused():
    with pytest.raises(ValueError, match="found 200"):
        Deny(response=HttpResponse())


def test_headers_are_copied():
    headers = {"Retry-After": "1"}
    deny = Deny(429, headers=headers)
    headers["Retry-After"] = "2"
    assert deny.headers == {"Retry-After": "1"}


def test_a_deny_prints_its_status_and_code():
    assert str(Deny(404)) == "404 not_found"


def test_a_deny_prints_its_detail():
    assert str(Deny(404, "No such room.")) == "404 not_found: No such room."


def test_a_lazy_detail_is_printed_in_the_language_of_the_moment():
    deny = Deny(404, gettext_lazy("Yes"))
    with translation.override("de"):
        assert str(deny) == "404 not_found: Ja"


def test_a_deny_shows_what_it_was_made_from():
    assert repr(Deny(404, "No such room.")) == "Deny(404, 'No such room.')"


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda deny: pickle.loads(pickle.dumps(deny))]
)
def test_a_deny_survives_copying_and_pickling(duplicate):
    deny = duplicate(Deny(429, "Slowly.", code="slow", headers={"Retry-After": "9"}))
    assert (deny.status, deny.detail, deny.code) == (429, "Slowly.", "slow")
    assert deny.headers == {"Retry-After": "9"}


def test_a_deny_with_a_response_survives_pickling():
    deny = pickle.loads(pickle.dumps(Deny(response=HttpResponse(b"gone", status=410), code="left")))
    assert (deny.status, deny.code, deny.response.content) == (410, "left", b"gone")


def test_a_deny_is_an_exception_that_can_be_raised():
    with pytest.raises(Deny):
        raise Deny(404)


def test_going_on_after_a_denial_is_an_oserror_as_asgi_asks():
    assert issubclass(HandshakeDenied, OSError)


def test_a_wrong_answer_of_a_policy_is_a_typeerror():
    assert issubclass(PolicyError, TypeError)
