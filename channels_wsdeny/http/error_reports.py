"""What error reports, such as Django's mails to the admins, show of requests that were made from scopes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from django.utils.module_loading import import_string
from django.views.debug import SafeExceptionReporterFilter

if TYPE_CHECKING:
    from collections.abc import ItemsView
    from types import FrameType

    from django.http import HttpRequest

#: Packages whose functions have headers and cookies in variables of many names.
_PACKAGES = {"channels", __name__.partition(".")[0]}


class _ScopeFilter(SafeExceptionReporterFilter):
    """Hides scopes: no name of theirs says that cookies and tokens are in them."""

    def get_traceback_frame_variables(self, request: HttpRequest | None, tb_frame: FrameType) -> ItemsView[str, Any]:
        variables = super().get_traceback_frame_variables(request, tb_frame)
        if not self.is_active(request):
            return variables
        hides_all = tb_frame.f_globals.get("__name__", "").partition(".")[0] in _PACKAGES
        hidden = self.cleansed_substitute
        return {name: hidden if hides_all or _shows(value) else value for name, value in variables}.items()


def _shows(value: Any) -> bool:
    """Whether the repr of a variable shows a scope, or a message with headers."""
    kind = type(value)  # Not the class of a lazy object, which would be loaded.
    parts = value.values() if issubclass(kind, dict) else value if issubclass(kind, (list, tuple)) else ()
    return any(issubclass(type(part), dict) and {"type", "headers"} <= part.keys() for part in (value, *parts))


@functools.cache
def reporter_filter(path: str) -> Any:
    """An object of the class at `path`, which is ``DEFAULT_EXCEPTION_REPORTER_FILTER``, that hides scopes as well."""
    return type("ScopeFilter", (_ScopeFilter, import_string(path)), {})()
