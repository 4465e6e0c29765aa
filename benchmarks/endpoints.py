"""Batches that the prediction service predicts, against in process; and its other callers then."""

import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd

from benchmarks.result import Bench, Clock, Line, Result
from benchmarks.serving import Contender, measure, rows_of, service
from benchmarks.year import COMMIT, Year, prepared
from ml_platform.scoring import score
from ml_platform.spec.scoring import Scorer
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake

DAYS = 28
TURNS, SECONDS, QUICK_SECONDS = 3, 10.0, 6.0
CLIENTS = 4
REFERENCE_ROWS = 50_000
BY_REFERENCE = "rows of a file"
P99_LIMIT = 2.0
WAYS: dict[str, dict[str, Any]] = {
    "HTTP, Open Inference": {"protocol": "oip"},
    "gRPC": {"protocol": "oip", "grpc": True},
    "HTTP, MLflow": {"protocol": "mlflow"},
    "HTTP, Open Inference, checked row by row": {"protocol": "oip", "check": "all"},
    "HTTP, 100 rows, one at a time": {"protocol": "oip", "batch_rows": 100, "concurrency": 1},
    "HTTP, 100 rows, half of the time": {
        "protocol": "oip", "batch_rows": 100, "concurrency": 1, "share": 0.5,
    },
    "HTTP, 50 rows, a quarter of the time": {
        "protocol": "oip", "batch_rows": 50, "concurrency": 1, "share": 0.25,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """What is scored: the last days of the prepared ones, by a service of one worker."""

    year: Year
    range: Window
    http: int
    grpc: int

    def scorer(self, *, grpc: bool = False, protocol: str, **declared: Any) -> Scorer:
        url = f"grpc://127.0.0.1:{self.grpc}" if grpc else f"http://127.0.0.1:{self.http}"
        if protocol == "mlflow":
            url += f"/mlflow/{self.year.use_case.name}"
        return Scorer.model_validate({"url": url, "protocol": protocol, **declared})

    def score(self, lake: Lake, scorer: Scorer | None) -> int:
        """Score it again; returns how many rows there are."""
        self.year.drop(lake, "predictions")
        case = self.year.use_case.model_copy(update={"scorer": scorer})
        report = score(lake, self.year.registry, case, self.range, COMMIT)
        assert report.written is not None
        assert report.in_process == ()
        return sum(report.written.rows.values())


@dataclass(frozen=True)
class Reference:
    """A file of rows that the service is sent to."""

    use_case: str
    port: int
    folder: Path

    def write(self, rows: list[dict[str, Any]]) -> None:
        """The same rows again and again."""
        frame = pd.DataFrame(rows)
        repeated = pd.concat([frame] * math.ceil(REFERENCE_ROWS / len(frame)))
        repeated.head(REFERENCE_ROWS).to_parquet(self.folder / "rows.parquet", index=False)

    def predict(self) -> None:
        """Have them predicted, and wait for it."""
        url = f"http://127.0.0.1:{self.port}"
        body = {"rows": "rows.parquet", "answers": f"{uuid.uuid4().hex}.parquet"}
        sent = httpx.post(f"{url}/control/{self.use_case}/score", json=body, trust_env=False)
        sent.raise_for_status()
        while True:
            run = httpx.get(f"{url}{sent.headers['location']}", trust_env=False).json()["run"]
            if run["is_over"]:
                assert run["status"] == "succeeded", run
                return
            time.sleep(0.05)


def run(bench: Bench) -> Result:
    """Score the same days in process and by each protocol, in turns; then ask beside it."""
    year = prepared(bench).copy(bench.folder / "lake")
    end = year.range.end
    scored_range = Window(end - timedelta(days=min(DAYS, year.days // 2)), end)
    by_column = rows_of(year.registry.load(year.use_case, year.version))
    clock = Clock()
    with ExitStack() as servers, year.opened() as lake:
        shared = bench.folder / "shared"
        shared.mkdir()
        more = {"ML_PLATFORM_SERVING_BATCHES": str(shared)}
        _, (http, _, grpc) = service(servers, year, 1, by_column, by_column, more)
        scored = Scored(year, scored_range, http.port, grpc.port)
        by_reference = Reference(year.use_case.name, http.port, shared)
        by_reference.write(by_column)
        ways = {name: scored.scorer(**declared) for name, declared in WAYS.items()}
        rows = 0
        for turn in range(TURNS + 1):
            # The first turn warms up and is forgotten.
            into = clock if turn else Clock()
            rows = into.time("in process", lambda: scored.score(lake, None))
            for name, scorer in ways.items():
                into.time(name, lambda scorer=scorer: scored.score(lake, scorer))
            into.time(BY_REFERENCE, by_reference.predict)
        seconds = SECONDS if bench.days is None else QUICK_SECONDS
        batches = {
            name: partial(scored.score, lake, ways[name])
            for name in ("HTTP, Open Inference", *list(ways)[-3:])
        }
        batches[BY_REFERENCE] = by_reference.predict
        p99 = _beside(bench, http, batches, seconds)
    return _result(rows, clock, p99)


def _beside(
    bench: Bench, asked: Contender, batches: Mapping[str, Callable[[], object]], seconds: float
) -> dict[str, float]:
    """The 99th percentile, in seconds, of single rows alone and while a batch is predicted."""
    took: dict[str, list[float]] = {name: [] for name in ("alone", *batches)}
    for _ in range(TURNS):
        took["alone"] += measure(bench, asked, CLIENTS, 1, seconds)[0]
        for name, batch in batches.items():
            with _repeating(batch):
                try:
                    took[name] += measure(bench, asked, CLIENTS, 1, seconds)[0]
                except RuntimeError:
                    # Somebody was rejected, which is worse than any wait.
                    took[name].append(math.inf)
    return {
        name: max(values) if math.inf in values else float(np.percentile(values, 99))
        for name, values in took.items()
    }


@contextmanager
def _repeating(batch: Callable[[], object]) -> Iterator[None]:
    """A batch again and again meanwhile."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            batch()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _result(rows: int, clock: Clock, p99: dict[str, float]) -> Result:
    here = clock.median("in process")
    lines = [
        Line(f"{name}, against in process", f"{rows / clock.median(name):,.0f} rows/s",
             f"{rows / here:,.0f} rows/s", here / clock.median(name))
        for name in WAYS
    ]  # fmt: skip
    by_reference = REFERENCE_ROWS / clock.median(BY_REFERENCE)
    lines.append(Line(f"{BY_REFERENCE}, sent by reference", f"{by_reference:,.0f} rows/s"))
    alone = p99.pop("alone")
    lines += [
        Line(f"p99 of {CLIENTS} other callers meanwhile: {name}", f"{value * 1000:.1f} ms",
             f"{alone * 1000:.1f} ms", value / alone, P99_LIMIT)
        for name, value in p99.items()
    ]  # fmt: skip
    notes = (
        f"{rows:,} rows, joined, predicted, checked (a sample, unless it says otherwise) and "
        "written; requests of 500 rows, two at a time, unless it says otherwise. The service has "
        "one worker, on the same machine as the command and the other callers.",
        f"By reference: {REFERENCE_ROWS:,} rows of a Parquet file, read, predicted and written by "
        "the service alone, on a thread of low priority.",
        "Other callers send single rows over `/invocations`, each as fast as it is answered.",
    )
    return Result("Batches by an endpoint, against in process", tuple(lines), notes)
