"""The pool: a bounded set of threads for the blocking part of handshakes.

Not the one thread that `database_sync_to_async` shares with every open socket, and not a thread a
connection. A job waits for its place in the event loop, so that a waiting handshake that gives up
leaves nothing behind; a hung job costs its own place and no more. The threads are daemons: one that
hangs must not keep the process from ending, as those of `concurrent.futures` would.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from asgiref.sync import sync_to_async

from .conf import conf
from .db import managed_connections

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_in_pool: contextvars.ContextVar[bool] = contextvars.ContextVar("wsdeny_in_pool", default=False)


_UNSET = object()


class _Job:
    """One function to run in a thread, and the future that somebody awaits it with."""

    __slots__ = ("context", "function", "future", "loop")

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.context = contextvars.copy_context()
        self.context.run(_in_pool.set, True)

    def run(self) -> Callable[[], None]:
        """Run the function; returns what tells whoever awaits it."""
        result: Any = None
        error: BaseException | None = None
        try:
            with managed_connections():
                result = self.context.run(self.function)
        except Exception as caught:  # noqa: BLE001 - whoever awaits the job gets it
            error = caught
        except BaseException as caught:  # noqa: BLE001 - a SystemExit here must not end the server
            error = RuntimeError(f"{type(caught).__name__} was raised in a thread of the pool: {caught}")
            error.__cause__ = caught
        return functools.partial(self._tell, result, error)

    def _tell(self, result: Any, error: BaseException | None) -> None:
        try:
            self.loop.call_soon_threadsafe(self._settle, result, error)
        except RuntimeError:
            pass  # The loop has closed: nobody awaits this any more.

    def _settle(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():
            return  # Whoever awaited it gave up: a timeout, or the client left.
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


def adopt_context(context: contextvars.Context) -> None:
    """Set what was set in `context` here as well: what a hook puts into a contextvar, the endpoint sees."""
    for variable, value in context.items():
        if variable is not _in_pool and variable.get(_UNSET) is not value:
            variable.set(value)


class Pool:
    """At most `size` daemon threads, started as they are needed."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._waiting: dict[_Job, None] = {}
        self._wakeup = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._closed = False

    async def run(self, function: Callable[[], T]) -> T:
        """Run `function` in a thread with the caller's contextvars and managed database connections.

        Returns or raises what it does. A caller that is cancelled while it waits for a place frees it;
        a function that has begun is left to end by itself, and its result is dropped.
        """
        job = _Job(function)
        try:
            with self._wakeup:
                self._waiting[job] = None
                if self._idle >= len(self._waiting):
                    self._wakeup.notify()
                elif self._threads < self.size:
                    self._start_thread()
            result: T = await job.future
            adopt_context(job.context)
        finally:
            with self._wakeup:
                self._waiting.pop(job, None)
        return result

    def close(self) -> None:
        """Let the threads end once nothing waits for them."""
        with self._wakeup:
            self._closed = True
            self._wakeup.notify_all()

    def _start_thread(self) -> None:
        """Start one more thread; if the system has none to give, those that there are must do.

        Raises `ConnectionError` (the service is unavailable) if there are none.
        """
        try:
            threading.Thread(target=self._work, name="wsdeny-pool", daemon=True).start()
        except RuntimeError as error:
            if not self._threads:
                raise ConnectionError("The pool cannot start a thread.") from error
        else:
            self._threads += 1

    def _work(self) -> None:
        settle: Callable[[], None] = _nothing
        while True:
            with self._wakeup:
                # Idle before anybody hears of it: who asks at once for another place gets this thread, with
                # its connection, and not a new one.
                self._idle += 1
                settle()
                settle = _nothing
                while not self._waiting and not self._closed:
                    self._wakeup.wait()
                self._idle -= 1
                if not self._waiting:
                    self._threads -= 1
                    return
                job = next(iter(self._waiting))
                del self._waiting[job]
            settle = job.run()
            del job  # An idle thread must not hold on to the last request it served.


def _nothing() -> None: ...


#: Threads beside the pool; they start as they are needed, and each has a database connection.
_ASIDE = 4

_pool: Pool | None = None
_aside: Pool | None = None
_lock = threading.Lock()


def get_pool() -> Pool:
    """The process's pool, of ``POOL_SIZE`` threads."""
    global _pool  # noqa: PLW0603 - one a process, replaced when the setting changes
    pool = _pool
    size = conf.POOL_SIZE
    if pool is not None and pool.size == size:
        return pool
    with _lock:
        if _pool is None or _pool.size != size:
            if _pool is not None:
                _pool.close()
            _pool = Pool(size)
        return _pool


async def hop(function: Callable[[], T]) -> T:
    """Run `function` in a thread of the process's pool; see `Pool.run`.

    Code that runs there already, and came back to a loop by `async_to_sync`, stays in its thread: a second
    place in the pool might never come free.
    """
    if _in_pool.get():
        return await sync_to_async(function, thread_sensitive=True)()
    return await get_pool().run(function)


async def hop_aside(function: Callable[[], T]) -> T:
    """As `hop`, in threads beside the pool: for what comes after an answer, and may hang.

    It takes no place from those who wait for theirs.
    """
    if _in_pool.get():
        return await sync_to_async(function, thread_sensitive=True)()
    return await _get_aside().run(function)


def _get_aside() -> Pool:
    global _aside  # noqa: PLW0603 - one a process
    with _lock:
        if _aside is None:
            _aside = Pool(_ASIDE)
        return _aside


def _forget_after_fork() -> None:
    """A forked child has the parent's pool but none of its threads, and perhaps a held lock."""
    global _pool, _aside, _lock
    _pool, _aside, _lock = None, None, threading.Lock()


os.register_at_fork(after_in_child=_forget_after_fork)
