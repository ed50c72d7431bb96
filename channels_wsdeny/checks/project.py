"""System checks of ``CHANNELS_WSDENY``, and of the site's apps and middleware."""

from __future__ import annotations

import difflib
from contextlib import suppress
from typing import TYPE_CHECKING

from django.apps import apps
from django.conf import settings

from ..conf import AUTHENTICATION_MIDDLEWARE, KEYS, MIRROR, SESSION_MIDDLEWARE, conf, is_mirrored, middleware_index
from ..hooks.registry import hooks_at, site_hooks
from ..policies.builtin import as_policy
from .asgi import ways

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..hooks.registry import Hooks


def check_dict() -> Iterator[tuple[str, str]]:
    """``CHANNELS_WSDENY`` is a dict."""
    value = getattr(settings, "CHANNELS_WSDENY", {})
    if not isinstance(value, dict):
        yield (
            f"CHANNELS_WSDENY must be a dict, found {value!r}.",
            'Write CHANNELS_WSDENY = {"POLICY_TIMEOUT": 4}, or leave it out: every key has a default.',
        )


def check_name_of_dict() -> Iterator[tuple[str, str]]:
    """No setting has a name that is almost ``CHANNELS_WSDENY``."""
    names = [name for name in dir(settings) if name.isupper() and name != "CHANNELS_WSDENY"]
    for name in difflib.get_close_matches("CHANNELS_WSDENY", names, cutoff=0.85):
        yield f"The setting {name} is read by nothing.", "Did you mean CHANNELS_WSDENY?"


def check_keys() -> Iterator[tuple[str, str]]:
    """Every key exists."""
    for name in conf.given():
        if name not in KEYS:
            close = difflib.get_close_matches(str(name), KEYS, n=1)
            meant = f"Did you mean {close[0]!r}? " if close else ""
            yield (
                f"CHANNELS_WSDENY has the key {name!r}, which does not exist.",
                f"{meant}The keys are: {', '.join(KEYS)}.",
            )


def check_values() -> Iterator[tuple[str, str]]:
    """Every value is valid for its key."""
    for name, value in conf.given().items():
        if name in KEYS and not KEYS[name].is_valid(value):
            yield (
                f"CHANNELS_WSDENY[{name!r}] must be {KEYS[name].expected}, found {value!r}.",
                f"The default is {KEYS[name].default!r}.",
            )


def check_dotted_paths() -> Iterator[tuple[str, str]]:
    """Every dotted path can be imported, and names a policy or hooks."""
    hooks = conf.given().get("HOOKS")
    paths = [("DEFAULT_POLICY", conf.given().get("DEFAULT_POLICY"))]
    paths += [("HOOKS", path) for path in hooks] if isinstance(hooks, (list, tuple)) else []
    for name, path in paths:
        load: Callable[[str], object] = hooks_at if name == "HOOKS" else as_policy
        try:
            if isinstance(path, str):
                load(path)
        except Exception as error:  # importing a site's module can raise anything
            yield (
                f"CHANNELS_WSDENY[{name!r}]: {path!r} cannot be used: {error}",
                "Give the dotted path of Hooks, or of a Policy or a Policy class that takes no arguments.",
            )


def check_mirror_of_default_policy() -> Iterator[tuple[str, str]]:
    """With ``MIRROR_DEFAULT_POLICY`` there is a `MirrorMiddleware`, which asks the policy for views."""
    if conf.MIRROR_DEFAULT_POLICY is True and not is_mirrored():
        yield (
            "CHANNELS_WSDENY['MIRROR_DEFAULT_POLICY'] is True, but MIDDLEWARE has no MirrorMiddleware, so "
            "views without a decorator are open to everybody.",
            f"Put {MIRROR!r} after AuthenticationMiddleware.",
        )


def check_order_of_apps() -> Iterator[tuple[str, str]]:
    """``"channels_wsdeny"`` comes before ``"daphne"``, whose ``runserver`` would be used otherwise."""
    names = [config.name for config in apps.get_app_configs()]
    if "daphne" in names and names.index("daphne") < names.index("channels_wsdeny"):
        yield (
            "'channels_wsdeny' comes after 'daphne' in INSTALLED_APPS, so `runserver` is stock Daphne, "
            "which cannot send a denial response.",
            "Put 'channels_wsdeny' before 'daphne'.",
        )


def check_order_of_middleware() -> Iterator[tuple[str, str]]:
    """`MirrorMiddleware` comes after the middleware that sets the session and the user of a request."""
    mirror = middleware_index(MIRROR)
    for path in (SESSION_MIDDLEWARE, AUTHENTICATION_MIDDLEWARE):
        if mirror is not None and (middleware_index(path) or 0) > mirror:
            yield (
                f"MirrorMiddleware comes before {path.rpartition('.')[2]} in MIDDLEWARE, so hooks that use "
                "request.session or request.user fail on views.",
                f"Put {MIRROR!r} after {path!r}.",
            )


def check_mirror_of_hooks() -> Iterator[tuple[str, str]]:
    """Hooks of the site and of stacks that are for HTTP reach Django's views, by `MirrorMiddleware`."""
    registries: list[Hooks] = []
    with suppress(Exception):  # Importing a site's module can raise anything; that is E004.
        registries += site_hooks()
    registries += [hooks for way in ways("http") if way.is_django for layer in way.layers for hooks in layer.hooks]
    missed = dict.fromkeys(hook.label for hooks in registries for hook in hooks if "http" in hook.protocols)
    if missed and not is_mirrored():
        yield (
            "MIDDLEWARE has no MirrorMiddleware, by which alone hooks reach Django's views (ASGI and WSGI). "
            "These hooks of CHANNELS_WSDENY['HOOKS'] or of a DenyMiddlewareStack do not run for views: "
            f"{', '.join(missed)}.",
            f"Put {MIRROR!r} after AuthenticationMiddleware. Hooks that are not meant for views take "
            'protocols=("websocket",).',
        )
