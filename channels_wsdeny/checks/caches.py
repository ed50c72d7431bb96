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

from ..policies import MaxConnections, Throttle
from ..policies.base import policies_within
from .asgi import site_guards

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.core.cache.backends.base import BaseCache


def check_counting() -> Iterator[tuple[str, str]]:
    """The caches that policies count on exist, and store something."""
    for policy in _first_by_cache():
        try:
            is_dummy = isinstance(caches[policy.cache], DummyCache)
        except Exception as error:  # a backend of the site's may raise anything
            yield (
                f"{policy!r} counts on the cache {policy.cache!r}, which cannot be used: {error}",
                "Name a cache of CACHES, or leave the argument out for the default one.",
            )
            continue
        if is_dummy:
            yield (
                f"{policy!r} counts on the cache {policy.cache!r}, a DummyCache, which stores nothing: it denies "
                "everything.",
                "Use Redis or memcached; LocMemCache for one process.",
            )


def check_exactness() -> Iterator[tuple[str, str]]:
    """The caches that policies count on are exact when requests come at the same time."""
    for found in _counting_on(DatabaseCache, FileBasedCache):
        yield (
            f"{found}: it loses counts of requests that come at the same time, and of views whose transaction is "
            "rolled back, so more are allowed.",
            "Use Redis or memcached.",
        )


def check_processes() -> Iterator[tuple[str, str]]:
    """The caches that policies count on are shared by all processes."""
    for found in _counting_on(LocMemCache):
        yield (
            f"{found}: each process counts for itself, and forgets counts beyond its MAX_ENTRIES (300).",
            "Use Redis or memcached. Silence this for development, or a site of one process.",
        )


def check_addresses() -> Iterator[tuple[str, str]]:
    """Policies that count for addresses get that of the client, not of a proxy."""
    has_proxy = settings.SECURE_PROXY_SSL_HEADER is not None or settings.USE_X_FORWARDED_HOST
    by_address = next((policy for policy in _counting() if isinstance(policy.key, str)), None)
    if has_proxy and by_address is not None:
        yield (
            f"{by_address!r} counts for REMOTE_ADDR (with key='user' for anonymous users), and the site is behind a "
            "proxy: if the server gives the proxy's address, all clients share one count. X-Forwarded-For is not read.",
            "Have the server take the address from your proxy alone (uvicorn --proxy-headers --forwarded-allow-ips, "
            "daphne --proxy-headers), and silence this; or give a function of the request as key.",
        )


def _counting() -> Iterator[Throttle | MaxConnections]:
    """The policies of the site that count."""
    for guards, _ in site_guards():
        for policy in guards.policies:
            yield from (each for each in policies_within(policy) if isinstance(each, (Throttle, MaxConnections)))


def _first_by_cache() -> list[Throttle | MaxConnections]:
    """For each cache that policies of the site count on, the first that does."""
    found: dict[str, Throttle | MaxConnections] = {}
    for policy in _counting():
        found.setdefault(policy.cache, policy)
    return [*found.values()]


def _counting_on(*kinds: type[BaseCache]) -> Iterator[str]:
    """What counts on caches of these kinds, in words."""
    for policy in _first_by_cache():
        with suppress(Exception):  # which is E013
            if isinstance(caches[policy.cache], kinds):
                kind = type(caches[policy.cache]).__name__
                yield f"{policy!r} counts on the cache {policy.cache!r}, a {kind}"
