"""The gate's check and picture, and rollback by job and sensor, run by Dagster on a real lake.

The tests are one story: each continues with the versions and decisions of those before it.
"""

import json
from collections.abc import Iterator

import dagster as dg
import pytest

from ml_platform.access import Audit
from ml_platform.registry import history
from ml_platform.settings import Settings
from ml_platform.storage import Lake
from ml_platform_dagster.assets.training import CHALLENGER_IS_BETTER
from ml_platform_dagster.definitions import build_definitions
from ml_platform_dagster.resources import RANGE_END, RANGE_START, LakeResource, RegistryResource
from ml_platform_dagster.sensors.attempts import ATTEMPT_OF, RETRIED_BY
from ml_platform_dagster.sensors.rollback import TABLES, build_rollback
from tests import trips_use_case as trips
from tests.test_assets import Location, land_files

pytestmark = pytest.mark.slow

KEY = dg.AssetKey(["trips", "promotions"])
GATE = "gate: {min_improvement: -0.2}\n"


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Location]:
    """A month with a model from the 21st on; any later one that is no worse passes the gate."""
    root = tmp_path_factory.mktemp("location")
    folder = trips.write_folder(root / "use_cases", "binary").folder
    with (folder / "use_case.yaml").open("a") as file:
        file.write(GATE)
    with pytest.MonkeyPatch.context() as patch, dg.instance_for_test() as instance:
        patch.setenv("ML_PLATFORM_DATA", str(root / "data"))
        patch.setenv("ML_PLATFORM_USE_CASES", str(root / "use_cases"))
        settings = Settings()
        land_files(settings, 1, 28)
        definitions = build_definitions(settings)
        use_case = trips.load_use_case(folder)
        location = Location(use_case, settings, instance, definitions)
        assert location.run(
            ["trips", "pace_features", "labels"], "2024-03-01", "2024-03-28"
        ).success
        assert location.run(["model", "promotions"], "2024-03-21").success
        yield location


def declared(location: Location, yaml: str) -> Location:
    """The same place, its use case declared with another gate."""
    file = location.use_case.folder / "use_case.yaml"
    before = file.read_text()
    file.write_text(before.replace(GATE, yaml))
    try:
        use_case = trips.load_use_case(location.use_case.folder)
        definitions = build_definitions(location.settings)
    finally:
        file.write_text(before)
    return Location(use_case, location.settings, location.instance, definitions)


def steps(result: dg.ExecuteInProcessResult, kind: dg.DagsterEventType) -> set[str]:
    return {e.step_key for e in result.all_events if e.event_type is kind and e.step_key}


def decisions(location: Location) -> list[tuple[int, str]]:
    lake = Lake(location.settings)
    found = [(p.version, p.decision) for p in history(lake, location.use_case)]
    lake.close()
    return found


def versions(location: Location, table: str, column: str) -> dict[int, set[int]]:
    """Which versions each day of a table names."""
    lake = Lake(location.settings)
    with lake.cursor("America/New_York") as cursor:
        rows = cursor.execute(
            f"SELECT DISTINCT day(window_start), {column} FROM lake.trips.{table}"
        ).fetchall()
    lake.close()
    days: dict[int, set[int]] = {}
    for day, version in rows:
        days.setdefault(day, set()).add(version)
    return days


def test_the_check_of_the_gate_is_blocking(location: Location) -> None:
    graph = location.definitions.resolve_asset_graph()
    (check,) = graph.get(KEY).check_keys
    assert check.name == CHALLENGER_IS_BETTER
    assert graph.get(check).blocking


def test_a_refusal_stops_the_run_without_failing_it_and_shows_why(location: Location) -> None:
    refusing = declared(location, "gate: {min_improvement: 0.9}\n")
    result = refusing.run(["model", "promotions", "predictions"], "2024-03-23")
    assert result.success
    (check,) = [
        e for e in result.get_asset_check_evaluations() if e.check_name == CHALLENGER_IS_BETTER
    ]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (check.description or "").startswith("2024-03-23: not better beyond noise; roc_auc ")
    assert steps(result, dg.DagsterEventType.STEP_SKIPPED) == {"trips__predictions"}
    assert decisions(location)[-1] == (2, "refused")
    assert "2024-03-23" in location.materialized("promotions")
    record = location.instance.get_latest_materialization_event(KEY)
    assert record is not None
    assert record.asset_materialization is not None
    metadata = record.asset_materialization.metadata
    assert metadata["decision"].value == "refused"
    assert str(metadata["comparison"].value).count("data:image/png;base64,") == 2
    assert float(str(metadata["improvement"].value)) > float(
        str(metadata["improvement_lower"].value)
    )
    assert str(metadata["newest decisions"].value).splitlines()[2:] == [
        "| 2024-03-23 | 2 | refused | promotion gate |",
        "| 2024-03-21 | 1 | promoted | promotion gate |",
    ]
    names = list(metadata)
    assert names[:5] == [
        "decision", "model version", "reason", "improvement interval", "comparison",
    ]  # fmt: skip
    interval = str(metadata["improvement interval"].value)
    assert interval.startswith("![improvement](<data:image/svg+xml,")
    assert len(interval) < 1000
    assert (
        names.index("improvement") < names.index("challenger_roc_auc") < names.index("confidence")
    )


def test_what_passes_reaches_predictions(location: Location) -> None:
    result = location.run(["model", "promotions", "predictions"], "2024-03-24")
    assert result.success
    assert not steps(result, dg.DagsterEventType.STEP_SKIPPED)
    assert decisions(location)[-1] == (3, "promoted")


def test_one_that_waits_passes_the_check_and_the_old_champion_predicts(
    location: Location,
) -> None:
    asking = declared(location, GATE + "retrain: {approval: required}\n")
    result = asking.run(["model", "promotions", "predictions"], "2024-03-26")
    assert result.success
    (check,) = [
        e for e in result.get_asset_check_evaluations() if e.check_name == CHALLENGER_IS_BETTER
    ]
    assert check.passed
    waits = "2024-03-26: waits for a person, see `ml-platform approvals`"
    assert (check.description or "").startswith(waits)
    assert decisions(location)[-1] == (4, "waiting")
    assert versions(location, "predictions", "model_version")[26] == {3}


def evaluate(location: Location, cursor: str | None) -> dg.SensorResult:
    (sensor,) = build_rollback(location.use_case, location.settings)
    resources = {"lake": LakeResource(), "registry": RegistryResource()}
    with dg.build_sensor_context(
        cursor=cursor, sensor_name=sensor.name, resources=resources
    ) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def execute(location: Location, request: dg.RunRequest) -> None:
    tables = [key.path[-1] for key in request.asset_selection or []]
    assert location.run(tables, request.tags[RANGE_START], request.tags[RANGE_END]).success


def asked_for(result: dg.SensorResult) -> list[tuple[list[str], str, str]]:
    return [
        ([k.path[-1] for k in r.asset_selection or []], r.tags[RANGE_START], r.tags[RANGE_END])
        for r in result.run_requests or []
    ]


def test_a_rollback_from_the_launchpad_is_made_good_by_the_sensor(location: Location) -> None:
    assert location.run(list(TABLES), "2024-03-21", "2024-03-25").success
    assert location.run(["predictions"], "2024-03-26").success
    assert evaluate(location, None).run_requests == []
    job = location.definitions.resolve_job_def("trips_rollback")
    config = {"ops": {"trips_roll_back": {"config": {"reason": "it is odd", "decided_by": "ada"}}}}
    result = job.execute_in_process(
        run_config=config, instance=location.instance, raise_on_error=False
    )
    assert result.success
    run = location.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags["ml_platform/rolled_back_to"] == "1"
    assert run.tags["ml_platform/from_partition"] == "2024-03-24"
    assert decisions(location)[-1] == (1, "rolled back")
    lake = Lake(location.settings)
    (row,) = Audit(lake).verify()
    lake.close()
    assert (row.action.who, row.action.channel, row.action.what) == ("ada", "ui", "roll back")
    assert (row.action.object, row.action.details["run"]) == ("version 1", result.run_id)

    first = evaluate(location, None)
    assert asked_for(first) == [(["predictions"], "2024-03-24", "2024-03-26")]
    # Where the run is lost it is asked for again, as the same.
    (asked,) = first.run_requests or []
    assert asked.tags[RETRIED_BY] == "trips_retries"
    assert asked.tags[ATTEMPT_OF] == f"trips_rollback/{asked.run_key}"
    waiting = evaluate(location, first.cursor)
    assert waiting.run_requests == []
    for request in first.run_requests or []:
        execute(location, request)
    second = evaluate(location, waiting.cursor)
    assert asked_for(second) == [
        (["drift_report"], "2024-03-24", "2024-03-25"),
        (["performance_report"], "2024-03-24", "2024-03-25"),
    ]
    for request in second.run_requests or []:
        execute(location, request)
    after = evaluate(location, second.cursor)
    assert after.run_requests == []
    assert json.loads(str(after.cursor))["later"] == []

    every_day = {day: {1} for day in range(21, 27)}
    assert versions(location, "predictions", "model_version") == every_day
    reports = {day: {1} for day in range(21, 26)}
    assert versions(location, "drift_report", "reference_version") == reports
    assert versions(location, "performance_report", "unnest(model_versions)") == reports


def test_a_rollback_that_is_refused_fails_its_run_with_the_reason(location: Location) -> None:
    job = location.definitions.resolve_job_def("trips_rollback")
    config = {"ops": {"trips_roll_back": {"config": {"reason": "once more", "version": 2}}}}
    result = job.execute_in_process(
        run_config=config, instance=location.instance, raise_on_error=False
    )
    assert not result.success
    (failure,) = [e for e in result.all_events if e.is_step_failure]
    assert "version 2 of trips never served" in failure.step_failure_data.error.cause.message


def test_the_launchpad_describes_what_it_asks_for(location: Location) -> None:
    job = location.definitions.resolve_job_def("trips_rollback")
    fields = job.get_node_named("trips_roll_back").definition.config_schema.config_type.fields
    assert set(fields) == {"reason", "version", "from_partition", "serving", "decided_by"}
    assert all(field.description for field in fields.values())
    assert fields["reason"].is_required
