"""Wrappers, mixins and hooks by which an application was let in without its policies' permission."""

import asyncio
import contextlib
import functools
from typing import ClassVar

import pytest
from asgiref.sync import sync_to_async
from channels.auth import AuthMiddlewareStack
from channels.consumer import AsyncConsumer
from channels.middleware import BaseMiddleware
from channels.routing import URLRouter
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.urls import path, re_path
from django.utils.functional import SimpleLazyObject

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.authentication import BearerAuthentication
from channels_wsdeny.decorators import login_required, public, require, with_hooks
from channels_wsdeny.policies import AllowAny, DenyAll, IsAuthenticated, IsStaff, IsSuperuser
from tests.support.case_site import Hello
from tests.support.clients import Handshake, cookie_header, fetch, knock, websocket_scope
from tests.support.mirror import made as made_hooks
from tests.support.mirror import plain
from tests.support.policies import AsyncCheck, Check, alice, boss, raising, request_of
from tests.support.policies import accept as listening
from tests.support.scripted import Script
from tests.support.scripted import accept as accept_message
from tests.support.sockets import consumer as made
from tests.support.sockets import decorated
from tests.support.wrappers import Function, Middleware

pytestmark = pytest.mark.django_db


async def accepting(scope, receive, send):
    """Accepts without having received anything."""
    await send({"type": "websocket.accept"})
    await receive()


def consumer(*decorators):
    """A new consumer class that accepts at once."""
    return decorated(*reversed(decorators), base=AsyncConsumer, __call__=lambda self, *args: accepting(*args))


# Paths

PREFIXES = [("", "/"), ("/app", "/app/"), ("/app/", "/app/")]


@pytest.mark.parametrize("slashes", ["", "/", "//", "///"])
@pytest.mark.parametrize(("root_path", "prefix"), PREFIXES)
async def test_slashes_that_channels_leaves_out_do_not_lead_past_what_looks_at_the_path(
    root_path, prefix, slashes, hooks
):
    @hooks.on_request
    def lock(request):
        return Deny(404) if request.path.startswith(f"{prefix}ws/staff/") else None

    by_path = Check(lambda request: not request.path.startswith(f"{prefix}ws/staff/"))
    router = URLRouter(
        [path("ws/staff/", made(lambda self: self.accept()).as_asgi()), path("ws/all/", Hello.as_asgi())]
    )
    scope = {"root_path": root_path}
    for site, status in [
        *(
            (DenyMiddlewareStack(app, default_policy=by_path), 403)
            for app in (router, Middleware(router), Function(router))
        ),
        (DenyMiddlewareStack(router, default_policy=AllowAny(), hooks=hooks), 404),
        (URLRouter([path("ws/staff/", require(by_path)(made()).as_asgi())]), 403),
    ]:
        answer = await knock(site, f"{root_path}{slashes}ws/staff/", **scope)
        assert (answer.status, answer.header("content-type")) == (status, "application/problem+json"), site
    http = require(by_path)(URLRouter([path("ws/staff/", Hello.as_asgi())]))
    assert (await fetch(http, f"{root_path}{slashes}ws/staff/", **scope)).status == 403
    above = "/" if root_path else "/elsewhere"  # Below no prefix there is nothing, also for Channels.
    all_open = DenyMiddlewareStack(router, default_policy=AllowAny())
    assert (await knock(all_open, f"{above}{prefix}ws/staff/", **scope)).status == 404


def in_order(router):
    """A router whose routes are tried in their order, as middleware of the site may leave a scope to the next one."""
    return URLRouter([re_path("", Middleware(router)), re_path("", Middleware(router))])


@pytest.mark.parametrize("wrap", [lambda router: router, Middleware, in_order], ids=["router", "middleware", "order"])
@pytest.mark.parametrize(("first", "second"), [("^ws/", "^staff/"), ("^ws", "^staff/"), ("^ws/", "^staff")])
@pytest.mark.parametrize("spelt", ["/ws/staff/room/", "/ws//staff/room/", "//ws///staff//room/", "/ws//staff///room/"])
async def test_slashes_that_channels_leaves_out_between_routers_do_not_lead_past_what_looks_at_the_path(
    first, second, spelt, wrap, hooks
):
    seen = []
    by_path = Check(lambda request: seen.append(request.path) or not request.path.startswith("/ws/staff/room/"))
    room = made(lambda self: seen.append(self.scope["path"]) or self.accept()).as_asgi()
    inner = URLRouter([re_path(second, URLRouter([path("room/", room), path("all/", room)]))])
    router = URLRouter([re_path(first, wrap(inner))])
    site = DenyMiddlewareStack(router, default_policy=by_path)
    assert ((await knock(site, spelt)).status, seen) == (403, ["/ws/staff/room/"])
    assert (await knock(site, "/ws//staff//all/")).status == 101
    assert seen[1:] == ["/ws/staff/all/"] * 2
    over_http = require(by_path)(URLRouter([re_path(first, URLRouter([path("staff/room/", Hello.as_asgi())]))]))
    assert (await fetch(over_http, "//ws//staff/room/")).status == 403


async def test_slashes_that_channels_leaves_out_keep_nobody_from_a_public_application_over_http(settings):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}
    app = DenyMiddlewareStack(Middleware(URLRouter([path("", public(plain)), path("all/", public(plain))])))
    for root_path, spelt in (("", "//all/"), ("", "all/"), ("/app", "/app"), ("/app", "/app//all/")):
        assert (await fetch(app, spelt, root_path=root_path)).status == 200


async def test_an_http_application_that_is_not_known_gets_the_path_as_it_was_sent():
    """Django has nothing at such a path. A proxy that guards a path would otherwise be led round."""
    seen = []

    async def answer(scope, receive, send):
        seen.append(scope["path"])
        await plain(scope, receive, send)

    for app in (answer, Function(answer), URLRouter([re_path("", Function(answer))])):
        await fetch(public(app) if app is answer else DenyMiddlewareStack(app), "//admin/")
    assert seen == ["//admin/"] * 3


# Policies that set the user


def by_key(kind, *, sets_user):
    """A policy that makes boss the user, as one with keys of its own may."""

    def use_key(request):
        request.user.is_authenticated  # noqa: B018 - it looks who it is
        request.user = boss
        return True

    return type("ByKey", (kind,), {"sets_user": sets_user})(use_key)


@pytest.mark.parametrize("sets_user", [False, True])
@pytest.mark.parametrize(("first", "second"), [(Check, AsyncCheck), (AsyncCheck, Check)])
@pytest.mark.parametrize(
    "combine",
    [
        lambda named, key: [key, named],
        lambda named, key: [named & key],
        lambda named, key: [IsAuthenticated(), named & key],
        lambda named, key: [named & key | DenyAll()],
    ],
    ids=["stacked", "and", "both", "or"],
)
async def test_a_policy_that_sets_the_user_says_so_and_those_before_it_are_asked_about_that_user(
    combine, first, second, sets_user, caplog
):
    asked = []
    named = first(lambda request: asked.append(request.user.username) or request.user is alice)
    policies = combine(named, by_key(second, sets_user=sets_user))
    cls = functools.reduce(lambda made, policy: require(policy)(made), policies, made(lambda self: self.accept()))
    answer = await knock(DenyMiddlewareStack(cls.as_asgi()), "/", user=alice)
    assert (answer.status, asked) == ((403, ["alice", "boss"]) if sets_user else (500, ["alice"]))
    assert sets_user or "ByKey" in caplog.text
    view = functools.reduce(lambda made, policy: require(policy)(made), policies, lambda request: HttpResponse())
    assert (await sync_to_async(view)(request_of(alice))).status_code == answer.status


@pytest.mark.parametrize(("last", "status"), [(alice, 403), (boss, 101)], ids=["another", "the same"])
@pytest.mark.parametrize("kind", [Check, AsyncCheck])
@pytest.mark.parametrize(
    "combine",
    [
        lambda *policies: policies,
        lambda first, staff, second: [first & staff, second],
        lambda first, staff, second: [first & staff & second],
        lambda first, staff, second: [first & (staff & second) | DenyAll()],
    ],
    ids=["stacked", "and", "all", "or"],
)
async def test_what_is_between_two_policies_that_set_the_user_is_asked_about_the_last_one(combine, kind, last, status):
    def setting(user):
        return type("ByKey", (kind,), {"sets_user": True})(lambda request: setattr(request, "user", user) is None)

    policies = combine(setting(boss), IsStaff(), setting(last))
    names = []

    async def name(self):
        names.append(self.scope["user"].username)
        await self.accept()

    cls = functools.reduce(lambda made, policy: require(policy)(made), reversed(policies), made(name))
    answer = await knock(DenyMiddlewareStack(cls.as_asgi()), "/")
    assert (answer.status, names) == (status, ["boss"] if status == 101 else [])
    view = functools.reduce(
        lambda made, policy: require(policy)(made), reversed(policies), lambda request: HttpResponse()
    )
    assert (await sync_to_async(view)(request_of())).status_code == (200 if status == 101 else status)


@pytest.mark.parametrize("kind", [Check, AsyncCheck])
@pytest.mark.parametrize("sets_user", [False, True])
@pytest.mark.parametrize(
    ("combine", "status"),
    [
        (lambda key: key | IsStaff(), 401),
        (lambda key: key & AllowAny() | IsStaff(), 401),
        (lambda key: ~key & IsStaff(), 401),
        (lambda key: key | AllowAny(), 101),
        (lambda key: ~key, 101),
    ],
    ids=["or", "within or", "not", "or anyone", "not alone"],
)
async def test_nobody_gets_in_as_the_user_whom_a_policy_has_set_that_denies(combine, status, sets_user, kind):
    def use_expired_key(request):
        request.user = boss
        return False

    policy = combine(type("ByKey", (kind,), {"sets_user": sets_user})(use_expired_key))
    await nobody_is_named(policy, status)


async def nobody_is_named(policy, status):
    """An anonymous client gets `status` from a socket and a view behind `policy`; let in, it stays anonymous."""
    names = []

    async def name(self):
        names.append(self.scope["user"].username)
        await self.accept()

    answer = await knock(DenyMiddlewareStack(require(policy)(made(name)).as_asgi()), "/")
    assert (answer.status, names) == (status, [""] if status == 101 else [])
    view = require(policy)(lambda request: HttpResponse(f"for {request.user.username}"))
    response = await sync_to_async(view)(request_of())
    assert response.status_code == (200 if status == 101 else status)
    assert status != 101 or response.content == b"for "


@pytest.mark.parametrize("kind", [Check, AsyncCheck])
@pytest.mark.parametrize(
    ("combine", "status"),
    [
        (lambda key: ~key | IsStaff(), 401),
        (lambda key: ~key | AllowAny(), 101),
        (lambda key: ~~~key | IsStaff(), 401),
    ],
    ids=["or", "or anyone", "three"],
)
async def test_nobody_gets_in_as_the_user_whom_a_policy_has_set_that_is_turned_round(combine, status, kind):
    """As of a policy that knows the keys which are locked."""
    await nobody_is_named(combine(by_key(kind, sets_user=True)), status)


@pytest.mark.parametrize("kind", [Check, AsyncCheck])
@pytest.mark.parametrize(
    "combine",
    [
        lambda key: IsStaff() | IsAuthenticated(),
        lambda key: AllowAny() & IsStaff() | IsAuthenticated(),
        lambda key: ~IsStaff(),
        lambda key: key | IsAuthenticated(),
        lambda key: IsAuthenticated() & key | IsAuthenticated(),
        lambda key: ~key,
    ],
    ids=["or", "within or", "not", "a user is set", "a user is set within or", "a user is set within not"],
)
async def test_what_has_told_the_user_stays_where_an_operand_denies(combine, kind, settings):
    def use_expired_key(request):
        request.user, request.auth = boss, "key"
        return False

    policy = combine(type("ByKey", (kind,), {"sets_user": True})(use_expired_key))
    settings.CHANNELS_WSDENY = {"AUTHENTICATION": [BearerAuthentication(lambda token: (alice, token))]}
    told = []

    async def tell(self):
        told.append((self.scope["user"].username, self.scope["wsdeny"].request.auth))
        await self.accept()

    @require(policy)
    def view(request):
        told.append((request.user.username, request.auth))
        return HttpResponse()

    app = DenyMiddlewareStack(require(policy)(made(tell)).as_asgi())
    await knock(app, "/", headers=[(b"authorization", b"Bearer token")])
    await sync_to_async(view)(request_of(headers={"Authorization": "Bearer token"}))
    assert told == [("alice", "token")] * 2


@pytest.mark.parametrize("answer", [False, PermissionDenied()])
@pytest.mark.parametrize("kind", [Check, AsyncCheck])
async def test_a_view_that_is_tried_after_a_denial_is_not_asked_about_a_user_whom_that_has_set(kind, answer):
    def use_expired_key(request):
        request.user = boss
        if answer is not False:
            raise answer
        return answer

    first = require(kind(use_expired_key))(lambda request: HttpResponse())
    second = login_required(lambda request: HttpResponse(f"for {request.user.username}"))

    def view(request):
        response = first(request)
        return second(request) if response.status_code == 403 else response

    assert (await sync_to_async(view)(request_of())).status_code == 401
    assert (await sync_to_async(view)(request_of(alice))).content == b"for alice"


# Applications that are not known


async def test_an_endpoint_with_hooks_alone_does_not_open_the_application_around_it():
    for hooks in (Hooks(), made_hooks("response", lambda request, response: None)):
        endpoint = consumer(with_hooks(hooks))

        async def function(scope, receive, send, endpoint=endpoint):
            await endpoint()(scope, receive, send)

        assert (await knock(DenyMiddlewareStack(function), "/")).status == 401


async def test_a_wrapper_that_passes_on_attributes_is_not_taken_for_its_consumer():
    class PassingOn:
        def __init__(self, app):
            self.app = app

        def __getattr__(self, name):
            return getattr(self.app, name)

        async def __call__(self, scope, receive, send):
            await accepting(scope, receive, send)

    app = PassingOn(consumer(public).as_asgi())
    assert (await knock(DenyMiddlewareStack(app), "/")).status == 401
    assert (await knock(DenyMiddlewareStack(URLRouter([path("", app)])), "/")).status == 401


async def test_a_public_part_that_was_given_up_opens_nothing_for_what_is_tried_next():
    begun = asyncio.Event()

    waits = public(made(lambda self: begun.set())).as_asgi()

    async def tries(scope, receive, send):
        trying = asyncio.ensure_future(waits(scope, receive, send))
        await begun.wait()
        trying.cancel()
        await asyncio.wait({trying})
        await send({"type": "websocket.accept"})

    assert (await knock(DenyMiddlewareStack(tries), "/")).status == 401


@pytest.mark.parametrize("kind", ["receive", "websocket.send", "websocket.accept", "websocket.close"])
async def test_what_is_called_while_a_public_part_is_accepted_is_asked_about_as_after_that(kind, hooks):
    on_its_way, sending = asyncio.Event(), asyncio.Event()

    @hooks.on_response
    async def wait(request, response):
        on_its_way.set()
        await sending.wait()

    accepts = public(made(lambda self: self.accept())).as_asgi()

    async def sends(scope, receive, send):
        part = asyncio.ensure_future(accepts(scope, receive, send))
        await on_its_way.wait()
        sending.set()
        try:
            await (receive() if kind == "receive" else send({"type": kind, "text": "secret"}))
        finally:
            part.cancel()
            await asyncio.wait({part})

    handshake = Handshake(DenyMiddlewareStack(sends, hooks=hooks), websocket_scope("/"))
    assert (await handshake.connect()).status == 101
    message = await handshake.next()
    assert message["type"] == "websocket.close"
    assert message.get("code") == (None if kind == "websocket.close" else 4401)
    await handshake.end()


async def test_route_hooks_run_before_an_application_that_is_not_known_behind_a_route(hooks):
    hooks.on_route(lambda request: Deny(404) if request.resolver_match.kwargs["room"] == "secret" else None)
    for app in (listening, BaseMiddleware(listening)):
        stack = DenyMiddlewareStack(URLRouter([path("<room>/", app)]), hooks=hooks)
        assert (await knock(stack, "/lobby/", user=alice)).status == 101
        assert (await knock(stack, "/secret/", user=alice)).status == 404


class Peek(BaseMiddleware):
    """Receives the first event, and has what is inside receive it again."""

    async def __call__(self, scope, receive, send):
        events = [await receive()]

        async def again():
            return events.pop() if events else await receive()

        await self.inner(scope, again, send)


@pytest.mark.parametrize(
    ("wrap", "rooms"),
    [
        (lambda routed, plain: login_required(URLRouter([path("<room>/", Function(plain))])), ["lobby"]),
        (lambda routed, plain: URLRouter([path("<room>/", login_required(BaseMiddleware(plain)))]), ["lobby"]),
        (lambda routed, plain: login_required(Function(routed)), [None, "lobby"]),
        (lambda routed, plain: URLRouter([re_path("", login_required(Function(routed)))]), [None, "lobby"]),
        (lambda routed, plain: URLRouter([re_path("", login_required(BaseMiddleware(routed)))]), ["lobby"]),
        (lambda routed, plain: URLRouter([re_path("", Peek(routed))]), [None, "lobby"]),
        (lambda routed, plain: URLRouter([path("<room>/", Peek(login_required(Function(plain))))]), ["lobby"]),
    ],
)
async def test_route_hooks_run_once_for_each_route_that_guarded_and_unknown_applications_lead_to(
    wrap, rooms, hooks, ran
):
    @hooks.on_route
    def lock(request):
        room = request.resolver_match.kwargs.get("room")
        ran.append(room)
        return Deny(404) if room == "secret" else None

    routed = URLRouter([path("<room>/", consumer(login_required).as_asgi())])
    stack = DenyMiddlewareStack(wrap(routed, consumer().as_asgi()), hooks=hooks)
    assert ((await knock(stack, "/lobby/", user=alice)).status, ran) == (101, rooms)
    assert (await knock(stack, "/secret/", user=alice)).status == 404


async def test_route_hooks_that_have_run_for_a_consumer_without_policies_do_not_run_for_what_leads_to_it(hooks, ran):
    hooks.on_route(lambda request: ran.append(request.resolver_match.kwargs["room"]))
    room = consumer(with_hooks(Hooks())).as_asgi()
    for guard in (login_required, lambda app: app):
        app = guard(BaseMiddleware(Function(URLRouter([path("<room>/", room)]))))
        stack = DenyMiddlewareStack(URLRouter([re_path("", app)]), hooks=hooks)
        assert ((await knock(stack, "/lobby/", user=alice)).status, ran) == (101, ["lobby"])
        ran.clear()


# What a wrapper changes


@pytest.mark.parametrize(
    ("policy", "values"),
    [
        (Check(lambda request: request.path == "/good"), {"path": "/bad"}),
        (Check(lambda request: request.GET.get("room") == "good"), {"query_string": b"room=bad"}),
        (Check(lambda request: request.headers.get("x-inside") == "yes"), {"headers": []}),
        (Check(lambda request: request.META["REMOTE_ADDR"] == "127.0.0.1"), {"client": ["192.0.2.1", 5]}),
        (Check(lambda request: not request.scope.get("is_banned")), {"is_banned": True}),
    ],
)
async def test_a_policy_sees_what_a_wrapper_changed_in_the_scope(policy, values):
    given = {"path": "/good?room=good", "headers": [(b"x-inside", b"yes")]}
    endpoint = consumer(require(policy)).as_asgi()
    seen = made_hooks("request", lambda request: request.META and None)  # The request is built before the wrapper runs.
    assert (await knock(DenyMiddlewareStack(endpoint), **given)).status == 101
    for app in (Middleware(endpoint, **values), require(policy)(Middleware(endpoint, **values))):
        for stack in (DenyMiddlewareStack(app), DenyMiddlewareStack(app, hooks=seen)):
            assert (await knock(stack, **given)).status == 403


# Contexts


class Hold(BaseMiddleware):
    """Notes the contexts that it has seen."""

    held: ClassVar[list] = []

    async def __call__(self, scope, receive, send):
        self.held.append(scope["wsdeny"])
        await self.inner(scope, receive, send)


@pytest.fixture
def held(monkeypatch):
    """The contexts that `Hold` has seen."""
    monkeypatch.setattr(Hold, "held", [])
    return Hold.held


async def test_the_context_of_another_handshake_is_not_taken_for_ones_own(held):
    endpoints = (consumer(login_required).as_asgi(), DenyMiddlewareStack(consumer().as_asgi()))
    other = Handshake(DenyMiddlewareStack(Hold(login_required(Script()))), websocket_scope("/", user=alice))
    await other.communicator.send_input({"type": "websocket.connect"})
    while not held:
        await asyncio.sleep(0)
    for endpoint in endpoints:
        replaying = Middleware(DenyMiddlewareStack(endpoint), wsdeny=held[0])
        assert (await knock(replaying, "/")).status == 401
    await other.leave()


async def test_the_context_of_an_outer_layer_does_not_open_an_inner_one(held):
    class Replay(BaseMiddleware):
        async def __call__(self, scope, receive, send):
            await self.inner({**scope, "wsdeny": held[0]}, receive, send)

    inner = DenyMiddlewareStack(Replay(DenyMiddlewareStack(consumer().as_asgi())), default_policy=DenyAll())
    assert (await knock(DenyMiddlewareStack(Hold(inner), default_policy=AllowAny()), "/")).status == 403


# Hooks


@pytest.mark.parametrize("kind", ["user", "route"])
async def test_a_policy_is_asked_again_about_what_an_inner_hook_changed(kind, hooks):
    policy = Check(lambda request: (request.user.username, request.resolver_match.kwargs["room"]) == ("alice", "a"))
    if kind == "user":
        hooks.on_request(lambda request: setattr(request, "user", boss))
    else:
        hooks.on_route(lambda request: request.resolver_match.kwargs.update(room="b"))
    inner = BaseMiddleware(consumer(require(policy), with_hooks(hooks)).as_asgi())
    app = URLRouter([path("<room>/", require(policy)(inner))])
    assert (await knock(app, "/a/", user=alice)).status == 403


def setting(user, kind):
    """Options of a stack that sets `user` by a hook of this kind, or by its default policy, and lets staff in."""
    if kind == "policy":
        policy = Check(lambda request: setattr(request, "user", user) or True)
        policy.sets_user = True
        return {"default_policy": policy & IsStaff()}
    return {"default_policy": IsStaff(), "hooks": made_hooks(kind, lambda request: setattr(request, "user", user))}


@pytest.mark.parametrize("kind", ["request", "route", "policy"])
async def test_channels_does_not_replace_a_lazy_user_whom_policies_have_allowed(kind, ran):
    def connect(self):
        ran.append(self.scope["user"].username)
        return self.accept()

    options = setting(SimpleLazyObject(lambda: boss), kind)
    site = DenyMiddlewareStack(AuthMiddlewareStack(made(connect).as_asgi()), **options)
    assert (await knock(site, "/", headers=cookie_header(sessionid="a" * 32))).status == 101
    assert ran == ["boss"]


@pytest.mark.parametrize("kind", ["route", "policy"])
async def test_a_user_who_is_set_once_the_application_runs_with_another_one_opens_nothing(kind, caplog):
    router = URLRouter([path("<room>/", Function(consumer().as_asgi()))])
    assert (await knock(DenyMiddlewareStack(router, **setting(boss, kind)), "/a/", user=alice)).status == 500
    assert "has set another user once" in caplog.text


# Classes


async def test_a_mixin_that_makes_the_instances_by_itself_leaves_a_consumer_guarded():
    class Single:
        def __new__(cls):
            return object.__new__(cls)

    single = type("Consumer", (Single, consumer(login_required)), {})
    assert (await knock(single.as_asgi(), "/")).status == 401


async def test_what_wraps_copies_from_a_public_consumer_does_not_make_another_one_public():
    public_app = consumer(public).as_asgi()
    app = functools.wraps(public_app)(consumer().as_asgi())
    assert (await knock(DenyMiddlewareStack(app), "/")).status == 401


# Users


class Strange:
    """A user whose attributes are methods: they are true, whatever they would return."""

    pk, is_anonymous, is_active, is_authenticated = 5, False, True, True

    def __init__(self, name):
        setattr(self, name, lambda: False)


@pytest.mark.parametrize(
    ("policy", "name"),
    [(IsAuthenticated(), "is_authenticated"), (IsStaff(), "is_staff"), (IsSuperuser(), "is_superuser")],
)
async def test_an_attribute_of_a_user_that_is_a_method_allows_nothing(policy, name):
    stack = DenyMiddlewareStack(consumer(require(policy)).as_asgi())
    assert (await knock(stack, "/", user=Strange(name))).status == 500


def http_consumer():
    return type("Consumer", (Hello,), {})


each_protocol = pytest.mark.parametrize(
    ("ask", "make", "allowed"), [(knock, consumer, 101), (fetch, http_consumer, 200)], ids=["websocket", "http"]
)


@pytest.mark.parametrize("kind", ["request", "route"])
@each_protocol
async def test_a_guard_outside_counts_for_no_other_user_that_a_hook_inside_sets(
    ask, make, allowed, kind, settings, hooks
):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}
    hooks.register(lambda request: setattr(request, "user", AnonymousUser()), kind)
    app = login_required(DenyMiddlewareStack(Middleware(with_hooks(hooks)(make()).as_asgi())))
    assert (await ask(app, "/", user=alice)).status == 401


@pytest.mark.parametrize("wrap", [lambda app: app, Middleware, Function])
@each_protocol
async def test_a_guard_around_the_outermost_stack_does_not_stand_in_for_the_default_policy_of_the_site(
    ask, make, allowed, wrap, settings
):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}
    around, inside = require(AllowAny()), make().as_asgi()
    for app in (
        around(wrap(DenyMiddlewareStack(inside))),
        around(DenyMiddlewareStack(wrap(inside))),
        around(DenyMiddlewareStack(wrap(DenyMiddlewareStack(inside)))),
    ):
        assert (await ask(app, "/")).status == 401
        assert (await ask(app, "/", user=alice)).status == allowed
    for app in (around(inside), around(wrap(inside)), DenyMiddlewareStack(around(wrap(DenyMiddlewareStack(inside))))):
        assert (await ask(app, "/")).status == allowed


@pytest.mark.parametrize("decorated", [lambda app: app, lambda app: DenyMiddlewareStack(app)])
@each_protocol
async def test_a_user_that_middleware_inside_a_guard_sets_is_one_for_the_default_policy_of_the_stack(
    ask, make, allowed, decorated, settings
):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True}
    inner = decorated(make().as_asgi())
    for user, status in ((alice, 403), (boss, allowed)):
        app = DenyMiddlewareStack(require(AllowAny())(Middleware(inner, user=user)), default_policy=IsStaff())
        assert (await ask(app, "/", user=boss)).status == status
    app = DenyMiddlewareStack(login_required(Middleware(inner, user=AnonymousUser())), default_policy=AllowAny())
    assert (await ask(app, "/", user=alice)).status == allowed


# Contexts of other requests


async def around(request, call_next):
    return await call_next(request) if request.user.is_authenticated else HttpResponse(status=403)


@pytest.mark.parametrize("kind", ["around", "request", "route", "response"])
@pytest.mark.parametrize("place", ["outside", "inside"])
async def test_hooks_that_have_run_for_another_http_request_run_for_this_one(kind, place, held, hooks):
    for_users = around if kind == "around" else lambda request, *_: None if request.user.is_authenticated else Deny(403)
    hooks.register(for_users, kind)
    app = public(http_consumer()).as_asgi()
    assert (await fetch(DenyMiddlewareStack(Hold(app), hooks=hooks), "/", user=alice)).status == 200
    replaying = Middleware(DenyMiddlewareStack(app, hooks=hooks), wsdeny=held[0])
    again = replaying if place == "outside" else DenyMiddlewareStack(replaying)
    assert (await fetch(again, "/")).status == 403


class Abort(BaseException):
    """No `Exception`, as what ends tests and greenlets."""


@pytest.mark.parametrize("raised", [Abort, GeneratorExit])
@pytest.mark.parametrize("blocking", [False, True])
@pytest.mark.parametrize("inside", [False, True])
async def test_an_application_that_answers_again_after_response_hooks_raised_is_denied(inside, blocking, raised, hooks):
    async def app(scope, receive, send):
        for _ in range(2):
            with contextlib.suppress(BaseException):
                await send(accept_message())

    hooks.register(raising(raised), "response", blocking=blocking)
    site = DenyMiddlewareStack(with_hooks(hooks)(app) if inside else app, hooks=None if inside else hooks)
    assert (await knock(site, "/", user=boss)).status == 500
