"""Asking again what let an open socket in, with a fresh request and a fresh user.

This is how it is done. When it is done, the scheduler in `live` says, and the application by ``recheck()``.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from django.apps import apps
from django.conf import settings
from django.contrib import auth
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.base import SessionBase
from django.db.models import Model
from django.utils.functional import LazyObject, SimpleLazyObject, empty

from ..authentication.base import authenticate_by, found_user
from ..authentication.ticket import Ticket
from ..concurrency import submit_in_background, use_threads_of_open_sockets
from ..conf import conf
from ..db import is_unreachable
from ..exceptions import Deny
from ..http import session as sessions
from ..http.context import RequestContext, expression_of, get_context
from ..http.exception_handler import denial_of, means_denial
from ..http.request import HandshakeRequest, anonymous_user, authentication_of, full_path, known_user
from ..policies.base import And, Combination, Policy
from ..policies.permissions import AllowAny, AllowedOrigin
from ..policies.runner import Check, Checks, PolicyCheck, policy_checks, run_checks

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Awaitable, Callable, Iterator

    from django.http import HttpRequest

    from ..policies.base import Denial

#: The code of the denial of a socket whose session, or user, is not there any more.
SESSION_ENDED = "session_ended"
#: Seconds that a policy has to end once it is cancelled.
_GRACE = 1.0


class Grant:
    """What let a socket in at one layer: the policies, and the request that they allowed."""

    __slots__ = (
        "first_id",
        "identity",
        "obj",
        "policies",
        "request",
        "session_key",
        "session_user_id",
        "token_session_key",
        "user_id",
    )

    def __init__(self, request: HandshakeRequest, policies: tuple[Policy, ...]) -> None:
        self.request, self.policies = request, policies
        session = unwrapped(vars(request).get("session"))
        user = unwrapped(vars(request).get("user"))
        #: The key of the session: of that which was renewed since, if it was.
        self.session_key = _session_key(request, session)
        credentials = unwrapped(vars(request).get("auth"))
        token_key = credentials.session_key if isinstance(credentials, SessionBase) else None
        #: That of another session which is the credentials, as for the tokens of django-allauth.
        self.token_session_key = None if token_key == self.session_key else token_key
        #: The primary key of the user, as a string; None for an anonymous one.
        self.user_id = user_id(user)
        self.identity = self.user_id or _identity(user)
        named = (getattr(session, "_session_cache", None) or {}).get(auth.SESSION_KEY)
        #: The user of the session, whose key a session may have written otherwise, or by that of a derived model.
        self.session_user_id = None if named is None else key_name(named)
        if self.session_user_id is not None and self.session_user_id == _own_key_name(user):
            self.session_user_id = self.user_id
        #: That of the user whom a middleware has replaced, as one for impersonation does.
        self.first_id: str | None = None
        if request.user_setters:
            self.first_id = user_id(found_user(request)) or self.session_user_id or user_id(request.scope.get("user"))
        #: What the ``obj`` resolver of the last policy returned when it was asked last.
        self.obj: Any = None

    @property
    def session_keys(self) -> tuple[str, ...]:
        """The keys of the sessions that the socket depends on."""
        return tuple(key for key in (self.session_key, self.token_session_key) if key)


def _session_key(request: HandshakeRequest, session: Any) -> str | None:
    """The key of the session that the socket depends on: of a ticket, that which has issued it."""
    if isinstance(request.auth, Ticket):
        return request.auth.session_key
    # Channels' own session may be one that nothing has loaded.
    is_known = isinstance(session, SessionBase)
    key = session.session_key if is_known else request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    # The keys of many sockets go into one query, which must not fail for one of them.
    return key if key is not None and sessions.is_possible_key(key) else None


class Part(NamedTuple):
    """What a socket has entered or joined by policies of its own, and may lose by itself: a stream, a group."""

    request: HandshakeRequest
    policies: tuple[Policy, ...]
    #: Called with the denial once a policy denies.
    lose: Callable[[Denial], Awaitable[object]]


def grants_of(context: RequestContext) -> tuple[Grant, ...]:
    """What has let in the socket of `context`: one grant for each request that policies have allowed.

    So has the one whose credentials have told the user of such a request, perhaps in a stack within another.
    """
    asked: dict[int, tuple[Any, list[Policy]]] = {id(context.request): (context.request, [])}
    for policy, subject, _ in context.state.passed:
        request: Any = subject.request
        if request.told_by is not None:
            asked.setdefault(id(request.told_by), (request.told_by, []))
        asked.setdefault(id(request), (request, []))[1].append(policy)
    return tuple(Grant(request, tuple(policies)) for request, policies in asked.values())


def lasting_expressions(grants: tuple[Grant, ...]) -> tuple[str, ...]:
    """The policies of `grants` that have to go on allowing the socket, as they are written."""
    policies = [policy for grant in grants for policy in durable(grant.policies)]
    found = [expression_of(policy) for policy in policies if type(policy) not in {AllowAny, AllowedOrigin}]
    return tuple(dict.fromkeys(filter(None, found)))


def user_id(user: Any) -> str | None:
    """The primary key of `user` as a string, by which its sockets are found; None if there is none to tell.

    A model that is not the site's user model may have the same keys, so its instances have none here.
    """
    user = unwrapped(user)
    if user is None or user is empty or not getattr(user, "is_authenticated", False):
        return None
    if isinstance(user, Model) and not (
        apps.is_installed("django.contrib.auth") and isinstance(user, get_user_model())
    ):
        return None
    key = key_in(get_user_model(), user) if isinstance(user, Model) else getattr(user, "pk", None)
    return None if key is None else key_name(key)


def key_in(model: Any, row: Any) -> Any:
    """The primary key that `row` has in the table of `model`: one of a derived model may have keys of its own."""
    return getattr(row, model._meta.pk.attname, row.pk)


def _own_key_name(user: Any) -> str | None:
    """The primary key that `user`, a row of the site's user model, has itself: sessions name it by that."""
    return key_name(user.pk) if isinstance(user, Model) and user_id(user) is not None else None


def key_name(key: Any) -> str:
    """A primary key of the site's user model as a string, however it is written: a token may have a UUID's digits."""
    with suppress(Exception):  # A key that cannot be of the site's model may be that of a token's user.
        key = get_user_model()._meta.pk.to_python(key)
    return str(key)


def _identity(user: Any) -> object:
    """What tells `user` from others, also where it has no `user_id`; None for an anonymous one."""
    user = unwrapped(user)
    if not getattr(user, "is_authenticated", False):
        return None
    return user_id(user) or (type(user), getattr(user, "pk", None))


def unwrapped(value: Any) -> Any:
    """`value` itself, if it is a lazy object."""
    while isinstance(value, LazyObject):
        value = value._wrapped
    return value


# A fresh request


def fresh_request(grant: Grant) -> HandshakeRequest:
    """A new request as the one that was allowed: the same scope and route, with a session and user still to be loaded.

    `ctx` is shared.
    """
    old, session = grant.request, sessions.open_session(grant.session_key)
    scope = {name: value for name, value in old.scope.items() if name not in {"session", "user"}}
    if isinstance(unwrapped(old.scope.get("session")), SessionBase):  # by a wrapper, perhaps without a cookie
        scope["session"] = session
    request: Any = HandshakeRequest(scope)
    request.ctx = old.ctx
    route = old.url_route
    if route is not None:
        route = {**route, "kwargs": {**route.get("kwargs", {})}}
    request.route_to(vars(old).get("_resolver_match"), route)
    request.session = session
    request.subprotocol_tokens, request.user_setters = old.subprotocol_tokens, old.user_setters
    _set_user(request, grant)
    fresh: HandshakeRequest = request
    return fresh


def _set_user(request: Any, grant: Grant) -> None:
    """Have the user of a fresh request come from where that of the handshake came from.

    What has set another user since is called again, so this is the one that it was called with.
    """
    old = grant.request
    authentication, found, credentials = authentication_of(old), unwrapped(found_user(old)), old.auth
    is_set_again = old.user_setters or _is_set_by_policies(grant)
    user = unwrapped(old.scope.get("user") if is_set_again else vars(old).get("user"))
    name, is_known = user_id(user), getattr(user, "is_authenticated", False)
    is_found = not is_known or user is found or (name is not None and name == user_id(found))
    if authentication is not None and not authentication.is_session_only and is_found:
        if isinstance(credentials, Ticket):  # which is used up
            ticket = credentials._replace(session_key=grant.session_key)
            request.user = SimpleLazyObject(lambda: ticket.load_user() or anonymous_user())
        else:
            authenticate_by(request, authentication)
    elif is_known and (name is None or name != grant.session_user_id):  # by a wrapper, hook or policy
        request.user = SimpleLazyObject(lambda: _reload(user))
    # Else it is that of the session, which the request has by itself.


def _is_set_by_policies(grant: Grant) -> bool:
    """Whether a policy of `grant` has set the user, and does so again as it is asked: by its own credentials."""
    return "_wsdeny_user_is_set" in vars(grant.request) and any(each.sets_user for each in durable(grant.policies))


def _reload(user: Any) -> Any:
    """A user that did not come from the session: read anew if it is a model's; anonymous if it is gone or inactive."""
    if not isinstance(user, Model):
        return anonymous_user() if user is None or user is empty else user
    found = type(user)._default_manager.using(user._state.db).filter(pk=user.pk).first()  # as Django's backends
    return found if found is not None and getattr(found, "is_active", True) else anonymous_user()


class IsSameUser(Check):
    """Load the user, and deny if it is not the one that was allowed. One that was anonymous stays so."""

    def __init__(self, grant: Grant, users: dict[Any, Any]) -> None:
        self._grant, self._users = grant, users

    def blocks(self, request: HttpRequest) -> bool:
        return self._grant.identity is not None

    def run(self, request: Any) -> Denial | None:
        grant = self._grant
        if grant.identity is None:
            user = known_user(request)
            if user is None or user.is_authenticated:
                request.user = anonymous_user()  # Its session may have a user by now, or a hook had taken that away.
            return None
        key = (grant.session_key, _address(request)) if self._is_told_by_session() else None
        if key in self._users:
            request.user = self._users[key]
        else:
            request.user.is_authenticated  # noqa: B018 - a lazy object is loaded by looking at it
            if key is not None:
                self._users[key] = request.user
        return None if _identity(request.user) == grant.identity else Deny(401, code=SESSION_ENDED)

    def _is_told_by_session(self) -> bool:
        """Whether nothing but the session tells the user, so that its sockets of one address can share it.

        Each socket has its own token, which may be gone, and middleware may set a user by the path or a header.
        """
        request, name = self._grant.request, self._grant.user_id
        if name is None or name != self._grant.session_user_id or request.user_setters:
            return False
        authentication = authentication_of(request)
        return authentication is None or not (
            request.subprotocol_tokens or authentication.may_find_credentials(request.scope)
        )


def _address(request: Any) -> tuple[bytes | None, str, bytes]:
    """What a site may tell tenants by, in which one user has other permissions."""
    return request.header(b"host"), full_path(request.scope), request.scope.get("query_string", b"")


# Asking


async def ask_again(
    grants: tuple[Grant, ...], context: contextvars.Context, users: dict[Any, Any] | None = None
) -> Denial | None:
    """Ask the policies of `grants` again: the first denial, or None.

    They are asked in a copy of `context`, the contextvars that they were first asked in. Users are kept in `users`, so
    that the sockets of one session and address share one user, and its permissions: the scheduler gives it, and has
    threads of its own. Policies that count only `once` are left out.

    Raises what says that a database or other service cannot be reached, also as the cause of a `Deny`, unless another
    policy denies; and `TimeoutError` for a policy that runs past ``POLICY_TIMEOUT``, also if it swallows its
    cancellation: other sockets are not to wait for it.
    """
    context = context.copy()
    if users is not None:  # The scheduler asks, and not the application of a single socket.
        context.run(use_threads_of_open_sockets)
    asking = asyncio.create_task(_ask_grants(grants, {} if users is None else users), context=context)
    try:
        await asyncio.wait({asking}, timeout=conf.POLICY_TIMEOUT * len(grants) + _GRACE)
        if not asking.done():
            raise TimeoutError(
                "A policy of an open socket ran past POLICY_TIMEOUT, and does not let itself be cancelled."
            )
        if asking.cancelled():  # by a policy of its own
            return Deny(500)
        return asking.result()
    finally:
        asking.cancel()


async def _ask_grants(grants: tuple[Grant, ...], users: dict[Any, Any]) -> Denial | None:
    failed: Exception | None = None
    for grant in grants:
        request: Any = fresh_request(grant)
        request.wsdeny = context = RequestContext(request)
        # A policy of the site's own may ask a throttle or a limit, which has counted the handshake.
        handshake = get_context(grant.request)
        context.state.counted, context.state.is_asked_again = handshake.state.counted, True
        policies = tuple(durable(grant.policies))
        setters, sets_user = grant.request.user_setters, any(policy.sets_user for policy in policies)
        checks: list[Check] = [*setters]
        is_set_again = (sets_user and setters) or _is_set_by_policies(grant)
        if not (is_set_again and grant.identity is not None):
            checks.append(IsSameUser(grant, users))  # Else a policy has found another than there was before it.
        checks += policy_checks(policies)
        if sets_user:
            checks.append(IsSameUser(grant, {}))  # The credentials that a policy looks at may be gone.
        try:
            denial = await _run(checks, context)
        except Exception as error:  # The other grants may deny.
            failed = failed or error
            continue
        finally:
            handshake.state.counted = context.state.counted
            _end_with(context, handshake)
        if denial is not None:
            return denial
        grant.obj = context.obj
    if failed is not None:
        raise failed
    return None


async def _run(checks: list[Check], context: RequestContext) -> Denial | None:
    """Run `checks`; returns the first denial.

    Where one cannot reach its service, those after it are asked all the same: its error is raised if none denies.
    """
    failed: Exception | None = None
    while checks:
        left = Checks(checks)
        try:
            async with asyncio.timeout(conf.POLICY_TIMEOUT):
                denial = await run_checks(left, context)
        except Exception as error:
            # As at the handshake, an error denies; but it may come from what the policy that has failed has not set.
            if not _is_outage(error) and (failed is None or means_denial(error)):
                return denial_of(error)
            failed = failed or error
            over = max(len(checks) - len(left), 1)
            check, checks = checks[over - 1], checks[over:]
            if not isinstance(check, PolicyCheck) or check.policy.sets_user:
                break  # Those after it would be asked about another user.
        else:
            if denial is not None:
                return denial
            break
    if failed is not None:
        raise failed
    return None


def _is_outage(error: Exception) -> bool:
    """Whether `error` says that a service cannot be reached, so that nothing is decided; a `Deny`, by its cause."""
    if isinstance(error, Deny):
        return isinstance(error.__cause__, Exception) and is_unreachable(error.__cause__)
    return denial_of(error).status == 503


def _end_with(context: RequestContext, handshake: RequestContext) -> None:
    """Have what was taken for a fresh request, such as a slot, be released once its socket ends."""
    waiting, context.state.has_ended = context.state.ending or [], True  # A policy that goes on releases it itself.
    if handshake.state.has_ended:  # pragma: no cover - by chance just now
        submit_in_background(context.run_ending)
        return
    for callback in waiting:
        handshake.on_end(callback)


def durable(policies: tuple[Policy, ...]) -> Iterator[Policy]:
    """`policies` as an open socket is asked again: without those that count once, such as throttles and limits.

    Where one is an operand of ``|`` or ``~``, the whole expression counts once.
    """
    for policy in policies:
        if type(policy) is And:  # A subclass may have a check of its own.
            yield from durable(policy.policies)
        elif not counts_once(policy):
            yield policy.for_open_socket()


def counts_once(policy: Policy) -> bool:
    """Whether `policy`, or one that it combines, is asked at the handshake alone."""
    if getattr(policy, "once", False) is True:
        return True
    return isinstance(policy, Combination) and any(map(counts_once, policy.policies))
