from __future__ import annotations

from http import HTTPStatus

import pytest
from django.utils.functional import Promise

from channels_wsdeny import status as statuses

REGISTERED = [status.value for status in HTTPStatus if status.value >= 300]


@pytest.mark.parametrize("status", [300, 302, 400, 404, 499, 500, 599])
def test_statuses_from_300_to_599_deny(status):
    assert statuses.is_denial(status)


@pytest.mark.parametrize("status", [-1, 0, 100, 101, 200, 204, 299, 600, 1000])
def test_no_other_status_denies(status):
    assert not statuses.is_denial(status)


@pytest.mark.parametrize("status", [True, None, "404", 404.0, [], b"404"])
def test_what_is_no_whole_number_does_not_deny(status):
    assert not statuses.is_denial(status)


def test_a_member_of_httpstatus_denies():
    assert statuses.is_denial(HTTPStatus.NOT_FOUND)


@pytest.mark.parametrize("status", REGISTERED)
def test_a_registered_status_goes_out_as_it_is(status):
    assert statuses.wire_status(status) == status


@pytest.mark.parametrize(
    ("status", "sent"), [(306, 300), (399, 300), (419, 400), (499, 400), (512, 500), (599, 500)]
)
def test_an_unregistered_status_becomes_its_classs_x00(status, sent):
    assert statuses.wire_status(status) == sent


def test_what_goes_out_is_a_plain_number():
    assert type(statuses.wire_status(HTTPStatus.NOT_FOUND)) is int


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (302, "found"),
        (400, "bad_request"),
        (401, "not_authenticated"),
        (403, "permission_denied"),
        (404, "not_found"),
        (405, "method_not_allowed"),
        (409, "conflict"),
        (410, "gone"),
        (426, "upgrade_required"),
        (429, "throttled"),
        (500, "server_error"),
        (503, "unavailable"),
    ],
)
def test_a_status_has_its_code(status, code):
    assert statuses.code_for(status) == code


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (413, "content_too_large"),
        (414, "uri_too_long"),
        (416, "range_not_satisfiable"),
        (418, "im_a_teapot"),
        (422, "unprocessable_content"),
    ],
)
def test_codes_do_not_follow_phrases_that_change_with_pythons_version(status, code):
    assert statuses.code_for(status) == code


@pytest.mark.parametrize("status", REGISTERED)
def test_every_code_is_a_plain_word(status):
    assert statuses.code_for(status).isidentifier()
    assert statuses.code_for(status).islower()


def test_codes_differ_by_status():
    assert len({statuses.code_for(status) for status in REGISTERED}) == len(REGISTERED)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
def test_the_usual_denials_have_a_translatable_text(status):
    assert isinstance(statuses.detail_for(statuses.code_for(status), status), Promise)


def test_an_unusual_denial_has_no_text_of_its_own():
    assert statuses.detail_for("im_a_teapot", 418) == ""


def test_a_status_has_its_phrase():
    assert statuses.phrase(404) == "Not Found"
