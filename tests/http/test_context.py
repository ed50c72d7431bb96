"""The context of a request: what was decided about one subject says nothing about another."""

from __future__ import annotations

import pytest
from django.test import RequestFactory
from django.urls import ResolverMatch
from django.utils.functional import SimpleLazyObject

from channels_wsdeny.http.context import RequestContext, expression_of, get_context
from channels_wsdeny.policies import IsAuthenticated, IsStaff


@pytest.fixture
def context():
    request = RequestFactory().get("/")
    request.user, request.session = SimpleLazyObject(object), object()
    request.resolver_match = ResolverMatch(len, (), {"room": 1})
    return RequestContext(request)


def change_user(request):
    request.user = object()


def change_user_in_place(request):
    request.user._wrapped = object()


def change_session(request):
    request.session = object()


def change_kwargs(request):
    request.resolver_match.kwargs["room"] = 2


@pytest.mark.parametrize("change", [change_user, change_user_in_place, change_session, change_kwargs])
def test_a_policy_that_passed_is_asked_again_only_about_another_subject(change, context):
    first, second, equal = IsStaff(), IsAuthenticated(), IsStaff()
    bool(context.request.user)  # loads it
    context.mark_passed((first,))
    context.remember(len, "the room")
    assert [context.has_passed(policy) for policy in (first, second, equal)] == [True, False, False]
    assert context.recall(len) == "the room"
    change(context.request)
    context.mark_passed((second,))
    assert [context.has_passed(policy) for policy in (first, second)] == [False, True]
    assert context.recall(len) is None


def test_an_endpoint_is_guarded_for_the_user_and_session_that_policies_allowed(context):
    assert not context.is_guarded
    context.mark_passed(())
    assert not context.is_guarded
    context.mark_passed((IsStaff(),))
    assert RequestContext(context.request, context.state, context).is_guarded
    change_user(context.request)
    assert not context.is_guarded


def test_a_request_has_one_context_and_namespace():
    first, second = RequestFactory().get("/"), RequestFactory().get("/")
    assert get_context(first) is get_context(first) is first.wsdeny
    assert first.ctx is not get_context(second).request.ctx


def test_a_policy_that_cannot_be_printed_has_an_expression():
    broken = type("Broken", (IsStaff,), {"__repr__": lambda self: 1 / 0})()
    assert [expression_of(policy) for policy in (None, IsStaff(), broken)] == [
        None,
        "IsStaff()",
        "<Broken, whose repr fails>",
    ]
