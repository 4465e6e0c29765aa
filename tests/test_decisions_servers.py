"""Rollback in the real Dagster: ordered from the command line and from a job, made good by runs."""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ml_platform.settings import Settings
from ml_platform.storage import Lake
from tests.dagster_servers import ROOT, dagster_dev, project

WITHIN_SECONDS = 600


def run(environment: Mapping[str, str], *command: str) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env=dict(environment), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {WITHIN_SECONDS} s: {what}"
        time.sleep(2)


def served(environment: Mapping[str, str]) -> dict[str, set[int]]:
    """Which versions each table names."""
    lake = Lake(Settings(data=Path(environment["ML_PLATFORM_DATA"])))
    columns = {
        "predictions": "model_version",
        "drift_report": "reference_version",
        "performance_report": "unnest(model_versions)",
    }
    with lake.cursor() as cursor:
        found = {
            table: {v for (v,) in cursor.execute(f"SELECT {c} FROM lake.trips.{table}").fetchall()}
            for table, c in columns.items()
        }
    lake.close()
    return found


@pytest.mark.slow
def test_a_rollback_is_made_good_by_the_running_platform(tmp_path: Path):
    environment = project(tmp_path, 1, 28)
    file = tmp_path / "use_cases" / "trips" / "use_case.yaml"
    file.write_text(file.read_text() + "gate: {min_improvement: -1}\n")

    def command(*arguments: str) -> str:
        return run(environment, "ml-platform", *arguments)

    for table in ("ingest", "features", "labels"):
        command(table, "trips", "--range", "2024-03-01...2024-03-28")
    for version, cutoff in ((1, "2024-03-21"), (2, "2024-03-24")):
        command("train", "trips", "--cutoff", cutoff)
        command("promote", "trips", str(version))
    for table in ("score", "drift", "performance"):
        command(table, "trips", "--range", "2024-03-21...2024-03-28")
    assert served(environment)["predictions"] == {1, 2}

    only_one = {table: {1} for table in served(environment)}
    with dagster_dev(environment):
        assert "drift_report        5" in command("rollback", "trips", "--reason", "odd", "--yes")
        wait_until(lambda: served(environment) == only_one, "all is of version 1 again")

        config = {"ops": {"trips_roll_back": {"config": {
            "reason": "not odd after all", "version": 2, "from_partition": "2024-03-26",
        }}}}  # fmt: skip
        launch = ("dg", "launch", "--job", "trips_rollback", "--config-json", json.dumps(config))
        run(environment, *launch)
        both = {table: {1, 2} for table in only_one}
        wait_until(lambda: served(environment) == both, "version 2 serves again")
    assert "not odd after all" in command("history", "trips")
