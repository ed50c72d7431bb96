"""Runs checks: request hooks, route hooks and policies are one list, in order, until one denies.

A check returns None (go on) or a denial. Adjacent checks that may block share one hop to a thread.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from ..concurrency import is_being_cancelled
from ..http.context import get_context, noting
from ..http.request import (
    ScopeRequest,
    copy_request,
    following,
    is_authentication_due,
    known_user,
    load_user,
    loaded_user,
    run_in_thread,
)
from .base import Denial, Policy, aask, ask, asking_blocks, depends_on_user, keeping_user, same_user

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..http.context import RequestContext
    from ..types import HttpRequest


class Check(Protocol):
    """A hook or policy: it denies the request, or returns None. It is called with the request.

    Response hooks and exception hooks are called with the response or the exception, too.
    """

    __slots__ = ()

    @property
    def may_wait(self) -> bool:
        """Whether it needs a thread or the event loop for some requests."""
        return True

    def needs_loop(self) -> bool | None:
        """Whether it can only run on the event loop. None if it can run there or in a thread."""
        return False

    @abstractmethod
    def blocks(self, request: HttpRequest) -> bool:
        """Whether it may block for this request."""

    @abstractmethod
    def run(self, *arguments: Any) -> Any:
        """Run it where it may block; returns its answer."""

    def run_noted(self, *arguments: Any) -> Any:
        """As `run`, for a request whose trace is recorded."""
        return self.run(*arguments)

    async def arun(self, *arguments: Any) -> Any:
        """As `run`, on the event loop."""
        return self.run(*arguments)  # pragma: no cover - those that never need the loop run elsewhere

    def denial(self, answer: Any, arguments: tuple[Any, ...]) -> Denial | None:
        """The denial that `answer` is, which it has given to these arguments; None to go on."""
        denial: Denial | None = answer
        return denial


class Checks(deque[Check]):
    """Checks that are still to run. A caller that gives up sets `is_stopped`, which a thread looks at."""

    is_stopped = False


class PolicyCheck(Check):
    """A policy, asked about the request unless it has allowed this subject: hooks before it may have changed that."""

    __slots__ = ("_is_again", "_previous", "policy", "user")

    def __init__(self, policy: Policy, previous: PolicyCheck | None, *, is_again: bool = False) -> None:
        self.policy, self._previous = policy, previous
        #: Whether it is asked about a user whom a policy after it has set.
        self._is_again = is_again
        #: Whom it has allowed.
        self.user: object = None

    def needs_loop(self) -> bool | None:
        return self.policy.needs_loop()

    def blocks(self, request: HttpRequest) -> bool:
        return not get_context(request).has_passed(self.policy) and asking_blocks(self.policy, request)

    def run(self, request: HttpRequest) -> Denial | None:
        if not self._is_due(request):
            return self._allowed(request, None)
        with keeping_user(request) if self._is_again else nullcontext():
            return self._allowed(request, ask(self.policy, request))

    async def arun(self, request: HttpRequest) -> Denial | None:
        if not self._is_due(request):
            return self._allowed(request, None)
        with keeping_user(request) if self._is_again else nullcontext():
            return self._allowed(request, await aask(self.policy, request))

    def _is_due(self, request: HttpRequest) -> bool:
        context = get_context(request)
        if context.pass_again(self.policy):
            return False
        context.policy = self.policy
        return True

    def _allowed(self, request: HttpRequest, denial: Denial | None) -> Denial | None:
        if denial is None:
            before = None if self._previous is None else self._previous.user
            self.user = same_user(self.policy, request, before)
        return denial


def policy_checks(policies: tuple[Policy, ...]) -> list[Check]:
    """The checks for `policies`, each once; those before one that may set the user again, about that user."""
    if len(policies) == 1 and not policies[0].sets_user:
        return [PolicyCheck(policies[0], None)]
    unique = [*{id(policy): policy for policy in policies}.values()]
    last = max((number for number, policy in enumerate(unique, 1) if policy.sets_user), default=0)
    checks: list[Check] = []
    check = None
    for number, policy in enumerate((*unique, *filter(depends_on_user, unique[:last]))):
        check = PolicyCheck(policy, check, is_again=number >= len(unique))
        checks.append(check)
    return checks


class ReportCheck(Check):
    """A policy that is asked, and not enforced: its denial is for the log alone.

    It is asked about a copy of the request, so that neither a user that it sets nor its object reaches the endpoint.
    """

    __slots__ = ("policy",)

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def needs_loop(self) -> bool | None:
        return self.policy.needs_loop()

    def blocks(self, request: HttpRequest) -> bool:
        return asking_blocks(self.policy, request) or self._is_user_due(request)

    def run(self, request: HttpRequest) -> Denial | None:
        with self._copying(request) as copy, noting(request, "report", self.policy) as note:
            if self._is_user_due(copy):
                load_user(request)
                copy.auth = request.auth
            denial = ask(self.policy, copy)
            note(True if denial is None else denial)
        return denial

    async def arun(self, request: HttpRequest) -> Denial | None:
        with self._copying(request) as copy, noting(request, "report", self.policy) as note:
            if self._is_user_due(copy):
                await loaded_user(request)
                copy.auth = request.auth
            # In a task of its own, which a time limit leaves behind: no request waits for a policy that swallows that.
            asking = asyncio.create_task(aask(self.policy, copy))
            try:
                await asyncio.wait({asking})
            finally:
                asking.cancel()
            denial = asking.result()
            note(True if denial is None else denial)
        return denial

    @contextmanager
    def _copying(self, request: HttpRequest) -> Iterator[HttpRequest]:
        """A copy of the request."""
        copy = copy_request(request)
        get_context(copy).obj = get_context(request).obj
        is_of_view = not isinstance(request, ScopeRequest)  # whose body is read once
        with following(copy, request, but=_SET_BY_POLICIES) if is_of_view else nullcontext():
            yield copy

    def _is_user_due(self, request: HttpRequest) -> bool:
        return is_authentication_due(request) and depends_on_user(self.policy)


#: What a policy that is only reported sets on its copy of the request alone.
_SET_BY_POLICIES = frozenset({"auth", "auser", "user", "wsdeny", "_wsdeny_user_is_set"})


class LoadUser(Check):
    """Load the user, before an application runs that may look at it on the event loop."""

    def blocks(self, request: HttpRequest) -> bool:
        return known_user(request) is None

    def run(self, request: HttpRequest) -> None:
        load_user(request)


class RouteHooksRun(Check):
    """Comes after route hooks that go on to wait, for other routes that an application may lead to."""

    @property
    def may_wait(self) -> bool:
        return False

    def blocks(self, request: HttpRequest) -> bool:
        return False

    def run(self, request: HttpRequest) -> None:
        get_context(request).note_routed()


class Watcher(Protocol):
    """Notes whether the client leaves, from `watch` to `unwatch`."""

    has_left: bool

    def watch(self) -> None:
        """Begin to watch for the disconnect."""

    def unwatch(self) -> None:
        """Stop watching."""


class ClientLeft(asyncio.CancelledError):
    """The client left before it had an answer. A cancellation, so that hooks end and nothing is made to send."""


_CANCELLED = "Something that a policy or hook awaited was cancelled."


async def run_checks(
    checks: Checks, context: RequestContext, *arguments: Any, watcher: Watcher | None = None
) -> Denial | None:
    """Run `checks`, which are called with the request of `context` and `arguments`; returns the first denial.

    Raises what a check raises, and `ClientLeft` once `watcher` says that the client has left.
    """
    request, given = context.request, (context.request, *arguments)
    try:
        while checks:
            check = checks[0]
            if check.needs_loop() is not False:
                checks.popleft()
                denial = check.denial(await check.arun(*given), given)
            elif check.blocks(request):
                denial = await run_in_thread(request, lambda: _run_until_loop(checks, context, given, watcher))
            else:
                denial = run_ready_checks(checks, context, *arguments)
            if watcher is not None and watcher.has_left:
                raise ClientLeft
            if denial is not None:
                return denial
    except asyncio.CancelledError as error:
        if isinstance(error, ClientLeft) or is_being_cancelled():
            checks.is_stopped = True
            raise
        raise RuntimeError(_CANCELLED) from error
    return None


def run_ready_checks(
    checks: Checks, context: RequestContext, *arguments: Any, may_block: bool = False
) -> Denial | None:
    """As `run_checks`, up to the first of `checks` that needs a thread or the event loop; that and the rest are left.

    A synchronous caller lets them block (`may_block`): it runs all of them here, and none is left.
    """
    given, is_noted = (context.request, *arguments), context.state.trace is not None
    try:
        while checks:
            check = checks.popleft()
            if check.may_wait and not may_block and (check.needs_loop() is not False or check.blocks(given[0])):
                checks.appendleft(check)
                break
            answer = check.run_noted(*given) if is_noted else check.run(*given)
            if answer is not None and (denial := check.denial(answer, given)) is not None:
                return denial
    except asyncio.CancelledError as error:
        if may_block:  # It is that of the request, for all that is known there.
            raise
        raise RuntimeError(_CANCELLED) from error  # Nothing was awaited: it is an error like any other.
    return None


def _run_until_loop(
    checks: Checks, context: RequestContext, given: tuple[Any, ...], watcher: Watcher | None
) -> Denial | None:
    """Run the checks up to the next one that needs the event loop; called in a thread."""
    trace = context.state.trace
    with nullcontext() if trace is None else trace.watching_queries():
        while checks and checks[0].needs_loop() is not True:
            if checks.is_stopped or (watcher is not None and watcher.has_left):
                break
            check = checks.popleft()
            answer = check.run(*given) if trace is None else check.run_noted(*given)
            if answer is not None and (denial := check.denial(answer, given)) is not None:
                return denial
    return None
