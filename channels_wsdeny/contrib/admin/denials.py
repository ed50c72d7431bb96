"""The recent denials of all processes, in one entry of the site's cache.

They are read from the records of the package's log: a receiver of `handshake_denied` would have every denial built
anew that is otherwise sent as it was encoded before. A thread writes them to the cache, once a second at most.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from django.core.cache import caches

from ...concurrency import submit_in_background
from ...db import get_cache
from ...log import warn_once
from ...routes.redaction import without_secrets

if TYPE_CHECKING:
    import logging
    from concurrent.futures import Future

_KEY = "channels_wsdeny.admin.denials"
#: Denials that are kept, and characters of each of their texts.
_KEPT, _LONGEST = 200, 200
#: Seconds that they are kept in the cache, and seconds between two writes of a process.
_TIMEOUT, _PAUSE = 86400, 1.0
#: Writes after the last denial, while the cache does not have what was written.
_REPEATS = 5


class Denied(NamedTuple):
    """A denial; a text is empty where nothing is known. Newer ones are greater."""

    time: float
    status: int
    code: str
    path: str
    user: str
    policy: str


class RecentDenials:
    """The denials that this process has noted, and those in the cache."""

    def __init__(self) -> None:
        self._own: deque[Denied] = deque(maxlen=_KEPT)
        #: What begins the next write, and the last one that was begun.
        self._timer: threading.Timer | None = None
        self._writing: Future[None] | None = None
        #: How many more times a write is followed by another.
        self._repeats = 0

    def add(self, denied: Denied) -> None:
        """Note a denial, and have it written in a moment. From any thread; does not block."""
        self._own.append(denied)
        self._repeats = _REPEATS
        self._write_later()

    def _write_later(self) -> None:
        timer = self._timer  # Other threads may change it meanwhile.
        if timer is None or not timer.is_alive():  # The timer of a parent process is not.
            self._timer = timer = threading.Timer(_PAUSE, self._begin_write)
            timer.daemon = True
            timer.start()

    def _begin_write(self) -> None:
        self._timer = None
        if self._writing is None or self._writing.done():  # A cache that hangs may keep one thread, not all of them.
            with suppress(ConnectionError):  # The system has no thread left.
                self._writing = submit_in_background(self.write)

    def write(self) -> None:
        """Add to the cache what this process has noted, again in a moment if it was not there yet.

        Of two processes that write at once, the entry of one is lost: the next write finds it missing.
        """
        try:
            cache = get_cache("default")
            stored = cache.get(_KEY)
            merged = [tuple(each) for each in self._merged(stored)]
            if merged == [tuple(each) for each in stored or ()]:
                return
            cache.set(_KEY, merged, _TIMEOUT)
        except Exception as error:  # A cache may raise anything; the next denial tries again.
            warn_once(f"Recent denials cannot be written to the cache ({type(error).__name__}).")
            return
        if self._repeats:
            self._repeats -= 1
            self._write_later()

    def read(self) -> list[Denied]:
        """The denials of all processes, the newest first. Raises what the cache raises."""
        return self._merged(caches["default"].get(_KEY))

    def own(self) -> list[Denied]:
        """Those of this process."""
        return self._merged(None)

    def _merged(self, stored: Any) -> list[Denied]:
        return sorted({*(Denied(*each) for each in stored or ()), *self._own}, reverse=True)[:_KEPT]


recent = RecentDenials()


def note(record: logging.LogRecord) -> bool:
    """Note the denial that a record of the package's log tells of; a filter that keeps all records."""
    told = vars(record)
    if "code" in told and "report_only" not in told:
        with suppress(Exception):  # protects the log, and so the denial
            user = "" if told["user"] is None else str(told["user"])
            texts = (told["code"], without_secrets(told["path"]), user, told["policy"] or "")
            recent.add(Denied(record.created, told["status"], *(text[:_LONGEST] for text in texts)))
    return True
