"""``manage.py runserver``: Daphne's, with the package's server, if ``"daphne"`` is an app; else Django's.

Django takes the command of the first app that has one, so this one chooses among the apps listed after it.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from django.apps import apps
from django.conf import settings

from ...log import logger

_installed = [name for name in ("daphne", "django.contrib.staticfiles") if apps.is_installed(name)]
_app = _installed[0] if _installed else "django.core"
Command: Any = import_module(f"{_app}.management.commands.runserver").Command

if _app == "daphne":
    from ...daphne.server import Server

    Command = type("Command", (Command,), {"server_cls": Server})

# A site that says nothing about the log sees its denials while it is developed.
if settings.DEBUG and not (logging.getLogger().handlers or logger.handlers[1:]):
    _handler = logging.StreamHandler()
    _handler.addFilter(lambda record: hasattr(record, "policy"))  # a denial
    _handler.setFormatter(logging.Formatter("%(message)s (policy: %(policy)s, user: %(user)s)"))
    logger.addHandler(_handler)
