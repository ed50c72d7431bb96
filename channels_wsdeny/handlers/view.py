"""Guarded Django views, synchronous and asynchronous, under WSGI and ASGI.

A view is called once its hooks and policies allow the request. What it raises itself is left to Django, but
for a `Deny` and what a hook answers.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary, ref

from asgiref.sync import iscoroutinefunction
from django.conf import settings, urls
from django.core.exceptions import BadRequest, ImproperlyConfigured, PermissionDenied
from django.core.handlers.exception import get_exception_response
from django.db import connections
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.template.loader import get_template
from django.urls import NoReverseMatch, get_callable, get_resolver, get_urlconf
from django.utils.cache import patch_cache_control
from django.views import View

from .. import status as statuses
from ..authentication.base import authenticate_by, authentication_of_site, found_user
from ..concurrency import run_coroutine, run_in_django_thread
from ..exceptions import HookError
from ..hooks.runner import GoOn, HookRunner, enclosing_runner, layer_runner
from ..http.context import get_context
from ..http.request import is_authentication_due
from ..http.responses import HTML, is_rendered, preferred_type
from ..log import log_denial, log_failure
from ..policies import AllowAny
from ..policies.base import give_back, user_of
from ..policies.runner import LoadUser, policy_checks
from .base import (
    authorize,
    code_of,
    denial_blocks,
    late_error,
    make_denial,
    report,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from ..authentication.base import Authenticators
    from ..exceptions import Deny
    from ..hooks import Hooks
    from ..http.context import RequestContext
    from ..policies import Policy
    from ..policies.base import Denial
    from ..policies.runner import Check
    from ..routing.guards import Guards


T = TypeVar("T")


class _Guarded(NamedTuple):
    view: Callable[..., Any]
    guards: Guards
    itself: Callable[[], Any]


#: How many decorators on a view are looked under: more of them wrap one another in a circle.
_MOST_DECORATORS = 50

# By identity: an attribute would travel with functools.wraps() to functions that check nothing.
_guarded: WeakKeyDictionary[Callable[..., Any], _Guarded] = WeakKeyDictionary()


def guard_view(view: Callable[..., Any], guards: Guards) -> Callable[..., Any]:
    """`view` behind `guards`; a coroutine function stays one, as does the ``dispatch()`` of an asynchronous class."""
    named = view
    if guards_of_view(view) is not None:
        # Decorators on one another become one, so that hooks come before policies.
        view, inner, _ = _guarded[view]
        guards = guards.around(inner)
    if iscoroutinefunction(view) or _is_async_dispatch(view):

        @functools.wraps(named)
        async def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            return await ViewHandler(request, view, guards, args, kwargs, is_async=True).run()

    else:

        @functools.wraps(named)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            return run_coroutine(ViewHandler(request, view, guards, args, kwargs, is_async=False).run())

    # A subclass with a check of its own may deny some.
    if guards.policies and all(type(policy).check is AllowAny.check for policy in guards.policies):
        # Django's attribute: false for its `LoginRequiredMiddleware`, yet not the False of its `login_not_required`,
        # for `functools.wraps` copies it to functions that do not call the view.
        vars(guarded)["login_required"] = None
    _guarded[guarded] = _Guarded(view, guards, ref(guarded))
    return guarded


def guards_of_view(view: Any) -> Guards | None:
    """The guards of a view that is guarded itself, not by something that it may call; None if it is not."""
    try:
        found = _guarded.get(view)
    except TypeError:  # Not hashable, or not to be referenced weakly: not made here.
        return None
    # Views may compare as they like, and this is about the very one.
    return found.guards if found is not None and found.itself() is view else None


def guards_within(view: Any) -> tuple[Policy, ...]:
    """The policies of the views that decorators name as what they wrap (``__wrapped__``), the outermost first."""
    return tuple(policy for guards in all_guards(getattr(view, "__wrapped__", None)) for policy in guards.policies)


def all_guards(view: Any) -> Iterator[Guards]:
    """The guards of a view and of those that decorators name as what they wrap, the outermost first."""
    for _ in range(_MOST_DECORATORS):
        if view is None:
            break
        found = guards_of_view(view)
        if found is not None:
            yield found
        view = getattr(view, "__wrapped__", None)


def authenticate_view(context: RequestContext) -> Authenticators:
    """Make the user of a view's request the one that the authentication classes of its stack or site find.

    Returns the classes.
    """
    config = context.config
    authentication = context.authentication if config is None else config.authentication
    if authentication is None:
        authentication = authentication_of_site()
    authenticate_by(context.request, authentication)
    return authentication


def keep_private(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """`response`, which caches do not give to others if a token or another credential has told its user.

    For a session Django's middleware says so: the response varies on cookies. One that is public stays that.
    """
    own = vars(request)
    user = own["user"] if "_wsdeny_user_is_set" in own else found_user(request)
    if user is None or not isinstance(response, HttpResponseBase):
        return response  # A view may return anything; Django says what is wrong.
    if user is not own.get("_wsdeny_session_user") and user.is_authenticated:
        stated = response.get("Cache-Control", "")
        if "public" not in stated and "no-store" not in stated:
            patch_cache_control(response, private=True)
    return response


class DjangoHandler:
    """A Django request at one layer: a guarded view, or `MirrorMiddleware`.

    A subclass gives `get_response`: the response inside the hooks of the layer. Its coroutines serve synchronous
    requests as well: there nothing in them has to wait.
    """

    #: The view that the request is for, if that is known.
    view: Any = None

    #: The runner of its hooks; None without any.
    runner: HookRunner | None = None

    def __init__(self, context: RequestContext, registries: tuple[Hooks, ...] = (), *, is_async: bool = False) -> None:
        self.context, self.is_async, self.outer = context, is_async, enclosing_runner(context)
        if registries:
            self.runner = layer_runner(self, registries, "http", self.outer)

    async def get_response(self, request_hooks: tuple[Check, ...], route_hooks: tuple[Check, ...]) -> HttpResponseBase:
        """The response, after these hooks have run."""
        raise NotImplementedError

    async def run(self) -> HttpResponseBase:
        """The response as the hooks leave it. Raises what is left to Django."""
        try:
            if self.runner is not None:
                response = await self.runner.run(self.get_response)
            else:
                try:
                    response = await self.get_response((), ())
                except Exception as error:  # fail closed: a policy that fails denies
                    response = await self.answer(error)
            return keep_private(self.context.request, response)
        finally:
            self.end()

    def end(self) -> None:
        """The response is there, or there will be none."""

    async def in_thread(self, function: Callable[[], T]) -> T:
        """What `function`, which may block, returns: it runs in the thread that Django has for the request."""
        return await run_in_django_thread(function) if self.is_async else function()

    async def answer(self, error: Exception) -> HttpResponseBase:
        """The response to an error: a hook's, or a denial. Raises what is left to Django."""
        runner = HookRunner(self, outer=self.outer) if self.runner is None else self.runner
        return await runner.answer(error) if self.is_async else runner.answer_sync(error)

    def authorize(self, checks: Iterable[Check]) -> Coroutine[Any, Any, Denial | None]:
        """As `base.authorize`. A check that swallows its cancellation keeps the client waiting; that is logged."""
        runner = self.runner or self.outer
        if not self.is_async and runner is not None and runner.is_enclosed:  # Nothing cancels a thread.
            checks = [each for check in checks for each in (GoOn(runner), check)]
        return authorize(self.context, checks, give_up=self._report_late, may_block=not self.is_async)

    def _report_late(self) -> None:
        log_failure(self.context, late_error(self.context.expression or "A hook", "the client waits until it ends"))

    async def deny(self, denial: Denial) -> HttpResponseBase:
        """The response that a check denies with; for a caller that tries again the hooks run again."""
        runner = self.runner or self.outer  # Route hooks of a layer around may have waited for this one.
        if runner is not None:
            runner.forget()
        if self.respond_blocks(denial):
            return await self.in_thread(lambda: self.respond(denial))
        return self.respond(denial)

    def go_on(self) -> None:
        """Raise `HookError` if around hooks have answered already: no view begins after that."""
        runner = self.runner or self.outer
        if runner is not None:
            runner.go_on()

    # What the runner of the hooks calls

    @property
    def is_new_route(self) -> bool:
        """Whether route hooks run again, since those of this request have run for another route."""
        raise NotImplementedError

    @property
    def runs_waiting_hooks(self) -> bool:
        """Whether there is a mirror, which runs the route hooks of layers around."""
        return self.context.mirror is not None

    def respond(self, denial: Denial | Exception) -> HttpResponseBase:
        """The response of a denial or an error, logged; for a browser the site's page, if there is one."""
        response = make_denial(self.context, denial, self._page_for)
        if statuses.is_denial(response.status_code):
            if self.context.trace is not None:
                self.context.trace.note_route(self.context.request.resolver_match)
            log_denial(self.context, response.status_code, code_of(response))
        return response

    def respond_blocks(self, denial: Denial | Exception) -> bool:
        """Whether that may block: pages are rendered."""
        is_page = isinstance(denial, Exception) and preferred_type(self.context.request) == HTML
        return is_page or denial_blocks(denial)

    def fail(self, error: Exception) -> HttpResponseBase:
        """The response to an error of a hook or policy. Raises it with ``DEBUG_PROPAGATE_EXCEPTIONS``."""
        if settings.DEBUG_PROPAGATE_EXCEPTIONS:
            raise error
        return self.respond(error)

    def _page_for(self, denial: Deny) -> HttpResponseBase | None:
        request = self.context.request
        if denial.response is not None or preferred_type(request) != HTML:
            return None
        try:
            return page_for(request, self.view, denial)
        except Exception as error:  # the denial is sent without the site's page if that fails
            log_failure(self.context, error)
            return None


#: The innermost guarded view that the code which runs now is in.
_current: ContextVar[ViewHandler | None] = ContextVar("wsdeny_view", default=None)


class ViewHandler(DjangoHandler):
    """One call of a guarded view."""

    def __init__(
        self,
        request: HttpRequest,
        view: Callable[..., Any],
        guards: Guards,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        is_async: bool,
    ) -> None:
        if isinstance(getattr(request, "_request", None), HttpRequest):
            raise TypeError(
                f"{view!r} is guarded as a view of Django, and REST framework has called it with its own request. Put "
                "the decorator above @api_view, or on the class of the view; for one method use permission_classes."
            )
        if not isinstance(request, HttpRequest):
            raise TypeError(
                f"{view!r} is guarded as a view, which takes a request first, found a "
                f"{type(request).__name__}. An ASGI app must take (scope, receive, send) by these names, and "
                "a method needs django.utils.decorators.method_decorator."
            )
        context, match = get_context(request), request.resolver_match
        self._around = context.view_handler
        if self._around is not None and self._around is not _current.get():
            raise HookError(
                f"{view!r} was called while another guarded view has the same request. Two at the same time would "
                "share its user and its object: give each a copy of the request, copy.copy(request)."
            )
        self._route_before, context.state.route = context.state.route, match
        super().__init__(context, guards.hooks, is_async=is_async)
        authenticate_view(context)
        #: What says who the user is, until the request is allowed.
        self._user_before: dict[str, Any] | None = user_of(context.request)
        self.view, self._policies, self._reported = view, guards.policies, guards.reported
        self._args, self._kwargs = args, kwargs
        #: The arguments of the route that the caller has: those before any hook has run, which may change them.
        self._given = self._arguments_before()
        self._outer_obj = self.context.obj
        #: What the view has raised, until its response is made: an error keeps its frames, and so this handler.
        self.raised: Exception | None = None
        context.view_handler = self

    async def run(self) -> HttpResponseBase:
        """As of any layer. An exception of the view that is answered does not commit the view's transaction."""
        try:
            response = await super().run()
            if self.raised is not None:
                _roll_back(self.context.request)
            return response
        finally:
            self.raised = None

    @property
    def is_new_route(self) -> bool:
        """Whether route hooks have run for another route: middleware may ask for the response again."""
        return self._route_before is not None and self._route_before is not self.context.request.resolver_match

    def end(self) -> None:
        """A guarded view that has called this one has its own object again; after a denial the user is who it was."""
        self.context.view_handler = self._around
        self.context.state.calls += 1
        if self._user_before is not None:
            give_back(self.context.request, self._user_before)
        if self._outer_obj is not None:
            self.context.obj = self._outer_obj

    async def get_response(self, request_hooks: tuple[Check, ...], route_hooks: tuple[Check, ...]) -> HttpResponseBase:
        """The view's response, or a denial."""
        denial = await self.authorize(self._checks(request_hooks, route_hooks))
        if denial is not None:
            return await self.deny(denial)
        await report(self.context, self._reported, self.authorize)
        self._enter()
        around = _current.get()
        _current.set(self)
        try:
            response = self.view(self.context.request, *self._args, **self._kwargs)
            if self.is_async:
                response = await response
        except StopIteration as error:  # A coroutine cannot raise it.
            self.raised = RuntimeError(f"{self.view!r} raised StopIteration.")
            raise self.raised from error
        except Exception as error:
            self.raised = error
            raise
        finally:
            _current.set(around)
        return self._with_hooks(response)

    def fail(self, error: Exception) -> HttpResponseBase:
        """The response to an error of a hook or policy. Raises what the view itself has raised."""
        if error is self.raised:
            raise error
        return super().fail(error)

    def _checks(self, request_hooks: tuple[Check, ...], route_hooks: tuple[Check, ...]) -> list[Check]:
        checks = [*request_hooks, *route_hooks, *policy_checks(self._policies)]
        if self._policies and is_authentication_due(self.context.request):
            checks.append(LoadUser())  # Wrong credentials deny before a public view, too.
        return checks

    def _arguments_before(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the route, for a caller that passes those from before a first call as they were then."""
        state, match, now = self.context.state, self.context.request.resolver_match, self._arguments_of_route()
        if state.given is None or state.given[0] is not match:
            state.given = (match, *now)
            return now
        _, args, kwargs = state.given
        # Arguments of its own, as of a view that calls another one, are left to it.
        return (args, kwargs) if self._args == args and self._kwargs.items() >= kwargs.items() else now

    def _arguments_of_route(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        match = self.context.request.resolver_match
        return ((), {}) if match is None else (match.args, dict(match.kwargs))

    def _enter(self) -> None:
        """The request is allowed: take over what a hook or policy has changed."""
        self.context.mark_passed(self._policies)
        self.go_on()
        self._user_before = None
        (args_before, before), (args, after) = self._given, self._arguments_of_route()
        if self.runner is not None:
            self.context.state.route = self.context.request.resolver_match
        # The view of a method was set up before, and keeps arguments of its own.
        instance: Any = _instance_of(self.view) if args != args_before or after != before else None
        if args != args_before:
            self._args = args
            if instance is not None:
                instance.args = args
        if after != before:
            self._kwargs = _replaced(self._kwargs, before, after)
            if instance is not None:
                instance.kwargs = _replaced(instance.kwargs, before, after)

    def _with_hooks(self, response: HttpResponseBase) -> HttpResponseBase:
        """`response`; the hooks of the view enclose the rendering of its template, which Django does then."""
        runner = self.runner
        if runner is None or is_rendered(response):
            return response
        template: Any = response
        inner = vars(template).get("render")
        finish = runner.hold_response_hooks(response)
        template.add_post_render_callback(finish)  # A cache around the view keeps what the hooks make of it.

        def render() -> Any:
            vars(template).pop("render", None)  # Caches pickle the response.
            try:
                rendered = template.render() if inner is None else inner()
                if runner.holds_response_hooks:  # A hook of the view inside has answered an error of the template.
                    rendered = finish(rendered)
            except Exception as error:  # a hook may answer it; else it is raised by fail()
                self.raised = error
                try:
                    rendered = finish(error)
                finally:
                    self.raised = None
            if rendered is not template:
                _become(template, rendered)
            return rendered

        template.render = render
        return response


def _become(template: Any, rendered: HttpResponseBase) -> None:
    """Have `template` be what hooks have put in its place: a caller may send it, and not what ``render()`` returned."""
    template.__class__ = type(rendered)
    vars(template).clear()
    vars(template).update(vars(rendered))


def _replaced(kwargs: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """`kwargs` with those that the route has now in the place of those that it had."""
    return {**{name: value for name, value in kwargs.items() if name not in before}, **after}


def _instance_of(view: Any) -> View | None:
    """The class-based view that has `view` as a method, as `method_decorator` gives it to a decorator; else None."""
    for _ in range(_MOST_DECORATORS):
        method = view.func if isinstance(view, functools.partial) else view
        instance = getattr(method, "__self__", None)
        if isinstance(instance, View):
            return instance
        view = getattr(view, "__wrapped__", None)
    return None


def _is_async_dispatch(view: Any) -> bool:
    """Whether `view` is the ``dispatch()`` of an asynchronous class: a plain function that returns a coroutine."""
    return getattr(view, "__name__", "") == "dispatch" and getattr(_instance_of(view), "view_is_async", False)


def _roll_back(request: HttpRequest) -> None:
    """Undo what the view has written under ``ATOMIC_REQUESTS``, as any other exception of it does."""
    match = request.resolver_match
    exempt = getattr(match.func, "_non_atomic_requests", ()) if match is not None else ()
    for connection in connections.all(initialized_only=True):
        is_atomic = connection.settings_dict["ATOMIC_REQUESTS"] and connection.alias not in exempt
        if is_atomic and connection.in_atomic_block:
            connection.set_rollback(True)


# Pages for browsers

#: Statuses for which Django has an error view of the site's, and the exception that it shows.
_ERROR_PAGES = {400: BadRequest, 403: PermissionDenied, 404: Http404}


def page_for(request: HttpRequest, view: Any, denial: Deny) -> HttpResponseBase | None:
    """What a browser gets: a redirect to ``LOGIN_URL``, or the site's page for the status; may block."""
    if denial.status == 401:
        user = getattr(request, "user", None)
        return None if user is not None and user.is_authenticated else _redirect_to_login(request, view)
    if denial.status not in _ERROR_PAGES or settings.DEBUG:
        return None
    resolver = get_resolver(get_urlconf())
    if not _has_page(resolver, denial.status):
        return None
    page: Any = get_exception_response(request, resolver, denial.status, _ERROR_PAGES[denial.status](denial.detail))
    if not is_rendered(page):
        page = page.render()
    return page if page.status_code == denial.status else None


def _has_page(resolver: Any, status: int) -> bool:
    """Whether the site has a template or view of its own for errors of this status."""
    try:
        handler = resolver.resolve_error_handler(status)
        if handler is not get_callable(getattr(urls, f"handler{status}")) and not hasattr(handler, "is_wsdeny"):
            return True
        get_template(f"{status}.html")
    except Exception:  # without a template, or with a broken URLconf, a problem body is sent
        return False
    return True


def _redirect_to_login(request: HttpRequest, view: Any) -> HttpResponseBase | None:
    # Imported here: it needs loaded apps, and decorators are imported before that.
    from django.contrib.auth.middleware import LoginRequiredMiddleware  # noqa: PLC0415

    middleware: Any = LoginRequiredMiddleware
    try:
        redirect: HttpResponseBase = middleware(lambda request: None).handle_no_permission(request, view)
    except (ImproperlyConfigured, NoReverseMatch):
        return None  # A site without a log-in page.
    return redirect
