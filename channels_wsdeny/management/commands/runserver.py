"""``manage.py runserver``: Daphne's, with the package's server, if ``"daphne"`` is an app; else Django's.

Django takes the command of the first app that has one, so this one chooses among the apps listed after it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.apps import apps

_installed = [name for name in ("daphne", "django.contrib.staticfiles") if apps.is_installed(name)]
_app = _installed[0] if _installed else "django.core"
Command: Any = import_module(f"{_app}.management.commands.runserver").Command

if _app == "daphne":
    from ...daphne.server import Server

    Command = type("Command", (Command,), {"server_cls": Server})
