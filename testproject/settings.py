"""Settings of the demo, and of the package's own tests. Not an example for production."""

import logging
import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = "django-insecure-the-demo-runs-on-localhost-and-guards-nothing"
DEBUG = os.environ.get("TESTPROJECT_DEBUG", "") == "1"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", "testserver"]

INSTALLED_APPS = [
    "channels_wsdeny",
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels_wsdeny.contrib.admin",
    "testproject.chat",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "channels_wsdeny.middleware.MirrorMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "testproject.urls"
ASGI_APPLICATION = "testproject.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# TESTPROJECT_DATABASE=postgresql (or mysql) runs the demo and the tests on another database.
_engine = os.environ.get("TESTPROJECT_DATABASE", "sqlite")
DATABASES = {
    "default": {
        "ENGINE": f"django.db.backends.{'sqlite3' if _engine == 'sqlite' else _engine}",
        "NAME": os.environ.get(
            "TESTPROJECT_DATABASE_NAME",
            str(BASE_DIR / "demo.sqlite3") if _engine == "sqlite" else "testproject",
        ),
        "HOST": os.environ.get("TESTPROJECT_DATABASE_HOST", ""),
        "PORT": os.environ.get("TESTPROJECT_DATABASE_PORT", ""),
        "USER": os.environ.get("TESTPROJECT_DATABASE_USER", ""),
        "PASSWORD": os.environ.get("TESTPROJECT_DATABASE_PASSWORD", ""),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Within one process. A site that runs several uses channels_redis.
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

# So is the cache, on which tickets and throttles count; for a single process that is right.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
SILENCED_SYSTEM_CHECKS = ["channels_wsdeny.W013"]

AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "testproject.chat.backends.RoomBackend",
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "room_list"
LOGOUT_REDIRECT_URL = "login"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        # Daphne's command line gives the root logger a handler: then one line a record is enough.
        "root_has_no_handler": {
            "()": "django.utils.log.CallbackFilter",
            "callback": lambda record: not logging.getLogger().handlers,
        },
    },
    "formatters": {"line": {"format": "%(asctime)s %(levelname)-8s %(message)s"}},
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "filters": ["root_has_no_handler"],
            "formatter": "line",
        },
    },
    "loggers": {
        "channels_wsdeny": {"handlers": ["console"], "level": "INFO"},
        "django": {"handlers": ["console"], "level": "INFO"},
    },
}
