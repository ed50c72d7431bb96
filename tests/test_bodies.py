"""The bodies of requests, which hooks for exceptions see again after a view has read them."""

from __future__ import annotations

import json

import pytest
from django.core.exceptions import RequestDataTooBig
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import Http404, HttpResponse, JsonResponse, RawPostDataException, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart
from django.urls import path

from channels_wsdeny import Deny, Hooks
from channels_wsdeny.decorators import public, with_hooks
from tests.mirror import DOORS, Middleware, Site, hello

pytestmark = pytest.mark.django_db

FORM = "application/x-www-form-urlencoded"
LIMIT = 100_000


class Lost(Exception):
    pass


@pytest.fixture(params=DOORS)
def site(request, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = LIMIT
    return Site(settings, DOORS[request.param]())


@pytest.fixture
def repeats(hooks):
    """Hooks that answer an exception with the body of the request."""

    @hooks.on_exception
    def repeat(request, error):
        return HttpResponse(request.body, headers={"X-Error": type(error).__name__})

    return hooks


def multipart(**fields):
    return encode_multipart(BOUNDARY, fields)


def after(read):
    """A view that fails once it has read something."""

    def view(request):
        read(request)
        raise Lost

    return view


READINGS = {
    "nothing": lambda request: None,
    "body": lambda request: request.body,
    "read": lambda request: request.read(),
    "a-part": lambda request: request.read(2),
    "none-of-it": lambda request: request.read(0),
    "a-line": lambda request: request.readline(),
    "a-part-of-a-line": lambda request: request.readline(3),
    "lines": lambda request: request.readlines(),
    "one-of-the-lines": lambda request: next(iter(request)),
    "part-by-part": lambda request: [request.read(3) for _ in range(9)],
    "form": lambda request: request.POST,
    "json": lambda request: json.loads(request.body),
}


@pytest.mark.parametrize("read", READINGS.values(), ids=READINGS)
def test_a_hook_sees_the_body_that_a_view_has_read(site, repeats, read):
    body = b'{\n"key":\n"value"\n}\n'
    assert site.serve(after(read), hooks=repeats).post(body).body == body


@pytest.mark.parametrize("read", READINGS.values(), ids=READINGS)
def test_a_hook_sees_the_body_of_a_request_without_one(site, repeats, read):
    answer = site.serve(public(after(read)), hooks=repeats).ask()
    assert (answer.status, answer.body) == (200, b"")


def test_a_hook_sees_the_form_that_a_view_has_read(site, repeats):
    answer = site.serve(after(lambda request: request.POST["a"]), hooks=repeats).post(
        b"a=1&b=2", Content_Type=FORM
    )
    assert answer.body == b"a=1&b=2"


def test_a_hook_sees_the_uploads_that_a_view_has_read(site, repeats):
    body = multipart(a="1", file=SimpleUploadedFile("a.bin", bytes(range(256)) * 50))
    view = after(lambda request: request.FILES["file"].read())
    assert site.serve(view, hooks=repeats).post(body, Content_Type=MULTIPART_CONTENT).body == body


def test_a_hook_finds_the_form_that_the_view_has_parsed(site, hooks):
    @hooks.on_exception
    def tell(request, error):
        return JsonResponse(
            [request.POST["a"], request.FILES["file"].name, len(request.body) > 0], safe=False
        )

    body = multipart(a="1", file=SimpleUploadedFile("a.bin", b"content"))
    site.serve(after(lambda request: request.POST), hooks=hooks)
    assert json.loads(site.post(body, Content_Type=MULTIPART_CONTENT).body) == ["1", "a.bin", True]


def test_a_hook_may_parse_the_form_of_which_a_view_has_read_a_part(site, hooks):
    hooks.on_exception(lambda request, error: HttpResponse(request.POST["a"]))
    site.serve(after(lambda request: request.read(2)), hooks=hooks)
    assert site.post(b"a=1&b=2", Content_Type=FORM).body == b"1"


def test_a_hook_sees_the_body_of_a_form_that_cannot_be_parsed(site, repeats):
    body = b"--" + BOUNDARY.encode() + b"\r\nnot a form"
    site.serve(lambda request: HttpResponse(request.POST), hooks=repeats)
    answer = site.post(body, Content_Type="multipart/form-data; boundary=\x00")
    assert (answer.headers["x-error"], answer.body) == (MultiPartParserError.__name__, body)


@pytest.mark.parametrize("error", [Http404, Deny])
def test_a_hook_sees_the_body_for_every_kind_of_exception(site, repeats, error):
    def view(request):
        request.read()
        raise error

    assert site.serve(view, hooks=repeats).post(b"content").body == b"content"


def test_a_hook_sees_the_body_that_an_asynchronous_view_has_read(site, repeats):
    async def view(request):
        request.read(2)
        raise Lost

    assert site.serve(view, hooks=repeats).post(b"content").body == b"content"


def test_an_asynchronous_hook_sees_the_body(site, hooks):
    @hooks.on_exception
    async def repeat(request, error):
        return HttpResponse(request.body)

    assert site.serve(after(READINGS["read"]), hooks=hooks).post(b"content").body == b"content"


def test_a_hook_sees_the_body_sent_to_an_unrouted_path(site, repeats):
    assert site.serve(path("x/", hello), hooks=repeats).post(b"content", url="/nowhere/").body == b"content"


class ReadsAndFails(Middleware):
    def come(self, request):
        request.read(3)
        raise Lost


def test_a_hook_sees_the_body_that_middleware_further_in_has_read(site, repeats):
    site.serve(hello, hooks=repeats, inside=[f"{__name__}.ReadsAndFails"])
    assert site.post(b"content").body == b"content"


class Reads(Middleware):
    def come(self, request):
        request.read(3)


def test_a_body_that_middleware_further_out_has_read_is_a_clear_error(site, hooks):
    """Nobody has kept what was read before the mirror."""

    @hooks.on_exception
    def repeat(request, error):
        with pytest.raises((RawPostDataException, UnreadablePostError), match="read"):
            _ = request.body
        return HttpResponse("clear")

    site.serve(after(READINGS["read"]), hooks=hooks, outside=[f"{__name__}.Reads"])
    assert site.post(b"content").body == b"clear"


def test_a_views_own_hook_sees_the_body_that_it_has_read(site, repeats):
    assert site.serve(with_hooks(repeats)(after(READINGS["a-part"]))).post(b"content").body == b"content"


class ReadsForms(Middleware):
    """Reads the form before the view, as Django's own CsrfViewMiddleware does."""

    def process_view(self, request, view, args, kwargs):
        assert request.POST is not None


@pytest.mark.parametrize("place", ["inside", "outside"])
def test_a_views_own_hook_sees_a_form_that_middleware_has_read(site, repeats, place):
    body = multipart(a="1")
    site.serve(with_hooks(repeats)(after(READINGS["form"])), **{place: [f"{__name__}.ReadsForms"]})
    assert site.post(body, Content_Type=MULTIPART_CONTENT).body == body


def test_all_hooks_see_the_body(site):
    seen, outer, inner = [], Hooks(), Hooks()
    for hooks in (outer, inner):
        hooks.on_exception(lambda request, error: seen.append(request.body))
    site.serve(with_hooks(inner)(after(READINGS["a-part"])), hooks=outer).post(b"content")
    assert seen == [b"content", b"content"]


# How much is kept.


def with_length(hooks):
    """Hooks that answer with the size of the body, or with the error that reading it is."""

    @hooks.on_exception
    def measure(request, error):
        try:
            return HttpResponse(str(len(request.body)))
        except (RequestDataTooBig, RawPostDataException, UnreadablePostError) as failure:
            return HttpResponse(type(failure).__name__)

    return hooks


TOO_BIG = RequestDataTooBig.__name__.encode()


@pytest.mark.parametrize("reading", ["read", "a-part", "part-by-part", "lines"])
def test_a_body_of_the_greatest_size_is_kept(site, hooks, reading):
    site.serve(after(READINGS[reading]), hooks=with_length(hooks))
    assert site.post(b"x" * LIMIT).body == str(LIMIT).encode()


@pytest.mark.parametrize("reading", ["nothing", "read", "a-part", "part-by-part", "lines"])
@pytest.mark.parametrize("size", [LIMIT + 1, 5 * LIMIT])
def test_a_larger_body_is_an_error_rather_than_a_part_of_it(site, hooks, reading, size):
    site.serve(after(READINGS[reading]), hooks=with_length(hooks))
    assert site.post(b"x" * size).body == TOO_BIG


@pytest.mark.parametrize("reading", ["read", "a-part", "part-by-part"])
@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1])
def test_the_size_counts_that_came_rather_than_one_that_was_told(site, hooks, reading, size):
    if not site.has_stack:
        pytest.skip("Django's test clients tell the size always")
    site.serve(after(READINGS[reading]), hooks=with_length(hooks))
    expected = str(LIMIT).encode() if size == LIMIT else TOO_BIG
    assert site.post(b"x" * size, Transfer_Encoding="chunked").body == expected


def test_the_error_says_what_sets_the_limit(site, hooks):
    @hooks.on_exception
    def repeat(request, error):
        with pytest.raises(RequestDataTooBig, match="DATA_UPLOAD_MAX_MEMORY_SIZE"):
            _ = request.body
        return HttpResponse("clear")

    site.serve(after(READINGS["read"]), hooks=hooks)
    assert site.post(b"x" * (LIMIT + 1)).body == b"clear"


def test_the_error_stays_one(site, hooks):
    @hooks.on_exception
    def repeat(request, error):
        failures = []
        for _ in range(3):
            try:
                _ = request.body
            except (RequestDataTooBig, RawPostDataException) as failure:
                failures.append(type(failure).__name__)
        return HttpResponse(" ".join(failures))

    site.serve(after(READINGS["read"]), hooks=hooks)
    assert len(site.post(b"x" * (LIMIT + 1)).body.split()) == 3


def test_uploads_larger_than_that_are_an_error_though_the_view_may_have_them(site, hooks):
    body = multipart(file=SimpleUploadedFile("a.bin", b"x" * (2 * LIMIT)))
    sizes = []
    view = after(lambda request: sizes.append(request.FILES["file"].size))
    site.serve(view, hooks=with_length(hooks))
    assert site.post(body, Content_Type=MULTIPART_CONTENT).body == TOO_BIG
    assert sizes == [2 * LIMIT]


def test_without_a_limit_everything_is_kept(site, hooks, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = None
    site.serve(after(READINGS["a-part"]), hooks=with_length(hooks))
    assert site.post(b"x" * 5 * LIMIT).body == str(5 * LIMIT).encode()


def test_a_limit_of_nothing_keeps_nothing(site, hooks, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 0
    site.serve(after(READINGS["read"]), hooks=with_length(hooks))
    assert site.post(b"x").body == TOO_BIG


def test_an_error_that_a_hook_does_not_catch_is_a_bad_request(site, repeats):
    site.serve(after(READINGS["read"]), hooks=repeats)
    assert site.post(b"x" * (LIMIT + 1)).status == 400


# What views see of it.


def test_a_view_reads_its_body_as_ever(site, repeats):
    def view(request):
        parts = [request.read(1), request.readline(), *request.readlines(), request.read()]
        return HttpResponse(b"|".join(parts))

    assert site.serve(view, hooks=repeats).post(b"abc\nde\nfg").body == b"a|bc\n|de\n|fg|"


def test_a_view_reads_its_form_as_ever(site, repeats):
    def view(request):
        return JsonResponse([request.POST["a"], request.FILES["file"].read().decode()], safe=False)

    body = multipart(a="1", file=SimpleUploadedFile("a.txt", b"content"))
    site.serve(view, hooks=repeats)
    assert json.loads(site.post(body, Content_Type=MULTIPART_CONTENT).body) == ["1", "content"]


def test_a_view_that_reads_twice_is_told_so_as_ever(site, hooks):
    hooks.on_exception(KeyError)(lambda request, error: None)

    def view(request):
        request.read(1)
        try:
            return HttpResponse(request.body)
        except RawPostDataException:
            return HttpResponse("told")

    assert site.serve(view, hooks=hooks).post(b"content").body == b"told"


def test_a_view_may_read_a_body_of_any_size_as_ever(site, repeats):
    site.serve(lambda request: HttpResponse(str(len(request.read()))), hooks=repeats)
    assert site.post(b"x" * 5 * LIMIT).body == str(5 * LIMIT).encode()


def test_the_limit_of_a_view_is_djangos(site, hooks):
    hooks.on_exception(KeyError)(lambda request, error: None)
    site.serve(lambda request: HttpResponse(request.body), hooks=hooks)
    assert site.post(b"x" * (LIMIT + 1)).status == 400


def test_a_body_is_not_that_of_the_next_request(site, repeats):
    site.serve(after(READINGS["a-part"]), hooks=repeats)
    assert [site.post(body).body for body in (b"first", b"", b"second")] == [b"first", b"", b"second"]


def test_a_request_hook_may_read_the_body_before_the_view(site, hooks):
    hooks.on_request(lambda request: setattr(request.ctx, "size", len(getattr(request, "body", b""))))
    hooks.on_exception(KeyError)(lambda request, error: None)
    if site.is_opaque:
        pytest.skip("there the application has not read it yet")
    site.serve(lambda request: HttpResponse(request.body + b" %d" % request.ctx.size), hooks=hooks)
    assert site.post(b"content").body == b"content 7"


class Gone:
    """What is left of a client who has gone."""

    def read(self, *args):
        raise OSError("the client has left")

    def seekable(self):
        return False

    def close(self): ...


def leave(request):
    request._stream._stream = Gone()  # in the place of the server's


def test_a_hook_takes_the_error_of_a_body_that_never_came(site, hooks):
    hooks.on_exception(UnreadablePostError)(lambda request, error: HttpResponse(status=418))

    def view(request):
        leave(request)
        return HttpResponse(request.body)

    assert site.serve(view, hooks=hooks).post(b"content").status == 418


def test_a_hook_for_another_exception_is_told_that_the_body_never_came(site, hooks):
    @hooks.on_exception(Lost)
    def repeat(request, error):
        with pytest.raises(UnreadablePostError):
            _ = request.body
        return HttpResponse("told")

    def view(request):
        request.read(1)
        leave(request)
        raise Lost

    assert site.serve(view, hooks=hooks).post(b"content").body == b"told"
