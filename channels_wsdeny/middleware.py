"""The mirror: what a stack gives to sockets, for Django's views.

``"channels_wsdeny.middleware.MirrorMiddleware"`` in ``MIDDLEWARE``, after `AuthenticationMiddleware`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync, iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.urls import Resolver404, get_resolver

from . import status as statuses
from .concurrency import run_coroutine
from .conf import conf
from .exceptions import Deny, HookError
from .handlers.view import DjangoHandler, all_guards, authenticate_view, guards_of_view, guards_within
from .hooks import registry
from .hooks.registry import ordered_hooks, site_hooks
from .hooks.runner import is_within_route_hooks
from .http.context import get_context
from .http.request import full_path, is_authentication_due
from .http.responses import discard, is_rendered, render
from .policies.permissions import default_policy
from .policies.runner import policy_checks

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from .hooks import Hooks
    from .http.context import RequestContext
    from .policies import Policy
    from .policies.base import Denial
    from .policies.runner import Check


class MirrorMiddleware:
    """Gives views the hooks, ``request.ctx``, and denials by `Deny`; and the default policy, when asked.

    Synchronous and asynchronous. Under a `DenyMiddlewareStack` its hooks run here, around the view. The error
    pages of the site stay as they are.
    """

    sync_capable = True
    async_capable = True
    #: The URLconf that is known to be imported; None is that of the site.
    _urlconf: Any = False

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)
            if type(self).process_view is MirrorMiddleware.process_view:  # else Django adapts the subclass's
                vars(self)["process_view"] = self._process_view

    def __call__(self, request: HttpRequest) -> Any:
        """The response of the view, or of hooks and policies in its place; awaitable if asynchronous."""
        context = get_context(request)
        around = context.mirror
        if around is not None and around.is_active:
            if around.middleware is self:
                raise HookError(
                    "Middleware around MirrorMiddleware called get_response() for a request whose first call has not "
                    "ended. It may do so once more afterwards."
                )
            return self.get_response(request)  # The mirror is listed twice.
        config, authentication = context.config, authenticate_view(context)
        has_hooks = conf.HOOKS or context.route_hooks or (config is not None and config.hooks)
        has_default = bool(conf.MIRROR_DEFAULT_POLICY)
        may_deny = not authentication.is_session_only and is_authentication_due(request)
        if not (has_hooks or has_default or may_deny):
            context.is_ready = True
            return self.get_response(request)
        if has_hooks and (urlconf := getattr(request, "urlconf", None)) is not self._urlconf:
            # Its modules may register hooks, and Django imports it only once all middleware have let a request pass.
            get_resolver(urlconf).url_patterns  # noqa: B018 - imported here
            self._urlconf = urlconf
        handler = MirrorHandler(context, self, has_default=has_default)
        return handler.run() if self.is_async else run_coroutine(handler.run())

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run route hooks and ask the default policy, before the view; called by Django."""
        handler = self._handler_of(request)
        if handler is None:
            return None
        if self.is_async:  # by a subclass, which Django calls in a thread
            return async_to_sync(handler.ask_before)(view, args, kwargs)
        return run_coroutine(handler.ask_before(view, args, kwargs))

    async def _process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HttpResponseBase | None:
        handler = self._handler_of(request)
        return None if handler is None else await handler.ask_before(view, args, kwargs)

    def _handler_of(self, request: HttpRequest) -> MirrorHandler | None:
        """The handler of the request here, if something has to be asked before the view.

        Its subject is what reaches the view, perhaps a copy of the request. Raises `HookError` for a request that has
        not been here.
        """
        context = get_context(request)
        handler: MirrorHandler | None = context.mirror
        if handler is not None and handler.generation is not registry.generation:
            handler.refuse_late_hooks()
        if context.is_ready and (handler is None or handler.context is context):
            return None  # as for most requests
        if handler is None:
            if _is_asked_before_views(context):
                raise HookError(
                    "Middleware inside MirrorMiddleware called get_response() with a request of its own, so neither "
                    "route hooks nor the default policy are asked about that. Give it the request, or a copy: "
                    "copy.copy(request)."
                )
            return None
        # Where the mirror is listed twice, with an adaptation by Django in between, the outer one asks by itself.
        if handler.is_async is not self.is_async:
            return None
        if handler.is_asking:
            raise HookError(
                "Middleware inside MirrorMiddleware called get_response() a second time while route hooks or the "
                "default policy were asked about the first. It may do so afterwards."
            )
        if handler.context is not context:
            authenticate_view(context)  # Of a copy, which finds the user of the request.
            handler.context = context
        return None if context.is_ready else handler

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """What hooks make of an exception of the view, or a `Deny` of itself; called by Django."""
        match = request.resolver_match
        response = answer_exception(request, exception, None if match is None else match.func)
        return None if response is None else _seen_by_django(response)


class MirrorHandler(DjangoHandler):
    """One request in `MirrorMiddleware`."""

    #: Whether the request is here now: a second mirror inside has nothing to do.
    is_active = True
    #: Whether something is being asked about a view: that is done for one view at a time.
    is_asking = False
    runs_waiting_hooks = True
    #: The route that they have run for: middleware inside may ask for the response again.
    _route: Any = None
    _policies: tuple[Policy, ...] = ()
    #: Whether nothing more has to be asked about what inner middleware or a decorator answers.
    _is_asked = False

    def __init__(self, context: RequestContext, middleware: MirrorMiddleware, *, has_default: bool) -> None:
        #: That of the hooks that the request began with.
        self.generation = registry.generation
        super().__init__(context, _hooks(context), is_async=middleware.is_async)
        self.middleware, self._has_default = middleware, has_default
        #: The route hooks of this layer, and those of a layer around Django's handler, which did not know the route.
        self._route_hooks = context.route_hooks
        may_end_early = self.outer is not None or (self.runner is not None and self.runner.has_around)
        context.mirror, context.is_ready = self, not (has_default or self._route_hooks or may_end_early)
        context.state.calls += 1
        self._call = context.state.calls

    @property
    def is_new_route(self) -> bool:
        """Whether a mirror is around, from which middleware has taken the context: it does not know the view."""
        return self.outer is not None and self.outer.context.mirror is not None

    def end(self) -> None:
        """The request is not here any more."""
        self.is_active = False

    def refuse_late_hooks(self) -> None:
        """Raise `HookError` if a hook that was registered meanwhile would have been due for this request."""
        state, hooks = self.context.state, ordered_hooks(_hooks(self.context), "http").unordered
        late = hooks - state.hooks_begun - state.hooks_run
        if late:
            raise HookError(
                f"{', '.join(sorted(map(repr, late)))}: registered while a request was under way that it was due for. "
                "Register hooks in modules that are imported before, such as those of ROOT_URLCONF."
            )

    async def get_response(self, request_hooks: tuple[Check, ...], route_hooks: tuple[Check, ...]) -> HttpResponseBase:
        """The response of inner middleware and the view, or a denial."""
        context = self.context
        if route_hooks:
            self._route_hooks += route_hooks
            context.is_ready = False
        denial = await self.authorize(request_hooks) if request_hooks else None
        if denial is not None:
            return await self.deny(denial)
        if not context.is_ready:
            self.go_on()
        answering: Any = self.middleware.get_response(context.request)
        response: HttpResponseBase = await answering if self.is_async else answering
        if self._has_default or response.status_code >= 400:
            denied = await self._ask_after(response)
            if denied is not None:
                return denied
        if is_rendered(response):
            return response
        return await self.in_thread(lambda: render(self.context.request, response))

    async def _ask_after(self, response: HttpResponseBase) -> HttpResponseBase | None:
        """The denial in place of `response`, which was made without asking all there is to ask; None without one."""
        checks = self._checks_after(response)
        denial = await self.authorize(checks) if checks else self._refusal_behind(response)
        if denial is None:
            self._tell_stack(response)
            return None
        answer = await self.deny(denial)
        if response.streaming:  # It may hold files open.
            await self.in_thread(lambda: discard(response, answer))
        return answer

    async def ask_before(
        self, view: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HttpResponseBase | None:
        """Run the route hooks and ask the default policy; a response answers in the place of the view."""
        self.is_asking = True
        try:
            denial = await self.authorize(self._checks_before(view))
        except Exception as error:  # fail closed
            return _seen_by_django(await self.answer(error))
        finally:
            self.is_asking = False
        if denial is not None:
            return _seen_by_django(await self.deny(denial))
        self._enter(args, kwargs)
        return None

    def _checks_before(self, view: Callable[..., Any]) -> list[Check]:
        """The route hooks, and the default policy for a view without a policy of its own."""
        self.view = view
        match = self.context.request.resolver_match
        route_hooks = () if match is self._route else self._route_hooks
        self._route = self.context.state.route = match
        self._policies = self._default_policies(view) if self._has_default else ()
        return [*route_hooks, *policy_checks(self._policies)]

    def _enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The view is allowed: these are what it is called with."""
        self.go_on()
        match = self.context.request.resolver_match
        if match is not None and tuple(match.args) != args:
            raise HookError(
                "A route hook has replaced resolver_match.args, but Django calls the view with those that it has. Name "
                "the arguments in the route: a hook may change resolver_match.kwargs."
            )
        if match is not None and match.kwargs is not kwargs:  # A route hook has replaced them.
            kwargs.clear()
            kwargs.update(match.kwargs)
        self._route = self.context.state.route = match
        self.context.mark_passed(self._policies)
        # Decorators around a guarded view may answer in its place, such as a cache.
        self._is_asked = bool(self._policies) or not guards_within(self.view)

    def _checks_after(self, response: HttpResponseBase) -> list[Check]:
        """The route hooks and policies that were skipped, as inner middleware or a decorator answered for the view."""
        request: Any = self.context.request
        if self._is_asked or not self._has_default or not statuses.is_content(response.status_code):
            return []
        if request.resolver_match is None:
            try:
                request.resolver_match = get_resolver(getattr(request, "urlconf", None)).resolve(request.path_info)
            except Resolver404:  # It has no route, and is content of inner middleware all the same.
                return policy_checks(self._default_policies(None))
        self.view = request.resolver_match.func
        checks: list[Check] = [] if request.resolver_match is self._route else [*self._route_hooks]
        policies: list[Policy] = self._not_passed(self._default_policies(self.view))
        own_hooks: list[Check] = []
        for guards in all_guards(self.view):
            due = self._not_passed(guards.policies)
            if guards.policies and not due:  # It was called, after those around it.
                own_hooks.clear()
                continue
            policies += due
            own_hooks += ordered_hooks(guards.hooks, "http").route
        return [*checks, *own_hooks, *policy_checks(tuple(policies))] if policies else checks

    def _not_passed(self, policies: tuple[Policy, ...]) -> list[Policy]:
        return [policy for policy in policies if not self.context.has_passed_since(policy, self._call)]

    def _refusal_behind(self, response: HttpResponseBase) -> Denial | None:
        """The refusal of wrong credentials that inner middleware has met; Django has made its page for a 403 of it."""
        if response.status_code < 400:
            return None
        refusal: Denial | None = vars(self.context.request).pop("_wsdeny_refusal", None)
        return refusal

    def _default_policies(self, view: Callable[..., Any] | None) -> tuple[Policy, ...]:
        guards = guards_of_view(view)
        has_own = (guards is not None and guards.policies) or guards_within(view)
        if has_own or getattr(view, "login_required", True) is False:  # by Django's `login_not_required`
            return ()
        config = self.context.config
        given = self.context.pending_default if config is None else config.default_policy
        return (default_policy() if given is None else given,)

    def _tell_stack(self, response: HttpResponseBase) -> None:
        """Tell the stack around, which would ask the default policy otherwise, that a view was allowed and answers.

        A wrapper may answer in the place of what is no content, such as a 404 or a 503.
        """
        config = self.context.config
        if self._has_default and config is not None and statuses.is_content(response.status_code):
            request: Any = self.context.request
            config.allowed.append(full_path(request.scope))


def _is_asked_before_views(context: RequestContext) -> bool:
    """Whether route hooks, or the default policy, may deny a view."""
    if conf.MIRROR_DEFAULT_POLICY:
        return True
    # A request without a scope does not tell what the stacks around have left to the mirror.
    return bool(context.route_hooks or ordered_hooks(_hooks(context), "http").route or is_within_route_hooks())


def _hooks(context: RequestContext) -> tuple[Hooks, ...]:
    return site_hooks() if context.config is None else (*site_hooks(), *context.config.hooks)


def answer_exception(request: HttpRequest, error: Exception, view: Any = None) -> HttpResponseBase | None:
    """The response to an exception of which Django makes a page: a hook's, or that of a `Deny`; else None."""
    context = get_context(request)
    handler: DjangoHandler = context.mirror or DjangoHandler(context)
    if vars(request).get("_wsdeny_refusal") is error:
        del vars(request)["_wsdeny_refusal"]  # It is answered here.
    answer = error if handler.runner is None else handler.runner.rescue_sync(error)
    if answer is error and not isinstance(error, Deny):
        return None
    handler.view = view
    return handler.respond(answer)


def _seen_by_django(response: HttpResponseBase) -> HttpResponseBase:
    """`response`. Raises `ImproperlyConfigured` for one that is false: Django would go on as without one."""
    if not bool(response):
        raise ImproperlyConfigured(
            f"A {type(response).__name__} of status {response.status_code} is false (its length is 0?), so "
            "Django would not see it."
        )
    return response
