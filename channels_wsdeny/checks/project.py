"""System checks of ``CHANNELS_WSDENY``, and of the site's apps and middleware."""

from __future__ import annotations

import difflib
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from channels.layers import channel_layers
from django.apps import apps
from django.conf import settings

from ..authentication.base import as_authenticators
from ..conf import AUTHENTICATION_MIDDLEWARE, KEYS, MIRROR, SESSION_MIDDLEWARE, conf, is_mirrored, middleware_index
from ..handlers.django_middleware import make_hooks
from ..hooks.registry import hooks_at, site_hooks
from ..http.origins import is_pattern
from ..live.channel_layer import get_layer
from ..policies.permissions import as_policy
from .asgi import ways

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..hooks.registry import Hooks

#: The extras of this package, by what they install.
_EXTRAS = {"opentelemetry": "otel"}
_DOTTED_PATHS: tuple[tuple[str, Callable[[str], object], str], ...] = (
    ("DEFAULT_POLICY", as_policy, "a Policy, or of a Policy class that takes no arguments"),
    (
        "AUTHENTICATION",
        lambda path: as_authenticators([path]),
        "an authentication class without arguments, or an instance",
    ),
    ("HOOKS", hooks_at, "Hooks, with its module, such as 'chat.hooks.hooks'"),
    ("MIDDLEWARE", lambda path: make_hooks((path,)), "a Django middleware that has a place on a handshake"),
)


def check_dict() -> Iterator[tuple[str, str]]:
    """``CHANNELS_WSDENY`` is a dict."""
    value = getattr(settings, "CHANNELS_WSDENY", {})
    if not isinstance(value, dict):
        is_with_comma = isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], dict)
        remedy = "Remove the comma after the closing brace. " if is_with_comma else ""
        yield (
            f"CHANNELS_WSDENY must be a dict, found {value!r}.",
            f'{remedy}Write CHANNELS_WSDENY = {{"POLICY_TIMEOUT": 4}}, or leave it out: every key has a default.',
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
            close = difflib.get_close_matches(str(name).upper(), KEYS, n=1)
            meant = f"Did you mean {close[0]!r}? " if close else ""
            yield (
                f"CHANNELS_WSDENY has the key {name!r}, which does not exist.",
                f"{meant}The keys are: {', '.join(KEYS)}.",
            )


def check_values() -> Iterator[tuple[str, str]]:
    """Every value is valid for its key."""
    for name, value in conf.given().items():
        if name in KEYS and not KEYS[name].is_valid(value):
            is_unlisted = isinstance(value, str) and "a list of" in KEYS[name].expected
            remedy = f"Write [{value!r}]. " if is_unlisted else ""
            default = KEYS[name].default
            default = [*default] if isinstance(default, tuple) else default
            yield (
                f"CHANNELS_WSDENY[{name!r}] must be {KEYS[name].expected}, found {value!r}.",
                f"{remedy}The default is {default!r}.",
            )


def check_dotted_paths() -> Iterator[tuple[str, str]]:
    """Every dotted path can be imported, and names what it should."""
    for name, load, right in _DOTTED_PATHS:
        given = conf.given().get(name)
        for path in given if isinstance(given, (list, tuple)) else [given]:
            try:
                if isinstance(path, str):
                    load(path)
            except Exception as error:  # importing a site's module can raise anything
                where = f"CHANNELS_WSDENY[{name!r}]: "
                yield (
                    f"{where}{path!r} cannot be used: {str(error).removeprefix(where)}",
                    _missing_module(error, str(path)) or f"Give the dotted path of {right}.",
                )


def _missing_module(error: Exception, path: str) -> str:
    """What to do about a module that is missing, if it is another one than those of `path`."""
    missing = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
    if not missing or f"{path}.".startswith(f"{missing}."):
        return ""
    extra = _EXTRAS.get(missing.partition(".")[0])
    remedy = f"Install channels-wsdeny[{extra}]." if extra else "Install its package, or correct that import."
    return f"The path is right, but what is imported for it needs the module {missing!r}, which is missing. {remedy}"


def check_mirror_of_default_policy() -> Iterator[tuple[str, str]]:
    """With ``MIRROR_DEFAULT_POLICY`` there is a `MirrorMiddleware`, which asks the policy for views."""
    if conf.MIRROR_DEFAULT_POLICY is True and not is_mirrored():
        yield (
            "CHANNELS_WSDENY['MIRROR_DEFAULT_POLICY'] is True, but MIDDLEWARE has no MirrorMiddleware, so "
            "views without a decorator are open to everybody.",
            f"Put {MIRROR!r} after AuthenticationMiddleware.",
        )


def check_origins() -> Iterator[tuple[str, str]]:
    """``ORIGINS`` has origins, which can match the one of a page."""
    origins = conf.given().get("ORIGINS")
    for origin in origins if isinstance(origins, (list, tuple)) else ():
        if isinstance(origin, str) and origin != "*" and not is_pattern(origin):
            yield (
                f"CHANNELS_WSDENY['ORIGINS']: {origin!r} is no origin, and no page can have it.",
                "Write scheme, host and perhaps port, such as 'https://example.com' or 'https://*.example.com:8443'.",
            )


def check_own_pages() -> Iterator[tuple[str, str]]:
    """The site's own pages can open sockets: their origin is ``https`` where a proxy ends TLS."""
    is_secure = settings.SESSION_COOKIE_SECURE or settings.SECURE_SSL_REDIRECT
    named = any(origin.startswith("https://") for origin in settings.CSRF_TRUSTED_ORIGINS)
    if is_secure and conf.ORIGINS == "same" and not settings.SECURE_PROXY_SSL_HEADER and not named:
        yield (
            "The site is for HTTPS, and SECURE_PROXY_SSL_HEADER is not set. If a proxy ends TLS, handshakes of the "
            "site's own pages are denied: their origin is https, and the address of the socket seems to be http.",
            "Set SECURE_PROXY_SSL_HEADER as the proxy sends it, or name the origin in CSRF_TRUSTED_ORIGINS or "
            "CHANNELS_WSDENY['ORIGINS']. If the server itself speaks TLS, silence this check.",
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
    registries += [hooks for way in ways("http") if way.is_django for hooks in way.match.hooks]
    missed = dict.fromkeys(hook.label for hooks in registries for hook in hooks if "http" in hook.protocols)
    if missed and not is_mirrored():
        yield (
            "MIDDLEWARE has no MirrorMiddleware, by which alone hooks reach Django's views (ASGI and WSGI). "
            "These hooks of CHANNELS_WSDENY['HOOKS'] or of a DenyMiddlewareStack do not run for views: "
            f"{', '.join(missed)}.",
            f"Put {MIRROR!r} after AuthenticationMiddleware. Hooks that are not meant for views take "
            'protocols=("websocket",).',
        )


def check_socket_timeouts() -> Iterator[tuple[str, str]]:
    """The hosts of channels_redis have a ``socket_timeout``: by that of redis-py 8, a receiver that waits is ended."""
    for alias in getattr(settings, "CHANNEL_LAYERS", None) or {}:
        with suppress(Exception):  # A layer that cannot be made may raise anything.
            layer: Any = channel_layers[alias]
            kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(layer).__mro__]
            if "channels_redis.core.RedisChannelLayer" not in kinds or int(version("redis").split(".")[0]) < 8:
                continue
            without = [host for host in layer.hosts if "socket_timeout" not in host]
            if any("socket_timeout=" not in str(host.get("address")) for host in without):  # in the query of a URL
                yield (
                    f"CHANNEL_LAYERS[{alias!r}] has a host without a socket_timeout. By default that is 5 seconds "
                    "since redis-py 8: consumers that wait longer for a message end, and their sockets are closed with "
                    "1011.",
                    'Write "hosts": [{"address": "redis://127.0.0.1:6379/0", "socket_timeout": None}].',
                )


def check_channel_layer() -> Iterator[tuple[str, str]]:
    """With ``LIVE`` there is a channel layer that leads to the other processes, or the policies are asked in time."""
    if conf.LIVE and not conf.RECHECK_INTERVAL and get_layer() is None:
        yield (
            "No channel layer leads from one process to another, so a log-out or a revoked permission closes open "
            "sockets of the same process only.",
            "Set CHANNEL_LAYERS to a layer such as channels_redis, or CHANNELS_WSDENY['RECHECK_INTERVAL'] to a number "
            "of seconds. With a single process, silence this check.",
        )
