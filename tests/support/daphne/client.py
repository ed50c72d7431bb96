"""A client of raw sockets: its handshakes ask `scripted` for steps."""

from urllib.parse import quote
from uuid import uuid4

from tests.support.connections import Connection

ACCEPT = {"type": "websocket.accept"}
CLOSE = {"type": "websocket.close"}


def unique():
    """A path that no other test uses, to find it in the logs."""
    return f"/{uuid4().hex}"


def is_bare(answer, status):
    """Whether it is a well-formed response of `status` without content."""
    found = (answer.status, answer.all("content-length"), answer.all("connection"), answer.body)
    return found == (status, ["0"], ["close"], b"")


class Client(Connection):
    """One connection to a server, perhaps over TLS."""

    def __init__(self, server, tls=None):
        super().__init__(server.port, tls)

    def ask(self, path, steps=(), headers=None, method="GET"):
        self.request(f"{path}?{quote(repr(list(steps)))}", headers, method)

    def whole_answer(self, method="GET"):
        """An answer, whose body is all that comes up to the end of the connection. A reset is an error."""
        answer = self.answer(content=method != "HEAD")
        answer.body += self.rest()
        return answer


def ask(server, steps, headers=None, *, path=None, tls=None, method="GET"):
    """The answer to a handshake that is not accepted."""
    with Client(server, tls) as connection:
        connection.ask(path or unique(), steps, headers, method)
        return connection.whole_answer(method)
