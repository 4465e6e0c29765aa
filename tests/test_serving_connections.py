"""More connections than a worker takes: others get a 503 or are closed, open ones are answered."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import grpc
import httpx2
import pytest

from ml_platform.open_inference import inference_pb2 as messages
from ml_platform.open_inference.inference_pb2_grpc import GRPCInferenceServiceStub
from ml_platform.serving.connection_limits import SPARE
from tests.attacked import INVOKE
from tests.served import ROW, Served, deployed

pytestmark = pytest.mark.slow

MOST = 20
ASKED = {"instances": [ROW]}
LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: here\r\n\r\n"
METADATA = b"GET /v2 HTTP/1.1\r\nhost: here\r\n\r\n"
BEGUN = b"POST /predict/trips HTTP/1.1\r\nhost: here\r\ncontent-length: 9\r\n\r\n"
"""A request whose body does not come: its connection is in use."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with (
        deployed(tmp_path_factory.mktemp("connections")) as made,
        made.served(most_connections=MOST, body_seconds=60, head_seconds=60) as addresses,
    ):
        yield addresses


@contextlib.contextmanager
def opened(address: str, many: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    host, _, port = address.partition(":")
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(many):
            connection = socket.create_connection((host, int(port)), timeout=10)
            connections.append(stack.enter_context(connection))
            with contextlib.suppress(ConnectionError):
                connection.sendall(sent)
        yield connections


def said_on(connection: socket.socket) -> bytes:
    """What comes until the service closes; nothing where it has closed the connection."""
    said = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65_536):
            said += part
    return said


def is_open(connection: socket.socket) -> bool:
    connection.settimeout(0.05)
    try:
        return connection.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionError:
        return False


def counted(client: httpx2.Client, name: str) -> float:
    page = client.get("/metrics").text
    return float(page.split(f'ml_platform_{name}{{protocol="http"}} ')[1].split()[0])


def wait_for(holds: Callable[[], bool]) -> None:
    for _ in range(100):
        if holds():
            return
        time.sleep(0.1)
    pytest.fail("it did not come about")


def wait_until_served(served: Served) -> None:
    url = f"http://{served.http}{INVOKE}"

    def answers() -> bool:
        try:
            return httpx2.post(url, json=ASKED, timeout=60).status_code == 200
        except httpx2.TransportError:
            return False

    wait_for(answers)


def test_silent_connections_go_and_whoever_asks_something_is_answered(served: Served) -> None:
    with httpx2.Client(base_url=f"http://{served.http}", timeout=60) as client:
        assert client.post(INVOKE, json=ASKED).status_code == 200
        before = counted(client, "connections_refused_total")
        with opened(served.http, MOST + 50) as silent:
            for _ in range(3):
                assert client.post(INVOKE, json=ASKED).status_code == 200
            wait_until_served(served)
            assert sum(map(is_open, silent)) <= MOST
            assert counted(client, "connections_refused_total") - before >= 50
            assert 1 < counted(client, "connections") <= MOST
    wait_until_served(served)


def test_where_all_are_in_use_others_are_refused_and_health_is_answered(served: Served) -> None:
    with httpx2.Client(base_url=f"http://{served.http}", timeout=60) as client:
        assert client.post(INVOKE, json=ASKED).status_code == 200
        with opened(served.http, MOST - 1, BEGUN) as used:
            wait_for(lambda: counted(client, "connections") == MOST)
            # One after the other: a silent one would make room for the next.
            with opened(served.http, 1, METADATA) as (asking,):
                reported = said_on(asking)
                assert reported.startswith(b"HTTP/1.1 503 "), reported
                assert b"application/problem+json" in reported
                assert b"retry-after: 1" in reported
            with opened(served.http, 1, LIVE) as (probing,):
                assert said_on(probing).startswith(b"HTTP/1.1 200 ")
            with opened(served.http, 50) as beyond:
                assert client.post(INVOKE, json=ASKED).status_code == 200
                assert sum(map(is_open, beyond)) <= SPARE
            assert all(map(is_open, used))
    wait_until_served(served)


def test_connections_over_grpc_are_bounded_too(served: Served) -> None:
    def ask(channel: grpc.Channel) -> bool:
        try:
            stub = GRPCInferenceServiceStub(channel)
            return bool(stub.ServerLive(messages.ServerLiveRequest(), timeout=5).live)
        except grpc.RpcError:
            return False

    with grpc.insecure_channel(served.grpc) as there:
        assert ask(there)
        with opened(served.grpc, MOST + 50) as silent:
            wait_for(lambda: sum(map(is_open, silent)) <= MOST)
            assert ask(there)
        with grpc.insecure_channel(served.grpc) as another:
            wait_for(lambda: ask(another))
