"""Batches predicted by processes: MLflow's own server, and commands that are killed."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from ml_platform.scoring import reproduce, score
from ml_platform.spec.scoring import Scorer
from tests.dagster_servers import free_port, start, stop
from tests.endpoint_front import Front, Said, front_of
from tests.served import Deployment, declare, deploy, deployed
from tests.trips_use_case import COMMIT, days

SCORED = days(25, 27)
OPEN = "serving: {unknown_categories: accept}\n"


def by_endpoint(made: Deployment, **declared: object) -> tuple[int, int]:
    """Rows scored by an endpoint, and how many of them come back to the bit in process."""
    scorer = Scorer.model_validate({"batch_rows": 40, "check": "all", **declared})
    case = made.use_case.model_copy(update={"scorer": scorer})
    report = score(made.lake, made.registry, case, SCORED, COMMIT)
    assert report.in_process == ()
    again = [
        reproduce(made.lake, made.registry, case, window)
        for window in case.calendar.windows(SCORED)
    ]
    return sum(each.rows for each in again), sum(each.rows - each.different for each in again)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_every_task_is_predicted_to_the_bit_by_every_protocol(tmp_path: Path, task: str) -> None:
    with deployed(tmp_path, task=task, declared=OPEN) as made, made.served() as served:
        for protocol, path in (("oip", ""), ("mlflow", "/mlflow/trips")):
            with made.lake.cursor() as cursor:
                cursor.execute("DROP TABLE IF EXISTS lake.trips.predictions")
            url = f"http://{served.http}{path}"
            assert by_endpoint(made, url=url, protocol=protocol) == (120, 120)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_mlflows_own_server_predicts_to_the_bit(tmp_path: Path, task: str) -> None:
    port = free_port()
    with deployed(tmp_path, task=task) as made:
        environment = {
            **os.environ,
            # It looks for uvicorn on the path.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MLFLOW_TRACKING_URI": made.settings.tracking_uri,
        }
        command = ["-m", "mlflow", "models", "serve", "-m", "models:/trips/1", "-p", str(port),
                   "-h", "127.0.0.1", "--env-manager", "local"]  # fmt: skip
        log = tmp_path / "mlflow.log"
        server = start([sys.executable, *command], environment, log)
        try:
            wait_for_answer(f"http://127.0.0.1:{port}/ping", server, log)
            declared = {"url": f"http://127.0.0.1:{port}", "protocol": "mlflow", "version": 1}
            assert by_endpoint(made, **declared) == (120, 120)
        finally:
            stop(server)


def wait_for_answer(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 180
    while True:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            if httpx.get(url, trust_env=False, timeout=60).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.2)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_command_that_is_killed_is_finished_by_the_same_command(tmp_path: Path) -> None:
    made = declare(deploy(tmp_path), OPEN)
    made.promote(20)
    with made.served() as served, front_of(served.http) as front:
        made = declare(made, f"scorer: {{url: 'http://{front.address}', batch_rows: 5}}\n")
        killed = holding_from(front, 12)
        command = [sys.executable, "-m", "ml_platform.cli", "score", "trips", "--range",
                   "2024-03-25...2024-03-27"]  # fmt: skip
        environment = {
            **os.environ,
            "ML_PLATFORM_DATA": str(made.settings.data),
            "ML_PLATFORM_USE_CASES": str(made.settings.use_cases),
        }
        process = start(command, environment, tmp_path / "score.log")
        try:
            assert killed.wait(120), (tmp_path / "score.log").read_text()
        finally:
            process.kill()
            process.wait()
        answered = set(front.passed)
        with made.lake.cursor() as cursor:
            assert "predictions" not in made.lake.tables(cursor, "trips")
        front.rule = lambda number, body: None
        front.asked.clear()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        # What had been answered when it was killed, but for those whose answer was under way.
        assert len(set(front.asked) & answered) <= 2
        assert len(front.asked) <= 24 - len(answered) + 2
        for window in made.use_case.calendar.windows(SCORED):
            assert reproduce(made.lake, made.registry, made.use_case, window).is_exact
    made.lake.close()


def holding_from(front: Front, count: int) -> threading.Event:
    """Requests from a number on are answered by nobody; the event says that one has come."""
    come = threading.Event()

    def rule(number: int, body: bytes) -> Said | None:
        if number < count:
            return None
        come.set()
        # Until whoever asked is gone.
        return Said(503, headers={"retry-after": "1"})

    front.rule = rule
    return come
