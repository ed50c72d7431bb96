"""The checks as a whole: their ids, levels, registration and documentation."""

from __future__ import annotations

import re

import pytest
from django.apps import apps
from django.core import checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from channels_wsdeny.checks import CHECKS, DEPLOY_CHECKS
from tests.docs.pages import DOCS

#: A site with an error and a warning.
WRONG = {"CHANNELS_WSDENY": {"POOL_SIZE": 0}, "ASGI_APPLICATION": "nowhere.application"}


def test_a_site_that_sets_nothing_is_right(ids):
    assert ids(CHANNELS_WSDENY={}) == []


def test_the_test_project_is_right_but_for_more_than_one_process():
    assert [
        message.id
        for message in checks.run_checks(include_deployment_checks=True)
        if message.id.startswith("channels_wsdeny.") and not message.is_silenced()
    ] == ["channels_wsdeny.W020"]


def test_ids_that_begin_with_e_are_errors_and_others_warnings(messages):
    assert [(message.id, message.level) for message in messages(**WRONG)] == [
        ("channels_wsdeny.E003", checks.ERROR),
        ("channels_wsdeny.W003", checks.WARNING),
    ]


def test_the_documentation_has_a_remedy_for_each_id():
    text = (DOCS / "checks.md").read_text()
    sections = re.findall(r"^### `channels_wsdeny\.([EW]\d{3})`\n\n((?:.+\n)+)", text, re.MULTILINE)
    assert [number for number, _ in sections] == [*CHECKS, *DEPLOY_CHECKS] == sorted([*CHECKS, *DEPLOY_CHECKS])
    assert [number for number, remedy in sections if len(remedy.split()) < 10] == []


def test_manage_check_runs_them_under_the_tag_security(settings):
    settings.CHANNELS_WSDENY = WRONG["CHANNELS_WSDENY"]
    with pytest.raises(SystemCheckError, match=r"channels_wsdeny\.E003"):
        call_command("check", tags=["security"])


def test_the_app_has_a_name_for_people():
    assert apps.get_app_config("channels_wsdeny").verbose_name
