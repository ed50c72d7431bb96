"""The site that the servers serve: an endpoint for every case, and some that only a socket can have."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import django

django.setup()

from channels.exceptions import DenyConnection  # noqa: E402
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

from channels_wsdeny import Deny, DenyMiddlewareStack  # noqa: E402
from channels_wsdeny.decorators import login_required, public, require  # noqa: E402
from channels_wsdeny.policies import Policy  # noqa: E402
from tests.site import Echo, SyncEcho, websocket_urlpatterns  # noqa: E402

if TYPE_CHECKING:
    from channels_wsdeny.types import Receive, Scope, Send

logger = logging.getLogger("tests.wire")
MEGABYTE = 1024 * 1024


@public
class Closes(AsyncWebsocketConsumer):
    async def connect(self):
        await self.close()


@public
class ClosesSync(WebsocketConsumer):
    def connect(self):
        self.close()


@public
class ClosesWithCode(AsyncWebsocketConsumer):
    async def connect(self):
        await self.close(code=4404, reason="no")


@public
class RaisesDenyConnection(AsyncWebsocketConsumer):
    async def connect(self):
        raise DenyConnection


@public
class RaisesDeny(AsyncWebsocketConsumer):
    async def connect(self):
        raise Deny(402, "Pay first.", code="pay")


@public
class Raises(AsyncWebsocketConsumer):
    async def connect(self):
        raise ZeroDivisionError("secret")


@public
class RaisesAfterAccept(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        raise ZeroDivisionError("secret")


class Undecorated(AsyncWebsocketConsumer):
    async def connect(self):
        logger.info("connect() ran for %s", self.scope["path"])
        await self.accept()


async def accepts_without_asking(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "secret"})


async def ends_without_answering(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()


@public
class AcceptsWithHeaders(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept(
            headers=[(b"X-Wire", b"yes"), (b"Set-Cookie", b"one=1"), (b"Set-Cookie", b"two=2; Path=/")]
        )


@public
class ChangesSessionAndAccepts(Echo):
    async def connect(self):
        self.scope["session"]["token"] = self.scope["url_route"]["kwargs"]["token"]
        await self.accept()


@public
class ChangesSessionAndCloses(AsyncWebsocketConsumer):
    async def connect(self):
        self.scope["session"]["token"] = self.scope["url_route"]["kwargs"]["token"]
        await self.close()


@public
class ChoosesSubprotocol(Echo):
    async def connect(self):
        await self.accept(subprotocol="chat.v2")


@public
class ClosesAfterAccept(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept()

    async def receive(self, text_data=None, bytes_data=None):
        await self.close(code=4001, reason="Enough, \u00e9t\u00e9.")


class Body(Policy):
    """Denies with a body of so many bytes, no two neighbours alike."""

    def check(self, request: Any) -> HttpResponse:
        size = request.resolver_match.kwargs["size"]
        content = bytes(range(251)) * (size // 251 + 1)
        return HttpResponse(content[:size], status=403, content_type="application/octet-stream")


class LooksAtEverything(Policy):
    """Reads all that a client sends, as some policy of some site will, and says no."""

    def check(self, request: Any) -> bool:
        request.get_host()
        request.build_absolute_uri()
        request.get_full_path()
        str(request.user)
        seen = [request.META, request.COOKIES, request.GET, request.headers, request.POST, request.body]
        logger.info("saw %d bytes of %s", len(str(seen)), ascii(request.path))
        return False


class Sleeps(Policy):
    """Slower than Daphne's handshake timeout, and than a raised ``POLICY_TIMEOUT``."""

    async def acheck(self, request: Any) -> bool:
        await asyncio.sleep(8)
        return True


#: What holds the handshakes that wait at ``/hold/``, by their token.
HELD: dict[str, asyncio.Event] = {}


class Holds(Policy):
    """Waits until another handshake comes to ``/release/`` with the same token; then allows or denies."""

    async def acheck(self, request: Any) -> bool:
        kwargs = request.resolver_match.kwargs
        event = HELD[kwargs["token"]] = asyncio.Event()
        logger.info("holding %s", kwargs["token"])
        await event.wait()
        logger.info("released %s", kwargs["token"])
        return kwargs["then"] == "allow"


class Releases(Policy):
    async def acheck(self, request: Any) -> bool:
        HELD.pop(request.resolver_match.kwargs["token"]).set()
        return False


class Reports(Policy):
    """Logs which other connections the application runs for, and tasks that are left of any."""

    async def acheck(self, request: Any) -> bool:
        gc.collect()  # Tasks that nobody holds, and exceptions that nobody retrieved, speak up now.
        token = request.resolver_match.kwargs["token"]
        report = {
            "running": [address for address in RUNNING if token not in address],
            "tasks": [repr(task) for task in request.scope["others"] if not task.done() and _is_ours(task)],
        }
        logger.info("left %s: %s", token, json.dumps(report))
        return False


def _is_ours(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and any(name in code.co_filename for name in ("channels", "tests/wire"))


def endpoint(policy: Policy, consumer: type = Echo) -> Any:
    return require(policy)(type(consumer.__name__, (consumer,), {})).as_asgi()


application_stack = DenyMiddlewareStack(
    ProtocolTypeRouter(
        {
            "http": get_asgi_application(),
            "websocket": URLRouter(
                [
                    *websocket_urlpatterns,
                    path("closes/", Closes.as_asgi()),
                    path("closes-sync/", ClosesSync.as_asgi()),
                    path("closes-4404/", ClosesWithCode.as_asgi()),
                    path("raises-deny-connection/", RaisesDenyConnection.as_asgi()),
                    path("raises-deny-in-connect/", RaisesDeny.as_asgi()),
                    path("raises-in-connect/", Raises.as_asgi()),
                    path("raises-after-accept/", RaisesAfterAccept.as_asgi()),
                    path("undecorated/", Undecorated.as_asgi()),
                    path("accepts-without-asking/", accepts_without_asking),
                    path("ends-without-answering/", public(ends_without_answering)),
                    path("accepts-with-headers/", AcceptsWithHeaders.as_asgi()),
                    path("session/<token>/accept/", ChangesSessionAndAccepts.as_asgi()),
                    path("session/<token>/close/", ChangesSessionAndCloses.as_asgi()),
                    path("subprotocol/", ChoosesSubprotocol.as_asgi()),
                    path("closes-after-accept/", ClosesAfterAccept.as_asgi()),
                    path("sync-echo/", public(SyncEcho).as_asgi()),
                    path("logged-in/", login_required(type("LoggedIn", (Echo,), {})).as_asgi()),
                    path("body/<int:size>/", endpoint(Body())),
                    path("looks-at-everything/", endpoint(LooksAtEverything())),
                    path("sleeps/", endpoint(Sleeps())),
                    path("hold/<token>/<then>/", endpoint(Holds())),
                    path("release/<token>/", endpoint(Releases())),
                    path("report/<token>/", endpoint(Reports())),
                ]
            ),
        }
    )
)
closing_stack = DenyMiddlewareStack(application_stack.inner, deny_with="close")

#: Path and query of the connections that the application runs for.
RUNNING: list[str] = []


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """The site; under ``/deny-with-close/`` the same once more, for clients in browsers."""
    stack = application_stack
    if scope["type"] == "websocket" and scope["path"].startswith("/deny-with-close/"):
        scope = {**scope, "path": scope["path"].removeprefix("/deny-with-close")}
        stack = closing_stack
    if scope["type"] == "websocket" and scope["path"].startswith("/report/"):
        # Those of the report itself are yet to come.
        scope = {**scope, "others": WeakSet(asyncio.all_tasks() - {asyncio.current_task()})}
    address = f"{scope.get('path')}?{scope.get('query_string')!r}"
    RUNNING.append(address)
    try:
        await stack(scope, receive, send)
    finally:
        RUNNING.remove(address)
