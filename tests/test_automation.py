"""Tables follow what they depend on: real conditions over a real lake, runs in process."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform_dagster.assets.features import NO_LEAK
from ml_platform_dagster.definitions import build_definitions
from ml_platform_dagster.resources.ranges import RANGES
from ml_platform_dagster.sensors.automation import build_automation
from tests import trips_use_case as trips

pytestmark = pytest.mark.slow

LAST = 28
CUTOFF = "2024-03-21"
FOLLOWERS = {
    "pace_features",
    "online_features",
    "labels",
    "predictions",
    "drift_report",
    "performance_report",
}
Ranges = dict[str, tuple[str, str]]


@dataclass
class Loop:
    """A code location whose automation sensor is asked by hand."""

    root: Path
    instance: dg.DagsterInstance
    cursor: str | None = None
    definitions: dg.Definitions = field(init=False)

    def __post_init__(self) -> None:
        self.definitions = build_definitions(Settings())
        self.use_case = load_use_case(self.root / "use_cases" / "trips")

    def land(self, day: int, seed: int = 0) -> None:
        folder = Path(Settings().landing_uri) / "trips"
        folder.mkdir(parents=True, exist_ok=True)
        trips.trips(day, day, a_day=60, seed=seed).to_csv(folder / f"{day:02d}.csv", index=False)

    def run(self, tables: Sequence[str], first: str, last: str, **tags: str) -> bool:
        job = self.definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(["trips", table]) for table in tables],
            tags={
                "dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last,
                **tags,
            },
            raise_on_error=False,
        ).success

    def ingest(self, day: int) -> None:
        assert self.run(["trips"], on(day), on(day))

    def tick(self) -> list[Ranges]:
        """The ranges of each run that is requested now."""
        return [window_ranges(request) for request in self._evaluate()]

    def follow(self) -> list[Ranges]:
        """As `tick`, and the runs are done."""
        requests = self._evaluate()
        for request in requests:
            tables = [key.path[-1] for key in request.asset_selection or ()]
            first = request.tags["dagster/asset_partition_range_start"]
            last = request.tags["dagster/asset_partition_range_end"]
            tag = {RANGES: request.tags[RANGES]}
            assert self.run(tables, first, last, **tag)
        return [window_ranges(request) for request in requests]

    def materialized(self, table: str) -> set[str]:
        return self.instance.get_materialized_partitions(dg.AssetKey(["trips", table]))

    def count(self, table: str) -> int:
        """How often partitions of a table were materialised."""
        records = dg.AssetRecordsFilter(dg.AssetKey(["trips", table]))
        return len(self.instance.fetch_materializations(records, 1000).records)

    def judge(self, passed: bool) -> None:
        """Record an outcome of the leak check, as a run of the view does."""
        self.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey(["trips", "pace_features"]), check_name=NO_LEAK, passed=passed
            )
        )

    def _evaluate(self) -> list[dg.RunRequest]:
        (sensor,) = build_automation(self.use_case, Settings())
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            sensor_name=sensor.name,
            repository_def=self.definitions.get_repository_def(),
        ) as context:
            found = sensor.evaluate_tick(context)
        self.cursor = found.cursor
        return list(found.run_requests or [])


def window_ranges(request: dg.RunRequest) -> Ranges:
    read = json.loads(request.tags[RANGES])
    return {table: (first, last) for table, (first, last) in read.items()}


def on(day: int) -> str:
    return f"2024-03-{day:02d}"


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """Four weeks, computed before automation is switched on; the champion serves from the 21st."""
    root = tmp_path_factory.mktemp("loop")
    trips.write_folder(root / "use_cases", "binary")
    with pytest.MonkeyPatch.context() as patch, dg.instance_for_test() as instance:
        patch.setenv("ML_PLATFORM_DATA", str(root / "data"))
        patch.setenv("ML_PLATFORM_USE_CASES", str(root / "use_cases"))
        loop = Loop(root, instance)
        for day in range(1, LAST + 1):
            loop.land(day)
        assert loop.run(["trips"], on(1), on(LAST))
        assert loop.run(["pace_features", "labels", "online_features"], on(1), on(LAST))
        assert loop.run(["model", "promotions"], CUTOFF, CUTOFF)
        served = ["predictions", "drift_report", "performance_report"]
        assert loop.run(served, CUTOFF, on(LAST))
        yield loop


def dependants(loop: Loop, table: str, day: int) -> dict[str, set[str]]:
    """What the asset graph says depends on a partition, through any number of tables."""
    graph = loop.definitions.resolve_asset_graph()
    found: dict[str, set[str]] = {}
    waiting = [(dg.AssetKey(["trips", table]), on(day))]
    while waiting:
        key, partition = waiting.pop()
        for child in graph.get(key).child_keys:
            name = child.path[-1]
            if name not in FOLLOWERS:
                continue
            for each in graph.get_child_partition_keys_of_parent(partition, key, child):
                if each not in found.setdefault(name, set()):
                    found[name].add(each)
                    waiting.append((child, each))
    return found


def keys_between(loop: Loop, window_ranges: Ranges) -> dict[str, set[str]]:
    calendar = loop.use_case.calendar
    found = {}
    for table, (first, last) in window_ranges.items():
        whole = trips.Window(calendar.window(first).start, calendar.window(last).end)
        found[table] = {calendar.key(window) for window in calendar.windows(whole)}
    return found


def start(loop: Loop, table: str, partition: str) -> dg.DagsterRun:
    """A run of one partition that computes nothing and is under way until it is canceled."""
    keys = [dg.AssetKey(["trips", table])]
    job = loop.definitions.resolve_implicit_global_asset_job_def()
    running = loop.instance.create_run_for_job(
        job.get_subset(asset_selection=set(keys)),
        asset_selection=frozenset(keys),
        tags={"dagster/partition": partition},
    )
    loop.instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job.name), run_id=running.run_id
    )
    return running


@pytest.mark.exhaustive
def test_what_was_there_before_automation_is_not_computed_again(loop: Loop) -> None:
    assert loop.tick() == []


@pytest.mark.exhaustive
def test_a_corrected_day_recomputes_what_the_lineage_says_and_no_more(loop: Loop) -> None:
    loop.tick()
    loop.land(23, seed=5)
    loop.ingest(23)
    (requested,) = loop.follow()
    landed = {on(day) for day in range(1, LAST + 1)}
    expected = {table: days & landed for table, days in dependants(loop, "trips", 23).items()}
    assert keys_between(loop, requested) == expected
    # Visible: a day of lookback, a day of ttl, labels that look a day ahead.
    assert requested["pace_features"] == (on(23), on(24))
    assert requested["predictions"] == (on(23), on(25))
    assert requested["labels"] == (on(22), on(23))
    assert requested["performance_report"] == (on(22), on(25))
    assert loop.tick() == []


@pytest.mark.exhaustive
def test_a_run_computes_its_range_of_each_table(loop: Loop) -> None:
    loop.tick()
    counts = {table: loop.count(table) for table in FOLLOWERS}
    loop.land(26, seed=6)
    loop.ingest(26)
    (requested,) = loop.follow()
    days = keys_between(loop, requested)
    assert {table: loop.count(table) - counts[table] for table in FOLLOWERS} == {
        table: len(days[table] & loop.materialized(table)) for table in FOLLOWERS
    }


@pytest.mark.exhaustive
def test_what_changes_nothing_is_followed_by_nothing(loop: Loop) -> None:
    loop.tick()
    loop.ingest(24)
    assert loop.tick() == []
    assert loop.run(["pace_features", "labels"], on(20), on(26))
    assert loop.tick() == []


def test_a_new_day_brings_its_own_partitions_and_none_of_days_to_come(loop: Loop) -> None:
    loop.tick()
    loop.land(LAST + 1)
    loop.ingest(LAST + 1)
    (requested,) = loop.follow()
    assert requested == {
        "pace_features": (on(29), on(29)),
        "online_features": (on(29), on(29)),
        "labels": (on(28), on(29)),
        "predictions": (on(29), on(29)),
        "drift_report": (on(28), on(29)),
        "performance_report": (on(28), on(29)),
    }
    assert on(29) in loop.materialized("performance_report")
    assert loop.tick() == []


@pytest.mark.exhaustive
def test_days_before_the_first_champion_are_not_scored(loop: Loop) -> None:
    loop.tick()
    loop.land(5, seed=7)
    loop.ingest(5)
    computed, reported = loop.follow()
    assert computed.keys() == {"pace_features", "online_features", "labels"}
    # Their features are part of the trailing window of reports of days that have a champion.
    assert reported.keys() == {"drift_report"}
    assert reported["drift_report"][0] == CUTOFF
    assert loop.tick() == []


@pytest.mark.exhaustive
def test_a_promotion_scores_no_day_again_and_training_is_never_asked_for(loop: Loop) -> None:
    loop.tick()
    assert loop.run(["model", "promotions"], on(26), on(26))
    assert loop.tick() == []


@pytest.mark.exhaustive
def test_nothing_goes_past_a_blocking_check_that_failed_in_another_run(loop: Loop) -> None:
    loop.tick()
    loop.land(27, seed=8)
    loop.ingest(27)
    assert loop.run(["pace_features", "labels"], on(26), on(28))
    loop.judge(passed=False)
    window_ranges = loop.tick()
    waiting = {"online_features", "predictions", "drift_report"}
    assert all(waiting.isdisjoint(each) for each in window_ranges)
    loop.judge(passed=False)
    assert loop.tick() == []


@pytest.mark.exhaustive
def test_a_partition_in_progress_is_not_asked_for_a_second_time(loop: Loop) -> None:
    loop.judge(passed=True)
    loop.follow()
    loop.land(25, seed=9)
    loop.ingest(25)
    running = start(loop, "pace_features", on(25))
    held = loop.tick()
    assert all(on(25) < each.get("pace_features", (on(26), ""))[0] for each in held)
    loop.instance.report_run_canceled(running)
    (requested,) = loop.tick()
    assert requested["pace_features"][0] == on(25)


@pytest.mark.exhaustive
def test_what_a_run_has_computed_is_not_asked_for_when_it_is_over(loop: Loop) -> None:
    loop.land(25, seed=10)
    loop.ingest(25)
    running = start(loop, "pace_features", on(25))
    loop.tick()
    assert loop.run(["pace_features"], on(25), on(26))
    loop.instance.report_run_canceled(running)
    (requested,) = loop.follow()
    assert "pace_features" not in requested
    # Features of the day after came out as they were.
    assert requested["predictions"] == (on(25), on(26))
    assert loop.tick() == []


def test_a_materialisation_that_a_person_reports_stops_nothing(loop: Loop) -> None:
    loop.tick()
    key = dg.AssetKey(["trips", "online_features"])
    loop.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=on(22)))
    loop.land(22, seed=11)
    loop.ingest(22)
    # Computed by hand, so that the views are written and not requested.
    assert loop.run(["pace_features"], on(22), on(23))
    (requested,) = loop.follow()
    assert on(22) == requested["online_features"][0]


@pytest.mark.exhaustive
def test_the_first_champion_begins_with_the_days_that_come(tmp_path: Path) -> None:
    trips.write_folder(tmp_path / "use_cases", "binary")
    with pytest.MonkeyPatch.context() as patch, dg.instance_for_test() as instance:
        patch.setenv("ML_PLATFORM_DATA", str(tmp_path / "data"))
        patch.setenv("ML_PLATFORM_USE_CASES", str(tmp_path / "use_cases"))
        loop = Loop(tmp_path, instance)
        assert loop.tick() == []
        for day in range(1, 25):
            loop.land(day)
        assert loop.run(["trips"], on(1), on(24))
        assert len(loop.follow()) == 1
        assert loop.materialized("predictions") == set()
        assert loop.tick() == []
        assert loop.run(["model", "promotions"], CUTOFF, CUTOFF)
        assert loop.tick() == []
        loop.land(25)
        loop.ingest(25)
        (requested,) = loop.follow()
        assert requested["predictions"] == (on(25), on(25))
        assert loop.tick() == []
