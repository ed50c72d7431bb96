"""The command line: Daphne's own, with our server behind it."""

from __future__ import annotations

from daphne.cli import CommandLineInterface as DaphneCommandLineInterface

from .server import Server


class CommandLineInterface(DaphneCommandLineInterface):  # type: ignore[misc]
    """Every option of ``daphne``, of whichever version is installed.

    ``--websocket_connect_timeout`` is a lower bound: see `Server`.
    """

    description = "Django HTTP/WebSocket server that can deny WebSocket handshakes"
    server_class = Server

    def __init__(self) -> None:
        super().__init__()
        # argparse would say "__main__.py".
        self.parser.prog = "python -m channels_wsdeny.daphne"
