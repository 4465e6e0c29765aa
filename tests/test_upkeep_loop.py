"""A use case after its lake was kept up: everything is explained and recomputed as before."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from typer.testing import CliRunner

from ml_platform.access import Audit
from ml_platform.backfill import judge
from ml_platform.cli.app import app
from ml_platform.features import assemble
from ml_platform.monitoring import report_drift
from ml_platform.registry.tracking import open_client
from ml_platform.scoring import reproduce, score
from ml_platform.status import read_costs
from ml_platform.storage import Lake
from ml_platform.storage.known_files import METADATA
from ml_platform.upkeep import keep_up, plan_upkeep
from ml_platform_dagster.assets.lake_upkeep import delete_failed_runs
from ml_platform_dagster.definitions import build_definitions
from tests.served import Deployment
from tests.trips_use_case import COMMIT, days, land, trips

pytestmark = pytest.mark.slow
LATER = timedelta(days=3)


@pytest.fixture
def environment(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(deployment.settings.use_cases))
    monkeypatch.setenv("ML_PLATFORM_DATA", str(deployment.settings.data))
    monkeypatch.setenv("USER", "ada")


def answers(made: Deployment) -> dict[str, Any]:
    """What the platform says of the use case's history."""
    lake, registry, case = made.lake, made.registry, made.use_case
    return {
        "states": judge(lake, case, days(1, 30)),
        "reproduced": [reproduce(lake, registry, case, days(day, day)) for day in range(21, 26)],
        "costs": [
            (c.table, c.runs, c.seconds, c.rows)
            for c in read_costs(lake, case, datetime.fromtimestamp(0, UTC))
        ],
    }


def training_rows(made: Deployment) -> pd.DataFrame:
    """What version 1 was fitted and judged on, read at its snapshot."""
    model = made.registry.load(made.use_case, 1)
    with made.lake.cursor(made.use_case.timezone) as cursor:
        return assemble(
            cursor, made.lake, made.use_case, days(1, 19), model.snapshot,
            labels_known_by=model.cutoff,
        )  # fmt: skip


def snapshots(lake: Lake) -> int:
    with lake.cursor() as cursor:
        row = cursor.execute(f"SELECT count(*) FROM {METADATA}.ducklake_snapshot").fetchone()
    return row[0]


def test_predictions_training_sets_and_what_is_stale_are_as_before(deployment: Deployment) -> None:
    lake, case = deployment.lake, deployment.use_case
    for day in range(21, 26):
        score(lake, deployment.registry, case, days(day, day), COMMIT)
    report_drift(lake, deployment.registry, case, days(25, 25), COMMIT)
    # Days that were corrected after they had been scored: their predictions are stale.
    land(lake, case, trips(23, 24, seed=1), days(23, 24))
    before, rows = answers(deployment), training_rows(deployment)
    assert all(each.is_exact for each in before["reproduced"])
    assert before["states"]["predictions"][days(23, 23)].is_due

    lake.settings = lake.settings.model_copy(update={"keep_snapshots": "1d"})
    count = snapshots(lake)
    done = keep_up(lake, [case], COMMIT, datetime.now(UTC) + LATER)
    assert done.problems == ()
    assert done.expired > 5
    assert done.expiry.reasons["model versions of trips"] == 1
    assert done.expiry.reasons["trips.predictions"] == 5
    assert snapshots(lake) < count
    assert answers(deployment) == before
    pd.testing.assert_frame_equal(training_rows(deployment), rows)


def test_the_command_says_what_it_would_do_and_is_audited(
    deployment: Deployment, environment: None
) -> None:
    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(app, ["upkeep", *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    audited = len(Audit(deployment.lake).rows(what="upkeep"))
    assert "would be deleted" in run("--dry-run")
    said = json.loads(run("--dry-run", "--json"))
    assert said["snapshots"]["kept_by"]["no retention is set"] == snapshots(deployment.lake)
    assert said["problems"] == []
    assert len(Audit(deployment.lake).rows(what="upkeep")) == audited
    assert "0 expired" in run()
    row = Audit(deployment.lake).rows(what="upkeep")[-1]
    assert (row.action.who, row.action.channel) == ("ada", "cli")


def test_the_job_does_the_same_and_is_audited(deployment: Deployment, environment: None) -> None:
    job = build_definitions(deployment.settings).resolve_job_def("lake_upkeep")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, tags={"user": "bo"})
    assert result.success
    (metadata,) = (
        event.step_output_data.metadata
        for event in result.all_node_events
        if event.is_successful_output
    )
    plan = plan_upkeep(deployment.lake, [], datetime.now(UTC))
    assert metadata["snapshots kept"].value <= plan.expiry.kept
    row = Audit(deployment.lake).rows(what="upkeep")[-1]
    assert (row.action.who, row.action.channel) == ("bo", "dagster")


def test_old_runs_that_no_version_names_are_deleted_in_mlflow(deployment: Deployment) -> None:
    settings, case = deployment.settings, deployment.use_case
    client = open_client(settings)
    experiment = client.get_experiment_by_name(case.name).experiment_id
    long_ago = int((datetime.now(UTC) - timedelta(days=40)).timestamp() * 1000)
    made = {}
    for name, tags, ended in (
        ("failed", {"fingerprint": "f"}, long_ago),
        ("of others", {}, long_ago),
        ("recent", {"fingerprint": "f"}, None),
    ):
        run = client.create_run(experiment, start_time=long_ago, tags=tags).info.run_id
        client.set_terminated(run, "FAILED", end_time=ended)
        made[name] = run
    running = client.create_run(experiment, start_time=long_ago, tags={"fingerprint": "f"})

    lake = deployment.lake
    keep = settings.model_copy(update={"keep_mlflow_runs": "30d"})
    lake.settings = keep
    now = datetime.now(UTC)
    assert plan_upkeep(lake, [case], now).mlflow_runs == (made["failed"],)
    assert keep_up(lake, [case], COMMIT, now).mlflow_runs == (made["failed"],)
    left = {run.info.run_id for run in client.search_runs([experiment])}
    version = client.get_model_version(case.name, "1")
    assert left == {made["of others"], made["recent"], running.info.run_id, version.run_id}
    assert plan_upkeep(lake, [case], now + LATER).mlflow_runs == ()
    lake.settings = settings


def test_old_runs_that_materialised_nothing_are_deleted_in_dagster() -> None:
    @dg.op
    def fails() -> None:
        raise ValueError("not today")

    @dg.op
    def materialises_and_fails(context: dg.OpExecutionContext):
        yield dg.AssetMaterialization("a")
        raise ValueError("too late")

    @dg.op
    def works() -> None:
        """Do nothing."""

    with dg.DagsterInstance.ephemeral() as instance:
        runs = [
            dg.GraphDefinition(name=f"job_{op.name}", node_defs=[op])
            .to_job()
            .execute_in_process(instance=instance, raise_on_error=False)
            .run_id
            for op in (fails, materialises_and_fails, works)
        ]
        assert delete_failed_runs(instance, None) == 0
        assert delete_failed_runs(instance, timedelta(days=1)) == 0
        assert delete_failed_runs(instance, timedelta()) == 1
        assert {run.run_id for run in instance.get_runs()} == set(runs[1:])
