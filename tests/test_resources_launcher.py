"""Runs that nobody starts, and runs whose process has died, end by themselves."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.test_utils import create_run_for_test, create_test_daemon_workspace_context
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring import run_monitoring

from ml_platform.spec.use_case import UseCase
from ml_platform_dagster.resources.launcher import WatchedRunLauncher
from ml_platform_dagster.sensors.running import training_under_way
from tests import trips_use_case as trips
from tests.dagster_servers import ROOT

pytestmark = pytest.mark.slow

MODEL = dg.AssetKey(["trips", "model"])
DEPLOYED = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text())
ON_A_SOCKET = {"host": "localhost", "socket": "/tmp/socket"}
ON_A_PORT = {"host": "localhost", "port": 4000}
NOT_STARTED, STARTED, FAILURE, CANCELED = (
    dg.DagsterRunStatus[name] for name in ("NOT_STARTED", "STARTED", "FAILURE", "CANCELED")
)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance that starts and watches runs as the deployed one does."""
    kept = {key: DEPLOYED[key] for key in ("run_launcher", "run_monitoring", "run_coordinator")}
    with dg.instance_for_test(overrides=kept) as instance:
        assert isinstance(instance.run_launcher, WatchedRunLauncher)
        yield instance


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    return trips.write_folder(tmp_path, "binary")


def report(
    instance: dg.DagsterInstance, run: dg.DagsterRun, kind: dg.DagsterEventType, at: float
) -> None:
    instance.handle_new_event(
        dg.EventLogEntry(
            error_info=None, user_message="", level="INFO", run_id=run.run_id,
            job_name=run.job_name, timestamp=at,
            dagster_event=DagsterEvent(kind.value, run.job_name),
        )
    )  # fmt: skip


def training(
    instance: dg.DagsterInstance,
    pid: int,
    server: dict[str, object] = ON_A_SOCKET,
    at: float | None = None,
) -> dg.DagsterRun:
    """A run that trains in a process, as Dagster's code server reports it."""
    run = create_run_for_test(
        instance, asset_selection=frozenset({MODEL}), tags={GRPC_INFO_TAG: json.dumps(server)}
    )
    instance.report_engine_event("Started process", run, EngineEventData.in_process(pid))
    report(instance, run, dg.DagsterEventType.RUN_START, at or time.time())
    assert status(instance, run) is STARTED
    return run


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def look(instance: dg.DagsterInstance) -> None:
    """One look of the daemon at all runs that are not over."""
    logger = dg.get_dagster_logger()
    with create_test_daemon_workspace_context(EmptyWorkspaceTarget(), instance) as workspace:
        problems = run_monitoring.execute_run_monitoring_iteration(workspace, logger)
        assert [problem for problem in problems if problem] == []


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let run monitoring look at a clock that is ahead."""

    def ahead() -> float:
        return time.time() + seconds

    monkeypatch.setattr(run_monitoring, "get_current_timestamp", ahead)
    monkeypatch.setattr(run_monitoring, "time", SimpleNamespace(time=ahead))


def test_a_run_stays_while_its_process_is_there_and_fails_once_it_has_died(
    instance: dg.DagsterInstance, use_case: UseCase, process: "subprocess.Popen[bytes]"
) -> None:
    run = training(instance, process.pid)
    look(instance)
    assert status(instance, run) is STARTED
    assert training_under_way(instance, use_case) is not None
    process.kill()
    process.wait()
    look(instance)
    assert status(instance, run) is FAILURE
    assert training_under_way(instance, use_case) is None
    (event,) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert "has ended without a word, and so has its code server" in str(event.message)


def test_a_process_that_nobody_has_waited_for_is_none(
    instance: dg.DagsterInstance, process: "subprocess.Popen[bytes]"
) -> None:
    run = training(instance, process.pid)
    process.kill()
    # Its parent has not asked for its exit status, so that it is still listed.
    while b"Z" not in Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2]:
        time.sleep(0.01)
    look(instance)
    assert status(instance, run) is FAILURE


def test_a_later_process_of_the_same_number_is_another_one(
    instance: dg.DagsterInstance, process: "subprocess.Popen[bytes]"
) -> None:
    before_the_machine_was_started_again = datetime(2024, 3, 1, tzinfo=UTC).timestamp()
    run = training(instance, process.pid, at=before_the_machine_was_started_again)
    look(instance)
    assert status(instance, run) is FAILURE


def test_processes_that_may_be_elsewhere_are_not_judged(
    instance: dg.DagsterInstance, process: "subprocess.Popen[bytes]"
) -> None:
    run = training(instance, process.pid, ON_A_PORT)
    process.kill()
    process.wait()
    look(instance)
    assert status(instance, run) is STARTED


def test_the_first_engine_event_of_a_run_names_its_process(instance: dg.DagsterInstance) -> None:
    # What `WatchedRunLauncher` relies on: the event is written in dagster._grpc.impl.
    assert "pid" in EngineEventData.in_process(7).metadata
    source = Path(sys.modules["dagster"].__path__[0], "_grpc", "impl.py").read_text()
    assert "EngineEventData.in_process(pid)" in source


@pytest.mark.parametrize("is_launched", [False, True])
def test_a_run_that_is_never_started_fails_after_a_while(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, is_launched: bool
) -> None:
    run = create_run_for_test(instance, status=NOT_STARTED, asset_selection=frozenset({MODEL}))
    if is_launched:
        report(instance, run, dg.DagsterEventType.RUN_STARTING, time.time())
    before = status(instance, run)
    later(monkeypatch, 600)
    look(instance)
    assert status(instance, run) is before
    later(monkeypatch, 1000)
    look(instance)
    assert status(instance, run) is FAILURE


def test_a_run_that_is_ended_and_does_not_end_is_canceled_after_a_while(
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    process: "subprocess.Popen[bytes]",
) -> None:
    run = training(instance, process.pid)
    instance.report_run_canceling(run)
    look(instance)
    assert status(instance, run) is dg.DagsterRunStatus.CANCELING
    later(monkeypatch, 1000)
    look(instance)
    assert status(instance, run) is CANCELED


def test_runs_wait_in_the_queue_while_the_code_server_is_unavailable(
    instance: dg.DagsterInstance,
) -> None:
    queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    waits = queue.max_user_code_failure_retries * queue.user_code_failure_retry_delay
    # Longer than `ml-platform keep-loaded` takes to have it reloaded, on any machine.
    assert waits >= 300
