"""A worker that is killed under load has written down everything that it answered."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import httpx2
import pytest
from tritonclient.grpc import InferenceServerClient

from ml_platform.sources import ingest
from ml_platform.spec.windows import Window
from tests.dagster_servers import free_port
from tests.served import LOGGED, ROW, declare, deploy, records
from tests.trips_use_case import COMMIT

CLIENTS = 8


def ask_until_it_dies(address: str) -> list[str]:
    """Ids of the predictions that were received."""
    received = []
    with httpx2.Client(base_url=address, timeout=60) as client:
        while True:
            try:
                answer = client.post("/invocations", json={"dataframe_records": [ROW]})
            except httpx2.TransportError:
                return received
            assert answer.status_code == 200
            received.append(answer.headers["x-prediction-id"])


def kill_while_a_file_is_open(worker: subprocess.Popen[bytes], folder: Path) -> None:
    """Kill a worker at a moment at which lines of its log have not landed."""
    while True:
        worker.send_signal(signal.SIGSTOP)
        if any(file.stat().st_size for file in (folder / ".open").glob("*.jsonl")):
            break
        worker.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    worker.send_signal(signal.SIGKILL)


@pytest.mark.slow
def test_nothing_that_was_answered_is_lost_to_a_kill(tmp_path: Path) -> None:
    made = declare(deploy(tmp_path), LOGGED)
    made.promote(20)
    port, grpc_port = free_port(), free_port()
    environment = {
        **os.environ,
        "ML_PLATFORM_DATA": str(made.settings.data),
        "ML_PLATFORM_USE_CASES": str(made.settings.use_cases),
        # Several files land while the clients ask.
        "ML_PLATFORM_SERVING_LOG_BYTES": "20000",
    }
    command = [sys.executable, "-m", "ml_platform.cli", "serve", "--workers", "1"]
    ports = ["--port", str(port), "--grpc-port", str(grpc_port)]
    worker = subprocess.Popen([*command, *ports], env=environment)
    address = f"http://127.0.0.1:{port}"
    folder = Path(made.settings.landing_uri) / "trips" / "requests"
    try:
        until = time.monotonic() + 120
        while True:
            assert worker.poll() is None
            assert time.monotonic() < until
            try:
                if httpx2.get(f"{address}/v2/health/ready", timeout=60).status_code == 200:
                    break
            except httpx2.TransportError:
                time.sleep(0.2)
        assert InferenceServerClient(f"127.0.0.1:{grpc_port}").is_server_live()
        with ThreadPoolExecutor(CLIENTS) as clients:
            asked = [clients.submit(ask_until_it_dies, address) for _ in range(CLIENTS)]
            while len(list(folder.glob("*.jsonl"))) < 3:
                time.sleep(0.05)
            kill_while_a_file_is_open(worker, folder)
            received = [name for each in asked for name in each.result()]
    finally:
        worker.kill()
        worker.wait()
    assert len(received) > CLIENTS
    assert records(folder / ".open")
    # The next worker lands what the killed one left.
    with made.client():
        pass
    written = [record["prediction_id"] for record in records(folder)]
    assert len(written) == len(set(written))
    assert set(received) <= set(written)
    # What was written and did not arrive is at most what was under way.
    assert len(written) - len(received) <= CLIENTS
    calendar = made.use_case.calendar
    times = sorted(datetime.fromisoformat(each["event_time"]) for each in records(folder))
    window_range = Window(calendar.window_at(times[0]).start, calendar.window_at(times[-1]).end)
    report = ingest(made.lake, made.use_case, "requests", window_range, COMMIT)
    assert sum(counts.ingested for counts in report.windows.values()) == len(written)
    made.lake.close()
