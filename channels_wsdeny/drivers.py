"""Drivers take a decision in the making (`decisions.Steps`) to where it wants to run.

On the event loop, everything between two awaitables that may block shares one hop to a thread: the
generator itself is resumed there and stays until it is done or needs the loop again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

from asgiref.sync import async_to_sync

from .decisions import OnLoop, Step, Steps

T = TypeVar("T")

#: Runs a function in a thread that may block.
Hop: TypeAlias = Callable[[Callable[[], Any]], Awaitable[Any]]

_Resume: TypeAlias = Callable[[], Step | OnLoop]


class Done:
    """The result of steps that came to their end in a thread."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _advance_in_thread(steps: Steps[Any]) -> OnLoop | Done:
    """Resume `steps` here, where they may block, until they need the loop or are done."""
    try:
        step = next(steps)
        while isinstance(step, Step):
            step = steps.send(True)
    except StopIteration as stop:
        return Done(stop.value)
    return step


def advance(steps: Steps[T]) -> Step | OnLoop | Done:
    """Resume `steps` on the event loop until they want to run somewhere else, or are done."""
    try:
        step = next(steps)
        while step is Step.EITHER:
            step = steps.send(False)
    except StopIteration as stop:
        return Done(stop.value)
    return step


async def drive(steps: Steps[T], hop: Hop, step: Step | OnLoop | Done | None = None) -> T:
    """Drive `steps` from the event loop, blocking stretches through `hop`; returns their result.

    `step` is where `advance` has brought them.
    """
    resume: _Resume = steps.__next__
    try:
        while True:
            if step is None:
                step = resume()
            if step is Step.EITHER:
                resume, step = _sending(steps, False), None
                continue
            if step is Step.BLOCKING:
                step = await hop(lambda: _advance_in_thread(steps))
            if isinstance(step, Done):
                result: T = step.value
                return result
            try:
                reply = await step()  # type: ignore[operator]
            except Exception as error:  # noqa: BLE001 - it goes to where the awaitable was asked for
                resume = _throwing(steps, error)
            else:
                resume = _sending(steps, reply)
            step = None
    except StopIteration as stop:
        finished: T = stop.value
        return finished


def drive_sync(steps: Steps[T]) -> T:
    """Drive `steps` in a synchronous caller, such as a view under WSGI; returns their result."""
    resume: _Resume = steps.__next__
    try:
        while True:
            step = resume()
            if isinstance(step, Step):
                resume = _sending(steps, True)
                continue
            try:
                reply = async_to_sync(_await)(step)
            except Exception as error:  # noqa: BLE001 - it goes to where the awaitable was asked for
                resume = _throwing(steps, error)
            else:
                resume = _sending(steps, reply)
    except StopIteration as stop:
        result: T = stop.value
        return result


def is_being_cancelled() -> bool:
    """Whether it is this task that somebody wants to end, rather than something that it awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _sending(steps: Steps[Any], reply: Any) -> _Resume:
    return lambda: steps.send(reply)


def _throwing(steps: Steps[Any], error: Exception) -> _Resume:
    return lambda: steps.throw(error)


async def _await(on_loop: OnLoop) -> Any:
    return await on_loop()
