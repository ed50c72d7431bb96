"""A site with an endpoint for every case, behind every door."""

from __future__ import annotations

from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path, re_path

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import require
from tests.cases import CASES


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data, bytes_data=bytes_data)


class SyncEcho(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data=text_data, bytes_data=bytes_data)


class Hello(AsyncHttpConsumer):
    async def handle(self, body):
        await self.send_response(200, b"hello", headers=[(b"content-type", b"text/plain")])


def guarded_consumer(base, case):
    return require(case.policy)(type(base.__name__, (base,), {}))


def sync_view(case):
    @require(case.policy)
    def view(request):
        return HttpResponse("hello")

    return view


def async_view(case):
    @require(case.policy)
    async def view(request):
        return HttpResponse("hello")

    return view


websocket_urlpatterns = [path(f"ws/{case.name}/", guarded_consumer(Echo, case).as_asgi()) for case in CASES]
http_urlpatterns = [path(f"http/{case.name}/", guarded_consumer(Hello, case).as_asgi()) for case in CASES]
urlpatterns = [path(f"sync/{case.name}/", sync_view(case)) for case in CASES]
urlpatterns += [path(f"async/{case.name}/", async_view(case)) for case in CASES]

application = DenyMiddlewareStack(
    ProtocolTypeRouter(
        {
            "http": URLRouter([*http_urlpatterns, re_path("", get_asgi_application())]),
            "websocket": URLRouter(websocket_urlpatterns),
        }
    )
)
