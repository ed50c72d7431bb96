"""Settings of the server processes: what they share is a database file and a Redis."""

import os

from testproject.settings import *  # noqa: F403
from tests.support.processes import LOGGING  # noqa: F401 - it is a setting

ROOT_URLCONF = "tests.live.site"
ASGI_APPLICATION = "tests.live.asgi.application"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["LIVE_DATABASE"],
        "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE"},
    }
}
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": os.environ["LIVE_REDIS"],
        "KEY_PREFIX": os.environ["LIVE_PREFIX"],
    }
}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": f"channels_redis.{os.environ['LIVE_LAYER']}",
        "CONFIG": {
            "hosts": [{"address": os.environ["LIVE_REDIS"], "socket_timeout": None}],
            "prefix": os.environ["LIVE_PREFIX"],
        },
    }
}
SESSION_ENGINE = f"django.contrib.sessions.backends.{os.environ.get('LIVE_ENGINE', 'db')}"
SESSION_FILE_PATH = os.environ.get("LIVE_FILES")
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
CHANNELS_WSDENY = {"HEARTBEAT": 1.0, "RECHECK_INTERVAL": float(os.environ.get("LIVE_INTERVAL", 0))}
CHANNELS_WSDENY["DRAIN_SECONDS"] = float(os.environ.get("LIVE_DRAIN", 0))
CHANNELS_WSDENY["POLICY_TIMEOUT"] = float(os.environ.get("LIVE_TIMEOUT", 4))
