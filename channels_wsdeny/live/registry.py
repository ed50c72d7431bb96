"""The open sockets of this process, and which of them an event is about.

Events come from any thread, of this process or by the channel layer. What they ask for is done by the `Scheduler` of
the event loop that a socket is on.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import os
import re
import secrets
import socket as system
import threading
import time
from collections import deque
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from channels import DEFAULT_CHANNEL_LAYER
from channels.layers import get_channel_layer
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.db.models import Model
from django.http.request import split_domain_port

from ..conf import conf
from ..exceptions import Deny
from ..handlers.recheck import Part, ask_again, unwrapped, user_id
from ..log import request_path
from ..policies.base import raisable
from .scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ..handlers.open_socket import OpenSocket
    from ..http.context import RequestContext
    from ..http.request import HandshakeRequest
    from ..policies import Policy
    from ..policies.base import Denial

    #: What happened, as it goes through a channel layer: see `Registry.handle`.
    Event = dict[str, Any]

_SLASHES = re.compile("/{2,}")
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


def name_of_row(row: Model) -> str:
    """What stands for a row that is credentials: its primary key may be the token itself."""
    return hash_key(f"{cast('Any', row)._meta.concrete_model._meta.label}:{row.pk}")


@lru_cache(maxsize=256)  # Many sockets are for few hosts, and all are looked at in one step.
def _domain(host: str) -> str:
    return split_domain_port(host)[0]


def _with_single_slashes(path: str) -> str:
    """`path` as it is compared: a router within another one leaves out the slashes at the beginning of what is left."""
    return _SLASHES.sub("/", path) if "//" in path else path


class Socket:
    """An accepted socket."""

    __slots__ = ("credentials", "expires", "opened", "part_sessions", "scheduler", "sessions", "since", "users")

    def __init__(self, opened: OpenSocket, scheduler: Scheduler) -> None:
        self.opened, self.scheduler = opened, scheduler
        self.since = time.time()
        #: The users of its grants, those whom a middleware has replaced by them, and the users of its streams, which
        #: may have credentials of their own.
        self.users: tuple[str, ...] = ()
        self.find_users()
        #: The sessions of its grants; and others that its streams have, which may be of another user.
        self.sessions: tuple[str, ...] = ()
        self.part_sessions: tuple[str, ...] = ()
        self.find_sessions()
        #: The credentials of its grants that are rows of a database.
        self.credentials = tuple({name_of_row(row) for row in self.rows()})
        #: When its session or credentials expire, in seconds since the epoch; None if that is not known.
        self.expires: float | None = None

    def find_users(self) -> None:
        """Note the users that its grants and streams have now."""
        found = [name for grant in self.opened.grants for name in (grant.user_id, grant.first_id)]
        found += [user_id(vars(part.request).get("user")) for part in (self.opened.parts or {}).values()]
        self.users = tuple(dict.fromkeys(name for name in found if name is not None))

    def find_sessions(self) -> None:
        """Note the sessions that its grants and streams name now."""
        self.sessions = tuple({hash_key(key) for grant in self.opened.grants for key in grant.session_keys})
        if self.opened.parts or self.part_sessions:
            self.part_sessions = tuple({*map(hash_key, self.part_keys())} - {*self.sessions})

    def rows(self) -> list[Model]:
        """The rows of a database that are the credentials of its grants (``request.auth``)."""
        found = [unwrapped(vars(grant.request).get("auth")) for grant in self.opened.grants]
        return [each for each in found if isinstance(each, Model)]

    def part_keys(self) -> set[str]:
        """The keys of the sessions of its streams and groups."""
        parts = [*(self.opened.parts or {}).values()]  # Another thread may ask, while streams end.
        keys = {self.opened.grant_for(part.request, part.policies).session_key for part in parts}
        return {key for key in keys if key}

    @property
    def path(self) -> str:
        """The path that its handshake was for, without the query string."""
        return request_path(self.opened.context.request)

    def is_at(self, path: str) -> bool:
        """Whether its path is this one, also without what the site is mounted below (``root_path``)."""
        own = _with_single_slashes(self.path)
        if own == path:
            return True
        request: Any = self.opened.context.request
        root_path: str = request.scope.get("root_path", "")
        return root_path != "" and own.removeprefix(root_path.rstrip("/")) == path

    @property
    def host(self) -> str:
        """The host that its handshake was for, without the port; empty if it had none that is allowed."""
        request: Any = self.opened.context.request
        host = None if settings.USE_X_FORWARDED_HOST else request.header(b"host")  # `get_host` would build META.
        try:
            return _domain(request.get_host() if host is None else host.decode("latin1"))
        except DisallowedHost:  # The name of the server stands for a host that the client has not sent.
            return ""

    def describe(self, process: str) -> dict[str, Any]:
        """What `sockets()` tells of it; `process` is the name of this process."""
        consumer = self.opened.context.state.consumer_class
        name = None if consumer is None else f"{consumer.__module__}.{consumer.__qualname__}"
        user = self.users[0] if self.users else None
        return {"path": self.path, "user": user, "consumer": name, "since": self.since, "process": process}


class Registry:
    """The sockets of this process by user and by session, and the handshakes that are not answered yet."""

    def __init__(self) -> None:
        #: Called for the handshakes of an event loop, before their policies are asked, until it has set `begun_in` to
        #: that. What it returns, if not None, is awaited.
        self.on_begin: Callable[[], Awaitable[None] | None] | None = None
        self.begun_in: asyncio.AbstractEventLoop | None = None
        #: Called with each model that credentials are found to be rows of.
        self.on_credentials: Callable[[type[Model]], None] | None = None
        self._credentials: set[type[Model]] = set()
        self.reset()

    def reset(self) -> None:
        """Begin anew, as in a forked child, which has none of the sockets of its parent."""
        self._lock = threading.RLock()
        #: The name of this process: where it runs, and what tells it from one that had its number before.
        self.host = system.gethostname()
        self.process = f"{self.host}:{os.getpid()}:{secrets.token_hex(3)}"
        self.by_socket: dict[OpenSocket, Socket] = {}
        self._by_user: dict[str, set[Socket]] = {}
        self._by_session: dict[str, set[Socket]] = {}
        self._by_credentials: dict[str, set[Socket]] = {}
        self._schedulers: dict[asyncio.AbstractEventLoop, Scheduler] = {}
        #: The handshakes that are not answered, the oldest first, with the number of events before each; and the
        #: events since the oldest began: those are looked at again once it is accepted.
        self._connecting: dict[OpenSocket, int] = {}
        self._events: deque[Event] = deque()
        self._handled = 0
        self.is_draining = False

    @property
    def is_busy(self) -> bool:  # pragma: no cover - asked by drain.py, in processes of servers
        """Whether there are sockets, or handshakes that are not answered yet."""
        return bool(self.by_socket or self._connecting)

    # What the handler calls

    def begin(self, opened: OpenSocket) -> Awaitable[None] | None:
        """Note a handshake before its policies are asked, so that no event is lost between that and the accept.

        Raises `Deny` (a 503) while the process is drained.
        """
        if self.is_draining:
            raise Deny(503)
        if not conf.LIVE:
            return None
        with self._lock:
            self._connecting[opened] = self._handled
        if self.on_begin is None or self.begun_in is asyncio.get_running_loop():
            return None
        return self.on_begin()

    def accepted(self, opened: OpenSocket) -> None:
        """Keep the socket, and apply to it what has happened since its handshake began."""
        with self._lock:
            began = self._connecting.pop(opened, None)
            if began is None:
                return
            scheduler = self._scheduler()
            socket = self.by_socket[opened] = Socket(opened, scheduler)
            self._index(socket)
            missed = self._handled - began
            events = list(self._events)[-missed:] if missed else []
            if missed > len(events):
                # So many events that not all were kept. The client may try again.
                scheduler.close([socket], 4503, "unavailable")
            for event in events:
                self._apply(event, {socket})
            if self.is_draining:
                scheduler.close([socket], 1012, "")
        scheduler.watch(socket)
        if models := {type(row) for row in socket.rows()} - self._credentials:
            self._credentials |= models
            for model in models:
                if self.on_credentials is not None:
                    self.on_credentials(model)
            scheduler.ask([socket])  # The row may have been deleted just before.

    def ended(self, opened: OpenSocket) -> None:
        """Let go of the handshake, or of the socket."""
        with self._lock:
            self._connecting.pop(opened, None)
            socket = self.by_socket.pop(opened, None)
            if socket is not None:
                self._unindex(socket)
        if socket is not None:
            socket.scheduler.forget(socket)
        self.leave([part for name, part in (opened.parts or {}).items() if isinstance(name, tuple)])

    def leave(self, groups: list[Part]) -> None:
        """Leave the groups that a socket or stream had joined, which has ended. On its event loop."""
        if groups:
            self._scheduler().leave(groups)

    def stream_changed(self, opened: OpenSocket, request: HandshakeRequest) -> None:
        """A stream of the socket, that of `request`, has opened or ended: user and session may be others than its."""
        stream = opened.grant_for(request, ())
        users = {grant.user_id for grant in opened.grants}
        sessions = {grant.session_key for grant in opened.grants}
        if stream.user_id in {None, *users} and stream.session_key in {None, *sessions}:
            return
        with self._lock:
            socket = self.by_socket.get(opened)
            if socket is None:
                return
            before = {*socket.users, *socket.part_sessions}
            self._unindex(socket)
            socket.find_users()
            socket.find_sessions()
            self._index(socket)
        # What has happened to this user or session meanwhile was not about the socket.
        if not before.issuperset({*socket.users, *socket.part_sessions}):
            socket.scheduler.ask([socket])

    def _indices(self, socket: Socket) -> tuple[tuple[dict[str, set[Socket]], tuple[str, ...]], ...]:
        sessions = socket.sessions + socket.part_sessions
        return (
            (self._by_user, socket.users),
            (self._by_session, sessions),
            (self._by_credentials, socket.credentials),
        )

    def _index(self, socket: Socket) -> None:
        for index, names in self._indices(socket):
            for name in names:
                index.setdefault(name, set()).add(socket)

    def _unindex(self, socket: Socket) -> None:
        for index, names in self._indices(socket):
            for name in names:
                found = index.get(name, set())
                found.discard(socket)
                if not found:
                    index.pop(name, None)

    def _scheduler(self) -> Scheduler:
        loop = asyncio.get_running_loop()
        if loop not in self._schedulers:
            for other in [other for other in self._schedulers if other.is_closed()]:
                del self._schedulers[other]
            self._schedulers[loop] = Scheduler(loop, self)
        return self._schedulers[loop]

    async def join(
        self, opened: OpenSocket, context: RequestContext, group: str, policy: Policy, channel: str | None
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
        part, name = Part(request, (policy,), leave), (group, channel)
        before = (opened.parts or {}).get(name)
        opened.add_part(name, part)
        try:
            grant = opened.grant_for(request, (policy,))
            denial = await ask_again((grant,), opened.app_context or contextvars.copy_context())
        except BaseException:
            opened.drop_part(name)
            if before is not None:  # It is in the group already.
                opened.add_part(name, before)
            raise
        if denial is None and (opened.parts or {}).get(name) is part:
            try:
                await layer.group_add(group, channel)
            except TypeError:  # That is no name of a group, which it could leave.
                opened.drop_part(name)
                raise
        if denial is not None or (opened.parts or {}).get(name) is not part:
            opened.drop_part(name)
            await leave()
            raise raisable(denial) if isinstance(denial, Deny) else Deny(403)

    # Events

    def handle(self, event: Event) -> None:
        """Apply an event to the sockets that it is about. From any thread; returns at once.

        An event has a ``kind``, and what belongs to that:

        - ``session``: it has ended. ``sessions``, hashes of keys.
        - ``credentials``: a row that is credentials was deleted. ``credentials``, what stands for it.
        - ``moved``: a session has a new key. ``sessions``, of the old one; ``masked``.
        - ``users``: the policies of their sockets are asked again. ``users``, primary keys as strings.
        - ``group``: the same for the users in a group. ``group``, its primary key.
        - ``all``: the same for all users.
        - ``revoke``: the sockets are closed. ``user``, ``session``, ``path``, ``host`` (None: any); ``code`` and
          ``reason`` of the close.
        - ``each``: so are these. ``sockets``, the process and the beginning of each; ``code``, ``reason``.
        - ``drain``: all are closed. ``host`` (None: any), ``seconds``.
        """
        with self._lock:
            self._apply(event, None)  # It raises for what it cannot understand, which is not kept then.
            self._handled += 1
            if self._connecting:
                self._events.append(event)
                oldest = next(iter(self._connecting.values()))
                while len(self._events) > min(self._handled - oldest, _MOST_EVENTS):
                    self._events.popleft()
            else:
                self._events.clear()

    def drain(self, seconds: float) -> None:
        """Deny new handshakes with a 503, and close all sockets with 1012 (RFC 6455) within so many seconds."""
        with self._lock:
            self.is_draining = True
            schedulers = {socket.scheduler for socket in self.by_socket.values()}
        for scheduler in schedulers:
            scheduler.call({"kind": "drain", "seconds": seconds}, self.sockets())

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
                socket.scheduler.call({"kind": "users"}, [socket])  # The end of the new key may have come before.
            return
        if event["kind"] == "session":  # Where it is that of a stream alone, the stream is asked again.
            others = {socket for socket in found if not {*event["sessions"]}.intersection(socket.sessions)}
            found -= others
            for socket in others:
                socket.scheduler.call({"kind": "users"}, [socket])
        by_scheduler: dict[Scheduler, list[Socket]] = {}
        for socket in found:
            by_scheduler.setdefault(socket.scheduler, []).append(socket)
        for scheduler, sockets in by_scheduler.items():
            scheduler.call(event, sockets)

    def _about(self, event: Event) -> set[Socket]:
        kind = event["kind"]
        if kind in {"session", "moved"}:
            return set().union(*(self._by_session.get(name, ()) for name in event["sessions"]))
        if kind == "users":
            return set().union(*(self._by_user.get(name, ()) for name in event["users"]))
        if kind == "credentials":  # pragma: no cover - as in receivers
            return set(self._by_credentials.get(event["credentials"], ()))
        if kind in {"all", "group"}:
            return set(self.by_socket.values())
        if kind == "each":
            since = {since for process, since in event["sockets"] if process == self.process}
            return {socket for socket in self.by_socket.values() if socket.since in since}
        if kind != "revoke":
            return set()
        narrowed: list[Iterable[Socket]] = []
        if event.get("user") is not None:
            narrowed.append(self._by_user.get(event["user"], ()))
        if event.get("session") is not None:
            narrowed.append(self._by_session.get(event["session"], ()))
        found = set(self.by_socket.values()) if not narrowed else set(narrowed[0]).intersection(*narrowed[1:])
        if event.get("path") is not None:
            # As a server decodes it, or as `reverse()` writes it.
            paths = {_with_single_slashes(path) for path in (event["path"], unquote(event["path"]))}
            found = {socket for socket in found if any(map(socket.is_at, paths))}
        if event.get("host") is not None:
            found = {socket for socket in found if socket.host == event["host"]}
        return found

    def _move(self, socket: Socket, event: Event) -> None:
        """The session of `socket` goes on under another key."""
        self._unindex(socket)
        keys = {grant.session_key for grant in socket.opened.grants if grant.session_key} | socket.part_keys()
        for old in keys:
            if hash_key(old) in event["sessions"]:
                with suppress(ValueError):
                    new = unmask(event["masked"], old)
                    socket.opened.moves += ((old, new),)
                    for grant in socket.opened.grants:
                        grant.session_key = new if grant.session_key == old else grant.session_key
        socket.find_sessions()
        self._index(socket)

    def sockets(self) -> list[Socket]:
        """The open sockets of this process."""
        with self._lock:
            return list(self.by_socket.values())

    def describe(self) -> list[dict[str, Any]]:
        """The open sockets of this process, as `sockets()` tells of them."""
        return [socket.describe(self.process) for socket in self.sockets()]


registry = Registry()
os.register_at_fork(after_in_child=registry.reset)
