"""Applications that sites put around others."""

import asyncio
import functools

from channels.middleware import BaseMiddleware
from channels.routing import URLRouter


class Wrapper:
    """A wrapper that is not known to the package."""

    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        await self.inner(scope, receive, send)


def _wrapper(name, attribute):
    """A class of wrappers that keep their application under this name."""

    async def call(self, scope, receive, send):
        await getattr(self, attribute)(scope, receive, send)

    return type(name, (), {"__init__": lambda self, app: setattr(self, attribute, app), "__call__": call})


AppWrapper = _wrapper("AppWrapper", "app")
ApplicationWrapper = _wrapper("ApplicationWrapper", "application")
HiddenWrapper = _wrapper("HiddenWrapper", "what_is_inside")


def Function(app):
    async def function(scope, receive, send):
        return await app(scope, receive, send)

    return function


def without_signature(app):
    async def function(*args):
        return await app(*args)

    return function


def with_wraps(app):
    @functools.wraps(app)
    async def wrapper(scope, receive, send):
        await app(scope, receive, send)

    return wrapper


class With(Wrapper):
    """Puts values into the scope."""

    def __init__(self, inner, **values):
        super().__init__(inner)
        self.values = values

    async def __call__(self, scope, receive, send):
        await self.inner({**scope, **self.values}, receive, send)


class Middleware(BaseMiddleware):
    """As Channels' own middleware; it puts values into the scope."""

    def __init__(self, inner, **values):
        super().__init__(inner)
        self.values = values

    async def __call__(self, scope, receive, send):
        return await super().__call__({**scope, **self.values}, receive, send)


class Switch:
    """A wrapper that calls one of two applications."""

    def __init__(self, app, other):
        self.app, self.other = app, other

    async def __call__(self, scope, receive, send):
        await self.other(scope, receive, send)


class Peeks(Wrapper):
    """Takes the connect event itself and hands it on."""

    async def __call__(self, scope, receive, send):
        events = [await receive()]

        async def replay():
            return events.pop() if events else await receive()

        await self.inner(scope, replay, send)


class InTask(Wrapper):
    """Runs its application in another task."""

    async def __call__(self, scope, receive, send):
        async with asyncio.TaskGroup() as group:
            group.create_task(self.inner(scope, receive, send))


class OwnRouter(URLRouter):
    """A router that is called in its own way, so that it is not known."""

    async def __call__(self, scope, receive, send):
        await super().__call__(scope, receive, send)
