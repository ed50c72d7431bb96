"""System checks: what people get wrong when they set the package up, each with an id and a remedy."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from channels.routing import ProtocolTypeRouter, get_default_application
from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's names

from .conf import KEYS, MIRROR, conf, is_mirrored
from .hooks import hooks_at
from .policies import as_policy
from .stack import DenyMiddlewareStack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def check_setting_is_a_dict(**kwargs: Any) -> list[CheckMessage]:
    """E001: ``CHANNELS_WSDENY`` is a dict."""
    value = getattr(settings, "CHANNELS_WSDENY", {})
    if isinstance(value, dict):
        return []
    return [
        Error(
            f"CHANNELS_WSDENY must be a dict, found {value!r}.",
            hint='Write CHANNELS_WSDENY = {"POLICY_TIMEOUT": 4}, or leave it out: every key has a default.',
            id="channels_wsdeny.E001",
        )
    ]


def check_keys(**kwargs: Any) -> list[CheckMessage]:
    """E002: every key is one that the package knows."""
    messages: list[CheckMessage] = []
    for name in _given():
        if name not in KEYS:
            close = difflib.get_close_matches(str(name), KEYS, n=1)
            meant = f"Did you mean {close[0]!r}? " if close else ""
            messages.append(
                Error(
                    f"CHANNELS_WSDENY has the key {name!r}, which is none.",
                    hint=f"{meant}The keys are: {', '.join(KEYS)}.",
                    id="channels_wsdeny.E002",
                )
            )
    return messages


def check_values(**kwargs: Any) -> list[CheckMessage]:
    """E003: every value is of the type that its key wants."""
    return [
        Error(
            f"CHANNELS_WSDENY[{name!r}] must be {KEYS[name].expected}, found {value!r}.",
            hint=f"The default is {KEYS[name].default!r}.",
            id="channels_wsdeny.E003",
        )
        for name, value in _given().items()
        if name in KEYS and not KEYS[name].valid(value)
    ]


def check_dotted_paths(**kwargs: Any) -> list[CheckMessage]:
    """E004: every dotted path imports, and names what its key wants."""
    messages: list[CheckMessage] = []
    given = _given()
    hooks = given.get("HOOKS", ())
    named = [("DEFAULT_POLICY", path, as_policy) for path in [given.get("DEFAULT_POLICY")]]
    named += [("HOOKS", path, hooks_at) for path in (hooks if isinstance(hooks, (list, tuple)) else ())]
    for name, path, load in named:
        if not isinstance(path, str):
            continue
        try:
            load(path)
        except Exception as error:  # noqa: BLE001 - importing a site's module can raise anything
            messages.append(
                Error(
                    f"CHANNELS_WSDENY[{name!r}]: {path!r} cannot be used: {error}",
                    hint=_DOTTED_PATHS[name],
                    id="channels_wsdeny.E004",
                )
            )
    return messages


_DOTTED_PATHS = {
    "DEFAULT_POLICY": "Give the dotted path of a Policy, or of a Policy class that takes no arguments.",
    "HOOKS": "Give dotted paths of Hooks: hooks = Hooks() in chat/hooks.py is 'chat.hooks.hooks'.",
}


def check_mirror(**kwargs: Any) -> list[CheckMessage]:
    """E005: what counts on views has `MirrorMiddleware` to see to it."""
    if is_mirrored() or conf.MIRROR_DEFAULT_POLICY is not True:
        return []
    return [
        Error(
            "CHANNELS_WSDENY['MIRROR_DEFAULT_POLICY'] is on, but no MirrorMiddleware is in MIDDLEWARE, so views "
            "without a decorator are open to everybody.",
            hint=f"Put {MIRROR!r} after AuthenticationMiddleware.",
            id="channels_wsdeny.E005",
        )
    ]


def check_hooks_of_views(**kwargs: Any) -> list[CheckMessage]:
    """W004: hooks of the site reach its views, by `MirrorMiddleware`."""
    if is_mirrored() or not conf.HOOKS:
        return []
    return [
        Warning(
            "CHANNELS_WSDENY['HOOKS'] has hooks, but no MirrorMiddleware is in MIDDLEWARE: on views, on_route "
            "and on_exception hooks do not run, nor others under WSGI.",
            hint=f"Put {MIRROR!r} after AuthenticationMiddleware.",
            id="channels_wsdeny.W004",
        )
    ]


def check_order_of_apps(**kwargs: Any) -> list[CheckMessage]:
    """W001: the app comes before Daphne's, whose ``runserver`` would win otherwise."""
    names = [config.name for config in apps.get_app_configs()]
    if "daphne" not in names or names.index("channels_wsdeny") < names.index("daphne"):
        return []
    return [
        Warning(
            "'channels_wsdeny' comes after 'daphne' in INSTALLED_APPS, so `runserver` is stock Daphne, "
            "which cannot send a denial response.",
            hint="Put 'channels_wsdeny' before 'daphne'.",
            id="channels_wsdeny.W001",
        )
    ]


def check_stack(**kwargs: Any) -> list[CheckMessage]:
    """W002: the websocket side of ``ASGI_APPLICATION`` is inside a `DenyMiddlewareStack`."""
    if not getattr(settings, "ASGI_APPLICATION", None):
        return []
    try:
        application = get_default_application()
    except Exception as error:  # noqa: BLE001 - importing a site's module can raise anything
        return [
            Warning(
                f"ASGI_APPLICATION = {settings.ASGI_APPLICATION!r} cannot be imported: {error!r}",
                hint="Correct the dotted path, or the error in that module.",
                id="channels_wsdeny.W003",
            )
        ]
    path = list(_websocket_side(application))
    if not path or any(isinstance(app, DenyMiddlewareStack) for app in path):
        return []
    return [
        Warning(
            "The websocket side of ASGI_APPLICATION is not inside a DenyMiddlewareStack, so consumers "
            "without a decorator are open to everybody.",
            hint="In asgi.py: application = DenyMiddlewareStack(ProtocolTypeRouter({...})).",
            id="channels_wsdeny.W002",
        )
    ]


ALL: tuple[Callable[..., list[CheckMessage]], ...] = (
    check_setting_is_a_dict,
    check_keys,
    check_values,
    check_dotted_paths,
    check_mirror,
    check_hooks_of_views,
    check_order_of_apps,
    check_stack,
)


def _given() -> dict[str, Any]:
    value = getattr(settings, "CHANNELS_WSDENY", {})
    return value if isinstance(value, dict) else {}


def _websocket_side(application: Any) -> Iterator[Any]:
    """The apps that a websocket goes through, from the outside in; none if it is not routed at all."""
    seen: list[Any] = []
    routed = False
    while application is not None and application not in seen:
        seen.append(application)
        if isinstance(application, ProtocolTypeRouter):
            application = application.application_mapping.get("websocket")
            routed = application is not None
        else:
            application = next(
                (
                    getattr(application, name)
                    for name in ("inner", "application", "app")
                    if callable(getattr(application, name, None))
                ),
                None,
            )
    return iter(seen if routed else ())
