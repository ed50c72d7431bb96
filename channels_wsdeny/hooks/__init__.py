"""Hooks: functions of the site that run around every request, the same for sockets and views."""

from __future__ import annotations

from .registry import Hooks

__all__ = ["Hooks"]
