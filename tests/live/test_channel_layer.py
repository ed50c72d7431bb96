"""What processes tell each other, and what they do if they cannot."""

import asyncio
import sys
import threading
import time

import pytest

from channels_wsdeny.decorators import require
from channels_wsdeny.live import arevoke, asockets, channel_layer, revoke, sockets
from channels_wsdeny.live.registry import registry
from tests.support.clients import GUARD
from tests.support.layers import FakeLayer
from tests.support.opened import Opened
from tests.support.policies import Switch
from tests.support.processes import run_python
from tests.support.sockets import consumer
from tests.support.threads import until, wait_until

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("hasty")]
OTHER = "another:1:abc"


@pytest.fixture
async def layer(monkeypatch, settings):
    """A layer that leads to other processes, whose messages the test makes up."""
    settings.CHANNELS_WSDENY = {"HEARTBEAT": 0.05}
    layer = FakeLayer()
    monkeypatch.setattr(channel_layer, "get_layer", lambda: layer)
    for name, seconds in {"_OVERTAKEN": 0.05, "_RETRY": 0.01, "_SENDING": 0.1, "_SUBSCRIBING": 0.2}.items():
        monkeypatch.setattr(channel_layer, name, seconds)
    channel_layer.sender.reset()
    yield layer
    subscription = channel_layer.sender.subscription
    if channel_layer.sender._timer is not None:
        channel_layer.sender._timer.cancel()
    channel_layer.sender.reset()
    if subscription is not None and subscription.loop is asyncio.get_running_loop():
        tasks = {subscription.task, subscription._beating}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def opened_by(policy):
    """A socket that was let in by `policy`."""
    return await Opened(require(policy)(consumer()).as_asgi()).accepted()


@pytest.fixture
async def socket(layer):
    """An open socket, and the `policy` that has let it in."""
    policy = Switch()
    socket = await opened_by(policy)
    await until(lambda: policy.asked == 2)  # again, as the process has just subscribed
    policy.asked, socket.policy = 0, policy
    yield socket
    await socket.leave()


def events_sent(layer):
    """Those of each message but heartbeats, which a timer of the test before may send here as well."""
    return [message["events"] for message in layer.sent if "events" in message]


async def say(layer, number, *events, **more):
    await layer.group_send(channel_layer.GROUP, {"process": OTHER, "number": number, "events": events, **more})


async def test_events_are_sent_once_and_not_applied_twice(layer, socket):
    channel_layer.publish({"kind": "all"})
    await until(lambda: events_sent(layer))
    await asyncio.sleep(0.2)
    assert events_sent(layer) == [[{"kind": "all"}]]
    assert socket.policy.asked == 1


@pytest.mark.parametrize("numbers", [[3, 5], [3, 9]])
async def test_a_message_that_is_missing_has_all_sockets_asked_again(numbers, layer, socket, caplog):
    for number in numbers:
        await say(layer, number)
    await until(lambda: socket.policy.asked == 1)
    assert "were lost" in caplog.text


async def test_a_message_of_a_process_that_was_silent_is_missed_too(layer, socket):
    await say(layer, 3)
    subscription = channel_layer.sender.subscription
    await until(lambda: OTHER in subscription._silent)
    await say(layer, 5)
    await until(lambda: socket.policy.asked == 1)


@pytest.mark.usefixtures("socket")
async def test_the_longest_silent_processes_are_forgotten(layer, monkeypatch):
    monkeypatch.setattr(channel_layer, "_MOST_SILENT", 2)
    for name in "abc":
        await layer.group_send(channel_layer.GROUP, {"process": name, "number": 3})
    subscription = channel_layer.sender.subscription
    await until(lambda: [*subscription._silent] == ["b", "c"])


@pytest.mark.parametrize("numbers", [[3, 4, 5], [3, 5, 4, 6], [3]])
async def test_messages_that_overtake_others_are_no_gap(numbers, layer, socket):
    for number in numbers:
        await say(layer, number)
    await asyncio.sleep(0.2)
    assert socket.policy.asked == 0


@pytest.mark.parametrize("mode", ["fails", "hangs", "loses"])
async def test_a_layer_that_was_away_has_all_sockets_asked_again(mode, layer, socket):
    layer.mode = mode
    await asyncio.sleep(0.4)
    assert socket.server.kinds == ["websocket.accept"]
    socket.policy.answer = False
    if mode != "loses":  # else it is noticed, again and again, while that goes on
        layer.mode = None
    assert await socket.close() == (4403, "permission_denied")


async def test_a_busy_event_loop_loses_no_revocation(layer, socket):
    """It comes round too seldom for the time limits of its heartbeats, and yet it hears all that it is told."""

    async def be_busy():
        while True:
            time.sleep(0.15)
            await asyncio.sleep(0)

    layer.rounds = 4
    channel, busy = channel_layer.sender.subscription.channel, asyncio.ensure_future(be_busy())
    for number in range(5):
        await asyncio.sleep(0.3)
        path = "/room/" if number == 4 else "/"
        await say(layer, number, {"kind": "revoke", "path": path, "code": 4403, "reason": "spam"})
    busy.cancel()
    assert await socket.close() == (4403, "spam")
    assert channel_layer.sender.subscription.channel == channel


async def test_a_receiver_that_fails_subscribes_again(layer, socket):
    socket.policy.answer = False
    layer.queues[channel_layer.sender.subscription.channel].put_nowait(ConnectionError())
    assert await socket.close() == (4403, "permission_denied")


async def test_a_layer_that_swallows_a_cancellation_does_not_keep_the_loop_from_ending(layer, settings, monkeypatch):
    settings.CHANNELS_WSDENY = {"HEARTBEAT": 3600}
    receiving = asyncio.Event()

    async def swallow(channel):
        receiving.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise TimeoutError from None

    monkeypatch.setattr(layer, "receive", swallow)
    subscription = channel_layer.Subscription(layer)
    await receiving.wait()
    for task in (subscription.task, subscription._beating):
        task.cancel()
    done, _ = await asyncio.wait({subscription.task, subscription._beating}, timeout=GUARD)
    assert len(done) == 2


async def test_a_message_that_is_not_understood_is_logged_and_others_are_taken(layer, socket, caplog):
    await layer.group_send(channel_layer.GROUP, {"type": "of another package"})
    revocation = {"kind": "revoke", "path": "/room/", "code": 4403, "reason": "spam"}
    await say(layer, 1, {"kind": "of a later version"}, {"without": "a kind"}, revocation)
    assert await socket.close() == (4403, "spam")
    assert "could not be understood" in caplog.text


def test_a_layer_that_cannot_be_made_is_none(settings):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "nowhere.Layer"}}
    assert channel_layer.get_layer() is None


async def test_the_first_handshake_waits_for_a_layer_for_a_moment_only(layer):
    layer.group_add = lambda *args: asyncio.sleep(3600)
    socket = await opened_by(Switch())
    assert channel_layer.subscribe() is None  # The next one would wait for nothing.
    await socket.leave()


@pytest.mark.usefixtures("socket")
async def test_what_could_not_be_sent_is_sent_later(layer):
    layer.mode = "fails"
    channel_layer.publish({"kind": "users", "users": ["1"]})
    await asyncio.sleep(0.1)
    layer.mode = None
    await until(lambda: any("events" in message for message in layer.sent))


@pytest.mark.parametrize("mode", ["fails", "hangs"])
async def test_a_revocation_that_cannot_be_sent_raises_once_the_own_sockets_are_closed(mode, layer, socket):
    layer.mode = mode
    with pytest.raises((ConnectionError, TimeoutError)):
        await arevoke(path="/room/")
    assert (await socket.close())[0] == 4403


@pytest.mark.usefixtures("socket")
async def test_sockets_of_other_processes_are_listed(layer):
    task = asyncio.ensure_future(asockets())
    await until(lambda: any("asks" in message for message in layer.sent))
    asks = next(message["asks"] for message in layer.sent if "asks" in message)
    described = {"path": "/there/", "user": None, "consumer": None, "since": 0.0, "process": OTHER}
    await layer.send(asks["channel"], {"process": OTHER, "reply": asks["name"], "sockets": [described]})
    assert [each["path"] for each in await task] == ["/room/", "/there/"]


async def test_a_process_tells_another_of_its_sockets(layer):
    began = time.time()
    socket = await opened_by(Switch())
    mine = await layer.new_channel()
    await say(layer, 1, asks={"channel": mine, "name": "x"})
    reply = await layer.receive(mine)
    (told,) = reply["sockets"]
    assert (reply["reply"], told["path"]) == ("x", "/room/")
    assert began <= told["since"] <= time.time()
    await socket.leave()


@pytest.mark.usefixtures("socket")
async def test_the_channel_of_a_process_that_is_silent_is_taken_out_of_the_group(layer):
    theirs = await layer.new_channel()
    await layer.group_add(channel_layer.GROUP, theirs)
    await say(layer, 1, channel=theirs)
    await until(lambda: theirs not in layer.groups[channel_layer.GROUP])
    assert channel_layer.sender.subscription.channel in layer.groups[channel_layer.GROUP]


async def test_the_channel_of_a_process_is_told_before_its_first_heartbeat(layer, settings):
    settings.CHANNELS_WSDENY = {"HEARTBEAT": 3600}
    socket = await opened_by(Switch())
    assert [message["channel"] for message in layer.sent] == [channel_layer.sender.subscription.channel]
    await socket.leave()


def test_a_process_without_sockets_sends_some_events_at_once_and_gathers_what_follows(layer, monkeypatch):
    monkeypatch.setattr(channel_layer, "_GATHERING", 0.1)
    monkeypatch.setattr(channel_layer, "_SPAN", 3600.0)
    for number in range(100):
        channel_layer.publish({"kind": "users", "users": [str(number)]})
    wait_until(lambda: sum(map(len, events_sent(layer))) == 100)
    assert [len(events) for events in events_sent(layer)[:20]] == [1] * 20
    assert len(events_sent(layer)) < 25
    assert [message["number"] for message in layer.sent] == list(range(len(layer.sent)))


def test_a_process_whose_layer_is_away_goes_on_and_sends_later(layer, caplog):
    layer.mode = "fails"
    channel_layer.publish({"kind": "all"})
    assert "cannot be told" in caplog.text
    layer.mode = None
    wait_until(lambda: events_sent(layer))
    assert events_sent(layer)[0] == [{"kind": "all"}]


async def test_a_process_with_an_event_loop_and_no_sockets_sends_later_what_it_could_not(layer, caplog):
    layer.mode = "fails"
    channel_layer.publish({"kind": "all"})
    await until(lambda: "cannot be told" in caplog.text)
    layer.mode = None
    await until(lambda: events_sent(layer))
    assert events_sent(layer)[0] == [{"kind": "all"}]


async def test_many_events_of_a_process_with_an_event_loop_and_no_sockets_have_one_timer(layer, monkeypatch):
    """Each is a thread."""
    begun = []
    monkeypatch.setattr(channel_layer.sender, "_flush_later", begun.append)
    for _ in range(3):
        channel_layer.publish({"kind": "all"})
    await until(lambda: events_sent(layer))
    assert (events_sent(layer), len(begun)) == ([[{"kind": "all"}] * 3], 1)


@pytest.mark.parametrize("is_begun", [False, True])
def test_what_a_loop_that_ends_at_once_has_not_sent_is_sent_all_the_same(is_begun, layer, settings, monkeypatch):
    """Under WSGI, each asynchronous view has a loop of its own."""
    settings.CHANNELS_WSDENY = {"HEARTBEAT": 3600}
    monkeypatch.setattr(channel_layer, "_GATHERING", 0.1)
    layer.mode = "hangs" if is_begun else None

    async def view():
        channel_layer.publish({"kind": "all"})
        if is_begun:
            await asyncio.sleep(0.02)

    asyncio.run(view())
    layer.mode = None
    wait_until(lambda: events_sent(layer))
    assert events_sent(layer) == [[{"kind": "all"}]]


_COMMAND = """
import asyncio, sys, types

class Layer:
    async def group_send(self, group, message):
        await asyncio.get_running_loop().getaddrinfo("localhost", 6379)  # as a client of Redis does
        print(*(event["kind"] for event in message["events"]), flush=True)

sys.modules["site_layer"] = types.SimpleNamespace(Layer=Layer)
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["channels_wsdeny"], CHANNEL_LAYERS={"default": {"BACKEND": "site_layer.Layer"}})
django.setup()
from channels_wsdeny.live import channel_layer
"""

_MANY = """
channel_layer._SPAN = 3600.0
for number in range(23):
    channel_layer.publish({"kind": number})
"""

_JOB = """
import os
if os.fork() == 0:
    for kind in ("first", "second", "third"):
        channel_layer.publish({"kind": kind})
    os._exit(0)
os.wait()
"""


@pytest.mark.servers
def test_what_waits_is_sent_as_the_process_ends():
    """By then no thread can be started for it."""
    at_once = "\n".join(map(str, range(20)))
    assert run_python(_COMMAND + _MANY) == (f"{at_once}\n20 21 22", "")


@pytest.mark.servers
def test_what_a_job_in_a_forked_process_changes_is_sent_though_nothing_runs_as_that_ends():
    """As those of RQ, and of multiprocessing, do."""
    assert run_python(_COMMAND + _JOB) == ("first\nsecond\nthird", "")


def test_what_cannot_be_sent_as_the_process_ends_is_logged(layer, caplog):
    layer.mode = "fails"
    channel_layer.sender.flush_at_exit()
    assert caplog.text == ""
    closing = [{"kind": "session", "sessions": ["x"]}, {"kind": "revoke", "path": "/"}]
    asking = [{"kind": "users", "users": [str(number)]} for number in range(1001)]
    channel_layer.sender._waiting.extend([*asking, *closing])
    channel_layer.sender.flush_at_exit()
    assert "cannot be told" in caplog.text
    assert channel_layer.sender._waiting == [{"kind": "all"}, *closing]


def test_revoke_and_sockets_are_for_synchronous_code_too(layer, monkeypatch):
    monkeypatch.setattr(sys.modules["channels_wsdeny.live.revoke"], "_ANSWERING", 0.05)
    revoke(path="/room/")
    assert layer.sent[0]["events"][0]["path"] == "/room/"
    assert sockets() == []


async def test_an_event_loop_subscribes_once_the_one_that_had_has_ended(layer):
    ready, may_end = threading.Event(), threading.Event()

    async def there():
        socket = await opened_by(Switch())
        ready.set()
        await asyncio.to_thread(may_end.wait)
        await socket.leave()

    thread = threading.Thread(target=lambda: asyncio.run(there()))
    thread.start()
    await until(ready.is_set)
    first = await opened_by(Switch())
    may_end.set()
    await until(lambda: not thread.is_alive())
    second = await opened_by(Switch())
    await say(layer, 1, {"kind": "revoke", "path": "/room/", "code": 4403, "reason": ""})
    assert [(await each.close())[0] for each in (first, second)] == [4403, 4403]


async def test_the_sockets_of_several_event_loops_are_closed(layer):
    mine, codes = await opened_by(Switch()), []

    async def there():
        socket = await opened_by(Switch())
        ready.set()
        codes.append((await socket.close())[0])

    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(there()))
    thread.start()
    await until(ready.is_set)
    assert len(registry.sockets()) == 2
    assert len(layer.groups[channel_layer.GROUP]) == 1  # One subscription for all event loops.
    await say(layer, 1, {"kind": "revoke", "path": "/room/", "code": 4403, "reason": ""})
    assert (await mine.close())[0] == 4403
    await until(lambda: not thread.is_alive())
    assert codes == [4403]
