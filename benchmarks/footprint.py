"""Memory and start of the service as it is set up here, by workers: what a container needs.

`python -m benchmarks.footprint` with the settings of the deployment, or `… --workers 1 2 4`.
It asks each use case for the examples of openapi.json, so that what is loaded on use is counted.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import psutil  # type: ignore[import-untyped]

REQUESTS = 40
"""Of each example and worker; the kernel spreads connections over workers as it likes."""
ROWS_IN_LARGEST = 1000
MIB = 2**20


def main() -> None:
    """Print a line for each number of workers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.footprint", description=__doc__)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4])
    print("workers  start CPU s  PSS MiB  a further worker MiB  largest worker RSS MiB")
    before: tuple[int, float] | None = None
    for workers in parser.parse_args().workers:
        seconds, pss, largest = _measured(workers)
        further = "" if before is None else f"{(pss - before[1]) / (workers - before[0]):.0f}"
        print(f"{workers:7}  {seconds:11.1f}  {pss:7.0f}  {further:>20}  {largest:22.0f}")
        before = workers, pss


def _measured(workers: int) -> tuple[float, float, float]:
    """CPU seconds until ready, proportional set size of all processes, the largest resident one."""
    with _serving(workers) as (process, address):
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        seconds = sum(sum(each.cpu_times()[:2]) for each in tree)
        for path, body in _examples(address):
            for _ in range(REQUESTS * workers):
                _post(f"{address}{path}", body)
        used = [each.memory_full_info() for each in tree]
    return seconds, sum(each.pss for each in used) / MIB, max(each.rss for each in used) / MIB


@contextmanager
def _serving(workers: int) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    port, grpc_port = _free_port(), _free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "ml_platform.cli", "serve", "--workers", str(workers)]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--grpc-port", str(grpc_port)],
        env={**os.environ, "ML_PLATFORM_SERVING_DRAIN_SECONDS": "0"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not _is_ready(address):
            if process.poll() is not None:
                sys.exit("the service has ended; `ml-platform serve` says why")
            time.sleep(0.1)
        yield process, address
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _is_ready(address: str) -> bool:
    try:
        urlopen(f"{address}/health/ready").close()
    except (URLError, OSError):
        return False
    return True


def _examples(address: str) -> list[tuple[str, Any]]:
    """Paths that predict, and what to send; the first row by key also many times over."""
    with urlopen(f"{address}/openapi.json") as answer:
        paths = json.load(answer)["paths"]
    found = []
    for path, methods in paths.items():
        if not path.startswith(("/predict/", "/mlflow/")) or "post" not in methods:
            continue
        body = methods["post"]["requestBody"]["content"]["application/json"]["example"]
        found.append((path, body))
        if "rows" in body:
            found.append((path, {"rows": body["rows"] * ROWS_IN_LARGEST}))
    return found


def _post(url: str, body: Any) -> None:
    headers = {"Content-Type": "application/json"}
    urlopen(Request(url, json.dumps(body).encode(), headers)).close()


if __name__ == "__main__":
    main()
