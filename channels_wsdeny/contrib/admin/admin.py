"""The pages in Django's admin, which list what is no row of a table."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth import get_permission_codename, get_user_model
from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import PermissionDenied
from django.http import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.html import conditional_escape
from django.utils.safestring import mark_safe
from django.utils.text import capfirst
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _

from ...conf import conf
from ...inspection.routes_table import folded, report_rows, summary
from ...live.channel_layer import get_layer
from ...live.registry import registry
from ...live.revoke import revoke_each, sockets
from ...log import escape, logger
from ...routes.redaction import without_secrets
from .denials import recent
from .models import Denial, OpenSocket, Route

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern

    #: What a row is about, where that can be closed; and its cells.
    Row = tuple[dict[str, Any], tuple[str, ...]]

#: Rows on a page.
_MOST = 500


class ReportAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # It cannot be subscripted when it runs.
    """Base of the pages: one view of rows, which cannot be added, changed or deleted."""

    columns: tuple[Any, ...]

    def report(self) -> tuple[list[Row], list[Any]]:
        """All rows, and what has to be said about them."""
        raise NotImplementedError

    def _never(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_add_permission = has_change_permission = has_delete_permission = has_close_permission = _never

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_changelist"
        return [path("", self.admin_site.admin_view(self.changelist_view), name=name)]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        rows, notes = self.report()
        if request.method == "POST":
            return self._close(request, rows)
        query = request.GET.get("q", "").strip()
        rows = [row for row in rows if any(query.lower() in cell.lower() for cell in row[1])]
        if len(rows) > _MOST:
            notes.append(_("%(shown)d of %(total)d are shown.") % {"shown": _MOST, "total": len(rows)})
        more = {"columns": self.columns, "notes": notes, "query": query, **(extra_context or {})}
        return self._page(request, "report", capfirst(self.opts.verbose_name_plural), rows[:_MOST], more)

    def _page(self, request: HttpRequest, template: str, title: Any, rows: list[Row], more: Any) -> TemplateResponse:
        request.current_app = self.admin_site.name
        context = self.admin_site.each_context(request)
        shown = [(about, [_breakable(cell) for cell in cells]) for about, cells in rows]
        context |= {"opts": self.opts, "title": title, "rows": shown, "here": request.get_full_path()}
        context |= {"may_close": self.has_close_permission(request), "checkbox": ACTION_CHECKBOX_NAME, **more}
        return TemplateResponse(request, f"channels_wsdeny/admin/{template}.html", context)

    def _close(self, request: HttpRequest, rows: list[Row]) -> HttpResponse:
        """Close what the selected rows are about, once that is confirmed."""
        if not self.has_close_permission(request):
            raise PermissionDenied
        selected = set(request.POST.getlist(ACTION_CHECKBOX_NAME))
        rows = [row for row in rows if row[0]["key"] in selected]
        if rows and "post" not in request.POST:
            return self._page(request, "close", _("Are you sure?"), rows, {})
        level, text = messages.WARNING, str(_("No open socket is selected."))
        if rows:
            logged: Any = [self.model(path=" ".join(cells[:2])) for _about, cells in rows]
            self.log_deletions(request, logged)
            level, text = messages.SUCCESS, str(_("The selected sockets are being closed."))
            try:
                revoke_each(about for about, _cells in rows)
            except Exception as error:  # The layer: which errors it raises is not known.
                level = messages.ERROR
                text = _("The sockets of other processes could not be closed: %s") % type(error).__name__
        self.message_user(request, text, level)
        return HttpResponseRedirect(request.get_full_path())


@admin.register(Route)
class RouteAdmin(ReportAdmin):
    """What ``manage.py wsdeny routes`` lists."""

    columns = (_("Protocol"), _("Path"), _("Access"), _("Policy"), _("Source"), _("Endpoint"), _("Remarks"))

    def report(self) -> tuple[list[Row], list[Any]]:
        try:
            found = report_rows()
        except Exception as error:  # Importing a module of the site can raise anything.
            return [], [_("The routes cannot be read: %s") % type(error).__name__]
        rows: list[Row] = []
        for row in folded(found):
            guarded_by = row.access, row.policy or "", row.source
            rows.append(({}, (row.protocol, row.path, *guarded_by, row.endpoint, "; ".join(row.remarks))))
        return rows, [summary(found)]


@admin.register(OpenSocket)
class SocketAdmin(ReportAdmin):
    """What ``manage.py wsdeny sockets`` lists, and an action that closes the selected ones."""

    columns = (_("Path"), _("User"), _("Consumer"), _("Since"), _("Process"))

    def has_close_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.{get_permission_codename('close', self.opts)}")

    def report(self) -> tuple[list[Row], list[Any]]:
        notes: list[Any] = []
        if not conf.LIVE:
            notes.append(_("LIVE is off: which sockets are open is not known."))
        elif get_layer() is None:
            notes.append(_("No channel layer leads to other processes: these are the sockets of this process."))
        try:
            found = sockets()
        except Exception as error:  # The channel layer: which errors it raises is not known.
            found = registry.describe()
            notes.append(_("The sockets of other processes are not known: %s") % type(error).__name__)
        names = _names(each["user"] for each in found)
        rows: list[Row] = []
        for each in sorted(found, key=lambda each: each["since"], reverse=True):
            each["key"] = f"{each['process']} {each['since']!r}"
            shown_path, user = escape(without_secrets(each["path"])), each["user"] or ""
            last = each["consumer"] or "", _shown(each["since"]), each["process"]
            rows.append((each, (shown_path, names.get(user, user), *last)))
        return rows, notes


@admin.register(Denial)
class DenialAdmin(ReportAdmin):
    """The recent denials of sockets, views and ASGI applications."""

    columns = (_("Time"), _("Status"), _("Code"), _("Path"), _("User"), _("Policy"))

    def report(self) -> tuple[list[Row], list[Any]]:
        notes: list[Any] = []
        if not logger.isEnabledFor(logging.WARNING):
            notes.append(_("The logger channels_wsdeny takes no warnings, so denials are not noted."))
        try:
            found = recent.read()
            if isinstance(caches["default"], (LocMemCache, DummyCache)):
                notes.append(_("The cache is one for each process: these are the denials of this process."))
        except Exception as error:  # A cache may raise anything.
            found = recent.own()
            text = _("The cache cannot be read (%s): these are the denials of this process.")
            notes.append(text % type(error).__name__)
        names = _names(each.user for each in found)
        rows: list[Row] = [
            ({}, (_shown(time), str(status), code, where, names.get(user, user), policy))
            for time, status, code, where, user, policy in found
        ]
        return rows, notes


def _breakable(text: str) -> str:
    """`text` as HTML that may be broken after dots and slashes: a dotted name is wider than a column."""
    return mark_safe(re.sub(r"[./]", r"\g<0><wbr>", conditional_escape(text)))  # noqa: S308 - it is escaped


def _shown(seconds: float) -> str:
    return localtime(datetime.fromtimestamp(seconds, UTC)).strftime("%Y-%m-%d %H:%M:%S %Z")


def _names(keys: Iterable[str | None]) -> dict[str, str]:
    """The names of users, by their primary keys as strings."""
    model: Any = get_user_model()
    known = []
    for key in filter(None, set(keys)):
        with suppress(Exception):  # It may be that of a token's user, which is of another model.
            known.append(model._meta.pk.to_python(key))
    users = model._base_manager.filter(pk__in=known)
    return {str(user.pk): escape(f"{user.get_username()} ({user.pk})") for user in users}
