"""A site of one view, asked in each way that Django runs it."""

from types import ModuleType

from django import urls
from django.http import HttpResponse, JsonResponse
from django.test import override_settings
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from .transports import Asgi, Served, Wsgi

JSON, FORM, MULTIPART = "application/json", "application/x-www-form-urlencoded", MULTIPART_CONTENT
MIRROR = "channels_wsdeny.middleware.MirrorMiddleware"
#: Django's handlers by its test clients, and its ASGI application by a server: only there the body is a file.
WAYS = {"wsgi": Wsgi, "asgi": Asgi, "server": Served}


def ask(view, body=b"", content_type=JSON, *, way="wsgi", middleware=(), method="POST", csrf=False, **headers):
    """The response of the one view of a site. A body with a Transfer-Encoding declares no length."""
    urlconf = ModuleType("urls")
    urlconf.urlpatterns = [urls.path("", view), urls.path("<name>/", view)]
    url, transport = headers.pop("url", "/"), WAYS[way]()
    transport.enforces_csrf = csrf
    headers = {"Content-Type": content_type} | {name.replace("_", "-"): value for name, value in headers.items()}
    with override_settings(ROOT_URLCONF=urlconf, MIDDLEWARE=list(middleware)):
        answer = transport.ask(method, url, body, headers)
    return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))


def multipart(**fields):
    return encode_multipart(BOUNDARY, fields)


def echo(request):
    return HttpResponse(request.body)


async def echo_async(request):
    return HttpResponse(request.body)


def form_of(request):
    files = {name: file.read().decode() for name, file in request.FILES.items()}
    return JsonResponse({"fields": request.POST, "files": files})


def json_of(request):
    return JsonResponse(request.json(), safe=False)
