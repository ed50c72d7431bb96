"""The ASGI application of `account_site`, which reads ``ALLOWED_HOSTS`` when it is imported."""

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import path

from channels_wsdeny import DenyMiddlewareStack

http = get_asgi_application()  # sets Django up for the models of the consumers

from .account_site import Count, Founders, Members, Open, SyncMembers, Visits  # noqa: E402

routes = [
    path("ws/members/", Members.as_asgi()),
    path("ws/sync/", SyncMembers.as_asgi()),
    path("ws/founders/", Founders.as_asgi()),
    path("ws/count/", Count.as_asgi()),
    path("ws/visits/", Visits.as_asgi()),
    path("ws/origin/", AllowedHostsOriginValidator(Open.as_asgi())),
]
application = DenyMiddlewareStack(ProtocolTypeRouter({"http": http, "websocket": URLRouter(routes)}))
