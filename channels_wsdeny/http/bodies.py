"""Bodies of requests, kept while they are read: who explains an exception may want to see them again.

At most ``DATA_UPLOAD_MAX_MEMORY_SIZE`` bytes are kept; past that, reading again is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import UnreadablePostError

if TYPE_CHECKING:
    from django.http import HttpRequest


class Record:
    """What was read of a body so far."""

    __slots__ = ("_chunks", "is_lost", "is_too_big", "size")

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self.size = 0
        #: Whether some of it was read before anybody kept it.
        self.is_lost = False
        #: Whether there was more than may be kept; then nothing is.
        self.is_too_big = False

    def add(self, chunk: bytes) -> None:
        """Take what was read next."""
        if self.is_too_big:
            return
        self.size += len(chunk)
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if limit is not None and self.size > limit:
            self.is_too_big = True
            self._chunks.clear()
        else:
            self._chunks.append(chunk)

    def lose(self) -> None:
        """Some of the body was read without being kept: then none of it is the body."""
        self.is_lost = True
        self._chunks.clear()

    def give_back(self, request: HttpRequest) -> None:
        """Let `request.body` be what was kept.

        Reading it raises `RequestDataTooBig` if that was too much, `UnreadablePostError` if it is not all.
        """
        own = vars(request)
        if self.is_lost:
            own["_stream"] = _Lost()
            own["_read_started"] = False
        elif self.is_too_big:
            own["_stream"] = _TooBig()
            own["_read_started"] = False
        else:
            own["_body"] = b"".join(self._chunks)


class RecordingStream:
    """The stream of a Django request that keeps what is read from it."""

    def __init__(self, stream: Any) -> None:
        self.record = Record()
        self._stream = stream

    def read(self, *args: Any, **kwargs: Any) -> bytes:
        """As the stream's own."""
        return self._kept(self._stream.read(*args, **kwargs))

    def readline(self, *args: Any, **kwargs: Any) -> bytes:
        """As the stream's own."""
        return self._kept(self._stream.readline(*args, **kwargs))

    def read_on(self) -> None:
        """Read what is left, as far as it may be kept; blocks."""
        while not self.record.is_too_big and self.read(64 * 1024):
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _kept(self, chunk: bytes) -> bytes:
        self.record.add(chunk)
        return chunk


def record(request: HttpRequest) -> None:
    """Keep what will be read of the body of a Django request."""
    own = vars(request)
    stream = own.get("_stream")
    if stream is None or isinstance(stream, RecordingStream) or "_body" in own or own.get("_read_started"):
        return
    own["_stream"] = RecordingStream(stream)


def give_back(request: HttpRequest) -> None:
    """Let ``request.body`` be readable again, if it was kept while it was read; blocks."""
    own = vars(request)
    stream = own.get("_stream")
    if isinstance(stream, RecordingStream) and "_body" not in own and own.get("_read_started"):
        try:
            stream.read_on()
        except Exception:  # noqa: BLE001 - the client has gone; the hooks are told when they look at the body
            stream.record.lose()
        stream.record.give_back(request)


class _Lost:
    """Stands for a body that was read before anybody kept it."""

    def read(self, *args: Any) -> bytes:
        raise UnreadablePostError("The body of this request was read already, and cannot be read again.")

    readline = read

    def seekable(self) -> bool:
        return False

    def close(self) -> None: ...


class _TooBig:
    """Stands for a body that was not kept."""

    def read(self, *args: Any) -> bytes:
        raise RequestDataTooBig(
            "The body of this request was read already, and had more than DATA_UPLOAD_MAX_MEMORY_SIZE "
            f"({settings.DATA_UPLOAD_MAX_MEMORY_SIZE}) bytes, so it was not kept."
        )

    readline = read

    def seekable(self) -> bool:
        return False

    def close(self) -> None: ...
