"""The authentication classes of other packages, as docs/authentication.md puts them into the settings."""

import pytest

from tests.support.packages import PACKAGES
from tests.support.processes import answers_of

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    database = str(tmp_path_factory.mktemp("tokens") / "database")
    return answers_of("tests.support.token_site", database)


GUARDED = ("socket", "page", "view", "view without the mirror")
OPEN = ("public socket", "open view")


@pytest.mark.parametrize("package", PACKAGES)
def test_valid_credentials_are_the_user_and_all_others_a_401_with_the_challenge_of_the_package(package, answers):
    challenge, raises = PACKAGES[package]
    for kind, found in answers[package].items():
        if kind == "of another page":
            for name, (status, _, code, _) in found.items():
                # A view is protected by CSRF, and a page by what it does.
                assert (status, code) == ((403, "origin_not_allowed") if "socket" in name else (200, None)), name
        elif kind in {"valid", "in a header"}:
            for name, answer in found.items():
                assert answer == [101 if "socket" in name else 200, None, None, "alice"], (kind, name)
        else:
            is_refused = raises and kind != "none"
            for name in GUARDED if not is_refused else GUARDED + OPEN:
                status, told, _, user = found[name]
                assert (status, user) == (401, None), (kind, name)
                assert told.startswith(challenge), (kind, name)
            for name in () if is_refused else OPEN:
                assert found[name] == [101 if "socket" in name else 200, None, None, ""], (kind, name)


def test_revoked_credentials_were_tried(answers):
    """Else the test above would find none to be a 401."""
    not_revocable = {package for package, found in answers.items() if "revoked" not in found}
    assert not_revocable == {
        "rest_framework_simplejwt.authentication.JWTAuthentication",
        "dj_rest_auth.jwt_auth.JWTCookieAuthentication",
    }


def test_a_token_of_rest_framework_in_the_subprotocols_lets_its_user_in(answers):
    found = answers["SubprotocolToken"]
    for name in ("socket", "public socket"):
        assert found["valid"][name] == [101, None, None, "alice"]
        for kind in ("wrong", "inactive", "revoked"):
            assert found[kind][name] == [401, "Token", "authentication_failed", None], kind


def test_what_is_wrong_with_an_oauth2_token_is_in_the_challenge(answers):
    found = answers["oauth2_provider.contrib.rest_framework.OAuth2Authentication"]
    for kind in ("wrong", "expired", "revoked"):
        assert all('error="invalid_token"' in found[kind][name][1] for name in GUARDED), kind
