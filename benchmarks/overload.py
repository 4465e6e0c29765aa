"""More and more clients, up to many times what the service can answer, by hey and h2load.

`python -m benchmarks overload`; it needs both (`apt-get install hey nghttp2-client`).
"""

import csv
import io
import json
import re
import shutil
import struct
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.result import Bench, Line, Result
from benchmarks.serving import free_port, infer_message, rows_of, service
from benchmarks.year import prepared
from ml_platform.settings import ServingSettings

CLIENTS, QUICK_CLIENTS = (1, 4, 16, 64, 256, 1024), (1, 64)
SECONDS, QUICK_SECONDS = 8, 2
ROWS = 500
"""Of a large request."""
WORKERS = 2
REJECTED = (429, 503)
GRPC_REJECTED = ("RESOURCE_EXHAUSTED", "UNAVAILABLE")
INFER = "/inference.GRPCInferenceService/ModelInfer"
KEPT_LIMIT = 0.7
"""Rows a second under the greatest load, against the best: it should not collapse."""
P99_LIMIT = 2.0
"""p99 of what is answered while requests are rejected, in longest waits."""


@dataclass
class Probe:
    """Asks beside the load, to see whether rejected callers learn when to come again."""

    url: str
    body: bytes
    refused: int = 0
    without_header: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        headers = {"content-type": "application/json"}
        while not self._over.wait(0.02):
            request = urllib.request.Request(self.url, self.body, headers)
            try:
                urllib.request.urlopen(request, timeout=60).close()
            except urllib.error.HTTPError as error:
                self.refused += error.code in REJECTED
                self.without_header += error.code in REJECTED and "retry-after" not in error.headers
            except OSError:
                # Beyond the connections that get a 503, further ones are closed.
                continue

    @contextmanager
    def running(self) -> Iterator["Probe"]:
        thread = threading.Thread(target=self.ask)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()


@dataclass(frozen=True)
class Load:
    """What so many clients saw."""

    clients: int
    seconds: float
    took: list[float]
    """Seconds of each request that was answered."""
    rejected: int
    failed: int
    """Answers of any other status."""
    unconnected: int
    """Requests of hey that had no answer: connections beyond the limit are closed."""
    answered: int
    """Of `took`, those with predictions: over gRPC the client does not say which."""

    @property
    def rate(self) -> float:
        """Requests that were answered, a second."""
        return self.answered / self.seconds

    def cells(self, name: str, rows: int) -> tuple[str, ...]:
        p50, p99 = (1000 * np.percentile(self.took or [np.nan], q) for q in (50, 99))
        rate = self.rate
        return (name, f"{self.clients:,}", f"{rate:,.0f}", f"{rate * rows:,.0f}", f"{p50:,.1f} ms",
                f"{p99:,.1f} ms", f"{self.rejected / self.seconds:,.0f}",
                f"{self.unconnected / self.seconds:,.0f}")  # fmt: skip


HEADINGS = ("requests", "clients", "answered /s", "rows /s", "p50", "p99", "rejected /s",
            "connections closed /s")  # fmt: skip


def run(bench: Bench) -> Result:
    """Single rows and large requests, over HTTP and gRPC, each by more and more clients."""
    for tool, package in {"hey": "hey", "h2load": "nghttp2-client"}.items():
        if shutil.which(tool) is None:
            raise RuntimeError(f"{tool} is not installed: apt-get install {package}")
    year = prepared(bench).copy(bench.folder / "lake")
    rows = rows_of(year.registry.load(year.use_case, year.version))
    many = (rows * (ROWS // len(rows) + 1))[:ROWS]
    steps, seconds = (CLIENTS, SECONDS) if bench.days is None else (QUICK_CLIENTS, QUICK_SECONDS)
    found: dict[str, list[Load]] = {}
    with ExitStack() as servers:
        grpc_port = free_port()
        more = {"ML_PLATFORM_SERVING_GRPC_PORT": f"{grpc_port}"}
        _, (by_column, *_) = service(servers, year, WORKERS, rows, [], more)
        http = f"http://127.0.0.1:{by_column.port}"
        url = f"{http}{by_column.path}"
        probes = []
        kinds = {"single rows": rows[:1], f"{ROWS} rows": many}
        for name, asked in kinds.items():
            body = json.dumps({"dataframe_records": asked})
            file = Path(bench.folder, "body.json")
            file.write_text(body, encoding="utf-8")
            _load(url, file, CLIENTS[2], seconds)
            with Probe(url, body.encode()).running() as probe:
                found[name] = [_load(url, file, clients, seconds) for clients in steps]
            probes.append(probe)
        for name, asked in kinds.items():
            file = Path(bench.folder, "message")
            message = infer_message(year.use_case.name, asked)
            # As gRPC frames it: not compressed, so many bytes.
            file.write_bytes(struct.pack(">BI", 0, len(message)) + message)
            found[f"gRPC, {name}"] = [
                _grpc_load(f"http://127.0.0.1:{grpc_port}", http, file, clients, seconds)
                for clients in steps
            ]
    return _result(found, probes)


def _load(url: str, body: Path, clients: int, seconds: float) -> Load:
    command = ["hey", "-z", f"{seconds}s", "-c", f"{clients}", "-m", "POST", "-T",
               "application/json", "-D", str(body), "-o", "csv", url]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = list(csv.DictReader(io.StringIO(said.stdout)))
    by_status: dict[int, list[float]] = {}
    for row in rows:
        by_status.setdefault(int(row["status-code"]), []).append(float(row["response-time"]))
    took, unconnected = by_status.pop(200, []), len(by_status.pop(0, []))
    rejected = sum(len(by_status.pop(status, [])) for status in REJECTED)
    failed = sum(map(len, by_status.values()))
    return Load(clients, seconds, took, rejected, failed, unconnected, len(took))


def _grpc_load(url: str, http: str, message: Path, clients: int, seconds: float) -> Load:
    """Ask over gRPC; what came of the calls stands in trailers, so it is the service that says."""
    log = message.with_suffix(".tsv")
    log.unlink(missing_ok=True)
    before = _grpc_calls(http)
    command = ["h2load", "-D", f"{seconds}", "-c", f"{clients}", "-m", "1", "-d", str(message),
               "-H", "content-type: application/grpc", "-H", "te: trailers",
               f"--log-file={log}", f"{url}{INFER}"]  # fmt: skip
    subprocess.run(command, capture_output=True, check=True)
    counted = {code: n - before.get(code, 0) for code, n in _grpc_calls(http).items()}
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    took = [int(row[2]) / 1e6 for row in rows if row[1] == "200"]
    answered = counted.pop("OK", 0)
    rejected = sum(counted.pop(code, 0) for code in GRPC_REJECTED)
    # What is under way at the end, h2load takes back.
    counted.pop("CANCELLED", None)
    failed = sum(counted.values())
    return Load(clients, seconds, took, rejected, failed, len(rows) - len(took), answered)


def _grpc_calls(http: str) -> dict[str, int]:
    """Calls for predictions over gRPC so far, by their code."""
    with urllib.request.urlopen(f"{http}/metrics", timeout=60) as page:
        text = page.read().decode()
    found: dict[str, int] = {}
    for labels, number in re.findall(r"^ml_platform_requests_total\{(.*)\} (\S+)$", text, re.M):
        if 'protocol="oip-grpc"' in labels:
            code = re.findall(r'status="(\w+)"', labels)[0]
            found[code] = found.get(code, 0) + int(float(number))
    return found


def _result(found: dict[str, list[Load]], probes: list[Probe]) -> Result:
    longest = ServingSettings().longest_wait_seconds
    lines = []
    for name, loads in found.items():
        rates = [load.rate for load in loads]
        lines.append(
            Line(f"{name}: answered /s under the greatest load, against the best",
                 f"{rates[-1]:,.0f} /s", f"{max(rates):,.0f} /s", rates[-1] / max(rates),
                 KEPT_LIMIT, at_least=True)
        )  # fmt: skip
        if any(load.rejected for load in loads) and "gRPC" not in name:
            p99 = max(float(np.percentile(load.took, 99)) for load in loads if load.rejected)
            lines.append(
                Line("  worst p99 of what is answered while requests are rejected, against the "
                     "longest wait", f"{p99:.2f} s", f"{longest:g} s", p99 / longest, P99_LIMIT)
            )  # fmt: skip
    failed = sum(load.failed for loads in found.values() for load in loads)
    without_header, refused = (
        sum(each.without_header for each in probes),
        sum(each.refused for each in probes),
    )
    lines += [
        Line("answers other than 200, 429 and 503", f"{failed}", "0", float(failed), 0),
        Line(
            "rejected without Retry-After",
            f"{without_header} of {refused:,}",
            "0",
            float(without_header),
            0,
        ),
    ]
    grid = [load.cells(name, 1 if "single rows" in name else ROWS)
            for name, loads in found.items() for load in loads]  # fmt: skip
    notes = (
        f"hey, which shares the cores with the service's {WORKERS} workers; all clients keep "
        "their connections and ask again at once. Settings are the defaults: a worker holds "
        f"{ServingSettings().most_connections} connections, closes what comes beyond, and rejects "
        "requests that would wait longer than a second.",
        "gRPC by h2load, each client with a connection of its own, as ghz is in no registry of "
        "packages. It does not look at the trailers in which a call says what came of it: how many "
        "were answered and rejected is what the service has counted, and times are of both.",
    )
    return Result("Overload: throughput and latency by clients", tuple(lines), notes,
                  (HEADINGS, *grid))  # fmt: skip
