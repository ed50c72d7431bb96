"""``manage.py runserver``: Daphne's where it is an installed app, with our server; else Django's.

Django takes the command of the first app that has one, so ``channels_wsdeny`` stands in for those
listed after it.
"""

from __future__ import annotations

from django.apps import apps

if apps.is_installed("daphne"):
    from daphne.management.commands.runserver import Command as DaphneCommand

    from ...daphne.server import Server

    class Command(DaphneCommand):  # type: ignore[misc]
        """Serves HTTP and WebSockets, and denies handshakes with responses."""

        server_cls = Server

elif apps.is_installed("django.contrib.staticfiles"):
    from django.contrib.staticfiles.management.commands.runserver import (  # type: ignore[assignment]
        Command,
    )
else:
    from django.core.management.commands.runserver import Command  # type: ignore[assignment]

__all__ = ["Command"]
