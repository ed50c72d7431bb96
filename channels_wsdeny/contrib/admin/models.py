"""What Django's admin has pages and permissions for. There are no tables."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _


class Report(models.Model):
    """Base of what a page lists; the log of the admin tells of it by its path."""

    path = models.TextField(primary_key=True)

    class Meta:
        abstract = True
        managed = False
        default_permissions: ClassVar[tuple[str, ...]] = ("view",)

    def __str__(self) -> str:
        return self.path


class Route(Report):
    """A socket, ASGI application or view of the site, and what protects it."""

    class Meta(Report.Meta):
        verbose_name, verbose_name_plural = _("route"), _("routes")


class OpenSocket(Report):
    """An accepted socket; to close it, the permission to view it is needed as well."""

    class Meta(Report.Meta):
        default_permissions = ("view", "close")
        verbose_name, verbose_name_plural = _("open socket"), _("open sockets")


class Denial(Report):
    """A request that was denied not long ago."""

    class Meta(Report.Meta):
        verbose_name, verbose_name_plural = _("denial"), _("recent denials")
