"""Request classes of routes: the request that came in, its body read before the view, and perhaps decoded."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from functools import lru_cache
from importlib import import_module
from io import BytesIO
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import BadRequest, RequestDataTooBig
from django.http import HttpRequest, RawPostDataException

from ..exceptions import Deny

_GZIP = {"gzip", "x-gzip"}  # RFC 9110 section 8.4.1.3
_MSGPACK = {"application/msgpack", "application/x-msgpack", "application/vnd.msgpack"}
_TOO_LARGE = "The body is too large."


class MalformedBody(Deny, BadRequest):
    """A body that cannot be decoded: a denial with 400, and Django's `BadRequest`."""


class BodyTooLarge(Deny, RequestDataTooBig):
    """A body larger than ``DATA_UPLOAD_MAX_MEMORY_SIZE``, as received or decoded: a denial with 413."""


class RouteRequest(HttpRequest):
    """The request of a route's view: the request that came in, made an instance of this class.

    A subclass changes the body by overriding the property `body`, which may read ``super().body``. It is read
    once, before the view; `POST`, `FILES`, `read()` and `json()` follow it. See `replaces_body`.
    """

    #: The body as it was received. None for one that stays a stream, because it is larger than
    #: ``DATA_UPLOAD_MAX_MEMORY_SIZE`` (or if that is None, than ``FILE_UPLOAD_MAX_MEMORY_SIZE``).
    raw_body: bytes | None = None

    def replaces_body(self) -> bool:
        """Whether the property `body` of the same class changes the body of this request.

        A class that overrides `body` for some requests overrides this as well, so that large bodies of the
        others are not read into memory. For `body` without it, the answer is True.
        """
        return True

    def json(self) -> Any:
        """The body, parsed as JSON (RFC 8259). Raises `MalformedBody`, a 400, for anything else."""
        try:
            return json.loads(self.body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise MalformedBody(400, "The body is not JSON.") from error


class GzipRequest(RouteRequest):
    """A request whose body is unpacked if it comes with ``Content-Encoding: gzip``.

    At most ``DATA_UPLOAD_MAX_MEMORY_SIZE`` bytes are unpacked: larger bodies are answered by 413, broken ones
    by 400. CsrfViewMiddleware cannot find a token in a compressed form: it has to come in ``X-CSRFToken``.
    """

    def replaces_body(self) -> bool:
        """Whether the body is compressed."""
        named = self.headers.get("Content-Encoding", "").lower().split(",")
        codings = [coding for coding in map(str.strip, named) if coding not in {"", "identity"}]
        return len(codings) == 1 and codings[0] in _GZIP

    @property
    def body(self) -> bytes:
        """The unpacked body."""
        return gunzip(super().body) if GzipRequest.replaces_body(self) else super().body


class MsgpackRequest(RouteRequest):
    """A request whose body is turned into JSON if it comes as msgpack.

    Malformed msgpack is answered by 400, and so is what JSON cannot represent: binary strings, extension
    types, keys that are no strings, NaN. Needs the extra ``channels-wsdeny[msgpack]``.
    """

    def replaces_body(self) -> bool:
        """Whether the body is msgpack."""
        return self.content_type in _MSGPACK

    @property
    def body(self) -> bytes:
        """The body as JSON."""
        return _json_of_msgpack(super().body) if MsgpackRequest.replaces_body(self) else super().body


def adopt(request: HttpRequest, request_class: Any) -> RouteRequest:
    """Make `request` an instance of `request_class`, a subclass of `RouteRequest`, with the body of that class.

    Raises what decoding the body does: `BodyTooLarge`, `MalformedBody`, or `RawPostDataException` for one
    that was read as a stream before. The request keeps its class then, so that a second try decodes again.
    """
    if isinstance(request, request_class):
        return cast("RouteRequest", request)
    received: Any = type(request)
    mixed = _mixed(request_class, received)
    request.__class__ = mixed
    adopted = cast("RouteRequest", request)
    try:
        is_replaced = _replaces_body(adopted, request_class)
        if adopted.raw_body is None:
            _read_body(adopted, is_required=is_replaced)
        if is_replaced:
            # `mixed` has Django's `body`; `request_class` comes after it in the method resolution order.
            _set_body(adopted, super(mixed, adopted).body)
    except BaseException:
        request.__class__ = received
        raise
    return adopted


def _replaces_body(request: RouteRequest, request_class: type[HttpRequest]) -> bool:
    """Ask each class that overrides `body` whether it changes that of `request`."""
    return any(
        vars(cls).get("replaces_body", RouteRequest.replaces_body)(request)
        for cls in request_class.__mro__
        if "body" in vars(cls) and cls is not HttpRequest
    )


def _read_body(request: RouteRequest, *, is_required: bool) -> None:
    """Read the body into memory, so that it can be read again after the view. A large one stays a stream."""
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    if limit is None and not is_required:
        limit = settings.FILE_UPLOAD_MAX_MEMORY_SIZE
    size = _rewind(request)
    if size is not None and (limit is None or size <= limit):
        request.raw_body = request.body
    elif is_required and size is not None:
        raise BodyTooLarge(413, _TOO_LARGE)
    elif is_required:
        raise RawPostDataException(
            f"{type(request).__name__} changes the body, which was read as a stream before the route. Under "
            "WSGI, CsrfViewMiddleware does so with multipart forms: leave them alone in replaces_body(), or, "
            "if the view does not rely on cookies, let it be csrf_exempt."
        )


def _rewind(request: RouteRequest) -> int | None:
    """Go to the start of the body and return its size in bytes; None if it cannot be read from there."""
    own, declared = vars(request), str(request.META.get("CONTENT_LENGTH") or 0)
    if "_body" in own:
        return 0  # It is in memory already.
    if "_stream" not in own or not declared.isdecimal():
        return None
    stream = own["_stream"]
    if hasattr(stream, "seekable") and stream.seekable():
        # Under ASGI, Django has received the body into a file. A chunked body declares no length.
        size: int = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        own["_read_started"] = False
        return max(size, int(declared))
    return None if own["_read_started"] else int(declared)


def _set_body(request: RouteRequest, body: bytes) -> None:
    """Make `body` what Django reads and parses from now on."""
    request.close()  # the files of a form that was parsed from another body
    own = vars(request)
    for computed in ("body", "_post", "_files"):  # the first by a cached_property
        own.pop(computed, None)
    own.update(_body=body, _stream=BytesIO(body))
    # The parser of multipart forms reads that many bytes. Under WSGI, META is the dict of the server.
    request.META = {**request.META, "CONTENT_LENGTH": str(len(body))}


@lru_cache(maxsize=256)
def _mixed(request_class: Any, received: Any) -> Any:
    """A class that derives from `request_class` and `received`, the class of the request that came in."""
    return type(request_class.__name__, (request_class, received), {"body": HttpRequest.body})


def gunzip(packed: bytes) -> bytes:
    """What `packed` (RFC 1952, one or more members) contains.

    Raises `BodyTooLarge` at the first byte beyond ``DATA_UPLOAD_MAX_MEMORY_SIZE``, and `MalformedBody` for
    anything but gzip.
    """
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    try:
        with gzip.GzipFile(fileobj=BytesIO(packed)) as file:
            unpacked = file.read(-1 if limit is None else limit + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise MalformedBody(400, "The body is not gzip, or broken.") from error
    if limit is not None and len(unpacked) > limit:
        raise BodyTooLarge(413, _TOO_LARGE)
    return unpacked


def _json_of_msgpack(packed: bytes) -> bytes:
    limit, containers = settings.DATA_UPLOAD_MAX_MEMORY_SIZE, 0

    def count(container: Any) -> Any:
        # An empty list takes 1 byte in msgpack, 3 in JSON and 56 in memory: not more than JSON could have.
        nonlocal containers
        containers += 1
        if limit is not None and containers > limit // 3:
            raise BodyTooLarge(413, _TOO_LARGE)
        return container

    msgpack = import_module("msgpack")
    try:
        # Skip it before making objects of it: msgpack before 1.2 took seconds and gigabytes for nested lists
        # that declare to be long.
        unpacker = msgpack.Unpacker(max_buffer_size=len(packed))
        unpacker.feed(packed)
        unpacker.skip()
        data = msgpack.unpackb(packed, object_hook=count, list_hook=count)
        return json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError, msgpack.OutOfData) as error:
        raise MalformedBody(400, "The body is not msgpack, or has no form in JSON.") from error


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON.")
