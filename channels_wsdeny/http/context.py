"""The context of a request: ``scope["wsdeny"]``, or ``request.wsdeny`` on a view."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.utils.functional import LazyObject, empty

from ..db import is_unreachable
from ..log import log_failure
from . import trace
from .request import ScopeRequest, authentication_of, full_path, known_user

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from django.http import HttpRequest

    from ..authentication.base import Authenticators
    from ..concurrency import HeldThread
    from ..hooks import Hooks
    from ..hooks.registry import Hook
    from ..policies import Policy
    from ..types import HttpRequest as TypedRequest
    from ..types import Scope
    from .origins import Origins


class Subject(NamedTuple):
    """What a decision is about. It does not hold for another subject.

    `given_user` is the user as the request has it, perhaps a lazy object, and `user` what that has loaded.
    """

    request: HttpRequest
    given_user: Any
    user: Any
    session: Any
    session_key: str | None
    #: The path, the method, the view, and the positional and keyword arguments of the URL.
    asked_for: tuple[Any, ...]
    #: The query of a view's request, which other code may replace or change, and `RequestState.calls`.
    query: str | None
    calls: int

    def is_same(self, other: Subject) -> bool:
        """Whether both are the very request, user and session, and ask for the same in the same call."""
        is_same_call = self.request is other.request and (self.query, self.calls) == (other.query, other.calls)
        return is_same_call and self.has_same_user(other) and self.asked_for == other.asked_for

    def has_same_user(self, other: Subject) -> bool:
        """Whether both are the very user and session. A user that is not loaded may turn out to be another one."""
        is_loaded = self.user is not empty or self.given_user is other.given_user
        # The key of a session is another one once it was emptied or renewed.
        is_same_session = self.session is other.session and self.session_key == other.session_key
        return is_loaded and self.user is other.user and is_same_session


#: A policy or an ``obj`` resolver that was asked, about which subject, and the object then.
Asked: TypeAlias = tuple[Any, Subject, Any]


class RequestState:
    """The state of one request, which its contexts at all layers share."""

    #: Seconds that hooks and policies have taken.
    seconds = 0.0
    #: The contextvars as the request began; None where that is not known, and for an open socket.
    began_in: Context | None = None
    #: The class of the consumer that a handshake is for, as far as it is known.
    consumer_class: type | None = None
    #: What throttles and limits have counted, and the request of a view that it was for: it counts once for each.
    counted: tuple[tuple[str, HttpRequest | None], ...] = ()
    #: Whether it is that of an open socket which is asked again: what counts once has counted the handshake.
    is_asked_again = False
    #: What is called at the end of the request, see `RequestContext.on_end`; and whether that has come.
    ending: list[Callable[[], object]] | None = None
    has_ended = False
    #: Whether response hooks were interrupted: an application that answers again must not pass without them.
    is_interrupted = False
    #: How far the Django middleware around a handshake have come; None without any.
    middleware: Any = None
    #: The threads in which synchronous ones of these wait for the response.
    held_threads: tuple[HeldThread[Any], ...] = ()
    #: The request hook that stands for one which answered: response hooks inside it do not see that.
    answered_by: Any = None
    #: The hooks whose run has begun, and is not over: perhaps it was interrupted.
    hooks_begun: frozenset[Hook] = frozenset()
    #: The hooks that have run. Each runs once for a request, unless it or a later one denied.
    hooks_run: frozenset[Hook] = frozenset()
    #: Which policy has allowed which subject, and the ``obj`` of the context then.
    passed: tuple[Asked, ...] = ()
    #: Which policy that is not enforced was asked about which subject.
    reported: tuple[Asked, ...] = ()
    #: How many guarded views have ended, and calls of `MirrorMiddleware` have begun: what calls them again may have
    #: changed the request.
    calls = 0
    #: The `ResolverMatch` of a view that route hooks have run for.
    route: Any = None
    #: That of the first guarded view, and its arguments before hooks of guarded views have changed them.
    given: tuple[Any, tuple[Any, ...], dict[str, Any]] | None = None
    #: What the ``obj`` resolvers of policies, or policies themselves, returned for which subject.
    objects: tuple[Asked, ...] = ()

    def __init__(self) -> None:
        #: When the request began, in seconds of `time.monotonic`.
        self.started = time.monotonic()
        #: What the request went through: the recorded trace, else one of its own with `DEBUG`, else None.
        self.trace = trace.recorded.get()
        if self.trace is None and settings.DEBUG:
            self.trace = trace.Trace()


class RequestContext:
    """A request at one layer: a stack, a decorated endpoint, or `MirrorMiddleware`.

    `request` is the Django request that hooks and policies see. `obj` is what the ``obj`` resolver of the
    innermost policy returned (None without one), so that the endpoint needs no second query.
    """

    #: The handler of this layer.
    handler: Any = None
    #: The handler of `MirrorMiddleware`, where there is one.
    mirror: Any = None
    #: Whether that has nothing to ask before the view.
    is_ready = False
    #: The handler of the guarded view that has the request now, the innermost one.
    view_handler: Any = None
    #: The nearest default policy, for endpoints that carry no policy of their own; None outside of all stacks.
    pending_default: Policy | None = None
    #: The origins of the nearest stack that names some; None: the site's.
    origins: Origins | None = None
    #: For whom the guards of an outer layer have been asked, those outside the stack with the nearest default
    #: policy left out.
    guarded: Subject | None = None
    #: The consumer that was admitted (its class, until it is made): what it enters is a stream.
    consumer: Any = None
    obj: Any = None
    #: What says who the user is, while policies are asked again about a user whom others after them have set.
    kept_user: dict[str, Any] | None = None
    #: The policy that was asked last, for the log.
    policy: Policy | None = None
    #: Route hooks that wait for the route to be known. Each application that a wrapper enters has its own route.
    route_hooks: tuple[Any, ...] = ()
    #: Those that have run, here or in a layer around, and the route that they have run for last.
    routed: tuple[tuple[Any, ...], tuple[Any, ...]] = ((), ())
    #: Whether they have run here, or else are to run as soon as the application first receives or accepts.
    has_routed = owes_route_hooks = False
    #: What a stack around Django's handler leaves to its views; None without one.
    config: StackConfig | None = None
    #: The authentication classes of a stack around something that it cannot resolve, in which a view is; else None.
    authentication: Authenticators | None = None

    def __init__(
        self, request: HttpRequest, state: RequestState | None = None, outer: RequestContext | None = None
    ) -> None:
        self.request: TypedRequest = request  # type: ignore[assignment] # `get_context` or a handler gives it the rest
        if outer is None:
            self.state = RequestState() if state is None else state
        else:
            self.state = outer.state if state is None else state
            self.route_hooks, self.routed = outer.route_hooks, outer.routed
            self.pending_default, self.origins, self.guarded = outer.pending_default, outer.origins, outer.guarded

    def for_copy(self, request: HttpRequest) -> RequestContext:
        """The context of `request`, a copy of the request: what hooks have run counts for it, no decision does."""
        context = RequestContext(request, self.state)
        context.handler, context.mirror = self.handler, self.mirror
        context.route_hooks, context.routed = self.route_hooks, self.routed
        context.is_ready = self.is_ready
        context.pending_default, context.origins = self.pending_default, self.origins
        context.config, context.authentication = self.config, self.authentication
        return context

    @property
    def trace(self) -> trace.Trace | None:
        """What the request went through; None where it is not recorded."""
        return self.state.trace

    @property
    def expression(self) -> str | None:
        """The policy that was asked last, as it was written; None if none was asked."""
        return expression_of(self.policy)

    @property
    def user_pk(self) -> Any:
        """The primary key of the user, if no I/O is needed to tell; else None."""
        return getattr(known_user(self.request), "pk", None)

    @property
    def user(self) -> Any:
        """The user that the policies allowed."""
        return self.request.user

    async def recheck(self) -> None:
        """Ask the policies that let this socket in again, of a fresh user; `obj` is resolved anew, too.

        Throttles, connection limits and tickets are not asked again. A database that cannot be reached denies nothing.
        Raises `Deny` if a policy denies now, which closes the socket unless the consumer catches it.
        """
        await self._socket().recheck(self)

    async def close(self, status: int = 403, detail: str = "") -> None:
        """Close this socket with 4000 + `status` and the detail as reason; its consumer gets its disconnect.

        The reason is cut at 123 bytes, all that a close has room for (RFC 6455 section 5.5). Before the accept, the
        handshake is denied with `status` and the detail.

        Raises `ValueError` for a status that is not 400-599.
        """
        if not 400 <= status <= 599:
            raise ValueError(f"close(): the status is 400-599, found {status!r}.")
        await self._socket().close_for(self, 4000 + status, detail)

    async def join(self, group: str, policy: Policy, channel: str | None = None) -> None:
        """Add this socket to a group of the channel layer, which it leaves once `policy` denies.

        `channel` is the consumer's `channel_name`; it may be left out in a decorated consumer.

        Raises `Deny` if the policy denies now; `TypeError` where the channel is not known, and for a policy that counts
        once, such as a throttle.
        """
        await self._socket().join(self, group, policy, channel)

    def _socket(self) -> Any:
        """The socket of the handshake. Raises `TypeError` for a request that is no handshake."""
        socket = getattr(self.handler, "socket", None)
        if socket is None:
            raise TypeError("recheck(), close() and join() are for sockets.")
        return socket

    def subject(self) -> Subject:
        """The subject of the request now; a wrapper or a route hook may change it."""
        request, own, query = self.request, vars(self.request), None
        given = user = own.get("user")
        while isinstance(user, LazyObject):
            user = user._wrapped
        session: Any = own.get("session")
        key = session.session_key if issubclass(type(session), SessionBase) else None
        if isinstance(request, ScopeRequest):
            asked_for: tuple[Any, ...] = (full_path(request.scope), *request.url_arguments)
        else:
            match = request.resolver_match
            asked_for, query = (request.path, request.method), repr(request.GET)
            if match is not None:
                asked_for += (match.func, match.args, dict(match.kwargs))
        return Subject(request, given, user, session, key, asked_for, query, self.state.calls)

    def due_route_hooks(self) -> tuple[Any, ...]:
        """The waiting route hooks that have not run for the route of the request, which is known."""
        hooks, route = self.routed
        over = hooks if hooks and route == self.subject().asked_for else ()
        return tuple(hook for hook in self.route_hooks if hook not in over)

    def note_routed(self) -> None:
        """Note that the waiting route hooks have run for this route: inside, they run for another one."""
        self.routed, self.has_routed = (self.route_hooks, self.subject().asked_for), True

    @property
    def is_guarded(self) -> bool:
        """Whether guards of an outer layer have been asked about the user, session and path of the request."""
        guarded = self.guarded
        if guarded is None:
            return False
        subject = self.subject()
        return subject.has_same_user(guarded) and subject.asked_for[0] == guarded.asked_for[0]

    def has_passed(self, policy: Policy) -> bool:
        """Whether this very policy has allowed this subject already."""
        return self._find(policy, self.state.passed) is not None

    def has_passed_since(self, policy: Policy, call: int) -> bool:
        """Whether this very policy has allowed this subject in one of the calls since `call`, with whatever query."""
        now = self.subject()
        since = (subject for each, subject, _ in self.state.passed if each is policy and subject.calls >= call)
        return any(then._replace(query=now.query, calls=now.calls).is_same(now) for then in since)

    def pass_again(self, policy: Policy) -> bool:
        """As `has_passed`; if so, `obj` is again what it was then."""
        passed = self._find(policy, self.state.passed)
        if passed is not None:
            self.obj = passed[2]
        return passed is not None

    def _find(self, policy: object, asked: tuple[Asked, ...]) -> Asked | None:
        """The one of `asked` that is about this very policy, or resolver, and this subject."""
        if not asked:
            return None
        subject = self.subject()
        return next((each for each in asked if each[0] is policy and each[1].is_same(subject)), None)

    def mark_passed(self, policies: tuple[Policy, ...], *, are_guards: bool = True) -> None:
        """Note that these policies allowed this subject.

        If they `are_guards` of what is inside, no default policy is asked about the same user and session there.
        """
        if policies:
            subject = self.subject()
            passed = tuple((policy, subject, self.obj) for policy in policies)
            self.state.passed += passed
            if are_guards:
                self.guarded = subject

    def begin_report(self, policy: Policy) -> bool:
        """Note that this policy is asked, and not enforced; False if it was asked about this subject already."""
        if isinstance(self.request, ScopeRequest):
            self.request.session, self.request.user  # noqa: B018 - made once, also for copies of the request
        is_first = self._find(policy, self.state.reported) is None
        if is_first:
            asked = (policy, self.subject(), None)
            self.state.reported += (asked,)
        return is_first

    def forget_decisions(self) -> None:
        """Let go of what was decided: an open socket, which may live for days, asks anew about all that it enters."""
        self.state.passed = self.state.objects = self.state.reported = ()
        self.guarded = self.state.began_in = None
        for name in ("_wsdeny_asked_with", "_wsdeny_with_tokens"):
            vars(self.request).pop(name, None)

    def on_end(self, callback: Callable[[], object]) -> None:
        """Call `callback` in a thread, where it may block, once the connection or request has ended, or was denied.

        After the end it is called at once, as for a policy that ran past its time. Its exceptions are logged.
        It needs a time limit of its own: callbacks share a few threads, and those that hang keep others waiting.

        Raises `TypeError` for the request of a view, of whose end the package knows nothing.
        """
        if not isinstance(self.request, ScopeRequest):
            raise TypeError("on_end() is for WebSockets and ASGI applications: the end of a view's request is unknown.")
        state = self.state
        if not state.ending:
            state.ending = []
        state.ending.append(callback)
        if state.has_ended:
            self.run_ending()

    def run_ending(self) -> None:
        """Call what waits for the end of the request, each once; blocks, and never raises."""
        while self.state.ending:
            try:
                callback = self.state.ending.pop()
            except IndexError:  # pragma: no cover - Another thread has taken it: by chance.
                return
            try:
                callback()
            except Exception as error:  # protects the server, and the other callbacks
                log_failure(self, error, 503 if is_unreachable(error) else 500)

    def remember(self, resolver: object, obj: Any) -> None:
        """Keep what an ``obj`` resolver, or a policy, returned for this subject."""
        asked = (resolver, self.subject(), obj)  # Before it is added: meanwhile another thread may add, or forget.
        self.state.objects += (asked,)

    def recall(self, resolver: object) -> Any:
        """What this resolver returned for this subject; None if it was not asked yet."""
        found = self._find(resolver, self.state.objects)
        return None if found is None else found[2]


class StackConfig(NamedTuple):
    """What a stack leaves to `MirrorMiddleware`: ``scope["wsdeny"]`` for Django's handler."""

    hooks: tuple[Hooks, ...]
    default_policy: Policy | None
    #: The paths at which a view that the mirror has allowed has answered: a wrapper in between may answer by itself.
    allowed: list[str]
    #: The request at the layer around the stack, if that has run hooks.
    outer: RequestContext | None = None
    #: The authentication classes of the nearest stack that has them; None for those of the site.
    authentication: Authenticators | None = None


def get_context(request: HttpRequest) -> RequestContext:
    """The context of a request, begun if there is none yet. Behind a stack it shares what has run there."""
    context: RequestContext | None = getattr(request, "wsdeny", None)
    if context is not None and context.request is request:
        return context
    marked: Any = request
    if context is not None:  # of the request that this one is a copy of
        context = context.for_copy(request)
    else:
        scope: Scope | None = getattr(request, "scope", None)
        outer: Any = None if scope is None else scope.get("wsdeny")
        config = None
        if isinstance(outer, StackConfig):
            config, outer = outer, outer.outer
        context = RequestContext(request, outer=outer)
        context.config = config
        if outer is None:
            marked.ctx = SimpleNamespace()
        else:
            marked.ctx = outer.request.ctx
            context.authentication = authentication_of(outer.request)
    marked.wsdeny = context
    return context


def expression_of(policy: Policy | None) -> str | None:
    """A policy as it was written; None if there is none."""
    if policy is None:
        return None
    try:
        return repr(policy)
    except Exception:  # a policy that cannot be printed must not keep a denial from the client
        return f"<{type(policy).__name__}, whose repr fails>"


_NOT_RECORDED: AbstractContextManager[Callable[[object], None]] = nullcontext(lambda answer: None)


def noting(
    request: HttpRequest, kind: trace.Kind, asked: Hook | Policy | type
) -> AbstractContextManager[Callable[[object], None]]:
    """Note in the trace of `request` that a class, hook or policy is asked; the answer is given to what is returned."""
    context: RequestContext | None = vars(request).get("wsdeny")
    noted_in = None if context is None else context.state.trace
    if noted_in is None:
        return _NOT_RECORDED
    described: Any = asked  # A policy has no label.
    name = asked.__name__ if isinstance(asked, type) else getattr(asked, "label", None) or expression_of(described)
    return noted_in.note(kind, str(name))
