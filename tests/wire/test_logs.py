"""What the servers leave behind and have logged when everything else is done, and how they end.

These tests come last: see `pytest_collection_modifyitems`.
"""

from __future__ import annotations

import re
import signal
import time

import pytest

from tests.cases import CASES

from .raw import GUARD
from .servers import SERVERS

#: Paths whose answer is a 5xx, with a traceback in the log.
FAILING = {f"/ws/{case.name}/" for case in CASES if case.status >= 500} | {
    "/raises-in-connect/",
    "/ends-without-answering/",
    "/sleeps/",
    "/body/1048577/",
}
#: What the package logs about them.
FAILURES = [
    r"ERROR django\.request: (?:Internal Server Error|Service Unavailable): (\S+)\n",
    r"ERROR channels_wsdeny: Denied (\S+): 5\d\d \w+\n",
]
AFTER_ACCEPT = "the consumer raised after the accept, which is the server's to log"
OWN_PARSING = "the server's own parsing of the handshake failed, before the application was asked"
NOT_ASCII = r"[\s\S]*UnicodeDecodeError: 'ascii' codec"
NOT_LATIN1 = r"[\s\S]*UnicodeEncodeError: 'latin-1' codec"
#: Errors that the servers log themselves, each by a pattern of its record.
OWN_ERRORS = {
    "daphne": {
        r"ERROR daphne\.server: Exception inside application: secret": AFTER_ACCEPT,
        rf"ERROR daphne\.ws_protocol: Traceback {NOT_ASCII}": OWN_PARSING,
    },
    "stock-daphne": {
        r"ERROR daphne\.server: Exception inside application: secret": AFTER_ACCEPT,
        rf"ERROR daphne\.ws_protocol: Traceback {NOT_ASCII}": OWN_PARSING,
    },
    "uvicorn-websockets": {
        r"ERROR: +Exception in ASGI application[\s\S]*ZeroDivisionError: secret": AFTER_ACCEPT,
        rf"ERROR: +opening handshake failed{NOT_LATIN1}": OWN_PARSING,
    },
    "uvicorn-sansio": {
        r"ERROR: +Exception in ASGI application[\s\S]*ZeroDivisionError: secret": AFTER_ACCEPT,
        r"ERROR: +ASGI callable returned without completing handshake\.": "false, said after denials",
    },
    "uvicorn-wsproto": {
        r"ERROR: +Exception in ASGI application[\s\S]*ZeroDivisionError: secret": AFTER_ACCEPT,
        rf"ERROR asyncio: Fatal error: protocol\.data_received\(\) call failed\.{NOT_ASCII}": OWN_PARSING,
        r"ERROR: +Cancel 0 running task\(s\), timeout graceful shutdown exceeded": "the same, at its end",
    },
    "hypercorn": {
        r"ERROR hypercorn\.error: Error in ASGI Framework[\s\S]*ZeroDivisionError: secret": AFTER_ACCEPT,
        r"\[.* \[ERROR\] Error in ASGI Framework[\s\S]*ZeroDivisionError: secret": AFTER_ACCEPT,
        rf"ERROR asyncio: Unhandled exception in client_connected_cb{NOT_ASCII}": OWN_PARSING,
    },
    "hypercorn-h2": {
        r"ERROR hypercorn\.error: Error in ASGI Framework[\s\S]*ZeroDivisionError: secret": AFTER_ACCEPT,
        r"\[.* \[ERROR\] Error in ASGI Framework[\s\S]*ZeroDivisionError: secret": AFTER_ACCEPT,
        rf"ERROR asyncio: Unhandled exception in client_connected_cb{NOT_ASCII}": OWN_PARSING,
        r"ERROR asyncio: Unhandled exception in client_connected_cb[\s\S]*KeyError: 1": (
            "hypercorn forgets a stream that its side has ended, while the client still answers the close"
        ),
    },
    "granian": {
        r"\[ERROR\] Application callable raised[\s\S]*ZeroDivisionError: secret": AFTER_ACCEPT,
    },
}
#: Words that tell of something left behind, in whatever record they are.
FORBIDDEN = ["never retrieved", "never awaited", "Task was destroyed", "Unhandled error", "panicked"]
#: The line that begins a record, of the site's own log or of a server's; then comes what belongs to it.
RECORD = re.compile(
    r"^(?=(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)[ :]"
    r"|\[(?:INFO|WARNING|ERROR)\] |\[\d{4}-|\d+\.\d+\.\d+\.\d+:\d+ - - )",
    re.MULTILINE,
)


def is_expected(server, record):
    for pattern in FAILURES:
        if match := re.match(pattern, record):
            return match[1] in FAILING
    return any(re.match(pattern, record) for pattern in OWN_ERRORS[server.name])


def surprises(server):
    """Records of errors that nobody expects, and anything that tells of something left behind."""
    found = []
    for record in RECORD.split(server.log):
        is_error = "Traceback" in record or re.match(r".*\b(?:ERROR|CRITICAL)\b", record)
        if (is_error and not is_expected(server, record)) or any(word in record for word in FORBIDDEN):
            found.append(record)
    return found


@pytest.fixture(params=SERVERS)
def servers(request, fleet):
    """The servers of one kind."""
    fleet.get(request.param)
    return [server for server in fleet.running.values() if server.name == request.param]


def test_nothing_is_left_of_all_connections(servers):
    deadline = time.monotonic() + GUARD
    for server in servers:
        while (report := server.report()) != {"running": [], "tasks": []}:
            assert time.monotonic() < deadline, report
            time.sleep(0.1)


def test_a_server_ends_when_it_is_asked_to(servers):
    assert {server.stop() for server in servers} <= {0, -signal.SIGTERM}


def test_the_log_holds_no_surprises(servers):
    for server in servers:
        server.stop()
        assert surprises(server) == []
