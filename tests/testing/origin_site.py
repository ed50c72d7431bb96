"""A site whose sockets look at Origin, by what ``ALLOWED_HOSTS`` is when this is imported."""

from __future__ import annotations

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator, OriginValidator
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import path

from .apps import echo

application = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": URLRouter(
            [
                path("ws/as-channels-has-it/", AllowedHostsOriginValidator(echo)),
                path("ws/of-ones-own/", OriginValidator(echo, ["example.com", *settings.ALLOWED_HOSTS])),
            ]
        ),
    }
)
