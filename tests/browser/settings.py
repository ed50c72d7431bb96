"""Settings of the site that Chromium opens."""

import os

from testproject.settings import *  # noqa: F403

ROOT_URLCONF = "tests.browser.site"
CSRF_TRUSTED_ORIGINS = os.environ["BROWSER_ORIGINS"].split()
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["BROWSER_DATABASE"]}}
