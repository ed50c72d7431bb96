"""A site's tests on live servers of a site that looks at Origin; `test_origins` runs them."""
# ruff: noqa: PT009 - unittest's own style

from __future__ import annotations

from channels.routing import get_default_application
from channels.testing import ChannelsLiveServerTestCase
from django.core.management import call_command
from django.test import TestCase
from websockets.sync.client import connect

from channels_wsdeny.testing import DaphneLiveServerTestCase, UvicornLiveServerTestCase


class Early(TestCase):
    """Runs before those on live servers, and imports the site."""

    def test_the_site_is_imported(self):
        self.assertTrue(get_default_application())

    def test_the_checks_are_run(self):
        call_command("check")


class Live:
    path = "/ws/as-channels-has-it/"

    def test_a_page_of_the_server_may_open_a_socket(self):
        with connect(self.live_server_ws_url + self.path, origin=self.live_server_url) as socket:
            socket.send("hello")
            self.assertEqual(socket.recv(timeout=30), "hello")


class OnChannels(Live, ChannelsLiveServerTestCase):
    pass


class OnDaphne(Live, DaphneLiveServerTestCase):
    pass


class OnUvicorn(Live, UvicornLiveServerTestCase):
    pass


class OfOnesOwn(Live, ChannelsLiveServerTestCase):
    path = "/ws/of-ones-own/"
