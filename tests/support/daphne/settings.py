"""Settings for a site that is nothing but its server."""

import os

from tests.support.processes import LOGGING  # noqa: F401 - it is a setting

SECRET_KEY = "not a secret"
DEBUG = True
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = os.environ.get("TESTS_DAPHNE_APPS", "channels_wsdeny daphne").split()
STATIC_URL = "static/"
ROOT_URLCONF = __name__
ASGI_APPLICATION = "tests.support.daphne.apps.scripted"
WSGI_APPLICATION = None
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}

urlpatterns: list[object] = []
