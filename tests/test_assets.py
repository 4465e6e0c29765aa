"""The Dagster assets of a small use case, run by Dagster itself on a real lake."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.features import open_online_store
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.tables import computed_tables, reads_of
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform_dagster.assets.features import NO_LEAK
from ml_platform_dagster.assets.metadata import asset_key
from ml_platform_dagster.assets.monitoring import NO_DRIFT
from ml_platform_dagster.definitions import build_definitions
from ml_platform_dagster.resources import range_tags
from tests import trips_use_case as trips
from tests.served import LOGGED

pytestmark = pytest.mark.slow

FIRST, LAST = 1, 28
CUTOFF = "2024-03-21"


@dataclass(frozen=True)
class Location:
    """A code location with its own instance; runs are in process."""

    use_case: UseCase
    settings: Settings
    instance: dg.DagsterInstance
    definitions: dg.Definitions

    def run(
        self, tables: Sequence[str], first: str, last: str | None = None
    ) -> dg.ExecuteInProcessResult:
        job = self.definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(["trips", table]) for table in tables],
            tags=range_tags([first, last or first]),
            raise_on_error=False,
        )

    def materialized(self, table: str) -> set[str]:
        return self.instance.get_materialized_partitions(dg.AssetKey(["trips", table]))

    def spec(self, table: str) -> dg.AssetSpec:
        key = dg.AssetKey(["trips", table])
        return next(s for s in self.definitions.resolve_all_asset_specs() if s.key == key)


def land_files(settings: Settings, first: int, last: int) -> None:
    folder = Path(settings.landing_uri) / "trips"
    folder.mkdir(parents=True, exist_ok=True)
    rows = trips.trips(first, last, a_day=60)
    for day, part in rows.groupby(rows["started_at"].dt.strftime("%Y-%m-%d")):
        part.to_csv(folder / f"{day}.csv", index=False)


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Location]:
    root = tmp_path_factory.mktemp("location")
    use_case = trips.write_folder(root / "use_cases", "binary")
    broken = root / "use_cases" / "broken"
    broken.mkdir()
    (broken / "use_case.yaml").write_text("description: Nothing else\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_PLATFORM_DATA", str(root / "data"))
        patch.setenv("ML_PLATFORM_USE_CASES", str(root / "use_cases"))
        settings = Settings()
        land_files(settings, FIRST, LAST)
        with dg.instance_for_test() as instance:
            yield Location(use_case, settings, instance, build_definitions(settings))


@pytest.fixture(scope="module")
def walked(location: Location) -> Location:
    """The month ingested, featured, trained on once, scored and reported."""
    month = (f"2024-03-{FIRST:02d}", f"2024-03-{LAST:02d}")
    assert location.run(["trips", "pace_features", "labels"], *month).success
    assert location.run(["model", "promotions"], CUTOFF).success
    reports = ["predictions", "drift_report", "performance_report"]
    assert location.run(reports, "2024-03-18", "2024-03-27").success
    return location


def test_every_table_is_an_asset_of_the_use_case(location: Location) -> None:
    keys = {s.key.to_user_string() for s in location.definitions.resolve_all_asset_specs()}
    tables = (
        "trips pace_features online_features labels model promotions predictions drift_report "
        "performance_report"
    )
    assert keys == {f"trips/{table}" for table in tables.split()} | {"broken/is_broken"}


def test_partitions_depend_on_the_windows_that_their_tables_read(tmp_path: Path) -> None:
    # Dagster says which partitions an automation looks at, `reads_of` which of them are due.
    folder = trips.write_folder(tmp_path, "binary").folder
    spec = folder / "use_case.yaml"
    spec.write_text(spec.read_text() + LOGGED)
    use_case, settings = load_use_case(folder), Settings(data=tmp_path / "data", use_cases=tmp_path)
    graph = build_definitions(settings).resolve_asset_graph()
    calendar, written = use_case.calendar, "2024-03-15"
    windows = list(calendar.windows(Window(trips.at(1), trips.at(1, month=6))))
    for table in computed_tables(use_case):
        child, reads = asset_key(use_case, table), reads_of(use_case, table)
        parents = graph.get(child).parent_keys - {asset_key(use_case, "promotions")}
        assert {key.path[-1] for key in parents} == {read.table for read in reads}
        for parent in parents:
            ranges = [read.range for read in reads if read.table == parent.path[-1]]
            assert list(graph.get_child_partition_keys_of_parent(written, parent, child)) == [
                calendar.key(window)
                for window in windows
                if any(
                    calendar.window(written) in calendar.windows(seen(window)) for seen in ranges
                )
            ]


def test_a_broken_use_case_shows_what_is_wrong_with_it(location: Location) -> None:
    specs = location.definitions.resolve_all_asset_specs()
    (broken,) = [s for s in specs if s.key == dg.AssetKey(["broken", "is_broken"])]
    assert broken.description is not None
    assert "use_case.yaml:1 sources: is missing" in broken.description


def test_assets_say_what_they_are(location: Location) -> None:
    spec = location.spec("pace_features")
    assert spec.group_name == "trips"
    assert spec.kinds == {"ducklake", "sql"}
    assert spec.code_version
    columns = [c.name for c in spec.metadata["dagster/column_schema"].columns]
    assert columns == ["trip", "event_time", "pace"]
    lineage = spec.metadata["dagster/column_lineage"].deps_by_column
    assert [(d.asset_key.to_user_string(), d.column_name) for d in lineage["pace"]] == [
        ("trips/trips", "distance")
    ]
    assert "```sql" in (spec.description or "")


def test_tables_of_an_open_history_should_be_made_once_a_window(location: Location) -> None:
    # A day, and the half of one that a daily partition may take to come.
    policy = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36))
    assert location.spec("predictions").freshness_policy == policy
    assert location.spec("model").freshness_policy is None


def test_the_code_version_follows_the_query(location: Location, tmp_path: Path) -> None:
    changed = trips.write_folder(tmp_path, "binary")
    sql = changed.folder / "features" / "pace.sql"
    sql.write_text(sql.read_text().replace("/ 60", "/ 61"))
    definitions = build_definitions(Settings(use_cases=tmp_path))
    versions = {s.key.path[-1]: s.code_version for s in definitions.resolve_all_asset_specs()}
    assert versions["pace_features"] != location.spec("pace_features").code_version
    assert versions["trips"] == location.spec("trips").code_version


def test_a_feature_partition_depends_on_its_lookback_and_no_more(location: Location) -> None:
    graph = location.definitions.resolve_asset_graph()
    parents = graph.get_parents_partitions(dg.AssetKey(["trips", "pace_features"]), "2024-03-11")
    # The day before, across the change of clocks on the 10th.
    keys = {p.partition_key for p in parents.parent_partitions}
    assert keys == {"2024-03-10", "2024-03-11"}


def test_a_range_run_has_metadata_for_each_partition(walked: Location) -> None:
    records = walked.instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey(["trips", "trips"]), asset_partitions=["2024-03-10"]), 1
    ).records
    materialization = records[0].asset_materialization
    assert materialization is not None
    assert materialization.metadata["dagster/partition_row_count"].value == 60
    assert materialization.metadata["quarantined"].value == 0


def test_partitions_without_a_champion_stay_unmaterialised(walked: Location) -> None:
    served = {f"2024-03-{day}" for day in range(21, 28)}
    assert walked.materialized("predictions") == served
    assert walked.materialized("performance_report") == served


def test_drift_has_a_status_for_each_partition(walked: Location) -> None:
    key = dg.AssetCheckKey(dg.AssetKey(["trips", "drift_report"]), NO_DRIFT)
    records = walked.instance.event_log_storage.get_asset_check_execution_history(key, limit=50)
    judged = {
        r.event.dagster_event.asset_check_evaluation_data.partition
        for r in records
        if r.event.dagster_event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION
    }
    assert {f"2024-03-{day}" for day in range(21, 28)} <= judged


def test_the_newest_report_of_a_run_shows_the_trend_and_its_check_the_partition(
    walked: Location,
) -> None:
    found = {}
    for key in ("2024-03-26", "2024-03-27"):
        asked = dg.AssetRecordsFilter(
            dg.AssetKey(["trips", "drift_report"]), asset_partitions=[key]
        )
        (record,) = walked.instance.fetch_materializations(asked, limit=1).records
        assert record.asset_materialization is not None
        found[key] = record.asset_materialization.metadata
    assert list(found["2024-03-27"])[:2] == ["status", "trend"]
    said = "share of columns drifted, 7 partitions from 2024-03-21 to 2024-03-27"
    assert said in str(found["2024-03-27"]["trend"].value)
    assert "trend" not in found["2024-03-26"]
    check = dg.AssetCheckKey(dg.AssetKey(["trips", "drift_report"]), NO_DRIFT)
    records = walked.instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
    evaluation = records[0].event.dagster_event.asset_check_evaluation_data  # type: ignore[union-attr]
    assert "2024-03-27: 0 of " in str(evaluation.description)


def test_a_model_shows_its_plots_in_the_ui(walked: Location) -> None:
    record = walked.instance.get_latest_materialization_event(dg.AssetKey(["trips", "model"]))
    assert record is not None
    assert record.asset_materialization is not None
    metadata = record.asset_materialization.metadata
    assert "data:image/png;base64," in str(metadata["plots"].value)
    assert metadata["model version"].value == 1


def test_materialising_again_changes_no_row_and_makes_no_snapshot(walked: Location) -> None:
    def snapshot() -> int:
        from ml_platform.storage import Lake

        lake = Lake(walked.settings)
        with lake.cursor() as cursor:
            newest = lake.snapshot(cursor)
        lake.close()
        return newest

    before = snapshot()
    tables = ["trips", "predictions", "drift_report"]
    assert walked.run(tables, "2024-03-22", "2024-03-24").success
    assert snapshot() == before


def test_materialising_features_again_writes_what_was_checked_and_nothing_else(
    walked: Location,
) -> None:
    def stamps() -> list[tuple[int, int]]:
        from ml_platform.storage import Lake

        lake = Lake(walked.settings)
        with lake.cursor() as cursor:
            found = [
                cursor.execute(f"SELECT count(*), max(_snapshot) FROM lake.trips.{t}").fetchall()
                for t in ("pace_features", "labels")
            ]
        lake.close()
        return [row for rows in found for row in rows]

    before = stamps()
    assert walked.run(["pace_features", "labels"], "2024-03-22", "2024-03-24").success
    assert stamps() == before


def test_a_partition_that_cannot_be_computed_fails_with_the_reason(walked: Location) -> None:
    result = walked.run(["predictions"], "2024-03-05")
    assert not result.success
    (failure,) = [e for e in result.all_events if e.is_step_failure]
    assert "no promotion is effective" in failure.step_failure_data.error.cause.message


def test_a_planted_leak_fails_the_check_of_its_view_or_of_the_labels(tmp_path: Path) -> None:
    use_case = trips.write_folder(tmp_path / "use_cases", "binary")
    (use_case.folder / "features" / "pace.sql").write_text(
        "SELECT trip, started_at AS event_time, avg(delay) OVER () AS pace FROM trips\n"
    )
    with pytest.MonkeyPatch.context() as patch, dg.instance_for_test() as instance:
        patch.setenv("ML_PLATFORM_DATA", str(tmp_path / "data"))
        patch.setenv("ML_PLATFORM_USE_CASES", str(tmp_path / "use_cases"))
        settings = Settings()
        land_files(settings, 1, 2)
        leaking = Location(use_case, settings, instance, build_definitions(settings))
        result = leaking.run(["trips", "pace_features"], "2024-03-02")
        labels = leaking.run(["labels"], "2024-03-01")
        (use_case.folder / "labels.sql").write_text(
            "SELECT trip, started_at AS event_time, delay > 10 AS label, "
            "started_at - INTERVAL 1 HOUR AS known_at FROM trips\n"
        )
        leaking = Location(use_case, settings, instance, build_definitions(settings))
        early = leaking.run(["labels"], "2024-03-02")
    for run, passed in ((result, False), (labels, True), (early, False)):
        (check,) = [e for e in run.get_asset_check_evaluations() if e.check_name == NO_LEAK]
        assert check.passed is passed
        if not passed:
            assert "a leak in partition 2024-03-02" in (check.description or "")


def test_a_setting_caps_the_partitions_of_a_run(location: Location, tmp_path: Path) -> None:
    trips.write_folder(tmp_path, "binary")
    settings = Settings(use_cases=tmp_path, max_partitions_per_run=7)
    graph = build_definitions(settings).resolve_asset_graph()
    policy = graph.get(dg.AssetKey(["trips", "pace_features"])).backfill_policy
    assert policy == dg.BackfillPolicy.multi_run(7)
    uncapped = location.definitions.resolve_asset_graph()
    policy = uncapped.get(dg.AssetKey(["trips", "pace_features"])).backfill_policy
    assert policy == dg.BackfillPolicy.single_run()


def test_the_newest_features_are_stored_online(walked: Location) -> None:
    first, last = f"2024-03-{FIRST:02d}", f"2024-03-{LAST:02d}"
    assert walked.run(["online_features"], first, last).success
    records = walked.instance.fetch_materializations(
        dg.AssetKey(["trips", "online_features"]), limit=LAST
    ).records
    found = {r.partition_key: r.asset_materialization.metadata for r in records}  # type: ignore[union-attr]
    rows = {key: metadata["rows of pace"].value for key, metadata in found.items()}
    # The ttl is a day: what requests of the last two days need reaches one day further back.
    assert [day for day, count in sorted(rows.items()) if count] == [
        "2024-03-26",
        "2024-03-27",
        "2024-03-28",
    ]
    assert rows[last] == found[last]["dagster/partition_row_count"].value == 60
    assert found[last]["newest of pace"].value == "2024-03-29T01:38:00+00:00"
    assert float(str(found[last]["age of pace in hours"].value)) > 0

    store = open_online_store(walked.settings)
    assert store.count("trips", "pace") == 180
    store.close()
    spec = walked.spec("online_features")
    assert spec.kinds == {"sqlite"}
    assert [dep.asset_key.to_user_string() for dep in spec.deps] == ["trips/pace_features"]
