"""What breaks outside of the platform: nothing is lost or doubled, and it continues by itself."""

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Thread

import dagster as dg
import numpy as np
import psutil
import pytest
from dagster._core.events import DagsterEvent
from dagster._core.test_utils import create_run_for_test
from mlflow import MlflowClient

from ml_platform.errors import OrchestratorError, RegistryUnavailable
from ml_platform.orchestrator import Orchestrator, RunStatus
from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.storage import Lake
from ml_platform.training import train
from tests.dagster_servers import (
    ROOT,
    UP_WITHIN_SECONDS,
    dagster_dev,
    free_port,
    land_trips,
    project,
    start,
    stop,
)
from tests.trips_use_case import COMMIT, at, days, land, settings, trips, write_folder

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 400
DAYS = {f"2024-03-{day:02d}" for day in range(1, 9)}
NINTH = "2024-03-09"


def eventually(found, what: str):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (it := found()):
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.5)
    return it


class Dagster:
    """Web server and daemon as two processes, so that each can be killed alone."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.home = Path(environment["DAGSTER_HOME"])
        self.port = free_port()
        self.orchestrator = Orchestrator(f"http://127.0.0.1:{self.port}")
        web = ["dagster-webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(self.port)]
        self.web = start(web, environment, self.home / "web.log")
        self.daemon: subprocess.Popen[bytes] | None = None

    def start_daemon(self) -> subprocess.Popen[bytes]:
        command = ["dagster-daemon", "run", "-w", "workspace.yaml"]
        self.daemon = start(command, self.environment, self.home / "daemon.log")
        return self.daemon

    def answers(self) -> bool:
        try:
            return bool(self.orchestrator.partitions(["trips/trips"]))
        except OrchestratorError:
            return False

    def materialized(self, table: str) -> set[str]:
        name = f"trips/{table}"
        found = self.orchestrator.partitions([name])[name].materialized
        return {f"2024-03-{d:02d}" for a, b in found for d in range(int(a[-2:]), int(b[-2:]) + 1)}


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    servers = Dagster(project(tmp_path_factory.mktemp("faults"), 1, 8))
    deadline = time.monotonic() + UP_WITHIN_SECONDS
    try:
        while not servers.answers():
            assert time.monotonic() < deadline, "Dagster does not answer"
            time.sleep(0.5)
        # Only now: both would try to create Dagster's databases.
        servers.start_daemon()
        yield servers
    finally:
        servers.orchestrator.close()
        stop(servers.web)
        if servers.daemon is not None:
            stop(servers.daemon)


def counted(environment: dict[str, str], table: str) -> dict[str, tuple[int, int]]:
    """Rows and different trips of each day."""
    lake = Lake(Settings(data=Path(environment["ML_PLATFORM_DATA"])))
    with lake.cursor() as cursor:
        rows = cursor.execute(
            f"""SELECT strftime(window_start - INTERVAL 5 HOUR, '%Y-%m-%d'), count(*),
            count(DISTINCT trip) FROM lake.trips.{table} GROUP BY 1"""
        ).fetchall()
    lake.close()
    return {day: (rows, trips) for day, rows, trips in rows}


def test_a_daemon_killed_in_the_midst_of_a_backfill(dagster: Dagster) -> None:
    tables = ["trips/trips", "trips/pace_features", "trips/labels"]
    window_ranges = {table: [(min(DAYS), max(DAYS))] for table in tables}
    backfill = dagster.orchestrator.launch_backfill(window_ranges, "year", {})
    eventually(lambda: dagster.orchestrator.runs(limit=1), "the first run of the backfill")
    assert dagster.daemon is not None
    dagster.daemon.kill()
    dagster.daemon.wait()
    dagster.start_daemon()
    over = eventually(
        lambda: (found := dagster.orchestrator.backfill(backfill)).is_over and found,
        "the end of the backfill",
    )
    assert over.succeeded
    for table in ("trips", "pace_features", "labels"):
        assert dagster.materialized(table) == DAYS
        assert counted(dagster.environment, table) == dict.fromkeys(DAYS, (40, 40))


@pytest.mark.exhaustive
def test_a_code_server_killed(tmp_path: Path) -> None:
    environment = project(tmp_path, 1, 8, ML_PLATFORM_AUTOMATION="true")
    data, log = Path(environment["ML_PLATFORM_DATA"]), tmp_path / "keeper.log"
    with dagster_dev(environment) as url, Orchestrator(url) as orchestrator:
        keeper = start(
            ["ml-platform", "keep-loaded"], environment | {"ML_PLATFORM_DAGSTER_URL": url}, log
        )
        try:
            eventually(
                lambda: labelled(orchestrator) == (min(DAYS), max(DAYS)),
                "eight days by the sensors",
            )
            servers = [
                process
                for process in psutil.process_iter()
                if is_code_server(process, environment["DAGSTER_HOME"])
            ]
            assert servers
            for server in servers:
                server.kill()
            land_trips(data, 9, 9)
            eventually(lambda: "has died" in log.read_text(), "a reload")
            eventually(
                lambda: labelled(orchestrator) == (min(DAYS), NINTH), "the ninth day by the sensors"
            )
            eventually(lambda: all(r.status.is_over for r in orchestrator.runs()), "quiet")
        finally:
            stop(keeper)
    for table in ("trips", "labels"):
        assert counted(environment, table) == dict.fromkeys([*DAYS, NINTH], (40, 40))


@pytest.mark.exhaustive
def test_a_code_server_killed_together_with_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = project(tmp_path, 1, 8)
    monkeypatch.setenv("DAGSTER_HOME", environment["DAGSTER_HOME"])
    instance = Path(environment["DAGSTER_HOME"]) / "dagster.yaml"
    deployed = instance.read_text()
    assert "poll_interval_seconds: 60" in deployed
    instance.write_text(deployed.replace("poll_interval_seconds: 60", "poll_interval_seconds: 2"))
    tables = ["trips/trips", "trips/pace_features", "trips/labels"]
    with dagster_dev(environment) as url, Orchestrator(url) as orchestrator:
        run = orchestrator.launch_range(tables, min(DAYS), max(DAYS), {}).id
        eventually(lambda: orchestrator.run(run).status is RunStatus.started, "the start of a run")
        for server in list(psutil.process_iter()):
            if is_code_server(server, environment["DAGSTER_HOME"]):
                processes = [server, *server.children(recursive=True)]
                # Not one after the other: a server reports a run whose process has died.
                for process in processes:
                    process.suspend()
                for process in processes:
                    process.kill()
        assert orchestrator.run(run).status is RunStatus.started
        eventually(lambda: orchestrator.run(run).status is RunStatus.failure, "the run's failure")
        (why,) = orchestrator.failures(run)
        assert "has ended without a word" in why
        # Nobody has had the code server reloaded: what is queued now cannot be started.
        with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as home:
            queued = queue_again(home, run)
            eventually(lambda: "re-submitting the run into the queue" in said(home, queued), "that")
            assert orchestrator.run(queued).status in {RunStatus.queued, RunStatus.starting}


def queue_again(home: dg.DagsterInstance, run_id: str) -> str:
    """A run of the same tables in Dagster's queue, as a sensor would put it there."""
    run = home.get_run_by_id(run_id)
    assert run is not None
    again = create_run_for_test(
        home, job_name=run.job_name, tags=dict(run.tags), asset_selection=run.asset_selection,
        remote_job_origin=run.remote_job_origin,
    )  # fmt: skip
    queued = dg.DagsterEventType.RUN_ENQUEUED.value
    home.report_dagster_event(DagsterEvent(queued, run.job_name), again.run_id)
    return again.run_id


def said(home: dg.DagsterInstance, run_id: str) -> str:
    """What Dagster's own services have said of a run."""
    events = home.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    return " ".join(str(event.message) for event in events)


def labelled(orchestrator: Orchestrator) -> tuple[str, str] | None:
    """First and last day that has labels; None where there is none or Dagster cannot say."""
    try:
        (window_range,) = orchestrator.partitions(["trips/labels"])["trips/labels"].materialized
    except (OrchestratorError, KeyError, ValueError):
        return None
    return window_range


def is_code_server(process: psutil.Process, home: str) -> bool:
    """Whether a process holds the use cases of the Dagster of this home."""
    try:
        command = " ".join(process.cmdline())
        return "dagster api grpc" in command and process.environ().get("DAGSTER_HOME") == home
    except psutil.Error:
        return False


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[None]:
    command = [
        "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    server = start(command, {**os.environ, "PATH": path}, folder / "mlflow.log")
    try:
        yield
    finally:
        children = psutil.Process(server.pid).children(recursive=True)
        stop(server)
        for child in children:
            if child.is_running():
                child.kill()


@contextmanager
def nobody_home(port: int) -> Iterator[Event]:
    """Where connections are taken and closed; the event is set with the first one."""
    asked = Event()

    class Silent(BaseRequestHandler):
        def handle(self) -> None:
            asked.set()

    with ThreadingTCPServer(("127.0.0.1", port), Silent) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.exhaustive
def test_mlflow_unavailable_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    chosen = settings(tmp_path).model_copy(
        update={"mlflow_tracking_uri": f"http://127.0.0.1:{port}"}
    )
    use_case = write_folder(tmp_path, "binary")
    lake = Lake(chosen)
    land(lake, use_case, trips(1, 22), days(1, 22))

    # Away for good: it is asked a few times, then there is one clear error.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with pytest.raises(
        RegistryUnavailable, match=f"MLflow does not answer at http://127.0.0.1:{port}"
    ):
        train(lake, Registry(chosen), use_case, at(20), COMMIT, tags={})

    # Away for a while: training waits for it.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    made = []
    training = Thread(
        target=lambda: made.append(
            train(lake, Registry(chosen), use_case, at(20), COMMIT, tags={}).version
        )
    )
    with nobody_home(port) as asked:
        training.start()
        assert asked.wait(PATIENCE_SECONDS)
    with mlflow_server(tmp_path, port):
        training.join(PATIENCE_SECONDS)
        assert made == [1]
        client = MlflowClient(chosen.tracking_uri)
        runs = client.search_runs([client.get_experiment_by_name("trips").experiment_id])
        assert [run.info.status for run in runs] == ["FINISHED"]
        assert len(client.search_model_versions("name = 'trips'")) == 1
    lake.close()


WRITER = """
import resource, signal, sys
from pathlib import Path
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.storage import Lake
from tests.trips_use_case import COMMIT, days
root = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
lake = Lake(Settings(data=root / "data", use_cases=root))
ingest(lake, load_use_case(root / "trips"), "trips", days(1, 3), COMMIT)
"""


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    use_case = write_folder(tmp_path, "binary")
    chosen = settings(tmp_path)
    folder = Path(chosen.landing_uri) / "trips"
    folder.mkdir(parents=True)
    rows = trips(1, 3, a_day=2_000)
    for day, part in rows.groupby(rows["started_at"].dt.strftime("%Y-%m-%d")):
        part.to_csv(folder / f"{day}.csv", index=False)

    def written(most_bytes: int) -> subprocess.CompletedProcess[str]:
        # No file may grow beyond this, as on a disk that is full in the midst of writing.
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(most_bytes)]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
        )

    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert written(1 << 30).returncode == 0
    rows.assign(distance=1.0).to_csv(folder / "2024-03-01.csv", index=False)
    full = written(16_000)
    assert full.returncode != 0
    assert "error" in full.stderr.lower()

    lake = Lake(chosen)
    with lake.cursor() as cursor:
        stored = cursor.execute("SELECT count(*), sum(distance = 1.0) FROM lake.trips.trips")
        assert stored.fetchone() == (6_000, 0)
    ingest(lake, load_use_case(use_case.folder), "trips", days(1, 3), COMMIT)
    with lake.cursor() as cursor:
        again = cursor.execute("SELECT count(*), count(DISTINCT trip) FROM lake.trips.trips")
        assert again.fetchone() == (6_000, 6_000)
    lake.close()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.exhaustive
def test_a_disk_that_is_full_is_called_full(tmp_path: Path) -> None:
    write_folder(tmp_path / "use_cases", "binary")
    folder = tmp_path / "landing" / "trips"
    folder.mkdir(parents=True)
    rows = trips(1, 3, a_day=2_000)
    rows.to_csv(folder / "first.csv", index=False)
    environment = {
        **os.environ,
        "ML_PLATFORM_DATA": str(tmp_path / "data"),
        "ML_PLATFORM_USE_CASES": str(tmp_path / "use_cases"),
        "ML_PLATFORM_LANDING": str(tmp_path / "landing"),
    }
    command = [sys.executable, "-m", "ml_platform.cli", "ingest", "trips"]
    command += ["--range", "2024-03-01...2024-03-03"]
    numbers = np.random.default_rng(0)

    def ingested() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )

    with small_disk(tmp_path / "data", "4m"):
        assert ingested().returncode == 0
        filling = tmp_path / "data" / "filling"
        for room in (0, 20_000, 60_000):
            filling.unlink(missing_ok=True)
            free = shutil.disk_usage(tmp_path / "data").free
            filling.write_bytes(b"x" * (free - room))
            # Numbers that do not compress: the new files need more than there is room for.
            rows["distance"] = 1 + numbers.random(len(rows))
            rows.to_csv(folder / "first.csv", index=False)
            full = ingested()
            assert full.returncode == 1
            (line,) = full.stderr.splitlines()
            assert line.startswith("error: a disk is full: ")
            assert "retry" not in line
        filling.unlink()
        assert ingested().returncode == 0
