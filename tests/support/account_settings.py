"""The test project's settings with `account_site`, and the test database in a file if one is named."""

import os

from testproject.settings import *  # noqa: F403
from testproject.settings import DATABASES

ALLOWED_HOSTS = []
ROOT_URLCONF = "tests.support.account_site"
ASGI_APPLICATION = "tests.support.account_asgi.application"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
if DATABASES["default"]["ENGINE"].endswith("sqlite3") and "TESTS_DATABASE_FILE" in os.environ:
    DATABASES["default"]["TEST"] = {"NAME": os.environ["TESTS_DATABASE_FILE"]}
