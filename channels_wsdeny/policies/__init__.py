"""Policies: whether a request may pass."""

from __future__ import annotations

from .base import Policy
from .builtin import (
    AllowAny,
    DenyAll,
    HasPermission,
    InGroup,
    IsAuthenticated,
    IsStaff,
    IsSuperuser,
    UserPassesTest,
    UserPolicy,
)

__all__ = [
    "AllowAny",
    "DenyAll",
    "HasPermission",
    "InGroup",
    "IsAuthenticated",
    "IsStaff",
    "IsSuperuser",
    "Policy",
    "UserPassesTest",
    "UserPolicy",
]
