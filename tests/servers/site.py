"""The site that the servers serve: an endpoint for every case, and some that only a socket can have."""

import asyncio
import gc
import json
import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

import channels
import django

django.setup()

from channels.exceptions import DenyConnection  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

import channels_wsdeny  # noqa: E402
from channels_wsdeny import Deny, DenyMiddlewareStack  # noqa: E402
from channels_wsdeny.conf import conf  # noqa: E402
from channels_wsdeny.decorators import login_required, public  # noqa: E402
from channels_wsdeny.policies import IsAuthenticated, Throttle  # noqa: E402
from channels_wsdeny.types import Receive, Scope, Send  # noqa: E402
from tests.support.case_site import Echo, SyncEcho, guarded, websocket_urlpatterns, with_another  # noqa: E402
from tests.support.clients import GUARD  # noqa: E402
from tests.support.policies import AsyncCheck, Check, raising  # noqa: E402

logger = logging.getLogger("tests.servers")
HEADERS = [(b"X-Own", b"yes"), (b"Set-Cookie", b"one=1"), (b"Set-Cookie", b"two=2; Path=/")]
#: The folders whose code is looked for in tasks that are left.
OURS = tuple(f"{Path(file).parent}/" for file in (channels.__file__, channels_wsdeny.__file__, __file__))


def calls(name: str, **arguments: Any) -> Any:
    """A method of a consumer that awaits this method of it."""
    return lambda self, **received: getattr(self, name)(**arguments)


async def log_and_accept(self: Any) -> None:
    logger.info("connect() ran for %s", self.scope["path"])
    await self.accept()


def changes_session(then: str) -> Any:
    async def connect(self: Any) -> None:
        self.scope["session"]["token"] = self.scope["url_route"]["kwargs"]["token"]
        await getattr(self, then)()

    return connect


def consumer(connect: Any, base: type = Echo, **methods: Any) -> Any:
    return type(base.__name__, (base,), {"connect": connect, **methods})


def open_to_all(*args: Any, **kwargs: Any) -> Any:
    return public(consumer(*args, **kwargs)).as_asgi()


async def accepts_without_asking(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "secret"})


async def ends_without_answering(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()


#: What holds the handshakes that wait at ``/hold/``, by their token.
HELD: dict[str, asyncio.Event] = {}
#: Where as many handshakes meet as the pool has threads.
MEETING = threading.Barrier(conf.POOL_SIZE)
#: Path and query of the connections that the application runs for.
RUNNING: list[str] = []


def deny_with_body(request: Any) -> HttpResponse:
    """A body of so many bytes, no two neighbours alike."""
    size = request.resolver_match.kwargs["size"]
    content = bytes(range(251)) * (size // 251 + 1)
    return HttpResponse(content[:size], status=403, content_type="application/octet-stream")


def look_at_everything(request: Any) -> bool:
    """Read all that a client sends, as some policy of some site will, and deny."""
    request.get_host()
    request.build_absolute_uri()
    request.get_full_path()
    str(request.user)
    seen = [request.META, request.COOKIES, request.GET, request.headers, request.POST, request.body]
    logger.info("saw %d bytes of %s", len(str(seen)), ascii(request.path))
    return False


async def sleep(request: Any) -> bool:
    """Allow after Daphne's handshake timeout, and after a raised ``POLICY_TIMEOUT``."""
    await asyncio.sleep(8)
    return True


async def sleep_on(request: Any) -> bool:
    """As `sleep`, and swallow the cancellation at ``POLICY_TIMEOUT``."""
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(8)
    return await sleep(request)


async def never_answer(self: Any) -> None:
    await asyncio.sleep(60)


async def hold(request: Any) -> bool:
    """Wait until another handshake comes to ``/release/`` with the same token; then allow or deny."""
    kwargs = request.resolver_match.kwargs
    event = HELD[kwargs["token"]] = asyncio.Event()
    logger.info("holding %s", kwargs["token"])
    await event.wait()
    logger.info("released %s", kwargs["token"])
    return kwargs["then"] == "allow"


def hang(request: Any) -> bool:
    """Keep a thread of the pool."""
    logger.info("hanging %s", request.resolver_match.kwargs["token"])
    return threading.Event().wait()


def meet(request: Any) -> bool:
    """Deny once every thread of the pool is here."""
    MEETING.wait(GUARD)
    return False


async def release(request: Any) -> bool:
    HELD.pop(request.resolver_match.kwargs["token"]).set()
    return False


async def report(request: Any) -> bool:
    """Log which other connections the application runs for, and tasks that are left of any."""
    gc.collect()  # Tasks without a reference, and exceptions that were never retrieved, are reported now.
    token = request.resolver_match.kwargs["token"]
    found = {
        "running": [address for address in RUNNING if token not in address],
        "tasks": [repr(task) for task in request.scope["others"] if not task.done() and is_ours(task)],
    }
    logger.info("left %s: %s", token, json.dumps(found))
    return False


def is_ours(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(OURS)


ENDPOINTS = {
    "closes": open_to_all(calls("close")),
    "closes-sync": open_to_all(lambda self: self.close(), SyncEcho),
    "closes-4404": open_to_all(calls("close", code=4404, reason="no")),
    "raises-deny-connection": open_to_all(raising(DenyConnection)),
    "raises-deny": open_to_all(raising(lambda: Deny(402, "Pay first.", code="pay"))),
    "raises": open_to_all(raising(lambda: ZeroDivisionError("secret"))),
    "raises-after-accept": open_to_all(calls("accept"), receive=raising(lambda: ZeroDivisionError("secret"))),
    "undecorated": consumer(log_and_accept).as_asgi(),
    "logged-in": login_required(consumer(calls("accept"))).as_asgi(),
    "accepts-without-asking": accepts_without_asking,
    "ends-without-answering": public(ends_without_answering),
    "accepts-with-headers": open_to_all(calls("accept", headers=HEADERS)),
    "subprotocol": open_to_all(calls("accept", subprotocol="chat.v2")),
    "closes-after-accept": open_to_all(
        calls("accept"), receive=calls("close", code=4001, reason="Enough, \u00e9t\u00e9.")
    ),
    "session/<token>/accept": open_to_all(changes_session("accept")),
    "session/<token>/close": open_to_all(changes_session("close")),
    "body/<int:size>": guarded(Echo, Check(deny_with_body)),
    "looks-at-everything": guarded(Echo, Check(look_at_everything)),
    "sleeps": guarded(Echo, AsyncCheck(sleep)),
    "sleeps-on": guarded(Echo, AsyncCheck(sleep_on)),
    "never-answers": open_to_all(never_answer),
    "hold/<token>/<then>": guarded(Echo, AsyncCheck(hold)),
    "release/<token>": guarded(Echo, AsyncCheck(release)),
    "hang/<token>": guarded(Echo, Check(hang)),
    "meet": guarded(Echo, IsAuthenticated() & Check(meet)),
    "throttled": guarded(Echo, Throttle("1000/s", key="ip")),
    "report/<token>": guarded(Echo, AsyncCheck(report)),
}
router = URLRouter([*websocket_urlpatterns, *(path(f"{url}/", app) for url, app in ENDPOINTS.items())])
site = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": router})
stacks = with_another(DenyMiddlewareStack(site), "/deny-with-close", DenyMiddlewareStack(site, deny_with="close"))


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """The site, which notes what it runs for."""
    if scope["type"] == "websocket" and scope["path"].startswith("/report/"):
        # Those of the report itself are yet to come.
        scope = {**scope, "others": WeakSet(asyncio.all_tasks() - {asyncio.current_task()})}
    address = f"{scope.get('path')}?{scope.get('query_string')!r}"
    RUNNING.append(address)
    try:
        await stacks(scope, receive, send)
    finally:
        RUNNING.remove(address)
