"""The settings of the package, from the dict ``settings.CHANNELS_WSDENY``, and positions in ``MIDDLEWARE``.

Each setting is read once, and again after ``override_settings``. Each default is written here and nowhere else;
`channels_wsdeny.checks.project` compares what a site wrote with the types given here.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

DENY_WITH = ("response", "close")
#: Dotted paths of middleware, for `middleware_index`.
MIRROR = "channels_wsdeny.middleware.MirrorMiddleware"
SESSION_MIDDLEWARE = "django.contrib.sessions.middleware.SessionMiddleware"
AUTHENTICATION_MIDDLEWARE = "django.contrib.auth.middleware.AuthenticationMiddleware"
LOGIN_REQUIRED_MIDDLEWARE = "django.contrib.auth.middleware.LoginRequiredMiddleware"


class _NoDict:
    """Stands for a key of a ``CHANNELS_WSDENY`` that is no dict: a value that no request can use."""

    def __init__(self, found: object) -> None:
        self._found = found

    def __repr__(self) -> str:
        return f"<a key of CHANNELS_WSDENY, which must be a dict, and is a {type(self._found).__name__}>"


@dataclass
class Key(Generic[T]):
    """One key of ``CHANNELS_WSDENY``: its default, and which values are valid."""

    default: T
    expected: str
    is_valid: Callable[[Any], bool]
    #: Whether an invalid value counts as the default. Where that could allow what the value was meant to
    #: deny, the invalid value is kept, and requests that need it are answered by a 500.
    falls_back: bool = True
    name: str = field(init=False)

    def __set_name__(self, owner: type[Settings], name: str) -> None:
        self.name = name

    def __get__(self, instance: Settings, owner: type[Settings]) -> T:
        written: Any = getattr(settings, "CHANNELS_WSDENY", None)
        value: T = instance.given().get(self.name, self.default)
        if self.falls_back and not self.is_valid(value):
            value = self.default
        elif written and not self.falls_back and not isinstance(written, dict):
            value = cast("T", _NoDict(written))  # What the site has written is lost, such as a DenyAll.
        vars(instance)[self.name] = value  # From now on it is found there, without this call.
        return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_number_or_zero(value: Any) -> bool:
    return _is_number(value) or (value == 0 and isinstance(value, (int, float)) and not isinstance(value, bool))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_policy(value: Any) -> bool:
    return isinstance(value, str) or (hasattr(value, "acheck") and not isinstance(value, type))


def _is_list_of_paths(value: Any, *names: str) -> bool:
    """Whether `value` is a list of dotted paths, or of objects with one of these attributes."""
    return isinstance(value, (list, tuple)) and all(
        isinstance(item, str) or any(hasattr(item, name) for name in names) for item in value
    )


def is_origins(value: Any) -> bool:
    """Whether `value` can be ``ORIGINS``."""
    if isinstance(value, str):
        return value in {"same", "*"}
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) and item != "*" for item in value)


class Settings:
    """The dict ``CHANNELS_WSDENY``, with an attribute for each key."""

    @staticmethod
    def given() -> dict[str, Any]:
        """The dict as the site wrote it; an empty one if it is missing or no dict."""
        given = getattr(settings, "CHANNELS_WSDENY", None)
        return given if isinstance(given, dict) else {}

    #: The policy of endpoints without their own, under a stack without a ``default_policy``: a `Policy`, or
    #: the dotted path of one or of a `Policy` class that takes no arguments.
    DEFAULT_POLICY: Key[Any] = Key(
        "channels_wsdeny.policies.IsAuthenticated",
        "a Policy, or the dotted path of one",
        _is_policy,
        falls_back=False,
    )
    #: Whether the default policy applies to HTTP: to views (by `MirrorMiddleware`) and a stack's other apps.
    MIRROR_DEFAULT_POLICY: Key[bool] = Key(
        False, "True or False", lambda value: isinstance(value, bool), falls_back=False
    )
    #: The authentication classes, asked in this order: instances, or dotted paths of those or of classes.
    AUTHENTICATION: Key[Sequence[Any]] = Key(
        ("channels_wsdeny.authentication.SessionAuthentication",),
        "a list of authentication classes, or of their dotted paths",
        lambda value: _is_list_of_paths(value, "authenticate", "aauthenticate"),
        falls_back=False,
    )
    #: The origins of pages that may begin a handshake with the credentials that the browser adds: ``"same"`` (the own
    #: host, and ``CSRF_TRUSTED_ORIGINS``), a list in place of the latter, or ``"*"``.
    ORIGINS: Key[Any] = Key(
        "same", "'same', '*' or a list of origins such as ['https://example.com']", is_origins, falls_back=False
    )
    #: Hooks for all requests of the site.
    HOOKS: Key[Sequence[Any]] = Key(
        [], "a list of dotted paths of Hooks", lambda value: _is_list_of_paths(value, "on_request"), falls_back=False
    )
    #: Django middleware that run around handshakes, outside hooks and policies.
    MIDDLEWARE: Key[Sequence[str]] = Key(
        [], "a list of dotted paths of Django middleware", _is_list_of_paths, falls_back=False
    )
    #: Seconds for a handshake's hooks, session, user and policies, waiting for a thread included; then a 503.
    POLICY_TIMEOUT: Key[float] = Key(4.0, "a number of seconds above 0", _is_number)
    #: Seconds for the answer of an application, from its call; then a 500.
    ACCEPT_TIMEOUT: Key[float | None] = Key(
        10.0, "a number of seconds above 0, or None", lambda value: value is None or _is_number(value)
    )
    #: Threads per process for sessions, users, and synchronous policies and hooks of handshakes.
    POOL_SIZE: Key[int] = Key(16, "a whole number of threads above 0", _is_integer)
    #: ``"response"`` denies with an HTTP response; ``"close"`` accepts and closes with 4000 + status.
    DENY_WITH: Key[Literal["response", "close"]] = Key(
        "response", "'response' or 'close'", lambda value: value in DENY_WITH
    )
    #: Bytes of the body that a handshake is denied with at most; a larger one is replaced by a 500.
    MAX_DENIAL_BODY: Key[int] = Key(1024 * 1024, "a whole number of bytes above 0", _is_integer)
    #: The ``WWW-Authenticate`` of a 401, which RFC 9110 section 15.5.2 requires. No scheme is registered for
    #: session cookies, and ``Basic`` would make browsers open a dialog.
    CHALLENGE: Key[str] = Key(
        "Session",
        "a challenge of printable ASCII, such as 'Session'",
        lambda value: isinstance(value, str) and value.isascii() and value.isprintable() and value != "",
    )
    #: Seconds between two signs of life of a process: for what it holds in the site's cache, and by the channel layer.
    HEARTBEAT: Key[float] = Key(10.0, "a number of seconds above 0", _is_number)
    #: Seconds in the ``Retry-After`` of a 503.
    RETRY_AFTER: Key[int] = Key(5, "a whole number of seconds above 0", _is_integer)
    #: Whether open sockets are closed when what let them in is gone.
    LIVE: Key[bool] = Key(True, "True or False", lambda value: isinstance(value, bool))
    #: Seconds after which the policies of every open socket are asked again; 0 for never.
    RECHECK_INTERVAL: Key[float] = Key(0, "a number of seconds, or 0", _is_number_or_zero)
    #: Seconds over which open sockets are closed before the server ends; 0 leaves them to the server.
    DRAIN_SECONDS: Key[float] = Key(0, "a number of seconds, or 0", _is_number_or_zero)


KEYS: dict[str, Key[Any]] = {name: key for name, key in vars(Settings).items() if isinstance(key, Key)}

conf = Settings()


def _read_again(*, setting: str, **kwargs: Any) -> None:
    if setting == "CHANNELS_WSDENY":
        vars(conf).clear()


setting_changed.connect(_read_again)


def middleware_index(dotted_path: str) -> int | None:
    """The position in ``MIDDLEWARE`` of the class `dotted_path` or of a subclass; None if there is none."""
    return index_in(tuple(settings.MIDDLEWARE), dotted_path)


@lru_cache(maxsize=32)
def index_in(middleware: tuple[str, ...], dotted_path: str) -> int | None:
    """As `middleware_index`, in another list of middleware."""
    for index, path in enumerate(middleware):
        if path == dotted_path:
            return index
        with suppress(Exception):  # Importing a site's module can raise anything; Django reports it.
            if dotted_path in [f"{base.__module__}.{base.__qualname__}" for base in import_string(path).__mro__]:
                return index
    return None


def is_mirrored() -> bool:
    """Whether `MirrorMiddleware`, or a subclass, is in ``MIDDLEWARE``."""
    return middleware_index(MIRROR) is not None
