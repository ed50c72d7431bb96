"""The ASGI application of the server processes."""

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

from channels_wsdeny import DenyMiddlewareStack

http = get_asgi_application()

from .site import sockets  # noqa: E402

routes = [path(f"ws/{name}/", socket) for name, socket in sockets.items()]
application = DenyMiddlewareStack(ProtocolTypeRouter({"http": http, "websocket": URLRouter(routes)}))
