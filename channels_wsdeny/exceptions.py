"""`Deny`, which a site raises, and the exceptions that the package raises, also for classes of a site."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from django.utils.functional import Promise

from . import status as statuses

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from django.http.response import HttpResponseBase

__all__ = ["Deny", "HandshakeDenied", "HookError", "PolicyError"]

#: The members that a problem body has by itself (RFC 9457 section 3.1, and ours).
_RESERVED = frozenset({"type", "title", "status", "detail", "instance", "code", "debug", "retry"})


class Deny(Exception):  # noqa: N818 - named for how it reads: raise Deny(404)
    """Deny the request with this answer. Raise it anywhere before the accept, or return it from a policy or hook.

    `status` is 300-599 (401 gets the site's challenge); `detail` is text for people; `code` is for programs and
    follows from the status by default; `headers` are added to the response; `members` become members of the
    problem body (RFC 9457 section 3.2). `response` is sent instead of a problem body: any Django response
    (template, redirect, file); `status`, `detail` and `code` then only serve the log.

    Raises `ValueError` for a status that cannot deny or a reserved member, `TypeError` for a code or detail that
    is no text, and for headers that are no dict.
    """

    # What an instance of a subclass has whose `__init__` does not call this one: it is a plain 403.
    status: int = 403
    code: str = "permission_denied"
    detail: statuses.Text = ""
    headers: Mapping[str, str] = MappingProxyType({})
    response: HttpResponseBase | None = None
    members: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self,
        status: int = 403,
        detail: statuses.Text = "",
        *,
        code: str | None = None,
        headers: Mapping[str, str | int] | None = None,
        response: HttpResponseBase | None = None,
        **members: Any,
    ) -> None:
        if response is not None:
            status = response.status_code
        if not statuses.is_denial(status):
            raise ValueError(
                f"Deny: the status of a denial is 300-599, found {status!r}. To let the request pass, return True "
                "from the policy, or accept in the consumer."
            )
        if not isinstance(detail, (str, Promise)):
            raise TypeError(
                f"Deny: the detail is text, found a {type(detail).__name__}. Give data as members of the problem "
                "body: Deny(422, errors=[...])."
            )
        if code is not None and not isinstance(code, str):
            raise TypeError(f"Deny: the code is a string such as 'too_young', found a {type(code).__name__}.")
        if headers and not hasattr(headers, "items"):
            raise TypeError(f"Deny(headers=...) takes a dict, found a {type(headers).__name__}.")
        if not _RESERVED.isdisjoint(members):
            raise ValueError(f"Deny: {sorted(_RESERVED & members.keys())} are members of every problem body.")
        super().__init__(status, detail)
        self.status = statuses.wire_status(status)
        self.code = code or statuses.code_for(self.status)
        self.detail = detail
        # As Django's responses take a number.
        self.headers = {
            name: str(value) if isinstance(value, int) else value for name, value in (headers or {}).items()
        }
        self.response = response
        self.members = members

    def __str__(self) -> str:
        return f"{self.status} {self.code}" + (f": {self.detail}" if self.detail else "")


class HandshakeDenied(OSError):  # noqa: N818 - a state of the connection, as ConnectionReset
    """The application sent a message after its handshake was denied.

    An `OSError`, as the ASGI specification asks of ``send()`` on a closed connection.
    """


class PolicyError(TypeError):
    """A policy gave an answer that is neither True, False nor a denial; the request is denied with a 500."""


class HookError(TypeError):
    """A hook returned something that is no response, or misused `call_next`; the request is denied with a 500."""


def refuse_arguments(cls: type, names: Iterable[str]) -> None:
    """Raise `TypeError` for an attribute of `cls` which the ``__init__`` of a base sets to the argument of its name."""
    initialized = {each for base in cls.__mro__ if "__init__" in vars(base) for each in base.__mro__}
    given = {name for base in cls.__mro__ if base not in initialized for name in vars(base)}
    for name in sorted(given.intersection(names)):
        raise TypeError(f"{cls.__qualname__}.{name} would be ignored: give {name} as an argument of {cls.__name__}().")
