"""What the monitor shows: every handshake that was answered, and every socket whose access has ended."""

from collections import deque
from itertools import count

from channels.layers import get_channel_layer
from django.contrib.auth.models import AnonymousUser
from django.dispatch import receiver
from django.utils import timezone

from channels_wsdeny import Deny
from channels_wsdeny.signals import handshake_accepted, handshake_denied, socket_revoked

MONITOR_GROUP = "monitor"
#: The latest of this process. A site that runs several keeps them in its cache or database.
history = deque(maxlen=50)
_numbers = count(1)


@receiver([handshake_accepted, handshake_denied, socket_revoked])
async def tell_monitor(request, policy, duration, response=None, code=None, reason="", **kwargs):
    """Note the answer to a handshake, or the close of a socket: that has a code and a reason in place of a response."""
    try:
        user = await request.auser()
    except Deny:  # of wrong credentials
        user = AnonymousUser()
    event = {
        "type": "handshake",
        "id": next(_numbers),
        "time": timezone.now().isoformat(),
        "status": code if response is None else response.status_code,
        "text": reason if response is None else response.reason_phrase,
        "path": request.path[:200],
        "user": user.get_username(),
        "policy": policy or "",
        "seconds": duration,
    }
    history.append(event)
    await get_channel_layer().group_send(MONITOR_GROUP, {"type": "monitor.event", "event": event})
