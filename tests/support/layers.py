"""A channel layer of a test's own, which processes of its own may be on."""

import asyncio


class FakeLayer:
    """Delivers what is sent to its groups, unless it is told to fail, hang or lose messages.

    The event loop comes round `rounds` times meanwhile, as for what goes over a network.
    """

    def __init__(self):
        self.groups, self.queues, self.sent, self.mode, self.rounds = {}, {}, [], None, 0

    async def new_channel(self):
        channel = f"specific.{len(self.queues)}"
        self.queues[channel] = asyncio.Queue()
        return channel

    async def group_add(self, group, channel):
        await self._reach()
        self.groups.setdefault(group, set()).add(channel)

    async def group_discard(self, group, channel):
        self.groups[group].discard(channel)

    async def group_send(self, group, message):
        if self.mode == "hangs":
            await asyncio.sleep(3600)
        await self._reach()
        self.sent.append(message)
        if self.mode != "loses":
            for channel in self.groups.get(group, ()):
                self.queues[channel].put_nowait(message)

    async def send(self, channel, message):
        self.queues[channel].put_nowait(message)

    async def receive(self, channel):
        message = await self.queues[channel].get()
        if isinstance(message, Exception):
            raise message
        return message

    async def _reach(self):
        for _ in range(self.rounds):
            await asyncio.sleep(0)
        if self.mode == "fails":
            raise ConnectionError
