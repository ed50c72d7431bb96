"""Settings of the servers under test: the test project's, with the tests' own site and database."""

import json
import os

from testproject.settings import *  # noqa: F403
from tests.support.processes import LOGGING  # noqa: F401 - it is a setting

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
