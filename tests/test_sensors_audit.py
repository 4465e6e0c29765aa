"""Runs that people launch stand in the audit, those of automation do not."""

from collections.abc import Mapping
from datetime import UTC
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.access import Audit
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform_dagster.definitions import build_definitions
from ml_platform_dagster.resources import LakeResource
from ml_platform_dagster.sensors.audit import build_audit
from tests import trips_use_case as trips


@pytest.fixture
def use_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UseCase:
    monkeypatch.setenv("ML_PLATFORM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(tmp_path / "use_cases"))
    trips.write_folder(tmp_path / "use_cases", "binary", name="trips_too")
    return trips.load_use_case(trips.write_folder(tmp_path / "use_cases", "binary").folder)


def tick(use_case: UseCase, instance: dg.DagsterInstance, cursor: str | None = None) -> str | None:
    (sensor,) = build_audit(use_case, Settings())
    with dg.build_sensor_context(
        instance=instance, cursor=cursor, sensor_name=sensor.name,
        resources={"lake": LakeResource()},
    ) as context:  # fmt: skip
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result.cursor


def launch(instance: dg.DagsterInstance, name: str, **tags: str) -> str:
    """A run of the labels of a use case, which may fail as well as it likes."""
    labels = build_definitions(Settings()).resolve_assets_def(dg.AssetKey([name, "labels"]))
    defined = dg.Definitions([labels], jobs=[dg.define_asset_job(f"{name}_job", [labels])])
    job = defined.resolve_job_def(f"{name}_job")
    run = instance.create_run_for_job(
        job, tags={"dagster/partition": "2024-03-02", **tags},
        asset_selection=frozenset({dg.AssetKey([name, "labels"])}),
    )  # fmt: skip
    return run.run_id


def launch_job(instance: dg.DagsterInstance, name: str) -> str:
    """A run of a job that has no assets."""

    @dg.op
    def nothing() -> None: ...

    @dg.job(name=name)
    def job() -> None:
        nothing()

    return instance.create_run_for_job(job).run_id


def details() -> list[Mapping[str, str]]:
    lake = Lake(Settings())
    rows = Audit(lake).rows()
    lake.close()
    return [row.action.details for row in rows]


def recorded() -> list[tuple[str, str, str, str]]:
    lake = Lake(Settings())
    rows = Audit(lake).verify()
    lake.close()
    actions = [row.action for row in rows]
    return [(action.who, action.channel, action.what, action.details["run"]) for action in actions]


@pytest.mark.slow
def test_what_a_person_launched_is_recorded_once(use_case: UseCase) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = launch(instance, "trips", **{"user": "ada", "dagster/from_ui": "true"})
        launch(instance, "trips_too")
        for name in ("schedule_name", "sensor_name", "from_automation_condition", "retry_number"):
            launch(instance, "trips", **{f"dagster/{name}": "x"})
        launch(instance, "trips", **{"ml_platform/by": "bob"})
        cursor = tick(use_case, instance)
        tick(use_case, instance, cursor)
        assert recorded() == [("ada", "ui", "launch run", run)]
        launched = instance.get_run_record_by_id(run)
        assert launched is not None
        assert details()[0]["launched_at"] == launched.create_timestamp.replace(
            tzinfo=UTC
        ).isoformat(timespec="seconds")

        # A job is identified by its whole name: `trips` is how those of `trips_too` begin.
        launch_job(instance, "trips_too_rollback")
        run = launch_job(instance, "trips_rollback")
        everything = launch_job(instance, "__ASSET_JOB")
        cursor = tick(use_case, instance, cursor)
        assert [action[2:] for action in recorded()[1:]] == [
            ("launch run", run), ("launch run", everything),
        ]  # fmt: skip

        # A backfill is one action, however many runs it has.
        for _ in range(3):
            launch(instance, "trips", **{"dagster/backfill": "abc"})
        tick(use_case, instance, cursor)
        assert recorded()[3:] == [("somebody in Dagster", "dagster", "launch backfill", "abc")]
