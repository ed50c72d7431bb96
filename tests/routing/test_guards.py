"""Guards: which policies and hooks a class carries, and what is taken for an ASGI application."""

from __future__ import annotations

from channels_wsdeny.decorators import require
from channels_wsdeny.policies import IsStaff
from channels_wsdeny.routing.guards import guards_of
from tests.support.sockets import consumer


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
