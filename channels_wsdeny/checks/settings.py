"""System checks: what people get wrong when they set the package up, each with an id and a remedy.

Here are those of the settings, and the list of all.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's names
from django.core.exceptions import ImproperlyConfigured

from ..conf import KEYS, MIRROR, conf, is_mirrored
from ..hooks.registry import hooks_at, site_hooks
from ..policies.builtin import as_policy
from . import asgi as wiring
from . import project as footing

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..hooks.registry import Hook


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
    for name in conf.given():
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
        for name, value in conf.given().items()
        if name in KEYS and not KEYS[name].valid(value)
    ]


def check_dotted_paths(**kwargs: Any) -> list[CheckMessage]:
    """E004: every dotted path imports, and names what its key wants."""
    messages: list[CheckMessage] = []
    given = conf.given()
    hooks = given.get("HOOKS", ())
    named: list[tuple[str, Any, Callable[[Any], object]]] = [
        ("DEFAULT_POLICY", given.get("DEFAULT_POLICY"), as_policy)
    ]
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
            "CHANNELS_WSDENY['MIRROR_DEFAULT_POLICY'] is on, but no MirrorMiddleware is in MIDDLEWARE, so "
            "views without a decorator are open to everybody.",
            hint=f"Put {MIRROR!r} after AuthenticationMiddleware.",
            id="channels_wsdeny.E005",
        )
    ]


def check_hooks_of_views(**kwargs: Any) -> list[CheckMessage]:
    """W004: hooks of the site and of stacks reach its views, by `MirrorMiddleware`."""
    if is_mirrored():
        return []
    missed = [hook.label for hook in _site_hooks() if "http" in hook.protocols]
    if missed:
        whose = "CHANNELS_WSDENY['HOOKS'] has"
        which = "on_route and on_exception hooks do not run, nor others under WSGI"
    else:
        missed = [hook.label for hook in wiring.hooks_that_views_miss()]
        whose, which = "DenyMiddlewareStack has", "such hooks do not run"
    if not missed:
        return []
    return [
        Warning(
            f"{whose} {', '.join(missed)}, but no MirrorMiddleware is in MIDDLEWARE: on views, {which}.",
            hint=f"Put {MIRROR!r} after AuthenticationMiddleware, or narrow them by "
            'protocols=("websocket",).',
            id="channels_wsdeny.W004",
        )
    ]


def _site_hooks() -> list[Hook]:
    """The hooks of ``CHANNELS_WSDENY["HOOKS"]``, as declared; none if a registry cannot be used."""
    try:
        return [hook for registry in site_hooks() for hook in registry]
    except ImproperlyConfigured:  # E004 says so.
        return []


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


ALL: tuple[Callable[..., list[CheckMessage]], ...] = (
    check_setting_is_a_dict,
    check_keys,
    check_values,
    check_dotted_paths,
    check_mirror,
    check_hooks_of_views,
    check_order_of_apps,
    wiring.check_application,
    wiring.check_stack,
    wiring.check_protocol_of_stack,
    wiring.check_routed_classes,
    wiring.check_bindings,
    wiring.check_needless_auth,
    wiring.check_users_of_wrappers,
    footing.check_apps,
    footing.check_session_engine,
    footing.check_asynchronous_sessions,
    footing.check_place_of_mirror,
    footing.check_arguments_of_hooks,
)
