"""What a server did not answer is tried again, and a server that fails is left alone."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from ml_platform.errors import EndpointRefused, EndpointUnavailable
from ml_platform.scoring.endpoint.answers import TryAgain
from ml_platform.scoring.endpoint.breaker import FAILURES, Breaker


@dataclass
class Time:
    """A clock that advances when somebody waits."""

    now: float = 1000.0
    waits: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def wait(self, changed: threading.Condition, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def failing(times: int, error: Callable[[], Exception]) -> Callable[[], int]:
    """Fails so often, then says how often it was called."""
    calls = 0

    def attempt() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise error()
        return calls

    return attempt


def broken(patience: float) -> tuple[Breaker, Time]:
    time = Time()
    return Breaker(patience, clock=time, wait=time.wait), time


def test_waits_grow_and_are_not_all_alike() -> None:
    breaker, time = broken(120)
    assert breaker(failing(6, lambda: TryAgain("busy"))) == 7
    lengths = (0.25, 0.5, 1, 2, 4, 5)
    assert all(n / 2 <= waited <= n for waited, n in zip(time.waits, lengths, strict=True))
    other, again = broken(120)
    other(failing(6, lambda: TryAgain("busy")))
    assert again.waits != time.waits


def test_no_one_asks_before_the_time_that_the_server_says() -> None:
    breaker, time = broken(120)
    breaker(failing(1, lambda: TryAgain("busy", 30)))
    assert 30 <= sum(time.waits) <= 31


def test_patience_counts_from_the_first_failure_and_anew_after_a_success() -> None:
    breaker, time = broken(10)
    with pytest.raises(EndpointUnavailable, match=r"^busy; waited 10 s for it$") as over:
        breaker(failing(10**9, lambda: TryAgain("busy")))
    assert over.value.is_final
    assert sum(time.waits) <= 10
    breaker, time = broken(10)
    for _ in range(5):
        breaker(failing(3, lambda: TryAgain("busy")))
    assert not breaker.is_open


def test_no_patience_fails_at_once() -> None:
    breaker, time = broken(0)
    with pytest.raises(EndpointUnavailable):
        breaker(failing(1, lambda: TryAgain("busy")))
    assert time.waits == []


def test_a_refusal_is_no_failure_of_the_server() -> None:
    breaker, _ = broken(60)
    errors = iter([TryAgain("busy")] * FAILURES + [EndpointRefused("no")])

    def attempt() -> None:
        raise next(errors)

    with pytest.raises(EndpointRefused):
        breaker(attempt)
    assert not breaker.is_open


def test_an_open_breaker_lets_one_thread_try() -> None:
    at_once = most = calls = 0
    lock = threading.Lock()
    answers = threading.Event()
    first = threading.Barrier(8)

    def attempt() -> None:
        nonlocal at_once, most, calls
        with lock:
            calls += 1
            is_first = calls <= 8
            is_alone = not is_first and not answers.is_set()
            at_once += is_alone
            most = max(most, at_once)
        if is_first:
            first.wait(30)
        with lock:
            at_once -= is_alone
        if calls > 20:
            answers.set()
        if not answers.is_set():
            raise TryAgain("busy")

    def wait(changed: threading.Condition, seconds: float) -> None:
        # All eight are under way, so whoever is to wait waits until enough of them have failed.
        while not (breaker.is_open or answers.is_set()):
            changed.wait(0.001)
        changed.wait(seconds)

    breaker = Breaker(60, wait=wait)
    threads = [threading.Thread(target=breaker, args=(attempt,), daemon=True) for _ in range(8)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ml_platform.scoring.endpoint.breaker.FIRST_WAIT_SECONDS", 0.001)
        patched.setattr("ml_platform.scoring.endpoint.breaker.LONGEST_WAIT_SECONDS", 0.002)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    # Eight failed together; from then on, one at a time, until one is answered.
    assert most == 1


def test_all_threads_give_up_once_one_does() -> None:
    breaker = Breaker(0.2)
    ended: list[str] = []

    def ask() -> None:
        try:
            breaker(failing(10**9, lambda: TryAgain("busy")))
        except EndpointUnavailable as error:
            ended.append(str(error))

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert ended == ["busy; waited 0.2 s for it"] * 4
