"""Two real servers on one Redis, and real clients: what ends on one closes sockets on both."""

import asyncio
import json
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from itertools import product
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support.clients import GUARD
from tests.support.live import GRANIAN, HYPERCORN, Client, close_of, is_open
from tests.support.processes import run_python
from tests.support.threads import wait_until

pytestmark = pytest.mark.servers


def open_all(client, name):
    return [client.open(name, server) for server in (0, 1)]


def log_out(site, via=0, others=()):
    """A log-out on a server closes the sockets of that session on both, and no others."""
    anna, berta = Client(site, "anna"), Client(site, "berta")
    sockets = [anna.open(name, server) for server in (0, 1) for name in ("members", "sync", "public", "raw")]
    others = [*others, *open_all(berta, "members")]
    anna.do("logout", via)
    assert {close_of(socket) for socket in sockets} == {(4401, "session_ended")}
    assert all(map(is_open, others))


@pytest.mark.parametrize("via", [0, 1])
def test_a_log_out_closes_the_sockets_of_that_session_on_both_servers(site, via):
    log_out(site, via, open_all(Client(site, "anna"), "members"))


OTHER_SITES = [
    *({"engine": engine} for engine in ("cached_db", "cache", "file", "signed_cookies")),
    {"servers": (HYPERCORN, GRANIAN)},
]


@pytest.mark.parametrize("options", OTHER_SITES, ids=str)
def test_a_log_out_does_so_with_every_engine_and_on_hypercorn_and_granian_too(options, start_site):
    site = start_site(**options)
    log_out(site)
    assert json.loads(site.manage("wsdeny", "sockets", "--json"))[0]["path"] == "/ws/members/"


def test_a_permission_that_the_admin_takes_from_a_group_closes_the_sockets_that_need_it(site):
    anna, boss = Client(site, "anna"), Client(site, "boss")
    affected, others = open_all(anna, "editors"), [*open_all(anna, "members"), *open_all(boss, "editors")]
    key = re.search(r"/admin/auth/group/(\d+)/change/", boss.admin("auth/group"))[1]
    boss.admin(f"auth/group/{key}/change", name="editors")  # No permission is ticked.
    assert {close_of(socket) for socket in affected} == {(4403, "permission_denied")}
    assert all(map(is_open, others))


def test_a_synchronous_consumer_that_hangs_in_its_disconnect_keeps_no_connection_open(site):
    """Its thread cannot be ended, and it is the one in which Channels calls all consumers."""
    anna, berta = Client(site, "anna"), Client(site, "berta")
    sockets, others = open_all(anna, "sync-hanging"), open_all(berta, "raw")
    anna.do("logout")
    try:
        assert {close_of(socket) for socket in sockets} == {(4401, "session_ended")}
        assert all(map(is_open, others))
    finally:
        Path(site.environment["LIVE_FILES"], "go").touch()


def test_a_new_password_closes_the_sockets_of_other_sessions(site):
    anna, elsewhere = Client(site, "anna"), Client(site, "anna")
    own, affected = open_all(anna, "members"), open_all(elsewhere, "members")
    anna.do("password")
    assert {close_of(socket) for socket in affected} == {(4401, "session_ended")}
    assert all(map(is_open, own))
    anna.do("logout")  # The session has another key now.
    assert {close_of(socket) for socket in own} == {(4401, "session_ended")}


def test_the_commands_list_sockets_and_close_them(site):
    anna, berta = Client(site, "anna"), Client(site, "berta")
    affected, others = open_all(anna, "members"), open_all(berta, "members")
    listed = json.loads(site.manage("wsdeny", "sockets", "--json"))
    assert len(listed) == 4
    assert len({socket["process"] for socket in listed}) == 2
    told = site.manage("wsdeny", "revoke", "--user", "anna", "--path", "/ws/members/", "--reason", "spam")
    assert told == "The sockets that match, if any, are being closed: `wsdeny sockets` lists those that are open.\n"
    assert {close_of(socket) for socket in affected} == {(4403, "spam")}
    assert all(map(is_open, others))
    *table, _, summary = site.manage("wsdeny", "sockets").splitlines()
    assert ("".join(table).count("/ws/members/"), summary) == (2, "2 open.")


@pytest.mark.parametrize("via", [0, 1])
def test_the_admin_lists_sockets_of_both_servers_and_closes_the_selected_one(site, via):
    anna, boss = Client(site, "anna"), Client(site, "boss")
    others, selected = [*open_all(anna, "members"), anna.open("public", via)], anna.open("members", 1 - via)
    page = boss.admin("channels_wsdeny_admin/opensocket", via)
    keys = re.findall(r'name="_selected_action" value="(.*?)"', page)
    assert (len(keys), page.count("/ws/public/</bdi>"), "No channel layer" in page) == (4, 1, False)
    boss.admin("channels_wsdeny_admin/opensocket", via, _selected_action=keys[:1], post="yes")  # The newest is first.
    assert close_of(selected) == (4403, "revoked")
    assert all(map(is_open, others))


def test_the_admin_lists_denials_of_both_servers(site):
    boss, paths = Client(site, "boss"), ["/ws/nowhere/0/", "/ws/nowhere/1/"]
    for server in (0, 1):
        with pytest.raises(InvalidStatus):
            boss.open(f"nowhere/{server}", server)
    for server, path in product((0, 1), paths):
        wait_until(lambda server=server, path=path: path in boss.admin("channels_wsdeny_admin/denial", server))


async def crowd_of(site, clients):
    """Ten sockets for each of many users, over both servers; and the closes of all, once each user was banned.

    Those that stay open have (None, None).
    """

    def opening(client, server):
        url, headers = f"ws://127.0.0.1:{server.port}/ws/members/", {"Cookie": client.cookie}
        return stack.enter_async_context(connect(url, additional_headers=headers, open_timeout=GUARD, proxy=None))

    async with AsyncExitStack() as stack:
        sockets = [await opening(client, server) for client in clients for server in site.servers * 5]
        for number, client in enumerate(clients):
            await asyncio.to_thread(client.do, "ban", number % 2, name=f"user{number}")
        await asyncio.wait([asyncio.create_task(socket.wait_closed()) for socket in sockets], timeout=4 * GUARD)
        return Counter((socket.close_code, socket.close_reason) for socket in sockets)


def test_two_thousand_sockets_are_closed_by_two_hundred_revocations_and_no_others(site):
    berta = Client(site, "berta")
    berta.do("crowd", count=200)
    others = open_all(berta, "members")
    clients = [Client(site, f"user{number}") for number in range(200)]
    closes = asyncio.run(crowd_of(site, clients))
    assert closes == {(4403, f"banned user{number}"): 10 for number in range(200)}
    assert all(map(is_open, others))


FORK = """
import asyncio, os, django
django.setup()
from channels_wsdeny.decorators import public
from channels_wsdeny.live.registry import registry
from tests.support.opened import Opened
from tests.support.policies import accept

async def main():
    opened = await Opened(public(accept)).accepted()
    before = registry.process
    if os.fork() == 0:
        print(registry.sockets() == [], registry.process != before, registry.on_begin is not None, flush=True)
        os._exit(0)
    os.wait()
    print(len(registry.sockets()), flush=True)
    await opened.leave()

asyncio.run(main())
"""


def test_a_forked_child_has_none_of_the_sockets_of_its_parent():
    out, errors = run_python(FORK, settings="testproject.settings")
    assert out.split("\n") == ["True True True", "1"], errors


TOKENS = """
import asyncio, warnings
from tests.support.set_up import set_up
warnings.simplefilter("default")
set_up("rest_framework.authtoken", "knox", "oauth2_provider")
from datetime import timedelta
from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.auth.models import Group, User
from django.db.models.signals import post_delete
from django.utils import timezone
from knox.models import AuthToken
from oauth2_provider.models import AccessToken
from rest_framework.authtoken.models import Token
from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.concurrency import run_in_threadpool
from channels_wsdeny.decorators import login_required
from tests.support.opened import Opened

class ByRow:
    # Knows its user although the token is gone: what closes is the deleted row.
    def __init__(self, row):
        self.row = row

    def authenticate(self, request):
        return anna, self.row

anna = User.objects.create(username="anna")
soon = timezone.now() + timedelta(hours=1)
makers = {
    "rest_framework": lambda: Token.objects.create(user=User.objects.create(username="berta")),
    "knox": lambda: AuthToken.objects.create(anna)[0],
    "oauth2": lambda: AccessToken.objects.create(user=anna, token="one", expires=soon),
    "a model of the site": lambda: Group.objects.create(name="a key"),
}

print([bool(post_delete.has_listeners(model)) for model in (Token, AuthToken, AccessToken, Group)])

async def main():
    for name, make in makers.items():
        row = await run_in_threadpool(make)
        other = await run_in_threadpool(lambda: Group.objects.create(name="another", pk=99))
        consumer = login_required(type("Consumer", (AsyncWebsocketConsumer,), {})).as_asgi()
        opened, bystander = [
            await Opened(DenyMiddlewareStack(consumer, authentication=[ByRow(each)])).accepted()
            for each in (row, other)
        ]
        await run_in_threadpool(lambda: type(row).objects.filter(pk=row.pk).delete())
        print(name, await opened.close(), flush=True)
        await bystander.stays()
        await run_in_threadpool(other.delete)

asyncio.run(main())
"""


def test_a_row_that_is_credentials_ends_its_sockets_with_it():
    for package in ("rest_framework", "knox", "oauth2_provider"):
        pytest.importorskip(package)
    out, errors = run_python(TOKENS)
    watched, *closed = out.split("\n")
    names = ("rest_framework", "knox", "oauth2", "a model of the site")
    assert watched == "[True, True, True, False]", errors  # Another process may delete a token of a package.
    assert closed == [f"{name} (4401, 'invalid_credentials')" for name in names], errors


@pytest.mark.parametrize("layer", ["core.RedisChannelLayer", "pubsub.RedisPubSubChannelLayer"])
def test_what_happens_while_redis_is_paused_or_stopped_closes_sockets_afterwards(redis, layer, start_site):
    site = start_site(layer=layer, redis=redis.url)
    anna, berta = Client(site, "anna"), Client(site, "berta")
    affected, others = open_all(anna, "raw"), open_all(berta, "raw")
    redis.pause()
    anna.do("logout")
    assert close_of(affected[0]) == (4401, "session_ended")
    redis.go_on()
    assert close_of(affected[1]) == (4401, "session_ended")
    affected = open_all(Client(site, "anna"), "raw")
    assert all(map(is_open, [*affected, *others]))
    redis.stop()
    site.manage("shell", "-v0", "-c", "from tests.live.site import end_sessions; end_sessions('anna')")
    time.sleep(1)
    assert all(map(is_open, [*affected, *others]))
    redis.start()
    assert {close_of(socket) for socket in affected} == {(4401, "session_ended")}
    assert all(map(is_open, others))


@pytest.mark.parametrize("layer", ["core.RedisChannelLayer", "pubsub.RedisPubSubChannelLayer"])
def test_a_process_that_was_killed_is_not_listed_any_more_and_the_others_close_their_sockets(layer, start_site):
    site = start_site(layer=layer)
    anna, berta = Client(site, "anna"), Client(site, "berta")
    affected, other = open_all(anna, "members")[0], open_all(berta, "members")[0]
    assert len(json.loads(site.manage("wsdeny", "sockets", "--json"))) == 4
    site.servers[1].popen.kill()
    site.servers[1].popen.wait()
    assert len(json.loads(site.manage("wsdeny", "sockets", "--json"))) == 2
    site.manage("shell", "-v0", "-c", "from tests.live.site import end_sessions; end_sessions('anna')")
    assert close_of(affected) == (4401, "session_ended")
    assert is_open(other)


@pytest.mark.parametrize("how", ["sigterm", "command"])
def test_a_drained_server_closes_its_sockets_in_time_and_denies_new_ones(start_site, how):
    site = start_site(drain=1)
    anna = Client(site, "anna")
    sockets = [anna.open(name, server) for server in (0, 1) for name in ("members", "sync", "raw")]
    if how == "command":
        site.manage("wsdeny", "drain")
    else:
        for server in site.servers:
            server.popen.terminate()
    assert {close_of(socket)[0] for socket in sockets} == {1012}
    if how == "command":
        for server in (0, 1):
            with pytest.raises(InvalidStatus) as denied:
                anna.open("members", server)
            response = denied.value.response
            assert (response.status_code, int(response.headers["Retry-After"]) > 0) == (503, True)
    else:
        for server in site.servers:
            server.popen.wait(GUARD)


def denial_of(client, server):
    """The status of a server's denials, once there is one."""
    while True:
        try:
            client.open("members", server).close()
        except InvalidStatus as denied:
            return denied.response.status_code


def test_a_handshake_under_way_is_answered_before_a_drained_server_ends(start_site):
    site = start_site(drain=GUARD, timeout=GUARD)
    anna = Client(site, "anna")
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(anna.open, "waiting", server) for server in (0, 1)]
        for server in site.servers:
            server.wait_for("The policy waits.")
            server.popen.terminate()
        assert [denial_of(anna, server) for server in (0, 1)] == [503, 503]
        Path(site.environment["LIVE_FILES"], "go").touch()
        assert [close_of(each.result(GUARD))[0] for each in waiting] == [1012, 1012]
    for server in site.servers:
        server.popen.wait(GUARD)
