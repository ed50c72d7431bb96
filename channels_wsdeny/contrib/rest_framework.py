"""Django REST framework: its authentication, permission and throttle classes as a policy.

`RestFramework` runs ``APIView.initial()`` for a request, so that the classes decide as before an API view, and a denial
has the status and body that the site's ``EXCEPTION_HANDLER`` gives it. It needs ``djangorestframework``.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction
from django.db import connections
from rest_framework.permissions import AllowAny, DjangoModelPermissions
from rest_framework.renderers import BrowsableAPIRenderer
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSetMixin

from ..authentication.base import Authenticators, found_by, session_user
from ..concurrency import call_sync
from ..conf import conf
from ..db import is_unreachable
from ..exceptions import Deny
from ..http.context import get_context
from ..http.exception_handler import forget_frames, means_denial, translate
from ..http.origins import check_origin
from ..http.request import HandshakeRequest, ScopeRequest, anonymous_user, authentication_of, run_in_thread
from ..http.responses import is_rendered, language_of
from ..inspection.protections import asked_around
from ..log import warn_once
from ..policies.base import Answer, Policy, PolicyDenial, give_back, raisable, user_of
from ..policies.permissions import check_resolver, keep_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..types import HttpRequest

#: The attributes of an API view that name classes, and the arguments of `RestFramework` for them.
_ARGUMENTS = {
    "authentication_classes": "authentication",
    "permission_classes": "permissions",
    "throttle_classes": "throttles",
}


class RestFramework(Policy):
    """Allows what ``APIView.initial()`` allows: on sockets, on views, and on ASGI applications over HTTP.

    `view` is an API view, as its class or as what ``as_view()`` or ``@api_view`` made of it; its handlers are not
    called. `authentication`, `permissions` and `throttles` are lists of classes in place of those of the view, which
    are those of the site's ``REST_FRAMEWORK`` by default. `obj` is as for `HasPermission`: the object that it returns
    is asked about by ``check_object_permissions()``, and is the ``obj`` of the context.

    Without `authentication`, the user that the request has already is the user. With it, the user whom these classes
    find (perhaps an anonymous one) becomes the user of the request, for later policies and for the endpoint, and
    ``request.auth`` what they found with it; policies that were asked before are then asked again, about that user.
    If one of the classes may read cookies, the origin of a handshake with any is checked, as for ``AUTHENTICATION``.

    Throttles count a request once; they are not asked again about an open socket, nor by a dry run.

    Content is not negotiated, as a handshake has none: a denial is rendered by the first renderer if the client
    accepts none of them, and never by the browsable API. The log warns of a permission class that allows safe
    methods, for a handshake is a GET.

    Raises `TypeError` for what is no API view or no class, for a view that something beside ``initial()`` guards, and
    for coroutine functions, which REST framework would not await.
    """

    #: Whether the handshake was asked about: its throttles have counted, and its origin was checked.
    is_counted = False
    _arguments = frozenset({"obj", "view", "view_class", *_ARGUMENTS, *_ARGUMENTS.values()})

    def __init__(
        self,
        view: Any = None,
        *,
        authentication: Iterable[Any] | None = None,
        permissions: Iterable[Any] | None = None,
        throttles: Iterable[Any] | None = None,
        obj: Callable[[HttpRequest], Any] | None = None,
    ) -> None:
        cls = APIView if view is None else getattr(view, "cls", view)
        if not (isinstance(cls, type) and issubclass(cls, APIView)):
            raise TypeError(f"RestFramework() takes an API view, found {view!r}.")
        if unasked := [] if view is None else asked_around(_made(view)):
            raise TypeError(
                f"RestFramework({cls.__name__}) would ask initial() of the view, and not {' or '.join(unasked)}. "
                "Combine that, or a policy in its place, with the permission classes of the view: IsAuthenticated() & "
                "RestFramework(permissions=[...]), for example."
            )
        check_resolver("RestFramework", obj)
        chosen = zip(_ARGUMENTS, (authentication, permissions, throttles), strict=True)
        given = {name: _classes(_ARGUMENTS[name], each) for name, each in chosen if each is not None}
        given.setdefault("authentication_classes", [_UserOfRequest])
        self.obj = obj
        self.needs_user = authentication is None
        self.sets_user = not self.needs_user
        self._initkwargs = {name: each for name, each in getattr(view, "initkwargs", {}).items() if name not in given}
        self._repr = f"RestFramework({', '.join(_described(cls, given, obj))})"
        # A view set asks its action, which is known once it is made a view.
        actions = {"action_map": getattr(view, "actions", None) or {}}
        self.view_class: Any = type(cls.__name__, (_AskedView, cls), {**given, **actions, "given": frozenset(given)})
        _refuse_coroutines([self.view_class], "initial")
        asked = self.view_class(**self._initkwargs)
        _check_classes(asked)
        self.allows_all = _allows_all(asked)

    def for_open_socket(self) -> RestFramework:
        """The same policy without its throttles, which have counted the handshake."""
        twin = copy.copy(self)
        twin.is_counted = True
        return twin

    def check(self, request: HttpRequest) -> Answer:
        if self._has_allowed(request):
            return True
        asked = _Question(self, request)
        denial = asked.ask(asked.initial)
        if denial is None and self.obj is not None:
            obj = asked.resolve()
            denial = asked.ask(lambda: asked.check_object(obj))
        return asked.allow() if denial is None else denial

    async def acheck(self, request: HttpRequest) -> Answer:
        if not iscoroutinefunction(self.obj):
            return await super().acheck(request)
        if self._has_allowed(request):
            return True
        asked = await run_in_thread(request, lambda: _Question(self, request))
        denial = await run_in_thread(request, lambda: asked.ask(asked.initial))
        if denial is not None:
            return denial
        try:
            obj = get_context(request).recall(self.obj)
            if obj is None:
                obj = await self.obj(request)
        except Exception as error:  # the site's exception handler answers what it knows
            failed = error
            raise raisable(await run_in_thread(request, lambda: asked.deny(failed))) from None
        denial = await run_in_thread(request, lambda: asked.ask(lambda: asked.check_object(obj)))
        return asked.allow() if denial is None else denial

    def needs_loop(self) -> bool:
        return iscoroutinefunction(self.obj)

    def _has_allowed(self, request: HttpRequest) -> bool:
        """Whether the policy has allowed this subject, as an operand of another policy: it is not counted twice."""
        context = get_context(request)
        found = context.recall(self)
        if found is not None and self.obj is not None:
            (context.obj,) = found
        return found is not None

    def __repr__(self) -> str:
        return self._repr


class _AskedView(APIView):
    """A view that is asked whether a request is permitted, and not called."""

    #: That of the policy.
    is_counted: bool
    #: The attributes that are the policy's, in place of what the methods of the view make of its own.
    given: frozenset[str]

    def get_authenticators(self) -> list[Any]:
        """Those of the policy; it always gives some."""
        authenticators: list[Any] = APIView.get_authenticators(self)
        return authenticators

    def perform_authentication(self, request: Any) -> None:
        super().perform_authentication(request)
        found = found_by(request._request)
        if found is not None and isinstance(request.successful_authenticator, _UserOfRequest):
            request._authenticator = found  # Permission classes may look at its type.

    def perform_content_negotiation(self, request: Any, force: bool = False) -> Any:
        return super().perform_content_negotiation(request, force=True)

    def get_renderers(self) -> list[Any]:
        """The renderers without the browsable API, whose page has the forms of a view that is called."""
        renderers = super().get_renderers()
        return [each for each in renderers if not isinstance(each, BrowsableAPIRenderer)] or renderers

    def get_permissions(self) -> list[Any]:
        is_given = "permission_classes" in self.given
        permissions = APIView.get_permissions(self) if is_given else super().get_permissions()
        return _refuse_coroutines(permissions, "has_permission", "has_object_permission")

    def get_throttles(self) -> list[Any]:
        is_given = "throttle_classes" in self.given
        throttles = APIView.get_throttles(self) if is_given else super().get_throttles()
        return _refuse_coroutines(throttles, "allow_request")

    def check_throttles(self, request: Any) -> None:
        state = get_context(request._request).state
        is_dry_run = state.trace is not None and state.trace.is_dry_run
        if not (self.is_counted or state.is_asked_again or is_dry_run):  # perhaps by a policy of the site's own
            super().check_throttles(request)


class _UserOfRequest:
    """An authentication class: the user that the request has already, and the site's challenge."""

    def authenticate(self, request: Any) -> tuple[Any, Any] | None:
        """The user and ``auth`` of Django's request; None for an anonymous user without credentials."""
        user, auth = request._request.user, getattr(request._request, "auth", None)
        is_known = user.is_authenticated is True or auth is not None  # A token may have no user.
        return (user, auth) if is_known else None

    def authenticate_header(self, request: Any) -> str:
        """The challenge of the authentication classes in use, or else the setting ``CHALLENGE``."""
        authentication = authentication_of(request._request)
        challenge = None if authentication is None else authentication.challenge(request._request)
        return challenge or conf.CHALLENGE


class _Question:
    """One request that a view is asked about. Blocks.

    Django's request has the user of REST framework as far as that has allowed it, else the one from before.
    """

    def __init__(self, policy: RestFramework, request: HttpRequest) -> None:
        self._policy, self._request, self._context = policy, request, get_context(request)
        if policy.needs_user:
            request.user  # noqa: B018 - one that is made only now would be loaded again later
        self._before = user_of(request)
        match = request.resolver_match
        self._args, self._kwargs = ((), {}) if match is None else (match.args, match.kwargs)
        self._view = view = policy.view_class(**policy._initkwargs)
        view.is_counted = policy.is_counted
        view.setup(request, *self._args, **self._kwargs)
        self._asked = view.initialize_request(request, *self._args, **self._kwargs)
        view.request, view.headers, view.format_kwarg = self._asked, {}, None
        negotiated = view.perform_content_negotiation(self._asked)
        self._asked.accepted_renderer, self._asked.accepted_media_type = negotiated
        if policy.sets_user and isinstance(request, HandshakeRequest) and not policy.is_counted:
            # Before the hooks it was checked for the classes of the site or stack alone.
            reads_cookies = Authenticators(self._asked.authenticators).reads_cookies
            check_origin(request, self._context.origins, reads_cookies=reads_cookies)

    def ask(self, question: Callable[[], None]) -> Answer | None:
        """Call one of the methods below: None if it returns, else the denial. Raises what is not REST framework's."""
        try:
            with language_of(self._request):  # Exceptions are translated when they are made.
                question()
        except Exception as error:  # the site's exception handler answers what it knows
            return self.deny(error)
        return None

    def initial(self) -> None:
        """Authenticate, and ask the permission and throttle classes."""
        if self._policy.sets_user and not getattr(self._request, "user_setters", ()):
            # `SessionAuthentication` takes the user that is there for that of the session; as in a view, that is the
            # one whom a middleware has put in its place.
            vars(self._request)["user"] = session_user(self._request)
        self._view.initial(self._asked, *self._args, **self._kwargs)
        user, auth = self._asked.user, self._asked.auth
        self._restore()
        if self._policy.sets_user:
            _set_user(self._request, user, auth)

    def resolve(self) -> Any:
        """What the ``obj`` of the policy returns, or has returned for this subject.

        Raises a `Deny` for what that raises, such as `Http404`: no operator may turn that round.
        """
        resolver: Any = self._policy.obj
        obj = self._context.recall(resolver)
        if obj is not None:
            return obj
        try:
            with language_of(self._request):
                return call_sync(resolver, self._request)
        except Exception as error:  # the site's exception handler answers what it knows
            raise raisable(self.deny(error)) from None

    def check_object(self, obj: Any) -> None:
        """Ask the permission classes about this object."""
        keep_object(self._request, self._policy.obj, obj)
        self._view.check_object_permissions(self._asked, obj)
        self._context.obj = obj

    def allow(self) -> bool:
        """True; the policy is not asked about this subject again."""
        self._context.remember(self._policy, (self._context.obj,))
        return True

    def deny(self, error: Exception) -> Deny:
        """The denial that the site's exception handler makes of `error`. Raises `error` if it makes none.

        The denial is raised if `error` or its status says that something has failed: no operator may turn that round.
        """
        try:
            with language_of(self._request):
                response = self._respond(error)
        finally:
            self._restore()
        known = translate(error)
        forget_frames(error)  # The handler has seen it.
        denial = Deny(response=response)
        if known.status == response.status_code:
            denial = Deny(detail=known.detail, code=known.code, response=response)
        if denial.status >= 500 or not means_denial(error):
            # By its cause an open socket, which is asked again, tells an outage from a denial.
            raise denial from (error if is_unreachable(error) else None)
        return PolicyDenial.of(denial)

    def _respond(self, error: Exception) -> Any:
        # The handler has the transaction of a view rolled back, which may yet be allowed by another policy.
        intact = [each for each in connections.all(initialized_only=True) if each.in_atomic_block]
        intact = [each for each in intact if not each.get_rollback()]
        try:
            response = self._view.handle_exception(error)
        finally:
            for connection in intact:
                connection.set_rollback(False)
        response = self._view.finalize_response(self._asked, response, *self._args, **self._kwargs)
        return response if is_rendered(response) else response.render()

    def _restore(self) -> None:
        """Give the request the user that it had."""
        give_back(self._request, self._before)


def _set_user(request: Any, user: Any, auth: Any) -> None:
    """Make `user` that of `request`, as Django's `login()` does, and `auth` its ``auth``."""
    user = anonymous_user() if user is None else user  # by ``UNAUTHENTICATED_USER``

    async def auser() -> Any:
        return user

    if not isinstance(request, ScopeRequest):
        vars(request).setdefault("_wsdeny_session_user", vars(request).get("user"))
        request.auser = auser
    request.user, request.auth = user, auth
    vars(request)["_wsdeny_user_is_set"] = True


def _made(view: Any) -> Any:
    """What ``as_view()`` makes of a class, which may put something around it."""
    if not isinstance(view, type):
        return view
    made: Any = view
    return made.as_view({"get": "initial"}) if issubclass(view, ViewSetMixin) else made.as_view()


# The classes that are given


def _classes(argument: str, classes: Iterable[Any]) -> list[Any]:
    """`classes` as a list. Raises `TypeError` for what is no iterable of classes."""
    found = [] if isinstance(classes, (type, str)) else [*classes]
    if isinstance(classes, (type, str)) or not all(map(callable, found)):
        raise TypeError(f"RestFramework({argument}=...) takes a list of classes, found {classes!r}.")
    return found


def _leaves(permissions: Any) -> Iterator[Any]:
    """The classes of permissions (or throttles), which may be made or not, and joined by operators."""
    for each in permissions:
        if operands := _operands(each):
            yield from _leaves(operands)
        else:
            yield each if isinstance(each, type) else type(each)


def _operands(permission: Any) -> list[Any]:
    """What an operator of REST framework has joined; nothing for a single permission."""
    names = ("op1_class", "op2_class", "op1", "op2")
    return [getattr(permission, name) for name in names if hasattr(permission, name)]


def _refuse_coroutines(given: list[Any], *methods: str) -> list[Any]:
    """`given`. Raises `TypeError` for methods that are coroutine functions: what they return would count as true."""
    for cls in _leaves(given):
        for name in methods:
            if iscoroutinefunction(getattr(cls, name, None)):
                raise TypeError(
                    f"{cls.__qualname__}.{name}() is a coroutine function, which REST framework does not await."
                )
    return given


def _check_classes(view: Any) -> None:
    _refuse_coroutines(view.throttle_classes, "allow_request")
    _refuse_coroutines(view.permission_classes, "has_permission", "has_object_permission")
    for leaf in _leaves(view.permission_classes):
        if _allows_safe_methods(leaf):
            warn_once(
                f"{leaf.__name__} tells safe methods from others, and a WebSocket handshake is a GET: every "
                "user who may read gets the socket. Give RestFramework() a permission class that does not look at the "
                "method.",
            )


def _allows_safe_methods(cls: Any) -> bool:
    """Whether a permission class looks at ``SAFE_METHODS``, or names no permissions for a GET."""
    if issubclass(cls, DjangoModelPermissions) and not cls.perms_map.get("GET"):
        return True
    methods: list[Any] = [getattr(cls, name, None) for name in ("has_permission", "has_object_permission")]
    if getattr(methods[1], "__module__", "") == "rest_framework.permissions":
        del methods[1]  # It chooses between a 403 and a 404.
    return any("SAFE_METHODS" in method.__code__.co_names for method in methods if hasattr(method, "__code__"))


def _allows_all(view: Any) -> bool:
    """Whether `view` may let in every handshake, a GET: ``AllowAny`` is the default of REST framework."""
    names = ("initial", "check_permissions", "check_object_permissions", "get_permissions")
    definers = {base for base in type(view).__mro__ for name in names if name in vars(base)}
    return definers <= {_AskedView, APIView} and all(map(_lets_all_read, view.permission_classes))


def _lets_all_read(permission: Any) -> bool:
    """Whether a permission class, or what operators have made of several, may let every client read."""
    operator = getattr(getattr(permission, "operator_class", None), "__name__", None)
    if operator is None:
        cls = permission if isinstance(permission, type) else type(permission)
        needs_user = getattr(cls, "authenticated_users_only", False)  # of those for models
        return cls is AllowAny or (_allows_safe_methods(cls) and not needs_user)
    return operator != "NOT" and (any if operator == "OR" else all)(map(_lets_all_read, _operands(permission)))


# How a policy is printed


def _described(cls: Any, given: dict[str, list[Any]], obj: Any) -> Iterator[str]:
    """The arguments of the policy."""
    if cls is not APIView:
        yield _name(cls)
    for name, argument in _ARGUMENTS.items():
        if name in given and given[name] != [_UserOfRequest]:
            yield f"{argument}=[{', '.join(map(_name, given[name]))}]"
    if obj is not None:
        yield f"obj={_name(obj)}"


def _name(code: Any) -> str:
    operator = getattr(getattr(code, "operator_class", None), "__name__", None)
    if operator is None:
        return getattr(code, "__name__", None) or repr(code)
    operands = [*map(_name, _operands(code))]
    return f"~{operands[0]}" if operator == "NOT" else f"({f' {_OPERATORS.get(operator, operator)} '.join(operands)})"


_OPERATORS = {"AND": "&", "OR": "|"}
