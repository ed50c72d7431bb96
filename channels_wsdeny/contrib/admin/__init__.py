"""Pages for Django's admin, with this module in ``INSTALLED_APPS``: routes, open sockets, recent denials.

Without them, an action for the admin of users: ``actions = [close_sockets]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin import action
from django.utils.translation import gettext_lazy as _

from ...live import revoke

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest


@action(description=_("Close the open sockets of the selected users"), permissions=["change"])
def close_sockets(modeladmin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> None:
    """Close the sockets of the selected users in all processes, with 4403. They may connect again."""
    failed: Exception | None = None
    for user in queryset:
        try:
            revoke(user=user)
        except Exception as error:  # The layer: which errors it raises is not known. It has closed those that are here.
            failed = error
    if failed is not None:
        text = _("The sockets of other processes could not be closed: %s")
        modeladmin.message_user(request, text % type(failed).__name__, messages.ERROR)
    else:
        modeladmin.message_user(request, _("The sockets of the selected users are closed."), messages.SUCCESS)
