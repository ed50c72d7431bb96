"""The response of an ASGI app over HTTP, as hooks see it: its status and headers, and its body to come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from django.http import StreamingHttpResponse

from ..http import messages as emitter
from ..http.appdenial import take_headers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ..types import Message, RawHeaders, Send


#: Django's own property of this name.
_CONTENT: Any = vars(StreamingHttpResponse)["streaming_content"]


_NOT_YET = (
    "The body of this response is not there yet: the application has only begun to answer. "
    "Wrap response.streaming_content instead of reading it in the hook."
)


class AppStream(StreamingHttpResponse):
    """A streaming response over the messages of an application, which buffers nothing.

    Hooks see it before there is any body, and may wrap its ``streaming_content``. As long as nobody does,
    the application's messages pass straight through.
    """

    def __init__(self, status: int, headers: RawHeaders) -> None:
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)
        self._pump: asyncio.Task[None] | None = None
        super().__init__(self._iterate(), status=status)
        take_headers(self, headers)
        #: Whether a hook has put something else in the place of the application's body.
        self.is_rewritten = False

    @property
    def streaming_content(self) -> Any:
        """The body to come, as Django's own attribute of this name."""
        return super().streaming_content

    @streaming_content.setter
    def streaming_content(self, value: Any) -> None:
        _CONTENT.__set__(self, value)
        self.is_rewritten = True

    def getvalue(self) -> bytes:
        """Raises `RuntimeError`: the body is still to come."""
        raise RuntimeError(_NOT_YET)

    def open(self, send: Send, on_failure: Callable[[], None]) -> None:
        """Send the body as the hooks rewrote it: what the application says from now on is what they read.

        `on_failure` is called if that fails, for the application may have nothing to say for long.
        """

        def look(pump: asyncio.Task[None]) -> None:
            if not pump.cancelled() and pump.exception() is not None:
                on_failure()

        self._pump = asyncio.create_task(emitter.send_body(self, send))
        self._pump.add_done_callback(look)

    @property
    def failure(self) -> BaseException | None:
        """What made sending the body fail, if it has."""
        pump = self._pump
        return pump.exception() if pump is not None and pump.done() and not pump.cancelled() else None

    async def feed(self, message: Message) -> None:
        """Take a body message of the application. Raises what the hooks' iterators and the server raise."""
        pump = self._pump
        if pump is None:
            raise RuntimeError("The response has not been opened.")
        last = not message.get("more_body")
        for chunk in (message.get("body", b""), *([None] if last else [])):
            if chunk == b"":
                continue
            putting = asyncio.ensure_future(self._chunks.put(chunk))
            try:
                await asyncio.wait({putting, pump}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                putting.cancel()
            if pump.done():  # They do not want to read on.
                break
        if last or pump.done():
            await pump

    def abandon(self) -> None:
        """The application is gone: nothing more will come."""
        if self._pump is not None:
            self._pump.cancel()

    async def _iterate(self) -> AsyncIterator[bytes]:
        if self._pump is None:
            raise RuntimeError(_NOT_YET)
        while (chunk := await self._chunks.get()) is not None:
            yield chunk
