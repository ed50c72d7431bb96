"""Live: a socket lives no longer than its permission."""

from .revoke import arevoke, asockets, revoke, sockets

__all__ = ["arevoke", "asockets", "revoke", "sockets"]
