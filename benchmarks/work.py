"""What runs in the process of a worker: it makes its cases ready, then takes its turns when it is told to.

One line of JSON comes in for each turn, one goes out for each; see `benchmarks.workers` for the other end.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import random
import sys
from typing import Any

from .answers import Wrong
from .cases import missing, task_of


def main() -> None:
    """Work until standard input ends."""
    # What a framework prints must not come between the replies.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(**content: Any) -> None:
        print(json.dumps(content), file=replies, flush=True)

    with asyncio.Runner() as runner:
        try:
            cases = json.loads(sys.argv[1])
            absent = {name: lacking for name, case in cases.items() if (lacking := missing(case["needs"]))}
            tasks = {name: task_of(case) for name, case in cases.items() if name not in absent}
            for task in tasks.values():
                _run(runner, task.verify)
            reply(absent=absent)
            for line in sys.stdin:
                reply(samples=_turn(runner, tasks, json.loads(line)["seconds"]))
        except Wrong as error:
            reply(wrong=str(error))


def _turn(runner: asyncio.Runner, tasks: dict[str, Any], seconds: float) -> dict[str, Any]:
    """One turn: every task for so many seconds, in random order."""
    samples = {}
    for name in random.sample([*tasks], len(tasks)):
        gc.collect()
        samples[name] = _run(runner, tasks[name].turn, seconds)
    return samples


def _run(runner: asyncio.Runner, function: Any, *args: Any) -> Any:
    """`function`, on the loop if it is a coroutine function."""
    return runner.run(function(*args)) if inspect.iscoroutinefunction(function) else function(*args)


if __name__ == "__main__":
    main()
