"""System checks of ``ASGI_APPLICATION``: what the handshakes of its consumers go through."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from contextlib import suppress
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

from channels.auth import AuthMiddleware
from channels.consumer import AsyncConsumer
from channels.middleware import BaseMiddleware
from channels.routing import URLRouter
from channels.security.websocket import OriginValidator
from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model

from ..inspection.endpoints import SCOPE_TYPES, site_application, site_endpoints, unknown_types, views
from ..inspection.protections import guards_on, module_of
from ..log import dotted_name, own_location
from ..policies import HasPermission
from ..policies.base import policies_within
from ..policies.permissions import default_policy
from ..routing.guards import Guards, guards_of, is_bound, uncalled
from ..routing.resolver import is_known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..inspection.endpoints import AsgiEndpoint, View
    from ..types import Protocol


def can_import() -> bool:
    """Whether the checks may import ``ASGI_APPLICATION``.

    ``manage.py test`` runs them before any test has overridden the settings that ``asgi.py`` reads when it is
    imported, so there they only look at an application that was imported before.
    """
    module = str(getattr(settings, "ASGI_APPLICATION", None)).rpartition(".")[0]
    return sys.argv[1:2] != ["test"] or module in sys.modules


def ways(*protocols: Protocol) -> list[AsgiEndpoint]:
    """The routes of ``ASGI_APPLICATION`` for `protocols`; none if it cannot be imported, which is W003."""
    if can_import():
        with suppress(Exception):  # Importing a site's module can raise anything.
            return [way for protocol in protocols for way in site_endpoints(protocol)]
    return []


def _consumer_classes() -> list[type]:
    """The consumer classes of ``ASGI_APPLICATION``, each once."""
    classes = dict.fromkeys(way.consumer_class for way in ways("websocket", "http"))
    return [cls for cls in classes if cls is not None]


def site_guards() -> Iterator[tuple[Guards, Any]]:
    """The guards of each endpoint of ``ASGI_APPLICATION`` and of each view, and its class or function, if known.

    The default policies of the site and its stacks are asked as guards are.
    """
    defaults = [default_policy()]
    for way in ways("websocket", "http"):
        match = way.match
        yield match.guards, way.consumer_class
        defaults += [] if match.stack_default is None else [match.stack_default]
    yield from ((Guards((policy,)), None) for policy in {id(policy): policy for policy in defaults}.values())
    with suppress(Exception):  # Importing a URLconf of the site can raise anything; Django reports that.
        for view in views():
            yield guards_on(view.callback), getattr(view.callback, "view_class", view.callback)


def place_of(code: Any) -> str:
    """The file and line of a class or function, or of what an object is made by; its dotted name if it has none."""
    code = code.func if isinstance(code, partial) else code
    if not (inspect.isclass(code) or inspect.isroutine(code)):
        code = type(code)
    try:
        code = inspect.unwrap(code)
        return f"{inspect.getsourcefile(code)}:{inspect.getsourcelines(code)[1]}"
    except (OSError, TypeError, ValueError):
        return dotted_name(code)


def check_application() -> Iterator[tuple[str, str, str | None]]:
    """``ASGI_APPLICATION`` can be imported."""
    try:
        if can_import():
            site_application()
    except Exception as error:  # importing a site's module can raise anything
        # Django takes an AttributeError inside the module for a name that the module does not have.
        found: BaseException = next((each for each in (error, error.__cause__) if each and own_location(each)), error)
        place = own_location(found)
        hint = "Correct the dotted path, or the error in that module."
        if "'function' object has no attribute 'as_asgi'" in str(found):
            hint = "Django's decorators are for views: on consumers, use those of channels_wsdeny.decorators."
        yield (
            f"ASGI_APPLICATION = {settings.ASGI_APPLICATION!r} cannot be imported: {found!r}",
            hint,
            place,
        )


def check_stack() -> Iterator[tuple[str, str, str]]:
    """Every consumer is inside a `DenyMiddlewareStack`."""
    # Functions are left out: one may well contain a stack, but does not show it.
    consumers = [way for way in ways("websocket") if way.consumer_class or isinstance(way.app, type)]
    outside = [way for way in consumers if way.stack_index is None]
    if outside:
        where = "" if len(outside) == len(consumers) else f" at {', '.join(way.path for way in outside)}"
        yield (
            f"The consumers of ASGI_APPLICATION{where} are not inside a DenyMiddlewareStack. Those without a "
            "decorator are open to everybody.",
            "In asgi.py: application = DenyMiddlewareStack(ProtocolTypeRouter({...})).",
            place_of(outside[0].consumer_class or outside[0].app),
        )


def check_wrappers() -> Iterator[tuple[str, str, str]]:
    """Wrappers inside a stack are known, or subclasses of Channels' `BaseMiddleware`."""
    found: dict[str, tuple[str, Any]] = {}
    for way in ways("websocket"):
        for app in () if way.stack_index is None else way.apps[way.stack_index : -1]:
            if not (is_known(app) or isinstance(app, BaseMiddleware) or _is_decorated_for_views(app)):
                found.setdefault(dotted_name(app), (way.path, app))
    for name, (path, app) in found.items():
        yield (
            f"{name} is inside a DenyMiddlewareStack, before the consumer at {path}, and cannot be looked through. "
            "The default policy is asked as late as when it calls receive() or accepts, and perhaps about another user "
            "and route than the consumer gets.",
            "Write it as a subclass of channels.middleware.BaseMiddleware, and leave it where it is.",
            place_of(app),
        )


def check_routed_classes() -> Iterator[tuple[str, str, str]]:
    """Routes name ``Consumer.as_asgi()``, not the class, an instance, or ``as_asgi`` without calling it."""
    found = {(way.path, id(way.app)): way.apps for way in ways("websocket", "http")}
    for (path, _), (*around, app) in found.items():
        cls, named = (app, "the class") if isinstance(app, type) else (type(app), "an instance of")
        if uncalled(app):
            cls, named = app.__self__, "as_asgi, without calling it, of"
        if issubclass(cls, AsyncConsumer):
            is_shared = isinstance(app, AsyncConsumer)
            fault = "all connections share it, and each other's user" if is_shared else "all requests to it fail"
            yield (
                f"The route {path!r} names {named} {dotted_name(cls)} itself, so {fault}.",
                f"Write {cls.__name__}.as_asgi() in the route.",
                place_of(cls),
            )
        elif around and not _is_decorated_for_views(app) and (hasattr(app, "view_class") or not _takes_a_scope(app)):
            yield (
                f"The route {path!r} names {dotted_name(app)}, which cannot be called with (scope, receive, send), so "
                "all requests to it fail.",
                "Name Consumer.as_asgi() or another ASGI application there. Views belong into the URLconf of Django.",
                place_of(app),
            )


def check_routed_views() -> Iterator[tuple[str, str, str]]:
    """``ROOT_URLCONF`` names views, not consumers or other ASGI applications."""
    found: list[View] = []
    with suppress(Exception):  # Importing a URLconf of the site can raise anything; Django reports that.
        found += [view for view in views() if view.asgi_app is not None]
    for view in found:
        name = dotted_name(view.asgi_app)
        yield (
            f"ROOT_URLCONF has {name} at {view.path!r}, which is no view: Django calls it with a request alone, so all "
            "requests to it fail, and no handshake gets there.",
            "Put it into the URLRouter of ASGI_APPLICATION, under 'websocket' of the ProtocolTypeRouter.",
            place_of(view.asgi_app),
        )


def check_slashes() -> Iterator[tuple[str, str]]:
    """No route of a `URLRouter` begins with a slash, as Django's ``urls.W002`` has it of views."""
    routers = {id(app): app for way in ways("websocket", "http") for app in way.apps if isinstance(app, URLRouter)}
    for route in (route for router in routers.values() for route in router.routes):
        if re.match(r"\^?\\?/(?![?*])", str(route.pattern)):
            yield (
                f"The route {str(route.pattern)!r} of a URLRouter begins with a slash. Channels removes that of the "
                "path before it compares them, so a request for it gets a 404.",
                "Remove the slash.",
            )


def check_types() -> Iterator[tuple[str, str]]:
    """The keys of the `ProtocolTypeRouter` are types of scopes."""
    found: list[Any] = []
    if can_import():
        with suppress(Exception):  # which is W003
            found = unknown_types()
    for name in found:
        close = difflib.get_close_matches(str(name).lower(), SCOPE_TYPES, n=1)
        meant = f"Did you mean {close[0]!r}? " if close else ""
        yield (
            f"The ProtocolTypeRouter of ASGI_APPLICATION has the key {name!r}, and no scope of ASGI has that type.",
            f"{meant}The types are {', '.join(map(repr, SCOPE_TYPES))}. If a server of yours has another one, silence "
            "this check.",
        )


def _takes_a_scope(app: Any) -> bool:
    """Whether `app` may be called with a scope, ``receive`` and ``send``."""
    with suppress(ValueError):  # of one that does not say what it takes
        try:
            inspect.signature(app).bind(None, None, None)
        except TypeError:
            return False
    return True


def check_decorated_bases() -> Iterator[tuple[str, str, str]]:
    """A consumer asks the policies of its decorated bases, also without a stack."""
    for cls in _consumer_classes():
        if guards_of(cls).policies and not is_bound(cls):
            yield (
                f"{dotted_name(cls)} inherits {guards_of(cls)}, which its __new__ evades: it does not call super().",
                "Decorate the class itself, or have the __new__ of its mixins call super().",
                place_of(cls),
            )


def check_parts_for_views() -> Iterator[tuple[str, str, str]]:
    """No consumer has one of Django's mixins or decorators for views, which guard nothing there."""
    for cls in _consumer_classes():
        bases = [base.__name__ for base in cls.__mro__ if base.__module__ == "django.contrib.auth.mixins"]
        mixins = [name for name in bases if name != "AccessMixin"] or bases
        methods = [f"{name}()" for name, member in inspect.getmembers_static(cls) if _is_decorated_for_views(member)]
        found = []
        if mixins:
            found.append(f"the mixin {' and '.join(mixins)} of django.contrib.auth.mixins")
        if methods:
            found.append(f"a decorator of Django on {' and '.join(methods)}")
        if found:
            yield (
                f"{dotted_name(cls)} has {' and '.join(found)}, which is for views and guards no consumer.",
                "Use @login_required, @permission_required or @require of channels_wsdeny.decorators on the class.",
                place_of(cls),
            )
    routed = {(way.path, id(app)): app for way in ways("websocket", "http") for app in way.apps}
    for (path, _), app in routed.items():
        if _is_decorated_for_views(app):
            yield (
                f"The route {path!r} names {dotted_name(app)} behind a decorator of Django, which is for views, so all "
                "requests to it fail.",
                "Use @login_required, @permission_required or @require of channels_wsdeny.decorators.",
                place_of(app),
            )


def _is_decorated_for_views(member: Any) -> bool:
    """Whether a function was made by a decorator for views, or by the `method_decorator` of one."""
    with suppress(ValueError):  # Functions that wrap each other in a circle are none of Django's.
        is_function = type(member) is FunctionType  # A lazy object would be loaded by isinstance().
        return is_function and _is_made_for_views(inspect.unwrap(member, stop=_is_made_for_views))
    return False


def _is_made_for_views(function: Any) -> bool:
    if module_of(function) != "django.utils.decorators":
        return module_of(function) == "django.contrib.auth.decorators"
    kept = inspect.getclosurevars(function).nonlocals.values()  # the decorators, one or a list, and the method
    given = [each for value in kept for each in (value if isinstance(value, (list, tuple)) else [value])]
    return any(module_of(each) in {"django.contrib.auth.decorators", "channels_wsdeny.decorators"} for each in given)


def check_permissions() -> Iterator[tuple[str, str, str | None]]:
    """Every permission that a decorator names exists, or looks like no other that does; and users can have it."""
    endpoints: dict[tuple[str, bool], Any] = {}
    for guards, code in site_guards():
        for each in _permissions_of(guards):
            endpoints.setdefault(each, code)
    known = _known_permissions()
    for (name, is_on_object), code in endpoints.items():
        place = None if code is None else place_of(code)
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if is_on_object and _has_only_backends_of_django():
            yield (
                f"The permission {name!r} is asked about an object, and AUTHENTICATION_BACKENDS has Django's own "
                "backends only, which grant none on an object: no user has it but superusers.",
                "Add a backend for object permissions, such as guardian.backends.ObjectPermissionBackend, or one of "
                "your own with has_perm(user_obj, perm, obj).",
                place,
            )
        if "." not in name:
            yield (
                f"The permission {name!r} has no app label, so no user has it but superusers.",
                'Write "app_label.codename".',
                place,
            )
        elif name not in known and close:
            yield (
                f"No model has the permission {name!r}, so no user has it but superusers.",
                f"Did you mean {close[0]!r}?",
                place,
            )


def _permissions_of(guards: Guards) -> Iterator[tuple[str, bool]]:
    """The permissions that decorators ask for, and whether that is on an object."""
    for policy in (*guards.policies, *guards.reported):
        for each in policies_within(policy):
            if isinstance(each, HasPermission):
                yield from ((name, each.obj is not None) for name in each.permissions)


def _has_only_backends_of_django() -> bool:
    """Whether only Django's own backends are asked for the permissions of a user."""
    if not apps.is_installed("django.contrib.auth"):  # pragma: no cover - a site without it is a process of its own
        return False
    asked = getattr(getattr(get_user_model(), "has_perm", None), "__module__", None)
    paths = [asked, *settings.AUTHENTICATION_BACKENDS]
    return all(str(path).startswith("django.contrib.auth.") for path in paths)


def _known_permissions() -> set[str]:
    known: set[str] = set()
    for model in apps.get_models():
        options = model._meta
        names = [f"{action}_{options.model_name}" for action in options.default_permissions]
        names += [codename for codename, _ in options.permissions]
        known.update(f"{options.app_label}.{name}" for name in names)
    return known


def check_origin_validators() -> Iterator[tuple[str, str]]:
    """No `OriginValidator` of Channels is around HTTP, for which it raises."""
    for way in ways("http"):
        if any(isinstance(app, OriginValidator) for app in way.apps):
            yield (
                "An OriginValidator (or AllowedHostsOriginValidator) in ASGI_APPLICATION is around HTTP, too: it "
                "raises ValueError for each HTTP request.",
                'Put it around the routes of "websocket" in the ProtocolTypeRouter.',
            )
            return


def check_outer_origin_validators() -> Iterator[tuple[str, str]]:
    """No `OriginValidator` of Channels denies before a `DenyMiddlewareStack` can."""
    for way in ways("websocket"):
        if any(isinstance(app, OriginValidator) for app in way.apps[: way.stack_index or 0]):
            yield (
                f"An OriginValidator (or AllowedHostsOriginValidator) is around the DenyMiddlewareStack of {way.path!r}"
                ". It closes handshakes by itself: the client gets a 403 without the code origin_not_allowed, and no "
                "log line says why.",
                "Leave it out, for the stack checks origins itself (ORIGINS); or move it inside the stack, where its "
                "denial has that code.",
            )
            return


def check_needless_auth() -> Iterator[tuple[str, str]]:
    """Channels' `AuthMiddleware` is not used beside a `DenyMiddlewareStack`."""
    for way in ways("websocket"):
        if way.stack_index is not None and any(type(app) is AuthMiddleware for app in way.apps):
            yield (
                f"The route {way.path!r} goes through Channels' AuthMiddleware and a DenyMiddlewareStack, "
                "which loads the user itself. AuthMiddleware loads it a second time and logs out users whose "
                "session was signed with a key that is now in SECRET_KEY_FALLBACKS.",
                "Leave AuthMiddlewareStack (or AuthMiddleware) out of asgi.py.",
            )
            return
