"""``manage.py runserver``: Daphne's, with the package's server, if ``"daphne"`` is an app; else Django's.

Django takes the command of the first app that has one, so this one chooses among the apps listed after it.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from django.apps import apps
from django.conf import settings

from ...log import escape, logger

_app = next(filter(apps.is_installed, ("daphne", "django.contrib.staticfiles")), "django.core")
Command: Any = import_module(f"{_app}.management.commands.runserver").Command

if _app == "daphne":
    from ...daphne.server import Server

    Command = type("Command", (Command,), {"server_cls": Server})
else:

    class _Command(Command):
        """Django's, which says that it serves no WebSockets."""

        def inner_run(self, *args: Any, **options: Any) -> None:
            """Run the server; called by Django, in the process that serves."""
            self.stderr.write(
                "channels_wsdeny: 'daphne' is not in INSTALLED_APPS, so this is Django's own runserver, which serves "
                "no WebSockets. Run `pip install 'channels-wsdeny[daphne]'`, and put 'daphne' after 'channels_wsdeny' "
                "in INSTALLED_APPS."
            )
            super().inner_run(*args, **options)

    Command = _Command


def _is_denial(record: Any) -> bool:
    return hasattr(record, "policy")


def _name_policy_and_user(record: Any) -> bool:
    """Add the policy and the user's primary key to the text of a denial's record."""
    if _is_denial(record):
        record.msg += " (policy: %s, user: %s)"
        record.args += (record.policy or "-", "-" if record.user is None else escape(str(record.user)))
    return True


# While a site is developed, its denials are one line each: by its own LOGGING, or by a handler if it has none for them.
if settings.DEBUG and _name_policy_and_user not in logger.filters:
    logger.addFilter(_name_policy_and_user)
    if not (logging.getLogger().handlers or logger.handlers[1:]):
        _handler = logging.StreamHandler()
        _handler.addFilter(_is_denial)
        logger.addHandler(_handler)
