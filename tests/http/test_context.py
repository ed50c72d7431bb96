"""The context of a request: what was decided about one subject says nothing about another."""

from __future__ import annotations

import pytest
from django.test import RequestFactory
from django.urls import ResolverMatch
from django.utils.functional import SimpleLazyObject

from channels_wsdeny.http.context import RequestContext, get_context
from channels_wsdeny.policies import IsAuthenticated, IsStaff


@pytest.fixture
def context():
    request = RequestFactory().get("/")
    request.user, request.session = SimpleLazyObject(object), object()
    request.resolver_match = ResolverMatch(len, (), {"room": 1})
    return RequestContext(request)


CHANGES = {
    "user": lambda request: setattr(request, "user", object()),
    "user in place": lambda request: setattr(request.user, "_wrapped", object()),
    "session": lambda request: setattr(request, "session", object()),
    "kwargs": lambda request: request.resolver_match.kwargs.update(room=2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_decided_about_one_subject_says_nothing_about_another(change, context):
    first, second, equal = IsStaff(), IsAuthenticated(), IsStaff()
    bool(context.request.user)  # loads it
    context.mark_passed((first,))
    context.remember(len, "the room")
    assert [context.has_passed(policy) for policy in (first, second, equal)] == [True, False, False]
    assert context.recall(len) == "the room"
    assert RequestContext(context.request, context.state, context).is_guarded
    change(context.request)
    assert context.is_guarded is (change is CHANGES["kwargs"])
    context.mark_passed((second,))
    assert [context.has_passed(policy) for policy in (first, second, equal)] == [False, True, False]
    assert context.recall(len) is None


def test_a_request_has_one_context_and_a_namespace_of_its_own():
    first, second = RequestFactory().get("/"), RequestFactory().get("/")
    assert get_context(first) is get_context(first) is first.wsdeny
    assert first.ctx is not get_context(second).request.ctx
