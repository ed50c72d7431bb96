"""Threads for the blocking part of requests: sessions, users, synchronous hooks and policies.

Handshakes do not share the one thread of `channels.db.database_sync_to_async`, nor get a thread each: they
use a bounded pool.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
from typing import TYPE_CHECKING, Any, TypeVar

from asgiref.sync import sync_to_async

from .conf import conf
from .threadpool import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

#: Threads for what runs after an answer; they start as they are needed, and each has a database connection.
_BACKGROUND_THREADS = 4

#: Whether the current code runs in a thread of a pool, or on the event loop on behalf of such a thread.
_in_pool: contextvars.ContextVar[bool] = contextvars.ContextVar("wsdeny_in_pool", default=False)
_UNSET = object()


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
