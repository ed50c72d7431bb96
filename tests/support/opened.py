"""Accepted sockets in the hands of a test, and changes of the database while they are open."""

import asyncio

from django.contrib.auth import get_user_model

from .clients import GUARD
from .sockets import Server, disconnect
from .threads import until


class Opened:
    """An accepted socket of an application."""

    def __init__(self, application, path="/room/", **scope):
        self.server = Server()
        self.task = self.server.begin(application, path=path, **scope)

    async def accepted(self):
        await until(lambda: self.task.done() or self.server.sent)
        assert self.server.kinds[:1] == ["websocket.accept"], self.server.sent
        await asyncio.sleep(0.01)  # It waits for its client.
        return self

    async def end(self):
        async with asyncio.timeout(GUARD):
            await self.task

    async def leave(self):
        self.server.events.put_nowait(disconnect())
        await self.end()

    async def close(self):
        """The code and reason that it is closed with."""
        await self.end()
        assert self.server.kinds[-1] == "websocket.close", self.server.sent
        assert self.server.kinds.count("websocket.close") == 1
        return self.server.sent[-1]["code"], self.server.sent[-1]["reason"]

    async def stays(self):
        """It is still open; its client leaves then."""
        assert "websocket.close" not in self.server.kinds, self.server.sent
        await self.leave()


def user():
    """alice, read anew."""
    return get_user_model().objects.get(username="alice")


def update(**values):
    """A function that gives alice these attributes, and saves her."""

    def save():
        alice = user()
        for name, value in values.items():
            setattr(alice, name, value)
        alice.save()

    return save
