from http import HTTPStatus

from django.utils.functional import Promise

from channels_wsdeny import status as statuses

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


def test_statuses_from_300_to_599_deny_and_nothing_else_does():
    denying = [*(300, 302, 400, 404, 499, 500, 599), HTTPStatus.NOT_FOUND]
    other = [*(-1, 0, 100, 101, 200, 204, 299, 600, 1000), *(True, None, "404", 404.0, [], b"404")]
    assert [status for status in (*denying, *other) if statuses.is_denial(status)] == denying


def test_a_status_that_discloses_the_resource_is_content():
    assert [status for status in (101, 200, 204, 299, 301, 304, 401, 500) if statuses.is_content(status)] == [
        *(101, 200, 204, 299, 304)
    ]


def test_a_registered_status_goes_out_as_it_is_and_another_as_the_x00_of_its_class():
    assert [statuses.wire_status(status) for status in REGISTERED] == REGISTERED
    assert [statuses.wire_status(status) for status in (306, 419, 512, 599)] == [300, 400, 500, 500]
    assert type(statuses.wire_status(HTTPStatus.NOT_FOUND)) is int


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
