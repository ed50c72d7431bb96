"""The context of a request: what was decided about one subject says nothing about another."""

from __future__ import annotations

import copy

import pytest
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.test import RequestFactory
from django.urls import ResolverMatch
from django.utils.functional import SimpleLazyObject

from channels_wsdeny.http.context import RequestContext, get_context
from channels_wsdeny.http.request import HandshakeRequest
from channels_wsdeny.policies import IsAuthenticated, IsStaff
from channels_wsdeny.types import context_of
from tests.support.clients import websocket_scope
from tests.support.sockets import errors


@pytest.fixture
def context():
    request = RequestFactory().get("/")
    request.user, request.session = SimpleLazyObject(object), SessionStore("a" * 32)
    request.resolver_match = ResolverMatch(len, (), {"room": 1})
    return RequestContext(request)


def put(request, **attributes):
    vars(request).update(attributes)


CHANGES = {
    "user": lambda request: setattr(request, "user", object()),
    "user in place": lambda request: setattr(request.user, "_wrapped", object()),
    "session": lambda request: setattr(request, "session", object()),
    "session emptied": lambda request: request.session.flush(),
    "kwargs": lambda request: request.resolver_match.kwargs.update(room=2),
    "args": lambda request: put(request, resolver_match=ResolverMatch(len, (2,), {"room": 1})),
    "view": lambda request: put(request, resolver_match=ResolverMatch(max, (), {"room": 1})),
    "method": lambda request: put(request, method="DELETE"),
    "path": lambda request: put(request, path="/other/"),
}
#: Guards outside count for another view and other arguments of the URL: those follow from the path.
FOLLOW_FROM_PATH = {"kwargs", "args", "view", "method"}


def test_a_copy_of_a_request_has_a_context_of_its_own_and_the_same_state():
    request = RequestFactory().get("/")
    policy, context = IsStaff(), get_context(request)
    context.mark_passed((policy,))
    copied = get_context(copy.copy(request))
    assert (copied.request is request, copied.state is context.state, copied.has_passed(policy)) == (False, True, False)
    assert get_context(request) is context


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_decided_about_one_subject_says_nothing_about_another(change, context):
    first, second, equal = IsStaff(), IsAuthenticated(), IsStaff()
    bool(context.request.user)  # loads it
    context.mark_passed((first,))
    context.remember(len, "the room")
    assert [context.has_passed(policy) for policy in (first, second, equal)] == [True, False, False]
    assert context.recall(len) == "the room"
    assert RequestContext(context.request, context.state, context).is_guarded
    CHANGES[change](context.request)
    assert context.is_guarded is (change in FOLLOW_FROM_PATH)
    context.mark_passed((second,))
    assert [context.has_passed(policy) for policy in (first, second, equal)] == [False, True, False]
    assert context.recall(len) is None


def test_a_user_that_was_not_loaded_may_turn_out_to_be_another(context):
    policy = IsStaff()
    context.mark_passed((policy,))
    inner = RequestContext(context.request, context.state, context)
    assert (context.has_passed(policy), inner.is_guarded) == (True, True)
    bool(context.request.user)
    assert (context.has_passed(policy), inner.is_guarded) == (False, False)
    context.request.user = SimpleLazyObject(object)
    assert (context.has_passed(policy), inner.is_guarded) == (False, False)


def test_a_request_has_one_context_and_a_namespace_of_its_own():
    first, second = RequestFactory().get("/"), RequestFactory().get("/")
    assert get_context(first) is get_context(first) is first.wsdeny is context_of(first)
    assert first.ctx is not get_context(second).request.ctx


def test_what_waits_for_the_end_is_called_once_or_at_once_after_it_and_its_errors_are_logged(caplog):
    context, ran = get_context(HandshakeRequest(websocket_scope("/"))), []
    context.on_end(lambda: ran.append("first"))
    context.on_end(lambda: 1 / 0)
    context.on_end(lambda: ran.append("second"))
    context.state.has_ended = True
    context.run_ending()
    context.run_ending()
    assert sorted(ran) == ["first", "second"]
    assert [type(error) for error in errors(caplog)] == [ZeroDivisionError]
    context.on_end(lambda: ran.append("late"))
    assert ran[2:] == ["late"]


def test_the_end_of_a_views_request_is_not_known(context):
    with pytest.raises(TypeError, match="on_end"):
        context.on_end(print)
