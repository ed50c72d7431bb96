"""The scope of a handshake; and HTTP and TLS, which are Daphne's."""

import datetime
import json
import ssl
from http.client import HTTPConnection

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.daphne.client import ask, start
from tests.support.daphne.servers import daphne

pytestmark = pytest.mark.servers
SCHEME = [("show", "scheme")]


@pytest.fixture(scope="module")
def proxied(tmp_path_factory):
    with daphne(tmp_path_factory.mktemp("proxied"), "--proxy-headers") as server:
        yield server


def test_the_extension_is_offered(server):
    reply = ask(server, [("show", "extensions", "scheme")])
    assert reply.body == b"[{'websocket.http.response': {}}, 'ws']"


@pytest.mark.parametrize(
    ("forwarded", "scheme"),
    [
        (["X-Forwarded-Proto: https"], "wss"),
        (["X-Forwarded-Proto: wss"], "wss"),
        (["X-Forwarded-Proto: HTTPS"], "wss"),
        (["X-Forwarded-Proto: https, http"], "wss"),
        (["X-Forwarded-Proto: http"], "ws"),
        ([], "ws"),
    ],
)
def test_scheme_and_client_are_those_of_a_trusted_proxy_alone(server, proxied, forwarded, scheme):
    headers = ["X-Forwarded-For: 10.0.0.1", *forwarded]
    assert ask(server, SCHEME, *headers).body == b"['ws']"
    reply = ask(proxied, [("show", "scheme", "client")], *headers)
    assert reply.body == f"[{scheme!r}, ['10.0.0.1', 0]]".encode()


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1)).sign(
        key, hashes.SHA256()
    )
    encoding, pem = serialization.Encoding.PEM, directory / "server.pem"
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(private + certificate.public_bytes(encoding))
    endpoint = f"ssl:{{port}}:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
    with daphne(directory, endpoint=endpoint) as server:
        yield server


@pytest.fixture
def tls():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def test_a_denial_arrives_whole_over_tls(tls_server, tls):
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
