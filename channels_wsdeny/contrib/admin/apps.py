"""The app: ``"channels_wsdeny.contrib.admin"`` in INSTALLED_APPS."""

from __future__ import annotations

from django.apps import AppConfig, apps
from django.core.exceptions import ImproperlyConfigured

from ...log import logger
from .denials import note


class WsdenyAdminConfig(AppConfig):
    """Adds the pages to Django's admin, and notes denials from now on."""

    name = "channels_wsdeny.contrib.admin"
    label = "channels_wsdeny_admin"
    verbose_name = "channels_wsdeny"

    def ready(self) -> None:
        """Called by Django once all apps are loaded. Raises `ImproperlyConfigured` without the apps that it needs."""
        for needed in ("channels_wsdeny", "django.contrib.admin"):
            if not apps.is_installed(needed):
                raise ImproperlyConfigured(f"{self.name!r} needs {needed!r} in INSTALLED_APPS.")
        logger.addFilter(note)
