"""The open sockets of this process, and what happens to them.

Events come from any thread, of this process or by the channel layer. The registry finds the sockets that an event is
about; the `Keeper` of an event loop asks their policies again, or closes them.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import hashlib
import heapq
import itertools
import os
import random
import secrets
import socket as system
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from channels import DEFAULT_CHANNEL_LAYER
from channels.layers import get_channel_layer
from django.contrib import auth

from .. import signals
from ..concurrency import run_in_background
from ..conf import conf
from ..exceptions import Deny
from ..handlers.base import code_of
from ..handlers.recheck import SESSION_ENDED, Grant, Part, ask_again
from ..log import log_failure, logger, request_path
from . import expiry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ..handlers.websocket import WebSocketHandler
    from ..http.context import RequestContext
    from ..policies import Policy
    from ..policies.base import Denial

    #: What happened, as it goes through a channel layer: see `Registry.handle`.
    Event = dict[str, Any]

#: Seconds in which events about one socket count as one.
_GATHER = 0.1
#: Seconds after which a socket whose session is not there is asked again. A session that gets a new key or password
#: hash is saved at the end of its request only.
_CONFIRM = 0.7
#: Seconds in which new sockets are gathered, to look up together when their sessions expire.
_LOOKING = 1.0
#: Sockets that are asked at the same time, and those closed before the event loop goes on with other things.
_ASKED_AT_ONCE = 4
_CLOSED_AT_ONCE = 20
_LOOKED_UP_AT_ONCE = 500
#: Events that are kept for handshakes that began before them.
_MOST_EVENTS = 10_000


def hash_key(session_key: str) -> str:
    """What stands for a session key here: a key opens its session, so it is neither sent nor shown."""
    return hashlib.blake2b(session_key.encode(), digest_size=12).hexdigest()


def mask(new_key: str, old_key: str) -> str:
    """The new key of a session, readable with the old one alone: XOR with a hash of that, as hexadecimal digits."""
    return _xor(new_key.encode(), old_key).hex()


def unmask(masked: str, old_key: str) -> str:
    """The new key from what `mask` returned."""
    return _xor(bytes.fromhex(masked), old_key).decode()


def _xor(data: bytes, old_key: str) -> bytes:
    pad = hashlib.shake_256(b"channels_wsdeny.live" + old_key.encode()).digest(len(data))
    return bytes(one ^ other for one, other in zip(data, pad, strict=True))


class Socket:
    """An accepted socket."""

    __slots__ = ("expires", "handler", "keeper", "sessions", "since", "users")

    def __init__(self, handler: WebSocketHandler, keeper: Keeper) -> None:
        self.handler, self.keeper = handler, keeper
        self.since = time.time()
        self.users = tuple({grant.user_id for grant in handler.grants if grant.user_id is not None})
        self.sessions: tuple[str, ...] = ()
        self.find_sessions()
        #: When its session or credentials expire, in seconds since the epoch; None if that is not known.
        self.expires: float | None = None

    def find_sessions(self) -> None:
        """Note the sessions that its grants name now."""
        self.sessions = tuple({hash_key(grant.session_key) for grant in self.handler.grants if grant.session_key})

    @property
    def path(self) -> str:
        """The path that its handshake was for, without the query string."""
        return request_path(self.handler.context.request)

    def describe(self) -> dict[str, Any]:
        """What `sockets()` tells of it."""
        consumer = self.handler.context.state.consumer_class
        name = None if consumer is None else f"{consumer.__module__}.{consumer.__qualname__}"
        user = self.users[0] if self.users else None
        return {"path": self.path, "user": user, "consumer": name, "since": self.since, "process": registry.process}


class Registry:
    """The sockets of this process by user and by session, and the handshakes that are not answered yet."""

    def __init__(self) -> None:
        #: Called for a handshake before its policies are asked; what it returns is awaited.
        self.on_begin: Callable[[], Awaitable[None] | None] | None = None
        self.reset()

    def reset(self) -> None:
        """Begin anew, as in a forked child, which has none of the sockets of its parent."""
        self._lock = threading.RLock()
        #: The name of this process: where it runs, and what tells it from one that had its number before.
        self.host = system.gethostname()
        self.process = f"{self.host}:{os.getpid()}:{secrets.token_hex(3)}"
        self.by_handler: dict[WebSocketHandler, Socket] = {}
        self._by_user: dict[str, set[Socket]] = {}
        self._by_session: dict[str, set[Socket]] = {}
        self._keepers: dict[asyncio.AbstractEventLoop, Keeper] = {}
        #: The handshakes that are not answered, the oldest first, with the number of events before each; and the
        #: events since the oldest began: those are looked at again once it is accepted.
        self._connecting: dict[WebSocketHandler, int] = {}
        self._events: deque[Event] = deque()
        self._handled = 0
        self.is_draining = False

    # What the handler calls

    def begin(self, handler: WebSocketHandler) -> Awaitable[None] | None:
        """Note a handshake before its policies are asked, so that no event is lost between that and the accept.

        Raises `Deny` (a 503) while the process is drained.
        """
        if self.is_draining:
            raise Deny(503)
        if not conf.LIVE:
            return None
        with self._lock:
            self._connecting[handler] = self._handled
        return None if self.on_begin is None else self.on_begin()

    def accepted(self, handler: WebSocketHandler) -> None:
        """Keep the socket, and apply to it what has happened since its handshake began."""
        with self._lock:
            began = self._connecting.pop(handler, None)
            if began is None:
                return
            keeper = self._keeper()
            socket = self.by_handler[handler] = Socket(handler, keeper)
            self._index(socket)
            missed = self._handled - began
            events = list(self._events)[-missed:] if missed else []
            if missed > len(events):
                # So many events that not all were kept. The client may try again.
                keeper.close([socket], 4503, "unavailable")
            for event in events:
                self._apply(event, {socket})
            if self.is_draining:
                keeper.close([socket], 1012, "")
        keeper.watch(socket)

    def ended(self, handler: WebSocketHandler) -> None:
        """Let go of the handshake, or of the socket."""
        with self._lock:
            self._connecting.pop(handler, None)
            socket = self.by_handler.pop(handler, None)
            if socket is not None:
                self._unindex(socket)
            keeper = self._keeper() if handler.parts and socket is None else None
        if socket is not None:
            keeper = socket.keeper
            keeper.forget(socket)
        if keeper is not None and handler.parts:
            keeper.leave([part for name, part in handler.parts.items() if isinstance(name, str)])

    def _index(self, socket: Socket) -> None:
        for index, names in ((self._by_user, socket.users), (self._by_session, socket.sessions)):
            for name in names:
                index.setdefault(name, set()).add(socket)

    def _unindex(self, socket: Socket) -> None:
        for index, names in ((self._by_user, socket.users), (self._by_session, socket.sessions)):
            for name in names:
                found = index.get(name, set())
                found.discard(socket)
                if not found:
                    index.pop(name, None)

    def _keeper(self) -> Keeper:
        loop = asyncio.get_running_loop()
        if loop not in self._keepers:
            for other in [other for other in self._keepers if other.is_closed()]:
                del self._keepers[other]
            self._keepers[loop] = Keeper(loop)
        return self._keepers[loop]

    async def join(
        self, handler: WebSocketHandler, context: RequestContext, group: str, policy: Policy, channel: str | None
    ) -> None:
        """Add a socket to a group of the channel layer as long as `policy` allows it. Raises `Deny` if it does not."""
        channel = channel or getattr(context.consumer, "channel_name", None)
        if channel is None:
            raise TypeError("join(): the channel of the consumer is not known. Give channel=self.channel_name.")
        layer = get_channel_layer(getattr(context.consumer, "channel_layer_alias", DEFAULT_CHANNEL_LAYER))

        async def leave(denial: Denial | None = None) -> None:
            await layer.group_discard(group, channel)

        request: Any = context.request
        # Noted before the policy is asked, so that what happens meanwhile is not missed.
        part = Part(request, (policy,), leave)
        handler.add_part(group, part)
        denial = await ask_again((Grant(request, (policy,)),), handler.app_context or contextvars.copy_context())
        if denial is None and (handler.parts or {}).get(group) is part:
            await layer.group_add(group, channel)
        if denial is not None or (handler.parts or {}).get(group) is not part:
            handler.drop_part(group)
            await leave()
            raise denial if isinstance(denial, Deny) else Deny(403)

    # Events

    def handle(self, event: Event) -> None:
        """Apply an event to the sockets that it is about. From any thread; returns at once.

        An event has a ``kind``, and what belongs to that:

        - ``session``: it has ended. ``sessions``, hashes of keys.
        - ``moved``: a session has a new key. ``sessions``, of the old one; ``masked``.
        - ``users``: the policies of their sockets are asked again. ``users``, primary keys as strings.
        - ``group``: the same for the users in a group. ``group``, its primary key.
        - ``all``: the same for all users.
        - ``revoke``: the sockets are closed. ``user``, ``session``, ``path`` (None: any); ``code``, ``reason``.
        - ``drain``: all are closed. ``host`` (None: any), ``seconds``.
        """
        with self._lock:
            self._handled += 1
            if self._connecting:
                self._events.append(event)
                oldest = next(iter(self._connecting.values()), self._handled)
                while len(self._events) > min(self._handled - oldest, _MOST_EVENTS):
                    self._events.popleft()
            else:
                self._events.clear()
            self._apply(event, None)

    def drain(self, seconds: float) -> None:
        """Deny new handshakes with a 503, and close all sockets with 1012 (RFC 6455) within so many seconds."""
        with self._lock:
            self.is_draining = True
            keepers = {socket.keeper for socket in self.by_handler.values()}
        for keeper in keepers:
            keeper.call({"kind": "drain", "seconds": seconds}, self.sockets())

    def _apply(self, event: Event, among: set[Socket] | None) -> None:
        """Apply `event`; `among` narrows it to some sockets."""
        if event["kind"] == "drain" and among is None and event["host"] in {None, self.host}:
            self.drain(event["seconds"])
        found = self._about(event)
        if among is not None:
            found &= among
        if event["kind"] == "moved":
            for socket in found:
                self._move(socket, event)
            return
        by_keeper: dict[Keeper, list[Socket]] = {}
        for socket in found:
            by_keeper.setdefault(socket.keeper, []).append(socket)
        for keeper, sockets in by_keeper.items():
            keeper.call(event, sockets)

    def _about(self, event: Event) -> set[Socket]:
        kind = event["kind"]
        if kind in {"session", "moved"}:
            return set().union(*(self._by_session.get(name, ()) for name in event["sessions"]))
        if kind == "users":
            return set().union(*(self._by_user.get(name, ()) for name in event["users"]))
        if kind in {"all", "group"}:
            return set(self.by_handler.values())
        if kind != "revoke":
            return set()
        narrowed: list[Iterable[Socket]] = []
        if event.get("user") is not None:
            narrowed.append(self._by_user.get(event["user"], ()))
        if event.get("session") is not None:
            narrowed.append(self._by_session.get(event["session"], ()))
        found = set(self.by_handler.values()) if not narrowed else set(narrowed[0]).intersection(*narrowed[1:])
        path = event.get("path")
        return found if path is None else {socket for socket in found if socket.path == path}

    def _move(self, socket: Socket, event: Event) -> None:
        """The session of `socket` goes on under another key."""
        self._unindex(socket)
        for grant in socket.handler.grants:
            if grant.session_key and hash_key(grant.session_key) in event["sessions"]:
                with suppress(ValueError):
                    grant.session_key = unmask(event["masked"], grant.session_key)
        socket.find_sessions()
        self._index(socket)

    def sockets(self) -> list[Socket]:
        """The open sockets of this process."""
        with self._lock:
            return list(self.by_handler.values())


class Keeper:
    """Asks the policies of the sockets of one event loop again, and closes sockets."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        #: The sockets to ask again, and whether a missing session was seen before.
        self._due: dict[Socket, bool] = {}
        #: The users of the sockets that are asked now. Each event begins a new dict, for it may be about the user.
        self._users: dict[Any, Any] = {}
        self._closing: deque[tuple[Socket, int, str]] = deque()
        #: When sessions and credentials expire: (seconds since the epoch, a number, socket), a heap.
        self._expiring: list[tuple[float, int, Socket]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._interval_timer: asyncio.TimerHandle | None = None
        self._unknown: list[Socket] = []
        self._watched = 0
        #: What runs: the names of its tasks, of which each runs once at a time.
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: set[str] = set()

    def call(self, event: Event, sockets: list[Socket]) -> None:
        """As `act`, from any thread."""
        if self._loop is _running_loop():
            self.act(event, sockets)
            return
        with suppress(RuntimeError):  # The loop is closed, and its sockets with it.
            self._loop.call_soon_threadsafe(self.act, event, sockets)

    def act(self, event: Event, sockets: list[Socket]) -> None:
        """Do what `event` asks for."""
        kind = event["kind"]
        if kind == "session":
            self.close(sockets, 4401, SESSION_ENDED)
        elif kind == "revoke":
            self.close(sockets, event["code"], event["reason"])
        elif kind == "drain":
            mine = [socket for socket in sockets if socket.keeper is self]
            self._start("drain", lambda: self._drain(mine, event["seconds"]))
        elif kind == "group":
            self._start("group", lambda: self._ask_group(event["group"], sockets), is_single=False)
        else:
            self.ask(sockets)

    # Asking again

    def ask(self, sockets: Iterable[Socket], *, after: float | None = None, is_confirmed: bool = False) -> None:
        """Ask the policies of `sockets` again, so many seconds from now; by default in a moment."""
        self._users = {}
        self._due.update(dict.fromkeys(sockets, is_confirmed))
        self._loop.call_later(_GATHER if after is None else after, self._start_asking)

    def _start_asking(self) -> None:
        if self._due:
            self._start("asking", self._ask_due)

    async def _ask_due(self) -> None:
        while self._due:
            # The sockets of one session one after another: they share their user.
            groups: dict[Any, list[tuple[Socket, bool]]] = {}
            for socket, is_confirmed in self._due.items():
                groups.setdefault((socket.sessions, socket.users), []).append((socket, is_confirmed))
            self._due.clear()
            waiting = deque(groups.values())
            await asyncio.gather(*(self._ask_groups(waiting) for _ in range(_ASKED_AT_ONCE)))

    async def _ask_groups(self, waiting: deque[list[tuple[Socket, bool]]]) -> None:
        while waiting:
            for socket, is_confirmed in waiting.popleft():
                await self._ask(socket, is_confirmed=is_confirmed)

    async def _ask(self, socket: Socket, *, is_confirmed: bool) -> None:
        try:
            denial = await socket.handler.ask_again(self._users)
        except Exception as error:  # A database that cannot be reached closes no socket: it is asked again.
            log_failure(socket.handler.context, error, 503)
            self._loop.call_later(conf.HEARTBEAT, self._ask_later, socket)
            return
        if denial is None:
            await self._ask_parts(socket)
            return
        if _code(denial) == SESSION_ENDED and not is_confirmed:
            self._loop.call_later(_CONFIRM, self._ask_confirmed, socket)
            return
        status = denial.status if isinstance(denial, Deny) else denial.status_code
        detail = str(denial.detail) if isinstance(denial, Deny) else ""
        self.close([socket], 4000 + status, detail or _code(denial))

    def _ask_later(self, socket: Socket) -> None:
        self.ask([socket], after=0)

    def _ask_confirmed(self, socket: Socket) -> None:
        self.ask([socket], after=0, is_confirmed=True)

    async def _ask_parts(self, socket: Socket) -> None:
        """Ask the policies of its streams and groups."""
        try:
            await socket.handler.ask_parts(self._users)
        except Exception as error:  # As in `_ask`.
            log_failure(socket.handler.context, error, 503)
            self._loop.call_later(conf.HEARTBEAT, self._ask_later, socket)

    async def _ask_group(self, group: Any, sockets: list[Socket]) -> None:
        """Ask the sockets of the users in a group of `django.contrib.auth` again."""
        names = list({name for socket in sockets for name in socket.users})
        try:
            found = await run_in_background(lambda: _users_in(group, names))
        except Exception as error:  # It is not known who is in the group: all are asked.
            logger.warning("The users of a group could not be found: %s", type(error).__name__)
            found = set(names)
        self.ask([socket for socket in sockets if not found.isdisjoint(socket.users)])

    # Expiry and the re-check

    def watch(self, socket: Socket) -> None:
        """Watch over a new socket."""
        self._watched += 1
        if self._interval_timer is None and conf.RECHECK_INTERVAL:
            self._interval_timer = self._loop.call_later(self._interval(), self._recheck_all)
        self._unknown.append(socket)
        if len(self._unknown) == 1:
            self._loop.call_later(_LOOKING, self._start_looking)

    def forget(self, socket: Socket) -> None:
        """A socket has ended."""
        self._watched -= 1
        self._due.pop(socket, None)
        if socket.expires is not None:
            socket.expires = None
        if len(self._expiring) > 64 + 2 * self._watched:
            self._expiring = [entry for entry in self._expiring if entry[2].expires is not None]
            heapq.heapify(self._expiring)

    def leave(self, groups: list[Part]) -> None:
        """Leave the groups of a socket that has ended."""
        for part in groups:
            self._start("leave", functools.partial(part.lose, Deny()), is_single=False)

    def _interval(self) -> float:
        return conf.RECHECK_INTERVAL * random.uniform(0.8, 1.2)  # noqa: S311 - spreads the processes

    def _recheck_all(self) -> None:
        self._interval_timer = None
        if not self._watched or not conf.RECHECK_INTERVAL:
            return
        self._interval_timer = self._loop.call_later(self._interval(), self._recheck_all)
        self.ask([socket for socket in registry.sockets() if socket.keeper is self])

    def _start_looking(self) -> None:
        self._start("looking", self._look_for_expiry)

    async def _look_for_expiry(self) -> None:
        """Find out when the sessions and credentials of new sockets expire; of many sockets at once."""
        while self._unknown:
            sockets, self._unknown = self._unknown[:_LOOKED_UP_AT_ONCE], self._unknown[_LOOKED_UP_AT_ONCE:]
            for socket, when in (await expiry.find(sockets)).items():
                self._expire_at(when, socket)
        self._set_timer()

    def _expire_at(self, when: float, socket: Socket) -> None:
        if socket.handler in registry.by_handler:
            socket.expires = when
            heapq.heappush(self._expiring, (when, next(self._numbers), socket))

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._expiring and self._expiring[0][2].expires is None:
            heapq.heappop(self._expiring)
        if self._expiring:
            # In steps of a day at most: clocks are set.
            seconds = min(max(self._expiring[0][0] - time.time(), 0), 86400)
            self._timer = self._loop.call_later(seconds + 0.01, self._expire)

    def _expire(self) -> None:
        expired: list[Socket] = []
        while self._expiring and self._expiring[0][0] <= time.time():
            when, _, socket = heapq.heappop(self._expiring)
            if socket.expires == when:
                expired.append(socket)
        self._set_timer()
        if expired:
            self._start("expiring", lambda: self._close_expired(expired), is_single=False)

    async def _close_expired(self, sockets: list[Socket]) -> None:
        """Close the sockets that have expired; a session that was prolonged expires later."""
        ended = [socket for socket in sockets if expiry.has_expired_credentials(socket)]
        self.close(ended, 4401, "credentials_expired")
        others = [socket for socket in sockets if socket not in ended]
        if not others:
            return
        try:
            gone = await expiry.gone(others)
        except Exception as error:  # A storage that cannot be reached closes no socket.
            log_failure(others[0].handler.context, error, 503)
            for socket in others:
                self._expire_at(time.time() + conf.HEARTBEAT, socket)
            self._set_timer()
            return
        self.close(gone, 4401, "session_expired")
        self._unknown += [socket for socket in others if socket not in gone and socket.handler in registry.by_handler]
        self._start_looking()

    # Closing

    def close(self, sockets: Iterable[Socket], code: int, reason: str) -> None:
        """Close `sockets`, a few at a time."""
        self._closing += [(socket, code, reason) for socket in sockets]
        if self._closing:
            self._start("closing", self._close_some)

    async def _drain(self, sockets: list[Socket], seconds: float) -> None:
        """Close `sockets` at random moments within so many seconds: their clients will not come back all at once."""
        began = self._loop.time()
        moments = sorted(random.uniform(0, seconds) for _ in sockets)  # noqa: S311 - it spreads clients
        for moment, socket in zip(moments, sockets, strict=True):
            wait = began + moment - self._loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            self.close([socket], 1012, "")

    async def _close_some(self) -> None:
        while self._closing:
            for _ in range(min(_CLOSED_AT_ONCE, len(self._closing))):
                arguments = self._closing.popleft()
                self._start("close", lambda arguments=arguments: _close(*arguments), is_single=False)
            await asyncio.sleep(0.002)

    def _start(self, name: str, function: Any, *, is_single: bool = True) -> None:
        """Run a coroutine function in a task; one that `is_single` only if none of its name runs."""
        if is_single and name in self._running:
            return
        self._running.add(name)

        async def run() -> None:
            try:
                await function()
            except Exception:
                logger.exception("Open sockets could not be checked or closed.")
            finally:
                self._running.discard(name)

        # A context of its own: that of an event may be the one of a request.
        task = self._loop.create_task(run(), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _close(socket: Socket, code: int, reason: str) -> None:
    handler = socket.handler
    context = handler.context
    if await handler.close(code, reason) and code != 1012:
        logger.info("Closed %s: %d %s", socket.path, code, reason)
        if signals.socket_revoked.receivers:
            sender = context.state.consumer_class
            signals.send_signal(signals.socket_revoked, sender, context, code=code, reason=reason)


def _code(denial: Denial) -> str:
    return denial.code if isinstance(denial, Deny) else code_of(denial)


def _users_in(group: str, names: list[str]) -> set[str]:
    """Those of the users `names` (primary keys) that are in a group; blocks."""
    users: Any = auth.get_user_model()._base_manager
    found: set[str] = set()
    for start in range(0, len(names), 500):
        rows = users.filter(groups=group, pk__in=names[start : start + 500])
        found |= {str(key) for key in rows.values_list("pk", flat=True)}
    return found


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


registry = Registry()
os.register_at_fork(after_in_child=registry.reset)
