"""Tests of `account_site` as a site's own: unittest classes, which several test modules run."""
# ruff: noqa: PT009, PT027 - unittest's own style

from urllib.request import Request, urlopen

from asgiref.sync import SyncToAsync, async_to_sync
from channels.testing import ChannelsLiveServerTestCase
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import connections
from django.test import TestCase, TransactionTestCase, override_settings
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from channels_wsdeny.daphne.testing import DaphneProcess
from channels_wsdeny.testing import UvicornLiveServerTestCase, WebsocketClient, WebsocketCommunicator, assert_accepted

on_the_site = override_settings(
    ROOT_URLCONF="tests.support.account_site", ASGI_APPLICATION="tests.support.account_asgi.application"
)


class Sockets:
    def setUp(self):
        self.alice = get_user_model().objects.create_user("alice", password="secret")
        self.client = WebsocketClient()

    def tearDown(self):
        """No connection is shared any more."""
        own = connections["default"]
        there = SyncToAsync.single_thread_executor.submit(connections.all, initialized_only=True).result()
        self.assertFalse(own.allow_thread_sharing)
        self.assertNotIn("close_if_unusable_or_obsolete", vars(own))
        self.assertNotIn(own, there)

    async def test_a_socket_that_is_left_open_does_not_disturb_the_next_test(self):
        communicator = WebsocketCommunicator(None, "/ws/count/")
        await communicator.connect()
        self._left_open = communicator

    async def test_consumers_views_and_the_test_see_the_same_data(self):
        await self.client.aforce_login(self.alice)
        for number, path in enumerate(("/ws/members/", "/ws/sync/"), start=1):
            async with self.client.connect(path) as socket:
                await socket.send_json(f"friends {number}")
                self.assertEqual(await socket.receive_json(), ["alice", number])
                self.assertEqual(await Group.objects.acount(), number)
            self.assertEqual(await Group.objects.acount(), number)
        self.assertEqual((await self.client.get("/whoami/")).content, b"alice ")

    async def test_a_communicator_sees_the_same_data(self):
        await Group.objects.acreate(name="friends")
        communicator = WebsocketCommunicator(None, "/ws/count/")
        self.assertEqual(await communicator.connect(), (True, None))
        self.assertEqual(await communicator.receive_json_from(), 1)
        await communicator.disconnect()
        self.assertEqual(await get_user_model().objects.acount(), 1)

    def test_a_synchronous_test_may_run_a_handshake(self):
        self.client.force_login(self.alice)
        assert_accepted(async_to_sync(self.client.handshake)("/ws/members/"))
        self.assertEqual(get_user_model().objects.count(), 1)


@on_the_site
class InTestCase(Sockets, TestCase):
    pass


@on_the_site
class InTransactionTestCase(Sockets, TransactionTestCase):
    pass


class Live:
    def test_a_page_of_the_live_server_may_open_a_socket(self):
        url = f"{self.live_server_ws_url}/ws/origin/"
        with connect(url, origin=self.live_server_url):
            pass
        with self.assertRaises(InvalidStatus):
            connect(url, origin="http://evil.example")

    def test_the_database_is_that_of_the_tests(self):
        get_user_model().objects.create_user("alice")
        with urlopen(f"{self.live_server_url}/login/alice/", timeout=30) as response:
            cookies = [line.partition(";")[0] for line in response.headers.get_all("Set-Cookie")]
        headers = {"Cookie": "; ".join(cookies)}
        for number, path in enumerate(("/ws/members/", "/ws/sync/"), start=1):
            url = f"{self.live_server_ws_url}{path}"
            with connect(url, additional_headers=headers) as socket:
                socket.send(f'"friends {number}"')
                self.assertEqual(socket.recv(timeout=30), f'["alice", {number}]')
            self.assertEqual(Group.objects.count(), number)
        with urlopen(Request(f"{self.live_server_url}/whoami/", headers=headers)) as response:
            self.assertEqual(response.read(), b"alice ")

    def test_the_database_is_empty_again(self):
        self.test_the_database_is_that_of_the_tests()

    def test_a_denial_is_an_http_response(self):
        with self.assertRaises(InvalidStatus) as caught:
            connect(f"{self.live_server_ws_url}/ws/members/")
        self.assertEqual(caught.exception.response.status_code, 401)
        self.assertIn(b'"code": "not_authenticated"', caught.exception.response.body)

    def test_static_files_are_served(self):
        with urlopen(f"{self.live_server_url}/static/chat/chat.css") as response:
            self.assertEqual(response.status, 200)


class OnUvicorn(Live, UvicornLiveServerTestCase):
    pass


class OnDaphne(Live, ChannelsLiveServerTestCase):
    ProtocolServerProcess = DaphneProcess
