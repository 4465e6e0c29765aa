"""Single rows over the network: the prediction service, beside `mlflow models serve`."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from benchmarks.contestants import BENTO, environment
from benchmarks.load import LoadPlan
from benchmarks.result import Bench, Line, Result
from benchmarks.year import Year, prepared
from ml_platform.features import needed_columns, open_online_store, publish
from ml_platform.open_inference import inference_pb2 as messages
from ml_platform.registry import ModelVersion
from ml_platform.spec.windows import Window

TURNS, QUICK_TURNS = 3, 1
SECONDS, QUICK_SECONDS = 8.0, 1.0
MANY = 32
CLIENT_PROCESSES = 2
ROWS = 64
THROUGHPUT_LIMIT, P99_LIMIT = 10.0, 0.2
START_SECONDS = 180.0
BARE_CALLS = 200
MLFLOW, BENTOML = "mlflow models serve", "BentoML, 2 workers"
NUMBERS = frozenset({"INTEGER", "BIGINT", "DOUBLE"})


@dataclass(frozen=True)
class Contender:
    """One way to ask one server."""

    name: str
    port: int
    path: str
    bodies: list[bytes]


@dataclass
class Times:
    """What was measured of a contender, turn by turn."""

    one: list[float]
    many: list[float]
    rates: list[float]
    """Requests a second of all clients together."""


def run(bench: Bench) -> Result:
    """Ask all of them in turns, on one machine, with one model."""
    year = prepared(bench).copy(bench.folder / "lake")
    model = year.registry.load(year.use_case, year.version)
    by_key = _publish(year)
    by_column = rows_of(model)
    turns, seconds = TURNS, SECONDS
    if bench.days is not None:
        turns, seconds = QUICK_TURNS, QUICK_SECONDS
    with ExitStack() as servers:
        contenders = [
            _mlflow(servers, year, by_column),
            *_bento(servers, bench, model, by_column),
            *service(servers, year, 1, by_column, by_key)[1],
            *service(servers, year, 2, by_column, by_key)[1],
        ]
        times = {each.name: Times([], [], []) for each in contenders}
        alone: list[float] = []
        for turn in range(turns + 1):
            for each in contenders:
                # The first turn warms up and is forgotten.
                into = times[each.name] if turn else Times([], [], [])
                into.one.extend(measure(bench, each, 1, 1, seconds / 2)[0])
                took, rate = measure(bench, each, MANY, CLIENT_PROCESSES, seconds)
                into.many.extend(took)
                into.rates.append(rate)
            alone += _alone(model)
    return _result(times, turns, median(alone))


def _result(times: dict[str, Times], turns: int, alone: float) -> Result:
    other = times[MLFLOW]
    lines = []
    for name, ours in times.items():
        if name == MLFLOW:
            continue
        # The limits are for a service of the size of the other one: as many workers as cores.
        limited = "2 workers" in name and name != BENTOML
        lines += [
            _rate(f"{name}: {MANY} clients", ours, other, THROUGHPUT_LIMIT if limited else None),
            _latency(f"  p99, {MANY} clients", ours.many, other.many, 99, limited),
            _latency("  p50, 1 client", ours.one, other.one, 50, False),
            _latency("  p99, 1 client", ours.one, other.one, 99, limited),
        ]
        if name != BENTOML:
            share = alone / float(np.percentile(ours.one, 50))
            what = "  predict_proba alone, share of p50 at 1 client"
            lines.append(Line(what, f"{alone * 1000:.2f} ms", ratio=share))
    if BENTOML in times:
        lines += [
            _rate(f"{name}, against {BENTOML}", ours, times[BENTOML], 1)
            for name, ours in times.items()
            if "2 workers" in name and name != BENTOML
        ]
    notes = (
        f"One model of flight_delays, single rows, {turns} turns one after the other; other: "
        "`mlflow models serve` with the one worker that it has by default. Clients are "
        f"{CLIENT_PROCESSES} processes on the same machine of {os.cpu_count()} cores, and take "
        "their share of them. All of the platform's requests are logged.",
        "By key: the row is completed from the online store first. The others cannot do that "
        "and are given all columns.",
    )
    return Result("Single rows over the network, against mlflow models serve", tuple(lines), notes)


def _rate(what: str, ours: Times, other: Times, limit: float | None) -> Line:
    a, b = median(ours.rates), median(other.rates)
    return Line(what, f"{a:,.0f} /s", f"{b:,.0f} /s", a / b, limit, at_least=True)


def _latency(
    what: str, ours: Sequence[float], other: Sequence[float], percentile: int, limited: bool
) -> Line:
    a, b = float(np.percentile(ours, percentile)), float(np.percentile(other, percentile))
    limit = P99_LIMIT if limited else None
    return Line(what, f"{a * 1000:.1f} ms", f"{b * 1000:.1f} ms", a / b, limit)


def _alone(model: ModelVersion) -> list[float]:
    """Seconds of the estimator for a row, on one core, as it has in the service."""
    frame = model.reference[list(model.columns)].head(1)
    seconds = []
    with threadpool_limits(limits=1):
        for _ in range(BARE_CALLS):
            started = perf_counter()
            model.estimator.predict_proba(frame)
            seconds.append(perf_counter() - started)
    return seconds


def rows_of(model: ModelVersion) -> list[dict[str, Any]]:
    """Rows of the reference sample that lack nothing, which is what every server takes."""
    complete = model.reference[list(model.columns)].dropna().head(ROWS)
    rows: list[dict[str, Any]] = complete.to_dict("records")
    return rows


def _publish(year: Year) -> list[dict[str, Any]]:
    """Bring the last days online; examples of the last one as callers know them."""
    case = year.use_case
    last = list(case.calendar.windows(year.range))[-3:]
    window_range = Window(last[0].start, last[-1].end)
    columns = needed_columns(case)
    store = open_online_store(year.settings)
    with year.opened() as lake:
        for view in case.model_views:
            publish(lake, store, case, view, window_range)
        with lake.cursor(case.timezone) as cursor:
            table = lake.relation(cursor, case.name, case.examples.source)
            time_column = case.sources[case.examples.source].event_time
            names = ", ".join(f"{name}::VARCHAR AS {name}" for name in columns)
            frame: pd.DataFrame = cursor.execute(
                f"SELECT {names} FROM {table} ORDER BY {time_column} DESC LIMIT {ROWS}"
            ).df()
    store.close()
    rows: list[dict[str, Any]] = frame.astype(object).where(frame.notna(), None).to_dict("records")
    for row in rows:
        for name, kind in columns.items():
            if kind in NUMBERS and row[name] is not None:
                row[name] = float(row[name])
    return rows


def service(
    servers: ExitStack,
    year: Year,
    workers: int,
    by_column: list[Any],
    by_key: list[Any],
    more: Mapping[str, str] | None = None,
    port: int | None = None,
) -> tuple[int, list[Contender]]:
    """The platform's service until `servers` is closed: its process, and the ways to ask it.

    by_column: rows as columns of the model. by_key: rows as `/predict` takes them. more: variables
    of its environment. port: of HTTP; any by default.
    """
    port, grpc_port, name = port or free_port(), free_port(), year.use_case.name
    variables = {
        "ML_PLATFORM_DATA": str(year.settings.root),
        "ML_PLATFORM_MLFLOW_TRACKING_URI": year.settings.tracking_uri,
        "ML_PLATFORM_SERVING_GRPC_PORT": str(grpc_port),
        **(more or {}),
    }
    command = ["-m", "ml_platform.cli", "serve", "--port", str(port), "--workers", str(workers)]
    ready = f"http://127.0.0.1:{port}/health/ready"
    process = servers.enter_context(_server(command, variables, ready))
    of = f"{workers} worker{'s' if workers > 1 else ''}"
    records = [_json({"dataframe_records": [row]}) for row in by_column]
    keyed = [_json({"rows": [row]}) for row in by_key]
    found = [
        Contender(f"/invocations, {of}", port, f"/mlflow/{name}/invocations", records),
        Contender(f"by key, {of}", port, f"/predict/{name}", keyed),
    ]
    if workers == 1:
        infers = [infer_message(name, [row]) for row in by_column]
        found.append(Contender(f"gRPC, {of}", grpc_port, "", infers))
    return process, found


def _mlflow(servers: ExitStack, year: Year, by_column: list[Any]) -> Contender:
    port = free_port()
    model = f"models:/{year.use_case.name}/{year.version}"
    command = ["-m", "mlflow", "models", "serve", "-m", model, "-p", str(port),
               "--env-manager", "local"]  # fmt: skip
    # It looks for uvicorn on the path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    variables = {"MLFLOW_TRACKING_URI": year.settings.tracking_uri, "PATH": path}
    servers.enter_context(_server(command, variables, f"http://127.0.0.1:{port}/ping"))
    bodies = [_json({"dataframe_records": [row]}) for row in by_column]
    return Contender(MLFLOW, port, "/invocations", bodies)


def _bento(
    servers: ExitStack, bench: Bench, model: ModelVersion, by_column: list[Any]
) -> list[Contender]:
    """BentoML with two workers; nothing where its environment cannot be made."""
    python = environment(bench.shared / "bento-venv", BENTO)
    if isinstance(python, str):
        return []
    folder = bench.folder / "bento"
    folder.mkdir()
    joblib.dump(model.estimator, folder / "model.joblib")
    dtypes = model.reference[list(model.columns)].dtypes
    kinds = {name: str(kind) for name, kind in dtypes.items()}
    (folder / "columns.json").write_text(json.dumps(kinds), encoding="utf-8")
    port = free_port()
    command = ["-m", "bentoml", "serve", "benchmarks/bento_service.py:Flights",
               "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    variables = {
        "MODEL": str(folder), "WORKERS": "2", "BENTOML_HOME": str(folder / "home"),
        "BENTOML_DO_NOT_TRACK": "True",
        # It starts the programs of its own environment by name.
        "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }  # fmt: skip
    ready = f"http://127.0.0.1:{port}/readyz"
    servers.enter_context(_server(command, variables, ready, str(python)))
    bodies = [_json({"rows": [row]}) for row in by_column]
    return [Contender(BENTOML, port, "/predict", bodies)]


@contextmanager
def _server(
    command: list[str], variables: dict[str, str], ready: str, python: str = sys.executable
) -> Iterator[int]:
    process = subprocess.Popen(
        [python, "-W", "ignore", *command],
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)} did not come up, see above")
            time.sleep(0.2)
        yield process.pid
    finally:
        # Its workers are processes of its group.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def measure(
    bench: Bench, contender: Contender, clients: int, processes: int, seconds: float
) -> tuple[list[float], float]:
    """Ask for a while: seconds of every request, and requests a second of all clients together."""
    running = []
    bodies = [base64.b64encode(body).decode() for body in contender.bodies]
    for number in range(processes):
        file = Path(bench.folder, f"load_{number}.json")
        share = clients // processes
        LoadPlan("127.0.0.1", contender.port, contender.path, bodies, share, seconds).write(file)
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.load", str(file)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    took: list[float] = []
    for process in running:
        said, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"a client of {contender.name} failed, see above")
        took += json.loads(said)
    return took, len(took) / seconds


def infer_message(name: str, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A request over gRPC for predictions of rows."""
    request = messages.ModelInferRequest(model_name=name)
    for column, first in rows[0].items():
        text = isinstance(first, str)
        kind = "BYTES" if text else "FP64"
        tensor = request.inputs.add(name=column, datatype=kind, shape=[len(rows)])
        if text:
            tensor.contents.bytes_contents.extend(row[column].encode() for row in rows)
        else:
            tensor.contents.fp64_contents.extend(row[column] for row in rows)
    encoded: bytes = request.SerializeToString()
    return encoded


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
