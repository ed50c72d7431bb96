"""Django middleware around handshakes: as around views, with one thread, and never a way in."""

import asyncio
import itertools
import logging
import random
import sys
import time
from functools import partial
from importlib import import_module
from types import ModuleType

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer
from channels.middleware import BaseMiddleware
from channels.routing import URLRouter
from django.conf import settings as site_settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.exceptions import ImproperlyConfigured, MiddlewareNotUsed, PermissionDenied
from django.core.handlers.asgi import ASGIHandler
from django.http import Http404, HttpResponse
from django.urls import path
from django.utils import translation
from django.utils.decorators import async_only_middleware
from django.utils.deprecation import MiddlewareMixin

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks, concurrency
from channels_wsdeny.authentication import BearerAuthentication, SessionAuthentication
from channels_wsdeny.conf import AUTHENTICATION_MIDDLEWARE, MIRROR, SESSION_MIDDLEWARE
from channels_wsdeny.decorators import public, require
from channels_wsdeny.exceptions import HookError
from channels_wsdeny.handlers import base
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated
from tests.support.clients import GUARD, Handshake, fetch, knock, opened, websocket_scope
from tests.support.mirror import made, plain
from tests.support.policies import AsyncCheck, Check, accept, raising, raising_app
from tests.support.site import page
from tests.support.sockets import Server, consumer, disconnect, errors, no_task_left
from tests.support.threads import outlast, until
from tests.support.transports import AsyncOnly, Middleware, SyncOnly
from tests.support.wrappers import Function, Wrapper

pytestmark = pytest.mark.django_db
#: Each list has a module of its own: what a dotted path names is remembered.
_numbers = itertools.count()


@pytest.fixture
def use(settings, monkeypatch):
    """A function that has these middleware run around handshakes, in this order; it returns their dotted paths."""

    def use(*middleware, **wsdeny):
        module = ModuleType(f"middleware_of_a_test_{next(_numbers)}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        paths = []
        for number, each in enumerate(middleware):
            name = each if isinstance(each, str) else f"{module.__name__}.m{number}"
            setattr(module, f"m{number}", each)
            paths.append(name)
        settings.CHANNELS_WSDENY = {"MIDDLEWARE": paths, **wsdeny}
        return paths

    return use


def split(**methods):
    """A class of `MiddlewareMixin` with these ``process_…`` methods."""
    return type("Split", (MiddlewareMixin,), {f"process_{name}": staticmethod(f) for name, f in methods.items()})


def around(come=lambda request: None, go=lambda request, response: response, base=SyncOnly):
    """A middleware with a ``__call__`` of its own, that is synchronous, asynchronous or both."""
    return type("Around", (base,), {"come": staticmethod(come), "go": staticmethod(go)})


BASES = {"sync": SyncOnly, "async": AsyncOnly, "both": Middleware}
KINDS = ["split", *BASES]


def middleware(kind, come=lambda request: None, go=lambda request, response: response):
    return split(request=come, response=go) if kind == "split" else around(come, go, BASES[kind])


every_kind = pytest.mark.parametrize("kind", KINDS)
every_call = pytest.mark.parametrize("kind", BASES)


async def hurrying(application, gate):
    """The answer to a handshake that came as far as `gate`; with little time, one may be given up before that."""
    answer = await knock(application, "/")
    while not gate.came:
        answer = await knock(application, "/")
    return answer


# The order, as around a view

ACTS = ["nothing", "answer", "raise", "raise late", "replace", "deny", "answer view", "raise view", "answer exception"]
ENDPOINTS = {"answers": None, "denies": PermissionDenied, "is missing": Http404, "fails": KeyError}


def recorder(number, kind, act, ran):
    """A middleware that notes what is called, and acts."""

    def teapot():
        return HttpResponse(f"{number}", status=418, headers={f"X-By-{number}": act})

    def come(request):
        ran.append((number, "request"))
        if act == "raise":
            raise Http404
        return teapot() if act == "answer" else None

    def go(request, response):
        ran.append((number, "response", 101 if response.status_code == 200 else response.status_code))
        response[f"X-Seen-By-{number}"] = "1"
        response.set_cookie(f"seen-by-{number}", "1")
        if act == "raise late":
            raise PermissionDenied
        if act == "deny":
            response.status_code = 403
        return teapot() if act == "replace" else response

    def view(self, request, view, args, kwargs):
        ran.append((number, "view", kwargs))
        if act == "raise view":
            raise Http404
        return teapot() if act == "answer view" else None

    def exception(self, request, error):
        ran.append((number, "exception", type(error)))
        return teapot() if act == "answer exception" else None

    def on_loop(method):
        async def process(*arguments):
            return method(*arguments)

        return process

    made, keep = middleware(kind, come, go), on_loop if kind == "async" else lambda method: method
    made.process_view, made.process_exception = keep(view), keep(exception)
    return made


def endpoints(error, ran):
    """A view and a consumer that answer, or raise."""

    def come(kwargs):
        ran.append(("endpoint", kwargs))
        if error is not None:
            raise error

    def view(request, **kwargs):
        return come(kwargs) or HttpResponse()

    made = consumer(lambda self: come(self.scope["url_route"]["kwargs"]) or self.accept())
    return view, public(made).as_asgi()


async def compare(use, settings, ran, chosen, endpoint):
    """Ask a view and a consumer behind the same middleware; returns what ran and what was answered for each."""
    view, app = endpoints(ENDPOINTS[endpoint], ran)
    settings.ROOT_URLCONF, settings.DEBUG_PROPAGATE_EXCEPTIONS = (path("<slug:room>/", view),), False
    stack = DenyMiddlewareStack(URLRouter([path("<slug:room>/", app)]))
    settings.MIDDLEWARE = use(*(recorder(number, *each, ran) for number, each in enumerate(chosen)))
    found = []
    for ask, application in ((fetch, ASGIHandler()), (knock, stack)):
        ran.clear()
        answer = await ask(application, "/lobby/")
        status = 101 if answer.status == 200 else answer.status
        own = sorted((name.lower(), value) for name, value in answer.headers if name[:2].lower() in {"x-", "se"})
        found.append(([*ran], status, own))
    return found


@every_kind
@pytest.mark.parametrize("act", ACTS)
async def test_a_middleware_does_on_a_handshake_what_it_does_on_a_view(kind, act, use, settings, ran):
    for endpoint in ENDPOINTS:
        view, handshake = await compare(use, settings, ran, [("sync", "nothing"), (kind, act)], endpoint)
        assert handshake == view


@every_kind
async def test_where_no_route_matches_process_exception_is_not_called(kind, use, settings, ran):
    settings.ROOT_URLCONF, found = (), []
    settings.MIDDLEWARE = use(recorder(0, kind, "answer exception", ran))
    stacks = [DenyMiddlewareStack(router) for router in (URLRouter([]), Wrapper(URLRouter([])))]
    for ask, application in ((fetch, ASGIHandler()), *((knock, stack) for stack in stacks)):
        ran.clear()
        answer = await ask(application, "/lobby/")
        found.append(([*ran], answer.status))
    assert found == [([(0, "request"), (0, "response", 404)], 404)] * 3


async def test_middleware_of_all_kinds_run_in_the_order_of_a_view(use, settings, ran):
    chance = random.Random(5)
    for _ in range(40):
        chosen = [(chance.choice(KINDS), chance.choice(ACTS)) for _ in range(chance.randint(2, 5))]
        view, handshake = await compare(use, settings, ran, chosen, chance.choice([*ENDPOINTS]))
        assert handshake == view, chosen


# What a middleware may answer


def unrendered():
    response = page("no")
    response.status_code = 403
    return response


@every_kind
@pytest.mark.parametrize(
    ("come", "go", "status"),
    [
        (lambda request: HttpResponse("a page"), None, 500),
        (lambda request: HttpResponse(status=101), None, 500),
        (lambda request: "no response", None, 500),
        (None, lambda request, response: HttpResponse("fine"), 500),
        (None, lambda request, response: HttpResponse(status=101), 500),
        (None, lambda request, response: None, 500),
        (None, lambda request, response: asyncio.sleep(0), 500),
        (None, raising(lambda: Deny(response=unrendered())), 403),
        (None, lambda request, response: setattr(response, "status_code", 200) or response, 500),
        (None, lambda request, response: setattr(response, "status_code", 101) or response, 500),
        (None, lambda request, response: HttpResponse(status=418), 418),
        (lambda request: HttpResponse(status=302, headers={"Location": "/"}), None, 302),
        (lambda request: 1 / 0, None, 500),
        (None, lambda request, response: 1 / 0, 500),
        (raising(asyncio.CancelledError), None, 500),
        (None, raising(asyncio.CancelledError), 500),
    ],
)
async def test_no_middleware_lets_in_whom_a_policy_denies(kind, come, go, status, use):
    keep = lambda *given: given[1] if len(given) > 1 else None  # noqa: E731
    use(middleware(kind, come or keep, go or keep))
    asked = []
    app = consumer(lambda self: asked.append(self)).as_asgi()
    answer = await knock(DenyMiddlewareStack(require(DenyAll())(app)), "/")
    assert (answer.status, asked) == (status, [])
    assert answer.messages[0]["type"] == "websocket.http.response.start"


def twice(get_response):
    def middleware(request):
        get_response(request)
        return get_response(request)

    return middleware


def with_another_request(get_response):
    return lambda request: get_response(type(request)(request.scope))


@async_only_middleware
def async_twice(get_response):
    async def middleware(request):
        await get_response(request)
        return await get_response(request)

    return middleware


@async_only_middleware
def in_another_task(get_response):
    async def middleware(request):
        return await asyncio.create_task(get_response(request))

    return middleware


class FromAStep(MiddlewareMixin):
    def process_request(self, request):
        return self.get_response(request)


@pytest.mark.parametrize("misuse", [twice, with_another_request, async_twice, in_another_task, FromAStep])
async def test_a_response_is_got_once_for_the_very_request(misuse, use, caplog):
    use(misuse)
    with caplog.at_level(logging.ERROR, "django.request"):
        async with no_task_left():
            assert (await knock(DenyMiddlewareStack(public(accept)), "/")).status == 500
    assert {type(error) for error in errors(caplog)} == {HookError}


async def test_no_response_is_got_after_the_answer(use):
    kept = []
    use(lambda get_response: lambda request: kept.append(partial(get_response, request)) or HttpResponse(status=403))
    assert (await knock(DenyMiddlewareStack(public(accept)), "/")).status == 403
    with pytest.raises(HookError, match="after its answer"):
        kept.pop()()


@every_kind
@pytest.mark.parametrize("when", ["come", "go"])
async def test_a_middleware_that_hangs_is_a_503(kind, when, use, hurry, gate):
    @async_only_middleware
    def hanging(get_response):
        async def middleware(request):
            if when == "go":
                await get_response(request)
            await asyncio.Event().wait()

        return middleware

    hangs = hanging if kind == "async" else middleware("sync" if kind == "both" else kind, **{when: gate})
    use(hangs, POLICY_TIMEOUT=0.05)
    assert (await knock(DenyMiddlewareStack(public(accept)), "/")).status == 503
    gate.open()
    await until(lambda: gate.came == gate.left)


def noting(begun, ended, hold=lambda: None):
    """A middleware that notes when a request comes, and when it is over and by what error; it may be held before."""

    def make(get_response):
        def middleware(request):
            begun.append(True)
            hold()
            try:
                return get_response(request)
            finally:
                ended.append(sys.exc_info()[0])

        return middleware

    return make


async def test_a_middleware_whose_request_was_given_up_is_told_when_it_asks_for_the_response(use, hurry, gate):
    ended, asked = [], []
    use(noting([], ended, gate), POLICY_TIMEOUT=0.05)
    async with no_task_left():
        stack = DenyMiddlewareStack(public(consumer(asked.append).as_asgi()))
        assert (await hurrying(stack, gate)).status == 503
        gate.open()
        await until(lambda: len(ended) == gate.came)
    assert ({*ended}, asked) == ({asyncio.CancelledError}, [])


async def test_a_client_that_leaves_ends_a_middleware_that_waits_for_the_consumer(use):
    ended, server = [], Server()
    use(noting([], ended))
    begun = asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        begun.set()
        await receive()

    async with no_task_left():
        task = server.begin(DenyMiddlewareStack(public(app)))
        await begun.wait()
        server.events.put_nowait(disconnect())
        assert await task is None
        await until(lambda: ended)


# Threads


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("kinds", [["sync"], ["sync", "sync"], ["sync", "async", "sync"], ["split", "sync", "split"]])
async def test_many_handshakes_at_once_end_although_each_holds_a_thread_and_its_policies_need_one(size, kinds, use):
    use(*map(middleware, kinds), POOL_SIZE=size, POLICY_TIMEOUT=GUARD)
    policy = Check(lambda request: time.sleep(0.001) or True) & AsyncCheck(lambda request: True)
    app = URLRouter([path("", Wrapper(require(policy & Check(lambda request: True))(accept)))])
    answers = await asyncio.gather(*(knock(DenyMiddlewareStack(app), "/") for _ in range(50)))
    assert [answer.status for answer in answers] == [101] * 50


async def test_a_synchronous_middleware_holds_its_thread_until_the_accept_and_no_longer(use):
    accepting = asyncio.Event()

    async def connect(self):
        await accepting.wait()
        await self.accept()

    use(middleware("sync"), POOL_SIZE=1)
    stack = DenyMiddlewareStack(public(consumer(connect).as_asgi()))
    first, second = (Handshake(stack, websocket_scope("/")) for _ in range(2))
    connecting = [asyncio.create_task(each.connect()) for each in (first, second)]
    pool = concurrency.get_pool()
    await until(lambda: pool._waiting)
    accepting.set()
    assert [(await each).status for each in connecting] == [101, 101]
    assert (len(pool._busy), len(pool._waiting)) == (0, 0)  # while both are open
    await first.leave()
    await second.leave()


async def test_a_slow_consumer_is_no_thread_that_hangs(use, settings, caplog, hurry):
    use(middleware("sync"), POOL_SIZE=1)
    connecting, opened = asyncio.Event(), asyncio.Event()

    async def connect(self):
        connecting.set()
        await opened.wait()
        await self.accept()

    first = asyncio.create_task(knock(DenyMiddlewareStack(public(consumer(connect).as_asgi())), "/"))
    await connecting.wait()
    settings.CHANNELS_WSDENY = {**settings.CHANNELS_WSDENY, "POLICY_TIMEOUT": 0.05}
    for _ in range(2):  # the second one after more than that time
        assert (await knock(DenyMiddlewareStack(public(accept)), "/")).status == 503  # no thread came free
    opened.set()
    assert (await first).status == 101
    assert "another one takes its place" not in caplog.text.lower()


@pytest.mark.parametrize("kinds", [["sync"], ["split", "both", "sync", "split"], ["async", "sync"]])
async def test_everything_before_the_accept_is_in_one_thread(kinds, use, monkeypatch):
    threads, come = set(), lambda request: threads.add(concurrency.threading.get_ident())
    go = lambda request, response: [response, come(request)][0]  # noqa: E731
    use(*(middleware(kind, *((come, go) if kind in {"sync", "split"} else ())) for kind in kinds))
    policy = Check(lambda request: come(request) or True)
    mixed = policy & AsyncCheck(lambda request: True) & Check(lambda request: come(request) or True)
    assert (await knock(DenyMiddlewareStack(require(mixed)(accept)), "/")).status == 101
    if "split" not in kinds:
        assert len(threads) == 1


async def test_what_is_raised_in_the_thread_of_a_middleware_comes_out(use):
    use(middleware("sync"))
    policy = AsyncCheck(lambda request: concurrency.run_in_threadpool(raising(Http404)))
    assert (await knock(DenyMiddlewareStack(require(policy)(accept)), "/")).status == 404


async def test_the_consumer_has_no_part_of_the_thread(use):
    seen = []

    async def connect(self):
        await self.accept()
        seen.append(concurrency._in_pool.get())
        seen.append(await concurrency.run_in_threadpool(lambda: "pool"))
        seen.append(await sync_to_async(lambda: "Django")())

    use(middleware("sync"), middleware("both"), middleware("sync"), POOL_SIZE=1)
    assert (await knock(DenyMiddlewareStack(public(consumer(connect)).as_asgi()), "/")).status == 101
    assert seen == [False, "pool", "Django"]


@pytest.mark.parametrize("base", [WebsocketConsumer, AsyncWebsocketConsumer])
@every_call
async def test_consumers_of_both_kinds_query_before_they_accept(base, kind, use):
    def count(request, response=None):
        get_user_model().objects.count()
        return response

    def connect(self):
        count(None)
        self.accept()

    async def aconnect(self):
        await get_user_model().objects.acount()
        await self.accept()

    use(middleware(kind, *((count, count) if kind == "sync" else ())))
    made = consumer(connect if base is WebsocketConsumer else aconnect, base)
    app = require(Check(lambda request: count(request) is None))(made).as_asgi()
    async with asyncio.timeout(GUARD):
        assert (await knock(DenyMiddlewareStack(app), "/")).status == 101


@every_call
async def test_a_policy_that_hangs_is_a_503_and_its_thread_is_told_once_it_comes_back(kind, use, hurry, gate):
    begun, ended = [], []
    use(middleware(kind), noting(begun, ended), POLICY_TIMEOUT=0.05)
    async with no_task_left():
        assert (await hurrying(DenyMiddlewareStack(require(Check(gate))(accept)), gate)).status == 503
        assert len(ended) < len(begun)
        gate.open()
        await until(lambda: len(ended) == len(begun))


@pytest.mark.parametrize("where", ["policy", "around hook"])
@pytest.mark.parametrize("kinds", [["sync"], ["sync", "async", "sync"]])
async def test_a_request_that_is_given_up_leaves_its_thread_to_the_next(kinds, where, use, hurry, monkeypatch):
    monkeypatch.setattr(base, "_GRACE", 0.01)
    closing, came, ended = asyncio.Event(), [], []
    use(*map(middleware, kinds), noting([], ended), POOL_SIZE=1, POLICY_TIMEOUT=0.05)

    async def hang(*arguments):
        came.append(True)
        return await outlast(closing)

    hooks = made("around", hang) if where == "around hook" else None
    hanging = require(AsyncCheck(hang) if hooks is None else AllowAny())(accept)
    async with no_task_left():
        while not came:  # With little time, one may be given up before that.
            server = Server()
            running = server.begin(DenyMiddlewareStack(hanging, hooks=hooks))
            await until(partial(is_denied, server))
        use(middleware("sync"), POOL_SIZE=1)
        answer, goes_on = await knock(DenyMiddlewareStack(public(accept)), "/"), not running.done()
        closing.set()
        await running
    assert (answer.status, goes_on) == (101, True)
    assert (server.sent[0]["status"], {*ended}) == (503, {asyncio.CancelledError})


def is_denied(server):
    return len(server.sent) == 2


@async_only_middleware
def giving_up(get_response):
    async def middleware(request):
        try:
            async with asyncio.timeout(None) as limit:
                request.ctx.limit = limit
                return await get_response(request)
        except TimeoutError:
            return HttpResponse(status=504)

    return middleware


async def test_a_middleware_that_gives_up_ends_those_inside_it_and_the_consumer(use):
    ended = []

    async def app(scope, receive, send):
        try:
            await receive()
            scope["wsdeny"].request.ctx.limit.reschedule(0)
            await asyncio.Event().wait()
        finally:
            ended.append("consumer")

    use(giving_up, around(go=lambda request, response: ended.append("never")))
    async with no_task_left():
        assert (await knock(DenyMiddlewareStack(public(app)), "/")).status == 504
    await until(lambda: not concurrency.get_pool()._busy)
    assert ended == ["consumer"]


async def test_a_synchronous_middleware_may_run_coroutines(use):
    seen = []

    async def look(request):
        await asyncio.sleep(0)
        seen.append((await request.auser()).is_anonymous)
        return await sync_to_async(lambda: None)()

    def come(request, response=None):
        async_to_sync(look)(request)
        return response

    use(*(middleware(kind, come, come) for kind in ("sync", "split", "sync")), POOL_SIZE=1)
    policy = Check(lambda request: come(request) is None)
    async with asyncio.timeout(GUARD):
        assert (await knock(DenyMiddlewareStack(require(policy)(accept)), "/")).status == 101
    assert seen == [True] * 7


# The context


def activate(language):
    return lambda request: translation.activate(language)


@every_kind
async def test_policies_and_consumers_have_the_language_that_a_middleware_sets_and_no_later_request_has(kind, use):
    seen, choosing = [], ["de"]

    def look(request=None):
        seen.append(translation.get_language())
        return True

    async def connect(self):
        look()
        await sync_to_async(look)()
        await self.accept()

    use(middleware(kind, lambda request: translation.activate(choosing[0]) if choosing else None), POOL_SIZE=1)
    stack = DenyMiddlewareStack(require(Check(look) & AsyncCheck(look))(consumer(connect).as_asgi()))
    await asyncio.create_task(knock(stack, "/"))
    choosing.clear()
    await asyncio.create_task(knock(stack, "/"))
    assert seen == ["de"] * 4 + ["en"] * 4


def overriding(get_response):
    def middleware(request):
        with translation.override("fr"):
            return get_response(request)

    return middleware


async def test_what_a_middleware_sets_while_it_waits_is_undone_outside_it_and_stays_for_the_consumer(use):
    after, outside = [], []
    look = lambda request, response: outside.append(translation.get_language()) or response  # noqa: E731
    use(middleware("async", go=look), overriding)

    async def receive(self, text_data):
        after.append(translation.get_language())
        await self.send(text_data)

    async with opened(DenyMiddlewareStack(public(consumer(receive=receive)).as_asgi())) as handshake:
        await handshake.send("a")
        await handshake.next()
        assert (after, outside) == (["fr"], ["en"])


@every_kind
async def test_a_middleware_sees_after_the_response_what_hooks_inside_it_have_set(kind, use):
    seen, hooks = [], made("request", lambda request: translation.activate("es"))
    use(middleware(kind, go=lambda request, response: seen.append(translation.get_language()) or response))
    await knock(DenyMiddlewareStack(public(accept), hooks=hooks), "/")
    assert seen == ["es"]


# User, session, route


@every_kind
async def test_the_user_and_session_that_a_middleware_sets_are_those_of_policies_and_the_consumer(kind, use, users):
    session, found = import_module(site_settings.SESSION_ENGINE).SessionStore(), []

    def become(request):
        request.user, request.session = users["alice"], session

    def connect(self):
        found.append((self.scope["user"].username, self.scope["session"] is session))
        return self.accept()

    use(middleware(kind, become))
    policy = IsAuthenticated() & Check(lambda request: request.user.username == "alice")
    assert (await knock(DenyMiddlewareStack(require(policy)(consumer(connect).as_asgi())), "/")).status == 101
    assert found == [("alice", True)]


@every_kind
@pytest.mark.parametrize(("policy", "changed"), [(AllowAny(), {"consumer", "middleware"}), (DenyAll(), {"middleware"})])
async def test_what_the_consumer_and_then_a_middleware_change_in_the_session_is_saved_and_its_cookie_set(
    kind, policy, changed, use, settings
):
    def change(request, response):
        request.session["middleware"] = 1
        return response

    async def app(scope, receive, send):
        scope["session"]["consumer"] = 1
        await accept(scope, receive, send)

    use(middleware(kind, go=change))
    answer = await knock(DenyMiddlewareStack(require(policy)(app)), "/")
    name, _, key = answer.header("set-cookie").partition(";")[0].partition("=")
    store = import_module(settings.SESSION_ENGINE).SessionStore(key)
    assert name == settings.SESSION_COOKIE_NAME
    assert await concurrency.run_in_threadpool(lambda: {*store.keys()}) == changed


async def test_process_view_may_change_the_arguments_of_the_route_and_knows_the_endpoint(use):
    seen = []
    note = lambda self: seen.append(self.scope["url_route"]["kwargs"]) or self.accept()  # noqa: E731
    app = public(consumer(note)).as_asgi()

    def process_view(request, view, args, kwargs):
        seen.append(view is app)
        kwargs["room"] = kwargs["room"].upper()

    use(split(view=process_view))
    await knock(DenyMiddlewareStack(URLRouter([path("<slug:room>/", app)])), "/lobby/")
    assert seen == [True, {"room": "LOBBY"}]


async def test_process_view_is_called_behind_a_wrapper_once_the_route_is_known_and_not_without_one(use):
    seen = []
    use(split(view=lambda request, view, args, kwargs: seen.append(kwargs) or HttpResponse(status=418)))
    for router in (URLRouter([]), Wrapper(URLRouter([path("<slug:room>/", public(accept))]))):
        answer = await knock(DenyMiddlewareStack(router), "/lobby/")
        assert (answer.status, seen) == ((418, [{"room": "lobby"}]) if isinstance(router, Wrapper) else (404, []))


@every_kind
async def test_wrong_credentials_are_a_401_where_a_middleware_looks_at_the_user(kind, use):
    def verify(token):
        raise Deny(401, "No such token.")

    use(middleware(kind if kind != "async" else "sync", lambda request: str(request.user) and None))
    stack = DenyMiddlewareStack(public(accept), authentication=[BearerAuthentication(verify)])
    answer = await knock(stack, "/", headers=[(b"authorization", b"Bearer x")])
    assert (answer.status, answer.problem["code"]) == (401, "invalid_credentials")
    assert answer.header("www-authenticate").startswith("Bearer")


@pytest.mark.parametrize("raised", [Deny(402), PermissionDenied()])
async def test_a_deny_is_an_answer_and_no_exception_for_a_middleware(raised, use):
    seen = []
    use(split(exception=lambda request, error: seen.append(error) or HttpResponse(status=418)))

    status = (await knock(DenyMiddlewareStack(public(raising_app(raised))), "/")).status
    assert (status, seen) == ((402, []) if isinstance(raised, Deny) else (418, [raised]))


# Beside the rest of the package


async def test_hooks_do_not_see_what_a_middleware_answers_before_them(use, ran):
    hooks = Hooks()
    hooks.on_request(lambda request: ran.append("request"))
    hooks.on_response(lambda request, response: ran.append("response"))
    stack = DenyMiddlewareStack(public(accept), hooks=hooks)
    for kind in KINDS:
        use(middleware(kind, lambda request: HttpResponse(status=418)))
        assert (await knock(stack, "/")).status == 418
    assert ran == []
    use(middleware("split"))
    assert (await knock(stack, "/")).status == 101
    assert ran == ["request", "response"]


async def test_hooks_of_an_outer_stack_see_what_a_middleware_of_an_inner_one_answers(use, settings, ran):
    (inner,) = use(split(request=lambda request: HttpResponse(status=418)))
    settings.CHANNELS_WSDENY = {}
    hooks = made("response", lambda request, response: ran.append(response.status_code))
    wrapped = Wrapper(DenyMiddlewareStack(public(accept), middleware=[inner]))
    assert (await knock(DenyMiddlewareStack(wrapped, hooks=hooks), "/")).status == 418
    assert ran == [418]


async def test_the_host_is_checked_before_any_middleware(use, settings, ran):
    settings.ALLOWED_HOSTS = ["example.org"]
    use(split(request=lambda request: ran.append("ran")))
    assert (await knock(DenyMiddlewareStack(public(accept)), "/", headers=[(b"host", b"evil")])).status == 400
    assert ran == []


@every_kind
@pytest.mark.parametrize("url", ["/", "/nowhere/"])
async def test_a_denial_of_an_anonymous_client_passes_the_middleware_too(kind, url, use, settings):
    paths = use(middleware(kind, go=lambda request, response: response.__setitem__("X-Mark", "1") or response))
    router = URLRouter([path("", require(IsAuthenticated())(accept))])
    for given in ({}, {"middleware": paths}):
        assert (await knock(DenyMiddlewareStack(router, **given), url)).header("x-mark") == "1"
        settings.CHANNELS_WSDENY = {}
        assert (await knock(DenyMiddlewareStack(router), url)).header("x-mark") is None
    settings.CHANNELS_WSDENY = {"MIDDLEWARE": paths}
    assert (await knock(DenyMiddlewareStack(router, middleware=[]), url)).header("x-mark") is None


async def test_the_nearest_stack_that_names_middleware_counts(use, settings, ran):
    a, b = use(split(request=lambda request: ran.append("a")), split(request=lambda request: ran.append("b")))
    settings.CHANNELS_WSDENY = {"MIDDLEWARE": [a]}

    async def asked(outer, inner, wrap=lambda app: app):
        ran.clear()
        app = wrap(DenyMiddlewareStack(public(accept), middleware=inner))
        assert (await knock(DenyMiddlewareStack(app, middleware=outer), "/")).status == 101
        return "".join(ran)

    cases = [(None, None), ([b], None), ([b], [a]), ([b], []), (None, [b]), ([a, b], None)]
    assert [await asked(*case) for case in cases] == ["a", "b", "a", "", "b", "ab"]
    # A stack that only a wrapper leads to is not known before: its own run as well, each list once.
    assert [await asked([a], [b], Wrapper), await asked([a], [a], Wrapper)] == ["ab", "a"]


async def test_a_middleware_is_made_once(use, ran):
    class Made(MiddlewareMixin):
        def __init__(self, get_response):
            super().__init__(get_response)
            time.sleep(0.01)
            ran.append("made")

    use(Made, POOL_SIZE=4)
    stack = DenyMiddlewareStack(public(accept))
    await asyncio.gather(*(knock(stack, "/") for _ in range(10)))
    assert ran == ["made"]


async def test_a_middleware_is_made_anew_for_other_settings(use, settings):
    paths = use("django.middleware.security.SecurityMiddleware")
    stack = DenyMiddlewareStack(public(accept), middleware=paths)
    for seconds in (60, 120):
        settings.SECURE_HSTS_SECONDS = seconds
        answer = await knock(stack, "/", scheme="wss")
        assert answer.header("strict-transport-security") == f"max-age={seconds}"


async def test_a_middleware_that_hangs_as_it_is_made_is_a_503(use, gate):
    use(type("Hangs", (MiddlewareMixin,), {"__init__": gate}), POLICY_TIMEOUT=0.05)
    assert (await knock(DenyMiddlewareStack(public(accept)), "/")).status == 503
    gate.open()
    await until(lambda: gate.came == gate.left)


async def test_a_middleware_may_query_as_it_is_made_or_say_that_it_is_not_used(use):
    class Querying(MiddlewareMixin):
        def __init__(self, get_response):
            super().__init__(get_response)
            get_user_model().objects.count()

    def unused(self, get_response):
        raise MiddlewareNotUsed

    use(Querying, *(type("Unused", (base,), {"__init__": unused}) for base in (SyncOnly, MiddlewareMixin)))
    assert (await knock(DenyMiddlewareStack(public(accept)), "/")).status == 101


BROKEN = {
    "missing": "nowhere.Middleware",
    "returns None": lambda get_response: None,
    "raises": type("Raises", (MiddlewareMixin,), {"__init__": lambda self, get_response: 1 / 0}),
    "no callable": 3,
    "neither": type("Neither", (), {"sync_capable": False, "async_capable": False}),
    **{path.rpartition(".")[2]: path for path in (SESSION_MIDDLEWARE, AUTHENTICATION_MIDDLEWARE, MIRROR)},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_a_middleware_that_cannot_be_used_denies_every_handshake(broken, use, caplog):
    use(middleware("split"), broken)
    asked = []
    for app in (public(consumer(asked.append).as_asgi()), URLRouter([])):
        assert (await knock(DenyMiddlewareStack(app), "/")).status == 500
    assert asked == []
    assert {type(error) for error in errors(caplog)} == {ImproperlyConfigured}


class Mine(SessionMiddleware):
    """Refused as its base is."""


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        *((given, TypeError, "list of dotted paths") for given in ("a.B", [3], [None])),
        *(
            ([path], ImproperlyConfigured, path.rpartition(".")[2])
            for path in ("nowhere.Middleware", SESSION_MIDDLEWARE, AUTHENTICATION_MIDDLEWARE, MIRROR)
        ),
        ([f"{__name__}.Mine"], ImproperlyConfigured, "SessionMiddleware"),
    ],
)
def test_a_stack_refuses_what_cannot_run_around_a_handshake(given, error, message):
    with pytest.raises(error, match=message):
        DenyMiddlewareStack(accept, middleware=given)


async def test_middleware_are_for_handshakes_alone(use, ran):
    use(split(request=lambda request: ran.append("ran")))
    assert (await fetch(DenyMiddlewareStack(plain), "/")).status == 200
    assert ran == []


# Real middleware

DJANGOS = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_djangos_own_middleware_put_the_headers_of_a_view_on_a_handshake(endpoint, scheme, use, settings, ran):
    settings.SECURE_SSL_REDIRECT, settings.SECURE_HSTS_SECONDS = True, 60
    settings.SESSION_COOKIE_SECURE = False
    view, app = endpoints(ENDPOINTS[endpoint], ran)
    settings.ROOT_URLCONF = (path("<slug:room>/", view),)
    settings.MIDDLEWARE = [SESSION_MIDDLEWARE, *use(*DJANGOS)]
    headers = [(b"host", b"testserver"), (b"accept-language", b"de")]
    page = await fetch(ASGIHandler(), "/lobby/", scheme=scheme, headers=headers)
    stack = DenyMiddlewareStack(URLRouter([path("<slug:room>/", app)]))
    answer = await knock(stack, "/lobby/", scheme=scheme.replace("http", "ws"), headers=headers)
    assert answer.status == (101 if page.status == 200 else page.status)
    names = ["location", "strict-transport-security", "x-frame-options", "referrer-policy", "x-content-type-options"]
    names.append("content-language")
    found, expected = ({name.lower(): value for name, value in each.headers} for each in (answer, page))
    assert {name: found.get(name) for name in names} == {name: expected.get(name) for name in names}
    assert ("location" in found) == (scheme == "http")
    assert found.get("content-language") == (None if scheme == "http" else "de")


@every_kind
@pytest.mark.parametrize("negotiated", [True, False])
async def test_a_denial_is_in_the_language_that_a_middleware_chooses(kind, negotiated, use, settings):
    settings.MIDDLEWARE = ["django.middleware.locale.LocaleMiddleware"] if negotiated else []
    for chosen in (middleware(kind, activate("de")), split(request=activate("de"))):
        use(chosen)
        answer = await knock(DenyMiddlewareStack(accept), "/", headers=[(b"accept-language", b"fr")])
        assert (answer.status, answer.problem["detail"]) == (401, "Bitte melden Sie sich zuerst an.")


async def test_the_login_required_middleware_redirects_as_on_a_view(use, settings, users):
    settings.LOGIN_URL = "/login/"
    use("django.contrib.auth.middleware.LoginRequiredMiddleware")
    stack = DenyMiddlewareStack(URLRouter([path("", public(accept))]))
    answer = await knock(stack, "/")
    assert (answer.status, answer.header("location")) == (302, "/login/?next=/")
    assert (await knock(stack, "/", user=users["alice"])).status == 101


# The last is a public application that enters a stream, and accepts if that does.
@pytest.mark.parametrize("enter", [lambda app: app, Wrapper, BaseMiddleware, lambda app: public(Function(app))])
@every_kind
async def test_whom_a_middleware_does_not_know_is_not_known_to_other_authentication_classes_inside(
    kind, enter, use, headers_of
):
    use(middleware(kind, come=lambda request: setattr(request, "user", AnonymousUser())))
    bearer = BearerAuthentication(lambda token: None)
    inner = DenyMiddlewareStack(require(IsAuthenticated())(accept), authentication=[SessionAuthentication(), bearer])
    assert (await knock(DenyMiddlewareStack(enter(inner)), "/", headers=headers_of("alice"))).status == 401


@every_kind
async def test_a_middleware_that_sets_the_user_is_called_once_for_each_stack_inside_that_tells_another(
    kind, use, headers_of
):
    called = []

    def come(request):
        called.append(request)
        request.user = AnonymousUser()

    use(middleware(kind, come))
    inside = public(accept)
    for _ in range(2):
        classes = [SessionAuthentication(), BearerAuthentication(lambda token: None)]
        inside = BaseMiddleware(DenyMiddlewareStack(inside, authentication=classes))
    assert (await knock(DenyMiddlewareStack(inside), "/", headers=headers_of("alice"))).status == 101
    assert len({id(request) for request in called}) == len(called) == 3


@pytest.mark.django_db(transaction=True)  # Channels' own middleware loads the user in another thread.
@pytest.mark.parametrize("enter", [lambda app: app, Wrapper, BaseMiddleware])
@pytest.mark.parametrize("kind", [*KINDS, "hook"])
async def test_the_middleware_of_channels_inside_does_not_bring_back_whom_one_has_made_anonymous(
    kind, enter, use, headers_of, hooks
):
    def forget(request):
        request.user = AnonymousUser()

    hooks.on_request(forget) if kind == "hook" else use(middleware(kind, come=forget))
    seen = []

    async def connect(self):
        seen.append(self.scope["user"].is_authenticated)
        await self.accept()

    application = AuthMiddlewareStack(enter(public(consumer(connect)).as_asgi()))
    await knock(DenyMiddlewareStack(application, hooks=hooks), "/", headers=headers_of("alice"))
    assert seen == [False]
