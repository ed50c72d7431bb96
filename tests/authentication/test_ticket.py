"""Tickets: one use, one user, one path, some seconds, and only as long as the log-in that has asked for them."""

import asyncio
import re
import socket
import time
from types import ModuleType, SimpleNamespace

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.contrib.auth.models import AnonymousUser
from django.core import signing
from django.core.cache import cache, caches
from django.test import Client
from django.urls import path

from channels_wsdeny import Deny, DenyMiddlewareStack, views
from channels_wsdeny.authentication import TicketAuthentication, issue_ticket, ticket
from channels_wsdeny.concurrency import run_in_threadpool
from channels_wsdeny.decorators import login_required
from tests.support.caches import cache_settings
from tests.support.clients import knock
from tests.support.sockets import accept_as_user, consumer

pytestmark = pytest.mark.django_db


members = login_required(consumer(accept_as_user)).as_asgi()
application = DenyMiddlewareStack(members, authentication=[TicketAuthentication()])


async def use(given, where="/ws/room/", **scope):
    answer = await knock(application, f"{where}?ticket={given}", **scope)
    if answer.status == 401:
        assert (answer.header("www-authenticate"), answer.problem["code"]) == ("Ticket", "invalid_credentials")
    return answer.header("x-user") or answer.status


async def issue(request, path, **options):
    return await run_in_threadpool(lambda: issue_ticket(request, path, **options))


def of(user, session=None):
    return SimpleNamespace(user=user, **({} if session is None else {"session": session}))


@pytest.fixture(params=["session", "token"])
def request_of_alice(request, users, sessions):
    return of(users["alice"], sessions["alice"] if request.param == "session" else None)


async def test_a_ticket_lets_its_user_in_once_at_its_path(request_of_alice):
    given = await issue(request_of_alice, "wss://example.com/ws/room/?x=1")
    assert await use(given, "/ws/other/") == 401
    assert await use(given) == "alice"
    assert await use(given) == 401
    assert not re.search(r"alice|room|session", given)


@pytest.mark.parametrize("backend", ["locmem", "redis"])
async def test_of_fifty_handshakes_with_one_ticket_one_is_accepted(backend, request_of_alice, settings):
    settings.CACHES = cache_settings(backend)
    given = await issue(request_of_alice, "/ws/room/")
    found = await asyncio.gather(*(use(given) for _ in range(50)))
    assert sorted(found, key=str) == [401] * 49 + ["alice"]


async def test_paths_are_compared_as_the_server_decodes_them(request_of_alice):
    given = await issue(request_of_alice, "/ws/r%C3%A4um%20/")
    assert await use(given, "/ws/r\u00e4um /") == "alice"
    given = await issue(request_of_alice, "/app/ws/")
    assert await use(given, "/app/ws/", root_path="/app") == "alice"


@pytest.mark.parametrize("given", ["", "x", "x:y:z", "{forged}", "{other}", "%00", "ä"])
async def test_what_was_not_issued_is_refused(given, request_of_alice):
    forged = signing.TimestampSigner(key="guessed", salt=ticket._SALT).sign("x")
    other = signing.TimestampSigner(salt="another").sign("x")
    assert await use(given.format(forged=forged, other=other)) == 401


@pytest.mark.parametrize(("age", "found"), [(29, "alice"), (31, 401)])
async def test_a_ticket_is_good_for_thirty_seconds(age, found, request_of_alice, monkeypatch):
    issued = time.time()
    monkeypatch.setattr(signing, "time", SimpleNamespace(time=lambda: issued))
    given = await issue(request_of_alice, "/ws/room/")
    monkeypatch.setattr(signing, "time", SimpleNamespace(time=lambda: issued + age))
    assert await use(given) == found


@pytest.mark.parametrize("change", ["password", "inactive", "deleted"])
async def test_a_ticket_ends_with_its_user_and_password(change, request_of_alice):
    given = await issue(request_of_alice, "/ws/room/")
    user = request_of_alice.user

    def do():
        if change == "deleted":
            user.delete()
            return
        user.is_active = change != "inactive"
        user.set_password("new")
        user.save()

    await run_in_threadpool(do)
    assert await use(given) == 401


@pytest.mark.parametrize("change", ["flush", "delete", "another user"])
async def test_a_ticket_ends_with_the_session_that_asked_for_it(change, users, sessions):
    session = sessions["alice"]
    given = await issue(of(users["alice"], session), "/ws/room/")

    def do():
        if change == "another user":
            session["_auth_user_id"] = str(users["bob"].pk)
            session["_auth_user_hash"] = users["bob"].get_session_auth_hash()
            session.save()
        else:
            getattr(session, change)()

    await run_in_threadpool(do)
    assert await use(given) == 401


@pytest.mark.parametrize("engine", ["db", "cached_db", "cache", "file", "signed_cookies"])
async def test_sessions_of_every_engine_may_ask(engine, users, settings, tmp_path):
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    settings.SESSION_FILE_PATH = str(tmp_path)

    def log_in():
        client = Client()
        client.force_login(users["alice"])
        return client.session

    session = await run_in_threadpool(log_in)
    for _ in range(2):
        given = await issue(of(users["alice"], session), "/ws/room/")
        assert await use(given) == "alice"
    given = await issue(of(users["alice"], session), "/ws/room/")
    await run_in_threadpool(session.flush)
    # Nothing is kept of a session in a signed cookie that could end.
    assert await use(given) == ("alice" if engine == "signed_cookies" else 401)


async def test_a_ticket_ends_with_a_session_that_has_the_key_of_its_user_written_otherwise(
    users, session_with_written_key
):
    given = await issue(of(users["alice"], session_with_written_key), "/ws/room/")
    await run_in_threadpool(session_with_written_key.flush)
    assert await use(given) == 401


async def test_the_password_of_a_token_s_user_counts_even_if_a_foreign_session_is_in_the_request(users, sessions):
    given = await issue(of(users["alice"], sessions["bob"]), "/ws/room/")
    assert await use(given) == "alice"


def test_anonymous_users_get_none(users):
    with pytest.raises(Deny) as found:
        issue_ticket(of(AnonymousUser()), "/")
    assert found.value.status == 401


@pytest.mark.parametrize("where", ["ws/room/", "", "?x=1", "wss://example.com", "wss://[example/"])
def test_a_path_that_no_handshake_has_gets_none(users, where):
    with pytest.raises(Deny, match=r"400 bad_request: The path of a ticket begins with a slash\."):
        issue_ticket(of(users["alice"]), where)


@pytest.fixture
def client(settings):
    """Django's client of a site with the view."""
    settings.ROOT_URLCONF = ModuleType("urls")
    settings.ROOT_URLCONF.urlpatterns = [path("ticket/", views.ticket)]
    return Client()


@pytest.fixture
def client_of_alice(client, users):
    client.force_login(users["alice"])
    return client


def test_the_view_issues_a_ticket_for_a_post_with_a_csrf_token(users, client):
    client.handler.enforce_csrf_checks = True
    assert client.get("/ticket/").status_code == 405
    client.force_login(users["alice"])
    assert client.post("/ticket/", {"path": "/ws/room/"}).status_code == 403
    client.cookies["csrftoken"] = "x" * 32
    token = {"headers": {"X-CSRFToken": "x" * 32}}
    assert client.post("/ticket/", **token).status_code == 400
    answer = client.post("/ticket/", {"path": "/ws/room/"}, **token)
    assert (answer.status_code, answer["Cache-Control"], answer.json()["expires_in"]) == (200, "no-store", 30)
    assert async_to_sync(use)(answer.json()["ticket"]) == "alice"
    del client.cookies[django_settings.SESSION_COOKIE_NAME]
    assert client.post("/ticket/", {"path": "/"}, **token).status_code == 401


@pytest.fixture
def redis_is_down(settings):
    """Redis is the cache, at a port where nothing listens for as long as it is bound."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        settings.CACHES = cache_settings("redis", f"redis://127.0.0.1:{bound.getsockname()[1]}/0")
        yield


def test_a_cache_that_is_down_is_a_503_of_the_handshake_and_of_the_view(client_of_alice, redis_is_down):
    never_kept = signing.TimestampSigner(salt=ticket._SALT).sign("x")
    assert async_to_sync(use)(never_kept) == 503
    assert client_of_alice.post("/ticket/", {"path": "/ws/room/"}).status_code == 503


def test_a_ticket_that_the_cache_does_not_keep_is_not_issued(client_of_alice, settings):
    settings.CACHES = {"default": {"BACKEND": "tests.support.caches.Silent"}}
    assert client_of_alice.post("/ticket/", {"path": "/ws/room/"}).status_code == 503


async def test_another_cache_may_keep_them(request_of_alice, settings):
    backend = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {"default": {"BACKEND": backend}, "tickets": {"BACKEND": backend, "LOCATION": "tickets"}}
    given = await issue(request_of_alice, "/ws/room/", cache="tickets")
    assert await use(given) == 401
    app = DenyMiddlewareStack(members, authentication=[TicketAuthentication(cache="tickets")])
    assert (await knock(app, f"/ws/room/?ticket={given}")).status == 101
    assert cache is not caches["tickets"]
