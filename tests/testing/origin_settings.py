"""Settings of a site that allows no host of its own: a live server's is allowed by the tests alone."""

from tests.testing.settings import *  # noqa: F403

ALLOWED_HOSTS = []
ASGI_APPLICATION = "tests.testing.origin_site.application"
