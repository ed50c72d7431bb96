"""Hooks on views and on sockets of one site, over the wire."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from channels_wsdeny import Hooks
from tests.wire.servers import start

#: Of the servers under test, which import this module.
hooks = Hooks()


@hooks.on_request
def begin(request):
    request.ctx.id = request.headers.get("X-Request-ID", "none")


@hooks.on_response
async def mark(request, response):
    response.headers["X-Request-ID"] = request.ctx.id
    response.headers["X-Status"] = str(response.status_code)
    response.set_cookie("first", "1")
    response.set_cookie("second", "2")


@hooks.around
async def surround(request, call_next):
    response = await call_next(request)
    response.headers["X-Around"] = "1"
    return response


@pytest.fixture(scope="module", params=["daphne", "uvicorn-websockets"])
def server(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("mirror")
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.wire.settings",
        "WIRE_DATABASE": str(directory / "wire.sqlite3"),
    }
    server = start(request.param, directory, environment, {"HOOKS": ["tests.test_mirror_wire.hooks"]})
    yield server
    server.stop()


def get(server, url, **headers):
    """The answer to a plain request: status, headers by lower-case name (lists), body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("GET", url, headers={"X-Request-ID": "42", **headers})
        response = connection.getresponse()
        fields = {}
        for name, value in response.getheaders():
            fields.setdefault(name.lower(), []).append(value)
        return response.status, fields, response.read()
    finally:
        connection.close()


CASES = {
    "/sync/allow-any/": 200,
    "/async/allow-any/": 200,
    "/sync/teapot/": 418,
    "/async/teapot/": 418,
    "/sync/redirect/": 302,
    "/sync/raises-anything/": 500,
    "/nowhere/": 404,
}


@pytest.mark.parametrize(("url", "status"), CASES.items())
def test_hooks_mark_every_answer_of_a_view(server, url, status):
    answered, headers, _ = get(server, url)
    assert answered == status
    assert (headers["x-request-id"], headers["x-status"]) == (["42"], [str(status)])
    assert headers["x-around"] == ["1"]
    assert [cookie.split(";")[0] for cookie in headers["set-cookie"]] == ["first=1", "second=2"]


@pytest.mark.parametrize(("url", "status"), CASES.items())
def test_the_length_of_every_answer_is_right(server, url, status):
    _, headers, body = get(server, url)
    assert headers["content-length"] == [str(len(body))]


def test_an_unrouted_path_is_a_problem_to_a_program(server):
    _, headers, body = get(server, "/nowhere/")
    assert headers["content-type"] == ["application/problem+json"]
    assert json.loads(body)["code"] == "not_found"


def test_an_unrouted_path_is_a_page_to_a_browser(server):
    status, headers, body = get(server, "/nowhere/", Accept="text/html")
    assert (status, headers["content-type"]) == (404, ["text/html; charset=utf-8"])
    assert b"Not Found" in body


def test_a_failure_tells_no_secret(server):
    assert b"secret" not in get(server, "/sync/raises-anything/")[2]


@pytest.mark.parametrize(
    ("path", "status"), [("/ws/allow-any/", 101), ("/ws/teapot/", 418), ("/nowhere/", 404)]
)
def test_the_same_hooks_mark_a_handshake(server, path, status):
    with server.connect() as connection:
        connection.request(path, {"X-Request-ID": "42"})
        answer = connection.answer()
    assert answer.status == status
    assert [answer.header(name) for name in ("x-request-id", "x-status", "x-around")] == [
        "42",
        str(status),
        "1",
    ]


def test_each_of_many_requests_at_once_has_a_ctx_of_its_own(server):
    def ask(number):
        url = ["/sync/allow-any/", "/async/allow-any/", "/sync/teapot/", "/nowhere/"][number % 4]
        return get(server, url, **{"X-Request-ID": str(number)})[1]["x-request-id"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(80))) == [[str(number)] for number in range(80)]


def test_the_log_has_no_error_but_for_what_fails(server):
    before = server.log_from_here()
    for url in CASES:
        if "raises" not in url:
            get(server, url)
    assert "ERROR" not in before()
    assert "Traceback" not in before()
