"""A server whose policies may take a tenth of a second, and its timeouts with them."""

from __future__ import annotations

from django.conf import settings

from .apps import scripted

settings.configure(CHANNELS_WSDENY={"POLICY_TIMEOUT": 0.1})

application = scripted
