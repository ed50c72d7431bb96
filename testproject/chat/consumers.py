"""The sockets: one for a room's members, one for staff, a public one, and one with a limit of handshakes per minute.

What the decorators let through is all that these classes ever see: none of them asks again who is
there, and none closes a socket to deny it.
"""

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.utils import timezone

from channels_wsdeny.decorators import permission_required, public, require
from channels_wsdeny.policies import IsStaff, Throttle
from testproject.chat.forms import MessageForm
from testproject.chat.handshakes import MONITOR_GROUP, history
from testproject.chat.models import Room
from testproject.chat.resolvers import room_from_url

HISTORY_LENGTH = 50


@permission_required("chat.view_room", obj=room_from_url)
class ChatConsumer(AsyncJsonWebsocketConsumer):
    """A room's conversation: its last messages, then each new one as it is written."""

    async def connect(self):
        self.room = self.scope["wsdeny"].obj  # What `room_from_url` returned: no second query.
        # The group comes before the history: better a message twice (the script knows its id)
        # than one that got lost in between.
        await self.channel_layer.group_add(self.room.group_name, self.channel_name)
        await self.accept()
        await self.send_json({"type": "history", "messages": await self.history()})
        await self.tell({"type": "joined", "room": self.room.slug, "author": self.username})

    async def disconnect(self, code):
        await self.channel_layer.group_discard(self.room.group_name, self.channel_name)
        await self.tell({"type": "left", "room": self.room.slug, "author": self.username})

    async def receive(self, text_data=None, bytes_data=None, **kwargs):
        """Save what was written and tell the room, or tell the writer what was wrong with it."""
        try:
            content = await self.decode_json(text_data or "")
        except (ValueError, RecursionError):
            return await self.refuse("This is not JSON.")
        if not isinstance(content, dict) or not isinstance(content.get("text"), str):
            return await self.refuse('Write like this: {"text": "Hello"}.')
        form = MessageForm(content)
        if not form.is_valid():
            return await self.refuse(" ".join(form.errors["text"]))
        event = await self.save(form)
        if event is None:
            return await self.refuse("Only members may write here.")
        return await self.tell(event)

    async def chat_event(self, message):
        await self.send_json(message["event"])

    @property
    def username(self):
        return self.scope["user"].get_username()

    async def tell(self, event):
        await self.channel_layer.group_send(self.room.group_name, {"type": "chat.event", "event": event})

    async def refuse(self, detail):
        await self.send_json({"type": "error", "detail": detail})

    @database_sync_to_async
    def history(self):
        latest = self.room.messages.select_related("author", "room").order_by("-pk")
        return [message.as_event() for message in reversed(latest[:HISTORY_LENGTH])]

    @database_sync_to_async
    def save(self, form):
        """Save a message, unless its author is no member, or is one no longer."""
        user = self.scope["user"]
        if not user.has_perm("chat.post_room", self.room):
            return None
        form.instance.room = self.room
        form.instance.author = user
        return form.save().as_event()


@require(IsStaff())
class MonitorConsumer(AsyncJsonWebsocketConsumer):
    """Every handshake of the site: the latest ones, then each as it is answered."""

    groups = (MONITOR_GROUP,)

    async def connect(self):
        await self.accept()
        await self.send_json({"type": "history", "handshakes": list(history)})

    async def monitor_event(self, message):
        await self.send_json(message["event"])


@public
class StatusConsumer(AsyncJsonWebsocketConsumer):
    """One answer for every client, logged in or not."""

    async def connect(self):
        await self.accept()
        rooms = await database_sync_to_async(Room.objects.count)()
        await self.send_json({"rooms": rooms, "time": timezone.now().isoformat()})
        await self.close()


@require(Throttle("3/min", key="ip"))
class KnockConsumer(AsyncJsonWebsocketConsumer):
    """For three handshakes a minute from one address, logged in or not."""

    async def connect(self):
        await self.accept()
        await self.send_json({"type": "come in"})
        await self.close()
