"""Cases for Django's own test runner, which a test starts as its own process."""

from types import SimpleNamespace

from channels.testing import ChannelsLiveServerTestCase

from channels_wsdeny.daphne.testing import DaphneProcess

from .client import ask, body, start


class LiveTests(ChannelsLiveServerTestCase):
    host = "127.0.0.1"
    ProtocolServerProcess = DaphneProcess
    serve_static = False

    def test_the_live_server_denies(self):
        assert ask(SimpleNamespace(port=self._port), [start(401), body(b"no")]).body == b"no"
