"""The report of ``manage.py wsdeny routes``: a row for every endpoint of the site."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from django.conf import settings
from django.core.handlers.asgi import ASGIHandler

from ..conf import is_mirrored
from ..hooks.registry import ordered_hooks, site_hooks
from ..http.context import expression_of
from ..log import dotted_name, escape
from ..routing.resolver import is_known
from .endpoints import AsgiEndpoint, site_endpoints, views
from .protections import guards_on, protections_of_endpoint, protections_of_view

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..hooks.registry import Hook, Hooks
    from ..routing.guards import Guards
    from ..types import Protocol
    from .endpoints import View
    from .protections import Protection

Access: TypeAlias = Literal["guarded", "public", "open", "perhaps open"]
#: Where the views are if `ASGI_APPLICATION` does not lead to Django: with nothing around its handler.
_ANOTHER_SERVER = AsgiEndpoint("http", (ASGIHandler,))
_WEAKEST_FIRST: tuple[Access, ...] = ("open", "perhaps open", "public", "guarded")


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One endpoint, and what protects it."""

    protocol: Protocol
    #: As it is written in the routes.
    path: str
    name: str | None
    #: The dotted name of the consumer, application or view.
    endpoint: str
    protections: tuple[Protection, ...] = ()
    #: In the order that they run in, kind by kind.
    hooks: tuple[Hook, ...] = ()
    notes: tuple[str, ...] = ()
    #: Whether the endpoint may lead to others that are unknown.
    is_opaque: bool = False
    #: The path of the Django admin that the view belongs to, if that protects it; None for other endpoints.
    admin_path: str | None = None

    @property
    def policy(self) -> str | None:
        """What protects the endpoint, as one expression; None if nothing does."""
        several = len(self.protections) > 1
        written = [each.expression for each in self.protections]
        return " & ".join(f"({text})" if several and " | " in text else text for text in written) or None

    @property
    def source(self) -> str:
        """Where that comes from: ``decorator``, ``stack``, ``default``…, or ``none``."""
        return ", ".join(dict.fromkeys(each.source for each in self.protections)) or "none"

    @property
    def access(self) -> Access:
        """Which requests come in: not all, all because a decorator says so, all, or that is unknown."""
        effects = {each.effect for each in self.protections}
        if "denies" in effects:
            return "guarded"
        if "public" in effects:
            return "public"
        return "perhaps open" if self.is_opaque or "unknown" in effects else "open"

    @property
    def is_open(self) -> bool | None:
        """Whether it is open; None if that is unknown."""
        return None if self.access == "perhaps open" else self.access == "open"

    @property
    def is_on_default(self) -> bool:
        """Whether nothing but a default policy protects the endpoint."""
        sources = {each.source for each in self.protections if each.effect in {"denies", "public"}}
        return bool(sources) and sources <= {"default", "stack"}

    @property
    def remarks(self) -> list[str]:
        """Its name and hooks, and its notes."""
        hooks = ", ".join(dict.fromkeys(hook.name.rpartition(".")[2] for hook in self.hooks))
        named = "; ".join(filter(None, [f"name {self.name}" if self.name else "", f"hooks {hooks}" if hooks else ""]))
        return [*filter(None, [named, *self.notes])]

    def as_dict(self) -> dict[str, Any]:
        """The row in JSON's types."""
        return {
            "protocol": self.protocol,
            "path": self.path,
            "name": self.name,
            "endpoint": self.endpoint,
            "policy": self.policy,
            "source": self.source,
            "open": self.is_open,
            "public": self.access == "public",
            "hooks": [hook.label for hook in self.hooks],
            "notes": list(self.notes),
        }


def report_rows() -> list[ReportRow]:
    """A row for every socket, other ASGI application and view of the site, in the order that each is tried.

    Raises what importing the site's modules raises.
    """
    over_http = site_endpoints("http")
    endpoints = [each for each in (*site_endpoints("websocket"), *over_http) if not each.is_django]
    rows = [_row_of_endpoint(endpoint) for endpoint in endpoints if endpoint.is_served]
    if getattr(settings, "ROOT_URLCONF", None):
        # Where Django is mounted more than once, a view is protected as on the least protected way to it.
        ways = [each for each in over_http if each.is_django] or [_ANOTHER_SERVER]
        rows += [min((_row_of_view(view, way) for way in ways), key=_strength) for view in views()]
    return rows


def _strength(row: ReportRow) -> tuple[int, int]:
    """How well `row` is protected: by its access, and by how much."""
    return _WEAKEST_FIRST.index(row.access), sum(each.effect == "denies" for each in row.protections)


def _row_of_endpoint(endpoint: AsgiEndpoint) -> ReportRow:
    protections = protections_of_endpoint(endpoint)
    guards = endpoint.match.guards
    hooks = _ordered(_registries(endpoint) if endpoint.layers else guards.hooks, endpoint.protocol)
    notes = (*_notes_of_way(endpoint), *_notes(protections, guards))
    name = dotted_name(endpoint.consumer_class or endpoint.app)
    place = (endpoint.protocol, endpoint.path, endpoint.name)
    return ReportRow(*place, name, protections, hooks, notes, endpoint.is_opaque)


def _notes_of_way(endpoint: AsgiEndpoint) -> Iterator[str]:
    if isinstance(endpoint.app, type):
        yield "unresolvable: it is a class, as_asgi() is missing"
    elif endpoint.is_opaque:
        yield "unresolvable: it is unknown what it leads to"
    for app in endpoint.apps[:-1]:
        if not is_known(app):
            yield f"behind {dotted_name(app)}, which may change the scope or route elsewhere"


def _notes(protections: tuple[Protection, ...], guards: Guards) -> Iterator[str]:
    for each in protections:
        if each.effect == "unknown":
            yield f"cannot tell whether {each.expression} is asked, and denies anybody"
    for policy in guards.once().reported:
        yield f"not enforced, only reported: {expression_of(policy)}"


def _row_of_view(view: View, django: AsgiEndpoint) -> ReportRow:
    if view.asgi_app is not None:
        note = "no view: Django cannot call it. Put it into a URLRouter of ASGI_APPLICATION"
        return ReportRow("http", view.path, view.name, dotted_name(view.asgi_app), notes=(note,), is_opaque=True)
    protections = (*protections_of_endpoint(django), *protections_of_view(view.callback, django))
    # Without MirrorMiddleware, the hooks of the site and of stacks do not run on views.
    hooks = _ordered(_registries(django), "http") if is_mirrored() else ()
    guards = guards_on(view.callback)
    hooks = tuple(dict.fromkeys((*hooks, *_ordered(guards.hooks, "http"))))
    notes = tuple(_notes(protections, django.match.guards.around(guards)))
    admin_path = view.admin_path if any(each.source == "admin" for each in protections) else None
    name = dotted_name(view.callback)
    return ReportRow("http", view.path, view.name, name, protections, hooks, notes, admin_path=admin_path)


def _registries(endpoint: AsgiEndpoint) -> tuple[Hooks, ...]:
    """The hooks of the site, of stacks and of decorators that run for `endpoint`, from the outermost."""
    match = endpoint.match
    return (*site_hooks(), *match.hooks, *match.guards.hooks)


def _ordered(registries: Sequence[Hooks], protocol: Protocol) -> tuple[Hook, ...]:
    return tuple(ordered_hooks(tuple(registries), protocol).all())


def folded(rows: Iterable[ReportRow]) -> list[ReportRow]:
    """`rows`, but one for all views of a Django admin that are protected alike."""
    groups: dict[Any, list[ReportRow]] = {}
    for number, row in enumerate(rows):
        alike = (row.admin_path, row.protections, row.hooks, row.notes)
        groups.setdefault(number if row.admin_path is None else alike, []).append(row)
    return [
        group[0]
        if len(group) == 1
        else replace(group[0], path=str(group[0].admin_path), name=None, endpoint=f"admin, {len(group)} views")
        for group in groups.values()
    ]


def summary(rows: Sequence[ReportRow]) -> str:
    """How many of `rows` there are, and how many are open."""
    counts = Counter(row.access for row in rows)
    each = ", ".join(f"{counts[access]} {access}" for access in ("guarded", "public", "open", "perhaps open"))
    return f"{len(rows)} endpoints: {each}."


def row_lines(row: ReportRow) -> list[str]:
    """`row` as lines of text: its endpoint, and below that what protects it, and its remarks."""
    below = [f"{row.policy} ({row.source})" if row.policy else "no policy", *row.remarks]
    first = f"{row.protocol:<9}  {row.path}  {row.endpoint}"
    return [escape(first), *(f"    {escape(line)}" for line in below)]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """`rows` as lines of text whose columns are aligned; control characters are escaped."""
    escaped = [[escape(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*escaped, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in escaped]
