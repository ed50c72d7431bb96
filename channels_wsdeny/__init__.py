"""Policies and real HTTP denials for Django Channels' WebSocket handshakes, the same as for views.

This module re-exports the core; everything else is imported from its own module. It needs neither
configured settings nor Daphne.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .exceptions import Deny
    from .hooks.registry import Hooks
    from .stack import DenyMiddlewareStack

__all__ = ["Deny", "DenyMiddlewareStack", "Hooks", "__version__"]

# Imported when they are first asked for: pytest loads the plugin of this package, and so this module, in
# every project that has it installed.
_HOMES = {"Deny": "exceptions", "DenyMiddlewareStack": "stack", "Hooks": "hooks"}

# Without a handler of its own, logging's last resort would print every denial to stderr.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
