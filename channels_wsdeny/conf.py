"""The package's settings: one typed view of ``settings.CHANNELS_WSDENY``.

Read lazily on each access, so that ``override_settings`` works. Each default is written once, here;
`channels_wsdeny.checks` compares what a site wrote with the types given here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from django.conf import Settings as DjangoSettings
from django.conf import settings
from django.utils.module_loading import import_string

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

DENY_WITH = ("response", "close")


@dataclass(frozen=True)
class Key(Generic[T]):
    """One key of ``CHANNELS_WSDENY``: its default, and what a valid value looks like."""

    default: T
    expected: str
    valid: Callable[[Any], bool]
    #: Whether a value that cannot be used is kept, for its default might open what it was to shut.
    kept: bool = False
    name: str = ""

    def __set_name__(self, owner: type, name: str) -> None:
        object.__setattr__(self, "name", name)

    @overload
    def __get__(self, instance: None, owner: type) -> Key[T]: ...
    @overload
    def __get__(self, instance: Settings, owner: type) -> T: ...
    def __get__(self, instance: Settings | None, owner: type) -> Key[T] | T:
        if instance is None:
            return self
        given = instance.given()
        if self.name not in given:
            return self.default
        value = given[self.name]
        return cast("T", value) if self.kept or self.valid(value) else self.default


def _is_positive_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_policy(value: Any) -> bool:
    return isinstance(value, str) or (hasattr(value, "decide") and not isinstance(value, type))


def _are_hooks(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(item, str) or hasattr(item, "on_request") for item in value
    )


def _is_positive_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


class Settings:
    """Attribute access to ``CHANNELS_WSDENY``, one attribute a key."""

    @staticmethod
    def given() -> dict[str, Any]:
        """What the site has set, as it is."""
        wrapped = settings._wrapped  # type: ignore[misc]
        # Where the key is not set, asking `settings` for it takes longer than all the rest of a denial.
        given = (
            vars(wrapped).get("CHANNELS_WSDENY")
            if type(wrapped) is DjangoSettings
            else getattr(settings, "CHANNELS_WSDENY", None)
        )
        return given if isinstance(given, dict) else {}

    #: Policy for endpoints that carry none of their own, under a stack that names none: the dotted
    #: path of a ``Policy`` (class without arguments, or instance), or a ``Policy``.
    DEFAULT_POLICY: Key[Any] = Key(
        "channels_wsdeny.policies.IsAuthenticated",
        "a Policy, or the dotted path of one",
        _is_policy,
        kept=True,
    )
    #: Whether the default policy counts on HTTP as well: for views (by ``MirrorMiddleware``) and for
    #: everything else that a stack serves over HTTP, unless it carries a policy of its own.
    MIRROR_DEFAULT_POLICY: Key[bool] = Key(
        False, "True or False", lambda value: isinstance(value, bool), kept=True
    )
    #: Hooks for all requests of the site: dotted paths of ``Hooks``, or ``Hooks``.
    HOOKS: Key[Sequence[Any]] = Key([], "a list of dotted paths of Hooks", _are_hooks, kept=True)
    #: Seconds that a handshake's hooks, session, user and policies may take, waiting for a place in the
    #: pool included; past it the client gets a 503. Stays under the servers' handshake timeouts.
    POLICY_TIMEOUT: Key[float] = Key(4.0, "a number of seconds above 0", _is_positive_number)
    #: Threads for the blocking part of handshakes (sessions, users, synchronous policies), per process.
    POOL_SIZE: Key[int] = Key(16, "a whole number of threads above 0", _is_positive_integer)
    #: ``"response"``: deny with an HTTP response. ``"close"``: accept, then close with 4000 + status,
    #: for clients in browsers, whose scripts never see a handshake's status.
    DENY_WITH: Key[Literal["response", "close"]] = Key(
        "response", "'response' or 'close'", lambda value: value in DENY_WITH
    )
    #: Bytes of a denial's body at most; a larger one becomes a 500.
    MAX_DENIAL_BODY: Key[int] = Key(1024 * 1024, "a whole number of bytes above 0", _is_positive_integer)
    #: The ``WWW-Authenticate`` of a 401 (RFC 9110 section 15.5.2 demands one). No scheme is
    #: registered for cookie sessions, and ``Basic`` would pop up a dialog.
    CHALLENGE: Key[str] = Key(
        "Session",
        "a challenge of printable ASCII, such as 'Session'",
        lambda value: isinstance(value, str) and value.isascii() and value.isprintable() and value != "",
    )
    #: Seconds that the ``Retry-After`` of a 503 asks for.
    RETRY_AFTER: Key[int] = Key(5, "a whole number of seconds above 0", _is_positive_integer)


KEYS: dict[str, Key[Any]] = {name: key for name, key in vars(Settings).items() if isinstance(key, Key)}

conf = Settings()

MIRROR = "channels_wsdeny.middleware.MirrorMiddleware"


def is_mirrored() -> bool:
    """Whether `MirrorMiddleware`, or a subclass, is among the site's ``MIDDLEWARE``."""
    return _has_mirror(tuple(settings.MIDDLEWARE))


@lru_cache(maxsize=8)
def _has_mirror(middleware: tuple[str, ...]) -> bool:
    return any(path == MIRROR or _is_mirror(path) for path in middleware)


def _is_mirror(path: str) -> bool:
    try:
        return getattr(import_string(path), "is_wsdeny_mirror", False) is True
    except Exception:  # noqa: BLE001 - importing a site's module can raise anything, and Django says so
        return False
