"""Policies and real HTTP denials for Django Channels' WebSocket handshakes, the same as for views.

This module re-exports the core; everything else is imported from its own module. It needs neither
configured settings nor Daphne.
"""

from __future__ import annotations

import logging

from .exceptions import Deny
from .hooks import Hooks
from .stack import DenyMiddlewareStack
from .version import __version__

__all__ = ["Deny", "DenyMiddlewareStack", "Hooks", "__version__"]

# Without a handler of its own, logging's last resort would print every denial to stderr.
logging.getLogger(__name__).addHandler(logging.NullHandler())
