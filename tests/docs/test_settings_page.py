"""docs/settings.md names every setting, with its default, and its snippet is valid."""

from __future__ import annotations

import ast
import re

import pytest
from django.core.checks import run_checks

from channels_wsdeny.conf import KEYS, conf
from channels_wsdeny.policies import IsStaff
from channels_wsdeny.policies.builtin import default_policy
from tests.docs.pages import DOCS, run

page = run("settings.md")
TEXT = (DOCS / "settings.md").read_text()
HEADINGS = re.findall(r"^## `(\w+)`\n\n\*(.+)\* Default: `(.+)`$", TEXT, re.MULTILINE)


def test_every_key_has_its_heading_type_and_default_in_the_order_of_the_code():
    defaults = {name: ast.literal_eval(default) for name, _, default in HEADINGS}
    assert list(defaults.items()) == [(name, key.default) for name, key in KEYS.items()]


def test_there_are_no_other_headings():
    assert len(re.findall(r"^## ", TEXT, re.MULTILINE)) == len(KEYS)


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kind, _ in HEADINGS])
def test_the_unit_is_the_one_that_the_checks_ask_for(name, kind):
    units = {unit for unit in ("seconds", "bytes", "threads") if unit in KEYS[name].expected}
    assert all(unit in kind for unit in units)


def test_the_example_passes_the_checks(settings):
    settings.CHANNELS_WSDENY = page.CHANNELS_WSDENY
    assert [
        found for found in run_checks() if found.id in {f"channels_wsdeny.E00{n}" for n in range(1, 5)}
    ] == []
    assert conf.POLICY_TIMEOUT == 2.5
    assert isinstance(default_policy(), IsStaff)


def test_a_value_of_a_wrong_type_counts_as_if_it_were_not_there(settings):
    settings.CHANNELS_WSDENY = dict.fromkeys(KEYS, object())
    counted = {name for name, key in KEYS.items() if getattr(conf, name) == key.default}
    assert set(KEYS) - counted == set(list(KEYS)[:3])
