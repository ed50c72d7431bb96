"""Threads for the blocking part of requests: sessions, users, synchronous hooks and policies.

Handshakes do not share the one thread of `channels.db.database_sync_to_async`, nor get a thread each: they
use a bounded pool. With more handshakes than its threads can serve, a queue in order of arrival makes all of them wait
until it is too late. So once the oldest has waited for long, the newest is served first, and the oldest get their
503. A thread that hangs is replaced. Idle threads are used last-in first-out, so that few of them keep a database
connection.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import os
import sys
import threading
import time
import traceback
from concurrent.futures import Executor, Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

from asgiref.sync import async_to_sync, sync_to_async
from django.db import close_old_connections

from .conf import conf
from .db import carrying, give_up_turn, managed_connections, seconds_until_close, state_of
from .log import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

P = ParamSpec("P")
T = TypeVar("T")

#: The part of ``POLICY_TIMEOUT`` that a function may wait for a thread before newer ones are served first.
_PATIENCE = 0.25

#: Threads for what runs after an answer; they start as they are needed, and each has a database connection. Receivers
#: of signals have their own: those that hang must not keep what is to be released at the end of a connection.
_BACKGROUND_THREADS = 4
_RECEIVER_THREADS = 4
#: Threads for what is asked again about open sockets: as many as there are sockets at once. A flood of handshakes must
#: not keep sockets open.
_OPEN_SOCKET_THREADS = 8

#: Whether the current code runs in a thread of a pool, or on the event loop on behalf of such a thread.
_in_pool: contextvars.ContextVar[bool] = contextvars.ContextVar("wsdeny_in_pool", default=False)
#: Whether the current code asks about an open socket again, since something has changed.
_is_about_open_socket: contextvars.ContextVar[bool] = contextvars.ContextVar("wsdeny_about_open_socket", default=False)
#: The thread that waits for the response to the current request, where a synchronous middleware holds one.
_held: contextvars.ContextVar[HeldThread[Any] | None] = contextvars.ContextVar("wsdeny_held", default=None)
_UNSET = object()


class _Job(NamedTuple):
    """A function that waits for a thread."""

    future: Future[Any]
    function: Callable[[], Any]
    submitted: float


class _Worker(threading.Thread):
    """A thread of a pool. It is a daemon: a policy that hangs must not keep the process from ending."""

    def __init__(self, pool: ThreadPool) -> None:
        super().__init__(name="wsdeny-pool", daemon=True)
        self._pool = pool
        self.inbox: SimpleQueue[_Job] = SimpleQueue()
        #: When the function that runs now has begun, in seconds of `time.monotonic`; None while there is none.
        self.began: float | None = None
        #: Whether another thread took its place, since it hangs.
        self.is_replaced = False

    def run(self) -> None:
        while self._run_next():  # A call of its own: an idle thread must not keep the last request alive.
            pass

    def _run_next(self) -> bool:
        job = self._wait()
        settle = _run(job.future, managed_connections()(job.function))
        # The thread is idle before the caller gets its result: a caller who asks at once for another thread gets this
        # one, with its database connection.
        goes_on = self._pool.finished(self)
        if settle is not None:
            settle()
        return goes_on

    def _wait(self) -> _Job:
        while True:
            try:
                return self.inbox.get(timeout=seconds_until_close())
            except Empty:  # pragma: no cover - in a process of its own, which has no transaction
                with suppress(Exception):  # protects the thread from a database that is gone
                    close_old_connections()


def _run(future: Future[Any], function: Callable[[], Any]) -> Callable[[], None] | None:
    """Run a function; returns what gives the future its result or exception, None if nothing waits for it."""
    if not future.set_running_or_notify_cancel():
        return None
    try:
        return functools.partial(future.set_result, function())
    except BaseException as error:  # the caller gets it
        return functools.partial(future.set_exception, error)


class ThreadPool(Executor):
    """At most `size` daemon threads, started as they are needed, each with managed database connections.

    A function that waits for a thread is dropped when its future is cancelled. One that has begun runs to its
    end, and its result is dropped. A thread whose function has run for longer than ``POLICY_TIMEOUT`` hangs: then
    nothing waits for it, and another one takes its place, for `size` threads at most.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._lock = threading.Lock()
        self._waiting: dict[Future[Any], _Job] = {}
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._replaced = 0

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in a thread. Raises `ConnectionError` if the system cannot start a first thread."""
        future: Future[T] = Future()
        job = _Job(future, functools.partial(function, *args, **kwargs), time.monotonic())
        hung = None
        with self._lock:
            if self._idle:
                self._give(self._idle.pop(), job)
            else:
                self._waiting[future] = job
                if len(self._busy) >= self.size:
                    hung = self._replace_hung(job.submitted)
                if len(self._busy) < self.size:
                    self._start_worker()
        if hung is not None:
            self._log(hung)
        future.add_done_callback(self._drop)
        return future

    def finished(self, worker: _Worker) -> bool:
        """Give a worker its next function, or note that it is idle; returns whether it goes on."""
        with self._lock:
            worker.began = None
            if worker.is_replaced:
                self._replaced -= 1
                return False
            self._busy.discard(worker)
            if self._waiting:
                self._give(worker, self._next())
            else:
                self._idle.append(worker)
        return True

    def _next(self) -> _Job:
        oldest = next(iter(self._waiting.values()))
        if time.monotonic() - oldest.submitted > _PATIENCE * conf.POLICY_TIMEOUT:
            return self._waiting.popitem()[1]
        return self._waiting.pop(oldest.future)

    def _give(self, worker: _Worker, job: _Job) -> None:
        worker.began = time.monotonic()
        self._busy.add(worker)
        worker.inbox.put(job)

    def _start_worker(self) -> None:
        worker = _Worker(self)
        try:
            worker.start()
        except RuntimeError as error:  # pragma: no cover - in a process of its own, whose memory is bounded
            if not self._busy:
                self._waiting.clear()
                raise ConnectionError("The pool cannot start a thread.") from error
        else:
            self._give(worker, self._next())

    def _replace_hung(self, now: float) -> _Worker | None:
        """Have a thread that hangs end with its function, if it ends; returns it."""
        if self._replaced >= self.size:
            return None
        longest = min(self._busy, key=lambda worker: worker.began or now)
        if longest.began is None or now - longest.began <= conf.POLICY_TIMEOUT:
            return None
        longest.is_replaced = True
        self._busy.discard(longest)
        self._replaced += 1
        return longest

    def _log(self, hung: _Worker) -> None:
        frame = sys._current_frames().get(hung.ident or 0)
        stack = "" if frame is None else "".join(traceback.format_stack(frame))
        logger.error(
            "A thread of the pool has run a policy, hook or session engine for more than POLICY_TIMEOUT (%s s). "
            "Another one takes its place (%d of at most %d). It is here:\n%s",
            *(conf.POLICY_TIMEOUT, self._replaced, self.size, stack),
        )

    def _drop(self, future: Future[Any]) -> None:
        if future.cancelled():
            with self._lock:
                self._waiting.pop(future, None)


@functools.cache
def _pool_for(purpose: str, size: int) -> ThreadPool:
    """The pool of this process for "handshakes", for "receivers" of signals, "background" work, or "open sockets"."""
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
    return await _run_in(_free_thread(), function)


def _free_thread() -> Executor:
    """The thread that the request holds, while it waits, else the pool: if all wait, none of the pool comes free."""
    if _is_about_open_socket.get():
        return _pool_for("open sockets", _OPEN_SOCKET_THREADS)
    held = _held.get()
    return held if held is not None and held.is_waiting else get_pool()


async def run_for_receivers(function: Callable[[], T]) -> T:
    """As `run_in_threadpool`, in the threads for receivers of signals."""
    return await _run_in(_pool_for("receivers", _RECEIVER_THREADS), function)


async def run_for_open_sockets(function: Callable[[], T]) -> T:
    """As `run_in_threadpool`, in the threads for what is asked again about open sockets."""
    return await _run_in(_pool_for("open sockets", _OPEN_SOCKET_THREADS), function)


def use_threads_of_open_sockets() -> None:
    """Have `run_in_threadpool` use those threads in this context."""
    _is_about_open_socket.set(True)


def submit_in_background(function: Callable[[], T]) -> Future[T]:
    """Run what follows an answer in a thread, without an event loop that waits for it; as `ThreadPool.submit`."""
    return _pool_for("background", _BACKGROUND_THREADS).submit(function)


async def run_in_django_thread(function: Callable[[], T]) -> T:
    """Run `function` in the thread of the request that Django itself uses, with its database connections."""
    return await sync_to_async(_contained(function), thread_sensitive=True)()


async def _run_in(pool: Any, function: Callable[[], T]) -> T:
    if _in_pool.get():
        return await run_in_django_thread(function)

    # A thread that the request holds has the state of the request's connections.
    state = {} if isinstance(pool, HeldThread) else state_of()

    def run() -> T:
        _in_pool.set(True)
        with carrying(state):
            return _contained(function)()

    try:
        return await sync_to_async(run, thread_sensitive=False, executor=pool)()
    finally:
        _in_pool.set(False)  # asgiref gives the contextvars of the thread back to the caller.


class HeldThread(Executor, Generic[T]):
    """A thread in which a function awaits a response; meanwhile it runs what is submitted, for the same request."""

    def __init__(self) -> None:
        #: Whether it waits, and takes jobs.
        self.is_waiting = False
        #: The arguments that the function has asked for a response with, and the contextvars that it has set.
        self.asked: asyncio.Future[tuple[tuple[Any, ...], dict[Any, Any]]] | None = None
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._before = contextvars.Context()
        self._answer: tuple[T | Exception, contextvars.Context] | None = None

    def submit(self, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Future[Any]:
        """Run a function in the thread."""
        future: Future[Any] = Future()
        self._jobs.put((future, functools.partial(function, *args, **kwargs)))
        return future

    # On the event loop

    async def run(self, function: Callable[..., T], executor: Any) -> tuple[T, contextvars.Context]:
        """What ``function(get_response)`` returns in a thread of `executor`, and the context that it leaves behind."""

        def run() -> T:
            _in_pool.set(True)
            self._before = contextvars.copy_context()
            return _contained(lambda: function(self.get_response))()

        result = await sync_to_async(run, thread_sensitive=False, executor=executor)()
        return result, contextvars.copy_context()

    async def resume(self, answer: T | Exception) -> None:
        """Have the function go on with the response, or the error. Raises `CancelledError` if it was given up."""
        if self.asked is None:
            raise asyncio.CancelledError

        def resume() -> None:
            self._answer = answer, contextvars.copy_context()

        self.is_waiting, thread = False, cast("Any", self)
        await sync_to_async(resume, thread_sensitive=False, executor=thread)()
        self._jobs.put(None)

    def end(self) -> None:
        """Give up: a function that waits for a response, or will ask for one, gets a `CancelledError`."""
        self.is_waiting, self.asked = False, None
        self._before = contextvars.Context()  # An open socket, whose context has this object, keeps nothing of it.
        self._jobs.put(None)

    async def _ask(self, arguments: tuple[Any, ...], changed: list[contextvars.ContextVar[Any]]) -> None:
        if self.asked is None:
            raise asyncio.CancelledError
        # asgiref has brought them here from the thread: its Locals belong to a thread.
        here = contextvars.copy_context()
        self.asked.set_result((arguments, {variable: here[variable] for variable in changed if variable in here}))

    # In the thread

    def get_response(self, *arguments: Any) -> T:
        """The response. Raises what getting it has raised, and `CancelledError` if the request was given up."""
        context = contextvars.copy_context()
        changed = [name for name, value in context.items() if self._before.get(name, _UNSET) is not value]
        async_to_sync(self._ask)(arguments, changed)
        self._work()
        if self._answer is None:
            raise asyncio.CancelledError
        (answer, context), self._answer = self._answer, None
        adopt_context(context)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _work(self) -> None:
        worker = threading.current_thread()
        while True:
            give_up_turn()
            if isinstance(worker, _Worker):
                worker.began = None  # It does not hang, however long the application takes to answer.
            job = self._jobs.get()
            if isinstance(worker, _Worker):
                worker.began = time.monotonic()
            if job is None:
                return
            settle = _run(*job)
            if settle is not None:
                settle()


async def run_around(
    thread: HeldThread[T], function: Callable[[Callable[..., T]], T], get_response: Callable[..., Awaitable[T]]
) -> T:
    """What `function` returns, a synchronous function around a request, called with a synchronous `get_response`.

    It holds one thread of the pool from its beginning to its end, as `thread`. `get_response` is awaited here, in the
    caller's task and context, with the contextvars and asgiref Locals that `function` has set so far; and while it is,
    that thread runs what the request runs by `run_in_threadpool`. Raises what `function` does.
    """
    thread.asked = asked = asyncio.get_running_loop().create_future()
    running = asyncio.ensure_future(thread.run(function, _free_thread()))
    around = _held.get()
    try:
        while True:
            await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                response, context = running.result()
                adopt_context(context)
                return response
            arguments, changed = asked.result()
            for variable, value in changed.items():
                variable.set(value)
            thread.asked = asked = asyncio.get_running_loop().create_future()
            thread.is_waiting = True
            _held.set(thread)
            answer: T | Exception
            try:
                answer = await get_response(*arguments)
            except Exception as error:  # the function gets it
                answer = error
            finally:
                _held.set(around)
            await thread.resume(answer)
            del answer
    finally:
        thread.end()
        if not running.cancel() and not running.cancelled():
            running.exception()  # Retrieved, so that asyncio does not log it.


def _contained(function: Callable[[], T]) -> Callable[[], T]:
    def run() -> T:
        try:
            return function()
        except (StopIteration, GeneratorExit, SystemExit, KeyboardInterrupt) as error:
            # A future cannot carry a StopIteration, a GeneratorExit would close the coroutines that wait for it, and
            # the others would end the server.
            raise RuntimeError(f"{function!r} raised {type(error).__name__}.") from error

    return run


def call_sync(function: Callable[[T], Any], argument: T) -> Any:
    """The result of `function(argument)` in a synchronous caller, also if it is awaitable."""
    result = function(argument)
    if not inspect.isawaitable(result):
        return result

    async def wait() -> Any:
        return await result

    return async_to_sync(wait)()


def run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never has to wait, as in synchronous callers without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError(f"{coroutine!r} had to wait in a synchronous caller.")


#: Contextvars that say where code runs.
_OF_A_THREAD: tuple[Any, ...] = (_in_pool, _held)


def adopt_context(context: contextvars.Context) -> Callable[[], None]:
    """Set the contextvars of `context` here as well; returns what gives back those that nothing has set since."""
    adopted: list[tuple[contextvars.ContextVar[Any], Any, contextvars.Token[Any]]] = []
    for variable, value in context.items():
        if variable not in _OF_A_THREAD and variable.get(_UNSET) is not value:
            adopted.append((variable, value, variable.set(value)))

    def give_back() -> None:
        for variable, value, token in adopted:
            if variable.get(_UNSET) is value:
                variable.reset(token)

    return give_back


def is_being_cancelled() -> bool:
    """Whether the current task itself is being cancelled, rather than something that it awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
