"""Policies, hooks and real HTTP denials for Django Channels' WebSocket handshakes, the same as for views.

This module exports the core; everything else is imported from its own module. Importing it needs neither
configured settings nor Daphne.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exceptions import Deny
    from .hooks.registry import Hooks
    from .stack import DenyMiddlewareStack

__all__ = ["Deny", "DenyMiddlewareStack", "Hooks", "__version__"]
__version__ = "0.1.0"

# Imported on first access: pytest loads the plugin of this package, and so this module, in every project
# that has the package installed, and the core must not be imported before Django is set up.
_MODULES = {"Deny": "exceptions", "DenyMiddlewareStack": "stack", "Hooks": "hooks"}

# Without a handler of its own, logging's last resort would print every denial to stderr.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    return value
