"""Authentication by tokens: ``Authorization: Bearer``, and for browsers the offered subprotocols."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..concurrency import call_sync
from ..exceptions import Deny
from ..headers import is_sendable, values_of
from ..http.request import HandshakeRequest
from .base import Authentication, Authenticators, as_authenticators

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

    from ..types import Scope


class BearerAuthentication(Authentication):
    """A token in ``Authorization: Bearer`` (RFC 6750 section 2.1).

    `verify(token)`, sync or async, returns the user, ``(user, auth)``, or None for a token that is not valid. `scheme`
    is the word before the token. An inactive user is refused.
    """

    ambient = False
    _arguments = frozenset({"scheme", "verify"})

    def __init__(self, verify: Callable[[str], Any], *, scheme: str = "Bearer") -> None:
        if not callable(verify):
            raise TypeError(f"BearerAuthentication() takes a function from a token to its user, found {verify!r}.")
        self.verify, self.scheme = verify, scheme

    def authenticate(self, request: HttpRequest) -> Any:
        """The user of the token; None without a token of this scheme."""
        scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != self.scheme.lower():
            return None
        token = token.strip()
        if not token or " " in token:
            raise self._denial()
        found = call_sync(self.verify, token)
        user = found[0] if isinstance(found, tuple) and found else found
        if user is None or user is False or not getattr(user, "is_active", True):
            raise self._denial()
        return found

    def authenticate_header(self, request: HttpRequest) -> str | None:
        """The scheme."""
        return self.scheme

    def _denial(self) -> Deny:
        challenge = f'{self.scheme} error="invalid_token"'  # RFC 6750 section 3.1
        return Deny(401, code="invalid_credentials", headers={"WWW-Authenticate": challenge})


class SubprotocolToken(Authentication):
    """A token that the page of a browser sends as a subprotocol: ``new WebSocket(url, ["bearer", token])``.

    Browsers let pages set no header of a handshake but this. `name` is the subprotocol before the token, and
    `authentication` a class that reads ``Authorization``, or an instance: it gets the token there, after `scheme`
    (None: that of its own challenge), in a request without cookies. Both subprotocols are taken out of the scope, so
    that no consumer selects a token; where it selects none, `name` is selected.
    """

    ambient = False
    _arguments = frozenset({"name", "scheme"})

    def __init__(self, name: str, authentication: Any, scheme: str | None = None) -> None:
        # A subprotocol is a token, as the name of a header is (RFC 6455 section 4.1).
        if not isinstance(name, str) or not is_sendable(name.encode(), b""):
            raise TypeError(f"SubprotocolToken() takes the name of a subprotocol such as 'bearer', found {name!r}.")
        self.name, self.scheme = name, scheme
        self._authenticators = as_authenticators([authentication], "SubprotocolToken()")

    def authenticate(self, request: HttpRequest) -> Any:
        """The user of the token, as `authentication` tells; None without a token."""
        with_token = self._with_token(request)
        if with_token is None:
            return None
        user, auth = self._authenticators.authenticate(with_token)
        if not user.is_authenticated:
            raise Deny(401, code="invalid_credentials")
        return user, auth

    def authenticate_header(self, request: HttpRequest) -> str | None:
        """The challenge of `authentication`."""
        return self._authenticators.challenge(self._with_token(request) or request)

    def _with_token(self, request: HttpRequest) -> HandshakeRequest | None:
        """A request with the token as ``Authorization``, the same each time: the class may note something in it."""
        token = getattr(request, "subprotocol_tokens", {}).get(self.name)
        if token is None:
            return None
        own = vars(request).setdefault("_wsdeny_with_tokens", {})
        if self not in own:
            scheme = self.scheme or (self._authenticators.challenge(request) or "Bearer").split(" ")[0].rstrip(",")
            handshake: Any = request
            scope: Scope = handshake.scope
            headers = [pair for pair in scope["headers"] if pair[0] not in {b"authorization", b"cookie"}]
            # A subprotocol is ASCII (RFC 6455 section 4.1): one beyond latin-1 is a wrong token, and no error.
            headers.append((b"authorization", f"{scheme} {token}".encode("latin1", "replace")))
            left_out = {"session", "user", "cookies"}
            given = {name: value for name, value in scope.items() if name not in left_out}
            own[self] = HandshakeRequest({**given, "headers": headers})
        made: HandshakeRequest = own[self]
        return made


def take_tokens(scope: Scope, authentication: Authenticators) -> tuple[Scope, dict[str, str]]:
    """`scope` without the subprotocols that are tokens, and those, each by the subprotocol before it.

    The original is returned where there is none.
    """
    tokens: dict[str, str] = {}
    if not authentication.subprotocols:
        return scope, tokens
    offered = list(scope.get("subprotocols") or ())
    for name in authentication.subprotocols:
        left: list[str] = []
        remaining = iter(offered)
        for each in remaining:
            token = next(remaining, None) if each == name else None
            if token is None:
                left.append(each)
            else:
                tokens.setdefault(name, token)  # The first counts; none may stay.
        offered = left
    if not tokens:
        return scope, tokens
    headers = [pair for pair in scope.get("headers", ()) if pair[0] != b"sec-websocket-protocol"]
    if offered:
        headers.append((b"sec-websocket-protocol", ", ".join(offered).encode("latin1", "replace")))
    return {**scope, "subprotocols": offered, "headers": headers}, tokens


def tokens_of_question(scope: Scope, authentication: Authenticators) -> dict[str, str]:
    """The token of a plain request for a socket's address, as `take_tokens` finds it in the handshake.

    A script that asks why its handshake was denied can offer no subprotocols. It sends the token as ``Authorization``,
    after the name of the subprotocol.
    """
    for value in values_of(scope.get("headers", ()), b"authorization"):
        scheme, _, token = value.decode("latin1").partition(" ")
        return {each: token.strip() for each in authentication.subprotocols if each.lower() == scheme.lower()}
    return {}
