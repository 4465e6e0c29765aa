"""TLS and client certificates, over HTTP and gRPC, renewed while the service runs."""

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import pytest
import trustme
from tritonclient.grpc import service_pb2, service_pb2_grpc

from ml_platform.errors import AccessError
from ml_platform.serving.tls import certificates
from tests.served import Deployment, Served, deploy, serving_settings


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = deploy(tmp_path_factory.mktemp("tls"))
    yield made
    made.lake.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def issue(authority: trustme.CA, folder: Path) -> dict[str, Path]:
    """A certificate in files, as renewal writes them; settings that name them."""
    made = authority.issue_cert("127.0.0.1", "localhost")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    return {"tls_cert": cert, "tls_key": key}


def client_context(authority: trustme.CA, client: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if client is not None:
        client.configure_cert(context)
    return context


def live(served: Served, context: ssl.SSLContext) -> int:
    connection = http.client.HTTPSConnection(served.http, context=context, timeout=30)
    connection.request("GET", "/v2/health/live")
    status = connection.getresponse().status
    connection.close()
    return status


def shown(served: Served, context: ssl.SSLContext) -> bytes:
    """The certificate that a new connection is shown."""
    host, _, port = served.http.partition(":")
    with (
        socket.create_connection((host, int(port)), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        return connection.getpeercert(binary_form=True) or b""


def live_over_grpc(
    served: Served, authority: trustme.CA, client: trustme.LeafCert | None = None
) -> bool:
    pair = {}
    if client is not None:
        pair = {
            "private_key": client.private_key_pem.bytes(),
            "certificate_chain": b"".join(blob.bytes() for blob in client.cert_chain_pems),
        }
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes(), **pair)
    with grpc.secure_channel(served.grpc, credentials) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        return stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=20).live


def test_http_and_grpc_speak_tls(
    deployment: Deployment, authority: trustme.CA, tmp_path: Path
) -> None:
    with deployment.served(**issue(authority, tmp_path)) as served:
        assert live(served, client_context(authority)) == 200
        assert live_over_grpc(served, authority)
        with pytest.raises(ssl.SSLError):
            live(served, client_context(trustme.CA()))
        with pytest.raises(grpc.RpcError):
            live_over_grpc(served, trustme.CA())


def test_a_renewed_certificate_is_shown_without_a_restart(
    deployment: Deployment, authority: trustme.CA, tmp_path: Path
) -> None:
    with deployment.served(**issue(authority, tmp_path)) as served:
        context = client_context(authority)
        before = shown(served, context)
        assert shown(served, context) == before
        issue(authority, tmp_path)
        after = shown(served, context)
        assert after != before
        # A key without its certificate is half of a renewal: the one before continues to serve.
        (tmp_path / "key.pem").write_bytes(authority.issue_cert("x").private_key_pem.bytes())
        assert shown(served, context) == after
        successor = trustme.CA()
        issue(successor, tmp_path)
        assert live(served, client_context(successor)) == 200
        assert live_over_grpc(served, successor)
        with pytest.raises(grpc.RpcError):
            live_over_grpc(served, authority)


def test_clients_show_certificates_where_they_have_to(
    deployment: Deployment, authority: trustme.CA, tmp_path: Path
) -> None:
    ca = tmp_path / "clients.pem"
    clients = trustme.CA()
    ca.write_bytes(clients.cert_pem.bytes())
    known, unknown = clients.issue_cert("shop"), trustme.CA().issue_cert("shop")
    with deployment.served(**issue(authority, tmp_path), tls_client_ca=ca) as served:
        assert live(served, client_context(authority, known)) == 200
        assert live_over_grpc(served, authority, known)
        for client in (None, unknown):
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
                live(served, client_context(authority, client))
            with pytest.raises(grpc.RpcError):
                live_over_grpc(served, authority, client)


@pytest.mark.slow
def test_handshakes_that_never_end_count_as_connections_and_are_ended(
    deployment: Deployment, authority: trustme.CA, tmp_path: Path
) -> None:
    context = client_context(authority)
    hello = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1").do_handshake()
    # Nothing, half of a first message, all of it and never an answer.
    first = hello.read()
    beginnings = (b"", first[: len(first) // 2], first)

    def hang(address: str, many: int, ending: ExitStack) -> list[socket.socket]:
        host, _, port = address.partition(":")
        connections = []
        for number in range(many):
            # As long as a handshake may last where nobody says otherwise.
            plain = socket.create_connection((host, int(port)), timeout=50)
            connections.append(ending.enter_context(plain))
            with suppress(ConnectionError):
                plain.sendall(beginnings[number % len(beginnings)])
        return connections

    def is_open(connection: socket.socket) -> bool:
        connection.setblocking(False)
        try:
            while connection.recv(65_536):
                pass
        except BlockingIOError:
            return True
        except ConnectionError:
            pass
        return False

    files = issue(authority, tmp_path)
    limits = {"most_connections": 20, "head_seconds": 59}
    with deployment.served(**files, **limits) as served, ExitStack() as ending:
        hanging = hang(served.http, 100, ending)
        hanging_over_grpc = hang(served.grpc, 100, ending)
        for _ in range(3):
            assert live(served, context) == 200
        assert 0 < sum(map(is_open, hanging)) <= 20
        assert 0 < sum(map(is_open, hanging_over_grpc)) <= 20
    with deployment.served(**files, head_seconds=1) as served, ExitStack() as ending:
        for connection in (*hang(served.http, 9, ending), *hang(served.grpc, 9, ending)):
            with suppress(ConnectionError):
                while connection.recv(65_536):
                    pass
        assert live(served, context) == 200
        assert live_over_grpc(served, authority)


def test_half_of_a_configuration_is_refused(authority: trustme.CA, tmp_path: Path) -> None:
    files = issue(authority, tmp_path)
    assert certificates(serving_settings()) is None
    with pytest.raises(AccessError, match="a certificate and its key"):
        certificates(serving_settings(tls_cert=files["tls_cert"]))
    with pytest.raises(AccessError, match="a certificate and its key"):
        certificates(serving_settings(tls_client_ca=files["tls_cert"]))
    files["tls_key"].write_text("nothing")
    with pytest.raises(AccessError, match="cannot be used"):
        certificates(serving_settings(**files))
