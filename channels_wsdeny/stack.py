"""`DenyMiddlewareStack`, the ASGI middleware around the application of a site."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from channels.consumer import AsyncConsumer
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from .authentication.base import as_authenticators
from .conf import DENY_WITH
from .decorators import GuardedApp
from .exceptions import refuse_arguments
from .handlers import http, websocket
from .handlers.django_middleware import as_middleware
from .hooks.registry import as_registries
from .http.origins import is_pattern, usable_origins
from .policies import Policy
from .routing.guards import NO_GUARDS, NO_OPTIONS, ASGIMiddleware, StackOptions, transparent, uncalled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .hooks import Hooks
    from .http.origins import Origins
    from .types import ASGIApp, Receive, Scope, Send


@functools.cache
def _warn_of_installed_apps() -> None:
    """Say once that the app is not installed, or after Daphne's, whose `runserver` is found first then."""
    if not apps.apps_ready:  # pragma: no cover - such sites are processes of their own
        raise ImproperlyConfigured(
            "Django is not set up. Call get_asgi_application() in asgi.py, before it imports consumers and routes."
        )
    names = [config.name for config in apps.get_app_configs()]
    if "channels_wsdeny" not in names:  # pragma: no cover - such sites are processes of their own
        sys.stderr.write(
            "'channels_wsdeny' is not in INSTALLED_APPS, so its system checks, commands and `runserver` are missing, "
            "and a log-out closes no open socket. Put it there, before 'daphne'.\n"
        )
    elif "daphne" in names[: names.index("channels_wsdeny")]:  # pragma: no cover - in a process
        sys.stderr.write(
            "'daphne' is before 'channels_wsdeny' in INSTALLED_APPS, so `runserver` is Daphne's, which denies every "
            "handshake with a bare 403. Put 'channels_wsdeny' before it.\n"
        )


@transparent
class DenyMiddlewareStack(ASGIMiddleware):
    """Guards every WebSocket handshake that goes to `inner`, and the ASGI applications that it serves over HTTP.

    `inner` is a `ProtocolTypeRouter`, a `URLRouter`, a consumer's ``as_asgi()`` or any ASGI application.
    `default_policy` is for endpoints that carry no policy of their own (None: the site's ``DEFAULT_POLICY``); in
    nested stacks the nearest one counts. `hooks` are `Hooks` (one, or several) that run for every request, beside
    the site's own. `authentication` is a list of authentication classes (instances, or dotted paths), and `origins` are
    those of pages that may begin a handshake with the credentials which browsers add: ``"same"``, a list or ``"*"``
    (None: the site's ``AUTHENTICATION`` and ``ORIGINS``). `middleware` are dotted paths of Django middleware for
    handshakes (None: those of the site's ``CHANNELS_WSDENY``). `deny_with` is ``"response"`` or ``"close"`` (None: the
    site's ``DENY_WITH``). Lifespan and unknown scopes pass through untouched.

    Over HTTP, Django's own handler is left to `MirrorMiddleware`, which runs the hooks around the view.

    Raises `TypeError`, `ValueError` or `ImproperlyConfigured` for arguments that are none of these, or cannot be used.
    """

    is_stack = owes_default = True

    def __init__(
        self,
        inner: ASGIApp,
        *,
        default_policy: Policy | None = None,
        hooks: Hooks | Iterable[Hooks] | None = None,
        authentication: Iterable[Any] | None = None,
        origins: Origins | None = None,
        middleware: Iterable[str] | None = None,
        deny_with: str | None = None,
    ) -> None:
        if not callable(inner):
            remedies = {list: " Write URLRouter([...]).", dict: " Write ProtocolTypeRouter({...})."}
            remedy = remedies.get(type(inner), "")
            raise TypeError(f"DenyMiddlewareStack() wraps an ASGI application, found {inner!r}.{remedy}")
        is_class = isinstance(inner, type) and issubclass(inner, AsyncConsumer)
        if name := f"{inner.__name__}.as_asgi" if is_class else uncalled(inner):
            raise TypeError(f"Write DenyMiddlewareStack({name}()), found {inner!r}.")
        if default_policy is not None and not isinstance(default_policy, Policy):
            raise TypeError(
                "DenyMiddlewareStack(default_policy=...) takes a policy such as IsAuthenticated(), found "
                f"{default_policy!r}."
            )
        if deny_with is not None and deny_with not in DENY_WITH:
            raise ValueError(f"DenyMiddlewareStack(deny_with=...) is one of {DENY_WITH}, found {deny_with!r}.")
        for origin in () if origins is None or isinstance(usable_origins(origins), str) else origins:
            if not is_pattern(origin):
                raise ValueError(
                    f"DenyMiddlewareStack(origins=...): {origin!r} is no origin, and no page can have it. Write "
                    "scheme, host and perhaps port, such as 'https://example.com' or 'https://*.example.com:8443'."
                )
        self.inner = inner
        self.default_policy = default_policy
        self.hooks = as_registries(() if hooks is None else hooks, "DenyMiddlewareStack(hooks=...)")
        where = "DenyMiddlewareStack(authentication=...)"
        options = StackOptions(
            authentication=None if authentication is None else as_authenticators(authentication, where),
            origins=origins,
            middleware=None if middleware is None else as_middleware(middleware),
            deny_with=deny_with,
        )
        self.options = NO_OPTIONS if all(option is None for option in options) else options

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Raises `TypeError` for an option as an attribute of the class: ``__init__`` would replace it."""
        super().__init_subclass__(**kwargs)
        refuse_arguments(cls, ("default_policy", "hooks", *StackOptions._fields))

    def __setattr__(self, name: str, value: object) -> None:
        """As of any object. Raises `AttributeError` for an option: setting it would have no effect."""
        if name in StackOptions._fields:
            raise AttributeError(f"{name} cannot be replaced: give it as an argument of DenyMiddlewareStack().")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"<DenyMiddlewareStack around {self.inner!r}>"

    def guard(self, app: ASGIApp) -> ASGIApp:
        """`app`, resolved anew when middleware of the site calls it."""
        return GuardedApp(app, NO_GUARDS, owes_default=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run `inner` for `scope` behind hooks and policies."""
        _warn_of_installed_apps()
        if scope["type"] == "websocket":
            await websocket.enter_middleware(self, scope, receive, send)
        elif scope["type"] == "http":
            await http.enter_middleware(self, scope, receive, send)
        else:
            await self.inner(scope, receive, send)
