"""Policies made of functions, an application that accepts, users who ask them, and a backend of permissions."""

from collections.abc import Callable
from inspect import isawaitable
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import AnonymousUser
from django.test import RequestFactory

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import require
from channels_wsdeny.policies import Policy

from .clients import Answer, knock

User = get_user_model()
anonymous = AnonymousUser()
alice = User(pk=1, username="alice")
boss = User(pk=2, username="boss", is_staff=True)
root = User(pk=3, username="root", is_superuser=True)
#: Users by name, none of them in the database; the last two are not active.
USERS = {
    "anonymous": anonymous,
    **{user.username: user for user in (alice, boss, root)},
    "ex-boss": User(pk=4, username="ex-boss", is_staff=True, is_active=False),
    "ex-root": User(pk=5, username="ex-root", is_superuser=True, is_active=False),
}


def request_of(user: Any = anonymous, url: str = "/", **options: Any) -> Any:
    """A request of `user` for a view."""
    request = RequestFactory().get(url, **options)
    request.user = user
    return request


class ByName(BaseBackend):
    """Grants users and objects the permission that has their name. It has no asynchronous methods."""

    ahas_perm = None

    def has_perm(self, user_obj, perm, obj=None):
        return perm == f"site.{obj if obj is not None else user_obj.get_username() or 'anonymous'}"


class Check(Policy):
    """Answers what `function(request)` returns."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def check(self, request: Any) -> Any:
        return self.function(request)


class AsyncCheck(Check):
    """Answers what `function(request)` returns, or what that awaits."""

    async def acheck(self, request: Any) -> Any:
        answer = self.function(request)
        return await answer if isawaitable(answer) else answer


def raising(make: Callable[[], BaseException]) -> Callable[..., Any]:
    """A function for a policy, a hook or a consumer that raises a new exception each time."""

    def function(*args: Any, **kwargs: Any) -> Any:
        raise make()

    return function


def raising_app(error: BaseException) -> Any:
    """An ASGI application that raises this exception."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    return app


async def accept(scope: Any, receive: Any, send: Any) -> None:
    """An application that does nothing but accept: Channels' consumers hop by themselves."""
    await receive()
    await send({"type": "websocket.accept"})
    await receive()


async def change_session(scope: Any, receive: Any, send: Any) -> None:
    """As `accept`, and changes the session before."""
    scope["session"]["color"] = "red"
    await accept(scope, receive, send)


async def ask(policy: Policy, user: Any = anonymous, app: Any = accept, **scope: Any) -> Answer:
    """The answer to a handshake at `app` behind `policy`."""
    return await knock(DenyMiddlewareStack(require(policy)(app)), "/", user=user, **scope)


async def status(policy: Policy, user: Any = anonymous) -> int:
    """The status of that answer."""
    return (await ask(policy, user)).status


class Switch(Policy):
    """Answers what a test wants, and counts how often it was asked."""

    def __init__(self, answer=True):
        self.answer, self.asked = answer, 0

    def check(self, request):
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer
