"""What a process of a test begins with."""

import django
from django.conf import settings
from django.core.management import call_command

from testproject import settings as own


def set_up(*apps, **values):
    """Set Django up as in the test project, with these apps and settings as well, and a database in memory."""
    given = {name: getattr(own, name) for name in dir(own) if name.isupper()}
    given["INSTALLED_APPS"] = [*own.INSTALLED_APPS, *apps]
    given["DATABASES"] = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
    settings.configure(**given | values)
    django.setup()
    call_command("migrate", run_syncdb=True, verbosity=0)
