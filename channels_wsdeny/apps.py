"""The app: ``"channels_wsdeny"`` in INSTALLED_APPS, before ``"daphne"``."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.backends.signals import connection_created


class ChannelsWsdenyConfig(AppConfig):
    """Registers the system checks, what keeps open sockets, and a receiver for tests on in-memory databases."""

    name = "channels_wsdeny"
    verbose_name = "channels_wsdeny"

    def ready(self) -> None:
        """Called by Django once all apps are loaded; only then can the modules below be imported."""
        from .checks import register_checks
        from .db import remember_in_memory
        from .live.start import start

        register_checks()
        start()
        connection_created.connect(remember_in_memory, dispatch_uid="channels_wsdeny.in_memory")
