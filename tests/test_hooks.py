"""Hooks: how they are registered, when they run and in which order, on sockets and HTTP alike."""

from __future__ import annotations

import asyncio
import functools
import itertools
import math

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from django.http import HttpResponse

from channels_wsdeny import DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import public, require, with_hooks
from channels_wsdeny.policies import DenyAll
from tests.clients import fetch, knock
from tests.parts import Check, accept

pytestmark = pytest.mark.django_db

KINDS = ["request", "route", "response", "around", "exception"]


async def page(scope, receive, send):
    """An application that answers over HTTP."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1")]})
    await send({"type": "http.response.body", "body": b"page"})


#: Endpoints, and how they are asked.
DOORS = {
    "accept": (knock, public(accept)),
    "denial": (knock, require(DenyAll())(accept)),
    "HTTP": (fetch, public(page)),
    "HTTP denial": (fetch, require(DenyAll())(page)),
}
PASSING = {"accept": 101, "HTTP": 200}


@pytest.fixture(params=DOORS)
def door(request):
    return request.param


async def ask(door, hooks, **scope):
    kind, endpoint = DOORS[door]
    return await kind(DenyMiddlewareStack(endpoint, hooks=hooks), "/", **scope)


def noting(ran, name, flavour="sync"):
    """A hook that notes its name."""
    if flavour == "async":

        async def hook(*args):
            await asyncio.sleep(0)
            ran.append(name)

    else:

        def hook(*args):
            ran.append(name)

    return hook


def surrounding(ran, name):
    async def hook(request, call_next):
        ran.append(name)
        response = await call_next(request)
        ran.append(name.upper())
        return response

    return hook


def functions_of(registry):
    return [hook.function for hook in registry]


# The registry.


def nothing(*args): ...


async def nothing_async(*args): ...


@pytest.mark.parametrize("kind", ["request", "route", "response"])
def test_a_hook_is_added_by_a_bare_decorator_by_arguments_and_by_a_call(kind, hooks):
    add = getattr(hooks, f"on_{kind}")
    assert add(nothing) is nothing
    assert add()(nothing) is nothing
    assert add(priority=1, protocols=("http",), blocking=False)(nothing) is nothing
    assert add(nothing, priority=2) is nothing
    assert [(hook.kind, hook.priority) for hook in hooks] == [(kind, 0), (kind, 0), (kind, 1), (kind, 2)]


def test_an_around_hook_is_added_by_a_bare_decorator_by_arguments_and_by_a_call(hooks):
    assert hooks.around(nothing_async) is nothing_async
    assert hooks.around(priority=1)(nothing_async) is nothing_async
    assert hooks.around(nothing_async, protocols="http") is nothing_async
    assert [(hook.kind, hook.priority) for hook in hooks] == [("around", 0), ("around", 1), ("around", 0)]


def test_an_exception_hook_is_added_with_types_without_and_by_a_call(hooks):
    assert hooks.on_exception(nothing) is nothing
    assert hooks.on_exception()(nothing) is nothing
    assert hooks.on_exception(KeyError, OSError, priority=1)(nothing) is nothing
    assert hooks.on_exception(nothing, priority=2) is nothing
    everything = (Exception,)
    assert [hook.types for hook in hooks] == [everything, everything, (KeyError, OSError), everything]


CALLABLES = {
    "function": nothing,
    "coroutine function": nothing_async,
    "lambda": lambda *args: None,
    "partial": functools.partial(nothing, 1),
    "partial of a coroutine function": functools.partial(nothing_async, 1),
    "method": [].append,
    "object": type("Callable", (), {"__call__": nothing})(),
    "object with an async call": type("AsyncCallable", (), {"__call__": nothing_async})(),
}


@pytest.mark.parametrize("name", CALLABLES)
async def test_a_hook_may_be_anything_that_is_called(name, hooks, ran):
    hooks.on_request(CALLABLES[name])
    hooks.on_request(noting(ran, "next"))
    if name == "method":
        hooks.on_request(ran.append)
    assert (await ask("accept", hooks)).status == 101
    assert ran[0] == "next"


@pytest.mark.parametrize("found", ["a.dotted.path", 5, [], HttpResponse])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_function_is_told(kind, found, hooks):
    name = kind if kind == "around" else f"on_{kind}"
    decorate = getattr(hooks, name)()
    with pytest.raises(TypeError, match=rf"Hooks\.{name}\(\) takes a (coroutine )?function, found "):
        decorate(found)


@pytest.mark.parametrize("priority", ["1", None, True, math.nan, [1]])
@pytest.mark.parametrize("kind", KINDS)
def test_a_priority_that_is_no_number_is_told(kind, priority, hooks):
    name = kind if kind == "around" else f"on_{kind}"
    with pytest.raises(TypeError, match=rf"Hooks\.{name}\(priority=\.\.\.\) is a number, found "):
        getattr(hooks, name)(priority=priority)(nothing_async)
    assert list(hooks) == []


@pytest.mark.parametrize("protocols", ["ws", ("websocket", "https"), (), [""], {"http": 1, "lifespan": 2}])
@pytest.mark.parametrize("kind", KINDS)
def test_protocols_that_are_unknown_are_told(kind, protocols, hooks):
    name = kind if kind == "around" else f"on_{kind}"
    with pytest.raises(ValueError, match=rf"Hooks\.{name}\(protocols=\.\.\.\) names some of .*, found "):
        getattr(hooks, name)(protocols=protocols)(nothing_async)


@pytest.mark.parametrize(
    "taken", [BaseException, KeyboardInterrupt, asyncio.CancelledError, int, "KeyError", 5]
)
def test_an_exception_hook_for_what_is_no_exception_is_told(taken, hooks):
    with pytest.raises(TypeError, match=r"Hooks\.on_exception\(\) takes subclasses of Exception, found "):
        hooks.on_exception(KeyError, taken)


def test_an_around_hook_that_is_no_coroutine_function_is_told(hooks):
    with pytest.raises(
        TypeError, match=r"Hooks\.around\(\) takes a coroutine function, found <function nothing"
    ):
        hooks.around(nothing)


def test_a_registry_prints_the_number_of_its_hooks(hooks):
    hooks.on_request(nothing)
    hooks.include(Hooks())
    assert repr(hooks) == "<Hooks: 1>"


def test_a_hook_prints_its_kind_and_name(hooks):
    hooks.on_request(nothing)
    assert [repr(hook) for hook in hooks] == ["<on_request hook tests.test_hooks.nothing>"]


# Registries in one another.


def first(*args): ...


def last(*args): ...


def test_the_hooks_of_an_included_registry_are_declared_where_it_was_included(hooks):
    inner = Hooks()
    inner.on_request(nothing)
    hooks.on_request(first)
    assert hooks.include(inner) is hooks
    hooks.on_request(last)
    assert functions_of(hooks) == [first, nothing, last]


def test_hooks_that_an_included_registry_gets_later_count(hooks):
    inner, innermost = Hooks(), Hooks()
    hooks.include(inner.include(innermost))
    innermost.on_request(first)
    inner.on_request(last)
    assert functions_of(hooks) == [first, last]


async def test_hooks_that_an_included_registry_gets_between_two_requests_run(hooks, ran, door):
    inner = Hooks()
    hooks.include(inner)
    kind, endpoint = DOORS[door]
    application = DenyMiddlewareStack(endpoint, hooks=hooks)
    await kind(application, "/")
    inner.on_request(noting(ran, "later"))
    await kind(application, "/")
    assert ran == ["later"]


def test_a_registry_that_would_include_itself_is_told(hooks):
    inner, innermost = Hooks(), Hooks()
    hooks.include(inner.include(innermost))
    for other in (hooks, inner):
        with pytest.raises(ValueError, match="includes this one already"):
            innermost.include(other)
    with pytest.raises(ValueError, match="includes this one already"):
        hooks.include(hooks)
    assert functions_of(hooks) == []


@pytest.mark.parametrize("found", [None, [], nothing, [Hooks()]])
def test_including_what_is_no_registry_is_told(found, hooks):
    with pytest.raises(TypeError, match=r"Hooks\.include\(\) takes another Hooks, found "):
        hooks.include(found)


@pytest.mark.parametrize("found", [nothing, "chat.hooks", [nothing], 5])
def test_a_stack_and_with_hooks_take_registries_alone(found):
    with pytest.raises(TypeError, match=r"DenyMiddlewareStack\(hooks=\.\.\.\) takes Hooks, found "):
        DenyMiddlewareStack(accept, hooks=found)
    with pytest.raises(TypeError, match=r"with_hooks\(\) takes Hooks, found "):
        with_hooks(found)


async def test_a_function_that_was_added_twice_runs_twice(hooks, ran, door):
    hook = noting(ran, "a")
    hooks.on_request(hook)
    hooks.on_request(hook)
    await ask(door, hooks)
    assert ran == ["a", "a"]


async def test_a_registry_that_is_included_twice_runs_once(hooks, ran, door):
    inner = Hooks()
    inner.on_request(noting(ran, "a"))
    await ask(door, hooks.include(inner).include(Hooks().include(inner)))
    assert ran == ["a"]


async def test_a_registry_that_is_given_and_included_runs_once(hooks, ran, door):
    inner = Hooks()
    inner.on_request(noting(ran, "a"))
    await ask(door, [inner, hooks.include(inner), inner])
    assert ran == ["a"]


@pytest.mark.parametrize("kind", KINDS)
async def test_hooks_that_are_added_after_the_stack_was_built_run(kind, ran, door, hooks):
    asked, endpoint = DOORS[door]
    application = DenyMiddlewareStack(endpoint, hooks=hooks)
    await asked(application, "/")
    if kind == "around":
        hooks.around(surrounding(ran, "a"))
    elif kind == "exception":
        hooks.on_exception(noting(ran, "a"))
        hooks.on_request(Check(lambda request: 1 / 0).check)
    else:
        getattr(hooks, f"on_{kind}")(noting(ran, "a"))
    await asked(application, "/")
    assert ran[0] == "a"


# Order.

#: Priorities of three hooks as they are declared (None: not given), and the order in which they run.
ORDERS = {
    (None, None, None): "abc",
    (0, 0, 0): "abc",
    (0, None, 0): "abc",
    (7, 7, 7): "abc",
    (1, None, None): "abc",
    (None, 1, None): "bac",
    (None, None, 1): "cab",
    (-1, None, None): "bca",
    (None, -1, None): "acb",
    (None, None, -1): "abc",
    (1, 1, None): "abc",
    (1, None, 1): "acb",
    (None, 1, 1): "bca",
    (-1, -1, None): "cab",
    (-1, None, -1): "bac",
    (None, -1, -1): "abc",
    (3, 2, 1): "abc",
    (3, 1, 2): "acb",
    (2, 3, 1): "bac",
    (1, 3, 2): "bca",
    (2, 1, 3): "cab",
    (1, 2, 3): "cba",
    (0.5, 0.25, 0.75): "cab",
    (math.inf, -math.inf, 0): "acb",
    (-10, -20, -5): "cab",
    (1, 1.0, 1): "abc",
}
BY_PRIORITY = pytest.mark.parametrize(("priorities", "order"), ORDERS.items(), ids=map(str, ORDERS))


def options(priority):
    return {} if priority is None else {"priority": priority}


@BY_PRIORITY
async def test_request_and_route_hooks_run_by_priority_and_then_as_declared(
    priorities, order, door, hooks, ran
):
    for name, priority in zip("abc", priorities, strict=True):
        hooks.on_route(noting(ran, name), **options(priority))
    for name, priority in zip("abc", priorities, strict=True):
        hooks.on_request(noting(ran, name), **options(priority))
    await ask(door, hooks)
    assert "".join(ran) == order + order


@BY_PRIORITY
async def test_response_hooks_run_in_the_reverse_order(priorities, order, door, hooks, ran):
    for name, priority in zip("abc", priorities, strict=True):
        hooks.on_response(noting(ran, name), **options(priority))
    await ask(door, hooks)
    assert "".join(ran) == order[::-1]


@BY_PRIORITY
async def test_around_hooks_enclose_one_another_by_priority(priorities, order, door, hooks, ran):
    for name, priority in zip("abc", priorities, strict=True):
        hooks.around(surrounding(ran, name), **options(priority))
    await ask(door, hooks)
    assert "".join(ran) == order + order[::-1].upper()


@BY_PRIORITY
async def test_exception_hooks_of_one_type_are_asked_by_priority(priorities, order, door, hooks, ran):
    for name, priority in zip("abc", priorities, strict=True):
        hooks.on_exception(noting(ran, name), **options(priority))

    @hooks.on_request
    def fail(request):
        raise KeyError

    assert (await ask(door, hooks)).status == 500
    assert "".join(ran) == order


FLAVOURS = {
    "blocking": (noting, {}),
    "quick": (noting, {"blocking": False}),
    "async": (functools.partial(noting, flavour="async"), {}),
}


@pytest.mark.parametrize("flavours", list(itertools.product(FLAVOURS, repeat=3)), ids="-".join)
async def test_sync_and_async_hooks_mix_in_one_order(flavours, door, hooks, ran):
    for name, flavour in zip("abc", flavours, strict=True):
        make, kwargs = FLAVOURS[flavour]
        hooks.on_response(make(ran, name.upper()), **kwargs)
        hooks.on_route(make(ran, name), **kwargs)
        hooks.on_request(make(ran, name), **kwargs)
    await ask(door, hooks)
    assert "".join(ran) == "abcabcCBA"


async def test_around_hooks_enclose_the_others_whatever_their_priority(door, hooks, ran):
    hooks.on_request(noting(ran, "request"), priority=1000)
    hooks.on_response(noting(ran, "response"), priority=1000)
    hooks.around(surrounding(ran, "a"), priority=-1000)
    await ask(door, hooks)
    assert ran == ["a", "request", "response", "A"]


async def test_registries_of_the_site_and_its_stacks_are_one_layer_those_of_the_endpoint_another(
    ran, settings
):
    site, outer, inner, own = Hooks(), Hooks(), Hooks(), Hooks()
    for registry, name in ((site, "s"), (outer, "o"), (inner, "i"), (own, "e")):
        registry.on_request(noting(ran, name))
        registry.on_request(noting(ran, f"{name}!"), priority=5)
        registry.on_response(noting(ran, name.upper()))
    settings.CHANNELS_WSDENY = {"HOOKS": [site]}
    endpoint = with_hooks(own)(public(accept))
    application = DenyMiddlewareStack(DenyMiddlewareStack(endpoint, hooks=inner), hooks=outer)
    assert (await knock(application, "/")).status == 101
    assert "".join(ran) == "s!o!i!soie!eEIOS"


async def test_several_registries_are_in_the_order_they_are_given_in(ran, door):
    registries = [Hooks(), Hooks(), Hooks()]
    for registry, name in zip(registries, "abc", strict=True):
        registry.on_request(noting(ran, name))
        registry.on_response(noting(ran, name.upper()))
    await ask(door, registries)
    assert "".join(ran) == "abcCBA"


async def test_with_hooks_on_with_hooks_is_outside_of_it(ran):
    outer, inner = Hooks(), Hooks()
    for registry, name in ((outer, "a"), (inner, "b")):
        registry.around(surrounding(ran, name))
    for app in (accept, type("Consumer", (AsyncWebsocketConsumer,), {})):
        decorated = with_hooks(outer)(with_hooks(inner)(public(app)))
        application = decorated.as_asgi() if isinstance(decorated, type) else decorated
        assert (await knock(application, "/")).status == 101
    assert "".join(ran) == "abBA" * 2


async def test_subclasses_have_the_hooks_of_their_bases(ran):
    registry = Hooks()
    registry.on_request(noting(ran, "a"))

    @public
    @with_hooks(registry)
    class Base(AsyncWebsocketConsumer): ...

    class Child(Base):
        async def __call__(self, scope, receive, send):
            await super().__call__(scope, receive, send)

    assert (await knock(Child.as_asgi(), "/")).status == 101
    assert ran == ["a"]
