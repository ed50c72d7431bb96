"""The content of a denial, as a whole: templates rendered, streams and files read up to a bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.http import HttpResponse

from ..conf import conf
from ..decisions import Step, Steps
from .languages import language_of

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase


def render(request: HttpRequest, response: HttpResponseBase) -> Steps[HttpResponseBase]:
    """`response` with its template rendered, if it has one, in the visitor's language."""
    if not getattr(response, "is_rendered", True):
        yield Step.BLOCKING
        with language_of(request):
            response = response.render()  # type: ignore[attr-defined]
    return response


def read(response: HttpResponseBase) -> Steps[HttpResponse]:
    """`response` as a whole: streams and files are read up to ``MAX_DENIAL_BODY``.

    Raises `ValueError` for a larger body.
    """
    if response.streaming:
        response = yield from _read_stream(response)
    assert_size(len(response.content))  # type: ignore[attr-defined]
    return response  # type: ignore[return-value]


def close(response: HttpResponseBase) -> Steps[None]:
    """Close a response that will not be sent, if it holds anything open."""
    if response.streaming:
        yield Step.BLOCKING  # Closing fires request_finished, whose receivers expect to block.
        response.close()


def discard(response: HttpResponseBase, successor: HttpResponseBase | None = None) -> Steps[None]:
    """Let go of what `response` holds open, for `successor` goes out instead, while the request goes on.

    A successor that is a stream, or a template still to be rendered, may be made of the other's stream: then
    that is closed with it.
    """
    closers: list[Any] = response._resource_closers  # type: ignore[attr-defined]
    if not response.streaming or not closers or response is successor:
        return
    if successor is not None and (successor.streaming or not getattr(successor, "is_rendered", True)):
        successor._resource_closers.extend(closers)  # type: ignore[attr-defined]
        return
    yield Step.BLOCKING
    for close_resource in closers:
        try:
            close_resource()
        except Exception:  # noqa: BLE001, S110 - as Django's own `close`
            pass


def assert_size(size: int) -> None:
    """Raise `ValueError` for a denial's body of more than ``MAX_DENIAL_BODY`` bytes."""
    limit = conf.MAX_DENIAL_BODY
    if size > limit:
        raise ValueError(
            f"The body of a denial has more than {limit} bytes. "
            "Send less, or raise CHANNELS_WSDENY['MAX_DENIAL_BODY']."
        )


def _read_stream(response: Any) -> Steps[HttpResponse]:
    chunks: list[bytes] = []
    size = 0

    def add(chunk: Any) -> None:
        nonlocal size
        chunks.append(response.make_bytes(chunk))
        size += len(chunks[-1])
        assert_size(size)

    async def read_on_loop() -> None:
        async for chunk in response:
            add(chunk)

    failure: Exception | None = None
    try:
        if response.is_async:
            yield read_on_loop
        else:
            yield Step.BLOCKING
            for chunk in response:
                add(chunk)
    except GeneratorExit:
        response.close()  # Given up: nobody takes us to a thread any more.
        raise
    except Exception as error:  # noqa: BLE001 - raised again, once the response is closed
        failure = error
    yield from close(response)
    if failure is not None:
        raise failure
    whole = HttpResponse(b"".join(chunks), status=response.status_code, headers=dict(response.items()))
    whole.cookies = response.cookies
    return whole
