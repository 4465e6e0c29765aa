"""What runs the steps of Dagster's runs: what pods are given, and workers of Celery on a Redis."""

import subprocess
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from definitions import build_definitions
from ml_platform.settings import Settings
from ml_platform_dagster.resources.executor import build_executor
from tests import dagster_servers as servers
from tests import trips_use_case as trips
from tests.service_processes import wait_for

DAYS = [f"2024-03-0{day}" for day in range(1, 4)]


def asked(memory: str) -> dict[str, Any]:
    return {"container_config": {"resources": {"requests": {"memory": memory}}}}


def of_pods(settings: Settings) -> dict[str, str]:
    """The memory that the pod of each step asks for."""
    executor = build_definitions(settings).executor
    assert isinstance(executor, dg.ExecutorDefinition)
    applied = executor.apply_config_mapping({"config": {"max_concurrent": 3}})
    assert applied.success
    assert applied.value["config"]["max_concurrent"] == 3
    steps = applied.value["config"]["per_step_k8s_config"]
    return {
        name: each["container_config"]["resources"]["requests"]["memory"]
        for name, each in steps.items()
    }


def test_processes_run_the_steps_where_nothing_is_set() -> None:
    assert build_executor(Settings(), []) is None


@pytest.mark.slow
def test_pods_of_a_step_are_given_what_the_most_particular_entry_says(tmp_path: Path) -> None:
    folder = trips.write_folder(tmp_path / "use_cases", "binary").folder
    entries = {"in_process": asked("1Gi"), "trips": asked("2Gi"), "trips/spark": asked("8Gi")}
    settings = Settings(
        data=tmp_path / "data", use_cases=folder.parent, executor="kubernetes",
        kubernetes_steps=entries,
    )  # fmt: skip
    steps = of_pods(settings)
    assert {"trips__trips", "trips__predictions", "trips__model"} <= steps.keys()
    assert all(each == "2Gi" for each in steps.values())

    spec = folder / "use_case.yaml"
    spec.write_text(spec.read_text() + "engine: spark\n")
    steps = of_pods(settings)
    by_spark = {name for name, each in steps.items() if each == "8Gi"}
    assert by_spark == {"trips__pace_features", "trips__predictions"}
    assert steps["trips__model"] == "2Gi"


def test_celery_asks_for_its_broker() -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="ML_PLATFORM_CELERY_BROKER"):
        build_executor(Settings(executor="celery"), [])


@pytest.mark.slow
def test_workers_of_celery_run_the_steps(tmp_path: Path, redis_url: str) -> None:
    broker = redis_url.replace("unix://", "redis+socket://")
    environment = servers.project(
        tmp_path, 1, 3, ML_PLATFORM_EXECUTOR="celery", ML_PLATFORM_CELERY_BROKER=broker
    )
    worker = [
        "dagster-celery", "worker", "start", "-A", "dagster_celery.app",
        "-y", str(servers.ROOT / "deploy" / "celery.yaml"), "--", "--concurrency", "1",
    ]  # fmt: skip
    log = tmp_path / "worker.log"
    process = servers.start(worker, environment, log)
    try:
        wait_for(lambda: "ready." in log.read_text() or process.poll() is not None, "a worker")
        assert process.poll() is None, log.read_text()
        launch = [
            "dg", "launch", "--assets", "key:trips/trips",
            "--partition-range", f"{DAYS[0]}...{DAYS[-1]}",
        ]  # fmt: skip
        done = subprocess.run(
            launch, cwd=servers.ROOT, env=environment, capture_output=True, text=True, check=False,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:] + log.read_text()[-3000:]
    finally:
        servers.stop(process)
    # It was the worker, and no process of the run, that computed them.
    assert "execute_plan" in log.read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", environment["DAGSTER_HOME"])
        with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
            key = dg.AssetKey(["trips", "trips"])
            assert instance.get_materialized_partitions(key) == set(DAYS)
