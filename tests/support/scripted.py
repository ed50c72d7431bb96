"""ASGI applications that send given messages, and the messages."""


def start(status, *headers):
    return {"type": "websocket.http.response.start", "status": status, "headers": list(headers)}


def body(content=b"", *, more=False):
    return {"type": "websocket.http.response.body", "body": content, "more_body": more}


def accept(*headers, **values):
    return {"type": "websocket.accept", "headers": list(headers), **values}


def close(**values):
    return {"type": "websocket.close", **values}


def text(value):
    return {"type": "websocket.send", "text": value}


class Script:
    """Sends `messages` after the connect event, then records what it receives until the disconnect."""

    def __init__(self, *messages):
        self.messages = messages
        self.scopes = []
        self.received = []

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        assert await receive() == {"type": "websocket.connect"}
        for message in self.messages:
            await send(message)
        while True:
            self.received.append(await receive())
            if self.received[-1]["type"] == "websocket.disconnect":
                return


async def echo(scope, receive, send):
    """Accepts, and sends back every frame."""
    await receive()
    await send(accept())
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({**message, "type": "websocket.send"})
