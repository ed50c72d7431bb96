"""The settings of docs/admin.md, and its admin site, have the pages; the permissions are those of the table."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import Permission
from django.core.checks import run_checks
from django.urls import reverse

from channels_wsdeny.contrib.admin import denials
from tests.docs.pages import DOCS, run

TEXT = (DOCS / "admin.md").read_text()
pytestmark = pytest.mark.django_db


def test_the_settings_of_the_page_have_the_pages_and_its_site_has_them_too(settings, admin_client):
    page = run("admin.md")
    settings.INSTALLED_APPS = [*page.INSTALLED_APPS, "testproject.chat"]
    assert run_checks(tags=["admin", "models", "templates"]) == []
    content = admin_client.get(reverse("admin:index")).content.decode()
    names = [name.capitalize() for name in re.findall(r"^\| (\w[\w ]+) \| `", TEXT, re.MULTILINE)]
    assert [name for name in names if f">{name}</a>" in content] == names
    registered = [model._meta.verbose_name_plural.capitalize() for model in page.site._registry]
    assert sorted(registered) == sorted(names)


def test_the_permissions_are_those_of_the_table():
    found = Permission.objects.filter(content_type__app_label="channels_wsdeny_admin")
    named = re.findall(r"`channels_wsdeny_admin\.(\w+)`", TEXT)
    assert sorted(named) == sorted(permission.codename for permission in found)


def test_the_number_of_denials_is_that_of_the_code():
    assert f"The newest {denials._KEPT}, of" in TEXT
    assert denials._TIMEOUT == 24 * 60 * 60
