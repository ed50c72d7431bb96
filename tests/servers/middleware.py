"""Django middleware for servers under test: one of each kind, which mark what passes."""

from django.contrib.sessions.models import Session
from django.utils.decorators import async_only_middleware, sync_only_middleware
from django.utils.deprecation import MiddlewareMixin

ALL = [f"{__name__}.{name}" for name in ("Split", "synchronous", "asynchronous")]


class Split(MiddlewareMixin):
    def process_response(self, request, response):
        response["X-Split"] = str(response.status_code)
        return response


@sync_only_middleware
def synchronous(get_response):
    def middleware(request):
        Session.objects.count()
        response = get_response(request)
        response["X-Sync"] = str(Session.objects.count() > 0)
        response.set_cookie("seen", "1")
        return response

    return middleware


@async_only_middleware
def asynchronous(get_response):
    async def middleware(request):
        response = await get_response(request)
        response["X-Async"] = request.resolver_match.route if request.resolver_match else "none"
        return response

    return middleware
