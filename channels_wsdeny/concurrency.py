"""Threads for the blocking part of requests: sessions, users, synchronous hooks and policies.

Handshakes do not share the one thread of `channels.db.database_sync_to_async`, nor get a thread each: they
use a bounded pool. Its threads are daemons, because a policy that hangs must not keep the process from
ending, as the threads of `concurrent.futures.ThreadPoolExecutor` would.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import threading
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async

from .conf import conf
from .db import managed_connections

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

P = ParamSpec("P")
T = TypeVar("T")

#: Threads for what runs after an answer; they start as they are needed, and each has a database connection.
_BACKGROUND_THREADS = 4

#: Whether the current code runs in a thread of a pool, or on the event loop on behalf of such a thread.
_in_pool: contextvars.ContextVar[bool] = contextvars.ContextVar("wsdeny_in_pool", default=False)
_UNSET = object()


class ThreadPool(Executor):
    """At most `size` daemon threads, started as they are needed, each with managed database connections.

    A function that waits for a thread is dropped when its future is cancelled. One that has begun runs to its
    end, and its result is dropped.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._waiting: dict[Future[Any], Callable[[], Any]] = {}
        self._wakeup = threading.Condition()
        self._threads = 0
        self._idle = 0

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in a thread. Raises `ConnectionError` if the system cannot start a first thread."""
        future: Future[T] = Future()
        with self._wakeup:
            self._waiting[future] = functools.partial(function, *args, **kwargs)
            if self._idle >= len(self._waiting):
                self._wakeup.notify()
            elif self._threads < self.size:
                self._start_thread()
        future.add_done_callback(self._drop)
        return future

    def _drop(self, future: Future[Any]) -> None:
        if future.cancelled():
            with self._wakeup:
                self._waiting.pop(future, None)

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name="wsdeny-pool", daemon=True).start()
        except RuntimeError as error:
            if not self._threads:
                self._waiting.clear()
                raise ConnectionError("The pool cannot start a thread.") from error
        else:
            self._threads += 1
            self._idle += 1

    def _work(self) -> None:
        while True:
            self._run_next()  # A call of its own: an idle thread must not keep the last request alive.

    def _run_next(self) -> None:
        with self._wakeup:
            self._wakeup.wait_for(lambda: self._waiting)
            future = next(iter(self._waiting))
            function = self._waiting.pop(future)
            if not future.set_running_or_notify_cancel():
                return
            self._idle -= 1
        try:
            with managed_connections():
                settle = functools.partial(future.set_result, function())
        except BaseException as error:  # the caller gets it
            settle = functools.partial(future.set_exception, error)
        # The thread is idle before the caller gets its result: a caller who asks at once for another thread
        # gets this one, with its database connection, and not a new one.
        with self._wakeup:
            self._idle += 1
        settle()
        del future, settle  # They refer to an error, whose traceback refers to this frame.


@functools.cache
def _pool_for(purpose: str, size: int) -> ThreadPool:
    """The pool of this process for "handshakes" or what follows them, "background"."""
    return ThreadPool(size)


# A forked child has the pools of its parent but none of their threads, and perhaps a held lock.
os.register_at_fork(after_in_child=_pool_for.cache_clear)


def get_pool() -> ThreadPool:
    """The pool of this process for handshakes, of ``POOL_SIZE`` threads."""
    return _pool_for("handshakes", conf.POOL_SIZE)


async def run_in_threadpool(function: Callable[[], T]) -> T:
    """Run `function` in a thread of the pool, with the caller's contextvars and asgiref Locals, both ways.

    Code of a pool thread that came back to the event loop by `async_to_sync` runs in its own thread again: a
    second thread might never come free. Returns or raises what `function` does.
    """
    return await _run(function, get_pool())


async def run_in_background(function: Callable[[], T]) -> T:
    """As `run_in_threadpool`, in other threads: for what follows an answer, and may hang."""
    return await _run(function, _pool_for("background", _BACKGROUND_THREADS))


async def run_in_django_thread(function: Callable[[], T]) -> T:
    """Run `function` in the thread of the request that Django itself uses, with its database connections."""
    return await sync_to_async(_contained(function), thread_sensitive=True)()


async def _run(function: Callable[[], T], pool: Any) -> T:
    if _in_pool.get():
        return await run_in_django_thread(function)

    def run() -> T:
        _in_pool.set(True)
        return _contained(function)()

    try:
        return await sync_to_async(run, thread_sensitive=False, executor=pool)()
    finally:
        _in_pool.set(False)  # asgiref gives the contextvars of the thread back to the caller.


def _contained(function: Callable[[], T]) -> Callable[[], T]:
    def run() -> T:
        try:
            return function()
        except (StopIteration, SystemExit, KeyboardInterrupt) as error:
            # A future cannot carry a StopIteration, and the others would end the server.
            raise RuntimeError(f"{function!r} raised {type(error).__name__}.") from error

    return run


def run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never has to wait, as in synchronous callers without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError(f"{coroutine!r} had to wait in a synchronous caller.")


def adopt_context(context: contextvars.Context) -> None:
    """Set the contextvars of `context` here as well."""
    for variable, value in context.items():
        if variable is not _in_pool and variable.get(_UNSET) is not value:
            variable.set(value)


def is_being_cancelled() -> bool:
    """Whether the current task itself is being cancelled, rather than something that it awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
