"""How many random examples a test tries: few in the fast run, many in one of minutes."""

import os

import pytest
from hypothesis import HealthCheck, settings

#: How many to try in place of the many, different ones each time; without it they are always the same.
EXAMPLES = os.environ.get("EXAMPLES")
unhurried = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


def amounts(few, many):
    few = settings(unhurried, max_examples=few, derandomize=True)
    many = settings(unhurried, max_examples=int(EXAMPLES or many), derandomize=EXAMPLES is None)
    return pytest.mark.parametrize("amount", [few, pytest.param(many, marks=pytest.mark.random)], ids=["few", "many"])
