"""``python -m channels_wsdeny.daphne``: Daphne's command line with the package's server."""

from __future__ import annotations

try:
    from daphne.cli import CommandLineInterface as DaphneCommandLineInterface
except ModuleNotFoundError as error:
    if __name__ != "__main__" or error.name != "daphne":
        raise
    raise SystemExit("channels_wsdeny: Daphne is not installed. Run `pip install 'channels-wsdeny[daphne]'`.") from None

from .server import Server


class CommandLineInterface(DaphneCommandLineInterface):
    """Every option of the installed version of ``daphne``.

    ``--websocket_connect_timeout`` is a lower bound, see `Server`.
    """

    description = "Django HTTP/WebSocket server that can deny WebSocket handshakes"
    server_class = Server

    def __init__(self) -> None:
        super().__init__()
        # argparse would print "__main__.py".
        self.parser.prog = "python -m channels_wsdeny.daphne"


if __name__ == "__main__":
    CommandLineInterface.entrypoint()
