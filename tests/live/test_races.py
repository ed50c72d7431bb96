"""No socket survives what ended it, whenever that comes; and nothing is left behind."""

import asyncio
import random
from types import SimpleNamespace

import pytest

from channels_wsdeny import signals
from channels_wsdeny.decorators import require
from channels_wsdeny.live import arevoke
from channels_wsdeny.live.registry import registry
from channels_wsdeny.policies import Policy
from tests.support.clients import websocket_scope
from tests.support.sockets import Server, disconnect, no_task_left

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("hasty")]


def person(pk):
    """A user that is no model."""
    return SimpleNamespace(pk=pk, is_authenticated=True, is_active=True, is_anonymous=False)


class Allowed(Policy):
    """Allows those in `keys`, after as many turns of the event loop as chance has it."""

    def __init__(self, chance):
        self.keys, self.chance = set(), chance

    async def acheck(self, request):
        is_allowed = request.user.pk in self.keys
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)
        return is_allowed


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.random)])
async def test_no_socket_survives_a_revocation_whenever_it_comes(seed, monkeypatch):
    monkeypatch.setattr(signals.socket_revoked, "receivers", [])  # Those of other tests run in tasks, for a moment.
    chance = random.Random(seed)
    policy, began, open_ones, kept = Allowed(chance), set(), set(), set()

    async def turns(most):
        for _ in range(chance.randrange(most)):
            await asyncio.sleep(0)

    @require(policy)
    async def application(scope, receive, send):
        await receive()
        await turns(4)
        await send({"type": "websocket.accept"})
        open_ones.add(pk := scope["user"].pk)
        await receive()
        open_ones.discard(pk)

    async def connect(pk, server):
        await turns(4)
        began.add(pk)
        await application(websocket_scope("/", user=person(pk)), server.receive, server.send)

    async def end(pk):
        await turns(12)
        if pk % 3 == 0:
            policy.keys.discard(pk)
            registry.handle({"kind": "users", "users": [str(pk)]})
        elif pk % 3 == 1 and pk in began:  # A client that comes after a revocation is let in again.
            await arevoke(user=pk)
        else:
            kept.add(pk)

    async with no_task_left():
        for start in range(0, 2000 if seed == 1 else 15_000, 200):
            keys = range(start, start + 200)
            policy.keys.update(keys)
            servers = {pk: Server() for pk in keys}
            sockets = [asyncio.ensure_future(connect(pk, server)) for pk, server in servers.items()]
            await asyncio.gather(*map(end, keys))
            async with asyncio.timeout(30):
                while open_ones != kept:
                    await asyncio.sleep(0.001)
            for pk in kept:
                servers[pk].events.put_nowait(disconnect())
            kept.clear()
            await asyncio.wait_for(asyncio.gather(*sockets), 30)
    assert registry.sockets() == []
    assert not registry._connecting
