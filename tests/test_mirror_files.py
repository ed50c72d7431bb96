"""Files and streams in whose place a hook puts something: nothing is left open, nor closed early."""

from __future__ import annotations

import pytest
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import SimpleTemplateResponse

from channels_wsdeny import Deny
from channels_wsdeny.decorators import public, with_hooks

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators"),
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    with path.open("rb") as opened:
        yield opened


@pytest.fixture(params=["site", "view"])
def serve(request, site, hooks, file):
    """Serve a view that answers with `file`, with the hooks around the request, or around the view alone."""

    def serve():
        @public
        def view(request):
            return FileResponse(file)

        if request.param == "site":
            return site.serve(view, hooks=hooks)
        return site.serve(with_hooks(hooks)(view))

    return serve


def shouting(response):
    """A stream made of that of `response`."""

    def chunks(inner):
        for chunk in inner:
            yield chunk.upper()

    async def achunks(inner):
        async for chunk in inner:
            yield chunk.upper()

    make = achunks if response.is_async else chunks
    return StreamingHttpResponse(make(response.streaming_content))


@pytest.mark.parametrize(
    "answer", [lambda: HttpResponse(b"instead"), lambda: StreamingHttpResponse([b"instead"])]
)
def test_a_file_that_an_around_hook_replaces_is_closed(answer, serve, hooks, file):
    @hooks.around
    async def replace(request, call_next):
        await call_next(request)
        return answer()

    assert serve().ask().body == b"instead"
    assert file.closed


@pytest.mark.parametrize(("error", "status"), [(Deny, 403), (ZeroDivisionError, 500)])
def test_a_file_that_an_around_hook_raises_over_is_closed(error, status, serve, hooks, file):
    @hooks.around
    async def fail(request, call_next):
        await call_next(request)
        raise error

    assert serve().ask().status == status
    assert file.closed


def test_an_around_hook_may_make_a_stream_of_a_file(serve, hooks, file):
    @hooks.around
    async def shout(request, call_next):
        return shouting(await call_next(request))

    assert serve().ask().body == b"HELLO"
    assert file.closed


def test_a_response_hook_may_make_a_stream_of_a_file(serve, hooks, file):
    hooks.on_response(lambda request, response: shouting(response))
    assert serve().ask().body == b"HELLO"
    assert file.closed


def page_of(response):
    template = engines["django"].from_string("<pre>{% for line in lines %}{{ line }}{% endfor %}</pre>")
    return SimpleTemplateResponse(template, {"lines": (chunk.decode() for chunk in response.file_to_stream)})


def test_a_response_hook_may_render_a_template_from_a_file(serve, hooks, file):
    hooks.on_response(lambda request, response: page_of(response))
    assert serve().ask().body == b"<pre>hello</pre>"
    assert file.closed


def test_an_around_hook_may_render_a_template_from_a_file(serve, hooks, file):
    @hooks.around
    async def around(request, call_next):
        return page_of(await call_next(request))

    assert serve().ask().body == b"<pre>hello</pre>"
    assert file.closed


class Stream:
    """An iterator that cannot be closed."""

    def __iter__(self):
        return iter([b"hello"])

    def close(self):
        raise ZeroDivisionError


def replacing(hooks, instead):
    hooks.on_response(lambda request, response: instead())


def replacing_around(hooks, instead):
    @hooks.around
    async def replace(request, call_next):
        await call_next(request)
        return instead()


def failing_around(hooks, instead):
    @hooks.around
    async def fail(request, call_next):
        await call_next(request)
        raise Deny(response=instead())


@pytest.mark.parametrize("hook", [replacing, replacing_around, failing_around])
def test_a_stream_that_cannot_be_closed_is_replaced_all_the_same(hook, site, hooks):
    hook(hooks, lambda: HttpResponse(b"instead", status=403))
    site.serve(public(lambda request: StreamingHttpResponse(Stream())), hooks=hooks)
    answer = site.ask()
    assert (answer.status, answer.body) == (403, b"instead")
