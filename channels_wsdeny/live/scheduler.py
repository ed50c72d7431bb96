"""When the policies of open sockets are asked again, and when sockets are closed, on their event loop.

After an event, every ``RECHECK_INTERVAL`` seconds, as a session or credential expires, and over ``DRAIN_SECONDS`` as
the process ends.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import heapq
import itertools
import random
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.contrib import auth

from .. import signals
from .. import status as statuses
from ..concurrency import run_for_open_sockets
from ..conf import conf
from ..db import by_state, carrying, state_of
from ..exceptions import Deny
from ..handlers.base import code_of, detail_of
from ..handlers.recheck import SESSION_ENDED
from ..headers import cut_reason
from ..log import escape, log_failure, logger
from . import expiry

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import TypeAlias

    from ..handlers.recheck import Part
    from ..policies.base import Denial
    from .registry import Event, Registry, Socket

    #: The sessions and users of a socket.
    _Key: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]

#: Seconds in which events about one socket count as one.
_GATHER = 0.05
#: Seconds from the last of them until it is asked, for a replica that is behind.
_BEHIND = 0.1
#: Seconds after which a socket whose session is not there is asked again. A session that gets a new key or password
#: hash is saved at the end of its request only.
_CONFIRM = 0.7
#: Seconds in which new sockets are gathered, to look up together when their sessions expire.
_LOOKING = 1.0
#: Sockets that are asked at the same time, and those closed before the event loop goes on with other things.
_ASKED_AT_ONCE = 4
#: Sockets of one event that are asked without waiting for those of larger ones.
_FEW = 100
_CLOSED_AT_ONCE = 20
_LOOKED_UP_AT_ONCE = 500


class Scheduler:
    """Asks the policies of the sockets of one event loop again, and closes sockets."""

    def __init__(self, loop: asyncio.AbstractEventLoop, registry: Registry) -> None:
        self._loop, self._registry = loop, registry
        #: The sockets to ask again by their sessions and users, and whether a missing session was seen before; those of
        #: what is about many sockets apart, so that nothing which is about a few waits until thousands have been asked.
        self._due: tuple[dict[_Key, dict[Socket, bool]], dict[_Key, dict[Socket, bool]]] = ({}, {})
        #: Those that events are about which have come just now.
        self._gathered: list[dict[Socket, bool]] = [{}, {}]
        #: Those whose sockets are asked now.
        self._busy: tuple[set[_Key], set[_Key]] = (set(), set())
        #: The users of the sockets that are asked now. Those of new events begin new dicts, for these may be about
        #: the user.
        self._users: tuple[dict[Any, Any], dict[Any, Any]] = ({}, {})
        self._closing: deque[tuple[Socket, int, str]] = deque()
        #: When sessions and credentials expire: (seconds since the epoch, a number, socket), a heap.
        self._expiring: list[tuple[float, int, Socket]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._interval_timer: asyncio.TimerHandle | None = None
        self._unknown: list[Socket] = []
        self._watched = 0
        #: The names of what runs, each once at a time.
        self._running: set[str] = set()

    def call(self, event: Event, sockets: list[Socket]) -> None:
        """As `act`, from any thread."""
        if self._loop is running_loop():
            self.act(event, sockets)
            return
        with suppress(RuntimeError):  # The loop is closed, and its sockets with it.
            self._loop.call_soon_threadsafe(self.act, event, sockets)

    def act(self, event: Event, sockets: list[Socket]) -> None:
        """Do what `event` asks for."""
        kind = event["kind"]
        if kind == "session":
            self.close(sockets, 4401, SESSION_ENDED)
        elif kind == "credentials":  # pragma: no cover - as in receivers
            self.close(sockets, 4401, "invalid_credentials")
        elif kind in {"revoke", "each"}:
            self.close(sockets, event["code"], event["reason"])
        elif kind == "drain":
            mine = [socket for socket in sockets if socket.scheduler is self]
            self._start("drain", lambda: self._drain(mine, event["seconds"]))
        elif kind == "group":
            self._start("group", lambda: self._ask_group(event["group"], sockets), is_single=False)
        else:
            self.ask(sockets)

    # Asking again

    def ask(self, sockets: Iterable[Socket], *, after: float | None = None, is_confirmed: bool = False) -> None:
        """Ask the policies of `sockets` again, so many seconds from now; by default in a moment."""
        asked = dict.fromkeys(sockets, is_confirmed)
        lane = 1 if len(asked) > _FEW else 0
        if after is not None:
            self._loop.call_later(after, self._start_asking, lane, asked)
            return
        gathered = self._gathered[lane]
        if asked and not gathered:
            self._loop.call_later(_GATHER, self._end_gathering, lane)
        _add(gathered, asked)

    def _end_gathering(self, lane: int) -> None:
        """Have what is gathered be asked a moment after its last event; the next event begins anew."""
        gathered, self._gathered[lane] = self._gathered[lane], {}
        self._loop.call_later(_BEHIND, self._start_asking, lane, gathered)

    def _start_asking(self, lane: int, sockets: dict[Socket, bool]) -> None:
        self._users = ({}, {})
        for socket, is_confirmed in sockets.items():
            if socket.opened in self._registry.by_socket:
                _add(self._due[lane].setdefault(_key(socket), {}), {socket: is_confirmed})
        for number in range(_ASKED_AT_ONCE if self._due[lane] else 0):
            self._start(f"asking {lane} {number}", lambda: self._ask_due(lane))

    async def _ask_due(self, lane: int) -> None:
        """Ask the sockets of one session one after another, for they share their user, then those of the next."""
        due, busy = self._due[lane], self._busy[lane]
        while (key := next((each for each in due if each not in busy), None)) is not None:
            busy.add(key)
            try:
                for socket, is_confirmed in due.pop(key).items():
                    await self._ask(socket, lane, is_confirmed=is_confirmed)
            finally:
                busy.discard(key)

    async def _ask(self, socket: Socket, lane: int, *, is_confirmed: bool) -> None:
        """Ask its policies, then those of its streams and groups."""
        opened, failed = socket.opened, list[Exception]()
        denial, is_missing = None, False
        try:
            denial = await opened.ask_again(self._users[lane])
        except Exception as error:  # Its streams and groups may have been lost all the same.
            failed.append(error)
        try:
            is_missing = denial is None and await opened.ask_parts(self._users[lane], is_confirmed=is_confirmed)
        except Exception as error:
            failed.append(error)
        if denial is not None and (is_confirmed or _code(denial) != SESSION_ENDED):
            self.close([socket], *_close_of(denial))
        elif denial is not None or is_missing:
            self._ask_later(_CONFIRM, socket, is_confirmed=True)
        elif failed:  # A database that cannot be reached closes no socket: it is asked again.
            log_failure(opened.context, failed[0], 503)
            self._ask_later(conf.HEARTBEAT, socket)

    def _ask_later(self, seconds: float, socket: Socket, *, is_confirmed: bool = False) -> None:
        again = functools.partial(self.ask, [socket], after=0, is_confirmed=is_confirmed)
        self._loop.call_later(seconds, again)

    async def _ask_group(self, group: Any, sockets: list[Socket]) -> None:
        """Ask the sockets of the users in a group of `django.contrib.auth` again."""
        try:
            found = await run_for_open_sockets(lambda: _in_group(group, sockets))
        except Exception as error:  # It is not known who is in the group: all are asked.
            logger.warning("The users of a group could not be found: %s", type(error).__name__)
            found = sockets
        self.ask(found)

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
        for due in self._due:
            due.get(_key(socket), {}).pop(socket, None)
        socket.expires = None
        if len(self._expiring) > 64 + 2 * self._watched:  # pragma: no cover - for hundreds of sockets
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
        if not self._watched or not conf.RECHECK_INTERVAL:  # pragma: no cover - the last one ends by chance just before
            return
        self._interval_timer = self._loop.call_later(self._interval(), self._recheck_all)
        self.ask([socket for socket in self._registry.sockets() if socket.scheduler is self])

    def _start_looking(self) -> None:
        self._start("looking", self._look_for_expiry)

    async def _look_for_expiry(self) -> None:
        """Find out when the sessions and credentials of new sockets expire; of many sockets at once."""
        later: list[Socket] = []
        while self._unknown:
            sockets, self._unknown = self._unknown[:_LOOKED_UP_AT_ONCE], self._unknown[_LOOKED_UP_AT_ONCE:]
            found, is_complete = await expiry.find(sockets)
            later += [] if is_complete else sockets
            for socket, when in found.items():
                # A session that should have expired and is still there is looked at again a little later.
                is_over = socket.expires is not None and when <= socket.expires
                self._expire_at(time.time() + conf.HEARTBEAT if is_over else when, socket)
        self._set_timer()
        if later:  # pragma: no cover - A test runs it, but Python 3.11 does not trace it after the loop.
            self._unknown = [socket for socket in later if socket.opened in self._registry.by_socket]
            self._loop.call_later(conf.HEARTBEAT, self._start_looking)

    def _expire_at(self, when: float, socket: Socket) -> None:
        if socket.opened in self._registry.by_socket:
            socket.expires = when
            heapq.heappush(self._expiring, (when, next(self._numbers), socket))

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._expiring and self._expiring[0][2].expires is None:  # pragma: no cover - one that ended by chance
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
        ended = {socket for socket in sockets if expiry.has_expired_credentials(socket)}
        self.close(ended, 4401, "credentials_expired")
        others = [socket for socket in sockets if socket not in ended]
        if not others:
            return
        try:
            gone = set(await expiry.gone(others))
        except Exception as error:  # A storage that cannot be reached closes no socket.
            log_failure(others[0].opened.context, error, 503)
            for socket in others:
                self._expire_at(time.time() + conf.HEARTBEAT, socket)
            self._set_timer()
            return
        self.close(gone, 4401, "session_expired")
        self._unknown += [
            socket for socket in others if socket not in gone and socket.opened in self._registry.by_socket
        ]
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
            except Exception:  # pragma: no cover - No error is known that comes here; it protects the other sockets.
                logger.exception("Open sockets could not be checked or closed.")
            finally:
                self._running.discard(name)

        spawn(run)


def _add(sockets: dict[Socket, bool], more: dict[Socket, bool]) -> None:
    """Add to sockets that are to be asked. What was confirmed stays so: another event would put the close off."""
    for socket, is_confirmed in more.items():
        sockets[socket] = is_confirmed or sockets.get(socket, False)


def _key(socket: Socket) -> _Key:
    return socket.sessions, socket.users


async def _close(socket: Socket, code: int, reason: str) -> None:
    opened = socket.opened
    context = opened.context
    if await opened.close(code, reason) and code != 1012:
        logger.info("Closed %s: %d %s", escape(socket.path), code, escape(reason))
        if signals.socket_revoked.receivers:
            sender = context.state.consumer_class
            signals.send_signal(signals.socket_revoked, sender, context, code=code, reason=reason)


def _close_of(denial: Denial) -> tuple[int, str]:
    """The code and reason of the close that stands for `denial`. Never raises."""
    try:
        status = statuses.wire_status(denial.status if isinstance(denial, Deny) else denial.status_code)
        return 4000 + status, cut_reason(detail_of(denial) or _code(denial))
    except Exception:  # one of the site's own class must close its socket all the same
        return 4500, "server_error"


def _code(denial: Denial) -> str:
    return denial.code if isinstance(denial, Deny) else code_of(denial)


def _in_group(group: str, sockets: list[Socket]) -> list[Socket]:
    """The sockets of the users in a group; blocks."""
    users: Any = auth.get_user_model()._base_manager
    found: list[Socket] = []
    for state, members in by_state(sockets, lambda socket: state_of(socket.opened.app_context)):
        names = list({name for socket in members for name in socket.users})
        keys: set[str] = set()
        with carrying(state):
            for start in range(0, len(names), 500):
                rows = users.filter(groups=group, pk__in=names[start : start + 500])
                keys |= {str(key) for key in rows.values_list("pk", flat=True)}
        found += [socket for socket in members if not keys.isdisjoint(socket.users)]
    return found


_tasks: set[asyncio.Task[None]] = set()


def spawn(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine function in a task of the running loop, without the contextvars of the caller: a request's."""
    task = asyncio.get_running_loop().create_task(function(), context=contextvars.Context())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of this thread, if one runs."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
