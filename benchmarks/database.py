"""The database: users with and without the permission, their sessions, and wrappers around queries."""

from __future__ import annotations

import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

import django
from django.apps import apps
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.core.management import call_command
from django.db import connections
from django.db.backends.signals import connection_created

from .sites import PERMISSION
from .visitors import GUEST, MEMBER

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.sessions.backends.base import SessionBase


#: What a slow query takes.
QUERY_SECONDS = 0.01


def prepare() -> None:
    """Create the tables, a member who has the permission, and a guest who has not."""
    call_command("migrate", verbosity=0)
    users = get_user_model().objects
    users.create_user(GUEST)
    app_label, codename = PERMISSION.split(".")
    permissions = apps.get_model("auth", "Permission").objects
    permission = permissions.get(content_type__app_label=app_label, codename=codename)
    users.create_user(MEMBER).user_permissions.add(permission)


def log_in(name: str) -> str:
    """The key of a new session of this user, by the site's session engine."""
    user = get_user_model().objects.get(username=name)
    session: SessionBase = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    connections.close_all()
    return str(session.session_key)


def wrap_queries(wrapper: Callable[..., Any]) -> None:
    """Put an execute wrapper around the queries of every connection that this process opens from now on."""

    def wrap(connection: Any, **kwargs: Any) -> None:
        if wrapper not in connection.execute_wrappers:
            connection.execute_wrappers.append(wrapper)

    connection_created.connect(wrap, weak=False)


def make_slow() -> None:
    """Let every query take `QUERY_SECONDS` longer, as on a database at the other end of a busy network."""
    wrap_queries(_wait)


def _wait(execute: Any, *query: Any) -> Any:
    time.sleep(QUERY_SECONDS)
    return execute(*query)


if __name__ == "__main__":
    django.setup()
    prepare()
