"""Large bodies wait for their turn to be parsed, and are rejected unread where that is too long."""

import asyncio
import socket
from collections.abc import Iterator

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.errors import Overloaded
from ml_platform.serving.batches import Batches
from ml_platform.serving.http.shedding import A_SECOND, LONGEST_DELAY_SECONDS, RejectionPace
from ml_platform.serving.parse_queue import SMALL_BYTES, ParseQueue
from tests.attacked import INVOKE
from tests.clock import Clock
from tests.served import ROW, Served, deployed

LARGE = SMALL_BYTES + 1
LONGEST = 3.0


def queue_of(clock: Clock, prediction_seconds: float = 0.0) -> ParseQueue:
    return ParseQueue(lambda: prediction_seconds, longest_wait_seconds=LONGEST, clock=clock)


async def parsed(queue: ParseQueue, clock: Clock, size: int, seconds: float) -> float:
    """When a body began to be parsed, which takes so long."""
    await queue.turn(size)
    began = clock.now
    clock.now += seconds
    return began


async def slowly(clock: Clock, seconds: float) -> None:
    """Something else of the loop that takes so long."""
    clock.now += seconds


def test_large_bodies_are_parsed_in_turn_and_others_run_in_between() -> None:
    clock, seen = Clock(), []

    async def body(queue: ParseQueue, name: str) -> None:
        await queue.turn(LARGE)
        seen.append(name)
        asyncio.get_running_loop().call_soon(seen.append, "answer")

    async def story() -> None:
        queue = queue_of(clock)
        await asyncio.gather(*(body(queue, name) for name in "abc"))

    asyncio.run(story())
    assert [each for each in seen if each != "answer"] == ["a", "b", "c"]
    assert seen.index("answer") < seen.index("c")


@given(st.integers(0, SMALL_BYTES), st.floats(0, 1e6))
def test_small_bodies_wait_for_nobody(size: int, prediction_seconds: float) -> None:
    async def story() -> None:
        queue = queue_of(Clock(), prediction_seconds)
        queue.require_room(size)
        with queue.arriving(size):
            await queue.turn(size)

    asyncio.run(story())


def test_what_would_wait_too_long_is_rejected_before_it_is_read() -> None:
    clock = Clock()

    async def story() -> None:
        queue = queue_of(clock)
        # Two in a row, so that the pace is known: a second each.
        await asyncio.gather(*(parsed(queue, clock, LARGE, 1.0) for _ in range(2)))
        await asyncio.sleep(0)
        with queue.arriving(LARGE), queue.arriving(LARGE), queue.arriving(LARGE):
            queue.require_room(LARGE)
            with queue.arriving(LARGE), pytest.raises(Overloaded, match=r"4\.0 s") as rejected:
                queue.require_room(LARGE)
            assert rejected.value.retry_after_seconds == 4
            # What should have come long ago keeps nobody out.
            clock.now += LONGEST + 1
            queue.require_room(LARGE)
        queue.require_room(LARGE)

    asyncio.run(story())


def test_who_waits_for_a_prediction_counts_too() -> None:
    queue = queue_of(Clock(), LONGEST + 0.5)
    with pytest.raises(Overloaded, match=r"3\.5 s"):
        queue.require_room(LARGE)


def test_whoever_has_waited_too_long_is_not_parsed_any_more() -> None:
    clock = Clock()

    async def story() -> None:
        queue = queue_of(clock)
        # Two begin to wait for the first, which takes longer than they may.
        first, *others, _ = await asyncio.gather(
            *(parsed(queue, clock, LARGE, 0.0) for _ in range(3)),
            slowly(clock, LONGEST + 1),
            return_exceptions=True,
        )
        assert first == 0.0
        assert all(isinstance(each, Overloaded) for each in others), others
        # Nobody waits, so the next one is taken whatever the last one took.
        await asyncio.sleep(0)
        assert await parsed(queue, clock, LARGE, 0.0) == clock.now

    asyncio.run(story())


def test_whoever_gives_up_holds_nobody_up() -> None:
    clock = Clock()

    async def story() -> None:
        queue = queue_of(clock)
        first, gone, last = (asyncio.create_task(parsed(queue, clock, LARGE, 0.1)) for _ in "abc")
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(first, last)
        assert gone.cancelled()
        assert clock.now == pytest.approx(0.2)

    asyncio.run(story())


@given(st.lists(st.floats(0, 0.1), min_size=1, max_size=300))
def test_rejections_are_held_back_so_that_there_are_few_and_none_for_long(
    pauses: list[float],
) -> None:
    clock = Clock()
    pace = RejectionPace(clock)
    said = []
    for pause in pauses:
        clock.now += pause
        said.append(clock.now + pace.delay_seconds())
        delay = said[-1] - clock.now
        assert delay <= LONGEST_DELAY_SECONDS
        if len(said) > 1 and delay < LONGEST_DELAY_SECONDS:
            assert said[-1] - said[-2] >= 1 / A_SECOND - 1e-9


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with deployed(tmp_path_factory.mktemp("parse_queue")) as made, made.served() as addresses:
        yield addresses


@pytest.mark.slow
def test_an_overloaded_service_rejects_before_the_body_has_come(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 1_000_000
    head = f"POST {INVOKE} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    host, _, port = served.http.partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        with monkeypatch.context() as patch:
            patch.setattr(Batches, "queue_seconds", property(lambda _: 5.0))
            connection.sendall(f"{head}content-length: {size}\r\n\r\n".encode())
            answer = connection.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 503 "), answer
        assert b"retry-after: 5" in answer
        assert b"what waits to be predicted will take 5.0 seconds" in answer
        # The body is read in the end, and the connection stays: the next request is answered.
        connection.sendall(b" " * size)
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
    counted = httpx2.get(f"http://{served.http}/metrics", timeout=60).text
    labels = 'kind="Overloaded",protocol="mlflow",use_case="trips"'
    assert f"ml_platform_request_errors_total{{{labels}}} 1.0" in counted, counted


@pytest.mark.slow
def test_a_body_that_is_too_large_is_refused_as_that_also_under_overload(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Batches, "queue_seconds", property(lambda _: 5.0))
    with httpx2.Client(base_url=f"http://{served.http}", timeout=60) as client:
        assert client.post(INVOKE, content=b" " * 8_000_001).status_code == 413
        small = client.post(INVOKE, json={"instances": [ROW]})
        assert small.status_code == 503
        assert small.headers["retry-after"] == "5"
