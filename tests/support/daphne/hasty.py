"""An application that may take two tenths of a second, and the server's timeouts with them."""

from django.conf import settings

from .apps import scripted

settings.configure(CHANNELS_WSDENY={"POLICY_TIMEOUT": 0.1, "ACCEPT_TIMEOUT": 0.1})

application = scripted
