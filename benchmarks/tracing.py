"""What traces of requests cost the prediction service, against none.

`python -m benchmarks tracing`
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median

import numpy as np

from benchmarks.result import Bench, Line, Result
from benchmarks.serving import (
    CLIENT_PROCESSES,
    MANY,
    QUICK_SECONDS,
    QUICK_TURNS,
    SECONDS,
    TURNS,
    Contender,
    measure,
    rows_of,
    service,
)
from benchmarks.year import prepared

WORKERS = 2
UNTRACED = "no traces"
RATIOS = {"one in ten traced": "0.1", "all traced": "1"}
THROUGHPUT_LIMIT = 0.9
"""Of the service without traces, with the ratio that it has by default."""


def run(bench: Bench) -> Result:
    """Ask services that differ in what they trace, by turns."""
    year = prepared(bench).copy(bench.folder / "lake")
    by_column = rows_of(year.registry.load(year.use_case, year.version))
    turns, seconds = TURNS, SECONDS
    if bench.days is not None:
        turns, seconds = QUICK_TURNS, QUICK_SECONDS
    one: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    with ExitStack() as servers:
        sink = servers.enter_context(_receiving())
        contenders: dict[str, Contender] = {}
        for name, ratio in {UNTRACED: "", **RATIOS}.items():
            traced = {
                "ML_PLATFORM_SERVING_OTLP_ENDPOINT": sink.address,
                "ML_PLATFORM_SERVING_TRACE_RATIO": ratio,
            }
            # A busy machine should make answers late, and not reject requests.
            more = {"ML_PLATFORM_SERVING_LONGEST_WAIT_SECONDS": "60", **(traced if ratio else {})}
            contenders[name] = service(servers, year, WORKERS, by_column, [], more)[1][0]
        for turn in range(turns + 1):
            for name, each in contenders.items():
                took, _ = measure(bench, each, 1, 1, seconds / 2)
                _, rate = measure(bench, each, MANY, CLIENT_PROCESSES, seconds)
                # The first turn warms up and is forgotten.
                if turn:
                    one.setdefault(name, []).extend(took)
                    rates.setdefault(name, []).append(rate)
    return _result(one, rates, turns, sink.bytes)


def _result(
    one: dict[str, list[float]], rates: dict[str, list[float]], turns: int, received: int
) -> Result:
    other, lines = median(rates[UNTRACED]), []
    p50 = float(np.percentile(one[UNTRACED], 50))
    for name, ratio in RATIOS.items():
        ours, took = median(rates[name]), float(np.percentile(one[name], 50))
        limit = THROUGHPUT_LIMIT if ratio == "0.1" else None
        lines += [
            Line(f"{name}: {MANY} clients", f"{ours:,.0f} /s", f"{other:,.0f} /s", ours / other,
                 limit, at_least=True),
            Line("  p50, 1 client", f"{took * 1000:.2f} ms", f"{p50 * 1000:.2f} ms", took / p50),
        ]  # fmt: skip
    notes = (
        f"/invocations of one service with {WORKERS} workers each, single rows, {turns} turns one "
        "after the other; other: without traces. Spans go by OTLP over HTTP to a receiver on the "
        f"same machine, in the process of the benchmark, which read {received / 1e6:.1f} MB.",
    )
    return Result("Traces of requests", tuple(lines), notes)


class _Sink:
    """Takes what is sent to it, and counts it."""

    def __init__(self) -> None:
        self.address = ""
        self.bytes = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        with self._lock:
            self.bytes += size


@contextmanager
def _receiving() -> Iterator[_Sink]:
    sink = _Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sink.take(len(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sink.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield sink
    finally:
        server.shutdown()
        server.server_close()
