"""Notices log-outs and changed permissions: by signals of Django's models, and by the session engine.

A log-out is noticed by the ``delete()`` and ``cycle_key()`` of the engine, and the ``delete()`` of its rows, for a
session may end without `user_logged_out`.

Changes in a transaction are told once it is committed.
"""

from __future__ import annotations

import asyncio
import functools
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from importlib import import_module
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.contrib import auth
from django.core.exceptions import FieldDoesNotExist
from django.core.signals import setting_changed
from django.db import router, transaction
from django.db.models import ManyToManyRel
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete

from ..conf import conf
from ..handlers.recheck import key_in, key_name
from .channel_layer import publish
from .registry import hash_key, mask, name_of_row, registry
from .scheduler import running_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from django.db.models import Model

    from .registry import Event

#: Users whose keys one event names at most; with more, all sockets are asked again.
_MOST_USERS = 1000
#: Base classes of the models of tokens, whose rows may be deleted in a process that has had no socket with one.
_TOKENS = frozenset(
    {
        "rest_framework.authtoken.models.Token",
        "knox.models.AbstractAuthToken",
        "oauth2_provider.models.AbstractAccessToken",
    }
)
#: Base classes of guardian's models.
_GUARDIAN = frozenset(
    {"guardian.models.models.UserObjectPermissionBase", "guardian.models.models.GroupObjectPermissionBase"}
)


def connect() -> None:
    """Connect all receivers. Called once the apps are loaded."""
    _watch_site_engine()
    setting_changed.connect(_watch_site_engine, dispatch_uid="channels_wsdeny.live")
    registry.on_credentials = watch_credentials
    for model in apps.get_models():
        if _has_base(model, _TOKENS):
            watch_credentials(model)  # pragma: no cover - such apps are installed in processes of their own
    if not apps.is_installed("django.contrib.auth"):  # pragma: no cover - a site without it is a process of its own
        return
    user_model: Any = auth.get_user_model()
    for model in apps.get_models(include_auto_created=True):
        watch_model(model)
    watch_relations(user_model)


def watch_relations(user_model: Any) -> None:
    """Watch the groups and permissions of users, and the permissions of groups."""
    for name in ("groups", "user_permissions"):
        if (field := _relation(user_model, name)) is not None:
            named_by = _named_by(user_model, _key_to_users(field))
            _connect(m2m_changed, _users_changed, _through(field), user_model, name, _is_reverse(field), named_by)
            if not _through(field)._meta.auto_created:
                _watch_memberships(_through(field), user_model)
    if (field := _relation(_group_model(user_model), "permissions")) is not None:
        _connect(m2m_changed, _group_permissions_changed, _through(field), _is_reverse(field))
        if not _through(field)._meta.auto_created:  # whose rows are saved and deleted by themselves, too
            for signal in (post_save, post_delete):
                _connect(signal, _grant_changed, _through(field))


def _relation(model: Any, name: str) -> Any:
    """The many-to-many relation of this name, whichever of the two models has declared it; None without one."""
    with suppress(FieldDoesNotExist):
        field = model._meta.get_field(name)
        return field if field.many_to_many else None
    return None


def _is_reverse(field: Any) -> bool:
    """Whether the other model has declared the many-to-many relation."""
    return isinstance(field, ManyToManyRel)


def _through(field: Any) -> Any:
    """The model of the rows of a many-to-many relation."""
    return (field if _is_reverse(field) else field.remote_field).through


def _key_to_users(field: Any) -> Any:
    """The foreign key to users in the rows of a many-to-many relation between them and others."""
    name = field.field.m2m_reverse_field_name() if _is_reverse(field) else field.m2m_field_name()
    return _through(field)._meta.get_field(name)


def _named_by(user_model: Any, key: Any) -> str | None:
    """The field of users whose values a foreign key has (``to_field``); None for the primary key."""
    target = key.target_field
    return None if target.primary_key and _has_key_of(user_model, target.model) else target.name


def _group_model(user_model: Any) -> Any:
    """The model of the groups of users, which may be one of the site's own."""
    from django.contrib.auth.models import Group  # noqa: PLC0415 - models need loaded apps

    field = _relation(user_model, "groups")
    return Group if field is None else field.related_model._meta.concrete_model


def watch_model(model: type[Model]) -> None:
    """Watch the changes of `model` if it is that of users, groups or permissions, or a proxy of one.

    Those of a model that the one of users is derived from count, too: it has columns of users, such as ``is_active``.
    """
    from django.contrib.auth.models import Permission  # noqa: PLC0415

    user_model, concrete = auth.get_user_model(), model._meta.concrete_model or model
    if issubclass(model, user_model) or _has_key_of(user_model, model):
        _connect(post_save, _user_changed, model)
        _connect(post_delete, _user_changed, model)
    elif issubclass(user_model, concrete):  # with keys of its own
        _connect(post_save, _permission_changed, model)
    elif issubclass(model, _group_model(user_model)):
        _connect(post_save, _group_saved, model)
        _connect(pre_delete, _group_deleted, model)
    elif issubclass(model, Permission):
        _connect(post_save, _permission_changed, model)
        _connect(post_delete, _permission_changed, model)
    elif _has_base(model, _GUARDIAN):  # pragma: no cover - django-guardian is installed in a process of its own
        _connect(post_save, _object_permission_changed, model)
        _connect(post_delete, _object_permission_changed, model)


def _has_base(model: type[Model], names: frozenset[str]) -> bool:
    return not names.isdisjoint(f"{base.__module__}.{base.__name__}" for base in model.__mro__)


def _has_key_of(user_model: Any, model: type[Model]) -> bool:
    """Whether a row of `model`, which `user_model` is derived from, has the primary key of its user."""
    concrete, key = user_model._meta.concrete_model, user_model._meta.pk
    while concrete is not model._meta.concrete_model and key.remote_field is not None and key.remote_field.parent_link:
        concrete = key.remote_field.model
        key = concrete._meta.pk
    return concrete is model._meta.concrete_model


_connected: list[Any] = []


def _connect(signal: Any, receiver: Any, sender: Any, *given: Any) -> None:
    """Connect a receiver, which is given these arguments first, once: Django loads apps again in tests."""
    connected = functools.partial(receiver, *given)
    _connected.append(connected)  # Signals have weak references to their receivers.
    signal.connect(connected, sender=sender, dispatch_uid=("channels_wsdeny.live", receiver, sender, *given))


# Django's signals


def tell(event: Event, using: str | None = None) -> None:
    """Publish an event once the transaction on the database `using` is committed; None for none."""
    if not conf.LIVE:
        return
    if using is None or running_loop() is not None:
        publish(event)
        return
    try:
        transaction.on_commit(functools.partial(publish, event), using=using, robust=True)
    except transaction.TransactionManagementError:  # Without autocommit nothing tells of the commit.
        publish(event)


def _tell_users(keys: Any, using: str, named_by: str | None = None) -> None:
    """Have the sockets of users asked again; `keys` are values of the field `named_by`, or primary keys."""
    if named_by is not None and 0 < len(keys) <= _MOST_USERS:
        user_model: Any = auth.get_user_model()
        users = user_model._base_manager.using(using).filter(**{f"{named_by}__in": keys})
        keys = users.values_list("pk", flat=True)
    names = [key_name(key) for key in keys]
    if names:
        tell({"kind": "users", "users": names} if len(names) <= _MOST_USERS else {"kind": "all"}, using)


def _is_new(model: Any, sender: Any, *, created: bool) -> bool:
    """Whether a user or group was not there before: a row of a derived model may be made for one that was."""
    return created and not (issubclass(sender, model) and sender._meta.concrete_model is not model._meta.concrete_model)


def _user_changed(
    sender: Any, instance: Any, using: str, created: bool = False, update_fields: Any = None, **kwargs: Any
) -> None:
    is_new = _is_new(auth.get_user_model(), sender, created=created)
    if not is_new and not (update_fields is not None and set(update_fields) <= {"last_login"}):
        _tell_users([key_in(auth.get_user_model(), instance)], using)


def watch_credentials(model: type[Model]) -> None:
    """Have the deletion of a row of `model`, which holds credentials, close the sockets that it let in."""
    concrete = model._meta.concrete_model
    for each in {model, *(each for each in apps.get_models() if each._meta.concrete_model is concrete)}:  # and proxies
        _connect(post_delete, _credentials_deleted, each)


# Sites whose credentials are rows are processes of their own in tests.


def _credentials_deleted(  # pragma: no cover - see above
    sender: Any, instance: Any, using: str, **kwargs: Any
) -> None:
    tell({"kind": "credentials", "credentials": name_of_row(instance)}, using)
    if getattr(instance, "user_id", None) is not None:  # Streams may have credentials of their own.
        _tell_users([instance.user_id], using)


def _object_permission_changed(  # pragma: no cover - django-guardian is installed in a process of its own
    sender: Any, instance: Any, using: str, **kwargs: Any
) -> None:
    if getattr(instance, "user_id", None) is not None:
        if _is_guardians_anonymous(instance.user_id, using):
            tell({"kind": "all"}, using)  # Clients who are not logged in have its permissions.
        else:
            _tell_users([instance.user_id], using)
    elif getattr(instance, "group_id", None) is not None:
        tell({"kind": "group", "group": str(instance.group_id)}, using)


def _is_guardians_anonymous(key: Any, using: str) -> bool:  # pragma: no cover - see above
    from guardian.conf import settings as guardian  # noqa: PLC0415 - an optional dependency

    user_model: Any = auth.get_user_model()
    named = {user_model.USERNAME_FIELD: guardian.ANONYMOUS_USER_NAME}  # None where it is turned off
    found: bool = user_model._base_manager.using(using).filter(pk=key, **named).exists()
    return found


def _users_changed(
    user_model: Any,
    name: str,
    is_reverse: bool,
    named_by: str | None,
    sender: Any,
    instance: Any,
    action: str,
    reverse: bool,
    pk_set: Any,
    using: str,
    **kw: Any,
) -> None:
    """Groups or permissions of users have changed, from their side or from that of a group.

    `reverse` tells from which, and means the other one if the relation `is_reverse`, declared by the model of groups.
    """
    if reverse == is_reverse:
        if action in {"post_add", "post_remove", "post_clear"}:
            _tell_users([key_in(user_model, instance)], using)
    elif action == "pre_clear":  # Afterwards it is not known any more who it was.
        users = user_model._base_manager.using(using).filter(**{name: instance})
        _tell_users(users.values_list("pk", flat=True)[: _MOST_USERS + 1], using)
    elif action in {"post_add", "post_remove"}:
        _tell_users(pk_set, using, named_by)


def _watch_memberships(through: Any, user_model: Any) -> None:
    """Watch the rows of a model of the site's own between users and their groups or permissions.

    `m2m_changed` does not tell of those that are saved and deleted by themselves, as inlines of the admin do.
    """
    fields = [field for field in through._meta.fields if field.many_to_one]  # no generic one
    to_users = [field for field in fields if issubclass(user_model, field.related_model)]
    users = tuple((field.attname, _named_by(user_model, field)) for field in to_users)
    for signal in (post_save, post_delete):
        _connect(signal, _membership_changed, through, users)


def _membership_changed(
    users: tuple[tuple[str, str | None], ...],
    sender: Any,
    instance: Any,
    using: str,
    created: bool | None = None,
    **kwargs: Any,
) -> None:
    if created is False:  # It may have been that of another user.
        tell({"kind": "all"}, using)
        return
    for name, named_by in users:
        key = getattr(instance, name)
        _tell_users([] if key is None else [key], using, named_by)


def _group_permissions_changed(
    is_reverse: bool, sender: Any, instance: Any, action: str, reverse: bool, pk_set: Any, using: str, **kwargs: Any
) -> None:
    if action not in {"post_add", "post_remove", "post_clear"}:
        return
    if reverse == is_reverse:
        _tell_group(instance, using)
    elif action == "post_clear":
        tell({"kind": "all"}, using)
    else:
        for key in pk_set:
            tell({"kind": "group", "group": str(key)}, using)


def _grant_changed(sender: Any, using: str, **kwargs: Any) -> None:
    """A row between groups and permissions was saved or deleted; it may name its group in any way."""
    tell({"kind": "all"}, using)


def _group_saved(sender: Any, instance: Any, using: str, created: bool, **kwargs: Any) -> None:
    if not _is_new(_group_model(auth.get_user_model()), sender, created=created):  # It may have another name.
        _tell_group(instance, using)


def _tell_group(group: Any, using: str) -> None:
    tell({"kind": "group", "group": str(key_in(_group_model(auth.get_user_model()), group))}, using)


def _group_deleted(sender: Any, instance: Any, using: str, **kwargs: Any) -> None:
    user_model: Any = auth.get_user_model()
    if _relation(user_model, "groups") is not None:
        users = user_model._base_manager.using(using).filter(groups=instance)
        _tell_users(users.values_list("pk", flat=True)[: _MOST_USERS + 1], using)


def _permission_changed(sender: Any, using: str, created: bool = False, **kwargs: Any) -> None:
    if not created:
        tell({"kind": "all"}, using)


# The session engine


def _watch_site_engine(setting: str = "SESSION_ENGINE", **kwargs: Any) -> None:
    if setting == "SESSION_ENGINE":
        with suppress(Exception):  # An engine that cannot be imported: Django says so where it is used.
            watch_engine(import_module(settings.SESSION_ENGINE).SessionStore)


def watch_engine(engine: Any) -> None:
    """Have the ``delete`` and ``cycle_key`` of a session engine tell, however they are called.

    So does ``save`` after a ``cycle_key``, for signed cookies get another key by each change: the new password hash of
    `update_session_auth_hash`, for one. And after a ``clear``, which leaves a session without its user.

    Signals of the model would not do: three of the five engines have none, and a receiver makes ``clearsessions`` 27
    times slower.
    """
    if "_wsdeny_is_watched" in vars(engine):
        return
    engine._wsdeny_is_watched = True
    delete, adelete, cycle, acycle = engine.delete, engine.adelete, engine.cycle_key, engine.acycle_key
    save, asave, clear = engine.save, engine.asave, engine.clear

    @functools.wraps(delete)
    def watched_delete(self: Any, session_key: str | None = None) -> None:
        key = self.session_key if session_key is None else session_key
        with _Telling(self, key) as telling:
            delete(self, session_key)
        telling.ended(key)

    @functools.wraps(adelete)
    async def watched_adelete(self: Any, session_key: str | None = None) -> None:
        key = self.session_key if session_key is None else session_key
        with _Telling(self, key) as telling:
            async with _told_if_cancelled(self, telling.ended, key):
                await adelete(self, session_key)
        await _in_its_thread(self, telling.ended, key)

    @functools.wraps(cycle)
    def watched_cycle_key(self: Any) -> None:
        key = self.session_key
        self._wsdeny_is_cycled = True
        with _Telling(self, key) as telling:
            cycle(self)
        telling.moved(key, self.session_key)

    @functools.wraps(acycle)
    async def watched_acycle_key(self: Any) -> None:
        key = self.session_key
        self._wsdeny_is_cycled = True
        with _Telling(self, key) as telling:
            async with _told_if_cancelled(self, telling.ended, key):  # Its client never gets the new key.
                await acycle(self)
        await _in_its_thread(self, telling.moved, key, self.session_key)

    @functools.wraps(clear)
    def watched_clear(self: Any) -> None:
        if self.session_key is not None:
            self._wsdeny_is_cleared = True
        clear(self)

    @functools.wraps(save)
    def watched_save(self: Any, must_create: bool = False) -> None:
        key, telling = self.session_key, _Telling(self, None)  # Not entered: an engine may delete as it saves.
        save(self, must_create)
        telling.saved(key, self.session_key)

    @functools.wraps(asave)
    async def watched_asave(self: Any, must_create: bool = False) -> None:
        key, telling = self.session_key, _Telling(self, None)
        async with _told_if_cancelled(self, telling.saved, key, key):
            await asave(self, must_create)
        if _has_changed(self):
            await _in_its_thread(self, telling.saved, key, self.session_key)

    engine.delete, engine.adelete = watched_delete, watched_adelete
    engine.cycle_key, engine.acycle_key = watched_cycle_key, watched_acycle_key
    engine.save, engine.asave, engine.clear = watched_save, watched_asave, watched_clear
    if hasattr(engine, "_get_session_from_db"):
        _name_by_stored_key(engine)
    if hasattr(engine, "get_model_class"):
        _watch_rows(engine.get_model_class())


async def _in_its_thread(store: Any, tell_of: Callable[..., None], *keys: str | None) -> None:
    """Tell of a session in the thread of its database, where that may be in a transaction."""
    if _database_of(store) is None:
        tell_of(*keys)
        return
    try:
        await sync_to_async(tell_of)(*keys)
    except asyncio.CancelledError:  # It may never run there.
        tell_of(*keys)
        raise


@asynccontextmanager
async def _told_if_cancelled(store: Any, tell_of: Callable[..., None], *keys: str | None) -> AsyncIterator[None]:
    """Tell of a change that is cancelled, as by a client that has left: what has begun in a thread goes on there."""
    try:
        yield
    except asyncio.CancelledError:
        await _in_its_thread(store, tell_of, *keys)
        raise


def _watch_rows(model: Any) -> None:
    """Have the ``delete`` of a session's row tell, by which a site may end the other sessions of a user."""
    if "_wsdeny_is_watched" in vars(model):
        return
    model._wsdeny_is_watched = True
    delete = model.delete

    @functools.wraps(delete)
    def watched_delete(self: Any, *args: Any, **kwargs: Any) -> Any:
        key, using = self.session_key, kwargs.get("using") or next(iter(args), None)
        deleted = delete(self, *args, **kwargs)
        if key not in _ending.get():
            tell({"kind": "session", "sessions": [hash_key(key)]}, using or router.db_for_write(type(self)))
        return deleted

    model.delete = watched_delete


def _name_by_stored_key(engine: Any) -> None:
    """Have a session go by the key that its database has for it.

    MySQL also finds it by one that differs in case or accents, by which no log-out would find its sockets.
    """
    find, afind = engine._get_session_from_db, engine._aget_session_from_db

    def stored(session: Any, row: Any) -> Any:
        if row is not None:
            session._session_key = row.session_key
        return row

    @functools.wraps(find)
    def named_find(self: Any) -> Any:
        return stored(self, find(self))

    @functools.wraps(afind)
    async def named_afind(self: Any) -> Any:
        return stored(self, await afind(self))

    engine._get_session_from_db, engine._aget_session_from_db = named_find, named_afind


#: The keys of the sessions whose engine ends or renews them just now: the end of their rows is told by that.
_ending: ContextVar[frozenset[str | None]] = ContextVar("wsdeny_ending", default=frozenset())


class _Telling:
    """A change of one session store, told once although one method of an engine calls another."""

    def __init__(self, store: Any, key: str | None) -> None:
        self._store, self._key = store, key
        self._is_outermost = "_wsdeny_telling" not in vars(store)

    def __enter__(self) -> _Telling:
        if self._is_outermost:
            self._store._wsdeny_telling = True
        self._token = _ending.set(_ending.get() | {self._key})
        return self

    def __exit__(self, *args: Any) -> None:
        _ending.reset(self._token)
        if self._is_outermost:
            del self._store._wsdeny_telling

    def ended(self, key: str | None) -> None:
        """The session `key` is not there any more."""
        if self._is_outermost:
            vars(self._store).pop("_wsdeny_is_cleared", None)  # by `flush()`
            if key:
                tell({"kind": "session", "sessions": [hash_key(key)]}, _database_of(self._store))

    def moved(self, old: str | None, new: str | None) -> None:
        """The session `old` is now `new`; if it was emptied, it has ended."""
        if self._is_outermost and vars(self._store).pop("_wsdeny_is_cleared", False):
            self.ended(old)
        elif self._is_outermost and old and new and old != new:
            event = {"kind": "moved", "sessions": [hash_key(old)], "masked": mask(new, old)}
            tell(event, _database_of(self._store))

    def saved(self, old: str | None, new: str | None) -> None:
        """The session was saved, as `new`."""
        if _has_changed(self._store):
            self.moved(old, new)


def _has_changed(store: Any) -> bool:
    """Whether a session was emptied, or got another key."""
    return not vars(store).keys().isdisjoint({"_wsdeny_is_cleared", "_wsdeny_is_cycled"})


def _database_of(store: Any) -> str | None:
    """The database of a session engine; None for one without."""
    model = store.get_model_class() if hasattr(store, "get_model_class") else None
    return None if model is None else router.db_for_write(model)
