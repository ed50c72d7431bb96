"""A site with an endpoint for every case: a consumer, an HTTP consumer, a view and an asynchronous view."""

from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path, re_path

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import require

from .cases import CASES


class Echo(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data=text_data, bytes_data=bytes_data)


class SyncEcho(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data=text_data, bytes_data=bytes_data)


class Hello(AsyncHttpConsumer):
    async def handle(self, body):
        await self.send_response(200, b"hello", headers=[(b"content-type", b"text/plain")])


def view(request):
    return HttpResponse("hello")


async def async_view(request):
    return HttpResponse("hello")


def guarded(consumer, policy):
    return require(policy)(type(consumer.__name__, (consumer,), {})).as_asgi()


def with_another(stack, prefix, other):
    """The application of a server: `stack`, and under this prefix of paths `other`, for clients in browsers."""

    async def application(scope, receive, send):
        is_other = scope["type"] != "lifespan" and scope["path"].startswith(f"{prefix}/")
        scope = {**scope, "path": scope["path"].removeprefix(prefix)} if is_other else scope
        await (other if is_other else stack)(scope, receive, send)

    return application


websocket_urlpatterns = [path(f"ws/{case.name}/", guarded(Echo, case.policy)) for case in CASES]
http_urlpatterns = [path(f"http/{case.name}/", guarded(Hello, case.policy)) for case in CASES]
urlpatterns = [path(f"sync/{case.name}/", require(case.policy)(view)) for case in CASES]
urlpatterns += [path(f"async/{case.name}/", require(case.policy)(async_view)) for case in CASES]

http = URLRouter([*http_urlpatterns, re_path("", get_asgi_application())])
application = DenyMiddlewareStack(ProtocolTypeRouter({"http": http, "websocket": URLRouter(websocket_urlpatterns)}))
