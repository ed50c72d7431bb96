"""TLS: denials arrive whole, and HTTP/2 is served as by Daphne."""

from __future__ import annotations

import datetime
import json
import ssl
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.web.http import H2_ENABLED

from .client import ask, body, connect, start
from .servers import daphne

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .servers import Server


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = directory / "server.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    endpoint = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
    with daphne(directory, "tests.daphne.apps:scripted", endpoint=endpoint) as server:
        yield server


@pytest.fixture
def tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def test_a_denial_arrives_over_tls(tls_server: Server, tls: ssl.SSLContext) -> None:
    reply = ask(tls_server, [start(401), body(b"no")], tls=tls)
    assert (reply.status, reply.body) == (401, b"no")


def test_a_body_of_a_mebibyte_arrives_whole_over_tls(tls_server: Server, tls: ssl.SSLContext) -> None:
    assert len(ask(tls_server, [start(401), ("body", 1024 * 1024)], tls=tls).body) == 1024 * 1024


def test_the_scheme_over_tls_is_wss(tls_server: Server, tls: ssl.SSLContext) -> None:
    assert ask(tls_server, [("show", "scheme")], tls=tls).body == b"'wss'"


@pytest.mark.skipif(not H2_ENABLED, reason="Twisted has no HTTP/2 here")
def test_http_2_is_served(tls_server: Server, tls: ssl.SSLContext) -> None:
    from h2.connection import H2Connection
    from h2.events import DataReceived, StreamEnded

    tls.set_alpn_protocols(["h2"])
    client, content, ended = H2Connection(), b"", False
    with connect(tls_server, tls) as connection:
        client.initiate_connection()
        headers = {":method": "GET", ":path": "/", ":scheme": "https", ":authority": "localhost"}
        client.send_headers(1, list(headers.items()), end_stream=True)
        while not ended:
            connection.sendall(client.data_to_send())
            received = connection.recv(65536)
            assert received
            for event in client.receive_data(received):
                if isinstance(event, DataReceived):
                    content += event.data or b""
                ended = ended or isinstance(event, StreamEnded)
    assert json.loads(content)["version"] == "2"
