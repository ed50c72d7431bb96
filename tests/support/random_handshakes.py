"""Random sites, clients and servers, held against a model of what may be accepted that shares no code with the package.

Whatever a site is made of and whatever its application does: nothing is accepted, and no connect event is seen, that
the model does not allow; every client that stays has one whole answer; no task is left.
"""

import asyncio
import contextlib
import functools
import sys
from dataclasses import dataclass, replace

from asgiref.sync import sync_to_async
from channels.consumer import AsyncConsumer, SyncConsumer
from channels.exceptions import StopConsumer
from channels.middleware import BaseMiddleware
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from channels.sessions import CookieMiddleware
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path, re_path
from django.urls.exceptions import Resolver404
from hypothesis import strategies as st

from channels_wsdeny import Deny, DenyMiddlewareStack, Hooks
from channels_wsdeny.decorators import require, with_hooks
from channels_wsdeny.policies import Policy
from tests.support import wrappers
from tests.support.clients import GUARD, websocket_scope
from tests.support.sockets import DENIAL, no_task_left

USERS = {name: get_user_model()(username=name, pk=number) for number, name in enumerate(("alice", "boss"), 1)}
USERS[""] = AnonymousUser()
ROOMS = ("a", "b")
EVERYONE, EVERYWHERE = frozenset(USERS), frozenset({None, *ROOMS})


# A site is a path of nodes, from the outside in, and an endpoint.


@dataclass(frozen=True)
class Rule:
    """What a policy or hook allows: these users in these rooms."""

    users: frozenset = EVERYONE
    rooms: frozenset = EVERYWHERE
    how: str = "loop"
    turns: int = 0
    no: str = "False"

    def allows(self, user, room):
        return user in self.users and room in self.rooms


SITE_DEFAULT = Rule(EVERYONE - {""})


@dataclass(frozen=True)
class Node:
    """A stack, guards, a router or a wrapper around the next node."""

    kind: str
    #: The default policy of a stack, or the policy of guards.
    rule: Rule | None = None
    #: A hook of a stack or of guards, by its kind.
    hook: tuple[str, Rule] | None = None
    #: What a router or wrapper puts into the scope.
    user: str | None = None
    room: str | None = None
    turns: int = 0
    decoys: tuple[bool, bool] = (False, False)


KNOWN = ("protocols", "cookies", "origins")
PASSIVE = ("Wrapper", "AppWrapper", "ApplicationWrapper", "Function", "with_wraps", "Peeks", "InTask", "own router")
RETRIES = ("retries", "retries in task", "asks again", "tries another")
UNKNOWN = {*PASSIVE, *RETRIES, "sets", "sets in place"}
BOUNDARIES = {*UNKNOWN, "middleware", "middleware in place"}


@dataclass(frozen=True)
class Site:
    nodes: tuple[Node, ...]
    endpoint: str
    rule: Rule | None = None
    script: tuple = ()
    user: str = ""
    #: Turns of the loop until the client leaves, and until the server cancels; None if they do not.
    leaves: int | None = None
    cancels: int | None = None
    slow_send: int = 0
    headers: tuple = ()
    #: Whether the server can send a response that denies (the extension ``websocket.http.response``).
    is_able: bool = True


# The model.


class Model:
    """What may be accepted at a site, and what must be. Over HTTP the default policy counts where the site says so."""

    def __init__(self, site, *, has_default=True):
        self.site, nodes = site, site.nodes
        self.users, self.rooms = [site.user], [None]
        for node in nodes:
            self.users.append(self.users[-1] if node.user is None else node.user)
            self.rooms.append(self.rooms[-1] if node.room is None else node.room)
        guards = {index: node.rule for index, node in enumerate(nodes) if node.kind == "guards" and node.rule}
        if site.rule:
            guards[len(nodes)] = site.rule
        allows = [rule.allows(*self.subject(index, BOUNDARIES)) for index, rule in guards.items()]
        allows.append(not has_default or self.default_allows(guards))
        hooked = [(user, *node.hook) for user, node in zip(self.users, nodes, strict=False) if node.hook]
        vetoes = {kind for user, kind, rule in hooked if user not in rule.users}
        self.may_run = all(allows) and not vetoes & {"request", "around before"}
        self.may_accept = self.may_run and not vetoes

    def subject(self, index, boundaries):
        """The user and room asked about at a node: all is known up to the next node that may change it."""
        while index < len(self.site.nodes) and self.site.nodes[index].kind not in boundaries:
            index += 1
        return self.users[index], self.rooms[index]

    def default_allows(self, guards):
        """Whether the default policy allows, where one is due: that of the nearest stack which has one."""
        nodes = self.site.nodes
        rules = {index: node.rule for index, node in enumerate(nodes) if node.kind == "stack"}
        nearest = max((index for index, rule in rules.items() if rule), default=None)
        if not rules:
            return True
        # That of the site is the outermost stack's: guards around it do not stand in for it.
        if guards and max(guards) > (min(rules) if nearest is None else nearest):
            return self.default_allows_within(max(guards), SITE_DEFAULT if nearest is None else rules[nearest])
        last = max(index for index, node in enumerate(nodes) if node.kind in {"stack", "guards"})
        user, room = self.subject(last, UNKNOWN)
        rule = SITE_DEFAULT if nearest is None else rules[nearest]
        # Another application that a wrapper tries first may make its route known to the layers around, and so may
        # middleware that changes the route in place.
        inside = [*zip(nodes, self.rooms, self.rooms[1:], strict=False)][last:]
        tried = [before for node, before, _ in inside if node.kind == "tries another"]
        changed = [after for node, _, after in inside if node.kind == "middleware in place"]
        return any(rule.allows(user, each) for each in (room, *tried, *changed))

    def default_allows_within(self, guard, rule):
        """Whether `rule` allows the user whom middleware sets inside the innermost guard, asked about another one.

        A user whom middleware further inside replaces does not count: the application runs for the last one.
        """
        user, _ = self.subject(guard, BOUNDARIES)
        last_user, room = self.subject(guard, UNKNOWN)
        return user == last_user or rule.allows(last_user, room)

    @property
    def may_look_cancelled(self):
        """Whether Python before 3.13 may take the timeout of a wrapper for a cancellation by the server.

        A task group inside it leaves a count of cancellations behind.
        """
        kinds = [node.kind for node in self.site.nodes]
        return sys.version_info < (3, 13) and "retries" in kinds and "InTask" in kinds[kinds.index("retries") :]

    @property
    def is_open(self):
        """Whether everything allows everyone."""
        rules = [
            self.site.rule,
            *(rule for node in self.site.nodes for rule in (node.rule, node.hook and node.hook[1])),
        ]
        return all(not rule or (rule.users, rule.rooms) == (EVERYONE, EVERYWHERE) for rule in rules)

    @property
    def must_accept(self):
        """Whether everything allows everyone, and nothing is out of the ordinary."""
        site = self.site
        if not self.is_open:
            return False
        if "" in self.users and not (site.nodes[0].kind == "stack" and site.nodes[0].rule):
            return False
        if site.leaves is not None or site.cancels is not None or any(node.kind in RETRIES for node in site.nodes):
            return False
        return [step[:2] for step in site.script[:1]] == [("accept", "plain")]


# The site that a model is about.


def answers(no):
    if no == "raises":
        raise PermissionDenied
    if no == "falls through":
        raise Resolver404({"path": ""})
    if no == "breaks":
        raise ZeroDivisionError
    return {"False": False, "None": None, "Deny": Deny(402), "response": HttpResponse(status=409)}[no]


def subject_of(request):
    match = request.resolver_match
    return request.user.get_username(), None if match is None else match.kwargs.get("room")


class Asks(Policy):
    """A policy that follows a rule."""

    def __init__(self, rule):
        self.rule = rule

    def needs_loop(self):
        return self.rule.how == "loop"

    def blocks(self, request):
        return self.rule.how == "thread"

    def check(self, request):
        if hasattr(request, "session"):
            request.session["seen"] = self.rule.turns == 3
        return True if self.rule.allows(*subject_of(request)) else answers(self.rule.no)

    async def acheck(self, request):
        for _ in range(self.rule.turns):
            await asyncio.sleep(0)
        return self.check(request)


def hooks_of(hook):
    """Hooks of one kind that deny those whom a rule does not allow, with a 410."""
    kind, rule = hook
    hooks = Hooks()

    def deny(request):
        return None if rule.allows(request.user.get_username(), None) else Deny(410)

    async def turns():
        for _ in range(rule.turns):
            await asyncio.sleep(0)

    async def hook(request, response=None):
        await turns()
        return deny(request)

    async def around(request, call_next):
        await turns()
        if kind == "around before" and (denial := deny(request)):
            return denial
        response = await call_next(request)
        await turns()
        return deny(request) or response

    if kind.startswith("around"):
        hooks.register(around, "around")
    elif rule.how == "loop":
        hooks.register(hook, kind)
    else:
        hooks.register(lambda request, response=None: deny(request), kind, blocking=rule.how == "thread")
    return hooks


class Retries(wrappers.Wrapper):
    """Cancels its application after some turns of the loop and runs it again, or runs it twice."""

    def __init__(self, inner, kind, turns):
        super().__init__(inner)
        self.kind, self.turns = kind, turns

    async def __call__(self, scope, receive, send):
        if self.kind == "retries":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.turns / 2000):
                    await self.inner(scope, receive, send)
        elif self.kind == "asks again":
            with contextlib.suppress(Exception):
                await self.inner(scope, receive, send)
        else:
            inner = self.inner if self.kind == "retries in task" else public_but_silent
            await for_turns(inner(scope, receive, send), self.turns)
        await self.inner(scope, receive, send)


@require(Asks(Rule(how="ready")))
async def public_but_silent(scope, receive, send):
    await receive()
    await receive()


async def for_turns(coroutine, turns):
    """Await `coroutine` for so many turns of the loop, then cancel it."""
    task = asyncio.ensure_future(coroutine)
    try:
        for _ in range(turns):
            if not task.done():
                await asyncio.sleep(0)
    finally:
        task.cancel()
        current, before = asyncio.current_task(), asyncio.current_task().cancelling()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        task.cancelled() or task.exception()
        if current.cancelling() > before:
            raise asyncio.CancelledError


def changed(node, scope):
    """The scope as a wrapper changes it."""
    if not node.kind.endswith("in place"):
        scope = {**scope, "url_route": {**scope.get("url_route", {"args": ()})}}
        scope["url_route"]["kwargs"] = {**scope["url_route"].get("kwargs", {})}
    if node.user is not None:
        scope["user"] = USERS[node.user]
    if node.room is not None:
        scope.setdefault("url_route", {"args": (), "kwargs": {}})["kwargs"]["room"] = node.room
    return scope


def setting(base, node):
    """A class of wrappers that change the scope."""

    class Sets(base):
        async def __call__(self, scope, receive, send):
            await self.inner(changed(node, scope), receive, send)

    return Sets


@require(Asks(Rule(frozenset())))
async def decoy(scope, receive, send):
    await send({"type": "websocket.accept", "subprotocol": "decoy"})


def around(node, app):
    if node.kind == "stack":
        hooks = hooks_of(node.hook) if node.hook else None
        return DenyMiddlewareStack(app, default_policy=node.rule and Asks(node.rule), hooks=hooks)
    if node.kind == "guards":
        app = require(Asks(node.rule))(app) if node.rule else app
        return with_hooks(hooks_of(node.hook))(app) if node.hook else app
    if node.kind in {"router", "own router"}:
        routes = [re_path(r"" if node.room is None else rf"^(?P<room>{node.room})/", app)]
        before, after = node.decoys
        routes = [path("nowhere/", decoy)] * before + routes + [re_path(r"", decoy)] * after
        return (URLRouter if node.kind == "router" else wrappers.OwnRouter)(routes)
    if node.kind == "protocols":
        return ProtocolTypeRouter({"websocket": app, "http": app})
    if node.kind in KNOWN:
        return CookieMiddleware(app) if node.kind == "cookies" else OriginValidator(app, ["*"])
    if node.kind in RETRIES:
        return Retries(app, node.kind, node.turns)
    if node.kind.startswith(("middleware", "sets")):
        return setting(BaseMiddleware if node.kind.startswith("middleware") else wrappers.Wrapper, node)(app)
    return getattr(wrappers, node.kind)(app)


def application(nodes, app):
    """`app` within what these nodes are, from the outside in."""
    return functools.reduce(lambda app, node: around(node, app), reversed(nodes), app)


class Running:
    """A site that runs for one client, and the server of that."""

    def __init__(self, site):
        self.site, self.sent, self.ran, self.has_begun = site, [], [], False
        self.accepted, self.over = asyncio.Event(), asyncio.Event()

    @property
    def application(self):
        return application(self.site.nodes, self.endpoint(self.site.endpoint))

    def endpoint(self, kind):
        running = self

        class Asynchronous(AsyncConsumer):
            async def websocket_connect(self, message):
                running.ran.append("connect")
                await running.perform(self.scope, running.no_event, self.send)

            async def websocket_disconnect(self, message):
                raise StopConsumer

        class Synchronous(SyncConsumer):
            def websocket_connect(self, message):
                running.ran.append("connect")
                for what, *_ in running.site.script:
                    if what in MESSAGES:
                        self.send({**MESSAGES[what]})
                    elif what in ERRORS:
                        raise ERRORS[what]()

            def websocket_disconnect(self, message):
                raise StopConsumer

        async def function(scope, receive, send):
            await running.perform(scope, receive, send)

        guard = (lambda app: app) if self.site.rule is None else require(Asks(self.site.rule))
        if kind == "function":
            return guard(function)
        consumer = guard(Synchronous if kind == "sync consumer" else Asynchronous)
        return type("Child", (consumer,), {})() if kind == "instance" else consumer.as_asgi()

    @staticmethod
    async def no_event():
        await asyncio.sleep(0)
        return {}

    async def perform(self, scope, receive, send):
        tasks = []
        try:
            for what, how, turns in self.site.script:
                step = self.step(what, scope, receive, send)
                if how == "task":
                    tasks.append(asyncio.ensure_future(step))
                elif how == "turns":
                    await for_turns(step, turns)
                else:
                    kinds = {"plain": (), "suppress": (Exception,), "suppress all": (BaseException,)}[how]
                    with contextlib.suppress(*kinds):
                        await step
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            raise
        finally:
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def step(self, what, scope, receive, send):
        if what == "receive":
            if (await receive()).get("type") == "websocket.connect":
                self.ran.append("connect")
        elif what == "session":
            scope["session"]["changed"] = True
        elif what == "sleep":
            await asyncio.sleep(0)
        elif what in ERRORS:
            raise ERRORS[what]()
        else:
            await send({**MESSAGES[what]})

    async def receive(self):
        if not self.has_begun:
            self.has_begun = True
            return {"type": "websocket.connect"}
        if self.site.leaves is None:
            await self.over.wait()
        for _ in range(self.site.leaves or 0):
            if not self.over.is_set():
                await asyncio.sleep(0)
        return {"type": "websocket.disconnect", "code": 1001}

    async def send(self, message):
        self.sent.append(message)
        if message["type"] == "websocket.accept":
            self.accepted.set()
        for _ in range(self.site.slow_send):
            await asyncio.sleep(0)

    async def run(self):
        """Run the site for the client; returns what it raised."""
        scope = websocket_scope(f"/{self.path}", user=USERS[self.site.user], session=SessionStore())
        scope["headers"] = [(b"host", b"testserver"), *self.site.headers]
        if not self.site.is_able:
            del scope["extensions"]
        async with no_task_left():
            task = asyncio.ensure_future(self.application(scope, self.receive, self.send))
            if self.site.cancels is not None:
                for _ in range(self.site.cancels):
                    await asyncio.sleep(0)
                task.cancel()
            elif self.site.leaves is None:
                accepted = asyncio.ensure_future(self.accepted.wait())
                await asyncio.wait({task, accepted}, timeout=GUARD, return_when="FIRST_COMPLETED")
                assert self.accepted.is_set() or task.done(), "no answer for long"
                for _ in range(20):
                    await asyncio.sleep(0)
                task.cancel()
            self.accepted.set()
            self.over.set()
            await asyncio.wait({task}, timeout=GUARD)
            assert task.done(), "the site goes on and on"
            await sync_to_async(lambda: None)()  # The thread of a synchronous consumer comes to its end.
        return None if task.cancelled() else task.exception()

    @property
    def path(self):
        routers = {"router", "own router"}
        return "".join(f"{node.room}/" for node in self.site.nodes if node.kind in routers and node.room)


MESSAGES = {
    "accept": {"type": "websocket.accept", "subprotocol": "endpoint"},
    "close": {"type": "websocket.close", "code": 4404, "reason": "No such room."},
    "text": {"type": "websocket.send", "text": "secret"},
    "start": {"type": "websocket.http.response.start", "status": 403, "headers": []},
    "body": {"type": "websocket.http.response.body", "body": b"no"},
    "unknown": {"type": "websocket.hello"},
}
ERRORS = {
    "falls through": lambda: Resolver404({"path": ""}),
    "denies": lambda: Deny(402),
    "breaks": ValueError,
    "is cancelled": asyncio.CancelledError,
}


# Strategies.

#: Headers that are no credentials, and open and close nothing; among them cookies and an origin of the site itself.
HEADERS = [
    (b"accept", b"text/html,*/*;q=0.8"),
    (b"accept-language", b"de, en;q=0.5"),
    (b"cookie", b"sessionid=" + b"a" * 32),
    (b"cookie", b"a=b"),
    (b"origin", b"http://testserver"),
    (b"authorization", b"Bearer unknown"),
    (b"x-\xff", b"\xff"),
]

users = st.sampled_from(sorted(USERS))
rooms = st.sampled_from(ROOMS)


@st.composite
def rules(draw, open_to_all=False):
    how, turns = draw(st.sampled_from(["loop", "loop", "ready", "thread"])), draw(st.integers(0, 3))
    if open_to_all or draw(st.booleans()):
        return Rule(how=how, turns=turns)
    no = draw(st.sampled_from(["False", "None", "Deny", "response", "raises", "falls through", "breaks"]))
    if draw(st.booleans()):
        return Rule(frozenset(draw(st.sets(users))), how=how, turns=turns, no=no)
    return Rule(rooms=frozenset(draw(st.sets(rooms))), how=how, turns=turns, no=no)


@st.composite
def hooks(draw, open_to_all):
    rule = draw(rules(open_to_all))
    kinds = ["request", "response", "around before", "around after"]
    return draw(st.sampled_from(kinds)), replace(rule, rooms=EVERYWHERE)


@st.composite
def nodes(draw, kinds, open_to_all):
    kind = draw(st.sampled_from(kinds))
    if kind in {"stack", "guards"}:
        hook, rule = draw(st.none() | hooks(open_to_all)), draw(st.none() | rules(open_to_all))
        return Node(kind, rule or (None if hook or kind == "stack" else Rule()), hook)
    if kind in {"router", "own router"}:
        return Node(kind, room=draw(st.none() | rooms), decoys=(draw(st.booleans()), draw(st.booleans())))
    if kind.startswith(("sets", "middleware")):
        # A route that an unknown wrapper changes in place may be known to the layers around it, or not.
        room = None if kind == "sets in place" else draw(st.none() | rooms)
        return Node(kind, user=draw(st.none() | users), room=room)
    return Node(kind, turns=draw(st.integers(0, 12)) if kind in RETRIES else 0)


ORDINARY = ["stack", "guards", "router", *KNOWN, *PASSIVE, "sets", "sets in place", "middleware", "middleware in place"]
FREQUENT = ["stack", "guards", "router", "sets", "middleware", "middleware in place"]
steps = st.tuples(
    st.sampled_from(["receive", "accept", "receive", "accept", "session", "sleep", *MESSAGES, *ERRORS]),
    st.sampled_from(["plain", "plain", "plain", "suppress", "suppress all", "task", "turns"]),
    st.integers(0, 4),
)


@st.composite
def sites(draw):
    open_to_all = draw(st.integers(0, 3)) == 0
    kinds = ORDINARY + FREQUENT + ([] if open_to_all and draw(st.booleans()) else [*RETRIES])
    path = draw(st.lists(nodes(kinds, open_to_all), max_size=6))
    outermost = draw(nodes(["stack", "stack", "stack", "guards"], open_to_all))
    patient = draw(st.booleans())
    script = draw(st.lists(steps, max_size=6))
    if draw(st.booleans()):
        script = [("accept", "plain", 0), *script]
    endpoints = ["function", "function", "consumer", "sync consumer"]
    if (outermost, *path)[-1].kind != "guards":  # A decorator refuses an instance.
        endpoints.append("instance")
    return Site(
        (outermost, *path),
        draw(st.sampled_from(endpoints)),
        draw(st.none() | rules(open_to_all)),
        tuple(script),
        draw(users),
        None if patient else draw(st.none() | st.integers(0, 12)),
        None if patient else draw(st.none() | st.integers(0, 30)),
        draw(st.integers(0, 2)),
        tuple(draw(st.lists(st.sampled_from(HEADERS), max_size=3, unique_by=lambda pair: pair[0]))),
        draw(st.sampled_from([True, True, False])),
    )


def hold(site):
    """Run a site, and hold it against its model."""
    model, running = Model(site), Running(site)
    # Where threads of a busy machine come late, what must be accepted would be denied.
    patience = {"ACCEPT_TIMEOUT": None} if model.must_accept else {}
    with override_settings(CHANNELS_WSDENY={**LIMITS, **patience}):
        raised = asyncio.run(running.run())
    kinds, accepted = [message["type"] for message in running.sent], False
    if "websocket.accept" in kinds:
        accepted = True
        assert kinds.index("websocket.accept") == 0
        assert running.sent[0]["subprotocol"] == "endpoint"
        assert model.may_accept, "accepted"
    elif kinds:
        denial = DENIAL if site.is_able else ["websocket.close"]
        assert kinds == denial[: len(kinds)]
        assert len(kinds) == len(denial) or site.cancels is not None
    else:
        assert site.leaves is not None or site.cancels is not None or model.may_look_cancelled, "no answer"
    assert raised is None or accepted, raised
    assert model.may_run or not running.ran, "the endpoint saw the connect event"
    assert accepted or not model.must_accept, "denied"


LIMITS = {"ACCEPT_TIMEOUT": 0.02, "POLICY_TIMEOUT": GUARD}
