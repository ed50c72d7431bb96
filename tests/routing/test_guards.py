"""Guards: which policies and hooks a class carries, and what is taken for an ASGI application."""

from __future__ import annotations

import functools

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from django.http import HttpResponse

from channels_wsdeny import Hooks
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.policies import AllowAny, IsAuthenticated, IsStaff
from channels_wsdeny.routing.guards import NO_GUARDS, guards_of, is_asgi_app
from tests.support.policies import accept
from tests.support.sockets import consumer
from tests.support.wrappers import Wrapper, with_wraps, without_signature


def test_a_class_carries_its_own_guards_and_then_those_of_its_bases_each_once():
    staff, user, anyone, hooks, more = IsStaff(), IsAuthenticated(), AllowAny(), Hooks(), Hooks()
    base = require(user)(with_hooks(hooks)(consumer()))
    mixin = require(anyone)(type("Mixin", (AsyncWebsocketConsumer,), {}))
    child = require(staff)(require(user)(with_hooks(more, hooks)(type("Child", (base, mixin), {}))))
    assert guards_of(child) == ((staff, user, anyone), (more, hooks), ())
    assert guards_of(type("Grandchild", (child,), {})) == guards_of(child)
    assert guards_of(base).policies == (user,)
    assert guards_of(AsyncWebsocketConsumer) is NO_GUARDS or guards_of(AsyncWebsocketConsumer) == NO_GUARDS


def test_equal_policies_are_told_apart_and_a_later_decorator_binds_subclasses():
    class Equal(IsStaff):
        def __eq__(self, other):
            return True

        __hash__ = IsStaff.__hash__

    base = consumer()
    child = type("Child", (base,), {})
    assert guards_of(child).policies == ()
    first, second = Equal(), Equal()
    require(first)(require(second)(base))
    assert [
        policy is expected for policy, expected in zip(guards_of(child).policies, (first, second), strict=True)
    ] == [True, True]
    assert str(guards_of(child)) == "Equal(), Equal()"


def view(request):
    return HttpResponse()


APPS = {
    "function": (accept, True),
    "object": (Wrapper(accept), True),
    "wrapped": (with_wraps(accept), True),
    "partial": (functools.partial(accept), True),
    "public": (public(accept), True),
    "consumer": (consumer().as_asgi(), True),
    "without names": (without_signature(accept), False),
    "view": (view, False),
    "view that wraps an application": (functools.wraps(accept)(lambda request: HttpResponse()), True),
    "builtin": (print, False),
    "number": (7, False),
}


@pytest.mark.parametrize(("endpoint", "expected"), APPS.values(), ids=APPS)
def test_an_application_is_known_by_the_names_of_its_parameters(endpoint, expected):
    assert is_asgi_app(endpoint) is expected
