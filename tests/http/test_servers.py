"""What is special about single servers: granian, and servers without the denial extension."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from django.http import HttpResponse

from channels_wsdeny import Deny, log
from channels_wsdeny.policies import DenyAll
from tests.support.cases import with_cookies
from tests.support.clients import knock
from tests.support.policies import AsyncCheck
from tests.support.processes import run_python
from tests.support.scripted import Script, accept, body, start
from tests.support.sockets import Server, guarded, open_to_all


@pytest.fixture(autouse=True)
def _first_warnings(monkeypatch):
    """What is warned of once in a process is warned of again."""
    monkeypatch.setattr(log, "_warned", set())


class Granian(Server):
    """A server whose `send` is a method of an object from granian's module."""

    __module__ = "granian.asgi"


def denying(make):
    return guarded(AsyncCheck(lambda request: make()), Script())


def upgrade():
    return Deny(426, headers={"Upgrade": "websocket", "Connection": "Upgrade"})


REPEATED = Script(start(403, (b"x-a", b"1"), (b"x-a", b"2"), (b"set-cookie", b"a=1"), (b"Set-Cookie", b"b=2")), body())
DENIALS = {
    "cookies": (denying(with_cookies), {"set-cookie": "one=1; Path=/", "connection": "close"}),
    "problem": (guarded(DenyAll(), Script()), {"set-cookie": None, "connection": "close"}),
    "connection of the site": (denying(upgrade), {"upgrade": "websocket", "connection": "close"}),
    "lines of the application": (open_to_all(REPEATED), {"x-a": "1, 2", "set-cookie": "a=1"}),
}


@pytest.mark.parametrize(("site", "expected"), DENIALS.values(), ids=DENIALS)
async def test_granian_gets_each_name_once_and_is_told_to_close(site, expected):
    answer = await Granian().run(site)
    names = [name for name, _ in answer.headers]
    assert sorted(names) == sorted(set(names))
    assert {name: answer.header(name) for name in expected} == expected


class Hypercorn(Server):
    """A server whose `send` is a method of an object from hypercorn's module."""

    __module__ = "hypercorn.protocol.ws_stream"


@pytest.mark.parametrize("version", ["1.1", "2"])
@pytest.mark.parametrize("make", [lambda: guarded(DenyAll(), Script()), lambda: denying(upgrade)])
async def test_a_server_that_closes_after_a_denial_says_so_on_http1(make, version):
    found = [(await server().run(make(), http_version=version)).all("connection") for server in (Hypercorn, Server)]
    assert (found[0] == ["close"]) is (version == "1.1")
    assert "close" not in found[1]


async def test_granian_gets_an_accept_without_headers_but_with_its_subprotocol():
    script = Script(accept((b"x-a", b"1"), subprotocol="chat"))
    granian = Granian()
    granian.events.put_nowait({"type": "websocket.disconnect", "code": 1000})
    answer = await granian.run(open_to_all(script))
    assert (answer.status, answer.headers, granian.sent[0]["subprotocol"]) == (101, [], "chat")


def with_cookie():
    response = HttpResponse(status=403)
    response.set_cookie("one", "1")
    return response


@pytest.mark.parametrize(
    ("site", "words"),
    [
        (denying(with_cookies), ["Set-Cookie"]),
        (open_to_all(Script(accept((b"x-a", b"1")))), ["accepted"]),
        (denying(with_cookie), []),
    ],
)
async def test_what_granian_cannot_send_is_warned_of_once(site, words, caplog):
    for _ in range(3):
        granian = Granian()
        granian.events.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await granian.run(site)
    warnings = [record.getMessage() for record in caplog.records if "granian" in record.getMessage()]
    assert [word in warning for word, warning in zip(words, warnings, strict=True)] == [True] * len(words)


async def test_another_server_gets_everything():
    other = type("Other", (Server,), {"__module__": "uvicorn.protocols"})()
    assert len((await other.run(denying(with_cookies))).all("set-cookie")) == 2


BEHIND_A_MIDDLEWARE = """
import django
django.setup()
import asyncio
import granian.asgi
from tests.http.test_servers import denying, with_cookies
from tests.support.clients import knock
from tests.support.wrappers import Wrapper

class Middleware(Wrapper):
    async def __call__(self, scope, receive, send):
        async def wrapped(message):
            await send(message)
        await self.inner(scope, receive, wrapped)

print(asyncio.run(knock(Middleware(denying(with_cookies)), "/")).header("set-cookie"))
"""


@pytest.mark.servers
@pytest.mark.skipif(find_spec("granian") is None, reason="granian is not installed")
def test_granian_is_known_behind_a_middleware_that_wraps_its_send():
    output, errors = run_python(BEHIND_A_MIDDLEWARE, settings="testproject.settings")
    assert output == "one=1; Path=/", errors


async def test_a_missing_extension_is_warned_of_once_with_the_remedy(caplog):
    for _ in range(3):
        await knock(guarded(DenyAll(), Script()), "/", extensions={})
    (message,) = [record.getMessage() for record in caplog.records if "cannot send a denial" in record.getMessage()]
    assert "python -m channels_wsdeny.daphne" in message
    assert "DENY_WITH" in message
