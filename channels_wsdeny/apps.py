"""The app: ``"channels_wsdeny"`` in INSTALLED_APPS, before ``"daphne"``."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.core.signals import setting_changed
from django.db.backends.signals import connection_created


class ChannelsWsdenyConfig(AppConfig):
    """Registers the system checks, and what tests on in-memory databases and live servers need."""

    name = "channels_wsdeny"
    verbose_name = "channels_wsdeny"

    def ready(self) -> None:
        """Called by Django once all apps are loaded."""
        from .checks import settings as our_checks  # noqa: PLC0415 - after Django's own apps are loaded
        from .db import remember_in_memory  # noqa: PLC0415
        from .testing.origins import follow_allowed_hosts, remember_allowed_hosts  # noqa: PLC0415

        for check in our_checks.ALL:
            checks.register(check, checks.Tags.security)
        connection_created.connect(remember_in_memory, dispatch_uid="channels_wsdeny.in_memory")
        remember_allowed_hosts()
        setting_changed.connect(follow_allowed_hosts, dispatch_uid="channels_wsdeny.origins")
