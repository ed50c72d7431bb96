"""Our server without the poll in which Daphne notices, once a second, that applications ended."""

from __future__ import annotations

from channels_wsdeny.daphne.cli import CommandLineInterface
from channels_wsdeny.daphne.server import Server


class UnpolledServer(Server):
    def application_checker(self) -> None:
        pass


class UnpolledCommandLineInterface(CommandLineInterface):
    server_class = UnpolledServer


if __name__ == "__main__":
    UnpolledCommandLineInterface.entrypoint()
