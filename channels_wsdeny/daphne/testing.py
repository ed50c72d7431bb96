"""Daphne's test process, with our server in it."""

from __future__ import annotations

import inspect
import multiprocessing
import sys
import traceback
from typing import TYPE_CHECKING, Any

from daphne.testing import DaphneProcess as StockDaphneProcess

if TYPE_CHECKING or sys.platform in {"darwin", "win32"}:

    class _Forked:
        """Processes are not forked here."""

else:
    # Python 3.14 does not fork by default, and only a fork has the settings as a test has changed them.
    _Forked = multiprocessing.get_context("fork").Process


class DaphneProcess(_Forked, StockDaphneProcess):
    """For live tests:

        class ChatTests(ChannelsLiveServerTestCase):
            ProtocolServerProcess = DaphneProcess

    What keeps the server from starting, the application's own import included, is on `errors` as a
    pair of the exception and its formatted traceback.
    """

    @property
    def server(self) -> Any:
        """The server of the child process; `run` assigns Daphne's, and ours takes its place."""
        return self._server

    @server.setter
    def server(self, stock: Any) -> None:
        # Daphne has imported its server afresh, on the child's own reactor; ours must build on it.
        sys.modules.pop("channels_wsdeny.daphne.server", None)
        from .server import Server  # noqa: PLC0415

        options = inspect.signature(type(stock)).parameters
        self._server = Server(**{name: getattr(stock, name) for name in options})

    def run(self) -> None:
        """Serve, in the child process."""
        try:
            super().run()
        except BaseException as error:
            # Daphne puts here only what its server raises. As text, for the queue would lose an exception
            # that cannot be pickled.
            self.errors.put((RuntimeError(repr(error)), traceback.format_exc()))
            raise
