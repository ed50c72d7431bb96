"""What an application may ask while its accept is being sent."""

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import require
from channels_wsdeny.exceptions import HandshakeDenied
from tests.support.policies import AsyncCheck
from tests.support.scripted import accept
from tests.support.sockets import Server, disconnect


async def test_nothing_is_asked_again_before_the_accept_is_sent():
    contexts, errors = [], []

    class Slow(Server):
        async def send(self, message):
            if message["type"] == "websocket.accept":
                try:
                    await contexts[0].recheck()
                except HandshakeDenied as error:
                    errors.append(error)
            await super().send(message)

    async def app(scope, receive, send):
        contexts.append(scope["wsdeny"])
        await send(accept())
        await contexts[0].recheck()
        await receive()

    server = Slow()
    running = server.begin(DenyMiddlewareStack(require(AsyncCheck(lambda request: True))(app)))
    server.events.put_nowait(disconnect())
    await running
    assert (server.kinds, len(errors)) == (["websocket.accept"], 1)
