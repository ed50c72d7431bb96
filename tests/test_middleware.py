"""The mirror: hooks, denials and the default policy for Django's views, in whatever way Django runs them."""

import asyncio
import contextvars
import copy
import functools
import gc
import io
import logging
import threading
import weakref

import pytest
from asgiref.sync import async_to_sync, markcoroutinefunction, sync_to_async
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.core.cache import cache
from django.core.handlers.asgi import ASGIRequest
from django.core.signals import got_request_exception
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.test import AsyncClient
from django.urls import include, path, re_path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import cache_page, never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.conf import MIRROR, conf
from channels_wsdeny.decorators import login_required, public, require, with_hooks
from channels_wsdeny.middleware import MirrorMiddleware
from channels_wsdeny.policies import AllowAny, DenyAll, IsStaff
from tests.support.clients import fetch
from tests.support.mirror import HOST, REQUEST, made
from tests.support.policies import AsyncCheck, Check, raising
from tests.support.site import OUTSIDE, SITE_CACHE, VIEWS, Site, hello, hello_async, noting, page, tell
from tests.support.threads import until
from tests.support.transports import DJANGO, Asgi, Middleware, Repeat, Stack, SyncOnly, Wrapper, middleware_with

pytestmark = pytest.mark.django_db
SYNC_INSIDE = f"{SyncOnly.__module__}.SyncOnly"


@pytest.fixture
def locked(one):
    """A function that serves URLs under the default policy, and returns the site."""
    return functools.partial(one.serve, MIRROR_DEFAULT_POLICY=True)


class Lost(LookupError):
    pass


failing = raising(lambda: ZeroDivisionError("secret"))


async def failing_around(request, call_next):
    await call_next(request)
    raise ZeroDivisionError("secret")


async def shout(request, call_next):
    response = await call_next(request)
    response.content = response.content.upper()
    return response


async def early(request, *arguments):
    return HttpResponse("early", status=202)


def name_error(request, error):
    return HttpResponse(type(error).__name__, status=418)


SAW = tell("X-Saw", lambda request, response: response.status_code)
LOCKED_SITE = {"MIRROR_DEFAULT_POLICY": True}
#: Hooks, view, and the status, code or body that is answered; perhaps options of the site. What hooks answer is held
#: against that of other transports by tests/hooks/test_parity.py: here is one of each kind, at each place of it.
SITUATIONS = {
    "no hooks": (None, hello, 200, b"hello world"),
    "early response, async view": (made("request", early), hello_async, 202, b"early"),
    "request hook fails": (made("request", failing), hello, 500, "server_error"),
    "request hook returns the request": (made("request", lambda request: request), hello, 500, "server_error"),
    "route hook answers": (made("route", early), hello, 202, b"early"),
    "response hook sees a denial": (made("response", SAW), require(DenyAll())(hello), 403, "permission_denied"),
    "response hook sees a 500": (made("response", SAW), raising(Lost), 500, None),
    "response hook sees a template": (made("response", SAW), lambda request: page("hello"), 200, b"hello"),
    "response hook fails": (made("response", failing), hello_async, 500, "server_error"),
    "exception hook": (made("exception", name_error, types=(Lost,)), public(raising(Lost)), 418, b"Lost"),
    "exception hook fails": (made("exception", failing), raising(Lost), 500, "server_error"),
    "around hook changes, async view": (made("around", shout), hello_async, 200, b"HELLO WORLD"),
    "around hook fails": (made("around", failing_around), hello, 500, "server_error"),
    "view denies": (None, raising(lambda: Deny(409)), 409, "conflict"),
    "template of a hook": (made("request", lambda request: page("early")), hello, 200, b"early"),
    "hooks that cannot be used": (None, hello, 500, None, {"HOOKS": ["nowhere.hooks"]}),
    "hooks for sockets": (made("request", failing, protocols=("websocket",)), hello, 200, b"hello world"),
    "locked": (None, hello, 401, "not_authenticated", LOCKED_SITE),
    "locked, async view": (None, hello_async, 401, "not_authenticated", LOCKED_SITE),
    "public": (None, public(hello), 200, b"hello world", LOCKED_SITE),
    "no policy": (None, hello, 500, "server_error", {**LOCKED_SITE, "DEFAULT_POLICY": "no.policy"}),
}


def test_every_situation_is_answered_alike_on_every_transport(site):
    wrong = {}
    for name, (hooks, view, status, answered, *options) in SITUATIONS.items():
        answer = site.serve(view, hooks=hooks, **dict(*options)).ask()
        found = answer.code if isinstance(answered, str) else answer.body
        saw = answer.headers.get("x-saw", str(status))
        if (answer.status, saw) != (status, str(status)) or answered not in {None, found}:
            wrong[name] = answer
        assert b"secret" not in answer.body, name
    assert wrong == {}


ORDER = ["in", "request", "route", "response", "out"]


def test_a_route_hook_may_change_the_arguments_of_every_kind_of_view(one):
    def change(request):
        match = request.resolver_match
        if "replace" in request.GET:
            match.kwargs = {"name": "other"}
        elif "remove" in request.GET:
            match.kwargs.clear()
        else:
            match.kwargs["name"] = f"{match.route} {match.url_name}"

    urls = [path(f"{index}/<name>/", view, name="it") for index, view in enumerate(VIEWS.values())]
    one.serve(*urls, hooks=made("route", change))
    for index in range(len(VIEWS)):
        bodies = [one.ask(f"/{index}/you/{query}").body for query in ("", "?replace", "?remove")]
        assert bodies == [b"hello %d/<name>/ it" % index, b"hello other", b"hello world"]


def test_a_route_hook_that_replaces_the_positional_arguments_of_a_view_lets_nobody_in(one):
    """Django calls the view with those that it has."""
    hooks = made("route", lambda request: setattr(request.resolver_match, "args", ("lobby",)))
    in_lobby = require(Check(lambda request: request.resolver_match.args == ("lobby",)))
    one.serve(
        *(re_path(f"{index}/([a-z]+)/", in_lobby(view)) for index, view in enumerate(VIEWS.values())), hooks=hooks
    )
    for index in range(len(VIEWS)):
        assert [one.ask(f"/{index}/{room}/").status for room in ("secret", "lobby")] == [500, 200]


@pytest.mark.parametrize("name", ["get", "dispatch"])
def test_a_class_based_view_has_the_arguments_that_a_policy_on_a_method_was_asked_about(one, name):
    """It was set up with those of the route before."""
    in_lobby = require(Check(lambda request: "lobby" in (*request.resolver_match.args, *request.resolver_match.kwargs)))

    def change(request):
        match = request.resolver_match
        match.args, match.kwargs = ("lobby",) if match.args else (), {"lobby": "1"} if match.kwargs else {}

    def get(self, request, *args, **kwargs):
        return HttpResponse(repr((self.args, self.kwargs)))

    decorators = [never_cache, with_hooks(made("route", change)), never_cache, in_lobby]
    rooms = method_decorator(decorators, name=name)(type("Rooms", (View,), {"get": get})).as_view()
    one.serve(re_path("a/(.*)/", rooms), path("b/<room>/", rooms, {"own": "2"}))
    assert [one.ask(url).body for url in ("/a/secret/", "/b/secret/")] == [b"(('lobby',), {})", b"((), {'lobby': '1'})"]


def test_a_route_hook_changes_nothing_for_the_next_request(one):
    change = made("route", lambda request: request.resolver_match.kwargs.update(name="other"))
    urls = [path("", hello, {"name": "default"})]
    assert one.serve(*urls, hooks=change).ask().body == b"hello other"
    assert one.serve(*urls, hooks=Hooks()).ask().body == b"hello default"


def test_route_hooks_come_before_policies_and_not_for_unrouted_paths(one, ran):
    hooks = made("route", lambda request: ran.append("route") or request.resolver_match.kwargs.update(name="b"))
    is_b = Check(lambda request: request.resolver_match.kwargs["name"] == "b")
    urls = [path("own/<name>/", require(is_b)(hello)), path("<name>/", hello)]
    one.serve(*urls, hooks=hooks, MIRROR_DEFAULT_POLICY=True, DEFAULT_POLICY=is_b)
    assert [one.ask(url).body for url in ("/own/a/", "/a/")] == [b"hello b", b"hello b"]
    assert (one.ask("/no/such/path/").status, ran) == (404, ["route", "route"])


def test_ctx_goes_from_hooks_to_the_view_and_back_and_each_request_has_its_own(one, hooks):
    hooks.on_request(lambda request: setattr(request.ctx, "steps", [request.GET["id"]]))
    hooks.on_response(tell("X-Steps", lambda request, response: " ".join(request.ctx.steps)))

    def view(request):
        request.ctx.steps.append("view")
        return HttpResponse()

    one.serve(view, hooks=hooks)
    assert [one.ask(f"/?id={name}").headers["x-steps"] for name in "ab"] == ["a view", "b view"]
    assert one.serve(lambda request: HttpResponse(str(vars(request.ctx)))).ask().body == b"{}"


def test_what_a_hook_puts_into_a_contextvar_the_view_sees(site):
    variable = contextvars.ContextVar("variable", default="nothing")

    async def view(request):
        return HttpResponse(variable.get())

    async def set_in_hook(request):
        variable.set("given")

    async def set_around(request, call_next):
        variable.set("given")
        return await call_next(request)

    for hooks in (made("request", set_in_hook), made("around", set_around)):
        for seen in (view, lambda request: HttpResponse(variable.get())):
            assert site.serve(seen, hooks=hooks).ask().body == b"given"


def test_hooks_run_where_the_view_does_share_its_transaction_and_may_cross_to_loops_and_back(site, hooks):
    threads = []

    async def count():
        return await User.objects.acount()

    @hooks.on_request
    def write(request):
        User.objects.create_user("written")
        threads.append(threading.get_ident())
        assert async_to_sync(count)() == 1

    @hooks.around
    async def around(request, call_next):
        await sync_to_async(User.objects.count)()
        return await call_next(request)

    async def deep():
        return await sync_to_async(lambda: async_to_sync(count)())()

    def view(request):
        threads.append(threading.get_ident())
        return HttpResponse(str(async_to_sync(deep)()))

    assert site.serve(view, hooks=hooks).ask().body == b"1"
    assert len(set(threads)) == 1


def test_only_what_no_hook_answers_is_reported_and_logged_by_django(one, hooks, ran, caplog):
    got_request_exception.connect(report := lambda **_: ran.append("reported"))  # noqa: F841 - kept alive
    hooks.on_exception(Lost)(lambda request, error: HttpResponse("taken"))
    for view, logged in ((raising(Lost), []), (raising(Deny), []), (raising(KeyError), ["reported"])):
        caplog.clear()
        one.serve(view, hooks=hooks).ask()
        errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert (ran, errors) == (logged, ["Internal Server Error: /"] * len(logged))


Answers = middleware_with(come=lambda self, request: HttpResponse("alone"))
AnswersWithATemplate = middleware_with(come=lambda self, request: page("alone"))


class Copies(Middleware):
    def go(self, request, response):
        response["X-Copy"] = response.get("X-Hook", "none")
        return response


def test_the_mirror_may_stand_anywhere_among_other_middleware(one, ran):
    for outside, inside in (([], OUTSIDE), (OUTSIDE, []), ([], [])):
        ran.clear()
        one.serve(hello, hooks=noting(ran, "it"), outside=outside, inside=inside).ask()
        assert [name.removeprefix("it ") for name in ran] == ORDER


def test_hooks_see_the_answer_of_inner_middleware_and_outer_middleware_sees_theirs(one, hooks, ran):
    hooks.on_response(tell("X-Hook", lambda request, response: response.content.decode()))
    for name in ("Answers", "AnswersWithATemplate"):
        one.serve(hello, hooks=hooks, outside=[f"{__name__}.Copies"], inside=[f"{__name__}.{name}"])
        assert one.ask().headers["x-copy"] == "alone"
    one.serve(hello, hooks=noting(ran, "it"), outside=[f"{__name__}.Answers"])
    assert (one.ask().body, ran) == (b"alone", [])


class Stricter(MirrorMiddleware):
    def process_view(self, request, view, args, kwargs):
        if request.GET.get("key") != "1":
            return HttpResponse("own check", status=403)
        return super().process_view(request, view, args, kwargs)


def make_mirror(get_response):
    return MirrorMiddleware(get_response)


def test_a_subclass_of_the_mirror_and_one_that_a_function_makes_work_as_it_does(site, ran):
    routed = made("route", lambda request: HttpResponse("routed"))
    site.serve(hello, hooks=routed, mirror=[f"{__name__}.Stricter"])
    assert [site.ask(url).body for url in ("/", "/?key=1")] == [b"own check", b"routed"]
    site.serve(hello, hooks=noting(ran, "it"), mirror=[f"{__name__}.make_mirror"]).ask()
    assert [name.removeprefix("it ") for name in ran] == ORDER


def test_the_policies_of_a_subclass_of_the_mirror_have_a_time_limit_under_asgi_as_well(locked):
    async def hang(request):
        await asyncio.sleep(60)

    site = locked(hello, mirror=[f"{__name__}.Stricter"], DEFAULT_POLICY=AsyncCheck(hang), POLICY_TIMEOUT=0.05)
    assert site.ask("/?key=1").status == 503


def test_without_the_mirror_a_stacks_hooks_do_not_reach_views(one, ran):
    one.serve(hello, hooks=noting(ran, "it"), mirror=())
    assert (one.ask().body, ran) == (b"hello world", [])


class Secret(View):
    def get(self, request):
        return HttpResponse("secret")


class Slotted:
    __slots__ = ()
    __hash__ = None

    def __call__(self, request):
        return HttpResponse("secret")


def by_token(view):
    @functools.wraps(view)
    def with_user(request):
        request.user = User.objects.get(username=request.headers.get("X-Token", "bob"))
        return view(request)

    return with_user


def forged(view, called=hello):
    """A function that names itself after `view`, and does not call it."""

    @functools.wraps(view)
    def outer(request):
        called(request)
        return HttpResponse("secret")

    return outer


def forged_without_a_trace(view):
    outer = forged(view)
    del outer.__wrapped__
    return outer


def wraps_itself(request):
    return HttpResponse("secret")


wraps_itself.__wrapped__ = wraps_itself
LOCKED = {
    "function": lambda request: HttpResponse("secret"),
    "names itself as what it wraps": wraps_itself,
    "class": Secret.as_view(),
    "slotted": Slotted(),
    "hooks alone": with_hooks(Hooks())(lambda request: HttpResponse("secret")),
    "hooks alone inside": csrf_exempt(with_hooks(Hooks())(lambda request: HttpResponse("secret"))),
    "named after a guarded view": forged(login_required(hello)),
    "named after a public view": forged_without_a_trace(public(hello)),
    "calls a public view, then answers": forged(login_required(hello), public(hello)),
    "cached": cache_page(60)(Secret.as_view()),
}
OPEN = {
    "public": public(hello),
    "public class": public(type("Open", (Secret,), {})).as_view(),
    "public inside": csrf_exempt(public(hello)),
    "public outside": public(csrf_exempt(hello)),
    "not required": login_not_required(lambda request: HttpResponse("open")),
    "not required class": method_decorator(login_not_required, name="dispatch")(type("Other", (Secret,), {})).as_view(),
}


def test_the_default_policy_is_for_views_without_a_policy_of_their_own(locked, users):
    urls = [path(f"{name.replace(' ', '-')}/", view) for name, view in {**LOCKED, **OPEN}.items()]
    site = locked(*urls, path("in/", include([path("side/", hello)])))
    statuses = {name: site.ask(f"/{name.replace(' ', '-')}/").status for name in {**LOCKED, **OPEN}}
    assert statuses == dict.fromkeys(LOCKED, 401) | dict.fromkeys(OPEN, 200)
    assert site.ask("/in/side/").status == 401
    site.log_in(users["alice"])
    assert {site.ask(f"/{name.replace(' ', '-')}/").status for name in {**LOCKED, **OPEN}} == {200}


def test_a_view_with_a_policy_of_its_own_answers_to_that_alone(locked, users):
    urls = [path("own/", login_required(hello)), path("token/", by_token(require(IsStaff())(hello)))]
    site = locked(*urls, path("default/", hello), DEFAULT_POLICY=IsStaff()).log_in(users["alice"])
    assert [site.ask(url).status for url in ("/own/", "/default/", "/token/")] == [200, 403, 403]
    assert site.ask("/token/", X_Token="staff").status == 200


def test_the_default_policy_counts_only_where_the_site_asks_for_it(one):
    assert one.serve(hello, DEFAULT_POLICY=DenyAll()).ask().status == 200
    for switch in (1, "yes", ["on"]):
        assert one.serve(hello, MIRROR_DEFAULT_POLICY=switch).ask().status == 401


def passing(get_response):
    """A synchronous middleware: Django adapts what is around and inside it."""
    return lambda request: get_response(request)


def test_the_policy_of_a_stack_counts_before_that_of_the_site(locked):
    for default, other, status in ((DenyAll(), AllowAny(), 403), (AllowAny(), DenyAll(), 200)):
        site = locked(path("", hello), path("open/", public(hello)), DEFAULT_POLICY=other)
        Site.stack = {"default_policy": default}
        assert [site.ask("/").status, site.ask("/open/").status] == [status, 200]


def test_a_policy_is_asked_once_for_each_request(locked, ran):
    for kind in (Check, AsyncCheck):
        policy = kind(lambda request: ran.append(1) or True)
        for mirrors in ([MIRROR, MIRROR], [MIRROR, f"{__name__}.passing", MIRROR]):
            assert locked(hello, mirror=mirrors, DEFAULT_POLICY=policy).ask().status == 200
    assert ran == [1] * 4
    answers = iter([True, False, True] * 3)
    in_turn = Check(lambda request: next(answers))
    guarded = csrf_exempt(require(in_turn)(hello))
    for view, default in ((hello, in_turn), (guarded, DenyAll()), (require(AllowAny())(guarded), DenyAll())):
        site = locked(view, DEFAULT_POLICY=default)
        assert [site.ask().status for _ in range(3)] == [200, 403, 200]


class Registers:
    """A URLconf whose views register a hook as Django imports it, which it does once the first request has come."""

    def __init__(self, kind, hooks):
        self._kind, self._hooks = kind, hooks

    @functools.cached_property
    def urlpatterns(self):
        self._hooks.register(lambda request, *arguments: Deny(409), self._kind)
        return [path("", hello)]


def switches_urlconf(get_response):
    def middleware(request):
        request.urlconf = Registers("request", conf.HOOKS[0])
        return get_response(request)

    return middleware


@pytest.mark.parametrize("kind", ["request", "route", "response"])
def test_hooks_that_the_urlconf_registers_run_for_the_first_request(kind, site, settings, hooks):
    site.serve(HOOKS=[hooks])
    settings.ROOT_URLCONF = Registers(kind, hooks)
    assert [site.ask().status, site.ask().status] == [409, 409]
    site.serve(HOOKS=[Hooks()], inside=[f"{__name__}.switches_urlconf"])  # It could run for the next one only.
    assert site.ask().status == 500


Falsy = type("Falsy", (HttpResponse,), {"__len__": lambda self: len(self.content)})
LooksAtViews = middleware_with(process_view=lambda self, request, view, args, kwargs: None)


def test_a_denial_that_django_would_not_see_lets_nothing_through(locked):
    inside = [f"{__name__}.LooksAtViews"]
    policy = Check(lambda request: Falsy(status=403))
    assert locked(raising(AssertionError), inside=inside, DEFAULT_POLICY=policy).ask().status in {403, 500}


def giving(make):
    """A middleware that gives what `make(request)` returns to what is inside."""
    return lambda get_response: lambda request: get_response(make(request))


def another(request):
    """A request for the same path, which only what is inside the middleware gets to know."""
    made = HttpRequest()
    made.path = made.path_info = request.path
    made.method, made.META = request.method, request.META
    return made


giving_copies, giving_another = giving(copy.copy), giving(another)


@pytest.mark.parametrize("by", ["the default policy", "a route hook"])
def test_no_view_gets_a_request_that_has_not_been_at_the_mirror(by, one, ran):
    def view(request):
        ran.append(request)
        return HttpResponseRedirect("/done/")

    hooks = made("route", lambda request: Deny(401))
    asked = {"MIRROR_DEFAULT_POLICY": True} if by == "the default policy" else {"HOOKS": [hooks]}
    for inside, status in (("giving_copies", 401), ("giving_another", 500)):
        assert one.serve(view, inside=[f"{__name__}.{inside}"], **asked).ask().status == status
    assert ran == []


def test_a_request_that_has_not_been_at_the_mirror_passes_where_nothing_is_asked_before_views(one):
    hooks = made("request", lambda request: None)
    assert one.serve(hello, HOOKS=[hooks], inside=[f"{__name__}.giving_another"]).ask().status == 200


def marking(request):
    request.mark = "seen"
    return HttpResponse("marked")


def test_response_hooks_get_the_copy_that_middleware_has_given_to_the_view(site):
    hooks = made("response", tell("X-Mark", lambda request, response: getattr(request, "mark", "none")))
    copying = f"{__name__}.giving_copies"
    for mirrors in ([MIRROR, copying], [MIRROR, copying, MIRROR], [MIRROR, MIRROR, copying]):
        site.serve(marking, hooks=hooks, mirror=mirrors)
        assert site.ask().headers["x-mark"] == "seen"


class Cleans(Middleware):
    """Leaves nothing on a request that it has not set itself."""

    def come(self, request):
        del request.wsdeny

    def go(self, request, response):
        vars(request).pop("wsdeny", None)
        return response


def test_hooks_run_for_a_request_from_which_middleware_has_deleted_its_context(site, hooks):
    hooks.on_request(lambda request: None)
    hooks.on_response(tell("X-Hook", lambda request, response: "ran"))
    answer = site.serve(hello, hooks=hooks, inside=[f"{__name__}.Cleans"]).ask()
    assert (answer.status, answer.headers.get("x-hook")) == (200, "ran")


class InAFunction(Stack):
    """Django's handler is in a function, so what waits for the route in the stack is left to the mirror."""

    def application(self):
        django = super().application()

        async def app(scope, receive, send):
            await django(scope, receive, send)

        return app


def repeating_with_a_copy(get_response):
    def middleware(request):
        get_response(request)
        return get_response(copy.copy(request))

    return middleware


@pytest.mark.parametrize("with_hooks_of_the_site", [False, True])
@pytest.mark.parametrize("again", [f"{Repeat.__module__}.Repeat", f"{__name__}.repeating_with_a_copy"])
def test_route_hooks_of_a_layer_around_django_run_again_where_middleware_asks_again(
    again, with_hooks_of_the_site, settings, ran
):
    def hook(request):
        ran.append("route")
        return Deny(409)

    site = Site(settings, InAFunction())
    given = {"HOOKS": [made("request", lambda request: None)]} if with_hooks_of_the_site else {}
    site.serve(hello, outside=[*OUTSIDE, again], **given)
    Site.stack = {"hooks": made("route", hook), "default_policy": AllowAny()}
    assert (site.ask().status, ran) == (409, ["route", "route"])


def giving_new(get_response):
    """Gives one of the same scope, without what is noted on the first."""
    return lambda request: get_response(ASGIRequest(request.scope, io.BytesIO()))


def another_route_first(get_response):
    def middleware(request):
        copied = copy.copy(request)
        copied.path = copied.path_info = "/open/"
        get_response(copied)
        return get_response(request)

    return middleware


def noting_view(ran):
    def view(request, **kwargs):
        ran.append("view")
        return HttpResponse("secret")

    return view


class Nested(Stack):
    """A stack around a function around another stack, which that asks for some paths, and then for the request's."""

    def __init__(self, *paths, in_a_function=False):
        self._paths, self._in_a_function = paths, in_a_function

    def site(self):
        handler = get_asgi_application()

        async def django(scope, receive, send):
            await handler(scope, receive, send)

        async def drop(message):
            pass

        async def app(scope, receive, send):
            for path_ in self._paths:
                events = [REQUEST]

                async def wait(events=events):
                    return events.pop() if events else await asyncio.Event().wait()

                await inner({**scope, "path": path_}, wait, drop)
            await inner(scope, receive, send)

        inner = DenyMiddlewareStack(django if self._in_a_function else handler, **self.options)
        return DenyMiddlewareStack(app)


@pytest.mark.parametrize(
    ("transport", "middleware", "status"),
    [
        (InAFunction(), {"inside": ["Cleans"]}, 500),
        (InAFunction(), {"inside": ["giving_new"]}, 500),
        (Stack(), {"inside": ["giving_another"]}, 500),
        (Nested(), {"outside": ["another_route_first"]}, 409),
        (Nested(), {"mirror": [MIRROR, "Cleans", MIRROR]}, 409),
        (Nested("/secret/", in_a_function=True), {}, 409),
        (Nested("/open/"), {}, 409),
        (Nested("/open/", in_a_function=True), {}, 409),
    ],
)
def test_no_view_runs_without_the_route_hooks_of_a_stack(transport, middleware, status, settings, ran):
    def hook(request):
        return None if request.resolver_match.route == "open/" else Deny(409)

    named = {
        place: [f"{__name__}.{each}" if "." not in each else each for each in middleware[place]] for place in middleware
    }
    site = Site(settings, transport).serve(path("open/", hello), path("secret/", noting_view(ran)), **named)
    Site.stack = {"hooks": made("route", hook)}
    assert (site.ask("/secret/").status, ran) == (status, [])


@pytest.mark.parametrize("debug", [False, True])
def test_a_route_hook_of_the_site_runs_once_for_each_call_where_django_is_in_a_function(debug, settings, ran):
    settings.DEBUG = debug
    hooks = made("route", lambda request: ran.append("route"))
    site = Site(settings, InAFunction()).serve(hello, outside=[*OUTSIDE, f"{Repeat.__module__}.Repeat"], HOOKS=[hooks])
    assert (site.ask().status, ran) == (200, ["route", "route"])


def test_response_hooks_that_wait_for_a_template_run_for_a_second_call_of_the_view(site):
    guarded = with_hooks(made("response", lambda request, response: Deny(409)))(lambda request: page("secret"))

    def twice(request):
        guarded(request)
        return guarded(request)

    assert site.serve(twice).ask().status == 409


def test_without_the_mirror_a_decorated_view_has_the_route_hooks_that_wait_in_a_layer_around_django(settings, ran):
    hooks = made("route", lambda request: Deny(409))
    site = Site(settings, InAFunction()).serve(with_hooks(hooks)(noting_view(ran)), mirror=[])
    Site.stack = {"hooks": hooks}
    assert (site.ask().status, ran) == (409, [])


def asking_for_two_pages_at_a_time(get_response):
    async def middleware(request):
        copies = {name: copy.copy(request) for name in ("public", "secret")}
        for name, copied in copies.items():
            copied.path = copied.path_info = f"/{name}/"
        answers = await asyncio.gather(*map(get_response, copies.values()))
        return HttpResponse(" ".join(str(answer.status_code) for answer in answers))

    return markcoroutinefunction(middleware)


asking_for_two_pages_at_a_time.async_capable, asking_for_two_pages_at_a_time.sync_capable = True, False


def test_what_was_asked_about_one_view_does_not_hold_for_another_that_middleware_asks_for_meanwhile(settings, ran):
    async def hook(request):
        is_secret = request.resolver_match.kwargs["name"] == "secret"
        for _ in range(40 if is_secret else 20):
            await asyncio.sleep(0)
        return Deny(409) if is_secret else None

    async def view(request, name):
        ran.append(name)
        return HttpResponse(name)

    inside = [f"{__name__}.asking_for_two_pages_at_a_time"]
    site = Site(settings, Asgi()).serve(path("<name>/", view), hooks=made("route", hook), outside=[], inside=inside)
    assert (site.ask("/any/").body, ran) == (b"200 500", ["public"])


def asking_about_two_rooms(get_response):
    def middleware(request):
        statuses = []
        for number in "12":
            request.GET = QueryDict(f"room={number}")
            statuses.append(str(get_response(request).status_code))
        return HttpResponse(" ".join(statuses))

    return middleware


@pytest.mark.parametrize("mirror", [[MIRROR], [MIRROR, MIRROR]], ids=["mirror", "mirrors"])
def test_a_policy_is_asked_about_anew_for_each_query_that_middleware_or_a_view_asks_with(mirror, locked):
    in_first = Check(lambda request: request.GET.get("room") == "1")
    asking = f"{__name__}.asking_about_two_rooms"
    for view in (hello, require(in_first)(hello), csrf_exempt(require(in_first)(hello))):
        for place in ({"outside": [*OUTSIDE, asking]}, {"inside": [asking]}):
            assert locked(view, mirror=mirror, DEFAULT_POLICY=in_first, **place).ask().body == b"200 403"

    def second_room(request):
        request.GET = QueryDict("room=2")
        return require(in_first)(hello)(request)

    assert locked(second_room, mirror=mirror, DEFAULT_POLICY=in_first).ask("/?room=1").status == 403


FROM_OFFICE = Check(lambda request: request.headers.get("X-Office") == "1")


@pytest.fixture
def cached(settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    cache.clear()


@pytest.mark.usefixtures("cached")
def test_a_cached_page_is_not_served_past_a_policy(locked):
    by_name = Check(lambda request: FROM_OFFICE.check(request) and request.resolver_match.kwargs["name"] == "x")
    for view, options in (
        (cache_page(60)(require(by_name)(hello)), {"DEFAULT_POLICY": AllowAny()}),
        (hello, {"DEFAULT_POLICY": by_name, **SITE_CACHE}),
        (require(by_name)(hello), {"DEFAULT_POLICY": AllowAny(), **SITE_CACHE}),
        (cache_page(60)(require(AllowAny())(csrf_exempt(require(by_name)(hello)))), {"DEFAULT_POLICY": DenyAll()}),
    ):
        cache.clear()
        site = locked(path("<name>/", view), **options)
        assert [site.ask("/x/", X_Office="1").status, site.ask("/x/").status] == [200, 403]


@pytest.mark.usefixtures("cached")
def test_policies_are_asked_about_what_route_hooks_make_of_the_route_of_a_cached_page(locked):
    routed = made("route", lambda request: request.resolver_match.kwargs.update(name="vault"))
    by_name = Check(lambda request: FROM_OFFICE.check(request) or request.resolver_match.kwargs["name"] != "vault")
    guarded = require(by_name)(hello)
    for view, options in (
        (guarded, {"hooks": routed, **SITE_CACHE}),
        (hello, {"hooks": routed, "DEFAULT_POLICY": by_name, **SITE_CACHE}),
        (with_hooks(routed)(guarded), SITE_CACHE),
        (cache_page(60)(with_hooks(routed)(guarded)), {}),
        (cache_page(60)(require(AllowAny())(with_hooks(routed)(csrf_exempt(guarded)))), {}),
    ):
        cache.clear()
        site = locked(path("<name>/", view), **options)
        assert [site.ask("/x/", X_Office="1").status, site.ask("/x/").status] == [200, 403]
    of_office = made("route", lambda request: None if FROM_OFFICE.check(request) else Deny(403))
    site = locked(public(hello), hooks=of_office, **SITE_CACHE)
    assert [site.ask(X_Office="1").status, site.ask().status] == [200, 403]


@pytest.mark.usefixtures("cached")
def test_a_cached_view_keeps_what_its_own_hooks_made_of_it_and_no_denial_is_cached(one, hooks):
    hooks.on_response(tell("X-Own", lambda request, response: "1"))
    one.serve(path("own/", cache_page(60)(with_hooks(hooks)(lambda request: page("hello")))))
    assert [one.ask("/own/").headers.get("x-own") for _ in range(2)] == ["1", "1"]
    answers = iter([False, True])
    one.serve(require(Check(lambda request: next(answers)))(hello), **SITE_CACHE)
    assert [one.ask().status, one.ask().status] == [403, 200]


TO_LOG_IN = HttpResponseRedirect("https://sso.example.com/")
Redirects = middleware_with(come=lambda self, request: TO_LOG_IN if request.path == "/" else None)
CallsTheView = middleware_with(process_view=lambda self, request, view, args, kwargs: view(request, *args, **kwargs))


def test_only_content_is_withheld_from_a_client_that_was_not_asked_about(locked):
    assert locked(hello, inside=[f"{__name__}.Redirects"]).ask().status == 302
    assert locked(require_POST(login_required(hello))).ask().status == 405
    assert locked(path("x/", hello)).ask("/nowhere/").status == 404
    for options in ({"inside": [f"{__name__}.CallsTheView"]}, {"outside": [*OUTSIDE, f"{__name__}.CallsTheView"]}):
        assert locked(hello, **options).ask().status == 401


def test_a_response_that_is_withheld_is_closed(locked):
    file = io.BytesIO(b"secret")
    view = functools.wraps(login_required(hello))(lambda request: FileResponse(file))
    assert (locked(view).ask().status, file.closed) == (401, True)


class Stale(Wrapper):
    """Answers with a page that it has kept, when the site takes too long."""

    async def __call__(self, scope, receive, send):
        site = asyncio.ensure_future(self.app(scope, receive, send))
        done, _ = await asyncio.wait({site}, timeout=0.05)
        if not done:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"secret"})
        await asyncio.gather(site, return_exceptions=True)


@pytest.mark.parametrize("wrap", [lambda app: app, DenyMiddlewareStack])
async def test_what_a_wrapper_answers_while_the_policy_is_asked_is_guarded(wrap, settings, monkeypatch):
    monkeypatch.setattr("channels_wsdeny.handlers.http._GRACE", 0.05)
    settings.CHANNELS_WSDENY = {
        "MIRROR_DEFAULT_POLICY": True,
        "DEFAULT_POLICY": AsyncCheck(lambda request: asyncio.sleep(0.05, False)),
    }
    settings.ROOT_URLCONF = (path("", hello),)
    answer = await fetch(DenyMiddlewareStack(Stale(wrap(get_asgi_application()))), "/", headers=HOST)
    assert (answer.status, b"secret" in answer.body) == (403, False)


class Names(Middleware):
    """Puts the name of the client on each response, as sessions do."""

    def go(self, request, response):
        response.set_cookie(request.headers["X-Visitor"], "1")
        return response


def test_a_response_that_is_sent_to_many_keeps_nothing_of_one(one):
    shared = HttpResponse("shared", status=403)
    give = lambda *arguments: shared  # noqa: E731 - a hook of each kind

    async def around(request, call_next):
        return shared

    sources = [made("around", around), *(made(kind, give) for kind in ("request", "route", "response", "exception"))]
    sites = [(raising(Lost), hooks) for hooks in sources]
    sites += [(require(Check(give))(hello), None), (raising(lambda: Deny(response=shared)), None)]
    for view, hooks in sites:
        one.serve(view, hooks=hooks, outside=[f"{__name__}.Names", *OUTSIDE])
        cookies = [list(one.ask(X_Visitor=name).cookies) for name in ("alice", "bob")]
        assert cookies == [["alice"], ["bob"]]
    assert (len(shared.cookies), list(shared.headers)) == (0, ["Content-Type"])


@pytest.mark.usefixtures("quiet")
def test_nothing_of_a_request_is_kept_alive(one, hooks):
    alive, shared = [], Deny(409)
    own = made("exception", lambda request, error: HttpResponse("taken", status=418), types=(KeyError,))
    views = [hello, hello_async, raising(ZeroDivisionError), raising(Lost), require(DenyAll())(hello)]
    views += [with_hooks(own)(raising(KeyError)), public(raising(lambda: Deny(409))), lambda request: page("hello")]

    @hooks.on_request
    def begin(request):
        request.ctx.token = type("Token", (), {})()
        alive.append(weakref.ref(request.ctx.token))

    urls = [path(f"{index}/", view) for index, view in enumerate(views)]
    one.serve(*urls, path("shared/", raising(lambda: shared)), hooks=hooks)
    for url in [f"/{index}/" for index in range(len(urls) + 1)] + ["/shared/"] * 2:
        one.ask(url)
    one.ask("/0/")
    gc.collect()
    assert [token() for token in alive[:-1]] == [None] * (len(urls) + 3)
    assert shared.__traceback__ is None


@pytest.mark.parametrize("inside", [[], [SYNC_INSIDE]])
async def test_a_request_that_is_cancelled_in_an_around_hook_leaves_no_task(settings, hooks, inside, ran):
    entered = asyncio.Event()

    @hooks.around
    async def around(request, call_next):
        try:
            return await call_next(request)
        finally:
            ran.append("ended")

    async def view(request):
        entered.set()
        await asyncio.sleep(60)

    Site(settings, DJANGO["asgi"]()).serve(view, hooks=hooks, inside=inside)
    task = asyncio.create_task(AsyncClient().get("/"))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
    assert ran == ["ended"]
