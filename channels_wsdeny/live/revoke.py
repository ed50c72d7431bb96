"""Closing sockets by hand, and listing them."""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import connections, transaction
from django.db.models import Model

from ..conf import conf
from ..handlers.recheck import key_in, key_name
from ..headers import cut_reason
from . import channel_layer
from .registry import hash_key, registry
from .scheduler import running_loop

if TYPE_CHECKING:
    from .registry import Event

#: Seconds in which the other processes answer.
_ANSWERING = 1.0


def revoke(
    *,
    user: Any = None,
    session_key: str | None = None,
    path: str | None = None,
    host: str | None = None,
    reason: str = "",
    status: int = 403,
) -> None:
    """Close the sockets of a user (or a primary key), of a session, of a path or of a host, in all processes.

    With several arguments, it closes the sockets that match all of them. `host` is the one that the handshake was for,
    without a port. Clients get 4000 + `status`, and the reason (cut at 123 bytes; by default ``revoked``).

    Raises `TypeError` without any of the four or for what is not one user, `ValueError` for a path that does not begin
    with a slash, a status that is not 400-599 or a user without a primary key, and `RuntimeError` on an event loop,
    where `arevoke` is awaited. If the channel layer cannot be reached, it raises what the layer raises, once the
    sockets of this process are being closed.

    Within a transaction it does so at once, and again for those who have come back until that is committed.
    """
    _check_thread("revoke")
    event = _event(user, session_key, path, host, reason, status)
    _apply_at_commit(event)
    _apply_everywhere(event)


def revoke_each(sockets: Iterable[dict[str, Any]]) -> None:
    """Close these sockets alone, given as `sockets()` tells of them, with 4403. Raises as `revoke`."""
    each = [[socket["process"], socket["since"]] for socket in sockets]
    _apply_everywhere({"kind": "each", "sockets": each, "code": 4403, "reason": "revoked"})


def _apply_everywhere(event: dict[str, Any]) -> None:
    registry.handle(event)
    async_to_sync(channel_layer.sender.send_now)({"events": [event]})


def _apply_at_commit(event: Event) -> None:
    """Apply `event` once the transactions of this thread are committed: until then policies see what was before."""
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            again = functools.partial(channel_layer.publish, event)
            transaction.on_commit(again, using=connection.alias, robust=True)


async def arevoke(
    *,
    user: Any = None,
    session_key: str | None = None,
    path: str | None = None,
    host: str | None = None,
    reason: str = "",
    status: int = 403,
) -> None:
    """As `revoke`, for coroutines."""
    event = _event(user, session_key, path, host, reason, status)
    registry.handle(event)
    await channel_layer.sender.send_now({"events": [event]})


def _check_thread(name: str) -> None:
    """Raise `RuntimeError` on an event loop, which `name` would block."""
    if running_loop() is not None:
        raise RuntimeError(f"{name}() blocks, and was called on an event loop. There, await a{name}().")


def _event(
    user: Any, session_key: str | None, path: str | None, host: str | None, reason: str, status: int
) -> dict[str, Any]:
    if user is None and session_key is None and path is None and host is None:
        raise TypeError("revoke() takes a user, a session_key, a path or a host; found none of them.")
    if path is not None and not path.startswith("/"):
        raise ValueError(f"revoke(): a path begins with a slash, and has neither host nor scheme; found {path!r}.")
    if not 400 <= status <= 599:
        raise ValueError(f"revoke(): the status is 400-599, found {status!r}.")
    session = None if session_key is None else hash_key(session_key)
    name = None if user is None else _name(user)
    about = {"user": name, "session": session, "path": path, "host": None if host is None else host.lower()}
    return {"kind": "revoke", **about, "code": 4000 + status, "reason": cut_reason(reason or "revoked")}


def _name(user: Any) -> str:
    """A user, or a primary key as it may be written, as the string by which its sockets are found."""
    given = user.__class__  # not type(), for ``request.user`` is a lazy object, which is iterable
    is_several = issubclass(given, Iterable) and not issubclass(given, (str, tuple))  # A composite key is a tuple.
    if not _is_user(given) if issubclass(given, Model) else is_several:
        raise TypeError(
            f"revoke(user=...) takes one user of the site's model, or a primary key, found a {given.__name__}: it "
            "would close no sockets, or those of another user."
        )
    key = key_in(get_user_model(), user) if issubclass(given, Model) else getattr(user, "pk", user)
    if key is None:
        raise ValueError("revoke(): this user has no primary key, so it has no sockets.")
    return key_name(key)


def _is_user(given: type[Model]) -> bool:
    """Whether a model is the user model, is derived from it, or is one which that is derived from."""
    if not apps.is_installed("django.contrib.auth"):  # pragma: no cover - a site without it is a process of its own
        return False
    model = get_user_model()
    return issubclass(given, model) or issubclass(model, given)


def drain(  # pragma: no cover - for processes of servers
    seconds: float | None = None, *, everywhere: bool = False
) -> None:
    """Have the servers of this machine, or of all, close their sockets with 1012 and deny new ones with a 503.

    They do so within `seconds`, by default ``DRAIN_SECONDS``, until they end. Raises what the channel layer raises.
    """
    seconds = conf.DRAIN_SECONDS if seconds is None else seconds
    _apply_everywhere({"kind": "drain", "host": None if everywhere else registry.host, "seconds": seconds})


def sockets() -> list[dict[str, Any]]:
    """The open sockets of all processes: path, user, consumer, since when (a timestamp), and the process.

    Other processes have a second to answer.
    """
    _check_thread("sockets")
    subscription = channel_layer.current_subscription()
    if subscription is not None:
        return asyncio.run_coroutine_threadsafe(asockets(), subscription.loop).result()
    return async_to_sync(asockets)()


async def asockets() -> list[dict[str, Any]]:
    """As `sockets`, for coroutines."""
    found = registry.describe()
    layer = channel_layer.get_layer()
    if layer is None:
        return found
    name, replies = uuid.uuid4().hex, asyncio.Queue[Any]()
    subscription = channel_layer.current_subscription()
    receiving: asyncio.Task[None] | None = None
    if subscription is not None and subscription.channel is not None:
        subscription.replies[name], reply_channel = replies, subscription.channel
    else:
        reply_channel = await layer.new_channel()

        async def receive() -> None:
            while True:
                replies.put_nowait(await layer.receive(reply_channel))

        receiving = asyncio.create_task(receive())
    try:
        await channel_layer.sender.send_now({"asks": {"channel": reply_channel, "name": name}})
        with suppress(TimeoutError):
            async with asyncio.timeout(_ANSWERING):
                while True:
                    found += (await replies.get())["sockets"]
    finally:
        if receiving is not None:
            receiving.cancel()
            with suppress(BaseException):
                await receiving
        if subscription is not None:
            subscription.replies.pop(name, None)
    return found
