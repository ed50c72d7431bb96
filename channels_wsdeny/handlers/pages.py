"""Pages for browsers: what a person sees where a program gets a problem body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings, urls
from django.core.exceptions import BadRequest, ImproperlyConfigured, PermissionDenied
from django.core.handlers.exception import get_exception_response
from django.http import Http404
from django.template.loader import get_template
from django.urls import NoReverseMatch, get_callable, get_resolver, get_urlconf

from ..decisions import Step, Steps
from ..policies.base import user_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from ..exceptions import Deny

#: Statuses for which Django has an error view of the site's, and the exception that it shows.
_ERROR_PAGES = {400: BadRequest, 403: PermissionDenied, 404: Http404}


def page_for(
    request: HttpRequest, view: Callable[..., Any] | None, deny: Deny
) -> Steps[HttpResponseBase | None]:
    """For a browser: the way to ``LOGIN_URL`` and back, or the site's page for the status, if it has one."""
    if deny.status == 401:
        user = (yield from user_of(request)) if hasattr(request, "user") else None
        return None if user is not None and user.is_authenticated else _log_in(request, view)
    if deny.status not in _ERROR_PAGES or settings.DEBUG:
        return None
    yield Step.BLOCKING  # The site's templates may ask the database.
    resolver = get_resolver(get_urlconf())
    if not _has_page(resolver, deny.status):
        return None
    page: HttpResponseBase = get_exception_response(
        request, resolver, deny.status, _ERROR_PAGES[deny.status](deny.detail)
    )
    if not getattr(page, "is_rendered", True):
        page = page.render()  # type: ignore[attr-defined]
    return page if page.status_code == deny.status else None


def _has_page(resolver: Any, status: int) -> bool:
    """Whether the site has a template or view for errors of this status, rather than Django's bare line."""
    try:
        if resolver.resolve_error_handler(status) is not get_callable(getattr(urls, f"handler{status}")):
            return True
        get_template(f"{status}.html")
    except Exception:  # noqa: BLE001 - no template, or a URLconf that is broken: our own page has to do
        return False
    return True


def _log_in(request: HttpRequest, view: Callable[..., Any] | None) -> HttpResponseBase | None:
    # Imported here: it needs loaded apps, and decorators are imported before that.
    from django.contrib.auth.middleware import LoginRequiredMiddleware  # noqa: PLC0415

    try:
        return LoginRequiredMiddleware(lambda request: None).handle_no_permission(request, view)  # type: ignore[arg-type]
    except (ImproperlyConfigured, NoReverseMatch):
        return None  # A site without a log-in page.
