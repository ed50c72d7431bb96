"""Guards: which policies and hooks a class carries, and what is taken for an ASGI application."""

from __future__ import annotations

from channels.generic.websocket import AsyncWebsocketConsumer

from channels_wsdeny import Hooks
from channels_wsdeny.decorators import require, with_hooks
from channels_wsdeny.policies import AllowAny, IsAuthenticated, IsStaff
from channels_wsdeny.routing.guards import NO_GUARDS, guards_of
from tests.support.sockets import consumer


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
