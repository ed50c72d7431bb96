"""Doors: every socket of ``ASGI_APPLICATION`` and every view of ``ROOT_URLCONF``, and who guards them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.conf import settings

from ..conf import is_mirrored
from ..hooks.plan import plan_of
from ..hooks.registry import site_hooks
from ..names import name_of
from .endpoints import ways_of_site
from .protections import guards_on, locks_on_view, locks_on_way
from .urlconf import views

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..hooks.registry import Hook, Hooks
    from ..types import Protocol
    from .endpoints import Way
    from .protections import Lock
    from .urlconf import View


HEADINGS = ("PROTOCOL", "PATH", "NAME", "ENDPOINT", "POLICY", "FROM", "HOOKS", "NOTES")


@dataclass(frozen=True, slots=True)
class Door:
    """One way into the site."""

    protocol: Protocol
    #: As it is written in the routes.
    path: str
    name: str | None
    #: The dotted name of the consumer or view.
    endpoint: str
    locks: tuple[Lock, ...] = ()
    #: In the order that they run in, kind by kind.
    hooks: tuple[Hook, ...] = ()
    #: What there is to know besides.
    notes: tuple[str, ...] = field(default=())

    @property
    def policy(self) -> str | None:
        """What stands before it, as one expression; None if nothing does."""
        several = len(self.locks) > 1
        written = [lock.expression for lock in self.locks]
        return " & ".join(f"({text})" if several and " | " in text else text for text in written) or None

    @property
    def source(self) -> str:
        """Where that comes from: ``decorator``, ``stack``, ``default``…, or ``none``."""
        return ", ".join(dict.fromkeys(lock.source for lock in self.locks)) or "none"

    @property
    def is_open(self) -> bool:
        """Whether nobody guards it, and nobody has said that this is meant."""
        return not self.locks

    @property
    def is_public(self) -> bool:
        """Whether somebody has said that everybody may pass."""
        return bool(self.locks) and all(lock.is_public for lock in self.locks)

    @property
    def is_on_default(self) -> bool:
        """Whether nothing guards it but what guards whatever carries no policy."""
        return bool(self.locks) and all(lock.source in {"default", "stack"} for lock in self.locks)

    def as_row(self) -> tuple[str, ...]:
        """The door in the columns of `HEADINGS`."""
        names = [hook.name.rpartition(".")[2] for hook in self.hooks]
        return (
            self.protocol,
            self.path,
            self.name or "",
            self.endpoint,
            self.policy or "-",
            self.source,
            ", ".join(dict.fromkeys(names)) or "-",
            "; ".join(self.notes),
        )

    def as_dict(self) -> dict[str, Any]:
        """The door in JSON's types."""
        return {
            "protocol": self.protocol,
            "path": self.path,
            "name": self.name,
            "endpoint": self.endpoint,
            "policy": self.policy,
            "source": self.source,
            "open": self.is_open,
            "public": self.is_public,
            "hooks": [hook.label for hook in self.hooks],
            "notes": list(self.notes),
        }


def doors() -> list[Door]:
    """All doors of the site: sockets, ASGI apps over HTTP, and views, each in the order that is tried.

    Raises what importing the site's modules may.
    """
    over_http = ways_of_site("http")
    served = [way for way in (*ways_of_site("websocket"), *over_http) if way.is_served and not way.is_django]
    found = [_door_of(way) for way in served]
    if getattr(settings, "ROOT_URLCONF", None):
        # Where Django is mounted more than once, what the least guarded way lets through is what counts.
        to_django = min(
            (way for way in over_http if way.is_django),
            key=lambda way: len(way.guards.policies),
            default=None,
        )
        found += [_door_of_view(view, to_django) for view in views()]
    return found


def _door_of(way: Way) -> Door:
    endpoint = way.consumer_class or way.endpoint
    registries = [*(site_hooks() if way.layers else ()), *_hooks_of_stacks(way), *way.guards.hooks]
    return Door(
        way.protocol,
        way.path,
        way.name,
        name_of(endpoint),
        locks_on_way(way),
        _hooks(registries, way.protocol),
        tuple(_notes(way)),
    )


def _notes(way: Way) -> Iterator[str]:
    if way.is_circle:
        yield "goes round in a circle"
    elif isinstance(way.endpoint, type):
        yield "opaque: it is a class, as_asgi() is missing"
    elif way.is_opaque:
        yield "opaque: there may be more behind it, which cannot be seen"
    for app in way.unknown:
        yield f"behind {name_of(app)}, which may change what counts"


def _door_of_view(view: View, way: Way | None) -> Door:
    if view.callback is None:
        return Door("http", view.path, None, "?", notes=("includes that go round in a circle",))
    before = () if way is None else locks_on_way(way)
    registries: list[Hooks] = []
    if is_mirrored() or (way is not None and way.has_stack):
        registries += site_hooks()
    if way is not None:
        registries += [*_hooks_of_stacks(way), *way.guards.hooks]
    hooks = _hooks(registries, "http")
    if not is_mirrored():
        hooks = tuple(hook for hook in hooks if hook.kind not in {"route", "exception"})
    own = _hooks(guards_on(view.callback).hooks, "http")
    return Door(
        "http",
        view.path,
        view.name,
        name_of(view.callback),
        (*before, *locks_on_view(view.callback, way)),
        tuple(dict.fromkeys((*hooks, *own))),
    )


def _hooks_of_stacks(way: Way) -> Iterator[Hooks]:
    for layer in way.layers:
        yield from layer.hooks


def _hooks(registries: Iterable[Hooks], protocol: Protocol) -> tuple[Hook, ...]:
    return tuple(hook for kind in plan_of(tuple(registries), protocol).kinds() for hook in kind)
