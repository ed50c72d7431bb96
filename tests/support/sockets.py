"""A server in the hands of a test, consumers made of functions, and what a handshake leaves behind."""

import asyncio
import functools
import gc
from contextlib import asynccontextmanager
from inspect import isawaitable

from channels.consumer import SyncConsumer
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import require
from channels_wsdeny.policies import AllowAny

from .clients import GUARD, Answer, answer_of, websocket_scope

CONNECT = {"type": "websocket.connect"}
DENIAL = ["websocket.http.response.start", "websocket.http.response.body"]


class Server:
    """One handshake: the server receives `events`, and those that the test puts; `sent` is what it gets to send."""

    def __init__(self, *events):
        self.events = asyncio.Queue()
        for event in events or [CONNECT]:
            self.events.put_nowait(event)
        self.sent = []

    async def receive(self):
        return await self.events.get()

    async def send(self, message):
        self.sent.append(message)

    async def run(self, application, path="/", **scope) -> Answer | None:
        """Run `application` to its end; returns its answer, None if it sent nothing."""
        return await self.run_scope(application, websocket_scope(path, **scope))

    async def run_scope(self, application, scope) -> Answer | None:
        """As `run`, for this very scope."""
        async with asyncio.timeout(GUARD):
            await application(scope, self.receive, self.send)
        return self.answer

    def begin(self, application, **scope) -> asyncio.Task[Answer | None]:
        """Run `application` in a task."""
        return asyncio.ensure_future(self.run(application, **scope))

    @property
    def answer(self) -> Answer | None:
        return answer_of(self.sent) if self.sent else None

    @property
    def kinds(self) -> list[str]:
        return [message["type"] for message in self.sent]


class Unread(Server):
    """A server whose client does not read on: `send` never returns from the message of this number."""

    def __init__(self, number, *events):
        super().__init__(*events)
        self.number, self.reached = number, asyncio.Event()

    async def send(self, message):
        await super().send(message)
        if len(self.sent) == self.number:
            self.reached.set()
            await asyncio.Event().wait()


def disconnect(code=1001):
    return {"type": "websocket.disconnect", "code": code}


def consumer(connect=None, base=AsyncWebsocketConsumer, **methods):
    """A consumer class with these methods: plain functions, also for asynchronous ones, and other attributes."""
    methods |= {} if connect is None else {"connect": connect}
    made = {name: _method(base, method) if callable(method) else method for name, method in methods.items()}
    return type("Consumer", (base,), made)


def _method(base, function):
    def method(self, *args, **kwargs):
        function(self, *args, **kwargs)

    async def async_method(self, *args, **kwargs):
        result = function(self, *args, **kwargs)
        if isawaitable(result):
            await result

    return method if issubclass(base, SyncConsumer) else async_method


def decorated(*decorators, base=AsyncWebsocketConsumer, **methods):
    """A new class of consumers, with these decorators in their order of a source: they mark classes for good."""
    cls = type("Consumer", (base,), methods)
    return functools.reduce(lambda cls, decorate: decorate(cls), reversed(decorators), cls)


def accept_as_user(self):
    """A `connect` that accepts with the name of the user in a header."""
    return self.accept(headers=[(b"x-user", self.scope["user"].username.encode())])


class UserOverHttp(AsyncHttpConsumer):
    """Answers with the name of its user."""

    async def handle(self, body):
        await self.send_response(200, self.scope["user"].username.encode())


async def asks_again(self, **data):
    """A `receive` that has the policies asked again, and says that the socket is still open."""
    await self.scope["wsdeny"].recheck()
    await self.send("still here")


def open_to_all(app):
    return DenyMiddlewareStack(app, default_policy=AllowAny())


def guarded(policy, app=None):
    """A stack around `app` behind `policy`; by default a consumer that accepts."""
    return DenyMiddlewareStack(require(policy)(consumer().as_asgi() if app is None else app))


@asynccontextmanager
async def no_task_left():
    """The tasks that are begun inside have ended at its end, and no error of theirs was left unseen."""
    loop, before, unseen = asyncio.get_running_loop(), asyncio.all_tasks(), []
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda loop, context: unseen.append(context))
    try:
        yield
        for _ in range(5):  # A task that was cancelled needs a turn of the loop to end.
            await asyncio.sleep(0)
        assert {task for task in asyncio.all_tasks() - before if not task.done()} == set()
        gc.collect(0)  # Errors that were not retrieved are reported then.
        assert unseen == []
    finally:
        loop.set_exception_handler(handler)


def errors(caplog):
    """The exceptions that were logged with their tracebacks."""
    return [record.exc_info[1] for record in caplog.records if record.exc_info]
