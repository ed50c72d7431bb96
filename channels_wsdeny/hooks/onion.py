"""The onion: the layers of hooks that one request has entered, and leaves again from the inside out."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from django.http.response import HttpResponseBase

from .. import status as statuses
from ..decisions import Step, Steps
from ..exceptions import Deny, HookError
from ..http import content
from ..http import responses as problems
from ..http.exception_handler import denial_for
from ..http.request import ScopeRequest
from ..log import log_failure
from .plan import plan_of
from .surrounding import Surrounding
from .walk import Walk

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

    from ..http.context import Passage
    from ..types import Protocol
    from .plan import Plan
    from .registry import Hook, Hooks


class Layer:
    """The hooks of one layer that have not run yet."""

    __slots__ = ("around", "exception", "hooks", "request", "response", "route", "surrounding")

    def __init__(self, plan: Plan) -> None:
        #: All of them, by their kinds.
        self.hooks = plan.kinds()
        self.request, self.route, self.response, self.exception, self.around = self.hooks
        self.surrounding: Surrounding | None = None


class Onion:
    """All layers of one request, the innermost last. Each hook runs once, however often it is given."""

    __slots__ = ("_layers", "_met", "_protocol", "on_early_end", "walk")

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._layers: list[Layer] = []
        self._met: set[Hook] = set()
        #: Who runs hooks, and for which answer.
        self.walk = Walk()
        #: Where the endpoint answers by itself: what to do if its ``around`` hooks end before it has; returns
        #: whether that is the answer from now on. Where it is None, the door puts them around the endpoint.
        self.on_early_end: Callable[[HttpResponseBase | Exception], bool] | None = None

    @property
    def depth(self) -> int:
        """How many layers there are."""
        return len(self._layers)

    @property
    def rescues(self) -> bool:
        """Whether there are hooks for exceptions, who may want to see the body of a request again."""
        return any(layer.exception for layer in self._layers)

    @property
    def has_route_hooks(self) -> bool:
        """Whether there are route hooks that have not run."""
        return any(layer.route for layer in self._layers)

    def has_unrun(self, depth: int) -> bool:
        """Whether request or route hooks have not run, or have answered, further in than `depth` layers."""
        return any(layer.request or layer.route for layer in self._layers[depth:])

    @property
    def is_pending(self) -> bool:
        """Whether there are hooks that have to run before an endpoint."""
        return any(layer.around or layer.request or layer.route for layer in self._layers)

    def __bool__(self) -> bool:
        return bool(self._layers)

    def __contains__(self, layer: Layer) -> bool:
        return layer in self._layers

    def enter(self, registries: tuple[Hooks, ...]) -> Layer | None:
        """Enter a layer of those hooks of `registries` that this request has not met; None without any."""
        plan = plan_of(registries, self._protocol)
        if not plan:
            return None
        if self._met:
            plan = plan.without(self._met)
            if not plan:
                return None
        for hooks in plan.kinds():
            self._met.update(hooks)
        layer = Layer(plan)
        self._layers.append(layer)
        return layer

    def arrive(self, passage: Passage) -> Steps[HttpResponseBase | Deny | None]:
        """Run the request hooks of layers that were just entered; returns what one of them answered with."""
        token = self.walk.token
        for layer in list(self._layers):
            if layer.around and self.on_early_end is not None:
                hooks, layer.around = layer.around, ()
                early = yield from self._surround(layer, hooks, passage, token)
                self.walk.go_on(token)
                if early is not None:
                    return early
            while layer.request:
                hook = layer.request[0]
                if hook.is_quick and passage.trace is None:
                    answer = hook.function(passage.request)
                    answer = answer if answer is None else _checked(hook, answer)
                else:
                    answer = yield from _ask(passage, hook)
                self.walk.go_on(token)
                if answer is not None:
                    return answer
                layer.request = layer.request[1:]  # One that answers counts as not run, for who asks again.
        return None

    def route(self, passage: Passage) -> Steps[HttpResponseBase | Deny | None]:
        """Run the route hooks of all layers; returns what one of them answered with."""
        token = self.walk.token
        for layer in list(self._layers):
            while layer.route:
                hook = layer.route[0]
                answer = yield from _ask(passage, hook)
                self.walk.go_on(token)
                _keep_route(passage.request)
                if answer is not None:
                    return answer
                layer.route = layer.route[1:]  # as above
        return None

    def rescue(self, passage: Passage, error: Exception) -> Steps[HttpResponseBase | Deny | None]:
        """What a hook makes of `error`, the innermost layer and the most specific type first; else None."""
        for layer in reversed(list(self._layers)):
            taking = [(hook.distance(error), hook) for hook in layer.exception]
            for _, hook in sorted(
                ((distance, hook) for distance, hook in taking if distance is not None),
                key=lambda pair: pair[0],
            ):
                layer.exception = tuple(other for other in layer.exception if other is not hook)
                answer = yield from _ask(passage, hook, error)
                if answer is not None:
                    return answer
        return None

    def takes(self, error: Exception) -> bool:
        """Whether a hook is there that `error` would be given to."""
        return any(hook.distance(error) is not None for layer in self._layers for hook in layer.exception)

    def leave(self, passage: Passage, response: HttpResponseBase, depth: int = 0) -> Steps[HttpResponseBase]:
        """Leave all layers but the outermost `depth`; returns what their hooks make of `response`.

        What a hook raises is answered as if the endpoint had raised it; the others see that. Raises
        `HookError` once another answer has overtaken this one.
        """
        token = self.walk.token
        while len(self._layers) > depth:
            layer = self._layers[-1]
            while layer.response:
                self.walk.go_on(token)
                hook, layer.response = layer.response[0], layer.response[1:]
                try:
                    if hook.is_quick and passage.trace is None:
                        answer = hook.function(passage.request, response)
                        answer = answer if answer is None else _checked(hook, answer)
                    else:
                        answer = yield from _ask(passage, hook, response)
                    if answer is None or answer is response:  # left as it is, or changed in place
                        continue
                    response = yield from _replace(passage, response, answer)
                    layer.response = ()
                except Exception as error:  # noqa: BLE001 - no answer of a broken hook goes out
                    response = yield from self._fail(passage, response, error)
            self.walk.go_on(token)
            surrounding = layer.surrounding
            if surrounding is not None:
                try:
                    answer = yield _leaving(surrounding, response)
                    if answer is not response:
                        response = yield from _replace(passage, response, answer)
                except Exception as error:  # noqa: BLE001 - as above
                    response = yield from self._fail(passage, response, error)
            self.walk.go_on(token)
            self.forsake(layer)
        if getattr(response, "is_denial", False):
            problems.seal(response)  # A hook may have changed what every denial carries.
        return response

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to run, nor anything that was interrupted."""
        return not self._layers and self.walk.is_over

    def _fail(
        self, passage: Passage, response: HttpResponseBase, error: Exception
    ) -> Steps[HttpResponseBase]:
        answer: HttpResponseBase | Deny | None
        try:
            answer = yield from self.rescue(passage, error)
        except Exception as another:  # noqa: BLE001 - that is what has to be answered now
            answer, error = None, another
        if answer is None:
            answer = denial_for(error)
            if answer.__cause__ is not None and answer.status >= 500:
                log_failure(passage, answer.__cause__, answer.status)
        response = yield from _replace(passage, response, answer)
        response._has_been_logged = response.status_code >= 500  # type: ignore[attr-defined]
        return response

    def forget(self, layer: Layer) -> None:
        """Have whoever enters the hooks of `layer` again meet them again: they have had their say."""
        self._met.difference_update(*layer.hooks)

    def cut(self, depth: int) -> None:
        """Forget all layers but the outermost `depth`: ``around`` hooks have answered in their place."""
        while len(self._layers) > depth:
            self.forsake(self._layers[-1])

    def drop(self) -> None:
        """There is nobody to answer any more: end what still waits for the answer."""
        self.walk.overtake()
        while self._layers:
            surrounding = self._layers.pop().surrounding
            if surrounding is not None:
                surrounding.cancel()

    def _surround(
        self, layer: Layer, hooks: tuple[Hook, ...], passage: Passage, token: object
    ) -> Steps[HttpResponseBase | None]:
        async def enter() -> HttpResponseBase | None:
            self.walk.go_on(token)
            layer.surrounding = Surrounding(hooks, passage.request, lambda end: self._end_early(layer, end))
            return await layer.surrounding.enter()

        try:
            early: HttpResponseBase | None = yield enter
        except Exception:
            self._refuse(layer)
            raise
        if early is not None:
            self._refuse(layer)
        return early

    def _refuse(self, layer: Layer) -> None:
        """The ``around`` hooks of `layer` have not let the request in: who tries again meets them again."""
        self.forsake(layer)
        self.forget(layer)

    def _end_early(self, layer: Layer, end: HttpResponseBase | Exception) -> bool:
        """The ``around`` hooks of `layer` have answered: those further in have nothing to say any more."""
        if layer in self._layers:
            for inner in self._layers[self._layers.index(layer) + 1 :]:
                if inner.surrounding is not None:
                    inner.surrounding.cancel()
                    inner.surrounding = None
        return self.on_early_end is not None and self.on_early_end(end)

    def forsake(self, layer: Layer) -> None:
        """Have done with a layer; its hooks that were not run, or have denied, may be met again."""
        layer.surrounding = None
        self._met.difference_update(layer.request, layer.route)
        if layer in self._layers:
            self._layers.remove(layer)


def _leaving(surrounding: Surrounding, response: HttpResponseBase) -> Callable[[], Any]:
    return lambda: surrounding.leave(response)


def _ask(passage: Passage, hook: Hook, *arguments: Any) -> Steps[HttpResponseBase | Deny | None]:
    """What `hook` answers. Raises what it raises, and `HookError` for what is no answer."""
    steps = _call(hook, passage.request, *arguments)
    if passage.trace is None:
        return steps
    return passage.trace.asking("hook", hook.label, steps)


def _call(hook: Hook, *arguments: Any) -> Steps[HttpResponseBase | Deny | None]:
    if hook.is_async:
        answer = yield lambda: hook.function(*arguments)
    else:
        if hook.blocking:
            yield Step.BLOCKING
        answer = hook.function(*arguments)
    return None if answer is None else _checked(hook, answer)


def _checked(hook: Hook, answer: Any) -> HttpResponseBase | Deny:
    if isinstance(answer, (HttpResponseBase, Deny)):
        return answer
    if inspect.iscoroutine(answer):
        answer.close()
    raise HookError(f"{hook!r} returned {answer!r}. A hook returns None, a response or a Deny.")


def _keep_route(request: HttpRequest) -> None:
    """Have the application find its ``url_route`` as a route hook left the match."""
    if isinstance(request, ScopeRequest):
        request.keep_route()


def _replace(
    passage: Passage, response: HttpResponseBase, answer: HttpResponseBase | Deny
) -> Steps[HttpResponseBase]:
    """What goes out in the place of `response`: a denial, as far as its status is one."""
    given = problems.denial_response(passage, answer)
    replaced: HttpResponseBase = yield from content.render(passage.request, given)
    yield from content.discard(response, replaced)
    if statuses.is_denial(replaced.status_code):
        problems.seal(replaced)
    return replaced
