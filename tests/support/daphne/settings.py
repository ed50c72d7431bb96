"""Settings for a site that is nothing but its server."""

import os

SECRET_KEY = "not a secret"
DEBUG = True
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = os.environ.get("TESTS_DAPHNE_APPS", "channels_wsdeny daphne").split()
STATIC_URL = "static/"
ROOT_URLCONF = __name__
ASGI_APPLICATION = "tests.support.daphne.apps.scripted"
WSGI_APPLICATION = None
USE_TZ = True
NAME = os.environ.get("TESTS_DAPHNE_DATABASE", ":memory:")
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": NAME, "TEST": {"NAME": NAME}}}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}

urlpatterns: list[object] = []
