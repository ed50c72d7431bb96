"""The registry: how hooks are registered and included, what is refused, and in which order hooks run."""

import asyncio
import functools
import itertools
import math

import pytest
from django.http import HttpResponse

from channels_wsdeny import DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import public, with_hooks
from channels_wsdeny.hooks.registry import ordered_hooks
from tests.support.clients import knock
from tests.support.policies import accept

pytestmark = pytest.mark.django_db

KINDS = ["request", "route", "response", "exception", "around"]


def method_of(hooks, kind):
    return getattr(hooks, kind if kind == "around" else f"on_{kind}")


def nothing(*args): ...


async def nothing_async(*args): ...


def test_each_spelling_registers_the_same_hook(hooks):
    """A bare decorator, one with arguments, a plain call, `register`, and Sanic's `middleware`."""
    options = {"priority": 1, "protocols": ("http",), "blocking": False}
    for kind in KINDS:
        add = method_of(hooks, kind)
        assert add(nothing_async) is add()(nothing_async) is nothing_async
        assert add(**options)(nothing_async) is add(nothing_async, **options) is nothing_async
        assert hooks.register(nothing_async, kind) is hooks.register(nothing_async, kind, **options) is nothing_async
        found = [(hook.kind, hook.priority, hook.protocols, hook.blocking) for hook in hooks][-6:]
        plain, with_options = (kind, 0, ("websocket", "http"), True), (kind, 1, ("http",), False)
        assert found == [plain, plain, with_options, with_options, plain, with_options]
    spelled = Hooks()
    spelled.middleware(nothing)
    spelled.middleware("response")(nothing)
    assert [hook.kind for hook in spelled] == ["request", "response"]


def test_an_exception_hook_takes_the_types_that_it_names_or_every_exception(hooks):
    hooks.on_exception(nothing)
    hooks.on_exception(KeyError, OSError, priority=1)(nothing)
    hooks.register(nothing, "exception", types=(ValueError,))
    assert [hook.types for hook in hooks] == [(Exception,), (KeyError, OSError), (ValueError,)]


@pytest.mark.parametrize(
    "function",
    [
        *(nothing, nothing_async, functools.partial(nothing_async, 1)),
        *(type("Callable", (), {"__call__": call})() for call in (nothing, nothing_async)),
    ],
)
async def test_a_hook_may_be_any_callable(function, hooks, ran):
    hooks.on_request(function)
    hooks.on_request(lambda request: ran.append("next"))
    assert ((await knock(DenyMiddlewareStack(public(accept), hooks=hooks), "/")).status, ran) == (101, ["next"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        *((found, {}, TypeError, r"\(\) takes a .*, found ") for found in ("a.path", 5, [], HttpResponse)),
        *(
            (nothing_async, {"priority": priority}, TypeError, r"\(priority=\.\.\.\) is a number, found ")
            for priority in ("1", None, True, math.nan, [1])
        ),
        *(
            (nothing_async, {"protocols": protocols}, ValueError, r"\(protocols=\.\.\.\) names some of .*, found ")
            for protocols in ("ws", ("websocket", "https"), (), [""], {"http": 1, "lifespan": 2})
        ),
    ],
)
def test_what_cannot_be_registered_is_refused_by_name(kind, arguments, options, error, message, hooks):
    name = "around" if kind == "around" else f"on_{kind}"
    with pytest.raises(error, match=rf"Hooks\.{name}{message}"):
        method_of(hooks, kind)(**options)(arguments)
    assert list(hooks) == []


@pytest.mark.parametrize(
    ("register", "error", "message"),
    [
        (lambda hooks: hooks.on_request(lambda: None), TypeError, r"is called with \(request\), found"),
        (lambda hooks: hooks.on_response(lambda request: None), TypeError, r"with \(request, response\), found"),
        (lambda hooks: hooks.around(nothing), TypeError, "takes a coroutine function, found <function nothing"),
        (lambda hooks: hooks.register(nothing, "before"), ValueError, r"kind=\.\.\.\) is one of .* found 'before'"),
        *(
            (lambda hooks, t=t: hooks.on_exception(KeyError, t), TypeError, "takes subclasses of Exception, found ")
            for t in (BaseException, KeyboardInterrupt, asyncio.CancelledError, int, "KeyError", 5)
        ),
        *(
            (lambda hooks, found=found: hooks.include(found), TypeError, "takes another Hooks, found ")
            for found in (None, [], nothing, [Hooks()])
        ),
        *(
            (lambda hooks, found=found, use=use: use(found), TypeError, "takes Hooks, found ")
            for found in (nothing, "chat.hooks", [nothing], 5)
            for use in (with_hooks, lambda found: DenyMiddlewareStack(accept, hooks=found))
        ),
    ],
)
def test_what_else_cannot_be_used_is_refused(register, error, message, hooks):
    with pytest.raises(error, match=message):
        register(hooks)


def test_hooks_print_what_they_are(hooks):
    hooks.on_request(nothing)
    assert repr(hooks.include(Hooks())) == "<Hooks: 1>"
    assert [repr(hook) for hook in hooks] == [f"<on_request {__name__}.nothing>"]


# Registries in one another.


def test_an_included_registry_is_declared_in_its_place_with_what_it_gets_later(hooks):
    inner, innermost, functions = Hooks(), Hooks(), [lambda request, n=n: n for n in range(4)]
    hooks.on_request(functions[0])
    assert hooks.include(inner.include(innermost)) is hooks
    hooks.on_request(functions[3])
    ordered_hooks((hooks,), "http")  # kept until a hook is added, anywhere
    inner.on_request(functions[2])
    innermost.on_request(functions[1])
    assert [hook.function for hook in ordered_hooks((hooks,), "http").request] == functions


def test_a_hook_that_is_added_while_hooks_are_ordered_runs_from_then_on(hooks, monkeypatch):
    """By another thread, once the hooks are listed."""

    class Adding(Hooks):
        def __iter__(self):
            yield from [*super().__iter__()]
            monkeypatch.undo()
            hooks.on_request(nothing)

    monkeypatch.setattr(hooks, "__class__", Adding)
    ordered_hooks((hooks,), "http")
    assert [hook.function for hook in ordered_hooks((hooks,), "http").request] == [nothing]


def test_a_registry_does_not_include_itself(hooks):
    inner, innermost = Hooks(), Hooks()
    hooks.include(inner.include(innermost))
    for outer, other in [(innermost, hooks), (innermost, inner), (hooks, hooks)]:
        with pytest.raises(ValueError, match="includes this one already"):
            outer.include(other)


async def test_a_registration_runs_once_however_often_its_registry_is_named(hooks, ran):
    inner = Hooks()
    for name in "aab":
        inner.on_request(lambda request, name=name: ran.append(name))
    given = [inner, hooks.include(inner).include(Hooks().include(inner)), inner]
    assert (await knock(DenyMiddlewareStack(with_hooks(inner)(public(accept)), hooks=given), "/")).status == 101
    assert ran == ["a", "a", "b"]


@pytest.mark.parametrize("protocols", ["websocket", "http", ("websocket",), {"http", "websocket"}, None])
def test_protocols_narrow_a_hook(protocols, hooks):
    for kind in KINDS:
        method_of(hooks, kind)(nothing_async, protocols=protocols)
    for protocol in ("websocket", "http"):
        runs = protocols is None or protocol in ([protocols] if isinstance(protocols, str) else protocols)
        assert len(list(ordered_hooks((hooks,), protocol).all())) == (5 if runs else 0)


# Order.

PRIORITIES = [None, 0, 1, -1, 1.0, 0.5, math.inf, -math.inf]


def test_priorities_order_requests_downwards_and_responses_upwards_and_equal_ones_as_declared():
    for priorities in itertools.product(PRIORITIES, repeat=3):
        hooks = Hooks()
        for number, priority in enumerate(priorities):
            for kind in KINDS:
                hooks.register(functools.partial(nothing_async, number), kind, priority=priority or 0)
        right = sorted(range(3), key=lambda number: -(priorities[number] or 0))
        for kind in KINDS:
            found = [hook.function.args[0] for hook in getattr(ordered_hooks((hooks,), "http"), kind)]
            assert found == (right[::-1] if kind == "response" else right), (kind, priorities)


async def test_site_and_stacks_are_one_layer_and_each_endpoint_another_inside_it(ran, settings):
    def registry(name):
        hooks = Hooks()
        hooks.on_request(lambda request: ran.append(name))
        hooks.on_request(lambda request: ran.append(f"{name}!"), priority=5)
        hooks.on_response(lambda request, response: ran.append(name.upper()), priority=-5)
        return hooks

    settings.CHANNELS_WSDENY = {"HOOKS": [registry("s")]}
    endpoint = with_hooks(registry("e"))(with_hooks(registry("f"))(public(accept)))
    application = DenyMiddlewareStack(DenyMiddlewareStack(endpoint, hooks=registry("i")), hooks=[registry("o")])
    assert (await knock(application, "/")).status == 101
    assert "".join(ran) == "s!o!i!soie!f!efFEIOS"
