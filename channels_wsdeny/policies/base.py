"""The base class of policies, which allow or deny a request, and the operators that combine policies.

Policies know Django's request and user, and nothing of ASGI, so the same policy guards a socket and a view.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABCMeta, update_abstractmethods
from contextlib import contextmanager
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeAlias, TypeVar

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.http.response import HttpResponseBase
from django.utils.functional import LazyObject

from .. import status as statuses
from ..exceptions import Deny, PolicyError, refuse_arguments
from ..http.context import expression_of, get_context, noting
from ..http.request import ScopeRequest, is_authentication_due, known_user, load_user, loaded_user, run_in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..types import HttpRequest

D = TypeVar("D", bound=Deny)

Denial: TypeAlias = Deny | HttpResponseBase
#: What a check may return: True to allow, False to deny as the policy does, or the denial.
Answer: TypeAlias = bool | Denial


class PolicyDenial(Deny):
    """The denial that a check of this package returns.

    It is neither true nor false: with ``return super().check(request) and ...`` a subclass would let in whom it denies.
    Once it was raised, it is true, as other exceptions are: Python itself asks, in futures and to print tracebacks.
    """

    def __bool__(self) -> bool:
        if self.__traceback__ is not None:
            return True
        raise TypeError(
            f"A policy has answered with a denial ({self}), which is neither true nor false. Compare the answer of a "
            "check by `is True`, or combine policies by &, | and ~."
        )

    @classmethod
    def of(cls, denial: Denial) -> PolicyDenial:
        """The same denial."""
        return denial if isinstance(denial, cls) else _as(cls, denial)


def raisable(denial: Denial) -> Deny:
    """The same denial, to be raised: what reports an exception may ask whether it is true."""
    return _as(Deny, denial) if isinstance(denial, PolicyDenial) or not isinstance(denial, Deny) else denial


def _as(cls: type[D], denial: Denial) -> D:
    if not isinstance(denial, Deny):
        return cls(response=denial)
    given: dict[str, Any] = {"code": denial.code, "headers": denial.headers, "response": denial.response}
    made = cls(denial.status, denial.detail, **given, **denial.members)
    made.__cause__ = denial.__cause__
    return made


class _PolicyClass(ABCMeta):
    """The class of policy classes: one that is combined without having been called is an error with a remedy."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, **kwargs: Any) -> _PolicyClass:
        cls = super().__new__(mcls, name, bases, namespace, **kwargs)
        if any(isinstance(base, _PolicyClass) for base in bases):
            # As Python calls `__init_subclass__`. That method of the site, and the `__init__` of its metaclass, may
            # leave out those of the bases.
            made: Any = cls
            super(made, made)._complete_subclass()  # type: ignore[misc]
            update_abstractmethods(made)
        return cls

    def __setattr__(cls, name: str, value: Any) -> None:
        cls._refuse_unasked(name, value)
        super().__setattr__(name, value)

    def _refuse_unasked(cls: Any, name: str, value: Any) -> None:
        """Raise `TypeError` for a check that is set on a class, or on a policy, in place of one that is not asked."""
        is_check = name in {"check", "acheck"} and not hasattr(value, "is_stand_in")
        if is_check and cls._given and name not in cls._given:
            (asked,) = cls._given
            raise TypeError(f"{cls.__qualname__}.{name} would be ignored, for {asked}() is asked. Set that.")

    def __or__(cls, other: Any) -> Any:
        if isinstance(other, (Policy, _PolicyClass)):  # else it is a union of types
            raise cls._is_class("|")
        return super().__or__(other)

    def __ror__(cls, other: Any) -> Any:
        if isinstance(other, (Policy, _PolicyClass)):
            raise cls._is_class("|")
        return super().__ror__(other)

    def __and__(cls, other: Any) -> NoReturn:
        raise cls._is_class("&")

    __rand__ = __and__

    def __invert__(cls) -> NoReturn:
        raise cls._is_class("~")

    def _is_class(cls, operator: str) -> TypeError:
        return TypeError(
            f"{cls.__name__} is a class of policies. Before {operator} can be used, call it: {cls.__name__}(...)."
        )


class Policy(metaclass=_PolicyClass):
    """Allows or denies a request; a subclass gives `check`, `acheck` or both.

    Both return True (allow), False (deny with the class's `status`, `code` and `detail`), a `Deny`, or an
    `HttpResponse` of status 300-599 (deny with it). Anything else is an error and denies. Policies are combined
    by ``&``, ``|`` and ``~``; they are asked from left to right, and only as far as needed.

    Raises `TypeError`, when a subclass is defined, for a check that could not be asked.
    """

    status = 403
    code: str | None = None
    detail: statuses.Text = ""
    #: Whether the request is authenticated before the policy is asked, so that wrong credentials deny first.
    needs_user = True
    #: Whether it is asked at the handshake alone, and not again while the socket is open.
    once = False
    #: Whether the policy may set another user (``request.user``), about whom policies before it are asked again.
    sets_user = False
    #: Whether it allows, or may well allow, every handshake, for `inspection`.
    allows_all = False

    #: The arguments that ``__init__`` sets as attributes: a subclass cannot override them.
    _arguments: ClassVar[frozenset[str]] = frozenset()
    #: Which of `check` and `acheck` is asked: not one that a subclass, or a mixin before it, has overridden by the
    #: other.
    _given: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def _complete_subclass(cls) -> None:
        """Have a subclass be asked by the check that it gives. Raises `TypeError` for what would be ignored."""
        refuse_colour(cls, "check", is_async=True)
        refuse_colour(cls, "acheck", is_async=False)
        asked = refuse_second(cls, "check", "acheck")
        cls._given = frozenset(name for name in ("check", "acheck") if asked is not Policy and gives(asked, name))
        # Policies of the site may call the other one directly, or by super().
        if len(cls._given) == 1:
            (other,) = {"check", "acheck"} - cls._given
            setattr(cls, other, _stand_in(cls, other))
        refuse_arguments(cls, cls._arguments)
        # The methods of a base class that describe its own check do not describe the one that is asked.
        for name in ("blocks", "needs_loop", "anonymous_denial"):
            # Not issubclass(), which counts what is only registered as a subclass.
            if cls._given and asked not in giver_of(cls, name).__mro__:
                setattr(cls, name, vars(Policy)[name])

    def check(self, request: HttpRequest) -> Answer:
        """Answer for `request`; may block. Where only `acheck` is given, it asks that, and so needs a thread."""
        lacks = "no base class with a check() or acheck()" if self._given else "neither check() nor acheck()"
        raise PolicyError(
            f"{type(self).__name__} has {lacks}. Give one that returns True, False, a Deny or an HttpResponse."
        )

    async def acheck(self, request: HttpRequest) -> Answer:
        """As `check`, for coroutines: what may block runs in a thread."""
        return await acheck_from(type(self), self, request)

    def needs_loop(self) -> bool | None:
        """Whether there is only `acheck`, which needs the event loop. None if there are `check` and `acheck`."""
        return None if len(self._given) == 2 else self._given == {"acheck"}

    def blocks(self, request: HttpRequest) -> bool:
        """Whether `check` may block for this request, and so needs a thread."""
        return True

    def anonymous_denial(self) -> Deny | bool | None:
        """The denial for an anonymous user without a session, or True if it is allowed, whatever the request is.

        None if that depends on the request.
        """
        return None

    def for_open_socket(self) -> Policy:
        """The policy that is asked again while a socket is open, unless it counts only `once`: this one."""
        return self

    def denial(self) -> Denial:
        """The denial if `check` or `acheck` returns False: a `Deny` or an `HttpResponse`, and nothing else."""
        return Deny(self.status, self.detail, code=self.code)

    def __setattr__(self, name: str, value: Any) -> None:
        type(self)._refuse_unasked(name, value)
        super().__setattr__(name, value)

    def __and__(self, other: Policy) -> Policy:
        return And(self, other) if isinstance(other, Policy) else NotImplemented

    def __or__(self, other: Policy) -> Policy:
        return Or(self, other) if isinstance(other, Policy) else NotImplemented

    def __invert__(self) -> Policy:
        return Not(self)

    def __bool__(self) -> bool:
        # "a and b" would quietly be b alone.
        raise TypeError("A policy is neither true nor false: combine policies by &, | and ~.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def giver_of(cls: type, *names: str) -> type:
    """The first class in the method resolution order that gives one of these methods."""
    return next(base for base in cls.__mro__ if any(gives(base, name) for name in names))


def gives(cls: type, name: str) -> bool:
    """Whether `cls` itself gives a method (not one that stands for another)."""
    return name in vars(cls) and not hasattr(vars(cls)[name], "is_stand_in")


def _method_from(cls: type, policy: Policy, name: str) -> Any:
    """A method as ``super()`` finds it, beginning with `cls` itself."""
    order = type(policy).__mro__
    giver = next(base for base in order[order.index(cls) :] if gives(base, name))
    return vars(giver)[name].__get__(policy, type(policy))


async def acheck_from(cls: type, policy: Policy, request: HttpRequest) -> Answer:
    """Ask the `check` that `cls` gives or inherits, in a thread if it may block."""
    check = _method_from(cls, policy, "check")
    # A subclass may have said that a check of its own does not block.
    if policy.blocks(request) or _method_from(cls, policy, "blocks")(request):
        return await run_in_thread(request, lambda: check(request))
    answer: Answer = check(request)
    return answer


def _stand_in(cls: type, name: str) -> Any:
    """The method `name` of a class that gives the other check alone: it asks that."""

    async def acheck(self: Policy, request: HttpRequest) -> Answer:
        return await acheck_from(cls, self, request)

    def check(self: Policy, request: HttpRequest) -> Answer:
        answer: Answer = async_to_sync(_method_from(cls, self, "acheck"))(request)
        return answer

    method: Any = acheck if name == "acheck" else check
    method.is_stand_in = True
    return method


def refuse_colour(cls: type, name: str, *, is_async: bool) -> None:
    """Raise `TypeError` if a method that `cls` itself defines is a coroutine function, or is none."""
    function = vars(cls).get(name)
    if isinstance(function, FunctionType) and iscoroutinefunction(function) is is_async:
        found = "a coroutine function, which would not be awaited" if is_async else "no coroutine function"
        raise TypeError(
            f"{cls.__qualname__}.{name}() is {found}. A policy has check(), or a coroutine function acheck()."
        )


def refuse_second(cls: type, *names: str) -> type:
    """The nearest class that gives one of these methods, and so is asked.

    Raises `TypeError` if a second base class has one of its own, which would never be asked.
    """
    nearest = giver_of(cls, *names)
    if nearest is cls or not isinstance(nearest, _PolicyClass):
        return nearest
    first = next(base for base in cls.__bases__ if issubclass(base, nearest))
    for base in cls.__bases__:
        givers = (each for each in base.__mro__ if any(_answers(each, name) for name in names))
        if next(givers, nearest) not in nearest.__mro__:
            second = base.__name__
            remedy = f"Name {second} first to have it asked in the place of the other, or make it a policy, and combine"
            if isinstance(base, _PolicyClass):
                remedy = "Combine"
            raise TypeError(
                f"{cls.__qualname__} would ask {first.__name__}, and never {second}. {remedy} policies by an "
                f"operator: {first.__name__}(...) & {second}(...)."
            )
    return nearest


def _answers(cls: type, name: str) -> bool:
    """Whether `cls` itself gives a method that is not abstract, and so may be asked."""
    return gives(cls, name) and not getattr(vars(cls)[name], "__isabstractmethod__", False)


def ask(policy: Policy, request: HttpRequest) -> Denial | None:
    """Ask a policy where it may block: None if it allows, else the denial. Raises what the policy raises."""
    if policy.needs_user and is_authentication_due(request):
        load_user(request)
    context = get_context(request)
    obj = context.obj
    with noting(request, "policy", policy) as note:
        denial = _denial_of(policy, policy.check(request))
        note(True if denial is None else denial)
    if denial is not None:
        context.obj = obj  # One that was found on the way to a denial was not allowed.
    elif context.kept_user is not None:
        give_back(request, context.kept_user)
    return denial


async def aask(policy: Policy, request: HttpRequest) -> Denial | None:
    """As `ask`, on the event loop: what may block runs in a thread."""
    if policy.needs_loop() is False:
        if asking_blocks(policy, request):
            return await run_in_thread(request, lambda: ask(policy, request))
        return ask(policy, request)
    if policy.needs_user and is_authentication_due(request):  # pragma: no cover - it is loaded before
        await loaded_user(request)
    context = get_context(request)
    obj = context.obj
    with noting(request, "policy", policy) as note:
        denial = _denial_of(policy, await policy.acheck(request))
        note(True if denial is None else denial)
    if denial is not None:
        context.obj = obj
    elif context.kept_user is not None:
        give_back(request, context.kept_user)
    return denial


def _ask_operand(policy: Policy, request: HttpRequest) -> Denial | None:
    """As `ask`. A user whom the policy has set does not stay if it denies: another one may yet allow the request."""
    user = user_of(request)
    denial = ask(policy, request)
    if denial is not None:
        give_back(request, user)
    return denial


async def _aask_operand(policy: Policy, request: HttpRequest) -> Denial | None:
    user = user_of(request)
    denial = await aask(policy, request)
    if denial is not None:
        give_back(request, user)
    return denial


def same_user(policy: Policy, request: HttpRequest, before: object) -> object:
    """The user of `request` now that `policy` was asked; `before` is whom the policies before it were asked about.

    Raises `PolicyError` for another one if `policy` does not say that it sets the user: they have not allowed that one.
    """
    user = known_user(request)
    if before is not None and user is not before and not policy.sets_user:
        raise PolicyError(
            f"{expression_of(policy)} has set another request.user than the policies before it were asked about. Give "
            "its class sets_user = True: then they are asked about that user, too."
        )
    return user


#: What a policy that sets the user sets on the request, REST framework and Django's `login()` beside it.
_SET_WITH_USER = ("user", "auth", "auser", "_wsdeny_user_is_set")


def user_of(request: HttpRequest) -> dict[str, Any]:
    """All that says who the user of `request` is, for `give_back`. It loads nothing."""
    own = vars(request)
    if isinstance(request, ScopeRequest):
        request.user  # noqa: B018 - one that is made only later would count as set
    return {name: own[name] for name in _SET_WITH_USER if name in own}


def give_back(request: HttpRequest, user: dict[str, Any]) -> None:
    """Give `request` the user that it had, as `user_of` has returned."""
    own = vars(request)
    for name in _SET_WITH_USER:
        own.pop(name, None)
    own.update(user)
    if user.get("auth") is None and known_user(request) is not None:
        found: Any = own["user"]
        if own.get("_wsdeny_found_user") is (found._wrapped if isinstance(found, LazyObject) else found):
            own["auth"] = own.get("_wsdeny_found_auth")  # It was authenticated meanwhile.


@contextmanager
def keeping_user(request: HttpRequest) -> Iterator[None]:
    """Have policies asked about the user that `request` has now: one whom a policy sets is given back after it."""
    context = get_context(request)
    context.kept_user = user_of(request)
    try:
        yield
    finally:
        context.kept_user = None


def asking_blocks(policy: Policy, request: HttpRequest) -> bool:
    """Whether `ask` may block for this request."""
    return policy.blocks(request) or (policy.needs_user and is_authentication_due(request))


def exact(policy: Policy, answer: object, asked: str) -> bool:
    """`answer` if it is True or False; raises `PolicyError` for anything else, such as a coroutine."""
    if answer is True or answer is False:
        return answer
    raise _no_answer(policy, answer, asked, "True or False")


def _denial_of(policy: Policy, answer: object) -> Denial | None:
    if answer is True:
        return None
    verb, right = "answered", "True, False, a Deny or an HttpResponse"
    if answer is False:
        answer, verb, right = policy.denial(), "has a denial() that returned", "a Deny or an HttpResponse"
    if isinstance(answer, (Deny, HttpResponseBase)):
        response = answer.response if isinstance(answer, Deny) else answer
        if response is None or statuses.is_denial(response.status_code):
            return answer
        response.close()
        raise PolicyError(
            f"{expression_of(policy)} denied with a response of status {response.status_code}. The status of a "
            "denial is 300-599."
        )
    raise _no_answer(policy, answer, verb, right)


def _no_answer(policy: Policy, answer: object, verb: str, right: str) -> PolicyError:
    found = f"a {type(answer).__name__}" if answer is not None else "None"
    hint = ""
    if inspect.isawaitable(answer):
        hint = " A check that is a coroutine function is named acheck()."
        if inspect.iscoroutine(answer):
            answer.close()
    return PolicyError(f"{expression_of(policy)} {verb} {found}. It returns {right}.{hint}")


class Combination(Policy):
    """Policies combined by an operator; those of a nested one with the same operator are its own."""

    operator: str
    #: Each of the policies says so for itself.
    needs_user = False

    def __init__(self, *policies: Policy) -> None:
        self.policies: tuple[Policy, ...] = ()
        for policy in policies:
            is_plain = type(policy) in {And, Or}  # A subclass may have a check of its own.
            if isinstance(policy, Combination) and is_plain and policy.operator == self.operator:
                self.policies += policy.policies
            else:
                self.policies += (policy,)
        self.sets_user = any(policy.sets_user for policy in self.policies)

    def needs_loop(self) -> bool | None:
        return any(policy.needs_loop() for policy in self.policies)

    def blocks(self, request: HttpRequest) -> bool:
        return any(asking_blocks(policy, request) for policy in self.policies)

    def for_open_socket(self) -> Policy:
        twin = copy.copy(self)
        twin.policies = tuple(policy.for_open_socket() for policy in self.policies)
        return twin

    def __repr__(self) -> str:
        # "&" binds more tightly than "|", so only an "or" within an "and" needs its parentheses.
        return f" {self.operator} ".join(
            f"({policy!r})" if isinstance(policy, Or) else repr(policy) for policy in self.policies
        )


class And(Combination):
    """Allows if every policy does; denies with the first denial."""

    operator = "&"
    needs_loop, blocks = Combination.needs_loop, Combination.blocks

    def check(self, request: HttpRequest) -> Answer:
        user = None
        for policy in self.policies:
            denial = ask(policy, request)
            if denial is not None:
                return PolicyDenial.of(denial)
            user = same_user(policy, request, user)
        return True

    async def acheck(self, request: HttpRequest) -> Answer:
        user = None
        for policy in self.policies:
            denial = await aask(policy, request)
            if denial is not None:
                return PolicyDenial.of(denial)
            user = same_user(policy, request, user)
        return True

    def anonymous_denial(self) -> Deny | bool | None:
        return first_anonymous_denial(self.policies)[1]


class Or(Combination):
    """Allows if one policy does.

    When all deny: with a 401, if there is one, for an anonymous user; for a known user with the first denial
    that is no 401; else with the first.
    """

    operator = "|"
    needs_loop, blocks = Combination.needs_loop, Combination.blocks

    def check(self, request: HttpRequest) -> Answer:
        denials: list[Denial] = []
        for policy in self.policies:
            denial = _ask_operand(policy, request)
            if denial is None:
                return True
            denials.append(denial)
        return self._choose(denials, request)

    async def acheck(self, request: HttpRequest) -> Answer:
        denials: list[Denial] = []
        for policy in self.policies:
            denial = await _aask_operand(policy, request)
            if denial is None:
                return True
            denials.append(denial)
        if known_user(request) is None:
            return await run_in_thread(request, lambda: self._choose(denials, request))
        return self._choose(denials, request)

    @staticmethod
    def _choose(denials: list[Denial], request: HttpRequest) -> PolicyDenial:
        unauthenticated = [denial for denial in denials if _status(denial) == 401]
        others = [denial for denial in denials if _status(denial) != 401]
        if unauthenticated and others:
            return PolicyDenial.of(others[0] if request.user.is_authenticated else unauthenticated[0])
        return PolicyDenial.of(denials[0])


class Not(Combination):
    """Allows what the policy denies, and denies what it allows with a 403. Exceptions still deny.

    Of ``~~ByKey()`` the user stays, as of ``ByKey()``: where ``~ByKey()`` denies, ``ByKey()`` has allowed that user.
    """

    operator = "~"
    blocks = Combination.blocks

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)

    def check(self, request: HttpRequest) -> Answer:
        policy = self.policies[0]
        return (ask if isinstance(policy, Not) else _ask_operand)(policy, request) is not None

    async def acheck(self, request: HttpRequest) -> Answer:
        policy = self.policies[0]
        return await (aask if isinstance(policy, Not) else _aask_operand)(policy, request) is not None

    def needs_loop(self) -> bool | None:
        return self.policies[0].needs_loop()

    def __repr__(self) -> str:
        (policy,) = self.policies
        return f"~({policy!r})" if isinstance(policy, (And, Or)) else f"~{policy!r}"


def policies_within(policy: Policy) -> Iterator[Policy]:
    """`policy` itself, or the policies that it combines."""
    if isinstance(policy, Combination):
        for each in policy.policies:
            yield from policies_within(each)
    else:
        yield policy


def depends_on_user(policy: Policy) -> bool:
    """Whether `policy`, or one that it combines, needs the user."""
    return any(each.needs_user for each in policies_within(policy))


def first_anonymous_denial(policies: tuple[Policy, ...]) -> tuple[Policy | None, Deny | bool | None]:
    """The first of `policies` that does not allow an anonymous user whatever the request is, and its denial."""
    for policy in policies:
        denial = policy.anonymous_denial()
        if denial is not True:
            return policy, denial
    return None, True


def _status(denial: Denial) -> int:
    return denial.status if isinstance(denial, Deny) else denial.status_code
