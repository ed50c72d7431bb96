"""Daphne's processes for tests: on a free port, with an access log."""

from contextlib import contextmanager

from tests.support.processes import Process, start

SCRIPTED = "tests.support.daphne.apps:scripted"


class Server(Process):
    """A running server, which ends without an error that nobody handled."""

    @property
    def access_log(self):
        return (self.log_file.parent / "access.log").read_text()


@contextmanager
def serving(directory, arguments, environment=()):
    """Run ``python -m <arguments>``, ``{port}`` in them replaced, for as long as the context lasts."""
    (directory / "access.log").touch()
    server = start(["-m", *arguments], directory / "server.log", dict(environment), Server)
    try:
        yield server
    finally:
        server.stop()
    # Twisted's words for an error that nobody handled, in a Deferred or in a callback.
    assert "Unhandled" not in server.log, server.log


def daphne(
    directory,
    *options,
    application=SCRIPTED,
    module="channels_wsdeny.daphne",
    endpoint="tcp:{port}:interface=127.0.0.1",
):
    """Our Daphne with `application` and `options`, talkative enough to log Twisted's errors."""
    arguments = [module, "-v", "2", "--access-log", str(directory / "access.log"), "-e", endpoint]
    return serving(directory, [*arguments, *options, application])
