"""Caches for tests: each has keys of its own, and the real servers are those of this machine."""

import secrets
from typing import Any, ClassVar
from weakref import WeakSet

from django.core.cache.backends.locmem import LocMemCache

REDIS = "redis://127.0.0.1:6379/0"
_BACKENDS = {"redis": "redis.RedisCache", "memcached": "memcached.PyMemcacheCache", "locmem": "locmem.LocMemCache"}


def cache_settings(name: str, location: str = REDIS) -> dict[str, Any]:
    """``CACHES`` with one of these backends as the default, empty."""
    own = f"test-{secrets.token_hex(8)}"
    backend = f"django.core.cache.backends.{_BACKENDS[name]}"
    return {"default": {"BACKEND": backend, "LOCATION": own if name == "locmem" else location, "KEY_PREFIX": own}}


class Counting(LocMemCache):
    """Notes each call of it, with its key or keys."""

    calls: ClassVar[list[tuple[str, Any]]] = []

    def _noted(self, name: str, key: Any, *args: Any, **kwargs: Any) -> Any:
        Counting.calls.append((name, key))
        return getattr(super(), name)(key, *args, **kwargs)

    def add(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        return self._noted("add", key, *args, **kwargs)

    def incr(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        return self._noted("incr", key, *args, **kwargs)

    def delete(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        return self._noted("delete", key, *args, **kwargs)

    def get_many(self, keys: Any, *args: Any, **kwargs: Any) -> Any:
        return self._noted("get_many", keys, *args, **kwargs)


class Connecting(LocMemCache):
    """Connects when it is first used, and is connected as long as anything holds it."""

    connected: ClassVar[WeakSet[LocMemCache]] = WeakSet()

    def get(self, *args: Any, **kwargs: Any) -> Any:
        Connecting.connected.add(self)
        return super().get(*args, **kwargs)


class Silent(LocMemCache):
    """A client that ignores that its server cannot be reached, as those of memcached and django-redis may."""

    def add(self, *args: Any, **kwargs: Any) -> Any: ...

    def incr(self, *args: Any, **kwargs: Any) -> Any: ...
