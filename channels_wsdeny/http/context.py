"""A passage: what the corridor notes about one request on its way through."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from . import session as sessions
from . import trace
from .request import ScopeRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.cookies import SimpleCookie

    from django.http import HttpRequest

    from ..hooks.onion import Onion
    from ..hooks.registry import Hooks
    from ..policies.base import Policy
    from ..types import Scope


class Passage:
    """One request on its way through the corridor: ``scope["wsdeny"]``, or ``request.wsdeny`` on a view.

    `request` is the Django request that the policies saw. `obj` is what the ``obj`` resolver of the
    innermost policy returned (None without one), so that the endpoint needs no second query.
    """

    __slots__ = (
        "_objects",
        "_passed",
        "_user",
        "cookies",
        "default_policy",
        "door",
        "error",
        "gate",
        "is_asked",
        "is_fresh",
        "is_spent",
        "obj",
        "onion",
        "owed",
        "policy",
        "request",
        "spent",
        "started",
        "trace",
    )

    def __init__(
        self, request: HttpRequest, door: Any = None, gate: Gate | None = None, onion: Onion | None = None
    ) -> None:
        self.request = request
        #: The hooks that this request has met; None where there are none to meet.
        self.onion = onion
        #: The door that this passage goes through, where it has to be found again further in.
        self.door = door
        #: What is still shut for an application that nobody could see into.
        self.gate = gate
        #: The session's cookie, where that was saved before the application ran.
        self.cookies: SimpleCookie | None = None
        #: Policies of a view that was called by another function, which may not have called it at all.
        self.owed: tuple[Policy, ...] | None = None
        #: Whether the default policy was thought of before the view.
        self.is_asked = False
        #: For views that carry no policy: what the nearest stack says.
        self.default_policy: Policy | None = None
        self.obj: Any = None
        #: What Django is making a response of, further in, if it is an exception.
        self.error: Exception | None = None
        #: The policy that is being asked, or was asked last; for the log.
        self.policy: Policy | None = None
        #: When the passage began, in seconds of `time.monotonic`.
        self.started = time.monotonic()
        #: Seconds that policies have taken so far.
        self.spent = 0.0
        #: What this request went through; None where nobody wants to know.
        self.trace = trace.begin()
        #: Whether hooks of a stack around Django have denied, so that the request cannot begin again.
        self.is_spent = False
        #: Whether what passed was asked just now, for the very endpoint that comes next.
        self.is_fresh = False
        self._user: Any = None
        self._objects: tuple[tuple[Callable[..., Any], Any], ...] = ()
        self._passed: tuple[Policy, ...] = ()

    def within(self, scope: Scope) -> Passage:
        """The passage for `scope`: this one, or one of its own if wrappers changed the user or the route.

        What was decided for one user and one route says nothing about another.
        """
        request: Any = self.request
        if request.describes(scope, adopting=not self._passed):
            return self
        return self._sibling(request.sibling(scope), self.gate)

    def anew(self, scope: Scope) -> Passage:
        """A passage of its own for `scope`: nothing that was decided before counts."""
        request: Any = self.request
        return Passage(request.sibling(scope), self.door)

    def behind(self, gate: Gate) -> Passage:
        """A passage of the same request, behind `gate`."""
        return self._sibling(self.request, gate)

    def _sibling(self, request: HttpRequest, gate: Gate | None) -> Passage:
        sibling = Passage(request, self.door, gate, self.onion)
        sibling.default_policy = self.default_policy
        sibling.started, sibling.spent, sibling.trace = self.started, self.spent, self.trace
        return sibling

    @property
    def has_passed(self) -> bool:
        """Whether any policy has allowed this request."""
        return bool(self._passed)

    @property
    def expression(self) -> str | None:
        """The policy asked last, as it was written; None if none was asked."""
        return expression_of(self.policy)

    def remember(self, resolver: Callable[..., Any], obj: Any) -> None:
        """Keep what an ``obj`` resolver returned: one call a request, however many policies name it."""
        self._objects += ((resolver, obj),)

    def recall(self, resolver: Callable[..., Any]) -> Any:
        """What this resolver returned before, None if it was not asked yet."""
        return next((obj for known, obj in self._objects if known is resolver), None)

    def note_passed(self, policies: tuple[Policy, ...]) -> None:
        """Note that these policies allowed this request, so that nobody asks them again."""
        self._forget_another_user()
        self._passed += policies
        self._user = vars(self.request).get("user")
        if policies and self.gate is not None:
            self.gate.open()

    def remaining(self, policies: tuple[Policy, ...]) -> tuple[Policy, ...]:
        """Those of `policies` (compared by identity) that have not allowed this request and user yet."""
        self._forget_another_user()
        passed = {id(policy) for policy in self._passed}
        return tuple({id(policy): policy for policy in policies if id(policy) not in passed}.values())

    def _forget_another_user(self) -> None:
        if self._passed and vars(self.request).get("user") is not self._user:
            self._passed = self._objects = ()


class Handover(NamedTuple):
    """What a stack leaves to `MirrorMiddleware`, further in: ``scope["wsdeny"]`` for Django's handler."""

    hooks: tuple[Hooks, ...]
    default_policy: Policy | None


class Gate:
    """Stands before an application that the look-ahead cannot see into, until somebody has decided.

    Endpoints within that carry a policy open it when that allows; else `policy` is asked once the
    application wants something. What opens it opens those further out: the nearest policy counts.
    """

    __slots__ = ("has_denied", "is_open", "outer", "policy")

    def __init__(self, policy: Policy, outer: Gate | None = None) -> None:
        self.policy = policy
        self.outer = outer
        self.is_open = False
        self.has_denied = False

    def open(self) -> None:
        """Let the application through."""
        gate: Gate | None = self
        while gate is not None:
            gate.is_open = True
            gate = gate.outer


def expression_of(policy: Policy | None) -> str | None:
    """A policy as it was written; None if there is none."""
    if policy is None:
        return None
    try:
        return repr(policy)
    except Exception:  # noqa: BLE001 - a policy that cannot be printed must not keep a denial from going out
        return f"<{type(policy).__name__}, whose repr fails>"


def trace_of(request: HttpRequest) -> trace.Trace | None:
    """The trace of `request`, None where there is none."""
    passage: Passage | None = vars(request).get("wsdeny")
    return None if passage is None else passage.trace


def passage_of(request: HttpRequest) -> Passage:
    """The passage of `request`, begun if there is none yet."""
    passage: Passage | None = getattr(request, "wsdeny", None)
    if passage is None:
        passage = Passage(request)
        request.wsdeny = passage  # type: ignore[attr-defined]
        stacks = handed_to(request)
        if isinstance(stacks, Passage):
            # Behind a stack that has run its request hooks: what is left of them runs further in.
            passage.onion, passage.trace = stacks.onion, stacks.trace
            passage.default_policy = stacks.default_policy
            request.ctx = stacks.request.ctx  # type: ignore[attr-defined]
            sessions.share(stacks.request, request)
        else:
            request.ctx = SimpleNamespace()  # type: ignore[attr-defined]
    return passage


def handed_to(request: HttpRequest) -> object:
    """What a stack has handed to Django's request of a view: its `Passage`, a `Handover`, or None."""
    scope: Any = None if isinstance(request, ScopeRequest) else getattr(request, "scope", None)
    return scope.get("wsdeny") if scope is not None else None
