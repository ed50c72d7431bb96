"""The authentication classes of other packages, as docs/authentication.md puts them into the settings."""

from __future__ import annotations

import json

import pytest

from tests.support.processes import run_python

pytestmark = pytest.mark.servers

DRF = "rest_framework.authentication."
#: For each package its challenge, and whether it raises for wrong credentials, or leaves the client anonymous.
PACKAGES = {
    f"{DRF}TokenAuthentication": ("Token", True),
    f"{DRF}BasicAuthentication": ('Basic realm="api"', True),
    f"{DRF}SessionAuthentication": ("Session", False),
    "rest_framework_simplejwt.authentication.JWTAuthentication": ('Bearer realm="api"', True),
    "knox.auth.TokenAuthentication": ("Token", True),
    "oauth2_provider.contrib.rest_framework.OAuth2Authentication": ('Bearer realm="api"', False),
    "dj_rest_auth.jwt_auth.JWTCookieAuthentication": ('Bearer realm="api"', True),
    "allauth.headless.contrib.rest_framework.authentication.XSessionTokenAuthentication": ("Session", False),
    "ApiToken": ("Bearer", False),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    database = str(tmp_path_factory.mktemp("tokens") / "database")
    # The warnings of the packages are not ours.
    code = f"""
import runpy, warnings
warnings.simplefilter("default")
sys.argv[1:] = [{database!r}]
runpy.run_module("tests.support.token_site", run_name="__main__")
"""
    printed, errors = run_python(code)
    assert printed, errors
    return json.loads(printed)


@pytest.mark.parametrize("package", PACKAGES)
def test_valid_credentials_are_the_user_and_all_others_a_401_with_the_challenge_of_the_package(package, answers):
    challenge, raises = PACKAGES[package]
    for kind, (socket, public, view) in answers[package].items():
        if kind == "of another page":
            assert socket[0] == public[0] == 403
            assert socket[2] == public[2] == "origin_not_allowed"
            assert view[0] == 200  # which CSRF protects
        elif kind in {"valid", "in a header"}:
            assert socket == public == [101, None, None, "alice"], kind
            assert view == [200, None, None, "alice"], kind
        else:
            for status, found, _, user in (socket, view):
                assert (status, user) == (401, None), kind
                assert found.startswith(challenge), kind
            is_refused = raises and kind != "none"
            assert public[0] == (401 if is_refused else 101), kind
            assert public[3] == (None if is_refused else ""), kind


def test_what_is_wrong_with_an_oauth2_token_is_in_the_challenge(answers):
    found = answers["oauth2_provider.contrib.rest_framework.OAuth2Authentication"]
    assert all('error="invalid_token"' in answer[1] for kind in ("wrong", "expired") for answer in found[kind][::2])
