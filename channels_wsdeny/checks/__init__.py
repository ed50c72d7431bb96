"""System checks: mistakes in the set-up of a site, each with an id, a message and a hint.

`asgi` looks at ``ASGI_APPLICATION``, `caches` at what policies count on, `project` at everything else. A check is a
generator of tuples of a message, a hint and, if it is about a class or function of the site, its file and line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core import checks

from . import asgi, caches, project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The checks by the ids of their messages: E for an error, W for a warning.
CHECKS: dict[str, Callable[[], Iterator[tuple[Any, ...]]]] = {
    "E001": project.check_dict,
    "E002": project.check_keys,
    "E003": project.check_values,
    "E004": project.check_dotted_paths,
    "E005": project.check_mirror_of_default_policy,
    "E006": asgi.check_routed_classes,
    "E007": asgi.check_decorated_bases,
    "E011": asgi.check_parts_for_views,
    "E012": asgi.check_origin_validators,
    "E013": caches.check_counting,
    "E014": asgi.check_routed_views,
    "E020": project.check_origins,
    "W001": project.check_order_of_apps,
    "W002": asgi.check_stack,
    "W003": asgi.check_application,
    "W004": project.check_mirror_of_hooks,
    "W006": project.check_order_of_middleware,
    "W007": asgi.check_needless_auth,
    "W008": asgi.check_wrappers,
    "W009": asgi.check_outer_origin_validators,
    "W010": asgi.check_permissions,
    "W011": project.check_name_of_dict,
    "W012": caches.check_exactness,
    "W013": caches.check_processes,
    "W014": caches.check_addresses,
    "W015": project.check_socket_timeouts,
    "W016": asgi.check_slashes,
    "W017": asgi.check_types,
}
#: Those of ``manage.py check --deploy`` alone.
DEPLOY_CHECKS: dict[str, Callable[[], Iterator[tuple[Any, ...]]]] = {
    "W020": project.check_channel_layer,
    "W030": project.check_own_pages,
}


def check_site(**kwargs: Any) -> list[checks.CheckMessage]:
    """All messages about the site; called by Django."""
    return _messages(CHECKS)


def check_deployed_site(**kwargs: Any) -> list[checks.CheckMessage]:
    """The messages about a site in production; called by Django."""
    return _messages(DEPLOY_CHECKS)


def _messages(table: dict[str, Callable[[], Iterator[tuple[Any, ...]]]]) -> list[checks.CheckMessage]:
    return [
        (checks.Error if number.startswith("E") else checks.Warning)(
            message, hint=hint, obj=place[0] if place else None, id=f"channels_wsdeny.{number}"
        )
        for number, check in table.items()
        for message, hint, *place in check()
    ]


def register_checks() -> None:
    """Register the checks with Django, under the tag ``security``."""
    checks.register(check_site, checks.Tags.security)
    checks.register(check_deployed_site, checks.Tags.security, deploy=True)
