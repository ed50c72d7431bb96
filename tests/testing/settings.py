"""The test project's settings, with this directory's site, and the database in a file if there is one."""

import os

from testproject.settings import *  # noqa: F403
from testproject.settings import DATABASES

ROOT_URLCONF = "tests.testing.site"
ASGI_APPLICATION = "tests.testing.site.application"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
if DATABASES["default"]["ENGINE"].endswith("sqlite3") and "TESTS_TESTING_DATABASE" in os.environ:
    DATABASES["default"]["TEST"] = {"NAME": os.environ["TESTS_TESTING_DATABASE"]}
