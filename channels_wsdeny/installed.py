"""What is installed: the middleware of the site, by their classes."""

from __future__ import annotations

from django.conf import settings
from django.utils.module_loading import import_string

SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
LOGIN_REQUIRED = "django.contrib.auth.middleware.LoginRequiredMiddleware"


def place_of(name: str) -> int | None:
    """Where in ``MIDDLEWARE`` the class with this dotted name is, or a subclass; None if it is not there."""
    for place, path in enumerate(settings.MIDDLEWARE):
        if path == name or name in _names_of_bases(path):
            return place
    return None


def _names_of_bases(path: str) -> set[str]:
    try:
        middleware = import_string(path)
    except Exception:  # noqa: BLE001 - importing a site's module can raise anything, and Django says so
        return set()
    return {f"{base.__module__}.{base.__qualname__}" for base in getattr(middleware, "__mro__", ())}
