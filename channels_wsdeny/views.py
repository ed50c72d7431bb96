"""The view that issues tickets, and error views: problem bodies for programs, the site's own pages for browsers.

    path("ticket/", channels_wsdeny.views.ticket)

    handler400 = "channels_wsdeny.views.bad_request"
    handler403 = "channels_wsdeny.views.permission_denied"
    handler404 = "channels_wsdeny.views.page_not_found"
    handler500 = "channels_wsdeny.views.server_error"

Here exception hooks are asked about what inner middleware raised, and about unrouted paths. While ``DEBUG``
is on, Django calls no error view for 404 and 500.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from django.http import JsonResponse
from django.views import defaults
from django.views.decorators.csrf import csrf_protect, requires_csrf_token
from django.views.decorators.http import require_POST

from .authentication.ticket import TICKET_AGE, issue_ticket
from .decorators import login_required
from .exceptions import Deny
from .http.context import get_context
from .http.exception_handler import translate
from .http.responses import HTML, add_denial_headers, preferred_type, to_response
from .middleware import answer_exception

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

__all__ = ["bad_request", "page_not_found", "permission_denied", "server_error", "ticket"]


@require_POST
@csrf_protect
@login_required
def ticket(request: HttpRequest) -> HttpResponseBase:
    """A ticket for one handshake of the user at ``path``, a field of the form: ``{"ticket": …, "expires_in": 30}``.

    A POST with a CSRF token; a 401 for an anonymous user. See `channels_wsdeny.authentication.issue_ticket`.
    """
    path = request.POST.get("path", "")
    if not path:
        raise Deny(400, "The form has no path.")
    response = JsonResponse({"ticket": issue_ticket(request, path), "expires_in": TICKET_AGE})
    response["Cache-Control"] = "no-store"
    return response


@requires_csrf_token
def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """The response to a 400, for ``handler400``."""
    return _respond(request, 400, exception, lambda: defaults.bad_request(request, exception))


@requires_csrf_token
def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """The response to a 403, for ``handler403``."""
    return _respond(request, 403, exception, lambda: defaults.permission_denied(request, exception))


@requires_csrf_token
def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    """The response to a 404, for ``handler404``."""
    return _respond(request, 404, exception, lambda: defaults.page_not_found(request, exception))


@requires_csrf_token
def server_error(request: HttpRequest) -> HttpResponseBase:
    """The response to a 500, or a 503 where a service could not be reached; for ``handler500``."""
    return _respond(request, 500, sys.exc_info()[1], lambda: defaults.server_error(request))


for _view in (bad_request, permission_denied, page_not_found, server_error):
    vars(_view)["is_wsdeny"] = True  # These are no pages of the site's own.


def _respond(
    request: HttpRequest, status: int, error: BaseException | None, page: Callable[[], HttpResponseBase]
) -> HttpResponseBase:
    response = answer_exception(request, error) if isinstance(error, Exception) else None
    if response is not None:
        return response
    if preferred_type(request) == HTML:
        return page()
    denial = translate(error) if isinstance(error, Exception) else Deny(status)
    if (denial.status < 500) != (status < 500):
        denial = Deny(status)
    response = to_response(get_context(request), denial)  # Django logs it.
    add_denial_headers(response)
    return response
