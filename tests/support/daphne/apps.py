"""ASGI applications for the servers under test. They need no Django."""

import ast
import asyncio
import gc
import json
import logging
from urllib.parse import unquote

from channels_wsdeny.daphne.protocol import WebSocketProtocol

logger = logging.getLogger(__name__)


async def scripted(scope, receive, send):
    """Follow the script in a handshake's query: see `Script`. Answer HTTP with what the server holds."""
    if scope["type"] == "http":
        await answer_http(scope, receive, send)
    else:
        await Script(scope, receive, send).run()


class Script:
    """A list of steps: a dict is a message to send; a string, or a pair, is one of the methods."""

    def __init__(self, scope, receive, send):
        self.scope, self.receive, self.send = scope, receive, send

    async def run(self):
        for step in ast.literal_eval(unquote(self.scope["query_string"].decode())):
            name, *arguments = ("say", step) if isinstance(step, dict) else (step,) if isinstance(step, str) else step
            await getattr(self, name)(*arguments)
        self.log("returned")

    async def say(self, message):
        try:
            await self.send(message)
        except Exception as error:
            self.log(f"got {type(error).__name__}: {error}")
            raise

    async def dare(self, message):
        """Send a message, and go on if it is refused."""
        try:
            await self.say(message)
        except (TypeError, ValueError):
            pass

    async def hear(self):
        self.log(f"heard {await self.receive()}")

    async def body(self, size):
        await self.send({"type": "websocket.http.response.body", "body": b"x" * size})

    async def show(self, *keys):
        """Deny with entries of the scope."""
        shown = repr([self.scope.get(key) for key in keys]).encode()
        await self.send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await self.send({"type": "websocket.http.response.body", "body": shown})

    async def sleep(self, seconds):
        await asyncio.sleep(seconds)

    async def hang(self):
        await asyncio.Event().wait()

    async def crash(self):
        raise RuntimeError(f"{self.scope['path']} crashed")

    async def give_up(self):
        raise asyncio.CancelledError

    def log(self, text):
        logger.info("%s %s", self.scope["path"], text)


async def answer_http(scope, receive, send):
    body, message = b"", {"more_body": True}
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    gc.collect()
    answer = {
        # Daphne's `send` is a partial of a method of the server's.
        "connections": [p.request.path for p in send.func.__self__.connections if isinstance(p, WebSocketProtocol)],
        # Not isinstance: that would wake Django's lazy objects.
        "alive": [o.request.path for o in gc.get_objects() if type(o) is WebSocketProtocol],
        "method": scope["method"],
        "version": scope["http_version"],
        "root_path": scope["root_path"],
        "received": body.decode(),
    }
    headers = [(b"content-type", b"application/json"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


def not_async(scope, receive, send):
    """An application that fails where Daphne makes its coroutine."""
    raise RuntimeError(f"{scope['path']} is not async")
