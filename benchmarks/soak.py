"""A day's requests while versions are swapped: nothing fails, nothing is wrong or grows."""

import http.client
import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import psutil

from benchmarks.result import Bench, Line, Result
from benchmarks.serving import Contender, rows_of, service
from benchmarks.year import COMMIT, CUTOFF_AFTER, Year, prepared
from ml_platform.registry import Promotion, predict, record
from ml_platform.registry.promotions import Decision
from ml_platform.training import train

MINUTES, QUICK_MINUTES = 10.0, 1.0
"""At least."""
REQUESTS, QUICK_REQUESTS = 24 * 3600 * 10, 0
"""At least: a day at ten a second."""
SWAP_SECONDS = 20.0
CLIENTS = 4
WORKERS = 2
SAMPLE_SECONDS = 5.0
GROWTH_LIMIT = 1.1
FOLLOWED_WITHIN = 5.0
WARM_SHARE = 0.2
"""What is measured before does not count: allocators and caches are still filling."""


@dataclass(eq=False)
class Client(threading.Thread):
    """Sends single rows one after the other over one connection until it is stopped."""

    asked: Contender
    expected: dict[int, list[float]]
    """Probability of each row, by version."""
    halt: threading.Event
    number: int
    answers: list[tuple[float, float, int]] = field(default_factory=list)
    """Begin, end and version of each."""
    failed: int = 0
    wrong: int = 0

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def run(self) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self.asked.port, timeout=60)) as to:
            while not self.halt.is_set():
                self.number = (self.number + 1) % len(self.asked.bodies)
                try:
                    self._ask(to)
                except (OSError, http.client.HTTPException):
                    self.failed += 1
                    to.close()

    def _ask(self, to: http.client.HTTPConnection) -> None:
        begun = time.monotonic()
        body = self.asked.bodies[self.number]
        to.request("POST", self.asked.path, body, {"content-type": "application/json"})
        answer = to.getresponse()
        content = answer.read()
        if answer.status != 200:
            self.failed += 1
            return
        version = int(answer.headers["x-model-version"])
        said = json.loads(content)["predictions"][0][1]
        # Whatever came along in its batch, a row is predicted to the same bits.
        self.wrong += said != self.expected[version][self.number]
        self.answers.append((begun, time.monotonic(), version))


def run(bench: Bench) -> Result:
    """Swap between two versions under load, and look at every answer and at the memory."""
    year = prepared(bench).copy(bench.folder / "lake")
    is_quick = bench.days is not None
    minutes, requests = (QUICK_MINUTES, QUICK_REQUESTS) if is_quick else (MINUTES, REQUESTS)
    versions = (year.version, _another(year))
    rows = rows_of(year.registry.load(year.use_case, year.version))
    expected = {version: _expected(year, version, rows) for version in versions}
    halt = threading.Event()
    with ExitStack() as servers:
        process, (by_column, *_) = service(servers, year, WORKERS, rows, [])
        clients = [Client(by_column, expected, halt, number) for number in range(CLIENTS)]
        for client in clients:
            client.start()

        def is_over(begun: float) -> bool:
            asked = sum(len(client.answers) for client in clients)
            return time.monotonic() >= begun + minutes * 60 and asked >= requests

        memory, decided = _soak(year, versions, process, is_over)
        halt.set()
        for client in clients:
            client.join()
    return _result(clients, memory, decided)


def _soak(
    year: Year, versions: tuple[int, int], process: int, is_over: Callable[[float], bool]
) -> tuple[list[float], list[tuple[float, int]]]:
    """MiB of all workers, sample by sample; moment and version of each decision.

    is_over: whether it is, given its begin by the monotonic clock.
    """
    begun = time.monotonic()
    memory: list[float] = []
    decided = [(begun, versions[0])]
    with year.opened() as lake:
        while not is_over(begun):
            if time.monotonic() >= decided[-1][0] + SWAP_SECONDS:
                version = versions[len(decided) % 2]
                at = datetime.now(UTC)
                # A version is promoted once; who comes back is rolled back to.
                decision: Decision = "promoted" if len(decided) == 1 else "rolled back"
                promotion = Promotion(version, at, at, "benchmark", decision, "swapped")
                if not record(lake, year.use_case, promotion, COMMIT):
                    raise RuntimeError(f"version {version} was not decided on")
                decided.append((time.monotonic(), version))
            memory.append(_memory(process))
            time.sleep(SAMPLE_SECONDS)
    return memory, decided


def _result(
    clients: list[Client],
    memory: list[float],
    decided: list[tuple[float, int]],
) -> Result:
    answers = [answer for client in clients for answer in client.answers]
    took = [end - begin for begin, end, _ in answers]
    failed, wrong = (sum(getattr(c, what) for c in clients) for what in ("failed", "wrong"))
    warm = memory[int(len(memory) * WARM_SHARE) :]
    before, after = np.median(warm[: len(warm) // 4]), np.median(warm[-(len(warm) // 4) :])
    outdated = _longest_outdated(answers, decided)
    minutes = (max(end for _, end, _ in answers) - decided[0][0]) / 60
    lines = (
        Line("requests that failed", f"{failed}", "0", float(failed), 0),
        Line("answers that are not what their version says", f"{wrong}", "0", float(wrong), 0),
        Line("longest that the version before continued to serve, against what is allowed",
             f"{outdated:.1f} s", f"{FOLLOWED_WITHIN:g} s", outdated / FOLLOWED_WITHIN, 1),
        Line("memory of all workers, end against begin", f"{after:,.0f} MiB", f"{before:,.0f} MiB",
             float(after / before), GROWTH_LIMIT),
        Line("p50", f"{np.percentile(took, 50) * 1000:.1f} ms"),
        Line("p99", f"{np.percentile(took, 99) * 1000:.1f} ms"),
        Line("longest", f"{max(took) * 1000:.0f} ms"),
    )  # fmt: skip
    notes = (
        f"{minutes:.0f} minutes, {len(answers):,} single rows by {CLIENTS} clients, {WORKERS} "
        f"workers, {len(decided) - 1} swaps, one each {SWAP_SECONDS:g} seconds. Begin: after the "
        f"first {WARM_SHARE:.0%} of the time.",
        "From a decision on, a worker loads the version, has it predict its stored reference rows "
        "and only then swaps; until then the version before answers.",
    )
    return Result("Soak: swaps under load", lines, notes)


def _longest_outdated(
    answers: list[tuple[float, float, int]], decided: list[tuple[float, int]]
) -> float:
    """Seconds after a decision at which another version still answered."""
    ends = np.array([end for _, end, _ in answers])
    versions = np.array([version for *_, version in answers])
    longest = 0.0
    for (moment, version), (until, _) in pairwise([*decided, (float("inf"), 0)]):
        others = ends[(ends > moment) & (ends < until) & (versions != version)]
        longest = max([longest, *(others - moment)])
    return longest


def _another(year: Year) -> int:
    with year.opened() as lake:
        cutoff = min(year.range.start + CUTOFF_AFTER, year.range.end) - timedelta(days=3)
        cutoff = year.use_case.calendar.window_at(cutoff).start
        return train(lake, year.registry, year.use_case, cutoff, COMMIT, tags={}).version


def _expected(year: Year, version: int, rows: list[dict[str, object]]) -> list[float]:
    model = year.registry.load(year.use_case, version)
    columns = list(model.columns)
    frame = pd.DataFrame(rows, columns=columns).astype(model.reference[columns].dtypes)
    said: list[float] = predict(year.use_case, model, frame)["probability"].tolist()
    return said


def _memory(process: int) -> float:
    total = 0
    for each in psutil.Process(process).children(recursive=True):
        with suppress(psutil.Error):
            total += each.memory_info().rss
    return total / 2**20
