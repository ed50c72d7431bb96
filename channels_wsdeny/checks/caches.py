"""System checks of what `Throttle` and `MaxConnections` count on: caches, and addresses of clients."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache

from ..inspection.endpoints import views
from ..inspection.protections import guards_on
from ..policies import MaxConnections, Throttle
from ..policies.base import policies_within
from ..policies.builtin import default_policy
from .asgi import ways

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.core.cache.backends.base import BaseCache

    from ..policies import Policy


_COUNTING = (Throttle, MaxConnections)


def check_counting() -> Iterator[tuple[str, str]]:
    """The caches that policies count on exist, and store something."""
    for alias, policy in _counting():
        try:
            is_dummy = isinstance(_cache(alias), DummyCache)
        except Exception as error:  # a backend of the site's may raise anything
            yield (
                f"{policy!r} counts on the cache {alias!r}, which cannot be used: {error}",
                "Name a cache of CACHES, or leave the argument out for the default one.",
            )
            continue
        if is_dummy:
            yield (
                f"{policy!r} counts on the cache {alias!r}, a DummyCache, which stores nothing: it denies everything.",
                "Use Redis or memcached; LocMemCache for one process.",
            )


def check_exactness() -> Iterator[tuple[str, str]]:
    """The caches that policies count on are exact when requests come at the same time."""
    for alias, policy in _counting():
        kind = _kind(alias, (DatabaseCache, FileBasedCache))
        if kind is not None:
            yield (
                f"{policy!r} counts on the cache {alias!r}, a {kind}: it loses counts of requests that come at the "
                "same time, so more are allowed.",
                "Use Redis or memcached.",
            )


def check_processes() -> Iterator[tuple[str, str]]:
    """The caches that policies count on are shared by all processes."""
    for alias, policy in _counting():
        kind = _kind(alias, (LocMemCache,))
        if kind is not None:
            yield (
                f"{policy!r} counts on the cache {alias!r}, a {kind}: each process counts for itself, and forgets "
                "counts beyond its MAX_ENTRIES (300).",
                "Use Redis or memcached. Silence this for development, or a site of one process.",
            )


def check_addresses() -> Iterator[tuple[str, str]]:
    """Policies that count for addresses get that of the client, not of a proxy."""
    has_proxy = settings.SECURE_PROXY_SSL_HEADER is not None or settings.USE_X_FORWARDED_HOST
    counting = [each for policy in _policies() for each in policies_within(policy) if isinstance(each, _COUNTING)]
    by_address = next((each for each in counting if isinstance(each.key, str)), None)
    if has_proxy and by_address is not None:
        yield (
            f"{by_address!r} counts for REMOTE_ADDR (with key='user' for anonymous users), and the site is behind a "
            "proxy: if the server gives the proxy's address, all clients share one count. X-Forwarded-For is not read.",
            "Have the server take the address from your proxy alone (uvicorn --proxy-headers --forwarded-allow-ips, "
            "daphne --proxy-headers), and silence this; or give a function of the request as key.",
        )


def _counting() -> Iterator[tuple[str, Policy]]:
    """The caches that the policies of the site count on, each with the first policy that does."""
    found: dict[str, Policy] = {}
    for policy in _policies():
        for each in policies_within(policy):
            if isinstance(each, _COUNTING):
                found.setdefault(each.cache, each)
    yield from found.items()


def _policies() -> Iterator[Policy]:
    yield default_policy()
    for way in ways("websocket", "http"):
        yield from way.guards.policies
        if way.default_policy is not None:
            yield way.default_policy
    with suppress(Exception):  # Importing a URLconf of the site can raise anything; Django reports that.
        for view in views():
            yield from guards_on(view.callback).policies


def _cache(alias: str) -> BaseCache:
    return caches[alias]


def _kind(alias: str, kinds: tuple[type, ...]) -> str | None:
    with suppress(Exception):  # which is E013
        if isinstance(_cache(alias), kinds):
            return type(_cache(alias)).__name__
    return None
