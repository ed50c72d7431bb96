"""What the servers leave behind and have logged when everything else is done, and how they end.

These tests come last: see `pytest_collection_modifyitems`.
"""

import re
import signal
from types import SimpleNamespace

import pytest

from tests.support.cases import CASES
from tests.support.threads import wait_until

from .table import SERVERS

#: Paths whose answer is a 5xx, with a traceback in the log.
FAILING = {f"/{way}/{case.name}/" for case in CASES if case.status >= 500 for way in ("ws", "sync", "async")}
FAILING |= {"/raises/", "/ends-without-answering/", "/sleeps/", "/sleeps-on/", "/never-answers/", "/body/1048577/"}
#: What the package logs about them.
FAILURES = [
    r"ERROR django\.request: (?:Internal Server Error|Service Unavailable): (\S+)\n",
    r"ERROR channels_wsdeny: Denied (\S+): 5\d\d \w+\n",
]
#: Errors that the servers log themselves.
OWN_ERRORS = [
    r"ERROR django\.security\.DisallowedHost: ",  # A hostile handshake; Django logs that of a view in the same way.
    r"[\s\S]*ZeroDivisionError: secret",  # What a consumer raises after the accept is the server's to log.
    r"ERROR daphne\.server: Exception inside application: secret",
    # A server's own parsing of a hostile handshake; and uvicorn, at its end, of such a connection.
    r"[\s\S]*UnicodeDecodeError: 'ascii' codec",
    r"ERROR: +opening handshake failed[\s\S]*UnicodeEncodeError: 'latin-1' codec",
    r"ERROR: +Cancel 0 running task\(s\), timeout graceful shutdown exceeded",
]
#: Those of one server, which would be a fault on any other.
ERRORS_OF = {
    # Falsely, after denials.
    "uvicorn-sansio": r"ERROR: +ASGI callable returned without completing handshake\.",
    # Where a client has left before its answer and so gets none; as with any application.
    "uvicorn-websockets": r"ERROR: +ASGI callable returned without sending handshake\.",
    # It forgets an HTTP/2 stream that its side has ended, while the client still answers the close.
    "hypercorn-h2": r"ERROR asyncio: Unhandled exception in client_connected_cb[\s\S]*KeyError: 1",
}
#: Words that tell of something left behind, in any record.
FORBIDDEN = ["never retrieved", "never awaited", "Task was destroyed", "Unhandled error", "panicked"]
#: The line that begins a record, of the site's own log or of a server's; then comes what belongs to it.
RECORD = re.compile(
    r"^(?=(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)[ :]"
    r"|\[(?:INFO|WARNING|ERROR)\] |\[\d{4}-|\d+\.\d+\.\d+\.\d+:\d+ - - )",
    re.MULTILINE,
)


def surprises(server):
    """Records of errors that are not expected, and any that tell of something left behind."""
    found = []
    own_errors = [*OWN_ERRORS, *(pattern for name, pattern in ERRORS_OF.items() if name == server.name)]
    for record in RECORD.split(server.log):
        is_error = "Traceback" in record or re.match(r".*\b(?:ERROR|CRITICAL)\b", record)
        if ours := next(filter(None, (re.match(pattern, record) for pattern in FAILURES)), None):
            is_expected = ours[1] in FAILING
        else:
            is_expected = any(re.match(pattern, record) for pattern in own_errors)
        if (is_error and not is_expected) or any(word in record for word in FORBIDDEN):
            found.append(record)
    return found


@pytest.mark.parametrize("name", SERVERS)
def test_a_false_error_is_expected_of_the_server_that_logs_it_and_of_no_other(name):
    record = "ERROR:    ASGI callable returned without completing handshake.\n"
    assert surprises(SimpleNamespace(name=name, log=record)) == ([] if name == "uvicorn-sansio" else [record])


@pytest.fixture(params=SERVERS)
def servers(request, fleet):
    """The servers of one kind."""
    fleet.get(request.param)
    return [server for server in fleet.running.values() if server.name == request.param]


def test_a_server_is_left_with_nothing_ends_when_asked_to_and_has_logged_no_surprises(servers):
    for server in servers:
        wait_until(lambda server=server: server.report() == {"running": [], "tasks": []}, server.report)
        assert server.stop() in {0, -signal.SIGTERM}
        assert surprises(server) == []
