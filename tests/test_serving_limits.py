"""Callers that ask too often, queues that would take too long, connections that never begin."""

import asyncio
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.errors import Overloaded, RateExceeded
from ml_platform.serving.admission import MOST_NAMES, Rates
from ml_platform.serving.batches import Batches
from ml_platform.serving.connection_limits import LimitedConnection
from ml_platform.serving.latency_estimate import LatencyEstimate
from tests.attacked import is_closed_on
from tests.clock import Clock
from tests.served import Deployment, Served, deploy
from tests.service_processes import wait_for


def test_a_burst_is_taken_and_then_one_request_at_a_time() -> None:
    clock = Clock()
    rates = Rates(2.0, 3, clock)
    for _ in range(3):
        rates.take("ada")
    with pytest.raises(RateExceeded) as refused:
        rates.take("ada")
    assert refused.value.retry_after_seconds == 1
    rates.take("bob")
    clock.now = 0.5
    rates.take("ada")
    with pytest.raises(RateExceeded):
        rates.take("ada")


@given(
    st.floats(0.5, 1000), st.integers(1, 50), st.lists(st.floats(0, 5), min_size=1, max_size=200)
)
def test_nobody_gets_more_than_burst_and_rate(
    per_second: float, burst: int, pauses: list[float]
) -> None:
    clock = Clock()
    rates = Rates(per_second, burst, clock)
    taken = 0
    for pause in pauses:
        clock.now += pause
        try:
            rates.take("ada")
        except RateExceeded:
            continue
        taken += 1
    assert taken <= burst + per_second * clock.now + 1e-3


def test_of_many_only_those_who_asked_last_are_remembered() -> None:
    rates = Rates(0.001, 1, Clock())
    for number in range(2 * MOST_NAMES):
        rates.take(f"{number}")
    assert len(rates._due) == MOST_NAMES
    with pytest.raises(RateExceeded):
        rates.take(f"{2 * MOST_NAMES - 1}")
    rates.take("0")


def test_without_a_limit_everybody_may() -> None:
    rates = Rates(None, 1)
    for _ in range(1000):
        rates.take("ada")


@given(st.floats(0, 1), st.floats(0, 0.01), st.lists(st.integers(1, 512), min_size=2))
def test_the_pace_of_batches_is_learned(fixed: float, slope: float, sizes: list[int]) -> None:
    estimate = LatencyEstimate()
    for rows in sizes:
        estimate.learn(rows, fixed + slope * rows)
    # Batches of a size that was seen take as long as they took.
    assert estimate.seconds(1, sizes[-1]) == pytest.approx(
        fixed + slope * sizes[-1], abs=1e-6 + (fixed + slope * 512) * 0.02 * (len(set(sizes)) > 1)
    )


def test_a_request_that_would_wait_too_long_is_refused_at_once() -> None:
    clock, gate = Clock(), Event()

    def work(items: Sequence[int]) -> list[int]:
        gate.wait(30)
        gate.clear()
        clock.now += 2.0
        return list(items)

    async def story() -> None:
        with ThreadPoolExecutor(1) as pool:
            batches: Batches[int, int] = Batches(
                work, pool, most_rows=1, most_waiting=100, longest_wait_seconds=3.0, clock=clock
            )
            gate.set()
            assert await batches.submit(0, 1) == 0
            # One is under way, for two seconds as it seems; another one waits.
            first = asyncio.create_task(batches.submit(1, 1))
            await asyncio.sleep(0.05)
            second = asyncio.create_task(batches.submit(2, 1))
            await asyncio.sleep(0)
            assert batches.wait_seconds == pytest.approx(4.0)
            with pytest.raises(Overloaded, match=r"4\.0 seconds") as refused:
                await batches.submit(3, 1)
            assert refused.value.retry_after_seconds == 4
            gate.set()
            assert await first == 1
            gate.set()
            assert await second == 2
            gate.set()
            assert await batches.submit(4, 1) == 4

    asyncio.run(story())


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    # No model is needed to be asked whether one is there.
    made = deploy(tmp_path_factory.mktemp("limits"))
    yield made
    made.lake.close()


@pytest.fixture(scope="module")
def served(deployment: Deployment) -> Iterator[Served]:
    with deployment.served(head_seconds=0.5) as served:
        yield served


def test_too_many_requests_learn_when_to_come_again(deployment: Deployment) -> None:
    with deployment.client(requests_per_second=0.1, burst=2) as client:
        assert [client.get("/v2").status_code for _ in range(3)] == [200, 200, 429]
        refused = client.get("/v2")
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert refused.headers["content-type"] == "application/problem+json"
        # Whoever looks after the service is not locked out by it.
        assert client.get("/v2/health/live").status_code == 200


HEAD = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("before", "dripped"),
    [
        (b"", b""),
        (b"", b"G"),
        (b"", b"\r\n"),
        (HEAD, b"X-Slow: 1\r\n"),
        (HEAD + b"\r\n", b"\r\n"),
        (HEAD + b"\r\n" + HEAD, b"X-Slow: 1\r\n"),
        (HEAD + b"Content-Length: 100000\r\n\r\n", b"x"),
    ],
    ids=["silence", "one byte", "empty lines", "headers", "after an answer", "second", "body"],
)
def test_a_head_that_does_not_come_ends_the_connection(
    served: Served, before: bytes, dripped: bytes
) -> None:
    assert is_closed_on(served.http, before, dripped, pause=0.2)


def test_connections_that_come_at_once_are_taken_in_few_rounds_of_the_loop(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    many, rounds, all_wait = 64, [0], Event()
    taken: list[int] = []
    made = LimitedConnection.connection_made

    def count(loop: asyncio.AbstractEventLoop) -> None:
        rounds[0] += 1
        # As long as a round is in which hundreds of others are answered.
        time.sleep(0.05)
        if len(taken) < many:
            loop.call_soon(count, loop)

    def noted(self: LimitedConnection, transport: asyncio.Transport) -> None:
        if not taken:
            assert all_wait.wait(60)
            self.loop.call_soon(count, self.loop)
        taken.append(rounds[0])
        made(self, transport)

    monkeypatch.setattr(LimitedConnection, "connection_made", noted)
    host, _, port = served.http.partition(":")
    with ExitStack() as stack:
        for _ in range(many):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
        all_wait.set()
        wait_for(lambda: len(taken) == many, "not all were taken")
    assert max(taken) <= many / 2, taken


def test_a_connection_that_is_used_stays_open(served: Served) -> None:
    host, _, port = served.http.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        # Longer than a head may take: each had come.
        for _ in range(6):
            connection.sendall(HEAD + b"\r\n")
            assert b"200 OK" in connection.recv(10_000)
            Event().wait(0.15)
