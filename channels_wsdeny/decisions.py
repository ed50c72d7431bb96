"""What a policy decides, and where a decision in the making wants to run.

Deciding is written once, as generators: they yield a `Step` (or a function that returns an awaitable)
where they want to run somewhere else, and `channels_wsdeny.drivers` takes them there. So one body of
code serves the event loop, a thread of the pool and a synchronous view.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from django.http.response import HttpResponseBase

from .exceptions import Deny

T = TypeVar("T")


class Allowed(enum.Enum):
    """The one value that opens a door; a forgotten return (None) is not it."""

    ALLOWED = "allowed"


ALLOWED: Literal[Allowed.ALLOWED] = Allowed.ALLOWED


class Raised(NamedTuple):
    """What was raised on the way: hooks may take it, and then it is what the table of statuses says."""

    error: Exception


Denial: TypeAlias = Deny | HttpResponseBase
Decision: TypeAlias = Literal[Allowed.ALLOWED] | Denial
#: What a door refuses for, and what it is told on the way in.
Cause: TypeAlias = Denial | Raised
Verdict: TypeAlias = Literal[Allowed.ALLOWED] | Cause


class Step(enum.Enum):
    """Where the code after this yield may run."""

    #: It may block: in a thread that may wait (the reply carries nothing).
    BLOCKING = "blocking"
    #: It can do both; the reply says whether it runs where it may block.
    EITHER = "either"


#: A function whose awaitable the event loop awaits. The function, not the awaitable, crosses threads:
#: a coroutine made in a thread that everybody gave up on would never be awaited.
OnLoop: TypeAlias = Callable[[], Awaitable[Any]]
Steps: TypeAlias = Generator[Step | OnLoop, Any, T]
