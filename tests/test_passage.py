"""What a passage remembers, and for whom."""

from __future__ import annotations

import pytest
from django.test import RequestFactory

from channels_wsdeny.http.context import Gate, Passage
from channels_wsdeny.policies import DenyAll, IsAuthenticated, IsStaff


@pytest.fixture
def passage():
    request = RequestFactory().get("/")
    request.user = object()
    return Passage(request, gate=Gate(DenyAll(), outer=Gate(DenyAll())))


def test_what_has_passed_is_not_asked_again(passage):
    first, second = IsAuthenticated(), IsStaff()
    passage.note_passed((first,))
    assert passage.remaining((first, second)) == (second,)


def test_a_policy_that_is_alike_is_another_one(passage):
    passage.note_passed((IsStaff(),))
    assert len(passage.remaining((IsStaff(),))) == 1


def test_what_passed_for_one_user_is_asked_again_for_another(passage):
    policy = IsStaff()
    passage.note_passed((policy,))
    passage.request.user = object()
    assert passage.remaining((policy,)) == (policy,)


def test_a_pass_of_another_user_does_not_bring_back_what_passed_before(passage):
    before, after = IsStaff(), IsAuthenticated()
    passage.note_passed((before,))
    passage.request.user = object()
    passage.note_passed((after,))
    assert passage.remaining((before, after)) == (before,)


def test_a_policy_that_allowed_opens_the_gate_and_those_further_out(passage):
    passage.note_passed((IsStaff(),))
    assert passage.gate.is_open
    assert passage.gate.outer.is_open


def test_no_policy_opens_no_gate(passage):
    passage.note_passed(())
    assert not passage.gate.is_open
