"""The application that an ASGI server runs: ``testproject.asgi:application``."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.settings")

# Sets Django up, so it comes before everything that imports models.
django_application = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

from channels_wsdeny import DenyMiddlewareStack  # noqa: E402
from channels_wsdeny.authentication import SessionAuthentication, SubprotocolToken, TicketAuthentication  # noqa: E402
from testproject.chat.authentication import token_authentication  # noqa: E402
from testproject.chat.hooks import hooks  # noqa: E402
from testproject.chat.routing import websocket_urlpatterns  # noqa: E402

application = DenyMiddlewareStack(
    ProtocolTypeRouter(
        {
            "http": django_application,
            "websocket": URLRouter(websocket_urlpatterns),
        }
    ),
    hooks=hooks,
    # The session comes last: browsers send its cookie with every handshake, but a token or ticket is meant.
    authentication=[
        token_authentication,
        SubprotocolToken("bearer", token_authentication),
        TicketAuthentication(),
        SessionAuthentication(),
    ],
)
