"""Requests of routes: the request that came in, under a class that may read its body in another way."""

from __future__ import annotations

import json
import re
import zlib
from functools import lru_cache
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

from django.conf import settings
from django.core.exceptions import BadRequest, ImproperlyConfigured, RequestDataTooBig, TooManyFilesSent
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, RawPostDataException
from django.http.multipartparser import MultiPartParserError

from ..exceptions import Deny
from ..http import bodies

if TYPE_CHECKING:
    from collections.abc import Callable

_GZIP = {"gzip", "x-gzip"}  # RFC 9110 section 8.4.1.3
_MSGPACK = {"application/msgpack", "application/x-msgpack", "application/vnd.msgpack"}
_TOO_LARGE = "The body is too large, once it is unpacked."
#: Bytes that are given to zlib at once: what a member leaves of them is copied.
_STEP = 4096
#: Zeros that may follow a member, as Python's gzip takes them.
_PADDING = re.compile(rb"\0*")


class MalformedBody(Deny, BadRequest):
    """A body that is not what it says it is: a 400, also where nobody knows of `Deny`."""


class BodyTooLarge(Deny, RequestDataTooBig):
    """A body that is larger, once unpacked, than ``DATA_UPLOAD_MAX_MEMORY_SIZE``: a 413."""


class RouteRequest(HttpRequest):
    """What the view of a route gets: the request that came in, which is an instance of this class as well.

    Its attributes are those of the request that came in, both ways. A subclass may override `body` by a
    property that asks ``super().body``; `POST`, `FILES`, `json()` and `read()` follow it.
    """

    # Layouts of slots cannot be mixed, so subclasses keep what is their own, not shared, in this one.
    __slots__ = ("_own", "_received")
    _own: dict[str, Any]
    _received: HttpRequest

    @property
    def body(self) -> bytes:
        return self.raw_body

    @property
    def raw_body(self) -> bytes:
        """The body as it was received, also after a part of it was read.

        Raises `RequestDataTooBig` above ``DATA_UPLOAD_MAX_MEMORY_SIZE``, and `RawPostDataException` where
        others than a route began to read what cannot be rewound, as under WSGI.
        """
        state = vars(self)
        if "_body" not in state and state.get("_read_started"):
            if _is_seekable(state):
                state["_read_started"] = False  # Django seeks to its start.
            else:
                bodies.give_back(self)
        try:
            return self._received.body
        except RawPostDataException as error:
            raise RawPostDataException(
                f"{self!r} was read before its route got it. CsrfViewMiddleware does so with a multipart "
                "form, to find the token: if forms come compressed, let the view be csrf_exempt."
            ) from error

    def json(self) -> Any:
        """What the body says in JSON (RFC 8259). Raises `BadRequest` for anything else: a 400."""
        try:
            return json.loads(self.body, parse_constant=_not_in_json)
        except (ValueError, RecursionError) as error:
            raise MalformedBody(400, "The body is not JSON.") from error

    def replaces_body(self) -> bool:
        """Whether `body` may be another than `raw_body` on this request.

        A class that overrides `body` for some requests only should override this too: then uploads among
        the others are streamed, instead of being read as a whole.
        """
        state = vars(self)
        can_be_read = "_body" in state or not state.get("_read_started")
        return can_be_read or _is_seekable(state) or isinstance(state.get("_stream"), bodies.RecordingStream)

    def read(self, *args: Any, **kwargs: Any) -> bytes:
        """As a file's, of `body`."""
        return cast("bytes", self._reader().read(*args, **kwargs))

    def readline(self, *args: Any, **kwargs: Any) -> bytes:
        """As a file's, of `body`."""
        return cast("bytes", self._reader().readline(*args, **kwargs))

    def _reader(self) -> Any:
        if not _is_replaced(self):
            return self._received
        if "reader" not in self._own:
            self._own["reader"] = BytesIO(self.body)
        return self._own["reader"]

    def _load_post_and_files(self) -> None:
        if self.method != "POST" or not _is_replaced(self):
            super()._load_post_and_files()
            return
        body = self.body  # Now the raw one is read, so that Django parses a form from this.
        if self.content_type != "multipart/form-data":
            super()._load_post_and_files()
            return
        try:
            meta = {**self.META, "CONTENT_LENGTH": str(len(body))}
            self._post, self._files = self.parse_file_upload(meta, BytesIO(body))
        except (MultiPartParserError, TooManyFilesSent):
            self._mark_post_parse_error()  # type: ignore[attr-defined]
            raise


class GzipRequest(RouteRequest):
    """Unpacks a body that comes with ``Content-Encoding: gzip``, and leaves other requests alone.

    Not more than ``DATA_UPLOAD_MAX_MEMORY_SIZE`` bytes are unpacked: past that `body` raises a `Deny` of
    413, and for a broken or truncated one `BadRequest`. A CSRF token within a compressed form cannot be
    seen by Django's middleware: it has to come in the ``X-CSRFToken`` header.
    """

    def replaces_body(self) -> bool:
        """Whether the body came compressed."""
        named = self.headers.get("Content-Encoding", "").lower().split(",")
        codings = [coding for coding in map(str.strip, named) if coding not in {"", "identity"}]
        return len(codings) == 1 and codings[0] in _GZIP

    @property
    def body(self) -> bytes:
        if not GzipRequest.replaces_body(self):
            return super().body
        if "gzip" not in self._own:
            try:
                raw = super().body
            except RequestDataTooBig as error:
                raise BodyTooLarge(413, _TOO_LARGE) from error
            self._own["gzip"] = gunzip(raw, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
        return cast("bytes", self._own["gzip"])


class MsgpackRequest(RouteRequest):
    """Turns a msgpack body into JSON, and leaves requests of other content types alone.

    What JSON has no form for (binary strings, extension types, keys that are no strings, NaN) raises
    `BadRequest`, as a malformed body does. Needs the extra ``channels-wsdeny[msgpack]``.
    """

    def replaces_body(self) -> bool:
        """Whether the body came as msgpack."""
        return self.content_type in _MSGPACK

    @property
    def body(self) -> bytes:
        if not MsgpackRequest.replaces_body(self):
            return super().body
        if "msgpack" not in self._own:
            self._own["msgpack"] = _json_of_msgpack(super().body, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
        return cast("bytes", self._own["msgpack"])


def adopt(request: Any, request_class: Any) -> RouteRequest:
    """`request` as an instance of `request_class` too: another object, with the very same attributes."""
    if isinstance(request, request_class) and isinstance(request, RouteRequest):
        return request
    state = vars(request)
    received: Any = type(request)
    adopted: Any = object.__new__(_mixed(request_class, received))
    adopted.__dict__ = state
    adopted._received = request._received if isinstance(request, RouteRequest) else request
    adopted._own = {}
    state.pop("body", None)  # A cached_property of another request class.
    if not _is_seekable(state) and _may_be_kept(request):
        bodies.record(request)
    if "_post" in state and _is_replaced(adopted):
        HttpRequest.close(adopted)
        del state["_post"]
        state.pop("_files", None)
    return cast("RouteRequest", adopted)


def gunzip(packed: bytes, limit: int | None) -> bytes:
    """What `packed` (RFC 1952, of one or more members) holds: at most `limit` bytes, None for any number.

    Raises `BodyTooLarge` once there is one byte more than that, and `MalformedBody`.
    """
    unpacked = bytearray()
    position = 0
    while position < len(packed):
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        while not member.eof:
            step = packed[position : position + _STEP]
            if not step:
                raise MalformedBody(400, "The body is gzip that was cut off.")
            room = 0 if limit is None else limit - len(unpacked) + 1
            try:
                unpacked += member.decompress(step, room)
            except zlib.error as error:
                raise MalformedBody(400, "The body is not gzip, or broken.") from error
            if limit is not None and len(unpacked) > limit:
                raise BodyTooLarge(413, _TOO_LARGE)
            position += len(step) - len(member.unused_data)
        position = _PADDING.match(packed, position).end()  # type: ignore[union-attr]
    return bytes(unpacked)


def load_msgpack() -> Any:
    """The package ``msgpack``. Raises `ImproperlyConfigured` where it is not installed."""
    try:
        return import_module("msgpack")
    except ImportError as error:
        raise ImproperlyConfigured(
            "MsgpackRequest needs the package msgpack: pip install 'channels-wsdeny[msgpack]'."
        ) from error


def _json_of_msgpack(packed: bytes, limit: int | None) -> bytes:
    containers = 0

    def count(container: Any) -> Any:
        # An empty list takes 1 byte in msgpack, 3 in JSON and 56 of memory: no more of them than JSON has.
        nonlocal containers
        containers += 1
        if limit is not None and containers > limit // 3:
            raise BodyTooLarge(413, _TOO_LARGE)
        return container

    msgpack = load_msgpack()
    try:
        # Before anything is made of it: lists that say they are long, one within the other, took msgpack
        # before 1.2 seconds and gigabytes.
        unpacker = msgpack.Unpacker(max_buffer_size=len(packed))
        unpacker.feed(packed)
        unpacker.skip()
        data = msgpack.unpackb(packed, object_hook=count, list_hook=count)
        return json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError, msgpack.OutOfData) as error:
        raise MalformedBody(400, "The body is not msgpack, or has no form in JSON.") from error


def _not_in_json(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON.")


def _is_seekable(state: dict[str, Any]) -> bool:
    seekable = getattr(state.get("_stream"), "seekable", None)
    return seekable is not None and seekable()


def _may_be_kept(request: HttpRequest) -> bool:
    """Whether the body, by what it says of itself, may be kept in memory while it is read."""
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    if limit is None:
        limit = settings.FILE_UPLOAD_MAX_MEMORY_SIZE
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0) <= limit
    except ValueError:
        return False


def _is_replaced(request: Any) -> bool:
    """Whether some class of `request` has another body for it than the one that came in."""
    cls: Any = type(request)
    return any(replaces(request) for replaces in _replacing(cls))


@lru_cache(maxsize=256)
def _replacing(cls: Any) -> tuple[Callable[[RouteRequest], bool], ...]:
    """For each class with a body of its own, what tells whether it has one for a request."""
    return tuple(
        vars(base).get("replaces_body", RouteRequest.replaces_body)
        for base in cls.__mro__
        if "body" in vars(base) and base not in {RouteRequest, HttpRequest}
    )


@lru_cache(maxsize=256)
def _mixed(request_class: Any, received: Any) -> type[Any]:
    """A class that is both, the first one first."""
    for server in (WSGIRequest, ASGIRequest):
        if issubclass(request_class, server) and not issubclass(received, server):
            raise TypeError(
                f"The request_class {request_class!r} is a {server.__name__}, the request that came a "
                f"{received.__name__}. Derive the class from RouteRequest, which goes with both."
            )
    bases = [] if issubclass(received, request_class) else [request_class]
    if not any(issubclass(base, RouteRequest) for base in (*bases, received)):
        bases.append(RouteRequest)
    name = request_class.__name__
    return type(name, (*bases, received), {"__module__": request_class.__module__, "__qualname__": name})
