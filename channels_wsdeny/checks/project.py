"""System checks of what the package stands on: the site's apps, sessions, middleware, and hooks."""

from __future__ import annotations

import inspect
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's names

from ..conf import MIRROR
from ..hooks.registry import site_hooks
from ..inspection.report import doors
from ..installed import AUTHENTICATION, SESSIONS, place_of
from ..names import name_of
from .asgi import check_application, is_left_alone, seen_ways

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..hooks.registry import Hook, Hooks

#: What hooks are called with.
_ARGUMENTS = {
    "request": ("request",),
    "route": ("request",),
    "response": ("request", "response"),
    "exception": ("request", "exception"),
    "around": ("request", "call_next"),
}
_WRITTEN_TWICE = ("load", "save", "create", "delete", "exists")


def check_apps(**kwargs: Any) -> list[CheckMessage]:
    """E010: the apps that know users and sessions are installed."""
    if not _has_stack():
        return []
    needed = ["django.contrib.auth"]
    if any(base.__module__ == "django.contrib.sessions.backends.db" for base in _engine_mro()):
        needed.append("django.contrib.sessions")
    return [
        Error(
            f"DenyMiddlewareStack needs {name!r}, which is not in INSTALLED_APPS: handshakes get a 500.",
            hint=f"Add {name!r} to INSTALLED_APPS, and run migrate.",
            id="channels_wsdeny.E010",
        )
        for name in needed
        if not apps.is_installed(name)
    ]


def check_session_engine(**kwargs: Any) -> list[CheckMessage]:
    """E009: ``SESSION_ENGINE`` can be used."""
    # A wrong one may be why the application cannot be looked at: asgi.py builds Django's handler, whose
    # SessionMiddleware imports the engine.
    if not _has_stack() and not check_application():
        return []
    try:
        store = import_module(settings.SESSION_ENGINE).SessionStore
        problem = "" if issubclass(store, SessionBase) else f"its SessionStore is {store!r}, no SessionBase"
    except Exception as error:  # noqa: BLE001 - importing a site's module can raise anything
        problem = repr(error)
    if not problem:
        return []
    return [
        Error(
            f"SESSION_ENGINE = {settings.SESSION_ENGINE!r} cannot be used: {problem}.",
            hint="Give the dotted path of a module with a SessionStore, such as "
            "'django.contrib.sessions.backends.db'.",
            id="channels_wsdeny.E009",
        )
    ]


def check_asynchronous_sessions(**kwargs: Any) -> list[CheckMessage]:
    """W009: a session engine does the same for coroutines, which consumers are, as for everybody else."""
    if not _has_stack():
        return []
    mro = _engine_mro()
    messages: list[CheckMessage] = []
    for name in _WRITTEN_TWICE:
        own, twin = _definer(mro, name), _definer(mro, f"a{name}")
        # Those of SessionBase itself call the synchronous ones.
        if own is None or twin is None or twin is SessionBase or mro.index(own) >= mro.index(twin):
            continue
        messages.append(
            Warning(
                f"SESSION_ENGINE = {settings.SESSION_ENGINE!r}: {name_of(own)} has its own {name}(), but "
                f"a{name}() is that of {name_of(twin)}, so what consumers await of the session passes it by.",
                hint=f"Give it an a{name}() too, or write a{name} = SessionBase.a{name}.",
                id="channels_wsdeny.W009",
            )
        )
    return messages


def check_place_of_mirror(**kwargs: Any) -> list[CheckMessage]:
    """W006: `MirrorMiddleware` comes after what gives requests their session and user."""
    mirror = place_of(MIRROR)
    if mirror is None:
        return []
    late = [name for name in (SESSIONS, AUTHENTICATION) if (place_of(name) or 0) > mirror]
    if not late:
        return []
    names = " and ".join(name.rpartition(".")[2] for name in late)
    return [
        Warning(
            f"MirrorMiddleware comes before {names} in MIDDLEWARE, so hooks that look at request.session or "
            "request.user fail on views.",
            hint=f"Put {MIRROR!r} after {late[-1]!r}.",
            id="channels_wsdeny.W006",
        )
    ]


def check_arguments_of_hooks(**kwargs: Any) -> list[CheckMessage]:
    """E008: every hook takes what it is called with."""
    return [
        Error(
            f"The hook {hook.name} takes {inspect.signature(hook.function)}, but "
            f"{hook.label.partition(' ')[0]} hooks are called with ({', '.join(_ARGUMENTS[hook.kind])}).",
            hint=f"Write it as {hook.name.rpartition('.')[2]}({', '.join(_ARGUMENTS[hook.kind])}).",
            id="channels_wsdeny.E008",
        )
        for hook in dict.fromkeys(_hooks())
        if not _takes(hook)
    ]


def _has_stack() -> bool:
    return any(way.has_stack for way in seen_ways("websocket"))


def _engine_mro() -> tuple[type[Any], ...]:
    try:
        store = import_module(settings.SESSION_ENGINE).SessionStore
    except Exception:  # noqa: BLE001 - importing a site's module can raise anything; E009 says so
        return ()
    return getattr(store, "__mro__", ())


def _definer(mro: tuple[type[Any], ...], name: str) -> type[Any] | None:
    return next((base for base in mro if name in vars(base)), None)


def _hooks() -> Iterator[Hook]:
    registries: list[Hooks] = []
    with suppress(Exception):  # E004 says so
        registries += site_hooks()
    for way in (*seen_ways("websocket"), *seen_ways("http")):
        registries += [hooks for layer in way.layers for hooks in layer.hooks]
        registries += way.guards.hooks
    for registry in registries:
        yield from registry
    if is_left_alone():
        return
    with suppress(Exception):  # A URLconf that is broken: Django says so.
        yield from [hook for door in doors() for hook in door.hooks]


def _takes(hook: Hook) -> bool:
    try:
        signature = inspect.signature(hook.function)
    except (TypeError, ValueError):  # Of something that is not written in Python.
        return True
    try:
        signature.bind(*_ARGUMENTS[hook.kind])
    except TypeError:
        return False
    return True
