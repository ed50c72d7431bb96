"""Origins: in tests, what Channels' `AllowedHostsOriginValidator` allows follows ``ALLOWED_HOSTS``.

It reads the setting once, when ``asgi.py`` is imported. Live servers add their host to the setting, and by
then anything may have imported ``asgi.py``: an earlier test, the system checks.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from channels.security.websocket import OriginValidator
from django.conf import settings

from ..inspection.endpoints import ways

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The lists that were ``ALLOWED_HOSTS`` when it was last looked at, overridden ones too. Which list a
#: validator holds tells whether it was made of the setting.
_known: list[Any] = []


def remember_allowed_hosts() -> None:
    """Remember what ``ALLOWED_HOSTS`` is now, as what validators may have been made of."""
    _known[:] = [*_known[:1], *_allowed_hosts()]


def follow_allowed_hosts(*, setting: str, **kwargs: Any) -> None:
    """A receiver of Django's `setting_changed`, which tests send: has ``ASGI_APPLICATION`` follow."""
    if setting != "ALLOWED_HOSTS":
        return
    application = imported_application()
    if application is not None:
        _follow(application)
    remember_allowed_hosts()


@contextmanager
def allowed_hosts_in(application: Any) -> Iterator[None]:
    """Have `application`, which need not be the site's, follow ``ALLOWED_HOSTS`` as it is now, meanwhile."""
    followed = _follow(application)
    try:
        yield
    finally:
        for validator, before in followed:
            validator.allowed_origins = before


def imported_application() -> Any:
    """``ASGI_APPLICATION`` if its module has been imported already; else None."""
    path = getattr(settings, "ASGI_APPLICATION", None)
    if not isinstance(path, str):
        return None
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def _follow(application: Any) -> list[tuple[OriginValidator, Any]]:
    """Returns the validators that have changed, and what they held before."""
    former = [*_known, *_allowed_hosts()]
    changed = [
        (validator, validator.allowed_origins)
        for validator in _validators(application)
        if any(validator.allowed_origins is hosts for hosts in former)
    ]
    for validator, _ in changed:
        validator.allowed_origins = settings.ALLOWED_HOSTS
    return changed


def _validators(application: Any) -> list[OriginValidator]:
    """The validators of `application`, each once."""
    try:
        apps = [app for way in ways(application, "websocket") for app in way.apps]
    except Exception:  # noqa: BLE001 - routes that cannot be read are no business of who overrides a setting
        return []
    return list({id(app): app for app in apps if isinstance(app, OriginValidator)}.values())


def _allowed_hosts() -> list[Any]:
    """What ``ALLOWED_HOSTS`` is, and what it was before each override that is in force."""
    found = []
    holder = vars(settings).get("_wrapped")
    while holder is not None:
        found.append(getattr(holder, "ALLOWED_HOSTS", None))
        holder = getattr(holder, "__dict__", {}).get("default_settings")
    return [hosts for hosts in found if hosts is not None]
