"""Our server without the poll in which Daphne notices, once a second, that applications ended."""

from channels_wsdeny.daphne.__main__ import CommandLineInterface
from channels_wsdeny.daphne.server import Server


class UnpolledServer(Server):
    def application_checker(self):
        pass


if __name__ == "__main__":
    CommandLineInterface.server_class = UnpolledServer
    CommandLineInterface.entrypoint()
