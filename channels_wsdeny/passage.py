"""A passage: what the corridor notes about one request on its way through."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

    from .policies import Policy


class Passage:
    """One request on its way through the corridor: ``scope["wsdeny"]``, or ``request.wsdeny`` on a view.

    `request` is the Django request that the policies saw. `obj` is what the ``obj`` resolver of the
    innermost policy returned (None without one), so that the endpoint needs no second query.
    """

    __slots__ = ("_objects", "_passed", "door", "obj", "policy", "request", "started")

    def __init__(self, request: HttpRequest, door: Any = None) -> None:
        self.request = request
        #: The door that this passage goes through, where it has to be found again further in.
        self.door = door
        self.obj: Any = None
        #: The policy that is being asked, or was asked last; for the log.
        self.policy: Policy | None = None
        #: When the passage began, in seconds of `time.monotonic`.
        self.started = time.monotonic()
        self._objects: dict[Callable[..., Any], Any] | None = None
        self._passed: tuple[Policy, ...] = ()

    @property
    def expression(self) -> str | None:
        """The policy asked last, as it was written; None if none was asked."""
        if self.policy is None:
            return None
        try:
            return repr(self.policy)
        except Exception:  # noqa: BLE001 - a policy that cannot be printed must not keep a denial from going out
            return f"<{type(self.policy).__name__}, whose repr fails>"

    def remember(self, resolver: Callable[..., Any], obj: Any) -> None:
        """Keep what an ``obj`` resolver returned: one call a request, however many policies name it."""
        if self._objects is None:
            self._objects = {}
        self._objects[resolver] = obj

    def recall(self, resolver: Callable[..., Any]) -> Any:
        """What this resolver returned before; raises `KeyError` if it was not asked yet."""
        return (self._objects or {})[resolver]

    def note_passed(self, policies: tuple[Policy, ...]) -> None:
        """Note that these policies allowed this request, so that nobody asks them again."""
        self._passed += policies

    def forget(self) -> None:
        """Forget who allowed this request and what it is about: its user or its route has changed."""
        self._passed = ()
        self._objects = None
        self.obj = None

    def remaining(self, policies: tuple[Policy, ...]) -> tuple[Policy, ...]:
        """Those of `policies` (compared by identity) that have not allowed this request yet."""
        return tuple(policy for policy in policies if not any(policy is passed for passed in self._passed))


def passage_of(request: HttpRequest) -> Passage:
    """The passage of `request`, begun if there is none yet."""
    passage: Passage | None = getattr(request, "wsdeny", None)
    if passage is None:
        passage = Passage(request)
        request.wsdeny = passage  # type: ignore[attr-defined]
    return passage
