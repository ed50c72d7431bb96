"""Settings of the sites under measurement: as few as a site with sessions and permissions can do with.

What differs from worker to worker comes as JSON in the environment, see `benchmarks.workers`.
"""

import json
import os
from pathlib import Path

_given = json.loads(os.environ.get("BENCHMARKS_SETTINGS", "{}"))
_database = Path(os.environ["BENCHMARKS_DATABASE"])

SECRET_KEY = "the-benchmarks-guard-nothing"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = [
    "channels_wsdeny",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
]
MIDDLEWARE = []
ROOT_URLCONF = "benchmarks.sites.views"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": _database,
        "CONN_MAX_AGE": _given.pop("CONN_MAX_AGE", 0),
        "OPTIONS": {"timeout": 30},
    }
}
SESSION_FILE_PATH = str(_database.parent)
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
USE_TZ = True

# Denials are logged, as on a real site, but by a handler that formats and writes nothing.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"null": {"class": "logging.NullHandler"}},
    "loggers": {"channels_wsdeny": {"handlers": ["null"], "level": "INFO", "propagate": False}},
}

globals().update(_given)
