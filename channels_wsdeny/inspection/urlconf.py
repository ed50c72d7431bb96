"""The URLconf: every view of a site, at its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.urls import URLResolver, get_resolver

from .endpoints import join

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Levels of includes; past them it is one that includes itself.
_DEEPEST = 30


@dataclass(frozen=True, slots=True)
class View:
    """A view at its place in the URLconf; `callback` is None where the includes go round in a circle."""

    path: str
    name: str | None
    callback: Callable[..., Any] | None


def views(urlconf: str | None = None) -> Iterator[View]:
    """All views of `urlconf` (None: ``ROOT_URLCONF``), in the order that Django tries them.

    Raises what importing a URLconf of the site's may.
    """
    yield from _views(get_resolver(urlconf), "", ())


def _views(resolver: URLResolver, path: str, namespaces: tuple[str, ...], depth: int = 0) -> Iterator[View]:
    path = join(path, resolver.pattern)
    if resolver.namespace:
        namespaces = (*namespaces, resolver.namespace)
    if depth > _DEEPEST:
        yield View(f"{path}…", None, None)
        return
    for entry in resolver.url_patterns:
        if isinstance(entry, URLResolver):
            yield from _views(entry, path, namespaces, depth + 1)
        else:
            name = ":".join((*namespaces, entry.name)) if entry.name else None
            yield View(join(path, entry.pattern), name, entry.callback)
