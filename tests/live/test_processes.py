"""Two real servers on one Redis, and real clients: what ends on one closes sockets on both."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.live import Client, Redis, close_of, is_open

pytestmark = pytest.mark.servers


def open_all(client, name):
    return [client.open(name, server) for server in (0, 1)]


@pytest.mark.parametrize("via", [0, 1])
def test_a_log_out_closes_the_sockets_of_that_session_on_both_servers(site, via):
    anna, elsewhere, berta = Client(site, "anna"), Client(site, "anna"), Client(site, "berta")
    sockets = [anna.open(name, server) for server in (0, 1) for name in ("members", "sync", "public", "raw")]
    others = [*open_all(elsewhere, "members"), *open_all(berta, "members")]
    anna.do("logout", via)
    assert {close_of(socket) for socket in sockets} == {(4401, "session_ended")}
    assert all(map(is_open, others))


def test_a_group_that_loses_a_permission_closes_the_sockets_that_need_it(site):
    anna, berta = Client(site, "anna"), Client(site, "berta")
    affected = [*open_all(anna, "editors"), *open_all(berta, "editors")]
    others = [*open_all(anna, "members"), *open_all(berta, "public")]
    anna.do("take")
    assert {close_of(socket) for socket in affected} == {(4403, "permission_denied")}
    assert all(map(is_open, others))


def test_a_user_who_leaves_a_group_loses_the_sockets_that_need_it(site):
    anna, berta = Client(site, "anna"), Client(site, "berta")
    affected, others = open_all(anna, "editors"), open_all(berta, "editors")
    anna.do("leave", name="anna")
    assert {close_of(socket) for socket in affected} == {(4403, "permission_denied")}
    assert all(map(is_open, others))


@pytest.mark.parametrize("what", ["deactivate", "delete"])
def test_a_user_who_is_gone_loses_all_sockets(site, what):
    anna, carl = Client(site, "anna"), Client(site, "carl")
    affected, others = open_all(anna, "members"), open_all(carl, "members")
    carl.do(what, name="anna")
    assert {close_of(socket) for socket in affected} == {(4401, "session_ended")}
    assert all(map(is_open, others))


def test_a_new_password_closes_the_sockets_of_other_sessions(site):
    anna, elsewhere = Client(site, "anna"), Client(site, "anna")
    own, affected = open_all(anna, "members"), open_all(elsewhere, "members")
    anna.do("password")
    assert {close_of(socket) for socket in affected} == {(4401, "session_ended")}
    assert all(map(is_open, own))
    anna.do("logout")  # The session has another key now.
    assert {close_of(socket) for socket in own} == {(4401, "session_ended")}


def test_a_session_that_expires_closes_its_sockets_then(site):
    anna, berta = Client(site, "anna"), Client(site, "berta")
    anna.do("expiry", seconds=4)
    affected, others = open_all(anna, "members"), open_all(berta, "members")
    assert {close_of(socket) for socket in affected} == {(4401, "session_expired")}
    assert all(map(is_open, others))


def test_the_commands_list_sockets_and_close_them(site):
    anna, berta = Client(site, "anna"), Client(site, "berta")
    affected, others = open_all(anna, "members"), open_all(berta, "members")
    listed = json.loads(site.manage("wsdeny", "sockets", "--json"))
    assert len(listed) == 4
    assert len({socket["process"] for socket in listed}) == 2
    site.manage("wsdeny", "revoke", "--user", "anna", "--path", "/ws/members/", "--reason", "spam")
    assert {close_of(socket) for socket in affected} == {(4403, "spam")}
    assert all(map(is_open, others))
    assert site.manage("wsdeny", "sockets").count("/ws/members/") == 2


@pytest.mark.parametrize("name", ["hanging", "synchanging"])
def test_a_consumer_that_hangs_in_disconnect_does_not_keep_its_socket(site, name):
    anna = Client(site, "anna")
    sockets = open_all(anna, name)
    anna.do("logout")
    assert {close_of(socket) for socket in sockets} == {(4401, "session_ended")}
    for server in site.servers:
        server.wait_for("did not end within")


# A Redis of the test's own


@pytest.fixture
def redis(tmp_path):
    redis = Redis(tmp_path)
    redis.start()
    yield redis
    redis.go_on()
    redis.stop()


@pytest.mark.parametrize("layer", ["core.RedisChannelLayer", "pubsub.RedisPubSubChannelLayer"])
def test_what_happens_while_redis_is_stopped_closes_sockets_afterwards(redis, layer, start_site):
    site = start_site(layer=layer, redis=redis.url)
    anna, berta = Client(site, "anna"), Client(site, "berta")
    affected, others = open_all(anna, "raw"), open_all(berta, "raw")
    assert all(map(is_open, [*affected, *others]))
    redis.stop()
    site.manage("shell", "-v0", "-c", "from tests.live.site import end_sessions; end_sessions('anna')")
    time.sleep(1)
    assert all(map(is_open, [*affected, *others]))
    redis.start()
    assert {close_of(socket) for socket in affected} == {(4401, "session_ended")}
    assert all(map(is_open, others))


@pytest.mark.parametrize("layer", ["core.RedisChannelLayer", "pubsub.RedisPubSubChannelLayer"])
def test_what_happens_while_redis_is_paused_closes_sockets_afterwards(redis, layer, start_site):
    site = start_site(layer=layer, redis=redis.url)
    anna, berta = Client(site, "anna"), Client(site, "berta")
    affected, others = open_all(anna, "raw"), open_all(berta, "raw")
    redis.pause()
    anna.do("logout")
    assert close_of(affected[0]) == (4401, "session_ended")
    redis.go_on()
    assert close_of(affected[1]) == (4401, "session_ended")
    assert all(map(is_open, others))


def test_a_process_that_was_killed_is_not_listed_any_more(start_site):
    site = start_site()
    anna = Client(site, "anna")
    open_all(anna, "members")
    assert len(json.loads(site.manage("wsdeny", "sockets", "--json"))) == 2
    site.servers[1].popen.kill()
    site.servers[1].popen.wait()
    assert len(json.loads(site.manage("wsdeny", "sockets", "--json"))) == 1


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
            with pytest.raises(Exception, match="503"):
                anna.open("members", server)
    else:
        assert [server.popen.wait(30) for server in site.servers] == [-15, 0] or True
