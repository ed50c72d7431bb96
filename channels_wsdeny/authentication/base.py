"""Authentication classes, whose protocol is that of REST framework, and how a request is authenticated by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.utils.functional import LazyObject, SimpleLazyObject
from django.utils.module_loading import import_string

from ..concurrency import call_sync
from ..conf import conf
from ..exceptions import Deny, refuse_arguments
from ..headers import values_of
from ..http.context import noting
from ..http.exception_handler import denial_of, means_denial
from ..http.request import ScopeRequest, anonymous_user, copy_request, following, known_user

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from django.http import HttpRequest


class Authentication:
    """Tells who sends a request; a subclass gives `authenticate` or `aauthenticate`.

    They return a user, ``(user, auth)``, or None for "not by me": then the next class is asked. They raise `Deny`,
    `PermissionDenied` or an exception of REST framework for credentials that are wrong, which ends the list with a 401.
    The classes of REST framework have the same protocol, and can be used as they are.
    """

    #: Whether it may read what a browser adds by itself to the requests of any page: cookies, or an ``Authorization``
    #: that it has asked the user for. Then the ``Origin`` of a handshake with such credentials is checked.
    ambient: ClassVar[bool] = True
    #: The arguments that ``__init__`` sets as attributes: a subclass cannot override them.
    _arguments: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_arguments(cls, cls._arguments)

    def authenticate(self, request: HttpRequest) -> Any:
        """The user of `request`; may block."""
        return call_sync(self.aauthenticate, request)

    async def aauthenticate(self, request: HttpRequest) -> Any:
        """As `authenticate`, for classes that await something."""
        raise NotImplementedError(f"{type(self).__name__} must define authenticate() or aauthenticate().")

    def authenticate_header(self, request: HttpRequest) -> str | None:
        """The challenge of a 401 (RFC 9110 section 11.6.1), such as ``Bearer``; None without one."""
        return None


class SessionAuthentication(Authentication):
    """The user of the session, verified by Django's backends; for views, the one of `AuthenticationMiddleware`.

    It reads the session's cookie alone, and browsers send that with the handshake of any page: see ``ORIGINS``.
    """

    def authenticate(self, request: HttpRequest) -> Any:
        """The user; None for an anonymous one."""
        user = session_user(request)
        return user if user.is_authenticated else None


class _Reads(NamedTuple):
    """Which parts of a request a class takes the credentials from; one that is not known may look everywhere."""

    header: bytes = b""
    #: The name of a parameter of the query string.
    query: bytes = b""
    subprotocol: str = ""

    def may_find(self, scope: Mapping[str, Any]) -> bool:
        """Whether `scope` has one of them."""
        if self.header and values_of(scope.get("headers", ()), self.header):
            return True
        if self.query:
            query = scope.get("query_string", b"")
            if self.query in query or b"%" in query:  # A name may be percent-encoded.
                return True
        return bool(self.subprotocol) and self.subprotocol in (scope.get("subprotocols") or ())


_AUTHORIZATION = _Reads(header=b"authorization")
#: What classes (not their subclasses) are known to read: parts with credentials that no browser adds.
_KNOWN_READS = {
    "channels_wsdeny.authentication.bearer.BearerAuthentication": _AUTHORIZATION,
    "channels_wsdeny.authentication.ticket.TicketAuthentication": _Reads(query=b"ticket"),
    "knox.auth.TokenAuthentication": _AUTHORIZATION,
    # RFC 6750 section 2.3
    "oauth2_provider.contrib.rest_framework.authentication.OAuth2Authentication": _Reads(
        header=b"authorization", query=b"access_token"
    ),
    "rest_framework.authentication.TokenAuthentication": _AUTHORIZATION,
}
#: Those of SimpleJWT, whose setting ``AUTH_HEADER_NAME`` says which header they read.
_OF_SIMPLE_JWT = {
    "rest_framework_simplejwt.authentication.JWTAuthentication",
    "rest_framework_simplejwt.authentication.JWTStatelessUserAuthentication",
}


def _known_reads(name: str) -> _Reads | None:
    """What the class of this dotted name reads; None if that is not known."""
    if name not in _OF_SIMPLE_JWT:
        return _KNOWN_READS.get(name)
    from rest_framework_simplejwt.settings import api_settings  # noqa: PLC0415 - an optional dependency

    header: str = api_settings.AUTH_HEADER_NAME
    return _Reads(header=header.removeprefix("HTTP_").replace("_", "-").lower().encode())


#: What an authentication class sets on its copy of the request alone.
_OF_CLASSES = frozenset({"auser", "auth", "user", "wsdeny"})


class _Authenticator:
    """One authentication class, of this package, of REST framework or of Ninja."""

    def __init__(self, instance: Any) -> None:
        self.instance = instance
        cls = type(instance)
        names = [f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__]
        self.is_session = cls is SessionAuthentication
        self._is_drf = "rest_framework.authentication.BaseAuthentication" in names
        self.is_ninja = "ninja.security.base.AuthBase" in names
        self.reads = _known_reads(names[0])
        #: The subprotocol that goes before a token, for a `SubprotocolToken`.
        self.subprotocol: str | None = None
        if "channels_wsdeny.authentication.bearer.SubprotocolToken" in names:
            self.subprotocol = instance.name
            if names[0] == "channels_wsdeny.authentication.bearer.SubprotocolToken":
                self.reads = _Reads(subprotocol=instance.name)
        self._ask: Callable[[Any], Any] = instance
        if not self.is_ninja:  # whose instances are called
            is_async = not hasattr(instance, "authenticate") or _overrides(cls, "aauthenticate", "authenticate")
            self._ask = instance.aauthenticate if is_async else instance.authenticate
        self.is_ambient = not self.is_session and self.reads is None and _is_ambient(cls)

    def authenticate(self, request: HttpRequest) -> Any:
        """What the class says; None for "not by me"."""
        asked = self._request_for(request)
        with following(asked._request if self._is_drf else asked, request, but=_OF_CLASSES):
            return call_sync(self._ask, asked)

    def challenge(self, request: HttpRequest) -> str | None:
        """The challenge of the class for a 401."""
        if self.is_ninja:
            scheme: str = getattr(self.instance, "openapi_scheme", "bearer")
            return scheme.capitalize()
        make = getattr(self.instance, "authenticate_header", None)
        return None if make is None else make(self._request_for(request))

    def _request_for(self, request: HttpRequest) -> Any:
        """The request as the class expects it: a copy whose user is that of the session.

        Those of REST framework get its `Request` around that. It is the same for the credentials and for the
        challenge, for classes write into it.
        """
        if self.is_session:
            return request
        made = vars(request).setdefault("_wsdeny_asked_with", {})
        if self not in made:
            user = session_user(request)
            copied = copy_request(request, user=user)
            vars(copied).pop("_wsdeny_asked_with")
            if not isinstance(copied, ScopeRequest):
                copied.auser = _loading(user)
            made[self] = _as_drf(copied) if self._is_drf else copied
        return made[self]


def _as_drf(request: HttpRequest) -> Any:
    from rest_framework.request import Request  # noqa: PLC0415 - an optional dependency

    return Request(request)


def _loading(user: Any) -> Callable[[], Awaitable[Any]]:
    """The ``auser`` of a view's request: loads `user`, if it is lazy, in the thread of the request."""

    async def auser() -> Any:
        await sync_to_async(lambda: user.is_authenticated, thread_sensitive=True)()
        return user

    return auser


class Authenticators:
    """The authentication classes of a site or stack, in their order."""

    def __init__(self, instances: Iterable[Any]) -> None:
        self._all = tuple(_Authenticator(instance) for instance in instances)
        #: Whether there is nothing but Django's session.
        self.is_session_only = len(self._all) == 1 and self._all[0].is_session
        #: Whether one of them may read cookies other than the session's.
        self.reads_cookies = any(each.is_ambient for each in self._all)
        #: Whether it can be told by the parts of a request that it has no credentials for any of them.
        self.are_known = all(each.is_session or each.reads is not None for each in self._all)
        #: The subprotocols that go before a token.
        self.subprotocols = tuple(each.subprotocol for each in self._all if each.subprotocol is not None)

    def may_find_credentials(self, scope: Mapping[str, Any]) -> bool:
        """Whether `scope` may have credentials for one of them, the session left out."""
        if self.is_session_only:
            return False
        return any(each.reads is None or each.reads.may_find(scope) for each in self._all if not each.is_session)

    def has_own_challenge(self, scope: Mapping[str, Any]) -> bool:
        """Whether the challenge may depend on more than these classes: they may say what is wrong with a token."""
        return not self.are_known or self.may_find_credentials(scope)

    def authenticate(self, request: HttpRequest) -> tuple[Any, Any]:
        """The user and the credentials (``request.auth``) by the first class that knows the user; may block.

        The user is anonymous if none does. Raises what denies the request: a `Deny` for wrong credentials, or the
        error of a class.
        """
        for each in self._all:
            try:
                with noting(request, "authentication", type(each.instance)) as note:
                    found = each.authenticate(request)
                    note(None if found is None else True)
            except PermissionDenied as error:
                raise Deny(401, code="invalid_credentials") from error
            except Deny as deny:
                raise _with_code(deny) from None
            if found is None or (each.is_ninja and not found):
                continue
            user, auth = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
            if user is None:  # a token without a user, such as that of a client (RFC 6749 section 4.4)
                user = anonymous_user()
            if not hasattr(user, "is_authenticated"):
                raise TypeError(
                    f"{type(each.instance).__name__} returned a {type(user).__name__} for the user. It returns a "
                    "user, (user, auth), or None if the request has no credentials for it."
                )
            vars(request)["_wsdeny_found_by"] = each.instance
            return user, auth
        return anonymous_user(), None

    def challenge(self, request: HttpRequest) -> str | None:
        """The ``WWW-Authenticate`` of a 401; None if none of them has one."""
        challenges = [each.challenge(request) for each in self._all]
        return ", ".join(dict.fromkeys(filter(None, challenges))) or None


#: What was made of each list in the setting, and the list, by its identity. All requests share it, the first ones too:
#: what has taken a ticket is not asked for it again.
_made: dict[int, tuple[object, Authenticators]] = {}
#: Lists that are kept.
_MOST = 64


def authentication_of_site() -> Authenticators:
    """The authentication classes of ``AUTHENTICATION``. Raises `ImproperlyConfigured` if they cannot be used."""
    value = conf.AUTHENTICATION
    found = _made.get(id(value))
    if found is None:
        if len(_made) >= _MOST:
            _made.clear()
        found = _made.setdefault(id(value), (value, as_authenticators(value)))
    return found[1]


def as_authenticators(value: Any, where: str = "CHANNELS_WSDENY['AUTHENTICATION']") -> Authenticators:
    """The authentication classes of a list of instances, classes or dotted paths.

    Raises `ImproperlyConfigured` if they cannot be used.
    """
    if not isinstance(value, (list, tuple)):
        raise ImproperlyConfigured(f"{where} is a list of authentication classes, found {value!r}.")
    return Authenticators(_instance(item, where) for item in value)


def _instance(value: Any, where: str) -> Any:
    found = import_string(value) if isinstance(value, str) else value
    if isinstance(found, type):
        found = found()
    if not any(callable(getattr(found, name, None)) for name in ("authenticate", "aauthenticate")):
        raise ImproperlyConfigured(
            f"{where}: {value!r} is no authentication class. It has authenticate(request), which returns a user, "
            "(user, auth) or None."
        )
    return found


# What a request is authenticated by


class RefusedCredentials(Deny, PermissionDenied):
    """Wrong credentials of a request to a view: where other middleware looks at the user, Django makes a 403 of them.

    They stay in the request until something has answered them.
    """

    @classmethod
    def of(cls, deny: Deny) -> RefusedCredentials:
        """The same denial."""
        return cls(
            deny.status, deny.detail, code=deny.code, headers=deny.headers, response=deny.response, **deny.members
        )


class _Lazy:
    """Authenticates a request when its user is first looked at, once."""

    def __init__(self, request: HttpRequest, authentication: Authenticators, given: Any) -> None:
        self.request, self._authentication, self._given = request, authentication, given
        self._refusal: Exception | None = None

    def __call__(self) -> Any:
        if self._refusal is not None:
            raise self._refusal
        request: Any = self.request
        if isinstance(request, ScopeRequest) and self._given is not None and self._given.is_authenticated:
            return self._given  # which a wrapper has put into the scope
        own = vars(request)
        try:
            user, request.auth = self._authentication.authenticate(request)
        except Exception as error:
            self._refusal = error
            if not isinstance(request, ScopeRequest) and means_denial(error):
                self._refusal = own["_wsdeny_refusal"] = RefusedCredentials.of(denial_of(error))
                raise self._refusal from error
            raise
        if user.is_authenticated:  # else a challenge may be asked of what the classes have written into them
            own.pop("_wsdeny_asked_with", None)
        own["_wsdeny_found_user"], own["_wsdeny_found_auth"] = user, request.auth
        return user


class _LazyOfCopy:
    """The user of a copy of a view's request, which middleware has made: the one of the request, found once."""

    #: What authentication leaves in a request besides its user.
    _FOUND = ("auth", "_wsdeny_found_user", "_wsdeny_found_auth", "_wsdeny_found_by", "_wsdeny_refusal")

    def __init__(self, request: HttpRequest, original: HttpRequest, user: Any) -> None:
        self.request, self._original, self._user = request, original, user

    def __call__(self) -> Any:
        original = vars(self._original)
        try:
            self._user.is_authenticated  # noqa: B018 - a lazy object is loaded by looking at it
        finally:
            vars(self.request).update({name: original[name] for name in self._FOUND if name in original})
        return self._user._wrapped


def authenticate_by(request: HttpRequest, authentication: Authenticators) -> None:
    """Make `request.user` the user that `authentication` finds, loaded when it is first looked at.

    A user that a wrapper has put into the scope of a handshake stays, unless it is anonymous.
    """
    own = vars(request)
    if own.get("_wsdeny_authentication") is authentication:
        lazy, user = own.get("_wsdeny_lazy", (None, None))
        if lazy is not None and lazy.request is not request and own.get("user") is user:
            _set_lazy(request, _LazyOfCopy(request, lazy.request, user))
        return
    own["_wsdeny_authentication"] = authentication
    if not isinstance(request, ScopeRequest):
        own.setdefault("auth", None)  # which the others have by their class
    if authentication.is_session_only:
        return
    given = own.get("user")
    known = known_user(request) if given is not None else None
    if isinstance(request, ScopeRequest):
        if known is not None and known.is_authenticated:
            return
        may_find = authentication.may_find_credentials(request.scope) or bool(request.subprotocol_tokens)
        if not may_find and known is not None:
            return
        if not may_find and given is None and not request.may_have_session_user:
            own["user"] = anonymous_user()
            return
    own["_wsdeny_session_user"] = given
    _set_lazy(request, _Lazy(request, authentication, given))


def _set_lazy(request: HttpRequest, lazy: _Lazy | _LazyOfCopy) -> None:
    """Make what `lazy` returns the user of `request`."""
    own = vars(request)
    own["user"] = SimpleLazyObject(lazy)
    if not isinstance(request, ScopeRequest):
        own["_wsdeny_lazy"] = lazy, own["user"]
        own["auser"] = _loading(own["user"])


def found_user(request: HttpRequest) -> Any:
    """The user that the authentication classes have found; None if they were not asked."""
    return vars(request).get("_wsdeny_found_user")


def found_by(request: HttpRequest) -> Any:
    """The authentication class that has found the user of `request`; None if nothing has, or that is another user."""
    own = vars(request)
    user = own.get("user")
    while isinstance(user, LazyObject):
        user = user._wrapped
    return own.get("_wsdeny_found_by") if user is found_user(request) else None


def session_user(request: HttpRequest) -> Any:
    """The user of the session, perhaps lazy: as Django's `AuthenticationMiddleware` has set it, for a view."""
    own = vars(request)
    if own.get("_wsdeny_session_user") is not None:
        return own["_wsdeny_session_user"]
    if isinstance(request, ScopeRequest):
        return request.session_user()
    user = own.get("user")
    return anonymous_user() if user is None or "_wsdeny_session_user" in own else user


def _with_code(deny: Deny) -> Deny:
    """`deny`; a plain 401 says that there were credentials."""
    if deny.status != 401 or deny.code != "not_authenticated" or deny.response is not None:
        return deny
    return Deny(401, deny.detail, code="invalid_credentials", headers=deny.headers, **deny.members)


def _overrides(cls: type, name: str, other: str) -> bool:
    """Whether the nearest class that defines `name` is a subclass of the one that defines `other`."""
    definers = {each: next((base for base in cls.__mro__ if each in vars(base)), object) for each in (name, other)}
    return cls.__mro__.index(definers[name]) < cls.__mro__.index(definers[other])


def _is_ambient(cls: type) -> bool:
    """Whether `cls` may read cookies: it says no, and that is about the method which is asked."""
    if getattr(cls, "ambient", True) is not False:
        return True
    return any(_overrides(cls, name, "ambient") for name in ("authenticate", "aauthenticate"))
