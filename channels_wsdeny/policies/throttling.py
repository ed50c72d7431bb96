"""Policies that count on the site's cache: how often a user or address comes, and how many sockets it has open.

Counts are exact on caches whose ``add()`` and ``incr()`` are atomic: Redis, memcached, and `LocMemCache` within one
process. What is counted for is hashed, so that no key of the cache has the input of a client in it.
"""

from __future__ import annotations

import atexit
import hashlib
import ipaddress
import json
import math
import os
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias
from uuid import UUID

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.conf.urls.i18n import is_language_prefix_patterns_used
from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.core.exceptions import ImproperlyConfigured

from ..conf import conf
from ..db import State, by_state, carrying, get_cache, is_unreachable, managed_connections, state_of
from ..exceptions import Deny, PolicyError
from ..http.context import get_context
from ..http.request import ScopeRequest, original_of
from ..log import dotted_name, log_failure, logger
from .base import Answer, Policy, PolicyDenial, refuse_second

if TYPE_CHECKING:
    from django.core.cache.backends.base import BaseCache
    from django.http import HttpRequest

    from ..http.context import RequestContext
    from ..types import Scope

#: What is counted for: the user (an anonymous one by address), the client's address, or what a function returns.
Key: TypeAlias = Literal["user", "ip"] | Callable[["HttpRequest"], "str | int | UUID"]

#: Seconds by the first letter of a period, as in REST framework.
_PERIODS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
#: A rate. The first letter of the period counts, but not for a month or milliseconds.
_RATE = re.compile(r"(\d{1,9})/(?!mo|ms)([smhd])[a-z]*", re.ASCII | re.IGNORECASE)
#: Seconds that a count is kept after its window at least: clocks of several machines differ, and are set.
_SLACK = 60
#: Bits of an IPv6 address that name a network, of which one client has all addresses (RFC 6177).
_NETWORK = 64
#: Slots that are looked up at once at most.
_MOST = 1000
#: Seconds that the end of a process waits for a renewal.
_PARTING = 1.0
#: Heartbeats that a slot outlives its process by.
_BEATS = 3


class _Limit(Policy):
    """Base of the policies that count on a cache."""

    status = 429
    once = True
    _arguments = frozenset({"cache", "key", "on_outage", "scope"})
    #: What a count belongs to besides its scope and whom it is for.
    _identity: tuple[object, ...]

    @classmethod
    def _complete_subclass(cls) -> None:
        super()._complete_subclass()
        refuse_second(cls, "_count")

    def __init__(
        self, limit: object, key: Key, scope: str | None, cache: str, on_outage: Literal["deny", "allow"]
    ) -> None:
        name = type(self).__name__
        if key not in ("user", "ip") and (not callable(key) or iscoroutinefunction(key)):
            raise TypeError(
                f'{name}(key=...) takes "user", "ip" or a function of the request that is no coroutine function, '
                f"found {key!r}."
            )
        if scope is not None and not (isinstance(scope, str) and scope):
            raise TypeError(f"{name}(scope=...) takes the name of what shares one count, found {scope!r}.")
        if not isinstance(cache, str):
            raise TypeError(f'{name}(cache=...) takes an alias of CACHES, such as "default", found {cache!r}.')
        if on_outage not in {"deny", "allow"}:
            raise ValueError(f'{name}(on_outage=...) is "deny" or "allow", found {on_outage!r}.')
        self._limit, self.key, self.scope, self.cache, self.on_outage = limit, key, scope, cache, on_outage
        self.needs_user = key != "ip"

    def check(self, request: HttpRequest) -> Answer:
        """Count the request, once; blocks. Raises what the cache raises if it is not to allow then."""
        context = get_context(request)
        count = self._hash(request, context)
        # A copy that the site has made of a view's request is another one. Those of a scope are all of one handshake.
        counted = count, None if isinstance(request, ScopeRequest) else original_of(request)
        if any(name == count and about is counted[1] for name, about in context.state.counted):
            return True
        trace = context.trace
        try:
            # Django closes the caches of a view with its request; others are those of the thread.
            cache = get_cache(self.cache) if isinstance(request, ScopeRequest) else caches[self.cache]
            if isinstance(cache, DummyCache):
                raise ImproperlyConfigured(f"{self!r}: the cache {self.cache!r} is a DummyCache, which counts nothing.")
            if trace is not None and trace.is_dry_run:
                return self._look(cache, count)
            denial = self._count(cache, count, context)
        except Exception as error:
            if self.on_outage == "deny" or not is_unreachable(error):
                raise
            outage = ConnectionError(f"{self!r} allows requests uncounted: its cache cannot be reached.")
            outage.__cause__ = error
            log_failure(context, outage, 503)
            return True
        if denial is not None:
            return denial
        context.state.counted += (counted,)
        return True

    def _count(self, cache: BaseCache, count: str, context: RequestContext) -> Deny | None:
        """Count the request; the denial if that is one too many."""
        raise NotImplementedError

    def _look(self, cache: BaseCache, count: str) -> Answer:
        """The answer to a request that is not counted, a dry run."""
        raise NotImplementedError

    def _deny(self, seconds: float) -> Deny:
        return PolicyDenial(self.status, self.detail, code=self.code, headers={"Retry-After": str(math.ceil(seconds))})

    def _hash(self, request: HttpRequest, context: RequestContext) -> str:
        """The name of the count for `request`."""
        scope = _scope_of(request, context) if self.scope is None else self.scope
        counted = [*self._identity, self.cache, scope, _name_of(self.key), *self._subject(request)]
        return hashlib.sha256(json.dumps(counted).encode()).hexdigest()[:40]

    def _subject(self, request: HttpRequest) -> tuple[str, ...]:
        """What is counted for, in words that mean nothing else."""
        if self.key == "ip":
            return "ip", self._address(request)
        if self.key == "user":
            user: Any = request.user
            if not user.is_authenticated:
                return "ip", self._address(request)
            if user.pk is None:
                raise PolicyError(f"{self!r}: the user has no primary key. Give a function of the request as key.")
            model = user._meta.concrete_model if hasattr(user, "_meta") else user.__class__  # not that of a proxy
            return "user", dotted_name(model), str(user.pk)
        value = self.key(request)
        if isinstance(value, bool) or not isinstance(value, (str, int, UUID)):
            raise PolicyError(
                f"{self!r}: the key function returned a {type(value).__name__}. It returns a str, an int or a UUID."
            )
        return "key", type(value).__name__, str(value)

    def _address(self, request: HttpRequest) -> str:
        """``REMOTE_ADDR``; the network of an IPv6 address."""
        try:
            address = ipaddress.ip_address(request.META.get("REMOTE_ADDR", ""))
        except ValueError:
            if _has_lost_client(request):
                raise Deny(400) from None  # Nobody reads it; it is no error of the site.
            raise ImproperlyConfigured(
                f"{self!r}: the request has no IP address as its REMOTE_ADDR, as behind a Unix socket. Have the server "
                "take the address from your proxy, or give a function of the request as key."
            ) from None
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped is None:  # else one of a socket that listens to both
                return str(ipaddress.IPv6Address(int(address) >> _NETWORK << _NETWORK))
            return str(address.ipv4_mapped)
        return str(address)

    def __repr__(self) -> str:
        key = repr(self.key) if isinstance(self.key, str) else dotted_name(self.key)
        arguments = [repr(self._limit), f"key={key}"]
        arguments += [] if self.scope is None else [f"scope={self.scope!r}"]
        arguments += [] if self.cache == "default" else [f"cache={self.cache!r}"]
        arguments += [] if self.on_outage == "deny" else [f"on_outage={self.on_outage!r}"]
        return f"{type(self).__name__}({', '.join(arguments)})"


def _has_lost_client(request: Any) -> bool:
    """Whether the client was gone before the server looked for its address: uvicorn leaves that out then."""
    scope: Scope = getattr(request, "scope", {})
    server = scope.get("server")
    return not scope.get("client") and bool(server and server[1])  # A Unix socket has no port.


def _name_of(key: Key) -> str:
    """What tells a key from others, in all processes: the name of a function, and the code of one without a name."""
    if isinstance(key, str):
        return key
    name, code = dotted_name(key), getattr(key, "__code__", None)
    if code is None or "<" not in name:
        return name
    cells = [cell.cell_contents for cell in getattr(key, "__closure__", None) or ()]
    values = [
        repr(each) for each in (*cells, *(getattr(key, "__defaults__", None) or ())) if isinstance(each, (str, int))
    ]
    return json.dumps([name, code.co_code.hex(), code.co_names, [*code.co_positions()], values])


def _scope_of(request: Any, context: RequestContext) -> list[str]:
    """The route of `request`, as it is written, without the language of `i18n_patterns`; the name of its endpoint."""
    match = request.resolver_match
    if match is None:
        return []
    endpoint: Any = match.func
    if match.route is None and context.state.consumer_class is not None:  # a router outside the stack has routed it
        endpoint = context.state.consumer_class
    route = match.route or ""
    language, slash, rest = route.partition("/")
    if slash and language in dict(settings.LANGUAGES) and _has_languages(request):
        route = rest
    return [route, dotted_name(endpoint)]


def _has_languages(request: Any) -> bool:
    """Whether routes of the site begin with a language; a request of a socket has no URLconf of Django's."""
    if isinstance(request, ScopeRequest):
        return False
    urlconf = getattr(request, "urlconf", None) or settings.ROOT_URLCONF
    has_languages: bool = is_language_prefix_patterns_used(urlconf)[0]
    return has_languages


class Throttle(_Limit):
    """Allows so many requests in a period, such as ``"20/min"``; then it denies with a 429 and ``Retry-After``.

    `rate` is written as in REST framework: a number, a slash, and a word whose first letter is s, m, h or d. `key`
    says for whom it counts: ``"user"``, ``"ip"``, or a function of the request. All endpoints with the same `scope`
    share a count; by default each route has its own, for all of its paths. `cache` is an alias of ``CACHES``. If the
    cache cannot be reached, `on_outage` says whether to ``"deny"`` (a 503) or to ``"allow"``.

    Time is cut into windows of one period; for each key they begin at another time, so that not all clients come
    back at once. No window has more than the number, but the end of one and the beginning of the next may have up to
    twice that. A request counts once, and a denied one does not. On Redis it takes two commands.

    Raises `ValueError` for a rate that is none, `TypeError` for other wrong arguments.
    """

    code = "throttled"
    _arguments = _Limit._arguments | {"rate"}

    def __init__(
        self,
        rate: str,
        key: Key = "user",
        scope: str | None = None,
        *,
        cache: str = "default",
        on_outage: Literal["deny", "allow"] = "deny",
    ) -> None:
        super().__init__(rate, key, scope, cache, on_outage)
        if not isinstance(rate, str):
            raise TypeError(f'A rate is a string such as "20/min", found {rate!r}.')
        matched = _RATE.fullmatch(rate.replace(" ", ""))
        if matched is None or int(matched[1]) == 0:
            raise ValueError(
                f'A rate is a number above 0, a slash, and a second, minute, hour or day, such as "20/min"; found '
                f"{rate!r}."
            )
        self.rate, self.number, self.seconds = rate, int(matched[1]), _PERIODS[matched[2].lower()]
        self._identity = "throttle", self.number, self.seconds

    def _count(self, cache: BaseCache, count: str, context: RequestContext) -> Deny | None:
        name, seconds = self._window(count)
        number = _increment(cache, name, self.seconds + _SLACK)
        return None if number <= self.number else self._deny(seconds)

    def _look(self, cache: BaseCache, count: str) -> Answer:
        name, seconds = self._window(count)
        return cache.get(name, 0) < self.number or self._deny(seconds)

    def _window(self, count: str) -> tuple[str, float]:
        """The cache's key for the window of now, and the seconds to its end."""
        offset = int(count[:8], 16) / 16**8 * self.seconds
        window, passed = divmod(time.time() + offset, self.seconds)
        return f"wsdeny.throttle.{count}.{int(window)}", self.seconds - passed


def _increment(cache: BaseCache, name: str, timeout: int) -> int:
    """Count one more for `name`, which is forgotten `timeout` seconds after the first."""
    for _ in range(3):  # Between the two steps another process may do the second.
        try:
            number = cache.incr(name)
        except ValueError:  # There is none yet.
            if cache.add(name, 1, timeout) is True:
                return 1
        else:
            if isinstance(number, int):
                return number
    raise ConnectionError("The cache takes no counts. Perhaps its client ignores that the server cannot be reached.")


class MaxConnections(_Limit):
    """Allows so many connections at a time, over all processes of the site; then it denies with a 429.

    `key`, `scope`, `cache` and `on_outage` are as for `Throttle`. It is for sockets and for ASGI applications over
    HTTP, not for views: a view that asks it is a 500.

    Each connection holds a slot in the cache, until it ends or is denied after all. The process renews its slots
    every ``HEARTBEAT`` seconds, so those of a process that dies are free again after three of them. The first
    connection of a key takes one command of the cache, the next ones up to three.

    Raises `TypeError` for a number that is not a whole one from 1 to 1000, and for other wrong arguments.
    """

    code = "too_many_connections"
    _arguments = _Limit._arguments | {"number"}

    def __init__(
        self,
        number: int,
        key: Key = "user",
        scope: str | None = None,
        *,
        cache: str = "default",
        on_outage: Literal["deny", "allow"] = "deny",
    ) -> None:
        super().__init__(number, key, scope, cache, on_outage)
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= _MOST:
            raise TypeError(f"MaxConnections() takes a whole number from 1 to {_MOST}, found {number!r}.")
        self.number = number
        self._identity = "connections", number

    def check(self, request: HttpRequest) -> Answer:
        """Take a slot for the connection of `request`, which it keeps to its end; blocks."""
        if not isinstance(request, ScopeRequest):
            raise PolicyError(f"{self!r} is for WebSockets: a view has no connection that stays open. Use Throttle().")
        return super().check(request)

    def _count(self, cache: BaseCache, count: str, context: RequestContext) -> Deny | None:
        names = self._slots(count)
        first = random.choice(names)  # noqa: S311 - it is no secret
        slot = _slots.take(cache, self.cache, [first])
        if slot is None:
            taken = cache.get_many(names)
            free = [name for name in names if name not in taken]
            random.shuffle(free)  # Others look for one, too.
            slot = _slots.take(cache, self.cache, free)
        if slot is None:
            return self._deny(conf.RETRY_AFTER)
        context.on_end(lambda: _slots.release(slot))
        return None

    def _look(self, cache: BaseCache, count: str) -> Answer:
        return len(cache.get_many(self._slots(count))) < self.number or self._deny(conf.RETRY_AFTER)

    def _slots(self, count: str) -> list[str]:
        return [f"wsdeny.connection.{count}.{number}" for number in range(self.number)]


class _Slot(NamedTuple):
    """The name of a slot, the alias of its cache, and the connections by which the cache may tell tenants apart."""

    name: str
    alias: str
    state: State


class _Slots:
    """The slots that this process holds, renewed by one daemon thread for as long as there are any."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew, as in a forked child: its parent renews and releases the slots from before."""
        #: By what is written into each: it tells slots apart whose names are those of two tenants.
        self._held: dict[str, _Slot] = {}
        self._lock = threading.Lock()
        #: Held while slots are renewed or released: a renewal must not bring back one that is released meanwhile.
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_failing = False

    def take(self, cache: BaseCache, alias: str, names: list[str]) -> str | None:
        """Take the first slot of `names` that is free, and keep it; what `release` takes, or None if there is none."""
        value = secrets.token_hex(8)
        for name in names:
            if cache.add(name, value, _time_to_live()) is True:
                with self._lock:
                    if self._thread is None:
                        thread = threading.Thread(target=self._run, name="wsdeny-heartbeat", daemon=True)
                        thread.start()
                        self._thread = thread
                    self._held[value] = _Slot(name, alias, state_of())
                return value
        return None

    def release(self, value: str) -> None:
        """Free a slot. Raises what the cache raises; then it frees itself in the end."""
        with self._writing:
            with self._lock:
                slot = self._held.pop(value, None)
            if slot is not None:  # else it was lost, or is that of the process that this one was forked from
                with carrying(slot.state):
                    cache = get_cache(slot.alias)
                    if cache.get(slot.name) == value:  # else it was evicted, and another has it by now
                        cache.delete(slot.name)

    def release_all(self) -> None:  # pragma: no cover - as a process ends
        """Free all slots, unless the cache hangs. Raises what a cache raises."""
        if not (self._held and self._writing.acquire(timeout=_PARTING)):
            return
        try:
            with self._lock:
                held, self._held = self._held, {}
            for alias, state, values in _groups(held):
                with carrying(state):
                    cache = get_cache(alias)
                    found = cache.get_many(values)
                    cache.delete_many([name for name, value in values.items() if found.get(name) == value])
        finally:
            self._writing.release()

    def _run(self) -> None:
        while True:
            time.sleep(conf.HEARTBEAT)
            with self._lock:
                if not self._held:
                    self._thread = None
                    return
            try:
                with managed_connections():
                    self.renew()
                self._is_failing = False
            except Exception:  # protects the thread from a cache that is down; the next heartbeat tries again
                if not self._is_failing:
                    logger.exception("The slots of MaxConnections cannot be renewed.")
                self._is_failing = True

    def renew(self) -> None:
        """Prolong all slots. Raises what the cache raises."""
        with self._lock:
            held = list(self._held.items())
        for start in range(0, len(held), _MOST):
            with self._writing:
                self._renew(dict(held[start : start + _MOST]))

    def _renew(self, slots: dict[str, _Slot]) -> None:
        """Prolong `slots`; one that was forgotten is taken again, and one that another has by now is given up."""
        for alias, state, values in _groups({value: slot for value, slot in slots.items() if value in self._held}):
            with carrying(state):
                cache = get_cache(alias)
                found = cache.get_many(values)
                for name, value in values.items():
                    if name not in found:
                        cache.add(name, value, _time_to_live())
                    elif found[name] != value:
                        with self._lock:
                            self._held.pop(value, None)
                own = {name: value for name, value in values.items() if found.get(name) == value}
                if own:
                    cache.set_many(own, _time_to_live())


def _groups(slots: dict[str, _Slot]) -> Iterator[tuple[str, State, dict[str, str]]]:
    """The values of slots by their name, those of one cache and state together."""
    for state, items in by_state(slots.items(), lambda item: item[1].state):
        for alias in {slot.alias for _, slot in items}:
            yield alias, state, {slot.name: value for value, slot in items if slot.alias == alias}


def _time_to_live() -> int:
    """Whole seconds that a slot lives without being renewed."""
    return math.ceil(_BEATS * conf.HEARTBEAT)


_slots = _Slots()


def _leave() -> None:  # pragma: no cover - as a process ends
    """Free the slots of a process that ends: some servers end without a word to their applications."""
    try:
        _slots.release_all()
    except Exception:  # They free themselves in the end.
        logger.warning("The slots of MaxConnections could not be released at the end of the process.")


os.register_at_fork(after_in_child=_slots.reset)
atexit.register(_leave)
