"""A site of one view, asked in each way that Django runs it."""

import asyncio
import functools
from types import ModuleType

from asgiref.sync import async_to_sync
from django import urls
from django.core.asgi import get_asgi_application
from django.http import HttpResponse, JsonResponse
from django.test import AsyncClient, Client, override_settings
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

JSON, FORM, MULTIPART = "application/json", "application/x-www-form-urlencoded", MULTIPART_CONTENT
MIRROR = "channels_wsdeny.middleware.MirrorMiddleware"
#: Django's handlers by its test clients, and its ASGI application by a server: only there the body is a file.
WAYS = ("wsgi", "asgi", "server")


def ask(view, body=b"", content_type=JSON, *, way="wsgi", middleware=(), method="POST", csrf=False, **headers):
    """The response of the one view of a site. A body with a Transfer-Encoding declares no length."""
    urlconf = ModuleType("urls")
    urlconf.urlpatterns = [urls.path("", view), urls.path("<name>/", view)]
    url = headers.pop("url", "/")
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    with override_settings(ROOT_URLCONF=urlconf, MIDDLEWARE=list(middleware)):
        if way == "server":
            return async_to_sync(_serve)(url, body, method, {"Content-Type": content_type} | headers)
        kind = {"wsgi": Client, "asgi": AsyncClient}[way]
        client = kind(raise_request_exception=False, enforce_csrf_checks=csrf)
        client.cookies.load(headers.pop("Cookie", ""))
        send = functools.partial(client.generic, method, url, body, content_type, headers=headers)
        return send() if way == "wsgi" else async_to_sync(_await)(send)


async def _await(send):
    return await send()


async def _serve(url, body, method, headers):
    if "Transfer-Encoding" not in headers:
        headers["Content-Length"] = str(len(body))
    raw = [(name.lower().encode(), value.encode()) for name, value in ({"Host": "testserver"} | headers).items()]
    path, _, query = url.partition("?")
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": raw}
    received, sent = asyncio.Queue(), []
    received.put_nowait({"type": "http.request", "body": body})

    async def send(message):
        sent.append(message)

    await get_asgi_application()(scope, received.get, send)
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    content = b"".join(message["body"] for message in sent[1:])
    return HttpResponse(content, status=sent[0]["status"], headers=answered)


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
