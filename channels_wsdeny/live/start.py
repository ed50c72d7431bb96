"""What `AppConfig.ready` starts: from then on handshakes are registered, and changes are noticed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..handlers import open_socket
from . import receivers
from .channel_layer import is_subscribed_elsewhere, subscribe
from .registry import registry
from .sigterm import Sigterm

if TYPE_CHECKING:
    from collections.abc import Awaitable

_sigterm = Sigterm()


def _begin() -> Awaitable[None] | None:
    _sigterm.install()
    waiting = subscribe()
    if waiting is None and not is_subscribed_elsewhere():
        registry.begun_in = asyncio.get_running_loop()
    return waiting


def start() -> None:
    """Have the handlers of handshakes tell the registry, and the signals of Django and its sessions, too."""
    registry.on_begin = _begin
    open_socket.registry = registry
    receivers.connect()
