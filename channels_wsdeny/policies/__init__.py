"""Policies: objects that allow or deny a request."""

from __future__ import annotations

from .base import Policy
from .permissions import (
    AllowAny,
    AllowedOrigin,
    DenyAll,
    HasPermission,
    InGroup,
    IsAuthenticated,
    IsStaff,
    IsSuperuser,
    UserPassesTest,
    UserPolicy,
)
from .throttling import MaxConnections, Throttle

__all__ = [
    "AllowAny",
    "AllowedOrigin",
    "DenyAll",
    "HasPermission",
    "InGroup",
    "IsAuthenticated",
    "IsStaff",
    "IsSuperuser",
    "MaxConnections",
    "Policy",
    "Throttle",
    "UserPassesTest",
    "UserPolicy",
]
