"""The visitor's language, where the site negotiates it: `LocaleMiddleware` never sees a handshake."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, copy_context
from functools import cache
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.utils import translation

from .request import ScopeRequest

if TYPE_CHECKING:
    from django.http import HttpRequest

_LOCALE_MIDDLEWARE = "django.middleware.locale.LocaleMiddleware"


def are_negotiated() -> bool:
    """Whether the site's answers depend on ``Accept-Language``."""
    return settings.USE_I18N and _LOCALE_MIDDLEWARE in settings.MIDDLEWARE


def active() -> str | None:
    """The language that texts are in now; None for that of the settings."""
    variable = _variable()
    if variable is not None and variable.get(None) is None:
        return None
    return translation.get_language()


@cache
def _variable() -> ContextVar[Any] | None:
    """The context variable that `django.utils.translation` keeps the active language in, if it is one.

    Looking at it takes a fiftieth of what asking Django takes.
    """
    context = copy_context()
    context.run(translation.deactivate_all)
    added = set(context) - set(copy_context())
    return added.pop() if len(added) == 1 else None


def language_of(request: HttpRequest) -> AbstractContextManager[None]:
    """A context in which texts are in the visitor's language, by the rules of `LocaleMiddleware`."""
    if not isinstance(request, ScopeRequest) or not are_negotiated():
        return nullcontext()  # A view's request has its language active already.
    try:
        language = translation.get_language_from_request(request)
    except Exception:  # noqa: BLE001 - a malformed header must not change the denial
        return nullcontext()
    return translation.override(language)
