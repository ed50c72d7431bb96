"""Policies: what they may answer, how they combine and print, and which of their checks is asked."""

import asyncio
import threading
from abc import ABC, abstractmethod
from itertools import product
from unittest import mock

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from hypothesis import example, given
from hypothesis import strategies as st

from channels_wsdeny import Deny, policies
from channels_wsdeny.decorators import require
from channels_wsdeny.policies import AllowAny, IsAuthenticated, IsStaff, IsSuperuser, MaxConnections, Policy, Throttle
from channels_wsdeny.policies.base import aask, ask, policies_within
from channels_wsdeny.policies.permissions import HasPermission, InGroup, UserPassesTest, UserPolicy
from tests.support.policies import AsyncCheck, Check, alice, anonymous, boss, raising, request_of, root, status

# A response that is discarded closes old database connections.
pytestmark = pytest.mark.django_db


# Any expression gives what this model says, which shares no code with the package.
#: What a leaf answers, and the outcome: True, the status of a denial, or the exception that comes out.
LEAVES = {
    "yes": (lambda request: True, True),
    "no": (lambda request: False, 403),
    "log in": (lambda request: Deny(401), 401),
    "teapot": (lambda request: Deny(418), 418),
    "gone": (lambda request: HttpResponse(status=410), 410),
    "raises": (raising(ZeroDivisionError), ZeroDivisionError),
    "raises 403": (raising(PermissionDenied), PermissionDenied),
    "raises Deny": (raising(lambda: Deny(402)), Deny),
    **{
        f"wrong {name}": (lambda request, wrong=wrong: wrong() if callable(wrong) else wrong, TypeError)
        for name, wrong in {
            **{repr(value): value for value in (None, 0, 1, "yes", "", (), [True], {})},
            "object": object,
            "policy": lambda: AllowAny(),
            "class": lambda: Deny,
            "200": lambda: HttpResponse("fine"),
            "101": lambda: HttpResponse(status=101),
            "coroutine": lambda: asyncio.sleep(0, True),
        }.items()
    },
}
TREES = st.recursive(
    st.tuples(st.sampled_from(sorted(LEAVES)), st.sampled_from([Check, AsyncCheck])),
    lambda trees: st.tuples(st.just("~"), trees) | st.tuples(st.sampled_from("&|"), trees, trees),
    max_leaves=6,
)


def build(tree, asked):
    if tree[0] == "~":
        return ~build(tree[1], asked)
    if tree[0] in "&|":
        left, right = (build(part, asked) for part in tree[1:])
        return left & right if tree[0] == "&" else left | right
    name, kind = tree

    def function(request):
        asked.append(name)
        answer = LEAVES[name][0](request)
        # What a coroutine function returns is awaited by the one that defines it; here it must come out as it is.
        return asyncio.sleep(0, answer) if kind is AsyncCheck else answer

    return kind(function)


def model(tree, asked, is_anonymous):
    if tree[0] == "~":
        outcome = model(tree[1], asked, is_anonymous)
        return outcome if isinstance(outcome, type) else 403 if outcome is True else True
    if tree[0] in "&|":
        return combined(tree[0], [*parts(tree[0], tree)], asked, is_anonymous)
    asked.append(tree[0])
    return LEAVES[tree[0]][1]


def parts(operator, tree):
    """The operands of an operator; those of nested ones of its kind are its own."""
    for part in tree[1:]:
        yield from parts(operator, part) if part[0] == operator else [part]


def combined(operator, operands, asked, is_anonymous):
    denials = []
    for operand in operands:
        outcome = model(operand, asked, is_anonymous)
        if isinstance(outcome, type) or (outcome is True) is (operator == "|"):
            return outcome
        if outcome is not True:
            if operator == "&":
                return outcome
            denials.append(outcome)
    if operator == "&":
        return True
    unauthenticated, others = [d for d in denials if d == 401], [d for d in denials if d != 401]
    return (unauthenticated if is_anonymous else others)[0] if unauthenticated and others else denials[0]


def outcome_of(denial):
    if isinstance(denial, Exception) and not isinstance(denial, Deny):
        return type(denial)
    return True if denial is None else getattr(denial, "status", None) or denial.status_code


@given(TREES, st.sampled_from([anonymous, alice]))
@example(("~", ("wrong 200", Check)), alice)
@example(("|", ("wrong 200", AsyncCheck), ("yes", Check)), alice)
@example(("|", ("teapot", Check), ("log in", AsyncCheck)), anonymous)
def test_an_expression_answers_as_its_parts_and_asks_no_further_than_needed(tree, user):
    asked = []
    right = model(tree, asked, user is anonymous)
    expected = right, asked
    for run in (ask, async_to_sync(aask)):
        seen = []
        try:
            found = outcome_of(run(build(tree, seen), request_of(user)))
        except (TypeError, ZeroDivisionError, PermissionDenied, Deny) as error:
            found = next(
                kind for kind in (TypeError, ZeroDivisionError, PermissionDenied, Deny) if isinstance(error, kind)
            )
        assert (found, seen) == expected


class Lost(Policy):
    async def acheck(self, request):
        return await super().acheck(request)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Lost(), "Lost has no base class with a check() or acheck()"),
        (Check(lambda request: HttpResponse("fine")), "Check() denied with a response of status 200"),
        (Check(lambda request: asyncio.sleep(0, True)), "A check that is a coroutine function is named acheck()"),
        (type("Empty", (Policy,), {})(), "Empty has neither check() nor acheck()"),
    ],
)
async def test_what_is_no_answer_is_a_500_and_the_log_says_what_to_write(policy, message, caplog):
    assert [await status(combined, root) for combined in (policy, ~policy, policy | AllowAny())] == [500] * 3
    assert message in caplog.text


@pytest.mark.parametrize("other", [True, None, "IsStaff()", IsStaff, lambda user: True])
def test_a_policy_combines_with_policies_only_and_by_no_other_operator(other):
    for use in (lambda p: p & other, lambda p: p | other, lambda p: other & p, lambda p: other | p):
        with pytest.raises(TypeError, match=r"unsupported operand|is a class of policies"):
            use(IsStaff())
    for use in (lambda p: p and other, lambda p: p or other, lambda p: not p):
        with pytest.raises(TypeError, match=r"&, \| and ~"):
            use(IsStaff())


def is_alice(user):
    return user.username == "alice"


class Open(Policy):
    def check(self, request):
        return True


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("AllowAny() & DenyAll() & IsAuthenticated() & Open()", None),
        ("InGroup('ops') | InGroup(\"o'ps\", 'dev') | IsSuperuser()", None),
        ("HasPermission(['chat.view', 'chat.post'], obj=is_alice, anonymous=True)", None),
        ("HasPermission('chat.view') & ~~UserPassesTest(is_alice)", None),
        ("(IsStaff() | IsSuperuser()) & (DenyAll() | AllowAny())", None),
        ("~(~IsStaff() & ~(IsSuperuser() | DenyAll())) | IsStaff()", None),
        ("(IsStaff() & Open()) & (DenyAll() & IsStaff())", "IsStaff() & Open() & DenyAll() & IsStaff()"),
        ("IsStaff() | (Open() | (DenyAll() & IsStaff()))", "IsStaff() | Open() | DenyAll() & IsStaff()"),
        ("Throttle('1/s', key='ip', scope='a', cache='b', on_outage='allow') & MaxConnections(3, key='user')", None),
        ("Throttle('1/s', is_alice)", f"Throttle('1/s', key={__name__}.is_alice)"),
    ],
)
def test_a_policy_prints_as_it_was_written(written, printed):
    names = {**vars(policies), "Open": Open, "is_alice": is_alice}
    assert repr(eval(written, names)) == (printed or written)


class Both(Policy):
    """Notes which check ran, and whether on the event loop (the thread of the test)."""

    def __init__(self):
        self.ran = []

    def note(self, name):
        self.ran.append((name, threading.current_thread() is threading.main_thread()))
        return True

    def check(self, request):
        return self.note("check")

    async def acheck(self, request):
        return self.note("acheck")


class Sync(Both):
    def check(self, request):
        return self.note("check")


class Async(Both):
    async def acheck(self, request):
        return self.note("acheck")


def ask_socket(policy):
    return asyncio.run(status(policy))


def ask_view(policy):
    return require(policy)(lambda request: HttpResponse())(request_of(root)).status_code


def ask_async_view(policy):
    @require(policy)
    async def view(request):
        return HttpResponse()

    return asyncio.run(view(request_of(root))).status_code


@pytest.mark.parametrize(
    ("kind", "ask_it", "passes", "ran"),
    [
        (Both, ask_socket, 101, ("acheck", True)),
        (Both, lambda policy: ask_socket(Open() & policy), 101, ("check", False)),
        (Both, ask_view, 200, ("check", True)),
        (Both, ask_async_view, 200, ("acheck", True)),
        (Sync, ask_socket, 101, ("check", False)),
        (Sync, ask_view, 200, ("check", True)),
        (Sync, ask_async_view, 200, ("check", False)),
        (Async, ask_socket, 101, ("acheck", True)),
        (Async, ask_view, 200, ("acheck", False)),
        (Async, ask_async_view, 200, ("acheck", True)),
    ],
)
def test_of_two_checks_that_is_asked_which_suits_the_caller(kind, ask_it, passes, ran):
    policy = kind()
    assert (ask_it(policy), policy.ran) == (passes, [ran])


def check(self, request):
    return True


async def acheck(self, request):
    return True


@pytest.mark.parametrize(
    ("base", "methods", "message"),
    [
        (Policy, {"check": acheck}, r"Mine\.check\(\) is a coroutine function, which would not be awaited"),
        (Policy, {"acheck": check}, r"Mine\.acheck\(\) is no coroutine function"),
        (IsStaff, {"check": acheck}, r"Mine\.check\(\) is a coroutine function"),
        (IsStaff, {"allows": acheck}, r"Mine\.allows\(\) is a coroutine function"),
    ],
)
def test_a_check_that_could_not_be_asked_is_refused_when_the_class_is_made(base, methods, message):
    with pytest.raises(TypeError, match=message):
        type("Mine", (base,), methods)


class AsyncOnly(Policy):
    async def acheck(self, request):
        return True


@pytest.mark.parametrize(
    ("policy", "ignored", "asked"), [(Check(lambda request: True), "acheck", "check"), (AsyncOnly(), "check", "acheck")]
)
async def test_a_check_that_is_set_later_is_asked_or_refused_if_it_would_be_ignored(policy, ignored, asked):
    async def acheck(*args):
        return False

    checks = {"check": lambda *args: False, "acheck": acheck}
    for target in (type(policy), policy):
        with pytest.raises(TypeError, match=rf"{ignored} would be ignored, for {asked}\(\) is asked. Set that"):
            setattr(target, ignored, checks[ignored])
        assert await status(policy) == 101
        with mock.patch.object(target, asked, checks[asked]):
            assert await status(policy) == 403
    assert await status(policy) == 101


async def test_of_base_classes_the_nearest_with_a_check_is_asked():
    class Denies:
        async def acheck(self, request):
            return False

    class DeniesSync:
        def check(self, request):
            return False

    async def asynchronous(argument):
        return True

    arguments = {HasPermission: {"permission": "a.b", "obj": asynchronous}, UserPassesTest: {"test": asynchronous}}
    builtin = (IsAuthenticated, IsStaff, AllowAny, *arguments)
    for bases in [(Denies, Sync), (DeniesSync, Async), *product((Denies, DeniesSync), builtin)]:
        policy = type("Mine", bases, {})(**arguments.get(bases[1], {}))
        assert [await status(each, root) for each in (policy, Open() & policy)] == [403, 403], bases


@pytest.mark.parametrize("given", [None, True, False, HttpResponse("fine"), lambda: Deny(404)])
@pytest.mark.parametrize("kind", [Check, AsyncCheck])
async def test_a_denial_method_that_returns_no_denial_lets_nobody_in(kind, given):
    policy = type("Mine", (kind,), {"denial": lambda self: given})(lambda request: False)
    assert [await status(each, root) for each in (policy, ~policy, policy | policy)] == [500, 500, 500]


class Cooperates(Policy):
    def check(self, request):
        return super().check(request)


@pytest.mark.parametrize(
    "bases",
    [(Throttle, IsStaff), (IsStaff, Throttle), (IsStaff, InGroup), (AllowAny, HasPermission), (Async, IsStaff)]
    + [(IsStaff, Cooperates), (Cooperates, IsStaff), (Throttle, MaxConnections)]
    + [(IsStaff, type("Mixin", (), {name: acheck})) for name in ("allows", "check", "acheck")],
)
def test_a_class_of_two_policies_one_of_which_would_never_be_asked_is_an_error_that_says_so(bases):
    first, second = (base.__name__ for base in bases)
    with pytest.raises(TypeError, match=rf"would ask {first}, and never {second}.*{first}\(\.\.\.\) & {second}\("):
        type("Both", bases, {})


@pytest.mark.parametrize(
    ("bases", "own"),
    [((IsStaff, UserPolicy), {}), ((type("Mine", (IsStaff,), {}), IsStaff), {})]
    + [((Throttle, IsStaff), {"check": check}), ((IsStaff, InGroup), {"allows": lambda self, user: True})]
    + [((Policy, type("Declares", (ABC,), {"check": abstractmethod(lambda self, request: None)})), {})],
)
def test_a_class_of_two_policies_that_asks_both_or_neither_may_be_made(bases, own):
    assert issubclass(type("Both", bases, own), bases)


class Registered:
    """As of sites that keep a list of their policies: it does not call the method of its bases."""

    def __init_subclass__(cls, **kwargs):
        pass


#: As above, by a metaclass.
RegisteredByMeta = type("Meta", (type(Policy),), {"__init__": lambda cls, *args: None})("Mine", (AllowAny,), {})


@pytest.mark.parametrize(
    "bases", [(Registered, AllowAny), (type("Mine", (Registered, AllowAny), {}),), (RegisteredByMeta,)]
)
async def test_an_override_is_asked_where_a_method_that_notes_subclasses_does_not_go_on(bases):
    async def deny(self, request):
        return False

    metaclass = type(bases[0])
    assert await status(metaclass("Closed", bases, {"acheck": deny})(), root) == 403
    with pytest.raises(TypeError, match="is a coroutine function"):
        metaclass("Wrong", bases, {"check": deny})


def test_a_policy_class_may_have_any_keyword():
    class Named(Policy):
        def __init_subclass__(cls, name, **kwargs):
            cls.name = name

    class Mine(Named, name="mine"):
        pass

    assert Mine.name == "mine"


def test_what_a_class_says_of_its_own_check_does_not_count_for_an_override():
    issubclass(AllowAny, AllowAny)  # From then on ABCMeta keeps the answer, and had it for classes in the making.
    policy = type("Mine", (AllowAny,), {"check": check})()
    assert (policy.blocks(request_of(root)), policy.anonymous_denial()) == (True, None)


async def test_a_policy_made_of_policies_may_ask_them():
    either = IsStaff() | IsSuperuser()
    passes = UserPassesTest(lambda user: user.is_staff or user.is_superuser)
    for policy in (Check(either.check), AsyncCheck(either.acheck), AsyncCheck(passes.acheck)):
        assert [await status(policy, user) for user in (anonymous, alice, boss)] == [401, 403, 101]


@pytest.mark.parametrize("combine", [lambda a, b: a | b, lambda a, b: a & b, lambda a, b: ~IsStaff])
def test_a_class_that_is_combined_in_the_place_of_a_policy_is_an_error_that_says_so(combine):
    for operands in ((IsStaff, InGroup("ops")), (InGroup("ops"), IsStaff), (IsStaff, InGroup)):
        with pytest.raises(TypeError, match=r"IsStaff is a class of policies.* call it: IsStaff\(\.\.\.\)"):
            combine(*operands)


def test_a_policy_class_may_be_abstract_and_part_of_a_union_of_types():
    class Abstract(Policy, ABC):
        @abstractmethod
        def check(self, request): ...

    with pytest.raises(TypeError, match="abstract"):
        Abstract()
    type("Asks", (Abstract,), {"acheck": acheck})()  # It has a check by that.
    assert Abstract | None == None | Abstract
    assert isinstance(None, Abstract | None)


def test_only_operators_combine_policies_and_no_attribute_of_a_policy_of_ones_own():
    class Insured(Policy):
        def __init__(self, policies):
            self.policies = policies

        def check(self, request):
            return True

    insured, staff = Insured(3), IsStaff()
    assert [*policies_within(staff & (~insured | staff))] == [staff, insured, staff]
