"""Settings of the servers under test: the test project's, with the tests' own site and database."""

import json
import os

from testproject.settings import *  # noqa: F403

ROOT_URLCONF = "tests.support.case_site"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["SERVERS_DATABASE"],
        "OPTIONS": {"timeout": 30},
    }
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
CHANNELS_WSDENY = json.loads(os.environ.get("SERVERS_CHANNELS_WSDENY", "{}"))
globals().update(json.loads(os.environ.get("SERVERS_SETTINGS", "{}")))

# One line a record and its traceback, for `test_logs` to read.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}
