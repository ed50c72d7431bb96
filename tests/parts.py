"""Small parts that many tests put together: policies made of functions, an application that accepts."""

from __future__ import annotations

from channels_wsdeny.policies import Policy


class Check(Policy):
    """Answers what `function(request)` returns."""

    def __init__(self, function):
        self.function = function

    def check(self, request):
        return self.function(request)


class AsyncCheck(Check):
    """Answers what `await function(request)` returns."""

    check = Policy.check

    async def acheck(self, request):
        return await self.function(request)


async def accept(scope, receive, send):
    """An application that does nothing but accept: Channels' consumers hop by themselves."""
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
