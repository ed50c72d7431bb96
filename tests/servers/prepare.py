"""``python -m tests.servers.prepare``: make the database; print its users' session keys as JSON."""

import json

import django

django.setup()

from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import Client  # noqa: E402

call_command("migrate", verbosity=0)
keys = {}
for name in ("alice", "bob", "staff"):
    user = get_user_model().objects.create_user(name, is_staff=name == "staff")
    client = Client()
    client.force_login(user)
    keys[name] = client.session.session_key
print(json.dumps(keys))
