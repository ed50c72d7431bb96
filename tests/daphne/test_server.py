"""The server as its own process: what arrives of handshakes on the wire; and HTTP and TLS, which are Daphne's."""

import json
import socket
import ssl
import time
from http.client import HTTPConnection
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as websocket

from tests.support.certificates import make_certificate
from tests.support.clients import GUARD
from tests.support.connections import HANDSHAKE, TEXT
from tests.support.daphne.client import ACCEPT, CLOSE, Client, ask, is_bare, unique
from tests.support.daphne.servers import daphne
from tests.support.scripted import body, start
from tests.support.threads import wait_until

pytestmark = pytest.mark.servers
HEARD = "heard {'type': 'websocket.connect'}"
DISCONNECT = "heard {'type': 'websocket.disconnect', 'code': 1006}"


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """A server whose handshakes may take one second."""
    application, options = "tests.support.daphne.hasty:application", ["--websocket_connect_timeout", "1"]
    with daphne(tmp_path_factory.mktemp("hasty"), *options, application=application) as server:
        yield server


def test_a_slow_client_gets_all_of_a_large_body_and_the_application_its_disconnect_at_once(server):
    class Slow(Client):
        def _connect(self, port):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(GUARD)
            connection.connect(("127.0.0.1", port))
            return connection

    path, size = unique(), 8 * 1024 * 1024
    with Slow(server) as connection:
        connection.ask(path, ["hear", start(401), ("body", size), "hear"])
        server.wait_for(f"{path} {DISCONNECT}")
        # Past the server's poll, which forgets connections that are done.
        time.sleep(2.5)
        assert len(connection.whole_answer().body) == size


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([start(401, (b"x-secret", b"1")), body("text")], "TypeError: websocket.http.response.body has"),
        ([start(403, (b"x-secret", b"1\r\nset-cookie: a=hidden"))], "ValueError: websocket.http.response.start has"),
        ([{**ACCEPT, "headers": [("x-secret", b"1")]}], "TypeError: websocket.accept has"),
        ([("dare", start(101)), "hang"], "ValueError: websocket.http.response.start has"),
    ],
    ids=repr,
)
def test_a_bad_answer_is_an_error_for_the_application_and_a_bare_500_for_the_client(server, steps, error):
    path = unique()
    reply = ask(server, steps, path=path)
    assert is_bare(reply, 500)
    assert reply.all("set-cookie") + reply.all("x-secret") == []
    line = server.wait_for(f"{path} got")
    assert error in line
    assert "hidden" not in line


def test_an_unknown_message_is_an_error_and_no_answer(server):
    path, unknown = unique(), {"type": "http.response.start", "status": 200}
    assert ask(server, [("dare", unknown), start(401), body()], path=path).status == 401
    assert "got ValueError: A WebSocket application sent 'http." in server.wait_for(f"{path} got")


def test_messages_after_the_denial_are_dropped(server):
    path = unique()
    reply = ask(server, [start(401), body(b"no"), ACCEPT, "hear"], path=path)
    assert (reply.status, reply.body) == (401, b"no")
    server.wait_for(f"{path} returned")


def test_what_a_client_sends_too_early_is_no_second_request(server):
    path = unique()
    with Client(server) as connection:
        connection.ask(path, ["hear", ("sleep", 0.5), start(401), body(b"once")])
        server.wait_for(f"{path} heard")
        connection.ask("/second", [start(402), body(b"twice")])
        reply = connection.whole_answer()
    assert (reply.status, reply.body) == (401, b"once")
    assert "/second" not in server.access_log


def test_an_exception_after_the_accept_closes_with_1011(server):
    url = f"ws://127.0.0.1:{server.port}{unique()}?{quote(repr([ACCEPT, 'crash']))}"
    with websocket(url) as client, pytest.raises(ConnectionClosed) as caught:
        client.recv()
    assert caught.value.rcvd.code == 1011


def test_a_second_answer_or_bad_close_after_the_accept_is_an_error_and_changes_nothing(server):
    for message, error in (
        (ACCEPT, "ValueError: websocket.accept came after websocket.accept"),
        (start(403), "ValueError: websocket.http.response.start came after websocket.accept"),
        ({**CLOSE, "code": 1005}, "ValueError: websocket.close has the code 1005"),
    ):
        path = unique()
        with Client(server) as connection:
            connection.ask(path, [ACCEPT, ("dare", message), "hang"])
            assert connection.answer().status == 101
            assert error in server.wait_for(f"{path} got")


def test_frames_that_came_before_the_accept_are_delivered(server):
    path = unique()
    with Client(server) as connection:
        connection.ask(path, ["hear", ("sleep", 0.3), ACCEPT, "hear"])
        server.wait_for(f"{path} {HEARD}")
        connection.say(TEXT, b"hi")
        server.wait_for(f"{path} heard {{'type': 'websocket.receive', 'text': 'hi'}}")


def test_a_client_that_sends_much_before_its_answer_is_dropped(server):
    path = unique()
    with Client(server) as connection:
        connection.ask(path, ["hear", "hear"])
        server.wait_for(f"{path} {HEARD}")
        with pytest.raises(ConnectionError):
            connection.socket.sendall(bytes(1 << 25))
        server.wait_for(f"{path} {DISCONNECT}")


def test_an_end_without_an_answer_is_a_bare_500_or_503_that_waits_for_no_poll(tmp_path):
    with daphne(tmp_path, module="tests.support.daphne.unpolled") as server:
        for steps, status in (
            (["crash"], 500),
            (["hear"], 500),
            ([start(401), body(b"secret", more=True)], 500),
            ([{"type": "websocket.send", "text": "too early"}], 500),
            ([{"text": "no type"}], 500),
            (["give_up"], 503),
        ):
            assert is_bare(ask(server, steps), status), steps


def test_an_end_without_an_answer_is_logged_once(server):
    crashing, returning = unique(), unique()
    ask(server, ["crash"], path=crashing)
    ask(server, [], path=returning)
    assert returning in server.wait_for("returned without answering the handshake of <WebSocketProtocol client=")
    server.wait_for(f"RuntimeError: {crashing} crashed")
    assert server.log.count(f"Exception inside application: {crashing} crashed") == 1


@pytest.mark.parametrize("steps", [[], [start(401), body(more=True)]], ids=repr)
def test_an_application_that_takes_too_long_is_a_bare_503_and_gets_its_disconnect(hasty, steps):
    path = unique()
    assert is_bare(ask(hasty, ["hear", *steps, "hear"], path=path), 503)
    hasty.wait_for(f"{path} {DISCONNECT}")
    assert "did not answer the handshake" in hasty.wait_for(f"path=b'{path}'")


@pytest.mark.parametrize(
    ("application", "timeout"),
    [
        # Unconfigured, a policy may take 4 seconds; stock Daphne would reset within 2.
        ("tests.support.daphne.apps:scripted", "1"),
        # -1 is no limit; stock Daphne would deny at its next look, within 2 seconds.
        ("tests.support.daphne.hasty:application", "-1"),
    ],
)
def test_timeouts_are_longer_than_those_of_policies(tmp_path, application, timeout):
    with daphne(tmp_path, "--websocket_connect_timeout", timeout, application=application) as server:
        assert ask(server, [("sleep", 3), start(401), body()]).status == 401


def test_a_request_that_the_server_refuses_gets_a_bare_400_and_leaves_nothing(server):
    keys = [HANDSHAKE["Sec-WebSocket-Key"], "second"]
    for headers in ({"Origin": "http://[bad"}, {"Origin": "ftp"}, {"Sec-WebSocket-Key": keys}):
        path = unique()
        assert is_bare(ask(server, ["crash"], headers, path=path), 400)
        assert path not in held(server)["connections"]


@pytest.mark.parametrize(
    ("headers", "method", "status", "name", "value"),
    [
        # Daphne fails to decode what is offered, with an exception that stays out of the answer.
        ({"Sec-WebSocket-Protocol": "\xff"}, "GET", 500, "connection", "close"),
        ({}, "HEAD", 405, "allow", "GET"),
        ({"Sec-WebSocket-Version": "99"}, "GET", 400, "sec-websocket-version", "13"),
    ],
)
def test_the_refusal_of_an_unusual_request_says_what_is_wrong(server, headers, method, status, name, value):
    reply = ask(server, ["crash"], headers, method=method)
    assert (reply.status, reply.body) == (status, b"")
    assert value in reply.all(name)[0]


def held(server):
    with urlopen(f"http://127.0.0.1:{server.port}/") as reply:
        return json.load(reply)


def wait_until_gone(server, path):
    """Until neither the server's list nor the process's memory holds the connection of `path`."""
    wait_until(lambda: path not in str(held(server)), lambda: held(server))


@pytest.mark.parametrize("steps", [[start(401), body(b"no")], [CLOSE]], ids=repr)
def test_a_denied_application_gets_one_disconnect_and_nothing_is_left_of_its_connection(server, steps):
    path = unique()
    ask(server, ["hear", *steps, "hear", "hear"], path=path)
    server.wait_for(f"{path} {DISCONNECT}")
    server.wait_for(f"WSDISCONNECT {path}", lambda: server.access_log)
    assert server.log.count(f"{path} heard") == 2
    wait_until_gone(server, path)


def test_nothing_is_left_of_an_application_that_failed(server):
    for steps in ([start(101)], ["crash"]):
        path = unique()
        ask(server, steps, path=path)
        wait_until_gone(server, path)


@pytest.mark.parametrize(
    ("steps", "after"),
    [
        ([], ["crash"]),
        ([], [ACCEPT]),
        ([], [start(403), body()]),
        ([start(401), body(b"no", more=True)], [body(b"rest")]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("leaving", ["closes", "resets"])
def test_nothing_is_left_when_the_client_leaves(server, steps, after, leaving):
    path = unique()
    with Client(server) as connection:
        connection.ask(path, ["hear", *steps, "hear", *after])
        server.wait_for(f"{path} {HEARD}")
        connection.leave(reset=leaving == "resets")
    server.wait_for(f"{path} {DISCONNECT}")
    wait_until_gone(server, path)


@pytest.mark.parametrize(
    ("steps", "logged"),
    [
        ([start(401), body(b"hidden")], "401 6"),
        ([start(304), body(b"hidden")], "304 -"),
        ([CLOSE], "403 -"),
        (["crash"], "500 -"),
    ],
    ids=repr,
)
def test_a_denial_is_logged_once_with_its_status_and_size_but_without_its_query(server, steps, logged):
    path = unique()
    assert is_bare(ask(server, steps, path=path), 403) == (steps == [CLOSE])
    server.wait_for(f"WSDISCONNECT {path}", lambda: server.access_log)
    lines = [line for line in server.access_log.splitlines() if path in line]
    assert [line.split('"')[1].split()[0] for line in lines] == ["WSCONNECTING", "GET", "WSDISCONNECT"]
    assert lines[1].startswith("127.0.0.1:")
    assert lines[1].endswith(f'"GET {path}" {logged}')
    assert "hidden" not in server.access_log


SCHEME = [("show", "scheme")]


@pytest.fixture(scope="module")
def proxied(tmp_path_factory):
    with daphne(tmp_path_factory.mktemp("proxied"), "--proxy-headers") as server:
        yield server


@pytest.mark.parametrize(
    ("forwarded", "scheme"),
    [
        *((proto, "wss") for proto in ("https", "wss", "HTTPS", "https, http")),
        *((proto, "ws") for proto in ("http", None)),
    ],
)
def test_scheme_and_client_are_those_of_a_trusted_proxy_alone(server, proxied, forwarded, scheme):
    headers = {"X-Forwarded-For": "10.0.0.1", "X-Forwarded-Proto": forwarded}
    assert ask(server, SCHEME, headers).body == b"['ws']"
    reply = ask(proxied, [("show", "scheme", "client")], headers)
    assert reply.body == f"[{scheme!r}, ['10.0.0.1', 0]]".encode()


def test_no_client_names_the_root_path_of_the_site(server):
    named = {"Daphne-Root-Path": "/named"}
    assert ask(server, [("show", "root_path")], named).body == b"['']"
    with urlopen(Request(f"http://127.0.0.1:{server.port}/", headers=named)) as reply:
        assert json.load(reply)["root_path"] == ""


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = make_certificate(directory, "localhost")
    endpoint = f"ssl:{{port}}:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
    with daphne(directory, endpoint=endpoint) as server:
        yield server


def test_a_denial_arrives_whole_over_tls(tls_server):
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    assert ask(tls_server, SCHEME, tls=tls).body == b"['wss']"
    assert len(ask(tls_server, [start(401), ("body", 1024 * 1024)], tls=tls).body) == 1024 * 1024


def test_http_is_answered_as_by_stock_daphne(server, tmp_path):
    def answers(port):
        connection = HTTPConnection("127.0.0.1", port)
        for method, content in (("GET", None), ("POST", b"x" * 100_000)):
            connection.request(method, "/http", content)
            reply = connection.getresponse()
            headers = [(name, value) for name, value in reply.getheaders() if name.lower() != "date"]
            yield reply.status, headers, {**json.load(reply), "connections": [], "alive": []}, connection.sock
        connection.close()

    ours = list(answers(server.port))
    with daphne(tmp_path, module="daphne") as stock:
        assert [answer[:3] for answer in ours] == [answer[:3] for answer in answers(stock.port)]
    assert ours[0][3] is ours[1][3]  # The connection was kept alive.
